//! The socket of operators: where it is, and who may use it.
//!
//! Contract: pure.

use std::path::PathBuf;

use super::value::ValueError;

/// The mode of the socket by default: the user of the server alone.
pub const SOCKET_MODE_DEFAULT: u32 = 0o600;

/// The word for no socket.
const NO_SOCKET: &str = "none";

/// The socket of operators.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OperatorSocket {
    /// The place.
    pub place: SocketPlace,
    /// The mode in the file system: who may write may ask.
    pub mode: u32,
}

/// The place of the socket of operators.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SocketPlace {
    /// There is none.
    None,
    /// In the first usual directory that can be written to, unless another server's is there.
    Usual,
    /// Here.
    At(PathBuf),
}

impl Default for OperatorSocket {
    fn default() -> Self {
        Self { place: SocketPlace::None, mode: SOCKET_MODE_DEFAULT }
    }
}

/// A path, or the word for no socket.
///
/// # Errors
/// [`ValueError::Socket`] for a path that no socket can have.
pub fn parse_socket(text: &str) -> Result<SocketPlace, ValueError> {
    match text {
        NO_SOCKET => Ok(SocketPlace::None),
        path if path.is_empty() || path.ends_with('/') || path.contains('\0') => {
            Err(ValueError::Socket)
        }
        path => Ok(SocketPlace::At(path.into())),
    }
}

/// A mode in octal digits.
///
/// # Errors
/// [`ValueError::SocketMode`] for anything but octal digits up to 777.
pub fn parse_socket_mode(text: &str) -> Result<u32, ValueError> {
    let is_octal = !text.is_empty() && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    let mode = is_octal.then(|| u32::from_str_radix(text, 8).ok()).flatten();
    mode.filter(|mode| *mode <= 0o777).ok_or(ValueError::SocketMode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_path_or_none() {
        assert_eq!(parse_socket("none"), Ok(SocketPlace::None));
        assert_eq!(parse_socket("/run/a.sock"), Ok(SocketPlace::At("/run/a.sock".into())));
        assert_eq!(parse_socket("./none"), Ok(SocketPlace::At("./none".into())));
        for wrong in ["", "/run/", "a\0b"] {
            assert_eq!(parse_socket(wrong), Err(ValueError::Socket), "{wrong}");
        }
    }

    #[test]
    fn a_mode_is_octal() {
        assert_eq!(parse_socket_mode("600"), Ok(0o600));
        assert_eq!(parse_socket_mode("0666"), Ok(0o666));
        for wrong in ["", "8", "rw", "1000", "7777777777777", "+600", "0o600"] {
            assert_eq!(parse_socket_mode(wrong), Err(ValueError::SocketMode), "{wrong}");
        }
    }
}
