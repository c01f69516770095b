//! A wait for events that ends in time. mio's own timeouts are whole milliseconds on Linux.
//!
//! Contract: sleeps for as long as asked.

use std::io;
use std::time::Duration;

use mio::{Events, Poll};

/// Waits for events, for this time at most. A signal ends the wait early.
#[cfg(target_os = "linux")]
pub(super) fn nap(poll: &mut Poll, events: &mut Events, time: Duration) -> io::Result<()> {
    use std::os::fd::AsFd;

    usbferry_sys::os::nap::until_readable(poll.registry().as_fd(), time)?;
    poll.poll(events, Some(Duration::ZERO))
}

/// Waits for events, for this time at most.
#[cfg(not(target_os = "linux"))]
pub(super) fn nap(poll: &mut Poll, events: &mut Events, time: Duration) -> io::Result<()> {
    poll.poll(events, Some(time))
}
