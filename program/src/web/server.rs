//! The thread of the web server: accepts clients, and serves each as its socket allows.
//!
//! Contract: the wait for events is the only sleep here, but for the bounded wait for a report
//! (`reporter`). The number of connections, and the bytes and the time of each, are bounded.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use usbferry_sys::os::limit;

use super::Access;
use super::connection::{Connection, Visit};
use super::site::Site;
use crate::complaints::{Complaints, warn};
use crate::limits::{HTTP_CONNECTIONS_MAX, HTTP_CONNECTIONS_SHARE, LISTENERS_MAX};
use crate::reactor::canonical;
use crate::words::reason;

const WAKER: Token = Token(0);
const FIRST_LISTENER: usize = 1;
const FIRST_CLIENT: usize = FIRST_LISTENER + LISTENERS_MAX;

/// Events taken in a wait: each source may have one.
const EVENTS: usize = FIRST_CLIENT + HTTP_CONNECTIONS_MAX;

/// Clients accepted at once, so that a flood of new clients leaves room for the present clients.
const ACCEPTS: usize = 16;

/// Rest of the listeners when a client can't be accepted, for want of a descriptor.
const ACCEPT_REST: Duration = Duration::from_millis(200);

/// The most clients at once, for a process with so many file descriptors.
fn most_clients(descriptors: usize) -> usize {
    (descriptors / HTTP_CONNECTIONS_SHARE).clamp(1, HTTP_CONNECTIONS_MAX)
}

/// The web server.
pub(super) struct Server {
    poll: Poll,
    listeners: Vec<TcpListener>,
    access: Access,
    site: Arc<Site>,
    clients: Slab<Connection>,
    /// The most clients at once.
    most: usize,
    /// When clients are to be accepted, though no event says so.
    accepts_at: Option<Instant>,
    complaints: Complaints,
}

impl Server {
    /// A server that listens, and the waker that ends the server.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub(super) fn new(
        mut listeners: Vec<TcpListener>,
        access: Access,
        site: Site,
    ) -> io::Result<(Self, Arc<Waker>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        for (number, listener) in listeners.iter_mut().enumerate() {
            let token = Token(FIRST_LISTENER + number);
            poll.registry().register(listener, token, Interest::READABLE)?;
        }
        let server = Self {
            poll,
            listeners,
            access,
            site: Arc::new(site),
            clients: Slab::new(),
            most: most_clients(limit::open_files().unwrap_or(usize::MAX)),
            accepts_at: None,
            complaints: Complaints::new(Instant::now()),
        };
        Ok((server, waker))
    }

    /// Serves clients until woken.
    pub(super) fn serve(mut self) {
        self.complaints.take_thread();
        let mut events = Events::with_capacity(EVENTS);
        loop {
            match self.poll.poll(&mut events, self.timeout()) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return log::error!("the web server ends: {}", reason(&error));
                }
                _ => {}
            }
            for event in &events {
                match event.token() {
                    WAKER => return,
                    Token(number) if number < FIRST_CLIENT => {
                        self.accepts_at = Some(Instant::now());
                    }
                    Token(number) => self.mark(number - FIRST_CLIENT),
                }
            }
            self.serve_clients();
            self.complaints.tell_left_out(Instant::now());
            if self.accepts_at.is_some_and(|at| at <= Instant::now()) {
                self.accept();
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        if self.clients.iter().any(|(_, client)| client.is_due()) {
            return Some(Duration::ZERO);
        }
        let deadlines = self.clients.iter().map(|(_, client)| client.deadline());
        let others = [self.accepts_at, self.complaints.deadline()].into_iter().flatten();
        let earliest = deadlines.chain(others).min();
        earliest.map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn mark(&mut self, index: usize) {
        if let Some(client) = self.clients.get_mut(index) {
            client.mark();
        }
    }

    /// Serves the clients with something to do, and ends clients that are done or late.
    fn serve_clients(&mut self) {
        let now = Instant::now();
        self.clients.retain(|_, client| {
            let goes_on = !client.is_due() || client.serve(now);
            goes_on && client.deadline() > now
        });
    }

    /// Accepts a turn's worth of clients of each listener.
    fn accept(&mut self) {
        self.accepts_at = None;
        for listener in 0..self.listeners.len() {
            if let Some(rest) = self.accept_from(listener) {
                self.accepts_at = Some(Instant::now() + rest);
            }
        }
    }

    /// Accepts clients of a listener. Returns the rest before the next attempt, unless all clients
    /// were accepted: the system does not tell of a client a second time.
    fn accept_from(&mut self, listener: usize) -> Option<Duration> {
        use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
        for _ in 0..ACCEPTS {
            match self.listeners[listener].accept() {
                Ok((stream, peer)) => self.admit(stream, canonical(peer)),
                Err(error) if error.kind() == WouldBlock => return None,
                Err(error) if matches!(error.kind(), ConnectionAborted | Interrupted) => {}
                Err(error) => {
                    warn!("can't accept a client of --http: {}", reason(&error));
                    return Some(ACCEPT_REST);
                }
            }
        }
        Some(Duration::ZERO)
    }

    /// Takes up a new client whom the settings allow. Where as many clients are connected as
    /// may, the client whose time ends first makes place: nobody keeps a client out by connecting
    /// and asking for nothing, and a client in good order asks at once.
    fn admit(&mut self, mut stream: TcpStream, peer: SocketAddr) {
        if !self.access.admits(peer) {
            warn!(
                client:% = peer;
                "{peer}: refused by --http: its address is not among those given by --allow"
            );
            return;
        }
        if self.clients.len() >= self.most {
            let oldest = self.clients.iter().min_by_key(|(_, client)| client.deadline());
            let oldest = oldest.map(|(index, _)| index).expect("there are clients");
            self.clients.remove(oldest);
        }
        let entry = self.clients.vacant_entry();
        let (token, interest) =
            (Token(FIRST_CLIENT + entry.key()), Interest::READABLE | Interest::WRITABLE);
        if let Err(error) = self.poll.registry().register(&mut stream, token, interest) {
            return log::debug!("{peer}: can't be watched: {error}");
        }
        let visit = Visit::new(Arc::clone(&self.site), self.access.clone(), peer);
        entry.insert(Connection::new(stream, visit, Instant::now()));
    }
}
