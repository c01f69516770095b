//! Questions about the state of the server, from other threads.
//!
//! Contract: [`StatusHandle`] may be used by any thread, and blocks its caller only. The reactor
//! answers one question in a turn, and waits for nobody.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Instant, SystemTime};

use mio::Waker;

use super::Reactor;
use super::connection::Connection;
use crate::status::{LoanStatus, SessionStatus, Snapshot};
use crate::usb::{Backend, Candidate};

/// Questions waiting for the reactor at most. Further threads wait before asking.
const QUESTIONS_MAX: usize = 8;

/// The questions of other threads.
pub(crate) struct Questions {
    receiver: Receiver<SyncSender<Snapshot>>,
    handle: StatusHandle,
}

/// Asks a server for its state. Clones share the server.
#[derive(Clone, Debug)]
pub struct StatusHandle {
    sender: SyncSender<SyncSender<Snapshot>>,
    waker: Arc<Waker>,
}

impl StatusHandle {
    /// The state of the server; `None` when the server has ended. *Blocks* until the reactor
    /// answers, in its next turns.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        let (answer, answered) = sync_channel(1);
        self.sender.send(answer).ok()?;
        // A failed wake-up, without a known cause on any system, only delays the answer.
        let _ = self.waker.wake();
        answered.recv().ok()
    }
}

impl Questions {
    pub(crate) fn new(waker: Arc<Waker>) -> Self {
        let (sender, receiver) = sync_channel(QUESTIONS_MAX);
        Self { receiver, handle: StatusHandle { sender, waker } }
    }

    pub(super) fn handle(&self) -> StatusHandle {
        self.handle.clone()
    }
}

impl<B: Backend> Reactor<B> {
    /// Answers the oldest question. False without a question.
    pub(super) fn answer_question(&self) -> bool {
        let Ok(answer) = self.inbox.questions().receiver.try_recv() else { return false };
        // The asking thread waits, and its channel has room.
        let _ = answer.try_send(self.snapshot());
        true
    }

    fn snapshot(&self) -> Snapshot {
        let connections = self.connections.iter();
        let mut loans: Vec<_> = connections.filter_map(|(_, c)| loan_status(c, self.now)).collect();
        loans.sort_by_key(|loan| loan.busid);
        Snapshot { clients: self.door.clients(), exports: self.registry.status(), loans }
    }
}

/// The status of a connection's loan.
fn loan_status<C: Candidate>(connection: &Connection<C>, now: Instant) -> Option<LoanStatus> {
    let loan = connection.loan.as_ref()?;
    let session = loan.session().map(|(session, since)| SessionStatus {
        devid: session.devid(),
        since: SystemTime::now() - now.saturating_duration_since(since),
        stats: session.stats(),
    });
    Some(LoanStatus {
        busid: loan.busid,
        client: connection.peer,
        is_connected: connection.client.is_some(),
        state: loan.state(),
        session,
    })
}
