//! A backend around another, as a capture would be: every URB is seen on the way to the device and
//! on the way back.

use std::sync::{Arc, Mutex, PoisonError};

use super::*;
use crate::usb::sim::SimBackend;
use crate::usb::sim::bus::SimBus;
use crate::usb::sim::spec::Spec;
use crate::usb::{Backend, Candidate, DeviceInfo, OpenError, Scan, ScanError};

/// A passage through the port.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Seen {
    Submitted { endpoint: u8, transfer_type: TransferType, data: Vec<u8> },
    Refused(RefusedReason),
    Completed { status: Status, actual_length: u32, data: Vec<u8>, packets: Vec<(u32, Status)> },
}

/// Clones share the list.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    fn note(&self, seen: Seen) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    }

    /// The passages since the last call.
    fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct WatchedBackend<B>(B, Log);

#[derive(Clone)]
struct WatchedCandidate<C>(C, Log);

struct WatchedPort<P>(P, Log);

/// A slot, and the number of isochronous packets of its URB.
struct WatchedTransfer<T>(T, usize);

impl<B: Backend> Backend for WatchedBackend<B> {
    type Candidate = WatchedCandidate<B::Candidate>;

    fn needs_exact_time(&self) -> bool {
        self.0.needs_exact_time()
    }

    fn scan(&mut self) -> Result<Scan<Self::Candidate>, ScanError> {
        let watched = |candidate| WatchedCandidate(candidate, self.1.clone());
        Ok(self.0.scan()?.map(watched))
    }
}

impl<C: Candidate> Candidate for WatchedCandidate<C> {
    type Port = WatchedPort<C::Port>;

    fn info(&self) -> &DeviceInfo {
        self.0.info()
    }

    fn open(
        &self,
        limits: &DeviceLimits,
        reset_on_release: bool,
    ) -> Result<Opened<Self::Port>, OpenError> {
        let opened = self.0.open(limits, reset_on_release)?;
        let watched = |port| WatchedPort(port, self.1.clone());
        Ok(opened.map(watched, |transfer| WatchedTransfer(transfer, 0)))
    }
}

impl<P: Port> Port for WatchedPort<P> {
    type Transfer = WatchedTransfer<P::Transfer>;
    type CancelToken = P::CancelToken;

    const CONTROL_LEN_MAX: usize = P::CONTROL_LEN_MAX;

    fn event_sources(&self) -> Vec<EventSource> {
        self.0.event_sources()
    }

    fn make_transfer(&mut self, slot: u32) -> Option<Self::Transfer> {
        self.0.make_transfer(slot).map(|transfer| WatchedTransfer(transfer, 0))
    }

    fn submit(
        &mut self,
        transfer: &mut Self::Transfer,
        submission: Submission<'_>,
        block: Block,
        now: Instant,
    ) -> Result<(), Refused> {
        let endpoint = submission.endpoint.as_byte();
        let data = block[..submission.length].to_vec();
        self.1.note(Seen::Submitted { endpoint, transfer_type: submission.transfer_type, data });
        transfer.1 = submission.packets.len();
        let result = self.0.submit(&mut transfer.0, submission, block, now);
        result.inspect_err(|refused| self.1.note(Seen::Refused(refused.reason)))
    }

    fn reap(&mut self, now: Instant, completed: &mut Vec<u32>) -> Reaped {
        self.0.reap(now, completed)
    }

    fn take(&mut self, transfer: &mut Self::Transfer) -> Completion {
        let completion = self.0.take(&mut transfer.0);
        let packets = (0..transfer.1).map(|index| self.0.packet(&transfer.0, index)).collect();
        let (status, actual_length) = (completion.status, completion.actual_length);
        let data = completion.block.to_vec();
        self.1.note(Seen::Completed { status, actual_length, data, packets });
        completion
    }

    fn packet(&self, transfer: &Self::Transfer, index: usize) -> (u32, Status) {
        self.0.packet(&transfer.0, index)
    }

    fn look_everywhere(&mut self) {
        self.0.look_everywhere();
    }

    fn hung_up(&mut self, now: Instant) {
        self.0.hung_up(now);
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.0.next_deadline()
    }

    fn cancel_token(transfer: &Self::Transfer) -> Self::CancelToken {
        P::cancel_token(&transfer.0)
    }

    fn cancel(&mut self, token: &Self::CancelToken) {
        self.0.cancel(token);
    }

    fn perform(&mut self, request: SpecialRequest) -> Performed {
        self.0.perform(request)
    }

    fn close(self, transfers: Vec<Self::Transfer>, memory: Arena) {
        self.0.close(transfers.into_iter().map(|transfer| transfer.0).collect(), memory);
    }
}

type SimSession = Session<<WatchedCandidate<crate::usb::sim::SimCandidate> as Candidate>::Port>;

