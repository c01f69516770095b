//! The names of DNS.
//!
//! Contract: pure. Any bytes may be parsed.

use std::fmt;

/// The most bytes of a name (RFC 1035, 3.1).
const NAME_LEN_MAX: usize = 255;

/// The most bytes of a label.
const LABEL_LEN_MAX: usize = 63;

/// A name, as the bytes of a message without compression: labels with their lengths, and a zero.
/// Names are equal in either case of ASCII letters.
#[derive(Clone, Debug)]
pub(super) struct Name(Box<[u8]>);

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        // Lengths are at most 63 and no letters, so they may be compared in the same way.
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Name {}

impl Name {
    /// A name of labels, each of which is cut after 63 bytes; 255 bytes are enough for all.
    pub(super) fn of(labels: &[&str]) -> Self {
        let mut bytes = Vec::new();
        for label in labels {
            let label = start_of(label, LABEL_LEN_MAX);
            bytes.push(u8::try_from(label.len()).expect("a label is short"));
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.push(0);
        assert!(bytes.len() <= NAME_LEN_MAX, "the program's own names are short");
        Self(bytes.into())
    }

    /// Takes a name from a message, and moves `at` behind the name. Pointers lead back only, so
    /// each name ends.
    pub(super) fn parse(message: &[u8], at: &mut usize) -> Option<Self> {
        let mut bytes = Vec::new();
        // Where the current part of the name begins; the next part begins before.
        let (mut position, mut begin, mut end) = (*at, *at, None);
        loop {
            let len = usize::from(*message.get(position)?);
            match len {
                0 => break,
                1..=LABEL_LEN_MAX => {
                    bytes.extend_from_slice(message.get(position..=position + len)?);
                    position += len + 1;
                }
                0xc0.. => {
                    let target = (len & 0x3f) << 8 | usize::from(*message.get(position + 1)?);
                    end.get_or_insert(position + 2);
                    if target >= begin {
                        return None;
                    }
                    (position, begin) = (target, target);
                }
                _ => return None,
            }
            if bytes.len() >= NAME_LEN_MAX {
                return None;
            }
        }
        *at = end.unwrap_or(position + 1);
        bytes.push(0);
        Some(Self(bytes.into()))
    }

    /// The bytes of the name in a message.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The first label, as a text.
    pub(super) fn first_label(&self) -> String {
        let len = usize::from(self.0[0]);
        String::from_utf8_lossy(&self.0[1..=len]).into_owned()
    }

    /// Whether the name is a label in front of another name.
    pub(super) fn is_below(&self, parent: &Self) -> bool {
        let len = usize::from(self.0[0]);
        len > 0 && self.0[len + 1..].eq_ignore_ascii_case(&parent.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = &*self.0;
        while let Some((len @ 1..=u8::MAX, others)) = rest.split_first() {
            let (label, others) = others.split_at(usize::from(*len));
            write!(f, "{}.", String::from_utf8_lossy(label))?;
            rest = others;
        }
        Ok(())
    }
}

/// The start of a text, of `most` bytes at most, in whole characters.
pub(super) fn start_of(text: &str, most: usize) -> &str {
    let mut ends = (0..=most.min(text.len())).rev();
    let end = ends.find(|&at| text.is_char_boundary(at)).unwrap_or_default();
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compressed_name_is_read_behind_its_pointers() {
        let message = b"\x05local\0\x04_tcp\xc0\x00\x06_usbip\xc0\x07rest";
        let mut at = 14;
        let name = Name::parse(message, &mut at).unwrap();
        assert_eq!((name.to_string().as_str(), at), ("_usbip._tcp.local.", 23));
        assert_eq!(name, Name::of(&["_USBIP", "_tcp", "LOCAL"]));
        assert_eq!(name.first_label(), "_usbip");
        assert!(name.is_below(&Name::of(&["_tcp", "local"])));
        assert!(!name.is_below(&Name::of(&["local"])) && !name.is_below(&name));
    }

    #[test]
    fn a_name_without_an_end_is_none() {
        for bytes in
            [&b""[..], b"\x05loca", b"\xc0", b"\xc0\x00", b"\x01a\xc0\x00", b"\x41a\0", b"\x81a\0"]
        {
            assert_eq!(Name::parse(bytes, &mut 0), None, "{bytes:?}");
        }
        let mut long = b"\x3f".repeat(64 * 4);
        assert_eq!(Name::parse(&long, &mut 0), None);
        long.truncate(64 * 3);
        long.push(0);
        assert!(Name::parse(&long, &mut 0).is_some());
    }

    #[test]
    fn a_long_label_is_cut_between_characters() {
        let name = Name::of(&["ä".repeat(40).as_str(), "local"]);
        assert_eq!(name.first_label(), "ä".repeat(31));
    }
}
