//! `usbferry`: parses the command line, starts the log, runs a command, gives the exit code.
//!
//! Exit codes: 0 for success, 1 for a failure, 2 for a command line that makes no sense; `doctor`
//! ends with 3 for warnings and 4 for problems.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use usbferry_program::cli::Cli;
use usbferry_program::commands;
use usbferry_program::logging::{Log, Target};
use usbferry_sys::os::process;

fn main() -> ExitCode {
    // The reactor, which serves the URBs, runs on this thread.
    #[cfg(all(target_os = "linux", feature = "vendored"))]
    usbferry_wraps::blocks::keep();
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    if cli.is_daemon()
        && let Err(error) = process::enter_background()
    {
        eprintln!("error: the program can't go into the background: {error}");
        return ExitCode::FAILURE;
    }
    let environment = std::env::var_os("RUST_LOG");
    let filter = cli.log_filter(environment.map(|text| text.to_string_lossy().into_owned()));
    let target = if cli.is_daemon() { Target::Syslog } else { Target::Stderr };
    let log = match Log::start(&filter.filter, cli.log_shape(), target) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("error: the system has no thread for the log: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(ignored) = &filter.ignored {
        log::warn!("{ignored}");
    }
    match commands::run(&cli.command) {
        Ok(code) => code,
        Err(error) => {
            log.end_with(&error.to_string());
            error.exit_code()
        }
    }
}
