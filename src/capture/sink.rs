//! The file of a capture, or the stream: a FIFO with a live reader, or a terminal's other end.
//!
//! A file with a limit of size has two halves. When the file has half of the size, the file is
//! renamed (`stick.pcapng` to `stick.1.pcapng`, in the place of the last renamed file) and begun
//! anew, so the last half of the size is always there to be read.
//!
//! A FIFO is opened here, on the writer's thread, because opening waits for a reader. When a reader
//! has left, the FIFO is opened again for the next, who begins with a section.
//!
//! Contract: runs on the writer's thread, and *blocks*. An error ends the capture, with a line in
//! the log.

use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::place::{FileId, Place};
use super::recorder::Tally;
use crate::usbmon::block;
use crate::words::reason;
use crate::writer::Target;

/// The end of a capture's way.
pub(super) struct Sink {
    place: Place,
    output: Option<File>,
    /// Bytes in the file.
    written: u64,
    /// Sections are files.
    is_limited: bool,
    /// The file may have older content, which goes before the first piece is written.
    is_emptied: bool,
    /// Pieces are thrown away until the next section: for a reader who has left, or for a file that
    /// can't be written.
    is_skipping: bool,
    progress: Arc<Progress>,
    /// Shared with all sinks of a server: the number of owners is the number of living sinks.
    _seat: Arc<()>,
}

/// What other threads see of a sink.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The number of the reader that takes the capture now, or 1 for a file; 0 when nobody does.
    reader: AtomicU64,
    /// Bytes written, of all files and to all readers.
    bytes: AtomicU64,
    /// Records that were in the queue.
    queued: Mutex<Queued>,
    /// Why the capture has ended early.
    failure: OnceLock<String>,
    /// The files, or the stream.
    files: Mutex<Vec<FileId>>,
}

/// Records that were in the queue.
#[derive(Debug, Default)]
struct Queued {
    /// Did not get into the file.
    lost: Tally,
    /// Of the piece that is being written to a stream, whose reader may take nothing for ever.
    in_hand: Tally,
}

impl Queued {
    fn lose_in_hand(&mut self) {
        self.lost = self.lost.plus(std::mem::take(&mut self.in_hand));
    }
}

impl Progress {
    /// The number of the reader that takes the capture now, or 1 for a file; 0 when nobody does.
    pub(super) fn reader(&self) -> u64 {
        self.reader.load(Ordering::Acquire)
    }

    /// Bytes written, of all files and to all readers.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Why the capture has ended early.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }

    /// The files, or the stream.
    pub(super) fn files(&self) -> Vec<FileId> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_files(&self, files: Vec<FileId>) {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
    }

    /// Records that were in the queue and did not get into the file.
    pub(super) fn lost(&self) -> Tally {
        self.queued().lost
    }

    /// Nobody waits for the writer any more: `pieces` and the piece that is being written do not
    /// get into the file, or only in part.
    pub(super) fn give_up(&self, pieces: &[Vec<u8>]) {
        pieces.iter().for_each(|piece| self.lose(piece));
        self.queued().lose_in_hand();
    }

    fn lose(&self, piece: &[u8]) {
        let mut queued = self.queued();
        queued.lost = queued.lost.plus(Tally::of(piece));
    }

    fn queued(&self) -> MutexGuard<'_, Queued> {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink {
    /// The sink of a place, and the file that is open already.
    pub(super) fn new(
        (place, output): (Place, Option<File>),
        is_limited: bool,
        is_emptied: bool,
        seat: Arc<()>,
    ) -> Self {
        let progress = Arc::new(Progress::default());
        progress.reader.store(u64::from(output.is_some()), Ordering::Release);
        progress.note_files(place.ids(output.as_ref(), is_limited));
        Self {
            place,
            output,
            written: 0,
            is_limited,
            is_emptied,
            is_skipping: false,
            progress,
            _seat: seat,
        }
    }

    pub(super) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Waits for a reader of a stream.
    fn open_stream(&mut self) {
        // A pipe keeps its bytes as long as either end is open, and the next reader is to find none
        // of the bytes that its predecessor has left behind.
        self.output = None;
        let before = self.progress.reader.swap(0, Ordering::AcqRel);
        self.is_skipping = true;
        match self.place.open_stream() {
            Ok(output) => {
                self.output = Some(output);
                log::info!("{}: the capture has a reader", self.place.name().display());
                self.progress.reader.store(before + 1, Ordering::Release);
            }
            Err(error) => self.fail(&error),
        }
    }

    fn write_whole(&mut self, piece: &[u8]) -> io::Result<()> {
        let mut output = self.output.take().ok_or(io::ErrorKind::NotFound)?;
        // A capture that nobody has accepted ends with a piece without bytes.
        if self.is_emptied && !piece.is_empty() {
            self.place.empty(&output)?;
            self.is_emptied = false;
        }
        if self.is_limited && self.written > 0 && block::begins_section(piece) {
            output = self.place.next_file(output)?;
            self.progress.note_files(self.place.ids(Some(&output), true));
            self.written = 0;
        }
        if let Err(error) = output.write_all(piece) {
            // Half a block would be an error of the file to a reader.
            if self.place.is_file() {
                let _ = output.set_len(self.written);
            }
            return Err(error);
        }
        self.output = Some(output);
        self.written += piece.len() as u64;
        self.progress.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Ends the capture.
    fn fail(&mut self, error: &io::Error) {
        self.progress.reader.store(0, Ordering::Release);
        self.is_skipping = true;
        let text = match error.kind() {
            io::ErrorKind::BrokenPipe => "the reader has left".to_owned(),
            _ => reason(error),
        };
        log::error!("{}: the capture ends here: {text}", self.place.name().display());
        let _ = self.progress.failure.set(text);
    }
}

impl Target for Sink {
    fn begin(&mut self) {
        if self.output.is_none() {
            self.open_stream();
        }
    }

    fn write(&mut self, piece: &[u8]) {
        // Behind a failed file no section comes.
        self.is_skipping &= self.output.is_none() || !block::begins_section(piece);
        if self.is_skipping {
            return self.progress.lose(piece);
        }
        let is_stream = !self.place.is_file();
        if is_stream {
            self.progress.queued().in_hand = Tally::of(piece);
        }
        let Err(error) = self.write_whole(piece) else {
            if is_stream {
                self.progress.queued().in_hand = Tally::default();
            }
            return;
        };
        if is_stream {
            self.progress.queued().lose_in_hand();
        } else {
            self.progress.lose(piece);
        }
        if is_stream && error.kind() == io::ErrorKind::BrokenPipe {
            log::info!("{}: the reader of the capture has left", self.place.name().display());
            return self.open_stream();
        }
        self.fail(&error);
    }

    /// Pieces of a capture are counted before the queue.
    fn note_dropped(&mut self, _pieces: u64) {}

    /// Nothing is kept back.
    fn flush(&mut self) {}
}
