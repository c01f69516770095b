//! Control reads of more bytes than libusb moves at once, on the simulated usbfs: descriptors known
//! to the host are answered in full, and other reads as far as the device has data.

use std::fs;
use std::path::PathBuf;

use crate::hardware::{Server, new_root, transfer, urb};
use usbferry_load::client::{Client, Reply};
use usbferry_load::pdu;

const EPIPE: i32 = -32;

/// A directory for hardware, with the file of a configuration descriptor of `len` bytes: one
/// interface, and class descriptors that fill the rest.
fn long_configuration(len: usize) -> (PathBuf, Vec<u8>) {
    let [low, high] = u16::try_from(len).expect("a word").to_le_bytes();
    let mut bytes = vec![9, 2, low, high, 1, 1, 0, 0x80, 50];
    bytes.extend([9, 4, 0, 0, 1, 0xff, 0, 0, 0]);
    bytes.extend([7, 5, 0x81, 2, 0, 2, 0]);
    while bytes.len() < len {
        let rest = len - bytes.len();
        // A single byte is no descriptor.
        let own = u8::try_from(if rest == 256 { 254 } else { rest.min(255) }).expect("a byte");
        bytes.extend([own, 0x24]);
        bytes.extend(2..own);
    }
    let root = new_root();
    fs::write(root.join("configuration"), &bytes).expect("it is ours");
    (root, bytes)
}

fn get_configuration(client: &mut Client, index: u8, len: usize) -> Reply {
    let [low, high] = u16::try_from(len).expect("a word").to_le_bytes();
    client.control([0x80, 6, index, 2, 0, 0, low, high], &[]).expect("it is answered")
}

#[test]
fn configuration_descriptors_are_answered_whole_whatever_their_length() {
    for len in [85, 4095, 4096, 4097, 6000, 65_535] {
        let (root, bytes) = long_configuration(len);
        let options = format!("config=@{}", root.join("configuration").display());
        let server = Server::start_in(root, &options, &[]);
        let mut client = server.attach();
        for asked in [9, 255, 4096, 4097, 6000, 65_535, len] {
            let reply = get_configuration(&mut client, 0, asked);
            assert_eq!(reply.status, 0, "{asked} of {len} bytes");
            assert!(reply.data == bytes[..asked.min(len)], "{asked} of {len} bytes");
        }
        let missing = get_configuration(&mut client, 1, 9);
        assert_eq!((missing.status, missing.actual_length), (EPIPE, 0));
        assert_eq!(transfer(&mut client, urb(0x81, 512), &[]).status, 0);
    }
}

/// WRITE and READ of the simulated device, which keeps the written data.
fn write(client: &mut Client, data: &[u8]) {
    let [low, high] = u16::try_from(data.len()).expect("a word").to_le_bytes();
    let reply = client.control([0x40, 3, 0, 0, 0, 0, low, high], data).expect("it is answered");
    assert_eq!(reply.status, 0);
}

fn read(client: &mut Client, len: u16) -> Reply {
    let [low, high] = len.to_le_bytes();
    client.control([0xc0, 4, 0, 0, 0, 0, low, high], &[]).expect("it is answered")
}

#[test]
fn a_long_read_gets_what_the_device_has() {
    let server = Server::start("");
    let mut client = server.attach();
    for len in [0, 1, 100, 4095] {
        let data = pdu::pattern(len);
        write(&mut client, &data);
        for asked in [4096, 4097, 6000, u16::MAX] {
            let reply = read(&mut client, asked);
            assert_eq!(reply.status, 0, "{asked} asked for, {len} there");
            assert!(reply.data == data, "{asked} asked for, {len} there");
        }
    }
}

/// If the device has as much data as requested, whether more would follow is unknown.
#[test]
fn a_long_read_that_may_be_cut_is_refused_and_said() {
    let server = Server::start("");
    let mut client = server.attach();
    let data = pdu::pattern(4096);
    write(&mut client, &data);
    assert!(read(&mut client, 4096).data == data);
    let before = server.said("WARN").len();
    for _ in 0..3 {
        let refused = read(&mut client, 4097);
        assert!(refused.status < 0, "{}", refused.status);
        assert_eq!(refused.actual_length, 0);
    }
    assert_eq!(transfer(&mut client, urb(0x81, 512), &[]).status, 0);
    assert_eq!(
        server.said_by_now("WARN", before + 1).len(),
        before + 1,
        "it is said once a device"
    );
}
