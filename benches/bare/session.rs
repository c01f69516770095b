//! A client with its device.
//!
//! Contract: blocks in calls to the device; allocates as needed.

use std::io::{self, ErrorKind, IoSliceMut, Read};
use std::os::fd::RawFd;

use mio::event::Event;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use usbferry_load::pdu::{self, DESCRIPTOR_LEN, HEADER_LEN};
use usbferry_sys::arena::Block;

use super::found::Found;
use super::out::Out;
use super::port::{Header, Port};

/// Bytes of PDUs read at once, beside the data that goes to its place directly.
const INPUT_LEN: usize = 256 * 1024;

/// Reads of a turn, before URBs are reaped and replies written.
const READS_PER_TURN: usize = 8;

/// Bytes of a request for the list, and of an import.
const OP_LEN: usize = 8;
const IMPORT_LEN: usize = OP_LEN + 32;

/// OP_REQ_DEVLIST and OP_REQ_IMPORT with the protocol's version.
const DEVLIST: u32 = 0x0111_8005;
const IMPORT: u32 = 0x0111_8003;
const REPLY: u32 = 0x0111_0000;

/// `ST_NA`, `ST_DEV_BUSY` and `ST_NODEV`.
const NOT_AVAILABLE: u32 = 1;
const BUSY: u32 = 2;
const NO_DEVICE: u32 = 4;

/// The state of a session after its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// Waits for an event.
    Waits,
    /// Has more to do at once.
    More,
    /// The connection and the device are closed.
    Over,
}

/// A SUBMIT whose data is on its way.
struct Incoming {
    header: Header,
    block: Block,
    /// Where the data starts, up to where it has come, and its end.
    at: usize,
    end: usize,
}

/// A client.
pub(crate) struct Session {
    stream: TcpStream,
    readable: bool,
    writable: bool,
    /// The device has news.
    has_news: bool,
    input: Box<[u8]>,
    start: usize,
    end: usize,
    incoming: Option<Incoming>,
    out: Out,
    port: Option<Port>,
    /// The client has left, or everything for the client is put and the connection closes.
    closing: bool,
}

