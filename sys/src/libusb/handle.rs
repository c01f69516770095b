//! An open device, in a libusb context of its own.
//!
//! usbfs holds a device's mutex through every blocking call (`drivers/usb/core/devio.c`). So the
//! reactor's own submit or reap on the device would wait behind a worker's reset, and with the
//! reactor every other device. Two measures prevent this. Each device has its own context, so
//! handling the events of a device never touches another device. And a [`DeviceHandle`] is not
//! shared but handed over, so nobody else can make a call while its owner is inside a blocking
//! call.
//!
//! Contract: opening, dropping and the methods ending in `_blocking` may sleep for seconds and
//! belong on a worker. No answer of a device causes a panic. A handle dropped with transfers in
//! flight stays open until the transfers are gone, a leak if nobody reaps them.

use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::arena::DeviceMemory;
use crate::libusb::completion::CompletionQueue;
use crate::libusb::device::{self, AheadContext, DeviceId, OpenDevice};
use crate::libusb::error::{Error, check};
use crate::libusb::pass::Pass;
use crate::libusb::raw;
#[cfg(target_os = "linux")]
use crate::libusb::usbfs;

/// libusb takes interfaces with numbers below this (`USB_MAXINTERFACES`).
#[cfg(target_os = "linux")]
const LIBUSB_INTERFACES: usize = 32;

/// A descriptor to watch for libusb.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PollFd {
    /// The descriptor; libusb's own.
    pub fd: RawFd,
    /// poll(2) events.
    pub events: i16,
}

impl PollFd {
    /// Whether to wait until the descriptor is readable.
    #[must_use]
    pub const fn wants_input(&self) -> bool {
        self.events & libc::POLLIN != 0
    }

    /// Whether to wait until the descriptor is writable.
    #[must_use]
    pub const fn wants_output(&self) -> bool {
        self.events & libc::POLLOUT != 0
    }
}

/// Exclusive use of an open device.
pub struct DeviceHandle {
    device: Arc<OpenDevice>,
    completions: Arc<CompletionQueue>,
    /// Transfers submitted and not yet delivered by [`Self::handle_events`].
    in_flight: usize,
    #[cfg(target_os = "macos")]
    capture: crate::libusb::capture::Capture,
    /// Claiming detaches a kernel driver.
    #[cfg(target_os = "linux")]
    auto_detach: bool,
    /// Claimed interfaces with numbers too great for libusb.
    #[cfg(target_os = "linux")]
    unknown_claims: Vec<u8>,
}

impl DeviceHandle {
    /// Opens a device for `transfers` transfers, in a context of its own, which may have been made
    /// `ahead`. *Blocks.*
    ///
    /// # Errors
    /// `NoDevice` when the device is gone or another device has its place, `Access` without
    /// permission, otherwise libusb's.
    pub fn open_blocking(
        id: DeviceId,
        transfers: usize,
        ahead: Option<AheadContext>,
    ) -> Result<Self, Error> {
        let device = Arc::new(device::open(id, ahead)?);
        let handle = Self {
            device,
            completions: Arc::new(CompletionQueue::new(transfers)),
            in_flight: 0,
            #[cfg(target_os = "macos")]
            capture: crate::libusb::capture::Capture::default(),
            #[cfg(target_os = "linux")]
            auto_detach: false,
            #[cfg(target_os = "linux")]
            unknown_claims: Vec::new(),
        };
        if handle.device.has_ids_of(id) { Ok(handle) } else { Err(Error::NoDevice) }
    }

    pub(crate) const fn device(&self) -> &Arc<OpenDevice> {
        &self.device
    }

    pub(crate) const fn completions(&self) -> &Arc<CompletionQueue> {
        &self.completions
    }

    /// The descriptors to watch, constant while the device is open.
    #[must_use]
    pub fn pollfds(&self) -> Vec<PollFd> {
        // SAFETY: the context is alive.
        let list = unsafe { raw::libusb_get_pollfds(self.device.context().as_ptr()) };
        let mut pollfds = Vec::new();
        if list.is_null() {
            return pollfds;
        }
        for index in 0.. {
            // SAFETY: the list ends with a null pointer, and `index` has not passed the end.
            let entry = unsafe { *list.wrapping_add(index) };
            let Some(pollfd) = NonNull::new(entry) else { break };
            // SAFETY: entries live until the list is freed.
            let pollfd: &raw::libusb_pollfd = unsafe { pollfd.as_ref() };
            pollfds.push(PollFd { fd: pollfd.fd, events: pollfd.events });
        }
        // SAFETY: returned by libusb above.
        unsafe { raw::libusb_free_pollfds(list) };
        pollfds
    }

    pub(crate) const fn note_submitted(&mut self) {
        self.in_flight += 1;
    }

