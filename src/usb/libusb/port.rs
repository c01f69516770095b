//! An open real device: its transfers, and how it is closed.
//!
//! Contract: [`Port`]'s. What does not block there is for the reactor, all else is for workers.

use std::time::{Duration, Instant};

use log::debug;
use usbferry_sys::arena::DeviceMemory;
use usbferry_sys::arena::{Arena, Block};
use usbferry_sys::libusb::error::{Error, TransferStatus};
use usbferry_sys::libusb::handle::DeviceHandle;
use usbferry_sys::libusb::transfer::{self, CancelToken, Kind, Request};

use super::found::Found;
use super::ledger;
use super::memory::PortMemory;
use super::share::Cost;
use super::status::{refused_reason, status_of};
use crate::complaints::warn;
use crate::limits::CONTROL_LEN_MAX;
use crate::usb::special::SpecialRequest;
use crate::usb::{
    Completion, Configuration, EventSource, MemoryChange, Performed, Port, Reaped, Refused,
    RefusedReason, Submission,
};
use crate::wire::status::Status;
use crate::wire::types::{BusId, TransferType};

/// How often to look again after a hang-up: the kernel reports it before libusb can act on it
/// (`usbdev_remove` and `usbdev_poll` of `drivers/usb/core/devio.c`).
const HANGUP_RECHECK: Duration = Duration::from_millis(2);

/// Looks before a hung-up device is taken for gone whatever libusb says: a second.
const HANGUP_RECHECKS_MAX: u32 = 500;

/// Transfers reaped in one call of [`Port::reap`], so that one busy device leaves room for others.
const REAP_BUDGET: usize = 256;

/// Requests that libusb collects from usbfs in one pass over a device's events
/// (`op_handle_events`): fewer in flight, and one pass finds all that have ended.
const PIECES_PER_PASS: usize = 26;

/// Bytes of bulk data where libusb splits them at all, and isochronous packets, that it puts into
/// one request to usbfs in any case (`os/linux_usbfs.h`).
const PIECE_LEN: usize = 16 * 1024;
const PIECE_PACKETS: usize = 128;

/// The longest isochronous packet that libusb takes. Linux looks itself whether one fits its
/// endpoint (`usb_submit_urb`: EMSGSIZE, which libusb returns as an invalid parameter). For macOS
/// libusb puts the length into 16 bits, and ends the process where it does not fit (an assertion in
/// `submit_iso_transfer` of `darwin_usb.c`, still there in 1.0.28).
const PACKET_LEN_MAX: u32 = if cfg!(target_os = "macos") { 0xffff } else { u32::MAX };

/// An open real device.
pub struct LibusbPort {
    pub(super) handle: DeviceHandle,
    pub(super) found: Found,
    pub(super) busid: BusId,
    /// Isochronous packets that its transfers have room for.
    pub(super) packets: u32,
    pub(super) configuration: Option<Configuration>,
    /// The number of the configuration that it was in when it was opened; `None` for none.
    pub(super) found_in: Option<u8>,
    /// Interfaces that are claimed.
    pub(super) claims: Vec<u8>,
    /// Interfaces that kernel drivers had, and get back.
    pub(super) driven: Vec<u8>,
    /// The note of it that outlives this process.
    pub(super) entry: Option<ledger::Entry>,
    pub(super) reset_on_release: bool,
    /// A client has had it.
    pub(super) is_attached: bool,
    /// libusb does not split bulk transfers.
    pub(super) bulk_is_whole: bool,
    /// What each slot's transfer costs the system, and of how many requests all together consist.
    pub(super) costs: Vec<Cost>,
    pub(super) pieces_in_flight: usize,
    pub(super) memory: PortMemory,
    /// When it was opened: a time that has come.
    opened: Instant,
    /// When to look again after a hang-up, and how often that was done.
    pub(super) recheck: Option<Instant>,
    pub(super) rechecks: u32,
    /// When to look again after a pass over its events that failed, and how many did in a row.
    pub(super) retry: Option<Instant>,
    pub(super) failures: u32,
    /// It is gone, as far as this process is concerned.
    pub(super) gone: bool,
}

