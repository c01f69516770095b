//! The answers of libudev to libusb: the devices of the tree, and no events.
//!
//! Only the functions called by `linux_udev.c`. A program may use libudev for other purposes, such
//! as the hardware database; list entries of the real libudev are passed on.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::device;
use crate::paths::CONTROLLER;
use crate::real::real;

/// A device.
struct UdevDevice {
    name: CString,
    node: CString,
}

/// An entry of a list: its text, and the next entry or null.
struct Entry {
    name: CString,
    next: *const Self,
}

/// Addresses of all entries given out and not freed.
static ENTRIES: Mutex<Vec<usize>> = Mutex::new(Vec::new());

fn entries() -> MutexGuard<'static, Vec<usize>> {
    ENTRIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An enumeration: its entries, at a constant address.
struct Enumeration(Box<[Entry]>);

fn own_entry<'a>(entry: *const c_void) -> Option<&'a Entry> {
    let is_ours = entries().contains(&entry.addr());
    // SAFETY: an entry given out and not freed.
    is_ours.then(|| unsafe { &*entry.cast::<Entry>() })
}

#[unsafe(no_mangle)]
extern "C" fn udev_monitor_new_from_netlink(_: *mut c_void, _: *const c_char) -> *mut c_void {
    // A counter without additions never becomes readable. SAFETY: plain integers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    Box::into_raw(Box::new(fd)).cast()
}

#[unsafe(no_mangle)]
extern "C" fn udev_monitor_filter_add_match_subsystem_devtype(
    _: *mut c_void,
    _: *const c_char,
    _: *const c_char,
) -> c_int {
    0
}

#[unsafe(no_mangle)]
extern "C" fn udev_monitor_enable_receiving(_: *mut c_void) -> c_int {
    0
}

#[unsafe(no_mangle)]
extern "C" fn udev_monitor_get_fd(monitor: *mut c_void) -> c_int {
    // SAFETY: the program passes the monitor given to it.
    unsafe { *monitor.cast::<c_int>() }
}

#[unsafe(no_mangle)]
extern "C" fn udev_monitor_receive_device(_: *mut c_void) -> *mut c_void {
    std::ptr::null_mut()
}

#[unsafe(no_mangle)]
extern "C" fn udev_monitor_unref(monitor: *mut c_void) -> *mut c_void {
    // SAFETY: the program passes the monitor given to it, for the last time.
    let fd = unsafe { Box::from_raw(monitor.cast::<c_int>()) };
    // SAFETY: an own descriptor.
    unsafe { libc::close(*fd) };
    std::ptr::null_mut()
}

#[unsafe(no_mangle)]
extern "C" fn udev_enumerate_new(_: *mut c_void) -> *mut c_void {
    let present = device::all().iter().filter(|device| !device.is_gone());
    let hub = format!("{CONTROLLER}/usb1");
    let names = std::iter::once(hub.clone())
        .chain(present.map(|device| format!("{hub}/{}", device.busid())));
    let mut list: Box<[Entry]> = names
        .filter_map(|name| CString::new(name).ok())
        .map(|name| Entry { name, next: std::ptr::null() })
        .collect();
    for index in 1..list.len() {
        list[index - 1].next = &raw const list[index];
    }
    entries().extend(list.iter().map(|entry| std::ptr::from_ref(entry).addr()));
    Box::into_raw(Box::new(Enumeration(list))).cast()
}

#[unsafe(no_mangle)]
extern "C" fn udev_enumerate_add_match_subsystem(_: *mut c_void, _: *const c_char) -> c_int {
    0
}

#[unsafe(no_mangle)]
extern "C" fn udev_enumerate_add_match_property(
    _: *mut c_void,
    _: *const c_char,
    _: *const c_char,
) -> c_int {
    0
}

#[unsafe(no_mangle)]
extern "C" fn udev_enumerate_scan_devices(_: *mut c_void) -> c_int {
    0
}

#[unsafe(no_mangle)]
extern "C" fn udev_enumerate_get_list_entry(enumeration: *mut c_void) -> *const c_void {
    // SAFETY: the program passes the enumeration given to it.
    let Enumeration(list) = unsafe { &*enumeration.cast::<Enumeration>() };
    list.first().map_or(std::ptr::null(), |entry| std::ptr::from_ref(entry).cast())
}

#[unsafe(no_mangle)]
extern "C" fn udev_enumerate_unref(enumeration: *mut c_void) -> *mut c_void {
    // SAFETY: the program passes the enumeration given to it, for the last time.
    let enumeration = unsafe { Box::from_raw(enumeration.cast::<Enumeration>()) };
    let own: Vec<usize> =
        enumeration.0.iter().map(|entry| std::ptr::from_ref(entry).addr()).collect();
    entries().retain(|entry| !own.contains(entry));
    std::ptr::null_mut()
}

#[unsafe(no_mangle)]
extern "C" fn udev_list_entry_get_next(entry: *const c_void) -> *const c_void {
    if let Some(entry) = own_entry(entry) {
        return entry.next.cast();
    }
    let next = real!(udev_list_entry_get_next(*const c_void) -> *const c_void);
    // SAFETY: libudev's own entry.
    unsafe { next(entry) }
}

#[unsafe(no_mangle)]
extern "C" fn udev_list_entry_get_name(entry: *const c_void) -> *const c_char {
    if let Some(entry) = own_entry(entry) {
        return entry.name.as_ptr();
    }
    let next = real!(udev_list_entry_get_name(*const c_void) -> *const c_char);
    // SAFETY: libudev's own entry.
    unsafe { next(entry) }
}

#[unsafe(no_mangle)]
extern "C" fn udev_device_new_from_syspath(_: *mut c_void, path: *const c_char) -> *mut c_void {
    // SAFETY: the program passes a path from a list.
    let path = unsafe { CStr::from_ptr(path) }.to_string_lossy();
    let name = path.rsplit('/').next().unwrap_or_default();
    let port: usize = name.strip_prefix("1-").and_then(|port| port.parse().ok()).unwrap_or(0);
    let node = format!("/dev/bus/usb/001/{:03}", port + 1);
    match (CString::new(name), CString::new(node)) {
        (Ok(name), Ok(node)) => Box::into_raw(Box::new(UdevDevice { name, node })).cast(),
        _ => std::ptr::null_mut(),
    }
}

#[unsafe(no_mangle)]
extern "C" fn udev_device_get_devnode(device: *mut c_void) -> *const c_char {
    // SAFETY: the program passes the device given to it.
    unsafe { &*device.cast::<UdevDevice>() }.node.as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn udev_device_get_sysname(device: *mut c_void) -> *const c_char {
    // SAFETY: the program passes the device given to it.
    unsafe { &*device.cast::<UdevDevice>() }.name.as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn udev_device_get_action(_: *mut c_void) -> *const c_char {
    std::ptr::null()
}

#[unsafe(no_mangle)]
extern "C" fn udev_device_unref(device: *mut c_void) -> *mut c_void {
    // SAFETY: the program passes the device given to it, for the last time.
    drop(unsafe { Box::from_raw(device.cast::<UdevDevice>()) });
    std::ptr::null_mut()
}
