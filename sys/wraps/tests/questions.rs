//! Questions to the system in a program that is linked as `usbferry` is.

#![cfg(target_os = "linux")]

use std::io;

use usbferry_sys::libusb::pass::Pass;
// The linker needs the functions.
use usbferry_wraps as _;

/// USBDEVFS_REAPURBNDELAY, as the kernel's header has the number for addresses of 64 and 32 bits.
const REAP: libc::Ioctl = if cfg!(target_pointer_width = "64") { 0x4008_550d } else { 0x4004_550d };

/// USBDEVFS_CLEAR_HALT.
const OTHER: libc::Ioctl = 0x8004_5515u32 as libc::Ioctl;

/// No descriptor.
const NONE: i32 = -1;

/// The results of a poll of two descriptors: how many are ready, and their events.
fn poll() -> (i32, [i16; 2]) {
    // A negative descriptor is never ready.
    let mut fds = [
        libc::pollfd { fd: NONE, events: libc::POLLIN, revents: 0 },
        libc::pollfd { fd: NONE, events: libc::POLLOUT, revents: 0 },
    ];
    // SAFETY: there are as many.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), 2, 0) };
    (ready, fds.map(|fd| fd.revents))
}

/// The error of a request to no descriptor.
fn error_of(request: libc::Ioctl) -> Option<i32> {
    // SAFETY: the system refuses before it uses the argument.
    let result = unsafe { libc::ioctl(NONE, request, std::ptr::null_mut::<u8>()) };
    assert_eq!(result, -1);
    io::Error::last_os_error().raw_os_error()
}

#[test]
fn only_passes_over_ends_are_answered_without_the_system() {
    let asked = || {
        assert_eq!(poll(), (0, [0, 0]));
        assert_eq!(error_of(REAP), Some(libc::EBADF));
    };
    asked();
    Pass::Everything.over(0, asked);
    Pass::Ends.over(1, || {
        assert_eq!(poll(), (1, [0, libc::POLLOUT]));
        assert_eq!(error_of(REAP), Some(libc::EBADF), "a transfer is in flight");
    });
    Pass::Ends.over(0, || {
        assert_eq!(error_of(REAP), Some(libc::EAGAIN));
        assert_eq!(error_of(OTHER), Some(libc::EBADF));
        std::thread::spawn(asked).join().unwrap();
    });
    asked();
}
