//! Finding devices: a context with discovery, and plain descriptions of what it finds.
//!
//! Contract: every call here may block (locks, sysfs, on macOS a request to the device); none may
//! run on the reactor. A context belongs to one thread at a time.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, check};
use crate::raw;

/// A libusb context. Dropped after everything that was made with it.
pub(crate) struct RawContext {
    context: *mut raw::libusb_context,
    /// Written by what libusb calls back; alive until `libusb_exit`, which calls back too, has
    /// returned. Not a `Box`: moving one says that no other pointer to its contents is used any more.
    signs: Arc<Signs>,
}

/// What libusb has said of a context.
#[derive(Default)]
struct Signs {
    /// The device that is open in it, where that is watched.
    #[cfg(not(any(test, target_os = "linux")))]
    device: std::sync::atomic::AtomicPtr<raw::libusb_device>,
    /// Its device was unplugged.
    gone: AtomicBool,
}

// SAFETY: libusb contexts may be used from any thread (libusb, "Multi-threaded applications").
unsafe impl Send for RawContext {}
// SAFETY: as above; libusb locks inside.
unsafe impl Sync for RawContext {}

impl RawContext {
    /// Makes a context that looks for devices.
    fn with_discovery() -> Result<Self, Error> {
        Self::init(&[])
    }

