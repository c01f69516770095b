//! A libusb in a single file, for the tests of this crate: the unsafe code runs without a device,
//! and under Miri. Transfers stay in flight until a test ends them; the fake's `handle_events`
//! delivers ended transfers like libusb's. Types are libusb1-sys's own.
//!
//! State is per thread, so that tests do not interfere.

#![allow(clippy::missing_safety_doc, reason = "each does what libusb's function of its name does")]

use std::alloc::{self, Layout};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ptr;

use libc::{c_int, c_uchar, c_void, size_t, ssize_t, timeval};
use libusb1_sys::constants as c;
pub(crate) use libusb1_sys::{
    libusb_context, libusb_device, libusb_device_descriptor, libusb_device_handle,
    libusb_iso_packet_descriptor, libusb_pollfd, libusb_transfer,
};

use crate::libusb::raw::{InitOption, libusb_version};

/// How a test ends a transfer.
pub(crate) struct End {
    pub(crate) status: c_int,
    pub(crate) actual_length: c_int,
    /// Length and status of each isochronous packet.
    pub(crate) packets: Vec<(u32, c_int)>,
    /// Written to the start of the buffer, behind a control transfer's SETUP packet.
    pub(crate) data: Vec<u8>,
}

#[derive(Default)]
struct Fake {
    in_flight: Vec<*mut libusb_transfer>,
    ended: VecDeque<*mut libusb_transfer>,
    refuse_submit: Option<c_int>,
    mapped: usize,
    handles: usize,
    contexts: usize,
    made_contexts: usize,
    transfers: usize,
    made_transfers: usize,
    /// Whether the list of devices leaves out the only device.
    unlisted: bool,
    /// Number of devices opened by a descriptor.
    #[cfg(target_os = "linux")]
    wrapped: usize,
    notifier: Option<(libusb1_sys::libusb_pollfd_removed_cb, *mut c_void)>,
}

thread_local! {
    static FAKE: RefCell<Fake> = RefCell::default();
}

fn with<R>(f: impl FnOnce(&mut Fake) -> R) -> R {
    FAKE.with_borrow_mut(f)
}

/// Living contexts, handles, transfers and mappings: all zero without a leak.
pub(crate) fn alive() -> [usize; 4] {
    with(|fake| [fake.contexts, fake.handles, fake.transfers, fake.mapped])
}

/// All contexts that were made.
pub(crate) fn made_contexts() -> usize {
    with(|fake| fake.made_contexts)
}

/// All transfers that were made.
pub(crate) fn made_transfers() -> usize {
    with(|fake| fake.made_transfers)
}

/// The next submit fails with `code`.
pub(crate) fn refuse_submit(code: c_int) {
    with(|fake| fake.refuse_submit = Some(code));
}

/// libusb does not list the device from now on.
#[cfg(target_os = "linux")]
pub(crate) fn leave_out() {
    with(|fake| fake.unlisted = true);
}

/// Number of devices opened by a descriptor.
#[cfg(target_os = "linux")]
pub(crate) fn wrapped() -> usize {
    with(|fake| fake.wrapped)
}

/// The parameters of the oldest transfer in flight: type, endpoint, length, flags, packet lengths.
pub(crate) fn oldest() -> (u8, u8, c_int, u8, Vec<u32>) {
    let raw = with(|fake| fake.in_flight[0]);
    // SAFETY: in flight, so alive, and only raw reads.
    let transfer = unsafe { ptr::read(raw) };
    let count = u32::try_from(transfer.num_iso_packets).unwrap();
    let lengths = (0..count)
        .map(|index| {
            // SAFETY: below the number of packets submitted.
            unsafe { (*packet(raw, index)).length }
        })
        .collect();
    (transfer.transfer_type, transfer.endpoint, transfer.length, transfer.flags, lengths)
}

/// Ends the oldest transfer in flight; the next `handle_events` delivers it.
pub(crate) fn end_oldest(end: &End) {
    let raw = with(|fake| fake.in_flight.remove(0));
    for (index, &(length, status)) in (0..).zip(&end.packets) {
        let packet = packet(raw, index);
        #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one invariant for both fields")]
        // SAFETY: the test names no more packets than were submitted.
        unsafe {
            (*packet).actual_length = length;
            (*packet).status = status;
        }
    }
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one invariant for all fields")]
    // SAFETY: the transfer is in flight, so allocated.
    let (buffer, kind) = unsafe {
        (*raw).status = end.status;
        (*raw).actual_length = end.actual_length;
        ((*raw).buffer, (*raw).transfer_type)
    };
    let offset = if kind == c::LIBUSB_TRANSFER_TYPE_CONTROL { 8 } else { 0 };
    let data = buffer.wrapping_add(offset);
    // SAFETY: the test writes no more than the buffer holds.
    unsafe { ptr::copy_nonoverlapping(end.data.as_ptr(), data, end.data.len()) };
    with(|fake| fake.ended.push_back(raw));
}

