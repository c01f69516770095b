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
use std::net::SocketAddr;
use std::sync::Arc;

use super::token::Key;
use crate::config::hooks::Hooks;
use crate::config::rules::Verdict;
use crate::config::{Policy, Settings};
use crate::hooks::Facts;
use crate::status::ExportStatus;
use crate::usb::{Candidate, DeviceInfo};
use crate::wire::op::UsbDevice;
use crate::wire::types::BusId;

/// The exports, by the order of the last scan.
pub(super) struct Registry<C> {
    exports: Vec<Export<C>>,
    /// Some scan has succeeded, so the exports are complete.
    is_filled: bool,
}

/// A known device.
pub(super) struct Export<C> {
    busid: BusId,
    /// The device in the last scan; `None` when the scan has found none here.
    found: Option<Found<C>>,
    /// The client with the device, or with an earlier device of the busid.
    holder: Option<Holder>,
    /// Connections in wait for the return of the device.
    contenders: Vec<Key>,
}

/// A device in the last scan, and the rules' verdict on the device.
struct Found<C> {
    candidate: C,
    /// The device as seen last without a client: a loan takes the drivers away, and rules may go by
    /// drivers.
    judged: DeviceInfo,
    verdict: Verdict,
}

/// The client with a device, until the device is free again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Holder {
    /// The connection, which has the loan.
    pub(super) key: Key,
    /// The client's address.
    pub(super) peer: SocketAddr,
}

/// The answer to an import of a busid.
#[derive(Debug)]
pub(super) enum Offer<C> {
    /// No device of the busid is exported.
    Absent,
    /// The device can be opened, on the terms given.
    Free(Box<C>, Policy),
    /// A client has the device.
    Taken(Holder),
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
        Self { exports: Vec::new(), is_filled: false }
    }
}

impl<C: Candidate> Registry<C> {
    /// Whether a scan has ever succeeded.
    pub(super) const fn is_filled(&self) -> bool {
        self.is_filled
    }