    /// Makes a context for one device that is opened by other means: no scan, no hotplug thread.
    /// Other platforms ignore the option.
    pub(crate) fn without_discovery() -> Result<Self, Error> {
        #[cfg(target_os = "linux")]
        return Self::init(&[raw::InitOption {
            option: raw::OPTION_NO_DEVICE_DISCOVERY,
            value: raw::InitOptionValue { ival: 0 },
        }]);
        #[cfg(not(target_os = "linux"))]
        Self::init(&[])
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

    /// Has libusb say when it gives up a descriptor, which on Linux it does when a device is
    /// unplugged.
    fn watch_descriptors(&self) {
        let signs = self.signs();
        // SAFETY: the context is alive, and the signs stay where they are until the context is gone.
        unsafe {
            raw::libusb_set_pollfd_notifiers(self.context, None, Some(on_pollfd_removed), signs);
        }
    }

    /// Has libusb say when the device that is open in this context is unplugged: elsewhere devices
    /// have no descriptor that could be given up (libusb's `darwin_usb.c`). It is said by the
    /// context's own events.
    ///
    /// # Errors
    /// libusb's.
    #[cfg(not(any(test, target_os = "linux")))]
    pub(crate) fn watch_device(&self, device: *mut raw::libusb_device) -> Result<(), Error> {
        self.signs.device.store(device, Ordering::Relaxed);
        // SAFETY: the context is alive, and the signs stay where they are until the context is gone.
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

    /// What is handed to the functions that libusb calls back.
    fn signs(&self) -> *mut c_void {
        Arc::as_ptr(&self.signs).cast_mut().cast()
    }

    pub(crate) const fn as_ptr(&self) -> *mut raw::libusb_context {
        self.context
    }

    /// Whether the device that is open in this context was unplugged.
    pub(crate) fn is_device_gone(&self) -> bool {
        self.signs.gone.load(Ordering::Relaxed)
    }
}

extern "system" fn on_pollfd_removed(_fd: libc::c_int, signs: *mut c_void) {
    // SAFETY: `watch_descriptors` registered a pointer to signs that outlive the context.
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
    // SAFETY: `watch_device` registered a pointer to signs that outlive the context.
    let signs = unsafe { &*signs.cast::<Signs>() };
    if device == signs.device.load(Ordering::Relaxed) {
        signs.gone.store(true, Ordering::Relaxed);
    }
    0
}

impl Drop for RawContext {
    fn drop(&mut self) {
        // SAFETY: made by `init`, and everything made with it is gone: handles and lists keep the
        // context alive by owning or borrowing it.
        unsafe { raw::libusb_exit(self.context) }
    }
}

/// Looks for devices.
pub struct Discovery(RawContext);

impl Discovery {
    /// Starts looking. *Blocks.*
    ///
    /// # Errors
    /// libusb's, when the platform has no USB or forbids looking.
    pub fn new() -> Result<Self, Error> {
        RawContext::with_discovery().map(Self)
    }

    /// All devices present now, hubs included. *Blocks.*
    ///
    /// # Errors
    /// libusb's, when it can't list them. A single device that can't be read is left out.
    pub fn devices(&mut self) -> Result<Vec<FoundDevice>, Error> {
        let list = RawList::new(&self.0)?;
        Ok(list.iter().filter_map(describe).collect())
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

/// `enum libusb_speed`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names are libusb's")]
pub enum DeviceSpeed {
    Unknown,
    Low,
    Full,
    High,
    /// SUPER, SUPER_PLUS and SUPER_PLUS_X2.
    Super,
}

/// A device as it was found.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the field names are those of USB 2.0, table 9-8")]
pub struct FoundDevice {
    pub bus: u8,
    pub address: u8,
    /// Port numbers from the root hub to the device; empty for a root hub.
    pub ports: Vec<u8>,
    pub speed: DeviceSpeed,
    pub id_vendor: u16,
    pub id_product: u16,
    pub bcd_device: u16,
    pub device_class: u8,
    pub device_sub_class: u8,
    pub device_protocol: u8,
    pub num_configurations: u8,
    /// `None` when it is not configured or its descriptors can't be read.
    pub configuration: Option<FoundConfiguration>,
    /// Any of its configurations has an isochronous endpoint.
    pub isochronous: bool,
    /// Manufacturer, product and serial number, where the platform must ask the device for them.
    /// Always `None` on Linux, where sysfs has them.
    pub strings: [Option<String>; 3],
}

/// An active configuration, by interface.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FoundConfiguration {
    /// bConfigurationValue.
    pub value: u8,
    /// All alternate settings of all interfaces, in the order of the descriptor.
    pub alternates: Vec<FoundAlternate>,
}

/// An alternate setting of an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the field names are those of USB 2.0, table 9-12")]
pub struct FoundAlternate {
    pub interface: u8,
    pub setting: u8,
    pub class: u8,
    pub sub_class: u8,
    pub protocol: u8,
    pub endpoints: Vec<FoundEndpoint>,
}

/// An endpoint descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the field names are those of USB 2.0, table 9-13")]
pub struct FoundEndpoint {
    pub address: u8,
    pub attributes: u8,
    pub max_packet_size: u16,
}

/// The longest port path that USB allows: seven tiers.
const PORTS_MAX: usize = 7;

/// Reads what libusb knows of a device; `None` when not even its device descriptor.
fn describe(device: *mut raw::libusb_device) -> Option<FoundDevice> {
    let descriptor = device_descriptor(device)?;
    let mut ports = [0u8; PORTS_MAX];
    // SAFETY: the list holds a reference to the device.
    let bus = unsafe { raw::libusb_get_bus_number(device) };
    // SAFETY: as above.
    let address = unsafe { raw::libusb_get_device_address(device) };
    // SAFETY: as above.
    let speed = unsafe { raw::libusb_get_device_speed(device) };
    // SAFETY: as above, and `ports` has the room that is named.
    let depth = unsafe { raw::libusb_get_port_numbers(device, ports.as_mut_ptr(), 7) };
    let depth = usize::try_from(depth).unwrap_or(0).min(PORTS_MAX);
    Some(FoundDevice {
        bus,
        address,
        ports: ports[..depth].to_vec(),
        speed: match speed {
            1 => DeviceSpeed::Low,
            2 => DeviceSpeed::Full,
            3 => DeviceSpeed::High,
            4.. => DeviceSpeed::Super,
            _ => DeviceSpeed::Unknown,
        },
        id_vendor: descriptor.idVendor,
        id_product: descriptor.idProduct,
        bcd_device: descriptor.bcdDevice,
        device_class: descriptor.bDeviceClass,
        device_sub_class: descriptor.bDeviceSubClass,
        device_protocol: descriptor.bDeviceProtocol,
        num_configurations: descriptor.bNumConfigurations,
        configuration: active_configuration(device),
        isochronous: (0..descriptor.bNumConfigurations).any(|i| has_isochronous(device, i)),
        strings: strings(device, &descriptor),
    })
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

/// The active configuration of a device the caller holds a reference to.
pub(crate) fn active_configuration(device: *mut raw::libusb_device) -> Option<FoundConfiguration> {
    let mut raw_configuration = ptr::null();
    // SAFETY: the caller holds a reference; the pointer is valid to write to.
    let code =
        unsafe { raw::libusb_get_active_config_descriptor(device, &raw mut raw_configuration) };
    take_configuration(code, raw_configuration)
}

/// Whether the device's configuration at `index` has an isochronous endpoint in any setting.
fn has_isochronous(device: *mut raw::libusb_device, index: u8) -> bool {
    let mut raw_configuration = ptr::null();
    // SAFETY: the caller holds a reference; the pointer is valid to write to.
    let code =
        unsafe { raw::libusb_get_config_descriptor(device, index, &raw mut raw_configuration) };
    let Some(configuration) = take_configuration(code, raw_configuration) else { return false };
    let mut endpoints = configuration.alternates.iter().flat_map(|a| &a.endpoints);
    endpoints.any(|endpoint| endpoint.attributes & 3 == 1)
}

/// Copies and frees a configuration that libusb returned with `code`.
fn take_configuration(
    code: i32,
    raw_configuration: *const raw::libusb_config_descriptor,
) -> Option<FoundConfiguration> {
    check(code).ok()?;
    // SAFETY: libusb returned a configuration that lives until it is freed below.
    let configuration = copy_configuration(unsafe { &*raw_configuration });
    // SAFETY: returned by libusb, and no reference into it is left.
    unsafe { raw::libusb_free_config_descriptor(raw_configuration) };
    Some(configuration)
}

fn copy_configuration(raw: &raw::libusb_config_descriptor) -> FoundConfiguration {
    let mut alternates = Vec::new();
    // SAFETY: libusb's parser sets `interface` to an array of bNumInterfaces entries.
    let interfaces = unsafe { slice(raw.interface, i32::from(raw.bNumInterfaces)) };
    for interface in interfaces {
        // SAFETY: the parser sets `altsetting` to an array of num_altsetting entries.
        let settings = unsafe { slice(interface.altsetting, interface.num_altsetting) };
        alternates.extend(settings.iter().map(copy_alternate));
    }
    FoundConfiguration { value: raw.bConfigurationValue, alternates }
}

fn copy_alternate(raw: &raw::libusb_interface_descriptor) -> FoundAlternate {
    // SAFETY: libusb's parser sets `endpoint` to an array of bNumEndpoints entries.
    let endpoints = unsafe { slice(raw.endpoint, i32::from(raw.bNumEndpoints)) };
    FoundAlternate {
        interface: raw.bInterfaceNumber,
        setting: raw.bAlternateSetting,
        class: raw.bInterfaceClass,
        sub_class: raw.bInterfaceSubClass,
        protocol: raw.bInterfaceProtocol,
        endpoints: endpoints
            .iter()
            .map(|endpoint| FoundEndpoint {
                address: endpoint.bEndpointAddress,
                attributes: endpoint.bmAttributes,
                max_packet_size: endpoint.wMaxPacketSize,
            })
            .collect(),
    }
}

/// A C array as a slice; null or a negative count is empty.
///
/// # Safety
/// Where `first` is not null it points to `count` initialised values that live for `'a`.
unsafe fn slice<'a, T>(first: *const T, count: i32) -> &'a [T] {
    match usize::try_from(count) {
        // SAFETY: the caller's promise.
        Ok(count) if !first.is_null() => unsafe { std::slice::from_raw_parts(first, count) },
        _ => &[],
    }
}

/// On Linux sysfs has the strings, and asking the device could wake it up.
#[cfg(any(test, target_os = "linux"))]
fn strings(
    _device: *mut raw::libusb_device,
    _descriptor: &raw::libusb_device_descriptor,
) -> [Option<String>; 3] {
    [const { None }; 3]
}

/// Elsewhere only the device knows them. It need not be opened exclusively for that.
#[cfg(not(any(test, target_os = "linux")))]
fn strings(
    device: *mut raw::libusb_device,
    descriptor: &raw::libusb_device_descriptor,
) -> [Option<String>; 3] {
    let mut handle = ptr::null_mut();
    // SAFETY: the list holds a reference to the device; `handle` is valid to write to.
    if unsafe { raw::libusb_open(device, &raw mut handle) } != 0 {
        return [const { None }; 3];
    }
    let texts = [descriptor.iManufacturer, descriptor.iProduct, descriptor.iSerialNumber]
        .map(|index| string(handle, index));
    // SAFETY: opened above, nothing is in flight on it.
    unsafe { raw::libusb_close(handle) };
    texts
}

/// The text of string descriptor `index`, for which the discovery context runs its own events.
#[cfg(not(any(test, target_os = "linux")))]
fn string(handle: *mut raw::libusb_device_handle, index: u8) -> Option<String> {
    let mut text = [0u8; 256];
    if index == 0 {
        return None;
    }
    // SAFETY: the handle is open and `text` has the room that is named.
    let len =
        unsafe { raw::libusb_get_string_descriptor_ascii(handle, index, text.as_mut_ptr(), 256) };
    let len = usize::try_from(len).ok()?;
    Some(String::from_utf8_lossy(&text[..len.min(256)]).into_owned())
}
