//! Requests to Linux's usbfs (`linux/usbdevice_fs.h`) on libusb's open descriptor, for purposes
//! without a call of libusb.
//!
//! libusb keeps a bit for each claimed interface, 32 of them, and refuses greater numbers. Devices
//! may give their interfaces any number, and usbfs claims up to 63, or 31 where a `long` has 32
//! bits. libusb does not know the claims made here, which matters for resets only
//! ([`reset_blocking`](crate::libusb::handle::DeviceHandle::reset_blocking)).
//!
//! Contract: everything but [`capabilities`] may block. The descriptor is open during each call.

use std::io;
use std::os::fd::RawFd;

use crate::libusb::error::Error;

/// `USBDEVFS_IOCTL_TYPE`.
const TYPE: u32 = b'U' as u32;

const SET_INTERFACE: libc::Ioctl = libc::_IOR::<[u32; 2]>(TYPE, 4);
const GET_DRIVER: libc::Ioctl = libc::_IOW::<InterfaceDriver>(TYPE, 8);
const CLAIM_INTERFACE: libc::Ioctl = libc::_IOR::<u32>(TYPE, 15);
const RELEASE_INTERFACE: libc::Ioctl = libc::_IOR::<u32>(TYPE, 16);
const IOCTL: libc::Ioctl = libc::_IOWR::<InterfaceIoctl>(TYPE, 18);
const CONNECT: libc::Ioctl = libc::_IO(TYPE, 23);
const GET_CAPABILITIES: libc::Ioctl = libc::_IOR::<u32>(TYPE, 26);
const DISCONNECT_CLAIM: libc::Ioctl = libc::_IOR::<DisconnectClaim>(TYPE, 27);

/// `USBDEVFS_DISCONNECT_CLAIM_EXCEPT_DRIVER`: not from a driver with the given name.
const EXCEPT_DRIVER: u32 = 2;

/// The name of the kernel's driver for programs, as in `usbdevfs_disconnect_claim`.
const PROGRAMS: &[u8] = b"usbfs";

/// `struct usbdevfs_getdriver`.
#[repr(C)]
struct InterfaceDriver {
    interface: u32,
    driver: [u8; 256],
}

/// `struct usbdevfs_ioctl`.
#[repr(C)]
struct InterfaceIoctl {
    interface: libc::c_int,
    code: libc::c_int,
    data: *mut libc::c_void,
}

/// `struct usbdevfs_disconnect_claim`.
#[repr(C)]
struct DisconnectClaim {
    interface: u32,
    flags: u32,
    driver: [u8; 256],
}

/// Makes a request with a `T` as argument, and returns the kernel's result.
fn ioctl<T>(node: RawFd, request: libc::Ioctl, argument: &mut T) -> Result<libc::c_int, Error> {
    // SAFETY: each constant above says which type the kernel reads and writes, and each function
    // below passes a value of that type.
    let code = unsafe { libc::ioctl(node, request, std::ptr::from_mut(argument)) };
    if code >= 0 { Ok(code) } else { Err(error_of(&io::Error::last_os_error())) }
}

/// Names libusb's "other" for the last failed request: errno is still the request's.
pub(crate) fn named(error: Error) -> Error {
    if error == Error::Other { error_of(&io::Error::last_os_error()) } else { error }
}

/// libusb's mapping of these requests' errors (`os/linux_usbfs.c`), with names for some that libusb
/// calls "other": permission and memory have remedies of their own.
fn error_of(error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODATA) => Error::NotFound,
        Some(libc::EBUSY) => Error::Busy,
        Some(libc::ENODEV) => Error::NoDevice,
        Some(libc::EINVAL) => Error::InvalidParam,
        Some(libc::EPERM | libc::EACCES) => Error::Access,
        Some(libc::ENOMEM) => Error::NoMem,
        Some(libc::EIO) => Error::Io,
        _ => Error::Other,
    }
}

/// usbfs's capabilities; 0 if unknown.
pub(crate) fn capabilities(node: RawFd) -> u32 {
    let mut capabilities = 0_u32;
    let asked = ioctl(node, GET_CAPABILITIES, &mut capabilities);
    asked.map_or(0, |_| capabilities)
}

/// Claims an interface, with `detach` from a kernel driver too, but from no other program.
pub(crate) fn claim(node: RawFd, interface: u8, detach: bool) -> Result<(), Error> {
    if !detach {
        return ioctl(node, CLAIM_INTERFACE, &mut u32::from(interface)).map(drop);
    }
    let mut claim =
        DisconnectClaim { interface: interface.into(), flags: EXCEPT_DRIVER, driver: [0; 256] };
    claim.driver[..PROGRAMS.len()].copy_from_slice(PROGRAMS);
    ioctl(node, DISCONNECT_CLAIM, &mut claim).map(drop)
}

pub(crate) fn release(node: RawFd, interface: u8) -> Result<(), Error> {
    ioctl(node, RELEASE_INTERFACE, &mut u32::from(interface)).map(drop)
}

/// Whether a kernel driver has the interface, and no program.
pub(crate) fn has_driver(node: RawFd, interface: u8) -> bool {
    let mut answer = InterfaceDriver { interface: interface.into(), driver: [0; 256] };
    let answered = ioctl(node, GET_DRIVER, &mut answer).is_ok();
    answered && !answer.driver.starts_with(b"usbfs\0")
}

/// Has the kernel look for a driver; `NotFound` when none wants the interface.
pub(crate) fn connect(node: RawFd, interface: u8) -> Result<(), Error> {
    let code = libc::c_int::try_from(CONNECT).unwrap_or(0);
    let mut connect =
        InterfaceIoctl { interface: interface.into(), code, data: std::ptr::null_mut() };
    match ioctl(node, IOCTL, &mut connect)? {
        0 => Err(Error::NotFound),
        _ => Ok(()),
    }
}

pub(crate) fn set_interface(node: RawFd, interface: u8, setting: u8) -> Result<(), Error> {
    let set = ioctl(node, SET_INTERFACE, &mut [u32::from(interface), u32::from(setting)]);
    // As in libusb: there is no such setting.
    set.map(drop)
        .map_err(|error| if error == Error::InvalidParam { Error::NotFound } else { error })
}
