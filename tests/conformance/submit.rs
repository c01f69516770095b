//! Bulk and interrupt URBs: fields of a SUBMIT, data, errors, order.

use crate::support::client::{ENOMEM, EOVERFLOW, EPIPE, EPROTO, EREMOTEIO, MiniClient};
use crate::support::endpoints::{
    INTERRUPT, INTERRUPT_SILENT, LOOP_IN, LOOP_OUT, SILENT, SINK, SOURCE,
};
use crate::support::hex::hex;
use crate::support::submit::Submit;
use crate::support::{LEN_MAX, Server, pattern};
use usbferry::usb::sim::loopback::request::{self, Counters};

fn start() -> (Server, MiniClient) {
    let server = Server::start("loopback");
    let client = server.attach();
    (server, client)
}

/// Sends a PDU in hex words and expects exactly the reply's bytes.
fn exchange(client: &mut MiniClient, sends: &str, expects: &str, data: &[u8]) {
    client.send(&hex(sends));
    let expected = [hex(expects), data.to_vec()].concat();
    assert_eq!(client.read(expected.len()), expected);
}

#[test]
fn number_of_packets_zero_of_linux_comes_back() {
    let (_server, mut client) = start();
    exchange(
        &mut client,
        "00000001 00000001 D 00000001 00000001 / 00000200 00000004 0 0 0 / Z(8)",
        "00000003 00000001 Z(12) / 0 00000004 0 0 0 / Z(8)",
        &[0, 1, 2, 3],
    );
    client.assert_in_sync();
}

/// And other values without a meaning for control and bulk URBs, in both directions.
#[test]
fn number_of_packets_minus_one_of_windows_comes_back() {
    let (_server, mut client) = start();
    exchange(
        &mut client,
        "00000001 00000001 D 00000001 00000001 / 00000200 00000004 0 ffffffff 0 / Z(8)",
        "00000003 00000001 Z(12) / 0 00000004 0 ffffffff 0 / Z(8)",
        &[0, 1, 2, 3],
    );
    exchange(
        &mut client,
        "00000001 00000002 D 00000000 00000001 / 0 00000004 0 ffffffff 0 / Z(8) / 00010203",
        "00000003 00000002 Z(12) / 0 00000004 0 ffffffff 0 / Z(8)",
        &[],
    );
    client.set_next_seqnum(100);
    for number_of_packets in [1, 5, 1024, 1025, 0x7fff_ffff, 0x8000_0000] {
        let read = Submit { number_of_packets, ..Submit::read(SOURCE, 8) };
        assert_eq!(client.call_ok(&read).len(), 8);
        let control = Submit { number_of_packets, ..Submit::get_device_descriptor() };
        assert_eq!(client.call_ok(&control).len(), 18);
        let write = Submit { number_of_packets, ..Submit::write(LOOP_OUT, &[1; 8]) };
        client.call_ok(&write);
    }
    client.assert_in_sync();
}

#[test]
fn start_frame_comes_back() {
    let (_server, mut client) = start();
    exchange(
        &mut client,
        "00000001 00000001 D 00000001 00000003 / 00000200 00000040 ffffffff 0 00000007 / Z(8)",
        "00000003 00000001 Z(12) / 0 00000008 ffffffff 0 0 / Z(8)",
        &[0; 8],
    );
    exchange(
        &mut client,
        "00000001 00000002 D 00000001 00000003 / 00000200 00000040 12345678 0 00000007 / Z(8)",
        "00000003 00000002 Z(12) / 0 00000008 12345678 0 0 / Z(8)",
        &[1, 0, 0, 0, 0, 0, 0, 0],
    );
}

