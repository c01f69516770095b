//! The handshake: a request and a reply before any URB (`tools/usb/usbip/src/usbip_network.h`).
//!
//! Contract: pure functions, without a panic on any input. Lists, paths and their replies are
//! allocated.

use std::fmt;

use bytes::BufMut;

use super::Error;
use super::types::{BUS_ID_LEN, BusId, Speed};
use super::watch::{REP_WATCH, REQ_WATCH};

/// Bytes of `op_common`, which starts every request and reply.
pub const OP_COMMON_LEN: usize = 8;

/// Bytes of the busid behind the `op_common` of OP_REQ_IMPORT.
pub const IMPORT_BODY_LEN: usize = BUS_ID_LEN;

/// Bytes of a `usb_device` record.
pub const USB_DEVICE_LEN: usize = 312;

/// Bytes of a `usb_interface` record.
pub const USB_INTERFACE_LEN: usize = 4;

/// The only protocol version: 1.1.1.
const VERSION: u16 = 0x0111;

const REQ_IMPORT: u16 = 0x8003;
const REP_IMPORT: u16 = 0x0003;
const REQ_DEVLIST: u16 = 0x8005;
const REP_DEVLIST: u16 = 0x0005;

/// Bytes of the device path field of a `usb_device`, its NUL included.
const PATH_LEN: usize = 256;

/// A client's request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// The list of exports. Nothing follows.
    Devlist,
    /// A device. [`IMPORT_BODY_LEN`] bytes of busid follow.
    Import,
    /// News of a device, an extension ([`super::watch`]). The name follows after the first answer.
    Watch,
}

impl Request {
    /// Reads a request's `op_common`.
    ///
    /// # Errors
    /// Another version, a status other than zero, or an unknown operation. usbipd closes the
    /// connection without a reply in each of these cases, and so must this server.
    pub fn parse(bytes: &[u8; OP_COMMON_LEN]) -> Result<Self, Error> {
        let (version, code, status) = split_common(bytes);
        if version != VERSION {
            return Err(Error::Version(version));
        }
        if status != 0 {
            return Err(Error::RequestStatus(status));
        }
        match code {
            REQ_DEVLIST => Ok(Self::Devlist),
            REQ_IMPORT => Ok(Self::Import),
            REQ_WATCH => Ok(Self::Watch),
            other => Err(Error::Operation(other)),
        }
    }

    /// The request as sent by a client; an import's busid follows separately.
    #[must_use]
    pub fn to_bytes(self) -> [u8; OP_COMMON_LEN] {
        let code = match self {
            Self::Devlist => REQ_DEVLIST,
            Self::Import => REQ_IMPORT,
            Self::Watch => REQ_WATCH,
        };
        common(code, OpStatus::Ok)
    }

    /// The code of the reply.
    const fn reply(self) -> u16 {
        match self {
            Self::Devlist => REP_DEVLIST,
            Self::Import => REP_IMPORT,
            Self::Watch => REP_WATCH,
        }
    }
}

/// `status` of a reply (`tools/usb/usbip/libsrc/usbip_common.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum OpStatus {
    /// ST_OK.
    Ok = 0,
    /// ST_NA: the device could not be exported.
    NotAvailable = 1,
    /// ST_DEV_BUSY: another client or program has the device.
    DeviceBusy = 2,
    /// ST_NODEV: no device has the busid.
    NoDevice = 4,
}

/// The status of a reply other than zero, as a client reads the status: any number of a server's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal(pub u32);

impl Refusal {
    /// ST_DEV_BUSY.
    pub const BUSY: Self = Self(OpStatus::DeviceBusy as u32);
    /// ST_NODEV.
    pub const NO_DEVICE: Self = Self(OpStatus::NoDevice as u32);
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("not available"),
            2 => f.write_str("in use by another client or program"),
            3 => f.write_str("the device has failed"),
            4 => f.write_str("no such device"),
            5 => f.write_str("the server has failed"),
            other => write!(f, "status {other}"),
        }
    }
}

/// A `usb_device` record: the description of a device before the client attaches the device.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the field names are those of usbip_protocol.rst and USB 2.0")]
pub struct UsbDevice {
    /// The device's place on its server, cut at 255 bytes. Shown to users, otherwise unused.
    pub path: String,
    pub busid: BusId,
    pub busnum: u8,
    pub devnum: u8,
    pub speed: Speed,
    pub id_vendor: u16,
    pub id_product: u16,
    pub bcd_device: u16,
    pub device_class: u8,
    pub device_sub_class: u8,
    pub device_protocol: u8,
    /// Zero when the device is not configured.
    pub configuration_value: u8,
    pub num_configurations: u8,
    /// One record for each interface of the active configuration, by number, in alternate setting
    /// 0.
    pub interfaces: Vec<UsbInterface>,
}

