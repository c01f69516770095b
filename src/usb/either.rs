//! A stack made of two, so that a program with both has a single reactor, and chooses the stack
//! when the program starts.
//!
//! Every call is passed on by a `match`, so nothing is called through a pointer, and a stack loses
//! no inlining. A device and its parts belong to the same stack, since only [`Candidate::open`]
//! makes a device.
//!
//! Contract: each stack's own.

use std::time::Instant;

use usbferry_sys::arena::{Arena, Block, DeviceMemory};

use super::special::SpecialRequest;
use super::{
    Backend, Candidate, Completion, DeviceInfo, EventSource, Hints, MemoryChange, OpenError,
    Opened, Performed, Port, Reaped, Refused, Scan, ScanError, Submission,
};
use crate::limits::DeviceLimits;
use crate::wire::iso::PacketsMut;
use crate::wire::status::Status;

/// Something of either of two stacks: the stack, a device found, an open device, a URB slot or the
/// name of a transfer.
#[derive(Clone, Debug)]
pub enum Either<A, B> {
    /// Of the first stack.
    First(A),
    /// Of the second stack.
    Second(B),
}

use Either::{First, Second};

/// The same call for either.
macro_rules! either {
    ($one:expr, $name:ident => $call:expr) => {
        match $one {
            First($name) => $call,
            Second($name) => $call,
        }
    };
}

/// The same call for a port and a part of it, of the same stack.
macro_rules! both {
    ($port:expr, $part:expr, ($name:ident, $of_port:ident) => $call:expr) => {
        match ($port, $part) {
            (First($name), First($of_port)) => $call,
            (Second($name), Second($of_port)) => $call,
            _ => panic!("a part of a device of the other stack"),
        }
    };
}

impl<A: Backend, B: Backend> Backend for Either<A, B> {
    type Candidate = Either<A::Candidate, B::Candidate>;

    fn needs_exact_time(&self) -> bool {
        either!(self, stack => stack.needs_exact_time())
    }

    fn hints(&mut self) -> Option<Box<dyn Hints>> {
        either!(self, stack => stack.hints())
    }

    fn scan(&mut self) -> Result<Scan<Self::Candidate>, ScanError> {
        Ok(match self {
            First(stack) => stack.scan()?.map(First),
            Second(stack) => stack.scan()?.map(Second),
        })
    }

    fn prepare_open(&mut self) {
        either!(self, stack => stack.prepare_open());
    }
}

impl<A: Candidate, B: Candidate> Candidate for Either<A, B> {
    type Port = Either<A::Port, B::Port>;

    fn info(&self) -> &DeviceInfo {
        either!(self, device => device.info())
    }

    fn open(
        &self,
        limits: &DeviceLimits,
        reset_on_release: bool,
    ) -> Result<Opened<Self::Port>, OpenError> {
        Ok(match self {
            First(device) => device.open(limits, reset_on_release)?.map(First, First),
            Second(device) => device.open(limits, reset_on_release)?.map(Second, Second),
        })
    }

    fn recover(&self) {
        either!(self, device => device.recover());
    }
}

impl<A: Port, B: Port> Port for Either<A, B> {
    type Transfer = Either<A::Transfer, B::Transfer>;
    type CancelToken = Either<A::CancelToken, B::CancelToken>;

    /// The length that both stacks can carry.
    const CONTROL_LEN_MAX: usize = {
        let (first, second) = (A::CONTROL_LEN_MAX, B::CONTROL_LEN_MAX);
        if first < second { first } else { second }
    };

    fn attached(&mut self) {
        either!(self, port => port.attached());
    }

    fn event_sources(&self) -> Vec<EventSource> {
        either!(self, port => port.event_sources())
    }

    fn make_transfer(&mut self, slot: u32) -> Option<Self::Transfer> {
        Some(match self {
            First(port) => First(port.make_transfer(slot)?),
            Second(port) => Second(port.make_transfer(slot)?),
        })
    }

    #[inline(always)]
    fn submit(
        &mut self,
        transfer: &mut Self::Transfer,
        submission: Submission<'_>,
        block: Block,
        now: Instant,
    ) -> Result<(), Refused> {
        both!(self, transfer, (port, slot) => port.submit(slot, submission, block, now))
    }

    #[inline]
    fn reap(&mut self, now: Instant, completed: &mut Vec<u32>) -> Reaped {
        either!(self, port => port.reap(now, completed))
    }

    #[inline]
    fn take(&mut self, transfer: &mut Self::Transfer) -> Completion {
        both!(self, transfer, (port, slot) => port.take(slot))
    }

    #[inline]
    fn packet(&self, transfer: &Self::Transfer, index: usize) -> (u32, Status) {
        both!(self, transfer, (port, slot) => port.packet(slot, index))
    }

    #[inline]
    fn fill_packets(&self, transfer: &Self::Transfer, packets: &mut PacketsMut<'_>) -> (u32, u32) {
        both!(self, transfer, (port, slot) => port.fill_packets(slot, packets))
    }

    #[inline]
    fn look_everywhere(&mut self) {
        either!(self, port => port.look_everywhere());
    }

    fn hung_up(&mut self, now: Instant) {
        either!(self, port => port.hung_up(now));
    }

    #[inline(always)]
    fn next_deadline(&self) -> Option<Instant> {
        either!(self, port => port.next_deadline())
    }

    #[inline]
    fn alarms() -> u32 {
        A::alarms().wrapping_add(B::alarms())
    }

    fn cancel_token(transfer: &Self::Transfer) -> Self::CancelToken {
        match transfer {
            First(slot) => First(A::cancel_token(slot)),
            Second(slot) => Second(B::cancel_token(slot)),
        }
    }

    fn cancel(&mut self, token: &Self::CancelToken) {
        both!(self, token, (port, token) => port.cancel(token));
    }

    fn perform(&mut self, request: SpecialRequest) -> Performed {
        either!(self, port => port.perform(request))
    }

    #[inline]
    fn note_idle(&mut self) {
        either!(self, port => port.note_idle());
    }

    #[inline(always)]
    fn memory_change(&self) -> Option<MemoryChange> {
        either!(self, port => port.memory_change())
    }

    fn change_memory(
        &mut self,
        change: MemoryChange,
        given_up: Option<DeviceMemory>,
    ) -> Option<DeviceMemory> {
        either!(self, port => port.change_memory(change, given_up))
    }

    #[inline]
    fn others_starve(&self) -> bool {
        either!(self, port => port.others_starve())
    }

    #[inline]
    fn set_starving(&mut self, starving: bool) {
        either!(self, port => port.set_starving(starving));
    }

    fn close(self, transfers: Vec<Self::Transfer>, memory: Arena) {
        let transfers = transfers.into_iter();
        match self {
            First(port) => port.close(transfers.filter_map(Either::first).collect(), memory),
            Second(port) => port.close(transfers.filter_map(Either::second).collect(), memory),
        }
    }
}

impl<A, B> Either<A, B> {
    fn first(self) -> Option<A> {
        if let First(first) = self { Some(first) } else { None }
    }

    fn second(self) -> Option<B> {
        if let Second(second) = self { Some(second) } else { None }
    }
}
