//! The protocol's values with more meaning than a number.
//!
//! Contract: plain data; pure functions without a panic on any input. Only the text of a [`BusId`]
//! for the log allocates.

use std::cmp::Ordering;
use std::fmt;

/// Identifies a command on its connection. Clients choose numbers freely: Linux counts per virtual
/// hub and wraps through zero, usbip-win2 keeps the direction in bit 0. So numbers are compared for
/// equality. Their order is only a hint to the session, as long as a client's numbers keep growing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SeqNum(pub u32);

impl fmt::Debug for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// `busnum << 16 | devnum`, the name of the connection's device in each PDU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DevId(pub u32);

impl DevId {
    /// The id of a device by bus and address. Both fit in eight bits, because the Linux tool keeps
    /// no more (`tools/usb/usbip/libsrc/vhci_driver.c`).
    #[must_use]
    pub const fn new(busnum: u8, devnum: u8) -> Self {
        Self((busnum as u32) << 16 | devnum as u32)
    }

    /// The bus.
    #[must_use]
    pub const fn busnum(self) -> u8 {
        self.0.to_be_bytes()[1]
    }

    /// The address.
    #[must_use]
    pub const fn devnum(self) -> u8 {
        self.0.to_be_bytes()[3]
    }
}

impl fmt::Display for DevId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// Bytes of a busid on the wire, padding included.
pub const BUS_ID_LEN: usize = 32;

/// A device's name on its server: the kernel's port path, such as `1-2.3`. At most 31 bytes, so the
/// name always ends with a NUL on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BusId([u8; BUS_ID_LEN]);

impl BusId {
    /// Makes a busid of `name`; `None` for an empty name, a name of more than 31 bytes, or a NUL.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes.len() >= BUS_ID_LEN || bytes.contains(&0) {
            return None;
        }
        let mut field = [0; BUS_ID_LEN];
        field[..bytes.len()].copy_from_slice(bytes);
        Some(Self(field))
    }

    /// Reads the wire's field: the bytes before the first NUL. Without a NUL all 32 bytes count,
    /// and equal no busid of this server. Bytes after the NUL do not count.
    #[must_use]
    pub fn from_wire(field: &[u8; BUS_ID_LEN]) -> Self {
        let len = field.iter().position(|&b| b == 0).unwrap_or(BUS_ID_LEN);
        let mut padded = [0; BUS_ID_LEN];
        padded[..len].copy_from_slice(&field[..len]);
        Self(padded)
    }

    /// The field in the wire's form, zero-padded.
    #[must_use]
    pub const fn as_wire(&self) -> &[u8; BUS_ID_LEN] {
        &self.0
    }

    /// The name without padding.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let len = self.0.iter().position(|&b| b == 0).unwrap_or(BUS_ID_LEN);
        &self.0[..len]
    }
}

impl fmt::Display for BusId {
    /// For people: quotes as they are, and everything else that is unprintable escaped, since peers
    /// choose the bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escape = |&byte: &u8| match byte {
            b'"' | b'\'' => char::from(byte).to_string(),
            _ => byte.escape_ascii().to_string(),
        };
        f.pad(&self.as_bytes().iter().map(escape).collect::<String>())
    }
}

impl PartialOrd for BusId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for BusId {
    /// By the numbers in the names, as people count: `1-2` comes before `1-10`.
    fn cmp(&self, other: &Self) -> Ordering {
        let by_numbers = compare_by_numbers(self.as_bytes(), other.as_bytes());
        // Zeros in front make a name another name.
        by_numbers.then_with(|| self.0.cmp(&other.0))
    }
}

/// The order of two names in which numbers of any length count as numbers.
fn compare_by_numbers(mut one: &[u8], mut other: &[u8]) -> Ordering {
    loop {
        let (number, of_other) = (digits(one), digits(other));
        let order = if number.is_empty() || of_other.is_empty() {
            let (Some((byte, rest)), Some((of_other, rest_of_other))) =
                (one.split_first(), other.split_first())
            else {
                return one.len().cmp(&other.len());
            };
            (one, other) = (rest, rest_of_other);
            byte.cmp(of_other)
        } else {
            (one, other) = (&one[number.len()..], &other[of_other.len()..]);
            compare_numbers(number, of_other)
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// The digits with which a name begins.
fn digits(name: &[u8]) -> &[u8] {
    let len = name.iter().take_while(|byte| byte.is_ascii_digit()).count();
    &name[..len]
}

/// The order of two numbers in digits.
fn compare_numbers(one: &[u8], other: &[u8]) -> Ordering {
    let [one, other] = [one, other].map(|number| {
        let zeros = number.iter().take_while(|&&digit| digit == b'0').count();
        &number[zeros..]
    });
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

impl fmt::Debug for BusId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Which way data flows, seen from the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Direction {
    /// Host to device.
    Out,
    /// Device to host.
    In,
}

/// An endpoint's number and direction. Kept as the index, by which tables are looked up for each
/// URB: bit 4 is set for IN.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct EndpointAddress(u8);

impl EndpointAddress {
    /// Number of distinct addresses: 16 numbers, two directions.
    pub const COUNT: usize = 32;

    /// The address of endpoint `number` (0 to 15; higher bits are dropped) in `direction`.
    #[must_use]
    pub const fn new(number: u8, direction: Direction) -> Self {
        let number = number & 0x0f;
        match direction {
            Direction::Out => Self(number),
            Direction::In => Self(number | 0x10),
        }
    }

    /// The address in the form of a descriptor or a request's wIndex, with bit 7 set for IN (USB
    /// 2.0, table 9-13); bits 4 to 6 are dropped.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Self {
        Self(byte & 0x0f | byte >> 3 & 0x10)
    }

    /// The byte of the descriptor.
    #[must_use]
    pub const fn as_byte(self) -> u8 {
        self.number() | (self.0 & 0x10) << 3
    }

    /// 0 to 15.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0 & 0x0f
    }

    /// The way of the data.
    #[must_use]
    pub const fn direction(self) -> Direction {
        if self.0 & 0x10 == 0 { Direction::Out } else { Direction::In }
    }

    /// A dense index below [`Self::COUNT`], for tables by endpoint.
    #[must_use]
    pub const fn index(self) -> usize {
        (self.0 & 0x1f) as usize
    }

    /// The bit of the address in a set of endpoints, kept in 32 bits.
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << self.index()
    }
}

impl fmt::Debug for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02x}", self.as_byte())
    }
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The four ways USB moves data (USB 2.0, section 4.7), in the coding of bmAttributes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransferType {
    /// Setup packet, optional data, status.
    Control,
    /// Fixed rate, no retries, packet by packet.
    Isochronous,
    /// Reliable, as fast as the bus allows.
    Bulk,
    /// Reliable, polled at an interval.
    Interrupt,
}

