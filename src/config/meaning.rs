//! The meaning of the rules for the devices that are there, in words for a user.
//!
//! Contract: pure.

use std::fmt::Write as _;

use ipnet::IpNet;

use super::Settings;
use super::policy::Policy;
use super::rules::matching::Ids;
use super::rules::{Clients, Rule, Verdict};
use super::value::network_text;
use crate::sorted::sort_by_key;
use crate::units::Size;
use crate::usb::DeviceInfo;
use crate::words::printable;

/// A line for each rule with clients that may not connect at all.
pub fn shut_out(settings: &Settings) -> Vec<String> {
    let line = |(rule, network): (&Rule, IpNet)| {
        format!(
            "{}: clients of {} may not connect: allow (--allow) has to name them, too",
            rule.origin,
            network_text(&network)
        )
    };
    settings.shut_out().map(line).collect()
}

/// The devices and the rules, brought together.
pub struct Meaning<'a> {
    settings: &'a Settings,
    judged: Vec<(&'a DeviceInfo, Verdict)>,
}

impl<'a> Meaning<'a> {
    /// The meaning of the rules for these devices.
    pub fn of(devices: impl IntoIterator<Item = &'a DeviceInfo>, settings: &'a Settings) -> Self {
        Self::judged(devices.into_iter().map(|device| (device, settings.verdict(device))), settings)
    }

