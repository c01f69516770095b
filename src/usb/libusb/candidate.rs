//! A device that a scan found, and how it is opened for a client.
//!
//! Contract: opening and [`LibusbCandidate::obstacle`] block.

use usbferry_sys::arena::{Arena, NoMemory};
use usbferry_sys::libusb::error::Error;
use usbferry_sys::libusb::handle::DeviceHandle;
use usbferry_sys::libusb::transfer::Transfer;

use super::found::Found;
use super::patience::{self, PATIENCE};
use super::port::{LibusbPort, LibusbTransfer};
use super::repair::repair;
use super::share::Cost;
use crate::limits::DeviceLimits;
use crate::usb::{Candidate, DeviceInfo, Obstacle, OpenError, Opened, Port};
use crate::wire::iso::PACKETS_MAX;
use crate::wire::op::UsbDevice;
use crate::wire::status::Status;

/// A real device that was found.
#[derive(Clone, Debug)]
pub struct LibusbCandidate {
    pub(super) found: Found,
    info: DeviceInfo,
}

impl LibusbCandidate {
    pub(super) const fn new(found: Found, info: DeviceInfo) -> Self {
        Self { found, info }
    }

    /// Why this process can't open the device, with what to do about it. *Blocks*, not for long.
    #[must_use]
    pub fn obstacle(&self) -> Option<OpenError> {
        let id = self.found.id;
        match patience::answer(PATIENCE, move || DeviceHandle::open_blocking(id, 0).map(drop)) {
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
        let handle = DeviceHandle::open_blocking(self.found.id, limits.urbs).map_err(fail)?;
        let isochronous = self.found.descriptors.isochronous(self.found.host);
        let packets = if isochronous.is_empty() { 0 } else { PACKETS_MAX };
        let slots = u32::try_from(limits.urbs).expect("limits keep slots few");
        let transfers: Result<Vec<LibusbTransfer>, Error> = (0..slots)
            .map(|index| Ok(LibusbTransfer(Transfer::new(&handle, index, packets)?, index)))
            .collect();
        let transfers = transfers.map_err(fail)?;
        let mut memory = Arena::new();
        memory.add_heap(limits.memory).map_err(|NoMemory| fail(Error::NoMem))?;
        let mut port = LibusbPort::new(handle, self.found.clone(), limits.device_memory);
        port.packets = packets;
        port.bulk_is_whole = port.handle.sends_bulk_whole();
        port.costs = vec![Cost::default(); limits.urbs];
        port.reset_on_release = reset_on_release;
        let claimed = port.claim_found();
        let configuration = match claimed {
            Ok(configuration) => configuration,
            Err(error) => {
                port.close(transfers, memory);
                return Err(fail(error));
            }
        };
        if let Some(status) = port.all_refused() {
            port.close(transfers, memory);
            return Err(self.error(refused(status, &self.info)));
        }
        let configurations = self.found.descriptors.configurations.clone();
        Ok(Opened { port, transfers, memory, configuration, configurations, isochronous })
    }

    /// The kernel has freed the interfaces when the device was closed, and the note of their
    /// drivers was left as by a kill.
    fn recover(&self) {
        repair();
    }
}

/// Why no interface could be claimed.
fn refused(status: Status, info: &DeviceInfo) -> Obstacle {
    if status == Status::EBUSY {
        return Obstacle::Held { holders: info.holders_named() };
    }
    Obstacle::Forbidden
}

/// What libusb's error means when a device is opened.
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
