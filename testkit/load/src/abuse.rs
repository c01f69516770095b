//! Malicious or careless clients, for measuring their effect on other clients.
//!
//! Contract: a single thread, or two if replies have to be discarded. A server's closing, refusing
//! or resetting is expected: the clients go on with the next connection.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{AttachError, Client, PATIENCE};
use crate::pdu::Submit;

/// Silent connections.
pub const IDLE: usize = 1000;

/// Incomplete requests before the measurement: more than a server holds.
pub const HALF_HANDSHAKES: u64 = 10_000;

/// Further incomplete requests a second during the measurement.
pub const HALF_HANDSHAKES_PER_SECOND: u64 = 2500;

/// Connections that go on with garbage instead of closing.
pub const STAYING: usize = 200;

/// Connections kept open on this side: somewhat more than usbferry ever keeps.
const HELD_MAX: usize = 4500;

/// Bytes of garbage, of which each use takes some.
const GARBAGE_LEN: usize = 1 << 20;

/// Bytes of a large write.
const PIECE_LEN: usize = 64 << 10;

/// Bytes and number of URBs whose replies nobody reads.
const UNREAD: (usize, usize) = (128 << 10, 64);

/// An endpoint missing in every simulated device.
const NO_ENDPOINT: u8 = 9;

/// An OP_REQ_DEVLIST, and the start of an OP_REQ_IMPORT.
const LIST_REQUEST: [u8; 8] = [0x01, 0x11, 0x80, 0x05, 0, 0, 0, 0];
const IMPORT_REQUEST: [u8; 8] = [0x01, 0x11, 0x80, 0x03, 0, 0, 0, 0];

/// The abuse of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Abuse {
    /// No abuse, for comparison.
    Nothing,
    /// [`IDLE`] silent connections.
    Idle,
    /// [`HALF_HANDSHAKES`] begun requests left open, and then more at a steady rate.
    HalfHandshakes,
    /// Incomplete requests, dropped at once, at the full rate of a processor.
    HandshakeFlood,
    /// Random bytes instead of a request, on a new connection each time.
    GarbageRequests,
    /// Random bytes after an import, over and over.
    GarbageUrbs,
    /// URBs for a nonexistent endpoint, with random payload, as fast as the server reads.
    GarbagePayload,
    /// Random bytes behind answered requests, on [`STAYING`] connections, as fast as the server
    /// reads.
    GarbageBehind,
    /// Requests for the list of devices, in turn.
    Lists,
    /// A client with many requests that reads nothing.
    Unread,
}

impl Abuse {
    /// All there are.
    pub const ALL: [Self; 10] = [
        Self::Nothing,
        Self::Idle,
        Self::HalfHandshakes,
        Self::HandshakeFlood,
        Self::GarbageRequests,
        Self::GarbageUrbs,
        Self::GarbagePayload,
        Self::GarbageBehind,
        Self::Lists,
        Self::Unread,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Idle => "idle",
            Self::HalfHandshakes => "half-handshakes",
            Self::HandshakeFlood => "handshake-flood",
            Self::GarbageRequests => "garbage-requests",
            Self::GarbageUrbs => "garbage-urbs",
            Self::GarbagePayload => "garbage-payload",
            Self::GarbageBehind => "garbage-behind",
            Self::Lists => "lists",
            Self::Unread => "unread",
        }
    }

    /// Abuses a server until `go_on` returns false; `ready` is called when the abuse is under way.
    /// Kinds of abuse with a device use `busid`. Returns the number of actions meanwhile:
    /// connections, or pieces of payload.
    ///
    /// # Errors
    /// The first connection fails: there is no server, or this process lacks descriptors.
    pub fn run(
        self,
        server: SocketAddr,
        busid: &str,
        ready: impl FnOnce(),
        go_on: impl Fn() -> bool,
    ) -> io::Result<u64> {
        let mut abuser = Abuser { server, garbage: Garbage::new(), done: 0 };
        // A first connection must succeed, so that the measurement is not of a missing server.
        abuser.connect()?;
        match self {
            Self::Nothing => {
                ready();
                wait(&go_on);
            }
            Self::Idle => {
                let held: io::Result<Vec<TcpStream>> =
                    (0..IDLE).map(|_| abuser.connect()).collect();
                ready();
                wait(&go_on);
                drop(held?);
            }
            Self::HalfHandshakes => abuser.begin_and_hold(ready, &go_on),
            Self::Unread => {
                let held = unread(server, busid)?;
                ready();
                wait(&go_on);
                drop(held);
            }
            Self::GarbagePayload => abuser.send_payload(busid, ready, &go_on)?,
            Self::GarbageBehind => abuser.send_behind(ready, &go_on)?,
            Self::HandshakeFlood | Self::GarbageRequests | Self::GarbageUrbs | Self::Lists => {
                ready();
                while go_on() {
                    // Refusals and resets are expected.
                    let _ = match self {
                        Self::HandshakeFlood => abuser.begin().map(drop),
                        Self::GarbageRequests => abuser.garbage_request(),
                        Self::GarbageUrbs => abuser.garbage_urbs(busid),
                        _ => abuser.list(),
                    };
                    abuser.done += 1;
                }
            }
        }
        Ok(abuser.done)
    }
}

