//! Counted costs of a URB, which are the same on any machine: instructions and cold bytes by
//! callgrind, allocations by the calls that callgrind has seen, system calls by perf. Linux only;
//! `libusb` includes the file by its path.
//!
//! Each server runs twice for each load, with more URBs the second time; the difference is the cost
//! of the URBs, without start, attaching and end.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use usbferry_load::client::Client;
use usbferry_load::flow::Flow;
use usbferry_load::run;
use usbferry_load::workload::{Check, Traffic, Workload};

use crate::bare::BARE;
use crate::harness::report::option;
use crate::harness::server::Server;
use crate::harness::settings::{self, Settings};
use crate::harness::syscalls::{self, Counter};
use crate::harness::{self, measure::Usbfs as _};
use crate::tree::Tree;

/// Devices for a load alone, and for a load beside idle devices. A server that knows of many
/// devices never starts with quite the same number of instructions.
const DEVICES: [&str; 2] =
    ["count=1:quota=512M:requests=unrecorded", "count=65:quota=512M:requests=unrecorded"];

/// Devices that are attached and idle beside a load.
const IDLE: usize = 64;

/// URBs of the two runs under callgrind, in units of a load's depth.
const TURNS: [u64; 2] = [50, 250];

/// As many times more URBs beside idle devices, whose attaching is never quite the same.
const TURNS_BESIDE_IDLE: u64 = 20;

/// URBs of a run at native speed.
const NATIVE_TURNS: u64 = 2000;

/// A load's traffic and depth, and the idle devices beside.
const LOADS: [(Traffic, usize, usize); 14] = [
    (Traffic::BulkIn(512), 1, 0),
    (Traffic::BulkIn(512), 16, 0),
    (Traffic::BulkIn(512), 1, IDLE),
    (Traffic::BulkIn(512), 16, IDLE),
    (Traffic::BulkIn(512), 64, 0),
    (Traffic::BulkOut(512), 1, 0),
    (Traffic::BulkOut(512), 16, 0),
    (Traffic::BulkIn(16 << 10), 16, 0),
    (Traffic::BulkOut(16 << 10), 16, 0),
    (Traffic::BulkIn(128 << 10), 4, 0),
    (Traffic::BulkOut(128 << 10), 4, 0),
    (Traffic::IsochronousIn(8, 1024), 8, 0),
    (Traffic::IsochronousOut(8, 1024), 8, 0),
    (Traffic::ControlIn, 1, 0),
];

/// The load whose costs are held to [`SHARE_MAX`] and [`ALLOCATIONS_MAX`]; a short run counts no
/// other.
const HELD: usize = 1;

/// Instructions of usbferry for each of the bare server's, at most. There are 0.89; 1.09 without
/// `usbferry-wraps`; and some 1.5, calculated, where the path of URBs is compiled to be small, as
/// the commands are.
const SHARE_MAX: f64 = 1.0;

/// Allocations of a URB under that load, at most. Without `usbferry-wraps` there is one for each.
const ALLOCATIONS_MAX: f64 = 0.1;

/// Bytes of a line of the simulated caches, which are of a common size: 32 KiB first, 1 MiB last.
const LINE: f64 = 64.0;
const CACHES: [&str; 3] = ["--I1=32768,8,64", "--D1=32768,8,64", "--LL=1048576,16,64"];

/// The C library's functions that allocate; Rust's allocator calls them, too.
const ALLOCATORS: [&str; 6] =
    ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign"];

/// The costs of a URB.
struct Costs {
    instructions: f64,
    cold_bytes: f64,
    allocations: f64,
    syscalls: Option<f64>,
}

/// A server's totals up to its end.
#[derive(Clone, Copy, Default)]
struct Totals {
    instructions: u64,
    misses: u64,
    allocations: u64,
}

/// A load on a device, and the idle devices beside.
#[derive(Clone, Copy)]
struct Load {
    workload: Workload,
    idle: usize,
}

/// A kind of server: how to start one, natively or behind another program.
struct Kind<'a> {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    library: &'a Path,
    /// The devices of [`DEVICES`].
    trees: [Tree; 2],
}

