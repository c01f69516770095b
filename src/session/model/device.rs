//! The device of the model: a port which obeys the model, and notes the session's calls.
//!
//! The port checks the caller's part of [`Port`]'s contract and leaves the rest to the model, which
//! reads the notes after each call of the session.

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::Instant;

use usbferry_sys::arena::{Arena, Block};

use super::rng::Rng;
use super::verdict::Outcome;
use crate::limits::CONTROL_LEN_MAX;
use crate::usb::special::SpecialRequest;
use crate::usb::{
    Alternate, Completion, Configuration, Endpoint, EventSource, Interface, Performed, Port,
    Reaped, Refused, RefusedReason, Submission,
};
use crate::wire::status::Status;
use crate::wire::types::{EndpointAddress, TransferType};

/// Payloads are cut from these bytes: comparing with a slice is fast even where nothing is
/// optimised, and two URBs have different payloads.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut rng = Rng(7);
    (0..PATTERN_LEN / 8).flat_map(|_| rng.next().to_le_bytes()).collect()
});

const PATTERN_LEN: usize = 1 << 18;

/// Starts of payloads in the pattern: a prime, and few payloads start at the same place.
const PATTERN_STARTS: usize = 65_521;

/// The bytes of number `id`; no two numbers are likely to share bytes.
pub(super) fn pattern(id: u32, len: usize) -> &'static [u8] {
    let start = id as usize * 7919 % PATTERN_STARTS;
    &PATTERN[start..start + len]
}

/// A URB with the device.
#[derive(Debug)]
pub(super) struct Flight {
    /// Counts submissions, and tells two URBs of a slot apart.
    pub(super) serial: u32,
    pub(super) endpoint: EndpointAddress,
    pub(super) transfer_type: TransferType,
    pub(super) length: usize,
    pub(super) zero_packet: bool,
    /// The lengths of the packets.
    pub(super) packets: Vec<u32>,
    /// The id of the URB, once the model has found the URB.
    pub(super) id: u32,
    pub(super) cancelled: bool,
    /// The result for the client, once the URB has ended.
    pub(super) outcome: Option<Outcome>,
}

/// A call of the port by the session.
#[derive(Debug)]
pub(super) enum Event {
    /// `spare` slots were left then.
    Submitted {
        slot: u32,
        spare: usize,
    },
    Reaped(Flight),
    Refused {
        endpoint: EndpointAddress,
        reason: RefusedReason,
    },
    Cancelled {
        slot: u32,
    },
}

/// An open device without hardware.
pub(super) struct ModelPort {
    pub(super) slots: Vec<Option<Flight>>,
    /// Ended slots not yet collected.
    pub(super) ended: VecDeque<u32>,
    pub(super) events: Vec<Event>,
    /// How the next submissions are refused, and how many; until a transfer ends, where the device
    /// has its share.
    pub(super) refuse: Option<(RefusedReason, u32)>,
    /// The result of the next special request.
    pub(super) outcome: Performed,
    pub(super) performed: Vec<SpecialRequest>,
    /// Transfers collected in a call.
    pub(super) reap_budget: usize,
    /// Calls to submit find the device gone.
    pub(super) gone: bool,
    /// Calls to collect find the device gone.
    pub(super) reports_gone: bool,
    serial: u32,
}

/// A URB slot without hardware. The model writes the result.
#[derive(Default)]
pub(super) struct ModelTransfer {
    index: u32,
    serial: u32,
    pub(super) block: Option<Block>,
    pub(super) end: Option<(Status, u32)>,
    pub(super) packets: Vec<(u32, Status)>,
}

impl ModelPort {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots: (0..slots).map(|_| None).collect(),
            ended: VecDeque::new(),
            events: Vec::new(),
            refuse: None,
            outcome: Performed::Done,
            performed: Vec::new(),
            reap_budget: usize::MAX,
            gone: false,
            reports_gone: false,
            serial: 0,
        }
    }

    pub(super) fn flight(&mut self, slot: u32) -> &mut Flight {
        self.slots[slot as usize].as_mut().expect("the slot carries a URB")
    }

    /// Slots whose URBs have not ended yet.
    pub(super) fn in_flight(&self) -> Vec<u32> {
        let open = |flight: &Option<Flight>| {
            flight.as_ref().is_some_and(|flight| flight.outcome.is_none())
        };
        (0..).zip(&self.slots).filter(|(_, flight)| open(flight)).map(|(slot, _)| slot).collect()
    }

    fn refusal(&mut self) -> Option<RefusedReason> {
        if self.gone {
            return Some(RefusedReason::Gone);
        }
        let (reason, times) = self.refuse?;
        // A device with URBs in flight has its share, until a URB ends.
        if reason == RefusedReason::Share {
            return self.slots.iter().any(Option::is_some).then_some(reason);
        }
        self.refuse = (times > 1).then_some((reason, times - 1));
        // Each refusal has a status of its own, and a reply tells which refusal the client was told
        // of.
        self.serial += 1;
        let number = i32::try_from(self.serial).expect("runs are short");
        Some(match reason {
            RefusedReason::Failed(status) => RefusedReason::Failed(Status(status.0 - number)),
            other => other,
        })
    }
}

impl Port for ModelPort {
    type Transfer = ModelTransfer;
    type CancelToken = (u32, u32);

    const CONTROL_LEN_MAX: usize = CONTROL_LEN_MAX;

    fn event_sources(&self) -> Vec<EventSource> {
        Vec::new()
    }

