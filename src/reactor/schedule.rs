//! Whose turn it is, and until when everybody else waits.
//!
//! Connections with a device come first in each turn, for a bounded amount each. Connections
//! without a device follow, all of them together for a bounded time while there are sessions, so
//! that a flood of idle clients costs the sessions little.
//!
//! Seven rests: the first six keep abuse cheap. Five have an instant here and a reason elsewhere,
//! to the accuracy of a turn: a client that sends behind its answer
//! ([`DISCARD_REST`](super::client)), a device after a violation
//! ([`VIOLATION_REST`](crate::limits::VIOLATION_REST)), accepting when there is no descriptor left
//! ([`ACCEPT_REST`](super::door)), scans that nobody waits for ([`HINT_REST`](super::scans)), and
//! scans for arrivals without hints ([`ARRIVAL_REST`](super::scans)). The sixth, of connections
//! without a device, lasts microseconds and is measured by the clock itself. The seventh is the
//! time until the next look for memory that idle sessions may give back ([`super::thrift`]).
//!
//! Contract: plain state of the reactor; lists keep their memory.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::loan::Lent;
use super::looks::{Looks, Sole};
use super::token::Key;
use crate::deadline::earlier;
use crate::usb::{Candidate, Port};

/// Time of a turn for all connections without a device together, when sessions have something to
/// do in the turn.
const DEVICELESS_TIME: Duration = Duration::from_micros(20);

/// Their time when all sessions are idle in the turn: the sessions' next bytes may come meanwhile.
const DEVICELESS_TIME_ALONE: Duration = Duration::from_micros(250);

/// Connections without a device rest this many times as long as they were served, so a flood of
/// clients gets a quarter of a processor. A single client is served in no time and hardly waits.
const DEVICELESS_REST: u32 = 3;

/// Whose turn it is.
#[derive(Default)]
pub(super) struct Schedule {
    /// Connections with something to do.
    ready: Vec<Key>,
    /// Connections that are served in this turn; empty between turns.
    serving: Vec<Key>,
    /// Connections whose device has a session. Few beside all connections.
    attached: Vec<Key>,
    /// Which session has the reactor alone.
    sole: Sole,
    /// When devices must be looked at.
    pub(super) looks: Looks,
    /// Connections without a device that have something to do.
    deviceless: VecDeque<Key>,
    /// Until when connections without a device rest.
    deviceless_rest: Option<Instant>,
    /// Other rests, and when they end.
    rests: BinaryHeap<Reverse<(Instant, Rest)>>,
    /// There is a [`Rest::Thrift`].
    has_thrift_rest: bool,
    /// The earliest deadline of any client, or an earlier instant.
    next_deadline: Option<Instant>,
    /// The earliest instant of all the above but the rest of connections without a device, or an
    /// earlier instant. Every method that adds an instant keeps this, so that no turn asks for all.
    due: Option<Instant>,
}

/// A part of the server at rest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Rest {
    /// A connection: its client or its device.
    Connection(Key),
    /// Accepting clients.
    Door,
    /// Scans that only hints ask for.
    Hints,
    /// Scans for clients that wait for a device to arrive, where there are no hints.
    Arrivals,
    /// Memory of idle sessions.
    Thrift,
}

/// The time that connections without a device have in a turn.
pub(super) enum TimeShare {
    /// There is no session: unlimited.
    Whole,
    /// From an instant until another.
    Part(Instant, Instant),
}

impl TimeShare {
    /// Whether the time is used up.
    pub(super) fn is_used_up(&self) -> bool {
        match self {
            Self::Whole => false,
            Self::Part(_, until) => Instant::now() >= *until,
        }
    }
}

impl Schedule {
    /// Has a connection served, unless its client rests: then its bits wait.
    pub(super) fn queue<C: Candidate>(&mut self, connection: &mut Connection<C>) {
        if !connection.client_rests() && !std::mem::replace(&mut connection.queued, true) {
            self.ready.push(connection.key);
        }
    }

