//! The client's commands: SUBMITs and UNLINKs of all kinds from the choices of an operation.
//!
//! A client's kernel looks at the same descriptors as the session: packets go to isochronous
//! endpoints alone, and for other endpoints number_of_packets means nothing. While requests for
//! settings are under way neither side knows which endpoints there will be: packets are sent then
//! where any setting in question has them, and other numbers where none has. To endpoints outside
//! the settings in force packets are sent as well when nothing was asked for, unless other settings
//! have the endpoints, and all without packets.

use super::client::{ControlKind, DEVID, Fate, id_of};
use super::device::configurations;
use super::operation::length_of;
use super::rng::Rng;
use super::verdict::{asked_for, endpoint_of, is_never_isochronous, sets};
use super::world::World;
use crate::session::Violation;
use crate::session::urb::UrbState;
use crate::usb::special::SpecialRequest;
use crate::wire;
use crate::wire::iso::PACKETS_MAX;
use crate::wire::pdu::{CmdSubmit, CmdUnlink, Command};
use crate::wire::setup::Setup;
use crate::wire::types::{DevId, Direction, EndpointAddress, SeqNum, TransferType, flags};

/// Endpoints of URBs. Endpoints of some settings only come last. A control endpoint beside the
/// default is only asked while in force: the session refuses to guess.
const ENDPOINTS: [u8; 16] = [
    0x81, 0x81, 0x01, 0x01, 0x82, 0x02, 0x83, 0x83, 0x03, 0x03, 0x85, 0x05, 0x87, 0x86, 0x06, 0x84,
];

/// number_of_packets of a URB without packets, as clients send, and some values which no client
/// sends.
const NO_PACKETS: [i32; 6] = [0, 0, -1, -1, 1025, i32::MIN];

/// The same where the field means nothing at all.
const LEFT_OVERS: [i32; 6] = [0, -1, 1, 3, 1024, 1025];

/// How the session will read number_of_packets of a SUBMIT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reading {
    /// The endpoint is isochronous: no other number may stand there.
    Isochronous,
    /// Packets follow if the number is possible.
    Believed,
    /// None follow.
    Ignored,
    /// The reading depends on when the session gets the SUBMIT.
    Open,
}

/// A SUBMIT to the model's device, without number, flags or packets.
pub(in crate::session) fn submit_of(endpoint: u8, length: u32) -> CmdSubmit {
    CmdSubmit {
        seqnum: SeqNum(0),
        devid: DEVID,
        endpoint: EndpointAddress::from_byte(endpoint),
        transfer_flags: 0,
        transfer_buffer_length: length,
        start_frame: 0,
        number_of_packets: 0,
        interval: 0,
        setup: [0; 8],
    }
}

/// Packets of a URB, and mostly the buffer length for the packets.
fn packets_of(count: u32, style: u32, rng: &mut Rng, max: u32) -> (Vec<(u32, u32)>, u32) {
    let limit = if count > 64 { 40 } else { 1100 };
    let (mut packets, mut at) = (Vec::new(), 0);
    for _ in 0..count {
        let length = if style.is_multiple_of(2) { limit / 2 } else { rng.below(limit) };
        // OUT data has to be joined over gaps.
        let gap = if style % 8 < 5 { 0 } else { rng.below(20) };
        packets.push((at + gap, length));
        at += gap + length;
    }
    let mut length = at;
    match style % 32 {
        // Outside the buffer, overlapping, or with room behind.
        29 => length = at.saturating_sub(1),
        30 => packets.swap(0, rng.below(count) as usize),
        31 => packets[0].0 = u32::MAX - rng.below(4),
        28 => length += rng.below(100),
        _ => {}
    }
    (packets, length.min(max))
}

impl World {
    /// Whether no command sent can still change the configuration.
    fn is_certain(&self) -> bool {
        self.client.specials.is_empty()
    }

    /// Whether a command sent now is looked at as soon as delivered.
    fn is_immediate(&self) -> bool {
        self.client.undelivered().is_empty()
            && !self.session.rx.has_unparsed()
            && self.session.wants_input()
    }

