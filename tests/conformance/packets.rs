//! number_of_packets on endpoints with and without packets. The number of descriptors behind a
//! SUBMIT depends on its endpoint, in the setting in force or in a setting requested and under way.
//! Otherwise the field has a stray value, left there by some clients.

use crate::support::client::{EINVAL, ENOENT, MiniClient};
use crate::support::endpoints::{INTERRUPT, ISO_SINK, ISO_SOURCE, LOOP_OUT, SINK, SOURCE};
use crate::support::hex::hex;
use crate::support::submit::{IN, Submit, in_a_row, setup};
use crate::support::{Server, pattern};
use usbferry::usb::sim::loopback::request;

/// Possible numbers of packets.
const PLAUSIBLE: [u32; 5] = [1, 2, 3, 1000, 1024];

/// Impossible numbers of packets, and 0 and -1, the values of clients for URBs without packets.
const IMPLAUSIBLE: [u32; 6] = [0, u32::MAX, 1025, 0x7fff_ffff, 0x8000_0000, 0xffff_fffb];

/// A client of a device with slow special requests, so that PDUs in the same write are looked at
/// while a request is performed.
fn start() -> (Server, MiniClient) {
    let server = Server::start("loopback");
    let mut client = server.attach();
    client.command(request::SPECIAL_DELAY, 20, 0);
    (server, client)
}

/// Requests that leave the setting open, with the setting of interface 1 before them. None of them
/// adds isochronous endpoints.
fn openers() -> Vec<(u16, Vec<Submit>)> {
    let [set_interface, set_configuration] =
        [Submit::set_interface, |value, _| Submit::set_configuration(value)];
    let mut openers = Vec::new();
    for before in [0, 1] {
        openers.extend([
            (before, vec![set_interface(0, 0)]),
            (before, vec![set_interface(1, 0)]),
            (before, vec![set_interface(1, 7)]),
            (before, vec![set_interface(9, 0)]),
            (before, vec![set_configuration(1, 0)]),
            (before, vec![set_configuration(0, 0), set_configuration(1, 0)]),
            (before, vec![set_configuration(7, 0)]),
            (before, vec![set_interface(0, 0), Submit::clear_halt(SOURCE), set_interface(1, 0)]),
            (before, vec![Submit::clear_halt(SOURCE)]),
            (before, vec![Submit::port_reset()]),
        ]);
    }
    openers
}