/// Unplugs: everything in flight ends, and the descriptor is given up.
pub(crate) fn unplug() {
    while with(|fake| !fake.in_flight.is_empty()) {
        end_oldest(&End {
            status: c::LIBUSB_TRANSFER_NO_DEVICE,
            actual_length: 0,
            packets: Vec::new(),
            data: Vec::new(),
        });
    }
    if let Some((notifier, data)) = with(|fake| fake.notifier) {
        notifier(0, data);
    }
}

fn packet(raw: *mut libusb_transfer, index: u32) -> *mut libusb_iso_packet_descriptor {
    // SAFETY: a place projection inside the allocation.
    let first = unsafe { &raw mut (*raw).iso_packet_desc };
    first.cast::<libusb_iso_packet_descriptor>().wrapping_add(index as usize)
}

fn transfer_layout(packets: usize) -> Layout {
    let tail = packets * size_of::<libusb_iso_packet_descriptor>();
    // The number of packets stands before the transfer, for `libusb_free_transfer`.
    Layout::from_size_align(16 + size_of::<libusb_transfer>() + tail, 16).unwrap()
}

pub(crate) unsafe fn libusb_alloc_transfer(packets: c_int) -> *mut libusb_transfer {
    let packets = usize::try_from(packets).unwrap();
    with(|fake| {
        (fake.transfers, fake.made_transfers) = (fake.transfers + 1, fake.made_transfers + 1);
    });
    // SAFETY: the layout is not empty.
    let base = unsafe { alloc::alloc_zeroed(transfer_layout(packets)) };
    // SAFETY: room and alignment for a usize.
    unsafe { base.cast::<usize>().write(packets) };
    base.wrapping_add(16).cast()
}

pub(crate) unsafe fn libusb_free_transfer(transfer: *mut libusb_transfer) {
    with(|fake| fake.transfers -= 1);
    let base = transfer.cast::<u8>().wrapping_sub(16);
    // SAFETY: written by `libusb_alloc_transfer`.
    let packets = unsafe { base.cast::<usize>().read() };
    // SAFETY: allocated there with this layout.
    unsafe { alloc::dealloc(base, transfer_layout(packets)) };
}

pub(crate) unsafe fn libusb_submit_transfer(transfer: *mut libusb_transfer) -> c_int {
    with(|fake| match fake.refuse_submit.take() {
        Some(code) => code,
        None => {
            fake.in_flight.push(transfer);
            0
        }
    })
}

pub(crate) unsafe fn libusb_cancel_transfer(transfer: *mut libusb_transfer) -> c_int {
    with(|fake| {
        let Some(index) = fake.in_flight.iter().position(|&t| t == transfer) else {
            return c::LIBUSB_ERROR_NOT_FOUND;
        };
        let raw = fake.in_flight.remove(index);
        // SAFETY: in flight until now, so alive.
        unsafe { (*raw).status = c::LIBUSB_TRANSFER_CANCELLED };
        fake.ended.push_back(raw);
        0
    })
}

pub(crate) unsafe fn libusb_handle_events_timeout_completed(
    _context: *mut libusb_context,
    _timeout: *const timeval,
    _completed: *mut c_int,
) -> c_int {
    while let Some(raw) = with(|fake| fake.ended.pop_front()) {
        // SAFETY: an ended transfer is alive until its callback has run.
        let callback = unsafe { (*raw).callback };
        callback(raw);
    }
    0
}

pub(crate) unsafe fn libusb_init_context(
    context: *mut *mut libusb_context,
    _options: *const InitOption,
    _count: c_int,
) -> c_int {
    with(|fake| (fake.contexts, fake.made_contexts) = (fake.contexts + 1, fake.made_contexts + 1));
    // SAFETY: the caller's out parameter. The value is never dereferenced.
    unsafe { *context = ptr::without_provenance_mut(8) };
    0
}

pub(crate) unsafe fn libusb_exit(_context: *mut libusb_context) {
    with(|fake| {
        fake.contexts -= 1;
        fake.notifier = None;
    });
}

pub(crate) unsafe fn libusb_set_pollfd_notifiers(
    _context: *mut libusb_context,
    _added: Option<libusb1_sys::libusb_pollfd_added_cb>,
    removed: Option<libusb1_sys::libusb_pollfd_removed_cb>,
    data: *mut c_void,
) {
    with(|fake| fake.notifier = removed.map(|notifier| (notifier, data)));
}

#[cfg(target_os = "linux")]
pub(crate) unsafe fn libusb_wrap_sys_device(
    _context: *mut libusb_context,
    _fd: *mut c_int,
    handle: *mut *mut libusb_device_handle,
) -> c_int {
    with(|fake| (fake.handles, fake.wrapped) = (fake.handles + 1, fake.wrapped + 1));
    // SAFETY: the caller's out parameter. The value is never dereferenced.
    unsafe { *handle = ptr::without_provenance_mut(16) };
    0
}

