//! A budget for the log, which keeps the log readable while clients misbehave: a number of lines a
//! second about clients and their devices; lines beyond are counted.
//!
//! Each server has a budget, and every thread of the server logs within that budget
//! ([`Complaints::take_thread`]). Code whose messages a peer can cause, however often, takes
//! `error`, `warn` and `info` from here and not from `log`: a peer that imports and leaves has as
//! many lines as a peer that sends garbage. `debug` is not counted: a user who asks for debug lines
//! wants all.
//!
//! Contract: any thread; a lock is held while lines are counted.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::COMPLAINTS_PER_SECOND;

const SECOND: Duration = Duration::from_secs(1);

/// The budget of one server. Clones share it.
#[derive(Clone)]
pub struct Complaints(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Lines were left out and not yet reported. Read without the lock.
    has_left_out: AtomicBool,
}

/// Lines written and left out in the current second.
struct State {
    since: Instant,
    written: u32,
    left_out: u32,
}

thread_local! {
    /// The budget of the server that this thread works for.
    static OF_THREAD: RefCell<Option<Complaints>> = const { RefCell::new(None) };
}

impl Complaints {
    /// The whole budget, from a moment on.
    pub fn new(now: Instant) -> Self {
        let state = Mutex::new(State { since: now, written: 0, left_out: 0 });
        Self(Arc::new(Shared { state, has_left_out: AtomicBool::new(false) }))
    }

    /// Has the lines of this thread count from now on.
    pub fn take_thread(&self) {
        OF_THREAD.with_borrow_mut(|of_thread| *of_thread = Some(self.clone()));
    }

    /// The budget of the server that this thread works for, for a thread that this thread starts.
    pub(crate) fn of_thread() -> Option<Self> {
        OF_THREAD.with_borrow(Clone::clone)
    }

    /// Whether one more line may be written now.
    pub(crate) fn may_complain(&self, now: Instant) -> bool {
        self.tell_left_out(now);
        let mut state = self.lock();
        if now >= state.since + SECOND {
            *state = State { since: now, written: 0, left_out: 0 };
        }
        let may = state.written < COMPLAINTS_PER_SECOND;
        if may {
            state.written += 1;
        } else {
            state.left_out += 1;
            self.0.has_left_out.store(true, Ordering::Relaxed);
        }
        may
    }

    /// When to call [`Self::tell_left_out`].
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        let has_left_out = self.0.has_left_out.load(Ordering::Relaxed);
        has_left_out.then(|| self.end_of_second())
    }

    #[cold]
    fn end_of_second(&self) -> Instant {
        self.lock().since + SECOND
    }

    /// Reports how many lines were left out in a second that is over.
    pub fn tell_left_out(&self, now: Instant) {
        if !self.0.has_left_out.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.lock();
        if now < state.since + SECOND {
            return;
        }
        let left_out = state.left_out;
        // The report is the first line of the next second.
        *state = State { since: now, written: 1, left_out: 0 };
        self.0.has_left_out.store(false, Ordering::Relaxed);
        drop(state);
        if left_out > 0 {
            log::warn!("{left_out} more lines about clients and their devices were left out");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this thread may log one more line. A thread without a server may log everything.
pub fn may_say() -> bool {
    OF_THREAD.with_borrow(|complaints| {
        complaints.as_ref().is_none_or(|complaints| complaints.may_complain(Instant::now()))
    })
}

/// Logs a message at a level, as far as the budget goes.
#[macro_export]
#[doc(hidden)]
macro_rules! say {
    ($level:ident, $($message:tt)+) => {
        if ::log::log_enabled!(::log::Level::$level) && $crate::complaints::may_say() {
            ::log::log!(::log::Level::$level, $($message)+);
        }
    };
}

#[macro_export]
#[doc(hidden)]
macro_rules! say_error {
    ($($message:tt)+) => { $crate::complaints::say!(Error, $($message)+) };
}

#[macro_export]
#[doc(hidden)]
macro_rules! say_warn {
    ($($message:tt)+) => { $crate::complaints::say!(Warn, $($message)+) };
}

#[macro_export]
#[doc(hidden)]
macro_rules! say_info {
    ($($message:tt)+) => { $crate::complaints::say!(Info, $($message)+) };
}

pub use {say, say_error as error, say_info as info, say_warn as warn};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::source_of;

    #[test]
    fn a_flood_is_cut_and_the_next_second_begins_anew() {
        let start = Instant::now();
        let complaints = Complaints::new(start);
        assert_eq!(complaints.deadline(), None);
        let written = (0..1000).filter(|_| complaints.may_complain(start)).count();
        assert_eq!(written, COMPLAINTS_PER_SECOND as usize);
        assert_eq!(complaints.lock().left_out, 1000 - COMPLAINTS_PER_SECOND);
        assert_eq!(complaints.deadline(), Some(start + SECOND), "it is said without another line");
        complaints.tell_left_out(start);
        assert_eq!(complaints.deadline(), Some(start + SECOND), "the second is not over");
        // The report is one of the lines of the next second.
        let written = (0..1000).filter(|_| complaints.may_complain(start + SECOND)).count();
        assert_eq!(written, COMPLAINTS_PER_SECOND as usize - 1);
    }

    #[test]
    fn all_threads_of_a_server_have_one_budget() {
        let complaints = Complaints::new(Instant::now());
        let said = |complaints: &Complaints| {
            let complaints = complaints.clone();
            let thread = std::thread::spawn(move || {
                complaints.take_thread();
                (0..COMPLAINTS_PER_SECOND).filter(|_| may_say()).count()
            });
            thread.join().expect("no panic")
        };
        assert_eq!(said(&complaints), COMPLAINTS_PER_SECOND as usize);
        assert!(may_say(), "this thread works for no server");
        let late = said(&complaints);
        // Unless a second has gone by.
        assert!(late == 0 || complaints.lock().since.elapsed() < SECOND, "{late}");
    }

    /// Lines of `log`'s own macros have no limit. Only messages that no peer can cause are logged
    /// directly: about a stop, and about the exports after the start and a reload.
    #[test]
    fn messages_about_peers_go_through_the_limit() {
        const BY_ITSELF: [&str; 3] = [
            r#"log::info!("stopping: giving back every device");"#,
            r#"exports.for_each(|line| log::info!("{line}"));"#,
            r#"meaning.ambiguous().iter().for_each(|line| log::warn!("{line}"));"#,
        ];
        let parts = ["reactor", "session", "usb", "worker", "caught", "handshake", "hooks"];
        for (file, text) in parts.into_iter().flat_map(source_of) {
            for line in text.lines().map(str::trim).filter(|line| !BY_ITSELF.contains(line)) {
                let is_from_log = ["info", "warn", "error"].iter().any(|level| {
                    line.contains(&format!("log::{level}!"))
                        || line.starts_with("use log::") && line.contains(level)
                });
                assert!(!is_from_log, "{}: \"{line}\" has no limit", file.display());
            }
        }
    }
}
