//! The sole right to a piece of an arena.
//!
//! Contract: plain values; a block moves between threads with its owner; nothing allocates or
//! blocks. A block dropped instead of freed leaves its bytes unusable for ever.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// The sole right to a piece of an [`Arena`](super::Arena).
pub struct Block {
    bytes: NonNull<u8>,
    /// Usable bytes, the requested number.
    len: u32,
    place: Place,
}

/// The place of a block in its arena, but for the unit, which the address tells: a block is two
/// words, and goes through registers. Without a `bool`, whose spare values would tell an absent block
/// from others: the compiler copies an `Option<Block>` around such a byte, in pieces.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Index of the region.
    pub(super) region: u8,
    pub(super) order: u8,
    /// 1 in memory mapped from the device, 0 in heap.
    device_memory: u8,
}

impl Place {
    pub(super) const fn new(region: u8, order: u8, in_device_memory: bool) -> Self {
        Self { region, order, device_memory: in_device_memory as u8 }
    }

    pub(super) const fn is_in_device_memory(self) -> bool {
        self.device_memory != 0
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
        Self { bytes, len, place }
    }

    /// Address of the first byte, for handing to libusb.
    pub(crate) const fn as_ptr(&self) -> *mut u8 {
        self.bytes.as_ptr()
    }

    pub(super) const fn place(&self) -> Place {
        self.place
    }

    /// Whether the block lies in memory mapped from the device.
    #[must_use]
    pub const fn is_in_device_memory(&self) -> bool {
        self.place.is_in_device_memory()
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `new` was promised `len` initialised bytes for this block alone.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr(), self.len as usize) }
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` proves exclusive access.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.as_ptr(), self.len as usize) }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let region = self.place.region;
        f.debug_struct("Block").field("len", &self.len).field("region", &region).finish()
    }
}
