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

/// A time that has passed, for a reader: in its two largest units, rounded down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lasting(pub(crate) Duration);

impl fmt::Display for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
        match (days, hours, minutes, seconds) {
            (0, 0, 0, 0) => write!(f, "{} ms", self.0.as_millis()),
            (0, 0, 0, _) => write!(f, "{seconds} s"),
            (0, 0, ..) => write!(f, "{minutes} min {} s", seconds % 60),
            (0, ..) => write!(f, "{hours} h {} min", minutes % 60),
            _ => write!(f, "{days} d {} h", hours % 24),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_has_passed_is_told_in_two_units() {
        for (millis, told) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (59_999, "59 s"),
            (60_000, "1 min 0 s"),
            (3_599_999, "59 min 59 s"),
            (3_600_000, "1 h 0 min"),
            (86_399_999, "23 h 59 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(Lasting(Duration::from_millis(millis)).to_string(), told);
        }
    }

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
