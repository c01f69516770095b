//! The treatment of a signal from the start of the process.

use std::ptr;

/// Whether a signal is ignored, as SIGHUP is under `nohup`. False for a number that is no signal.
#[must_use]
pub fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks only, and `action` is valid to write to.
    let code = unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: integers only, all zeroed, and filled in where the system knew the signal.
    code == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "asks the system")]
    fn ignored_signals_are_recognised() {
        // Rust's runtime ignores SIGPIPE (`std::io`).
        assert!(is_ignored(libc::SIGPIPE));
        assert!(!is_ignored(libc::SIGTERM));
        assert!(!is_ignored(-1));
    }
}
