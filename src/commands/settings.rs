//! The settings of a server, from its command line and its file.
//!
//! Contract: *blocks* for the file, and for the look-up of names to listen on.

use std::fs::File;
use std::io::{self, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

use super::CommandError;
use crate::cli::{Chosen, Serve};
use crate::config::Settings;
use crate::config::file::{FileError, FileSettings};
use crate::limits::CONFIG_LEN_MAX;

/// The file of settings, unless the command line names another.
const SYSTEM_FILE: &str = "/etc/usbferry/usbferry.toml";

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
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let most = CONFIG_LEN_MAX as u64 + 1;
    if let Err(error) = File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)) {
        return Err(FileError::Read { file: name.into(), error });
    }
    if bytes.len() > CONFIG_LEN_MAX {
        return Err(FileError::Size(name.into()));
    }
    match String::from_utf8(bytes) {
        Ok(text) => FileSettings::read(&name, &text),
        Err(_) => Err(FileError::Text(name.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_file_of_settings_is_refused_with_the_reason() {
        for (path, says) in [
            ("/nonexistent/usbferry.toml", "/nonexistent/usbferry.toml: there is no such file"),
            ("/", "/: can't be read: "),
            ("/dev/zero", "/dev/zero: larger than 1M"),
        ] {
            let error = read_file(Path::new(path)).unwrap_err().to_string();
            assert!(error.starts_with(says), "{error}");
        }
        assert!(read_file(Path::new("/dev/null")).unwrap().rules.is_empty());
    }
}
