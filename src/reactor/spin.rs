//! Whether to look for work, to nap before looking, or to sleep.
//!
//! A sleeping reactor has to be woken, and that takes longer than a turn of the reactor does. A
//! reactor that is awake when work comes saves the wake-up, and costs processor time until then. So
//! the reactor learns how long its waits are, for each [`Kind`]. Through short waits the reactor
//! looks for work again and again. A longer wait is napped through by a timer for as long as
//! nothing is expected, and only the rest is looked through. Linux waits for fast disks in much the
//! same way (hybrid polling, `block/blk-mq.c` of 5.10), and lets virtual machines wait so
//! (`halt_poll_ns`, Documentation/virt/kvm/halt-polling.rst).
//!
//! The price is bounded by the gain: a look may take as much processor time as a wake-up takes,
//! which naps measure. Each kind has a credit: work that looking has found earns as much as a
//! wake-up is worth, and the time of looking is paid from that. Without credit the reactor sleeps
//! at once, and begins another series of tries only now and then, ever less often. Time in which
//! others had the processor counts as time of looking, whether the others are the client or any
//! other program: where somebody else often wants the processor, the reactor hardly looks. And not
//! every saved wake-up is a gain: there are looks only while trials show one ([`super::trial`]).
//!
//! Contract: plain state; time is an argument, asked for only by waits that may look: in virtual
//! machines the time can be a system call, and other sleeps need none.

use std::time::{Duration, Instant};

use super::trial::{Leave, Trial};

/// Nanoseconds, with a sign.
type Time = i64;

/// How late a nap ends, before any nap: about what a wake-up takes in a virtual machine.
const WAKE_UP: Time = 50_000;

/// Credit at most, in wake-ups: successes of long ago do not count.
const CREDIT_MAX: Time = 16;

/// Credit of a new series, in wake-ups: a few looks may fail.
const CREDIT_FIRST: Time = 4;

/// Sleeps measured at the beginning of a series.
const MEASURED: Time = 4;

/// Waits of which the mean is taken: waits of long ago do not count.
const REMEMBERED: Time = 8;

/// The shortest nap. A nap takes two system calls and two switches between threads.
const NAP_MIN: Time = 20_000;

/// The longest nap. For longer waits the wake-up is too small a part to be saved.
const NAP_MAX: Time = 2_000_000;

/// Sleeps before the next series, after the first loss of all credit.
const SKIP_MIN: u32 = 16;

/// Sleeps before the next series, at most. Tries then take less than a hundredth of a processor
/// that has URBs one after the other.
const SKIP_MAX: u32 = 8192;

/// The kinds of lengths: powers of two, the last for all greater lengths.
const LENGTHS: usize = 16;

/// What a wait is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kind {
    /// URBs that the device has. Without any, the client's next URB is awaited.
    pub(super) in_flight: usize,
    /// Bytes of the last URB: a disk's command, data and status take different times.
    pub(super) len: usize,
}

impl Kind {
    const ALL: usize = 3 * LENGTHS;

    fn number(self) -> usize {
        let length = self.len.checked_ilog2().unwrap_or(0) as usize;
        length.min(LENGTHS - 1) + LENGTHS * self.in_flight.min(2)
    }

    /// Whether nobody minds a wake-up at the end of a longer wait: the device has another URB to go
    /// on with.
    const fn has_time(number: usize) -> bool {
        number >= 2 * LENGTHS
    }
}

/// How to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wait {
    /// Look for work without a wait.
    Look,
    /// Sleep until there is work, or for this time at most.
    Nap(Duration),
    /// Sleep until there is work.
    Sleep,
}

/// The lessons of earlier waits.
pub(super) struct Spin {
    /// How long to look, at most.
    limit: Duration,
    /// By [`Kind::number`].
    habits: [Habit; Kind::ALL],
    /// How late naps end.
    wake_up: Mean,
    trial: Trial,
    state: State,
}

