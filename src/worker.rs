//! Threads for calls that can sleep: a thread that scans for devices and prepares for the next
//! open, and a thread for each device on loan.
//!
//! With a thread for each device, a request that takes seconds holds up its device and no other.
//! Each thread carries out one order at a time and puts the result into the reactor's [`Inbox`],
//! which wakes the reactor. The thread of a device that was given back is kept for the next device:
//! a new thread costs a tenth of an import.
//!
//! Contract: the reactor never waits here: channels have room for every order that can be under
//! way. Every order has a result, also after a panic: then the device was given up.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::TryRecvError;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use mio::Waker;
use usbferry_sys::os::thread::{ask_for_short_turns, rename};
use usbferry_sys::os::{heap, stack};

use crate::caught::{caught, report};
use crate::channel::{Receiver, Sender, channel};
use crate::complaints::Complaints;
use crate::config::Policy;
use crate::limits::{ATTACHED_MAX, IDLE_AFTER, PREPARE_REST, SLOT_MEMORY};
use crate::reactor::{Key, Questions};
use crate::session::{Job, JobKind, JobResult, Remains, Tables};
use crate::threads;
use crate::usb::special::SpecialRequest;
use crate::usb::{Backend, Candidate, Obstacle, OpenError, Opened, Port, Scan, ScanError};
use crate::whose::Whose;

/// A worker's result, and the connection it is for.
pub(crate) enum Done<C: Candidate> {
    /// The devices that are present.
    Scanned(Result<Scan<C>, ScanError>),
    /// A device was opened, or could not be.
    Opened(Key, Result<Box<Ready<C::Port>>, OpenError>),
    /// A port comes back, with the result of its job.
    Worked(Key, Box<C::Port>, JobResult<C::Port>),
    /// A device was given back.
    Closed(Key),
    /// A panic has ended the worker's thread, with the port if the thread had the port.
    Died(Key),
}

/// An open device, and the tables of its session.
pub(crate) struct Ready<P: Port> {
    pub(crate) opened: Opened<P>,
    pub(crate) tables: Tables,
}

/// Results under way at most: a result of each device's worker, and a scan.
const RESULTS_MAX: usize = ATTACHED_MAX + 1;

/// Results that wait for the reactor.
struct Results<C: Candidate> {
    /// A queue that grows to the most ever under way: a result has a port inside, and room for
    /// [`RESULTS_MAX`] would take a megabyte.
    queue: Mutex<VecDeque<Done<C>>>,
    /// There is a result. Set behind the lock of the queue, and cleared under it.
    has_new: AtomicBool,
    /// The reactor looks for results before its next sleep, and need not be woken.
    is_awake: AtomicBool,
}

impl<C: Candidate> Default for Results<C> {
    fn default() -> Self {
        let (has_new, is_awake) = (AtomicBool::new(true), AtomicBool::new(false));
        Self { queue: Mutex::default(), has_new, is_awake }
    }
}

/// Where workers put their results, and other threads their questions.
pub(crate) struct Inbox<C: Candidate> {
    results: Arc<Results<C>>,
    waker: Arc<Waker>,
    questions: Questions,
    /// The reactor was woken: there may be questions.
    woken: bool,
    /// A worker without a device, for the next open.
    spare: Option<Worker<C>>,
    /// The budget for the log, which workers share with the reactor.
    complaints: Complaints,
}

/// A worker's end of the inbox.
struct Outbox<C: Candidate> {
    results: Weak<Results<C>>,
    waker: Arc<Waker>,
}

impl<C: Candidate> Outbox<C> {
    /// Delivers a result, unless the reactor is gone. A reactor that is awake finds the result by
    /// itself, which saves a call here and a wait there: where both threads have one processor, a
    /// worker mostly runs before the reactor has fallen asleep.
    fn put(&self, done: Done<C>) {
        let Some(results) = self.results.upgrade() else { return };
        let mut queue = results.queue.lock().unwrap_or_else(PoisonError::into_inner);
        debug_assert!(queue.len() < RESULTS_MAX, "each worker has one order at a time");
        queue.push_back(done);
        drop(queue);
        // With `Inbox::begin_sleep`: of a store here and a load there, and a store there and a load
        // here, one load comes behind the other's store.
        results.has_new.store(true, Ordering::SeqCst);
        if !results.is_awake.load(Ordering::SeqCst) {
            // Fails only without memory for a counter that the system already has.
            let _ = self.waker.wake();
        }
    }
}

impl<C: Candidate> Inbox<C> {
    pub(crate) fn new(waker: Arc<Waker>, complaints: Complaints) -> Self {
        let questions = Questions::new(Arc::clone(&waker));
        let (results, spare) = (Arc::default(), None);
        Self { results, waker, questions, woken: true, spare, complaints }
    }

