//! The work of a session, in numbers.
//!
//! The data path keeps plain counters, at the cost of an addition each; a copy is plain data.
//! Nothing is reset: the difference of two copies is the work between them. [`turnaround`] has the
//! time that a device takes for its URBs.
//!
//! Contract: plain data and arithmetic. Counters are noted by the reactor, copies go anywhere. Only
//! a copy allocates.

pub mod turnaround;

use crate::wire::status::Status;
use crate::wire::types::{Direction, EndpointAddress, TransferType};
use turnaround::Turnaround;

/// How much of something is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Gauge {
    /// In use now.
    pub now: u64,
    /// The most ever in use at once.
    pub most: u64,
    /// The room for use.
    pub room: u64,
}

impl Gauge {
    pub(crate) const fn of(now: usize, most: usize, room: usize) -> Self {
        Self { now: now as u64, most: most as u64, room: room as u64 }
    }
}

/// A client's session with a device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SessionStats {
    /// UNLINKs received.
    pub unlinks: u64,
    /// SUBMITs answered with an error without the device: for want of room, because the SUBMIT
    /// can't be carried out, or because the device is gone.
    pub refused: u64,
    /// URB slots.
    pub slots: Gauge,
    /// Bytes of buffers. The room is `--memory`; bytes in use may also lie in mapped memory.
    pub buffers: Gauge,
    /// Endpoints with at least a URB.
    pub endpoints: Vec<EndpointWork>,
}

/// The work of an endpoint in a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointWork {
    /// The address. A control endpoint goes by its OUT address.
    pub address: EndpointAddress,
    /// The type in the settings in force; `None` for an endpoint outside these settings.
    pub transfer_type: Option<TransferType>,
    /// The counters.
    pub counters: EndpointStats,
    /// The time that the device takes for a URB.
    pub turnaround: Turnaround,
}

impl SessionStats {
    /// The sum of all endpoints. The most in flight at once is that of the busiest endpoint.
    #[must_use]
    pub fn total(&self) -> EndpointStats {
        let endpoints = self.endpoints.iter().map(|endpoint| &endpoint.counters);
        endpoints.fold(EndpointStats::default(), EndpointStats::plus)
    }
}

/// An endpoint in a session. A URB counts when ended by the device, if the client is still there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EndpointStats {
    /// URBs ended.
    pub urbs: u64,
    /// Bytes moved to the host.
    pub bytes_in: u64,
    /// Bytes moved to the device.
    pub bytes_out: u64,
    /// URBs with the device now.
    pub in_flight: u32,
    /// The most URBs ever with the device at once.
    pub most_in_flight: u32,
    /// Failed isochronous packets.
    pub packet_errors: u64,
    /// URBs ended with an error. A URB cancelled for an UNLINK ends with ECONNRESET.
    pub errors: Errors,
}

/// Statuses with a counter of their own.
pub const COUNTED: [Status; 9] = [
    Status::EPIPE,
    Status::EPROTO,
    Status::EOVERFLOW,
    Status::EREMOTEIO,
    Status::ETIMEDOUT,
    Status::ECONNRESET,
    Status::ESHUTDOWN,
    Status::ENODEV,
    Status::EINVAL,
];

/// Errors by status: each of [`COUNTED`], and all other statuses together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Errors([u64; COUNTED.len() + 1]);

impl Errors {
    #[cold]
    fn note(&mut self, status: Status) {
        let place = COUNTED.iter().position(|&counted| counted == status);
        self.0[place.unwrap_or(COUNTED.len())] += 1;
    }

    fn plus(self, other: &Self) -> Self {
        Self(std::array::from_fn(|place| self.0[place] + other.0[place]))
    }

    /// Errors of any kind.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Errors by status, where there are any; `None` for all statuses outside [`COUNTED`] together.
    pub fn by_status(&self) -> impl Iterator<Item = (Option<Status>, u64)> {
        let statuses = COUNTED.iter().map(|&status| Some(status)).chain([None]);
        statuses.zip(self.0).filter(|&(_, count)| count > 0)
    }
}