    /// Sends a SUBMIT for an endpoint other than control, unless the endpoint has just become a
    /// control endpoint.
    pub(super) fn send_submit(&mut self, endpoint: u8, shape: u16, length: u16, packets: u16) {
        let behind_barrier = self.session.barriers.current.is_some() && self.is_immediate();
        let choices = match (self.is_certain(), behind_barrier) {
            (true, _) => 16,
            (false, true) => 15,
            (false, false) => 13,
        };
        let mut submit = submit_of(ENDPOINTS[usize::from(endpoint) % choices], 0);
        let flag = |bit: u16, flag| if shape & bit != 0 { flag } else { 0 };
        submit.transfer_flags = flag(1, flags::SHORT_NOT_OK)
            | flag(2, flags::ZERO_PACKET)
            | flag(4, 0x0200)
            | flag(8, 0x0004_0000);
        let max = self.scale.urb_len + if self.is_too_long_allowed(&submit, shape) { 9 } else { 0 };
        let mut descriptors = Vec::new();
        let reading = self.reading_of(submit.endpoint, behind_barrier);
        if sends_packets(submit.endpoint, reading, packets) {
            let mut rng = Rng(u64::from(packets) << 32 | u64::from(length));
            let count = match packets % 16 {
                0 => 1 + u32::from(packets / 16) % PACKETS_MAX,
                _ => 1 + u32::from(packets / 16) % 12,
            };
            let style = u32::from(shape >> 8);
            let max = u32::try_from(max).expect("small");
            (descriptors, submit.transfer_buffer_length) = packets_of(count, style, &mut rng, max);
            submit.number_of_packets = i32::try_from(count).expect("few");
        } else {
            submit.transfer_buffer_length = length_of(length, max);
            submit.number_of_packets = odd_packets(reading, packets);
        }
        self.client.submit(submit, ControlKind::Ordinary, descriptors, shape & 0x30 == 0x30);
        if behind_barrier {
            self.deliver(usize::MAX);
        }
    }

    /// An IN URB may be too long, which is answered; OUT data can't be.
    const fn is_too_long_allowed(&self, submit: &CmdSubmit, shape: u16) -> bool {
        matches!(submit.endpoint.direction(), Direction::In) && shape & 0xc0 == 0xc0
    }

    /// The reading of number_of_packets of a SUBMIT sent now and, `behind_barrier`, looked at
    /// before anything else happens.
    fn reading_of(&self, endpoint: EndpointAddress, behind_barrier: bool) -> Reading {
        if is_never_isochronous(endpoint) {
            return Reading::Ignored;
        }
        let configuration = self.client.configuration_of(u32::MAX);
        let known = endpoint_of(configuration, endpoint).map(|(known, _)| known);
        let Some(may_be_asked) = self.client.asked.filter(|_| !self.is_certain()) else {
            return match known {
                Some(TransferType::Isochronous) => Reading::Isochronous,
                Some(_) => Reading::Ignored,
                None => Reading::Believed,
            };
        };
        let (is_open, asked) = self.asked_now();
        match known {
            _ if !behind_barrier => Reading::Open,
            Some(TransferType::Isochronous) if is_open => Reading::Believed,
            _ if asked & endpoint.bit() != 0 => Reading::Believed,
            Some(TransferType::Isochronous) => Reading::Open,
            _ if may_be_asked & endpoint.bit() != 0 => Reading::Open,
            None if !is_open => Reading::Open,
            _ => Reading::Ignored,
        }
    }

    /// Whether the session has requests for settings now, and the endpoints which the requests are
    /// sure to make isochronous; a bit each.
    fn asked_now(&self) -> (bool, u32) {
        let (mut is_open, mut asked) = (false, 0);
        for (&id, &(seqnum, request)) in &self.client.specials {
            let urb = self.session.urbs.find(seqnum);
            let record = urb.map(|urb| self.session.urbs.get(urb));
            let is_pending = record.is_some_and(|record| {
                id_of(&record.submit) == id
                    && matches!(record.state, UrbState::BehindBarrier | UrbState::Performing)
            });
            // The configuration of later requests' interfaces may change.
            let is_next = self.barrier_id() == Some(id);
            if !sets(request) || !is_pending && !is_next {
                continue;
            }
            is_open = true;
            asked |= match request {
                SpecialRequest::SetConfiguration(_) => {
                    asked_for(request, configurations(0).iter().flatten())
                }
                _ if is_next => asked_for(request, self.client.configuration_of(u32::MAX)),
                _ => 0,
            };
        }
        (is_open, asked)
    }

    /// Sends many SUBMITs of a small transfer, or many UNLINKs.
    pub(super) fn send_flood(&mut self, kind: u8, count: u16) {
        let count = count % FLOOD_MAX;
        if kind & 8 == 0 {
            self.pauses = [1, 1, 0].map(|pause| u32::from(kind) * pause);
        }
        for index in 0..count {
            let submit = match kind % 4 {
                0 => {
                    (0..2).for_each(|_| self.send_unlink(kind >> 4, index));
                    continue;
                }
                // Payloads of the same length come as expected.
                1 if kind & 4 != 0 => submit_of(0x01, 1 + u32::from(kind)),
                1 => submit_of(0x01, 1 + u32::from(index % 50)),
                // Long URBs use up the device's memory.
                endpoint if kind & 64 != 0 => {
                    submit_of(0x7f + endpoint, u32::try_from(self.scale.urb_len).expect("small"))
                }
                endpoint => submit_of(0x7f + endpoint, 8),
            };
            self.client.submit(submit, ControlKind::Ordinary, Vec::new(), false);
        }
    }

