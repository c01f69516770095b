//! The state of a server in the form for programs: the JSON of `usbferry status --json` and of the
//! socket of operators (docs/status.md). Servers write the form, and this program's own commands
//! read it ([`reading`]).
//!
//! Contract: plain data. A field is never removed and never changes its meaning under the same
//! version; new fields may come.

pub mod reading;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::Serialize;

use crate::names::Names;
use crate::stats::turnaround::{Bucket, Turnaround};
use crate::stats::{EndpointStats, EndpointWork, Gauge, SessionStats};
use crate::status::event::Event;
use crate::status::{
    CaptureState, CaptureStatus, Connections, ExportStatus, HoldStatus, LoanState, LoanStatus,
    Phase, ServerStatus, Snapshot,
};
use crate::wire::status::Status;
use crate::wire::types::{Direction, TransferType};

/// The state of a server.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub struct Report {
    /// The server itself.
    pub server: ServerReport,
    /// Clients that are connected, with or without a device.
    pub clients: usize,
    /// Connections since the start.
    pub connections: ConnectionsReport,
    /// The known devices.
    pub exports: Vec<ExportReport>,
    /// The devices with clients, until free again.
    pub sessions: Vec<SessionReport>,
    /// The devices that operators hold back.
    pub holds: Vec<HoldReport>,
    /// The captures.
    pub captures: Vec<CaptureReport>,
}

/// A capture of URBs.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct CaptureReport {
    /// The file, or the name that the operator has given.
    pub file: String,
    /// The name of the devices that are captured; without a value all devices.
    pub device: Option<String>,
    /// Since when.
    pub since: String,
    /// The most bytes of data of a URB.
    pub snaplen: u64,
    /// Bytes of the capture, if limited.
    pub size: Option<u64>,
    /// URBs whose end is in the capture.
    pub captured: u64,
    /// URBs whose end is not in the capture.
    pub dropped: u64,
    /// SUBMITs that are not in the capture.
    pub submissions_dropped: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Whether records are written; not while nobody reads a stream, nor behind a failure.
    pub writing: bool,
    /// Why nothing more can be written.
    pub failure: Option<String>,
}

/// A device that an operator holds back.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub struct HoldReport {
    /// The name by which the device is held back, and released.
    pub name: String,
    /// Since when.
    pub since: String,
}

/// Connections since the start of a server.
#[derive(Serialize, Clone, Copy, PartialEq, Debug, Default)]
pub struct ConnectionsReport {
    /// Accepted.
    pub accepted: u64,
    /// Refused, since `--allow` does not have the address.
    pub not_allowed: u64,
    /// Refused, since the address had connected too often.
    pub too_often: u64,
    /// Refused, since the server was full.
    pub full: u64,
}

/// The server itself.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub struct ServerReport {
    /// The version of the program.
    pub version: String,
    /// The number of the process.
    pub process: u32,
    /// When the server was started.
    pub since: String,
    /// `starting`, `serving` or `stopping`.
    pub phase: String,
    /// The addresses of the listeners.
    pub listen: Vec<String>,
}

/// A known device.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub struct ExportReport {
    /// The place of the device.
    pub busid: String,
    /// The name that the rules give.
    pub name: Option<String>,
    /// idVendor, four hexadecimal digits.
    pub vid: Option<String>,
    /// idProduct, four hexadecimal digits.
    pub pid: Option<String>,
    /// The vendor's name.
    pub vendor: Option<String>,
    /// The product's name.
    pub product: Option<String>,
    /// The device's own word for its maker.
    pub manufacturer: Option<String>,
    /// The device's own name.
    pub product_name: Option<String>,
    /// The device's serial number.
    pub serial: Option<String>,
    /// Whether the device is there.
    pub present: bool,
    /// Whether the rules offer the device.
    pub offered: bool,
    /// Whether a program is asked before a client gets the device.
    pub authorize: bool,
    /// Whether an operator holds the device back.
    pub held: bool,
    /// The client with the device.
    pub client: Option<String>,
}

