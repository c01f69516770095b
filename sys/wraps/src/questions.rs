//! Questions of libusb to the system whose answers are known: two of the eight system calls of a
//! URB on a real device, and two of the seven on a device that answers at once.
//!
//! In a [pass] over ended transfers, libusb asks which descriptors are ready: the reactor has just
//! been told, or looks behind submits without having been told. To be told "the device's node is
//! ready" when nothing has ended costs libusb a request in vain, and does no harm. libusb then asks
//! usbfs for ended requests until none is left: none is left when no transfer is in flight.
//!
//! Contract: the answers are those of a system in which nothing else has happened yet. All other
//! calls, of all threads, are the C library's.

use std::ffi::{c_int, c_void};
use std::slice;

use usbferry_sys::libusb::pass;

/// The name of the second argument's type: glibc's and musl's differ.
type Request = libc::Ioctl;

/// USBDEVFS_REAPURBNDELAY (`usbdevice_fs.h`): `_IOW('U', 13, void *)`, for addresses of either
/// size.
const REAP: Request = if cfg!(target_pointer_width = "64") { 0x4008_550d } else { 0x4004_550d };

unsafe extern "C" {
    fn __real_poll(fds: *mut libc::pollfd, count: libc::nfds_t, timeout: c_int) -> c_int;
    fn __real_ioctl(fd: c_int, request: Request, ...) -> c_int;
}

/// # Safety
/// As for `poll`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_poll(
    fds: *mut libc::pollfd,
    count: libc::nfds_t,
    timeout: c_int,
) -> c_int {
    if pass::in_flight().is_none() {
        // SAFETY: the caller's promise.
        return unsafe { __real_poll(fds, count, timeout) };
    }
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: by the caller's promise there are `count` descriptors, and nobody else has them.
    let fds = unsafe { slice::from_raw_parts_mut(fds, count) };
    let mut ready = 0;
    for fd in fds {
        // usbfs says "something to reap" by "writable", and nothing else in a context does.
        fd.revents = fd.events & libc::POLLOUT;
        ready += c_int::from(fd.revents != 0);
    }
    ready
}

/// The C library's function takes any arguments behind the second; every request in the program has
/// one argument or none, which is in the same register as a parameter.
///
/// # Safety
/// As for `ioctl`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_ioctl(fd: c_int, request: Request, argument: *mut c_void) -> c_int {
    if pass::in_flight() == Some(0) && request == REAP {
        // SAFETY: a question without a condition.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: the place is the thread's own.
        unsafe { *errno = libc::EAGAIN };
        return -1;
    }
    // SAFETY: the caller's promise.
    unsafe { __real_ioctl(fd, request, argument) }
}
