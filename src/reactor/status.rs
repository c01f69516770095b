//! The state of the server, for other threads.
//!
//! Contract: [`StatusHandle`] may be used by any thread, and blocks its caller only.

use super::Reactor;
use super::connection::Connection;
use super::holds::Hold;
use super::questions::{Asker, Question};
use crate::status::{LoanStatus, SessionStatus, Snapshot};
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
}

impl<B: Backend> Reactor<B> {
    pub(super) fn snapshot(&self) -> Snapshot {
        let connections = self.connections.iter();
        let mut loans: Vec<_> = connections.filter_map(|(_, c)| loan_status(c)).collect();
        loans.sort_by_key(|loan| loan.busid);
        let holds = self.registry.holds.iter().map(Hold::status).collect();
        let (clients, exports) = (self.door.clients(), self.registry.status());
        let captures = self.audience.captures.status();
        Snapshot { clients, exports, loans, holds, captures }
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