impl fmt::Display for Abuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Abuse {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|abuse| abuse.name() == text);
        found.ok_or_else(|| format!("\"{text}\" is no kind of abuse"))
    }
}

struct Abuser {
    server: SocketAddr,
    garbage: Garbage,
    done: u64,
}

impl Abuser {
    fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.server, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Sends some bytes of an import request, never all.
    fn begin(&mut self) -> io::Result<TcpStream> {
        let mut stream = self.connect()?;
        let mut request = [b'1'; 39];
        request[..8].copy_from_slice(&IMPORT_REQUEST);
        let len = 1 + self.garbage.below(request.len());
        stream.write_all(&request[..len])?;
        Ok(stream)
    }

    /// Begins requests and leaves them open, in the end at a steady rate.
    fn begin_and_hold(&mut self, ready: impl FnOnce(), go_on: impl Fn() -> bool) {
        let mut held = VecDeque::new();
        for _ in 0..HALF_HANDSHAKES {
            self.begin_one_more(&mut held);
        }
        ready();
        let begun = Instant::now();
        while go_on() {
            let due = begun.elapsed().as_micros() * u128::from(HALF_HANDSHAKES_PER_SECOND);
            while u128::from(self.done) < due / 1_000_000 {
                self.begin_one_more(&mut held);
                self.done += 1;
            }
            thread::sleep(Duration::from_micros(400));
        }
    }

    fn begin_one_more(&mut self, held: &mut VecDeque<TcpStream>) {
        held.extend(self.begin());
        if held.len() > HELD_MAX {
            held.pop_front();
        }
    }

    fn garbage_request(&mut self) -> io::Result<()> {
        let mut stream = self.connect()?;
        stream.write_all(self.garbage.piece(PIECE_LEN))
    }

    fn garbage_urbs(&mut self, busid: &str) -> io::Result<()> {
        let mut stream = attach(self.server, busid)?.into_parts().0;
        loop {
            stream.write_all(self.garbage.piece(PIECE_LEN))?;
        }
    }

    /// Keeps the stream in step: each piece follows its header.
    fn send_payload(
        &mut self,
        busid: &str,
        ready: impl FnOnce(),
        go_on: impl Fn() -> bool,
    ) -> io::Result<()> {
        let (mut stream, devid, first_seqnum) = attach(self.server, busid)?.into_parts();
        let mut replies = stream.try_clone()?;
        thread::spawn(move || io::copy(&mut replies, &mut io::sink()));
        ready();
        let mut submit = Submit { seqnum: first_seqnum, devid, ..submit_of(PIECE_LEN) };
        (submit.is_in, submit.endpoint) = (false, NO_ENDPOINT);
        while go_on() {
            stream.write_all(&submit.header())?;
            stream.write_all(self.garbage.piece(PIECE_LEN))?;
            submit.seqnum = submit.seqnum.wrapping_add(1);
            self.done += 1;
        }
        Ok(())
    }

