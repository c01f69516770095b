//! `usbferry`: reads the command line, chooses the USB stack, runs the server.
//!
//! Exit codes: 0 when it did what was asked, 1 when that failed, 2 when what was asked makes no
//! sense.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use log::{info, warn};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use usbferry::cli::{self, Cli, Command, List, Serve, Source};
use usbferry::config::Settings;
use usbferry::limits::CONNECTIONS_SHARE;
use usbferry::list::{self, Row};
use usbferry::logging::Log;
use usbferry::reactor::{Reactor, StopHandle};
use usbferry::usb::libusb::{self, LibusbBackend};
use usbferry::usb::sim::SimBackend;
use usbferry::usb::sim::bus::SimBus;
use usbferry::usb::{Backend, Candidate};

/// Exit code for what makes no sense, as clap has it.
const USAGE: u8 = 2;

/// Exit code when a second signal ends the program at once.
const INTERRUPTED: i32 = 130;

/// Why it did not do what was asked.
enum Failure {
    /// That failed.
    Failed(String),
    /// It makes no sense.
    WrongUsage(String),
}

fn main() -> ExitCode {
    usbferry_sys::os::heap::return_large_blocks();
    let cli = Cli::parse();
    let filter = match cli.log_filter(std::env::var("RUST_LOG").ok()) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(USAGE);
        }
    };
    let log = match Log::start(&filter) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("error: the system has no thread for the log: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = match cli.command {
        Command::List(list) => show(&list),
        Command::Serve(serve) => serve_chosen(&serve),
    };
    let (message, code) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(message)) => (message, ExitCode::FAILURE),
        Err(Failure::WrongUsage(message)) => (message, ExitCode::from(USAGE)),
    };
    log.end_with(&message);
    code
}

/// `usbferry list`.
fn show(list: &List) -> Result<(), Failure> {
    let (rows, nothing) = match &list.remote {
        Some(host) => (list::ask(host), format!("{host} exports nothing that is free now")),
        None => (local_rows(), "there are no USB devices".to_owned()),
    };
    let rows = rows.map_err(Failure::Failed)?;
    match list::print(&rows, &nothing) {
        // An output that is closed early, as by `| head`, is no failure.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("the list can't be printed: {error}")))
        }
        _ => Ok(()),
    }
}

fn local_rows() -> Result<Vec<Row>, String> {
    let mut candidates = LibusbBackend::new()
        .and_then(|mut backend| backend.scan())
        .map_err(|e| e.to_string())?
        .devices;
    candidates.sort_by_key(|candidate| candidate.info().device.busid);
    let row = |candidate: &libusb::LibusbCandidate| {
        let info = candidate.info();
        let obstacle = if info.is_hub() { None } else { candidate.obstacle() };
        Row::local(info, obstacle)
    };
    Ok(candidates.iter().map(row).collect())
}

/// `usbferry serve`.
fn serve_chosen(arguments: &Serve) -> Result<(), Failure> {
    let (mut settings, source) = arguments.settings().map_err(Failure::WrongUsage)?;
    if !matches!(source, Source::Nothing) {
        info!("usbferry {}", cli::version());
    }
    match usbferry_sys::os::limit::raise_open_files() {
        Ok(limit) => {
            log::debug!("up to {limit} open files");
            settings.connections = settings.connections.min(limit / CONNECTIONS_SHARE);
        }
        Err(error) => warn!("the limit of open files can't be raised: {error}"),
    }
    match source {
        Source::Nothing => Err(nothing_chosen()),
        Source::Simulated(specs) => run(SimBackend::new(SimBus::with(&specs)), settings),
        Source::Real => {
            let backend =
                LibusbBackend::new().map_err(|error| Failure::Failed(error.to_string()))?;
            libusb::repair();
            run(backend, settings)
        }
    }
}

/// Says what to type, and what there is, if that can be said.
fn nothing_chosen() -> Failure {
    let why_not = match local_rows() {
        Ok(rows) => {
            drop(list::print(&rows, "there are no USB devices on this machine"));
            String::new()
        }
        Err(error) => format!(". Real devices can't be listed: {error}"),
    };
    Failure::WrongUsage(format!(
        "nothing to export was chosen: name devices with --device BUSID or --device VID:PID, take \
         all with --all, or try it out with --simulate{why_not}"
    ))
}

fn run<B: Backend>(backend: B, settings: Settings) -> Result<(), Failure> {
    let reactor =
        Reactor::new(backend, settings).map_err(|error| Failure::Failed(error.to_string()))?;
    reactor
        .stop_handle()
        .and_then(stop_on_signals)
        .map_err(|error| Failure::Failed(format!("can't handle signals: {error}")))?;
    for address in reactor.addresses() {
        info!("listening on {address}");
    }
    match reactor.run() {
        Ok(0) => {
            info!("stopped");
            Ok(())
        }
        Ok(kept) => Err(Failure::Failed(format!(
            "{kept} device(s) could not be given back in time; the kernel takes them"
        ))),
        Err(error) => Err(Failure::Failed(format!("the system can't wait for events: {error}"))),
    }
}

/// The first signal stops the server in good order, the second ends it at once.
fn stop_on_signals(stop: StopHandle) -> std::io::Result<()> {
    let stream = stop.into_stream();
    let stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGQUIT, SIGTERM] {
        // In this order: the first signal finds the flag still down, and raises it.
        signal_hook::flag::register_conditional_shutdown(
            signal,
            INTERRUPTED,
            Arc::clone(&stopping),
        )?;
        signal_hook::flag::register(signal, Arc::clone(&stopping))?;
        signal_hook::low_level::pipe::register(signal, stream.try_clone()?)?;
    }
    // A terminal that goes is told by its shell and by the kernel, so two of these mean no more.
    if !usbferry_sys::os::signal::is_ignored(SIGHUP) {
        signal_hook::low_level::pipe::register(SIGHUP, stream)?;
    }
    Ok(())
}
