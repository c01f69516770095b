//! Who this process is to the file system.

/// Flag of an open file (`open(2)`): a last part of the path that is a symbolic link is an error.
pub const NO_FOLLOW: i32 = libc::O_NOFOLLOW;

/// The user to whom files belong that this process makes.
#[must_use]
pub fn effective_id() -> u32 {
    // SAFETY: asks only, and can't fail.
    unsafe { libc::geteuid() }
}
