//! Measures rows: subject and baseline in turn, in pairs, so that any other load on the machine
//! affects both.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use usbferry_load::client::Client;
use usbferry_load::flow::Flow;
use usbferry_load::pdu::Submit;
use usbferry_load::process::{self, Usage};
use usbferry_load::run::{self, Moment, Outcome};
use usbferry_load::unlinks;
use usbferry_load::workload::{Check, Traffic, Workload};

use super::capturing::{Capturing, WRITER};
use super::rows::{On, Row, Run};
use super::scraping::Scraped;
use super::server::Server;
use super::settings::{Cores, Settings, pin, pin_threads};
use super::syscalls::Counter;

/// Warm-up for each session beside the first: a device gets mapped memory, once it has moved as
/// many bytes, and the time for the mapping is no part of a rate.
const WARM_UP_EACH: Duration = Duration::from_millis(5);

/// Bytes and depth of the requests of a client that then does not read.
const UNREAD: (usize, usize) = (128 << 10, 64);

/// The device of the client that does not read.
const UNREAD_BUSID: &str = "1-65";

/// A single measurement.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) outcome: Outcome,
    /// The resources used by the server.
    pub(crate) server: Option<Usage>,
    /// The server's peak of memory.
    pub(crate) memory: Option<u64>,
}

/// All measurements of a row.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) row: Row,
    /// Subject and baseline.
    pub(crate) pairs: Vec<(Sample, Sample)>,
    pub(crate) calls: Calls,
    /// The bare server, measured in turn with the pairs.
    pub(crate) bare: Option<(Vec<Sample>, Calls)>,
}

/// A server's system calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calls {
    /// System calls a URB, without usbfs's ioctls.
    pub(crate) syscalls: Option<f64>,
    /// usbfs's ioctls a URB, on a usbfs.
    pub(crate) ioctls: Option<f64>,
}

/// The simulated usbfs's counts: answered calls, and the simulation's own system calls in the
/// server.
pub(crate) trait Usbfs {
    /// Calls since the server was started, and system calls.
    fn counted(&self) -> [u64; 2];
}

/// The servers of a run, with the means of observation.
pub(crate) struct Bench<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) usbferry: Server,
    pub(crate) ceiling: Server,
    /// The program of `--beside`.
    pub(crate) beside: Option<Server>,
    /// The servers with captures, for the rows with captures.
    pub(crate) capturing: Option<Capturing>,
    /// The bare server, and the usbfs below.
    pub(crate) bare: Option<(Server, &'a dyn Usbfs)>,
    /// The server whose metrics are scraped, for the rows with scrapes.
    pub(crate) scraped: Option<Scraped>,
    /// The form of usbferry's IN data.
    pub(crate) check: Check,
    pub(crate) usbfs: Option<&'a dyn Usbfs>,
    pub(crate) scratch: PathBuf,
}

