//! Whether memory that is mapped from a device is cached: on boards whose controllers do not see
//! the processor's caches, every reply would be read slowly.
//!
//! Contract: blocks for the time of [`PROBES`] copies of each memory, some tens of microseconds.

use std::time::{Duration, Instant};

use usbferry_sys::os::heap::Zeroed;

/// Bytes of a copy, and number of copies of each memory. The best time counts.
const PROBE_LEN: usize = 64 << 10;
const PROBES: usize = 16;

/// A mapping that is read this many times slower than other memory is not cached.
const UNCACHED_RATIO: u32 = 4;

/// Whether a mapping is read much slower than other memory. The two are read by turns, so that a
/// busy machine slows down both. The other memory goes back to the system, which the allocator
/// would keep for the thread. Without memory the mapping passes.
pub(super) fn is_uncached(mapping: &[u8]) -> bool {
    let mapping = &mapping[..mapping.len().min(PROBE_LEN)];
    let room = || Zeroed::<u8>::new(mapping.len());
    let (Some(mut heap), Some(mut to)) = (room(), room()) else { return false };
    heap.fill(1);
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

/// The time of a copy.
fn read_time(from: &[u8], to: &mut [u8]) -> Duration {
    let begun = Instant::now();
    to.copy_from_slice(std::hint::black_box(from));
    std::hint::black_box(to);
    begun.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_read_slowly_is_uncached() {
        let micros = Duration::from_micros;
        for (mapping, heap, uncached) in [(40, 10, true), (39, 10, false), (5, 10, false)] {
            assert_eq!(is_much_slower(micros(mapping), micros(heap)), uncached);
        }
        let mut to = vec![0; PROBE_LEN];
        assert!(read_time(&vec![7; PROBE_LEN], &mut to) > Duration::ZERO);
        assert!(to.iter().all(|&byte| byte == 7));
    }
}
