//! A device with a client: from the moment a worker begins to open the device until another client
//! can have it.
//!
//! | state | the device | the client | left by |
//! | --- | --- | --- | --- |
//! | `Opening` | a worker opens it | waits (`Awaited::Opening`) | the worker's result; the client leaves or is told ST_NA |
//! | `Abandoned` | a worker still opens it, for nobody | has left, or told ST_NA | the worker's result |
//! | `Lent` | the session submits to it | served | the client goes, the device goes, the server stops |
//! | `Draining` | the session cancels and collects all that is in flight | has left, or told of the end | the last transfer |
//! | `Returning` | the worker gives it back to the system | has left, or told | the worker's result |
//! | `Resting` | the system's; nobody may import it yet | has left | a deadline of the reactor |
//!
//! The death of the worker's thread ends a loan in any state.
//!
//! A connection without a loan has no device: the device is *free* when no connection has a loan of
//! it. All states but `Opening` and `Lent` are *ending*: no client can use the device any more, and
//! contenders may wait for it ([`Loan::is_ending`], [`Loan::may_be_awaited`]). A device rests after
//! its client broke the protocol: to open and close a device costs more than all else that a client
//! can ask for, and an abuser comes again at once.
//!
//! Contract: runs on the reactor, never blocks; a state changes only here.

use std::io;
use std::os::fd::RawFd;
use std::time::{Instant, SystemTime};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::summary::Summary;
use crate::config::rules::Verdict;
use crate::deadline::earlier;
use crate::limits::{DeviceLimits, GONE_INPUT_TIMEOUT, GONE_TIMEOUT, VIOLATION_REST};
use crate::session::{Remains, Session};
use crate::status::LoanState;
use crate::usb::{Candidate, EventSource, Port};
use crate::wire::op::UsbDevice;
use crate::wire::types::BusId;
use crate::worker::Worker;

/// A device with a client.
pub(super) struct Loan<C: Candidate> {
    /// The device.
    pub(super) busid: BusId,
    /// The device in the log: its busid, behind its name if it has one.
    pub(super) title: String,
    /// The resources of the session, which a later change of the rules leaves as they are.
    pub(super) limits: DeviceLimits,
    /// The thread of the device.
    pub(super) worker: Worker<C>,
    state: State<C::Port>,
}

/// How far a loan is.
enum State<P: Port> {
    /// A worker opens the device; the client is then told this description.
    Opening(Box<UsbDevice>),
    /// A worker opens the device in vain: the client has left, or was told that it does not get the
    /// device, which is given back as soon as it is open. Contenders may hope until the instant.
    Abandoned(Instant),
    /// The client has the device.
    Lent(Box<Lent<P>>),
    /// The client no longer has the device, which still has transfers of the client.
    Draining(Box<Lent<P>>, Afterwards),
    /// The worker gives the device back.
    Returning(Afterwards),
    /// The device is back, and nobody may import it before the instant.
    Resting(Instant),
}

/// What becomes of a device once it is given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Afterwards {
    /// The next client can have it.
    Free,
    /// It rests for [`VIOLATION_REST`]: the client broke the protocol.
    Rest,
}

/// A device in use by a session.
pub(super) struct Lent<P: Port> {
    pub(super) session: Session<P>,
    /// The device's descriptors that are registered.
    fds: Vec<RawFd>,
    /// The device may have something to collect.
    ready: bool,
    /// Something else than the end of a transfer may have happened since the port was told.
    looks_everywhere: bool,
    /// A descriptor says that the device was hung up.
    hung_up: bool,
    /// When the client got the device.
    since: Instant,
    /// The same by the system's clock.
    since_clock: SystemTime,
    /// When the reactor noticed that the device is gone.
    gone_since: Option<Instant>,
    /// The instant at which the reactor looks at the device anyway, if not sooner.
    pub(super) noted: Option<Instant>,
}

impl<C: Candidate> Loan<C> {
    /// A loan whose worker has begun to open the device.
    pub(super) fn opening(device: UsbDevice, verdict: &Verdict, worker: Worker<C>) -> Self {
        let busid = device.busid;
        let title = match verdict.name() {
            Some(name) => format!("{name} ({busid})"),
            None => busid.to_string(),
        };
        let limits = verdict.policy.limits;
        Self { busid, title, limits, worker, state: State::Opening(Box::new(device)) }
    }

    /// Whether no client can use the device any more: it is on its way out.
    pub(super) const fn is_ending(&self) -> bool {
        match self.state {
            State::Opening(_) | State::Lent(_) => false,
            State::Abandoned(_) | State::Draining(..) | State::Returning(_) | State::Resting(_) => {
                true
            }
        }
    }

    /// Whether a contender may wait for the device at `now`: it is on its way out, and nothing says
    /// that it takes too long.
    pub(super) fn may_be_awaited(&self, now: Instant) -> bool {
        match self.state {
            State::Abandoned(until) => now < until,
            _ => self.is_ending(),
        }
    }

