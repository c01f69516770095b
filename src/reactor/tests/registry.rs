//! Scans, rules, names and clients of a registry, on simulated buses.
//!
//! Contract: tests only.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::super::found::Change;
use super::super::offers::Offer;
use super::super::registry::{Holder, Registry};
use super::super::token::Key;
use crate::config::Settings;
use crate::config::asked::Asked;
use crate::config::meaning::Meaning;
use crate::config::rules::{Clients, Origin, Rule, Rules};
use crate::limits::{CANDIDATES_SHOWN_MAX, RETURN_TIMEOUT};
use crate::usb::sim::bus::SimBus;
use crate::usb::sim::spec::Spec;
use crate::usb::sim::{SimBackend, SimCandidate};
use crate::usb::{Backend, Candidate};
use crate::wire::op::UsbDevice;
use crate::wire::types::BusId;

/// A bus and its registry.
struct Known {
    bus: SimBus,
    settings: Settings,
    registry: Registry<SimCandidate>,
    now: Instant,
}

fn spec(text: &str) -> Spec {
    Spec::parse_list(text).unwrap().remove(0)
}

impl Known {
    fn new(devices: &str) -> Self {
        let bus = SimBus::with(&Spec::parse_list(devices).unwrap());
        let settings = Settings { rules: Rules::all(), ..Settings::default() };
        Self { bus, settings, registry: Registry::default(), now: Instant::now() }
    }

    fn scan(&mut self) -> Vec<Change> {
        let found = SimBackend::new(self.bus.clone()).scan().unwrap().devices;
        self.registry.update(found, &self.settings, self.now)
    }

    fn on_offer(&self) -> Vec<String> {
        self.on_offer_to(HERE)
    }

    fn on_offer_to(&self, address: IpAddr) -> Vec<String> {
        let devices = self.registry.on_offer(address);
        devices.iter().map(|device| device.busid.to_string()).collect()
    }

    fn offer(&self, asked: &str) -> Offer<SimCandidate> {
        self.offer_to(asked, HERE)
    }

    fn offer_to(&self, asked: &str, address: IpAddr) -> Offer<SimCandidate> {
        let asked = Asked::read(BusId::new(asked).unwrap());
        self.registry.offer(&asked, address, self.now)
    }

    fn is_absent(&self, busid: BusId) -> bool {
        matches!(self.offer(&busid.to_string()), Offer::Absent)
    }

    /// Has these rules decide from the next scan on.
    fn set_rules(&mut self, rules: impl IntoIterator<Item = Rule>) {
        self.settings.rules = Rules::new(rules);
    }
}

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));

/// A rule that exports what fits under a name.
fn named(matches: &str, name: &str) -> Rule {
    let rule = Rule::exporting(matches.parse().unwrap(), Origin::Flag(matches.to_owned()));
    Rule { name: name.parse().ok(), ..rule }
}

const fn key(index: u32) -> Key {
    Key { index, generation: 7 }
}

fn holder(index: u32) -> Holder {
    let peer = (Ipv4Addr::LOCALHOST, 4000).into();
    Holder { key: key(index), peer, since: Instant::now() }
}

#[test]
fn a_device_that_has_come_settles_first() {
    let mut known = Known::new("loopback:count=2");
    let first = known.bus.busids()[0];
    known.settings.policy.settle = Duration::from_secs(2);
    known.scan();
    assert!(matches!(known.offer("1-1"), Offer::Free(..)), "it may have been there for long");
    known.bus.unplug(first);
    known.scan();
    known.bus.replug(first);
    let come = known.now + Duration::from_secs(60);
    known.now = come;
    known.scan();
    let settled = come + Duration::from_secs(2);
    for _ in 0..2 {
        assert!(matches!(known.offer("1-1"), Offer::Settling(at) if at == settled));
        assert!(matches!(known.offer("1-2"), Offer::Free(..)), "it has not moved");
        known.now += Duration::from_secs(1);
        known.scan();
    }
    assert!(matches!(known.offer("1-1"), Offer::Free(..)));
}

#[test]
fn a_scan_is_told_from_the_scan_before() {
    let mut known = Known::new("loopback:count=3");
    let [first, second, third] = known.bus.busids()[..] else { panic!("three devices") };
    assert!(!known.registry.is_filled() && known.is_absent(first));
    let arrived = [first, second, third].map(Change::Arrived);
    assert_eq!(known.scan(), arrived);
    assert!(known.registry.is_filled());
    assert_eq!(known.scan(), []);
    known.bus.unplug(first);
    known.bus.replug_as(second, spec("disk"));
    let new = known.bus.add(spec("disk"));
    let changes = known.scan();
    assert_eq!(changes, [Change::Replaced(second), Change::Arrived(new), Change::Left(first)]);
    assert_eq!(known.on_offer(), ["1-2", "1-3", "1-4"]);
    known.bus.replug(first);
    assert_eq!(known.scan(), [Change::Arrived(first)]);
    // In the order of the scan, not of arrival.
    assert_eq!(known.on_offer(), ["1-1", "1-2", "1-3", "1-4"]);
}

