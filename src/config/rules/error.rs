//! Why a text names no device, in words for a user.
//!
//! Contract: plain data.

use std::fmt;

use super::spec::PORTS_MAX;
use crate::config::name::NicknameError;
use crate::limits::RULE_IDS_MAX;
use crate::usb::class;

/// Why a text names no device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeviceSpecError {
    /// The text has no form of a device's.
    Form(String),
    /// No device can ever be meant by the first text; the second was probably meant.
    Meant(String, String),
    /// Bus and device number, as `lsusb` shows them.
    Numbers(String),
    /// Several devices in one text.
    Several(String),
    /// A serial number among the kinds of one device: the kinds, and the serial number.
    SetWithSerial(String, String),
    /// A place behind more hubs than USB allows.
    Deep(String),
    /// An empty serial number or driver.
    Blank,
    /// A serial number or a driver with a control character.
    Control(String),
    /// A serial number or a driver longer than any.
    Long {
        /// A word for the text.
        what: &'static str,
        /// How long the text is.
        len: usize,
        /// How long such a text can be.
        most: usize,
    },
    /// A driver with a slash.
    Slash(String),
    /// Hubs are never exported.
    Hub,
    /// No class has this name.
    Class(String),
    /// More kinds than one device can have.
    Kinds(usize),
    /// The name in front of the device is no name.
    Name(String, NicknameError),
}

impl std::error::Error for DeviceSpecError {}

impl fmt::Display for DeviceSpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form(text) => write!(
                f,
                "\"{}\" names no device: give a busid as \"usbferry list\" shows it (1-2.3), or \
                 VID:PID or VID:PID:SERIAL with four hexadecimal digits each (0781:5567), or \
                 serial:SERIAL, class:NAME or driver:NAME",
                text.escape_debug()
            ),
            Self::Meant(text, meant) => {
                write!(f, "\"{}\" can never match: write {meant}", text.escape_debug())
            }
            Self::Numbers(text) => write!(
                f,
                "\"{}\" is a bus with a device number, which changes with each plugging: give the \
                 busid as \"usbferry list\" shows it (1-2.3), or VID:PID (lsusb's \"ID\")",
                text.escape_debug()
            ),
            Self::Several(text) => write!(
                f,
                "\"{}\" names several devices, and commas join VID:PIDs only: repeat --device for \
                 each place or device; in a file, give each a [[rule]]",
                text.escape_debug()
            ),
            Self::SetWithSerial(kinds, serial) => write!(
                f,
                "a device of several kinds is named by its kinds alone: write {kinds}; or, in a \
                 file, a [[rule]] with a list as id, and serial = \"{}\"",
                serial.escape_debug()
            ),
            Self::Hub => f.write_str("hubs are never exported: name the devices behind the hub"),
            Self::Class(text) => write!(
                f,
                "\"{}\" is no class: give two hexadecimal digits, or one of {}",
                text.escape_debug(),
                classes()
            ),
            Self::Kinds(kinds) => write!(
                f,
                "{kinds} VID:PIDs are too many for one device: give {RULE_IDS_MAX} at most"
            ),
            Self::Name(text, error) => write!(f, "\"{}\": {error}", text.escape_debug()),
            Self::Deep(_) | Self::Blank | Self::Control(_) | Self::Long { .. } | Self::Slash(_) => {
                self.tell_impossible(f)
            }
        }
    }
}

impl DeviceSpecError {
    /// Why no device can have a text of the right form.
    fn tell_impossible(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deep(text) => write!(
                f,
                "\"{text}\" can never match: USB has room for {PORTS_MAX} ports between a bus and \
                 a device, and \"usbferry list\" shows the busids"
            ),
            Self::Blank => {
                f.write_str("an empty text matches no device: leave the key out, or give a text")
            }
            Self::Control(text) => write!(
                f,
                "\"{}\" has a character that can't be typed, and no name of a driver or serial \
                 number in a rule has such a character: name the device by VID:PID or its place",
                text.escape_debug()
            ),
            Self::Long { what, len, most } => {
                write!(f, "a {what} of {len} characters can never match: the longest has {most}")
            }
            Self::Slash(text) => write!(
                f,
                "\"{}\" can never match: no driver's name has a \"/\"; \"usbferry list\" shows the \
                 drivers",
                text.escape_debug()
            ),
            _ => Ok(()),
        }
    }

    /// The same error of a text with a key in front.
    pub(super) fn behind(self, key: &str) -> Self {
        match self {
            Self::Meant(text, meant) => {
                Self::Meant(format!("{key}:{text}"), format!("{key}:{meant}"))
            }
            other => other,
        }
    }
}

/// The names of the classes whose devices can be exported.
fn classes() -> String {
    let names = class::NAMES.iter().map(|&(name, _)| name).filter(|&name| name != "hub");
    names.collect::<Vec<_>>().join(", ")
}
