//! The exports: every known device, the terms of its loans, and the client with the device.
//!
//! ```text
//!              scan                   begin_import
//!   (unknown) ─────► absent ◄──► free ────────────► taken ─────► free, or absent
//!                         scans                      release
//! ```
//!
//! A scan brings the devices; [`Registry::update`] compares the scan with the exports. An export
//! without its device stays as long as a client has the device, or clients contend for the device:
//! another device with the same busid is lent when the first device has come home. How far a loan
//! is, from opening to resting, stands in the [`Loan`](super::loan::Loan) of the holder's
//! connection alone.
//!
//! Contract: plain data; part of the reactor's thread. Rules are applied when a scan comes in, and
//! not at each request.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::departures::Departures;
use super::token::Key;
use crate::config::Settings;
use crate::config::hooks::Hooks;
use crate::config::name::Nickname;
use crate::config::rules::Verdict;
use crate::hooks::Facts;
use crate::status::ExportStatus;
use crate::usb::{Candidate, DeviceInfo};
use crate::wire::op::UsbDevice;
use crate::wire::types::BusId;

/// The exports, by the order of the last scan.
pub(super) struct Registry<C> {
    pub(super) exports: Vec<Export<C>>,
    /// Devices that have left and are expected back.
    pub(super) departures: Departures,
    /// Some scan has succeeded, so the exports are complete.
    is_filled: bool,
    /// Something may have changed for a client since [`Self::take_news`].
    has_news: bool,
}

/// A known device.
pub(super) struct Export<C> {
    pub(super) busid: BusId,
    /// The device in the last scan; `None` when the scan has found none here.
    pub(super) found: Option<Found<C>>,
    /// The client with the device, or with an earlier device of the busid.
    pub(super) holder: Option<Holder>,
    /// Connections in wait for the return of the device.
    contenders: Vec<Key>,
}

/// A device in the last scan, and the rules' verdict on the device.
pub(super) struct Found<C> {
    pub(super) candidate: C,
    /// The device as seen last without a client: a loan takes the drivers away, and rules may go by
    /// drivers.
    judged: DeviceInfo,
    /// The name of the device in another state, in the same port a moment before.
    name_before: Option<Nickname>,
    /// When the device has come; `None` for a device of the first scan, which may have been there
    /// for long.
    since: Option<Instant>,
    pub(super) verdict: Verdict,
}

/// The client with a device, until the device is free again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Holder {
    /// The connection, which has the loan.
    pub(super) key: Key,
    /// The client's address.
    pub(super) peer: SocketAddr,
    /// When the client was promised the device.
    pub(super) since: Instant,
}

/// How a scan differs from the scan before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// A device is new.
    Arrived(BusId),
    /// A device is gone.
    Left(BusId),
    /// Another device is in the place, or the same with another number.
    Replaced(BusId),
}

impl<C> Default for Registry<C> {
    fn default() -> Self {
        let departures = Departures::default();
        Self { exports: Vec::new(), departures, is_filled: false, has_news: false }
    }
}

impl<C: Candidate> Registry<C> {
    /// Whether a scan has ever succeeded.
    pub(super) const fn is_filled(&self) -> bool {
        self.is_filled
    }

    /// Whether something may have changed for a client since the last call.
    pub(super) const fn take_news(&mut self) -> bool {
        std::mem::replace(&mut self.has_news, false)
    }

    /// Takes over the devices of a scan at `now`, and returns the differences.
    pub(super) fn update(
        &mut self,
        candidates: Vec<C>,
        settings: &Settings,
        now: Instant,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        let since = self.is_filled.then_some(now);
        let mut before = std::mem::take(&mut self.exports);
        for candidate in candidates {
            let busid = candidate.info().device.busid;
            let known = before.iter().position(|export| export.busid == busid);
            let mut export = known.map_or_else(|| Export::new(busid), |at| before.swap_remove(at));
            let (found, change) = match export.found.take() {
                None => {
                    let name_before = self.departures.end(busid, now);
                    let found = Found::new(candidate, name_before, since, settings);
                    (found, Some(Change::Arrived(busid)))
                }
                Some(old) if !old.is(&candidate) => {
                    let name_before = old.verdict.name_in_states();
                    let found = Found::new(candidate, name_before, since, settings);
                    (found, Some(Change::Replaced(busid)))
                }
                Some(old) => (old.seen_again(candidate, export.holder.is_some(), settings), None),
            };
            export.found = Some(found);
            changes.extend(change);
            self.exports.push(export);
        }
        for mut export in before {
            if let Some(found) = export.found.take() {
                self.departures.note(export.busid, found.verdict, now);
                changes.push(Change::Left(export.busid));
            }
            self.exports.push(export);
        }
        self.exports.retain(Export::is_of_use);
        (self.is_filled, self.has_news) = (true, true);
        changes
    }

    /// The devices that are there, as the rules see them, each with its verdict.
    pub(super) fn judged(&self) -> impl Iterator<Item = (&DeviceInfo, Verdict)> {
        let found = self.exports.iter().filter_map(|export| export.found.as_ref());
        found.map(|found| (&found.judged, found.verdict.clone()))
    }

    /// The exported devices with hooks.
    pub(super) fn hooked(&self) -> impl Iterator<Item = (Facts, &Arc<Hooks>)> {
        self.exports.iter().filter_map(|export| export.found.as_ref()).filter_map(|found| {
            let hooks = found.verdict.hooks().filter(|hooks| !hooks.is_empty())?;
            Some((Facts::new(found.candidate.info(), found.verdict.name()), hooks))
        })
    }

