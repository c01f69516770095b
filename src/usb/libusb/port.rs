//! An open real device: submitting, reaping, cancelling, and how the device is closed.
//!
//! A port is made of parts: the device with its [`Claims`], its transfers' requests
//! ([`InFlight`]) and memory ([`PortMemory`]), and whether the device is still there
//! ([`Presence`]).
//!
//! Contract: [`Port`]'s. Calls that do not block there are for the reactor, all others for workers.

use std::time::Instant;

use usbferry_sys::arena::{Arena, Block, DeviceMemory};
use usbferry_sys::libusb::error::{Error, TransferStatus};
use usbferry_sys::libusb::handle::PollFd;
use usbferry_sys::libusb::pass::Pass;
use usbferry_sys::libusb::transfer::{self, CancelToken, Parameters, TransferKind};

use super::claims::Claims;
use super::memory::PortMemory;
use super::pieces::InFlight;
use super::presence::{Presence, RECHECK, RECHECKS_MAX};
use super::share::Cost;
use super::status::{refused_reason, status_of};
use crate::complaints::warn;
use crate::limits::CONTROL_LEN_MAX;
use crate::usb::special::SpecialRequest;
use crate::usb::{
    Completion, EventSource, MemoryChange, Performed, Port, Reaped, Refused, RefusedReason,
    Submission,
};
use crate::wire::iso::PacketsMut;
use crate::wire::status::Status;
use crate::wire::types::TransferType;

/// Transfers reaped in one call of [`Port::reap`], so that a busy device leaves room for others.
const REAP_BUDGET: usize = 256;

/// Bytes of the longest isochronous packet for libusb. Linux itself compares a packet with its
/// endpoint (`usb_submit_urb`: EMSGSIZE, which libusb returns as an invalid parameter). On macOS
/// libusb puts the length into 16 bits, and ends the process for a longer packet (an assertion in
/// `submit_iso_transfer` of `darwin_usb.c`, still there in 1.0.28).
const PACKET_LEN_MAX: u32 = if cfg!(target_os = "macos") { 0xffff } else { u32::MAX };

/// An open real device.
pub struct LibusbPort {
    claims: Claims,
    /// Isochronous packets of a URB at most.
    packets: u32,
    in_flight: InFlight,
    memory: PortMemory,
    presence: Presence,
    /// What the next pass over the device's events is about.
    pass: Pass,
    reset_on_release: bool,
    /// A client has had the device.
    is_attached: bool,
    /// A time in the past.
    opened: Instant,
}

/// A URB slot of a real device.
pub struct LibusbTransfer {
    transfer: transfer::Transfer,
    /// The cost of the URB in flight, as far as the end must tell. Not a [`Cost`], which would be
    /// copied through the stack.
    bytes: u64,
    requests: u32,
}

impl LibusbTransfer {
    /// A slot without a URB.
    pub(super) fn new(transfer: transfer::Transfer) -> Self {
        Self { transfer, bytes: 0, requests: 0 }
    }
}

impl LibusbPort {
    /// A port for a device whose interfaces are claimed, and whose URBs have `packets` isochronous
    /// packets at most.
    pub(super) fn new(
        claims: Claims,
        packets: u32,
        in_flight: InFlight,
        memory: PortMemory,
        reset_on_release: bool,
    ) -> Self {
        Self {
            claims,
            packets,
            in_flight,
            memory,
            presence: Presence::default(),
            pass: Pass::Everything,
            reset_on_release,
            is_attached: false,
            opened: Instant::now(),
        }
    }

    /// Whether libusb may be asked for a transfer, and the system for its memory.
    #[inline(always)]
    fn admit(
        &mut self,
        submission: Submission<'_>,
        cost: Cost,
        now: Instant,
    ) -> Result<(), RefusedReason> {
        let has_many_packets = submission.packets.len() > self.packets as usize;
        if has_many_packets || has_packet_over(PACKET_LEN_MAX, submission) {
            return Err(RefusedReason::Failed(Status::EINVAL));
        }
        let busid = self.claims.busid_ref();
        // If only a later part were refused, libusb would report an error for the parts already
        // sent.
        if cost.requests > 1 && self.memory.can_never_be_had(submission, cost, busid) {
            return Err(self.reason(Error::NoMem, submission, cost, now));
        }
        if !self.memory.has_room(cost, submission.is_first, busid, now) {
            return Err(RefusedReason::Share);
        }
        Ok(())
    }

