//! The program's URBs, and the device's work on their data.

use std::ffi::c_int;
use std::time::{Duration, Instant};

use crate::abi::{self, IsoPacket, Urb};
use crate::descriptors::{self, Endpoint};
use crate::device::{Device, Locked};
use crate::memory::PAGE;
use crate::options::Data;
use crate::standard::{self, Behaviour};
use crate::{node, requests};

/// How often 0x83 has news.
const TICK: Duration = Duration::from_millis(8);

/// Bytes after which the pattern repeats.
const PERIOD: u64 = 251;

/// A URB of the program. From its submission to its reap the URB belongs to the kernel, and so to
/// this library alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct UrbPtr(*mut Urb);

// SAFETY: see the type: only the holder of the node's lock looks at the URB.
unsafe impl Send for UrbPtr {}

impl UrbPtr {
    pub(crate) const fn new(urb: *mut Urb) -> Option<Self> {
        if urb.is_null() { None } else { Some(Self(urb)) }
    }

    pub(crate) const fn as_ptr(self) -> *mut Urb {
        self.0
    }

    /// The URB; the result of a call is dropped before the next call.
    fn get<'a>(self) -> &'a mut Urb {
        // SAFETY: the program passed a valid URB and does not touch the URB before its reap.
        unsafe { &mut *self.0 }
    }

    pub(crate) fn is_control(self) -> bool {
        self.get().kind == abi::KIND_CONTROL
    }

    pub(crate) fn endpoint(self) -> u8 {
        self.get().endpoint
    }

    /// The address and length of the buffer.
    pub(crate) fn buffer(self) -> (usize, usize) {
        let urb = self.get();
        (urb.buffer.addr(), usize::try_from(urb.buffer_length).unwrap_or(0))
    }

    /// The kernel's memory for the URB apart from the memory common to all.
    pub(crate) fn overhead(self) -> usize {
        match self.get().kind {
            abi::KIND_CONTROL => abi::SETUP_LEN,
            abi::KIND_ISOCHRONOUS => self.packets().len() * abi::PACKET_LEN,
            _ => 0,
        }
    }

    /// Whether the buffer may be in parts.
    pub(crate) fn is_scattered(self) -> bool {
        self.get().kind == abi::KIND_BULK
    }

    /// The first `len` bytes of the buffer.
    fn bytes<'a>(self, len: usize) -> &'a mut [u8] {
        if len == 0 {
            return &mut [];
        }
        // SAFETY: the program's buffer has the stated length, and is the kernel's for now.
        unsafe { std::slice::from_raw_parts_mut(self.get().buffer, len) }
    }

    fn packets<'a>(self) -> &'a mut [IsoPacket] {
        let count = usize::try_from(self.get().number_of_packets).unwrap_or(0);
        // SAFETY: the packets lie behind the URB, within the program's allocation.
        let first = unsafe { self.0.add(1) }.cast::<IsoPacket>();
        // SAFETY: there are as many as the URB says.
        unsafe { std::slice::from_raw_parts_mut(first, count) }
    }
}

/// A node's memory of its endpoints' data.
#[derive(Default)]
pub(crate) struct Streams {
    streams: [Stream; 32],
    /// When 0x83 had news last, or will have.
    tick: Option<Instant>,
    pub(crate) buffer: Vec<u8>,
}

/// The data of an endpoint up to now.
#[derive(Clone, Copy, Default)]
pub(crate) struct Stream {
    pub(crate) bytes: u64,
    pub(crate) urbs: u64,
    /// OUT: bytes different from the pattern.
    pub(crate) errors: u64,
    position: u64,
}

impl Streams {
    pub(crate) const fn get(&self, endpoint: u8) -> Stream {
        self.streams[node::index(endpoint)]
    }

    pub(crate) const fn clear_counters(&mut self) {
        let mut index = 0;
        while index < self.streams.len() {
            let stream = &mut self.streams[index];
            (stream.bytes, stream.urbs, stream.errors) = (0, 0, 0);
            index += 1;
        }
    }

    /// Starts the data of endpoints again, a bit each.
    pub(crate) fn restart(&mut self, endpoints: u32) {
        for (index, stream) in self.streams.iter_mut().enumerate() {
            if endpoints & 1 << index != 0 {
                stream.position = 0;
            }
        }
    }

