//! Special requests as barriers: what came before is done with, what comes after waits.
//!
//! A request that changes endpoints must not meet transfers on them: usbfs would kill those and
//! libusb then report them as completed. So a barrier first has them cancelled and collected, then
//! the request performed on the worker, and then lets what was held go on, which may bring the next
//! barrier.

use std::time::Instant;

use super::urb::{UrbIndex, UrbState};
use super::{Session, endpoints};
use crate::usb::special::SpecialRequest;
use crate::usb::{Configuration, Performed, Port};
use crate::wire::status::Status;

/// A special request and how far it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Barrier {
    pub(super) urb: UrbIndex,
    request: SpecialRequest,
    /// Endpoints whose transfers must have ended before, a bit each.
    endpoints: u32,
    /// The worker has the request.
    performing: bool,
}

impl<P: Port> Session<P> {
    /// Begins a special request.
    pub(super) fn begin_barrier(&mut self, urb: UrbIndex, request: SpecialRequest) {
        let endpoints = match request {
            SpecialRequest::SetInterface { interface, .. } => {
                endpoints::endpoints_of(self.configuration.as_ref(), interface)
            }
            // The kernel leaves control transfers alone (usb_disable_device with skip_ep0).
            SpecialRequest::SetConfiguration(_) => !endpoints::DEFAULT_CONTROL,
            SpecialRequest::Reset => u32::MAX,
            // The kernel does not mind transfers on an endpoint whose halt it clears, and a
            // client that cares has unlinked them.
            SpecialRequest::ClearHalt(_) => 0,
        };
        self.note_prospects(request);
        self.urbs.get_mut(urb).state = UrbState::Performing;
        self.barrier = Some(Barrier { urb, request, endpoints, performing: false });
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
                    self.finish(other, Status::ECONNRESET, 0);
                }
                UrbState::Free
                | UrbState::Receiving
                | UrbState::Held
                | UrbState::Performing
                | UrbState::Replying => {}
            }
        }
    }

    /// Notes what a request that is to be performed may make of endpoints.
    pub(super) fn note_prospects(&mut self, request: SpecialRequest) {
        let current = self.configuration.as_ref().map(|configuration| configuration.value);
        self.prospects.note(request, current);
    }

    /// The request to perform now, if there is one and nothing stands before it.
    pub(super) fn take_performance(&mut self) -> Option<SpecialRequest> {
        let barrier = self.barrier.as_mut()?;
        if barrier.performing || self.endpoints.any_in_flight(barrier.endpoints) {
            return None;
        }
        // A control transfer that waits for a slot or for memory is not overtaken.
        let endpoint = self.urbs.get(barrier.urb).submit.endpoint;
        if self.endpoints.get(endpoint).first_waiting().is_some() {
            return None;
        }
        barrier.performing = true;
        Some(barrier.request)
    }

    /// Acts on what became of the request.
    pub(super) fn finish_performance(&mut self, performed: Performed, now: Instant) {
        let Some(barrier) = self.barrier.take() else { return };
        let urb = barrier.urb;
        match performed {
            _ if self.tearing_down => self.buffers.free_record(&mut self.urbs, urb),
            Performed::Done => self.finish(urb, Status::OK, 0),
            Performed::Reconfigured { configuration, status } => {
                self.reconfigure(configuration);
                self.finish(urb, status, 0);
            }
            // Muted, nobody wants the device asked any more.
            Performed::Forward if self.urbs.get(urb).muted => self.finish(urb, Status::OK, 0),
            Performed::Forward => self.enqueue(urb, now),
            Performed::Failed(status) => self.finish(urb, status, 0),
            Performed::Gone => {
                self.finish(urb, Status::ENODEV, 0);
                self.lost = true;
            }
        }
        // What is held behind a device that is gone is answered so, not by endpoints it had.
        self.settle(now);
        if !self.gone {
            self.release_held(now);
        }
    }

    /// Forgets a barrier whose request the worker does not have, and returns its URB. What is held
    /// behind it stays so.
    pub(super) fn drop_barrier(&mut self) -> Option<UrbIndex> {
        let barrier = self.barrier.take_if(|barrier| !barrier.performing)?;
        self.urbs.get_mut(barrier.urb).state = UrbState::Held;
        Some(barrier.urb)
    }

    fn reconfigure(&mut self, configuration: Option<Configuration>) {
        self.configuration = configuration;
        self.endpoints.configure(self.configuration.as_ref());
    }

    /// Lets go on what came behind the barrier, up to the next one.
    pub(super) fn release_held(&mut self, now: Instant) {
        while self.barrier.is_none() {
            let Some(urb) = self.held.pop_front() else { break };
            self.start_held(urb, now);
        }
    }
}