#[cfg(test)]
impl EndpointWork {
    /// Counters of any endpoint.
    pub(crate) fn of_counters(counters: EndpointStats) -> Self {
        let (address, turnaround) = (EndpointAddress::new(1, Direction::In), Turnaround::default());
        Self { address, transfer_type: None, counters, turnaround }
    }
}

impl EndpointStats {
    /// No URB yet.
    pub(crate) const NONE: Self = Self {
        urbs: 0,
        bytes_in: 0,
        bytes_out: 0,
        in_flight: 0,
        most_in_flight: 0,
        packet_errors: 0,
        errors: Errors([0; COUNTED.len() + 1]),
    };

    /// The sum of this endpoint and another.
    fn plus(self, other: &Self) -> Self {
        Self {
            urbs: self.urbs + other.urbs,
            bytes_in: self.bytes_in + other.bytes_in,
            bytes_out: self.bytes_out + other.bytes_out,
            in_flight: self.in_flight + other.in_flight,
            most_in_flight: self.most_in_flight.max(other.most_in_flight),
            packet_errors: self.packet_errors + other.packet_errors,
            errors: self.errors.plus(&other.errors),
        }
    }

    /// Notes a URB submitted to the endpoint, which now has `in_flight` URBs with the device.
    #[inline]
    pub(crate) fn note_submitted(&mut self, in_flight: u32) {
        // No `max`, by which each URB would write the number again.
        if in_flight > self.most_in_flight {
            self.most_in_flight = in_flight;
        }
    }

    /// Notes a URB ended by the device, with data of `direction`.
    #[inline]
    pub(crate) fn note_ended(&mut self, direction: Direction, status: Status, actual_length: u32) {
        self.urbs += 1;
        match direction {
            Direction::In => self.bytes_in += u64::from(actual_length),
            Direction::Out => self.bytes_out += u64::from(actual_length),
        }
        if status != Status::OK {
            self.errors.note(status);
        }
    }

    /// Notes failed packets of an isochronous URB.
    #[inline]
    pub(crate) fn note_packets(&mut self, errors: u32) {
        self.packet_errors += u64::from(errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_status_and_others_together() {
        let mut endpoint = EndpointStats::default();
        for status in [Status::OK, Status::EPIPE, Status::EPIPE, Status(-7), Status::EPERM] {
            endpoint.note_ended(Direction::In, status, 10);
        }
        let errors: Vec<_> = endpoint.errors.by_status().collect();
        assert_eq!(errors, [(Some(Status::EPIPE), 2), (None, 2)]);
        assert_eq!((endpoint.errors.total(), endpoint.urbs, endpoint.bytes_in), (4, 5, 50));
    }

    #[test]
    fn a_session_is_the_sum_of_its_endpoints() {
        let mut first = EndpointStats { most_in_flight: 7, in_flight: 1, ..Default::default() };
        let mut second = EndpointStats { most_in_flight: 2, in_flight: 2, ..Default::default() };
        first.note_ended(Direction::In, Status::EPIPE, 10);
        second.note_ended(Direction::Out, Status::EPIPE, 20);
        second.note_ended(Direction::Out, Status::EPROTO, 0);
        second.note_packets(5);
        let endpoints = [first, second].map(EndpointWork::of_counters).to_vec();
        let total = SessionStats { endpoints, ..SessionStats::default() }.total();
        assert_eq!((total.urbs, total.bytes_in, total.bytes_out), (3, 10, 20));
        assert_eq!((total.in_flight, total.most_in_flight, total.packet_errors), (3, 7, 5));
        let errors: Vec<_> = total.errors.by_status().collect();
        assert_eq!(errors, [(Some(Status::EPIPE), 2), (Some(Status::EPROTO), 1)]);
    }

    #[test]
    fn a_gauge_says_now_then_most_then_room() {
        assert_eq!(Gauge::of(1, 2, 3), Gauge { now: 1, most: 2, room: 3 });
    }
}
