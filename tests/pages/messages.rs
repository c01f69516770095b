//! Messages in docs/troubleshooting.md: each is the program's own.

use std::fs;
use std::path::Path;

use super::text::{Page, root};

/// The sections with messages of usbferry; the rest quotes other programs.
const OWN: [&str; 2] = ["## Messages of the server", "## Messages of usbferry as a client"];

#[test]
fn quoted_messages_are_the_programs_own() {
    let texts = ["src", "program/src"].map(|folder| texts_of(&root().join(folder))).concat();
    let page = Page::read("docs/troubleshooting.md");
    let messages = own_messages(&page);
    assert!(messages.len() > 50, "only {} messages", messages.len());
    let unknown: Vec<_> = messages.iter().filter(|message| !is_said(&texts, message)).collect();
    assert!(unknown.is_empty(), "no source has {unknown:#?}");
}

/// The code in the first cells of the tables in the program's own sections.
fn own_messages(page: &Page) -> Vec<String> {
    let mut is_own = false;
    let mut messages = Vec::new();
    for prose in page.prose() {
        if prose.starts_with("## ") {
            is_own = OWN.contains(&prose);
        } else if let Some(row) = prose.strip_prefix("| ").filter(|_| is_own) {
            let cell = row.split(" | ").next().expect("a split has a first part");
            messages.extend(cell.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    messages
}

/// Whether a source has all pieces of a message, between the parts that change.
fn is_said(texts: &[String], message: &str) -> bool {
    let pieces: Vec<&str> = message.split('…').map(str::trim).filter(|p| !p.is_empty()).collect();
    assert!(pieces.iter().map(|piece| piece.len()).sum::<usize>() >= 8, "{message} says nothing");
    texts.iter().any(|text| pieces.iter().all(|piece| text.contains(piece)))
}

/// The sources below a folder without their tests, with the lines of each string joined.
fn texts_of(folder: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            texts.extend(texts_of(&path));
        } else {
            let text = fs::read_to_string(path).expect("the source is text");
            let code = text.split("#[cfg(test)]\nmod tests").next().expect("a first part");
            texts.push(joined(code));
        }
    }
    texts
}

/// A text with the lines of a string joined where a backslash ends the line.
fn joined(code: &str) -> String {
    let mut lines = code.split("\\\n");
    let first = lines.next().expect("a split has a first part").to_owned();
    lines.fold(first, |joined, line| joined + line.trim_start())
}
