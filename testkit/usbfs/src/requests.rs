//! Control requests to the device: the standard requests of an idle device, and some vendor
//! requests of usbferry's simulated loopback (`usb::sim::loopback::request`), with the same
//! numbers: COUNTERS, CLEAR_COUNTERS, WRITE, READ and VANISH.

use crate::device::Locked;
use crate::standard;
use crate::transfers::Streams;

/// Bytes that WRITE keeps.
const BUFFER_LEN: usize = 4096;

/// Answers a request: the bytes of its data stage, or `None` for a stall.
pub(crate) fn answer(
    setup: [u8; 8],
    data: &mut [u8],
    streams: &mut Streams,
    host: &mut Locked<'_>,
) -> Option<usize> {
    host.tell(setup).ok()?;
    let [kind, request, value_low, value_high, index_low, ..] = setup;
    match (kind, request) {
        // GET_STATUS of device, interface or endpoint.
        (0x80..=0x82, 0) => Some(put(data, &[0, 0])),
        // CLEAR_FEATURE and SET_FEATURE likewise, SET_CONFIGURATION, SET_INTERFACE.
        (0x00..=0x02, 1 | 3) | (0x00, 9) | (0x01, 11) => Some(0),
        // GET_DESCRIPTOR.
        (0x80, 6) => Some(put(data, &descriptor(value_high, value_low, host)?)),
        // GET_CONFIGURATION.
        (0x80, 8) => Some(put(data, &[host.told()])),
        // GET_INTERFACE.
        (0x81, 10) => Some(put(data, &[host.setting(index_low)?])),
        (0xc0, 0x01) => Some(put(data, &counters(index_low, streams))),
        (0x40, 0x02) => {
            streams.clear_counters();
            Some(0)
        }
        (0x40, 0x03) => {
            let len = data.len().min(BUFFER_LEN);
            streams.buffer.clear();
            streams.buffer.extend_from_slice(&data[..len]);
            Some(len)
        }
        (0xc0, 0x04) => Some(put(data, &streams.buffer)),
        (0x40, 0x24) => {
            host.device.unplug();
            Some(0)
        }
        _ => None,
    }
}

fn descriptor(kind: u8, index: u8, host: &Locked<'_>) -> Option<Vec<u8>> {
    let device = host.device;
    match (kind, index) {
        (1, 0) => Some(device.options.device().to_vec()),
        (2, index) => Some(device.options.configuration(index.into())?.to_vec()),
        (3, 0) => Some(vec![4, 3, 0x09, 0x04]),
        (3, 1..=2) => Some(string(standard::STRINGS[usize::from(index) - 1])),
        (3, 3) => Some(string(&format!("{}{}", standard::STRINGS[2], device.number()))),
        _ => None,
    }
}

/// A string descriptor.
fn string(text: &str) -> Vec<u8> {
    let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let len = u8::try_from(units.len() + 2).unwrap_or(u8::MAX);
    [&[len, 3], units.as_slice()].concat()
}

/// Bytes, URBs, errors, and no empty packets.
fn counters(endpoint: u8, streams: &Streams) -> Vec<u8> {
    let stream = streams.get(endpoint);
    [stream.bytes, stream.urbs, stream.errors, 0].into_iter().flat_map(u64::to_le_bytes).collect()
}

fn put(room: &mut [u8], bytes: &[u8]) -> usize {
    let len = room.len().min(bytes.len());
    room[..len].copy_from_slice(&bytes[..len]);
    len
}
