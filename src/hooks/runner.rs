//! The queue of events, and the threads with the programs.
//!
//! A thread takes the oldest order whose program may run now, runs the program, and takes the next
//! order; without such an order the thread ends. An order that comes starts a thread, and so does
//! the end of a program behind which two orders may run. An order with an asker is a question, and
//! has a place among questions alone.
//!
//! Contract: any thread; the lock is held while lists are changed, and never during a program. Only
//! [`Runner::end`] blocks.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::debug;

use super::Event;
use super::program::{Cue, Cues, Failure, cues, run};
use crate::caught::caught;
use crate::channel::Sender;
use crate::complaints::{Complaints, warn};
use crate::config::hooks::Hooks;
use crate::limits::{
    AUTHORIZE_TIMEOUT, HOOK_TIMEOUT, HOOKS_RUNNING_MAX, HOOKS_WAITING_MAX,
    QUESTIONS_PER_ADDRESS_MAX, QUESTIONS_PER_DEVICE_AND_ADDRESS_MAX, QUESTIONS_PER_DEVICE_MAX,
    QUESTIONS_RUNNING_MAX,
};
use crate::threads;
use crate::wire::types::BusId;

/// The time for programs to end that were killed.
const KILLED_TIMEOUT: Duration = Duration::from_secs(1);

/// An event whose program is to run.
pub(crate) struct Order<T> {
    pub(crate) event: Event,
    pub(crate) hooks: Arc<Hooks>,
    /// For a question, the sign by which the asker knows the answer.
    pub(crate) asker: Option<T>,
}

/// Runs the programs of a server's hooks. `T` is the sign of whoever asks a program.
pub(crate) struct Runner<T>(Arc<Shared<T>>);

struct Shared<T> {
    state: Mutex<State<T>>,
    /// A thread has ended.
    thread_ended: Condvar,
    /// Tells the reactor of an answer.
    wake: Box<dyn Fn() + Send + Sync>,
    complaints: Complaints,
}

struct State<T> {
    waiting: VecDeque<Order<T>>,
    running: Vec<Running<T>>,
    /// The number of the next program.
    next: u64,
    threads: usize,
    answers: VecDeque<(T, Result<(), Failure>)>,
    /// Nothing is started any more.
    is_over: bool,
}

/// A program that runs, for a device.
struct Running<T> {
    number: u64,
    busid: BusId,
    /// The client's address.
    address: Option<IpAddr>,
    asker: Option<T>,
    /// The asker does not wait any more.
    is_forgotten: bool,
    cue: Sender<Cue>,
}

impl<T> State<T> {
    /// Whether as many orders of an order's kind wait as may, or as many questions of its address.
    fn is_full_for(&self, order: &Order<T>) -> bool {
        let is_question = order.asker.is_some();
        let alike = || self.waiting.iter().filter(|other| other.asker.is_some() == is_question);
        let from_there = || alike().filter(|other| other.event.address() == order.event.address());
        alike().count() >= HOOKS_WAITING_MAX
            || is_question && from_there().count() >= HOOKS_WAITING_MAX / 2
    }

    /// Whether the program of an order may run beside those that run.
    fn may_start(&self, order: &Order<T>) -> bool {
        let is_question = order.asker.is_some();
        let alike = || self.running.iter().filter(|other| other.asker.is_some() == is_question);
        let of_device = || alike().filter(|other| other.busid == order.event.facts.busid);
        if !is_question {
            return alike().count() < HOOKS_RUNNING_MAX && of_device().count() == 0;
        }
        let is_from_there = |other: &&Running<T>| other.address == order.event.address();
        alike().count() < QUESTIONS_RUNNING_MAX
            && of_device().count() < QUESTIONS_PER_DEVICE_MAX
            && alike().filter(is_from_there).count() < QUESTIONS_PER_ADDRESS_MAX
            && of_device().filter(is_from_there).count() < QUESTIONS_PER_DEVICE_AND_ADDRESS_MAX
    }
}