/// A `usb_interface` record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the field names are those of USB 2.0, table 9-12")]
pub struct UsbInterface {
    pub class: u8,
    pub sub_class: u8,
    pub protocol: u8,
}

impl UsbDevice {
    fn emit(&self, out: &mut Vec<u8>) {
        let path = self.path.as_bytes();
        let path = &path[..path.len().min(PATH_LEN - 1)];
        out.put_slice(path);
        out.put_bytes(0, PATH_LEN - path.len());
        out.put_slice(self.busid.as_wire());
        out.put_u32(self.busnum.into());
        out.put_u32(self.devnum.into());
        out.put_u32(self.speed as u32);
        out.put_u16(self.id_vendor);
        out.put_u16(self.id_product);
        out.put_u16(self.bcd_device);
        out.put_u8(self.device_class);
        out.put_u8(self.device_sub_class);
        out.put_u8(self.device_protocol);
        out.put_u8(self.configuration_value);
        out.put_u8(self.num_configurations);
        out.put_u8(self.num_interfaces());
    }

    /// bNumInterfaces, which says how many interface records follow in a DEVLIST reply.
    fn num_interfaces(&self) -> u8 {
        u8::try_from(self.interfaces.len()).unwrap_or(u8::MAX)
    }
}

/// Emits OP_REP_DEVLIST, with `devices` in the given order.
pub fn emit_devlist<'a>(devices: impl ExactSizeIterator<Item = &'a UsbDevice>, out: &mut Vec<u8>) {
    out.put_slice(&common(REP_DEVLIST, OpStatus::Ok));
    out.put_u32(u32::try_from(devices.len()).unwrap_or(u32::MAX));
    for device in devices {
        device.emit(out);
        for interface in device.interfaces.iter().take(device.num_interfaces().into()) {
            out.put_slice(&[interface.class, interface.sub_class, interface.protocol, 0]);
        }
    }
}

/// Emits OP_REP_DEVLIST without a list, with the reason as status.
pub fn emit_no_devlist(status: OpStatus, out: &mut Vec<u8>) {
    out.put_slice(&common(REP_DEVLIST, status));
}

/// Emits OP_REP_IMPORT: the imported device, or the reason of the refusal.
pub fn emit_import(result: Result<&UsbDevice, OpStatus>, out: &mut Vec<u8>) {
    match result {
        Ok(device) => {
            out.put_slice(&common(REP_IMPORT, OpStatus::Ok));
            device.emit(out);
        }
        Err(status) => out.put_slice(&common(REP_IMPORT, status)),
    }
}

/// Replies as a client reads them.
pub mod client {
    use std::fmt;

    use bytes::Buf;

    use super::{
        BUS_ID_LEN, Error, OP_COMMON_LEN, PATH_LEN, Refusal, Request, USB_DEVICE_LEN, VERSION,
        split_common,
    };
    use crate::wire::types::{BusId, DevId};

