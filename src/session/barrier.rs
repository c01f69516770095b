//! Special requests as barriers: URBs before a barrier are done with, URBs behind it wait.
//!
//! A request for other endpoints must not meet transfers: usbfs would kill the transfers and libusb
//! then report completions. So a barrier first has the transfers cancelled and collected, then the
//! request performed on the worker, and then lets the URBs behind go on, which may bring the next
//! barrier.
//!
//! Contract: part of the session: nothing here blocks or allocates.

use std::collections::VecDeque;
use std::time::Instant;

use usbferry_sys::os::heap;

use super::Session;
use super::endpoints::DEFAULT_CONTROL;
use super::prospects::Prospects;
use super::urb::{UrbIndex, UrbState};
use crate::usb::isochronous::IsochronousSettings;
use crate::usb::special::SpecialRequest;
use crate::usb::{Performed, Port};
use crate::wire::status::Status;

/// A special request under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Barrier {
    pub(super) urb: UrbIndex,
    request: SpecialRequest,
    /// Endpoints whose transfers must have ended before, a bit each.
    endpoints: u32,
    /// The worker has the request.
    is_performing: bool,
}

/// The barrier of a session, the URBs behind, and the endpoints to come.
pub(super) struct Barriers {
    pub(super) current: Option<Barrier>,
    /// URBs behind the barrier, in the order of arrival.
    queue: VecDeque<UrbIndex>,
    pub(super) prospects: Prospects,
    /// The device was reset for the client, and nobody has asked yet.
    pub(super) was_reset: bool,
}

impl Barriers {
    /// Room for all `records` of a session behind a barrier.
    pub(super) fn new(settings: IsochronousSettings, records: usize) -> Self {
        let queue = VecDeque::with_capacity(records);
        Self { current: None, queue, prospects: Prospects::new(settings), was_reset: false }
    }

    /// Whether a SUBMIT need not wait: there is no special request before it.
    #[inline(always)]
    pub(super) fn is_open(&self) -> bool {
        self.current.is_none() && self.queue.is_empty()
    }

    /// Queues a URB behind the barrier.
    pub(super) fn push(&mut self, urb: UrbIndex) {
        self.queue.push_back(urb);
    }

    /// Takes a URB out of the queue, at any place.
    pub(super) fn remove(&mut self, urb: UrbIndex) {
        self.queue.retain(|&queued| queued != urb);
    }

    /// Forgets the URBs behind the barrier.
    pub(super) fn clear_queue(&mut self) {
        self.queue.clear();
    }

    /// Gives the room of the queue back to the system, unless URBs wait.
    pub(super) fn give_back(&mut self) {
        heap::give_back_queue(&mut self.queue);
    }

    /// The room allocated.
    #[cfg(any(test, fuzzing))]
    pub(super) fn footprint(&self) -> usize {
        self.queue.capacity()
    }
}

impl<P: Port> Session<P> {
    /// Begins a special request.
    pub(super) fn begin_barrier(&mut self, urb: UrbIndex, request: SpecialRequest) {
        let endpoints = match request {
            SpecialRequest::SetInterface { interface, .. } => {
                self.endpoints.of_interface(interface)
            }
            // The kernel leaves control transfers alone (usb_disable_device with skip_ep0).
            SpecialRequest::SetConfiguration(_) => !DEFAULT_CONTROL,
            SpecialRequest::Reset => u32::MAX,
            // The kernel does not mind transfers while a halt is cleared, and a careful client has
            // unlinked its URBs.
            SpecialRequest::ClearHalt(_) => 0,
        };
        self.note_prospects(request);
        self.urbs.get_mut(urb).state = UrbState::Performing;
        self.barriers.current = Some(Barrier { urb, request, endpoints, is_performing: false });
        self.give_up_endpoints(endpoints);
    }

    /// Cancels or ends all URBs of a set of endpoints, except behind the barrier.
    fn give_up_endpoints(&mut self, endpoints: u32) {
        let mut next = 0;
        while let Some(other) = self.urbs.next_used(next) {
            next = other + 1;
            let record = self.urbs.get(other);
            if record.submit.endpoint.bit() & endpoints == 0 {
                continue;
            }
            match record.state {
                UrbState::InFlight => self.cancel(other),
                UrbState::Waiting => {
                    self.endpoints.remove_waiting(&mut self.urbs, other);
                    self.end(other, Status::ECONNRESET, 0);
                }
                UrbState::Free
                | UrbState::Receiving
                | UrbState::BehindBarrier
                | UrbState::Performing
                | UrbState::Replying => {}
            }
        }
    }

    /// Notes the endpoints to come by a request to be performed.
    pub(super) fn note_prospects(&mut self, request: SpecialRequest) {
        let current = self.endpoints.configuration_value();
        self.barriers.prospects.note(request, current);
    }

    /// The request to perform now, if nothing stands before the request.
    pub(super) fn take_performance(&mut self) -> Option<SpecialRequest> {
        let barrier = self.barriers.current.as_mut()?;
        if barrier.is_performing || self.endpoints.any_in_flight(barrier.endpoints) {
            return None;
        }
        // A control transfer waiting for a slot or for memory is not overtaken.
        let endpoint = self.urbs.get(barrier.urb).submit.endpoint;
        if self.endpoints.get(endpoint).first_waiting().is_some() {
            return None;
        }
        barrier.is_performing = true;
        Some(barrier.request)
    }

    /// Acts on how the request ended.
    pub(super) fn end_performance(&mut self, performed: Performed, now: Instant) {
        let Some(barrier) = self.barriers.current.take() else { return };
        let urb = barrier.urb;
        let is_reset = barrier.request == SpecialRequest::Reset && performed.has_succeeded();
        self.barriers.was_reset |= is_reset;
        match performed {
            _ if self.life.is_tearing_down() => self.buffers.free_record_apart(&mut self.urbs, urb),
            Performed::Done => self.end(urb, Status::OK, 0),
            Performed::Reconfigured { configuration, status } => {
                self.endpoints.configure(configuration);
                self.end(urb, status, 0);
            }
            // Unlinked meanwhile: nobody wants the device asked any more.
            Performed::Forward if self.urbs.get(urb).unanswered => self.end(urb, Status::OK, 0),
            Performed::Forward => self.enqueue_again(urb, now),
            Performed::Failed(status) => self.end(urb, status, 0),
            Performed::Gone => {
                self.end(urb, Status::ENODEV, 0);
                self.life.note_gone();
            }
        }
        // With a gone device, the URBs behind are answered ENODEV, not judged by old endpoints.
        self.act_on_gone();
        if !self.life.is_device_gone() {
            self.release_queue(now);
        }
    }

    /// Forgets a barrier whose request the worker does not have, and returns its URB. The URBs
    /// behind stay there.
    pub(super) fn drop_barrier(&mut self) -> Option<UrbIndex> {
        let barrier = self.barriers.current.take_if(|barrier| !barrier.is_performing)?;
        self.urbs.get_mut(barrier.urb).state = UrbState::BehindBarrier;
        Some(barrier.urb)
    }

    /// Lets go on the URBs behind the barrier, up to the next barrier.
    pub(super) fn release_queue(&mut self, now: Instant) {
        while self.barriers.current.is_none() {
            let Some(urb) = self.barriers.queue.pop_front() else { break };
            self.start_released(urb, now);
        }
    }
}