impl<T: Copy + PartialEq + Send + 'static> Runner<T> {
    /// A runner without programs, whose threads log within a budget. `wake` is called from any
    /// thread when there is an answer.
    pub(crate) fn new(complaints: Complaints, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            running: Vec::new(),
            next: 0,
            threads: 0,
            answers: VecDeque::new(),
            is_over: false,
        };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            thread_ended: Condvar::new(),
            wake: Box::new(wake),
            complaints,
        }))
    }

    /// Has the program of an event run, if the device's hooks have a program for the event. A
    /// question to nobody has no answer.
    pub(crate) fn put(&self, order: Order<T>) {
        if order.hooks.get(order.event.kind).is_none() {
            return;
        }
        let mut state = self.0.lock();
        if state.is_full_for(&order) {
            return self.0.conclude(state, &order, Err(Failure::Full));
        }
        state.waiting.push_back(order);
        // Without a thread the order has failed, unless another thread will come to the order.
        if let Err(error) = self.0.add_thread(&mut state)
            && state.threads == 0
            && let Some(order) = state.waiting.pop_back()
        {
            self.0.conclude(state, &order, Err(Failure::Start(error)));
        }
    }

    /// The next answer to a question.
    pub(crate) fn take_answer(&self) -> Option<(T, Result<(), Failure>)> {
        self.0.lock().answers.pop_front()
    }

    /// For a question whose program was not started yet, the number of those that run before.
    pub(crate) fn waits_behind(&self, asker: T) -> Option<usize> {
        let state = self.0.lock();
        let waits = state.waiting.iter().any(|order| order.asker == Some(asker));
        waits.then(|| state.running.iter().filter(|running| running.asker.is_some()).count())
    }

    /// Nobody waits for the answer to a question any more. A program that runs is killed.
    pub(crate) fn forget(&self, asker: T) {
        let mut state = self.0.lock();
        for running in state.running.iter_mut().filter(|running| running.asker == Some(asker)) {
            running.is_forgotten = true;
            let _ = running.cue.try_send(Cue::Kill);
        }
        state.waiting.retain(|order| order.asker != Some(asker));
        state.answers.retain(|(other, _)| *other != asker);
    }

    /// Waits for the programs to end, for `patience` at most, and kills the rest. Nothing is
    /// started afterwards. *Blocks.*
    pub(crate) fn end(self, patience: Duration) {
        let state = self.0.wait_for_threads(self.0.lock(), patience);
        let mut state = self.0.cut_short(state);
        state.is_over = true;
        drop(self.0.wait_for_threads(state, KILLED_TIMEOUT));
    }
}

impl<T: Copy + PartialEq + Send + 'static> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts another thread, unless there are as many as programs may run.
    ///
    /// # Errors
    /// The system has no thread left.
    fn add_thread(self: &Arc<Self>, state: &mut State<T>) -> io::Result<()> {
        if state.threads < HOOKS_RUNNING_MAX + QUESTIONS_RUNNING_MAX {
            let shared = Arc::clone(self);
            threads::start("hooks", move || shared.work())?;
            state.threads += 1;
        }
        Ok(())
    }

    /// The life of a thread: programs, as long as there are orders for it.
    fn work(self: &Arc<Self>) {
        self.complaints.take_thread();
        while let Some((number, order, cues)) = self.take_order() {
            let ended = caught("a hook", || run_order(&order, &cues));
            let ended = ended.unwrap_or(Err(Failure::Panicked));
            let mut state = self.lock();
            let at = state.running.iter().position(|running| running.number == number);
            let running = at.map(|at| state.running.swap_remove(at));
            // An end can make two places, for its device and for its address, and this thread takes
            // one order.
            if state.waiting.iter().filter(|order| state.may_start(order)).nth(1).is_some()
                && let Err(error) = self.add_thread(&mut state)
            {
                debug!("no thread for another program: {error}");
            }
            if running.is_some_and(|running| !running.is_forgotten) {
                self.conclude(state, &order, ended);
            }
        }
    }

    /// The oldest order whose program may run, the program's number and cues. Without an order the
    /// thread ends.
    fn take_order(&self) -> Option<(u64, Order<T>, Cues)> {
        let mut state = self.lock();
        let first = state.waiting.iter().position(|order| state.may_start(order));
        let order = first.and_then(|at| state.waiting.remove(at));
        let Some(order) = order.filter(|_| !state.is_over) else {
            state.threads -= 1;
            self.thread_ended.notify_all();
            return None;
        };
        let (cues, number) = (cues(), state.next);
        state.next += 1;
        let (busid, address) = (order.event.facts.busid, order.event.address());
        let (asker, cue) = (order.asker, cues.0.clone());
        state.running.push(Running { number, busid, address, asker, is_forgotten: false, cue });
        Some((number, order, cues))
    }

    /// Delivers the end of an order: to the asker, or to the log.
    fn conclude(
        &self,
        mut state: MutexGuard<'_, State<T>>,
        order: &Order<T>,
        ended: Result<(), Failure>,
    ) {
        if let Some(asker) = order.asker {
            state.answers.push_back((asker, ended));
            drop(state);
            return (self.wake)();
        }
        drop(state);
        let Event { kind, facts, .. } = &order.event;
        let (key, name) = (kind.key(), &facts.name);
        let path = order.hooks.get(*kind).map_or("", |program| &program.path);
        match ended {
            Ok(()) => debug!(device:% = facts.busid; "{name}: {key}: {path} has ended"),
            Err(failure) => {
                warn!(device:% = facts.busid; "{name}: {key}: {path} {failure}");
            }
        }
    }

    /// Waits until every thread has ended, for `patience` at most.
    fn wait_for_threads<'a>(
        &'a self,
        state: MutexGuard<'a, State<T>>,
        patience: Duration,
    ) -> MutexGuard<'a, State<T>> {
        let is_busy = |state: &mut State<T>| state.threads > 0;
        let waited = self.thread_ended.wait_timeout_while(state, patience, is_busy);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Kills the programs that run, and drops the orders that wait.
    fn cut_short<'a>(&'a self, mut state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        for running in &state.running {
            let _ = running.cue.try_send(Cue::Kill);
        }
        let dropped = std::mem::take(&mut state.waiting).len();
        if dropped > 0 {
            warn!("{dropped} programs of hooks were not started: the server ends");
        }
        state
    }
}

