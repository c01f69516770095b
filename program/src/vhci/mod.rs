//! Linux's own client side: the ports of the kernel module `vhci_hcd`, to which remote devices are
//! attached (`drivers/usb/usbip/vhci_sysfs.c`).
//!
//! - `status`: the ports;
//! - `record`: the stock tool's notes about the origin of each device;
//! - `error`: the reasons for a failure, in words for a user.
//!
//! A device is attached by writing to sysfs: the port, a connected socket of this process, the
//! device's name in PDUs, and its speed. From then on the kernel reads and writes the socket.
//!
//! Contract: calls of the file system, which may block as any do. All paths are below a root, so
//! that tests have a kernel of files.

mod error;
#[cfg(test)]
pub(crate) mod fake;
mod record;
mod status;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

pub use error::VhciError;
use record::Notes;
pub use record::Origin;
pub use status::{Hub, Port, State};

use crate::limits::{PORT_TRIES, VHCI_CONTROLLERS_MAX};
use crate::wire::types::DevId;

/// `EBUSY`: another program has taken the port meanwhile.
const BUSY: io::ErrorKind = io::ErrorKind::ResourceBusy;

/// `vhci_hcd` of a machine.
#[derive(Clone, Debug)]
pub struct Vhci {
    /// `/sys/devices/platform/vhci_hcd.0`, where the files for all controllers are.
    controller: PathBuf,
    /// `/sys/bus/usb/devices`.
    devices: PathBuf,
    notes: Notes,
}

/// The right to attach devices: the open file of sysfs.
#[derive(Debug)]
pub struct Attaching<'a> {
    vhci: &'a Vhci,
    file: File,
}

/// An attached device as this machine sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalDevice {
    /// Vendor and product.
    pub ids: (u16, u16),
    /// `/dev/bus/usb/BUS/ADDRESS`.
    pub bus: u32,
    /// See `bus`.
    pub address: u32,
}

impl Vhci {
    /// The module of the machine whose files are below `root`: `/`, but for tests.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self {
            controller: root.join("sys/devices/platform/vhci_hcd.0"),
            devices: root.join("sys/bus/usb/devices"),
            notes: Notes::below(root),
        }
    }

    /// The ports of all controllers.
    ///
    /// # Errors
    /// The module is not loaded, or the files are of no known form.
    pub fn ports(&self) -> Result<Vec<Port>, VhciError> {
        let mut ports = Vec::new();
        for controller in 0..VHCI_CONTROLLERS_MAX {
            let name =
                if controller == 0 { "status".into() } else { format!("status.{controller}") };
            let path = self.controller.join(name);
            match fs::read_to_string(&path) {
                Ok(text) => ports.extend(status::parse(&text).ok_or(VhciError::Form(path))?),
                Err(error) if controller == 0 => return Err(missing(path, error)),
                // The controllers have all been read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(VhciError::File(path, error)),
            }
        }
        Ok(ports)
    }

    /// Opens the way to attach devices, before a server is asked for a device.
    ///
    /// # Errors
    /// The module is not loaded, or the user may not attach.
    pub fn attaching(&self) -> Result<Attaching<'_>, VhciError> {
        let file = self.open("attach")?;
        Ok(Attaching { vhci: self, file })
    }

    /// Checks that devices can be detached at all: only root may read the notes, so that a name
    /// means nothing to others.
    ///
    /// # Errors
    /// The module is not loaded, or the user may not detach.
    pub fn may_detach(&self) -> Result<(), VhciError> {
        self.open("detach").map(drop)
    }

    /// Detaches the device of a port, and removes its note first, as the stock tool does. The
    /// kernel ends the session soon after the return.
    ///
    /// # Errors
    /// Nothing is attached to the port, or the user may not detach.
    pub fn detach(&self, number: u32) -> Result<(), VhciError> {
        let mut file = self.open("detach")?;
        let ports = self.ports()?;
        let port = ports.iter().find(|port| port.number == number);
        if port.ok_or(VhciError::NoPort(number))?.state == State::Free {
            return Err(VhciError::NotAttached(number));
        }
        self.notes.remove(number);
        match file.write_all(number.to_string().as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Err(VhciError::NotAttached(number))
            }
            written => written.map_err(|error| self.failed("detach", error)),
        }
    }

    /// Notes where the device of a port comes from, for every tool.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn note(&self, port: u32, origin: &Origin) -> io::Result<()> {
        self.notes.write(port, origin)
    }

    /// Where the device of a port comes from, if somebody noted.
    #[must_use]
    pub fn origin(&self, port: u32) -> Option<Origin> {
        self.notes.read(port)
    }

    /// Forgets where the device of a port came from.
    pub fn forget(&self, port: u32) {
        self.notes.remove(port);
    }

    /// The device with a name of this machine; `None` while the device has no address yet.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<LocalDevice> {
        let attribute = |attribute: &str| -> Option<String> {
            let text = fs::read_to_string(self.devices.join(name).join(attribute)).ok()?;
            Some(text.trim().to_owned())
        };
        let id = |name| u16::from_str_radix(&attribute(name)?, 16).ok();
        let number = |name| attribute(name)?.parse().ok();
        Some(LocalDevice {
            ids: (id("idVendor")?, id("idProduct")?),
            bus: number("busnum")?,
            address: number("devnum")?,
        })
    }

    fn open(&self, name: &str) -> Result<File, VhciError> {
        let path = self.controller.join(name);
        OpenOptions::new().write(true).open(&path).map_err(|error| missing(path, error))
    }

    fn failed(&self, name: &str, error: io::Error) -> VhciError {
        VhciError::File(self.controller.join(name), error)
    }
}

