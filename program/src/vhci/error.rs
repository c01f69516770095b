//! Why `vhci_hcd` can't be used, in words for a user.
//!
//! Contract: plain data.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::Hub;
use crate::words::reason;

/// Why a device can't be attached, detached or shown.
#[derive(Debug)]
pub enum VhciError {
    /// The kernel module is not loaded.
    NoModule,
    /// Only root may attach and detach.
    NotRoot,
    /// All ports for the device's speed are in use.
    NoFreePort(Hub),
    /// Nothing is attached to this port.
    NotAttached(u32),
    /// There is no port with this number.
    NoPort(u32),
    /// The kernel refuses to attach the device.
    Refused(io::Error),
    /// A file of sysfs can't be read or written.
    File(PathBuf, io::Error),
    /// A file of sysfs has another form than known.
    Form(PathBuf),
}

impl std::error::Error for VhciError {}

impl fmt::Display for VhciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoModule => f.write_str(
                "the kernel module vhci-hcd, which holds attached devices, is not loaded: run \
                 \"modprobe vhci-hcd\" as root (some distributions have the module in a package \
                 such as linux-modules-extra)",
            ),
            Self::NotRoot => f.write_str(
                "only root may attach and detach devices: run the command again with sudo",
            ),
            Self::NoFreePort(hub) => write!(
                f,
                "all ports of vhci-hcd for USB {} are in use: detach a device (\"usbferry port\" \
                 lists the ports)",
                if *hub == Hub::Super { "3" } else { "2" }
            ),
            Self::NotAttached(port) => write!(f, "nothing is attached to port {port}"),
            Self::NoPort(port) => {
                write!(f, "there is no port {port}: \"usbferry port\" lists the ports in use")
            }
            Self::Refused(error) => write!(
                f,
                "the kernel refuses to attach the device: {} (\"dmesg\" may say more)",
                reason(error)
            ),
            Self::File(path, error) => write!(f, "{}: {}", path.display(), reason(error)),
            Self::Form(path) => {
                write!(f, "{} has a form that usbferry does not know", path.display())
            }
        }
    }
}