/// A URB slot of a real device, and its number.
pub struct LibusbTransfer(pub(super) transfer::Transfer, pub(super) u32);

impl LibusbPort {
    /// `device_memory` bytes may be mapped from it. *Blocks.*
    pub(super) fn new(handle: DeviceHandle, found: Found, device_memory: usize) -> Self {
        Self {
            handle,
            busid: found.busid,
            found,
            packets: 0,
            configuration: None,
            found_in: None,
            claims: Vec::new(),
            driven: Vec::new(),
            entry: None,
            reset_on_release: false,
            is_attached: false,
            bulk_is_whole: false,
            costs: Vec::new(),
            pieces_in_flight: 0,
            memory: PortMemory::new_blocking(device_memory),
            opened: Instant::now(),
            recheck: None,
            rechecks: 0,
            retry: None,
            failures: 0,
            gone: false,
        }
    }

    /// What it means that a transfer was refused.
    fn refused(
        &mut self,
        error: Error,
        kind: Kind,
        submission: &Submission<'_>,
        cost: Cost,
        block: Block,
        now: Instant,
    ) -> Refused {
        let mut reason = refused_reason(error, kind);
        if reason == RefusedReason::NoMemory {
            self.memory.note_refused(now);
            if self.memory.can_never_be_had(submission, cost, self.busid) {
                reason = RefusedReason::Failed(Status::ENOMEM);
            }
        }
        Refused { block, reason }
    }

    /// Whether it is time to look again after a hang-up; true when enough is enough.
    fn recheck_hangup(&mut self, now: Instant) -> bool {
        if self.recheck.is_some_and(|at| at <= now) {
            self.rechecks += 1;
            self.recheck = Some(now + HANGUP_RECHECK);
        }
        self.rechecks > HANGUP_RECHECKS_MAX
    }

    /// Whether a pass over its events was the last. A signal may interrupt one, and a system that
    /// is short of something may fail it: neither is an unplug, and it is looked again. Where it
    /// fails for as long as a hang-up may take, its transfers would never end.
    fn is_end(&mut self, handled: Result<(), Error>, now: Instant) -> bool {
        let error = match handled {
            Ok(()) => {
                (self.retry, self.failures) = (None, 0);
                return false;
            }
            Err(Error::Interrupted) => return false,
            Err(Error::NoDevice) => return true,
            Err(error) => error,
        };
        if self.failures == 0 {
            warn!("{}: libusb can't handle its events: {error}", self.busid);
        }
        self.failures += 1;
        self.retry = Some(now + HANGUP_RECHECK);
        self.failures > HANGUP_RECHECKS_MAX
    }
}

impl LibusbPort {
    /// Collects what is still in flight, which is nothing unless cancelling it panicked: the kernel
    /// has given it up with the interfaces. What does not come back keeps the device open.
    fn take_back(&mut self, transfers: &mut [LibusbTransfer], memory: &mut Arena) {
        let mut looks = HANGUP_RECHECKS_MAX;
        let mut completed = Vec::new();
        while memory.outstanding() > 0 && looks > 0 {
            let _ = self.handle.handle_events(&mut completed);
            for slot in completed.drain(..) {
                memory.free(transfers[slot as usize].0.take().block);
            }
            looks -= 1;
            std::thread::sleep(HANGUP_RECHECK);
        }
    }
}

/// Whether an isochronous packet is longer than libusb may be asked for.
fn has_packet_over(most: u32, submission: &Submission<'_>) -> bool {
    most < u32::MAX && submission.packets.iter().any(|packet| packet.length > most)
}

/// The most requests to the system that libusb makes of one transfer.
fn pieces_of(submission: &Submission<'_>, bulk_is_whole: bool) -> usize {
    let pieces = match submission.transfer_type {
        TransferType::Control => 1,
        TransferType::Bulk | TransferType::Interrupt if bulk_is_whole => 1,
        TransferType::Isochronous => submission.packets.len().div_ceil(PIECE_PACKETS),
        TransferType::Bulk | TransferType::Interrupt => submission.length.div_ceil(PIECE_LEN),
    };
    pieces.max(1)
}

