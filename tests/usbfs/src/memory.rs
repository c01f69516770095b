//! usbfs's memory: what URBs and mappings may take all together, and the mappings.

use std::ffi::c_void;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::options;

/// What the kernel keeps of a URB beside its buffer, in bytes, about.
const URB_OVERHEAD: usize = 320;

static USED: AtomicUsize = AtomicUsize::new(0);

/// Takes the memory of a URB with a buffer of `len` bytes; `None` when there is no more.
pub(crate) fn take_urb(len: usize) -> Option<usize> {
    let cost = len + URB_OVERHEAD;
    take(cost).then_some(cost)
}

/// Gives memory back.
pub(crate) fn give_back(cost: usize) {
    USED.fetch_sub(cost, Ordering::Relaxed);
}

fn take(cost: usize) -> bool {
    if USED.fetch_add(cost, Ordering::Relaxed) + cost <= options::get().quota {
        return true;
    }
    give_back(cost);
    false
}

/// A mapping: where, how long, of which node.
type Mapping = (usize, usize, usize);

static MAPPINGS: Mutex<Vec<Mapping>> = Mutex::new(Vec::new());

/// Maps `len` zeroed bytes for a node. They are there from the start: usbfs maps memory that it
/// has.
pub(crate) fn map(node: usize, len: usize) -> Option<*mut c_void> {
    if !take(len) {
        return None;
    }
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping; what becomes of it is the program's own affair.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        give_back(len);
        return None;
    }
    lock().push((base.addr(), len, node));
    Some(base)
}

/// Notes that something was unmapped; if it was one of these mappings, the node it is of.
pub(crate) fn unmapped(base: *mut c_void) -> Option<usize> {
    let mut mappings = lock();
    let index = mappings.iter().position(|&(start, ..)| start == base.addr())?;
    let (_, len, node) = mappings.swap_remove(index);
    give_back(len);
    Some(node)
}

fn lock() -> std::sync::MutexGuard<'static, Vec<Mapping>> {
    MAPPINGS.lock().unwrap_or_else(PoisonError::into_inner)
}
