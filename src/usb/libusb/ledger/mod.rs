//! Notes of the debts for open devices, kept outside the process.
//!
//! When usbferry is killed, the kernel frees the devices but gives no driver back, and a
//! configuration set by a client stays. While a device is open, a file names the device, the
//! interfaces to give back and the configuration to go back to. The file is locked as long as the
//! process lives; a start that finds the file without a lock pays the debt. Only a paid debt
//! removes the file: however else the process or a session may end, the file stays.
//!
//! Contract: reads and writes files, hence for workers. Nothing here fails: without a place for the
//! files, devices are exported all the same, and a kill leaves drivers detached.

mod place;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use self::place::{directory, open_own, writable};
use crate::complaints::warn;
use crate::runtime;

/// Bytes read of a note: far more than a device with 32 interfaces needs.
const NOTE_LEN_MAX: u64 = 4096;

/// The debt for an open device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Debt {
    pub(super) bus: u8,
    pub(super) address: u8,
    pub(super) id_vendor: u16,
    pub(super) id_product: u16,
    /// Interfaces of kernel drivers.
    pub(super) interfaces: Vec<u8>,
    /// The configuration that the device was found in; `None` for an unconfigured device, which
    /// does not go back.
    pub(super) configuration: Option<u8>,
}

/// A locked file with a debt. A note that is dropped, and not removed, is left for the next start.
#[derive(Debug)]
pub(super) struct Note {
    file: File,
    path: PathBuf,
    /// Nothing is in the file, as far as read.
    is_blank: bool,
}

impl Debt {
    /// Whether both are owed to the same device.
    pub(super) fn is_of_same_device(&self, other: &Self) -> bool {
        let device = |debt: &Self| (debt.bus, debt.address, debt.id_vendor, debt.id_product);
        device(self) == device(other)
    }

    /// A line such as `3 17 0781:5567 0,1 in 1`.
    fn to_line(&self) -> String {
        let interfaces: Vec<String> = self.interfaces.iter().map(ToString::to_string).collect();
        let interfaces = interfaces.join(",");
        let configuration = self.configuration.map(|value| format!(" in {value}"));
        let configuration = configuration.unwrap_or_default();
        let Self { bus, address, id_vendor, id_product, .. } = self;
        format!("{bus} {address} {id_vendor:04x}:{id_product:04x} {interfaces}{configuration}\n")
    }

    fn from_line(line: &str) -> Option<Self> {
        let (line, configuration) = match line.split_once(" in ") {
            Some((line, value)) => (line, Some(value.trim().parse().ok()?)),
            None => (line, None),
        };
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
            configuration,
        })
    }
}

/// Notes a debt, and adds an unpaid older debt for the same device.
pub(super) fn note(busid: &str, debt: &mut Debt) -> Option<Note> {
    note_in(&directory()?, busid, debt)
}

fn note_in(directory: &Path, busid: &str, debt: &mut Debt) -> Option<Note> {
    let noted = Note::open(&mut writable(), directory.join(busid)).and_then(|mut note| {
        let left = note.read()?.filter(|left| left.is_of_same_device(debt));
        for interface in left.iter().flat_map(|left| &left.interfaces) {
            if !debt.interfaces.contains(interface) {
                debt.interfaces.push(*interface);
            }
        }
        let configuration = left.and_then(|left| left.configuration);
        debt.configuration = configuration.or(debt.configuration);
        note.write(debt)?;
        Ok(note)
    });
    noted
        .inspect_err(|error| warn!("{busid}: no note of the device's drivers can be kept: {error}"))
        .ok()
}

impl Note {
    /// Opens and locks a file; fails while another process has it locked.
    fn open(options: &mut OpenOptions, path: PathBuf) -> io::Result<Self> {
        let file = open_own(options, &path)?;
        file.try_lock()?;
        Ok(Self { file, path, is_blank: false })
    }

    fn read(&mut self) -> io::Result<Option<Debt>> {
        let mut line = String::new();
        (&self.file).take(NOTE_LEN_MAX).read_to_string(&mut line)?;
        self.is_blank = line.is_empty();
        Ok(Debt::from_line(&line))
    }

    fn write(&mut self, debt: &Debt) -> io::Result<()> {
        if !self.is_blank {
            self.file.set_len(0)?;
            self.file.rewind()?;
        }
        self.is_blank = false;
        self.file.write_all(debt.to_line().as_bytes())
    }

    /// Notes another debt of the same device.
    pub(super) fn update(&mut self, debt: &Debt) {
        let _ = self.write(debt);
    }

    /// The debt is paid.
    pub(super) fn remove(self) {
        // While the file is still locked: no other process may read a paid debt.
        let _ = fs::remove_file(&self.path);
    }
}

/// Debts of processes that are gone.
pub(super) fn debts() -> Vec<(Debt, Note)> {
    directory().map(|directory| debts_in(&directory)).unwrap_or_default()
}

fn debts_in(directory: &Path) -> Vec<(Debt, Note)> {
    let Ok(files) = fs::read_dir(directory) else { return Vec::new() };
    files.filter_map(|file| debt_in(file.ok()?.path())).collect()
}

fn debt_in(path: PathBuf) -> Option<(Debt, Note)> {
    if path.file_name()?.to_string_lossy().starts_with('.') {
        return None;
    }
    // Fails while the process of the note lives.
    let mut note = Note::open(OpenOptions::new().read(true), path).ok()?;
    // A file without a debt stays: the directory may not be ours alone.
    let debt = note.read().ok()??;
    Some((debt, note))
}

