//! What clients ask for in their handshake: the list of exports, and devices.
//!
//! Each request looks at the bus anew: it waits for a scan that begins after it came, and one scan
//! serves all that wait. An import then opens the device on a worker of its own, or contends with
//! the client that has it.
//!
//! Contract: part of the reactor, so nothing here sleeps; what can is asked of a worker.

use std::time::{Duration, Instant};

use log::{error, info, warn};

use super::connection::{Connection, End, Stage};
use super::token::{Key, Source};
use super::{Reactor, find, net, note_deadline, register};
use crate::handshake::Wish;
use crate::limits::{ATTACHED_MAX, HANDSHAKE_TIMEOUT};
use crate::session::{Remains, Session};
use crate::usb::{Backend, Candidate, OpenError};
use crate::wire::op::{self, OpStatus, UsbDevice};
use crate::wire::types::DevId;
use crate::worker::{Ready, Worker};

/// Requests that wait for a scan.
#[derive(Default)]
pub(super) struct Scans {
    pub(super) running: bool,
    /// Served by the scan that is running.
    pub(super) waiting: Vec<Key>,
    /// Came after it began, so they need another.
    pub(super) late: Vec<Key>,
    /// Wait for a device that is being taken from another client.
    pub(super) takers: Vec<Key>,
}

impl<B: Backend> Reactor<B> {
    /// Asks for a scan on behalf of a connection.
    pub(super) fn request_scan(&mut self, key: Key) {
        if self.scans.running {
            self.scans.late.push(key);
        } else {
            self.scans.running = true;
            self.scans.waiting.push(key);
            self.scanner.request();
        }
    }

    /// Answers the requests that waited for a scan.
    pub(super) fn handle_scanned(&mut self, result: Result<Vec<B::Candidate>, String>) {
        let candidates = result.unwrap_or_else(|error| {
            error!("{error}");
            Vec::new()
        });
        self.scans.running = false;
        let mut list = Vec::new();
        op::emit_devlist(self.on_offer(&candidates).into_iter(), &mut list);
        for key in std::mem::take(&mut self.scans.waiting) {
            let Some(connection) = find(&mut self.connections, key) else { continue };
            match connection.stage {
                Stage::Asked(Wish::Devlist) => {
                    connection.answer(|out| out.extend_from_slice(&list));
                    self.finish(key, self.now);
                }
                Stage::Asked(Wish::Import(busid)) => {
                    let candidate = candidates.iter().find(|candidate| {
                        let info = candidate.info();
                        info.device.busid == busid && self.settings.selection.exports(info)
                    });
                    match candidate {
                        Some(candidate) => self.begin_import(key, candidate),
                        None => {
                            if self.complaints.may_complain(self.now) {
                                let peer = connection.peer;
                                info!("{peer}: asks for {busid}, which is not exported");
                            }
                            self.refuse_import(key, OpStatus::NoDevice);
                        }
                    }
                }
                _ => {}
            }
        }
        for key in std::mem::take(&mut self.scans.late) {
            self.request_scan(key);
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
            return self.refuse_import(key, OpStatus::NotAvailable);
        }
        let limits = self.settings.limits;
        match Worker::open(key, candidate.clone(), limits, &self.inbox) {
            Ok(worker) => {
                let Some(connection) = find(&mut self.connections, key) else { return };
                connection.deadline = None;
                connection.worker = Some(worker);
                connection.busid = Some(device.busid);
                connection.stage = Stage::Opening(Box::new(device.clone()));
            }
            Err(error) => {
                warn!("{}: the system has no thread for it: {error}", device.busid);
                self.refuse_import(key, OpStatus::NotAvailable);
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
        let policy = self.settings.takeover;
        let Some(connection) = find(&mut self.connections, holder) else { return };
        let permitted = policy.permits(connection.peer.ip(), asker.ip(), || connection.signs());
        // A holder that is on its way out is about to give the device back anyway.
        if !permitted && connection.stream.is_some() {
            return self.refuse_import(key, OpStatus::DeviceBusy);
        }
        if connection.stream.is_some() {
            self.end(holder, &End::TakenOver(asker));
        }
        let Some(connection) = find(&mut self.connections, key) else { return };
        // From when it asked first: others that come home meanwhile have it look again.
        connection.deadline.get_or_insert(self.now + HANDSHAKE_TIMEOUT);
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

    pub(super) fn refuse_import(&mut self, key: Key, status: OpStatus) {
        let now = self.now;
        let Some(connection) = find(&mut self.connections, key) else { return };
        connection.answer(|out| op::emit_import(Err(status), out));
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
        result: Result<Ready<<B::Candidate as Candidate>::Port>, OpenError>,
    ) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        let Ready { opened, tables } = match result {
            Ok(ready) => ready,
            Err(error) => {
                warn!("{}: {error}", connection.peer);
                connection.worker = None;
                connection.busid = None;
                return self.refuse_opening(key, error.status);
            }
        };
        let Stage::Opening(device) = std::mem::replace(&mut connection.stage, Stage::Returning)
        else {
            return;
        };
        // Nobody waits for it any more.
        if connection.stream.is_none() || self.stopping.is_some() {
            if let Some(worker) = &connection.worker {
                worker.close(Remains::from(opened), Duration::ZERO);
            }
            return;
        }
        let devid = DevId::new(device.busnum, device.devnum);
        let session = Session::new(devid, self.settings.limits, opened, tables);
        let registry = self.poll.registry();
        for source in session.event_sources() {
            match register(registry, source, Source::Device(key.label())) {
                Ok(()) => connection.device_fds.push(source.fd),
                Err(error) => error!("{}: can't watch the device: {error}", device.busid),
            }
        }
        info!(
            "{}: {}: attached ({:04x}:{:04x})",
            connection.peer, device.busid, device.id_vendor, device.id_product
        );
        connection.answer(|out| op::emit_import(Ok(&device), out));
        if let Some(stream) = &connection.stream {
            net::prepare_attached(stream);
        }
        connection.stage = Stage::Attached(Box::new(session));
        self.attached.push(key);
        self.queue(key);
    }

    /// Answers an import whose device could not be opened, if anybody still waits for it. Others may
    /// wait for the device.
    pub(super) fn refuse_opening(&mut self, key: Key, status: OpStatus) {
        self.refuse_import(key, status);
        self.remove_if_over(key);
        self.wake_takers();
    }
}
