//! Memory of an idle session goes back to the system.
//!
//! A load leaves the session with committed pages: buffers, tables, received and staged bytes, and
//! the transfers of slots. When nothing has come from the client or from the device for a while,
//! the session gives back whatever is not in use just then. URBs of a keyboard that is waited for,
//! or a reply that the client does not take, keep their own memory and no more. Addresses and
//! limits stay, so the next URB finds all as before and pays with a page fault for each page.
//!
//! Much memory takes its time, so memory goes back in pieces, and a piece takes some ten
//! microseconds. Memory mapped from the device goes back on the worker, if no URB lies there: the
//! port hears that nobody needs the memory ([`Port::note_idle`]), and has a job next.
//!
//! Contract: part of the session: nothing here blocks or allocates.

use std::time::{Duration, Instant};

use super::Session;
use crate::usb::Port;

/// The time until the next look at a session whose port is with the worker.
const AWAY_REST: Duration = Duration::from_secs(1);

/// How far a session is with giving back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Thrift {
    /// A piece was given back, and there may be more.
    More,
    /// The session may be idle at the instant, and not before.
    NotBefore(Instant),
    /// The last piece was given back.
    Done,
    /// There is nothing to give back before the next input.
    Nothing,
}

/// The pieces given back since the last input.
#[derive(Clone, Copy, Default)]
pub(super) struct Given {
    /// The time of the last input, in the session's milliseconds.
    since: u32,
    /// The next piece; `None` when all pieces were given back.
    next: Option<usize>,
}

impl<P: Port> Session<P> {
    /// Gives a piece of memory back, if the session has been idle for as long as `after`.
    pub(crate) fn give_back(&mut self, now: Instant, after: Duration) -> Thrift {
        let idle = self.time.passed(now);
        if idle < after {
            return Thrift::NotBefore(now + (after - idle));
        }
        if !self.port.is_here() {
            return Thrift::NotBefore(now + AWAY_REST);
        }
        let begun = self.given.filter(|given| given.since == self.time.now);
        let given = begun.unwrap_or(Given { since: self.time.now, next: Some(0) });
        let Some(piece) = given.next else { return Thrift::Nothing };
        if piece == 0 {
            self.give_back_small();
        }
        let more = self.buffers.give_back(piece) | self.urbs.give_back_stripes(piece);
        // Last, since the port's return from the worker counts as input.
        if let Some(port) = self.port.here_mut()
            && !more
            && !self.buffers.is_device_memory_in_use()
        {
            port.note_idle();
        }
        self.given = Some(Given { next: more.then_some(piece + 1), ..given });
        if more { Thrift::More } else { Thrift::Done }
    }

    /// Gives back all but the large memory.
    fn give_back_small(&mut self) {
        self.rx.give_back(&mut self.buffers);
        self.tx.give_back();
        self.barriers.give_back();
        self.slots.give_back();
        self.urbs.give_back_records();
    }
}
