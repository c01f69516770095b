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

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::usbmon::block;
use crate::words::reason;
use crate::writer::Target;

/// Who may read a capture: what was typed on a keyboard is in there.
const MODE: u32 = 0o600;

/// The end of a capture's way.
pub(super) struct Sink {
    path: PathBuf,
    kind: Kind,
    output: Option<File>,
    /// Bytes in the file.
    written: u64,
    /// Sections are files.
    is_limited: bool,
    /// Pieces are thrown away until the next section: for a reader who has left, or for a file that
    /// can't be written.
    is_skipping: bool,
    /// See [`Progress`].
    progress: Progress,
}

/// What the reactor sees of a sink.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// The number of the reader that takes the capture now, or 1 for a file; 0 when nobody does.
    pub(super) reader: Arc<AtomicU64>,
    /// Records that were in the queue and did not get into the file.
    pub(super) lost: Arc<AtomicU64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Stream,
}

impl Sink {
    /// Opens a file; a stream is opened later, by the writer.
    ///
    /// # Errors
    /// The system's, for the file.
    pub(super) fn open(path: &Path, is_limited: bool) -> io::Result<Self> {
        let is_file = fs::metadata(path).map_or(true, |metadata| metadata.is_file());
        let kind = if is_file { Kind::File } else { Kind::Stream };
        let progress = Progress::default();
        let output = match kind {
            Kind::File => Some(create(path)?),
            Kind::Stream => None,
        };
        progress.reader.store(u64::from(output.is_some()), Ordering::Release);
        let path = path.to_owned();
        Ok(Self { path, kind, output, written: 0, is_limited, is_skipping: false, progress })
    }

    /// Whether sections can be files: whether the output is a file.
    pub(super) fn is_file(&self) -> bool {
        self.kind == Kind::File
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Waits for a reader of a stream.
    fn open_stream(&mut self) {
        // A pipe keeps its bytes as long as either end is open, and the next reader is to find none
        // of the bytes that its predecessor has left behind.
        self.output = None;
        let before = self.progress.reader.swap(0, Ordering::AcqRel);
        self.is_skipping = true;
        match OpenOptions::new().write(true).open(&self.path) {
            Ok(output) => {
                self.output = Some(output);
                log::info!("{}: the capture has a reader", self.path.display());
                self.progress.reader.store(before + 1, Ordering::Release);
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Makes room for a section in a file of its own.
    fn begin_file(&mut self) -> io::Result<()> {
        fs::rename(&self.path, older(&self.path))?;
        self.output = Some(create(&self.path)?);
        self.written = 0;
        Ok(())
    }

    fn write_whole(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.is_limited && self.written > 0 && block::begins_section(piece) {
            self.begin_file()?;
        }
        let Some(output) = &mut self.output else { return Err(io::ErrorKind::NotFound.into()) };
        output.write_all(piece)?;
        self.written += piece.len() as u64;
        Ok(())
    }

    /// Ends the capture.
    fn fail(&mut self, error: &io::Error) {
        self.progress.reader.store(0, Ordering::Release);
        self.is_skipping = true;
        // Half a block would be an error of the file to a reader.
        if let (Kind::File, Some(output)) = (self.kind, self.output.take()) {
            let _ = output.set_len(self.written);
        }
        log::error!("{}: the capture ends here: {}", self.path.display(), reason(error));
    }
}

impl Target for Sink {
    fn begin(&mut self) {
        if self.kind == Kind::Stream {
            self.open_stream();
        }
    }

    fn write(&mut self, piece: &[u8]) {
        // Behind a failed file no section comes.
        self.is_skipping &= self.output.is_none() || !block::begins_section(piece);
        if self.is_skipping {
            self.progress.lost.fetch_add(block::count_records(piece), Ordering::Relaxed);
            return;
        }
        let Err(error) = self.write_whole(piece) else { return };
        self.progress.lost.fetch_add(block::count_records(piece), Ordering::Relaxed);
        if self.kind == Kind::Stream && error.kind() == io::ErrorKind::BrokenPipe {
            log::info!("{}: the reader of the capture has left", self.path.display());
            return self.open_stream();
        }
        self.fail(&error);
    }

    /// Pieces of a capture are counted before the queue.
    fn note_dropped(&mut self, _pieces: u64) {}

    /// Nothing is kept back.
    fn flush(&mut self) {}
}

/// An empty file.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(path)
}

/// The name of the older half of a capture.
pub(super) fn older(path: &Path) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(".1");
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}
