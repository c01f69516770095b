//! The commands, with their output and errors in words for a user.
//!
//! - `serve`: chooses the USB stack and runs the server; `hangup`: SIGHUP during service;
//! - `list`: prints devices; `lent`: who has which device of this machine;
//! - `attach`, `detach`, `port`: devices of other machines on this machine;
//! - `network`: servers on the network;
//! - `json`: the JSON of `--json`;
//! - `check_config`: prints what a file of settings means;
//! - `hook_programs`: programs of hooks that can't run;
//! - `settings`: reads the settings of a server;
//! - `stand_in`: a server under the name of `usbipd`;
//! - `status`: prints the state of a server on this machine; `top`: the same, live; `events`: what
//!   happens there; `orders`: sessions that end, and devices held back; `captures`: captures that
//!   begin and end;
//! - `replay`: plays a recording on a device of a server, and prints what differs;
//! - `doctor`: prints what is in the way of exports;
//! - `error`: why a command failed, and the exit code.
//!
//! Contract: for the program's first thread; *blocks* for as long as a command takes.

#[cfg(target_os = "linux")]
mod attach;
mod captures;
mod check_config;
#[cfg(target_os = "linux")]
mod detach;
mod doctor;
mod error;
mod events;
mod hangup;
mod hook_programs;
mod json;
mod lent;
mod list;
mod network;
mod orders;
#[cfg(target_os = "linux")]
mod port;
mod replay;
mod serve;
mod settings;
mod stand_in;
mod status;
mod top;

use std::process::ExitCode;

use crate::cli::Command;
pub use error::CommandError;

/// Runs a command to its end, and returns the program's exit code. *Blocks.*
///
/// # Errors
/// The command failed, or makes no sense.
pub fn run(command: &Command) -> Result<ExitCode, CommandError> {
    match command {
        Command::Doctor(arguments) => return doctor::examine(arguments),
        Command::Replay(arguments) => return replay::play(arguments),
        Command::List(arguments) => list::show(arguments)?,
        Command::Serve(arguments) => serve::serve(arguments)?,
        Command::Status(arguments) => status::show(arguments)?,
        Command::Top(arguments) => top::watch(arguments)?,
        Command::Disconnect(arguments) => orders::disconnect(arguments)?,
        Command::Release(arguments) => orders::release(arguments)?,
        Command::Events(arguments) => events::follow(arguments)?,
        Command::Capture(arguments) => captures::order(arguments)?,
        Command::CheckConfig(arguments) => check_config::check(arguments)?,
        #[cfg(target_os = "linux")]
        Command::Attach(arguments) => attach::attach(arguments)?,
        #[cfg(target_os = "linux")]
        Command::Detach(arguments) => detach::detach(arguments)?,
        #[cfg(target_os = "linux")]
        Command::Port(arguments) => port::show(arguments)?,
        #[cfg(not(target_os = "linux"))]
        Command::Attach(_) | Command::Detach(_) | Command::Port(_) => {
            return Err(CommandError::LinuxOnly);
        }
    }
    Ok(ExitCode::SUCCESS)
}