    /// Why a reply has no contents.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum ReplyError {
        /// The bytes are no reply to the request.
        Malformed(Error),
        /// The server refuses.
        Refused(Refusal),
    }

    impl std::error::Error for ReplyError {}

    impl fmt::Display for ReplyError {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self {
                Self::Malformed(error) => error.fmt(f),
                Self::Refused(refusal) => write!(f, "refused: {refusal}"),
            }
        }
    }

    /// Checks the `op_common` of a reply to `request`.
    ///
    /// # Errors
    /// Another version or operation, or the status of a server's refusal.
    pub fn parse_common(bytes: &[u8; OP_COMMON_LEN], request: Request) -> Result<(), ReplyError> {
        let (version, code, status) = split_common(bytes);
        if version != VERSION {
            return Err(ReplyError::Malformed(Error::Version(version)));
        }
        if code != request.reply() {
            return Err(ReplyError::Malformed(Error::Operation(code)));
        }
        if status == 0 { Ok(()) } else { Err(ReplyError::Refused(Refusal(status))) }
    }

    /// A remote device; numbers are unchecked.
    #[derive(Clone, PartialEq, Eq, Debug)]
    #[allow(missing_docs, reason = "the field names are those of usbip_protocol.rst")]
    pub struct RemoteDevice {
        /// With any character that the server has sent; not for a terminal.
        pub path: String,
        pub busid: BusId,
        pub busnum: u32,
        pub devnum: u32,
        pub speed: u32,
        pub id_vendor: u16,
        pub id_product: u16,
        pub device_class: [u8; 3],
        /// Number of interface records behind the device record.
        pub num_interfaces: u8,
    }

    impl RemoteDevice {
        /// The device's name in each PDU. Numbers are cut to eight bits, as by the stock tool
        /// (`usbip_vhci_attach_device` of `vhci_driver.c`), to which servers are used.
        #[must_use]
        pub const fn devid(&self) -> DevId {
            DevId::new(self.busnum.to_be_bytes()[3], self.devnum.to_be_bytes()[3])
        }
    }

    /// Reads one `usb_device` record. Cannot fail: a reader accepts any value.
    #[must_use]
    pub fn parse_device(bytes: &[u8; USB_DEVICE_LEN]) -> RemoteDevice {
        let (path, mut rest) = bytes.split_at(PATH_LEN);
        let path_len = path.iter().position(|&b| b == 0).unwrap_or(PATH_LEN);
        let mut busid = [0; BUS_ID_LEN];
        rest.copy_to_slice(&mut busid);
        let (busnum, devnum) = (rest.get_u32(), rest.get_u32());
        let speed = rest.get_u32();
        let (id_vendor, id_product, _bcd_device) = (rest.get_u16(), rest.get_u16(), rest.get_u16());
        let device_class = [rest.get_u8(), rest.get_u8(), rest.get_u8()];
        let (_configuration, _configurations) = (rest.get_u8(), rest.get_u8());
        RemoteDevice {
            path: String::from_utf8_lossy(&path[..path_len]).into_owned(),
            busid: BusId::from_wire(&busid),
            busnum,
            devnum,
            speed,
            id_vendor,
            id_product,
            device_class,
            num_interfaces: rest.get_u8(),
        }
    }
}

pub(super) fn common(code: u16, status: OpStatus) -> [u8; OP_COMMON_LEN] {
    let mut bytes = [0; OP_COMMON_LEN];
    let mut out = &mut bytes[..];
    out.put_u16(VERSION);
    out.put_u16(code);
    out.put_u32(status as u32);
    bytes
}