    /// Takes over the devices of a scan, and returns the differences.
    pub(super) fn update(&mut self, candidates: Vec<C>, settings: &Settings) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut before = std::mem::take(&mut self.exports);
        for candidate in candidates {
            let busid = candidate.info().device.busid;
            let known = before.iter().position(|export| export.busid == busid);
            let mut export = known.map_or_else(|| Export::new(busid), |at| before.swap_remove(at));
            let old = export.found.as_ref().map(|found| &found.candidate.info().device);
            match old {
                None => changes.push(Change::Arrived(busid)),
                Some(old) if identity(old) != identity(&candidate.info().device) => {
                    changes.push(Change::Replaced(busid));
                }
                Some(_) => {}
            }
            let lent = export.found.take().filter(|found| {
                export.holder.is_some()
                    && identity(&found.judged.device) == identity(&candidate.info().device)
            });
            export.found = Some(Found::judge(candidate, lent, settings));
            self.exports.push(export);
        }
        for mut export in before {
            if export.found.take().is_some() {
                changes.push(Change::Left(export.busid));
            }
            self.exports.push(export);
        }
        self.exports.retain(Export::is_of_use);
        self.is_filled = true;
        changes
    }

    /// The devices for new clients: exported, and free.
    pub(super) fn on_offer(&self) -> Vec<&UsbDevice> {
        let free = self.exports.iter().filter(|export| export.holder.is_none());
        let offered = free.filter_map(Export::offered);
        offered.map(|found| &found.candidate.info().device).collect()
    }

    /// The exported devices with hooks.
    pub(super) fn hooked(&self) -> impl Iterator<Item = (Facts, &Arc<Hooks>)> {
        self.exports.iter().filter_map(Export::offered).filter_map(|found| {
            let hooks = found.verdict.hooks().filter(|hooks| !hooks.is_empty())?;
            Some((Facts::new(found.candidate.info(), found.verdict.name()), hooks))
        })
    }

    /// Whether a device is there and exported, with a client or without.
    pub(super) fn is_exported(&self, busid: BusId) -> bool {
        self.find(busid).is_some_and(|export| export.offered().is_some())
    }

    /// The state of a device, for an import.
    pub(super) fn offer(&self, busid: BusId) -> Offer<C> {
        let Some(export) = self.find(busid) else { return Offer::Absent };
        match (export.offered(), export.holder) {
            (None, _) => Offer::Absent,
            (Some(_), Some(holder)) => Offer::Taken(holder),
            (Some(found), None) => {
                Offer::Free(Box::new(found.candidate.clone()), found.verdict.policy)
            }
        }
    }

    /// The state of each export.
    pub(super) fn status(&self) -> Vec<ExportStatus> {
        let status = |export: &Export<C>| ExportStatus {
            busid: export.busid,
            is_present: export.found.is_some(),
            is_offered: export.offered().is_some(),
            client: export.holder.map(|holder| holder.peer),
        };
        self.exports.iter().map(status).collect()
    }

    /// How many devices clients have.
    pub(super) fn taken(&self) -> usize {
        self.exports.iter().filter(|export| export.holder.is_some()).count()
    }

    /// Notes the client with a device, which was free.
    pub(super) fn take(&mut self, busid: BusId, holder: Holder) {
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

    fn find(&self, busid: BusId) -> Option<&Export<C>> {
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

    /// The device, if present and exported.
    fn offered(&self) -> Option<&Found<C>> {
        self.found.as_ref().filter(|found| found.verdict.is_offered())
    }

    /// Whether anything is to be known of the export.
    const fn is_of_use(&self) -> bool {
        self.found.is_some() || self.holder.is_some() || !self.contenders.is_empty()
    }
}

impl<C: Candidate> Found<C> {
    /// Applies the rules to a device; `lent` is the device before, if a client has it.
    fn judge(candidate: C, lent: Option<Self>, settings: &Settings) -> Self {
        let judged = lent.map_or_else(|| candidate.info().clone(), |lent| lent.judged);
        let verdict = settings.verdict(&judged);
        Self { candidate, judged, verdict }
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

    use super::*;
    use crate::config::rules::{Origin, Rule, Rules};
    use crate::usb::Backend;
    use crate::usb::sim::bus::SimBus;
    use crate::usb::sim::spec::Spec;
    use crate::usb::sim::{SimBackend, SimCandidate};

    /// A bus and its registry.
    struct Known {
        bus: SimBus,
        settings: Settings,
        registry: Registry<SimCandidate>,
    }

    fn spec(text: &str) -> Spec {
        Spec::parse_list(text).unwrap().remove(0)
    }

    impl Known {
        fn new(devices: &str) -> Self {
            let bus = SimBus::with(&Spec::parse_list(devices).unwrap());
            let settings = Settings { rules: Rules::all(), ..Settings::default() };
            Self { bus, settings, registry: Registry::default() }
        }

        fn scan(&mut self) -> Vec<Change> {
            let found = SimBackend::new(self.bus.clone()).scan().unwrap().devices;
            self.registry.update(found, &self.settings)
        }

        fn on_offer(&self) -> Vec<String> {
            self.registry.on_offer().iter().map(|device| device.busid.to_string()).collect()
        }

        fn is_absent(&self, busid: BusId) -> bool {
            matches!(self.registry.offer(busid), Offer::Absent)
        }
    }

    const fn key(index: u32) -> Key {
        Key { index, generation: 7 }
    }

    fn holder(index: u32) -> Holder {
        let peer = (Ipv4Addr::LOCALHOST, 4000).into();
        Holder { key: key(index), peer }
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
        known.settings.rules = Rules::new([except].into_iter().chain(all.iter().cloned()));
        known.settings.policy.reset_on_release = true;
        known.scan();
        assert!(known.is_absent(first));
        assert_eq!(known.on_offer(), ["1-2"]);
        let Offer::Free(candidate, policy) = known.registry.offer(second) else { panic!("free") };
        assert_eq!(candidate.info().device.busid, second);
        assert!(policy.reset_on_release);
    }

    #[test]
    fn a_device_has_one_client_and_then_its_contenders_in_order() {
        let mut known = Known::new("loopback:count=2");
        known.scan();
        let busid = known.bus.busids()[0];
        known.registry.take(busid, holder(1));
        assert!(matches!(known.registry.offer(busid), Offer::Taken(by) if by.key == key(1)));
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
        assert!(matches!(known.registry.offer(busid), Offer::Taken(_)), "the first is still out");
        known.registry.release(busid);
        assert!(matches!(known.registry.offer(busid), Offer::Free(..)));
        known.bus.unplug(busid);
        known.scan();
        assert!(known.registry.exports.is_empty());
    }
}
