//! Real devices, through libusb: `usbferry-sys` as the traits of [`crate::usb`].
//!
//! The only place where libusb's statuses and errors become those of the wire. Kernel drivers are
//! detached when a device is opened and given back when it is closed, but only where there was one.
//!
//! Contract: calls of [`Port`] that do not block are for the reactor, all else is for workers.

use std::time::{Duration, Instant};

use log::{debug, info, warn};
use usbferry_sys::arena::{Arena, Block};
use usbferry_sys::context::{
    DeviceSpeed, Discovery, FoundAlternate, FoundConfiguration, FoundDevice,
};
use usbferry_sys::error::{Error, TransferStatus};
use usbferry_sys::handle::DeviceHandle;
use usbferry_sys::transfer::{self, CancelToken, Kind, Request};

use super::special::SpecialRequest;
use super::{
    Alternate, Backend, Candidate, Completion, Configuration, DeviceInfo, Endpoint, EventSource,
    Interface, OpenError, Opened, Performed, Port, Reaped, Refused, RefusedReason, Submission,
    Transfer,
};
use crate::limits::DeviceLimits;
use crate::usb::ledger::{self, Debt};
use crate::usb::sysfs;
use crate::wire::iso::PACKETS_MAX;
use crate::wire::op::{OpStatus, UsbDevice, UsbInterface};
use crate::wire::status::Status;
use crate::wire::types::{BusId, EndpointAddress, Speed, TransferType};

/// Smallest mapping of device memory worth having, in bytes.
const DEVICE_MEMORY_MIN: usize = 64 << 10;

/// How often to look again after a hang-up: the kernel reports it before libusb can act on it
/// (`usbdev_remove` and `usbdev_poll` of `drivers/usb/core/devio.c`).
const HANGUP_RECHECK: Duration = Duration::from_millis(2);

/// Looks before a hung-up device is taken for gone whatever libusb says: a second.
const HANGUP_RECHECKS_MAX: u32 = 500;

/// Transfers reaped in one call of [`Port::reap`], so that one busy device leaves room for others.
const REAP_BUDGET: usize = 256;

/// Requests that libusb collects from usbfs in one pass over a device's events
/// (`op_handle_events`): fewer in flight, and one pass finds all that have ended.
const PIECES_PER_PASS: usize = 26;

/// Bytes of bulk data where libusb splits them at all, and isochronous packets, that it puts into one
/// request to usbfs in any case (`os/linux_usbfs.h`).
const PIECE_LEN: usize = 16 * 1024;
const PIECE_PACKETS: usize = 128;

/// Finds real devices. Each scan looks anew, with a context of its own: what hotplug events would
/// keep up to date can be wrong where they do not arrive, as in containers without a udev daemon.
pub struct LibusbBackend(());

impl LibusbBackend {
    /// Starts looking for devices. *Blocks.*
    ///
    /// # Errors
    /// There is no USB here, or looking is forbidden; a sentence that says so.
    pub fn new() -> Result<Self, String> {
        Discovery::new().map_err(|error| {
            format!(
                "libusb can't look for devices: {error}. Does this machine have USB, and may this \
                 user see it? On Linux that is /dev/bus/usb"
            )
        })?;
        Ok(Self(()))
    }
}

impl Backend for LibusbBackend {
    const EXACT_TIME: bool = false;

    type Candidate = LibusbCandidate;

    fn scan(&mut self) -> Result<Vec<LibusbCandidate>, String> {
        let found = Discovery::new().and_then(|mut discovery| discovery.devices());
        let found = found.map_err(|error| format!("libusb can't list the devices: {error}"))?;
        Ok(found.into_iter().filter_map(LibusbCandidate::new).collect())
    }
}

