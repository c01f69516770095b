//! The system's memory for USB transfers: a port's mapping, bytes in flight, and transfers too long
//! for any memory.
//!
//! A long transfer in mapped memory costs the kernel neither memory nor a copy, but mapped memory,
//! used or not, is lost to everybody else. Therefore
//!
//! - a device gets a mapping when long transfers have moved as many bytes as the mapping has: the
//!   kernel fills a mapping with zeroes, which costs about as much as the copies did;
//! - all mappings together are bounded ([`pool`]);
//! - when a URB of any device is refused, every device gives its mapping up as soon as no URB lies
//!   in the mapping, and for a while no mapping is made;
//! - an idle device gives its mapping back, and earns the next as it did the first;
//! - a mapping is not used if the processor reads it slowly ([`probe`]).
//!
//! [`super::share`] bounds the bytes in flight. While a device waits for refused memory, other
//! devices let the waiting device try before they take more.
//!
//! Contract: calls that end in `_blocking` are for workers, all others for the reactor.

mod pool;
mod probe;

use std::time::{Duration, Instant};

use log::debug;
use usbferry_sys::arena::DeviceMemory;
use usbferry_sys::libusb::handle::DeviceHandle;

use self::pool::{MAPPING_MIN, PARAMETER, POOL, Reservation, Starving, limit_blocking};
use self::probe::is_uncached;
use super::share::{Cost, Share};
use crate::complaints::{info, warn};
use crate::usb::{MemoryChange, Submission};
use crate::wire::types::{BusId, TransferType};

/// Bytes from which on a transfer is long. A transfer shorter than the usual piece of scattered
/// memory gains too little for the place in the mapping.
const LONG: usize = usbferry_sys::arena::DEVICE_BLOCK_MIN;

/// Time between two looks at the limit, while a device could use more than its share.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Bytes to move before the next try, in times of a mapping's bytes, after a mapping was given up
/// or could not be had.
const MAP_AGAIN_AFTER: usize = 64;

/// Bytes that the kernel has in one piece at most, where pages have 4 KiB (`KMALLOC_MAX_SIZE`).
const CONTIGUOUS_MAX: u64 = 4 << 20;

/// A port's memory of the system.
pub(super) struct PortMemory {
    /// Bytes that all programs have together.
    limit: Option<u64>,
    /// Bytes to map at most.
    wanted: usize,
    /// Bytes of long transfers outside mapped memory, and the number from which on a mapping is
    /// tried.
    copied: usize,
    due: usize,
    /// The reservation of the mapping.
    mapped: Option<Reservation>,
    /// Refusals of the pool, when this port last acted.
    refusals_seen: u32,
    giving_up: bool,
    /// The mapping is of no use for now.
    is_idle: bool,
    /// The limit may be another by now.
    looks_again: bool,
    /// When a URB without room last asked for a look at the limit.
    looked_at: Option<Instant>,
    /// Bytes in flight.
    share: Share,
    starving: Option<Starving>,
    /// The log has a transfer too long for any memory.
    told: bool,
}

impl PortMemory {
    /// For a port with a mapping of `wanted` bytes at most. *Blocks.*
    pub(super) fn new_blocking(wanted: usize) -> Self {
        Self {
            limit: limit_blocking(),
            wanted,
            copied: 0,
            due: first_due(wanted),
            mapped: None,
            refusals_seen: 0,
            giving_up: false,
            is_idle: false,
            looks_again: false,
            looked_at: None,
            share: Share::new(),
            starving: None,
            told: false,
        }
    }

    /// Whether a transfer may be tried. `is_first`: no other transfer of its endpoint is in flight.
    #[inline(always)]
    pub(super) fn has_room(
        &mut self,
        cost: Cost,
        is_first: bool,
        busid: &BusId,
        now: Instant,
    ) -> bool {
        cost.is_little() || self.has_room_for_much(cost, is_first, busid, now)
    }

