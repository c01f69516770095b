//! `usbferry serve`: chooses the USB stack and runs the server.
//!
//! Contract: *blocks* until the server ends.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use log::{info, warn};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::CommandError;
use super::list::{self, local_rows};
use crate::cli::{self, Chosen, Serve};
use crate::config::Settings;
use crate::limits::CONNECTIONS_SHARE;
use crate::reactor::{Reactor, StopHandle};
use crate::usb::libusb::{self, LibusbBackend};
use crate::usb::sim::SimBackend;
use crate::usb::sim::bus::SimBus;
use crate::usb::{Backend, ScanError};
use crate::words::reason;

/// Exit code when a second signal ends the program at once.
const INTERRUPTED: i32 = 130;

/// `usbferry serve`.
pub(super) fn serve(arguments: &Serve) -> Result<(), CommandError> {
    let (mut settings, chosen) = arguments.settings().map_err(CommandError::Usage)?;
    if !matches!(chosen, Chosen::Nothing) {
        info!("usbferry {}", cli::version());
    }
    match usbferry_sys::os::limit::raise_open_files() {
        Ok(limit) => {
            log::debug!("up to {limit} open files");
            settings.connections = settings.connections.min(limit / CONNECTIONS_SHARE);
        }
        Err(error) => warn!("the limit of open files can't be raised: {}", reason(&error)),
    }
    match chosen {
        Chosen::Nothing => Err(CommandError::NothingChosen(show_devices())),
        Chosen::Simulated(specs) => run(SimBackend::new(SimBus::with(&specs)), settings),
        Chosen::Real => {
            let backend = LibusbBackend::new().map_err(CommandError::Scan)?;
            libusb::repair();
            run(backend, settings)
        }
    }
}

/// Shows a user who has chosen nothing the devices of this machine, or says why that is impossible.
fn show_devices() -> Option<ScanError> {
    match local_rows() {
        Ok(rows) => {
            drop(list::print(&rows, "there are no USB devices on this machine"));
            None
        }
        Err(error) => Some(error),
    }
}

fn run<B: Backend>(backend: B, settings: Settings) -> Result<(), CommandError> {
    let reactor = Reactor::new(backend, settings).map_err(CommandError::Start)?;
    reactor.stop_handle().and_then(stop_on_signals).map_err(CommandError::Signals)?;
    for address in reactor.addresses() {
        info!("listening on {address}");
    }
    match reactor.run() {
        Ok(0) => {
            info!("stopped");
            Ok(())
        }
        Ok(kept) => Err(CommandError::Kept(kept)),
        Err(error) => Err(CommandError::Wait(error)),
    }
}

/// The first signal stops the server in good order, the second ends it at once.
fn stop_on_signals(stop: StopHandle) -> std::io::Result<()> {
    let stream = stop.into_stream();
    let stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGQUIT, SIGTERM] {
        // In this order: the first signal finds the flag still down, and raises the flag.
        signal_hook::flag::register_conditional_shutdown(
            signal,
            INTERRUPTED,
            Arc::clone(&stopping),
        )?;
        signal_hook::flag::register(signal, Arc::clone(&stopping))?;
        signal_hook::low_level::pipe::register(signal, stream.try_clone()?)?;
    }
    // The end of a terminal comes from the shell and from the kernel: two hangups mean one end.
    if !usbferry_sys::os::signal::is_ignored(SIGHUP) {
        signal_hook::low_level::pipe::register(SIGHUP, stream)?;
    }
    Ok(())
}
