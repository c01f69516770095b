//! Which clients may connect, and which devices are exported.
//!
//! Contract: plain data and pure functions.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::usb::DeviceInfo;
use crate::wire::types::BusId;

/// Addresses that may connect beside this machine itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Allowed(pub Vec<IpNet>);

impl Allowed {
    /// Whether a client at an address is served.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        // A socket for both protocols shows IPv4 clients as ::ffff:a.b.c.d.
        let address = address.to_canonical();
        address.is_loopback() || self.0.iter().any(|net| net.contains(&address))
    }
}

/// Names devices, by place or by kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeviceSpec {
    /// The place, a busid such as `1-2.3`.
    BusId(BusId),
    /// The kind, and the serial number if several devices are alike.
    Ids {
        /// idVendor.
        vendor: u16,
        /// idProduct.
        product: u16,
        /// The text of iSerialNumber.
        serial: Option<String>,
    },
}

impl DeviceSpec {
    fn matches(&self, info: &DeviceInfo) -> bool {
        match self {
            Self::BusId(busid) => info.device.busid == *busid,
            Self::Ids { vendor, product, serial } => {
                (info.device.id_vendor, info.device.id_product) == (*vendor, *product)
                    && serial.as_ref().is_none_or(|serial| info.serial.as_ref() == Some(serial))
            }
        }
    }
}

/// A text that names no device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceSpecError(String);

impl std::error::Error for DeviceSpecError {}

impl fmt::Display for DeviceSpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" names no device: give a busid as \"usbferry list\" shows it (1-2.3), or \
             VID:PID or VID:PID:SERIAL with four hexadecimal digits each (0781:5567)",
            self.0.escape_debug()
        )
    }
}

impl FromStr for DeviceSpec {
    type Err = DeviceSpecError;

    fn from_str(text: &str) -> Result<Self, DeviceSpecError> {
        let error = || DeviceSpecError(text.to_owned());
        let Some((vendor, rest)) = text.split_once(':') else {
            return BusId::new(text).filter(|_| is_place(text)).map(Self::BusId).ok_or_else(error);
        };
        let (product, serial) = match rest.split_once(':') {
            Some((_, "")) => return Err(error()),
            Some((product, serial)) => (product, Some(serial.to_owned())),
            None => (rest, None),
        };
        let id = |digits: &str| {
            let is_id = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            u16::from_str_radix(digits, 16).ok().filter(|_| is_id).ok_or_else(error)
        };
        Ok(Self::Ids { vendor: id(vendor)?, product: id(product)?, serial })
    }
}

/// Whether a text is a bus and the ports from the bus to a device: `BUS-PORT` or `BUS-PORT.PORT`
/// and so on.
fn is_place(text: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let place = text.split_once('-');
    place.is_some_and(|(bus, ports)| is_number(bus) && ports.split('.').all(is_number))
}

/// The choice of exported devices.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selection {
    /// Every device except hubs and devices that came in over USB/IP.
    pub all: bool,
    /// Devices exported in any case, unless a hub.
    pub devices: Vec<DeviceSpec>,
    /// Devices never exported.
    pub exclude: Vec<DeviceSpec>,
}

impl Selection {
    /// Whether a device is exported.
    #[must_use]
    pub fn exports(&self, info: &DeviceInfo) -> bool {
        let named = |specs: &[DeviceSpec]| specs.iter().any(|spec| spec.matches(info));
        !info.is_hub()
            && !named(&self.exclude)
            && (named(&self.devices) || self.all && !info.imported)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::op::UsbDevice;
    use crate::wire::types::Speed;

    fn info(busid: &str, class: u8, imported: bool) -> DeviceInfo {
        DeviceInfo {
            device: UsbDevice {
                path: String::new(),
                busid: BusId::new(busid).unwrap(),
                busnum: 1,
                devnum: 1,
                speed: Speed::High,
                id_vendor: 0x0781,
                id_product: 0x5567,
                bcd_device: 0,
                device_class: class,
                device_sub_class: 0,
                device_protocol: 0,
                configuration_value: 1,
                num_configurations: 1,
                interfaces: Vec::new(),
            },
            manufacturer: None,
            product: None,
            serial: Some("ab:c".to_owned()),
            drivers: Vec::new(),
            imported,
        }
    }

    fn spec(text: &str) -> DeviceSpec {
        text.parse().unwrap()
    }

    #[test]
    fn specs_name_devices_by_place_and_by_ids() {
        let device = info("1-2.3", 0, false);
        for matching in ["1-2.3", "0781:5567", "0781:5567:ab:c"] {
            assert!(spec(matching).matches(&device), "{matching}");
        }
        for other in ["1-2", "0781:5568", "0781:5567:ab"] {
            assert!(!spec(other).matches(&device), "{other}");
        }
    }

    #[test]
    fn wrong_specs_are_explained() {
        let ids = ["781:5567", "0781:", "0781:5567:", "0x781:5567", "1-2:3", "+781:5567"];
        let busids = ["1-", "-", "-1", "...-", "1-2.3.", "1-.2", "1.2-3", "1-2-3", "1-2..3"];
        for wrong in ["", "stick"].into_iter().chain(ids).chain(busids) {
            let error = wrong.parse::<DeviceSpec>().unwrap_err().to_string();
            assert!(error.contains("usbferry list"), "{error}");
        }
        for busid in ["1-2", "10-1.14.3"] {
            assert_eq!(spec(busid), DeviceSpec::BusId(BusId::new(busid).unwrap()));
        }
    }

    #[test]
    fn all_leaves_out_hubs_and_imported_devices_but_a_name_brings_those_back() {
        let all = Selection { all: true, ..Selection::default() };
        assert!(all.exports(&info("1-1", 0, false)));
        assert!(!all.exports(&info("1-1", 9, false)));
        assert!(!all.exports(&info("1-1", 0, true)));
        let named = Selection { devices: vec![spec("1-1")], ..Selection::default() };
        assert!(named.exports(&info("1-1", 0, true)));
        assert!(!named.exports(&info("1-1", 9, false)), "never a hub");
        assert!(!named.exports(&info("1-2", 0, false)));
    }

    #[test]
    fn exclusion_beats_selection() {
        let selection =
            Selection { all: true, devices: vec![spec("1-1")], exclude: vec![spec("0781:5567")] };
        assert!(!selection.exports(&info("1-1", 0, false)));
        assert!(!Selection::default().exports(&info("1-1", 0, false)), "nothing by itself");
    }

    #[test]
    fn loopback_may_always_connect_and_others_only_when_allowed() {
        let allowed = Allowed(vec!["192.168.4.0/24".parse().unwrap()]);
        for (address, expected) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("192.168.4.7", true),
            ("::ffff:192.168.4.7", true),
            ("192.168.5.7", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(allowed.contains(address.parse().unwrap()), expected, "{address}");
        }
    }
}
