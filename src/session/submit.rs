//! From the first byte of a SUBMIT to the device.
//!
//! A header is judged when it has arrived: what can't be carried out gets a refusal, its payload is
//! thrown away and its reply sent when the PDU is whole, so that the stream stays in step. The rest
//! goes to the device at once, or waits: behind a barrier in the order it came, or on its endpoint
//! for a slot, for memory, or for the port to come back.
//!
//! So that an endpoint that never answers can't keep the others out, the last slots and the last
//! part of the memory are for endpoints that have nothing in flight. For want of memory a URB waits
//! without a limit behind others of its endpoint, whose turn comes first anyway, and behind replies
//! that the client does not read; else no longer than [`NO_MEMORY_TIMEOUT`], whatever other
//! endpoints have in flight.

use std::time::Instant;

use usbferry_sys::arena::Block;

use super::control::Control;
use super::endpoints::EndpointState;
use super::rx::{Shape, Stage};
use super::urb::{Urb, UrbIndex, UrbState};
use super::{Session, Violation};
use crate::complaints::warn;
use crate::limits::{ENDPOINT_RESERVE, NO_MEMORY_RETRY, NO_MEMORY_TIMEOUT, URBS_REFUSED_MAX};
use crate::usb::special::{self, Class};
use crate::usb::{Port, RefusedReason, Submission};
use crate::wire::iso::{DESCRIPTOR_LEN, Packets};
use crate::wire::pdu::{CmdSubmit, Command, HEADER_LEN};
use crate::wire::setup::{SETUP_LEN, Setup};
use crate::wire::status::Status;
use crate::wire::types::{Direction, TransferType, flags};

/// Bytes of a transfer from which on it lets other devices that starve try first.
const MUCH_MEMORY: usize = 16 << 10;

/// What became of an attempt to hand a URB to the device.
pub(super) enum Attempt {
    /// It is with the device, or has ended.
    Settled,
    /// It needs something that others have now.
    MustWait,
}

impl<P: Port> Session<P> {
    /// Acts on what was received, PDU by PDU, until a part of one is missing.
    pub(super) fn parse(&mut self, now: Instant) -> Result<(), Violation> {
        self.held_up = false;
        loop {
            match self.rx.stage {
                Stage::Header => {
                    if !self.wants_input() {
                        self.held_up = true;
                        return Ok(());
                    }
                    let Some(header) = self.rx.take_array::<HEADER_LEN>() else { return Ok(()) };
                    match Command::parse(header)? {
                        Command::Submit(submit) => self.begin_submit(submit, now)?,
                        Command::Unlink(unlink) => self.handle_unlink(&unlink, now)?,
                    }
                }
                _ if !self.rx.has_unparsed() => return Ok(()),
                Stage::Payload { urb, filled, end } => {
                    let bytes = self.rx.take_up_to(end - filled);
                    let filled_now = filled + bytes.len();
                    if let Some(block) = &mut self.urbs.get_mut(urb).block {
                        block[filled..filled_now].copy_from_slice(bytes);
                    }
                    self.payload_received(urb, filled_now, end, now);
                }
                Stage::Discard { urb, remaining } => {
                    let remaining = remaining - self.rx.take_up_to(remaining).len();
                    self.rx.stage = Stage::Discard { urb, remaining };
                    if remaining == 0 {
                        self.begin_packets(urb, now);
                    }
                }
                Stage::Packets { urb, filled, end } => {
                    let bytes = self.rx.take_up_to(end - filled);
                    let filled_now = filled + bytes.len();
                    self.urbs.descriptors_mut(urb)[filled..filled_now].copy_from_slice(bytes);
                    self.rx.stage = Stage::Packets { urb, filled: filled_now, end };
                    if filled_now == end {
                        self.pdu_received(urb, now);
                    }
                }
            }
        }
    }

    /// Whether [`Self::parse`] has stopped at a PDU because replies must be read first.
    pub(crate) const fn is_held_up(&self) -> bool {
        self.held_up
    }

