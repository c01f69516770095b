//! What usbferry needs of a USB stack, as traits, and the plain data that crosses them.
//!
//! Two stacks implement them: [`libusb`], the real one, and [`sim`], devices made of software that
//! go through the same sessions, reactor and wire code. Which one is a type parameter of the
//! reactor; nothing on the path of a URB is called through a pointer.
//!
//! - [`Backend`] finds devices; it lives on the thread that looks for them. [`Hints`] say when to
//!   look again, and live with the reactor.
//! - [`Candidate`] is a device that was found and can be opened, on a thread that may block.
//! - [`Port`] is an open device. Whoever owns it may use it: the reactor submits and reaps through
//!   it, and moves it to the device's worker for everything that can sleep, so that the two can
//!   never touch the device at once.
//! - [`Port::Transfer`] carries one URB at a time and owns its buffer while it is in flight.
//!
//! A URB goes to a device by [`Port::submit`] and comes back by [`Port::take`], so a backend that
//! wraps another sees all that passes.
//!
//! What both stacks go by: [`descriptor`] reads descriptors as Linux does, [`isochronous`] is what
//! a session must know of settings that are not in force, and [`special`] are the requests that a
//! host performs itself.
//!
//! Contract: calls marked *blocks* run on worker threads only. Statuses are those of the wire:
//! each stack maps its own errors in one place.

pub mod descriptor;
mod error;
pub mod isochronous;
pub mod libusb;
pub mod sim;
pub mod special;

use std::io;
use std::os::fd::RawFd;
use std::time::Instant;

use usbferry_sys::arena::DeviceMemory;
use usbferry_sys::arena::{Arena, Block};

use crate::limits::DeviceLimits;
use crate::wire::iso::Packets;
use crate::wire::op::UsbDevice;
use crate::wire::status::Status;
use crate::wire::types::{EndpointAddress, TransferType};
pub use error::{Obstacle, OpenError, ScanError};
use isochronous::IsochronousSettings;
use special::SpecialRequest;

/// A USB stack: finds the devices that are present.
pub trait Backend: Send + 'static {
    /// A device it found.
    type Candidate: Candidate;

    /// Whether its devices need the `now` that they are given to the microsecond, because they live
    /// by it. To real ones it is for deadlines, and a few milliseconds late will do.
    const EXACT_TIME: bool;

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

/// A device that was present when it was looked for.
pub trait Candidate: Clone + Send + 'static {
    /// What it becomes when opened.
    type Port: Port;

    /// What is known of it without opening it.
    fn info(&self) -> &DeviceInfo;

    /// Opens it for a client: kernel drivers detached, interfaces claimed, transfers and buffers
    /// allocated. With `reset_on_release` the device is reset when a client gives it back. *Blocks.*
    ///
    /// # Errors
    /// The device can't be opened; everything is as before.
    fn open(
        &self,
        limits: &DeviceLimits,
        reset_on_release: bool,
    ) -> Result<Opened<Self::Port>, OpenError>;

    /// Its port was dropped by a panic, and not closed: gives back to the system what that left, as
    /// far as can be told from outside. *Blocks.*
    fn recover(&self) {}
}

/// A device as found by a scan.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// What clients are told.
    pub device: UsbDevice,
    /// iManufacturer's text, where the system knows it.
    pub manufacturer: Option<String>,
    /// iProduct's text, where the system knows it.
    pub product: Option<String>,
    /// iSerialNumber's text, where the system knows it.
    pub serial: Option<String>,
    /// Kernel drivers that hold its interfaces now, in the order of the interfaces.
    pub drivers: Vec<Bound>,
    /// The device came in through a USB/IP client of this machine.
    pub imported: bool,
}

/// An interface that a kernel driver holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bound {
    /// bInterfaceNumber.
    pub interface: u8,
    /// The driver's name.
    pub driver: String,
}

/// The name of the kernel's driver that stands for programs such as this one.
pub(crate) const DRIVER_OF_PROGRAMS: &str = "usbfs";

/// bDeviceClass of a hub.
pub(crate) const CLASS_HUB: u8 = 9;

impl DeviceInfo {
    /// Whether it is a hub, which can't be exported.
    #[must_use]
    pub const fn is_hub(&self) -> bool {
        self.device.device_class == CLASS_HUB
    }

