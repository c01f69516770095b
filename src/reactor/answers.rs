//! The answers to handshakes: the list of exports, and devices on loan.
//!
//! Both go by the exports (`registry`), as soon as these are current (`scans`). An import then has
//! a worker open the device, or contends with the client that has the device.
//!
//! | a client waits for | at most | and is then told |
//! | --- | --- | --- |
//! | a scan | see `scans` | see `scans` |
//! | a program that authorizes the import | `AUTHORIZE_TIMEOUT` | ST_NA |
//! | the opening of its device | `OPEN_TIMEOUT` | ST_NA; the device is busy until it is open, and is then given back |
//! | a device that another client is about to give back | `HANDSHAKE_TIMEOUT` | ST_DEV_BUSY |
//!
//! The reactor notices when a client leaves meanwhile (`Client::has_left`), and then drops the
//! request.
//!
//! An export can be older than the device at the moment of opening. If the device is gone by then,
//! or has become another, a scan looks for the device once more; and the client is told the
//! configuration of the open device.
//!
//! Contract: part of the reactor, where nothing sleeps; workers open devices.

use std::os::fd::RawFd;
use std::time::Instant;

use log::debug;

use super::client::{Asked, Awaited, Client};
use super::end::End;
use super::loan::{self, Loan};
use super::registry::{Holder, Offer};
use super::token::{Key, Subject};
use super::{Reactor, client_of, find};
use crate::complaints::{error, info, warn};
use crate::config::Policy;
use crate::handshake::Request;
use crate::limits::{ATTACHED_MAX, HANDSHAKE_TIMEOUT, OPEN_TIMEOUT};
use crate::session::{Remains, Session};
use crate::usb::{Backend, Candidate, OpenError, Port};
use crate::wire::op::{self, OpStatus, UsbDevice};
use crate::wire::types::{BusId, DevId};
use crate::worker::{Ready, Worker};

/// An open device of a USB stack.
pub(super) type PortOf<B> = <<B as Backend>::Candidate as Candidate>::Port;

impl<B: Backend> Reactor<B> {
    /// Whether the answer to a client's request is among the exports.
    pub(super) fn knows_answer(&mut self, key: Key) -> bool {
        let asked = client_of(&mut self.connections, key).and_then(|client| client.asked());
        match asked.map(|asked| asked.request) {
            Some(Request::Import(busid)) => self.registry.is_exported(busid),
            Some(Request::Devlist) | None => true,
        }
    }

    /// Answers a client's request by the exports; an import of an unknown device with `absent`.
    pub(super) fn answer(&mut self, key: Key, absent: OpStatus) {
        let Some(client) = client_of(&mut self.connections, key) else { return };
        let Some(asked) = client.asked() else { return };
        match asked.request {
            Request::Devlist => {
                let offered = self.registry.on_offer();
                client.answer(|out| op::emit_devlist(offered.into_iter(), out));
                self.close(key, false);
            }
            Request::Import(busid) => match self.registry.offer(busid) {
                Offer::Free(candidate, policy) => {
                    if self.is_authorized(key, busid) {
                        self.begin_import(key, *candidate, policy);
                    }
                }
                Offer::Taken(holder) => self.contest(key, busid, holder),
                Offer::Absent => self.refuse_absent(key, busid, absent),
            },
        }
    }

