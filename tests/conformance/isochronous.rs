//! Isochronous URBs: packets, their results, and impossible packets.

use crate::support::client::{EINVAL, ENOENT, EPROTO, EXDEV, MiniClient};
use crate::support::endpoints::{ISO_SINK, ISO_SOURCE, SOURCE};
use crate::support::hex::hex;
use crate::support::submit::{Descriptor, Submit, in_a_row};
use crate::support::{Server, pattern};
use usbferry::usb::sim::loopback::request;

/// A client with the isochronous endpoints of its device selected.
fn start() -> (Server, MiniClient) {
    let server = Server::start("loopback");
    let mut client = server.attach();
    client.set_interface(1, 1);
    (server, client)
}

/// Actual lengths of the packets.
fn actual_lengths(descriptors: &[Descriptor]) -> Vec<u32> {
    descriptors.iter().map(|descriptor| descriptor[2]).collect()
}

fn statuses(descriptors: &[Descriptor]) -> Vec<i32> {
    descriptors.iter().map(|descriptor| descriptor[3].cast_signed()).collect()
}

/// To the byte.
#[test]
fn a_full_read_is_answered_to_the_byte() {
    let (_server, mut client) = start();
    let asked: Vec<String> =
        (0..8u32).map(|n| format!("{:08x} 000000c0 00000000 ffffffee", n * 192)).collect();
    client.send(&hex(&format!(
        "00000001 00000009 D 00000001 00000005 / 00000202 00000600 00000007 00000008 00000001 / \
         Z(8) / {}",
        asked.join(" ")
    )));
    let answered: Vec<String> =
        (0..8u32).map(|n| format!("{:08x} 000000c0 000000c0 00000000", n * 192)).collect();
    let expected = [
        hex("00000003 00000009 Z(12) / 0 00000600 00000007 00000008 0 / Z(8)"),
        pattern(0, 8 * 192),
        hex(&answered.join(" ")),
    ];
    let expected = expected.concat();
    assert_eq!(client.read(expected.len()), expected);
    client.assert_in_sync();
}

#[test]
fn data_of_short_packets_is_compacted() {
    let (_server, mut client) = start();
    client.command(request::PACKETS_SHORT, 100, ISO_SOURCE.into());
    let ret = client.call(&Submit::iso_read(ISO_SOURCE, &[192; 8]));
    assert_eq!((ret.status, ret.actual_length, ret.error_count), (0, 800, 0));
    assert_eq!(ret.data, pattern(0, 800), "compacted");
    let expected: Vec<Descriptor> = (0..8).map(|n| [n * 192, 192, 100, 0]).collect();
    assert_eq!(ret.descriptors, expected);
}

/// The reply has the received data in the order of the packets, without gaps.
#[test]
fn packets_of_every_length_keep_their_order() {
    let (_server, mut client) = start();
    let mut position = 0;
    for short in [0, 1, 100, 1000, 2000, 3072] {
        client.command(request::PACKETS_SHORT, short, ISO_SOURCE.into());
        let lengths = [3072, 0, 5, 1024, 1024, 1, 3000, 0, 192, 1999, 2000, 2001];
        let ret = client.call(&Submit::iso_read(ISO_SOURCE, &lengths));
        let expected = lengths.map(|length| length.min(short.into()));
        assert_eq!(actual_lengths(&ret.descriptors), expected);
        let sum = expected.iter().sum::<u32>();
        assert_eq!(ret.data, pattern(position, sum as usize), "short {short}");
        position += u64::from(sum);
    }
}

/// Offsets are the client's affair; the data comes in the order of the packets.
#[test]
fn offsets_of_in_packets_come_back_unchanged() {
    let (_server, mut client) = start();
    let scattered = [(300, 100), (0, 50), (400, 112), (100, 64)];
    let submit =
        Submit { length: 512, ..Submit::iso_read(ISO_SOURCE, &[]) }.with_packets(&scattered);
    let ret = client.call(&submit);
    assert_eq!(ret.data, pattern(0, 326));
    assert_eq!(ret.descriptors[2], [400, 112, 112, 0]);
}

