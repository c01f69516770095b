//! Many devices on one server, on the real libusb: a busy device beside attached idle ones, several
//! busy devices, and a request for the list every 10 ms meanwhile. Linux only; `libusb` includes
//! the file by its path.
//!
//! Each row is measured in turn with a usbferry whose only client has one busy device, and with the
//! bare server under the same load. Idle devices stay attached from row to row.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use usbferry_load::client::{Client, devlist};
use usbferry_load::flow::Flow;
use usbferry_load::process::{self, Usage};
use usbferry_load::run::{self, Moment, Outcome};
use usbferry_load::workload::{Check, Traffic, Workload};

use crate::bare::BARE;
use crate::harness::report::{option, spread};
use crate::harness::server::Server;
use crate::harness::settings::{self, Cores, Settings, pin};
use crate::harness::{self};
use crate::tree::Tree;

/// As many devices as the simulation has. usbferry maps memory of each, and usbfs's default limit
/// is 16 MiB for all together.
const DEVICES: &str = "count=254:quota=1024M";

/// The load of a busy device.
const LOAD: Workload = Workload::new(Traffic::BulkIn(512), 16);

/// The time between two requests for the list.
const LIST_PERIOD: Duration = Duration::from_millis(10);

/// The devices of a row. Only rows with a single busy device have idle ones.
struct Row {
    busy: usize,
    idle: usize,
    is_listed: bool,
    smoke: bool,
}

const fn row(busy: usize, idle: usize, is_listed: bool, smoke: bool) -> Row {
    Row { busy, idle, is_listed, smoke }
}

/// In the order of the idle devices, which are attached once.
const ROWS: [Row; 11] = [
    row(1, 0, false, false),
    row(2, 0, false, true),
    row(8, 0, false, false),
    row(32, 0, false, false),
    row(1, 0, true, false),
    row(32, 0, true, false),
    row(1, 15, false, true),
    row(1, 15, true, true),
    row(1, 63, false, false),
    row(1, 250, false, false),
    row(1, 250, true, false),
];

impl Row {
    fn name(&self) -> String {
        let mut name = format!("{} busy", self.busy);
        if self.idle > 0 {
            let _ = write!(name, " beside {} idle", self.idle);
        }
        if self.is_listed {
            name += ", DEVLIST each 10 ms";
        }
        name
    }
}

/// A measured server.
struct Subject {
    server: Server,
    /// Clients whose devices are idle.
    idle: Vec<Client>,
    _tree: Tree,
}

/// A single measurement.
struct Sample {
    outcome: Outcome,
    used: Usage,
    memory: Option<u64>,
}

/// A row's figures of a server: medians.
struct Figures {
    rate: f64,
    /// Microseconds of the server's processor time a URB.
    cpu: f64,
    p50: f64,
    p999: f64,
    mebibytes: Option<f64>,
}

pub(crate) fn measure(settings: &Settings, library: &std::path::Path) -> Result<(), String> {
    let rows: Vec<_> = ROWS.iter().filter(|row| settings.selects(&row.name(), row.smoke)).collect();
    settings.expect_some(&rows)?;
    usbferry_sys::os::limit::raise_open_files().map_err(|error| error.to_string())?;
    let scratch = settings::results()?;
    let tree = |name| Tree::new(&scratch, name, DEVICES);
    let arguments: Vec<String> =
        std::iter::once("--all".to_owned()).chain(settings.serve.iter().cloned()).collect();
    let usbferry = |name| {
        let tree = tree(name)?;
        let server = Server::usbferry(&arguments, &tree.environment(library))?;
        Ok::<_, String>(Subject { server, idle: Vec::new(), _tree: tree })
    };
    let mut own = usbferry("scale")?;
    let alone = usbferry("scale-alone")?;
    let bare_tree = tree("scale-bare")?;
    let server = Server::bare(BARE, &bare_tree.environment(library))?;
    let mut bare = Subject { server, idle: Vec::new(), _tree: bare_tree };
    println!("scale, {} d{}: {} turns\n{}", LOAD.traffic, LOAD.depth, settings.pairs, head());
    let mut lines = Vec::new();
    for row in rows {
        own.attach_idle(row.idle)?;
        bare.attach_idle(row.idle)?;
        if settings.cores == Cores::One {
            for pid in [&own, &alone, &bare].map(|subject| subject.server.pid()) {
                pin(pid, 0);
            }
            pin(std::process::id(), 0);
        }
        let mut samples: [Vec<Sample>; 3] = Default::default();
        for _ in 0..settings.pairs.max(1) {
            samples[0].push(own.sample(row, settings)?);
            samples[1].push(bare.sample(row, settings)?);
            samples[2].push(alone.sample(&ROWS[0], settings)?);
        }
        lines.push(report(row, &samples));
    }
    println!("{LEGEND}");
    let text = format!("{{\"bench\":\"scale\",\"rows\":[\n{}\n]}}\n", lines.join(",\n"));
    harness::write(&scratch.join("scale.json"), &text)
}

