//! From the device to a queued reply: all ways in which a URB can end meet in [`Session::end`].
//!
//! Contract: part of the session: nothing here blocks or allocates.

use std::time::Instant;

use log::{Level, log_enabled, trace};

use super::Session;
use super::urb::{NO_URB, Urb, UrbIndex, UrbState};
use crate::usb::Port;
use crate::wire::setup::Setup;
use crate::wire::status::Status;
use crate::wire::types::{DevId, Direction, TransferType, flags};

/// The result of a packet which never was on the bus.
const NOT_TRANSFERRED: (u32, Status) = (0, Status::EXDEV);

impl<P: Port> Session<P> {
    /// Takes up a transfer which has ended.
    ///
    /// Where a cancel ends all transfers of the endpoint, bystanders must not look cancelled: a
    /// driver takes ECONNRESET for its own UNLINK, and never sends the URB again. A bystander goes
    /// again. The time of an isochronous bystander has passed: its packets were missed, which
    /// drivers of isochronous endpoints put up with.
    #[inline(always)]
    pub(super) fn handle_completion(&mut self, slot: u32, now: Instant) {
        let Some(port) = self.port.here_mut() else { unreachable!("the port has just found it") };
        let (urb, completion) = self.slots.end(port, slot);
        // Looked up once: a store elsewhere might change the table, as far as the compiler knows.
        let record = self.urbs.get_mut(urb);
        record.transfer = NO_URB;
        record.block = Some(completion.block);
        let endpoint = self.endpoints.get_mut(record.submit.endpoint);
        endpoint.in_flight -= 1;
        if record.cancelling {
            self.slots.forget_cancel(slot);
        }
        if self.life.is_tearing_down() {
            return self.buffers.free_record_apart(&mut self.urbs, urb);
        }
        let (mut status, mut actual_length) = (completion.status, completion.actual_length);
        let is_bystander =
            self.slots.cancels_pipe && status == Status::ECONNRESET && !record.cancelling;
        if record.transfer_type == TransferType::Isochronous {
            return self.end_isochronous(urb, slot, status, is_bystander);
        }
        if is_bystander && actual_length == 0 {
            endpoint.stopwatch.note_returned(urb);
            return self.enqueue_again(urb, now);
        }
        if record.transfer_type == TransferType::Control {
            (status, actual_length) = self.control.result_of(record, status, actual_length);
        }
        let (status, actual_length) = result_of(record, status, actual_length);
        endpoint.stats.note_ended(record.direction, status, actual_length);
        endpoint.stopwatch.note_ended(urb, record.submitted, self.time.now);
        record.status = status;
        record.actual_length = actual_length;
        if record.packets > 0 {
            return self.end(urb, status, actual_length);
        }
        if record.is_answered_apart() || log_enabled!(Level::Trace) || self.recording.is_on() {
            return self.answer(urb, status, actual_length);
        }
        if self.tx.push_without_packets(record, urb) {
            self.buffers.free_record(&mut self.urbs, urb);
        } else {
            self.keep_for_reply(urb);
        }
    }

    /// Ends an isochronous URB after the device: each packet has a result of its own. The URB's
    /// status says only whether the whole URB was cut short (driver-api/usb/error-codes).
    #[inline(never)]
    fn end_isochronous(&mut self, urb: UrbIndex, slot: u32, status: Status, is_bystander: bool) {
        let Some(port) = self.port.here() else { unreachable!("the port has just found it") };
        let transfer = &self.slots.transfers[slot as usize];
        let mut packets = self.urbs.packets_mut(urb);
        let (sum, errors) = match is_bystander {
            true => packets.fill(std::iter::repeat(NOT_TRANSFERRED)),
            false => port.fill_packets(transfer, &mut packets),
        };
        let record = self.urbs.get_mut(urb);
        record.error_count = errors;
        let status = match status {
            Status::ECONNRESET | Status::ESHUTDOWN | Status::ENODEV if !is_bystander => status,
            _ => Status::OK,
        };
        let endpoint = self.endpoints.get_mut(record.submit.endpoint);
        endpoint.stats.note_packets(errors);
        endpoint.stats.note_ended(record.direction, status, sum);
        endpoint.stopwatch.note_ended(urb, record.submitted, self.time.now);
        self.answer(urb, status, sum);
    }