/// A device with a client.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub struct SessionReport {
    /// The place of the device.
    pub busid: String,
    /// The name that the rules give.
    pub name: Option<String>,
    /// The client.
    pub client: String,
    /// Whether the client is still connected.
    pub connected: bool,
    /// `opening`, `lent`, `returning` or `resting`.
    pub state: String,
    /// When the client got the device.
    pub since: Option<String>,
    /// The work, from the moment of the loan until all transfers have ended.
    pub work: Option<WorkReport>,
}

/// The work of a session.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub struct WorkReport {
    /// UNLINKs received.
    pub unlinks: u64,
    /// SUBMITs answered with an error without the device.
    pub refused: u64,
    /// URB slots.
    pub slots: GaugeReport,
    /// Bytes of buffers.
    pub buffers: GaugeReport,
    /// The sum of all endpoints.
    pub total: CountersReport,
    /// The endpoints with at least a URB.
    pub endpoints: Vec<EndpointReport>,
}

/// How much is in use.
#[derive(Serialize, Clone, Copy, PartialEq, Debug)]
pub struct GaugeReport {
    /// Now.
    pub now: u64,
    /// At once, ever.
    pub most: u64,
    /// The room.
    pub room: u64,
}

/// An endpoint of a session.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub struct EndpointReport {
    /// The number, 0 to 15.
    pub number: u8,
    /// `in` or `out`; `both` for a control endpoint.
    pub direction: String,
    /// `control`, `isochronous`, `bulk` or `interrupt`.
    #[serde(rename = "type")]
    pub transfer_type: Option<String>,
    /// The counters.
    #[serde(flatten)]
    pub counters: CountersReport,
    /// The time that the device takes for a URB.
    pub turnaround: TurnaroundReport,
}

/// The time that a device takes for the URBs of an endpoint, in microseconds.
#[derive(Serialize, Clone, PartialEq, Debug, Default)]
pub struct TurnaroundReport {
    /// URBs in the sample.
    pub timed: u64,
    /// The sum of their times.
    pub sum_us: u64,
    /// The time that half of the sample did not exceed.
    pub p50_us: Option<u64>,
    /// The time that 99 of 100 in the sample did not exceed.
    pub p99_us: Option<u64>,
    /// The longest time of all URBs.
    pub longest_us: u64,
    /// The sample by time, without empty buckets.
    pub buckets: Vec<BucketReport>,
}

/// URBs of about the same time.
#[derive(Serialize, Clone, Copy, PartialEq, Debug)]
pub struct BucketReport {
    /// The times are shorter.
    pub below_us: u64,
    /// URBs.
    pub count: u64,
}

/// Counters of an endpoint or of a session.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub struct CountersReport {
    /// URBs ended.
    pub urbs: u64,
    /// Bytes from the device.
    pub bytes_in: u64,
    /// Bytes to the device.
    pub bytes_out: u64,
    /// URBs with the device now.
    pub in_flight: u32,
    /// The most URBs ever with the device at once.
    pub most_in_flight: u32,
    /// Failed isochronous packets.
    pub packet_errors: u64,
    /// URBs ended with an error, by the name of the error.
    pub errors: BTreeMap<String, u64>,
}

impl Report {
    /// The report of a server.
    #[must_use]
    pub fn new(server: &ServerStatus, snapshot: &Snapshot) -> Self {
        let name_of = |loan: &LoanStatus| {
            let export = snapshot.exports.iter().find(|export| export.busid == loan.busid);
            export.and_then(|export| export.name).map(|name| name.to_string())
        };
        let session = |loan: &LoanStatus| SessionReport::new(loan, name_of(loan));
        Self {
            server: ServerReport::new(server, snapshot.phase),
            clients: snapshot.clients,
            connections: snapshot.connections.into(),
            exports: snapshot.exports.iter().map(ExportReport::new).collect(),
            sessions: snapshot.loans.iter().map(session).collect(),
            holds: snapshot.holds.iter().map(HoldReport::new).collect(),
            captures: snapshot.captures.iter().map(CaptureReport::new).collect(),
        }
    }
}

impl HoldReport {
    fn new(hold: &HoldStatus) -> Self {
        Self { name: hold.name.clone(), since: time(hold.since) }
    }
}

