//! The base classes of devices and interfaces, by their names (usb.org, "Defined Class Codes").
//!
//! Contract: pure.

/// bDeviceClass of a hub.
pub const HUB: u8 = 0x09;

/// The common classes.
pub(crate) const NAMES: [(&str, u8); 12] = [
    ("audio", 0x01),
    ("communication", 0x02),
    ("input", 0x03),
    ("camera", 0x06),
    ("printer", 0x07),
    ("storage", 0x08),
    ("hub", HUB),
    ("smart-card", 0x0b),
    ("video", 0x0e),
    ("wireless", 0xe0),
    ("application", 0xfe),
    ("vendor", 0xff),
];

/// bInterfaceClass of the data interface that belongs to a communication interface.
const COMMUNICATION_DATA: u8 = 0x0a;

/// The name of a class, `other` where the table has none.
pub fn name(class: u8) -> &'static str {
    let class = if class == COMMUNICATION_DATA { 0x02 } else { class };
    NAMES.iter().find(|&&(_, known)| known == class).map_or("other", |&(name, _)| name)
}

/// A class by name, in small or capital letters, or by one or two hexadecimal digits.
pub(crate) fn parse(text: &str) -> Option<u8> {
    let is_number = text.len() <= 2 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let number = u8::from_str_radix(text, 16).ok().filter(|_| is_number);
    let is_named = |name: &str| name.eq_ignore_ascii_case(text);
    number.or_else(|| NAMES.iter().find(|(name, _)| is_named(name)).map(|&(_, class)| class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_its_class() {
        for (known, class) in NAMES {
            assert_eq!((name(class), parse(known)), (known, Some(class)));
            assert_eq!(parse(&format!("{class:02X}")), Some(class));
        }
        assert_eq!((name(0x0a), name(0x55)), ("communication", "other"));
        assert_eq!((parse("8"), parse("Vendor")), (Some(8), Some(0xff)));
        for wrong in ["", "0x8", "+8", "disk", "888", "Storages"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
