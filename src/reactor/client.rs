//! The client's side of a connection: a socket, the step of the conversation, the last words.
//!
//! ```text
//! Handshake ─► Asked ─► Served ─► Closing          a device's life is reactor::loan
//!                │         └────► Parting
//!                ├──────────────► Watching
//!                └──────────────► Closing          the list, or a refusal
//! ```
//!
//! Contract: runs on the reactor, never blocks; whatever a client does ends in an [`End`], never in
//! a panic.

use std::time::{Duration, Instant};

use mio::net::TcpStream;

use super::end::{End, Parting};
use super::socket::Socket;
use super::watches::Watch;
use crate::handshake::{Handshake, REQUEST_LEN_MAX, Request};
use crate::limits::HANDSHAKE_TIMEOUT;

/// Bytes of late input read at once and thrown away. A client in good order sends fewer behind its
/// request; with hundreds of clients that never stop, each read takes little time.
pub(super) const DISCARD_LEN: usize = 16 << 10;

/// Rest of a client that sends behind its answer, after each of these reads. Long beside a turn, so
/// that sessions keep most of a processor while hundreds of clients send as fast as they can; short
/// beside the patience of anybody who waits for the end of a connection.
pub(super) const DISCARD_REST: Duration = Duration::from_millis(10);

/// How far the conversation with a client is.
pub(super) enum Step {
    /// The request is arriving.
    Handshake(Handshake),
    /// The request is known, and the answer is not ready.
    Asked(Asked),
    /// The client is told of a device.
    Watching(Watch),
    /// The client has a device.
    Served,
    /// The client loses its device: replies on their way are written, and nothing more is taken in.
    Parting(Parting),
    /// The last bytes are written, then the client closes.
    Closing {
        /// The client had a device, which is gone, and is told so without delay.
        device_gone: bool,
    },
}

/// A request whose answer is not ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Asked {
    pub(super) request: Request,
    /// When the request was complete.
    pub(super) since: Instant,
    pub(super) awaits: Awaited,
    /// The answer has waited for a scan that was made for the request.
    pub(super) was_scanned: bool,
}

/// The event that an answer waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Awaited {
    /// The end of a scan that begins after the request came.
    Scan,
    /// The return of the device, which another client is about to give back.
    Return,
    /// The opening of the device, which is this client's.
    Opening,
    /// A program's answer, whether the client may have the device.
    Authorization,
    /// The time at which the device has been present for long enough.
    Settling,
    /// The arrival of a device that has just left, and is expected back under its name.
    Arrival,
}

/// A client that is connected.
pub(super) struct Client {
    pub(super) socket: Socket,
    pub(super) step: Step,
    /// When the connection ends unless the client gets further.
    pub(super) deadline: Option<Instant>,
    /// The client has its answer and sends all the same: the client rests for [`DISCARD_REST`].
    pub(super) rests: bool,
    /// The handshake's reply, and how much of the reply was written.
    reply: Vec<u8>,
    reply_written: usize,
}

impl Client {
    pub(super) fn new(stream: TcpStream, now: Instant) -> Self {
        Self {
            socket: Socket::new(stream),
            step: Step::Handshake(Handshake::default()),
            deadline: Some(now + HANDSHAKE_TIMEOUT),
            rests: false,
            reply: Vec::new(),
            reply_written: 0,
        }
    }

    /// The request whose answer is not ready, if there is one.
    pub(super) const fn asked(&self) -> Option<&Asked> {
        match &self.step {
            Step::Asked(asked) => Some(asked),
            _ => None,
        }
    }

    /// Whether the client has left while waiting for a device: a client that sends nothing more has
    /// no use for a device. A client that waits for the list may have sent everything.
    pub(super) fn has_left(&self) -> bool {
        let waits_for_device =
            self.asked().is_some_and(|asked| matches!(asked.request, Request::Import(_)));
        waits_for_device && self.socket.is_read_closed()
    }

