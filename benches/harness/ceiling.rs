//! The minimal USB/IP server: the loop and the sockets of usbferry, with prepared replies. The
//! server has no devices, no state of URBs, and no errors. All received data goes into the same
//! memory, and all sent data comes from there. Its speed is the limit of sockets and of this way of
//! waiting.
//!
//! The server trusts its clients, so only this bench's own client may use it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Ipv4Addr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use usbferry::reactor::prepare_socket;
use usbferry_load::pdu::{self, DESCRIPTOR_LEN, HEADER_LEN, SEQNUM};

/// Bytes read at once: as many as stay in a processor's cache. Payloads go nowhere.
const SCRATCH_LEN: usize = 256 * 1024;

/// Reads of a turn, before the replies are written.
const READS_PER_TURN: usize = 8;

/// Slices of a write.
const SLICES_MAX: usize = 64;

/// Bytes of the longest reply kept whole.
const SMALL_REPLY: usize = 2048;

/// Replies waiting to be written, at most.
const REPLIES_MAX: usize = 256;

/// Bytes of the largest payload.
const PAYLOAD_MAX: usize = 2 << 20;

const LISTENER: Token = Token(usize::MAX);

/// Serves until the process is killed; says first where.
pub(crate) fn serve() -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    // Clients inherit the listener's options.
    prepare_socket(&listener, usbferry::limits::PEER_TIMEOUT_DEFAULT, None);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    eprintln!("listening on {}", listener.local_addr()?);
    let mut events = Events::with_capacity(1024);
    let mut links: Vec<Option<Link>> = Vec::new();
    let payload = vec![0; PAYLOAD_MAX];
    let mut ready: VecDeque<usize> = VecDeque::new();
    loop {
        let wait = if ready.is_empty() { None } else { Some(std::time::Duration::ZERO) };
        match poll.poll(&mut events, wait) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, &poll, &mut links)?;
                continue;
            }
            let index = event.token().0;
            let Some(Some(link)) = links.get_mut(index) else { continue };
            link.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
            link.writable |= event.is_writable();
            if !std::mem::replace(&mut link.queued, true) {
                ready.push_back(index);
            }
        }
        for _ in 0..ready.len() {
            let Some(index) = ready.pop_front() else { break };
            let Some(link) = &mut links[index] else { continue };
            link.queued = false;
            match link.serve(&payload) {
                Ok(false) => {}
                Ok(true) => {
                    link.queued = true;
                    ready.push_back(index);
                }
                Err(_) => links[index] = None,
            }
        }
    }
}

fn accept(listener: &TcpListener, poll: &Poll, links: &mut Vec<Option<Link>>) -> io::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let index = links.iter().position(Option::is_none).unwrap_or(links.len());
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(index), interest)?;
        if index == links.len() {
            links.push(None);
        }
        links[index] = Some(Link::new(stream));
    }
}

/// The form of every reply of a load.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    is_in: bool,
    len: usize,
    packets: usize,
}

/// A client.
struct Link {
    stream: TcpStream,
    readable: bool,
    writable: bool,
    queued: bool,
    attached: bool,
    scratch: Box<[u8]>,
    start: usize,
    end: usize,
    /// Missing bytes of the current PDU behind its header, and its seqnum.
    left: usize,
    seqnum: [u8; 4],
    shape: Option<Shape>,
    /// [`REPLIES_MAX`] replies, large replies without their payload.
    ring: Vec<u8>,
    stride: usize,
    payload_len: usize,
    trailer: Vec<u8>,
    /// Replies put into the ring, written, and bytes written of the next.
    put: usize,
    taken: usize,
    written: usize,
}

