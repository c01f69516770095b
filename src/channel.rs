//! Bounded channels between threads, with the calls and the errors of [`std::sync::mpsc`].
//!
//! A channel of std is one of three kinds, chosen while the program runs, so the program has the
//! code of all kinds for each type of message: 100 KB in all. Messages here are few (results,
//! questions, events, pieces of a log), so a queue under a lock serves them all. The memory for all
//! messages is allocated at the start, since a capture sends on the path of a URB.
//!
//! Contract: any thread. [`Sender::try_send`] and [`Receiver::try_recv`] hold the lock for the move
//! of a message, and never wait for the other end; no call is made to the system unless the other
//! end waits.

use std::collections::VecDeque;
use std::fmt;
use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The end where messages come in. Clones are the same end.
pub struct Sender<T>(Arc<Shared<T>>);

/// The end where messages come out.
pub struct Receiver<T>(Arc<Shared<T>>);

struct Shared<T> {
    state: Mutex<State<T>>,
    /// There is room, or a message, or an end is gone.
    changed: Condvar,
}

struct State<T> {
    messages: VecDeque<T>,
    /// The most messages that wait.
    room: usize,
    senders: usize,
    has_receiver: bool,
    /// Threads that wait for a change.
    waiting: usize,
}

/// A channel in which up to `room` messages wait.
///
/// # Panics
/// Without any room.
pub fn channel<T>(room: usize) -> (Sender<T>, Receiver<T>) {
    assert!(room > 0, "a message has to wait somewhere");
    let messages = VecDeque::with_capacity(room);
    let state = State { messages, room, senders: 1, has_receiver: true, waiting: 0 };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> Sender<T> {
    /// Adds a message. *Blocks* until there is room.
    ///
    /// # Errors
    /// The receiver is gone, and the message comes back.
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        let is_full = |state: &State<T>| state.has_receiver && state.is_full();
        let state = self.0.wait_while(self.0.lock(), is_full);
        if !state.has_receiver {
            return Err(SendError(message));
        }
        self.0.put(state, message);
        Ok(())
    }

    /// Adds a message.
    ///
    /// # Errors
    /// There is no room, or the receiver is gone; the message comes back.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        let state = self.0.lock();
        if !state.has_receiver {
            return Err(TrySendError::Disconnected(message));
        }
        if state.is_full() {
            return Err(TrySendError::Full(message));
        }
        self.0.put(state, message);
        Ok(())
    }
}

/// The messages of a channel, for whoever has to know those that nobody takes. No end of the
/// channel: the receiver does not wait for messages from here.
pub(crate) struct Waiting<T>(Arc<Shared<T>>);

impl<T> Waiting<T> {
    /// The oldest message, which the receiver does not get any more.
    pub(crate) fn take(&self) -> Option<T> {
        self.0.take(self.0.lock()).ok()
    }
}

impl<T> Sender<T> {
    /// The messages that wait, now and later.
    pub(crate) fn waiting(&self) -> Waiting<T> {
        Waiting(Arc::clone(&self.0))
    }
}

impl<T> Receiver<T> {
    /// The oldest message. *Blocks* until there is one.
    ///
    /// # Errors
    /// There is no message, and all senders are gone.
    pub fn recv(&self) -> Result<T, RecvError> {
        let state = self.0.wait_while(self.0.lock(), State::is_idle);
        self.0.take(state).map_err(|_| RecvError)
    }

    /// The same. *Blocks* for `time` at most.
    ///
    /// # Errors
    /// As for [`Self::recv`], or there was no message in time.
    pub fn recv_timeout(&self, time: Duration) -> Result<T, RecvTimeoutError> {
        let state = self.0.wait_while_within(self.0.lock(), time, State::is_idle);
        self.0.take(state).map_err(|error| match error {
            TryRecvError::Empty => RecvTimeoutError::Timeout,
            TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
        })
    }

    /// Waits for a message or the end of all senders, and takes nothing: a thread that waits for
    /// long has no room for messages on its stack. *Blocks*, with a `time` for as long at most;
    /// false when the time is over.
    pub(crate) fn wait(&self, time: Option<Duration>) -> bool {
        let state = self.0.lock();
        let state = match time {
            Some(time) => self.0.wait_while_within(state, time, State::is_idle),
            None => self.0.wait_while(state, State::is_idle),
        };
        !state.is_idle()
    }

    /// The oldest message.
    ///
    /// # Errors
    /// There is no message; perhaps all senders are gone.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.0.take(self.0.lock())
    }
}

impl<T> State<T> {
    fn is_full(&self) -> bool {
        self.messages.len() >= self.room
    }

