//! Memory that may be refused, from the system and not from the allocator.
//!
//! The language ends the process when an allocation fails. So large memory, requested while there
//! are sessions, is requested here. The system may refuse, and [`RESERVE`] is left to all the small
//! allocations, which cannot fail: existing sessions go on.
//!
//! Memory that was used once stays committed until somebody gives back the pages
//! ([`give_back`], [`Zeroed::give_back`]). The owner keeps the addresses, and the next use commits
//! pages again. So memory is given back where nobody is in a hurry, and never by a wrong guess: a
//! page in use costs a page fault more, and nothing else.
//!
//! Contract: nothing blocks, and memory is committed as it is used. To give back a megabyte takes
//! some ten microseconds.

use std::alloc::Layout;
use std::collections::VecDeque;
use std::ffi::c_void;
use std::mem::{self, MaybeUninit};
use std::ops::{Deref, DerefMut, Range};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of address space that large allocations leave to small ones. Several devices can be opened
/// at once, each by a thread with a stack of 2 MiB, and with a few hundred kilobytes of transfers.
pub const RESERVE: usize = 16 << 20;

/// Bytes from which on a piece is large. A device needs a few smaller pieces, together less than a
/// third of [`RESERVE`]; the reserve is looked for again before the next device is opened.
const LARGE: usize = 2 << 20;

/// Places of a page, a line of the cache each, and the step from one owner's place to the next
/// owner's: all places are taken in turn, and neighbours have some lines for themselves.
const LINE_LEN: usize = 64;
const PLACES: usize = 4096 / LINE_LEN;
const PLACE_STEP: usize = 13;

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
    /// Bytes of the first page before the first value.
    shift: usize,
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
        Self::shifted(len, 0)
    }

    /// The same, at another place of its first page than others. The first values of most tables
    /// are used most: from the starts of pages, those of all tables would share a few places of a
    /// processor's first cache.
    #[must_use]
    pub fn apart(len: usize) -> Option<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(PLACE_STEP);
        let place = NEXT.fetch_add(PLACE_STEP, Ordering::Relaxed);
        Self::shifted(len, place % PLACES * LINE_LEN)
    }

    fn shifted(len: usize, shift: usize) -> Option<Self> {
        let bytes = Layout::array::<T>(len).ok()?.size();
        if bytes == 0 {
            return Some(Self { start: NonNull::dangling(), len, shift: 0 });
        }
        let first = map(bytes.checked_add(shift)?)?.cast::<u8>();
        // SAFETY: the mapping is longer than the shift.
        let start = unsafe { first.add(shift) }.cast();
        let zeroed = Self { start, len, shift };
        (bytes < LARGE || has_room(RESERVE)).then_some(zeroed)
    }

    /// The mapping's first byte.
    const fn first(&self) -> *mut u8 {
        self.start.as_ptr().cast::<u8>().wrapping_sub(self.shift)
    }

    /// Gives the whole pages of a range of values back to the system: each value is then the same
    /// or zero. Nobody else has a part of the pages of the first value and of the last.
    ///
    /// # Panics
    /// For a range beyond the values.
    pub fn give_back(&mut self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.len, "a range of the values");
        let offset = |value: usize| self.shift + value * size_of::<T>();
        let start = if range.start == 0 { 0 } else { offset(range.start) };
        let mut end = offset(range.end);
        if range.end == self.len {
            end = end.next_multiple_of(page_len());
        }
        // SAFETY: values of this owner, and the rest of their pages; by `Zero` zeroes are valid
        // values. Blocks of an arena in the same memory lie outside of the range, by the arena's
        // account.
        unsafe { give_back_bytes(self.first().wrapping_add(start), end - start) };
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
            unsafe { libc::munmap(self.first().cast(), self.shift + bytes) };
        }
    }
}

/// Gives the whole pages of unused room back to the system.
pub fn give_back<T>(room: &mut [MaybeUninit<T>]) {
    let bytes = size_of_val(room);
    // SAFETY: bytes without a value, which may become any others, borrowed for the call.
    unsafe { give_back_bytes(room.as_mut_ptr().cast(), bytes) };
}

/// Gives whole pages that were allocated and freed back to the system, where the allocator keeps
/// pages: glibc's. Threads that allocate meanwhile wait, for as long as the system takes for the
/// pages of one arena of the allocator.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    // SAFETY: the allocator takes pages that nobody has.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Gives the room of an empty queue back to the system. The queue keeps the addresses.
pub fn give_back_queue<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() {
        let mut room = Vec::from(mem::take(queue));
        give_back(room.spare_capacity_mut());
        *queue = room.into();
    }
}

/// Gives the whole pages among `len` bytes back to the system.
///
/// # Safety
/// The bytes belong to the caller, and may become zero.
pub(super) unsafe fn give_back_bytes(start: *mut u8, len: usize) {
    // Where the system may keep the pages until memory is short, the bytes may stay.
    const ADVICE: libc::c_int =
        if cfg!(target_os = "linux") { libc::MADV_DONTNEED } else { libc::MADV_FREE };
    let page = page_len();
    let skipped = start.addr().wrapping_neg() % page;
    let whole = len.saturating_sub(skipped) / page * page;
    // Miri knows no advice.
    if whole == 0 || cfg!(miri) {
        return;
    }
    // SAFETY: whole pages of the caller's own, by the caller's promise. A failure leaves the pages.
    unsafe { libc::madvise(start.wrapping_add(skipped).cast(), whole, ADVICE) };
}

