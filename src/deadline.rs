//! Instants at which something is due, if at all.
//!
//! Contract: pure. The reactor asks several times a turn, hence no chain of iterators for a minimum
//! of two.

/// The earlier of two instants, or the shorter of two times, either of which may be missing.
#[inline]
pub(crate) fn earlier<T: Ord + Copy>(one: Option<T>, other: Option<T>) -> Option<T> {
    // Mostly one is missing, and which is known beforehand: so a branch is cheaper than a choice.
    let Some(other) = other else { return one };
    Some(one.map_or(other, |one| one.min(other)))
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
