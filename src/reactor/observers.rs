//! Operators that follow the events of the server.
//!
//! Each follower has a queue. A queue that is full takes no further event, and its follower is told
//! how many events are missing.
//!
//! Contract: part of the reactor, so nothing here sleeps; an event costs nothing while nobody
//! follows. [`Followed`] may be used by any thread, and blocks its caller only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, TryRecvError, TrySendError};
use std::time::{Duration, SystemTime};

use super::found::Change;
use super::registry::{Export, Registry};
use super::token::Key;
use super::{Reactor, find};
use crate::channel::{Receiver, Sender, channel};
use crate::config::name::Nickname;
use crate::limits::{EVENTS_WAITING_MAX, FOLLOWERS_MAX};
use crate::status::event::{Event, EventKind, Work};
use crate::usb::{Backend, Candidate};
use crate::wire::types::BusId;

/// The followers.
#[derive(Default)]
pub(super) struct Observers(Vec<Observer>);

struct Observer {
    sender: Sender<Event>,
    /// Events that found no room since the follower has asked. Shared with the follower alone.
    missed: Arc<AtomicU64>,
}

/// The events of a server for one follower.
#[derive(Debug)]
pub struct Followed {
    receiver: Receiver<Event>,
    missed: Arc<AtomicU64>,
}

/// What a follower is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// An event.
    Event(Event),
    /// This number of events found no room in the queue.
    Missed(u64),
    /// Nothing has happened for a while.
    Nothing,
    /// The server has ended.
    End,
}

impl Followed {
    /// The next event. *Blocks* for a time at most.
    #[must_use]
    pub fn next(&self, time: Duration) -> Told {
        match self.receiver.try_recv() {
            Ok(event) => return Told::Event(event),
            Err(TryRecvError::Disconnected) => return self.end(),
            Err(TryRecvError::Empty) => {}
        }
        match self.missed.swap(0, Ordering::Relaxed) {
            0 => {}
            missed => return Told::Missed(missed),
        }
        match self.receiver.recv_timeout(time) {
            Ok(event) => Told::Event(event),
            Err(RecvTimeoutError::Timeout) => Told::Nothing,
            Err(RecvTimeoutError::Disconnected) => self.end(),
        }
    }

    fn end(&self) -> Told {
        match self.missed.swap(0, Ordering::Relaxed) {
            0 => Told::End,
            missed => Told::Missed(missed),
        }
    }
}

impl Observers {
    /// One more follower; `None` when there are as many as may be.
    pub(super) fn add(&mut self) -> Option<Followed> {
        self.0.retain(|observer| Arc::strong_count(&observer.missed) > 1);
        if self.0.len() >= FOLLOWERS_MAX {
            return None;
        }
        let (sender, receiver) = channel(EVENTS_WAITING_MAX);
        let missed = Arc::new(AtomicU64::new(0));
        self.0.push(Observer { sender, missed: Arc::clone(&missed) });
        Some(Followed { receiver, missed })
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn tell(&mut self, event: &Event) {
        self.0.retain(|observer| match observer.sender.try_send(event.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                observer.missed.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        });
    }
}

/// The words for the device of an event.
#[derive(Default)]
struct Facts {
    name: Option<Nickname>,
    ids: Option<(u16, u16)>,
    serial: Option<String>,
}

impl<C: Candidate> Registry<C> {
    /// The name that the rules give the device in a place.
    pub(super) fn nickname(&self, busid: BusId) -> Option<Nickname> {
        self.find(busid)?.found.as_ref()?.verdict.name()
    }
}

impl<C: Candidate> Export<C> {
    fn facts(&self) -> Facts {
        let Some(found) = &self.found else { return Facts::default() };
        let (name, serial) = (found.verdict.name(), found.judged.serial.clone());
        Facts { name, ids: Some(found.ids()), serial }
    }
}

impl<B: Backend> Reactor<B> {
    /// Tells all followers of an event, whose time and words for the device are filled in here.
    pub(super) fn observe(&mut self, event: Event) {
        if self.audience.observers.is_empty() {
            return;
        }
        let export = event.busid.and_then(|busid| self.registry.find(busid));
        let Facts { name, ids, serial } = export.map(Export::facts).unwrap_or_default();
        self.audience.observers.tell(&Event {
            time: SystemTime::now(),
            name: event.name.or(name),
            ids: event.ids.or(ids),
            serial: event.serial.or(serial),
            ..event
        });
    }

