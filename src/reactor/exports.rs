//! What clients ask for in their handshake: the list of exports, and devices.
//!
//! Each request looks at the bus anew: it waits for a scan that begins after it came, and one scan
//! serves all that wait. An import then opens the device on a worker of its own, or contends with
//! the client that has it.
//!
//! | what a client waits for | how long | then it is told |
//! | --- | --- | --- |
//! | a scan | `SCAN_TIMEOUT`; not at all beside one that is overdue | what the scan before has found; where it has not found the device, ST_NA |
//! | the first scan | `OPEN_TIMEOUT`: there is nothing to say before | ST_NA |
//! | its device to be opened | `OPEN_TIMEOUT` | ST_NA; the device is busy until it is open, and is then given back |
//! | a device that another client is about to lose | `HANDSHAKE_TIMEOUT` | ST_DEV_BUSY |
//!
//! Who leaves meanwhile is noticed (`Client::has_left`), and waits for nothing any more.
//!
//! Contract: part of the reactor, so nothing here sleeps; what can is asked of a worker.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::client::{Asked, Awaited};
use super::end::End;
use super::loan::{self, Loan};
use super::token::{Key, Source};
use super::{Reactor, client_of, find};
use crate::complaints::{error, info, warn};
use crate::handshake::Wish;
use crate::limits::{ATTACHED_MAX, HANDSHAKE_TIMEOUT, OPEN_TIMEOUT, SCAN_TIMEOUT};
use crate::session::{Remains, Session};
use crate::usb::{Backend, Candidate, OpenError, Port, Scan, ScanError};
use crate::wire::op::{self, OpStatus, UsbDevice};
use crate::wire::types::{BusId, DevId};
use crate::worker::{Ready, Worker};

/// An open device of a USB stack.
pub(super) type PortOf<B> = <<B as Backend>::Candidate as Candidate>::Port;

/// Requests that wait, and what the last scan has found.
pub(super) struct Scans<C> {
    /// Since when a scan is running.
    pub(super) running: Option<Instant>,
    /// Served by the scan that is running.
    pub(super) waiting: Vec<Key>,
    /// Came after it began, so they need another.
    pub(super) late: Vec<Key>,
    /// Wait for a device that another client is about to lose.
    pub(super) contenders: Vec<Key>,
    /// What the last scan that was none in vain has found.
    known: Option<Vec<C>>,
    pub(super) told: Told,
}

/// What is wrong with scans as far as the log was told: each once when it begins, however many
/// scans and requests it concerns, and once when it is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Told {
    /// They take too long; over when one comes back in time.
    pub(super) overdue: bool,
    /// They fail; over when one succeeds.
    pub(super) failed: bool,
}

impl<C> Default for Scans<C> {
    fn default() -> Self {
        Self {
            running: None,
            waiting: Vec::new(),
            late: Vec::new(),
            contenders: Vec::new(),
            known: None,
            told: Told::default(),
        }
    }
}

impl<C> Scans<C> {
    /// A connection is over, and waits for nothing any more.
    pub(super) fn forget(&mut self, key: Key) {
        for waiting in [&mut self.waiting, &mut self.late, &mut self.contenders] {
            waiting.retain(|&other| other != key);
        }
    }

    /// Whether a scan is running that nobody should wait for any more.
    fn is_overdue(&self, now: Instant) -> bool {
        self.running.is_some_and(|since| now >= since + self.patience())
    }

    /// How long to wait for a scan. Where nothing is known yet a slow machine must not be taken for
    /// one that has no devices.
    const fn patience(&self) -> Duration {
        if self.known.is_some() { SCAN_TIMEOUT } else { OPEN_TIMEOUT }
    }
}

impl<B: Backend> Reactor<B> {
    /// Has a scan made on behalf of a connection, which waits for it for [`Scans::patience`].
    pub(super) fn request_scan(&mut self, key: Key) {
        let now = self.now;
        if !self.wait(key, Awaited::Scan, now + self.scans.patience()) {
            return;
        }
        if self.scans.is_overdue(now) {
            return self.answer_without_scan(key);
        }
        if self.scans.running.is_some() {
            self.scans.late.push(key);
        } else {
            self.scans.running = Some(now);
            self.scans.waiting.push(key);
            self.scanner.request();
        }
    }

