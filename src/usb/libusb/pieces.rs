//! libusb's division of transfers into requests to the system, and the number of requests in
//! flight.
//!
//! Contract: for the reactor; nothing allocates or blocks.

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
    /// Requests of all transfers together.
    requests: u32,
}

impl InFlight {
    /// Nothing in flight.
    pub(super) const fn new(bulk_is_whole: bool) -> Self {
        Self { bulk_is_whole, requests: 0 }
    }

    /// The cost of a transfer before its submission.
    #[inline(always)]
    pub(super) fn cost_of(&self, submission: &Submission<'_>, in_mapping: bool) -> Cost {
        Cost::of(submission, pieces_of(submission, self.bulk_is_whole), in_mapping)
    }

    /// A transfer with these requests was submitted.
    pub(super) const fn add(&mut self, requests: u32) {
        self.requests += requests;
    }

    /// A transfer has ended, and was taken.
    pub(super) const fn remove(&mut self, requests: u32) {
        self.requests -= requests;
    }

    /// Whether one pass over the device's events finds every ended request, when `ended` transfers
    /// have ended and were not taken yet.
    pub(super) const fn fits_a_pass(&self, ended: usize) -> bool {
        (self.requests as usize) < PIECES_PER_PASS + ended
    }
}

/// The greatest number of libusb's requests for a transfer.
#[inline(always)]
fn pieces_of(submission: &Submission<'_>, bulk_is_whole: bool) -> u32 {
    // Not a `match`, which the compiler makes a table of jumps.
    if submission.transfer_type == TransferType::Isochronous {
        pieces(submission.packets.len(), PIECE_PACKETS)
    } else if bulk_is_whole || submission.transfer_type == TransferType::Control {
        1
    } else {
        pieces(submission.length, PIECE_LEN)
    }
}

fn pieces(all: usize, most: usize) -> u32 {
    u32::try_from(all.div_ceil(most).max(1)).expect("limits keep transfers short")
}
