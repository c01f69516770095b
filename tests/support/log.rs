//! The server's log, kept for tests.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Kept(Mutex<Vec<(Level, String)>>);

static KEPT: Kept = Kept(Mutex::new(Vec::new()));

/// Done when the log is kept.
static KEEP: Once = Once::new();

thread_local! {
    /// Set in a test that looks at the log, since other tests run at the same time in threads of
    /// their own.
    static IS_KEPT: Cell<bool> = const { Cell::new(false) };
}

impl Kept {
    fn lines(&self) -> MutexGuard<'_, Vec<(Level, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Kept {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        self.lines().push((record.level(), record.args().to_string()));
    }

    fn flush(&self) {}
}

/// Keeps the log from now on, at info and above. From now on clients connected by this thread have
/// addresses of their own.
pub(crate) fn keep() {
    IS_KEPT.set(true);
    KEEP.call_once(|| {
        log::set_logger(&KEPT).expect("nobody else logs here");
        log::set_max_level(LevelFilter::Info);
    });
}

/// Whether this thread's test looks at the log.
pub(crate) fn is_kept() -> bool {
    IS_KEPT.get()
}

/// Forgets the lines about a client of an earlier test with the same address.
pub(crate) fn forget(client: SocketAddr) {
    let start = format!("{client}: ");
    KEPT.lines().retain(|(_, line)| !line.starts_with(&start));
}

/// The warnings and errors about a client.
pub(crate) fn complaints_about(client: SocketAddr) -> Vec<String> {
    let start = format!("{client}: ");
    let lines = KEPT.lines();
    let complaints = lines.iter().filter(|(level, _)| *level <= Level::Warn);
    complaints.map(|(_, line)| line).filter(|line| line.starts_with(&start)).cloned().collect()
}

/// All lines with `text`.
pub(crate) fn lines_with(text: &str) -> Vec<String> {
    let lines = KEPT.lines();
    lines.iter().map(|(_, line)| line).filter(|line| line.contains(text)).cloned().collect()
}
