//! The traits of a USB stack, as usbferry needs them, and the plain data between stack and server.
//!
//! Two stacks implement the traits: [`libusb`], for real devices, and `sim` (the feature
//! `simulate`), devices made of software with the same sessions, reactor and wire code around. The
//! stack is a type parameter of the reactor; nothing on the path of a URB is called through a
//! pointer. `either` is a stack made of two, so that a program with both has one reactor.
//!
//! - [`Backend`] finds devices, on the thread for scans. [`Hints`] say when to look again, and live
//!   with the reactor.
//! - [`Candidate`] is a device found by a scan, which can be opened on a thread that may block.
//! - [`Port`] is an open device. The owner of the port may use the device: the reactor submits and
//!   reaps, and moves the port to the device's worker for all blocking calls, so reactor and worker
//!   never touch the device at once.
//! - [`Port::Transfer`] carries a URB at a time and owns the buffer of a URB in flight.
//!
//! A URB goes to a device by [`Port::submit`] and comes back by [`Port::take`], so a backend around
//! another sees every URB both ways.
//!
//! Common to both stacks: [`class`] has the names of classes, [`descriptor`] reads descriptors as
//! Linux does, [`isochronous`] has a session's knowledge of settings not in force, [`special`] the
//! requests performed by a host itself, and `error` the reasons why devices can't be found or
//! opened.
//!
//! Contract: calls marked *blocks* run on worker threads only. Statuses are the wire's: each stack
//! maps its own errors in one place.

pub mod class;
pub mod descriptor;
#[cfg(feature = "simulate")]
pub mod either;
mod error;
pub mod isochronous;
pub mod libusb;
#[cfg(feature = "simulate")]
pub mod sim;
pub mod special;

use std::io;
use std::os::fd::RawFd;
use std::time::Instant;

use usbferry_sys::arena::DeviceMemory;
use usbferry_sys::arena::{Arena, Block};

use crate::limits::DeviceLimits;
use crate::wire::iso::{Packets, PacketsMut};
use crate::wire::op::{UsbDevice, UsbInterface};
use crate::wire::status::Status;
use crate::wire::types::{EndpointAddress, TransferType};
use descriptor::DEVICE_LEN;
pub use error::{Obstacle, OpenError, ScanError};
use isochronous::IsochronousSettings;
use special::SpecialRequest;

/// A USB stack: finds the devices present.
pub trait Backend: Send + 'static {
    /// A device found by a scan.
    type Candidate: Candidate;

    /// Whether devices need `now` to the microsecond, as simulated devices do, which live by `now`.
    /// For real devices `now` only serves deadlines, and may be a few milliseconds late. Asked
    /// once, before the first scan.
    fn needs_exact_time(&self) -> bool;

    /// What says when a scan would find something else, where the system has something that does
    /// so; called once, before the first scan. What changes after the call is hinted at.
    fn hints(&mut self) -> Option<Box<dyn Hints>> {
        None
    }

    /// Looks for all devices present now, hubs and unusable devices included. *Blocks.*
    ///
    /// # Errors
    /// The stack can't tell.
    fn scan(&mut self) -> Result<Scan<Self::Candidate>, ScanError>;

    /// Does what can be done ahead for the next open of any device. *Blocks.* Called on the thread
    /// that scans, after each scan and each open, when no client waits for the result.
    fn prepare_open(&mut self) {}
}

/// What a scan has found.
#[derive(Clone, Debug)]
pub struct Scan<C> {
    /// The devices.
    pub devices: Vec<C>,
    /// False where some device could not be asked in time: another scan may find more, with no
    /// hint before.
    pub is_whole: bool,
}

impl<C> Scan<C> {
    /// The same scan of a backend that wraps the devices of another.
    pub fn map<D>(self, wrap: impl FnMut(C) -> D) -> Scan<D> {
        let Self { devices, is_whole } = self;
        Scan { devices: devices.into_iter().map(wrap).collect(), is_whole }
    }
}

/// Says when to scan again: a hint. Every change that a later [`Backend::scan`] of devices would
/// show has a hint, which [`Hints::take`] finds as soon as the change is made. Hints without a
/// change are allowed: a scan is the truth.
///
/// Contract: never blocks.
pub trait Hints: Send {
    /// The descriptor that becomes ready with a hint. The same for as long as the hints live.
    fn event_source(&self) -> EventSource;

