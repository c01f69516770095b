//! How long a device takes for the URBs of an endpoint: a histogram of a sample, and the longest
//! time of all URBs.
//!
//! The turnaround of a URB is the time from handing the URB to the device until the result is
//! collected; the work of the system and the reactor's own is part of the time. An IN URB waits for
//! data, so the time of an idle keyboard is the time between two keys.
//!
//! The reactor's time of a turn is to a few milliseconds only, since a reading of the exact clock
//! costs 20 to 70 ns, and more than a microsecond where a timer chip tells the time; two readings
//! for each URB would be a noticeable part of the shortest URBs. So an endpoint has one URB timed
//! at once, and begins with the next at the earliest two milliseconds after the last: the first
//! URB, each URB of a quiet endpoint, and up to five hundred a second of a busy endpoint. All other
//! URBs cost two comparisons. `timed` beside the count of URBs says how large the sample is. By the
//! time of the turns, which is at hand, no URB of more than 100 ms is missed.
//!
//! Contract: only `Stopwatch::provide` and copies allocate; the clock is read for timed URBs, and
//! decides nothing.

use std::time::{Duration, Instant};

use histogram::Histogram;

/// Milliseconds from one timed URB of an endpoint to the next, at least.
const INTERVAL: u32 = 2;

/// Milliseconds from which on the time of turns is good enough for a longest time: to a tenth.
const SLOW: u32 = 100;

/// Buckets for each power of two are two to this power: a time is told to a quarter.
const GROUPING_POWER: u8 = 2;

/// Times of two to this power, in microseconds, or more, more than a minute, share the last bucket.
const LONGEST_POWER: u8 = 26;

const LONGEST_MICROS: u64 = (1 << LONGEST_POWER) - 1;

/// No URB.
const NONE: u32 = u32::MAX;

/// The time of a session in milliseconds, as exact as the turns of the reactor. Starts again at
/// zero after 49 days, so only differences have a meaning.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Milliseconds {
    start: Option<Instant>,
    /// The last time noted, which most turns have in common: the clock of turns is coarse.
    last: Option<Instant>,
    pub(crate) now: u32,
}

impl Milliseconds {
    /// The time from the last turn noted until `now`, where any was noted.
    pub(crate) fn passed(&mut self, now: Instant) -> Duration {
        let before = self.now;
        let passed = now.saturating_duration_since(*self.start.get_or_insert(now));
        Duration::from_millis(u64::from(millis(passed).wrapping_sub(before)))
    }

    /// The turn's time is `now`.
    #[inline]
    pub(crate) fn set(&mut self, now: Instant) {
        if self.last != Some(now) {
            self.set_anew(now);
        }
    }

    #[cold]
    fn set_anew(&mut self, now: Instant) {
        self.last = Some(now);
        let passed = now.saturating_duration_since(*self.start.get_or_insert(now));
        self.now = millis(passed);
    }
}

/// A time in milliseconds, of which the upper half is lost.
#[inline]
fn millis(time: Duration) -> u32 {
    let millis = time.as_secs().wrapping_mul(1000) + u64::from(time.subsec_millis());
    u32::try_from(millis & u64::from(u32::MAX)).unwrap_or(0)
}

/// Takes the times of an endpoint's URBs. URBs go by any number but `u32::MAX`, times are those of
/// [`Milliseconds`].
#[derive(Debug)]
pub(crate) struct Stopwatch {
    /// When the last timed URB began.
    begun: u32,
    /// The URB that is timed, or [`NONE`].
    urb: u32,
    /// The longest time of a URB that was not timed, or [`SLOW`].
    longest: u32,
    times: Option<Box<Times>>,
}

/// The times of timed URBs. In a box: most endpoints of a session do not exist.
#[derive(Debug)]
struct Times {
    /// The begin of the URB that is timed.
    since: Instant,
    histogram: Histogram,
    sum: Duration,
    longest: Duration,
}

impl Stopwatch {
    /// No URB yet, and no room for times. The first URB will be timed.
    pub(crate) const NEW: Self =
        Self { begun: 0_u32.wrapping_sub(INTERVAL), urb: NONE, longest: SLOW, times: None };