impl Port for LibusbPort {
    type Transfer = LibusbTransfer;
    type CancelToken = CancelToken;

    const CONTROL_LEN_MAX: usize = CONTROL_LEN_MAX;

    fn attached(&mut self) {
        self.is_attached = true;
    }

    fn event_sources(&self) -> Vec<EventSource> {
        let source = |pollfd: &usbferry_sys::libusb::handle::PollFd| EventSource {
            fd: pollfd.fd,
            readable: pollfd.wants_input(),
            writable: pollfd.wants_output(),
        };
        self.handle.pollfds().iter().map(source).collect()
    }

    fn submit(
        &mut self,
        transfer: &mut LibusbTransfer,
        submission: &Submission<'_>,
        block: Block,
        now: Instant,
    ) -> Result<(), Refused> {
        if submission.packets.len() > self.packets as usize
            || has_packet_over(PACKET_LEN_MAX, submission)
        {
            return Err(Refused { block, reason: RefusedReason::Failed(Status::EINVAL) });
        }
        let kind = match submission.transfer_type {
            TransferType::Control => Kind::Control,
            TransferType::Isochronous => Kind::Isochronous,
            TransferType::Bulk => Kind::Bulk,
            TransferType::Interrupt => Kind::Interrupt,
        };
        let request = Request {
            kind,
            endpoint: submission.endpoint.as_byte(),
            length: submission.length,
            zero_packet: submission.zero_packet,
        };
        let packets = submission.packets.iter().map(|packet| packet.length);
        let pieces = pieces_of(submission, self.bulk_is_whole);
        let cost = Cost::of(submission, pieces, block.is_in_device_memory());
        // Refused on the way, libusb would call a part that was sent an error.
        if pieces > 1 && self.memory.can_never_be_had(submission, cost, self.busid) {
            return Err(self.refused(Error::NoMem, kind, submission, cost, block, now));
        }
        if !self.memory.has_room(cost, submission.is_first, self.busid, now) {
            return Err(Refused { block, reason: RefusedReason::Share });
        }
        transfer
            .0
            .submit(&mut self.handle, request, packets, block)
            .map_err(|(error, block)| self.refused(error, kind, submission, cost, block, now))?;
        self.memory.note_submitted(submission.length, cost);
        self.costs[transfer.1 as usize] = cost;
        self.pieces_in_flight += pieces;
        Ok(())
    }

    fn reap(&mut self, now: Instant, completed: &mut Vec<u32>) -> Reaped {
        self.memory.look_around();
        let mut gone = self.recheck_hangup(now);
        let mut more = true;
        while more && completed.len() < REAP_BUDGET {
            let (before, all) = (completed.len(), self.pieces_in_flight < PIECES_PER_PASS);
            let handled = self.handle.handle_events(completed);
            gone |= self.is_end(handled, now);
            for &slot in &completed[before..] {
                let cost = self.costs[slot as usize];
                self.memory.note_ended(cost);
                self.pieces_in_flight -= cost.requests;
            }
            // Where it may not have reached all, only a pass that brings nothing is the end.
            more = !all && completed.len() > before && !gone;
            if handled == Err(Error::Interrupted) {
                more = true;
                break;
            }
        }
        self.gone |= gone || self.handle.is_gone();
        Reaped { more, gone: self.gone }
    }

    fn take(&mut self, transfer: &mut LibusbTransfer) -> Completion {
        let completed = transfer.0.take();
        Completion {
            status: status_of(completed.status),
            actual_length: completed.actual_length,
            block: completed.block,
        }
    }

    fn packet(&self, transfer: &LibusbTransfer, index: usize) -> (u32, Status) {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        let (actual_length, status) = transfer.0.packet(index);
        // libusb has one error for a packet that failed and one that never was on the bus.
        let status = match (status, actual_length) {
            (TransferStatus::Error, 0) => Status::EXDEV,
            (status, _) => status_of(status),
        };
        (actual_length, status)
    }

