//! `microphone`: a USB Audio Class 1 source of full speed, 48 kHz, 16 bits, one channel.
//!
//! The microphone hears a ramp, starting at zero when the streaming interface's setting is
//! selected. Each sample is its predecessor plus one, modulo 65536. Samples are only made for
//! packets in transfer. So a recording without a break in the ramp proves that no packet was lost
//! or swapped.
//!
//! A packet takes a frame of 1 ms. Without pacing packets come as fast as the host asks.
//!
//! Layout of the descriptors: Universal Serial Bus Device Class Definition for Audio Devices 1.0,
//! sections 4.3 to 4.6, and Audio Data Formats 1.0, section 2.2.5.
//!
//! Contract: the same as the models', see `model`.

use std::time::Duration;

use super::descriptors::{Descriptors, endpoint, interface, put};
use crate::wire::setup::Setup;
use crate::wire::types::{EndpointAddress, Speed};

/// idProduct; the vendor is 0x1209.
pub const ID_PRODUCT: u16 = 0x0003;

/// The streaming endpoint's address.
pub const ENDPOINT: u8 = 0x81;

/// Samples a second.
pub const RATE: u32 = 48_000;

/// How long a packet takes.
pub const FRAME: Duration = Duration::from_millis(1);

/// Bytes of a packet: the samples of a frame.
pub const PACKET_LEN: u16 = 96;

const _: () = assert!(PACKET_LEN as u32 == RATE / 1000 * 2);

/// The rate in the class's form: three bytes.
const RATE_BYTES: [u8; 3] = {
    let bytes = RATE.to_le_bytes();
    [bytes[0], bytes[1], bytes[2]]
};

const AUDIO_CONTROL: [u8; 3] = [1, 1, 0];
const AUDIO_STREAMING: [u8; 3] = [1, 2, 0];

const CS_INTERFACE: u8 = 0x24;
const CS_ENDPOINT: u8 = 0x25;

/// Terminal ids.
const MICROPHONE: u8 = 1;
const STREAM: u8 = 2;

/// Isochronous, synchronous: the device's clock is the clock of the frames.
const ATTRIBUTES: u8 = 0x01 | 3 << 2;

#[rustfmt::skip]
const CONTROL_HEADER: [u8; 9] = [
    9, CS_INTERFACE, 1, // HEADER
    0x00, 0x01, // bcdADC
    9 + 12 + 9, 0, // wTotalLength: this and the two terminals
    1, 1, // one streaming interface, number 1
];

#[rustfmt::skip]
const INPUT_TERMINAL: [u8; 12] = [
    12, CS_INTERFACE, 2, // INPUT_TERMINAL
    MICROPHONE,
    0x01, 0x02, // wTerminalType: microphone
    0, // bAssocTerminal
    1, 0, 0, // one channel, at no place in particular
    0, 0, // iChannelNames, iTerminal
];

#[rustfmt::skip]
const OUTPUT_TERMINAL: [u8; 9] = [
    9, CS_INTERFACE, 3, // OUTPUT_TERMINAL
    STREAM,
    0x01, 0x01, // wTerminalType: USB streaming
    0, // bAssocTerminal
    MICROPHONE, // bSourceID
    0, // iTerminal
];

#[rustfmt::skip]
const STREAMING_HEADER: [u8; 7] = [
    7, CS_INTERFACE, 1, // AS_GENERAL
    STREAM, // bTerminalLink
    1, // bDelay, in frames
    0x01, 0x00, // wFormatTag: PCM
];

#[rustfmt::skip]
const FORMAT: [u8; 11] = [
    11, CS_INTERFACE, 2, // FORMAT_TYPE
    1, // FORMAT_TYPE_I
    1, 2, 16, // channels, bytes of a sample, bits of it
    1, RATE_BYTES[0], RATE_BYTES[1], RATE_BYTES[2], // one rate
];

#[rustfmt::skip]
const STREAMING_ENDPOINT: [u8; 7] = [
    7, CS_ENDPOINT, 1, // EP_GENERAL
    0x01, // bmAttributes: the rate can be set and read
    0, 0, 0, // no lock delay, since it is locked to the frames
];

