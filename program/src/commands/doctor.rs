//! `usbferry doctor`: prints what the examination of this machine has found.
//!
//! Contract: *blocks* for files, nodes and the answers of a peer.

use std::io::{self, Write};
use std::process::ExitCode;

use super::{CommandError, json, settings};
use crate::cli::{Chosen, Doctor, Serve};
use crate::config::rules::Rules;
use crate::doctor::{self, Finding, Level, Report, Wanted};
use crate::words::plural;

/// Exit codes for the worst finding; 1 and 2 are for a doctor that could not look.
const WARNINGS: u8 = 3;
const PROBLEMS: u8 = 4;

/// `usbferry doctor`.
pub(super) fn examine(arguments: &Doctor) -> Result<ExitCode, CommandError> {
    let report = match arguments.peer().map_err(CommandError::Usage)? {
        Some(server) => doctor::examine_client(&server),
        None => doctor::examine_server(&wanted(&arguments.serve)?),
    };
    match print(&report, arguments.json) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::Print(error)),
        _ => Ok(exit_code(report.worst)),
    }
}

/// What a server with these options needs. Where no device is chosen, all may be.
fn wanted(serve: &Serve) -> Result<Wanted, CommandError> {
    let (mut settings, chosen) = settings::read(serve)?;
    if matches!(chosen, Chosen::Nothing) {
        let (given, all) = (settings.rules, Rules::all());
        settings.rules = Rules::new(given.iter().chain(all.iter()).cloned());
    }
    Ok(Wanted { settings, has_devices: !serve.is_simulated() })
}

fn exit_code(worst: Level) -> ExitCode {
    match worst {
        Level::Ok | Level::Note => ExitCode::SUCCESS,
        Level::Warning => ExitCode::from(WARNINGS),
        Level::Problem => ExitCode::from(PROBLEMS),
    }
}

fn print(report: &Report, as_json: bool) -> io::Result<()> {
    if as_json {
        return json::print(report);
    }
    let mut out = io::stdout().lock();
    report.findings.iter().try_for_each(|finding| print_finding(finding, &mut out))?;
    writeln!(out, "{}", summary(report))
}

/// A finding in a line, and each line of advice by itself, to be copied.
fn print_finding(finding: &Finding, out: &mut impl Write) -> io::Result<()> {
    let level = match finding.level {
        Level::Ok => "ok",
        Level::Note => "note",
        Level::Warning => "warning",
        Level::Problem => "PROBLEM",
    };
    writeln!(out, "{level:8}{:13}{}", finding.check, finding.message)?;
    finding.advice.iter().try_for_each(|line| writeln!(out, "{:21}{line}", ""))
}

fn summary(report: &Report) -> String {
    let counted =
        [(Level::Problem, "problem"), (Level::Warning, "warning")].map(|(level, word)| {
            let count = report.count(level);
            (count, format!("{count} {word}{}", plural(count)))
        });
    let counted: Vec<String> =
        counted.into_iter().filter(|(count, _)| *count > 0).map(|(_, words)| words).collect();
    if counted.is_empty() { "nothing is in the way".to_owned() } else { counted.join(", ") }
}
