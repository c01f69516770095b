//! When idle sessions give memory back ([`crate::session::Thrift`]).
//!
//! Memory that was freed on the way, and that the allocator keeps, goes back behind the last
//! session of several ([`ScanThread::trim`](crate::worker::ScanThread::trim)).
//!
//! A look at all sessions is due some time after the first input since the last look, and each look
//! says when the next is due. A server without input for long looks no more.
//!
//! Contract: part of the reactor. A look takes a bounded time; what is left waits for the next.

use std::time::{Duration, Instant};

use super::Reactor;
use super::loan::Loan;
use crate::deadline::earlier;
use crate::session::Thrift;
use crate::usb::{Backend, Candidate};

/// The time of a look, and of one piece more.
const LOOK_TIME: Duration = Duration::from_micros(200);

/// The time from a look that has left something to the next.
const LOOK_REST: Duration = Duration::from_millis(1);

impl<B: Backend> Reactor<B> {
    /// Has idle sessions give memory back, for a bounded time.
    pub(super) fn look_for_thrift(&mut self) {
        self.schedule.end_thrift_rest();
        let until = Instant::now() + LOOK_TIME;
        let mut next: Option<Instant> = None;
        let mut is_more = false;
        for key in self.schedule.attached() {
            let Some(connection) = self.connections.get_mut(key.index as usize) else { continue };
            let Some(loan) = &mut connection.loan else { continue };
            let look = match give_back(loan, self.now, self.settings.idle_after, until) {
                None | Some(Thrift::Nothing) => None,
                Some(Thrift::NotBefore(at)) => Some(at),
                Some(Thrift::More) => {
                    is_more = true;
                    Some(self.now + LOOK_REST)
                }
                Some(Thrift::Done) => {
                    self.scans.note_freed();
                    None
                }
            };
            next = earlier(next, look);
        }
        if !is_more {
            self.scans.trim();
        }
        if let Some(at) = next {
            self.schedule
                .rest_thrift(self.now, at.saturating_duration_since(self.now).max(LOOK_REST));
        }
    }
}

/// Has the session of a loan give memory back, up to the instant `until`. `None` when the client
/// does not have the device.
fn give_back<C: Candidate>(
    loan: &mut Loan<C>,
    now: Instant,
    idle_after: Duration,
    until: Instant,
) -> Option<Thrift> {
    let lent = loan.lent()?;
    let mut thrift = Thrift::More;
    while thrift == Thrift::More && Instant::now() < until {
        thrift = lent.session.give_back(now, idle_after);
    }
    // Memory mapped from the device goes back on the worker.
    loan.dispatch();
    if thrift == Thrift::Done {
        loan.worker.rest();
    }
    Some(thrift)
}
