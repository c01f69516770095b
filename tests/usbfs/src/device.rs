//! The simulated devices: what they are, and who has which interface.
//!
//! | endpoint | interface | what it does |
//! | --- | --- | --- |
//! | 0x81 bulk IN | 0 | source |
//! | 0x01 bulk OUT | 0 | sink |
//! | 0x83 interrupt IN | 0 | a counter, eight bytes little-endian, every 8 ms |
//! | 0x84 interrupt IN | 0 | silent: never has data |
//! | 0x86 bulk IN | 0 | silent likewise |
//! | 0x85 isochronous IN | 1, setting 1 | source of up to 3072 bytes a packet |
//! | 0x05 isochronous OUT | 1, setting 1 | sink |
//!
//! The addresses are those of usbferry's own simulated loopback, so that one client suits both.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::abi;
use crate::{node, options, record, tree};

/// idVendor and idProduct: one of those that pid.codes keeps for tests.
const ID_VENDOR: [u8; 2] = 0x1209_u16.to_le_bytes();
const ID_PRODUCT: [u8; 2] = 0x0010_u16.to_le_bytes();

/// Interfaces of a device.
pub(crate) const INTERFACES: usize = 2;

/// What an endpoint does with its URBs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Behaviour {
    Flows,
    Ticks,
    Silent,
}

/// An endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: u8,
    /// `type` of the URBs it takes.
    pub(crate) kind: u8,
    pub(crate) interface: usize,
    pub(crate) setting: u8,
    pub(crate) behaviour: Behaviour,
}

const fn endpoint(address: u8, kind: u8, at: (usize, u8), behaviour: Behaviour) -> Endpoint {
    Endpoint { address, kind, interface: at.0, setting: at.1, behaviour }
}

pub(crate) const ENDPOINTS: [Endpoint; 7] = [
    endpoint(0x81, abi::KIND_BULK, (0, 0), Behaviour::Flows),
    endpoint(0x01, abi::KIND_BULK, (0, 0), Behaviour::Flows),
    endpoint(0x83, abi::KIND_INTERRUPT, (0, 0), Behaviour::Ticks),
    endpoint(0x84, abi::KIND_INTERRUPT, (0, 0), Behaviour::Silent),
    endpoint(0x86, abi::KIND_BULK, (0, 0), Behaviour::Silent),
    endpoint(0x85, abi::KIND_ISOCHRONOUS, (1, 1), Behaviour::Flows),
    endpoint(0x05, abi::KIND_ISOCHRONOUS, (1, 1), Behaviour::Flows),
];

/// The device descriptor.
#[rustfmt::skip]
pub(crate) const DEVICE_DESCRIPTOR: [u8; 18] = [
    18, 1, 0, 2, 0, 0, 0, 64,
    ID_VENDOR[0], ID_VENDOR[1], ID_PRODUCT[0], ID_PRODUCT[1], 0, 1,
    1, 2, 3, 1,
];

/// The configuration descriptor and all that belongs to it.
#[rustfmt::skip]
pub(crate) const CONFIGURATION: [u8; 85] = [
    9, 2, 85, 0, 2, 1, 0, 0x80, 50,
    9, 4, 0, 0, 5, 0xff, 0, 0, 0,
    7, 5, 0x81, 2, 0, 2, 0,
    7, 5, 0x01, 2, 0, 2, 0,
    7, 5, 0x83, 3, 64, 0, 7,
    7, 5, 0x84, 3, 64, 0, 7,
    7, 5, 0x86, 2, 0, 2, 0,
    9, 4, 1, 0, 0, 0xff, 0, 0, 0,
    9, 4, 1, 1, 2, 0xff, 0, 0, 0,
    7, 5, 0x85, 1, 0, 0x14, 1,
    7, 5, 0x05, 1, 0, 0x14, 1,
];

/// Device and configuration descriptor of the root hub.
#[rustfmt::skip]
pub(crate) const ROOT_HUB: [u8; 43] = [
    18, 1, 0, 2, 9, 0, 1, 64, 0x6b, 0x1d, 2, 0, 0, 6, 0, 0, 0, 1,
    9, 2, 25, 0, 1, 1, 0, 0xe0, 0,
    9, 4, 0, 0, 1, 9, 0, 0, 0,
    7, 5, 0x81, 3, 4, 0, 12,
];

/// Manufacturer, product and, without the device's number, serial number.
pub(crate) const STRINGS: [&str; 3] = ["usbferry", "Simulated usbfs device", "usbfs-"];

/// All that can be read from a device node or its `descriptors` in sysfs. The kernel has the
/// device descriptor's words in host order in the former; both are little-endian here.
pub(crate) fn descriptors() -> Vec<u8> {
    [&DEVICE_DESCRIPTOR[..], &CONFIGURATION].concat()
}

/// A device.
pub(crate) struct Device {
    /// From 0 on.
    pub(crate) index: usize,
    gone: AtomicBool,
    urbs: AtomicU64,
    state: Mutex<State>,
}

/// What calls on any of its open nodes change.
struct State {
    configuration: u8,
    interfaces: [Interface; INTERFACES],
}

#[derive(Clone, Copy, Default)]
struct Interface {
    /// The kernel driver has it.
    driver: bool,
    /// The node that claimed it.
    owner: Option<usize>,
    setting: u8,
}

/// All devices.
pub(crate) fn all() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(|| (0..options::get().count).map(Device::new).collect())
}

/// The device with this number on the bus.
pub(crate) fn numbered(number: u8) -> Option<&'static Device> {
    all().get(usize::from(number).checked_sub(2)?)
}

