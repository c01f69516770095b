//! What a session does with a device that a test plays, step by step. It cancels as libusb does: by
//! transfer, whichever URB that carries by then.

use std::io::IoSlice;
use std::time::Instant;

use usbferry_sys::arena::{Arena, Block};

use super::{SLICES_MAX, Session, TaskResult};
use crate::limits::DeviceLimits;
use crate::usb::descriptor::parse_configuration;
use crate::usb::special::SpecialRequest;
use crate::usb::{
    Completion, EventSource, Opened, Performed, Port, Reaped, Refused, Submission, Transfer,
};
use crate::wire::pdu::{CmdSubmit, CmdUnlink, Command, HEADER_LEN, Reply, RetSubmit, RetUnlink};
use crate::wire::status::Status;
use crate::wire::types::{DevId, Direction, EndpointAddress, SeqNum};

const DEVID: DevId = DevId::new(1, 2);

/// Bulk IN.
const ENDPOINT: EndpointAddress = EndpointAddress::new(1, Direction::In);

/// A configuration with that endpoint.
const CONFIGURATION: [u8; 25] =
    [9, 2, 25, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 1, 255, 0, 0, 0, 7, 5, 0x81, 2, 0, 2, 0];

struct FakePort {
    /// Slots in flight, in the order they were submitted.
    in_flight: Vec<u32>,
    /// Those that ended and were not reaped, with their ends.
    ended: Vec<u32>,
    cancelled: Vec<u32>,
}

struct FakeTransfer {
    slot: u32,
    block: Option<Block>,
    status: Status,
}

impl Port for FakePort {
    type Transfer = FakeTransfer;
    type CancelToken = u32;

    fn event_sources(&self) -> Vec<EventSource> {
        Vec::new()
    }

    fn submit(
        &mut self,
        transfer: &mut FakeTransfer,
        _: &Submission<'_>,
        block: Block,
        _: Instant,
    ) -> Result<(), Refused> {
        assert!(transfer.block.replace(block).is_none(), "the transfer is in flight");
        self.in_flight.push(transfer.slot);
        Ok(())
    }

    fn reap(&mut self, _: Instant, completed: &mut Vec<u32>) -> Reaped {
        completed.append(&mut self.ended);
        Reaped::default()
    }

    fn hung_up(&mut self, _: Instant) {}

    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    fn cancel_token(transfer: &FakeTransfer) -> u32 {
        transfer.slot
    }

    fn cancel(&mut self, slot: &u32) {
        self.cancelled.push(*slot);
    }

    fn perform(&mut self, _: SpecialRequest) -> Performed {
        Performed::Done
    }

    fn close(self, _: Vec<FakeTransfer>, _: Arena) {}
}

impl FakePort {
    /// Ends the oldest URB.
    fn end_oldest(&mut self) {
        self.ended.push(self.in_flight.remove(0));
    }
}

impl Transfer for FakeTransfer {
    fn take(&mut self) -> Completion {
        let block = self.block.take().expect("it was reaped");
        Completion { status: self.status, actual_length: 1, block }
    }

    fn packet(&self, _: usize) -> (u32, Status) {
        unreachable!("there are no isochronous endpoints")
    }
}

fn session() -> Session<FakePort> {
    let limits = DeviceLimits { urbs: 64, ..DeviceLimits::default() };
    let transfer = |slot| FakeTransfer { slot, block: None, status: Status::OK };
    let mut memory = Arena::new();
    memory.add_heap(1 << 20);
    let opened = Opened {
        port: FakePort { in_flight: Vec::new(), ended: Vec::new(), cancelled: Vec::new() },
        transfers: (0..64).map(transfer).collect(),
        memory,
        configuration: Some(parse_configuration(&CONFIGURATION)),
    };
    Session::new(DEVID, limits, opened)
}

fn receive(session: &mut Session<FakePort>, commands: &[Command]) {
    for command in commands {
        let mut header = [0; HEADER_LEN];
        command.emit(&mut header);
        let (_, scratch) = session.rx_slices();
        scratch[..HEADER_LEN].copy_from_slice(&header);
        assert_eq!(session.rx_advance(HEADER_LEN, Instant::now()), Ok(()));
    }
}

const fn submit(seqnum: u32) -> Command {
    Command::Submit(CmdSubmit {
        seqnum: SeqNum(seqnum),
        devid: DEVID,
        endpoint: ENDPOINT,
        transfer_flags: 0,
        transfer_buffer_length: 1,
        start_frame: 0,
        number_of_packets: 0,
        setup: [0; 8],
    })
}

const fn unlink(seqnum: u32, target: u32) -> Command {
    Command::Unlink(CmdUnlink { seqnum: SeqNum(seqnum), devid: DEVID, target: SeqNum(target) })
}

/// Seqnums and statuses of the replies that wait.
fn replies(session: &mut Session<FakePort>) -> Vec<(u32, Status)> {
    session.stage();
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let count = session.tx_slices(&mut slices);
    let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
    let mut rest = &bytes[..];
    let mut replies = Vec::new();
    while let Some((header, tail)) = rest.split_first_chunk() {
        rest = match Reply::parse(header).expect("a reply") {
            Reply::Submit(RetSubmit { seqnum, status, actual_length, .. }) => {
                replies.push((seqnum.0, status));
                &tail[actual_length as usize..]
            }
            Reply::Unlink(RetUnlink { seqnum, status }) => {
                replies.push((seqnum.0, status));
                tail
            }
        };
    }
    session.tx_advance(bytes.len(), Instant::now());
    replies
}

/// A URB that has ended before its cancelling began leaves nothing to cancel: its slot may carry
/// another URB by then, which nobody unlinked.
#[test]
fn a_slot_that_is_used_again_is_not_cancelled_for_the_urb_before() {
    let mut session = session();
    receive(&mut session, &[submit(1), unlink(2, 1)]);
    session.port.as_mut().unwrap().end_oldest();
    session.reap(Instant::now());
    receive(&mut session, &[submit(3)]);
    let slot = session.port.as_ref().unwrap().in_flight[0];
    assert_eq!(slot, 0, "the slot that became free");
    assert!(session.take_job().is_none(), "nothing is in flight that was unlinked");
    assert_eq!(replies(&mut session), [(1, Status::OK), (2, Status::OK)]);
}

/// The others that were unlinked are still cancelled, each once.
#[test]
fn what_has_not_ended_is_cancelled() {
    let mut session = session();
    receive(&mut session, &[submit(1), submit(2), submit(3), submit(4)]);
    receive(&mut session, &[unlink(11, 1), unlink(12, 2), unlink(14, 4)]);
    session.port.as_mut().unwrap().end_oldest();
    session.reap(Instant::now());
    let (port, result) = session.take_job().expect("two are to be cancelled").run();
    assert!(matches!(result, TaskResult::Cancelled(_)));
    let mut cancelled = port.cancelled.clone();
    cancelled.sort_unstable();
    assert_eq!(cancelled, [1, 3]);
    session.finish_job(port, result, Instant::now());
    assert!(session.take_job().is_none());
    assert_eq!(replies(&mut session), [(1, Status::OK), (11, Status::OK)]);
}
