//! The door to libusb: the functions in use, including functions not declared by libusb1-sys 0.7.
//! In tests the functions come from `fake`; the types are always libusb1-sys's.

pub(crate) use libusb1_sys::{
    libusb_context, libusb_device, libusb_device_descriptor, libusb_device_handle,
    libusb_iso_packet_descriptor, libusb_pollfd, libusb_transfer, libusb_version,
};

#[cfg(not(test))]
pub(crate) use self::declared::{libusb_dev_mem_alloc, libusb_dev_mem_free, libusb_init_context};
#[cfg(all(not(test), target_os = "macos"))]
pub(crate) use libusb1_sys::libusb_detach_kernel_driver;
#[cfg(all(not(test), not(target_os = "macos")))]
pub(crate) use libusb1_sys::libusb_set_auto_detach_kernel_driver;
#[cfg(all(not(test), target_os = "linux"))]
pub(crate) use libusb1_sys::libusb_wrap_sys_device;
#[cfg(all(not(test), not(target_os = "linux")))]
pub(crate) use libusb1_sys::{
    constants::{LIBUSB_HOTPLUG_EVENT_DEVICE_LEFT, LIBUSB_HOTPLUG_MATCH_ANY},
    libusb_control_transfer, libusb_get_configuration, libusb_get_device_speed,
    libusb_get_port_numbers, libusb_get_string_descriptor_ascii, libusb_hotplug_register_callback,
};
#[cfg(not(test))]
pub(crate) use libusb1_sys::{
    libusb_alloc_transfer, libusb_attach_kernel_driver, libusb_cancel_transfer,
    libusb_claim_interface, libusb_clear_halt, libusb_close, libusb_exit, libusb_free_device_list,
    libusb_free_pollfds, libusb_free_transfer, libusb_get_bus_number, libusb_get_device,
    libusb_get_device_address, libusb_get_device_descriptor, libusb_get_device_list,
    libusb_get_pollfds, libusb_get_version, libusb_handle_events_timeout_completed,
    libusb_kernel_driver_active, libusb_open, libusb_release_interface, libusb_reset_device,
    libusb_set_configuration, libusb_set_interface_alt_setting, libusb_set_pollfd_notifiers,
    libusb_submit_transfer,
};

#[cfg(test)]
pub(crate) use crate::libusb::fake::*;

/// `LIBUSB_OPTION_NO_DEVICE_DISCOVERY` of `enum libusb_option`.
#[cfg(target_os = "linux")]
pub(crate) const OPTION_NO_DEVICE_DISCOVERY: libc::c_int = 2;

/// `struct libusb_init_option`. Its value is a union of an int and a callback. Only options without
/// a value are used here, and the int comes first on every platform.
#[repr(C)]
pub(crate) struct InitOption {
    pub(crate) option: libc::c_int,
    pub(crate) value: InitOptionValue,
}

/// The union of `struct libusb_init_option`, sized by its larger member.
#[repr(C)]
pub(crate) union InitOptionValue {
    pub(crate) ival: libc::c_int,
    _log_cb: usize,
}

#[cfg(not(test))]
mod declared {
    use super::{InitOption, libusb_context, libusb_device_handle};
    use libc::{c_int, c_uchar, size_t};

    unsafe extern "system" {
        pub(crate) fn libusb_init_context(
            context: *mut *mut libusb_context,
            options: *const InitOption,
            num_options: c_int,
        ) -> c_int;
        pub(crate) fn libusb_dev_mem_alloc(
            dev_handle: *mut libusb_device_handle,
            length: size_t,
        ) -> *mut c_uchar;
        pub(crate) fn libusb_dev_mem_free(
            dev_handle: *mut libusb_device_handle,
            buffer: *mut c_uchar,
            length: size_t,
        ) -> c_int;
    }
}
