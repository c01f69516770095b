//! The vendor requests of `loopback`, all to the device. wIndex names an endpoint by its address.
//! Requests outside of the table are stalled, and so are requests with the default endpoint or an
//! endpoint outside of the settings in force.
//!
//! | bmRequestType | bRequest | wValue | wIndex | data stage and effect |
//! | --- | --- | --- | --- | --- |
//! | 0xc0 | 0x01 [`COUNTERS`] | | endpoint | 32 bytes: the endpoint's traffic, see [`Counters`] |
//! | 0x40 | 0x02 [`CLEAR_COUNTERS`] | | | sets the counters of all endpoints to zero |
//! | 0x40 | 0x03 [`WRITE`] | | | up to 4096 bytes for … |
//! | 0xc0 | 0x04 [`READ`] | | | … the buffer read here |
//! | 0xc0 | 0x05 [`LAST_SETUP`] | | | 8 bytes: the previous SETUP packet of any request |
//! | 0xc0 | 0x06 [`PERFORMED`] | | | 16 bytes: the numbers of SET_CONFIGURATION, SET_INTERFACE, CLEAR_HALT and resets performed by the host since opening the device, four bytes little-endian each |
//! | 0x40 | 0x10 [`HALT`] | | endpoint | halts the endpoint: its URBs stall, waiting URBs included |
//! | 0x40 | 0x11 [`SHORT`] | bytes | endpoint | the next URB ends after wValue bytes |
//! | 0x40 | 0x12 [`STALL_AFTER`] | bytes | endpoint | the next URB stalls after wValue bytes |
//! | 0x40 | 0x13 [`BUS_ERROR_AFTER`] | bytes | endpoint | the next URB fails with EPROTO after wValue bytes |
//! | 0x40 | 0x14 [`BABBLE`] | | endpoint | the next URB is filled and fails with EOVERFLOW |
//! | 0x40 | 0x15 [`PACKETS_SHORT`] | bytes | endpoint | isochronous: the packets of the next URB have at most wValue bytes |
//! | 0x40 | 0x16 [`PACKET_LOST`] | number | endpoint | isochronous: packet wValue of the next URB fails with EPROTO |
//! | 0x40 | 0x17 [`CANCEL_DONE`] | bytes | endpoint | the next cancel is too late: the URB ends with wValue bytes of the pattern and no error |
//! | 0x40 | 0x18 [`CANCEL_PARTIAL`] | bytes | endpoint | the next cancelled URB ends with wValue bytes and ECONNRESET |
//! | 0x40 | 0x19 [`RELEASE`] | bytes | 0x84, 0x86 | the silent endpoint's oldest or next URB gets wValue bytes of the pattern |
//! | 0x40 | 0x20 [`CONTROL_DELAY`] | ms | | later control requests take wValue ms |
//! | 0x40 | 0x21 [`SPECIAL_DELAY`] | ms | | special requests take wValue ms |
//! | 0x40 | 0x22 [`CANCEL_DELAY`] | ms | | cancelling takes wValue ms |
//! | 0x40 | 0x23 [`REFUSE_SPECIAL`] | times | | the next wValue special requests fail with EPIPE |
//! | 0x40 | 0x24 [`VANISH`] | | | unplugs the device |
//!
//! Delays, refusals and plans for an endpoint's next URB last until the device is closed. A plan
//! for the next URB also ends when the endpoint's interface is set, its halt cleared, or the device
//! reset.
//!
//! Contract: the same as the models', see `model`.

use std::time::Duration;

use super::{BUFFER_LEN, BULK_SILENT, INTERRUPT_SILENT, Loopback};
use crate::usb::sim::controller::Controller;
use crate::usb::sim::descriptors::put;
use crate::usb::sim::endpoint::{EndpointState, LateData, Plan};
use crate::wire::setup::Setup;
use crate::wire::status::Status;
use crate::wire::types::EndpointAddress;

/// bmRequestType of requests with data for the device, or without data.
pub const OUT: u8 = 0x40;
/// bmRequestType of requests with data from the device.
pub const IN: u8 = 0xc0;

/// Reads the counters of an endpoint.
pub const COUNTERS: u8 = 0x01;
/// Clears the counters of all endpoints.
pub const CLEAR_COUNTERS: u8 = 0x02;
/// Writes the buffer.
pub const WRITE: u8 = 0x03;
/// Reads the buffer.
pub const READ: u8 = 0x04;
/// Reads the previous SETUP packet.
pub const LAST_SETUP: u8 = 0x05;
/// Reads how often each special request was performed.
pub const PERFORMED: u8 = 0x06;
/// Halts an endpoint.
pub const HALT: u8 = 0x10;
/// Ends the next URB early.
pub const SHORT: u8 = 0x11;
/// Stalls the next URB after some bytes.
pub const STALL_AFTER: u8 = 0x12;
/// Fails the next URB after some bytes.
pub const BUS_ERROR_AFTER: u8 = 0x13;
/// Has the next URB overflow.
pub const BABBLE: u8 = 0x14;
/// Shortens the packets of the next URB.
pub const PACKETS_SHORT: u8 = 0x15;
/// Loses a packet of the next URB.
pub const PACKET_LOST: u8 = 0x16;
/// Lets the next cancelled URB succeed.
pub const CANCEL_DONE: u8 = 0x17;
/// Lets the next cancelled URB have data.
pub const CANCEL_PARTIAL: u8 = 0x18;
/// Lets a silent endpoint send once.
pub const RELEASE: u8 = 0x19;
/// Slows control requests down.
pub const CONTROL_DELAY: u8 = 0x20;
/// Slows special requests down.
pub const SPECIAL_DELAY: u8 = 0x21;
/// Slows cancelling down.
pub const CANCEL_DELAY: u8 = 0x22;
/// Has special requests fail.
pub const REFUSE_SPECIAL: u8 = 0x23;
/// Unplugs the device.
pub const VANISH: u8 = 0x24;

