//! The answers to handshakes: the list of exports, and devices on loan.
//!
//! Both go by the exports (`registry`), as far as the client sees the exports (`offers`), as soon
//! as these are current (`scans`). An import then has a worker open the device, or contends with
//! the client that has the device.
//!
//! | a client waits for | at most | and is then told |
//! | --- | --- | --- |
//! | a scan | see `scans` | see `scans` |
//! | a program that authorizes the import | `AUTHORIZE_TIMEOUT` | ST_NA |
//! | the opening of its device | `OPEN_TIMEOUT` | ST_NA; the device is busy until it is open, and is then given back |
//! | a device that another client is about to give back | `HANDSHAKE_TIMEOUT` | ST_DEV_BUSY |
//! | the arrival of a device | see `arrivals` | see `arrivals` |
//!
//! The reactor notices when a client leaves meanwhile (`Client::has_left`), and then drops the
//! request.
//!
//! An export can be older than the device at the moment of opening. If the device is gone by then,
//! or has become another, a scan looks for the device once more; and the client is told the
//! configuration of the open device.
//!
//! Contract: part of the reactor, where nothing sleeps; workers open devices.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::time::Instant;

use log::debug;

use super::client::{Asked, Awaited, Client};
use super::end::End;
use super::loan::{self, Loan};
use super::offers::Offer;
use super::refusal::Refusal;
use super::registry::Holder;
use super::token::{Key, Subject};
use super::{Reactor, client_of, find};
use crate::complaints::{info, warn};
use crate::config::rules::Verdict;
use crate::config::{TakeOver, asked};
use crate::handshake::Request;
use crate::limits::{ATTACHED_MAX, HANDSHAKE_TIMEOUT, OPEN_TIMEOUT};
use crate::session::{Remains, Session};
use crate::status::event::{Event, EventKind};
use crate::usb::{Backend, Candidate, OpenError, Port};
use crate::wire::op::{self, OpStatus, UsbDevice};
use crate::wire::types::{BusId, DevId};
use crate::wire::watch::refusal as refusal_of_watch;
use crate::worker::{Ready, Worker};

/// An open device of a USB stack.
pub(super) type PortOf<B> = <<B as Backend>::Candidate as Candidate>::Port;

impl<B: Backend> Reactor<B> {
    /// Whether the answer to a client's request is among the exports.
    pub(super) fn knows_answer(&mut self, key: Key) -> bool {
        match self.request_of(key) {
            Some((peer, Request::Import(field))) => {
                self.registry.is_seen(&asked::Asked::read(field), peer.ip())
            }
            Some((_, Request::Devlist | Request::Watch)) | None => true,
        }
    }

    /// A client's request that has no answer yet, and the client's address.
    fn request_of(&mut self, key: Key) -> Option<(SocketAddr, Request)> {
        let connection = find(&mut self.connections, key)?;
        let asked = connection.client.as_ref()?.asked()?;
        Some((connection.peer, asked.request))
    }

    /// Answers a client's request by the exports; an import of an unknown device with `absent`.
    pub(super) fn answer(&mut self, key: Key, absent: &Refusal) {
        match self.request_of(key) {
            Some((_, Request::Watch)) | None => {}
            Some((peer, Request::Devlist)) => {
                let offered = self.registry.on_offer(peer.ip());
                let Some(client) = client_of(&mut self.connections, key) else { return };
                client.answer(|out| op::emit_devlist(offered.iter(), out));
                self.close(key, false);
            }
            Some((peer, Request::Import(field))) => {
                let offer = self.registry.offer(&asked::Asked::read(field), peer.ip(), self.now);
                self.answer_import(key, offer, absent);
            }
        }
    }

    fn answer_import(&mut self, key: Key, offer: Offer<B::Candidate>, absent: &Refusal) {
        match offer {
            Offer::Free(candidate, verdict) => {
                if self.is_authorized(key, candidate.info().device.busid) {
                    self.begin_import(key, *candidate, &verdict);
                }
            }
            Offer::Held(since) => self.refuse(key, &Refusal::Held(since)),
            Offer::Settling(at) => self.await_settling(key, at),
            Offer::Taken(busid, holder, takeover) => self.contest(key, busid, holder, takeover),
            Offer::Ambiguous(candidates) => self.refuse(key, &Refusal::Ambiguous(candidates)),
            Offer::Expected => self.await_arrival(key),
            // The scan was made for another reason.
            Offer::Absent if self.awaits_arrival(key) => self.await_arrival(key),
            Offer::Absent => self.refuse(key, absent),
        }
    }