pub(crate) unsafe fn libusb_open(
    _device: *mut libusb_device,
    handle: *mut *mut libusb_device_handle,
) -> c_int {
    with(|fake| fake.handles += 1);
    // SAFETY: the caller's out parameter. The value is never dereferenced.
    unsafe { *handle = ptr::without_provenance_mut(16) };
    0
}

pub(crate) unsafe fn libusb_close(_handle: *mut libusb_device_handle) {
    with(|fake| fake.handles -= 1);
}

pub(crate) unsafe fn libusb_get_device(_handle: *mut libusb_device_handle) -> *mut libusb_device {
    ptr::null_mut()
}

pub(crate) unsafe fn libusb_get_device_descriptor(
    _device: *const libusb_device,
    descriptor: *mut libusb_device_descriptor,
) -> c_int {
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one invariant for both fields")]
    // SAFETY: the caller's out parameter.
    unsafe {
        (*descriptor).idVendor = 0x1209;
        (*descriptor).idProduct = 1;
    }
    0
}

pub(crate) unsafe fn libusb_dev_mem_alloc(
    _handle: *mut libusb_device_handle,
    len: size_t,
) -> *mut c_uchar {
    with(|fake| fake.mapped += len);
    // SAFETY: the length is not zero.
    unsafe { alloc::alloc_zeroed(Layout::from_size_align(len, 4096).unwrap()) }
}

pub(crate) unsafe fn libusb_dev_mem_free(
    _handle: *mut libusb_device_handle,
    buffer: *mut c_uchar,
    len: size_t,
) -> c_int {
    assert!(with(|fake| fake.handles) > 0, "the device was closed before its memory was freed");
    with(|fake| fake.mapped -= len);
    // SAFETY: allocated above with this layout.
    unsafe { alloc::dealloc(buffer, Layout::from_size_align(len, 4096).unwrap()) };
    0
}

pub(crate) unsafe fn libusb_get_bus_number(_device: *const libusb_device) -> u8 {
    1
}

pub(crate) unsafe fn libusb_get_device_address(_device: *const libusb_device) -> u8 {
    2
}

/// A list of the only device, or of none.
pub(crate) unsafe fn libusb_get_device_list(
    _context: *mut libusb_context,
    list: *mut *const *mut libusb_device,
) -> ssize_t {
    let device = Box::new(ptr::without_provenance_mut::<libusb_device>(24));
    // SAFETY: the caller's out parameter.
    unsafe { *list = Box::into_raw(device) };
    with(|fake| ssize_t::from(!fake.unlisted))
}

pub(crate) unsafe fn libusb_free_device_list(list: *const *mut libusb_device, _unref: c_int) {
    // SAFETY: made by `libusb_get_device_list`, of this type.
    drop(unsafe { Box::from_raw(list.cast_mut()) });
}

pub(crate) unsafe fn libusb_get_pollfds(
    _context: *mut libusb_context,
) -> *const *mut libusb_pollfd {
    let entry = Box::into_raw(Box::new(libusb_pollfd { fd: 5, events: libc::POLLOUT }));
    Box::into_raw(Box::new([entry, ptr::null_mut()])).cast()
}

pub(crate) unsafe fn libusb_free_pollfds(list: *const *mut libusb_pollfd) {
    // SAFETY: made by `libusb_get_pollfds`, of this type.
    let list = unsafe { Box::from_raw(list.cast_mut().cast::<[*mut libusb_pollfd; 2]>()) };
    // SAFETY: the entry was made there too.
    drop(unsafe { Box::from_raw(list[0]) });
}

pub(crate) unsafe fn libusb_get_version() -> *const libusb_version {
    const VERSION: &libusb_version = &libusb_version {
        major: 1,
        minor: 0,
        micro: 27,
        nano: 0,
        rc: ptr::null(),
        describe: ptr::null(),
    };
    VERSION
}

macro_rules! succeeds {
    ($($name:ident($($argument:ty),*)),* $(,)?) => {
        $(pub(crate) unsafe fn $name($(_: $argument),*) -> c_int { 0 })*
    };
}

#[cfg(target_os = "macos")]
succeeds! { libusb_detach_kernel_driver(*mut libusb_device_handle, c_int) }
#[cfg(not(target_os = "macos"))]
succeeds! { libusb_set_auto_detach_kernel_driver(*mut libusb_device_handle, c_int) }
succeeds! {
    libusb_attach_kernel_driver(*mut libusb_device_handle, c_int),
    libusb_kernel_driver_active(*mut libusb_device_handle, c_int),
    libusb_claim_interface(*mut libusb_device_handle, c_int),
    libusb_release_interface(*mut libusb_device_handle, c_int),
    libusb_set_configuration(*mut libusb_device_handle, c_int),
    libusb_set_interface_alt_setting(*mut libusb_device_handle, c_int, c_int),
    libusb_clear_halt(*mut libusb_device_handle, c_uchar),
    libusb_reset_device(*mut libusb_device_handle),
}
