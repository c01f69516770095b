//! The behaviour of the loopback device, seen from its host.

use std::time::{Duration, Instant};

use super::request::{self, Counters};
use super::{LOOP_LEN, pattern};
use crate::usb::sim::testing::{Host, setup};
use crate::usb::special::SpecialRequest;
use crate::usb::{Performed, Port};
use crate::wire::status::Status;
use crate::wire::types::TransferType;

fn open() -> Host {
    Host::open("loopback")
}

fn pattern(position: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    pattern::fill(position, &mut bytes);
    bytes
}

/// Makes a vendor request without data, which must succeed.
fn command(host: &mut Host, request: u8, value: u16, endpoint: u16) {
    let setup = setup(request::OUT, request, value, endpoint, 0);
    assert_eq!(host.control_out(setup, &[]), (Status::OK, 0));
}

fn ask(host: &mut Host, request: u8, endpoint: u16) -> Vec<u8> {
    let (status, data) = host.control_in(setup(request::IN, request, 0, endpoint, 255));
    assert_eq!(status, Status::OK);
    data
}

fn counters(host: &mut Host, endpoint: u16) -> Counters {
    let bytes = ask(host, request::COUNTERS, endpoint);
    Counters::from_bytes(&bytes.try_into().unwrap())
}

#[test]
fn the_descriptors_match_the_endpoints() {
    let mut host = open();
    let (status, device) = host.descriptor(1, 0, 64);
    assert_eq!((status, device.len()), (Status::OK, 18));
    assert_eq!(device[8..12], [0x09, 0x12, 0x01, 0x00]);
    let (_, head) = host.descriptor(2, 0, 9);
    let total = u16::from_le_bytes([head[2], head[3]]);
    let (_, whole) = host.descriptor(2, 0, 4096);
    assert_eq!(whole.len(), usize::from(total));
    let at = crate::usb::descriptor::Host::at(crate::wire::types::Speed::High);
    let configuration = crate::usb::descriptor::parse_configuration(&whole, at).unwrap();
    assert_eq!(&configuration, host.configuration());
    let types: Vec<(u8, TransferType)> = configuration.interfaces[0].alternates[0]
        .endpoints
        .iter()
        .map(|e| (e.address.as_byte(), e.transfer_type))
        .collect();
    use TransferType::{Bulk, Interrupt};
    let (bulk, interrupt) = ([0x81, 0x01, 0x02, 0x82, 0x86], [0x83, 0x84]);
    assert_eq!(types.len(), 7);
    assert!(bulk.iter().all(|&a| types.contains(&(a, Bulk))));
    assert!(interrupt.iter().all(|&a| types.contains(&(a, Interrupt))));
    let packets = &configuration.interfaces[1].alternates[1].endpoints;
    assert!(packets.iter().all(|e| e.max_packet_size == 0x1400));
}

#[test]
fn the_source_goes_on_over_urbs_until_it_is_restarted() {
    let mut host = open();
    assert_eq!(host.read(0x81, 700), (Status::OK, pattern(0, 700)));
    assert_eq!(host.read(0x81, 0), (Status::OK, vec![]));
    assert_eq!(host.read(0x81, 300), (Status::OK, pattern(700, 300)));
    host.clear_halt(0x81);
    assert_eq!(host.read(0x81, 100).1, pattern(0, 100));
    host.set_interface(0, 0);
    assert_eq!(host.read(0x81, 100).1, pattern(0, 100));
    assert_eq!(host.perform(SpecialRequest::Reset), Performed::Done);
    assert_eq!(host.read(0x81, 100).1, pattern(0, 100));
    let mut host = Host::open_on(&host.close());
    assert_eq!(host.read(0x81, 100).1, pattern(0, 100));
}

