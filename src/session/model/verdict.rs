//! The right treatment of a URB, worked out from the protocol and not from the session's code.
//!
//! Rules: `drivers/usb/usbip/stub_rx.c` and `driver-api/usb/error-codes`, and where both leave
//! something open, the server's documentation.

use super::client::{ControlKind, Sent};
use super::device::{Flight, configurations, pattern};
use crate::limits::CONTROL_LEN_MAX;
use crate::usb::special::SpecialRequest;
use crate::usb::{Configuration, Interface};
use crate::wire::setup::{SETUP_LEN, Setup};
use crate::wire::status::Status;
use crate::wire::types::{Direction, EndpointAddress, TransferType, flags};

/// The right treatment of a URB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// The device gets the URB, as a transfer of a type.
    Device(TransferType),
    /// The host performs the request.
    Special(SpecialRequest),
    /// The URB is answered with a status, and the device never sees the URB.
    Refused(Status),
}

/// The right answer of a URB after the device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Outcome {
    pub(super) status: Status,
    pub(super) actual_length: u32,
    pub(super) error_count: u32,
    /// The packets' results.
    pub(super) packets: Vec<(u32, Status)>,
    /// IN data.
    pub(super) data: Vec<u8>,
}

/// Whether an endpoint is there in some setting of any configuration, and isochronous in none.
pub(super) fn is_never_isochronous(address: EndpointAddress) -> bool {
    let all = configurations(0);
    let settings = all.iter().flatten().flat_map(|one| &one.interfaces);
    let endpoints = settings.flat_map(|one| &one.alternates).flat_map(|one| &one.endpoints);
    let types = endpoints.filter(|one| is_meant(one, address)).map(|one| one.transfer_type);
    let mut types = types.peekable();
    types.peek().is_some() && types.all(|one| one != TransferType::Isochronous)
}

/// Whether an address means the endpoint. A control endpoint has two addresses.
fn is_meant(endpoint: &crate::usb::Endpoint, address: EndpointAddress) -> bool {
    match endpoint.transfer_type {
        TransferType::Control => endpoint.address.number() == address.number(),
        _ => endpoint.address == address,
    }
}

/// The type of an endpoint, and the status for its URBs if they are refused.
pub(super) fn endpoint_of(
    configuration: Option<&Configuration>,
    address: EndpointAddress,
) -> Option<(TransferType, Option<Status>)> {
    if address.number() == 0 {
        return Some((TransferType::Control, None));
    }
    let endpoints_of = |interface: &Interface| {
        let found = interface.alternates.iter().find(|a| a.setting == interface.current)?;
        let mut endpoints = found.endpoints.iter();
        let endpoint = endpoints.find(|endpoint| is_meant(endpoint, address))?;
        Some((endpoint.transfer_type, interface.refused))
    };
    configuration?.interfaces.iter().find_map(endpoints_of)
}

/// The right treatment of `sent` in `configuration`.
pub(super) fn judge(sent: &Sent, configuration: Option<&Configuration>, urb_len: usize) -> Verdict {
    if sent.submit.transfer_buffer_length as usize > urb_len {
        return Verdict::Refused(Status::ENOMEM);
    }
    let Some((transfer_type, refused)) = endpoint_of(configuration, sent.submit.endpoint) else {
        return Verdict::Refused(Status::ENOENT);
    };
    // A URB with packets is isochronous and no other is.
    let of_other_type = transfer_type != TransferType::Control
        && sent.packets.is_empty() == (transfer_type == TransferType::Isochronous);
    let refusal =
        of_other_type.then_some(Status::EINVAL).or(refused).or_else(|| match transfer_type {
            TransferType::Control => judge_control(sent),
            TransferType::Isochronous => judge_packets(sent),
            _ => None,
        });
    match (refusal, sent.kind) {
        (Some(status), _) => Verdict::Refused(status),
        (None, ControlKind::Special(request)) if transfer_type == TransferType::Control => {
            Verdict::Special(request)
        }
        (None, ControlKind::Forbidden) if transfer_type == TransferType::Control => {
            Verdict::Refused(Status::EPIPE)
        }
        _ => Verdict::Device(transfer_type),
    }
}

