//! The recording of a device, put in order to be replayed.
//!
//! Contract: built once, when the file is read; errors are sentences for the user. Everything else
//! is plain data.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use crate::sorted::sort_by_key;
use crate::usb::Configuration;
use crate::usb::descriptor::{DEVICE_LEN, Host, parse_configuration};
use crate::usbmon::error::RecordingError;
use crate::usbmon::recording::{self, DEVICE, Ended, Recording, Urb};
use crate::wire::setup::{SETUP_LEN, Setup};
use crate::wire::status::Status;
use crate::wire::types::{Direction, EndpointAddress, Speed, TransferType};

const GET_DESCRIPTOR: [u8; 2] = [0x80, 6];
const CONFIGURATION: u8 = 2;
const STRING: u8 = 3;

/// A recorded device.
#[derive(PartialEq, Eq, Debug)]
pub struct Script {
    pub(in crate::usb::sim) speed: Speed,
    pub(in crate::usb::sim) device: [u8; DEVICE_LEN],
    pub(in crate::usb::sim) configuration: Vec<u8>,
    /// Bulk and interrupt URBs, in the order of their ends.
    pub(super) steps: Vec<Step>,
    /// Isochronous packets from the device, by endpoint.
    pub(super) packets: Vec<Vec<Packet>>,
    /// The answers to each request, and the number of the request.
    pub(super) answers: HashMap<[u8; SETUP_LEN], (usize, Vec<Answer>)>,
    /// The times of isochronous packets, by endpoint.
    pub(super) periods: [Duration; EndpointAddress::COUNT],
    /// Endpoints with nothing to say at the end, a bit each.
    silent: u32,
    /// The interface of each endpoint.
    interfaces: [Option<u8>; EndpointAddress::COUNT],
    /// URBs and packets from the device whose data the recording does not have.
    pub(super) cut: usize,
    /// The file is broken behind the packet with this number.
    pub(super) broken_behind: Option<u64>,
}

/// A bulk or interrupt URB.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Step {
    pub(super) endpoint: EndpointAddress,
    /// Bytes asked for.
    pub(super) asked: usize,
    /// Bytes moved.
    pub(super) moved: usize,
    pub(super) data: Vec<u8>,
    /// The recording does not have all data.
    pub(super) is_cut: bool,
    pub(super) status: Status,
}

/// An isochronous packet.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Packet {
    pub(super) data: Vec<u8>,
    pub(super) is_cut: bool,
    pub(super) status: Status,
}

/// The answer to a control request.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) data: Vec<u8>,
    pub(super) status: Status,
}

/// Why a recording has no device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScriptError {
    /// The file is no recording.
    Recording(RecordingError),
    /// No device's descriptors are there.
    NoDescriptors,
    /// The configuration can't be read.
    Configuration,
}

impl Script {
    /// Reads the device of a recording: of several, the device with the most URBs whose descriptors
    /// are there.
    ///
    /// # Errors
    /// The file has no device.
    pub fn read(file: &[u8]) -> Result<Self, ScriptError> {
        let Recording { urbs, broken_behind } =
            recording::read(file).map_err(ScriptError::Recording)?;
        let mut counts: HashMap<(u16, u8), usize> = HashMap::new();
        for urb in &urbs {
            *counts.entry(urb.device).or_default() += 1;
        }
        let described = counts.into_iter().filter(|(device, _)| {
            let urbs = || urbs.iter().filter(|urb| urb.device == *device);
            descriptor(urbs(), DEVICE).is_some() && descriptor(urbs(), CONFIGURATION).is_some()
        });
        let chosen = described.max_by_key(|&(device, count)| (count, device));
        let (device, _) = chosen.ok_or(ScriptError::NoDescriptors)?;
        let urbs: Vec<&Urb> = urbs.iter().filter(|urb| urb.device == device).collect();
        Ok(Self { broken_behind, ..Self::of(&urbs)? })
    }