    /// Applies other rules to the devices of the last scan.
    pub(super) fn rejudge(&mut self, settings: &Settings) {
        self.departures.clear();
        self.has_news = true;
        for found in self.exports.iter_mut().filter_map(|export| export.found.as_mut()) {
            found.verdict = settings.verdict_in_place(&found.judged, found.name_before);
        }
    }

    /// The state of each export.
    pub(super) fn status(&self) -> Vec<ExportStatus> {
        let status = |export: &Export<C>| ExportStatus {
            busid: export.busid,
            is_present: export.found.is_some(),
            is_offered: export.found.as_ref().is_some_and(|found| found.verdict.is_offered()),
            name: export.found.as_ref().and_then(|found| found.verdict.name()),
            client: export.holder.map(|holder| holder.peer),
        };
        self.exports.iter().map(status).collect()
    }

    /// How many devices clients have.
    pub(super) fn taken(&self) -> usize {
        self.exports.iter().filter(|export| export.holder.is_some()).count()
    }

    /// How many devices clients at an address have.
    pub(super) fn taken_by(&self, address: IpAddr) -> usize {
        let holders = self.exports.iter().filter_map(|export| export.holder);
        holders.filter(|holder| holder.peer.ip() == address).count()
    }

    /// Notes the client with a device, which was free.
    pub(super) fn take(&mut self, busid: BusId, holder: Holder) {
        self.has_news = true;
        if let Some(export) = self.find_mut(busid) {
            debug_assert!(export.holder.is_none(), "a device has one client at a time");
            export.holder = Some(holder);
        }
    }

    /// Has a client wait for a device which another client is about to give back.
    pub(super) fn contend(&mut self, busid: BusId, key: Key) {
        if let Some(export) = self.find_mut(busid) {
            export.contenders.push(key);
        }
    }

    /// Notes the return of a device, and returns the contenders in their order.
    pub(super) fn release(&mut self, busid: BusId) -> Vec<Key> {
        self.has_news = true;
        let Some(export) = self.find_mut(busid) else { return Vec::new() };
        export.holder = None;
        let contenders = std::mem::take(&mut export.contenders);
        self.exports.retain(Export::is_of_use);
        contenders
    }

    /// A client waits for no device any more.
    pub(super) fn forget_contender(&mut self, key: Key) {
        for export in &mut self.exports {
            export.contenders.retain(|&contender| contender != key);
        }
    }

    /// How many clients contend for a device.
    #[cfg(test)]
    pub(super) fn contenders(&self) -> usize {
        self.exports.iter().map(|export| export.contenders.len()).sum()
    }

    pub(super) fn find(&self, busid: BusId) -> Option<&Export<C>> {
        self.exports.iter().find(|export| export.busid == busid)
    }

    fn find_mut(&mut self, busid: BusId) -> Option<&mut Export<C>> {
        self.exports.iter_mut().find(|export| export.busid == busid)
    }
}

/// The difference between a device and another device in its place.
const fn identity(device: &UsbDevice) -> (u8, u8, u16, u16) {
    (device.busnum, device.devnum, device.id_vendor, device.id_product)
}

impl<C> Export<C> {
    const fn new(busid: BusId) -> Self {
        Self { busid, found: None, holder: None, contenders: Vec::new() }
    }

    /// Whether anything is to be known of the export.
    const fn is_of_use(&self) -> bool {
        self.found.is_some() || self.holder.is_some() || !self.contenders.is_empty()
    }
}

impl<C: Candidate> Found<C> {
    /// Applies the rules to a new device.
    fn new(
        candidate: C,
        name_before: Option<Nickname>,
        since: Option<Instant>,
        settings: &Settings,
    ) -> Self {
        let judged = candidate.info().clone();
        let verdict = settings.verdict_in_place(&judged, name_before);
        Self { candidate, judged, name_before, since, verdict }
    }

    /// When the device has been present for as long as its rule says; `None` by now.
    pub(super) fn settles(&self, now: Instant) -> Option<Instant> {
        self.since.map(|since| since + self.verdict.policy.settle).filter(|&at| now < at)
    }

    /// Whether a candidate is this device, and no other in its place.
    fn is(&self, candidate: &C) -> bool {
        identity(&self.judged.device) == identity(&candidate.info().device)
    }

    /// Applies the rules to the same device of a later scan; `is_lent`: a client has the device.
    fn seen_again(self, candidate: C, is_lent: bool, settings: &Settings) -> Self {
        let judged = if is_lent { self.judged } else { candidate.info().clone() };
        let verdict = settings.verdict_in_place(&judged, self.name_before);
        Self { candidate, judged, verdict, ..self }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arrived(busid) => write!(f, "{busid}: plugged in"),
            Self::Left(busid) => write!(f, "{busid}: unplugged"),
            Self::Replaced(busid) => write!(f, "{busid}: plugged in anew"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::super::offers::Offer;
    use super::*;
    use crate::config::asked::Asked;
    use crate::config::meaning::Meaning;
    use crate::config::rules::{Clients, Origin, Rule, Rules};
    use crate::limits::{CANDIDATES_SHOWN_MAX, RETURN_TIMEOUT};
    use crate::usb::Backend;
    use crate::usb::sim::bus::SimBus;
    use crate::usb::sim::spec::Spec;
    use crate::usb::sim::{SimBackend, SimCandidate};

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
        assert!(matches!(known.offer("1-1"), Offer::Taken(_, by) if by.key == key(1)));
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
        for text in
            ["stick", "1-2", &kind, &format!("{kind}:{serial}"), &format!("serial:{serial}")]
        {
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
        assert!(
            known.on_offer().contains(&"1-1".to_owned()),
            "each under the name it can be had by"
        );
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
        let info = |at: usize| known.registry.exports[at].found.as_ref().unwrap().judged.clone();
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
}