fn judge_control(sent: &Sent) -> Option<Status> {
    let setup = Setup::from_bytes(&sent.submit.setup);
    let length = usize::from(setup.length);
    let wrong_way = length > 0 && setup.direction() != sent.submit.endpoint.direction();
    let data_missing = sent.submit.endpoint.direction() == Direction::Out
        && length > sent.submit.transfer_buffer_length as usize;
    let too_long = sent.submit.endpoint.direction() == Direction::Out && length > CONTROL_LEN_MAX;
    (wrong_way || data_missing || too_long).then_some(Status::EINVAL)
}

/// The SETUP packet for the device: a read is of no more than can be moved at once.
fn setup_of(sent: &Sent) -> Setup {
    let setup = Setup::from_bytes(&sent.submit.setup);
    let most = u16::try_from(CONTROL_LEN_MAX).expect("it is far less");
    Setup { length: setup.length.min(most), ..setup }
}

fn judge_packets(sent: &Sent) -> Option<Status> {
    let room = u64::from(sent.submit.transfer_buffer_length);
    let out = sent.submit.endpoint.direction() == Direction::Out;
    let mut sum = 0u64;
    let mut wrong = false;
    for &(offset, length) in &sent.packets {
        wrong |= u64::from(offset) + u64::from(length) > room;
        wrong |= out && u64::from(offset) < sum;
        sum += u64::from(length);
    }
    (wrong || sum > room).then_some(Status::EINVAL)
}

/// Endpoints which `request` may make isochronous in any of the configurations, a bit each.
pub(super) fn asked_for<'a>(
    request: SpecialRequest,
    configurations: impl IntoIterator<Item = &'a Configuration>,
) -> u32 {
    let mut set = 0;
    for configuration in configurations {
        for interface in &configuration.interfaces {
            let alternate = match request {
                SpecialRequest::SetConfiguration(value) if value == configuration.value => 0,
                SpecialRequest::SetInterface { interface: number, alternate }
                    if number == interface.number =>
                {
                    alternate
                }
                _ => continue,
            };
            for found in interface.alternates.iter().filter(|a| a.setting == alternate) {
                let endpoints = found.endpoints.iter();
                let isochronous =
                    endpoints.filter(|e| e.transfer_type == TransferType::Isochronous);
                set |= isochronous.fold(0, |set, endpoint| set | endpoint.address.bit());
            }
        }
    }
    set
}

/// Whether `request` may change which endpoints there are.
pub(super) const fn sets(request: SpecialRequest) -> bool {
    matches!(request, SpecialRequest::SetConfiguration(_) | SpecialRequest::SetInterface { .. })
}

/// Endpoints whose transfers must have ended before `request` is performed, a bit each.
pub(super) fn concerned(request: SpecialRequest, configuration: Option<&Configuration>) -> u32 {
    let number = match request {
        SpecialRequest::SetInterface { interface, .. } => interface,
        SpecialRequest::SetConfiguration(_) => {
            return !EndpointAddress::new(0, Direction::Out).bit();
        }
        SpecialRequest::Reset => return u32::MAX,
        SpecialRequest::ClearHalt(_) => return 0,
    };
    let interfaces = configuration.iter().flat_map(|c| &c.interfaces);
    interfaces
        .filter(|interface| interface.number == number)
        .flat_map(|interface| {
            interface.alternates.iter().filter(|a| a.setting == interface.current)
        })
        .flat_map(|alternate| &alternate.endpoints)
        .fold(0, |set, endpoint| set | endpoint.address.bit() | both_ways(endpoint))
}

/// A control endpoint's other direction is the same endpoint.
fn both_ways(endpoint: &crate::usb::Endpoint) -> u32 {
    match endpoint.transfer_type {
        TransferType::Control => {
            EndpointAddress::new(endpoint.address.number(), Direction::Out).bit()
        }
        _ => 0,
    }
}

