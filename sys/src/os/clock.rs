//! A clock that is cheap to read.
//!
//! Contract: nothing blocks or allocates.

use std::time::Instant;

/// Tells the time of [`Instant::now`] without the cost.
///
/// The exact time comes from a counter of the processor. If the counter can't be trusted, above all
/// in virtual machines, Linux asks a timer chip through a system call several times as expensive as
/// others. The time of the last timer interrupt is always in memory.
#[derive(Clone, Debug)]
pub struct CoarseClock {
    /// The same moment on two scales; the second is `CLOCK_MONOTONIC`.
    #[cfg(target_os = "linux")]
    start: (Instant, std::time::Duration),
    /// The last result, likewise: most calls between two interrupts have the same.
    #[cfg(target_os = "linux")]
    last: std::cell::Cell<(Instant, libc::timespec)>,
}

#[cfg(target_os = "linux")]
impl CoarseClock {
    /// A clock for this process.
    #[must_use]
    pub fn new() -> Self {
        let start = Instant::now();
        let nothing = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let last = std::cell::Cell::new((start, nothing));
        Self { start: (start, monotonic()), last }
    }

    /// The time of the last timer interrupt (`CLOCK_MONOTONIC_COARSE`, `clock_gettime(2)`): 4 ms
    /// ago at most with 250 kernel ticks a second, 10 ms with 100 ticks. Never later than the exact
    /// time, and never earlier than the result of an earlier call.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Instant {
        let time = read(libc::CLOCK_MONOTONIC_COARSE);
        let (now, last) = self.last.get();
        if time.tv_nsec == last.tv_nsec && time.tv_sec == last.tv_sec {
            return now;
        }
        let (instant, began) = self.start;
        // Before the first interrupt since the start, the result is the start.
        let now = instant + duration_of(time).saturating_sub(began);
        self.last.set((now, time));
        now
    }
}

#[cfg(target_os = "linux")]
#[inline]
fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a place for the result. Linux has had both clocks since 2.6.32.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time
}

#[cfg(target_os = "linux")]
fn duration_of(time: libc::timespec) -> std::time::Duration {
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    std::time::Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanoseconds)
}

/// A time for the system. More seconds than the system counts are as many as it counts.
#[cfg(target_os = "linux")]
pub(super) fn timespec(time: std::time::Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(i32::try_from(time.subsec_nanos()).unwrap_or(0)),
    }
}

/// The time of `CLOCK_MONOTONIC` (`clock_gettime(2)`), by which service managers compare moments of
/// several processes.
#[cfg(target_os = "linux")]
#[must_use]
pub fn monotonic() -> std::time::Duration {
    duration_of(read(libc::CLOCK_MONOTONIC))
}

/// No service manager elsewhere asks for the time.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn monotonic() -> std::time::Duration {
    std::time::Duration::ZERO
}

/// Other systems have no coarse clock, and the exact clock is cheap (`mach_absolute_time`).
#[cfg(not(target_os = "linux"))]
impl CoarseClock {
    /// A clock for this process.
    #[must_use]
    pub fn new() -> Self {
        Self {}
    }

    /// The exact time.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::now()
    }
}

impl Default for CoarseClock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_coarse_clock_follows_the_exact_time_and_is_never_ahead() {
        let clock = CoarseClock::new();
        let start = Instant::now();
        let mut last = clock.now();
        // Even late timer interrupts come: the clock moves on, by several of them.
        while last < start + Duration::from_millis(60) {
            let now = clock.now();
            assert!(now >= last);
            assert!(now <= Instant::now());
            last = now;
            assert!(start.elapsed() < Duration::from_secs(60), "the clock stands still");
        }
    }
}
