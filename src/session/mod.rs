//! One client with one device: the protocol after the handshake, without sockets.
//!
//! A [`Session`] takes bytes and gives bytes, submits URBs to its [`Port`] and collects their ends.
//! There are three kinds of methods:
//!
//! - *inputs*: [`Session::rx_slices`] and [`Session::rx_advance`] for bytes from the client,
//!   [`Session::reap`] when the device may have something, [`Session::take_back`] when the worker
//!   gives the port back, [`Session::begin_teardown`] when the client has left;
//! - *outputs*: [`Session::stage`], [`Session::tx_slices`] and [`Session::tx_advance`] for bytes to
//!   the client, [`Session::take_job`] for blocking work on the worker;
//! - *getters*, which change nothing.
//!
//! Any order of calls is allowed; after each input the outputs are asked until they have nothing.
//!
//! All blocking work is a [`Job`]: the port goes to the worker and comes back with the result, and
//! while the port is away nothing is submitted or reaped. SUBMITs wait then, UNLINKs of waiting
//! URBs are answered, the socket is read on.
//!
//! The way of a URB:
//! - [`receive`]: whole PDUs from bytes, on [`rx`], the buffers of a read;
//! - [`judge`]: whether a SUBMIT can be carried out;
//! - [`submit`]: to the device, or into a queue;
//! - [`prompt`]: when to look for ends without an event;
//! - [`complete`]: from the device to a queued reply;
//! - [`tx`]: replies as slices.
//!
//! Beside the way:
//! - [`unlink`], [`early`]: the race of SUBMIT and UNLINK;
//! - [`barrier`]: special requests; [`prospects`]: endpoints to come of such requests;
//! - [`control`]: requests answered by the host, and requests too long;
//! - [`job`]: the port on its way to the worker; [`teardown`]: how a session ends;
//!   [`thrift`]: an idle session gives memory back; [`tapping`]: records for a capture;
//!   [`violation`]: why a client is not served on.
//!
//! The state shared by all: [`urb`], [`endpoints`], [`slots`], [`buffers`]. In tests, `model`
//! stands beside a session and says how a right session behaves.
//!
//! Contract: runs on the reactor, never blocks, allocates nothing per URB, panics for nothing a
//! client or a device does.

mod barrier;
mod buffers;
mod complete;
mod control;
mod early;
mod endpoints;
mod job;
mod judge;
#[cfg(any(test, fuzzing))]
pub(crate) mod model;
mod prompt;
mod prospects;
mod receive;
mod rx;
mod slots;
mod submit;
mod tapping;
mod teardown;
mod thrift;
mod tx;
mod unlink;
mod urb;
mod violation;

#[cfg(test)]
mod tests;

use std::time::Instant;

use crate::deadline::earlier;
use crate::limits::{DeviceLimits, PACKETS_WAITING_MAX, URBS_REFUSED_MAX, URBS_WAITING_MAX};
use crate::stats::SessionStats;
use crate::stats::turnaround::Milliseconds;
use crate::usb::{Opened, Port};
use crate::wire::types::DevId;
use barrier::Barriers;
use buffers::Buffers;
use control::Control;
use early::EarlyUnlinks;
use endpoints::Endpoints;
use job::Place;
pub(crate) use job::{Job, JobKind, JobResult};
use prompt::Promptness;
use receive::Receiver;
pub(crate) use rx::RxSlices;
use slots::Slots;
use tapping::Recording;
use teardown::Life;
pub(crate) use teardown::Remains;
use thrift::Given;
pub(crate) use thrift::Thrift;
use tx::TxQueue;
pub(crate) use tx::TxSlices;
use urb::UrbTable;
pub(crate) use violation::Violation;

/// The large part of a session's own memory.
pub(crate) struct Tables {
    urbs: UrbTable,
    rx: Receiver,
    tx: TxQueue,
}

impl Tables {
    /// For a device with `slots` URB slots; `None` when the system has no memory for them.
    pub(crate) fn new(slots: usize) -> Option<Self> {
        let records = records_for(slots);
        let with_packets = slots + PACKETS_WAITING_MAX + URBS_REFUSED_MAX;
        let urbs = UrbTable::new(records, with_packets)?;
        Some(Self { urbs, rx: Receiver::new()?, tx: TxQueue::new(records)? })
    }
}

/// Records of a session with `slots` slots.
const fn records_for(slots: usize) -> usize {
    slots + URBS_WAITING_MAX + URBS_REFUSED_MAX
}

/// A client with a device.
pub(crate) struct Session<P: Port> {
    devid: DevId,
    /// Bytes of the largest URB.
    urb_len: usize,
    port: Place<P>,
    slots: Slots<P>,
    buffers: Buffers,
    endpoints: Endpoints,
    control: Control,
    barriers: Barriers,
    urbs: UrbTable,
    rx: Receiver,
    early_unlinks: EarlyUnlinks,
    tx: TxQueue,
    life: Life,
    recording: Recording,
    promptness: Promptness,
    /// The time of the last input, for turnarounds.
    time: Milliseconds,
    tally: Tally,
    /// The memory given back since the last input.
    given: Option<Given>,
}

/// Counts of the session that no endpoint has.
#[derive(Clone, Copy, Default)]
struct Tally {
    /// UNLINKs received.
    unlinks: u64,
    /// SUBMITs answered with an error without the device.
    refused: u64,
}

