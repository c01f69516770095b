//! An open simulated device: its URBs from submission to completion.
//!
//! Most URBs end during submission: the model moves their data, and the slot goes on the list for
//! the next reap. The other URBs wait in the queue of their endpoint, because the model has nothing
//! to send or no room, because the device has a delay, or because the endpoint is paced. Only the
//! front of a queue is ever served, so each endpoint keeps its order.
//!
//! Contract: one owner at a time, on any thread. Time comes from the caller, except that `perform`
//! and `cancel` sleep for the delay set by a test. Nothing but a special request allocates once the
//! device is open; no input from a client causes a panic.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::PoisonError;
use std::thread;
use std::time::Instant;

use usbferry_sys::arena::{Arena, Block};

use super::bus::{PortParts, TakenModel};
use super::control;
use super::controller::Controller;
use super::endpoint::{Plan, bits, queue_index};
use super::model::Moved;
use super::transfer::{CancelToken, Mailboxes, PacketState, SimTransfer, Urb};
use crate::limits::CONTROL_LEN_MAX;
use crate::usb::special::SpecialRequest;
use crate::usb::{
    Completion, EventSource, Performed, Port, Reaped, Refused, RefusedReason, Submission,
};
use crate::wire::setup::{SETUP_LEN, Setup};
use crate::wire::status::Status;
use crate::wire::types::{Direction, EndpointAddress, TransferType};

/// An open simulated device.
pub struct SimPort {
    device: Device,
    mailboxes: Mailboxes,
    /// Slots of ended URBs before reaping.
    ended: Vec<u32>,
    /// Queues with URBs, by [`queue_index`].
    busy: u32,
    /// The caller's latest time, the meaning of "at once" in [`Port::next_deadline`].
    now: Instant,
    /// Whether the caller has learned that the device is gone.
    gone_told: bool,
    /// Readable when the device was unplugged.
    wake: UnixStream,
}

/// Both sides of the simulated wire.
struct Device {
    taken: TakenModel,
    controller: Controller,
}

impl SimPort {
    /// Opens a device of the bus.
    pub(super) fn new(
        mut parts: PortParts,
        mailboxes: Mailboxes,
        wake: UnixStream,
        now: Instant,
    ) -> Self {
        let controller = Controller::new(&mut parts, mailboxes.len());
        Self {
            device: Device { taken: parts.taken, controller },
            ended: Vec::with_capacity(mailboxes.len()),
            mailboxes,
            busy: 0,
            now,
            gone_told: false,
            wake,
        }
    }

    /// The configuration in force.
    pub(super) const fn configuration(&self) -> Option<&crate::usb::Configuration> {
        self.device.controller.configuration.as_ref()
    }

    fn is_present(&self) -> bool {
        self.device.controller.plug.is_present()
    }

    /// Moves a URB from its queue to its slot's mailbox.
    fn give_back(&self, urb: Box<Urb>) -> u32 {
        let slot = urb.token.slot;
        let mut mailbox =
            self.mailboxes[slot as usize].lock().unwrap_or_else(PoisonError::into_inner);
        *mailbox = Some(urb);
        slot
    }

    /// Serves the queues until nothing moves any more, since data received by an endpoint can be
    /// the data awaited by another.
    fn advance(&mut self, completed: &mut Vec<u32>) {
        let mut moved = self.busy != 0;
        while moved {
            moved = false;
            for index in bits(self.busy) {
                moved |= self.advance_queue(index, completed);
            }
        }
    }

    /// Serves the front of a queue as long as URBs end. Returns whether any URB ended.
    fn advance_queue(&mut self, index: usize, completed: &mut Vec<u32>) -> bool {
        let before = completed.len();
        loop {
            let queue = &mut self.device.controller.endpoints.by_index(index).queue;
            let is_due = queue.front().is_some_and(|urb| urb.due <= self.now);
            let Some(mut urb) = is_due.then(|| queue.pop_front()).flatten() else {
                break;
            };
            if !self.device.serve(&mut urb) {
                let queue = &mut self.device.controller.endpoints.by_index(index).queue;
                queue.push_front(urb);
                break;
            }
            completed.push(self.give_back(urb));
        }
        if self.device.controller.endpoints.by_index(index).queue.is_empty() {
            self.busy &= !(1 << index);
        }
        completed.len() > before
    }

    /// Ends all waiting URBs: the device is gone.
    fn shut_down(&mut self, completed: &mut Vec<u32>) {
        for index in bits(std::mem::take(&mut self.busy)) {
            let next = |port: &mut Self| {
                let state = port.device.controller.endpoints.by_index(index);
                state.queue.pop_front()
            };
            while let Some(mut urb) = next(self) {
                urb.abandon(Status::ESHUTDOWN);
                completed.push(self.give_back(urb));
            }
        }
        // With level-triggered polling an unread byte would wake the caller for ever.
        let _ = self.wake.read(&mut [0; 8]);
        self.gone_told = true;
    }

