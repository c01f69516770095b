//! The process's limit of open files.

use std::io;

/// Raises the soft limit of open files to the hard limit and returns the limit. Each client and
/// each device takes a few files; many systems start programs with 1024. A limit beyond `usize`,
/// such as "infinity", is `usize::MAX`.
///
/// # Errors
/// The system's refusal; the limit is then unchanged.
pub fn raise_open_files() -> io::Result<usize> {
    let mut limit = read_open_files()?;
    limit.rlim_cur = limit.rlim_max;
    // macOS refuses more than OPEN_MAX even where the hard limit is "infinity".
    #[cfg(target_os = "macos")]
    {
        limit.rlim_cur = limit.rlim_cur.min(10_240);
    }
    // SAFETY: `limit` is a valid rlimit to read from.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(number(limit.rlim_cur))
}

/// The process's limit of open files, in the same form.
///
/// # Errors
/// The system's refusal.
pub fn open_files() -> io::Result<usize> {
    read_open_files().map(|limit| number(limit.rlim_cur))
}

fn read_open_files() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit to write to.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit)
}

/// A limit as a number: an `rlim_t` has 32 bits on some systems with 32-bit addresses, 64 on others.
fn number(limit: libc::rlim_t) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Whether a call failed for want of open files or memory in the process or the system, and not
/// because of its arguments.
#[must_use]
pub fn is_reached(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}