/// Bytes of a page.
fn page_len() -> usize {
    // SAFETY: a question without a pointer.
    let len = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(len).expect("pages have a length")
}

/// A new mapping of `len` bytes, which are zero; `len` is not zero.
fn map(len: usize) -> Option<NonNull<c_void>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
    // SAFETY: a new mapping, wherever the system likes, touches nobody's memory.
    let start = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED { None } else { NonNull::new(start) }
}

/// Bytes of the pages of mapped memory that are committed.
#[cfg(all(test, target_os = "linux"))]
pub(crate) fn committed<T>(start: *const T, bytes: usize) -> usize {
    let page = page_len();
    let skipped = start.addr() % page;
    let first = start.cast_mut().cast::<u8>().wrapping_sub(skipped);
    let mut pages = vec![0; (skipped + bytes).div_ceil(page)];
    // SAFETY: a question, which touches no page, and there is a byte for each page.
    let asked = unsafe { libc::mincore(first.cast(), skipped + bytes, pages.as_mut_ptr()) };
    assert_eq!(asked, 0, "the pages are mapped");
    pages.iter().filter(|&&page| page & 1 == 1).count() * page
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
        let resident = committed(zeroes.start().as_ptr(), zeroes.len()) / 4096;
        assert!(resident < PAGES / 2, "{resident} pages of {PAGES}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    #[cfg_attr(miri, ignore = "asks the system")]
    fn pages_given_back_are_zero_and_can_be_used_again() {
        let page = page_len();
        let mut bytes = Zeroed::<u8>::new(16 * page).expect("some pages");
        bytes.fill(7);
        // Whole pages only: all but the first two and the last.
        bytes.give_back(page + 1..15 * page + 1);
        assert_eq!(committed(bytes.start().as_ptr(), 16 * page), 3 * page);
        assert!(bytes[..2 * page].iter().chain(&bytes[15 * page..]).all(|&byte| byte == 7));
        assert!(bytes[2 * page..15 * page].iter().all(|&byte| byte == 0));
        bytes.fill(8);
        assert!(bytes.iter().all(|&byte| byte == 8));
    }

    #[cfg(target_os = "linux")]
    #[test]
    #[cfg_attr(miri, ignore = "asks the system")]
    fn owners_apart_start_at_different_places_and_give_all_pages_back() {
        let page = page_len();
        let mut owners: Vec<_> = (0..4).map(|_| Zeroed::<u32>::apart(page).unwrap()).collect();
        let mut places: Vec<usize> =
            owners.iter().map(|owner| owner.start().as_ptr().addr() % page).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 4, "{places:?}");
        for owner in &mut owners {
            let (start, bytes) = (owner.start().as_ptr(), owner.len() * size_of::<u32>());
            owner.fill(7);
            assert!(committed(start, bytes) >= bytes);
            owner.give_back(0..page);
            assert_eq!(committed(start, bytes), 0);
            assert!(owner.iter().all(|&number| number == 0));
        }
    }

    /// Blocks that were freed between blocks in use.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    #[cfg_attr(miri, ignore = "asks the system")]
    fn freed_blocks_can_go_back_to_the_system() {
        const LEN: usize = 32 << 10;
        let mut blocks: Vec<Vec<u8>> = (0..200).map(|_| vec![1; LEN]).collect();
        let starts: Vec<*const u8> = blocks.iter().map(|block| block.as_ptr()).collect();
        let all = || starts.iter().map(|&start| committed(start, LEN)).sum::<usize>();
        let before = all();
        for block in blocks.iter_mut().step_by(2) {
            *block = Vec::new();
        }
        trim();
        let after = all();
        assert!(after < before * 3 / 4, "{after} bytes of {before}");
        assert!(blocks.iter().flatten().all(|&byte| byte == 1));
    }

    #[cfg(target_os = "linux")]
    #[test]
    #[cfg_attr(miri, ignore = "asks the system")]
    fn an_empty_queue_keeps_its_room_and_gives_back_the_pages() {
        const LEN: usize = 1 << 18;
        let mut queue: VecDeque<u64> = (0..LEN as u64).collect();
        let room = queue.capacity();
        give_back_queue(&mut queue);
        assert_eq!(queue.len(), LEN, "a queue in use is left alone");
        queue.clear();
        give_back_queue(&mut queue);
        assert_eq!(queue.capacity(), room);
        let still = committed(queue.make_contiguous().as_ptr(), LEN * size_of::<u64>());
        assert!(still < 4 * page_len(), "{still} bytes of an empty queue");
    }

    #[test]
    #[should_panic(expected = "a range of the values")]
    fn a_range_beyond_the_values_is_refused() {
        Zeroed::<u32>::new(10).expect("a page").give_back(0..11);
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
