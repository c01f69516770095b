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
//! Who leaves meanwhile is noticed (`Connection::has_left`), and waits for nothing any more.
//!
//! Contract: part of the reactor, so nothing here sleeps; what can is asked of a worker.

use std::io;
use std::time::{Duration, Instant};

use super::connection::{Asked, Awaited, Connection, End, Stage};
use super::token::{Key, Source};
use super::{Reactor, deregister, find, net, note_deadline, register};
use crate::complaints::{error, info, warn};
use crate::handshake::Wish;
use crate::limits::{ATTACHED_MAX, HANDSHAKE_TIMEOUT, OPEN_TIMEOUT, SCAN_TIMEOUT};
use crate::session::{Remains, Session};
use crate::usb::{Backend, Candidate, OpenError, Opened, Port, ScanError};
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
    /// Wait for a device that is being taken from another client.
    pub(super) takers: Vec<Key>,
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
            takers: Vec::new(),
            known: None,
            told: Told::default(),
        }
    }
}

impl<C> Scans<C> {
    /// A connection is over, and waits for nothing any more.
    pub(super) fn forget(&mut self, key: Key) {
        for waiting in [&mut self.waiting, &mut self.late, &mut self.takers] {
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
        let Some(connection) = find(&mut self.connections, key) else { return };
        let Stage::Asked(asked) = &mut connection.stage else { return };
        asked.awaits = Awaited::Scan;
        if self.scans.is_overdue(now) {
            return self.answer_without_scan(key);
        }
        connection.deadline = Some(now + self.scans.patience());
        note_deadline(&mut self.next_deadline, connection.deadline);
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
    pub(super) fn handle_scanned(&mut self, result: Result<Vec<B::Candidate>, ScanError>) {
        let waiting = std::mem::take(&mut self.scans.waiting);
        if !self.scans.is_overdue(self.now) && std::mem::take(&mut self.scans.told.overdue) {
            info!("to look for devices takes no longer than it should again");
        }
        self.scans.running = None;
        match result {
            Ok(candidates) => {
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
        let connection = find(&mut self.connections, key);
        connection.is_some_and(|connection| match &connection.stage {
            Stage::Asked(asked) => asked.awaits == Awaited::Scan,
            _ => false,
        })
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
            let Some(connection) = find(&mut self.connections, key) else { continue };
            let Stage::Asked(asked) = &connection.stage else { continue };
            match asked.wish {
                Wish::Devlist => {
                    connection.answer(|out| out.extend_from_slice(&list));
                    self.finish(key, self.now);
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
        self.connections.iter().any(|(_, connection)| connection.busid == Some(device.busid))
    }

    pub(super) fn begin_import(&mut self, key: Key, candidate: &B::Candidate) {
        let device = &candidate.info().device;
        if self.is_held(device) {
            return self.contest(key, device);
        }
        if self.connections.iter().filter(|(_, c)| c.busid.is_some()).count() >= ATTACHED_MAX {
            warn!("{}: {ATTACHED_MAX} devices are attached, which is the most", device.busid);
            return self.refuse(key, OpStatus::NotAvailable);
        }
        let policy = self.settings.policy_for(candidate.info());
        match Worker::open(key, candidate.clone(), policy, &self.inbox) {
            Ok(worker) => {
                let Some(connection) = find(&mut self.connections, key) else { return };
                connection.deadline = Some(self.now + OPEN_TIMEOUT);
                note_deadline(&mut self.next_deadline, connection.deadline);
                connection.worker = Some(worker);
                connection.busid = Some(device.busid);
                connection.stage = Stage::Opening(Box::new(device.clone()));
            }
            Err(error) => {
                warn!("{}: the system has no thread or memory for it: {error}", device.busid);
                self.refuse(key, OpStatus::NotAvailable);
            }
        }
    }

    /// Takes a device from the client that has it, if the rules allow that; the new one waits until
    /// it is given back.
    pub(super) fn contest(&mut self, key: Key, device: &UsbDevice) {
        let held = |connection: &Connection<_>| connection.busid == Some(device.busid);
        let holder = self.connections.iter().find(|(_, c)| held(c)).map(|(_, c)| c.key);
        let asker = find(&mut self.connections, key).map(|connection| connection.peer);
        let (Some(holder), Some(asker)) = (holder, asker) else { return };
        let policy = self.settings.policy.takeover;
        let Some(connection) = find(&mut self.connections, holder) else { return };
        let permitted = policy.permits(connection.peer.ip(), asker.ip(), || connection.signs());
        let is_stuck = matches!(connection.stage, Stage::Abandoned(until) if until <= self.now);
        // A holder that is on its way out is about to give the device back anyway.
        if is_stuck || !permitted && connection.stream.is_some() {
            return self.refuse(key, OpStatus::DeviceBusy);
        }
        if connection.stream.is_some() {
            self.end(holder, &End::TakenOver(asker));
        }
        let Some(connection) = find(&mut self.connections, key) else { return };
        let Stage::Asked(asked) = &mut connection.stage else { return };
        asked.awaits = Awaited::Holder;
        // From when it asked first: others that come home meanwhile have it look again.
        connection.deadline = Some(asked.since + HANDSHAKE_TIMEOUT);
        note_deadline(&mut self.next_deadline, connection.deadline);
        self.scans.takers.push(key);
    }

    /// Nobody has a device any more: has those who wait for one look at the bus again, where it may
    /// have become another meanwhile.
    pub(super) fn wake_takers(&mut self) {
        for taker in std::mem::take(&mut self.scans.takers) {
            self.request_scan(taker);
        }
    }

    /// Tells a client that it does not get what it asked for.
    pub(super) fn refuse(&mut self, key: Key, status: OpStatus) {
        let now = self.now;
        let Some(connection) = find(&mut self.connections, key) else { return };
        match &connection.stage {
            Stage::Asked(Asked { wish: Wish::Devlist, .. }) => {
                connection.answer(|out| op::emit_no_devlist(status, out));
            }
            _ => connection.answer(|out| op::emit_import(Err(status), out)),
        }
        self.finish(key, now);
    }

    /// Has a connection write its reply and close.
    pub(super) fn finish(&mut self, key: Key, now: Instant) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        connection.finish(now);
        note_deadline(&mut self.next_deadline, connection.deadline);
        self.queue(key);
    }

    /// A device was opened for a client, or could not be.
    pub(super) fn handle_opened(
        &mut self,
        key: Key,
        result: Result<Box<Ready<PortOf<B>>>, OpenError>,
    ) {
        // That it has left may be known only since this turn began.
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
        let Stage::Opening(device) = std::mem::replace(&mut connection.stage, Stage::Returning)
        else {
            // Nobody waits for it any more.
            if let Some(worker) = &connection.worker {
                worker.close(Remains::from(opened), Duration::ZERO);
            }
            return;
        };
        match self.watch(key, &opened.port) {
            Ok(()) => self.attach(key, &device, Ready { opened, tables }),
            Err(error) => {
                error!("{}: the system can't watch it: {error}", device.busid);
                self.refuse_opened(key, opened);
            }
        }
    }

    /// Has the system tell of what a connection's device has.
    fn watch(&mut self, key: Key, port: &PortOf<B>) -> io::Result<()> {
        let registry = self.poll.registry();
        let Some(connection) = find(&mut self.connections, key) else { return Ok(()) };
        for source in port.event_sources() {
            register(registry, source, Source::Device(key.label()))?;
            connection.device_fds.push(source.fd);
        }
        Ok(())
    }

    /// Gives a client the device that it waited for.
    fn attach(&mut self, key: Key, device: &UsbDevice, ready: Ready<PortOf<B>>) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        connection.deadline = None;
        let devid = DevId::new(device.busnum, device.devnum);
        let session = Session::new(devid, self.settings.policy.limits, ready.opened, ready.tables);
        info!(
            "{}: {}: attached ({:04x}:{:04x})",
            connection.peer, device.busid, device.id_vendor, device.id_product
        );
        connection.answer(|out| op::emit_import(Ok(device), out));
        if let Some(stream) = &connection.stream {
            net::prepare_attached(stream);
            connection.segment_len = net::segment_len(stream);
        }
        connection.stage = Stage::Attached(Box::new(session));
        self.attached.push(key);
        self.queue(key);
    }

    /// Gives a device back that was opened and can't be watched: nobody would notice the end of a
    /// transfer. Its client is told that it does not get it.
    fn refuse_opened(&mut self, key: Key, opened: Opened<PortOf<B>>) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        deregister(self.poll.registry(), &mut connection.device_fds);
        connection.answer(|out| op::emit_import(Err(OpStatus::NotAvailable), out));
        connection.deadline = Some(self.now + HANDSHAKE_TIMEOUT);
        note_deadline(&mut self.next_deadline, connection.deadline);
        if let Some(worker) = &connection.worker {
            worker.close(Remains::from(opened), Duration::ZERO);
        }
        self.queue(key);
    }

    /// A device could not be opened: tells the client, if it still waits. Others may wait for the
    /// device.
    fn end_opening(&mut self, key: Key, status: OpStatus) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        (connection.worker, connection.busid) = (None, None);
        if matches!(connection.stage, Stage::Opening(_)) {
            self.refuse(key, status);
        } else {
            connection.stage = Stage::Finishing;
            self.remove_if_over(key);
        }
        self.wake_takers();
    }
}
