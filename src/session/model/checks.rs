//! Checks after every step, and of everything the session does to the device.

use super::client::{Fate, Refusal, id_of};
use super::device::{Event, Flight, ModelPort};
use super::verdict::{self, Verdict};
use super::world::World;
use crate::limits::{
    CONTROL_LEN_MAX, ENDPOINT_RESERVE, NO_MEMORY_TIMEOUT, PACKETS_WAITING_MAX, URBS_REFUSED_MAX,
    URBS_WAITING_MAX,
};
use crate::session::urb::{NO_URB, UrbState};
use crate::usb::special::SpecialRequest;
use crate::usb::{Performed, RefusedReason};
use crate::wire::setup::SETUP_LEN;
use crate::wire::types::{EndpointAddress, TransferType};

impl World {
    /// Looks at the calls of the port and at the session, after each call of the session.
    pub(super) fn observe(&mut self) {
        for event in std::mem::take(&mut self.port().events) {
            assert!(!self.over || matches!(event, Event::Reaped(_)), "{event:?} for nobody");
            match event {
                Event::Submitted { slot, spare } => {
                    let endpoint = self.port().flight(slot).endpoint;
                    self.account.note_submitted(endpoint);
                    self.check_reserve(slot, spare);
                    self.check_submission(slot);
                }
                Event::Reaped(flight) => self.note_collected(flight),
                Event::Refused { endpoint, reason } => self.note_refused(endpoint, reason),
                Event::Cancelled { .. } => panic!("a cancel outside the worker"),
            }
        }
        self.note_barrier();
        self.note_shortage();
        self.check_bounds();
        self.check_stats();
    }

    /// Checks that no endpoint takes the last slots from the others.
    fn check_reserve(&mut self, slot: u32, spare: usize) {
        let endpoint = self.port().flight(slot).endpoint;
        let flights = self.port().slots.iter().flatten();
        let others = flights.filter(|flight| flight.endpoint == endpoint && flight.id != 0).count();
        assert!(
            others == 0 || spare >= ENDPOINT_RESERVE,
            "{endpoint} takes a slot kept for others"
        );
    }

    /// Checks whether the device should get the URB of `slot` now.
    fn check_submission(&mut self, slot: u32) {
        let endpoint = self.port().flight(slot).endpoint;
        self.starved[endpoint.index()] = None;
        let owner = self.session.slots.owner(slot);
        assert_ne!(owner, NO_URB, "a slot in flight belongs to a URB");
        let id = id_of(&self.session.urbs.get(owner).submit);
        self.port().flight(slot).id = id;
        self.check_turn(id, slot);
        let flight = self.port().slots[slot as usize].take().expect("it was submitted");
        let sent = self.client.urbs.get(&id);
        let sent = sent.unwrap_or_else(|| panic!("{flight:?} is of a URB that was answered"));
        assert!(sent.pdu_end <= self.client.delivered, "half a PDU went to the device: {sent:?}");
        let forwarded = sent.fate == Fate::Performed(Performed::Forward);
        let expected = match self.client.verdict(sent) {
            Verdict::Special(_) if forwarded => Verdict::Device(TransferType::Control),
            other => other,
        };
        assert!(forwarded || sent.fate == Fate::Waiting, "twice: {sent:?}");
        assert_eq!(Verdict::Device(flight.transfer_type), expected, "{sent:?}");
        let block = self.session.slots.transfers[slot as usize].block.as_deref();
        verdict::check_submission(sent, &flight, block.expect("it has its buffer"));
        self.port().slots[slot as usize] = Some(flight);
        self.client.urbs.get_mut(&id).expect("just seen").fate = Fate::Submitted;
    }

    /// Checks that no earlier URB is overtaken.
    fn check_turn(&mut self, id: u32, slot: u32) {
        let endpoint = self.port().flight(slot).endpoint.index();
        let last = std::mem::replace(&mut self.submitted[endpoint], id);
        assert!(id > last, "URB {id} after URB {last} of the same endpoint");
        // A request passed on by the host is its own barrier.
        assert!(id >= self.passed[endpoint], "URB {id} after a later barrier");
        let barrier = self.barrier_id();
        assert!(barrier.is_none_or(|barrier| id < barrier), "URB {id} before the barrier ended");
        for (&special, &(seqnum, request)) in self.client.specials.range(..id) {
            let record = self.session.urbs.find(seqnum);
            let record = record.map(|urb| self.session.urbs.get(urb));
            let open = record.is_some_and(|record| {
                id_of(&record.submit) == special && record.state != UrbState::Replying
            });
            assert!(!open, "URB {id} before {request:?}, which came before it");
        }
    }

