//! The end of a wait without an event: at the earliest deadline.
//!
//! A timeout of a wait sets a timer of the kernel and takes the timer back, which costs Linux 6.18
//! 0.2 µs for each wait: a fiftieth of a small URB's whole round. Most deadlines are seconds away,
//! and are later with each turn. So the reactor has a timer of its own (`timerfd_create(2)`), which
//! stays set: the timer may make a turn for a deadline that has moved, but none comes too late.
//!
//! Elsewhere each wait has its timeout.
//!
//! Contract: runs on the reactor; never blocks or allocates.

use std::io;
use std::time::{Duration, Instant};

use mio::Registry;

#[cfg(target_os = "linux")]
use usbferry_sys::os::timer::Timer;

/// Times up to which a wait has its timeout: setting the timer costs as much as a few timeouts.
#[cfg(target_os = "linux")]
const NEAR: Duration = Duration::from_millis(20);

/// The timer of deadlines.
#[cfg(target_os = "linux")]
pub(super) struct Alarm {
    timer: Timer,
    /// When the timer goes off, unless it has.
    set: Option<Instant>,
}

#[cfg(target_os = "linux")]
impl Alarm {
    /// # Errors
    /// The system's, when there is no descriptor left.
    pub(super) fn new(registry: &Registry) -> io::Result<Self> {
        use std::os::fd::{AsFd, AsRawFd};

        use mio::Interest;
        use mio::unix::SourceFd;

        use super::token::Subject;

        let timer = Timer::new()?;
        let (descriptor, token) = (timer.as_fd().as_raw_fd(), Subject::Alarm.to_token());
        registry.register(&mut SourceFd(&descriptor), token, Interest::READABLE)?;
        Ok(Self { timer, set: None })
    }

    /// The timeout that a wait at `now` still needs instead of `timeout`: none, where the timer
    /// goes off in time.
    #[inline]
    pub(super) fn instead_of(
        &mut self,
        timeout: Option<Duration>,
        now: Instant,
    ) -> Option<Duration> {
        let left = timeout?;
        if left <= NEAR {
            return timeout;
        }
        let at = now + left;
        if !self.is_set_by(at) {
            if self.timer.set(left).is_err() {
                return timeout;
            }
            self.set = Some(at);
        }
        None
    }

    /// Whether the timer goes off at an instant or before.
    #[inline]
    pub(super) fn is_set_by(&self, at: Instant) -> bool {
        self.set.is_some_and(|set| set <= at)
    }

    /// The timer has gone off.
    pub(super) const fn mark(&mut self) {
        self.set = None;
    }
}

/// There is none.
#[cfg(not(target_os = "linux"))]
pub(super) struct Alarm;

#[cfg(not(target_os = "linux"))]
impl Alarm {
    /// # Errors
    /// None.
    pub(super) fn new(_registry: &Registry) -> io::Result<Self> {
        Ok(Self)
    }

    /// Never: each wait has its timeout.
    pub(super) const fn is_set_by(&self, _at: Instant) -> bool {
        false
    }

    /// The timeout of a wait.
    pub(super) fn instead_of(
        &mut self,
        timeout: Option<Duration>,
        _now: Instant,
    ) -> Option<Duration> {
        timeout
    }

    /// Does not happen.
    pub(super) fn mark(&mut self) {}
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use mio::{Events, Poll};

    use super::super::token::Subject;
    use super::*;

    const FAR: Duration = Duration::from_secs(100);

    struct Waits {
        poll: Poll,
        alarm: Alarm,
        now: Instant,
    }

    impl Waits {
        fn new() -> Self {
            let poll = Poll::new().unwrap();
            let alarm = Alarm::new(poll.registry()).unwrap();
            Self { poll, alarm, now: Instant::now() }
        }

        fn instead_of(&mut self, timeout: Duration) -> Option<Duration> {
            self.alarm.instead_of(Some(timeout), self.now)
        }

        /// Waits for the timer.
        fn wait(&mut self) {
            let mut events = Events::with_capacity(4);
            self.poll.poll(&mut events, Some(FAR)).unwrap();
            let subjects = events.iter().map(|event| Subject::from_token(event.token()));
            assert_eq!(subjects.collect::<Vec<_>>(), [Some(Subject::Alarm)]);
            self.alarm.mark();
        }
    }

    #[test]
    fn near_deadlines_and_none_are_left_to_the_wait() {
        let mut waits = Waits::new();
        assert_eq!(waits.alarm.instead_of(None, waits.now), None);
        for near in [Duration::ZERO, NEAR] {
            assert_eq!(waits.instead_of(near), Some(near));
        }
        assert_eq!(waits.alarm.set, None, "the timer is not set for them");
    }

    #[test]
    fn a_deadline_that_moves_on_sets_the_timer_once() {
        let mut waits = Waits::new();
        let first = waits.now + FAR;
        for _ in 0..10 {
            assert_eq!(waits.instead_of(FAR), None);
            assert_eq!(waits.alarm.set, Some(first));
            waits.now += Duration::from_secs(1);
        }
        // Behind the first deadline, which nobody has any more, the next is waited for.
        waits.now = first + NEAR;
        waits.alarm.mark();
        assert_eq!(waits.instead_of(FAR), None);
        assert_eq!(waits.alarm.set, Some(first + NEAR + FAR));
    }

    #[test]
    fn the_timer_ends_the_wait_for_an_earlier_deadline_too() {
        let mut waits = Waits::new();
        assert_eq!(waits.instead_of(FAR), None);
        let earlier = 2 * NEAR;
        assert_eq!(waits.instead_of(earlier), None);
        assert_eq!(waits.alarm.set, Some(waits.now + earlier));
        waits.wait();
        assert_eq!(waits.alarm.set, None);
        // And once more.
        assert_eq!(waits.instead_of(earlier), None);
        waits.wait();
    }

    /// The reactor's time is behind the exact time by some milliseconds, and so it may be before
    /// the deadline when the timer has gone off.
    #[test]
    fn a_timer_that_has_gone_off_is_set_no_longer_even_before_its_time() {
        let mut waits = Waits::new();
        assert_eq!(waits.instead_of(2 * NEAR), None);
        waits.wait();
        waits.now += 2 * NEAR - Duration::from_millis(4);
        let left = Duration::from_millis(4);
        assert_eq!(waits.instead_of(left), Some(left));
    }
}
