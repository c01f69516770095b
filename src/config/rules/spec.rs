//! Devices as typed: the text of `--device`, and what a wrong text was probably meant to be.
//!
//! | text | devices |
//! | --- | --- |
//! | `1-2.3` | the device in this place |
//! | `0781:5567` | all devices of this kind |
//! | `2e8a:0003,2e8a:000a` | one device that comes as several kinds, in turn |
//! | `0781:5567:SERIAL` | of this kind, the one with this serial number |
//! | `serial:SERIAL` | the device with this serial number |
//! | `class:storage`, `class:08` | devices, or devices with an interface, of this class |
//! | `driver:usb-storage` | devices of which this kernel driver has an interface |
//!
//! Contract: pure, total.

use std::fmt;
use std::str::FromStr;

pub use super::error::DeviceSpecError;
use super::matching::{Ids, Match};
use super::text::{parse_driver, parse_serial};
use crate::config::name::{Nickname, is_place};
use crate::limits::RULE_IDS_MAX;
use crate::usb::class;
use crate::wire::types::BusId;

/// Largest number of a bus: the protocol's clients keep eight bits
/// ([`DevId`](crate::wire::types::DevId)).
const BUS_MAX: u32 = u8::MAX as u32;

/// Largest number of a hub's port (`USB_MAXCHILDREN` of `include/uapi/linux/usb/ch11.h`).
const PORT_MAX: u32 = 31;

/// Ports between a bus and the deepest device: USB has seven tiers, the first for the bus itself
/// (USB 2.0, section 4.1.1; `MAX_TOPO_LEVEL` of `drivers/usb/core/hub.c`).
pub(super) const PORTS_MAX: usize = 6;

/// A device with the name to give: `SPEC` or `NAME=SPEC`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceSpec {
    /// The name, if any.
    pub name: Option<Nickname>,
    /// The device, or the devices.
    pub matches: Match,
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.iter().try_for_each(|name| write!(f, "{name}="))?;
        self.matches.fmt(f)
    }
}

impl FromStr for DeviceSpec {
    type Err = DeviceSpecError;

    /// A name never has a colon, and every text of a device with an equals sign has a colon before
    /// it.
    fn from_str(text: &str) -> Result<Self, DeviceSpecError> {
        let Some((name, device)) = text.split_once('=').filter(|(name, _)| !name.contains(':'))
        else {
            return Ok(Self { name: None, matches: text.parse()? });
        };
        let matches = device.parse().map_err(|error| match (name, error) {
            ("serial" | "class" | "driver", DeviceSpecError::Form(_)) => {
                DeviceSpecError::Meant(text.to_owned(), format!("{name}:{device}"))
            }
            (_, error) => error,
        })?;
        let name = name.parse().map_err(|error| DeviceSpecError::Name(name.to_owned(), error))?;
        Ok(Self { name: Some(name), matches })
    }
}

impl FromStr for Match {
    type Err = DeviceSpecError;

    fn from_str(text: &str) -> Result<Self, DeviceSpecError> {
        if let Some((key, value)) = text.split_once(':').filter(|(_, value)| !value.is_empty())
            && let Some(found) = parse_keyed(text, key, value)
        {
            return found;
        }
        if text.contains(',') && text.split(',').all(|one| one.parse::<Ids>().is_ok()) {
            return Ok(Self { ids: parse_set(text.split(','))?, ..Self::default() });
        }
        if let Some((ids, serial)) = split_ids(text) {
            return match serial {
                Some("") => Err(meant(text, &ids.to_string())),
                serial => Ok(Self {
                    ids: vec![ids],
                    serial: serial.map(|serial| parse_serial_of(ids, serial)).transpose()?,
                    ..Self::default()
                }),
            };
        }
        Ok(Self { busid: Some(parse_busid(text)?), ..Self::default() })
    }
}

