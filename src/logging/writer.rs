//! A thread that writes pieces of bytes to a target, lest other threads wait for the target.
//!
//! A write to a terminal stopped with Ctrl-S, to a pipe whose reader stalls, or to a busy disk can
//! take forever. Therefore threads put their pieces into a queue of bounded length, and one thread
//! writes. A piece that finds the queue full is dropped and counted, and the number of dropped
//! pieces is written in their place.
//!
//! The target is flushed whenever the queue is empty, so a reader is never behind for long, and a
//! busy writer makes few calls.
//!
//! Contract: [`Queue::put`] never waits for the target; a lock is held for as long as it takes to
//! count and to move one piece. [`Writer::end`] waits for a stated time at most. A write that fails
//! is forgotten: nobody is left to be told.

use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Makes the piece to write in the place of dropped pieces, from their number.
pub(super) type Dropped = Box<dyn Fn(u64) -> Vec<u8> + Send>;

/// The name and the limits of a writer.
pub(super) struct Terms {
    /// The name of the thread.
    pub(super) name: &'static str,
    /// Pieces that can wait to be written.
    pub(super) room: usize,
    pub(super) dropped: Dropped,
}

/// A thread that writes.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Queue,
    /// Never has a message; the other end goes when everything is written.
    written: Receiver<()>,
}

/// Where pieces come in. Clones are the same queue.
#[derive(Clone, Debug)]
pub(super) struct Queue(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// `None` when the writer is ending.
    pieces: Option<SyncSender<Piece>>,
    /// Pieces dropped since the last piece that found room.
    dropped: u64,
    /// The last piece, for which there is always room.
    last: Vec<u8>,
}

#[derive(Debug)]
struct Piece {
    /// Pieces that are missing before this piece.
    dropped: u64,
    bytes: Vec<u8>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread.
    pub(super) fn start(terms: Terms, target: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(terms.room);
        let (ended, written) = channel::<()>();
        let state = State { pieces: Some(sender), dropped: 0, last: Vec::new() };
        let queue = Queue(Arc::new(Mutex::new(state)));
        let of_thread = queue.clone();
        thread::Builder::new().name(terms.name.to_owned()).spawn(move || {
            let target = Target { writer: BufWriter::new(target), dropped: terms.dropped };
            of_thread.write_all(&receiver, target);
            drop(ended);
        })?;
        Ok(Self { queue, written })
    }

    /// The queue of this writer.
    pub(super) const fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Ends the writer: the waiting pieces are written, then `last`, within `patience` at most.
    /// *Blocks.*
    pub(super) fn end(&mut self, last: Vec<u8>, patience: Duration) {
        let mut state = self.queue.lock();
        (state.pieces, state.last) = (None, last);
        drop(state);
        // Either all is written, or nobody reads.
        let _ = self.written.recv_timeout(patience);
    }
}

