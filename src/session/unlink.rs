//! The race of SUBMIT and UNLINK.
//!
//! The client's kernel gives a URB back on whichever comes first, RET_SUBMIT or RET_UNLINK, and
//! tears the connection down on a late RET_SUBMIT (`drivers/usb/usbip/vhci_rx.c`). The client waits
//! for the RET_UNLINK without a time limit. Hence:
//!
//! | the URB is                       | answer                                               |
//! |----------------------------------|------------------------------------------------------|
//! | unknown, or was answered         | RET_UNLINK(0)                                        |
//! | yet to come (see below)          | RET_UNLINK(-ECONNRESET) when the SUBMIT is here; RET_UNLINK(0) if none comes |
//! | ended, its reply not yet written | RET_UNLINK(0), behind that reply                     |
//! | waiting, or behind a barrier     | RET_UNLINK(-ECONNRESET), no RET_SUBMIT               |
//! | to be performed by the host      | the same, and it is not performed                    |
//! | being performed by the host      | the same; the result is dropped                |
//! | with the device, ends cancelled  | the same                                             |
//! | with the device, ends otherwise  | RET_SUBMIT, then RET_UNLINK(0): no data is lost      |
//! | unlinked a second time           | RET_UNLINK(0)                                        |
//!
//! An UNLINK can overtake its SUBMIT: see [`super::early`].
//!
//! Contract: part of the session: nothing here blocks or allocates.

use std::time::Instant;

use log::{Level, log_enabled};

use super::complete::trace_end;
use super::urb::{UrbIndex, UrbState};
use super::{Session, Violation};
use crate::usb::Port;
use crate::wire::pdu::CmdUnlink;
use crate::wire::status::Status;
use crate::wire::types::SeqNum;

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
        self.tally.unlinks += 1;
        let Some(urb) = self.urbs.find(unlink.target) else {
            if !self.early_unlinks.keep(unlink, now) {
                self.tx.push_unlink(unlink.seqnum, Status::OK);
            }
            return Ok(());
        };
        self.unlink_urb(urb, unlink.seqnum, now);
        Ok(())
    }

    /// Takes up the UNLINK of a known URB.
    fn unlink_urb(&mut self, urb: UrbIndex, unlink: SeqNum, now: Instant) {
        match self.urbs.get(urb).state {
            UrbState::InFlight if self.urbs.get(urb).unlink.is_none() => {
                self.urbs.get_mut(urb).unlink = Some(unlink);
                self.cancel(urb);
            }
            UrbState::Waiting => {
                self.endpoints.remove_waiting(&mut self.urbs, urb);
                self.drop_unperformed(urb, unlink);
            }
            UrbState::BehindBarrier => {
                self.barriers.remove(urb);
                self.drop_unperformed(urb, unlink);
            }
            UrbState::Performing => {
                if let Some(urb) = self.drop_barrier() {
                    self.drop_unperformed(urb, unlink);
                    self.release_queue(now);
                } else {
                    self.urbs.get_mut(urb).unanswered = true;
                    self.urbs.unlist(urb);
                    self.tx.push_unlink(unlink, Status::ECONNRESET);
                }
            }
            // A PDU is whole before the next is looked at: no URB is still arriving.
            UrbState::InFlight | UrbState::Receiving | UrbState::Replying | UrbState::Free => {
                self.tx.push_unlink(unlink, Status::OK);
            }
        }
    }

    /// Answers early UNLINKs whose SUBMITs did not come by `now`, or are of no use any more.
    pub(super) fn expire_early_unlinks(&mut self, now: Instant) {
        if self.life.is_device_gone() {
            self.early_unlinks.answer_all(&mut self.tx);
        } else {
            self.early_unlinks.expire(now, self.rx.is_between_pdus(), &mut self.tx);
        }
    }

    /// Has a transfer cancelled by the next job.
    pub(super) fn cancel(&mut self, urb: UrbIndex) {
        let record = self.urbs.get_mut(urb);
        if !std::mem::replace(&mut record.cancelling, true) {
            self.slots.cancel(record.transfer);
        }
    }

    /// Ends a URB that was unlinked before its turn, and answers the UNLINK.
    fn drop_unperformed(&mut self, urb: UrbIndex, unlink: SeqNum) {
        let record = self.urbs.get_mut(urb);
        (record.status, record.unlink) = (Status::ECONNRESET, Some(unlink));
        if log_enabled!(Level::Trace) {
            trace_end(self.devid, record);
        }
        self.record_end(urb);
        self.drop_unlinked(urb, unlink);
    }

    /// Answers the UNLINK of a URB which ends without RET_SUBMIT.
    fn drop_unlinked(&mut self, urb: UrbIndex, unlink: SeqNum) {
        self.buffers.free_record_apart(&mut self.urbs, urb);
        self.tx.push_unlink(unlink, Status::ECONNRESET);
    }

    /// Answers an unlinked URB which has ended, and the UNLINK.
    pub(super) fn answer_unlinked(
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