    fn outbox(&self) -> Outbox<C> {
        Outbox { results: Arc::downgrade(&self.results), waker: Arc::clone(&self.waker) }
    }

    /// The questions about the server's state.
    pub(crate) const fn questions(&self) -> &Questions {
        &self.questions
    }

    /// Notes that another thread has woken the reactor.
    pub(crate) const fn mark(&mut self) {
        self.woken = true;
    }

    /// Forgets the mark: the reactor is about to look for results and questions.
    pub(crate) const fn clear_mark(&mut self) {
        self.woken = false;
    }

    /// Whether there may be results or questions.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        self.woken | self.has_results()
    }

    /// Whether there may be results.
    pub(crate) fn has_results(&self) -> bool {
        self.results.has_new.load(Ordering::Relaxed)
    }

    /// The reactor is about to sleep, and is woken by a result from now on. False if there is one
    /// already: then the reactor must not sleep.
    pub(crate) fn begin_sleep(&self) -> bool {
        self.results.is_awake.store(false, Ordering::SeqCst);
        !self.results.has_new.load(Ordering::SeqCst)
    }

    /// The reactor is awake, and looks for results before it sleeps again.
    pub(crate) fn end_sleep(&self) {
        self.results.is_awake.store(true, Ordering::Relaxed);
    }

    /// Keeps the worker of a device that was given back, or was not opened, for the next device. A
    /// single worker is kept, since devices most often come one by one.
    pub(crate) fn keep(&mut self, worker: Worker<C>) {
        self.spare.get_or_insert(worker);
    }

    /// The next result, if there is one.
    pub(crate) fn take(&self) -> Option<Done<C>> {
        if !self.has_results() {
            return None;
        }
        let mut queue = self.results.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let done = queue.pop_front();
        // A worker that puts in the next one does so behind this lock, and sets the flag again.
        if queue.is_empty() {
            self.results.has_new.store(false, Ordering::Relaxed);
        }
        done
    }
}

/// An order to the thread that scans.
enum Look {
    /// A scan, whose result goes to the reactor.
    Scan,
    /// Work ahead for the next open, without a result.
    Prepare,
    /// Free memory goes back to the system.
    Trim,
}

/// Orders to the thread that scans, at most: one of each kind.
const LOOKS_MAX: usize = 3;

/// The thread that scans for devices, and meanwhile prepares for opens and gives memory back.
pub(crate) struct ScanThread {
    orders: Sender<Look>,
    /// A preparation is ordered and not yet begun: one serves all opens up to its begin, also those
    /// during its rest.
    prepares: Arc<AtomicBool>,
    /// The same for memory to give back.
    trims: Arc<AtomicBool>,
}

impl ScanThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(crate) fn start<B: Backend>(
        mut backend: B,
        inbox: &Inbox<B::Candidate>,
    ) -> io::Result<Self> {
        let (orders, receiver) = channel(LOOKS_MAX);
        let prepares = Arc::new(AtomicBool::new(false));
        let begun = Arc::clone(&prepares);
        let trims = Arc::new(AtomicBool::new(false));
        let trimmed = Arc::clone(&trims);
        let (outbox, complaints) = (inbox.outbox(), inbox.complaints.clone());
        threads::start("discovery", move || {
            complaints.take_thread();
            while let Ok(look) = receiver.recv() {
                let look = match look {
                    Look::Prepare => {
                        let other = receiver.recv_timeout(PREPARE_REST);
                        begun.store(false, Ordering::Relaxed);
                        other.unwrap_or(Look::Prepare)
                    }
                    look => look,
                };
                match look {
                    Look::Scan => {
                        let scanned = caught("looking for devices", || backend.scan());
                        outbox.put(Done::Scanned(scanned.unwrap_or(Err(ScanError::Panicked))));
                    }
                    Look::Trim => {
                        trimmed.store(false, Ordering::Relaxed);
                        heap::trim();
                    }
                    Look::Prepare => {}
                }
                let _ = caught("preparing for the next device", || backend.prepare_open());
            }
        })?;
        Ok(Self { orders, prepares, trims })
    }

    /// Asks for a scan, while no scan is under way.
    pub(crate) fn request(&self) {
        let sent = self.orders.try_send(Look::Scan);
        debug_assert!(sent.is_ok(), "one scan at a time");
    }

    /// Has the next open prepared, at any time.
    pub(crate) fn prepare_open(&self) {
        if !self.prepares.swap(true, Ordering::Relaxed) {
            let sent = self.orders.try_send(Look::Prepare);
            debug_assert!(sent.is_ok(), "one preparation at a time");
        }
    }

    /// Has memory that was freed given back to the system, at any time. The C library's allocator
    /// keeps others waiting meanwhile, as it may at any time: for moments without a load.
    pub(crate) fn trim(&self) {
        if !self.trims.swap(true, Ordering::Relaxed) {
            let sent = self.orders.try_send(Look::Trim);
            debug_assert!(sent.is_ok(), "one order of a kind at a time");
        }
    }
}

