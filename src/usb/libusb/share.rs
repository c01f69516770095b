//! The cost of a transfer in usbfs's memory, and a device's share of that memory.
//!
//! A client may leave any number of URBs pending on a device that never answers. If all these URBs
//! went to the system, the devices of other clients, and of other programs, would get -ENOMEM. So
//!
//! - a device's transfers may take a third of the memory left by the other devices of this program:
//!   the next device still finds two thirds, and many greedy devices get equal shares;
//! - the first URB of an endpoint may take more, so that no URB waits for other endpoints, as long
//!   as the device has no more than half of the limit;
//! - a device with next to nothing in flight may try any URB, and so may each URB that costs next
//!   to nothing.
//!
//! The system judges the URBs admitted here. A URB refused here is tried again when another URB of
//! the device has ended.
//!
//! Contract: for the reactor; nothing blocks or allocates.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::usb::Submission;
use crate::wire::types::TransferType;

/// A device may have one part in `PARTS` of the memory left by others, and one part in
/// `PARTS_FIRST` of the limit for the first URB of an endpoint.
const PARTS: u64 = 3;
const PARTS_FIRST: u64 = 2;

/// Bytes that count as next to nothing, for a URB and for all URBs of a device. The default number
/// of a device's URBs (`--urbs`) with this cost takes a quarter of a MiB.
const LITTLE: u64 = 1 << 10;
const LITTLE_IN_ALL: u64 = 64 << 10;

/// The kernel's least charge for a URB beside its buffer, in bytes: `struct async` and `struct urb`
/// (`proc_do_submiturb`); half as much with pointers of half the length.
const URB_COST: u64 = 288 / (64 / usize::BITS as u64);

/// Bytes of a piece of scattered memory, and of the piece's entry.
const PIECE_LEN: u64 = 16 << 10;
const PIECE_COST: u64 = 32 / (64 / usize::BITS as u64);

/// The kernel's charge for an isochronous packet, in bytes.
const PACKET_COST: u64 = 16;

/// Bytes in flight of the transfers of all ports of this program.
static IN_FLIGHT: AtomicU64 = AtomicU64::new(0);

/// The cost of a transfer to the system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cost {
    /// usbfs's charge for the transfer, at least.
    pub(super) bytes: u64,
    /// The transfer's requests to the system, at most.
    pub(super) requests: u32,
    /// Whether the data lies in memory mapped from the device.
    pub(super) in_mapping: bool,
}

impl Cost {
    /// Whether the cost is next to nothing, see [`Share::has_room`].
    pub(super) const fn is_little(&self) -> bool {
        self.bytes <= LITTLE
    }

    /// The cost of a transfer of the given number of requests (`proc_do_submiturb`).
    #[inline(always)]
    pub(super) fn of(submission: &Submission<'_>, requests: u32, in_mapping: bool) -> Self {
        let (length, count) = (submission.length as u64, u64::from(requests));
        // The length first: the comparison is the only one for most URBs.
        let is_scattered =
            length > PIECE_LEN && submission.transfer_type == TransferType::Bulk && count == 1;
        let buffer = match (in_mapping, is_scattered) {
            (true, _) => 0,
            (false, true) => length + length.div_ceil(PIECE_LEN) * PIECE_COST,
            (false, false) => length,
        };
        let bytes = buffer + count * URB_COST + submission.packets.len() as u64 * PACKET_COST;
        Self { requests, bytes, in_mapping }
    }
}

/// A port's part of all bytes in flight; given back when dropped.
///
/// The sum of all ports is brought up to date in steps of [`LITTLE_IN_ALL`], and when the port has
/// nothing in flight: a processor takes as long for each change as for the rest of a small URB's
/// account.
pub(super) struct Share {
    all: &'static AtomicU64,
    own: u64,
    /// The port's part of the sum.
    told: u64,
    /// The sum is brought up to date when `own` falls below the one, or grows to the other.
    tell_below: u64,
    tell_from: u64,
}

impl Share {
    pub(super) const fn new() -> Self {
        Self::of(&IN_FLIGHT)
    }

    const fn of(all: &'static AtomicU64) -> Self {
        Self { all, own: 0, told: 0, tell_below: 0, tell_from: LITTLE_IN_ALL }
    }

    /// Whether `cost` more bytes may be in flight, with the system's `limit` for all programs and
    /// `mapped` bytes of the limit mapped. `is_first`: the endpoint has nothing else in flight.
    pub(super) fn has_room(&self, cost: u64, is_first: bool, limit: u64, mapped: u64) -> bool {
        if cost <= LITTLE || self.own <= LITTLE_IN_ALL {
            return true;
        }
        let others = self.all.load(Ordering::Relaxed).saturating_sub(self.told) + mapped;
        let most = limit.saturating_sub(others) / PARTS;
        self.own + cost <= if is_first { most.max(limit / PARTS_FIRST) } else { most }
    }

