//! The capture: each URB of each session in a file that Wireshark reads.
//!
//! The format is pcapng with records in the format of usbmon (link type 220), and not the bytes of
//! the connection: Wireshark's dissector of USB/IP loses replies that share a segment, which most
//! replies do here, while usbmon's format is read by every version.
//!
//! - `tap`: what a session tells of its URBs; `record`: a record of a URB;
//! - `recorder`: the blocks of all sessions, in pieces of memory;
//! - `sink`: the file, on the thread of a [`Writer`]; `place`: files and streams, by path or
//!   passed.
//!
//! A submission is recorded when the SUBMIT has arrived, and an end when the reply is queued: the
//! time between is the time that the server and the device took, without the network. What can't be
//! written in time is dropped and counted, for each session in its statistics block, and for all in
//! the log.
//!
//! Contract: the reactor's side never blocks and allocates nothing for a URB: all memory is
//! allocated when a capture begins, and the system provides a page once the page is used. A capture
//! ends when dropped, and then *blocks* for [`CAPTURE_END_TIMEOUT`] at most.

mod place;
mod record;
mod recorder;
mod sink;
mod tap;

#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Capturing;
use crate::limits::{CAPTURE_END_TIMEOUT, CAPTURE_PIECE_LEN, CAPTURE_QUEUE_LEN};
use crate::words::reason;
use crate::writer::{Terms, Writer};
use place::Place;
pub use place::{FILE_MODE, FileId, is_foreign, other_half};
pub(crate) use record::Moment;
use recorder::{Recorder, Tally};
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
    progress: Arc<Progress>,
    stage: Stage,
}

/// How far the life of a capture is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Nobody has accepted the capture: nothing is written, not even at the end.
    Offered,
    /// Under way.
    Begun,
    /// Ended.
    Ended,
}

/// The files of a capture that somebody else has opened.
#[derive(Debug)]
pub struct PassedFiles {
    /// A file, a file and its other half for a capture with a size, or a stream.
    pub files: Vec<File>,
    /// Whether files are emptied before anything is written.
    pub are_emptied: bool,
}

/// How far a capture is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Count {
    /// Records in the capture, or on their way.
    pub(crate) taken: Tally,
    /// Records that are not in the capture.
    pub(crate) dropped: Tally,
    /// Bytes written.
    pub(crate) bytes: u64,
    /// Whether anybody takes the records.
    pub(crate) has_reader: bool,
    /// Why the capture has ended early.
    pub(crate) failure: Option<String>,
}

/// Why a file is not taken that has something else than a capture.
pub const FOREIGN: &str = "the file has something else than a capture (pcapng), and would be overwritten: name another \
     file, or remove this one first";

/// Why a capture can't begin.
#[derive(Debug)]
pub enum CaptureError {
    /// The file can't be made.
    Create(PathBuf, io::Error),
    /// A stream has no size.
    Unlimited(PathBuf),
    /// Something else than files and streams was passed, or is meant.
    Kind(PathBuf),
    /// The file has something else than a capture.
    Foreign(PathBuf),
    /// Another capture writes there, of this server or another.
    Taken(PathBuf),
    /// A simulated device plays the file.
    Replayed(PathBuf),
    /// The system has no thread.
    Thread(io::Error),
}