    fn refuse_absent(&mut self, key: Key, busid: BusId, status: OpStatus) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        info!("{}: asks for {busid}, which is not exported", connection.peer);
        self.refuse(key, status);
    }

    fn begin_import(&mut self, key: Key, candidate: B::Candidate, policy: Policy) {
        let device = candidate.info().device.clone();
        if self.registry.taken() >= ATTACHED_MAX {
            warn!("{}: {ATTACHED_MAX} devices are attached, the limit", device.busid);
            return self.refuse(key, OpStatus::NotAvailable);
        }
        match Worker::open(key, candidate, policy, &self.inbox) {
            Ok(worker) => {
                let Some(connection) = find(&mut self.connections, key) else { return };
                let holder = Holder { key, peer: connection.peer };
                self.registry.take(device.busid, holder);
                connection.loan = Some(Loan::opening(device, policy, worker));
                self.wait(key, Awaited::Opening, self.now + OPEN_TIMEOUT);
            }
            Err(error) => {
                warn!(
                    "{}: the system has no thread or memory for the device: {error}",
                    device.busid
                );
                self.refuse(key, OpStatus::NotAvailable);
            }
        }
    }

    /// Takes a device from its client, if the terms of the loan allow a take-over; the asker waits
    /// until the device is given back.
    fn contest(&mut self, key: Key, busid: BusId, holder: Holder) {
        let asker = find(&mut self.connections, key).map(|connection| connection.peer);
        let Some(asker) = asker else { return };
        let Some(connection) = find(&mut self.connections, holder.key) else { return };
        let Some(loan) = &connection.loan else { return };
        let signs = || connection.client.as_ref().and_then(|client| client.socket.signs());
        let takeover = loan.policy.takeover;
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
            return self.refuse(key, OpStatus::DeviceBusy);
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

    /// Refuses a client's request.
    pub(super) fn refuse(&mut self, key: Key, status: OpStatus) {
        let Some(client) = client_of(&mut self.connections, key) else { return };
        match client.asked() {
            Some(Asked { request: Request::Devlist, .. }) => {
                client.answer(|out| op::emit_no_devlist(status, out));
            }
            _ => client.answer(|out| op::emit_import(Err(status), out)),
        }
        self.close(key, false);
    }

    /// Has a client get its last bytes and close, `device_gone` as in
    /// [`Step::Closing`](super::client::Step).
    pub(super) fn close(&mut self, key: Key, device_gone: bool) {
        let Some(client) = client_of(&mut self.connections, key) else { return };
        client.close(self.now, device_gone);
        self.schedule.note_deadline(client.deadline);
        self.queue(key);
    }

    /// A device was opened for a client, or could not be.
    pub(super) fn handle_opened(
        &mut self,
        key: Key,
        result: Result<Box<Ready<PortOf<B>>>, OpenError>,
    ) {
        self.prepare_open();
        // The client may have left a moment ago: the events of this turn are marked already.
        if find(&mut self.connections, key).is_some_and(|connection| connection.has_left()) {
            self.end(key, &End::Closed);
        }
        let Some(connection) = find(&mut self.connections, key) else { return };
        let Ready { opened, tables } = match result {
            Ok(ready) => *ready,
            Err(error) => return self.end_opening(key, &error),
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
                error!("{}: the system can't watch the device: {error}", device.busid);
                connection.change_loan(|loan| loan.return_opened(Remains::from(opened)));
                self.refuse(key, OpStatus::NotAvailable);
            }
        }
    }

    /// Gives a client its device.
    fn attach(&mut self, key: Key, device: &UsbDevice, ready: Ready<PortOf<B>>, fds: Vec<RawFd>) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        let Some(loan) = &connection.loan else { return };
        let limits = loan.policy.limits;
        let devid = DevId::new(device.busnum, device.devnum);
        let device = ready.opened.describe(device.clone());
        let session = Session::new(devid, limits, ready.opened, ready.tables);
        let peer = connection.peer;
        info!(
            "{peer}: {}: attached ({:04x}:{:04x})",
            device.busid, device.id_vendor, device.id_product
        );
        connection.change_loan(|loan| loan.lend(session, fds, self.now));
        if let Some(client) = &mut connection.client {
            client.serve(|out| op::emit_import(Ok(&device), out));
        }
        self.hooking.note_attached(key, peer, device.busid);
        self.schedule.attach(key);
        self.queue(key);
    }

    /// A device could not be opened: tells the client, if the client still waits. A device that is
    /// gone may have become another since the last scan, so the bus is scanned once more first.
    fn end_opening(&mut self, key: Key, error: &OpenError) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        let Some(loan) = connection.loan.take() else { return };
        let (peer, is_awaited) = (connection.peer, loan.is_opening());
        let asked = connection.client.as_ref().and_then(Client::asked);
        let was_scanned = asked.is_none_or(|asked| asked.was_scanned);
        self.free(key, loan.busid);
        if is_awaited && error.status() == OpStatus::NoDevice && !was_scanned {
            debug!("{peer}: {error}; looking again");
            // The hint may be still to come: a scan under way may have looked before the change.
            self.scans.note_change();
            return self.request_scan(key);
        }
        warn!("{peer}: {error}");
        if is_awaited {
            self.refuse(key, error.status());
        }
    }
}