/// The name of a worker's thread without a device; with a device the name is `usb BUSID`.
const SPARE: &str = "spare worker";

/// An order to a device's worker.
enum Order<C: Candidate> {
    /// The worker's device from now on, which is opened.
    Open(Box<Assignment<C>>),
    Do(Job<C::Port>),
    /// The next order may come in days.
    Rest,
    /// To give the device back, which ends the assignment.
    Close(Remains<C::Port>),
}

/// A device to be opened, and for whom.
struct Assignment<C: Candidate> {
    owner: Key,
    client: SocketAddr,
    candidate: C,
    policy: Policy,
}

/// The thread of one device, from before the device is opened until it is given back.
pub(crate) struct Worker<C: Candidate> {
    orders: Sender<Order<C>>,
    /// Cancels have used stack, which the worker keeps until [`Worker::rest`].
    pub(crate) has_cancelled: bool,
    /// Has the thread die instead of delivering its next result.
    #[cfg(test)]
    pub(crate) dies: Arc<AtomicBool>,
}

impl<C: Candidate> Worker<C> {
    /// Has a device opened for a client, by the worker that was kept or by a new thread.
    ///
    /// # Errors
    /// The system has no thread, or hardly memory for more.
    pub(crate) fn open(
        owner: Key,
        client: SocketAddr,
        candidate: C,
        policy: Policy,
        inbox: &mut Inbox<C>,
    ) -> io::Result<Self> {
        let worker = match inbox.spare.take() {
            Some(kept) => kept,
            None => Self::start(inbox)?,
        };
        worker.give(Order::Open(Box::new(Assignment { owner, client, candidate, policy })));
        Ok(worker)
    }

    /// Starts a thread, without a device.
    fn start(inbox: &Inbox<C>) -> io::Result<Self> {
        if !heap::has_room(heap::RESERVE) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        // An order, and a rest before it.
        let (orders, receiver) = channel(2);
        let (outbox, complaints) = (inbox.outbox(), inbox.complaints.clone());
        #[cfg(test)]
        let dies = Arc::new(AtomicBool::new(false));
        let mut thread = Thread {
            assigned: None,
            outbox,
            #[cfg(test)]
            dies: Arc::clone(&dies),
        };
        threads::start(SPARE, move || {
            complaints.take_thread();
            // Else a worker on the reactor's processor mostly waits until the reactor sleeps, and
            // is interrupted by the reactor before it waits for the next order.
            ask_for_short_turns();
            thread.run(&receiver);
        })?;
        Ok(Self {
            orders,
            has_cancelled: false,
            #[cfg(test)]
            dies,
        })
    }

    /// Hands over a job. Its port makes sure that no other job is under way.
    pub(crate) fn work(&mut self, job: Job<C::Port>) {
        self.has_cancelled |= matches!(job.kind, JobKind::Cancel(_));
        self.give(Order::Do(job));
    }

    /// The device has been idle for a while: the stack of cancels goes back to the system.
    pub(crate) fn rest(&mut self) {
        if std::mem::take(&mut self.has_cancelled) {
            self.give(Order::Rest);
        }
    }

    /// Has the device given back.
    pub(crate) fn close(&self, remains: Remains<C::Port>) {
        self.give(Order::Close(remains));
    }

    fn give(&self, order: Order<C>) {
        let sent = self.orders.try_send(order);
        debug_assert!(sent.is_ok(), "a worker has one order at a time, and outlives its handle");
    }
}

/// The state of a device's thread, which reports even the thread's own death.
struct Thread<C: Candidate> {
    /// The device that is opened, in use or being given back.
    assigned: Option<Box<Assignment<C>>>,
    outbox: Outbox<C>,
    #[cfg(test)]
    dies: Arc<AtomicBool>,
}

impl<C: Candidate> Thread<C> {
    /// Carries out orders until the worker is dropped. The stack that an order has used goes back
    /// to the system when the next order may come in days.
    fn run(&mut self, orders: &Receiver<Order<C>>) {
        let mut rest = None;
        loop {
            if orders.wait(rest) {
                match self.obey(orders) {
                    Ok(time) => rest = time,
                    Err(_) => return,
                }
            } else {
                stack::give_back();
                rest = None;
            }
        }
    }

