//! A session between the model's client and the model's device, and its state after every step.

use std::time::{Duration, Instant};

use usbferry_sys::arena::BLOCK_LEN_MIN;

use super::account::Account;
use super::client::Client;
use super::device::{Event, Flight, ModelPort, configurations, pattern};
use super::operation::{Operation, Scale};
use super::results::{packet_results, result_of};
use super::verdict;
use crate::limits::UNLINK_REPLIES_MAX;
use crate::session::job::JobKind;
use crate::session::rx::READ_LEN;
use crate::session::{Job, JobResult, Session, Thrift, TxSlices, Violation};
use crate::usb::{Performed, RefusedReason};
use crate::wire::pdu::HEADER_LEN;
use crate::wire::setup::SETUP_LEN;
use crate::wire::status::Status;
use crate::wire::types::{Direction, EndpointAddress, TransferType};

/// Where the port is.
pub(super) enum Away {
    /// With the session.
    No,
    /// On the worker, which has not begun.
    Job(Job<ModelPort>),
    /// On the way back.
    Done(Box<ModelPort>, JobResult<ModelPort>),
}

/// A session and all around.
pub(super) struct World {
    pub(super) session: Session<ModelPort>,
    pub(super) away: Away,
    pub(super) client: Client,
    pub(super) scale: Scale,
    pub(super) now: Instant,
    /// The client's last command, a violation, after which the session may take no more.
    pub(super) poison: Option<Violation>,
    /// The client has left.
    pub(super) over: bool,
    /// Steps during which the client reads nothing, the device ends nothing, the worker does
    /// nothing.
    pub(super) pauses: [u32; 3],
    /// The last URB each endpoint took.
    pub(super) submitted: [u32; EndpointAddress::COUNT],
    /// The last special request begun, and the last performed.
    pub(super) begun: u32,
    pub(super) performed: u32,
    /// The last special request performed for each endpoint.
    pub(super) passed: [u32; EndpointAddress::COUNT],
    /// URBs collected from the device.
    pub(super) collected: u64,
    /// Jobs done by the worker.
    pub(super) jobs: u64,
    /// Failed special requests, each with a status of its own.
    pub(super) failures: i32,
    /// Since when the system has refused every URB for want of memory.
    pub(super) starved: [Option<Instant>; EndpointAddress::COUNT],
    /// The session's room for lists.
    pub(super) footprint: [usize; 4],
    pub(super) account: Account,
}

impl World {
    pub(super) fn new(word: u64) -> Self {
        let scale = Scale::decode(word);
        let [configuration, ..] = configurations(scale.alternate);
        let session = scale.session(configuration.clone());
        let seqnum = if word & 1 << 63 == 0 { u32::MAX - 20 } else { 0 };
        let mut client = Client::new(scale.urb_len, configuration, seqnum);
        client.excuses.memory = scale.memory < 16 * scale.urb_len;
        let mut world = Self {
            session,
            away: Away::No,
            client,
            scale,
            now: Instant::now(),
            poison: None,
            over: false,
            pauses: [0; 3],
            submitted: [0; EndpointAddress::COUNT],
            begun: 0,
            performed: 0,
            passed: [0; EndpointAddress::COUNT],
            collected: 0,
            jobs: 0,
            failures: 0,
            starved: [None; EndpointAddress::COUNT],
            footprint: [0; 4],
            account: Account::default(),
        };
        world.footprint = world.session.footprint();
        world
    }

