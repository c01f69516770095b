//! The status of an ended URB, in the protocol's form: a negative *Linux* errno on every host.
//!
//! The numbers are constants of this module, because macOS has other numbers for the same names
//! (ECONNRESET is 54 on macOS and 104 here). Meanings:
//! `Documentation/driver-api/usb/error-codes.rst`.
//!
//! Contract: plain data of four bytes; nothing here allocates or panics.

use std::fmt;

/// Status of a URB or of an isochronous packet: zero or a negative Linux errno.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Status(pub i32);

impl Status {
    /// Success.
    pub const OK: Self = Self(0);
    /// -EPERM: the endpoint's interface could not be claimed.
    pub const EPERM: Self = Self(-1);
    /// -ENOENT: no such endpoint; drivers understand "killed" and stop.
    pub const ENOENT: Self = Self(-2);
    /// -ENOMEM: no room for the URB.
    pub const ENOMEM: Self = Self(-12);
    /// -EBUSY: in use by another program or client.
    pub const EBUSY: Self = Self(-16);
    /// -EXDEV: an isochronous packet was not (wholly) transferred.
    pub const EXDEV: Self = Self(-18);
    /// -ENODEV: the device is gone.
    pub const ENODEV: Self = Self(-19);
    /// -EINVAL: the request cannot be carried out in its present form.
    pub const EINVAL: Self = Self(-22);
    /// -EPIPE: the endpoint stalled.
    pub const EPIPE: Self = Self(-32);
    /// -EPROTO: the bus failed.
    pub const EPROTO: Self = Self(-71);
    /// -EOVERFLOW: the device sent more than there was room for.
    pub const EOVERFLOW: Self = Self(-75);
    /// -ECONNRESET: unlinked.
    pub const ECONNRESET: Self = Self(-104);
    /// -ESHUTDOWN: the device or the endpoint was taken away.
    pub const ESHUTDOWN: Self = Self(-108);
    /// -ETIMEDOUT: no answer in time.
    pub const ETIMEDOUT: Self = Self(-110);
    /// -EREMOTEIO: shorter than asked for, with SHORT_NOT_OK set.
    pub const EREMOTEIO: Self = Self(-121);
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::OK => "ok",
            Self::EPERM => "EPERM",
            Self::ENOENT => "ENOENT",
            Self::ENOMEM => "ENOMEM",
            Self::EBUSY => "EBUSY",
            Self::EXDEV => "EXDEV",
            Self::ENODEV => "ENODEV",
            Self::EINVAL => "EINVAL",
            Self::EPIPE => "EPIPE",
            Self::EPROTO => "EPROTO",
            Self::EOVERFLOW => "EOVERFLOW",
            Self::ECONNRESET => "ECONNRESET",
            Self::ESHUTDOWN => "ESHUTDOWN",
            Self::ETIMEDOUT => "ETIMEDOUT",
            Self::EREMOTEIO => "EREMOTEIO",
            Self(other) => return write!(f, "an unknown status (errno {})", -i64::from(other)),
        };
        f.pad(name)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_a_name_or_is_called_unknown() {
        assert_eq!(Status::EPIPE.to_string(), "EPIPE");
        assert_eq!(Status(-5).to_string(), "an unknown status (errno 5)");
        assert_eq!(Status(i32::MIN).to_string(), "an unknown status (errno 2147483648)");
    }
}
