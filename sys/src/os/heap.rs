//! Memory that may be refused, from the system and not from the allocator.
//!
//! The language ends the process when an allocation fails. So large memory, requested while there
//! are sessions, is requested here. The system may refuse, and [`RESERVE`] is left to all the small
//! allocations, which cannot fail: existing sessions go on.
//!
//! Contract: nothing blocks, and memory is committed as it is used.

use std::alloc::Layout;
use std::ffi::c_void;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::slice;

/// Bytes of address space that large allocations leave to small ones. Several devices can be opened
/// at once, each by a thread with a stack of 2 MiB, and with a few hundred kilobytes of transfers.
pub const RESERVE: usize = 16 << 20;

/// Bytes from which on a piece is large. A device needs a few smaller pieces, together less than a
/// third of [`RESERVE`]; the reserve is looked for again before the next device is opened.
const LARGE: usize = 2 << 20;

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
    let len = len.max(1);
    let Some(start) = map(len) else { return false };
    // SAFETY: mapped above with this length, and unknown to any other code.
    unsafe { libc::munmap(start.as_ptr(), len) };
    true
}

/// Zeroes from the system, in pages of their own: no memory is committed before use, and the memory
/// goes back to the system when dropped.
///
/// The allocator would promise neither: glibc serves a large request from freed memory where a
/// piece is long enough, and then writes the zeroes.
pub struct Zeroed<T: Zero> {
    start: NonNull<T>,
    /// In values, not bytes.
    len: usize,
}

// SAFETY: the values are reached through this owner alone, and belong to no thread.
unsafe impl<T: Zero + Send> Send for Zeroed<T> {}
// SAFETY: a shared owner gives out shared references alone.
unsafe impl<T: Zero + Sync> Sync for Zeroed<T> {}

impl<T: Zero> Zeroed<T> {
    /// `len` zeroes. `None` when the system has no memory or address space, or, for a large piece,
    /// less than [`RESERVE`] in addition.
    #[must_use]
    pub fn new(len: usize) -> Option<Self> {
        let bytes = Layout::array::<T>(len).ok()?.size();
        if bytes == 0 {
            return Some(Self { start: NonNull::dangling(), len });
        }
        let zeroed = Self { start: map(bytes)?.cast(), len };
        (bytes < LARGE || has_room(RESERVE)).then_some(zeroed)
    }

    /// The first value, which stays in its place when the owner is moved.
    #[must_use]
    pub(crate) const fn start(&self) -> NonNull<T> {
        self.start
    }
}

impl<T: Zero> Deref for Zeroed<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `new` mapped `len` values, all zeroes at first, which are valid values; without
        // values the address is aligned and not null.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Zero> DerefMut for Zeroed<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`, and the owner is borrowed for as long as the slice.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Zero> Drop for Zeroed<T> {
    fn drop(&mut self) {
        let bytes = self.len * size_of::<T>();
        if bytes > 0 {
            // SAFETY: mapped by `new` with this length, and no reference outlives the owner.
            unsafe { libc::munmap(self.start.as_ptr().cast(), bytes) };
        }
    }
}

/// A new mapping of `len` bytes, which are zero; `len` is not zero.
fn map(len: usize) -> Option<NonNull<c_void>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
    // SAFETY: a new mapping, wherever the system likes, touches nobody's memory.
    let start = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED { None } else { NonNull::new(start) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroes_are_as_many_as_were_asked_for() {
        // Miri looks at each number for microseconds.
        let long = if cfg!(miri) { 5000 } else { 1 << 20 };
        for len in [0, 1, 1000, long] {
            let zeroes = Zeroed::<u32>::new(len).expect("a few megabytes");
            assert!(zeroes.len() == len && zeroes.iter().all(|&number| number == 0));
        }
    }

    /// A device opened after another was given back, whose transfers were some megabytes in small
    /// blocks.
    #[cfg(target_os = "linux")]
    #[test]
    #[cfg_attr(miri, ignore = "asks the system")]
    fn zeroes_commit_nothing_though_as_much_was_freed() {
        const PAGES: usize = 256;
        let blocks: Vec<Vec<u8>> = (0..400).map(|_| vec![1; 10_000]).collect();
        drop(blocks);
        let mut zeroes = Zeroed::<u8>::new(PAGES * 4096).expect("a megabyte");
        zeroes[5 * 4096] = 1;
        let mut residency = [0; PAGES];
        // SAFETY: the pages are the mapping's, and there is a byte for each.
        let asked = unsafe {
            libc::mincore(zeroes.start().as_ptr().cast(), zeroes.len(), residency.as_mut_ptr())
        };
        let resident = residency.iter().filter(|&&page| page & 1 == 1).count();
        assert!(asked == 0 && resident < PAGES / 2, "{resident} pages of {PAGES}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri ends where memory does")]
    fn impossible_memory_is_refused() {
        // A quarter of 64 bits; of 32, a quarter is a gigabyte.
        let much = if usize::BITS == 64 { usize::MAX / 4 } else { usize::MAX / 8 * 7 };
        assert!(!has_room(much));
        assert!(!has_room(usize::MAX));
        assert!(Zeroed::<u8>::new(much).is_none());
        assert!(Zeroed::<u32>::new(usize::MAX).is_none());
    }
}