    #[inline(never)]
    fn has_room_for_much(
        &mut self,
        cost: Cost,
        is_first: bool,
        busid: &BusId,
        now: Instant,
    ) -> bool {
        let Some(limit) = self.limit else { return true };
        let mapped = POOL.mapped() as u64;
        let has_room = self.share.has_room(cost.bytes, is_first, limit, mapped);
        if !has_room && self.looked_at.is_none_or(|at| now >= at + LOOK_INTERVAL) {
            (self.looks_again, self.looked_at) = (true, Some(now));
            debug!(
                "{busid}: the device has its share of the system's memory, and transfers wait for \
                 each other"
            );
        }
        has_room
    }

    /// Notes a submitted transfer.
    #[inline(always)]
    pub(super) fn note_submitted(&mut self, length: usize, cost: Cost) {
        self.share.add(cost.bytes);
        if length >= LONG && !cost.in_mapping {
            self.copied = self.copied.saturating_add(length);
        }
    }

    /// Notes an ended transfer, by the bytes of its cost.
    pub(super) fn note_ended(&mut self, bytes: u64) {
        self.share.sub(bytes);
    }

    /// Notes a transfer without memory in the system.
    pub(super) fn note_refused(&mut self, now: Instant) {
        POOL.note_refused(now);
        self.looks_again = true;
    }

    /// URBs of all ports refused so far, modulo 2^32.
    pub(super) fn refusals() -> u32 {
        POOL.refusals()
    }

    /// Whether the mapping has to go, because a URB of this or another port was refused.
    pub(super) fn has_to_give_up(&self) -> bool {
        self.mapped.is_some() && self.refusals_seen != POOL.refusals()
    }

    /// Acts on [`Self::has_to_give_up`].
    pub(super) fn look_around(&mut self) {
        if self.has_to_give_up() {
            self.refusals_seen = POOL.refusals();
            self.giving_up = true;
        }
    }

    /// Notes that no transfer will use the mapping for long.
    pub(super) const fn note_idle(&mut self) {
        self.is_idle = self.mapped.is_some();
    }

    /// The change for a worker to make, if any.
    pub(super) const fn change(&self) -> Option<MemoryChange> {
        if self.looks_again {
            Some(MemoryChange::Look)
        } else if self.giving_up || self.is_idle {
            Some(MemoryChange::GiveUp)
        } else if self.copied >= self.due && self.mapped.is_none() {
            Some(MemoryChange::Map)
        } else {
            None
        }
    }

    /// Makes a change; `given_up` is the old mapping. Returns a new mapping. *Blocks.*
    pub(super) fn change_blocking(
        &mut self,
        change: MemoryChange,
        given_up: Option<DeviceMemory>,
        handle: &DeviceHandle,
        busid: BusId,
    ) -> Option<DeviceMemory> {
        self.limit = limit_blocking();
        self.looks_again = false;
        match change {
            MemoryChange::Look => None,
            MemoryChange::GiveUp => {
                drop(given_up);
                let len = self.mapped.take().map_or(0, |mapped| mapped.len);
                if self.giving_up {
                    self.put_off();
                    debug!("{busid}: {len} bytes of device memory were given up for others");
                } else {
                    (self.copied, self.due) = (0, first_due(self.wanted));
                    debug!(
                        "{busid}: {len} bytes of device memory were given back, nobody uses them"
                    );
                }
                (self.giving_up, self.is_idle) = (false, false);
                None
            }
            MemoryChange::Map => {
                self.put_off();
                let mapping = self.map_blocking(handle)?;
                self.use_if_cached(mapping, busid)
            }
        }
    }

    /// Leaves the next mapping for later.
    const fn put_off(&mut self) {
        self.copied = 0;
        self.due = self.wanted.saturating_mul(MAP_AGAIN_AFTER);
    }

    fn map_blocking(&mut self, handle: &DeviceHandle) -> Option<DeviceMemory> {
        if POOL.is_short(Instant::now()) {
            return None;
        }
        let mut wanted = self.wanted;
        loop {
            let reservation = POOL.reserve(self.limit, wanted)?;
            self.refusals_seen = POOL.refusals();
            if let Some(memory) = handle.map_memory_blocking(reservation.len) {
                self.mapped = Some(reservation);
                return Some(memory);
            }
            // The system has no piece as long as this, and may have a shorter one.
            wanted = reservation.len / 2;
        }
    }