    fn of(urbs: &[&Urb]) -> Result<Self, ScriptError> {
        let all = || urbs.iter().copied();
        let device = descriptor(all(), DEVICE).and_then(|bytes| bytes.first_chunk().copied());
        let device: [u8; DEVICE_LEN] = device.ok_or(ScriptError::NoDescriptors)?;
        let configuration = descriptor(all(), CONFIGURATION).ok_or(ScriptError::NoDescriptors)?;
        let speed = speed_of(urbs, &device, configuration);
        let parsed = parse_configuration(configuration, Host::at(speed));
        let parsed = parsed.ok_or(ScriptError::Configuration)?;
        let mut ended: Vec<(&Urb, &Ended)> =
            all().filter_map(|urb| Some((urb, urb.end.as_ref()?))).collect();
        sort_by_key(&mut ended, |(_, end)| end.number);
        let (interfaces, periods) = places(&parsed, speed);
        let steps: Vec<Step> = ended.iter().filter_map(|(urb, end)| step(urb, end)).collect();
        let packets = packets(&ended);
        let is_missing = |step: &&Step| step.is_cut && step.endpoint.direction() == Direction::In;
        let cut_packets = packets.iter().flatten().filter(|packet| packet.is_cut);
        let cut = steps.iter().filter(is_missing).count() + cut_packets.count();
        Ok(Self {
            speed,
            device,
            configuration: configuration.to_vec(),
            steps,
            packets,
            answers: answers(&ended),
            periods,
            silent: silent(urbs),
            interfaces,
            cut,
            broken_behind: None,
        })
    }

    /// Whether the endpoint had nothing to say at the end.
    pub(super) const fn is_silent(&self, endpoint: EndpointAddress) -> bool {
        self.silent & endpoint.bit() != 0
    }

    /// The endpoints to which a client writes, of the interface of `endpoint`, by index.
    pub(super) fn writers(&self, endpoint: EndpointAddress) -> impl Iterator<Item = usize> {
        let interface = self.interfaces[endpoint.index()];
        (0..16)
            .map(|number| EndpointAddress::new(number, Direction::Out).index())
            .filter(move |&index| interface.is_some() && self.interfaces[index] == interface)
    }

    /// The answer to a read of a descriptor of which the recording has a read of another length,
    /// where the answer is certain.
    pub(super) fn prefix_of(&self, setup: &Setup) -> Option<&Answer> {
        let asked = setup.to_bytes();
        if asked[..2] != GET_DESCRIPTOR {
            return None;
        }
        let of_same = self.answers.iter().filter(|(key, _)| key[..6] == asked[..6]);
        let all = of_same.flat_map(|(key, (_, answers))| answers.iter().map(move |a| (key, a)));
        let is_certain = |(key, answer): &(&[u8; SETUP_LEN], &Answer)| {
            let len = answer.data.len();
            let was_asked = usize::from(u16::from_le_bytes([key[6], key[7]]));
            answer.status == Status::OK && (len < was_asked || len >= setup.length.into())
        };
        all.filter(is_certain).map(|(_, answer)| answer).max_by_key(|answer| answer.data.len())
    }

    /// The text of a string descriptor, if the recording has the text.
    pub(in crate::usb::sim) fn string(&self, index: u8) -> Option<String> {
        let of_string = |key: &[u8; SETUP_LEN]| key[..4] == [0x80, 6, index, STRING];
        let mut found = self.answers.iter().filter(|(key, _)| index > 0 && of_string(key));
        let data = found.find_map(|(_, (_, answers))| {
            let whole = |answer: &&Answer| {
                answer.data.first().is_some_and(|&len| usize::from(len) == answer.data.len())
            };
            answers.iter().find(whole).map(|answer| &answer.data)
        })?;
        let units = data.get(2..)?.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
        Some(char::decode_utf16(units).map(|unit| unit.unwrap_or('?')).collect())
    }
}

/// The first whole descriptor of a kind.
fn descriptor<'a>(urbs: impl Iterator<Item = &'a Urb>, kind: u8) -> Option<&'a [u8]> {
    recording::descriptors(urbs, kind).find(|bytes| match (kind, *bytes) {
        (DEVICE, bytes) => bytes.len() >= DEVICE_LEN && bytes[1] == DEVICE,
        (_, [_, CONFIGURATION, low, high, ..]) => {
            bytes.len() >= usize::from(u16::from_le_bytes([*low, *high]))
        }
        _ => false,
    })
}

/// The speed: as recorded, or the lowest that the descriptors allow.
fn speed_of(urbs: &[&Urb], device: &[u8; DEVICE_LEN], configuration: &[u8]) -> Speed {
    let recorded = urbs.iter().find_map(|urb| urb.speed);
    let all = [Speed::Low, Speed::Full, Speed::High, Speed::Super];
    let known = all.into_iter().find(|speed| Some(speed.bits_per_second()) == recorded);
    let parsed = || parse_configuration(configuration, Host::at(Speed::Super));
    let is_high = || {
        let endpoints = parsed().into_iter().flat_map(|parsed| parsed.interfaces);
        let mut endpoints =
            endpoints.flat_map(|interface| interface.alternates).flat_map(|a| a.endpoints);
        endpoints.any(|endpoint| match endpoint.transfer_type {
            TransferType::Bulk => endpoint.max_packet_size >= 512,
            TransferType::Isochronous => endpoint.max_packet_size > 1023,
            _ => endpoint.max_packet_size > 64,
        })
    };
    match known {
        Some(speed) => speed,
        // wMaxPacketSize0 is an exponent at super speed only.
        None if device[7] == 9 && device[3] >= 3 => Speed::Super,
        None if is_high() => Speed::High,
        None => Speed::Full,
    }
}