impl Attaching<'_> {
    /// Attaches the device at the other end of `socket` to a free port for its speed (`enum
    /// usb_device_speed`), and returns the port. The kernel has the socket from now on; the
    /// descriptor may be closed.
    ///
    /// # Errors
    /// No port is free, or the kernel refuses.
    pub fn attach(
        &mut self,
        socket: BorrowedFd<'_>,
        devid: DevId,
        speed: u32,
    ) -> Result<u32, VhciError> {
        let Self { vhci, file } = self;
        let fd = socket.as_raw_fd();
        let write = |port: u32| {
            // In a single call: the kernel takes each call for a device.
            file.write(format!("{port} {fd} {} {speed}", devid.0).as_bytes()).map(|_| ())
        };
        attach_to_free(|| vhci.ports(), write, Hub::for_speed(speed))
    }
}

/// Tries free ports until one is not taken by another program in the meantime.
fn attach_to_free(
    ports: impl Fn() -> Result<Vec<Port>, VhciError>,
    mut write: impl FnMut(u32) -> io::Result<()>,
    hub: Hub,
) -> Result<u32, VhciError> {
    for _ in 0..PORT_TRIES {
        let fits = |port: &Port| port.hub == hub && port.state == State::Free;
        let free = ports()?.into_iter().find(fits).ok_or(VhciError::NoFreePort(hub))?;
        match write(free.number) {
            Ok(()) => return Ok(free.number),
            Err(error) if error.kind() == BUSY => {}
            Err(error) => return Err(VhciError::Refused(error)),
        }
    }
    Err(VhciError::NoFreePort(hub))
}