#[test]
fn a_counted_source_numbers_its_urbs() {
    let mut host = Host::open("loopback:data=counter");
    for number in 0..3u64 {
        let (status, data) = host.read(0x81, 700);
        assert_eq!((status, data.len()), (Status::OK, 700));
        assert_eq!(data[..8], number.to_le_bytes());
    }
    assert_eq!(host.write(0x01, &[9; 100]), (Status::OK, 100));
    assert_eq!(counters(&mut host, 0x01).errors, 0, "it expects nothing");
    host.clear_halt(0x81);
    assert_eq!(host.read(0x81, 8).1, [0; 8], "it starts again");
    host.set_interface(1, 1);
    for number in 0..2u8 {
        let ended = host.packets(0x85, &[7; 200], &[100, 100]);
        assert_eq!(ended.data[100..], [&[number, 0, 0, 0, 0, 0, 0, 0][..], &[7; 92]].concat());
    }
}

#[test]
fn the_sink_counts_bytes_and_errors() {
    let mut host = open();
    assert_eq!(host.write(0x01, &pattern(0, 1000)), (Status::OK, 1000));
    let mut wrong = pattern(1000, 24);
    wrong[3] ^= 1;
    assert_eq!(host.write(0x01, &wrong), (Status::OK, 24));
    assert_eq!(host.write(0x01, &[]), (Status::OK, 0));
    let expected = Counters { bytes: 1024, urbs: 3, errors: 1, empty_packets: 1 };
    assert_eq!(counters(&mut host, 0x01), expected);
    let full = pattern(1024, 1024);
    for (len, flag, empty_packets) in [(1024, false, 1), (1024, true, 2), (1000, true, 2)] {
        let slot = host.submit_flagged(0x01, &full[..len], &[], flag);
        assert_eq!(host.wait(slot).status, Status::OK);
        assert_eq!(counters(&mut host, 0x01).empty_packets, empty_packets);
    }
    command(&mut host, request::CLEAR_COUNTERS, 0, 0);
    assert_eq!(counters(&mut host, 0x01), Counters::default());
}

#[test]
fn the_loop_returns_written_data() {
    let mut host = open();
    let reader = host.submit(0x82, &[0; 512], &[]);
    assert_eq!(host.poll(reader), None);
    assert_eq!(host.port.next_deadline(), None, "nothing can happen");
    assert_eq!(host.write(0x02, b"there and back"), (Status::OK, 14));
    let ended = host.wait(reader);
    assert_eq!((ended.status, ended.actual_length), (Status::OK, 14));
    assert_eq!(ended.data[..14], *b"there and back");
}

#[test]
fn a_urb_does_not_overtake_a_waiting_urb() {
    let mut host = open();
    let first = host.submit(0x82, &[0; 4], &[]);
    host.submit(0x02, b"onetwo", &[]);
    let second = host.submit(0x82, &[0; 2], &[]);
    assert_eq!(host.wait(first).data, *b"onet");
    assert_eq!(host.wait(second).data, *b"wo");
}

#[test]
fn the_full_loop_holds_data_back() {
    let mut host = open();
    let data = pattern(7, 3 * LOOP_LEN);
    let writer = host.submit(0x02, &data, &[]);
    assert_eq!(host.poll(writer), None);
    let mut back = Vec::new();
    while back.len() < data.len() {
        back.extend(host.read(0x82, 100_000).1);
    }
    assert_eq!(host.wait(writer).actual_length, data.len());
    assert!(back == data);
}

#[test]
fn the_interrupt_fires_on_its_interval_and_the_other_never() {
    let mut host = open();
    let start = host.now;
    let silent = host.submit(0x84, &[0; 8], &[]);
    let slots: Vec<u32> = (0..3).map(|_| host.submit(0x83, &[0; 64], &[])).collect();
    for (number, slot) in (0u64..).zip(slots) {
        let ended = host.wait(slot);
        assert_eq!((ended.status, ended.actual_length), (Status::OK, 8));
        assert_eq!(ended.data[..8], number.to_le_bytes());
        let ms = 8 * (number + 1);
        assert_eq!(host.now, start + Duration::from_millis(ms));
    }
    host.advance(Duration::from_secs(3600));
    assert_eq!(host.poll(silent), None);
    command(&mut host, request::RELEASE, 5, 0x84);
    let ended = host.wait(silent);
    assert_eq!((ended.status, ended.actual_length), (Status::OK, 5));
    assert_eq!(ended.data[..5], [0, 1, 2, 3, 4]);
}

