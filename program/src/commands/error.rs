//! Why a command failed, in words for a user.
//!
//! Contract: plain data.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

#[cfg(target_os = "linux")]
use super::attach::SeekError;
#[cfg(target_os = "linux")]
use super::detach::Unnamed;
use crate::cli::UsageError;
use crate::client::ClientError;
use crate::client::replay::RecordedError;
use crate::config::file::FileError;
use crate::operator::DeskError;
use crate::operator::client::OperatorError;
use crate::reactor::StartError;
use crate::service::sockets::PassedError;
use crate::usb::ScanError;
#[cfg(feature = "simulate")]
use crate::usb::sim::spec::LoadError;
#[cfg(target_os = "linux")]
use crate::vhci::VhciError;
use crate::web::WebError;
use crate::wire::types::BusId;
use crate::words::reason;

/// Exit code of a command line or a file that makes no sense, the same as clap's.
const USAGE: u8 = 2;

/// Why a command failed.
#[derive(Debug)]
pub enum CommandError {
    /// The command line makes no sense.
    Usage(UsageError),
    /// The file of settings is refused.
    File(FileError),
    /// No device was chosen; with the obstacle, if the devices of this machine can't be shown.
    NothingChosen(Option<ScanError>),
    /// The devices of this machine can't be looked for.
    Scan(ScanError),
    /// Another machine's exports are not known.
    Client(ClientError),
    /// A file is no recording of a device.
    #[cfg(feature = "simulate")]
    Recording(LoadError),
    /// The list can't be printed.
    Print(io::Error),
    /// The server can't be started.
    Start(StartError),
    /// The service manager has passed a descriptor of no use.
    Passed(PassedError),
    /// The socket of operators can't be made.
    Desk(DeskError),
    /// The web server can't be opened.
    Web(WebError),
    /// Servers on the network can't be looked for.
    Search(io::Error),
    /// The server of a device is unknown.
    #[cfg(target_os = "linux")]
    Sought(SeekError),
    /// A server can't be announced.
    Announce(io::Error),
    /// A server on this machine does not do as asked.
    Operator(OperatorError),
    /// A recording can't be played.
    Replayed(PathBuf, RecordedError),
    /// A recording is of another device: vendor and product of both.
    OtherDevice {
        /// The recorded device.
        recorded: (u16, u16),
        /// The name of the server's device.
        name: BusId,
        /// The server's device.
        found: (u16, u16),
    },
    /// The file of a capture can't be opened.
    CaptureFile(PathBuf, io::Error),
    /// The output is no terminal.
    NoTerminal,
    /// The terminal can't be used.
    Terminal(io::Error),
    /// The system refuses to tell of signals.
    Signals(io::Error),
    /// The system can't wait for events.
    Wait(io::Error),
    /// This system has no client of its own for USB/IP.
    #[cfg(not(target_os = "linux"))]
    LinuxOnly,
    /// This machine's client side can't be used.
    #[cfg(target_os = "linux")]
    Vhci(VhciError),
    /// A name tells no attached device from others.
    #[cfg(target_os = "linux")]
    Unnamed(Unnamed),
    /// This number of devices was not given back in time.
    Kept(usize),
}

impl CommandError {
    /// The program's exit code.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            // The line is right, and may work later.
            Self::Usage(UsageError::Unresolved(_)) => ExitCode::FAILURE,
            Self::Usage(_) | Self::File(_) | Self::NothingChosen(_) => ExitCode::from(USAGE),
            _ => ExitCode::FAILURE,
        }
    }
}

impl std::error::Error for CommandError {}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(error) => error.fmt(f),
            Self::File(error) => error.fmt(f),
            Self::NothingChosen(why_not) => {
                f.write_str(
                    "nothing to export was chosen: name devices with --device BUSID or --device \
                     VID:PID, or in the rules of a file (--config FILE), or take all with --all",
                )?;
                if cfg!(feature = "simulate") {
                    f.write_str("; --simulate is for trying out")?;
                }
                match why_not {
                    Some(error) => write!(f, ". Real devices can't be listed: {error}"),
                    None => Ok(()),
                }
            }
            Self::Scan(error) => error.fmt(f),
            Self::Client(error) => error.fmt(f),
            #[cfg(feature = "simulate")]
            Self::Recording(error) => write!(f, "--simulate=replay: {error}"),
            Self::Print(error) => write!(f, "the list can't be printed: {}", reason(error)),
            Self::Start(error) => error.fmt(f),
            Self::Passed(error) => error.fmt(f),
            Self::Desk(error) => error.fmt(f),
            Self::Web(error) => error.fmt(f),
            Self::Search(error) => write!(
                f,
                "servers on the network can't be looked for: {}; name the server instead",
                reason(error)
            ),
            #[cfg(target_os = "linux")]
            Self::Sought(error) => error.fmt(f),
            Self::Announce(error) => write!(
                f,
                "--advertise: the system has no room for announcements: {}",
                reason(error)
            ),
            Self::Operator(error) => error.fmt(f),
            Self::OtherDevice { recorded: (vendor, product), name, found } => write!(
                f,
                "the recording is of a device {vendor:04x}:{product:04x}, and {name} is \
                 {:04x}:{:04x}, to which the recorded writes would go: name the recorded device, or \
                 give --other-device",
                found.0, found.1
            ),
            Self::Replayed(path, error) => write!(f, "{}: {error}", path.display()),
            Self::CaptureFile(path, error) => write!(f, "{}: {}", path.display(), reason(error)),
            Self::NoTerminal => f.write_str(
                "top draws on a terminal, and the output is none: \"usbferry status\" prints the same \
                 once, with --json for programs",
            ),
            Self::Terminal(error) => write!(f, "the terminal can't be used: {}", reason(error)),
            Self::Signals(error) => write!(f, "can't handle signals: {}", reason(error)),
            Self::Wait(error) => {
                write!(f, "the system can't wait for events: {}", reason(error))
            }
            #[cfg(not(target_os = "linux"))]
            Self::LinuxOnly => f.write_str(
                "only Linux can attach devices of other machines; \"usbferry list --remote HOST\" \
                 and \"usbferry serve\" work here, too",
            ),
            #[cfg(target_os = "linux")]
            Self::Vhci(error) => error.fmt(f),
            #[cfg(target_os = "linux")]
            Self::Unnamed(error) => error.fmt(f),
            Self::Kept(devices) => write!(
                f,
                "{devices} device(s) could not be given back in time; the kernel does so when \
                 usbferry ends; re-plug a device that stays busy"
            ),
        }
    }
}
