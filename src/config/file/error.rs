//! What is wrong with a file of settings, and where, in words for a user.
//!
//! Contract: plain data.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::config::ValueError;
use crate::config::name::NicknameError;
use crate::config::rules::spec::DeviceSpecError;
use crate::limits::{CONFIG_LEN_MAX, RULES_MAX};
use crate::units::Size;
use crate::words::reason;

/// Why a file of settings is refused, as a whole.
#[derive(Debug)]
pub enum FileError {
    /// The system does not let the file be read.
    Read {
        /// The file, as the user named the file.
        file: Arc<str>,
        /// The system's reason.
        error: io::Error,
    },
    /// What the user named is no ordinary file, but a directory, a device, a FIFO or a socket.
    Kind(Arc<str>),
    /// The file is larger than any file of settings.
    Size(Arc<str>),
    /// The file is no UTF-8.
    Text(Arc<str>),
    /// A fault at a place of the file.
    At {
        /// The file, as the user named the file.
        file: Arc<str>,
        /// The place.
        place: Place,
        /// The fault.
        fault: Fault,
    },
}

/// A place in a file. Both numbers count from one, columns in characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// The lines of a text, found once, so that the places of many rules cost no look at the whole text
/// each.
pub(super) struct Lines<'a> {
    text: &'a str,
    /// The first byte of each line, in order; the first is 0.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    /// The lines of a text.
    pub(super) fn of(text: &'a str) -> Self {
        let starts = text.match_indices('\n').map(|(newline, _)| newline + 1);
        Self { text, starts: std::iter::once(0).chain(starts).collect() }
    }

    /// The line of a byte of the text, counted from one.
    pub(super) fn line(&self, byte: usize) -> usize {
        self.starts.partition_point(|&start| start <= byte)
    }

    /// The place of a byte of the text. A byte beyond the text, or within a character, counts as
    /// the end of the text.
    pub(super) fn place(&self, byte: usize) -> Place {
        let byte = if self.text.is_char_boundary(byte) { byte } else { self.text.len() };
        let line = self.line(byte);
        let before = &self.text[self.starts[line - 1]..byte];
        Place { line, column: before.chars().count() + 1 }
    }
}

/// A fault in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The text is no TOML, in the words of the parser.
    Syntax(String),
    /// No setting has this key.
    Key {
        /// The key.
        key: String,
        /// What to do instead, if known.
        advice: Advice,
    },
    /// The value is of another type.
    Type {
        /// The key.
        key: &'static str,
        /// The expected value.
        expected: Expected,
    },
    /// A value of the right type that makes no sense.
    Value {
        /// The key.
        key: &'static str,
        /// Why not.
        error: ValueError,
    },
    /// No device can be meant.
    Device {
        /// The key.
        key: &'static str,
        /// Why not.
        error: DeviceSpecError,
    },
    /// The serial number stands behind the kind.
    IdWithSerial {
        /// The kind.
        id: String,
        /// The serial number.
        serial: String,
    },
    /// The name is no name.
    Name(NicknameError),
    /// An empty list means nothing.
    Empty(&'static str),
    /// `authorize` without a program to ask.
    NobodyAuthorizes,
    /// Two of the largest URBs do not fit into the memory of the devices.
    UrbSize {
        /// Bytes of the largest URB.
        urb_size: usize,
        /// Bytes of buffer memory.
        memory: usize,
    },
    /// More rules than anybody can mean.
    TooManyRules(usize),
}

/// What to do about an unknown key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Advice {
    /// The key that was probably meant.
    Meant(&'static str),
    /// The key is one of a rule's.
    OfRules,
    /// The key is one of the server's, and has to stand before the first rule.
    OfServer,
    /// The key is an option of the command line, which in a file is a rule about every device.
    EveryDevice,
    /// These are the keys.
    Known(&'static [&'static str]),
}

/// A type of values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// A text in quotes.
    Text,
    /// A text in quotes, or a list of texts.
    Texts,
    /// A number, or a number with a unit in quotes.
    Number,
    /// true or false.
    Boolean,
    /// A program and its arguments.
    Program,
    /// Tables with two brackets.
    Tables,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "a text in quotes",
            Self::Texts => "a text in quotes, or a list of texts: [\"…\", \"…\"]",
            Self::Number => "a number, or a text in quotes with a number and a unit",
            Self::Boolean => "true or false",
            Self::Program => {
                "a list with the path of a program, from the root, and its arguments: \
                 [\"/usr/bin/logger\", \"attached\"]"
            }
            Self::Tables => "rules of their own, each below a line [[rule]], with two brackets",
        })
    }
}

impl std::error::Error for FileError {}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { file, error } if error.kind() == io::ErrorKind::NotFound => {
                write!(f, "{file}: there is no such file")
            }
            Self::Read { file, error } => write!(f, "{file}: can't be read: {}", reason(error)),
            Self::Kind(file) => write!(
                f,
                "{file}: no ordinary file; write the settings into a file of text, and give its path"
            ),
            Self::Size(file) => {
                let most = Size(CONFIG_LEN_MAX as u64);
                write!(f, "{file}: larger than {most}, which no file of settings is")
            }
            Self::Text(file) => write!(f, "{file}: not a text in UTF-8"),
            Self::At { file, place: Place { line, column }, fault } => {
                write!(f, "{file}:{line}:{column}: {fault}")
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(words) => write!(f, "not TOML: {words}"),
            Self::Key { key, advice } => {
                write!(f, "no setting is called \"{}\"{advice}", key.escape_debug())
            }
            Self::Type { key, expected } => write!(f, "{key}: give {expected}"),
            Self::Value { key, error } => write!(f, "{key}: {error}"),
            Self::Device { key, error } => write!(f, "{key}: {error}"),
            Self::IdWithSerial { id, serial } => write!(
                f,
                "id: the serial number has a key of its own: write id = \"{id}\" and \
                 serial = \"{}\"",
                serial.escape_debug()
            ),
            Self::Name(error) => write!(f, "name: {error}"),
            Self::Empty(key) => write!(f, "{key}: an empty list; leave {key} out, or fill it"),
            Self::NobodyAuthorizes => f.write_str(
                "authorize: there is no on-attach: give the program to ask as on-attach",
            ),
            Self::UrbSize { urb_size, memory } => {
                let [urb_size, memory, most] =
                    [*urb_size, *memory, memory / 2].map(|bytes| Size(bytes as u64));
                write!(
                    f,
                    "urb-size {urb_size} is more than half of memory {memory}: two of the largest \
                     URBs must fit; give urb-size {most} or less, too, or more memory"
                )
            }
            Self::TooManyRules(rules) => {
                write!(f, "{rules} rules are too many: give {RULES_MAX} at most")
            }
        }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meant(key) => write!(f, ": write {key}"),
            Self::OfRules => f.write_str(" for the server: it belongs into a [[rule]]"),
            Self::OfServer => {
                f.write_str(" in a rule: it belongs to the top, before the first [[rule]]")
            }
            Self::EveryDevice => f.write_str(
                ": --all is an option of the command line; in a file, a [[rule]] without keys \
                 matches every device",
            ),
            Self::Known(keys) => write!(f, ": there are {}", keys.join(", ")),
        }
    }
}