    /// Takes up a SUBMIT whose header has arrived.
    fn begin_submit(&mut self, submit: CmdSubmit, now: Instant) -> Result<(), Violation> {
        if submit.devid != self.devid {
            return Err(Violation::WrongDevice(submit.devid));
        }
        if self.urbs.find(submit.seqnum).is_some() {
            return Err(Violation::DuplicateSeqnum(submit.seqnum));
        }
        let too_long = submit.transfer_buffer_length as usize > self.limits.urb_len;
        if too_long && submit.payload_len() > 0 {
            return Err(Violation::TooLong(submit.transfer_buffer_length));
        }
        let behind_barrier = self.is_behind_barrier();
        if !behind_barrier {
            self.prospects.clear();
        }
        let packets = self.packets_that_follow(&submit)?;
        if packets > 0 {
            self.compare_interval(&submit);
        }
        let early_unlink = self.note_submit(submit.seqnum);
        let free = match packets {
            0 => self.urbs.free(),
            _ => self.urbs.free_for_packets(),
        };
        let refused = free <= URBS_REFUSED_MAX || too_long;
        let urb = self.urbs.insert(submit, packets);
        let record = self.urbs.get_mut(urb);
        (record.behind_barrier, record.unlink) = (behind_barrier, early_unlink);
        record.refusal = match (early_unlink, refused) {
            (Some(_), _) => Some(Status::ECONNRESET),
            (None, true) => Some(Status::ENOMEM),
            (None, false) => {
                let endpoint = self.endpoints.get(submit.endpoint);
                judge(record, endpoint, &mut self.control, behind_barrier)
            }
        };
        self.begin_payload(urb, now);
        Ok(())
    }

    /// Whether what comes now comes behind a special request.
    fn is_behind_barrier(&self) -> bool {
        self.barrier.is_some() || !self.held.is_empty()
    }

    /// The number of packet descriptors at the end of a SUBMIT. There are some only if its endpoint
    /// is isochronous; where it is not, clients leave anything in that field. Where it may be, see
    /// [`super::prospects`], a number that can be one is believed. So it is for an endpoint that
    /// the settings in force do not have, if no other was asked for: the client looked at other
    /// ones then, unless all that have the endpoint agree that it has no packets.
    fn packets_that_follow(&self, submit: &CmdSubmit) -> Result<u32, Violation> {
        let known = self.endpoints.get(submit.endpoint).transfer_type;
        let may_be = match known {
            Some(TransferType::Isochronous) if !self.prospects.are_open() => {
                return Ok(submit.iso_packets()?);
            }
            Some(TransferType::Isochronous) => true,
            None if !self.prospects.are_open() => {
                !self.prospects.is_never_isochronous(submit.endpoint)
            }
            _ => self.prospects.may_be_isochronous(submit.endpoint),
        };
        Ok(if may_be { submit.iso_packets().unwrap_or(0) } else { 0 })
    }

    /// Says once if the client's driver counts on another interval than the host will keep. What it
    /// sends or asks for is then too late or too early, and nothing else tells why.
    fn compare_interval(&mut self, submit: &CmdSubmit) {
        let host = self.endpoints.get(submit.endpoint).interval;
        if self.interval_warned || !is_other_interval(submit.interval, host) {
            return;
        }
        self.interval_warned = true;
        warn!(
            "{}: the client's driver wants an isochronous packet of endpoint {:#04x} each {} \
             (micro)frames, but by the device's bInterval the host moves one each {host}, and \
             programs like this can't choose: what it plays or records will not keep time",
            self.devid,
            submit.endpoint.as_byte(),
            submit.interval,
        );
    }

