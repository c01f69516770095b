//! `usbferry events`: prints what happens at a server on this machine.
//!
//! Contract: *blocks* until the server ends, or nobody reads the output any more.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::ops::ControlFlow;

use super::CommandError;
use super::json;
use super::list::printed;
use super::status::title;
use crate::cli::Events;
use crate::operator::client::Operator;
use crate::report::{EventReport, parse_time};
use crate::units::{Amount, clock_with_seconds};
use crate::words::printable;

/// `usbferry events`.
pub(super) fn follow(arguments: &Events) -> Result<(), CommandError> {
    let operator = Operator::connect(arguments.asking.socket()).map_err(CommandError::Operator)?;
    let mut result = Ok(());
    let followed = operator.follow(|report| {
        let written = if arguments.json { json::print_report(&report) } else { print(&report) };
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                result = Err(error);
                ControlFlow::Break(())
            }
        }
    });
    printed(result)?;
    followed.map_err(CommandError::Operator)
}

fn print(report: &EventReport) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", line(report))?;
    out.flush()
}

/// An event for a person.
fn line(report: &EventReport) -> String {
    let time = parse_time(&report.time).map(clock_with_seconds).unwrap_or_default();
    let mut line = format!("{time}  {:8}", printable(&report.event));
    let device = match (&report.busid, &report.name) {
        (Some(busid), name) => Some(title(busid, name.as_deref())),
        (None, name) => name.as_deref().map(printable),
    };
    for word in device.iter().chain(&report.client.as_deref().map(printable)) {
        let _ = write!(line, "  {word}");
    }
    if let Some(reason) = &report.reason {
        let _ = write!(line, "  ({})", printable(reason));
    }
    if let (Some(urbs), Some(read), Some(written)) =
        (report.urbs, report.bytes_in, report.bytes_out)
    {
        let (urbs, [read, written]) = (Amount::of(urbs), [read, written].map(Amount::bytes));
        let _ = write!(line, "  {urbs} URBs, {read} in, {written} out");
    }
    if let Some(missed) = report.missed {
        let _ = write!(line, "  {missed} events, since this program was too slow");
    }
    line.trim_end().to_owned()
}
