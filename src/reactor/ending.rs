//! How connections end and devices come home: a client that leaves, a client that takes too long,
//! a server that stops.
//!
//! The socket goes first. A device comes home in steps, each started by the end of the step before:
//! transfers are cancelled on the worker and collected, descriptors are no longer watched, the
//! worker gives the device back, the device rests if its client broke the protocol, and only then
//! may another client have it (`loan`).
//!
//! Contract: part of the reactor, so nothing here sleeps.

use std::time::Instant;

use log::debug;

use super::client::{Awaited, Client, Step};
use super::connection::Connection;
use super::end::{End, Parting};
use super::loan::{Afterwards, Loan};
use super::refusal::Refusal;
use super::schedule::Rest;
use super::token::Key;
use super::{Reactor, client_of, find};
use crate::complaints::{info, warn};
use crate::deadline::earlier;
use crate::limits::{DRAIN_TIMEOUT, LAST_ANSWERS_TIMEOUT};
use crate::usb::{Backend, Candidate};
use crate::wire::types::BusId;

impl<B: Backend> Reactor<B> {
    /// Ends the connections whose deadlines have come.
    pub(super) fn expire(&mut self) {
        if !self.schedule.take_deadline(self.now) {
            return;
        }
        self.schedule.note_deadline(self.stop.deadline());
        self.schedule.note_deadline(self.audience.reports.give_sign(self.now));
        let mut expired = Vec::new();
        for (_, connection) in &self.connections {
            match connection.client_deadline() {
                Some(at) if at <= self.now => expired.push(connection.key),
                deadline => self.schedule.note_deadline(deadline),
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
            Some(Awaited::Return) => {
                // The device does not come back.
                self.registry.forget_contender(key);
                self.refuse(key, &Refusal::NotReturned);
            }
            Some(Awaited::Arrival) => {
                self.scans.arrivals.retain(|&waiting| waiting != key);
                self.refuse(key, &Refusal::NotExported);
            }
            Some(Awaited::Settling) => self.request(key),
            Some(Awaited::Opening) => self.abandon_opening(key),
            Some(Awaited::Authorization) => self.give_up_question(key),
            None => {
                let end = match connection.expiry() {
                    End::TimedOut if self.stop.deadline().is_some() => End::Parted(Parting::Stop),
                    end => end,
                };
                self.end(key, &end);
            }
        }
    }

    /// Tells a client that the device can't be opened in time. The device stays busy until the
    /// worker comes back.
    fn abandon_opening(&mut self, key: Key) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        connection.change_loan(|loan| loan.abandon(self.now));
        self.refuse(key, &Refusal::Slow);
    }

