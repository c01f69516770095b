//! The capture: each URB of each session in a file that Wireshark reads.
//!
//! The format is pcapng with records in the format of usbmon (link type 220), and not the bytes of
//! the connection: Wireshark's dissector of USB/IP loses replies that share a segment, which most
//! replies do here, while usbmon's format is read by every version.
//!
//! - `recorder`: the blocks of all sessions, in pieces of memory;
//! - `tap`: the records of a session;
//! - `sink`: the file, on the thread of a [`Writer`].
//!
//! A submission is recorded when the SUBMIT has arrived, and an end when the reply is queued: the
//! time between is the time that the server and the device took, without the network. What can't be
//! written in time is dropped and counted, for each session in its statistics block, and for all in
//! the log.
//!
//! Contract: the reactor's side never blocks and allocates nothing for a URB. A capture ends when
//! dropped, and then *blocks* for [`CAPTURE_END_TIMEOUT`] at most.

mod recorder;
mod sink;
mod tap;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Capturing;
use crate::limits::{CAPTURE_END_TIMEOUT, CAPTURE_PIECE_LEN, CAPTURE_QUEUE_LEN};
use crate::words::reason;
use crate::writer::{Terms, Writer};
use recorder::Recorder;
use sink::{Progress, Sink};
pub(crate) use tap::{By, Description, End, Tap, Urb};

const PIECES: usize = CAPTURE_QUEUE_LEN / CAPTURE_PIECE_LEN;

const TERMS: Terms =
    Terms { name: "capture", pieces: 4 * PIECES, bytes: CAPTURE_QUEUE_LEN, spares: PIECES + 1 };

/// A capture under way.
pub(crate) struct Capture {
    path: PathBuf,
    writer: Writer,
    recorder: Arc<Mutex<Recorder>>,
    progress: Progress,
}

/// Why a capture can't begin.
#[derive(Debug)]
pub enum CaptureError {
    /// The file can't be made.
    Create(PathBuf, io::Error),
    /// A stream has no size.
    Unlimited(PathBuf),
    /// The system has no thread.
    Thread(io::Error),
}

impl Capture {
    /// Begins a capture. A FIFO is opened later, as soon as somebody reads.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub(crate) fn start(wanted: &Capturing) -> Result<Self, CaptureError> {
        let Capturing { path, size, snap_len } = wanted;
        let create = |error| CaptureError::Create(path.clone(), error);
        let sink = Sink::open(path, size.is_some()).map_err(create)?;
        if size.is_some() && !sink.is_file() {
            return Err(CaptureError::Unlimited(path.clone()));
        }
        let progress = sink.progress();
        let writer = Writer::start(TERMS, sink).map_err(CaptureError::Thread)?;
        let (queue, reader) = (writer.queue().clone(), Arc::clone(&progress.reader));
        let recorder = Recorder::new(queue, reader, *snap_len, size.map(|size| size / 2));
        let recorder = Arc::new(Mutex::new(recorder));
        Ok(Self { path: path.clone(), writer, recorder, progress })
    }

    /// The tap of a new session.
    pub(crate) fn tap(&self, description: Description) -> Tap {
        Tap::new(&self.recorder, description)
    }

    /// Has records written that have waited for long enough at `now`.
    pub(crate) fn tick(&self, now: Instant) {
        self.lock().tick(now);
    }

    /// When [`Self::tick`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.lock().deadline()
    }

    fn lock(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let (last, patience) = {
            let recorder = &mut *self.lock();
            // A FIFO without a reader takes nothing, and its thread can't end.
            let patience = if recorder.has_reader() { CAPTURE_END_TIMEOUT } else { Duration::ZERO };
            (recorder.finish(), patience)
        };
        self.writer.end(last, patience);
        let lost = self.progress.lost.load(Ordering::Relaxed);
        let recorder = self.lock();
        let (taken, dropped) = (recorder.taken.saturating_sub(lost), recorder.dropped + lost);
        log::info!("{}: {taken} records of URBs, {dropped} dropped", self.path.display());
    }
}

impl std::error::Error for CaptureError {}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(path, error) => {
                write!(f, "--capture {}: {}", path.display(), reason(error))
            }
            Self::Unlimited(path) => write!(
                f,
                "--capture-size limits a file, and {} is none; leave --capture-size out",
                path.display()
            ),
            Self::Thread(error) => {
                write!(f, "the system has no thread for the capture: {}", reason(error))
            }
        }
    }
}
