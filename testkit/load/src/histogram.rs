//! Times by their order of magnitude: 32 steps for each doubling, hence 3 % off at most.

use std::time::Duration;

const STEPS_LOG2: u32 = 5;
const STEPS: usize = 1 << STEPS_LOG2;

/// Counts of times.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; 64 * STEPS], total: 0 }
    }
}

impl Histogram {
    /// Counts `count` equal times.
    pub fn record(&mut self, time: Duration, count: u64) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanoseconds)] += count;
        self.total += count;
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
    }

    /// Adds the counts of another histogram.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    /// The time not exceeded by the given number of parts in a million.
    #[must_use]
    pub fn quantile(&self, per_million: u64) -> Duration {
        let rank = (self.total * per_million).div_ceil(1_000_000).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(upper(bucket));
            }
        }
        Duration::ZERO
    }
}

fn bucket(nanoseconds: u64) -> usize {
    let magnitude = nanoseconds.checked_ilog2().unwrap_or(0);
    let shift = magnitude.saturating_sub(STEPS_LOG2);
    let step = usize::try_from(nanoseconds >> shift).expect("below 64");
    shift as usize * STEPS + step
}

/// The longest time of a bucket.
fn upper(bucket: usize) -> u64 {
    let shift = (bucket / STEPS).saturating_sub(1);
    let step = (bucket - shift * STEPS) as u64;
    ((step + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_its_bucket() {
        for nanoseconds in (0..5000).chain([u64::MAX / 2, 1 << 40, (1 << 40) - 1]) {
            let bucket = bucket(nanoseconds);
            assert!(upper(bucket) >= nanoseconds, "{nanoseconds}");
            assert!(bucket == 0 || upper(bucket - 1) < nanoseconds, "{nanoseconds}");
        }
    }

    #[test]
    fn quantiles_are_the_recorded_times() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::from_nanos(10), 990);
        histogram.record(Duration::from_nanos(20), 10);
        assert_eq!(histogram.quantile(500_000), Duration::from_nanos(10));
        assert_eq!(histogram.quantile(990_000), Duration::from_nanos(10));
        assert_eq!(histogram.quantile(999_000), Duration::from_nanos(20));
    }
}
