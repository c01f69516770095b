//! What a URB ended with, as the wire says it: a negative *Linux* errno on every host.
//!
//! The numbers are constants of ours, because macOS has others for the same names (ECONNRESET is
//! 54 there and 104 here). Meanings: `Documentation/driver-api/usb/error-codes.rst`.

use std::fmt;

/// Status of a URB or of an isochronous packet: zero or a negative Linux errno.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Status(pub i32);

impl Status {
    /// It worked.
    pub const OK: Self = Self(0);
    /// -EPERM: the interface of this endpoint could not be claimed.
    pub const EPERM: Self = Self(-1);
    /// -ENOENT: no such endpoint; drivers take it as "killed" and stop.
    pub const ENOENT: Self = Self(-2);
    /// -ENOMEM: no room for this URB.
    pub const ENOMEM: Self = Self(-12);
    /// -EBUSY: somebody else has it.
    pub const EBUSY: Self = Self(-16);
    /// -EXDEV: an isochronous packet that was not (wholly) transferred.
    pub const EXDEV: Self = Self(-18);
    /// -ENODEV: the device is gone.
    pub const ENODEV: Self = Self(-19);
    /// -EINVAL: a request that can't be carried out as it stands.
    pub const EINVAL: Self = Self(-22);
    /// -EPIPE: the endpoint stalled.
    pub const EPIPE: Self = Self(-32);
    /// -EPROTO: the bus failed.
    pub const EPROTO: Self = Self(-71);
    /// -EOVERFLOW: the device sent more than there was room for.
    pub const EOVERFLOW: Self = Self(-75);
    /// -ECONNRESET: unlinked.
    pub const ECONNRESET: Self = Self(-104);
    /// -ESHUTDOWN: the device or its endpoint was taken away.
    pub const ESHUTDOWN: Self = Self(-108);
    /// -ETIMEDOUT: no answer in time.
    pub const ETIMEDOUT: Self = Self(-110);
    /// -EREMOTEIO: shorter than asked for, with SHORT_NOT_OK set.
    pub const EREMOTEIO: Self = Self(-121);

    /// Whether the device is no longer there.
    #[must_use]
    pub const fn is_gone(self) -> bool {
        matches!(self, Self::ENODEV | Self::ESHUTDOWN)
    }
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
            Self(other) => return write!(f, "errno {}", -i64::from(other)),
        };
        f.pad(name)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
