//! The effect of malicious clients on a streaming client, over loopback TCP with simulated devices.
//!
//! Abusers take processor time themselves, and so do the answers to them, in any case. The server's
//! own share of the blame shows only in comparison with the same abuse of *another* server: a
//! second usbferry on the same processor, unrelated to the streaming client. So each row is
//! measured in rounds of five: alone, the abuse elsewhere, the abuse here, elsewhere again, alone
//! again. `here / elsewhere` is the result; the pairs of equal runs show the noise of a ratio at
//! the time.
//!
//! Client and servers are on one processor, the abuser is a process of its own on the other.

use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use usbferry_load::abuse::{self, Abuse};
use usbferry_load::client::Client;
use usbferry_load::flow::Flow;
use usbferry_load::process::{self, Usage};
use usbferry_load::run::{self, Moment, Outcome};
use usbferry_load::workload::{Check, Traffic, Workload};

#[allow(dead_code, reason = "this bench has rows and a report of its own")]
mod harness;

use harness::report::{Spread, spread};
use harness::server::Server;
use harness::settings::{self, Cores, Settings, pin};

/// Simulated devices for the streaming client, the abuser, and newcomers.
const DEVICES: &str = "--simulate=loopback:count=12";
const STREAM: &str = "1-1";
const ABUSED: &str = "1-2";
const NEWCOMERS: std::ops::RangeInclusive<usize> = 3..=12;

/// The argument that turns this program into an abuser.
const ABUSER: &str = "--abuse";

/// The server's time to clean up after an abuser.
const SETTLING: Duration = Duration::from_secs(20);

/// The median of the streaming client's results, and the rest of a row.
struct Row {
    workload: Workload,
    abuse: Abuse,
    rounds: Vec<Round>,
    newcomers: Newcomers,
}

/// Five measurements next to each other.
struct Round {
    alone: [Sample; 2],
    elsewhere: [Sample; 2],
    here: Sample,
}

struct Sample {
    outcome: Outcome,
    /// The resources used by the streaming client's server.
    server: Option<Usage>,
    /// The abuser's actions a second.
    abuse: f64,
}

/// The results of clients that arrive while the server is abused.
struct Newcomers {
    waits: Vec<Duration>,
    attempts: u32,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [first, abuse, server] if first == ABUSER => be_abuser(abuse, server),
        _ => bench(&Settings::read()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Abuses a server until stdin ends. Prints a line at the start of the abuse, and the number of
/// actions at the end.
fn be_abuser(abuse: &str, server: &str) -> Result<(), String> {
    let abuse: Abuse = abuse.parse()?;
    let server = server.parse().map_err(|_| format!("{server} is no address"))?;
    usbferry_sys::os::limit::raise_open_files().map_err(|error| error.to_string())?;
    let over = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&over);
    thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        flag.store(true, Ordering::Relaxed);
    });
    let go_on = || !over.load(Ordering::Relaxed);
    let done = abuse.run(server, ABUSED, || println!("ready"), go_on);
    println!("{}", done.map_err(|error| format!("{abuse}: {error}"))?);
    Ok(())
}

/// An abuser at work.
struct Abuser {
    process: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    begun: Instant,
}

impl Abuser {
    fn start(abuse: Abuse, server: SocketAddr, cores: Cores) -> io::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args([ABUSER, &abuse.to_string(), &server.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        if cores != Cores::Any {
            pin(process.id(), 1);
        }
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?;
        let mut abuser =
            Self { process, stdin, stdout: BufReader::new(stdout), begun: Instant::now() };
        abuser.line()?;
        abuser.begun = Instant::now();
        Ok(abuser)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line)? {
            0 => Err(io::Error::other("the abuser gave up")),
            _ => Ok(line),
        }
    }

    /// Ends the abuser, and returns its actions a second.
    fn stop(mut self) -> io::Result<f64> {
        drop(self.stdin.take());
        let seconds = self.begun.elapsed().as_secs_f64();
        let done: f64 = self.line()?.trim().parse().map_err(io::Error::other)?;
        self.process.wait()?;
        Ok(done / seconds)
    }
}