/// Gives interfaces back to kernel drivers that an earlier usbferry took them from and, because it
/// was killed, did not give back. What can't be done now is left for the next start. *Blocks.*
pub fn repair() {
    let debts = ledger::debts();
    if debts.is_empty() {
        return;
    }
    let found = match Discovery::new().and_then(|mut discovery| discovery.devices()) {
        Ok(found) => found,
        Err(error) => return warn!("drivers can't be given back: no list of devices: {error}"),
    };
    for (debt, entry) in debts {
        let is_it = |found: &&FoundDevice| debt.is_of_same_device(&debt_of(found, Vec::new()));
        // A device that was plugged in again since has its drivers.
        if found.iter().find(is_it).is_none_or(|found| repair_device(found, &debt)) {
            entry.settle();
        }
    }
}

/// What is owed for a device.
const fn debt_of(found: &FoundDevice, interfaces: Vec<u8>) -> Debt {
    let FoundDevice { bus, address, id_vendor, id_product, .. } = *found;
    Debt { bus, address, id_vendor, id_product, interfaces }
}

/// Whether nothing is left to do for it.
fn repair_device(found: &FoundDevice, debt: &Debt) -> bool {
    let busid = busid_of(found);
    let mut handle = match DeviceHandle::open_blocking(found, 0) {
        Ok(handle) => handle,
        Err(Error::NoDevice) => return true,
        Err(error) => {
            warn!("{busid}: its kernel drivers can't be given back yet: {error}");
            return false;
        }
    };
    let mut is_settled = true;
    for &interface in &debt.interfaces {
        let attached = handle.attach_kernel_driver_blocking(interface);
        match attached {
            Ok(()) => info!(
                "{busid}: interface {interface} has its kernel driver again, which a usbferry \
                 that was killed had taken"
            ),
            Err(error) => debug!("{busid}: interface {interface}: {error}"),
        }
        is_settled &= is_given_back(attached);
    }
    is_settled
}

/// Whether an interface needs nothing more: a driver has it, or none can.
const fn is_given_back(attached: Result<(), Error>) -> bool {
    use Error::{Busy, InvalidParam, NoDevice, NotFound};
    // The parameter is an interface that the device has no more.
    matches!(attached, Ok(()) | Err(Busy | InvalidParam | NoDevice | NotFound))
}

/// A real device that was found.
#[derive(Clone, Debug)]
pub struct LibusbCandidate {
    found: FoundDevice,
    info: DeviceInfo,
}

impl LibusbCandidate {
    /// `None` for what has no name a client could use.
    fn new(found: FoundDevice) -> Option<Self> {
        let busid = BusId::new(&busid_of(&found))?;
        let attributes = sysfs::read(&busid);
        let [manufacturer, product, serial] = found.strings.clone();
        let info = DeviceInfo {
            device: record_of(&found, busid, attributes.path),
            manufacturer: manufacturer.or(attributes.manufacturer),
            product: product.or(attributes.product),
            serial: serial.or(attributes.serial),
            drivers: attributes.drivers,
            imported: attributes.imported,
        };
        Some(Self { found, info })
    }

    /// Why this process can't open the device, with what to do about it. *Blocks.*
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        match DeviceHandle::open_blocking(&self.found, 0) {
            Ok(_) => None,
            Err(error) => Some(explain_open(error, &self.info)),
        }
    }
}

/// The kernel's port path: `1-2.3` is port 3 of the hub at port 2 of bus 1.
fn busid_of(found: &FoundDevice) -> String {
    let ports: Vec<String> = found.ports.iter().map(ToString::to_string).collect();
    match ports.as_slice() {
        [] => format!("usb{}", found.bus),
        ports => format!("{}-{}", found.bus, ports.join(".")),
    }
}

fn record_of(found: &FoundDevice, busid: BusId, path: Option<String>) -> UsbDevice {
    let configuration = found.configuration.as_ref();
    let mut alternates: Vec<&FoundAlternate> =
        configuration.iter().flat_map(|c| &c.alternates).filter(|a| a.setting == 0).collect();
    alternates.sort_by_key(|alternate| alternate.interface);
    let interface = |alternate: &&FoundAlternate| UsbInterface {
        class: alternate.class,
        sub_class: alternate.sub_class,
        protocol: alternate.protocol,
    };
    UsbDevice {
        path: path.unwrap_or_else(|| format!("/usb/{busid}")),
        busid,
        busnum: found.bus,
        devnum: found.address,
        speed: speed_of(found.speed),
        id_vendor: found.id_vendor,
        id_product: found.id_product,
        bcd_device: found.bcd_device,
        device_class: found.device_class,
        device_sub_class: found.device_sub_class,
        device_protocol: found.device_protocol,
        configuration_value: configuration.map_or(0, |configuration| configuration.value),
        num_configurations: found.num_configurations,
        interfaces: alternates.iter().map(interface).collect(),
    }
}

