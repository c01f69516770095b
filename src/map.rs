//! The map of the crate's page, held against the source: which room names which.
//!
//! Contract: tests only; reads the source files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms open to every other room; tests may use `fuzzing`.
const COMMON: [&str; 5] = ["complaints", "fuzzing", "limits", "units", "words"];

/// The other rooms, each with the rooms it may name.
const ARROWS: [(&str, &[&str]); 10] = [
    ("commands", &["cli", "client", "config", "reactor", "usb"]),
    ("cli", &["config", "usb", "wire"]),
    ("config", &["usb", "wire"]),
    ("client", &["wire"]),
    ("logging", &[]),
    ("reactor", &["config", "handshake", "session", "stats", "status", "usb", "wire", "worker"]),
    ("session", &["caught", "stats", "usb", "wire"]),
    ("usb", &["wire"]),
    ("stats", &["wire"]),
    ("wire", &[]),
];

/// A part of the source: all files of a folder, or a file.
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

/// The rooms named in a text as `crate::ROOM`.
fn named_in(text: &str) -> BTreeSet<&str> {
    let ends = |c: char| !c.is_ascii_lowercase() && c != '_';
    text.split("crate::").skip(1).filter_map(|rest| rest.split(ends).next()).collect()
}

#[test]
fn rooms_know_each_other_as_on_the_map() {
    for (room, may_name) in ARROWS {
        let source = source_of(room);
        assert!(!source.is_empty(), "{room}");
        for (file, text) in source {
            for named in named_in(&text) {
                let is_known = named == room
                    || COMMON.contains(&named)
                    || may_name.contains(&named)
                    || named.is_empty();
                assert!(is_known, "{} names {named}", file.display());
            }
        }
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
