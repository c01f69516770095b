//! The door: listening for clients, accepting them, and making place for them.
//!
//! Contract: part of the reactor, so nothing here sleeps. A client that is not allowed is closed
//! before the server sends a byte.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry};
use usbferry_sys::os::limit;

use super::connection::Connection;
use super::end::End;
use super::error::StartError;
use super::rates::{Rate, Rates};
use super::refusal::Refusal;
use super::schedule::{Rest, TimeShare};
use super::token::{Key, Subject};
use super::{Reactor, client_of, find, net};
use crate::complaints::warn;
use crate::config::Settings;
use crate::status::Connections;
use crate::usb::Backend;
use crate::words::reason;

/// Clients accepted in a turn, so that a flood of new clients leaves room for the present clients.
const ACCEPTS_PER_TURN: usize = 16;

/// Rest of the door when the process has no descriptor left.
pub(super) const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Where clients come in.
pub(super) struct Door {
    listeners: Vec<TcpListener>,
    /// The system may have clients to be accepted.
    ready: bool,
    /// Nobody is accepted until a rest ends: the process had no descriptor left.
    rests: bool,
    /// The last client could not be accepted, as the log was told.
    failed: bool,
    /// Connections made so far, which tells the users of a place apart.
    made: u64,
    /// Clients that were refused at once.
    refused: Connections,
    /// Clients that are connected. A connection may outlive its client.
    clients: usize,
    /// Clients without a device, the oldest first; some have left by now or have a device.
    deviceless: VecDeque<Key>,
    /// The clients of the last second.
    rates: Rates,
}

impl Door {
    /// Listens on the given listeners, or else where the settings say, as far as the machine can.
    ///
    /// # Errors
    /// An address can't be listened on, or the system has no descriptor.
    pub(super) fn open(
        settings: &Settings,
        given: Vec<std::net::TcpListener>,
        registry: &Registry,
    ) -> Result<Self, StartError> {
        let mut listeners: Vec<_> = given.into_iter().map(TcpListener::from_std).collect();
        if listeners.is_empty() {
            listeners = net::open_listeners(&settings.listen)
                .map_err(|error| StartError::Listen { error, file: settings.file.clone() })?;
        }
        for (number, listener) in listeners.iter_mut().enumerate() {
            let number = u32::try_from(number).expect("addresses are few");
            let token = Subject::Listener(number).to_token();
            let registered = registry.register(listener, token, Interest::READABLE);
            registered.map_err(StartError::System)?;
        }
        let door = Self {
            listeners,
            ready: true,
            rests: false,
            failed: false,
            made: 0,
            refused: Connections::default(),
            clients: 0,
            deviceless: VecDeque::new(),
            rates: Rates::default(),
        };
        door.prepare(settings);
        Ok(door)
    }

    /// Prepares the listeners, whose clients inherit the options, for later clients.
    pub(super) fn prepare(&self, settings: &Settings) {
        for listener in &self.listeners {
            net::prepare(listener, settings.peer_timeout, settings.socket_buffer);
        }
    }

    /// Where the server listens.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Notes that the system has clients to be accepted.
    pub(super) const fn mark(&mut self) {
        self.ready = true;
    }

    /// Ends the rest of the door.
    pub(super) const fn end_rest(&mut self) {
        self.rests = false;
    }

    /// Whether clients are to be accepted now.
    pub(super) const fn is_due(&self) -> bool {
        self.ready && !self.rests
    }

    /// Listens no more.
    pub(super) fn shut(&mut self, registry: &Registry) {
        for mut listener in self.listeners.drain(..) {
            let _ = registry.deregister(&mut listener);
        }
        self.ready = false;
    }

    /// Clients that are connected.
    pub(super) const fn clients(&self) -> usize {
        self.clients
    }

    /// Connections so far.
    pub(super) const fn counts(&self) -> Connections {
        Connections { accepted: self.made, ..self.refused }
    }

    /// A client has left.
    pub(super) const fn let_out(&mut self) {
        self.clients -= 1;
    }

    /// Connections made so far.
    #[cfg(test)]
    pub(super) const fn made_mut(&mut self) -> &mut u64 {
        &mut self.made
    }
}

impl<B: Backend> Reactor<B> {
    /// Accepts clients, until the time for connections without a device is used up.
    pub(super) fn accept(&mut self, share: &TimeShare) {
        if !self.door.is_due() {
            return;
        }
        self.door.ready = false;
        for listener in 0..self.door.listeners.len() {
            self.accept_from(listener, share);
        }
    }