impl Link {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            readable: true,
            writable: true,
            queued: false,
            attached: false,
            scratch: vec![0; SCRATCH_LEN].into_boxed_slice(),
            start: 0,
            end: 0,
            left: 0,
            seqnum: [0; 4],
            shape: None,
            ring: Vec::new(),
            stride: 0,
            payload_len: 0,
            trailer: Vec::new(),
            put: 0,
            taken: 0,
            written: 0,
        }
    }

    /// A turn of the client. True when there is more to do at once.
    fn serve(&mut self, payload: &[u8]) -> io::Result<bool> {
        let mut reads = 0;
        while reads < READS_PER_TURN && self.read()? {
            reads += 1;
        }
        self.flush(payload)?;
        Ok(reads == READS_PER_TURN)
    }

    fn read(&mut self) -> io::Result<bool> {
        if !self.readable || self.put - self.taken >= REPLIES_MAX / 2 {
            return Ok(false);
        }
        let unparsed = self.start..self.end;
        (self.start, self.end) = (0, unparsed.len());
        self.scratch.copy_within(unparsed, 0);
        let room = &mut self.scratch[self.end..];
        let wanted = room.len();
        let got = match self.stream.read(room) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        self.readable = got == wanted;
        self.end += got;
        self.parse();
        Ok(true)
    }

    fn parse(&mut self) {
        if !self.attached {
            return self.attach();
        }
        loop {
            if self.left > 0 {
                let step = self.left.min(self.end - self.start);
                self.start += step;
                self.left -= step;
                if self.left > 0 {
                    return;
                }
                self.put_reply();
            }
            if self.end - self.start < HEADER_LEN {
                return;
            }
            let header = &self.scratch[self.start..self.start + HEADER_LEN];
            self.start += HEADER_LEN;
            self.seqnum.copy_from_slice(&header[SEQNUM]);
            let shape = Shape {
                is_in: pdu::word(header, 3) == 1,
                len: pdu::word(header, 6) as usize,
                packets: pdu::word(header, 8) as usize,
            };
            if self.shape != Some(shape) {
                self.prepare(shape);
            }
            let out_len = if shape.is_in { 0 } else { shape.len };
            self.left = out_len + shape.packets * DESCRIPTOR_LEN;
            if self.left == 0 {
                self.put_reply();
            }
        }
    }

    /// Answers any import with device 1-1, number 2.
    fn attach(&mut self) {
        if self.end - self.start < 40 {
            return;
        }
        let mut reply = vec![0; 320];
        reply[..4].copy_from_slice(&[0x01, 0x11, 0x00, 0x03]);
        let busid = 8 + 256;
        reply[busid..busid + 32].copy_from_slice(&self.scratch[self.start + 8..self.start + 40]);
        reply[busid + 35] = 1;
        reply[busid + 39] = 2;
        self.start += 40;
        self.attached = true;
        self.ring = reply;
        (self.stride, self.put) = (320, 1);
    }

    /// Makes the replies of a load.
    fn prepare(&mut self, shape: Shape) {
        assert_eq!(self.put, self.taken, "a client changes its load when all was answered");
        self.shape = Some(shape);
        let len = u32::try_from(shape.len).expect("loads are short");
        let packets = u32::try_from(shape.packets).expect("a thousand at most");
        let mut reply = vec![0; HEADER_LEN];
        reply[3] = 3;
        reply[24..28].copy_from_slice(&len.to_be_bytes());
        reply[32..36].copy_from_slice(&packets.to_be_bytes());
        let in_len = if shape.is_in { shape.len } else { 0 };
        let mut trailer = pdu::descriptors(shape.packets, shape.len / shape.packets.max(1));
        for descriptor in trailer.chunks_exact_mut(DESCRIPTOR_LEN) {
            descriptor.copy_within(4..8, 8);
        }
        if reply.len() + in_len + trailer.len() <= SMALL_REPLY {
            reply.resize(HEADER_LEN + in_len, 0);
            reply.append(&mut trailer);
            self.payload_len = 0;
        } else {
            self.payload_len = in_len;
        }
        self.trailer = trailer;
        self.stride = reply.len();
        self.ring = reply.repeat(REPLIES_MAX);
        (self.put, self.taken, self.written) = (0, 0, 0);
    }

    fn put_reply(&mut self) {
        let place = self.put % REPLIES_MAX * self.stride;
        self.ring[place..][SEQNUM].copy_from_slice(&self.seqnum);
        self.put += 1;
    }

    fn flush(&mut self, payload: &[u8]) -> io::Result<()> {
        while self.writable && self.taken < self.put {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let used = self.slices(payload, &mut slices);
            let len: usize = slices[..used].iter().map(|slice| slice.len()).sum();
            match (&self.stream).write_vectored(&slices[..used]) {
                Ok(written) => {
                    self.writable = written == len;
                    let reply_len = self.stride + self.payload_len + self.trailer.len();
                    let total = self.written + written;
                    self.taken += total / reply_len;
                    self.written = total % reply_len;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The bytes to write next.
    fn slices<'a>(&'a self, payload: &'a [u8], slices: &mut [IoSlice<'a>]) -> usize {
        let place = |reply: usize| reply % REPLIES_MAX * self.stride;
        if self.payload_len + self.trailer.len() == 0 {
            let (from, to) = (place(self.taken) + self.written, place(self.put));
            if from < to {
                slices[0] = IoSlice::new(&self.ring[from..to]);
                return 1;
            }
            slices[0] = IoSlice::new(&self.ring[from..]);
            slices[1] = IoSlice::new(&self.ring[..to]);
            return 2;
        }
        let (mut used, mut skip) = (0, self.written);
        for reply in (self.taken..self.put).take(SLICES_MAX / 3) {
            let header = &self.ring[place(reply)..][..self.stride];
            let parts = [header, &payload[..self.payload_len], &self.trailer];
            used += pdu::slice_parts(parts, &mut skip, &mut slices[used..]);
        }
        used
    }
}
