//! Questions and orders for the reactor from other threads, each with an answer.
//!
//! Contract: [`Asker`] may be used by any thread, and blocks its caller only. The reactor answers
//! one question in a turn, and waits for nobody.

use std::sync::Arc;
use std::sync::mpsc::TrySendError;

use mio::Waker;

use super::Reactor;
use super::holds::{Disobeyed, Obeyed};
use super::observers::Followed;
use super::reload::Reloaded;
use super::taps::{Running, Untaken};
use crate::channel::{Receiver, Sender, channel};
use crate::config::Settings;
use crate::status::Snapshot;
use crate::usb::Backend;

/// Questions waiting for the reactor at most. Further threads wait before asking.
const QUESTIONS_MAX: usize = 8;

/// A question, with the place for its answer.
pub(super) enum Question {
    /// The state of the server.
    Status(Sender<Snapshot>),
    /// Other settings from now on.
    Reload(Box<Settings>, Sender<Reloaded>),
    /// Sessions are to end, by an operator's order.
    Disconnect { target: String, hold: bool, answer: Sender<Result<Obeyed, Disobeyed>> },
    /// Devices are held back no more.
    Release { name: String, answer: Sender<Result<Obeyed, Disobeyed>> },
    /// Another capture begins.
    StartCapture { running: Box<Running>, answer: Sender<Result<Obeyed, Untaken>> },
    /// A capture ends, by its name, or the only capture.
    StopCapture { name: Option<String>, answer: Sender<Result<Box<Running>, Disobeyed>> },
    /// The events from now on.
    Events(Sender<Option<Followed>>),
}

/// The questions of other threads.
pub(crate) struct Questions {
    receiver: Receiver<Question>,
    asker: Asker,
}

/// Why a question has no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unanswered {
    /// The reactor has not answered yet.
    Late,
    /// The server has ended.
    Ended,
}

/// Asks a server. Clones share the server.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    sender: Sender<Question>,
    waker: Arc<Waker>,
}

impl Asker {
    /// The answer to a question; `None` when the server has ended. *Blocks* until the reactor
    /// answers, in its next turns.
    pub(super) fn ask<A>(&self, question: impl FnOnce(Sender<A>) -> Question) -> Option<A> {
        let (answer, answered) = channel(1);
        self.sender.send(question(answer)).ok()?;
        // A failed wake-up, without a known cause on any system, only delays the answer.
        let _ = self.waker.wake();
        answered.recv().ok()
    }

    /// Asks a question without a wait.
    ///
    /// # Errors
    /// As many questions wait as may, or the server has ended.
    pub(super) fn begin<A>(
        &self,
        question: impl FnOnce(Sender<A>) -> Question,
    ) -> Result<Receiver<A>, Unanswered> {
        let (answer, answered) = channel(1);
        self.sender.try_send(question(answer)).map_err(|error| match error {
            TrySendError::Full(_) => Unanswered::Late,
            TrySendError::Disconnected(_) => Unanswered::Ended,
        })?;
        let _ = self.waker.wake();
        Ok(answered)
    }
}

impl Questions {
    pub(crate) fn new(waker: Arc<Waker>) -> Self {
        let (sender, receiver) = channel(QUESTIONS_MAX);
        Self { receiver, asker: Asker { sender, waker } }
    }

    pub(super) fn asker(&self) -> Asker {
        self.asker.clone()
    }
}

impl<B: Backend> Reactor<B> {
    /// Answers the oldest question. False without a question.
    pub(super) fn answer_question(&mut self) -> bool {
        let Ok(question) = self.inbox.questions().receiver.try_recv() else { return false };
        // The asking thread waits, and its channel has room.
        match question {
            Question::Status(answer) => drop(answer.try_send(self.snapshot())),
            Question::Reload(settings, answer) => drop(answer.try_send(self.reload(*settings))),
            Question::Disconnect { target, hold, answer } => {
                drop(answer.try_send(self.disconnect(&target, hold)));
            }
            Question::Release { name, answer } => drop(answer.try_send(self.release(&name))),
            Question::StartCapture { running, answer } => {
                drop(answer.try_send(self.start_capture(running)));
            }
            Question::StopCapture { name, answer } => {
                drop(answer.try_send(self.stop_capture(name.as_deref())));
            }
            Question::Events(answer) => drop(answer.try_send(self.audience.observers.add())),
        }
        true
    }
}
