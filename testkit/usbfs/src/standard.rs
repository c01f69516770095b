//! The default device, unless options describe another.
//!
//! | endpoint | interface | function |
//! | --- | --- | --- |
//! | 0x81 bulk IN | 0 | source |
//! | 0x01 bulk OUT | 0 | sink |
//! | 0x83 interrupt IN | 0 | a counter, eight bytes little-endian, every 8 ms |
//! | 0x84 interrupt IN | 0 | silent: never has data |
//! | 0x86 bulk IN | 0 | silent likewise |
//! | 0x85 isochronous IN | 1, setting 1 | source of up to 3072 bytes a packet |
//! | 0x05 isochronous OUT | 1, setting 1 | sink |
//!
//! The addresses are the same as in usbferry's own simulated loopback, so a client suits both
//! devices.

/// idVendor and idProduct, reserved for tests by pid.codes.
const ID_VENDOR: [u8; 2] = 0x1209_u16.to_le_bytes();
const ID_PRODUCT: [u8; 2] = 0x0010_u16.to_le_bytes();

/// The behaviour of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Behaviour {
    Flows,
    Ticks,
    Silent,
}

/// The behaviour of the default device's endpoints.
pub(crate) const fn behaviour(endpoint: u8) -> Behaviour {
    match endpoint {
        0x83 => Behaviour::Ticks,
        0x84 | 0x86 => Behaviour::Silent,
        _ => Behaviour::Flows,
    }
}

/// The device descriptor.
#[rustfmt::skip]
pub(crate) const DEVICE_DESCRIPTOR: [u8; 18] = [
    18, 1, 0, 2, 0, 0, 0, 64,
    ID_VENDOR[0], ID_VENDOR[1], ID_PRODUCT[0], ID_PRODUCT[1], 0, 1,
    1, 2, 3, 1,
];

/// The whole configuration: its descriptor and all descriptors behind.
#[rustfmt::skip]
pub(crate) const CONFIGURATION: [u8; 85] = [
    9, 2, 85, 0, 2, 1, 0, 0x80, 50,
    9, 4, 0, 0, 5, 0xff, 0, 0, 0,
    7, 5, 0x81, 2, 0, 2, 0,
    7, 5, 0x01, 2, 0, 2, 0,
    7, 5, 0x83, 3, 64, 0, 7,
    7, 5, 0x84, 3, 64, 0, 7,
    7, 5, 0x86, 2, 0, 2, 0,
    9, 4, 1, 0, 0, 0xff, 0, 0, 0,
    9, 4, 1, 1, 2, 0xff, 0, 0, 0,
    7, 5, 0x85, 1, 0, 0x14, 1,
    7, 5, 0x05, 1, 0, 0x14, 1,
];

/// Device and configuration descriptor of the root hub.
#[rustfmt::skip]
pub(crate) const ROOT_HUB: [u8; 43] = [
    18, 1, 0, 2, 9, 0, 1, 64, 0x6b, 0x1d, 2, 0, 0, 6, 0, 0, 0, 1,
    9, 2, 25, 0, 1, 1, 0, 0xe0, 0,
    9, 4, 0, 0, 1, 9, 0, 0, 0,
    7, 5, 0x81, 3, 4, 0, 12,
];

/// Manufacturer, product and, without the device's number, serial number.
pub(crate) const STRINGS: [&str; 3] = ["usbferry", "Simulated usbfs device", "usbfs-"];
