//! The URBs of a session: a record each, from the first byte of the SUBMIT to the last byte of the
//! reply.
//!
//! Records live in a table of fixed room, and the record freed last is used next. Beside the
//! records the seqnums lie close together, so a seqnum is found by a short scan: a session has few
//! URBs at a time. A record costs little and there are thousands; isochronous descriptors cost a
//! hundred times as much and have an area of their own, in which a URB with packets gets a stripe.
//! Memory of either is committed when first touched.
//!
//! Contract: no allocation after `new`; debug builds assert that a record is in use.

use std::ops::Range;

use usbferry_sys::arena::Block;
use usbferry_sys::os::heap::{self, Zeroed};

use crate::limits::{RECORD_MEMORY, URB_MEMORY};
use crate::wire::iso::{self, Packets, PacketsMut};
use crate::wire::pdu::CmdSubmit;
use crate::wire::setup::SETUP_LEN;
use crate::wire::status::Status;
use crate::wire::types::{DevId, Direction, EndpointAddress, SeqNum, TransferType};

/// Index of a record.
pub(crate) type UrbIndex = u32;

/// No record: the end of a list, or the owner of an idle transfer.
pub(crate) const NO_URB: UrbIndex = u32::MAX;

/// Bytes of descriptors a record can have.
const STRIPE_LEN: usize = iso::PACKETS_MAX as usize * iso::DESCRIPTOR_LEN;

/// Places of descriptors in a stripe, and the bytes between two places. The sets of most first
/// caches repeat after as many bytes as all places take.
const SHIFTS: usize = 16;
const SHIFT_LEN: usize = 256;

/// Bytes of a record and a seqnum.
pub(crate) const RECORD_LEN: usize = size_of::<Urb>() + size_of::<SeqNum>();

/// Bytes of descriptors given back at once.
const PIECE_LEN: usize = 1 << 20;

/// No stripe: a record without descriptors.
const NO_STRIPE: u32 = u32::MAX;

const _: () = assert!(RECORD_MEMORY + STRIPE_LEN <= URB_MEMORY);

/// The stations of a URB's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum UrbState {
    /// There is none: the record can be used.
    Free,
    /// Data or packet descriptors are still arriving.
    Receiving,
    /// The URB came behind a special request and waits for the end of the request.
    BehindBarrier,
    /// The URB waits on its endpoint for a slot, for memory, or for the port to come back.
    Waiting,
    /// The device has it.
    InFlight,
    /// The URB is the special request under way.
    Performing,
    /// The URB has ended, and the reply waits to be written.
    Replying,
}

/// A URB. A record has two lines of the cache for itself.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Urb {
    /// The client's SUBMIT. A control endpoint is named by its OUT address, so both directions
    /// share a queue.
    pub(crate) submit: CmdSubmit,
    /// The direction of the header, which says where the data goes.
    pub(crate) direction: Direction,
    pub(crate) state: UrbState,
    /// The endpoint's type when the URB was last looked at.
    pub(crate) transfer_type: TransferType,
    /// Descriptors that came with the SUBMIT, hence go back with the reply.
    pub(crate) packets: u32,
    /// The place of the descriptors.
    stripe: u32,
    /// The header came behind a special request, so the endpoint was not known yet.
    pub(crate) behind_barrier: bool,
    /// The answer once the SUBMIT has arrived, without the device.
    pub(crate) refusal: Option<Status>,
    /// The UNLINK that waits for the URB's end.
    pub(crate) unlink: Option<SeqNum>,
    /// Cancelling was asked for, by an UNLINK or by a barrier.
    pub(crate) cancelling: bool,
    /// Nobody waits for the reply any more.
    pub(crate) unanswered: bool,
    /// The buffer, except while the device has the URB.
    pub(crate) block: Option<Block>,
    /// OUT packets lie in the buffer one behind the other, no longer where the client had put them.
    pub(crate) joined: bool,
    /// The slot of the URB in flight.
    pub(crate) transfer: u32,
    /// When the device got it, in the session's milliseconds.
    pub(crate) submitted: u32,
    /// How the URB ended.
    pub(crate) status: Status,
    /// Bytes transferred, as the client is told.
    pub(crate) actual_length: u32,
    pub(crate) error_count: u32,
    /// The next URB in the endpoint's queue, or the next free record.
    pub(crate) next: UrbIndex,
    /// The URB before in the endpoint's queue.
    pub(crate) previous: UrbIndex,
    /// The URB can be found by its seqnum.
    is_listed: bool,
}

