//! `usbferry disconnect` and `usbferry release`: orders for a server on this machine.
//!
//! Contract: *blocks* for the server's answer.

use std::io::{self, Write};

use serde::Serialize;

use super::CommandError;
use super::json::{self, SCHEMA};
use super::list::printed;
use super::status::title;
use crate::cli::{Disconnect, Release};
use crate::operator::client::Operator;
use crate::words::printable;

/// The JSON of `usbferry release --json`.
#[derive(Serialize)]
struct ReleasedJson {
    schema: u32,
    released: Vec<String>,
}

/// `usbferry disconnect`.
pub(super) fn disconnect(arguments: &Disconnect) -> Result<(), CommandError> {
    let mut operator =
        Operator::connect(arguments.asking.socket()).map_err(CommandError::Operator)?;
    let report = operator.disconnect(&arguments.target, arguments.hold);
    let report = report.map_err(CommandError::Operator)?;
    if arguments.json {
        return printed(json::print_report(&report));
    }
    let ended = report.sessions.iter().map(|session| {
        let device = title(&session.busid, session.name.as_deref());
        format!("{device}: the session of {} ends", printable(&session.client))
    });
    let held = report.held.iter().map(|name| {
        let name = printable(name);
        format!("{name}: held back, until \"usbferry release {name}\"")
    });
    print(ended.chain(held))
}

/// `usbferry release`.
pub(super) fn release(arguments: &Release) -> Result<(), CommandError> {
    let mut operator =
        Operator::connect(arguments.asking.socket()).map_err(CommandError::Operator)?;
    let released = operator.release(&arguments.device).map_err(CommandError::Operator)?;
    if arguments.json {
        return printed(json::print(&ReleasedJson { schema: SCHEMA, released }));
    }
    print(released.iter().map(|name| format!("{}: held back no more", printable(name))))
}

/// Prints lines.
pub(super) fn print(mut lines: impl Iterator<Item = String>) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    printed(lines.try_for_each(|line| writeln!(out, "{line}")))
}