/// The wire's speed. An unknown one is called high: a client refuses to attach "unknown".
const fn speed_of(speed: DeviceSpeed) -> Speed {
    match speed {
        DeviceSpeed::Low => Speed::Low,
        DeviceSpeed::Full => Speed::Full,
        DeviceSpeed::High | DeviceSpeed::Unknown => Speed::High,
        DeviceSpeed::Super => Speed::Super,
    }
}

impl Candidate for LibusbCandidate {
    type Port = LibusbPort;

    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn open(&self, limits: &DeviceLimits) -> Result<Opened<LibusbPort>, OpenError> {
        let fail = |error| OpenError {
            status: match error {
                Error::NoDevice => OpStatus::NoDevice,
                _ => OpStatus::NotAvailable,
            },
            message: explain_open(error, &self.info),
        };
        let handle = DeviceHandle::open_blocking(&self.found, limits.urbs).map_err(fail)?;
        let packets = if self.found.isochronous { PACKETS_MAX } else { 0 };
        let slots = u32::try_from(limits.urbs).expect("limits keep slots few");
        let transfers: Result<Vec<LibusbTransfer>, Error> = (0..slots)
            .map(|index| Ok(LibusbTransfer(handle.new_transfer(index, packets)?, index)))
            .collect();
        let transfers = transfers.map_err(fail)?;
        let memory = allocate(&handle, limits);
        debug!("{}: {} bytes of device memory", self.info.device.busid, memory.device_bytes());
        let mut port = LibusbPort::new(handle, self.found.clone(), self.info.device.busid);
        port.packets = packets;
        port.bulk_is_whole = port.handle.sends_bulk_whole();
        port.pieces = vec![0; limits.urbs];
        port.reset_on_release = limits.reset_on_release;
        let configuration = port.claim_all();
        port.found_in = configuration.as_ref().map_or(0, |configuration| configuration.value);
        if let Some(status) = port.all_refused() {
            let busid = self.info.device.busid;
            let message = format!("{busid}: no interface could be claimed ({status})");
            port.close(transfers, memory);
            return Err(OpenError { status: OpStatus::NotAvailable, message });
        }
        Ok(Opened { port, transfers, memory, configuration })
    }
}

/// Buffer memory: as much from the device as it gives, the rest from the heap.
fn allocate(handle: &DeviceHandle, limits: &DeviceLimits) -> Arena {
    let mut memory = Arena::new();
    let mut len = limits.device_memory;
    while len >= DEVICE_MEMORY_MIN {
        if let Some(mapped) = handle.map_memory_blocking(len) {
            memory.add_device_memory(mapped);
            break;
        }
        len /= 2;
    }
    memory.add_heap(limits.memory);
    memory
}

/// What went wrong when opening, and what to do about it.
fn explain_open(error: Error, info: &DeviceInfo) -> String {
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
        other => format!("{busid}: can't be opened: {other}"),
    }
}

/// An open real device.
pub struct LibusbPort {
    handle: DeviceHandle,
    found: FoundDevice,
    busid: BusId,
    /// Isochronous packets that its transfers have room for.
    packets: u32,
    configuration: Option<Configuration>,
    /// The configuration that it was in when it was opened; 0 for none.
    found_in: u8,
    /// Interfaces that are claimed.
    claims: Vec<u8>,
    /// Interfaces that kernel drivers had, and get back.
    driven: Vec<u8>,
    /// The note of it that outlives this process.
    entry: Option<ledger::Entry>,
    reset_on_release: bool,
    /// libusb does not split bulk transfers.
    bulk_is_whole: bool,
    /// Most requests to the system that each slot's transfer consists of, and all together.
    pieces: Vec<usize>,
    pieces_in_flight: usize,
    /// When to look again after a hang-up, and how often that was done.
    recheck: Option<Instant>,
    rechecks: u32,
}

