//! How the server is told to stop: a byte in a socket pair, which a signal handler can write.
//!
//! Contract: [`StopHandle`] may be used by any thread and never blocks.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Instant;

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

use crate::limits::SHUTDOWN_TIMEOUT;

/// The reactor's end.
pub(super) struct Stop {
    receiver: UnixStream,
    sender: StdUnixStream,
    /// The system says that the receiver has something to read.
    ready: bool,
    /// Since when the server stops.
    since: Option<Instant>,
}

/// Stops a server. To have another handle, ask the server for one.
#[derive(Debug)]
pub struct StopHandle(StdUnixStream);

impl Stop {
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let (sender, receiver) = StdUnixStream::pair()?;
        sender.set_nonblocking(true)?;
        receiver.set_nonblocking(true)?;
        let mut receiver = UnixStream::from_std(receiver);
        registry.register(&mut receiver, token, Interest::READABLE)?;
        Ok(Self { receiver, sender, ready: false, since: None })
    }

    pub(super) fn handle(&self) -> io::Result<StopHandle> {
        self.sender.try_clone().map(StopHandle)
    }

    /// Notes an event of the receiver.
    pub(super) const fn mark(&mut self) {
        self.ready = true;
    }

    /// Whether there was an event.
    pub(super) const fn is_marked(&self) -> bool {
        self.ready
    }

    /// Whether the stop begins now: somebody has asked for the first time. An event alone may be
    /// the system's for nothing.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let begins = std::mem::take(&mut self.ready)
            && self.since.is_none()
            && matches!(self.receiver.read(&mut [0; 16]), Ok(1..));
        if begins {
            self.since = Some(now);
        }
        begins
    }

    /// When the server stops, whatever is left.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.since.map(|since| since + SHUTDOWN_TIMEOUT)
    }
}

impl StopHandle {
    /// Asks the server to stop. It gives back every device first.
    pub fn stop(&mut self) {
        // A full pipe has a request in it already.
        let _ = self.0.write(&[0]);
    }

    /// The descriptor that stops the server when a byte is written to it, for signal handlers.
    #[must_use]
    pub fn into_stream(self) -> StdUnixStream {
        self.0
    }
}
