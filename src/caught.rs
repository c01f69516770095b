//! Work that may panic without taking its thread along: a bug costs one device its session, not the
//! server the device.
//!
//! Contract: for workers. Whatever the work had a hold of is dropped, or is handed on by a caller
//! that does so with care: nothing is taken for whole that a panic may have left half done.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use crate::complaints::error;

/// Does `work`, of which `what` is the name in the log; `None` when it panicked.
pub(crate) fn caught<T>(what: &str, work: impl FnOnce() -> T) -> Option<T> {
    let panic = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => return Some(done),
        Err(panic) => panic,
    };
    let thread = thread::current();
    // Threads are named after their devices.
    let name = thread.name().unwrap_or("a worker");
    error!("{name}: a bug in usbferry: {what} panicked: {}", message_of(&*panic));
    None
}

/// What a panic said.
fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it did not say why")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_no_result_and_all_else_is() {
        assert_eq!(caught("a sum", || 1 + 1), Some(2));
        assert_eq!(caught("a panic", || -> u8 { panic!("as it was told to") }), None);
    }

    #[test]
    fn what_a_panic_says_is_known() {
        let panic = |work: fn()| catch_unwind(work).expect_err("it panics");
        assert_eq!(message_of(&*panic(|| panic!("plain"))), "plain");
        assert_eq!(message_of(&*panic(|| panic!("formatted {}", 1))), "formatted 1");
        let other = panic(|| std::panic::panic_any(1));
        assert_eq!(message_of(&*other), "it did not say why");
    }
}
