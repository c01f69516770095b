//! Orders of operators: sessions that end, and devices that are held back from clients.
//!
//! A device that is held back is given to nobody until released: not listed, refused at an import,
//! and a client that watches the device is told that the device is not available. A hold is by the
//! name that the operator has given, or by the name or place of a client's device, and holds for
//! whatever device has the name later: a device that is plugged in again is still held back. A hold
//! outlives a change of the rules, and ends with the server.
//!
//! Contract: part of the reactor, so nothing here sleeps. [`OperatorHandle`] may be used by any
//! thread, and blocks its caller only.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Weak;
use std::time::SystemTime;

use super::Reactor;
use super::end::Parting;
use super::find;
use super::found::Found;
use super::observers::Followed;
use super::questions::{Asker, Question};
use super::refusal::Refusal;
use super::registry::Registry;
use crate::complaints::info;
use crate::config::asked::Asked;
use crate::config::name::Nickname;
use crate::limits::{DRAIN_TIMEOUT, HOLDS_MAX};
use crate::status::HoldStatus;
use crate::status::event::{Event, EventKind};
use crate::usb::{Backend, Candidate};
use crate::wire::types::BusId;

/// Gives a server the orders of operators. Clones share the server.
#[derive(Clone, Debug)]
pub struct OperatorHandle {
    pub(super) asker: Asker,
    /// Seats for the captures of operators.
    pub(super) seats: Weak<()>,
}

/// A session, for an operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionName {
    /// The place of the device.
    pub busid: BusId,
    /// The name that the rules give.
    pub name: Option<Nickname>,
    /// The client.
    pub client: SocketAddr,
}

/// What has come of an order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Obeyed {
    /// Sessions that end, or are captured from now on.
    pub sessions: Vec<SessionName>,
    /// The names of devices that are held back from now on, or not any more, or the places of those
    /// whose sessions are to be captured.
    pub names: Vec<String>,
}

/// Why an order was not carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Disobeyed {
    /// Neither a device nor a client is meant.
    Unknown,
    /// Several devices are meant: these, in words.
    Ambiguous(String),
    /// No client has the device.
    Free,
    /// As many devices are held back as may.
    TooMany,
    /// No device of the name is held back.
    NotHeld,
    /// A capture writes into the file of this name already.
    Captured(PathBuf),
    /// As many captures run as may.
    TooManyCaptures,
    /// No capture is meant.
    NoCapture,
    /// Several captures are meant: these, in words.
    SeveralCaptures(String),
    /// The capture can't begin, for the reason in words.
    Capture(String),
}

/// A device that is held back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Hold {
    /// The text by which the device is held back.
    asked: Asked,
    /// Since when, by the system's clock.
    pub(super) since: SystemTime,
}

impl Hold {
    pub(super) fn status(&self) -> HoldStatus {
        HoldStatus { name: self.asked.to_string(), since: self.since }
    }
}

impl OperatorHandle {
    /// Ends the session with a device, or all sessions of a client (an address, or an address and a
    /// port), in good order; with `hold` the devices are held back. `None` when the server has
    /// ended. *Blocks* until the reactor has begun.
    ///
    /// # Errors
    /// Nobody is meant, or several devices are.
    #[must_use]
    pub fn disconnect(&self, target: &str, hold: bool) -> Option<Result<Obeyed, Disobeyed>> {
        let target = target.to_owned();
        self.asker.ask(|answer| Question::Disconnect { target, hold, answer })
    }

    /// Holds the devices of a name back no more. `None` when the server has ended. *Blocks* until
    /// the reactor has done so.
    ///
    /// # Errors
    /// No device of the name is held back.
    #[must_use]
    pub fn release(&self, name: &str) -> Option<Result<Obeyed, Disobeyed>> {
        let name = name.to_owned();
        self.asker.ask(|answer| Question::Release { name, answer })
    }

    /// The events from now on; `None` inside when as many operators follow as may, and outside when
    /// the server has ended. *Blocks* until the reactor answers.
    #[must_use]
    pub fn events(&self) -> Option<Option<Followed>> {
        self.asker.ask(Question::Events)
    }
}

impl<C: Candidate> Registry<C> {
    /// The devices that an operator means, by a name of any form.
    pub(super) fn named(&self, asked: &Asked) -> Vec<BusId> {
        let found = self.exports.iter().filter_map(|export| Some((export, export.found.as_ref()?)));
        let meant =
            found.filter(|(_, found)| asked.fits(found.candidate.info(), found.verdict.name()));
        meant.map(|(export, _)| export.busid).collect()
    }

    /// The devices of clients at an address.
    fn of_clients(&self, is_meant: impl Fn(SocketAddr) -> bool) -> Vec<BusId> {
        let held = self
            .exports
            .iter()
            .filter(|export| export.holder.is_some_and(|holder| is_meant(holder.peer)));
        held.map(|export| export.busid).collect()
    }

    /// The text by which a device is held back where no operator has named the device.
    fn own_name(&self, busid: BusId) -> Asked {
        let name = self.nickname(busid);
        name.map_or(Asked::BusId(busid), Asked::Nickname)
    }