impl Drop for Abuser {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The two servers.
struct Servers<'a> {
    settings: &'a Settings,
    here: Server,
    elsewhere: Server,
}

fn bench(settings: &Settings) -> Result<(), String> {
    let arguments: Vec<String> =
        [DEVICES.to_owned()].into_iter().chain(settings.serve.iter().cloned()).collect();
    let start = || Server::usbferry(&arguments, &[]);
    let servers = Servers { settings, here: start()?, elsewhere: start()? };
    if settings.cores != Cores::Any {
        let processes = [std::process::id(), servers.here.pid(), servers.elsewhere.pid()];
        if !processes.map(|pid| pin(pid, 0)).iter().all(|&done| done) {
            eprintln!("processes can't be bound to processors here");
        }
    }
    let how = format!("{} rounds of 5 × {} ms", settings.pairs, settings.plan.time.as_millis());
    println!("abuse: {how}\n{}", head());
    let mut rows = Vec::new();
    for workload in [512, 16 << 10].map(|len| Workload::new(Traffic::BulkIn(len), 16)) {
        for abuse in Abuse::ALL.into_iter().filter(|&abuse| abuse != Abuse::Nothing) {
            let smoke = workload.len() == 512;
            if settings.selects(&format!("{} {abuse}", workload.traffic), smoke) {
                let explain = |error| format!("{} beside {abuse}: {error}", workload.traffic);
                let row = servers.row(workload, abuse).map_err(explain)?;
                println!("{}", line(&row));
                rows.push(row);
            }
        }
    }
    settings.expect_some(&rows)?;
    println!("{LEGEND}");
    harness::write(&settings::results()?.join("abuse.json"), &json(&how, &rows))?;
    println!("written to target/bench/abuse.json");
    Ok(())
}

impl Servers<'_> {
    fn row(&self, workload: Workload, abuse: Abuse) -> io::Result<Row> {
        let alone = || self.sample(workload, Abuse::Nothing, &self.elsewhere);
        let elsewhere = || self.sample(workload, abuse, &self.elsewhere);
        let mut rounds = Vec::new();
        for _ in 0..self.settings.pairs.max(1) {
            let before = (alone()?, elsewhere()?);
            let here = self.sample(workload, abuse, &self.here)?;
            let after = (elsewhere()?, alone()?);
            rounds.push(Round { alone: [before.0, after.1], elsewhere: [before.1, after.0], here });
        }
        Ok(Row { workload, abuse, rounds, newcomers: self.newcomers(abuse)? })
    }

    /// Streams for a while, beside an abuse of a server.
    fn sample(&self, workload: Workload, abuse: Abuse, of: &Server) -> io::Result<Sample> {
        let client = Client::attach_when_free(&*self.here.address, STREAM)
            .map_err(|error| io::Error::other(error.to_string()))?;
        let mut flows = [Flow::new(client, workload, Check::Pattern)?];
        let abuser = self.abuser(abuse, of)?;
        let mut usages = [None; 2];
        let outcome = run::run(&mut flows, workload.depth, self.settings.plan, |moment| {
            usages[usize::from(moment == Moment::End)] = process::usage(self.here.pid());
        })?;
        let abuse = abuser.stop()?;
        settle(of)?;
        let server = usages[0].zip(usages[1]).map(|(before, after)| after.since(before));
        Ok(Sample { outcome, server, abuse })
    }

    fn abuser(&self, abuse: Abuse, server: &Server) -> io::Result<Abuser> {
        Abuser::start(abuse, address_of(server)?, self.settings.cores)
    }

    /// Imports devices in turn while the server is abused, each as another client.
    fn newcomers(&self, abuse: Abuse) -> io::Result<Newcomers> {
        let server = address_of(&self.here)?;
        let abuser = self.abuser(abuse, &self.here)?;
        let mut newcomers = Newcomers { waits: Vec::new(), attempts: 0 };
        for device in NEWCOMERS {
            let (wait, attempts) = abuse::newcomer(server, &format!("1-{device}"))?;
            newcomers.waits.push(wait);
            newcomers.attempts += attempts;
        }
        abuser.stop()?;
        settle(&self.here)?;
        newcomers.waits.sort();
        Ok(newcomers)
    }
}

