//! usbfs's memory: what URBs and mappings may take all together, and the mappings.

use std::ffi::{c_int, c_void};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::options;

/// What the kernel keeps of a URB beside its buffer: `struct async` and `struct urb`, in bytes.
const URB_OVERHEAD: usize = 104 + 184;

/// A `struct usb_memory`, what it keeps of a mapping.
const MAPPING_OVERHEAD: usize = 64;

/// Of each part of a buffer that need not be in one piece: its length, and `struct scatterlist`.
const PART_LEN: usize = 16_384;
const PART_OVERHEAD: usize = 32;

/// The most that the kernel has in one piece: `KMALLOC_MAX_SIZE`.
const PIECE_MAX: usize = 4 << 20;

/// Mappings are of whole ones.
pub(crate) const PAGE: usize = 4096;

static USED: AtomicUsize = AtomicUsize::new(0);

/// Takes the memory of a URB with `extra` bytes besides and a buffer of `len` bytes, which may be
/// in parts or must be in one piece; what it costs.
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

/// Takes the memory of a CONTROL call; what it costs.
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

/// Maps `len` zeroed bytes for a node, in whole pages. They are there from the start:
/// usbfs maps memory that it has.
pub(crate) fn map(node: usize, len: usize) -> Result<*mut c_void, c_int> {
    let len = len.next_multiple_of(PAGE);
    take(len + MAPPING_OVERHEAD)?;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let base = if len > PIECE_MAX {
        libc::MAP_FAILED
    } else {
        // SAFETY: a new mapping; what becomes of it is the program's own affair.
        unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) }
    };
    if base == libc::MAP_FAILED {
        give_back(len + MAPPING_OVERHEAD);
        return Err(libc::ENOMEM);
    }
    lock().push((base.addr(), len, node));
    Ok(base)
}

/// Notes that something was unmapped; if it was one of these mappings, the node it is of.
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
