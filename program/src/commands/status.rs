//! `usbferry status`: prints the state of a server on this machine.
//!
//! Contract: *blocks* for the server's answer.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::time::{Duration, SystemTime};

use super::CommandError;
use super::json;
use super::list::printed;
use crate::cli::Status;
use crate::operator::client::Operator;
use crate::report::{
    CaptureReport, CountersReport, EndpointReport, ExportReport, Report, ServerReport,
    SessionReport, TurnaroundReport, WorkReport, parse_time,
};
use crate::units::{Amount, Brief, Lasting, clock};
use crate::words::{plural, printable};

/// The columns of a terminal.
const TERMINAL_COLUMNS: usize = 80;

/// `usbferry status`.
pub(super) fn show(arguments: &Status) -> Result<(), CommandError> {
    let mut operator =
        Operator::connect(arguments.asking.socket()).map_err(CommandError::Operator)?;
    let report = operator.status().map_err(CommandError::Operator)?;
    if arguments.json {
        return printed(json::print_report(&report));
    }
    let mut out = io::stdout().lock();
    let columns = if out.is_terminal() { TERMINAL_COLUMNS } else { usize::MAX };
    printed(out.write_all(text(&report, columns).as_bytes()))
}

/// A report for a person. The names of devices are cut at `columns` columns.
fn text(report: &Report, columns: usize) -> String {
    let mut out = server(&report.server);
    let (clients, devices) = (report.clients, report.exports.len());
    let _ = writeln!(
        out,
        "{clients} client{} connected, {devices} device{} known, {} with a client",
        plural(clients),
        plural(devices),
        report.sessions.len(),
    );
    for hold in &report.holds {
        let _ = writeln!(out, "held back: {}, {}", printable(&hold.name), since(&hold.since));
    }
    for capture in &report.captures {
        let _ = writeln!(out, "capture: {}", capture_text(capture));
    }
    for export in &report.exports {
        let _ = write!(out, "\n{}", line_of(export, columns));
        let sessions = report.sessions.iter().filter(|session| session.busid == export.busid);
        sessions.for_each(|session| out.push_str(&session_text(session)));
    }
    out
}

/// A capture, in a line without an end.
pub(super) fn capture_text(capture: &CaptureReport) -> String {
    let device = capture.device.as_deref().map_or_else(|| "all devices".to_owned(), printable);
    let bytes = Amount::bytes(capture.bytes).to_string();
    let unit = if bytes.ends_with(|c: char| c.is_ascii_digit()) { " bytes" } else { "" };
    let mut out = format!(
        "{}, {device}, {} URB{}, {} dropped, {bytes}{unit}",
        printable(&capture.file),
        Amount::of(capture.captured),
        plural(capture.captured),
        Amount::of(capture.dropped),
    );
    match &capture.failure {
        Some(reason) => {
            let _ = write!(out, "; failed: {}", printable(reason));
        }
        None if !capture.writing => out.push_str("; nobody reads"),
        None => {}
    }
    out
}

fn server(server: &ServerReport) -> String {
    let since = since(&server.since);
    let listen = server.listen.join(", ");
    format!(
        "usbferry {}, process {}, {since}\nlistening on {listen}\n",
        printable(&server.version),
        server.process
    )
}

/// A time of a report, with the time that has passed.
fn since(text: &str) -> String {
    let Some(time) = parse_time(text) else { return "since ?".to_owned() };
    let passed = SystemTime::now().duration_since(time).unwrap_or_default();
    format!("since {} ({})", clock(time), Lasting(passed))
}

/// A device, and whether it is free.
fn line_of(export: &ExportReport, columns: usize) -> String {
    let ids = match (&export.vid, &export.pid) {
        (Some(vendor), Some(product)) => format!("{vendor}:{product}"),
        _ => "gone".to_owned(),
    };
    let names = [&export.vendor, &export.product].into_iter().flatten();
    let names: Vec<String> = names.map(|name| printable(name)).collect();
    let state = match &export.client {
        Some(client) => format!("lent to {}", printable(client)),
        None if export.held => "held back".to_owned(),
        None if !export.present => "unplugged".to_owned(),
        None if !export.offered => "not exported".to_owned(),
        None if export.authorize => "free, if a program agrees".to_owned(),
        None => "free".to_owned(),
    };
    let title = title(&export.busid, export.name.as_deref());
    let line = format!("{title:16} {ids:9}  {state:32} {}", names.join(" "));
    let line: String = line.trim_end().chars().take(columns).collect();
    line + "\n"
}

