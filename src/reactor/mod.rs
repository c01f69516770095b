//! The server: one thread that waits for sockets, devices and workers, and moves what is there.
//!
//! Events only set bits. Then each turn goes through the same phases: what workers have done,
//! deadlines, each session that has something to do, a bounded amount of it, and then connections
//! without a device, all of them together for a bounded time. What is left over keeps its bit, and
//! the next wait is then none.
//!
//! ```text
//! poll ─► mark ─► inbox ─► deadlines ─► serve each ready session ─► strangers, accept ─► poll
//!                   ▲                       │ read, parse, submit, reap, write
//!                   └─────── workers ◄──────┘ jobs: cancel, perform, close
//! ```
//!
//! - `accept`: new clients; `connection`: a client (`client`, `socket`) and a device (`loan`);
//!   `exchange`: the bytes and completions between both;
//! - `exports`: the answers to handshakes; `ending`: ends (`end`) of connections and of loans;
//! - `spin`: whether to sleep; `net`, `token`, `stop`: sockets, event names, the way to stop the
//!   server.
//!
//! Contract: nothing on this thread sleeps but the one wait, and with nothing to do it does wait: a
//! bit that nothing would clear is not set. Whatever can sleep otherwise is a worker's.

mod accept;
mod client;
mod connection;
mod end;
mod ending;
mod error;
mod exchange;
mod exports;
mod loan;
mod net;
mod socket;
mod spin;
mod stop;
#[cfg(test)]
mod tests;
mod token;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Waker};
use slab::Slab;
use usbferry_sys::os::clock::CoarseClock;

use crate::complaints::Complaints;
use crate::config::Settings;
use crate::limits::SHUTDOWN_TIMEOUT;
use crate::session::TaskResult;
use crate::usb::{Backend, Candidate};
use crate::worker::{Done, Inbox, Scanner};
use client::{Client, DISCARD_LEN, DISCARD_PAUSE, Stage};
use connection::Connection;
use end::End;
pub use error::StartError;
use exchange::Turn;
use exports::{PortOf, Scans};
use loan::Loan;
pub use net::prepare as prepare_socket;
use spin::Spin;
pub use stop::StopHandle;
use stop::StopSource;
pub(crate) use token::Key;
use token::{Label, Source};

/// Events taken in one wait. More wait for the next turn.
const EVENTS_PER_TURN: usize = 1024;

/// Time of a turn for all connections without a device together, where sessions have something to
/// do in it, and where they are only there: their next bytes may come meanwhile.
const STRANGERS_TIME: Duration = Duration::from_micros(20);
const STRANGERS_TIME_ALONE: Duration = Duration::from_micros(250);

/// How long they then wait, in times of what they took: while there are sessions, a flood of them
/// has a quarter of a processor, and waking up for one that means it is no wait to speak of.
const STRANGERS_REST: u32 = 3;

/// The server.
pub struct Reactor<B: Backend> {
    poll: Poll,
    settings: Settings,
    listeners: Vec<TcpListener>,
    stop: StopSource,
    inbox: Inbox<B::Candidate>,
    scanner: Scanner,
    scans: Scans<B::Candidate>,
    connections: Slab<Connection<B::Candidate>>,
    /// Connections that have no device, the oldest first, and some that are over or have one now.
    strangers: VecDeque<Key>,
    /// Connections that have a client: a device may take longer to be given back.
    clients: usize,
    /// Connections made so far: what tells a place's users apart.
    connections_made: u64,
    /// Connections with a device, whose deadlines count; few beside the rest.
    attached: Vec<Key>,
    /// Connections with something to do.
    ready: Vec<Key>,
    /// Connections whose turn it is, kept for its memory.
    serving: Vec<Key>,
    /// Connections without a device whose turn it is, and until when they wait for it.
    due_strangers: VecDeque<Key>,
    strangers_rest_until: Option<Instant>,
    /// Connections whose client is paused or whose device rests, and until when.
    rests: BinaryHeap<Reverse<(Instant, Key)>>,
    /// Where bytes go that nobody reads.
    discard: Box<[u8]>,
    accept_ready: bool,
    accept_paused_until: Option<Instant>,
    /// The last client could not be accepted, which the log was told.
    accept_failed: bool,
    inbox_ready: bool,
    /// The earliest deadline of any connection, or earlier.
    next_deadline: Option<Instant>,
    stopping: Option<Instant>,
    complaints: Complaints,
    spin: Spin,
    clock: CoarseClock,
    now: Instant,
}