    /// Holds back the devices that `asked` means.
    fn hold(&mut self, asked: Asked) {
        if !self.holds.iter().any(|hold| hold.asked == asked) {
            self.holds.push(Hold { asked, since: SystemTime::now() });
            self.note_news();
        }
    }

    /// The hold of a device, if the device is held back.
    pub(super) fn hold_of(&self, found: &Found<C>) -> Option<&Hold> {
        let (info, name) = (found.candidate.info(), found.verdict.name());
        self.holds.iter().find(|hold| hold.asked.fits(info, name))
    }

    /// Ends the holds by a text, and those of the devices that the text means.
    fn end_holds(&mut self, asked: &Asked) -> Vec<Hold> {
        let found = self.exports.iter().filter_map(|export| export.found.as_ref());
        let meant: Vec<_> = found
            .filter(|found| asked.fits(found.candidate.info(), found.verdict.name()))
            .collect();
        let is_meant = |hold: &Hold| {
            let mut fitting = meant.iter();
            hold.asked == *asked
                || fitting
                    .any(|found| hold.asked.fits(found.candidate.info(), found.verdict.name()))
        };
        let (ended, kept) = self.holds.iter().cloned().partition(is_meant);
        self.holds = kept;
        self.note_news();
        ended
    }
}

impl<B: Backend> Reactor<B> {
    /// Ends sessions by an operator's order.
    pub(super) fn disconnect(&mut self, target: &str, hold: bool) -> Result<Obeyed, Disobeyed> {
        let (busids, asked) = self.targets(target)?;
        if hold && self.registry.holds.len() + busids.len() > HOLDS_MAX {
            return Err(Disobeyed::TooMany);
        }
        let mut names = Vec::new();
        for &busid in busids.iter().filter(|_| hold) {
            let asked = asked.clone().unwrap_or_else(|| self.registry.own_name(busid));
            info!("an operator holds {asked} back");
            names.push(asked.to_string());
            self.registry.hold(asked);
            self.observe(Event::of(EventKind::Hold, busid));
        }
        let ended = busids.into_iter().filter_map(|busid| self.end_by_operator(busid));
        let sessions: Vec<SessionName> = ended.collect();
        if sessions.is_empty() && !hold {
            return Err(Disobeyed::Free);
        }
        Ok(Obeyed { sessions, names })
    }

    /// The devices that an operator means by a device or by a client; with the text for a device.
    fn targets(&self, target: &str) -> Result<(Vec<BusId>, Option<Asked>), Disobeyed> {
        let asked = BusId::new(target).map(Asked::read);
        let named = asked.as_ref().map(|asked| self.registry.named(asked)).unwrap_or_default();
        if named.len() > 1 {
            let names: Vec<String> = named.iter().map(ToString::to_string).collect();
            return Err(Disobeyed::Ambiguous(names.join(", ")));
        }
        if !named.is_empty() {
            return Ok((named, asked));
        }
        let of_clients = match (target.parse::<IpAddr>(), target.parse::<SocketAddr>()) {
            (Ok(address), _) => self.registry.of_clients(|peer| peer.ip() == address),
            (_, Ok(address)) => self.registry.of_clients(|peer| peer == address),
            _ => Vec::new(),
        };
        if of_clients.is_empty() { Err(Disobeyed::Unknown) } else { Ok((of_clients, None)) }
    }

    /// Ends the session with a device, unless nobody has the device or the session ends already.
    fn end_by_operator(&mut self, busid: BusId) -> Option<SessionName> {
        let holder = self.registry.find(busid)?.holder?;
        let name = self.registry.nickname(busid);
        let connection = find(&mut self.connections, holder.key)?;
        if connection.loan.as_ref()?.is_ending() {
            return None;
        }
        if connection.part(Parting::Operator, self.now + DRAIN_TIMEOUT) {
            self.schedule.note_deadline(connection.client_deadline());
            self.queue(holder.key);
        } else {
            // The device is being opened.
            connection.change_loan(|loan| loan.abandon(self.now));
            self.refuse(holder.key, &Refusal::Operator);
        }
        Some(SessionName { busid, name, client: holder.peer })
    }

    /// Holds devices back no more.
    pub(super) fn release(&mut self, name: &str) -> Result<Obeyed, Disobeyed> {
        let asked = BusId::new(name).map(Asked::read).ok_or(Disobeyed::NotHeld)?;
        let ended = self.registry.end_holds(&asked);
        if ended.is_empty() {
            return Err(Disobeyed::NotHeld);
        }
        for hold in &ended {
            info!("an operator releases {}", hold.asked);
            self.observe(self.release_of(hold));
        }
        let names = ended.iter().map(|hold| hold.asked.to_string()).collect();
        Ok(Obeyed { sessions: Vec::new(), names })
    }

    /// The event of a hold that has ended.
    fn release_of(&self, hold: &Hold) -> Event {
        let (name, place) = match &hold.asked {
            Asked::Nickname(name) => (Some(*name), None),
            Asked::BusId(busid) => (None, Some(*busid)),
            _ => (None, None),
        };
        let busid = self.registry.named(&hold.asked).first().copied().or(place);
        Event { busid, name, ..Event::new(EventKind::Release) }
    }
}
