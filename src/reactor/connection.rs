//! One client's socket, and what stands behind it: a handshake, then a session with a device.
//!
//! Readiness is kept as bits, because the system tells of each change only once: a bit stays set
//! until a call says "would block" or moves less than it could have. Each turn moves a bounded
//! amount, so that one busy client leaves room for others.
//!
//! Contract: runs on the reactor, never blocks; whatever a client does ends in an [`End`], never in
//! a panic.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, RawFd};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use usbferry_sys::os::tcp::{self, PeerSigns};

use super::net;
use super::token::Key;
use crate::handshake::{Handshake, REQUEST_LEN_MAX, Wish};
use crate::limits::{GONE_INPUT_TIMEOUT, GONE_TIMEOUT, HANDSHAKE_TIMEOUT};
use crate::session::{RX_SLICES_MAX, SLICES_MAX, Session, Violation};
use crate::usb::{Candidate, Port};
use crate::wire;
use crate::wire::op::UsbDevice;
use crate::wire::types::BusId;
use crate::worker::Worker;

/// Bytes read in one turn of the only session there is, and one read more: sixteen URBs of 128 KiB.
const READ_ALONE: usize = 2 << 20;

/// Bytes read in one turn where other sessions wait for theirs, and one read more.
const READ_AMONG_OTHERS: usize = 256 << 10;

/// Bytes written in one turn of the only session there is. Without a bound a single call goes on as
/// long as the client reads: it takes whatever it is given, be it the memory of all URBs.
const WRITE_ALONE: usize = 4 << 20;

/// Bytes written in one turn where other sessions wait for theirs.
const WRITE_AMONG_OTHERS: usize = 512 << 10;

/// Bytes read at once where what comes is thrown away. What a client in good order sends behind its
/// request is less; of hundreds that do not stop, it takes a small part of the time.
pub(super) const DISCARD_LEN: usize = 16 << 10;

/// How long a client that sends behind its answer is left alone after each such read. Long beside a
/// turn, so that sessions keep most of a processor while hundreds of clients send as fast as they
/// can; short beside what anybody waits for the end of a connection.
pub(super) const DISCARD_PAUSE: Duration = Duration::from_millis(10);

/// Reads of what a client still sends when the server stops.
const READS_AT_STOP: usize = 16;

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The client closed it.
    Closed,
    /// The system says that it is broken.
    Socket(io::Error),
    /// The handshake is not one.
    Handshake(wire::Error),
    /// What followed the handshake is not the protocol.
    Violation(Violation),
    /// The handshake, or the last bytes of a reply, took too long.
    TimedOut,
    /// It accepted no byte for too long.
    Stalled,
    /// The server was full, and it the oldest of those that had no device.
    Displaced,
    /// Another client took its device.
    TakenOver(SocketAddr),
    /// All is said and the client is done with it.
    Finished,
    /// The server stops.
    Stopping,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed by the client"),
            Self::Socket(error) => write!(f, "connection lost: {error}"),
            Self::Handshake(error) => write!(f, "not a USB/IP request: {error}"),
            Self::Violation(violation) => write!(f, "protocol violation: {violation}"),
            Self::TimedOut => f.write_str("no complete request in time"),
            Self::Stalled => f.write_str("it reads nothing (see --peer-timeout)"),
            Self::Displaced => f.write_str("makes place for others: no device, and there are many"),
            Self::TakenOver(by) => write!(f, "{by} takes over (see --takeover)"),
            Self::Finished => f.write_str("done"),
            Self::Stopping => f.write_str("the server stops"),
        }
    }
}

/// A request that is known and can't be answered yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Asked {
    pub(super) wish: Wish,
    /// When the request was complete.
    pub(super) since: Instant,
    pub(super) awaits: Awaited,
}

/// What an answer waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Awaited {
    /// A scan that begins after the request came.
    Scan,
    /// The device, which another client has and is about to lose.
    Holder,
}

