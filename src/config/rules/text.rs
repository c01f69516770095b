//! Serial numbers and drivers as typed: texts that a device or a driver can have.
//!
//! Contract: pure, total.

use super::spec::DeviceSpecError;

/// UTF-16 units of the longest serial number: a string descriptor has up to 255 bytes, two of them
/// bLength and bDescriptorType (USB 2.0, section 9.6.7).
const SERIAL_UNITS_MAX: usize = (255 - 2) / 2;

/// Bytes of the longest name of a driver: the name is the name of a directory in sysfs (`NAME_MAX`
/// of `include/uapi/linux/limits.h`).
const DRIVER_LEN_MAX: usize = 255;

/// A serial number that a device can have, as usbferry sees it: sysfs gives the text up to the
/// first NUL, and spaces at the ends do not count (`usb::libusb::sysfs`).
///
/// # Errors
/// No device can have the serial number.
pub(crate) fn parse_serial(text: &str) -> Result<String, DeviceSpecError> {
    let text = text_of(text)?;
    match text.encode_utf16().count() {
        units if units > SERIAL_UNITS_MAX => {
            Err(DeviceSpecError::Long { what: "serial number", len: units, most: SERIAL_UNITS_MAX })
        }
        _ => Ok(text.to_owned()),
    }
}

/// A name that a kernel driver can have.
///
/// # Errors
/// No driver that has an interface of an exported device can have the name.
pub(crate) fn parse_driver(text: &str) -> Result<String, DeviceSpecError> {
    let text = text_of(text)?;
    if let Some((folders, name)) = text.rsplit_once('/') {
        let is_path = folders.starts_with('/') && !name.is_empty();
        return Err(if is_path {
            DeviceSpecError::Meant(text.to_owned(), name.to_owned())
        } else {
            DeviceSpecError::Slash(text.to_owned())
        });
    }
    match text.len() {
        _ if text == "hub" => Err(DeviceSpecError::Hub),
        len if len > DRIVER_LEN_MAX => {
            Err(DeviceSpecError::Long { what: "driver", len, most: DRIVER_LEN_MAX })
        }
        _ => Ok(text.to_owned()),
    }
}

/// A text without spaces at its ends and without control characters.
fn text_of(text: &str) -> Result<&str, DeviceSpecError> {
    if text.contains(char::is_control) {
        return Err(DeviceSpecError::Control(text.to_owned()));
    }
    match text.trim() {
        "" => Err(DeviceSpecError::Blank),
        trimmed if trimmed != text => {
            Err(DeviceSpecError::Meant(text.to_owned(), trimmed.to_owned()))
        }
        _ => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_a_device_can_have_is_taken() {
        let longest = "\u{fc}".repeat(SERIAL_UNITS_MAX);
        for serial in ["4C53", "a b", "1-2", "\"", "A,7", &longest] {
            assert_eq!(parse_serial(serial), Ok(serial.to_owned()));
        }
        let longest = "d".repeat(DRIVER_LEN_MAX);
        for driver in ["usb-storage", "MOSCHIP usb-ethernet driver", "a!b", &longest] {
            assert_eq!(parse_driver(driver), Ok(driver.to_owned()));
        }
    }

    #[test]
    fn a_text_that_no_device_can_have_is_refused_with_the_reason() {
        let (serial, driver) = ("s".repeat(127), "d".repeat(256));
        let pairs = "\u{1f600}".repeat(64);
        for (refused, says) in [
            (parse_serial("A\0"), "\"A\\0\" has a character that can't be typed"),
            (parse_serial("A\u{1b}7"), "\"A\\u{1b}7\" has a character"),
            (parse_serial("A\u{9f}"), "VID:PID or its place"),
            (parse_serial(" A7 "), "\" A7 \" can never match: write A7"),
            (parse_serial(" "), "an empty text matches no device"),
            (parse_driver(""), "an empty text matches no device"),
            (parse_serial(&serial), "a serial number of 127 characters can never match"),
            (parse_serial(&pairs), "a serial number of 128 characters can never match"),
            (parse_driver("uas\n"), "\"uas\\n\" has a character"),
            (parse_driver("usb/storage"), "\"usb/storage\" can never match: no driver's name"),
            (parse_driver("/sys/bus/usb/drivers/uas"), "can never match: write uas"),
            (parse_driver("/sys/bus/usb/drivers/"), "no driver's name has a"),
            (parse_driver("uas "), "write uas"),
            (parse_driver(&driver), "a driver of 256 characters can never match"),
            (parse_driver("hub"), "hubs are never exported"),
        ] {
            let said = refused.expect_err(says).to_string();
            assert!(said.contains(says), "{said}");
        }
    }
}
