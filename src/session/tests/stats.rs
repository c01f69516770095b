//! Counters: which URBs count and which do not.

use super::*;
use crate::stats::{EndpointStats, EndpointWork, Gauge};

impl Rig {
    fn endpoint(&self, address: u8) -> EndpointStats {
        self.work_of(address).map(|work| work.counters).unwrap_or_default()
    }

    fn work_of(&self, address: u8) -> Option<EndpointWork> {
        let address = EndpointAddress::from_byte(address);
        self.session.stats().endpoints.into_iter().find(|work| work.address == address)
    }
}

#[test]
fn urbs_and_bytes_count_when_the_device_has_ended_them() {
    let mut rig = Rig::new();
    assert_eq!(rig.session.stats().endpoints, []);
    rig.submit(1, 0x81, 100);
    rig.submit(2, 0x81, 100);
    rig.send(&Command::Submit(submit(3, 0x01, 5)), &[7; 5]);
    let [first, second, third] = [0, 1, 2].map(|index| rig.port().submitted[index].slot);
    let waiting = EndpointStats { in_flight: 2, most_in_flight: 2, ..Default::default() };
    assert_eq!(rig.endpoint(0x81), waiting);
    assert_eq!(rig.session.stats().slots, Gauge { now: 3, most: 3, room: SLOTS.into() });
    assert_eq!(rig.session.stats().buffers, Gauge { now: 205, most: 205, room: 1 << 20 });
    rig.end(first, Status::OK, &[1; 60]);
    rig.end(second, Status::EPIPE, &[]);
    rig.end_with(third, Status::OK, 5);
    let ended = rig.endpoint(0x81);
    assert_eq!((ended.urbs, ended.bytes_in, ended.bytes_out, ended.in_flight), (2, 60, 0, 0));
    assert_eq!(ended.errors.by_status().collect::<Vec<_>>(), [(Some(Status::EPIPE), 1)]);
    let out = rig.endpoint(0x01);
    assert_eq!((out.urbs, out.bytes_in, out.bytes_out, out.most_in_flight), (1, 0, 5, 1));
    // Little data is copied beside its header.
    assert_eq!(rig.session.stats().buffers, Gauge { now: 0, most: 205, room: 1 << 20 });
    rig.collect(usize::MAX);
    let stats = rig.session.stats();
    assert_eq!((stats.buffers.now, stats.slots.now, stats.slots.most), (0, 0, 3));
    assert_eq!((stats.unlinks, stats.refused), (0, 0));
    rig.finish();
}

#[test]
fn unlinks_and_refusals_are_the_sessions() {
    let mut rig = Rig::new();
    rig.submit(1, 0x81, 100);
    rig.unlink(2, 1);
    rig.unlink(3, 99);
    // No endpoint, and then no device.
    rig.submit(4, 0x87, 100);
    rig.port().refuse = Some(RefusedReason::Gone);
    rig.submit(5, 0x82, 100);
    let stats = rig.session.stats();
    assert_eq!((stats.unlinks, stats.refused, stats.endpoints.len()), (2, 2, 1));
    let slot = rig.last_slot();
    rig.end(slot, Status::ECONNRESET, &[]);
    assert_eq!(rig.endpoint(0x81).errors.total(), 1);
    rig.finish();
}

#[test]
fn packets_that_fail_are_counted_and_a_urb_of_them_is_no_error() {
    let mut rig = Rig::new();
    rig.port().perform = Some(in_setting(1));
    rig.send(&set_interface(1, 1), &[]);
    rig.work();
    let iso = CmdSubmit { number_of_packets: 2, ..submit(2, 0x83, 150) };
    let packets: Vec<u8> = [0u32, 100, 0, 0, 100, 50, 0, 0].map(u32::to_be_bytes).concat();
    rig.send(&Command::Submit(iso), &packets);
    let slot = rig.last_slot();
    rig.transfer(slot).packets = vec![(100, Status::OK), (0, Status::EXDEV)];
    rig.end(slot, Status::OK, &[9; 100]);
    let ended = rig.endpoint(0x83);
    assert_eq!((ended.urbs, ended.bytes_in, ended.packet_errors), (1, 100, 1));
    assert_eq!(ended.errors.total(), 0);
    rig.finish();
}

#[test]
fn the_time_of_the_device_is_told_by_endpoint_and_type() {
    let mut rig = Rig::new();
    let mut turnaround = |after, lasts| {
        rig.now += Duration::from_millis(after);
        rig.submit(1, 0x81, 100);
        rig.now += Duration::from_millis(lasts);
        let slot = rig.last_slot();
        rig.end(slot, Status::OK, &[1; 60]);
        rig.collect(usize::MAX);
        let work = rig.work_of(0x81).expect("it had a URB");
        assert_eq!(work.transfer_type, Some(TransferType::Bulk));
        work.turnaround
    };
    assert_eq!(turnaround(0, 0).timed, 1, "the first URB");
    assert_eq!(turnaround(0, 0).timed, 1, "a URB soon afterwards");
    let slow = turnaround(0, 7000);
    assert_eq!((slow.timed, slow.longest), (1, Duration::from_secs(7)));
    assert_eq!(turnaround(10, 0).timed, 2, "a URB some time later");
    assert!(rig.work_of(0x01).is_none());
    rig.finish();
}

/// On macOS a cancel ends the other URBs of the endpoint, too, and these go again.
#[test]
fn a_urb_that_goes_again_is_timed_from_its_last_start() {
    let mut rig = Rig::new();
    rig.session.slots.cancels_pipe = true;
    rig.submit(1, 0x81, 100);
    let slot = rig.last_slot();
    rig.end(slot, Status::ECONNRESET, &[]);
    assert_eq!(rig.work_of(0x81).expect("it had a URB").turnaround.timed, 0);
    let slot = rig.last_slot();
    rig.end(slot, Status::OK, &[1; 60]);
    let work = rig.work_of(0x81).expect("it had a URB");
    assert_eq!((work.turnaround.timed, work.counters.urbs), (1, 1));
    rig.finish();
}

#[test]
fn urbs_of_a_client_that_has_left_do_not_count() {
    let mut rig = Rig::new();
    rig.submit(1, 0x81, 100);
    let slot = rig.last_slot();
    rig.session.begin_teardown();
    rig.end(slot, Status::OK, &[1; 60]);
    let ended = rig.endpoint(0x81);
    assert_eq!((ended.urbs, ended.bytes_in, ended.in_flight), (0, 0, 0));
    rig.finish();
}