    /// Sends a control transfer which no host performs.
    pub(super) fn send_control(&mut self, kind: u8, length: u16, room: u16, shape: u16) {
        let endpoint = self.control_endpoint(shape);
        let length = u16::try_from(length_of(length, 4096)).expect("16 bits");
        let setup = |request_type, request, value, index, length| Setup {
            request_type,
            request,
            value,
            index,
            length,
        };
        let (mut direction, setup, kind) = match kind % 16 {
            0..5 => (Direction::In, setup(0x80, 6, 0x0100, 0, length), ControlKind::Ordinary),
            5..9 => (Direction::Out, setup(0x40, 9, 1, 2, length), ControlKind::Ordinary),
            9 | 10 => (Direction::Out, setup(0x21, 11, 3, 0, 0), ControlKind::Ordinary),
            11 => (Direction::Out, setup(0x02, 1, 0, 0x80, 0), ControlKind::Ordinary),
            12 => (Direction::Out, setup(0x00, 5, 7, 0, 0), ControlKind::Forbidden),
            13 => (Direction::Out, setup(0x00, 3, 2, 0x0400, 0), ControlKind::Forbidden),
            14 => (Direction::In, setup(0xc0, 1, 0, 0, 4097 + room % 1000), ControlKind::Ordinary),
            _ => (Direction::Out, setup(0x80, 6, 0x0200, 0, length), ControlKind::Ordinary),
        };
        if shape & 0x70 == 0x70 {
            direction = if direction == Direction::In { Direction::Out } else { Direction::In };
        }
        let room = match shape % 8 {
            0 => length_of(room, self.scale.urb_len),
            _ => u32::from(setup.length).min(u32::try_from(self.scale.urb_len).expect("small")),
        };
        self.send_setup(endpoint, direction, setup, room, kind, shape);
    }

    /// Sends a request performed by the host.
    pub(super) fn send_special(&mut self, kind: u8, value: u16, index: u16, shape: u16) {
        let (request_type, request, value, index, special) = match kind % 8 {
            0..4 => {
                let (interface, alternate) = (u8::try_from(index % 4).expect("small"), value % 4);
                let alternate = u8::try_from(alternate).expect("small");
                let request = SpecialRequest::SetInterface { interface, alternate };
                (1, 11, u16::from(alternate), u16::from(interface), request)
            }
            4 => {
                let value = u8::try_from(value % 3).expect("small");
                (0, 9, u16::from(value), 0, SpecialRequest::SetConfiguration(value))
            }
            5 | 6 => {
                let address = ENDPOINTS[usize::from(index % 16)];
                let endpoint = EndpointAddress::from_byte(address);
                (2, 1, 0, u16::from(address), SpecialRequest::ClearHalt(endpoint))
            }
            _ => (0x23, 3, 4, index, SpecialRequest::Reset),
        };
        let endpoint = self.control_endpoint(shape);
        // No special request has data, but a client may send some, or give the wrong direction.
        let length = if shape & 0xf00 == 0xf00 { 4 } else { 0 };
        let direction = if shape & 0x7000 == 0x7000 { Direction::In } else { Direction::Out };
        let setup = Setup { request_type, request, value, index, length };
        let kind = ControlKind::Special(special);
        self.send_setup(endpoint, direction, setup, length.into(), kind, shape);
    }

    /// The default endpoint, or the other control endpoint if there is any.
    fn control_endpoint(&self, shape: u16) -> u8 {
        let known = endpoint_of(
            self.client.configuration_of(u32::MAX),
            EndpointAddress::new(4, Direction::Out),
        );
        if self.is_certain() && known.is_some() && shape & 0x300 == 0x300 { 4 } else { 0 }
    }

    fn send_setup(
        &mut self,
        endpoint: u8,
        direction: Direction,
        setup: Setup,
        room: u32,
        kind: ControlKind,
        shape: u16,
    ) {
        let mut submit = submit_of(endpoint, room);
        submit.endpoint = EndpointAddress::new(endpoint, direction);
        submit.setup = setup.to_bytes();
        submit.transfer_flags = if shape & 8 != 0 { flags::SHORT_NOT_OK } else { 0 };
        // The field means nothing on a control endpoint, even while requests are under way.
        submit.number_of_packets = LEFT_OVERS[usize::from(shape >> 7) % LEFT_OVERS.len()];
        self.client.submit(submit, kind, Vec::new(), shape & 0xc00 == 0xc00);
    }

