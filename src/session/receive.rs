//! From bytes of the client to whole PDUs.
//!
//! The [`Receiver`] knows where in a PDU the stream stands, and is the only owner of the
//! [`Position`]: the receiver says when a header is there, and when the rest of a SUBMIT is. The
//! session takes up the header of a SUBMIT, and says where its payload goes. A SUBMIT without
//! payload and descriptors is whole with its header and submitted at once.
//!
//! A header is judged on arrival: a SUBMIT which can't be carried out gets a refusal, the payload
//! is thrown away, and the reply is sent when the PDU is whole, which keeps the stream in step.
//!
//! Contract: runs on the reactor; nothing here blocks or allocates, nor panics on bytes of a
//! client.

use std::io::IoSliceMut;
use std::time::Instant;

use super::buffers::Buffers;
use super::judge::judge;
use super::prompt::BATCH_LEN;
use super::rx::{ReadBuffer, RxSlices, Shape};
use super::urb::{UrbIndex, UrbTable};
use super::{Session, Violation};
use crate::limits::URBS_REFUSED_MAX;
use crate::usb::Port;
use crate::wire::iso::DESCRIPTOR_LEN;
use crate::wire::pdu::{CmdSubmit, Command, HEADER_LEN};
use crate::wire::status::Status;
use crate::wire::types::{DevId, SeqNum};

/// Where in a PDU the stream stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Position {
    /// A header comes next.
    Header,
    /// Bytes `filled..end` of a URB's buffer come next.
    Payload { urb: UrbIndex, filled: usize, end: usize },
    /// `remaining` bytes of a payload without a buffer come next, to be thrown away.
    Discard { urb: UrbIndex, remaining: usize },
    /// Bytes `filled..end` of a URB's descriptors come next.
    Descriptors { urb: UrbIndex, filled: usize, end: usize },
}

/// A part of the stream which is whole.
enum Received<'a> {
    /// A header.
    Header(&'a [u8; HEADER_LEN]),
    /// The SUBMIT of a URB.
    Submit(UrbIndex),
    /// Nothing: a part is missing.
    Nothing,
}

/// The receiving side of a session.
pub(super) struct Receiver {
    bytes: ReadBuffer,
    position: Position,
    /// Parsing has stopped in front of a PDU, until replies are written.
    is_paused: bool,
    /// Bytes of a batch for a device that has answers ready.
    batch_len: usize,
}

impl Receiver {
    /// `None` when the system has no memory for it.
    pub(super) fn new() -> Option<Self> {
        Some(Self {
            bytes: ReadBuffer::new()?,
            position: Position::Header,
            is_paused: false,
            batch_len: BATCH_LEN,
        })
    }