#[test]
fn isochronous_packets_carry_the_pattern_both_ways() {
    let mut host = open();
    host.set_interface(1, 1);
    let ended = host.packets(0x85, &[0; 4000], &[3072, 100, 0, 828]);
    let lengths: Vec<u32> = ended.packets.iter().map(|p| p.0).collect();
    assert_eq!(lengths, [3072, 100, 0, 828]);
    assert_eq!(ended.data, pattern(0, 4000));
    let ended = host.packets(0x85, &[0; 3082], &[3082]);
    assert_eq!(ended.packets, [(3072, Status::OK)], "three transactions");
    host.packets(0x05, &pattern(0, 300), &[100, 200]);
    let counters = counters(&mut host, 0x05);
    assert_eq!((counters.bytes, counters.urbs, counters.errors), (300, 1, 0));
}

#[test]
fn paced_packets_take_a_microframe_each() {
    let mut host = Host::open("loopback:pace=on");
    host.set_interface(1, 1);
    let start = host.now;
    let first = host.submit(0x85, &[0; 80], &[10; 8]);
    let second = host.submit(0x85, &[0; 80], &[10; 8]);
    host.wait_packets(first, 8);
    assert_eq!(host.now, start + Duration::from_millis(1));
    host.wait_packets(second, 8);
    assert_eq!(host.now, start + Duration::from_millis(2));
}

#[test]
fn a_halted_endpoint_stalls_until_it_is_cleared() {
    let mut host = open();
    let waiting = host.submit(0x86, &[0; 16], &[]);
    for endpoint in [0x81, 0x86] {
        command(&mut host, request::HALT, 0, endpoint);
    }
    assert_eq!(host.wait(waiting).status, Status::EPIPE);
    assert_eq!(host.read(0x81, 16), (Status::EPIPE, vec![]));
    let status = host.control_in(setup(0x82, 0, 0, 0x81, 2));
    assert_eq!(status, (Status::OK, vec![1, 0]));
    host.clear_halt(0x81);
    assert_eq!(host.read(0x81, 16).0, Status::OK);
    let refused = setup(request::OUT, request::HALT, 0, 0x87, 0);
    assert_eq!(host.control_out(refused, &[]).0, Status::EPIPE);
}

#[test]
fn a_planned_fault_affects_the_next_urb_only() {
    let mut host = open();
    for (request, status, len) in [
        (request::SHORT, Status::OK, 100),
        (request::BUS_ERROR_AFTER, Status::EPROTO, 100),
        (request::BABBLE, Status::EOVERFLOW, 512),
        (request::STALL_AFTER, Status::EPIPE, 100),
    ] {
        command(&mut host, request, 100, 0x81);
        let (ended, data) = host.read(0x81, 512);
        assert_eq!((ended, data.len()), (status, len), "{request:#x}");
        if status != Status::EPIPE {
            assert_eq!(host.read(0x81, 512).1.len(), 512);
        }
    }
    assert_eq!(host.read(0x81, 512), (Status::EPIPE, vec![]), "it is halted");
}

#[test]
fn packets_fail_and_end_short_on_request() {
    let mut host = open();
    host.set_interface(1, 1);
    command(&mut host, request::PACKETS_SHORT, 100, 0x85);
    let ended = host.packets(0x85, &[0; 400], &[192, 192, 16]);
    let expected = [100, 100, 16].map(|len| (len, Status::OK));
    assert_eq!(ended.packets, expected);
    assert_eq!(ended.data[192..292], pattern(100, 100));
    command(&mut host, request::PACKET_LOST, 1, 0x85);
    let ended = host.packets(0x85, &[0; 30], &[10; 3]);
    let expected = [(10, Status::OK), (0, Status::EPROTO), (10, Status::OK)];
    assert_eq!(ended.packets, expected);
    assert_eq!(ended.data[20..], pattern(226, 10));
}

