//! One client with one device: the protocol after the handshake, without sockets.
//!
//! A [`Session`] takes bytes and gives bytes, submits URBs to the [`Port`] it owns and collects
//! their ends from it. Its methods are of four kinds:
//!
//! - *inputs*: [`Session::rx_slices`] and [`Session::rx_advance`] for bytes from the client,
//!   [`Session::reap`] when the device may have something, [`Session::finish_job`] when the worker
//!   gives the port back, [`Session::begin_teardown`] when the client is gone;
//! - *outputs*: [`Session::stage`], [`Session::tx_slices`] and [`Session::tx_advance`] for bytes to
//!   the client, [`Session::take_job`] for what must run on the worker;
//! - *getters*, which change nothing.
//!
//! Any order of calls is allowed; after each input the outputs are asked until they have nothing.
//!
//! Whatever can sleep is a [`Job`]: the port goes to the worker and comes back with it, and while
//! it is away nothing is submitted or reaped. Requests wait then, UNLINKs of waiting ones are
//! answered, the socket is read on.
//!
//! - [`rx`]: framing; - [`submit`]: from a received SUBMIT to the device;
//! - [`complete`]: from the device to a queued reply; - [`unlink`]: the race of SUBMIT and UNLINK;
//! - [`barrier`]: special requests; [`prospects`]: what they may make of endpoints;
//! - [`control`]: what is asked of the host, and what is too long;
//! - [`tx`]: replies as slices;
//! - [`urb`], [`endpoints`]: the state all of them share;
//! - `model`: what a right session may do, in tests beside one that does it.
//!
//! Contract: runs on the reactor, never blocks, allocates nothing per URB, panics on nothing that
//! a client or a device does.

mod barrier;
mod buffers;
mod complete;
mod control;
mod endpoints;
#[cfg(any(test, fuzzing))]
pub(crate) mod model;
mod prospects;
mod rx;
mod slots;
mod submit;
mod tx;
mod unlink;
mod urb;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::time::Instant;

use usbferry_sys::arena::Arena;
use usbferry_sys::arena::DeviceMemory;

use crate::caught::caught;
use crate::limits::{
    DeviceLimits, EARLY_UNLINKS_MAX, PACKETS_WAITING_MAX, URBS_REFUSED_MAX, URBS_WAITING_MAX,
};
use crate::stats::{Counters, SessionStats};
use crate::usb::special::SpecialRequest;
use crate::usb::{Configuration, MemoryChange, Opened, Performed, Port};
use crate::wire;
use crate::wire::iso::DESCRIPTOR_LEN;
use crate::wire::pdu::HEADER_LEN;
use crate::wire::status::Status;
use crate::wire::types::{DevId, SeqNum};
use barrier::Barrier;
use buffers::Buffers;
use control::Control;
use endpoints::Endpoints;
use prospects::Prospects;
pub(crate) use rx::RX_SLICES_MAX;
use rx::{Receiver, Stage};
use slots::Slots;
pub(crate) use tx::SLICES_MAX;
use tx::TxQueue;
use unlink::EarlyUnlink;
use urb::{UrbIndex, UrbState, UrbTable};

/// Why a client's connection can't go on: what it sent is not the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Violation {
    /// A header that no client sends.
    Wire(wire::Error),
    /// A PDU for another device than the one imported.
    WrongDevice(DevId),
    /// A SUBMIT with the seqnum of one that has not ended.
    DuplicateSeqnum(SeqNum),
    /// OUT data longer than the largest URB that is accepted.
    TooLong(u32),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wire(error) => fmt::Display::fmt(error, f),
            Self::WrongDevice(devid) => {
                write!(f, "a request for device {devid}, which it did not import")
            }
            Self::DuplicateSeqnum(seqnum) => {
                write!(f, "a second SUBMIT {seqnum} while the first has not ended")
            }
            Self::TooLong(len) => write!(
                f,
                "an OUT transfer of {len} bytes, more than --urb-size allows; a larger one may help"
            ),
        }
    }
}

impl From<wire::Error> for Violation {
    fn from(error: wire::Error) -> Self {
        Self::Wire(error)
    }
}

/// What the worker is asked to do with a port.
pub(crate) enum Task<P: Port> {
    /// Cancel these transfers. The list comes back, to be used again.
    Cancel(Vec<P::CancelToken>),
    /// Perform a special request.
    Perform(SpecialRequest),
    /// Change what the port has of the system's memory; a mapping that is given up comes along.
    ChangeMemory(MemoryChange, Option<DeviceMemory>),
}