impl Device {
    fn new(index: usize) -> Self {
        let driver = !options::get().driver.is_empty();
        let interface = Interface { driver, ..Interface::default() };
        let state = State { configuration: 1, interfaces: [interface; INTERFACES] };
        Self {
            index,
            gone: AtomicBool::new(false),
            urbs: AtomicU64::new(0),
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its number on the bus.
    pub(crate) const fn number(&self) -> usize {
        self.index + 2
    }

    pub(crate) fn busid(&self) -> String {
        format!("1-{}", self.index + 1)
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Counts a URB; its number, from 1 on.
    pub(crate) fn count_urb(&self) -> u64 {
        self.urbs.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Unplugs it: what is open of it hangs up, its place in the tree is empty.
    pub(crate) fn unplug(&self) {
        if !self.gone.swap(true, Ordering::Relaxed) {
            record::log(&format!("{} unplugged", self.busid()));
            tree::remove_device(self);
        }
    }

    /// The endpoints that `node` may use, a bit each.
    pub(crate) fn active(&self, node: usize) -> u32 {
        let state = self.state();
        let is_active = |endpoint: &&Endpoint| {
            let interface = &state.interfaces[endpoint.interface];
            interface.owner == Some(node) && interface.setting == endpoint.setting
        };
        let active = ENDPOINTS.iter().filter(is_active);
        active.fold(0, |set, endpoint| set | node::bit(endpoint.address))
    }

    pub(crate) fn configuration(&self) -> u8 {
        self.state().configuration
    }

    pub(crate) fn setting(&self, interface: usize) -> u8 {
        self.state().interfaces.get(interface).map_or(0, |interface| interface.setting)
    }

    /// Claims an interface that nobody has, with `detach` also one that the kernel's driver has.
    pub(crate) fn claim(&self, node: usize, number: usize, detach: bool) -> Result<(), c_int> {
        let mut state = self.state();
        let interface = state.interface(number, libc::ENOENT)?;
        match interface.owner {
            Some(owner) if owner == node => return Ok(()),
            Some(_) => return Err(libc::EBUSY),
            None if interface.driver && !detach => return Err(libc::EBUSY),
            None => {}
        }
        interface.owner = Some(node);
        if std::mem::take(&mut interface.driver) {
            tree::set_driver(self, number, false);
        }
        Ok(())
    }

    /// Releases an interface; its setting is the first one again.
    pub(crate) fn release(&self, node: usize, number: usize) -> Result<(), c_int> {
        let mut state = self.state();
        let interface = state.interface(number, libc::EINVAL)?;
        if interface.owner != Some(node) {
            return Err(libc::EINVAL);
        }
        (interface.owner, interface.setting) = (None, 0);
        Ok(())
    }

    /// Releases all that a node that is closed has.
    pub(crate) fn release_all(&self, node: usize) {
        for number in 0..INTERFACES {
            // What it does not have it can't release.
            let _ = self.release(node, number);
        }
    }

    /// Takes an interface from whoever has it.
    pub(crate) fn disconnect(&self, number: usize) -> Result<(), c_int> {
        let mut state = self.state();
        let interface = state.interface(number, libc::EINVAL)?;
        let driver = std::mem::take(&mut interface.driver);
        if driver {
            tree::set_driver(self, number, false);
        }
        let owner = interface.owner.take();
        if driver || owner.is_some() { Ok(()) } else { Err(libc::ENODATA) }
    }

    /// Gives an interface that nobody has to the kernel's driver. Whether there is one.
    pub(crate) fn connect(&self, number: usize) -> Result<bool, c_int> {
        let mut state = self.state();
        let interface = state.interface(number, libc::EINVAL)?;
        if interface.driver || interface.owner.is_some() {
            return Err(libc::EBUSY);
        }
        interface.driver = !options::get().driver.is_empty();
        if interface.driver {
            tree::set_driver(self, number, true);
        }
        Ok(interface.driver)
    }

    /// The kernel's driver has an interface, or not, since before this process began.
    pub(crate) fn find_driver(&self, number: usize, is_there: bool) {
        self.state().interfaces[number].driver = is_there;
    }

    /// The name of the driver that has an interface.
    pub(crate) fn driver(&self, number: usize) -> Result<&'static str, c_int> {
        let mut state = self.state();
        match state.interface(number, libc::EINVAL)? {
            Interface { owner: Some(_), .. } => Ok("usbfs"),
            Interface { driver: true, .. } => Ok(&options::get().driver),
            _ => Err(libc::ENODATA),
        }
    }

    pub(crate) fn set_interface(&self, node: usize, number: usize, to: u8) -> Result<(), c_int> {
        let mut state = self.state();
        let interface = state.interface(number, libc::EINVAL)?;
        let settings = if number == 1 { 2 } else { 1 };
        if interface.owner != Some(node) || to >= settings {
            return Err(libc::EINVAL);
        }
        interface.setting = to;
        Ok(())
    }

    /// Sets the configuration; the kernel's driver takes the interfaces of a new one.
    pub(crate) fn set_configuration(&self, value: i32) -> Result<(), c_int> {
        let mut state = self.state();
        let busy = state.interfaces.iter().any(|interface| interface.owner.is_some());
        let to = match value {
            -1 | 0 => 0,
            1 => 1,
            _ => return Err(libc::EINVAL),
        };
        if busy {
            return Err(libc::EBUSY);
        }
        state.configuration = to;
        let driver = to == 1 && !options::get().driver.is_empty();
        state.interfaces = [Interface { driver, ..Interface::default() }; INTERFACES];
        tree::set_configuration(self, to);
        for number in 0..INTERFACES {
            tree::set_driver(self, number, driver);
        }
        Ok(())
    }
}

impl State {
    fn interface(&mut self, number: usize, errno: c_int) -> Result<&mut Interface, c_int> {
        let configured = self.configuration != 0;
        self.interfaces.get_mut(number).filter(|_| configured).ok_or(errno)
    }
}