    /// The reason of a transfer's refusal, by libusb's error.
    #[cold]
    fn reason(
        &mut self,
        error: Error,
        submission: Submission<'_>,
        cost: Cost,
        now: Instant,
    ) -> RefusedReason {
        let reason = refused_reason(error, kind_of(submission.transfer_type));
        if reason == RefusedReason::NoMemory {
            self.memory.note_refused(now);
            if self.memory.can_never_be_had(submission, cost, self.claims.busid_ref()) {
                return RefusedReason::Failed(Status::ENOMEM);
            }
        }
        reason
    }

    /// Collects the transfers still in flight: none, unless cancelling panicked, since the kernel
    /// has given transfers up with their interfaces. A transfer that does not come back keeps the
    /// device open.
    fn take_back(&mut self, transfers: &mut [LibusbTransfer], memory: &mut Arena) {
        let mut looks = RECHECKS_MAX;
        let mut completed = Vec::new();
        while memory.outstanding() > 0 && looks > 0 {
            let _ = self.claims.handle.handle_events(Pass::Everything, &mut completed);
            for slot in completed.drain(..) {
                memory.free(transfers[slot as usize].transfer.take().block);
            }
            looks -= 1;
            std::thread::sleep(RECHECK);
        }
    }
}

/// Whether an isochronous packet is longer than libusb may be asked for.
fn has_packet_over(most: u32, submission: Submission<'_>) -> bool {
    most < u32::MAX && submission.packets.iter().any(|packet| packet.length > most)
}

const fn kind_of(transfer_type: TransferType) -> TransferKind {
    match transfer_type {
        TransferType::Control => TransferKind::Control,
        TransferType::Isochronous => TransferKind::Isochronous,
        TransferType::Bulk => TransferKind::Bulk,
        TransferType::Interrupt => TransferKind::Interrupt,
    }
}

/// The result of a packet.
#[inline]
const fn packet_of((actual_length, status): (u32, TransferStatus)) -> (u32, Status) {
    // libusb has the same error for a failed packet and for a packet that never was on the bus.
    let status = match (status, actual_length) {
        (TransferStatus::Error, 0) => Status::EXDEV,
        (status, _) => status_of(status),
    };
    (actual_length, status)
}

const fn parameters_of(submission: Submission<'_>) -> Parameters {
    Parameters {
        kind: kind_of(submission.transfer_type),
        endpoint: submission.endpoint.as_byte(),
        length: submission.length,
        zero_packet: submission.zero_packet,
    }
}

impl Port for LibusbPort {
    type Transfer = LibusbTransfer;
    type CancelToken = CancelToken;

    const CONTROL_LEN_MAX: usize = CONTROL_LEN_MAX;

    fn attached(&mut self) {
        self.is_attached = true;
    }

    fn event_sources(&self) -> Vec<EventSource> {
        let source = |pollfd: &PollFd| EventSource {
            fd: pollfd.fd,
            readable: pollfd.wants_input(),
            writable: pollfd.wants_output(),
        };
        self.claims.handle.pollfds().iter().map(source).collect()
    }

    fn make_transfer(&mut self, slot: u32) -> Option<LibusbTransfer> {
        let transfer = transfer::Transfer::new(&self.claims.handle, slot).ok()?;
        Some(LibusbTransfer::new(transfer))
    }

    #[inline(always)]
    fn submit(
        &mut self,
        transfer: &mut LibusbTransfer,
        submission: Submission<'_>,
        block: Block,
        now: Instant,
    ) -> Result<(), Refused> {
        let cost = self.in_flight.cost_of(&submission, block.is_in_device_memory());
        if let Err(reason) = self.admit(submission, cost, now) {
            return Err(Refused { block, reason });
        }
        let packets = submission.packets.iter().map(|packet| packet.length);
        transfer
            .transfer
            .submit(&mut self.claims.handle, parameters_of(submission), packets, block)
            .map_err(|(error, block)| {
                let reason = self.reason(error, submission, cost, now);
                Refused { block, reason }
            })?;
        self.memory.note_submitted(submission.length, cost);
        self.in_flight.add(cost.requests);
        (transfer.bytes, transfer.requests) = (cost.bytes, cost.requests);
        Ok(())
    }

