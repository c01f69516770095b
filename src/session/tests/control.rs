//! Control requests which the host answers, shortens or refuses.

use super::*;

#[test]
fn configurations_are_answered_from_the_hosts_copy() {
    let mut rig = Rig::new();
    let whole = u16::try_from(DESCRIPTOR.len()).unwrap();
    for asked in [0, 1, 9, whole - 1, whole, whole + 1, 4096, 4097, 6000, u16::MAX] {
        rig.send(&get_configuration_descriptor(1, 0, asked), &[]);
        let expected = asked.min(whole);
        rig.expect_submit(1, Status::OK, expected.into());
        assert_eq!(rig.take_bytes(expected.into()), DESCRIPTOR[..expected.into()], "{asked}");
    }
    assert!(rig.port().submitted.is_empty(), "the device was not asked");
    // A client with less room than asked for, and a client for whom a short answer is an error.
    let Command::Submit(short) = get_configuration_descriptor(2, 0, 4096) else { unreachable!() };
    rig.send(&Command::Submit(CmdSubmit { transfer_buffer_length: 8, ..short }), &[]);
    rig.expect_submit(2, Status::EOVERFLOW, 8);
    rig.take_bytes(8);
    rig.send(&Command::Submit(CmdSubmit { transfer_flags: flags::SHORT_NOT_OK, ..short }), &[]);
    rig.expect_submit(2, Status::EREMOTEIO, whole.into());
    rig.take_bytes(whole.into());
    rig.finish();
}

#[test]
fn descriptors_unknown_to_the_host_are_read_from_the_device() {
    let mut rig = Rig::new();
    for (seqnum, setup) in [
        [0x80, 6, 1, 2, 0, 0, 9, 0],  // a configuration that there is not
        [0x80, 6, 0, 2, 9, 4, 9, 0],  // with a language
        [0x81, 6, 0, 2, 0, 0, 9, 0],  // of an interface
        [0x80, 6, 0, 7, 0, 0, 9, 0],  // for the other speed
        [0x80, 6, 0, 1, 0, 0, 18, 0], // the device's own
        [0xa0, 6, 0, 2, 0, 0, 9, 0],  // of a class
    ]
    .into_iter()
    .enumerate()
    {
        let seqnum = u32::try_from(seqnum).unwrap();
        rig.send(&control(seqnum, Direction::In, setup), &[]);
        assert_eq!(rig.port().submitted.len(), seqnum as usize + 1, "{setup:02x?}");
        let slot = rig.last_slot();
        rig.end(slot, Status::EPIPE, &[]);
        rig.expect_submit(seqnum, Status::EPIPE, 0);
    }
    rig.finish();
}

#[test]
fn a_stored_configuration_is_answered_in_the_order_of_control_requests() {
    let mut rig = Rig::new();
    rig.send(&get_device_descriptor(1), &[]);
    let slot = rig.last_slot();
    rig.send(&get_configuration_descriptor(2, 0, 9), &[]);
    rig.send(&get_device_descriptor(3), &[]);
    rig.send(&get_configuration_descriptor(4, 0, 9), &[]);
    // Other endpoints do not wait for the read.
    rig.submit(5, 0x81, 64);
    assert_eq!(rig.port().submitted.len(), 2);
    rig.expect_silence();
    // A waiting read can be given up.
    rig.unlink(6, 4);
    rig.expect_unlink(6, Status::ECONNRESET);
    rig.end(slot, Status::OK, &[0; 8]);
    rig.expect_submit(1, Status::OK, 8);
    rig.take_bytes(8);
    rig.expect_submit(2, Status::OK, 9);
    assert_eq!(rig.take_bytes(9), DESCRIPTOR[..9]);
    assert_eq!(rig.port().submitted.len(), 3, "the one behind it is with the device");
    let slot = rig.last_slot();
    rig.end(slot, Status::EPIPE, &[]);
    rig.expect_submit(3, Status::EPIPE, 0);
    rig.finish();
}

#[test]
fn a_stored_configuration_waits_for_a_barrier_and_delays_the_next() {
    let mut rig = Rig::new();
    rig.port().perform = Some(in_setting(1));
    rig.send(&get_device_descriptor(1), &[]);
    let slot = rig.last_slot();
    rig.send(&get_configuration_descriptor(2, 0, 9), &[]);
    rig.send(&set_interface(3, 1), &[]);
    rig.send(&get_configuration_descriptor(4, 0, 9), &[]);
    assert!(rig.session.take_job().is_none(), "control requests come before it");
    rig.end(slot, Status::OK, &[]);
    rig.expect_submit(1, Status::OK, 0);
    rig.expect_submit(2, Status::OK, 9);
    rig.take_bytes(9);
    rig.expect_silence();
    rig.work();
    rig.expect_submit(3, Status::OK, 0);
    rig.expect_submit(4, Status::OK, 9);
    rig.take_bytes(9);
    rig.finish();
}

/// The port of the tests moves 64 bytes.
#[test]
fn a_long_read_is_cut_to_the_ports_length_and_a_full_answer_is_refused() {
    let mut rig = Rig::new();
    let long = [0xc0, 4, 0, 0, 0, 0, 0x88, 0x13];
    for (len, told) in [(0, 0), (63, 63)] {
        rig.send(&control(1, Direction::In, long), &[]);
        let slot = rig.last_slot();
        let block = rig.block(slot);
        assert_eq!(block[..8], [0xc0, 4, 0, 0, 0, 0, 64, 0]);
        rig.end(slot, Status::OK, &vec![7; len]);
        rig.expect_submit(1, Status::OK, told);
        rig.take_bytes(len);
    }
    for _ in 0..2 {
        rig.send(&control(2, Direction::In, long), &[]);
        let slot = rig.last_slot();
        rig.end(slot, Status::OK, &[7; 64]);
        rig.expect_submit(2, Status::EINVAL, 0);
    }
    // Any other result of the device is passed on.
    rig.send(&control(3, Direction::In, long), &[]);
    let slot = rig.last_slot();
    rig.end(slot, Status::EPIPE, &[]);
    rig.expect_submit(3, Status::EPIPE, 0);
    // A longer answer than asked for has no room, even if the client asked for more.
    rig.send(&control(6, Direction::In, long), &[]);
    let slot = rig.last_slot();
    rig.end_with(slot, Status::EOVERFLOW, 100);
    rig.expect_submit(6, Status::EOVERFLOW, 64);
    rig.take_bytes(64);
    // A read of exactly 64 bytes is whole.
    rig.send(&control(4, Direction::In, [0xc0, 4, 0, 0, 0, 0, 64, 0]), &[]);
    let slot = rig.last_slot();
    rig.end(slot, Status::OK, &[7; 64]);
    rig.expect_submit(4, Status::OK, 64);
    rig.take_bytes(64);
    let before = rig.port().submitted.len();
    rig.send(&control(5, Direction::Out, [0x40, 3, 0, 0, 0, 0, 65, 0]), &[7; 65]);
    rig.expect_submit(5, Status::EINVAL, 0);
    assert_eq!(rig.port().submitted.len(), before, "a long write does not reach the device");
    rig.finish();
}
