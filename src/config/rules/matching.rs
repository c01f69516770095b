//! Which devices a rule is about.
//!
//! Contract: plain data and pure functions.

use std::fmt;

use crate::usb::{DeviceInfo, class};
use crate::wire::types::BusId;
use crate::words::printable;

/// The kind of a device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ids {
    /// idVendor.
    pub vendor: u16,
    /// idProduct.
    pub product: u16,
}

impl Ids {
    /// The kind of a device of a scan.
    #[must_use]
    pub const fn of(info: &DeviceInfo) -> Self {
        Self { vendor: info.device.id_vendor, product: info.device.id_product }
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.product)
    }
}

/// The devices of a rule: everything given must hold, and nothing given means every device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Match {
    /// The place.
    pub busid: Option<BusId>,
    /// The kind, or the kinds that one device has in turn, such as a bootloader's and a program's.
    /// Empty for any kind.
    pub ids: Vec<Ids>,
    /// The text of iSerialNumber.
    pub serial: Option<String>,
    /// bDeviceClass, or bInterfaceClass of an interface.
    pub class: Option<u8>,
    /// The kernel driver of an interface.
    pub driver: Option<String>,
}

impl Match {
    /// Whether a device is meant.
    #[must_use]
    pub fn fits(&self, info: &DeviceInfo) -> bool {
        let Self { busid, ids, serial, class, driver } = self;
        busid.is_none_or(|busid| info.device.busid == busid)
            && (ids.is_empty() || ids.contains(&Ids::of(info)))
            && serial.as_ref().is_none_or(|serial| info.serial.as_ref() == Some(serial))
            && class.is_none_or(|class| has_class(info, class))
            && driver.as_ref().is_none_or(|driver| has_driver(info, driver))
    }

    /// Whether the device is named by its place, its kind or its serial number, and so is meant
    /// even where devices are left out that nobody can have meant.
    #[must_use]
    pub const fn names_a_device(&self) -> bool {
        self.busid.is_some() || !self.ids.is_empty() || self.serial.is_some()
    }

    /// Whether each device that `other` means is meant, as far as that can be said without a device.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let Self { busid, ids, serial, class, driver } = self;
        let has_ids = || !other.ids.is_empty() && other.ids.iter().all(|one| ids.contains(one));
        (busid.is_none() || *busid == other.busid)
            && (ids.is_empty() || has_ids())
            && (serial.is_none() || *serial == other.serial)
            && (class.is_none() || *class == other.class)
            && (driver.is_none() || *driver == other.driver)
    }

    /// Whether every device is meant.
    #[must_use]
    pub fn is_every(&self) -> bool {
        *self == Self::default()
    }
}

fn has_class(info: &DeviceInfo, class: u8) -> bool {
    info.device.device_class == class
        || info.device.interfaces.iter().any(|interface| interface.class == class)
}

fn has_driver(info: &DeviceInfo, driver: &str) -> bool {
    info.drivers.iter().any(|bound| bound.driver == driver)
}

impl fmt::Display for Match {
    /// The typed form where there is one, else all parts with commas.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { busid, ids, serial, class, driver } = self;
        let kinds = ids.iter().map(Ids::to_string).collect::<Vec<_>>().join(",");
        let serial = serial.as_ref().map(|serial| printable(serial));
        let mut parts: Vec<String> = busid.iter().map(BusId::to_string).collect();
        match serial {
            Some(serial) if ids.len() == 1 => parts.push(format!("{kinds}:{serial}")),
            serial => {
                parts.extend(Some(kinds).filter(|kinds| !kinds.is_empty()));
                parts.extend(serial.map(|serial| format!("serial:{serial}")));
            }
        }
        parts.extend(class.map(|class| match class::name(class) {
            "other" => format!("class:{class:02x}"),
            name => format!("class:{name}"),
        }));
        parts.extend(driver.iter().map(|driver| format!("driver:{}", printable(driver))));
        if parts.is_empty() { f.write_str("every device") } else { f.write_str(&parts.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::info;
    use super::*;
    use crate::usb::Bound;
    use crate::wire::op::UsbInterface;

    fn fits(text: &str, info: &DeviceInfo) -> bool {
        text.parse::<Match>().unwrap().fits(info)
    }

    #[test]
    fn a_device_is_named_by_each_of_its_marks() {
        let mut device = info("1-2.3", 0, false);
        device.device.interfaces.push(UsbInterface { class: 8, sub_class: 6, protocol: 0x50 });
        device.drivers.push(Bound { interface: 0, driver: "usb-storage".to_owned() });
        let names = ["1-2.3", "0781:5567", "0781:5567:ab:c", "serial:ab:c"];
        let kinds = ["class:storage", "class:08", "driver:usb-storage", "0483:df11,0781:5567"];
        for text in names.into_iter().chain(kinds) {
            assert!(fits(text, &device), "{text}");
        }
        let others = ["1-2", "0781:5568", "0781:5567:ab", "serial:ab", "class:audio", "driver:uas"];
        for text in others.into_iter().chain(["0483:df11,0483:5740"]) {
            assert!(!fits(text, &device), "{text}");
        }
        for (text, is_name) in names.map(|t| (t, true)).into_iter().chain([("class:08", false)]) {
            assert_eq!(text.parse::<Match>().unwrap().names_a_device(), is_name, "{text}");
        }
    }

    #[test]
    fn all_parts_of_a_match_must_hold() {
        let device = info("1-2.3", 3, false);
        let place: Match = "1-2.3".parse().unwrap();
        for (class, expected) in [(3, true), (8, false)] {
            let both = Match { class: Some(class), ..place.clone() };
            assert_eq!(both.fits(&device), expected);
        }
        assert!(Match::default().fits(&device) && Match::default().is_every());
    }

    #[test]
    fn a_match_is_shown_as_typed() {
        for text in [
            "1-2.3",
            "0781:5567",
            "0781:5567:AB",
            "2e8a:0003,2e8a:000a",
            "serial:AB",
            "class:storage",
            "class:5a",
            "driver:uas",
        ] {
            assert_eq!(text.parse::<Match>().unwrap().to_string(), text);
        }
        let both = Match { class: Some(8), ..("1-2".parse().unwrap()) };
        assert_eq!(both.to_string(), "1-2, class:storage");
        assert_eq!(Match::default().to_string(), "every device");
    }
}
