//! The models: the differences between simulated devices.
//!
//! A model is an enum and not a trait object, so that nothing on the path of a URB is called
//! through a pointer. The port calls a model for a single URB at a time, in the following order:
//! [`Model::ready`]; for a ready endpoint [`Model::fill`] or [`Model::consume`]; and
//! [`Model::end_urb`] at the URB's end. The port knows the existing and the halted endpoints, and
//! asks a model only about endpoints of the model's own.
//!
//! Contract: models know no clock, queue or lock; time and faults are the port's. They allocate in
//! [`Model::new`] only, and no input from a client makes a model panic.

use std::time::Duration;

use super::controller::Controller;
use super::descriptors::Descriptors;
use super::disk::{self, Disk};
use super::loopback::{self, Loopback};
use super::microphone::{self, Microphone};
use super::replay::Replay;
use super::serial::{self, Serial};
use super::spec::{ModelKind, Spec};
use crate::wire::setup::Setup;
use crate::wire::status::Status;
use crate::wire::types::{Direction, EndpointAddress};

/// The data moved by a URB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Moved {
    /// Bytes.
    pub(super) bytes: usize,
    /// How the URB ends behind the bytes, if not well.
    pub(super) status: Status,
}

impl Moved {
    /// The given number of bytes.
    pub(super) const fn bytes(bytes: usize) -> Self {
        Self { bytes, status: Status::OK }
    }

    /// The given number of bytes, and then a stall.
    pub(super) const fn stall(bytes: usize) -> Self {
        Self { bytes, status: Status::EPIPE }
    }
}

/// A simulated device, without the host's side.
pub(super) enum Model {
    Disk(Box<Disk>),
    Loopback(Box<Loopback>),
    Microphone(Microphone),
    Serial(Box<Serial>),
    Replay(Box<Replay>),
}

impl Model {
    /// A model; `serial` is the device's own.
    pub(super) fn new(spec: &Spec, serial: &str) -> Self {
        match spec.kind {
            ModelKind::Disk { size } => Self::Disk(Box::new(Disk::new(size, serial))),
            ModelKind::Loopback => {
                Self::Loopback(Box::new(Loopback::new(spec.paced, spec.counted)))
            }
            ModelKind::Microphone => Self::Microphone(Microphone::new(spec.paced)),
            ModelKind::Serial => Self::Serial(Box::new(Serial::new())),
            ModelKind::Replay => Self::Replay(Box::new(Replay::new(spec.script()))),
        }
    }

    /// The descriptors of a model; `serial` is the device's own.
    pub(super) fn descriptors(spec: &Spec, serial: String) -> Descriptors {
        match spec.kind {
            ModelKind::Disk { .. } => disk::descriptors(serial),
            ModelKind::Loopback => loopback::descriptors(serial),
            ModelKind::Microphone => microphone::descriptors(serial),
            ModelKind::Serial => serial::descriptors(serial),
            ModelKind::Replay => Descriptors::of_script(&spec.script()),
        }
    }

    /// Whether the device would do anything but keep the host waiting on `endpoint`.
    pub(super) fn ready(&self, endpoint: EndpointAddress) -> bool {
        match self {
            Self::Disk(disk) => disk.ready(endpoint.direction() == Direction::In),
            Self::Loopback(loopback) => loopback.ready(endpoint),
            Self::Microphone(_) => true,
            Self::Serial(serial) => serial.ready(endpoint),
            Self::Replay(replay) => replay.ready(endpoint),
        }
    }

    /// Sends data on a ready bulk or interrupt endpoint. Less data than room ends the URB.
    pub(super) fn fill(&mut self, endpoint: EndpointAddress, room: &mut [u8]) -> Moved {
        match self {
            Self::Disk(disk) => disk.fill(room),
            Self::Loopback(loopback) => Moved::bytes(loopback.fill(endpoint, room)),
            Self::Microphone(_) => Moved::bytes(0),
            Self::Serial(serial) => Moved::bytes(serial.fill(endpoint, room)),
            Self::Replay(replay) => replay.fill(endpoint, room),
        }
    }

    /// Receives data on a ready bulk or interrupt endpoint. The device takes the rest of `data`
    /// when the endpoint is ready again.
    pub(super) fn consume(&mut self, endpoint: EndpointAddress, data: &[u8]) -> Moved {
        match self {
            Self::Disk(disk) => disk.consume(data),
            Self::Loopback(loopback) => Moved::bytes(loopback.consume(endpoint, data)),
            Self::Microphone(_) => Moved::bytes(data.len()),
            Self::Serial(serial) => Moved::bytes(serial.consume(data)),
            Self::Replay(replay) => replay.consume(endpoint, data),
        }
    }

