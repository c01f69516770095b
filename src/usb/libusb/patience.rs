//! Waiting with an end for calls that may never return.
//!
//! Contract: an abandoned call goes on by itself, in a thread of its own.

use std::time::Duration;

use crate::channel::channel;
use crate::threads;

/// The time for a device's answer: many times the usual time of sysfs and usbfs, and below a
/// client's notice.
pub(super) const PATIENCE: Duration = Duration::from_millis(250);

/// The result of `call`, unless the call takes longer than `patience`, or the system has no thread
/// for the call.
pub(super) fn answer<T: Send + 'static>(
    patience: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = channel(1);
    // The waiting side may have given up.
    let run = move || drop(sender.send(call()));
    threads::start("answer", run).ok()?;
    receiver.recv_timeout(patience).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_takes_too_long_is_given_up() {
        assert_eq!(answer(Duration::from_secs(60), || 1), Some(1));
        let (sender, receiver) = channel::<()>(1);
        assert_eq!(answer(PATIENCE, move || receiver.recv().is_err()), None);
        drop(sender);
    }
}