impl CaptureReport {
    /// The report of a capture.
    #[must_use]
    pub fn new(capture: &CaptureStatus) -> Self {
        let failure = match &capture.state {
            CaptureState::Failed(reason) => Some(reason.clone()),
            CaptureState::Writing | CaptureState::Waiting => None,
        };
        Self {
            file: capture.file.display().to_string(),
            device: capture.device.clone(),
            since: time(capture.since),
            snaplen: capture.snap_len as u64,
            size: capture.size,
            captured: capture.urbs,
            dropped: capture.dropped,
            submissions_dropped: capture.submissions_dropped,
            bytes: capture.bytes,
            writing: capture.state == CaptureState::Writing,
            failure,
        }
    }
}

impl ServerReport {
    fn new(server: &ServerStatus, phase: Phase) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process: std::process::id(),
            since: time(server.started),
            phase: phase.word().to_owned(),
            listen: server.addresses.iter().map(ToString::to_string).collect(),
        }
    }
}

impl ExportReport {
    fn new(export: &ExportStatus) -> Self {
        let ids = export.ids;
        let names = ids.map(Names::of).unwrap_or_default();
        Self {
            busid: export.busid.to_string(),
            name: export.name.map(|name| name.to_string()),
            vid: ids.map(|(vendor, _)| format!("{vendor:04x}")),
            pid: ids.map(|(_, product)| format!("{product:04x}")),
            vendor: names.vendor,
            product: names.product,
            manufacturer: export.texts.manufacturer.clone(),
            product_name: export.texts.product.clone(),
            serial: export.texts.serial.clone(),
            present: export.is_present,
            offered: export.is_offered,
            authorize: export.asks_program,
            held: export.is_held,
            client: export.client.map(|client| client.to_string()),
        }
    }
}

impl SessionReport {
    fn new(loan: &LoanStatus, name: Option<String>) -> Self {
        let state = match loan.state {
            LoanState::Opening => "opening",
            LoanState::Lent => "lent",
            LoanState::Returning => "returning",
            LoanState::Resting => "resting",
        };
        Self {
            busid: loan.busid.to_string(),
            name,
            client: loan.client.to_string(),
            connected: loan.is_connected,
            state: state.to_owned(),
            since: loan.session.as_ref().map(|session| time(session.since)),
            work: loan.session.as_ref().map(|session| WorkReport::new(&session.stats)),
        }
    }
}

impl WorkReport {
    fn new(stats: &SessionStats) -> Self {
        let endpoints = stats.endpoints.iter();
        Self {
            unlinks: stats.unlinks,
            refused: stats.refused,
            slots: stats.slots.into(),
            buffers: stats.buffers.into(),
            total: CountersReport::new(&stats.total()),
            endpoints: endpoints.map(EndpointReport::new).collect(),
        }
    }
}

impl EndpointReport {
    fn new(work: &EndpointWork) -> Self {
        let number = work.address.number();
        let is_control = number == 0 || work.transfer_type == Some(TransferType::Control);
        let direction = match work.address.direction() {
            Direction::In => "in",
            Direction::Out if is_control => "both",
            Direction::Out => "out",
        };
        Self {
            number,
            direction: direction.to_owned(),
            transfer_type: work.transfer_type.map(|of| of.word().to_owned()),
            counters: CountersReport::new(&work.counters),
            turnaround: TurnaroundReport::new(&work.turnaround),
        }
    }
}

impl TurnaroundReport {
    fn new(turnaround: &Turnaround) -> Self {
        let bucket =
            |bucket: &Bucket| BucketReport { below_us: micros(bucket.below), count: bucket.count };
        Self {
            timed: turnaround.timed,
            sum_us: micros(turnaround.sum),
            p50_us: turnaround.median.map(micros),
            p99_us: turnaround.p99.map(micros),
            longest_us: micros(turnaround.longest),
            buckets: turnaround.buckets.iter().map(bucket).collect(),
        }
    }
}

/// Whole microseconds, of at most half a million years.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl CountersReport {
    fn new(stats: &EndpointStats) -> Self {
        let name = |status: Option<_>| {
            status.map_or_else(|| "other".to_owned(), |status: Status| status.to_string())
        };
        let errors = stats.errors.by_status();
        Self {
            urbs: stats.urbs,
            bytes_in: stats.bytes_in,
            bytes_out: stats.bytes_out,
            in_flight: stats.in_flight,
            most_in_flight: stats.most_in_flight,
            packet_errors: stats.packet_errors,
            errors: errors.map(|(status, count)| (name(status), count)).collect(),
        }
    }
}

