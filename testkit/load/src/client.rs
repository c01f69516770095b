//! A plain client: attaches a device, submits and unlinks URBs, reads replies in turn. For work
//! outside of measurements, and for tests. Blocking, with a time limit on every call.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::pdu::{self, DESCRIPTOR_LEN, HEADER_LEN, Submit};

/// How long to wait for a server.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait for a server that may be slowed down: [`PATIENCE`], times `USBFERRY_PATIENCE`
/// if set. `tests/memory-check` sets it.
#[must_use]
pub fn patience() -> Duration {
    let times = std::env::var("USBFERRY_PATIENCE").ok().and_then(|times| times.parse().ok());
    PATIENCE * times.unwrap_or(1)
}

/// Bytes of a successful OP_REP_IMPORT.
const IMPORTED_LEN: usize = 320;

/// `ST_DEV_BUSY`.
const BUSY: u32 = 2;

/// Why a device was not attached.
#[derive(Debug)]
pub enum AttachError {
    /// The status of the server's refusal.
    Refused(u32),
    /// The connection failed, or the received bytes are no reply.
    Io(io::Error),
}

impl From<io::Error> for AttachError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::error::Error for AttachError {}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => write!(f, "the server refuses, with status {status}"),
            Self::Io(error) => write!(f, "no reply: {error}"),
        }
    }
}

/// A reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The SUBMIT's, or the UNLINK's.
    pub seqnum: u32,
    /// Whether the reply is a RET_UNLINK.
    pub is_unlink: bool,
    /// Negative errno.
    pub status: i32,
    /// `actual_length`.
    pub actual_length: u32,
    /// IN data.
    pub data: Vec<u8>,
    /// Actual length and status of each packet.
    pub packets: Vec<(u32, i32)>,
}

/// Asks for the list of devices, reads the whole reply, and returns the number of devices.
///
/// # Errors
/// The connection failed, or the server refuses.
pub fn devlist(server: impl ToSocketAddrs) -> io::Result<u32> {
    let mut stream = connect(server)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience()))?;
    stream.write_all(&[0x01, 0x11, 0x80, 0x05, 0, 0, 0, 0])?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    if pdu::word(&head, 1) != 0 {
        return Err(io::Error::other("the server has no list"));
    }
    // The server closes behind the last device.
    io::copy(&mut stream, &mut io::sink())?;
    Ok(pdu::word(&head, 2))
}

/// An attached device.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    devid: u32,
    next_seqnum: u32,
    /// Direction and packets of the URBs in flight.
    in_flight: HashMap<u32, (bool, usize)>,
}

