//! The options of `usbferry replay`.
//!
//! Contract: pure.

use std::path::PathBuf;

use clap::Args;

use super::client::{busid, server};
use super::error::UsageError;
use crate::client::Server;
use crate::client::replay::Terms;
use crate::wire::types::BusId;

/// `usbferry replay`.
#[derive(Args, Debug)]
pub struct Replay {
    /// The recording, by serve --capture or by usbmon: pcapng or pcap
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// The name of the device on the server, as for attach
    #[arg(value_name = "NAME")]
    name: String,

    /// The USB/IP server, usbferry or any other
    #[arg(short, long, value_name = "HOST[:PORT]")]
    remote: String,

    /// Compare no data from the device, only statuses and lengths: for a device that says something
    /// else each time
    #[arg(long)]
    ignore_data: bool,

    /// Play on a device with another vendor or product than the recorded, too. The recorded writes
    /// go to this device
    #[arg(long)]
    pub other_device: bool,

    /// Leave out the writes whose data the recording does not have
    #[arg(long)]
    skip_cut: bool,

    /// Print JSON, see docs/capture.md
    #[arg(long)]
    pub json: bool,
}

impl Replay {
    /// The server, and the device's name there.
    ///
    /// # Errors
    /// Either makes no sense.
    pub fn place(&self) -> Result<(Server, BusId), UsageError> {
        Ok((server(&self.remote)?, busid(&self.name)?))
    }

    /// How the recording is compared.
    #[must_use]
    pub const fn terms(&self) -> Terms {
        Terms { ignore_data: self.ignore_data, skip_cut: self.skip_cut }
    }
}