#[test]
fn the_zero_packet_flag_adds_an_empty_packet_to_full_out_data() {
    let (_server, mut client) = start();
    let expected = |bytes, urbs, empty_packets| Counters { bytes, urbs, errors: 0, empty_packets };
    let write = |at, len| Submit::write(SINK, &pattern(at, len));
    client.call_ok(&write(0, 512));
    assert_eq!(client.counters(SINK), expected(512, 1, 0), "no flag, no empty packet");
    let ret = client.call(&Submit { flags: 0x40, ..write(512, 512) });
    assert_eq!((ret.status, ret.actual_length), (0, 512));
    assert_eq!(client.counters(SINK), expected(1024, 2, 1));
    client.call_ok(&Submit { flags: 0x40, ..write(1024, 100) });
    assert_eq!(client.counters(SINK), expected(1124, 3, 1), "none behind a short packet");
    let read = client.call_ok(&Submit { flags: 0x240, ..Submit::read(SOURCE, 512) });
    assert_eq!(read, pattern(0, 512), "the flag means nothing for IN");
}

#[test]
fn a_urb_without_data_is_one_empty_packet() {
    let (_server, mut client) = start();
    let ret = client.call(&Submit::write(SINK, &[]));
    assert_eq!((ret.status, ret.actual_length), (0, 0));
    let expected = Counters { bytes: 0, urbs: 1, errors: 0, empty_packets: 1 };
    assert_eq!(client.counters(SINK), expected);
    let ret = client.call(&Submit::read(SOURCE, 0));
    assert_eq!((ret.status, ret.actual_length), (0, 0));
    assert_eq!(client.counters(SOURCE).urbs, 1);
    // The flag adds nothing to an empty transfer: a single empty packet, not two.
    client.call_ok(&Submit { flags: 0x40, ..Submit::write(SINK, &[]) });
    assert_eq!(client.counters(SINK).empty_packets, 2);
}

#[test]
fn a_short_read_with_short_not_ok_gets_eremoteio() {
    let (_server, mut client) = start();
    let read = Submit { flags: 0x201, ..Submit::read(SOURCE, 512) };
    client.command(request::SHORT, 100, SOURCE.into());
    let ret = client.call(&read);
    assert_eq!((ret.status, ret.actual_length), (EREMOTEIO, 0x64));
    assert_eq!(ret.data, pattern(0, 100));
    assert_eq!(client.call(&read).status, 0, "what is not short is no error");
    client.command(request::SHORT, 100, SOURCE.into());
    let ret = client.call(&Submit::read(SOURCE, 512));
    assert_eq!((ret.status, ret.actual_length), (0, 100), "nor is what may be short");
    // The flag does not replace an error, and has no meaning for OUT.
    client.command(request::BUS_ERROR_AFTER, 100, SOURCE.into());
    assert_eq!(client.call(&read).status, EPROTO);
    client.command(request::SHORT, 100, SINK.into());
    let ret = client.call(&Submit { flags: 1, ..Submit::write(SINK, &[0; 512]) });
    assert_eq!((ret.status, ret.actual_length), (0, 100));
    // The flag holds for control and interrupt transfers too.
    let get = Submit { flags: 0x201, length: 18, ..Submit::get_device_descriptor() };
    assert_eq!(client.call(&get).status, 0);
    let ret = client.call(&Submit { flags: 0x201, ..Submit::read(INTERRUPT, 64) });
    assert_eq!((ret.status, ret.actual_length), (EREMOTEIO, 8));
}

#[test]
fn a_stall_keeps_the_data_before_the_stall() {
    let (_server, mut client) = start();
    client.command(request::STALL_AFTER, 1024, SOURCE.into());
    let ret = client.call(&Submit::read(SOURCE, 4096));
    assert_eq!((ret.status, ret.actual_length), (EPIPE, 1024));
    assert_eq!(ret.data, pattern(0, 1024));
    client.command(request::STALL_AFTER, 1024, SINK.into());
    let ret = client.call(&Submit::write(SINK, &pattern(0, 4096)));
    assert_eq!((ret.status, ret.actual_length), (EPIPE, 1024), "OUT tells how far it came");
}

#[test]
fn more_data_than_the_buffer_takes_gets_eoverflow() {
    let (_server, mut client) = start();
    client.command(request::BABBLE, 0, SOURCE.into());
    let ret = client.call(&Submit::read(SOURCE, 512));
    assert_eq!(ret.status, EOVERFLOW);
    assert!(ret.actual_length <= 512);
    assert_eq!(ret.data, pattern(0, ret.actual_length as usize));
    client.assert_in_sync();
}

