//! How connections end, and devices come home: a client that goes, one that takes too long, a
//! server that stops.
//!
//! The socket goes first. A device goes home in steps, each started by the end of the one before:
//! its transfers are cancelled on its worker and collected, its descriptors are no longer watched,
//! the worker gives it back, and only then may another client have it.
//!
//! Contract: part of the reactor, so nothing here sleeps.

use std::time::Duration;

use log::debug;

use super::connection::{Awaited, End, Stage};
use super::token::Key;
use super::{Reactor, deregister, find, note_deadline};
use crate::complaints::{info, warn};
use crate::limits::{DRAIN_TIMEOUT, HANDSHAKE_TIMEOUT, OPEN_TIMEOUT, VIOLATION_REST};
use crate::usb::Backend;
use crate::wire::op::{self, OpStatus};

impl<B: Backend> Reactor<B> {
    /// Ends connections that did not get further in time.
    pub(super) fn expire(&mut self) {
        if self.next_deadline.is_none_or(|at| self.now < at) {
            return;
        }
        self.next_deadline = None;
        let mut expired = Vec::new();
        for (_, connection) in &self.connections {
            match connection.deadline {
                Some(at) if at <= self.now => expired.push(connection.key),
                deadline => note_deadline(&mut self.next_deadline, deadline),
            }
        }
        for key in expired {
            let Some(connection) = find(&mut self.connections, key) else { continue };
            connection.deadline = None;
            match &connection.stage {
                Stage::Asked(asked) => match asked.awaits {
                    Awaited::Scan => self.answer_without_scan(key),
                    // It does not come back.
                    Awaited::Holder => self.refuse(key, OpStatus::DeviceBusy),
                },
                Stage::Opening(_) => self.abandon_opening(key),
                _ => {
                    let end = connection.expiry();
                    self.end(key, &end);
                }
            }
        }
    }

    /// Tells a client that its device can't be opened in time. The device stays busy until whoever
    /// opens it comes back.
    fn abandon_opening(&mut self, key: Key) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        let busid = connection.busid.map(|busid| busid.to_string()).unwrap_or_default();
        warn!(
            "{}: {busid}: can't be opened within {OPEN_TIMEOUT:?}: the system holds it, perhaps for a \
             request that the device does not answer. It is busy until the system lets go",
            connection.peer
        );
        connection.stage = Stage::Abandoned(self.now);
        connection.answer(|out| op::emit_import(Err(OpStatus::NotAvailable), out));
        connection.deadline = Some(self.now + HANDSHAKE_TIMEOUT);
        note_deadline(&mut self.next_deadline, connection.deadline);
        self.queue(key);
    }

    /// Ends the oldest connection that has no device and is not about to get one, so that another
    /// can be made: nobody keeps clients out by coming often and asking for nothing. One that means
    /// it sends its request with its first bytes, and is done before all others have come after it.
    /// Where all have asked for something and wait, the oldest of these is told that it does not
    /// get it. There is no share for each address: over `ssh -R` all have the same. False when
    /// there is no such connection.
    pub(super) fn make_place(&mut self) -> bool {
        let mut waiting = None;
        for _ in 0..self.strangers.len() {
            let Some(key) = self.strangers.pop_front() else { break };
            let Some(connection) = find(&mut self.connections, key) else { continue };
            match connection.stage {
                Stage::Handshake(_) | Stage::Finishing => {
                    self.end(key, &End::Displaced);
                    return true;
                }
                Stage::Asked(_) => {
                    waiting = waiting.or(Some(key));
                    self.strangers.push_back(key);
                }
                Stage::Opening(_) | Stage::Abandoned(_) | Stage::Attached(_) | Stage::Returning => {
                }
            }
        }
        let Some(key) = waiting else { return false };
        self.refuse(key, OpStatus::NotAvailable);
        if let Some(connection) = find(&mut self.connections, key) {
            let _ = connection.flush(self.now, &mut 0);
        }
        self.end(key, &End::Displaced);
        true
    }

    /// Forgets strangers that are none any more, when they have become many.
    pub(super) fn tidy_strangers(&mut self) {
        if self.strangers.len() < 2 * self.settings.connections {
            return;
        }
        let connections = &mut self.connections;
        self.strangers.retain(|&key| find(connections, key).is_some_and(|c| c.busid.is_none()));
    }

    /// Ends a connection: at once without a device, else when the device has let go of everything.
    /// One that has ended already is left to that.
    pub(super) fn end(&mut self, key: Key, end: &End) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        let Some(mut stream) = connection.take_client() else { return };
        self.clients -= 1;
        let _ = self.poll.registry().deregister(&mut stream);
        let busid = connection.busid.map(|busid| busid.to_string()).unwrap_or_default();
        match end {
            End::Handshake(_) | End::Violation(_) | End::TimedOut | End::Displaced => {
                warn!("{}: {end}", connection.peer);
            }
            _ if connection.busid.is_some() => info!("{}: {busid}: {end}", connection.peer),
            _ => debug!("{}: {end}", connection.peer),
        }
        connection.broke_protocol = matches!(end, End::Violation(_));
        if let Some(session) = connection.session() {
            // One whose device is gone is due to have it closed, and would stay so.
            session.close_input();
            session.begin_teardown();
            self.queue(key);
        }
        self.scans.forget(key);
        self.remove_if_over(key);
    }

    pub(super) fn remove_if_over(&mut self, key: Key) {
        if find(&mut self.connections, key).is_some_and(|connection| connection.is_over()) {
            self.connections.remove(key.index as usize);
        }
    }

    /// Has a session's device given back.
    pub(super) fn give_back(&mut self, key: Key) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        deregister(self.poll.registry(), &mut connection.device_fds);
        self.attached.retain(|&attached| attached != key);
        let stage = std::mem::replace(&mut connection.stage, Stage::Returning);
        let (Stage::Attached(session), Some(worker)) = (stage, &connection.worker) else { return };
        let rest = if connection.broke_protocol { VIOLATION_REST } else { Duration::ZERO };
        if let Some(remains) = session.into_remains() {
            worker.close(remains, rest);
        }
    }

    /// A device was given back: it can be imported again.
    pub(super) fn handle_closed(&mut self, key: Key) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        if let Some(busid) = connection.busid.take() {
            info!("{busid}: released");
        }
        connection.worker = None;
        connection.stage = Stage::Finishing;
        self.remove_if_over(key);
        self.wake_takers();
    }

    /// Stops: no new clients; those that are there get what was already said to them, then every
    /// device is given back.
    pub(super) fn begin_stop(&mut self) {
        if self.stopping.is_some() || !self.stop.is_requested() {
            return;
        }
        log::info!("stopping: giving back every device");
        self.stopping = Some(self.now);
        // Nothing else would end the pause, and when its time has come each wait would be none.
        self.accept_paused_until = None;
        for mut listener in self.listeners.drain(..) {
            let _ = self.poll.registry().deregister(&mut listener);
        }
        let keys: Vec<Key> = self.connections.iter().map(|(_, c)| c.key).collect();
        for key in keys {
            let Some(connection) = find(&mut self.connections, key) else { continue };
            if matches!(connection.stage, Stage::Attached(_)) && connection.stream.is_some() {
                connection.begin_stop(self.now + DRAIN_TIMEOUT);
                note_deadline(&mut self.next_deadline, connection.deadline);
                self.queue(key);
            } else {
                // Else what it sent meanwhile would make its end a reset.
                if connection.paused {
                    connection.discard_unread(&mut self.waste);
                }
                self.end(key, &End::Stopping);
            }
        }
    }
}
