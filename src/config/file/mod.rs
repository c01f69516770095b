//! The file of settings: TOML, with every setting that the command line has for a server, and the
//! rules.
//!
//! - `keys`: all keys; `section`: the keys of a table;
//! - `rule`: a `[[rule]]`;
//! - `error`: faults, each with its place.
//!
//! A file is taken as a whole or refused as a whole, at its first fault.
//!
//! Contract: pure; `commands` reads the file.

mod error;
mod keys;
mod rule;
mod section;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::{DeTable, DeValue};

use super::hooks::Hooks;
use super::listen::{ListenAt, parse_http};
use super::policy::{Policy, Terms};
use super::rules::Rule;
use super::socket::{SocketPlace, parse_socket, parse_socket_mode};
use super::value::{parse_busy_poll, parse_peer_timeout, parse_socket_buffer};
use crate::limits::RULES_MAX;
use error::Lines;
pub use error::{Advice, Expected, Fault, FileError, Place};
use keys::{RULE_KEYS, SERVER_KEYS};
use rule::{Around, check_urb_size, network, read_hooks, read_rule, read_terms};
use section::{Found, SHOWN_MAX, Section, at};

/// The settings of a file: `None` for whatever the file leaves to the command line.
#[derive(Clone, Debug, Default)]
pub struct FileSettings {
    /// The file, as the user named the file; `None` without a file.
    pub file: Option<Arc<str>>,
    /// Places to listen on.
    pub listen: Option<Vec<ListenAt>>,
    /// Clients that may connect beside this machine itself.
    pub allow: Option<Vec<IpNet>>,
    /// The terms of every device whose rule says nothing else.
    pub terms: Terms,
    /// The hooks of every device whose rule says nothing else.
    pub hooks: Arc<Hooks>,
    /// Bytes of each buffer of a client's socket.
    pub socket_buffer: Option<usize>,
    /// The time to look for work before sleeping.
    pub busy_poll: Option<Duration>,
    /// The time without a sign of life after which a client is dropped.
    pub peer_timeout: Option<Duration>,
    /// The place of the socket of operators.
    pub socket: Option<SocketPlace>,
    /// The mode of the socket of operators.
    pub socket_mode: Option<u32>,
    /// Where the web server listens.
    pub http: Option<ListenAt>,
    /// Announce the server on its networks.
    pub advertise: Option<bool>,
    /// The rules, in their order.
    pub rules: Vec<Rule>,
}

impl FileSettings {
    /// Reads the text of a file, which the user calls `name`.
    ///
    /// # Errors
    /// The first fault, by which the whole file is refused.
    pub fn read(name: &str, text: &str) -> Result<Self, FileError> {
        let file: Arc<str> = name.into();
        let lines = Lines::of(text);
        read(&file, text, &lines).map_err(|(byte, fault)| FileError::At {
            file: Arc::clone(&file),
            place: lines.place(byte),
            fault,
        })
    }
}

fn read(file: &Arc<str>, text: &str, lines: &Lines<'_>) -> Found<FileSettings> {
    let document = DeTable::parse(text).map_err(|error| {
        let start = error.span().map_or(text.len(), |span| span.start);
        let hint = quotes_missing(text, start).unwrap_or_default();
        (start, Fault::Syntax(format!("{}{hint}", error.message())))
    })?;
    let section = Section::of(document.get_ref(), &SERVER_KEYS, advise)?;
    let listen = |text: &str| text.parse().map_err(|error| Fault::Value { key: "listen", error });
    let socket =
        |text: &str| parse_socket(text).map_err(|error| Fault::Value { key: "socket", error });
    let http = |text: &str| parse_http(text).map_err(|error| Fault::Value { key: "http", error });
    let (terms, hooks) = (read_terms(&section)?, read_hooks(&section, &Hooks::default())?);
    let policy = terms.over(Policy::default());
    check_urb_size(&section, policy)?;
    let rules = read_rules(&section, &Around { file, lines, policy, hooks: &hooks })?;
    Ok(FileSettings {
        file: Some(Arc::clone(file)),
        listen: section.texts("listen", listen)?,
        allow: section.texts("allow", network("allow"))?,
        terms,
        hooks: Arc::new(hooks),
        socket_buffer: section.number("socket-buffer", parse_socket_buffer)?,
        busy_poll: section.number("busy-poll", parse_busy_poll)?,
        peer_timeout: section.number("peer-timeout", parse_peer_timeout)?,
        socket: section.text("socket", socket)?,
        socket_mode: section.number("socket-mode", parse_socket_mode)?,
        http: section.text("http", http)?,
        advertise: section.boolean("advertise")?,
        rules,
    })
}

/// Advice for a line whose value looks like a text without quotes.
fn quotes_missing(text: &str, byte: usize) -> Option<String> {
    let before = text.get(..byte)?;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let (key, value) = text[start..].lines().next()?.split_once('=')?;
    let value = value.split('#').next()?.trim();
    let is_bare = value.starts_with(|c: char| c.is_alphanumeric()) && !value.contains('"');
    let is_short = key.len() + value.len() <= SHOWN_MAX;
    (is_bare && is_short).then(|| format!("; a text needs quotes: {} = \"{value}\"", key.trim()))
}

fn advise(key: &str) -> Option<Advice> {
    match key {
        "rules" | "device" | "devices" => Some(Advice::Meant("[[rule]]")),
        "all" => Some(Advice::EveryDevice),
        _ => RULE_KEYS.contains(&key).then_some(Advice::OfRules),
    }
}

fn read_rules(section: &Section<'_, '_>, around: &Around<'_>) -> Found<Vec<Rule>> {
    let Some(value) = section.value("rule") else { return Ok(Vec::new()) };
    match value.get_ref() {
        DeValue::Array(rules) if rules.len() > RULES_MAX => {
            Err(at(value, Fault::TooManyRules(rules.len())))
        }
        DeValue::Array(rules) => rules.iter().map(|rule| read_rule(rule, around)).collect(),
        _ => Err(at(value, Fault::Type { key: "rule", expected: Expected::Tables })),
    }
}
