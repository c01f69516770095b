//! What a pass over a device's events is about, for functions that answer libusb's questions to the
//! system without the system: the program's linker puts them in the place of poll(2) and ioctl(2)
//! (`usbferry-wraps`).
//!
//! In every pass libusb asks with poll(2) which of its descriptors are ready, and usbfs for ended
//! requests until none is left (`handle_events` of io.c, `op_handle_events` of linux_usbfs.c). A
//! caller that waits for the descriptors itself knows the first, and how many transfers are in
//! flight, hence where the last question is in vain.
//!
//! Contract: state of the thread, set by [`DeviceHandle::handle_events`] for the time of a pass;
//! nothing blocks or allocates.
//!
//! [`DeviceHandle::handle_events`]: crate::libusb::handle::DeviceHandle::handle_events

use std::cell::Cell;

/// What a pass is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pass {
    /// All events.
    Everything,
    /// Ends of transfers: nothing else can have happened since the last pass over everything, or
    /// another pass over everything will follow. Where nobody answers in the system's place, such a
    /// pass is about everything, too.
    Ends,
}

/// There is no pass, or everything is asked for.
const ASKS: usize = usize::MAX;

thread_local! {
    /// The transfers in flight in a pass over ends.
    static IN_FLIGHT: Cell<usize> = const { Cell::new(ASKS) };
}

impl Pass {
    /// Makes a pass, over a device with transfers `in_flight`.
    pub fn over<R>(self, in_flight: usize, handle: impl FnOnce() -> R) -> R {
        if self == Self::Ends {
            IN_FLIGHT.set(in_flight);
        }
        let handled = handle();
        IN_FLIGHT.set(ASKS);
        handled
    }
}

/// Notes that a transfer has ended, with all its requests to usbfs.
pub(super) fn note_ended() {
    let in_flight = IN_FLIGHT.get();
    if in_flight != ASKS {
        IN_FLIGHT.set(in_flight.saturating_sub(1));
    }
}

/// The transfers in flight, if the calling thread is in a pass over ends.
#[must_use]
#[inline(always)]
pub fn in_flight() -> Option<usize> {
    Some(IN_FLIGHT.get()).filter(|in_flight| *in_flight != ASKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_over_ends_counts_the_transfers_in_flight() {
        assert_eq!(in_flight(), None);
        Pass::Ends.over(2, || {
            assert_eq!(in_flight(), Some(2));
            note_ended();
            note_ended();
            assert_eq!(in_flight(), Some(0));
        });
        assert_eq!(in_flight(), None);
        Pass::Everything.over(2, || {
            note_ended();
            assert_eq!(in_flight(), None);
        });
    }
}