/// A text with one of the keys of devices in front; `None` for another key.
fn parse_keyed(text: &str, key: &str, value: &str) -> Option<Result<Match, DeviceSpecError>> {
    let any = Match::default;
    Some(match key {
        "class" | "driver" if value.contains(',') => Err(guess(text)),
        "serial" => parse_serial(value).map(|serial| Match { serial: Some(serial), ..any() }),
        "driver" => parse_driver(value).map(|driver| Match { driver: Some(driver), ..any() }),
        "class" => parse_class(value).map(|class| Match { class: Some(class), ..any() }),
        _ => return None,
    })
    .map(|found| found.map_err(|error| error.behind(key)))
}

/// The serial number behind a kind. Further kinds behind a comma are no part of a serial number.
fn parse_serial_of(ids: Ids, text: &str) -> Result<String, DeviceSpecError> {
    let is_kind = |part: &str| split_ids(part).is_some();
    if text.split(',').skip(1).any(is_kind) {
        let kinds = text.split(',').filter_map(split_ids).map(|(ids, _)| ids.to_string());
        let kinds: Vec<String> = std::iter::once(ids.to_string()).chain(kinds).collect();
        let serial = text.split(',').next().unwrap_or_default();
        return Err(DeviceSpecError::SetWithSerial(kinds.join(","), serial.to_owned()));
    }
    parse_serial(text).map_err(|error| error.behind(&ids.to_string()))
}

/// A busid as the kernel writes it.
///
/// # Errors
/// No device can have the busid.
pub(crate) fn parse_busid(text: &str) -> Result<BusId, DeviceSpecError> {
    if is_possible_place(text) {
        let ports = text.split('.').count();
        let busid = BusId::new(text).filter(|_| ports <= PORTS_MAX);
        return busid.ok_or_else(|| DeviceSpecError::Deep(text.to_owned()));
    }
    Err(guess(text))
}

/// `VID:PID` in the file, where no other form is expected.
///
/// # Errors
/// No device can have the numbers.
pub(crate) fn parse_ids(text: &str) -> Result<Ids, DeviceSpecError> {
    text.parse().map_err(|()| guess(text))
}

/// The kinds of one device.
///
/// # Errors
/// One of the texts is no `VID:PID`, or there are too many.
pub(crate) fn parse_set<'a>(
    texts: impl Iterator<Item = &'a str>,
) -> Result<Vec<Ids>, DeviceSpecError> {
    let ids = texts.map(parse_ids).collect::<Result<Vec<Ids>, _>>()?;
    if ids.len() > RULE_IDS_MAX { Err(DeviceSpecError::Kinds(ids.len())) } else { Ok(ids) }
}

/// A class by name or by two hexadecimal digits.
///
/// # Errors
/// There is no such class, or its devices are never exported.
pub(crate) fn parse_class(text: &str) -> Result<u8, DeviceSpecError> {
    match class::parse(text) {
        Some(class::HUB) => Err(DeviceSpecError::Hub),
        Some(class) => Ok(class),
        None => Err(DeviceSpecError::Class(text.to_owned())),
    }
}

/// `VID:PID` with whatever follows a second colon; `None` for any other text. What clients ask for
/// has the same form.
pub(crate) fn split_ids(text: &str) -> Option<(Ids, Option<&str>)> {
    let (vendor, rest) = text.split_once(':')?;
    let (product, serial) = match rest.split_once(':') {
        Some((product, serial)) => (product, Some(serial)),
        None => (rest, None),
    };
    Some((Ids { vendor: parse_id(vendor)?, product: parse_id(product)? }, serial))
}

impl FromStr for Ids {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        split_ids(text).filter(|(_, serial)| serial.is_none()).map(|(ids, _)| ids).ok_or(())
    }
}

/// Four hexadecimal digits.
fn parse_id(digits: &str) -> Option<u16> {
    let is_id = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    u16::from_str_radix(digits, 16).ok().filter(|_| is_id)
}

