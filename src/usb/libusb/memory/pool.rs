//! The pool of all ports: mapped bytes, refusals, and waiting ports.
//!
//! Linux gives all programs `usbfs_memory_mb` (16 MiB) together, for URBs in flight and for
//! mappings alike (`usbfs_increase_memory_usage` of `drivers/usb/core/devio.c`). This program maps
//! a quarter of the limit at most, and each mapping is half of the quarter's rest.
//!
//! Contract: only [`limit_blocking`] blocks; nothing allocates.

use std::fs;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The file with the MiB for all programs; 0 is no limit.
pub(super) const PARAMETER: &str = "/sys/module/usbcore/parameters/usbfs_memory_mb";

/// Linux's default limit, in bytes.
const LIMIT_DEFAULT: u64 = 16 << 20;

/// This program may map the limit divided by this.
const SHARE: u64 = 4;

/// Smallest mapping worth having, in bytes.
pub(super) const MAPPING_MIN: usize = crate::limits::DEVICE_MEMORY_MIN;

/// Time without new mappings after a URB was refused.
const REFUSAL_PAUSE: Duration = Duration::from_secs(10);

/// The pool of all ports of this program.
pub(super) static POOL: Pool = Pool::new();

/// Counts of mapped memory, of refusals and of waiting ports.
pub(super) struct Pool {
    /// Mapped bytes.
    mapped: AtomicUsize,
    /// URBs refused so far, modulo 2^32.
    refusals: AtomicU32,
    /// When the last URB was refused.
    refused_at: Mutex<Option<Instant>>,
    /// Ports waiting for memory.
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

    /// Mapped bytes.
    pub(super) fn mapped(&self) -> usize {
        self.mapped.load(Ordering::Relaxed)
    }

    /// URBs refused so far, modulo 2^32.
    pub(super) fn refusals(&self) -> u32 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// Ports waiting for memory.
    pub(super) fn starving(&self) -> u32 {
        self.starving.load(Ordering::Relaxed)
    }

    /// Reserves bytes for a mapping, `wanted` at most; `None` where too few are left to be worth a
    /// mapping.
    pub(super) fn reserve(&'static self, limit: Option<u64>, wanted: usize) -> Option<Reservation> {
        let mut len = 0;
        let reserved = self.mapped.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |mapped| {
            len = part(limit, mapped, wanted)?;
            mapped.checked_add(len)
        });
        reserved.ok().map(|_| Reservation { pool: self, len })
    }

    /// Notes a refused URB.
    pub(super) fn note_refused(&self, now: Instant) {
        *self.refused_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a URB was refused not long ago.
    pub(super) fn is_short(&self, now: Instant) -> bool {
        let refused_at = *self.refused_at.lock().unwrap_or_else(PoisonError::into_inner);
        refused_at.is_some_and(|at| now < at + REFUSAL_PAUSE)
    }
}

/// Bytes to map beside `mapped` others: a power of two.
fn part(limit: Option<u64>, mapped: usize, wanted: usize) -> Option<usize> {
    let share =
        limit.map_or(usize::MAX, |limit| usize::try_from(limit / SHARE).unwrap_or(usize::MAX));
    let len = wanted.min(share.saturating_sub(mapped) / 2);
    (len >= MAPPING_MIN).then(|| 1 << len.ilog2())
}

/// The system's limit in bytes; `None` for no limit. *Blocks.*
pub(super) fn limit_blocking() -> Option<u64> {
    fs::read_to_string(PARAMETER).map_or(Some(LIMIT_DEFAULT), |text| parse_limit(&text))
}

fn parse_limit(text: &str) -> Option<u64> {
    let mebibytes: u32 = text.trim().parse().unwrap_or(16);
    (mebibytes > 0).then(|| u64::from(mebibytes) << 20)
}

/// Bytes reserved for a mapping; given back when dropped.
pub(super) struct Reservation {
    pool: &'static Pool,
    pub(super) len: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pool.mapped.fetch_sub(self.len, Ordering::Relaxed);
    }
}

/// Counts a port as waiting for memory, until dropped.
pub(super) struct Starving(&'static Pool);

impl Starving {
    pub(super) fn new(pool: &'static Pool) -> Self {
        pool.starving.fetch_add(1, Ordering::Relaxed);
        Self(pool)
    }
}

impl Drop for Starving {
    fn drop(&mut self) {
        self.0.starving.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_reservation_that_is_dropped_comes_back() {
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
        POOL.note_refused(now);
        assert!(POOL.is_short(now) && !POOL.is_short(now + REFUSAL_PAUSE));
    }

    #[test]
    fn the_limit_is_read_as_linux_writes_it() {
        assert_eq!(parse_limit("16\n"), Some(16 << 20));
        assert_eq!(parse_limit("0\n"), None);
        assert_eq!(parse_limit("4294967295\n"), Some(u64::from(u32::MAX) << 20));
        assert_eq!(parse_limit("nonsense"), Some(LIMIT_DEFAULT));
    }
}
