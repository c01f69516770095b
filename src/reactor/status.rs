//! The state of the server, for other threads.
//!
//! Contract: [`StatusHandle`] may be used by any thread, and blocks its caller only.

use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use super::Reactor;
use super::connection::Connection;
use super::holds::Hold;
use super::questions::{Asker, Question, Unanswered};
use crate::channel::Receiver;
use crate::sorted::sort_by_key;
use crate::status::{LoanStatus, Phase, SessionStatus, Snapshot};
use crate::usb::{Backend, Candidate};

/// Asks a server for its state. Clones share the server.
#[derive(Clone, Debug)]
pub struct StatusHandle(pub(super) Asker);

impl StatusHandle {
    /// The state of the server; `None` when the server has ended. *Blocks* until the reactor
    /// answers, in its next turns.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.0.ask(Question::Status)
    }

    /// Asks for the state of the server, without a wait.
    ///
    /// # Errors
    /// As many questions wait as may, or the server has ended.
    pub fn begin(&self) -> Result<Answer, Unanswered> {
        self.0.begin(Question::Status).map(Answer)
    }
}

/// The state of a server on its way.
#[derive(Debug)]
pub struct Answer(Receiver<Snapshot>);

impl Answer {
    /// The answer. *Blocks* for a time at most.
    ///
    /// # Errors
    /// There is no answer, or none so far.
    pub fn wait(&self, time: Duration) -> Result<Snapshot, Unanswered> {
        self.0.recv_timeout(time).map_err(|error| match error {
            RecvTimeoutError::Timeout => Unanswered::Late,
            RecvTimeoutError::Disconnected => Unanswered::Ended,
        })
    }
}

impl<B: Backend> Reactor<B> {
    pub(super) fn snapshot(&self) -> Snapshot {
        let connections = self.connections.iter();
        let mut loans: Vec<_> = connections.filter_map(|(_, c)| loan_status(c)).collect();
        sort_by_key(&mut loans, |loan| loan.busid);
        Snapshot {
            phase: self.phase(),
            connections: self.door.counts(),
            clients: self.door.clients(),
            exports: self.registry.status(),
            loans,
            holds: self.registry.holds.iter().map(Hold::status).collect(),
            captures: self.audience.captures.status(),
        }
    }

    fn phase(&self) -> Phase {
        match self.stop.deadline() {
            Some(_) => Phase::Stopping,
            None if self.registry.is_filled() => Phase::Serving,
            None => Phase::Starting,
        }
    }
}

/// The status of a connection's loan.
fn loan_status<C: Candidate>(connection: &Connection<C>) -> Option<LoanStatus> {
    let loan = connection.loan.as_ref()?;
    let session = loan.session().map(|(session, since)| SessionStatus {
        devid: session.devid(),
        since,
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
