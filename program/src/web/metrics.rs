//! The metrics: the state of a server for Prometheus, by its conventions for names and units
//! (docs/metrics.md).
//!
//! Series exist for the present devices, sessions and captures alone, so no number of clients,
//! ports or replugs makes the text grow: addresses of clients come without ports, serial numbers
//! not at all.
//!
//! Contract: pure, but for the memory of the process, which the system tells.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::exposition::Kind::{Counter, Gauge, Histogram};
use super::exposition::{Exposition, Kind, Samples};
use crate::report::{
    CaptureReport, EndpointReport, ExportReport, Report, SessionReport, WorkReport, parse_time,
};

/// A device with the work of its client.
struct Lent<'a> {
    labels: [(&'a str, &'a str); 2],
    work: &'a WorkReport,
}

/// The metrics of a server that was started at `started`.
pub(super) fn text(report: &Report, started: SystemTime) -> String {
    let mut text = Exposition::default();
    let lent: Vec<Lent<'_>> = report.sessions.iter().filter_map(Lent::of).collect();
    of_process(&mut text, report, started);
    of_connections(&mut text, report);
    of_exports(&mut text, report);
    of_sessions(&mut text, report);
    of_room(&mut text, &lent);
    of_commands(&mut text, &lent);
    of_urbs(&mut text, &lent);
    of_errors(&mut text, &lent);
    of_turnaround(&mut text, &lent);
    of_captures(&mut text, &report.captures);
    text.into_text()
}

impl<'a> Lent<'a> {
    fn of(session: &'a SessionReport) -> Option<Self> {
        let work = session.work.as_ref()?;
        Some(Self { labels: device(&session.busid, session.name.as_ref()), work })
    }
}

/// The labels of a device.
fn device<'a>(busid: &'a str, name: Option<&'a String>) -> [(&'a str, &'a str); 2] {
    [("busid", busid), ("name", name.map_or("", String::as_str))]
}

/// Seconds since 1970.
fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn of_process(text: &mut Exposition, report: &Report, started: SystemTime) {
    text.family(("usbferry_build_info", Gauge), "The version, as a label.", |samples| {
        samples.add(&[("version", &report.server.version)], 1);
    });
    let help = "Start of the process, in seconds since 1970.";
    text.family(("process_start_time_seconds", Gauge), help, |samples| {
        samples.add(&[], unix(started));
    });
    if let Some(bytes) = resident_bytes() {
        let help = "Memory of the process in RAM.";
        text.family(("process_resident_memory_bytes", Gauge), help, |samples| {
            samples.add(&[], bytes);
        });
    }
}

/// The memory of this process in RAM, where the system tells (proc_pid_status(5), in kB of 1024).
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

fn of_connections(text: &mut Exposition, report: &Report) {
    let help = "USB/IP clients that are connected, with or without a device.";
    text.family(("usbferry_clients", Gauge), help, |samples| samples.add(&[], report.clients));
    let help = "Connections of USB/IP clients that were accepted.";
    text.family(("usbferry_connections_accepted_total", Counter), help, |samples| {
        samples.add(&[], report.connections.accepted);
    });
    let help = "Connections of USB/IP clients that were refused.";
    text.family(("usbferry_connections_refused_total", Counter), help, |samples| {
        let counts = &report.connections;
        samples.add(&[("reason", "not_allowed")], counts.not_allowed);
        samples.add(&[("reason", "too_often")], counts.too_often);
        samples.add(&[("reason", "full")], counts.full);
    });
}

/// The states of an export, of which each export has one.
const STATES: [&str; 5] = ["free", "lent", "held", "not_offered", "gone"];

fn state_of(export: &ExportReport) -> &'static str {
    match export {
        ExportReport { client: Some(_), .. } => "lent",
        ExportReport { present: false, .. } => "gone",
        ExportReport { held: true, .. } => "held",
        ExportReport { offered: false, .. } => "not_offered",
        _ => "free",
    }
}

fn of_exports(text: &mut Exposition, report: &Report) {
    let help = "Known devices by state: free, lent to a client, held back by an operator, not \
                offered by the rules, or gone while still lent.";
    text.family(("usbferry_devices", Gauge), help, |samples| {
        for state in STATES {
            let count = report.exports.iter().filter(|export| state_of(export) == state).count();
            samples.add(&[("state", state)], count);
        }
    });
    let help = "The present devices, each with its numbers and names as labels.";
    text.family(("usbferry_device_info", Gauge), help, |samples| {
        for export in report.exports.iter().filter(|export| export.present) {
            let of = |text: &'_ Option<String>| text.clone().unwrap_or_default();
            let [vid, pid, vendor, product] =
                [&export.vid, &export.pid, &export.vendor, &export.product].map(of);
            let [busid, name] = device(&export.busid, export.name.as_ref());
            let numbers = [("vid", &*vid), ("pid", &*pid)];
            let names = [("vendor", &*vendor), ("product", &*product)];
            samples.add(&[[busid, name], numbers, names].concat(), 1);
        }
    });
}

