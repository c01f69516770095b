//! libusb's contexts, and the list of devices of a context.
//!
//! Contract: every call may block (locks, sysfs), and must not run on the reactor. A context
//! belongs to one thread at a time.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::libusb::error::{Error, check};
use crate::libusb::raw;
use crate::os::thread;

/// A libusb context. Dropped after every object of the context.
pub(crate) struct RawContext {
    context: *mut raw::libusb_context,
    /// Written by libusb's callbacks; alive until `libusb_exit`, which may call back too, has
    /// returned. Not a `Box`: moving a `Box` asserts that no other pointer to its contents is in
    /// use.
    signs: Arc<Signs>,
}

/// Messages of libusb about a context.
#[derive(Default)]
struct Signs {
    /// The watched device, open in the context.
    #[cfg(not(any(test, target_os = "linux")))]
    device: std::sync::atomic::AtomicPtr<raw::libusb_device>,
    /// Whether the device was unplugged.
    gone: AtomicBool,
}

// SAFETY: libusb contexts may be used from any thread (libusb, "Multi-threaded applications").
unsafe impl Send for RawContext {}
// SAFETY: the same page allows several threads at once; libusb locks inside.
unsafe impl Sync for RawContext {}

impl RawContext {
    /// Makes a context with a list of the present devices. On Linux a thread, common to all such
    /// contexts, follows the changes. The first context starts the thread, which has a name of its
    /// own rather than that of a device's worker.
    pub(crate) fn with_discovery() -> Result<Self, Error> {
        thread::named("libusb", || Self::init(&[]))
    }

    /// Makes a context for a single device opened by other means: no scan, no hotplug thread.
    #[cfg(target_os = "linux")]
    pub(crate) fn without_discovery() -> Result<Self, Error> {
        Self::init(&[raw::InitOption {
            option: raw::OPTION_NO_DEVICE_DISCOVERY,
            value: raw::InitOptionValue { ival: 0 },
        }])
    }

    fn init(options: &[raw::InitOption]) -> Result<Self, Error> {
        let mut context = ptr::null_mut();
        let count = i32::try_from(options.len()).expect("a handful of options");
        // SAFETY: `context` is valid to write to, `options` holds `count` options.
        check(unsafe { raw::libusb_init_context(&raw mut context, options.as_ptr(), count) })?;
        let context = Self { context, signs: Arc::default() };
        context.watch_descriptors();
        Ok(context)
    }

    /// Makes libusb report when it gives up a descriptor, on Linux at the unplug of a device.
    fn watch_descriptors(&self) {
        let signs = self.signs();
        // SAFETY: the context is alive, and the signs have a fixed address until the end of the
        // context.
        unsafe {
            raw::libusb_set_pollfd_notifiers(self.context, None, Some(on_pollfd_removed), signs);
        }
    }

    /// Makes libusb report the unplug of the device open in this context. On systems other than
    /// Linux a device has no descriptor to give up (libusb's `darwin_usb.c`). The report comes by
    /// the context's own events.
    ///
    /// # Errors
    /// libusb's.
    #[cfg(not(any(test, target_os = "linux")))]
    pub(crate) fn watch_device(&self, device: *mut raw::libusb_device) -> Result<(), Error> {
        self.signs.device.store(device, Ordering::Relaxed);
        // SAFETY: the context is alive, and the signs have a fixed address until the end of the
        // context.
        check(unsafe {
            raw::libusb_hotplug_register_callback(
                self.context,
                raw::LIBUSB_HOTPLUG_EVENT_DEVICE_LEFT,
                0,
                raw::LIBUSB_HOTPLUG_MATCH_ANY,
                raw::LIBUSB_HOTPLUG_MATCH_ANY,
                raw::LIBUSB_HOTPLUG_MATCH_ANY,
                on_device_left,
                self.signs(),
                ptr::null_mut(),
            )
        })
    }