/// The servers that are compared: usbferry first, and the bare server.
fn kinds<'a>(
    settings: &Settings,
    library: &'a Path,
    scratch: &Path,
) -> Result<[Kind<'a>; 2], String> {
    let trees = |name: &str| -> Result<[Tree; 2], String> {
        let tree = |index: usize| Tree::new(scratch, &format!("{name}-{index}"), DEVICES[index]);
        Ok([tree(0)?, tree(1)?])
    };
    let serve = ["serve", "--listen", "127.0.0.1:0", "--all"].map(str::to_owned);
    Ok([
        Kind {
            name: "usbferry",
            program: env!("CARGO_BIN_EXE_usbferry").into(),
            arguments: serve.into_iter().chain(settings.serve.iter().cloned()).collect(),
            library,
            trees: trees("costs")?,
        },
        Kind {
            name: "bare",
            program: std::env::current_exe().map_err(|error| error.to_string())?,
            arguments: vec![BARE.to_owned()],
            library,
            trees: trees("costs-bare")?,
        },
    ])
}

/// Prints and writes the costs of all loads chosen.
///
/// # Errors
/// A server can't be measured, or the costs of [`HELD`] are above their bounds.
pub(crate) fn measure(settings: &Settings, library: &Path) -> Result<(), String> {
    let scratch = settings::results()?;
    let kinds = kinds(settings, library, &scratch)?;
    println!(
        "{:35} {:>9} {:>13} {:>11} {:>12} {:>13}",
        "load", "server", "instructions", "cold bytes", "allocations", "system calls"
    );
    let mut lines = Vec::new();
    let mut excess = None;
    for (index, (traffic, depth, idle)) in LOADS.into_iter().enumerate() {
        let beside = if idle > 0 { format!(" beside {idle} idle") } else { String::new() };
        let name = format!("{traffic} d{depth}{beside}");
        if !settings.selects(&name, index == HELD) {
            continue;
        }
        let mut all = Vec::new();
        for kind in &kinds {
            let load = Load { workload: Workload::new(traffic, depth), idle };
            let costs = kind.costs(load, &scratch)?;
            println!(
                "{name:35} {:>9} {:>13.0} {:>11.0} {:>12.2} {:>13}",
                kind.name,
                costs.instructions,
                costs.cold_bytes,
                costs.allocations,
                option(costs.syscalls, 2)
            );
            lines.push(costs.json(&name, kind.name));
            all.push(costs);
        }
        let (share, allocations) = (all[0].instructions / all[1].instructions, all[0].allocations);
        if index == HELD && (share > SHARE_MAX || allocations > ALLOCATIONS_MAX) {
            excess = Some(format!(
                "{name}: {share:.2} of the bare server's instructions, and {SHARE_MAX} is the most; \
                 {allocations:.2} allocations, and {ALLOCATIONS_MAX} is the most"
            ));
        }
    }
    settings.expect_some(&lines)?;
    println!("{LEGEND}");
    if lines.iter().any(|line| line.contains("null")) {
        println!("{}", syscalls::MISSING);
    }
    let text = format!("{{\"bench\":\"costs\",\"rows\":[\n{}\n]}}\n", lines.join(",\n"));
    harness::write(&scratch.join("costs.json"), &text)?;
    excess.map_or(Ok(()), Err)
}

const LEGEND: &str = "\
All figures are of a URB, in user space but for the system calls. cold bytes: lines of 64 bytes that
miss a first data cache of 32 KiB. The instructions include libusb's and the simulated usbfs's.
system calls: without calls of usbfs.";

