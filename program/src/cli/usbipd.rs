//! The command line of `usbipd`, the kernel's own exporter, for a program that is started under its
//! name: scripts and units for `usbipd` start usbferry instead (`usbipd.c` of
//! `tools/usb/usbip/src`).
//!
//! Contract: no I/O, but for the working directory. Each error says what to type instead.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf, absolute};

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};

use super::serve::Serve;
use super::{Cli, Command, version};
use crate::logging::Shape;
use crate::wire::PORT;

/// The name of the program that this command line is for.
const NAME: &str = "usbipd";

/// The file of `-P` without a name (`DEFAULT_PID_FILE`).
const PID_FILE: &str = "/var/run/usbipd.pid";

/// Where usbferry is stricter than usbipd, behind the help.
const STRICTER: &str = "\
This is usbferry under the name of usbipd. It is stricter:
- Exported is what the rules in /etc/usbferry/usbferry.toml say, or --all and --device; a device that
  was bound with \"usbip bind\" belongs to the kernel's own exporter. No kernel module is needed.
- Clients on other machines need \"allow\" in the file, or --allow.
- A wrong port, a word without a dash, and an address that can't be listened on are errors.";

/// The help of an option of `usbferry serve` that listens elsewhere by default.
const LISTEN: &str = "\
Listen here instead of on all addresses, whatever -4, -6 and -t say: an address or a name, with or \
without a port, or :PORT for all addresses. May be repeated";

/// Export USB devices over USB/IP, with the options of usbipd
#[derive(Parser, Debug)]
#[command(name = NAME, version = version(), disable_version_flag = true, infer_long_args = true, max_term_width = 100)]
struct Usbipd {
    /// Listen on IPv4 only, unless -6 is given, too
    #[arg(short = '4', long)]
    ipv4: bool,

    /// Listen on IPv6 only, unless -4 is given, too
    #[arg(short = '6', long)]
    ipv6: bool,

    /// Run in the background, with the log in syslog
    #[arg(short = 'D', long)]
    daemon: bool,

    /// Log debugging information
    #[arg(short, long)]
    debug: bool,

    /// Write the process id to this file; -P without a file means /var/run/usbipd.pid. The short
    /// form has the file directly behind it: -PFILE
    #[arg(
        short = 'P',
        long,
        value_name = "FILE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = PID_FILE
    )]
    pid: Option<PathBuf>,

    /// Listen on this port
    #[arg(
        short,
        long,
        value_name = "PORT",
        default_value_t = PORT,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    tcp_port: u16,

    /// Show the version
    #[arg(short, long, action = ArgAction::Version)]
    version: Option<bool>,

    #[command(flatten)]
    serve: Serve,
}

/// How a server stands in for `usbipd`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StandIn {
    /// Runs in the background.
    pub is_daemon: bool,
    /// The file for the process id.
    pub pid_file: Option<PathBuf>,
}

/// Whether a program was started under the name of `usbipd`.
pub(super) fn is_meant(program: &OsStr) -> bool {
    Path::new(program).file_name() == Some(OsStr::new(NAME))
}

/// Reads a command line of `usbipd`.
///
/// # Errors
/// The command line makes no sense, or asks for the help or the version.
pub(super) fn read(line: Vec<OsString>) -> Result<Cli, clap::Error> {
    let command = Usbipd::command().after_help(STRICTER);
    let command = command.mut_arg("listen", |argument| argument.help(LISTEN));
    let matches = command.try_get_matches_from(line.into_iter().map(long_pid))?;
    let arguments = Usbipd::from_arg_matches(&matches)?;
    let of_io = |error: io::Error| clap::Error::raw(clap::error::ErrorKind::Io, error);
    Ok(Cli {
        log: arguments.debug.then(|| "debug".to_owned()),
        log_format: Shape::Text,
        command: Command::Serve(Box::new(arguments.into_serve().map_err(of_io)?)),
    })
}

/// `-PFILE`, also behind other flags, in clap's form of an option whose value is optional:
/// `-P=FILE`.
fn long_pid(argument: OsString) -> OsString {
    let bytes = argument.as_bytes();
    let Some(flags) = bytes.strip_prefix(b"-").filter(|flags| !flags.starts_with(b"-")) else {
        return argument;
    };
    // What stands behind -t is a port.
    let at = flags.iter().position(|flag| b"Pt".contains(flag));
    match at.map(|at| flags.split_at(at + 1)) {
        Some((before, file)) if before.ends_with(b"P") && !file.is_empty() => {
            OsString::from_vec([b"-", before, b"=", file].concat())
        }
        _ => argument,
    }
}

