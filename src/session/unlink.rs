//! The race of SUBMIT and UNLINK.
//!
//! The client's kernel gives a URB back on whichever comes first, RET_SUBMIT or RET_UNLINK, and
//! tears the connection down on a RET_SUBMIT that comes second (`drivers/usb/usbip/vhci_rx.c`). It
//! waits for the RET_UNLINK without a time limit. Hence:
//!
//! | the URB is                       | answer                                               |
//! |----------------------------------|------------------------------------------------------|
//! | unknown, or was answered         | RET_UNLINK(0)                                        |
//! | yet to come (see below)          | RET_UNLINK(-ECONNRESET) when it is here; RET_UNLINK(0) if it does not come |
//! | ended, its reply not yet written | RET_UNLINK(0), behind that reply                     |
//! | waiting, or behind a barrier     | RET_UNLINK(-ECONNRESET), no RET_SUBMIT               |
//! | to be performed by the host      | the same, and it is not performed                    |
//! | being performed by the host      | the same; what comes of it is dropped                |
//! | with the device, ends cancelled  | the same                                             |
//! | with the device, ends otherwise  | RET_SUBMIT, then RET_UNLINK(0): no data is lost      |
//! | unlinked a second time           | RET_UNLINK(0)                                        |
//!
//! An UNLINK can overtake its SUBMIT: Linux's sending thread looks for SUBMITs, finds none, and
//! then for UNLINKs (`vhci_tx_loop`), and meanwhile another thread may have queued one of each.
//! Answered at once, the client would give the URB back, then send it, and take our RET_SUBMIT for
//! an error. Its numbers only grow, so the UNLINK of one above all that came is kept until that
//! comes, or a higher one, or nothing for a while. A client whose numbers do not grow is answered
//! at once.

use std::time::Instant;

use super::urb::{UrbIndex, UrbState};
use super::{Session, Violation};
use crate::limits::{EARLY_UNLINK_TIMEOUT, EARLY_UNLINKS_MAX};
use crate::usb::Port;
use crate::wire::pdu::CmdUnlink;
use crate::wire::status::Status;
use crate::wire::types::SeqNum;

/// Whether `one` is above `other` on a counter that wraps.
const fn is_above(one: SeqNum, other: SeqNum) -> bool {
    const HALF: u32 = 1 << 31;
    let ahead = one.0.wrapping_sub(other.0);
    ahead != 0 && ahead < HALF
}

/// An UNLINK that may have overtaken its SUBMIT.
#[derive(Clone, Copy, Debug)]
pub(super) struct EarlyUnlink {
    target: SeqNum,
    pub(super) seqnum: SeqNum,
    /// When it is answered all the same.
    pub(super) until: Instant,
}

impl<P: Port> Session<P> {
    /// Takes up an UNLINK.
    pub(super) fn handle_unlink(
        &mut self,
        unlink: &CmdUnlink,
        now: Instant,
    ) -> Result<(), Violation> {
        if unlink.devid != self.devid {
            return Err(Violation::WrongDevice(unlink.devid));
        }
        self.counters.unlinks += 1;
        let Some(urb) = self.urbs.find(unlink.target) else {
            self.unlink_unknown(unlink, now);
            return Ok(());
        };
        match self.urbs.get(urb).state {
            UrbState::InFlight if self.urbs.get(urb).unlink.is_none() => {
                self.urbs.get_mut(urb).unlink = Some(unlink.seqnum);
                self.cancel(urb);
            }
            UrbState::Waiting => {
                self.endpoints.remove_waiting(&mut self.urbs, urb);
                self.drop_unlinked(urb, unlink.seqnum);
            }
            UrbState::Held => {
                self.held.retain(|&held| held != urb);
                self.drop_unlinked(urb, unlink.seqnum);
            }
            UrbState::Performing => {
                if let Some(urb) = self.drop_barrier() {
                    self.drop_unlinked(urb, unlink.seqnum);
                    self.release_held(now);
                } else {
                    self.urbs.get_mut(urb).muted = true;
                    self.urbs.unlist(urb);
                    self.tx.push_unlink(unlink.seqnum, Status::ECONNRESET);
                }
            }
            // A PDU is whole before the next one is looked at, so nothing is still arriving.
            UrbState::InFlight | UrbState::Receiving | UrbState::Replying | UrbState::Free => {
                self.tx.push_unlink(unlink.seqnum, Status::OK);
            }
        }
        Ok(())
    }