    /// Ends a connection: at once without a device, else when the device is free. A connection
    /// without its client is ending already. Apart from [`Reactor::serve`], as are all steps of an
    /// end: inlined, they would make the turns of every session reserve and touch pages of stack.
    #[cold]
    #[inline(never)]
    pub(super) fn end(&mut self, key: Key, end: &End) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        let Some(mut client) = connection.take_client(self.now) else { return };
        self.door.let_out();
        let _ = self.poll.registry().deregister(client.socket.stream_mut());
        self.note_end(key, end);
        let broke_protocol = matches!(end, End::Violation(_));
        let afterwards = if broke_protocol { Afterwards::Rest } else { Afterwards::Free };
        let Some(connection) = find(&mut self.connections, key) else { return };
        connection.change_loan(|loan| loan.drain(afterwards));
        if connection.session().is_some() {
            self.queue(key);
        }
        self.scans.forget(key);
        for waiting in [&mut self.scans.arrivals, &mut self.audience.watches] {
            waiting.retain(|&other| other != key);
        }
        self.registry.forget_contender(key);
        self.remove_if_over(key);
    }

    fn remove_if_over(&mut self, key: Key) {
        if find(&mut self.connections, key).is_some_and(|connection| connection.is_over()) {
            self.connections.remove(key.index as usize);
            self.audience.hooking.note_over(key);
        }
    }

    /// The device is gone and the client has every reply: the client's connection is closed in good
    /// order, while the device is given back.
    #[cold]
    #[inline(never)]
    pub(super) fn end_gone(&mut self, key: Key) {
        self.note_end(key, &End::DeviceGone);
        let Some(connection) = find(&mut self.connections, key) else { return };
        connection.change_loan(|loan| loan.drain(Afterwards::Free));
        self.close(key, true);
    }

    /// Tells the log, the hooks and whoever follows of the end of a connection or a session.
    fn note_end(&mut self, key: Key, end: &End) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        tell_end(connection, end, self.now);
        self.audience.hooking.note_end(key, end);
        let loan = connection.loan.as_mut();
        let lent = loan.and_then(|loan| Some((loan.busid, loan.lent()?.session.stats().total())));
        if let Some((busid, work)) = lent {
            let peer = connection.peer;
            self.observe_detach((busid, peer), end.word(), work.into());
        }
    }

    /// Has a session's device given back.
    #[cold]
    #[inline(never)]
    pub(super) fn give_back(&mut self, key: Key) {
        self.schedule.detach(key);
        let Some(connection) = find(&mut self.connections, key) else { return };
        let registry = self.poll.registry();
        connection.change_loan(|loan| loan.return_drained(registry));
    }

    /// A device was given back: another client can have the device, at once or after its rest.
    pub(super) fn handle_closed(&mut self, key: Key) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        let Some(loan) = connection.loan.take() else { return };
        let busid = loan.busid;
        info!(client:% = connection.peer, device:% = busid; "{}: released", loan.title);
        match loan.returned(self.now) {
            Err((resting, until)) => {
                connection.loan = Some(resting);
                self.schedule.rest(until, Rest::Connection(key));
            }
            Ok(worker) => {
                self.inbox.keep(worker);
                self.free(key, busid);
            }
        }
    }

    /// A device's worker has died with the port, which closed the device: the client gets its
    /// answer or sees the end, and another client can have the device.
    pub(super) fn handle_died(&mut self, key: Key) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        if connection.loan.as_ref().is_some_and(Loan::is_opening) {
            self.refuse(key, &Refusal::WorkerDied);
        } else if connection.loan.as_mut().is_some_and(|loan| loan.lent().is_some()) {
            self.end(key, &End::WorkerDied);
        }
        self.schedule.detach(key);
        let Some(connection) = find(&mut self.connections, key) else { return };
        let Some(loan) = connection.loan.take() else { return };
        let busid = loan.busid;
        loan.give_up(self.poll.registry());
        self.free(key, busid);
    }

    /// A device is free: its contenders ask again, since the device may have become another
    /// meanwhile.
    pub(super) fn free(&mut self, key: Key, busid: BusId) {
        let connection = find(&mut self.connections, key);
        let client = connection.map(|connection| {
            connection.loan = None;
            connection.peer
        });
        self.observe_free(busid, client);
        self.audience.hooking.note_over(key);
        self.remove_if_over(key);
        for contender in self.registry.release(busid) {
            self.request(contender);
        }
    }

    /// Begins the stop, if somebody has asked for a stop: no new clients are accepted, present
    /// clients get the replies and the lists on their way, and every device is given back.
    pub(super) fn begin_stop(&mut self) {
        if !self.stop.begin(self.now) {
            return;
        }
        log::info!("stopping: giving back every device");
        self.schedule.note_deadline(self.stop.deadline());
        self.report_stop();
        self.door.shut(self.poll.registry());
        self.scans.end_hints(self.poll.registry());
        let keys: Vec<Key> = self.connections.iter().map(|(_, c)| c.key).collect();
        for key in keys {
            self.stop_one(key);
        }
    }

    /// Has a client that is served get its last replies, and ends all other connections.
    fn stop_one(&mut self, key: Key) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        if connection.part(Parting::Stop, self.now + DRAIN_TIMEOUT) {
            self.schedule.note_deadline(connection.client_deadline());
            return self.queue(key);
        }
        if connection.client.as_ref().is_some_and(Client::may_get_answer) {
            return self.hasten(key);
        }
        // Unread bytes would make the end of the connection a reset.
        if let Some(client) = &mut connection.client
            && matches!(client.step, Step::Closing { .. })
        {
            client.socket.discard_unread(&mut self.discard);
        }
        self.end(key, &End::Parted(Parting::Stop));
    }

    /// Has a client without a device get its answer soon, since the server stops.
    pub(super) fn hasten(&mut self, key: Key) {
        let until = self.now + LAST_ANSWERS_TIMEOUT;
        let Some(client) = client_of(&mut self.connections, key) else { return };
        client.deadline = earlier(client.deadline, Some(until));
        self.schedule.note_deadline(client.deadline);
    }
}

/// Tells the log of the end of a connection or a session. A session ends with one line.
fn tell_end<C: Candidate>(connection: &Connection<C>, end: &End, now: Instant) {
    let peer = connection.peer;
    let Some(loan) = &connection.loan else {
        return if end.is_trouble() {
            warn!(client:% = peer; "{peer}: {end}");
        } else {
            debug!(client:% = peer; "{peer}: {end}");
        };
    };
    let device = loan.busid;
    let told = match loan.summary(now) {
        None => format!("{peer}: {}: {end}", loan.title),
        Some(summary) => format!("{peer}: {}: {end}, {summary}", loan.title),
    };
    if end.is_trouble() {
        warn!(client:% = peer, device:% = device; "{told}");
    } else {
        info!(client:% = peer, device:% = device; "{told}");
    }
}