    /// Handles the events since the last call, without waiting.
    ///
    /// # Errors
    /// libusb's.
    pub(crate) fn handle_events(&self) -> Result<(), Error> {
        // A `timeval` of zero, valid in either size: where addresses have 32 bits, the C library
        // and the linked libusb may have been built for another time_t than the `libc` crate.
        let now = [0_u64; 2];
        const { assert!(size_of::<libc::timeval>() <= 16 && align_of::<libc::timeval>() <= 8) };
        // SAFETY: the context is alive, `now` is a valid time, and no completion flag is used.
        check(unsafe {
            raw::libusb_handle_events_timeout_completed(
                self.context,
                (&raw const now).cast(),
                ptr::null_mut(),
            )
        })
    }

    /// The argument for libusb's callbacks.
    fn signs(&self) -> *mut c_void {
        Arc::as_ptr(&self.signs).cast_mut().cast()
    }

    pub(crate) const fn as_ptr(&self) -> *mut raw::libusb_context {
        self.context
    }

    /// Whether the device open in this context was unplugged.
    pub(crate) fn is_device_gone(&self) -> bool {
        self.signs.gone.load(Ordering::Relaxed)
    }
}

extern "system" fn on_pollfd_removed(_fd: libc::c_int, signs: *mut c_void) {
    // SAFETY: `watch_descriptors` registered a pointer to signs, and the signs outlive the context.
    let signs = unsafe { &*signs.cast::<Signs>() };
    signs.gone.store(true, Ordering::Relaxed);
}

#[cfg(not(any(test, target_os = "linux")))]
extern "system" fn on_device_left(
    _context: *mut raw::libusb_context,
    device: *mut raw::libusb_device,
    _event: libc::c_int,
    signs: *mut c_void,
) -> libc::c_int {
    // SAFETY: `watch_device` registered a pointer to signs, and the signs outlive the context.
    let signs = unsafe { &*signs.cast::<Signs>() };
    if device == signs.device.load(Ordering::Relaxed) {
        signs.gone.store(true, Ordering::Relaxed);
    }
    0
}

impl Drop for RawContext {
    fn drop(&mut self) {
        // SAFETY: made by `init`, and every object of the context is gone: handles and lists keep
        // the context alive by owning or borrowing it.
        unsafe { raw::libusb_exit(self.context) }
    }
}

/// libusb's list of referenced devices.
pub(crate) struct RawList {
    list: *const *mut raw::libusb_device,
    len: usize,
}

impl RawList {
    pub(crate) fn new(context: &RawContext) -> Result<Self, Error> {
        let mut list = ptr::null();
        // SAFETY: the context is alive and `list` is valid to write to.
        let len = unsafe { raw::libusb_get_device_list(context.as_ptr(), &raw mut list) };
        match usize::try_from(len) {
            Ok(len) => Ok(Self { list, len }),
            Err(_) => Err(Error::from_code(i32::try_from(len).unwrap_or(i32::MIN))),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = *mut raw::libusb_device> + '_ {
        // SAFETY: libusb returned `len` pointers at `list`, which live until the list is freed.
        unsafe { std::slice::from_raw_parts(self.list, self.len) }.iter().copied()
    }
}

impl Drop for RawList {
    fn drop(&mut self) {
        // SAFETY: made by `libusb_get_device_list`; the references of the devices go with it.
        unsafe { raw::libusb_free_device_list(self.list, 1) }
    }
}

/// The cached device descriptor.
pub(crate) fn device_descriptor(
    device: *mut raw::libusb_device,
) -> Option<raw::libusb_device_descriptor> {
    let mut descriptor = std::mem::MaybeUninit::zeroed();
    // SAFETY: the caller holds a reference to the device; `descriptor` is valid to write to.
    let code = unsafe { raw::libusb_get_device_descriptor(device, descriptor.as_mut_ptr()) };
    check(code).ok()?;
    // SAFETY: integers only, all zeroed and then filled in by libusb.
    Some(unsafe { descriptor.assume_init() })
}

/// Bus number and address. The caller holds a reference to the device.
pub(crate) fn address_of(device: *mut raw::libusb_device) -> (u8, u8) {
    // SAFETY: the caller's reference keeps the device alive.
    let bus = unsafe { raw::libusb_get_bus_number(device) };
    // SAFETY: the reference does so for this call too.
    (bus, unsafe { raw::libusb_get_device_address(device) })
}
