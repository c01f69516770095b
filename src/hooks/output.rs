//! What a program says: its standard output and standard error, for the log.
//!
//! Both are one pipe. A thread reads until the run is over, keeps the first lines, and drops the
//! rest, so that a program neither waits for a reader nor meets a closed pipe, however much it
//! writes. Another program that keeps the pipe open (`setsid`) does not keep the thread.
//!
//! Contract: only [`Output::end`] blocks, until the thread has read what the program has written.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::limits::{HOOK_LINE_MAX, HOOK_LINES_MAX};
use crate::words::printable;

/// The byte that wakes the reader, once the run is over.
const END: u8 = 0;

/// The output of a program that runs.
pub(super) struct Output {
    writer: PipeWriter,
    is_over: Arc<AtomicBool>,
    reader: JoinHandle<Lines>,
}

impl Output {
    /// # Errors
    /// The system has no pipe or no thread.
    pub(super) fn new() -> io::Result<Self> {
        let (pipe, writer) = io::pipe()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_over);
        let thread = thread::Builder::new().name("hook-output".to_owned());
        let reader = thread.spawn(move || read(pipe, &flag))?;
        Ok(Self { writer, is_over, reader })
    }

    /// The end of the pipe for the program.
    ///
    /// # Errors
    /// The system has no descriptor.
    pub(super) fn stdio(&self) -> io::Result<Stdio> {
        self.writer.try_clone().map(Stdio::from)
    }

    /// The lines, after the end of the run. *Blocks.*
    pub(super) fn end(mut self) -> Lines {
        self.is_over.store(true, Ordering::Release);
        // Without a reader any more, there is nobody to wake.
        let _ = self.writer.write_all(&[END]);
        self.reader.join().unwrap_or_default()
    }
}

/// Reads until the run is over, and all that was written before.
fn read(mut pipe: PipeReader, is_over: &AtomicBool) -> Lines {
    let (mut lines, mut buffer) = (Lines::default(), [0; 4096]);
    while let Ok(len @ 1..) = pipe.read(&mut buffer) {
        let bytes = &buffer[..len];
        let end = bytes.iter().position(|byte| *byte == END);
        if let Some(at) = end.filter(|_| is_over.load(Ordering::Acquire)) {
            lines.take(&bytes[..at]);
            break;
        }
        lines.take(bytes);
    }
    lines.finish();
    lines
}

/// The first lines of a program, and how many bytes more there were.
#[derive(Default, PartialEq, Eq, Debug)]
pub(super) struct Lines {
    /// Without characters that no reader can see, and without empty lines.
    pub(super) lines: Vec<String>,
    /// Bytes that are not in the lines.
    pub(super) left_out: u64,
    /// The line that has not ended.
    line: Vec<u8>,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.finish(),
                _ if self.lines.len() == HOOK_LINES_MAX || self.line.len() == HOOK_LINE_MAX => {
                    self.left_out += 1;
                }
                _ => self.line.push(*byte),
            }
        }
    }

    /// Ends a line.
    fn finish(&mut self) {
        let text = String::from_utf8_lossy(&self.line).trim_end().replace('\t', " ");
        if !text.is_empty() {
            self.lines.push(printable(&text));
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(pieces: &[&[u8]]) -> Lines {
        let mut lines = Lines::default();
        pieces.iter().for_each(|piece| lines.take(piece));
        lines.finish();
        lines
    }

    #[test]
    fn lines_are_whole_and_printable() {
        let lines = lines_of(&[b"mou", b"nted\r\n\n", b"\x1b[31mred\xff\tend"]);
        assert_eq!(lines.lines, ["mounted", "\\u{1b}[31mred\u{fffd} end"]);
        assert_eq!(lines.left_out, 0);
    }

    #[test]
    fn the_rest_is_counted() {
        let lines = lines_of(&[&[b'x'; HOOK_LINE_MAX + 3], b"\n"]);
        assert_eq!((lines.lines[0].len(), lines.left_out), (HOOK_LINE_MAX, 3));
        let lines = lines_of(&[b"x\n".repeat(HOOK_LINES_MAX + 5).as_slice()]);
        assert_eq!((lines.lines.len(), lines.left_out), (HOOK_LINES_MAX, 5));
    }

    #[test]
    fn an_open_pipe_does_not_keep_the_reader() {
        let output = Output::new().unwrap();
        let mut other = output.writer.try_clone().unwrap();
        other.write_all(b"a\nb").unwrap();
        assert_eq!(output.end().lines, ["a", "b"]);
        assert!(other.write_all(b"c").is_err(), "nobody reads");
    }
}
