//! Records of the calls for the user of the program: a `log` of all calls except transfers,
//! `counters` of the transfers, and the control `requests` that reach devices, all in the tree's
//! root.
//!
//! `requests` has a line for each request: the device and the SETUP packet in hexadecimal. Requests
//! sent by the host because of a call are included, but not the requests of the enumeration.
//!
//! `counters` is an array of little-endian words of 64 bits, [`COUNTERS`] for each open node, in
//! the order of [`Counter`]; a closed node keeps its sums. The file is mapped, so that counting is
//! an addition in memory.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::{options, refuse};

/// The counted calls.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counter {
    /// Submitted URBs, refused URBs included.
    Submits,
    /// URBs reaped.
    Reaps,
    /// Reaps without a result.
    EmptyReaps,
    /// URBs discarded.
    Discards,
    /// Other ioctls.
    Others,
    /// System calls of this library for the pipe, the timer and the record of control requests, a
    /// cost that usbfs does not have.
    OwnCalls,
    /// URBs refused because memory is used up.
    NoMemory,
}

/// Words of a node: a cache line.
pub(crate) const COUNTERS: usize = 8;

/// Nodes with counters. Further nodes share the last counters.
const NODES: usize = 256;

/// The counters of a node.
#[derive(Clone, Copy)]
pub(crate) struct Counters(&'static [AtomicU64]);

impl Counters {
    pub(crate) fn of(node: usize) -> Self {
        let start = node.min(NODES - 1) * COUNTERS;
        Self(&mapped()[start..start + COUNTERS])
    }

    /// Adds one. The caller has the node's lock, so no other thread adds.
    pub(crate) fn add(self, counter: Counter) {
        let place = &self.0[counter as usize];
        place.store(place.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

fn mapped() -> &'static [AtomicU64] {
    static MAPPED: OnceLock<&'static [AtomicU64]> = OnceLock::new();
    MAPPED.get_or_init(map_counters)
}

fn map_counters() -> &'static [AtomicU64] {
    let bytes = map("counters", NODES * COUNTERS * size_of::<u64>());
    // SAFETY: the mapping is aligned to a page, long enough, and never unmapped; atomics may be
    // shared with any other mapping of the file.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast::<AtomicU64>(), NODES * COUNTERS) }
}

/// Maps a file of the root with the given length, and makes a missing file.
pub(crate) fn map(name: &str, len: usize) -> &'static [AtomicU8] {
    let path = options::get().root.join(name);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.and_then(|file| file.set_len(len as u64).map(|()| file));
    let file = file.unwrap_or_else(|error| refuse(&format!("{}: {error}", path.display())));
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let fd = file.as_raw_fd();
    // SAFETY: a new mapping of a file with the length, never unmapped.
    let base =
        unsafe { libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, fd, 0) };
    if base == libc::MAP_FAILED {
        refuse(&format!("{} can't be mapped", path.display()));
    }
    // SAFETY: the mapping is long enough and never unmapped; atomics may be shared with any other
    // mapping of the file.
    unsafe { std::slice::from_raw_parts(base.cast::<AtomicU8>(), len) }
}

/// Adds a line to the log.
pub(crate) fn log(line: &str) {
    append("log", line);
}

/// System calls of [`request`]: the file is opened, written and closed.
pub(crate) fn request_calls() -> usize {
    if options::get().records_requests { 3 } else { 0 }
}

/// Records a control request that reaches a device, from any sender.
pub(crate) fn request(busid: &str, setup: [u8; 8]) {
    if !options::get().records_requests {
        return;
    }
    let hex: String = setup.iter().map(|byte| format!("{byte:02x}")).collect();
    append("requests", &format!("{busid} {hex}"));
}

fn append(name: &str, line: &str) {
    let path = options::get().root.join(name);
    let file = OpenOptions::new().append(true).create(true).open(&path);
    let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    if let Err(error) = written {
        refuse(&format!("{}: {error}", path.display()));
    }
}