    /// Answers the requests that waited for a scan. A scan that failed has found nothing out,
    /// neither that there is no device nor that a client's is missing.
    pub(super) fn handle_scanned(&mut self, result: Result<Scan<B::Candidate>, ScanError>) {
        let waiting = std::mem::take(&mut self.scans.waiting);
        if !self.scans.is_overdue(self.now) && std::mem::take(&mut self.scans.told.overdue) {
            info!("to look for devices takes no longer than it should again");
        }
        self.scans.running = None;
        match result {
            Ok(Scan { devices: candidates, .. }) => {
                if std::mem::take(&mut self.scans.told.failed) {
                    info!("devices are looked for again");
                }
                self.answer_all(waiting, &candidates, OpStatus::NoDevice);
                self.scans.known = Some(candidates);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.scans.told.failed, true) {
                    error!("{error}. Clients are told that nothing is available until it works");
                }
                for key in waiting {
                    if self.awaits_scan(key) {
                        self.refuse(key, OpStatus::NotAvailable);
                    }
                }
            }
        }
        for key in std::mem::take(&mut self.scans.late) {
            if self.awaits_scan(key) {
                self.request_scan(key);
            }
        }
    }

    /// Answers a request that no scan has come back for in time, from what the one before has
    /// found.
    pub(super) fn answer_without_scan(&mut self, key: Key) {
        if !std::mem::replace(&mut self.scans.told.overdue, true) {
            warn!(
                "to look for devices takes more than {:?}: the system holds one of them. \
                 Until it lets go, clients are told what was last known",
                self.scans.patience()
            );
        }
        self.scans.forget(key);
        match self.scans.known.take() {
            Some(known) => {
                // What is not known may be there all the same.
                self.answer_all(vec![key], &known, OpStatus::NotAvailable);
                self.scans.known = Some(known);
            }
            None => self.refuse(key, OpStatus::NotAvailable),
        }
    }

    /// Whether a connection is there and waits for a scan.
    fn awaits_scan(&mut self, key: Key) -> bool {
        let asked = client_of(&mut self.connections, key).and_then(|client| client.asked());
        asked.is_some_and(|asked| asked.awaits == Awaited::Scan)
    }

    /// Answers requests with what is known of the devices; a device that is not among them is
    /// `absent`.
    fn answer_all(&mut self, keys: Vec<Key>, candidates: &[B::Candidate], absent: OpStatus) {
        let mut list = Vec::new();
        op::emit_devlist(self.on_offer(candidates).into_iter(), &mut list);
        for key in keys {
            if !self.awaits_scan(key) {
                continue;
            }
            let Some(client) = client_of(&mut self.connections, key) else { continue };
            let Some(asked) = client.asked() else { continue };
            match asked.wish {
                Wish::Devlist => {
                    client.answer(|out| out.extend_from_slice(&list));
                    self.close(key, false);
                }
                Wish::Import(busid) => self.answer_import(key, busid, candidates, absent),
            }
        }
    }

    fn answer_import(
        &mut self,
        key: Key,
        busid: BusId,
        candidates: &[B::Candidate],
        absent: OpStatus,
    ) {
        let candidate = candidates.iter().find(|candidate| {
            let info = candidate.info();
            info.device.busid == busid && self.settings.selection.exports(info)
        });
        match candidate {
            Some(candidate) => self.begin_import(key, candidate),
            None => {
                let Some(connection) = find(&mut self.connections, key) else { return };
                info!("{}: asks for {busid}, which is not exported", connection.peer);
                self.refuse(key, absent);
            }
        }
    }

    /// What is exported and what no client has, as usbipd has it.
    fn on_offer<'a>(&self, candidates: &'a [B::Candidate]) -> Vec<&'a UsbDevice> {
        let infos = candidates.iter().map(Candidate::info);
        let exported = infos.filter(|info| self.settings.selection.exports(info));
        exported.map(|info| &info.device).filter(|device| !self.is_held(device)).collect()
    }

    pub(super) fn is_held(&self, device: &UsbDevice) -> bool {
        self.holder_of(device.busid).is_some()
    }

    /// The connection with a loan of the device, if there is one.
    fn holder_of(&self, busid: BusId) -> Option<Key> {
        let has = |loan: &Loan<_>| loan.busid == busid;
        let mut connections = self.connections.iter();
        connections.find(|(_, c)| c.loan.as_ref().is_some_and(has)).map(|(_, c)| c.key)
    }

    pub(super) fn begin_import(&mut self, key: Key, candidate: &B::Candidate) {
        let device = &candidate.info().device;
        if self.is_held(device) {
            return self.contest(key, device);
        }
        if self.connections.iter().filter(|(_, c)| c.has_device()).count() >= ATTACHED_MAX {
            warn!("{}: {ATTACHED_MAX} devices are attached, which is the most", device.busid);
            return self.refuse(key, OpStatus::NotAvailable);
        }
        let policy = self.settings.policy_for(candidate.info());
        match Worker::open(key, candidate.clone(), policy, &self.inbox) {
            Ok(worker) => {
                let Some(connection) = find(&mut self.connections, key) else { return };
                connection.loan = Some(Loan::opening(device, worker));
                self.wait(key, Awaited::Opening, self.now + OPEN_TIMEOUT);
            }
            Err(error) => {
                warn!("{}: the system has no thread or memory for it: {error}", device.busid);
                self.refuse(key, OpStatus::NotAvailable);
            }
        }
    }

    /// Takes a device from the client that has it, if the rules allow that; the new one waits until
    /// it is given back.
    fn contest(&mut self, key: Key, device: &UsbDevice) {
        let asker = find(&mut self.connections, key).map(|connection| connection.peer);
        let (Some(holder), Some(asker)) = (self.holder_of(device.busid), asker) else { return };
        let Some(connection) = find(&mut self.connections, holder) else { return };
        let Some(loan) = &connection.loan else { return };
        let signs = || connection.client.as_ref().and_then(|client| client.socket.signs());
        let policy = self.settings.policy.takeover;
        let may_wait = if loan.is_ending() {
            loan.may_be_awaited(self.now)
        } else {
            let permitted = policy.permits(connection.peer.ip(), asker.ip(), signs);
            if permitted {
                self.end(holder, &End::TakenOver(asker));
            }
            permitted
        };
        if !may_wait {
            return self.refuse(key, OpStatus::DeviceBusy);
        }
        let asked = client_of(&mut self.connections, key).and_then(|client| client.asked());
        let Some(&Asked { since, .. }) = asked else { return };
        // From when the client asked first: devices that come home meanwhile have it look again.
        self.wait(key, Awaited::Return, since + HANDSHAKE_TIMEOUT);
        self.scans.contenders.push(key);
    }

    /// Has a client's answer wait for something, until a deadline. False when the client is gone or
    /// has its answer.
    fn wait(&mut self, key: Key, awaits: Awaited, deadline: Instant) -> bool {
        let Some(client) = client_of(&mut self.connections, key) else { return false };
        client.wait(awaits, deadline);
        self.schedule.note_deadline(client.deadline);
        client.asked().is_some()
    }

    /// Nobody has a device any more: has the clients that wait for one look at the bus again, where
    /// it may have become another meanwhile.
    pub(super) fn wake_contenders(&mut self) {
        for contender in std::mem::take(&mut self.scans.contenders) {
            self.request_scan(contender);
        }
    }

    /// Tells a client that it does not get what it asked for.
    pub(super) fn refuse(&mut self, key: Key, status: OpStatus) {
        let Some(client) = client_of(&mut self.connections, key) else { return };
        match client.asked() {
            Some(Asked { wish: Wish::Devlist, .. }) => {
                client.answer(|out| op::emit_no_devlist(status, out));
            }
            _ => client.answer(|out| op::emit_import(Err(status), out)),
        }
        self.close(key, false);
    }

    /// Has a client get its last bytes and close, `device_gone` as in
    /// [`Stage::Closing`](super::client::Stage).
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
        // That the client has left may be known only since this turn began.
        if find(&mut self.connections, key).is_some_and(|connection| connection.has_left()) {
            self.end(key, &End::Closed);
        }
        let Some(connection) = find(&mut self.connections, key) else { return };
        let Ready { opened, tables } = match result {
            Ok(ready) => *ready,
            Err(error) => {
                warn!("{}: {error}", connection.peer);
                return self.end_opening(key, error.status());
            }
        };
        let Some(device) = connection.loan.as_ref().and_then(Loan::promised).cloned() else {
            // Nobody waits for the device any more.
            return connection.change_loan(|loan| loan.return_opened(Remains::from(opened)));
        };
        let token = Source::Device(key.label()).to_token();
        match loan::watch(self.poll.registry(), opened.port.event_sources(), token) {
            Ok(fds) => self.attach(key, &device, Ready { opened, tables }, fds),
            Err(error) => {
                // Nobody would notice the end of a transfer.
                error!("{}: the system can't watch it: {error}", device.busid);
                connection.change_loan(|loan| loan.return_opened(Remains::from(opened)));
                self.refuse(key, OpStatus::NotAvailable);
            }
        }
    }

    /// Gives a client the device that it waited for.
    fn attach(&mut self, key: Key, device: &UsbDevice, ready: Ready<PortOf<B>>, fds: Vec<RawFd>) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        let devid = DevId::new(device.busnum, device.devnum);
        let session = Session::new(devid, self.settings.policy.limits, ready.opened, ready.tables);
        info!(
            "{}: {}: attached ({:04x}:{:04x})",
            connection.peer, device.busid, device.id_vendor, device.id_product
        );
        connection.change_loan(|loan| loan.lend(session, fds, self.now));
        if let Some(client) = &mut connection.client {
            client.serve(|out| op::emit_import(Ok(device), out));
        }
        self.schedule.attach(key);
        self.queue(key);
    }

    /// A device could not be opened: tells the client, if it still waits. Others may wait for the
    /// device.
    fn end_opening(&mut self, key: Key, status: OpStatus) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        if connection.loan.take().is_some_and(|loan| loan.is_opening()) {
            self.refuse(key, status);
        }
        self.free(key);
    }
}
