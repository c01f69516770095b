//! Control requests which the host answers, shortens or refuses.
//!
//! - GET_DESCRIPTOR of a configuration is answered from the descriptors the host has read, for any
//!   length, when all earlier requests on the pipe have ended. The device is not asked: the host's
//!   copy is the copy in force.
//! - A read of more than [`Port::CONTROL_LEN_MAX`] bytes asks the device for
//!   [`Port::CONTROL_LEN_MAX`]. A device with less ends the read early, and the answer is whole; a
//!   device with at least as many may have more, which nobody can tell, and the read is refused.
//! - A longer write is refused. The log says so, once for each device.
//!
//! Contract: part of the session: nothing here blocks or allocates.

use std::time::Instant;

use super::Session;
use super::complete::result_of;
use super::submit::Attempt;
use super::urb::{Urb, UrbIndex};
use crate::complaints::warn;
use crate::usb::Port;
use crate::usb::descriptor::CONFIGURATION;
use crate::wire::setup::{SETUP_LEN, Setup};
use crate::wire::status::Status;
use crate::wire::types::{Direction, EndpointAddress, TransferType};

/// bmRequestType and bRequest of GET_DESCRIPTOR.
const FROM_DEVICE: u8 = 0x80;
const GET_DESCRIPTOR: u8 = 6;

/// A session's knowledge for control requests.
pub(super) struct Control {
    /// The configurations by index, as read by the host.
    configurations: Vec<Vec<u8>>,
    /// Bytes of data of the port's longest transfer.
    len_max: usize,
    /// The log was told of a request too long.
    warned: bool,
}

impl Control {
    pub(super) const fn new(configurations: Vec<Vec<u8>>, len_max: usize) -> Self {
        Self { configurations, len_max, warned: false }
    }

    /// The configurations by index, as read by the host.
    pub(super) fn configurations(&self) -> &[Vec<u8>] {
        &self.configurations
    }

    /// Judges a request; a status if the request can't be carried out.
    pub(super) fn judge(&mut self, record: &mut Urb) -> Option<Status> {
        let submit = &mut record.submit;
        let setup = Setup::from_bytes(&submit.setup);
        let direction = submit.endpoint.direction();
        // Both directions of a control endpoint are a single pipe.
        submit.endpoint = EndpointAddress::new(submit.endpoint.number(), Direction::Out);
        let data_len = u32::from(setup.length);
        let mismatch = data_len > 0 && setup.direction() != direction;
        let out_is_short = direction == Direction::Out && data_len > submit.transfer_buffer_length;
        if mismatch || out_is_short {
            return Some(Status::EINVAL);
        }
        let too_long = usize::from(setup.length) > self.len_max;
        if too_long && direction == Direction::Out && self.stored(record).is_none() {
            return Some(self.refuse(&setup));
        }
        None
    }

    /// Refuses a request for its length.
    fn refuse(&mut self, setup: &Setup) -> Status {
        if !self.warned {
            self.warned = true;
            warn!(
                "a control request ({:02x} {:02x}) with {} bytes of data is refused: {} are the most \
                 that can be moved at once. Further ones are refused without a word",
                setup.request_type, setup.request, setup.length, self.len_max
            );
        }
        Status::EINVAL
    }

    /// The configuration, by index, of a read which the host can answer.
    fn stored(&self, record: &Urb) -> Option<usize> {
        let setup = Setup::from_bytes(&record.submit.setup);
        let [index, kind] = setup.value.to_le_bytes();
        let request = (setup.request_type, setup.request, kind, setup.index);
        let is_read = request == (FROM_DEVICE, GET_DESCRIPTOR, CONFIGURATION, 0);
        let is_default = record.submit.endpoint.number() == 0;
        let is_known = usize::from(index) < self.configurations.len();
        (is_read && is_default && is_known).then_some(index.into())
    }

    /// The request for the device, which may be for less data.
    pub(super) fn setup_of(&self, record: &Urb) -> Setup {
        let setup = Setup::from_bytes(&record.submit.setup);
        let most = u16::try_from(self.len_max).unwrap_or(u16::MAX);
        Setup { length: setup.length.min(most), ..setup }
    }

    /// The result for the client of a request which the device carried out with `status`.
    pub(super) fn result_of(&mut self, record: &Urb, status: Status, actual: u32) -> (Status, u32) {
        let setup = Setup::from_bytes(&record.submit.setup);
        let most = u32::try_from(self.len_max).unwrap_or(u32::MAX);
        if status == Status::OK && u32::from(setup.length) > most && actual >= most {
            return (self.refuse(&setup), 0);
        }
        // Whatever length the device claims, there is room for the length asked for.
        (status, actual.min(most))
    }
}

impl<P: Port> Session<P> {
    /// Answers a read of a stored configuration; `None` for any other URB.
    #[inline]
    pub(super) fn answer_stored(&mut self, urb: UrbIndex, now: Instant) -> Option<Attempt> {
        let record = self.urbs.get(urb);
        if record.transfer_type != TransferType::Control {
            return None;
        }
        let index = self.control.stored(record)?;
        Some(self.answer_configuration(urb, index, now))
    }

    /// Answers a read of the configuration at `index`, in its turn.
    #[inline(never)]
    fn answer_configuration(&mut self, urb: UrbIndex, index: usize, now: Instant) -> Attempt {
        let record = self.urbs.get_mut(urb);
        if self.endpoints.get(record.submit.endpoint).in_flight > 0 {
            return Attempt::MustWait;
        }
        let bytes = &self.control.configurations[index];
        let asked = usize::from(Setup::from_bytes(&record.submit.setup).length);
        let bytes = &bytes[..bytes.len().min(asked)];
        let length = SETUP_LEN + bytes.len();
        let Some(mut block) = self.buffers.take(length, true) else {
            return self.wait_for_buffer(urb, now);
        };
        block[SETUP_LEN..length].copy_from_slice(bytes);
        record.block = Some(block);
        let actual = u32::try_from(bytes.len()).expect("wLength has 16 bits");
        let (status, actual) = result_of(record, Status::OK, actual);
        self.end(urb, status, actual);
        Attempt::Done
    }
}