fn split_common(bytes: &[u8; OP_COMMON_LEN]) -> (u16, u16, u32) {
    let [v0, v1, c0, c1, s0, s1, s2, s3] = *bytes;
    (
        u16::from_be_bytes([v0, v1]),
        u16::from_be_bytes([c0, c1]),
        u32::from_be_bytes([s0, s1, s2, s3]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::types::DevId;

    fn device() -> UsbDevice {
        UsbDevice {
            path: "/sys/devices/pci0000:00/usb1/1-2".to_owned(),
            busid: BusId::new("1-2").unwrap(),
            busnum: 1,
            devnum: 2,
            speed: Speed::High,
            id_vendor: 0x0525,
            id_product: 0xa4a0,
            bcd_device: 0x0612,
            device_class: 0xff,
            device_sub_class: 1,
            device_protocol: 2,
            configuration_value: 3,
            num_configurations: 4,
            interfaces: vec![
                UsbInterface { class: 8, sub_class: 6, protocol: 0x50 },
                UsbInterface { class: 3, sub_class: 1, protocol: 1 },
            ],
        }
    }

    #[test]
    fn requests_parse() {
        let devlist = [0x01, 0x11, 0x80, 0x05, 0, 0, 0, 0];
        let import = [0x01, 0x11, 0x80, 0x03, 0, 0, 0, 0];
        assert_eq!(Request::parse(&devlist), Ok(Request::Devlist));
        assert_eq!(Request::parse(&import), Ok(Request::Import));
        assert_eq!(Request::Devlist.to_bytes(), devlist);
        assert_eq!(Request::Import.to_bytes(), import);
        assert_eq!(Request::parse(&Request::Watch.to_bytes()), Ok(Request::Watch));
    }

    #[test]
    fn wrong_requests_have_distinct_errors() {
        let parse = |version: u16, code: u16, status: u32| {
            let mut bytes = [0; 8];
            let mut out = &mut bytes[..];
            out.put_u16(version);
            out.put_u16(code);
            out.put_u32(status);
            Request::parse(&bytes)
        };
        assert_eq!(parse(0x0106, 0x8005, 0), Err(Error::Version(0x0106)));
        assert_eq!(parse(0x0111, 0x8005, 1), Err(Error::RequestStatus(1)));
        for code in [0x8002, 0x8004, 0x8006, 0x0005, 0x0003, 0] {
            assert_eq!(parse(0x0111, code, 0), Err(Error::Operation(code)));
        }
    }

    #[test]
    fn devlist_has_the_layout_of_the_kernel_documentation() {
        let device = device();
        let mut out = Vec::new();
        emit_devlist([&device].into_iter(), &mut out);
        assert_eq!(out.len(), 12 + 312 + 2 * 4);
        assert_eq!(out[..12], [0x01, 0x11, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1]);
        let record = &out[12..];
        assert_eq!(&record[..32], device.path.as_bytes());
        assert!(record[32..256].iter().all(|&b| b == 0));
        assert_eq!(&record[0x100..0x104], b"1-2\0");
        let numbers = [
            0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, // busnum, devnum, speed
            0x05, 0x25, 0xa4, 0xa0, 0x06, 0x12, // vendor, product, release
            0xff, 1, 2, 3, 4, 2, // class triple, configuration, configurations, interfaces
            8, 6, 0x50, 0, 3, 1, 1, 0, // interface records
        ];
        assert_eq!(record[0x120..], numbers);
    }

    #[test]
    fn empty_devlist_is_twelve_bytes() {
        let mut out = Vec::new();
        emit_devlist([].into_iter(), &mut out);
        assert_eq!(out, [0x01, 0x11, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn import_reply_has_no_interface_records_and_a_refusal_no_device() {
        let device = device();
        let mut out = Vec::new();
        emit_import(Ok(&device), &mut out);
        assert_eq!(out.len(), 320);
        out.clear();
        emit_import(Err(OpStatus::NoDevice), &mut out);
        assert_eq!(out, [0x01, 0x11, 0, 3, 0, 0, 0, 4]);
    }

    #[test]
    fn a_path_too_long_is_cut_before_its_nul() {
        let device = UsbDevice { path: "x".repeat(300), ..device() };
        let mut out = Vec::new();
        emit_import(Ok(&device), &mut out);
        assert_eq!(out.len(), 320);
        assert_eq!((out[8 + 254], out[8 + 255]), (b'x', 0));
    }

    #[test]
    fn a_client_reads_the_servers_record() {
        let device = device();
        let mut out = Vec::new();
        emit_devlist([&device].into_iter(), &mut out);
        let common = out[..8].try_into().unwrap();
        assert_eq!(client::parse_common(common, Request::Devlist), Ok(()));
        let remote = client::parse_device(out[12..12 + USB_DEVICE_LEN].try_into().unwrap());
        assert_eq!(remote.busid, device.busid);
        assert_eq!(remote.path, device.path);
        assert_eq!(remote.speed, 3);
        assert_eq!((remote.id_vendor, remote.id_product), (0x0525, 0xa4a0));
        assert_eq!((remote.device_class, remote.num_interfaces), ([0xff, 1, 2], 2));
        assert_eq!(remote.devid(), DevId::new(1, 2));
    }

    #[test]
    fn a_refusal_is_told_from_another_reply() {
        use client::ReplyError::{Malformed, Refused};
        let parse = |bytes: [u8; 8]| client::parse_common(&bytes, Request::Import).unwrap_err();
        let refused = parse([0x01, 0x11, 0, 3, 0, 0, 0, 4]);
        assert_eq!(refused, Refused(Refusal::NO_DEVICE));
        assert_eq!(refused.to_string(), "refused: no such device");
        assert_eq!(parse([0x01, 0x11, 0, 3, 0, 0, 0, 9]).to_string(), "refused: status 9");
        assert_eq!(parse([0x01, 0x11, 0, 5, 0, 0, 0, 0]), Malformed(Error::Operation(5)));
        assert_eq!(parse([0x01, 0x06, 0, 3, 0, 0, 0, 0]), Malformed(Error::Version(0x0106)));
    }

    /// The stock tool cuts the numbers, and so must every client: servers check the devid.
    #[test]
    fn large_numbers_of_a_remote_device_are_cut() {
        let mut record = [0; USB_DEVICE_LEN];
        record[0x120..0x128].copy_from_slice(&[0, 0, 1, 2, 0, 0, 3, 4]);
        assert_eq!(client::parse_device(&record).devid(), DevId::new(2, 4));
    }
}
