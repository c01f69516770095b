//! Special requests as barriers.

use super::*;

#[test]
fn a_barrier_cancels_urbs_of_its_interface_and_delays_later_urbs() {
    let mut rig = Rig::new();
    rig.submit(1, 0x82, 64);
    let slot = rig.last_slot();
    rig.send(&set_interface(2, 1), &[]);
    // Endpoint 0x83 does not exist yet, and the descriptors must still be recognised.
    let packets: Vec<u8> = [0u32, 100, 0, 0, 100, 50, 0, 0].map(u32::to_be_bytes).concat();
    let iso = CmdSubmit { number_of_packets: 2, ..submit(3, 0x83, 150) };
    rig.send(&Command::Submit(iso), &packets);
    rig.send(&set_interface(4, 0), &[]);
    rig.submit(5, 0x82, 8);
    rig.work();
    assert_eq!(rig.port().cancelled, [slot]);
    assert_eq!(rig.port().performed, [], "a transfer of the interface is still in flight");
    rig.port().perform = Some(in_setting(1));
    rig.end(slot, Status::ECONNRESET, &[]);
    rig.expect_submit(1, Status::ECONNRESET, 0);
    let job = rig.session.take_job().expect("the first request");
    rig.take_back(job);
    rig.expect_submit(2, Status::OK, 0);
    assert_eq!(rig.port().submitted.last().unwrap().packets, [100, 50]);
    rig.expect_silence();
    // The second request waits for the isochronous URB in turn.
    rig.work();
    assert_eq!(rig.port().performed.len(), 1);
    let slot = rig.last_slot();
    rig.transfer(slot).packets = vec![(100, Status::OK), (0, Status::EXDEV)];
    rig.port().perform = Some(in_setting(0));
    rig.end(slot, Status::OK, &[9; 100]);
    let ret = rig.expect_submit(3, Status::OK, 100);
    assert_eq!((ret.number_of_packets, ret.error_count), (2, 1));
    assert_eq!(rig.take_bytes(100), [9; 100]);
    let descriptors = rig.take_bytes(32);
    let packets: Vec<u32> = Packets::new(&descriptors).iter().map(|p| p.actual_length).collect();
    assert_eq!(packets, [100, 0]);
    rig.work();
    rig.expect_submit(4, Status::OK, 0);
    assert_eq!(rig.port().submitted.last().unwrap().endpoint, 0x82);
    rig.finish();
}

#[test]
fn a_urb_arriving_while_a_barrier_ends_is_judged_by_the_new_settings() {
    let mut rig = Rig::new();
    rig.send(&set_interface(1, 1), &[]);
    rig.port().perform = Some(in_setting(1));
    let job = rig.session.take_job().expect("the request");
    // Endpoint 0x01 is there when the header comes, and not any more when the data has come.
    rig.send(&Command::Submit(submit(2, 0x01, 100)), &[7; 60]);
    rig.take_back(job);
    rig.feed(&[7; 40], usize::MAX).unwrap();
    assert!(rig.port().submitted.is_empty(), "the device has no such endpoint");
    rig.expect_submit(1, Status::OK, 0);
    rig.expect_submit(2, Status::ENOENT, 0);
    rig.finish();
}

#[test]
fn a_barrier_does_not_overtake_a_control_transfer_that_waits() {
    let mut rig = Rig::new();
    rig.submit(1, 0x82, 64);
    let slot = rig.last_slot();
    rig.port().refuse = Some(RefusedReason::NoMemory);
    rig.send(&get_device_descriptor(2), &[]);
    rig.port().refuse = None;
    // CLEAR_FEATURE(ENDPOINT_HALT), which itself waits for no transfer.
    rig.send(&control(3, Direction::Out, [2, 1, 0, 0, 0x81, 0, 0, 0]), &[]);
    rig.work();
    assert_eq!(rig.port().performed, [], "the device must get the other request first");
    rig.end(slot, Status::OK, &[]);
    assert_eq!(rig.port().submitted.last().unwrap().endpoint, 0);
    rig.work();
    assert_eq!(rig.port().performed.len(), 1);
    rig.finish();
}

#[test]
fn setting_the_configuration_leaves_control_transfers_alone() {
    let mut rig = Rig::new();
    rig.send(&get_device_descriptor(1), &[]);
    let of_control = rig.last_slot();
    rig.submit(2, 0x82, 64);
    let of_interface = rig.last_slot();
    rig.send(&control(3, Direction::Out, [0, 9, 1, 0, 0, 0, 0, 0]), &[]);
    rig.work();
    assert_eq!(rig.port().cancelled, [of_interface]);
    rig.end(of_interface, Status::ECONNRESET, &[]);
    rig.expect_submit(2, Status::ECONNRESET, 0);
    rig.work();
    assert_eq!(rig.port().performed.len(), 1);
    rig.expect_submit(3, Status::OK, 0);
    rig.end(of_control, Status::OK, &[0; 18]);
    rig.expect_submit(1, Status::OK, 18);
    rig.take_bytes(18);
    rig.finish();
}

#[test]
fn a_request_unlinked_before_its_turn_is_not_performed() {
    let mut rig = Rig::new();
    rig.submit(1, 0x82, 64);
    let slot = rig.last_slot();
    rig.send(&set_interface(2, 1), &[]);
    rig.submit(3, 0x81, 64);
    rig.work();
    rig.unlink(4, 2);
    rig.expect_unlink(4, Status::ECONNRESET);
    assert_eq!(rig.port().submitted.last().unwrap().endpoint, 0x81, "nothing stands before it");
    rig.end(slot, Status::ECONNRESET, &[]);
    rig.expect_submit(1, Status::ECONNRESET, 0);
    rig.work();
    assert_eq!(rig.port().performed, []);
    rig.finish();
}

#[test]
fn settings_changed_by_a_failed_request_are_in_force() {
    let mut rig = Rig::new();
    rig.send(&set_interface(1, 1), &[]);
    let Performed::Reconfigured { configuration, .. } = in_setting(1) else { unreachable!() };
    rig.port().perform = Some(Performed::Reconfigured { configuration, status: Status::EPIPE });
    rig.work();
    rig.expect_submit(1, Status::EPIPE, 0);
    // Only the other setting has the endpoint.
    rig.submit(2, 0x82, 64);
    rig.expect_submit(2, Status::ENOENT, 0);
    rig.finish();
}