/// How far a connection is. In the stages from `Opening` to `Returning` it has a device.
pub(super) enum Stage<P: Port> {
    /// Its request is arriving.
    Handshake(Handshake),
    /// Its request is known and can't be answered yet.
    Asked(Asked),
    /// Its device is being opened; this is what the client will be told.
    Opening(Box<UsbDevice>),
    /// Its device is still being opened, and is given back as soon as that is done: the client has
    /// left, or was told that it does not get the device. Others may hope for it until then.
    Abandoned(Instant),
    /// It has its device.
    Attached(Box<Session<P>>),
    /// Its device is being given back.
    Returning,
    /// It has no device, or none any more; what is left is to write.
    Finishing,
}

/// A client.
pub(super) struct Connection<C: Candidate> {
    pub(super) key: Key,
    pub(super) peer: SocketAddr,
    /// `None` when it is closed and only the device is left to be given back.
    pub(super) stream: Option<TcpStream>,
    pub(super) stage: Stage<C::Port>,
    /// The device it holds.
    pub(super) busid: Option<BusId>,
    pub(super) worker: Option<Worker<C>>,
    /// The device's descriptors that are registered.
    pub(super) device_fds: Vec<RawFd>,
    /// When it is closed if it does not get further.
    pub(super) deadline: Option<Instant>,
    pub(super) readable: bool,
    /// The system told that the client sends no more. That is read behind the last bytes.
    pub(super) read_closed: bool,
    pub(super) writable: bool,
    /// Bytes of a segment of its socket, once it has a device.
    pub(super) segment_len: usize,
    /// The device may have something to reap.
    pub(super) device_ready: bool,
    /// It stands in the list of those to serve.
    pub(super) queued: bool,
    /// It has had its answer and sends all the same: it is left alone for [`DISCARD_PAUSE`].
    pub(super) paused: bool,
    /// The server stops: what is on its way is written, nothing more is taken.
    pub(super) stopping: bool,
    /// It ended by what is not the protocol.
    pub(super) broke_protocol: bool,
    /// When it was noticed that the device is gone.
    gone_since: Option<Instant>,
    /// The device is gone: what the client still sends is thrown away until it closes.
    farewell: bool,
    /// The client was told that nothing more comes. Once: the system makes an event of each time.
    write_closed: bool,
    /// The handshake's reply, and how much of it was written.
    reply: Vec<u8>,
    reply_written: usize,
    /// Bytes written so far, to tell progress.
    written: usize,
}

impl<C: Candidate> Connection<C> {
    pub(super) fn new(key: Key, stream: TcpStream, peer: SocketAddr, now: Instant) -> Self {
        Self {
            key,
            peer,
            stream: Some(stream),
            stage: Stage::Handshake(Handshake::default()),
            busid: None,
            worker: None,
            device_fds: Vec::new(),
            deadline: Some(now + HANDSHAKE_TIMEOUT),
            readable: false,
            read_closed: false,
            writable: true,
            segment_len: 0,
            device_ready: false,
            queued: false,
            paused: false,
            stopping: false,
            broke_protocol: false,
            gone_since: None,
            farewell: false,
            write_closed: false,
            reply: Vec::new(),
            reply_written: 0,
            written: 0,
        }
    }

    /// The session, once there is one.
    pub(super) fn session(&mut self) -> Option<&mut Session<C::Port>> {
        match &mut self.stage {
            Stage::Attached(session) => Some(session),
            _ => None,
        }
    }

