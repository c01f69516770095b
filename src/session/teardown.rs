//! How a session comes to its end: the device goes, and everything that waits is answered; or the
//! client goes, and everything is given up. What is left then is closed on the worker.
//!
//! Contract: runs on the reactor and never blocks, but for [`Remains::close`], which does, on the
//! worker.

use usbferry_sys::arena::Arena;

use super::Session;
use super::urb::UrbState;
use crate::usb::{Opened, Port};
use crate::wire::status::Status;

/// What is left of a session: to be closed on the worker.
pub(crate) struct Remains<P: Port> {
    port: Box<P>,
    transfers: Vec<P::Transfer>,
    memory: Arena,
}

impl<P: Port> From<Opened<P>> for Remains<P> {
    fn from(opened: Opened<P>) -> Self {
        Self { port: Box::new(opened.port), transfers: opened.transfers, memory: opened.memory }
    }
}

impl<P: Port> Remains<P> {
    /// Gives the device back. *Blocks.*
    pub(crate) fn close(self) {
        self.port.close(self.transfers, self.memory);
    }
}

/// The client's side of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ClientSide {
    /// The client is heard and answered.
    Open,
    /// Nothing more is taken from the client; SUBMITs that came before are still answered.
    InputClosed,
    /// The client has left: nothing is answered any more, and everything is given up.
    TearingDown,
}

/// The device's side of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum DeviceSide {
    /// The device is there.
    Present,
    /// A call said that the device is gone, which is acted on when the input at hand is done with.
    FoundGone,
    /// The device is gone: nothing is submitted any more.
    Gone,
}

/// How far both sides of a session are from their ends.
#[derive(Debug)]
pub(super) struct Life {
    client: ClientSide,
    device: DeviceSide,
    /// Transfers are in flight that can't be cancelled.
    is_stuck: bool,
}

impl Life {
    pub(super) const fn new() -> Self {
        Self { client: ClientSide::Open, device: DeviceSide::Present, is_stuck: false }
    }

    /// Whether more is taken from the client.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.client, ClientSide::Open)
    }

    /// Whether neither side is on its way to its end.
    const fn is_whole(&self) -> bool {
        matches!((self.client, self.device), (ClientSide::Open, DeviceSide::Present))
    }

    pub(super) const fn is_tearing_down(&self) -> bool {
        matches!(self.client, ClientSide::TearingDown)
    }

    /// Whether the device is gone, and that was acted on.
    pub(super) const fn is_device_gone(&self) -> bool {
        matches!(self.device, DeviceSide::Gone)
    }

    /// A call said that the device is gone.
    pub(super) const fn note_gone(&mut self) {
        if matches!(self.device, DeviceSide::Present) {
            self.device = DeviceSide::FoundGone;
        }
    }

    /// Transfers can't be cancelled, so the device is of no more use.
    pub(super) const fn note_stuck(&mut self) {
        self.is_stuck = true;
        self.note_gone();
    }

    const fn close_input(&mut self) {
        if matches!(self.client, ClientSide::Open) {
            self.client = ClientSide::InputClosed;
        }
    }

    /// True the first time.
    const fn begin_teardown(&mut self) -> bool {
        let first = !self.is_tearing_down();
        self.client = ClientSide::TearingDown;
        first
    }

    /// True if the device was found to be gone since the last call, and somebody is there to be
    /// told.
    const fn take_found_gone(&mut self) -> bool {
        let found = matches!(self.device, DeviceSide::FoundGone) && !self.is_tearing_down();
        if found {
            self.device = DeviceSide::Gone;
        }
        found
    }
}

impl<P: Port> Session<P> {
    /// Takes nothing more from the client; SUBMITs that came before are still answered.
    pub(crate) const fn close_input(&mut self) {
        self.life.close_input();
    }

    /// Whether nothing more is taken from the client.
    pub(crate) const fn is_input_closed(&self) -> bool {
        !self.life.is_open()
    }

