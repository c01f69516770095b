//! URBs which wait for slots and for memory, and URBs refused for want of either.

use super::*;
use crate::limits::NO_MEMORY_TIMEOUT;

#[test]
fn a_silent_endpoint_can_not_keep_the_others_out() {
    let mut rig = Rig::new();
    for seqnum in 0..200 {
        rig.submit(seqnum, 0x82, 64);
    }
    let with_device = rig.port().submitted.len();
    assert!(with_device < SLOTS as usize, "slots are left for other endpoints");
    rig.submit(500, 0x81, 64);
    assert_eq!(rig.port().submitted.last().unwrap().endpoint, 0x81);
    rig.send(&get_device_descriptor(501), &[]);
    assert_eq!(rig.port().submitted.last().unwrap().length, 26);
    // Waiting URBs go on as slots come home, in order.
    for seqnum in 0..3 {
        let slot = rig.port().submitted[seqnum as usize].slot;
        rig.end(slot, Status::OK, &[1; 64]);
        rig.expect_submit(seqnum, Status::OK, 64);
        rig.take_bytes(64);
    }
    assert_eq!(rig.port().submitted.last().unwrap().endpoint, 0x82);
    rig.finish();
}

#[test]
fn more_urbs_than_can_wait_are_refused_and_the_stream_goes_on() {
    let mut rig = Rig::new();
    let places = SLOTS + u32::try_from(URBS_WAITING_MAX).unwrap();
    for seqnum in 0..places {
        rig.submit(seqnum, 0x82, 64);
    }
    rig.expect_silence();
    rig.submit(places, 0x82, 64);
    rig.expect_submit(places, Status::ENOMEM, 0);
    rig.send(&Command::Submit(submit(places + 1, 0x01, 5)), &[1, 2, 3, 4, 5]);
    rig.expect_submit(places + 1, Status::ENOMEM, 0);
    // A client which reads no refusals is not read either, until the refusals are read.
    for seqnum in 0..u32::try_from(URBS_REFUSED_MAX).unwrap() {
        assert!(rig.session.wants_input());
        rig.submit(places + 10 + seqnum, 0x82, 64);
    }
    assert!(!rig.session.wants_input());
    rig.expect_submit(places + 10, Status::ENOMEM, 0);
    assert!(rig.session.wants_input());
    rig.finish();
}

/// Descriptors cost more than all else of a record, so there is room for fewer; URBs without
/// packets still can wait.
#[test]
fn more_urbs_with_packets_than_can_wait_are_refused_with_their_packets() {
    let mut rig = Rig::new();
    let mut configuration = configuration();
    configuration.interfaces[0].alternates[0].endpoints[0].transfer_type =
        TransferType::Isochronous;
    let endpoint = configuration.interfaces[0].alternates[0].endpoints[0].address;
    rig.port().perform =
        Some(Performed::Reconfigured { configuration: Some(configuration), status: Status::OK });
    rig.send(&set_interface(1, 0), &[]);
    rig.work();
    rig.expect_submit(1, Status::OK, 0);
    let packets: Vec<u8> = [0u32, 8, 0, 0].map(u32::to_be_bytes).concat();
    let send = |rig: &mut Rig, seqnum| {
        let isochronous = CmdSubmit { number_of_packets: 1, endpoint, ..submit(seqnum, 0, 8) };
        rig.send(&Command::Submit(isochronous), &packets);
    };
    let places = SLOTS + u32::try_from(PACKETS_WAITING_MAX).unwrap();
    for seqnum in 10..10 + places {
        send(&mut rig, seqnum);
    }
    rig.expect_silence();
    send(&mut rig, 10 + places);
    rig.expect_submit(10 + places, Status::ENOMEM, 0);
    assert_eq!(rig.take_bytes(16)[12..], (-18_i32).to_be_bytes(), "-EXDEV");
    // URBs without packets wait as before.
    rig.submit(11 + places, 0x82, 64);
    rig.expect_silence();
    rig.finish();
}

#[test]
fn memory_used_up_makes_urbs_wait_and_out_data_is_refused() {
    let mut rig = Rig::new();
    for seqnum in 0..4 {
        rig.submit(seqnum, 0x82, 1 << 19);
    }
    assert_eq!(rig.port().submitted.len(), 1, "the last part of the memory is kept");
    let payload = vec![7; 1 << 19];
    rig.send(&Command::Submit(submit(10, 0x01, 1 << 19)), &payload);
    assert_eq!(rig.port().submitted.len(), 2, "an idle endpoint may have it");
    rig.send(&Command::Submit(submit(11, 0x01, 1 << 19)), &payload);
    rig.expect_submit(11, Status::ENOMEM, 0);
    let slot = rig.port().submitted[0].slot;
    rig.end(slot, Status::OK, &[3; 8]);
    rig.expect_submit(0, Status::OK, 8);
    rig.take_bytes(8);
    assert_eq!(rig.port().submitted.len(), 3, "its memory came home with its reply");
    rig.finish();
}

