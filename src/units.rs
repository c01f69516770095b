//! Sizes and times: read in the form that users type, by the crates `parse-size` and `jiff`, and
//! shown in forms of our own.
//!
//! Contract: pure, but for [`clock`], which reads the system's time zone. Errors have no text; the
//! caller knows the purpose of the number and explains.

use std::fmt;
use std::time::{Duration, SystemTime};

use jiff::fmt::friendly::SpanParser;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// A hundred years.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Bytes: a number, alone or with a unit: `K`, `KB`, `KiB`, `M` and so on, small letters too, each
/// a power of 1024.
pub fn parse_size(text: &str) -> Option<usize> {
    let bytes = parse_size::Config::new().with_binary().parse_size(text).ok()?;
    usize::try_from(bytes).ok()
}

/// Bytes, shown in the form that users type, with the largest unit that leaves no rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        let units = [(30, "G"), (20, "M"), (10, "K")];
        let mut fitting = units.into_iter().filter(|&(shift, _)| bytes.trailing_zeros() >= shift);
        let (shift, unit) = fitting.next().filter(|_| bytes > 0).unwrap_or((0, ""));
        write!(f, "{}{unit}", bytes >> shift)
    }
}

/// A time: numbers with `us`, `ms`, `s`, `m` or `h`, or with the words for these units. At most a
/// century, by which no clock overflows.
pub fn parse_time(text: &str) -> Option<Duration> {
    let time = SpanParser::new().parse_unsigned_duration(text).ok()?;
    (time <= CENTURY).then_some(time)
}

/// A time that has passed, for a reader: in its two largest units, rounded down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lasting(pub Duration);

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

/// A time as short as a column of a table, in four signs and a unit at most: `12.3ms`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Brief(pub Duration);

impl fmt::Display for Brief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (micros, seconds) = (self.0.as_micros(), self.0.as_secs());
        let (tenths_of_ms, tenths) = (micros / 100, micros / 100_000);
        let text = match (micros, seconds) {
            (0..1000, _) => format!("{micros}us"),
            (..100_000, _) => format!("{}.{}ms", tenths_of_ms / 10, tenths_of_ms % 10),
            (_, 0) => format!("{}ms", tenths_of_ms / 10),
            (_, ..100) => format!("{}.{}s", tenths / 10, tenths % 10),
            (_, ..6000) => format!("{}min", seconds / 60),
            (_, ..360_000) => format!("{}h", seconds / 3600),
            _ => format!("{}d", seconds / 86400),
        };
        f.pad(&text)
    }
}

/// An amount for a reader, in four signs and a unit at most: `12.3M`, each unit a power of 1000, or
/// of 1024 for bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Amount {
    /// The amount, in ones.
    pub count: u64,
    /// The factor between units.
    pub unit: u64,
}

impl Amount {
    /// An amount of bytes.
    pub const fn bytes(count: u64) -> Self {
        Self { count, unit: 1024 }
    }

    /// An amount of anything else.
    pub const fn of(count: u64) -> Self {
        Self { count, unit: 1000 }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];
        let Self { count, unit } = *self;
        let (mut whole, mut tenths, mut place) = (count, 0, 0);
        while whole > 999 && place + 1 < UNITS.len() {
            (tenths, whole, place) = (whole % unit * 10 / unit, whole / unit, place + 1);
        }
        let name = UNITS[place];
        let text = match whole {
            _ if place == 0 => whole.to_string(),
            0..100 => format!("{whole}.{tenths}{name}"),
            _ => format!("{whole}{name}"),
        };
        f.pad(&text)
    }
}

/// A moment for a reader: the local time of day, with the date on another day.
pub fn clock(time: SystemTime) -> String {
    match (zoned(time), zoned(SystemTime::now())) {
        (Some(time), Some(now)) => clock_beside(&time, &now),
        _ => "?".to_owned(),
    }
}

/// A moment for a reader: the local time of day, to the second.
pub fn clock_with_seconds(time: SystemTime) -> String {
    zoned(time).map_or_else(|| "?".to_owned(), |time| time.strftime("%H:%M:%S").to_string())
}

fn zoned(time: SystemTime) -> Option<Zoned> {
    Some(Timestamp::try_from(time).ok()?.to_zoned(TimeZone::system()))
}

fn clock_beside(time: &Zoned, now: &Zoned) -> String {
    let form = if time.date() == now.date() { "%H:%M" } else { "%Y-%m-%d %H:%M" };
    time.strftime(form).to_string()
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
    fn a_brief_time_has_a_unit_and_four_signs() {
        for (micros, told) in [
            (0, "0us"),
            (999, "999us"),
            (1000, "1.0ms"),
            (99_999, "99.9ms"),
            (100_000, "100ms"),
            (999_999, "999ms"),
            (1_000_000, "1.0s"),
            (99_999_999, "99.9s"),
            (100_000_000, "1min"),
            (5_999_999_999, "99min"),
            (6_000_000_000, "1h"),
            (360_000_000_000, "4d"),
        ] {
            assert_eq!(Brief(Duration::from_micros(micros)).to_string(), told);
        }
        assert_eq!(format!("{:>6}", Brief(Duration::from_micros(85))), "  85us");
    }

    #[test]
    fn an_amount_is_short() {
        for (count, bytes, other) in [
            (0, "0", "0"),
            (999, "999", "999"),
            (1000, "0.9K", "1.0K"),
            (1536, "1.5K", "1.5K"),
            (123_456, "120K", "123K"),
            (5 << 20, "5.0M", "5.2M"),
            (u64::MAX, "15.9E", "18.4E"),
        ] {
            assert_eq!(Amount::bytes(count).to_string(), bytes);
            assert_eq!(Amount::of(count).to_string(), other);
        }
        assert_eq!(format!("{:>6}", Amount::of(7)), "     7");
    }

    #[test]
    fn a_moment_has_its_date_on_another_day_only() {
        let zoned = |text: &str| text.parse::<Zoned>().unwrap();
        let now = zoned("2026-11-29T12:30[UTC]");
        assert_eq!(clock_beside(&zoned("2026-11-29T00:03[UTC]"), &now), "00:03");
        assert_eq!(clock_beside(&zoned("2026-11-28T23:03[UTC]"), &now), "2026-11-28 23:03");
        assert_eq!(clock(SystemTime::now()).len(), "12:03".len());
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("4096"), Some(4096));
        assert_eq!(parse_size("128K"), Some(128 << 10));
        assert_eq!(parse_size("16m"), Some(16 << 20));
        assert_eq!(parse_size("1G"), Some(1 << 30));
        assert_eq!(parse_size("64MiB"), Some(64 << 20));
        assert_eq!(parse_size("64 MB"), Some(64 << 20));
        assert_eq!(parse_size("1.5m"), Some(3 << 19));
        for wrong in ["", "K", "1MM", "-1M", "99999999999999999999K", "one", "1 K M", "0x10"] {
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
        assert_eq!(parse_time("0us"), Some(Duration::ZERO));
        assert_eq!(parse_time("10m"), Some(Duration::from_secs(600)));
        assert_eq!(parse_time("1h 30min"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_time("1.5s"), Some(Duration::from_millis(1500)));
        for wrong in [
            "",
            "5",
            "ms",
            "-1s",
            "1s ago",
            "5 parsecs",
            "PT5S",
            "99999999999s",
            "99999999999999999999s",
        ] {
            assert_eq!(parse_time(wrong), None, "{wrong}");
        }
    }
}
