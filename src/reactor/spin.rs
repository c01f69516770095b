//! Whether to look for work once more instead of sleeping.
//!
//! A wake-up takes longer than a turn of the reactor does. So where work comes shortly after the
//! last, the reactor looks for work again and again for a while, and sleeps only then. Whether
//! looking pays is learned: a success earns credit, a failure costs more credit. Without credit the
//! reactor sleeps at once and tries again only now and then, ever less often. Where the client
//! needs the same processor, and so can send nothing while the reactor looks, the reactor hardly
//! ever looks. The kernel lets virtual machines wait in much the same way (`halt_poll_ns`,
//! Documentation/virt/kvm/halt-polling.rst).
//!
//! Contract: plain state; time is an argument, asked for only while the reactor looks: in virtual
//! machines the time can be a system call, and a sleep needs none.

use std::time::{Duration, Instant};

/// Credit at most: successes of long ago do not count.
const CREDIT_MAX: u32 = 16;

/// Credit that a failure costs, in successes: looking pays where two of three tries succeed.
const LOSS: u32 = 2;

/// Sleeps before the next try, after the first loss of all credit.
const SKIP_MIN: u32 = 16;

/// Sleeps before the next try, at most. Tries then take less than a hundredth of a processor that
/// has URBs one after the other.
const SKIP_MAX: u32 = 8192;

/// The lessons of earlier waits.
pub(super) struct Spin {
    /// How long to look.
    limit: Duration,
    credit: u32,
    /// Sleeps before the next try.
    skip: u32,
    /// Sleeps before a try, the next time that all credit is lost.
    next_skip: u32,
    /// Since when the reactor looks.
    since: Option<Instant>,
    /// A look has brought nothing since then. Work found by the first look was there already.
    in_vain: bool,
}

impl Spin {
    pub(super) const fn new(limit: Duration) -> Self {
        Self { limit, credit: LOSS, skip: 0, next_skip: SKIP_MIN, since: None, in_vain: false }
    }

    /// Sets how long to look from now on.
    pub(super) const fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// There is nothing to do at `now`: whether to look again, rather than to sleep.
    pub(super) fn looks_again(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if let Some(since) = self.since {
            if now().saturating_duration_since(since) < self.limit {
                self.in_vain = true;
                return true;
            }
            self.fail();
            return false;
        }
        if self.limit.is_zero() || self.skip > 0 {
            self.skip = self.skip.saturating_sub(1);
            return false;
        }
        (self.since, self.in_vain) = (Some(now()), false);
        true
    }

    /// There is something to do.
    pub(super) fn found(&mut self) {
        if self.since.take().is_some() && self.in_vain {
            self.credit = CREDIT_MAX.min(self.credit + 1);
            self.next_skip = SKIP_MIN;
        }
    }

    fn fail(&mut self) {
        self.since = None;
        self.credit = self.credit.saturating_sub(LOSS);
        if self.credit == 0 {
            self.skip = self.next_skip;
            self.next_skip = SKIP_MAX.min(2 * self.next_skip);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(100);

    /// Spends waits of the given lengths in microseconds, and returns how many were slept through.
    fn sleeps(spin: &mut Spin, waits: impl IntoIterator<Item = u64>) -> usize {
        let start = Instant::now();
        let slept = |wait| {
            let mut looks = (0..wait).map(|passed| start + Duration::from_micros(passed));
            let sleeps = !looks.all(|now| spin.looks_again(|| now));
            if !sleeps {
                spin.found();
            }
            sleeps
        };
        waits.into_iter().map(slept).filter(|&slept| slept).count()
    }

    #[test]
    fn short_waits_are_looked_through() {
        assert_eq!(sleeps(&mut Spin::new(LIMIT), [50; 1000]), 0);
    }

    #[test]
    fn a_long_wait_now_and_then_does_no_harm() {
        let mut spin = Spin::new(LIMIT);
        let waits = (0..1000).map(|number| if number % 10 == 9 { 500 } else { 50 });
        assert_eq!(sleeps(&mut spin, waits), 100);
    }

    #[test]
    fn without_any_success_the_reactor_hardly_looks() {
        let mut spin = Spin::new(LIMIT);
        let mut tries = 0;
        let start = Instant::now();
        for wait in 0..100_000 {
            let now = start + wait * Duration::from_millis(1);
            if spin.looks_again(|| now) {
                tries += 1;
                assert!(spin.looks_again(|| now + LIMIT / 2));
                assert!(!spin.looks_again(|| now + LIMIT));
            }
        }
        assert!((2..30).contains(&tries), "{tries} tries");
    }

    #[test]
    fn work_that_was_there_already_earns_no_credit() {
        let mut spin = Spin::new(LIMIT);
        for _ in 0..1000 {
            assert!(spin.looks_again(Instant::now));
            spin.found();
        }
        assert_eq!(sleeps(&mut spin, [500, 500]), 2);
        assert_eq!(spin.skip, SKIP_MIN - 1, "all credit was lost at once");
    }

    #[test]
    fn waits_that_become_short_are_noticed() {
        let mut spin = Spin::new(LIMIT);
        sleeps(&mut spin, [500; 20_000]);
        sleeps(&mut spin, [50; SKIP_MAX as usize]);
        assert_eq!(sleeps(&mut spin, [50; 1000]), 0);
    }

    #[test]
    fn without_a_limit_there_is_no_looking() {
        assert_eq!(sleeps(&mut Spin::new(Duration::ZERO), [1; 100]), 100);
        let no_time = || unreachable!("a sleep does not ask for the time");
        assert!(!Spin::new(Duration::ZERO).looks_again(no_time));
    }
}