impl<B: Backend> Reactor<B> {
    /// A server that listens and looks for devices, but does nothing before [`Self::run`].
    ///
    /// # Errors
    /// An address can't be listened on, or the system has no room for a thread or a descriptor.
    pub fn new(backend: B, settings: Settings) -> Result<Self, StartError> {
        let poll = Poll::new().map_err(StartError::System)?;
        let registry = poll.registry();
        let mut listeners = accept::open_listeners(&settings)?;
        for (number, listener) in (0..).zip(&mut listeners) {
            let token = Source::Listener(number).to_token();
            registry.register(listener, token, Interest::READABLE).map_err(StartError::System)?;
        }
        let waker =
            Arc::new(Waker::new(registry, Source::Waker.to_token()).map_err(StartError::System)?);
        let complaints = Complaints::new(Instant::now());
        let inbox = Inbox::new(waker, complaints.clone());
        let scanner = Scanner::start(backend, &inbox).map_err(StartError::System)?;
        let stop =
            StopSource::new(registry, Source::Stop.to_token()).map_err(StartError::System)?;
        let spin = Spin::new(settings.busy_poll);
        Ok(Self {
            poll,
            settings,
            listeners,
            stop,
            inbox,
            scanner,
            scans: Scans::default(),
            connections: Slab::new(),
            strangers: VecDeque::new(),
            clients: 0,
            connections_made: 0,
            attached: Vec::new(),
            ready: Vec::new(),
            serving: Vec::new(),
            due_strangers: VecDeque::new(),
            strangers_rest_until: None,
            rests: BinaryHeap::new(),
            discard: vec![0; DISCARD_LEN].into_boxed_slice(),
            accept_ready: true,
            accept_paused_until: None,
            accept_failed: false,
            inbox_ready: true,
            next_deadline: None,
            stopping: None,
            complaints,
            spin,
            clock: CoarseClock::new(),
            now: Instant::now(),
        })
    }

    /// Where it listens, ports that the system chose included.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// What stops it, from any thread or signal handler.
    ///
    /// # Errors
    /// The system has no descriptor for it.
    pub fn stop_handle(&self) -> io::Result<StopHandle> {
        self.stop.handle()
    }

    /// Serves until it is stopped and every device is given back. Returns how many could not be in
    /// time.
    ///
    /// # Errors
    /// The system's, when waiting itself fails.
    pub fn run(mut self) -> io::Result<usize> {
        self.complaints.take_thread();
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        while !self.is_done() {
            let mut timeout = self.timeout();
            if timeout != Some(Duration::ZERO) && self.looks_again() {
                timeout = Some(Duration::ZERO);
            }
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            self.now = self.time();
            for event in &events {
                self.mark(event);
            }
            self.turn();
        }
        // Clients without a device were gone as soon as it was told to stop.
        Ok(self.connections.len())
    }

    /// The time of a turn: to a few milliseconds, which is what deadlines need; exact for what is.
    fn time(&self) -> Instant {
        if B::EXACT_TIME { Instant::now() } else { self.clock.now() }
    }

    /// There is nothing to do: whether to look again, rather than to sleep. Without a device nobody
    /// is in a hurry; and what one of several sessions gains, another's client may lose, if it
    /// needs this processor.
    fn looks_again(&mut self) -> bool {
        self.attached.len() == 1 && self.spin.looks_again(Instant::now)
    }

    /// Stopped, and nothing is left, or what is left took too long.
    fn is_done(&self) -> bool {
        match self.stopping {
            Some(since) => self.connections.is_empty() || self.now >= since + SHUTDOWN_TIMEOUT,
            None => false,
        }
    }

    /// How long to wait for events.
    fn timeout(&self) -> Option<Duration> {
        let accept = self.accept_ready && self.accept_paused_until.is_none();
        let strangers = accept && self.stopping.is_none() || !self.due_strangers.is_empty();
        if strangers && self.strangers_rest_until.is_none()
            || self.inbox_ready
            || !self.ready.is_empty()
        {
            return Some(Duration::ZERO);
        }
        let stop = self.stopping.map(|since| since + SHUTDOWN_TIMEOUT);
        let deadline = |key: &Key| self.connections.get(key.index as usize)?.device_deadline();
        let devices = self.attached.iter().filter_map(deadline).min();
        let rested = self.rests.peek().map(|&Reverse((until, _))| until);
        let left_out = self.complaints.deadline();
        let deadlines =
            [self.next_deadline, self.accept_paused_until, stop, devices, rested, left_out];
        let earliest = deadlines.into_iter().flatten().min();
        let earliest = earliest.map(|at| at.saturating_duration_since(self.now));
        // To the microsecond, unlike the others.
        let rest = self.strangers_rest_until.filter(|_| strangers);
        let rest = rest.map(|at| at.saturating_duration_since(Instant::now()));
        [earliest, rest].into_iter().flatten().min()
    }