    /// Takes up an UNLINK whose SUBMIT was answered, is yet to come, or never was.
    fn unlink_unknown(&mut self, unlink: &CmdUnlink, now: Instant) {
        let known = self.early_unlinks.iter().any(|early| early.target == unlink.target);
        if !self.is_yet_to_come(unlink) || known || self.early_unlinks.len() == EARLY_UNLINKS_MAX {
            return self.tx.push_unlink(unlink.seqnum, Status::OK);
        }
        let (target, seqnum) = (unlink.target, unlink.seqnum);
        let until = now + EARLY_UNLINK_TIMEOUT;
        self.early_unlinks.push(EarlyUnlink { target, seqnum, until });
    }

    /// Whether the SUBMIT that an UNLINK names may be behind it: its number lies between the newest
    /// that came and the UNLINK's own, and the client's numbers have only grown so far.
    fn is_yet_to_come(&self, unlink: &CmdUnlink) -> bool {
        let newest = self.newest_seqnum.filter(|_| self.seqnums_grow);
        newest.is_some_and(|newest| {
            is_above(unlink.target, newest) && is_above(unlink.seqnum, unlink.target)
        })
    }

    /// Notes a SUBMIT, and returns the UNLINK that came before it.
    pub(super) fn note_submit(&mut self, seqnum: SeqNum) -> Option<SeqNum> {
        self.seqnums_grow &= self.newest_seqnum.is_none_or(|newest| is_above(seqnum, newest));
        self.newest_seqnum = Some(seqnum);
        if self.early_unlinks.is_empty() {
            return None;
        }
        let index = self.early_unlinks.iter().position(|early| early.target == seqnum);
        let unlink = index.map(|index| self.early_unlinks.swap_remove(index).seqnum);
        self.answer_early_unlinks(|early| !is_above(early.target, seqnum));
        unlink
    }

    /// Bytes have come: what is waited for may be behind them.
    pub(super) fn prolong_early_unlinks(&mut self, now: Instant) {
        for early in &mut self.early_unlinks {
            early.until = now + EARLY_UNLINK_TIMEOUT;
        }
    }

    /// Answers UNLINKs whose SUBMITs did not come by `now`, or will not come any more. In the
    /// middle of a PDU they may yet, however slow it is.
    pub(super) fn expire_early_unlinks(&mut self, now: Instant) {
        let (none_comes, is_whole) = (self.gone, self.rx.is_between_pdus());
        if !none_comes && !is_whole && self.early_unlinks.iter().any(|early| early.until <= now) {
            return self.prolong_early_unlinks(now);
        }
        self.answer_early_unlinks(|early| none_comes || early.until <= now);
    }

    /// Answers those UNLINKs whose SUBMITs do not come.
    fn answer_early_unlinks(&mut self, comes_not: impl Fn(&EarlyUnlink) -> bool) {
        let tx = &mut self.tx;
        self.early_unlinks.retain(|early| {
            let answered = comes_not(early);
            if answered {
                tx.push_unlink(early.seqnum, Status::OK);
            }
            !answered
        });
    }

    /// Has a transfer cancelled by the next job.
    pub(super) fn cancel(&mut self, urb: UrbIndex) {
        let record = self.urbs.get_mut(urb);
        if !std::mem::replace(&mut record.cancelling, true) {
            self.slots.cancel(record.transfer);
        }
    }

    /// Answers the UNLINK of a URB that the device never had.
    fn drop_unlinked(&mut self, urb: UrbIndex, unlink: SeqNum) {
        self.buffers.free_record(&mut self.urbs, urb);
        self.tx.push_unlink(unlink, Status::ECONNRESET);
    }

    /// Answers an unlinked URB that has ended, and its UNLINK.
    pub(super) fn conclude_unlinked(
        &mut self,
        urb: UrbIndex,
        unlink: SeqNum,
        status: Status,
        actual_length: u32,
    ) {
        if status == Status::ECONNRESET && actual_length == 0 {
            return self.drop_unlinked(urb, unlink);
        }
        self.queue_reply(urb);
        self.tx.push_unlink(unlink, Status::OK);
    }
}
