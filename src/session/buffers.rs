//! The buffers of a device, of which the last part is for endpoints with nothing in flight, and the
//! news of a system without memory for more.
//!
//! Contract: nothing allocates but blocks of the device's own memory; nothing blocks.

use std::time::Instant;

use usbferry_sys::arena::{Arena, Block, DeviceMemory};

use super::urb::{UrbIndex, UrbTable};
use crate::limits::MEMORY_RESERVE_SHARE;
use crate::stats::Gauge;

/// The buffers of a session.
pub(super) struct Buffers {
    memory: Arena,
    /// Bytes of heap left to endpoints with nothing in flight.
    reserve: usize,
    /// Bytes of heap when no block is out.
    room: usize,
    /// Bytes of the blocks handed out, now and at most ever.
    in_use: usize,
    most_in_use: usize,
    /// There was no memory for a URB, which waits: when to try again, since other devices, too,
    /// give some back.
    pub(super) retry: Option<Instant>,
    /// The log was told of the system's memory being used up.
    pub(super) is_warned: bool,
}

impl Buffers {
    pub(super) const fn new(memory: Arena) -> Self {
        let room = memory.free_bytes();
        Self {
            reserve: room / MEMORY_RESERVE_SHARE,
            room,
            memory,
            in_use: 0,
            most_in_use: 0,
            retry: None,
            is_warned: false,
        }
    }

    /// A buffer of `length` bytes; only for an `idle` endpoint also from the last part.
    #[inline(always)]
    pub(super) fn take(&mut self, length: usize, idle: bool) -> Option<Block> {
        let reserve = if idle { 0 } else { self.reserve + length };
        if self.memory.free_bytes() < reserve {
            return None;
        }
        let block = self.memory.alloc(length)?;
        self.in_use += length;
        // No `max`, by which each block would write the number again.
        if self.in_use > self.most_in_use {
            self.most_in_use = self.in_use;
        }
        Some(block)
    }

    /// Takes a buffer back.
    #[inline(never)]
    pub(super) fn free(&mut self, block: Block) {
        self.take_back(block);
    }

    #[inline(always)]
    fn take_back(&mut self, block: Block) {
        self.in_use -= block.len();
        self.memory.free(block);
    }

    /// Frees a record and its buffer. Inlined on the way of most URBs only.
    #[inline(always)]
    pub(super) fn free_record(&mut self, urbs: &mut UrbTable, urb: UrbIndex) {
        if let Some(block) = urbs.remove(urb) {
            self.take_back(block);
        }
    }

    /// The same, apart from the way of most URBs.
    #[inline(never)]
    pub(super) fn free_record_apart(&mut self, urbs: &mut UrbTable, urb: UrbIndex) {
        self.free_record(urbs, urb);
    }

    /// Gives the free pages of a piece of the memory back to the system. True when there are more
    /// pieces.
    pub(super) fn give_back(&mut self, piece: usize) -> bool {
        self.memory.give_back(piece)
    }

    /// Bytes in use. Mapped memory counts as use, but not as room.
    pub(super) const fn gauge(&self) -> Gauge {
        Gauge::of(self.in_use, self.most_in_use, self.room)
    }

    /// Buffers handed out.
    pub(super) const fn outstanding(&self) -> usize {
        self.memory.outstanding()
    }

    /// Whether a buffer lies in device memory.
    pub(super) fn is_device_memory_in_use(&self) -> bool {
        self.memory.is_device_memory_in_use()
    }

    /// Hands out no more device memory; the mapping, once no buffer lies in it.
    pub(super) fn give_up_device_memory(&mut self) -> Option<DeviceMemory> {
        self.memory.give_up_device_memory()
    }

    /// Hands out device memory, too. Where the system has no memory for the account, all goes on in
    /// the heap.
    pub(super) fn add_device_memory(&mut self, mapped: DeviceMemory) {
        let _ = self.memory.add_device_memory(mapped);
    }

    /// The memory, to be closed with the device.
    pub(super) fn into_memory(self) -> Arena {
        self.memory
    }
}

#[cfg(any(test, fuzzing))]
impl Buffers {
    /// Bytes of heap in no block.
    pub(super) const fn free_bytes(&self) -> usize {
        self.memory.free_bytes()
    }

    /// Whether there is a buffer of `length` bytes, wherever.
    pub(super) fn has(&mut self, length: usize) -> bool {
        self.memory.alloc(length).map(|block| self.memory.free(block)).is_some()
    }
}

#[cfg(test)]
impl Buffers {
    /// A region of heap, of which `reserve` bytes are the last part.
    pub(super) fn with_reserve(len: usize, reserve: usize) -> Self {
        let mut memory = Arena::new();
        memory.add_heap(len).expect("there is memory");
        Self { reserve, ..Self::new(memory) }
    }
}
