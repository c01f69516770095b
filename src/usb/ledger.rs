//! Remembers, outside the process, whose kernel drivers are detached.
//!
//! When usbferry is killed, the kernel frees its devices but gives no driver back. So while a
//! device is open there is a file that names it and the interfaces to give back, locked as long as
//! the process lives; a start that finds one unlocked does what was left undone.
//!
//! Contract: reads and writes files, so it is for workers. Nothing here fails: without a place for
//! the files, devices are exported all the same, and a kill leaves drivers detached.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use log::debug;

/// What to do for a device that was left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Debt {
    pub(super) bus: u8,
    pub(super) address: u8,
    pub(super) id_vendor: u16,
    pub(super) id_product: u16,
    /// Interfaces that kernel drivers had.
    pub(super) interfaces: Vec<u8>,
}

/// A file that stands for an open device, until it is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    file: File,
    path: PathBuf,
}

impl Debt {
    /// A line such as `3 17 0781:5567 0,1`.
    fn to_line(&self) -> String {
        let interfaces: Vec<String> = self.interfaces.iter().map(ToString::to_string).collect();
        let Self { bus, address, id_vendor, id_product, .. } = self;
        format!("{bus} {address} {id_vendor:04x}:{id_product:04x} {}\n", interfaces.join(","))
    }

    fn from_line(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (bus, address) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let (vendor, product) = words.next()?.split_once(':')?;
        let interfaces = words.next().unwrap_or_default().split(',').filter(|n| !n.is_empty());
        Some(Self {
            bus,
            address,
            id_vendor: u16::from_str_radix(vendor, 16).ok()?,
            id_product: u16::from_str_radix(product, 16).ok()?,
            interfaces: interfaces.map(|n| n.parse().ok()).collect::<Option<_>>()?,
        })
    }
}

/// Where the files are: a place that a restart of the machine empties, as it does drivers. A service
/// manager can say which (systemd.exec, `RuntimeDirectory=`).
fn directory() -> Option<PathBuf> {
    let place = |variable| std::env::var_os(variable).map(PathBuf::from);
    let subdirectory = |place: PathBuf| place.join("usbferry");
    let places = [
        place("RUNTIME_DIRECTORY"),
        Some(PathBuf::from("/run/usbferry")),
        place("XDG_RUNTIME_DIR").map(subdirectory),
    ];
    places.into_iter().flatten().find(|directory| {
        // Only what belongs to this user alone: others must not name devices for us.
        use std::os::unix::fs::DirBuilderExt;
        let made = fs::DirBuilder::new().mode(0o700).create(directory);
        made.is_ok() || is_private(directory)
    })
}

/// Whether this user, and nobody else, may write there.
fn is_private(directory: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let private = |found: fs::Metadata| found.is_dir() && found.mode() & 0o022 == 0;
    fs::symlink_metadata(directory).is_ok_and(private)
        && File::create(directory.join(".writable")).is_ok()
}

/// Notes a debt; it is settled when the entry is dropped.
pub(super) fn note(busid: &str, debt: &Debt) -> Option<Entry> {
    note_in(&directory()?, busid, debt)
}

fn note_in(directory: &Path, busid: &str, debt: &Debt) -> Option<Entry> {
    let path = directory.join(busid);
    let open = || -> std::io::Result<File> {
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path)?;
        file.try_lock()?;
        file.set_len(0)?;
        file.write_all(debt.to_line().as_bytes())?;
        Ok(file)
    };
    match open() {
        Ok(file) => Some(Entry { file, path }),
        Err(error) => {
            debug!("{busid}: no note of its drivers can be kept: {error}");
            None
        }
    }
}

impl Entry {
    /// Notes other interfaces.
    pub(super) fn update(&mut self, debt: &Debt) {
        use std::io::Seek;
        let rewound = self.file.set_len(0).and_then(|()| self.file.rewind());
        let _ = rewound.and_then(|()| self.file.write_all(debt.to_line().as_bytes()));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // While it is still locked, so that nobody reads a debt that is settled.
        let _ = fs::remove_file(&self.path);
    }
}

/// What processes that are gone have left, each once: its file is removed.
pub(super) fn take_debts() -> Vec<Debt> {
    directory().map(|directory| take_debts_in(&directory)).unwrap_or_default()
}

fn take_debts_in(directory: &Path) -> Vec<Debt> {
    let Ok(files) = fs::read_dir(directory) else { return Vec::new() };
    files.filter_map(|file| take_debt(&file.ok()?.path())).collect()
}

fn take_debt(path: &Path) -> Option<Debt> {
    if path.file_name()?.to_string_lossy().starts_with('.') {
        return None;
    }
    let mut file = File::open(path).ok()?;
    // Its process lives, and so does its session.
    file.try_lock().ok()?;
    let mut line = String::new();
    file.read_to_string(&mut line).ok()?;
    // What is none stays: the directory may not be ours alone.
    let debt = Debt::from_line(&line)?;
    fs::remove_file(path).ok()?;
    Some(debt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debt() -> Debt {
        Debt { bus: 3, address: 17, id_vendor: 0x0781, id_product: 0x5567, interfaces: vec![0, 2] }
    }

    fn scratch(name: &str) -> PathBuf {
        let directory =
            std::env::temp_dir().join(format!("usbferry-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn lines_read_back_and_nonsense_does_not() {
        assert_eq!(Debt::from_line(&debt().to_line()), Some(debt()));
        let none = Debt { interfaces: vec![], ..debt() };
        assert_eq!(Debt::from_line(&none.to_line()), Some(none));
        for wrong in ["", "3", "3 17", "3 17 0781", "3 300 0781:5567 0", "3 17 0781:5567 x"] {
            assert_eq!(Debt::from_line(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_debt_is_found_only_when_its_process_is_gone() {
        let directory = scratch("debts");
        let entry = note_in(&directory, "3-1", &debt()).unwrap();
        assert_eq!(take_debts_in(&directory), []);
        // As if it had been killed: the lock goes, the file stays.
        let path = entry.path.clone();
        let killed = std::mem::ManuallyDrop::new(entry);
        killed.file.unlock().unwrap();
        assert_eq!(take_debts_in(&directory), [debt()]);
        assert!(!path.exists(), "it is settled once");
        fs::write(directory.join("notes"), "somebody else's").unwrap();
        assert_eq!(take_debts_in(&directory), []);
        assert!(directory.join("notes").exists());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_settled_debt_leaves_nothing() {
        let directory = scratch("settled");
        let mut entry = note_in(&directory, "3-1", &debt()).unwrap();
        entry.update(&Debt { interfaces: vec![5], ..debt() });
        let line = fs::read_to_string(&entry.path).unwrap();
        assert_eq!(Debt::from_line(&line).unwrap().interfaces, [5]);
        drop(entry);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        fs::remove_dir_all(directory).unwrap();
    }
}
