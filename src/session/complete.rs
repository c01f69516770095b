//! From the device to a queued reply: all ways in which a URB can end meet in [`Session::end`].
//!
//! Contract: part of the session, so nothing here blocks or allocates.

use std::time::Instant;

use super::Session;
use super::urb::{NO_URB, UrbIndex, UrbState};
use crate::usb::Port;
use crate::wire::setup::Setup;
use crate::wire::status::Status;
use crate::wire::types::{Direction, TransferType, flags};

/// How a packet ends that never was on the bus.
const NOT_TRANSFERRED: (u32, Status) = (0, Status::EXDEV);

impl<P: Port> Session<P> {
    /// Takes up a transfer that has ended.
    ///
    /// Where one can't be cancelled without all others of its endpoint, those that nobody gave up
    /// must not look as if somebody had: a driver takes ECONNRESET for its own UNLINK, and sends
    /// that URB no more. They go again. An isochronous one does not, its time has passed: its
    /// packets were missed, which drivers of such endpoints put up with.
    pub(super) fn handle_completion(&mut self, slot: u32, now: Instant) {
        let Some(port) = self.port.here_mut() else { unreachable!("the port has just found it") };
        let (urb, completion) = self.slots.end(port, slot);
        let record = self.urbs.get_mut(urb);
        record.transfer = NO_URB;
        record.block = Some(completion.block);
        self.endpoints.get_mut(record.submit.endpoint).in_flight -= 1;
        if record.cancelling {
            self.slots.forget_cancel(slot);
        }
        if self.life.is_tearing_down() {
            return self.buffers.free_record(&mut self.urbs, urb);
        }
        let (mut status, mut actual_length) = (completion.status, completion.actual_length);
        let is_bystander =
            self.slots.cancels_pipe && status == Status::ECONNRESET && !record.cancelling;
        if record.transfer_type == TransferType::Isochronous {
            return self.end_isochronous(urb, slot, status, is_bystander);
        }
        if is_bystander && actual_length == 0 {
            return self.enqueue(urb, now);
        }
        if record.transfer_type == TransferType::Control {
            (status, actual_length) = self.control.result_of(record, status, actual_length);
        }
        let (status, actual_length) = self.result_of(urb, status, actual_length);
        self.note_ended(urb, status, actual_length);
        self.end(urb, status, actual_length);
    }

    /// Counts a URB that the device has ended.
    fn note_ended(&mut self, urb: UrbIndex, status: Status, actual_length: u32) {
        let record = self.urbs.get(urb);
        let (endpoint, direction) = (record.submit.endpoint, record.direction);
        self.counters.note_ended(endpoint, direction, status, actual_length);
    }

    /// What the client is told of a transfer that is not isochronous.
    pub(super) fn result_of(&self, urb: UrbIndex, status: Status, actual: u32) -> (Status, u32) {
        let record = self.urbs.get(urb);
        let requested = record.submit.transfer_buffer_length;
        // A control transfer moves what its SETUP packet says, which may be more than the client
        // has room for.
        let moved = match record.transfer_type {
            TransferType::Control => {
                actual.min(Setup::from_bytes(&record.submit.setup).length.into())
            }
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

    /// Ends an isochronous URB that was with the device: each packet has a result of its own. The
    /// URB's status says only whether it was cut short as a whole (driver-api/usb/error-codes).
    fn end_isochronous(&mut self, urb: UrbIndex, slot: u32, status: Status, is_bystander: bool) {
        let Some(port) = self.port.here() else { unreachable!("the port has just found it") };
        let transfer = &self.slots.transfers[slot as usize];
        let result_of = |index, _| match is_bystander {
            true => NOT_TRANSFERRED,
            false => port.packet(transfer, index),
        };
        let (sum, errors) = self.urbs.packets_mut(urb).fill(result_of);
        let record = self.urbs.get_mut(urb);
        record.error_count = errors;
        self.counters.note_packets(record.submit.endpoint, errors);
        let status = match status {
            Status::ECONNRESET | Status::ESHUTDOWN | Status::ENODEV if !is_bystander => status,
            _ => Status::OK,
        };
        self.note_ended(urb, status, sum);
        self.answer(urb, status, sum);
    }

    /// Answers a URB with an error that the device never had.
    pub(super) fn refuse(&mut self, urb: UrbIndex, status: Status) {
        self.counters.refused += 1;
        self.end(urb, status, 0);
    }

    /// Ends a URB without a result of the device, or one that is not isochronous: its reply, or
    /// what takes its place, is queued.
    pub(super) fn end(&mut self, urb: UrbIndex, status: Status, actual_length: u32) {
        // Packets that never were with the device all failed; the reply must still carry them,
        // or the client's driver could not use the URB again.
        if self.urbs.get(urb).packets > 0 {
            let (_, errors) = self.urbs.packets_mut(urb).fill(|_, _| NOT_TRANSFERRED);
            self.urbs.get_mut(urb).error_count = errors;
        }
        self.answer(urb, status, actual_length);
    }

    fn answer(&mut self, urb: UrbIndex, status: Status, actual_length: u32) {
        let record = self.urbs.get_mut(urb);
        record.status = status;
        record.actual_length = actual_length;
        if record.unanswered {
            return self.buffers.free_record(&mut self.urbs, urb);
        }
        if let Some(unlink) = record.unlink {
            return self.answer_unlinked(urb, unlink, status, actual_length);
        }
        self.queue_reply(urb);
    }

    /// Queues a URB's RET_SUBMIT. Its buffer goes home now unless it has data for the client.
    pub(super) fn queue_reply(&mut self, urb: UrbIndex) {
        let record = self.urbs.get_mut(urb);
        record.state = UrbState::Replying;
        let has_data = record.direction == Direction::In && record.actual_length > 0;
        if !has_data && let Some(block) = record.block.take() {
            self.buffers.free(block);
        }
        self.tx.push_submit(urb);
    }
}
