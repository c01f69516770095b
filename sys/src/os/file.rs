//! Files named by a user, who may have named something else.
//!
//! Contract: an open waits for nobody, but for the disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a file to be read; `None` for anything but an ordinary file, such as a directory, a device
/// or a FIFO. A FIFO would otherwise hold the caller until somebody writes (`open(2)`,
/// `O_NONBLOCK`), and a terminal could become the terminal of this process (`O_NOCTTY`).
///
/// # Errors
/// The system's, for a file that can't be opened.
pub fn open_ordinary(path: &Path) -> io::Result<Option<File>> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => Ok(file.metadata()?.is_file().then_some(file)),
        // A socket, or a device without a driver, can't be opened at all.
        Err(_) if path.metadata().is_ok_and(|found| !found.is_file()) => Ok(None),
        Err(error) => Err(error),
    }
}
