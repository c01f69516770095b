//! The map of the crate's page, held against the source of both packages: which part names which.
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

/// The file outside of every part: the page of a crate.
const OUTSIDE: &str = "lib";

/// The source of the server and of the program.
fn folders() -> [PathBuf; 2] {
    let server = Path::new(env!("CARGO_MANIFEST_DIR"));
    [server.to_owned(), server.join("../program/src")]
}

/// A part of either package: all files of a folder, or a file.
pub(crate) fn source_of(part: &str) -> Vec<(PathBuf, String)> {
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).expect("the source is text");
        (file, text)
    };
    let places = folders().map(|folder| folder.join(part));
    let source = places.iter().flat_map(|place| files(place)).map(read).collect::<Vec<_>>();
    assert!(!source.is_empty(), "{part} is in neither package");
    source
}

/// Whether a path is a folder or a file of source: a package's manifest lies beside them.
fn is_source(path: &Path) -> bool {
    path.is_dir() || path.extension().is_some_and(|extension| extension == "rs")
}

/// All files of source in a folder, or else the file of that name, if there is one.
fn files(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else {
        let file = path.with_extension("rs");
        return if file.exists() { vec![file] } else { Vec::new() };
    };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| is_source(path)).flat_map(|path| files(&path)).collect()
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
    let entries = folders().map(|folder| fs::read_dir(folder).expect("a folder"));
    let paths = entries.into_iter().flatten().map(|entry| entry.expect("an entry").path());
    let name = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    paths.filter(|path| is_source(path)).map(name).filter(|name| name != OUTSIDE).collect()
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

/// A reactor made in the program's package would be compiled there, to be small (`server`).
#[test]
fn the_program_makes_no_reactor() {
    let [_, program] = folders();
    for file in files(&program).into_iter().filter(|file| !file.ends_with("tests.rs")) {
        let text = fs::read_to_string(&file).expect("the source is text");
        let code = text.split("#[cfg(test)]\nmod tests").next().expect("a first part");
        assert!(!code.contains("Reactor"), "{}", file.display());
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
