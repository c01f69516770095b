//! The notes about attached devices in `/var/run/vhci_hcd`, a file for each port: `HOST PORT
//! BUSID`. The stock tool writes a note after `usbip attach` (`record_connection` of
//! `usbip_attach.c`), shows the note with `usbip port` (`read_record` of `vhci_driver.c`), and
//! removes the note before
//! `usbip detach` (`detach_port` of `usbip_detach.c`). So a note that has vanished while its device
//! was attached tells of a person who wanted the device detached.
//!
//! Contract: calls of the file system, which may block as any do.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use usbferry_sys::os::user::NO_FOLLOW;

/// Bytes of the longest note that is read: a host's name has up to 1024 (`NI_MAXHOST`).
const NOTE_LEN_MAX: u64 = 2048;

/// Where an attached device comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The server, without its port.
    pub host: String,
    /// The server's TCP port; the stock tool also takes the name of a service.
    pub service: String,
    /// The device's name on the server.
    pub busid: String,
}

/// The directory of the notes.
#[derive(Clone, Debug)]
pub(super) struct Notes(PathBuf);

impl Notes {
    pub(super) fn below(root: &Path) -> Self {
        Self(root.join("var/run/vhci_hcd"))
    }

    fn of_port(&self, port: u32) -> PathBuf {
        self.0.join(format!("port{port}"))
    }

    /// Notes the origin of a device.
    pub(super) fn write(&self, port: u32, origin: &Origin) -> io::Result<()> {
        let Origin { host, service, busid } = origin;
        match DirBuilder::new().mode(0o700).create(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o700).custom_flags(NO_FOLLOW);
        let mut file = options.open(self.of_port(port))?;
        file.write_all(format!("{host} {service} {busid}\n").as_bytes())
    }

    /// The origin of a device; `None` without a note in the known form.
    pub(super) fn read(&self, port: u32) -> Option<Origin> {
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(NO_FOLLOW).open(self.of_port(port)).ok()?;
        let mut note = String::new();
        let len = file.take(NOTE_LEN_MAX + 1).read_to_string(&mut note).ok()?;
        if len as u64 > NOTE_LEN_MAX { None } else { parse(&note) }
    }

    /// Removes the note, and the directory with the last note.
    pub(super) fn remove(&self, port: u32) {
        // Whoever removed the note before wanted the same.
        let _ = fs::remove_file(self.of_port(port));
        let _ = fs::remove_dir(&self.0);
    }
}

fn parse(note: &str) -> Option<Origin> {
    let mut fields = note.lines().next()?.splitn(3, ' ');
    let mut field = || fields.next().filter(|field| !field.is_empty()).map(str::to_owned);
    Some(Origin { host: field()?, service: field()?, busid: field()? })
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;

    fn origin(host: &str, busid: &str) -> Origin {
        Origin { host: host.to_owned(), service: "3240".to_owned(), busid: busid.to_owned() }
    }

    #[test]
    fn a_note_has_the_form_of_the_stock_tool() {
        let root = tempdir().unwrap();
        let notes = Notes::below(root.path());
        fs::create_dir_all(root.path().join("var/run")).unwrap();
        notes.write(3, &origin("192.0.2.1", "1-2.3")).unwrap();
        let file = root.path().join("var/run/vhci_hcd/port3");
        assert_eq!(fs::read_to_string(&file).unwrap(), "192.0.2.1 3240 1-2.3\n");
        assert_eq!(notes.read(3), Some(origin("192.0.2.1", "1-2.3")));
        notes.write(3, &origin("::1", "serial:AB CD")).unwrap();
        assert_eq!(notes.read(3), Some(origin("::1", "serial:AB CD")));
        assert_eq!(notes.read(4), None);
        notes.write(4, &origin("desk", "stick")).unwrap();
        notes.remove(3);
        assert_eq!((notes.read(3), notes.read(4)), (None, Some(origin("desk", "stick"))));
        notes.remove(4);
        assert!(!root.path().join("var/run/vhci_hcd").exists());
        notes.remove(4);
    }

    #[test]
    fn any_text_is_read_without_harm() {
        for (note, expected) in [
            ("a 3240 1-2\n", Some(origin("a", "1-2"))),
            ("a 3240 1-2", Some(origin("a", "1-2"))),
            ("a 3240\n", None),
            ("a  1-2\n", None),
            ("", None),
            ("\n", None),
        ] {
            assert_eq!(parse(note), expected, "{note:?}");
        }
    }

    #[test]
    fn a_note_beyond_all_names_is_none() {
        let root = tempdir().unwrap();
        fs::create_dir_all(root.path().join("var/run")).unwrap();
        let notes = Notes::below(root.path());
        for (len, is_read) in [(NOTE_LEN_MAX, true), (NOTE_LEN_MAX + 1, false)] {
            let host = "h".repeat(usize::try_from(len).unwrap() - " 3240 1-2\n".len());
            notes.write(0, &origin(&host, "1-2")).unwrap();
            let written = fs::metadata(root.path().join("var/run/vhci_hcd/port0")).unwrap().len();
            assert_eq!((written, notes.read(0).is_some()), (len, is_read));
        }
    }

    #[test]
    fn a_note_is_not_written_through_a_link() {
        let root = tempdir().unwrap();
        let directory = root.path().join("var/run/vhci_hcd");
        fs::create_dir_all(&directory).unwrap();
        std::os::unix::fs::symlink(root.path().join("elsewhere"), directory.join("port0")).unwrap();
        assert!(Notes::below(root.path()).write(0, &origin("a", "1-2")).is_err());
        assert!(!root.path().join("elsewhere").exists());
    }
}
