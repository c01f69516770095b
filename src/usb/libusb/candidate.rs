//! A device that a scan found, and how the device is opened for a client.
//!
//! Contract: opening and [`LibusbCandidate::obstacle`] block.

use usbferry_sys::arena::{Arena, NoMemory};
use usbferry_sys::libusb::error::Error;
use usbferry_sys::libusb::handle::DeviceHandle;

use super::ahead::Ahead;
use super::claims::Claims;
use super::found::Found;
use super::memory::PortMemory;
use super::patience::{self, PATIENCE};
use super::pieces::InFlight;
use super::port::LibusbPort;
use super::repair::repair;
use crate::limits::DeviceLimits;
use crate::usb::{Candidate, DeviceInfo, Obstacle, OpenError, Opened};
use crate::wire::iso::PACKETS_MAX;
use crate::wire::op::UsbDevice;

/// A real device, as a scan found it.
#[derive(Clone, Debug)]
pub struct LibusbCandidate {
    pub(super) found: Found,
    info: DeviceInfo,
    ahead: Ahead,
}

impl LibusbCandidate {
    pub(super) fn new(found: Found, info: DeviceInfo) -> Self {
        Self { found, info, ahead: Ahead::default() }
    }

    /// The same device, to be opened in contexts made ahead.
    pub(super) fn with_ahead(self, ahead: Ahead) -> Self {
        Self { ahead, ..self }
    }

    /// Why this process can't open the device, with what to do about it. *Blocks*, not for long.
    #[must_use]
    pub fn obstacle(&self) -> Option<OpenError> {
        let id = self.found.id;
        match patience::answer(PATIENCE, move || DeviceHandle::open_blocking(id, 0, None).map(drop))
        {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(self.failed(error)),
            None => Some(self.error(Obstacle::Silent)),
        }
    }

    fn failed(&self, error: Error) -> OpenError {
        self.error(obstacle_of(error, &self.found, &self.info))
    }

    const fn error(&self, obstacle: Obstacle) -> OpenError {
        OpenError { busid: self.info.device.busid, obstacle }
    }
}

impl Candidate for LibusbCandidate {
    type Port = LibusbPort;

    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn open(
        &self,
        limits: &DeviceLimits,
        reset_on_release: bool,
    ) -> Result<Opened<LibusbPort>, OpenError> {
        let fail = |error| self.failed(error);
        let context = self.ahead.take_context();
        let handle =
            DeviceHandle::open_blocking(self.found.id, limits.urbs, context).map_err(fail)?;
        let isochronous = self.found.descriptors.isochronous(self.found.host);
        let packets = if isochronous.is_empty() { 0 } else { PACKETS_MAX };
        let mut memory = Arena::new();
        memory.add_heap(limits.memory).map_err(|NoMemory| fail(Error::NoMem))?;
        let in_flight = InFlight::new(handle.sends_bulk_whole());
        let port_memory = PortMemory::new_blocking(limits.device_memory);
        let claims = Claims::take(handle, self.found.clone()).map_err(fail)?;
        if let Some(error) = claims.refusal() {
            claims.give_back();
            return Err(self.error(refused(error, &self.info)));
        }
        let configuration = claims.configuration.clone();
        let port = LibusbPort::new(claims, packets, in_flight, port_memory, reset_on_release);
        let device = self.found.descriptors.device.to_bytes();
        let configurations = self.found.descriptors.configurations.clone();
        let (slots, transfers) = (limits.urbs, Vec::new());
        Ok(Opened {
            port,
            slots,
            transfers,
            memory,
            configuration,
            device,
            configurations,
            isochronous,
        })
    }

    /// The kernel has freed the interfaces when the device was closed; the note of the debt is
    /// left, as after a kill.
    fn recover(&self) {
        repair();
    }
}

/// Why no interface could be claimed.
fn refused(error: Error, info: &DeviceInfo) -> Obstacle {
    match error {
        Error::Busy => Obstacle::InUse { programs: info.programs_named() },
        Error::NoDevice => Obstacle::Gone,
        Error::Access => Obstacle::Forbidden,
        other => Obstacle::Unclaimed(other),
    }
}

/// The obstacle to opening a device, by libusb's error.
fn obstacle_of(error: Error, found: &Found, info: &DeviceInfo) -> Obstacle {
    let UsbDevice { id_vendor: vendor, id_product: product, .. } = info.device;
    match error {
        Error::Access => Obstacle::Access { vendor, product },
        Error::NoDevice => Obstacle::Gone,
        Error::NoMem => Obstacle::NoMemory,
        Error::Io if found.descriptors.has_impossible_length() => Obstacle::ImpossibleLength,
        other => Obstacle::Libusb(other),
    }
}