/// Each much longer than a socket's buffer. usbfs without memory is a test of `tests/libusb`:
/// `used_up_memory_delays_urbs_and_fails_none`.
#[test]
fn large_urbs_arrive_intact_in_both_directions() {
    let (_server, mut client) = start();
    let (mut read, mut written) = (0, 0);
    for len in [1 << 20, LEN_MAX as usize, LEN_MAX as usize - 1, (1 << 20) + 1] {
        let size = u32::try_from(len).unwrap();
        let data = client.call_ok(&Submit::read(SOURCE, size));
        assert!(data == pattern(read, len), "{len} bytes from {read} on differ");
        read += u64::from(size);
        let ret = client.call(&Submit::write(SINK, &pattern(written, len)));
        assert_eq!((ret.status, ret.actual_length), (0, size));
        written += u64::from(size);
    }
    let counters = client.counters(SINK);
    assert_eq!((counters.bytes, counters.errors), (written, 0));
    // Beyond --urb-size there is no room, and the stream stays in step.
    let ret = client.call(&Submit::read(SOURCE, LEN_MAX + 1));
    assert_eq!((ret.status, ret.actual_length), (ENOMEM, 0));
    client.assert_in_sync();
}

/// More large URBs at once than memory: the URBs wait for each other, none is refused.
#[test]
fn large_urbs_wait_for_memory() {
    let server = Server::start_with("loopback", |settings| {
        settings.policy.limits.memory = 4 << 20;
        settings.policy.limits.urb_len = 1 << 20;
    });
    let mut client = server.attach();
    let reads = vec![Submit::read(SOURCE, 1 << 20); 24];
    let seqnums = client.submit_all(&reads);
    for (position, seqnum) in (0..).step_by(1 << 20).zip(seqnums) {
        let ret = client.ret(seqnum);
        assert_eq!((ret.status, ret.actual_length), (0, 1 << 20));
        assert!(ret.data == pattern(position, 1 << 20), "from {position} on");
    }
}

/// A small URB behind a URB waiting for memory does not overtake, even with room for the small URB.
#[test]
fn small_urbs_stay_behind_large_ones() {
    let server = Server::start_with("loopback", |settings| {
        settings.policy.limits.memory = 4 << 20;
        settings.policy.limits.urb_len = 1 << 20;
    });
    let mut client = server.attach();
    let lengths = [1 << 20, 16, 700_000, 0, 512, 1 << 20, 1];
    let lengths: Vec<u32> = lengths.into_iter().cycle().take(70).collect();
    let reads: Vec<Submit> = lengths.iter().map(|&len| Submit::read(SOURCE, len)).collect();
    let mut position = 0;
    for (seqnum, len) in client.submit_all(&reads).into_iter().zip(lengths) {
        let ret = client.ret(seqnum);
        assert_eq!((ret.status, ret.actual_length), (0, len));
        assert!(ret.data == pattern(position, len as usize), "{len} bytes from {position} on");
        position += u64::from(len);
    }
}

/// Among them the flag of a scattered buffer, with which the kernel's server fails at length 0.
#[test]
fn flags_without_a_meaning_change_nothing() {
    let (_server, mut client) = start();
    let mut replies = Vec::new();
    for flags in ["00040200", "00000000", "00ff0300", "ffffffbe"] {
        client.call_ok(&Submit::clear_halt(SOURCE));
        let seqnum = client.take_seqnum();
        client.send(&hex(&format!(
            "00000001 {seqnum:08x} D 00000001 00000001 / {flags} 00000400 0 0 0 / Z(8)"
        )));
        let mut reply = client.read(48 + 1024);
        assert_eq!(reply[4..8], seqnum.to_be_bytes());
        reply[4..8].fill(0);
        replies.push(reply);
    }
    assert_eq!(replies[0][48..], pattern(0, 1024));
    assert!(replies.iter().all(|reply| *reply == replies[0]), "flags that mean nothing to us");
    // With a length of zero the kernel's own server gives up here.
    let ret = client.call(&Submit { flags: 0x40200, ..Submit::read(SOURCE, 0) });
    assert_eq!((ret.status, ret.actual_length), (0, 0));
}

