//! Which devices are exported, under which name, to whom and on which terms: the rules.
//!
//! - `rule`: one rule, with the clients that it admits;
//! - `matching`: the devices of a rule;
//! - `spec`: devices as typed; `text`: serial numbers and drivers as typed; `error`: texts that
//!   name no device.
//!
//! Rules are tried in order, and the first that applies decides: exceptions of the command line,
//! devices of the command line, `--all`, and then the rules of the file. A device without a rule
//! stays where it is, and so does every hub.
//!
//! Contract: plain data and pure functions.

mod error;
pub mod matching;
mod rule;
pub mod spec;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod text;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Policy;
use super::hooks::Hooks;
use super::name::Nickname;
use crate::usb::DeviceInfo;
use matching::Match;
pub use rule::{Clients, Origin, Rule};

/// Addresses that may connect beside this machine itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Allowed(pub Vec<IpNet>);

impl Allowed {
    /// Whether a client at an address is served.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        // A socket for both protocols shows IPv4 clients as ::ffff:a.b.c.d.
        let address = address.to_canonical();
        address.is_loopback() || self.0.iter().any(|net| net.contains(&address))
    }
}

/// The rules, in their order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rules(Vec<Arc<Rule>>);

impl Rules {
    /// Rules in their order.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self(rules.into_iter().map(Arc::new).collect())
    }

    /// The rule of `--all`: every device except hubs and devices that came in over USB/IP.
    #[must_use]
    pub fn all() -> Self {
        Self::new([Rule::exporting(Match::default(), Origin::Flag("--all".to_owned()))])
    }

    /// The rules one by one.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// How many rules there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no rule.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first rule that applies to a device, by its place among the rules.
    #[must_use]
    pub fn deciding(&self, info: &DeviceInfo) -> Option<(usize, &Arc<Rule>)> {
        self.0.iter().enumerate().find(|(_, rule)| rule.applies(info)).filter(|_| !info.is_hub())
    }

    /// The verdict on a device, whose terms are `policy` where its rule says nothing else.
    #[must_use]
    pub fn judge(&self, info: &DeviceInfo, policy: Policy) -> Verdict {
        self.judge_in_place(info, None, policy)
    }

    /// The verdict on a device in the port where the device called `before` was a moment ago. A
    /// device of a kind that the rule of `before` lists is the same device in another state, and
    /// the rule decides as if it fitted the device.
    #[must_use]
    pub fn judge_in_place(
        &self,
        info: &DeviceInfo,
        before: Option<Nickname>,
        policy: Policy,
    ) -> Verdict {
        let rules = self.0.iter().enumerate();
        let mut kept = rules.filter(|(_, rule)| before.is_some_and(|name| rule.keeps(info, name)));
        let deciding = self.deciding(info).into_iter().chain(kept.next());
        let deciding = deciding.min_by_key(|&(index, _)| index);
        let (policy, rule) = match deciding {
            Some((index, rule)) => (rule.terms.over(policy), Some((index, Arc::clone(rule)))),
            None => (policy, None),
        };
        Verdict { policy, rule }
    }
}

/// What the rules say about a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The terms on which the device is lent.
    pub policy: Policy,
    /// The rule that has decided, and its place among the rules.
    rule: Option<(usize, Arc<Rule>)>,
}

impl Verdict {
    /// Whether the device is exported, to some client at least.
    #[must_use]
    pub fn is_offered(&self) -> bool {
        self.rule().is_some_and(|rule| rule.export)
    }

    /// Whether the device is exported to every client that may connect.
    #[must_use]
    pub fn is_for_all(&self) -> bool {
        self.rule().is_some_and(|rule| rule.export && rule.clients.is_none())
    }