    /// Whether programs, by the kernel's driver for them, have every interface.
    pub(crate) fn is_held_by_programs(&self) -> bool {
        let held = self.drivers.iter().filter(|bound| bound.driver == DRIVER_OF_PROGRAMS).count();
        held > 0 && held >= self.device.interfaces.len()
    }

    /// The command that names the programs that have it, in brackets and behind a space, where
    /// there is one.
    pub(crate) fn holders_named(&self) -> String {
        if cfg!(target_os = "linux") {
            let UsbDevice { busnum, devnum, .. } = self.device;
            format!(" (fuser -v /dev/bus/usb/{busnum:03}/{devnum:03} names them)")
        } else {
            String::new()
        }
    }
}

/// A device opened for a client.
pub struct Opened<P: Port> {
    /// The device.
    pub port: P,
    /// Its URB slots: as many as [`DeviceLimits::urbs`] says, each for any endpoint.
    pub transfers: Vec<P::Transfer>,
    /// Its buffers.
    pub memory: Arena,
    /// The active configuration, or `None` when the device has none.
    pub configuration: Option<Configuration>,
    /// Its configurations by index, as the host has read them: what GET_DESCRIPTOR is answered
    /// with. The device is asked for others.
    pub configurations: Vec<Vec<u8>>,
    /// Which of its endpoints are isochronous, in all settings of all its configurations.
    pub isochronous: IsochronousSettings,
}

/// A configuration as it stands: which endpoints there are, and which of them may be used.
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
    /// All its settings.
    pub alternates: Vec<Alternate>,
    /// `Some` when it could not be claimed: what URBs to its endpoints are answered with.
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
    /// How it moves data.
    pub transfer_type: TransferType,
    /// wMaxPacketSize as the descriptor has it, multiplier bits included.
    pub max_packet_size: u16,
    /// bInterval as the descriptor has it.
    pub interval: u8,
}

impl Endpoint {
    /// The frames, at high speed and above microframes, from one packet of an isochronous endpoint
    /// to the next, as Linux has it for programs (`proc_do_submiturb` of
    /// `drivers/usb/core/devio.c`): they can't choose. 0 for other endpoints, and for a bInterval
    /// that the host replaces.
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
    /// Wait for it to be readable.
    pub readable: bool,
    /// Wait for it to be writable, which is how usbfs says "something to reap".
    pub writable: bool,
}

/// An open device.
pub trait Port: Send + Sized + 'static {
    /// A URB slot: carries one URB at a time.
    type Transfer: Send + 'static;

    /// Names a transfer in flight for [`Port::cancel`], on any thread.
    type CancelToken: Send + 'static;

    /// Bytes of data of the longest control transfer that is submitted.
    const CONTROL_LEN_MAX: usize;

    /// A client has the device from now on. One that nobody got is closed as if it had never been
    /// opened.
    fn attached(&mut self) {}

    /// The descriptors to watch while the device is open.
    fn event_sources(&self) -> Vec<EventSource>;

    /// Starts a URB. `block` holds the data (OUT) or has room for it (IN), and goes with the
    /// transfer until [`Port::take`]; a control transfer's starts with its SETUP packet.
    ///
    /// # Errors
    /// It was not started; the block comes back.
    ///
    /// # Panics
    /// When the transfer is in flight, or the block is shorter than the submission says.
    fn submit(
        &mut self,
        transfer: &mut Self::Transfer,
        submission: &Submission<'_>,
        block: Block,
        now: Instant,
    ) -> Result<(), Refused>;

    /// Finds transfers that ended and appends the index of each to `completed`, which has room
    /// for all transfers of the device. Never blocks. May leave some for the next call, and then
    /// says so.
    fn reap(&mut self, now: Instant, completed: &mut Vec<u32>) -> Reaped;

    /// Ends a transfer that [`Port::reap`] has found, on the same thread and before the slot carries
    /// another URB: how the URB ended, and its buffer.
    ///
    /// # Panics
    /// When the transfer is in flight or was taken already.
    fn take(&mut self, transfer: &mut Self::Transfer) -> Completion;

    /// How packet `index` of an isochronous transfer ended that was taken: bytes and status.
    ///
    /// # Panics
    /// When the transfer is in flight, or had fewer packets.
    fn packet(&self, transfer: &Self::Transfer, index: usize) -> (u32, Status);

    /// A descriptor of this port was reported as hung up.
    fn hung_up(&mut self, now: Instant);

    /// When to call [`Port::reap`] next if no descriptor becomes ready before.
    fn next_deadline(&self) -> Option<Instant>;

    /// A name for `transfer`, which is in flight.
    fn cancel_token(transfer: &Self::Transfer) -> Self::CancelToken;

    /// Asks for a transfer to be given up. It is still reaped, whatever it then ended with. A
    /// transfer that has ended since its token was made is left alone, but the slot must not carry
    /// another URB by now.
    /// *Blocks*: usbfs waits until the host controller has let go of the URB.
    fn cancel(&mut self, token: &Self::CancelToken);

    /// Carries out a request that the host's stack must perform. No transfer of the interfaces it
    /// concerns may be in flight. *Blocks.*
    fn perform(&mut self, request: SpecialRequest) -> Performed;

    /// What is to be changed of the memory that the port has of the system, if anything; asked
    /// often.
    fn memory_change(&self) -> Option<MemoryChange> {
        None
    }

    /// Changes it. `given_up` is what was mapped, if that is to go; no transfer may be in it.
    /// Returns what was mapped, for the device's [`Opened::memory`]. *Blocks.*
    fn change_memory(
        &mut self,
        _change: MemoryChange,
        _given_up: Option<DeviceMemory>,
    ) -> Option<DeviceMemory> {
        None
    }

    /// Whether other devices wait for memory that the system has refused to them. Who has had some
    /// then lets them try first.
    fn others_starve(&self) -> bool {
        false
    }

    /// Notes whether this device does.
    fn set_starving(&mut self, _starving: bool) {}

    /// Gives the device back as it was found: its configuration and kernel drivers, too. No
    /// transfer may be in flight. *Blocks.*
    fn close(self, transfers: Vec<Self::Transfer>, memory: Arena);
}