    /// Handles the events since the last call, without waiting, and appends the index of each ended
    /// transfer to `completed`. libusb reaps 26 URBs a call at most: call again until nothing is
    /// appended.
    ///
    /// # Errors
    /// libusb's; transfers ended by then are in `completed`, and a pass over everything has to
    /// follow.
    pub fn handle_events(&mut self, pass: Pass, completed: &mut Vec<u32>) -> Result<(), Error> {
        let context = self.device.context();
        let handled = pass.over(self.in_flight, || context.handle_events());
        self.in_flight -= self.completions.drain_into(completed);
        handled
    }

    /// Whether libusb has noticed the device's disappearance. All transfers have then ended.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.device.context().is_device_gone()
    }

    /// Whether libusb makes a single request to the system of a bulk or interrupt transfer of any
    /// length. The answer is yes for a host controller with scatter-gather, the usual kind
    /// (`submit_bulk_transfer`, USBDEVFS_CAP_BULK_SCATTER_GATHER), and for a system without usbfs.
    #[must_use]
    pub fn sends_bulk_whole(&self) -> bool {
        #[cfg(target_os = "linux")]
        {
            const BULK_SCATTER_GATHER: u32 = 0x08;
            self.node().is_some_and(|node| usbfs::capabilities(node) & BULK_SCATTER_GATHER != 0)
        }
        #[cfg(not(target_os = "linux"))]
        true
    }

    /// The device's node, which libusb has open: usbfs says "something to reap" by "writable", and
    /// nothing else here does.
    #[cfg(target_os = "linux")]
    fn node(&self) -> Option<RawFd> {
        self.pollfds().into_iter().find(PollFd::wants_output).map(|pollfd| pollfd.fd)
    }

    /// The node, for an interface whose number is too great for libusb.
    #[cfg(target_os = "linux")]
    fn node_for(&self, interface: u8) -> Option<RawFd> {
        if usize::from(interface) < LIBUSB_INTERFACES { None } else { self.node() }
    }

    /// Maps `len` bytes for use by the host controller without a copy; `None` if the platform or
    /// its quota refuses. *Blocks.*
    #[must_use]
    pub fn map_memory_blocking(&self, len: usize) -> Option<DeviceMemory> {
        device::map(&self.device, len)
    }

    /// The system's bConfigurationValue, or `None` for an unconfigured device. *Blocks.* Not for
    /// Linux, where sysfs has the value and libusb might ask the device.
    ///
    /// # Errors
    /// libusb's.
    #[cfg(not(any(test, target_os = "linux")))]
    pub fn configuration_blocking(&self) -> Result<Option<u8>, Error> {
        crate::libusb::discovery::active_configuration(self.device.as_ptr())
    }

    /// Chooses whether claiming first detaches a kernel driver, in a single step if the platform
    /// can, and whether releasing attaches the driver again.
    ///
    /// # Errors
    /// `NotSupported` on a platform without this feature.
    #[cfg(not(target_os = "macos"))]
    pub fn set_auto_detach(&mut self, enable: bool) -> Result<(), Error> {
        #[cfg(target_os = "linux")]
        {
            self.auto_detach = enable;
        }
        // SAFETY: the handle is open.
        check(unsafe {
            raw::libusb_set_auto_detach_kernel_driver(self.device.as_ptr(), enable.into())
        })
    }

    /// The same; libusb's own is left off (see `capture`).
    ///
    /// # Errors
    /// None.
    #[cfg(target_os = "macos")]
    pub fn set_auto_detach(&mut self, enable: bool) -> Result<(), Error> {
        self.capture.automatic = enable;
        Ok(())
    }

    /// Makes libusb capture the device from its drivers, if the interface has a driver. A refusal
    /// shows when the interface is claimed.
    #[cfg(target_os = "macos")]
    fn capture_blocking(&mut self, interface: u8) {
        if !self.has_kernel_driver_blocking(interface) {
            return;
        }
        let handle = self.device.as_ptr();
        // SAFETY: the handle is open.
        let detach = || unsafe { raw::libusb_detach_kernel_driver(handle, interface.into()) } == 0;
        self.capture.take(detach);
    }

    /// Makes the kernel look for a driver for a free interface. *Blocks* through the driver's
    /// probe.
    ///
    /// # Errors
    /// libusb's; `NotFound` without a fitting driver, `Busy` if a driver has the interface already.
    /// On macOS all interfaces have their drivers after the first is given back.
    pub fn attach_kernel_driver_blocking(&mut self, interface: u8) -> Result<(), Error> {
        #[cfg(target_os = "macos")]
        if !self.capture.give_back() {
            return Err(Error::Busy);
        }
        #[cfg(target_os = "linux")]
        if let Some(node) = self.node_for(interface) {
            return usbfs::connect(node, interface);
        }
        // SAFETY: the handle is open.
        check(unsafe { raw::libusb_attach_kernel_driver(self.device.as_ptr(), interface.into()) })
    }

    /// Whether a kernel driver has the interface. *Blocks.*
    #[must_use]
    pub fn has_kernel_driver_blocking(&self, interface: u8) -> bool {
        #[cfg(target_os = "linux")]
        if let Some(node) = self.node_for(interface) {
            return usbfs::has_driver(node, interface);
        }
        // SAFETY: the handle is open.
        unsafe { raw::libusb_kernel_driver_active(self.device.as_ptr(), interface.into()) == 1 }
    }

    /// Claims an interface. *Blocks* while a kernel driver lets go.
    ///
    /// # Errors
    /// libusb's; on Linux `Access`, `NoMem` and `Io` are told from `Other`.
    pub fn claim_blocking(&mut self, interface: u8) -> Result<(), Error> {
        #[cfg(target_os = "macos")]
        self.capture_blocking(interface);
        #[cfg(target_os = "linux")]
        if let Some(node) = self.node_for(interface) {
            usbfs::claim(node, interface, self.auto_detach)?;
            self.unknown_claims.push(interface);
            return Ok(());
        }
        // SAFETY: the handle is open.
        let claimed =
            check(unsafe { raw::libusb_claim_interface(self.device.as_ptr(), interface.into()) });
        #[cfg(target_os = "linux")]
        let claimed = claimed.map_err(usbfs::named);
        claimed
    }

    /// Releases an interface. *Blocks*: the interface goes back to alternate setting 0, and with
    /// auto-detach a kernel driver probes the interface.
    ///
    /// # Errors
    /// libusb's.
    pub fn release_blocking(&mut self, interface: u8) -> Result<(), Error> {
        #[cfg(target_os = "linux")]
        if let Some(node) = self.node_for(interface) {
            self.unknown_claims.retain(|&other| other != interface);
            usbfs::release(node, interface)?;
            if self.auto_detach {
                // As in libusb: a missing driver is no failure of the release.
                let _ = usbfs::connect(node, interface);
            }
            return Ok(());
        }
        // SAFETY: the handle is open.
        check(unsafe { raw::libusb_release_interface(self.device.as_ptr(), interface.into()) })
    }

    /// Sets the configuration. `None` unconfigures; 0 does not, if a configuration has the number
    /// 0. No interface may be claimed. *Blocks.*
    ///
    /// # Errors
    /// libusb's; `Busy` while any program has an interface.
    pub fn set_configuration_blocking(&mut self, value: Option<u8>) -> Result<(), Error> {
        let value = value.map_or(-1, libc::c_int::from);
        // SAFETY: the handle is open.
        check(unsafe { raw::libusb_set_configuration(self.device.as_ptr(), value) })
    }

    /// Sets an interface's alternate setting. *Blocks.*
    ///
    /// # Errors
    /// libusb's.
    pub fn set_interface_blocking(&mut self, interface: u8, setting: u8) -> Result<(), Error> {
        #[cfg(target_os = "linux")]
        if let Some(node) = self.node_for(interface) {
            return usbfs::set_interface(node, interface, setting);
        }
        // SAFETY: the handle is open.
        check(unsafe {
            raw::libusb_set_interface_alt_setting(
                self.device.as_ptr(),
                interface.into(),
                setting.into(),
            )
        })
    }

    /// Clears an endpoint's halt, and the host's data toggle. *Blocks.*
    ///
    /// # Errors
    /// libusb's; `NotFound` for an endpoint outside of the configuration.
    pub fn clear_halt_blocking(&mut self, endpoint: u8) -> Result<(), Error> {
        // SAFETY: the handle is open.
        check(unsafe { raw::libusb_clear_halt(self.device.as_ptr(), endpoint) })
    }

    /// Resets the device. *Blocks.*
    ///
    /// # Errors
    /// `NotFound` when the device came back as another device or lost a claim, otherwise libusb's.
    pub fn reset_blocking(&mut self) -> Result<(), Error> {
        // The kernel takes interfaces from every holder that cannot be asked before a reset,
        // programs among them, and looks for drivers. libusb releases and claims only the
        // interfaces known to libusb.
        #[cfg(target_os = "linux")]
        let unknown = std::mem::take(&mut self.unknown_claims);
        #[cfg(target_os = "linux")]
        for &interface in &unknown {
            let node = self.node().ok_or(Error::NoDevice)?;
            usbfs::release(node, interface)?;
        }
        // SAFETY: the handle is open.
        let reset = check(unsafe { raw::libusb_reset_device(self.device.as_ptr()) });
        #[cfg(target_os = "linux")]
        for interface in unknown {
            self.claim_blocking(interface).map_err(|_| Error::NotFound)?;
        }
        reset
    }
}

/// A captured device is given back with its handle: in another configuration than at the capture,
/// no interface is left by which its owner could give the device back.
#[cfg(target_os = "macos")]
impl Drop for DeviceHandle {
    fn drop(&mut self) {
        let _ = self.attach_kernel_driver_blocking(0);
    }
}