#[test]
fn cancelled_urbs_end_in_order_with_the_planned_data() {
    let mut host = open();
    let slots: Vec<u32> = (0..4).map(|_| host.submit(0x86, &[0; 16], &[])).collect();
    host.cancel(slots[2]);
    host.cancel(slots[2]);
    assert_eq!(host.reaped(), [slots[2]]);
    let ended = host.wait(slots[2]);
    assert_eq!((ended.status, ended.actual_length), (Status::ECONNRESET, 0));
    command(&mut host, request::CANCEL_DONE, 7, 0x86);
    host.cancel(slots[0]);
    let ended = host.wait(slots[0]);
    assert_eq!((ended.status, ended.actual_length), (Status::OK, 7));
    assert_eq!(ended.data[..7], pattern(0, 7));
    command(&mut host, request::CANCEL_PARTIAL, 99, 0x86);
    host.cancel(slots[3]);
    let ended = host.wait(slots[3]);
    assert_eq!((ended.status, ended.actual_length), (Status::ECONNRESET, 16));
    host.cancel(slots[1]);
    assert_eq!(host.wait(slots[1]).status, Status::ECONNRESET);
}

#[test]
fn a_late_cancel_finds_nothing_even_if_the_slot_is_used_again() {
    let mut host = open();
    let first = host.submit(0x86, &[0; 16], &[]);
    command(&mut host, request::RELEASE, 1, 0x86);
    let late = crate::usb::sim::transfer::CancelToken {
        slot: first,
        generation: 1,
        endpoint: crate::wire::types::EndpointAddress::from_byte(0x86),
    };
    host.wait(first);
    assert_eq!(host.submit(0x86, &[0; 16], &[]), first);
    host.port.cancel(&late);
    assert_eq!(host.reaped(), [0; 0]);
}

#[test]
fn the_buffer_and_the_setup_packet_come_back_unchanged() {
    let mut host = open();
    let data = pattern(3, 4096);
    let write = setup(request::OUT, request::WRITE, 0x1234, 0x5678, 4096);
    assert_eq!(host.control_out(write, &data), (Status::OK, 4096));
    let last = ask(&mut host, request::LAST_SETUP, 0);
    assert_eq!(last, [0x40, 3, 0x34, 0x12, 0x78, 0x56, 0x00, 0x10]);
    assert_eq!(ask(&mut host, request::LAST_SETUP, 0), last);
    let read = setup(request::IN, request::READ, 0, 0, 4096);
    assert_eq!(host.control_in(read), (Status::OK, data));
    host.control_in(setup(0x80, 6, 0x0302, 0x0409, 255));
    let last = ask(&mut host, request::LAST_SETUP, 0);
    assert_eq!(last, [0x80, 6, 0x02, 0x03, 0x09, 0x04, 0xff, 0x00]);
}

#[test]
fn delays_and_refusals_last_as_long_as_the_device_is_open() {
    let mut host = open();
    command(&mut host, request::CONTROL_DELAY, 30, 0);
    let before = host.now;
    assert_eq!(host.descriptor(1, 0, 8).0, Status::OK);
    assert_eq!(host.now, before + Duration::from_millis(30));
    command(&mut host, request::SPECIAL_DELAY, 5, 0);
    let clock = Instant::now();
    host.set_interface(1, 0);
    assert!(clock.elapsed() >= Duration::from_millis(5));
    command(&mut host, request::REFUSE_SPECIAL, 1, 0);
    let refused = host.perform(SpecialRequest::Reset);
    assert_eq!(refused, Performed::Failed(Status::EPIPE));
    assert_eq!(host.perform(SpecialRequest::Reset), Performed::Done);
    let performed = ask(&mut host, request::PERFORMED, 0);
    assert_eq!(performed, [0, 1, 0, 1].map(u32::to_le_bytes).concat());
    let mut host = Host::open_on(&host.close());
    let before = host.now;
    host.descriptor(1, 0, 8);
    assert_eq!(host.now, before);
}

#[test]
fn the_device_vanishes_on_request() {
    let mut host = open();
    let waiting = host.submit(0x86, &[0; 16], &[]);
    command(&mut host, request::VANISH, 0, 0);
    assert_eq!(host.wait(waiting).status, Status::ESHUTDOWN);
    assert!(host.gone);
    assert_eq!(host.perform(SpecialRequest::Reset), Performed::Gone);
}
