//! `usbferry`: reads the command line, chooses the USB stack, runs the server.
//!
//! Exit codes: 0 when it did what was asked, 1 when that failed, 2 when what was asked makes no
//! sense.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use usbferry::cli::Cli;
use usbferry::commands::{self, Failure};
use usbferry::logging::Log;

/// Exit code for what makes no sense, as clap has it.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    usbferry_sys::os::heap::return_large_blocks();
    let cli = Cli::parse();
    let filter = match cli.log_filter(std::env::var("RUST_LOG").ok()) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(USAGE);
        }
    };
    let log = match Log::start(&filter) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("error: the system has no thread for the log: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = commands::run(&cli.command);
    let (message, code) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(message)) => (message, ExitCode::FAILURE),
        Err(Failure::WrongUsage(message)) => (message, ExitCode::from(USAGE)),
    };
    log.end_with(&message);
    code
}
