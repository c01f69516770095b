//! What each command does, and how it ends, in words for a user.
//!
//! Contract: for the program's first thread; *blocks* for as long as a command takes.

mod list;
mod serve;

use crate::cli::Command;

/// Why it did not do what was asked.
pub enum Failure {
    /// That failed.
    Failed(String),
    /// It makes no sense.
    WrongUsage(String),
}

/// Does what was asked.
///
/// # Errors
/// Why not.
pub fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::List(arguments) => list::show(arguments),
        Command::Serve(arguments) => serve::serve_chosen(arguments),
    }
}