    /// Lets something happen. False when the session is over.
    pub(super) fn apply(&mut self, operation: Operation) -> bool {
        self.now += Duration::from_millis(1);
        self.pauses = self.pauses.map(|steps| steps.saturating_sub(1));
        let [reader, device, worker] = self.pauses.map(|steps| steps > 0);
        let speaks = self.poison.is_none() && self.client.undelivered().len() < OUTBOX_MAX;
        match operation {
            Operation::Submit { endpoint, shape, length, packets } if speaks => {
                self.send_submit(endpoint, shape, length, packets);
            }
            Operation::Flood { kind, count } if speaks => self.send_flood(kind, count),
            Operation::Control { kind, length, room, shape } if speaks => {
                self.send_control(kind, length, room, shape);
            }
            Operation::Special { kind, value, index, shape } if speaks => {
                self.send_special(kind, value, index, shape);
            }
            Operation::Unlink { kind, pick } if speaks => self.send_unlink(kind, pick),
            Operation::Violate { kind } if speaks => self.send_violation(kind),
            Operation::Deliver { bytes } => self.deliver(portion(bytes)),
            Operation::Read { bytes } if !reader => self.read(portion(bytes)),
            Operation::Complete { pick, how, length } if !device => {
                self.complete(pick, how, length);
            }
            Operation::CompleteMany { count, how, length } if !device => {
                (0..count % 40).for_each(|_| self.complete(0, how, length));
            }
            Operation::Reap { budget } => self.reap(budget),
            Operation::TakeJob => self.take_job(),
            Operation::RunJob { outcome, value } if !worker => self.run_job(outcome, value),
            Operation::TakeBack if !worker => self.take_back(),
            Operation::Refuse { reason, times } => self.refuse(reason, times),
            Operation::Pause { who, steps } => self.pause(who, steps),
            Operation::GiveBack => self.give_back(),
            Operation::CloseInput => self.session.close_input(),
            Operation::Unplug { how } => self.unplug(how),
            Operation::Settle => self.settle(),
            Operation::Teardown => self.teardown(),
            _ => {}
        }
        self.keep_deadline();
        !self.over
    }

    fn pause(&mut self, who: u8, steps: u8) {
        match self.pauses.get_mut(usize::from(who % 4)) {
            Some(pause) => *pause = u32::from(steps),
            None => self.now += Duration::from_millis(10 * u64::from(steps)),
        }
    }

    /// Has the session give back all that is not in use.
    fn give_back(&mut self) {
        for _ in 0..1000 {
            if self.session.give_back(self.now, Duration::ZERO) != Thrift::More {
                return;
            }
        }
        panic!("there is always more to give back");
    }

    /// Calls the session at its deadline.
    pub(super) fn keep_deadline(&mut self) {
        if self.session.next_deadline().is_some_and(|at| at <= self.now) {
            self.reap(u8::MAX);
            let next = self.session.next_deadline();
            assert!(next.is_none_or(|at| at > self.now), "a deadline that does not pass");
        }
    }

    pub(super) fn port(&mut self) -> &mut ModelPort {
        match &mut self.away {
            Away::No => self.session.port.here_mut().expect("the port is here"),
            Away::Job(job) => &mut job.port,
            Away::Done(port, _) => port,
        }
    }

    /// Gives the session up to `len` bytes of the client's.
    pub(super) fn deliver(&mut self, len: usize) {
        if self.over || !self.session.wants_input() {
            return;
        }
        if self.session.is_parsing_paused() {
            let result = self.session.rx_advance(0, self.now);
            self.received(result);
            self.reap_new();
            if self.session.is_parsing_paused() {
                return;
            }
        }
        let bytes = self.client.undelivered();
        let bytes = &bytes[..len.min(bytes.len())];
        if self.over || bytes.is_empty() || !self.session.wants_input() {
            return;
        }
        let (barriers, free) = (self.client.barriers, self.session.buffers.free_bytes());
        let mut rest = bytes;
        let result = self.session.rx_read(&mut rest, self.now);
        let taken = bytes.len() - rest.len();
        assert!(taken > 0, "a read without room would look like the end");
        self.client.advance(taken);
        self.received(result);
        // Memory filled by the first bytes was perhaps free again behind the last: a barrier
        // and the end of a device give URBs up.
        if self.client.barriers != barriers || self.session.is_device_gone() {
            self.client.excuses.memory |= free < self.scale.memory / 4 + memory_needed(taken);
        }
        self.reap_new();
    }

