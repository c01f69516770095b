//! The endpoints of a session's device: the types in the settings in force, and the URBs waiting or
//! in flight for each.
//!
//! Contract: plain state; allocates for a configuration with new endpoints and for copies only;
//! nothing blocks, nothing panics.

use std::time::Instant;

use super::urb::{NO_URB, UrbIndex, UrbTable};
use crate::stats::turnaround::Stopwatch;
use crate::stats::{EndpointStats, EndpointWork};
use crate::usb::{Configuration, Endpoint};
use crate::wire::status::Status;
use crate::wire::types::{Direction, EndpointAddress, TransferType};

/// The default control endpoint, as a set of endpoints. URBs of both directions go by its OUT
/// address.
pub(super) const DEFAULT_CONTROL: u32 = EndpointAddress::new(0, Direction::Out).bit();

/// One endpoint.
#[derive(Debug)]
pub(crate) struct EndpointState {
    /// The type; `None` for an endpoint outside the settings in force.
    pub(crate) transfer_type: Option<TransferType>,
    /// The answer to all URBs, when the interface could not be claimed.
    pub(crate) refused: Option<Status>,
    /// See [`Endpoint::isochronous_interval`].
    pub(crate) interval: u16,
    /// URBs the device has.
    pub(crate) in_flight: u32,
    /// Since when only memory keeps the first waiting URB from a device with no other URB of the
    /// endpoint.
    pub(crate) starving_since: Option<Instant>,
    first_waiting: UrbIndex,
    last_waiting: UrbIndex,
    /// The counters, but for [`EndpointStats::in_flight`].
    pub(crate) stats: EndpointStats,
    pub(crate) stopwatch: Stopwatch,
}

impl EndpointState {
    const NONE: Self = Self {
        transfer_type: None,
        refused: None,
        interval: 0,
        in_flight: 0,
        starving_since: None,
        first_waiting: NO_URB,
        last_waiting: NO_URB,
        stats: EndpointStats::NONE,
        stopwatch: Stopwatch::NEW,
    };

    fn work(&self, address: EndpointAddress) -> EndpointWork {
        EndpointWork {
            address,
            transfer_type: self.transfer_type,
            counters: EndpointStats { in_flight: self.in_flight, ..self.stats },
            turnaround: self.stopwatch.turnaround(),
        }
    }

    /// The URB waiting longest.
    pub(crate) fn first_waiting(&self) -> Option<UrbIndex> {
        (self.first_waiting != NO_URB).then_some(self.first_waiting)
    }
}

/// All endpoints, by address.
pub(crate) struct Endpoints {
    states: [EndpointState; EndpointAddress::COUNT],
    /// Endpoints on which a URB waits, a bit each.
    waiting: u32,
    /// The configuration in force.
    configuration: Option<Configuration>,
    /// The log was told of a client's driver with another interval than the host's.
    pub(super) is_interval_warned: bool,
}

impl Endpoints {
    pub(crate) fn new(configuration: Option<Configuration>) -> Self {
        let mut endpoints = Self {
            states: [EndpointState::NONE; EndpointAddress::COUNT],
            waiting: 0,
            configuration: None,
            is_interval_warned: false,
        };
        endpoints.configure(configuration);
        endpoints
    }

    /// Takes over the settings in force. URBs waiting or in flight stay as they are.
    pub(crate) fn configure(&mut self, configuration: Option<Configuration>) {
        self.configuration = configuration;
        self.provide_stopwatches();
        for state in &mut self.states {
            (state.transfer_type, state.refused, state.interval) = (None, None, 0);
        }
        for direction in [Direction::Out, Direction::In] {
            let default = EndpointAddress::new(0, direction);
            self.states[default.index()].transfer_type = Some(TransferType::Control);
        }
        for interface in self.configuration.iter().flat_map(|c| &c.interfaces) {
            for endpoint in interface.alternate().iter().flat_map(|a| &a.endpoints) {
                let state = &mut self.states[endpoint.address.index()];
                (state.transfer_type, state.refused) =
                    (Some(endpoint.transfer_type), interface.refused);
                state.interval = endpoint.isochronous_interval();
                // A control endpoint has the same number for both directions.
                if endpoint.transfer_type == TransferType::Control {
                    let other = &mut self.states[endpoint.address.index() ^ 0x10];
                    (other.transfer_type, other.refused) =
                        (Some(TransferType::Control), interface.refused);
                }
            }
        }
    }

