//! An open device: found by bus and address, closed when its last user is gone.
//!
//! Contract: opening, and dropping the last share, block.

use std::ptr::{self, NonNull};
use std::sync::Arc;

use crate::arena::DeviceMemory;
use crate::libusb::context::{self, RawContext, address_of};
use crate::libusb::error::{Error, check};
use crate::libusb::raw;

/// The device common to a handle, its transfers and its mapped memory; closed with the last of
/// these.
pub(crate) struct OpenDevice {
    handle: *mut raw::libusb_device_handle,
    context: RawContext,
    /// Kept open if libusb was given a descriptor, which libusb does not own.
    #[cfg(target_os = "linux")]
    _node: Option<std::fs::File>,
}

// SAFETY: libusb handles may be used from any thread; `&mut DeviceHandle` ensures exclusive use
// where needed.
unsafe impl Send for OpenDevice {}
// SAFETY: the same holds for a shared handle: libusb locks inside.
unsafe impl Sync for OpenDevice {}

impl OpenDevice {
    pub(crate) const fn as_ptr(&self) -> *mut raw::libusb_device_handle {
        self.handle
    }

    pub(crate) const fn context(&self) -> &RawContext {
        &self.context
    }

    pub(crate) fn raw_device(&self) -> *mut raw::libusb_device {
        // SAFETY: the handle is open; the device lives as long as the handle.
        unsafe { raw::libusb_get_device(self.handle) }
    }

    /// Whether libusb read the vendor and product of `id` from the device.
    pub(crate) fn has_ids_of(&self, id: DeviceId) -> bool {
        context::device_descriptor(self.raw_device()).is_some_and(|descriptor| {
            (descriptor.idVendor, descriptor.idProduct) == (id.id_vendor, id.id_product)
        })
    }
}

impl Drop for OpenDevice {
    fn drop(&mut self) {
        // SAFETY: opened by `open`, and the last owner is gone: no transfer and no mapping is left,
        // since both own a share.
        unsafe { raw::libusb_close(self.handle) }
    }
}

/// A context with a list of devices, made before the device to open is known: libusb reads files of
/// every device for such a list.
///
/// The list is that of the time it was made, with the changes that libusb's hotplug thread has
/// heard of since. The changes also wait as events of the context, see [`AheadContext::take_news`].
pub struct AheadContext(RawContext);

impl AheadContext {
    /// Makes a context, and reads all devices. *Blocks.*
    ///
    /// # Errors
    /// libusb's, where libusb can't look for devices or the system has no room.
    pub fn new_blocking() -> Result<Self, Error> {
        RawContext::with_discovery().map(Self)
    }

    /// Handles the events about devices that have come or left: libusb keeps the memory of a device
    /// that has left until then (`usbi_hotplug_notification`).
    pub fn take_news(&mut self) {
        // A failure leaves the events to the next call.
        let _ = self.0.handle_events();
    }
}

/// Which device to open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "two are those of USB 2.0, table 9-8")]
pub struct DeviceId {
    /// The number of the bus.
    pub bus: u8,
    /// The device's number on the bus.
    pub address: u8,
    pub id_vendor: u16,
    pub id_product: u16,
}

/// A mapping of a device's own memory (`libusb_dev_mem_alloc`). Keeps the device open.
struct Mapping {
    base: NonNull<u8>,
    len: usize,
    device: Arc<OpenDevice>,
}

// SAFETY: a mapping does not belong to a thread.
unsafe impl Send for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped from this handle with this length; the arena, the only user of the bytes,
        // has no block out. A failure leaves the mapping to the end of the process.
        unsafe { raw::libusb_dev_mem_free(self.device.as_ptr(), self.base.as_ptr(), self.len) };
    }
}

/// Maps `len` bytes of the device's memory; `None` if the platform or its quota refuses.
pub(crate) fn map(device: &Arc<OpenDevice>, len: usize) -> Option<DeviceMemory> {
    // SAFETY: the handle is open.
    let base = NonNull::new(unsafe { raw::libusb_dev_mem_alloc(device.as_ptr(), len) })?;
    let owner = Box::new(Mapping { base, len, device: Arc::clone(device) });
    // SAFETY: libusb mapped `len` zeroed bytes for this call; dropping the owner unmaps them.
    Some(unsafe { DeviceMemory::new(base, len, owner) })
}