    /// Whether only events can make more to do than there was in this turn: client and device are
    /// there, the worker is not needed, and nothing is due at any time.
    #[inline(always)]
    pub(crate) fn is_settled(&self) -> bool {
        self.life.is_whole() && !self.may_have_job() && self.next_deadline().is_none()
    }

    /// Whether the device is gone.
    pub(crate) const fn is_device_gone(&self) -> bool {
        self.life.is_device_gone()
    }

    /// Whether the device is gone, its URBs were collected, and all answers were written, so that
    /// teardown may begin. A refused submit can tell of the end before the system gives back the
    /// URBs in flight.
    pub(crate) fn is_ready_for_teardown(&self) -> bool {
        self.is_device_gone()
            && !self.life.is_tearing_down()
            && !self.endpoints.any_in_flight(u32::MAX)
            && self.tx.is_empty()
    }

    /// Acts on a device that was found to be gone: all that waits is answered. URBs in flight are
    /// still collected.
    #[inline]
    pub(super) fn act_on_gone(&mut self) {
        if self.life.take_found_gone() {
            self.answer_gone();
        }
    }

    #[cold]
    fn answer_gone(&mut self) {
        self.early_unlinks.answer_all(&mut self.tx);
        self.barriers.clear_queue();
        if let Some(urb) = self.drop_barrier() {
            self.refuse(urb, Status::ENODEV);
        }
        let mut next = 0;
        while let Some(urb) = self.urbs.next_used(next) {
            next = urb + 1;
            match self.urbs.get(urb).state {
                UrbState::Waiting => {
                    self.endpoints.remove_waiting(&mut self.urbs, urb);
                    self.refuse(urb, Status::ENODEV);
                }
                UrbState::BehindBarrier => self.refuse(urb, Status::ENODEV),
                UrbState::Free
                | UrbState::Receiving
                | UrbState::InFlight
                | UrbState::Performing
                | UrbState::Replying => {}
            }
        }
    }

    /// Gives everything up: the client has left. URBs in flight are cancelled, all others dropped.
    /// Goes on until [`Self::is_drained`].
    pub(crate) fn begin_teardown(&mut self) {
        if !self.life.begin_teardown() {
            return;
        }
        self.buffers.retry = None;
        if let Some(port) = self.port.here_mut() {
            port.set_starving(false);
        }
        self.rx.clear(&mut self.buffers);
        self.early_unlinks.clear();
        self.tx.clear();
        self.barriers.clear_queue();
        self.drop_barrier();
        let mut next = 0;
        while let Some(urb) = self.urbs.next_used(next) {
            next = urb + 1;
            match self.urbs.get(urb).state {
                UrbState::InFlight => self.cancel(urb),
                // A request that is performed is freed when the worker gives the port back.
                UrbState::Free | UrbState::Performing => {}
                UrbState::Waiting => {
                    self.endpoints.remove_waiting(&mut self.urbs, urb);
                    self.buffers.free_record_apart(&mut self.urbs, urb);
                }
                UrbState::Receiving | UrbState::BehindBarrier | UrbState::Replying => {
                    self.buffers.free_record_apart(&mut self.urbs, urb);
                }
            }
        }
    }

    /// Whether teardown is complete: the port is here, and the device has nothing of ours, or
    /// nothing that could be had back.
    pub(crate) fn is_drained(&self) -> bool {
        let is_home = self.urbs.is_empty() || self.life.is_stuck;
        self.life.is_tearing_down() && self.port.is_here() && is_home
    }

    /// What is left, for the worker to close. `None` while the port is away.
    pub(crate) fn into_remains(mut self) -> Option<Remains<P>> {
        let is_home = self.buffers.outstanding() == 0 || self.life.is_stuck;
        debug_assert!(is_home, "every buffer came home");
        Some(Remains {
            port: self.port.take()?,
            transfers: self.slots.transfers,
            memory: self.buffers.into_memory(),
        })
    }
}
