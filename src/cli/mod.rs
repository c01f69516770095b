//! The command line: what is typed, checked and turned into [`Settings`](crate::config::Settings).
//!
//! Contract: no I/O. Whatever is wrong is a sentence that says what to type instead.

mod error;
mod parse;
mod serve;

use std::sync::LazyLock;

use clap::{Args, Parser, Subcommand};

pub use error::UsageError;
use parse::{names_another, parse_log, parts_of};
pub use serve::{Serve, Source};

/// A fast USB/IP server: exports USB devices to other computers, with no kernel module.
#[derive(Parser, Debug)]
#[command(version = version(), about, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// What to log on stderr: error, warn, info, debug or trace, or a filter such as
    /// "info,usbferry::session=trace". If this is not given, RUST_LOG says, or else it is info
    #[arg(long, global = true, value_name = "LEVEL", value_parser = parse_log)]
    log: Option<String>,
}

impl Cli {
    /// What to log: as was typed, or else as `RUST_LOG` has it. That is for all programs, and may
    /// name others only.
    ///
    /// # Errors
    /// `RUST_LOG` holds neither a level nor a filter.
    pub fn log_filter(&self, environment: Option<String>) -> Result<String, UsageError> {
        let environment = environment.filter(|text| !text.is_empty());
        match (&self.log, environment) {
            (Some(typed), _) => Ok(typed.clone()),
            (None, None) => Ok("info".to_owned()),
            (None, Some(text)) if parts_of(&text).all(names_another) => Ok(text),
            (None, Some(text)) => parse_log(&text).map_err(|_| UsageError::Environment(text)),
        }
    }
}

/// The program's version and that of libusb, which may be the system's and then any.
#[must_use]
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        format!(
            "{} (libusb {})",
            env!("CARGO_PKG_VERSION"),
            usbferry_sys::libusb::version::libusb()
        )
    });
    &VERSION
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Export devices
    Serve(Box<Serve>),
    /// Show the devices of this machine, or those another one exports
    List(List),
}

/// `usbferry list`.
#[derive(Args, Debug)]
pub struct List {
    /// Ask the USB/IP server there (any, not only usbferry) what it exports
    #[arg(long, value_name = "HOST[:PORT]")]
    pub remote: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn the_log_is_what_was_typed_or_what_the_environment_says() {
        let filter = |arguments: &[&str], environment: Option<&str>| {
            let line = ["usbferry", "list"].iter().chain(arguments);
            let cli = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
            let filter = cli.log_filter(environment.map(str::to_owned));
            filter.map_err(|error| error.to_string())
        };
        assert_eq!(filter(&[], None).unwrap(), "info");
        assert_eq!(filter(&[], Some("othercrate=debug")).unwrap(), "othercrate=debug");
        assert_eq!(filter(&[], Some("")).unwrap(), "info");
        for both in ["a=info,b::c=off", "a=info/text", "a=info,warn"] {
            assert_eq!(filter(&[], Some(both)).unwrap(), both);
        }
        for wrong in ["loud", "loud/info", "usbferry=loud", "info=4", "a=info,loud", "a=loud"] {
            let refused = filter(&[], Some(wrong)).unwrap_err();
            assert!(
                refused.starts_with(&format!("RUST_LOG is “{wrong}”: give error")),
                "{refused}"
            );
            // What is typed is what counts.
            assert_eq!(filter(&["--log", "warn"], Some(wrong)).unwrap(), "warn");
        }
        for typed in ["trace", "OFF", "warn,usbferry::session=trace", "usbferry", "mio,debug/x"] {
            assert_eq!(filter(&["--log", typed], Some("warn")).unwrap(), typed);
        }
        for wrong in ["", "verbose", "verbose/info", "othercrate=debug", "usbferry=loud", "info=4"]
        {
            assert!(filter(&["--log", wrong], None).unwrap_err().contains("give error"), "{wrong}");
        }
    }
}