    pub(crate) fn next_tick(&mut self, now: Instant) -> Instant {
        let due = self.tick.map_or(now, |last| last + TICK).max(now);
        self.tick = Some(due);
        due
    }
}

/// Whether usbfs takes a URB (`proc_do_submiturb`), and the URB's endpoint; `None` for the default
/// endpoint.
pub(crate) fn check(
    urb: UrbPtr,
    host: &mut Locked<'_>,
    node: usize,
) -> Result<Option<Endpoint>, c_int> {
    let fields = urb.get();
    if fields.buffer_length < 0 || fields.buffer_length > 0 && fields.buffer.is_null() {
        return Err(libc::EINVAL);
    }
    if fields.kind == abi::KIND_CONTROL && fields.endpoint & 0x7f == 0 {
        return check_control(urb, host, node).map(|()| None);
    }
    let interface = host.interface_of(fields.endpoint)?;
    host.check(node, interface)?;
    let endpoint = host.endpoint(fields.endpoint).ok_or(libc::ENOENT)?;
    match (fields.kind, endpoint.kind) {
        (abi::KIND_CONTROL, descriptors::CONTROL) => check_control(urb, host, node)?,
        (abi::KIND_ISOCHRONOUS, descriptors::ISOCHRONOUS) => check_packets(urb)?,
        (abi::KIND_INTERRUPT | abi::KIND_BULK, descriptors::INTERRUPT)
        | (abi::KIND_BULK, descriptors::BULK) => {}
        _ => return Err(libc::EINVAL),
    }
    Ok(Some(endpoint))
}

fn check_control(urb: UrbPtr, host: &mut Locked<'_>, node: usize) -> Result<(), c_int> {
    let (_, len) = urb.buffer();
    let setup = urb.bytes(len).first_chunk::<{ abi::SETUP_LEN }>().ok_or(libc::EINVAL)?;
    if len < abi::SETUP_LEN + usize::from(u16::from_le_bytes([setup[6], setup[7]])) {
        return Err(libc::EINVAL);
    }
    host.check_recipient(node, *setup)
}

/// usbfs takes 1 to 128 packets, whose lengths add up to the buffer's.
fn check_packets(urb: UrbPtr) -> Result<(), c_int> {
    let fields = urb.get();
    if !(1..=128).contains(&fields.number_of_packets) {
        return Err(libc::EINVAL);
    }
    if urb.packets().iter().any(|packet| packet.length > 98_304) {
        return Err(libc::EINVAL);
    }
    let len: u64 = urb.packets().iter().map(|packet| u64::from(packet.length)).sum();
    if u64::try_from(fields.buffer_length).is_ok_and(|buffer| len <= buffer) {
        Ok(())
    } else {
        // Here the kernel would read or write behind the buffer.
        Err(libc::EFAULT)
    }
}

/// The check of the lengths by `usb_submit_urb`.
pub(crate) fn check_lengths(urb: UrbPtr, endpoint: Option<Endpoint>) -> Result<(), c_int> {
    let Some(endpoint) = endpoint else { return Ok(()) };
    let is_too_long = |packet: &IsoPacket| packet.length > endpoint.packet_max;
    let isochronous = endpoint.kind == descriptors::ISOCHRONOUS;
    if endpoint.max_packet & 0x7ff == 0 || isochronous && urb.packets().iter().any(is_too_long) {
        return Err(libc::EMSGSIZE);
    }
    Ok(())
}

/// The device's behaviour for a URB.
pub(crate) fn behaviour(urb: UrbPtr, device: &Device) -> Behaviour {
    if urb.is_control() || !device.options.is_standard() {
        return Behaviour::Flows;
    }
    standard::behaviour(urb.endpoint())
}

/// Ends a URB without the device.
pub(crate) fn abandon(urb: UrbPtr, status: c_int) {
    let fields = urb.get();
    fields.status = status;
    fields.actual_length = 0;
    if fields.kind == abi::KIND_ISOCHRONOUS {
        for packet in urb.packets() {
            (packet.actual_length, packet.status) = (0, -libc::EXDEV);
        }
    }
}

