//! The messages of multicast DNS: questions and records, read and written.
//!
//! Records of other kinds than a service has are kept as bytes. Names are written without
//! compression: the messages of a server are short.
//!
//! Contract: pure. Any bytes may be parsed; a message with more than [`RECORDS_MAX`] records is
//! refused.
//!
//! [`RECORDS_MAX`]: crate::limits::MDNS_RECORDS_MAX

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::name::Name;
use crate::limits::MDNS_RECORDS_MAX;

/// Bytes before the first question.
const HEADER_LEN: usize = 12;

/// The bit of a response, and of an authoritative answer, in the flags.
const RESPONSE: u16 = 0x8000;
const AUTHORITATIVE: u16 = 0x0400;

/// The bits of the kind of message in the flags: zero for each message of multicast DNS.
const OPCODE: u16 = 0x7800;

/// The class of all records, and the bit above: a record that is the only one of its name and kind,
/// or a question whose answer may go to the client alone.
const INTERNET: u16 = 1;
const TOP_BIT: u16 = 0x8000;

/// The class of a question for records of any class.
const ANY_CLASS: u16 = 255;

/// The kinds of records.
pub(super) mod kind {
    pub(in super::super) const A: u16 = 1;
    pub(in super::super) const PTR: u16 = 12;
    pub(in super::super) const TXT: u16 = 16;
    pub(in super::super) const AAAA: u16 = 28;
    pub(in super::super) const SRV: u16 = 33;
    pub(in super::super) const ANY: u16 = 255;
}

/// A question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Question {
    pub(super) name: Name,
    pub(super) kind: u16,
    /// The answer may go to the client alone.
    pub(super) to_client: bool,
}

/// A record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) name: Name,
    /// The record is the only one of its name and kind, or all such records are in the message.
    pub(super) is_unique: bool,
    /// The seconds for which the record holds; 0 takes the record back.
    pub(super) ttl: u32,
    pub(super) data: Data,
}

/// What a record says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Data {
    Pointer(Name),
    Service {
        port: u16,
        host: Name,
    },
    Text(Vec<u8>),
    Address(IpAddr),
    /// The bytes of a record of another kind.
    Other(u16, Vec<u8>),
}

/// A message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Message {
    pub(super) id: u16,
    pub(super) is_response: bool,
    pub(super) questions: Vec<Question>,
    pub(super) answers: Vec<Record>,
    /// The records that the sender of a question wants for itself.
    pub(super) wanted: Vec<Record>,
    pub(super) additional: Vec<Record>,
}

impl Question {
    pub(super) const fn new(name: Name, kind: u16) -> Self {
        Self { name, kind, to_client: false }
    }

    /// Whether a record is an answer.
    pub(super) fn asks_for(&self, record: &Record) -> bool {
        (self.kind == kind::ANY || self.kind == record.data.kind()) && self.name == record.name
    }
}

impl Data {
    pub(super) const fn kind(&self) -> u16 {
        match self {
            Self::Pointer(_) => kind::PTR,
            Self::Service { .. } => kind::SRV,
            Self::Text(_) => kind::TXT,
            Self::Address(IpAddr::V4(_)) => kind::A,
            Self::Address(IpAddr::V6(_)) => kind::AAAA,
            Self::Other(kind, _) => *kind,
        }
    }

    /// The bytes in a message, by which simultaneous claims of a name are compared (RFC 6762, 8.2).
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Pointer(name) => name.bytes().to_vec(),
            Self::Service { port, host } => {
                // Priority and weight choose among several hosts of a service.
                [&[0; 4], &port.to_be_bytes()[..], host.bytes()].concat()
            }
            Self::Text(text) => text.clone(),
            Self::Address(IpAddr::V4(address)) => address.octets().to_vec(),
            Self::Address(IpAddr::V6(address)) => address.octets().to_vec(),
            Self::Other(_, bytes) => bytes.clone(),
        }
    }

    /// `at` is the first byte in the message, and `len` the number of bytes.
    fn parse(kind: u16, message: &[u8], at: usize, len: usize) -> Option<Self> {
        let bytes = message.get(at..at + len)?;
        Some(match kind {
            kind::PTR => Self::Pointer(Name::parse(message, &mut { at })?),
            kind::SRV => {
                let port = u16::from_be_bytes(*bytes.get(4..)?.first_chunk()?);
                Self::Service { port, host: Name::parse(message, &mut (at + 6))? }
            }
            kind::TXT => Self::Text(bytes.to_vec()),
            kind::A => Self::Address(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
            kind::AAAA => Self::Address(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
            other => Self::Other(other, bytes.to_vec()),
        })
    }
}

impl Message {
    /// A message of multicast DNS; `None` for any other bytes.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (header, _) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let (fields, _) = header.as_chunks::<2>();
        let field = |at: usize| u16::from_be_bytes(fields[at]);
        let counts = [2, 3, 4, 5].map(|at| usize::from(field(at)));
        if field(1) & OPCODE != 0 || counts.iter().sum::<usize>() > MDNS_RECORDS_MAX {
            return None;
        }
        let mut at = HEADER_LEN;
        let questions =
            (0..counts[0]).map(|_| Question::parse(bytes, &mut at)).collect::<Option<_>>()?;
        let mut records =
            |count| (0..count).map(|_| Record::parse(bytes, &mut at)).collect::<Option<_>>();
        Some(Self {
            id: field(0),
            is_response: field(1) & RESPONSE != 0,
            questions,
            answers: records(counts[1])?,
            wanted: records(counts[2])?,
            additional: records(counts[3])?,
        })
    }

    /// The bytes of the message.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let flags = if self.is_response { RESPONSE | AUTHORITATIVE } else { 0 };
        let count = |len: usize| u16::try_from(len).expect("the program's messages are short");
        let (answers, wanted, additional) = (&self.answers, &self.wanted, &self.additional);
        let counts = [self.questions.len(), answers.len(), wanted.len(), additional.len()];
        let fields = [self.id, flags].into_iter().chain(counts.map(count));
        let mut bytes: Vec<u8> = fields.flat_map(u16::to_be_bytes).collect();
        self.questions.iter().for_each(|question| question.write(&mut bytes));
        let records = answers.iter().chain(wanted).chain(additional);
        records.for_each(|record| record.write(&mut bytes));
        bytes
    }
}