    /// Whether nothing is there for the receiver, and something may come.
    fn is_idle(&self) -> bool {
        self.messages.is_empty() && self.senders > 0
    }
}

type Guard<'a, T> = MutexGuard<'a, State<T>>;

impl<T> Shared<T> {
    fn lock(&self) -> Guard<'_, T> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, mut state: Guard<'_, T>, message: T) {
        state.messages.push_back(message);
        self.tell(state);
    }

    fn take(&self, mut state: Guard<'_, T>) -> Result<T, TryRecvError> {
        let Some(message) = state.messages.pop_front() else {
            let is_over = state.senders == 0;
            return Err(if is_over { TryRecvError::Disconnected } else { TryRecvError::Empty });
        };
        self.tell(state);
        Ok(message)
    }

    /// Wakes whoever waits for a change.
    fn tell(&self, state: Guard<'_, T>) {
        let has_waiting = state.waiting > 0;
        drop(state);
        if has_waiting {
            self.changed.notify_all();
        }
    }

    fn wait_while<'a>(
        &'a self,
        mut state: Guard<'a, T>,
        condition: impl Fn(&State<T>) -> bool,
    ) -> Guard<'a, T> {
        state.waiting += 1;
        let waited = self.changed.wait_while(state, |state| condition(state));
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state
    }

    fn wait_while_within<'a>(
        &'a self,
        mut state: Guard<'a, T>,
        time: Duration,
        condition: impl Fn(&State<T>) -> bool,
    ) -> Guard<'a, T> {
        state.waiting += 1;
        let waited = self.changed.wait_timeout_while(state, time, |state| condition(state));
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.waiting -= 1;
        state
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.senders -= 1;
        self.0.tell(state);
    }
}

impl<T> Drop for Receiver<T> {
    /// Nobody receives the messages that wait.
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.has_receiver = false;
        let messages = std::mem::take(&mut state.messages);
        self.0.tell(state);
        // Without the lock: a message may have much to do.
        drop(messages);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver")
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn messages_come_in_order_and_no_more_wait_than_there_is_room_for() {
        let (sender, receiver) = channel(2);
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        assert_eq!((sender.try_send(1), sender.clone().try_send(2)), (Ok(()), Ok(())));
        assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
        assert_eq!((receiver.recv(), receiver.try_recv()), (Ok(1), Ok(2)));
        assert_eq!(receiver.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
    }

    #[test]
    fn a_wait_takes_no_message_and_ends_with_the_senders() {
        let (sender, receiver) = channel(1);
        assert!(!receiver.wait(Some(Duration::ZERO)));
        let sending = thread::spawn(move || sender.send(1));
        assert!(receiver.wait(None) && receiver.wait(Some(Duration::ZERO)));
        assert_eq!(receiver.try_recv(), Ok(1));
        sending.join().unwrap().unwrap();
        assert!(receiver.wait(None));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    }

    #[test]
    fn each_end_learns_that_the_other_is_gone() {
        let (sender, receiver) = channel(2);
        sender.try_send(1).unwrap();
        let other = sender.clone();
        drop((sender, other));
        assert_eq!(receiver.recv(), Ok(1), "messages outlive their sender");
        assert_eq!(receiver.recv(), Err(RecvError));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(receiver.recv_timeout(Duration::MAX), Err(RecvTimeoutError::Disconnected));

        let (sender, receiver) = channel(2);
        let message = Arc::new(());
        sender.try_send(Arc::clone(&message)).unwrap();
        drop(receiver);
        assert_eq!(Arc::strong_count(&message), 1, "a message that nobody receives is dropped");
        assert!(matches!(sender.try_send(message), Err(TrySendError::Disconnected(_))));
        assert!(sender.send(Arc::new(())).is_err());
    }

    /// Every message and every end wakes the thread that waits.
    #[test]
    fn waiting_threads_are_woken() {
        const COUNT: u32 = 10_000;
        let (sender, receiver) = channel(1);
        let (back, answers) = channel(1);
        let echo = thread::spawn(move || {
            while let Ok(message) = receiver.recv() {
                back.send(message).unwrap();
            }
        });
        let sending = thread::spawn(move || (0..COUNT).for_each(|n| sender.send(n).unwrap()));
        for number in 0..COUNT {
            assert_eq!(answers.recv_timeout(Duration::MAX), Ok(number));
        }
        sending.join().unwrap();
        assert_eq!(answers.recv(), Err(RecvError));
        echo.join().unwrap();

        let (sender, receiver) = channel(1);
        sender.send(1).unwrap();
        let sending = thread::spawn(move || sender.send(2));
        drop(receiver);
        assert_eq!(sending.join().unwrap(), Err(SendError(2)));
    }
}
