//! The translation of libusb's statuses and errors into the protocol's, in a single place.
//!
//! Contract: pure functions.

use usbferry_sys::libusb::error::{Error, TransferStatus};
use usbferry_sys::libusb::transfer::TransferKind;

use crate::usb::{Performed, RefusedReason};
use crate::wire::status::Status;

/// The protocol's status of a transfer (`driver-api/usb/error-codes`). libusb merges EPROTO,
/// EILSEQ, ETIME, ECOMM and ENOSR.
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

/// The meaning of a refused submit.
pub(super) const fn refused_reason(error: Error, kind: TransferKind) -> RefusedReason {
    match error {
        Error::NoDevice => RefusedReason::Gone,
        Error::NoMem => RefusedReason::NoMemory,
        Error::InvalidParam | Error::NotSupported => RefusedReason::Failed(Status::EINVAL),
        Error::Busy => RefusedReason::Failed(Status::EBUSY),
        // The host refused to send the request, so the device can't answer.
        _ if matches!(kind, TransferKind::Control) => RefusedReason::Failed(Status::EPIPE),
        _ => RefusedReason::Failed(Status::EPROTO),
    }
}

/// The meaning of a failed special request.
pub(super) const fn failed(error: Error) -> Performed {
    match error {
        Error::NoDevice => Performed::Gone,
        Error::Busy => Performed::Failed(Status::EBUSY),
        // The answer of a device without support for the request.
        _ => Performed::Failed(Status::EPIPE),
    }
}

/// The status of URBs to an interface whose claim failed.
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
        assert_eq!(
            refused_reason(Error::Io, TransferKind::Control),
            RefusedReason::Failed(Status(-32))
        );
        assert_eq!(
            refused_reason(Error::Io, TransferKind::Bulk),
            RefusedReason::Failed(Status(-71))
        );
        assert_eq!(refused_reason(Error::NoMem, TransferKind::Bulk), RefusedReason::NoMemory);
        assert_eq!(failed(Error::NoDevice), Performed::Gone);
    }
}
