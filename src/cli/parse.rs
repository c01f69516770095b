//! Values as they are typed: each parser takes a text and says what to type instead of a wrong one.
//!
//! Contract: pure.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::PossibleValue;
use ipnet::IpNet;
use log::LevelFilter;

use crate::config::TakeOver;
use crate::limits;
use crate::units;

impl clap::ValueEnum for TakeOver {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Never, Self::Stale, Self::SameHost, Self::Any]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self {
            Self::Never => ("never", "Never: the new client is told that the device is busy"),
            Self::Stale => (
                "stale",
                "When the holder has the same address and its connection looks dead. Over `ssh -R` \
                 every client has the address 127.0.0.1 and a connection that is alive as long as \
                 the tunnel",
            ),
            Self::SameHost => (
                "same-host",
                "When the holder has the same address, dead or alive. Over `ssh -R` that is \
                 everybody",
            ),
            Self::Any => ("any", "Always: whoever asks last has the device"),
        };
        Some(PossibleValue::new(name).help(help))
    }
}

/// A filter must have a part for this program: a word that is no level would be taken for the name
/// of another's module, and then nothing is logged at all.
pub(super) fn parse_log(text: &str) -> Result<String, String> {
    let concerns_us = |part: &str| match part.split_once('=') {
        Some((target, level)) => is_ours(target) && is_level(level),
        None => is_level(part) || is_ours(part),
    };
    if parts_of(text).any(concerns_us) {
        return Ok(text.to_owned());
    }
    Err("give error, warn, info, debug or trace, or a filter for usbferry such as \
         info,usbferry::session=trace"
        .to_owned())
}

/// The parts of a filter. Behind a slash is what lines must have in them.
pub(super) fn parts_of(filter: &str) -> impl Iterator<Item = &str> {
    filter.split('/').next().unwrap_or_default().split(',')
}

fn is_level(text: &str) -> bool {
    text.trim().parse::<LevelFilter>().is_ok()
}

fn is_ours(target: &str) -> bool {
    target.trim().starts_with("usbferry")
}

/// Whether a part of a filter is for another program, and says for what.
pub(super) fn names_another(part: &str) -> bool {
    part.split_once('=').is_some_and(|(target, level)| !is_ours(target) && is_level(level))
}

pub(super) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "give an address with its port, such as 192.168.1.5:3240, 0.0.0.0:3240 or [::1]:3240 \
         (no names)"
            .to_owned()
    })
}

pub(super) fn parse_network(text: &str) -> Result<IpNet, String> {
    let address =
        || text.parse().ok().map(|address| IpNet::new_assert(address, host_bits(address)));
    IpNet::from_str(text).ok().or_else(address).ok_or_else(|| {
        "give a network such as 192.168.1.0/24 or fd00::/8, or one address".to_owned()
    })
}

/// The prefix length of a network of one address.
const fn host_bits(address: std::net::IpAddr) -> u8 {
    match address {
        std::net::IpAddr::V4(_) => 32,
        std::net::IpAddr::V6(_) => 128,
    }
}

pub(super) fn parse_urbs(text: &str) -> Result<usize, String> {
    let range = limits::URBS_MIN..=limits::URBS_MAX;
    let urbs = text.parse().ok().filter(|urbs| range.contains(urbs));
    urbs.ok_or_else(|| format!("give a number from {} to {}", range.start(), range.end()))
}

/// The largest size that can be set, as it is typed.
pub(super) const MOST: &str = size(limits::MEMORY_MAX);

/// A size as it is typed, of those that the limits have.
pub(super) const fn size(bytes: usize) -> &'static str {
    units::size_text(bytes as u64)
}

pub(super) fn parse_memory(text: &str) -> Result<usize, String> {
    let range = limits::MEMORY_MIN..=limits::MEMORY_MAX;
    units::parse_size(text)
        .filter(|bytes| bytes.is_power_of_two() && range.contains(bytes))
        .ok_or_else(|| format!("give a power of two from 1M to {MOST}, such as 16M"))
}

/// Descriptors are read by control transfers, and without them a client can use nothing.
pub(super) fn parse_urb_size(text: &str) -> Result<usize, String> {
    let bytes = parse_size(text)?;
    if bytes < limits::CONTROL_LEN_MAX {
        let least = limits::CONTROL_LEN_MAX;
        return Err(format!("give a number of bytes from {least} to {MOST}, such as 128K or 16M"));
    }
    Ok(bytes)
}

pub(super) fn parse_size(text: &str) -> Result<usize, String> {
    units::parse_size(text)
        .filter(|&bytes| bytes <= limits::MEMORY_MAX)
        .ok_or_else(|| format!("give a number of bytes up to {MOST}, such as 4096, 128K or 16M"))
}

/// The longest busy polling: beyond it, sleeping costs nothing anybody could notice.
const BUSY_POLL_MAX: Duration = Duration::from_millis(100);

pub(super) fn parse_busy_poll(text: &str) -> Result<Duration, String> {
    units::parse_time(text)
        .filter(|&time| time <= BUSY_POLL_MAX)
        .ok_or_else(|| "give a time up to 100ms, such as 50us or 1ms".to_owned())
}

pub(super) fn parse_peer_timeout(text: &str) -> Result<Duration, String> {
    let range = limits::PEER_TIMEOUT_MIN..=limits::PEER_TIMEOUT_MAX;
    units::parse_time(text)
        .filter(|time| range.contains(time))
        .ok_or_else(|| "give a time from 3s to 3600s, such as 15s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_of_the_limits_is_told_as_it_is_typed() {
        for bytes in [limits::MEMORY_DEFAULT, limits::URB_LEN_DEFAULT, limits::MEMORY_MAX] {
            assert_eq!(parse_size(size(bytes)), Ok(bytes));
        }
        let more = (limits::MEMORY_MAX + 1).to_string();
        assert!(parse_size(&more).unwrap_err().contains(MOST), "{more}");
    }
}
