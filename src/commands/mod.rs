//! The commands, with their output and errors in words for a user.
//!
//! - `serve`: chooses the USB stack and runs the server;
//! - `list`: prints devices;
//! - `error`: why a command failed, and the exit code.
//!
//! Contract: for the program's first thread; *blocks* for as long as a command takes.

mod error;
mod list;
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
    }
}