/// The streaming endpoint. The descriptor of an audio endpoint is two bytes longer than usual.
const AUDIO_ENDPOINT: [u8; 9] = {
    let [_, kind, address, attributes, low, high, interval] =
        endpoint(ENDPOINT, ATTRIBUTES, PACKET_LEN, 1);
    // bRefresh and bSynchAddress: there is no feedback.
    [9, kind, address, attributes, low, high, interval, 0, 0]
};

pub(super) fn descriptors(serial: String) -> Descriptors {
    Descriptors::new(
        Speed::Full,
        ID_PRODUCT,
        "Simulated microphone",
        serial,
        &[
            &interface(0, 0, 0, AUDIO_CONTROL),
            &CONTROL_HEADER,
            &INPUT_TERMINAL,
            &OUTPUT_TERMINAL,
            &interface(1, 0, 0, AUDIO_STREAMING),
            &interface(1, 1, 1, AUDIO_STREAMING),
            &STREAMING_HEADER,
            &FORMAT,
            &AUDIO_ENDPOINT,
            &STREAMING_ENDPOINT,
        ],
    )
}

const TO_ENDPOINT: u8 = 0x22;
const FROM_ENDPOINT: u8 = 0xa2;

const SET_CUR: u8 = 0x01;
const GET_CUR: u8 = 0x81;
const GET_MIN: u8 = 0x82;
const GET_MAX: u8 = 0x83;
const GET_RES: u8 = 0x84;

/// wValue of the requests about the rate.
const SAMPLING_FREQ_CONTROL: u16 = 0x0100;

/// The device.
pub(super) struct Microphone {
    /// The next sample.
    sample: u16,
    paced: bool,
}

impl Microphone {
    pub(super) const fn new(paced: bool) -> Self {
        Self { sample: 0, paced }
    }

    pub(super) fn fill_packet(&mut self, room: &mut [u8]) -> usize {
        let len = room.len().min(PACKET_LEN.into());
        let (samples, _) = room[..len].as_chunks_mut();
        for sample in &mut *samples {
            *sample = self.sample.to_le_bytes();
            self.sample = self.sample.wrapping_add(1);
        }
        samples.as_flattened().len()
    }

    pub(super) const fn period(&self) -> Duration {
        if self.paced { FRAME } else { Duration::ZERO }
    }

    pub(super) const fn restart(&mut self, endpoint: EndpointAddress) {
        if endpoint.as_byte() == ENDPOINT {
            self.sample = 0;
        }
    }

