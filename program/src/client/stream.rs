//! A connection to a server, with one time limit for all reads and writes together.
//!
//! Contract: *blocks*, until the time limit at most; the look-up of a name takes the system's time.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use usbferry_sys::os::tcp;

use super::Probe;
use super::error::Trouble;
use super::server::Server;
use crate::limits::CONNECT_TIMEOUT;
use crate::wire::op::{OP_COMMON_LEN, Request, client};

/// A connection that fails after a certain time, however often bytes come.
pub(super) struct Limited {
    stream: TcpStream,
    timeout: Duration,
    deadline: Instant,
    /// The time to connect.
    connected: Duration,
}

impl Limited {
    /// Connects to a server, at the first address that answers.
    ///
    /// # Errors
    /// The host has no address, or no address can be reached in time.
    pub(super) fn connect(server: &Server, timeout: Duration) -> Result<Self, Trouble> {
        let addresses = server.addresses()?;
        let deadline = Instant::now() + timeout;
        let mut trouble = Trouble::NoAddress;
        for address in addresses {
            let begun = Instant::now();
            let connected = left_until(deadline)
                .and_then(|left| TcpStream::connect_timeout(&address, left.min(CONNECT_TIMEOUT)));
            match connected {
                Ok(stream) => {
                    let connected = begun.elapsed();
                    return Ok(Self { stream, timeout, deadline, connected });
                }
                Err(error) => trouble = Trouble::Unreachable(error),
            }
        }
        Err(trouble)
    }

    /// Sends a request with its body, and reads the `op_common` of the answer.
    ///
    /// # Errors
    /// No answer, another answer, or a refusal.
    pub(super) fn ask(&mut self, request: Request, body: &[u8]) -> Result<(), Trouble> {
        let mut common = [0; OP_COMMON_LEN];
        let (first, rest) = common.split_at_mut(1);
        self.write_all(&[&request.to_bytes(), body].concat())
            .and_then(|()| self.read_exact(first))
            .map_err(|error| self.unanswered(error))?;
        self.read_exact(rest).map_err(|error| self.cut_short(error))?;
        client::parse_common(&common, request).map_err(Trouble::from)
    }

    /// Reads the next part of an answer.
    ///
    /// # Errors
    /// The answer ends before, or the time is over.
    pub(super) fn part<const LEN: usize>(&mut self) -> Result<[u8; LEN], Trouble> {
        let mut part = [0; LEN];
        self.read_exact(&mut part).map_err(|error| self.cut_short(error))?;
        Ok(part)
    }

    /// The socket, with no time limit any more: a limit left there would end a session of
    /// `vhci_hcd` (`vhci_rx_pdu` takes -EAGAIN for an end while URBs are pending).
    ///
    /// # Errors
    /// The system's.
    pub(super) fn into_stream(self) -> Result<TcpStream, Trouble> {
        let unlimited = self.stream.set_read_timeout(None);
        unlimited
            .and_then(|()| self.stream.set_write_timeout(None))
            .map_err(Trouble::Unreachable)?;
        Ok(self.stream)
    }

    /// What is known of the way to the server, behind a request that took a time to be answered.
    pub(super) fn probe(&self, answered: Duration) -> Probe {
        let socket = self.stream.as_fd();
        Probe {
            connected: self.connected,
            answered,
            round_trip: tcp::round_trip(socket),
            retransmitted: tcp::retransmissions(socket),
        }
    }

    /// The reason of an error before the first byte of an answer.
    fn unanswered(&self, error: io::Error) -> Trouble {
        if is_closed(&error) {
            Trouble::Closed
        } else if is_late(&error) {
            Trouble::Silent(self.timeout)
        } else {
            Trouble::Failed(error)
        }
    }

    /// The reason of an error within an answer.
    fn cut_short(&self, error: io::Error) -> Trouble {
        if is_closed(&error) {
            Trouble::CutShort
        } else if is_late(&error) {
            Trouble::Slow(self.timeout)
        } else {
            Trouble::Failed(error)
        }
    }
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left_until(self.deadline)?))?;
        self.stream.read(buffer)
    }
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(left_until(self.deadline)?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The time until `deadline`.
///
/// # Errors
/// No time is left.
fn left_until(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The other side has closed or reset the connection.
pub(super) fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let kinds = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof];
    kinds.contains(&error.kind())
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}