    /// Sends an UNLINK: of a URB without an answer mostly.
    pub(super) fn send_unlink(&mut self, kind: u8, pick: u16) {
        let pick = usize::from(pick);
        let target = match kind % 16 {
            0 if kind & 16 == 0 => return self.client.unlink_ahead(),
            0 => Some(SeqNum(0xdead_0000 | u32::from(kind))),
            1 => self.client.used.get(pick % self.client.used.len().max(1)).copied(),
            2..4 => self.pick_urb(pick, |sent| sent.unlink.is_some()),
            4..8 => self.pick_urb(pick, |sent| sent.fate == Fate::Submitted),
            8..10 => self.pick_urb(pick, |sent| sent.fate == Fate::Waiting),
            _ => self.pick_urb(pick, |sent| sent.unlink.is_none()),
        };
        if let Some(target) = target {
            self.client.unlink(target);
        }
    }

    /// The seqnum of any URB without an answer, if to the liking of `want`.
    fn pick_urb(&self, pick: usize, want: impl Fn(&super::client::Sent) -> bool) -> Option<SeqNum> {
        let urbs = self.client.urbs.values().rev().take(PICK_MAX).filter(|sent| want(sent));
        let found: Vec<SeqNum> = urbs.map(|sent| sent.submit.seqnum).collect();
        found.get(pick % found.len().max(1)).copied()
    }

    /// Sends a violation of the protocol, and nothing any more behind.
    pub(super) fn send_violation(&mut self, kind: u8) {
        let mut submit = submit_of(0x81, 0);
        submit.seqnum = SeqNum(0xdead_beef);
        let violation = match kind % 8 {
            0 => {
                submit.devid = DevId(9);
                Violation::WrongDevice(DevId(9))
            }
            1 => return self.send_unlink_of_another_device(),
            2 => {
                let length = u32::try_from(self.scale.urb_len).expect("small") + 1;
                submit = CmdSubmit { seqnum: submit.seqnum, ..submit_of(1, length) };
                Violation::TooLong(length)
            }
            3 => {
                submit.transfer_buffer_length = 0x8000_0000;
                Violation::Wire(wire::Error::Length(i32::MIN))
            }
            4 if self.is_isochronous(0x83) => {
                submit.endpoint = EndpointAddress::from_byte(0x83);
                submit.number_of_packets = 1025;
                Violation::Wire(wire::Error::Packets(1025))
            }
            5 if self.is_immediate() => {
                let listed = |sent: &super::client::Sent| {
                    self.session.urbs.find(sent.submit.seqnum).is_some()
                };
                let Some(seqnum) = self.pick_urb(usize::from(kind), listed) else { return };
                submit.seqnum = seqnum;
                Violation::DuplicateSeqnum(seqnum)
            }
            _ => return self.send_unknown_command(u32::from(kind) << 8),
        };
        self.client.emit(&Command::Submit(submit));
        self.poison = Some(violation);
        if matches!(violation, Violation::DuplicateSeqnum(_)) {
            self.deliver(usize::MAX);
        }
    }

    fn send_unlink_of_another_device(&mut self) {
        let (seqnum, devid, target) = (SeqNum(1), DevId(8), SeqNum(2));
        self.client.emit(&Command::Unlink(CmdUnlink { seqnum, devid, target }));
        self.poison = Some(Violation::WrongDevice(devid));
    }

    fn send_unknown_command(&mut self, command: u32) {
        self.client.push(&command.to_be_bytes());
        self.client.push(&[0; 44]);
        self.poison = Some(Violation::Wire(wire::Error::Command(command)));
    }

    fn is_isochronous(&self, address: u8) -> bool {
        let endpoint = EndpointAddress::from_byte(address);
        let known = endpoint_of(self.client.configuration_of(u32::MAX), endpoint);
        self.is_certain() && matches!(known, Some((TransferType::Isochronous, _)))
    }
}

/// Whether a URB to `endpoint` has packets.
const fn sends_packets(endpoint: EndpointAddress, reading: Reading, choice: u16) -> bool {
    match reading {
        Reading::Isochronous | Reading::Believed => {
            let streams = matches!(endpoint.number(), 3 | 5) && endpoint.as_byte() != 0x85;
            if streams { choice % 8 != 7 } else { choice % 8 == 7 }
        }
        Reading::Ignored | Reading::Open => false,
    }
}

/// number_of_packets of a URB without packets.
fn odd_packets(reading: Reading, choice: u16) -> i32 {
    let choice = usize::from(choice);
    match reading {
        Reading::Isochronous | Reading::Open => 0,
        Reading::Believed => NO_PACKETS[choice % NO_PACKETS.len()],
        Reading::Ignored => LEFT_OVERS[choice % LEFT_OVERS.len()],
    }
}

/// URBs to choose from.
const PICK_MAX: usize = 64;

/// URBs and UNLINKs in a flood: more than a session has places for.
const FLOOD_MAX: u16 = 2600;