impl TransferType {
    /// The type in the low two bits of an endpoint descriptor's bmAttributes.
    #[must_use]
    pub const fn from_attributes(attributes: u8) -> Self {
        match attributes & 3 {
            0 => Self::Control,
            1 => Self::Isochronous,
            2 => Self::Bulk,
            _ => Self::Interrupt,
        }
    }

    /// The word for users and programs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Isochronous => "isochronous",
            Self::Bulk => "bulk",
            Self::Interrupt => "interrupt",
        }
    }
}

/// `transfer_flags` of CMD_SUBMIT, in the stable numbering of `include/uapi/linux/usbip.h`. Only
/// flags with a meaning for a server have a name here; all other flags are ignored.
pub mod flags {
    /// A short IN transfer is an error (not for isochronous endpoints).
    pub const SHORT_NOT_OK: u32 = 0x0001;
    /// End a bulk OUT transfer of full packets with a zero-length packet.
    pub const ZERO_PACKET: u32 = 0x0040;
}

/// `enum usb_device_speed`, in the protocol's numbers (`include/uapi/linux/usb/ch9.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Speed {
    /// 1.5 Mbit/s.
    Low = 1,
    /// 12 Mbit/s.
    Full = 2,
    /// 480 Mbit/s.
    High = 3,
    /// 5 Gbit/s and every higher speed. Kernels before 6.12 refuse to attach a device of value 6,
    /// and later kernels run such a device at 5 Gbit/s anyway (docs/kernels.md).
    Super = 5,
}

impl Speed {
    /// Bits a second.
    #[must_use]
    pub const fn bits_per_second(self) -> u64 {
        match self {
            Self::Low => 1_500_000,
            Self::Full => 12_000_000,
            Self::High => 480_000_000,
            Self::Super => 5_000_000_000,
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Low => "low",
            Self::Full => "full",
            Self::High => "high",
            Self::Super => "super",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_in_which_people_count() {
        let ordered = [
            "01-1", "1-1", "1-1.2", "1-1.10", "1-2", "1-9", "1-10", "1-10.1", "2-1", "10-1", "a2",
            "a10", "a10b", "b",
        ];
        let ordered = ordered.map(|name| BusId::new(name).unwrap());
        for (at, one) in ordered.iter().enumerate() {
            for (at_other, other) in ordered.iter().enumerate() {
                assert_eq!(one.cmp(other), at.cmp(&at_other), "{one} {other}");
            }
        }
    }

    #[test]
    fn a_name_is_shown_with_its_quotes_and_without_escape_sequences() {
        let name = BusId::new("Bob's \"7\"\u{1b}[2J").unwrap();
        assert_eq!(name.to_string(), "Bob's \"7\"\\x1b[2J");
        assert_eq!(format!("{:8}|", BusId::new("1-2").unwrap()), "1-2     |");
    }

    #[test]
    fn busid_ends_at_the_first_nul() {
        let mut field = [0; BUS_ID_LEN];
        field[..8].copy_from_slice(b"1-2\0junk");
        assert_eq!(BusId::from_wire(&field), BusId::new("1-2").unwrap());
        assert_eq!(BusId::from_wire(&[b'x'; 32]).as_bytes().len(), 32);
    }

    #[test]
    fn busid_refuses_bad_names() {
        assert!(BusId::new("").is_none());
        assert!(BusId::new(&"1".repeat(31)).is_some());
        assert!(BusId::new(&"1".repeat(32)).is_none());
        assert!(BusId::new("1\0").is_none());
    }

    #[test]
    fn busid_is_escaped_for_the_log() {
        let mut field = [0; BUS_ID_LEN];
        field[..3].copy_from_slice(b"a\x1b\n");
        assert_eq!(BusId::from_wire(&field).to_string(), "a\\x1b\\n");
    }

    #[test]
    fn endpoint_indexes_are_dense_and_distinct() {
        let mut seen = 0u32;
        for number in 0..16 {
            for direction in [Direction::Out, Direction::In] {
                let address = EndpointAddress::new(number, direction);
                assert_eq!(EndpointAddress::from_byte(address.as_byte()), address);
                assert_eq!(address.direction(), direction);
                assert_eq!(address.number(), number);
                seen |= address.bit();
            }
        }
        assert_eq!(seen, u32::MAX);
    }

    #[test]
    fn devid_joins_bus_and_device() {
        assert_eq!(DevId::new(1, 2), DevId(0x0001_0002));
    }
}