fn of_sessions(text: &mut Exposition, report: &Report) {
    let help = "Devices with clients, each with the client's address as a label.";
    text.family(("usbferry_session_info", Gauge), help, |samples| {
        for session in &report.sessions {
            let [busid, name] = device(&session.busid, session.name.as_ref());
            let client = session.client.rsplit_once(':').map_or("", |(address, _)| address);
            samples.add(&[busid, name, ("client", client), ("state", &session.state)], 1);
        }
    });
    let help = "When the client got the device, in seconds since 1970.";
    text.family(("usbferry_session_start_time_seconds", Gauge), help, |samples| {
        for session in &report.sessions {
            if let Some(since) = session.since.as_deref().and_then(parse_time) {
                samples.add(&device(&session.busid, session.name.as_ref()), unix(since));
            }
        }
    });
}

/// A value of a session.
type OfWork = fn(&WorkReport) -> u64;

/// Families with a sample for each session.
fn of_each(
    text: &mut Exposition,
    lent: &[Lent<'_>],
    kind: Kind,
    families: &[(&str, &str, OfWork)],
) {
    for (name, help, value) in families {
        text.family((name, kind), help, |samples| {
            lent.iter().for_each(|lent| samples.add(&lent.labels, value(lent.work)));
        });
    }
}

fn of_room(text: &mut Exposition, lent: &[Lent<'_>]) {
    of_each(
        text,
        lent,
        Gauge,
        &[
            ("usbferry_slots_in_use", "URB slots in use.", |work| work.slots.now),
            ("usbferry_slots_in_use_max", "The most URB slots ever in use at once.", |work| {
                work.slots.most
            }),
            ("usbferry_slots", "URB slots.", |work| work.slots.room),
            ("usbferry_buffers_in_use_bytes", "Memory for URBs in use.", |work| work.buffers.now),
            (
                "usbferry_buffers_in_use_max_bytes",
                "The most memory for URBs ever in use.",
                |work| work.buffers.most,
            ),
            ("usbferry_buffers_bytes", "Memory for URBs.", |work| work.buffers.room),
        ],
    );
}

fn of_commands(text: &mut Exposition, lent: &[Lent<'_>]) {
    of_each(
        text,
        lent,
        Counter,
        &[
            ("usbferry_unlinks_total", "UNLINKs received.", |work| work.unlinks),
            (
                "usbferry_submits_refused_total",
                "SUBMITs answered with an error without the device.",
                |work| work.refused,
            ),
        ],
    );
}

/// The labels of an endpoint: of its device, its number and its direction.
type Labels<'a> = [(&'a str, &'a str); 4];

/// A family with samples of each endpoint.
fn of_each_endpoint(
    text: &mut Exposition,
    lent: &[Lent<'_>],
    family: (&str, Kind),
    help: &str,
    add: fn(&mut Samples<'_>, Labels<'_>, &EndpointReport),
) {
    text.family(family, help, |samples| {
        for Lent { labels: [busid, name], work } in lent {
            for endpoint in &work.endpoints {
                let number = endpoint.number.to_string();
                let direction = ("direction", &*endpoint.direction);
                add(samples, [*busid, *name, ("endpoint", &number), direction], endpoint);
            }
        }
    });
}

fn of_urbs(text: &mut Exposition, lent: &[Lent<'_>]) {
    let help = "URBs that the device has ended.";
    let family = ("usbferry_endpoint_urbs_total", Counter);
    of_each_endpoint(text, lent, family, help, |samples, labels, endpoint| {
        samples.add(&labels, endpoint.counters.urbs);
    });
    let help = "Data from the device (in) and to the device (out).";
    of_each_endpoint(text, lent, ("usbferry_endpoint_bytes_total", Counter), help, add_bytes);
    let help = "URBs with the device now.";
    let family = ("usbferry_endpoint_in_flight_urbs", Gauge);
    of_each_endpoint(text, lent, family, help, |samples, labels, endpoint| {
        samples.add(&labels, endpoint.counters.in_flight);
    });
    let help = "The most URBs ever with the device at once.";
    let family = ("usbferry_endpoint_in_flight_max_urbs", Gauge);
    of_each_endpoint(text, lent, family, help, |samples, labels, endpoint| {
        samples.add(&labels, endpoint.counters.most_in_flight);
    });
}

/// The bytes of an endpoint, by the direction of the data: a control endpoint has both.
fn add_bytes(
    samples: &mut Samples<'_>,
    [busid, name, number, (_, direction)]: Labels<'_>,
    endpoint: &EndpointReport,
) {
    let counters = &endpoint.counters;
    for (data, bytes) in [("in", counters.bytes_in), ("out", counters.bytes_out)] {
        if [data, "both"].contains(&direction) {
            samples.add(&[busid, name, number, ("direction", data)], bytes);
        }
    }
}

fn of_errors(text: &mut Exposition, lent: &[Lent<'_>]) {
    let help = "URBs ended with an error, by the name of the error.";
    let family = ("usbferry_endpoint_errors_total", Counter);
    of_each_endpoint(text, lent, family, help, |samples, labels, endpoint| {
        let [busid, name, number, direction] = labels;
        for (errno, count) in &endpoint.counters.errors {
            samples.add(&[busid, name, number, direction, ("errno", errno)], count);
        }
    });
    let help = "Failed isochronous packets.";
    let family = ("usbferry_endpoint_packet_errors_total", Counter);
    of_each_endpoint(text, lent, family, help, |samples, labels, endpoint| {
        samples.add(&labels, endpoint.counters.packet_errors);
    });
}

/// The bounds of the buckets of a histogram: each power of two microseconds from 16 us to 4.2 s,
/// for devices from a fast disk to a printer that thinks.
const BOUNDS: std::ops::RangeInclusive<u32> = 4..=22;

fn of_turnaround(text: &mut Exposition, lent: &[Lent<'_>]) {
    let help = "The time from handing a URB to the device until the result is here, of a sample of \
                the URBs.";
    let family = ("usbferry_endpoint_turnaround_seconds", Histogram);
    of_each_endpoint(text, lent, family, help, add_turnaround);
    let help = "The longest time from handing a URB to the device until the result is here.";
    let family = ("usbferry_endpoint_turnaround_max_seconds", Gauge);
    of_each_endpoint(text, lent, family, help, |samples, labels, endpoint| {
        samples.add(&labels, seconds(endpoint.turnaround.longest_us));
    });
}

fn add_turnaround(samples: &mut Samples<'_>, labels: Labels<'_>, endpoint: &EndpointReport) {
    let [busid, name, number, direction] = labels;
    let turnaround = &endpoint.turnaround;
    let mut add = |bound: &str, count| {
        samples.add_as("_bucket", &[busid, name, number, direction, ("le", bound)], count);
    };
    for bound in BOUNDS.map(|power| 1 << power) {
        let shorter = turnaround.buckets.iter().take_while(|bucket| bucket.below_us <= bound);
        add(&seconds(bound).to_string(), shorter.map(|bucket| bucket.count).sum());
    }
    add("+Inf", turnaround.timed);
    samples.add_as("_sum", &labels, seconds(turnaround.sum_us));
    samples.add_as("_count", &labels, turnaround.timed);
}

/// A value of a capture.
type OfCapture = fn(&CaptureReport) -> u64;

fn of_captures(text: &mut Exposition, captures: &[CaptureReport]) {
    let families: [(&str, Kind, &str, OfCapture); 5] = [
        (
            "usbferry_capture_urbs_total",
            Counter,
            "URBs that have ended, in the capture or dropped.",
            // The sum, since a URB on its way to a disk that fails is first captured, then dropped,
            // and a counter never falls.
            |capture| capture.captured + capture.dropped,
        ),
        (
            "usbferry_capture_urbs_dropped_total",
            Counter,
            "URBs whose end is not in the capture.",
            |capture| capture.dropped,
        ),
        (
            "usbferry_capture_submissions_dropped_total",
            Counter,
            "SUBMITs that are not in the capture.",
            |capture| capture.submissions_dropped,
        ),
        (
            "usbferry_capture_written_bytes_total",
            Counter,
            "Bytes of the capture written so far.",
            |capture| capture.bytes,
        ),
        (
            "usbferry_capture_writing",
            Gauge,
            "Whether records are written: 0 while nobody reads a stream, and behind a failure.",
            |capture| capture.writing.into(),
        ),
    ];
    for (name, kind, help, value) in families {
        text.family((name, kind), help, |samples| {
            for capture in captures {
                let device = capture.device.as_deref().unwrap_or_default();
                samples.add(&[("file", &capture.file), ("device", device)], value(capture));
            }
        });
    }
}

/// Microseconds in seconds.
fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}