impl Subject {
    /// Attaches devices from 1-2 on, until as many are idle.
    fn attach_idle(&mut self, count: usize) -> Result<(), String> {
        while self.idle.len() < count {
            let busid = format!("1-{}", self.idle.len() + 2);
            let client = Client::attach_when_free(&*self.server.address, &busid);
            self.idle.push(client.map_err(|error| format!("{busid}: {error}"))?);
        }
        Ok(())
    }

    fn sample(&self, row: &Row, settings: &Settings) -> Result<Sample, String> {
        let explain = |error| format!("{}: {error}", row.name());
        let mut flows = Vec::new();
        for number in 1..=row.busy {
            let busid = format!("1-{number}");
            let mut client = Client::attach_when_free(&*self.server.address, &busid)
                .map_err(|error| format!("{busid}: {error}"))?;
            client.clear_counters().map_err(explain)?;
            flows.push(Flow::new(client, LOAD, Check::Counter).map_err(explain)?);
        }
        let is_over = AtomicBool::new(!row.is_listed);
        let (pid, address) = (self.server.pid(), &*self.server.address);
        let mut usages = [Usage::default(); 2];
        process::reset_peak(pid);
        let (outcome, listed) = thread::scope(|scope| {
            let lister = scope.spawn(|| ask_for_lists(address, &is_over));
            let outcome = run::run(&mut flows, LOAD.depth, settings.plan, |moment| {
                let usage = process::usage(pid).unwrap_or_default();
                usages[usize::from(moment == Moment::End)] = usage;
            });
            is_over.store(true, Ordering::Relaxed);
            (outcome, lister.join().expect("asking for lists does not panic"))
        });
        listed.map_err(explain)?;
        let memory = process::peak_memory(pid);
        Ok(Sample { outcome: outcome.map_err(explain)?, used: usages[1].since(usages[0]), memory })
    }
}

fn ask_for_lists(address: &str, is_over: &AtomicBool) -> std::io::Result<()> {
    while !is_over.load(Ordering::Relaxed) {
        devlist(address)?;
        thread::sleep(LIST_PERIOD);
    }
    Ok(())
}

impl Figures {
    fn of(samples: &[Sample]) -> Self {
        let median = |figure: &dyn Fn(&Sample) -> f64| spread(samples.iter().map(figure)).median;
        let at = |per_million| {
            move |sample: &Sample| {
                sample.outcome.turnaround.quantile(per_million).as_secs_f64() * 1e6
            }
        };
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let mebibytes =
            |sample: &Sample| sample.memory.map_or(f64::NAN, |bytes| bytes as f64 / 1048576.0);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let cpu = |sample: &Sample| {
            sample.used.cpu.as_secs_f64() * 1e6 / sample.outcome.urbs.max(1) as f64
        };
        Self {
            rate: median(&|sample| sample.outcome.rate()),
            cpu: median(&cpu),
            p50: median(&at(500_000)),
            p999: median(&at(999_000)),
            mebibytes: Some(median(&mebibytes)).filter(|figure| !figure.is_nan()),
        }
    }
}

fn head() -> String {
    let figures = "   URB/s  us/URB   p50 us  p99.9 us   MiB";
    format!("{:38} {figures} | of alone of bare | bare: {figures}", "row",)
}

/// Prints a row, and returns its JSON.
fn report(row: &Row, [own, bare, alone]: &[Vec<Sample>; 3]) -> String {
    let ratio = |others: &[Sample]| {
        let pairs = own.iter().zip(others);
        spread(pairs.map(|(own, other)| own.outcome.rate() / other.outcome.rate())).median
    };
    let (of_alone, of_bare) = (ratio(alone), ratio(bare));
    let (own, bare) = (Figures::of(own), Figures::of(bare));
    let line = |figures: &Figures| {
        format!(
            "{:>8.0} {:>7.2} {:>8.1} {:>9.1} {:>5}",
            figures.rate,
            figures.cpu,
            figures.p50,
            figures.p999,
            option(figures.mebibytes, 0)
        )
    };
    println!(
        "{:38} {} | {of_alone:>8.2} {of_bare:>7.2} |       {}",
        row.name(),
        line(&own),
        line(&bare)
    );
    let json = |prefix: &str, figures: &Figures| {
        format!(
            "\"{prefix}urbs_per_second\":{:.0},\"{prefix}server_cpu_us_per_urb\":{:.4},\
             \"{prefix}p50_us\":{:.2},\"{prefix}p999_us\":{:.2},\"{prefix}peak_mebibytes\":{}",
            figures.rate,
            figures.cpu,
            figures.p50,
            figures.p999,
            figures
                .mebibytes
                .map_or_else(|| "null".to_owned(), |mebibytes| format!("{mebibytes:.1}"))
        )
    };
    format!(
        "{{\"row\":\"{}\",\"of_alone\":{of_alone:.4},\"of_bare\":{of_bare:.4},{},{}}}",
        row.name(),
        json("", &own),
        json("bare_", &bare)
    )
}

const LEGEND: &str = "\
URB/s: of all busy devices together; of alone: as a share of a usbferry with one busy device and
nothing else, measured in turn; of bare: of the bare server under the same load. us/URB: processor
time of the server. MiB: peak of the server's memory, memory mapped from devices included, which a
real usbfs has in the kernel.";
