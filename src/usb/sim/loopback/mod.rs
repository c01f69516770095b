//! `loopback`: a vendor specific device of high speed with data transfers of every kind, and faults
//! on request.
//!
//! | endpoint | interface | function |
//! | --- | --- | --- |
//! | 0x81 bulk IN | 0 | source: fills each buffer with the [`pattern`] |
//! | 0x01 bulk OUT | 0 | sink: expects the pattern |
//! | 0x02 bulk OUT | 0 | data written here … |
//! | 0x82 bulk IN | 0 | … is read here. Waits while there is nothing, as 0x02 does while [`LOOP_LEN`] bytes are |
//! | 0x83 interrupt IN | 0 | a counter, eight bytes little-endian, every 8 ms |
//! | 0x84 interrupt IN | 0 | silent: never has data, except by [`request::RELEASE`] |
//! | 0x86 bulk IN | 0 | silent in the same way |
//! | 0x85 isochronous IN | 1, setting 1 | source: up to 3072 bytes of the pattern a packet |
//! | 0x05 isochronous OUT | 1, setting 1 | sink: expects the pattern |
//!
//! A stream starts at position 0 when the device is opened or reset, its interface set or its halt
//! cleared. Isochronous packets are done at once, unless the device is paced: then each takes a
//! microframe of 125 µs. With `data=counter` sources put the number of the URB since the stream's
//! start into the first eight bytes of each URB or packet, and sinks expect nothing.
//!
//! Module [`request`] has the requests to the default endpoint.
//!
//! Contract: the same as the models', see `model`.

pub mod pattern;
pub mod request;

use std::collections::VecDeque;
use std::time::Duration;

use super::descriptors::{Descriptors, endpoint, interface, put};
use crate::wire::setup::{SETUP_LEN, Setup};
use crate::wire::types::{EndpointAddress, Speed};

/// idProduct; the vendor is 0x1209.
pub const ID_PRODUCT: u16 = 0x0001;

/// Bytes between 0x02 and 0x82 at most.
pub const LOOP_LEN: usize = 256 * 1024;

/// Bytes of the buffer of [`request::WRITE`] and [`request::READ`].
pub const BUFFER_LEN: usize = 4096;

/// How long a packet takes when the device is paced.
pub const MICROFRAME: Duration = Duration::from_micros(125);

/// How often 0x83 has news.
pub const INTERRUPT_PERIOD: Duration = Duration::from_millis(8);

/// Bytes of an isochronous packet at most: three transactions in a microframe.
pub const PACKET_LEN: usize = 3 * 1024;

/// wMaxPacketSize of the isochronous endpoints: 1024 bytes, and two transactions more.
const PACKET_SIZE: u16 = 1024 | 2 << 11;

const SOURCE: u8 = 0x81;
const SINK: u8 = 0x01;
const LOOP_OUT: u8 = 0x02;
const LOOP_IN: u8 = 0x82;
const INTERRUPT: u8 = 0x83;
const INTERRUPT_SILENT: u8 = 0x84;
const BULK_SILENT: u8 = 0x86;
const PACKET_SOURCE: u8 = 0x85;
const PACKET_SINK: u8 = 0x05;

const VENDOR: [u8; 3] = [0xff, 0, 0];

pub(super) fn descriptors(serial: String) -> Descriptors {
    Descriptors::new(
        Speed::High,
        ID_PRODUCT,
        "Simulated loopback",
        serial,
        &[
            &interface(0, 0, 7, VENDOR),
            &endpoint(SOURCE, 2, 512, 0),
            &endpoint(SINK, 2, 512, 0),
            &endpoint(LOOP_OUT, 2, 512, 0),
            &endpoint(LOOP_IN, 2, 512, 0),
            // 2^(7-1) microframes are 8 ms.
            &endpoint(INTERRUPT, 3, 64, 7),
            &endpoint(INTERRUPT_SILENT, 3, 64, 7),
            &endpoint(BULK_SILENT, 2, 512, 0),
            &interface(1, 0, 0, VENDOR),
            &interface(1, 1, 2, VENDOR),
            &endpoint(PACKET_SOURCE, 1, PACKET_SIZE, 1),
            &endpoint(PACKET_SINK, 1, PACKET_SIZE, 1),
        ],
    )
}

/// The device.
pub(super) struct Loopback {
    streams: [Stream; EndpointAddress::COUNT],
    /// Data written to 0x02 and not yet read from 0x82.
    pipe: VecDeque<u8>,
    /// The next report of 0x83.
    interrupts: u64,
    buffer: Box<[u8; BUFFER_LEN]>,
    buffer_len: usize,
    /// The previous control request other than [`request::LAST_SETUP`] itself.
    last_setup: [u8; SETUP_LEN],
    paced: bool,
    counted: bool,
}

/// The device's state of an endpoint.
#[derive(Clone, Copy, Default)]
struct Stream {
    /// Bytes of the pattern since the stream's start.
    position: u64,
    /// URBs since the stream's start.
    number: u64,
    /// Bytes for a silent endpoint to send.
    release: Option<u16>,
    counters: request::Counters,
}