/// An endpoint's traffic since its counters were cleared: 32 bytes, four little-endian fields of
/// eight bytes. A cancelled URB only adds to the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Bytes.
    pub bytes: u64,
    /// Ended URBs.
    pub urbs: u64,
    /// OUT: bytes different from the pattern. The loop checks none.
    pub errors: u64,
    /// OUT: empty packets, as a URB or behind a URB.
    pub empty_packets: u64,
}

impl Counters {
    /// Bytes of the answer.
    pub const LEN: usize = 32;

    /// Reads an answer.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let word = |index: usize| u64::from_le_bytes(bytes.as_chunks().0[index]);
        Self { bytes: word(0), urbs: word(1), errors: word(2), empty_packets: word(3) }
    }

    fn to_bytes(self) -> [u8; Self::LEN] {
        let words = [self.bytes, self.urbs, self.errors, self.empty_packets];
        let mut bytes = [0; Self::LEN];
        for (chunk, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *chunk = word.to_le_bytes();
        }
        bytes
    }
}

impl Loopback {
    pub(in crate::usb::sim) fn control(
        &mut self,
        setup: &Setup,
        data: &mut [u8],
        controller: &mut Controller,
    ) -> Option<usize> {
        match setup.request_type {
            IN => self.read(setup, data, controller),
            OUT if setup.request == WRITE => self.write(data),
            OUT => {
                self.command(setup, controller)?;
                Some(data.len())
            }
            _ => None,
        }
    }

    fn read(&self, setup: &Setup, data: &mut [u8], controller: &mut Controller) -> Option<usize> {
        match setup.request {
            COUNTERS => {
                controller.endpoints.named(setup.index)?;
                let counters = self.streams[address(setup).index()].counters;
                Some(put(data, &counters.to_bytes()))
            }
            READ => Some(put(data, &self.buffer[..self.buffer_len])),
            LAST_SETUP => Some(put(data, &self.last_setup)),
            PERFORMED => {
                let mut bytes = [0; 16];
                for (chunk, count) in bytes.as_chunks_mut().0.iter_mut().zip(controller.performed) {
                    *chunk = count.to_le_bytes();
                }
                Some(put(data, &bytes))
            }
            _ => None,
        }
    }

    fn write(&mut self, data: &[u8]) -> Option<usize> {
        let buffer = self.buffer[..BUFFER_LEN].get_mut(..data.len())?;
        buffer.copy_from_slice(data);
        self.buffer_len = data.len();
        Some(data.len())
    }

    fn command(&mut self, setup: &Setup, controller: &mut Controller) -> Option<()> {
        let delay = Duration::from_millis(setup.value.into());
        match setup.request {
            CLEAR_COUNTERS => self.clear_counters(),
            RELEASE => self.release(setup)?,
            CONTROL_DELAY => controller.delays.control = delay,
            SPECIAL_DELAY => controller.delays.special = delay,
            CANCEL_DELAY => controller.delays.cancel = delay,
            REFUSE_SPECIAL => controller.refusals = setup.value,
            VANISH => controller.plug.pull(),
            HALT => controller.endpoints.named_haltable(setup.index)?.halted = true,
            _ => arrange(setup, controller.endpoints.named(setup.index)?)?,
        }
        Some(())
    }

    fn clear_counters(&mut self) {
        for stream in &mut self.streams {
            stream.counters = Counters::default();
        }
    }

    fn release(&mut self, setup: &Setup) -> Option<()> {
        let endpoint = address(setup);
        let silent = matches!(endpoint.as_byte(), INTERRUPT_SILENT | BULK_SILENT);
        silent.then(|| self.streams[endpoint.index()].release = Some(setup.value))
    }
}

/// Arranges a fault for an endpoint's next URB.
fn arrange(setup: &Setup, state: &mut EndpointState) -> Option<()> {
    let value = usize::from(setup.value);
    let late = |status| Some(LateData { bytes: value, status });
    match setup.request {
        SHORT => state.plan = Plan::Short(value),
        STALL_AFTER => state.plan = Plan::Stall(value),
        BUS_ERROR_AFTER => state.plan = Plan::BusError(value),
        BABBLE => state.plan = Plan::Babble,
        PACKETS_SHORT => state.plan = Plan::PacketsShort(value),
        PACKET_LOST => state.plan = Plan::PacketLost(value),
        CANCEL_DONE => state.late_data = late(Status::OK),
        CANCEL_PARTIAL => state.late_data = late(Status::ECONNRESET),
        _ => return None,
    }
    Some(())
}

fn address(setup: &Setup) -> EndpointAddress {
    let [low, _] = setup.index.to_le_bytes();
    EndpointAddress::from_byte(low)
}
