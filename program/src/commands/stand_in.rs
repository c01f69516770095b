//! A server that stands in for `usbipd`: the file with the process id, and warnings where usbferry
//! is stricter than a user of `usbipd` expects.
//!
//! Contract: *blocks* for the file.

use std::fs;
use std::path::{Path, PathBuf};

use log::warn;

use crate::cli::StandIn;
use crate::config::Settings;
use crate::words::reason;

/// The file with this process's id, for as long as the value lives.
#[derive(Debug)]
pub(super) struct PidFile(PathBuf);

impl PidFile {
    /// Writes the file, if the command line names one. As with usbipd, a server without the file
    /// serves all the same.
    pub(super) fn write(stand_in: Option<&StandIn>) -> Option<Self> {
        let path = stand_in?.pid_file.as_deref()?;
        match fs::write(path, format!("{}\n", std::process::id())) {
            Ok(()) => Some(Self(path.to_owned())),
            Err(error) => {
                warn!("{}: the process id can't be written: {}", path.display(), reason(&error));
                None
            }
        }
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(self.path()) {
            let path = self.path().display();
            warn!("{path}: the file with the process id can't be removed: {}", reason(&error));
        }
    }
}

/// Warns where a server exports less, or to fewer clients, than usbipd would.
pub(super) fn warn_of_strictness(settings: &Settings) {
    if !settings.rules.iter().any(|rule| rule.export) {
        warn!(
            "nothing is exported: write rules into /etc/usbferry/usbferry.toml, or give --all or \
             --device. A device that was bound with \"usbip bind\" belongs to the kernel's own \
             exporter"
        );
    }
    if settings.allowed.0.is_empty() {
        warn!(
            "only programs of this machine may connect: name other clients with --allow, or with \
             \"allow\" in /etc/usbferry/usbferry.toml"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_the_id_and_goes_with_the_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usbipd.pid");
        let stand_in = StandIn { is_daemon: false, pid_file: Some(path.clone()) };
        let file = PidFile::write(Some(&stand_in)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
        let pid_file = Some(folder.path().join("none/usbipd.pid"));
        assert!(PidFile::write(Some(&StandIn { is_daemon: false, pid_file })).is_none());
        assert!(PidFile::write(None).is_none());
    }
}
