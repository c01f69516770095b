//! A session under load: URBs on their way out, replies on their way in.
//!
//! Small PDUs are stored with their payload in a ring, without gaps; only the seqnum is written
//! before sending. The payload of a large PDU is a slice of a common pattern. Replies are checked
//! in the read buffer. Of long replies only the first bytes are read, and the kernel discards the
//! rest.
//!
//! Contract: works on blocking and on non-blocking sockets. Replies must come in the order of the
//! SUBMITs, as on a single endpoint. Anything other than a full reply without error is an error.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Instant;

use crate::client::Client;
use crate::histogram::Histogram;
use crate::pdu::{self, HEADER_LEN, PERIOD, SEQNUM, Submit};
use crate::workload::{Check, Workload, Writes};

/// Bytes of the longest PDU with its payload beside the header.
const SMALL_PDU: usize = 2048;

/// Bytes of the longest reply that is read whole.
const SMALL_REPLY: usize = 8192;

/// Bytes read at once.
const READ_LEN: usize = 256 * 1024;

/// Checked bytes of a long reply: its header and the first of its data.
const HEAD_LEN: usize = HEADER_LEN + CHECKED_LEN;

/// Checked bytes of data.
const CHECKED_LEN: usize = 8;

/// Slices of a write.
const SLICES_MAX: usize = 64;

/// A session under load.
pub struct Flow {
    stream: TcpStream,
    workload: Workload,
    check: Check,
    outgoing: Outgoing,
    incoming: Incoming,
    /// The time of sending of each URB in flight, by the URB's number modulo the depth.
    sent_at: Box<[Instant]>,
    /// URBs answered, ever.
    answered: u64,
    /// URBs answered since the last [`Flow::restart`].
    pub counted: u64,
    /// Their turnaround times.
    pub turnaround: Histogram,
}

/// The result of a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Newly complete replies.
    pub replies: u64,
    /// The socket may have more; otherwise the socket is empty, and new bytes are a new event.
    pub more: bool,
    /// The socket was empty. For a blocking socket the time limit has passed.
    pub blocked: bool,
}

impl Progress {
    const BLOCKED: Self = Self { replies: 0, more: false, blocked: true };
}

struct Outgoing {
    /// PDUs, or headers only; as many as the pattern has phases or the depth is.
    ring: Vec<u8>,
    /// Bytes of a PDU in the ring.
    stride: usize,
    /// The pattern, from which large payloads are cut.
    payload: Vec<u8>,
    /// Bytes of payload outside of the ring.
    payload_len: usize,
    /// The packet descriptors behind a payload, the same for each.
    trailer: Vec<u8>,
    devid: u32,
    first_seqnum: u32,
    /// URBs whose SUBMIT is with the socket.
    sent: u64,
    /// Number of URBs allowed to be sent.
    allowed: u64,
    /// Written bytes of the next PDU.
    written: usize,
}

struct Incoming {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    reply_len: usize,
    /// Bytes to discard before the next reply.
    skip: usize,
    trash: Vec<u8>,
}

impl Flow {
    /// Puts an attached device under load.
    ///
    /// # Errors
    /// The connection's.
    pub fn new(client: Client, workload: Workload, check: Check) -> io::Result<Self> {
        let (stream, devid, first_seqnum) = client.into_parts();
        stream.set_nodelay(workload.writes != Writes::Parts)?;
        let depth = workload.depth.max(1);
        Ok(Self {
            outgoing: Outgoing::new(&workload, devid, first_seqnum),
            incoming: Incoming::new(&workload),
            stream,
            workload,
            check,
            sent_at: vec![Instant::now(); depth].into_boxed_slice(),
            answered: 0,
            counted: 0,
            turnaround: Histogram::default(),
        })
    }

