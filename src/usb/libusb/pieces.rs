//! libusb's division of transfers into requests to the system, and the number of requests in
//! flight.
//!
//! Contract: for the reactor; allocation in [`InFlight::new`] alone, and memory is committed as slots
//! come into use; nothing blocks.

use super::share::Cost;
use crate::usb::Submission;
use crate::wire::types::TransferType;

/// Requests that libusb collects from usbfs in one pass over a device's events
/// (`op_handle_events`): with fewer in flight, one pass finds every ended request.
const PIECES_PER_PASS: usize = 26;

/// Bytes of bulk data, and isochronous packets, in one request of libusb to usbfs
/// (`os/linux_usbfs.h`), if libusb splits bulk data at all.
const PIECE_LEN: usize = 16 * 1024;
const PIECE_PACKETS: usize = 128;

/// The requests of a device's transfers.
pub(super) struct InFlight {
    /// libusb does not split bulk transfers.
    bulk_is_whole: bool,
    /// The cost of each slot's transfer, up to the last slot used.
    costs: Vec<Cost>,
    /// Requests of all transfers together.
    requests: usize,
}

impl InFlight {
    /// For `slots` transfers.
    pub(super) fn new(slots: usize, bulk_is_whole: bool) -> Self {
        Self { bulk_is_whole, costs: Vec::with_capacity(slots), requests: 0 }
    }

    /// Provides for the next slot.
    pub(super) fn provide(&mut self, slot: u32) {
        let slots = self.costs.len().max(slot as usize + 1);
        self.costs.resize(slots, Cost::default());
    }

    /// The cost of a transfer before its submission.
    pub(super) fn cost_of(&self, submission: &Submission<'_>, in_mapping: bool) -> Cost {
        Cost::of(submission, pieces_of(submission, self.bulk_is_whole), in_mapping)
    }

    /// The transfer of a slot was submitted.
    pub(super) fn add(&mut self, slot: u32, cost: Cost) {
        self.costs[slot as usize] = cost;
        self.requests += cost.requests;
    }

    /// Notes the end of a slot's transfer, and returns the cost.
    pub(super) fn remove(&mut self, slot: u32) -> Cost {
        let cost = self.costs[slot as usize];
        self.requests -= cost.requests;
        cost
    }

    /// Whether one pass over the device's events finds every ended request.
    pub(super) const fn fits_a_pass(&self) -> bool {
        self.requests < PIECES_PER_PASS
    }
}

/// The greatest number of libusb's requests for a transfer.
fn pieces_of(submission: &Submission<'_>, bulk_is_whole: bool) -> usize {
    let pieces = match submission.transfer_type {
        TransferType::Control => 1,
        TransferType::Bulk | TransferType::Interrupt if bulk_is_whole => 1,
        TransferType::Isochronous => submission.packets.len().div_ceil(PIECE_PACKETS),
        TransferType::Bulk | TransferType::Interrupt => submission.length.div_ceil(PIECE_LEN),
    };
    pieces.max(1)
}
