//! `replay`: a device from a recording of a real device's URBs.
//!
//! - [`script`]: the recording, put in order for a device.
//!
//! The descriptors are the device's. Control requests are answered by their SETUP packets: the
//! first request gets the first answer of the recording, and so on, and the last answer is
//! repeated. The data of other endpoints comes in the order of the recording:
//!
//! - Data from the device waits until the client has written whatever was written before in the
//!   recording, to the endpoints of the same interface. So an answer never comes before its
//!   question.
//! - Data to the device must be the data of the recording. A client that asks for recorded things
//!   in another order gets the data behind the same question: the recording goes on from there. The
//!   tag of a command to a stick is the client's own, and does not count.
//! - A URB that failed fails again, in its turn. An endpoint that was silent at the end of the
//!   recording stays silent.
//!
//! Everything else is answered with a stall, and counted: nothing is invented.
//!
//! Contract: the same as the models', see `model`.

pub mod script;

use std::sync::Arc;
use std::time::Duration;

use super::descriptors::put;
use super::model::Moved;
use crate::complaints::warn;
use crate::wire::setup::Setup;
use crate::wire::status::Status;
use crate::wire::types::{Direction, EndpointAddress};
use script::{Answer, Script, Step};

/// No step.
const NONE: usize = usize::MAX;

/// Bytes of a command block to a stick, and of its status.
const COMMAND_LEN: usize = 31;
const STATUS_LEN: usize = 13;

/// The place of the tag in either.
const TAG: std::ops::Range<usize> = 4..8;

/// A device from a recording.
pub(super) struct Replay {
    script: Arc<Script>,
    /// The next step of each endpoint.
    next: [usize; EndpointAddress::COUNT],
    /// Bytes already sent of the next step.
    sent: [usize; EndpointAddress::COUNT],
    /// The next isochronous packet of each endpoint.
    packets: [usize; EndpointAddress::COUNT],
    /// Answers given to each request.
    answered: Vec<usize>,
    /// The tag of the last command to a stick.
    tag: Option<[u8; 4]>,
    /// Questions without an answer in the recording.
    misses: u64,
}

impl Replay {
    pub(super) fn new(script: Arc<Script>) -> Self {
        let mut replay = Self {
            next: [NONE; EndpointAddress::COUNT],
            sent: [0; EndpointAddress::COUNT],
            packets: [0; EndpointAddress::COUNT],
            answered: vec![0; script.answers.len()],
            script,
            tag: None,
            misses: 0,
        };
        replay.rewind();
        if let Some(number) = replay.script.broken_behind {
            warn!("replay: the recording is broken behind packet {number}, and has no more");
        }
        if replay.script.cut > 0 {
            warn!(
                "replay: of {} URBs and packets from the device the recording has a part of the \
                 data only, and they are answered with a stall; to have all, record with serve \
                 --capture-snaplen all or capture start --snaplen all",
                replay.script.cut
            );
        }
        replay
    }

    /// Goes back to the beginning, for another client.
    pub(super) fn rewind(&mut self) {
        if self.misses > 0 {
            warn!("replay: {} questions of the client were not in the recording", self.misses);
        }
        self.go_to(0);
        self.packets.fill(0);
        self.answered.fill(0);
        (self.tag, self.misses) = (None, 0);
    }

    /// Has the recording go on from a step.
    fn go_to(&mut self, step: usize) {
        self.next.fill(NONE);
        self.sent.fill(0);
        for (index, step) in self.script.steps.iter().enumerate().skip(step).rev() {
            self.next[step.endpoint.index()] = index;
        }
    }

    pub(super) fn ready(&self, endpoint: EndpointAddress) -> bool {
        if endpoint.direction() == Direction::Out {
            return true;
        }
        match self.next[endpoint.index()] {
            NONE => !self.script.is_silent(endpoint),
            next => self.script.writers(endpoint).all(|writer| self.next[writer] > next),
        }
    }

    pub(super) fn fill(&mut self, endpoint: EndpointAddress, room: &mut [u8]) -> Moved {
        let index = endpoint.index();
        let Some(step) = self.script.steps.get(self.next[index]) else {
            return self.miss(format_args!("a read of endpoint {:#04x}", endpoint.as_byte()));
        };
        if step.is_cut {
            self.advance(endpoint);
            return self.miss(format_args!("data that was cut in the recording"));
        }
        let bytes = put(room, &step.data[self.sent[index]..]);
        if let Some(tag) = self.tag.filter(|_| is_status(&step.data) && bytes == STATUS_LEN) {
            room[TAG].copy_from_slice(&tag);
        }
        self.sent[index] += bytes;
        if self.sent[index] < step.data.len() {
            return Moved::bytes(bytes);
        }
        let status = step.status;
        self.advance(endpoint);
        Moved { bytes, status }
    }

