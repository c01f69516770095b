//! `serial`: a serial adapter of high speed, CDC ACM, with a loopback plug in its socket.
//!
//! Data written to 0x01 is read from 0x81, at any line coding. The host hears DTR as DSR and RTS as
//! DCD, so that the lines can be distinguished; a sent break is heard as a break. Changes are
//! notified on 0x82.
//!
//! Layout of the descriptors: Class Definitions for Communication Devices 1.2, section 5; requests
//! and notifications: PSTN Subclass 1.2, sections 6.3 and 6.5.
//!
//! Contract: the same as the models', see `model`.

use std::collections::VecDeque;

use super::descriptors::{Descriptors, endpoint, interface, put};
use crate::wire::setup::Setup;
use crate::wire::types::{EndpointAddress, Speed};

/// idProduct; the vendor is 0x1209.
pub const ID_PRODUCT: u16 = 0x0004;

/// The endpoint for writing data.
pub const OUT: u8 = 0x01;
/// The endpoint for reading data.
pub const IN: u8 = 0x81;
/// The endpoint of notifications.
pub const NOTIFICATIONS: u8 = 0x82;

/// Bytes on the line at most. More wait in their URBs.
pub const LINE_LEN: usize = 64 * 1024;

/// Bytes of a notification of the line's state.
pub const NOTIFICATION_LEN: usize = 10;

/// Bytes of a line coding.
pub const CODING_LEN: usize = 7;

/// 9600 bit/s, a single stop bit, no parity, eight bits.
const CODING_DEFAULT: [u8; CODING_LEN] = [0x80, 0x25, 0, 0, 0, 0, 8];

/// bDeviceClass: communications.
const COMMUNICATIONS: u8 = 2;
/// Abstract control model, AT commands, which every driver for modems takes.
const CONTROL: [u8; 3] = [COMMUNICATIONS, 2, 1];
const DATA: [u8; 3] = [10, 0, 0];

const CONTROL_INTERFACE: u8 = 0;
const DATA_INTERFACE: u8 = 1;

const CS_INTERFACE: u8 = 0x24;

/// bcdCDC 1.20.
const HEADER: [u8; 5] = [5, CS_INTERFACE, 0, 0x20, 0x01];
/// The device does not manage calls.
const CALL_MANAGEMENT: [u8; 5] = [5, CS_INTERFACE, 1, 0, DATA_INTERFACE];
/// The device has line coding, line state with notification, and breaks.
const ABSTRACT_CONTROL: [u8; 4] = [4, CS_INTERFACE, 2, 0x02 | 0x04];
const UNION: [u8; 5] = [5, CS_INTERFACE, 6, CONTROL_INTERFACE, DATA_INTERFACE];

pub(super) fn descriptors(serial: String) -> Descriptors {
    let mut descriptors = Descriptors::new(
        Speed::High,
        ID_PRODUCT,
        "Simulated serial adapter",
        serial,
        &[
            &interface(CONTROL_INTERFACE, 0, 1, CONTROL),
            &HEADER,
            &CALL_MANAGEMENT,
            &ABSTRACT_CONTROL,
            &UNION,
            // 2^(9-1) microframes are 32 ms.
            &endpoint(NOTIFICATIONS, 3, 16, 9),
            &interface(DATA_INTERFACE, 0, 2, DATA),
            &endpoint(IN, 2, 512, 0),
            &endpoint(OUT, 2, 512, 0),
        ],
    );
    descriptors.device[4] = COMMUNICATIONS;
    descriptors
}

const TO_INTERFACE: u8 = 0x21;
const FROM_INTERFACE: u8 = 0xa1;

const SET_LINE_CODING: u8 = 0x20;
const GET_LINE_CODING: u8 = 0x21;
const SET_CONTROL_LINE_STATE: u8 = 0x22;
const SEND_BREAK: u8 = 0x23;

/// bNotification of a change of the line's state.
const SERIAL_STATE: u8 = 0x20;

/// Bits of SET_CONTROL_LINE_STATE.
const DTR: u16 = 1 << 0;
const RTS: u16 = 1 << 1;

/// Bits of SERIAL_STATE.
const DCD: u16 = 1 << 0;
const DSR: u16 = 1 << 1;
const BREAK: u16 = 1 << 2;

