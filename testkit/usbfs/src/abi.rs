//! The kernel's usbfs: the structures and numbers of `include/uapi/linux/usbdevice_fs.h`.

use std::ffi::{c_char, c_int, c_uchar, c_uint, c_void};

/// Numbers of the ioctls (`_IOC_NR`); their type is [`IOCTL_TYPE`].
pub(crate) mod nr {
    pub(crate) const CONTROL: u8 = 0;
    pub(crate) const SET_INTERFACE: u8 = 4;
    pub(crate) const SET_CONFIGURATION: u8 = 5;
    pub(crate) const GET_DRIVER: u8 = 8;
    pub(crate) const SUBMIT_URB: u8 = 10;
    pub(crate) const DISCARD_URB: u8 = 11;
    pub(crate) const REAP_URB_NDELAY: u8 = 13;
    pub(crate) const CLAIM_INTERFACE: u8 = 15;
    pub(crate) const RELEASE_INTERFACE: u8 = 16;
    pub(crate) const CONNECT_INFO: u8 = 17;
    pub(crate) const IOCTL: u8 = 18;
    pub(crate) const RESET: u8 = 20;
    pub(crate) const CLEAR_HALT: u8 = 21;
    pub(crate) const DISCONNECT: u8 = 22;
    pub(crate) const CONNECT: u8 = 23;
    pub(crate) const GET_CAPABILITIES: u8 = 26;
    pub(crate) const DISCONNECT_CLAIM: u8 = 27;
    pub(crate) const GET_SPEED: u8 = 31;
    pub(crate) const CONNECT_INFO_EX: u8 = 32;
}

/// `_IOC_TYPE` of usbfs.
pub(crate) const IOCTL_TYPE: u8 = b'U';

/// ZERO_PACKET, BULK_CONTINUATION, NO_PACKET_SIZE_LIM, BULK_SCATTER_GATHER, REAP_AFTER_DISCONNECT,
/// MMAP and CONNINFO_EX: a current kernel's capabilities for xHCI.
pub(crate) const CAPABILITIES: u32 = 0x01 | 0x02 | 0x04 | 0x08 | 0x10 | 0x20 | 0x80;

/// Bytes of a SETUP packet.
pub(crate) const SETUP_LEN: usize = 8;

/// `struct usb_iso_packet_descriptor`, the kernel's own.
pub(crate) const PACKET_LEN: usize = 16;

/// `struct usbdevfs_urb` up to its packets.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Urb {
    pub(crate) kind: c_uchar,
    pub(crate) endpoint: c_uchar,
    pub(crate) status: c_int,
    pub(crate) flags: c_uint,
    pub(crate) buffer: *mut u8,
    pub(crate) buffer_length: c_int,
    pub(crate) actual_length: c_int,
    pub(crate) start_frame: c_int,
    pub(crate) number_of_packets: c_int,
    pub(crate) error_count: c_int,
    pub(crate) signal: c_uint,
    pub(crate) context: *mut c_void,
}

/// `type` of a URB.
pub(crate) const KIND_ISOCHRONOUS: c_uchar = 0;
pub(crate) const KIND_INTERRUPT: c_uchar = 1;
pub(crate) const KIND_CONTROL: c_uchar = 2;
pub(crate) const KIND_BULK: c_uchar = 3;

/// `struct usbdevfs_iso_packet_desc`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct IsoPacket {
    pub(crate) length: c_uint,
    pub(crate) actual_length: c_uint,
    pub(crate) status: c_int,
}

/// `struct usbdevfs_ctrltransfer`.
#[repr(C)]
pub(crate) struct ControlTransfer {
    pub(crate) setup: [u8; 8],
    pub(crate) timeout: u32,
    pub(crate) data: *mut u8,
}

/// `struct usbdevfs_setinterface`.
#[repr(C)]
pub(crate) struct SetInterface {
    pub(crate) interface: c_uint,
    pub(crate) setting: c_uint,
}

/// `struct usbdevfs_getdriver`.
#[repr(C)]
pub(crate) struct GetDriver {
    pub(crate) interface: c_uint,
    pub(crate) driver: [c_char; 256],
}

/// `struct usbdevfs_connectinfo`.
#[repr(C)]
pub(crate) struct ConnectInfo {
    pub(crate) device: c_uint,
    pub(crate) slow: c_uchar,
}

/// `struct usbdevfs_conninfo_ex`.
#[repr(C)]
pub(crate) struct ConnectInfoEx {
    pub(crate) size: u32,
    pub(crate) bus: u32,
    pub(crate) device: u32,
    pub(crate) speed: u32,
    pub(crate) num_ports: u8,
    pub(crate) ports: [u8; 7],
}

/// `struct usbdevfs_ioctl`.
#[repr(C)]
pub(crate) struct InterfaceIoctl {
    pub(crate) interface: c_int,
    pub(crate) code: c_int,
    pub(crate) data: *mut c_void,
}

/// `struct usbdevfs_disconnect_claim`.
#[repr(C)]
pub(crate) struct DisconnectClaim {
    pub(crate) interface: c_uint,
    pub(crate) flags: c_uint,
    pub(crate) driver: [c_char; 256],
}

const _: () = assert!(size_of::<Urb>() == if cfg!(target_pointer_width = "64") { 56 } else { 44 });
const _: () = assert!(
    size_of::<ControlTransfer>()
        == 12 + size_of::<usize>() + if cfg!(target_pointer_width = "64") { 4 } else { 0 }
);
const _: () = assert!(size_of::<ConnectInfoEx>() == 24);
