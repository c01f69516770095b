//! The session against a port under a test's control, by topic. The port and both ends of the
//! session are here ([`TestPort`], [`Rig`]); [`wrapped`] has a simulated device instead.

mod barrier;
mod control;
mod gone;
mod job;
mod memory;
mod receive;
mod reply;
mod stats;
mod submit;
mod tapping;
mod thrift;
mod unlink;
mod wrapped;

use std::time::Duration;

use usbferry_sys::arena::{Arena, Block};

use super::model::{DEVID, submit_of};
use super::*;
use crate::usb::descriptor::{Host, parse_configuration};
use crate::usb::isochronous::IsochronousSettings;
use crate::usb::special::SpecialRequest;
use crate::usb::{
    Completion, Configuration, EventSource, Performed, Reaped, Refused, RefusedReason, Submission,
};
use crate::wire::iso::Packets;
use crate::wire::pdu::{CmdSubmit, CmdUnlink, Command, HEADER_LEN, Reply, RetSubmit, RetUnlink};
use crate::wire::status::Status;
use crate::wire::types::{Direction, EndpointAddress, SeqNum, Speed, TransferType, flags};

/// Interface 0 with bulk 0x81, 0x01 and 0x82; in setting 1 also isochronous 0x83.
const DESCRIPTOR: &[u8] = &[
    9, 2, 62, 0, 1, 1, 0, 0x80, 50, // configuration 1
    9, 4, 0, 0, 3, 255, 0, 0, 0, // interface 0, setting 0
    7, 5, 0x81, 2, 0, 2, 0, 7, 5, 0x01, 2, 0, 2, 0, 7, 5, 0x82, 2, 0, 2, 0, //
    9, 4, 0, 1, 2, 255, 0, 0, 0, // setting 1
    7, 5, 0x81, 2, 0, 2, 0, 7, 5, 0x83, 1, 0, 4, 1,
];

const SLOTS: u32 = 70;

/// A submission as a test sees it.
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
    /// The most transfers collected by a call; `None` for all.
    reap_budget: Option<usize>,
    /// Calls to collect.
    reaps: u32,
    refuse: Option<RefusedReason>,
    cancelled: Vec<u32>,
    performed: Vec<SpecialRequest>,
    perform: Option<Performed>,
    hangups: u32,
    is_out_of_memory: bool,
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

    fn make_transfer(&mut self, slot: u32) -> Option<TestTransfer> {
        if self.is_out_of_memory {
            return None;
        }
        Some(TestTransfer { index: slot, ..Default::default() })
    }

    fn submit(
        &mut self,
        transfer: &mut TestTransfer,
        submission: Submission<'_>,
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

    fn look_everywhere(&mut self) {}

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

/// A session and both ends.
struct Rig {
    session: Session<TestPort>,
    now: Instant,
    /// Bytes for the client, not looked at.
    sent: Vec<u8>,
}

impl Rig {
    fn new() -> Self {
        let mut memory = Arena::new();
        memory.add_heap(1 << 20).unwrap();
        let opened = Opened {
            port: TestPort::default(),
            slots: SLOTS as usize,
            transfers: Vec::new(),
            memory,
            isochronous: IsochronousSettings::of([&configuration()]),
            configuration: Some(configuration()),
            device: [0; 18],
            configurations: vec![DESCRIPTOR.to_vec()],
        };
        let limits = DeviceLimits { urb_len: 1 << 19, ..DeviceLimits::default() };
        let tables = Tables::new(SLOTS as usize).unwrap();
        let session = Session::new(DEVID, limits, opened, tables);
        Self { session, now: Instant::now(), sent: Vec::new() }
    }

    fn transfer(&mut self, slot: u32) -> &mut TestTransfer {
        &mut self.session.slots.transfers[slot as usize]
    }

    /// The buffer of a slot in flight.
    fn block(&mut self, slot: u32) -> &mut Block {
        self.transfer(slot).block.as_mut().expect("it is in flight")
    }

    fn port(&mut self) -> &mut TestPort {
        self.session.port.here_mut().expect("the port is here")
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
        let block = self.block(slot);
        block[..data.len()].copy_from_slice(data);
        self.end_with(slot, status, u32::try_from(data.len()).unwrap());
    }

    /// The same with any length.
    fn end_with(&mut self, slot: u32, status: Status, actual_length: u32) {
        let transfer = self.transfer(slot);
        transfer.status = Some(status);
        transfer.actual_length = actual_length;
        self.port().ended.push(slot);
        self.session.reap(self.now);
    }

    fn last_slot(&mut self) -> u32 {
        self.port().submitted.last().expect("something was submitted").slot
    }

    /// Has the worker do all jobs.
    fn work(&mut self) {
        while let Some(job) = self.session.take_job() {
            self.take_back(job);
        }
    }

    /// Does a job, gives the port back, and has the session collect all ended transfers.
    fn take_back(&mut self, job: Job<TestPort>) {
        let (port, result) = job.run();
        self.session.take_back(port, result, self.now);
        while self.session.reap(self.now) {}
    }

    /// Collects the output of the session, `step` bytes a write.
    fn collect(&mut self, step: usize) {
        loop {
            self.session.stage();
            let mut slices = TxSlices::new();
            self.session.tx_slices(&mut slices, step);
            let bytes = slices.iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<u8>>();
            drop(slices);
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
        assert_eq!(self.sent, [0; 0]);
    }

    /// Tears down and checks for everything being home.
    fn finish(mut self) {
        self.session.begin_teardown();
        self.work();
        for slot in self.session.slots.made() {
            if self.transfer(slot).block.is_some() {
                self.end(slot, Status::ECONNRESET, &[]);
            }
        }
        assert!(self.session.is_drained());
        assert_eq!(self.session.slots.free(), SLOTS as usize);
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