    /// Carries out an order, and returns how soon another may follow, `None` if that need not be
    /// known: a client may unlink one URB after the other, and a wait with a time costs a timer of
    /// the system. A function of its own, as an order has a few kilobytes of stack.
    ///
    /// # Errors
    /// The worker is dropped.
    #[inline(never)]
    fn obey(&mut self, orders: &Receiver<Order<C>>) -> Result<Option<Duration>, TryRecvError> {
        Ok(match orders.try_recv()? {
            Order::Open(assignment) => {
                self.open(assignment);
                // Many devices are attached and not used.
                Some(Duration::ZERO)
            }
            Order::Do(job) => {
                let time = match job.kind {
                    JobKind::Cancel(_) => None,
                    JobKind::Perform(_) => Some(IDLE_AFTER),
                    JobKind::ChangeMemory(..) => Some(Duration::ZERO),
                };
                self.work(job);
                time
            }
            Order::Rest => Some(Duration::ZERO),
            Order::Close(remains) => {
                self.close(remains);
                Some(IDLE_AFTER)
            }
        })
    }

    fn open(&mut self, assignment: Box<Assignment<C>>) {
        let device = assignment.candidate.info().device.busid;
        Whose { client: assignment.client, device }.take_thread();
        rename(&format!("usb {device}"));
        let assigned = self.assigned.insert(assignment);
        let (owner, opened) = (assigned.owner, assigned.open());
        if opened.is_err() {
            rename(SPARE);
        }
        self.deliver(Done::Opened(owner, opened));
    }

    fn work(&self, job: Job<C::Port>) {
        let Some(assigned) = &self.assigned else { return };
        let (port, result) = job.run();
        self.deliver(Done::Worked(assigned.owner, port, result));
    }

    fn close(&mut self, remains: Remains<C::Port>) {
        let Some(assigned) = &self.assigned else { return };
        if caught("giving the device back", || remains.close()).is_none() {
            recover(&assigned.candidate);
        }
        rename(SPARE);
        self.deliver(Done::Closed(assigned.owner));
        self.assigned = None;
    }

    fn deliver(&self, done: Done<C>) {
        #[cfg(test)]
        assert!(!self.dies.load(Ordering::Relaxed), "as it was told to");
        self.outbox.put(done);
    }
}

impl<C: Candidate> Assignment<C> {
    /// Opens the device for a session, and leaves nothing behind after a panic.
    fn open(&self) -> Result<Box<Ready<C::Port>>, OpenError> {
        let open = || open(&self.candidate, &self.policy);
        caught("opening the device", open).unwrap_or_else(|| {
            recover(&self.candidate);
            let busid = self.candidate.info().device.busid;
            Err(OpenError { busid, obstacle: Obstacle::Panicked })
        })
    }
}

impl<C: Candidate> Drop for Thread<C> {
    /// A panic outside of [`caught`] has dropped the order in hand, and the open device with the
    /// order: the reactor must not wait for a result.
    fn drop(&mut self) {
        if thread::panicking()
            && let Some(assigned) = self.assigned.take()
        {
            let _ =
                caught("the report of a panic", || report("its thread", "the log has the panic"));
            recover(&assigned.candidate);
            self.outbox.put(Done::Died(assigned.owner));
        }
    }
}

/// Gives the drivers of a device back, after a panic has dropped the open device and thereby closed
/// it.
fn recover<C: Candidate>(candidate: &C) {
    let _ = caught("giving its drivers back", || candidate.recover());
}

/// Opens a device for a session. The session's own memory comes first: without memory the device is
/// left alone.
fn open<C: Candidate>(candidate: &C, policy: &Policy) -> Result<Box<Ready<C::Port>>, OpenError> {
    let Policy { limits, reset_on_release, .. } = policy;
    let no_memory = || OpenError::no_memory(candidate.info().device.busid);
    let tables = Tables::new(limits.urbs).ok_or_else(no_memory)?;
    // Transfers are many small allocations.
    if !heap::has_room(heap::RESERVE + limits.urbs * SLOT_MEMORY) {
        return Err(no_memory());
    }
    let mut opened = candidate.open(limits, *reset_on_release)?;
    if let Err(obstacle) = prepare(&mut opened, policy) {
        Remains::from(opened).close();
        return Err(OpenError { busid: candidate.info().device.busid, obstacle });
    }
    Ok(Box::new(Ready { opened, tables }))
}

/// Puts an open device into the state in which the policy has the client get the device.
fn prepare<P: Port>(opened: &mut Opened<P>, policy: &Policy) -> Result<(), Obstacle> {
    if policy.reset_on_import {
        opened.perform(SpecialRequest::Reset)?;
    }
    let value = opened.configuration.as_ref().map(|configuration| configuration.value);
    match policy.configuration.filter(|&wanted| value != Some(wanted)) {
        Some(wanted) => opened.perform(SpecialRequest::SetConfiguration(wanted)),
        None => Ok(()),
    }
}