    /// Notes that a fault ended a URB before the end of its data.
    pub(super) const fn cut_short(&mut self) {
        match self {
            Self::Disk(disk) => disk.cut_short(),
            Self::Loopback(_) | Self::Microphone(_) | Self::Serial(_) | Self::Replay(_) => {}
        }
    }

    /// Sends an isochronous packet.
    pub(super) fn fill_packet(&mut self, endpoint: EndpointAddress, room: &mut [u8]) -> Moved {
        match self {
            Self::Loopback(loopback) => Moved::bytes(loopback.fill_packet(endpoint, room)),
            Self::Microphone(microphone) => Moved::bytes(microphone.fill_packet(room)),
            Self::Replay(replay) => replay.fill_packet(endpoint, room),
            Self::Disk(_) | Self::Serial(_) => Moved::bytes(0),
        }
    }

    /// Receives an isochronous packet.
    pub(super) fn consume_packet(&mut self, endpoint: EndpointAddress, data: &[u8]) {
        match self {
            Self::Loopback(loopback) => loopback.consume_packet(endpoint, data),
            Self::Disk(_) | Self::Microphone(_) | Self::Serial(_) | Self::Replay(_) => {}
        }
    }

    /// Notes the end of a URB without a cancel, and whether an empty packet followed.
    pub(super) fn end_urb(&mut self, endpoint: EndpointAddress, empty_packet: bool) {
        match self {
            Self::Loopback(loopback) => loopback.end_urb(endpoint, empty_packet),
            Self::Disk(_) | Self::Microphone(_) | Self::Serial(_) | Self::Replay(_) => {}
        }
    }

    /// The data already sent when the device noticed the cancel of a URB.
    pub(super) fn fill_late(&mut self, endpoint: EndpointAddress, room: &mut [u8]) -> usize {
        match self {
            Self::Loopback(loopback) => loopback.fill_late(endpoint, room),
            Self::Disk(_) | Self::Microphone(_) | Self::Serial(_) | Self::Replay(_) => 0,
        }
    }

    /// Notes a control request, even if answered elsewhere.
    pub(super) const fn note_setup(&mut self, setup: &Setup) {
        match self {
            Self::Loopback(loopback) => loopback.note_setup(setup),
            Self::Disk(_) | Self::Microphone(_) | Self::Serial(_) | Self::Replay(_) => {}
        }
    }

    /// Whether the model answers standard requests, too.
    pub(super) const fn is_recorded(&self) -> bool {
        matches!(self, Self::Replay(_))
    }

    /// Notes a new client.
    pub(super) fn open(&mut self) {
        if let Self::Replay(replay) = self {
            replay.rewind();
        }
    }

    /// Carries out a class or vendor request. Returns the moved bytes of the data stage; `None` is
    /// a stall.
    pub(super) fn control(
        &mut self,
        setup: &Setup,
        data: &mut [u8],
        controller: &mut Controller,
    ) -> Option<usize> {
        match self {
            Self::Disk(disk) => disk.control(setup, data),
            Self::Loopback(loopback) => loopback.control(setup, data, controller),
            Self::Microphone(_) => Microphone::control(setup, data),
            Self::Serial(serial) => serial.control(setup, data),
            Self::Replay(replay) => replay.control(setup, data),
        }
    }

    /// The time of an isochronous packet or an interrupt of `endpoint`; zero means at once.
    pub(super) fn period(&self, endpoint: EndpointAddress) -> Duration {
        match self {
            Self::Loopback(loopback) => loopback.period(endpoint),
            Self::Microphone(microphone) => microphone.period(),
            Self::Replay(replay) => replay.period(endpoint),
            Self::Disk(_) | Self::Serial(_) => Duration::ZERO,
        }
    }

    /// Starts an endpoint anew, after its halt was cleared or its interface set.
    pub(super) const fn restart(&mut self, endpoint: EndpointAddress) {
        match self {
            Self::Loopback(loopback) => loopback.restart(endpoint),
            Self::Microphone(microphone) => microphone.restart(endpoint),
            Self::Disk(_) | Self::Serial(_) | Self::Replay(_) => {}
        }
    }

    /// Notes a reset, or an opening by another client. The endpoints are restarted separately.
    pub(super) fn reset(&mut self) {
        match self {
            Self::Disk(disk) => disk.reset(),
            Self::Loopback(loopback) => loopback.reset(),
            Self::Microphone(_) | Self::Replay(_) => {}
            Self::Serial(serial) => serial.reset(),
        }
    }
}