/// A URB slot of a real device, and its number.
pub struct LibusbTransfer(transfer::Transfer, u32);

impl LibusbPort {
    const fn new(handle: DeviceHandle, found: FoundDevice, busid: BusId) -> Self {
        Self {
            handle,
            found,
            busid,
            packets: 0,
            configuration: None,
            found_in: 0,
            claims: Vec::new(),
            driven: Vec::new(),
            entry: None,
            reset_on_release: false,
            bulk_is_whole: false,
            pieces: Vec::new(),
            pieces_in_flight: 0,
            recheck: None,
            rechecks: 0,
        }
    }

    /// Claims every interface of the active configuration, none of which is ours now; what can't
    /// be claimed is marked.
    fn claim_all(&mut self) -> Option<Configuration> {
        let old_value = self.configuration.as_ref().map(|configuration| configuration.value);
        let mut configuration = self.handle.configuration_blocking().as_ref().map(configuration_of);
        // Another configuration has other interfaces, which the kernel has just probed.
        if old_value != configuration.as_ref().map(|configuration| configuration.value) {
            self.driven.clear();
        }
        self.note_drivers(configuration.as_ref());
        // Platforms that have no kernel drivers to detach refuse; claiming then tells.
        let _ = self.handle.set_auto_detach(true);
        for interface in configuration.iter_mut().flat_map(|c| &mut c.interfaces) {
            match self.handle.claim_blocking(interface.number) {
                Ok(()) => self.claims.push(interface.number),
                Err(error) => {
                    warn!(
                        "{}: interface {} can't be claimed ({error}): its endpoints are refused, \
                         the rest works",
                        self.busid, interface.number
                    );
                    interface.refused = Some(refusal_of(error));
                }
            }
        }
        self.configuration.clone_from(&configuration);
        configuration
    }

    /// Notes which interfaces kernel drivers have. Before the first is claimed, because one driver
    /// can have several interfaces and lets go of all when it loses one.
    fn note_drivers(&mut self, configuration: Option<&Configuration>) {
        for interface in configuration.iter().flat_map(|c| &c.interfaces) {
            let number = interface.number;
            if self.handle.has_kernel_driver_blocking(number) && !self.driven.contains(&number) {
                self.driven.push(number);
            }
        }
        self.note_debt();
    }

    /// Writes down what is owed to the kernel's drivers before it is taken from them.
    fn note_debt(&mut self) {
        let mut debt = debt_of(&self.found, self.driven.clone());
        match &mut self.entry {
            Some(entry) => entry.update(&debt),
            None => {
                self.entry = ledger::note(&self.busid.to_string(), &mut debt);
                self.driven = debt.interfaces;
            }
        }
    }

    /// Why no interface at all could be claimed, where there are any.
    fn all_refused(&self) -> Option<Status> {
        let first = self.configuration.as_ref()?.interfaces.first()?.refused?;
        self.claims.is_empty().then_some(first)
    }

    /// Releases every interface, without giving it to a kernel driver yet.
    fn release_all(&mut self) {
        let _ = self.handle.set_auto_detach(false);
        for interface in self.claims.drain(..) {
            match self.handle.release_blocking(interface) {
                // Gone with the device, or already released by a reset.
                Ok(()) | Err(Error::NoDevice | Error::NotFound) => {}
                Err(error) => warn!("{}: releasing interface {interface}: {error}", self.busid),
            }
        }
    }

    /// Sets the configuration again that the device had before a client set another, or none.
    fn give_back_configuration(&mut self) {
        let value = self.configuration.as_ref().map_or(0, |configuration| configuration.value);
        if value == self.found_in {
            return;
        }
        match self.handle.set_configuration_blocking(self.found_in) {
            // The kernel has looked for drivers of all its interfaces.
            Ok(()) => self.driven.clear(),
            Err(Error::NoDevice) => {}
            Err(error) => warn!(
                "{}: it does not go back to configuration {}: {error}",
                self.busid, self.found_in
            ),
        }
    }

