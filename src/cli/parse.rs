//! Values that only a command line has: filters of the log, and the names of take-over policies.
//!
//! Contract: pure.

use clap::builder::PossibleValue;
use log::LevelFilter;

use super::error::NotAFilter;
use crate::config::TakeOver;

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
pub(super) fn parse_log(text: &str) -> Result<String, NotAFilter> {
    let concerns_us = |part: &str| match part.split_once('=') {
        Some((target, level)) => is_ours(target) && is_level(level),
        None => is_level(part) || is_ours(part),
    };
    if parts_of(text).any(concerns_us) { Ok(text.to_owned()) } else { Err(NotAFilter) }
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
