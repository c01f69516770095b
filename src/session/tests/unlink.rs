//! The race of SUBMIT and UNLINK.

use super::*;
use crate::limits::EARLY_UNLINK_TIMEOUT;

#[test]
fn a_cancel_does_not_hit_the_next_urb_of_its_slot() {
    let mut rig = Rig::new();
    rig.submit(1, 0x81, 64);
    rig.unlink(2, 1);
    let slot = rig.last_slot();
    // The URB ends by itself before the worker comes, and the slot is used again.
    rig.end(slot, Status::OK, &[7; 64]);
    rig.submit(3, 0x81, 64);
    assert_eq!(rig.last_slot(), slot, "the slot freed last is used next");
    rig.work();
    assert_eq!(rig.port().cancelled, [0; 0]);
    rig.expect_submit(1, Status::OK, 64);
    assert_eq!(rig.take_bytes(64), [7; 64]);
    rig.expect_unlink(2, Status::OK);
    rig.end(slot, Status::OK, &[]);
    rig.expect_submit(3, Status::OK, 0);
    rig.finish();
}

#[test]
fn every_row_of_the_unlink_table() {
    let mut rig = Rig::new();
    // Unknown.
    rig.unlink(100, 99);
    rig.expect_unlink(100, Status::OK);
    // With the device, cancelled; a second UNLINK meanwhile.
    rig.submit(1, 0x81, 64);
    rig.unlink(101, 1);
    rig.unlink(102, 1);
    rig.expect_unlink(102, Status::OK);
    rig.work();
    let slot = rig.last_slot();
    assert_eq!(rig.port().cancelled, [slot]);
    rig.end(slot, Status::ECONNRESET, &[]);
    rig.expect_unlink(101, Status::ECONNRESET);
    // With the device, ended with data while being cancelled.
    rig.submit(2, 0x81, 64);
    rig.unlink(103, 2);
    rig.work();
    let slot = rig.last_slot();
    rig.end(slot, Status::ECONNRESET, &[1, 2]);
    rig.expect_submit(2, Status::ECONNRESET, 2);
    assert_eq!(rig.take_bytes(2), [1, 2]);
    rig.expect_unlink(103, Status::OK);
    // Ended, the reply not yet written.
    rig.submit(3, 0x81, 64);
    let slot = rig.last_slot();
    rig.end(slot, Status::EPIPE, &[]);
    rig.unlink(104, 3);
    rig.expect_submit(3, Status::EPIPE, 0);
    rig.expect_unlink(104, Status::OK);
    // Answered.
    rig.unlink(105, 3);
    rig.expect_unlink(105, Status::OK);
    rig.expect_silence();
    rig.finish();
}

#[test]
fn an_unlink_that_overtakes_its_submit_waits_for_it() {
    let mut rig = Rig::new();
    rig.submit(10, 0x81, 64);
    rig.unlink(12, 11);
    rig.expect_silence();
    // The SUBMIT is here at last, but never reaches the device.
    let submit = submit(11, 0x01, 5);
    rig.send(&Command::Submit(submit), &[1, 2, 3, 4, 5]);
    rig.expect_unlink(12, Status::ECONNRESET);
    assert_eq!(rig.port().submitted.len(), 1);
    rig.expect_silence();
    // Another does not come.
    rig.unlink(14, 13);
    let deadline = rig.session.next_deadline().expect("it does not wait for ever");
    rig.session.reap(rig.now);
    rig.expect_silence();
    rig.now = deadline;
    rig.session.reap(rig.now);
    rig.expect_unlink(14, Status::OK);
    // Nor does a SUBMIT come after another with a higher number.
    rig.unlink(17, 16);
    rig.expect_silence();
    rig.submit(18, 0x81, 64);
    rig.expect_unlink(17, Status::OK);
    // An old SUBMIT was answered.
    rig.unlink(15, 9);
    rig.expect_unlink(15, Status::OK);
    // With the device gone, UNLINKs of missing SUBMITs are answered.
    rig.unlink(20, 19);
    rig.port().gone = true;
    rig.session.reap(rig.now);
    rig.expect_unlink(20, Status::OK);
    rig.finish();
}

