//! What the checks have found.
//!
//! Contract: plain data.

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// All is well.
    Ok,
    /// Good to know; nothing need be done.
    Note,
    /// Something is slower than need be, or will fail in some cases.
    Warning,
    /// Exports or imports fail.
    Problem,
}

/// What a check has found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// The name of the check.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// The device, address or server that the finding is about, if about one alone.
    pub subject: Option<String>,
    /// What was found, in a sentence.
    pub message: String,
    /// What to type, or to do: a line each.
    pub advice: Vec<String>,
}

impl Finding {
    fn new(check: &'static str, level: Level, message: String) -> Self {
        Self { check, level, subject: None, message, advice: Vec::new() }
    }

    pub(super) fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Level::Ok, message.into())
    }

    pub(super) fn note(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Level::Note, message.into())
    }

    pub(super) fn warning(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Level::Warning, message.into())
    }

    pub(super) fn problem(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Level::Problem, message.into())
    }

    pub(super) fn about(mut self, subject: impl ToString) -> Self {
        self.subject = Some(subject.to_string());
        self
    }

    pub(super) fn advise(mut self, line: impl Into<String>) -> Self {
        self.advice.push(line.into());
        self
    }

    #[cfg(target_os = "linux")]
    pub(super) fn advise_all(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.advice.extend(lines);
        self
    }
}

/// The findings of an examination.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// The version of this form. A later version of the program adds fields under the same number;
    /// the number changes if a field goes or changes its meaning.
    pub schema: u32,
    /// The level of the worst finding.
    pub worst: Level,
    /// The findings, in the order of the checks.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(super) fn of(findings: Vec<Finding>) -> Self {
        let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
        Self { schema: 1, worst, findings }
    }

    /// The number of findings of a level.
    #[must_use]
    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }
}