    /// Takes the hints that have come since the last call.
    ///
    /// # Errors
    /// There are no hints any more, and scans are needed as if there had never been any.
    fn take(&mut self) -> io::Result<News>;
}

/// What [`Hints::take`] has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct News {
    /// There was a hint.
    pub scan_again: bool,
    /// There may be more: call again, without waiting for the descriptor.
    pub more: bool,
}

/// A device present at the time of a scan.
pub trait Candidate: Clone + Send + 'static {
    /// The device when opened.
    type Port: Port;

    /// The knowledge of the device without opening it.
    fn info(&self) -> &DeviceInfo;

    /// Opens the device for a client: kernel drivers detached, interfaces claimed, buffers
    /// allocated. With `reset_on_release` the device is reset when a client gives it back.
    /// *Blocks.*
    ///
    /// # Errors
    /// The device can't be opened; everything is as before.
    fn open(
        &self,
        limits: &DeviceLimits,
        reset_on_release: bool,
    ) -> Result<Opened<Self::Port>, OpenError>;

    /// Gives back to the system whatever a port left that was dropped by a panic and not closed, as
    /// far as can be told from outside. *Blocks.*
    fn recover(&self) {}
}

/// A device as found by a scan.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// The description for clients.
    pub device: UsbDevice,
    /// iManufacturer's text, where the system knows it.
    pub manufacturer: Option<String>,
    /// iProduct's text, where the system knows it.
    pub product: Option<String>,
    /// iSerialNumber's text, where the system knows it.
    pub serial: Option<String>,
    /// Kernel drivers with interfaces of the device now, in the order of the interfaces.
    pub drivers: Vec<Bound>,
    /// The device came in through a USB/IP client of this machine.
    pub imported: bool,
}

/// An interface with a kernel driver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bound {
    /// bInterfaceNumber.
    pub interface: u8,
    /// The driver's name.
    pub driver: String,
}

/// The name of the kernel's driver for programs, such as usbferry.
pub const DRIVER_OF_PROGRAMS: &str = "usbfs";

/// Linux's directory of the nodes of devices, by which programs use the devices.
pub const NODES: &str = "/dev/bus/usb";

impl DeviceInfo {
    /// Whether the device is a hub, which can't be exported.
    #[must_use]
    pub const fn is_hub(&self) -> bool {
        self.device.device_class == class::HUB
    }

    /// Whether programs, by the kernel's driver for programs, have every interface.
    pub fn is_in_use_by_programs(&self) -> bool {
        let used = self.drivers.iter().filter(|bound| bound.driver == DRIVER_OF_PROGRAMS).count();
        used > 0 && used >= self.device.interfaces.len()
    }

    /// The path of the device's node on Linux.
    pub fn node(&self) -> String {
        let UsbDevice { busnum, devnum, .. } = self.device;
        format!("{NODES}/{busnum:03}/{devnum:03}")
    }

    /// The command which names the programs with the device, in brackets and behind a space, where
    /// there is such a command.
    pub fn programs_named(&self) -> String {
        if cfg!(target_os = "linux") {
            format!(" (fuser -v {} names them)", self.node())
        } else {
            String::new()
        }
    }
}

/// A device opened for a client.
pub struct Opened<P: Port> {
    /// The device.
    pub port: P,
    /// The number of URB slots, as [`DeviceLimits::urbs`] says, each for any endpoint.
    pub slots: usize,
    /// The transfers of the first slots, as many as were made with the device. Any other is made
    /// at the first use of its slot, by [`Port::make_transfer`].
    pub transfers: Vec<P::Transfer>,
    /// Its buffers.
    pub memory: Arena,
    /// The active configuration, or `None` when the device has none.
    pub configuration: Option<Configuration>,
    /// The device descriptor.
    pub device: [u8; DEVICE_LEN],
    /// The configurations by index, as read by the host: the answers to GET_DESCRIPTOR. The device
    /// is asked for other descriptors.
    pub configurations: Vec<Vec<u8>>,
    /// The isochronous endpoints, in all settings of all configurations.
    pub isochronous: IsochronousSettings,
}

/// A configuration in force: the endpoints, and which may be used.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Configuration {
    /// bConfigurationValue.
    pub value: u8,
    /// By interface number.
    pub interfaces: Vec<Interface>,
}