    fn hung_up(&mut self, now: Instant) {
        if self.recheck.is_none() {
            self.recheck = Some(now + HANGUP_RECHECK);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        if self.memory.has_to_give_up() {
            return Some(self.opened);
        }
        // What a device had that is gone is given back with an event.
        [self.recheck, self.retry].into_iter().flatten().min().filter(|_| !self.gone)
    }

    fn cancel_token(transfer: &LibusbTransfer) -> CancelToken {
        transfer.0.cancel_token()
    }

    fn cancel(&mut self, token: &CancelToken) {
        match token.cancel_blocking(&mut self.handle) {
            // Either way it is reaped.
            Ok(()) | Err(Error::NotFound | Error::NoDevice) => {}
            Err(error) => warn!("{}: cancelling a transfer: {error}", self.busid),
        }
    }

    fn perform(&mut self, request: SpecialRequest) -> Performed {
        debug!("{}: {request:?}", self.busid);
        match request {
            SpecialRequest::SetConfiguration(value) => self.set_configuration(value),
            SpecialRequest::SetInterface { interface, alternate } => {
                let found = self.configuration.as_ref().and_then(|c| c.interface(interface));
                if let Some(status) = found.and_then(|interface| interface.refused) {
                    return Performed::Failed(status);
                }
                let result = self.set_interface(interface, alternate);
                self.performed(result)
            }
            SpecialRequest::ClearHalt(endpoint) => {
                match self.handle.clear_halt_blocking(endpoint.as_byte()) {
                    Ok(()) => Performed::Done,
                    Err(Error::NoDevice) => Performed::Gone,
                    // As the kernel's exporter does (see `special`): some devices don't know the
                    // request and go on all the same, and some clients repeat it until it succeeds.
                    Err(error) => {
                        debug!("{}: {endpoint} is left to the device: {error}", self.busid);
                        Performed::Forward
                    }
                }
            }
            SpecialRequest::Reset => self.reset(),
        }
    }

    fn memory_change(&self) -> Option<MemoryChange> {
        self.memory.change()
    }

    fn change_memory(
        &mut self,
        change: MemoryChange,
        given_up: Option<DeviceMemory>,
    ) -> Option<DeviceMemory> {
        self.memory.change_blocking(change, given_up, &self.handle, self.busid)
    }

    fn others_starve(&self) -> bool {
        self.memory.others_starve()
    }

    fn set_starving(&mut self, starving: bool) {
        self.memory.set_starving(starving);
    }

    fn close(mut self, mut transfers: Vec<LibusbTransfer>, mut memory: Arena) {
        if self.reset_on_release && self.is_attached {
            match self.handle.reset_blocking() {
                Ok(()) | Err(Error::NoDevice | Error::NotFound) => {}
                Err(error) => warn!("{}: resetting it: {error}", self.busid),
            }
        }
        self.release_all();
        self.take_back(&mut transfers, &mut memory);
        self.give_back_configuration();
        self.give_back_barred();
        self.give_back_drivers();
        drop(transfers);
        // Mapped memory keeps the device open, so it goes before the handle.
        drop(memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::iso::Packets;
    use crate::wire::types::EndpointAddress;

    #[test]
    fn packets_are_bounded_where_libusb_would_end_the_process() {
        let words = [[0_u32, 0xffff, 0, 0], [0xffff, 0x1_0000, 0, 0]];
        let bytes = words.as_flattened().iter().flat_map(|word| word.to_be_bytes());
        let bytes: Vec<u8> = bytes.collect();
        let submission = |count: usize| Submission {
            endpoint: EndpointAddress::from_byte(0x81),
            transfer_type: TransferType::Isochronous,
            length: 0x1_ffff,
            zero_packet: false,
            is_first: true,
            packets: Packets::new(&bytes[..count * 16]),
        };
        assert!(!has_packet_over(0xffff, &submission(1)));
        assert!(has_packet_over(0xffff, &submission(2)));
        assert!(!has_packet_over(u32::MAX, &submission(2)), "Linux looks itself");
    }
}
