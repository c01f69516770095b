//! Clients that wait for a device to arrive: an import of a name whose device has just left and is
//! expected back is not refused at once.
//!
//! A device that has come may need some time for itself, as its rule says (`settle`): its client
//! waits as long, and then asks anew.
//!
//! Each scan, and each change of the rules, has all of these clients asked anew. Where the system
//! has no hints at changes, the bus is scanned every now and then as long as clients wait.
//!
//! | a client waits for | at most | and is then told |
//! | --- | --- | --- |
//! | the return of a device that restarts | `HANDSHAKE_TIMEOUT` from its request | ST_NODEV |
//! | a device that settles, and comes again meanwhile | `SETTLE_MAX` from its request | ST_NA |
//!
//! Contract: part of the reactor, so nothing here sleeps. The list is as long as there are clients
//! at most.

use std::time::Instant;

use super::client::{Asked, Awaited};
use super::refusal::Refusal;
use super::token::Key;
use super::{Reactor, client_of};
use crate::limits::{HANDSHAKE_TIMEOUT, SETTLE_MAX};
use crate::usb::Backend;

impl<B: Backend> Reactor<B> {
    /// Has a client wait for the arrival of the device that it asks for.
    pub(super) fn await_arrival(&mut self, key: Key) {
        let asked = client_of(&mut self.connections, key).and_then(|client| client.asked());
        let Some(&Asked { since, .. }) = asked else { return };
        self.wait(key, Awaited::Arrival, since + HANDSHAKE_TIMEOUT);
        self.scans.arrivals.push(key);
        self.scan_for_arrivals();
    }

    /// Has a client wait until its device has settled, at a time.
    pub(super) fn await_settling(&mut self, key: Key, at: Instant) {
        let asked = client_of(&mut self.connections, key).and_then(|client| client.asked());
        let Some(&Asked { since, .. }) = asked else { return };
        let last = since + SETTLE_MAX;
        if self.now >= last {
            return self.refuse(key, &Refusal::Unsettled);
        }
        self.wait(key, Awaited::Settling, at.min(last));
    }

    /// Answers the clients that wait for arrivals, as far as their devices have arrived.
    pub(super) fn answer_arrivals(&mut self) {
        for key in std::mem::take(&mut self.scans.arrivals) {
            if self.awaits_arrival(key) {
                self.answer(key, &Refusal::NotExported);
            }
        }
    }

    /// Whether a connection is there and waits for an arrival.
    pub(super) fn awaits_arrival(&mut self, key: Key) -> bool {
        let asked = client_of(&mut self.connections, key).and_then(|client| client.asked());
        asked.is_some_and(|asked| asked.awaits == Awaited::Arrival)
    }
}
