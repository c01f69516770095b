//! A wait for a descriptor that ends in time: the timeouts of `epoll_wait` are whole milliseconds.
//!
//! Contract: sleeps for as long as asked.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use super::clock::timespec;

/// Waits until the descriptor is readable, for this time at most. A signal ends the wait early.
///
/// # Errors
/// The system's.
pub fn until_readable(fd: BorrowedFd<'_>, time: Duration) -> io::Result<()> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let time = timespec(time);
    // SAFETY: `poll` is one entry with an open descriptor, `time` is valid, and no mask of signals
    // is given.
    if unsafe { libc::ppoll(&raw mut poll, 1, &raw const time, std::ptr::null()) } >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Ends at all: a wait that does not would hang here.
    #[test]
    #[cfg_attr(miri, ignore = "Miri has no ppoll")]
    fn a_wait_ends_with_its_time_or_with_the_first_byte() {
        let (mut near, far) = UnixStream::pair().unwrap();
        until_readable(far.as_fd(), Duration::from_micros(50)).unwrap();
        near.write_all(&[1]).unwrap();
        until_readable(far.as_fd(), Duration::from_secs(1_000_000)).unwrap();
    }
}