    /// Accepts a turn's worth of clients of one listener.
    fn accept_from(&mut self, listener: usize, share: &TimeShare) {
        use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
        for _ in 0..ACCEPTS_PER_TURN {
            match self.door.listeners[listener].accept() {
                Ok((stream, peer)) => {
                    self.door.failed = false;
                    self.admit(stream, net::canonical(peer));
                }
                Err(error) if error.kind() == WouldBlock => return,
                // The client has left again, or the call was interrupted.
                Err(error) if matches!(error.kind(), ConnectionAborted | Interrupted) => {}
                // A client without a device has the descriptor that the new client needs.
                Err(error) if limit::is_reached(&error) && self.make_place() => {}
                Err(error) => {
                    self.rest_from_accepting(&error);
                    break;
                }
            }
            if share.is_used_up() {
                break;
            }
        }
        // There may be more clients, of which the system does not tell a second time.
        self.door.ready = true;
    }

    /// Accepts nobody for a while.
    pub(super) fn rest_from_accepting(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.door.failed, true) {
            warn!("can't accept a client: {}. Is the limit of open files low?", reason(error));
        }
        // Another listener may have begun the rest in this turn.
        if !std::mem::replace(&mut self.door.rests, true) {
            self.schedule.rest(self.now + ACCEPT_REST, Rest::Door);
        }
    }

    /// Takes up a new client, unless the settings forbid it.
    fn admit(&mut self, mut stream: TcpStream, peer: SocketAddr) {
        if !self.settings.allowed.contains(peer.ip()) {
            self.door.refused.not_allowed += 1;
            warn!(
                client:% = peer;
                "{peer}: refused: its address is not among those given by --allow; allow it with \
                 --allow {}",
                peer.ip()
            );
            return;
        }
        if !self.is_within_rate(peer.ip()) {
            self.door.refused.too_often += 1;
            return;
        }
        if self.door.clients >= self.settings.connections && !self.make_place() {
            let count = self.door.clients;
            self.door.refused.full += 1;
            warn!(client:% = peer; "{peer}: refused: {count} clients are connected, the limit");
            return;
        }
        if !net::INHERITS {
            net::prepare(&stream, self.settings.peer_timeout, self.settings.socket_buffer);
        }
        let entry = self.connections.vacant_entry();
        let index = u32::try_from(entry.key()).expect("CONNECTIONS_MAX is small");
        let key = Key { index, generation: self.door.made };
        let token = Subject::Client(key.label()).to_token();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut stream, token, interest) {
            warn!(
                client:% = peer;
                "{peer}: refused: the system can't watch its connection: {}", reason(&error)
            );
            return;
        }
        self.door.made += 1;
        self.door.clients += 1;
        let connection = Connection::new(key, stream, peer, self.now);
        self.schedule.note_deadline(connection.client_deadline());
        entry.insert(connection);
        self.tidy_deviceless();
        self.door.deviceless.push_back(key);
    }

    /// Whether a client's address has connected no more often than its share allows.
    fn is_within_rate(&mut self, address: IpAddr) -> bool {
        let shares = self.settings.shares;
        if !shares.hold_for(address) {
            return true;
        }
        let most = shares.accepts_per_second;
        let rate = self.door.rates.note(address, most, self.now);
        if rate == Rate::JustAbove {
            warn!(
                client:% = address;
                "{address}: refused: more than {most} connections within a second; the next \
                 connections of this second are closed, too"
            );
        }
        rate == Rate::Within
    }

    /// Ends the oldest connection without a device, to make place for another: nobody keeps clients
    /// out by connecting often and asking for nothing. A client in good order sends its request
    /// with its first bytes, and is served before enough later clients have come. Where all clients
    /// wait for an answer, the oldest is refused. Addresses have no shares: over `ssh -R` all
    /// clients have the same address. False when every connection has a device.
    fn make_place(&mut self) -> bool {
        let mut waiting = None;
        for _ in 0..self.door.deviceless.len() {
            let Some(key) = self.door.deviceless.pop_front() else { break };
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
            self.door.deviceless.push_back(key);
        }
        let Some(key) = waiting else { return false };
        self.refuse(key, &Refusal::Displaced);
        if let Some(client) = client_of(&mut self.connections, key) {
            let _ = client.flush_reply();
        }
        self.end(key, &End::Answered);
        true
    }

    /// Forgets listed clients that have left or got a device, when these have become many.
    fn tidy_deviceless(&mut self) {
        if self.door.deviceless.len() < 2 * self.settings.connections {
            return;
        }
        let connections = &mut self.connections;
        let is_deviceless =
            |&key: &Key| find(connections, key).is_some_and(|connection| !connection.has_device());
        self.door.deviceless.retain(is_deviceless);
    }
}
