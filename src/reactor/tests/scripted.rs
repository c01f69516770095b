//! A USB stack for tests: simulated devices with scripted blocking calls, which wait for the test,
//! panic, or fail.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use usbferry_sys::arena::{Arena, Block, DeviceMemory};

use crate::limits::DeviceLimits;
use crate::usb::sim::bus::SimBus;
use crate::usb::sim::port::SimPort;
use crate::usb::sim::{SimBackend, SimCandidate};
use crate::usb::special::SpecialRequest;
use crate::usb::{
    Backend, Candidate, Completion, DeviceInfo, EventSource, Hints, MemoryChange, News, OpenError,
    Opened, Performed, Port, Reaped, Refused, Scan, ScanError, Submission,
};
use crate::wire::status::Status;
use crate::wire::types::BusId;

/// A blocking call, of one device except for a scan; or the call with the news that a client has a
/// device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Call {
    Scan,
    /// Work ahead for the next open.
    Prepare,
    Open(BusId),
    Attached(BusId),
    Perform(BusId),
    Cancel(BusId),
    /// Changing the port's memory, due as long as the call is scripted.
    ChangeMemory(BusId),
    /// The news that the device is idle, without blocking; told to fail, the port has memory to
    /// give back, once.
    Idle(BusId),
    Close(BusId),
    Recover(BusId),
    /// The news that something else than an end of a transfer may have happened, without blocking.
    LookEverywhere(BusId),
    /// The question when to look at the device, without blocking.
    Deadline(BusId),
    /// The call for the descriptors to watch, without blocking.
    Watch(BusId),
    /// The devices' answers to a scan; told to fail, a device does not answer, and the scan is not
    /// whole.
    Answers,
    /// Taking hints, which does not block; a call told to fail loses the hints.
    Hints,
}

/// The act of a call instead of its purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Act {
    /// Waits for the test.
    Wait,
    Panic,
    /// For scans and their answers, descriptors to watch, hints, and idle devices.
    Fail,
}

/// The scripted acts, and the calls up to now. Clones share the script.
#[derive(Clone, Default)]
pub(super) struct Script(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    acts: Vec<(Call, Act)>,
    begun: Vec<Call>,
}

impl Script {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the act of a call from now on, also for a waiting call.
    pub(super) fn set(&self, call: Call, act: Act) {
        let mut state = self.lock();
        state.acts.retain(|&(other, _)| other != call);
        state.acts.push((call, act));
        self.0.1.notify_all();
    }

    /// Gives a call its purpose back, also a waiting call.
    pub(super) fn clear(&self, call: Call) {
        self.lock().acts.retain(|&(other, _)| other != call);
        self.0.1.notify_all();
    }

    /// Whether a call has a scripted act.
    fn is_set(&self, call: Call) -> bool {
        self.lock().acts.iter().any(|&(other, _)| other == call)
    }

    /// Has every call do its work, also calls that wait.
    pub(super) fn clear_all(&self) {
        self.lock().acts.clear();
        self.0.1.notify_all();
    }

    /// How often a call was begun.
    pub(super) fn begun(&self, call: Call) -> usize {
        self.lock().begun.iter().filter(|&&begun| begun == call).count()
    }

