//! Buffer memory of one device on loan: a few large regions, handed out as [`Block`]s.
//!
//! A device's memory is taken once, when the device is opened, so that no URB allocates. A region
//! is either zeroed heap, whose pages the system commits at their first touch, or memory mapped
//! from the device ([`DeviceMemory`]), which the host controller reads and writes without a copy.
//! A device region comes last, and can be given up again.
//!
//! Regions are cut by the buddy rule (`buddies`) into power-of-two blocks. Freed blocks go to the
//! front of a list of their own and are merged only when an allocation finds nothing, so that a
//! steady load takes the same few cache-warm blocks over and over at the price of a push and a pop.
//!
//! A [`Block`] is the sole right to its bytes. The owner of a block may read and write its bytes;
//! while a transfer is in flight, the owner is the transfer. Blocks can't be cloned and don't give
//! themselves back: [`Arena::free`] takes them home. An arena that is dropped while blocks are out
//! leaks its regions instead of freeing them, because the kernel may still write into a block.
//!
//! Contract: single-threaded use, movable between threads; allocation only in `new` and `add_*`,
//! which report a lack of memory; `free` panics on a block of another arena; nothing here blocks.

mod block;
mod buddies;
mod region;

use std::fmt;
use std::ptr::NonNull;

use self::block::Place;
use self::region::Region;

pub use self::block::Block;
pub use self::region::DeviceMemory;

/// Bytes of the smallest block. Four cache lines: no two blocks in flight share a line.
pub const BLOCK_LEN_MIN: usize = 256;

/// Bytes of the smallest block of device memory. Smaller blocks gain nothing from device memory,
/// and a block out for ever, such as an interrupt endpoint's, would keep the mapping from being
/// given up.
pub const DEVICE_BLOCK_MIN: usize = 16 << 10;

/// Bytes of heap in a piece that is given back at once, a power of two.
const PIECE_LEN: usize = 1 << 20;

/// Most regions an arena can hold: heap and device memory.
const REGIONS_MAX: usize = 2;

/// The system has no memory for a region or for the tables of its blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoMemory;

/// The buffer memory of one device.
pub struct Arena {
    regions: Vec<Region>,
    /// Blocks that are out.
    outstanding: usize,
    /// Bytes of heap not handed out.
    free_bytes: usize,
}

// SAFETY: the regions are owned by the arena alone and reached through `&mut self`; neither heap
// memory nor a device mapping belongs to a thread.
unsafe impl Send for Arena {}

impl Arena {
    /// An arena without memory; every allocation fails until a region is added.
    #[must_use]
    pub const fn new() -> Self {
        Self { regions: Vec::new(), outstanding: 0, free_bytes: 0 }
    }

    /// Adds `len` bytes of zeroed heap, rounded down to a power of two. Adding nothing is allowed.
    ///
    /// # Errors
    /// When the system refuses the address space, or has hardly more
    /// ([`RESERVE`](crate::os::heap::RESERVE)).
    ///
    /// # Panics
    /// When a third region is added.
    pub fn add_heap(&mut self, len: usize) -> Result<(), NoMemory> {
        let Some(len) = usable_len(len) else { return Ok(()) };
        self.add(Region::heap(len)?);
        self.free_bytes += len;
        Ok(())
    }

    /// Adds a mapping of the device's own memory; `len` of it is used, rounded down to a power of
    /// two.
    ///
    /// # Errors
    /// When there is no memory for the tables; the mapping is given back.
    ///
    /// # Panics
    /// When a third region is added.
    pub fn add_device_memory(&mut self, memory: DeviceMemory) -> Result<(), NoMemory> {
        let Some(len) = usable_len(memory.len()) else { return Ok(()) };
        self.add(Region::device(memory, len)?);
        Ok(())
    }

    fn add(&mut self, region: Region) {
        assert!(self.regions.len() < REGIONS_MAX, "an arena has two regions at most");
        self.regions.push(region);
    }