/// Issue 9, C 1, byte for byte.
#[test]
fn a_stray_value_behind_set_interface() {
    let (_server, mut client) = start();
    client.send(&hex("00000001 00000001 00010002 00000000 00000000 / 0 0 0 0 0 / 010b010001000000
         00000001 00000002 00010002 00000001 00000000 / 0 00000012 0 00000003 0 / 8006000100001200
         00000001 00000003 00010002 00000001 00000000 / 0 00000012 0 0 0 / 8006000100001200"));
    let expected = "00000003 00000001 Z(12) / 0 0 0 0 0 / Z(8)";
    assert_eq!(client.read(48), hex(expected));
    for header in [
        "00000003 00000002 Z(12) / 0 00000012 0 00000003 0 / Z(8)",
        "00000003 00000003 Z(12) / 0 00000012 0 0 0 / Z(8)",
    ] {
        assert_eq!(client.read(48), hex(header));
        assert_eq!(client.read(18)[..2], [18, 1], "a device descriptor");
    }
    client.set_next_seqnum(4);
    client.assert_in_sync();
}

/// Endpoint 0, bulk and interrupt endpoints have no packets, with any request under way and with
/// any number.
#[test]
fn endpoints_that_are_never_isochronous() {
    let (_server, mut client) = start();
    let data = pattern(0, 64);
    let urbs = [
        (Submit::get_device_descriptor(), 18),
        (Submit::control(setup(request::OUT, request::WRITE, 0, 0, 64), &data), 64),
        (Submit::read(SOURCE, 16), 16),
        (Submit::write(LOOP_OUT, &data), 64),
        (Submit::read(INTERRUPT, 64), 8),
    ];
    let left_over = |number_of_packets| {
        let with = |(urb, _): &(Submit, u32)| Submit { number_of_packets, ..urb.clone() };
        urbs.iter().map(with).collect::<Vec<_>>()
    };
    for (before, opener) in openers() {
        client.set_interface(1, before);
        let numbers = PLAUSIBLE.into_iter().chain(IMPLAUSIBLE);
        let behind = numbers.flat_map(left_over);
        let submits: Vec<Submit> = opener.iter().cloned().chain(behind).collect();
        let seqnums = client.submit_all(&submits);
        let (opened, behind) = seqnums.split_at(opener.len());
        opened.iter().for_each(|&seqnum| drop(client.ret_of(seqnum)));
        for (&seqnum, (urb, len)) in behind.iter().zip(urbs.iter().cycle()) {
            let ret = client.ret_of(seqnum);
            assert_eq!((ret.status, ret.actual_length), (0, *len), "{opener:?} {urb:?}");
        }
        client.assert_in_sync();
    }
}

/// An isochronous endpoint missing both in the setting in force and in the requested setting: there
/// are no descriptors, and no endpoint.
#[test]
fn unrequested_isochronous_endpoints() {
    let (_server, mut client) = start();
    for opener in [
        vec![Submit::set_interface(0, 0)],
        vec![Submit::set_interface(1, 0)],
        vec![Submit::set_interface(0, 1), Submit::set_interface(1, 0)],
        vec![Submit::set_configuration(1)],
        vec![Submit::set_configuration(0), Submit::set_configuration(1)],
    ] {
        for number_of_packets in PLAUSIBLE.into_iter().chain(IMPLAUSIBLE) {
            let read = Submit { number_of_packets, ..Submit::read(ISO_SOURCE, 16) };
            let write = Submit { number_of_packets, ..Submit::write(ISO_SINK, &[1; 100]) };
            let submits: Vec<Submit> = opener.iter().cloned().chain([read, write]).collect();
            let seqnums = client.submit_all(&submits);
            let (opened, behind) = seqnums.split_at(opener.len());
            opened.iter().for_each(|&seqnum| drop(client.ret(seqnum)));
            for &seqnum in behind {
                let ret = client.ret(seqnum);
                assert_eq!((ret.status, ret.actual_length, ret.error_count), (ENOENT, 0, 0));
            }
        }
        client.assert_in_sync();
    }
}

/// A requested isochronous endpoint has descriptors, whether the request then succeeds or not.
#[test]
fn requested_isochronous_endpoints() {
    let (_server, mut client) = start();
    for refused in [false, true] {
        for number_of_packets in PLAUSIBLE {
            client.set_interface(1, 0);
            client.command(request::REFUSE_SPECIAL, u16::from(refused), 0);
            let lengths = vec![8; number_of_packets as usize];
            let data = pattern(0, 8 * lengths.len());
            let seqnums = client.submit_all(&[
                Submit::set_interface(1, 1),
                Submit::iso_read(ISO_SOURCE, &lengths),
                Submit::iso_write(ISO_SINK, &data, &lengths),
                Submit { number_of_packets, ..Submit::read(SOURCE, 16) },
            ]);
            assert_eq!(client.ret(seqnums[0]).status != 0, refused);
            for &seqnum in &seqnums[1..3] {
                let ret = client.ret(seqnum);
                let expected = match refused {
                    true => (ENOENT, 0, number_of_packets),
                    false => (0, 8 * number_of_packets, 0),
                };
                assert_eq!((ret.status, ret.actual_length, ret.error_count), expected);
                assert_eq!(ret.descriptors.len(), lengths.len());
            }
            assert_eq!(client.ret(seqnums[3]).actual_length, 16);
        }
    }
    client.assert_in_sync();
}

/// An existing isochronous endpoint has descriptors while the request that removes the endpoint may
/// fail; an impossible number means no packets.
#[test]
fn isochronous_endpoints_about_to_go() {
    let (_server, mut client) = start();
    let requests = [
        (Submit::set_interface(1, 0), ENOENT),
        (Submit::set_configuration(1), ENOENT),
        (Submit::set_configuration(0), ENOENT),
        (Submit::set_interface(1, 7), 0),
        (Submit::set_interface(0, 0), 0),
        (Submit::clear_halt(SOURCE), 0),
        (Submit::port_reset(), 0),
    ];
    for (request, status) in requests {
        let changes = status != 0 || request.setup[1] == 11;
        client.call(&Submit::set_configuration(1));
        client.set_interface(1, 1);
        let mut submits = vec![
            request,
            Submit::iso_read(ISO_SOURCE, &[100; 3]),
            Submit::iso_write(ISO_SINK, &[7; 300], &[100; 3]),
        ];
        if changes {
            let implausible = IMPLAUSIBLE.into_iter();
            submits.extend(implausible.map(|number_of_packets| Submit {
                number_of_packets,
                ..Submit::read(ISO_SOURCE, 64)
            }));
        }
        let seqnums = client.submit_all(&submits);
        client.ret_of(seqnums[0]);
        for &seqnum in &seqnums[1..3] {
            let ret = client.ret_of(seqnum);
            let expected = if status == 0 { (0, 300) } else { (ENOENT, 0) };
            assert_eq!((ret.status, ret.actual_length), expected, "{:?}", submits[0]);
        }
        for &seqnum in &seqnums[3..] {
            let expected = if status == 0 { EINVAL } else { ENOENT };
            assert_eq!(client.ret_of(seqnum).status, expected);
        }
    }
    client.assert_in_sync();
}

/// A request that can't change a setting leaves nothing open: too many packets remain too many.
#[test]
fn too_many_packets_behind_a_request_that_sets_nothing() {
    for request in [Submit::clear_halt(SOURCE), Submit::port_reset()] {
        for number_of_packets in [1025, u32::MAX, 0x8000_0000] {
            let (server, mut client) = start();
            client.set_interface(1, 1);
            let (_, request) = client.prepare(&request);
            let submit = Submit { number_of_packets, ..Submit::read(ISO_SOURCE, 64) };
            let (_, submit) = client.prepare(&submit);
            client.send_anyway(&[request, submit].concat());
            client.read_to_end();
            server.assert_serves(0);
        }
    }
}

/// Several requests in a row: any of their settings may come into force.
#[test]
fn requests_in_a_row() {
    let (_server, mut client) = start();
    let np = |submit: Submit| Submit { number_of_packets: 3, ..submit };
    let submits = [
        (Submit::set_interface(1, 0), 0, 0),
        (np(Submit::get_device_descriptor()), 0, 18),
        (np(Submit::read(ISO_SOURCE, 16)), ENOENT, 0),
        (Submit::set_interface(1, 1), 0, 0),
        (np(Submit::read(SOURCE, 16)), 0, 16),
        (Submit::iso_read(ISO_SOURCE, &[64; 3]), 0, 192),
        (Submit::set_configuration(1), 0, 0),
        (np(Submit::write(SINK, &pattern(0, 9))), 0, 9),
        (Submit::iso_read(ISO_SOURCE, &[64; 3]), ENOENT, 0),
        (Submit::set_interface(1, 1), 0, 0),
        (Submit::iso_read(ISO_SOURCE, &[64; 3]), 0, 192),
        (np(Submit { length: 64, ..Submit::read(INTERRUPT, 64) }), 0, 8),
    ];
    let all: Vec<Submit> = submits.iter().map(|(submit, ..)| submit.clone()).collect();
    let seqnums = client.submit_all(&all);
    for (&seqnum, &(_, status, len)) in seqnums.iter().zip(&submits) {
        let ret = client.ret_of(seqnum);
        assert_eq!((ret.status, ret.actual_length), (status, len), "{seqnum}");
    }
    client.assert_in_sync();
}

/// An unlinked request does not count any more once nothing is under way.
#[test]
fn an_unlinked_request() {
    let (_server, mut client) = start();
    let slow = client.submit(&Submit::clear_halt(SOURCE));
    let special = client.submit(&Submit::set_interface(1, 1));
    let unlink = client.unlink(special);
    assert_eq!(client.ret_unlink(unlink), crate::support::client::ECONNRESET);
    assert_eq!(client.ret(slow).status, 0);
    for number_of_packets in PLAUSIBLE {
        let seqnums = client.submit_all(&[
            Submit::set_interface(0, 0),
            Submit { number_of_packets, ..Submit::read(ISO_SOURCE, 16) },
        ]);
        assert_eq!(client.ret(seqnums[0]).status, 0);
        assert_eq!(client.ret(seqnums[1]).status, ENOENT);
    }
    client.assert_in_sync();
}

/// With nothing under way only the setting in force decides. For an endpoint missing in the setting
/// the number is believed, since the client must have another setting in mind.
#[test]
fn nothing_under_way() {
    let (_server, mut client) = start();
    for address in [ISO_SOURCE, 0x8e] {
        let submit = Submit { length: 16, ..Submit::read(address, 16) };
        let ret = client.call(&submit.clone().with_packets(&in_a_row(&[8, 8])));
        assert_eq!((ret.status, ret.error_count), (ENOENT, 2));
        for number_of_packets in IMPLAUSIBLE {
            let ret = client.call(&Submit { number_of_packets, ..submit.clone() });
            assert_eq!((ret.status, ret.error_count), (ENOENT, 0));
        }
    }
    for number_of_packets in PLAUSIBLE {
        let submit = Submit { number_of_packets, direction: IN, ..Submit::read(SOURCE, 16) };
        assert_eq!(client.call_ok(&submit).len(), 16);
    }
    client.assert_in_sync();
}

/// The number is a stray value for endpoints that exist only in other settings or configurations,
/// and are isochronous in none: the client cannot have an isochronous endpoint in mind.
#[test]
fn endpoints_that_are_never_isochronous_and_not_in_force() {
    let (_server, mut client) = start();
    client.call_ok(&Submit::set_configuration(0));
    let data = pattern(0, 64);
    for number_of_packets in PLAUSIBLE.into_iter().chain(IMPLAUSIBLE) {
        for urb in [
            Submit::read(SOURCE, 16),
            Submit::write(SINK, &data),
            Submit::write(LOOP_OUT, &data),
            Submit::read(INTERRUPT, 64),
        ] {
            let ret = client.call(&Submit { number_of_packets, ..urb });
            assert_eq!((ret.status, ret.actual_length, ret.error_count), (ENOENT, 0, 0));
        }
        client.assert_in_sync();
    }
    // Endpoints that are isochronous in some setting have descriptors.
    let ret = client.call(&Submit::iso_read(ISO_SOURCE, &[64; 3]));
    assert_eq!((ret.status, ret.actual_length, ret.error_count), (ENOENT, 0, 3));
    client.call_ok(&Submit::set_configuration(1));
    assert_eq!(client.call_ok(&Submit::read(SOURCE, 16)).len(), 16);
}
