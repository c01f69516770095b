//! The command line: typed text, checked and turned into [`Settings`](crate::config::Settings).
//!
//! - `serve`: the options of `usbferry serve`; `capture`: those of captures; `simulation`:
//!   `--simulate`;
//! - `client`: the options of `list`, `attach`, `detach` and `port`;
//! - `replay`: the options of `usbferry replay`;
//! - `operator`: the options of the commands that ask a server on this machine;
//! - `doctor`: the options of `usbferry doctor`;
//! - `usbipd`: the command line of `usbipd`, for a program started under that name;
//! - `parse`: filters and forms of the log, and the names of take-over policies;
//! - `error`: values that do not fit together.
//!
//! No other part of the crate knows clap.
//!
//! Contract: no I/O. Each error says what to type instead.

mod capture;
mod client;
mod doctor;
mod error;
mod operator;
mod parse;
mod replay;
mod serve;
mod simulation;
mod usbipd;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, Parser, Subcommand};
use usbferry_sys::libusb::version as libusb;

pub use capture::{Capture, CaptureCommand, CaptureStart, CaptureStop, STDOUT};
pub use client::{Attach, Detach, Discover, List, Port, Wanted, Which};
pub use doctor::Doctor;
use error::NotAFilter;
pub use error::{IgnoredFilter, UsageError, Written};
pub use operator::{Disconnect, Events, Release, Status, Top};
use parse::{names_another, parse_group, parse_log, parts_of};
pub use replay::Replay;
pub use serve::{Chosen, Serve};
pub use usbipd::StandIn;

use crate::client::Server;
use crate::config::rules::spec::DeviceSpec;
use crate::logging::Shape;
use crate::words::{is_visible, visible};

/// A fast USB/IP server: exports USB devices to other computers, with no kernel module.
#[derive(Parser, Debug)]
#[command(
    name = "usbferry",
    about = "A fast USB/IP server: exports USB devices through libusb, on Linux and (untested) \
             macOS, with no kernel module",
    version = version(),
    propagate_version = true,
    max_term_width = 100
)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,

    /// Log level on stderr: error, warn, info, debug or trace, or a filter such as
    /// "info,usbferry::session=trace". Without this option RUST_LOG decides, or else the level is
    /// info
    #[arg(long, global = true, value_name = "LEVEL", value_parser = parse_log)]
    log: Option<String>,

    /// Form of the log: text, or json with an object on each line (docs/operations.md)
    #[arg(
        long,
        global = true,
        value_name = "FORM",
        default_value = "text",
        hide_possible_values = true
    )]
    log_format: Shape,
}

impl Cli {
    /// Reads a command line.
    ///
    /// # Errors
    /// The command line makes no sense, or asks for the help or the version.
    pub fn read(line: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let line: Vec<OsString> = line.into_iter().collect();
        if line.first().is_some_and(|program| usbipd::is_meant(program)) {
            return usbipd::read(line).map_err(visible_only);
        }
        let read = Self::try_parse_from(&line);
        read.map_err(|error| with_tip(error, &line)).map_err(visible_only)
    }

    /// Whether the program is to run in the background.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        let Command::Serve(serve) = &self.command else { return false };
        serve.stand_in().is_some_and(|stand_in| stand_in.is_daemon)
    }

    /// The form of the log.
    #[must_use]
    pub const fn log_shape(&self) -> Shape {
        self.log_format
    }

    /// The filter of the log: as typed, or else from `RUST_LOG`, which all programs share and which
    /// may name other programs only. A `RUST_LOG` without a filter counts as unset.
    #[must_use]
    pub fn log_filter(&self, environment: Option<String>) -> LogFilter {
        let environment = environment.filter(|text| !text.trim().is_empty());
        let default = || "info".to_owned();
        let (filter, ignored) = match (&self.log, environment) {
            (Some(typed), _) => (typed.clone(), None),
            (None, None) => (default(), None),
            (None, Some(text)) if parts_of(&text).all(names_another) => (text, None),
            (None, Some(text)) => match parse_log(&text) {
                Ok(filter) => (filter, None),
                Err(NotAFilter) => (default(), Some(IgnoredFilter(text))),
            },
        };
        LogFilter { filter, ignored }
    }
}