    /// Ends the load; nothing may be in flight.
    ///
    /// # Panics
    /// When something is.
    #[must_use]
    pub fn into_client(self) -> Client {
        assert_eq!(self.outstanding(), 0, "everything was answered");
        #[expect(clippy::cast_possible_truncation, reason = "seqnums wrap")]
        let next_seqnum = self.outgoing.first_seqnum.wrapping_add(self.answered as u32);
        Client::from_parts(self.stream, self.outgoing.devid, next_seqnum)
    }

    /// Makes calls return instead of waiting.
    ///
    /// # Errors
    /// The system's.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.stream.set_nonblocking(nonblocking)
    }

    /// The socket, to be watched.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Allows `urbs` more URBs.
    pub const fn allow(&mut self, urbs: u64) {
        self.outgoing.allowed += urbs;
    }

    /// URBs in flight or allowed.
    #[must_use]
    pub const fn outstanding(&self) -> u64 {
        self.outgoing.allowed - self.answered
    }

    /// URBs answered, ever.
    #[must_use]
    pub const fn answered(&self) -> u64 {
        self.answered
    }

    /// Counts from here on.
    pub fn restart(&mut self) {
        self.counted = 0;
        self.turnaround.clear();
    }

    /// Writes allowed SUBMITs. False when the socket takes no more for now.
    ///
    /// # Errors
    /// The connection's.
    pub fn write(&mut self) -> io::Result<bool> {
        if self.outgoing.sent == self.outgoing.allowed {
            return Ok(true);
        }
        let now = Instant::now();
        while self.outgoing.sent < self.outgoing.allowed {
            let part_len = self.outgoing.part_len();
            let most = if self.workload.writes == Writes::Joined { u64::MAX } else { 1 };
            let (slices, used) = self.outgoing.slices(most);
            let written = if self.workload.writes == Writes::Parts {
                self.stream.write(&slices[0][..part_len.min(slices[0].len())])
            } else {
                self.stream.write_vectored(&slices[..used])
            };
            let written = match written {
                Ok(written) => written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                Err(error) => return Err(error),
            };
            let before = self.outgoing.sent;
            self.outgoing.advance(written);
            for urb in before..self.outgoing.sent {
                let place = urb % self.sent_at.len() as u64;
                self.sent_at[usize::try_from(place).expect("below the depth")] = now;
            }
        }
        Ok(true)
    }

    /// Reads once.
    ///
    /// # Errors
    /// The connection's; `InvalidData` for an unexpected reply.
    pub fn read(&mut self) -> io::Result<Progress> {
        let wanted = self.incoming.wanted();
        let got = match self.incoming.receive(&mut self.stream, wanted) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Ok(Progress::BLOCKED);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                return Ok(Progress { replies: 0, more: true, blocked: false });
            }
            Err(error) => return Err(error),
        };
        let more = got == wanted;
        if !self.incoming.received(got) {
            return Ok(Progress { replies: 0, more, blocked: false });
        }
        let now = Instant::now();
        let mut replies = 0;
        while let Some(head) = self.incoming.take() {
            check(&self.workload, self.check, self.outgoing.first_seqnum, self.answered, head)?;
            let place = self.answered % self.sent_at.len() as u64;
            let sent_at = self.sent_at[usize::try_from(place).expect("below the depth")];
            self.turnaround.record(now.saturating_duration_since(sent_at), 1);
            self.answered += 1;
            replies += 1;
        }
        self.counted += replies;
        Ok(Progress { replies, more, blocked: false })
    }

    /// Whether a reply takes more than one read. Waiting in reads would then take replies one by
    /// one.
    #[must_use]
    pub const fn is_long(&self) -> bool {
        self.incoming.is_long()
    }
}

