//! `usbferry attach`: imports a device, and hands the socket to `vhci_hcd`.
//!
//! - `keep`: `--persist`, attaches again whenever the device was away;
//! - `backoff`: the waits between tries;
//! - `seek`: the server of a device, where only the device is named;
//! - `wait`: the waits for an event or the signal to stop.
//!
//! The right to attach is asked for before the server is: nobody else loses the use of a device for
//! an attach that can't succeed.
//!
//! Contract: *blocks*, for the times of [`client`]; with `--persist` until the end.

mod backoff;
mod keep;
mod seek;
#[cfg(test)]
mod tests;
mod wait;

use std::fmt;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use log::{info, warn};

use super::CommandError;
use super::json::{self, EventJson};
use super::list::printed;
use crate::cli::{Attach, Wanted};
use crate::client::{self, ClientError};
use crate::vhci::{Origin, Vhci, VhciError};
use crate::words::reason;
use keep::{Again, Keeper};
pub(super) use seek::SeekError;
use wait::Stop;

/// `usbferry attach`.
pub(super) fn attach(arguments: &Attach) -> Result<(), CommandError> {
    let (server, name) = arguments.device().map_err(CommandError::Usage)?;
    let vhci = Vhci::below(Path::new("/"));
    let stop = arguments.persists().then(Stop::on_signals).transpose();
    let stop = stop.map_err(CommandError::Signals)?;
    let (server, exporter) = match server {
        Some(server) => (server, None),
        None => {
            vhci.attaching().map_err(CommandError::Vhci)?;
            match seek::first(stop.as_ref(), || seek::server_of(name))? {
                Some((server, exporter)) => (server, Some(exporter)),
                None => return Ok(()),
            }
        }
    };
    let wanted = arguments.wanted(server, name);
    if let Some(stop) = stop {
        let again = || exporter.as_ref().and_then(|exporter| seek::again(exporter, name));
        let again: Option<Again<'_>> = exporter.is_some().then_some(&again);
        return Keeper::new(&vhci, wanted, again, stop).run();
    }
    let attached = attach_once(&vhci, &wanted, || {})?;
    attached.tell(&wanted)
}

/// A device that this process has attached.
struct Attached {
    port: u32,
    /// A descriptor of the socket that the kernel has.
    socket: TcpStream,
    /// The note for other tools; `None` if the note can't be written.
    note: Option<Origin>,
    since: Instant,
}

/// Imports and attaches the device. `before` is called between: from then on something is attached.
fn attach_once(
    vhci: &Vhci,
    wanted: &Wanted,
    before: impl FnOnce(),
) -> Result<Attached, AttachError> {
    let mut attaching = vhci.attaching().map_err(AttachError::Vhci)?;
    let imported = client::import(&wanted.server, wanted.name).map_err(AttachError::Client)?;
    before();
    let socket = imported.stream;
    let port = attaching.attach(socket.as_fd(), imported.devid, imported.speed);
    let port = port.map_err(AttachError::Vhci)?;
    let note = note(vhci, port, wanted);
    Ok(Attached { port, socket, note, since: Instant::now() })
}

/// Notes the origin of a device for `usbip port` and for `usbip detach`.
fn note(vhci: &Vhci, port: u32, wanted: &Wanted) -> Option<Origin> {
    let origin = Origin {
        host: wanted.server.host().to_owned(),
        service: wanted.server.port().to_string(),
        busid: json::name(wanted.name),
    };
    match vhci.note(port, &origin) {
        Ok(()) => Some(origin),
        Err(error) => {
            warn!(
                "the origin of port {port} can't be noted in /var/run/vhci_hcd: {}; \"usbip port\" \
                 will not know the server",
                reason(&error)
            );
            None
        }
    }
}

impl Attached {
    fn tell(&self, wanted: &Wanted) -> Result<(), CommandError> {
        let Wanted { server, name, .. } = wanted;
        info!("{name} of {server}: attached to port {}", self.port);
        tell(wanted, "attached", self.port)
    }
}

/// Prints an event, where JSON is wanted.
fn tell(wanted: &Wanted, event: &'static str, port: u32) -> Result<(), CommandError> {
    if !wanted.json {
        return Ok(());
    }
    let (host, name) = (wanted.server.to_string(), json::name(wanted.name));
    printed(json::print(&EventJson::new(event, port, Some(&host), Some(&name))))
}

/// Why a device is not attached.
#[derive(Debug)]
enum AttachError {
    /// The server's part.
    Client(ClientError),
    /// This machine's part.
    Vhci(VhciError),
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => error.fmt(f),
            Self::Vhci(error) => error.fmt(f),
        }
    }
}

impl From<AttachError> for CommandError {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::Client(error) => Self::Client(error),
            AttachError::Vhci(error) => Self::Vhci(error),
        }
    }
}
