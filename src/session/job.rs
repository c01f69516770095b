//! Jobs: the port on its way to the worker and back, since all blocking calls run there.
//!
//! Contract: [`Job::run`] blocks, on the worker; the rest runs on the reactor and does not.

use std::time::Instant;

use usbferry_sys::arena::DeviceMemory;

use super::Session;
use crate::caught::caught;
use crate::usb::special::SpecialRequest;
use crate::usb::{MemoryChange, Performed, Port};

/// The work of a worker on a port.
pub(crate) enum JobKind<P: Port> {
    /// Cancel transfers. The list comes back, to be used again.
    Cancel(Vec<P::CancelToken>),
    /// Perform a special request.
    Perform(SpecialRequest),
    /// Change the port's share of the system's memory; a mapping to give up comes along.
    ChangeMemory(MemoryChange, Option<DeviceMemory>),
}

/// The result of a job.
pub(crate) enum JobResult<P: Port> {
    Cancelled(Vec<P::CancelToken>),
    /// Some could not be cancelled and never will be, because cancelling them panics.
    NotCancelled(Vec<P::CancelToken>),
    Performed(Performed),
    /// Newly mapped memory.
    MemoryChanged(Option<DeviceMemory>),
    /// The port panicked, and is of no more use.
    Failed,
}

/// A port on its way to the worker.
pub(crate) struct Job<P: Port> {
    pub(crate) port: Box<P>,
    pub(crate) kind: JobKind<P>,
}

impl<P: Port> Job<P> {
    /// Does the job. The port outlives a panic, and the device is given up in order. *Blocks.*
    pub(crate) fn run(mut self) -> (Box<P>, JobResult<P>) {
        let port = &mut *self.port;
        let result = match self.kind {
            JobKind::Cancel(tokens) => cancel(port, tokens),
            JobKind::Perform(request) => {
                let performed = caught("a request", || port.perform(request));
                JobResult::Performed(performed.unwrap_or(Performed::Gone))
            }
            JobKind::ChangeMemory(change, given_up) => {
                let change = || port.change_memory(change, given_up);
                caught("mapping memory", change).map_or(JobResult::Failed, JobResult::MemoryChanged)
            }
        };
        (self.port, result)
    }
}

/// Cancels transfers, each by itself: a panic leaves no other transfer in flight.
fn cancel<P: Port>(port: &mut P, mut tokens: Vec<P::CancelToken>) -> JobResult<P> {
    let mut all = true;
    for token in tokens.drain(..) {
        all &= caught("cancelling a transfer", || port.cancel(&token)).is_some();
    }
    if all { JobResult::Cancelled(tokens) } else { JobResult::NotCancelled(tokens) }
}

/// Where the port is. A boxed port moves as a pointer: by value each move would copy the port, and
/// whatever the reactor calls on the way of a URB would reserve pages of stack for the copies.
pub(super) enum Place<P> {
    Here(Box<P>),
    /// The worker has the port. News of a hang-up is kept for the port meanwhile.
    Away {
        hung_up: bool,
    },
}

impl<P> Place<P> {
    pub(super) const fn is_here(&self) -> bool {
        matches!(self, Self::Here(_))
    }

    pub(super) const fn here(&self) -> Option<&P> {
        match self {
            Self::Here(port) => Some(port),
            Self::Away { .. } => None,
        }
    }

    pub(super) const fn here_mut(&mut self) -> Option<&mut P> {
        match self {
            Self::Here(port) => Some(port),
            Self::Away { .. } => None,
        }
    }

    /// The port, which leaves.
    pub(super) fn take(&mut self) -> Option<Box<P>> {
        match std::mem::replace(self, Self::Away { hung_up: false }) {
            Self::Here(port) => Some(port),
            away @ Self::Away { .. } => {
                *self = away;
                None
            }
        }
    }
}

impl<P: Port> Session<P> {
    /// Whether there may be a job for the worker.
    #[inline(always)]
    pub(super) fn may_have_job(&self) -> bool {
        let Some(port) = self.port.here() else { return false };
        self.slots.has_cancels()
            || self.barriers.current.is_some()
            || port.memory_change().is_some()
    }

    /// Whether transfers are to be cancelled, and the worker could have the port.
    #[cfg(test)]
    pub(crate) fn has_cancels_at_hand(&self) -> bool {
        self.port.is_here() && self.slots.has_cancels()
    }

    /// The next job for the worker, if there is any; the port goes with the job.
    pub(crate) fn take_job(&mut self) -> Option<Job<P>> {
        if !self.port.is_here() {
            return None;
        }
        let kind = if let Some(tokens) = self.slots.take_cancels() {
            JobKind::Cancel(tokens)
        } else if let Some(request) = self.take_performance() {
            JobKind::Perform(request)
        } else {
            self.take_memory_change()?
        };
        Some(Job { port: self.port.take()?, kind })
    }

    /// The change of the port's memory to be made now.
    fn take_memory_change(&mut self) -> Option<JobKind<P>> {
        let change = self.port.here()?.memory_change().filter(|_| !self.life.is_tearing_down())?;
        let given_up = match change {
            // Not while a URB lies in it.
            MemoryChange::GiveUp => Some(self.buffers.give_up_device_memory()?),
            MemoryChange::Look | MemoryChange::Map => None,
        };
        Some(JobKind::ChangeMemory(change, given_up))
    }

    /// Takes the port back from the worker. A transfer that ended while the port was away gave its
    /// only notice then, so [`Self::reap`] is to be called next.
    pub(crate) fn take_back(&mut self, port: Box<P>, result: JobResult<P>, now: Instant) {
        self.time.set(now);
        let away = std::mem::replace(&mut self.port, Place::Here(port));
        match result {
            JobResult::Cancelled(tokens) => self.slots.keep_tokens(tokens),
            JobResult::NotCancelled(tokens) => {
                self.slots.keep_tokens(tokens);
                self.life.note_stuck();
            }
            JobResult::Failed => self.life.note_gone(),
            JobResult::Performed(performed) => self.end_performance(performed, now),
            JobResult::MemoryChanged(mapped) => {
                if let Some(mapped) = mapped {
                    self.buffers.add_device_memory(mapped);
                }
            }
        }
        if let Place::Away { hung_up: true } = away {
            self.handle_hangup(now);
        }
    }

    /// Something else than the end of a URB may have happened. False if the port is away and must
    /// be told later.
    pub(crate) fn look_everywhere(&mut self) -> bool {
        let Place::Here(port) = &mut self.port else { return false };
        port.look_everywhere();
        true
    }

    /// A descriptor of the device was hung up. The system says so only once: a port away with the
    /// worker is told after its return.
    pub(crate) fn handle_hangup(&mut self, now: Instant) {
        match &mut self.port {
            Place::Here(port) => port.hung_up(now),
            Place::Away { hung_up } => *hung_up = true,
        }
    }
}
