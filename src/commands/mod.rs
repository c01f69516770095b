//! What each command does, and how it ends, in words for a user.
//!
//! Contract: for the program's first thread; *blocks* for as long as a command takes.

mod error;
mod list;
mod serve;

use crate::cli::Command;
pub use error::CommandError;

/// Does what was asked.
///
/// # Errors
/// Why not.
pub fn run(command: &Command) -> Result<(), CommandError> {
    match command {
        Command::List(arguments) => list::show(arguments),
        Command::Serve(arguments) => serve::serve(arguments),
    }
}
