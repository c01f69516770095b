//! What a client sees of the exports, and what the client may have: the list, and the device that
//! is meant by the text of an import.
//!
//! A client sees the devices whose rules admit the client's address, and no other device takes part
//! in any answer to the client: a name of a hidden device is as unknown as a name of no device.
//!
//! A nickname, a kind or a serial number can fit several devices, which is refused: nobody knows
//! which one the client means. In a list each device has its nickname, unless the client sees
//! several devices with the nickname: then each has its busid, by which the client can import it.
//!
//! Contract: plain data; part of the reactor's thread. Lists and candidates are allocated.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use super::found::Found;
use super::registry::{Export, Holder, Registry};
use crate::config::TakeOver;
use crate::config::asked::Asked;
use crate::config::name::Nickname;
use crate::config::rules::Verdict;
use crate::limits::CANDIDATES_SHOWN_MAX;
use crate::usb::{Candidate, DeviceInfo};
use crate::wire::op::{OpStatus, UsbDevice};
use crate::wire::types::BusId;
use crate::words::printable;

/// The answer to an import.
#[derive(Debug)]
pub(super) enum Offer<C> {
    /// No such device is exported to the client.
    Absent,
    /// The device has just left and is expected back.
    Expected,
    /// Several devices are meant: these, in words.
    Ambiguous(String),
    /// An operator holds the device back, since then.
    Held(SystemTime),
    /// The device has just come, and can be opened then.
    Settling(Instant),
    /// The device can be opened, on the terms of the verdict.
    Free(Box<C>, Verdict),
    /// A client has the device, and another may take it over as the rule of today says.
    Taken(BusId, Holder, TakeOver),
}

impl<C: Candidate> Registry<C> {
    /// The devices for a new client at an address: exported to the client, and free. Each has the
    /// name by which the client may import the device in the place of its busid.
    pub(super) fn on_offer(&self, address: IpAddr) -> Vec<UsbDevice> {
        let is_free = |(export, found): &(&Export<C>, &Found<C>)| {
            export.holder.is_none() && self.hold_of(found).is_none()
        };
        let free = self.seen_by(address).filter(is_free);
        let listed = free.map(|(export, found)| {
            let device = &found.candidate.info().device;
            let nickname = found.verdict.name().filter(|&name| self.is_unique(name, address));
            let busid = nickname.map_or(export.busid, |name| name.as_busid());
            UsbDevice { busid, ..device.clone() }
        });
        listed.collect()
    }

    /// Whether a client at an address sees a device that the client may mean, with another client
    /// or free.
    pub(super) fn is_seen(&self, asked: &Asked, address: IpAddr) -> bool {
        self.meant(asked, address).next().is_some()
    }

    /// The state of the device that a client at an address asks for.
    pub(super) fn offer(&self, asked: &Asked, address: IpAddr, now: Instant) -> Offer<C> {
        let mut meant = self.meant(asked, address);
        let Some((export, found)) = meant.next() else {
            return if self.is_expected(asked, address, now) {
                Offer::Expected
            } else {
                Offer::Absent
            };
        };
        if meant.next().is_some() {
            return Offer::Ambiguous(self.candidates(asked, address));
        }
        if let Some(hold) = self.hold_of(found) {
            return Offer::Held(hold.since);
        }
        match (export.holder, found.settles(now)) {
            (Some(holder), _) => Offer::Taken(export.busid, holder, found.verdict.policy.takeover),
            (None, Some(at)) => Offer::Settling(at),
            (None, None) => Offer::Free(Box::new(found.candidate.clone()), found.verdict.clone()),
        }
    }

    /// The status with which an import by a client at an address would be answered now.
    pub(super) fn prospect(&self, asked: &Asked, address: IpAddr) -> OpStatus {
        let mut meant = self.meant(asked, address);
        match (meant.next(), meant.next()) {
            (Some((_, found)), None) if self.hold_of(found).is_some() => OpStatus::NotAvailable,
            (Some((export, _)), None) if export.holder.is_none() => OpStatus::Ok,
            (Some(_), None) => OpStatus::DeviceBusy,
            _ => OpStatus::NoDevice,
        }
    }

    /// Whether a client at an address is still to have the device in a place.
    pub(super) fn keeps(&self, busid: BusId, address: IpAddr) -> bool {
        let found = self.find(busid).and_then(|export| export.found.as_ref());
        found.is_none_or(|found| found.verdict.admits(address))
    }

    fn is_expected(&self, asked: &Asked, address: IpAddr, now: Instant) -> bool {
        match asked {
            Asked::Nickname(name) => self.departures.expects(*name, address, now),
            _ => false,
        }
    }

    /// The devices exported to clients at an address.
    fn seen_by(&self, address: IpAddr) -> impl Iterator<Item = (&Export<C>, &Found<C>)> {
        let found = self.exports.iter().filter_map(|export| Some((export, export.found.as_ref()?)));
        found.filter(move |(_, found)| found.verdict.admits(address))
    }

    /// The devices that a client at an address may mean.
    fn meant(
        &self,
        asked: &Asked,
        address: IpAddr,
    ) -> impl Iterator<Item = (&Export<C>, &Found<C>)> {
        self.seen_by(address)
            .filter(|(_, found)| asked.fits(found.candidate.info(), found.verdict.name()))
    }

    /// Whether a client at an address sees one device with a nickname.
    fn is_unique(&self, name: Nickname, address: IpAddr) -> bool {
        let seen = self.seen_by(address);
        seen.filter(|(_, found)| found.verdict.name() == Some(name)).take(2).count() == 1
    }

    /// The devices that a client at an address may mean, for the log.
    fn candidates(&self, asked: &Asked, address: IpAddr) -> String {
        let mut meant = self.meant(asked, address).map(|(_, found)| found.candidate.info());
        let shown: Vec<String> = meant.by_ref().take(CANDIDATES_SHOWN_MAX).map(describe).collect();
        let mut text = shown.join(", ");
        let more = meant.count();
        if more > 0 {
            let _ = write!(text, " and {more} more");
        }
        text
    }
}

/// A device among candidates: everything by which a client could ask for this device alone.
fn describe(info: &DeviceInfo) -> String {
    let device = &info.device;
    let mut text = format!("{} ({:04x}:{:04x}", device.busid, device.id_vendor, device.id_product);
    if let Some(serial) = &info.serial {
        let _ = write!(text, ", serial {}", printable(serial));
    }
    text + ")"
}
