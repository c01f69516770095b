//! The simulated devices, and the host's view of each: its configuration, the owners of its
//! interfaces, the usable endpoints. The calls follow `drivers/usb/core/devio.c`, `message.c` and
//! `driver.c` of Linux 6.1.
//!
//! Contract: [`Locked`] is the kernel's lock of the device. A holder takes no other device's lock,
//! and a node's lock only afterwards.

use std::ffi::c_int;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::descriptors::{self, Configuration, Endpoint, Host, Setting};
use crate::options::{self, DeviceOptions};
use crate::{locks, node, record, tree};

/// Interfaces that usbfs can claim: a bit each in `ifclaimed`, an unsigned long.
const CLAIMABLE: u32 = usize::BITS;

/// A device.
pub(crate) struct Device {
    /// From 0 on.
    pub(crate) index: usize,
    pub(crate) options: &'static DeviceOptions,
    pub(crate) host: Host,
    gone: AtomicBool,
    urbs: AtomicU64,
    state: Mutex<State>,
}

/// The state changed by calls on any open node.
pub(crate) struct State {
    /// Index of the configuration set by the host.
    configuration: Option<usize>,
    /// The number in the last SET_CONFIGURATION to the device.
    told: u8,
    /// The configuration's interfaces, in its order.
    interfaces: Vec<Interface>,
    /// The usable endpoints of the current settings, by [`node::index`].
    endpoints: [Option<Endpoint>; 32],
}

struct Interface {
    number: u8,
    /// Whether the kernel driver has the interface.
    driver: bool,
    /// The node with the claim.
    owner: Option<usize>,
    /// Index of the current setting.
    setting: usize,
    /// Whether the endpoints take URBs (`usb_host_endpoint.enabled`).
    enabled: bool,
    /// Setting 0 failed when the interface was taken from its owner. No driver gets the interface
    /// before setting 0 succeeds (`needs_altsetting0`).
    needs_setting_0: bool,
}

/// All devices.
pub(crate) fn all() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(|| options::get().devices.iter().enumerate().map(Device::new).collect())
}

/// The device with the given number on the bus.
pub(crate) fn numbered(number: u8) -> Option<&'static Device> {
    all().get(usize::from(number).checked_sub(2)?)
}

impl Device {
    fn new((index, options): (usize, &'static DeviceOptions)) -> Self {
        let host = options.host();
        let configuration = options.first_configuration(&host);
        let mut state =
            State { configuration, told: 0, interfaces: Vec::new(), endpoints: [None; 32] };
        state.begin(&host, !options.driver.is_empty());
        let (gone, urbs, state) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::new(state));
        Self { index, options, host, gone, urbs, state }
    }

