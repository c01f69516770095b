//! Numbers with a unit, in the form that users type: sizes and times.
//!
//! Contract: pure. Errors have no text; the caller knows the purpose of the number and explains.

use std::fmt;
use std::time::Duration;

/// Bytes: a number, alone or with `K`, `M` or `G`, small letters too.
pub(crate) fn parse_size(text: &str) -> Option<usize> {
    let (digits, shift) = match text.as_bytes().last().map(u8::to_ascii_uppercase) {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<usize>().ok()?.checked_mul(1 << shift)
}

/// Bytes, shown in the form that users type, with the largest unit that leaves no rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        let units = [(30, "G"), (20, "M"), (10, "K")];
        let mut fitting = units.into_iter().filter(|&(shift, _)| bytes.trailing_zeros() >= shift);
        let (shift, unit) = fitting.next().filter(|_| bytes > 0).unwrap_or((0, ""));
        write!(f, "{}{unit}", bytes >> shift)
    }
}

/// A time: a number with `us`, `ms` or `s`. The number has 32 bits, which is an hour of
/// microseconds, and no clock overflows by as many seconds.
pub(crate) fn parse_time(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u32 = digits.parse().ok()?;
    match &text[digits.len()..] {
        "us" => Some(Duration::from_micros(number.into())),
        "ms" => Some(Duration::from_millis(number.into())),
        "s" => Some(Duration::from_secs(number.into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("4096"), Some(4096));
        assert_eq!(parse_size("128K"), Some(128 << 10));
        assert_eq!(parse_size("16m"), Some(16 << 20));
        assert_eq!(parse_size("1G"), Some(1 << 30));
        for wrong in ["", "K", "1MM", "-1M", "1.5M", "99999999999999999999K", "1 M"] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_size_is_shown_in_its_typed_form() {
        for text in ["0", "1", "1023", "1K", "1536K", "2M", "16M", "1G", "1048577"] {
            assert_eq!(Size(parse_size(text).unwrap() as u64).to_string(), text);
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(parse_time("50us"), Some(Duration::from_micros(50)));
        assert_eq!(parse_time("2ms"), Some(Duration::from_millis(2)));
        assert_eq!(parse_time("3600s"), Some(Duration::from_secs(3600)));
        for wrong in ["", "5", "ms", "5min", "5 s", "-1s", "1.5s", "99999999999s"] {
            assert_eq!(parse_time(wrong), None, "{wrong}");
        }
    }
}
