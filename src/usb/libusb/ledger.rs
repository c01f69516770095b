//! Remembers, outside the process, whose kernel drivers are detached.
//!
//! When usbferry is killed, the kernel frees its devices but gives no driver back, and what a
//! client has configured them to stays. So while a device is open there is a file that names it,
//! the interfaces to give back and the configuration to go back to, locked as long as the process
//! lives; a start that finds one unlocked does what was left undone. Only what was done removes the
//! file: however else the process, or a session of it, may end, the file stays.
//!
//! Contract: reads and writes files, so it is for workers. Nothing here fails: without a place for
//! the files, devices are exported all the same, and a kill leaves drivers detached.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use usbferry_sys::os::user;

use crate::complaints::{info, warn};

/// What to do for a device that was left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Debt {
    pub(super) bus: u8,
    pub(super) address: u8,
    pub(super) id_vendor: u16,
    pub(super) id_product: u16,
    /// Interfaces that kernel drivers had.
    pub(super) interfaces: Vec<u8>,
    /// The configuration that it was found in; `None` if that was none, to which nothing goes back.
    pub(super) configuration: Option<u8>,
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

/// Where the files are: a place that a restart of the machine empties, as it does drivers. A
/// service manager can say which (systemd.exec, `RuntimeDirectory=`; of several, the first).
fn directory() -> Option<PathBuf> {
    let place = |variable| {
        let value = std::env::var_os(variable)?.into_string().ok()?;
        value.split(':').next().filter(|path| !path.is_empty()).map(PathBuf::from)
    };
    let subdirectory = |place: PathBuf| place.join("usbferry");
    let places = [
        place("RUNTIME_DIRECTORY"),
        Some(PathBuf::from("/run/usbferry")),
        place("XDG_RUNTIME_DIR").map(subdirectory),
    ];
    places.into_iter().flatten().find(|directory| {
        let taken = take_directory(directory);
        let is_news = is_news(directory, taken.is_err());
        let directory = directory.display();
        match &taken {
            Err(why) if is_news => {
                warn!("{directory}: no notes of kernel drivers are kept there: {why}");
            }
            Ok(true) if is_news => info!("{directory}: notes of kernel drivers are kept there"),
            _ => {}
        }
        matches!(taken, Ok(true))
    })
}

/// Whether that a place can't be used, or that it can, is another thing than when it was looked at
/// last.
fn is_news(directory: &Path, is_refused: bool) -> bool {
    static REFUSED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    if is_refused { refused.insert(directory.to_owned()) } else { refused.remove(directory) }
}

/// Why a directory can't hold notes of what was taken.
#[derive(Debug)]
enum Unfit {
    /// Nothing is known of the directory.
    Unknown(io::Error),
    /// A symbolic link, which may lead anywhere.
    Link,
    /// A file or the like.
    NoDirectory,
    /// Another user's.
    Foreign { owner: u32, us: u32 },
    /// Other users may write in the directory, by its mode.
    Open(u32),
    /// Other users may write in the directory above.
    Replaceable(PathBuf),
    /// No file can be made or written to.
    ReadOnly(io::Error),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(error) => error.fmt(f),
            Self::Link => f.write_str("it is a symbolic link, which is not followed"),
            Self::NoDirectory => f.write_str("it is no directory"),
            Self::Foreign { owner, us } => {
                write!(f, "it belongs to user {owner}, and this is user {us}")
            }
            Self::Open(mode) => {
                write!(f, "others may write there (mode {mode:o}); chmod go-w would help")
            }
            Self::Replaceable(parent) => {
                let parent = parent.display();
                write!(f, "others may replace it, because they may write in {parent}")
            }
            Self::ReadOnly(error) => write!(f, "it can't be written to: {error}"),
        }
    }
}

/// Makes a directory, or takes the one that is there. False where this user may make none.
///
/// # Errors
/// The directory is not this user's alone, and other users must not name devices for us.
fn take_directory(directory: &Path) -> Result<bool, Unfit> {
    let made = fs::DirBuilder::new().mode(0o700).create(directory);
    if made.is_err() && fs::symlink_metadata(directory).is_err() {
        return Ok(false);
    }
    check_directory(directory)?;
    if let Some(parent) = directory.parent() {
        check_parent(parent)?;
    }
    let probe = open_own(&mut writable(), &directory.join(".writable"));
    probe.map(|_| true).map_err(Unfit::ReadOnly)
}

fn check_directory(directory: &Path) -> Result<(), Unfit> {
    let found = fs::symlink_metadata(directory).map_err(Unfit::Unknown)?;
    let (owner, us) = (found.uid(), user::effective_id());
    let mode = found.mode() & 0o7777;
    if found.is_symlink() {
        Err(Unfit::Link)
    } else if !found.is_dir() {
        Err(Unfit::NoDirectory)
    } else if owner != us {
        Err(Unfit::Foreign { owner, us })
    } else if mode & 0o022 != 0 {
        Err(Unfit::Open(mode))
    } else {
        Ok(())
    }
}

