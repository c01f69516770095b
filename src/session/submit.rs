//! From an arrived SUBMIT to the device.
//!
//! A URB goes to the device at once, or waits: behind a barrier in the order of arrival, or on its
//! endpoint for a slot, for memory, or for the port to come back.
//!
//! The last slots and the last part of the memory are for endpoints with nothing in flight, lest an
//! endpoint which never answers keep the rest out. For want of memory a URB waits without a limit
//! behind earlier URBs of its endpoint, whose turn comes first anyway, and behind replies which the
//! client does not read; else no longer than [`NO_MEMORY_TIMEOUT`], even if other endpoints have
//! URBs in flight.
//!
//! Contract: part of the session: nothing here blocks or allocates.

use std::time::{Duration, Instant};

use usbferry_sys::arena::Block;

use super::Session;
use super::control::Control;
use super::judge::{judge, length_of};
use super::urb::{Urb, UrbIndex, UrbState};
use crate::complaints::warn;
use crate::limits::{ENDPOINT_RESERVE, NO_MEMORY_TIMEOUT};
use crate::usb::special::{self, Class};
use crate::usb::{Port, RefusedReason, Submission};
use crate::wire::iso::Packets;
use crate::wire::setup::{SETUP_LEN, Setup};
use crate::wire::status::Status;
use crate::wire::types::{Direction, TransferType, flags};

/// The time between two attempts for a URB without memory.
const NO_MEMORY_RETRY: Duration = Duration::from_millis(10);

/// Bytes from which on a transfer lets starving devices try first.
const MUCH_MEMORY: usize = 16 << 10;

/// The outcome of an attempt to hand a URB to the device.
pub(super) enum Attempt {
    /// The URB is with the device, or has ended.
    Done,
    /// The URB needs a slot or memory which other URBs have now.
    MustWait,
}

impl<P: Port> Session<P> {
    /// Acts on a SUBMIT which has arrived.
    #[inline(always)]
    pub(super) fn submit_received(&mut self, urb: UrbIndex, now: Instant) {
        self.record_submit(urb);
        let record = self.urbs.get(urb);
        if let Some(status) = record.refusal {
            // A URB whose UNLINK came first is given up, not refused.
            match record.unlink {
                Some(_) => self.end(urb, status, 0),
                None => self.refuse(urb, status),
            }
        } else if self.life.is_device_gone() {
            self.refuse(urb, Status::ENODEV);
        } else if record.behind_barrier {
            self.submit_behind_barrier(urb, now);
        } else {
            // The header came behind no barrier, and since then no other SUBMIT has come.
            debug_assert!(self.barriers.is_open(), "a SUBMIT begins a barrier");
            // Not all by the same call: on the way of most URBs nothing asks for control requests
            // or packets again.
            match record.transfer_type {
                TransferType::Bulk | TransferType::Interrupt => self.enqueue(urb, now),
                TransferType::Isochronous => self.enqueue_again(urb, now),
                TransferType::Control => {
                    if self.is_for_device(urb) {
                        self.enqueue_again(urb, now);
                    }
                }
            }
        }
    }

    /// Acts on a SUBMIT whose header came behind a barrier.
    #[inline(never)]
    fn submit_behind_barrier(&mut self, urb: UrbIndex, now: Instant) {
        if self.barriers.is_open() {
            // The barrier ended while the data arrived.
            self.start_released(urb, now);
        } else {
            self.queue_behind_barrier(urb);
        }
    }

    /// Has a URB wait for the barrier.
    fn queue_behind_barrier(&mut self, urb: UrbIndex) {
        let record = self.urbs.get_mut(urb);
        record.state = UrbState::BehindBarrier;
        if record.transfer_type == TransferType::Control
            && let Class::Special(request) =
                special::classify(&Setup::from_bytes(&record.submit.setup))
        {
            self.note_prospects(request);
        }
        self.barriers.push(urb);
    }

    /// Whether a control request goes to the device; else the request is begun or refused here.
    #[inline(never)]
    fn is_for_device(&mut self, urb: UrbIndex) -> bool {
        match special::classify(&Setup::from_bytes(&self.urbs.get(urb).submit.setup)) {
            Class::Ordinary => return true,
            Class::Special(request) => self.begin_barrier(urb, request),
            Class::Refuse(status) => self.refuse(urb, status),
        }
        false
    }

