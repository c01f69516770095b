//! The form of a line: text for people, or JSON for programs, and on either the priority that
//! systemd's journal takes from the front of a line.
//!
//! Contract: pure functions; allocates for a line.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use log::kv::Key;
use log::{Level, Record};
use serde::Serialize;

use crate::whose;
use crate::words::visible;

/// What a line consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Shape {
    /// Words.
    #[default]
    Text,
    /// An object of JSON.
    Json,
}

impl Shape {
    /// All shapes.
    pub const ALL: [Self; 2] = [Self::Text, Self::Json];

    /// The word for the shape on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Who reads the lines of text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reader {
    /// A person, or a file.
    Plain,
    /// A person at a terminal with colours.
    Coloured,
    /// systemd's journal, which notes the time itself and takes a priority.
    Journal,
    /// The system's log, which does the same, and takes the program's name, too.
    Syslog,
}

/// The form of all lines of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Format {
    pub(super) shape: Shape,
    pub(super) reader: Reader,
}

/// A line as JSON. The keys are documented (docs/operations.md), and every line has all of them.
#[derive(Serialize)]
struct Json<'a> {
    time: String,
    level: &'a str,
    client: Option<&'a str>,
    device: Option<&'a str>,
    message: &'a str,
}

impl Format {
    /// A line of the `log` crate's macros. The client and the device are the line's own, under the
    /// keys `client` and `device`, or else those for which the thread works.
    pub(super) fn record(self, record: &Record<'_>) -> Vec<u8> {
        let own = |key| record.key_values().get(Key::from_str(key)).map(|value| value.to_string());
        let (mut client, mut device) = (own("client"), own("device"));
        let mut message = record.args().to_string();
        if let (None, None, Some(whose)) = (&client, &device, whose::of_thread()) {
            let (of, from) = (whose.device.to_string(), whose.client.to_string());
            message = attributed(message, &from, &of);
            (client, device) = (Some(from), Some(of));
        }
        self.line(record.level(), client.as_deref(), device.as_deref(), &message)
    }

    /// A line about no client.
    pub(super) fn plain(self, level: Level, message: &str) -> Vec<u8> {
        self.line(level, None, None, message)
    }

    /// The last line, with the reason for the program's end.
    pub(super) fn last(self, reason: &str) -> Vec<u8> {
        match self {
            // As clap's own errors: whoever has typed the line reads no log.
            Self { shape: Shape::Text, reader: Reader::Plain | Reader::Coloured } => {
                format!("error: {reason}\n").into_bytes()
            }
            Self { shape: Shape::Text, .. } => {
                self.plain(Level::Error, &format!("error: {reason}"))
            }
            Self { shape: Shape::Json, .. } => self.plain(Level::Error, reason),
        }
    }

    fn line(
        self,
        level: Level,
        client: Option<&str>,
        device: Option<&str>,
        message: &str,
    ) -> Vec<u8> {
        let priority = match self.reader {
            Reader::Journal => format!("<{}>", priority(level)),
            Reader::Syslog => {
                let (priority, id) = (DAEMON | priority(level), std::process::id());
                format!("<{priority}>usbipd[{id}]: ")
            }
            Reader::Plain | Reader::Coloured => String::new(),
        };
        let line = match self.shape {
            Shape::Text => self.text(level, message, &priority),
            Shape::Json => {
                let time = format!("{:.6}", Timestamp::now());
                let level = level.as_str().to_ascii_lowercase();
                let line = Json { time, level: &level, client, device, message };
                serde_json::to_string(&line).unwrap_or_default()
            }
        };
        format!("{priority}{line}\n").into_bytes()
    }

    /// A line of text, with nothing that would move or change another line on a terminal, whoever
    /// has put that into the message. The further lines of a message have the priority, too, since
    /// the journal takes every line for itself.
    fn text(self, level: Level, message: &str, priority: &str) -> String {
        let mut text = String::new();
        if matches!(self.reader, Reader::Plain | Reader::Coloured) {
            let style = if self.reader == Reader::Coloured { style(level) } else { Style::new() };
            let now = Timestamp::now();
            // Writing to a text can't fail.
            let _ = write!(text, "[{now:.0} {style}{level:<5}{style:#}] ");
        }
        text.push_str(&visible(message.trim_end()).replace('\n', &format!("\n{priority}    ")));
        text
    }
}

/// A message with the client and the device in front, as all lines about a session have them.
fn attributed(message: String, client: &str, device: &str) -> String {
    let rest = message.strip_prefix(device).and_then(|rest| rest.strip_prefix(": "));
    match rest {
        Some(_) => format!("{client}: {message}"),
        None => format!("{client}: {device}: {message}"),
    }
}

/// The facility of programs in the background (`LOG_DAEMON`, syslog(3)).
const DAEMON: u8 = 3 << 3;

/// The priority for the journal and the system's log (sd-daemon(3), syslog(3)).
const fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