    /// Provides the room for times, a kilobyte.
    pub(crate) fn provide(&mut self) {
        let new = || Times {
            since: Instant::now(),
            histogram: Histogram::new(GROUPING_POWER, LONGEST_POWER).expect("the powers fit"),
            sum: Duration::ZERO,
            longest: Duration::ZERO,
        };
        self.times.get_or_insert_with(|| Box::new(new()));
    }

    /// Notes that the device gets a URB.
    #[inline]
    pub(crate) fn note_submitted(&mut self, urb: u32, now: u32) {
        if now.wrapping_sub(self.begun) >= INTERVAL && self.urb == NONE {
            self.begin(urb, now);
        }
    }

    #[cold]
    fn begin(&mut self, urb: u32, now: u32) {
        if let Some(times) = &mut self.times {
            (self.urb, self.begun) = (urb, now);
            times.since = Instant::now();
        }
    }

    /// Notes that the device has ended a URB that it got at `since`.
    #[inline]
    pub(crate) fn note_ended(&mut self, urb: u32, since: u32, now: u32) {
        let passed = now.wrapping_sub(since);
        if self.urb == urb {
            self.end();
        } else if passed > self.longest {
            self.longest = passed;
        }
    }

    #[cold]
    fn end(&mut self) {
        self.urb = NONE;
        if let Some(times) = &mut self.times {
            times.note(times.since.elapsed());
        }
    }

    /// Notes that the device has a URB no more and will get the same URB again. If timed, the next
    /// URB is timed instead.
    #[cold]
    pub(crate) fn note_returned(&mut self, urb: u32) {
        if self.urb == urb {
            (self.urb, self.begun) = (NONE, self.begun.wrapping_sub(INTERVAL));
        }
    }

    /// A copy of the times.
    pub(crate) fn turnaround(&self) -> Turnaround {
        let mut turnaround =
            self.times.as_ref().map(|times| times.turnaround()).unwrap_or_default();
        if self.longest > SLOW {
            let longest = Duration::from_millis(self.longest.into());
            turnaround.longest = turnaround.longest.max(longest);
        }
        turnaround
    }
}

impl Times {
    fn note(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(LONGEST_MICROS).min(LONGEST_MICROS);
        if self.histogram.increment(micros).is_ok() {
            self.sum += time;
            self.longest = self.longest.max(time);
        }
    }

    fn turnaround(&self) -> Turnaround {
        // A microsecond is counted once passed: the bucket with 7 µs has times of less than 8 µs.
        let end = |bucket: &histogram::Bucket| Duration::from_micros(bucket.end() + 1);
        let of = |quantile| {
            let bucket = self.histogram.quantile_bucket(quantile).ok().flatten();
            bucket.map(|bucket| end(&bucket).min(self.longest))
        };
        let used = self.histogram.iter().filter(|bucket| bucket.count() > 0);
        let buckets: Vec<Bucket> =
            used.map(|bucket| Bucket { below: end(&bucket), count: bucket.count() }).collect();
        Turnaround {
            timed: buckets.iter().map(|bucket| bucket.count).sum(),
            sum: self.sum,
            median: of(0.5),
            p99: of(0.99),
            longest: self.longest,
            buckets,
        }
    }
}

/// The turnaround of an endpoint's URBs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Turnaround {
    /// URBs in the sample.
    pub timed: u64,
    /// The sum of their times.
    pub sum: Duration,
    /// The time that half of the sample did not exceed, to a quarter; `None` without a timed URB.
    pub median: Option<Duration>,
    /// The same for 99 of 100.
    pub p99: Option<Duration>,
    /// The longest time of all URBs, also of URBs outside the sample if longer than 100 ms. These
    /// are told to some milliseconds. Zero without any.
    pub longest: Duration,
    /// The sample, from the shortest times to the longest, without empty buckets. The bounds of a
    /// bucket are a quarter of a power of two apart, and each power of two microseconds from 1 µs
    /// to 2²⁵ µs is a bound. The last bucket, below 2²⁶ µs (67 s), also has all longer times.
    pub buckets: Vec<Bucket>,
}

