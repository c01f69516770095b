//! The eight bytes of a SETUP packet (USB 2.0, section 9.3), which keep their little-endian order
//! inside the protocol's big-endian PDUs.
//!
//! Contract: plain data; pure functions without allocation and without a panic on any input.

use super::types::Direction;

/// Bytes of a SETUP packet.
pub const SETUP_LEN: usize = 8;

/// A SETUP packet's fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the field names are those of USB 2.0, table 9-2")]
pub struct Setup {
    pub request_type: u8,
    pub request: u8,
    pub value: u16,
    pub index: u16,
    pub length: u16,
}

impl Setup {
    /// Reads the packet's bytes.
    #[must_use]
    pub const fn from_bytes(bytes: &[u8; SETUP_LEN]) -> Self {
        Self {
            request_type: bytes[0],
            request: bytes[1],
            value: u16::from_le_bytes([bytes[2], bytes[3]]),
            index: u16::from_le_bytes([bytes[4], bytes[5]]),
            length: u16::from_le_bytes([bytes[6], bytes[7]]),
        }
    }

    /// The packet's bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; SETUP_LEN] {
        let (value, index, length) =
            (self.value.to_le_bytes(), self.index.to_le_bytes(), self.length.to_le_bytes());
        [
            self.request_type,
            self.request,
            value[0],
            value[1],
            index[0],
            index[1],
            length[0],
            length[1],
        ]
    }

    /// The direction of the data stage, bit 7 of bmRequestType.
    #[must_use]
    pub const fn direction(self) -> Direction {
        if self.request_type & 0x80 == 0 { Direction::Out } else { Direction::In }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_little_endian_both_ways() {
        let bytes = [0x80, 0x06, 0x00, 0x03, 0x09, 0x04, 0xff, 0x00];
        let setup = Setup::from_bytes(&bytes);
        assert_eq!((setup.value, setup.index, setup.length), (0x0300, 0x0409, 255));
        assert_eq!(setup.direction(), Direction::In);
        assert_eq!(setup.to_bytes(), bytes);
    }
}