    fn begin_import(&mut self, key: Key, candidate: B::Candidate, verdict: &Verdict) {
        let device = candidate.info().device.clone();
        let Some(connection) = find(&mut self.connections, key) else { return };
        let peer = connection.peer;
        if let Some(full) = self.no_place_for(peer.ip()) {
            return self.refuse(key, &full);
        }
        match Worker::open(key, peer, candidate, verdict.policy, &mut self.inbox) {
            Ok(worker) => {
                self.registry.take(device.busid, Holder { key, peer, since: self.now });
                let Some(connection) = find(&mut self.connections, key) else { return };
                connection.loan = Some(Loan::opening(device, verdict, worker));
                self.wait(key, Awaited::Opening, self.now + OPEN_TIMEOUT);
            }
            Err(error) => self.refuse(key, &Refusal::NoThread(error)),
        }
    }

    /// The reason why no client at an address may have one more device, if there is one.
    fn no_place_for(&self, address: IpAddr) -> Option<Refusal> {
        if self.registry.taken() >= ATTACHED_MAX {
            return Some(Refusal::Full);
        }
        let shares = self.settings.shares;
        let is_full =
            shares.hold_for(address) && self.registry.taken_by(address) >= shares.sessions;
        is_full.then_some(Refusal::AddressFull(address, shares.sessions))
    }

    /// Takes a device from its client, if the device's rule of today allows a take-over; the asker
    /// waits until the device is given back.
    fn contest(&mut self, key: Key, busid: BusId, holder: Holder, takeover: TakeOver) {
        let asker = find(&mut self.connections, key).map(|connection| connection.peer);
        let Some(asker) = asker else { return };
        let Some(connection) = find(&mut self.connections, holder.key) else { return };
        let Some(loan) = &connection.loan else { return };
        let signs = || connection.client.as_ref().and_then(|client| client.socket.signs());
        let may_wait = if loan.is_ending() {
            loan.may_be_awaited(self.now)
        } else {
            let permitted = takeover.permits(holder.peer.ip(), asker.ip(), signs);
            if permitted && !self.is_authorized(key, busid) {
                return;
            }
            if permitted {
                self.end(holder.key, &End::TakenOver(asker));
            }
            permitted
        };
        if !may_wait {
            let since = self.now.saturating_duration_since(holder.since);
            return self.refuse(key, &Refusal::Busy(holder.peer, since));
        }
        let asked = client_of(&mut self.connections, key).and_then(|client| client.asked());
        let Some(&Asked { since, .. }) = asked else { return };
        // From when the client asked first: the device may come home to an earlier contender.
        self.wait(key, Awaited::Return, since + HANDSHAKE_TIMEOUT);
        self.registry.contend(busid, key);
    }

    /// Has a client's answer wait for something, until a deadline. False when the client has left
    /// or has its answer.
    pub(super) fn wait(&mut self, key: Key, awaits: Awaited, deadline: Instant) -> bool {
        let Some(client) = client_of(&mut self.connections, key) else { return false };
        client.wait(awaits, deadline);
        self.schedule.note_deadline(client.deadline);
        client.asked().is_some()
    }

