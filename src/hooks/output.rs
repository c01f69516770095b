//! What a program says: its standard output and standard error, for the log.
//!
//! Both are one pipe. A thread reads until the run is over, tells the first lines as they come, and
//! drops the rest, so that a program neither waits for a reader nor meets a closed pipe, however
//! much it writes. Another program that keeps the pipe open (`setsid`) does not keep the thread.
//!
//! Contract: only [`Output::end`] blocks, until the thread has read what the program has written.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::complaints::Complaints;
use crate::limits::{HOOK_LINE_MAX, HOOK_LINES_MAX};
use crate::words::printable;

/// The byte that wakes the reader, once the run is over.
const END: u8 = 0;

/// The output of a program that runs.
pub(super) struct Output {
    writer: PipeWriter,
    is_over: Arc<AtomicBool>,
    reader: JoinHandle<u64>,
}

impl Output {
    /// The output of a program whose lines are told by `tell`, on a thread with the budget for the
    /// log that this thread has.
    ///
    /// # Errors
    /// The system has no pipe or no thread.
    pub(super) fn new(tell: impl FnMut(&str) + Send + 'static) -> io::Result<Self> {
        let (pipe, writer) = io::pipe()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_over);
        let budget = Complaints::of_thread();
        let thread = thread::Builder::new().name("hook-output".to_owned());
        let reader = thread.spawn(move || {
            budget.iter().for_each(Complaints::take_thread);
            read(pipe, &flag, Lines::new(tell))
        })?;
        Ok(Self { writer, is_over, reader })
    }

    /// The end of the pipe for the program.
    ///
    /// # Errors
    /// The system has no descriptor.
    pub(super) fn stdio(&self) -> io::Result<Stdio> {
        self.writer.try_clone().map(Stdio::from)
    }

    /// How many bytes were left out, after the end of the run: all lines are told by then.
    /// *Blocks.*
    pub(super) fn end(mut self) -> u64 {
        self.is_over.store(true, Ordering::Release);
        // Without a reader any more, there is nobody to wake.
        let _ = self.writer.write_all(&[END]);
        self.reader.join().unwrap_or_default()
    }
}

/// Reads until the run is over, and all that was written before. Returns the number of bytes that
/// were left out.
fn read(mut pipe: PipeReader, is_over: &AtomicBool, mut lines: Lines<impl FnMut(&str)>) -> u64 {
    let mut buffer = [0; 4096];
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
    lines.left_out
}

/// The first lines of a program, told one by one: without characters that no reader can see, and
/// without empty lines.
struct Lines<F> {
    tell: F,
    /// Lines told.
    told: usize,
    /// Bytes that are in no line.
    left_out: u64,
    /// The line that has not ended.
    line: Vec<u8>,
}

impl<F: FnMut(&str)> Lines<F> {
    const fn new(tell: F) -> Self {
        Self { tell, told: 0, left_out: 0, line: Vec::new() }
    }

    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.finish(),
                _ if self.told == HOOK_LINES_MAX || self.line.len() == HOOK_LINE_MAX => {
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
            self.told += 1;
            (self.tell)(&printable(&text));
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    /// The lines of a text, and the number of bytes that are in no line.
    fn lines_of(pieces: &[&[u8]]) -> (Vec<String>, u64) {
        let mut told = Vec::new();
        let mut lines = Lines::new(|line: &str| told.push(line.to_owned()));
        pieces.iter().for_each(|piece| lines.take(piece));
        lines.finish();
        let left_out = lines.left_out;
        (told, left_out)
    }

    #[test]
    fn lines_are_whole_and_printable() {
        let (lines, left_out) = lines_of(&[b"mou", b"nted\r\n\n", b"\x1b[31mred\xff\tend"]);
        assert_eq!(lines, ["mounted", "\\u{1b}[31mred\u{fffd} end"]);
        assert_eq!(left_out, 0);
    }

    #[test]
    fn the_rest_is_counted() {
        let (lines, left_out) = lines_of(&[&[b'x'; HOOK_LINE_MAX + 3], b"\n"]);
        assert_eq!((lines[0].len(), left_out), (HOOK_LINE_MAX, 3));
        let (lines, left_out) = lines_of(&[b"x\n".repeat(HOOK_LINES_MAX + 5).as_slice()]);
        assert_eq!((lines.len(), left_out), (HOOK_LINES_MAX, 5));
    }

    /// A program that says why it waits is heard while it waits.
    #[test]
    fn a_line_is_told_before_the_end_of_the_program() {
        let (sender, told) = channel();
        let output = Output::new(move |line: &str| drop(sender.send(line.to_owned()))).unwrap();
        let mut program = output.writer.try_clone().unwrap();
        for line in ["waiting", "still waiting"] {
            program.write_all(format!("{line}\n").as_bytes()).unwrap();
            assert_eq!(told.recv_timeout(Duration::from_secs(60)).as_deref(), Ok(line));
        }
        program.write_all(b"the end").unwrap();
        assert_eq!(output.end(), 0);
        assert_eq!(told.try_recv().as_deref(), Ok("the end"));
    }

    #[test]
    fn an_open_pipe_does_not_keep_the_reader() {
        let (sender, told) = channel();
        let output = Output::new(move |line: &str| drop(sender.send(line.to_owned()))).unwrap();
        let mut other = output.writer.try_clone().unwrap();
        other.write_all(b"a\nb").unwrap();
        assert_eq!(output.end(), 0);
        assert_eq!(told.iter().collect::<Vec<_>>(), ["a", "b"]);
        assert!(other.write_all(b"c").is_err(), "nobody reads");
    }
}
