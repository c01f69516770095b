//! The watch: an extension of the handshake, by which a client is told whenever the answer to an
//! IMPORT of a device would change (docs/protocol-extensions.md has the exchange).
//!
//! A watch has a connection of its own:
//!
//! 1. the client sends OP_REQ_WATCH, an `op_common` and nothing else;
//! 2. a server with this extension answers OP_REP_WATCH and the version ([`hello`]); any other
//!    server closes the connection or stays silent, and has done nothing;
//! 3. only then the client sends the name, in the form of IMPORT's busid;
//! 4. the server sends a [`notice`] at once, and another whenever the status changes.
//!
//! The request has no body, because some servers read on: jiegec/usbip takes each four bytes of an
//! unknown request for a command, and USBIP_CMD_SUBMIT without a device is its end. The low byte of
//! the code is neither 3 nor 5, because small servers (wireless-esp8266-dap) look at no other byte.
//!
//! Contract: as the module above; nothing allocates.

use super::Error;
use super::op::{self, OP_COMMON_LEN, OpStatus, Refusal};
use super::types::BUS_ID_LEN;

/// The version of the exchange. A later version must serve clients of this version.
pub const VERSION: u32 = 1;

/// Bytes of the version.
pub const VERSION_LEN: usize = 4;

/// Bytes of a server's first answer: `op_common` and the version.
pub const HELLO_LEN: usize = OP_COMMON_LEN + VERSION_LEN;

/// Bytes of the name that a client sends after the first answer.
pub const NAME_LEN: usize = BUS_ID_LEN;

/// Bytes of a notice.
pub const NOTICE_LEN: usize = 4;

/// The code of the request; 0 to 7 are the protocol's own (`usbip_network.h`).
pub(crate) const REQ_WATCH: u16 = 0x8055;

/// The code of the answer.
pub(super) const REP_WATCH: u16 = 0x0055;

/// The server's first answer to a watch.
#[must_use]
pub fn hello() -> [u8; HELLO_LEN] {
    let mut bytes = [0; HELLO_LEN];
    let (common, version) = bytes.split_at_mut(OP_COMMON_LEN);
    common.copy_from_slice(&op::common(REP_WATCH, OpStatus::Ok));
    version.copy_from_slice(&VERSION.to_be_bytes());
    bytes
}

/// A server's refusal of a watch, in place of [`hello`]; the server closes the connection next.
#[must_use]
pub fn refusal(status: OpStatus) -> [u8; OP_COMMON_LEN] {
    op::common(REP_WATCH, status)
}

/// The notice: the status with which an IMPORT of the name would be answered now.
#[must_use]
pub const fn notice(status: OpStatus) -> [u8; NOTICE_LEN] {
    (status as u32).to_be_bytes()
}

/// Checks the version behind the `op_common` of a server's first answer.
///
/// # Errors
/// The version is not one that this client knows.
pub const fn parse_version(bytes: [u8; VERSION_LEN]) -> Result<(), Error> {
    match u32::from_be_bytes(bytes) {
        0 => Err(Error::Operation(REP_WATCH)),
        VERSION.. => Ok(()),
    }
}

/// Reads a notice: whether the device can be imported now, as far as the server knows.
///
/// # Errors
/// The reason why the device can't be imported.
pub const fn parse_notice(bytes: [u8; NOTICE_LEN]) -> Result<(), Refusal> {
    match u32::from_be_bytes(bytes) {
        0 => Ok(()),
        status => Err(Refusal(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_has_the_layout_of_its_page() {
        assert_eq!(op::Request::Watch.to_bytes(), [0x01, 0x11, 0x80, 0x55, 0, 0, 0, 0]);
        assert_eq!(hello(), [0x01, 0x11, 0x00, 0x55, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(refusal(OpStatus::NotAvailable), [0x01, 0x11, 0x00, 0x55, 0, 0, 0, 1]);
        assert_eq!(notice(OpStatus::NoDevice), [0, 0, 0, 4]);
        assert_eq!((HELLO_LEN, NAME_LEN, NOTICE_LEN), (12, 32, 4));
    }

    /// Servers that look at the low byte only must not take a watch for a request of theirs.
    #[test]
    fn the_code_is_far_from_the_protocols_own() {
        for own in 0..=7 {
            assert_ne!(REQ_WATCH.to_be_bytes()[1], own);
        }
        assert_eq!(REQ_WATCH & 0x7fff, REP_WATCH);
    }

    #[test]
    fn a_version_is_this_or_later() {
        let (common, version) = hello().split_first_chunk().map(|(a, b)| (*a, b.to_vec())).unwrap();
        assert_eq!(op::client::parse_common(&common, op::Request::Watch), Ok(()));
        assert_eq!(parse_version(version.try_into().unwrap()), Ok(()));
        assert_eq!(parse_version([0, 0, 0, 2]), Ok(()));
        assert_eq!(parse_version([0; 4]), Err(Error::Operation(REP_WATCH)));
    }

    #[test]
    fn a_notice_is_the_status_of_an_import() {
        assert_eq!(parse_notice(notice(OpStatus::Ok)), Ok(()));
        assert_eq!(parse_notice(notice(OpStatus::DeviceBusy)), Err(Refusal(2)));
        assert_eq!(parse_notice([0xff; 4]), Err(Refusal(u32::MAX)));
    }
}