/// The device.
pub(super) struct Serial {
    /// Data written and not yet read.
    line: VecDeque<u8>,
    coding: [u8; CODING_LEN],
    /// The state of the modem lines at the device.
    heard: u16,
    /// The last notified state.
    told: u16,
    /// A break was heard, and the host not told.
    broken: bool,
}

impl Serial {
    pub(super) fn new() -> Self {
        Self {
            line: VecDeque::with_capacity(LINE_LEN),
            coding: CODING_DEFAULT,
            heard: 0,
            told: 0,
            broken: false,
        }
    }

    pub(super) fn ready(&self, endpoint: EndpointAddress) -> bool {
        match endpoint.as_byte() {
            IN => !self.line.is_empty(),
            OUT => self.line.len() < LINE_LEN,
            _ => self.heard != self.told || self.broken,
        }
    }

    pub(super) fn fill(&mut self, endpoint: EndpointAddress, room: &mut [u8]) -> usize {
        if endpoint.as_byte() != IN {
            return put(room, &self.notification());
        }
        let len = room.len().min(self.line.len());
        let (front, back) = self.line.as_slices();
        let first = put(&mut room[..len], front);
        put(&mut room[first..len], back);
        self.line.drain(..len);
        len
    }

    pub(super) fn consume(&mut self, data: &[u8]) -> usize {
        let len = data.len().min(LINE_LEN - self.line.len());
        self.line.extend(&data[..len]);
        len
    }

    /// Notifies the host of the state. A break is notified once; the lines keep their state.
    const fn notification(&mut self) -> [u8; NOTIFICATION_LEN] {
        let state = self.heard | if self.broken { BREAK } else { 0 };
        (self.told, self.broken) = (self.heard, false);
        let [low, high] = state.to_le_bytes();
        [FROM_INTERFACE, SERIAL_STATE, 0, 0, CONTROL_INTERFACE, 0, 2, 0, low, high]
    }

    pub(super) fn control(&mut self, setup: &Setup, data: &mut [u8]) -> Option<usize> {
        if setup.index != u16::from(CONTROL_INTERFACE) {
            return None;
        }
        match (setup.request_type, setup.request) {
            (TO_INTERFACE, SET_LINE_CODING) => {
                let coding = data.first_chunk().filter(|coding| is_coding(coding))?;
                self.coding = *coding;
                Some(CODING_LEN)
            }
            (FROM_INTERFACE, GET_LINE_CODING) => Some(put(data, &self.coding)),
            (TO_INTERFACE, SET_CONTROL_LINE_STATE) => {
                let heard = |line, as_line| if setup.value & line == 0 { 0 } else { as_line };
                self.heard = heard(DTR, DSR) | heard(RTS, DCD);
                Some(0)
            }
            // The duration does not matter; zero ends a break.
            (TO_INTERFACE, SEND_BREAK) => {
                self.broken |= setup.value != 0;
                Some(0)
            }
            _ => None,
        }
    }

    pub(super) fn reset(&mut self) {
        self.line.clear();
        self.coding = CODING_DEFAULT;
        (self.heard, self.told, self.broken) = (0, 0, false);
    }
}