    fn reap(&mut self, now: Instant, completed: &mut Vec<u32>) -> Reaped {
        self.memory.look_around();
        let mut gone = self.presence.look(now);
        let mut more = true;
        while more && completed.len() < REAP_BUDGET {
            let before = completed.len();
            let all = self.in_flight.fits_a_pass(before);
            let handled = self.claims.handle.handle_events(self.pass, completed);
            self.pass = if handled.is_ok() { Pass::Ends } else { Pass::Everything };
            gone |= self.presence.note_pass(handled, self.claims.busid_ref(), now);
            // After a pass that may not have reached all requests, only a pass without a result is
            // the end.
            more = !all && completed.len() > before && !gone;
            if handled == Err(Error::Interrupted) {
                more = true;
                break;
            }
        }
        self.presence.note_gone(self.claims.handle.is_gone());
        Reaped { more, gone: self.presence.is_gone() }
    }

    fn take(&mut self, transfer: &mut LibusbTransfer) -> Completion {
        let completed = transfer.transfer.take();
        self.memory.note_ended(transfer.bytes);
        self.in_flight.remove(transfer.requests);
        Completion {
            status: status_of(completed.status),
            actual_length: completed.actual_length,
            block: completed.block,
        }
    }

    fn packet(&self, transfer: &LibusbTransfer, index: usize) -> (u32, Status) {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        packet_of(transfer.transfer.packet(index))
    }

    fn fill_packets(&self, transfer: &LibusbTransfer, packets: &mut PacketsMut<'_>) -> (u32, u32) {
        packets.fill(transfer.transfer.packets(packets.len()).map(packet_of))
    }

    fn look_everywhere(&mut self) {
        self.pass = Pass::Everything;
    }

    fn hung_up(&mut self, now: Instant) {
        self.presence.hung_up(now);
    }

    #[inline(always)]
    fn next_deadline(&self) -> Option<Instant> {
        if self.memory.has_to_give_up() {
            return Some(self.opened);
        }
        self.presence.next_look()
    }

    fn alarms() -> u32 {
        PortMemory::refusals()
    }

    fn cancel_token(transfer: &LibusbTransfer) -> CancelToken {
        transfer.transfer.cancel_token()
    }

    fn cancel(&mut self, token: &CancelToken) {
        match token.cancel_blocking(&mut self.claims.handle) {
            // In any of these cases the transfer is reaped.
            Ok(()) | Err(Error::NotFound | Error::NoDevice) => {}
            Err(error) => warn!("{}: cancelling a transfer: {error}", self.claims.busid()),
        }
    }

    fn perform(&mut self, request: SpecialRequest) -> Performed {
        self.claims.perform(request)
    }

    fn note_idle(&mut self) {
        self.memory.note_idle();
    }

    #[inline(always)]
    fn memory_change(&self) -> Option<MemoryChange> {
        self.memory.change()
    }

    fn change_memory(
        &mut self,
        change: MemoryChange,
        given_up: Option<DeviceMemory>,
    ) -> Option<DeviceMemory> {
        self.memory.change_blocking(change, given_up, &self.claims.handle, self.claims.busid())
    }

    fn others_starve(&self) -> bool {
        self.memory.others_starve()
    }

    fn set_starving(&mut self, starving: bool) {
        self.memory.set_starving(starving);
    }

    fn close(mut self, mut transfers: Vec<LibusbTransfer>, mut memory: Arena) {
        if self.reset_on_release && self.is_attached {
            match self.claims.handle.reset_blocking() {
                Ok(()) | Err(Error::NoDevice | Error::NotFound) => {}
                Err(error) => warn!("{}: resetting the device: {error}", self.claims.busid()),
            }
        }
        self.claims.end();
        self.take_back(&mut transfers, &mut memory);
        self.claims.give_back();
        // Mapped memory keeps the device open, as transfers do.
        drop((transfers, memory));
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
        assert!(!has_packet_over(0xffff, submission(1)));
        assert!(has_packet_over(0xffff, submission(2)));
        assert!(!has_packet_over(u32::MAX, submission(2)), "Linux looks itself");
    }
}
