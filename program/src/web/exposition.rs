//! Prometheus's text format, version 0.0.4: families of samples, each with its labels.
//!
//! prometheus-client, the crate of the Prometheus project, writes another format (OpenMetrics) that
//! `promtool check metrics` does not read, and makes no histogram of counts kept elsewhere.
//!
//! Contract: pure.

use std::fmt::{self, Display, Write};

/// The type of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The kind of a family.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

/// Names and values; a label without a value is left out.
pub(super) type Labels<'a> = [(&'a str, &'a str)];

/// A text of families.
#[derive(Default)]
pub(super) struct Exposition(String);

/// The samples of a family.
pub(super) struct Samples<'a> {
    text: &'a mut String,
    name: &'a str,
}

impl Exposition {
    /// A family with its samples. A family may have none.
    pub(super) fn family(
        &mut self,
        (name, kind): (&str, Kind),
        help: &str,
        add: impl FnOnce(&mut Samples<'_>),
    ) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        add(&mut Samples { text: &mut self.0, name });
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

impl Samples<'_> {
    /// A sample of the family.
    pub(super) fn add(&mut self, labels: &Labels<'_>, value: impl Display) {
        self.add_as("", labels, value);
    }

    /// A sample of the family, by the family's name with a suffix.
    pub(super) fn add_as(&mut self, suffix: &str, labels: &Labels<'_>, value: impl Display) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        let mut separator = '{';
        for (name, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
            let _ = write!(self.text, "{separator}{name}=\"{}\"", Escaped(value));
            separator = ',';
        }
        let _ = writeln!(self.text, "{} {value}", if separator == ',' { "}" } else { "" });
    }
}

/// The value of a label, as the format wants it.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_lines_with_labels_in_quotes() {
        let mut text = Exposition::default();
        text.family(("a_total", Kind::Counter), "Things.", |samples| {
            samples.add(&[], 1);
            samples.add(&[("b", "x"), ("c", ""), ("d", "y")], 2.5);
            samples.add(&[("c", "")], 3);
        });
        let expected = "# HELP a_total Things.\n# TYPE a_total counter\na_total 1\n\
                        a_total{b=\"x\",d=\"y\"} 2.5\na_total 3\n";
        assert_eq!(text.into_text(), expected);
    }

    #[test]
    fn no_text_of_a_label_ends_the_label() {
        let mut text = Exposition::default();
        text.family(("a", Kind::Gauge), "Things.", |samples| {
            samples.add(&[("b", "\"} 1\na 2\\\u{202e}<img>")], 1);
        });
        let text = text.into_text();
        assert_eq!(text.lines().nth(2), Some("a{b=\"\\\"} 1\\na 2\\\\\u{202e}<img>\"} 1"));
        assert_eq!(text.lines().count(), 3);
    }
}