/// What the log shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogFilter {
    /// A filter of `env_filter`'s.
    pub filter: String,
    /// The text of `RUST_LOG`, if that is no filter.
    pub ignored: Option<IgnoredFilter>,
}

/// An error of a word that has no place in the line, with how to type the word.
fn with_tip(mut error: clap::Error, line: &[OsString]) -> clap::Error {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) else { return error };
    let simulates = line.iter().any(|argument| argument == "--simulate");
    let is_server = !word.starts_with('-') && Server::parse(word).is_ok();
    let tip = match line.get(1).and_then(|command| command.to_str()) {
        // The option takes its list behind an equals sign only.
        _ if simulates => simulation::tip(word),
        // attach takes the name of a server without an option.
        Some("list") if is_server => Some(format!("type list --remote {word}")),
        Some("doctor") if is_server => Some(format!("type doctor --peer {word}")),
        Some("serve") if word == "all" => Some("type --all".to_owned()),
        Some("serve") if word.parse::<DeviceSpec>().is_ok() => {
            Some(format!("type --device {word}"))
        }
        _ => None,
    };
    if let Some(tip) = tip {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// An error that repeats typed text, for a terminal: nothing that is not seen. The tips of such an
/// error repeat the text, too, and go.
fn visible_only(mut error: clap::Error) -> clap::Error {
    let repeated = error.context().filter_map(|(kind, value)| Some((kind, escaped(value)?)));
    let repeated: Vec<(ContextKind, ContextValue)> = repeated.collect();
    if !repeated.is_empty() {
        error.remove(ContextKind::Suggested);
    }
    for (kind, value) in repeated {
        error.insert(kind, value);
    }
    error
}

/// Typed text in a form for a terminal, if the text needs another form.
fn escaped(value: &ContextValue) -> Option<ContextValue> {
    let is_seen = |text: &String| text.chars().all(is_visible);
    match value {
        ContextValue::String(text) if !is_seen(text) => Some(ContextValue::String(visible(text))),
        ContextValue::Strings(texts) if !texts.iter().all(is_seen) => {
            Some(ContextValue::Strings(texts.iter().map(|text| visible(text)).collect()))
        }
        _ => None,
    }
}

/// The commit of the source, if the build knew.
pub const COMMIT: Option<&str> = option_env!("USBFERRY_COMMIT");

/// The versions of the program and of libusb, and the program's commit, as far as the build knew
/// the commit. The system's libusb may have any version.
#[must_use]
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let commit = COMMIT.map(|commit| format!("commit {commit}, "));
        let whose = if libusb::IS_BUILT_IN { "built in" } else { "the system's" };
        format!(
            "{} ({}libusb {}, {whose})",
            env!("CARGO_PKG_VERSION"),
            commit.unwrap_or_default(),
            libusb::libusb()
        )
    });
    &VERSION
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Export devices
    Serve(Box<Serve>),
    /// Show the devices of this machine, or the exports of another machine
    List(List),
    /// Attach a device of another machine to this machine (Linux)
    Attach(Attach),
    /// Detach a device of another machine (Linux)
    Detach(Detach),
    /// Show the attached devices of other machines (Linux)
    Port(Port),
    /// Show what a server on this machine does: exports, sessions, counters
    Status(Status),
    /// Watch a server on this machine in the terminal: exports, rates, times of devices, graphs
    Top(Top),
    /// End the session with a device, or all sessions of a client
    Disconnect(Disconnect),
    /// Give a device out again that was held back by disconnect --hold
    Release(Release),
    /// Follow what happens at a server on this machine, a line for each event
    Events(Events),
    /// Write the URBs of a server on this machine into a file, for Wireshark
    Capture(Capture),
    /// Play the client's side of a recording on a device of a server, and show what differs
    Replay(Replay),
    /// Say what a file of settings means for the devices of this machine
    CheckConfig(CheckConfig),
    /// Look for whatever makes exports fail here, and say what to type. Takes the options of serve
    Doctor(Box<Doctor>),
}

/// The group of the packaged service, which may open the devices that udev gives the group.
const DEVICES_GROUP: &str = "usbferry-devices";