/// Opens a device in a context of its own, by the list of devices of the context.
///
/// On Linux a device from such a list has a name in sysfs, and libusb reads the configuration from
/// sysfs. A handle around a descriptor has no name, and libusb asks the device by a
/// GET_CONFIGURATION, answered wrongly by some devices and never by others
/// (`usbfs_get_active_config`).
///
/// A context that was made `ahead` saves libusb the reading of all devices. Where libusb does not
/// hear of changes (with libudev and without its daemon), the device may be missing in the list, or
/// have another in its place.
pub(crate) fn open(id: DeviceId, ahead: Option<AheadContext>) -> Result<OpenDevice, Error> {
    if let Some(AheadContext(context)) = ahead
        && let Ok(opened) = open_listed(context, id)
        && opened.has_ids_of(id)
    {
        return Ok(opened);
    }
    let opened = RawContext::with_discovery().and_then(|context| open_listed(context, id));
    match opened {
        // A device missing in libusb's list may exist all the same.
        #[cfg(target_os = "linux")]
        Err(Error::NotFound | Error::Io | Error::Other) => open_node(id),
        #[cfg(not(target_os = "linux"))]
        Err(Error::NotFound) => Err(Error::NoDevice),
        other => other,
    }
}

/// Opens the device with the bus and address; `NotFound` when libusb does not list the device.
fn open_listed(context: RawContext, id: DeviceId) -> Result<OpenDevice, Error> {
    let list = context::RawList::new(&context)?;
    let is_it = |device: &*mut raw::libusb_device| address_of(*device) == (id.bus, id.address);
    let device = list.iter().find(is_it).ok_or(Error::NotFound)?;
    let mut handle = ptr::null_mut();
    // SAFETY: the list holds a reference to the device; `handle` is valid to write to.
    check(unsafe { raw::libusb_open(device, &raw mut handle) })?;
    drop(list);
    let open = OpenDevice {
        handle,
        context,
        #[cfg(target_os = "linux")]
        _node: None,
    };
    #[cfg(not(any(test, target_os = "linux")))]
    open.context.watch_device(open.raw_device())?;
    Ok(open)
}

/// Opens a device by its node, without a list. For devices left out by libusb, because libusb can't
/// distinguish their configurations (`seek_to_next_config`), and for systems where libusb can't
/// look for devices at all.
#[cfg(target_os = "linux")]
fn open_node(id: DeviceId) -> Result<OpenDevice, Error> {
    use std::os::fd::AsRawFd;

    let context = RawContext::without_discovery()?;
    let node = node(id)?;
    let mut handle = ptr::null_mut();
    let fd = node.as_raw_fd();
    // SAFETY: the context is alive and `handle` valid to write to. The second argument is an
    // integer, an intptr_t in C and a pointer in libusb1-sys.
    let code = unsafe {
        raw::libusb_wrap_sys_device(
            context.as_ptr(),
            ptr::without_provenance_mut(usize::try_from(fd).expect("open files are positive")),
            &raw mut handle,
        )
    };
    check(code)?;
    Ok(OpenDevice { handle, context, _node: Some(node) })
}

#[cfg(all(target_os = "linux", not(test)))]
fn node(id: DeviceId) -> Result<std::fs::File, Error> {
    let path = format!("/dev/bus/usb/{:03}/{:03}", id.bus, id.address);
    let node = std::fs::OpenOptions::new().read(true).write(true).open(path);
    node.map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => Error::Access,
        std::io::ErrorKind::NotFound => Error::NoDevice,
        _ if error.raw_os_error() == Some(libc::ENODEV) => Error::NoDevice,
        _ => Error::Io,
    })
}

/// The fake libusb needs a descriptor of anything.
#[cfg(all(target_os = "linux", test))]
fn node(_id: DeviceId) -> Result<std::fs::File, Error> {
    std::fs::File::open("/dev/null").map_err(|_| Error::Io)
}
