//! A connection to a server, with one time limit for all reads and writes together.
//!
//! Contract: *blocks*, until the time limit at most; the look-up of a name takes the system's time.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::error::Trouble;
use crate::wire::PORT;

/// A connection that fails after a certain time, however often bytes come.
pub(super) struct Limited {
    stream: TcpStream,
    timeout: Duration,
    deadline: Instant,
}

impl Limited {
    /// Connects to `HOST` or `HOST:PORT`, at the first address that answers.
    ///
    /// # Errors
    /// The host has no address, or no address can be reached in time.
    pub(super) fn connect(host: &str, timeout: Duration) -> Result<Self, Trouble> {
        let addresses = resolve(host)?;
        let deadline = Instant::now() + timeout;
        let mut trouble = Trouble::NoAddress;
        for address in addresses {
            let connected =
                left_until(deadline).and_then(|left| TcpStream::connect_timeout(&address, left));
            match connected {
                Ok(stream) => return Ok(Self { stream, timeout, deadline }),
                Err(error) => trouble = Trouble::Unreachable(error),
            }
        }
        Err(trouble)
    }

    /// What an error means before the first byte of an answer.
    pub(super) fn unanswered(&self, error: io::Error) -> Trouble {
        if is_closed(&error) { Trouble::Closed } else { self.cut_short(error) }
    }

    /// What an error means within an answer.
    pub(super) fn cut_short(&self, error: io::Error) -> Trouble {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Trouble::Slow(self.timeout),
            _ => Trouble::CutShort(error),
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
fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let kinds = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof];
    kinds.contains(&error.kind())
}

/// The addresses of `HOST` or `HOST:PORT`, also of an IPv6 address with or without brackets.
fn resolve(host: &str) -> Result<Vec<SocketAddr>, Trouble> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = match bare.parse::<IpAddr>() {
        Ok(address) => Ok(vec![(address, PORT).into()]),
        Err(_) if host.contains(':') => host.to_socket_addrs().map(Iterator::collect),
        Err(_) => (host, PORT).to_socket_addrs().map(Iterator::collect),
    };
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_nameless = name.trim_matches(['[', ']', ' ']).is_empty();
    addresses.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => Trouble::NoHost,
        _ if is_nameless => Trouble::NoHost,
        _ => Trouble::Unknown(error),
    })
}

#[cfg(test)]
mod tests {
    use super::super::ClientError;
    use super::*;

    #[test]
    fn hosts_come_with_and_without_ports() {
        for (host, expected) in [
            ("127.0.0.1", "127.0.0.1:3240"),
            ("127.0.0.1:3241", "127.0.0.1:3241"),
            ("::1", "[::1]:3240"),
            ("[::1]", "[::1]:3240"),
            ("[::1]:3241", "[::1]:3241"),
        ] {
            assert_eq!(resolve(host).unwrap()[0].to_string(), expected);
        }
        for (host, says) in [
            ("127.0.0.1:port", "with a port as in"),
            ("127.0.0.1:65536", "with a port as in"),
            ("", "is no host"),
            (":3240", "is no host"),
            ("[]:3240", "is no host"),
            ("nobody.invalid", "give the address instead"),
            ("nobody.invalid:3241", "give the address instead"),
        ] {
            let trouble = resolve(host).unwrap_err();
            let refused = ClientError { host: host.to_owned(), trouble }.to_string();
            assert!(refused.contains(says), "{refused}");
        }
    }
}
