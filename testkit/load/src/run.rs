//! Runs a load for a while, on one session or on many.
//!
//! A single session is served with blocking calls: a write, a read, and no system call to wait.
//! Many sessions are served as they become ready, and so is a session with replies of several
//! reads. All available data, or half a queue, is read before the next SUBMITs go out.

use std::io;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::client::PATIENCE;
use crate::flow::Flow;
use crate::histogram::Histogram;
use crate::process;

/// Reads of a session before the turn of the next.
const READS_PER_TURN: usize = 64;

/// How long to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Before anything counts.
    pub warm_up: Duration,
    /// The length of the measurement.
    pub time: Duration,
}

/// A moment of a run for the caller to look at the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// The start of the measurement.
    Start,
    /// Up to here.
    End,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// URBs answered during the measurement.
    pub urbs: u64,
    /// The length of the measurement.
    pub time: Duration,
    /// URBs of each session.
    pub by_session: Vec<u64>,
    /// Turnaround times.
    pub turnaround: Histogram,
    /// Processor time of the calling thread.
    pub own_cpu: Option<Duration>,
}

impl Outcome {
    /// URBs a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let urbs = self.urbs as f64;
        urbs / self.time.as_secs_f64()
    }
}

/// Runs a load; `look` is called at both ends of the measurement.
///
/// # Errors
/// A connection's, or an unexpected reply.
pub fn run(
    flows: &mut [Flow],
    depth: usize,
    plan: Plan,
    look: impl FnMut(Moment),
) -> io::Result<Outcome> {
    for flow in &mut *flows {
        flow.allow(depth as u64);
    }
    let clock = Clock::new(plan, look);
    match flows {
        [flow] if depth == 1 || !flow.is_long() => run_one(flow, clock),
        flows => run_many(flows, depth, clock),
    }
}

/// The position of a run in its plan.
pub(crate) struct Clock<L> {
    plan: Plan,
    look: L,
    begun: Instant,
    started: Option<Instant>,
    ended: Option<Instant>,
    own_cpu: Option<Duration>,
}

impl<L: FnMut(Moment)> Clock<L> {
    pub(crate) fn new(plan: Plan, look: L) -> Self {
        Self { plan, look, begun: Instant::now(), started: None, ended: None, own_cpu: None }
    }

    /// Looks at the time. True when counting begins now.
    pub(crate) fn tick(&mut self) -> bool {
        let now = Instant::now();
        match (self.started, self.ended) {
            (None, _) if now - self.begun >= self.plan.warm_up => {
                (self.look)(Moment::Start);
                self.own_cpu = process::own_cpu();
                self.started = Some(Instant::now());
                true
            }
            (Some(started), None) if now - started >= self.plan.time => {
                self.ended = Some(now);
                let own_cpu = process::own_cpu();
                self.own_cpu = self.own_cpu.and_then(|before| Some(own_cpu? - before));
                (self.look)(Moment::End);
                false
            }
            _ => false,
        }
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    pub(crate) fn outcome(&self, counted: Vec<u64>, turnaround: Histogram) -> Outcome {
        let time = match (self.started, self.ended) {
            (Some(started), Some(ended)) => ended - started,
            _ => Duration::ZERO,
        };
        Outcome {
            urbs: counted.iter().sum(),
            time,
            by_session: counted,
            turnaround,
            own_cpu: self.own_cpu,
        }
    }
}

fn run_one<L: FnMut(Moment)>(flow: &mut Flow, mut clock: Clock<L>) -> io::Result<Outcome> {
    while !clock.is_over() {
        write(flow)?;
        let replies = read(flow)?;
        flow.allow(replies);
        if clock.tick() {
            flow.restart();
        }
    }
    let outcome = clock.outcome(vec![flow.counted], flow.turnaround.clone());
    while flow.outstanding() > 0 {
        write(flow)?;
        read(flow)?;
    }
    Ok(outcome)
}

/// Moves a number of URBs on a session, and returns when all are answered.
///
/// # Errors
/// A connection's, or an unexpected reply.
pub fn count(flow: &mut Flow, depth: usize, urbs: u64) -> io::Result<()> {
    let mut unsent = urbs.saturating_sub(depth as u64);
    flow.allow(urbs - unsent);
    while flow.outstanding() > 0 {
        write(flow)?;
        let more = read(flow)?.min(unsent);
        flow.allow(more);
        unsent -= more;
    }
    Ok(())
}

fn write(flow: &mut Flow) -> io::Result<()> {
    if flow.write()? { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
}

/// Waits for replies; "would block" means the end of the socket's time limit.
fn read(flow: &mut Flow) -> io::Result<u64> {
    let progress = flow.read()?;
    if progress.blocked {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(progress.replies)
}

fn run_many<L: FnMut(Moment)>(
    flows: &mut [Flow],
    depth: usize,
    mut clock: Clock<L>,
) -> io::Result<Outcome> {
    // Half a queue at least stays with the server.
    let batch = (depth as u64 / 2).max(1);
    let mut poll = Poll::new()?;
    for (index, flow) in flows.iter().enumerate() {
        flow.set_nonblocking(true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut SourceFd(&flow.fd()), Token(index), interest)?;
    }
    let mut events = Events::with_capacity(flows.len().max(16));
    let mut ready: Vec<usize> = (0..flows.len()).collect();
    let mut again = Vec::with_capacity(flows.len());
    let mut outcome = None;
    while outcome.is_none() || flows.iter().any(|flow| flow.outstanding() > 0) {
        let wait = if ready.is_empty() { PATIENCE } else { Duration::ZERO };
        poll.poll(&mut events, Some(wait))?;
        if events.is_empty() && ready.is_empty() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        for event in &events {
            let index = event.token().0;
            if !ready.contains(&index) {
                ready.push(index);
            }
        }
        for index in ready.drain(..) {
            if serve(&mut flows[index], batch, outcome.is_none())? {
                again.push(index);
            }
        }
        std::mem::swap(&mut ready, &mut again);
        if outcome.is_none() && clock.tick() {
            flows.iter_mut().for_each(Flow::restart);
        }
        if outcome.is_none() && clock.is_over() {
            let mut turnaround = Histogram::default();
            flows.iter().for_each(|flow| turnaround.add(&flow.turnaround));
            outcome =
                Some(clock.outcome(flows.iter().map(|flow| flow.counted).collect(), turnaround));
        }
    }
    for flow in flows {
        poll.registry().deregister(&mut SourceFd(&flow.fd()))?;
        flow.set_nonblocking(false)?;
    }
    outcome.ok_or_else(|| io::ErrorKind::TimedOut.into())
}

/// Moves a bounded amount of data on a session. True when there may be more.
fn serve(flow: &mut Flow, batch: u64, allow_more: bool) -> io::Result<bool> {
    let (mut replies, mut more, mut reads) = (0, true, 0);
    flow.write()?;
    while more && reads < READS_PER_TURN {
        let progress = flow.read()?;
        (more, reads) = (progress.more, reads + 1);
        replies += progress.replies;
        if allow_more && replies >= batch {
            flow.allow(std::mem::take(&mut replies));
            flow.write()?;
        }
    }
    if allow_more {
        flow.allow(replies);
    }
    flow.write()?;
    Ok(more)
}
