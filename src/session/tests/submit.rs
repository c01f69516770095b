//! URBs as the device gets them.

use super::*;

#[test]
fn an_isochronous_interval_that_the_host_will_not_keep_is_noticed() {
    // bInterval 4 is 8 frames or microframes.
    for (submitted, noticed) in
        [(8, false), (4, false), (0, false), (-1, false), (1, true), (16, true)]
    {
        let mut rig = Rig::new();
        let mut configuration = configuration();
        configuration.interfaces[0].current = 1;
        configuration.interfaces[0].alternates[1].endpoints[1].interval = 4;
        rig.port().perform = Some(Performed::Reconfigured {
            configuration: Some(configuration),
            status: Status::OK,
        });
        rig.send(&set_interface(1, 1), &[]);
        rig.work();
        rig.expect_submit(1, Status::OK, 0);
        // Other endpoints have no interval, and the client's value means nothing.
        rig.send(&Command::Submit(CmdSubmit { interval: 3, ..submit(2, 0x81, 8) }), &[]);
        assert!(!rig.session.endpoints.is_interval_warned);
        let iso = CmdSubmit { number_of_packets: 1, interval: submitted, ..submit(3, 0x83, 8) };
        rig.send(&Command::Submit(iso), &[0u32, 8, 0, 0].map(u32::to_be_bytes).concat());
        assert_eq!(rig.session.endpoints.is_interval_warned, noticed, "{submitted}");
        let slot = rig.last_slot();
        rig.transfer(slot).packets = vec![(8, Status::OK)];
        rig.finish();
    }
}

#[test]
fn isochronous_data_is_joined_once_however_often_it_is_submitted() {
    let mut rig = Rig::new();
    let mut configuration = configuration();
    configuration.interfaces[0].current = 1;
    configuration.interfaces[0].alternates[1].endpoints[1].address = EndpointAddress::from_byte(3);
    rig.port().perform =
        Some(Performed::Reconfigured { configuration: Some(configuration), status: Status::OK });
    rig.send(&set_interface(1, 1), &[]);
    rig.work();
    rig.submit(2, 0x81, 64);
    let other = rig.last_slot();
    rig.port().refuse = Some(RefusedReason::NoMemory);
    // Packets 2..4 and 5..8 of eight bytes.
    let packets: Vec<u8> = [2u32, 2, 0, 0, 5, 3, 0, 0].map(u32::to_be_bytes).concat();
    let behind = [&[0, 0, 1, 2, 0, 3, 4, 5], &packets[..]].concat();
    let iso = CmdSubmit { number_of_packets: 2, ..submit(3, 0x03, 8) };
    rig.send(&Command::Submit(iso), &behind);
    rig.port().refuse = None;
    rig.end(other, Status::OK, &[]);
    let slot = rig.last_slot();
    let block = rig.block(slot);
    assert_eq!(block[..5], [1, 2, 3, 4, 5]);
    rig.transfer(slot).packets = vec![(2, Status::OK), (3, Status::OK)];
    rig.finish();
}

#[test]
fn zero_packet_is_for_bulk_out_only() {
    let mut rig = Rig::new();
    for (seqnum, endpoint, expected) in [(1, 0x01, true), (2, 0x81, false)] {
        let flagged =
            CmdSubmit { transfer_flags: flags::ZERO_PACKET, ..submit(seqnum, endpoint, 0) };
        rig.send(&Command::Submit(flagged), &[]);
        assert_eq!(rig.port().submitted.last().unwrap().zero_packet, expected);
    }
    rig.finish();
}

#[test]
fn ends_behind_submits_are_looked_for_where_that_pays() {
    let mut rig = Rig::new();
    let mut submit = |seqnum: u32, is_prompt: bool| {
        rig.submit(seqnum, 0x81, 8);
        let slot = rig.last_slot();
        if is_prompt {
            rig.transfer(slot).status = Some(Status::OK);
            rig.port().ended.push(slot);
        }
        let before = rig.port().reaps;
        assert!(!rig.session.reap_new(rig.now), "nothing is left to collect");
        let looked = rig.port().reaps > before;
        assert_eq!(is_prompt && looked, rig.session.has_output(), "the end is answered at once");
        match is_prompt {
            true => assert!(!rig.session.reap(rig.now)),
            false => rig.end_with(slot, Status::OK, 0),
        }
        rig.expect_submit(seqnum, Status::OK, 0);
        looked
    };
    assert_eq!((0..100).filter(|&seqnum| submit(seqnum, true)).count(), 100);
    let in_vain = (100..1100).filter(|&seqnum| submit(seqnum, false)).count();
    assert!((2..20).contains(&in_vain), "{in_vain} looks at a slow device");
    // The device is prompt again, which the next look finds.
    let again = (1100..2000).filter(|&seqnum| submit(seqnum, true)).count();
    assert!(again > 600, "{again} looks at a prompt device");
}

#[test]
fn a_prompt_device_gets_batches_in_the_same_buffers_and_a_slow_device_gets_all() {
    let mut rig = Rig::new();
    rig.session.rx.set_batch(1000);
    let headers = |seqnums: std::ops::Range<u32>| {
        let emit = |seqnum| {
            let mut header = [0; HEADER_LEN];
            Command::Submit(submit(seqnum, 0x81, 512)).emit(&mut header);
            header
        };
        seqnums.flat_map(emit).collect::<Vec<u8>>()
    };
    rig.feed(&headers(0..4), usize::MAX).unwrap();
    let mut buffers = Vec::new();
    for batch in [0..2, 2..4] {
        assert_eq!(rig.session.in_flight(), 2);
        assert_eq!(rig.session.is_parsing_paused(), batch.start == 0, "more SUBMITs are here");
        let slots = rig.port().submitted.iter().rev().take(2).map(|submitted| submitted.slot);
        let mut slots: Vec<u32> = slots.collect();
        slots.reverse();
        let mut addresses: Vec<_> =
            slots.iter().map(|&slot| rig.block(slot)[..].as_ptr()).collect();
        addresses.sort_unstable();
        buffers.push(addresses);
        for slot in slots {
            rig.transfer(slot).status = Some(Status::OK);
            rig.port().ended.push(slot);
        }
        assert!(!rig.session.reap_new(rig.now), "nothing is left to collect");
        rig.collect(usize::MAX);
        for seqnum in batch {
            rig.expect_submit(seqnum, Status::OK, 0);
        }
        rig.session.rx_advance(0, rig.now).unwrap();
    }
    assert_eq!(buffers[0], buffers[1]);
    rig.submit(4, 0x81, 512);
    assert!(!rig.session.reap_new(rig.now), "the device takes its time");
    rig.feed(&headers(5..9), usize::MAX).unwrap();
    assert_eq!((rig.session.in_flight(), rig.session.is_parsing_paused()), (5, false));
    rig.finish();
}