    /// Starts a URB after a barrier, which may have changed the URB's endpoint.
    #[inline(never)]
    pub(super) fn start_released(&mut self, urb: UrbIndex, now: Instant) {
        if self.urbs.get(urb).transfer_type != TransferType::Control {
            // Later URBs may still wait behind a barrier, but for this URB nothing is open any
            // more.
            let record = self.urbs.get_mut(urb);
            let endpoint = self.endpoints.get(record.submit.endpoint);
            let refusal = judge(record, endpoint, &mut self.control, false);
            // The data was received without room for a SETUP packet in front.
            let became_control = record.transfer_type == TransferType::Control;
            if let Some(status) = refusal.or_else(|| became_control.then_some(Status::EINVAL)) {
                return self.refuse(urb, status);
            }
            self.enqueue_again(urb, now);
        } else if self.is_for_device(urb) {
            self.enqueue_again(urb, now);
        }
    }

    /// Hands a URB to the device, or queues the URB on its endpoint. Inlined, as is
    /// [`Self::attempt`]: most URBs go through both, and each would save and restore the same
    /// registers.
    #[inline(always)]
    fn enqueue(&mut self, urb: UrbIndex, now: Instant) {
        if self.life.is_device_gone() {
            return self.refuse(urb, Status::ENODEV);
        }
        let endpoint = self.urbs.get(urb).submit.endpoint;
        let is_next = self.endpoints.get(endpoint).first_waiting().is_none();
        if !is_next || matches!(self.attempt(urb, now), Attempt::MustWait) {
            self.queue_on_endpoint(urb);
        }
    }

    /// The same for any URB. Apart from the way of most URBs.
    #[inline(never)]
    pub(super) fn enqueue_again(&mut self, urb: UrbIndex, now: Instant) {
        self.enqueue(urb, now);
    }

    #[inline(never)]
    fn queue_on_endpoint(&mut self, urb: UrbIndex) {
        self.urbs.get_mut(urb).state = UrbState::Waiting;
        self.endpoints.push_waiting(&mut self.urbs, urb);
    }

    /// Hands waiting URBs to the device, as far as there is room now.
    #[inline]
    pub(super) fn submit_waiting(&mut self, now: Instant) {
        if self.endpoints.waiting() != 0 || self.buffers.retry.is_some() {
            self.try_waiting(now);
        }
    }

    #[inline(never)]
    fn try_waiting(&mut self, now: Instant) {
        if self.buffers.retry.is_some_and(|at| at > now) {
            return;
        }
        let Some(port) = self.port.here_mut() else { return };
        // The URB without memory may have been given up meanwhile; else the want is noted anew.
        if self.buffers.retry.take().is_some() {
            port.set_starving(false);
        }
        let mut set = self.endpoints.waiting();
        while set != 0 && self.port.is_here() && !self.life.is_device_gone() {
            let index = set.trailing_zeros() as usize;
            set &= set - 1;
            while let Some(urb) = self.endpoints.at(index).first_waiting() {
                let next = self.urbs.get(urb).next;
                if matches!(self.attempt_again(urb, now), Attempt::MustWait) {
                    break;
                }
                // The URB may have ended, and its record be free.
                self.endpoints.forget_first(&mut self.urbs, index, next);
            }
        }
    }

    /// The same as [`Self::attempt`], apart from the way of most URBs.
    #[inline(never)]
    fn attempt_again(&mut self, urb: UrbIndex, now: Instant) -> Attempt {
        self.attempt(urb, now)
    }

    /// Tries to hand a URB to the device.
    #[inline(always)]
    fn attempt(&mut self, urb: UrbIndex, now: Instant) -> Attempt {
        if let Some(answered) = self.answer_stored(urb, now) {
            return answered;
        }
        let Some(port) = self.port.here_mut() else { return Attempt::MustWait };
        let transfer_type = self.urbs.get(urb).transfer_type;
        let (record, packets) = match transfer_type {
            TransferType::Isochronous => self.urbs.get_with_packets(urb),
            _ => (self.urbs.get_mut(urb), Packets::new(&[])),
        };
        let endpoint = self.endpoints.get_mut(record.submit.endpoint);
        let idle = endpoint.in_flight == 0;
        let slots_kept = if idle { 0 } else { ENDPOINT_RESERVE };
        if self.slots.free() <= slots_kept {
            return Attempt::MustWait;
        }
        let Some(length) = length_of(record, packets, &self.control) else {
            self.refuse(urb, Status::EINVAL);
            return Attempt::Done;
        };
        if length >= MUCH_MEMORY && endpoint.starving_since.is_none() && port.others_starve() {
            return self.wait_for_memory(urb, now);
        }
        // The compiler makes a function of the like of `or_else`.
        let block = match record.block.take() {
            None => self.buffers.take(length, idle),
            block => block,
        };
        let Some(mut block) = block else { return self.wait_for_buffer(urb, now) };
        let sizes = (length, idle);
        let submission =
            submission(record, transfer_type, sizes, packets, &mut block, &self.control);
        match self.slots.submit(port, submission, block, urb, now) {
            Ok(slot) => {
                (record.state, record.transfer) = (UrbState::InFlight, slot);
                record.submitted = self.time.now;
                endpoint.in_flight += 1;
                endpoint.starving_since = None;
                endpoint.stats.note_submitted(endpoint.in_flight);
                endpoint.stopwatch.note_submitted(urb, self.time.now);
                Attempt::Done
            }
            Err(refused) => {
                record.block = Some(refused.block);
                self.submit_refused(urb, refused.reason, now)
            }
        }
    }

