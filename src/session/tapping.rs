//! The records of a session for a capture, where a capture is under way.
//!
//! Not on a port around the port, which would see neither seqnums nor the client's packets, and of
//! refused and unlinked URBs nothing.
//!
//! Contract: part of the session: nothing here blocks or allocates.

use super::Session;
use super::urb::{UrbIndex, UrbState};
use crate::capture::{By, End, Urb};
use crate::usb::Port;
use crate::wire::iso::Packets;
use crate::wire::status::Status;
use crate::wire::types::{Direction, TransferType};

impl<P: Port> Session<P> {
    /// Records a SUBMIT that has arrived.
    #[inline]
    pub(super) fn record_submit(&mut self, urb: UrbIndex) {
        if self.tap.is_some() {
            self.tap_submit(urb);
        }
    }

    /// Records the end of a URB, with status and length in the URB's record.
    #[inline]
    pub(super) fn record_end(&mut self, urb: UrbIndex) {
        if self.tap.is_some() {
            self.tap_end(urb);
        }
    }

    #[inline(never)]
    fn tap_submit(&mut self, urb: UrbIndex) {
        let Some(tap) = &mut self.tap else { return };
        let (record, packets) = self.urbs.get_with_packets(urb);
        // Behind a barrier nobody has looked at the endpoint yet.
        let transfer_type = match self.endpoints.get(record.submit.endpoint).transfer_type {
            _ if !record.behind_barrier => record.transfer_type,
            _ if !packets.is_empty() => TransferType::Isochronous,
            known => known.unwrap_or(TransferType::Bulk),
        };
        let from = record.data_offset();
        let block = record.block.as_ref().filter(|_| record.direction == Direction::Out);
        let data = block.map_or(&[][..], |block| &block[from..from + record.payload_len()]);
        let (submit, direction) = (&record.submit, record.direction);
        tap.submitted(Urb { submit, direction, transfer_type, packets, data });
    }

    #[inline(never)]
    fn tap_end(&mut self, urb: UrbIndex) {
        let Some(tap) = &mut self.tap else { return };
        let (record, packets) = self.urbs.get_with_packets(urb);
        let (status, actual_length) = (record.status, record.actual_length);
        let by = match (record.state, record.unlink) {
            (UrbState::InFlight, Some(unlink)) => By::Unlink(unlink),
            (UrbState::InFlight, None) => By::Device,
            (UrbState::Performing, _) => By::Host,
            (_, Some(unlink)) => By::EarlyUnlink(unlink),
            _ if record.refusal.is_some() => By::Refusal,
            _ if status == Status::ECONNRESET => By::Barrier,
            _ => By::Copy,
        };
        let from = record.data_offset();
        let block = record.block.as_ref().filter(|_| record.direction == Direction::In);
        let data = block.map_or(&[][..], |block| match record.transfer_type {
            TransferType::Isochronous => &block[..],
            _ => &block[from..from + actual_length as usize],
        });
        let (submit, direction) = (&record.submit, record.direction);
        let transfer_type = record.transfer_type;
        let packets = if record.packets > 0 { packets } else { Packets::new(&[]) };
        let urb = Urb { submit, direction, transfer_type, packets, data };
        tap.ended(urb, End { status, actual_length, error_count: record.error_count, by });
    }
}