fn address_of(urb: &Urb) -> EndpointAddress {
    EndpointAddress::from_byte(urb.endpoint)
}

/// A bulk or interrupt URB that a client did not give up.
fn step(urb: &Urb, end: &Ended) -> Option<Step> {
    if !matches!(urb.transfer_type, TransferType::Bulk | TransferType::Interrupt) {
        return None;
    }
    let endpoint = address_of(urb);
    let is_in = endpoint.direction() == Direction::In;
    let data = if is_in { &end.received } else { &urb.sent };
    let (status, moved) = (Status(end.status), end.moved as usize);
    let is_given_up = matches!(status, Status::ECONNRESET | Status::ENOENT | Status::ESHUTDOWN);
    if is_given_up && (data.bytes.is_empty() || !is_in) {
        return None;
    }
    let whole = if is_in { moved } else { urb.asked as usize };
    Some(Step {
        endpoint,
        asked: urb.asked as usize,
        moved,
        is_cut: data.is_cut || data.bytes.len() < whole,
        data: data.bytes.clone(),
        status: if is_given_up { Status::OK } else { status },
    })
}

fn packets(ended: &[(&Urb, &Ended)]) -> Vec<Vec<Packet>> {
    let mut all: Vec<Vec<Packet>> = (0..EndpointAddress::COUNT).map(|_| Vec::new()).collect();
    for (urb, end) in ended.iter().filter(|(urb, _)| urb.endpoint & 0x80 != 0) {
        let of_endpoint = &mut all[address_of(urb).index()];
        of_endpoint.extend(end.packets.iter().map(|packet| {
            let from = packet.offset as usize;
            let to = from.saturating_add(packet.length as usize);
            let data = end.received.bytes.get(from..to);
            Packet {
                data: data.unwrap_or_default().to_vec(),
                is_cut: data.is_none() && packet.length > 0,
                status: Status(packet.status),
            }
        }));
    }
    all
}

fn answers(ended: &[(&Urb, &Ended)]) -> HashMap<[u8; SETUP_LEN], (usize, Vec<Answer>)> {
    let mut all: HashMap<_, (usize, Vec<Answer>)> = HashMap::new();
    for (urb, end) in ended {
        let Some(setup) = urb.setup.filter(|_| !end.received.is_cut) else { continue };
        let number = all.len();
        let (_, answers) = all.entry(setup).or_insert_with(|| (number, Vec::new()));
        let (data, status) = (end.received.bytes.clone(), Status(end.status));
        answers.push(Answer { data, status });
    }
    all
}

/// The endpoints whose last URB waited in vain.
fn silent(urbs: &[&Urb]) -> u32 {
    let waits = |urb: &Urb| {
        urb.end.as_ref().is_none_or(|end| {
            let status = Status(end.status);
            end.moved == 0
                && matches!(status, Status::ECONNRESET | Status::ENOENT | Status::ESHUTDOWN)
        })
    };
    urbs.iter().filter(|urb| urb.endpoint & 0x80 != 0).fold(0, |silent, urb| {
        let bit = address_of(urb).bit();
        if waits(urb) { silent | bit } else { silent & !bit }
    })
}

/// The interface of each endpoint, and the time of its packets.
fn places(
    configuration: &Configuration,
    speed: Speed,
) -> ([Option<u8>; EndpointAddress::COUNT], [Duration; EndpointAddress::COUNT]) {
    let mut interfaces = [None; EndpointAddress::COUNT];
    let mut periods = [Duration::ZERO; EndpointAddress::COUNT];
    let frame = match speed {
        Speed::Low | Speed::Full => Duration::from_millis(1),
        Speed::High | Speed::Super => Duration::from_micros(125),
    };
    for interface in &configuration.interfaces {
        for endpoint in interface.alternates.iter().flat_map(|alternate| &alternate.endpoints) {
            let index = endpoint.address.index();
            interfaces[index] = Some(interface.number);
            periods[index] = frame * u32::from(endpoint.isochronous_interval());
        }
    }
    (interfaces, periods)
}

impl std::error::Error for ScriptError {}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recording(error) => error.fmt(f),
            Self::NoDescriptors => f.write_str(
                "the recording has no device with its descriptors: begin to record before the \
                 device is plugged in, or record with usbferry serve --capture",
            ),
            Self::Configuration => f.write_str("the configuration in the recording can't be read"),
        }
    }
}
