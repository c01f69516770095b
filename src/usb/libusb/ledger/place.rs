//! The directory of the notes, in which no other user can write.
//!
//! Contract: reads and writes files, hence for workers.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use usbferry_sys::os::user;

use crate::complaints::{info, warn};
use crate::runtime;

/// The directory of the notes: that of the last note while fit for notes still, or else the first
/// that is fit.
pub(super) fn directory() -> Option<PathBuf> {
    static LAST: Mutex<Option<PathBuf>> = Mutex::new(None);
    let last = LAST.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // What the first look found of the parent directory holds: only the directory's owner or the
    // parent's could change that, and both are trusted.
    if let Some(last) = last.filter(|last| check_directory(last).is_ok()) {
        return Some(last);
    }
    let found = find_directory();
    LAST.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&found);
    found
}

/// The first fit directory, which a restart of the machine empties, as a restart gives drivers
/// back.
fn find_directory() -> Option<PathBuf> {
    runtime::directories().find(|directory| {
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

/// Whether a directory's fitness differs from the last look.
fn is_news(directory: &Path, is_refused: bool) -> bool {
    static REFUSED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    if is_refused { refused.insert(directory.to_owned()) } else { refused.remove(directory) }
}

/// Why a directory can't hold notes.
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
            Self::Link => {
                f.write_str("symbolic links are not followed, and this is a symbolic link")
            }
            Self::NoDirectory => f.write_str("this is no directory"),
            Self::Foreign { owner, us } => {
                write!(f, "the directory belongs to user {owner}, and usbferry runs as user {us}")
            }
            Self::Open(mode) => {
                write!(
                    f,
                    "others may write to the directory (mode {mode:o}); chmod go-w would help"
                )
            }
            Self::Replaceable(parent) => {
                let parent = parent.display();
                write!(f, "others may replace the directory, because they may write to {parent}")
            }
            Self::ReadOnly(error) => write!(f, "the directory can't be written to: {error}"),
        }
    }
}

/// Makes a directory, or takes an existing directory. False where this user may make none.
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

/// A user who may write in the parent directory could put another directory in this place.
fn check_parent(parent: &Path) -> Result<(), Unfit> {
    const WORLD_WRITABLE: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    let Ok(found) = fs::metadata(parent) else { return Ok(()) };
    let is_trusted = [0, user::effective_id()].contains(&found.uid());
    let is_open = found.mode() & WORLD_WRITABLE != 0 && found.mode() & STICKY == 0;
    if is_trusted && !is_open { Ok(()) } else { Err(Unfit::Replaceable(parent.to_owned())) }
}

/// Options for a file to be made where none exists.
pub(super) fn writable() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true).mode(0o600);
    options
}

/// Opens a file of this user's, and neither a link nor a device.
pub(super) fn open_own(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.custom_flags(user::NO_FOLLOW).open(path)?;
    let found = file.metadata()?;
    if found.is_file() && found.uid() == user::effective_id() {
        return Ok(file);
    }
    Err(io::Error::other("the file does not belong to this user"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A directory for one test.
    pub(in super::super) fn scratch(name: &str) -> PathBuf {
        let directory =
            std::env::temp_dir().join(format!("usbferry-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn a_directory_as_unfit_as_before_is_no_news() {
        let [one, other] = ["/nowhere/one", "/nowhere/other"].map(Path::new);
        let looks = [(one, false), (one, true), (one, true), (other, true), (one, false)];
        let news = looks.map(|(directory, is_refused)| is_news(directory, is_refused));
        assert_eq!(news, [false, true, false, true, true]);
        assert!(is_news(one, true) && is_news(other, false));
    }

    /// Why a directory is not taken.
    fn refusal(directory: &Path) -> String {
        take_directory(directory).expect_err("it is not this user's alone").to_string()
    }

    fn is_taken(directory: &Path) -> bool {
        matches!(take_directory(directory), Ok(true))
    }

    #[test]
    fn a_directory_with_other_writers_is_not_taken() {
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
        // A link planted in the directory.
        fs::remove_file(ours.join(".writable")).unwrap();
        symlink(scratch.join("elsewhere"), ours.join(".writable")).unwrap();
        assert!(refusal(&ours).contains("can't be written"));
        assert!(!scratch.join("elsewhere").exists());
        // A parent in which anybody could exchange the directory.
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

    /// Another user's directory: root's, or for root a directory given away.
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
        // Below another user's directory there may be no directory, or none to last.
        assert!(!is_taken(&theirs));
        fs::remove_dir_all(scratch).unwrap();
    }
}