    /// Begins a turn with the connections that have something to do.
    pub(super) const fn begin_turn(&mut self) {
        std::mem::swap(&mut self.ready, &mut self.serving);
    }

    /// The connection of this turn in a place.
    pub(super) fn serving(&self, place: usize) -> Option<Key> {
        self.serving.get(place).copied()
    }

    /// Has a connection without a device wait for its share of the time.
    pub(super) fn queue_deviceless(&mut self, key: Key) {
        self.deviceless.push_back(key);
    }

    /// Every connection of this turn was served, or waits.
    pub(super) fn end_turn(&mut self) {
        self.serving.clear();
    }

    /// How many connections without a device have something to do.
    pub(super) fn deviceless_len(&self) -> usize {
        self.deviceless.len()
    }

    /// The connection without a device whose turn it is.
    pub(super) fn next_deviceless(&mut self) -> Option<Key> {
        self.deviceless.pop_front()
    }

    /// Begins the time for connections without a device; `None` while they rest. `beside_sessions`:
    /// sessions have something to do in this turn.
    pub(super) fn begin_share(&mut self, beside_sessions: bool) -> Option<TimeShare> {
        if self.attached.is_empty() {
            self.deviceless_rest = None;
            return Some(TimeShare::Whole);
        }
        let now = Instant::now();
        if self.deviceless_rest.is_some_and(|until| now < until) {
            return None;
        }
        let time = if beside_sessions { DEVICELESS_TIME } else { DEVICELESS_TIME_ALONE };
        Some(TimeShare::Part(now, now + time))
    }

    /// Ends the time for connections without a device: they rest.
    pub(super) fn end_share(&mut self, share: &TimeShare) {
        if let TimeShare::Part(begun, _) = *share {
            let now = Instant::now();
            self.deviceless_rest = Some(now + (now - begun) * DEVICELESS_REST);
        }
    }

    /// Notes that a connection's device has a session.
    pub(super) fn attach(&mut self, key: Key) {
        self.attached.push(key);
        self.looks.provide(self.attached.len());
    }

    /// Notes that a connection's device has no session any more.
    pub(super) fn detach(&mut self, key: Key) {
        self.attached.retain(|&attached| attached != key);
        self.looks.forget(key);
    }

    /// Connections whose device has a session.
    pub(super) fn attached(&self) -> &[Key] {
        &self.attached
    }

    /// Notes that a session is served. Whether it has the reactor to itself: no other session is
    /// attached, or was served for a while.
    #[inline]
    pub(super) fn note_served(&mut self, key: Key, now: Instant) -> bool {
        self.sole.note_served(key, now);
        self.alone(now).is_some()
    }

    /// The session that has the reactor to itself, if one has.
    #[inline]
    pub(super) fn alone(&self, now: Instant) -> Option<Key> {
        match self.attached[..] {
            [] => None,
            [key] => Some(key),
            _ => self.sole.alone(now),
        }
    }

    /// Notes when a device must be looked at, if not sooner.
    #[inline]
    pub(super) fn note_device<P: Port>(&mut self, key: Key, lent: &mut Lent<P>) {
        let Some(at) = lent.deadline() else { return };
        if lent.noted.is_none_or(|noted| at < noted) {
            lent.noted = Some(at);
            self.looks.note(key, at);
            self.note_due(at);
        }
    }

    /// Notes a deadline: a client's, or the server's own.
    #[inline]
    pub(super) fn note_deadline(&mut self, deadline: Option<Instant>) {
        let Some(at) = deadline else { return };
        self.next_deadline = earlier(self.next_deadline, deadline);
        self.note_due(at);
    }

    /// Notes an instant at which something is due.
    fn note_due(&mut self, at: Instant) {
        self.due = earlier(self.due, Some(at));
    }