impl Bench<'_> {
    fn server(&self, on: On) -> &Server {
        match on {
            On::Usbferry => &self.usbferry,
            On::Ceiling => &self.ceiling,
            On::Bare => &self.bare.as_ref().expect("rows of the bare server come with one").0,
            On::Capturing(medium) => {
                let servers = self.capturing.as_ref();
                servers.expect("rows with captures come with servers").server(medium)
            }
            On::Scraped => &self.scraped().server,
            On::Beside => self.beside.as_ref().expect("rows beside a build come with one"),
        }
    }

    fn scraped(&self) -> &Scraped {
        self.scraped.as_ref().expect("rows with scrapes come with a server")
    }

    /// Measures a row.
    pub(crate) fn row(&self, row: &Row) -> Result<Measured, String> {
        let explain = |run: &Run, error| format!("{}: {:?}: {error}", row.name, run.on);
        let bare = row.bare().filter(|_| self.bare.is_some());
        let is_baseline = bare == Some(row.baseline);
        let (mut pairs, mut bare_samples) = (Vec::<(Sample, Sample)>::new(), Vec::new());
        for number in 0..self.settings.pairs.max(1) {
            let [first, second] = if number % 2 == 0 {
                [&row.subject, &row.baseline]
            } else {
                [&row.baseline, &row.subject]
            };
            self.place(row, bare);
            let sample = |run| self.sample(run, &mut |_| {}).map_err(|error| explain(run, error));
            let (one, other) = (sample(first)?, sample(second)?);
            pairs.push(if number % 2 == 0 { (one, other) } else { (other, one) });
            if let Some(run) = &bare {
                let (_, baseline) = pairs.last().expect("a pair was measured");
                bare_samples.push(if is_baseline { baseline.clone() } else { sample(run)? });
            }
        }
        let count = |run| self.count(run).map_err(|error| explain(run, error));
        let calls = count(&row.subject)?;
        let bare_calls = bare.as_ref().map(count).transpose()?;
        let bare = bare_calls.map(|calls| (bare_samples, calls));
        Ok(Measured { row: row.clone(), pairs, calls, bare })
    }

    /// Binds client and servers to their processors.
    fn place(&self, row: &Row, bare: Option<Run>) {
        let cores = if row.apart { Cores::Two } else { self.settings.cores };
        let (client, server) = match cores {
            Cores::Any => return,
            Cores::One => (0, 0),
            Cores::Two => (1, 0),
        };
        let mut placed = pin(std::process::id(), client);
        for run in [row.subject, row.baseline].into_iter().chain(bare) {
            let pid = self.server(run.on).pid();
            placed &= pin(pid, server);
            if let On::Capturing(_) = run.on {
                placed &= pin_threads(pid, WRITER, self.settings.writer);
            }
        }
        if !placed {
            eprintln!("{}: processes can't be bound to processors here", row.name);
        }
    }

    /// Runs a load once; `look` is called at both ends of the measurement.
    fn sample(&self, load: &Run, look: &mut dyn FnMut(Moment)) -> io::Result<Sample> {
        let server = self.server(load.on);
        let stalled = if load.stalled { Some(unread(&server.address)?) } else { None };
        let busid = |session: usize| format!("1-{}", load.first + session);
        let mut flows = Vec::new();
        let mut usages = [None; 2];
        let look = |moment| {
            look(moment);
            usages[usize::from(moment == Moment::End)] = process::usage(server.pid());
        };
        let outcome = if let Traffic::Unlinked(_) = load.workload.traffic {
            let client = self.attach(load, &busid(0))?;
            process::reset_peak(server.pid());
            unlinks::run(client, load.workload, self.settings.plan, look)?
        } else {
            for session in 0..load.sessions {
                flows.push(self.put_under_load(load, &busid(session))?);
            }
            process::reset_peak(server.pid());
            let mut plan = self.settings.plan;
            plan.warm_up += WARM_UP_EACH * u32::try_from(load.sessions - 1).unwrap_or(u32::MAX);
            let run = || run::run(&mut flows, load.workload.depth, plan, look);
            match load.on {
                On::Scraped => self.scraped().beside(plan.warm_up + plan.time / 2, run)??,
                _ => run()?,
            }
        };
        let memory = process::peak_memory(server.pid());
        let stated = server.memory_stated(load.sessions + usize::from(load.stalled)) as u64;
        let has_limits = !matches!(load.on, On::Beside | On::Bare);
        let is_judged = has_limits && self.settings.serve.is_empty();
        if is_judged && memory.is_some_and(|bytes| bytes > stated) {
            return Err(io::Error::other(format!(
                "the server took {memory:?} bytes, and limits.rs states {stated}"
            )));
        }
        drop(stalled);
        for flow in flows {
            self.finish(load, flow)?;
        }
        let server = usages[0].zip(usages[1]).map(|(before, after)| after.since(before));
        Ok(Sample { outcome, server, memory })
    }

    fn attach(&self, load: &Run, busid: &str) -> io::Result<Client> {
        let server = self.server(load.on);
        let mut client = Client::attach_when_free(&*server.address, busid)
            .map_err(|error| io::Error::other(format!("{busid}: {error}")))?;
        if load.workload.packets().is_some() {
            client.set_interface(1, 1)?;
        }
        client.clear_counters()?;
        Ok(client)
    }

    fn put_under_load(&self, load: &Run, busid: &str) -> io::Result<Flow> {
        let client = self.attach(load, busid)?;
        let check = if load.on == On::Ceiling { Check::Length } else { self.check };
        Flow::new(client, load.workload, check)
    }

    /// Checks that all data of a session has reached the device, and ends the session.
    fn finish(&self, load: &Run, flow: Flow) -> io::Result<()> {
        let Workload { endpoint, .. } = load.workload;
        let (urbs, bytes) = (flow.answered(), flow.answered() * load.workload.len() as u64);
        if load.on == On::Ceiling || load.workload.is_in() {
            return Ok(());
        }
        let counted = flow.into_client().counters(endpoint)?;
        if counted == [bytes, urbs, 0] {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "the device got {counted:?} bytes, URBs and wrong bytes instead of {bytes}, {urbs}, 0"
        )))
    }

    /// Counts system calls: once more, because counting is not for nothing.
    fn count(&self, load: &Run) -> io::Result<Calls> {
        let usbfs = match &self.bare {
            Some((_, usbfs)) if load.on == On::Bare => Some(*usbfs),
            _ => self.usbfs,
        };
        let mut counter = Counter::start(self.server(load.on).pid(), &self.scratch);
        let mut counts = [[0; 2]; 2];
        let sample = self.sample(load, &mut |moment| {
            counts[usize::from(moment == Moment::End)] =
                usbfs.map(Usbfs::counted).unwrap_or_default();
            match (&mut counter, moment) {
                (Some(counter), Moment::Start) => drop(counter.enable()),
                (Some(counter), Moment::End) => drop(counter.disable()),
                (None, _) => {}
            }
        })?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let each = |calls: u64| calls as f64 / sample.outcome.urbs.max(1) as f64;
        let [ioctls, own] = [0, 1].map(|what| counts[1][what] - counts[0][what]);
        let syscalls = counter.and_then(Counter::finish);
        let syscalls = syscalls.map(|calls| each(calls.saturating_sub(own)));
        Ok(Calls { syscalls, ioctls: usbfs.map(|_| each(ioctls)) })
    }
}

/// A client with many requests that reads nothing.
fn unread(server: &str) -> io::Result<Client> {
    let (len, depth) = UNREAD;
    let mut client = Client::attach_when_free(server, UNREAD_BUSID)
        .map_err(|error| io::Error::other(error.to_string()))?;
    let submit =
        Submit { seqnum: 0, devid: 0, is_in: true, endpoint: 1, len, packets: 0, setup: [0; 8] };
    for _ in 0..depth {
        client.submit(submit, &[])?;
    }
    // Time for the socket to fill up.
    std::thread::sleep(Duration::from_millis(50));
    Ok(client)
}