#[test]
fn a_lost_packet_has_a_status_of_its_own() {
    let (_server, mut client) = start();
    for lost in [0, 3, 7] {
        client.command(request::PACKET_LOST, lost, ISO_SOURCE.into());
        let ret = client.call(&Submit::iso_read(ISO_SOURCE, &[192; 8]));
        assert_eq!((ret.status, ret.error_count, ret.actual_length), (0, 1, 7 * 192));
        let expected: Vec<i32> = (0..8).map(|n| if n == lost { EPROTO } else { 0 }).collect();
        assert_eq!(statuses(&ret.descriptors), expected);
        assert_eq!(ret.descriptors[usize::from(lost)][2], 0);
    }
}

#[test]
fn gaps_between_out_packets_are_not_sent() {
    let (_server, mut client) = start();
    let mut data = vec![0xee; 612];
    for (position, offset) in [(0, 0), (100, 256), (200, 512)] {
        data[offset..offset + 100].copy_from_slice(&pattern(position, 100));
    }
    let submit = Submit::write(ISO_SINK, &data).with_packets(&[(0, 100), (256, 100), (512, 100)]);
    let ret = client.call(&submit);
    assert_eq!((ret.status, ret.actual_length, ret.error_count), (0, 300, 0));
    assert_eq!(actual_lengths(&ret.descriptors), [100; 3]);
    let counters = client.counters(ISO_SINK);
    assert_eq!((counters.bytes, counters.errors), (300, 0), "the sink saw the right bytes");
    // A gap behind the last packet belongs to the PDU as well.
    let data = [pattern(300, 10), vec![0xee; 1000]].concat();
    let ret = client.call(&Submit::write(ISO_SINK, &data).with_packets(&[(0, 10)]));
    assert_eq!(ret.actual_length, 10);
    assert_eq!(client.counters(ISO_SINK).errors, 0);
}

/// OUT packets with data without gaps, of lengths including zero.
#[test]
fn out_packets_in_a_row_may_be_empty() {
    let (_server, mut client) = start();
    let lengths = [0, 1, 3072, 5, 0, 192, 0];
    let ret = client.call(&Submit::iso_write(ISO_SINK, &pattern(0, 3270), &lengths));
    assert_eq!((ret.status, ret.actual_length), (0, 3270));
    assert_eq!(actual_lengths(&ret.descriptors), lengths);
    let counters = client.counters(ISO_SINK);
    assert_eq!((counters.bytes, counters.errors, counters.urbs), (3270, 0, 1));
}

/// In both directions, with packets of up to 3072 bytes.
#[test]
fn a_urb_may_have_1024_packets() {
    let (_server, mut client) = start();
    let ret = client.call(&Submit::iso_read(ISO_SOURCE, &[100; 1024]));
    assert_eq!((ret.status, ret.descriptors.len()), (0, 1024));
    assert_eq!(ret.data, pattern(0, 102_400));
    let data = pattern(0, 102_400);
    let ret = client.call(&Submit::iso_write(ISO_SINK, &data, &[100; 1024]));
    assert_eq!((ret.status, ret.actual_length, ret.descriptors.len()), (0, 102_400, 1024));
    assert_eq!(client.counters(ISO_SINK).errors, 0);
    // Packets of the largest size: 3 MiB in a URB, and all short.
    let ret = client.call(&Submit::iso_read(ISO_SOURCE, &[3072; 1024]));
    assert!(ret.data == pattern(102_400, 3 << 20));
    client.command(request::PACKETS_SHORT, 3071, ISO_SOURCE.into());
    let ret = client.call(&Submit::iso_read(ISO_SOURCE, &[3072; 1024]));
    assert!(ret.data == pattern(102_400 + (3 << 20), 3071 * 1024));
}

/// `no_alloc.rs` shows that no memory is allocated for these packets.
#[test]
fn an_impossible_number_of_packets_closes_the_connection() {
    let (server, mut client) = start();
    for number_of_packets in [1025, 0xffff_fffb, 0xffff_ffff, 0x7fff_ffff, 0x8000_0000] {
        for address in [ISO_SOURCE, ISO_SINK] {
            let submit = match address {
                ISO_SOURCE => Submit::read(ISO_SOURCE, 64),
                _ => Submit::write(ISO_SINK, &[0; 64]),
            };
            let seqnum = client.take_seqnum();
            client.send(&Submit { number_of_packets, ..submit }.bytes(seqnum, client.devid));
            client.expect_drop();
            client = server.attach();
            client.set_interface(1, 1);
        }
    }
}

