//! Memory that may be refused, and the treatment of freed memory.
//!
//! The language ends the process when an allocation fails. So large memory, requested while there
//! are sessions, is requested here. The system may refuse, and [`RESERVE`] is left to all the small
//! allocations, which cannot fail: existing sessions go on.
//!
//! Contract: nothing blocks, and memory is committed as it is used.

use std::alloc::{self, Layout};
use std::ptr::{self, NonNull};

/// Bytes of address space that large allocations leave to small ones. Several devices can be opened
/// at once, each by a thread with a stack of 2 MiB, and with a few hundred kilobytes of transfers.
pub const RESERVE: usize = 16 << 20;

/// Types whose values may have any bytes, including zeroes.
///
/// # Safety
/// A value of the type with all bytes zero is valid, and the type is not empty.
pub unsafe trait Zero: Copy {}

// SAFETY: an integer of no bits set.
unsafe impl Zero for u8 {}
// SAFETY: an integer of no bits set.
unsafe impl Zero for u32 {}

/// Whether the system would give `len` bytes now. The question goes to the system and not to the
/// allocator. The allocator might answer from its own stock, and a count of allocations would
/// include the question.
#[must_use]
pub fn has_room(len: usize) -> bool {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
    // SAFETY: a new mapping, wherever the system likes, touches nobody's memory.
    let start = unsafe { libc::mmap(ptr::null_mut(), len.max(1), protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return false;
    }
    // SAFETY: mapped above with this length, and unknown to any other code.
    unsafe { libc::munmap(start, len.max(1)) };
    true
}

/// `len` zeroes, which commit no memory before they are written. `None` when the system has no
/// memory or address space, or less than [`RESERVE`] in addition.
#[must_use]
pub fn zeroed<T: Zero>(len: usize) -> Option<Box<[T]>> {
    if len == 0 {
        return Some(Box::default());
    }
    let layout = Layout::array::<T>(len).ok()?;
    let start = zeroed_bytes(layout)?.cast::<T>();
    let slice = ptr::slice_from_raw_parts_mut(start.as_ptr(), len);
    // SAFETY: allocated by the global allocator with the layout of this slice; zeroes are valid
    // values of the type.
    Some(unsafe { Box::from_raw(slice) })
}

/// The same as bytes with a layout, whose size is not zero.
pub(crate) fn zeroed_bytes(layout: Layout) -> Option<NonNull<u8>> {
    assert!(layout.size() > 0, "an allocation of nothing");
    // SAFETY: the layout has a size.
    let start = NonNull::new(unsafe { alloc::alloc_zeroed(layout) })?;
    if !has_room(RESERVE) {
        // SAFETY: allocated above with this layout.
        unsafe { alloc::dealloc(start.as_ptr(), layout) };
        return None;
    }
    Some(start)
}

/// Makes the allocator give large blocks back to the system when freed. To be called once, before
/// there are threads.
///
/// glibc learns from freed large blocks to keep such blocks (mallopt(3)). A device's tables would
/// then be cleared for the next device, and so committed as a whole; new memory is committed as it
/// is used. Allocators of other systems do not learn. Nor does glibc where the environment has a
/// number, which is then left as the operator set the number.
pub fn return_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if std::env::var_os("MALLOC_MMAP_THRESHOLD_").is_none() {
        // SAFETY: sets a number in the allocator, under its lock. The number is the allocator's
        // first value, now fixed. After a refusal nothing has changed.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroes_are_as_many_as_were_asked_for() {
        // Miri looks at each number for microseconds.
        let long = if cfg!(miri) { 5000 } else { 1 << 20 };
        for len in [0, 1, 1000, long] {
            let zeroes = zeroed::<u32>(len).expect("a few megabytes");
            assert!(zeroes.len() == len && zeroes.iter().all(|&number| number == 0));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri ends where memory does")]
    fn impossible_memory_is_refused() {
        // A quarter of 64 bits; of 32, a quarter is a gigabyte.
        let much = if usize::BITS == 64 { usize::MAX / 4 } else { usize::MAX / 8 * 7 };
        assert!(!has_room(much));
        assert!(!has_room(usize::MAX));
        assert!(zeroed::<u8>(much).is_none());
        assert!(zeroed::<u32>(usize::MAX).is_none());
    }
}
