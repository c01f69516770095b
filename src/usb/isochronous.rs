//! The isochronous endpoints of a device, in all settings and not only in those in force.
//!
//! A client may send URBs behind a request not yet carried out, for endpoints made isochronous only
//! by the request. Packet descriptors follow only a URB on an isochronous endpoint. So the URB's
//! end in the stream depends on future settings, either of interfaces of the active configuration,
//! or of another configuration.
//!
//! Contract: plain data; built when a device is opened, and never changed.

use super::descriptor::places_of;
use super::{Alternate, Configuration};
use crate::wire::types::{EndpointAddress, TransferType};

/// The isochronous endpoints of a device by setting.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IsochronousSettings {
    settings: Box<[Setting]>,
    /// Endpoints of some setting, but isochronous in none; a bit each.
    never: u32,
}

/// A setting with isochronous endpoints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Setting {
    /// bConfigurationValue.
    configuration: u8,
    /// bInterfaceNumber.
    interface: u8,
    /// bAlternateSetting.
    alternate: u8,
    /// Whether the setting is in force after SET_CONFIGURATION.
    is_first: bool,
    /// The isochronous endpoints, a bit each.
    endpoints: u32,
}

impl IsochronousSettings {
    /// The settings of a device with the given configurations, each in its state after
    /// SET_CONFIGURATION.
    #[must_use]
    pub fn of<'a>(configurations: impl IntoIterator<Item = &'a Configuration>) -> Self {
        let mut settings = Vec::new();
        let mut all = 0;
        for configuration in configurations {
            for interface in &configuration.interfaces {
                all |= interface.alternates.iter().fold(0, |all, alternate| all | any(alternate));
                settings.extend(interface.alternates.iter().map(|alternate| Setting {
                    configuration: configuration.value,
                    interface: interface.number,
                    alternate: alternate.setting,
                    is_first: alternate.setting == interface.current,
                    endpoints: isochronous(alternate),
                }));
            }
        }
        settings.retain(|setting| setting.endpoints != 0);
        let ever = settings.iter().fold(0, |ever, setting| ever | setting.endpoints);
        Self { settings: settings.into_boxed_slice(), never: all & !ever }
    }

    /// Whether no setting has any.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.settings.is_empty()
    }

    /// Endpoints that are isochronous after SET_CONFIGURATION of the given value; a bit each.
    #[must_use]
    pub fn of_configuration(&self, value: u8) -> u32 {
        self.union(|setting| setting.configuration == value && setting.is_first)
    }

    /// Endpoints that are isochronous in the given setting of an interface, in the given
    /// configuration or, for `None`, in any configuration; a bit each.
    #[must_use]
    pub fn of_setting(&self, configuration: Option<u8>, interface: u8, alternate: u8) -> u32 {
        self.union(|setting| {
            configuration.is_none_or(|value| setting.configuration == value)
                && (setting.interface, setting.alternate) == (interface, alternate)
        })
    }

    /// Whether an endpoint exists, and is isochronous in no setting.
    #[must_use]
    pub const fn is_never(&self, endpoint: EndpointAddress) -> bool {
        self.never & endpoint.bit() != 0
    }

    fn union(&self, is_meant: impl Fn(&Setting) -> bool) -> u32 {
        let meant = self.settings.iter().filter(|setting| is_meant(setting));
        meant.fold(0, |set, setting| set | setting.endpoints)
    }
}

/// The endpoints of a setting, a bit each.
fn any(alternate: &Alternate) -> u32 {
    let endpoints = alternate.endpoints.iter();
    endpoints.fold(0, |set, one| set | places_of(one.address, one.transfer_type))
}

/// The isochronous endpoints of a setting. Endpoint 0 is always the default endpoint, regardless of
/// descriptors.
fn isochronous(alternate: &Alternate) -> u32 {
    let endpoints = alternate.endpoints.iter().filter(|endpoint| {
        endpoint.transfer_type == TransferType::Isochronous && endpoint.address.number() != 0
    });
    endpoints.fold(0, |set, endpoint| set | endpoint.address.bit())
}

#[cfg(test)]
mod tests {
    use super::super::descriptor::{Host, parse_configuration};
    use super::*;
    use crate::wire::types::Speed;

    const fn bit(address: u8) -> u32 {
        EndpointAddress::from_byte(address).bit()
    }

    fn parse(bytes: &[u8]) -> Configuration {
        parse_configuration(bytes, Host::at(Speed::High)).expect("it is one")
    }

    #[test]
    fn endpoints_are_found_by_configuration_interface_and_setting() {
        let first = parse(&[
            9, 2, 73, 0, 2, 1, 0, 0x80, 50, // configuration 1
            9, 4, 0, 0, 1, 255, 0, 0, 0, 7, 5, 0x81, 1, 64, 0, 1, // isochronous in setting 0
            9, 4, 1, 0, 0, 255, 0, 0, 0, // interface 1 has none there
            9, 4, 1, 1, 2, 255, 0, 0, 0, 7, 5, 0x02, 5, 64, 0, 1, 7, 5, 0x83, 2, 64, 0, 1, 9, 4, 1,
            2, 1, 255, 0, 0, 0, 7, 5, 0x80, 1, 64, 0, 1, // not a real address
        ]);
        let second = parse(&[
            9, 2, 25, 0, 1, 2, 0, 0x80, 50, // configuration 2, without a setting 0
            9, 4, 1, 1, 1, 255, 0, 0, 0, 7, 5, 0x84, 1, 64, 0, 1,
        ]);
        let settings = IsochronousSettings::of([&first, &second]);
        assert_eq!(settings.of_configuration(1), bit(0x81));
        assert_eq!(settings.of_configuration(2), bit(0x84), "the first there is");
        assert_eq!(settings.of_configuration(3), 0);
        assert_eq!(settings.of_setting(Some(1), 1, 1), bit(0x02));
        assert_eq!(settings.of_setting(Some(2), 1, 1), bit(0x84));
        assert_eq!(settings.of_setting(None, 1, 1), bit(0x02) | bit(0x84));
        assert_eq!(settings.of_setting(Some(1), 1, 2), 0, "endpoint 0 is never isochronous");
        assert_eq!(settings.of_setting(Some(1), 7, 0), 0);
        let never = [0x83, 0x81, 0x02, 0x84, 0x03].map(EndpointAddress::from_byte);
        assert_eq!(never.map(|one| settings.is_never(one)), [true, false, false, false, false]);
    }
}