    /// Whether the worker opens the device for the client.
    pub(super) const fn is_opening(&self) -> bool {
        matches!(self.state, State::Opening(_))
    }

    /// The description of the device that is being opened for the client.
    pub(super) fn promised(&self) -> Option<&UsbDevice> {
        match &self.state {
            State::Opening(device) => Some(device),
            _ => None,
        }
    }

    /// The device in the client's hands.
    pub(super) fn lent(&mut self) -> Option<&mut Lent<C::Port>> {
        match &mut self.state {
            State::Lent(lent) => Some(lent),
            _ => None,
        }
    }

    /// The device with a session, whether or not the client still has it.
    pub(super) fn in_use(&mut self) -> Option<&mut Lent<C::Port>> {
        match &mut self.state {
            State::Lent(lent) | State::Draining(lent, _) => Some(lent),
            _ => None,
        }
    }

    /// The session, and when the client got the device, by the system's clock.
    pub(super) fn session(&self) -> Option<(&Session<C::Port>, SystemTime)> {
        match &self.state {
            State::Lent(lent) | State::Draining(lent, _) => Some((&lent.session, lent.since_clock)),
            _ => None,
        }
    }

    /// The work of the client's session, as long as the client has the device.
    pub(super) fn summary(&self, now: Instant) -> Option<Summary> {
        let State::Lent(lent) = &self.state else { return None };
        let lasted = now.saturating_duration_since(lent.since);
        Some(Summary::new(lasted, lent.session.stats()))
    }

    /// How far the loan is, in the words of a status.
    pub(super) const fn state(&self) -> LoanState {
        match self.state {
            State::Opening(_) | State::Abandoned(_) => LoanState::Opening,
            State::Lent(_) => LoanState::Lent,
            State::Draining(..) | State::Returning(_) => LoanState::Returning,
            State::Resting(_) => LoanState::Resting,
        }
    }

    /// When the device must be looked at even without an event, and when it is at the latest.
    #[cfg(test)]
    pub(super) fn looks(&self) -> [Option<Instant>; 2] {
        match &self.state {
            State::Lent(lent) | State::Draining(lent, _) => [lent.deadline(), lent.noted],
            _ => [None; 2],
        }
    }

    /// Collects completions while the loan drains. True when there is more to collect at once.
    pub(super) fn collect(&mut self, now: Instant) -> bool {
        let State::Draining(lent, _) = &mut self.state else { return false };
        lent.reap(now);
        lent.ready
    }

    /// Hands a job of the session to the worker, if there is one. True when nothing is left to do
    /// but to give the device back.
    pub(super) fn dispatch(&mut self) -> bool {
        let (State::Lent(lent) | State::Draining(lent, _)) = &mut self.state else { return false };
        match lent.session.take_job() {
            Some(job) => {
                self.worker.work(job);
                false
            }
            None => lent.session.is_drained(),
        }
    }

    /// From `Opening` to `Abandoned`: nobody waits for the device any more; contenders may hope for
    /// it until the instant.
    pub(super) fn abandon(self, until: Instant) -> Self {
        let state = match self.state {
            State::Opening(_) => State::Abandoned(until),
            state => state,
        };
        Self { state, ..self }
    }

    /// From `Opening` to `Lent`: the client has the device, whose descriptors are watched.
    pub(super) fn lend(self, session: Session<C::Port>, fds: Vec<RawFd>, now: Instant) -> Self {
        debug_assert!(self.is_opening(), "a device is opened for a client");
        let (ready, looks_everywhere, hung_up) = (false, true, false);
        let (since, since_clock) = (now, SystemTime::now());
        let (gone_since, noted) = (None, None);
        let lent = Lent {
            session,
            fds,
            ready,
            looks_everywhere,
            hung_up,
            since,
            since_clock,
            gone_since,
            noted,
        };
        Self { state: State::Lent(Box::new(lent)), ..self }
    }

    /// From `Lent` to `Draining`: the client no longer has the device, and everything in flight is
    /// cancelled.
    pub(super) fn drain(self, afterwards: Afterwards) -> Self {
        let state = match self.state {
            State::Lent(mut lent) => {
                lent.session.close_input();
                lent.session.begin_teardown();
                State::Draining(lent, afterwards)
            }
            state => state,
        };
        Self { state, ..self }
    }

    /// From `Opening` or `Abandoned` to `Returning`: the device is open, and nobody gets it.
    pub(super) fn return_opened(self, remains: Remains<C::Port>) -> Self {
        self.worker.close(remains);
        Self { state: State::Returning(Afterwards::Free), ..self }
    }