impl Urb {
    /// A free record.
    const FREE: Self = Self {
        submit: CmdSubmit {
            seqnum: SeqNum(0),
            devid: DevId(0),
            endpoint: EndpointAddress::new(0, Direction::Out),
            transfer_flags: 0,
            transfer_buffer_length: 0,
            start_frame: 0,
            number_of_packets: 0,
            interval: 0,
            setup: [0; SETUP_LEN],
        },
        direction: Direction::Out,
        state: UrbState::Free,
        transfer_type: TransferType::Control,
        packets: 0,
        stripe: NO_STRIPE,
        behind_barrier: false,
        refusal: None,
        unlink: None,
        cancelling: false,
        unanswered: false,
        block: None,
        joined: false,
        transfer: NO_URB,
        submitted: 0,
        status: Status::OK,
        actual_length: 0,
        error_count: 0,
        next: NO_URB,
        previous: NO_URB,
        is_listed: false,
    };

    /// Begins a URB in a free record, which has no block.
    #[inline(always)]
    const fn begin(&mut self, submit: CmdSubmit, packets: u32, stripe: u32) {
        self.submit = submit;
        self.direction = submit.endpoint.direction();
        self.state = UrbState::Receiving;
        self.transfer_type = TransferType::Control;
        (self.packets, self.stripe) = (packets, stripe);
        (self.behind_barrier, self.cancelling, self.unanswered, self.joined) =
            (false, false, false, false);
        (self.refusal, self.unlink) = (None, None);
        self.transfer = NO_URB;
        (self.status, self.actual_length, self.error_count) = (Status::OK, 0, 0);
        (self.next, self.previous) = (NO_URB, NO_URB);
        self.is_listed = true;
    }

    /// The place of the URB's descriptors, somewhere in its stripe: from the starts of their
    /// stripes, the descriptors of all URBs would use the same few places of a processor's cache.
    const fn stripe(&self) -> Range<usize> {
        let (len, stripe) = (self.descriptors_len(), self.stripe as usize);
        if len == 0 {
            return 0..0;
        }
        let shift = stripe % SHIFTS * SHIFT_LEN;
        let shift = if shift + len <= STRIPE_LEN { shift } else { 0 };
        let start = stripe * STRIPE_LEN + shift;
        start..start + len
    }

    /// Whether the end of the URB has another answer than a RET_SUBMIT, or none, or the answer
    /// waits.
    pub(crate) const fn is_answered_apart(&self) -> bool {
        self.unanswered || self.unlink.is_some() || self.refusal.is_some()
    }

    /// Bytes of the descriptors.
    pub(crate) const fn descriptors_len(&self) -> usize {
        self.packets as usize * iso::DESCRIPTOR_LEN
    }

    /// Bytes of data between the header and the descriptors.
    pub(crate) const fn payload_len(&self) -> usize {
        match self.direction {
            Direction::Out => self.submit.transfer_buffer_length as usize,
            Direction::In => 0,
        }
    }

    /// Where the data starts in the URB's buffer: a control transfer's SETUP packet comes first.
    pub(crate) const fn data_offset(&self) -> usize {
        match self.transfer_type {
            TransferType::Control => SETUP_LEN,
            _ => 0,
        }
    }
}

/// The records of a session.
pub(crate) struct UrbTable {
    /// Records that were ever in use; there is room for all.
    urbs: Vec<Urb>,
    /// The record used next, and behind it, by [`Urb::next`], the other free records.
    first_free: UrbIndex,
    /// The seqnum of each record, also of free records.
    seqnums: Vec<SeqNum>,
    /// Records there may be.
    capacity: usize,
    /// No record from here on has been in use since the table was empty.
    touched: usize,
    /// No listed seqnum is a greater number: most clients count up, so a new number need not be
    /// looked for among all pending URBs.
    highest: u32,
    used: usize,
    stripes: Zeroed<u8>,
    /// Stripes that records have given back; the stripe freed last is used next.
    free_stripes: Vec<u32>,
    /// Stripes never used, the last of all.
    new_stripes: u32,
    /// URBs that can have packets.
    with_packets: u32,
}

