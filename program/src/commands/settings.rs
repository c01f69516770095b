//! The settings of a server, from its command line and its file.
//!
//! Contract: *blocks* for the file, and for the look-up of names to listen on.

use std::io::{self, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;

use usbferry_sys::os::file;

use super::CommandError;
use crate::cli::{Chosen, Serve};
use crate::config::Settings;
use crate::config::file::{FileError, FileSettings};
use crate::limits::CONFIG_LEN_MAX;
use crate::words::visible;

/// The file of settings, unless the command line names another.
const SYSTEM_FILE: &str = "/etc/usbferry/usbferry.toml";

/// The file by which a user says that there are no settings.
const NO_FILE: &str = "/dev/null";

/// Reads the settings; again for each reload, since the file may have come or gone. *Blocks.*
///
/// # Errors
/// The file can't be read or has a fault, values do not fit together, or a name has no address.
pub(super) fn read(arguments: &Serve) -> Result<(Settings, Chosen), CommandError> {
    let file = read_chosen_file(arguments).map_err(CommandError::File)?;
    with_file(arguments, &file)
}

/// The settings of a command line together with a file. *Blocks.*
///
/// # Errors
/// Values do not fit together, or a name has no address.
pub(super) fn with_file(
    arguments: &Serve,
    file: &FileSettings,
) -> Result<(Settings, Chosen), CommandError> {
    let (mut settings, chosen) = arguments.settings(file).map_err(CommandError::Usage)?;
    settings.listen = arguments.listen(file, look_up).map_err(CommandError::Usage)?;
    settings.http = arguments.http(file, look_up).map_err(CommandError::Usage)?;
    Ok((settings, chosen))
}

/// The addresses of a name, as the system knows them. *Blocks* for the system's time.
fn look_up(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    (name, port).to_socket_addrs().map(Iterator::collect)
}

fn read_chosen_file(arguments: &Serve) -> Result<FileSettings, FileError> {
    if let Some(named) = arguments.config() {
        return read_file(named);
    }
    if !arguments.follows_system() {
        return Ok(FileSettings::default());
    }
    match read_file(Path::new(SYSTEM_FILE)) {
        Err(FileError::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            Ok(FileSettings::default())
        }
        read => read,
    }
}

/// Reads a file of settings. *Blocks.*
///
/// # Errors
/// The file can't be read, or has a fault.
pub(super) fn read_file(path: &Path) -> Result<FileSettings, FileError> {
    let name: Arc<str> = visible(&path.display().to_string()).into();
    let bytes = match read_bytes(path) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err(FileError::Kind(name)),
        Err(error) => return Err(FileError::Read { file: name, error }),
    };
    if bytes.len() > CONFIG_LEN_MAX {
        return Err(FileError::Size(name));
    }
    match String::from_utf8(bytes) {
        Ok(text) => FileSettings::read(&name, &text),
        Err(_) => Err(FileError::Text(name)),
    }
}

/// The bytes of a file, one more than allowed at most; `None` for anything but an ordinary file or
/// [`NO_FILE`].
fn read_bytes(path: &Path) -> io::Result<Option<Vec<u8>>> {
    if path.canonicalize().is_ok_and(|target| target == Path::new(NO_FILE)) {
        return Ok(Some(Vec::new()));
    }
    let Some(file) = file::open_ordinary(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(CONFIG_LEN_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_file_of_settings_is_refused_with_the_reason() {
        for (path, says) in [
            ("/nonexistent/usbferry.toml", "/nonexistent/usbferry.toml: there is no such file"),
            ("/", "/: no ordinary file"),
            ("/dev/zero", "/dev/zero: no ordinary file"),
            ("/nonexistent\u{1b}[2J", "/nonexistent\\u{1b}[2J: there is no such file"),
        ] {
            let error = read_file(Path::new(path)).unwrap_err().to_string();
            assert!(error.starts_with(says), "{error}");
        }
        assert!(read_file(Path::new("/dev/null")).unwrap().rules.is_empty());
    }

    #[test]
    fn a_file_larger_than_any_file_of_settings_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.toml");
        std::fs::write(&path, "#".repeat(CONFIG_LEN_MAX)).unwrap();
        assert!(read_file(&path).unwrap().rules.is_empty());
        std::fs::write(&path, "#".repeat(CONFIG_LEN_MAX + 1)).unwrap();
        let error = read_file(&path).unwrap_err().to_string();
        assert!(error.contains("large.toml: larger than 1M"), "{error}");
    }
}
