//! The corpora on stable Rust, for the tests of both packages with functions for fuzzers: every
//! input, and a fixed set of variations.
//!
//! Contract: tests only.

use std::path::PathBuf;
use std::{fs, thread};

use super::Rng;

/// Prints the input of a run if the run panics.
struct Running<'a>(&'a str, &'a [u8]);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the input is {}: {:02x?}", self.0, self.1);
        }
    }
}

/// The inputs of a target, sorted by name for the same order on every machine.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = PathBuf::from_iter([env!("CARGO_MANIFEST_DIR"), "../fuzz/corpus", target]);
    let files = fs::read_dir(&directory);
    let files = files.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut inputs: Vec<(String, Vec<u8>)> = files
        .map(|file| {
            let path = file.expect("an entry").path();
            let bytes = fs::read(&path).expect("a file");
            (path.display().to_string(), bytes)
        })
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", directory.display());
    inputs
}

/// Runs a target on its corpus, and on the given number of `variations`.
pub(super) fn replay(target: &str, run: fn(&[u8]), variations: u32) {
    let corpus = corpus(target);
    for (name, bytes) in &corpus {
        let _running = Running(name, bytes);
        run(bytes);
    }
    let mut rng = Rng(0);
    let count = u32::try_from(corpus.len()).expect("some files");
    for number in 0..variations {
        let [(_, one), (_, other)] = [(); 2].map(|()| &corpus[rng.below(count) as usize]);
        let bytes = vary(one, other, &mut rng);
        let _running = Running(&format!("variation {number}"), &bytes);
        run(&bytes);
    }
}

/// The first part of `one` and the last part of `other`, with some bits changed.
fn vary(one: &[u8], other: &[u8], rng: &mut Rng) -> Vec<u8> {
    // At a multiple of eight, words stay words and headers mostly headers.
    let mut cut = |bytes: &[u8]| {
        let words = u32::try_from(bytes.len() / 8).expect("short inputs");
        8 * rng.below(words + 1) as usize
    };
    let (head, tail) = (&one[..cut(one)], &other[cut(other)..]);
    let mut bytes = [head, tail].concat();
    let len = u32::try_from(bytes.len()).expect("short inputs");
    for _ in 0..rng.below(4).min(len) {
        bytes[rng.below(len) as usize] ^= 1 << rng.below(8);
    }
    bytes
}