#[test]
fn an_early_unlink_waits_while_an_earlier_pdu_is_arriving() {
    let mut rig = Rig::new();
    rig.submit(10, 0x81, 64);
    rig.unlink(13, 12);
    // The data takes longer than the wait for a missing SUBMIT: first byte by byte, then with a
    // pause.
    rig.send(&Command::Submit(submit(11, 0x01, 5)), &[1]);
    for byte in 2..=4 {
        rig.now += EARLY_UNLINK_TIMEOUT - Duration::from_millis(1);
        rig.session.reap(rig.now);
        rig.feed(&[byte], usize::MAX).unwrap();
    }
    rig.now += 3 * EARLY_UNLINK_TIMEOUT;
    rig.session.reap(rig.now);
    assert!(rig.session.next_deadline().is_some_and(|at| at > rig.now), "it is not asked in vain");
    rig.feed(&[5], usize::MAX).unwrap();
    rig.expect_silence();
    rig.submit(12, 0x82, 64);
    rig.expect_unlink(13, Status::ECONNRESET);
    assert_eq!(rig.port().submitted.len(), 2, "the device never gets it");
    rig.finish();
}

#[test]
fn unlinks_are_answered_while_the_port_is_away() {
    let mut rig = Rig::new();
    rig.send(&set_interface(1, 1), &[]);
    let job = rig.session.take_job().expect("the request");
    rig.submit(2, 0x82, 64);
    rig.unlink(3, 2);
    rig.expect_unlink(3, Status::ECONNRESET);
    // The request itself: nobody waits any more, and the number is free.
    rig.unlink(4, 1);
    rig.expect_unlink(4, Status::ECONNRESET);
    rig.submit(1, 0x81, 64);
    rig.take_back(job);
    let slot = rig.last_slot();
    rig.end(slot, Status::OK, &[5]);
    rig.expect_submit(1, Status::OK, 1);
    rig.take_bytes(1);
    rig.expect_silence();
    rig.finish();
}

/// As on macOS, where an UNLINK ends all URBs in flight of the endpoint.
#[test]
fn a_bystander_of_an_unlink_goes_to_the_device_again() {
    let mut rig = Rig::new();
    rig.session.slots.cancels_pipe = true;
    for seqnum in [1, 2] {
        rig.submit(seqnum, 0x81, 64);
    }
    let [given_up, bystander] = [0, 1].map(|index| rig.port().submitted[index].slot);
    rig.unlink(3, 1);
    rig.work();
    rig.end(given_up, Status::ECONNRESET, &[]);
    rig.expect_unlink(3, Status::ECONNRESET);
    rig.end(bystander, Status::ECONNRESET, &[]);
    rig.expect_silence();
    assert_eq!(rig.port().submitted.len(), 3, "it goes again");
    let slot = rig.last_slot();
    rig.end(slot, Status::OK, &[7]);
    rig.expect_submit(2, Status::OK, 1);
    rig.take_bytes(1);
    rig.finish();
}

#[test]
fn an_isochronous_bystander_of_an_unlink_has_missed_its_packets() {
    let mut rig = Rig::new();
    rig.session.slots.cancels_pipe = true;
    let mut configuration = configuration();
    configuration.interfaces[0].current = 1;
    rig.port().perform =
        Some(Performed::Reconfigured { configuration: Some(configuration), status: Status::OK });
    rig.send(&set_interface(1, 1), &[]);
    rig.work();
    rig.expect_submit(1, Status::OK, 0);
    let packets: Vec<u8> = [0u32, 32, 0, 0, 32, 32, 0, 0].map(u32::to_be_bytes).concat();
    for seqnum in [2, 3] {
        let iso = CmdSubmit { number_of_packets: 2, ..submit(seqnum, 0x83, 64) };
        rig.send(&Command::Submit(iso), &packets);
    }
    let [given_up, bystander] = [0, 1].map(|index| rig.port().submitted[index].slot);
    rig.unlink(4, 2);
    rig.work();
    let results = vec![(0, Status::OK); 2];
    rig.transfer(given_up).packets.clone_from(&results);
    rig.end(given_up, Status::ECONNRESET, &[]);
    rig.expect_unlink(4, Status::ECONNRESET);
    rig.transfer(bystander).packets = results;
    rig.end(bystander, Status::ECONNRESET, &[]);
    let reply = rig.expect_submit(3, Status::OK, 0);
    assert_eq!((reply.number_of_packets, reply.error_count), (2, 2));
    let packets = rig.take_bytes(32);
    for packet in packets.as_chunks::<16>().0 {
        assert_eq!(packet[8..12], [0; 4]);
        assert_eq!(packet[12..], Status::EXDEV.0.to_be_bytes());
    }
    rig.finish();
}