    /// Answers a URB which the device never had with an error.
    #[inline(never)]
    pub(super) fn refuse(&mut self, urb: UrbIndex, status: Status) {
        self.tally.refused += 1;
        self.urbs.get_mut(urb).refusal = Some(status);
        self.end(urb, status, 0);
    }

    /// Ends a URB without a result of the device, or other than isochronous: queues the reply, or
    /// the RET_UNLINK in its place. The record may be free then.
    #[inline(never)]
    pub(super) fn end(&mut self, urb: UrbIndex, status: Status, actual_length: u32) {
        // Packets without the device all failed; the reply must still carry them, or the client's
        // driver could not use the URB again.
        if self.urbs.get(urb).packets > 0 {
            let not_transferred = std::iter::repeat(NOT_TRANSFERRED);
            let (_, errors) = self.urbs.packets_mut(urb).fill(not_transferred);
            self.urbs.get_mut(urb).error_count = errors;
        }
        self.answer(urb, status, actual_length);
    }

    /// Answers a URB that has ended, in whatever way.
    #[inline(never)]
    fn answer(&mut self, urb: UrbIndex, status: Status, actual_length: u32) {
        let record = self.urbs.get_mut(urb);
        record.status = status;
        record.actual_length = actual_length;
        let is_special = record.is_answered_apart();
        if log_enabled!(Level::Trace) {
            trace_end(self.devid, record);
        }
        self.record_end(urb);
        if is_special {
            self.answer_apart(urb, status, actual_length);
        } else {
            self.reply(urb);
        }
    }

    /// Answers a URB that was refused or unlinked.
    #[inline(never)]
    fn answer_apart(&mut self, urb: UrbIndex, status: Status, actual_length: u32) {
        let record = self.urbs.get(urb);
        if record.unanswered {
            return self.buffers.free_record_apart(&mut self.urbs, urb);
        }
        if let Some(unlink) = record.unlink {
            return self.answer_unlinked(urb, unlink, status, actual_length);
        }
        self.queue_reply(urb);
    }

    /// Queues a URB's RET_SUBMIT. The record may be free then.
    pub(super) fn queue_reply(&mut self, urb: UrbIndex) {
        if self.urbs.get(urb).refusal.is_some() {
            self.tx.push_unstaged(urb);
            self.keep_for_reply(urb);
        } else {
            self.reply(urb);
        }
    }

    /// Queues the RET_SUBMIT of a URB that was not refused. The record may be free then.
    fn reply(&mut self, urb: UrbIndex) {
        if self.tx.push_submit(&self.urbs, urb) {
            self.buffers.free_record_apart(&mut self.urbs, urb);
        } else {
            self.keep_for_reply(urb);
        }
    }

    /// Keeps the record of a URB whose reply waits. The buffer goes home now unless there is data
    /// for the client.
    #[inline(never)]
    fn keep_for_reply(&mut self, urb: UrbIndex) {
        let record = self.urbs.get_mut(urb);
        record.state = UrbState::Replying;
        let has_data = record.direction == Direction::In && record.actual_length > 0;
        if !has_data && let Some(block) = record.block.take() {
            self.buffers.free(block);
        }
    }
}

/// The line of the log about a URB that has ended, for who asked for such lines. Apart from the
/// path of URBs, which pays for a comparison only.
#[cold]
#[inline(never)]
pub(super) fn trace_end(devid: DevId, record: &Urb) {
    let Urb { submit, direction, transfer_type, status, actual_length, .. } = record;
    trace!(
        "{devid} {}: {transfer_type:?} {direction:?}, endpoint {}, {} bytes: {status}, \
         {actual_length} bytes moved",
        submit.seqnum,
        submit.endpoint.number(),
        submit.transfer_buffer_length,
    );
}

/// The result for the client of a transfer other than isochronous.
pub(super) fn result_of(record: &Urb, status: Status, actual: u32) -> (Status, u32) {
    let requested = record.submit.transfer_buffer_length;
    // A control transfer moves the length in the SETUP packet, which may be more than the
    // client has room for.
    let moved = match record.transfer_type {
        TransferType::Control => actual.min(Setup::from_bytes(&record.submit.setup).length.into()),
        _ => actual.min(requested),
    };
    let short_not_ok = record.direction == Direction::In
        && record.submit.transfer_flags & flags::SHORT_NOT_OK != 0;
    if moved > requested {
        (Status::EOVERFLOW, requested)
    } else if status == Status::OK && short_not_ok && moved < requested {
        (Status::EREMOTEIO, moved)
    } else {
        (status, moved)
    }
}
