//! A client's socket, and the readiness that the system has told of.
//!
//! Readiness is kept as bits, because the system tells of each change only once: a bit stays set
//! until a call says "would block" or moves less than was asked for.
//!
//! A single slice goes by recv(2) or send(2): readv(2) and writev(2) take the way through the file
//! system, which costs Linux 6.18 a tenth of a microsecond more. Both go around the C library,
//! whose functions first make the thread ready to be cancelled (`pthread_cancel(3)`), as no thread
//! here is.
//!
//! Contract: runs on the reactor, never blocks; each failure of the socket is an [`End`].

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;

use mio::event::Event;
use mio::net::TcpStream;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use usbferry_sys::os::tcp::{self, PeerSigns};

use super::end::End;
use super::net;

/// Reads of late bytes from a client when the server stops.
const READS_AT_STOP: usize = 16;

/// A client that has left makes a call fail, and makes no signal: by the call, or by an option that
/// the standard library sets.
#[cfg(not(target_vendor = "apple"))]
const WITHOUT_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
#[cfg(target_vendor = "apple")]
const WITHOUT_SIGNAL: SendFlags = SendFlags::empty();

/// A client's socket.
pub(super) struct Socket {
    stream: TcpStream,
    readable: bool,
    /// The system told that the client sends no more. The end is read behind the last bytes.
    read_closed: bool,
    writable: bool,
    /// The client was told that nothing more comes. Once: the system makes an event of each time.
    write_closed: bool,
    /// Bytes of a segment, once the client has a device.
    segment_len: usize,
    /// Bytes written so far, to tell progress.
    written: usize,
}

impl Socket {
    pub(super) const fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            readable: false,
            read_closed: false,
            writable: true,
            write_closed: false,
            segment_len: 0,
            written: 0,
        }
    }

    /// Notes the readiness that an event tells of.
    pub(super) fn mark(&mut self, event: &Event) {
        let broken = event.is_error();
        self.read_closed |= event.is_read_closed() || broken;
        self.readable |= event.is_readable() || self.read_closed;
        self.writable |= event.is_writable() || event.is_write_closed() || broken;
    }

    pub(super) const fn is_readable(&self) -> bool {
        self.readable
    }

    /// Whether the client sends no more, though its last bytes may be unread.
    pub(super) const fn is_read_closed(&self) -> bool {
        self.read_closed
    }

    pub(super) const fn is_writable(&self) -> bool {
        self.writable
    }

    /// Bytes written so far, modulo 2^64 or 2^32.
    pub(super) const fn written(&self) -> usize {
        self.written
    }

    /// Bytes of a segment; zero before [`Self::prepare_attached`] and where the system can't tell.
    pub(super) const fn segment_len(&self) -> usize {
        self.segment_len
    }

    /// The stream, to be registered or removed from the poll.
    pub(super) const fn stream_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// TCP's knowledge of the client.
    pub(super) fn signs(&self) -> Option<PeerSigns> {
        tcp::peer_signs(self.stream.as_fd())
    }

    /// Prepares the socket for a client that gets a device.
    pub(super) fn prepare_attached(&mut self) {
        net::prepare_attached(&self.stream);
        self.segment_len = net::segment_len(&self.stream);
    }

    /// Has the system acknowledge at once ([`net::acknowledge`]).
    pub(super) fn acknowledge(&self) {
        net::acknowledge(&self.stream);
    }

    /// Reads once into `room`: `None` when nothing has come yet.
    ///
    /// # Errors
    /// The end of the stream, or the socket's failure.
    pub(super) fn read(&mut self, room: &mut [u8]) -> Result<Option<usize>, End> {
        let stream = &mut self.stream;
        read(&mut self.readable, || stream.read(room))
    }

    /// Reads once into all slices. Fewer bytes than fit say that the socket is empty: new bytes
    /// are a new event. The end of the stream is none, if the end came with these bytes.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn read_vectored(
        &mut self,
        slices: &mut [IoSliceMut<'_>],
    ) -> Result<Option<usize>, End> {
        let (stream, readable) = (&mut self.stream, &mut self.readable);
        let (room, read) = if let [slice] = slices {
            let room = slice.len();
            let call = || Ok(recv(&*stream, &mut **slice, RecvFlags::empty())?.1);
            (room, read(readable, call)?)
        } else {
            let room = slices.iter().map(|slice| slice.len()).sum();
            (room, read(readable, || stream.read_vectored(slices))?)
        };
        self.readable &= read.is_none_or(|len| len == room) || self.read_closed;
        Ok(read)
    }

    /// Reads once, throws the bytes away, and returns their number.
    ///
    /// # Errors
    /// [`End::Answered`] at the end of the stream, or the socket's failure.
    pub(super) fn discard(&mut self, buffer: &mut [u8]) -> Result<usize, End> {
        if !self.readable {
            return Ok(0);
        }
        let read = self.read(buffer).map_err(|end| match end {
            End::Closed => End::Answered,
            end => end,
        })?;
        let Some(len) = read else { return Ok(0) };
        self.readable &= len == buffer.len() || self.read_closed;
        Ok(len)
    }

    /// Writes once, and returns how many bytes.
    ///
    /// # Errors
    /// The socket's failure.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<usize, End> {
        let stream = &mut self.stream;
        let written = write(&mut self.writable, bytes.len(), || stream.write(bytes))?;
        self.written = self.written.wrapping_add(written);
        Ok(written)
    }

    /// Writes all slices once, and returns how many bytes.
    ///
    /// # Errors
    /// The socket's failure.
    pub(super) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> Result<usize, End> {
        let (stream, writable) = (&mut self.stream, &mut self.writable);
        let written = if let [slice] = slices {
            write(writable, slice.len(), || Ok(send(&*stream, slice, WITHOUT_SIGNAL)?))?
        } else {
            let len = slices.iter().map(|slice| slice.len()).sum();
            write(writable, len, || stream.write_vectored(slices))?
        };
        self.written = self.written.wrapping_add(written);
        Ok(written)
    }

    /// Tells the client that nothing more comes.
    pub(super) fn close_output(&mut self) {
        if !std::mem::replace(&mut self.write_closed, true) {
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    /// Tells the client that nothing more comes, and throws away the bytes that the client has sent
    /// by now, as far as a few reads show them: closing with unread bytes would reset the
    /// connection, and a stop does not wait until a client closes.
    pub(super) fn discard_unread(&mut self, buffer: &mut [u8]) {
        self.close_output();
        // The event of the last bytes may be still to come.
        self.readable = true;
        let mut reads = READS_AT_STOP;
        while reads > 0 && self.readable && self.discard(buffer).is_ok() {
            reads -= 1;
        }
    }
}

/// Reads once: `None` when nothing has come yet.
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