/// A device, by its name if it has a name.
pub(super) fn title(busid: &str, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{} ({})", printable(name), printable(busid)),
        None => printable(busid),
    }
}

fn session_text(session: &SessionReport) -> String {
    let mut out = format!("  {}", printable(&session.state));
    if !session.connected {
        out.push_str(", the client has left");
    }
    if let Some(begin) = &session.since {
        let _ = write!(out, ", {}", since(begin));
    }
    out.push('\n');
    if let Some(work) = &session.work {
        out.push_str(&work_text(work));
    }
    out
}

fn work_text(work: &WorkReport) -> String {
    let WorkReport { slots, buffers, unlinks, refused, .. } = work;
    let mut out = format!(
        "  slots {} of {} (most {}), buffers {} of {} (most {})\n",
        slots.now,
        slots.room,
        slots.most,
        Amount::bytes(buffers.now),
        Amount::bytes(buffers.room),
        Amount::bytes(buffers.most),
    );
    if unlinks + refused > 0 {
        let _ = writeln!(out, "  {unlinks} UNLINKs, {refused} refused SUBMITs");
    }
    if work.endpoints.is_empty() {
        return out;
    }
    let _ = writeln!(
        out,
        "  {:18} {:>6} {:>6} {:>6} {:>9} {:>4} {:>6} {:>6} {:>6}",
        "endpoint", "URBs", "in", "out", "in flight", "most", "p50", "p99", "max"
    );
    work.endpoints.iter().for_each(|endpoint| out.push_str(&endpoint_text(endpoint)));
    out
}

fn endpoint_text(endpoint: &EndpointReport) -> String {
    let CountersReport { urbs, bytes_in, bytes_out, in_flight, most_in_flight, .. } =
        endpoint.counters;
    let [p50, p99, longest] = times(&endpoint.turnaround);
    let mut out = format!(
        "  {:18} {:>6} {:>6} {:>6} {in_flight:>9} {most_in_flight:>4} {p50:>6} {p99:>6} \
         {longest:>6}\n",
        name_of(endpoint),
        Amount::of(urbs),
        Amount::bytes(bytes_in),
        Amount::bytes(bytes_out),
    );
    let errors = errors_text(&endpoint.counters);
    if !errors.is_empty() {
        let _ = writeln!(out, "           errors: {errors}");
    }
    out
}

/// An endpoint, by number, type and direction.
pub(super) fn name_of(endpoint: &EndpointReport) -> String {
    let direction = Some(&endpoint.direction).filter(|direction| *direction != "both");
    let words = endpoint.transfer_type.iter().chain(direction).map(|word| printable(word));
    words.fold(endpoint.number.to_string(), |name, word| name + " " + &word)
}

/// The median, the 99th percentile and the maximum of the times of a device, as far as known.
pub(super) fn times(turnaround: &TurnaroundReport) -> [String; 3] {
    let longest = Some(turnaround.longest_us).filter(|&longest| longest > 0);
    [turnaround.p50_us, turnaround.p99_us, longest].map(|micros| {
        micros.map_or_else(|| "-".to_owned(), |us| Brief(Duration::from_micros(us)).to_string())
    })
}

/// The errors of an endpoint, by name.
pub(super) fn errors_text(counters: &CountersReport) -> String {
    let named = counters.errors.iter().map(|(name, count)| format!("{count} {}", printable(name)));
    let packets =
        (counters.packet_errors > 0).then(|| format!("{} failed packets", counters.packet_errors));
    named.chain(packets).collect::<Vec<_>>().join(", ")
}
