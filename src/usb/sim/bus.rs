//! The simulated bus: its devices, their plugs and their owners.
//!
//! Tests keep a bus beside the server and pull plugs. An open device takes its model out of the bus
//! and brings the model back on closing. So a device's memory outlives its clients, and no lock is
//! taken on the path of a URB.
//!
//! Contract: any thread; every method holds a lock no longer than a look at a list takes. Methods
//! with a busid panic for an unknown device: only tests call these methods.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::descriptors::Descriptors;
use super::hotplug::{Bell, SimHints};
use super::model::Model;
use super::spec::{DEVICES_MAX, Fault, Spec};
use crate::usb::isochronous::IsochronousSettings;
use crate::usb::{DeviceInfo, Obstacle, OpenError};
use crate::wire::op::{UsbDevice, UsbInterface};
use crate::wire::types::BusId;

/// The number of the bus.
const BUSNUM: u8 = 1;

/// The first device's address; the root hub would have 1.
const DEVNUM_FIRST: u8 = 2;

/// What is added to the address of a device that takes the place of another.
const DEVNUM_LATER: u8 = 64;

/// A set of simulated devices, shared by all clones.
#[derive(Clone, Default)]
pub struct SimBus {
    devices: Arc<Mutex<Vec<BusDevice>>>,
    bell: Bell,
}

/// A device of the bus.
struct BusDevice {
    busid: BusId,
    devnum: u8,
    spec: Spec,
    descriptors: Arc<Descriptors>,
    plug: Arc<Plug>,
    /// `None` while a port has the model.
    model: Option<Model>,
    /// Number of times the device was opened.
    opens: u64,
    /// Number of openings still to be refused.
    refusals: u32,
}

/// A model in the hands of a port, given back to the bus on drop.
pub(super) struct TakenModel {
    bus: SimBus,
    busid: BusId,
    devnum: u8,
    model: Option<Model>,
}

/// The parts of the bus for a port.
pub(super) struct PortParts {
    pub(super) taken: TakenModel,
    pub(super) spec: Spec,
    pub(super) descriptors: Arc<Descriptors>,
    pub(super) plug: Arc<Plug>,
}

impl PortParts {
    /// Which of the device's endpoints are isochronous.
    pub(super) fn isochronous(&self) -> IsochronousSettings {
        IsochronousSettings::of([&self.descriptors.parsed()])
    }
}

impl SimBus {
    /// A bus with the devices of a list.
    ///
    /// # Panics
    /// For more than [`DEVICES_MAX`] devices, a number refused by [`Spec::parse_list`].
    #[must_use]
    pub fn with(specs: &[Spec]) -> Self {
        let bus = Self::default();
        for spec in specs {
            for _ in 0..spec.count {
                bus.add(spec.clone());
            }
        }
        bus
    }

    /// Adds a single device, regardless of the spec's count, and plugs the device in.
    ///
    /// # Panics
    /// On a bus with [`DEVICES_MAX`] devices.
    pub fn add(&self, spec: Spec) -> BusId {
        let mut devices = self.lock();
        let count = devices.len();
        assert!(count < DEVICES_MAX, "the simulated bus is full");
        let number = u8::try_from(count).expect("there are fewer than 256");
        let busid = BusId::new(&format!("{BUSNUM}-{}", count + 1)).expect("it is short");
        // Twelve hexadecimal digits, as the mass storage class demands of a serial number.
        let serial = format!("{:012X}", 0x05EE_D000_0000_u64 + u64::from(number) + 1);
        let model = Some(Model::new(&spec, &serial));
        let descriptors = Arc::new(Model::descriptors(&spec, serial));
        devices.push(BusDevice {
            busid,
            devnum: DEVNUM_FIRST + number,
            model,
            plug: Arc::new(Plug::new(self.bell.clone(), &descriptors)),
            descriptors,
            spec,
            opens: 0,
            refusals: 0,
        });
        drop(devices);
        self.bell.ring();
        busid
    }