/// `usbferry check-config`.
#[derive(Args, Debug)]
pub struct CheckConfig {
    /// The file of settings, see docs/rules.md
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Print rules of udev instead, which give this group the devices that the file exports
    /// [default: usbferry-devices]
    #[arg(
        long,
        value_name = "GROUP",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = DEVICES_GROUP,
        value_parser = parse_group
    )]
    pub udev: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    /// In every place of every command, whatever the place is for.
    #[test]
    fn no_error_repeats_a_character_that_is_not_seen() {
        const HOSTILE: [char; 3] = ['\u{7}', '\u{202e}', '\u{9b}'];
        let hostile = format!("x=y{}", String::from_iter(HOSTILE));
        let command = <Cli as clap::CommandFactory>::command();
        let mut refused = 0;
        let mut lines = vec![vec![hostile.clone()], vec![format!("--{hostile}")]];
        for subcommand in command.get_subcommands() {
            let name = subcommand.get_name().to_owned();
            lines.push(vec![name.clone(), format!("--{hostile}")]);
            lines.push([vec![name.clone()], vec![hostile.clone(); 4]].concat());
            for argument in subcommand.get_arguments().chain(command.get_arguments()) {
                let Some(long) = argument.get_long() else { continue };
                lines.push(vec![name.clone(), format!("--{long}={hostile}")]);
                lines.push(vec![name.clone(), format!("--{long}"), hostile.clone()]);
            }
        }
        let mut lines: Vec<_> = lines.into_iter().map(|line| ("usbferry", line)).collect();
        for option in ["-t", "--tcp-port", "-P", "--pid", "--"] {
            lines.push(("usbipd", vec![format!("{option}{hostile}")]));
            lines.push(("usbipd", vec![option.to_owned(), hostile.clone()]));
        }
        for (program, line) in lines {
            let typed = std::iter::once(program).chain(line.iter().map(String::as_str));
            let Err(error) = Cli::read(typed.map(OsString::from)) else { continue };
            refused += 1;
            let said = error.render().ansi().to_string();
            assert!(!said.contains(HOSTILE), "{line:?}: {said:?}");
        }
        assert!(refused > 50, "{refused}");
    }

    #[test]
    fn the_log_level_comes_from_the_option_or_the_environment() {
        let filter = |arguments: &[&str], environment: Option<&str>| {
            let line = ["usbferry", "list"].iter().chain(arguments);
            let cli = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
            Ok(cli.log_filter(environment.map(str::to_owned)))
        };
        let heeded = |arguments: &[&str], environment: Option<&str>| {
            let LogFilter { filter, ignored } = filter(arguments, environment).unwrap();
            assert_eq!(ignored, None);
            filter
        };
        assert_eq!(heeded(&[], None), "info");
        assert_eq!(heeded(&[], Some("othercrate=debug")), "othercrate=debug");
        assert_eq!(heeded(&[], Some("")), "info");
        assert_eq!(heeded(&[], Some(" ")), "info");
        for both in ["a=info,b::c=off", "a=info/text", "a=info,warn"] {
            assert_eq!(heeded(&[], Some(both)), both);
        }
        for wrong in ["loud", "loud/info", "usbferry=loud", "info=4", "a=info,loud", "a=loud"] {
            let LogFilter { filter: level, ignored } = filter(&[], Some(wrong)).unwrap();
            assert_eq!(level, "info", "{wrong}");
            let said = ignored.expect("the text is no filter").to_string();
            assert!(said.starts_with(&format!("RUST_LOG is \"{wrong}\", ")), "{said}");
            // What is typed is what counts.
            assert_eq!(heeded(&["--log", "warn"], Some(wrong)), "warn");
        }
        for typed in ["trace", "OFF", "warn,usbferry::session=trace", "usbferry", "mio,debug/x"] {
            assert_eq!(heeded(&["--log", typed], Some("warn")), typed);
        }
        for wrong in ["", "verbose", "verbose/info", "othercrate=debug", "usbferry=loud", "info=4"]
        {
            let refused: String = filter(&["--log", wrong], None).unwrap_err();
            assert!(refused.contains("give error"), "{wrong}");
        }
    }
}