    /// Sends garbage on connections with an answered request, and makes new connections for those
    /// closed by the server.
    fn send_behind(&mut self, ready: impl FnOnce(), go_on: impl Fn() -> bool) -> io::Result<()> {
        let mut staying: Vec<TcpStream> =
            (0..STAYING).map(|_| self.listed()).collect::<io::Result<_>>()?;
        ready();
        while go_on() {
            for stream in &mut staying {
                stream.set_nonblocking(true)?;
                match stream.write(self.garbage.piece(PIECE_LEN)) {
                    Ok(_) => self.done += 1,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => *stream = self.listed()?,
                }
            }
        }
        Ok(())
    }

    fn list(&self) -> io::Result<()> {
        self.listed().map(drop)
    }

    /// Asks for the list, reads the whole list, and keeps the connection.
    fn listed(&self) -> io::Result<TcpStream> {
        let mut stream = self.connect()?;
        stream.write_all(&LIST_REQUEST)?;
        io::copy(&mut stream, &mut io::sink())?;
        Ok(stream)
    }
}

/// Bytes by chance, the same in each run.
struct Garbage {
    bytes: Vec<u8>,
    state: u64,
}

impl Garbage {
    fn new() -> Self {
        let mut garbage = Self { bytes: Vec::new(), state: 0x9e37_79b9_7f4a_7c15 };
        while garbage.bytes.len() < GARBAGE_LEN {
            let word = garbage.next();
            garbage.bytes.extend_from_slice(&word.to_le_bytes());
        }
        garbage
    }

    /// xorshift64.
    const fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("below a limit that is one")
    }

    fn piece(&mut self, len: usize) -> &[u8] {
        let start = self.below(GARBAGE_LEN - len);
        &self.bytes[start..start + len]
    }
}

/// A client with many requests that reads nothing.
fn unread(server: SocketAddr, busid: &str) -> io::Result<Client> {
    let (len, urbs) = UNREAD;
    let mut client = attach(server, busid)?;
    for _ in 0..urbs {
        client.submit(submit_of(len), &[])?;
    }
    // Time for the socket to fill up.
    thread::sleep(Duration::from_millis(50));
    Ok(client)
}

/// A bulk IN URB.
const fn submit_of(len: usize) -> Submit {
    Submit { seqnum: 0, devid: 0, is_in: true, endpoint: 1, len, packets: 0, setup: [0; 8] }
}

fn attach(server: SocketAddr, busid: &str) -> io::Result<Client> {
    Client::attach_when_free(server, busid).map_err(|error| match error {
        AttachError::Io(error) => error,
        refused => io::Error::other(format!("{busid}: {refused}")),
    })
}

fn wait(go_on: impl Fn() -> bool) {
    while go_on() {
        thread::sleep(Duration::from_millis(1));
    }
}

/// The time until a well-behaved client gets a device, and the number of its attempts.
///
/// # Errors
/// The client does not get the device within [`PATIENCE`].
pub fn newcomer(server: SocketAddr, busid: &str) -> io::Result<(Duration, u32)> {
    let begun = Instant::now();
    let mut attempts = 1;
    loop {
        match Client::attach(server, busid) {
            Ok(_) => return Ok((begun.elapsed(), attempts)),
            Err(error) if begun.elapsed() > PATIENCE => {
                return Err(io::Error::other(format!("{busid}: {error}")));
            }
            Err(_) => {
                attempts += 1;
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pdu;

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        for abuse in Abuse::ALL {
            assert_eq!(abuse.to_string().parse(), Ok(abuse));
        }
        assert!("kindness".parse::<Abuse>().is_err());
    }

    #[test]
    fn garbage_is_no_request() {
        let mut garbage = Garbage::new();
        for _ in 0..1000 {
            let piece = garbage.piece(8);
            assert_ne!(pdu::word(piece, 0), 0x0111_8003);
            assert_ne!(pdu::word(piece, 0), 0x0111_8005);
        }
    }
}
