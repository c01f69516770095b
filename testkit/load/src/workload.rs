//! The description of a load: URBs of a single kind and length, with a number in flight.

use std::fmt;
use std::str::FromStr;

/// Endpoints of usbferry's simulated devices, for which loads are made unless told otherwise.
const BULK: u8 = 1;
const ISOCHRONOUS: u8 = 5;
const SILENT: u8 = 6;

/// Bytes of the largest URB.
const LEN_MAX: usize = 16 << 20;

/// Isochronous packets of a URB at most (`USBIP_MAX_ISO_PACKETS`).
const PACKETS_MAX: usize = 1024;

/// The SETUP packet of GET_DESCRIPTOR(device), 18 bytes.
const GET_DEVICE_DESCRIPTOR: [u8; 8] = [0x80, 6, 0, 1, 0, 0, 18, 0];

/// The kind and length of URBs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Traffic {
    /// Bulk IN of the given number of bytes.
    BulkIn(usize),
    /// Bulk OUT.
    BulkOut(usize),
    /// Isochronous IN: packets, and bytes of each.
    IsochronousIn(usize, usize),
    /// Isochronous OUT.
    IsochronousOut(usize, usize),
    /// GET_DESCRIPTOR(device).
    ControlIn,
    /// Bulk IN of the given number of bytes, of an endpoint without data; each URB is given up by
    /// an UNLINK.
    Unlinked(usize),
}

/// How PDUs are written to the socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writes {
    /// As many at once as may be sent.
    Joined,
    /// Each by itself, as Linux's `vhci_tx` does.
    Single,
    /// Header and data apart, without `TCP_NODELAY`.
    Parts,
}

/// A load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Workload {
    /// The kind and length of the URBs.
    pub traffic: Traffic,
    /// URBs in flight.
    pub depth: usize,
    /// Endpoint number.
    pub endpoint: u8,
    /// How PDUs are written.
    pub writes: Writes,
}

/// The check of IN data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Check {
    /// The length only.
    Length,
    /// The data starts with the number of the URB, from 0, in eight bytes little-endian.
    Counter,
    /// The byte at position `p` of the stream is `p % 251`.
    Pattern,
}

impl Workload {
    /// A load on the endpoints of usbferry's simulated devices.
    #[must_use]
    pub const fn new(traffic: Traffic, depth: usize) -> Self {
        let endpoint = match traffic {
            Traffic::BulkIn(_) | Traffic::BulkOut(_) => BULK,
            Traffic::IsochronousIn(..) | Traffic::IsochronousOut(..) => ISOCHRONOUS,
            Traffic::ControlIn => 0,
            Traffic::Unlinked(_) => SILENT,
        };
        Self { traffic, depth, endpoint, writes: Writes::Joined }
    }

    /// Bytes of data of a URB.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.traffic {
            Traffic::BulkIn(len) | Traffic::BulkOut(len) | Traffic::Unlinked(len) => len,
            Traffic::IsochronousIn(packets, len) | Traffic::IsochronousOut(packets, len) => {
                packets * len
            }
            Traffic::ControlIn => 18,
        }
    }

    /// Whether the URBs have no data.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Isochronous packets of a URB, and bytes of each.
    #[must_use]
    pub const fn packets(&self) -> Option<(usize, usize)> {
        match self.traffic {
            Traffic::IsochronousIn(packets, len) | Traffic::IsochronousOut(packets, len) => {
                Some((packets, len))
            }
            _ => None,
        }
    }

    /// Whether data flows to the client.
    #[must_use]
    pub const fn is_in(&self) -> bool {
        !matches!(self.traffic, Traffic::BulkOut(_) | Traffic::IsochronousOut(..))
    }

    /// Whether the data is a stream over the URBs.
    #[must_use]
    pub const fn is_stream(&self) -> bool {
        !matches!(self.traffic, Traffic::ControlIn)
    }

    /// The SETUP packet of the URBs.
    #[must_use]
    pub const fn setup(&self) -> [u8; 8] {
        match self.traffic {
            Traffic::ControlIn => GET_DEVICE_DESCRIPTOR,
            _ => [0; 8],
        }
    }
}

impl FromStr for Traffic {
    type Err = String;

    /// `bulk-in:512`, `bulk-out:4096`, `iso-in:8x192`, `iso-out:8x192`, `control-in`,
    /// `unlinked:512`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').unwrap_or((text, ""));
        let len = || value.parse().ok().filter(|len| (1..=LEN_MAX).contains(len));
        let packets = || {
            let (packets, len) = value.split_once('x')?;
            let packets: usize = packets.parse().ok()?;
            let len: usize = len.parse().ok()?;
            let fits = (1..=PACKETS_MAX).contains(&packets) && (1..=LEN_MAX).contains(&len);
            fits.then_some((packets, len))
        };
        let traffic = match name {
            "bulk-in" => len().map(Self::BulkIn),
            "bulk-out" => len().map(Self::BulkOut),
            "iso-in" => packets().map(|(packets, len)| Self::IsochronousIn(packets, len)),
            "iso-out" => packets().map(|(packets, len)| Self::IsochronousOut(packets, len)),
            "control-in" => Some(Self::ControlIn),
            "unlinked" => len().map(Self::Unlinked),
            _ => None,
        };
        traffic.ok_or_else(|| {
            format!("\"{text}\" is none of bulk-in:LEN, bulk-out:LEN, iso-in:PACKETSxLEN, iso-out:PACKETSxLEN, control-in, unlinked:LEN")
        })
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BulkIn(len) => write!(f, "bulk-in:{len}"),
            Self::BulkOut(len) => write!(f, "bulk-out:{len}"),
            Self::IsochronousIn(packets, len) => write!(f, "iso-in:{packets}x{len}"),
            Self::IsochronousOut(packets, len) => write!(f, "iso-out:{packets}x{len}"),
            Self::ControlIn => f.write_str("control-in"),
            Self::Unlinked(len) => write!(f, "unlinked:{len}"),
        }
    }
}
