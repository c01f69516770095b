//! The rows of a bench: subjects and their baselines.

use usbferry_load::workload::{Traffic, Workload, Writes};

/// Which server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum On {
    /// usbferry with default settings.
    Usbferry,
    /// The least server there can be.
    Ceiling,
    /// The bare server on libusb.
    Bare,
    /// The build of usbferry given by `--beside`.
    Beside,
    /// usbferry with a capture of all URBs, with the default settings of captures.
    Capturing(Medium),
    /// usbferry with a web server, whose metrics are scraped each second, and once at least.
    Scraped,
}

/// Where a capture is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Medium {
    /// A file system in memory.
    Memory,
    /// The disk with the bench's own directory.
    Disk,
}

/// A load on a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) on: On,
    pub(crate) workload: Workload,
    /// Number of the first session's device; the sessions have devices one after the other.
    pub(crate) first: usize,
    pub(crate) sessions: usize,
    /// Another client has a device and does not read.
    pub(crate) stalled: bool,
}

/// The goal of a row.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Target {
    /// No goal.
    None,
    /// At least this share of the baseline's rate.
    Rate(f64),
    /// At least this share of the bare server's rate.
    #[allow(dead_code, reason = "not every bench has a bare server")]
    Bare(f64),
    /// At most these multiples of the baseline's p50 and p99.
    Turnaround(f64, f64),
    /// At least this share of the baseline's rate, and the slowest session's share of the mean.
    Fair(f64, f64),
}

/// A row: a subject and its baseline, measured in turn.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) subject: Run,
    pub(crate) baseline: Run,
    pub(crate) target: Target,
    /// Client and server have a processor each, regardless of the settings.
    pub(crate) apart: bool,
    /// Part of a run of a few seconds.
    pub(crate) smoke: bool,
}

impl Row {
    /// The same load on the bare server, for rows of usbferry with default settings.
    pub(crate) fn bare(&self) -> Option<Run> {
        (self.subject.on == On::Usbferry).then_some(Run { on: On::Bare, ..self.subject })
    }

    /// The same load on another build of usbferry in the baseline's place.
    pub(crate) fn beside(self) -> Self {
        let baseline = Run { on: On::Beside, ..self.subject };
        Self { baseline, target: Target::None, ..self }
    }
}

const SIZES: [usize; 6] = [64, 512, 4096, 16 << 10, 128 << 10, 1 << 20];
const DEPTHS: [usize; 4] = [1, 4, 16, 64];
const PACKETS: [(usize, usize); 5] = [(8, 192), (8, 1024), (32, 1024), (32, 3072), (128, 3072)];

/// Isochronous URBs in flight: drivers keep a few, each of some packets.
const PACKETS_DEPTH: usize = 8;

/// Loads on devices that take time.
const SLOW_LOADS: [(Traffic, usize); 6] = [
    (Traffic::BulkIn(512), 1),
    (Traffic::BulkIn(512), 16),
    (Traffic::BulkIn(16 << 10), 4),
    (Traffic::BulkOut(16 << 10), 4),
    (Traffic::BulkIn(128 << 10), 4),
    (Traffic::BulkOut(128 << 10), 4),
];

/// Loads on lines with delay.
const LINE_LOADS: [(Traffic, usize); 7] = [
    (Traffic::BulkIn(512), 1),
    (Traffic::BulkIn(512), 64),
    (Traffic::BulkIn(16 << 10), 16),
    (Traffic::BulkOut(16 << 10), 16),
    (Traffic::BulkIn(128 << 10), 4),
    (Traffic::BulkOut(128 << 10), 4),
    (Traffic::IsochronousOut(8, 1024), PACKETS_DEPTH),
];

/// Loads whose PDUs come one by one.
const SINGLE_LOADS: [(Traffic, usize); 5] = [
    (Traffic::BulkIn(512), 16),
    (Traffic::BulkOut(512), 16),
    (Traffic::BulkOut(16 << 10), 16),
    (Traffic::BulkOut(128 << 10), 4),
    (Traffic::IsochronousOut(8, 1024), PACKETS_DEPTH),
];

/// Bytes of a URB of the rows with a capture, as the reads of a stick's driver are, and URBs in
/// flight.
const CAPTURED_LEN: usize = 64 << 10;
const CAPTURED_DEPTH: usize = 16;

/// The share of the speed that a capture leaves on a device that takes time.
const CAPTURED_SLOW: f64 = 0.99;

