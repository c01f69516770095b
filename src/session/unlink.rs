//! The race of SUBMIT and UNLINK.
//!
//! The client's kernel gives a URB back on whichever comes first, RET_SUBMIT or RET_UNLINK, and
//! tears the connection down on a RET_SUBMIT that comes second (`drivers/usb/usbip/vhci_rx.c`). It
//! waits for the RET_UNLINK without a time limit. Hence:
//!
//! | the URB is                       | answer                                               |
//! |----------------------------------|------------------------------------------------------|
//! | unknown, or was answered         | RET_UNLINK(0)                                        |
//! | ended, its reply not yet written | RET_UNLINK(0), behind that reply                     |
//! | waiting, or behind a barrier     | RET_UNLINK(-ECONNRESET), no RET_SUBMIT               |
//! | being performed by the host      | the same; what comes of it is dropped                |
//! | with the device, ends cancelled  | the same                                             |
//! | with the device, ends otherwise  | RET_SUBMIT, then RET_UNLINK(0): no data is lost      |
//! | unlinked a second time           | RET_UNLINK(0)                                        |

use super::urb::{UrbIndex, UrbState};
use super::{Session, Violation, free_record};
use crate::usb::Port;
use crate::wire::pdu::CmdUnlink;
use crate::wire::status::Status;
use crate::wire::types::SeqNum;

impl<P: Port> Session<P> {
    /// Takes up an UNLINK.
    pub(super) fn handle_unlink(&mut self, unlink: &CmdUnlink) -> Result<(), Violation> {
        if unlink.devid != self.devid {
            return Err(Violation::WrongDevice(unlink.devid));
        }
        let Some(urb) = self.urbs.find(unlink.target) else {
            self.tx.push_unlink(unlink.seqnum, Status::OK);
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
                self.urbs.get_mut(urb).muted = true;
                self.urbs.unlist(urb);
                self.tx.push_unlink(unlink.seqnum, Status::ECONNRESET);
            }
            // A PDU is whole before the next one is looked at, so nothing is still arriving.
            UrbState::InFlight | UrbState::Receiving | UrbState::Replying => {
                self.tx.push_unlink(unlink.seqnum, Status::OK);
            }
        }
        Ok(())
    }

    /// Has a transfer cancelled by the next job.
    pub(super) fn cancel(&mut self, urb: UrbIndex) {
        let record = self.urbs.get_mut(urb);
        if !std::mem::replace(&mut record.cancelling, true) {
            self.cancels.push(record.transfer);
        }
    }

    /// Answers the UNLINK of a URB that the device never had.
    fn drop_unlinked(&mut self, urb: UrbIndex, unlink: SeqNum) {
        free_record(&mut self.urbs, &mut self.memory, urb);
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