/// Whether the kernel can name a device so: no number has a zero in front, and none is too large.
fn is_possible_place(text: &str) -> bool {
    let is_up_to = |number: &str, most| {
        !number.starts_with('0') && number.parse().is_ok_and(|number: u32| number <= most)
    };
    let place = text.split_once('-').filter(|_| is_place(text));
    place.is_some_and(|(bus, ports)| {
        is_up_to(bus, BUS_MAX) && ports.split('.').all(|port| is_up_to(port, PORT_MAX))
    })
}

fn meant(text: &str, meant: &str) -> DeviceSpecError {
    DeviceSpecError::Meant(text.to_owned(), meant.to_owned())
}

/// What a text that names no device was probably meant to be.
fn guess(text: &str) -> DeviceSpecError {
    if text.contains(',') {
        let wrong = text.split(',').find_map(|one| one.parse::<Match>().err());
        return wrong.unwrap_or_else(|| DeviceSpecError::Several(text.to_owned()));
    }
    if are_numbers(text) {
        return DeviceSpecError::Numbers(text.to_owned());
    }
    if text.starts_with("usb") && text[3..].parse::<u32>().is_ok() {
        return DeviceSpecError::Hub;
    }
    let intent = place_of_interface(text).or_else(|| ids_meant(text)).or_else(|| place_meant(text));
    intent.map_or_else(
        || DeviceSpecError::Form(text.to_owned()),
        |intent| DeviceSpecError::Meant(text.to_owned(), intent),
    )
}

/// `001:004`, `001/004` and `/dev/bus/usb/001/004`: bus and device number with three digits.
fn are_numbers(text: &str) -> bool {
    let text = text.strip_prefix("/dev/bus/usb/").unwrap_or(text);
    let is_number =
        |number: &str| number.len() == 3 && number.bytes().all(|byte| byte.is_ascii_digit());
    let split = text.split_once([':', '/']);
    split.is_some_and(|(bus, device)| is_number(bus) && is_number(device))
}

/// The device of an interface, which Linux calls `1-2:1.0`.
fn place_of_interface(text: &str) -> Option<String> {
    let (device, _interface) = text.split_once(':')?;
    is_possible_place(device).then(|| device.to_owned())
}

/// Two numbers of up to four hexadecimal digits, behind `0x` or not, with any sign between them, or
/// eight digits.
fn ids_meant(text: &str) -> Option<String> {
    let id = |digits: &str| {
        let digits = digits.trim().trim_start_matches("0x").trim_start_matches("0X");
        let is_id = (3..=4).contains(&digits.len());
        let is_id = is_id && digits.bytes().all(|b| b.is_ascii_hexdigit());
        is_id.then(|| format!("{digits:0>4}"))
    };
    let all_digits = text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let (vendor, product) = if all_digits {
        text.split_at(4)
    } else {
        text.split_once(|c: char| !c.is_ascii_alphanumeric())?
    };
    let (product, serial) = product.split_once(':').unwrap_or((product, ""));
    let (vendor, product) = (id(vendor)?, id(product)?);
    let serial = if serial.is_empty() { String::new() } else { format!(":{serial}") };
    Some(format!("{vendor}:{product}{serial}"))
}