    /// Gives interfaces back to the kernel drivers that had them. All are free by then, because a
    /// driver that wants several takes the others with the first.
    fn give_back_drivers(&mut self) {
        let mut is_settled = true;
        for interface in self.driven.drain(..) {
            let attached = self.handle.attach_kernel_driver_blocking(interface);
            is_settled &= is_given_back(attached);
            match attached {
                // Busy: the driver took it along with another.
                Ok(()) | Err(Error::Busy | Error::NoDevice) => {}
                Err(error) => warn!(
                    "{}: no kernel driver took interface {interface} back: {error}",
                    self.busid
                ),
            }
        }
        if let Some(entry) = self.entry.take_if(|_| is_settled) {
            entry.settle();
        }
    }

    fn set_configuration(&mut self, value: u8) -> Performed {
        let current = self.configuration.as_ref().map_or(0, |c| c.value);
        let all_ours = self.configuration.iter().flat_map(|c| &c.interfaces);
        if value == current && all_ours.clone().any(|interface| interface.refused.is_some()) {
            return self.reset_settings();
        }
        let before = self.configuration.clone();
        // usbfs refuses while anybody has an interface, even ourselves.
        self.release_all();
        let result = self.handle.set_configuration_blocking(value);
        self.claim_all();
        if result.is_err() {
            self.restore_settings(before);
        }
        self.performed(result)
    }

    /// What setting the current configuration again does to the device, as far as it is ours.
    fn reset_settings(&mut self) -> Performed {
        let claims = self.claims.clone();
        let result = claims.into_iter().try_for_each(|number| self.set_interface(number, 0));
        self.performed(result)
    }

    fn set_interface(&mut self, number: u8, setting: u8) -> Result<(), Error> {
        self.handle.set_interface_blocking(number, setting)?;
        let interfaces = self.configuration.iter_mut().flat_map(|c| &mut c.interfaces);
        for interface in interfaces.filter(|interface| interface.number == number) {
            interface.current = setting;
        }
        Ok(())
    }

    /// Resets the device. libusb lets go of every interface meanwhile, and the kernel puts one that
    /// is released back to setting 0.
    fn reset(&mut self) -> Performed {
        let result = self.handle.reset_blocking();
        // It came back as another device, or lost an interface to somebody else.
        if result == Err(Error::NotFound) {
            return Performed::Gone;
        }
        let before = self.configuration.clone();
        for interface in self.configuration.iter_mut().flat_map(|c| &mut c.interfaces) {
            interface.current = 0;
        }
        self.restore_settings(before);
        self.performed(result)
    }

    /// Puts interfaces that were set back to 0 to what a client has set them to.
    fn restore_settings(&mut self, before: Option<Configuration>) {
        let interfaces = before.into_iter().flat_map(|configuration| configuration.interfaces);
        for Interface { number, current, .. } in interfaces.filter(|i| i.current != 0) {
            if let Err(error) = self.set_interface(number, current) {
                warn!("{}: interface {number} is not set to {current} again: {error}", self.busid);
            }
        }
    }

    /// What is in force after a request that may have changed it.
    fn performed(&self, result: Result<(), Error>) -> Performed {
        let status = match result.map_err(failed) {
            Ok(()) => Status::OK,
            Err(Performed::Failed(status)) => status,
            Err(other) => return other,
        };
        Performed::Reconfigured { configuration: self.configuration.clone(), status }
    }

    /// Whether it is time to look again after a hang-up; true when enough is enough.
    fn recheck_hangup(&mut self, now: Instant) -> bool {
        if self.recheck.is_some_and(|at| at <= now) {
            self.rechecks += 1;
            self.recheck = Some(now + HANGUP_RECHECK);
        }
        self.rechecks > HANGUP_RECHECKS_MAX
    }
}