    /// Has the session look for ends behind new submits, as the reactor does after each read.
    fn reap_new(&mut self) {
        if !self.over {
            let more = self.session.reap_new(self.now);
            assert!(!more || self.session.port.is_here(), "a port that is away was asked");
            self.observe();
        }
    }

    /// Looks at the result of bytes delivered.
    fn received(&mut self, result: Result<(), Violation>) {
        self.observe();
        let answers_max = UNLINK_REPLIES_MAX + 2 * READ_LEN / HEADER_LEN + self.scale.slots;
        assert!(self.client.unlinks_delivered() <= answers_max, "answers pile up");
        if let Err(violation) = result {
            assert_eq!(Some(violation), self.poison, "the client did nothing wrong");
            return self.teardown();
        }
        let all_parsed = self.client.undelivered().is_empty() && !self.session.rx.has_unparsed();
        assert!(self.poison.is_none() || !all_parsed, "{:?} was accepted", self.poison);
    }

    /// Has the client take up to `len` bytes, in a write of the session.
    pub(super) fn read(&mut self, len: usize) {
        self.session.stage();
        let mut slices = TxSlices::new();
        self.session.tx_slices(&mut slices, len);
        let (mut bytes, count) = (Vec::new(), slices.len());
        for slice in slices {
            assert!(!slice.is_empty(), "an empty slice");
            bytes.extend_from_slice(&slice);
        }
        assert!(bytes.len() <= len, "more than there is room for");
        assert!(count > 0 || len == 0 || !self.session.has_output(), "output that can't be had");
        self.session.tx_advance(bytes.len(), self.now);
        self.observe();
        self.client.receive(&bytes);
        let in_force = self.barrier_id();
        self.client.prune_specials(in_force);
        self.check_idle();
    }

    /// Ends a transfer in flight.
    fn complete(&mut self, pick: u16, how: u16, length: u16) {
        let open = self.port().in_flight();
        if !open.is_empty() {
            self.end(open[usize::from(pick) % open.len()], how, length);
        }
    }

    /// Ends the transfer of a slot.
    pub(super) fn end(&mut self, slot: u32, how: u16, length: u16) {
        let gone = self.port().gone;
        let flight = self.port().slots[slot as usize].take().expect("it is in flight");
        let flight = self.ended(flight, slot, how, length, gone);
        let port = self.port();
        port.slots[slot as usize] = Some(flight);
        // Not always in the order of the ends.
        if how & 0x8000 == 0 { port.ended.push_back(slot) } else { port.ended.push_front(slot) }
    }

    /// Fills in how a transfer ended, and the right answer for the client.
    fn ended(&mut self, mut flight: Flight, slot: u32, how: u16, len: u16, gone: bool) -> Flight {
        let transfer = &mut self.session.slots.transfers[slot as usize];
        let sent = &self.client.urbs[&flight.id];
        let is_control = flight.transfer_type == TransferType::Control;
        let offset = if is_control { SETUP_LEN } else { 0 };
        let room = flight.length - offset;
        let block = transfer.block.as_mut().expect("the transfer has its buffer");
        if sent.submit.endpoint.direction() == Direction::In {
            block[offset..flight.length].copy_from_slice(pattern(flight.serial, room));
        }
        let (status, actual) = result_of(&flight, how, len, room, gone);
        transfer.end = Some((status, actual));
        flight.outcome = Some(if flight.transfer_type == TransferType::Isochronous {
            transfer.packets = packet_results(&flight, actual == 0);
            verdict::outcome_of_packets(sent, &flight, status, &transfer.packets)
        } else {
            verdict::outcome_of(sent, &flight, status, actual)
        });
        flight
    }