/// An isochronous URB without packets moves nothing, and no client can mean such a URB.
#[test]
fn a_urb_without_packets_gets_einval() {
    let (_server, mut client) = start();
    let ret = client.call(&Submit::read(ISO_SOURCE, 64));
    assert_eq!((ret.status, ret.actual_length, ret.error_count), (EINVAL, 0, 0));
    let ret = client.call(&Submit::write(ISO_SINK, &[0; 64]));
    assert_eq!((ret.status, ret.actual_length, ret.error_count), (EINVAL, 0, 0));
    client.assert_in_sync();
    assert_eq!(client.counters(ISO_SINK).urbs, 0);
}

#[test]
fn packets_outside_the_buffer_get_einval() {
    let (_server, mut client) = start();
    let outside: [&[(u32, u32)]; 8] = [
        &[(0xffff_ffff, 2)],
        &[(0xffff_ffff, 0xffff_ffff)],
        &[(1, 0xffff_ffff)],
        &[(0, 201)],
        &[(200, 1)],
        &[(0, 100), (101, 100)],
        // Each inside, but all together longer than the buffer.
        &[(0, 150), (0, 150)],
        &[(0, 0x8000_0000), (0, 0x8000_0000)],
    ];
    for packets in outside {
        let np = u32::try_from(packets.len()).unwrap();
        for submit in [
            Submit { length: 200, ..Submit::iso_read(ISO_SOURCE, &[]) },
            Submit::write(ISO_SINK, &[0; 200]),
        ] {
            let ret = client.call(&submit.with_packets(packets));
            assert_eq!((ret.status, ret.actual_length), (EINVAL, 0), "{packets:?}");
            assert_eq!(ret.error_count, np, "no packet was transferred");
            assert_eq!(statuses(&ret.descriptors), vec![EXDEV; packets.len()]);
        }
    }
    // A packet may end at the end of the buffer, and an empty packet may begin there.
    let submit = Submit { length: 200, ..Submit::iso_read(ISO_SOURCE, &[]) };
    let ret = client.call(&submit.with_packets(&[(0, 200), (200, 0)]));
    assert_eq!((ret.status, ret.actual_length), (0, 200));
    client.assert_in_sync();
    assert_eq!(client.counters(ISO_SINK).urbs, 0, "the device saw nothing of it");
}

/// The server joins OUT data in place, and no client sends such packets.
#[test]
fn out_packets_that_overlap_or_go_backwards_get_einval() {
    let (_server, mut client) = start();
    for packets in [[(0, 100), (50, 100)], [(100, 100), (0, 100)]] {
        let ret = client.call(&Submit::write(ISO_SINK, &[0; 200]).with_packets(&packets));
        assert_eq!((ret.status, ret.actual_length, ret.error_count), (EINVAL, 0, 2));
    }
    client.assert_in_sync();
}

#[test]
fn results_in_a_submitted_packet_descriptor_are_ignored() {
    let (_server, mut client) = start();
    for claimed in [1, 192, 0x7fff_ffff, 0xffff_ffff] {
        let mut submit = Submit::iso_read(ISO_SOURCE, &[192; 4]);
        for descriptor in &mut submit.descriptors {
            (descriptor[2], descriptor[3]) = (claimed, claimed);
        }
        let ret = client.call(&submit);
        assert_eq!((ret.status, ret.actual_length, ret.error_count), (0, 4 * 192, 0));
        let mut submit = Submit::iso_write(ISO_SINK, &[0; 400], &[200; 2]);
        submit.descriptors[1][2] = claimed;
        let ret = client.call(&submit);
        assert_eq!((ret.status, ret.actual_length, ret.error_count), (0, 400, 0));
    }
}