    /// Refuses a client's request, for a reason that the log is told.
    pub(super) fn refuse(&mut self, key: Key, refusal: &Refusal) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        let (peer, status) = (connection.peer, refusal.status());
        let Some(client) = &mut connection.client else { return };
        let Some(&Asked { request, .. }) = client.asked() else { return };
        match request {
            Request::Devlist => client.answer(|out| op::emit_no_devlist(status, out)),
            Request::Import(_) => client.answer(|out| op::emit_import(Err(status), out)),
            Request::Watch => client.answer(|out| out.extend_from_slice(&refusal_of_watch(status))),
        }
        if refusal.is_ordinary() {
            info!(client:% = peer; "{peer}: asks for {request}: refused: {refusal}");
        } else {
            warn!(client:% = peer; "{peer}: asks for {request}: refused: {refusal}");
        }
        self.close(key, false);
    }

    /// Has a client get its last bytes and close, `device_gone` as in
    /// [`Step::Closing`](super::client::Step).
    pub(super) fn close(&mut self, key: Key, device_gone: bool) {
        let Some(client) = client_of(&mut self.connections, key) else { return };
        client.close(self.now, device_gone);
        self.schedule.note_deadline(client.deadline);
        if self.stop.deadline().is_some() && !device_gone {
            self.hasten(key);
        }
        self.queue(key);
    }

    /// A device was opened for a client, or could not be.
    pub(super) fn handle_opened(
        &mut self,
        key: Key,
        result: Result<Box<Ready<PortOf<B>>>, OpenError>,
    ) {
        self.scans.note_opened();
        // The client may have left a moment ago: the events of this turn are marked already.
        if find(&mut self.connections, key).is_some_and(|connection| connection.has_left()) {
            self.end(key, &End::Closed);
        }
        let Some(connection) = find(&mut self.connections, key) else { return };
        let Ready { opened, tables } = match result {
            Ok(ready) => *ready,
            Err(error) => return self.end_opening(key, error),
        };
        let Some(device) = connection.loan.as_ref().and_then(Loan::promised).cloned() else {
            // Nobody waits for the device any more.
            return connection.change_loan(|loan| loan.return_opened(Remains::from(opened)));
        };
        let token = Subject::Device(key.label()).to_token();
        match loan::watch(self.poll.registry(), opened.port.event_sources(), token) {
            Ok(fds) => self.attach(key, &device, Ready { opened, tables }, fds),
            Err(error) => {
                // Nobody would notice the end of a transfer.
                connection.change_loan(|loan| loan.return_opened(Remains::from(opened)));
                self.refuse(key, &Refusal::Unwatched(error));
            }
        }
    }

    /// Gives a client its device. The reply has the text of the request in the place of the busid:
    /// clients compare the two (`usbip_attach.c`).
    fn attach(&mut self, key: Key, device: &UsbDevice, ready: Ready<PortOf<B>>, fds: Vec<RawFd>) {
        let Some((peer, Request::Import(field))) = self.request_of(key) else { return };
        let devid = DevId::new(device.busnum, device.devnum);
        let Some(connection) = find(&mut self.connections, key) else { return };
        let Some(loan) = &connection.loan else { return };
        let (busid, limits) = (loan.busid, loan.limits);
        let device = ready.opened.describe(UsbDevice { busid: field, ..device.clone() });
        let session = Session::new(devid, limits, ready.opened, ready.tables);
        info!(
            client:% = peer, device:% = busid;
            "{peer}: {}: attached ({:04x}:{:04x})",
            loan.title, device.id_vendor, device.id_product
        );
        connection.change_loan(|loan| loan.lend(session, fds, self.now));
        if let Some(client) = &mut connection.client {
            client.serve(|out| op::emit_import(Ok(&device), out));
        }
        self.begin_taps(key);
        self.audience.hooking.note_attached(key, peer, busid);
        let event = Event::of(EventKind::Attach, busid);
        self.observe(Event { client: Some(peer), reason: Some("import"), ..event });
        self.schedule.attach(key);
        self.queue(key);
    }

    /// A device could not be opened: tells the client, if the client still waits. A device that is
    /// gone may have become another since the last scan, so the bus is scanned once more first.
    fn end_opening(&mut self, key: Key, error: OpenError) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        let Some(loan) = connection.loan.take() else { return };
        let (peer, is_awaited, busid) = (connection.peer, loan.is_opening(), loan.busid);
        let asked = connection.client.as_ref().and_then(Client::asked);
        let was_scanned = asked.is_none_or(|asked| asked.was_scanned);
        self.inbox.keep(loan.worker);
        self.free(key, busid);
        if is_awaited && error.status() == OpStatus::NoDevice && !was_scanned {
            debug!(client:% = peer, device:% = error.busid; "{peer}: {error}; looking again");
            // The hint may be still to come: a scan under way may have looked before the change.
            self.scans.note_change();
            return self.request_scan(key);
        }
        if is_awaited {
            self.refuse(key, &Refusal::Closed(error));
        } else {
            warn!(client:% = peer, device:% = error.busid; "{peer}: {error}");
        }
    }
}