impl Loopback {
    pub(super) fn new(paced: bool, counted: bool) -> Self {
        Self {
            streams: [Stream::default(); EndpointAddress::COUNT],
            pipe: VecDeque::with_capacity(LOOP_LEN),
            interrupts: 0,
            buffer: Box::new([0; BUFFER_LEN]),
            buffer_len: 0,
            last_setup: [0; SETUP_LEN],
            paced,
            counted,
        }
    }

    pub(super) fn ready(&self, endpoint: EndpointAddress) -> bool {
        match endpoint.as_byte() {
            LOOP_IN => !self.pipe.is_empty(),
            LOOP_OUT => self.pipe.len() < LOOP_LEN,
            INTERRUPT_SILENT | BULK_SILENT => self.streams[endpoint.index()].release.is_some(),
            _ => true,
        }
    }

    pub(super) fn fill(&mut self, endpoint: EndpointAddress, room: &mut [u8]) -> usize {
        let stream = &mut self.streams[endpoint.index()];
        let bytes = match endpoint.as_byte() {
            LOOP_IN => read_pipe(&mut self.pipe, room),
            INTERRUPT => {
                let report = self.interrupts.to_le_bytes();
                self.interrupts += 1;
                put(room, &report)
            }
            SOURCE if self.counted => stream.send_number(room),
            _ => {
                let most = stream.release.take().map_or(usize::MAX, usize::from);
                let len = room.len().min(most);
                stream.send_pattern(&mut room[..len])
            }
        };
        stream.counters.bytes += bytes as u64;
        bytes
    }

    pub(super) fn consume(&mut self, endpoint: EndpointAddress, data: &[u8]) -> usize {
        let stream = &mut self.streams[endpoint.index()];
        let bytes = if endpoint.as_byte() == LOOP_OUT {
            let len = data.len().min(LOOP_LEN - self.pipe.len());
            self.pipe.extend(&data[..len]);
            len
        } else {
            if !self.counted {
                stream.receive_pattern(data);
            }
            data.len()
        };
        stream.counters.bytes += bytes as u64;
        bytes
    }

    pub(super) fn fill_packet(&mut self, endpoint: EndpointAddress, room: &mut [u8]) -> usize {
        let len = room.len().min(PACKET_LEN);
        let stream = &mut self.streams[endpoint.index()];
        stream.counters.bytes += len as u64;
        let room = &mut room[..len];
        if self.counted { stream.send_number(room) } else { stream.send_pattern(room) }
    }

    pub(super) fn consume_packet(&mut self, endpoint: EndpointAddress, data: &[u8]) {
        let stream = &mut self.streams[endpoint.index()];
        stream.counters.bytes += data.len() as u64;
        if !self.counted {
            stream.receive_pattern(data);
        }
    }

    pub(super) fn end_urb(&mut self, endpoint: EndpointAddress, empty_packet: bool) {
        let stream = &mut self.streams[endpoint.index()];
        stream.number += 1;
        stream.counters.urbs += 1;
        stream.counters.empty_packets += u64::from(empty_packet);
    }

    pub(super) fn fill_late(&mut self, endpoint: EndpointAddress, room: &mut [u8]) -> usize {
        let stream = &mut self.streams[endpoint.index()];
        stream.counters.bytes += room.len() as u64;
        stream.send_pattern(room)
    }

    pub(super) const fn note_setup(&mut self, setup: &Setup) {
        if setup.request_type != request::IN || setup.request != request::LAST_SETUP {
            self.last_setup = setup.to_bytes();
        }
    }

    pub(super) const fn period(&self, endpoint: EndpointAddress) -> Duration {
        match endpoint.as_byte() {
            INTERRUPT => INTERRUPT_PERIOD,
            PACKET_SOURCE | PACKET_SINK if self.paced => MICROFRAME,
            _ => Duration::ZERO,
        }
    }

    pub(super) const fn restart(&mut self, endpoint: EndpointAddress) {
        let stream = &mut self.streams[endpoint.index()];
        (stream.position, stream.number) = (0, 0);
        stream.release = None;
    }

    pub(super) fn reset(&mut self) {
        self.pipe.clear();
        self.interrupts = 0;
    }
}

impl Stream {
    fn send_pattern(&mut self, room: &mut [u8]) -> usize {
        pattern::fill(self.position, room);
        self.position += room.len() as u64;
        room.len()
    }

    /// Sends the number of the URB, and leaves the bytes behind the number unchanged.
    fn send_number(&self, room: &mut [u8]) -> usize {
        let number = self.number.to_le_bytes();
        match room.first_chunk_mut() {
            Some(first) => *first = number,
            None => _ = put(room, &number),
        }
        room.len()
    }

    fn receive_pattern(&mut self, data: &[u8]) {
        self.counters.errors += pattern::errors(self.position, data);
        self.position += data.len() as u64;
    }
}

/// Reads from the front of a pipe.
fn read_pipe(pipe: &mut VecDeque<u8>, room: &mut [u8]) -> usize {
    let len = room.len().min(pipe.len());
    let (front, back) = pipe.as_slices();
    let first = put(&mut room[..len], front);
    put(&mut room[first..len], back);
    pipe.drain(..len);
    len
}

#[cfg(test)]
mod tests;