/// An interface of a [`Configuration`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// bInterfaceNumber.
    pub number: u8,
    /// bAlternateSetting of the setting in force.
    pub current: u8,
    /// All settings.
    pub alternates: Vec<Alternate>,
    /// `Some` when the interface could not be claimed: the answer to URBs for its endpoints.
    pub refused: Option<Status>,
}

/// An alternate setting of an [`Interface`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the field names are those of USB 2.0, table 9-12")]
pub struct Alternate {
    pub setting: u8,
    pub class: u8,
    pub sub_class: u8,
    pub protocol: u8,
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint of an [`Alternate`] setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Number and direction.
    pub address: EndpointAddress,
    /// The type.
    pub transfer_type: TransferType,
    /// wMaxPacketSize as the descriptor has it, multiplier bits included.
    pub max_packet_size: u16,
    /// bInterval as the descriptor has it.
    pub interval: u8,
}

impl Endpoint {
    /// The frames, at high speed and above microframes, from a packet of an isochronous endpoint to
    /// the next, fixed by Linux for programs (`proc_do_submiturb` of `drivers/usb/core/devio.c`). 0
    /// for other endpoints, and for a bInterval replaced by the host.
    #[must_use]
    pub const fn isochronous_interval(&self) -> u16 {
        match (self.transfer_type, self.interval) {
            (TransferType::Isochronous, exponent @ 1..=16) => 1 << (exponent - 1),
            _ => 0,
        }
    }
}

/// A descriptor that becomes ready when transfers may have completed, or a hint has come. Borrowed:
/// it belongs to the port, which closes it, or to the [`Hints`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventSource {
    /// The descriptor.
    pub fd: RawFd,
    /// Wait until readable.
    pub readable: bool,
    /// Wait until writable, by which usbfs says "something to reap".
    pub writable: bool,
}