/// What the worker did.
pub(crate) enum TaskResult<P: Port> {
    Cancelled(Vec<P::CancelToken>),
    /// Not all could be cancelled, and the others never will be: that panics.
    NotCancelled(Vec<P::CancelToken>),
    Performed(Performed),
    /// What is mapped now that was not before.
    MemoryChanged(Option<DeviceMemory>),
    /// The port panicked, and is of no more use.
    Failed,
}

/// A port on its way to the worker, with what to do there.
pub(crate) struct Job<P: Port> {
    pub(crate) port: P,
    pub(crate) task: Task<P>,
}

impl<P: Port> Job<P> {
    /// Does it. The port outlives a panic, so that the device is given up in order. *Blocks.*
    pub(crate) fn run(mut self) -> (P, TaskResult<P>) {
        let port = &mut self.port;
        let result = match self.task {
            Task::Cancel(mut tokens) => {
                let mut all = true;
                for token in tokens.drain(..) {
                    // Each by itself: one that panics leaves no other in flight.
                    all &= caught("cancelling a transfer", || port.cancel(&token)).is_some();
                }
                if all { TaskResult::Cancelled(tokens) } else { TaskResult::NotCancelled(tokens) }
            }
            Task::Perform(request) => {
                let performed = caught("a request", || port.perform(request));
                TaskResult::Performed(performed.unwrap_or(Performed::Gone))
            }
            Task::ChangeMemory(change, given_up) => {
                let change = || port.change_memory(change, given_up);
                caught("mapping memory", change)
                    .map_or(TaskResult::Failed, TaskResult::MemoryChanged)
            }
        };
        (self.port, result)
    }
}

/// What is left of a session: to be closed on the worker.
pub(crate) struct Remains<P: Port> {
    port: P,
    transfers: Vec<P::Transfer>,
    memory: Arena,
}

impl<P: Port> From<Opened<P>> for Remains<P> {
    fn from(opened: Opened<P>) -> Self {
        Self { port: opened.port, transfers: opened.transfers, memory: opened.memory }
    }
}

impl<P: Port> Remains<P> {
    /// Gives the device back. *Blocks.*
    pub(crate) fn close(self) {
        self.port.close(self.transfers, self.memory);
    }
}

/// What is large of a session's own memory.
pub(crate) struct Tables {
    urbs: UrbTable,
    rx: Receiver,
}

impl Tables {
    /// For a device with so many URB slots; `None` when the system has no memory for them.
    pub(crate) fn new(slots: usize) -> Option<Self> {
        let with_packets = slots + PACKETS_WAITING_MAX + URBS_REFUSED_MAX;
        Some(Self { urbs: UrbTable::new(records_for(slots), with_packets)?, rx: Receiver::new()? })
    }
}

/// URBs that a session with so many slots keeps account of.
const fn records_for(slots: usize) -> usize {
    slots + URBS_WAITING_MAX + URBS_REFUSED_MAX
}

/// One client with one device.
pub(crate) struct Session<P: Port> {
    devid: DevId,
    limits: DeviceLimits,
    /// Away while the worker has it.
    port: Option<P>,
    slots: Slots<P>,
    buffers: Buffers,
    configuration: Option<Configuration>,
    control: Control,
    endpoints: Endpoints,
    urbs: UrbTable,
    rx: Receiver,
    tx: TxQueue,
    barrier: Option<Barrier>,
    prospects: Prospects,
    /// URBs behind the barrier, in the order they came.
    held: VecDeque<UrbIndex>,
    /// The SUBMIT that came last.
    newest_seqnum: Option<SeqNum>,
    /// No SUBMIT had a number below that of one before.
    seqnums_grow: bool,
    /// UNLINKs that may have overtaken their SUBMITs.
    early_unlinks: Vec<EarlyUnlink>,
    /// The device was hung up while the worker had the port.
    missed_hangup: bool,
    /// Transfers are in flight that can't be cancelled.
    stuck: bool,
    /// Cancelling a transfer ends all of its endpoint, as on macOS (libusb's
    /// `darwin_abort_transfers`).
    cancels_pipe: bool,
    /// A call said that the device is gone, which is acted on when the input at hand is done with.
    lost: bool,
    /// The device is gone: nothing is submitted any more.
    gone: bool,
    /// It was said that the client's driver wants another interval than the host's.
    interval_warned: bool,
    /// Parsing has stopped at a PDU because replies must be read first.
    held_up: bool,
    /// Nothing more is taken from the client.
    input_closed: bool,
    /// The client is gone: nothing is answered any more.
    tearing_down: bool,
    counters: Counters,
}