    /// Adds room for bytes from the socket, a slice at least, to no slices.
    #[inline(always)]
    fn add_slices<'a>(
        &'a mut self,
        urbs: &'a mut UrbTable,
        buffers: &mut Buffers,
        slices: &mut RxSlices<'a>,
    ) {
        let before_header = match self.position {
            Position::Header => Some(0),
            Position::Payload { urb, .. } => Some(urbs.get(urb).descriptors_len()),
            Position::Descriptors { filled, end, .. } => Some(end - filled),
            Position::Discard { .. } => None,
        };
        self.bytes.lay_out(before_header, buffers);
        if let Position::Payload { urb, filled, end } = self.position
            && let Some(block) = &mut urbs.get_mut(urb).block
        {
            slices.push(IoSliceMut::new(&mut block[filled..end]));
        }
        self.bytes.add_slices(slices);
    }

    /// Notes `len` bytes that were read into the slices.
    fn received(&mut self, mut len: usize, buffers: &mut Buffers) {
        if let Position::Payload { filled, end, .. } = &mut self.position {
            let in_payload = len.min(*end - *filled);
            *filled += in_payload;
            len -= in_payload;
        }
        self.bytes.received(len, buffers);
    }

    /// Gives memory back to the system, while nothing is read.
    pub(super) fn give_back(&mut self, buffers: &mut Buffers) {
        self.bytes.give_back(buffers);
    }

    /// Takes bytes up to the end of a header or of a SUBMIT. Behind a SUBMIT's header,
    /// [`Self::begin_payload`] and the like say which part follows, if any.
    #[inline(always)]
    fn next(&mut self, urbs: &mut UrbTable) -> Received<'_> {
        match self.position {
            Position::Header => self.bytes.take_array().map_or(Received::Nothing, Received::Header),
            _ => self.take_rest(urbs).map_or(Received::Nothing, Received::Submit),
        }
    }

    /// Takes the parts behind a SUBMIT's header, and returns the URB when all parts are there.
    #[inline(always)]
    fn take_rest(&mut self, urbs: &mut UrbTable) -> Option<UrbIndex> {
        let (urb, descriptors_len) = match &mut self.position {
            Position::Header => return None,
            Position::Payload { urb, filled, end } => {
                let record = urbs.get_mut(*urb);
                if *filled < *end {
                    let bytes = self.bytes.take_up_to(*end - *filled);
                    if let Some(block) = &mut record.block {
                        block[*filled..*filled + bytes.len()].copy_from_slice(bytes);
                    }
                    *filled += bytes.len();
                }
                if *filled < *end {
                    return None;
                }
                (*urb, record.descriptors_len())
            }
            Position::Discard { urb, remaining } => {
                *remaining -= self.bytes.take_up_to(*remaining).len();
                if *remaining > 0 {
                    return None;
                }
                (*urb, urbs.get(*urb).descriptors_len())
            }
            Position::Descriptors { .. } => return self.take_descriptors(urbs),
        };
        match descriptors_len {
            0 => {
                self.position = Position::Header;
                Some(urb)
            }
            end => {
                self.begin_descriptors(urb, end);
                self.take_descriptors(urbs)
            }
        }
    }

    /// Takes descriptors, and returns the URB when all are there.
    #[inline(never)]
    fn take_descriptors(&mut self, urbs: &mut UrbTable) -> Option<UrbIndex> {
        let Position::Descriptors { urb, filled, end } = &mut self.position else { return None };
        let bytes = self.bytes.take_up_to(*end - *filled);
        urbs.descriptors_mut(*urb)[*filled..*filled + bytes.len()].copy_from_slice(bytes);
        *filled += bytes.len();
        if *filled < *end {
            return None;
        }
        let urb = *urb;
        self.position = Position::Header;
        Some(urb)
    }

    /// A payload follows the header, into the URB's buffer.
    const fn begin_payload(&mut self, urb: UrbIndex, filled: usize, end: usize) {
        self.position = Position::Payload { urb, filled, end };
    }

    /// A payload follows the header, and is thrown away.
    const fn begin_discard(&mut self, urb: UrbIndex, remaining: usize) {
        self.position = Position::Discard { urb, remaining };
    }

    /// Descriptors follow the header.
    const fn begin_descriptors(&mut self, urb: UrbIndex, end: usize) {
        self.position = Position::Descriptors { urb, filled: 0, end };
    }

    /// See [`Session::is_read_in_parts`].
    fn is_read_in_parts(&self, urbs: &UrbTable, segment_len: usize) -> bool {
        let (urb, is_between) = match self.position {
            Position::Header => return self.bytes.has_unparsed() && !self.is_paused,
            Position::Payload { urb, filled, .. } => (urb, filled == urbs.get(urb).data_offset()),
            Position::Discard { urb, remaining } => (urb, remaining == urbs.get(urb).payload_len()),
            Position::Descriptors { urb, filled, .. } => (urb, filled == 0),
        };
        let record = urbs.get(urb);
        let len = HEADER_LEN + record.payload_len() + record.descriptors_len();
        is_between || len <= segment_len
    }

    /// Whether the stream stands between two PDUs, as far as received.
    pub(super) fn is_between_pdus(&self) -> bool {
        self.position == Position::Header && !self.bytes.has_unparsed()
    }

    /// Forgets everything: nobody will ask.
    pub(super) fn clear(&mut self, buffers: &mut Buffers) {
        self.bytes.clear(buffers);
        self.position = Position::Header;
    }
}

#[cfg(any(test, fuzzing))]
impl Receiver {
    /// Makes small payloads count as large, to test the way of large payloads with few bytes.
    pub(super) const fn set_large(&mut self, large: usize) {
        self.bytes.set_large(large);
    }

    /// Makes batches of fewer bytes.
    pub(super) const fn set_batch(&mut self, len: usize) {
        self.batch_len = len;
    }

    /// Whether there are bytes not parsed.
    pub(super) fn has_unparsed(&self) -> bool {
        self.bytes.has_unparsed()
    }
}

