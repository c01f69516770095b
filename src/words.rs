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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_no_number() {
        let error = io::Error::from_raw_os_error(13);
        assert!(error.to_string().contains("os error"), "{error}");
        assert!(!reason(&error).contains("os error"), "{}", reason(&error));
        let named = io::Error::other("no (os error of the system's)");
        assert_eq!(reason(&named), "no (os error of the system's)");
    }
}