/// A session with a simulated device, and the log of its port.
fn open(spec: &str) -> (SimSession, Log, SimBus) {
    let log = Log::default();
    let bus = SimBus::with(&Spec::parse_list(spec).unwrap());
    let mut backend = WatchedBackend(SimBackend::new(bus.clone()), log.clone());
    let candidate = backend.scan().unwrap().devices.remove(0);
    let limits = DeviceLimits { urbs: 64, ..DeviceLimits::default() };
    let opened = candidate.open(&limits, false).unwrap();
    (Session::new(DEVID, limits, opened, Tables::new(64).unwrap()), log, bus)
}

/// Sends a command, has everybody do everything, and returns the answers.
fn exchange(session: &mut SimSession, command: &Command, behind: &[u8]) -> Vec<u8> {
    let mut header = [0; HEADER_LEN];
    command.emit(&mut header);
    let bytes = [&header[..], behind].concat();
    let (mut rest, now) = (&bytes[..], Instant::now());
    while !rest.is_empty() {
        session.rx_read(&mut rest, now).unwrap();
    }
    while let Some(job) = session.take_job() {
        let (port, result) = job.run();
        session.take_back(port, result, now);
        while session.reap(now) {}
    }
    session.reap(now);
    let mut told = Vec::new();
    loop {
        session.stage();
        let mut slices = TxSlices::new();
        session.tx_slices(&mut slices, usize::MAX);
        if slices.is_empty() {
            return told;
        }
        let before = told.len();
        slices.into_iter().for_each(|slice| told.extend_from_slice(&slice));
        session.tx_advance(told.len() - before, now);
    }
}

#[test]
fn a_backend_that_wraps_another_sees_each_submission_and_each_end() {
    let (mut session, log, _) = open("loopback");
    let payload: Vec<u8> = (0..5000u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    exchange(&mut session, &Command::Submit(submit(1, 0x02, 5000)), &payload);
    let [Seen::Submitted { endpoint: 0x02, data, .. }, Seen::Completed { status, .. }] =
        &log.take()[..]
    else {
        panic!("one URB, there and back")
    };
    assert!(*data == payload && *status == Status::OK);

    let told = exchange(&mut session, &Command::Submit(submit(2, 0x82, 5000)), &[]);
    let [Seen::Submitted { .. }, Seen::Completed { actual_length: 5000, data, .. }] =
        &log.take()[..]
    else {
        panic!("one URB, there and back")
    };
    assert!(data[..5000] == payload && told[HEADER_LEN..] == payload);

    let told = exchange(&mut session, &get_device_descriptor(3), &[]);
    let [Seen::Submitted { transfer_type, .. }, Seen::Completed { data, .. }] = &log.take()[..]
    else {
        panic!("one URB, there and back")
    };
    assert_eq!(*transfer_type, TransferType::Control);
    assert_eq!(data[8..26], told[HEADER_LEN..], "behind the SETUP packet");
}

#[test]
fn a_backend_that_wraps_another_sees_packets_cancels_and_refusals() {
    let (mut session, log, bus) = open("loopback");
    let of_interface_1 = control(1, Direction::Out, [1, 11, 1, 0, 1, 0, 0, 0]);
    exchange(&mut session, &of_interface_1, &[]);
    assert_eq!(log.take(), [], "the worker performed it");
    let packets: Vec<u8> = [0u32, 100, 0, 0, 100, 50, 0, 0].map(u32::to_be_bytes).concat();
    let iso = CmdSubmit { number_of_packets: 2, ..submit(2, 0x85, 150) };
    exchange(&mut session, &Command::Submit(iso), &packets);
    let [Seen::Submitted { .. }, Seen::Completed { packets, .. }] = &log.take()[..] else {
        panic!("one URB, there and back")
    };
    assert_eq!(packets[..], [(100, Status::OK), (50, Status::OK)]);

    exchange(&mut session, &Command::Submit(submit(3, 0x86, 64)), &[]);
    assert_eq!(log.take().len(), 1, "it is silent");
    let unlink = CmdUnlink { seqnum: SeqNum(4), devid: DEVID, target: SeqNum(3) };
    exchange(&mut session, &Command::Unlink(unlink), &[]);
    let seen = log.take();
    assert!(matches!(seen[..], [Seen::Completed { status: Status::ECONNRESET, .. }]), "{seen:?}");

    bus.unplug(bus.busids()[0]);
    exchange(&mut session, &Command::Submit(submit(5, 0x81, 64)), &[]);
    let seen = log.take();
    let refused = Seen::Refused(RefusedReason::Gone);
    assert!(matches!(&seen[..], [Seen::Submitted { .. }, last] if *last == refused), "{seen:?}");
    session.begin_teardown();
    assert!(session.is_drained());
    session.into_remains().expect("the port is here").close();
}