/// Moves a URB's data and writes its result. `number` counts from 1; control requests have 0.
pub(crate) fn complete(urb: UrbPtr, streams: &mut Streams, host: &mut Locked<'_>, number: u64) {
    let options = host.device.options;
    let fields = urb.get();
    (fields.status, fields.error_count) = (0, 0);
    if fields.kind == abi::KIND_CONTROL {
        return complete_control(urb, streams, host);
    }
    let stalls = options.stall.is_some_and(|every| number.is_multiple_of(every));
    if stalls && fields.kind != abi::KIND_ISOCHRONOUS {
        (fields.status, fields.actual_length) = (-libc::EPIPE, 0);
        return;
    }
    let stream = &mut streams.streams[node::index(fields.endpoint)];
    let (_, requested) = urb.buffer();
    let ticks =
        behaviour(urb, host.device) != Behaviour::Flows && fields.kind == abi::KIND_INTERRUPT;
    let len = if ticks { requested.min(8) } else { requested };
    match (options.data, fields.endpoint & 0x80 != 0) {
        (Data::None, _) | (Data::Counter, false) => {}
        (Data::Counter, true) => write_counters(urb.bytes(len), stream.urbs),
        (Data::Pattern, true) if ticks => write_counter(urb.bytes(len), stream.urbs),
        (Data::Pattern, true) => fill_pattern(stream.position, urb.bytes(len)),
        (Data::Pattern, false) => stream.errors += pattern_errors(stream.position, urb.bytes(len)),
    }
    stream.urbs += 1;
    stream.bytes += len as u64;
    stream.position += len as u64;
    fields.actual_length = c_int::try_from(len).unwrap_or(c_int::MAX);
    if fields.kind == abi::KIND_ISOCHRONOUS {
        fields.error_count = complete_packets(urb.packets(), stalls);
    }
}

/// Fills all packets, but loses the first packet of a URB that stalls.
fn complete_packets(packets: &mut [IsoPacket], stalls: bool) -> c_int {
    for packet in &mut *packets {
        (packet.actual_length, packet.status) = (packet.length, 0);
    }
    if let Some(first) = packets.first_mut().filter(|_| stalls) {
        (first.actual_length, first.status) = (0, -libc::EPROTO);
    }
    c_int::from(stalls)
}

fn complete_control(urb: UrbPtr, streams: &mut Streams, host: &mut Locked<'_>) {
    let fields = urb.get();
    let (_, len) = urb.buffer();
    let (setup, data) = urb.bytes(len).split_at_mut(abi::SETUP_LEN);
    let mut request = [0; abi::SETUP_LEN];
    request.copy_from_slice(setup);
    let wanted = usize::from(u16::from_le_bytes([request[6], request[7]]));
    match requests::answer(request, &mut data[..wanted], streams, host) {
        Some(moved) => fields.actual_length = c_int::try_from(moved).unwrap_or(c_int::MAX),
        None => (fields.status, fields.actual_length) = (-libc::EPIPE, 0),
    }
}

/// Writes the counter into each page. Data of a device lies in pages of the program's own; a page
/// that nobody has written is the system's page of zeroes, for all such addresses the same, and is
/// read from the fastest cache, however long the data is.
fn write_counters(room: &mut [u8], count: u64) {
    room.chunks_mut(PAGE).for_each(|page| write_counter(page, count));
}

fn write_counter(room: &mut [u8], count: u64) {
    let bytes = count.to_le_bytes();
    let len = room.len().min(bytes.len());
    room[..len].copy_from_slice(&bytes[..len]);
}

fn fill_pattern(position: u64, room: &mut [u8]) {
    let mut next = position % PERIOD;
    for byte in room {
        *byte = u8::try_from(next).unwrap_or(0);
        next = if next + 1 == PERIOD { 0 } else { next + 1 };
    }
}

fn pattern_errors(position: u64, data: &[u8]) -> u64 {
    let mut next = position % PERIOD;
    let mut errors = 0;
    for &byte in data {
        errors += u64::from(u64::from(byte) != next);
        next = if next + 1 == PERIOD { 0 } else { next + 1 };
    }
    errors
}