/// The present wait.
#[derive(Clone, Copy, Debug)]
enum State {
    /// There is none, or the reactor sleeps.
    Idle,
    /// The reactor sleeps, and the wait is measured.
    Asleep {
        kind: usize,
        begin: Instant,
    },
    Napping {
        kind: usize,
        begin: Instant,
        nap: Duration,
    },
    /// `since` is when looking began; `in_vain`: a nap was over, or a look has brought nothing.
    /// Work that the first look of all has found was there already.
    Looking {
        kind: usize,
        begin: Instant,
        since: Instant,
        in_vain: bool,
    },
}

impl Spin {
    pub(super) const fn new(limit: Duration) -> Self {
        Self {
            limit,
            habits: [Habit::NEW; Kind::ALL],
            wake_up: Mean { mean: WAKE_UP, deviation: 0, known: 1 },
            trial: Trial::new(),
            state: State::Idle,
        }
    }

    /// Sets how long to look from now on.
    pub(super) const fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Whether every wait is a sleep, and need not be asked about.
    pub(super) const fn is_off(&self) -> bool {
        self.limit.is_zero() && matches!(self.state, State::Idle)
    }

    /// There is nothing to do at `now`: how to wait, unless [`Self::is_off`] has said so.
    pub(super) fn wait(&mut self, kind: Kind, now: impl Fn() -> Instant) -> Wait {
        match self.state {
            State::Idle => self.begin(kind.number(), now),
            State::Asleep { .. } => Wait::Sleep,
            State::Napping { kind, begin, nap } => {
                let now = now();
                self.end_nap(kind, now.saturating_duration_since(begin), nap);
                self.state = State::Looking { kind, begin, since: now, in_vain: true };
                Wait::Look
            }
            State::Looking { kind, begin, since, .. } => {
                let awake = now().saturating_duration_since(since);
                // Twice the price of a usual look: what is late by more may be late by any time.
                if awake < self.limit && signed(awake) < 2 * self.wake_up.mean {
                    self.state = State::Looking { kind, begin, since, in_vain: true };
                    return Wait::Look;
                }
                self.habits[kind].settle(-signed(awake.min(self.limit)), self.wake_up.mean);
                self.state = State::Asleep { kind, begin };
                Wait::Sleep
            }
        }
    }

    /// There is something to do at `now`.
    #[inline]
    pub(super) fn found(&mut self, now: impl FnOnce() -> Instant) {
        if !matches!(self.state, State::Idle) {
            self.end_wait(now);
        }
    }

    #[inline(never)]
    fn end_wait(&mut self, now: impl FnOnce() -> Instant) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => {}
            State::Asleep { kind, begin } => {
                let waited = now().saturating_duration_since(begin);
                self.habits[kind].waits.learn(signed(waited) - self.wake_up.mean);
            }
            State::Napping { kind, begin, nap } => {
                let waited = now().saturating_duration_since(begin);
                // The work has woken the reactor, or came while the timer did.
                if self.end_nap(kind, waited, nap) {
                    self.habits[kind].waits.learn(signed(waited) - self.wake_up.mean);
                }
            }
            State::Looking { kind, begin, since, in_vain } => {
                let now = now();
                let awake = now.saturating_duration_since(since);
                let habit = &mut self.habits[kind];
                if awake >= self.limit {
                    // Others had the processor.
                    habit.settle(-signed(self.limit), self.wake_up.mean);
                } else if in_vain {
                    habit.waits.learn(signed(now.saturating_duration_since(begin)));
                    habit.settle(self.wake_up.mean - signed(awake), self.wake_up.mean);
                }
            }
        }
    }

    /// The wait is over for another reason.
    pub(super) const fn forget(&mut self) {
        self.state = State::Idle;
    }

    fn begin(&mut self, kind: usize, now: impl Fn() -> Instant) -> Wait {
        debug_assert!(!self.limit.is_zero(), "`is_off` was asked");
        match self.trial.begin_wait(&now) {
            Leave::Sleep => return Wait::Sleep,
            Leave::LookAnew => self.habits = [Habit::NEW; Kind::ALL],
            Leave::Look => {}
        }
        let habit = &mut self.habits[kind];
        if habit.skip > 0 {
            habit.skip -= 1;
            return Wait::Sleep;
        }
        let begin = now();
        let nap = habit.waits.earliest() - self.wake_up.mean;
        let naps = nap >= NAP_MIN;
        if habit.waits.known >= MEASURED {
            if !naps {
                self.state = State::Looking { kind, begin, since: begin, in_vain: false };
                return Wait::Look;
            }
            if nap <= NAP_MAX && !Kind::has_time(kind) {
                let nap = Duration::from_nanos(nap.unsigned_abs());
                self.state = State::Napping { kind, begin, nap };
                return Wait::Nap(nap);
            }
            habit.give_up();
        }
        self.state = State::Asleep { kind, begin };
        Wait::Sleep
    }

    /// A nap has ended, `waited` after its beginning. False if others had the processor, as costly
    /// as looking in vain: no wake-up takes that long.
    fn end_nap(&mut self, kind: usize, waited: Duration, nap: Duration) -> bool {
        let Some(late) = waited.checked_sub(nap) else { return true };
        if late >= self.limit {
            self.habits[kind].settle(-signed(self.limit), self.wake_up.mean);
            return false;
        }
        self.wake_up.learn(signed(late));
        true
    }
}

