//! Errors of a command line whose values are right one by one, in words for a user.
//!
//! Contract: plain data.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::listen::Unresolved;
use crate::config::rules::Origin;
use crate::units::Size;
#[cfg(feature = "simulate")]
use crate::usb::sim::spec::SpecError;

/// An error of a command line that clap does not find.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UsageError {
    /// Two of the largest URBs do not fit into a device's memory.
    UrbSize {
        /// Bytes of the largest URB.
        urb_size: usize,
        /// Bytes of buffer memory.
        memory: usize,
        /// Where the values were written.
        written: Written,
    },
    /// Other machines can reach an address, and no client is allowed to connect.
    NoAllow {
        /// The setting with the address, `listen` or `http`.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// Where the setting was written.
        written: Written,
    },
    /// A name to listen on has no address.
    Unresolved(Unresolved),
    /// `--simulate` names no devices.
    #[cfg(feature = "simulate")]
    Simulate(SpecError),
    /// No server to attach a device of.
    NoHost,
    /// No device of a server.
    NoName,
    /// No device of this machine's client side.
    NothingToDetach,
    /// A word behind server and device.
    TooMuch(String),
    /// The text names no server; the message says why.
    Host(String),
    /// The text can't be the name of a device.
    Name {
        /// The text.
        name: String,
        /// Bytes of the longest name.
        most: usize,
    },
}

/// Where values were written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Written {
    /// On the command line, or some in this file.
    Together(Option<Arc<str>>),
    /// In a rule.
    Rule(Origin),
}

impl Written {
    /// The beginning of a message, and of the name of each setting in the message.
    fn words(&self) -> (String, &'static str) {
        match self {
            Self::Together(None) => (String::new(), "--"),
            Self::Together(Some(file)) => (format!("{file}, with the options typed: "), ""),
            Self::Rule(origin) => (format!("{origin}: "), ""),
        }
    }
}

impl std::error::Error for UsageError {}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UrbSize { urb_size, memory, written } => {
                let (place, dashes) = written.words();
                let [urb_size, memory, most] =
                    [*urb_size, *memory, memory / 2].map(|bytes| Size(bytes as u64));
                write!(
                    f,
                    "{place}{dashes}urb-size {urb_size} is more than half of {dashes}memory \
                     {memory}: two of the largest URBs must fit; give {dashes}urb-size {most} or \
                     less, too, or more {dashes}memory"
                )
            }
            Self::NoAllow { setting, address, written } => {
                f.write_str(&nobody_allowed(setting, *address, written))
            }
            Self::Unresolved(error) => error.fmt(f),
            #[cfg(feature = "simulate")]
            Self::Simulate(error) => error.fmt(f),
            Self::NoHost => f.write_str(
                "name the server and the device: usbferry attach HOST NAME (or -r HOST -b NAME); or \
                 the device alone, of a server that \"usbferry list --discover\" shows",
            ),
            Self::NoName => f.write_str(
                "name the device, too: usbferry attach HOST NAME; \"usbferry list -r HOST\" shows \
                 the names",
            ),
            Self::NothingToDetach => f.write_str(
                "name the device to detach, or give its port with -p PORT: \"usbferry port\" shows \
                 both",
            ),
            Self::TooMuch(word) => {
                write!(f, "\"{word}\" is too much: server and device are known already")
            }
            Self::Host(message) => f.write_str(message),
            Self::Name { name, most } => write!(
                f,
                "\"{}\" can't be the name of a device: a name has up to {most} bytes, and at least \
                 one; \"usbferry list -r HOST\" shows the names",
                name.escape_debug()
            ),
        }
    }
}

fn nobody_allowed(setting: &str, address: SocketAddr, written: &Written) -> String {
    let (place, dashes) = written.words();
    let example = match written {
        Written::Together(None) => "--allow 192.168.1.0/24",
        _ => "allow = \"192.168.1.0/24\"",
    };
    let service = if setting == "http" { "the page" } else { "USB/IP" };
    format!(
        "{place}{dashes}{setting} {address} can be reached by other machines, and {service} knows no \
         passwords: say which may connect with {dashes}allow, for instance {example}"
    )
}

/// The text of a `RUST_LOG` that is no filter of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IgnoredFilter(pub(super) String);

impl fmt::Display for IgnoredFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.escape_debug();
        write!(f, "RUST_LOG is \"{text}\", which is ignored: {NotAFilter}")
    }
}

/// A text that is no filter of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NotAFilter;

impl std::error::Error for NotAFilter {}

impl fmt::Display for NotAFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "give error, warn, info, debug or trace, or a filter for usbferry such as \
             info,usbferry::session=trace",
        )
    }
}

/// A text that is no name of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NotAGroup;

impl std::error::Error for NotAGroup {}

impl fmt::Display for NotAGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("give the name of a group, of letters, digits, - and _, such as plugdev")
    }
}