    /// Prepares for a SUBMIT's OUT data, if any follows.
    fn begin_payload(&mut self, urb: UrbIndex, now: Instant) {
        let record = self.urbs.get_mut(urb);
        let len = match record.direction {
            Direction::Out => record.submit.transfer_buffer_length as usize,
            Direction::In => 0,
        };
        if len == 0 {
            self.rx.begin_nothing();
            return self.begin_packets(urb, now);
        }
        let offset = record.data_offset();
        let descriptors = record.packets as usize * DESCRIPTOR_LEN;
        let shape = Shape { endpoint: record.submit.endpoint, len, descriptors };
        let fits = record.refusal.is_none() && offset == 0;
        if let Some((block, filled)) = self.rx.begin_payload(shape, fits) {
            record.block = Some(block);
            return self.payload_received(urb, filled, len, now);
        }
        self.rx.free_unused(&mut self.buffers);
        let endpoint = self.endpoints.get(record.submit.endpoint);
        // What is held is counted nowhere yet.
        let idle =
            endpoint.in_flight == 0 && endpoint.first_waiting().is_none() && !record.behind_barrier;
        // The payload is coming whether there is room for it or not.
        if record.refusal.is_none() {
            record.block = self.buffers.take(offset + len, idle);
            record.refusal = record.block.is_none().then_some(Status::ENOMEM);
        }
        self.rx.stage = if record.block.is_some() {
            Stage::Payload { urb, filled: offset, end: offset + len }
        } else {
            Stage::Discard { urb, remaining: len }
        };
    }

    /// Notes that a payload is there up to `filled`.
    pub(super) fn payload_received(
        &mut self,
        urb: UrbIndex,
        filled: usize,
        end: usize,
        now: Instant,
    ) {
        self.rx.stage = Stage::Payload { urb, filled, end };
        if filled == end {
            self.begin_packets(urb, now);
        }
    }

    /// Prepares for a SUBMIT's packet descriptors, if any follow.
    fn begin_packets(&mut self, urb: UrbIndex, now: Instant) {
        let end = self.urbs.get(urb).packets as usize * DESCRIPTOR_LEN;
        if end == 0 {
            return self.pdu_received(urb, now);
        }
        self.rx.stage = Stage::Packets { urb, filled: 0, end };
    }

    /// Acts on a SUBMIT that has arrived.
    #[inline]
    fn pdu_received(&mut self, urb: UrbIndex, now: Instant) {
        self.rx.stage = Stage::Header;
        if let Some(status) = self.urbs.get(urb).refusal {
            // An UNLINK that came before it gives it up.
            match self.urbs.get(urb).unlink {
                Some(_) => self.finish(urb, status, 0),
                None => self.refuse(urb, status),
            }
        } else if self.gone {
            self.refuse(urb, Status::ENODEV);
        } else if self.is_behind_barrier() {
            self.hold(urb);
        } else if self.urbs.get(urb).behind_barrier {
            // The barrier ended while its data arrived.
            self.start_held(urb, now);
        } else {
            self.start(urb, now);
        }
    }

    /// Has a URB wait for the barrier.
    fn hold(&mut self, urb: UrbIndex) {
        let record = self.urbs.get_mut(urb);
        record.state = UrbState::Held;
        if record.transfer_type == TransferType::Control
            && let Class::Special(request) =
                special::classify(&Setup::from_bytes(&record.submit.setup))
        {
            self.note_prospects(request);
        }
        self.held.push_back(urb);
    }

    /// Starts a URB that nothing stands before any more. Inlined, as is [`Self::enqueue`]: every
    /// URB goes through both, and each would save and restore the same registers.
    #[inline(always)]
    pub(super) fn start(&mut self, urb: UrbIndex, now: Instant) {
        let record = self.urbs.get(urb);
        if record.transfer_type != TransferType::Control {
            return self.enqueue(urb, now);
        }
        match special::classify(&Setup::from_bytes(&record.submit.setup)) {
            Class::Ordinary => self.enqueue(urb, now),
            Class::Special(request) => self.begin_barrier(urb, request),
            Class::Refuse(status) => self.refuse(urb, status),
        }
    }

    /// Starts a URB that waited for a barrier: the barrier may have changed its endpoint.
    pub(super) fn start_held(&mut self, urb: UrbIndex, now: Instant) {
        if self.urbs.get(urb).transfer_type != TransferType::Control {
            // Others may still be held, but for this one nothing is open any more.
            let record = self.urbs.get_mut(urb);
            let endpoint = self.endpoints.get(record.submit.endpoint);
            let refusal = judge(record, endpoint, &mut self.control, false);
            // Its data was received without room for a SETUP packet in front.
            let became_control = record.transfer_type == TransferType::Control;
            if let Some(status) = refusal.or_else(|| became_control.then_some(Status::EINVAL)) {
                return self.refuse(urb, status);
            }
        }
        self.start(urb, now);
    }