impl Session {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            readable: true,
            writable: true,
            has_news: false,
            input: vec![0; INPUT_LEN].into_boxed_slice(),
            start: 0,
            end: 0,
            incoming: None,
            out: Out::default(),
            port: None,
            closing: false,
        }
    }

    /// The busid of the session's device.
    pub(crate) fn busid(&self) -> Option<&str> {
        self.port.as_ref().map(|port| port.busid.as_str())
    }

    pub(crate) fn note(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable();
    }

    pub(crate) const fn note_device(&mut self) {
        self.has_news = true;
    }

    /// A turn: reads, submits, reaps and writes. `token` is for the device's descriptors.
    pub(crate) fn serve(
        &mut self,
        registry: &Registry,
        token: Token,
        is_busy: impl Fn(&str) -> bool,
    ) -> Turn {
        let more = match self.turn(registry, token, is_busy) {
            Ok(more) => more,
            Err(_) => self.leave(),
        };
        match &mut self.port {
            Some(port) if self.closing && port.is_idle() => self.out.clear(&mut port.arena),
            None if self.closing => {}
            _ => return if more { Turn::More } else { Turn::Waits },
        }
        Turn::Over
    }

    /// Gives up the client: the device stays open until its transfers have ended.
    fn leave(&mut self) -> bool {
        self.closing = true;
        if let Some(port) = &mut self.port {
            if let Some(Incoming { block, .. }) = self.incoming.take() {
                port.arena.free(block);
            }
            port.cancel_all();
        }
        // The transfers end with the next events, or have ended already.
        true
    }

    fn turn(
        &mut self,
        registry: &Registry,
        token: Token,
        is_busy: impl Fn(&str) -> bool,
    ) -> io::Result<bool> {
        let mut reads = 0;
        while self.readable && !self.closing && reads < READS_PER_TURN {
            self.read()?;
            reads += 1;
            self.parse(registry, token, &is_busy)?;
        }
        let has_news = std::mem::take(&mut self.has_news);
        if let Some(port) = &mut self.port
            && (has_news || !port.is_idle())
        {
            port.reap(&mut self.out);
        }
        if !self.closing {
            if self.writable {
                let arena = self.port.as_mut().map(|port| &mut port.arena);
                self.writable = self.out.flush(&self.stream, arena)?;
            }
            if self.port.as_ref().is_some_and(Port::is_gone) {
                return Err(ErrorKind::NotConnected.into());
            }
        }
        Ok(self.readable && !self.closing)
    }

    /// Reads once: the data of a SUBMIT to its place, and PDUs behind.
    fn read(&mut self) -> io::Result<()> {
        self.input.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let data: &mut [u8] = match &mut self.incoming {
            Some(incoming) => &mut incoming.block[incoming.at..incoming.end],
            None => &mut [],
        };
        let data_len = data.len();
        let room = &mut self.input[self.end..];
        let wanted = data_len + room.len();
        let read = if data_len == 0 {
            self.stream.read(room)
        } else {
            self.stream.read_vectored(&mut [IoSliceMut::new(data), IoSliceMut::new(room)])
        };
        let got = match read {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        self.readable = got == wanted;
        if let Some(incoming) = &mut self.incoming {
            incoming.at += got.min(data_len);
        }
        self.end += got.saturating_sub(data_len);
        Ok(())
    }

    fn parse(
        &mut self,
        registry: &Registry,
        token: Token,
        is_busy: &impl Fn(&str) -> bool,
    ) -> io::Result<()> {
        if self.port.is_none() {
            self.parse_request(registry, token, is_busy)?;
        }
        while self.port.is_some() && self.parse_pdu()? {}
        Ok(())
    }

    /// Answers the first request of a connection.
    fn parse_request(
        &mut self,
        registry: &Registry,
        token: Token,
        is_busy: &impl Fn(&str) -> bool,
    ) -> io::Result<()> {
        let bytes = &self.input[self.start..self.end];
        match bytes.len().checked_sub(OP_LEN).map(|_| pdu::word(bytes, 0)) {
            None => Ok(()),
            Some(DEVLIST) => {
                let devices = Found::all();
                let count = u32::try_from(devices.len()).unwrap_or(u32::MAX);
                self.out.put(&[REPLY | 5, 0, count].map(u32::to_be_bytes).concat());
                devices.iter().for_each(|device| self.out.put(&device.listed()));
                self.finish()
            }
            Some(IMPORT) if bytes.len() < IMPORT_LEN => Ok(()),
            Some(IMPORT) => {
                let name = &bytes[OP_LEN..IMPORT_LEN];
                let len = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
                let busid = String::from_utf8_lossy(&name[..len]).into_owned();
                self.start += IMPORT_LEN;
                self.import(&busid, registry, token, is_busy)
            }
            Some(_) => Err(ErrorKind::InvalidData.into()),
        }
    }

    fn import(
        &mut self,
        busid: &str,
        registry: &Registry,
        token: Token,
        is_busy: &impl Fn(&str) -> bool,
    ) -> io::Result<()> {
        let found = Found::read(busid).ok_or(NO_DEVICE);
        let found = found.and_then(|found| if is_busy(busid) { Err(BUSY) } else { Ok(found) });
        let opened = found.and_then(|found| match Port::open(&found) {
            Ok(port) => Ok((found, port)),
            Err(_) => Err(NOT_AVAILABLE),
        });
        let (found, port) = match opened {
            Ok(opened) => opened,
            Err(status) => {
                self.out.put(&[REPLY | 3, status].map(u32::to_be_bytes).concat());
                return self.finish();
            }
        };
        for pollfd in port.pollfds() {
            let fd: RawFd = pollfd.fd;
            let interest =
                if pollfd.wants_output() { Interest::WRITABLE } else { Interest::READABLE };
            registry.register(&mut SourceFd(&fd), token, interest)?;
        }
        self.port = Some(port);
        self.out.put(&[REPLY | 3, 0].map(u32::to_be_bytes).concat());
        self.out.put(&found.record());
        Ok(())
    }

    /// Closes the connection behind what is put.
    fn finish(&mut self) -> io::Result<()> {
        self.out.flush(&self.stream, None)?;
        self.closing = true;
        Ok(())
    }

    /// Takes a step in the input. False when more bytes are needed.
    fn parse_pdu(&mut self) -> io::Result<bool> {
        let port = self.port.as_mut().expect("commands come behind an import");
        let bytes = &self.input[self.start..self.end];
        let Some(mut incoming) = self.incoming.take() else {
            let Some(header) = bytes.get(..HEADER_LEN) else { return Ok(false) };
            self.start += HEADER_LEN;
            let header = Header::parse(header, port).ok_or(ErrorKind::InvalidData)?;
            match header.command {
                1 => {
                    let (len, at) = header.room();
                    let block = port.arena.alloc(len).ok_or(ErrorKind::OutOfMemory)?;
                    let end = if header.is_in { at } else { at + header.len };
                    self.incoming = Some(Incoming { header, block, at, end });
                }
                2 => port.unlink(&header, &mut self.out),
                _ => return Err(ErrorKind::InvalidData.into()),
            }
            return Ok(true);
        };
        let data_len = bytes.len().min(incoming.end - incoming.at);
        let (data, behind) = bytes.split_at(data_len);
        incoming.block[incoming.at..][..data_len].copy_from_slice(data);
        incoming.at += data_len;
        self.start += data_len;
        let descriptors = behind.get(..incoming.header.packets * DESCRIPTOR_LEN);
        match descriptors.filter(|_| incoming.at == incoming.end) {
            Some(descriptors) => {
                self.start += descriptors.len();
                port.submit(incoming.header, incoming.block, descriptors, &mut self.out);
                Ok(true)
            }
            None => {
                self.incoming = Some(incoming);
                Ok(false)
            }
        }
    }
}
