//! The stream of a client: cuts make no difference, and bytes outside the protocol are the end.

use super::*;

#[test]
fn any_cut_of_the_stream_gives_the_same_result() {
    let mut stream = Vec::new();
    let mut header = [0; HEADER_LEN];
    // All but one of the length expected from the second on.
    let lengths = [9000, 9000, 9000, 9000, 8500, 9000, 9000, 9000u32];
    for (seqnum, len) in (0u32..).zip(lengths) {
        Command::Submit(submit(seqnum, 0x01, len)).emit(&mut header);
        stream.extend(header);
        stream.extend((0..len).map(|i| u8::try_from((i + seqnum) % 251).unwrap()));
    }
    let unlink = CmdUnlink { seqnum: SeqNum(50), devid: DEVID, target: SeqNum(u32::MAX) };
    Command::Unlink(unlink).emit(&mut header);
    stream.extend(header);
    for step in [1, 7, 47, 48, 49, 1000, 4096, 9048, 20_000, 100_000] {
        let mut rig = Rig::new();
        rig.feed(&stream, step).unwrap();
        rig.expect_unlink(50, Status::OK);
        assert_eq!(rig.port().submitted.len(), lengths.len(), "step {step}");
        for (seqnum, len) in (0u32..).zip(lengths) {
            let slot = rig.port().submitted[seqnum as usize].slot;
            let block = rig.block(slot);
            let intact = (0..len).all(|i| u32::from(block[i as usize]) == (i + seqnum) % 251);
            assert!(intact, "step {step}, URB {seqnum}");
        }
        rig.finish();
    }
}

#[test]
fn violations_end_the_session() {
    let violation = |command: CmdSubmit| {
        let mut rig = Rig::new();
        rig.submit(1, 0x82, 64);
        let mut header = [0; HEADER_LEN];
        Command::Submit(command).emit(&mut header);
        let violation = rig.feed(&header, usize::MAX).unwrap_err();
        rig.finish();
        violation
    };
    assert_eq!(violation(submit(1, 0x81, 0)), Violation::DuplicateSeqnum(SeqNum(1)));
    let other = DevId(0x0009_0009);
    assert_eq!(
        violation(CmdSubmit { devid: other, ..submit(2, 0x81, 0) }),
        Violation::WrongDevice(other)
    );
    assert_eq!(violation(submit(2, 0x01, 0x7fff_ffff)), Violation::TooLong(0x7fff_ffff));
}