fn address_of(server: &Server) -> io::Result<SocketAddr> {
    server.address.parse().map_err(io::Error::other)
}

/// Waits until a server has nothing left of an abuse: no processor time in a while.
fn settle(server: &Server) -> io::Result<()> {
    const WHILE: Duration = Duration::from_millis(20);
    let begun = Instant::now();
    let cpu = || process::usage(server.pid()).unwrap_or_default().cpu;
    let mut before = cpu();
    while begun.elapsed() < SETTLING {
        thread::sleep(WHILE);
        let now = cpu();
        if now.saturating_sub(before) < WHILE / 20 {
            return Ok(());
        }
        before = now;
    }
    Err(io::Error::other("the server is still busy long after an abuse"))
}

/// A row's figures.
struct Figures {
    alone: f64,
    /// Alone over alone, and elsewhere over elsewhere.
    noise: [Spread; 2],
    elsewhere: f64,
    here: f64,
    ratio: Spread,
    /// The client's p99 here over elsewhere.
    p99: f64,
    /// The abuser's actions a second, elsewhere and here.
    abuse: [f64; 2],
    /// Microseconds of the server's processor time for each thing the abuser did.
    cost: f64,
    within: bool,
}

impl Figures {
    fn of(row: &Row) -> Self {
        let rounds = || row.rounds.iter();
        let rate = |sample: &Sample| sample.outcome.rate();
        let median = |figure: &dyn Fn(&Round) -> f64| spread(rounds().map(figure)).median;
        let p99 = |sample: &Sample| sample.outcome.turnaround.quantile(990_000).as_secs_f64();
        let cpu = |sample: &Sample| sample.server.map_or(f64::NAN, |used| used.cpu.as_secs_f64());
        let each = |sample: &Sample| cpu(sample) / sample.outcome.rate();
        let mean = |[one, other]: &[Sample; 2]| f64::midpoint(rate(one), rate(other));
        let equal = |[one, other]: &[Sample; 2]| rate(other) / rate(one);
        let noise = [
            spread(rounds().map(|round| equal(&round.alone))),
            spread(rounds().map(|round| equal(&round.elsewhere))),
        ];
        let ratio = spread(rounds().map(|round| rate(&round.here) / mean(&round.elsewhere)));
        Self {
            alone: median(&|round| mean(&round.alone)),
            elsewhere: median(&|round| mean(&round.elsewhere)),
            here: median(&|round| rate(&round.here)),
            p99: median(&|round| p99(&round.here) / p99(&round.elsewhere[0])),
            abuse: [median(&|round| round.elsewhere[0].abuse), median(&|round| round.here.abuse)],
            cost: median(&|round| {
                let of_urbs = each(&round.alone[0]) * rate(&round.here);
                let seconds = round.here.outcome.time.as_secs_f64();
                (cpu(&round.here) - of_urbs) / seconds / round.here.abuse * 1e6
            }),
            within: 1.0 - ratio.median <= width(noise[0]).max(width(noise[1])),
            noise,
            ratio,
        }
    }
}

/// The largest distance from 1 of the ratio of two equal runs.
const fn width(noise: Spread) -> f64 {
    (1.0 - noise.least).max(noise.most - 1.0)
}

fn head() -> String {
    format!(
        "{:14} {:17} {:>8} {:>11} {:>9} {:>11} {:>8} {:>6} {:>11} {:>6} {:>5} {:>9} {:>9} {:>8} {:>8} {:>8}",
        "stream",
        "beside",
        "alone/s",
        "noise",
        "elsewhere",
        "noise",
        "here",
        "ratio",
        "least-most",
        "",
        "p99 x",
        "abuse/s",
        "here",
        "us each",
        "new p50",
        "new most"
    )
}

