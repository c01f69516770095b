//! The identity of this process in the file system.

/// Flag of an open file (`open(2)`): a symbolic link as the last part of the path is an error.
pub const NO_FOLLOW: i32 = libc::O_NOFOLLOW;

/// The owner of new files of this process.
#[must_use]
pub fn effective_id() -> u32 {
    // SAFETY: asks only, and can't fail.
    unsafe { libc::geteuid() }
}