impl Client {
    /// Attaches a device.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn attach(server: impl ToSocketAddrs, busid: &str) -> Result<Self, AttachError> {
        let mut stream = connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience()))?;
        stream.set_write_timeout(Some(patience()))?;
        let mut request = vec![0x01, 0x11, 0x80, 0x03, 0, 0, 0, 0];
        request.extend_from_slice(busid.as_bytes());
        request.resize(8 + 32, 0);
        stream.write_all(&request)?;
        let mut reply = [0; IMPORTED_LEN];
        stream.read_exact(&mut reply[..8])?;
        match pdu::word(&reply, 1) {
            0 => {}
            status => return Err(AttachError::Refused(status)),
        }
        stream.read_exact(&mut reply[8..])?;
        let (bus, device) = (pdu::word(&reply, 2 + 72), pdu::word(&reply, 2 + 73));
        let devid = bus << 16 | device;
        Ok(Self { stream, devid, next_seqnum: 1, in_flight: HashMap::new() })
    }

    /// Attaches a device that may still be on its way back from the previous client.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn attach_when_free(
        server: impl ToSocketAddrs + Copy,
        busid: &str,
    ) -> Result<Self, AttachError> {
        let begun = Instant::now();
        loop {
            match Self::attach(server, busid) {
                Err(AttachError::Refused(BUSY)) if begun.elapsed() < patience() => {
                    thread::sleep(Duration::from_millis(5));
                }
                other => return other,
            }
        }
    }

    /// The device's number in PDUs.
    #[must_use]
    pub const fn devid(&self) -> u32 {
        self.devid
    }

    /// The connection, for a load, and the first unused seqnum. Nothing may be in flight.
    #[must_use]
    pub fn into_parts(self) -> (TcpStream, u32, u32) {
        assert!(self.in_flight.is_empty(), "everything was answered");
        (self.stream, self.devid, self.next_seqnum)
    }

    /// Takes up a session again.
    pub(crate) fn from_parts(stream: TcpStream, devid: u32, next_seqnum: u32) -> Self {
        Self { stream, devid, next_seqnum, in_flight: HashMap::new() }
    }

    /// Submits a URB; seqnum and devid are filled in. `data` follows the header.
    ///
    /// # Errors
    /// The connection's.
    pub fn submit(&mut self, submit: Submit, data: &[u8]) -> io::Result<u32> {
        let seqnum = self.next_seqnum;
        self.next_seqnum += 1;
        let header = Submit { seqnum, devid: self.devid, ..submit }.header();
        self.in_flight.insert(seqnum, (submit.is_in, submit.packets));
        self.stream.write_all(&[&header[..], data].concat())?;
        Ok(seqnum)
    }

    /// Asks the server to give up a URB, and returns the seqnum of the UNLINK.
    ///
    /// # Errors
    /// The connection's.
    pub fn unlink(&mut self, target: u32) -> io::Result<u32> {
        let seqnum = self.next_seqnum;
        self.next_seqnum += 1;
        self.stream.write_all(&pdu::unlink(seqnum, self.devid, target))?;
        Ok(seqnum)
    }

    /// The next reply.
    ///
    /// # Errors
    /// The connection's; `InvalidData` for bytes that are no reply.
    pub fn reply(&mut self) -> io::Result<Reply> {
        let mut header = [0; HEADER_LEN];
        self.stream.read_exact(&mut header)?;
        let (seqnum, is_unlink) = (pdu::word(&header, 1), pdu::word(&header, 0) == 4);
        let status = pdu::word(&header, 5).cast_signed();
        let mut reply = Reply {
            seqnum,
            is_unlink,
            status,
            actual_length: 0,
            data: Vec::new(),
            packets: Vec::new(),
        };
        if is_unlink {
            return Ok(reply);
        }
        reply.actual_length = pdu::word(&header, 6);
        let known = self.in_flight.remove(&seqnum).filter(|_| pdu::word(&header, 0) == 3);
        let (is_in, packets) =
            known.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no such URB"))?;
        if is_in {
            reply.data.resize(reply.actual_length as usize, 0);
            self.stream.read_exact(&mut reply.data)?;
        }
        let mut descriptors = vec![0; packets * DESCRIPTOR_LEN];
        self.stream.read_exact(&mut descriptors)?;
        let packet = |bytes: &[u8]| (pdu::word(bytes, 2), pdu::word(bytes, 3).cast_signed());
        reply.packets = descriptors.chunks_exact(DESCRIPTOR_LEN).map(packet).collect();
        Ok(reply)
    }

    /// Whether the server has sent something, as far as can be seen now.
    ///
    /// # Errors
    /// The connection's.
    pub fn has_input(&self) -> io::Result<bool> {
        self.stream.set_nonblocking(true)?;
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false)?;
        match peeked {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A whole control transfer: its reply.
    ///
    /// # Errors
    /// The connection's.
    pub fn control(&mut self, setup: [u8; 8], data: &[u8]) -> io::Result<Reply> {
        let is_in = setup[0] & 0x80 != 0;
        let len = usize::from(u16::from_le_bytes([setup[6], setup[7]]));
        let submit = Submit { seqnum: 0, devid: 0, is_in, endpoint: 0, len, packets: 0, setup };
        self.submit(submit, data)?;
        self.reply()
    }

    /// Chooses an interface's setting.
    ///
    /// # Errors
    /// The connection's, or the device refuses.
    pub fn set_interface(&mut self, interface: u8, setting: u8) -> io::Result<()> {
        let setup = [0x01, 11, setting, 0, interface, 0, 0, 0];
        match self.control(setup, &[])?.status {
            0 => Ok(()),
            status => Err(io::Error::other(format!("SET_INTERFACE ends with {status}"))),
        }
    }

    /// Has usbferry's simulated devices count anew.
    ///
    /// # Errors
    /// The connection's.
    pub fn clear_counters(&mut self) -> io::Result<()> {
        self.control([0x40, 2, 0, 0, 0, 0, 0, 0], &[]).map(drop)
    }

    /// Counts of bytes, URBs and wrong bytes of an endpoint of usbferry's simulated devices.
    ///
    /// # Errors
    /// The connection's, or the device has no counters.
    pub fn counters(&mut self, endpoint: u8) -> io::Result<[u64; 3]> {
        let reply = self.control([0xc0, 1, 0, 0, endpoint, 0, 32, 0], &[])?;
        let word = |index: usize| {
            let bytes = reply.data.get(8 * index..8 * index + 8)?.try_into().ok()?;
            Some(u64::from_le_bytes(bytes))
        };
        match (word(0), word(1), word(2)) {
            (Some(bytes), Some(urbs), Some(errors)) => Ok([bytes, urbs, errors]),
            _ => Err(io::Error::other(format!("no counters: status {}", reply.status))),
        }
    }
}

/// Connects to the first answering address of a server.
fn connect(server: impl ToSocketAddrs) -> io::Result<TcpStream> {
    let mut result = Err(io::Error::new(io::ErrorKind::NotFound, "the server has no address"));
    for address in server.to_socket_addrs()? {
        result = connect_to(address);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // With BBR as the system's choice data waits for timers, and the measurement would be of timers
    // instead of the server.
    #[cfg(target_os = "linux")]
    match socket.set_tcp_congestion(b"reno") {
        // Each Linux has `reno`; QEMU's user mode makes a number of the name.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => result?,
    }
    socket.connect(&address.into())?;
    Ok(socket.into())
}
