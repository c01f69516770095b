//! URBs of simulated devices, and the slots for them.
//!
//! A URB that its device ends during submission never leaves its [`SimTransfer`]. A URB that has to
//! wait moves into the port, as a box allocated when the device was opened, and returns through the
//! slot's mailbox: the port has no access to the transfers when reaping.
//!
//! Contract: nothing allocates after construction, or blocks for longer than the move of a pointer.
//! A transfer must be reaped before its block is taken. A violation is only noticed, by a panic,
//! while the URB is with the port.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use usbferry_sys::arena::Block;

use super::endpoint::Plan;
use crate::usb::{Completion, Submission};
use crate::wire::iso::{PACKETS_MAX, Packets};
use crate::wire::status::Status;
use crate::wire::types::{EndpointAddress, TransferType};

/// The ended URBs of each slot, left there by the port.
pub(super) type Mailboxes = Arc<[Mutex<Option<Box<Urb>>>]>;

/// A URB slot of a simulated device.
pub struct SimTransfer {
    token: CancelToken,
    /// The URB, unless the port or the mailbox has the URB.
    urb: Option<Box<Urb>>,
    mailboxes: Mailboxes,
}

/// Names a single submission of a slot, so a late token finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CancelToken {
    pub(super) slot: u32,
    pub(super) generation: u32,
    pub(super) endpoint: EndpointAddress,
}

impl SimTransfer {
    /// Makes `count` slots, and the port's side of their mailboxes. Without `packets` the slots
    /// cannot carry isochronous URBs.
    pub(super) fn slots(count: usize, packets: bool, now: Instant) -> (Vec<Self>, Mailboxes) {
        let mailboxes: Mailboxes = (0..count).map(|_| Mutex::new(None)).collect();
        let transfers = (0..)
            .take(count)
            .map(|slot| Self {
                token: CancelToken { slot, generation: 0, endpoint: EndpointAddress::default() },
                urb: Some(Box::new(Urb::new(packets, now))),
                mailboxes: Arc::clone(&mailboxes),
            })
            .collect();
        (transfers, mailboxes)
    }

    /// Fills in the URB of a submission.
    pub(super) fn begin(&mut self, submission: &Submission<'_>, block: Block) -> &mut Box<Urb> {
        self.token.generation = self.token.generation.wrapping_add(1);
        self.token.endpoint = submission.endpoint;
        let urb = self.urb.as_mut().expect("the transfer is in flight");
        urb.begin(self.token, submission, block);
        urb
    }

    /// Hands the URB to the port.
    pub(super) fn hand_over(&mut self) -> Box<Urb> {
        self.urb.take().expect("a URB was begun")
    }

    /// Takes back the block of a URB refused after `begin`.
    pub(super) fn refuse(&mut self) -> Block {
        let urb = self.urb.as_mut().expect("a URB was begun");
        urb.block.take().expect("a URB that was begun has a block")
    }

    pub(super) const fn token(&self) -> CancelToken {
        self.token
    }

    /// Ends a transfer that was reaped: how its URB ended, and its buffer.
    pub(super) fn take(&mut self) -> Completion {
        let urb = self.home();
        Completion {
            status: urb.status,
            actual_length: u32::try_from(urb.done).unwrap_or(u32::MAX),
            block: urb.block.take().expect("the transfer was taken already"),
        }
    }

    /// How packet `index` of a transfer ended that was taken: bytes and status.
    pub(super) fn packet(&self, index: usize) -> (u32, Status) {
        let urb = self.urb.as_ref().expect("the transfer is in flight");
        urb.packets()[index].result()
    }

    fn home(&mut self) -> &mut Box<Urb> {
        let mailbox = &self.mailboxes[self.token.slot as usize];
        self.urb.get_or_insert_with(|| {
            let mut urb = mailbox.lock().unwrap_or_else(PoisonError::into_inner);
            urb.take().expect("the transfer is in flight")
        })
    }
}

