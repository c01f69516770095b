//! The values that settings may have, as typed: each parser takes a text, and answers a wrong text
//! with the values to give instead.
//!
//! Contract: pure.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
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
    /// An address to listen on.
    Listen,
    /// A network or an address.
    Network,
    /// A number of URB slots.
    Urbs,
    /// Bytes of buffer memory.
    Memory,
    /// Bytes of the largest URB.
    UrbSize,
    /// Any other number of bytes.
    Size,
    /// The time of busy polling.
    BusyPoll,
    /// The time without a sign of life.
    PeerTimeout,
    /// When a client may take a device from another.
    TakeOver,
    /// The value of a configuration.
    Configuration,
    /// The time for which a device must have been present.
    Settle,
}

impl std::error::Error for ValueError {}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = Size(limits::MEMORY_MAX as u64);
        match self {
            Self::Listen => f.write_str(
                "give an address with its port, such as 192.168.1.5:3240, 0.0.0.0:3240 or \
                 [::1]:3240 (no names)",
            ),
            Self::Network => {
                f.write_str("give a network such as 192.168.1.0/24 or fd00::/8, or one address")
            }
            Self::Urbs => write!(f, "give a number from {} to {}", URBS.start(), URBS.end()),
            Self::Memory => write!(
                f,
                "give a power of two from {} to {most}, such as 16M",
                Size(limits::MEMORY_MIN as u64)
            ),
            Self::UrbSize => write!(
                f,
                "give a number of bytes from {} to {most}, such as 128K or 16M",
                limits::CONTROL_LEN_MAX
            ),
            Self::Size => {
                write!(f, "give a number of bytes up to {most}, such as 4096, 128K or 16M")
            }
            Self::BusyPoll => {
                let most = limits::BUSY_POLL_MAX;
                write!(f, "give a time up to {most:?}, such as 50us or 1ms")
            }
            Self::PeerTimeout => write!(
                f,
                "give a time from {:?} to {:?}, such as 15s",
                PEER_TIMEOUT.start(),
                PEER_TIMEOUT.end()
            ),
            Self::TakeOver => {
                let names = TakeOver::ALL.map(TakeOver::name).join(", ");
                write!(f, "give one of {names}")
            }
            Self::Configuration => f.write_str(
                "give the number of a configuration (bConfigurationValue, as lsusb -v shows it), \
                 from 1 to 255",
            ),
            Self::Settle => {
                write!(f, "give a time up to {:?}, such as 500ms or 2s", limits::SETTLE_MAX)
            }
        }
    }
}

pub(crate) fn parse_listen(text: &str) -> Result<SocketAddr, ValueError> {
    text.parse().map_err(|_| ValueError::Listen)
}

/// A network of IPv4 in the form of IPv6 (`::ffff:192.168.1.0/120`) is the network of IPv4, as
/// every client's address is taken.
pub(crate) fn parse_network(text: &str) -> Result<IpNet, ValueError> {
    let address = || text.parse().ok().map(IpAddr::into);
    let net = text.parse().ok().or_else(address).ok_or(ValueError::Network)?;
    Ok(match net {
        IpNet::V6(v6) => canonical(v6).unwrap_or(net),
        IpNet::V4(_) => net,
    })
}

/// The network of IPv4 that is meant by a network of IPv6, if any.
fn canonical(net: Ipv6Net) -> Option<IpNet> {
    /// Bits of the prefix of all addresses of IPv4 in IPv6.
    const MAPPED: u8 = 96;
    let len = net.prefix_len().checked_sub(MAPPED)?;
    IpNet::new(net.addr().to_ipv4_mapped()?.into(), len).ok()
}

pub(crate) fn parse_urbs(text: &str) -> Result<usize, ValueError> {
    text.parse().ok().filter(|urbs| URBS.contains(urbs)).ok_or(ValueError::Urbs)
}

pub(crate) fn parse_memory(text: &str) -> Result<usize, ValueError> {
    units::parse_size(text)
        .filter(|bytes| bytes.is_power_of_two() && MEMORY.contains(bytes))
        .ok_or(ValueError::Memory)
}

/// Descriptors are read by control transfers, and without them a client can use nothing: the
/// largest URB is never smaller than the longest control transfer.
pub(crate) fn parse_urb_size(text: &str) -> Result<usize, ValueError> {
    let bytes = parse_size(text)?;
    if bytes < limits::CONTROL_LEN_MAX { Err(ValueError::UrbSize) } else { Ok(bytes) }
}

pub(crate) fn parse_size(text: &str) -> Result<usize, ValueError> {
    units::parse_size(text).filter(|&bytes| bytes <= limits::MEMORY_MAX).ok_or(ValueError::Size)
}

pub(crate) fn parse_busy_poll(text: &str) -> Result<Duration, ValueError> {
    units::parse_time(text)
        .filter(|&time| time <= limits::BUSY_POLL_MAX)
        .ok_or(ValueError::BusyPoll)
}

pub(crate) fn parse_peer_timeout(text: &str) -> Result<Duration, ValueError> {
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
            assert_eq!(parse_size(&Size(bytes as u64).to_string()), Ok(bytes));
        }
        let more = (limits::MEMORY_MAX + 1).to_string();
        let most = Size(limits::MEMORY_MAX as u64).to_string();
        assert!(parse_size(&more).unwrap_err().to_string().contains(&most), "{more}");
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
        }
    }
}
