//! usbfs's memory: how much of it is mapped from devices, who waits for some, and what can never be
//! had.
//!
//! Linux gives all programs `usbfs_memory_mb` (16 MiB) together, for URBs in flight and for
//! mappings alike (`usbfs_increase_memory_usage` of `drivers/usb/core/devio.c`). A long transfer in
//! mapped memory costs the kernel neither memory nor a copy, but what is mapped nobody else has,
//! whether it is used or not. So
//!
//! - a device gets a mapping when by long transfers it has moved as much as that has bytes: the
//!   kernel fills it with zeroes, which costs about as much as those copies did;
//! - all mappings of this program are a quarter of the limit at most, each half of what is left of
//!   that quarter;
//! - when a URB of any device is refused, every device gives its mapping up as soon as no URB lies
//!   in it, and for a while none is made.
//!
//! How much transfers in flight may take is the matter of [`super::share`]. While a device waits
//! for memory that it was refused, others let it try before they take more.
//!
//! Contract: what ends in `_blocking` is for workers, the rest for the reactor.

use std::fs;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::debug;
use usbferry_sys::arena::DeviceMemory;
use usbferry_sys::libusb::handle::DeviceHandle;

use super::share::{Cost, Share};
use crate::complaints::{info, warn};
use crate::usb::{MemoryChange, Submission};
use crate::wire::types::{BusId, TransferType};

/// How many MiB Linux gives all programs; 0 is no limit.
const PARAMETER: &str = "/sys/module/usbcore/parameters/usbfs_memory_mb";

/// Bytes that it gives unless told otherwise.
const LIMIT_DEFAULT: u64 = 16 << 20;

/// Of the limit, one in this many bytes may be mapped by this program.
const SHARE: u64 = 4;

/// Smallest mapping worth having, in bytes.
const MAPPING_MIN: usize = 64 << 10;

/// Bytes of a transfer from which on it is long: what is gained by less than the usual piece of
/// scattered memory is not worth a place that others may need.
const LONG: usize = usbferry_sys::arena::DEVICE_BLOCK_MIN;

/// How long nothing is mapped after a URB was refused.
const REFUSAL_PAUSE: Duration = Duration::from_secs(10);

/// How often it is looked whether the limit is another, while a device could use more than its
/// share.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// After a mapping was given up, or could not be had, so many times its bytes are moved before the
/// next try.
const MAP_AGAIN_AFTER: usize = 64;

/// Bytes that the kernel has in one piece at most, where pages have 4 KiB (`KMALLOC_MAX_SIZE`).
const CONTIGUOUS_MAX: u64 = 4 << 20;

/// Bytes copied to see how fast a mapping is read, and how often. The best time counts.
const PROBE_LEN: usize = 64 << 10;
const PROBES: usize = 16;

/// A mapping that is read so many times slower than other memory is not cached.
const UNCACHED_RATIO: u32 = 4;

/// What the ports of this program share.
static POOL: Pool = Pool::new();

struct Pool {
    /// Bytes that are mapped.
    mapped: AtomicUsize,
    /// URBs refused so far, modulo 2^32.
    refusals: AtomicU32,
    /// When the last one was.
    refused_at: Mutex<Option<Instant>>,
    /// Ports that wait for memory.
    starving: AtomicU32,
}

impl Pool {
    const fn new() -> Self {
        Self {
            mapped: AtomicUsize::new(0),
            refusals: AtomicU32::new(0),
            refused_at: Mutex::new(None),
            starving: AtomicU32::new(0),
        }
    }

    /// Takes a part of what may be mapped, `wanted` bytes at most; `None` where it is not worth it.
    fn reserve(&'static self, limit: Option<u64>, wanted: usize) -> Option<Reservation> {
        let mut len = 0;
        let reserved = self.mapped.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |mapped| {
            len = part(limit, mapped, wanted)?;
            mapped.checked_add(len)
        });
        reserved.ok().map(|_| Reservation { pool: self, len })
    }

    fn refused(&self, now: Instant) {
        *self.refused_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a URB was refused not long ago.
    fn is_short(&self, now: Instant) -> bool {
        let refused_at = *self.refused_at.lock().unwrap_or_else(PoisonError::into_inner);
        refused_at.is_some_and(|at| now < at + REFUSAL_PAUSE)
    }
}

