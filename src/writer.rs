//! A thread that writes pieces of bytes to a target, lest other threads wait for the target.
//!
//! A write to a terminal stopped with Ctrl-S, to a pipe whose reader stalls, or to a busy disk can
//! take forever. Therefore threads put their pieces into a queue, bounded in pieces and in bytes,
//! and one thread writes. A piece that finds the queue full is dropped and counted, and the target
//! hears the number of dropped pieces in their place; or the piece goes back to its owner
//! ([`Queue::try_put`]), who counts.
//!
//! The target is flushed whenever the queue is empty, so a reader is never behind for long, and a
//! busy writer makes few calls. The memory of written pieces can be used again
//! ([`Queue::spare`]).
//!
//! Contract: [`Queue::put`] and [`Queue::try_put`] never wait for the target; a lock is held for as
//! long as it takes to count and to move one piece. [`Writer::end`] waits for a stated time at
//! most.

use std::io::{self, BufWriter, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::channel::{Receiver, Sender, channel};
use crate::threads;

/// The name and the limits of a writer.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The name of the thread.
    pub name: &'static str,
    /// Pieces that can wait to be written.
    pub pieces: usize,
    /// Bytes of pieces that can wait to be written. A piece alone may have more.
    pub bytes: usize,
    /// Written pieces whose memory is kept for [`Queue::spare`].
    pub spares: usize,
}

/// The place to which a writer writes. All calls come from the writer's thread, and may block.
pub trait Target: Send + 'static {
    /// Does what has to be done before the first piece.
    fn begin(&mut self) {}

    /// Writes a piece. A target that can't is to remember so itself.
    fn write(&mut self, piece: &[u8]);

    /// Notes that this many pieces are missing here.
    fn note_dropped(&mut self, pieces: u64);

    /// Has everything written so far reach the reader.
    fn flush(&mut self);
}

/// A target of text: a stream with lines. A write that fails is forgotten: nobody is left to be
/// told.
pub struct Text<W: Write> {
    writer: BufWriter<W>,
    dropped: Dropped,
}

/// Makes the text to write in the place of dropped pieces, from their number.
type Dropped = Box<dyn Fn(u64) -> Vec<u8> + Send>;

/// A thread that writes.
#[derive(Debug)]
pub struct Writer {
    queue: Queue,
    /// Never has a message; the other end goes when everything is written.
    written: Receiver<()>,
}