/// An open device.
pub trait Port: Send + Sized + 'static {
    /// A URB slot: carries a URB at a time.
    type Transfer: Send + 'static;

    /// Names a transfer in flight for [`Port::cancel`], on any thread.
    type CancelToken: Send + 'static;

    /// Bytes of data of the longest control transfer submitted.
    const CONTROL_LEN_MAX: usize;

    /// A client has the device from now on. A device without a client is closed as if never opened.
    fn attached(&mut self) {}

    /// The descriptors to watch while the device is open.
    fn event_sources(&self) -> Vec<EventSource>;

    /// Makes the transfer of `slot`, the first slot without a transfer. `None` when the system has
    /// no memory, or when all transfers were made with the device.
    fn make_transfer(&mut self, slot: u32) -> Option<Self::Transfer>;

    /// Starts a URB. `block` holds the data (OUT) or has the room (IN), and goes with the transfer
    /// until [`Port::take`]; a control transfer's block starts with the SETUP packet.
    ///
    /// # Errors
    /// The URB was not started; the block comes back.
    ///
    /// # Panics
    /// When the transfer is in flight, or the block is shorter than the submission says.
    fn submit(
        &mut self,
        transfer: &mut Self::Transfer,
        submission: Submission<'_>,
        block: Block,
        now: Instant,
    ) -> Result<(), Refused>;

    /// Finds ended transfers and appends the index of each to `completed`, which has room
    /// for all transfers of the device. Never blocks. May leave some for the next call, and then
    /// says so.
    fn reap(&mut self, now: Instant, completed: &mut Vec<u32>) -> Reaped;

    /// Ends a transfer found by [`Port::reap`], on the same thread and before the slot carries
    /// another URB; returns how the URB ended, and the buffer.
    ///
    /// # Panics
    /// When the transfer is in flight or was taken already.
    fn take(&mut self, transfer: &mut Self::Transfer) -> Completion;

    /// The result of packet `index` of an isochronous transfer after [`Port::take`]: bytes and
    /// status.
    ///
    /// # Panics
    /// When the transfer is in flight, or had fewer packets.
    fn packet(&self, transfer: &Self::Transfer, index: usize) -> (u32, Status);

    /// Writes the results of all packets of an isochronous transfer after [`Port::take`], and
    /// returns their sum and the number of failed packets.
    ///
    /// # Panics
    /// As [`Port::packet`].
    fn fill_packets(&self, transfer: &Self::Transfer, packets: &mut PacketsMut<'_>) -> (u32, u32) {
        packets.fill((0..packets.len()).map(|index| self.packet(transfer, index)))
    }

    /// Something else than the end of a transfer may have happened, so that the next
    /// [`Port::reap`] looks for everything. Behind a reap that did, [`Port::reap`] need only look
    /// for ended transfers.
    fn look_everywhere(&mut self);

    /// A descriptor of the port was reported as hung up.
    fn hung_up(&mut self, now: Instant);

    /// When to call [`Port::reap`] next if no descriptor becomes ready before. Another instant only
    /// after a call of this port, after an alarm, or beside a descriptor that becomes ready.
    fn next_deadline(&self) -> Option<Instant>;

    /// How many alarms there were, modulo 2^32: what one port does may concern the others. Asked
    /// each turn.
    #[must_use]
    fn alarms() -> u32 {
        0
    }

    /// A name for `transfer`, which is in flight.
    fn cancel_token(transfer: &Self::Transfer) -> Self::CancelToken;

    /// Asks for a transfer to be given up. The transfer is still reaped, with any status. A
    /// transfer ended since the making of the token is left alone, but the slot must not carry
    /// another URB by now. *Blocks*: usbfs waits until the host controller has let go of the URB.
    fn cancel(&mut self, token: &Self::CancelToken);

    /// Carries out a request which the host's stack must perform. No transfer of the interfaces
    /// concerned may be in flight. *Blocks.*
    fn perform(&mut self, request: SpecialRequest) -> Performed;

    /// Nothing has come from the client or the device for long, and no buffer lies in memory mapped
    /// from the device.
    fn note_idle(&mut self) {}

    /// The next change of the port's share of the system's memory, if any; asked often.
    fn memory_change(&self) -> Option<MemoryChange> {
        None
    }

    /// Makes the change. `given_up` is the mapping to give up, if any; no transfer may lie there.
    /// Returns a new mapping, for the device's [`Opened::memory`]. *Blocks.*
    fn change_memory(
        &mut self,
        _change: MemoryChange,
        _given_up: Option<DeviceMemory>,
    ) -> Option<DeviceMemory> {
        None
    }

    /// Whether other devices wait for memory refused by the system. A device with memory then lets
    /// the others try first.
    fn others_starve(&self) -> bool {
        false
    }

    /// Notes whether the device waits for memory.
    fn set_starving(&mut self, _starving: bool) {}

    /// Gives the device back as found, with its configuration and kernel drivers. No
    /// transfer may be in flight. *Blocks.*
    fn close(self, transfers: Vec<Self::Transfer>, memory: Arena);
}

/// A URB, as [`Port::submit`] gets it. By value: with a reference, each URB's would be written to
/// the stack for the branches that are hardly ever taken.
#[derive(Clone, Copy)]
pub struct Submission<'a> {
    /// Where to.
    pub endpoint: EndpointAddress,
    /// The type of the endpoint.
    pub transfer_type: TransferType,
    /// Bytes of the block in use, a control transfer's SETUP packet included. Isochronous:
    /// the sum of the packets' lengths.
    pub length: usize,
    /// End full OUT packets with an empty one. Only set for bulk OUT.
    pub zero_packet: bool,
    /// No other URB of the endpoint is with the device.
    pub is_first: bool,
    /// The packets of an isochronous URB, else empty. Packets lie in the block behind each other in
    /// order, without regard to their offsets.
    pub packets: Packets<'a>,
}

/// How a transfer ended.
#[derive(Debug)]
pub struct Completion {
    /// The status for the wire; [`Status::ECONNRESET`] when cancelled.
    pub status: Status,
    /// Bytes transferred, without a SETUP packet. Says nothing for isochronous transfers.
    pub actual_length: u32,
    /// Its buffer.
    pub block: Block,
}

/// A refused submission.
#[derive(Debug)]
pub struct Refused {
    /// Its buffer.
    pub block: Block,
    /// Why.
    pub reason: RefusedReason,
}

/// Why a submission was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusedReason {
    /// The system has no memory for the URB now; another try may come when another URB has ended.
    NoMemory,
    /// The device has its share of the system's memory; another try may come when another URB of
    /// the device has ended.
    Share,
    /// The device is gone.
    Gone,
    /// Anything else, as a status for the wire.
    Failed(Status),
}

