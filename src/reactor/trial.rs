//! Whether looks for work make a session faster: trials.
//!
//! A look that finds work has saved a wake-up, and yet need not have gained anything: a device may
//! answer at times of its own, or the client's next request may not depend on the reply. In an
//! emulated machine a wake-up is late without taking anybody's processor time. So looks must prove
//! a gain by the time that a client sees, from wait to wait.
//!
//! A trial is pairs of short series of waits: the first series sleeps, the second looks. Looks win
//! a pair if the second series was shorter by a share that is worth the time awake. Pauses of a
//! client and other programs lengthen either series alike, so chance wins few trials: eight pairs
//! are to be won before three are lost. Then waits may look for a long time; else they sleep until
//! another trial, after ever more waits.
//!
//! Contract: plain state; time is an argument, asked for between series only.

use std::time::{Duration, Instant};

/// Waits of a series: the rounds of a storage client have six waits, those of others one to four.
const SERIES: u32 = 24;

/// Waits from which looks learn before a trial.
const LESSONS: u32 = 2 * SERIES;

/// The gain that wins a pair: this part of the time asleep.
const GAIN: u32 = 16;

/// Won pairs that win a trial.
const WINS: u32 = 8;

/// Lost pairs that lose a trial.
const LOSSES: u32 = 3;

/// Waits with looks after a trial that was won. The next trial has a hundredth of them sleep.
pub(super) const LOOKS: u32 = 32_768;

/// Waits asleep after the first lost trial.
const SLEEPS_MIN: u32 = 512;

/// Waits asleep after a lost trial if the trial before was won: the loss may be another program's.
const SLEEPS_AGAIN: u32 = 64;

/// Waits asleep after a lost trial, at most. A trial without hope then looks in a sixtieth of all
/// waits.
const SLEEPS_MAX: u32 = 8192;

/// Waits until looks are noticed to gain, if they win every pair.
#[cfg(test)]
pub(super) const NOTICED: u32 = SLEEPS_MAX + LESSONS + 2 * SERIES * WINS;

/// What the lessons of earlier trials allow.
pub(super) struct Trial {
    phase: Phase,
    /// Waits left in this phase.
    left: u32,
    wins: u32,
    losses: u32,
    /// Waits asleep if the next trial is lost.
    sleeps: u32,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The last trial was lost.
    Lost,
    /// Before a trial: looks learn how long waits are, and nobody judges.
    Learning,
    /// The first series of a pair.
    Sleeping { since: Instant },
    /// The second series of a pair.
    Looking { since: Instant, asleep: Duration },
    /// The last trial was won.
    Won,
}

/// What a wait may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leave {
    Sleep,
    Look,
    /// Look, and forget what looks have learned: that was long ago.
    LookAnew,
}

impl Trial {
    pub(super) const fn new() -> Self {
        Self { phase: Phase::Lost, left: 0, wins: 0, losses: 0, sleeps: SLEEPS_MIN }
    }

    /// A wait begins: what it may do.
    pub(super) fn begin_wait(&mut self, now: impl FnOnce() -> Instant) -> Leave {
        let anew = self.left == 0 && matches!(self.phase, Phase::Lost);
        if self.left == 0 {
            (self.phase, self.left) = self.next(now());
        }
        self.left -= 1;
        match self.phase {
            Phase::Lost | Phase::Sleeping { .. } => Leave::Sleep,
            Phase::Learning if anew => Leave::LookAnew,
            Phase::Learning | Phase::Looking { .. } | Phase::Won => Leave::Look,
        }
    }

    /// The next phase, and its waits.
    fn next(&mut self, now: Instant) -> (Phase, u32) {
        match self.phase {
            Phase::Lost => (Phase::Learning, LESSONS),
            Phase::Learning | Phase::Won => {
                (self.wins, self.losses) = (0, 0);
                (Phase::Sleeping { since: now }, SERIES)
            }
            Phase::Sleeping { since } => {
                let asleep = now.saturating_duration_since(since);
                (Phase::Looking { since: now, asleep }, SERIES)
            }
            Phase::Looking { since, asleep } => {
                let awake = now.saturating_duration_since(since);
                self.judge(awake < asleep - asleep / GAIN, now)
            }
        }
    }

    /// A pair is won or lost.
    fn judge(&mut self, won: bool, now: Instant) -> (Phase, u32) {
        self.wins += u32::from(won);
        self.losses += u32::from(!won);
        if self.wins == WINS {
            self.sleeps = SLEEPS_AGAIN;
            (Phase::Won, LOOKS)
        } else if self.losses == LOSSES {
            let sleeps = self.sleeps;
            self.sleeps = SLEEPS_MAX.min(2 * sleeps);
            (Phase::Lost, sleeps)
        } else {
            (Phase::Sleeping { since: now }, SERIES)
        }
    }
}
