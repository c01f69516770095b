//! The session against a port that does only what a test tells it.

use std::time::Duration;

use super::model::{DEVID, submit_of};
use super::*;
use crate::usb::descriptor::{Host, parse_configuration};
use crate::usb::isochronous::IsochronousSettings;
use crate::usb::{Completion, EventSource, Reaped, Refused, RefusedReason, Submission};
use crate::wire::iso::Packets;
use crate::wire::pdu::{CmdSubmit, CmdUnlink, Command, HEADER_LEN, Reply, RetSubmit, RetUnlink};
use crate::wire::types::{Direction, EndpointAddress, Speed, TransferType, flags};
use usbferry_sys::arena::Block;

/// Interface 0 with bulk 0x81, 0x01 and 0x82; in setting 1 also isochronous 0x83.
const DESCRIPTOR: &[u8] = &[
    9, 2, 62, 0, 1, 1, 0, 0x80, 50, // configuration 1
    9, 4, 0, 0, 3, 255, 0, 0, 0, // interface 0, setting 0
    7, 5, 0x81, 2, 0, 2, 0, 7, 5, 0x01, 2, 0, 2, 0, 7, 5, 0x82, 2, 0, 2, 0, //
    9, 4, 0, 1, 2, 255, 0, 0, 0, // setting 1
    7, 5, 0x81, 2, 0, 2, 0, 7, 5, 0x83, 1, 0, 4, 1,
];

const SLOTS: u32 = 70;

/// What a test sees of a submission.
#[derive(Debug)]
struct Submitted {
    slot: u32,
    endpoint: u8,
    length: usize,
    zero_packet: bool,
    packets: Vec<u32>,
}

#[derive(Default)]
struct TestPort {
    submitted: Vec<Submitted>,
    ended: Vec<u32>,
    /// The most that one call collects; `None` for all.
    reap_budget: Option<usize>,
    /// Calls that collected.
    reaps: u32,
    refuse: Option<RefusedReason>,
    cancelled: Vec<u32>,
    performed: Vec<SpecialRequest>,
    perform: Option<Performed>,
    hangups: u32,
    gone: bool,
}

#[derive(Default)]
struct TestTransfer {
    index: u32,
    block: Option<Block>,
    status: Option<Status>,
    actual_length: u32,
    packets: Vec<(u32, Status)>,
}

impl Port for TestPort {
    type Transfer = TestTransfer;
    type CancelToken = u32;

    const CONTROL_LEN_MAX: usize = 64;

    fn event_sources(&self) -> Vec<EventSource> {
        Vec::new()
    }

    fn submit(
        &mut self,
        transfer: &mut TestTransfer,
        submission: &Submission<'_>,
        block: Block,
        _now: Instant,
    ) -> Result<(), Refused> {
        if let Some(reason) = self.refuse {
            return Err(Refused { block, reason });
        }
        assert!(transfer.block.is_none(), "the slot is in use");
        assert!(block.len() >= submission.length);
        transfer.block = Some(block);
        self.submitted.push(Submitted {
            slot: transfer.index,
            endpoint: submission.endpoint.as_byte(),
            length: submission.length,
            zero_packet: submission.zero_packet,
            packets: submission.packets.iter().map(|packet| packet.length).collect(),
        });
        Ok(())
    }

    fn reap(&mut self, _now: Instant, completed: &mut Vec<u32>) -> Reaped {
        self.reaps += 1;
        let count = self.ended.len().min(self.reap_budget.unwrap_or(usize::MAX));
        completed.extend(self.ended.drain(..count));
        Reaped { more: !self.ended.is_empty(), gone: self.gone }
    }

    fn take(&mut self, transfer: &mut TestTransfer) -> Completion {
        Completion {
            status: transfer.status.take().expect("it has ended"),
            actual_length: transfer.actual_length,
            block: transfer.block.take().expect("it was submitted"),
        }
    }

    fn packet(&self, transfer: &TestTransfer, index: usize) -> (u32, Status) {
        transfer.packets[index]
    }

    fn hung_up(&mut self, _now: Instant) {
        self.hangups += 1;
    }

    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    fn cancel_token(transfer: &TestTransfer) -> u32 {
        transfer.index
    }

    fn cancel(&mut self, token: &u32) {
        self.cancelled.push(*token);
    }

    fn perform(&mut self, request: SpecialRequest) -> Performed {
        self.performed.push(request);
        self.perform.clone().unwrap_or(Performed::Done)
    }

    fn close(self, _transfers: Vec<TestTransfer>, memory: Arena) {
        assert_eq!(memory.outstanding(), 0);
    }
}

/// A session and both its ends.
struct Rig {
    session: Session<TestPort>,
    now: Instant,
    /// Bytes for the client that it has not looked at.
    sent: Vec<u8>,
}

impl Rig {
    fn new() -> Self {
        let mut memory = Arena::new();
        memory.add_heap(1 << 20).unwrap();
        let opened = Opened {
            port: TestPort::default(),
            transfers: (0..SLOTS)
                .map(|index| TestTransfer { index, ..Default::default() })
                .collect(),
            memory,
            isochronous: IsochronousSettings::of([&configuration()]),
            configuration: Some(configuration()),
            configurations: vec![DESCRIPTOR.to_vec()],
        };
        let limits = DeviceLimits { urb_len: 1 << 19, ..DeviceLimits::default() };
        let session = Session::new(DEVID, limits, opened, Tables::new(SLOTS as usize).unwrap());
        Self { session, now: Instant::now(), sent: Vec::new() }
    }

    fn port(&mut self) -> &mut TestPort {
        self.session.port.as_mut().expect("the port is here")
    }

