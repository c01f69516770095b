//! The whole server over loopback TCP on the real libusb, with the simulated usbfs of
//! `testkit/usbfs`: the cost of the server with every layer above the kernel, at native speed. The
//! process itself answers calls of usbfs, so the figures lack the kernel's time for these calls;
//! the table has their number.
//!
//! Linux only; on other systems the bench says so.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
mod bare;
#[cfg(target_os = "linux")]
#[path = "harness/costs.rs"]
mod costs;
mod harness;
#[cfg(target_os = "linux")]
#[path = "harness/line.rs"]
mod line;
#[cfg(target_os = "linux")]
#[path = "harness/memory.rs"]
mod memory;
#[cfg(target_os = "linux")]
#[path = "harness/scale.rs"]
mod scale;
#[cfg(target_os = "linux")]
#[path = "harness/tree.rs"]
mod tree;

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    println!("libusb: there is no usbfs to simulate on this system");
    ExitCode::SUCCESS
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [first, rest @ ..] if first == bare::BARE => linux::be_bare(rest),
        [first, rest @ ..] if first == line::LINE => line::serve(rest),
        _ => return harness::main(linux::bench),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::net::Ipv4Addr;
    use std::path::Path;
    use std::time::Duration;

    use usbferry_load::preload;
    use usbferry_load::workload::{Check, Workload};

    use crate::bare::{self, BARE};
    use crate::harness;
    use crate::harness::capturing::Capturing;
    use crate::harness::measure::Bench;
    use crate::harness::rows::{self, Row, Target};
    use crate::harness::server::Server;
    use crate::harness::settings::{self, Part, Settings};
    use crate::line::{FAR, LINES, Line, NEAR};
    use crate::tree::Tree;
    use crate::{costs, memory, scale};

    /// A device for each session, and a device for the client that does not read. With usbfs's
    /// default memory (16 MiB for all programs together) not even the mappings of 65 devices would
    /// fit.
    ///
    /// The devices behind take time, each in a way of its own, see [`SLOW`].
    const DEVICES: &str = "count=69:quota=512M:requests=unrecorded:66.delay=30us:67.delay=125us:\
                           68.rate=480M:69.rate=5000M";

    /// The devices that take time, by number.
    const SLOW: [(usize, &str); 4] =
        [(66, "30 us"), (67, "125 us"), (68, "480 Mbit/s"), (69, "5 Gbit/s")];

    pub(crate) fn bench(settings: &Settings) -> Result<(), String> {
        let scratch = settings::results()?;
        let library = preload::build(Path::new(env!("CARGO_MANIFEST_DIR")), &scratch)?;
        match settings.part {
            Part::Rows if settings.smoke && settings.filter.is_empty() => {
                rows(settings, &library)?;
                scale::measure(settings, &library)?;
                memory::measure(settings, &library)
            }
            Part::Rows => rows(settings, &library),
            Part::Scale => scale::measure(settings, &library),
            Part::Memory => memory::measure(settings, &library),
            Part::Counted => costs::measure(settings, &library),
            Part::Lines => lines(settings, &library),
        }
    }

    fn rows(settings: &Settings, library: &Path) -> Result<(), String> {
        let scratch = settings::results()?;
        let tree = Tree::new(&scratch, "own", DEVICES)?;
        let beside_tree = Tree::new(&scratch, "beside", DEVICES)?;
        let memory_tree = Tree::new(&scratch, "memory", DEVICES)?;
        let disk_tree = Tree::new(&scratch, "disk", DEVICES)?;
        let bare_tree = Tree::new(&scratch, "bare", DEVICES)?;
        let mut arguments = vec!["--all".to_owned()];
        arguments.extend(settings.serve.iter().cloned());
        let captured: Vec<String> = arguments.iter().chain(&settings.capturing).cloned().collect();
        let bench = Bench {
            settings,
            usbferry: Server::usbferry(&arguments, &tree.environment(library))?,
            ceiling: Server::ceiling()?,
            beside: settings
                .beside()
                .map(|program| {
                    Server::build(program, &arguments, &beside_tree.environment(library))
                })
                .transpose()?,
            capturing: if settings.beside.is_none() {
                let trees = [&memory_tree, &disk_tree].map(|tree| tree.environment(library));
                Some(Capturing::start(&captured, &scratch, trees)?)
            } else {
                None
            },
            bare: if settings.beside.is_none() {
                Some((Server::bare(BARE, &bare_tree.environment(library))?, &bare_tree))
            } else {
                None
            },
            scraped: None,
            check: Check::Counter,
            usbfs: Some(&tree),
            scratch: scratch.clone(),
        };
        let mut more = rows::against_bare(&SLOW);
        if bench.capturing.is_some() {
            more.extend(rows::captured_slow(SLOW[3]));
        }
        harness::measure("libusb", &bench, target, more)
    }

    /// The selected rows on lines with delay, or with loss, unless shortly for a second at least:
    /// the longest round trip is 20 ms, and TCP begins slowly.
    fn lines(settings: &Settings, library: &Path) -> Result<(), String> {
        let mut settings = settings.clone();
        if !settings.smoke {
            settings.plan.warm_up = Duration::from_millis(500);
            settings.plan.time = settings.plan.time.max(Duration::from_secs(1));
        }
        let settings = &settings;
        let rows_on = |name| {
            let mut rows = rows::on_line(name);
            rows.retain(|row| settings.selects(&row.name, row.smoke));
            rows
        };
        let mut lines = LINES.map(|line| (line, rows_on(line.0))).to_vec();
        lines.retain(|(_, rows)| !rows.is_empty());
        settings.expect_some(&lines)?;
        lines.iter().try_for_each(|(line, rows)| on_line(settings, library, *line, rows))
    }

    fn on_line(
        settings: &Settings,
        library: &Path,
        (name, round_trip, lost): (&str, u64, u64),
        rows: &[Row],
    ) -> Result<(), String> {
        let scratch = settings::results()?;
        let trees = [Tree::new(&scratch, "far", DEVICES)?, Tree::new(&scratch, "bare", DEVICES)?];
        let line = Line::start(round_trip, lost)?;
        let mut own = line.far(&trees[0].environment(library));
        own.arg(env!("CARGO_BIN_EXE_usbferry"));
        own.args(["serve", "--all", "--allow", NEAR, "--listen", &format!("{FAR}:0")]);
        own.args(&settings.serve);
        let mut bare = line.far(&trees[1].environment(library));
        bare.arg(std::env::current_exe().map_err(|error| error.to_string())?).args([BARE, FAR]);
        let bench = Bench {
            settings,
            usbferry: Server::start(own)?,
            ceiling: Server::ceiling()?,
            beside: None,
            capturing: None,
            bare: Some((Server::start(bare)?, &trees[1])),
            scraped: None,
            check: Check::Counter,
            usbfs: Some(&trees[0]),
            scratch,
        };
        harness::measure_rows(&name.replace([' ', '%'], "-"), &bench, rows)
    }

    /// Runs the bare server.
    pub(crate) fn be_bare(arguments: &[String]) -> Result<(), String> {
        let address = arguments.first().map_or(Ok(Ipv4Addr::LOCALHOST), |address| address.parse());
        let address = address.map_err(|_| "no address for the bare server".to_owned())?;
        bare::serve(address).map_err(|error| error.to_string())
    }

    /// The goal of a load on a single session: no slower than a bare server on libusb.
    const fn target(_: &Workload) -> Target {
        Target::Bare(1.0)
    }
}
