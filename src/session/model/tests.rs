//! The runs: seeds, and the report of a failure.

use std::any::Any;
use std::cell::Cell;
use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};
use std::panic::{self, AssertUnwindSafe, Location};
use std::str::FromStr;
use std::sync::Once;

use super::operation::{Operation, Scale};
use super::rng::Rng;
use super::run;

/// Steps of a seed: a few worlds, or a single world of long life.
const STEPS_PER_SEED: u64 = 5000;

/// Seeds of each of the two tests below: a million steps together.
const SEEDS: u64 = 100;

/// Runs for cutting a failing run down, at most.
const SHRINK_RUNS_MAX: u32 = 3000;

#[test]
fn seeds_that_never_change() {
    if variable::<u64>("USBFERRY_SEED").is_some() {
        return;
    }
    (0..SEEDS).for_each(|seed| run_seed(seed, STEPS_PER_SEED));
}

#[test]
fn seeds_that_are_new_each_time() {
    let steps = variable("USBFERRY_STEPS");
    if let Some(seed) = variable("USBFERRY_SEED") {
        return run_seed(seed, steps.unwrap_or(STEPS_PER_SEED));
    }
    let seeds = steps.map_or(SEEDS, |steps| steps / STEPS_PER_SEED);
    let mut rng = Rng(RandomState::new().hash_one(0));
    (0..seeds).for_each(|_| run_seed(rng.next(), STEPS_PER_SEED));
}

/// Reads an environment variable.
fn variable<T: FromStr>(name: &str) -> Option<T> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} has to be a number, not {value:?}")))
}

/// Runs a seed, and reports a failure in full.
fn run_seed(seed: u64, steps: u64) {
    let mut rng = Rng(seed);
    let words: Vec<u64> = (0..=steps).map(|_| rng.next()).collect();
    let Err((used, cause)) = attempt(&words) else { return };
    eprintln!("seed {seed} failed; again with USBFERRY_SEED={seed} USBFERRY_STEPS={steps}");
    keep_quiet();
    let _ = attempt(&words);
    let words = shrink(words[..used].to_vec(), LINE.get());
    QUIET.set(false);
    eprintln!("what is needed for it:{}", describe(&words));
    let _ = attempt(&words);
    panic::resume_unwind(cause);
}

thread_local! {
    /// Panics of the thread are expected, and only their place is noted.
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static LINE: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Has the panics of the thread noted and not printed, until `QUIET` is taken back.
fn keep_quiet() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            LINE.set(info.location().map(Location::line));
            if !QUIET.get() {
                print(info);
            }
        }));
    });
    QUIET.set(true);
}

/// Runs words; a failure comes with the number of words used and the cause.
fn attempt(words: &[u64]) -> Result<(), (usize, Box<dyn Any + Send>)> {
    let mut used = 0;
    let counted = words.iter().copied().inspect(|_| used += 1);
    let result = panic::catch_unwind(AssertUnwindSafe(|| run(counted)));
    result.map_err(|cause| (used, cause))
}

/// Leaves out words, many at a time and then few, as long as the rest still fails at `line`.
fn shrink(mut words: Vec<u64>, line: Option<u32>) -> Vec<u64> {
    let mut runs = 0;
    let mut piece = words.len() / 2;
    while piece > 0 {
        let (mut at, before) = (0, words.len());
        while at < words.len() && runs < SHRINK_RUNS_MAX {
            let end = (at + piece).min(words.len());
            let rest = [&words[..at], &words[end..]].concat();
            runs += 1;
            let still_fails = attempt(&rest).is_err() && LINE.get() == line;
            if still_fails { words = rest } else { at += piece }
        }
        // A word needed before can perhaps be left out now.
        if piece > 1 || words.len() == before || runs >= SHRINK_RUNS_MAX {
            piece /= 2;
        }
    }
    words
}

fn describe(words: &[u64]) -> String {
    let mut text = String::new();
    for (index, &word) in words.iter().enumerate() {
        let _ = match index {
            0 => write!(text, "\n{word:#018x} {:?}", Scale::decode(word)),
            _ => write!(text, "\n{word:#018x} {:?}", Operation::decode(word)),
        };
    }
    text
}

#[test]
fn nothing_at_all_is_a_run_too() {
    run([]);
    run([0]);
}