/// Linux copies the SETUP packet of a driver's last control URB into SUBMITs of bulk endpoints:
/// usb-storage's have GET_MAX_LUN (docs/kernels.md). Packets of special requests change nothing
/// too.
#[test]
fn a_setup_packet_in_a_bulk_urb_is_ignored() {
    let (_server, mut client) = start();
    let performed = client.performed();
    let left_over = [
        "a1fe000000000100", // GET_MAX_LUN
        "0009000000000000", // SET_CONFIGURATION 0
        "010b010001000000", // SET_INTERFACE
        "0201000081000000", // CLEAR_HALT
        "2303040001000000", // a port's reset
    ];
    for (position, setup) in (0..).map(|turn| turn * 512).zip(left_over) {
        let setup: [u8; 8] = hex(setup).try_into().unwrap();
        let data = client.call_ok(&Submit { setup, ..Submit::read(SOURCE, 512) });
        assert_eq!(data, pattern(position, 512), "{setup:02x?}");
        let ret = client.call(&Submit { setup, ..Submit::write(SINK, &pattern(position, 512)) });
        assert_eq!((ret.status, ret.actual_length), (0, 512), "{setup:02x?}");
    }
    assert_eq!(client.performed(), performed);
    assert_eq!(client.counters(SINK).errors, 0);
}

/// 64 KiB in writes of one byte, then 64 KiB in writes of three PDUs.
#[test]
fn out_data_may_come_in_writes_of_any_length() {
    let (_server, mut client) = start();
    let data = pattern(0, 64 << 10);
    let (seqnum, bytes) = client.prepare(&Submit::write(SINK, &data));
    for byte in bytes {
        client.send(&[byte]);
    }
    assert_eq!(client.ret(seqnum).actual_length, 64 << 10);
    let data = pattern(64 << 10, 64 << 10);
    let submits: Vec<Submit> = data.chunks(1000).map(|part| Submit::write(SINK, part)).collect();
    let mut seqnums = Vec::new();
    for three in submits.chunks(3) {
        seqnums.extend(client.submit_all(three));
    }
    for seqnum in seqnums {
        assert_eq!(client.ret(seqnum).status, 0);
    }
    let counters = client.counters(SINK);
    assert_eq!((counters.bytes, counters.errors), (128 << 10, 0));
}

/// The end of a PDU, and where a read ends, need not be the same: writes of every length.
#[test]
fn pdus_may_be_cut_anywhere() {
    let (_server, mut client) = start();
    let mut position = 0;
    for step in (1..200).chain([4095, 4096, 4097, 8191, 65_535, 65_536]) {
        let lengths = [0, 1, 47, 48, 512, 9000, 20_000];
        let mut seqnums = Vec::new();
        let mut bytes = Vec::new();
        for len in lengths {
            let (seqnum, pdu) = client.prepare(&Submit::write(SINK, &pattern(position, len)));
            position += len as u64;
            seqnums.push(seqnum);
            bytes.extend(pdu);
        }
        // Short steps at the start, among the headers; the rest in one piece.
        let (head, tail) = bytes.split_at(600);
        head.chunks(step).for_each(|part| client.send(part));
        client.send(tail);
        for seqnum in seqnums {
            assert_eq!(client.ret(seqnum).status, 0);
        }
    }
    let counters = client.counters(SINK);
    assert_eq!((counters.bytes, counters.errors), (position, 0));
}

#[test]
fn urbs_of_an_endpoint_end_in_order() {
    let (_server, mut client) = start();
    client.set_next_seqnum(0x7fff_fff0);
    let submits: Vec<Submit> =
        (0..32).map(|index| Submit::write(SINK, &pattern(index * 700, 700))).collect();
    let seqnums = client.submit_all(&submits);
    for seqnum in seqnums {
        let ret = client.ret(seqnum);
        assert_eq!((ret.status, ret.actual_length), (0, 700));
    }
    let expected = Counters { bytes: 32 * 700, urbs: 32, errors: 0, empty_packets: 0 };
    assert_eq!(client.counters(SINK), expected, "the sink checks the order");
}

