//! The values that settings may have, as typed: each parser takes a text, and answers a wrong text
//! with the values to give instead.
//!
//! Contract: pure.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};

use super::TakeOver;
use crate::limits;
use crate::units::{self, Size};

const URBS: RangeInclusive<usize> = limits::URBS_MIN..=limits::URBS_MAX;
const MEMORY: RangeInclusive<usize> = limits::MEMORY_MIN..=limits::MEMORY_MAX;
const PEER_TIMEOUT: RangeInclusive<Duration> = limits::PEER_TIMEOUT_MIN..=limits::PEER_TIMEOUT_MAX;

/// A text that is no value of a setting. The variants name the expected value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueError {
    /// A place to listen on.
    Listen,
    /// No place for the web server.
    Http,
    /// The number of a port that no port has.
    Port,
    /// A network or an address.
    Network,
    /// A network with an address that is not the network's first: either may be meant.
    HostBits(IpNet),
    /// A number of URB slots.
    Urbs,
    /// Bytes of buffer memory.
    Memory,
    /// Bytes of the largest URB.
    UrbSize,
    /// Bytes of mapped memory.
    DeviceMemory,
    /// Bytes of a socket's buffer.
    SocketBuffer,
    /// The time of busy polling.
    BusyPoll,
    /// The time without a sign of life.
    PeerTimeout,
    /// Bytes of a capture.
    CaptureSize,
    /// Bytes of data of a URB in a capture.
    SnapLen,
    /// When a client may take a device from another.
    TakeOver,
    /// The value of a configuration.
    Configuration,
    /// The time for which a device must have been present.
    Settle,
    /// The place of the socket of operators.
    Socket,
    /// The mode of the socket of operators.
    SocketMode,
}

impl std::error::Error for ValueError {}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen => f.write_str(
                "give an address, a name or a port: 192.168.1.5:3240, localhost, [::1]:3240, \
                 [fe80::1%eth0]:3240, or :3240 for all addresses (without a port: 3240)",
            ),
            Self::Network => {
                f.write_str("give a network such as 192.168.1.0/24 or fd00::/8, or one address")
            }
            Self::HostBits(network) => write!(
                f,
                "write {} or {}: {network} is an address of the network, with the network's length",
                network.trunc(),
                network.addr()
            ),
            Self::Urbs => write!(f, "give a number from {} to {}", URBS.start(), URBS.end()),
            Self::TakeOver => {
                let names = TakeOver::ALL.map(TakeOver::name).join(", ");
                write!(f, "give one of {names}")
            }
            Self::Configuration => f.write_str(
                "give the number of a configuration (bConfigurationValue, as lsusb -v shows it), \
                 from 1 to 255",
            ),
            Self::Http => f.write_str(
                "give an address or a name, and a port, such as 127.0.0.1:9240 or [::]:9240",
            ),
            Self::Port => {
                write!(f, "the port is more than {}, the highest port: give another", u16::MAX)
            }
            Self::Socket => f.write_str(
                "give the path of a socket to be made, such as /run/usbferry/lab.sock, or none",
            ),
            Self::SocketMode => f.write_str(
                "give the mode of a file in octal digits, from 0 to 777: 600 for the server's \
                 user alone, 660 for the group, 666 for everybody",
            ),
            Self::Memory
            | Self::UrbSize
            | Self::DeviceMemory
            | Self::SocketBuffer
            | Self::CaptureSize
            | Self::SnapLen => self.tell_size(f),
            Self::BusyPoll | Self::PeerTimeout | Self::Settle => self.tell_time(f),
        }
    }
}

impl ValueError {
    /// The sizes to give instead.
    fn tell_size(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |bytes: usize| Size(bytes as u64);
        let most = size(limits::MEMORY_MAX);
        match self {
            Self::Memory => write!(
                f,
                "give a power of two from {} to {most}, such as 16M or 64MiB",
                size(limits::MEMORY_MIN)
            ),
            Self::DeviceMemory => write!(
                f,
                "give a number of bytes from {} to {most}, such as 2M, or 0 for none",
                size(limits::DEVICE_MEMORY_MIN)
            ),
            Self::SocketBuffer => write!(
                f,
                "give a number of bytes from {} to {most}, such as 64K; without the option the \
                 system chooses",
                size(limits::SOCKET_BUFFER_MIN)
            ),
            Self::CaptureSize => write!(
                f,
                "give a number of bytes from {}, such as 100M or 2G",
                size(limits::CAPTURE_SIZE_MIN)
            ),
            Self::SnapLen => write!(
                f,
                "give a number of bytes up to {}, such as 64 or 4K, or all",
                size(limits::CAPTURE_DATA_MAX)
            ),
            _ => write!(
                f,
                "give a number of bytes from {} to {most}, such as 128K or 16M",
                limits::CONTROL_LEN_MAX
            ),
        }
    }

