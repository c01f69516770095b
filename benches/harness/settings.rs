//! The settings of a bench: its command line, and `USBFERRY_BENCH=smoke`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use usbferry_load::run::Plan;

/// On which processors client and server run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cores {
    /// Both on one processor: the sum of both sides' work counts, and the system's placement of
    /// processes does not matter.
    One,
    /// A processor for each side.
    Two,
    /// By the system's choice.
    Any,
}

/// The parts of `libusb`; other benches have one part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// The rows.
    Rows,
    /// Many devices on one server.
    Scale,
    /// Memory of attached devices.
    Memory,
    /// Costs that are counted and not measured.
    Counted,
    /// Lines with delay and loss.
    Lines,
}

/// How to run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// A few rows, once and shortly: whether everything works.
    pub(crate) smoke: bool,
    /// Selects rows by a part of the name.
    pub(crate) filter: String,
    pub(crate) pairs: usize,
    pub(crate) plan: Plan,
    pub(crate) cores: Cores,
    /// The processor of the threads that write captures.
    pub(crate) writer: usize,
    /// More arguments for `usbferry serve`.
    pub(crate) serve: Vec<String>,
    /// More arguments for the servers with captures.
    pub(crate) capturing: Vec<String>,
    /// Another build of usbferry, which takes the place of every baseline.
    pub(crate) beside: Option<PathBuf>,
    /// Which part of the bench.
    pub(crate) part: Part,
}

const HELP: &str = "\
options, behind `cargo bench --bench NAME --`:
  FILTER                 only rows whose name, as the table has it, contains this
  --smoke                a few rows, shortly; also USBFERRY_BENCH=smoke
  --pairs N              measurements of each row and of what it is compared with (5)
  --milliseconds N       length of one (250)
  --cores one|two|any    client and server on one processor, on two, or anywhere (one)
  --writer N             processor of the threads that write captures (1); with 0 they take their
                         time from client and server
  --serve ARGUMENT       one more argument for usbferry serve; may be repeated
  --capturing ARGUMENT   the same for the servers with captures only
  --beside PROGRAM       compare each row with the same row of another build of usbferry
  --scale                libusb only: many devices on one server
  --memory               libusb only: memory of attached devices, idle and after a load
  --counted              libusb only: counted costs, by valgrind (minutes) and perf
  --lines                libusb only: lines with delay and loss, as root
  --help                 this";

impl Settings {
    /// Reads the command line. Ends the process for a wrong command line, or for a request for
    /// help.
    pub(crate) fn read() -> Self {
        let mut settings = Self {
            smoke: std::env::var("USBFERRY_BENCH").is_ok_and(|value| value == "smoke"),
            filter: String::new(),
            pairs: 5,
            plan: Plan { warm_up: Duration::from_millis(60), time: Duration::from_millis(250) },
            cores: Cores::One,
            writer: 1,
            serve: Vec::new(),
            capturing: Vec::new(),
            beside: None,
            part: Part::Rows,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            if argument == "--help" {
                println!("{HELP}");
                std::process::exit(0);
            }
            if settings.set(&argument, &mut arguments).is_none() {
                eprintln!("{argument}: not understood\n{HELP}");
                std::process::exit(2);
            }
        }
        if settings.smoke {
            settings.pairs = 1;
            settings.plan =
                Plan { warm_up: Duration::from_millis(10), time: Duration::from_millis(40) };
        }
        settings
    }

    fn set(&mut self, argument: &str, rest: &mut impl Iterator<Item = String>) -> Option<()> {
        match argument {
            // Cargo's own.
            "--bench" => {}
            "--smoke" => self.smoke = true,
            "--pairs" => self.pairs = rest.next()?.parse().ok()?,
            "--milliseconds" => {
                self.plan.time = Duration::from_millis(rest.next()?.parse().ok()?);
            }
            "--writer" => self.writer = rest.next()?.parse().ok()?,
            "--cores" => self.cores = parse_cores(&rest.next()?)?,
            "--serve" => self.serve.push(rest.next()?),
            "--capturing" => self.capturing.push(rest.next()?),
            "--scale" => self.part = Part::Scale,
            "--memory" => self.part = Part::Memory,
            "--lines" => self.part = Part::Lines,
            "--counted" => self.part = Part::Counted,
            "--beside" => self.beside = Some(rest.next()?.into()),
            filter if !filter.starts_with('-') => filter.clone_into(&mut self.filter),
            _ => return None,
        }
        Some(())
    }

    /// The name of a bench's results. Results beside another build have a name of their own.
    pub(crate) fn results_name(&self, bench: &str) -> String {
        if self.beside.is_some() { format!("{bench}-beside") } else { bench.to_owned() }
    }

    /// The other build, as a path for messages.
    pub(crate) fn beside(&self) -> Option<&Path> {
        self.beside.as_deref()
    }

    /// Whether a row is to be measured.
    pub(crate) fn selects(&self, name: &str, smoke: bool) -> bool {
        name.contains(&self.filter) && (smoke || !self.smoke)
    }

    /// Refuses to go on without rows: an empty table would look like a passed bench, and would
    /// replace the results of an earlier run.
    pub(crate) fn expect_some<T>(&self, rows: &[T]) -> Result<(), String> {
        if !rows.is_empty() {
            return Ok(());
        }
        let run = if self.smoke { " of a short run" } else { "" };
        Err(format!("no row{run} has \"{}\" in its name", self.filter))
    }
}

fn parse_cores(text: &str) -> Option<Cores> {
    match text {
        "one" => Some(Cores::One),
        "two" => Some(Cores::Two),
        "any" => Some(Cores::Any),
        _ => None,
    }
}

/// Binds a process to a processor. False if binding is not possible here; the bench goes on.
pub(crate) fn pin(pid: u32, processor: usize) -> bool {
    taskset(&["--all-tasks"], &pid.to_string(), processor)
}

/// Binds the threads of a process with a name to a processor. False as with [`pin`].
pub(crate) fn pin_threads(pid: u32, name: &str, processor: usize) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let tasks = tasks.flatten().filter(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    });
    let mut tasks = tasks.peekable();
    tasks.peek().is_some()
        && tasks.all(|task| taskset(&[], &task.file_name().to_string_lossy(), processor))
}

fn taskset(options: &[&str], id: &str, processor: usize) -> bool {
    let processor = processor.to_string();
    let taskset = Command::new("taskset")
        .args(options)
        .args(["--cpu-list", "--pid", &processor, id])
        .output();
    taskset.is_ok_and(|output| output.status.success())
}

/// Where results go.
pub(crate) fn results() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    // target/PROFILE/deps/NAME
    let target = program.ancestors().nth(3).ok_or("the bench lies in no target directory")?;
    let directory = target.join("bench");
    fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    Ok(directory)
}
