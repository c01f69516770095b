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
use crate::usb::Backend;

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
            let loan = connection.loan.as_mut();
            let Some(lent) = loan.and_then(Loan::lent) else { continue };
            let mut thrift = Thrift::More;
            while thrift == Thrift::More && Instant::now() < until {
                thrift = lent.session.give_back(self.now, self.settings.idle_after);
            }
            // Memory mapped from the device goes back on the worker.
            if let Some(loan) = &mut connection.loan {
                loan.dispatch();
                if thrift == Thrift::Done {
                    loan.worker.rest();
                }
            }
            next = earlier(
                next,
                match thrift {
                    Thrift::More => {
                        is_more = true;
                        Some(self.now + LOOK_REST)
                    }
                    Thrift::NotBefore(at) => Some(at),
                    Thrift::Done => {
                        self.scans.note_freed();
                        None
                    }
                    Thrift::Nothing => None,
                },
            );
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
