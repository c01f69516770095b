//! A host for the tests of the models: opens a device and waits for its URBs, on a clock of its
//! own.

use std::time::{Duration, Instant};

use usbferry_sys::arena::Arena;

use super::SimBackend;
use super::bus::SimBus;
use super::port::SimPort;
use super::spec::Spec;
use super::transfer::SimTransfer;
use crate::limits::DeviceLimits;
use crate::usb::special::SpecialRequest;
use crate::usb::{
    Backend, Candidate, Configuration, Performed, Port, Reaped, RefusedReason, Submission,
};
use crate::wire::iso::Packets;
use crate::wire::setup::{SETUP_LEN, Setup};
use crate::wire::status::Status;
use crate::wire::types::{BusId, EndpointAddress, TransferType};

/// A device, open.
pub(super) struct Host {
    pub(super) bus: SimBus,
    pub(super) busid: BusId,
    pub(super) port: SimPort,
    transfers: Vec<SimTransfer>,
    memory: Arena,
    idle: Vec<u32>,
    /// Reaped slots, not yet looked at.
    reaped: Vec<u32>,
    pub(super) gone: bool,
    pub(super) now: Instant,
}

/// How a URB ended.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Ended {
    pub(super) status: Status,
    pub(super) actual_length: usize,
    /// The contents of the block: the received data of an IN URB, the whole block of an isochronous
    /// URB.
    pub(super) data: Vec<u8>,
    pub(super) packets: Vec<(u32, Status)>,
}

impl Host {
    /// Opens the only device of a new bus.
    pub(super) fn open(spec: &str) -> Self {
        let bus = SimBus::with(&Spec::parse_list(spec).unwrap());
        Self::open_on(&bus)
    }

    /// Opens the first device of a bus.
    pub(super) fn open_on(bus: &SimBus) -> Self {
        let candidate = SimBackend::new(bus.clone()).scan().unwrap().devices.remove(0);
        let limits = DeviceLimits { urbs: 64, ..DeviceLimits::default() };
        let opened = candidate.open(&limits, false).unwrap();
        Self {
            bus: bus.clone(),
            busid: candidate.info().device.busid,
            port: opened.port,
            transfers: opened.transfers,
            memory: opened.memory,
            idle: (0..64).rev().collect(),
            reaped: Vec::with_capacity(64),
            gone: false,
            now: Instant::now(),
        }
    }

    pub(super) fn configuration(&self) -> &Configuration {
        self.port.configuration().unwrap()
    }

    /// Submits a URB with `bytes` at the start of its block. Returns its slot.
    pub(super) fn submit(&mut self, endpoint: u8, bytes: &[u8], packets: &[u32]) -> u32 {
        self.submit_flagged(endpoint, bytes, packets, false)
    }

    pub(super) fn submit_flagged(
        &mut self,
        endpoint: u8,
        bytes: &[u8],
        packets: &[u32],
        zero_packet: bool,
    ) -> u32 {
        let endpoint = EndpointAddress::from_byte(endpoint);
        let words = packets.iter().flat_map(|&len| [0, len, 0, 0]);
        let descriptors: Vec<u8> = words.flat_map(u32::to_be_bytes).collect();
        let submission = Submission {
            endpoint,
            transfer_type: self.type_of(endpoint),
            length: bytes.len(),
            zero_packet,
            is_first: true,
            packets: Packets::new(&descriptors),
        };
        let mut block = self.memory.alloc(bytes.len()).unwrap();
        block.copy_from_slice(bytes);
        let slot = self.idle.pop().unwrap();
        let transfer = &mut self.transfers[slot as usize];
        self.port.submit(transfer, submission, block, self.now).unwrap();
        slot
    }

    /// Submits a URB, and expects a refusal.
    pub(super) fn refused(&mut self, endpoint: u8) -> RefusedReason {
        let submission = Submission {
            endpoint: EndpointAddress::from_byte(endpoint),
            transfer_type: TransferType::Bulk,
            length: 8,
            zero_packet: false,
            is_first: true,
            packets: Packets::new(&[]),
        };
        let block = self.memory.alloc(8).unwrap();
        let transfer = &mut self.transfers[0];
        let refused = self.port.submit(transfer, submission, block, self.now);
        let refused = refused.expect_err("it is refused");
        self.memory.free(refused.block);
        refused.reason
    }

    fn type_of(&self, address: EndpointAddress) -> TransferType {
        if address.number() == 0 {
            return TransferType::Control;
        }
        let alternates = self.configuration().interfaces.iter().filter_map(|i| i.alternate());
        let mut endpoints = alternates.flat_map(|a| &a.endpoints);
        let endpoint = endpoints.find(|e| e.address == address);
        endpoint.expect("the endpoint is active").transfer_type
    }

    pub(super) fn reap(&mut self) -> Reaped {
        let reaped = self.port.reap(self.now, &mut self.reaped);
        self.gone |= reaped.gone;
        reaped
    }