    /// Notes the end of a URB collected by the session.
    fn note_collected(&mut self, flight: Flight) {
        self.collected += 1;
        let order = self.collected;
        let outcome = flight.outcome.expect("only what has ended is collected");
        self.account.note_collected(flight.endpoint);
        if let Some(sent) = self.client.urbs.get_mut(&flight.id) {
            if !self.over {
                self.account.note_ended(flight.endpoint, sent, &outcome);
            }
            sent.fate = Fate::Ended { outcome, order };
        }
    }

    fn note_refused(&mut self, endpoint: EndpointAddress, reason: RefusedReason) {
        match reason {
            RefusedReason::Failed(status) => {
                let after = self.submitted[endpoint.index()];
                self.client.refusals.insert(status.0, Refusal { endpoint, after });
            }
            RefusedReason::NoMemory | RefusedReason::Share => {
                let since = *self.starved[endpoint.index()].get_or_insert(self.now);
                self.client.excuses.memory |= self.now >= since + NO_MEMORY_TIMEOUT;
            }
            RefusedReason::Gone => {}
        }
    }

    /// The special request under way.
    pub(super) fn barrier_id(&self) -> Option<u32> {
        let barrier = self.session.barriers.current.as_ref()?;
        Some(id_of(&self.session.urbs.get(barrier.urb).submit))
    }

    /// Notes a special request which was begun: URBs of its endpoints may now be cut short.
    fn note_barrier(&mut self) {
        // A request since given up may have begun in the same call.
        for id in self.client.specials_given_up() {
            self.note_concerned(id);
        }
        let Some(id) = self.barrier_id().filter(|&id| id > self.begun) else { return };
        self.begun = id;
        self.note_concerned(id);
    }

    /// Notes the endpoints of a special request, unless the request was answered already.
    fn note_concerned(&mut self, id: u32) {
        let Some(&(_, request)) = self.client.specials.get(&id) else { return };
        let set = verdict::concerned(request, self.client.configuration_of(id));
        for index in (0..EndpointAddress::COUNT).filter(|index| set & 1 << index != 0) {
            let last = &mut self.client.barriers[index];
            *last = id.max(*last);
        }
    }

    /// Notes whether a URB may by now have been refused for want of room.
    fn note_shortage(&mut self) {
        let crowded = |urbs: usize, waiting| urbs + URBS_REFUSED_MAX >= self.scale.slots + waiting;
        let with_packets =
            self.client.urbs.values().filter(|sent| !sent.packets.is_empty()).count();
        let crowded = crowded(self.client.urbs.len(), URBS_WAITING_MAX)
            || crowded(with_packets, PACKETS_WAITING_MAX);
        let full = self.session.buffers.free_bytes() < self.scale.memory / 4;
        // A URB too long without a buffer gets no other answer.
        let in_pieces = self.session.endpoints.waiting() != 0 && !self.has_largest_buffer();
        self.client.excuses.memory |= crowded || full || in_pieces;
    }

    fn has_largest_buffer(&mut self) -> bool {
        self.session.buffers.has(self.scale.urb_len + CONTROL_LEN_MAX + SETUP_LEN)
    }

    /// Checks that nothing is lost and nothing grows.
    fn check_bounds(&mut self) {
        let carrying = self.port().slots.iter().flatten().count();
        assert_eq!(self.session.slots.free() + carrying, self.scale.slots, "slots");
        assert_eq!(self.session.footprint(), self.footprint, "something was allocated");
        let closed = self.over || self.session.is_input_closed();
        let silent = !self.session.has_output();
        let listens = self.session.wants_input();
        assert!(closed || !silent || listens, "nothing to read, and nothing may be written");
        assert!(!self.over || silent && !listens, "a word to a client that has left");
    }

