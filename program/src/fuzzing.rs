//! The fuzzers' function of this package, as `usbferry::fuzzing` has them.
//!
//! Contract: tests and fuzzers only.

use crate::discovery;

/// Takes a message: a message that is understood is understood as the same when written again.
pub fn announcement(data: &[u8]) {
    discovery::check_message(data);
}

#[cfg(test)]
#[path = "../../src/session/model/rng.rs"]
mod rng;

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
use rng::Rng;

#[test]
fn the_announcements_corpus_and_variations_hold() {
    replay::replay("announcement", announcement, 20_000);
}