    /// Provides for the turnarounds of all endpoints of the configuration, in any setting: not when
    /// a URB comes.
    fn provide_stopwatches(&mut self) {
        let interfaces = self.configuration.iter().flat_map(|c| &c.interfaces);
        let endpoints = interfaces.flat_map(|i| &i.alternates).flat_map(|a| &a.endpoints);
        let all = endpoints.fold(DEFAULT_CONTROL, |set, endpoint| set | bit_of(endpoint));
        let states = self.states.iter_mut().enumerate();
        let known = states.filter(|(index, _)| all & (1 << index) != 0);
        known.for_each(|(_, state)| state.stopwatch.provide());
    }

    /// bConfigurationValue of the configuration in force.
    pub(crate) fn configuration_value(&self) -> Option<u8> {
        self.configuration.as_ref().map(|configuration| configuration.value)
    }

    /// The endpoints of interface `number` in the setting in force, a bit each.
    pub(crate) fn of_interface(&self, number: u8) -> u32 {
        let configuration = self.configuration.as_ref();
        let interface = configuration.and_then(|configuration| configuration.interface(number));
        let alternate = interface.and_then(|interface| interface.alternate());
        let endpoints = alternate.iter().flat_map(|alternate| &alternate.endpoints);
        endpoints.fold(0, |set, endpoint| set | bit_of(endpoint))
    }

    /// A copy of the work of endpoints with at least a URB.
    pub(crate) fn work(&self) -> Vec<EndpointWork> {
        let both = [Direction::Out, Direction::In];
        let all = both.into_iter().flat_map(|direction| {
            (0..16).map(move |number| EndpointAddress::new(number, direction))
        });
        let used = all.filter(|&address| self.get(address).stats.most_in_flight > 0);
        used.map(|address| self.get(address).work(address)).collect()
    }

    pub(crate) fn get(&self, address: EndpointAddress) -> &EndpointState {
        &self.states[address.index()]
    }

    pub(crate) fn get_mut(&mut self, address: EndpointAddress) -> &mut EndpointState {
        &mut self.states[address.index()]
    }

    /// Whether the device has URBs of any endpoint in the set.
    pub(crate) fn any_in_flight(&self, set: u32) -> bool {
        let in_flight = |(index, state): (usize, &EndpointState)| {
            set & (1 << index) != 0 && state.in_flight > 0
        };
        self.states.iter().enumerate().any(in_flight)
    }

    /// Endpoints on which a URB waits, a bit each.
    pub(crate) const fn waiting(&self) -> u32 {
        self.waiting
    }

    /// The endpoint of a bit's index.
    pub(crate) const fn at(&self, index: usize) -> &EndpointState {
        &self.states[index]
    }

    /// Queues a URB on its endpoint.
    pub(crate) fn push_waiting(&mut self, urbs: &mut UrbTable, urb: UrbIndex) {
        let address = urbs.get(urb).submit.endpoint;
        let state = &mut self.states[address.index()];
        let record = urbs.get_mut(urb);
        (record.previous, record.next) = (state.last_waiting, NO_URB);
        match state.last_waiting {
            NO_URB => state.first_waiting = urb,
            last => urbs.get_mut(last).next = urb,
        }
        state.last_waiting = urb;
        self.waiting |= address.bit();
    }

    /// Takes a URB out of its endpoint's queue, at any place.
    pub(crate) fn remove_waiting(&mut self, urbs: &mut UrbTable, urb: UrbIndex) {
        let record = urbs.get(urb);
        let (address, previous, next) = (record.submit.endpoint, record.previous, record.next);
        let state = &mut self.states[address.index()];
        match previous {
            NO_URB => state.first_waiting = next,
            previous => urbs.get_mut(previous).next = next,
        }
        match next {
            NO_URB => state.last_waiting = previous,
            next => urbs.get_mut(next).previous = previous,
        }
        if state.first_waiting == NO_URB {
            state.starving_since = None;
            self.waiting &= !address.bit();
        }
    }

    /// Forgets the first URB in the queue of the endpoint of a bit's index; `next` came behind.
    pub(crate) fn forget_first(&mut self, urbs: &mut UrbTable, index: usize, next: UrbIndex) {
        let state = &mut self.states[index];
        state.first_waiting = next;
        if next == NO_URB {
            (state.last_waiting, state.starving_since) = (NO_URB, None);
            self.waiting &= !(1 << index);
        } else {
            urbs.get_mut(next).previous = NO_URB;
        }
    }
}

