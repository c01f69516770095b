//! Work that may panic without ending the thread: a bug costs a device the session, but not the
//! server the device.
//!
//! Contract: for workers. A panic drops everything owned by the work. Borrowed values may be left
//! half changed, so a caller must not rely on a kept value's state after a panic. Nothing unwinds
//! out of this module, not even from a panic's own message.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use crate::complaints::error;

/// Does `work`, named `what` in the log; `None` after a panic.
pub fn caught<T>(what: &str, work: impl FnOnce() -> T) -> Option<T> {
    let panic = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => return Some(done),
        Err(panic) => panic,
    };
    let reported = catch_unwind(AssertUnwindSafe(|| report(what, message_of(&*panic))));
    // A message may be a value of any type, whose drop may panic, too.
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(panic)));
    for second in [reported, dropped].into_iter().filter_map(Result::err) {
        std::mem::forget(second);
    }
    None
}

/// Logs a panic of the thread's work `what`.
pub(crate) fn report(what: &str, message: &str) {
    let thread = thread::current();
    // Threads are named after their devices.
    let name = thread.name().unwrap_or("a worker");
    error!("{name}: a bug in usbferry: {what} panicked: {message}");
}

/// The message of a panic.
fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_panic_is_no_result() {
        assert_eq!(caught("a sum", || 1 + 1), Some(2));
        assert_eq!(caught("a panic", || -> u8 { panic!("as it was told to") }), None);
    }

    #[test]
    fn a_message_that_panics_in_turn_is_caught() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                std::panic::panic_any(Self);
            }
        }
        assert_eq!(caught("a panic", || -> u8 { std::panic::panic_any(Bomb) }), None);
    }

    #[test]
    fn the_message_of_a_panic_is_found() {
        let panic = |work: fn()| catch_unwind(work).expect_err("it panics");
        assert_eq!(message_of(&*panic(|| panic!("plain"))), "plain");
        assert_eq!(message_of(&*panic(|| panic!("formatted {}", 1))), "formatted 1");
        let other = panic(|| std::panic::panic_any(1));
        assert_eq!(message_of(&*other), "no message");
    }
}
