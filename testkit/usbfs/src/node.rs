//! An open device node: the pipe behind its descriptor, and its URBs.
//!
//! ```text
//! submit ─► ends at once ───────────────────────► done ─► reap
//!        ├► waits: for a delay, or for a tick ──►   ▲
//!        └► silent ── discard, unplug ──────────────┘
//! ```
//!
//! The pipe is full exactly if there is no ended URB, as usbfs's node is not writable then
//! (`usbdev_poll`): the reap of the last fills the pipe, and the next URB to end drains the pipe.
//!
//! Contract: a node's lock is taken after its device's, and after the lock of the list of nodes. A
//! node is never freed, only used again. So a call under way during a close by another thread meets
//! a closed node and not freed memory.

use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crate::abi::Urb;
use crate::device::{Device, Locked};
use crate::record::{self, Counter, Counters};
use crate::standard::Behaviour;
use crate::transfers::{self, Streams, UrbPtr};
use crate::{abi, memory};

/// Descriptors of device nodes have to be below this number.
const FDS_MAX: usize = 65_536;

/// URBs of a node with room from the start. With more URBs the lists grow: in a kernel they would
/// not be part of the process whose memory is measured.
const URBS: usize = 64;

static OPEN: [AtomicPtr<Node>; FDS_MAX] = [const { AtomicPtr::new(std::ptr::null_mut()) }; FDS_MAX];
static NODES: Mutex<Vec<&'static Node>> = Mutex::new(Vec::new());

/// A node.
pub(crate) struct Node {
    pub(crate) id: usize,
    state: Mutex<State>,
    /// Something waits for a time, or the node was closed.
    timer: Condvar,
    counters: Counters,
}

/// The common state of the calls on a node.
pub(crate) struct State {
    /// `None` for a closed node.
    pub(crate) device: Option<&'static Device>,
    /// The program's descriptor, the write end.
    write_end: c_int,
    /// The other end; -1 when the device is gone.
    read_end: c_int,
    /// The pipe is full.
    full: bool,
    /// Where `read` goes on.
    pub(crate) position: usize,
    pub(crate) streams: Streams,
    /// The node's mappings, from and to.
    pub(crate) mappings: Vec<(usize, usize)>,
    done: VecDeque<Pending>,
    /// Sorted by the time of the end.
    waiting: VecDeque<(Instant, Pending)>,
    silent: VecDeque<Pending>,
    /// When the device's bus is free again.
    bus_free: Option<Instant>,
    has_timer: bool,
}

/// A submitted URB, and its memory.
#[derive(Clone, Copy)]
struct Pending {
    urb: UrbPtr,
    cost: usize,
}

/// The bit of an endpoint in a set.
pub(crate) const fn bit(endpoint: u8) -> u32 {
    1 << index(endpoint)
}

/// The index of an endpoint in a table of 32.
pub(crate) const fn index(endpoint: u8) -> usize {
    (endpoint & 0x0f) as usize | (endpoint >> 3 & 0x10) as usize
}

/// The node behind a descriptor, if any.
pub(crate) fn of(fd: c_int) -> Option<&'static Node> {
    let place = OPEN.get(usize::try_from(fd).ok()?)?;
    // SAFETY: null or a node, and nodes live for ever.
    unsafe { place.load(Ordering::Acquire).as_ref() }
}

/// Opens a device and returns its descriptor.
pub(crate) fn open(device: &'static Device, flags: c_int) -> Result<c_int, c_int> {
    let host = device.lock();
    if device.is_gone() {
        return Err(libc::ENODEV);
    }
    let [read_end, write_end] = pipe(flags)?;
    let Some(place) = usize::try_from(write_end).ok().and_then(|fd| OPEN.get(fd)) else {
        close_descriptor(read_end);
        close_descriptor(write_end);
        return Err(libc::EMFILE);
    };
    let node = begin(device, read_end, write_end);
    place.store(std::ptr::from_ref(node).cast_mut(), Ordering::Release);
    drop(host);
    Ok(write_end)
}

