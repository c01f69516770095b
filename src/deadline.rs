//! Instants at which something is due, if at all.
//!
//! Contract: pure. The reactor asks several times a turn, hence no chain of iterators for a minimum
//! of two.

/// The earlier of two instants, or the shorter of two times, either of which may be missing.
#[inline]
pub(crate) fn earlier<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_missing_instant_is_later_than_any_other() {
        let (soon, now) = (Some(Instant::now() + Duration::from_secs(1)), Some(Instant::now()));
        assert_eq!([earlier(soon, now), earlier(now, soon)], [now; 2]);
        assert_eq!([earlier(None, now), earlier(now, None), earlier(None, None)], [now, now, None]);
    }
}
