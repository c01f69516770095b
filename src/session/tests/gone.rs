//! The device goes, or the client goes.

use super::*;

#[test]
fn urbs_waiting_for_a_device_that_goes_are_answered() {
    let mut rig = Rig::new();
    for seqnum in 0..60 {
        rig.submit(seqnum, 0x82, 64);
    }
    rig.send(&set_interface(100, 1), &[]);
    rig.submit(101, 0x81, 64);
    let slots: Vec<u32> = rig.port().submitted.iter().map(|s| s.slot).collect();
    for &slot in &slots {
        let transfer = rig.transfer(slot);
        (transfer.status, transfer.actual_length) = (Some(Status::ESHUTDOWN), 0);
    }
    let port = rig.port();
    port.ended = slots;
    port.gone = true;
    rig.session.reap(rig.now);
    assert!(!rig.session.is_ready_for_teardown());
    let mut answered: Vec<u32> = (0..62)
        .map(|_| match rig.reply() {
            Reply::Submit(ret) => {
                assert_ne!(ret.status, Status::OK);
                ret.seqnum.0
            }
            Reply::Unlink(ret) => panic!("nobody unlinked: {ret:?}"),
        })
        .collect();
    answered.sort_unstable();
    let expected: Vec<u32> = (0..60).chain([100, 101]).collect();
    assert_eq!(answered, expected);
    rig.expect_silence();
    assert!(rig.session.is_ready_for_teardown());
    // Commands on their way when the device went: SUBMITs, special requests, UNLINKs.
    rig.submit(102, 0x82, 64);
    rig.send(&Command::Submit(submit(103, 0x01, 3)), &[1, 2, 3]);
    rig.send(&set_interface(104, 0), &[]);
    rig.submit(105, 0x80, 0);
    rig.unlink(106, 102);
    for seqnum in 102..=105 {
        rig.expect_submit(seqnum, Status::ENODEV, 0);
    }
    rig.expect_unlink(106, Status::OK);
    assert!(rig.session.take_job().is_none(), "nothing to ask the device");
    rig.finish();
}

#[test]
fn a_session_without_a_client_can_still_be_called() {
    let mut rig = Rig::new();
    rig.send(&Command::Submit(submit(1, 0x01, 100)), &[7; 60]);
    rig.session.begin_teardown();
    // The arriving URB is no more: nothing has its place.
    assert_eq!(rig.session.rx_read(&mut &[7; 40][..], rig.now), Ok(()));
    rig.finish();
}
