//! The commands, with their output and errors in words for a user.
//!
//! - `serve`: chooses the USB stack and runs the server;
//! - `list`: prints devices;
//! - `attach`, `detach`, `port`: devices of other machines on this machine;
//! - `json`: the JSON of `--json`;
//! - `error`: why a command failed, and the exit code.
//!
//! Contract: for the program's first thread; *blocks* for as long as a command takes.

#[cfg(target_os = "linux")]
mod attach;
#[cfg(target_os = "linux")]
mod detach;
mod error;
mod json;
mod list;
#[cfg(target_os = "linux")]
mod port;
mod serve;

use crate::cli::Command;
pub use error::CommandError;

/// Runs a command to its end. *Blocks.*
///
/// # Errors
/// The command failed, or makes no sense.
pub fn run(command: &Command) -> Result<(), CommandError> {
    match command {
        Command::List(arguments) => list::show(arguments),
        Command::Serve(arguments) => serve::serve(arguments),
        #[cfg(target_os = "linux")]
        Command::Attach(arguments) => attach::attach(arguments),
        #[cfg(target_os = "linux")]
        Command::Detach(arguments) => detach::detach(arguments),
        #[cfg(target_os = "linux")]
        Command::Port(arguments) => port::show(arguments),
        #[cfg(not(target_os = "linux"))]
        Command::Attach(_) | Command::Detach(_) | Command::Port(_) => Err(CommandError::LinuxOnly),
    }
}
