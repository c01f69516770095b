//! What was called, for whoever runs the program: a log of all calls but transfers, and counters of
//! those, both in the tree's root.
//!
//! `counters` is an array of little-endian words of 64 bits, [`COUNTERS`] for each node that is
//! open, in the order of [`Counter`]; a node that was closed keeps its sums. It is mapped, so that
//! counting is an addition in memory.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{options, refuse};

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counter {
    /// URBs submitted, those that were refused included.
    Submits,
    /// URBs reaped.
    Reaps,
    /// Reaps that found nothing.
    EmptyReaps,
    /// URBs discarded.
    Discards,
    /// Other ioctls.
    Others,
    /// System calls this library made for the pipe: what usbfs would not cost.
    PipeCalls,
    /// URBs refused because memory is used up.
    NoMemory,
}

/// Words of a node: a cache line.
pub(crate) const COUNTERS: usize = 8;

/// Nodes that have counters. More share the last ones.
const NODES: usize = 256;

/// The counters of a node.
#[derive(Clone, Copy)]
pub(crate) struct Counters(&'static [AtomicU64]);

impl Counters {
    pub(crate) fn of(node: usize) -> Self {
        let start = node.min(NODES - 1) * COUNTERS;
        Self(&mapped()[start..start + COUNTERS])
    }

    /// Adds one. The caller has the node's lock, so nobody else adds.
    pub(crate) fn add(self, counter: Counter) {
        let place = &self.0[counter as usize];
        place.store(place.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

fn mapped() -> &'static [AtomicU64] {
    static MAPPED: OnceLock<&'static [AtomicU64]> = OnceLock::new();
    MAPPED.get_or_init(map)
}

fn map() -> &'static [AtomicU64] {
    let path = options::get().root.join("counters");
    let len = NODES * COUNTERS * size_of::<u64>();
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.and_then(|file| file.set_len(len as u64).map(|()| file));
    let file = file.unwrap_or_else(|error| refuse(&format!("{}: {error}", path.display())));
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let fd = file.as_raw_fd();
    // SAFETY: a new mapping of a file of that length, never unmapped.
    let base =
        unsafe { libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, fd, 0) };
    if base == libc::MAP_FAILED {
        refuse("the counters can't be mapped");
    }
    // SAFETY: the mapping is aligned to a page, as long as this, stays for ever, and atomics may
    // be shared with whoever else maps the file.
    unsafe { std::slice::from_raw_parts(base.cast::<AtomicU64>(), NODES * COUNTERS) }
}

/// Adds a line to the log.
pub(crate) fn log(line: &str) {
    let path = options::get().root.join("log");
    let file = OpenOptions::new().append(true).create(true).open(&path);
    let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    if let Err(error) = written {
        refuse(&format!("{}: {error}", path.display()));
    }
}
