//! An idle session gives memory back, and goes on as before.

use super::*;
use crate::session::Thrift;

const AFTER: Duration = Duration::from_secs(45);

impl Rig {
    /// Has an idle session give back all that is not in use.
    fn give_back_all(&mut self) {
        self.now += AFTER;
        let all = (0..1000).any(|_| self.session.give_back(self.now, AFTER) == Thrift::Done);
        assert!(all, "there is always more to give back");
    }
}

#[test]
fn memory_goes_back_when_nothing_has_come_for_a_while() {
    let mut rig = Rig::new();
    rig.submit(1, 0x81, 64);
    rig.now += AFTER / 2;
    rig.end(0, Status::OK, &[7; 64]);
    rig.expect_submit(1, Status::OK, 64);
    rig.take_bytes(64);
    let ready = rig.now + AFTER;
    rig.now += AFTER / 2;
    assert_eq!(rig.session.give_back(rig.now, AFTER), Thrift::NotBefore(ready));
    rig.now = ready;
    assert_eq!(rig.session.give_back(rig.now, AFTER), Thrift::More);
    assert_eq!(rig.session.slots.made(), 0..0);
    rig.give_back_all();
    // Nothing more before the next input.
    rig.now += 10 * AFTER;
    assert_eq!(rig.session.give_back(rig.now, AFTER), Thrift::Nothing);
    rig.submit(2, 0x81, 64);
    assert_eq!(rig.session.give_back(rig.now, AFTER), Thrift::NotBefore(rig.now + AFTER));
    rig.finish();
}

/// A URB of a keyboard that nobody touches, and a payload that stops in its middle.
#[test]
fn memory_in_use_stays_and_everything_goes_on() {
    let mut rig = Rig::new();
    rig.submit(1, 0x82, 64);
    for seqnum in 2..30 {
        rig.submit(seqnum, 0x81, 4096);
    }
    for slot in 1..29 {
        rig.end(slot, Status::OK, &[1; 4096]);
        rig.expect_submit(slot + 1, Status::OK, 4096);
        rig.take_bytes(4096);
    }
    let data: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
    rig.send(&Command::Submit(submit(40, 0x01, 100_000)), &data[..30_000]);
    rig.give_back_all();
    assert_eq!(rig.session.slots.made(), 0..1, "the keyboard's");
    rig.feed(&data[30_000..], 7000).unwrap();
    let slot = rig.last_slot();
    assert_eq!(rig.block(slot)[..100_000], data);
    rig.end_with(slot, Status::OK, 100_000);
    rig.expect_submit(40, Status::OK, 100_000);
    rig.end(0, Status::OK, &[9; 64]);
    rig.expect_submit(1, Status::OK, 64);
    assert_eq!(rig.take_bytes(64), [9; 64]);
    rig.finish();
}

#[test]
fn replies_that_wait_for_the_client_keep_their_bytes() {
    let mut rig = Rig::new();
    rig.submit(1, 0x81, 2000);
    rig.submit(2, 0x81, 20);
    rig.end(0, Status::OK, &[5; 2000]);
    rig.end(1, Status::OK, &[6; 20]);
    rig.session.stage();
    rig.give_back_all();
    rig.expect_submit(1, Status::OK, 2000);
    assert_eq!(rig.take_bytes(2000), [5; 2000]);
    rig.expect_submit(2, Status::OK, 20);
    assert_eq!(rig.take_bytes(20), [6; 20]);
    rig.finish();
}

/// Blocking work may take as long as it likes.
#[test]
fn a_session_whose_port_is_away_waits_for_the_port() {
    let mut rig = Rig::new();
    rig.submit(1, 0x82, 64);
    rig.unlink(2, 1);
    let job = rig.session.take_job().expect("a URB to cancel");
    rig.now += 2 * AFTER;
    assert!(matches!(rig.session.give_back(rig.now, AFTER), Thrift::NotBefore(_)));
    rig.take_back(job);
    rig.end(0, Status::ECONNRESET, &[]);
    rig.expect_unlink(2, Status::ECONNRESET);
    rig.give_back_all();
    assert_eq!(rig.session.slots.made(), 0..0);
    rig.finish();
}
