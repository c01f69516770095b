//! Why a USB stack can't look for devices, or can't open a device, in words for a user.
//!
//! Contract: plain data.

use std::fmt;
use std::io;

use usbferry_sys::libusb::error::Error as LibusbError;

use super::special::SpecialRequest;
use crate::wire::op::OpStatus;
use crate::wire::status::Status;
use crate::wire::types::BusId;
use crate::words::reason;

/// Why devices can't be looked for.
#[derive(Debug)]
pub enum ScanError {
    /// Linux shows no devices in this directory, the usual place.
    NoDirectory {
        /// The directory.
        directory: &'static str,
        /// The system's reason.
        error: io::Error,
    },
    /// libusb can't be used at all.
    NoLibusb(LibusbError),
    /// Linux can't list its devices: no file or thread is left, or sysfs is gone.
    List(io::Error),
    /// libusb can't list the devices.
    LibusbList(LibusbError),
    /// The scan panicked; the log has the reason.
    Panicked,
}

impl std::error::Error for ScanError {}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDirectory { directory, error } => write!(
                f,
                "there are no devices to look for in {directory}: {}. Does this machine have USB, \
                 and may this user see it, there and in /dev/bus/usb?",
                reason(error)
            ),
            Self::NoLibusb(error) => write!(
                f,
                "libusb can't look for devices: {error}. Does this machine have USB, and may this \
                 user see it?"
            ),
            Self::List(error) => {
                write!(f, "the system can't list its USB devices: {}", reason(error))
            }
            Self::LibusbList(error) => write!(f, "libusb can't list the devices: {error}"),
            Self::Panicked => f.write_str(
                "the scan of the bus failed from a bug in usbferry; the log has the panic",
            ),
        }
    }
}

/// Why a device could not be opened.
#[derive(Debug)]
pub struct OpenError {
    /// The device.
    pub busid: BusId,
    /// The obstacle.
    pub obstacle: Obstacle,
}

/// The obstacle to opening a device.
#[derive(Debug)]
pub enum Obstacle {
    /// This user may not open the device.
    Access {
        /// idVendor.
        vendor: u16,
        /// idProduct.
        product: u16,
    },
    /// The device does not answer.
    Silent,
    /// The device is gone.
    Gone,
    /// The device is open already.
    Open,
    /// The system has no memory for what a session with the device needs.
    NoMemory,
    /// A configuration claims to be shorter than its own descriptor, which libusb refuses.
    ImpossibleLength,
    /// Other programs have all interfaces.
    InUse {
        /// The command that names the programs, as [`DeviceInfo`](super::DeviceInfo) says it.
        programs: String,
    },
    /// This program has no permission to claim any of the interfaces.
    Forbidden,
    /// The system failed to let this program claim the interfaces.
    Unclaimed(LibusbError),
    /// A request by which the device's rule has the device prepared has failed.
    Unprepared(SpecialRequest, Status),
    /// Any other error of libusb.
    Libusb(LibusbError),
    /// The system has no sockets for a simulated device.
    NoSockets(io::Error),
    /// A simulated device was told to refuse.
    Told,
    /// Opening the device panicked; the log has the reason.
    Panicked,
}

impl OpenError {
    /// The system has no memory for what a device's session needs.
    pub(crate) const fn no_memory(busid: BusId) -> Self {
        Self { busid, obstacle: Obstacle::NoMemory }
    }

    /// What the client is told.
    #[must_use]
    pub const fn status(&self) -> OpStatus {
        match self.obstacle {
            Obstacle::Gone => OpStatus::NoDevice,
            Obstacle::Open => OpStatus::DeviceBusy,
            _ => OpStatus::NotAvailable,
        }
    }
}

impl std::error::Error for OpenError {}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.busid, self.obstacle)
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Access { vendor, product } => explain_access(*vendor, *product, f),
            Self::Silent => f.write_str(
                "the device does not answer. Another program keeps it busy, or the device hangs; \
                 plug it in again",
            ),
            Self::Gone => f.write_str("the device is gone"),
            Self::Open => f.write_str("the device is open already"),
            Self::NoMemory => f.write_str(
                "the system has no memory or address space for the device. Is there a limit (ulimit \
                 -v, MemoryMax=)? Smaller --memory or --urbs need less",
            ),
            Self::ImpossibleLength => f.write_str(
                "libusb does not open a device with a configuration that claims to be shorter than \
                 its own descriptor (wTotalLength below 9); only another firmware helps",
            ),
            Self::InUse { programs } => write!(
                f,
                "not exported: none of its interfaces could be claimed, since other programs have \
                 them. End the programs{programs}, then attach again"
            ),
            Self::Forbidden => f.write_str(
                "not exported: the system gave this program no permission to claim any of its \
                 interfaces. Run usbferry as root and outside of sandboxes, then attach again",
            ),
            Self::Unclaimed(error) => explain_unclaimed(*error, f),
            Self::Unprepared(SpecialRequest::SetConfiguration(value), status) => write!(
                f,
                "can't be put into configuration {value}, as its rule says: {}. \"lsusb -v\" lists \
                 the configurations of the device (bConfigurationValue)",
                words_of(*status)
            ),
            Self::Unprepared(_, status) => {
                let words = words_of(*status);
                write!(f, "can't be reset before the import, as its rule says: {words}")
            }
            Self::Libusb(error) => write!(f, "can't be opened: {error}"),
            Self::NoSockets(error) => {
                write!(f, "no sockets for the simulated device: {}", reason(error))
            },
            Self::Told => f.write_str("the simulated device refuses to be opened"),
            Self::Panicked => f.write_str(
                "opening the device failed from a bug in usbferry; the log has the panic",
            ),
        }
    }
}

/// The status of a request by which a device is prepared, for somebody who knows no errno.
fn words_of(status: Status) -> String {
    let words = match status {
        Status::EPIPE => "the device or the system refuses the request",
        Status::EBUSY => "another program uses the device",
        Status::ENOENT | Status::EINVAL => "the device has no such thing",
        Status::EPERM => "the system gives no permission",
        Status::ETIMEDOUT => "the device does not answer in time",
        Status::EPROTO | Status::EOVERFLOW => "the device answers wrongly, or its cable is bad",
        other => return other.to_string(),
    };
    words.to_owned()
}

fn explain_unclaimed(error: LibusbError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let advice = match error {
        LibusbError::NoMem => "Free some of the system's memory",
        _ => "Plug the device in again",
    };
    write!(
        f,
        "not exported: none of its interfaces could be claimed: {error}. {advice}, then attach \
         again"
    )
}

fn explain_access(vendor: u16, product: u16, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if cfg!(target_os = "linux") {
        return write!(
            f,
            "no permission. Run usbferry as root, or allow the device with a udev rule: \
             SUBSYSTEM==\"usb\", ATTR{{idVendor}}==\"{vendor:04x}\", \
             ATTR{{idProduct}}==\"{product:04x}\", MODE=\"0660\", GROUP=\"plugdev\""
        );
    }
    f.write_str("no permission, or macOS keeps the device. Try with sudo")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_is_refused_is_told_without_an_errno() {
        let request = SpecialRequest::SetConfiguration(7);
        let said = Obstacle::Unprepared(request, Status::EPIPE).to_string();
        assert!(said.contains("configuration 7, as its rule says: the device or"), "{said}");
        assert!(!said.contains("EPIPE"), "{said}");
    }
}