    /// Gives bytes to the session, in pieces of at most `step`.
    fn feed(&mut self, mut bytes: &[u8], step: usize) -> Result<(), Violation> {
        while !bytes.is_empty() {
            let mut piece = &bytes[..step.min(bytes.len())];
            let len = piece.len();
            self.session.rx_read(&mut piece, self.now)?;
            bytes = &bytes[len - piece.len()..];
        }
        Ok(())
    }

    fn send(&mut self, command: &Command, behind: &[u8]) {
        let mut header = [0; HEADER_LEN];
        command.emit(&mut header);
        self.feed(&[&header[..], behind].concat(), usize::MAX).unwrap();
    }

    fn submit(&mut self, seqnum: u32, endpoint: u8, length: u32) {
        self.send(&Command::Submit(submit(seqnum, endpoint, length)), &[]);
    }

    fn unlink(&mut self, seqnum: u32, target: u32) {
        let (seqnum, target) = (SeqNum(seqnum), SeqNum(target));
        self.send(&Command::Unlink(CmdUnlink { seqnum, devid: DEVID, target }), &[]);
    }

    /// Has slot `slot` end, and the session notice.
    fn end(&mut self, slot: u32, status: Status, data: &[u8]) {
        let transfer = &mut self.session.transfers[slot as usize];
        let block = transfer.block.as_mut().expect("it is in flight");
        block[..data.len()].copy_from_slice(data);
        self.end_with(slot, status, u32::try_from(data.len()).unwrap());
    }

    /// The same with whatever it says that it has moved.
    fn end_with(&mut self, slot: u32, status: Status, actual_length: u32) {
        let transfer = &mut self.session.transfers[slot as usize];
        transfer.status = Some(status);
        transfer.actual_length = actual_length;
        self.port().ended.push(slot);
        self.session.reap(self.now);
    }

    fn last_slot(&mut self) -> u32 {
        self.port().submitted.last().expect("something was submitted").slot
    }

    /// Has the worker do what there is to do.
    fn work(&mut self) {
        while let Some(job) = self.session.take_job() {
            self.finish_job(job);
        }
    }

    /// Does a job, gives the port back, and has the session collect what ended meanwhile.
    fn finish_job(&mut self, job: Job<TestPort>) {
        let (port, result) = job.run();
        self.session.finish_job(port, result, self.now);
        while self.session.reap(self.now) {}
    }

    /// Collects what the session has to say, `step` bytes a write.
    fn collect(&mut self, step: usize) {
        loop {
            self.session.stage();
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.session.tx_slices(step, &mut slices);
            let bytes: Vec<u8> = slices[..count].iter().flat_map(|s| s.iter().copied()).collect();
            if bytes.is_empty() {
                return;
            }
            self.session.tx_advance(bytes.len(), self.now);
            self.sent.extend(bytes);
        }
    }

    fn take_bytes(&mut self, len: usize) -> Vec<u8> {
        self.collect(usize::MAX);
        self.sent.drain(..len).collect()
    }

    fn reply(&mut self) -> Reply {
        let header = self.take_bytes(HEADER_LEN);
        Reply::parse(&header.try_into().unwrap()).unwrap()
    }

    fn expect_submit(&mut self, seqnum: u32, status: Status, actual_length: u32) -> RetSubmit {
        match self.reply() {
            Reply::Submit(ret) => {
                let got = (ret.seqnum, ret.status, ret.actual_length);
                assert_eq!(got, (SeqNum(seqnum), status, actual_length));
                ret
            }
            Reply::Unlink(ret) => panic!("expected RET_SUBMIT {seqnum}, got {ret:?}"),
        }
    }

    fn expect_unlink(&mut self, seqnum: u32, status: Status) {
        assert_eq!(self.reply(), Reply::Unlink(RetUnlink { seqnum: SeqNum(seqnum), status }));
    }

    fn expect_silence(&mut self) {
        self.collect(usize::MAX);
        assert_eq!(self.sent, []);
    }

    /// Tears down and checks that everything came home.
    fn finish(mut self) {
        self.session.begin_teardown();
        self.work();
        for slot in 0..SLOTS {
            if self.session.transfers[slot as usize].block.is_some() {
                self.end(slot, Status::ECONNRESET, &[]);
            }
        }
        assert!(self.session.is_drained());
        assert_eq!(self.session.free_transfers.len(), SLOTS as usize);
        self.session.into_remains().expect("the port is here").close();
    }
}

fn submit(seqnum: u32, endpoint: u8, length: u32) -> CmdSubmit {
    CmdSubmit { seqnum: SeqNum(seqnum), ..submit_of(endpoint, length) }
}

fn control(seqnum: u32, direction: Direction, setup: [u8; 8]) -> Command {
    let length = u16::from_le_bytes([setup[6], setup[7]]).into();
    let endpoint = EndpointAddress::new(0, direction);
    Command::Submit(CmdSubmit { endpoint, setup, ..submit(seqnum, 0, length) })
}

fn get_device_descriptor(seqnum: u32) -> Command {
    control(seqnum, Direction::In, [0x80, 6, 0, 1, 0, 0, 18, 0])
}

fn set_interface(seqnum: u32, alternate: u8) -> Command {
    control(seqnum, Direction::Out, [1, 11, alternate, 0, 0, 0, 0, 0])
}

fn configuration() -> Configuration {
    parse_configuration(DESCRIPTOR, Host::at(Speed::High)).expect("it is one")
}

fn in_setting(alternate: u8) -> Performed {
    let mut configuration = configuration();
    configuration.interfaces[0].current = alternate;
    Performed::Reconfigured { configuration: Some(configuration), status: Status::OK }
}

