//! Words for users, common to several parts of the crate.
//!
//! Contract: pure.

use std::io;
use std::time::Duration;

/// The system's reason without its number, which tells a user nothing.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error ") {
        Some((words, _)) if error.raw_os_error().is_some() => words.to_owned(),
        _ => text,
    }
}

/// The reason of a failed look-up of a name, without the standard library's words in front.
pub fn look_up_reason(error: &io::Error) -> String {
    let reason = reason(error);
    reason.strip_prefix("failed to lookup address information: ").unwrap_or(&reason).to_owned()
}

/// A time in seconds, such as `10 s` or `0.1 s`.
pub fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

/// The ending of a noun of which there are `count`.
pub fn plural<N: PartialEq + From<u8>>(count: N) -> &'static str {
    if count == N::from(1) { "" } else { "s" }
}

/// A text chosen by a device, a peer or a program, for a terminal: quotes as they are, and
/// everything unprintable escaped, as are backslashes.
pub fn printable(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\'' => String::from(c),
        other => other.escape_debug().collect(),
    };
    text.chars().map(escape).collect()
}

/// A text with whatever a user, or a file of the user's, has put into the text, for a terminal:
/// everything that is not seen is escaped, except line breaks.
pub fn visible(text: &str) -> String {
    let escape = |c: char| if is_visible(c) { String::from(c) } else { c.escape_debug().collect() };
    text.chars().map(escape).collect()
}

/// Whether a character shows on a terminal as it is, or ends a line.
pub fn is_visible(c: char) -> bool {
    matches!(c, '\n' | '"' | '\'' | '\\') || c.escape_debug().len() == 1
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
    fn a_visible_text_is_as_it_was() {
        assert_eq!(visible("a \\u{1b} \"b'\n\u{fc}"), "a \\u{1b} \"b'\n\u{fc}");
        assert_eq!(visible("a\u{1b}[31m\r\u{202e}\u{9b}"), "a\\u{1b}[31m\\r\\u{202e}\\u{9b}");
    }

    #[test]
    fn a_time_is_said_in_seconds() {
        assert_eq!(seconds(Duration::from_secs(10)), "10 s");
        assert_eq!(seconds(Duration::from_millis(100)), "0.1 s");
    }

    #[test]
    fn one_alone_is_no_plural() {
        assert_eq!([0_u64, 1, 2].map(plural), ["s", "", "s"]);
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
