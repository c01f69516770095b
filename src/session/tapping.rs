//! The records of a session for the captures of its device.
//!
//! Not on a port around the port, which would see neither seqnums nor the client's packets, and of
//! refused and unlinked URBs nothing.
//!
//! The records of a batch, which a read from the client or a look at the device gives, have one
//! time. The batches of a turn go to the capture together ([`Session::hand_in`]).
//!
//! Contract: part of the session: nothing here blocks, and no URB allocates.

use super::Session;
use super::urb::{UrbIndex, UrbState};
use crate::capture::{By, End, Moment, Tap, Urb};
use crate::usb::Port;
use crate::usb::descriptor::DEVICE_LEN;
use crate::wire::iso::Packets;
use crate::wire::status::Status;
use crate::wire::types::{Direction, TransferType};

/// The taps of the captures of a device.
pub(super) struct Recording {
    /// The device descriptor, for a capture that begins later.
    device: [u8; DEVICE_LEN],
    /// A session without a capture pays for a look at the number.
    taps: Vec<Tap>,
    /// Records wait for the end of their batch.
    in_batch: bool,
    /// The time of the batch, from its first record on.
    moment: Option<Moment>,
}

impl Recording {
    pub(super) const fn new(device: [u8; DEVICE_LEN]) -> Self {
        Self { device, taps: Vec::new(), in_batch: false, moment: None }
    }

    /// Whether a capture records the session.
    pub(super) const fn is_on(&self) -> bool {
        !self.taps.is_empty()
    }

    /// Begins a batch. The records until [`Self::end_batch`] arrived or ended at one time.
    #[inline]
    pub(super) const fn begin_batch(&mut self) {
        self.in_batch = true;
    }

    /// Ends the batch.
    #[inline]
    pub(super) const fn end_batch(&mut self) {
        (self.in_batch, self.moment) = (false, None);
    }

    /// Has each tap write a record, which is handed in at once without a batch.
    fn record(&mut self, write: impl Fn(&mut Tap, &Moment)) {
        let moment = self.moment.get_or_insert_with(Moment::now);
        self.taps.iter_mut().for_each(|tap| write(tap, moment));
        if !self.in_batch {
            self.moment = None;
            self.hand_in();
        }
    }

    fn hand_in(&mut self) {
        self.taps.iter_mut().for_each(Tap::hand_in);
    }
}

impl<P: Port> Session<P> {
    /// The device descriptor, and the configurations by index.
    pub(crate) fn descriptors(&self) -> ([u8; DEVICE_LEN], &[Vec<u8>]) {
        (self.recording.device, self.control.configurations())
    }

    /// Records every URB from now on with another tap.
    pub(crate) fn add_tap(&mut self, tap: Tap) {
        self.recording.taps.push(tap);
    }

    /// Records no more with the taps that `is_meant` tells.
    pub(crate) fn remove_taps(&mut self, is_meant: impl Fn(&Tap) -> bool) {
        self.recording.taps.retain(|tap| !is_meant(tap));
    }

    /// Hands the records of batches in, which the captures wait for until then.
    #[inline]
    pub(crate) fn hand_in(&mut self) {
        if self.recording.is_on() {
            self.recording.hand_in();
        }
    }

    /// Records a SUBMIT that has arrived.
    #[inline]
    pub(super) fn record_submit(&mut self, urb: UrbIndex) {
        if self.recording.is_on() {
            self.tap_submit(urb);
        }
    }

    /// Records the end of a URB, with status and length in the URB's record.
    #[inline]
    pub(super) fn record_end(&mut self, urb: UrbIndex) {
        if self.recording.is_on() {
            self.tap_end(urb);
        }
    }

    #[inline(never)]
    fn tap_submit(&mut self, urb: UrbIndex) {
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
        let urb = Urb { submit, direction, transfer_type, packets, data };
        self.recording.record(|tap, moment| tap.submitted(urb, moment));
    }

    #[inline(never)]
    fn tap_end(&mut self, urb: UrbIndex) {
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
        let end = End { status, actual_length, error_count: record.error_count, by };
        self.recording.record(|tap, moment| tap.ended(urb, end, moment));
    }
}