    /// Takes the device's lock, and waits for any other holder.
    pub(crate) fn lock(&self) -> Locked<'_> {
        loop {
            locks::wait(self.index + 1);
            let locked = self.lock_alone();
            if !locks::is_held(self.index + 1) {
                return locked;
            }
        }
    }

    /// The same without regard to anybody else: to set the device up.
    pub(crate) fn lock_alone(&self) -> Locked<'_> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Locked { device: self, state }
    }

    /// The device's number on the bus.
    pub(crate) const fn number(&self) -> usize {
        self.index + 2
    }

    pub(crate) fn busid(&self) -> String {
        format!("1-{}", self.index + 1)
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Counts a URB and returns its number, from 1 on.
    pub(crate) fn count_urb(&self) -> u64 {
        self.urbs.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Unplugs the device: open nodes hang up, its place in the tree is empty.
    pub(crate) fn unplug(&self) {
        if !self.gone.swap(true, Ordering::Relaxed) {
            record::log(&format!("{} unplugged", self.busid()));
            tree::remove_device(self);
        }
    }

    /// Takes the time of a slow action of the device, by the options, unless the device disappears
    /// meanwhile.
    fn work(&self) -> Result<(), c_int> {
        if let Some(after) = self.options.unplug_during {
            let index = self.index;
            thread::spawn(move || {
                thread::sleep(after);
                all()[index].unplug();
                node::hang_up(&all()[index]);
            });
        }
        let begun = Instant::now();
        while begun.elapsed() < self.options.slow && !self.is_gone() {
            let rest = self.options.slow.saturating_sub(begun.elapsed());
            thread::sleep(rest.min(Duration::from_millis(1)));
        }
        if self.is_gone() { Err(libc::ENODEV) } else { Ok(()) }
    }

    fn has_driver(&self) -> bool {
        !self.options.driver.is_empty()
    }
}

impl State {
    /// The endpoint in use at an address.
    pub(crate) const fn endpoint(&self, address: u8) -> Option<Endpoint> {
        self.endpoints[node::index(address)]
    }

    /// Sets all interfaces of the configuration up.
    fn begin(&mut self, host: &Host, driver: bool) {
        let configuration = self.configuration.map(|index| &host.configurations[index]);
        self.told = configuration.map_or(0, |configuration| configuration.value);
        let interfaces = configuration.map_or(&[][..], |configuration| &configuration.interfaces);
        let set_up = |interface: &descriptors::Interface| Interface {
            number: interface.number,
            driver,
            owner: None,
            setting: first_setting(interface),
            enabled: true,
            needs_setting_0: false,
        };
        self.interfaces = interfaces.iter().map(set_up).collect();
        self.enable(host);
    }

    /// Finds out which endpoints can be used.
    fn enable(&mut self, host: &Host) {
        self.endpoints = [None; 32];
        let Some(index) = self.configuration else { return };
        let interfaces = &host.configurations[index].interfaces;
        let interfaces = interfaces.iter().zip(&self.interfaces);
        for (interface, state) in interfaces.filter(|(_, state)| state.enabled) {
            for endpoint in &interface.settings[state.setting].endpoints {
                self.endpoints[node::index(endpoint.address)] = Some(*endpoint);
                if endpoint.kind == descriptors::CONTROL {
                    self.endpoints[node::index(endpoint.address ^ 0x80)] = Some(*endpoint);
                }
            }
        }
    }
}

/// Setting 0, or the first where there is none.
fn first_setting(interface: &descriptors::Interface) -> usize {
    interface.settings.iter().position(|setting| setting.number == 0).unwrap_or(0)
}

/// A device whose lock is held.
pub(crate) struct Locked<'a> {
    pub(crate) device: &'a Device,
    state: MutexGuard<'a, State>,
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Locked<'_> {
    /// The configuration set by the host.
    pub(crate) fn configuration(&self) -> Option<&Configuration> {
        self.configuration.map(|index| &self.device.host.configurations[index])
    }

    /// Interface numbers, each with whether the kernel's driver has the interface.
    pub(crate) fn drivers(&self) -> impl Iterator<Item = (u8, bool)> {
        self.interfaces.iter().map(|interface| (interface.number, interface.driver))
    }

    /// Takes over the state left by an earlier program.
    pub(crate) fn take_over(&mut self, configuration: Option<u8>, has_driver: &dyn Fn(u8) -> bool) {
        let configurations = &self.device.host.configurations;
        self.configuration = configuration
            .and_then(|value| configurations.iter().position(|one| one.value == value));
        let host = &self.device.host;
        self.begin(host, false);
        for index in 0..self.interfaces.len() {
            let is_driven = has_driver(self.interfaces[index].number);
            // Taken from its driver, and later from the earlier program.
            let needs_setting_0 = !is_driven && self.current(index).number != 0;
            let interface = &mut self.interfaces[index];
            (interface.driver, interface.needs_setting_0) = (is_driven, needs_setting_0);
            interface.enabled = !needs_setting_0;
        }
        self.enable(host);
    }

    /// The device's answer to GET_CONFIGURATION.
    pub(crate) fn told(&self) -> u8 {
        self.device.options.answer_configuration.unwrap_or(self.told)
    }

    /// The device gets a request whose answer nobody looks at.
    pub(crate) fn tell(&mut self, setup: [u8; 8]) -> Result<(), c_int> {
        record::request(&self.device.busid(), setup);
        let stalls = &self.device.options.stall_requests;
        if stalls.iter().any(|request| setup.starts_with(request)) {
            return Err(libc::EPIPE);
        }
        if setup[..2] == [0x00, 9] {
            self.told = setup[2];
        }
        Ok(())
    }

    /// Index of an interface (`usb_ifnum_to_if`).
    fn find(&self, number: u32) -> Option<usize> {
        self.interfaces.iter().position(|interface| u32::from(interface.number) == number)
    }

    fn settings(&self, index: usize) -> &[Setting] {
        self.configuration().map_or(&[], |configuration| &configuration.interfaces[index].settings)
    }

    fn current(&self, index: usize) -> &Setting {
        &self.settings(index)[self.interfaces[index].setting]
    }

    /// The number of an interface's setting.
    pub(crate) fn setting(&self, number: u8) -> Option<u8> {
        self.find(number.into()).map(|index| self.current(index).number)
    }

    /// `findintfep`: the interface with an endpoint in any of its settings.
    pub(crate) fn interface_of(&self, endpoint: u8) -> Result<u32, c_int> {
        if endpoint & 0x70 != 0 {
            return Err(libc::EINVAL);
        }
        let configuration = self.configuration().ok_or(libc::ESRCH)?;
        let has = |setting: &Setting| setting.endpoints.iter().any(|one| one.address == endpoint);
        let interfaces = &configuration.interfaces;
        let interface = interfaces.iter().find(|interface| interface.settings.iter().any(has));
        interface.map(|interface| interface.number.into()).ok_or(libc::ENOENT)
    }

    /// `checkintf`: claims an unclaimed interface before use.
    pub(crate) fn check(&mut self, node: usize, number: u32) -> Result<(), c_int> {
        self.configuration().ok_or(libc::EHOSTUNREACH)?;
        let index = self.find(number);
        if index.is_some_and(|index| self.interfaces[index].owner == Some(node)) {
            return Ok(());
        }
        let result = self.claim(node, number);
        let busid = self.device.busid();
        record::log(&format!("{busid} used {number} unclaimed{}", outcome(&result)));
        result
    }

    /// `check_ctrlrecip`: whether a control request may be sent.
    pub(crate) fn check_recipient(&mut self, node: usize, setup: [u8; 8]) -> Result<(), c_int> {
        let [kind, request, _, _, index, index_high, ..] = setup;
        if kind & 0x60 == 0x40 || kind == 0xa1 && request == 0 && self.prints(index, index_high) {
            return Ok(());
        }
        match kind & 0x1f {
            1 => self.check(node, index.into()),
            2 if index & 0x7f != 0 => {
                let interface = self.interface_of(index);
                let interface = interface.or_else(|_| self.interface_of(index ^ 0x80))?;
                self.check(node, interface)
            }
            _ => Ok(()),
        }
    }

    /// Whether a setting is a printer's. Anybody may send a printer's GET_DEVICE_ID; only in this
    /// request the interface is in wIndex's high byte.
    fn prints(&self, setting: u8, interface: u8) -> bool {
        let Some(index) = self.find(interface.into()) else { return false };
        let mut settings = self.settings(index).iter();
        settings.any(|one| one.number == setting && one.class[0] == 7)
    }

    /// All endpoints of all settings of an interface, a bit each.
    pub(crate) fn endpoints_of(&self, number: u32) -> u32 {
        let Some(index) = self.find(number) else { return 0 };
        let endpoints = self.settings(index).iter().flat_map(|setting| &setting.endpoints);
        endpoints.fold(0, |set, endpoint| set | node::bit(endpoint.address))
    }

    /// `claimintf`.
    pub(crate) fn claim(&mut self, node: usize, number: u32) -> Result<(), c_int> {
        if number >= CLAIMABLE {
            return Err(libc::EINVAL);
        }
        let interface = self.find(number).ok_or(libc::ENOENT)?;
        let interface = &mut self.interfaces[interface];
        match interface.owner {
            Some(owner) if owner == node => Ok(()),
            Some(_) => Err(libc::EBUSY),
            None if interface.driver => Err(libc::EBUSY),
            None => {
                interface.owner = Some(node);
                Ok(())
            }
        }
    }

    /// `proc_disconnect_claim`; `may_take` decides by the name of the driver.
    pub(crate) fn take(
        &mut self,
        node: usize,
        number: u32,
        may_take: &dyn Fn(&str) -> bool,
    ) -> Result<(), c_int> {
        let index = self.find(number).ok_or(libc::EINVAL)?;
        if let Some(driver) = self.driver_at(index) {
            if !may_take(driver) {
                return Err(libc::EBUSY);
            }
            self.unbind(index);
        }
        self.claim(node, number)
    }

    /// `releaseintf`.
    pub(crate) fn release(&mut self, node: usize, number: u32) -> Result<(), c_int> {
        if number >= CLAIMABLE {
            return Err(libc::EINVAL);
        }
        let index = self.find(number).ok_or(libc::ENOENT)?;
        if self.interfaces[index].owner != Some(node) {
            return Err(libc::EINVAL);
        }
        self.unbind(index);
        Ok(())
    }

    /// Releases all interfaces of a closing node.
    pub(crate) fn release_all(&mut self, node: usize) {
        for index in 0..self.interfaces.len() {
            if self.interfaces[index].owner == Some(node) {
                self.unbind(index);
            }
        }
    }

    /// Takes an interface from its owner (`usb_unbind_interface`): its setting is 0 again.
    fn unbind(&mut self, index: usize) {
        let interface = &mut self.interfaces[index];
        let driver = std::mem::take(&mut interface.driver);
        interface.owner = None;
        let number = interface.number;
        if driver {
            tree::set_driver(self.device, self.value(), number, false);
        }
        // Disabled, and enabled again by setting 0.
        self.interfaces[index].enabled = self.current(index).number == 0;
        if self.current(index).number != 0 && self.change_setting(index, 0).is_err() {
            self.interfaces[index].needs_setting_0 = true;
        }
        let host = &self.device.host;
        self.enable(host);
    }

    /// USBDEVFS_DISCONNECT.
    pub(crate) fn disconnect(&mut self, number: u32) -> Result<(), c_int> {
        self.configuration().ok_or(libc::EHOSTUNREACH)?;
        let index = self.find(number).ok_or(libc::EINVAL)?;
        self.driver_at(index).ok_or(libc::ENODATA)?;
        self.unbind(index);
        Ok(())
    }

    /// USBDEVFS_CONNECT: whether there is a driver.
    pub(crate) fn connect(&mut self, number: u32) -> Result<bool, c_int> {
        self.configuration().ok_or(libc::EHOSTUNREACH)?;
        let index = self.find(number).ok_or(libc::EINVAL)?;
        if self.driver_at(index).is_some() {
            return Err(libc::EBUSY);
        }
        Ok(self.bind(index))
    }

    /// Gives a free interface to the kernel's driver, if there is a driver and the driver can have
    /// the interface (`usb_probe_interface`).
    fn bind(&mut self, index: usize) -> bool {
        if !self.device.has_driver() {
            return false;
        }
        if self.interfaces[index].needs_setting_0 && self.change_setting(index, 0).is_err() {
            return false;
        }
        let interface = &mut self.interfaces[index];
        (interface.driver, interface.needs_setting_0) = (true, false);
        let number = interface.number;
        tree::set_driver(self.device, self.value(), number, true);
        true
    }

    /// The name of the interface's driver.
    pub(crate) fn driver(&self, number: u32) -> Result<&'static str, c_int> {
        self.find(number).and_then(|index| self.driver_at(index)).ok_or(libc::ENODATA)
    }

    fn driver_at(&self, index: usize) -> Option<&'static str> {
        match self.interfaces[index] {
            Interface { owner: Some(_), .. } => Some("usbfs"),
            Interface { driver: true, .. } => Some(&self.device.options.driver),
            _ => None,
        }
    }

    /// SET_INTERFACE (`usb_set_interface`).
    pub(crate) fn set_interface(&mut self, number: u32, to: u32) -> Result<(), c_int> {
        let index = self.find(number).ok_or(libc::EINVAL)?;
        self.change_setting(index, to)
    }

    fn change_setting(&mut self, index: usize, to: u32) -> Result<(), c_int> {
        let settings = self.settings(index);
        let setting = settings.iter().position(|setting| u32::from(setting.number) == to);
        let setting = setting.ok_or(libc::EINVAL)?;
        let is_only = settings.len() == 1;
        let (alternate, number) = (settings[setting].number, self.interfaces[index].number);
        self.device.work()?;
        match self.tell([0x01, 11, alternate, 0, number, 0, 0, 0]) {
            // The device need not understand the request if there is no choice.
            Err(libc::EPIPE) if is_only => {}
            Err(errno) => {
                self.interfaces[index].enabled = false;
                let host = &self.device.host;
                self.enable(host);
                return Err(errno);
            }
            Ok(()) => {}
        }
        let interface = &mut self.interfaces[index];
        (interface.setting, interface.enabled) = (setting, true);
        let host = &self.device.host;
        self.enable(host);
        Ok(())
    }

    /// SETCONFIGURATION (`proc_setconfig`).
    pub(crate) fn set_configuration(&mut self, value: i32) -> Result<(), c_int> {
        if (0..self.interfaces.len()).any(|index| self.driver_at(index).is_some()) {
            return Err(libc::EBUSY);
        }
        if self.configuration().is_some_and(|current| i32::from(current.value) == value) {
            return self.reset_configuration();
        }
        let configurations = &self.device.host.configurations;
        let found = configurations.iter().position(|one| i32::from(one.value) == value);
        if found.is_none() && value > 0 || value < -1 {
            return Err(libc::EINVAL);
        }
        let number = found.map_or(0, |index| configurations[index].value);
        self.device.work()?;
        let told = self.tell([0x00, 9, number, 0, 0, 0, 0, 0]);
        // The old configuration is gone, regardless of the device's answer.
        self.configuration = found.filter(|_| told.is_ok());
        let (host, driver) = (&self.device.host, self.device.has_driver());
        self.begin(host, driver);
        tree::set_configuration(self);
        told
    }

    /// `usb_reset_configuration`: all interfaces have their first setting again; drivers stay.
    fn reset_configuration(&mut self) -> Result<(), c_int> {
        let Some(configuration) = self.configuration else { return Ok(()) };
        let host = &self.device.host;
        let configuration = &host.configurations[configuration];
        self.device.work()?;
        self.tell([0x00, 9, configuration.value, 0, 0, 0, 0, 0])?;
        for (state, interface) in self.interfaces.iter_mut().zip(&configuration.interfaces) {
            (state.setting, state.enabled) = (first_setting(interface), true);
        }
        self.enable(host);
        Ok(())
    }

    /// RESET (`usb_reset_device`): interfaces of usbfs go to the kernel's driver; the configuration
    /// and the settings are set again.
    pub(crate) fn reset(&mut self) -> Result<(), c_int> {
        for index in 0..self.interfaces.len() {
            if self.interfaces[index].owner.is_some() {
                self.unbind(index);
                self.bind(index);
            }
        }
        self.device.work()?;
        let Some(configuration) = self.configuration() else { return Ok(()) };
        let value = configuration.value;
        self.tell([0x00, 9, value, 0, 0, 0, 0, 0])?;
        for index in 0..self.interfaces.len() {
            let (setting, number) = (self.current(index).number, self.interfaces[index].number);
            if setting != 0 {
                self.tell([0x01, 11, setting, 0, number, 0, 0, 0])?;
            }
            self.interfaces[index].enabled = true;
        }
        let host = &self.device.host;
        self.enable(host);
        Ok(())
    }

    /// Number of the current configuration, for names of interfaces.
    fn value(&self) -> u8 {
        self.configuration().map_or(0, |configuration| configuration.value)
    }
}

/// How a call ended, for the log.
pub(crate) fn outcome<T>(result: &Result<T, c_int>) -> String {
    result.as_ref().map_or_else(|errno| format!(": errno {errno}"), |_| String::new())
}