/// The lessons of waits of a kind.
#[derive(Clone, Copy, Debug)]
struct Habit {
    waits: Mean,
    credit: Time,
    /// Waits of this series that earned credit.
    successes: u32,
    /// Sleeps before the next series.
    skip: u32,
    /// Sleeps before a series, the next time that all credit is lost.
    next_skip: u32,
}

impl Habit {
    const NEW: Self = Self {
        waits: Mean { mean: 0, deviation: 0, known: 0 },
        credit: CREDIT_FIRST * WAKE_UP,
        successes: 0,
        skip: 0,
        next_skip: SKIP_MIN,
    };

    /// A look has earned credit, or cost.
    fn settle(&mut self, gain: Time, wake_up: Time) {
        self.credit = self.credit.saturating_add(gain).min(CREDIT_MAX * wake_up);
        if self.credit < 0 {
            self.give_up();
        } else if gain > 0 {
            self.successes = self.successes.saturating_add(1);
            if self.successes >= self.next_skip {
                self.next_skip = SKIP_MIN;
            }
        }
    }

    /// Begins another series later.
    fn give_up(&mut self) {
        let next_skip = SKIP_MAX.min(2 * self.next_skip);
        *self = Self { skip: self.next_skip, next_skip, ..Self::NEW };
    }
}

/// A mean of times, of which the last count most.
#[derive(Clone, Copy, Debug)]
struct Mean {
    mean: Time,
    /// The mean distance from the mean.
    deviation: Time,
    /// Times that count.
    known: Time,
}

impl Mean {
    fn learn(&mut self, time: Time) {
        let time = time.clamp(0, 2 * NAP_MAX);
        if self.known == 0 {
            *self = Self { mean: time, deviation: time / 4, known: 1 };
            return;
        }
        let error = time - self.mean;
        self.known = REMEMBERED.min(self.known + 1);
        self.mean += error / self.known;
        self.deviation += (error.abs() - self.deviation) / self.known.min(4);
    }

    /// A time that is hardly ever undercut.
    const fn earliest(&self) -> Time {
        self.mean - 2 * self.deviation
    }
}

