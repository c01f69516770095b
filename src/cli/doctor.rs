//! `usbferry doctor`: the options, among them those of the server to be examined for.
//!
//! Contract: plain data.

use clap::Args;

use super::Serve;

/// `usbferry doctor`.
#[derive(Args, Debug)]
pub struct Doctor {
    /// Examine this machine as a client of this server, and the way there, instead of examining
    /// this machine as a server
    #[arg(long, value_name = "HOST[:PORT]")]
    pub peer: Option<String>,

    /// Print the findings as JSON, in the form that docs/json.md describes
    #[arg(long)]
    pub json: bool,

    /// The server to examine for: doctor takes the options of serve.
    #[command(flatten)]
    pub serve: Serve,
}