    /// Whether the device is exported to the client at an address.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        let rule = self.rule().filter(|rule| rule.export);
        rule.is_some_and(|rule| rule.clients.as_ref().is_none_or(|c| c.contains(address)))
    }

    /// The name of the device, if any.
    #[must_use]
    pub fn name(&self) -> Option<Nickname> {
        self.rule()?.name
    }

    /// The name of an exported device that has several states, by its rule: the name follows the
    /// device from state to state.
    #[must_use]
    pub fn name_in_states(&self) -> Option<Nickname> {
        self.rule().filter(|rule| rule.has_states())?.name
    }

    /// The programs to run, if the device is exported.
    #[must_use]
    pub fn hooks(&self) -> Option<&Arc<Hooks>> {
        self.rule().filter(|rule| rule.export).map(|rule| &rule.hooks)
    }

    /// Whether a program is asked before a client gets the device.
    #[must_use]
    pub fn asks_program(&self) -> bool {
        self.hooks().is_some_and(|hooks| hooks.authorize)
    }

    /// The rule that has decided.
    #[must_use]
    pub fn rule(&self) -> Option<&Rule> {
        self.rule.as_ref().map(|(_, rule)| rule.as_ref())
    }

    /// The place of the rule that has decided, counted from 0.
    #[must_use]
    pub fn index(&self) -> Option<usize> {
        self.rule.as_ref().map(|&(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::info;
    use super::*;
    use crate::config::policy::Terms;

    fn matches(text: &str) -> Match {
        text.parse().unwrap()
    }

    fn origin() -> Origin {
        Origin::Flag("--device".to_owned())
    }

    fn exports(rules: &Rules, info: &DeviceInfo) -> bool {
        rules.judge(info, Policy::default()).is_offered()
    }

    #[test]
    fn all_leaves_out_hubs_and_imported_devices_but_a_name_brings_those_back() {
        let all = Rules::all();
        assert!(exports(&all, &info("1-1", 0, false)));
        assert!(!exports(&all, &info("1-1", 9, false)));
        assert!(!exports(&all, &info("1-1", 0, true)));
        let named = Rules::new([Rule::exporting(matches("1-1"), origin())]);
        assert!(exports(&named, &info("1-1", 0, true)));
        assert!(!exports(&named, &info("1-1", 9, false)), "never a hub");
        assert!(!exports(&named, &info("1-2", 0, false)));
    }

    #[test]
    fn the_first_rule_decides() {
        let stick = "stick".parse().unwrap();
        let first = Rule { name: Some(stick), ..Rule::exporting(matches("1-1"), origin()) };
        let rules = Rules::new([
            first,
            Rule::excluding(matches("0781:5567"), origin()),
            Rule::exporting(Match::default(), origin()),
        ]);
        let verdict = rules.judge(&info("1-1", 0, false), Policy::default());
        assert_eq!((verdict.name(), verdict.index()), (Some(stick), Some(0)));
        let verdict = rules.judge(&info("1-2", 0, false), Policy::default());
        assert_eq!((verdict.is_offered(), verdict.index()), (false, Some(1)));
        let verdict = Rules::default().judge(&info("1-1", 0, false), Policy::default());
        assert_eq!((verdict.is_offered(), verdict.index()), (false, None), "nothing by itself");
    }

    #[test]
    fn a_verdict_has_the_terms_of_its_rule() {
        let terms = Terms { urbs: Some(7), reset_on_import: Some(true), ..Terms::default() };
        let rule = Rule { terms, ..Rule::exporting(matches("1-1"), origin()) };
        let usual = Policy { reset_on_release: true, ..Policy::default() };
        let policy = Rules::new([rule]).judge(&info("1-1", 0, false), usual).policy;
        assert_eq!((policy.limits.urbs, policy.reset_on_import), (7, true));
        assert!(policy.reset_on_release, "where the rule says nothing");
        assert_eq!(policy.limits.memory, usual.limits.memory);
    }

    #[test]
    fn a_device_is_there_for_its_clients_only() {
        let clients = Clients(vec!["10.0.0.0/8".parse().unwrap()]);
        let rule = Rule { clients: Some(clients), ..Rule::exporting(matches("1-1"), origin()) };
        let verdict = Rules::new([rule]).judge(&info("1-1", 0, false), Policy::default());
        for (address, expected) in [("10.1.1.1", true), ("::1", false), ("11.1.1.1", false)] {
            assert_eq!(verdict.admits(address.parse().unwrap()), expected, "{address}");
        }
        let all = Rules::all().judge(&info("1-1", 0, false), Policy::default());
        assert!(all.admits("11.1.1.1".parse().unwrap()));
        let none = Rules::default().judge(&info("1-1", 0, false), Policy::default());
        assert!(!none.admits("::1".parse().unwrap()));
    }

    #[test]
    fn loopback_may_always_connect_and_others_only_when_allowed() {
        let allowed = Allowed(vec!["192.168.4.0/24".parse().unwrap()]);
        for (address, expected) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("192.168.4.7", true),
            ("::ffff:192.168.4.7", true),
            ("192.168.5.7", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(allowed.contains(address.parse().unwrap()), expected, "{address}");
        }
    }
}
