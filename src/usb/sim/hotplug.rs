//! Hints of the simulated bus: a byte in a socket pair for each change.
//!
//! Contract: never blocks; any thread rings.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::usb::{EventSource, Hints, News};

/// Bytes taken in one call.
const BYTES_PER_CALL: usize = 64;

/// Rung at each change of the bus, and heard by all [`SimHints`] made of it. Clones share
/// everything.
#[derive(Clone, Default)]
pub(super) struct Bell(Arc<Mutex<Vec<UnixStream>>>);

impl Bell {
    /// Tells of a change, which was made before.
    pub(super) fn ring(&self) {
        // In a full socket there is a hint already.
        self.lock().retain_mut(|stream| match stream.write(&[1]) {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        });
    }

    /// Hangs up on everybody who listens.
    pub(super) fn hang_up(&self) {
        self.lock().clear();
    }

    /// Begins to listen; `None` where the system has no sockets.
    pub(super) fn listen(&self) -> Option<SimHints> {
        let (hints, ringer) = super::wake_pair().ok()?;
        self.lock().push(ringer);
        Some(SimHints(hints))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<UnixStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hears a [`Bell`].
pub(super) struct SimHints(UnixStream);

impl Hints for SimHints {
    fn event_source(&self) -> EventSource {
        EventSource { fd: self.0.as_raw_fd(), readable: true, writable: false }
    }

    fn take(&mut self) -> io::Result<News> {
        match self.0.read(&mut [0; BYTES_PER_CALL]) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(len) => Ok(News { scan_again: true, more: len == BYTES_PER_CALL }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(News::default()),
            Err(error) => Err(error),
        }
    }
}