impl<P: Port> Session<P> {
    /// Adds room for bytes from the client, a slice at least, to no slices. How many bytes were
    /// read is to be told by [`Self::rx_advance`], even if there were none. The slices are the
    /// caller's, since the room for all would be copied on the way back.
    #[inline(always)]
    pub(crate) fn rx_slices<'a>(&'a mut self, slices: &mut RxSlices<'a>) {
        self.rx.add_slices(&mut self.urbs, &mut self.buffers, slices);
    }

    /// Notes that `len` bytes were read into the slices of [`Self::rx_slices`], and acts on every
    /// PDU that is now whole.
    ///
    /// # Errors
    /// The bytes are not the protocol; the connection is of no more use.
    pub(crate) fn rx_advance(&mut self, len: usize, now: Instant) -> Result<(), Violation> {
        self.time.set(now);
        self.rx.received(len, &mut self.buffers);
        if len > 0 && !self.early_unlinks.is_empty() {
            self.early_unlinks.prolong(now);
        }
        self.recording.begin_batch();
        let parsed = self.parse(now);
        self.rx.bytes.free_unused(&mut self.buffers);
        self.act_on_gone();
        self.recording.end_batch();
        parsed
    }

    /// Whether the client writes its PDUs in parts, as far as the last read shows: nothing came
    /// behind the first part of a PDU, or a PDU that fits a single segment of `segment_len` bytes
    /// is here only in part.
    pub(crate) fn is_read_in_parts(&self, segment_len: usize) -> bool {
        self.rx.is_read_in_parts(&self.urbs, segment_len)
    }

    /// Whether the client sends long OUT payloads, one behind the other.
    pub(crate) fn is_taking_long_payloads(&self) -> bool {
        self.rx.bytes.is_taking_long_payloads()
    }

    /// Whether parsing has stopped in front of a PDU, until replies are written: the client has to
    /// read some first, or a batch is with the device ([`prompt`](super::prompt)).
    pub(crate) const fn is_parsing_paused(&self) -> bool {
        self.rx.is_paused
    }

    /// Reads from `stream` once, as a socket would be read.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn rx_read(&mut self, stream: &mut &[u8], now: Instant) -> Result<(), Violation> {
        let mut slices = RxSlices::new();
        self.rx_slices(&mut slices);
        let read = std::io::Read::read_vectored(stream, &mut slices);
        drop(slices);
        self.rx_advance(read.expect("memory can be read"), now)
    }

    /// Acts on the bytes received, PDU by PDU, until a part of a PDU is missing.
    fn parse(&mut self, now: Instant) -> Result<(), Violation> {
        self.rx.is_paused = false;
        loop {
            if self.rx.position == Position::Header && !self.wants_input() {
                self.rx.is_paused = true;
                return Ok(());
            }
            let whole = match self.rx.next(&mut self.urbs) {
                Received::Nothing => return Ok(()),
                Received::Submit(urb) => Some(urb),
                Received::Header(header) => match Command::parse(header)? {
                    Command::Submit(submit) => {
                        if self.is_violation(&submit) {
                            let (seqnum, len) = (submit.seqnum, submit.transfer_buffer_length);
                            return Err(self.violation_of(submit.devid, seqnum, len));
                        }
                        match self.packets_that_follow(&submit)? {
                            0 => self.take_submit(submit, 0),
                            packets => self.take_submit_with_packets(&copy_of(&submit), packets),
                        }
                    }
                    Command::Unlink(unlink) => {
                        self.handle_unlink(&unlink, now)?;
                        None
                    }
                },
            };
            if let Some(urb) = whole {
                self.submit_received(urb, now);
                if self.slots.new_len() >= self.rx.batch_len && self.is_batch_whole() {
                    self.rx.is_paused = true;
                    return Ok(());
                }
            }
        }
    }

    /// Whether the device gets no more URBs before the ends are collected, with enough bytes
    /// submitted. Not behind long payloads for the device: there the replies are short. Nor while
    /// the socket is full: the replies of the batch would wait in their buffers.
    #[inline(never)]
    fn is_batch_whole(&self) -> bool {
        self.promptness.is_prompt()
            && self.last_len() < self.rx.batch_len
            && !self.has_output()
            && self.port.is_here()
            && self.rx.bytes.has_header()
            && !self.rx.bytes.is_taking_long_payloads()
    }

    /// Takes up a SUBMIT with `packets` packets, whose header has arrived, and returns the URB if
    /// the SUBMIT is whole.
    #[inline(always)]
    fn take_submit(&mut self, submit: CmdSubmit, packets: u32) -> Option<UrbIndex> {
        let urb = self.insert_urb(submit, packets);
        let descriptors_len = packets as usize * DESCRIPTOR_LEN;
        match submit.payload_len() as usize {
            0 if packets == 0 => {
                self.rx.bytes.note_no_payload();
                return Some(urb);
            }
            0 => {
                self.rx.bytes.note_no_payload();
                self.rx.begin_descriptors(urb, descriptors_len);
            }
            len => self.receive_payload(urb, len, descriptors_len),
        }
        None
    }

    /// The same, apart from the way of most URBs, on which nobody asks for packets then.
    #[inline(never)]
    fn take_submit_with_packets(&mut self, submit: &CmdSubmit, packets: u32) -> Option<UrbIndex> {
        self.take_submit(*submit, packets)
    }

    /// Whether a SUBMIT breaks the protocol; [`Self::violation_of`] says how.
    #[inline(always)]
    fn is_violation(&self, submit: &CmdSubmit) -> bool {
        submit.devid != self.devid
            || self.urbs.find(submit.seqnum).is_some()
            || self.is_too_long(submit) && submit.payload_len() > 0
    }

    /// How a SUBMIT breaks the protocol. By values and apart: with the SUBMIT's address at hand, or
    /// with the reason made there, each SUBMIT would be written to the stack.
    #[cold]
    fn violation_of(&self, devid: DevId, seqnum: SeqNum, len: u32) -> Violation {
        if devid != self.devid {
            Violation::WrongDevice(devid)
        } else if self.urbs.find(seqnum).is_some() {
            Violation::DuplicateSeqnum(seqnum)
        } else {
            Violation::TooLong(len)
        }
    }

    /// Gives a SUBMIT with `packets` packets a record, and judges the URB.
    #[inline(always)]
    fn insert_urb(&mut self, submit: CmdSubmit, packets: u32) -> UrbIndex {
        if packets > 0 {
            self.compare_interval(submit.endpoint, submit.interval);
        }
        let early_unlink = self.early_unlinks.note_submit(submit.seqnum, &mut self.tx);
        let free = match packets {
            0 => self.urbs.free(),
            _ => self.urbs.free_for_packets(),
        };
        let has_room = free > URBS_REFUSED_MAX && !self.is_too_long(&submit);
        let (urb, record) = self.urbs.insert_mut(submit, packets);
        (record.behind_barrier, record.unlink) = (!self.barriers.is_open(), early_unlink);
        record.refusal = match (early_unlink, has_room) {
            (Some(_), _) => Some(Status::ECONNRESET),
            (None, false) => Some(Status::ENOMEM),
            (None, true) => {
                let endpoint = self.endpoints.get(submit.endpoint);
                judge(record, endpoint, &mut self.control, record.behind_barrier)
            }
        };
        urb
    }

    const fn is_too_long(&self, submit: &CmdSubmit) -> bool {
        submit.transfer_buffer_length as usize > self.urb_len
    }

    /// Finds a place for a payload of `len` bytes, which comes whether there is room or not.
    #[inline(never)]
    fn receive_payload(&mut self, urb: UrbIndex, len: usize, descriptors: usize) {
        let record = self.urbs.get_mut(urb);
        let offset = record.data_offset();
        let shape = Shape { endpoint: record.submit.endpoint, len, descriptors };
        let fits = record.refusal.is_none() && offset == 0;
        if let Some((block, filled)) = self.rx.bytes.take_expected(shape, fits) {
            record.block = Some(block);
            return self.rx.begin_payload(urb, filled, len);
        }
        self.rx.bytes.free_unused(&mut self.buffers);
        if record.refusal.is_none() {
            let endpoint = self.endpoints.get(record.submit.endpoint);
            let is_idle = endpoint.in_flight == 0 && endpoint.first_waiting().is_none();
            // URBs behind a barrier are counted nowhere yet.
            let block = self.buffers.take(offset + len, is_idle && !record.behind_barrier);
            record.refusal = block.is_none().then_some(Status::ENOMEM);
            record.block = block;
        }
        if record.block.is_some() {
            self.rx.begin_payload(urb, offset, offset + len);
        } else {
            self.rx.begin_discard(urb, len);
        }
    }
}

/// A copy made field by field. Were a function given the address of a SUBMIT itself, even on a way
/// that few SUBMITs go, the compiler would write each SUBMIT to the stack.
#[inline(always)]
const fn copy_of(submit: &CmdSubmit) -> CmdSubmit {
    CmdSubmit {
        seqnum: submit.seqnum,
        devid: submit.devid,
        endpoint: submit.endpoint,
        transfer_flags: submit.transfer_flags,
        transfer_buffer_length: submit.transfer_buffer_length,
        start_frame: submit.start_frame,
        number_of_packets: submit.number_of_packets,
        interval: submit.interval,
        setup: submit.setup,
    }
}
