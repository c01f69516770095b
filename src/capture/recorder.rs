//! The blocks of all sessions on their way to the writer: gathered in pieces of memory, which the
//! writer gives back.
//!
//! A piece holds whole blocks. When the writer is behind and its queue is full, a full piece stays
//! here, and nothing more is taken: the owner of a record counts the record as dropped.
//!
//! A section is a part of the capture that can be read alone: with a limit of size each file is a
//! section, and each reader of a stream gets a section of its own. An interface belongs to a
//! section, so each session introduces its device again ([`Recorder::section`]).
//!
//! Contract: runs on the reactor, and never blocks. Memory is allocated until the writer's queue
//! has been full once, and then used again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::limits::{CAPTURE_DATA_MAX, CAPTURE_PIECE_LEN};
use crate::usbmon::block::{self, RECORD_OVERHEAD};
use crate::writer::Queue;

/// The time after which a reader of a stream sees a record, at the latest.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

const _: () = assert!(CAPTURE_DATA_MAX + RECORD_OVERHEAD <= CAPTURE_PIECE_LEN, "a record fits");

/// Gathers blocks.
#[derive(Debug)]
pub(super) struct Recorder {
    queue: Queue,
    /// Whole blocks, to be put into the queue.
    piece: Vec<u8>,
    /// Since when the piece has waited, as far as [`Self::tick`] knows.
    since: Option<Instant>,
    /// The number of the reader that takes the capture now; 0 when nobody does.
    reader: Arc<AtomicU64>,
    /// The reader of the section.
    followed: u64,
    /// The number of the section.
    pub(super) section: u64,
    /// Bytes of the section in the queue or behind.
    section_len: u64,
    /// Bytes of a section, if limited.
    section_max: Option<u64>,
    /// Interfaces of the section.
    interfaces: u32,
    /// Sessions so far.
    pub(super) sessions: u32,
    /// The most bytes of data in a record.
    pub(super) snap_len: usize,
    /// Records taken, and records dropped.
    pub(super) taken: u64,
    pub(super) dropped: u64,
}

impl Recorder {
    pub(super) fn new(
        queue: Queue,
        reader: Arc<AtomicU64>,
        snap_len: usize,
        section_max: Option<u64>,
    ) -> Self {
        Self {
            queue,
            piece: Vec::new(),
            since: None,
            reader,
            followed: 0,
            section: 0,
            section_len: 0,
            section_max,
            interfaces: 0,
            sessions: 0,
            snap_len,
            taken: 0,
            dropped: 0,
        }
    }

    /// Whether anybody takes records. Begins a section where a section is due.
    pub(super) fn is_read(&mut self) -> bool {
        let reader = self.reader.load(Ordering::Acquire);
        if reader != self.followed {
            self.followed = reader;
            // For the last reader, who is gone.
            self.dropped += block::count_records(&self.piece);
            self.piece.clear();
            if reader != 0 {
                self.begin_section();
            }
        } else if self.is_section_full() && self.put() {
            self.begin_section();
        }
        reader != 0
    }

    fn is_section_full(&self) -> bool {
        let len = self.section_len + self.piece.len() as u64;
        self.section_max.is_some_and(|most| len + CAPTURE_PIECE_LEN as u64 > most)
    }

    /// Begins a section in an empty piece.
    fn begin_section(&mut self) {
        (self.section, self.section_len, self.interfaces) = (self.section + 1, 0, 0);
        if self.piece.capacity() == 0 {
            self.piece = self.empty_piece();
        }
        block::section(&mut self.piece);
    }

    /// The number of a new interface.
    pub(super) const fn next_interface(&mut self) -> u32 {
        self.interfaces += 1;
        self.interfaces - 1
    }

    /// A place for `len` bytes of whole blocks; `None` when there is no room.
    pub(super) fn room(&mut self, len: usize) -> Option<&mut Vec<u8>> {
        if self.piece.len() + len > CAPTURE_PIECE_LEN && !self.put() {
            return None;
        }
        Some(&mut self.piece)
    }

    /// Puts the piece into the queue. False when the queue is full.
    fn put(&mut self) -> bool {
        let len = self.piece.len() as u64;
        match self.queue.try_put(std::mem::take(&mut self.piece)) {
            Ok(()) => {
                self.piece = self.empty_piece();
                self.section_len += len;
                self.since = None;
                true
            }
            Err(piece) => {
                self.piece = piece;
                false
            }
        }
    }

    fn empty_piece(&self) -> Vec<u8> {
        self.queue.spare().unwrap_or_else(|| Vec::with_capacity(CAPTURE_PIECE_LEN))
    }

    /// Has a piece written that has waited for long enough at `now`.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.piece.is_empty() {
            return;
        }
        let since = *self.since.get_or_insert(now);
        // After a vain attempt the next comes as late as the first.
        if now >= since + FLUSH_INTERVAL && !self.put() {
            self.since = Some(now);
        }
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.since.map(|since| since + FLUSH_INTERVAL)
    }

    /// Whether anybody has ever taken the capture, or may be taking the capture.
    pub(super) fn has_reader(&self) -> bool {
        self.reader.load(Ordering::Acquire) != 0
    }

    /// The piece, to be written last.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.piece)
    }
}
