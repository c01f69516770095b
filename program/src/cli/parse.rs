//! Values with words of the command line's: filters and forms of the log, and take-over policies.
//!
//! Contract: pure.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use log::LevelFilter;

use super::error::{NotAFilter, NotAGroup};
use crate::config::TakeOver;
use crate::logging::Shape;

/// A policy, by its name, and the names with what each means for the help.
pub(super) fn takeover() -> impl TypedValueParser<Value = TakeOver> {
    PossibleValuesParser::new(TakeOver::ALL.map(described)).try_map(|name| name.parse())
}

fn described(policy: TakeOver) -> PossibleValue {
    let help = match policy {
        TakeOver::Never => "The new client is told that the device is busy",
        TakeOver::Stale => {
            "If both clients have the same address, and the holder's connection looks dead. \
             Over \"ssh -R\" every client has the address 127.0.0.1, and every connection \
             looks alive as long as the tunnel does"
        }
        TakeOver::SameHost => {
            "If both clients have the same address, whether or not the holder's connection \
             looks dead. Over \"ssh -R\" all clients have the same address"
        }
        TakeOver::Any => "Always: the last client to ask has the device",
    };
    PossibleValue::new(policy.name()).help(help)
}

impl clap::ValueEnum for Shape {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

/// A filter must have a part for this program: a word that is no level would be taken for the name
/// of a module elsewhere, and nothing at all would be logged.
pub(super) fn parse_log(text: &str) -> Result<String, NotAFilter> {
    let concerns_us = |part: &str| match part.split_once('=') {
        Some((target, level)) => is_ours(target) && is_level(level),
        None => is_level(part) || is_ours(part),
    };
    if parts_of(text).any(concerns_us) { Ok(text.to_owned()) } else { Err(NotAFilter) }
}

/// The parts of a filter, without the text behind a slash, which lines must contain.
pub(super) fn parts_of(filter: &str) -> impl Iterator<Item = &str> {
    filter.split('/').next().unwrap_or_default().split(',')
}

/// The name of a group, for a rule of udev.
pub(super) fn parse_group(text: &str) -> Result<String, NotAGroup> {
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let is_name = !text.is_empty() && text.chars().all(is_of_a_name);
    if is_name { Ok(text.to_owned()) } else { Err(NotAGroup) }
}

fn is_level(text: &str) -> bool {
    text.trim().parse::<LevelFilter>().is_ok()
}

fn is_ours(target: &str) -> bool {
    target.trim().starts_with("usbferry")
}

/// Whether a part of a filter is a level for a module of another program.
pub(super) fn names_another(part: &str) -> bool {
    part.split_once('=').is_some_and(|(target, level)| !is_ours(target) && is_level(level))
}