/// Checks the first bytes of a reply.
fn check(
    workload: &Workload,
    check: Check,
    first_seqnum: u32,
    urb: u64,
    head: &[u8],
) -> io::Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "seqnums wrap")]
    let seqnum = first_seqnum.wrapping_add(urb as u32);
    let len = workload.len() as u64;
    let right = pdu::word(head, 0) == 3
        && pdu::word(head, 1) == seqnum
        && pdu::word(head, 5) == 0
        && u64::from(pdu::word(head, 6)) == len;
    let data = &head[HEADER_LEN..];
    let right_data = match check {
        _ if !workload.is_in() || !workload.is_stream() => true,
        Check::Length => true,
        Check::Counter => urb.to_le_bytes().starts_with(data),
        Check::Pattern => {
            let expected = (urb * len..).map(|position| position % PERIOD as u64);
            data.iter().zip(expected).all(|(&byte, expected)| u64::from(byte) == expected)
        }
    };
    if right && right_data {
        return Ok(());
    }
    let message = format!("URB {urb} of {}: a wrong reply: {head:02x?}", workload.traffic);
    Err(io::Error::new(ErrorKind::InvalidData, message))
}

impl Outgoing {
    fn new(workload: &Workload, devid: u32, first_seqnum: u32) -> Self {
        let packets = workload.packets();
        let trailer = packets.map_or_else(Vec::new, |(count, len)| pdu::descriptors(count, len));
        let out_len = if workload.is_in() { 0 } else { workload.len() };
        let inline = HEADER_LEN + out_len + trailer.len() <= SMALL_PDU || out_len == 0;
        let pattern = pdu::pattern(out_len + PERIOD);
        let count = if inline && out_len > 0 { PERIOD } else { workload.depth.max(64) };
        let submit = Submit {
            seqnum: 0,
            devid,
            is_in: workload.is_in(),
            endpoint: workload.endpoint,
            len: workload.len(),
            packets: packets.map_or(0, |(count, _)| count),
            setup: workload.setup(),
        };
        let mut ring = Vec::new();
        for index in 0..count {
            ring.extend_from_slice(&submit.header());
            if inline {
                let phase = index * out_len % PERIOD;
                ring.extend_from_slice(&pattern[phase..phase + out_len]);
                ring.extend_from_slice(&trailer);
            }
        }
        Self {
            stride: ring.len() / count,
            ring,
            payload: if inline { Vec::new() } else { pattern },
            payload_len: if inline { 0 } else { out_len },
            trailer: if inline { Vec::new() } else { trailer },
            devid,
            first_seqnum,
            sent: 0,
            allowed: 0,
            written: 0,
        }
    }

    /// Bytes of a PDU.
    const fn pdu_len(&self) -> usize {
        self.stride + self.payload_len + self.trailer.len()
    }

    /// Bytes up to the end of the header or of the part behind.
    const fn part_len(&self) -> usize {
        let end = if self.written < HEADER_LEN { HEADER_LEN } else { self.pdu_len() };
        end - self.written
    }

    fn place(&self, urb: u64) -> usize {
        let count = (self.ring.len() / self.stride) as u64;
        usize::try_from(urb % count).expect("within the ring") * self.stride
    }

