//! The end of a run: everybody finishes, or the client goes; nothing may be left.

use std::time::Duration;

use super::world::{Away, World};
use crate::limits::EARLY_UNLINK_TIMEOUT;
use crate::session::urb::UrbState;

/// Rounds after which everything must have ended: each ends all URBs in flight.
const ROUNDS_MAX: u32 = 10_000;

impl World {
    /// Has everybody finish: all bytes delivered and read, all transfers ended, all jobs done.
    pub(super) fn settle(&mut self) {
        self.port().refuse = None;
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "it never ends");
            let before = self.progress();
            self.settle_once();
            if self.over {
                return;
            }
            if self.progress() == before && self.is_quiet() {
                break;
            }
        }
        self.check_settled();
    }

    /// Numbers, any of which changes while there is something to do.
    const fn progress(&self) -> [u64; 4] {
        [self.client.delivered, self.client.replies, self.collected, self.jobs]
    }

    /// Whether nothing is under way.
    fn is_quiet(&self) -> bool {
        matches!(self.away, Away::No)
            && !self.session.has_output()
            && self.session.slots.free() == self.scale.slots
    }

    fn settle_once(&mut self) {
        while !self.over && self.session.wants_input() && !self.client.undelivered().is_empty() {
            self.deliver(usize::MAX);
        }
        if self.over {
            return;
        }
        self.read(usize::MAX);
        while self.session.has_output() {
            self.read(usize::MAX);
        }
        self.take_job();
        self.run_job(u8::MAX, 0);
        self.take_back();
        for slot in self.port().in_flight() {
            // Cancelled, or else with all there is room for.
            self.end(slot, 0x43, 0);
        }
        // Long enough for UNLINKs whose SUBMITs do not come, too.
        self.now += EARLY_UNLINK_TIMEOUT;
        self.reap(u8::MAX);
        self.keep_deadline();
        if self.session.is_parsing_paused() && self.session.wants_input() {
            self.deliver(0);
        }
    }

    /// Checks for anything left to say or to do.
    fn check_settled(&mut self) {
        let session = &self.session;
        assert!(session.port.is_here() && !session.has_output());
        assert_eq!(session.slots.free(), self.scale.slots, "slots that came home");
        if session.is_device_gone() {
            assert!(session.is_ready_for_teardown(), "the device is gone and all was said");
        }
        if session.is_input_closed() {
            return self.check_rest_is_unread();
        }
        self.client.check_nothing_is_left();
        assert_eq!(session.stats().refused, self.client.refused, "URBs that were refused");
        assert!(session.urbs.is_empty(), "a record is not home");
        assert_eq!(session.buffers.outstanding(), 0, "a buffer is not home");
    }

    /// Checks for an answer to every URB which the session has read whole.
    fn check_rest_is_unread(&self) {
        for sent in self.client.urbs.values() {
            let found = self.session.urbs.find(sent.submit.seqnum);
            let state = found.map(|urb| self.session.urbs.get(urb).state);
            let unread = matches!(state, None | Some(UrbState::Receiving));
            assert!(unread, "never answered: {sent:?}, {state:?}");
        }
        let arriving = self.session.urbs.next_used(0);
        let others = arriving.and_then(|urb| self.session.urbs.next_used(urb + 1));
        assert_eq!(others, None, "a record is not home");
    }

    /// The client goes.
    pub(super) fn teardown(&mut self) {
        self.session.begin_teardown();
        self.over = true;
        self.observe();
        // Any order of calls is allowed, even a useless call.
        assert_eq!(self.session.rx_read(&mut &[][..], self.now), Ok(()));
    }

    /// Ends the run: the client goes, if still there, and the device must be as before.
    pub(super) fn finish(mut self) {
        if self.scale.settles && !self.over {
            self.settle();
        }
        if !self.over {
            self.teardown();
        }
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "teardown never ends");
            if self.session.is_drained() {
                break;
            }
            self.run_job(1, 0);
            self.take_back();
            self.take_job();
            // A transfer not cancelled may never end; the session must cancel all.
            let silent = self.session.port.is_here();
            for slot in self.port().in_flight() {
                let cancelled = self.port().flight(slot).cancelled;
                assert!(cancelled || !silent, "a transfer that nobody cancelled");
                if cancelled {
                    self.end(slot, 3, 0);
                }
            }
            self.now += Duration::from_secs(1);
            self.reap(u8::MAX);
            self.keep_deadline();
        }
        assert!(matches!(self.away, Away::No), "the port is here");
        let remains = self.session.into_remains();
        remains.expect("nothing is in flight").close();
    }
}
