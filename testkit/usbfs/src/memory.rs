//! usbfs's memory: the limit for URBs and mappings together, and the mappings.

use std::ffi::{c_int, c_void};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::options;

/// The kernel's memory for a URB beside its buffer: `struct async` and `struct urb`, in bytes.
const URB_OVERHEAD: usize = 104 + 184;

/// A `struct usb_memory`, the kernel's memory for a mapping.
const MAPPING_OVERHEAD: usize = 64;

/// The length of each part of a scattered buffer, and the size of its `struct scatterlist`.
const PART_LEN: usize = 16_384;
const PART_OVERHEAD: usize = 32;

/// The largest contiguous block of the kernel: `KMALLOC_MAX_SIZE`.
const PIECE_MAX: usize = 4 << 20;

/// The unit of mappings.
pub(crate) const PAGE: usize = 4096;

static USED: AtomicUsize = AtomicUsize::new(0);

/// Takes the memory of a URB with `extra` bytes besides and a buffer of `len` bytes, `scattered` or
/// contiguous. Returns the cost.
pub(crate) fn take_urb(extra: usize, len: usize, scattered: bool) -> Result<usize, c_int> {
    let parts = if scattered && len > PART_LEN { len.div_ceil(PART_LEN) } else { 0 };
    let cost = URB_OVERHEAD + extra + len + parts * PART_OVERHEAD;
    take(cost)?;
    if parts == 0 && len > PIECE_MAX {
        give_back(cost);
        return Err(libc::ENOMEM);
    }
    Ok(cost)
}

/// Takes the memory of a CONTROL call. Returns the cost.
pub(crate) fn take_control() -> Result<usize, c_int> {
    let cost = PAGE + 184 + 8;
    take(cost).map(|()| cost)
}

/// Gives memory back.
pub(crate) fn give_back(cost: usize) {
    USED.fetch_sub(cost, Ordering::Relaxed);
}

fn take(cost: usize) -> Result<(), c_int> {
    let quota = options::get().quota;
    if USED.fetch_add(cost, Ordering::Relaxed) + cost <= quota || quota == 0 {
        return Ok(());
    }
    give_back(cost);
    Err(libc::ENOMEM)
}

/// A mapping: where, how long, of which node.
type Mapping = (usize, usize, usize);

static MAPPINGS: Mutex<Vec<Mapping>> = Mutex::new(Vec::new());

/// Maps `len` zeroed bytes for a node, in whole pages, committed from the start like memory of
/// usbfs.
pub(crate) fn map(node: usize, len: usize) -> Result<*mut c_void, c_int> {
    let len = len.next_multiple_of(PAGE);
    take(len + MAPPING_OVERHEAD)?;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let base = if len > PIECE_MAX {
        libc::MAP_FAILED
    } else {
        // SAFETY: a new mapping, from now on the program's own affair.
        unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) }
    };
    if base == libc::MAP_FAILED {
        give_back(len + MAPPING_OVERHEAD);
        return Err(libc::ENOMEM);
    }
    lock().push((base.addr(), len, node));
    Ok(base)
}

/// Notes an unmapped address; returns the node of the mapping, if the mapping was usbfs's.
pub(crate) fn unmapped(base: *mut c_void) -> Option<usize> {
    let mut mappings = lock();
    let index = mappings.iter().position(|&(start, ..)| start == base.addr())?;
    let (_, len, node) = mappings.swap_remove(index);
    give_back(len + MAPPING_OVERHEAD);
    Some(node)
}

fn lock() -> std::sync::MutexGuard<'static, Vec<Mapping>> {
    MAPPINGS.lock().unwrap_or_else(PoisonError::into_inner)
}