    /// Forgets what was due: all that is still to come is looked through.
    pub(super) fn renew_due(&mut self) {
        self.due = self.earliest();
    }

    /// The earliest instant at which something is due.
    pub(super) fn earliest(&self) -> Option<Instant> {
        let rest = self.rests.peek().map(|&Reverse((until, _))| until);
        earlier(earlier(self.next_deadline, rest), self.looks.next())
    }

    /// Whether a connection stands in a list of those to serve.
    #[cfg(test)]
    pub(super) fn is_listed(&self, key: Key) -> bool {
        self.ready.contains(&key) || self.deviceless.contains(&key)
    }

    /// Whether a deadline may have come. Then all deadlines are forgotten, to be noted anew.
    pub(super) fn take_deadline(&mut self, now: Instant) -> bool {
        self.next_deadline.take_if(|at| *at <= now).is_some()
    }

    /// Has memory of idle sessions looked for at `now + after`, unless there will be a look anyway.
    #[inline]
    pub(super) fn rest_thrift(&mut self, now: Instant, after: Duration) {
        if !self.has_thrift_rest {
            self.has_thrift_rest = true;
            self.rest(now + after, Rest::Thrift);
        }
    }

    /// Whether a look is due at some time.
    #[cfg(test)]
    pub(super) const fn has_thrift_rest(&self) -> bool {
        self.has_thrift_rest
    }

    /// Notes that the look has begun.
    pub(super) const fn end_thrift_rest(&mut self) {
        self.has_thrift_rest = false;
    }

    /// Begins a rest.
    pub(super) fn rest(&mut self, until: Instant, rest: Rest) {
        self.rests.push(Reverse((until, rest)));
        self.note_due(until);
    }

    /// Removes a rest that is over, and returns its subject.
    pub(super) fn end_rest(&mut self, now: Instant) -> Option<Rest> {
        let &Reverse((until, rest)) = self.rests.peek()?;
        (until <= now).then(|| {
            self.rests.pop();
            rest
        })
    }

    /// Whether connections have something to do, of those that do not wait for their share of the
    /// time.
    pub(super) const fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When a deadline of a client or a device may come, or a rest ends, except the rest of
    /// connections without a device.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Until when connections without a device rest, to the microsecond.
    pub(super) const fn deviceless_rest(&self) -> Option<Instant> {
        self.deviceless_rest
    }

    /// Has connections without a device rest until an instant.
    #[cfg(test)]
    pub(super) const fn set_deviceless_rest(&mut self, until: Instant) {
        self.deviceless_rest = Some(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_end_in_the_order_of_their_instants() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let key = |index| Rest::Connection(Key { index, generation: 0 });
        let mut schedule = Schedule::default();
        for (millis, rest) in [(100, Rest::Door), (10, key(1)), (20, key(2)), (10, key(3))] {
            schedule.rest(at(millis), rest);
        }
        assert_eq!(schedule.due(), Some(at(10)));
        assert_eq!(schedule.end_rest(at(9)), None);
        let ended: Vec<Rest> = std::iter::from_fn(|| schedule.end_rest(at(20))).collect();
        assert_eq!(ended, [key(1), key(3), key(2)]);
        schedule.renew_due();
        assert_eq!((schedule.due(), schedule.end_rest(at(99))), (Some(at(100)), None));
        assert_eq!(schedule.end_rest(at(100)), Some(Rest::Door));
        schedule.renew_due();
        assert_eq!(schedule.due(), None);
    }

    #[test]
    fn a_deadline_that_has_come_is_forgotten_and_a_later_one_is_not() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut schedule = Schedule::default();
        schedule.note_deadline(Some(later));
        assert!(!schedule.take_deadline(now));
        schedule.note_deadline(Some(now));
        schedule.note_deadline(None);
        assert_eq!(schedule.due(), Some(now));
        assert!(schedule.take_deadline(now));
        schedule.renew_due();
        assert_eq!(schedule.due(), None);
    }
}