/// A URB on its way through a simulated device.
pub(super) struct Urb {
    pub(super) token: CancelToken,
    pub(super) transfer_type: TransferType,
    /// Bytes of the block in use.
    pub(super) length: usize,
    /// Bytes moved up to now, without the SETUP packet.
    pub(super) done: usize,
    /// OUT data ends with a full packet and then an empty packet.
    pub(super) zero_packet: bool,
    /// The planned fault of the URB.
    pub(super) plan: Plan,
    /// The earliest time of the URB's end.
    pub(super) due: Instant,
    pub(super) status: Status,
    pub(super) block: Option<Block>,
    packets: Box<[PacketState]>,
    packet_count: usize,
}

impl Urb {
    fn new(packets: bool, now: Instant) -> Self {
        let packet_count = if packets { PACKETS_MAX as usize } else { 0 };
        Self {
            token: CancelToken { slot: 0, generation: 0, endpoint: EndpointAddress::default() },
            transfer_type: TransferType::Control,
            length: 0,
            done: 0,
            zero_packet: false,
            plan: Plan::None,
            due: now,
            status: Status::OK,
            block: None,
            packets: vec![PacketState(0); packet_count].into_boxed_slice(),
            packet_count: 0,
        }
    }

    fn begin(&mut self, token: CancelToken, submission: &Submission<'_>, block: Block) {
        assert!(self.block.is_none(), "the transfer was not taken");
        assert!(submission.length <= block.len(), "the block is shorter than the submission");
        self.token = token;
        self.transfer_type = submission.transfer_type;
        self.length = submission.length;
        self.done = 0;
        self.zero_packet = submission.zero_packet;
        self.status = Status::OK;
        self.block = Some(block);
        self.begin_packets(submission.packets);
    }

    fn begin_packets(&mut self, packets: Packets<'_>) {
        self.packet_count = packets.len();
        for (state, packet) in self.packets[..packets.len()].iter_mut().zip(packets.iter()) {
            *state = PacketState::submitted(packet.length);
        }
    }

    pub(super) const fn endpoint(&self) -> EndpointAddress {
        self.token.endpoint
    }

    pub(super) fn packets(&self) -> &[PacketState] {
        &self.packets[..self.packet_count]
    }

    /// The packets and their data, without gaps.
    pub(super) fn packets_and_data(&mut self) -> (&mut [PacketState], &mut [u8]) {
        let block = self.block.as_deref_mut().expect("a URB in flight has one");
        (&mut self.packets[..self.packet_count], &mut block[..self.length])
    }

    /// The bytes of the block in use.
    pub(super) fn data(&mut self) -> &mut [u8] {
        let block = self.block.as_deref_mut().expect("a URB in flight has one");
        &mut block[..self.length]
    }

    /// Ends the URB with all its packets, if any, never on the bus.
    pub(super) fn abandon(&mut self, status: Status) {
        self.status = status;
        for packet in &mut self.packets[..self.packet_count] {
            *packet = PacketState::ended(0, Status::EXDEV);
        }
    }
}

/// An isochronous packet. Before the packet's end the word is the length; afterwards the upper half
/// is the actual length and the lower half the status. A single word lets a slot's packets be
/// zeroed memory, free until first used.
#[derive(Clone, Copy)]
pub(super) struct PacketState(u64);

impl PacketState {
    const fn submitted(length: u32) -> Self {
        Self(length as u64)
    }

    pub(super) const fn ended(actual_length: u32, status: Status) -> Self {
        Self((actual_length as u64) << 32 | status.0.cast_unsigned() as u64)
    }

    /// The length of a packet before its end.
    pub(super) const fn length(self) -> usize {
        let bytes = self.0.to_le_bytes();
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize
    }

    const fn result(self) -> (u32, Status) {
        let b = self.0.to_le_bytes();
        let status = i32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        (u32::from_le_bytes([b[4], b[5], b[6], b[7]]), Status(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_keeps_its_length_then_its_result() {
        assert_eq!(PacketState::submitted(3072).length(), 3072);
        assert_eq!(PacketState::ended(96, Status::EPROTO).result(), (96, Status::EPROTO));
    }

    #[test]
    #[should_panic(expected = "in flight")]
    fn a_transfer_with_its_urb_in_the_port_cannot_be_taken() {
        let (mut transfers, _mailboxes) = SimTransfer::slots(1, false, Instant::now());
        transfers[0].hand_over();
        let _ = transfers[0].take();
    }
}