impl<P: Port> Session<P> {
    /// A session with an opened device. The rest of its memory is allocated here.
    pub(crate) fn new(
        devid: DevId,
        limits: DeviceLimits,
        mut opened: Opened<P>,
        tables: Tables,
    ) -> Self {
        opened.port.attached();
        let slots = opened.transfers.len();
        let records = records_for(slots);
        Self {
            devid,
            limits,
            port: Some(opened.port),
            slots: Slots::new(opened.transfers),
            buffers: Buffers::new(opened.memory),
            endpoints: Endpoints::new(opened.configuration.as_ref()),
            configuration: opened.configuration,
            control: Control::new(opened.configurations, P::CONTROL_LEN_MAX),
            urbs: tables.urbs,
            rx: tables.rx,
            tx: TxQueue::new(records),
            barrier: None,
            prospects: Prospects::new(opened.isochronous),
            held: VecDeque::with_capacity(records),
            newest_seqnum: None,
            seqnums_grow: true,
            early_unlinks: Vec::with_capacity(EARLY_UNLINKS_MAX),
            missed_hangup: false,
            stuck: false,
            cancels_pipe: cfg!(target_os = "macos"),
            lost: false,
            gone: false,
            interval_warned: false,
            held_up: false,
            input_closed: false,
            tearing_down: false,
            counters: Counters::default(),
        }
    }

