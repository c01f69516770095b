//! The log: lines of the `log` crate's macros, on their way to stderr.
//!
//! - `writer`: the thread that writes, with a bounded queue.
//!
//! The room is called `logging` and not `log`, because `log` is the crate in every other file.
//!
//! Contract: a line never waits for the reader of the log; beyond [`LOG_LINES_MAX`] waiting lines,
//! lines are dropped and counted. The end of the log waits, for [`LOG_END_TIMEOUT`] at most.

mod writer;

use std::io::{self, Write};

use anstream::AutoStream;
use env_logger::Target;

use crate::limits::{LOG_END_TIMEOUT, LOG_LINES_MAX};
use crate::words::visible;
use writer::{Queue, Terms, Writer};

const TERMS: Terms = Terms { name: "log", room: LOG_LINES_MAX, dropped: say_dropped };

/// The log of this process. When dropped, the log ends with the lines that still wait.
#[derive(Debug)]
pub struct Log {
    writer: Writer,
    /// The line that ends the log, past every filter.
    last: String,
}

impl Log {
    /// Logs to stderr the lines that pass a filter, in colours where stderr is to have them.
    ///
    /// # Errors
    /// The system has no thread for the log.
    ///
    /// # Panics
    /// When there is a log already.
    pub fn start(filter: &str) -> io::Result<Self> {
        let writer = Writer::start(TERMS, io::stderr())?;
        env_logger::Builder::new()
            .parse_filters(filter)
            .format_target(false)
            .target(Target::Pipe(Box::new(Lines(writer.queue().clone()))))
            // Left to itself, the logger would ask its target, which is no terminal.
            .write_style(AutoStream::choice(&io::stderr()).into())
            .init();
        Ok(Self { writer, last: String::new() })
    }

    /// Ends the log with the reason for the program's end, which no filter holds back. Whatever a
    /// reason repeats of a command line or a file, a terminal gets no control character.
    pub fn end_with(mut self, error: &str) {
        self.last = format!("error: {}\n", visible(error));
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let last = std::mem::take(&mut self.last).into_bytes();
        self.writer.end(last, LOG_END_TIMEOUT);
    }
}

/// The queue as a target of `env_logger`, which writes whole lines.
struct Lines(Queue);

impl Write for Lines {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.put(text.to_vec());
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn say_dropped(lines: u64) -> Vec<u8> {
    format!("{lines} lines of the log were dropped: the reader of the log was too slow\n")
        .into_bytes()
}
