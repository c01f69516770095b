//! The log: lines of the `log` crate's macros, on their way to stderr or to the system's log.
//!
//! - `format`: the form of a line, as text or as JSON;
//! - `syslog`: the system's log, for a server in the background.
//!
//! The room is called `logging` and not `log`, because `log` is the crate in every other file. The
//! form of a line is made here and not by a crate such as `env_logger`: the last line and the
//! number of dropped lines, which are no records, have the same form, and a line about a session
//! gets the client and the device.
//!
//! Contract: a line never waits for the reader of the log; beyond [`LOG_LINES_MAX`] waiting lines,
//! or [`LOG_BYTES_MAX`] bytes, lines are dropped and counted. The end of the log waits, for
//! [`LOG_END_TIMEOUT`] at most.

mod format;
mod syslog;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use anstream::{AutoStream, ColorChoice};
use env_filter::Filter;
use log::{Level, Metadata, Record};

use crate::limits::{LOG_BYTES_MAX, LOG_END_TIMEOUT, LOG_LINES_MAX};
use crate::words::visible;
use crate::writer::{Queue, Terms, Text, Writer};
pub use format::Shape;
use format::{Format, Reader};
use syslog::Syslog;

const TERMS: Terms = Terms { name: "log", pieces: LOG_LINES_MAX, bytes: LOG_BYTES_MAX, spares: 0 };

/// Where the log goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// To stderr.
    Stderr,
    /// To the system's log, for a process without a stderr.
    Syslog,
}

/// The log of this process. When dropped, the log ends with the lines that still wait.
#[derive(Debug)]
pub struct Log {
    writer: Writer,
    format: Format,
    /// The line that ends the log, past every filter.
    last: Vec<u8>,
}

impl Log {
    /// Logs the lines that pass a filter; to stderr in colours, where stderr is to have them.
    ///
    /// # Errors
    /// The system has no thread for the log.
    ///
    /// # Panics
    /// When there is a log already.
    pub fn start(filter: &str, shape: Shape, target: Target) -> io::Result<Self> {
        let reader = if target == Target::Syslog { Reader::Syslog } else { reader_of_stderr() };
        let format = Format { shape, reader };
        let dropped = move |lines| {
            format.plain(
                Level::Warn,
                &format!("{lines} lines of the log were dropped: its reader was too slow"),
            )
        };
        let writer = match target {
            Target::Stderr => Writer::start(TERMS, Text::new(io::stderr(), dropped))?,
            Target::Syslog => Writer::start(TERMS, Text::new(Syslog::default(), dropped))?,
        };
        let filter = env_filter::Builder::new().parse(filter).build();
        log::set_max_level(filter.filter());
        let lines = Lines { filter, format, queue: writer.queue().clone() };
        log::set_boxed_logger(Box::new(lines)).expect("there is no log yet");
        Ok(Self { writer, format, last: Vec::new() })
    }

    /// Ends the log with the reason for the program's end, which no filter holds back. Whatever a
    /// reason repeats of a command line or a file, a terminal gets no control character.
    pub fn end_with(mut self, error: &str) {
        self.last = self.format.last(&visible(error));
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let last = std::mem::take(&mut self.last);
        self.writer.end(last, LOG_END_TIMEOUT);
    }
}

/// Lines on their way to the queue.
struct Lines {
    filter: Filter,
    format: Format,
    queue: Queue,
}

impl log::Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.filter.matches(record) {
            self.queue.put(self.format.record(record));
        }
    }

    fn flush(&self) {}
}

/// Who reads stderr.
fn reader_of_stderr() -> Reader {
    let variable = std::env::var("JOURNAL_STREAM").ok();
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let number = stderr.and_then(|file| file.metadata()).map(|found| (found.dev(), found.ino()));
    if is_journal(variable.as_deref(), number.ok()) {
        return Reader::Journal;
    }
    match AutoStream::choice(&io::stderr()) {
        ColorChoice::Never => Reader::Plain,
        _ => Reader::Coloured,
    }
}

/// Whether stderr, with these numbers of device and inode, is the connection to the journal that
/// systemd has named in `JOURNAL_STREAM` (systemd.exec(5)): a redirected stderr is another.
fn is_journal(variable: Option<&str>, stderr: Option<(u64, u64)>) -> bool {
    let named = variable.and_then(|text| text.split_once(':'));
    let named = named.and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    named.is_some() && named == stderr
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_known_by_the_numbers_of_stderr() {
        assert!(is_journal(Some("8:1234"), Some((8, 1234))));
        for other in [None, Some("8:1235"), Some("9:1234"), Some("8"), Some(""), Some("8:x")] {
            assert!(!is_journal(other, Some((8, 1234))), "{other:?}");
        }
        assert!(!is_journal(Some("8:1234"), None));
    }
}