/// The most requests to the system that libusb makes of one transfer.
fn pieces_of(submission: &Submission<'_>, bulk_is_whole: bool) -> usize {
    let pieces = match submission.transfer_type {
        TransferType::Control => 1,
        TransferType::Bulk | TransferType::Interrupt if bulk_is_whole => 1,
        TransferType::Isochronous => submission.packets.len().div_ceil(PIECE_PACKETS),
        TransferType::Bulk | TransferType::Interrupt => submission.length.div_ceil(PIECE_LEN),
    };
    pieces.max(1)
}

impl Port for LibusbPort {
    type Transfer = LibusbTransfer;
    type CancelToken = CancelToken;

    fn event_sources(&self) -> Vec<EventSource> {
        let source = |pollfd: &usbferry_sys::handle::PollFd| EventSource {
            fd: pollfd.fd,
            readable: pollfd.wants_input(),
            writable: pollfd.wants_output(),
        };
        self.handle.pollfds().iter().map(source).collect()
    }

    fn submit(
        &mut self,
        transfer: &mut LibusbTransfer,
        submission: &Submission<'_>,
        block: Block,
        _now: Instant,
    ) -> Result<(), Refused> {
        if submission.packets.len() > self.packets as usize {
            return Err(Refused { block, reason: RefusedReason::Failed(Status::EINVAL) });
        }
        let kind = match submission.transfer_type {
            TransferType::Control => Kind::Control,
            TransferType::Isochronous => Kind::Isochronous,
            TransferType::Bulk => Kind::Bulk,
            TransferType::Interrupt => Kind::Interrupt,
        };
        let request = Request {
            kind,
            endpoint: submission.endpoint.as_byte(),
            length: submission.length,
            zero_packet: submission.zero_packet,
        };
        let packets = submission.packets.iter().map(|packet| packet.length);
        transfer
            .0
            .submit(&mut self.handle, request, packets, block)
            .map_err(|(error, block)| Refused { block, reason: refused_reason(error, kind) })?;
        let pieces = pieces_of(submission, self.bulk_is_whole);
        self.pieces[transfer.1 as usize] = pieces;
        self.pieces_in_flight += pieces;
        Ok(())
    }

    fn reap(&mut self, now: Instant, completed: &mut Vec<u32>) -> Reaped {
        let mut gone = self.recheck_hangup(now);
        let mut more = true;
        while more && completed.len() < REAP_BUDGET {
            let (before, all) = (completed.len(), self.pieces_in_flight < PIECES_PER_PASS);
            if let Err(error) = self.handle.handle_events(completed) {
                warn!("{}: libusb can't handle its events: {error}", self.busid);
                gone = true;
            }
            for &slot in &completed[before..] {
                self.pieces_in_flight -= self.pieces[slot as usize];
            }
            // Where it may not have reached all, only a pass that brings nothing is the end.
            more = !all && completed.len() > before && !gone;
        }
        Reaped { more, gone: gone || self.handle.is_gone() }
    }

    fn hung_up(&mut self, now: Instant) {
        if self.recheck.is_none() {
            self.recheck = Some(now + HANGUP_RECHECK);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.recheck
    }

    fn cancel_token(transfer: &LibusbTransfer) -> CancelToken {
        transfer.0.cancel_token()
    }

    fn cancel(&mut self, token: &CancelToken) {
        match self.handle.cancel_blocking(token) {
            // Either way it is reaped.
            Ok(()) | Err(Error::NotFound | Error::NoDevice) => {}
            Err(error) => warn!("{}: cancelling a transfer: {error}", self.busid),
        }
    }

    fn perform(&mut self, request: SpecialRequest) -> Performed {
        debug!("{}: {request:?}", self.busid);
        match request {
            SpecialRequest::SetConfiguration(value) => self.set_configuration(value),
            SpecialRequest::SetInterface { interface, alternate } => {
                let found = self.configuration.as_ref().and_then(|c| c.interface(interface));
                if let Some(status) = found.and_then(|interface| interface.refused) {
                    return Performed::Failed(status);
                }
                let result = self.set_interface(interface, alternate);
                self.performed(result)
            }
            SpecialRequest::ClearHalt(endpoint) => {
                match self.handle.clear_halt_blocking(endpoint.as_byte()) {
                    Ok(()) => Performed::Done,
                    Err(Error::NotFound) => Performed::Forward,
                    Err(error) => failed(error),
                }
            }
            SpecialRequest::Reset => self.reset(),
        }
    }

    fn close(mut self, transfers: Vec<LibusbTransfer>, memory: Arena) {
        if self.reset_on_release {
            match self.handle.reset_blocking() {
                Ok(()) | Err(Error::NoDevice | Error::NotFound) => {}
                Err(error) => warn!("{}: resetting it: {error}", self.busid),
            }
        }
        self.release_all();
        self.give_back_configuration();
        self.give_back_drivers();
        drop(transfers);
        // Mapped memory keeps the device open, so it goes before the handle.
        drop(memory);
    }
}

impl Transfer for LibusbTransfer {
    fn take(&mut self) -> Completion {
        let completed = self.0.take();
        Completion {
            status: status_of(completed.status),
            actual_length: completed.actual_length,
            block: completed.block,
        }
    }