/// Setting 0 of the device has no isochronous endpoint.
#[test]
fn a_urb_for_an_endpoint_of_another_setting_gets_enoent() {
    let server = Server::start("loopback");
    let mut client = server.attach();
    for submit in [
        Submit::iso_read(ISO_SOURCE, &[192; 8]),
        Submit::iso_write(ISO_SINK, &[1; 8 * 192], &[192; 8]),
    ] {
        let ret = client.call(&submit);
        assert_eq!((ret.status, ret.actual_length, ret.error_count), (ENOENT, 0, 8));
        assert_eq!(statuses(&ret.descriptors), [EXDEV; 8]);
        client.assert_in_sync();
    }
    // After selecting and leaving the setting the state is as before.
    client.set_interface(1, 1);
    assert_eq!(client.call(&Submit::iso_read(ISO_SOURCE, &[192; 8])).status, 0);
    client.set_interface(1, 0);
    let ret = client.call(&Submit::iso_read(ISO_SOURCE, &[192; 8]));
    assert_eq!((ret.status, ret.error_count), (ENOENT, 8));
}

/// An IN URB is answered, with its packets. An OUT URB, whose data has no place, closes the
/// connection.
#[test]
fn a_urb_above_the_limit_is_refused() {
    let server = Server::start_with("loopback", |settings| {
        settings.policy.limits.memory = 1 << 20;
        settings.policy.limits.urb_len = 64 << 10;
    });
    let mut client = server.attach();
    client.set_interface(1, 1);
    let ret = client.call(&Submit::iso_read(ISO_SOURCE, &[3072; 22]));
    assert_eq!((ret.status, ret.actual_length), (crate::support::client::ENOMEM, 0));
    assert_eq!((ret.error_count, ret.descriptors.len()), (22, 22));
    client.assert_in_sync();
    let seqnum = client.take_seqnum();
    let submit = Submit::iso_write(ISO_SINK, &[0; 22 * 3072], &[3072; 22]);
    client.send_anyway(&submit.bytes(seqnum, client.devid));
    client.expect_drop();
    server.assert_serves(0);
}

/// As sound cards and cameras submit, with bulk transfers beside.
#[test]
fn overlapping_urbs_of_a_stream_lose_nothing() {
    let server = Server::start("loopback:pace=on");
    let mut client = server.attach();
    client.set_interface(1, 1);
    let urb = Submit::iso_read(ISO_SOURCE, &[96; 8]);
    let mut seqnums: std::collections::VecDeque<u32> =
        client.submit_all(&vec![urb.clone(); 4]).into();
    let mut bulk = client.submit(&Submit::read(SOURCE, 512));
    let (mut position, mut bulk_position) = (0, 0);
    for _ in 0..200 {
        let awaited = seqnums.pop_front().unwrap();
        while client.awaits(awaited) {
            match client.reply() {
                crate::support::client::Reply::Submit(ret) if ret.seqnum == awaited => {
                    assert_eq!(ret.data, pattern(position, 768));
                    position += 768;
                }
                crate::support::client::Reply::Submit(ret) if ret.seqnum == bulk => {
                    assert_eq!(ret.data, pattern(bulk_position, 512));
                    bulk_position += 512;
                    bulk = client.submit(&Submit::read(SOURCE, 512));
                }
                other => panic!("{awaited} comes next, not {other:?}"),
            }
        }
        seqnums.push_back(client.submit(&urb));
    }
    assert!(bulk_position > 0);
}

/// A URB with packets for an endpoint that is no longer isochronous, and the other way round, while
/// the endpoint's future type is unknown.
#[test]
fn packets_for_another_endpoint() {
    let (_server, mut client) = start();
    // Known to be bulk: the number of packets is meaningless, and no descriptors follow.
    let read = Submit { number_of_packets: 2, ..Submit::read(SOURCE, 16) };
    assert_eq!(client.call_ok(&read).len(), 16);
    // The same behind a request that can't change the type.
    let seqnums = client.submit_all(&[
        Submit::set_interface(0, 0),
        read,
        Submit { length: 16, ..Submit::read(ISO_SOURCE, 16) },
        Submit::set_interface(1, 0),
        Submit::read(ISO_SOURCE, 16).with_packets(&in_a_row(&[8, 8])),
    ]);
    assert_eq!(client.ret(seqnums[0]).status, 0);
    assert_eq!(client.ret_of(seqnums[1]).actual_length, 16);
    assert_eq!(client.ret_of(seqnums[2]).status, EINVAL);
    assert_eq!(client.ret_of(seqnums[3]).status, 0);
    // The packets of a formerly isochronous endpoint are believed, and come back.
    let ret = client.ret(seqnums[4]);
    assert_eq!((ret.status, ret.actual_length, ret.error_count), (ENOENT, 0, 2));
    client.assert_in_sync();
}
