//! Control transfers: data in both directions, short, stalled, too long, or against their SETUP
//! packet.

use crate::support::client::{EINVAL, EOVERFLOW, EPIPE, MiniClient};
use crate::support::hex::hex;
use crate::support::submit::{IN, OUT, Submit, setup};
use crate::support::{Server, pattern};
use usbferry::usb::sim::loopback::request;

/// The device descriptor of the simulated loopback device.
const DEVICE_DESCRIPTOR: [u8; 18] =
    [18, 1, 0x00, 0x02, 0, 0, 0, 64, 0x09, 0x12, 0x01, 0x00, 0x00, 0x01, 1, 2, 3, 1];

/// Sends the PDU of the table and expects exactly the reply's bytes.
fn exchange(client: &mut MiniClient, sends: &str, expects: &str, data: &[u8]) {
    client.send(&hex(sends));
    let expected = [hex(expects), data.to_vec()].concat();
    assert_eq!(client.read(expected.len()), expected);
}

#[test]
fn a_control_read_returns_the_devices_data() {
    let server = Server::start("loopback");
    let mut client = server.attach();
    exchange(
        &mut client,
        "00000001 00000001 D 00000001 0 / 00000200 00000012 0 0 0 / 8006000100001200",
        "00000003 00000001 Z(12) / 0 00000012 0 0 0 / Z(8)",
        &DEVICE_DESCRIPTOR,
    );
    client.assert_in_sync();
}

#[test]
fn a_short_control_read_has_the_length_of_the_data() {
    let server = Server::start("loopback");
    let mut client = server.attach();
    exchange(
        &mut client,
        "00000001 00000001 D 00000001 0 / 00000200 000000ff 0 0 0 / 800600010000ff00",
        "00000003 00000001 Z(12) / 0 00000012 0 0 0 / Z(8)",
        &DEVICE_DESCRIPTOR,
    );
    client.assert_in_sync();
}

#[test]
fn a_stalled_control_read_gets_epipe() {
    let server = Server::start("loopback");
    let mut client = server.attach();
    exchange(
        &mut client,
        // A BOS, which a device of USB 2.0 does not have.
        "00000001 00000001 D 00000001 0 / 00000200 00000005 0 0 0 / 8006000f00000500",
        "00000003 00000001 Z(12) / ffffffe0 0 0 0 0 / Z(8)",
        &[],
    );
    client.assert_in_sync();
}

#[test]
fn the_setup_packet_reaches_the_device_little_endian() {
    let server = Server::start("loopback");
    let mut client = server.attach();
    let string = client.call_ok(&Submit::control(setup(0x80, 6, 0x0301, 0x0409, 255), &[]));
    assert_eq!(
        string,
        [&[18, 3][..], &"usbferry".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()]
            .concat()
    );
    assert_eq!(client.last_setup(), hex("80 06 01 03 09 04 ff 00"));
}

#[test]
fn a_control_write_reaches_the_device() {
    let server = Server::start("loopback");
    let mut client = server.attach();
    exchange(
        &mut client,
        "00000001 00000001 D 0 0 / 0 00000008 0 0 0 / 4003 3412 7856 0800 / 0102030405060708",
        "00000003 00000001 Z(12) / 0 00000008 0 0 0 / Z(8)",
        &[],
    );
    assert_eq!(client.last_setup(), hex("40 03 34 12 78 56 08 00"));
    assert_eq!(client.ask(request::READ, 0), [1, 2, 3, 4, 5, 6, 7, 8]);
}

/// libusb's limit. A longer read is complete where the device has less, and otherwise refused.
#[test]
fn a_control_transfer_moves_4096_bytes_at_most() {
    let server = Server::start("loopback");
    let mut client = server.attach();
    let out = Submit::control(setup(request::OUT, request::WRITE, 0, 0, 5000), &[7; 5000]);
    let ret = client.call(&out);
    assert_eq!((ret.status, ret.actual_length), (EINVAL, 0));
    client.assert_in_sync();
    let read = |length| Submit::control(setup(request::IN, request::READ, 0, 0, length), &[]);
    for len in [0, 1, 4095] {
        let data = pattern(5, len);
        let length = u16::try_from(len).expect("a short one");
        let out = Submit::control(setup(request::OUT, request::WRITE, 0, 0, length), &data);
        assert_eq!(client.call(&out).status, 0);
        for asked in [4097, 5000, u16::MAX] {
            assert_eq!(client.call_ok(&read(asked)), data, "{asked}");
        }
    }
    let data = pattern(5, 4096);
    let out = Submit::control(setup(request::OUT, request::WRITE, 0, 0, 4096), &data);
    assert_eq!(client.call(&out).actual_length, 4096);
    assert_eq!(client.call_ok(&read(4096)), data);
    // There may be more.
    exchange(
        &mut client,
        "00000001 00000001 D 00000001 0 / 00000200 00001388 0 0 0 / c004 0000 0000 8813",
        "00000003 00000001 Z(12) / ffffffea 0 0 0 0 / Z(8)",
        &[],
    );
    client.assert_in_sync();
}

