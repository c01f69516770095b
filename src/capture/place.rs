//! Where a capture goes: a path, which the server opens, or files that an operator has opened and
//! passed to the server.
//!
//! With passed files the server opens nothing for an operator, and so an operator gets at no file
//! without a right to the file.
//!
//! A file is locked (flock(2)) for as long as a capture writes there: the captures of two servers
//! in one file would be no capture.
//!
//! Contract: runs on the writer's thread, but for [`Place::of`], [`Place::passed`] and
//! [`Place::lock`], and *blocks*.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::CaptureError;
use crate::usbmon::block;

/// Who may read a capture: what was typed on a keyboard is in there.
pub const FILE_MODE: u32 = 0o600;

/// A file or a stream, under any name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileId {
    device: u64,
    number: u64,
}

impl FileId {
    /// The file that has the metadata.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), number: metadata.ino() }
    }
}

/// Where a capture goes.
pub(super) enum Place {
    /// A file with this path.
    File(PathBuf),
    /// A FIFO, or another stream, with this path.
    Stream(PathBuf),
    /// A file of this name; with a size the file for the next section.
    PassedFile(PathBuf, Option<File>),
    /// A stream of this name.
    PassedStream(PathBuf),
}

impl Place {
    /// A path, and the file that is open from the beginning. A stream is opened later.
    ///
    /// # Errors
    /// The file can't be made, or has something else than a capture, or the path is that of something
    /// else than files and streams.
    pub(super) fn of(path: &Path) -> Result<(Self, Option<File>), CaptureError> {
        let kind = fs::metadata(path).map(|metadata| metadata.file_type());
        let path = path.to_owned();
        match kind {
            Ok(kind) if kind.is_fifo() || kind.is_char_device() => Ok((Self::Stream(path), None)),
            Ok(kind) if !kind.is_file() => Err(CaptureError::Kind(path)),
            Ok(_) if is_foreign(&path) => Err(CaptureError::Foreign(path)),
            _ => match to_write().truncate(false).open(&path) {
                Ok(file) => Ok((Self::File(path), Some(file))),
                Err(error) => Err(CaptureError::Create(path, error)),
            },
        }
    }

    /// Passed files: a file, a file and its other half, or a stream. `None` for anything else.
    pub(super) fn passed(name: PathBuf, files: Vec<File>) -> Option<(Self, Option<File>)> {
        let found: io::Result<Vec<Metadata>> = files.iter().map(File::metadata).collect();
        let found = found.ok()?;
        if let [one, other] = &found[..]
            && FileId::of(one) == FileId::of(other)
        {
            return None;
        }
        let kinds: Vec<_> = found.iter().map(Metadata::file_type).collect();
        let mut files = files.into_iter();
        let first = files.next()?;
        match &kinds[..] {
            [kind] if kind.is_fifo() || kind.is_socket() => {
                Some((Self::PassedStream(name), Some(first)))
            }
            [_] | [_, _] if kinds.iter().all(fs::FileType::is_file) => {
                Some((Self::PassedFile(name, files.next()), Some(first)))
            }
            _ => None,
        }
    }

    /// Locks the open file, and the file for the next section, for as long as both are open. False
    /// if another capture has one of them.
    pub(super) fn lock(&self, current: Option<&File>) -> bool {
        let other = if let Self::PassedFile(_, other) = self { other.as_ref() } else { None };
        current.into_iter().chain(other).all(lock)
    }

    /// The name in messages.
    pub(super) fn name(&self) -> &Path {
        match self {
            Self::File(name) | Self::Stream(name) => name,
            Self::PassedFile(name, _) | Self::PassedStream(name) => name,
        }
    }

    /// The open file, the file for the next section, and a stream that is opened later.
    pub(super) fn ids(&self, current: Option<&File>, is_limited: bool) -> Vec<FileId> {
        let other = match self {
            Self::File(path) if is_limited => Some(fs::metadata(other_half(path))),
            Self::Stream(path) => Some(fs::metadata(path)),
            Self::PassedFile(_, Some(other)) => Some(other.metadata()),
            _ => None,
        };
        let found = current.map(File::metadata).into_iter().chain(other);
        found.flatten().map(|metadata| FileId::of(&metadata)).collect()
    }

    /// Whether sections can be files.
    pub(super) const fn is_file(&self) -> bool {
        matches!(self, Self::File(_) | Self::PassedFile(..))
    }

    /// Waits for a reader of a stream.
    ///
    /// # Errors
    /// The system's. A passed stream is not opened again.
    pub(super) fn open_stream(&self) -> io::Result<File> {
        match self {
            Self::Stream(path) => OpenOptions::new().write(true).open(path),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Empties the file of the first section, and the file for the next.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn empty(&self, current: &File) -> io::Result<()> {
        current.set_len(0)?;
        match self {
            Self::PassedFile(_, Some(other)) => other.set_len(0),
            _ => Ok(()),
        }
    }

    /// The empty file for the next section; `current` becomes the older half. Passed files take
    /// turns, since the server can't rename them.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn next_file(&mut self, current: File) -> io::Result<File> {
        match self {
            Self::PassedFile(_, Some(other)) => {
                let mut next = std::mem::replace(other, current);
                next.set_len(0)?;
                next.rewind()?;
                Ok(next)
            }
            Self::File(path) => {
                fs::rename(&*path, other_half(path))?;
                let next = to_write().truncate(true).open(path)?;
                lock(&next);
                Ok(next)
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// Whether a file has something else than a capture, as far as the file may be read. A capture is
/// made anew: a mistyped name would cost a file that nobody meant.
pub fn is_foreign(path: &Path) -> bool {
    let mut first = [0; 4];
    match File::open(path).and_then(|mut file| file.read(&mut first)) {
        Ok(len) => len > 0 && !block::begins_section(&first[..len]),
        Err(_) => false,
    }
}

/// Locks a file until the file is closed. False if another capture has the file, as far as the file
/// system knows locks.
fn lock(file: &File) -> bool {
    !matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

/// How a file is opened.
fn to_write() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(FILE_MODE);
    options
}

/// The name of the other half of a capture.
pub fn other_half(path: &Path) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(".1");
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}