impl From<Connections> for ConnectionsReport {
    fn from(connections: Connections) -> Self {
        let Connections { accepted, not_allowed, too_often, full } = connections;
        Self { accepted, not_allowed, too_often, full }
    }
}

impl From<Gauge> for GaugeReport {
    fn from(gauge: Gauge) -> Self {
        Self { now: gauge.now, most: gauge.most, room: gauge.room }
    }
}

/// An event of a server.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct EventReport {
    /// What has happened.
    pub event: String,
    /// When.
    pub time: String,
    /// The place of the device.
    pub busid: Option<String>,
    /// The name that the rules give.
    pub name: Option<String>,
    /// idVendor, four hexadecimal digits.
    pub vid: Option<String>,
    /// idProduct, four hexadecimal digits.
    pub pid: Option<String>,
    /// The device's serial number.
    pub serial: Option<String>,
    /// The client.
    pub client: Option<String>,
    /// The cause.
    pub reason: Option<String>,
    /// URBs that the device has ended in the session.
    pub urbs: Option<u64>,
    /// Bytes from the device in the session.
    pub bytes_in: Option<u64>,
    /// Bytes to the device in the session.
    pub bytes_out: Option<u64>,
    /// Events that are missing here, since the follower was too slow.
    pub missed: Option<u64>,
}

/// The word for the first line of a follower.
const EVENT_BEGIN: &str = "begin";
/// The word for events that are missing.
const EVENT_MISSED: &str = "missed";
/// The word for the last line of a follower.
pub const EVENT_END: &str = "end";

impl EventReport {
    /// An event in the form for programs.
    #[must_use]
    pub fn new(event: &Event) -> Self {
        let Event { kind, time, busid, name, ids, serial, client, reason, work } = event;
        Self {
            time: exact_time(*time),
            busid: busid.map(|busid| busid.to_string()),
            name: name.map(|name| name.to_string()),
            vid: ids.map(|(vendor, _)| format!("{vendor:04x}")),
            pid: ids.map(|(_, product)| format!("{product:04x}")),
            serial: serial.clone(),
            client: client.map(|client| client.to_string()),
            reason: reason.map(str::to_owned),
            urbs: work.map(|work| work.urbs),
            bytes_in: work.map(|work| work.bytes_in),
            bytes_out: work.map(|work| work.bytes_out),
            ..Self::bare(kind.word())
        }
    }

    /// Events are told from now on.
    #[must_use]
    pub fn begin() -> Self {
        Self::bare(EVENT_BEGIN)
    }

    /// A number of events is missing.
    #[must_use]
    pub fn missed(count: u64) -> Self {
        Self { missed: Some(count), ..Self::bare(EVENT_MISSED) }
    }

    /// The server has ended.
    #[must_use]
    pub fn end() -> Self {
        Self::bare(EVENT_END)
    }

    fn bare(event: &str) -> Self {
        Self {
            event: event.to_owned(),
            time: exact_time(SystemTime::now()),
            busid: None,
            name: None,
            vid: None,
            pid: None,
            serial: None,
            client: None,
            reason: None,
            urbs: None,
            bytes_in: None,
            bytes_out: None,
            missed: None,
        }
    }
}

/// A time by the system's clock, in UTC, to the millisecond (RFC 3339).
fn exact_time(time: SystemTime) -> String {
    format!("{:.3}", Timestamp::try_from(time).unwrap_or_default())
}

/// A time by the system's clock, in UTC, to the second (RFC 3339).
fn time(time: SystemTime) -> String {
    let stamp = Timestamp::try_from(time).unwrap_or_default();
    Timestamp::from_second(stamp.as_second()).unwrap_or_default().to_string()
}

/// Reads a time of a report.
#[must_use]
pub fn parse_time(text: &str) -> Option<SystemTime> {
    text.parse::<Timestamp>().ok().map(SystemTime::from)
}
