//! The answers of the client, and the pieces of each write.

use super::*;

#[test]
fn replies_written_byte_by_byte_are_the_same() {
    let mut rig = Rig::new();
    for (seqnum, len) in [(1u32, 3000usize), (2, 10), (3, 0)] {
        rig.submit(seqnum, 0x81, 4096);
        let slot = rig.last_slot();
        rig.end(slot, Status::OK, &vec![u8::try_from(seqnum).unwrap(); len]);
    }
    rig.collect(1);
    for (seqnum, len) in [(1, 3000), (2, 10), (3, 0)] {
        rig.expect_submit(seqnum, Status::OK, len);
        let data = rig.take_bytes(len as usize);
        assert!(data.iter().all(|&byte| u32::from(byte) == seqnum));
    }
    rig.expect_silence();
    rig.finish();
}

#[test]
fn slices_of_a_write_fit_the_room_given() {
    let mut rig = Rig::new();
    for seqnum in 0..3 {
        rig.submit(seqnum, 0x82, 4096);
        let slot = rig.last_slot();
        rig.end(slot, Status::OK, &[7; 4096]);
    }
    rig.session.stage();
    let all = 3 * (HEADER_LEN + 4096);
    for most in [0, 1, HEADER_LEN, 5000, all, usize::MAX] {
        let mut slices = TxSlices::new();
        rig.session.tx_slices(&mut slices, most);
        let given: usize = slices.iter().map(|slice| slice.len()).sum();
        assert_eq!(given, most.min(all), "room for {most}");
    }
    rig.collect(1000);
    assert_eq!(rig.sent.len(), all);
    rig.sent.clear();
    rig.finish();
}

#[test]
fn isochronous_padding_is_left_out_by_runs() {
    expect_packets([2000, 2000, 1500, 0, 2000, 1]);
}

#[test]
fn isochronous_packets_without_padding_come_whole() {
    expect_packets([2000; 6]);
    expect_packets([2000, 2000, 2000, 2000, 2000, 0]);
}

/// Has a URB of six packets of 2000 bytes end with these lengths, and checks the reply.
fn expect_packets(lengths: [u32; 6]) {
    let mut rig = Rig::new();
    rig.port().perform = Some(in_setting(1));
    rig.send(&set_interface(1, 1), &[]);
    rig.work();
    rig.expect_submit(1, Status::OK, 0);
    // Packets large enough to be written from the URB's own buffer.
    let count = 6u32;
    let words = (0..count).flat_map(|i| [i * 2000, 2000, 0, 0]);
    let descriptors: Vec<u8> = words.flat_map(u32::to_be_bytes).collect();
    let iso = CmdSubmit { number_of_packets: 6, ..submit(2, 0x83, 12_000) };
    rig.send(&Command::Submit(iso), &descriptors);
    let slot = rig.last_slot();
    let transfer = rig.transfer(slot);
    transfer.packets = lengths.map(|length| (length, Status::OK)).to_vec();
    let data: Vec<u8> = (0..12_000u32).map(|i| u8::try_from(i / 2000).unwrap()).collect();
    rig.end(slot, Status::OK, &data);
    rig.expect_submit(2, Status::OK, lengths.iter().sum());
    let payload = rig.take_bytes(lengths.iter().sum::<u32>() as usize);
    let expected: Vec<u8> = (0u8..).zip(lengths).flat_map(|(i, n)| vec![i; n as usize]).collect();
    assert_eq!(payload, expected);
    assert_eq!(rig.take_bytes(96)[64 + 8..64 + 12], lengths[4].to_be_bytes());
    rig.finish();
}

#[test]
fn short_and_truncated_results_have_the_right_status() {
    let mut rig = Rig::new();
    let command = CmdSubmit { transfer_flags: flags::SHORT_NOT_OK, ..submit(1, 0x81, 512) };
    rig.send(&Command::Submit(command), &[]);
    let slot = rig.last_slot();
    rig.end(slot, Status::OK, &[1; 100]);
    rig.expect_submit(1, Status::EREMOTEIO, 100);
    rig.take_bytes(100);
    // A client with less room than wLength.
    let setup = [0x80, 6, 0, 1, 0, 0, 18, 0];
    let endpoint = EndpointAddress::new(0, Direction::In);
    let command = CmdSubmit { endpoint, setup, ..submit(2, 0, 8) };
    rig.send(&Command::Submit(command), &[]);
    let slot = rig.last_slot();
    let mut data = setup.to_vec();
    data.extend([9; 18]);
    rig.block(slot).copy_from_slice(&data);
    rig.transfer(slot).status = Some(Status::OK);
    rig.transfer(slot).actual_length = 18;
    rig.port().ended.push(slot);
    rig.session.reap(rig.now);
    rig.expect_submit(2, Status::EOVERFLOW, 8);
    assert_eq!(rig.take_bytes(8), [9; 8]);
    rig.finish();
}