    /// Whether a server that stops has an answer for the client, or may soon have: the list needs
    /// no device.
    pub(super) fn may_get_answer(&self) -> bool {
        match &self.step {
            Step::Handshake(_) => true,
            Step::Closing { .. } => !self.is_flushed(),
            Step::Asked(asked) => matches!(asked.request, Request::Devlist),
            Step::Watching(_) | Step::Served | Step::Parting(_) => false,
        }
    }

    /// Has the answer wait for something, until a deadline.
    pub(super) const fn wait(&mut self, awaits: Awaited, deadline: Instant) {
        if let Step::Asked(asked) = &mut self.step {
            asked.awaits = awaits;
            asked.was_scanned |= matches!(awaits, Awaited::Scan);
            self.deadline = Some(deadline);
        }
    }

    /// Reads the request, and returns it when it is complete.
    ///
    /// # Errors
    /// The client closes, or what came is no request.
    pub(super) fn read_request(&mut self, now: Instant) -> Result<Option<Request>, End> {
        let Step::Handshake(handshake) = &mut self.step else { return Ok(None) };
        let mut buffer = [0; REQUEST_LEN_MAX];
        while self.socket.is_readable() {
            let room = &mut buffer[..handshake.wanted()];
            let Some(len) = self.socket.read(room)? else { break };
            let request = handshake.receive(&buffer[..len]).map_err(End::Handshake)?;
            if let Some(request) = request {
                let awaits = Awaited::Scan;
                self.step = Step::Asked(Asked { request, since: now, awaits, was_scanned: false });
                self.deadline = None;
                return Ok(Some(request));
            }
        }
        Ok(None)
    }

    /// Answers the handshake with the bytes that `emit` writes.
    pub(super) fn answer(&mut self, emit: impl FnOnce(&mut Vec<u8>)) {
        self.reply.clear();
        self.reply_written = 0;
        emit(&mut self.reply);
    }

    /// The client has its device, and the reply says so.
    pub(super) fn serve(&mut self, emit: impl FnOnce(&mut Vec<u8>)) {
        self.answer(emit);
        self.step = Step::Served;
        self.deadline = None;
        self.socket.prepare_attached();
    }

    /// Nothing more is to come: after the rest of the reply the client closes.
    /// `device_gone` as in [`Step::Closing`].
    pub(super) fn close(&mut self, now: Instant, device_gone: bool) {
        self.step = Step::Closing { device_gone };
        self.deadline = Some(now + HANDSHAKE_TIMEOUT);
    }

    /// Writes the reply as far as the socket takes it.
    ///
    /// # Errors
    /// The socket's failure.
    #[inline(never)]
    pub(super) fn flush_reply(&mut self) -> Result<(), End> {
        while self.socket.is_writable() && !self.is_flushed() {
            let rest = &self.reply[self.reply_written..];
            self.reply_written += self.socket.write(rest)?;
        }
        Ok(())
    }

    /// Whether the socket has taken the whole reply.
    pub(super) fn is_flushed(&self) -> bool {
        self.reply_written == self.reply.len()
    }

    /// Serves a closing client: writes the rest of the reply, closes the output, and waits for the
    /// client to close. Closing first, with bytes of the client unread, would make the system reset
    /// the connection and could destroy a reply still under way. True when there is more to do at
    /// once. A client that goes on sending rests: nobody waits for the end of its input, unless
    /// the device is just gone.
    ///
    /// # Errors
    /// The client has closed, or the socket's failure.
    pub(super) fn serve_closing(&mut self, buffer: &mut [u8]) -> Result<bool, End> {
        let Step::Closing { device_gone } = self.step else { return Ok(false) };
        self.flush_reply()?;
        if !self.is_flushed() {
            return Ok(false);
        }
        self.socket.close_output();
        let len = self.socket.discard(buffer)?;
        let only_end_is_left = self.socket.is_read_closed() && len < buffer.len();
        self.rests = len > 0 && !only_end_is_left && !device_gone;
        Ok(self.socket.is_readable() && !self.rests)
    }
}