/// The reason why a file of the module can't be opened.
fn missing(path: PathBuf, error: io::Error) -> VhciError {
    match error.kind() {
        io::ErrorKind::NotFound => VhciError::NoModule,
        io::ErrorKind::PermissionDenied => VhciError::NotRoot,
        _ => VhciError::File(path, error),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::os::fd::AsFd;

    use super::*;
    use fake::FakeKernel;

    #[test]
    fn a_missing_module_and_missing_rights_are_told() {
        let root = tempfile::tempdir().unwrap();
        let vhci = Vhci::below(root.path());
        for error in
            [vhci.ports().unwrap_err(), vhci.attaching().unwrap_err(), vhci.detach(0).unwrap_err()]
        {
            assert!(error.to_string().contains("modprobe vhci-hcd"), "{error}");
        }
        let denied = missing(PathBuf::new(), io::ErrorKind::PermissionDenied.into());
        assert!(denied.to_string().contains("sudo"), "{denied}");
    }

    #[test]
    fn ports_of_all_controllers_are_read() {
        let kernel = FakeKernel::new();
        assert_eq!(kernel.vhci().ports().unwrap().len(), 4);
        kernel.write("status.1", &kernel.read("status"));
        assert_eq!(kernel.vhci().ports().unwrap().len(), 8);
        // status.2 is missing: there is no third controller.
        kernel.write("status.3", "nonsense");
        assert_eq!(kernel.vhci().ports().unwrap().len(), 8);
        kernel.write("status.1", "nonsense");
        let error = kernel.vhci().ports().unwrap_err().to_string();
        assert!(error.contains("status.1 has a form"), "{error}");
    }

    #[test]
    fn attaching_writes_port_socket_devid_and_speed() {
        let kernel = FakeKernel::new();
        let vhci = kernel.vhci();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = listener.as_raw_fd();
        for (speed, port) in [(1, 0), (3, 0), (5, 2)] {
            let mut attaching = vhci.attaching().unwrap();
            let attached = attaching.attach(listener.as_fd(), DevId::new(1, 2), speed);
            assert_eq!(attached.unwrap(), port);
            assert_eq!(kernel.read("attach"), format!("{port} {fd} 65538 {speed}"));
        }
    }

    #[test]
    fn a_port_taken_meanwhile_is_passed_over() {
        let kernel = FakeKernel::new();
        let vhci = kernel.vhci();
        let tried = RefCell::new(Vec::new());
        let write = |port| {
            tried.borrow_mut().push(port);
            if port > 0 {
                return Ok(());
            }
            kernel.fill(0);
            Err(BUSY.into())
        };
        assert_eq!(attach_to_free(|| vhci.ports(), write, Hub::High).unwrap(), 1);
        assert_eq!(tried.into_inner(), [0, 1]);
        let write = |_| Ok(());
        kernel.fill(1);
        let full = attach_to_free(|| vhci.ports(), write, Hub::High).unwrap_err();
        assert!(full.to_string().contains("for USB 2 are in use"), "{full}");
        assert_eq!(attach_to_free(|| vhci.ports(), write, Hub::Super).unwrap(), 2);
    }

    #[test]
    fn tries_end_and_a_refusal_is_told() {
        let kernel = FakeKernel::new();
        let vhci = kernel.vhci();
        let tries = Cell::new(0);
        let write = |_| {
            tries.set(tries.get() + 1);
            Err(BUSY.into())
        };
        assert!(attach_to_free(|| vhci.ports(), write, Hub::High).is_err());
        assert_eq!(tries.get(), PORT_TRIES);
        let refuse = |_| Err(io::ErrorKind::InvalidInput.into());
        let refused = attach_to_free(|| vhci.ports(), refuse, Hub::High).unwrap_err();
        assert!(matches!(refused, VhciError::Refused(_)), "{refused:?}");
    }

    #[test]
    fn detaching_removes_the_note_first() {
        let kernel = FakeKernel::new();
        let vhci = kernel.vhci();
        kernel.fill(1);
        let origin = Origin { host: "desk".into(), service: "3240".into(), busid: "stick".into() };
        vhci.note(1, &origin).unwrap();
        assert_eq!(vhci.origin(1), Some(origin));
        vhci.detach(1).unwrap();
        assert_eq!((kernel.read("detach").as_str(), vhci.origin(1)), ("1", None));
        assert!(matches!(vhci.detach(0), Err(VhciError::NotAttached(0))));
        assert!(matches!(vhci.detach(9), Err(VhciError::NoPort(9))));
    }

    #[test]
    fn a_device_of_this_machine_is_described_by_sysfs() {
        let kernel = FakeKernel::new();
        kernel.enumerate("9-1", "0781", "5567");
        let device = kernel.vhci().device("9-1").unwrap();
        assert_eq!(device, LocalDevice { ids: (0x0781, 0x5567), bus: 9, address: 2 });
        assert_eq!(kernel.vhci().device("9-2"), None);
    }
}