/// Whoever may write in the parent may put another directory in this one's place.
fn check_parent(parent: &Path) -> Result<(), Unfit> {
    const WORLD_WRITABLE: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    let Ok(found) = fs::metadata(parent) else { return Ok(()) };
    let is_trusted = [0, user::effective_id()].contains(&found.uid());
    let is_open = found.mode() & WORLD_WRITABLE != 0 && found.mode() & STICKY == 0;
    if is_trusted && !is_open { Ok(()) } else { Err(Unfit::Replaceable(parent.to_owned())) }
}

/// Options for a file that is made where there is none.
fn writable() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true).mode(0o600);
    options
}

/// Opens a file of this user's, which is neither a link nor anything but a file.
fn open_own(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.custom_flags(user::NO_FOLLOW).open(path)?;
    let found = file.metadata()?;
    if found.is_file() && found.uid() == user::effective_id() {
        return Ok(file);
    }
    Err(io::Error::other("it is no file of this user"))
}

/// Notes a debt, and adds to it what is still owed to the same device.
pub(super) fn note(busid: &str, debt: &mut Debt) -> Option<Entry> {
    note_in(&directory()?, busid, debt)
}

fn note_in(directory: &Path, busid: &str, debt: &mut Debt) -> Option<Entry> {
    let noted = Entry::open(&mut writable(), directory.join(busid)).and_then(|mut entry| {
        let left = entry.read()?.filter(|left| left.is_of_same_device(debt));
        for interface in left.iter().flat_map(|left| &left.interfaces) {
            if !debt.interfaces.contains(interface) {
                debt.interfaces.push(*interface);
            }
        }
        let configuration = left.and_then(|left| left.configuration);
        debt.configuration = configuration.or(debt.configuration);
        entry.write(debt)?;
        Ok(entry)
    });
    noted.inspect_err(|error| warn!("{busid}: no note of its drivers can be kept: {error}")).ok()
}

impl Entry {
    /// Opens and locks a file; fails while another process has it locked.
    fn open(options: &mut OpenOptions, path: PathBuf) -> io::Result<Self> {
        let file = open_own(options, &path)?;
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
        Debt {
            bus: 3,
            address: 17,
            id_vendor: 0x0781,
            id_product: 0x5567,
            interfaces: vec![0, 2],
            configuration: Some(1),
        }
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

    #[test]
    fn what_does_not_change_is_no_news() {
        let [one, other] = ["/nowhere/one", "/nowhere/other"].map(Path::new);
        let looks = [(one, false), (one, true), (one, true), (other, true), (one, false)];
        let news = looks.map(|(directory, is_refused)| is_news(directory, is_refused));
        assert_eq!(news, [false, true, false, true, true]);
        assert!(is_news(one, true) && is_news(other, false));
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

    /// Why a directory is not taken.
    fn refusal(directory: &Path) -> String {
        take_directory(directory).expect_err("it is not this user's alone").to_string()
    }

    fn is_taken(directory: &Path) -> bool {
        matches!(take_directory(directory), Ok(true))
    }

    #[test]
    fn a_directory_is_taken_only_if_nobody_else_may_write_there() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let scratch = scratch("taken");
        let chmod = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let [ours, link] = ["ours", "link"].map(|name| scratch.join(name));
        assert!(is_taken(&ours), "it is made");
        assert_eq!(fs::metadata(&ours).unwrap().mode() & 0o777, 0o700);
        assert!(is_taken(&ours), "and found");
        symlink(&ours, &link).unwrap();
        assert!(refusal(&link).contains("symbolic link"));
        for mode in [0o770, 0o702, 0o777] {
            chmod(&ours, mode);
            assert!(refusal(&ours).contains("others may write"), "{mode:o}");
        }
        chmod(&ours, 0o755);
        // What is planted in it.
        fs::remove_file(ours.join(".writable")).unwrap();
        symlink(scratch.join("elsewhere"), ours.join(".writable")).unwrap();
        assert!(refusal(&ours).contains("can't be written"));
        assert!(!scratch.join("elsewhere").exists());
        // A place where anybody could exchange it.
        fs::remove_file(ours.join(".writable")).unwrap();
        chmod(&scratch, 0o777);
        assert!(refusal(&ours).contains("replace"));
        chmod(&scratch, 0o1777);
        assert!(is_taken(&ours), "as in /tmp");
        chmod(&scratch, 0o755);
        assert!(matches!(take_directory(&scratch.join("none/at/all")), Ok(false)));
        fs::write(scratch.join("file"), "").unwrap();
        assert!(refusal(&scratch.join("file")).contains("no directory"));
        fs::remove_dir_all(scratch).unwrap();
    }

    /// Another user's directory: root's, or for root one that root gives away.
    #[test]
    fn a_directory_of_another_user_is_not_taken() {
        let scratch = scratch("another");
        let theirs = if user::effective_id() == 0 {
            let theirs = scratch.join("theirs");
            fs::create_dir(&theirs).unwrap();
            std::os::unix::fs::chown(&theirs, Some(12_345), None).unwrap();
            assert!(refusal(&theirs).contains("belongs to user 12345"));
            theirs.join("below")
        } else {
            assert!(refusal(Path::new("/")).contains("belongs to user 0"));
            PathBuf::from("/usbferry")
        };
        // Below another's directory there may be none, or none that stays.
        assert!(!is_taken(&theirs));
        fs::remove_dir_all(scratch).unwrap();
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
    fn what_is_still_owed_to_a_device_is_added_to_its_next_debt() {
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