impl<P: Port> Session<P> {
    /// A session with an opened device. The rest of the session's memory is allocated here.
    pub(crate) fn new(
        devid: DevId,
        limits: DeviceLimits,
        mut opened: Opened<P>,
        tables: Tables,
    ) -> Self {
        opened.port.attached();
        let records = records_for(opened.slots);
        Self {
            devid,
            urb_len: limits.urb_len,
            port: Place::Here(Box::new(opened.port)),
            slots: Slots::new(opened.transfers, opened.slots),
            buffers: Buffers::new(opened.memory),
            endpoints: Endpoints::new(opened.configuration),
            control: Control::new(opened.configurations, P::CONTROL_LEN_MAX),
            barriers: Barriers::new(opened.isochronous, records),
            urbs: tables.urbs,
            rx: tables.rx,
            early_unlinks: EarlyUnlinks::new(),
            tx: tables.tx,
            life: Life::new(),
            recording: Recording::new(opened.device),
            promptness: Promptness::default(),
            time: Milliseconds::default(),
            tally: Tally::default(),
            given: None,
        }
    }

    /// When [`Self::reap`] is to be called even without an event. Nothing can be reaped while the
    /// port is away.
    #[inline(always)]
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let early = self.early_unlinks.next_deadline();
        let Some(port) = self.port.here() else { return early };
        earlier(earlier(port.next_deadline(), self.buffers.retry), early)
    }

    /// The device in each PDU.
    pub(crate) const fn devid(&self) -> DevId {
        self.devid
    }

    /// A copy of the counters.
    pub(crate) fn stats(&self) -> SessionStats {
        SessionStats {
            unlinks: self.tally.unlinks,
            refused: self.tally.refused,
            slots: self.slots.gauge(),
            buffers: self.buffers.gauge(),
            endpoints: self.endpoints.work(),
        }
    }

    /// Whether the device was reset for the client since the last call.
    pub(crate) const fn take_reset(&mut self) -> bool {
        std::mem::replace(&mut self.barriers.was_reset, false)
    }

    /// Whether bytes from the client can be taken: not while unread answers use up the room for
    /// more. Even for a gone device, SUBMITs on their way are answered.
    pub(crate) fn wants_input(&self) -> bool {
        self.life.is_open() && !self.tx.is_full() && self.urbs.has_free_for_packets()
    }

    /// URBs that the device has.
    pub(crate) const fn in_flight(&self) -> usize {
        self.slots.in_use()
    }

    /// Whether a transfer may end that could be collected.
    pub(crate) const fn awaits_device(&self) -> bool {
        self.in_flight() > 0 && self.port.is_here()
    }

    /// Bytes of the last URB that was handed to the device.
    pub(crate) const fn last_len(&self) -> usize {
        self.slots.last_len()
    }

    /// Whether there are bytes for the client.
    pub(crate) fn has_output(&self) -> bool {
        !self.tx.is_empty()
    }

    /// Collects ended URBs behind new submits, without an event, if the device tends to be that
    /// fast. True when there is more to collect at once.
    pub(crate) fn reap_new(&mut self, now: Instant) -> bool {
        if !self.slots.has_new() || !self.port.is_here() || !self.promptness.is_expected() {
            return false;
        }
        let (ended, more) = self.collect(now);
        self.promptness.note(ended > 0);
        more
    }

    /// Collects ended URBs. True when there is more to collect at once.
    pub(crate) fn reap(&mut self, now: Instant) -> bool {
        self.collect(now).1
    }

    /// Collects ended URBs. Returns how many, and whether there is more to collect at once.
    fn collect(&mut self, now: Instant) -> (usize, bool) {
        self.time.set(now);
        if !self.early_unlinks.is_empty() {
            self.expire_early_unlinks(now);
        }
        let Some(port) = self.port.here_mut() else { return (0, false) };
        let reaped = self.slots.reap(port, now);
        self.tx.expect(self.slots.ended_len());
        self.recording.begin_batch();
        let mut index = 0;
        while let Some(slot) = self.slots.ended(index) {
            self.handle_completion(slot, now);
            index += 1;
        }
        let ended = self.slots.forget_ended();
        if ended > 0 {
            self.buffers.retry = self.buffers.retry.map(|_| now);
        }
        if reaped.gone {
            self.life.note_gone();
        }
        self.act_on_gone();
        self.submit_waiting(now);
        self.recording.end_batch();
        (ended, reaped.more)
    }

    /// Fills the staging buffer with waiting replies.
    #[inline]
    pub(crate) fn stage(&mut self) {
        if self.tx.has_unstaged() {
            self.stage_waiting();
        }
    }

    #[inline(never)]
    fn stage_waiting(&mut self) {
        let (urbs, buffers) = (&mut self.urbs, &mut self.buffers);
        self.tx.stage(urbs, |urbs, urb| buffers.free_record_apart(urbs, urb));
    }

    /// Adds the bytes to write next, at most `most`, to no slices. The slices are the caller's, as
    /// with [`Self::rx_slices`].
    #[inline(always)]
    pub(crate) fn tx_slices<'a>(&'a self, slices: &mut TxSlices<'a>, most: usize) {
        self.tx.add_slices(&self.urbs, slices, most);
    }

    /// Notes `len` bytes as written.
    pub(crate) fn tx_advance(&mut self, len: usize, now: Instant) {
        self.time.set(now);
        let (urbs, buffers) = (&mut self.urbs, &mut self.buffers);
        self.tx.advance(len, |urb| buffers.free_record(urbs, urb));
        self.submit_waiting(now);
        self.act_on_gone();
    }

    /// The room allocated for lists, which must never change.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn footprint(&self) -> [usize; 4] {
        let [barriers, early] = [self.barriers.footprint(), self.early_unlinks.footprint()];
        [barriers, early, self.slots.footprint(), self.tx.footprint()]
    }
}