    /// Tells all followers of the end of a client's session.
    pub(super) fn observe_detach(
        &mut self,
        (busid, client): (BusId, SocketAddr),
        reason: &'static str,
        work: Work,
    ) {
        let (client, reason, work) = (Some(client), Some(reason), Some(work));
        self.observe(Event { client, reason, work, ..Event::of(EventKind::Detach, busid) });
    }

    /// Tells all followers that a device is free, whose last client was `client`.
    pub(super) fn observe_free(&mut self, busid: BusId, client: Option<SocketAddr>) {
        self.observe(Event { client, ..Event::of(EventKind::Free, busid) });
    }

    /// Tells all followers that the device of a connection was reset.
    pub(super) fn observe_reset(&mut self, key: Key) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        let (peer, busid) = (connection.peer, connection.loan.as_ref().map(|loan| loan.busid));
        if let Some(busid) = busid {
            let event = Event::of(EventKind::Reset, busid);
            self.observe(Event { client: Some(peer), reason: Some("client"), ..event });
        }
    }

    /// The departures of all devices, before a scan is taken in; none while nobody follows.
    pub(super) fn departures_before(&self) -> Vec<Event> {
        if self.audience.observers.is_empty() {
            return Vec::new();
        }
        let departure = |export: &Export<B::Candidate>| {
            let Facts { name, ids, serial } = export.facts();
            let event = Event::of(EventKind::Leave, export.busid);
            Event { name, ids, serial, reason: Some("unplugged"), ..event }
        };
        self.registry.exports.iter().map(departure).collect()
    }

    /// Tells all followers of a difference between scans; `before` by [`Self::departures_before`].
    pub(super) fn observe_change(
        &mut self,
        change: Change,
        before: &[Event],
        reason: &'static str,
    ) {
        let (left, arrived) = match change {
            Change::Arrived(busid) => (None, Some(busid)),
            Change::Left(busid) => (Some(busid), None),
            Change::Replaced(busid) => (Some(busid), Some(busid)),
        };
        let left = before.iter().find(|departure| left.is_some() && departure.busid == left);
        if let Some(departure) = left {
            self.observe(departure.clone());
        }
        if let Some(busid) = arrived {
            self.observe(Event { reason: Some(reason), ..Event::of(EventKind::Arrive, busid) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(1);

    fn arrival(number: usize) -> Event {
        Event::of(EventKind::Arrive, BusId::new(&format!("1-{number}")).unwrap())
    }

    #[test]
    fn a_slow_follower_is_told_how_many_events_are_missing() {
        let mut observers = Observers::default();
        let (slow, fast) = (observers.add().unwrap(), observers.add().unwrap());
        for number in 0..EVENTS_WAITING_MAX + 3 {
            observers.tell(&arrival(number));
            assert_eq!(fast.next(SOON), Told::Event(arrival(number)));
        }
        for number in 0..EVENTS_WAITING_MAX {
            assert_eq!(slow.next(SOON), Told::Event(arrival(number)));
        }
        assert_eq!(slow.next(SOON), Told::Missed(3));
        assert_eq!((slow.next(SOON), fast.next(SOON)), (Told::Nothing, Told::Nothing));
        observers.tell(&arrival(7));
        drop(observers);
        assert_eq!(slow.next(SOON), Told::Event(arrival(7)));
        assert_eq!(slow.next(SOON), Told::End);
    }

    #[test]
    fn followers_are_few_and_a_gone_follower_gives_its_place_back() {
        let mut observers = Observers::default();
        let mut all: Vec<Followed> = (0..FOLLOWERS_MAX).map(|_| observers.add().unwrap()).collect();
        assert!(observers.add().is_none());
        all.pop();
        assert!(observers.add().is_some());
        drop(all);
        observers.tell(&arrival(1));
        assert!(observers.is_empty());
    }
}
