//! libusb's statuses and errors as those of the wire. Nothing else translates them.
//!
//! Contract: pure functions.

use usbferry_sys::libusb::error::{Error, TransferStatus};
use usbferry_sys::libusb::transfer::Kind;

use crate::usb::{Performed, RefusedReason};
use crate::wire::status::Status;

/// The wire's status of a transfer (`driver-api/usb/error-codes`). libusb merges EPROTO, EILSEQ,
/// ETIME, ECOMM and ENOSR into one.
pub(super) const fn status_of(status: TransferStatus) -> Status {
    match status {
        TransferStatus::Completed => Status::OK,
        TransferStatus::Stall => Status::EPIPE,
        TransferStatus::Overflow => Status::EOVERFLOW,
        TransferStatus::Cancelled => Status::ECONNRESET,
        TransferStatus::NoDevice => Status::ESHUTDOWN,
        TransferStatus::TimedOut => Status::ETIMEDOUT,
        TransferStatus::Error => Status::EPROTO,
    }
}

/// What a refused submit means.
pub(super) const fn refused_reason(error: Error, kind: Kind) -> RefusedReason {
    match error {
        Error::NoDevice => RefusedReason::Gone,
        Error::NoMem => RefusedReason::NoMemory,
        Error::InvalidParam | Error::NotSupported => RefusedReason::Failed(Status::EINVAL),
        Error::Busy => RefusedReason::Failed(Status::EBUSY),
        // The host would not send it, so the device can't answer it.
        _ if matches!(kind, Kind::Control) => RefusedReason::Failed(Status::EPIPE),
        _ => RefusedReason::Failed(Status::EPROTO),
    }
}

/// What a special request that failed means.
pub(super) const fn failed(error: Error) -> Performed {
    match error {
        Error::NoDevice => Performed::Gone,
        Error::Busy => Performed::Failed(Status::EBUSY),
        // What a device says that does not support a request.
        _ => Performed::Failed(Status::EPIPE),
    }
}

/// What URBs to an interface are answered with that could not be claimed.
pub(super) const fn refusal_of(error: Error) -> Status {
    match error {
        Error::Busy => Status::EBUSY,
        _ => Status::EPERM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_become_linux_errnos() {
        assert_eq!(status_of(TransferStatus::Stall), Status(-32));
        assert_eq!(status_of(TransferStatus::Overflow), Status(-75));
        assert_eq!(status_of(TransferStatus::Cancelled), Status(-104));
        assert_eq!(status_of(TransferStatus::NoDevice), Status(-108));
        assert_eq!(status_of(TransferStatus::Error), Status(-71));
        assert_eq!(refused_reason(Error::Io, Kind::Control), RefusedReason::Failed(Status(-32)));
        assert_eq!(refused_reason(Error::Io, Kind::Bulk), RefusedReason::Failed(Status(-71)));
        assert_eq!(refused_reason(Error::NoMem, Kind::Bulk), RefusedReason::NoMemory);
        assert_eq!(failed(Error::NoDevice), Performed::Gone);
    }
}