/// All rows; `target` has the goal of a load on a single session.
pub(crate) fn all(target: impl Fn(&Workload) -> Target) -> Vec<Row> {
    let mut rows = Vec::new();
    for direction in [Traffic::BulkIn as fn(usize) -> Traffic, Traffic::BulkOut] {
        for (size, depth) in SIZES.iter().flat_map(|size| DEPTHS.map(|depth| (*size, depth))) {
            let smoke = matches!((size, depth), (512 | 131_072, 16) | (64, 1));
            rows.push(against_ceiling(Workload::new(direction(size), depth), &target, smoke));
        }
    }
    for direction in
        [Traffic::IsochronousIn as fn(usize, usize) -> Traffic, Traffic::IsochronousOut]
    {
        for (packets, len) in PACKETS {
            let workload = Workload::new(direction(packets, len), PACKETS_DEPTH);
            rows.push(against_ceiling(workload, &target, packets == 32 && len == 1024));
        }
    }
    for depth in [1, 16] {
        rows.push(against_ceiling(Workload::new(Traffic::ControlIn, depth), &target, depth == 1));
    }
    rows.push(apart());
    rows.push(in_parts());
    for workload in
        [Workload::new(Traffic::BulkIn(512), 16), Workload::new(Traffic::BulkIn(16 << 10), 4)]
    {
        rows.extend(many_sessions(workload));
    }
    rows.push(stalled());
    rows
}

/// All rows with another build of usbferry as the baseline: each load of usbferry's once.
pub(crate) fn beside() -> Vec<Row> {
    let rows = all(|_| Target::None).into_iter();
    rows.filter(|row| !row.name.contains(" against 1")).map(Row::beside).collect()
}

/// The cost of a capture: a server with a capture compared with a server without. The capture's
/// writer has another processor, as on a user's machine.
pub(crate) fn captured() -> Vec<Row> {
    let mut rows = Vec::new();
    for (medium, place) in [(Medium::Memory, "memory"), (Medium::Disk, "disk")] {
        for traffic in [Traffic::BulkIn(CAPTURED_LEN), Traffic::BulkOut(CAPTURED_LEN)] {
            let workload = Workload::new(traffic, CAPTURED_DEPTH);
            rows.push(Row {
                name: format!("{traffic} d{CAPTURED_DEPTH}, captured, {place}"),
                subject: one(On::Capturing(medium), workload),
                baseline: one(On::Usbferry, workload),
                target: Target::Rate(0.97),
                apart: false,
                smoke: medium == Medium::Memory,
            });
        }
    }
    rows
}

/// The cost of a capture on a device that takes time.
#[allow(dead_code, reason = "not every bench has such a device")]
pub(crate) fn captured_slow((first, device): (usize, &str)) -> Vec<Row> {
    let depths = [4, CAPTURED_DEPTH];
    let rows = [Traffic::BulkIn(CAPTURED_LEN), Traffic::BulkOut(CAPTURED_LEN)].map(|traffic| {
        depths.map(|depth| {
            let workload = Workload::new(traffic, depth);
            Row {
                name: format!("{traffic} d{depth}, {device}, captured"),
                subject: Run { first, ..one(On::Capturing(Medium::Memory), workload) },
                baseline: Run { first, ..one(On::Usbferry, workload) },
                target: Target::Rate(CAPTURED_SLOW),
                apart: false,
                smoke: depth == CAPTURED_DEPTH,
            }
        })
    });
    rows.concat()
}

/// The cost of scraped metrics, beside the same server without. A scrape comes in the middle of
/// each sample, so samples of less than a second have more than a scrape a second.
pub(crate) fn scraped() -> Vec<Row> {
    let loads = [
        (Traffic::BulkIn(512), 16),
        (Traffic::BulkIn(CAPTURED_LEN), CAPTURED_DEPTH),
        (Traffic::BulkOut(CAPTURED_LEN), CAPTURED_DEPTH),
    ];
    let row = |(traffic, depth)| {
        let workload = Workload::new(traffic, depth);
        Row {
            name: format!("{traffic} d{depth}, scraped"),
            subject: one(On::Scraped, workload),
            baseline: one(On::Usbferry, workload),
            target: Target::Rate(0.99),
            apart: false,
            smoke: depth == 16 && workload.len() == 512,
        }
    };
    loads.map(row).into()
}

const fn one(on: On, workload: Workload) -> Run {
    Run { on, workload, first: 1, sessions: 1, stalled: false }
}

fn beside_bare(name: String, workload: Workload, first: usize, smoke: bool) -> Row {
    Row {
        name,
        subject: Run { first, ..one(On::Usbferry, workload) },
        baseline: Run { first, ..one(On::Bare, workload) },
        target: Target::Rate(1.0),
        apart: false,
        smoke,
    }
}