    pub(super) fn reap(&mut self, budget: u8) {
        let budget = if budget < 100 { usize::from(budget) } else { usize::MAX };
        self.port().reap_budget = budget;
        let more = self.session.reap(self.now);
        assert!(!more || self.session.port.is_here(), "a port that is away was asked");
        self.port().reap_budget = usize::MAX;
        self.observe();
    }

    pub(super) fn take_job(&mut self) {
        let Some(job) = self.session.take_job() else { return self.check_nothing_to_cancel() };
        assert!(matches!(self.away, Away::No), "two jobs at once");
        match &job.kind {
            JobKind::Cancel(tokens) => tokens.iter().for_each(|&(slot, _)| {
                let flight = job.port.slots[slot as usize].as_ref();
                self.check_cancel(flight.expect("only what is in flight is cancelled"));
            }),
            JobKind::Perform(request) => self.check_perform(&job.port, *request),
            JobKind::ChangeMemory(..) => panic!("this port has no memory of its own"),
        }
        self.away = Away::Job(job);
        assert!(self.session.take_job().is_none(), "a second job without the port");
    }

    pub(super) fn run_job(&mut self, outcome: u8, value: u16) {
        let Away::Job(_) = &self.away else { return };
        let Away::Job(mut job) = std::mem::replace(&mut self.away, Away::No) else { return };
        if let JobKind::Perform(request) = job.kind {
            job.port.outcome = self.choose_outcome(request, outcome, value);
            if job.port.outcome == Performed::Gone {
                (job.port.gone, job.port.reports_gone) = (true, outcome & 0x80 == 0);
                self.client.excuses.gone = true;
            }
        }
        let (mut port, result) = job.run();
        let events = std::mem::take(&mut port.events);
        self.away = Away::Done(port, result);
        for event in events {
            let Event::Cancelled { slot } = event else { panic!("a worker does no {event:?}") };
            // usbfs waits until a cancelled transfer has ended.
            if outcome & 1 == 0 && self.port().flight(slot).outcome.is_none() {
                self.end(slot, value, value);
            }
        }
    }

    pub(super) fn take_back(&mut self) {
        match std::mem::replace(&mut self.away, Away::No) {
            Away::Done(port, result) => {
                self.jobs += 1;
                if let JobResult::Performed(performed) = &result {
                    self.note_performed(performed);
                }
                self.session.take_back(port, result, self.now);
                let collects = |event: &Event| matches!(event, Event::Reaped(_));
                assert!(!self.port().events.iter().any(collects), "more than a bounded turn");
                self.observe();
                // Transfers which ended while the port was away gave notice only then.
                self.reap(u8::MAX);
            }
            other => self.away = other,
        }
    }

    fn refuse(&mut self, reason: u8, times: u8) {
        let reason = match reason % 6 {
            0 | 1 => RefusedReason::NoMemory,
            2 => RefusedReason::Failed(Status(-1_000_000)),
            3 | 4 => RefusedReason::Share,
            _ => return self.port().refuse = None,
        };
        self.port().refuse = Some((reason, u32::from(times % 16) + 1));
    }

    fn unplug(&mut self, how: u8) {
        self.client.excuses.gone = true;
        let port = self.port();
        port.gone = true;
        port.reports_gone |= how & 1 == 0;
        if how & 2 == 0 {
            for slot in port.in_flight() {
                self.end(slot, 0, 0);
            }
        }
    }
}

/// Memory for `len` bytes of SUBMITs, at most: many small blocks, or a few, each half empty.
const fn memory_needed(len: usize) -> usize {
    len / HEADER_LEN * BLOCK_LEN_MIN + 2 * len
}

/// Bytes in the client's socket at which the client pauses.
const OUTBOX_MAX: usize = 200_000;

/// A number of bytes: few, some, or as many as there are.
fn portion(choice: u16) -> usize {
    let rest = usize::from(choice / 4);
    match choice % 4 {
        0 => rest % 60,
        1 => rest % 5000,
        _ => usize::MAX,
    }
}