const fn style(level: Level) -> Style {
    match level {
        Level::Error => AnsiColor::Red.on_default().bold(),
        Level::Warn => AnsiColor::Yellow.on_default(),
        Level::Info => AnsiColor::Green.on_default(),
        Level::Debug => AnsiColor::Blue.on_default(),
        Level::Trace => AnsiColor::Cyan.on_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whose::{Whose, leave_thread};
    use crate::wire::types::BusId;

    /// Notes that this thread works for a client and a device.
    fn work_for(client: &str, device: &str) {
        let device = BusId::new(device).unwrap();
        Whose { client: client.parse().unwrap(), device }.take_thread();
    }

    /// A line of the macros, as a text.
    fn line_of(shape: Shape, reader: Reader, message: std::fmt::Arguments<'_>) -> String {
        let record = Record::builder().level(Level::Warn).args(message).build();
        String::from_utf8(Format { shape, reader }.record(&record)).unwrap()
    }

    #[test]
    fn every_line_of_json_has_the_same_keys() {
        for works in [false, true] {
            if works {
                work_for("192.0.2.7:4000", "1-2");
            }
            let line = line_of(Shape::Json, Reader::Plain, format_args!("two\nlines \"{}\"", 1));
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["client", "device", "level", "message", "time"]);
            assert_eq!(value["level"], "warn");
            assert!(value["message"].as_str().unwrap().ends_with("two\nlines \"1\""));
            let time: Timestamp = value["time"].as_str().unwrap().parse().unwrap();
            assert!(time.duration_until(Timestamp::now()).as_secs() < 60);
            if works {
                assert_eq!(
                    (&value["client"], &value["device"]),
                    (&"192.0.2.7:4000".into(), &"1-2".into())
                );
            } else {
                assert!(value["client"].is_null() && value["device"].is_null());
            }
        }
        leave_thread();
    }

    #[test]
    fn the_keys_of_a_line_go_before_those_of_the_thread() {
        work_for("192.0.2.7:4000", "1-2");
        let keys = [("client", "192.0.2.9:1")];
        let record = Record::builder().args(format_args!("words")).key_values(&keys).build();
        let format = Format { shape: Shape::Json, reader: Reader::Plain };
        let value: serde_json::Value = serde_json::from_slice(&format.record(&record)).unwrap();
        leave_thread();
        assert_eq!(value["client"], "192.0.2.9:1");
        assert!(value["device"].is_null(), "the device of another client");
        assert_eq!(value["message"], "words");
    }

    #[test]
    fn text_names_the_client_and_the_device_once() {
        work_for("192.0.2.7:4000", "1-2");
        for message in ["1-2: words", "words"] {
            let line = line_of(Shape::Text, Reader::Journal, format_args!("{message}"));
            assert_eq!(line, "<4>192.0.2.7:4000: 1-2: words\n");
        }
        leave_thread();
    }

    #[test]
    fn the_journal_gets_priorities_and_no_time() {
        let line = line_of(Shape::Text, Reader::Journal, format_args!("two\nlines\n"));
        assert_eq!(line, "<4>two\n<4>    lines\n");
        let line = line_of(Shape::Json, Reader::Journal, format_args!("words"));
        assert!(line.starts_with("<4>{\"time\":\""), "{line}");
        let line = line_of(Shape::Text, Reader::Plain, format_args!("words"));
        let (time, rest) = line.strip_prefix('[').unwrap().split_once(' ').unwrap();
        assert!(time.parse::<Timestamp>().is_ok() && !time.contains('.'), "{line}");
        assert_eq!(rest, "WARN ] words\n");
        let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
        assert_eq!(levels.map(priority), [3, 4, 6, 7, 7]);
    }

    /// Such as the name of a capture's file.
    #[test]
    fn no_message_moves_or_changes_another_line() {
        let message = "a\u{1b}[2J\r\u{202e}\u{85}\\x\ny";
        for (reader, end) in [(Reader::Plain, "\n    y\n"), (Reader::Journal, "\n<4>    y\n")] {
            let line = line_of(Shape::Text, reader, format_args!("{message}"));
            let shown = format!("a\\u{{1b}}[2J\\r\\u{{202e}}\\u{{85}}\\x{end}");
            assert!(line.ends_with(&shown), "{line:?}");
        }
    }

    #[test]
    fn the_last_line_is_an_error_in_every_form() {
        let last =
            |shape, reader| String::from_utf8(Format { shape, reader }.last("no port")).unwrap();
        assert_eq!(last(Shape::Text, Reader::Coloured), "error: no port\n");
        assert_eq!(last(Shape::Text, Reader::Journal), "<3>error: no port\n");
        let line = last(Shape::Json, Reader::Journal);
        let value: serde_json::Value = serde_json::from_str(&line["<3>".len()..]).unwrap();
        assert_eq!((&value["level"], &value["message"]), (&"error".into(), &"no port".into()));
    }
}