    /// Takes a block of `len` bytes, of device memory if a device region has room, or `None` when
    /// no region has room. The bytes hold what their last user left, or zeroes. A length of zero
    /// gives an empty block, which still has an address.
    #[inline]
    pub fn alloc(&mut self, len: usize) -> Option<Block> {
        let order = order_for(len)?;
        // The usual way: too short for device memory, and heap of the order was used before.
        if len < DEVICE_BLOCK_MIN
            && let Some(heap) = self.regions.first_mut()
            && let Some(bytes) = heap.alloc_recent_heap(order)
        {
            return Some(self.hand_out(bytes, len, Place::new(0, order, false)));
        }
        self.alloc_anywhere(len, order)
    }

    #[inline(never)]
    fn alloc_anywhere(&mut self, len: usize, order: u8) -> Option<Block> {
        for (index, region) in self.regions.iter_mut().enumerate().rev() {
            if !region.is_for(len) {
                continue;
            }
            let Some(bytes) = region.alloc(order) else {
                continue;
            };
            let in_device_memory = region.is_device_memory();
            let region = u8::try_from(index).expect("two regions at most");
            let place = Place::new(region, order, in_device_memory);
            return Some(self.hand_out(bytes, len, place));
        }
        None
    }

    /// A block of bytes that a region has just handed out.
    #[inline(always)]
    fn hand_out(&mut self, bytes: NonNull<u8>, len: usize, place: Place) -> Block {
        self.outstanding += 1;
        if !place.is_in_device_memory() {
            self.free_bytes -= BLOCK_LEN_MIN << place.order();
        }
        let len = u32::try_from(len).expect("order_for bounds the length");
        // SAFETY: the region handed the unit, and so these bytes, to this block alone; the
        // arena keeps the region alive, or leaks the region, while the block is out.
        unsafe { Block::new(bytes, len, place) }
    }

    /// Takes a block back.
    ///
    /// # Panics
    /// When the block came from another arena.
    #[inline(always)]
    pub fn free(&mut self, block: Block) {
        let place = block.place();
        let region = &mut self.regions[usize::from(place.region())];
        assert!(region.free(block.as_ptr(), place.order()), "the block belongs to another arena");
        self.outstanding -= 1;
        if !place.is_in_device_memory() {
            self.free_bytes += BLOCK_LEN_MIN << place.order();
        }
    }

    /// Hands out no more device memory, and returns the mapping as soon as no block of it is out.
    #[must_use]
    pub fn give_up_device_memory(&mut self) -> Option<DeviceMemory> {
        let region = self.regions.last_mut().filter(|region| region.is_device_memory())?;
        if !region.give_up() {
            return None;
        }
        self.regions.pop()?.into_device_memory()
    }

    /// Whether a block of device memory is out.
    #[must_use]
    pub fn is_device_memory_in_use(&self) -> bool {
        self.regions.last().is_some_and(|region| region.is_device_memory() && !region.is_free())
    }

    /// Gives the free pages of one `piece` of the heap, a megabyte, back to the system. The heap
    /// stays as it was for those who use it; blocks handed out keep their bytes, free blocks do
    /// not. Device memory is left alone. True when there are more pieces, from 0 on.
    pub fn give_back(&mut self, piece: usize) -> bool {
        self.regions.iter_mut().fold(false, |more, region| region.give_back(piece) | more)
    }

    /// Bytes of heap not handed out. Because blocks are powers of two, less may be usable.
    #[must_use]
    pub const fn free_bytes(&self) -> usize {
        self.free_bytes
    }

    /// Blocks that have not come home.
    #[must_use]
    pub const fn outstanding(&self) -> usize {
        self.outstanding
    }
}

impl Default for Arena {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("regions", &self.regions.len())
            .field("outstanding", &self.outstanding)
            .field("free_bytes", &self.free_bytes)
            .finish()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if self.outstanding > 0 {
            // The owner of a block, perhaps the kernel, still has a right to its bytes: a leak is
            // the lesser harm.
            self.regions.drain(..).for_each(Region::leak);
        }
    }
}

/// The largest power of two of bytes within `len`, or `None` below a block.
fn usable_len(len: usize) -> Option<usize> {
    (len >= BLOCK_LEN_MIN).then(|| 1 << len.ilog2())
}