impl Queue {
    /// Adds a piece to the queue, or drops and counts the piece.
    pub(super) fn put(&self, bytes: Vec<u8>) {
        let State { pieces, dropped, .. } = &mut *self.lock();
        let Some(pieces) = pieces else { return };
        match pieces.try_send(Piece { dropped: *dropped, bytes }) {
            Ok(()) => *dropped = 0,
            Err(TrySendError::Full(_)) => *dropped += 1,
            Err(TrySendError::Disconnected(_)) => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes pieces until the writer ends, and then the last piece.
    fn write_all(&self, pieces: &Receiver<Piece>, mut target: Target<impl Write>) {
        loop {
            let piece = pieces.try_recv().or_else(|_| {
                // Every piece put before the dropped pieces is written.
                let dropped = std::mem::take(&mut self.lock().dropped);
                target.note_dropped(dropped);
                target.flush();
                pieces.recv()
            });
            let Ok(piece) = piece else { break };
            target.note_dropped(piece.dropped);
            target.write(&piece.bytes);
        }
        // Taken out first: nobody waits for the lock while the target stalls.
        let last = std::mem::take(&mut self.lock().last);
        target.write(&last);
        target.flush();
    }
}

struct Target<W: Write> {
    writer: BufWriter<W>,
    dropped: Dropped,
}

impl<W: Write> Target<W> {
    fn note_dropped(&mut self, dropped: u64) {
        if dropped > 0 {
            self.write(&(self.dropped)(dropped));
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let _ = self.writer.write_all(bytes);
    }

    fn flush(&mut self) {
        let _ = self.writer.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = 20;

    fn say_dropped(dropped: u64) -> Vec<u8> {
        format!("{dropped} dropped\n").into_bytes()
    }

    /// A target that tells of each write, and waits until somebody reads.
    struct Stalling {
        begun: SyncSender<()>,
        piece: SyncSender<Vec<u8>>,
    }

    impl Write for Stalling {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            // A test that no longer looks for the begin of a write still reads.
            let _ = self.begun.try_send(());
            self.piece.send(text.to_vec()).map_err(io::Error::other)?;
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A writer and the reader of its target.
    struct Pair {
        writer: Writer,
        begun: Receiver<()>,
        pieces: Receiver<Vec<u8>>,
    }

    impl Pair {
        fn new() -> Self {
            let ((begun_sender, begun), (piece, pieces)) = (sync_channel(1), sync_channel(0));
            let target = Stalling { begun: begun_sender, piece };
            let terms = Terms { name: "test", room: ROOM, dropped: Box::new(say_dropped) };
            let writer = Writer::start(terms, target).expect("there are threads");
            Self { writer, begun, pieces }
        }

        fn put(&self, line: &str) {
            self.writer.queue().put(format!("{line}\n").into_bytes());
        }

        /// Waits until the writer is about to write a piece, and stalls.
        fn wait_stalled(&self) {
            self.begun.recv().expect("the writer writes");
        }

        /// Puts three lines more than can wait. Returns the lines to be read.
        fn overflow(&self) -> Vec<String> {
            self.put("first");
            self.wait_stalled();
            let mut put: Vec<String> = (0..ROOM + 3).map(|n| n.to_string()).collect();
            for line in &put {
                self.put(line);
            }
            put.truncate(ROOM);
            put.insert(0, "first".to_owned());
            put.push("3 dropped".to_owned());
            put
        }

        /// Every line until the writer has ended, behind the text that was read already.
        fn end(self, mut text: Vec<u8>) -> Vec<String> {
            const PATIENCE: Duration = Duration::from_secs(60);
            let mut writer = self.writer;
            let ending = thread::spawn(move || writer.end(b"last\n".to_vec(), PATIENCE));
            text.extend(self.pieces.iter().flatten());
            ending.join().expect("no panic");
            String::from_utf8(text).expect("text was put").lines().map(str::to_owned).collect()
        }
    }

    #[test]
    fn lines_that_wait_at_the_end_are_written() {
        let pair = Pair::new();
        let mut put: Vec<String> = (0..ROOM).map(|number| format!("line {number}")).collect();
        for line in &put {
            pair.put(line);
        }
        put.push("last".to_owned());
        assert_eq!(pair.end(Vec::new()), put);
    }

    #[test]
    fn missing_lines_are_counted_in_their_place() {
        let pair = Pair::new();
        let mut put = pair.overflow();
        let text = pair.pieces.recv().expect("the writer writes");
        // The writer has taken a line, which makes room for another.
        pair.wait_stalled();
        pair.put("late");
        put.extend(["late".to_owned(), "last".to_owned()]);
        assert_eq!(pair.end(text), put);
    }

    #[test]
    fn missing_lines_at_the_end_are_counted_without_another_line() {
        let pair = Pair::new();
        let mut put = pair.overflow();
        let mut text = Vec::new();
        while !text.ends_with(b" dropped\n") {
            text.extend(pair.pieces.recv().expect("the writer counts"));
        }
        pair.put("next");
        put.extend(["next".to_owned(), "last".to_owned()]);
        assert_eq!(pair.end(text), put);
    }

    /// A target that takes nothing holds up neither the end nor a thread that puts behind it.
    #[test]
    fn a_stalled_target_holds_up_nobody() {
        let Pair { mut writer, begun: _begun, pieces: _pieces } = Pair::new();
        let queue = writer.queue().clone();
        writer.end(b"last\n".to_vec(), Duration::from_millis(1));
        queue.put(b"behind the end\n".to_vec());
        assert!(queue.lock().pieces.is_none(), "the writer has ended");
    }
}
