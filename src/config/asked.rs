//! What a client asks for: the text in the busid field of IMPORT.
//!
//! | text | device |
//! | --- | --- |
//! | `1-2.3` | by its place |
//! | `stick` | by the name that a rule gives |
//! | `0781:5567` | by its kind |
//! | `0781:5567:SERIAL`, `serial:SERIAL` | by its serial number |
//!
//! No text has two meanings: a name has no colon and not the form of a place.
//!
//! Contract: pure, total: clients choose the bytes.

use std::fmt;

use super::name::Nickname;
use super::rules::matching::Ids;
use super::rules::spec::split_ids;
use crate::usb::DeviceInfo;
use crate::wire::types::BusId;
use crate::words::printable;

/// The device that a client asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked {
    /// The device in a place, or in none: every text without another meaning.
    BusId(BusId),
    /// The device with a name.
    Nickname(Nickname),
    /// The device of a kind.
    Ids(Ids),
    /// The device of a kind, with a serial number.
    IdsSerial(Ids, String),
    /// The device with a serial number.
    Serial(String),
}

impl Asked {
    /// Reads the field of an IMPORT.
    #[must_use]
    pub fn read(field: BusId) -> Self {
        let Ok(text) = std::str::from_utf8(field.as_bytes()) else { return Self::BusId(field) };
        if let Some(serial) = text.strip_prefix("serial:").filter(|serial| !serial.is_empty()) {
            return Self::Serial(serial.to_owned());
        }
        match split_ids(text) {
            Some((ids, None)) => return Self::Ids(ids),
            Some((ids, Some(serial))) if !serial.is_empty() => {
                return Self::IdsSerial(ids, serial.to_owned());
            }
            _ => {}
        }
        text.parse().map_or(Self::BusId(field), Self::Nickname)
    }

    /// Whether a device, with the name that its rule gives, is meant.
    #[must_use]
    pub fn fits(&self, info: &DeviceInfo, name: Option<Nickname>) -> bool {
        let has = |serial: &String| info.serial.as_ref() == Some(serial);
        match self {
            Self::BusId(busid) => info.device.busid == *busid,
            Self::Nickname(asked) => name == Some(*asked),
            Self::Ids(ids) => Ids::of(info) == *ids,
            Self::IdsSerial(ids, serial) => Ids::of(info) == *ids && has(serial),
            Self::Serial(serial) => has(serial),
        }
    }
}

impl fmt::Display for Asked {
    /// For the log: everything unprintable is escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BusId(busid) => busid.fmt(f),
            Self::Nickname(name) => name.fmt(f),
            Self::Ids(ids) => ids.fmt(f),
            Self::IdsSerial(ids, serial) => write!(f, "{ids}:{}", printable(serial)),
            Self::Serial(serial) => write!(f, "serial:{}", printable(serial)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::testing::info;
    use super::*;

    fn asked(text: &str) -> Asked {
        Asked::read(BusId::new(text).unwrap())
    }

    #[test]
    fn every_form_means_its_device() {
        let device = info("1-2", 0, false);
        let name: Option<Nickname> = "stick".parse().ok();
        for (text, with_name, without) in [
            ("1-2", true, true),
            ("stick", true, false),
            ("0781:5567", true, true),
            ("0781:5567:ab:c", true, true),
            ("serial:ab:c", true, true),
            ("1-2.1", false, false),
            ("sticks", false, false),
            ("0781:5568", false, false),
            ("0781:5567:", false, false),
            ("0781:5567:ab", false, false),
            ("781:5567", false, false),
            ("serial:", false, false),
            ("serial:ab", false, false),
            ("class:08", false, false),
        ] {
            assert_eq!(asked(text).fits(&device, name), with_name, "{text}");
            assert_eq!(asked(text).fits(&device, None), without, "{text}");
            assert_eq!(asked(text).to_string(), text);
        }
    }

    #[test]
    fn any_bytes_mean_something() {
        let device = info("1-2", 0, false);
        for byte in 0..=u8::MAX {
            for len in [1, 31, 32] {
                let mut field = [0; 32];
                field[..len].fill(byte);
                let asked = Asked::read(BusId::from_wire(&field));
                assert!(!asked.fits(&device, None), "{asked}");
                assert!(asked.to_string().is_ascii());
            }
        }
    }
}