/// URBs of about the same time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bucket {
    /// The times are shorter.
    pub below: Duration,
    /// URBs.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provided() -> Stopwatch {
        let mut stopwatch = Stopwatch::NEW;
        stopwatch.provide();
        stopwatch
    }

    fn of(times: impl IntoIterator<Item = Duration>) -> Turnaround {
        let mut stopwatch = provided();
        let noted = stopwatch.times.as_mut().unwrap();
        times.into_iter().for_each(|time| noted.note(time));
        stopwatch.turnaround()
    }

    /// Has a URB end `lasts` ms after `now`.
    fn pass(stopwatch: &mut Stopwatch, urb: u32, now: u32, lasts: u32) {
        stopwatch.note_submitted(urb, now);
        stopwatch.note_ended(urb, now, now.wrapping_add(lasts));
    }

    #[test]
    fn a_quiet_endpoint_has_all_urbs_timed_and_a_busy_endpoint_a_sample() {
        let mut quiet = provided();
        (0..100).for_each(|urb| pass(&mut quiet, urb, urb * INTERVAL, 1));
        assert_eq!(quiet.turnaround().timed, 100);
        let mut busy = provided();
        (0..1000).for_each(|urb| pass(&mut busy, urb, urb / 100, 0));
        assert_eq!(busy.turnaround().timed, 5, "1000 URBs in 10 ms");
    }

    #[test]
    fn one_urb_is_timed_at_once_and_a_returned_urb_is_not() {
        let mut stopwatch = provided();
        [1, 2, 3].iter().for_each(|&urb| stopwatch.note_submitted(urb, 0));
        stopwatch.note_submitted(4, 50);
        [2, 3, 4].iter().for_each(|&urb| stopwatch.note_ended(urb, 0, 50));
        assert_eq!(stopwatch.turnaround().timed, 0);
        stopwatch.note_returned(1);
        stopwatch.note_ended(1, 0, 50);
        assert_eq!(stopwatch.turnaround(), Turnaround::default());
        pass(&mut stopwatch, 1, 50, 0);
        assert_eq!(stopwatch.turnaround().timed, 1);
    }

    #[test]
    fn a_slow_urb_outside_the_sample_is_the_longest() {
        let mut stopwatch = provided();
        stopwatch.note_submitted(1, u32::MAX - 10);
        for (urb, lasts, longest) in [(2, SLOW, 0), (3, 5000, 5000), (4, 4000, 5000)] {
            pass(&mut stopwatch, urb, u32::MAX - 10, lasts);
            assert_eq!(stopwatch.turnaround().longest, Duration::from_millis(longest));
        }
        assert_eq!(stopwatch.turnaround().timed, 0);
    }

    #[test]
    fn quantiles_and_bounds_are_those_of_the_buckets() {
        let turnaround = of((1..=100).map(Duration::from_micros));
        assert_eq!((turnaround.timed, turnaround.sum), (100, Duration::from_micros(5050)));
        assert_eq!(turnaround.median, Some(Duration::from_micros(56)), "49 to 55 µs");
        assert_eq!(turnaround.p99, Some(Duration::from_micros(100)), "no more than the longest");
        assert_eq!(turnaround.longest, Duration::from_micros(100));
        let below = |bound| {
            let shorter = turnaround.buckets.iter().take_while(|bucket| bucket.below <= bound);
            shorter.map(|bucket| bucket.count).sum::<u64>()
        };
        for power in 0..7 {
            let bound = 1_u64 << power;
            assert_eq!(below(Duration::from_micros(bound)), bound - 1);
        }
        assert_eq!(below(Duration::from_secs(1)), 100);
        assert_eq!((of([]).median, of([]).p99), (None, None));
    }

    #[test]
    fn a_time_beyond_all_buckets_is_in_the_last() {
        let year = Duration::from_secs(365 * 24 * 3600);
        let turnaround = of([Duration::ZERO, year]);
        assert_eq!(turnaround.longest, year);
        let bounds: Vec<Duration> = turnaround.buckets.iter().map(|bucket| bucket.below).collect();
        assert_eq!(bounds, [Duration::from_micros(1), Duration::from_micros(1 << LONGEST_POWER)]);
    }

    #[test]
    fn milliseconds_go_on_after_49_days() {
        let (mut time, start) = (Milliseconds::default(), Instant::now());
        time.set(start);
        assert_eq!(time.now, 0);
        time.set(start + Duration::from_millis((1 << 32) + 7));
        assert_eq!(time.now, 7);
    }
}
