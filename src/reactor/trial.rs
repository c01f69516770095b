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

    /// As after a won trial, for as long as a test takes: looks have nothing to prove.
    #[cfg(test)]
    pub(super) const fn won() -> Self {
        Self { phase: Phase::Won, left: u32::MAX, ..Self::new() }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A session, and the microseconds of its waits, asleep and with looks.
    struct Session {
        trial: Trial,
        now: Instant,
        asleep: u64,
        looking: u64,
    }

    impl Session {
        fn new(asleep: u64, looking: u64) -> Self {
            Self { trial: Trial::new(), now: Instant::now(), asleep, looking }
        }

        /// Spends some waits, and returns how many of them might look.
        fn looks(&mut self, waits: u32) -> u32 {
            let mut looks = 0;
            for _ in 0..waits {
                let now = self.now;
                let may_look = self.trial.begin_wait(|| now) != Leave::Sleep;
                let micros = if may_look { self.looking } else { self.asleep };
                self.now += Duration::from_micros(micros);
                looks += u32::from(may_look);
            }
            looks
        }
    }

    #[test]
    fn a_gain_of_more_than_a_sixteenth_wins() {
        let mut session = Session::new(160, 149);
        assert_eq!(session.looks(LESSONS), LESSONS);
        assert_eq!(session.looks(2 * SERIES * WINS), SERIES * WINS);
        assert_eq!(session.looks(LOOKS), LOOKS);
        assert_eq!(session.looks(2 * SERIES), SERIES, "the next trial, whose lessons are learned");
    }

    #[test]
    fn behind_each_lost_trial_more_waits_are_slept_through() {
        let mut session = Session::new(160, 150);
        for sleeps in [512, 1024, 2048, 4096, 8192, 8192] {
            assert_eq!(session.looks(LESSONS), LESSONS);
            assert_eq!(session.looks(2 * SERIES * LOSSES), SERIES * LOSSES);
            assert_eq!(session.looks(sleeps), 0);
        }
    }
}
