//! The sole right to a piece of an arena.
//!
//! Contract: plain values; a block moves between threads with its owner; nothing allocates or
//! blocks. A block dropped instead of freed leaves its bytes unusable for ever.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// The sole right to a piece of an [`Arena`](super::Arena). Two plain words, as a slice's reference
/// is: so blocks, absent blocks and results with blocks go through registers, and no copy of a
/// block goes through the stack.
pub struct Block {
    bytes: NonNull<u8>,
    /// Usable bytes, the requested number, in the lower half; the [`Place`] in the upper half.
    len_and_place: u64,
}

/// The place of a block in its arena, but for the unit, which the address tells: the index of the
/// region, the order, and whether the region is memory mapped from the device, a byte each.
#[derive(Clone, Copy)]
pub(super) struct Place(u32);

impl Place {
    pub(super) const fn new(region: u8, order: u8, in_device_memory: bool) -> Self {
        Self(u32::from_le_bytes([region, order, in_device_memory as u8, 0]))
    }

    /// Index of the region.
    pub(super) const fn region(self) -> u8 {
        self.0.to_le_bytes()[0]
    }

    pub(super) const fn order(self) -> u8 {
        self.0.to_le_bytes()[1]
    }

    pub(super) const fn is_in_device_memory(self) -> bool {
        self.0.to_le_bytes()[2] != 0
    }
}

const _: () = assert!(size_of::<Option<Block>>() <= 16);

// SAFETY: a block is the only path to its bytes, and may move with the owner; no byte
// depends on a thread.
unsafe impl Send for Block {}

impl Block {
    /// A block of `len` bytes.
    ///
    /// # Safety
    /// The `len` bytes are initialised, without another path to them, and stay allocated until
    /// the block goes home, or for ever.
    pub(super) const unsafe fn new(bytes: NonNull<u8>, len: u32, place: Place) -> Self {
        Self { bytes, len_and_place: len as u64 | (place.0 as u64) << u32::BITS }
    }

    /// Address of the first byte, for handing to libusb.
    pub(crate) const fn as_ptr(&self) -> *mut u8 {
        self.bytes.as_ptr()
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    const fn bytes_len(&self) -> usize {
        self.len_and_place as u32 as usize
    }

    pub(super) const fn place(&self) -> Place {
        Place((self.len_and_place >> u32::BITS) as u32)
    }

    /// Whether the block lies in memory mapped from the device.
    #[must_use]
    pub const fn is_in_device_memory(&self) -> bool {
        self.place().is_in_device_memory()
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `new` was promised `len` initialised bytes for this block alone.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr(), self.bytes_len()) }
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` proves exclusive access.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.as_ptr(), self.bytes_len()) }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let region = self.place().region();
        f.debug_struct("Block").field("len", &self.bytes_len()).field("region", &region).finish()
    }
}
