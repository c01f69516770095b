//! UNLINKs ahead of their SUBMITs.
//!
//! Linux's sending thread looks for SUBMITs, finds none, and then for UNLINKs (`vhci_tx_loop`), and
//! meanwhile another thread may have queued both a SUBMIT and its UNLINK. Answered at once, the
//! client would give the URB back, then send the SUBMIT, and take our RET_SUBMIT for an error.
//! Linux's numbers only grow, so the UNLINK of a number above all received is kept until the SUBMIT
//! comes, or a higher number, or nothing for a while. A client whose numbers do not grow is
//! answered at once.
//!
//! Contract: no allocation after `new`; the clock is the caller's.

use std::time::Instant;

use super::tx::TxQueue;
use crate::limits::{EARLY_UNLINK_TIMEOUT, EARLY_UNLINKS_MAX};
use crate::wire::pdu::CmdUnlink;
use crate::wire::status::Status;
use crate::wire::types::SeqNum;

/// Whether `one` is above `other` on a counter that wraps.
const fn is_above(one: SeqNum, other: SeqNum) -> bool {
    const HALF: u32 = 1 << 31;
    let ahead = one.0.wrapping_sub(other.0);
    ahead != 0 && ahead < HALF
}

/// An UNLINK which may have overtaken its SUBMIT.
#[derive(Clone, Copy, Debug)]
struct EarlyUnlink {
    target: SeqNum,
    seqnum: SeqNum,
    /// When the UNLINK is answered all the same.
    until: Instant,
}

/// The early UNLINKs of a client, and the order of its seqnums.
pub(super) struct EarlyUnlinks {
    waiting: Vec<EarlyUnlink>,
    /// The last SUBMIT.
    newest: Option<SeqNum>,
    /// No SUBMIT had a number below its predecessor's.
    is_growing: bool,
}

impl EarlyUnlinks {
    pub(super) fn new() -> Self {
        let waiting = Vec::with_capacity(EARLY_UNLINKS_MAX);
        Self { waiting, newest: None, is_growing: true }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the first UNLINK is answered all the same.
    #[inline]
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        // Mostly there is none, and the session asks in each turn.
        if self.is_empty() { None } else { self.first_deadline() }
    }

    #[cold]
    fn first_deadline(&self) -> Option<Instant> {
        self.waiting.iter().map(|early| early.until).min()
    }

    /// Keeps an UNLINK of an unknown URB if the SUBMIT may come behind the UNLINK; false when the
    /// UNLINK is to be answered at once.
    pub(super) fn keep(&mut self, unlink: &CmdUnlink, now: Instant) -> bool {
        let is_known = self.waiting.iter().any(|early| early.target == unlink.target);
        if !self.is_yet_to_come(unlink) || is_known || self.waiting.len() == EARLY_UNLINKS_MAX {
            return false;
        }
        let until = now + EARLY_UNLINK_TIMEOUT;
        self.waiting.push(EarlyUnlink { target: unlink.target, seqnum: unlink.seqnum, until });
        true
    }

    /// Whether an UNLINK's SUBMIT may come behind the UNLINK: the number lies between the newest
    /// received and the UNLINK's own, and the client's numbers have only grown until now.
    fn is_yet_to_come(&self, unlink: &CmdUnlink) -> bool {
        let newest = self.newest.filter(|_| self.is_growing);
        newest.is_some_and(|newest| {
            is_above(unlink.target, newest) && is_above(unlink.seqnum, unlink.target)
        })
    }

    /// Notes a SUBMIT, and returns the UNLINK which came first. UNLINKs of numbers now passed are
    /// answered.
    #[inline]
    pub(super) fn note_submit(&mut self, seqnum: SeqNum, tx: &mut TxQueue) -> Option<SeqNum> {
        if self.newest.is_some_and(|newest| !is_above(seqnum, newest)) {
            self.is_growing = false;
        }
        self.newest = Some(seqnum);
        if self.waiting.is_empty() { None } else { self.take(seqnum, tx) }
    }

    #[cold]
    fn take(&mut self, seqnum: SeqNum, tx: &mut TxQueue) -> Option<SeqNum> {
        let index = self.waiting.iter().position(|early| early.target == seqnum);
        let unlink = index.map(|index| self.waiting.swap_remove(index).seqnum);
        self.answer(tx, |early| !is_above(early.target, seqnum));
        unlink
    }

    /// Bytes have come: the SUBMITs may be behind them.
    pub(super) fn prolong(&mut self, now: Instant) {
        for early in &mut self.waiting {
            early.until = now + EARLY_UNLINK_TIMEOUT;
        }
    }

    /// Answers UNLINKs whose SUBMITs did not come by `now`. In the middle of a PDU a SUBMIT may yet
    /// come, however slow the rest is.
    pub(super) fn expire(&mut self, now: Instant, is_between_pdus: bool, tx: &mut TxQueue) {
        if !is_between_pdus && self.waiting.iter().any(|early| early.until <= now) {
            return self.prolong(now);
        }
        self.answer(tx, |early| early.until <= now);
    }

    /// Answers all UNLINKs: no SUBMIT is of use any more.
    pub(super) fn answer_all(&mut self, tx: &mut TxQueue) {
        self.answer(tx, |_| true);
    }

    /// Answers UNLINKs whose SUBMITs do not come.
    fn answer(&mut self, tx: &mut TxQueue, comes_not: impl Fn(&EarlyUnlink) -> bool) {
        self.waiting.retain(|early| {
            let answered = comes_not(early);
            if answered {
                tx.push_unlink(early.seqnum, Status::OK);
            }
            !answered
        });
    }

    /// Forgets all UNLINKs: nobody waits for an answer.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// The waiting UNLINKs.
    #[cfg(any(test, fuzzing))]
    pub(super) fn seqnums(&self) -> Vec<SeqNum> {
        self.waiting.iter().map(|early| early.seqnum).collect()
    }

    /// The room allocated.
    #[cfg(any(test, fuzzing))]
    pub(super) const fn footprint(&self) -> usize {
        self.waiting.capacity()
    }
}