fn line(row: &Row) -> String {
    let figures = Figures::of(row);
    let [p50, most] = row.newcomers.figures();
    let cost = if figures.cost.is_finite() {
        format!("{:.1}", figures.cost)
    } else {
        // The abuser's action cannot be counted.
        "-".to_owned()
    };
    let retried = match row.newcomers.retries() {
        0 => String::new(),
        retries => format!("  {retries} more attempts of {}", row.newcomers.waits.len()),
    };
    format!(
        "{:14} {:17} {:>8.0} {:>5.2}-{:<5.2} {:>9.0} {:>5.2}-{:<5.2} {:>8.0} {:>6.3} {:>5.2}-{:<5.2} {:>6} {:>5.2} \
         {:>9.0} {:>9.0} {cost:>8} {p50:>8.1} {most:>8.1}{retried}",
        row.workload.traffic.to_string(),
        row.abuse.to_string(),
        figures.alone,
        figures.noise[0].least,
        figures.noise[0].most,
        figures.elsewhere,
        figures.noise[1].least,
        figures.noise[1].most,
        figures.here,
        figures.ratio.median,
        figures.ratio.least,
        figures.ratio.most,
        if figures.within { "within" } else { "BEYOND" },
        figures.p99,
        figures.abuse[0],
        figures.abuse[1],
    )
}

const LEGEND: &str = "\
alone/s: URBs a second of one client with 16 in flight. elsewhere, here: the same while another
server, or this one, is abused. noise: of two equal runs, one over the other. ratio: here over
elsewhere, median of the rounds, least and most; within or BEYOND the noise. p99 x: turnaround, here
over elsewhere. abuse/s: how often the abuser did it, elsewhere and here. us each: what the server
took for each. new: how long a well-meaning client waited for a device, in milliseconds.";

impl Newcomers {
    /// The median and the longest wait, in milliseconds.
    fn figures(&self) -> [f64; 2] {
        let waits = spread(self.waits.iter().map(|wait| wait.as_secs_f64() * 1e3));
        [waits.median, waits.most]
    }

    fn retries(&self) -> usize {
        (self.attempts as usize).saturating_sub(self.waits.len())
    }
}

fn json(how: &str, rows: &[Row]) -> String {
    let object = |row: &Row| {
        let figures = Figures::of(row);
        let [p50, most] = row.newcomers.figures();
        let fields = [
            ("alone_urbs_per_second", figures.alone),
            ("alone_noise_least", figures.noise[0].least),
            ("alone_noise_most", figures.noise[0].most),
            ("elsewhere_noise_least", figures.noise[1].least),
            ("elsewhere_noise_most", figures.noise[1].most),
            ("elsewhere_urbs_per_second", figures.elsewhere),
            ("here_urbs_per_second", figures.here),
            ("ratio", figures.ratio.median),
            ("ratio_least", figures.ratio.least),
            ("ratio_most", figures.ratio.most),
            ("p99_ratio", figures.p99),
            ("abuse_elsewhere_per_second", figures.abuse[0]),
            ("abuse_here_per_second", figures.abuse[1]),
            ("newcomer_p50_ms", p50),
            ("newcomer_most_ms", most),
        ];
        let number = |value: f64| {
            if value.is_finite() { format!("{value:.4}") } else { "null".to_owned() }
        };
        let fields = fields.map(|(name, value)| format!("\"{name}\":{}", number(value)));
        format!(
            "{{\"stream\":\"{} d{}\",\"beside\":\"{}\",\"within\":{},{}}}",
            row.workload.traffic,
            row.workload.depth,
            row.abuse,
            figures.within,
            fields.join(",")
        )
    };
    let rows: Vec<String> = rows.iter().map(object).collect();
    format!("{{\"bench\":\"abuse\",\"how\":\"{how}\",\"rows\":[\n{}\n]}}\n", rows.join(",\n"))
}
