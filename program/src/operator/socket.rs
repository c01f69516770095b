//! The socket of operators in the file system: at one path, of one living server.
//!
//! A lock beside the socket tells a living server from a dead server: the system drops the lock
//! with the process. The socket of a dead server is replaced; the socket of a living server never,
//! and neither is anything else that lies in the path. A new socket is bound under another name,
//! gets its mode, and only then takes the path, so nobody connects to a socket of another mode.
//!
//! Contract: calls of the file system, which may block; nothing waits for another process.

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use usbferry_sys::os::user;

use crate::words::reason;

/// Tries to lock the file that has the path of the lock: other servers may end meanwhile, and
/// remove the file.
const LOCK_TRIES: usize = 10;

/// A socket in its path, until dropped.
#[derive(Debug)]
pub(super) struct Bound {
    path: PathBuf,
    /// The device and the number of the socket in the file system.
    identity: (u64, u64),
    /// Held until the socket is gone: fields are dropped after the whole.
    _lock: Lock,
}

/// A locked file, which is gone when dropped.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _file: File,
}

/// Why a path can't have a socket.
#[derive(Debug)]
pub enum BindError {
    /// A living server has the socket.
    Living(PathBuf),
    /// Something else than a socket lies there.
    NoSocket(PathBuf),
    /// The system's reason.
    Failed(PathBuf, io::Error),
}

impl std::error::Error for BindError {}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Living(path) => write!(
                f,
                "{}: another server has this socket; give each server a socket of its own with \
                 --socket PATH, or none with --socket none",
                path.display()
            ),
            Self::NoSocket(path) => write!(
                f,
                "{}: there is a file of another kind, which is left alone; give another path with \
                 --socket",
                path.display()
            ),
            Self::Failed(path, error) => write!(
                f,
                "{}: no socket for operators can be made there: {}; give another path with \
                 --socket, or none with --socket none",
                path.display(),
                reason(error)
            ),
        }
    }
}

impl Bound {
    /// Makes the socket at `path`, which users with `mode` may connect to, and listens there.
    ///
    /// # Errors
    /// A living server has the socket, or the system refuses.
    pub(super) fn new(path: &Path, mode: u32) -> Result<(Self, UnixListener), BindError> {
        let failed = |error| BindError::Failed(path.to_owned(), error);
        let lock = Lock::take(sibling(path, "lock")).map_err(failed)?;
        let lock = lock.ok_or_else(|| BindError::Living(path.to_owned()))?;
        check_replaceable(path)?;
        let temporary = sibling(path, "new");
        let bound = bind(&temporary, mode).and_then(|(listener, identity)| {
            fs::rename(&temporary, path)?;
            Ok((listener, identity))
        });
        let (listener, identity) = bound.map_err(|error| {
            let _ = fs::remove_file(&temporary);
            failed(error)
        })?;
        Ok((Self { path: path.to_owned(), identity, _lock: lock }, listener))
    }

    /// The path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if identity_of(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Lock {
    /// Locks the file at `path`, which is made if there is none; `None` while another process has
    /// the file locked.
    fn take(path: PathBuf) -> io::Result<Option<Self>> {
        for _ in 0..LOCK_TRIES {
            let mut options = OpenOptions::new();
            options.create(true).truncate(false).read(true).write(true).mode(0o600);
            let file = options.custom_flags(user::NO_FOLLOW).open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            let found = file.metadata()?;
            if identity_of(&path).is_ok_and(|identity| identity == (found.dev(), found.ino())) {
                return Ok(Some(Self { path, _file: file }));
            }
        }
        Ok(None)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While locked: whoever opens the file now can't lock it, and a later file is another.
        let _ = fs::remove_file(&self.path);
    }
}

/// A hidden file beside the socket, which the directory's other readers leave alone.
fn sibling(path: &Path, purpose: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{purpose}"))
}

fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Whether the path is free, or has the socket of a dead server.
fn check_replaceable(path: &Path) -> Result<(), BindError> {
    let failed = |error| BindError::Failed(path.to_owned(), error);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match connects(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Somebody listens, perhaps too busy to accept, or not for this user.
        _ => Err(BindError::Living(path.to_owned())),
    }
}

/// Connects to a socket, without a wait.
fn connects(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

fn bind(path: &Path, mode: u32) -> io::Result<(UnixListener, (u64, u64))> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    listener.set_nonblocking(true)?;
    Ok((listener, identity_of(path)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_socket_has_its_mode_and_is_gone_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        for mode in [0o600, 0o666] {
            let bound = Bound::new(&path, mode).unwrap();
            assert_eq!((bound.0.path(), mode_of(&path)), (&*path, mode));
            connects(&path).unwrap();
            drop(bound);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_living_server_keeps_its_socket_and_a_dead_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let bound = Bound::new(&path, 0o600).unwrap();
        let refused = Bound::new(&path, 0o600).unwrap_err();
        assert!(refused.to_string().contains("--socket PATH"), "{refused}");
        connects(&path).unwrap();
        drop(bound);
        // Some other program's, without a lock.
        let foreign = UnixListener::bind(&path).unwrap();
        assert!(matches!(Bound::new(&path, 0o600), Err(BindError::Living(_))));
        drop(foreign);
        assert!(connects(&path).is_err() && path.exists(), "as after a kill");
        let bound = Bound::new(&path, 0o600).unwrap();
        connects(&path).unwrap();
        drop(bound);
    }

    #[test]
    fn another_socket_in_the_path_is_left_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let bound = Bound::new(&path, 0o600).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(bound);
        connects(&path).unwrap();
    }

    #[test]
    fn files_and_links_are_no_sockets_to_replace() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "text").unwrap();
        assert!(matches!(Bound::new(&path, 0o600), Err(BindError::NoSocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(Bound::new(&link, 0o600), Err(BindError::NoSocket(_))));
        let nowhere = folder.path().join("none/a.sock");
        let error = Bound::new(&nowhere, 0o600).unwrap_err().to_string();
        assert!(error.contains("--socket none") && !error.contains("os error"), "{error}");
        let long = folder.path().join("x".repeat(200));
        assert!(matches!(Bound::new(&long, 0o600), Err(BindError::Failed(..))));
    }
}