    /// Notes what an event says, and does nothing yet.
    fn mark(&mut self, event: &mio::event::Event) {
        match Source::from_token(event.token()) {
            Some(Source::Listener(_)) => self.accept_ready = true,
            Some(Source::Waker) => {
                self.inbox_ready = true;
                self.spin.found();
            }
            Some(Source::Stop) => self.begin_stop(),
            Some(Source::Client(label)) => {
                let Some(connection) = labelled(&mut self.connections, label) else { return };
                // Else an event that was under way when the client was given up.
                let Some(client) = &mut connection.client else { return };
                client.socket.mark(event);
                let key = connection.key;
                // Clients without a device are no reason to stay awake.
                if connection.has_device() {
                    self.spin.found();
                }
                self.queue(key);
            }
            Some(Source::Device(label)) => {
                let Some(connection) = labelled(&mut self.connections, label) else { return };
                let key = connection.key;
                if let Some(lent) = connection.loan.as_mut().and_then(Loan::in_use) {
                    lent.mark(event);
                }
                self.spin.found();
                self.queue(key);
            }
            None => {}
        }
    }

    /// Has a connection served, unless it is paused: then its bits wait.
    fn queue(&mut self, key: Key) {
        if let Some(connection) = find(&mut self.connections, key)
            && !connection.is_paused()
            && !std::mem::replace(&mut connection.queued, true)
        {
            self.ready.push(key);
        }
    }

    /// One turn through the phases.
    fn turn(&mut self) {
        self.drain_inbox();
        self.expire();
        self.queue_due_devices();
        self.end_rests();
        self.complaints.tell_left_out(self.now);
        let mut serving = std::mem::replace(&mut self.ready, std::mem::take(&mut self.serving));
        let all = serving.len();
        serving.retain(|&key| {
            let is_session = self.has_device(key);
            if is_session {
                self.serve(key);
            }
            !is_session
        });
        let among_sessions = serving.len() < all;
        self.due_strangers.extend(serving.drain(..));
        self.serving = serving;
        if self.accept_ready || !self.due_strangers.is_empty() {
            self.serve_strangers(among_sessions);
        }
    }

    fn has_device(&self, key: Key) -> bool {
        let connection = self.connections.get(key.index as usize);
        connection.is_some_and(|connection| connection.key == key && connection.has_device())
    }

    /// Serves connections without a device and accepts more of them. While there are sessions,
    /// these have their share of the time: when it is used up the others keep their places in the
    /// queue, but one of each is always served.
    fn serve_strangers(&mut self, among_sessions: bool) {
        if self.attached.is_empty() {
            self.strangers_rest_until = None;
            return self.serve_due_strangers(None);
        }
        let begun = Instant::now();
        if self.strangers_rest_until.is_some_and(|until| begun < until) {
            return;
        }
        let time = if among_sessions { STRANGERS_TIME } else { STRANGERS_TIME_ALONE };
        self.serve_due_strangers(Some(begun + time));
        let ended = Instant::now();
        self.strangers_rest_until = Some(ended + (ended - begun) * STRANGERS_REST);
    }

    fn serve_due_strangers(&mut self, until: Option<Instant>) {
        for _ in 0..self.due_strangers.len() {
            let Some(key) = self.due_strangers.pop_front() else { break };
            self.serve(key);
            if is_past(until) {
                break;
            }
        }
        self.accept(until);
    }

    fn drain_inbox(&mut self) {
        self.inbox_ready = false;
        while let Some(done) = self.inbox.take() {
            match done {
                Done::Scanned(result) => self.handle_scanned(result),
                Done::Opened(key, result) => self.handle_opened(key, result),
                Done::Worked(key, port, result) => self.handle_worked(key, port, result),
                Done::Closed(key) => self.handle_closed(key),
            }
        }
    }

    /// Queues connections whose devices want to be looked at by now.
    fn queue_due_devices(&mut self) {
        for index in 0..self.attached.len() {
            let key = self.attached[index];
            let Some(connection) = find(&mut self.connections, key) else { continue };
            if connection.device_deadline().is_some_and(|at| at <= self.now) {
                self.queue(key);
            }
        }
    }

