//! libusb's error and status codes, one to one. For errors without a name in libusb, `transfer` and
//! `usbfs` choose a name by errno.
//!
//! Contract: plain values.

use std::fmt;

use libusb1_sys::constants as c;

/// An error of a libusb call (`enum libusb_error`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names are libusb's")]
pub enum Error {
    Io,
    InvalidParam,
    Access,
    NoDevice,
    NotFound,
    Busy,
    Timeout,
    Overflow,
    Pipe,
    Interrupted,
    NoMem,
    NotSupported,
    Other,
}

impl Error {
    /// The error of a negative return value.
    pub(crate) const fn from_code(code: i32) -> Self {
        match code {
            c::LIBUSB_ERROR_IO => Self::Io,
            c::LIBUSB_ERROR_INVALID_PARAM => Self::InvalidParam,
            c::LIBUSB_ERROR_ACCESS => Self::Access,
            c::LIBUSB_ERROR_NO_DEVICE => Self::NoDevice,
            c::LIBUSB_ERROR_NOT_FOUND => Self::NotFound,
            c::LIBUSB_ERROR_BUSY => Self::Busy,
            c::LIBUSB_ERROR_TIMEOUT => Self::Timeout,
            c::LIBUSB_ERROR_OVERFLOW => Self::Overflow,
            c::LIBUSB_ERROR_PIPE => Self::Pipe,
            c::LIBUSB_ERROR_INTERRUPTED => Self::Interrupted,
            c::LIBUSB_ERROR_NO_MEM => Self::NoMem,
            c::LIBUSB_ERROR_NOT_SUPPORTED => Self::NotSupported,
            _ => Self::Other,
        }
    }
}

/// Turns libusb's "negative is an error" into a result.
pub(crate) const fn check(code: i32) -> Result<(), Error> {
    if code < 0 { Err(Error::from_code(code)) } else { Ok(()) }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Io => "input/output error",
            Self::InvalidParam => "invalid parameter",
            Self::Access => "access denied",
            Self::NoDevice => "no such device",
            Self::NotFound => "not found",
            Self::Busy => "resource busy",
            Self::Timeout => "timed out",
            Self::Overflow => "overflow",
            Self::Pipe => "pipe error",
            Self::Interrupted => "interrupted",
            Self::NoMem => "out of memory",
            Self::NotSupported => "not supported",
            Self::Other => "unknown error",
        })
    }
}

/// How a transfer ended (`enum libusb_transfer_status`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names are libusb's")]
pub enum TransferStatus {
    Completed,
    Error,
    TimedOut,
    Cancelled,
    Stall,
    NoDevice,
    Overflow,
}

impl TransferStatus {
    pub(crate) const fn from_code(code: i32) -> Self {
        match code {
            c::LIBUSB_TRANSFER_COMPLETED => Self::Completed,
            c::LIBUSB_TRANSFER_TIMED_OUT => Self::TimedOut,
            c::LIBUSB_TRANSFER_CANCELLED => Self::Cancelled,
            c::LIBUSB_TRANSFER_STALL => Self::Stall,
            c::LIBUSB_TRANSFER_NO_DEVICE => Self::NoDevice,
            c::LIBUSB_TRANSFER_OVERFLOW => Self::Overflow,
            _ => Self::Error,
        }
    }
}