    /// Hands a URB to the device, or queues it on its endpoint.
    #[inline(always)]
    pub(super) fn enqueue(&mut self, urb: UrbIndex, now: Instant) {
        if self.gone {
            return self.refuse(urb, Status::ENODEV);
        }
        let endpoint = self.urbs.get(urb).submit.endpoint;
        let is_next = self.endpoints.get(endpoint).first_waiting().is_none();
        if !is_next || matches!(self.attempt(urb, now), Attempt::MustWait) {
            self.urbs.get_mut(urb).state = UrbState::Waiting;
            self.endpoints.push_waiting(&mut self.urbs, urb);
        }
    }

    /// Hands to the device what waited, as far as it now can.
    pub(super) fn submit_waiting(&mut self, now: Instant) {
        let Some(port) =
            self.port.as_mut().filter(|_| self.buffers.retry.is_none_or(|at| at <= now))
        else {
            return;
        };
        // What there was no memory for may have been given up meanwhile; else it is noted anew.
        if self.buffers.retry.take().is_some() {
            port.set_starving(false);
        }
        let mut set = self.endpoints.waiting();
        while set != 0 && self.port.is_some() && !self.gone {
            let index = set.trailing_zeros() as usize;
            set &= set - 1;
            while let Some(urb) = self.endpoints.at(index).first_waiting() {
                if matches!(self.attempt(urb, now), Attempt::MustWait) {
                    break;
                }
                self.endpoints.remove_waiting(&mut self.urbs, urb);
            }
        }
    }

    /// Tries to hand a URB to the device.
    fn attempt(&mut self, urb: UrbIndex, now: Instant) -> Attempt {
        if let Some(answered) = self.answer_stored(urb, now) {
            return answered;
        }
        let Some(port) = &mut self.port else { return Attempt::MustWait };
        let (record, packets) = self.urbs.get_with_packets(urb);
        let endpoint = self.endpoints.get_mut(record.submit.endpoint);
        let idle = endpoint.in_flight == 0;
        let slots_kept = if idle { 0 } else { ENDPOINT_RESERVE };
        if self.slots.free() <= slots_kept {
            return Attempt::MustWait;
        }
        let Some(length) = length_of(record, packets, &self.control) else {
            self.refuse(urb, Status::EINVAL);
            return Attempt::Settled;
        };
        if length >= MUCH_MEMORY && endpoint.starving_since.is_none() && port.others_starve() {
            return self.wait_for_memory(urb, now);
        }
        let new = || self.buffers.take(length, idle);
        let Some(mut block) = record.block.take().or_else(new) else {
            return self.wait_for_buffer(urb, now);
        };
        let submission = submission(record, packets, length, idle, &mut block, &self.control);
        match self.slots.submit(port, &submission, (urb, block), now) {
            Ok(slot) => {
                (record.state, record.transfer) = (UrbState::InFlight, slot);
                endpoint.in_flight += 1;
                endpoint.starving_since = None;
                self.counters.note_submitted(submission.endpoint, endpoint.in_flight);
                Attempt::Settled
            }
            Err(refused) => {
                record.block = Some(refused.block);
                self.submit_refused(urb, refused.reason, now)
            }
        }
    }

    /// What to do with a URB for which the device's buffers have no room: wait for what others will
    /// give back, or give it up where there are no others.
    pub(super) fn wait_for_buffer(&mut self, urb: UrbIndex, now: Instant) -> Attempt {
        // A client that reads nothing is dropped in the end.
        if self.has_output() {
            return Attempt::MustWait;
        }
        if self.endpoints.any_in_flight(u32::MAX) {
            return self.wait_for_memory(urb, now);
        }
        self.refuse(urb, Status::ENOMEM);
        Attempt::Settled
    }