    pub(super) fn consume(&mut self, endpoint: EndpointAddress, data: &[u8]) -> Moved {
        let next = self.next[endpoint.index()];
        let fits = |step: &Step| step.endpoint == endpoint && step.fits(data);
        let steps = &self.script.steps;
        let found = match steps.get(next) {
            Some(step) if fits(step) => Some(next),
            _ => {
                let from = if next == NONE { 0 } else { next };
                let later = steps[from..].iter().position(fits).map(|at| from + at);
                later.or_else(|| steps[..from].iter().position(fits))
            }
        };
        let Some(found) = found else {
            return self.miss(format_args!(
                "{} bytes for endpoint {:#04x}",
                data.len(),
                endpoint.as_byte()
            ));
        };
        if found != next {
            self.go_to(found);
        }
        if is_command(data) {
            self.tag = data[TAG].try_into().ok();
        }
        let step = &self.script.steps[found];
        let bytes = if step.status == Status::OK { data.len() } else { step.moved.min(data.len()) };
        let moved = Moved { bytes, status: step.status };
        self.advance(endpoint);
        moved
    }

    /// Goes on to the endpoint's next step.
    fn advance(&mut self, endpoint: EndpointAddress) {
        let index = endpoint.index();
        let from = self.next[index] + 1;
        let next = self.script.steps[from..].iter().position(|step| step.endpoint == endpoint);
        self.next[index] = next.map_or(NONE, |at| from + at);
        self.sent[index] = 0;
    }

    /// Counts a question without an answer, and stalls.
    fn miss(&mut self, question: std::fmt::Arguments<'_>) -> Moved {
        self.misses += 1;
        if self.misses == 1 {
            warn!(
                "replay: the recording has no answer to {question}, which is stalled; further \
                 questions without an answer are counted"
            );
        }
        Moved::stall(0)
    }

    /// Sends an isochronous packet: the next of the recording.
    pub(super) fn fill_packet(&mut self, endpoint: EndpointAddress, room: &mut [u8]) -> Moved {
        let next = &mut self.packets[endpoint.index()];
        let packet = self.script.packets[endpoint.index()].get(*next);
        let Some(packet) = packet.filter(|packet| !packet.is_cut) else {
            self.miss(format_args!("a packet of endpoint {:#04x}", endpoint.as_byte()));
            return Moved { bytes: 0, status: Status::EPROTO };
        };
        *next += 1;
        Moved { bytes: put(room, &packet.data), status: packet.status }
    }

    /// Carries out any request but those that a host performs.
    pub(super) fn control(&mut self, setup: &Setup, data: &mut [u8]) -> Option<usize> {
        let key = setup.to_bytes();
        let given = self.script.answers.get(&key).map(|(number, answers)| {
            let given = &mut self.answered[*number];
            *given += 1;
            &answers[(*given - 1).min(answers.len() - 1)]
        });
        let answer = given.or_else(|| self.script.prefix_of(setup));
        let Some(Answer { status: Status::OK, data: bytes, .. }) = answer else {
            if answer.is_none() {
                self.miss(format_args!("the request {key:02x?}"));
            }
            return None;
        };
        match setup.direction() {
            Direction::In => Some(put(data, bytes)),
            Direction::Out => Some(data.len()),
        }
    }

    /// The time of an isochronous packet.
    pub(super) fn period(&self, endpoint: EndpointAddress) -> Duration {
        self.script.periods[endpoint.index()]
    }
}

/// Whether data is a command block to a stick (USB mass storage, bulk only, 5.1).
fn is_command(data: &[u8]) -> bool {
    data.len() == COMMAND_LEN && data.starts_with(b"USBC")
}

/// Whether data is the status of a command (5.2).
fn is_status(data: &[u8]) -> bool {
    data.len() == STATUS_LEN && data.starts_with(b"USBS")
}

impl Step {
    /// Whether the step is the writing of `data`.
    fn fits(&self, data: &[u8]) -> bool {
        if self.asked != data.len() {
            return false;
        }
        let recorded = &self.data[..];
        if is_command(data) && is_command(recorded) {
            return recorded[..TAG.start] == data[..TAG.start]
                && recorded[TAG.end..] == data[TAG.end..];
        }
        // Of cut data the rest is not known.
        data.starts_with(recorded) && (self.is_cut || recorded.len() == data.len())
    }
}