    /// The bytes to write next, of as many PDUs at most.
    fn slices(&mut self, most: u64) -> ([IoSlice<'_>; SLICES_MAX], usize) {
        let count = (self.ring.len() / self.stride) as u64;
        let fitting = if self.payload_len == 0 { count } else { SLICES_MAX as u64 / 3 };
        let until = self.allowed.min(self.sent + most.min(fitting));
        for urb in self.sent..until {
            let place = self.place(urb);
            #[expect(clippy::cast_possible_truncation, reason = "seqnums wrap")]
            let seqnum = self.first_seqnum.wrapping_add(urb as u32);
            self.ring[place..][SEQNUM].copy_from_slice(&seqnum.to_be_bytes());
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let used = if self.payload_len == 0 {
            self.slices_of_ring(until, &mut slices)
        } else {
            self.slices_with_payload(until, &mut slices)
        };
        (slices, used)
    }

    /// Slices of PDUs in the ring: one slice, or two if the ring starts over.
    fn slices_of_ring<'a>(&'a self, until: u64, slices: &mut [IoSlice<'a>]) -> usize {
        let (from, to) = (self.place(self.sent), self.place(until));
        let from = from + self.written;
        if from < to {
            slices[0] = IoSlice::new(&self.ring[from..to]);
            return 1;
        }
        slices[0] = IoSlice::new(&self.ring[from..]);
        slices[1] = IoSlice::new(&self.ring[..to]);
        2
    }

    /// PDUs whose payload is cut from the pattern.
    fn slices_with_payload<'a>(&'a self, until: u64, slices: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0;
        let mut skip = self.written;
        for urb in self.sent..until {
            let place = self.place(urb);
            let phase = urb * (self.payload_len % PERIOD) as u64 % PERIOD as u64;
            let phase = usize::try_from(phase).expect("below 251");
            let parts = [
                &self.ring[place..place + self.stride],
                &self.payload[phase..phase + self.payload_len],
                &self.trailer,
            ];
            used += pdu::slice_parts(parts, &mut skip, &mut slices[used..]);
        }
        used
    }

    fn advance(&mut self, written: usize) {
        let total = self.written + written;
        self.sent += (total / self.pdu_len()) as u64;
        self.written = total % self.pdu_len();
    }
}

impl Incoming {
    fn new(workload: &Workload) -> Self {
        let data = if workload.is_in() { workload.len() } else { 0 };
        let descriptors = workload.packets().map_or(0, |(count, _)| count * pdu::DESCRIPTOR_LEN);
        Self {
            buffer: vec![0; READ_LEN],
            start: 0,
            end: 0,
            reply_len: HEADER_LEN + data + descriptors,
            skip: 0,
            trash: Vec::with_capacity(4 << 20),
        }
    }

    const fn is_long(&self) -> bool {
        self.reply_len > SMALL_REPLY
    }

    /// Bytes to read next.
    fn wanted(&mut self) -> usize {
        if self.skip > 0 {
            return self.skip.min(self.trash.capacity());
        }
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.end < self.reply_len {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let until = if self.is_long() { self.start + HEAD_LEN } else { self.buffer.len() };
        until - self.end
    }

    /// Reads once, into the buffer or to be thrown away.
    fn receive(&mut self, stream: &mut TcpStream, wanted: usize) -> io::Result<usize> {
        if self.skip > 0 {
            return discard(stream, &mut self.trash, wanted);
        }
        stream.read(&mut self.buffer[self.end..self.end + wanted])
    }

    /// Notes the bytes read by [`Self::receive`]; whether replies can be complete.
    fn received(&mut self, got: usize) -> bool {
        if self.skip > 0 {
            self.skip -= got;
            return self.skip == 0;
        }
        self.end += got;
        if self.is_long() && self.end - self.start == HEAD_LEN {
            self.skip = self.reply_len - HEAD_LEN;
        }
        !self.is_long()
    }

    /// The first bytes of the next complete reply.
    fn take(&mut self) -> Option<&[u8]> {
        let start = self.start;
        if self.is_long() {
            if self.skip > 0 || self.end - start < HEAD_LEN {
                return None;
            }
            self.start = self.end;
            return Some(&self.buffer[start..self.end]);
        }
        if self.end - start < self.reply_len {
            return None;
        }
        self.start += self.reply_len;
        Some(&self.buffer[start..start + self.reply_len.min(HEAD_LEN)])
    }
}

/// Reads and discards up to `len` bytes.
#[cfg(target_os = "linux")]
fn discard(stream: &TcpStream, trash: &mut Vec<u8>, len: usize) -> io::Result<usize> {
    /// `MSG_TRUNC`: on a TCP socket of Linux, received data is discarded (tcp(7)).
    const DISCARD: i32 = 0x20;
    let room = trash.spare_capacity_mut();
    let len = len.min(room.len());
    socket2::SockRef::from(stream).recv_with_flags(&mut room[..len], DISCARD)
}

#[cfg(not(target_os = "linux"))]
fn discard(mut stream: &TcpStream, trash: &mut Vec<u8>, len: usize) -> io::Result<usize> {
    trash.resize(trash.capacity().min(READ_LEN), 0);
    let len = len.min(trash.len());
    stream.read(&mut trash[..len])
}