    fn packet(&self, index: usize) -> (u32, Status) {
        let (actual_length, status) = self.0.packet(u32::try_from(index).unwrap_or(u32::MAX));
        // libusb has one error for a packet that failed and one that never was on the bus.
        let status = match (status, actual_length) {
            (TransferStatus::Error, 0) => Status::EXDEV,
            (status, _) => status_of(status),
        };
        (actual_length, status)
    }
}

/// The wire's status of a transfer (`driver-api/usb/error-codes`). libusb merges EPROTO, EILSEQ,
/// ETIME, ECOMM and ENOSR into one.
const fn status_of(status: TransferStatus) -> Status {
    match status {
        TransferStatus::Completed => Status::OK,
        TransferStatus::Stall => Status::EPIPE,
        TransferStatus::Overflow => Status::EOVERFLOW,
        TransferStatus::Cancelled => Status::ECONNRESET,
        TransferStatus::NoDevice => Status::ESHUTDOWN,
        TransferStatus::TimedOut => Status::ETIMEDOUT,
        TransferStatus::Error => Status::EPROTO,
    }
}

/// What a refused submit means.
const fn refused_reason(error: Error, kind: Kind) -> RefusedReason {
    match error {
        Error::NoDevice => RefusedReason::Gone,
        Error::NoMem => RefusedReason::NoMemory,
        Error::InvalidParam | Error::NotSupported => RefusedReason::Failed(Status::EINVAL),
        Error::Busy => RefusedReason::Failed(Status::EBUSY),
        // The host would not send it, so the device can't answer it.
        _ if matches!(kind, Kind::Control) => RefusedReason::Failed(Status::EPIPE),
        _ => RefusedReason::Failed(Status::EPROTO),
    }
}

/// What a special request that failed means.
const fn failed(error: Error) -> Performed {
    match error {
        Error::NoDevice => Performed::Gone,
        Error::Busy => Performed::Failed(Status::EBUSY),
        // What a device says that does not support a request.
        _ => Performed::Failed(Status::EPIPE),
    }
}

/// What URBs to an interface are answered with that could not be claimed.
const fn refusal_of(error: Error) -> Status {
    match error {
        Error::Busy => Status::EBUSY,
        _ => Status::EPERM,
    }
}

fn configuration_of(found: &FoundConfiguration) -> Configuration {
    let mut interfaces: Vec<Interface> = Vec::new();
    for alternate in &found.alternates {
        let number = alternate.interface;
        if !interfaces.iter().any(|interface| interface.number == number) {
            let of_this = found.alternates.iter().filter(|a| a.interface == number);
            let alternates = of_this.map(alternate_of).collect();
            interfaces.push(Interface { number, current: 0, alternates, refused: None });
        }
    }
    interfaces.sort_by_key(|interface| interface.number);
    Configuration { value: found.value, interfaces }
}

fn alternate_of(found: &FoundAlternate) -> Alternate {
    let endpoint = |endpoint: &usbferry_sys::context::FoundEndpoint| Endpoint {
        address: EndpointAddress::from_byte(endpoint.address),
        transfer_type: TransferType::from_attributes(endpoint.attributes),
        max_packet_size: endpoint.max_packet_size,
    };
    Alternate {
        setting: found.setting,
        class: found.class,
        sub_class: found.sub_class,
        protocol: found.protocol,
        endpoints: found.endpoints.iter().map(endpoint).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use usbferry_sys::context::FoundEndpoint;

    fn found() -> FoundDevice {
        let alternate = |interface, setting, class| FoundAlternate {
            interface,
            setting,
            class,
            sub_class: 0,
            protocol: 0,
            endpoints: vec![FoundEndpoint { address: 0x81, attributes: 1, max_packet_size: 192 }],
        };
        FoundDevice {
            bus: 3,
            address: 17,
            ports: vec![1, 4],
            speed: DeviceSpeed::Super,
            id_vendor: 1,
            id_product: 2,
            bcd_device: 3,
            device_class: 0xef,
            device_sub_class: 2,
            device_protocol: 1,
            num_configurations: 1,
            configuration: Some(FoundConfiguration {
                value: 1,
                alternates: vec![
                    alternate(2, 0, 22),
                    alternate(0, 0, 20),
                    alternate(0, 1, 20),
                    alternate(1, 0, 21),
                ],
            }),
            isochronous: true,
            strings: [const { None }; 3],
        }
    }

    #[test]
    fn busids_are_the_kernels() {
        assert_eq!(busid_of(&found()), "3-1.4");
        assert_eq!(busid_of(&FoundDevice { ports: vec![2], ..found() }), "3-2");
        assert_eq!(busid_of(&FoundDevice { ports: vec![], ..found() }), "usb3");
    }

    /// Conformance case 5: records by interface number, alternate setting 0 only.
    #[test]
    fn devlist_iface_order() {
        let record = record_of(&found(), BusId::new("3-1.4").unwrap(), None);
        let classes: Vec<u8> = record.interfaces.iter().map(|i| i.class).collect();
        assert_eq!(classes, [20, 21, 22]);
    }

    /// Conformance case 6.
    #[test]
    fn devlist_unconfigured() {
        let unconfigured = FoundDevice { configuration: None, ..found() };
        let record = record_of(&unconfigured, BusId::new("3-1.4").unwrap(), None);
        assert_eq!((record.configuration_value, record.interfaces.len()), (0, 0));
    }

    /// Conformance case 18.
    #[test]
    fn speed_map() {
        let all = [
            (DeviceSpeed::Low, 1),
            (DeviceSpeed::Full, 2),
            (DeviceSpeed::High, 3),
            (DeviceSpeed::Super, 5),
            (DeviceSpeed::Unknown, 3),
        ];
        for (speed, wire) in all {
            assert_eq!(speed_of(speed) as u32, wire);
        }
    }

    #[test]
    fn configurations_keep_their_settings_together() {
        let configuration = configuration_of(&found().configuration.unwrap());
        let settings: Vec<(u8, usize)> =
            configuration.interfaces.iter().map(|i| (i.number, i.alternates.len())).collect();
        assert_eq!(settings, [(0, 2), (1, 1), (2, 1)]);
        let endpoint = configuration.interfaces[0].alternates[1].endpoints[0];
        assert_eq!(endpoint.transfer_type, TransferType::Isochronous);
    }

    #[test]
    fn errors_become_linux_errnos() {
        assert_eq!(status_of(TransferStatus::Stall), Status(-32));
        assert_eq!(status_of(TransferStatus::Overflow), Status(-75));
        assert_eq!(status_of(TransferStatus::Cancelled), Status(-104));
        assert_eq!(status_of(TransferStatus::NoDevice), Status(-108));
        assert_eq!(status_of(TransferStatus::Error), Status(-71));
        assert_eq!(refused_reason(Error::Io, Kind::Control), RefusedReason::Failed(Status(-32)));
        assert_eq!(refused_reason(Error::Io, Kind::Bulk), RefusedReason::Failed(Status(-71)));
        assert_eq!(refused_reason(Error::NoMem, Kind::Bulk), RefusedReason::NoMemory);
        assert_eq!(failed(Error::NoDevice), Performed::Gone);
    }
}