    /// A URB without room in the device's buffers waits for buffers of other URBs, or is refused if
    /// no other URB has a buffer.
    #[inline(never)]
    pub(super) fn wait_for_buffer(&mut self, urb: UrbIndex, now: Instant) -> Attempt {
        // A client which reads nothing is dropped in the end.
        if self.has_output() {
            return Attempt::MustWait;
        }
        if self.endpoints.any_in_flight(u32::MAX) {
            return self.wait_for_memory(urb, now);
        }
        self.refuse(urb, Status::ENOMEM);
        Attempt::Done
    }

    /// A URB without memory now waits, but not for ever.
    #[inline(never)]
    fn wait_for_memory(&mut self, urb: UrbIndex, now: Instant) -> Attempt {
        let endpoint = self.endpoints.get_mut(self.urbs.get(urb).submit.endpoint);
        if endpoint.in_flight == 0 {
            let since = *endpoint.starving_since.get_or_insert(now);
            // The time is not started anew for later URBs.
            if now >= since + NO_MEMORY_TIMEOUT {
                self.refuse(urb, Status::ENOMEM);
                return Attempt::Done;
            }
        }
        self.buffers.retry = Some(now + NO_MEMORY_RETRY);
        Attempt::MustWait
    }

    /// A URB refused by the system waits or is answered.
    #[inline(never)]
    fn submit_refused(&mut self, urb: UrbIndex, reason: RefusedReason, now: Instant) -> Attempt {
        let endpoint = self.urbs.get(urb).submit.endpoint;
        let is_first = self.endpoints.get(endpoint).in_flight == 0;
        match reason {
            RefusedReason::NoMemory => {
                if !self.buffers.is_warned {
                    self.buffers.is_warned = true;
                    warn!(
                        "the system's memory for USB transfers is used up; transfers wait for each \
                         other. On Linux raise it: \
                         echo 256 > /sys/module/usbcore/parameters/usbfs_memory_mb"
                    );
                }
                let attempt = self.wait_for_memory(urb, now);
                if let (true, Attempt::MustWait, Some(port)) =
                    (is_first, &attempt, self.port.here_mut())
                {
                    port.set_starving(true);
                }
                return attempt;
            }
            RefusedReason::Share if is_first => return self.wait_for_memory(urb, now),
            // The turn comes when an earlier URB of the endpoint ends.
            RefusedReason::Share => return Attempt::MustWait,
            RefusedReason::Gone => {
                self.refuse(urb, Status::ENODEV);
                self.life.note_gone();
            }
            RefusedReason::Failed(status) => self.refuse(urb, status),
        }
        Attempt::Done
    }
}

/// A URB as the port gets it; the buffer is put in a transfer's order. The type is not the
/// record's, which the compiler would load again.
#[inline(always)]
fn submission<'a>(
    record: &mut Urb,
    transfer_type: TransferType,
    (length, is_first): (usize, bool),
    packets: Packets<'a>,
    block: &mut Block,
    control: &Control,
) -> Submission<'a> {
    let submit = &record.submit;
    let out = record.direction == Direction::Out;
    match transfer_type {
        TransferType::Control => {
            block[..SETUP_LEN].copy_from_slice(&control.setup_of(record).to_bytes());
        }
        // A second time, after a refusal, the data is no longer where the client had put it.
        TransferType::Isochronous if out && !record.joined => packets.join(block),
        _ => {}
    }
    let zero_packet = out
        && transfer_type == TransferType::Bulk
        && submit.transfer_flags & flags::ZERO_PACKET != 0;
    record.joined = true;
    let endpoint = submit.endpoint;
    Submission { endpoint, transfer_type, length, zero_packet, is_first, packets }
}