/// The order whose blocks hold `len` bytes: `BLOCK_LEN_MIN << order`.
fn order_for(len: usize) -> Option<u8> {
    if len > i32::MAX as usize {
        return None;
    }
    // The bits that the last unit's number needs: units are rounded up to a power of two. One more
    // bit, and the logarithm asks nothing about zero.
    let last = len.saturating_sub(1) / BLOCK_LEN_MIN;
    u8::try_from((2 * last + 1).ilog2()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_os = "linux")]
    use crate::os::heap::committed;

    fn arena(len: usize) -> Arena {
        let mut arena = Arena::new();
        arena.add_heap(len).unwrap();
        arena
    }

    #[test]
    fn blocks_do_not_overlap_and_keep_their_bytes() {
        let mut arena = arena(64 * 1024);
        let lens = [1, 256, 257, 4096, 0, 8000];
        let mut blocks: Vec<Block> = lens.iter().map(|&len| arena.alloc(len).unwrap()).collect();
        for (i, block) in blocks.iter_mut().enumerate() {
            block.fill(u8::try_from(i).unwrap() + 1);
        }
        for (i, block) in blocks.iter().enumerate() {
            assert_eq!(block.len(), lens[i]);
            assert!(block.iter().all(|&b| usize::from(b) == i + 1));
        }
        blocks.into_iter().for_each(|block| arena.free(block));
        assert_eq!(arena.outstanding(), 0);
        assert_eq!(arena.free_bytes(), 64 * 1024);
    }

    #[test]
    fn the_block_freed_last_is_used_first() {
        let mut arena = arena(1 << 20);
        let first = arena.alloc(16384).unwrap();
        let second = arena.alloc(16384).unwrap();
        let warm = second.as_ptr();
        arena.free(first);
        arena.free(second);
        let again = arena.alloc(16000).unwrap();
        assert_eq!(again.as_ptr(), warm);
        arena.free(again);
    }

    #[test]
    fn small_free_blocks_merge_when_a_large_one_is_needed() {
        let mut arena = arena(64 * 1024);
        let blocks: Vec<Block> = (0..256).map(|_| arena.alloc(256).unwrap()).collect();
        assert!(arena.alloc(1).is_none(), "the region is used up");
        blocks.into_iter().for_each(|block| arena.free(block));
        let whole = arena.alloc(64 * 1024).expect("everything merges again");
        arena.free(whole);
    }

    #[test]
    fn a_second_region_is_used_when_the_first_is_full() {
        let mut arena = arena(4096);
        arena.add_heap(8192).unwrap();
        let blocks = [arena.alloc(4096), arena.alloc(4096), arena.alloc(4096)];
        assert!(blocks.iter().all(Option::is_some));
        assert!(arena.alloc(256).is_none());
        blocks.into_iter().flatten().for_each(|block| arena.free(block));
    }

    #[test]
    fn lengths_beyond_every_region_are_refused() {
        let mut arena = arena(4096);
        assert!(arena.alloc(4097).is_none());
        assert!(arena.alloc(usize::MAX).is_none());
        assert!(Arena::new().alloc(0).is_none());
    }

    #[test]
    fn random_use_never_hands_out_a_byte_twice() {
        let mut arena = arena(256 * 1024);
        let mut state = 0x9e37_79b9_u32;
        let mut live: Vec<(Block, u8)> = Vec::new();
        // Miri takes about a second for 10,000 bytes.
        let (rounds, len_max) = if cfg!(miri) { (300, 600) } else { (20_000, 12_000) };
        for round in 0..rounds {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let mark = u8::try_from(round % 251).unwrap();
            if live.len() > 40 || (state & 1 == 0 && !live.is_empty()) {
                let (block, mark) = live.swap_remove((state >> 8) as usize % live.len());
                assert!(block.iter().all(|&b| b == mark), "a block was written by another");
                arena.free(block);
            } else if let Some(mut block) = arena.alloc((state >> 12) as usize % len_max) {
                block.fill(mark);
                live.push((block, mark));
            }
        }
        live.into_iter().for_each(|(block, _)| arena.free(block));
        assert!(arena.alloc(256 * 1024).map(|block| arena.free(block)).is_some());
    }

    /// Resident memory of the process, by the kernel's count, in bytes.
    #[cfg(target_os = "linux")]
    fn resident_bytes() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("there is a /proc");
        let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * 4096
    }

    #[cfg(target_os = "linux")]
    #[test]
    #[cfg_attr(miri, ignore = "needs /proc")]
    fn heap_is_committed_as_it_is_used() {
        let before = resident_bytes();
        let mut arena = arena(512 << 20);
        let block = arena.alloc(4096).unwrap();
        assert!(block.iter().all(|&b| b == 0));
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 64 << 20, "{grown} bytes for a region that nobody has used");
        arena.free(block);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri ends where memory does")]
    fn impossible_memory_is_an_error_and_leaves_the_arena_unchanged() {
        let mut arena = arena(4096);
        assert_eq!(arena.add_heap(1 << (usize::BITS - 1)), Err(NoMemory));
        assert_eq!(arena.free_bytes(), 4096);
        arena.add_heap(4096).unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    #[cfg_attr(miri, ignore = "asks the system")]
    fn free_memory_goes_back_and_blocks_that_are_out_keep_their_bytes() {
        const LEN: usize = 32 << 20;
        let mut arena = arena(LEN);
        let start = arena.regions[0].base();
        let mut kept = Vec::new();
        // Every size, here and there a block that stays out.
        for len in [300, 5000, 70_000, 2 << 20] {
            let mut blocks: Vec<Block> = (0..9).map(|_| arena.alloc(len).unwrap()).collect();
            blocks.iter_mut().for_each(|block| block.fill(7));
            kept.push(blocks.swap_remove(4));
            blocks.into_iter().for_each(|block| arena.free(block));
        }
        let before = committed(start, LEN);
        (0..).find(|&piece| !arena.give_back(piece)).unwrap();
        let (after, out) = (committed(start, LEN), kept.iter().map(|block| block.len()).sum());
        // Each block may share a page with free blocks.
        assert!((out..out + kept.len() * 8192).contains(&after), "{before}, then {after} of {out}");
        assert!(kept.iter().all(|block| block.iter().all(|&byte| byte == 7)));
        kept.drain(..).for_each(|block| arena.free(block));
        let mut whole = arena.alloc(LEN).expect("everything merges");
        whole.fill(8);
        arena.free(whole);
        (0..).find(|&piece| !arena.give_back(piece)).unwrap();
        assert_eq!(committed(start, LEN), 0);
    }

    #[test]
    fn memory_given_back_at_any_time_is_still_handed_out_once() {
        let mut arena = arena(2 << 20);
        let mut live: Vec<(Block, u8)> = Vec::new();
        let mut state = 0x1234_5678_u32;
        for round in 0..if cfg!(miri) { 50 } else { 3000_usize } {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let mark = u8::try_from(round % 251).unwrap();
            match state >> 28 {
                0 => drop(arena.give_back(round % 3)),
                1..=7 if !live.is_empty() => {
                    let (block, mark) = live.swap_remove((state >> 8) as usize % live.len());
                    assert!(block.iter().all(|&b| b == mark), "a block was written by another");
                    arena.free(block);
                }
                _ => {
                    let len = (state >> 12) as usize % if cfg!(miri) { 600 } else { 20_000 };
                    if let Some(mut block) = arena.alloc(len) {
                        block.fill(mark);
                        live.push((block, mark));
                    }
                }
            }
        }
        live.into_iter().for_each(|(block, _)| arena.free(block));
        assert!(!arena.give_back(1));
        assert!(arena.alloc(2 << 20).map(|block| arena.free(block)).is_some());
    }

    #[test]
    fn regions_start_at_a_page() {
        for len in [256, 4096, 1 << 20] {
            let mut arena = arena(len);
            let block = arena.alloc(1).unwrap();
            assert!(block.as_ptr().addr().is_multiple_of(4096));
            arena.free(block);
        }
    }

    #[test]
    #[should_panic(expected = "another arena")]
    fn a_block_of_another_arena_is_refused() {
        let (mut one, mut other) = (arena(4096), arena(4096));
        let block = one.alloc(16).unwrap();
        other.free(block);
    }
}