    /// When it must be served even without an event of its own.
    pub(super) fn device_deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Attached(session) => {
                let gone = self.gone_since.filter(|_| !session.is_input_closed());
                let closing = gone.map(|since| since + GONE_INPUT_TIMEOUT);
                [session.next_deadline(), closing].into_iter().flatten().min()
            }
            _ => None,
        }
    }

    /// What TCP knows of the client.
    pub(super) fn signs(&self) -> Option<PeerSigns> {
        self.stream.as_ref().and_then(|stream| tcp::peer_signs(stream.as_fd()))
    }

    /// Nothing is left of it.
    pub(super) fn is_over(&self) -> bool {
        self.stream.is_none()
            && matches!(self.stage, Stage::Handshake(_) | Stage::Asked(_) | Stage::Finishing)
    }

    /// Whether the client has left while it waited for a device: it sends nothing more, so it has
    /// no use for one. A client that waits for the list may have said all that it has to say.
    pub(super) const fn has_left(&self) -> bool {
        let waits_for_device = match &self.stage {
            Stage::Asked(asked) => matches!(asked.wish, Wish::Import(_)),
            Stage::Opening(_) => true,
            _ => false,
        };
        waits_for_device && self.read_closed
    }

    /// Takes the client away: nothing is read from it or written to it any more.
    pub(super) fn take_client(&mut self) -> Option<TcpStream> {
        let stream = self.stream.take()?;
        // Nothing would ever clear them, and each turn would look again.
        (self.readable, self.read_closed, self.writable) = (false, false, false);
        self.paused = false;
        let deadline = self.deadline.take();
        if let Some(until) = deadline.filter(|_| matches!(self.stage, Stage::Opening(_))) {
            self.stage = Stage::Abandoned(until);
        }
        Some(stream)
    }

    /// Answers the handshake with what `emit` writes.
    pub(super) fn answer(&mut self, emit: impl FnOnce(&mut Vec<u8>)) {
        self.reply.clear();
        self.reply_written = 0;
        emit(&mut self.reply);
    }

    /// Nothing more is to come: what there is is written, then the client may close.
    pub(super) fn finish(&mut self, now: Instant) {
        self.stage = Stage::Finishing;
        self.deadline = Some(now + HANDSHAKE_TIMEOUT);
    }

    /// Reads the request.
    pub(super) fn read_request(&mut self, now: Instant) -> Result<Option<Wish>, End> {
        let (Stage::Handshake(handshake), Some(stream)) = (&mut self.stage, &mut self.stream)
        else {
            return Ok(None);
        };
        let mut buffer = [0; REQUEST_LEN_MAX];
        while self.readable {
            let room = &mut buffer[..handshake.wanted()];
            let Some(len) = read(&mut self.readable, || stream.read(room))? else { break };
            let wish = handshake.receive(&buffer[..len]).map_err(End::Handshake)?;
            if let Some(wish) = wish {
                self.stage = Stage::Asked(Asked { wish, since: now, awaits: Awaited::Scan });
                self.deadline = None;
                return Ok(Some(wish));
            }
        }
        Ok(None)
    }

    /// Moves bytes and completions for the session, as far as one turn goes. True when there is
    /// more to do at once. A client that takes no byte for `peer_timeout` gets a deadline. A
    /// session that is `alone` takes in more before it answers. Without its client it only collects
    /// what ends. What nobody wants is read into `waste`.
    pub(super) fn serve_session(
        &mut self,
        now: Instant,
        peer_timeout: Duration,
        alone: bool,
        waste: &mut [u8],
    ) -> Result<bool, End> {
        if self.stream.is_none() {
            self.reap(now);
            return Ok(self.device_ready);
        }
        if self.farewell {
            self.reap(now);
            return Ok(self.serve_finishing(now, waste)? || self.device_ready);
        }
        let unwritten = self.written;
        self.reap(now);
        let mut read = 0;
        let (budget, mut room) =
            if alone { (READ_ALONE, WRITE_ALONE) } else { (READ_AMONG_OTHERS, WRITE_AMONG_OTHERS) };
        while read < budget {
            let len = self.read_commands(now)?;
            if len == 0 {
                break;
            }
            self.reap(now);
            if !self.is_taking_long_payloads() {
                self.flush(now, &mut room)?;
            }
            read += len;
        }
        self.flush(now, &mut room)?;
        if self.stopping && self.is_flushed() {
            self.discard_unread(waste);
            return Err(End::Stopping);
        }
        if self.is_device_gone() {
            self.hurry(now);
        } else if !self.stopping {
            self.watch_for_stall(self.written != unwritten, now + peer_timeout);
        }
        Ok(read >= budget || room == 0 || self.device_ready || self.may_read())
    }

    /// Whether there may be input that can be taken: writing replies has made room for it, and the
    /// system does not tell a second time that it is there.
    fn may_read(&self) -> bool {
        match &self.stage {
            Stage::Attached(session) => {
                session.wants_input() && (self.readable || session.is_held_up())
            }
            _ => false,
        }
    }

    /// Sets a deadline when there is something to write and the socket takes nothing, and takes
    /// it away when it does.
    fn watch_for_stall(&mut self, progress: bool, deadline: Instant) {
        if self.writable || self.is_flushed() {
            self.deadline = None;
        } else if progress || self.deadline.is_none() {
            self.deadline = Some(deadline);
        }
    }

    /// The device is gone: what is still under way to it is answered, but not for long.
    fn hurry(&mut self, now: Instant) {
        let since = *self.gone_since.get_or_insert(now);
        self.deadline = Some(since + GONE_TIMEOUT);
        if now >= since + GONE_INPUT_TIMEOUT
            && let Some(session) = self.session()
        {
            session.close_input();
        }
    }

    /// Whether the device is gone and the client was told all there is to tell.
    pub(super) fn is_finished(&self) -> bool {
        let Stage::Attached(session) = &self.stage else { return false };
        session.is_finished() && self.is_flushed() && session.is_input_closed()
    }

    /// Whether it has a session whose device is gone.
    fn is_device_gone(&self) -> bool {
        matches!(&self.stage, Stage::Attached(session) if session.is_gone())
    }

    /// Why a connection is ended whose deadline has come.
    pub(super) fn expiry(&self) -> End {
        match self.stage {
            _ if self.farewell || self.is_device_gone() => End::Finished,
            Stage::Attached(_) if self.stopping => End::Stopping,
            Stage::Attached(_) => End::Stalled,
            _ => End::TimedOut,
        }
    }

    /// The server stops: nothing more is taken from the client, and what is on its way to it must
    /// be there by `deadline`.
    pub(super) fn begin_stop(&mut self, deadline: Instant) {
        self.stopping = true;
        self.deadline = Some(deadline);
        if let Some(session) = self.session() {
            session.close_input();
        }
    }

    /// Whether replies are better written when the socket is empty: each lets a client that writes
    /// long payloads add another to a queue that is more than a processor's cache has room for.
    fn is_taking_long_payloads(&self) -> bool {
        matches!(&self.stage, Stage::Attached(session) if session.is_taking_long_payloads())
    }

    /// Collects what has ended, if anything may have.
    fn reap(&mut self, now: Instant) {
        let Stage::Attached(session) = &mut self.stage else { return };
        let due = session.next_deadline().is_some_and(|at| at <= now);
        if self.device_ready || due {
            self.device_ready = session.reap(now);
        }
    }

    /// Reads once, and returns how many bytes; zero when there is nothing to take in for now.
    fn read_commands(&mut self, now: Instant) -> Result<usize, End> {
        let (Stage::Attached(session), Some(stream)) = (&mut self.stage, &mut self.stream) else {
            return Ok(0);
        };
        if session.is_held_up() && session.wants_input() {
            session.rx_advance(0, now).map_err(End::Violation)?;
        }
        if !self.readable || !session.wants_input() {
            return Ok(0);
        }
        let mut slices: [_; RX_SLICES_MAX] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let used = session.rx_slices(&mut slices);
        let room = slices[..used].iter().map(|slice| slice.len()).sum();
        let read = read(&mut self.readable, || stream.read_vectored(&mut slices[..used]))?;
        let Some(len) = read else {
            session.rx_advance(0, now).map_err(End::Violation)?;
            return Ok(0);
        };
        // Less than there was room for: the socket is empty, and new bytes are a new event. The end
        // of the stream is not, if it came with these.
        self.readable &= len == room || self.read_closed;
        session.rx_advance(len, now).map_err(End::Violation)?;
        // Behind an acknowledgement that waits for a reply of ours, Nagle's algorithm would keep
        // the rest of a PDU whose client writes it in parts, until the system does not wait any
        // more.
        if !self.readable && !session.has_output() && session.is_read_in_parts(self.segment_len) {
            net::acknowledge(stream);
        }
        Ok(len)
    }

    /// Writes what there is, as far as the socket takes it, and of the session's replies no more
    /// than there is `room` for.
    pub(super) fn flush(&mut self, now: Instant, room: &mut usize) -> Result<(), End> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        while self.writable && self.reply_written < self.reply.len() {
            let rest = &self.reply[self.reply_written..];
            let written = write(&mut self.writable, rest.len(), || stream.write(rest))?;
            self.reply_written += written;
            self.written = self.written.wrapping_add(written);
        }
        let Stage::Attached(session) = &mut self.stage else { return Ok(()) };
        while self.writable && *room > 0 {
            session.stage();
            if !session.has_output() {
                break;
            }
            // Behind the check: making so many slices costs more than all else here.
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = session.tx_slices(*room, &mut slices);
            let slices = &slices[..count];
            let len = slices.iter().map(|slice| slice.len()).sum();
            let written = write(&mut self.writable, len, || stream.write_vectored(slices))?;
            session.tx_advance(written, now);
            *room -= written;
            self.written = self.written.wrapping_add(written);
        }
        Ok(())
    }

    /// Whether everything there was to write is with the socket.
    pub(super) fn is_flushed(&self) -> bool {
        let session_flushed = match &self.stage {
            Stage::Attached(session) => !session.has_output(),
            _ => true,
        };
        self.reply_written == self.reply.len() && session_flushed
    }

    /// Serves a connection on which nothing more is to come: writes the rest, says so, and waits
    /// for the client to close. Closing first, with bytes of the client unread, would make the
    /// system reset the connection and could destroy a reply that is still under way. True when
    /// there is more to do at once. A client that goes on sending is paused: nobody waits for that
    /// to be read, unless its device has just gone.
    pub(super) fn serve_finishing(&mut self, now: Instant, waste: &mut [u8]) -> Result<bool, End> {
        if self.stream.is_none() {
            return Ok(false);
        }
        let mut room = WRITE_ALONE;
        self.flush(now, &mut room)?;
        if !self.is_flushed() {
            return Ok(room == 0);
        }
        self.close_output();
        let len = self.discard(waste)?;
        let only_end_is_left = self.read_closed && len < waste.len();
        self.paused = len > 0 && !only_end_is_left && !self.farewell;
        Ok(self.readable && !self.paused)
    }

    /// Tells the client that nothing more comes.
    fn close_output(&mut self) {
        if let Some(stream) = &self.stream
            && !std::mem::replace(&mut self.write_closed, true)
        {
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    /// Reads once, throws away what comes, and returns how many bytes.
    fn discard(&mut self, waste: &mut [u8]) -> Result<usize, End> {
        let Some(stream) = self.stream.as_mut().filter(|_| self.readable) else { return Ok(0) };
        let read = read(&mut self.readable, || stream.read(waste)).map_err(|end| match end {
            End::Closed => End::Finished,
            end => end,
        })?;
        let Some(len) = read else { return Ok(0) };
        // As for commands: the socket is empty but for its end.
        self.readable &= len == waste.len() || self.read_closed;
        Ok(len)
    }

    /// Says that nothing more comes, and throws away what the client has sent by now, as far as a
    /// few reads show it, for the reason above: a stop does not wait until a client closes.
    pub(super) fn discard_unread(&mut self, waste: &mut [u8]) {
        self.close_output();
        // Its event may be still to come.
        self.readable = true;
        let mut reads = READS_AT_STOP;
        while reads > 0 && self.readable && self.discard(waste).is_ok() {
            reads -= 1;
        }
    }

    /// The device is gone and all was said: the client is told so in good order, while the device
    /// is given back.
    pub(super) fn begin_farewell(&mut self, now: Instant) {
        self.farewell = true;
        self.deadline = Some(now + HANDSHAKE_TIMEOUT);
        if let Some(session) = self.session() {
            session.begin_teardown();
        }
    }
}

/// Reads once: `None` when there is nothing yet.
fn read(
    readable: &mut bool,
    call: impl FnOnce() -> io::Result<usize>,
) -> Result<Option<usize>, End> {
    match call() {
        Ok(0) => Err(End::Closed),
        Ok(len) => Ok(Some(len)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            *readable = false;
            Ok(None)
        }
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(None),
        Err(error) => Err(End::Socket(error)),
    }
}

/// Writes once, `len` bytes or fewer.
fn write(
    writable: &mut bool,
    len: usize,
    call: impl FnOnce() -> io::Result<usize>,
) -> Result<usize, End> {
    match call() {
        Ok(written) => {
            *writable = written == len;
            Ok(written)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            *writable = false;
            Ok(0)
        }
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(End::Socket(error)),
    }
}