/// Where pieces come in. Clones are the same queue.
#[derive(Clone, Debug)]
pub struct Queue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    terms: Terms,
    /// Bytes that wait to be written, or are being written.
    waiting: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` when the writer is ending.
    pieces: Option<Sender<Piece>>,
    /// Pieces dropped since the last piece that found room.
    dropped: u64,
    /// The last piece, for which there is always room.
    last: Vec<u8>,
    /// The memory of written pieces.
    spares: Vec<Vec<u8>>,
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
    pub fn start(terms: Terms, target: impl Target) -> io::Result<Self> {
        let (sender, receiver) = channel(terms.pieces);
        let (ended, written) = channel::<()>(1);
        let (last, spares) = (Vec::new(), Vec::with_capacity(terms.spares));
        let state = Mutex::new(State { pieces: Some(sender), dropped: 0, last, spares });
        let queue = Queue(Arc::new(Shared { terms, waiting: AtomicUsize::new(0), state }));
        let of_thread = queue.clone();
        threads::start(terms.name, move || {
            of_thread.write_all(&receiver, target);
            drop(ended);
        })?;
        Ok(Self { queue, written })
    }

    /// The queue of this writer.
    pub const fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Ends the writer: the waiting pieces are written, then `last`, within `patience` at most.
    /// Returns the pieces that will not be written, without a piece that is being written, or
    /// `None` when all is written. *Blocks.*
    pub fn end(&mut self, last: Vec<u8>, patience: Duration) -> Option<Vec<Vec<u8>>> {
        let mut state = self.queue.lock();
        let pieces = state.pieces.take();
        state.last = last;
        drop(state);
        let waiting = pieces.as_ref().map(Sender::waiting);
        drop(pieces);
        match self.written.recv_timeout(patience) {
            // Nobody reads.
            Err(RecvTimeoutError::Timeout) => {}
            _ => return None,
        }
        let waiting = std::iter::from_fn(|| waiting.as_ref()?.take());
        let mut unwritten: Vec<Vec<u8>> = waiting.map(|piece| piece.bytes).collect();
        unwritten.push(std::mem::take(&mut self.queue.lock().last));
        Some(unwritten)
    }
}

impl Queue {
    /// Adds a piece to the queue, or drops and counts the piece.
    pub fn put(&self, bytes: Vec<u8>) {
        let state = &mut *self.lock();
        if self.send(state, bytes).is_err() {
            state.dropped += 1;
        }
    }

    /// Adds a piece to the queue.
    ///
    /// # Errors
    /// The queue is full, and the piece comes back.
    pub fn try_put(&self, bytes: Vec<u8>) -> Result<(), Vec<u8>> {
        self.send(&mut self.lock(), bytes)
    }

    /// Makes as many spare pieces as are kept, each with room for `len` bytes.
    pub(crate) fn stock(&self, len: usize) {
        let spares = &mut self.lock().spares;
        spares.resize_with(self.0.terms.spares, || Vec::with_capacity(len));
    }

    /// The memory of a written piece, empty.
    pub fn spare(&self) -> Option<Vec<u8>> {
        self.lock().spares.pop()
    }

    fn send(&self, state: &mut State, bytes: Vec<u8>) -> Result<(), Vec<u8>> {
        // Behind the end nobody counts.
        let Some(pieces) = &state.pieces else { return Ok(()) };
        let (waiting, len) = (self.0.waiting.load(Ordering::Relaxed), bytes.len());
        if waiting > 0 && waiting + len > self.0.terms.bytes {
            return Err(bytes);
        }
        // Before the piece, or the writer could count the piece as written first.
        self.0.waiting.fetch_add(len, Ordering::Relaxed);
        let result = pieces.try_send(Piece { dropped: state.dropped, bytes });
        if let Err(error) = result {
            self.0.waiting.fetch_sub(len, Ordering::Relaxed);
            return match error {
                TrySendError::Full(piece) => Err(piece.bytes),
                TrySendError::Disconnected(_) => Ok(()),
            };
        }
        state.dropped = 0;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes pieces until the writer ends, and then the last piece.
    fn write_all(&self, pieces: &Receiver<Piece>, mut target: impl Target) {
        target.begin();
        loop {
            let piece = pieces.try_recv().or_else(|_| {
                // Every piece put before the dropped pieces is written.
                let dropped = std::mem::take(&mut self.lock().dropped);
                note_dropped(&mut target, dropped);
                target.flush();
                pieces.recv()
            });
            let Ok(piece) = piece else { break };
            note_dropped(&mut target, piece.dropped);
            target.write(&piece.bytes);
            self.take_back(piece.bytes);
        }
        // Taken out first: nobody waits for the lock while the target stalls.
        let last = std::mem::take(&mut self.lock().last);
        target.write(&last);
        target.flush();
    }

    /// Notes a piece as written.
    fn take_back(&self, mut bytes: Vec<u8>) {
        self.0.waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
        if self.0.terms.spares > 0 {
            let spares = &mut self.lock().spares;
            if spares.len() < self.0.terms.spares {
                bytes.clear();
                spares.push(bytes);
            }
        }
    }
}

fn note_dropped(target: &mut impl Target, pieces: u64) {
    if pieces > 0 {
        target.note_dropped(pieces);
    }
}

impl<W: Write> Text<W> {
    /// A stream as a target; `dropped` makes the text in the place of dropped pieces.
    pub fn new(stream: W, dropped: impl Fn(u64) -> Vec<u8> + Send + 'static) -> Self {
        Self { writer: BufWriter::new(stream), dropped: Box::new(dropped) }
    }
}

impl<W: Write + Send + 'static> Target for Text<W> {
    fn write(&mut self, piece: &[u8]) {
        let _ = self.writer.write_all(piece);
    }

    fn note_dropped(&mut self, pieces: u64) {
        self.write(&(self.dropped)(pieces));
    }

    fn flush(&mut self) {
        let _ = self.writer.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
    use std::thread;

    use super::*;

    const ROOM: usize = 20;

    /// Bytes of the queue: some more than the lines of a test have.
    const BYTES: usize = 1000;

    const TERMS: Terms = Terms { name: "test", pieces: ROOM, bytes: BYTES, spares: 1 };

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
            let target = Text::new(Stalling { begun: begun_sender, piece }, say_dropped);
            let writer = Writer::start(TERMS, target).expect("there are threads");
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
            assert_eq!(ending.join().expect("no panic"), None, "all is written");
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

    #[test]
    fn a_queue_is_full_of_bytes_before_it_is_full_of_pieces() {
        let pair = Pair::new();
        pair.put("first");
        pair.wait_stalled();
        let queue = pair.writer.queue().clone();
        let long = vec![b'x'; BYTES];
        assert_eq!(queue.try_put(long.clone()), Ok(()));
        assert_eq!(queue.try_put(b"y\n".to_vec()), Err(b"y\n".to_vec()));
        pair.put("z");
        let mut text = Vec::new();
        while !text.ends_with(b"1 dropped\n") {
            text.extend(pair.pieces.recv().expect("the writer writes"));
        }
        assert_eq!(text.len(), "first\n".len() + BYTES + "1 dropped\n".len());
        assert!(queue.spare().is_some_and(|spare| spare.is_empty()));
        assert_eq!(queue.spare(), None, "one is kept");
        let alone = vec![b'x'; 2 * BYTES];
        assert_eq!(queue.try_put(alone), Ok(()), "there is nothing before");
        assert_eq!(pair.end(Vec::new()).concat().len(), 2 * BYTES + "last".len());
    }

    /// A target that takes nothing holds up neither the end nor a thread that puts behind it.
    #[test]
    fn a_stalled_target_holds_up_nobody() {
        let pair = Pair::new();
        pair.put("first");
        pair.wait_stalled();
        pair.put("waits");
        let Pair { mut writer, begun: _begun, pieces: _pieces } = pair;
        let queue = writer.queue().clone();
        let unwritten = writer.end(b"last\n".to_vec(), Duration::from_millis(1));
        assert_eq!(unwritten, Some(vec![b"waits\n".to_vec(), b"last\n".to_vec()]));
        queue.put(b"behind the end\n".to_vec());
        assert!(queue.lock().pieces.is_none(), "the writer has ended");
    }
}