    /// From `Draining` to `Returning`: nothing is in flight any more.
    pub(super) fn return_drained(self, registry: &Registry) -> Self {
        let state = match self.state {
            State::Draining(lent, afterwards) => {
                unwatch(registry, &lent.fds);
                if let Some(remains) = lent.session.into_remains() {
                    self.worker.close(remains);
                }
                State::Returning(afterwards)
            }
            state => state,
        };
        Self { state, ..self }
    }

    /// The worker has given the device back, at `now`: the worker when the device is free, else
    /// the loan of a device that rests, and until when.
    #[allow(clippy::result_large_err, reason = "either moves once for a loan")]
    pub(super) fn returned(self, now: Instant) -> Result<Worker<C>, (Self, Instant)> {
        match self.state {
            State::Returning(Afterwards::Rest) => {
                let until = now + VIOLATION_REST;
                Err((Self { state: State::Resting(until), ..self }, until))
            }
            _ => Ok(self.worker),
        }
    }

    /// Ends the loan, whatever its state: the worker has died with the port. Transfers in flight
    /// stay the system's for good.
    pub(super) fn give_up(self, registry: &Registry) {
        if let State::Lent(lent) | State::Draining(lent, _) = self.state {
            unwatch(registry, &lent.fds);
        }
    }

    /// Whether the device has rested for long enough at `now`.
    pub(super) fn has_rested(&self, now: Instant) -> bool {
        matches!(self.state, State::Resting(until) if until <= now)
    }
}

impl<P: Port> Lent<P> {
    /// Notes what an event says about the device, for the next [`Self::reap`]. False if the event
    /// says nothing: usbfs, whose descriptor becomes writable, tells of an ended transfer, and all
    /// were collected since, or the port is away and will be looked at when it comes back.
    pub(super) fn mark(&mut self, event: &Event) -> bool {
        let hung_up = event.is_error() || event.is_read_closed() || event.is_write_closed();
        self.hung_up |= hung_up;
        let is_of_transfers = event.is_writable() && !event.is_readable() && !hung_up;
        let marks = !is_of_transfers || self.session.awaits_device();
        self.ready |= marks;
        self.looks_everywhere |= !is_of_transfers;
        marks
    }

    /// Notes that the device may have something to collect, or that its deadline has come.
    pub(super) const fn mark_ready(&mut self) {
        (self.ready, self.looks_everywhere) = (true, true);
    }

    /// Notes that the port is back from the worker: URBs that ended meanwhile were not collected.
    /// All else has had its events, which were noted.
    pub(super) const fn mark_returned(&mut self) {
        self.ready = true;
    }

    /// Whether the device may have something to collect.
    pub(super) const fn is_ready(&self) -> bool {
        self.ready
    }

    /// Collects what has ended, if anything may have, or a deadline of the session has come
    /// ([`Self::mark_ready`]).
    #[inline]
    pub(super) fn reap(&mut self, now: Instant) {
        if std::mem::take(&mut self.hung_up) {
            self.session.handle_hangup(now);
        }
        if self.ready {
            if self.looks_everywhere {
                self.looks_everywhere = !self.session.look_everywhere();
            }
            self.ready = self.session.reap(now);
        }
    }

    /// Collects what has ended, also of the URBs just submitted, if the device is known for that.
    pub(super) fn reap_behind_input(&mut self, now: Instant) {
        self.reap(now);
        if !self.ready {
            self.ready = self.session.reap_new(now);
        }
    }

    /// When the device must be looked at even without an event.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let gone = self.gone_since.filter(|_| !self.session.is_input_closed());
        let input_end = gone.map(|since| since + GONE_INPUT_TIMEOUT);
        earlier(self.session.next_deadline(), input_end)
    }

    /// When the client of a gone device must have its last replies: the URBs under way are still
    /// answered for a short while. Closes the input when the time for input is over.
    pub(super) fn gone_deadline(&mut self, now: Instant) -> Instant {
        let since = *self.gone_since.get_or_insert(now);
        if now >= since + GONE_INPUT_TIMEOUT {
            self.session.close_input();
        }
        since + GONE_TIMEOUT
    }
}

/// Has the system tell of a device's events under `token`, and returns the descriptors.
///
/// # Errors
/// The system's; then nothing is watched.
pub(super) fn watch(
    registry: &Registry,
    sources: Vec<EventSource>,
    token: Token,
) -> io::Result<Vec<RawFd>> {
    let mut fds = Vec::with_capacity(sources.len());
    for source in sources {
        let interest = match (source.readable, source.writable) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (false, true) => Interest::WRITABLE,
            _ => Interest::READABLE,
        };
        if let Err(error) = registry.register(&mut SourceFd(&source.fd), token, interest) {
            unwatch(registry, &fds);
            return Err(error);
        }
        fds.push(source.fd);
    }
    Ok(fds)
}

/// Has the system tell no more of descriptors, which are about to be closed.
fn unwatch(registry: &Registry, fds: &[RawFd]) {
    for fd in fds {
        let _ = registry.deregister(&mut SourceFd(fd));
    }
}
