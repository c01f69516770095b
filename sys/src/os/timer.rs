//! A timer that is waited for as a descriptor, on Linux.
//!
//! Contract: nothing blocks or allocates after `new`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::clock::timespec;

/// A timer (`timerfd_create(2)`), whose descriptor becomes readable when the time has passed.
#[derive(Debug)]
pub struct Timer {
    descriptor: OwnedFd,
}

impl Timer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// The system's, when there is no descriptor left.
    pub fn new() -> io::Result<Self> {
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        // SAFETY: a new descriptor, and no memory.
        let descriptor = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, so it has no other owner.
        Ok(Self { descriptor: unsafe { OwnedFd::from_raw_fd(descriptor) } })
    }

    /// Sets the timer to become readable once, after `left`; an earlier time is forgotten, and a
    /// readable timer is no longer readable.
    ///
    /// # Errors
    /// The system's.
    pub fn set(&self, left: Duration) -> io::Result<()> {
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // A time of zero would switch the timer off.
        let first = timespec(left.max(Duration::from_nanos(1)));
        let times = libc::itimerspec { it_interval: zero, it_value: first };
        // SAFETY: the timer is open, `times` is read during the call, and the old times are not
        // asked for.
        let code = unsafe {
            libc::timerfd_settime(
                self.descriptor.as_raw_fd(),
                0,
                &raw const times,
                std::ptr::null_mut(),
            )
        };
        if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the timer becomes readable within a time.
    fn is_readable_within(timer: &Timer, milliseconds: i32) -> bool {
        let descriptor = timer.as_fd().as_raw_fd();
        let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
        // SAFETY: one `pollfd`, which the call may write to.
        unsafe { libc::poll(&raw mut poll, 1, milliseconds) == 1 }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no timers")]
    fn a_timer_becomes_readable_once_and_can_be_set_again() {
        let timer = Timer::new().unwrap();
        assert!(!is_readable_within(&timer, 0), "it is not set");
        timer.set(Duration::ZERO).unwrap();
        assert!(is_readable_within(&timer, 60_000), "no time is the shortest time");
        timer.set(Duration::from_secs(1_000_000)).unwrap();
        assert!(!is_readable_within(&timer, 0), "the earlier time is forgotten");
        timer.set(Duration::from_millis(1)).unwrap();
        assert!(is_readable_within(&timer, 60_000));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no timers")]
    fn an_endless_time_does_not_end() {
        let timer = Timer::new().unwrap();
        timer.set(Duration::MAX).unwrap();
        assert!(!is_readable_within(&timer, 0));
    }
}