/// The bit by which URBs to an endpoint go. A descriptor names one direction of a control endpoint,
/// URBs of both directions go by the OUT address.
const fn bit_of(endpoint: &Endpoint) -> u32 {
    match endpoint.transfer_type {
        TransferType::Control => {
            EndpointAddress::new(endpoint.address.number(), Direction::Out).bit()
        }
        _ => endpoint.address.bit(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usb::descriptor::{Host, parse_configuration};
    use crate::wire::pdu::CmdSubmit;
    use crate::wire::types::{DevId, SeqNum, Speed};

    const BULK_IN: EndpointAddress = EndpointAddress::new(1, Direction::In);

    fn waiting(count: u32) -> (Endpoints, UrbTable, Vec<UrbIndex>) {
        let (mut endpoints, mut urbs) = (Endpoints::new(None), UrbTable::new(8, 0).unwrap());
        let submit = |seqnum| CmdSubmit {
            seqnum: SeqNum(seqnum),
            devid: DevId(0),
            endpoint: BULK_IN,
            transfer_flags: 0,
            transfer_buffer_length: 0,
            start_frame: 0,
            number_of_packets: 0,
            interval: 0,
            setup: [0; 8],
        };
        let indexes: Vec<UrbIndex> = (0..count).map(|n| urbs.insert(submit(n), 0)).collect();
        for &urb in &indexes {
            endpoints.push_waiting(&mut urbs, urb);
        }
        (endpoints, urbs, indexes)
    }

    fn drain(endpoints: &mut Endpoints, urbs: &mut UrbTable) -> Vec<UrbIndex> {
        let mut order = Vec::new();
        while let Some(urb) = endpoints.get(BULK_IN).first_waiting() {
            endpoints.remove_waiting(urbs, urb);
            order.push(urb);
        }
        order
    }

    #[test]
    fn a_queue_keeps_its_order() {
        let (mut endpoints, mut urbs, indexes) = waiting(4);
        assert_eq!(endpoints.waiting(), BULK_IN.bit());
        assert_eq!(drain(&mut endpoints, &mut urbs), indexes);
        assert_eq!(endpoints.waiting(), 0);
    }

    #[test]
    fn first_middle_and_last_can_leave_a_queue() {
        for leaves in 0..4 {
            let (mut endpoints, mut urbs, mut indexes) = waiting(4);
            endpoints.remove_waiting(&mut urbs, indexes[leaves]);
            endpoints.push_waiting(&mut urbs, indexes[leaves]);
            let moved = indexes.remove(leaves);
            indexes.push(moved);
            assert_eq!(drain(&mut endpoints, &mut urbs), indexes);
        }
    }

    #[test]
    fn an_endpoint_without_urbs_is_left_out_of_the_counters() {
        let mut endpoints = Endpoints::new(None);
        let state = endpoints.get_mut(BULK_IN);
        state.stats.note_submitted(3);
        state.stats.note_submitted(2);
        state.in_flight = 1;
        let expected = EndpointStats { in_flight: 1, most_in_flight: 3, ..Default::default() };
        let [work] = &endpoints.work()[..] else { panic!("an endpoint") };
        assert_eq!((work.address, work.counters), (BULK_IN, expected));
    }

    #[test]
    fn the_default_endpoint_is_always_there_and_others_follow_the_setting() {
        let bytes = [
            9, 2, 34, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 0, 255, 0, 0, 0, 9, 4, 0, 1, 1, 255, 0, 0,
            0, 7, 5, 0x81, 2, 0, 2, 0,
        ];
        let mut configuration = parse_configuration(&bytes, Host::at(Speed::High)).unwrap();
        let mut endpoints = Endpoints::new(Some(configuration.clone()));
        let default = EndpointAddress::new(0, Direction::Out);
        assert_eq!(endpoints.get(default).transfer_type, Some(TransferType::Control));
        assert_eq!(endpoints.get(BULK_IN).transfer_type, None);
        assert_eq!(endpoints.of_interface(0), 0);
        configuration.interfaces[0].current = 1;
        configuration.interfaces[0].alternates[1].endpoints[0].transfer_type =
            TransferType::Control;
        endpoints.configure(Some(configuration.clone()));
        assert_eq!(endpoints.of_interface(0), 1 << 1, "its OUT address");
        configuration.interfaces[0].alternates[1].endpoints[0].transfer_type = TransferType::Bulk;
        configuration.interfaces[0].refused = Some(Status::EBUSY);
        endpoints.configure(Some(configuration));
        assert_eq!(endpoints.get(BULK_IN).transfer_type, Some(TransferType::Bulk));
        assert_eq!(endpoints.get(BULK_IN).refused, Some(Status::EBUSY));
        assert_eq!(endpoints.of_interface(0), BULK_IN.bit());
        endpoints.configure(None);
        assert_eq!(endpoints.get(BULK_IN).transfer_type, None);
        assert_eq!(endpoints.get(default).transfer_type, Some(TransferType::Control));
    }
}
