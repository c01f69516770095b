//! A `[[rule]]` of the file, and the terms and hooks that stand in a rule or before all rules.
//!
//! Contract: pure.

use std::sync::Arc;

use toml::Spanned;
use toml::de::DeValue;

use super::error::{Advice, Expected, Fault, Lines};
use super::keys::{RULE_KEYS, SERVER_KEYS};
use super::section::{Found, Section, at};
use crate::config::ValueError;
use crate::config::hooks::{Hook, Hooks, Program};
use crate::config::policy::{Policy, Terms};
use crate::config::rules::matching::{Ids, Match};
use crate::config::rules::spec::{DeviceSpecError, parse_busid, parse_class, parse_ids, split_ids};
use crate::config::rules::text::{parse_driver, parse_serial};
use crate::config::rules::{Clients, Origin, Rule};
use crate::config::value::{
    parse_configuration, parse_device_memory, parse_memory, parse_network, parse_settle,
    parse_urb_size, parse_urbs,
};
use crate::limits::{DeviceLimits, RULE_IDS_MAX};

/// Words of other programs for the keys.
const OTHER_WORDS: [(&str, &str); 12] = [
    ("device", "id"),
    ("vid", "id"),
    ("pid", "id"),
    ("vendor", "id"),
    ("product", "id"),
    ("ids", "id"),
    ("port", "busid"),
    ("path", "busid"),
    ("match", "busid, id, serial, class or driver"),
    ("nickname", "name"),
    ("allow", "clients"),
    ("exclude", "export = false"),
];

/// The text around a rule.
pub(super) struct Around<'a> {
    /// The file, as the user named the file.
    pub(super) file: &'a Arc<str>,
    /// The lines of the file.
    pub(super) lines: &'a Lines<'a>,
    /// The terms where a rule says nothing else.
    pub(super) policy: Policy,
    /// The hooks where a rule has none.
    pub(super) hooks: &'a Hooks,
}

/// Reads a rule.
pub(super) fn read_rule(value: &Spanned<DeValue<'_>>, around: &Around<'_>) -> Found<Rule> {
    let DeValue::Table(table) = value.get_ref() else {
        return Err(at(value, Fault::Type { key: "rule", expected: Expected::Tables }));
    };
    let section = Section::of(table, &RULE_KEYS, advise)?;
    let line = around.lines.line(value.span().start);
    let configuration = section.number("configuration", parse_configuration)?;
    let terms = Terms { configuration, ..read_terms(&section)? };
    check_urb_size(&section, terms.over(around.policy))?;
    Ok(Rule {
        matches: read_match(&section)?,
        name: section.text("name", |text| text.parse().map_err(Fault::Name))?,
        export: section.boolean("export")?.unwrap_or(true),
        clients: section.texts("clients", network("clients"))?.map(Clients),
        terms,
        hooks: Arc::new(read_hooks(&section, around.hooks)?),
        origin: Origin::File { file: Arc::clone(around.file), line },
    })
}

/// Two of the largest URBs must fit into the memory of a device.
pub(super) fn check_urb_size(section: &Section<'_, '_>, policy: Policy) -> Found<()> {
    let DeviceLimits { urb_len: urb_size, memory, .. } = policy.limits;
    if urb_size <= memory / 2 {
        return Ok(());
    }
    let place = section.place("urb-size").or_else(|| section.place("memory"));
    Err((place.unwrap_or(0), Fault::UrbSize { urb_size, memory }))
}

fn advise(key: &str) -> Option<Advice> {
    if key == "all" {
        return Some(Advice::EveryDevice);
    }
    let other = OTHER_WORDS.iter().find(|&&(word, _)| word == key);
    let meant = other.map(|&(_, meant)| Advice::Meant(meant));
    meant.or_else(|| SERVER_KEYS.contains(&key).then_some(Advice::OfServer))
}

/// The reader of a network, for a key.
pub(super) fn network(key: &'static str) -> impl Fn(&str) -> Result<ipnet::IpNet, Fault> {
    move |text| parse_network(text).map_err(|error| Fault::Value { key, error })
}

fn read_match(section: &Section<'_, '_>) -> Found<Match> {
    let device = |key| move |error: DeviceSpecError| Fault::Device { key, error };
    let busid = section.text("busid", |text| parse_busid(text).map_err(device("busid")))?;
    let ids = section.texts("id", read_id)?.unwrap_or_default();
    if ids.len() > RULE_IDS_MAX {
        let error = DeviceSpecError::Kinds(ids.len());
        return Err((section.place("id").unwrap_or(0), Fault::Device { key: "id", error }));
    }
    let class = section.text("class", |text| parse_class(text).map_err(device("class")))?;
    let serial = section.text("serial", |text| parse_serial(text).map_err(device("serial")))?;
    let driver = section.text("driver", |text| parse_driver(text).map_err(device("driver")))?;
    Ok(Match { busid, ids, serial, class, driver })
}

fn read_id(text: &str) -> Result<Ids, Fault> {
    match split_ids(text) {
        Some((id, Some(serial))) if !serial.is_empty() => {
            Err(Fault::IdWithSerial { id: id.to_string(), serial: serial.to_owned() })
        }
        _ => parse_ids(text).map_err(|error| Fault::Device { key: "id", error }),
    }
}

/// The terms, but for the configuration, which is a matter of one kind of devices.
pub(super) fn read_terms(section: &Section<'_, '_>) -> Found<Terms> {
    let takeover = |text: &str| {
        text.parse().map_err(|error: ValueError| Fault::Value { key: "take-over", error })
    };
    Ok(Terms {
        urbs: section.number("urbs", parse_urbs)?,
        memory: section.number("memory", parse_memory)?,
        device_memory: section.number("device-memory", parse_device_memory)?,
        urb_len: section.number("urb-size", parse_urb_size)?,
        takeover: section.text("take-over", takeover)?,
        reset_on_release: section.boolean("reset-on-release")?,
        reset_on_import: section.boolean("reset-on-import")?,
        configuration: None,
        settle: section.number("settle", parse_settle)?,
    })
}

/// The hooks; `usual` where the section has none.
pub(super) fn read_hooks(section: &Section<'_, '_>, usual: &Hooks) -> Found<Hooks> {
    let mut hooks = usual.clone();
    for hook in Hook::ALL {
        if let Some(program) = read_program(section, hook.key())? {
            hooks.set(hook, program);
        }
    }
    let authorize = section.boolean("authorize")?;
    hooks.authorize = authorize.unwrap_or(usual.authorize);
    if authorize == Some(true) && hooks.get(Hook::Attach).is_none() {
        let place = section.place("authorize").unwrap_or(0);
        return Err((place, Fault::NobodyAuthorizes));
    }
    Ok(hooks)
}

/// A program with arguments. The path begins at the root: a server has no directory of its own, and
/// nobody else's `PATH` should decide what runs.
fn read_program(section: &Section<'_, '_>, key: &'static str) -> Found<Option<Program>> {
    let Some(value) = section.value(key) else { return Ok(None) };
    let wrong = || at(value, Fault::Type { key, expected: Expected::Program });
    let DeValue::Array(words) = value.get_ref() else { return Err(wrong()) };
    let word = |word: &Spanned<DeValue<'_>>| match word.get_ref() {
        DeValue::String(text) if !text.contains('\0') => Some(text.clone().into_owned()),
        _ => None,
    };
    let words = words.iter().map(word).collect::<Option<Vec<String>>>();
    let mut words = words.unwrap_or_default().into_iter();
    let path = words.next().filter(|path| path.starts_with('/')).ok_or_else(wrong)?;
    Ok(Some(Program { path, arguments: words.collect() }))
}
