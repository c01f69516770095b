//! The right values of the session's counters, counted from the view of the device and of the
//! client.

use std::collections::BTreeMap;

use super::client::Sent;
use super::verdict::Outcome;
use super::world::World;
use crate::stats::{COUNTED, EndpointStats, EndpointWork, Errors};
use crate::wire::status::Status;
use crate::wire::types::{Direction, EndpointAddress};

/// Records up to which the buffers of all URBs are summed up after every step.
const RECORDS_MAX: usize = 64;

/// An endpoint.
#[derive(Clone, Copy, Default, Debug)]
struct Endpoint {
    urbs: u64,
    bytes_in: u64,
    bytes_out: u64,
    packet_errors: u64,
    in_flight: u32,
    most_in_flight: u32,
}

/// Everything that is counted.
#[derive(Default)]
pub(super) struct Account {
    endpoints: [Endpoint; EndpointAddress::COUNT],
    errors: BTreeMap<(usize, Option<i32>), u64>,
    in_flight: u64,
    most_in_flight: u64,
    most_buffers: u64,
}

impl Account {
    /// The device has taken a URB.
    pub(super) fn note_submitted(&mut self, endpoint: EndpointAddress) {
        let endpoint = &mut self.endpoints[endpoint.index()];
        endpoint.in_flight += 1;
        endpoint.most_in_flight = endpoint.most_in_flight.max(endpoint.in_flight);
        self.in_flight += 1;
        self.most_in_flight = self.most_in_flight.max(self.in_flight);
    }

    /// The session has collected a URB.
    pub(super) fn note_collected(&mut self, endpoint: EndpointAddress) {
        self.endpoints[endpoint.index()].in_flight -= 1;
        self.in_flight -= 1;
    }

    /// A collected URB has ended with `outcome`, and the client is there.
    pub(super) fn note_ended(&mut self, address: EndpointAddress, sent: &Sent, outcome: &Outcome) {
        let endpoint = &mut self.endpoints[address.index()];
        endpoint.urbs += 1;
        endpoint.packet_errors += u64::from(outcome.error_count);
        let bytes = match sent.submit.endpoint.direction() {
            Direction::In => &mut endpoint.bytes_in,
            Direction::Out => &mut endpoint.bytes_out,
        };
        *bytes += u64::from(outcome.actual_length);
        if outcome.status != Status::OK {
            let counted = COUNTED.contains(&outcome.status).then_some(outcome.status.0);
            *self.errors.entry((address.index(), counted)).or_default() += 1;
        }
    }

    fn check_endpoint(&self, address: EndpointAddress, stats: &EndpointStats) {
        let Endpoint { urbs, bytes_in, bytes_out, packet_errors, in_flight, most_in_flight } =
            self.endpoints[address.index()];
        let expected = EndpointStats {
            urbs,
            bytes_in,
            bytes_out,
            in_flight,
            most_in_flight,
            packet_errors,
            errors: stats.errors,
        };
        assert_eq!(*stats, expected, "{address}");
        self.check_errors(address, &stats.errors);
    }

    fn check_errors(&self, address: EndpointAddress, errors: &Errors) {
        let of_endpoint = (address.index(), None)..=(address.index(), Some(i32::MAX));
        let expected: BTreeMap<_, _> = self.errors.range(of_endpoint).collect();
        let told = errors.by_status().map(|(status, count)| (status.map(|status| status.0), count));
        let told: Vec<_> = told.map(|(status, count)| ((address.index(), status), count)).collect();
        let told: BTreeMap<_, _> = told.iter().map(|(place, count)| (place, count)).collect();
        assert_eq!(told, expected, "errors of {address}");
    }
}

/// The first URB of an endpoint is timed, though `may_vanish` before its end counts, and no URB is
/// timed twice.
fn check_turnaround(work: &EndpointWork, may_vanish: bool) {
    let EndpointWork { counters, turnaround, .. } = work;
    let buckets = turnaround.buckets.iter().map(|bucket| bucket.count).sum::<u64>();
    assert_eq!(buckets, turnaround.timed, "URBs in buckets");
    assert!(turnaround.timed <= counters.urbs, "{work:?}");
    let has_ended = counters.in_flight == 0 && counters.urbs > 0;
    assert!(turnaround.timed > 0 || !has_ended || may_vanish, "{work:?}");
}

impl World {
    /// Compares the session's counters with the account.
    pub(super) fn check_stats(&mut self) {
        let stats = self.session.stats();
        let used = self.account.endpoints.iter().filter(|endpoint| endpoint.most_in_flight > 0);
        assert_eq!(stats.endpoints.len(), used.count(), "endpoints that had a URB");
        // A URB that was cancelled with another goes again, and none counts when the client has
        // left.
        let may_vanish = self.session.slots.cancels_pipe || self.over;
        for work in &stats.endpoints {
            self.account.check_endpoint(work.address, &work.counters);
            check_turnaround(work, may_vanish);
        }
        let slots = [stats.slots.now, stats.slots.most, stats.slots.room];
        let Account { in_flight, most_in_flight, .. } = self.account;
        assert_eq!(slots, [in_flight, most_in_flight, self.scale.slots as u64], "slots");
        self.check_buffers();
        let delivered = self.client.unlinks_got();
        let all_parsed = !self.session.is_parsing_paused() && !self.over;
        assert!(stats.unlinks == delivered || !all_parsed && stats.unlinks <= delivered);
    }

    /// Compares the bytes in use with the buffers of all records and transfers.
    fn check_buffers(&mut self) {
        let gauge = self.session.stats().buffers;
        self.account.most_buffers = self.account.most_buffers.max(gauge.now);
        assert!(gauge.most >= self.account.most_buffers, "more were in use: {gauge:?}");
        assert!(gauge.most <= gauge.room, "{gauge:?}");
        if self.client.urbs.len() > RECORDS_MAX || self.session.rx.has_unparsed() {
            return;
        }
        let session = &self.session;
        let transfers = session.slots.transfers.iter().filter_map(|t| t.block.as_ref());
        let mut sum: usize = transfers.map(|block| block.len()).sum();
        let mut next = 0;
        while let Some(urb) = session.urbs.next_used(next) {
            next = urb + 1;
            sum += session.urbs.get(urb).block.as_ref().map_or(0, |block| block.len());
        }
        assert_eq!(gauge.now, sum as u64, "bytes of buffers in use");
    }
}
