//! Keeps the log readable while clients misbehave: so many lines a second, the rest counted.
//!
//! Contract: plain state; time is an argument.

use std::time::{Duration, Instant};

use log::warn;

use crate::limits::COMPLAINTS_PER_SECOND;

const SECOND: Duration = Duration::from_secs(1);

/// Lines written and left out in the current second.
pub(super) struct Complaints {
    since: Instant,
    written: u32,
    left_out: u32,
}

impl Complaints {
    pub(super) const fn new(now: Instant) -> Self {
        Self { since: now, written: 0, left_out: 0 }
    }

    /// Whether one more line may be written now.
    pub(super) fn may_complain(&mut self, now: Instant) -> bool {
        if now >= self.since + SECOND {
            if self.left_out > 0 {
                warn!("{} more complaints about clients were left out", self.left_out);
            }
            *self = Self::new(now);
        }
        let may = self.written < COMPLAINTS_PER_SECOND;
        if may {
            self.written += 1;
        } else {
            self.left_out += 1;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_the_next_second_begins_anew() {
        let start = Instant::now();
        let mut complaints = Complaints::new(start);
        let written = (0..1000).filter(|_| complaints.may_complain(start)).count();
        assert_eq!(written, COMPLAINTS_PER_SECOND as usize);
        assert_eq!(complaints.left_out, 1000 - COMPLAINTS_PER_SECOND);
        assert!(complaints.may_complain(start + SECOND));
        assert_eq!(complaints.left_out, 0);
    }
}
