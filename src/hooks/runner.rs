//! The queue of events, and the threads with the programs.
//!
//! A thread takes the oldest event whose device has no program running, runs the program, and takes
//! the next event; without such an event the thread ends. An event that comes finds a thread, or
//! starts a thread.
//!
//! Contract: any thread; the lock is held while lists are changed, and never during a program. Only
//! [`Runner::end`] blocks.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use log::debug;

use super::Event;
use super::program::{Cue, Cues, Failure, cues, run};
use crate::caught::caught;
use crate::complaints::{Complaints, warn};
use crate::config::hooks::Hooks;
use crate::limits::{AUTHORIZE_TIMEOUT, HOOK_TIMEOUT, HOOKS_RUNNING_MAX, HOOKS_WAITING_MAX};
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
    running: Vec<Running>,
    threads: usize,
    answers: VecDeque<(T, Result<(), Failure>)>,
    /// Nothing is started any more.
    is_over: bool,
}

/// A program that runs, for a device.
struct Running {
    busid: BusId,
    cue: SyncSender<Cue>,
}

impl<T: Copy + PartialEq + Send + 'static> Runner<T> {
    /// A runner without programs, whose threads log within a budget. `wake` is called from any
    /// thread when there is an answer.
    pub(crate) fn new(complaints: Complaints, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            running: Vec::new(),
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
        if state.waiting.len() >= HOOKS_WAITING_MAX {
            return self.0.conclude(state, &order, Err(Failure::Full));
        }
        state.waiting.push_back(order);
        if state.threads < HOOKS_RUNNING_MAX {
            self.start_thread(state);
        }
    }

    /// Starts a thread for the newest order; without a thread the order has failed, unless another
    /// thread will come to the order.
    fn start_thread(&self, mut state: MutexGuard<'_, State<T>>) {
        state.threads += 1;
        let shared = Arc::clone(&self.0);
        let thread = thread::Builder::new().name("hooks".to_owned());
        let Err(error) = thread.spawn(move || shared.work()) else { return };
        state.threads -= 1;
        if state.threads == 0
            && let Some(order) = state.waiting.pop_back()
        {
            self.0.conclude(state, &order, Err(Failure::Start(error)));
        }
    }

    /// The next answer to a question.
    pub(crate) fn take_answer(&self) -> Option<(T, Result<(), Failure>)> {
        self.0.lock().answers.pop_front()
    }

    /// Nobody waits for the answer to a question any more. A program that runs goes on.
    pub(crate) fn forget(&self, asker: T) {
        let mut state = self.0.lock();
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

    /// The life of a thread: programs, as long as there are orders for it.
    fn work(&self) {
        self.complaints.take_thread();
        while let Some((order, cues)) = self.take_order() {
            let ended = caught("a hook", || run_order(&order, &cues));
            let ended = ended.unwrap_or(Err(Failure::Panicked));
            let mut state = self.lock();
            state.running.retain(|running| running.busid != order.event.facts.busid);
            self.conclude(state, &order, ended);
        }
    }

    /// The oldest order whose device has no program running, and the cues of its program. Without
    /// an order the thread ends.
    fn take_order(&self) -> Option<(Order<T>, Cues)> {
        let mut state = self.lock();
        let State { waiting, running, .. } = &mut *state;
        let is_free = |order: &Order<T>| {
            let busid = order.event.facts.busid;
            running.iter().all(|running| running.busid != busid)
        };
        let order = waiting.iter().position(is_free).and_then(|at| waiting.remove(at));
        let Some(order) = order.filter(|_| !state.is_over) else {
            state.threads -= 1;
            self.thread_ended.notify_all();
            return None;
        };
        let cues = cues();
        state.running.push(Running { busid: order.event.facts.busid, cue: cues.0.clone() });
        Some((order, cues))
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
            Ok(()) => debug!("{name}: {key}: {path} has ended"),
            Err(failure) => warn!("{name}: {key}: {path} {failure}"),
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
    use std::time::Instant;

    use super::super::event::tests::event;
    use super::super::program::tests::{Folder, script};
    use super::*;
    use crate::config::hooks::{Hook, Program};

    const LONG: Duration = Duration::from_secs(60);

    fn runner() -> Runner<u32> {
        Runner::new(Complaints::new(Instant::now()), || {})
    }

    fn order(busid: &str, program: &Program, asker: Option<u32>) -> Order<u32> {
        let mut hooks = Hooks::default();
        hooks.set(Hook::Attach, program.clone());
        Order { event: event(Hook::Attach, busid), hooks: Arc::new(hooks), asker }
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
        runner.put(order("1-1", &script("echo 2 >> $1", &[&file]), Some(2)));
        runner.put(order("1-2", &script("echo 3 >> $1", &[&file]), Some(3)));
        assert_eq!(answer(&runner).0, 3, "another device does not wait");
        assert!(runner.take_answer().is_none());
        fs::write(&gate, "").unwrap();
        assert_eq!(answer(&runner).0, 2);
        assert_eq!(fs::read_to_string(&file).unwrap(), "3\n1\n2\n");
        runner.end(LONG);
    }

    #[test]
    fn events_beyond_the_limit_are_dropped_and_questions_refused() {
        let (runner, folder) = (runner(), Folder::new("full"));
        let gate = folder.path("gate");
        let waits = script("while ! [ -e $1 ]; do sleep 0.01; done", &[&gate]);
        runner.put(order("1-1", &waits, None));
        wait_until("the program runs", || runner.0.lock().running.len() == 1);
        for _ in 0..HOOKS_WAITING_MAX {
            runner.put(order("1-1", &script("exit 0", &[]), None));
        }
        runner.put(order("1-1", &script("exit 0", &[]), Some(9)));
        assert!(matches!(answer(&runner), (9, Err(Failure::Full))));
        assert_eq!(runner.0.lock().waiting.len(), HOOKS_WAITING_MAX);
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
            runner.put(order(&format!("1-{device}"), &waits, Some(0)));
        }
        wait_until("all that may run do", || runner.0.lock().running.len() == HOOKS_RUNNING_MAX);
        assert_eq!(runner.0.lock().waiting.len(), HOOKS_RUNNING_MAX);
        fs::write(&gate, "").unwrap();
        for _ in 0..2 * HOOKS_RUNNING_MAX {
            assert!(answer(&runner).1.is_ok());
        }
        runner.end(LONG);
    }

    #[test]
    fn nobody_hears_of_a_forgotten_question() {
        let (runner, folder) = (runner(), Folder::new("forget"));
        let (gate, file) = (folder.path("gate"), folder.path("said"));
        let waits = script("while ! [ -e $1 ]; do sleep 0.01; done", &[&gate]);
        runner.put(order("1-1", &waits, Some(1)));
        runner.put(order("1-1", &script("echo 2 >> $1", &[&file]), Some(2)));
        runner.forget(2);
        fs::write(&gate, "").unwrap();
        assert_eq!(answer(&runner).0, 1);
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
        runner.put(order("1-1", &script("sleep 1000", &[]), Some(1)));
        runner.put(order("1-1", &script("echo never >> $1", &[&file]), None));
        wait_until("the program runs", || shared.lock().running.len() == 1);
        runner.end(Duration::ZERO);
        assert!(matches!(shared.lock().answers.pop_front(), Some((1, Err(Failure::Stopped)))));
        assert_eq!(shared.lock().threads, 0);
        assert_eq!(fs::read_to_string(&file).unwrap(), "done\n".repeat(3));
    }
}