fn signed(time: Duration) -> Time {
    Time::try_from(time.as_nanos()).unwrap_or(Time::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::trial::{LOOKS, NOTICED};
    use super::*;

    const LIMIT: Duration = Duration::from_micros(200);
    const DISK: Kind = Kind { in_flight: 1, len: 512 };
    const CLIENT: Kind = Kind { in_flight: 0, len: 512 };

    /// Waits until the first trial is won, if looks win every pair.
    const TRIAL: usize = 500;

    /// Waits before the first look.
    const LESSONS: usize = 4;
    const _: () = assert!(MEASURED == 4);

    /// A machine, in microseconds.
    struct Machine {
        spin: Spin,
        now: Instant,
        /// From an event or a timer until the reactor runs.
        wake_up: u64,
        /// A single look.
        look: u64,
    }

    /// What a number of waits have cost.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    struct Cost {
        /// Waits that were slept through, or looked through in vain.
        sleeps: u64,
        naps: u64,
        /// Time from the events until the reactor ran.
        late: u64,
        awake: u64,
    }

    impl Machine {
        /// A machine on which looks have nothing to prove in trials: waits alone decide.
        fn new(wake_up: u64) -> Self {
            let mut machine = Self::with_trials(wake_up);
            machine.spin.trial = Trial::won();
            machine
        }

        fn with_trials(wake_up: u64) -> Self {
            Self { spin: Spin::new(LIMIT), now: Instant::now(), wake_up, look: 1 }
        }

        /// A time of the present wait.
        fn at(&self, micros: u64) -> Instant {
            self.now + Duration::from_micros(micros)
        }

        /// Spends waits with an event each after a time.
        fn spend(&mut self, kind: Kind, waits: impl IntoIterator<Item = u64>) -> Cost {
            let mut cost = Cost::default();
            for event in waits {
                let seen = self.spend_one(kind, event, &mut cost);
                self.now = self.at(seen);
                cost.late += seen - event;
            }
            cost
        }

        /// Spends a wait with an event after a time, and returns when the event is seen.
        fn spend_one(&mut self, kind: Kind, event: u64, cost: &mut Cost) -> u64 {
            let mut passed = 0;
            loop {
                let now = self.at(passed);
                match self.spin.wait(kind, || now) {
                    Wait::Look => {
                        passed += self.look;
                        cost.awake += self.look;
                    }
                    Wait::Nap(nap) => {
                        cost.naps += 1;
                        passed = event.min(micros(nap)) + self.wake_up;
                    }
                    Wait::Sleep => {
                        cost.sleeps += 1;
                        passed = passed.max(event) + self.wake_up;
                    }
                }
                if passed >= event {
                    let now = self.at(passed);
                    self.spin.found(|| now);
                    return passed;
                }
            }
        }
    }

    fn micros(time: Duration) -> u64 {
        u64::try_from(time.as_micros()).expect("short")
    }

    /// Lengths around a mean, by turns.
    fn around(mean: u64, deviation: u64, count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(move |number| mean - deviation + (number * 7) % (2 * deviation + 1))
    }

    #[test]
    fn short_waits_are_looked_through() {
        let mut machine = Machine::new(30);
        machine.spend(DISK, [20; LESSONS]);
        assert_eq!(machine.spend(DISK, [20; 1000]), Cost { awake: 20_000, ..Cost::default() });
    }

    #[test]
    fn longer_waits_are_napped_through_but_for_their_end() {
        let mut machine = Machine::new(30);
        machine.spend(DISK, around(150, 5, LESSONS as u64));
        let cost = machine.spend(DISK, around(150, 5, 1000));
        assert_eq!((cost.naps, cost.sleeps), (1000, 0));
        assert!(cost.late < 1000, "{} µs too late, instead of 30,000", cost.late);
        assert!(cost.awake < 20_000, "{} µs awake, instead of 150,000", cost.awake);
    }

    #[test]
    fn late_timers_make_naps_shorter() {
        let mut machine = Machine::new(80);
        machine.spend(DISK, around(400, 5, LESSONS as u64));
        let cost = machine.spend(DISK, around(400, 5, 1000));
        assert!(cost.late < 1000 && cost.awake < 20_000, "{cost:?}");
    }

    #[test]
    fn a_device_with_further_urbs_is_only_looked_at_if_the_wait_is_short() {
        let mut machine = Machine::new(30);
        let stream = Kind { in_flight: 4, ..DISK };
        let cost = machine.spend(stream, around(210, 5, 10_000));
        assert_eq!((cost.naps, cost.awake), (0, 0));
        let small = Kind { len: 64, ..stream };
        machine.spend(small, [20; LESSONS]);
        assert_eq!(machine.spend(small, [20; 1000]).sleeps, 0);
    }

    #[test]
    fn looking_takes_no_more_time_than_wake_ups_would() {
        for mean in [30, 60, 100, 150, 200, 400, 1000] {
            for deviation in [1, mean / 4, mean / 2, mean - 1] {
                let mut machine = Machine::new(30);
                let cost = machine.spend(DISK, around(mean, deviation, 10_000));
                let most = 10_000 * 50 + 1000;
                assert!(cost.awake < most, "{mean} ± {deviation}: {} µs", cost.awake);
            }
        }
    }

    #[test]
    fn kinds_of_waits_are_told_apart() {
        let mut machine = Machine::new(30);
        let data = Kind { len: 4096, ..DISK };
        let round = |machine: &mut Machine| {
            let waits = [(DISK, 20), (CLIENT, 10), (data, 300), (CLIENT, 10)];
            let mut late = 0;
            for (kind, wait) in waits {
                late += machine.spend(kind, [wait]).late;
            }
            late
        };
        for _ in 0..LESSONS {
            round(&mut machine);
        }
        assert_eq!((0..50).map(|_| round(&mut machine)).sum::<u64>(), 0);
    }

    #[test]
    fn a_long_wait_now_and_then_does_no_harm() {
        let mut machine = Machine::new(30);
        machine.spend(DISK, [20; LESSONS]);
        let waits = (0..1000).map(|number| if number % 20 == 19 { 5000 } else { 20 });
        assert_eq!(machine.spend(DISK, waits).sleeps, 50);
    }

    #[test]
    fn waits_of_any_length_are_hardly_looked_through() {
        let mut machine = Machine::new(30);
        let waits = (0..100_000).map(|number| number * 7919 % 2000);
        let cost = machine.spend(DISK, waits);
        assert!(cost.awake < 100_000_000 / 100, "{} µs awake in 100 s", cost.awake);
    }

    #[test]
    fn waits_beyond_the_longest_nap_are_slept_through() {
        let mut machine = Machine::new(30);
        let cost = machine.spend(DISK, [5000; 10_000]);
        assert_eq!((cost.naps, cost.awake), (0, 0));
    }

    /// As with a device that has data at times of its own: what a look saves, the next wait takes.
    #[test]
    fn looks_that_make_no_round_shorter_are_given_up() {
        let mut machine = Machine::with_trials(30);
        let start = machine.now;
        let mut sleeps = 0;
        for tick in 1..=100_000_u64 {
            let wait = (tick * 100).saturating_sub(micros(machine.now - start));
            sleeps += machine.spend(DISK, [wait]).sleeps;
        }
        assert!(sleeps > 98_000, "{sleeps} waits of 100,000 were slept through");
    }

    #[test]
    fn looks_that_make_rounds_hardly_shorter_are_given_up_and_others_are_not() {
        for (wait, sleeps) in [(1200, 98_000..100_001), (300, 0..10_000)] {
            let mut machine = Machine::with_trials(30);
            let cost = machine.spend(DISK, around(wait, 5, 100_000));
            assert!(sleeps.contains(&cost.sleeps), "{wait} µs: {cost:?}");
        }
    }

    #[test]
    fn a_trial_that_is_lost_behind_a_won_one_is_soon_repeated() {
        let mut machine = Machine::with_trials(30);
        machine.spend(DISK, [20; TRIAL]);
        machine.spend(DISK, std::iter::repeat_n(1200, LOOKS as usize + 100));
        machine.spend(DISK, [20; TRIAL]);
        assert_eq!(machine.spend(DISK, [20; 1000]).sleeps, 0);
    }

    /// As with a client that does something else at random: the longer series says nothing.
    #[test]
    fn pauses_of_the_client_do_not_win_trials() {
        let mut machine = Machine::with_trials(30);
        let mut sleeps = 0;
        for number in 0..100_000u64 {
            sleeps += machine.spend(DISK, [1200]).sleeps;
            machine.now = machine.at(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48);
        }
        assert!(sleeps > 98_000, "{sleeps} waits of 100,000 were slept through");
    }

    /// As on a machine with one processor, where the client runs only while the reactor sleeps.
    #[test]
    fn where_the_other_side_needs_the_processor_the_reactor_hardly_looks() {
        let mut machine = Machine::new(30);
        let mut looks = 0;
        for _ in 0..100_000 {
            let begin = machine.now;
            let mut passed = Duration::ZERO;
            while machine.spin.wait(CLIENT, || begin + passed) == Wait::Look {
                passed += Duration::from_micros(1);
                looks += 1;
            }
            machine.now = begin + passed + Duration::from_micros(20);
            machine.spin.found(|| machine.now);
        }
        // A series ends with its credit, four wake-ups of 50 µs, behind three waits with looks of
        // two wake-ups each. With ever more sleeps between them, 100,000 waits have 21 series.
        assert_eq!(looks, 21 * 3 * 100);
    }

    /// Spends waits in which another program has the processor for some milliseconds, in one of so
    /// many, and returns how many waits were not slept through.
    fn awake_beside_another_program(wait: u64, one_in: u64) -> u64 {
        let mut machine = Machine::new(30);
        let mut slept = 0;
        for number in 0..100_000 {
            let robbed = number % one_in == 0;
            (machine.look, machine.wake_up) = if robbed { (3000, 3000) } else { (1, 30) };
            slept += machine.spend(DISK, [wait]).sleeps;
        }
        100_000 - slept
    }

    #[test]
    fn where_another_program_often_wants_the_processor_the_reactor_hardly_looks() {
        // Counted: without a clock and without chance, each run has the same waits.
        for (wait, often, seldom) in [(20, 116, 99_996), (150, 21, 99_974)] {
            let awake = awake_beside_another_program(wait, 3);
            assert!((1..=often).contains(&awake), "awake at the end of {awake} waits of 100,000");
            // Seldom: the time was lost to a sleeper, too.
            let awake = awake_beside_another_program(wait, 50);
            assert!(awake >= seldom, "awake at the end of {awake} waits of 100,000");
        }
    }

    #[test]
    fn work_that_was_there_already_teaches_nothing() {
        let mut machine = Machine::new(30);
        machine.spend(DISK, [20; LESSONS]);
        let credit = machine.spin.habits[DISK.number()].credit;
        for _ in 0..1000 {
            let now = machine.now;
            assert_eq!(machine.spin.wait(DISK, || now), Wait::Look);
            machine.spin.found(|| now);
        }
        assert_eq!(machine.spin.habits[DISK.number()].credit, credit);
    }

    #[test]
    fn waits_that_become_short_are_noticed() {
        let of_a_series = SKIP_MAX as usize + LESSONS;
        let of_a_trial = NOTICED as usize;
        for (mut machine, noticed) in
            [(Machine::new(30), of_a_series), (Machine::with_trials(30), of_a_trial)]
        {
            machine.spend(DISK, [5000; 20_000]);
            machine.spend(DISK, std::iter::repeat_n(20, noticed));
            assert_eq!(machine.spend(DISK, [20; 1000]).sleeps, 0);
        }
    }

    #[test]
    fn a_wait_that_is_forgotten_costs_nothing() {
        let mut machine = Machine::new(30);
        machine.spend(DISK, [20; LESSONS]);
        let now = machine.now;
        assert_eq!(machine.spin.wait(DISK, || now), Wait::Look);
        machine.spin.forget();
        machine.now += Duration::from_secs(10);
        assert_eq!(machine.spend(DISK, [20; 100]).sleeps, 0);
    }

    #[test]
    fn without_a_limit_every_wait_is_a_sleep_and_needs_no_time() {
        let mut spin = Spin::new(Duration::ZERO);
        assert!(spin.is_off());
        spin.found(|| unreachable!("nobody asks for the time"));
    }

    #[test]
    fn a_wait_that_loses_its_limit_is_looked_through_no_further() {
        let mut machine = Machine::new(30);
        machine.spend(DISK, [20; LESSONS]);
        let now = machine.now;
        assert_eq!(machine.spin.wait(DISK, || now), Wait::Look);
        machine.spin.set_limit(Duration::ZERO);
        assert!(!machine.spin.is_off());
        assert_eq!(machine.spin.wait(DISK, || now), Wait::Sleep);
        machine.spin.found(|| now);
        assert!(machine.spin.is_off());
    }
}
