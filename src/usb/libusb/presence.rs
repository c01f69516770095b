//! Whether an open device is still there: hang-ups that the kernel reports before libusb knows,
//! and passes over a device's events that fail.
//!
//! Contract: plain state, for the reactor; nothing here blocks or allocates.

use std::time::{Duration, Instant};

use usbferry_sys::libusb::error::Error;

use crate::complaints::warn;
use crate::deadline::earlier;
use crate::wire::types::BusId;

/// Time to the next look after a hang-up: the kernel reports a hang-up before libusb can act on it
/// (`usbdev_remove` and `usbdev_poll` of `drivers/usb/core/devio.c`).
pub(super) const RECHECK: Duration = Duration::from_millis(2);

/// Looks before a hung-up device is taken for gone whatever libusb says: a second.
pub(super) const RECHECKS_MAX: u32 = 500;

/// What is known of a device's presence.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// When to look again after a hang-up, and how often that was done.
    recheck: Option<Instant>,
    rechecks: u32,
    /// When to look again after a pass over the events that failed, and how many failed in a row.
    retry: Option<Instant>,
    failures: u32,
    /// The device is gone, as far as this process is concerned, and stays gone.
    gone: bool,
}

impl Presence {
    /// A descriptor of the device was reported as hung up.
    pub(super) fn hung_up(&mut self, now: Instant) {
        self.recheck.get_or_insert(now + RECHECK);
    }

    /// Counts the looks after a hang-up. Returns whether this was the last: the device is taken for
    /// gone.
    #[inline]
    pub(super) fn look(&mut self, now: Instant) -> bool {
        self.recheck.is_some() && self.look_again(now)
    }

    #[cold]
    fn look_again(&mut self, now: Instant) -> bool {
        if self.recheck.is_some_and(|at| at <= now) {
            self.rechecks += 1;
            self.recheck = Some(now + RECHECK);
        }
        let is_last = self.rechecks > RECHECKS_MAX;
        self.gone |= is_last;
        is_last
    }

    /// Notes how a pass over the device's events went. A signal may interrupt a pass, and a system
    /// that is short of something may fail it: neither is an unplug, and another pass follows.
    /// Where passes fail for as long as a hang-up may take, the transfers would never end. Returns
    /// whether this pass was the last.
    #[inline]
    pub(super) fn note_pass(
        &mut self,
        handled: Result<(), Error>,
        busid: &BusId,
        now: Instant,
    ) -> bool {
        match handled {
            Ok(()) => {
                if self.failures > 0 {
                    (self.retry, self.failures) = (None, 0);
                }
                false
            }
            Err(error) => self.note_error(error, busid, now),
        }
    }

    #[cold]
    fn note_error(&mut self, error: Error, busid: &BusId, now: Instant) -> bool {
        let is_last = match error {
            Error::Interrupted => false,
            Error::NoDevice => true,
            error => self.note_failure(error, busid, now),
        };
        self.gone |= is_last;
        is_last
    }

    fn note_failure(&mut self, error: Error, busid: &BusId, now: Instant) -> bool {
        if self.failures == 0 {
            warn!("{busid}: libusb can't handle the device's events: {error}");
        }
        self.failures += 1;
        self.retry = Some(now + RECHECK);
        self.failures > RECHECKS_MAX
    }

    /// libusb has seen the device go, or not.
    pub(super) const fn note_gone(&mut self, is_gone: bool) {
        self.gone |= is_gone;
    }

    pub(super) const fn is_gone(&self) -> bool {
        self.gone
    }

    /// When to look again, if no event comes before. The transfers of a device that is gone end
    /// with an event.
    #[inline(always)]
    pub(super) fn next_look(&self) -> Option<Instant> {
        if self.gone { None } else { earlier(self.recheck, self.retry) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSID: &str = "1-1";

    fn fail(presence: &mut Presence, error: Error, now: Instant) {
        presence.note_pass(Err(error), &BusId::new(BUSID).unwrap(), now);
    }

    /// [`Reaped::gone`](crate::usb::Reaped) says so for every call to come.
    #[test]
    fn a_device_that_is_gone_stays_gone() {
        let now = Instant::now();
        let mut presence = Presence::default();
        fail(&mut presence, Error::NoDevice, now);
        assert!(presence.is_gone());
        presence.note_pass(Ok(()), &BusId::new(BUSID).unwrap(), now);
        presence.note_gone(false);
        presence.look(now);
        assert!(presence.is_gone());
        presence.hung_up(now);
        assert_eq!(presence.next_look(), None, "nothing is waited for");
    }

    #[test]
    fn passes_that_fail_end_a_device_only_in_a_row() {
        let mut now = Instant::now();
        let mut presence = Presence::default();
        for _ in 0..RECHECKS_MAX {
            fail(&mut presence, Error::Interrupted, now);
            fail(&mut presence, Error::Io, now);
            assert_eq!(presence.next_look(), Some(now + RECHECK));
            now += RECHECK;
        }
        assert!(!presence.is_gone());
        presence.note_pass(Ok(()), &BusId::new(BUSID).unwrap(), now);
        assert_eq!(presence.next_look(), None);
        for failures in 0..=RECHECKS_MAX {
            assert!(!presence.is_gone(), "{failures} failures");
            fail(&mut presence, Error::Io, now);
        }
        assert!(presence.is_gone());
    }

    #[test]
    fn a_hang_up_is_the_end_when_nothing_else_is_said_for_a_second() {
        let begun = Instant::now();
        let mut presence = Presence::default();
        presence.look(begun);
        assert_eq!(presence.next_look(), None);
        presence.hung_up(begun);
        while !presence.is_gone() {
            let now = presence.next_look().expect("there is another look");
            assert!(now <= begun + RECHECK * (RECHECKS_MAX + 2), "it never ends");
            presence.hung_up(now);
            presence.look(now - RECHECK / 2);
            assert_eq!(presence.next_look(), Some(now), "too early");
            presence.look(now);
        }
        assert_eq!(presence.next_look(), None);
    }
}
