//! A turn of a client and its device: bytes in, completions out, replies written.
//!
//! Each turn moves a bounded amount, so that a busy client leaves room for other clients.
//!
//! Contract: runs on the reactor, never blocks, allocates nothing; whatever a client does ends in
//! an [`End`], never in a panic.

use std::time::{Duration, Instant};

use super::client::{Client, Step};
use super::end::End;
use super::loan::Lent;
use crate::session::{RxSlices, TxSlices};
use crate::usb::Port;

/// Bytes read in a turn of the only session, and one read more: sixteen URBs of 128 KiB.
const READ_ALONE: usize = 2 << 20;

/// Bytes read in a turn while other sessions wait for theirs, and one read more.
const READ_AMONG_OTHERS: usize = 256 << 10;

/// Bytes written in a turn of the only session. Without a bound a single call goes on as
/// long as the client reads, and takes the memory of all URBs.
const WRITE_ALONE: usize = 4 << 20;

/// Bytes written in a turn while other sessions wait for theirs.
const WRITE_AMONG_OTHERS: usize = 512 << 10;

/// The circumstances of a turn.
pub(super) struct Turn<'a> {
    pub(super) now: Instant,
    /// How long a client may accept no byte.
    pub(super) peer_timeout: Duration,
    /// No other session waits for the reactor.
    pub(super) alone: bool,
    /// The discard buffer.
    pub(super) discard: &'a mut [u8],
}

/// What a turn leaves to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Left {
    /// Nothing, before the next event.
    Nothing,
    /// To look after orders for the worker, deadlines and ends.
    Care,
    /// The same, and another turn at once.
    More,
}

impl Left {
    /// `more`: another turn at once.
    pub(super) const fn with(more: bool) -> Self {
        if more { Self::More } else { Self::Care }
    }
}

/// A client and the client's device, for the length of a turn.
pub(super) struct Exchange<'a, P: Port> {
    pub(super) client: &'a mut Client,
    pub(super) lent: &'a mut Lent<P>,
}

