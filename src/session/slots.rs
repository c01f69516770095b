//! The URB slots of a device: which are free, whose URB each carries, and which are to be
//! cancelled.
//!
//! The transfer of a slot is made when the slot is first used: most devices never have more than a
//! few URBs in flight, and the hundreds of other transfers would be most of the memory of an idle
//! device. The slot freed last is used next, so the number of transfers is the most URBs that were
//! in flight at once.
//!
//! Contract: nothing allocates after `new` but the first use of a slot; nothing blocks. Only a free
//! slot is submitted to, and only a slot found by the port is ended.

use std::time::Instant;

use usbferry_sys::arena::Block;

use super::urb::{NO_URB, UrbIndex};
use crate::stats::Gauge;
use crate::usb::{Completion, Port, Reaped, Refused, RefusedReason, Submission};

/// The slots of a session.
pub(super) struct Slots<P: Port> {
    /// The transfers made until now.
    pub(super) transfers: Vec<P::Transfer>,
    /// How many of the transfers were made with the device.
    kept: usize,
    /// Slots whose transfers are yet to be made.
    unmade: usize,
    /// Slots with a transfer and without a URB; the slot freed last is used next.
    free: Vec<u32>,
    /// The URB of each slot.
    owners: Vec<UrbIndex>,
    /// Slots to cancel by the next job, all in flight.
    cancels: Vec<u32>,
    /// The list for the job, kept for its memory.
    tokens: Vec<P::CancelToken>,
    /// Ended slots found by the port, while the session looks at each.
    ended: Vec<u32>,
    /// Slots were submitted to since the port last looked for ended slots.
    has_new: bool,
    /// Bytes of the URBs submitted since then.
    new_len: usize,
    /// The fewest slots free at any [`Self::reap`]: slots are freed behind these only.
    least_free: usize,
    /// Bytes of the last URB that was handed to the device.
    last_len: usize,
    /// Cancelling a transfer ends all of its endpoint, as on macOS (libusb's
    /// `darwin_abort_transfers`).
    pub(super) cancels_pipe: bool,
}

impl<P: Port> Slots<P> {
    /// All `slots` of a device, free. The first have `transfers` already.
    pub(super) fn new(mut transfers: Vec<P::Transfer>, slots: usize) -> Self {
        let made = transfers.len();
        transfers.reserve_exact(slots - made);
        let (mut free, mut owners) = (Vec::with_capacity(slots), Vec::with_capacity(slots));
        free.extend((0..u32::try_from(made).expect("limits keep slots few")).rev());
        owners.resize(made, NO_URB);
        Self {
            transfers,
            kept: made,
            unmade: slots - made,
            free,
            owners,
            cancels: Vec::with_capacity(slots),
            tokens: Vec::with_capacity(slots),
            ended: Vec::with_capacity(slots),
            has_new: false,
            new_len: 0,
            least_free: slots,
            last_len: 0,
            cancels_pipe: cfg!(target_os = "macos"),
        }
    }

    /// Slots without a URB.
    pub(super) const fn free(&self) -> usize {
        self.free.len() + self.unmade
    }

    /// Slots in use, as a gauge.
    pub(super) fn gauge(&self) -> Gauge {
        let room = self.transfers.len() + self.unmade;
        Gauge::of(room - self.free(), room - self.least_free.min(self.free()), room)
    }

    /// Slots in use.
    pub(super) const fn in_use(&self) -> usize {
        self.transfers.len() + self.unmade - self.free()
    }

    /// Bytes of the last URB that was handed to the device.
    pub(super) const fn last_len(&self) -> usize {
        self.last_len
    }

    /// Hands a URB to the device in a free slot, which there must be, and returns the slot.
    #[inline(always)]
    pub(super) fn submit(
        &mut self,
        port: &mut P,
        submission: Submission<'_>,
        block: Block,
        urb: UrbIndex,
        now: Instant,
    ) -> Result<u32, Refused> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => match self.make(port) {
                Some(slot) => slot,
                None => return Err(Refused { block, reason: RefusedReason::NoMemory }),
            },
        };
        let transfer = &mut self.transfers[slot as usize];
        if let Err(refused) = port.submit(transfer, submission, block, now) {
            self.free.push(slot);
            return Err(refused);
        }
        self.last_len = submission.length;
        self.owners[slot as usize] = urb;
        self.has_new = true;
        self.new_len += submission.length;
        Ok(slot)
    }

    /// Makes the transfer of the next slot, which there must be: a free slot was looked for. `None`
    /// when the system has no memory.
    #[cold]
    fn make(&mut self, port: &mut P) -> Option<u32> {
        debug_assert!(self.unmade > 0, "a free slot was looked for");
        let slot = u32::try_from(self.transfers.len()).expect("limits keep slots few");
        self.transfers.push(port.make_transfer(slot)?);
        self.unmade -= 1;
        self.owners.push(NO_URB);
        Some(slot)
    }

    /// Drops the transfers behind the last URB in flight; each is made again when its slot is next
    /// used. Transfers made with the device stay.
    pub(super) fn give_back(&mut self) {
        while self.transfers.len() > self.kept && self.owners.last() == Some(&NO_URB) {
            self.transfers.pop();
            self.owners.pop();
            self.unmade += 1;
        }
        let made = self.transfers.len();
        self.free.retain(|&slot| (slot as usize) < made);
    }

    /// Has the port find ended slots; [`Self::ended`] are then to be looked at, and forgotten.
    pub(super) fn reap(&mut self, port: &mut P, now: Instant) -> Reaped {
        (self.has_new, self.new_len) = (false, 0);
        self.least_free = self.least_free.min(self.free());
        port.reap(now, &mut self.ended)
    }

    /// Whether slots were submitted to since the last [`Self::reap`].
    pub(super) const fn has_new(&self) -> bool {
        self.has_new
    }

    /// Bytes of the URBs submitted since the last [`Self::reap`].
    pub(super) const fn new_len(&self) -> usize {
        self.new_len
    }

    /// The `index`-th slot found by the port.
    pub(super) fn ended(&self, index: usize) -> Option<u32> {
        self.ended.get(index).copied()
    }

    /// How many slots the port has found.
    pub(super) const fn ended_len(&self) -> usize {
        self.ended.len()
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
        let completion = port.take(&mut self.transfers[slot as usize]);
        let urb = std::mem::replace(&mut self.owners[slot as usize], NO_URB);
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

    /// Whether there are transfers to cancel.
    pub(super) const fn has_cancels(&self) -> bool {
        !self.cancels.is_empty()
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

    /// The slots with a transfer.
    #[cfg(test)]
    pub(super) fn made(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.transfers.len()).expect("limits keep slots few")
    }

    /// The room allocated for lists.
    #[cfg(any(test, fuzzing))]
    pub(super) fn footprint(&self) -> usize {
        let lists = self.free.capacity() + self.cancels.capacity() + self.ended.capacity();
        lists + self.transfers.capacity() + self.owners.capacity()
    }
}