#[test]
fn rules_decide_the_offers_and_their_terms() {
    let mut known = Known::new("loopback:count=2");
    let [first, second] = known.bus.busids()[..] else { panic!("two devices") };
    let except = Rule::excluding("1-1".parse().unwrap(), Origin::Flag("--exclude".to_owned()));
    let all = Rules::all();
    known.set_rules([except].into_iter().chain(all.iter().cloned()));
    known.settings.policy.reset_on_release = true;
    known.scan();
    assert!(known.is_absent(first));
    assert_eq!(known.on_offer(), ["1-2"]);
    let Offer::Free(candidate, verdict) = known.offer("1-2") else { panic!("free") };
    assert_eq!(candidate.info().device.busid, second);
    assert!(verdict.policy.reset_on_release);
}

#[test]
fn a_device_has_one_client_and_then_its_contenders_in_order() {
    let mut known = Known::new("loopback:count=2");
    known.scan();
    let busid = known.bus.busids()[0];
    known.registry.take(busid, holder(1));
    assert!(matches!(known.offer("1-1"), Offer::Taken(_, by, _) if by.key == key(1)));
    assert_eq!((known.on_offer(), known.registry.taken()), (vec!["1-2".to_owned()], 1));
    for contender in [2, 3, 4] {
        known.registry.contend(busid, key(contender));
    }
    known.registry.forget_contender(key(3));
    assert_eq!(known.registry.release(busid), [key(2), key(4)]);
    assert_eq!(known.registry.taken(), 0);
    assert_eq!(known.registry.release(busid), []);
}

#[test]
fn a_device_that_left_its_client_is_known_until_it_is_home() {
    let mut known = Known::new("loopback");
    known.scan();
    let busid = known.bus.busids()[0];
    known.registry.take(busid, holder(1));
    known.bus.unplug(busid);
    assert_eq!(known.scan(), [Change::Left(busid)]);
    assert!(known.is_absent(busid), "nobody is to wait for it");
    assert_eq!(known.registry.taken(), 1);
    known.bus.replug_as(busid, spec("disk"));
    assert_eq!(known.scan(), [Change::Arrived(busid)]);
    assert!(matches!(known.offer("1-1"), Offer::Taken(..)), "the first is still out");
    known.registry.release(busid);
    assert!(matches!(known.offer("1-1"), Offer::Free(..)));
    known.bus.unplug(busid);
    known.scan();
    assert!(known.registry.exports.is_empty());
}

#[test]
fn a_device_is_listed_under_its_name_and_had_by_every_text_that_fits_it_alone() {
    let mut known = Known::new("loopback,disk");
    known.set_rules([named("1209:0001", "loop"), named("1-2", "stick")]);
    known.scan();
    assert_eq!(known.on_offer(), ["loop", "stick"]);
    let info = known.registry.exports[1].found.as_ref().unwrap().candidate.info().clone();
    let kind = format!("{:04x}:{:04x}", info.device.id_vendor, info.device.id_product);
    let serial = info.serial.unwrap();
    for text in ["stick", "1-2", &kind, &format!("{kind}:{serial}"), &format!("serial:{serial}")] {
        let Offer::Free(candidate, _) = known.offer(text) else { panic!("{text} is free") };
        assert_eq!(candidate.info().device.busid, known.bus.busids()[1], "{text}");
    }
    for text in ["sticks", "1-3", "1209:0009", "serial:X", &format!("1209:0001:{serial}")] {
        assert!(matches!(known.offer(text), Offer::Absent), "{text}");
    }
}

#[test]
fn a_text_that_fits_several_devices_is_refused_with_the_candidates() {
    let mut known = Known::new("loopback:count=12");
    known.set_rules([named("1209:0001", "loop")]);
    known.scan();
    for text in ["loop", "1209:0001"] {
        let Offer::Ambiguous(candidates) = known.offer(text) else { panic!("{text}") };
        assert!(candidates.starts_with("1-1 (1209:0001, serial "), "{candidates}");
        let more = format!(" and {} more", 12 - CANDIDATES_SHOWN_MAX);
        assert!(candidates.ends_with(&more), "{candidates}");
    }
    assert!(known.on_offer().contains(&"1-1".to_owned()), "each under the name it can be had by");
    // Also while a client has one of them.
    for busid in known.bus.busids().drain(2..) {
        known.bus.unplug(busid);
    }
    known.scan();
    known.registry.take(known.bus.busids()[0], holder(1));
    assert_eq!(known.on_offer(), ["1-2"]);
    let Offer::Ambiguous(candidates) = known.offer("loop") else { panic!("two of them") };
    assert!(!candidates.contains("more"), "{candidates}");
    known.bus.unplug(known.bus.busids()[0]);
    known.scan();
    assert_eq!(known.on_offer(), ["loop"]);
}