/// Rows on a line with delay, with the bare server as the baseline.
#[allow(dead_code, reason = "not every bench has a bare server")]
pub(crate) fn on_line(line: &str) -> Vec<Row> {
    let row = |(traffic, depth)| {
        beside_bare(format!("{traffic} d{depth}, {line}"), Workload::new(traffic, depth), 1, true)
    };
    LINE_LOADS.map(row).into()
}

/// Rows with the bare server as the baseline: on devices that take time, with PDUs that come one by
/// one, and with URBs that the client gives up. `slow` has devices' numbers and names.
#[allow(dead_code, reason = "not every bench has a bare server")]
pub(crate) fn against_bare(slow: &[(usize, &str)]) -> Vec<Row> {
    let mut rows = Vec::new();
    for &(number, device) in slow {
        for (traffic, depth) in SLOW_LOADS {
            let name = format!("{traffic} d{depth}, {device}");
            rows.push(beside_bare(name, Workload::new(traffic, depth), number, depth == 16));
        }
    }
    for (traffic, depth) in SINGLE_LOADS {
        let workload = Workload { writes: Writes::Single, ..Workload::new(traffic, depth) };
        rows.push(beside_bare(format!("{traffic} d{depth}, one by one"), workload, 1, false));
    }
    for depth in [1, 16] {
        let workload = Workload::new(Traffic::Unlinked(512), depth);
        rows.push(beside_bare(format!("{} d{depth}", workload.traffic), workload, 1, depth == 16));
    }
    rows
}

fn against_ceiling(workload: Workload, target: impl Fn(&Workload) -> Target, smoke: bool) -> Row {
    Row {
        name: format!("{} d{}", workload.traffic, workload.depth),
        subject: one(On::Usbferry, workload),
        baseline: one(On::Ceiling, workload),
        target: target(&workload),
        apart: false,
        smoke,
    }
}

/// With a processor for each side, a server that looks for work before sleeping need not be woken.
fn apart() -> Row {
    let workload = Workload::new(Traffic::BulkIn(64), 1);
    Row {
        name: format!("{} d1, two processors", workload.traffic),
        subject: one(On::Usbferry, workload),
        baseline: one(On::Ceiling, workload),
        target: Target::Turnaround(1.0, f64::INFINITY),
        apart: true,
        smoke: false,
    }
}

/// A client that writes header and data separately, without `TCP_NODELAY`, compared with a client
/// that does not. The former's system waits for an acknowledgement in between. An acknowledgement
/// 40 ms later would make the time a thousand times as long.
fn in_parts() -> Row {
    let whole = Workload::new(Traffic::BulkOut(64), 1);
    Row {
        name: format!("{} d1, header and data apart", whole.traffic),
        subject: one(On::Usbferry, Workload { writes: Writes::Parts, ..whole }),
        baseline: one(On::Usbferry, whole),
        target: Target::Turnaround(4.0, f64::INFINITY),
        apart: false,
        smoke: true,
    }
}

/// Many sessions compared with as many on the ceiling, and with a single session.
fn many_sessions(workload: Workload) -> Vec<Row> {
    let mut rows = Vec::new();
    for sessions in [1, 8, 64] {
        let many = |on| Run { sessions, ..one(on, workload) };
        rows.push(Row {
            name: format!("{} d{}, {sessions} sessions", workload.traffic, workload.depth),
            subject: many(On::Usbferry),
            baseline: many(On::Ceiling),
            target: Target::None,
            apart: false,
            smoke: sessions == 8,
        });
        if sessions > 1 {
            rows.push(Row {
                name: format!("{} d{}, {sessions} against 1", workload.traffic, workload.depth),
                subject: many(On::Usbferry),
                baseline: one(On::Usbferry, workload),
                target: Target::Fair(0.95, 0.8),
                apart: false,
                smoke: false,
            });
        }
    }
    rows
}

/// Sessions beside a session whose client does not read, compared with the same sessions alone.
fn stalled() -> Row {
    let workload = Workload::new(Traffic::BulkIn(16 << 10), 4);
    let run = |stalled| Run { sessions: 8, stalled, ..one(On::Usbferry, workload) };
    Row {
        name: format!("{} d4, 8 beside one that does not read", workload.traffic),
        subject: run(true),
        baseline: run(false),
        target: Target::Rate(0.95),
        apart: false,
        smoke: true,
    }
}
