//! The port on its way to the worker and back.

use super::*;

/// The reactor gives each session a bounded turn, however much has ended while the port was away.
#[test]
fn taking_the_port_back_collects_nothing_and_each_call_collects_once() {
    let mut rig = Rig::new();
    for seqnum in 0..30 {
        rig.submit(seqnum, 0x82, 64);
    }
    rig.unlink(100, 29);
    let mut job = rig.session.take_job().expect("a transfer to cancel");
    let slots: Vec<u32> = job.port.submitted.iter().map(|submitted| submitted.slot).collect();
    for &slot in &slots {
        let transfer = rig.transfer(slot);
        (transfer.status, transfer.actual_length) = (Some(Status::OK), 0);
    }
    (job.port.ended, job.port.reap_budget) = (slots, Some(10));
    let (port, result) = job.run();
    rig.session.take_back(port, result, rig.now);
    assert_eq!(rig.port().reaps, 0, "the port is asked in the session's turn");
    for calls in 1..=3 {
        let more = rig.session.reap(rig.now);
        assert_eq!((rig.port().reaps, more), (calls, calls < 3));
        assert_eq!(rig.port().ended.len(), 30 - 10 * calls as usize);
    }
    for seqnum in 0..30 {
        rig.expect_submit(seqnum, Status::OK, 0);
    }
    rig.expect_unlink(100, Status::OK);
    rig.finish();
}

/// The system tells of a hang-up once, and the port may be away then.
#[test]
fn a_hangup_is_not_lost_while_the_worker_has_the_port() {
    let mut rig = Rig::new();
    rig.session.handle_hangup(rig.now);
    assert_eq!(rig.port().hangups, 1);
    rig.send(&set_interface(1, 1), &[]);
    let job = rig.session.take_job().expect("the request");
    rig.session.handle_hangup(rig.now);
    rig.take_back(job);
    assert_eq!(rig.port().hangups, 2);
    rig.send(&set_interface(2, 1), &[]);
    rig.work();
    assert_eq!(rig.port().hangups, 2, "it is told once");
}