    /// Begins a call: true if the call is to fail.
    fn enter(&self, call: Call) -> bool {
        let mut state = self.lock();
        state.begun.push(call);
        loop {
            match state.acts.iter().find(|&&(other, _)| other == call).map(|&(_, act)| act) {
                None => return false,
                Some(Act::Fail) => return true,
                Some(Act::Panic) => {
                    drop(state);
                    panic!("{call:?} panics, as it was told to");
                }
                Some(Act::Wait) => {
                    state = self.0.1.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

/// Releases all waiting calls, also if the test fails.
pub(super) struct Finally(pub(super) Script);

impl Drop for Finally {
    fn drop(&mut self) {
        self.0.lock().acts.clear();
        self.0.0.1.notify_all();
    }
}

pub(super) struct ScriptedBackend {
    inner: SimBackend,
    script: Script,
    with_hints: bool,
}

impl ScriptedBackend {
    pub(super) fn new(bus: SimBus, script: Script) -> Self {
        Self { inner: SimBackend::new(bus), script, with_hints: false }
    }

    /// The same backend, with the hints of the bus.
    pub(super) fn with_hints(self) -> Self {
        Self { with_hints: true, ..self }
    }
}

impl Backend for ScriptedBackend {
    type Candidate = ScriptedCandidate;

    fn needs_exact_time(&self) -> bool {
        true
    }

    fn hints(&mut self) -> Option<Box<dyn Hints>> {
        let inner = self.inner.hints().filter(|_| self.with_hints)?;
        Some(Box::new(ScriptedHints { inner, script: self.script.clone() }))
    }

    fn scan(&mut self) -> Result<Scan<ScriptedCandidate>, ScanError> {
        if self.script.enter(Call::Scan) {
            return Err(ScanError::List(std::io::Error::other("told to fail")));
        }
        let candidate = |inner| ScriptedCandidate { inner, script: self.script.clone() };
        let scan = self.inner.scan()?.map(candidate);
        let is_whole = scan.is_whole && !self.script.enter(Call::Answers);
        Ok(Scan { is_whole, ..scan })
    }

    fn prepare_open(&mut self) {
        self.script.enter(Call::Prepare);
        self.inner.prepare_open();
    }
}

struct ScriptedHints {
    inner: Box<dyn Hints>,
    script: Script,
}

impl Hints for ScriptedHints {
    fn event_source(&self) -> EventSource {
        self.inner.event_source()
    }

    fn take(&mut self) -> std::io::Result<News> {
        let news = self.inner.take()?;
        Ok(if self.script.enter(Call::Hints) { News::default() } else { news })
    }
}

#[derive(Clone)]
pub(super) struct ScriptedCandidate {
    inner: SimCandidate,
    script: Script,
}

impl Candidate for ScriptedCandidate {
    type Port = ScriptedPort;

    fn info(&self) -> &DeviceInfo {
        self.inner.info()
    }

    fn open(
        &self,
        limits: &DeviceLimits,
        reset_on_release: bool,
    ) -> Result<Opened<ScriptedPort>, OpenError> {
        let busid = self.info().device.busid;
        self.script.enter(Call::Open(busid));
        let opened = self.inner.open(limits, reset_on_release)?;
        let script = self.script.clone();
        let port = ScriptedPort { inner: opened.port, busid, has_memory: false, script };
        Ok(Opened {
            port,
            slots: opened.slots,
            transfers: opened.transfers,
            memory: opened.memory,
            configuration: opened.configuration,
            device: opened.device,
            configurations: opened.configurations,
            isochronous: opened.isochronous,
        })
    }

    fn recover(&self) {
        self.script.enter(Call::Recover(self.info().device.busid));
    }
}

pub(super) struct ScriptedPort {
    inner: SimPort,
    busid: BusId,
    /// There is memory to give back.
    has_memory: bool,
    script: Script,
}

impl Port for ScriptedPort {
    type Transfer = <SimPort as Port>::Transfer;
    type CancelToken = <SimPort as Port>::CancelToken;

    const CONTROL_LEN_MAX: usize = crate::limits::CONTROL_LEN_MAX;

    fn attached(&mut self) {
        self.script.enter(Call::Attached(self.busid));
        self.inner.attached();
    }

    fn event_sources(&self) -> Vec<EventSource> {
        let mut sources = self.inner.event_sources();
        if self.script.enter(Call::Watch(self.busid)) {
            // Nobody's descriptor.
            sources.push(EventSource { fd: -1, ..sources[0] });
        }
        sources
    }

    fn make_transfer(&mut self, slot: u32) -> Option<Self::Transfer> {
        self.inner.make_transfer(slot)
    }

    fn submit(
        &mut self,
        transfer: &mut Self::Transfer,
        submission: Submission<'_>,
        block: Block,
        now: Instant,
    ) -> Result<(), Refused> {
        self.inner.submit(transfer, submission, block, now)
    }

    fn reap(&mut self, now: Instant, completed: &mut Vec<u32>) -> Reaped {
        self.inner.reap(now, completed)
    }

    fn take(&mut self, transfer: &mut Self::Transfer) -> Completion {
        self.inner.take(transfer)
    }

    fn packet(&self, transfer: &Self::Transfer, index: usize) -> (u32, Status) {
        self.inner.packet(transfer, index)
    }

    fn look_everywhere(&mut self) {
        self.script.enter(Call::LookEverywhere(self.busid));
        self.inner.look_everywhere();
    }

    fn hung_up(&mut self, now: Instant) {
        self.inner.hung_up(now);
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.script.enter(Call::Deadline(self.busid));
        self.inner.next_deadline()
    }

    fn cancel_token(transfer: &Self::Transfer) -> Self::CancelToken {
        SimPort::cancel_token(transfer)
    }

    fn cancel(&mut self, token: &Self::CancelToken) {
        self.script.enter(Call::Cancel(self.busid));
        self.inner.cancel(token);
    }

    fn perform(&mut self, request: SpecialRequest) -> Performed {
        self.script.enter(Call::Perform(self.busid));
        self.inner.perform(request)
    }

    fn note_idle(&mut self) {
        self.has_memory = self.script.enter(Call::Idle(self.busid));
    }

    fn memory_change(&self) -> Option<MemoryChange> {
        let is_due = self.has_memory || self.script.is_set(Call::ChangeMemory(self.busid));
        is_due.then_some(MemoryChange::Look)
    }

    fn change_memory(
        &mut self,
        _change: MemoryChange,
        _given_up: Option<DeviceMemory>,
    ) -> Option<DeviceMemory> {
        self.script.enter(Call::ChangeMemory(self.busid));
        self.has_memory = false;
        None
    }

    fn close(self, transfers: Vec<Self::Transfer>, memory: Arena) {
        self.script.enter(Call::Close(self.busid));
        self.inner.close(transfers, memory);
    }
}