impl UrbTable {
    /// Room for `capacity` URBs, of which `with_packets` can have packets; `None` when the system
    /// has no memory for them.
    pub(crate) fn new(capacity: usize, with_packets: usize) -> Option<Self> {
        let stripes = Zeroed::new(with_packets * STRIPE_LEN)?;
        let (mut urbs, mut seqnums, mut free_stripes) = (Vec::new(), Vec::new(), Vec::new());
        urbs.try_reserve_exact(capacity).ok()?;
        seqnums.try_reserve_exact(capacity).ok()?;
        free_stripes.try_reserve_exact(with_packets).ok()?;
        let with_packets = u32::try_from(with_packets).expect("limits keep the table small");
        Some(Self {
            urbs,
            first_free: NO_URB,
            seqnums,
            capacity,
            touched: 0,
            highest: 0,
            used: 0,
            stripes,
            free_stripes,
            new_stripes: with_packets,
            with_packets,
        })
    }

    /// Records not in use.
    pub(crate) const fn free(&self) -> usize {
        self.capacity - self.used
    }

    /// URBs with packets for which there is room.
    pub(crate) const fn free_for_packets(&self) -> usize {
        let (records, stripes) = (self.free(), self.free_stripes.len() + self.new_stripes as usize);
        if records < stripes { records } else { stripes }
    }

