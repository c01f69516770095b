//! A device that a scan found, and how it is opened for a client.
//!
//! Contract: opening and [`LibusbCandidate::obstacle`] block.

use usbferry_sys::arena::{Arena, NoMemory};
use usbferry_sys::libusb::error::Error;
use usbferry_sys::libusb::handle::DeviceHandle;

use super::found::Found;
use super::patience::{self, PATIENCE};
use super::port::{LibusbPort, LibusbTransfer};
use super::repair::repair;
use super::share::Cost;
use crate::limits::DeviceLimits;
use crate::usb::{Candidate, DeviceInfo, OpenError, Opened, Port};
use crate::wire::iso::PACKETS_MAX;
use crate::wire::op::OpStatus;
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
    pub fn obstacle(&self) -> Option<String> {
        let id = self.found.id;
        match patience::answer(PATIENCE, move || DeviceHandle::open_blocking(id, 0).map(drop)) {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(explain_open(error, &self.found, &self.info)),
            None => Some(format!(
                "{}: it does not answer. Something else is busy with it, or the device hangs; plug \
                 it in again",
                self.info.device.busid
            )),
        }
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
        let fail = |error| OpenError {
            status: match error {
                Error::NoDevice => OpStatus::NoDevice,
                _ => OpStatus::NotAvailable,
            },
            message: explain_open(error, &self.found, &self.info),
        };
        let handle = DeviceHandle::open_blocking(self.found.id, limits.urbs).map_err(fail)?;
        let isochronous = self.found.descriptors.isochronous(self.found.host);
        let packets = if isochronous.is_empty() { 0 } else { PACKETS_MAX };
        let slots = u32::try_from(limits.urbs).expect("limits keep slots few");
        let transfers: Result<Vec<LibusbTransfer>, Error> = (0..slots)
            .map(|index| Ok(LibusbTransfer(handle.new_transfer(index, packets)?, index)))
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
            let message = explain_refused(status, &self.info);
            port.close(transfers, memory);
            return Err(OpenError { status: OpStatus::NotAvailable, message });
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

/// Why no interface could be claimed, and what to do about it.
fn explain_refused(status: Status, info: &DeviceInfo) -> String {
    let busid = info.device.busid;
    if status == Status::EBUSY {
        let holders = info.holders_named();
        return format!(
            "{busid}: not exported: none of its interfaces could be claimed, since other programs \
             have them. End them{holders}, then attach again"
        );
    }
    format!(
        "{busid}: not exported: the system gave this program no permission to claim any of its \
         interfaces. Run usbferry as root and outside of sandboxes, then attach again"
    )
}

/// What went wrong when opening, and what to do about it.
fn explain_open(error: Error, found: &Found, info: &DeviceInfo) -> String {
    let device = &info.device;
    let busid = device.busid;
    match error {
        Error::Access if cfg!(target_os = "linux") => format!(
            "{busid}: no permission. Run usbferry as root, or allow the device with a udev rule: \
             SUBSYSTEM==\"usb\", ATTR{{idVendor}}==\"{:04x}\", ATTR{{idProduct}}==\"{:04x}\", \
             MODE=\"0660\", GROUP=\"plugdev\"",
            device.id_vendor, device.id_product
        ),
        Error::Access => format!("{busid}: no permission, or macOS keeps it. Try with sudo"),
        Error::NoDevice => format!("{busid}: it is not there any more"),
        Error::NoMem => OpenError::no_memory(busid).message,
        Error::Io if found.descriptors.has_impossible_length() => format!(
            "{busid}: libusb does not open a device with a configuration that says it is shorter \
             than its own descriptor (wTotalLength below 9); only another firmware helps"
        ),
        other => format!("{busid}: can't be opened: {other}"),
    }
}
