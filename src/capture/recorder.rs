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
//! Contract: runs on the reactor, and never blocks. The memory of pieces is the queue's spares.
//! More is allocated only while the writer hangs, for the short piece of a tenth of a second.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sink::Progress;
use crate::config::Capturing;
use crate::limits::{CAPTURE_DATA_MAX, CAPTURE_PIECE_LEN};
use crate::usbmon::block::{self, RECORD_OVERHEAD};
use crate::usbmon::{self, Event};
use crate::writer::Queue;

/// The time after which a reader of a stream sees a record, at the latest.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

/// The mark of a made-up record in the id, where other ids have the number of the session.
pub(super) const MADE_UP: u64 = 1 << 63;

const _: () = assert!(CAPTURE_DATA_MAX + RECORD_OVERHEAD <= CAPTURE_PIECE_LEN, "a record fits");

/// Gathers blocks.
#[derive(Debug)]
pub(super) struct Recorder {
    /// The capture's path, or name, for messages.
    pub(super) name: PathBuf,
    queue: Queue,
    /// Whole blocks, to be put into the queue.
    piece: Vec<u8>,
    /// Since when the piece has waited, as far as [`Self::tick`] knows.
    since: Option<Instant>,
    /// Who takes the capture now.
    progress: Arc<Progress>,
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
    /// Records of URBs taken, and dropped.
    pub(super) taken: Tally,
    pub(super) dropped: Tally,
}

/// A number of records of URBs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tally {
    /// Records of SUBMITs.
    pub(crate) submissions: u64,
    /// Records of ends, one for each URB.
    pub(crate) ends: u64,
}

impl Tally {
    /// The records in whole blocks, without made-up records.
    pub(super) fn of(blocks: &[u8]) -> Self {
        let mut tally = Self::default();
        let records = block::records(blocks).filter_map(usbmon::id_and_event);
        records.filter(|(id, _)| id & MADE_UP == 0).for_each(|(_, event)| tally.add(event));
        tally
    }

    pub(super) const fn add(&mut self, event: Event) {
        match event {
            Event::Submit => self.submissions += 1,
            Event::Complete | Event::Error => self.ends += 1,
        }
    }

    pub(super) const fn plus(self, other: Self) -> Self {
        Self { submissions: self.submissions + other.submissions, ends: self.ends + other.ends }
    }

    pub(super) const fn minus(self, other: Self) -> Self {
        Self {
            submissions: self.submissions.saturating_sub(other.submissions),
            ends: self.ends.saturating_sub(other.ends),
        }
    }

    /// Records of both kinds.
    pub(crate) const fn records(self) -> u64 {
        self.submissions + self.ends
    }
}

impl Recorder {
    pub(super) fn new(wanted: &Capturing, queue: Queue, progress: Arc<Progress>) -> Self {
        let &Capturing { ref path, size, snap_len } = wanted;
        Self {
            name: path.clone(),
            queue,
            piece: Vec::new(),
            since: None,
            progress,
            followed: 0,
            section: 0,
            section_len: 0,
            // A file is half of the capture.
            section_max: size.map(|size| size / 2),
            interfaces: 0,
            sessions: 0,
            snap_len,
            taken: Tally::default(),
            dropped: Tally::default(),
        }
    }

    /// Whether anybody takes records. Begins a section where a section is due.
    pub(super) fn is_read(&mut self) -> bool {
        let reader = self.progress.reader();
        if reader != self.followed {
            self.followed = reader;
            // For the last reader, who is gone.
            self.lose(Tally::of(&self.piece));
            self.piece.clear();
            if reader != 0 {
                self.begin_section();
            }
        } else if self.is_section_full() && self.put() {
            self.begin_section();
        }
        reader != 0
    }

    /// Counts records as dropped that were counted as taken.
    const fn lose(&mut self, lost: Tally) {
        self.taken = self.taken.minus(lost);
        self.dropped = self.dropped.plus(lost);
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

    /// Has the head of the first section written, if anybody takes the capture already.
    pub(super) fn put_head(&mut self) {
        if !self.piece.is_empty() {
            self.put();
        }
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
        self.progress.reader() != 0
    }

    /// The piece, to be written last.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.piece)
    }
}