/// Runs the program of an order. *Blocks.*
fn run_order<T>(order: &Order<T>, cues: &Cues) -> Result<(), Failure> {
    let Some(program) = order.hooks.get(order.event.kind) else { return Ok(()) };
    let limit = if order.asker.is_some() { AUTHORIZE_TIMEOUT } else { HOOK_TIMEOUT };
    run(program, &order.event, limit, cues)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::Ipv4Addr;
    use std::thread;
    use std::time::Instant;

    use super::super::event::tests::event;
    use super::super::program::tests::{Folder, script};
    use super::*;
    use crate::config::hooks::{Hook, Program};

    const LONG: Duration = Duration::from_secs(60);

    fn runner() -> Runner<u32> {
        Runner::new(Complaints::new(Instant::now()), || {})
    }

    /// An order of a client of its own, at the address of the asker's number.
    fn order(busid: &str, program: &Program, asker: Option<u32>) -> Order<u32> {
        let mut hooks = Hooks::default();
        hooks.set(Hook::Attach, program.clone());
        let address = Ipv4Addr::from_bits(asker.unwrap_or(0));
        let event = Event { client: Some((address, 4000).into()), ..event(Hook::Attach, busid) };
        Order { event, hooks: Arc::new(hooks), asker }
    }

    /// An order of the client at one address.
    fn order_from(address: Ipv4Addr, order: Order<u32>) -> Order<u32> {
        let client = Some((address, 4000).into());
        Order { event: Event { client, ..order.event }, ..order }
    }

    fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + LONG;
        while !condition() {
            assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn answer(runner: &Runner<u32>) -> (u32, Result<(), Failure>) {
        let mut answer = None;
        wait_until("an answer", || {
            answer = runner.take_answer();
            answer.is_some()
        });
        answer.unwrap()
    }

    #[test]
    fn a_question_is_answered_by_the_exit_code() {
        let runner = runner();
        runner.put(order("1-1", &script("exit 0", &[]), Some(1)));
        assert!(matches!(answer(&runner), (1, Ok(()))));
        runner.put(order("1-1", &script("exit 3", &[]), Some(2)));
        assert!(matches!(answer(&runner), (2, Err(Failure::Exit(3)))));
        runner.end(LONG);
    }

    #[test]
    fn programs_of_a_device_run_one_after_another_and_of_others_side_by_side() {
        let (runner, folder) = (runner(), Folder::new("order"));
        let (gate, file) = (folder.path("gate"), folder.path("said"));
        let waits =
            script("while ! [ -e $1 ]; do sleep 0.01; done; echo $3 >> $2", &[&gate, &file, "1"]);
        runner.put(order("1-1", &waits, None));
        runner.put(order("1-1", &script("echo 2 >> $1", &[&file]), None));
        runner.put(order("1-2", &script("echo 3 >> $1", &[&file]), None));
        let said = || fs::read_to_string(&file).unwrap_or_default();
        wait_until("the program of another device has run", || said() == "3\n");
        fs::write(&gate, "").unwrap();
        runner.end(LONG);
        assert_eq!(said(), "3\n1\n2\n");
    }

    #[test]
    fn events_beyond_the_limit_are_dropped_and_questions_refused() {
        let (runner, folder) = (runner(), Folder::new("full"));
        let gate = folder.path("gate");
        let waits = script("while ! [ -e $1 ]; do sleep 0.01; done", &[&gate]);
        let asker = |of: usize| Some(u32::try_from(of).unwrap());
        for (is_question, places) in [(false, 1), (true, QUESTIONS_PER_DEVICE_MAX)] {
            let before = runner.0.lock().running.len();
            let asker = |of| asker(of).filter(|_| is_question);
            (0..places).for_each(|of| runner.put(order("1-1", &waits, asker(of))));
            wait_until("they run", || runner.0.lock().running.len() == before + places);
            for of in 0..HOOKS_WAITING_MAX {
                runner.put(order("1-1", &script("exit 0", &[]), asker(of)));
            }
        }
        runner.put(order("1-1", &script("exit 0", &[]), None));
        runner.put(order("1-1", &script("exit 0", &[]), Some(9999)));
        assert!(matches!(answer(&runner), (9999, Err(Failure::Full))));
        assert_eq!(runner.0.lock().waiting.len(), 2 * HOOKS_WAITING_MAX);
        runner.0.lock().waiting.clear();
        fs::write(&gate, "").unwrap();
        runner.end(LONG);
    }

    #[test]
    fn only_so_many_programs_run_at_once() {
        let (runner, folder) = (runner(), Folder::new("number"));
        let gate = folder.path("gate");
        let waits = script("while ! [ -e $1 ]; do sleep 0.01; done", &[&gate]);
        for device in 0..2 * HOOKS_RUNNING_MAX {
            runner.put(order(&format!("1-{device}"), &waits, None));
        }
        wait_until("all that may run do", || runner.0.lock().running.len() == HOOKS_RUNNING_MAX);
        assert_eq!(runner.0.lock().waiting.len(), HOOKS_RUNNING_MAX);
        runner.put(order("1-1", &script("exit 0", &[]), Some(1)));
        assert!(matches!(answer(&runner), (1, Ok(()))), "a question has a place of its own");
        fs::write(&gate, "").unwrap();
        runner.end(LONG);
    }

    #[test]
    fn questions_have_places_of_their_own_and_no_device_has_all() {
        let (runner, folder) = (runner(), Folder::new("questions"));
        let gate = folder.path("gate");
        let waits = script("while ! [ -e $1 ]; do sleep 0.01; done", &[&gate]);
        let runs = |count| runner.0.lock().running.len() == count;
        for asker in 0..=QUESTIONS_PER_DEVICE_MAX {
            runner.put(order("1-1", &waits, Some(u32::try_from(asker).unwrap())));
        }
        wait_until("a device has its places", || runs(QUESTIONS_PER_DEVICE_MAX));
        let last = u32::try_from(QUESTIONS_PER_DEVICE_MAX).unwrap();
        assert_eq!(runner.waits_behind(last), Some(QUESTIONS_PER_DEVICE_MAX));
        assert_eq!(runner.waits_behind(0), None, "its program runs");
        for device in 2..=QUESTIONS_RUNNING_MAX {
            let asker = u32::try_from(100 + device).unwrap();
            runner.put(order(&format!("1-{device}"), &waits, Some(asker)));
        }
        wait_until("all that may run do", || runs(QUESTIONS_RUNNING_MAX));
        fs::write(&gate, "").unwrap();
        for _ in 0..QUESTIONS_PER_DEVICE_MAX + QUESTIONS_RUNNING_MAX {
            assert!(answer(&runner).1.is_ok());
        }
        runner.end(LONG);
    }

    #[test]
    fn no_address_has_all_places_of_a_device_nor_of_the_server() {
        let (runner, folder) = (runner(), Folder::new("address"));
        let gate = folder.path("gate");
        let waits = script("while ! [ -e $1 ]; do sleep 0.01; done", &[&gate]);
        let (busy, other) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let runs = |count| runner.0.lock().running.len() == count;
        for asker in 0..8 {
            runner.put(order_from(busy, order("1-1", &waits, Some(asker))));
        }
        wait_until("its share of a device's runs", || runs(QUESTIONS_PER_DEVICE_AND_ADDRESS_MAX));
        runner.put(order_from(other, order("1-1", &waits, Some(100))));
        wait_until("another's runs", || runs(QUESTIONS_PER_DEVICE_AND_ADDRESS_MAX + 1));
        for device in 2..=QUESTIONS_RUNNING_MAX {
            let asker = u32::try_from(device + 200).unwrap();
            runner.put(order_from(busy, order(&format!("1-{device}"), &waits, Some(asker))));
        }
        wait_until("its share of all runs", || runs(QUESTIONS_PER_ADDRESS_MAX + 1));
        let waiting = runner.0.lock().waiting.len();
        for asker in 1000..1000 + u32::try_from(HOOKS_WAITING_MAX).unwrap() {
            runner.put(order_from(busy, order("1-1", &waits, Some(asker))));
        }
        assert_eq!(runner.0.lock().waiting.len(), HOOKS_WAITING_MAX / 2);
        let refused = waiting + HOOKS_WAITING_MAX - HOOKS_WAITING_MAX / 2;
        assert!((0..refused).all(|_| matches!(answer(&runner), (1000.., Err(Failure::Full)))));
        runner.put(order_from(other, order("1-1", &script("exit 0", &[]), Some(101))));
        assert!(matches!(answer(&runner), (101, Ok(()))), "a place is left for another");
        runner.0.lock().waiting.clear();
        fs::write(&gate, "").unwrap();
        runner.end(LONG);
    }

    /// The end of a program makes a place for the device, and another for the address.
    #[test]
    fn every_order_that_may_run_runs() {
        let (runner, folder) = (runner(), Folder::new("places"));
        let gate = folder.path("gate");
        let waits = script("while ! [ -e $1 ]; do sleep 0.01; done", &[&gate]);
        let [busy, other, third] = [1, 2, 3].map(|last| Ipv4Addr::new(10, 0, 0, last));
        let runs = |count| runner.0.lock().running.len() == count;
        let put = |address, busid: &str, asker| {
            runner.put(order_from(address, order(busid, &waits, Some(asker))));
        };
        for asker in 0..QUESTIONS_PER_DEVICE_MAX {
            let address = if asker < QUESTIONS_PER_DEVICE_AND_ADDRESS_MAX { busy } else { other };
            put(address, "1-1", u32::try_from(asker).unwrap());
        }
        let rest = QUESTIONS_PER_ADDRESS_MAX - QUESTIONS_PER_DEVICE_AND_ADDRESS_MAX;
        for device in 0..rest {
            put(busy, &format!("1-{}", 3 + device), u32::try_from(100 + device).unwrap());
        }
        let places = QUESTIONS_PER_DEVICE_MAX + rest;
        wait_until("no place for either", || runs(places));
        put(third, "1-1", 201);
        put(busy, "1-2", 202);
        wait_until("no thread for either", || runner.0.lock().threads == places);
        runner.forget(0);
        wait_until("both run", || runs(places + 1));
        fs::write(&gate, "").unwrap();
        runner.end(LONG);
    }

    #[test]
    fn nobody_hears_of_a_forgotten_question() {
        let (runner, folder) = (runner(), Folder::new("forget"));
        let file = folder.path("said");
        for _ in 0..QUESTIONS_PER_DEVICE_AND_ADDRESS_MAX {
            runner.put(order("1-1", &script("sleep 1000", &[]), Some(1)));
        }
        let runs = |count| runner.0.lock().running.len() == count;
        wait_until("the programs run", || runs(QUESTIONS_PER_DEVICE_AND_ADDRESS_MAX));
        let same = Ipv4Addr::from_bits(1);
        runner.put(order_from(same, order("1-1", &script("echo 2 >> $1", &[&file]), Some(2))));
        runner.forget(2);
        runner.forget(1);
        wait_until("the programs are killed", || runs(0));
        assert!(runner.take_answer().is_none());
        runner.end(LONG);
        assert!(!fs::exists(file).unwrap(), "it never ran");
    }

    #[test]
    fn the_end_waits_for_programs_and_then_kills() {
        let folder = Folder::new("end");
        let file = folder.path("said");
        let runner = runner();
        for _ in 0..3 {
            runner.put(order("1-1", &script("sleep 0.01; echo done >> $1", &[&file]), None));
        }
        runner.end(LONG);
        assert_eq!(fs::read_to_string(&file).unwrap(), "done\n".repeat(3));
        let runner = self::runner();
        let shared = Arc::clone(&runner.0);
        for asker in [None, Some(1)] {
            runner.put(order("1-1", &script("sleep 1000", &[]), asker));
        }
        runner.put(order("1-1", &script("echo never >> $1", &[&file]), None));
        wait_until("the programs run", || shared.lock().running.len() == 2);
        runner.end(Duration::ZERO);
        assert!(matches!(shared.lock().answers.pop_front(), Some((1, Err(Failure::Stopped)))));
        assert_eq!(shared.lock().threads, 0);
        assert_eq!(fs::read_to_string(&file).unwrap(), "done\n".repeat(3));
    }
}
