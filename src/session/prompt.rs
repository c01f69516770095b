//! Whether a device has answers ready as soon as URBs are submitted.
//!
//! The system tells of an ended URB by an event, and a wait for the event is a call of its own,
//! even if the event is there already. So behind submits the session collects at once, where that
//! has brought something before. In vain, the look costs a call instead of saving one: each failure
//! doubles the number of submits before the next look.
//!
//! A device that has answers ready also gets long URBs in batches: while the answers of a batch are
//! written, the next SUBMITs wait, and then get the same buffers, which a processor's cache still
//! has.
//!
//! Contract: plain state, without a clock.

/// Times of submits without a look, at most. Looks in vain then cost a slow device less than a
/// hundredth of its calls, and a device that becomes fast is noticed within a second.
const SKIP_MAX: u32 = 256;

/// Bytes of a batch, half of a second cache of 2 MiB. Half of that gains as much and writes twice
/// as often. URBs of as many bytes are no batch.
pub(super) const BATCH_LEN: usize = 1 << 20;

/// The lessons of earlier looks.
#[derive(Default)]
pub(super) struct Promptness {
    /// Times of submits before the next look.
    skip: u32,
    /// Times of submits to skip after the next look in vain.
    next_skip: u32,
}

impl Promptness {
    /// URBs were submitted: whether to collect at once. The result is to be [noted](Self::note).
    pub(super) const fn is_expected(&mut self) -> bool {
        let looks = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        looks
    }

    /// Whether no lesson says that answers are not ready.
    pub(super) const fn is_prompt(&self) -> bool {
        self.next_skip == 0
    }

    /// Notes whether a look found an ended URB.
    pub(super) fn note(&mut self, found: bool) {
        if found {
            *self = Self::default();
        } else {
            self.skip = self.next_skip;
            self.next_skip = (2 * self.next_skip).clamp(1, SKIP_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks of `count` submits at a device which has answers ready, or none.
    fn looks(promptness: &mut Promptness, count: usize, found: bool) -> usize {
        let mut looks = 0;
        for _ in 0..count {
            if promptness.is_expected() {
                looks += 1;
                promptness.note(found);
            }
        }
        looks
    }

    #[test]
    fn a_prompt_device_is_looked_at_behind_all_submits() {
        assert_eq!(looks(&mut Promptness::default(), 1000, true), 1000);
    }

    #[test]
    fn a_device_is_prompt_until_a_look_in_vain_and_behind_a_look_that_pays() {
        let mut promptness = Promptness::default();
        for found in [true, false, false, true, false] {
            promptness.note(found);
            assert_eq!(promptness.is_prompt(), found);
        }
    }

    #[test]
    fn a_slow_device_is_hardly_looked_at() {
        let mut promptness = Promptness::default();
        assert!(looks(&mut promptness, 100, false) < 10);
        let later = looks(&mut promptness, 100_000, false);
        assert!((100_000 / 300..100_000 / 200).contains(&later), "{later} looks");
    }

    #[test]
    fn a_device_that_becomes_prompt_is_noticed() {
        let mut promptness = Promptness::default();
        looks(&mut promptness, 100_000, false);
        let looks = looks(&mut promptness, 1000, true);
        assert!(looks > 700, "{looks} looks");
    }
}