    /// Takes a device away, in mid-transfer if need be.
    pub fn unplug(&self, busid: BusId) {
        self.with_device(busid, |device| device.plug.pull());
    }

    /// Plugs an unplugged device in again, with its first configuration and its memory.
    pub fn replug(&self, busid: BusId) {
        self.with_device(busid, |device| {
            device.plug = Arc::new(Plug::new(self.bell.clone(), &device.descriptors));
        });
        self.bell.ring();
    }

    /// Plugs in another device where one was unplugged: with another number, and empty memory.
    pub fn replug_as(&self, busid: BusId, spec: Spec) {
        self.with_device(busid, |device| {
            let serial = format!("{:012X}", 0x05EE_D0FF_0000_u64 + u64::from(device.devnum));
            device.devnum = device.devnum.wrapping_add(DEVNUM_LATER);
            device.model = Some(Model::new(&spec, &serial));
            device.descriptors = Arc::new(Model::descriptors(&spec, serial));
            device.plug = Arc::new(Plug::new(self.bell.clone(), &device.descriptors));
            device.spec = spec;
        });
        self.bell.ring();
    }

    /// Hints that another scan is due, though nothing has changed.
    pub fn hint(&self) {
        self.bell.ring();
    }

    /// Ends all hints.
    pub fn end_hints(&self) {
        self.bell.hang_up();
    }

    /// Whether a device is plugged in.
    #[must_use]
    pub fn is_present(&self, busid: BusId) -> bool {
        self.with_device(busid, |device| device.plug.is_present())
    }

    /// Whether a port has the device.
    #[must_use]
    pub fn is_open(&self, busid: BusId) -> bool {
        self.with_device(busid, |device| device.model.is_none())
    }

    /// How many times a device was opened.
    #[must_use]
    pub fn open_count(&self, busid: BusId) -> u64 {
        self.with_device(busid, |device| device.opens)
    }

    /// Makes the next `times` opens of a device fail with [`Obstacle::Told`].
    pub fn refuse_opens(&self, busid: BusId, times: u32) {
        self.with_device(busid, |device| device.refusals = times);
    }

    /// Sets the configuration of a closed device; zero means none. An open port changes the
    /// configuration too, and leaves its last choice behind.
    pub fn set_configuration(&self, busid: BusId, value: u8) {
        self.with_device(busid, |device| device.plug.set_configuration(value));
    }

    /// The busids of all devices, in the order of their addition.
    #[must_use]
    pub fn busids(&self) -> Vec<BusId> {
        self.lock().iter().map(|device| device.busid).collect()
    }

    /// The plugged devices.
    pub(super) fn present(&self) -> Vec<DeviceInfo> {
        let devices = self.lock();
        let present = devices.iter().filter(|device| device.plug.is_present());
        present.map(BusDevice::info).collect()
    }

    /// What hints at changes from now on; `None` where the system has no sockets.
    pub(super) fn hints(&self) -> Option<SimHints> {
        self.bell.listen()
    }

    /// How long opening a device is to take.
    pub(super) fn open_delay(&self, busid: BusId) -> Duration {
        self.with_device(busid, |device| match device.spec.fault {
            Some(Fault::Slow(delay)) => delay,
            _ => Duration::ZERO,
        })
    }