#[test]
fn a_client_that_a_rule_leaves_out_sees_nothing_of_the_device() {
    let mut known = Known::new("loopback:count=2");
    let clients = Some(Clients(vec!["10.0.0.0/8".parse().unwrap()]));
    let hidden = Rule { clients, ..named("1-1", "loop") };
    known.set_rules([hidden, named("1-2", "loop")]);
    known.scan();
    assert_eq!(known.on_offer(), ["loop"], "the other is no other for this client");
    assert_eq!(known.on_offer_to(THERE), ["1-1", "1-2"]);
    assert!(matches!(known.offer("loop"), Offer::Free(..)));
    assert!(matches!(known.offer("1209:0001"), Offer::Free(..)));
    assert!(matches!(known.offer("1-1"), Offer::Absent));
    assert!(matches!(known.offer_to("1-1", THERE), Offer::Free(..)));
    let Offer::Ambiguous(candidates) = known.offer_to("loop", THERE) else { panic!("both") };
    assert!(candidates.contains("1-1 (") && candidates.contains("1-2 ("), "{candidates}");
    // A client of the hidden device shows nothing either.
    known.registry.take(known.bus.busids()[0], holder(1));
    assert!(matches!(known.offer("1-1"), Offer::Absent));
    assert!(!known.registry.is_seen(&Asked::read(known.bus.busids()[0]), HERE));
}

#[test]
fn a_name_follows_the_port_and_the_kinds_of_its_rule() {
    let mut known = Known::new("loopback:count=2");
    let [first, second] = known.bus.busids()[..] else { panic!("two devices") };
    known.scan();
    let info =
        |at: usize| known.registry.exports[at].found.as_ref().unwrap().candidate.info().clone();
    let serial = info(0).serial.unwrap();
    let disk = known.bus.add(spec("disk"));
    known.scan();
    let kind_of =
        |device: &UsbDevice| format!("{:04x}:{:04x}", device.id_vendor, device.id_product);
    let listed = known.registry.on_offer(HERE);
    let kinds = format!("{},{}", kind_of(&listed[0]), kind_of(&listed[2]));
    known.bus.unplug(disk);
    let mut board = named(&kinds, "board");
    board.matches.serial = Some(serial);
    known.set_rules([board]);
    known.scan();
    assert_eq!(known.on_offer(), ["board"], "by its serial number");
    // With another serial number, in a single step.
    known.bus.replug_as(first, spec("disk"));
    assert_eq!(known.scan(), [Change::Replaced(first)]);
    assert_eq!(known.on_offer(), ["board"]);
    known.scan();
    assert_eq!(known.on_offer(), ["board"], "as long as it is there");
    known.registry.rejudge(&known.settings);
    let told = Meaning::judged(known.registry.judged(), &known.settings).exported();
    assert!(told[0].ends_with(" is exported as board"), "after a reload: {told:?}");
    // After a gap.
    known.bus.unplug(first);
    known.scan();
    assert!(matches!(known.offer("board"), Offer::Expected));
    assert!(matches!(known.offer("1-1"), Offer::Absent), "a place promises nothing");
    known.now += RETURN_TIMEOUT / 2;
    known.bus.replug_as(first, spec("disk"));
    known.scan();
    assert_eq!(known.on_offer(), ["board"]);
    // Another kind is another device, in another port too, and so is whatever comes later.
    known.bus.replug_as(second, spec("disk"));
    known.bus.replug_as(first, spec("microphone"));
    known.scan();
    assert_eq!(known.on_offer(), Vec::<String>::new());
    known.bus.replug_as(first, spec("disk"));
    known.scan();
    assert_eq!(known.on_offer(), Vec::<String>::new());
}

#[test]
fn a_name_follows_no_device_that_comes_late() {
    let mut known = Known::new("loopback");
    let first = known.bus.busids()[0];
    known.set_rules([named("1209:0001,1209:0002", "board")]);
    known.scan();
    known.bus.unplug(first);
    known.scan();
    known.now += RETURN_TIMEOUT;
    assert!(matches!(known.offer("board"), Offer::Absent));
}

#[test]
fn other_rules_are_applied_to_known_devices() {
    let mut known = Known::new("loopback:count=2");
    known.scan();
    known.set_rules([named("1-1", "loop")]);
    known.registry.rejudge(&known.settings);
    assert_eq!(known.on_offer(), ["loop"]);
    let [first, second] = known.bus.busids()[..] else { panic!("two devices") };
    assert!(known.registry.keeps(first, HERE) && !known.registry.keeps(second, HERE));
}
