//! The log: what is said with `log`'s macros, on its way to stderr.
//!
//! Whoever writes to a terminal that is stopped with Ctrl-S, or to a pipe whose reader stalls,
//! waits. So a thread of its own writes, and [`LOG_LINES_MAX`] lines can wait for it. What comes
//! beyond that is dropped and counted, and the log says where how many lines are missing.
//!
//! Contract: saying something never waits for whoever reads the log. The end of the log does, for
//! [`LOG_END_TIMEOUT`] at most.

use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use anstream::AutoStream;
use env_logger::Target;

use crate::limits::{LOG_END_TIMEOUT, LOG_LINES_MAX};

/// The log of this process. It ends when this is dropped, with what still waits to be written.
#[derive(Debug)]
pub struct Log {
    entry: Entry,
    /// Has nothing to say, but ends when everything is written.
    written: Receiver<()>,
}

/// Where lines come in.
#[derive(Clone, Debug)]
struct Entry(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// None when the log has ended.
    lines: Option<SyncSender<Line>>,
    /// Lines that were dropped since the last one that was not.
    dropped: u64,
    /// What is written when the log ends.
    last: String,
}

/// What is to be written.
#[derive(Debug)]
struct Line {
    /// Lines that are missing before it.
    dropped: u64,
    text: Vec<u8>,
}

impl Log {
    /// Logs to stderr what a filter lets through, in the colours that stderr is to have.
    ///
    /// # Errors
    /// The system has no thread for it.
    ///
    /// # Panics
    /// When there is a log already.
    pub fn start(filter: &str) -> io::Result<Self> {
        let log = Self::to(io::stderr())?;
        env_logger::Builder::new()
            .parse_filters(filter)
            .format_target(false)
            .target(Target::Pipe(Box::new(log.entry.clone())))
            // It would ask its target, which is not the terminal.
            .write_style(AutoStream::choice(&io::stderr()).into())
            .init();
        Ok(log)
    }

    /// Ends the log with why the program ends, which no filter holds back.
    pub fn end_with(self, error: &str) {
        self.entry.lock().last = format!("error: {error}\n");
    }

    fn to(target: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(LOG_LINES_MAX);
        let (ended, written) = channel::<()>();
        let state = State { lines: Some(sender), dropped: 0, last: String::new() };
        let entry = Entry(Arc::new(Mutex::new(state)));
        let of_writer = entry.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            of_writer.write_lines(&receiver, BufWriter::new(target));
            drop(ended);
        })?;
        Ok(Self { entry, written })
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.entry.lock().lines = None;
        // Either all is written, or nobody reads.
        let _ = self.written.recv_timeout(LOG_END_TIMEOUT);
    }
}

impl Entry {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it is locked")
    }

    /// Writes lines until the log ends, and the last one. What can't be written is lost: there is
    /// nobody to be told.
    fn write_lines(&self, lines: &Receiver<Line>, mut target: BufWriter<impl Write>) {
        loop {
            let line = lines.try_recv().or_else(|_| {
                // All that came before those that were dropped last is written.
                let dropped = std::mem::take(&mut self.lock().dropped);
                say_dropped(&mut target, dropped);
                let _ = target.flush();
                lines.recv()
            });
            let Ok(line) = line else { break };
            say_dropped(&mut target, line.dropped);
            let _ = target.write_all(&line.text);
        }
        let _ = target.write_all(self.lock().last.as_bytes());
        let _ = target.flush();
    }
}

/// Takes whole lines, as `env_logger` writes them.
impl Write for Entry {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let State { lines, dropped, .. } = &mut *self.lock();
        if let Some(lines) = lines {
            match lines.try_send(Line { dropped: *dropped, text: text.to_vec() }) {
                Ok(()) => *dropped = 0,
                Err(TrySendError::Full(_)) => *dropped += 1,
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn say_dropped(target: &mut impl Write, dropped: u64) {
    if dropped > 0 {
        let reason = "whoever reads them was too slow";
        let _ = writeln!(target, "{dropped} lines of the log were dropped: {reason}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever writes here says so, and waits until somebody reads.
    struct Stalling {
        begun: SyncSender<()>,
        piece: SyncSender<Vec<u8>>,
    }

    impl Write for Stalling {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            // A test that looks no more for when it begins still reads.
            let _ = self.begun.try_send(());
            self.piece.send(text.to_vec()).map_err(io::Error::other)?;
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A log and its reader.
    struct Pair {
        log: Log,
        begun: Receiver<()>,
        pieces: Receiver<Vec<u8>>,
    }

    impl Pair {
        fn new() -> Self {
            let ((begun_sender, begun), (piece, pieces)) = (sync_channel(1), sync_channel(0));
            let target = Stalling { begun: begun_sender, piece };
            Self { log: Log::to(target).expect("there are threads"), begun, pieces }
        }

        fn say(&self, line: &str) {
            let text = format!("{line}\n");
            self.log.entry.clone().write_all(text.as_bytes()).expect("it never fails");
        }

        /// Waits until the writer is about to write a piece, and stalls.
        fn wait_stalled(&self) {
            self.begun.recv().expect("it writes");
        }

        /// Says as many lines as can wait, and three more. Returns what is to be read of it.
        fn overflow(&self) -> Vec<String> {
            self.say("first");
            self.wait_stalled();
            let mut said: Vec<String> = (0..LOG_LINES_MAX + 3).map(|n| n.to_string()).collect();
            for line in &said {
                self.say(line);
            }
            said.truncate(LOG_LINES_MAX);
            said.insert(0, "first".to_owned());
            said.push(
                "3 lines of the log were dropped: whoever reads them was too slow".to_owned(),
            );
            said
        }

        /// All that is written until the log has ended, behind what was read already.
        fn end(self, mut text: Vec<u8>) -> Vec<String> {
            let log = self.log;
            let ending = thread::spawn(move || drop(log));
            text.extend(self.pieces.iter().flatten());
            ending.join().expect("no panic");
            String::from_utf8(text).expect("it was text").lines().map(str::to_owned).collect()
        }
    }

    #[test]
    fn what_waits_when_the_log_ends_is_written() {
        let pair = Pair::new();
        let said: Vec<String> = (0..100).map(|number| format!("line {number}")).collect();
        for line in &said {
            pair.say(line);
        }
        assert_eq!(pair.end(Vec::new()), said);
    }

    #[test]
    fn lines_that_are_missing_are_counted_where_they_are() {
        let pair = Pair::new();
        let mut said = pair.overflow();
        let text = pair.pieces.recv().expect("it writes");
        // It has taken what makes room for another line.
        pair.wait_stalled();
        pair.say("late");
        said.push("late".to_owned());
        assert_eq!(pair.end(text), said);
    }

    #[test]
    fn lines_that_are_missing_last_are_counted_without_another() {
        let pair = Pair::new();
        let mut said = pair.overflow();
        let mut text = Vec::new();
        while !text.ends_with(b" too slow\n") {
            text.extend(pair.pieces.recv().expect("it says so"));
        }
        pair.say("next");
        said.push("next".to_owned());
        assert_eq!(pair.end(text), said);
    }
}