    /// What to do with a URB for which there is no memory now.
    fn wait_for_memory(&mut self, urb: UrbIndex, now: Instant) -> Attempt {
        let endpoint = self.endpoints.get_mut(self.urbs.get(urb).submit.endpoint);
        if endpoint.in_flight == 0 {
            let since = *endpoint.starving_since.get_or_insert(now);
            // The time is not started anew for those behind it.
            if now >= since + NO_MEMORY_TIMEOUT {
                self.refuse(urb, Status::ENOMEM);
                return Attempt::Settled;
            }
        }
        self.buffers.retry = Some(now + NO_MEMORY_RETRY);
        Attempt::MustWait
    }

    /// What to do with a URB that the system refused.
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
                if let (true, Attempt::MustWait, Some(port)) = (is_first, &attempt, &mut self.port)
                {
                    port.set_starving(true);
                }
                return attempt;
            }
            RefusedReason::Share if is_first => return self.wait_for_memory(urb, now),
            // Its turn comes when one before it on its endpoint ends.
            RefusedReason::Share => return Attempt::MustWait,
            RefusedReason::Gone => {
                self.refuse(urb, Status::ENODEV);
                self.lost = true;
            }
            RefusedReason::Failed(status) => self.refuse(urb, status),
        }
        Attempt::Settled
    }
}

/// Looks at a URB's endpoint and request as they are now; a status if it can't be carried out.
/// Behind a barrier the endpoint is not known yet and is looked at again when it is over.
fn judge(
    record: &mut Urb,
    endpoint: &EndpointState,
    control: &mut Control,
    behind_barrier: bool,
) -> Option<Status> {
    let has_packets = record.packets > 0;
    record.transfer_type = match endpoint.transfer_type {
        Some(transfer_type) => transfer_type,
        None if behind_barrier && has_packets => TransferType::Isochronous,
        None if behind_barrier => TransferType::Bulk,
        None => return Some(Status::ENOENT),
    };
    if record.transfer_type == TransferType::Control {
        return endpoint.refused.or_else(|| control.judge(record));
    }
    if behind_barrier {
        return None;
    }
    // A URB with packets is isochronous and one without is not; a client that mixes that up
    // looked at other descriptors than ours.
    if (record.transfer_type == TransferType::Isochronous) != has_packets {
        return Some(Status::EINVAL);
    }
    endpoint.refused
}

/// The bytes of a URB's transfer; `None` when its packets do not fit its buffer.
fn length_of(record: &Urb, packets: Packets<'_>, control: &Control) -> Option<usize> {
    let length = record.submit.transfer_buffer_length;
    match record.transfer_type {
        TransferType::Bulk | TransferType::Interrupt => Some(length as usize),
        TransferType::Control => Some(SETUP_LEN + usize::from(control.setup_of(record).length)),
        TransferType::Isochronous => {
            let for_out = record.direction == Direction::Out;
            packets.check(length, for_out).ok().map(|sum| sum as usize)
        }
    }
}

/// What the port is told of a URB; its buffer is put in the order that a transfer has.
#[inline]
fn submission<'a>(
    record: &mut Urb,
    packets: Packets<'a>,
    length: usize,
    is_first: bool,
    block: &mut Block,
    control: &Control,
) -> Submission<'a> {
    let (submit, transfer_type) = (&record.submit, record.transfer_type);
    let out = record.direction == Direction::Out;
    let packets = match transfer_type {
        TransferType::Isochronous => packets,
        _ => Packets::new(&[]),
    };
    match transfer_type {
        TransferType::Control => {
            block[..SETUP_LEN].copy_from_slice(&control.setup_of(record).to_bytes());
        }
        // A second time, after a refusal, the data would be taken from where it no longer is.
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

/// Whether a SUBMIT's interval is another than the endpoint has. Not each is one: some clients send
/// nothing in its place, others bInterval as the descriptor has it.
const fn is_other_interval(submitted: i32, host: u16) -> bool {
    let (Some(exponent), 1..) = (host.checked_ilog2(), submitted) else { return false };
    submitted != host as i32 && submitted != exponent.cast_signed() + 1
}