    /// Ends the rests that are over, of clients that send behind their answers and of devices.
    fn end_rests(&mut self) {
        while let Some(&Reverse((until, key))) = self.rests.peek()
            && until <= self.now
        {
            self.rests.pop();
            let Some(connection) = find(&mut self.connections, key) else { continue };
            if connection.loan.as_ref().is_some_and(|loan| loan.has_rested(self.now)) {
                self.free(key);
            } else if let Some(client) = &mut connection.client {
                client.paused = false;
                self.queue(key);
            }
        }
    }

    /// Does what a connection has to do, as far as one turn goes.
    fn serve(&mut self, key: Key) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        connection.queued = false;
        let result = match self.read_request(key) {
            Some(result) => result,
            None => self.exchange(key),
        };
        let connection = find(&mut self.connections, key);
        match result {
            Ok(_) if connection.is_some_and(|c| c.has_left()) => self.end(key, &End::Closed),
            Ok(true) => self.queue(key),
            Ok(false) => {}
            Err(end) => self.end(key, &end),
        }
        self.dispatch(key);
    }

    /// Reads the request of a client in its handshake; `None` for all other connections.
    fn read_request(&mut self, key: Key) -> Option<Result<bool, End>> {
        let now = self.now;
        let client = client_of(&mut self.connections, key)?;
        if !matches!(client.stage, Stage::Handshake(_)) {
            return None;
        }
        let read = client.read_request(now);
        // A client that has left is ended by the caller.
        if matches!(read, Ok(Some(_))) && !client.has_left() {
            self.request_scan(key);
        }
        Some(read.map(|_| false))
    }

    /// Moves the bytes and completions of a connection behind its handshake.
    fn exchange(&mut self, key: Key) -> Result<bool, End> {
        let Some(connection) = find(&mut self.connections, key) else { return Ok(false) };
        let mut turn = Turn {
            now: self.now,
            peer_timeout: self.settings.peer_timeout,
            alone: self.attached.len() == 1,
            discard: &mut self.discard,
        };
        let result = connection.serve(&mut turn);
        note_deadline(&mut self.next_deadline, connection.client_deadline());
        if connection.is_paused() {
            self.rests.push(Reverse((self.now + DISCARD_PAUSE, key)));
        }
        result
    }

    /// Sends a session's job to the worker, and moves on a loan that has nothing left to do.
    fn dispatch(&mut self, key: Key) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        if connection.is_finished() {
            self.end_gone(key);
        }
        let Some(connection) = find(&mut self.connections, key) else { return };
        let Some(loan) = &mut connection.loan else { return };
        if loan.dispatch() {
            self.give_back(key);
        }
    }

    /// A worker has done a job.
    fn handle_worked(&mut self, key: Key, port: PortOf<B>, result: TaskResult<PortOf<B>>) {
        let now = self.now;
        let loan = find(&mut self.connections, key).and_then(|c| c.loan.as_mut());
        if let Some(lent) = loan.and_then(Loan::in_use) {
            // Events of the device while the port was away have brought nothing.
            lent.mark_ready();
            lent.session.finish_job(port, result, now);
        }
        self.queue(key);
    }
}

impl<B: Backend> std::fmt::Debug for Reactor<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reactor").field("connections", &self.connections.len()).finish()
    }
}

/// The connection of a key, unless it is over and another has its place.
fn find<C: Candidate>(
    connections: &mut Slab<Connection<C>>,
    key: Key,
) -> Option<&mut Connection<C>> {
    connections.get_mut(key.index as usize).filter(|connection| connection.key == key)
}

/// The client of a connection, unless the client is gone.
fn client_of<C: Candidate>(connections: &mut Slab<Connection<C>>, key: Key) -> Option<&mut Client> {
    find(connections, key)?.client.as_mut()
}

/// The connection that an event is about, unless it is over and another has its place.
fn labelled<C: Candidate>(
    connections: &mut Slab<Connection<C>>,
    label: Label,
) -> Option<&mut Connection<C>> {
    connections.get_mut(label.index as usize).filter(|connection| connection.key.label() == label)
}

fn is_past(until: Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() >= until)
}

fn note_deadline(next: &mut Option<Instant>, deadline: Option<Instant>) {
    *next = [*next, deadline].into_iter().flatten().min();
}
