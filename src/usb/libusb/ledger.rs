//! Remembers, outside the process, whose kernel drivers are detached.
//!
//! When usbferry is killed, the kernel frees its devices but gives no driver back. So while a
//! device is open there is a file that names it and the interfaces to give back, locked as long as
//! the process lives; a start that finds one unlocked does what was left undone. Only what was done
//! removes the file: however else the process, or a session of it, may end, the file stays.
//!
//! Contract: reads and writes files, so it is for workers. Nothing here fails: without a place for
//! the files, devices are exported all the same, and a kill leaves drivers detached.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
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

/// A file that stands for a device whose drivers are to be given back, locked. One that is dropped,
/// and not settled, is left for the next start.
#[derive(Debug)]
pub(super) struct Entry {
    file: File,
    path: PathBuf,
}

impl Debt {
    /// Whether this is owed to the same device.
    pub(super) fn is_of_same_device(&self, other: &Self) -> bool {
        let device = |debt: &Self| (debt.bus, debt.address, debt.id_vendor, debt.id_product);
        device(self) == device(other)
    }

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

/// Notes a debt, and adds to it what is still owed to the same device.
pub(super) fn note(busid: &str, debt: &mut Debt) -> Option<Entry> {
    note_in(&directory()?, busid, debt)
}

fn note_in(directory: &Path, busid: &str, debt: &mut Debt) -> Option<Entry> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    let noted = Entry::open(&options, directory.join(busid)).and_then(|mut entry| {
        let left = entry.read()?.filter(|left| left.is_of_same_device(debt));
        for interface in left.iter().flat_map(|left| &left.interfaces) {
            if !debt.interfaces.contains(interface) {
                debt.interfaces.push(*interface);
            }
        }
        entry.write(debt)?;
        Ok(entry)
    });
    noted.inspect_err(|error| debug!("{busid}: no note of its drivers can be kept: {error}")).ok()
}

impl Entry {
    /// Opens and locks a file; fails while another process has it locked.
    fn open(options: &OpenOptions, path: PathBuf) -> io::Result<Self> {
        let file = options.open(&path)?;
        file.try_lock()?;
        Ok(Self { file, path })
    }

    fn read(&mut self) -> io::Result<Option<Debt>> {
        let mut line = String::new();
        self.file.read_to_string(&mut line)?;
        Ok(Debt::from_line(&line))
    }

    fn write(&mut self, debt: &Debt) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(debt.to_line().as_bytes())
    }

    /// Notes other interfaces.
    pub(super) fn update(&mut self, debt: &Debt) {
        let _ = self.write(debt);
    }

    /// There is nothing to give back any more.
    pub(super) fn settle(self) {
        // While it is still locked, so that nobody reads a debt that is settled.
        let _ = fs::remove_file(&self.path);
    }
}

/// What processes that are gone have left.
pub(super) fn debts() -> Vec<(Debt, Entry)> {
    directory().map(|directory| debts_in(&directory)).unwrap_or_default()
}

fn debts_in(directory: &Path) -> Vec<(Debt, Entry)> {
    let Ok(files) = fs::read_dir(directory) else { return Vec::new() };
    files.filter_map(|file| debt_in(file.ok()?.path())).collect()
}

fn debt_in(path: PathBuf) -> Option<(Debt, Entry)> {
    if path.file_name()?.to_string_lossy().starts_with('.') {
        return None;
    }
    // It fails while its process lives, and so does its session.
    let mut entry = Entry::open(OpenOptions::new().read(true), path).ok()?;
    // What is none stays: the directory may not be ours alone.
    let debt = entry.read().ok()??;
    Some((debt, entry))
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

    /// What is noted there and not locked.
    fn found_in(directory: &Path) -> Vec<Debt> {
        debts_in(directory).into_iter().map(|(debt, _)| debt).collect()
    }

    #[test]
    fn a_debt_is_found_only_when_its_process_is_gone() {
        let directory = scratch("debts");
        let entry = note_in(&directory, "3-1", &mut debt()).unwrap();
        assert_eq!(found_in(&directory), []);
        // As when it is killed, or panics: the lock goes, the file stays.
        drop(entry);
        assert_eq!(found_in(&directory), [debt()]);
        fs::write(directory.join("notes"), "somebody else's").unwrap();
        assert_eq!(found_in(&directory), [debt()]);
        assert!(directory.join("notes").exists());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_debt_that_is_found_stays_until_it_is_settled() {
        let directory = scratch("found");
        drop(note_in(&directory, "3-1", &mut debt()).unwrap());
        let found = debts_in(&directory);
        assert_eq!(found_in(&directory), [], "somebody sees to it");
        assert!(directory.join("3-1").exists(), "who may be killed");
        drop(found);
        let (_, entry) = debts_in(&directory).remove(0);
        entry.settle();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_settled_debt_leaves_nothing() {
        let directory = scratch("settled");
        let mut entry = note_in(&directory, "3-1", &mut debt()).unwrap();
        entry.update(&Debt { interfaces: vec![5], ..debt() });
        let line = fs::read_to_string(&entry.path).unwrap();
        assert_eq!(Debt::from_line(&line).unwrap().interfaces, [5]);
        entry.settle();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_is_still_owed_to_a_device_is_added_to_its_next_debt() {
        let directory = scratch("added");
        drop(note_in(&directory, "3-1", &mut debt()).unwrap());
        let mut next = Debt { interfaces: vec![2, 1], ..debt() };
        drop(note_in(&directory, "3-1", &mut next).unwrap());
        assert_eq!(next.interfaces, [2, 1, 0]);
        assert_eq!(found_in(&directory), [next]);
        // Plugged in again since, or another.
        let mut other = Debt { address: 18, interfaces: vec![1], ..debt() };
        drop(note_in(&directory, "3-1", &mut other).unwrap());
        assert_eq!(other.interfaces, [1]);
        assert_eq!(found_in(&directory), [other]);
        fs::remove_dir_all(directory).unwrap();
    }
}