    #[inline(always)]
    pub(super) fn add(&mut self, bytes: u64) {
        self.own += bytes;
        if self.own >= self.tell_from {
            self.tell();
        }
    }

    #[inline(always)]
    pub(super) fn sub(&mut self, bytes: u64) {
        self.own -= bytes;
        if self.own < self.tell_below {
            self.tell();
        }
    }

    #[cold]
    fn tell(&mut self) {
        // The sum wraps to what it was before a part that is taken off.
        self.all.fetch_add(self.own.wrapping_sub(self.told), Ordering::Relaxed);
        self.told = self.own;
        self.tell_from = self.told + LITTLE_IN_ALL;
        // After zero was told, there is no less to tell; else zero is told in any case.
        let least = u64::from(self.told > 0);
        self.tell_below = (self.told + 1).saturating_sub(LITTLE_IN_ALL).max(least);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.fetch_sub(self.told, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const LIMIT: u64 = 16 * MIB;

    fn share(all: &'static AtomicU64) -> Share {
        Share::of(all)
    }

    /// Fills a device's share with URBs of `cost` bytes.
    fn fill(share: &mut Share, cost: u64, is_first: bool) -> u64 {
        while share.has_room(cost, is_first, LIMIT, 0) {
            share.add(cost);
        }
        share.own
    }

    #[test]
    fn a_later_device_finds_memory_left() {
        static ALL: AtomicU64 = AtomicU64::new(0);
        let cost = 128 << 10;
        let mut last = u64::MAX;
        let hogs = [(); 8].map(|()| {
            let mut hog = share(&ALL);
            let has = fill(&mut hog, cost, false);
            assert!(has <= last && has >= cost, "{has}");
            last = has;
            hog
        });
        assert!(LIMIT - ALL.load(Ordering::Relaxed) >= MIB / 2, "too little is left");
        assert!(share(&ALL).has_room(MIB, false, LIMIT, 0), "a device without anything may try");
        drop(hogs);
        assert_eq!(ALL.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn other_devices_know_the_bytes_in_flight_but_for_next_to_nothing() {
        static ALL: AtomicU64 = AtomicU64::new(0);
        let mut own = share(&ALL);
        let bytes = [700, 60 << 10, 5 << 10, 1 << 20, 300, 64 << 10];
        let mut in_flight = 0;
        for bytes in bytes {
            own.add(bytes);
            in_flight += bytes;
            assert!(ALL.load(Ordering::Relaxed).abs_diff(in_flight) < LITTLE_IN_ALL);
        }
        for bytes in bytes {
            own.sub(bytes);
            in_flight -= bytes;
            assert!(ALL.load(Ordering::Relaxed).abs_diff(in_flight) < LITTLE_IN_ALL);
        }
        assert_eq!(ALL.load(Ordering::Relaxed), 0, "nothing is in flight");
    }

    #[test]
    fn devices_that_want_much_together_have_the_same() {
        static ALL: AtomicU64 = AtomicU64::new(0);
        let mut shares = [(); 6].map(|()| share(&ALL));
        for _ in 0..1000 {
            for share in &mut shares {
                let ended = share.own.min(64 << 10);
                share.sub(ended);
                fill(share, 64 << 10, false);
            }
        }
        let all: Vec<u64> = shares.iter().map(|share| share.own).collect();
        let [least, most] = [all.iter().min(), all.iter().max()].map(Option::unwrap);
        assert!(most - least <= 256 << 10, "{all:?}");
    }

    #[test]
    fn the_first_of_an_endpoint_does_not_wait_for_other_endpoints() {
        static ALL: AtomicU64 = AtomicU64::new(0);
        let mut own = share(&ALL);
        assert!(fill(&mut own, MIB, false) <= LIMIT / PARTS);
        assert!(own.has_room(MIB, true, LIMIT, 0) && !own.has_room(4 * MIB, true, LIMIT, 0));
        assert!(own.has_room(LITTLE, false, LIMIT, 0));
        // Regardless of other programs' memory: the system knows better.
        let mut other = share(&ALL);
        other.add(8 * MIB);
        assert!(own.has_room(MIB, true, LIMIT, 4 * MIB));
        assert!(fill(&mut own, MIB, true) <= LIMIT / PARTS_FIRST);
    }

    #[test]
    fn mapped_memory_is_not_there_for_others() {
        static ALL: AtomicU64 = AtomicU64::new(0);
        let mut own = share(&ALL);
        own.add(3 * MIB);
        assert!(own.has_room(MIB, false, LIMIT, 4 * MIB));
        assert!(!own.has_room(MIB + 1, false, LIMIT, 4 * MIB));
        assert!(!own.has_room(MIB, false, 0, 4 * MIB), "less than is used already");
    }
}
