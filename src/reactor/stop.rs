//! How the server is told to stop: a byte in a socket pair, which a signal handler can write.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream as StdUnixStream;

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

/// The reactor's end.
pub(super) struct StopSource {
    receiver: UnixStream,
    sender: StdUnixStream,
}

/// Stops a server. Cloned by asking for another.
#[derive(Debug)]
pub struct StopHandle(StdUnixStream);

impl StopSource {
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let (sender, receiver) = StdUnixStream::pair()?;
        sender.set_nonblocking(true)?;
        receiver.set_nonblocking(true)?;
        let mut receiver = UnixStream::from_std(receiver);
        registry.register(&mut receiver, token, Interest::READABLE)?;
        Ok(Self { receiver, sender })
    }

    pub(super) fn handle(&self) -> io::Result<StopHandle> {
        self.sender.try_clone().map(StopHandle)
    }

    /// Whether somebody has asked, rather than the system having woken us for nothing.
    pub(super) fn is_requested(&mut self) -> bool {
        matches!(self.receiver.read(&mut [0; 16]), Ok(1..))
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
