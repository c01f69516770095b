//! The work of a session, in numbers.
//!
//! The data path keeps plain counters, at the cost of an addition each; a copy is plain data.
//! Nothing is reset: the difference of two copies is the work between them.
//!
//! Contract: plain data and arithmetic. Counters are noted by the reactor, copies go anywhere. Only
//! a copy allocates.

use crate::wire::status::Status;
use crate::wire::types::{Direction, EndpointAddress};

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
    /// Endpoints with at least a URB. A control endpoint goes by its OUT address.
    pub endpoints: Vec<(EndpointAddress, EndpointStats)>,
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

/// The counters of a session, as the data path keeps them.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) unlinks: u64,
    pub(crate) refused: u64,
    endpoints: [EndpointStats; EndpointAddress::COUNT],
}

impl Counters {
    /// Notes a URB submitted to an endpoint, which now has `in_flight` URBs with the device.
    #[inline]
    pub(crate) fn note_submitted(&mut self, endpoint: EndpointAddress, in_flight: u32) {
        let endpoint = &mut self.endpoints[endpoint.index()];
        endpoint.most_in_flight = endpoint.most_in_flight.max(in_flight);
    }

    /// Notes a URB ended by the device, with data of `direction`.
    #[inline]
    pub(crate) fn note_ended(
        &mut self,
        endpoint: EndpointAddress,
        direction: Direction,
        status: Status,
        actual_length: u32,
    ) {
        let endpoint = &mut self.endpoints[endpoint.index()];
        endpoint.urbs += 1;
        match direction {
            Direction::In => endpoint.bytes_in += u64::from(actual_length),
            Direction::Out => endpoint.bytes_out += u64::from(actual_length),
        }
        if status != Status::OK {
            endpoint.errors.note(status);
        }
    }

    /// Notes failed packets of an isochronous URB.
    #[inline]
    pub(crate) fn note_packets(&mut self, endpoint: EndpointAddress, errors: u32) {
        self.endpoints[endpoint.index()].packet_errors += u64::from(errors);
    }

    /// A copy, with the gauges of the session.
    pub(crate) fn copy(
        &self,
        slots: Gauge,
        buffers: Gauge,
        in_flight: impl Fn(EndpointAddress) -> u32,
    ) -> SessionStats {
        let both = [Direction::Out, Direction::In];
        let all = both.into_iter().flat_map(|direction| {
            (0..16).map(move |number| EndpointAddress::new(number, direction))
        });
        let of = |address: EndpointAddress| {
            let counted = self.endpoints[address.index()];
            (address, EndpointStats { in_flight: in_flight(address), ..counted })
        };
        let endpoints = all.map(of).filter(|(_, endpoint)| endpoint.most_in_flight > 0);
        let (unlinks, refused) = (self.unlinks, self.refused);
        SessionStats { unlinks, refused, slots, buffers, endpoints: endpoints.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BULK_IN: EndpointAddress = EndpointAddress::from_byte(0x81);

    #[test]
    fn errors_are_counted_by_status_and_others_together() {
        let mut counters = Counters::default();
        counters.note_submitted(BULK_IN, 1);
        for status in [Status::OK, Status::EPIPE, Status::EPIPE, Status(-7), Status::EPERM] {
            counters.note_ended(BULK_IN, Direction::In, status, 10);
        }
        let stats = counters.copy(Gauge::default(), Gauge::default(), |_| 0);
        let (address, endpoint) = stats.endpoints[0];
        assert_eq!((address, stats.endpoints.len()), (BULK_IN, 1));
        let errors: Vec<_> = endpoint.errors.by_status().collect();
        assert_eq!(errors, [(Some(Status::EPIPE), 2), (None, 2)]);
        assert_eq!((endpoint.errors.total(), endpoint.urbs, endpoint.bytes_in), (4, 5, 50));
    }

    #[test]
    fn an_endpoint_without_urbs_is_left_out() {
        let mut counters = Counters::default();
        counters.note_submitted(BULK_IN, 3);
        counters.note_submitted(BULK_IN, 2);
        let stats = counters.copy(Gauge::of(1, 2, 3), Gauge::default(), |_| 1);
        let expected = EndpointStats { in_flight: 1, most_in_flight: 3, ..Default::default() };
        assert_eq!(stats.endpoints, [(BULK_IN, expected)]);
        assert_eq!(stats.slots, Gauge { now: 1, most: 2, room: 3 });
    }
}