    /// Checks, once the client has read everything, that nothing ready is kept from the client or
    /// from the device.
    pub(super) fn check_idle(&mut self) {
        if self.session.has_output() || self.over {
            return;
        }
        if !self.session.is_parsing_paused() {
            self.client.check_unlinks_are_answered(&self.session.early_unlinks.seqnums());
        }
        // A URB without memory of the system is tried again later, if a time for the retry is
        // noted.
        if self.session.port.is_here() && self.session.buffers.retry.is_none() {
            self.session.submit_waiting(self.now);
            let has_share = |event: &Event| {
                matches!(event, Event::Refused { reason: RefusedReason::Share, .. })
            };
            let events = &self.port().events;
            assert!(events.iter().all(has_share), "it could have gone before: {events:?}");
            self.port().events.clear();
            self.check_idle_endpoints();
        }
    }

    /// Checks that nothing waits on an endpoint with nothing in flight, as long as there is a
    /// slot and a buffer.
    fn check_idle_endpoints(&mut self) {
        let waiting = self.session.endpoints.waiting();
        for index in (0..EndpointAddress::COUNT).filter(|index| waiting & 1 << index != 0) {
            let endpoint = self.session.endpoints.at(index);
            let Some(urb) = endpoint.first_waiting().filter(|_| endpoint.in_flight == 0) else {
                continue;
            };
            let length = self.session.urbs.get(urb).submit.transfer_buffer_length as usize;
            let has_buffer = self.session.buffers.has(length.max(CONTROL_LEN_MAX + SETUP_LEN));
            let has_room = has_buffer && self.session.slots.free() > 0;
            assert!(!has_room, "endpoint {index} could go on");
        }
    }

    /// Checks, when there is no job, that URBs given up by an UNLINK or by a barrier were
    /// cancelled: a silent device would never end them.
    pub(super) fn check_nothing_to_cancel(&mut self) {
        if !self.session.port.is_here() || self.session.is_parsing_paused() || self.over {
            return;
        }
        let barrier = self.barrier_id();
        for slot in self.port().in_flight() {
            let flight = self.port().flight(slot);
            let (id, endpoint, cancelled) = (flight.id, flight.endpoint, flight.cancelled);
            let sent = &self.client.urbs[&id];
            let concerned = barrier.is_some_and(|b| self.client.barriers[endpoint.index()] == b);
            let given_up = concerned || self.client.is_given_up(sent);
            assert!(cancelled || !given_up, "nobody cancels {sent:?}");
        }
    }

    /// Checks that there is a reason to cancel a transfer.
    pub(super) fn check_cancel(&self, flight: &Flight) {
        if self.over || self.client.excuses.gone {
            return;
        }
        let sent = &self.client.urbs[&flight.id];
        let barrier = self.client.barriers[flight.endpoint.index()] > flight.id;
        assert!(barrier || sent.unlink.is_some(), "nobody gave up {sent:?}");
    }

    /// Checks that it is a special request's turn.
    pub(super) fn check_perform(&mut self, port: &ModelPort, request: SpecialRequest) {
        assert!(!self.over, "{request:?} for nobody");
        let id = self.barrier_id().expect("the request");
        assert!(id > self.performed, "special requests in another order");
        self.performed = id;
        let (_, sent) = self.client.specials[&id];
        assert_eq!(sent, request, "another request than was sent");
        let given_up = self.client.urbs.get(&id).is_none_or(|sent| self.client.is_given_up(sent));
        assert!(!given_up || self.session.is_parsing_paused(), "{request:?}, which was given up");
        let set = verdict::concerned(request, self.client.configuration_of(id));
        for flight in port.slots.iter().flatten() {
            let concerned = set & flight.endpoint.bit() != 0;
            assert!(!concerned, "{request:?} while the device has {flight:?}");
        }
        for index in (0..EndpointAddress::COUNT).filter(|index| set & 1 << index != 0) {
            self.passed[index] = id;
        }
        // Nor does a request overtake another to the same endpoint.
        let pipe = self.session.urbs.get(self.session.barriers.current.as_ref().expect("it").urb);
        self.passed[pipe.submit.endpoint.index()] = id;
    }

    /// Notes the result of the special request under way.
    pub(super) fn note_performed(&mut self, performed: &Performed) {
        if self.over {
            return;
        }
        let id = self.barrier_id().expect("the request that was performed");
        self.client.specials.remove(&id);
        if let Some(sent) = self.client.urbs.get_mut(&id) {
            sent.fate = Fate::Performed(performed.clone());
        }
        if let Performed::Reconfigured { configuration, .. } = performed {
            self.client.configurations.push((id, configuration.clone()));
        }
    }
}
