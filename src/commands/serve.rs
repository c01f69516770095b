//! `usbferry serve`: chooses the USB stack and runs the server.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use log::{info, warn};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::Failure;
use super::list::{self, local_rows};
use crate::cli::{self, Serve, Source};
use crate::config::Settings;
use crate::limits::CONNECTIONS_SHARE;
use crate::reactor::{Reactor, StopHandle};
use crate::usb::Backend;
use crate::usb::libusb::{self, LibusbBackend};
use crate::usb::sim::SimBackend;
use crate::usb::sim::bus::SimBus;

/// Exit code when a second signal ends the program at once.
const INTERRUPTED: i32 = 130;

/// `usbferry serve`.
pub(super) fn serve_chosen(arguments: &Serve) -> Result<(), Failure> {
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