/// With silent URBs on two endpoints.
#[test]
fn silent_urbs_hold_up_no_other_endpoint() {
    let (_server, mut client) = start();
    let interrupt = client.submit(&Submit::read(INTERRUPT_SILENT, 64));
    let bulk = client.submit(&Submit::read(SILENT, 512));
    for index in 0..100 {
        assert_eq!(client.call_ok(&Submit::read(SOURCE, 512)), pattern(index * 512, 512));
    }
    assert_eq!(client.outstanding(), 2, "neither has ended");
    client.command(request::RELEASE, 3, INTERRUPT_SILENT.into());
    assert_eq!(client.ret(interrupt).data, [0, 1, 2]);
    client.command(request::RELEASE, 2, SILENT.into());
    assert_eq!(client.ret(bulk).data, [0, 1]);
}

#[test]
fn seqnums_may_come_in_any_order_and_again() {
    let (_server, mut client) = start();
    let seqnums = [0, u32::MAX, 0x8000_0000, 0x7fff_ffff, 500, 499, 498, 1, 0, u32::MAX];
    for seqnum in seqnums {
        let read = Submit { seqnum: Some(seqnum), ..Submit::read(SOURCE, 16) };
        assert_eq!(client.call(&read).seqnum, seqnum, "a number is free again when it is answered");
    }
    let all: Vec<Submit> = seqnums[..8]
        .iter()
        .map(|&seqnum| Submit { seqnum: Some(seqnum), ..Submit::read(SOURCE, 16) })
        .collect();
    client.submit_all(&all);
    for &seqnum in &seqnums[..8] {
        assert_eq!(client.ret(seqnum).status, 0);
    }
}

#[test]
fn a_seqnum_in_use_closes_the_connection() {
    let (server, mut client) = start();
    let read = Submit { seqnum: Some(7), ..Submit::read(SILENT, 64) };
    client.submit(&read);
    client.assert_in_sync();
    client.send(&Submit::read(SOURCE, 64).bytes(7, client.devid));
    client.expect_drop();
    server.assert_serves(0);
}

/// Other endpoints go on meanwhile.
#[test]
fn urbs_without_a_slot_wait_in_order() {
    let server = Server::start_with("loopback", |settings| settings.policy.limits.urbs = 64);
    let mut client = server.attach();
    let silent = client.submit_all(&vec![Submit::read(SILENT, 4096); 1000]);
    assert_eq!(client.call_ok(&Submit::read(SOURCE, 512)), pattern(0, 512));
    client.assert_in_sync();
    let mut position = 0;
    for seqnum in silent {
        client.command(request::RELEASE, 5, SILENT.into());
        assert_eq!(client.ret(seqnum).data, pattern(position, 5));
        position += 5;
    }
}

/// Data written to the loop comes back, in pieces unrelated to the pieces of the writes, while each
/// side waits for the other.
#[test]
fn the_loop_carries_data_both_ways_at_once() {
    let (_server, mut client) = start();
    let data = pattern(99, 3 << 20);
    let write = client.submit(&Submit::write(LOOP_OUT, &data));
    let mut back = Vec::new();
    let mut written = None;
    while back.len() < data.len() {
        let read = client.submit(&Submit::read(LOOP_IN, 100_000));
        while client.awaits(read) {
            match client.reply() {
                crate::support::client::Reply::Submit(ret) if ret.seqnum == write => {
                    written = Some(ret)
                }
                crate::support::client::Reply::Submit(ret) => back.extend(ret.data),
                other => panic!("{other:?}"),
            }
        }
    }
    let written = written.unwrap_or_else(|| client.ret(write));
    assert_eq!(written.actual_length, 3 << 20);
    assert!(back == data);
}