    pub(super) fn advance(&mut self, time: Duration) {
        self.now += time;
    }

    /// The result of a URB, if ended.
    pub(super) fn poll(&mut self, slot: u32) -> Option<Ended> {
        self.reap();
        let position = self.reaped.iter().position(|&reaped| reaped == slot)?;
        self.reaped.remove(position);
        self.idle.push(slot);
        let transfer = &mut self.transfers[slot as usize];
        let completion = self.port.take(transfer);
        Some(Ended {
            status: completion.status,
            actual_length: completion.actual_length as usize,
            data: self.home(completion.block),
            packets: Vec::new(),
        })
    }

    fn home(&mut self, block: usbferry_sys::arena::Block) -> Vec<u8> {
        let bytes = block.to_vec();
        self.memory.free(block);
        bytes
    }

    /// Waits for a URB for the time stated by the port itself.
    pub(super) fn wait(&mut self, slot: u32) -> Ended {
        loop {
            if let Some(ended) = self.poll(slot) {
                return ended;
            }
            let deadline = self.port.next_deadline();
            self.now = self.now.max(deadline.expect("the URB ends some time"));
        }
    }

    /// Reaps, and returns the ended slots in order without looking at them.
    pub(super) fn reaped(&mut self) -> Vec<u32> {
        self.reap();
        self.reaped.clone()
    }

    /// Makes a bulk or interrupt IN transfer.
    pub(super) fn read(&mut self, endpoint: u8, len: usize) -> (Status, Vec<u8>) {
        let slot = self.submit(endpoint, &vec![0xa5; len], &[]);
        let mut ended = self.wait(slot);
        ended.data.truncate(ended.actual_length);
        (ended.status, ended.data)
    }

    /// Makes a bulk or interrupt OUT transfer.
    pub(super) fn write(&mut self, endpoint: u8, data: &[u8]) -> (Status, usize) {
        let slot = self.submit(endpoint, data, &[]);
        let ended = self.wait(slot);
        (ended.status, ended.actual_length)
    }

    /// Makes an isochronous transfer. Returns the contents of the block and the results of the
    /// packets.
    pub(super) fn packets(&mut self, endpoint: u8, bytes: &[u8], packets: &[u32]) -> Ended {
        let slot = self.submit(endpoint, bytes, packets);
        self.wait_packets(slot, packets.len())
    }

    /// Waits for an isochronous URB.
    pub(super) fn wait_packets(&mut self, slot: u32, count: usize) -> Ended {
        let mut ended = self.wait(slot);
        let transfer = &self.transfers[slot as usize];
        ended.packets = (0..count).map(|index| self.port.packet(transfer, index)).collect();
        ended
    }

    /// Makes a control IN transfer.
    pub(super) fn control_in(&mut self, setup: Setup) -> (Status, Vec<u8>) {
        let mut bytes = setup.to_bytes().to_vec();
        bytes.resize(SETUP_LEN + usize::from(setup.length), 0xa5);
        let slot = self.submit(0x80, &bytes, &[]);
        let ended = self.wait(slot);
        (ended.status, ended.data[SETUP_LEN..][..ended.actual_length].to_vec())
    }

    /// Makes a control OUT transfer.
    pub(super) fn control_out(&mut self, setup: Setup, data: &[u8]) -> (Status, usize) {
        let bytes = [&setup.to_bytes(), data].concat();
        let slot = self.submit(0, &bytes, &[]);
        let ended = self.wait(slot);
        (ended.status, ended.actual_length)
    }

    /// Asks for a descriptor.
    pub(super) fn descriptor(&mut self, kind: u8, index: u8, length: u16) -> (Status, Vec<u8>) {
        let value = u16::from_le_bytes([index, kind]);
        self.control_in(setup(0x80, 6, value, 0, length))
    }

    pub(super) fn perform(&mut self, request: SpecialRequest) -> Performed {
        self.port.perform(request)
    }

    pub(super) fn clear_halt(&mut self, endpoint: u8) {
        let endpoint = EndpointAddress::from_byte(endpoint);
        let performed = self.perform(SpecialRequest::ClearHalt(endpoint));
        assert_eq!(performed, Performed::Done);
    }

    pub(super) fn set_interface(&mut self, interface: u8, alternate: u8) {
        let request = SpecialRequest::SetInterface { interface, alternate };
        assert!(matches!(
            self.perform(request),
            Performed::Reconfigured { configuration: Some(_), status: Status::OK }
        ));
    }

    pub(super) fn cancel(&mut self, slot: u32) {
        let token = SimPort::cancel_token(&self.transfers[slot as usize]);
        self.port.cancel(&token);
    }

    pub(super) fn close(self) -> SimBus {
        self.port.close(self.transfers, self.memory);
        self.bus
    }
}

pub(super) const fn setup(
    request_type: u8,
    request: u8,
    value: u16,
    index: u16,
    length: u16,
) -> Setup {
    Setup { request_type, request, value, index, length }
}
