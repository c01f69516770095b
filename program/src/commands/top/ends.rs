//! The signals that end `usbferry top`: not before the terminal is as it was.
//!
//! SIGHUP ends the program at once, as any program: the terminal is gone, and crossterm 0.29 waits
//! for keys in a loop that a terminal's end does not end.
//!
//! Contract: a signal is only noted; [`Ends::end`] may end the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::emulate_default_handler;
use usbferry_sys::os::signal::is_ignored;

/// No signal.
const NONE: usize = 0;

/// The signal that has come, if any.
pub(super) struct Ends(Arc<AtomicUsize>);

impl Ends {
    /// Notes signals from now on, but for ignored signals.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn on_signals() -> io::Result<Self> {
        let ends = Self(Arc::new(AtomicUsize::new(NONE)));
        for signal in [SIGINT, SIGQUIT, SIGTERM] {
            if !is_ignored(signal) {
                let number = usize::try_from(signal).unwrap_or(NONE);
                flag::register_usize(signal, Arc::clone(&ends.0), number)?;
            }
        }
        Ok(ends)
    }

    /// Whether a signal has come.
    pub(super) fn has_come(&self) -> bool {
        self.0.load(Ordering::SeqCst) != NONE
    }

    /// Ends the process as the signal would have done, if there was a signal.
    pub(super) fn end(&self) {
        if let Ok(signal @ 1..) = i32::try_from(self.0.load(Ordering::SeqCst)) {
            // An error leaves the rest to the caller, who ends the program, too.
            let _ = emulate_default_handler(signal);
        }
    }
}
