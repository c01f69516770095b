//! Waiting for what may never come, with an end.
//!
//! Contract: whatever is not waited for any more goes on by itself, in a thread that is left alone.

use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

/// How long a device may take to answer: many times what sysfs and usbfs take, and below what a
/// client notices.
pub(super) const PATIENCE: Duration = Duration::from_millis(250);

/// What `call` returns, unless that takes longer than `patience`, or the system has no thread for
/// it.
pub(super) fn answer<T: Send + 'static>(
    patience: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = sync_channel(1);
    // Nobody may be there to take it any more.
    let run = move || drop(sender.send(call()));
    thread::Builder::new().name("answer".to_owned()).spawn(run).ok()?;
    receiver.recv_timeout(patience).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_too_long_is_not_waited_for() {
        assert_eq!(answer(Duration::from_secs(60), || 1), Some(1));
        let (sender, receiver) = sync_channel::<()>(0);
        assert_eq!(answer(PATIENCE, move || receiver.recv().is_err()), None);
        drop(sender);
    }
}