impl<P: Port> Exchange<'_, P> {
    /// Moves bytes and completions, as far as a turn goes. A client that takes no byte for
    /// `peer_timeout` gets a deadline. A session alone takes in more bytes before the replies.
    ///
    /// # Errors
    /// Why the connection ends.
    pub(super) fn serve(&mut self, turn: &mut Turn<'_>) -> Result<Left, End> {
        let result = self.move_all(turn);
        self.lent.session.hand_in();
        let more = result?;
        Ok(if !more && self.is_settled() { Left::Nothing } else { Left::with(more) })
    }

    /// Whether nothing is left to do before the next event.
    #[inline(always)]
    fn is_settled(&self) -> bool {
        let is_served = matches!(self.client.step, Step::Served) && self.client.deadline.is_none();
        is_served && self.lent.session.is_settled()
    }

    /// Moves bytes and completions. True when there is more to do at once.
    fn move_all(&mut self, turn: &mut Turn<'_>) -> Result<bool, End> {
        let now = turn.now;
        let unwritten = self.client.socket.written();
        self.lent.reap(now);
        let mut read = 0;
        let (budget, mut room) = if turn.alone {
            (READ_ALONE, WRITE_ALONE)
        } else {
            (READ_AMONG_OTHERS, WRITE_AMONG_OTHERS)
        };
        while read < budget {
            let Some(len) = self.take_in(now)? else { break };
            self.lent.reap_behind_input(now);
            // Long payloads: replies are better written when the socket is empty. Each lets the
            // client add another payload to a queue that outgrows a processor's cache.
            if !self.lent.session.is_taking_long_payloads() {
                self.flush(now, &mut room)?;
            }
            read += len;
        }
        self.flush(now, &mut room)?;
        let progress = self.client.socket.written() != unwritten;
        self.set_deadline(turn, progress)?;
        Ok(read >= budget || room == 0 || self.lent.is_ready() || self.may_read())
    }

    /// Sets the client's deadline after a turn, in which bytes were written if there was
    /// `progress`.
    ///
    /// # Errors
    /// The client has to part from its device, and has its last reply.
    fn set_deadline(&mut self, turn: &mut Turn<'_>, progress: bool) -> Result<(), End> {
        let parting = match self.client.step {
            Step::Parting(why) => Some(why),
            _ => None,
        };
        if let Some(why) = parting.filter(|_| self.is_flushed()) {
            self.client.socket.discard_unread(turn.discard);
            return Err(End::Parted(why));
        }
        if self.lent.session.is_device_gone() {
            self.client.deadline = Some(self.lent.gone_deadline(turn.now));
        } else if parting.is_none() {
            self.watch_for_stall(progress, turn);
        }
        Ok(())
    }

    /// Goes on with the bytes at hand, where parsing was paused, or reads once. Returns how many
    /// bytes were read; `None` when there is nothing to take in yet.
    fn take_in(&mut self, now: Instant) -> Result<Option<usize>, End> {
        let (session, socket) = (&mut self.lent.session, &mut self.client.socket);
        if !session.wants_input() {
            return Ok(None);
        }
        if session.is_parsing_paused() {
            session.rx_advance(0, now).map_err(End::Violation)?;
            return Ok(Some(0));
        }
        if !socket.is_readable() {
            return Ok(None);
        }
        let read = {
            let mut slices = RxSlices::new();
            session.rx_slices(&mut slices);
            socket.read_vectored(&mut slices)?
        };
        let len = read.unwrap_or(0);
        session.rx_advance(len, now).map_err(End::Violation)?;
        // Behind an acknowledgement that waits for a reply of ours, Nagle's algorithm would keep
        // the rest of a PDU whose client writes it in parts, until the system stops waiting.
        if read.is_some()
            && !socket.is_readable()
            && !session.has_output()
            && session.is_read_in_parts(socket.segment_len())
        {
            socket.acknowledge();
        }
        Ok(Some(len).filter(|len| *len > 0))
    }

    /// Writes the rest of the handshake's reply and the session's replies, as far as the socket
    /// takes them and, of the session's, up to `room` bytes.
    #[inline(always)]
    fn flush(&mut self, now: Instant, room: &mut usize) -> Result<(), End> {
        if !self.client.is_flushed() {
            self.client.flush_reply()?;
        }
        if self.lent.session.has_output() { self.write_replies(now, room) } else { Ok(()) }
    }

    /// Writes the session's replies, of which there are some.
    #[inline(never)]
    fn write_replies(&mut self, now: Instant, room: &mut usize) -> Result<(), End> {
        let (session, socket) = (&mut self.lent.session, &mut self.client.socket);
        while session.has_output() && socket.is_writable() && *room > 0 {
            session.stage();
            let written = {
                let mut slices = TxSlices::new();
                session.tx_slices(&mut slices, *room);
                socket.write_vectored(&slices)?
            };
            session.tx_advance(written, now);
            *room -= written;
        }
        Ok(())
    }

    /// Whether the socket has taken all replies.
    pub(super) fn is_flushed(&self) -> bool {
        self.client.is_flushed() && !self.lent.session.has_output()
    }

    /// Whether there may be input to take in: writing replies may have made room, and the system
    /// does not tell of the same input a second time.
    fn may_read(&self) -> bool {
        let session = &self.lent.session;
        (self.client.socket.is_readable() || session.is_parsing_paused()) && session.wants_input()
    }

    /// Whether there is something to do without another event.
    #[cfg(test)]
    pub(super) fn has_work(&self) -> bool {
        let may_write = self.client.socket.is_writable() && !self.is_flushed();
        let has_job = self.lent.session.has_cancels_at_hand();
        self.lent.is_ready() || self.may_read() || may_write || has_job
    }

    /// Sets a deadline when there is something to write and the socket takes nothing, and removes
    /// the deadline when the socket does.
    fn watch_for_stall(&mut self, progress: bool, turn: &Turn<'_>) {
        if self.client.socket.is_writable() || self.is_flushed() {
            self.client.deadline = None;
        } else if progress || self.client.deadline.is_none() {
            self.client.deadline = Some(turn.now + turn.peer_timeout);
        }
    }

    /// Whether the device is gone and the client has every reply.
    pub(super) fn is_all_answered(&self) -> bool {
        let session = &self.lent.session;
        session.is_ready_for_teardown() && self.is_flushed() && session.is_input_closed()
    }
}