    /// Does without a mapping if the processor reads the mapping slowly.
    fn use_if_cached(&mut self, mut mapping: DeviceMemory, busid: BusId) -> Option<DeviceMemory> {
        let len = mapping.len();
        if !is_uncached(mapping.bytes_mut()) {
            debug!("{busid}: {len} bytes of device memory");
            return Some(mapping);
        }
        info!(
            "{busid}: memory mapped from the device is not cached on this machine, and not used \
             (--device-memory 0 saves the attempt)"
        );
        drop(mapping);
        (self.mapped, self.due) = (None, usize::MAX);
        None
    }

    /// Whether another port waits for memory.
    pub(super) fn others_starve(&self) -> bool {
        POOL.starving() > u32::from(self.starving.is_some())
    }

    /// Notes whether this port waits for memory.
    pub(super) fn set_starving(&mut self, starving: bool) {
        if starving != self.starving.is_some() {
            self.starving = starving.then(|| Starving::new(&POOL));
        }
    }

    /// Whether a transfer needs more memory than the system has for all programs; the log says so
    /// once.
    pub(super) fn can_never_be_had(
        &mut self,
        submission: Submission<'_>,
        cost: Cost,
        busid: &BusId,
    ) -> bool {
        let scattered = submission.transfer_type == TransferType::Bulk;
        let in_one_piece = !cost.in_mapping && !scattered && cost.requests == 1;
        let length = submission.length;
        let message = match self.limit {
            Some(limit) if cost.bytes > limit => format!(
                "Linux has {} MiB for the USB transfers of all programs. More: echo 256 > {PARAMETER}",
                limit >> 20
            ),
            _ if in_one_piece && length as u64 > CONTIGUOUS_MAX => {
                format!("Linux has no more than {} MiB in one piece", CONTIGUOUS_MAX >> 20)
            }
            _ => return false,
        };
        if !std::mem::replace(&mut self.told, true) {
            warn!("{busid}: a transfer of {length} bytes gets -ENOMEM: {message}");
        }
        true
    }
}

/// Bytes to move before a device has a mapping of `wanted` bytes.
const fn first_due(wanted: usize) -> usize {
    if wanted < MAPPING_MIN { usize::MAX } else { wanted }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::iso::Packets;
    use crate::wire::types::EndpointAddress;

    const MIB: usize = 1 << 20;

    fn submission(transfer_type: TransferType, length: usize) -> Submission<'static> {
        Submission {
            endpoint: EndpointAddress::from_byte(0x81),
            transfer_type,
            length,
            zero_packet: false,
            is_first: true,
            packets: Packets::new(&[]),
        }
    }

    #[test]
    fn memory_that_the_system_never_has_is_told_from_memory_that_is_short_now() {
        let busid = BusId::new("1-1").unwrap();
        let mut memory = PortMemory::new_blocking(0);
        let mut never = |limit, transfer_type, length, requests, in_mapping| {
            memory.limit = limit;
            let submission = submission(transfer_type, length);
            let cost = Cost::of(&submission, requests, in_mapping);
            memory.can_never_be_had(submission, cost, &busid)
        };
        let limit = Some(16 << 20);
        assert!(never(limit, TransferType::Bulk, 16 * MIB, 1, false));
        assert!(never(limit, TransferType::Bulk, 16 * MIB - 10_000, 1, false), "its entries");
        assert!(!never(limit, TransferType::Bulk, 16 * MIB - 40_000, 1, false));
        assert!(!never(limit, TransferType::Bulk, 16 * MIB, 1, true), "it is mapped already");
        assert!(!never(None, TransferType::Bulk, 512 * MIB, 1, false));
        assert!(never(Some(4 << 20), TransferType::Bulk, 4 * MIB, 1, false));
        assert!(!never(Some(4 << 20), TransferType::Bulk, 3 * MIB, 1, false));
        // Split by libusb, each request has a cost of its own.
        assert!(never(limit, TransferType::Bulk, 16 * MIB - 100_000, 1024, false));
        assert!(!never(limit, TransferType::Bulk, 16 * MIB - 400_000, 1024, false));
        // Memory that is not scattered is needed in one piece.
        assert!(never(limit, TransferType::Interrupt, 4 * MIB + 1, 1, false));
        assert!(!never(limit, TransferType::Interrupt, 4 * MIB, 1, false));
    }
}
