//! The waits between tries: longer with each failure, up to a limit.
//!
//! Contract: pure.

use std::time::Duration;

use crate::limits::{RETRY_FIRST, RETRY_MAX};

/// The wait before the next try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(RETRY_FIRST)
    }
}

impl Backoff {
    /// The wait before the next try; the wait after is twice as long.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (2 * wait).min(RETRY_MAX);
        wait
    }

    /// A try has succeeded: the next wait is the first again.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_limit_and_begin_again() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..8).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 2000, 2000, 2000]);
        backoff.reset();
        assert_eq!(backoff.next(), RETRY_FIRST);
    }
}
