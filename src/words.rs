//! Words for users, common to several parts of the crate.
//!
//! Contract: pure.

use std::io;

/// The system's reason without its number, which tells a user nothing.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error ") {
        Some((words, _)) if error.raw_os_error().is_some() => words.to_owned(),
        _ => text,
    }
}

/// A text chosen by a device, a peer or a program, for a terminal: quotes as they are, and
/// everything unprintable escaped, as are backslashes.
pub(crate) fn printable(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\'' => String::from(c),
        other => other.escape_debug().collect(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_stay_and_nothing_unprintable_does() {
        assert_eq!(printable("7\" disk, Bob's"), "7\" disk, Bob's");
        assert_eq!(printable("a\u{1b}[31m\n\u{202e}b\\"), "a\\u{1b}[31m\\n\\u{202e}b\\\\");
        assert_eq!(printable("Größe 5µ"), "Größe 5µ");
    }

    #[test]
    fn a_reason_has_no_number() {
        let error = io::Error::from_raw_os_error(13);
        assert!(error.to_string().contains("os error"), "{error}");
        assert!(!reason(&error).contains("os error"), "{}", reason(&error));
        let named = io::Error::other("no (os error of the system's)");
        assert_eq!(reason(&named), "no (os error of the system's)");
    }
}