/// Takes an unused node for the device, in one step, so that no other thread finds the node unused.
fn begin(device: &'static Device, read_end: c_int, write_end: c_int) -> &'static Node {
    let mut nodes = NODES.lock().unwrap_or_else(PoisonError::into_inner);
    let unused = nodes.iter().copied().find(|node| node.lock().device.is_none());
    let node = unused.unwrap_or_else(|| {
        let node: &'static Node = Box::leak(Box::new(Node::new(nodes.len())));
        nodes.push(node);
        node
    });
    let mut state = node.lock();
    state.device = Some(device);
    (state.write_end, state.read_end, state.full) = (write_end, read_end, false);
    state.position = 0;
    state.streams = Streams::default();
    state.mappings.clear();
    node.fill(&mut state);
    node
}

/// A pipe with room for a single byte: its read end and its write end.
fn pipe(flags: c_int) -> Result<[c_int; 2], c_int> {
    let mut ends = [-1; 2];
    let flags = libc::O_NONBLOCK | flags & libc::O_CLOEXEC;
    // SAFETY: room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), flags) } != 0 {
        return Err(libc::EMFILE);
    }
    // The kernel rounds up to a page, a single slot. SAFETY: an own descriptor and an integer.
    unsafe { libc::fcntl(ends[1], libc::F_SETPIPE_SZ, 1) };
    Ok(ends)
}

fn close_descriptor(fd: c_int) {
    // SAFETY: an own descriptor, unused from now on.
    unsafe { libc::close(fd) };
}

/// Notes a closing descriptor, and closes the node behind the descriptor, if any.
pub(crate) fn close(fd: c_int) {
    let Some(node) = of(fd) else { return };
    let place = usize::try_from(fd).ok().and_then(|fd| OPEN.get(fd));
    if let Some(place) = place {
        place.store(std::ptr::null_mut(), Ordering::Release);
    }
    node.close();
}

/// Hangs up all nodes of an unplugged device.
pub(crate) fn hang_up(device: &Device) {
    let nodes = NODES.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for node in nodes {
        let mut state = node.lock();
        if state.device.is_some_and(|of| of.index == device.index) {
            node.hang_up(&mut state);
        }
    }
}

/// Forgets a former mapping.
pub(crate) fn forget_mapping(id: usize, start: usize) {
    let nodes = NODES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(node) = nodes.get(id) {
        node.lock().mappings.retain(|&(from, _)| from != start);
    }
}

