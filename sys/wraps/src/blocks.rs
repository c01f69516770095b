//! Zeroed blocks of the heap, kept for the next use by the thread that serves URBs.
//!
//! libusb allocates a request to usbfs for each transfer that is submitted, by `calloc`, and frees
//! the request when the transfer ends. glibc before 2.41 has its quick way for `malloc` alone
//! (`malloc/malloc.c`, `__libc_calloc`), so the pair takes 290 instructions of the 3300 of a small
//! URB; here 70. And the path of a URB allocates nothing at all.
//!
//! What is kept are blocks as the C library has allocated them, so any block may be freed by any
//! thread and by any function of the C library, and `realloc` need not know of this module.
//!
//! Contract: a thread at most keeps blocks, [`BLOCKS_MAX`] of each of [`SIZES`] lengths; all others
//! get the C library's. Never blocks, but as the C library does.

use std::cell::{Cell, UnsafeCell};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Lengths of which blocks are kept; more come with URBs of isochronous packets, a length for each
/// number of packets. With a prime number, those of a power of two of packets and those of all
/// other URBs have different places.
pub const SIZES: usize = 17;

/// Blocks of a length that are kept at most: as many as a device has URB slots, by default.
pub const BLOCKS_MAX: usize = 256;

/// Bytes of a block that is kept at most: a request of 128 isochronous packets, the most that
/// libusb makes (`MAX_ISO_PACKETS_PER_URB`), has 1592.
pub const BLOCK_LEN_MAX: usize = 2040;

/// What glibc puts in front of a block, the multiple that both are together, and the bytes of the
/// smallest block (`malloc/malloc.c`). Where other lengths hold, no block is kept.
const HEADER_LEN: usize = size_of::<usize>();
const ALIGNMENT: usize = 2 * size_of::<usize>();
const BLOCK_LEN_MIN: usize = 3 * size_of::<usize>();

/// Blocks of a length.
struct Size {
    /// Bytes of each, as the C library says; 0 before the first.
    len: usize,
    kept: usize,
    blocks: [*mut c_void; BLOCKS_MAX],
}

impl Size {
    /// Takes the block that was kept last.
    #[inline(always)]
    fn pop(&mut self) -> Option<*mut c_void> {
        let last = self.kept.checked_sub(1)?;
        let block = *self.blocks.get(last)?;
        self.kept = last;
        Some(block)
    }
}

/// All blocks of the thread that keeps blocks.
struct Kept(UnsafeCell<[Size; SIZES]>);

// SAFETY: only one thread ever has KEEPS, see `keep`, and others do not look at the blocks.
unsafe impl Sync for Kept {}

static KEPT: Kept = Kept(UnsafeCell::new(
    [const { Size { len: 0, kept: 0, blocks: [ptr::null_mut(); BLOCKS_MAX] } }; SIZES],
));

static IS_TAKEN: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// This is the thread that keeps blocks.
    static KEEPS: Cell<bool> = const { Cell::new(false) };
}

unsafe extern "C" {
    fn __real_calloc(count: usize, len: usize) -> *mut c_void;
    fn __real_free(block: *mut c_void);
}

/// Has the calling thread keep blocks; without effect if another thread does.
pub fn keep() {
    if !IS_TAKEN.swap(true, Ordering::Relaxed) {
        KEEPS.set(true);
    }
}

/// The place for blocks of `len` bytes, if the calling thread keeps blocks of this length.
#[inline(always)]
fn size_of_blocks<'a>(len: usize) -> Option<&'a mut Size> {
    if !KEEPS.get() || len > BLOCK_LEN_MAX {
        return None;
    }
    // SAFETY: this thread alone gets here, and neither caller makes a call that could end up here
    // again while it has the reference.
    let sizes = unsafe { &mut *KEPT.0.get() };
    Some(&mut sizes[len / ALIGNMENT % SIZES])
}

/// The bytes that glibc has in a block for `len` bytes: at least as many.
const fn usable(len: usize) -> usize {
    let usable = (len + HEADER_LEN).next_multiple_of(ALIGNMENT) - HEADER_LEN;
    if usable < BLOCK_LEN_MIN { BLOCK_LEN_MIN } else { usable }
}

/// Gives a block of the length at a place back to the C library for each that is wanted of another
/// length there, until none is left and the place is the other's: a length that is used no more is
/// soon gone, and two in use take turns.
#[cold]
fn give_way(size: &mut Size, len: usize) {
    if let Some(block) = size.pop() {
        // SAFETY: a block of the C library's, which nobody else has since it was freed.
        unsafe { __real_free(block) };
    }
    if size.kept == 0 {
        size.len = len;
    }
}

/// # Safety
/// As for `calloc`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_calloc(count: usize, each: usize) -> *mut c_void {
    if let Some(len) = count.checked_mul(each).filter(|len| *len <= BLOCK_LEN_MAX)
        && let Some(size) = size_of_blocks(usable(len))
    {
        if size.len != usable(len) {
            give_way(size, usable(len));
        } else if let Some(block) = size.pop() {
            // SAFETY: the block has `size.len` bytes, which are at least `len`, and nobody else
            // has the block since it was freed.
            unsafe { ptr::write_bytes(block.cast::<u8>(), 0, len) };
            return block;
        }
    }
    // SAFETY: the caller's promise.
    unsafe { __real_calloc(count, each) }
}

/// # Safety
/// As for `free`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_free(block: *mut c_void) {
    if KEEPS.get() && !block.is_null() {
        // SAFETY: by the caller's promise, the block is the C library's, and in use until now.
        let len = unsafe { libc::malloc_usable_size(block) };
        if let Some(size) = size_of_blocks(len)
            && size.len == len
            && let Some(place) = size.blocks.get_mut(size.kept)
        {
            *place = block;
            size.kept += 1;
            return;
        }
    }
    // SAFETY: the caller's promise.
    unsafe { __real_free(block) }
}
