//! The map of the crate's page, held against the source: which part names which.
//!
//! Contract: tests only; reads the source files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Parts open to every other part.
const COMMON: [&str; 14] = [
    "caught",
    "channel",
    "complaints",
    "deadline",
    "limits",
    "names",
    "programs",
    "runtime",
    "sockets",
    "sorted",
    "threads",
    "units",
    "whose",
    "words",
];

/// Parts for tests and fuzzers, open to the tests of every part.
const TESTS: [&str; 2] = ["fuzzing", "map"];

/// Files outside of every part: the program, and the page of the crate.
const OUTSIDE: [&str; 2] = ["main", "lib"];

/// A part of the crate: all files of a folder, or a file.
pub(crate) fn source_of(part: &str) -> Vec<(PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let folder = src.join(part);
    let part = if folder.exists() { folder } else { src.join(part).with_extension("rs") };
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).expect("the source is text");
        (file, text)
    };
    files(&part).into_iter().map(read).collect()
}

/// All files below a directory, or the path itself when it is a file.
fn files(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return vec![path.to_owned()] };
    entries.flat_map(|entry| files(&entry.expect("it can be read").path())).collect()
}

/// The parts named in the code of a text as `crate::PART`.
fn named_in(text: &str) -> BTreeSet<&str> {
    let ends = |c: char| !c.is_ascii_lowercase() && c != '_';
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let named = code.flat_map(|line| line.split("crate::").skip(1));
    named.filter_map(|rest| rest.split(ends).next()).filter(|name| !name.is_empty()).collect()
}

/// The parts, by the files and folders of the source.
fn parts() -> Vec<String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let entries = fs::read_dir(src).expect("a folder").map(|entry| entry.expect("readable").path());
    let name = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    entries.map(name).filter(|name| !OUTSIDE.contains(&name.as_str())).collect()
}

/// The arrows on the page of the crate: `PART ─► PART, PART`.
fn arrows(page: &str) -> Vec<(&str, BTreeSet<&str>)> {
    let lines = page.lines().filter_map(|line| line.strip_prefix("//! ")?.split_once("─►"));
    let arrows = lines.filter(|(_, to)| !to.contains('─'));
    arrows
        .map(|(from, to)| (from.trim_matches([' ', '─']), to.trim().split(", ").collect()))
        .collect()
}

#[test]
fn parts_know_each_other_as_on_the_map() {
    let pages = source_of("lib");
    let arrows = arrows(&pages[0].1);
    for part in parts() {
        let source = source_of(&part);
        let named: BTreeSet<&str> = source.iter().flat_map(|(_, text)| named_in(text)).collect();
        let free = |name: &str| name == part || COMMON.contains(&name) || TESTS.contains(&name);
        let named: BTreeSet<&str> = named.into_iter().filter(|name| !free(name)).collect();
        let drawn = arrows.iter().find(|(from, _)| *from == part).map(|(_, to)| to.clone());
        assert_eq!(named, drawn.unwrap_or_default(), "{part} names the first, and has arrows to");
    }
}

/// Arrows point down, but for the worker's: results go to the reactor.
#[test]
fn no_arrow_of_the_map_points_up() {
    let pages = source_of("lib");
    let arrows = arrows(&pages[0].1);
    for (row, (from, to)) in arrows.iter().enumerate() {
        let above = arrows[..row].iter().map(|(part, _)| *part).filter(|part| to.contains(part));
        let expected: &[&str] = if *from == "worker" { &["reactor"] } else { &[] };
        assert_eq!(above.collect::<Vec<_>>(), expected, "{from}");
    }
}

#[test]
fn the_page_names_every_common_part() {
    let pages = source_of("lib");
    for part in COMMON {
        assert!(pages[0].1.contains(&format!("`{part}`")), "{part}");
    }
}

#[test]
fn no_error_is_a_bare_text() {
    for (file, text) in source_of("") {
        let mut signatures = text.lines().filter(|line| line.contains("Result<"));
        let bare = signatures.find(|line| line.contains(concat!(", ", "String>")));
        assert_eq!(bare, None, "{}", file.display());
    }
}
