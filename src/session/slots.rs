//! The URB slots of a device: which are free, whose URB each carries, and which are to be
//! cancelled.
//!
//! Contract: nothing allocates after `new`; nothing blocks. Only a free slot is submitted to, and
//! only a slot found by the port is ended.

use std::time::Instant;

use usbferry_sys::arena::Block;

use super::urb::{NO_URB, UrbIndex};
use crate::stats::Gauge;
use crate::usb::{Completion, Port, Reaped, Refused, Submission};

/// The slots of a session.
pub(super) struct Slots<P: Port> {
    pub(super) transfers: Vec<P::Transfer>,
    /// Slots without a URB; the slot freed last is used next.
    free: Vec<u32>,
    /// The URB of each slot.
    owners: Vec<UrbIndex>,
    /// Slots to cancel by the next job, all in flight.
    cancels: Vec<u32>,
    /// The list for the job, kept for its memory.
    tokens: Vec<P::CancelToken>,
    /// Ended slots found by the port, while the session looks at each.
    ended: Vec<u32>,
    /// The fewest slots ever free.
    least_free: usize,
    /// Cancelling a transfer ends all of its endpoint, as on macOS (libusb's
    /// `darwin_abort_transfers`).
    pub(super) cancels_pipe: bool,
}

impl<P: Port> Slots<P> {
    /// All slots of a device, free.
    pub(super) fn new(transfers: Vec<P::Transfer>) -> Self {
        let slots = transfers.len();
        let count = u32::try_from(slots).expect("limits keep slots few");
        Self {
            transfers,
            free: (0..count).rev().collect(),
            owners: vec![NO_URB; slots],
            cancels: Vec::with_capacity(slots),
            tokens: Vec::with_capacity(slots),
            ended: Vec::with_capacity(slots),
            least_free: slots,
            cancels_pipe: cfg!(target_os = "macos"),
        }
    }

    /// Slots without a URB.
    pub(super) const fn free(&self) -> usize {
        self.free.len()
    }

    /// Slots in use.
    pub(super) const fn gauge(&self) -> Gauge {
        let room = self.transfers.len();
        Gauge::of(room - self.free.len(), room - self.least_free, room)
    }

    /// Hands a URB to the device in a free slot, which there must be, and returns the slot.
    #[inline]
    pub(super) fn submit(
        &mut self,
        port: &mut P,
        submission: &Submission<'_>,
        block: Block,
        urb: UrbIndex,
        now: Instant,
    ) -> Result<u32, Refused> {
        let Some(&slot) = self.free.last() else { unreachable!("a free slot was looked for") };
        port.submit(&mut self.transfers[slot as usize], submission, block, now)?;
        self.free.pop();
        self.least_free = self.least_free.min(self.free.len());
        self.owners[slot as usize] = urb;
        Ok(slot)
    }

    /// Has the port find ended slots; [`Self::ended`] are then to be looked at, and forgotten.
    pub(super) fn reap(&mut self, port: &mut P, now: Instant) -> Reaped {
        port.reap(now, &mut self.ended)
    }

    /// The `index`-th slot found by the port.
    pub(super) fn ended(&self, index: usize) -> Option<u32> {
        self.ended.get(index).copied()
    }

    /// Forgets the slots found by the port, and returns how many there were.
    pub(super) fn forget_ended(&mut self) -> usize {
        let count = self.ended.len();
        self.ended.clear();
        count
    }

    /// Frees an ended slot, and returns the URB with its end.
    #[inline]
    pub(super) fn end(&mut self, port: &mut P, slot: u32) -> (UrbIndex, Completion) {
        let urb = std::mem::replace(&mut self.owners[slot as usize], NO_URB);
        let completion = port.take(&mut self.transfers[slot as usize]);
        self.free.push(slot);
        (urb, completion)
    }

    /// Has a slot in flight cancelled by the next job.
    pub(super) fn cancel(&mut self, slot: u32) {
        self.cancels.push(slot);
    }

    /// Leaves a slot out of the next job: the URB has ended before, and the slot's next URB must
    /// not be hit.
    pub(super) fn forget_cancel(&mut self, slot: u32) {
        self.cancels.retain(|&other| other != slot);
    }

    /// The transfers to cancel now, if there are any. The list is to be [kept](Self::keep_tokens).
    pub(super) fn take_cancels(&mut self) -> Option<Vec<P::CancelToken>> {
        if self.cancels.is_empty() {
            return None;
        }
        let mut tokens = std::mem::take(&mut self.tokens);
        for slot in self.cancels.drain(..) {
            tokens.push(P::cancel_token(&self.transfers[slot as usize]));
        }
        Some(tokens)
    }

    /// Keeps the list of a job done.
    pub(super) fn keep_tokens(&mut self, tokens: Vec<P::CancelToken>) {
        self.tokens = tokens;
    }

    /// The URB of a slot.
    #[cfg(any(test, fuzzing))]
    pub(super) fn owner(&self, slot: u32) -> UrbIndex {
        self.owners[slot as usize]
    }

    /// The room allocated for lists.
    #[cfg(any(test, fuzzing))]
    pub(super) fn footprint(&self) -> usize {
        self.free.capacity() + self.cancels.capacity() + self.ended.capacity()
    }
}