    /// The meaning for devices that were judged already, each with the name of its place.
    pub(crate) fn judged(
        judged: impl IntoIterator<Item = (&'a DeviceInfo, Verdict)>,
        settings: &'a Settings,
    ) -> Self {
        let mut judged: Vec<_> = judged.into_iter().collect();
        sort_by_key(&mut judged, |(device, _)| device.device.busid);
        Self { settings, judged }
    }

    /// A line for each exported device.
    pub(crate) fn exported(&self) -> Vec<String> {
        let offered = self.judged.iter().filter(|(_, verdict)| verdict.is_offered());
        offered.map(|(device, verdict)| exported(device, verdict)).collect()
    }

    /// A line for each rule that names devices and exports nothing now, and for each rule behind
    /// which others can never decide.
    pub fn waiting(&self) -> Vec<String> {
        let rules: Vec<&Rule> = self.settings.rules.iter().collect();
        let mut idle: Vec<Vec<&Rule>> = vec![Vec::new(); rules.len()];
        let mut lines = Vec::new();
        for (index, &rule) in rules.iter().enumerate() {
            match rules[..index].iter().position(|early| early.matches.covers(&rule.matches)) {
                Some(early) => idle[early].push(rule),
                None => lines.extend(self.wait_of(index, rule)),
            }
        }
        let told = rules.iter().zip(&idle).filter_map(|(early, late)| never_decide(early, late));
        lines.extend(told);
        lines
    }

    /// A line for each name that fits several devices.
    pub fn ambiguous(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (at, (_, verdict)) in self.judged.iter().enumerate() {
            let Some(name) = verdict.name().filter(|_| verdict.is_offered()) else { continue };
            let has_name =
                |(_, verdict): &&(_, Verdict)| verdict.is_offered() && verdict.name() == Some(name);
            let bearers: Vec<String> = self.judged[at..]
                .iter()
                .filter(has_name)
                .map(|(device, _)| device.device.busid.to_string())
                .collect();
            let is_first = !self.judged[..at].iter().any(|judged| has_name(&judged));
            if is_first && bearers.len() > 1 {
                lines.push(format!(
                    "the name {name} fits several devices, {}, so clients have to ask for a \
                     busid or a serial number",
                    bearers.join(" and ")
                ));
            }
        }
        lines
    }

    /// A line for each device, with the rule that decides, and the terms that are not the usual.
    pub fn decided(&self) -> Vec<String> {
        let usual = Policy::default();
        let line = |(device, verdict): &(&DeviceInfo, Verdict)| {
            let mut line = match verdict.rule() {
                None if device.is_hub() => {
                    format!("{} is a hub, and never exported", called(device))
                }
                None => format!("{} is not exported: no rule matches", called(device)),
                Some(rule) if !rule.export => {
                    format!("{} is not exported, by {}", called(device), rule.origin)
                }
                Some(rule) => format!("{}, by {}", exported(device, verdict), rule.origin),
            };
            if verdict.is_offered() {
                terms(verdict.policy, usual).iter().for_each(|term| line.push_str(term));
            }
            line
        };
        self.judged.iter().map(line).collect()
    }

    /// Why a rule exports nothing now.
    fn wait_of(&self, index: usize, rule: &Rule) -> Option<String> {
        if !rule.export || rule.matches.is_every() {
            return None;
        }
        if self.judged.iter().any(|(_, verdict)| verdict.index() == Some(index)) {
            return None;
        }
        let meant = self.judged.iter().filter(|(device, _)| rule.applies(device));
        let mut line = format!("{}", rule.origin);
        if !line.contains(&rule.matches.to_string()) {
            let _ = write!(line, " ({})", rule.matches);
        }
        let mut meant = meant.map(|(device, verdict)| (device, verdict.rule()));
        match meant.next() {
            None => line.push_str(" matches no device now: usbferry waits for the device"),
            Some((device, None)) => {
                let _ = write!(
                    line,
                    " matches {}, a hub, and hubs are never exported",
                    device.device.busid
                );
            }
            Some((device, Some(earlier))) => {
                let _ = write!(
                    line,
                    " decides nothing now: {} decides about {} before",
                    earlier.origin, device.device.busid
                );
            }
        }
        Some(line)
    }
}

/// That rules can never decide, if there are any, because of an earlier rule.
fn never_decide(early: &Rule, late: &[&Rule]) -> Option<String> {
    let (first, others) = late.split_first()?;
    let others = match others.len() {
        0 => String::new(),
        1 => " and another rule".to_owned(),
        others => format!(" and {others} other rules"),
    };
    Some(format!(
        "{}{others} can never decide: {} matches all of these devices, and the first rule that matches \
         decides",
        first.origin, early.origin
    ))
}

/// A device's place, kind and names.
fn called(device: &DeviceInfo) -> String {
    let names = [device.manufacturer.as_deref(), device.product.as_deref()];
    let names = names.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let names = printable(names.trim());
    let space = if names.is_empty() { "" } else { " " };
    format!("{} ({}{space}{names})", device.device.busid, Ids::of(device))
}

fn exported(device: &DeviceInfo, verdict: &Verdict) -> String {
    let mut line = format!("{} is exported", called(device));
    if let Some(name) = verdict.name() {
        let _ = write!(line, " as {name}");
    }
    if let Some(Clients(nets)) = verdict.rule().and_then(|rule| rule.clients.as_ref()) {
        let nets: Vec<String> = nets.iter().map(network_text).collect();
        let _ = write!(line, " to {}", nets.join(", "));
    }
    line
}

/// The terms that are not the usual.
fn terms(policy: Policy, usual: Policy) -> Vec<String> {
    let Policy { limits, .. } = policy;
    let size = |bytes: usize| Size(bytes as u64);
    let terms = [
        (limits.urbs != usual.limits.urbs, format!("urbs {}", limits.urbs)),
        (limits.memory != usual.limits.memory, format!("memory {}", size(limits.memory))),
        (
            limits.device_memory != usual.limits.device_memory,
            format!("device-memory {}", size(limits.device_memory)),
        ),
        (limits.urb_len != usual.limits.urb_len, format!("urb-size {}", size(limits.urb_len))),
        (policy.takeover != usual.takeover, format!("take-over {}", policy.takeover.name())),
        (policy.reset_on_import, "reset-on-import".to_owned()),
        (policy.reset_on_release, "reset-on-release".to_owned()),
        (policy.settle != usual.settle, format!("settle {:?}", policy.settle)),
    ];
    let configuration = policy.configuration.map(|value| format!("configuration {value}"));
    let given = terms.into_iter().filter(|&(is_other, _)| is_other).map(|(_, term)| term);
    given.chain(configuration).map(|term| format!("; {term}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::FileSettings;
    use crate::config::rules::Rules;
    use crate::config::rules::matching::Match;
    use crate::config::rules::testing::info;
    use crate::usb::Backend;
    use crate::usb::Candidate;
    use crate::usb::sim::SimBackend;
    use crate::usb::sim::bus::SimBus;
    use crate::usb::sim::spec::Spec;

    /// The lines about two disks and a loopback, by the rules of a file.
    fn lines(file: &str, say: impl Fn(&Meaning<'_>) -> Vec<String>) -> Vec<String> {
        let bus = SimBus::with(&Spec::parse_list("disk:count=2,loopback").unwrap());
        let found = SimBackend::new(bus).scan().unwrap().devices;
        let rules = Rules::new(FileSettings::read("f", file).unwrap().rules);
        let settings = Settings { rules, ..Settings::default() };
        let meaning = Meaning::of(found.iter().map(Candidate::info), &settings);
        say(&meaning)
    }

    #[test]
    fn exports_are_told_with_names_and_clients() {
        let file = "[[rule]]\nbusid = \"1-1\"\nname = \"stick\"\nclients = [\"10.0.0.1\", \"fd00::/8\"]\n\
                    [[rule]]\nbusid = \"1-2\"\nexport = false\n[[rule]]\nclass = \"vendor\"\n";
        let exported = lines(file, |meaning| meaning.exported());
        assert_eq!(exported.len(), 2, "{exported:?}");
        assert!(exported[0].starts_with("1-1 ("), "{exported:?}");
        assert!(exported[0].ends_with(") is exported as stick to 10.0.0.1, fd00::/8"));
        assert!(exported[1].starts_with("1-3 (") && exported[1].ends_with(") is exported"));
    }

    #[test]
    fn a_devices_words_are_told_with_their_quotes_and_without_escape_sequences() {
        let device = DeviceInfo {
            manufacturer: Some("Bob's".to_owned()),
            product: Some("7\" disk\u{1b}[2J".to_owned()),
            serial: Some("A\"7'\u{7}".to_owned()),
            ..info("1-1", 0, false)
        };
        assert_eq!(called(&device), "1-1 (0781:5567 Bob's 7\" disk\\u{1b}[2J)");
        let matches =
            Match { serial: device.serial, driver: Some("a'b".to_owned()), ..Match::default() };
        assert_eq!(matches.to_string(), "serial:A\"7'\\u{7}, driver:a'b");
    }

    #[test]
    fn clients_that_may_not_connect_are_told() {
        let rules = FileSettings::read("f", "[[rule]]\nclients = \"192.168.1.7\"\n").unwrap().rules;
        let settings = Settings { rules: Rules::new(rules), ..Settings::default() };
        let lines = shut_out(&settings);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("f:1: clients of 192.168.1.7 may not connect"), "{lines:?}");
    }

    #[test]
    fn each_rule_without_a_device_says_why() {
        let file = "[[rule]]\nclass = \"storage\"\n[[rule]]\nbusid = \"1-1\"\n[[rule]]\n\
                    busid = \"1-9\"\n[[rule]]\nserial = \"none\"\nexport = false\n";
        assert_eq!(
            lines(file, |meaning| meaning.waiting()),
            [
                "f:3 (1-1) decides nothing now: f:1 decides about 1-1 before",
                "f:5 (1-9) matches no device now: usbferry waits for the device",
            ]
        );
    }

    /// Such as a rule that was to keep some devices from being exported.
    #[test]
    fn rules_that_can_never_decide_are_told_once_for_each_rule_in_front() {
        let waiting = |meaning: &Meaning<'_>| meaning.waiting();
        let why = |late: &str, early: &str| {
            format!(
                "{late} can never decide: {early} matches all of these devices, and the first rule that \
                 matches decides"
            )
        };
        let every = "[[rule]]\nclass = \"storage\"\n[[rule]]\n";
        assert_eq!(lines(every, waiting), [""; 0]);
        let late = "[[rule]]\nclass = \"vendor\"\nexport = false\n";
        assert_eq!(lines(&format!("{every}{late}"), waiting), [why("f:4", "f:3")]);
        let more = lines(&format!("{every}{late}{late}[[rule]]\n"), waiting);
        assert_eq!(more, [why("f:4 and 2 other rules", "f:3")]);
        // A kind of which no device is there, and a device of this kind.
        let kind = "[[rule]]\nid = \"0781:5567\"\nexport = false\n";
        let one = "[[rule]]\nid = \"0781:5567\"\nserial = \"A7\"\n";
        assert_eq!(lines(&format!("{kind}{one}"), waiting), [why("f:4", "f:1")]);
        let told = lines(&format!("{one}{kind}"), waiting);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].ends_with("matches no device now: usbferry waits for the device"));
    }

    #[test]
    fn a_name_of_several_devices_is_told_once() {
        let file = "[[rule]]\nclass = \"storage\"\nname = \"disk\"\n[[rule]]\nname = \"rest\"\n";
        let ambiguous = lines(file, |meaning| meaning.ambiguous());
        assert_eq!(ambiguous.len(), 1, "{ambiguous:?}");
        assert!(ambiguous[0].starts_with("the name disk fits several devices, 1-1 and 1-2, so"));
    }

    #[test]
    fn a_decision_is_told_with_its_rule_and_terms() {
        let file = "[[rule]]\nbusid = \"1-1\"\nurbs = 77\nmemory = \"64M\"\ntake-over = \"any\"\n\
                    configuration = 1\nsettle = \"2s\"\nreset-on-import = true\n\
                    [[rule]]\nbusid = \"1-2\"\nexport = false\n";
        let decided = lines(file, |meaning| meaning.decided());
        let terms = "; urbs 77; take-over any; reset-on-import; settle 2s; configuration 1";
        assert!(decided[0].ends_with(&format!(" is exported, by f:1{terms}")), "{decided:?}");
        assert!(decided[1].ends_with(" is not exported, by f:9"), "{decided:?}");
        assert!(decided[2].ends_with(" is not exported: no rule matches"), "{decided:?}");
    }
}