/// A URB, as [`Port::submit`] gets it.
#[derive(Clone, Copy)]
pub struct Submission<'a> {
    /// Where to.
    pub endpoint: EndpointAddress,
    /// The type of that endpoint.
    pub transfer_type: TransferType,
    /// Bytes of the block that count, a control transfer's SETUP packet included. Isochronous:
    /// the sum of the packets' lengths.
    pub length: usize,
    /// End full OUT packets with an empty one. Only ever set for bulk OUT.
    pub zero_packet: bool,
    /// Nothing else of its endpoint is with the device.
    pub is_first: bool,
    /// The packets of an isochronous URB, else empty. They lie in the block one behind the other
    /// in this order, whatever their offsets say.
    pub packets: Packets<'a>,
}

/// How a transfer ended.
#[derive(Debug)]
pub struct Completion {
    /// Its status as the wire has it; [`Status::ECONNRESET`] when it was cancelled.
    pub status: Status,
    /// Bytes transferred, without a SETUP packet. Says nothing for isochronous transfers.
    pub actual_length: u32,
    /// Its buffer.
    pub block: Block,
}

/// A submission that was refused.
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
    /// The system has no memory for it now; it may be tried again when another has ended.
    NoMemory,
    /// The device has its share of the system's memory; it may be tried again when another URB of
    /// this device has ended.
    Share,
    /// The device is gone.
    Gone,
    /// Anything else, as the wire has it.
    Failed(Status),
}

/// A change of the memory that a port has of the system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryChange {
    /// See how much there is for all.
    Look,
    /// Map some of the device's, in which transfers cost less.
    Map,
    /// Give that up: it is needed elsewhere.
    GiveUp,
}

/// What [`Port::reap`] found besides completed transfers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reaped {
    /// There may be more: call again, without waiting for a descriptor.
    pub more: bool,
    /// The device is gone. Every call says so from then on.
    pub gone: bool,
}

/// How a special request ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Performed {
    /// As asked.
    Done,
    /// It was done, or failed and left something changed.
    Reconfigured {
        /// What is in force now.
        configuration: Option<Configuration>,
        /// What the client is told.
        status: Status,
    },
    /// The host has nothing to do for it, or can't: send it to the device as it stands.
    Forward,
    /// The device or the host refused, and all is as before.
    Failed(Status),
    /// The device is gone, or has become another.
    Gone,
}

impl Configuration {
    /// Interface `number`.
    #[must_use]
    pub fn interface(&self, number: u8) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.number == number)
    }
}

impl Interface {
    /// The setting that SET_CONFIGURATION and a reset leave in force: 0, or the first where there
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