impl Capture {
    /// Prepares a capture, whose file is left as it is until [`Self::begin`]. A FIFO is opened
    /// later, as soon as somebody reads. The capture keeps `seat` until the last byte is written.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub(crate) fn of(wanted: &Capturing, seat: Arc<()>) -> Result<Self, CaptureError> {
        Self::new(wanted, Place::of(&wanted.path)?, true, seat)
    }

    /// Prepares a capture into passed files, which are left as they are until [`Self::begin`]. The
    /// path is a name.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub(crate) fn passed(
        wanted: &Capturing,
        PassedFiles { files, are_emptied }: PassedFiles,
        seat: Arc<()>,
    ) -> Result<Self, CaptureError> {
        let is_pair = files.len() == 2;
        let place = Place::passed(wanted.path.clone(), files);
        let place = place.filter(|_| is_pair == wanted.size.is_some());
        let place = place.ok_or_else(|| CaptureError::Kind(wanted.path.clone()))?;
        Self::new(wanted, place, are_emptied, seat)
    }

    /// Begins a prepared capture: the files are emptied, and the head is written. Never blocks.
    pub(crate) fn begin(&mut self) {
        self.stage = Stage::Begun;
        self.lock().put_head();
    }

    fn new(
        wanted: &Capturing,
        (place, output): (Place, Option<File>),
        is_emptied: bool,
        seat: Arc<()>,
    ) -> Result<Self, CaptureError> {
        let Capturing { path, size, .. } = wanted;
        if size.is_some() && !place.is_file() {
            return Err(CaptureError::Unlimited(path.clone()));
        }
        if !place.lock(output.as_ref()) {
            return Err(CaptureError::Taken(path.clone()));
        }
        let is_emptied = is_emptied && place.is_file();
        let sink = Sink::new((place, output), size.is_some(), is_emptied, seat);
        let progress = sink.progress();
        let writer = Writer::start(TERMS, sink).map_err(CaptureError::Thread)?;
        let (queue, reader) = (writer.queue().clone(), Arc::clone(&progress));
        queue.stock(CAPTURE_PIECE_LEN);
        let mut recorder = Recorder::new(wanted, queue, reader);
        // A file without a record is a capture, too: programs read its first section.
        recorder.is_read();
        let recorder = Arc::new(Mutex::new(recorder));
        Ok(Self { path: path.clone(), writer, recorder, progress, stage: Stage::Offered })
    }

    /// The path, or the name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The files, or the stream, as far as there are any yet.
    pub(crate) fn files(&self) -> Vec<FileId> {
        self.progress.files()
    }

    /// Whether a tap writes into this capture.
    pub(crate) fn owns(&self, tap: &Tap) -> bool {
        tap.is_of(&self.recorder)
    }

    /// How far the capture is.
    pub(crate) fn count(&self) -> Count {
        let recorder = self.lock();
        let lost = self.progress.lost();
        Count {
            taken: recorder.taken.minus(lost),
            dropped: recorder.dropped.plus(lost),
            bytes: self.progress.bytes(),
            has_reader: recorder.has_reader(),
            failure: self.progress.failure(),
        }
    }

    /// Ends the capture, and returns what there is. *Blocks* until everything is written, for
    /// [`CAPTURE_END_TIMEOUT`] at most.
    pub(crate) fn end(&mut self) -> Count {
        self.finish();
        self.count()
    }

    fn finish(&mut self) {
        match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Begun => {}
            Stage::Offered => return drop(self.writer.end(Vec::new(), Duration::ZERO)),
            Stage::Ended => return,
        }
        let (last, patience) = {
            let recorder = &mut *self.lock();
            // A FIFO without a reader takes nothing, and its thread can't end.
            let patience = if recorder.has_reader() { CAPTURE_END_TIMEOUT } else { Duration::ZERO };
            (recorder.finish(), patience)
        };
        if let Some(unwritten) = self.writer.end(last, patience) {
            self.progress.give_up(&unwritten);
        }
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
        let was_offered = self.stage == Stage::Offered;
        self.finish();
        if was_offered {
            return;
        }
        let Count { taken, dropped, .. } = self.count();
        let (taken, dropped) = (taken.records(), dropped.records());
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
            Self::Kind(path) => write!(
                f,
                "{}: a capture goes into a file or a FIFO, and with a size into two files",
                path.display()
            ),
            Self::Foreign(path) => write!(f, "{}: {FOREIGN}", path.display()),
            Self::Taken(path) => {
                write!(f, "{}: a capture writes there already; give another file", path.display())
            }
            Self::Replayed(path) => write!(
                f,
                "{}: a simulated device plays this recording, and a capture would overwrite it; \
                 give another file",
                path.display()
            ),
            Self::Thread(error) => {
                write!(f, "the system has no thread for the capture: {}", reason(error))
            }
        }
    }
}