/// Numbers with other signs between them than a busid has, or with zeros in front.
fn place_meant(text: &str) -> Option<String> {
    let separator = |c: char| !c.is_ascii_digit();
    let numbers: Vec<&str> =
        text.split(separator).map(|number| number.trim_start_matches('0')).collect();
    let (bus, ports) = numbers.split_first().filter(|(_, ports)| !ports.is_empty())?;
    let place = format!("{bus}-{}", ports.join("."));
    is_possible_place(&place).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Match {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    const STICK: Ids = Ids { vendor: 0x0781, product: 0x5567 };

    #[test]
    fn every_form_is_read() {
        let by = Match::default;
        for (text, expected) in [
            ("1-2", Match { busid: BusId::new("1-2"), ..by() }),
            ("10-1.14.3", Match { busid: BusId::new("10-1.14.3"), ..by() }),
            ("0781:5567", Match { ids: vec![STICK], ..by() }),
            ("0781:5567,0781:5567", Match { ids: vec![STICK, STICK], ..by() }),
            ("0781:5567:a:b", Match { ids: vec![STICK], serial: Some("a:b".to_owned()), ..by() }),
            ("0781:5567:a,b", Match { ids: vec![STICK], serial: Some("a,b".to_owned()), ..by() }),
            ("0781:5567:a=b", Match { ids: vec![STICK], serial: Some("a=b".to_owned()), ..by() }),
            ("serial:1-2", Match { serial: Some("1-2".to_owned()), ..by() }),
            ("class:storage", Match { class: Some(8), ..by() }),
            ("class:FF", Match { class: Some(0xff), ..by() }),
            ("driver:usb-storage", Match { driver: Some("usb-storage".to_owned()), ..by() }),
        ] {
            assert_eq!(parse(text), expected, "{text}");
            let spec: DeviceSpec = text.parse().unwrap();
            assert_eq!(spec, DeviceSpec { name: None, matches: expected.clone() }, "{text}");
            let named: DeviceSpec = format!("stick={text}").parse().unwrap();
            assert_eq!(named, DeviceSpec { name: "stick".parse().ok(), matches: expected });
        }
    }

    #[test]
    fn commas_join_kinds_only() {
        for text in [
            "1-1,1-2",
            "0781:5567,1-1",
            "0781:5567,class:storage",
            "class:storage,0781:5567",
            "driver:usb-storage,1-1",
        ] {
            let several = DeviceSpecError::Several(text.to_owned());
            assert_eq!(text.parse::<DeviceSpec>(), Err(several.clone()));
            assert_eq!(format!("stick={text}").parse::<DeviceSpec>(), Err(several.clone()));
            assert!(several.to_string().contains("repeat --device for each place"));
        }
        let wrong = "0781-5567,0781:5568".parse::<DeviceSpec>();
        assert_eq!(wrong, Err(meant("0781-5567", "0781:5567")));
    }

    #[test]
    fn a_spec_that_can_never_match_is_refused_with_the_likely_intent() {
        for (text, intent) in [
            ("0781-5567", "0781:5567"),
            ("781:5567", "0781:5567"),
            ("0x0781:0x5567", "0781:5567"),
            ("0x781:5567", "0781:5567"),
            ("0781/5567", "0781:5567"),
            ("0781 5567", "0781:5567"),
            ("07815567", "0781:5567"),
            ("0781:5567:", "0781:5567"),
            ("781:5567:A7", "0781:5567:A7"),
            ("1:2.3", "1-2.3"),
            ("1-2-3", "1-2.3"),
            ("1.2-3", "1-2.3"),
            ("01-2", "1-2"),
            ("1-2:1.0", "1-2"),
            ("serial=A7", "serial:A7"),
            ("class=storage", "class:storage"),
        ] {
            let error = text.parse::<DeviceSpec>().unwrap_err();
            assert_eq!(error, meant(text, intent), "{error}");
            assert!(error.to_string().ends_with(&format!("can never match: write {intent}")));
        }
    }

    /// A rule for such a device can be written all the same: in a file, with the key `serial`.
    #[test]
    fn a_serial_number_among_kinds_is_explained() {
        for text in ["1209:0010:same,1209:0011", "1209:0010:same,1209:0011:same"] {
            let error = format!("x={text}").parse::<DeviceSpec>().unwrap_err().to_string();
            assert!(error.contains("write 1209:0010,1209:0011; or"), "{error}");
            assert!(error.contains("serial = \"same\""), "{error}");
        }
        assert!("1209:0010:a,b,c".parse::<DeviceSpec>().is_ok());
    }

    #[test]
    fn a_text_in_front_of_which_a_key_stands_is_refused_with_the_key() {
        for (text, says) in [
            ("serial: A7", "\"serial: A7\" can never match: write serial:A7"),
            ("0781:5567: A7", "\"0781:5567: A7\" can never match: write 0781:5567:A7"),
            ("driver:/sys/bus/usb/drivers/uas", "write driver:uas"),
            ("driver:hub", "hubs are never exported"),
            ("serial: ", "an empty text matches no device"),
            ("serial:\0", "\"\\0\" has a character"),
            ("1-1.2.3.4.5.6.7", "room for 6 ports"),
            ("1-1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1", "room for 6 ports"),
        ] {
            let error = text.parse::<DeviceSpec>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        assert!("1-1.2.3.4.5.6".parse::<DeviceSpec>().is_ok());
    }

    /// Whatever is taken can match: texts of all characters with a meaning, in any order.
    #[test]
    fn no_text_is_taken_that_can_never_match() {
        let parts = ["0781:5567", "serial:", "driver:", "1-", "2.", "3", ":", ",", "/", " ", "\0"];
        let parts = parts.into_iter().chain(["\u{1b}", "hub", "A", "x=", "class:", "09", "usb1"]);
        let parts: Vec<&str> = parts.collect();
        let mut taken = 0;
        for at in 0..parts.len().pow(4) {
            let digit = |place| parts[at / parts.len().pow(place) % parts.len()];
            let text = [digit(0), digit(1), digit(2), digit(3)].concat();
            let Ok(Match { busid, serial, driver, class, .. }) = text.parse() else { continue };
            taken += 1;
            for value in serial.iter().chain(&driver) {
                let is_possible = !value.contains(char::is_control) && value.trim() == value;
                assert!(is_possible && !value.is_empty(), "{text:?}");
            }
            assert!(driver.is_none_or(|name| !name.contains('/') && name != "hub"), "{text:?}");
            assert!(class != Some(class::HUB), "{text:?}");
            assert!(busid.is_none_or(|busid| !busid.to_string().ends_with('.')), "{text:?}");
        }
        assert!(taken > 1000, "{taken}");
    }

    #[test]
    fn other_wrong_specs_are_explained() {
        for wrong in ["", "stick", "1-", "-", "-1", "...-", "1-2.3.", "1-.2", "1-2..3", "0781:"] {
            let error = wrong.parse::<DeviceSpec>().unwrap_err();
            assert_eq!(error, DeviceSpecError::Form(wrong.to_owned()));
            assert!(error.to_string().contains("usbferry list"), "{error}");
        }
        for wrong in ["+781:5567", "256-1", "1-32", "1-0", "serial:", "driver:", "class:"] {
            let error = wrong.parse::<DeviceSpec>().unwrap_err();
            assert_eq!(error, DeviceSpecError::Form(wrong.to_owned()));
        }
        for numbers in ["001:004", "001/004", "/dev/bus/usb/001/004"] {
            let error = numbers.parse::<Match>().unwrap_err();
            assert_eq!(error, DeviceSpecError::Numbers(numbers.to_owned()));
        }
        for hub in ["usb1", "class:hub", "class:09"] {
            assert_eq!(hub.parse::<Match>(), Err(DeviceSpecError::Hub), "{hub}");
        }
        let class = "class:disk".parse::<Match>().unwrap_err().to_string();
        assert!(class.contains("storage") && !class.contains("hub"), "{class}");
        let many = ["0781:5567"; RULE_IDS_MAX + 1].join(",");
        assert_eq!(many.parse::<Match>(), Err(DeviceSpecError::Kinds(RULE_IDS_MAX + 1)));
        let named = "a b=1-2".parse::<DeviceSpec>().unwrap_err().to_string();
        assert!(named.starts_with("\"a b\": ' ' can't be in a name"), "{named}");
    }
}