fn get_configuration_descriptor(seqnum: u32, index: u8, length: u16) -> Command {
    let [low, high] = length.to_le_bytes();
    control(seqnum, Direction::In, [0x80, 6, index, 2, 0, 0, low, high])
}

#[test]
fn configurations_are_read_from_what_the_host_has() {
    let mut rig = Rig::new();
    let whole = u16::try_from(DESCRIPTOR.len()).unwrap();
    for asked in [0, 1, 9, whole - 1, whole, whole + 1, 4096, 4097, 6000, u16::MAX] {
        rig.send(&get_configuration_descriptor(1, 0, asked), &[]);
        let expected = asked.min(whole);
        rig.expect_submit(1, Status::OK, expected.into());
        assert_eq!(rig.take_bytes(expected.into()), DESCRIPTOR[..expected.into()], "{asked}");
    }
    assert!(rig.port().submitted.is_empty(), "the device was not asked");
    // A client with less room than it asks for, and one that a short answer is an error to.
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
fn what_the_host_has_not_is_asked_of_the_device() {
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
fn a_read_of_what_the_host_has_keeps_its_place_among_control_requests() {
    let mut rig = Rig::new();
    rig.send(&get_device_descriptor(1), &[]);
    let slot = rig.last_slot();
    rig.send(&get_configuration_descriptor(2, 0, 9), &[]);
    rig.send(&get_device_descriptor(3), &[]);
    rig.send(&get_configuration_descriptor(4, 0, 9), &[]);
    // Others do not wait for it.
    rig.submit(5, 0x81, 64);
    assert_eq!(rig.port().submitted.len(), 2);
    rig.expect_silence();
    // One that waits can be given up.
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
fn a_read_of_what_the_host_has_waits_for_a_barrier_and_holds_one_up() {
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

/// The port of these tests moves 64 bytes.
#[test]
fn a_long_read_asks_for_what_can_be_moved_and_less_than_that_is_all() {
    let mut rig = Rig::new();
    let long = [0xc0, 4, 0, 0, 0, 0, 0x88, 0x13];
    for (len, told) in [(0, 0), (63, 63)] {
        rig.send(&control(1, Direction::In, long), &[]);
        let slot = rig.last_slot();
        let block = rig.session.transfers[slot as usize].block.as_ref().expect("in flight");
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
    // What the device says otherwise is passed on.
    rig.send(&control(3, Direction::In, long), &[]);
    let slot = rig.last_slot();
    rig.end(slot, Status::EPIPE, &[]);
    rig.expect_submit(3, Status::EPIPE, 0);
    // More than it was asked for has no room, also where it is only part of what the client asks
    // for.
    rig.send(&control(6, Direction::In, long), &[]);
    let slot = rig.last_slot();
    rig.end_with(slot, Status::EOVERFLOW, 100);
    rig.expect_submit(6, Status::EOVERFLOW, 64);
    rig.take_bytes(64);
    // A read of just that many is whole.
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

#[test]
fn a_cancel_does_not_hit_the_next_urb_of_its_slot() {
    let mut rig = Rig::new();
    rig.submit(1, 0x81, 64);
    rig.unlink(2, 1);
    let slot = rig.last_slot();
    // It ends by itself before the worker comes to it, and its slot is used again.
    rig.end(slot, Status::OK, &[7; 64]);
    rig.submit(3, 0x81, 64);
    assert_eq!(rig.last_slot(), slot, "the slot freed last is used next");
    rig.work();
    assert_eq!(rig.port().cancelled, []);
    rig.expect_submit(1, Status::OK, 64);
    assert_eq!(rig.take_bytes(64), [7; 64]);
    rig.expect_unlink(2, Status::OK);
    rig.end(slot, Status::OK, &[]);
    rig.expect_submit(3, Status::OK, 0);
    rig.finish();
}

#[test]
fn every_row_of_the_unlink_table() {
    let mut rig = Rig::new();
    // Unknown.
    rig.unlink(100, 99);
    rig.expect_unlink(100, Status::OK);
    // With the device, cancelled; a second UNLINK meanwhile.
    rig.submit(1, 0x81, 64);
    rig.unlink(101, 1);
    rig.unlink(102, 1);
    rig.expect_unlink(102, Status::OK);
    rig.work();
    let slot = rig.last_slot();
    assert_eq!(rig.port().cancelled, [slot]);
    rig.end(slot, Status::ECONNRESET, &[]);
    rig.expect_unlink(101, Status::ECONNRESET);
    // With the device, ended with data while it was cancelled.
    rig.submit(2, 0x81, 64);
    rig.unlink(103, 2);
    rig.work();
    let slot = rig.last_slot();
    rig.end(slot, Status::ECONNRESET, &[1, 2]);
    rig.expect_submit(2, Status::ECONNRESET, 2);
    assert_eq!(rig.take_bytes(2), [1, 2]);
    rig.expect_unlink(103, Status::OK);
    // Ended, its reply not yet written.
    rig.submit(3, 0x81, 64);
    let slot = rig.last_slot();
    rig.end(slot, Status::EPIPE, &[]);
    rig.unlink(104, 3);
    rig.expect_submit(3, Status::EPIPE, 0);
    rig.expect_unlink(104, Status::OK);
    // Answered.
    rig.unlink(105, 3);
    rig.expect_unlink(105, Status::OK);
    rig.expect_silence();
    rig.finish();
}

#[test]
fn an_unlink_that_overtakes_its_submit_waits_for_it() {
    let mut rig = Rig::new();
    rig.submit(10, 0x81, 64);
    rig.unlink(12, 11);
    rig.expect_silence();
    // The SUBMIT is here at last: the device never sees it.
    let submit = submit(11, 0x01, 5);
    rig.send(&Command::Submit(submit), &[1, 2, 3, 4, 5]);
    rig.expect_unlink(12, Status::ECONNRESET);
    assert_eq!(rig.port().submitted.len(), 1);
    rig.expect_silence();
    // Another does not come.
    rig.unlink(14, 13);
    let deadline = rig.session.next_deadline().expect("it does not wait for ever");
    rig.session.reap(rig.now);
    rig.expect_silence();
    rig.now = deadline;
    rig.session.reap(rig.now);
    rig.expect_unlink(14, Status::OK);
    // Nor does one that another, with a higher number, has come before.
    rig.unlink(17, 16);
    rig.expect_silence();
    rig.submit(18, 0x81, 64);
    rig.expect_unlink(17, Status::OK);
    // What came long ago was answered.
    rig.unlink(15, 9);
    rig.expect_unlink(15, Status::OK);
    // A device that goes answers for SUBMITs that can't come any more.
    rig.unlink(20, 19);
    rig.port().gone = true;
    rig.session.reap(rig.now);
    rig.expect_unlink(20, Status::OK);
    rig.finish();
}

#[test]
fn an_early_unlink_waits_as_long_as_what_comes_before_its_submit_is_on_its_way() {
    let mut rig = Rig::new();
    rig.submit(10, 0x81, 64);
    rig.unlink(13, 12);
    // Its data takes longer than a SUBMIT that does not come is waited for: once byte by byte, once
    // with a pause.
    rig.send(&Command::Submit(submit(11, 0x01, 5)), &[1]);
    for byte in 2..=4 {
        rig.now += limits::EARLY_UNLINK_TIMEOUT - Duration::from_millis(1);
        rig.session.reap(rig.now);
        rig.feed(&[byte], usize::MAX).unwrap();
    }
    rig.now += 3 * limits::EARLY_UNLINK_TIMEOUT;
    rig.session.reap(rig.now);
    assert!(rig.session.next_deadline().is_some_and(|at| at > rig.now), "it is not asked in vain");
    rig.feed(&[5], usize::MAX).unwrap();
    rig.expect_silence();
    rig.submit(12, 0x82, 64);
    rig.expect_unlink(13, Status::ECONNRESET);
    assert_eq!(rig.port().submitted.len(), 2, "the device never gets it");
    rig.finish();
}

#[test]
fn unlinks_are_answered_while_the_port_is_away() {
    let mut rig = Rig::new();
    rig.send(&set_interface(1, 1), &[]);
    let job = rig.session.take_job().expect("the request");
    rig.submit(2, 0x82, 64);
    rig.unlink(3, 2);
    rig.expect_unlink(3, Status::ECONNRESET);
    // The request itself: nobody waits for it any more, and its number is free.
    rig.unlink(4, 1);
    rig.expect_unlink(4, Status::ECONNRESET);
    rig.submit(1, 0x81, 64);
    rig.finish_job(job);
    let slot = rig.last_slot();
    rig.end(slot, Status::OK, &[5]);
    rig.expect_submit(1, Status::OK, 1);
    rig.take_bytes(1);
    rig.expect_silence();
    rig.finish();
}

/// The reactor gives each session a bounded turn, whatever has ended while the port was away.
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
        let transfer = &mut rig.session.transfers[slot as usize];
        (transfer.status, transfer.actual_length) = (Some(Status::OK), 0);
    }
    (job.port.ended, job.port.reap_budget) = (slots, Some(10));
    let (port, result) = job.run();
    rig.session.finish_job(port, result, rig.now);
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

/// The system tells of it once, and the port may be away then.
#[test]
fn a_hangup_is_not_lost_while_the_worker_has_the_port() {
    let mut rig = Rig::new();
    rig.session.handle_hangup(rig.now);
    assert_eq!(rig.port().hangups, 1);
    rig.send(&set_interface(1, 1), &[]);
    let job = rig.session.take_job().expect("the request");
    rig.session.handle_hangup(rig.now);
    rig.finish_job(job);
    assert_eq!(rig.port().hangups, 2);
    rig.send(&set_interface(2, 1), &[]);
    rig.work();
    assert_eq!(rig.port().hangups, 2, "it is told once");
}

#[test]
fn a_barrier_cancels_what_it_concerns_and_holds_what_follows() {
    let mut rig = Rig::new();
    rig.submit(1, 0x82, 64);
    let slot = rig.last_slot();
    rig.send(&set_interface(2, 1), &[]);
    // Endpoint 0x83 does not exist yet, and its descriptors must still be recognised.
    let packets: Vec<u8> = [0u32, 100, 0, 0, 100, 50, 0, 0].map(u32::to_be_bytes).concat();
    let iso = CmdSubmit { number_of_packets: 2, ..submit(3, 0x83, 150) };
    rig.send(&Command::Submit(iso), &packets);
    rig.send(&set_interface(4, 0), &[]);
    rig.submit(5, 0x82, 8);
    rig.work();
    assert_eq!(rig.port().cancelled, [slot]);
    assert_eq!(rig.port().performed, [], "a transfer of the interface is still in flight");
    rig.port().perform = Some(in_setting(1));
    rig.end(slot, Status::ECONNRESET, &[]);
    rig.expect_submit(1, Status::ECONNRESET, 0);
    let job = rig.session.take_job().expect("the first request");
    rig.finish_job(job);
    rig.expect_submit(2, Status::OK, 0);
    assert_eq!(rig.port().submitted.last().unwrap().packets, [100, 50]);
    rig.expect_silence();
    // The second request waits for the isochronous URB in turn.
    rig.work();
    assert_eq!(rig.port().performed.len(), 1);
    let slot = rig.last_slot();
    rig.session.transfers[slot as usize].packets = vec![(100, Status::OK), (0, Status::EXDEV)];
    rig.port().perform = Some(in_setting(0));
    rig.end(slot, Status::OK, &[9; 100]);
    let ret = rig.expect_submit(3, Status::OK, 100);
    assert_eq!((ret.number_of_packets, ret.error_count), (2, 1));
    assert_eq!(rig.take_bytes(100), [9; 100]);
    let descriptors = rig.take_bytes(32);
    let packets: Vec<u32> = Packets::new(&descriptors).iter().map(|p| p.actual_length).collect();
    assert_eq!(packets, [100, 0]);
    rig.work();
    rig.expect_submit(4, Status::OK, 0);
    assert_eq!(rig.port().submitted.last().unwrap().endpoint, 0x82);
    rig.finish();
}

#[test]
fn a_urb_that_is_arriving_when_a_barrier_ends_is_judged_by_what_it_left() {
    let mut rig = Rig::new();
    rig.send(&set_interface(1, 1), &[]);
    rig.port().perform = Some(in_setting(1));
    let job = rig.session.take_job().expect("the request");
    // Endpoint 0x01 is there when its header comes, and not any more when its data is.
    rig.send(&Command::Submit(submit(2, 0x01, 100)), &[7; 60]);
    rig.finish_job(job);
    rig.feed(&[7; 40], usize::MAX).unwrap();
    assert!(rig.port().submitted.is_empty(), "the device has no such endpoint");
    rig.expect_submit(1, Status::OK, 0);
    rig.expect_submit(2, Status::ENOENT, 0);
    rig.finish();
}

#[test]
fn a_barrier_does_not_overtake_a_control_transfer_that_waits() {
    let mut rig = Rig::new();
    rig.submit(1, 0x82, 64);
    let slot = rig.last_slot();
    rig.port().refuse = Some(RefusedReason::NoMemory);
    rig.send(&get_device_descriptor(2), &[]);
    rig.port().refuse = None;
    // CLEAR_FEATURE(ENDPOINT_HALT), which itself waits for no transfer.
    rig.send(&control(3, Direction::Out, [2, 1, 0, 0, 0x81, 0, 0, 0]), &[]);
    rig.work();
    assert_eq!(rig.port().performed, [], "the device must get the other request first");
    rig.end(slot, Status::OK, &[]);
    assert_eq!(rig.port().submitted.last().unwrap().endpoint, 0);
    rig.work();
    assert_eq!(rig.port().performed.len(), 1);
    rig.finish();
}

#[test]
fn setting_the_configuration_leaves_control_transfers_alone() {
    let mut rig = Rig::new();
    rig.send(&get_device_descriptor(1), &[]);
    let of_control = rig.last_slot();
    rig.submit(2, 0x82, 64);
    let of_interface = rig.last_slot();
    rig.send(&control(3, Direction::Out, [0, 9, 1, 0, 0, 0, 0, 0]), &[]);
    rig.work();
    assert_eq!(rig.port().cancelled, [of_interface]);
    rig.end(of_interface, Status::ECONNRESET, &[]);
    rig.expect_submit(2, Status::ECONNRESET, 0);
    rig.work();
    assert_eq!(rig.port().performed.len(), 1);
    rig.expect_submit(3, Status::OK, 0);
    rig.end(of_control, Status::OK, &[0; 18]);
    rig.expect_submit(1, Status::OK, 18);
    rig.take_bytes(18);
    rig.finish();
}

#[test]
fn a_request_that_is_given_up_before_its_turn_is_not_performed() {
    let mut rig = Rig::new();
    rig.submit(1, 0x82, 64);
    let slot = rig.last_slot();
    rig.send(&set_interface(2, 1), &[]);
    rig.submit(3, 0x81, 64);
    rig.work();
    rig.unlink(4, 2);
    rig.expect_unlink(4, Status::ECONNRESET);
    assert_eq!(rig.port().submitted.last().unwrap().endpoint, 0x81, "nothing stands before it");
    rig.end(slot, Status::ECONNRESET, &[]);
    rig.expect_submit(1, Status::ECONNRESET, 0);
    rig.work();
    assert_eq!(rig.port().performed, []);
    rig.finish();
}

#[test]
fn what_a_request_leaves_behind_counts_even_if_it_failed() {
    let mut rig = Rig::new();
    rig.send(&set_interface(1, 1), &[]);
    let Performed::Reconfigured { configuration, .. } = in_setting(1) else { unreachable!() };
    rig.port().perform = Some(Performed::Reconfigured { configuration, status: Status::EPIPE });
    rig.work();
    rig.expect_submit(1, Status::EPIPE, 0);
    // Only the other setting has it.
    rig.submit(2, 0x82, 64);
    rig.expect_submit(2, Status::ENOENT, 0);
    rig.finish();
}

#[test]
fn a_silent_endpoint_can_not_keep_the_others_out() {
    let mut rig = Rig::new();
    for seqnum in 0..200 {
        rig.submit(seqnum, 0x82, 64);
    }
    let with_device = rig.port().submitted.len();
    assert!(with_device < SLOTS as usize, "slots are left for other endpoints");
    rig.submit(500, 0x81, 64);
    assert_eq!(rig.port().submitted.last().unwrap().endpoint, 0x81);
    rig.send(&get_device_descriptor(501), &[]);
    assert_eq!(rig.port().submitted.last().unwrap().length, 26);
    // What waits goes on as slots come home, in order.
    for seqnum in 0..3 {
        let slot = rig.port().submitted[seqnum as usize].slot;
        rig.end(slot, Status::OK, &[1; 64]);
        rig.expect_submit(seqnum, Status::OK, 64);
        rig.take_bytes(64);
    }
    assert_eq!(rig.port().submitted.last().unwrap().endpoint, 0x82);
    rig.finish();
}

#[test]
fn more_urbs_than_can_wait_are_refused_and_the_stream_goes_on() {
    let mut rig = Rig::new();
    let places = SLOTS + u32::try_from(URBS_WAITING_MAX).unwrap();
    for seqnum in 0..places {
        rig.submit(seqnum, 0x82, 64);
    }
    rig.expect_silence();
    rig.submit(places, 0x82, 64);
    rig.expect_submit(places, Status::ENOMEM, 0);
    rig.send(&Command::Submit(submit(places + 1, 0x01, 5)), &[1, 2, 3, 4, 5]);
    rig.expect_submit(places + 1, Status::ENOMEM, 0);
    // A client that reads no refusals is not read either, until it does.
    for seqnum in 0..u32::try_from(URBS_REFUSED_MAX).unwrap() {
        assert!(rig.session.wants_input());
        rig.submit(places + 10 + seqnum, 0x82, 64);
    }
    assert!(!rig.session.wants_input());
    rig.expect_submit(places + 10, Status::ENOMEM, 0);
    assert!(rig.session.wants_input());
    rig.finish();
}

/// Their descriptors cost more than all else of a record, so there are fewer; others still can
/// wait.
#[test]
fn more_urbs_with_packets_than_can_wait_are_refused_with_their_packets() {
    let mut rig = Rig::new();
    let mut configuration = configuration();
    configuration.interfaces[0].alternates[0].endpoints[0].transfer_type =
        TransferType::Isochronous;
    let endpoint = configuration.interfaces[0].alternates[0].endpoints[0].address;
    rig.port().perform =
        Some(Performed::Reconfigured { configuration: Some(configuration), status: Status::OK });
    rig.send(&set_interface(1, 0), &[]);
    rig.work();
    rig.expect_submit(1, Status::OK, 0);
    let packets: Vec<u8> = [0u32, 8, 0, 0].map(u32::to_be_bytes).concat();
    let send = |rig: &mut Rig, seqnum| {
        let isochronous = CmdSubmit { number_of_packets: 1, endpoint, ..submit(seqnum, 0, 8) };
        rig.send(&Command::Submit(isochronous), &packets);
    };
    let places = SLOTS + u32::try_from(PACKETS_WAITING_MAX).unwrap();
    for seqnum in 10..10 + places {
        send(&mut rig, seqnum);
    }
    rig.expect_silence();
    send(&mut rig, 10 + places);
    rig.expect_submit(10 + places, Status::ENOMEM, 0);
    assert_eq!(rig.take_bytes(16)[12..], (-18_i32).to_be_bytes(), "-EXDEV");
    // URBs without packets wait as before.
    rig.submit(11 + places, 0x82, 64);
    rig.expect_silence();
    rig.finish();
}

#[test]
fn memory_used_up_makes_urbs_wait_and_out_data_is_refused() {
    let mut rig = Rig::new();
    for seqnum in 0..4 {
        rig.submit(seqnum, 0x82, 1 << 19);
    }
    assert_eq!(rig.port().submitted.len(), 1, "the last part of the memory is kept");
    let payload = vec![7; 1 << 19];
    rig.send(&Command::Submit(submit(10, 0x01, 1 << 19)), &payload);
    assert_eq!(rig.port().submitted.len(), 2, "an idle endpoint may have it");
    rig.send(&Command::Submit(submit(11, 0x01, 1 << 19)), &payload);
    rig.expect_submit(11, Status::ENOMEM, 0);
    let slot = rig.port().submitted[0].slot;
    rig.end(slot, Status::OK, &[3; 8]);
    rig.expect_submit(0, Status::OK, 8);
    rig.take_bytes(8);
    assert_eq!(rig.port().submitted.len(), 3, "its memory came home with its reply");
    rig.finish();
}

#[test]
fn what_is_held_leaves_the_last_part_of_the_memory_to_others() {
    let mut rig = Rig::new();
    rig.send(&set_interface(1, 0), &[]);
    let job = rig.session.take_job().expect("the request");
    let payload = vec![7; 1 << 15];
    for seqnum in 2..40 {
        rig.send(&Command::Submit(submit(seqnum, 0x01, 1 << 15)), &payload);
    }
    rig.finish_job(job);
    let held = rig.port().submitted.len();
    assert!((20..32).contains(&held), "{held} went to the device");
    rig.send(&get_device_descriptor(50), &[]);
    assert_eq!(rig.port().submitted.last().unwrap().endpoint, 0);
    rig.finish();
}

#[test]
fn any_cut_of_the_stream_gives_the_same_result() {
    let mut stream = Vec::new();
    let mut header = [0; HEADER_LEN];
    // All but one of the length that is expected from the second on.
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
            let block = rig.session.transfers[slot as usize].block.as_ref().unwrap();
            let intact = (0..len).all(|i| u32::from(block[i as usize]) == (i + seqnum) % 251);
            assert!(intact, "step {step}, URB {seqnum}");
        }
        rig.finish();
    }
}

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
fn no_more_is_given_to_write_than_there_is_room_for() {
    let mut rig = Rig::new();
    for seqnum in 0..3 {
        rig.submit(seqnum, 0x82, 4096);
        let slot = rig.last_slot();
        rig.end(slot, Status::OK, &[7; 4096]);
    }
    rig.session.stage();
    let all = 3 * (HEADER_LEN + 4096);
    for most in [0, 1, HEADER_LEN, 5000, all, usize::MAX] {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = rig.session.tx_slices(most, &mut slices);
        let given: usize = slices[..count].iter().map(|slice| slice.len()).sum();
        assert_eq!(given, most.min(all), "room for {most}");
    }
    rig.collect(1000);
    assert_eq!(rig.sent.len(), all);
    rig.sent.clear();
    rig.finish();
}

#[test]
fn isochronous_padding_is_left_out_by_runs() {
    let mut rig = Rig::new();
    rig.port().perform = Some(in_setting(1));
    rig.send(&set_interface(1, 1), &[]);
    rig.work();
    rig.expect_submit(1, Status::OK, 0);
    // Large enough packets that they are written from where they lie.
    let count = 6u32;
    let words = (0..count).flat_map(|i| [i * 2000, 2000, 0, 0]);
    let descriptors: Vec<u8> = words.flat_map(u32::to_be_bytes).collect();
    let iso = CmdSubmit { number_of_packets: 6, ..submit(2, 0x83, 12_000) };
    rig.send(&Command::Submit(iso), &descriptors);
    let slot = rig.last_slot();
    let lengths = [2000, 2000, 1500, 0, 2000, 1];
    let transfer = &mut rig.session.transfers[slot as usize];
    transfer.packets = lengths.map(|length| (length, Status::OK)).to_vec();
    let data: Vec<u8> = (0..12_000u32).map(|i| u8::try_from(i / 2000).unwrap()).collect();
    rig.end(slot, Status::OK, &data);
    rig.expect_submit(2, Status::OK, lengths.iter().sum());
    let payload = rig.take_bytes(lengths.iter().sum::<u32>() as usize);
    let expected: Vec<u8> = (0u8..).zip(lengths).flat_map(|(i, n)| vec![i; n as usize]).collect();
    assert_eq!(payload, expected);
    assert_eq!(rig.take_bytes(96)[64 + 8..64 + 12], 2000u32.to_be_bytes());
    rig.finish();
}

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
        // Other endpoints have none, whatever a client sends.
        rig.send(&Command::Submit(CmdSubmit { interval: 3, ..submit(2, 0x81, 8) }), &[]);
        assert!(!rig.session.interval_warned);
        let iso = CmdSubmit { number_of_packets: 1, interval: submitted, ..submit(3, 0x83, 8) };
        rig.send(&Command::Submit(iso), &[0u32, 8, 0, 0].map(u32::to_be_bytes).concat());
        assert_eq!(rig.session.interval_warned, noticed, "{submitted}");
        let slot = rig.last_slot();
        rig.session.transfers[slot as usize].packets = vec![(8, Status::OK)];
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
    let block = rig.session.transfers[slot as usize].block.as_ref().expect("it is in flight");
    assert_eq!(block[..5], [1, 2, 3, 4, 5]);
    rig.session.transfers[slot as usize].packets = vec![(2, Status::OK), (3, Status::OK)];
    rig.finish();
}

/// As on macOS, where an UNLINK ends whatever its endpoint has in flight.
#[test]
fn who_ends_with_an_unlinked_urb_is_not_told_to_be_unlinked() {
    let mut rig = Rig::new();
    rig.session.cancels_pipe = true;
    for seqnum in [1, 2] {
        rig.submit(seqnum, 0x81, 64);
    }
    let [given_up, bystander] = [0, 1].map(|index| rig.port().submitted[index].slot);
    rig.unlink(3, 1);
    rig.work();
    rig.end(given_up, Status::ECONNRESET, &[]);
    rig.expect_unlink(3, Status::ECONNRESET);
    rig.end(bystander, Status::ECONNRESET, &[]);
    rig.expect_silence();
    assert_eq!(rig.port().submitted.len(), 3, "it goes again");
    let slot = rig.last_slot();
    rig.end(slot, Status::OK, &[7]);
    rig.expect_submit(2, Status::OK, 1);
    rig.take_bytes(1);
    rig.finish();
}

#[test]
fn an_isochronous_urb_that_ends_with_an_unlinked_one_has_missed_its_packets() {
    let mut rig = Rig::new();
    rig.session.cancels_pipe = true;
    let mut configuration = configuration();
    configuration.interfaces[0].current = 1;
    rig.port().perform =
        Some(Performed::Reconfigured { configuration: Some(configuration), status: Status::OK });
    rig.send(&set_interface(1, 1), &[]);
    rig.work();
    rig.expect_submit(1, Status::OK, 0);
    let packets: Vec<u8> = [0u32, 32, 0, 0, 32, 32, 0, 0].map(u32::to_be_bytes).concat();
    for seqnum in [2, 3] {
        let iso = CmdSubmit { number_of_packets: 2, ..submit(seqnum, 0x83, 64) };
        rig.send(&Command::Submit(iso), &packets);
    }
    let [given_up, bystander] = [0, 1].map(|index| rig.port().submitted[index].slot);
    rig.unlink(4, 2);
    rig.work();
    let results = vec![(0, Status::OK); 2];
    rig.session.transfers[given_up as usize].packets.clone_from(&results);
    rig.end(given_up, Status::ECONNRESET, &[]);
    rig.expect_unlink(4, Status::ECONNRESET);
    rig.session.transfers[bystander as usize].packets = results;
    rig.end(bystander, Status::ECONNRESET, &[]);
    let reply = rig.expect_submit(3, Status::OK, 0);
    assert_eq!((reply.number_of_packets, reply.error_count), (2, 2));
    let packets = rig.take_bytes(32);
    for packet in packets.as_chunks::<16>().0 {
        assert_eq!(packet[8..12], [0; 4]);
        assert_eq!(packet[12..], Status::EXDEV.0.to_be_bytes());
    }
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
    // A client with less room than its own wLength.
    let setup = [0x80, 6, 0, 1, 0, 0, 18, 0];
    let endpoint = EndpointAddress::new(0, Direction::In);
    let command = CmdSubmit { endpoint, setup, ..submit(2, 0, 8) };
    rig.send(&Command::Submit(command), &[]);
    let slot = rig.last_slot();
    let mut data = setup.to_vec();
    data.extend([9; 18]);
    rig.session.transfers[slot as usize].block.as_mut().unwrap().copy_from_slice(&data);
    rig.session.transfers[slot as usize].status = Some(Status::OK);
    rig.session.transfers[slot as usize].actual_length = 18;
    rig.port().ended.push(slot);
    rig.session.reap(rig.now);
    rig.expect_submit(2, Status::EOVERFLOW, 8);
    assert_eq!(rig.take_bytes(8), [9; 8]);
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
fn a_device_that_goes_answers_everything_that_waits() {
    let mut rig = Rig::new();
    for seqnum in 0..60 {
        rig.submit(seqnum, 0x82, 64);
    }
    rig.send(&set_interface(100, 1), &[]);
    rig.submit(101, 0x81, 64);
    let slots: Vec<u32> = rig.port().submitted.iter().map(|s| s.slot).collect();
    for &slot in &slots {
        let transfer = &mut rig.session.transfers[slot as usize];
        (transfer.status, transfer.actual_length) = (Some(Status::ESHUTDOWN), 0);
    }
    let port = rig.port();
    port.ended = slots;
    port.gone = true;
    rig.session.reap(rig.now);
    assert!(!rig.session.is_finished());
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
    assert!(rig.session.is_finished());
    // What was under way when it went: requests to endpoints, special ones, UNLINKs.
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
fn memory_of_the_system_that_is_used_up_delays_urbs() {
    let mut rig = Rig::new();
    rig.submit(1, 0x82, 64);
    rig.port().refuse = Some(RefusedReason::NoMemory);
    rig.submit(2, 0x82, 64);
    rig.submit(3, 0x82, 64);
    rig.expect_silence();
    rig.port().refuse = None;
    let slot = rig.port().submitted[0].slot;
    rig.end(slot, Status::OK, &[]);
    assert_eq!(rig.port().submitted.len(), 3, "they went as soon as one had ended");
    rig.expect_submit(1, Status::OK, 0);
    rig.finish();
}

/// With nothing in flight that could end, others may still give memory back.
#[test]
fn memory_that_others_have_is_asked_for_again() {
    let mut rig = Rig::new();
    rig.port().refuse = Some(RefusedReason::NoMemory);
    rig.submit(1, 0x82, 64);
    rig.expect_silence();
    let retry = rig.session.next_deadline().expect("it is tried again");
    rig.port().refuse = None;
    rig.session.reap(rig.now);
    assert_eq!(rig.port().submitted.len(), 0, "not before its time");
    rig.now = retry;
    rig.session.reap(rig.now);
    assert_eq!(rig.port().submitted.len(), 1, "others gave memory back");
    rig.finish();
}

/// What the device itself has in flight may be silent for ever.
#[test]
fn memory_is_asked_for_again_beside_a_silent_urb() {
    let mut rig = Rig::new();
    rig.submit(1, 0x82, 64);
    rig.port().refuse = Some(RefusedReason::NoMemory);
    rig.submit(2, 0x81, 64);
    rig.now = rig.session.next_deadline().expect("it is tried again");
    rig.session.reap(rig.now);
    // That another goes through calls nothing off.
    rig.port().refuse = None;
    rig.send(&get_device_descriptor(3), &[]);
    rig.now = rig.session.next_deadline().expect("it is tried again");
    rig.session.reap(rig.now);
    assert_eq!(rig.port().submitted.last().unwrap().endpoint, 0x81);
    assert_eq!(rig.session.next_deadline(), None);
    rig.finish();
}

#[test]
fn memory_for_a_urb_that_was_given_up_is_not_asked_for_again() {
    let mut rig = Rig::new();
    rig.port().refuse = Some(RefusedReason::NoMemory);
    rig.submit(1, 0x82, 64);
    rig.unlink(2, 1);
    rig.expect_unlink(2, Status::ECONNRESET);
    rig.now = rig.session.next_deadline().unwrap_or(rig.now);
    rig.session.reap(rig.now);
    assert_eq!(rig.session.next_deadline(), None);
    rig.finish();
}

#[test]
fn memory_that_nobody_gives_back_is_not_waited_for_for_ever() {
    let mut rig = Rig::new();
    rig.port().refuse = Some(RefusedReason::NoMemory);
    rig.submit(1, 0x82, 64);
    rig.now += limits::NO_MEMORY_TIMEOUT;
    rig.session.reap(rig.now);
    rig.expect_submit(1, Status::ENOMEM, 0);
    rig.finish();
}

#[test]
fn a_session_without_a_client_can_still_be_called() {
    let mut rig = Rig::new();
    rig.send(&Command::Submit(submit(1, 0x01, 100)), &[7; 60]);
    rig.session.begin_teardown();
    // The URB that was arriving is no more: nothing has its place.
    assert_eq!(rig.session.rx_read(&mut &[7; 40][..], rig.now), Ok(()));
    rig.finish();
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