#[test]
fn a_direction_against_the_setup_packet_gets_einval() {
    let server = Server::start("loopback");
    let mut client = server.attach();
    client.send(&hex("00000001 00000001 D 0 0 / 0 00000040 0 0 0 / 8006000100004000 / Z(64)"));
    let expected = hex("00000003 00000001 Z(12) / ffffffea 0 0 0 0 / Z(8)");
    assert_eq!(client.read(48), expected);
    client.assert_in_sync();
    // The other way round nothing follows the header.
    client.send(&hex("00000001 00000002 D 00000001 0 / 0 00000008 0 0 0 / 4003000000000800"));
    let expected = hex("00000003 00000002 Z(12) / ffffffea 0 0 0 0 / Z(8)");
    assert_eq!(client.read(48), expected);
    client.assert_in_sync();
    assert_eq!(client.ask(request::READ, 0), [0; 0], "the device saw nothing of it");
}

/// Without a data stage the direction says nothing: Windows clients may say IN.
#[test]
fn a_request_without_data_may_have_either_direction() {
    let server = Server::start("loopback");
    let mut client = server.attach();
    for (direction, request_type) in [(IN, 0x40), (OUT, 0x40), (IN, 0xc0), (OUT, 0xc0)] {
        let setup = setup(request_type, request::CLEAR_COUNTERS, 0, 0, 0);
        let submit = Submit { direction, ..Submit::control(setup, &[]) };
        let ret = client.call(&submit);
        // The device knows the request as OUT only, and stalls the other.
        let expected = if request_type == 0x40 { 0 } else { EPIPE };
        assert_eq!((ret.status, ret.actual_length), (expected, 0));
    }
    client.assert_in_sync();
}

/// Old clients could ask for more than their buffer: the data is cut, and the status tells the
/// client.
#[test]
fn an_answer_longer_than_the_buffer_is_cut() {
    let server = Server::start("loopback");
    let mut client = server.attach();
    let whole = Submit::get_device_descriptor();
    for length in [0, 1, 8, 17] {
        let ret = client.call(&Submit { length, ..whole.clone() });
        assert_eq!((ret.status, ret.actual_length), (EOVERFLOW, length));
        assert_eq!(ret.data, DEVICE_DESCRIPTOR[..length as usize]);
    }
    let ret = client.call(&Submit { length: 19, ..whole });
    assert_eq!((ret.status, ret.actual_length), (0, 18), "more room than asked for is no harm");
    client.assert_in_sync();
}

/// OUT data beyond wLength is not sent to the device, and less than wLength is no request.
#[test]
fn out_data_and_its_length_may_differ() {
    let server = Server::start("loopback");
    let mut client = server.attach();
    let write = |length| setup(request::OUT, request::WRITE, 0, 0, length);
    let submit = Submit::control(write(4), &[1, 2, 3, 4]);
    let longer = Submit { length: 10, data: vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10], ..submit.clone() };
    let ret = client.call(&longer);
    assert_eq!((ret.status, ret.actual_length), (0, 4));
    assert_eq!(client.ask(request::READ, 0), [1, 2, 3, 4]);
    let ret = client.call(&Submit { length: 2, data: vec![9, 9], ..submit });
    assert_eq!((ret.status, ret.actual_length), (EINVAL, 0));
    assert_eq!(client.ask(request::READ, 0), [1, 2, 3, 4]);
    client.assert_in_sync();
}

/// Requests to the default endpoint are carried out in turn, regardless of their direction: 100
/// pairs of a write and the read of the written data, all under way at once.
#[test]
fn both_directions_of_the_default_endpoint_share_one_queue() {
    let server = Server::start("loopback:delay=50us");
    let mut client = server.attach();
    let pairs = 0..100u8;
    let write = |byte| Submit::control(setup(request::OUT, request::WRITE, 0, 0, 2), &[byte; 2]);
    let read = Submit::control(setup(request::IN, request::READ, 0, 0, 64), &[]);
    let submits: Vec<Submit> = pairs.clone().flat_map(|byte| [write(byte), read.clone()]).collect();
    let seqnums = client.submit_all(&submits);
    for (byte, pair) in pairs.zip(seqnums.chunks(2)) {
        assert_eq!(client.ret(pair[0]).actual_length, 2);
        assert_eq!(client.ret(pair[1]).data, [byte; 2]);
    }
}