impl Kind<'_> {
    fn costs(&self, load: Load, scratch: &Path) -> Result<Costs, String> {
        let times = if load.idle > 0 { TURNS_BESIDE_IDLE } else { 1 };
        let depth = load.workload.depth as u64 * times;
        let [few, many] = TURNS.map(|turns| self.totals(load, turns * depth, scratch));
        let (few, many) = (few?, many?);
        let urbs = float((TURNS[1] - TURNS[0]) * depth);
        let each = |few: u64, many: u64| float(many.saturating_sub(few)) / urbs;
        Ok(Costs {
            instructions: each(few.instructions, many.instructions),
            cold_bytes: each(few.misses, many.misses) * LINE,
            allocations: each(few.allocations, many.allocations),
            syscalls: self.syscalls(load, scratch)?,
        })
    }

    /// Runs the server under callgrind for a number of URBs.
    fn totals(&self, load: Load, urbs: u64, scratch: &Path) -> Result<Totals, String> {
        let output = scratch.join("callgrind.out");
        let mut command = std::process::Command::new("valgrind");
        command
            .args(["--tool=callgrind", "--cache-sim=yes"])
            .args(CACHES)
            .arg(format!("--callgrind-out-file={}", output.display()))
            .arg(&self.program)
            .args(&self.arguments);
        let server = self.start(load, command)?;
        drive(&server, load, urbs, || {}).map_err(|error| self.explain(load, &error))?;
        // callgrind writes its results when a signal ends the server.
        server.end()?;
        let text = fs::read_to_string(&output).map_err(|error| error.to_string())?;
        read_totals(&text).ok_or_else(|| "callgrind's results can't be read".to_owned())
    }

    /// Counts system calls at native speed.
    fn syscalls(&self, load: Load, scratch: &Path) -> Result<Option<f64>, String> {
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.arguments);
        let server = self.start(load, command)?;
        let Some(mut counter) = Counter::start(server.pid(), scratch) else { return Ok(None) };
        let urbs = NATIVE_TURNS * load.workload.depth as u64;
        let mut own_before = 0;
        let driven = drive(&server, load, urbs, || {
            own_before = self.tree(load).counted()[1];
            counter.enable();
        });
        driven.map_err(|error| self.explain(load, &error))?;
        counter.disable();
        let own = self.tree(load).counted()[1] - own_before;
        Ok(counter.finish().map(|calls| float(calls.saturating_sub(own)) / float(urbs)))
    }

    fn tree(&self, load: Load) -> &Tree {
        &self.trees[usize::from(load.idle > 0)]
    }

    fn start(&self, load: Load, mut command: std::process::Command) -> Result<Server, String> {
        command.envs(self.tree(load).environment(self.library));
        Server::start(command)
    }

    fn explain(&self, Load { workload, idle }: Load, error: &io::Error) -> String {
        let Workload { traffic, depth, .. } = workload;
        format!("{}: {traffic} d{depth} beside {idle} idle: {error}", self.name)
    }
}

/// Moves a number of URBs behind a few turns for warming up; `begin` is called before the URBs.
fn drive(server: &Server, load: Load, urbs: u64, begin: impl FnOnce()) -> io::Result<()> {
    let Load { workload, idle } = load;
    let attach = |number: usize| {
        Client::attach_when_free(&*server.address, &format!("1-{number}"))
            .map_err(|error| io::Error::other(error.to_string()))
    };
    let _idle = (2..2 + idle).map(attach).collect::<io::Result<Vec<Client>>>()?;
    let mut client = attach(1)?;
    if workload.packets().is_some() {
        client.set_interface(1, 1)?;
    }
    client.clear_counters()?;
    let mut flow = Flow::new(client, workload, Check::Counter)?;
    run::count(&mut flow, workload.depth, 8 * workload.depth as u64)?;
    begin();
    run::count(&mut flow, workload.depth, urbs)
}

/// Reads callgrind's summary and the calls of allocators.
fn read_totals(text: &str) -> Option<Totals> {
    let events: Vec<&str> =
        text.lines().find_map(|line| line.strip_prefix("events: "))?.split(' ').collect();
    let summary = text.lines().find_map(|line| {
        line.strip_prefix("summary: ").or_else(|| line.strip_prefix("totals: "))
    })?;
    let counts: Vec<u64> = summary.split(' ').map(|count| count.parse().unwrap_or(0)).collect();
    let of = |name| Some(counts[events.iter().position(|event| *event == name)?]);
    let mut totals =
        Totals { instructions: of("Ir")?, misses: of("D1mr")? + of("D1mw")?, allocations: 0 };
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut is_allocator = false;
    for line in text.lines() {
        if let Some(called) = line.strip_prefix("cfn=").or_else(|| line.strip_prefix("fn=")) {
            let (id, name) = called.split_once(' ').unwrap_or((called, ""));
            if !name.is_empty() {
                names.insert(id, name);
            }
            is_allocator = names.get(id).is_some_and(|name| ALLOCATORS.contains(name));
        } else if let Some(calls) = line.strip_prefix("calls=").filter(|_| is_allocator) {
            totals.allocations += calls.split(' ').next()?.parse::<u64>().ok()?;
        }
    }
    Some(totals)
}

impl Costs {
    fn json(&self, load: &str, server: &str) -> String {
        let syscalls =
            self.syscalls.map_or_else(|| "null".to_owned(), |calls| format!("{calls:.4}"));
        format!(
            "{{\"row\":\"{load}\",\"server\":\"{server}\",\"instructions\":{:.1},\
             \"cold_bytes\":{:.1},\"allocations\":{:.4},\"syscalls\":{syscalls}}}",
            self.instructions, self.cold_bytes, self.allocations,
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
const fn float(number: u64) -> f64 {
    number as f64
}
