//! The server: a thread that waits for sockets, devices and workers, and moves bytes between them.
//!
//! Events only set bits. Then each turn goes through the same phases: the results of workers,
//! deadlines, a bounded amount for each session with something to do, and then connections without
//! a device, all together for a bounded time. Unfinished work keeps its bit, and the next turn
//! begins without a wait. The result of a worker that was quick is taken in the turn of its order,
//! and its session served a second time.
//!
//! ```text
//! poll ─► mark ─► inbox ─► deadlines ─► serve each ready session ─► deviceless, door ─► poll
//!                   ▲                       │ read, parse, submit, reap, write
//!                   └─────── workers ◄──────┘ orders: a job (cancel, perform, memory), or close
//! ```
//!
//! - `door`: new clients, and `rates` of them; `connection`: a client (`client`, `socket`) and a
//!   device (`loan`); `exchange`: a turn of both;
//! - `registry`: the exports, and who has them; `found`: a device as the last scan has found it;
//!   `offers`: the exports as a client sees them; `departures`: devices expected back; `scans`:
//!   when the bus is looked at; `answers`: the answers to handshakes; `arrivals`: clients that wait
//!   for a device to come;
//! - `audience`: who is told of what happens: clients that follow a device (`watches`), the
//!   programs that events start, also for imports that wait for a program's answer (`hooks`),
//!   operators that follow events (`observers`), a service manager (`service`), and the captures
//!   (`taps`);
//! - `holds`: orders of operators, and devices held back;
//! - `ending`: the ends of connections (`end`, with a `summary`) and of loans; `refusal`: why a
//!   request is refused;
//! - `schedule`: whose turn it is; `looks`: when a device is looked at without an event; `thrift`:
//!   when idle sessions give memory back; `spin`: whether to sleep; `trial`: whether not to sleep
//!   gains anything; `nap`: a wait of microseconds; `alarm`: how long at most; `net`, `token`:
//!   sockets, the names of events;
//! - `stop`: how other threads stop the server; `questions`: what they ask for (`status`) and order
//!   (`reload`); `error`: why a server can't be started.
//!
//! Contract: the wait for events is the only sleep on this thread, and with nothing to do the
//! thread does sleep: a bit is set only if a turn clears it. Calls that can sleep are a worker's.

mod alarm;
mod answers;
mod arrivals;
mod audience;
mod client;
mod connection;
mod departures;
mod door;
mod end;
mod ending;
mod error;
mod exchange;
mod found;
mod holds;
mod hooks;
mod loan;
mod looks;
mod nap;
mod net;
mod observers;
mod offers;
mod questions;
mod rates;
mod refusal;
mod registry;
mod reload;
mod scans;
mod schedule;
mod service;
mod socket;
mod spin;
mod status;
mod stop;
mod summary;
mod taps;
#[cfg(test)]
mod tests;
mod thrift;
mod token;
mod trial;
mod watches;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Waker};
use slab::Slab;
use usbferry_sys::os::clock::CoarseClock;
use usbferry_sys::os::thread;

use crate::complaints::Complaints;
use crate::config::Settings;
use crate::deadline::earlier;
use crate::handshake::Request;
use crate::session::JobResult;
use crate::usb::{Backend, Candidate, Port as _};
use crate::whose::{leave_thread, return_thread};
use crate::worker::{Done, Inbox};
use alarm::Alarm;
use answers::PortOf;
use audience::Audience;
use client::{Client, DISCARD_LEN, DISCARD_REST, Step};
use connection::Connection;
use door::Door;
use end::End;
pub use error::{ListenError, StartError};
use exchange::{Left, Turn};
pub use holds::{Disobeyed, Obeyed, OperatorHandle, SessionName};
use loan::Loan;
pub use net::{canonical, open_listeners, prepare as prepare_socket};
pub use observers::{Followed, Told};
pub(crate) use questions::Questions;
pub use questions::Unanswered;
use refusal::Refusal;
use registry::Registry;
pub use reload::{ReloadHandle, Reloaded};
use scans::Scans;
use schedule::{Rest, Schedule};
use spin::{Spin, Wait};
pub use status::{Answer, StatusHandle};
use stop::Stop;
pub use stop::StopHandle;
pub use taps::CaptureOrder;
pub(crate) use token::Key;
use token::{Label, Subject};

