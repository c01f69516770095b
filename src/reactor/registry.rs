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
//! Contract: plain data; part of the reactor's thread. Rules are applied when a scan comes in
//! (`found`), and not at each request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::departures::Departures;
use super::found::{Change, Found};
use super::holds::Hold;
use super::token::Key;
use crate::config::Settings;
use crate::config::hooks::Hooks;
use crate::config::rules::Verdict;
use crate::hooks::Facts;
use crate::status::ExportStatus;
use crate::usb::{Candidate, DeviceInfo};
use crate::wire::types::BusId;

/// The exports, by the order of the last scan.
pub(super) struct Registry<C> {
    pub(super) exports: Vec<Export<C>>,
    /// Devices that have left and are expected back.
    pub(super) departures: Departures,
    /// Devices that operators hold back.
    pub(super) holds: Vec<Hold>,
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

impl<C> Default for Registry<C> {
    fn default() -> Self {
        let departures = Departures::default();
        let (exports, holds) = (Vec::new(), Vec::new());
        Self { exports, departures, holds, is_filled: false, has_news: false }
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

    /// Notes that something may have changed for a client.
    pub(super) const fn note_news(&mut self) {
        self.has_news = true;
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
            ids: export.found.as_ref().map(|found| found.ids()),
            texts: export.found.as_ref().map(|found| found.texts()).unwrap_or_default(),
            is_present: export.found.is_some(),
            is_offered: export.found.as_ref().is_some_and(|found| found.verdict.is_offered()),
            is_for_all: export.found.as_ref().is_some_and(|found| found.verdict.is_for_all()),
            name: export.found.as_ref().and_then(|found| found.verdict.name()),
            asks_program: export.found.as_ref().is_some_and(|found| found.verdict.asks_program()),
            is_held: export.found.as_ref().is_some_and(|found| self.hold_of(found).is_some()),
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

impl<C> Export<C> {
    const fn new(busid: BusId) -> Self {
        Self { busid, found: None, holder: None, contenders: Vec::new() }
    }

    /// Whether anything is to be known of the export.
    const fn is_of_use(&self) -> bool {
        self.found.is_some() || self.holder.is_some() || !self.contenders.is_empty()
    }
}