    /// Opens the device that was found at a busid with this address.
    pub(super) fn open(&self, busid: BusId, devnum: u8) -> Result<PortParts, OpenError> {
        self.with_device(busid, |device| {
            if device.devnum != devnum {
                return Err(device.refuse(Obstacle::Gone));
            }
            let model = Some(device.take_model()?);
            let bus = self.clone();
            Ok(PortParts {
                taken: TakenModel { bus, busid, devnum, model },
                spec: device.spec.clone(),
                descriptors: Arc::clone(&device.descriptors),
                plug: Arc::clone(&device.plug),
            })
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<BusDevice>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_device<T>(&self, busid: BusId, f: impl FnOnce(&mut BusDevice) -> T) -> T {
        let mut devices = self.lock();
        let device = devices.iter_mut().find(|device| device.busid == busid);
        f(device.expect("the device was added to this bus"))
    }
}

impl BusDevice {
    fn info(&self) -> DeviceInfo {
        let [_, _, _, _, class, sub_class, protocol, _, rest @ ..] = self.descriptors.device;
        let value = self.plug.configuration();
        let strings = self.descriptors.strings.clone();
        DeviceInfo {
            device: UsbDevice {
                path: format!("/simulated/{}", self.busid),
                busid: self.busid,
                busnum: BUSNUM,
                devnum: self.devnum,
                speed: self.descriptors.speed,
                id_vendor: u16::from_le_bytes([rest[0], rest[1]]),
                id_product: u16::from_le_bytes([rest[2], rest[3]]),
                bcd_device: u16::from_le_bytes([rest[4], rest[5]]),
                device_class: class,
                device_sub_class: sub_class,
                device_protocol: protocol,
                configuration_value: value,
                num_configurations: 1,
                interfaces: self.interfaces(value),
            },
            manufacturer: strings.manufacturer,
            product: strings.product,
            serial: strings.serial,
            drivers: Vec::new(),
            imported: false,
        }
    }

    fn interfaces(&self, value: u8) -> Vec<UsbInterface> {
        if value == 0 {
            return Vec::new();
        }
        self.descriptors.parsed().records()
    }

    fn take_model(&mut self) -> Result<Model, OpenError> {
        if !self.plug.is_present() {
            return Err(self.refuse(Obstacle::Gone));
        }
        if self.refusals > 0 {
            self.refusals -= 1;
            return Err(self.refuse(Obstacle::Told));
        }
        let busy = self.refuse(Obstacle::Open);
        let model = self.model.take().ok_or(busy)?;
        self.opens += 1;
        Ok(model)
    }

    const fn refuse(&self, obstacle: Obstacle) -> OpenError {
        OpenError { busid: self.busid, obstacle }
    }
}

impl TakenModel {
    /// The model.
    pub(super) const fn model(&mut self) -> &mut Model {
        self.model.as_mut().expect("the model is taken until dropped")
    }

    /// The model, to look at.
    pub(super) const fn model_ref(&self) -> &Model {
        self.model.as_ref().expect("the model is taken until dropped")
    }
}

impl Drop for TakenModel {
    fn drop(&mut self) {
        let model = self.model.take();
        self.bus.with_device(self.busid, |device| {
            if device.devnum == self.devnum {
                device.model = model;
            }
        });
    }
}

/// A plugged device, seen by its port and by the bus. Each plugging makes a new `Plug`.
pub(super) struct Plug {
    present: AtomicBool,
    configuration: AtomicU8,
    /// Wakes the waiting owner of the port.
    waker: Mutex<Option<UnixStream>>,
    bell: Bell,
}

impl Plug {
    fn new(bell: Bell, descriptors: &Descriptors) -> Self {
        Self {
            present: AtomicBool::new(true),
            configuration: AtomicU8::new(descriptors.configuration_value()),
            waker: Mutex::new(None),
            bell,
        }
    }

    pub(super) fn is_present(&self) -> bool {
        self.present.load(Ordering::Acquire)
    }

    pub(super) fn configuration(&self) -> u8 {
        self.configuration.load(Ordering::Relaxed)
    }

    pub(super) fn set_configuration(&self, value: u8) {
        if self.configuration.swap(value, Ordering::Relaxed) != value {
            self.bell.ring();
        }
    }

    /// Has `waker` written to when the plug is pulled.
    pub(super) fn set_waker(&self, waker: UnixStream) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker);
    }

    pub(super) fn pull(&self) {
        self.present.store(false, Ordering::Release);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut waker) = waker.as_ref() {
            // A single byte into an empty socket; a failed write means that no reader is left to
            // wake.
            let _ = waker.write(&[1]);
        }
        self.bell.ring();
    }
}