    /// When [`Self::reap`] is to be called even without an event. Nothing can be reaped while the
    /// port is away.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let early = self.early_unlinks.iter().map(|early| early.until).min();
        let Some(port) = &self.port else { return early };
        [port.next_deadline(), self.buffers.retry, early].into_iter().flatten().min()
    }

    /// A copy of what was counted.
    #[allow(dead_code, reason = "for a snapshot of the server")]
    pub(crate) fn stats(&self) -> SessionStats {
        let in_flight = |endpoint| self.endpoints.get(endpoint).in_flight;
        self.counters.copy(self.slots.gauge(), self.buffers.gauge(), in_flight)
    }

    /// Takes nothing more from the client; what it asked for before is still answered.
    pub(crate) const fn close_input(&mut self) {
        self.input_closed = true;
    }

    /// Whether nothing more is taken from the client.
    pub(crate) const fn is_input_closed(&self) -> bool {
        self.input_closed
    }

    /// Whether bytes from the client can be taken: not while answers it has not read use up the
    /// room for more. A device that is gone still answers what had been sent to it.
    pub(crate) fn wants_input(&self) -> bool {
        let is_open = !self.tearing_down && !self.input_closed;
        is_open && !self.tx.is_full() && self.urbs.free_for_packets() > 0
    }

    /// Whether there are bytes for the client.
    pub(crate) fn has_output(&self) -> bool {
        !self.tx.is_empty()
    }

    /// Whether the device is gone.
    pub(crate) const fn is_gone(&self) -> bool {
        self.gone
    }

    /// Whether the device is gone, what it had was collected, and all that could be said about it
    /// was written, so that teardown may begin. A refused submit can tell of the end before the
    /// system gives back what is in flight.
    pub(crate) fn is_finished(&self) -> bool {
        let in_flight = self.endpoints.any_in_flight(u32::MAX);
        self.gone && !self.tearing_down && !in_flight && self.tx.is_empty()
    }

    /// Room for bytes from the client, in the order of the stream; returns the number of slices,
    /// one at least. What was read is to be told by [`Self::rx_advance`], even if that is nothing.
    pub(crate) fn rx_slices<'a>(
        &'a mut self,
        slices: &mut [IoSliceMut<'a>; RX_SLICES_MAX],
    ) -> usize {
        self.rx.lay_out(&mut self.buffers);
        let payload = match self.rx.stage {
            Stage::Payload { urb, filled, end } => {
                let block = self.urbs.get_mut(urb).block.as_mut();
                block.map(|block| &mut block[filled..end])
            }
            _ => None,
        };
        let used = usize::from(payload.is_some());
        if let Some(payload) = payload {
            slices[0] = IoSliceMut::new(payload);
        }
        used + self.rx.slices(&mut slices[used..])
    }

    /// Notes that `len` bytes were read into the slices of [`Self::rx_slices`], and acts on every
    /// PDU that is now whole.
    ///
    /// # Errors
    /// What came is not the protocol; the connection is of no more use.
    pub(crate) fn rx_advance(&mut self, len: usize, now: Instant) -> Result<(), Violation> {
        let in_payload = match self.rx.stage {
            Stage::Payload { filled, end, .. } => len.min(end - filled),
            _ => 0,
        };
        self.rx.received(len - in_payload, &mut self.buffers);
        if len > 0 && !self.early_unlinks.is_empty() {
            self.prolong_early_unlinks(now);
        }
        if let Stage::Payload { urb, filled, end } = self.rx.stage {
            self.payload_received(urb, filled + in_payload, end, now);
        }
        let parsed = self.parse(now);
        self.rx.free_unused(&mut self.buffers);
        self.settle(now);
        parsed
    }

    /// Whether what was read last shows that the client writes its PDUs in parts: there is nothing
    /// behind the first of the parts of one, or behind some bytes of one that fits a single
    /// segment, of so many bytes, and yet was not sent as one.
    pub(crate) fn is_read_in_parts(&self, segment_len: usize) -> bool {
        let payload_len = |urb| self.urbs.get(urb).submit.payload_len() as usize;
        let (urb, is_between) = match self.rx.stage {
            Stage::Header => return self.rx.has_unparsed() && !self.held_up,
            Stage::Payload { urb, filled, .. } => (urb, filled == self.urbs.get(urb).data_offset()),
            Stage::Discard { urb, remaining } => (urb, remaining == payload_len(urb)),
            Stage::Packets { urb, filled, .. } => (urb, filled == 0),
        };
        let descriptors = self.urbs.get(urb).packets as usize * DESCRIPTOR_LEN;
        is_between || HEADER_LEN + payload_len(urb) + descriptors <= segment_len
    }

    /// Whether OUT payloads come that are long, one behind the other.
    pub(crate) fn is_taking_long_payloads(&self) -> bool {
        self.rx.is_taking_long_payloads()
    }

    /// Reads from `stream` once, as a socket would be read.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn rx_read(&mut self, stream: &mut &[u8], now: Instant) -> Result<(), Violation> {
        let mut slices = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let used = self.rx_slices(&mut slices);
        let read = std::io::Read::read_vectored(stream, &mut slices[..used]);
        self.rx_advance(read.expect("memory can be read"), now)
    }

    /// Collects what has ended. True when there is more to collect at once.
    pub(crate) fn reap(&mut self, now: Instant) -> bool {
        if !self.early_unlinks.is_empty() {
            self.expire_early_unlinks(now);
        }
        let Some(port) = &mut self.port else { return false };
        let reaped = self.slots.reap(port, now);
        let mut index = 0;
        while let Some(slot) = self.slots.ended(index) {
            self.handle_completion(slot, now);
            index += 1;
        }
        if self.slots.forget_ended() > 0 {
            self.buffers.retry = self.buffers.retry.map(|_| now);
        }
        self.lost |= reaped.gone;
        self.settle(now);
        self.submit_waiting(now);
        reaped.more
    }

    /// A descriptor of the device says that it was hung up. It says so once: a port that is away is
    /// told when it comes back.
    pub(crate) fn handle_hangup(&mut self, now: Instant) {
        match &mut self.port {
            Some(port) => port.hung_up(now),
            None => self.missed_hangup = true,
        }
    }

    /// What is to be done on the worker, if anything; the port goes with it.
    pub(crate) fn take_job(&mut self) -> Option<Job<P>> {
        self.port.as_ref()?;
        let task = if let Some(tokens) = self.slots.take_cancels() {
            Task::Cancel(tokens)
        } else if let Some(request) = self.take_performance() {
            Task::Perform(request)
        } else {
            self.take_memory_change()?
        };
        Some(Job { port: self.port.take()?, task })
    }

    /// What is to be changed now of the port's memory.
    fn take_memory_change(&mut self) -> Option<Task<P>> {
        let change = self.port.as_ref()?.memory_change().filter(|_| !self.tearing_down)?;
        let given_up = match change {
            // Not while a URB lies in it.
            MemoryChange::GiveUp => Some(self.buffers.give_up_device_memory()?),
            MemoryChange::Look | MemoryChange::Map => None,
        };
        Some(Task::ChangeMemory(change, given_up))
    }

    /// Takes the port back from the worker. Whatever ended while the port was away gave its only
    /// notice then, so [`Self::reap`] is to be called next.
    pub(crate) fn finish_job(&mut self, port: P, result: TaskResult<P>, now: Instant) {
        self.port = Some(port);
        match result {
            TaskResult::Cancelled(tokens) => self.slots.keep_tokens(tokens),
            TaskResult::NotCancelled(tokens) => {
                self.slots.keep_tokens(tokens);
                (self.lost, self.stuck) = (true, true);
            }
            TaskResult::Failed => self.lost = true,
            TaskResult::Performed(performed) => self.finish_performance(performed, now),
            TaskResult::MemoryChanged(mapped) => {
                if let Some(mapped) = mapped {
                    self.buffers.add_device_memory(mapped);
                }
            }
        }
        if std::mem::take(&mut self.missed_hangup) {
            self.handle_hangup(now);
        }
    }

    /// Fills the staging buffer with replies that wait.
    pub(crate) fn stage(&mut self) {
        let (urbs, buffers) = (&mut self.urbs, &mut self.buffers);
        // Records are freed after staging, which still looks at the table.
        while let Some(urb) = self.tx.stage_next(urbs) {
            buffers.free_record(urbs, urb);
        }
    }

    /// The bytes to write next, `most` of them; returns the number of slices.
    pub(crate) fn tx_slices<'a>(
        &'a self,
        most: usize,
        slices: &mut [IoSlice<'a>; SLICES_MAX],
    ) -> usize {
        self.tx.slices(&self.urbs, most, slices)
    }

    /// Notes that `len` bytes were written.
    pub(crate) fn tx_advance(&mut self, len: usize, now: Instant) {
        let (urbs, buffers) = (&mut self.urbs, &mut self.buffers);
        self.tx.advance(len, |urb| buffers.free_record(urbs, urb));
        self.submit_waiting(now);
        self.settle(now);
    }

    /// Gives everything up: the client is gone. What the device has is cancelled, what waits is
    /// dropped. Goes on until [`Self::is_drained`].
    pub(crate) fn begin_teardown(&mut self) {
        if self.tearing_down {
            return;
        }
        self.tearing_down = true;
        self.buffers.retry = None;
        if let Some(port) = &mut self.port {
            port.set_starving(false);
        }
        self.rx.clear(&mut self.buffers);
        self.early_unlinks.clear();
        self.tx.clear();
        self.held.clear();
        self.drop_barrier();
        let mut next = 0;
        while let Some(urb) = self.urbs.next_used(next) {
            next = urb + 1;
            match self.urbs.get(urb).state {
                UrbState::InFlight => self.cancel(urb),
                // The worker has the latter; freed when it comes back.
                UrbState::Free | UrbState::Performing => {}
                UrbState::Waiting => {
                    self.endpoints.remove_waiting(&mut self.urbs, urb);
                    self.buffers.free_record(&mut self.urbs, urb);
                }
                UrbState::Receiving | UrbState::Held | UrbState::Replying => {
                    self.buffers.free_record(&mut self.urbs, urb);
                }
            }
        }
    }

    /// Whether teardown is complete: the device has nothing of ours, or nothing that could be had
    /// back, and the port is here.
    pub(crate) fn is_drained(&self) -> bool {
        self.tearing_down && self.port.is_some() && (self.urbs.is_empty() || self.stuck)
    }

    /// What is left, for the worker to close. `None` while something is still in flight.
    pub(crate) fn into_remains(self) -> Option<Remains<P>> {
        debug_assert!(self.buffers.outstanding() == 0 || self.stuck, "every buffer came home");
        Some(Remains {
            port: self.port?,
            transfers: self.slots.transfers,
            memory: self.buffers.into_memory(),
        })
    }

    /// What was allocated for lists: it must never change.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn footprint(&self) -> [usize; 4] {
        let [held, early] = [self.held.capacity(), self.early_unlinks.capacity()];
        [held, early, self.slots.footprint(), self.tx.footprint()]
    }

    /// Acts on a device that is gone: what waits is answered, what it had was reaped.
    fn settle(&mut self, now: Instant) {
        if !self.lost || self.gone || self.tearing_down {
            return;
        }
        self.gone = true;
        self.expire_early_unlinks(now);
        self.held.clear();
        if let Some(urb) = self.drop_barrier() {
            self.refuse(urb, Status::ENODEV);
        }
        let mut next = 0;
        while let Some(urb) = self.urbs.next_used(next) {
            next = urb + 1;
            match self.urbs.get(urb).state {
                UrbState::Waiting => {
                    self.endpoints.remove_waiting(&mut self.urbs, urb);
                    self.refuse(urb, Status::ENODEV);
                }
                UrbState::Held => self.refuse(urb, Status::ENODEV),
                UrbState::Free
                | UrbState::Receiving
                | UrbState::InFlight
                | UrbState::Performing
                | UrbState::Replying => {}
            }
        }
    }
}
