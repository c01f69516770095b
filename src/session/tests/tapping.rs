//! The records of a session for a capture.

use std::path::Path;

use super::*;
use crate::capture::Capture;
use crate::capture::tests::{start, tap, times};

fn capture(rig: &mut Rig, path: &Path) -> Capture {
    let capture = start(path, None);
    rig.session.add_tap(tap(&capture));
    capture
}

/// SUBMITs that arrive with one read have one time, and so have URBs that are found ended by one
/// look. The records wait for the end of the turn.
#[test]
fn records_of_a_batch_have_one_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("batch.pcapng");
    let mut rig = Rig::new();
    let capture = capture(&mut rig, &path);
    let taken = || capture.count().taken;
    let mut bytes = Vec::new();
    for seqnum in 1..=3 {
        let mut header = [0; HEADER_LEN];
        Command::Submit(submit(seqnum, 0x81, 64)).emit(&mut header);
        bytes.extend(header);
    }
    rig.feed(&bytes, usize::MAX).unwrap();
    assert_eq!(taken().submissions, 0);
    rig.session.hand_in();
    assert_eq!((taken().submissions, taken().ends), (3, 0));
    for slot in 0..3 {
        rig.transfer(slot).status = Some(Status::OK);
        rig.port().ended.push(slot);
    }
    rig.session.reap(rig.now);
    rig.session.hand_in();
    assert_eq!((taken().submissions, taken().ends), (3, 3));
    rig.session.remove_taps(|_| true);
    drop(capture);
    let times = times(&path);
    assert_eq!(times.len(), 6);
    assert!(times[..3].iter().all(|time| *time == times[0]), "{times:?}");
    assert!(times[3..].iter().all(|time| *time == times[3]), "{times:?}");
}

/// The end of a URB between batches, here by a worker, is in the capture at once.
#[test]
fn a_record_without_a_batch_does_not_wait() {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::new();
    let capture = capture(&mut rig, &folder.path().join("single.pcapng"));
    rig.port().perform = Some(in_setting(1));
    rig.send(&set_interface(1, 1), &[]);
    rig.session.hand_in();
    assert_eq!((capture.count().taken.submissions, capture.count().taken.ends), (1, 0));
    rig.work();
    assert_eq!(capture.count().taken.ends, 1);
}