/// Whether a line coding is valid: one, one and a half or two stop bits, five kinds of parity, five
/// to eight bits or sixteen, any rate but zero.
const fn is_coding(coding: &[u8; CODING_LEN]) -> bool {
    let [rate @ .., stop_bits, parity, bits] = *coding;
    u32::from_le_bytes(rate) > 0 && stop_bits <= 2 && parity <= 4 && matches!(bits, 5..=8 | 16)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, setup};
    use super::*;
    use crate::wire::status::Status;

    fn lines(host: &mut Host, lines: u16) {
        let request = setup(0x21, SET_CONTROL_LINE_STATE, lines, 0, 0);
        assert_eq!(host.control_out(request, &[]), (Status::OK, 0));
    }

    /// The next notification.
    fn state(host: &mut Host) -> u16 {
        let (status, data) = host.read(NOTIFICATIONS, 16);
        assert_eq!((status, &data[..8]), (Status::OK, &[0xa1, 0x20, 0, 0, 0, 0, 2, 0][..]));
        u16::from_le_bytes([data[8], data[9]])
    }

    #[test]
    fn serial_has_the_descriptors_of_a_modem() {
        let mut host = Host::open("serial");
        let (_, device) = host.descriptor(1, 0, 18);
        assert_eq!(device[4..7], [2, 0, 0]);
        let (_, configuration) = host.descriptor(2, 0, 255);
        let total = u16::from_le_bytes([configuration[2], configuration[3]]);
        assert_eq!((configuration.len(), configuration[4]), (total.into(), 2));
        let endpoints = |number| {
            let interface = host.configuration().interface(number).unwrap();
            let endpoints = interface.alternate().unwrap().endpoints.iter();
            endpoints.map(|endpoint| endpoint.address.as_byte()).collect::<Vec<_>>()
        };
        assert_eq!((endpoints(0), endpoints(1)), (vec![0x82], vec![0x81, 0x01]));
    }

    #[test]
    fn written_data_is_read_back() {
        let mut host = Host::open("serial");
        let waiting = host.submit(IN, &[0; 64], &[]);
        assert!(host.poll(waiting).is_none());
        assert_eq!(host.write(OUT, b"hello"), (Status::OK, 5));
        let ended = host.wait(waiting);
        assert_eq!(&ended.data[..ended.actual_length], b"hello");
        // More than the line holds waits, and goes on in order.
        let byte = |index: usize| u8::try_from(index % 251).expect("below 251");
        let data: Vec<u8> = (0..LINE_LEN + 1000).map(byte).collect();
        let written = host.submit(OUT, &data, &[]);
        let mut read = Vec::new();
        while read.len() < data.len() {
            let (status, part) = host.read(IN, 4096);
            assert_eq!(status, Status::OK);
            read.extend(part);
        }
        assert!(read == data);
        assert_eq!(host.wait(written).actual_length, data.len());
    }

    #[test]
    fn the_line_coding_is_kept_and_judged() {
        let mut host = Host::open("serial");
        let get = setup(0xa1, GET_LINE_CODING, 0, 0, 7);
        assert_eq!(host.control_in(get), (Status::OK, CODING_DEFAULT.to_vec()));
        let set = setup(0x21, SET_LINE_CODING, 0, 0, 7);
        // 115200, two stop bits, even parity, seven bits.
        let coding = [0x00, 0xc2, 0x01, 0, 2, 2, 7];
        assert_eq!(host.control_out(set, &coding), (Status::OK, 7));
        for (place, wrong) in [(4, 3), (5, 5), (6, 4), (6, 9)] {
            let mut other = coding;
            other[place] = wrong;
            assert_eq!(host.control_out(set, &other).0, Status::EPIPE);
        }
        assert_eq!(host.control_out(set, &[0, 0, 0, 0, 0, 0, 8]).0, Status::EPIPE);
        let short = setup(0x21, SET_LINE_CODING, 0, 0, 6);
        assert_eq!(host.control_out(short, &coding[..6]).0, Status::EPIPE);
        let of_data = setup(0x21, SET_LINE_CODING, 0, 1, 7);
        assert_eq!(host.control_out(of_data, &coding).0, Status::EPIPE);
        assert_eq!(host.control_in(get), (Status::OK, coding.to_vec()));
        let bus = host.close();
        let mut host = Host::open_on(&bus);
        assert_eq!(host.control_in(get).1, CODING_DEFAULT, "another client finds it as it was");
    }

    #[test]
    fn modem_lines_and_breaks_are_heard_and_notified_once() {
        let mut host = Host::open("serial");
        let waiting = host.submit(NOTIFICATIONS, &[0; 16], &[]);
        assert!(host.poll(waiting).is_none(), "nothing has changed");
        lines(&mut host, DTR);
        assert_eq!(host.wait(waiting).data[8], 1 << 1, "DSR");
        lines(&mut host, DTR | RTS);
        assert_eq!(state(&mut host), DSR | DCD);
        lines(&mut host, RTS);
        lines(&mut host, DTR);
        assert_eq!(state(&mut host), DSR, "the state, and not each change");
        let send = |value| setup(0x21, SEND_BREAK, value, 0, 0);
        assert_eq!(host.control_out(send(0xffff), &[]), (Status::OK, 0));
        assert_eq!(host.control_out(send(0), &[]), (Status::OK, 0));
        assert_eq!(state(&mut host), DSR | BREAK);
        let waiting = host.submit(NOTIFICATIONS, &[0; 16], &[]);
        assert!(host.poll(waiting).is_none(), "a break is told once");
        lines(&mut host, 0);
        assert_eq!(host.wait(waiting).data[8], 0);
    }
}