    /// The times to give instead.
    fn tell_time(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BusyPoll => {
                write!(f, "give a time up to {:?}, such as 50us or 1ms", limits::BUSY_POLL_MAX)
            }
            Self::Settle => {
                write!(f, "give a time up to {:?}, such as 500ms or 2s", limits::SETTLE_MAX)
            }
            _ => {
                let (least, most) = (PEER_TIMEOUT.start(), PEER_TIMEOUT.end());
                write!(f, "give a time from {least:?} to {most:?}, such as 15s or 10m")
            }
        }
    }
}

/// Bytes of a capture.
///
/// # Errors
/// [`ValueError::CaptureSize`] for less than [`limits::CAPTURE_SIZE_MIN`], or no size at all.
pub fn parse_capture_size(text: &str) -> Result<u64, ValueError> {
    let size = units::parse_size(text).filter(|&size| size >= limits::CAPTURE_SIZE_MIN);
    size.map(|size| size as u64).ok_or(ValueError::CaptureSize)
}

/// Bytes of data of a URB in a capture: a number, or `all`.
///
/// # Errors
/// [`ValueError::SnapLen`] for more than [`limits::CAPTURE_DATA_MAX`], or no size at all.
pub fn parse_snap_len(text: &str) -> Result<usize, ValueError> {
    if text == "all" {
        return Ok(limits::CAPTURE_DATA_MAX);
    }
    let len = units::parse_size(text).filter(|&len| len <= limits::CAPTURE_DATA_MAX);
    len.ok_or(ValueError::SnapLen)
}

/// A network, or a single address as the network of itself. An address of a network with the
/// network's length is refused, since the address may be meant as well as the network.
///
/// A network of IPv4 in the form of IPv6 (`::ffff:192.168.1.0/120`) is the network of IPv4, as
/// every client's address is taken.
///
/// # Errors
/// [`ValueError::HostBits`] for an address in a network, [`ValueError::Network`] for any other
/// text.
pub fn parse_network(text: &str) -> Result<IpNet, ValueError> {
    let address = || text.parse().ok().map(IpAddr::into);
    let net = text.parse().ok().or_else(address).ok_or(ValueError::Network)?;
    let net = match net {
        IpNet::V6(v6) => canonical(v6).unwrap_or(net),
        IpNet::V4(_) => net,
    };
    if net.trunc() == net { Ok(net) } else { Err(ValueError::HostBits(net)) }
}

/// A network as typed: a single address has no length.
pub fn network_text(net: &IpNet) -> String {
    let is_address = net.prefix_len() == net.max_prefix_len();
    if is_address { net.addr().to_string() } else { net.to_string() }
}

/// The network of IPv4 that is meant by a network of IPv6, if any.
fn canonical(net: Ipv6Net) -> Option<IpNet> {
    /// Bits of the prefix of all addresses of IPv4 in IPv6.
    const MAPPED: u8 = 96;
    let len = net.prefix_len().checked_sub(MAPPED)?;
    IpNet::new(net.addr().to_ipv4_mapped()?.into(), len).ok()
}

/// URBs in flight for a client.
///
/// # Errors
/// [`ValueError::Urbs`] for a number out of bounds, or none at all.
pub fn parse_urbs(text: &str) -> Result<usize, ValueError> {
    text.parse().ok().filter(|urbs| URBS.contains(urbs)).ok_or(ValueError::Urbs)
}

/// Bytes of memory for the URBs of a client.
///
/// # Errors
/// [`ValueError::Memory`] for a size out of bounds or not a power of two, or no size at all.
pub fn parse_memory(text: &str) -> Result<usize, ValueError> {
    units::parse_size(text)
        .filter(|bytes| bytes.is_power_of_two() && MEMORY.contains(bytes))
        .ok_or(ValueError::Memory)
}

/// Descriptors are read by control transfers, and without them a client can use nothing: the
/// largest URB is never smaller than the longest control transfer.
///
/// # Errors
/// [`ValueError::UrbSize`] for a size out of bounds, or none at all.
pub fn parse_urb_size(text: &str) -> Result<usize, ValueError> {
    let least = limits::CONTROL_LEN_MAX;
    size_from(least, text).ok_or(ValueError::UrbSize)
}

/// Zero is for no mapped memory at all.
///
/// # Errors
/// [`ValueError::DeviceMemory`] for another size out of bounds, or none at all.
pub fn parse_device_memory(text: &str) -> Result<usize, ValueError> {
    let none = || units::parse_size(text).filter(|&bytes| bytes == 0);
    size_from(limits::DEVICE_MEMORY_MIN, text).or_else(none).ok_or(ValueError::DeviceMemory)
}

/// Bytes of a socket's buffer.
///
/// # Errors
/// [`ValueError::SocketBuffer`] for a size out of bounds, or none at all.
pub fn parse_socket_buffer(text: &str) -> Result<usize, ValueError> {
    size_from(limits::SOCKET_BUFFER_MIN, text).ok_or(ValueError::SocketBuffer)
}