    fn make_transfer(&mut self, slot: u32) -> Option<ModelTransfer> {
        Some(ModelTransfer { index: slot, ..Default::default() })
    }

    fn submit(
        &mut self,
        transfer: &mut ModelTransfer,
        submission: Submission<'_>,
        block: Block,
        _now: Instant,
    ) -> Result<(), Refused> {
        let slot = &self.slots[transfer.index as usize];
        assert!(slot.is_none() && transfer.block.is_none(), "the slot is in use");
        assert!(block.len() >= submission.length, "the block is too short");
        if let Some(reason) = self.refusal() {
            self.events.push(Event::Refused { endpoint: submission.endpoint, reason });
            return Err(Refused { block, reason });
        }
        self.serial += 1;
        self.slots[transfer.index as usize] = Some(Flight {
            serial: self.serial,
            endpoint: submission.endpoint,
            transfer_type: submission.transfer_type,
            length: submission.length,
            zero_packet: submission.zero_packet,
            packets: submission.packets.iter().map(|packet| packet.length).collect(),
            id: 0,
            cancelled: false,
            outcome: None,
        });
        transfer.serial = self.serial;
        transfer.block = Some(block);
        let spare = self.slots.iter().filter(|slot| slot.is_none()).count();
        self.events.push(Event::Submitted { slot: transfer.index, spare });
        Ok(())
    }

    fn reap(&mut self, _now: Instant, completed: &mut Vec<u32>) -> Reaped {
        assert!(completed.is_empty() && completed.capacity() >= self.slots.len(), "no room");
        let count = self.ended.len().min(self.reap_budget);
        if count > 0 && matches!(self.refuse, Some((RefusedReason::Share, _))) {
            self.refuse = None;
        }
        for slot in self.ended.drain(..count) {
            completed.push(slot);
            let flight = self.slots[slot as usize].take().expect("it was in flight");
            self.events.push(Event::Reaped(flight));
        }
        Reaped { more: !self.ended.is_empty(), gone: self.reports_gone }
    }

    fn take(&mut self, transfer: &mut ModelTransfer) -> Completion {
        let (status, actual_length) = transfer.end.take().expect("it has ended");
        let block = transfer.block.take().expect("it was submitted");
        Completion { status, actual_length, block }
    }

    fn packet(&self, transfer: &ModelTransfer, index: usize) -> (u32, Status) {
        transfer.packets[index]
    }

    fn look_everywhere(&mut self) {}

    fn hung_up(&mut self, _now: Instant) {}

    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    fn cancel_token(transfer: &ModelTransfer) -> (u32, u32) {
        assert!(transfer.block.is_some(), "only what is in flight has a token");
        (transfer.index, transfer.serial)
    }

    fn cancel(&mut self, &(slot, serial): &(u32, u32)) {
        let flight = self.flight(slot);
        assert_eq!(flight.serial, serial, "the cancel hits another URB of its slot");
        flight.cancelled = true;
        self.events.push(Event::Cancelled { slot });
    }

    fn perform(&mut self, request: SpecialRequest) -> Performed {
        self.performed.push(request);
        if self.gone { Performed::Gone } else { self.outcome.clone() }
    }

    fn close(self, transfers: Vec<ModelTransfer>, memory: Arena) {
        assert!(self.slots.iter().all(Option::is_none), "something is in flight");
        assert!(transfers.iter().all(|transfer| transfer.block.is_none()), "a block is not home");
        assert_eq!(memory.outstanding(), 0, "a buffer is not home");
    }
}

/// The device's configurations. Interface 0 has bulk and interrupt endpoints, 1 streams in the
/// settings but 0, 2 can't be claimed.
pub(super) fn configurations(alternate: u8) -> [Option<Configuration>; 3] {
    use TransferType::{Bulk, Control, Interrupt, Isochronous};
    let data = [(0x81, Bulk), (0x01, Bulk), (0x82, Interrupt), (0x02, Interrupt)];
    let mut held = interface(2, &[&[(0x85, Bulk), (0x05, Isochronous)]]);
    held.refused = Some(Status::EBUSY);
    let mut streaming = interface(
        1,
        &[
            &[],
            &[(0x83, Isochronous), (0x03, Isochronous), (0x86, Isochronous), (0x06, Isochronous)],
            &[(0x83, Isochronous), (0x86, Bulk), (0x06, Interrupt), (0x84, Control)],
        ],
    );
    streaming.current = alternate;
    let full = Configuration {
        value: 1,
        interfaces: vec![interface(0, &[&data, &data[..2]]), streaming, held],
    };
    let other = Configuration {
        value: 2,
        interfaces: vec![
            interface(0, &[&data[..2]]),
            interface(3, &[&[(0x83, Isochronous), (0x86, Bulk), (0x06, Isochronous)]]),
        ],
    };
    [Some(full), Some(other), None]
}

fn interface(number: u8, alternates: &[&[(u8, TransferType)]]) -> Interface {
    let endpoint = |&(address, transfer_type): &(u8, TransferType)| Endpoint {
        address: EndpointAddress::from_byte(address),
        transfer_type,
        max_packet_size: 512,
        interval: 4,
    };
    let alternate = |(setting, endpoints): (u8, &&[(u8, TransferType)])| Alternate {
        setting,
        class: 255,
        sub_class: 0,
        protocol: 0,
        endpoints: endpoints.iter().map(endpoint).collect(),
    };
    let alternates = (0..).zip(alternates).map(alternate).collect();
    Interface { number, current: 0, alternates, refused: None }
}