impl Usbipd {
    /// The same as options of `usbferry serve`. Paths become absolute, since the background has
    /// another working directory.
    fn into_serve(self) -> io::Result<Serve> {
        let port = self.tcp_port;
        let place = match (self.ipv4, self.ipv6) {
            (true, false) => format!("0.0.0.0:{port}"),
            (false, true) => format!("[::]:{port}"),
            _ => format!(":{port}"),
        };
        let pid_file = self.pid.map(absolute).transpose()?;
        let stand_in = StandIn { is_daemon: self.daemon, pid_file };
        self.serve.standing_in(place.parse().expect("an address and a port"), stand_in)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve_of(arguments: &[&str]) -> Result<(Cli, Serve), clap::Error> {
        let line = ["/usr/sbin/usbipd"].iter().chain(arguments).map(OsString::from);
        let cli = Cli::read(line)?;
        let Command::Serve(serve) = &cli.command else { unreachable!("usbipd serves") };
        let serve = (**serve).clone();
        Ok((cli, serve))
    }

    /// Where a server listens, as typed.
    fn places(arguments: &[&str]) -> String {
        let (_, serve) = serve_of(arguments).unwrap();
        let listen = serve.listen(&Default::default(), |_, _| unreachable!("no names")).unwrap();
        listen.iter().map(|at| at.address.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_command_line_is_consistent() {
        Usbipd::command().debug_assert();
    }

    #[test]
    fn addresses_are_those_of_usbipd() {
        let both = "0.0.0.0:3240 [::]:3240";
        for (arguments, expected) in [
            (&[][..], both),
            (&["-4", "-6"], both),
            (&["-46"], both),
            (&["-4"], "0.0.0.0:3240"),
            (&["--ipv6"], "[::]:3240"),
            (&["-t", "3241", "-4"], "0.0.0.0:3241"),
            (&["-4t3241"], "0.0.0.0:3241"),
            (&["--tcp-port", "3241", "--ipv4"], "0.0.0.0:3241"),
            (&["--tcp-port=3241", "-4"], "0.0.0.0:3241"),
            (&["--tcp", "3241", "-4"], "0.0.0.0:3241"),
        ] {
            assert_eq!(places(arguments), expected, "{arguments:?}");
        }
    }

    #[test]
    fn the_file_of_the_process_id_stands_directly_behind_its_flag() {
        for (arguments, file) in [
            (&[][..], None),
            (&["-P"], Some(PID_FILE)),
            (&["--pid"], Some(PID_FILE)),
            (&["-P/run/x.pid"], Some("/run/x.pid")),
            (&["-4DP/run/x.pid"], Some("/run/x.pid")),
            (&["--pid=/run/x.pid"], Some("/run/x.pid")),
        ] {
            let (_, serve) = serve_of(arguments).unwrap();
            let stand_in = serve.stand_in().unwrap();
            assert_eq!(stand_in.pid_file.as_deref(), file.map(Path::new), "{arguments:?}");
            let is_daemon = arguments.iter().any(|argument| argument.contains('D'));
            assert_eq!(stand_in.is_daemon, is_daemon, "{arguments:?}");
        }
        let (_, serve) = serve_of(&["-Prelative"]).unwrap();
        let file = serve.stand_in().unwrap().pid_file.clone().unwrap();
        assert!(file.is_absolute() && file.ends_with("relative"), "{}", file.display());
    }

    #[test]
    fn debugging_is_a_level_of_the_log() {
        for (arguments, filter) in [(&["-d"][..], "debug"), (&["--debug"], "debug"), (&[], "info")]
        {
            let (cli, _) = serve_of(arguments).unwrap();
            assert_eq!(cli.log_filter(None).filter, filter);
        }
    }

    #[test]
    fn other_words_are_refused() {
        for wrong in [&["-t", "0"][..], &["-t", "70000"], &["-t"], &["-x"], &["start"], &["--port"]]
        {
            let error = serve_of(wrong).unwrap_err();
            assert!(error.use_stderr(), "{wrong:?}: {error}");
        }
        for (asks, says) in [("-h", "is stricter"), ("--help", "is stricter"), ("-v", "usbipd ")] {
            let shown = serve_of(&[asks]).unwrap_err();
            assert!(!shown.use_stderr() && shown.to_string().contains(says), "{asks}: {shown}");
        }
        let help = serve_of(&["-h"]).unwrap_err().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.contains("Listen here instead of on all addresses, whatever"), "{help}");
        assert!(!help.contains("127.0.0.1:3240"), "{help}");
        assert!(!is_meant(OsStr::new("usbferry")) && !is_meant(OsStr::new("/usbipd/usbferry")));
    }
}