fn size_from(least: usize, text: &str) -> Option<usize> {
    units::parse_size(text).filter(|bytes| (least..=limits::MEMORY_MAX).contains(bytes))
}

/// How long to look for work before a sleep.
///
/// # Errors
/// [`ValueError::BusyPoll`] for more than [`limits::BUSY_POLL_MAX`], or no time at all.
pub fn parse_busy_poll(text: &str) -> Result<Duration, ValueError> {
    units::parse_time(text)
        .filter(|&time| time <= limits::BUSY_POLL_MAX)
        .ok_or(ValueError::BusyPoll)
}

/// How long a client may show no sign of life.
///
/// # Errors
/// [`ValueError::PeerTimeout`] for a time out of bounds, or none at all.
pub fn parse_peer_timeout(text: &str) -> Result<Duration, ValueError> {
    let time = units::parse_time(text).filter(|time| PEER_TIMEOUT.contains(time));
    time.ok_or(ValueError::PeerTimeout)
}

pub(crate) fn parse_configuration(text: &str) -> Result<u8, ValueError> {
    text.parse().ok().filter(|&value| value > 0).ok_or(ValueError::Configuration)
}

pub(crate) fn parse_settle(text: &str) -> Result<Duration, ValueError> {
    units::parse_time(text).filter(|&time| time <= limits::SETTLE_MAX).ok_or(ValueError::Settle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sizes_of_the_limits_have_typed_forms() {
        for bytes in [limits::MEMORY_DEFAULT, limits::URB_LEN_DEFAULT, limits::MEMORY_MAX] {
            assert_eq!(parse_urb_size(&Size(bytes as u64).to_string()), Ok(bytes));
        }
        let more = (limits::MEMORY_MAX + 1).to_string();
        let most = Size(limits::MEMORY_MAX as u64).to_string();
        assert!(parse_urb_size(&more).unwrap_err().to_string().contains(&most), "{more}");
    }

    #[test]
    fn sizes_too_small_to_be_of_use_are_refused_with_the_least() {
        for (typed, expected) in [("0", Some(0)), ("64K", Some(64 << 10)), ("1", None)] {
            assert_eq!(parse_device_memory(typed).ok(), expected, "--device-memory {typed}");
        }
        for (typed, expected) in [("4K", Some(4 << 10)), ("0", None), ("4095", None)] {
            assert_eq!(parse_socket_buffer(typed).ok(), expected, "--socket-buffer {typed}");
        }
        for (refused, says) in [
            (parse_device_memory("1").unwrap_err(), "from 64K to "),
            (parse_device_memory("64KB/s").unwrap_err(), "or 0 for none"),
            (parse_socket_buffer("0").unwrap_err(), "from 4K to "),
            (parse_socket_buffer("0").unwrap_err(), "without the option the system chooses"),
        ] {
            assert!(refused.to_string().contains(says), "{refused}");
        }
    }

    #[test]
    fn minutes_are_times_and_bounds_are_kept() {
        assert_eq!(parse_peer_timeout("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse_peer_timeout("1h"), Ok(limits::PEER_TIMEOUT_MAX));
        for wrong in ["61m", "2s", "10", "10 parsecs", "forever"] {
            assert_eq!(parse_peer_timeout(wrong), Err(ValueError::PeerTimeout), "{wrong}");
        }
    }

    #[test]
    fn an_address_is_the_network_of_itself() {
        for (typed, network) in [
            ("192.168.1.5", "192.168.1.5/32"),
            ("::1", "::1/128"),
            ("192.168.1.0/24", "192.168.1.0/24"),
            ("::ffff:192.168.1.5", "192.168.1.5/32"),
            ("::ffff:192.168.1.0/120", "192.168.1.0/24"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(parse_network(typed).unwrap().to_string(), network);
            let shown = network_text(&network.parse().unwrap());
            assert_eq!(parse_network(&shown).unwrap().to_string(), network, "{shown}");
            assert!(!shown.contains("/32") && !shown.contains("/128"), "{shown}");
        }
    }

    #[test]
    fn an_address_with_the_length_of_its_network_is_refused_with_both_meanings() {
        for (typed, meant) in [
            ("10.0.0.1/8", "write 10.0.0.0/8 or 10.0.0.1: "),
            ("10.0.0.1/0", "write 0.0.0.0/0 or 10.0.0.1: "),
            ("fd00::1/8", "write fd00::/8 or fd00::1: "),
            ("::ffff:192.168.1.5/120", "write 192.168.1.0/24 or 192.168.1.5: "),
        ] {
            let said = parse_network(typed).unwrap_err().to_string();
            assert!(said.starts_with(meant), "{typed}: {said}");
        }
    }
}
