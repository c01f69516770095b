//! The options of the commands that ask a server on this machine: `status`, `top`, `disconnect`,
//! `release`, `events`.
//!
//! Contract: pure.

use std::path::{Path, PathBuf};

use clap::Args;

/// The server to ask.
#[derive(Args, Debug)]
pub struct Asking {
    /// The socket of the server, as given to serve. Without this option the socket in its usual
    /// place
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl Asking {
    /// The socket, if named.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }
}

/// `usbferry disconnect`.
#[derive(Args, Debug)]
pub struct Disconnect {
    /// The device, by any name that a client could ask for; or the client, by its address, with or
    /// without the port
    #[arg(value_name = "NAME|CLIENT")]
    pub target: String,

    /// Give the device to nobody until "usbferry release NAME"; also for a device without a client
    #[arg(long)]
    pub hold: bool,

    /// The server.
    #[command(flatten)]
    pub asking: Asking,

    /// Print JSON, see docs/status.md
    #[arg(long)]
    pub json: bool,
}

/// `usbferry release`.
#[derive(Args, Debug)]
pub struct Release {
    /// The device, by the name by which it is held back, or by any other name of the device
    #[arg(value_name = "NAME")]
    pub device: String,

    /// The server.
    #[command(flatten)]
    pub asking: Asking,

    /// Print JSON, see docs/status.md
    #[arg(long)]
    pub json: bool,
}

/// `usbferry events`.
#[derive(Args, Debug)]
pub struct Events {
    /// The server.
    #[command(flatten)]
    pub asking: Asking,

    /// Print a line of JSON for each event, see docs/status.md
    #[arg(long)]
    pub json: bool,
}

/// `usbferry status`.
#[derive(Args, Debug)]
pub struct Status {
    /// The server.
    #[command(flatten)]
    pub asking: Asking,

    /// Print JSON, see docs/status.md
    #[arg(long)]
    pub json: bool,
}

/// `usbferry top`.
#[derive(Args, Debug)]
pub struct Top {
    /// The server.
    #[command(flatten)]
    pub asking: Asking,
}