    /// The time at which the next URB of a queue can end, if the device allows.
    fn deadline(&self, index: usize) -> Option<Instant> {
        let (state, urb) = self.device.controller.endpoints.front(index)?;
        let model = self.device.taken.model_ref();
        (state.halted || model.ready(urb.endpoint())).then_some(urb.due)
    }

    #[inline(never)]
    fn start(
        &mut self,
        transfer: &mut SimTransfer,
        submission: &Submission<'_>,
        block: Block,
        now: Instant,
    ) -> Result<(), Refused> {
        self.now = now;
        let urb = transfer.begin(submission, block);
        let index = queue_index(submission.endpoint);
        let started =
            if self.is_present() { self.device.start(urb, now) } else { Err(RefusedReason::Gone) };
        if let Err(reason) = started {
            let block = transfer.refuse();
            return Err(Refused { block, reason });
        }
        let idle = self.busy & 1 << index == 0;
        if idle && urb.due <= now && self.is_present() && self.device.serve(urb) {
            self.ended.push(urb.token.slot);
        } else {
            self.busy |= 1 << index;
            let queue = &mut self.device.controller.endpoints.by_index(index).queue;
            queue.push_back(transfer.hand_over());
        }
        Ok(())
    }
}

impl Port for SimPort {
    type Transfer = SimTransfer;
    type CancelToken = CancelToken;

    /// The same as libusb's limit, so that tests can reach the limit.
    const CONTROL_LEN_MAX: usize = CONTROL_LEN_MAX;

    fn event_sources(&self) -> Vec<EventSource> {
        vec![EventSource { fd: self.wake.as_raw_fd(), readable: true, writable: false }]
    }

    /// The transfers of all slots are made with the device.
    fn make_transfer(&mut self, _slot: u32) -> Option<SimTransfer> {
        None
    }

    #[inline(always)]
    fn submit(
        &mut self,
        transfer: &mut SimTransfer,
        submission: Submission<'_>,
        block: Block,
        now: Instant,
    ) -> Result<(), Refused> {
        // A copy, for the sake of real devices: nobody gets the address of the first.
        let Submission { endpoint, transfer_type, length, zero_packet, is_first, packets } =
            submission;
        let copy = Submission { endpoint, transfer_type, length, zero_packet, is_first, packets };
        self.start(transfer, &copy, block, now)
    }

    fn reap(&mut self, now: Instant, completed: &mut Vec<u32>) -> Reaped {
        self.now = now;
        completed.append(&mut self.ended);
        let gone = !self.is_present();
        if gone {
            self.shut_down(completed);
        } else {
            self.advance(completed);
        }
        Reaped { more: false, gone }
    }

    fn take(&mut self, transfer: &mut SimTransfer) -> Completion {
        transfer.take()
    }

    fn packet(&self, transfer: &SimTransfer, index: usize) -> (u32, Status) {
        transfer.packet(index)
    }

    fn look_everywhere(&mut self) {}

    fn hung_up(&mut self, _now: Instant) {
        // Unplugging sets the flag before waking the descriptor.
    }

    #[inline(never)]
    fn next_deadline(&self) -> Option<Instant> {
        if !self.ended.is_empty() || (!self.gone_told && !self.is_present()) {
            return Some(self.now);
        }
        bits(self.busy).filter_map(|index| self.deadline(index)).min()
    }

    fn cancel_token(transfer: &SimTransfer) -> CancelToken {
        transfer.token()
    }

    fn cancel(&mut self, token: &CancelToken) {
        thread::sleep(self.device.controller.delays.cancel);
        if let Some(urb) = self.device.cancel(token) {
            let slot = self.give_back(urb);
            self.ended.push(slot);
        }
    }

    fn perform(&mut self, request: SpecialRequest) -> Performed {
        let Device { taken, controller } = &mut self.device;
        controller.perform(taken.model(), request)
    }

    fn close(self, transfers: Vec<SimTransfer>, memory: Arena) {
        debug_assert_eq!(memory.outstanding(), 0, "a transfer is in flight");
        drop((transfers, memory));
        self.device.controller.give_back();
    }
}

impl Device {
    /// Sets the earliest end and the planned fault of a URB.
    fn start(&mut self, urb: &mut Urb, now: Instant) -> Result<(), RefusedReason> {
        let endpoint = urb.endpoint();
        let controller = &mut self.controller;
        if !controller.endpoints.is_active(endpoint) {
            return Err(RefusedReason::Failed(Status::ENOENT));
        }
        if endpoint.number() == 0 {
            urb.plan = Plan::None;
            urb.due = now + controller.delays.urb + controller.delays.control;
            return Ok(());
        }
        let fault = controller.plan(urb);
        let state = controller.endpoints.state(endpoint);
        urb.plan = std::mem::take(&mut state.plan);
        if fault != Plan::None {
            urb.plan = fault;
        }
        urb.due = state.schedule(urb.packets().len(), now) + controller.delays.urb;
        Ok(())
    }