#[test]
fn urbs_behind_a_barrier_leave_the_last_part_of_the_memory_to_other_endpoints() {
    let mut rig = Rig::new();
    rig.send(&set_interface(1, 0), &[]);
    let job = rig.session.take_job().expect("the request");
    let payload = vec![7; 1 << 15];
    for seqnum in 2..40 {
        rig.send(&Command::Submit(submit(seqnum, 0x01, 1 << 15)), &payload);
    }
    rig.take_back(job);
    let held = rig.port().submitted.len();
    assert!((20..32).contains(&held), "{held} went to the device");
    rig.send(&get_device_descriptor(50), &[]);
    assert_eq!(rig.port().submitted.last().unwrap().endpoint, 0);
    rig.finish();
}

#[test]
fn urbs_wait_while_the_systems_memory_is_used_up() {
    let mut rig = Rig::new();
    rig.submit(1, 0x82, 64);
    rig.port().refuse = Some(RefusedReason::NoMemory);
    rig.submit(2, 0x82, 64);
    rig.submit(3, 0x82, 64);
    rig.expect_silence();
    rig.port().refuse = None;
    let slot = rig.port().submitted[0].slot;
    rig.end(slot, Status::OK, &[]);
    assert_eq!(rig.port().submitted.len(), 3, "they went as soon as one had ended");
    rig.expect_submit(1, Status::OK, 0);
    rig.finish();
}

/// With nothing in flight, other devices may still give memory back.
#[test]
fn memory_of_other_devices_is_asked_for_again() {
    let mut rig = Rig::new();
    rig.port().refuse = Some(RefusedReason::NoMemory);
    rig.submit(1, 0x82, 64);
    rig.expect_silence();
    let retry = rig.session.next_deadline().expect("it is tried again");
    rig.port().refuse = None;
    rig.session.reap(rig.now);
    assert_eq!(rig.port().submitted.len(), 0, "not before its time");
    rig.now = retry;
    rig.session.reap(rig.now);
    assert_eq!(rig.port().submitted.len(), 1, "others gave memory back");
    rig.finish();
}

/// A URB of the device itself may be silent for ever.
#[test]
fn memory_is_asked_for_again_beside_a_silent_urb() {
    let mut rig = Rig::new();
    rig.submit(1, 0x82, 64);
    rig.port().refuse = Some(RefusedReason::NoMemory);
    rig.submit(2, 0x81, 64);
    rig.now = rig.session.next_deadline().expect("it is tried again");
    rig.session.reap(rig.now);
    // The success of another URB calls nothing off.
    rig.port().refuse = None;
    rig.send(&get_device_descriptor(3), &[]);
    rig.now = rig.session.next_deadline().expect("it is tried again");
    rig.session.reap(rig.now);
    assert_eq!(rig.port().submitted.last().unwrap().endpoint, 0x81);
    assert_eq!(rig.session.next_deadline(), None);
    rig.finish();
}

#[test]
fn memory_for_a_urb_that_was_given_up_is_not_asked_for_again() {
    let mut rig = Rig::new();
    rig.port().refuse = Some(RefusedReason::NoMemory);
    rig.submit(1, 0x82, 64);
    rig.unlink(2, 1);
    rig.expect_unlink(2, Status::ECONNRESET);
    rig.now = rig.session.next_deadline().unwrap_or(rig.now);
    rig.session.reap(rig.now);
    assert_eq!(rig.session.next_deadline(), None);
    rig.finish();
}

#[test]
fn a_urb_does_not_wait_for_memory_for_ever() {
    let mut rig = Rig::new();
    rig.port().refuse = Some(RefusedReason::NoMemory);
    rig.submit(1, 0x82, 64);
    rig.now += NO_MEMORY_TIMEOUT;
    rig.session.reap(rig.now);
    rig.expect_submit(1, Status::ENOMEM, 0);
    rig.finish();
}

/// A device has hundreds of slots, and most clients use a few.
#[test]
fn transfers_are_as_many_as_urbs_were_in_flight_at_once() {
    let mut rig = Rig::new();
    assert_eq!(rig.session.slots.made(), 0..0);
    for round in 0..5 {
        for seqnum in 1..=3 {
            rig.submit(3 * round + seqnum, 0x81, 64);
        }
        assert_eq!(rig.session.slots.made(), 0..3);
        for slot in 0..3 {
            rig.end(slot, Status::OK, &[7; 64]);
        }
        rig.collect(usize::MAX);
        rig.sent.clear();
    }
    rig.finish();
}

/// The system may have no memory for another transfer.
#[test]
fn a_urb_without_a_transfer_waits_for_memory() {
    let mut rig = Rig::new();
    rig.submit(1, 0x81, 64);
    rig.port().is_out_of_memory = true;
    rig.submit(2, 0x81, 64);
    assert_eq!(rig.port().submitted.len(), 1);
    rig.end(0, Status::OK, &[7; 64]);
    rig.expect_submit(1, Status::OK, 64);
    // The slot that has its transfer is free now.
    rig.now += Duration::from_millis(100);
    rig.session.reap(rig.now);
    assert_eq!((rig.port().submitted.len(), rig.last_slot()), (2, 0));
    rig.finish();
}