/// A change of a port's share of the system's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryChange {
    /// See how much there is for all.
    Look,
    /// Map some of the device's, in which transfers cost less.
    Map,
    /// Give the mapping up: the memory is needed elsewhere, or not needed here.
    GiveUp,
}

/// The findings of [`Port::reap`] besides completed transfers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reaped {
    /// There may be more: call again, without waiting for a descriptor.
    pub more: bool,
    /// The device is gone. Every later call says so, too.
    pub gone: bool,
}

/// How a special request ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Performed {
    /// As asked.
    Done,
    /// Done, or failed with something changed.
    Reconfigured {
        /// The configuration in force now.
        configuration: Option<Configuration>,
        /// The status for the client.
        status: Status,
    },
    /// The host has nothing to do, or can't: send the request to the device unchanged.
    Forward,
    /// The device or the host refused, and all is as before.
    Failed(Status),
    /// The device is gone, or has become another.
    Gone,
}

impl Performed {
    /// Whether the host has done as asked.
    pub(crate) fn has_succeeded(&self) -> bool {
        match self {
            Self::Done => true,
            Self::Reconfigured { status, .. } => *status == Status::OK,
            Self::Forward | Self::Failed(_) | Self::Gone => false,
        }
    }
}

impl<P: Port> Opened<P> {
    /// The same device for a backend that wraps the devices of another; of the program's own, only
    /// the choice between real and simulated devices does.
    #[cfg(feature = "simulate")]
    pub(crate) fn map<Q: Port>(
        self,
        wrap: impl FnOnce(P) -> Q,
        wrap_transfer: impl FnMut(P::Transfer) -> Q::Transfer,
    ) -> Opened<Q> {
        Opened {
            port: wrap(self.port),
            slots: self.slots,
            transfers: self.transfers.into_iter().map(wrap_transfer).collect(),
            memory: self.memory,
            configuration: self.configuration,
            device: self.device,
            configurations: self.configurations,
            isochronous: self.isochronous,
        }
    }

    /// Has the host perform a request before a client has the device. *Blocks.*
    ///
    /// # Errors
    /// The device is gone, or the request has failed.
    pub(crate) fn perform(&mut self, request: SpecialRequest) -> Result<(), Obstacle> {
        let status = match self.port.perform(request) {
            Performed::Done => Status::OK,
            Performed::Reconfigured { configuration, status } => {
                self.configuration = configuration;
                status
            }
            Performed::Failed(status) => status,
            Performed::Gone => return Err(Obstacle::Gone),
            // The host can't.
            Performed::Forward => Status::EINVAL,
        };
        if status == Status::OK { Ok(()) } else { Err(Obstacle::Unprepared(request, status)) }
    }

    /// The device as a client is told, in the configuration that it was found in when opened.
    pub(crate) fn describe(&self, device: UsbDevice) -> UsbDevice {
        let configuration = self.configuration.as_ref();
        UsbDevice {
            configuration_value: configuration.map_or(0, |configuration| configuration.value),
            interfaces: configuration.map_or_else(Vec::new, Configuration::records),
            ..device
        }
    }
}

impl Configuration {
    /// The interfaces as a client is told of them, each in its setting in force.
    pub(crate) fn records(&self) -> Vec<UsbInterface> {
        let alternates = self.interfaces.iter().filter_map(Interface::alternate);
        let record = |alternate: &Alternate| UsbInterface {
            class: alternate.class,
            sub_class: alternate.sub_class,
            protocol: alternate.protocol,
        };
        alternates.map(record).collect()
    }

    /// Interface `number`.
    #[must_use]
    pub fn interface(&self, number: u8) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.number == number)
    }
}

impl Interface {
    /// The setting in force after SET_CONFIGURATION and a reset: 0, or the first where there
    /// is none (`usb_set_configuration`).
    #[must_use]
    pub fn first_setting(&self) -> u8 {
        if self.has_setting_0() { 0 } else { self.alternates.first().map_or(0, |a| a.setting) }
    }

    /// Whether there is a setting 0, or no setting at all.
    #[must_use]
    pub fn has_setting_0(&self) -> bool {
        self.alternates.is_empty() || self.alternates.iter().any(|one| one.setting == 0)
    }

    /// The setting in force.
    #[must_use]
    pub fn alternate(&self) -> Option<&Alternate> {
        self.alternates.iter().find(|alternate| alternate.setting == self.current)
    }
}