    /// Whether there is room for a URB with packets.
    pub(crate) const fn has_free_for_packets(&self) -> bool {
        self.used < self.capacity && self.free_stripes.len() + self.new_stripes as usize > 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// The URB with `seqnum`, while it can be unlinked.
    #[inline(always)]
    pub(crate) fn find(&self, seqnum: SeqNum) -> Option<UrbIndex> {
        if seqnum.0 > self.highest { None } else { self.look_for(seqnum) }
    }

    #[inline(never)]
    fn look_for(&self, seqnum: SeqNum) -> Option<UrbIndex> {
        let seqnums = (0..).zip(&self.seqnums[..self.touched]);
        let mut found = seqnums.filter(|(_, listed)| **listed == seqnum).map(|(index, _)| index);
        found.find(|&index: &UrbIndex| self.urbs[index as usize].is_listed)
    }

    /// Takes a record. There must be a free record, and room for the packets if there are any.
    #[cfg(test)]
    pub(crate) fn insert(&mut self, submit: CmdSubmit, packets: u32) -> UrbIndex {
        self.insert_mut(submit, packets).0
    }

    /// The same; returns the record, too.
    #[inline(always)]
    pub(crate) fn insert_mut(&mut self, submit: CmdSubmit, packets: u32) -> (UrbIndex, &mut Urb) {
        let stripe = match packets {
            0 => NO_STRIPE,
            _ => self.free_stripes.pop().unwrap_or_else(|| self.new_stripe()),
        };
        // No function gets the address of `submit`, so its fields stay where the header was parsed.
        let index = match self.first_free {
            NO_URB => self.new_record(),
            index => index,
        };
        self.used += 1;
        self.highest = self.highest.max(submit.seqnum.0);
        let urb = &mut self.urbs[index as usize];
        debug_assert_eq!(urb.state, UrbState::Free, "the free list holds free records");
        self.first_free = urb.next;
        self.seqnums[index as usize] = submit.seqnum;
        // No `max`, by which each record would write the number again.
        if self.touched <= index as usize {
            self.touched = index as usize + 1;
        }
        urb.begin(submit, packets, stripe);
        (index, urb)
    }

    /// Takes a stripe never used before.
    #[cold]
    fn new_stripe(&mut self) -> u32 {
        assert!(self.new_stripes > 0, "room for packets was looked for");
        let stripe = self.with_packets - self.new_stripes;
        self.new_stripes -= 1;
        stripe
    }

    /// Makes a record never used before, while no other record is free.
    #[cold]
    fn new_record(&mut self) -> UrbIndex {
        let index = self.urbs.len();
        assert!(index < self.capacity, "a free record was looked for");
        self.urbs.push(Urb::FREE);
        self.seqnums.push(SeqNum(0));
        u32::try_from(index).expect("limits keep the table small")
    }

    /// Forgets the free records behind the last record in use, and gives the room back to the
    /// system.
    pub(crate) fn give_back_records(&mut self) {
        let used = |urb: &Urb| urb.state != UrbState::Free;
        let end = self.urbs.iter().rposition(used).map_or(0, |last| last + 1);
        self.urbs.truncate(end);
        self.seqnums.truncate(end);
        self.touched = self.touched.min(end);
        self.first_free = NO_URB;
        for (index, urb) in (0..).zip(&mut self.urbs).filter(|(_, urb)| !used(urb)) {
            urb.next = std::mem::replace(&mut self.first_free, index);
        }
        heap::give_back(self.urbs.spare_capacity_mut());
        heap::give_back(self.seqnums.spare_capacity_mut());
    }

    /// Gives a piece of the descriptors' area back to the system, while no URB has descriptors.
    /// True when there are more pieces.
    pub(crate) fn give_back_stripes(&mut self, piece: usize) -> bool {
        let unused = self.free_stripes.len() + self.new_stripes as usize;
        let start = piece * PIECE_LEN;
        if unused < self.with_packets as usize || start >= self.stripes.len() {
            return false;
        }
        self.free_stripes.clear();
        self.new_stripes = self.with_packets;
        let end = self.stripes.len().min(start + PIECE_LEN);
        self.stripes.give_back(start..end);
        end < self.stripes.len()
    }

    /// Frees the seqnum of a URB of which nobody speaks any more, though the record is still
    /// needed.
    pub(crate) fn unlist(&mut self, index: UrbIndex) {
        self.get_mut(index).is_listed = false;
    }

    /// Frees a record. The block, if there is still a block, comes back.
    #[inline(always)]
    pub(crate) fn remove(&mut self, index: UrbIndex) -> Option<Block> {
        let first_free = self.first_free;
        let urb = self.get_mut(index);
        (urb.is_listed, urb.state, urb.next) = (false, UrbState::Free, first_free);
        let block = urb.block.take();
        if urb.packets > 0 {
            let stripe = urb.stripe;
            self.free_stripes.push(stripe);
        }
        self.first_free = index;
        self.used -= 1;
        if self.used == 0 {
            (self.touched, self.highest) = (0, 0);
        }
        block
    }

    pub(crate) fn get(&self, index: UrbIndex) -> &Urb {
        let urb = &self.urbs[index as usize];
        debug_assert_ne!(urb.state, UrbState::Free, "the record is in use");
        urb
    }

    pub(crate) fn get_mut(&mut self, index: UrbIndex) -> &mut Urb {
        let urb = &mut self.urbs[index as usize];
        debug_assert_ne!(urb.state, UrbState::Free, "the record is in use");
        urb
    }

    /// A URB and its packets.
    pub(crate) fn get_with_packets(&mut self, index: UrbIndex) -> (&mut Urb, Packets<'_>) {
        let urb = &mut self.urbs[index as usize];
        debug_assert_ne!(urb.state, UrbState::Free, "the record is in use");
        let packets = match urb.packets {
            0 => &[],
            _ => &self.stripes[urb.stripe()],
        };
        (urb, Packets::new(packets))
    }

    /// The first URB in use from `from` on, for walks over all URBs which change the table.
    pub(crate) fn next_used(&self, from: UrbIndex) -> Option<UrbIndex> {
        let urbs = self.urbs.get(from as usize..self.touched)?;
        let used = |(index, urb): (u32, &Urb)| (urb.state != UrbState::Free).then_some(index);
        (from..).zip(urbs).find_map(used)
    }

    /// The bytes of a URB's descriptors.
    pub(crate) fn descriptors(&self, index: UrbIndex) -> &[u8] {
        &self.stripes[self.get(index).stripe()]
    }

    /// The bytes of a URB's descriptors, to receive into or fill in.
    pub(crate) fn descriptors_mut(&mut self, index: UrbIndex) -> &mut [u8] {
        let stripe = self.get(index).stripe();
        &mut self.stripes[stripe]
    }

    /// A URB's packets.
    pub(crate) fn packets(&self, index: UrbIndex) -> Packets<'_> {
        Packets::new(self.descriptors(index))
    }