/// Checks the device's view of `sent`; `block` holds the OUT data.
pub(super) fn check_submission(sent: &Sent, flight: &Flight, block: &[u8]) {
    let submit = &sent.submit;
    let out = submit.endpoint.direction() == Direction::Out;
    let setup = setup_of(sent);
    let setup_length = usize::from(setup.length);
    let mut endpoint = submit.endpoint;
    let mut data = Vec::new();
    let mut length = submit.transfer_buffer_length as usize;
    match flight.transfer_type {
        TransferType::Control => {
            endpoint = EndpointAddress::new(endpoint.number(), Direction::Out);
            length = SETUP_LEN + setup_length;
            data.extend(setup.to_bytes());
            data.extend(&sent.payload()[..if out { setup_length } else { 0 }]);
        }
        TransferType::Isochronous => {
            length = sent.packets.iter().map(|&(_, length)| length as usize).sum();
            for &(offset, length) in sent.packets.iter().filter(|_| out) {
                data.extend(&sent.payload()[offset as usize..][..length as usize]);
            }
            let lengths: Vec<u32> = sent.packets.iter().map(|&(_, length)| length).collect();
            assert_eq!(flight.packets, lengths, "the packets of {sent:?}");
        }
        TransferType::Bulk | TransferType::Interrupt => data.extend(sent.payload()),
    }
    if flight.transfer_type != TransferType::Isochronous {
        assert_eq!(flight.packets, [0; 0], "packets of {sent:?}");
    }
    assert_eq!((flight.endpoint, flight.length), (endpoint, length), "{sent:?}");
    assert!(block[..data.len()] == data, "the device got other data than was sent by {sent:?}");
    let zero_packet = out
        && flight.transfer_type == TransferType::Bulk
        && submit.transfer_flags & flags::ZERO_PACKET != 0;
    assert_eq!(flight.zero_packet, zero_packet, "the zero packet of {sent:?}");
}

/// The right answer of a transfer other than isochronous with the device's `status` and `actual`
/// length.
pub(super) fn outcome_of(sent: &Sent, flight: &Flight, status: Status, actual: u32) -> Outcome {
    let requested = sent.submit.transfer_buffer_length;
    let is_in = sent.submit.endpoint.direction() == Direction::In;
    let room = match flight.transfer_type {
        TransferType::Control => u32::try_from(flight.length - SETUP_LEN).expect("short"),
        _ => requested,
    };
    let moved = actual.min(room);
    // A full answer to a shortened read may be part of a longer.
    let is_cut = flight.transfer_type == TransferType::Control
        && Setup::from_bytes(&sent.submit.setup) != setup_of(sent);
    if is_cut && status == Status::OK && moved == room {
        return Outcome {
            status: Status::EINVAL,
            actual_length: 0,
            error_count: 0,
            packets: Vec::new(),
            data: Vec::new(),
        };
    }
    let short = is_in && moved < requested && sent.submit.transfer_flags & flags::SHORT_NOT_OK != 0;
    let (status, actual_length) = match status {
        _ if moved > requested => (Status::EOVERFLOW, requested),
        Status::OK if short => (Status::EREMOTEIO, moved),
        other => (other, moved),
    };
    let data = pattern(flight.serial, if is_in { actual_length as usize } else { 0 }).to_vec();
    Outcome { status, actual_length, error_count: 0, packets: Vec::new(), data }
}

/// The same of an isochronous transfer with the packets' `results`.
pub(super) fn outcome_of_packets(
    sent: &Sent,
    flight: &Flight,
    status: Status,
    results: &[(u32, Status)],
) -> Outcome {
    let whole = [Status::ECONNRESET, Status::ESHUTDOWN, Status::ENODEV];
    let mut outcome = Outcome {
        status: if whole.contains(&status) { status } else { Status::OK },
        actual_length: 0,
        error_count: 0,
        packets: Vec::new(),
        data: Vec::new(),
    };
    let data = pattern(flight.serial, flight.length);
    let mut at = 0;
    for (&(_, length), &(actual, status)) in sent.packets.iter().zip(results) {
        let actual = actual.min(length);
        outcome.packets.push((actual, status));
        outcome.actual_length += actual;
        outcome.error_count += u32::from(status != Status::OK);
        if sent.submit.endpoint.direction() == Direction::In {
            outcome.data.extend(&data[at..at + actual as usize]);
        }
        at += length as usize;
    }
    outcome
}
