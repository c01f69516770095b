//! Watches: clients that are told whenever the answer to an import of a device changes
//! (docs/protocol-extensions.md).
//!
//! ```text
//! OP_REQ_WATCH ─► version ─► name ─► status at once ─► status after each change ─► the end
//! ```
//!
//! A watch is a client without a device: it counts among the connections, gives its place to a
//! newer client when the server is full, and is dead when it shows no sign of life for the peer
//! timeout. Statuses go by the exports as the client sees them. A client that reads slowly gets the
//! newest status only.
//!
//! Contract: part of the reactor, so nothing here sleeps. A turn looks at the watches only after
//! the exports have changed.

use std::time::Instant;

use super::client::{Client, Step};
use super::end::End;
use super::refusal::Refusal;
use super::token::Key;
use super::{Reactor, client_of, find};
use crate::config::asked::Asked;
use crate::limits::{HANDSHAKE_TIMEOUT, WATCH_TIME_MAX, WATCHES_MAX};
use crate::usb::Backend;
use crate::wire::op::OpStatus;
use crate::wire::types::BusId;
use crate::wire::watch::{NAME_LEN, hello, notice};

/// A client that watches a device.
pub(super) struct Watch {
    /// The name, as far as it has arrived.
    name: [u8; NAME_LEN],
    len: usize,
    /// When the watch ends.
    end: Instant,
    /// The last status told.
    told: Option<OpStatus>,
    /// The client has taken everything told.
    is_flushed: bool,
}

impl Watch {
    fn new(now: Instant) -> Self {
        Self {
            name: [0; NAME_LEN],
            len: 0,
            end: now + WATCH_TIME_MAX,
            told: None,
            is_flushed: false,
        }
    }

    /// Whether the client has the newest status.
    pub(super) const fn is_up_to_date(&self) -> bool {
        self.told.is_some() && self.is_flushed
    }

    /// The device, once the name is complete.
    fn asked(&self) -> Option<Asked> {
        (self.len == NAME_LEN).then(|| Asked::read(BusId::from_wire(&self.name)))
    }
}

impl Client {
    /// The client's watch, if the client watches a device.
    fn watch(&mut self) -> Option<&mut Watch> {
        match &mut self.step {
            Step::Watching(watch) => Some(watch),
            _ => None,
        }
    }

    /// Reads the name of the watched device. True when the name has just become complete.
    ///
    /// # Errors
    /// The client closes, or sends more than a name.
    fn read_name(&mut self) -> Result<bool, End> {
        let Step::Watching(watch) = &mut self.step else { return Ok(false) };
        let was_complete = watch.len == NAME_LEN;
        while self.socket.is_readable() {
            let mut more = [0; 1];
            let is_complete = watch.len == NAME_LEN;
            let room = if is_complete { &mut more[..] } else { &mut watch.name[watch.len..] };
            let Some(len) = self.socket.read(room)? else { break };
            if is_complete {
                return Err(End::TooMuch);
            }
            watch.len += len;
        }
        Ok(!was_complete && watch.len == NAME_LEN)
    }

    /// Tells the client a status, unless it was the last. A status that finds no room is told when
    /// there is room, if it is still the status then.
    ///
    /// # Errors
    /// The socket's failure.
    fn tell(&mut self, status: OpStatus, now: Instant) -> Result<(), End> {
        self.flush_reply()?;
        let is_flushed = self.is_flushed();
        let Some(watch) = self.watch() else { return Ok(()) };
        let end = watch.end;
        if is_flushed && watch.told.replace(status) != Some(status) {
            self.answer(|out| out.extend_from_slice(&notice(status)));
            self.flush_reply()?;
        }
        let is_flushed = self.is_flushed();
        self.deadline = Some(if is_flushed { end } else { now + HANDSHAKE_TIMEOUT });
        if let Some(watch) = self.watch() {
            watch.is_flushed = is_flushed;
        }
        Ok(())
    }
}

impl<B: Backend> Reactor<B> {
    /// Begins a watch: the client is told the version, and then sends the name.
    pub(super) fn begin_watch(&mut self, key: Key) {
        if let Some(refusal) = self.no_watch_for(key) {
            return self.refuse(key, &refusal);
        }
        let now = self.now;
        let Some(client) = client_of(&mut self.connections, key) else { return };
        client.step = Step::Watching(Watch::new(now));
        client.answer(|out| out.extend_from_slice(&hello()));
        client.deadline = Some(now + HANDSHAKE_TIMEOUT);
        self.schedule.note_deadline(client.deadline);
        self.audience.watches.push(key);
        self.queue(key);
    }

    /// The reason why a client may not watch as well, if there is one.
    fn no_watch_for(&mut self, key: Key) -> Option<Refusal> {
        if self.audience.watches.len() >= WATCHES_MAX {
            return Some(Refusal::TooManyWatches);
        }
        let shares = self.settings.shares;
        let address = find(&mut self.connections, key)?.peer.ip();
        if !shares.hold_for(address) {
            return None;
        }
        let mut watches = 0;
        for &watch in &self.audience.watches {
            let watching = find(&mut self.connections, watch);
            watches += usize::from(watching.is_some_and(|other| other.peer.ip() == address));
        }
        (watches >= shares.watches).then_some(Refusal::AddressWatches(address, shares.watches))
    }

    /// Serves a client that watches a device.
    ///
    /// # Errors
    /// Why the connection ends.
    #[inline(never)]
    pub(super) fn serve_watch(&mut self, key: Key) -> Result<bool, End> {
        let Some(client) = client_of(&mut self.connections, key) else { return Ok(false) };
        client.flush_reply()?;
        if client.read_name()? {
            self.scan_for_arrivals();
        }
        self.tell_watch(key)?;
        Ok(false)
    }

    /// Tells all watches of changes of the exports.
    pub(super) fn tell_watches(&mut self) {
        if !self.registry.take_news() {
            return;
        }
        self.audience.reports.note_change();
        for key in self.audience.watches.clone() {
            if let Err(end) = self.tell_watch(key) {
                self.end(key, &end);
            }
        }
    }

    fn tell_watch(&mut self, key: Key) -> Result<(), End> {
        let Some(connection) = find(&mut self.connections, key) else { return Ok(()) };
        let address = connection.peer.ip();
        let Some(client) = &mut connection.client else { return Ok(()) };
        let Some(asked) = client.watch().and_then(|watch| watch.asked()) else { return Ok(()) };
        client.tell(self.registry.prospect(&asked, address), self.now)?;
        self.schedule.note_deadline(client.deadline);
        Ok(())
    }
}
