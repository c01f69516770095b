//! How connections end and devices come home: a client that leaves, a client that takes too long,
//! a server that stops.
//!
//! The socket goes first. A device comes home in steps, each started by the end of the step before:
//! transfers are cancelled on the worker and collected, descriptors are no longer watched, the
//! worker gives the device back, the device rests if its client broke the protocol, and only then
//! may another client have it (`loan`).
//!
//! Contract: part of the reactor, so nothing here sleeps.

use std::cmp::Reverse;

use log::debug;

use super::client::{Awaited, Stage};
use super::end::End;
use super::loan::{Afterwards, Loan};
use super::token::Key;
use super::{Reactor, client_of, find, note_deadline};
use crate::complaints::{info, warn};
use crate::limits::{DRAIN_TIMEOUT, OPEN_TIMEOUT};
use crate::usb::{Backend, Candidate};
use crate::wire::op::OpStatus;

impl<B: Backend> Reactor<B> {
    /// Ends connections that did not get further in time.
    pub(super) fn expire(&mut self) {
        if self.next_deadline.is_none_or(|at| self.now < at) {
            return;
        }
        self.next_deadline = None;
        let mut expired = Vec::new();
        for (_, connection) in &self.connections {
            match connection.client_deadline() {
                Some(at) if at <= self.now => expired.push(connection.key),
                deadline => note_deadline(&mut self.next_deadline, deadline),
            }
        }
        for key in expired {
            self.expire_one(key);
        }
    }

    /// Ends a connection, or the wait of its client, whose deadline has come.
    fn expire_one(&mut self, key: Key) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        let Some(client) = &mut connection.client else { return };
        client.deadline = None;
        match client.asked().map(|asked| asked.awaits) {
            Some(Awaited::Scan) => self.answer_without_scan(key),
            // The device does not come back.
            Some(Awaited::Return) => self.refuse(key, OpStatus::DeviceBusy),
            Some(Awaited::Opening) => self.abandon_opening(key),
            None => {
                let end = connection.expiry();
                self.end(key, &end);
            }
        }
    }

    /// Tells a client that its device can't be opened in time. The device stays busy until the
    /// worker that opens it comes back.
    fn abandon_opening(&mut self, key: Key) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        warn!(
            "{}: {}: can't be opened within {OPEN_TIMEOUT:?}: the system holds it, perhaps for a \
             request that the device does not answer. It is busy until the system lets go",
            connection.peer,
            name_of(connection.loan.as_ref()),
        );
        connection.change_loan(|loan| loan.abandon(self.now));
        self.refuse(key, OpStatus::NotAvailable);
    }

    /// Ends the oldest connection without a device, so that another can be made: nobody keeps
    /// clients out by coming often and asking for nothing. A client in good order sends its request
    /// with its first bytes, and is served before all others have come after it. Where all have
    /// asked for something and wait, the oldest of these is told that it does not get it. There is
    /// no share for each address: over `ssh -R` all have the same. False when there is no such
    /// connection.
    pub(super) fn make_place(&mut self) -> bool {
        let mut waiting = None;
        for _ in 0..self.strangers.len() {
            let Some(key) = self.strangers.pop_front() else { break };
            let Some(connection) = find(&mut self.connections, key) else { continue };
            if connection.has_device() {
                continue;
            }
            let Some(client) = &connection.client else { continue };
            if client.asked().is_none() {
                self.end(key, &End::Displaced);
                return true;
            }
            waiting = waiting.or(Some(key));
            self.strangers.push_back(key);
        }
        let Some(key) = waiting else { return false };
        self.refuse(key, OpStatus::NotAvailable);
        if let Some(client) = client_of(&mut self.connections, key) {
            let _ = client.flush_reply();
        }
        self.end(key, &End::Displaced);
        true
    }

    /// Forgets listed clients that have left or got a device, when these have become many.
    pub(super) fn tidy_strangers(&mut self) {
        if self.strangers.len() < 2 * self.settings.connections {
            return;
        }
        let connections = &mut self.connections;
        self.strangers.retain(|&key| find(connections, key).is_some_and(|c| !c.has_device()));
    }

    /// Ends a connection: at once without a device, else when the device has let go of everything.
    /// A connection whose client is gone already is left to that.
    pub(super) fn end(&mut self, key: Key, end: &End) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        let Some(mut client) = connection.take_client(self.now) else { return };
        self.clients -= 1;
        let _ = self.poll.registry().deregister(client.socket.stream_mut());
        let peer = connection.peer;
        match end {
            End::Handshake(_) | End::Violation(_) | End::TimedOut | End::Displaced => {
                warn!("{peer}: {end}");
            }
            _ if connection.has_device() => {
                info!("{peer}: {}: {end}", name_of(connection.loan.as_ref()));
            }
            _ => debug!("{peer}: {end}"),
        }
        let broke_protocol = matches!(end, End::Violation(_));
        let afterwards = if broke_protocol { Afterwards::Rest } else { Afterwards::Free };
        connection.change_loan(|loan| loan.drain(afterwards));
        if connection.session().is_some() {
            self.queue(key);
        }
        self.scans.forget(key);
        self.remove_if_over(key);
    }

    fn remove_if_over(&mut self, key: Key) {
        if find(&mut self.connections, key).is_some_and(|connection| connection.is_over()) {
            self.connections.remove(key.index as usize);
        }
    }

    /// The device is gone and all was said: the client is told so in good order, while the device
    /// is given back.
    pub(super) fn end_gone(&mut self, key: Key) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        info!("{}: its device is gone", connection.peer);
        connection.change_loan(|loan| loan.drain(Afterwards::Free));
        self.close(key, true);
    }

    /// Has a session's device given back.
    pub(super) fn give_back(&mut self, key: Key) {
        self.attached.retain(|&attached| attached != key);
        let Some(connection) = find(&mut self.connections, key) else { return };
        let registry = self.poll.registry();
        connection.change_loan(|loan| loan.return_drained(registry));
    }

    /// A device was given back: another client can have it, at once or when it has rested.
    pub(super) fn handle_closed(&mut self, key: Key) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        let Some(loan) = connection.loan.take() else { return };
        info!("{}: released", loan.busid);
        match loan.returned(self.now) {
            Some((resting, until)) => {
                connection.loan = Some(resting);
                self.rests.push(Reverse((until, key)));
            }
            None => self.free(key),
        }
    }

    /// A device has no client any more: contenders look for it on the bus again, where it may have
    /// become another meanwhile.
    pub(super) fn free(&mut self, key: Key) {
        if let Some(connection) = find(&mut self.connections, key) {
            connection.loan = None;
        }
        self.remove_if_over(key);
        self.wake_contenders();
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
            self.stop_one(key);
        }
    }

    /// Has a client that is served get its last replies, and ends all other connections.
    fn stop_one(&mut self, key: Key) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        if connection.begin_stop(self.now + DRAIN_TIMEOUT) {
            note_deadline(&mut self.next_deadline, connection.client_deadline());
            return self.queue(key);
        }
        // Unread bytes would make the end of the connection a reset.
        if let Some(client) = &mut connection.client
            && matches!(client.stage, Stage::Closing { .. })
        {
            client.socket.discard_unread(&mut self.discard);
        }
        self.end(key, &End::Stopping);
    }
}

/// The device's name in the log.
fn name_of<C: Candidate>(loan: Option<&Loan<C>>) -> String {
    loan.map(|loan| loan.busid.to_string()).unwrap_or_default()
}