/// Whether a living process has a note of a device, at a place and with a debt without drivers: the
/// device is then open.
pub(super) fn is_noted(busid: &str, device: &Debt) -> bool {
    runtime::directories().any(|directory| is_noted_in(&directory, busid, device))
}

fn is_noted_in(directory: &Path, busid: &str, device: &Debt) -> bool {
    let read = || {
        let mut file = open_own(OpenOptions::new().read(true), &directory.join(busid)).ok()?;
        let is_held = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
        let mut line = String::new();
        file.read_to_string(&mut line).ok()?;
        Debt::from_line(&line).filter(|debt| is_held && debt.is_of_same_device(device))
    };
    read().is_some()
}

#[cfg(test)]
mod tests {
    use super::place::tests::scratch;
    use super::*;

    fn debt() -> Debt {
        Debt {
            bus: 3,
            address: 17,
            id_vendor: 0x0781,
            id_product: 0x5567,
            interfaces: vec![0, 2],
            configuration: Some(1),
        }
    }

    #[test]
    fn lines_read_back_and_nonsense_does_not() {
        assert_eq!(Debt::from_line(&debt().to_line()), Some(debt()));
        for configuration in [None, Some(0), Some(255)] {
            let none = Debt { interfaces: vec![], configuration, ..debt() };
            assert_eq!(Debt::from_line(&none.to_line()), Some(none));
        }
        let before = Debt { configuration: None, ..debt() };
        assert_eq!(Debt::from_line("3 17 0781:5567 0,2\n"), Some(before), "as it once was");
        for wrong in ["", "3", "3 17", "3 17 0781", "3 300 0781:5567 0", "3 17 0781:5567 x"] {
            assert_eq!(Debt::from_line(wrong), None, "{wrong}");
        }
        assert_eq!(Debt::from_line("3 17 0781:5567 0 in x"), None);
    }

    /// Debts noted in a directory, in files without a lock.
    fn found_in(directory: &Path) -> Vec<Debt> {
        debts_in(directory).into_iter().map(|(debt, _)| debt).collect()
    }

    #[test]
    fn a_debt_is_found_only_when_its_process_is_gone() {
        let directory = scratch("debts");
        let note = note_in(&directory, "3-1", &mut debt()).unwrap();
        assert_eq!(found_in(&directory), []);
        // As when the process is killed, or panics: the lock goes, the file stays.
        drop(note);
        assert_eq!(found_in(&directory), [debt()]);
        fs::write(directory.join("notes"), "somebody else's").unwrap();
        assert_eq!(found_in(&directory), [debt()]);
        assert!(directory.join("notes").exists());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_device_is_noted_as_long_as_the_process_has_it() {
        let directory = scratch("noted");
        let device = Debt { interfaces: vec![], configuration: None, ..debt() };
        assert!(!is_noted_in(&directory, "3-1", &device));
        let note = note_in(&directory, "3-1", &mut debt()).unwrap();
        assert!(is_noted_in(&directory, "3-1", &device));
        assert!(!is_noted_in(&directory, "3-2", &device));
        assert!(!is_noted_in(&directory, "3-1", &Debt { address: 18, ..device.clone() }));
        drop(note);
        assert!(!is_noted_in(&directory, "3-1", &device), "the process is gone");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_debt_that_is_found_stays_until_paid() {
        let directory = scratch("found");
        drop(note_in(&directory, "3-1", &mut debt()).unwrap());
        let found = debts_in(&directory);
        assert_eq!(found_in(&directory), [], "somebody sees to it");
        assert!(directory.join("3-1").exists(), "who may be killed");
        drop(found);
        let (_, note) = debts_in(&directory).remove(0);
        note.remove();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_paid_debt_leaves_nothing() {
        let directory = scratch("paid");
        let mut note = note_in(&directory, "3-1", &mut debt()).unwrap();
        note.update(&Debt { interfaces: vec![5], ..debt() });
        let line = fs::read_to_string(&note.path).unwrap();
        assert_eq!(Debt::from_line(&line).unwrap().interfaces, [5]);
        note.remove();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_link_is_no_note() {
        let directory = scratch("links");
        let elsewhere = directory.join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let target = elsewhere.join("3-1");
        fs::write(&target, debt().to_line()).unwrap();
        std::os::unix::fs::symlink(&target, directory.join("3-1")).unwrap();
        assert_eq!(found_in(&directory), []);
        let mut other = Debt { interfaces: vec![7], ..debt() };
        assert!(note_in(&directory, "3-1", &mut other).is_none());
        assert_eq!(fs::read_to_string(&target).unwrap(), debt().to_line(), "nobody wrote there");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn an_unpaid_debt_is_added_to_the_device_s_next_debt() {
        let directory = scratch("added");
        drop(note_in(&directory, "3-1", &mut debt()).unwrap());
        let mut next = Debt { interfaces: vec![2, 1], configuration: Some(2), ..debt() };
        drop(note_in(&directory, "3-1", &mut next).unwrap());
        assert_eq!((next.interfaces.as_slice(), next.configuration), (&[2, 1, 0][..], Some(1)));
        assert_eq!(found_in(&directory), [next]);
        // Plugged in again since, or another.
        let mut other = Debt { address: 18, interfaces: vec![1], ..debt() };
        drop(note_in(&directory, "3-1", &mut other).unwrap());
        assert_eq!(other.interfaces, [1]);
        assert_eq!(found_in(&directory), [other]);
        fs::remove_dir_all(directory).unwrap();
    }
}