/// Bytes to map where `mapped` are mapped already: a power of two.
fn part(limit: Option<u64>, mapped: usize, wanted: usize) -> Option<usize> {
    let share =
        limit.map_or(usize::MAX, |limit| usize::try_from(limit / SHARE).unwrap_or(usize::MAX));
    let len = wanted.min(share.saturating_sub(mapped) / 2);
    (len >= MAPPING_MIN).then(|| 1 << len.ilog2())
}

/// The limit that the system has set, in bytes; `None` where there is none. *Blocks.*
fn limit_blocking() -> Option<u64> {
    fs::read_to_string(PARAMETER).map_or(Some(LIMIT_DEFAULT), |text| parse_limit(&text))
}

fn parse_limit(text: &str) -> Option<u64> {
    let mebibytes: u32 = text.trim().parse().unwrap_or(16);
    (mebibytes > 0).then(|| u64::from(mebibytes) << 20)
}

/// A part of what may be mapped; given back when dropped.
struct Reservation {
    pool: &'static Pool,
    len: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pool.mapped.fetch_sub(self.len, Ordering::Relaxed);
    }
}

/// Counts as one who waits until it is dropped.
struct Starving(&'static Pool);

impl Starving {
    fn new(pool: &'static Pool) -> Self {
        pool.starving.fetch_add(1, Ordering::Relaxed);
        Self(pool)
    }
}

impl Drop for Starving {
    fn drop(&mut self) {
        self.0.starving.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A port's part in it.
pub(super) struct PortMemory {
    /// Bytes that all programs have together.
    limit: Option<u64>,
    /// Bytes to map at most.
    wanted: usize,
    /// Bytes of long transfers outside mapped memory, and from which on a mapping is tried.
    copied: usize,
    due: usize,
    /// There is a mapping, or it is about to be given up.
    mapped: Option<Reservation>,
    /// The refusals that it has seen.
    refusals_seen: u32,
    giving_up: bool,
    /// The limit may be another by now.
    looks_again: bool,
    /// When a URB that had no room made it look again, last.
    looked_at: Option<Instant>,
    /// What is in flight.
    share: Share,
    starving: Option<Starving>,
    /// The log was told of a transfer that can't be had.
    told: bool,
}

impl PortMemory {
    /// For a port that may map `wanted` bytes. *Blocks.*
    pub(super) fn new_blocking(wanted: usize) -> Self {
        Self {
            limit: limit_blocking(),
            wanted,
            copied: 0,
            due: if wanted < MAPPING_MIN { usize::MAX } else { wanted },
            mapped: None,
            refusals_seen: 0,
            giving_up: false,
            looks_again: false,
            looked_at: None,
            share: Share::new(),
            starving: None,
            told: false,
        }
    }

    /// Whether a transfer may be tried. `is_first`: nothing else of its endpoint is in flight.
    pub(super) fn has_room(
        &mut self,
        cost: Cost,
        is_first: bool,
        busid: BusId,
        now: Instant,
    ) -> bool {
        let Some(limit) = self.limit else { return true };
        let mapped = POOL.mapped.load(Ordering::Relaxed) as u64;
        let has_room = self.share.has_room(cost.bytes, is_first, limit, mapped);
        if !has_room && self.looked_at.is_none_or(|at| now >= at + LOOK_INTERVAL) {
            (self.looks_again, self.looked_at) = (true, Some(now));
            debug!(
                "{busid}: it has its share of the system's memory, and transfers wait for each other"
            );
        }
        has_room
    }

    /// Notes a transfer that was submitted.
    pub(super) fn note_submitted(&mut self, length: usize, cost: Cost) {
        self.share.add(cost.bytes);
        if length >= LONG && !cost.in_mapping {
            self.copied = self.copied.saturating_add(length);
        }
    }

    /// Notes that a transfer has ended.
    pub(super) fn note_ended(&mut self, cost: Cost) {
        self.share.sub(cost.bytes);
    }

    /// Notes that the system had no memory for a transfer.
    pub(super) fn note_refused(&mut self, now: Instant) {
        POOL.refused(now);
        self.looks_again = true;
    }

    /// Whether a URB was refused, of this or another port, and the mapping has to go.
    pub(super) fn has_to_give_up(&self) -> bool {
        self.mapped.is_some() && self.refusals_seen != POOL.refusals.load(Ordering::Relaxed)
    }

    /// Acts on [`Self::has_to_give_up`].
    pub(super) fn look_around(&mut self) {
        if self.has_to_give_up() {
            self.refusals_seen = POOL.refusals.load(Ordering::Relaxed);
            self.giving_up = true;
        }
    }

    /// What is to be changed.
    pub(super) const fn change(&self) -> Option<MemoryChange> {
        if self.looks_again {
            Some(MemoryChange::Look)
        } else if self.giving_up {
            Some(MemoryChange::GiveUp)
        } else if self.copied >= self.due && self.mapped.is_none() {
            Some(MemoryChange::Map)
        } else {
            None
        }
    }

    /// Changes it; what is given up goes out of use. Returns what was mapped. *Blocks.*
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
                self.put_off();
                let len = self.mapped.take().map_or(0, |mapped| mapped.len);
                self.giving_up = false;
                debug!("{busid}: {len} bytes of device memory were given up for others");
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
            self.refusals_seen = POOL.refusals.load(Ordering::Relaxed);
            if let Some(memory) = handle.map_memory_blocking(reservation.len) {
                self.mapped = Some(reservation);
                return Some(memory);
            }
            // As much in one piece is not to be had, but less may be.
            wanted = reservation.len / 2;
        }
    }

    /// Does without a mapping that the processor reads slowly, as on boards whose controllers do
    /// not see its caches: every reply is read from it.
    fn use_if_cached(&mut self, mut mapping: DeviceMemory, busid: BusId) -> Option<DeviceMemory> {
        let len = mapping.len();
        if !is_uncached(mapping.bytes_mut()) {
            debug!("{busid}: {len} bytes of device memory");
            return Some(mapping);
        }
        info!(
            "{busid}: memory mapped from it is not cached on this machine, so it is not used \
             (--device-memory 0 saves the attempt)"
        );
        drop(mapping);
        (self.mapped, self.due) = (None, usize::MAX);
        None
    }

    /// Whether another port waits for memory.
    pub(super) fn others_starve(&self) -> bool {
        POOL.starving.load(Ordering::Relaxed) > u32::from(self.starving.is_some())
    }

    pub(super) fn set_starving(&mut self, starving: bool) {
        if starving != self.starving.is_some() {
            self.starving = starving.then(|| Starving::new(&POOL));
        }
    }

    /// Whether more is needed for a transfer than the system has for all; the log is told once.
    pub(super) fn can_never_be_had(
        &mut self,
        submission: &Submission<'_>,
        cost: Cost,
        busid: BusId,
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

/// Whether a mapping is read much slower than other memory. They are read by turns, so that a
/// machine that is busy for a while is so for both.
fn is_uncached(mapping: &[u8]) -> bool {
    let mapping = &mapping[..mapping.len().min(PROBE_LEN)];
    let (heap, mut to) = (vec![1; mapping.len()], vec![0; mapping.len()]);
    let mut best = [Duration::MAX; 2];
    for _ in 0..PROBES {
        for (best, from) in best.iter_mut().zip([mapping, &heap]) {
            *best = read_time(from, &mut to).min(*best);
        }
    }
    is_much_slower(best[0], best[1])
}

const fn is_much_slower(mapping: Duration, heap: Duration) -> bool {
    mapping.as_nanos() >= heap.as_nanos() * UNCACHED_RATIO as u128
}

/// How long it takes to copy from somewhere.
fn read_time(from: &[u8], to: &mut [u8]) -> Duration {
    let begun = Instant::now();
    to.copy_from_slice(std::hint::black_box(from));
    std::hint::black_box(to);
    begun.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::iso::Packets;
    use crate::wire::types::EndpointAddress;

    const MIB: usize = 1 << 20;

    #[test]
    fn all_mappings_are_a_quarter_of_the_limit_at_most() {
        for limit in [1, 4, 16, 64, 256].map(|mib| mib * MIB as u64) {
            let (mut mapped, mut last) = (0, usize::MAX);
            for device in 0..256 {
                let Some(len) = part(Some(limit), mapped, 2 * MIB) else { break };
                assert!((MAPPING_MIN..=2 * MIB).contains(&len) && len.is_power_of_two());
                assert!(len <= last, "device {device} has more than one before it");
                (mapped, last) = (mapped + len, len);
            }
            assert!(mapped as u64 <= limit / 4, "{mapped} of {limit}");
        }
        assert_eq!(part(Some(16 << 20), 0, 2 * MIB), Some(2 * MIB));
        assert_eq!(part(Some(16 << 20), 2 * MIB, 2 * MIB), Some(MIB));
        assert_eq!(part(Some(16 << 20), 4 * MIB, 2 * MIB), None);
        assert_eq!(part(None, 1 << 30, 2 * MIB), Some(2 * MIB), "no limit");
        assert_eq!(part(Some(16 << 20), 0, 3 * MIB), Some(2 * MIB));
        assert_eq!(part(Some(16 << 20), 0, 0), None, "--device-memory 0");
        assert_eq!(part(Some(u64::MAX), usize::MAX, MIB), None);
    }

    #[test]
    fn what_is_reserved_comes_back() {
        static POOL: Pool = Pool::new();
        let limit = Some(16 << 20);
        let first = POOL.reserve(limit, 2 * MIB).unwrap();
        let second = POOL.reserve(limit, 2 * MIB).unwrap();
        assert_eq!((first.len, second.len), (2 * MIB, MIB));
        drop(first);
        assert_eq!(POOL.mapped.load(Ordering::Relaxed), MIB);
        drop(second);
        assert_eq!(POOL.mapped.load(Ordering::Relaxed), 0);
        let now = Instant::now();
        assert!(!POOL.is_short(now));
        POOL.refused(now);
        assert!(POOL.is_short(now) && !POOL.is_short(now + REFUSAL_PAUSE));
    }

    #[test]
    fn the_limit_is_read_as_linux_writes_it() {
        assert_eq!(parse_limit("16\n"), Some(16 << 20));
        assert_eq!(parse_limit("0\n"), None);
        assert_eq!(parse_limit("4294967295\n"), Some(u64::from(u32::MAX) << 20));
        assert_eq!(parse_limit("nonsense"), Some(LIMIT_DEFAULT));
    }

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
    fn what_the_system_never_has_is_told_from_what_it_does_not_have_now() {
        let busid = BusId::new("1-1").unwrap();
        let mut memory = PortMemory::new_blocking(0);
        let mut never = |limit, transfer_type, length, requests, in_mapping| {
            memory.limit = limit;
            let submission = submission(transfer_type, length);
            let cost = Cost::of(&submission, requests, in_mapping);
            memory.can_never_be_had(&submission, cost, busid)
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
        // What is not scattered is needed in one piece.
        assert!(never(limit, TransferType::Interrupt, 4 * MIB + 1, 1, false));
        assert!(!never(limit, TransferType::Interrupt, 4 * MIB, 1, false));
    }

    #[test]
    fn memory_that_is_read_slowly_is_known_by_that() {
        let micros = Duration::from_micros;
        for (mapping, heap, uncached) in [(40, 10, true), (39, 10, false), (5, 10, false)] {
            assert_eq!(is_much_slower(micros(mapping), micros(heap)), uncached);
        }
        let mut to = vec![0; PROBE_LEN];
        assert!(read_time(&vec![7; PROBE_LEN], &mut to) > Duration::ZERO);
        assert!(to.iter().all(|&byte| byte == 7));
    }
}