    /// A URB's packets, to fill in.
    pub(crate) fn packets_mut(&mut self, index: UrbIndex) -> PacketsMut<'_> {
        PacketsMut::new(self.descriptors_mut(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submit(seqnum: u32) -> CmdSubmit {
        CmdSubmit {
            seqnum: SeqNum(seqnum),
            devid: DevId(0),
            endpoint: EndpointAddress::new(1, Direction::In),
            transfer_flags: 0,
            transfer_buffer_length: 0,
            start_frame: 0,
            number_of_packets: 0,
            interval: 0,
            setup: [0; 8],
        }
    }

    #[test]
    fn seqnums_are_found_until_they_are_unlisted() {
        let mut table = UrbTable::new(4, 0).unwrap();
        let urbs: Vec<UrbIndex> = [7, 0, u32::MAX].map(|n| table.insert(submit(n), 0)).to_vec();
        assert_eq!(table.find(SeqNum(u32::MAX)), Some(urbs[2]));
        table.unlist(urbs[0]);
        assert_eq!(table.find(SeqNum(7)), None);
        assert_eq!(table.find(SeqNum(u32::MAX)), Some(urbs[2]));
        assert_eq!(table.remove(urbs[0]).map(|_| ()), None);
        assert_eq!(table.remove(urbs[2]).map(|_| ()), None);
        assert_eq!(table.find(SeqNum(0)), Some(urbs[1]));
        assert_eq!((table.free(), table.is_empty()), (3, false));
        assert_eq!(table.next_used(0), Some(urbs[1]));
        assert_eq!(table.next_used(urbs[1] + 1), None);
    }

    #[test]
    fn records_are_used_again_and_the_table_has_an_end() {
        let mut table = UrbTable::new(2, 2).unwrap();
        for round in 0..10 {
            let one = table.insert(submit(round), 0);
            let other = table.insert(submit(round + 100), 3);
            assert_eq!((table.free(), table.free_for_packets()), (0, 0));
            assert_eq!(table.descriptors(one).len(), 0);
            assert_eq!(table.descriptors(other).len(), 48);
            table.remove(one);
            table.remove(other);
        }
        assert!(table.is_empty());
    }

    #[test]
    fn urbs_without_packets_take_nothing_of_the_others_room() {
        let mut table = UrbTable::new(5, 2).unwrap();
        let plain = [1, 2].map(|seqnum| table.insert(submit(seqnum), 0));
        assert_eq!((table.free(), table.free_for_packets()), (3, 2));
        let with_packets = [3, 4].map(|seqnum| table.insert(submit(seqnum), 1024));
        assert_eq!((table.free(), table.free_for_packets()), (1, 0));
        assert_eq!(table.descriptors(plain[1]), [0; 0]);
        assert_eq!(table.remove(with_packets[0]).map(|_| ()), None);
        // A URB without packets gets the record, and the stripe is there for another URB.
        assert_eq!(table.insert(submit(5), 0), with_packets[0]);
        assert_eq!((table.free(), table.free_for_packets()), (1, 1));
        let last = table.insert(submit(6), 7);
        assert_eq!(table.descriptors(last).len(), 7 * iso::DESCRIPTOR_LEN);
    }

    #[test]
    fn descriptors_of_urbs_do_not_overlap_and_keep_their_lengths() {
        const COUNT: usize = 40;
        for packets in [1, 8, 700, 800, 1023, 1024] {
            let mut table = UrbTable::new(COUNT, COUNT).unwrap();
            let urbs: Vec<UrbIndex> =
                (0..40).map(|seqnum| table.insert(submit(seqnum), packets)).collect();
            for (mark, &urb) in (0..).zip(&urbs) {
                table.descriptors_mut(urb).fill(mark);
            }
            for (mark, &urb) in (0u8..).zip(&urbs) {
                let bytes = table.descriptors(urb);
                assert_eq!(bytes.len(), packets as usize * iso::DESCRIPTOR_LEN);
                assert!(bytes.iter().all(|&byte| byte == mark), "{packets} packets");
            }
        }
    }
}
