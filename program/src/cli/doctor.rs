//! `usbferry doctor`: the options, among them those of the server to be examined for.
//!
//! Contract: plain data.

use clap::Args;

use super::error::UsageError;
use super::{Serve, client};
use crate::client::Server;

/// `usbferry doctor`.
#[derive(Args, Debug)]
pub struct Doctor {
    /// Examine this machine as a client of this server, and the way there, instead of examining
    /// this machine as a server
    #[arg(long, value_name = "HOST[:PORT]")]
    peer: Option<String>,

    /// Print JSON, see docs/json.md
    #[arg(long)]
    pub json: bool,

    /// The server to examine for: doctor takes the options of serve.
    #[command(flatten)]
    pub serve: Serve,
}

impl Doctor {
    /// The server to be a client of, if any.
    ///
    /// # Errors
    /// The text names no server.
    pub fn peer(&self) -> Result<Option<Server>, UsageError> {
        self.peer.as_deref().map(client::server).transpose()
    }
}
