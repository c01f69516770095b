//! Clients that mean no good, or know no better: for measuring what other clients notice of them.
//!
//! Contract: one thread, or two where replies have to be read away. That a server closes, refuses
//! or resets is what these clients are for: they go on with the next connection.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{AttachError, Client, PATIENCE};
use crate::pdu::Submit;

/// Connections that say nothing.
pub const IDLE: usize = 1000;

/// Requests that are begun and not finished, before anything is measured: more than a server holds.
pub const HALF_HANDSHAKES: u64 = 10_000;

/// So many more of them a second while it is.
pub const HALF_HANDSHAKES_PER_SECOND: u64 = 2500;

/// Connections that go on with garbage where they should close.
pub const STAYING: usize = 200;

/// How many of them this side keeps open: as many as usbferry ever does, and some.
const HELD_MAX: usize = 4500;

/// Bytes of garbage, of which each use takes some.
const GARBAGE_LEN: usize = 1 << 20;

/// Bytes written at once where it is to be much.
const PIECE_LEN: usize = 64 << 10;

/// Bytes and number of URBs whose replies nobody reads.
const UNREAD: (usize, usize) = (128 << 10, 64);

/// An endpoint that no simulated device has.
const NO_ENDPOINT: u8 = 9;

/// An OP_REQ_DEVLIST, and what an OP_REQ_IMPORT begins with.
const LIST_REQUEST: [u8; 8] = [0x01, 0x11, 0x80, 0x05, 0, 0, 0, 0];
const IMPORT_REQUEST: [u8; 8] = [0x01, 0x11, 0x80, 0x03, 0, 0, 0, 0];

/// What is done to a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Abuse {
    /// Nothing: what the others are compared with.
    Nothing,
    /// [`IDLE`] connections that say nothing.
    Idle,
    /// [`HALF_HANDSHAKES`] begun requests left open, and then more at a steady rate.
    HalfHandshakes,
    /// Begun requests, dropped at once: as fast as they can be made.
    HandshakeFlood,
    /// Random bytes instead of a request, on one connection after the other.
    GarbageRequests,
    /// Random bytes after an import, over and over.
    GarbageUrbs,
    /// URBs for an endpoint that does not exist, with random bytes, as fast as they are taken.
    GarbagePayload,
    /// Random bytes behind requests that were answered, on [`STAYING`] connections, as fast as they
    /// are taken.
    GarbageBehind,
    /// Requests for the list of devices, one after the other.
    Lists,
    /// A client that asks for much and reads nothing.
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

    /// Does it to a server for as long as `go_on` says so; `ready` is called when it is under way.
    /// Those that need a device use `busid`. Returns how often it was done meanwhile: connections,
    /// or pieces of payload.
    ///
    /// # Errors
    /// The first connection fails: there is no server, or this process may have too few.
    pub fn run(
        self,
        server: SocketAddr,
        busid: &str,
        ready: impl FnOnce(),
        go_on: impl Fn() -> bool,
    ) -> io::Result<u64> {
        let mut abuser = Abuser { server, garbage: Garbage::new(), done: 0 };
        // One that is not refused, so that what is measured is not the absence of a server.
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
                    // Refused or reset: so be it.
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
        found.ok_or_else(|| format!("“{text}” is no kind of abuse"))
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

    /// Keeps in step: each piece follows a header that announces it.
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

    /// Goes on with garbage on connections that have had their answer; new ones where the server
    /// has enough of that.
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

    /// Asks for the list, reads all of it, and stays.
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

/// A client that has asked for much and reads nothing.
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

/// How long a client that means well waits for a device, and how often it has to try.
///
/// # Errors
/// It does not get it in [`PATIENCE`].
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
