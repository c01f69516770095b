//! A load of UNLINKs: URBs of an endpoint without data, each given up by its client, as by a driver
//! that closes.
//!
//! A turn is a write of all SUBMITs and of an UNLINK for each, and ends with the last RET_UNLINK.
//!
//! Contract: blocking, with the socket's time limit. Anything other than a RET_UNLINK with
//! ECONNRESET for each UNLINK is an error.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Instant;

use crate::client::Client;
use crate::histogram::Histogram;
use crate::pdu::{self, HEADER_LEN, Submit};
use crate::run::{Clock, Moment, Outcome, Plan};
use crate::workload::Workload;

/// Linux's ECONNRESET, negative: the status of a URB that was given up.
const GIVEN_UP: i32 = -104;

/// Runs a load on a device; `look` is called at both ends of the measurement.
///
/// # Errors
/// The connection's; `InvalidData` for an unexpected reply.
pub fn run(
    client: Client,
    workload: Workload,
    plan: Plan,
    look: impl FnMut(Moment),
) -> io::Result<Outcome> {
    let (mut stream, devid, first_seqnum) = client.into_parts();
    let mut clock = Clock::new(plan, look);
    let (mut turnaround, mut counted) = (Histogram::default(), 0);
    let depth = u32::try_from(workload.depth).map_err(|_| ErrorKind::InvalidInput)?;
    let mut replies = vec![0; workload.depth * HEADER_LEN];
    let mut seqnum = first_seqnum;
    while !clock.is_over() {
        let commands = commands(&workload, devid, seqnum);
        let begun = Instant::now();
        stream.write_all(&commands)?;
        stream.read_exact(&mut replies)?;
        turnaround.record(begun.elapsed(), depth.into());
        counted += u64::from(depth);
        check(&replies, seqnum.wrapping_add(depth))?;
        seqnum = seqnum.wrapping_add(2 * depth);
        if clock.tick() {
            counted = 0;
            turnaround.clear();
        }
    }
    Ok(clock.outcome(vec![counted], turnaround))
}

/// The SUBMITs, from `seqnum` on, and the UNLINKs behind.
fn commands(workload: &Workload, devid: u32, seqnum: u32) -> Vec<u8> {
    let submit = Submit {
        seqnum: 0,
        devid,
        is_in: true,
        endpoint: workload.endpoint,
        len: workload.len(),
        packets: 0,
        setup: [0; 8],
    };
    let depth = u32::try_from(workload.depth).expect("checked by the caller");
    let submits = (0..depth).map(|urb| Submit { seqnum: seqnum.wrapping_add(urb), ..submit });
    let headers = submits.map(|submit| submit.header());
    let unlink = |urb: u32| {
        let target = seqnum.wrapping_add(urb);
        pdu::unlink(target.wrapping_add(depth), devid, target)
    };
    headers.chain((0..depth).map(unlink)).flatten().collect()
}

/// Checks that each UNLINK, from `seqnum` on, is answered once.
fn check(replies: &[u8], seqnum: u32) -> io::Result<()> {
    let mut seen = vec![false; replies.len() / HEADER_LEN];
    for reply in replies.chunks_exact(HEADER_LEN) {
        let unlink = pdu::word(reply, 1).wrapping_sub(seqnum) as usize;
        let is_right = pdu::word(reply, 0) == 4
            && pdu::word(reply, 5).cast_signed() == GIVEN_UP
            && seen.get_mut(unlink).is_some_and(|seen| !std::mem::replace(seen, true));
        if !is_right {
            let message =
                format!("no RET_UNLINK of a URB given up, or one seen before: {reply:02x?}");
            return Err(io::Error::new(ErrorKind::InvalidData, message));
        }
    }
    Ok(())
}
