//! A region of an arena: contiguous memory, its owner, and its free units.
//!
//! Contract: allocation in [`Region::heap`] and [`Region::device`] alone; dropping gives the memory
//! back, so the arena drops a region only while no block of the region is out.

use std::ptr::NonNull;

use super::buddies::Buddies;
use super::{BLOCK_LEN_MIN, DEVICE_BLOCK_MIN, NoMemory, PIECE_LEN};
use crate::os::heap::Zeroed;

const PIECE_UNITS: usize = PIECE_LEN / BLOCK_LEN_MIN;

/// Memory mapped from a device, with its owner: dropping unmaps. The arena knows neither the owner
/// nor the origin of the mapping.
pub struct DeviceMemory {
    base: NonNull<u8>,
    len: usize,
    /// Unmaps when dropped, before the device can be closed.
    _owner: Box<dyn Send>,
}

// SAFETY: the bytes are reached through this value alone, and by the promise to `new` the bytes do
// not belong to a thread.
unsafe impl Send for DeviceMemory {}

impl DeviceMemory {
    /// `len` bytes of memory, kept mapped by `owner`.
    ///
    /// # Safety
    /// The bytes are initialised, may be used from any thread, and stay mapped until `owner` is
    /// dropped; no other path leads to them.
    pub(crate) unsafe fn new(base: NonNull<u8>, len: usize, owner: Box<dyn Send>) -> Self {
        Self { base, len, _owner: owner }
    }

    /// Length in bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "nothing is mapped without bytes")]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// The bytes, hidden while an arena has the mapping.
    #[must_use]
    pub const fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `new` was promised `len` initialised bytes for this value alone: an arena takes
        // the mapping before blocks are handed out, and returns the mapping when no block is out.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }
}

/// The origin of a region's bytes, and their owner.
enum Origin {
    Heap(Zeroed<u8>),
    Device(DeviceMemory),
}

/// Contiguous memory, cut by the buddy rule.
pub(super) struct Region {
    base: NonNull<u8>,
    origin: Origin,
    buddies: Buddies,
    /// Whether the region hands out no more blocks.
    given_up: bool,
}

impl Region {
    /// A region of `len` bytes of zeroed heap, a power of two.
    pub(super) fn heap(len: usize) -> Result<Self, NoMemory> {
        let buddies = Buddies::new(len / BLOCK_LEN_MIN).ok_or(NoMemory)?;
        let bytes = Zeroed::new(len).ok_or(NoMemory)?;
        let base = bytes.start();
        let origin = Origin::Heap(bytes);
        Ok(Self { base, origin, buddies, given_up: false })
    }

    /// A region of the first `len` bytes of a mapping, a power of two.
    pub(super) fn device(memory: DeviceMemory, len: usize) -> Result<Self, NoMemory> {
        let buddies = Buddies::new(len / BLOCK_LEN_MIN).ok_or(NoMemory)?;
        let base = memory.base;
        Ok(Self { base, origin: Origin::Device(memory), buddies, given_up: false })
    }

    pub(super) const fn is_device_memory(&self) -> bool {
        matches!(self.origin, Origin::Device(_))
    }

    /// Whether a block of `len` bytes may come from here.
    pub(super) const fn is_for(&self, len: usize) -> bool {
        !self.is_device_memory() || len >= DEVICE_BLOCK_MIN && !self.given_up
    }

    /// Takes a block of the given order.
    pub(super) fn alloc(&mut self, order: u8) -> Option<NonNull<u8>> {
        let unit = self.buddies.alloc(order)?;
        Some(self.start(unit))
    }

    /// Takes the block of heap of the given order that was freed last, if there is one.
    #[inline(always)]
    pub(super) fn alloc_recent_heap(&mut self, order: u8) -> Option<NonNull<u8>> {
        if self.is_device_memory() {
            return None;
        }
        let unit = self.buddies.alloc_recent(order)?;
        Some(self.start(unit))
    }

    /// The first byte of a block handed out.
    #[inline(always)]
    fn start(&self, unit: u32) -> NonNull<u8> {
        // SAFETY: `unit` lies in the region, so the offset stays inside its allocation.
        unsafe { self.base.add(unit as usize * BLOCK_LEN_MIN) }
    }

    /// Takes back a block handed out by `alloc`. False for an address outside of the
    /// region.
    #[inline(always)]
    pub(super) fn free(&mut self, start: *mut u8, order: u8) -> bool {
        let offset = start.addr().wrapping_sub(self.base.addr().get());
        self.buddies.free(offset / BLOCK_LEN_MIN, order)
    }

    /// Gives the free pages of piece `piece` of heap back to the system. True when there are more
    /// pieces.
    pub(super) fn give_back(&mut self, piece: usize) -> bool {
        let Origin::Heap(bytes) = &mut self.origin else { return false };
        let units = self.buddies.units();
        let count = PIECE_UNITS.min(units);
        let first = piece * count;
        if first >= units {
            return false;
        }
        self.buddies.give_back(first, count, |free| {
            bytes.give_back(free.start * BLOCK_LEN_MIN..free.end * BLOCK_LEN_MIN);
        });
        let more = first + count < units;
        if !more {
            self.buddies.start_anew();
        }
        more
    }

    /// The first byte, to compare.
    #[cfg(all(test, target_os = "linux"))]
    pub(super) const fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Whether no block is out.
    pub(super) fn is_free(&self) -> bool {
        self.buddies.is_free()
    }

    /// Hands out no more blocks; returns whether none is out.
    pub(super) fn give_up(&mut self) -> bool {
        self.given_up = true;
        self.is_free()
    }

    /// Never gives the memory back.
    pub(super) fn leak(self) {
        std::mem::forget(self.origin);
    }

    /// The mapping of a region of device memory.
    pub(super) fn into_device_memory(self) -> Option<DeviceMemory> {
        match self.origin {
            Origin::Device(memory) => Some(memory),
            Origin::Heap(_) => None,
        }
    }
}
