//! The queue between libusb's callback and the owner of a device: which transfers have ended.
//!
//! Contract: allocation in `new` alone; nothing blocks; `push` panics when a transfer ends twice.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Indexes of ended transfers, written by the callback. Only ever used by the owner of the `&mut
/// DeviceHandle`, hence no ordering: handing the handle over synchronises.
pub(crate) struct CompletionQueue {
    indexes: Box<[AtomicU32]>,
    len: AtomicUsize,
}

impl CompletionQueue {
    pub(crate) fn new(transfers: usize) -> Self {
        let indexes = (0..transfers).map(|_| AtomicU32::new(0)).collect();
        Self { indexes, len: AtomicUsize::new(0) }
    }

    /// Number of transfers that may report here.
    pub(crate) fn transfers(&self) -> usize {
        self.indexes.len()
    }

    /// Notes an ended transfer. There is room: a transfer ends once for each submission, and the
    /// queue is as long as the number of transfers.
    pub(crate) fn push(&self, index: u32) {
        let len = self.len.load(Ordering::Relaxed);
        self.indexes[len].store(index, Ordering::Relaxed);
        self.len.store(len + 1, Ordering::Relaxed);
    }

    /// Moves all indexes, and returns how many.
    pub(crate) fn drain_into(&self, completed: &mut Vec<u32>) -> usize {
        let len = self.len.load(Ordering::Relaxed);
        completed.extend(self.indexes[..len].iter().map(|index| index.load(Ordering::Relaxed)));
        self.len.store(0, Ordering::Relaxed);
        len
    }
}
