//! Clients that come: listening for them, and taking them up.
//!
//! Contract: part of the reactor, so nothing here sleeps. A client that may not be one is closed
//! before it is sent a byte.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use log::debug;
use mio::Interest;
use mio::net::{TcpListener, TcpStream};
use usbferry_sys::os::limit;

use super::connection::Connection;
use super::error::{StartError, is_no_such_protocol};
use super::token::{Key, Source};
use super::{Reactor, is_past, net, note_deadline};
use crate::complaints::{reason, warn};
use crate::config::{Listen, Settings};
use crate::usb::Backend;

/// Clients accepted in one turn, so that a flood of them leaves room for those that are there.
const ACCEPTS_PER_TURN: usize = 16;

/// How long to accept nobody when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl<B: Backend> Reactor<B> {
    /// Accepts clients, until it is time for others.
    pub(super) fn accept(&mut self, until: Option<Instant>) {
        if self.stopping.is_some() || !self.accept_ready {
            return;
        }
        if self.accept_paused_until.is_some_and(|until| self.now < until) {
            return;
        }
        self.accept_paused_until = None;
        self.accept_ready = false;
        for listener in 0..self.listeners.len() {
            self.accept_from(listener, until);
        }
    }

    /// Accepts a turn's worth of clients of one listener.
    fn accept_from(&mut self, listener: usize, until: Option<Instant>) {
        use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
        for _ in 0..ACCEPTS_PER_TURN {
            match self.listeners[listener].accept() {
                Ok((stream, peer)) => {
                    self.accept_failed = false;
                    self.admit(stream, peer);
                }
                Err(error) if error.kind() == WouldBlock => return,
                // The client is gone again, or the call was interrupted.
                Err(error) if matches!(error.kind(), ConnectionAborted | Interrupted) => {}
                // A stranger has the descriptor that the client needs.
                Err(error) if limit::is_reached(&error) && self.make_place() => {}
                Err(error) => {
                    if !std::mem::replace(&mut self.accept_failed, true) {
                        warn!(
                            "can't accept a client: {}. Is the limit of open files low?",
                            reason(&error)
                        );
                    }
                    self.accept_paused_until = Some(self.now + ACCEPT_PAUSE);
                    break;
                }
            }
            if is_past(until) {
                break;
            }
        }
        // There may be more, of which the system does not tell a second time.
        self.accept_ready = true;
    }

    /// Takes up a new client, unless it may not be one.
    fn admit(&mut self, mut stream: TcpStream, peer: SocketAddr) {
        if !self.settings.allowed.contains(peer.ip()) {
            let address = peer.ip().to_canonical();
            warn!(
                "{peer}: refused: its address is not among those given by --allow; allow it with \
                 --allow {address}"
            );
            return;
        }
        if self.clients >= self.settings.connections && !self.make_place() {
            let count = self.clients;
            warn!("{peer}: refused: {count} clients are connected, the most there may be");
            return;
        }
        if !net::INHERITS {
            net::prepare(&stream, self.settings.peer_timeout, self.settings.socket_buffer);
        }
        let entry = self.connections.vacant_entry();
        let index = u32::try_from(entry.key()).expect("CONNECTIONS_MAX is small");
        let key = Key { index, generation: self.connections_made };
        let token = Source::Client(key.label()).to_token();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut stream, token, interest) {
            warn!("{peer}: refused: {error}");
            return;
        }
        self.connections_made += 1;
        self.clients += 1;
        let connection = Connection::new(key, stream, peer, self.now);
        note_deadline(&mut self.next_deadline, connection.client_deadline());
        entry.insert(connection);
        self.tidy_strangers();
        self.strangers.push_back(key);
    }
}

/// Listens where it is to, as far as the machine can.
///
/// # Errors
/// An address can't be listened on.
pub(super) fn open_listeners(settings: &Settings) -> Result<Vec<TcpListener>, StartError> {
    let mut listeners = Vec::new();
    for listen in &settings.listen {
        if let Some(listener) = open_listener(*listen)? {
            net::prepare(&listener, settings.peer_timeout, settings.socket_buffer);
            listeners.push(listener);
        }
    }
    Ok(listeners)
}

fn open_listener(listen: Listen) -> Result<Option<TcpListener>, StartError> {
    match net::listen(listen.address) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if listen.optional && is_no_such_protocol(&error) => {
            debug!("not listening on {}: {error}", listen.address);
            Ok(None)
        }
        Err(error) => Err(StartError::Listen { address: listen.address, error }),
    }
}