    pub(super) fn control(setup: &Setup, data: &mut [u8]) -> Option<usize> {
        if setup.value != SAMPLING_FREQ_CONTROL || setup.index != u16::from(ENDPOINT) {
            return None;
        }
        match (setup.request_type, setup.request) {
            (FROM_ENDPOINT, GET_CUR | GET_MIN | GET_MAX) => Some(put(data, &RATE_BYTES)),
            (FROM_ENDPOINT, GET_RES) => Some(put(data, &[0, 0, 0])),
            (TO_ENDPOINT, SET_CUR) => (*data == RATE_BYTES).then_some(RATE_BYTES.len()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{Host, setup};
    use super::*;
    use crate::usb::Port;
    use crate::usb::descriptor::{self, parse_configuration};
    use crate::wire::status::Status;
    use crate::wire::types::TransferType;

    fn streaming() -> Host {
        let mut host = Host::open("microphone");
        host.set_interface(1, 1);
        host
    }

    fn samples(bytes: &[u8]) -> Vec<u16> {
        let (samples, _) = bytes.as_chunks();
        samples.iter().map(|&s| u16::from_le_bytes(s)).collect()
    }

    #[test]
    fn the_descriptors_are_consistent() {
        let mut host = Host::open("microphone");
        let (_, whole) = host.descriptor(2, 0, 4096);
        assert_eq!(usize::from(whole[2]), whole.len());
        let configuration = parse_configuration(&whole, descriptor::Host::at(Speed::Full)).unwrap();
        assert_eq!(configuration.interfaces.len(), 2);
        let streaming = &configuration.interfaces[1];
        assert_eq!((streaming.number, streaming.alternates.len()), (1, 2));
        let stream = &streaming.alternates[1];
        assert_eq!((stream.class, stream.sub_class), (1, 2));
        assert_eq!(stream.endpoints.len(), 1);
        assert_eq!(stream.endpoints[0].max_packet_size, PACKET_LEN);
        assert_eq!(stream.endpoints[0].transfer_type, TransferType::Isochronous);
        // The class descriptors of the control interface end where wTotalLength says.
        let header = 9 + 9;
        assert_eq!(whole[header..][..3], [9, 0x24, 1]);
        let end = header + usize::from(whole[header + 5]);
        assert_eq!(whole[end..][..4], [9, 4, 1, 0], "the streaming interface");
        assert_eq!(host.descriptor(6, 0, 10).0, Status::EPIPE, "full speed only");
    }

    #[test]
    fn the_ramp_spans_urbs_and_restarts_with_the_setting() {
        let mut host = streaming();
        let mut heard = Vec::new();
        for _ in 0..200 {
            let ended = host.packets(ENDPOINT, &[0; 960], &[96; 10]);
            assert_eq!(ended.packets, [(96, Status::OK); 10]);
            heard.extend(samples(&ended.data));
        }
        let expected = (0..=u16::MAX).cycle().take(200 * 480);
        assert!(heard.iter().copied().eq(expected));
        host.set_interface(1, 0);
        host.set_interface(1, 1);
        let again = host.packets(ENDPOINT, &[0; 96], &[96]);
        assert_eq!(samples(&again.data)[..3], [0, 1, 2]);
    }

    #[test]
    fn small_packets_carry_whole_samples_and_large_ones_a_frame() {
        let mut host = streaming();
        let ended = host.packets(ENDPOINT, &[0; 215], &[7, 200, 8]);
        let lengths: Vec<u32> = ended.packets.iter().map(|p| p.0).collect();
        assert_eq!(lengths, [6, 96, 8]);
        assert_eq!(samples(&ended.data[207..]), [51, 52, 53, 54]);
    }

    #[test]
    fn a_packet_takes_a_frame() {
        let mut host = streaming();
        let start = host.now;
        let first = host.submit(ENDPOINT, &[0; 768], &[96; 8]);
        let second = host.submit(ENDPOINT, &[0; 768], &[96; 8]);
        assert_eq!(host.port.next_deadline(), Some(start + 8 * FRAME));
        host.advance(Duration::from_micros(7999));
        assert_eq!(host.reaped(), [0; 0]);
        host.advance(Duration::from_millis(3));
        assert_eq!(host.reaped(), [first]);
        host.wait(second);
        assert_eq!(host.now, start + 16 * FRAME, "a late reap loses no time");
        let mut host = Host::open("microphone:pace=off");
        host.set_interface(1, 1);
        let start = host.now;
        host.packets(ENDPOINT, &[0; 768], &[96; 8]);
        assert_eq!(host.now, start);
    }

    #[test]
    fn the_rate_can_be_read_and_set_to_itself() {
        let mut host = streaming();
        let get = |request| setup(0xa2, request, 0x0100, 0x81, 3);
        for request in [0x81, 0x82, 0x83] {
            let answer = host.control_in(get(request));
            assert_eq!(answer, (Status::OK, vec![0x80, 0xbb, 0x00]));
        }
        let set = setup(0x22, 1, 0x0100, 0x81, 3);
        assert_eq!(host.control_out(set, &[0x80, 0xbb, 0]), (Status::OK, 3));
        assert_eq!(host.control_out(set, &[0x44, 0xac, 0]).0, Status::EPIPE);
        let pitch = setup(0xa2, 0x81, 0x0200, 0x81, 1);
        assert_eq!(host.control_in(pitch).0, Status::EPIPE);
    }
}