/// Events taken in a wait. Further events come with the next wait.
const EVENTS_PER_TURN: usize = 1024;

/// The server.
pub struct Reactor<B: Backend> {
    poll: Poll,
    settings: Settings,
    door: Door,
    stop: Stop,
    inbox: Inbox<B::Candidate>,
    scans: Scans,
    registry: Registry<B::Candidate>,
    connections: Slab<Connection<B::Candidate>>,
    schedule: Schedule,
    /// The discard buffer.
    discard: Box<[u8]>,
    complaints: Complaints,
    spin: Spin,
    alarm: Alarm,
    /// For a stack that does not need exact time.
    clock: Option<CoarseClock>,
    /// The time of this turn.
    now: Instant,
    /// The connection for which this thread last worked, with its device.
    named: Option<Key>,
    /// Behind the connections, whose sessions write their last records of a capture when dropped.
    audience: Audience,
}

impl<B: Backend> Reactor<B> {
    /// A server that listens, and does nothing else before [`Self::run`].
    ///
    /// # Errors
    /// An address can't be listened on, or the system has no room for a thread or a descriptor.
    pub fn new(backend: B, settings: Settings) -> Result<Self, StartError> {
        Self::with_listeners(backend, settings, Vec::new())
    }

    /// The same, on listeners whose calls do not block, if there are any, instead of the addresses
    /// of the settings.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn with_listeners(
        backend: B,
        settings: Settings,
        listeners: Vec<TcpListener>,
    ) -> Result<Self, StartError> {
        let poll = Poll::new().map_err(StartError::System)?;
        let registry = poll.registry();
        let door = Door::open(&settings, listeners, registry)?;
        let waker = Waker::new(registry, Subject::Waker.to_token()).map_err(StartError::System)?;
        let complaints = Complaints::new(Instant::now());
        let waker = Arc::new(waker);
        let inbox = Inbox::new(Arc::clone(&waker), complaints.clone());
        let clock = (!backend.needs_exact_time()).then(CoarseClock::new);
        let scans = Scans::start(backend, &inbox, registry).map_err(StartError::System)?;
        let stop = Stop::new(registry, Subject::Stop.to_token()).map_err(StartError::System)?;
        let spin = Spin::new(settings.busy_poll);
        let alarm = Alarm::new(registry).map_err(StartError::System)?;
        // Last, so that no capture's file is made for a server that does not start.
        let audience = Audience::new(&settings, waker, complaints.clone())?;
        Ok(Self {
            poll,
            settings,
            door,
            stop,
            inbox,
            scans,
            registry: Registry::default(),
            connections: Slab::new(),
            schedule: Schedule::default(),
            discard: vec![0; DISCARD_LEN].into_boxed_slice(),
            complaints,
            spin,
            alarm,
            clock,
            now: Instant::now(),
            named: None,
            audience,
        })
    }

    /// The addresses of the listeners, with ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.door.addresses()
    }

    /// A handle that stops the server, from any thread or signal handler.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn stop_handle(&self) -> io::Result<StopHandle> {
        self.stop.handle()
    }

    /// A handle by which other threads ask for the state of the server.
    #[must_use]
    pub fn status_handle(&self) -> StatusHandle {
        StatusHandle(self.inbox.questions().asker())
    }

    /// A handle by which other threads give the server other settings.
    #[must_use]
    pub fn reload_handle(&self) -> ReloadHandle {
        ReloadHandle(self.inbox.questions().asker())
    }

    /// A handle by which operators give their orders.
    #[must_use]
    pub fn operator_handle(&self) -> OperatorHandle {
        let (asker, seats) = (self.inbox.questions().asker(), self.audience.captures.seats());
        OperatorHandle { asker, seats }
    }

    /// Serves until the server is stopped and every device is given back. Returns how many devices
    /// were not given back in time.
    ///
    /// # Errors
    /// The system's, when waiting itself fails.
    pub fn run(mut self) -> io::Result<usize> {
        self.complaints.take_thread();
        thread::wake_on_time();
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        while !self.is_done() {
            let due = self.deadline();
            match self.wait_for_events(&mut events, due) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            self.now = self.time();
            for event in &events {
                self.mark(event);
            }
            self.turn(due);
        }
        self.audience.hooking.end();
        Ok(self.connections.iter().filter(|(_, connection)| connection.has_device()).count())
    }

    /// The time of a turn: to a few milliseconds, enough for deadlines; exact for a stack that
    /// needs exact time.
    fn time(&self) -> Instant {
        self.clock.as_ref().map_or_else(Instant::now, CoarseClock::now)
    }

    /// Waits until there is something to do, until a deadline at most, or looks once when there is
    /// something to do.
    fn wait_for_events(&mut self, events: &mut Events, due: Option<Instant>) -> io::Result<()> {
        let timeout = self.timeout_until(due);
        let wait = if timeout == Some(Duration::ZERO) { Wait::Look } else { self.how_to_wait() };
        let wait = if wait == Wait::Look || self.inbox.begin_sleep() { wait } else { Wait::Look };
        let waited = self.wait_by(wait, events, timeout);
        self.inbox.end_sleep();
        waited
    }

    /// Waits until there is something to do, or looks once.
    fn wait_by(
        &mut self,
        wait: Wait,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        match wait {
            Wait::Look => self.poll.poll(events, Some(Duration::ZERO)),
            Wait::Nap(nap) => {
                let nap = timeout.map_or(nap, |timeout| timeout.min(nap));
                nap::nap(&mut self.poll, events, nap)
            }
            Wait::Sleep => {
                let timeout = self.alarm.instead_of(timeout, self.now);
                self.poll.poll(events, timeout)
            }
        }
    }

    /// There is nothing to do: how to wait. Clients without a device are in no hurry. With several
    /// busy sessions, a gain for one may be a loss for the client of another, if that client needs
    /// this processor.
    fn how_to_wait(&mut self) -> Wait {
        if self.spin.is_off() {
            return Wait::Sleep;
        }
        let alone = self.schedule.alone(self.now);
        let connection = alone.and_then(|key| find(&mut self.connections, key));
        let kind = connection.and_then(|connection| connection.kind_of_wait());
        let Some(kind) = kind else {
            self.spin.forget();
            return Wait::Sleep;
        };
        self.spin.wait(kind, Instant::now)
    }

    /// The server is stopped, and nothing is left or the last devices took too long.
    fn is_done(&self) -> bool {
        let is_past = |deadline| self.connections.is_empty() || self.now >= deadline;
        self.stop.deadline().is_some_and(is_past)
    }

    /// When something is due without any event, except the end of the rest of connections without a
    /// device.
    fn deadline(&self) -> Option<Instant> {
        let others = earlier(self.complaints.deadline(), self.audience.captures.deadline());
        earlier(self.schedule.due(), others)
    }

    /// How long to wait for events, with [`Self::deadline`] at hand; an alarm may end the wait,
    /// too.
    fn timeout_until(&self, due: Option<Instant>) -> Option<Duration> {
        if self.has_chores() || self.schedule.has_ready() {
            return Some(Duration::ZERO);
        }
        let due = due.filter(|&at| !self.alarm.is_set_by(at));
        let due = due.map(|at| at.saturating_duration_since(self.now));
        if self.is_deviceless_due() { earlier(due, self.rest_of_deviceless()) } else { due }
    }

    /// How long connections without a device still rest, to the microsecond, unlike the deadlines.
    #[cold]
    fn rest_of_deviceless(&self) -> Option<Duration> {
        let rest = self.schedule.deviceless_rest();
        Some(rest.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now())))
    }

    /// Whether a connection without a device, or the door, has something to do. Both may rest.
    #[inline]
    fn is_deviceless_due(&self) -> bool {
        self.door.is_due() || self.schedule.deviceless_len() > 0
    }

    /// Notes an event as bits, and that a wait has found work; does nothing else.
    fn mark(&mut self, event: &mio::event::Event) {
        match Subject::from_token(event.token()) {
            Some(Subject::Listener(_)) => self.door.mark(),
            Some(Subject::Waker) => self.inbox.mark(),
            Some(Subject::Stop) => self.stop.mark(),
            Some(Subject::Hints) => self.scans.mark_hints(),
            Some(Subject::Alarm) => self.alarm.mark(),
            Some(Subject::Client(label)) => {
                let Some(connection) = labelled(&mut self.connections, label) else { return };
                // An event may have been under way when the client was given up.
                let Some(client) = &mut connection.client else { return };
                client.socket.mark(event);
                // Clients without a device are no reason to stay awake.
                if connection.has_device() {
                    self.spin.found(Instant::now);
                }
                self.schedule.queue(connection);
            }
            Some(Subject::Device(label)) => {
                let Some(connection) = labelled(&mut self.connections, label) else { return };
                let lent = connection.loan.as_mut().and_then(Loan::in_use);
                if lent.is_none_or(|lent| !lent.mark(event)) {
                    return;
                }
                self.spin.found(Instant::now);
                self.schedule.queue(connection);
            }
            None => {}
        }
    }

    /// Has a connection served ([`Schedule::queue`]).
    fn queue(&mut self, key: Key) {
        if let Some(connection) = find(&mut self.connections, key) {
            self.schedule.queue(connection);
        }
    }

    /// One turn through the phases, with [`Self::deadline`] as before the wait.
    fn turn(&mut self, due: Option<Instant>) {
        if due.is_some_and(|at| at <= self.now) || self.has_chores() {
            self.do_chores();
        }
        self.serve_ready();
    }

    /// Whether there is more to do than to serve connections, though nothing is due.
    #[inline]
    fn has_chores(&self) -> bool {
        let has_alarm = self.schedule.looks.has_alarm(PortOf::<B>::alarms());
        // None of these is likely, so they are all asked without a branch.
        self.inbox.is_ready() | self.stop.is_marked() | self.scans.has_chores() | has_alarm
    }

    /// Does whatever events or deadlines ask for beside serving connections: hardly ever, beside
    /// the turns of a busy session.
    #[cold]
    fn do_chores(&mut self) {
        self.begin_stop();
        if self.inbox.is_ready() {
            self.drain_inbox();
        }
        self.follow_hints();
        self.expire();
        self.queue_due_devices();
        self.end_rests();
        self.complaints.tell_left_out(self.now);
        self.schedule.renew_due();
    }

    /// Serves the connections with something to do, and tells of what has changed.
    fn serve_ready(&mut self) {
        let mut beside_sessions = self.serve_attached();
        // Where both threads have one processor, a worker mostly does its job as soon as it has it:
        // taken in the same turn, the result costs no look for events, and no chores.
        if self.inbox.has_results() {
            self.take_results();
            beside_sessions |= self.serve_attached();
        }
        if self.is_deviceless_due() {
            self.serve_deviceless(beside_sessions);
        }
        self.scans.prepare();
        self.tell_watches();
        self.report();
        self.tick_captures();
    }

    /// Serves the connections with a device and something to do, once each, and has the others wait
    /// for their share of the time. Whether there was one with a device.
    #[inline(always)]
    fn serve_attached(&mut self) -> bool {
        self.schedule.begin_turn();
        let (mut place, mut any) = (0, false);
        while let Some(key) = self.schedule.serving(place) {
            place += 1;
            if self.exchange(key, true) {
                any = true;
            } else {
                self.schedule.queue_deviceless(key);
            }
        }
        self.schedule.end_turn();
        any
    }

    /// Serves connections without a device and accepts more of them, for their share of the time.
    /// When the share is used up, the others keep their places in the queue; a connection is served
    /// and another accepted in any case.
    fn serve_deviceless(&mut self, beside_sessions: bool) {
        let Some(share) = self.schedule.begin_share(beside_sessions) else { return };
        for _ in 0..self.schedule.deviceless_len() {
            let Some(key) = self.schedule.next_deviceless() else { break };
            self.serve(key);
            if share.is_used_up() {
                break;
            }
        }
        self.accept(&share);
        self.schedule.end_share(&share);
    }

    /// Takes the results of workers, and answers a question about the server's state.
    fn drain_inbox(&mut self) {
        self.inbox.clear_mark();
        self.take_results();
        self.take_authorizations();
        if self.answer_question() {
            // There may be another question.
            self.inbox.mark();
        }
    }

    /// Takes the results of workers. Apart from its callers, as [`Self::end`].
    #[inline(never)]
    fn take_results(&mut self) {
        self.spin.found(Instant::now);
        while let Some(done) = self.inbox.take() {
            match done {
                Done::Scanned(result) => self.handle_scanned(result),
                Done::Opened(key, result) => self.handle_opened(key, result),
                Done::Worked(key, port, result) => self.handle_worked(key, port, result),
                Done::Closed(key) => self.handle_closed(key),
                Done::Died(key) => self.handle_died(key),
            }
        }
    }

    /// Queues connections whose devices have a deadline by now.
    fn queue_due_devices(&mut self) {
        self.hear_alarms();
        while let Some(key) = self.schedule.looks.take_due(self.now) {
            let Some(connection) = find(&mut self.connections, key) else { continue };
            let Some(lent) = connection.loan.as_mut().and_then(Loan::in_use) else { continue };
            lent.noted = None;
            if lent.deadline().is_some_and(|at| at <= self.now) {
                lent.mark_ready();
                self.schedule.queue(connection);
            } else {
                self.schedule.note_device(key, lent);
            }
        }
    }

    /// After an alarm all devices are asked for their deadlines.
    fn hear_alarms(&mut self) {
        if !self.schedule.looks.hear(PortOf::<B>::alarms()) {
            return;
        }
        for index in 0..self.schedule.attached().len() {
            let key = self.schedule.attached()[index];
            let loan = find(&mut self.connections, key).and_then(|c| c.loan.as_mut());
            if let Some(lent) = loan.and_then(Loan::in_use) {
                self.schedule.note_device(key, lent);
            }
        }
    }

    /// Ends the rests that are over.
    fn end_rests(&mut self) {
        while let Some(rest) = self.schedule.end_rest(self.now) {
            match rest {
                Rest::Connection(key) => self.end_rest_of(key),
                Rest::Door => self.door.end_rest(),
                Rest::Hints => self.end_hint_rest(),
                Rest::Arrivals => self.end_arrival_rest(),
                Rest::Thrift => self.look_for_thrift(),
            }
        }
    }

    /// Ends the rest of a connection's device, or else the rest of its client.
    fn end_rest_of(&mut self, key: Key) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        let rested = connection.loan.as_ref().filter(|loan| loan.has_rested(self.now));
        if let Some(busid) = rested.map(|loan| loan.busid) {
            self.free(key, busid);
        } else if let Some(client) = &mut connection.client {
            client.rests = false;
            self.schedule.queue(connection);
        }
    }

    /// Serves a connection, as far as a turn goes.
    fn serve(&mut self, key: Key) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        connection.queued = false;
        let result = match connection.client.as_ref().map(|client| &client.step) {
            Some(Step::Handshake(_)) => self.read_request(key),
            Some(Step::Watching(_)) => self.serve_watch(key),
            _ => {
                self.exchange(key, false);
                return;
            }
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

    /// Reads the request of a client in its handshake. Apart from [`Self::serve`], as
    /// [`Self::end`].
    #[inline(never)]
    fn read_request(&mut self, key: Key) -> Result<bool, End> {
        let now = self.now;
        let Some(client) = client_of(&mut self.connections, key) else { return Ok(false) };
        let request = client.read_request(now)?;
        match request {
            Some(Request::Watch | Request::Import(_)) if self.stop.deadline().is_some() => {
                self.refuse(key, &Refusal::Stopping);
            }
            Some(Request::Watch) => self.begin_watch(key),
            // A client that has left is ended by the caller.
            Some(_) if !client.has_left() => self.request(key),
            _ => {}
        }
        Ok(false)
    }

    /// Moves the bytes and completions of a connection behind its handshake, if there is the
    /// connection, or `only_attached`, if its client has a device.
    fn exchange(&mut self, key: Key, only_attached: bool) -> bool {
        let Some(connection) = find(&mut self.connections, key) else { return false };
        if only_attached && !connection.has_device() {
            return false;
        }
        connection.queued = false;
        let mut turn = Turn {
            now: self.now,
            peer_timeout: self.settings.peer_timeout,
            alone: connection.has_device() && self.schedule.note_served(key, self.now),
            discard: &mut self.discard,
        };
        // Mostly the same connection as before.
        if self.named == Some(key) && connection.has_device() {
            return_thread();
        } else if let Some(whose) = connection.whose() {
            whose.take_thread();
            self.named = Some(key);
        }
        let result = connection.serve(&mut turn);
        leave_thread();
        self.schedule.rest_thrift(self.now, self.settings.idle_after);
        if !matches!(result, Ok(Left::Nothing)) {
            self.care(key, result);
        }
        true
    }

    /// Looks after a connection whose turn leaves more to do than to wait for events.
    #[inline(never)]
    fn care(&mut self, key: Key, result: Result<Left, End>) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        self.schedule.note_deadline(connection.client_deadline());
        if connection.client_rests() {
            self.schedule.rest(self.now + DISCARD_REST, Rest::Connection(key));
        }
        match result {
            Ok(_) if connection.has_left() => self.end(key, &End::Closed),
            Ok(Left::More) => self.schedule.queue(connection),
            Ok(_) => {}
            Err(end) => self.end(key, &end),
        }
        self.dispatch(key);
    }

    /// Ends the connection of a client that was told everything of a device that is gone. Sends a
    /// session's job to the worker, or gives a drained device back. Notes when the device must be
    /// looked at next.
    fn dispatch(&mut self, key: Key) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        if connection.is_all_answered() {
            self.end_gone(key);
        }
        let Some(connection) = find(&mut self.connections, key) else { return };
        let Some(loan) = &mut connection.loan else { return };
        if loan.dispatch() {
            self.give_back(key);
        } else if let Some(lent) = loan.in_use() {
            self.schedule.note_device(key, lent);
        }
    }

    /// Takes a port back from a worker that has done a job.
    fn handle_worked(&mut self, key: Key, port: Box<PortOf<B>>, result: JobResult<PortOf<B>>) {
        let now = self.now;
        let connection = find(&mut self.connections, key);
        if let Some(whose) = connection.as_ref().and_then(|connection| connection.whose()) {
            whose.take_thread();
            self.named = Some(key);
        }
        if let Some(lent) = connection.and_then(|c| c.loan.as_mut()).and_then(Loan::in_use) {
            lent.mark_returned();
            lent.session.take_back(port, result, now);
            if lent.session.take_reset() {
                self.audience.hooking.note_reset(key);
                self.observe_reset(key);
            }
        }
        leave_thread();
        self.queue(key);
    }
}

impl<B: Backend> std::fmt::Debug for Reactor<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reactor").field("connections", &self.connections.len()).finish()
    }
}

/// The connection of a key, unless the connection is over.
fn find<C: Candidate>(
    connections: &mut Slab<Connection<C>>,
    key: Key,
) -> Option<&mut Connection<C>> {
    // The place of a connection is its index.
    let connection = connections.get_mut(key.index as usize);
    connection.filter(|connection| connection.key.generation == key.generation)
}

/// The client of a connection, unless the client has left.
fn client_of<C: Candidate>(connections: &mut Slab<Connection<C>>, key: Key) -> Option<&mut Client> {
    find(connections, key)?.client.as_mut()
}

/// The connection of an event, unless the connection is over.
fn labelled<C: Candidate>(
    connections: &mut Slab<Connection<C>>,
    label: Label,
) -> Option<&mut Connection<C>> {
    connections.get_mut(label.index as usize).filter(|connection| connection.key.label() == label)
}
