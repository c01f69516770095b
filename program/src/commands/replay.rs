//! `usbferry replay`: plays a recording on a device of a server, and prints what differs.
//!
//! Contract: *blocks* for the server's answers.

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

use super::CommandError;
use super::json::{self, SCHEMA};
use super::list::printed;
use crate::cli::Replay;
use crate::client::import;
use crate::client::replay::{Difference, Outcome, Recorded, RecordedError, What, replay};
use crate::limits::{RECORDING_LEN_MAX, REPLAY_DIFFERENCES_MAX};

/// The JSON of `usbferry replay --json`.
#[derive(Serialize)]
struct ReplayJson {
    schema: u32,
    played: u64,
    different: u64,
    in_part: u64,
    skipped: SkippedJson,
    differences: Vec<DifferenceJson>,
}

#[derive(Serialize)]
struct SkippedJson {
    refused: u64,
    cut: u64,
    other: u64,
}

/// A URB with another answer.
#[derive(Serialize)]
struct DifferenceJson {
    packet: u64,
    endpoint: u8,
    length: u32,
    what: &'static str,
    text: String,
}

impl From<&Difference> for DifferenceJson {
    fn from(difference: &Difference) -> Self {
        let what = match difference.what {
            What::Status(..) => "status",
            What::Moved(..) => "length",
            What::Data(..) => "data",
            What::Packet(..) => "packet",
            What::Unanswered(_) => "unanswered",
        };
        let &Difference { packet, endpoint, len: length, .. } = difference;
        Self { packet, endpoint, length, what, text: difference.what.to_string() }
    }
}

/// `usbferry replay`. The exit code tells whether something differs.
pub(super) fn play(arguments: &Replay) -> Result<ExitCode, CommandError> {
    let (server, name) = arguments.place().map_err(CommandError::Usage)?;
    let file_error = |error| CommandError::Replayed(arguments.file.clone(), error);
    let recorded = read(arguments).map_err(file_error)?;
    if let Some(number) = recorded.broken_behind() {
        let path = arguments.file.display();
        eprintln!("{path}: the recording is broken behind packet {number}, and has no more");
    }
    let imported = import(&server, name).map_err(CommandError::Client)?;
    if let Some(recorded) = recorded.ids().filter(|ids| *ids != imported.ids)
        && !arguments.other_device
    {
        return Err(CommandError::OtherDevice { recorded, name, found: imported.ids });
    }
    let mut differences = Vec::new();
    let mut told = Ok(());
    let outcome = replay(&server, imported, &recorded, arguments.terms(), |difference| {
        if differences.len() < REPLAY_DIFFERENCES_MAX {
            if !arguments.json && told.is_ok() {
                told = writeln!(io::stdout(), "{difference}");
            }
            differences.push(DifferenceJson::from(difference));
        }
    });
    let outcome = outcome.map_err(CommandError::Client)?;
    printed(told)?;
    if arguments.json {
        printed(json::print(&json_of(&outcome, differences)))?;
    } else {
        printed(writeln!(io::stdout(), "{}", summary(&outcome)))?;
    }
    Ok(if outcome.different == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(arguments: &Replay) -> Result<Recorded, RecordedError> {
    let len = fs::metadata(&arguments.file).map_err(RecordedError::Read)?.len();
    if len > RECORDING_LEN_MAX {
        return Err(RecordedError::TooLong);
    }
    let bytes = fs::read(&arguments.file).map_err(RecordedError::Read)?;
    Recorded::read(&bytes, arguments.terms())
}

fn json_of(outcome: &Outcome, differences: Vec<DifferenceJson>) -> ReplayJson {
    let &Outcome { played, different, in_part, skipped } = outcome;
    let skipped = SkippedJson { refused: skipped.refused, cut: skipped.cut, other: skipped.other };
    ReplayJson { schema: SCHEMA, played, different, in_part, skipped, differences }
}

fn summary(outcome: &Outcome) -> String {
    let Outcome { played, different, in_part, skipped } = outcome;
    let mut text = format!("{played} URBs played, {different} with another answer");
    for (count, what) in [
        (*in_part, "compared in part, since the recording has no more"),
        (skipped.refused, "left out that were refused when recorded"),
        (skipped.cut, "left out whose data is not in the recording"),
        (skipped.other, "left out that a client can't send"),
    ] {
        if count > 0 {
            text += &format!("; {count} {what}");
        }
    }
    text
}
