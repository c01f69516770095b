//! The linked libusb: the bundled version, or any version of the system's.
//!
//! Contract: does not block, and may be called from anywhere.

use std::fmt;

use crate::libusb::raw;

/// Whether the linked libusb was built with this program, rather than being the system's.
pub const IS_BUILT_IN: bool = cfg!(libusb_built_in);

/// A version of libusb, as three numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Version {
    /// 1 for every libusb-1.0.
    pub major: u16,
    /// 0 for every libusb-1.0.
    pub minor: u16,
    /// Distinguishes releases.
    pub micro: u16,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// The version of the linked libusb, by its own account (`libusb_get_version`).
#[must_use]
pub fn libusb() -> Version {
    // SAFETY: needs no context, and may be called at any time.
    let version = unsafe { raw::libusb_get_version() };
    // SAFETY: points to a constant of libusb's.
    let raw::libusb_version { major, minor, micro, .. } = *unsafe { &*version };
    Version { major, minor, micro }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_and_read_as_usual() {
        let (old, new) = (libusb(), Version { major: 1, minor: 0, micro: 30 });
        assert_eq!((old.to_string(), new.to_string()), ("1.0.27".into(), "1.0.30".into()));
        assert!(old < new);
    }
}