    /// Moves as much of a URB as possible and returns whether the URB has ended.
    fn serve(&mut self, urb: &mut Urb) -> bool {
        match urb.transfer_type {
            TransferType::Control => self.serve_control(urb),
            TransferType::Isochronous => self.serve_packets(urb),
            TransferType::Bulk | TransferType::Interrupt => return self.serve_data(urb),
        }
        true
    }

    fn serve_data(&mut self, urb: &mut Urb) -> bool {
        let endpoint = urb.endpoint();
        let state = self.controller.endpoints.state(endpoint);
        if state.halted {
            urb.status = Status::EPIPE;
            return true;
        }
        let model = self.taken.model();
        if !model.ready(endpoint) {
            return false;
        }
        let limit = urb.plan.limit(urb.length);
        let (done, is_in) = (urb.done, endpoint.direction() == Direction::In);
        let data = &mut urb.data()[done..limit];
        let moved = if is_in { model.fill(endpoint, data) } else { model.consume(endpoint, data) };
        urb.done += moved.bytes;
        if !is_in && urb.done < limit && moved.status == Status::OK {
            return false;
        }
        if matches!(urb.plan, Plan::Short(_) | Plan::Stall(_)) {
            model.cut_short();
        }
        urb.status = if moved.status == Status::OK { urb.plan.status() } else { moved.status };
        state.halted = urb.status == Status::EPIPE;
        let full = urb.done == urb.length && urb.length.is_multiple_of(state.packet_len);
        let empty_packet = !is_in && full && (urb.length == 0 || urb.zero_packet);
        model.end_urb(endpoint, empty_packet);
        true
    }

    fn serve_packets(&mut self, urb: &mut Urb) {
        let (endpoint, plan) = (urb.endpoint(), urb.plan);
        let model = self.taken.model();
        let (packets, mut data) = urb.packets_and_data();
        for (number, packet) in packets.iter_mut().enumerate() {
            let len = packet.length().min(data.len());
            let (room, rest) = data.split_at_mut(len);
            data = rest;
            *packet = match plan {
                Plan::PacketLost(lost) if lost == number => PacketState::ended(0, Status::EPROTO),
                Plan::PacketsShort(most) => {
                    move_packet(model, endpoint, &mut room[..len.min(most)])
                }
                _ => move_packet(model, endpoint, room),
            };
        }
        model.end_urb(endpoint, false);
    }

    fn serve_control(&mut self, urb: &mut Urb) {
        let Some((setup, data)) = urb.data().split_first_chunk_mut::<SETUP_LEN>() else {
            urb.status = Status::EINVAL;
            return;
        };
        let setup = Setup::from_bytes(setup);
        let len = data.len().min(setup.length.into());
        match self.answer(&setup, &mut data[..len]) {
            Some(bytes) => urb.done = bytes,
            None => urb.status = Status::EPIPE,
        }
    }

    fn answer(&mut self, setup: &Setup, data: &mut [u8]) -> Option<usize> {
        let Self { taken, controller } = self;
        taken.model().note_setup(setup);
        if !control::is_standard(setup) || taken.model().is_recorded() {
            return taken.model().control(setup, data, controller);
        }
        control::answer(
            setup,
            data,
            &controller.descriptors,
            controller.configuration.as_ref(),
            &mut controller.endpoints,
        )
    }

    /// Takes a waiting URB out of its queue, and ends the URB.
    fn cancel(&mut self, token: &CancelToken) -> Option<Box<Urb>> {
        let state = self.controller.endpoints.state(token.endpoint);
        let mut urb = state.remove(token)?;
        urb.abandon(Status::ECONNRESET);
        let Some(late) = state.late_data.take() else {
            return Some(urb);
        };
        let len = late.bytes.min(urb.length);
        urb.done = self.taken.model().fill_late(token.endpoint, &mut urb.data()[..len]);
        urb.status = late.status;
        Some(urb)
    }
}

/// Moves an isochronous packet.
fn move_packet(
    model: &mut super::model::Model,
    endpoint: EndpointAddress,
    room: &mut [u8],
) -> PacketState {
    let moved = match endpoint.direction() {
        Direction::In => model.fill_packet(endpoint, room),
        Direction::Out => {
            model.consume_packet(endpoint, room);
            Moved::bytes(room.len())
        }
    };
    PacketState::ended(u32::try_from(moved.bytes).unwrap_or(u32::MAX), moved.status)
}