impl Question {
    fn parse(message: &[u8], at: &mut usize) -> Option<Self> {
        let name = Name::parse(message, at)?;
        let (kind, class) = (take_u16(message, at)?, take_u16(message, at)?);
        // A question of another class has no answer here.
        let kind = if matches!(class & !TOP_BIT, INTERNET | ANY_CLASS) { kind } else { 0 };
        Some(Self { name, kind, to_client: class & TOP_BIT != 0 })
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.name.bytes());
        bytes.extend(self.kind.to_be_bytes());
        bytes.extend(class(self.to_client));
    }
}

impl Record {
    fn parse(message: &[u8], at: &mut usize) -> Option<Self> {
        let name = Name::parse(message, at)?;
        let (kind, class) = (take_u16(message, at)?, take_u16(message, at)?);
        let (high, low) = (take_u16(message, at)?, take_u16(message, at)?);
        let len = usize::from(take_u16(message, at)?);
        let data = Data::parse(kind, message, *at, len)?;
        *at += len;
        let ttl = u32::from(high) << 16 | u32::from(low);
        Some(Self { name, is_unique: class & TOP_BIT != 0, ttl, data })
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        let data = self.data.bytes();
        bytes.extend_from_slice(self.name.bytes());
        bytes.extend(self.data.kind().to_be_bytes());
        bytes.extend(class(self.is_unique));
        bytes.extend(self.ttl.to_be_bytes());
        let len = u16::try_from(data.len()).expect("the program's records are short");
        bytes.extend(len.to_be_bytes());
        bytes.extend(data);
    }
}

/// For fuzzing: any bytes of the network.
#[cfg(any(test, fuzzing))]
pub(crate) fn check_message(bytes: &[u8]) {
    if let Some(message) = Message::parse(bytes) {
        assert_eq!(Message::parse(&message.to_bytes()), Some(message), "written and read again");
    }
}

fn class(top_bit: bool) -> [u8; 2] {
    (if top_bit { INTERNET | TOP_BIT } else { INTERNET }).to_be_bytes()
}

fn take_u16(message: &[u8], at: &mut usize) -> Option<u16> {
    let bytes = message.get(*at..)?.first_chunk()?;
    *at += 2;
    Some(u16::from_be_bytes(*bytes))
}

/// Writes texts for a record of texts. Each is cut after 255 bytes.
pub(super) fn text_of(entries: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        let entry = &entry.as_bytes()[..entry.len().min(usize::from(u8::MAX))];
        bytes.push(u8::try_from(entry.len()).expect("an entry is short"));
        bytes.extend_from_slice(entry);
    }
    bytes
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn record(name: &Name, data: Data) -> Record {
        Record { name: name.clone(), is_unique: true, ttl: 120, data }
    }

    #[test]
    fn a_message_is_read_as_written() {
        let (name, host) = (Name::of(&["desk", "local"]), Name::of(&["host", "local"]));
        let message = Message {
            id: 7,
            is_response: true,
            questions: vec![Question { name: name.clone(), kind: kind::ANY, to_client: true }],
            answers: vec![
                record(&name, Data::Pointer(host.clone())),
                record(&name, Data::Service { port: 3240, host }),
            ],
            wanted: vec![record(&name, Data::Text(text_of(&["a=b".to_owned()])))],
            additional: vec![
                record(&name, Data::Address([10, 0, 0, 1].into())),
                record(&name, Data::Address(Ipv6Addr::LOCALHOST.into())),
                record(&name, Data::Other(47, vec![1, 2, 3])),
            ],
        };
        let bytes = message.to_bytes();
        assert_eq!(Message::parse(&bytes), Some(message));
        for len in 0..bytes.len() {
            assert_eq!(Message::parse(&bytes[..len]), None, "{len}");
        }
    }

    #[test]
    fn a_message_of_more_records_than_any_service_has_is_refused() {
        let question = Question::new(Name::of(&[]), kind::PTR);
        let message = |questions| Message {
            questions: vec![question.clone(); questions],
            ..Message::default()
        };
        assert!(Message::parse(&message(MDNS_RECORDS_MAX).to_bytes()).is_some());
        assert!(Message::parse(&message(MDNS_RECORDS_MAX + 1).to_bytes()).is_none());
    }

    #[test]
    fn a_message_of_another_kind_is_refused() {
        let mut bytes = Message::default().to_bytes();
        assert!(Message::parse(&bytes).is_some());
        bytes[2] = 0x28;
        assert!(Message::parse(&bytes).is_none());
    }
}
