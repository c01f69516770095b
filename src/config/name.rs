//! The nickname of a device: the name that a rule gives, and that clients may ask for instead of a
//! busid.
//!
//! Contract: pure.

use std::fmt;
use std::str::FromStr;

use crate::wire::types::{BUS_ID_LEN, BusId};

/// Bytes of the longest nickname: the field of a busid ends with a NUL.
pub(crate) const NAME_LEN_MAX: usize = BUS_ID_LEN - 1;

/// A nickname: up to 31 printable ASCII characters, of a form that no other text for a device has.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nickname(BusId);

impl Nickname {
    /// The name in the form of a busid, as clients see the name in lists and replies.
    #[must_use]
    pub const fn as_busid(&self) -> BusId {
        self.0
    }
}

impl fmt::Display for Nickname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Nickname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is no nickname.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NicknameError {
    /// Empty.
    Empty,
    /// Longer than a client can ask for.
    Length(usize),
    /// This character has another meaning, or none that everybody can type.
    Character(char),
    /// A busid has this form.
    BusId,
    /// An option of a command has this form.
    Dash,
    /// A folder has this name: this one, or the one above.
    Folder,
    /// The root hub of a bus has this name.
    RootHub,
}

impl std::error::Error for NicknameError {}

impl fmt::Display for NicknameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a name has at least one character"),
            Self::Length(len) => write!(
                f,
                "a name has up to {NAME_LEN_MAX} characters, the longest text that a client can \
                 ask for, and not {len}"
            ),
            Self::Character(character) => write!(
                f,
                "'{}' can't be in a name: take letters, digits and signs of ASCII, but no space, \
                 \":\", \"/\" or \"=\"",
                character.escape_debug()
            ),
            Self::BusId => f.write_str(
                "a name has another form than a busid (1-2.3): put a letter into the name",
            ),
            Self::Dash => f.write_str(
                "a name begins with another sign than \"-\": \"usbip attach -b\" and other \
                 commands would take the name for an option",
            ),
            Self::Folder => f.write_str(
                "\".\" and \"..\" are folders for every program that keeps files by name: put a \
                 letter into the name",
            ),
            Self::RootHub => f.write_str(
                "\"usb\" with a number is the root hub of a bus for the system: put another letter \
                 into the name",
            ),
        }
    }
}

impl FromStr for Nickname {
    type Err = NicknameError;

    fn from_str(text: &str) -> Result<Self, NicknameError> {
        let is_wrong = |c: &char| !c.is_ascii_graphic() || matches!(c, ':' | '/' | '=');
        if let Some(wrong) = text.chars().find(is_wrong) {
            return Err(NicknameError::Character(wrong));
        }
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        match text {
            "" => Err(NicknameError::Empty),
            "." | ".." => Err(NicknameError::Folder),
            _ if text.starts_with('-') => Err(NicknameError::Dash),
            _ if is_place(text) => Err(NicknameError::BusId),
            _ if text.strip_prefix("usb").is_some_and(is_number) && text.len() > 3 => {
                Err(NicknameError::RootHub)
            }
            _ => BusId::new(text).map(Self).ok_or(NicknameError::Length(text.len())),
        }
    }
}

/// Whether a text has the form of a busid: a bus, and the ports from the bus to a device, as
/// `BUS-PORT` or `BUS-PORT.PORT` and so on.
pub(crate) fn is_place(text: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let place = text.split_once('-');
    place.is_some_and(|(bus, ports)| is_number(bus) && ports.split('.').all(is_number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_no_other_form() {
        let longest = "n".repeat(NAME_LEN_MAX);
        for name in
            ["stick", "1-2x", "scope#2", "a.b-c_d", "7", "x-1", "0781", "usb", "usb1a", &longest]
        {
            assert_eq!(name.parse::<Nickname>().unwrap().to_string(), name);
        }
        for (wrong, error) in [
            ("", NicknameError::Empty),
            ("0781:5567", NicknameError::Character(':')),
            ("a b", NicknameError::Character(' ')),
            ("a/b", NicknameError::Character('/')),
            ("a=b", NicknameError::Character('=')),
            ("a\n", NicknameError::Character('\n')),
            ("m\u{fc}ller", NicknameError::Character('\u{fc}')),
            ("1-2", NicknameError::BusId),
            ("01-2.3", NicknameError::BusId),
            ("-x", NicknameError::Dash),
            ("--persist", NicknameError::Dash),
            ("-", NicknameError::Dash),
            (".", NicknameError::Folder),
            ("..", NicknameError::Folder),
            ("usb1", NicknameError::RootHub),
            ("usb12", NicknameError::RootHub),
            (&format!("{longest}n"), NicknameError::Length(32)),
        ] {
            assert_eq!(wrong.parse::<Nickname>(), Err(error), "{wrong}");
        }
    }

    #[test]
    fn a_name_is_shown_as_a_busid() {
        let name: Nickname = "stick".parse().unwrap();
        assert_eq!(name.as_busid().as_bytes(), b"stick");
    }
}