impl Node {
    fn new(id: usize) -> Self {
        let state = State {
            device: None,
            write_end: -1,
            read_end: -1,
            full: false,
            position: 0,
            streams: Streams::default(),
            mappings: Vec::new(),
            done: VecDeque::with_capacity(URBS),
            waiting: VecDeque::with_capacity(URBS),
            silent: VecDeque::with_capacity(URBS),
            bus_free: None,
            has_timer: false,
        };
        let counters = Counters::of(id);
        Self { id, state: Mutex::new(state), timer: Condvar::new(), counters }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call other than the calls below.
    pub(crate) fn count_other(&self) {
        let _state = self.lock();
        self.counters.add(Counter::Others);
    }

    /// SUBMITURB.
    pub(crate) fn submit(
        &'static self,
        host: &mut Locked<'static>,
        urb: *mut Urb,
    ) -> Result<(), c_int> {
        let mut state = self.lock();
        self.counters.add(Counter::Submits);
        let device = host.device;
        let urb = UrbPtr::new(urb).ok_or(libc::EFAULT)?;
        device.options.refuses_at("submit", &format_args!("{:02x}", urb.endpoint()))?;
        let endpoint = transfers::check(urb, host, self.id)?;
        let cost = state.take_memory(urb).inspect_err(|&errno| {
            if errno == libc::ENOMEM {
                self.counters.add(Counter::NoMemory);
            }
        })?;
        transfers::check_lengths(urb, endpoint).inspect_err(|_| memory::give_back(cost))?;
        let pending = Pending { urb, cost };
        let number = if urb.is_control() { 0 } else { device.count_urb() };
        if number > 0 && device.options.unplug == Some(number) {
            state.silent.push_back(pending);
            drop(state);
            device.unplug();
            hang_up(device);
            return Ok(());
        }
        self.begin(&mut state, host, pending, number);
        drop(state);
        if device.is_gone() {
            // The request unplugged the device.
            hang_up(device);
        }
        Ok(())
    }

    /// Ends a URB now, or makes the URB wait.
    fn begin(
        &'static self,
        state: &mut State,
        host: &mut Locked<'_>,
        pending: Pending,
        number: u64,
    ) {
        let behaviour = transfers::behaviour(pending.urb, host.device);
        if behaviour == Behaviour::Silent {
            return state.silent.push_back(pending);
        }
        transfers::complete(pending.urb, &mut state.streams, host, number);
        if pending.urb.is_control() {
            (0..record::request_calls()).for_each(|_| self.counters.add(Counter::OwnCalls));
        }
        let options = host.device.options;
        match behaviour {
            Behaviour::Ticks => {
                let due = state.streams.next_tick(Instant::now());
                self.wait(state, pending, due);
            }
            _ if options.delay.is_zero() && options.rate.is_none() => {
                self.push_done(state, pending);
            }
            _ => {
                let (_, len) = pending.urb.buffer();
                let begin = state.bus_free.max(Some(Instant::now() + options.delay));
                state.bus_free = begin.map(|begin| begin + options.time_of(len));
                let due = state.bus_free.unwrap_or_else(Instant::now);
                self.wait(state, pending, due);
            }
        }
    }

    fn wait(&'static self, state: &mut State, pending: Pending, due: Instant) {
        let place = state.waiting.partition_point(|&(other, _)| other <= due);
        state.waiting.insert(place, (due, pending));
        if !state.has_timer {
            state.has_timer = true;
            thread::spawn(move || self.run_timer());
        }
        if place == 0 {
            self.counters.add(Counter::OwnCalls);
            self.timer.notify_one();
        }
    }

    /// Ends waiting URBs in time. The thread ends with the node.
    fn run_timer(&self) {
        // Times are exact to the nanosecond, not to 50 µs. SAFETY: integers for the calling thread.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
        let mut state = self.lock();
        while state.device.is_some() {
            let now = Instant::now();
            while state.waiting.front().is_some_and(|&(due, _)| due <= now) {
                let Some((_, pending)) = state.waiting.pop_front() else { break };
                self.push_done(&mut state, pending);
            }
            let next = state.waiting.front().map(|&(due, _)| due);
            self.counters.add(Counter::OwnCalls);
            state = match next {
                Some(due) => {
                    let waited = self.timer.wait_timeout(state, due.duration_since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.timer.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        state.has_timer = false;
    }

    fn push_done(&self, state: &mut State, pending: Pending) {
        state.done.push_back(pending);
        if state.full {
            state.full = false;
            self.counters.add(Counter::OwnCalls);
            let mut byte = 0u8;
            // SAFETY: an own descriptor, and room for the single byte in the pipe.
            unsafe { real_read(state.read_end, &raw mut byte, 1) };
        }
    }

    /// Marks in the pipe that no URB can be reaped.
    fn fill(&self, state: &mut State) {
        if state.full || state.read_end < 0 {
            return;
        }
        state.full = true;
        self.counters.add(Counter::OwnCalls);
        // SAFETY: an own descriptor with a reader, and a single byte, with room in the pipe.
        unsafe { libc::write(state.write_end, [0u8].as_ptr().cast(), 1) };
    }

    /// REAPURBNDELAY.
    pub(crate) fn reap(&self) -> Result<*mut Urb, c_int> {
        let mut state = self.lock();
        if let Some(Pending { urb, cost }) = state.done.pop_front() {
            self.counters.add(Counter::Reaps);
            memory::give_back(cost);
            if state.done.is_empty() {
                self.fill(&mut state);
            }
            return Ok(urb.as_ptr());
        }
        self.counters.add(Counter::EmptyReaps);
        Err(if state.read_end < 0 { libc::ENODEV } else { libc::EAGAIN })
    }

    /// DISCARDURB: a waiting URB ends as killed; an ended URB is not found.
    pub(crate) fn discard(&self, urb: *mut Urb) -> Result<(), c_int> {
        let mut state = self.lock();
        self.counters.add(Counter::Discards);
        let is_it = |pending: &Pending| pending.urb.as_ptr() == urb;
        let pending = if let Some(index) = state.silent.iter().position(is_it) {
            state.silent.remove(index)
        } else {
            let index = state.waiting.iter().position(|(_, pending)| is_it(pending));
            index.and_then(|index| state.waiting.remove(index)).map(|(_, pending)| pending)
        };
        let pending = pending.ok_or(libc::EINVAL)?;
        transfers::abandon(pending.urb, -libc::ENOENT);
        self.push_done(&mut state, pending);
        Ok(())
    }

    /// Kills the waiting URBs of the given endpoints, like the kernel when the endpoints go.
    pub(crate) fn kill(&self, endpoints: u32) {
        let mut state = self.lock();
        let is_one = |pending: &Pending| endpoints & bit(pending.urb.endpoint()) != 0;
        let mut killed = Vec::new();
        state.silent.retain(|pending| !is_one(pending) || (killed.push(*pending), false).1);
        state.waiting.retain(|(_, pending)| !is_one(pending) || (killed.push(*pending), false).1);
        for pending in killed {
            transfers::abandon(pending.urb, -libc::ENOENT);
            self.push_done(&mut state, pending);
        }
    }

    /// Ends the waiting URBs, and closes the other end.
    fn hang_up(&self, state: &mut State) {
        while let Some(pending) = state.take_pending() {
            transfers::abandon(pending.urb, -libc::ESHUTDOWN);
            self.push_done(state, pending);
        }
        let read_end = std::mem::replace(&mut state.read_end, -1);
        if read_end >= 0 {
            close_descriptor(read_end);
        }
    }

    fn close(&self) {
        let Some(device) = self.lock().device else { return };
        let mut host = device.lock();
        let mut state = self.lock();
        while let Some(pending) = state.take_pending() {
            memory::give_back(pending.cost);
        }
        while let Some(pending) = state.done.pop_front() {
            memory::give_back(pending.cost);
        }
        let read_end = std::mem::replace(&mut state.read_end, -1);
        if read_end >= 0 {
            close_descriptor(read_end);
        }
        // The node's lock is held until the claims are released, and no open gets the node before.
        state.device = None;
        host.release_all(self.id);
        self.timer.notify_one();
    }
}

impl State {
    /// Takes any pending URB out of its list.
    fn take_pending(&mut self) -> Option<Pending> {
        let waiting = self.waiting.pop_front().map(|(_, pending)| pending);
        waiting.or_else(|| self.silent.pop_front())
    }

    /// Memory for a URB: a buffer within a mapping costs nothing, but must fit into the mapping.
    fn take_memory(&self, urb: UrbPtr) -> Result<usize, c_int> {
        let (mut start, mut len) = urb.buffer();
        let overhead = urb.overhead();
        if urb.is_control() {
            (start, len) = (start + abi::SETUP_LEN, len - abi::SETUP_LEN);
        }
        match self.mappings.iter().find(|&&(from, to)| from <= start && start < to) {
            Some((_, to)) if to - start < len => Err(libc::EINVAL),
            Some(_) => memory::take_urb(overhead, 0, urb.is_scattered()),
            None => memory::take_urb(overhead, len, urb.is_scattered()),
        }
    }
}

/// The C library's `read`.
///
/// # Safety
/// `buffer` has room for `len` bytes.
unsafe fn real_read(fd: c_int, buffer: *mut u8, len: usize) -> isize {
    let read = crate::real::real!(read(c_int, *mut c_void, usize) -> isize);
    // SAFETY: the caller's promise.
    unsafe { read(fd, buffer.cast(), len) }
}
