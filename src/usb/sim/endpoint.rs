//! The host controller's side of a simulated bus: the endpoints with their queues, and what tests
//! have arranged to go wrong on them. The same for all models.
//!
//! Contract: allocates in `new` only; nothing here panics on what a client sends, or blocks.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::transfer::{CancelToken, Urb};
use crate::usb::{Alternate, Configuration};
use crate::wire::status::Status;
use crate::wire::types::{Direction, EndpointAddress, TransferType};

/// What is to go wrong with one URB.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Plan {
    /// Nothing.
    #[default]
    None,
    /// It ends without an error after so many bytes.
    Short(usize),
    /// It ends with a stall after so many bytes.
    Stall(usize),
    /// It ends with a bus error after so many bytes.
    BusError(usize),
    /// The device sends more than there is room for.
    Babble,
    /// Isochronous packets are at most so long.
    PacketsShort(usize),
    /// One isochronous packet, by number, is lost.
    PacketLost(usize),
}

impl Plan {
    /// Bytes of `length` that are to be moved.
    pub(super) fn limit(self, length: usize) -> usize {
        match self {
            Self::Short(bytes) | Self::Stall(bytes) | Self::BusError(bytes) => length.min(bytes),
            _ => length,
        }
    }

    /// What the URB ends with once they were moved.
    pub(super) const fn status(self) -> Status {
        match self {
            Self::Stall(_) => Status::EPIPE,
            Self::BusError(_) => Status::EPROTO,
            Self::Babble => Status::EOVERFLOW,
            _ => Status::OK,
        }
    }
}

/// What a cancelled URB ends with instead of nothing: so many bytes, and a status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LateData {
    pub(super) bytes: usize,
    pub(super) status: Status,
}

/// An endpoint as the host controller has it.
pub(super) struct EndpointState {
    /// URBs that wait, in the order they were submitted.
    pub(super) queue: VecDeque<Box<Urb>>,
    pub(super) halted: bool,
    /// For the URB that is submitted next.
    pub(super) plan: Plan,
    /// For the URB that is cancelled next.
    pub(super) late_data: Option<LateData>,
    /// How long a packet or an interrupt takes; zero where the endpoint is not paced.
    pub(super) period: Duration,
    /// When the last URB that was submitted is through, where the endpoint is paced.
    clock: Option<Instant>,
    /// Bytes of a packet, to see where data ends with a full one.
    pub(super) packet_len: usize,
    transfer_type: TransferType,
}

impl EndpointState {
    fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            halted: false,
            plan: Plan::None,
            late_data: None,
            period: Duration::ZERO,
            clock: None,
            packet_len: 64,
            transfer_type: TransferType::Control,
        }
    }

    /// When a URB that is submitted now can end at the earliest. A paced endpoint takes up where
    /// the URB before ends, or now if it is idle.
    pub(super) fn schedule(&mut self, packets: usize, now: Instant) -> Instant {
        if self.period.is_zero() {
            return now;
        }
        let start = self.clock.map_or(now, |clock| clock.max(now));
        let periods = u32::try_from(packets.max(1)).unwrap_or(u32::MAX);
        let end = start + self.period * periods;
        self.clock = Some(end);
        end
    }

    /// Takes a waiting URB out.
    pub(super) fn remove(&mut self, token: &CancelToken) -> Option<Box<Urb>> {
        let position = self.queue.iter().position(|urb| urb.token == *token)?;
        self.queue.remove(position)
    }

    /// Forgets halt, clock and plans, as a change of the interface does.
    pub(super) fn restart(&mut self) {
        self.halted = false;
        self.plan = Plan::None;
        self.late_data = None;
        self.clock = None;
    }
}

/// All endpoints of a device.
pub(super) struct Endpoints {
    states: [EndpointState; EndpointAddress::COUNT],
    /// Those of the alternate settings in force, as [`EndpointAddress::bit`]s, and the default one.
    active: u32,
}

/// Both directions of the default endpoint.
const DEFAULT_ENDPOINT: u32 =
    EndpointAddress::new(0, Direction::Out).bit() | EndpointAddress::new(0, Direction::In).bit();

impl Endpoints {
    /// Queues for `urbs` URBs for every endpoint that some setting of `configuration` has.
    pub(super) fn new(configuration: &Configuration, urbs: usize) -> Self {
        let mut endpoints = Self {
            states: std::array::from_fn(|_| EndpointState::new()),
            active: DEFAULT_ENDPOINT,
        };
        for index in bits(DEFAULT_ENDPOINT | addresses(settings(configuration))) {
            endpoints.states[index].queue.reserve_exact(urbs);
        }
        endpoints
    }

    pub(super) const fn is_active(&self, endpoint: EndpointAddress) -> bool {
        self.active & endpoint.bit() != 0
    }

    /// Makes the endpoints of the settings in force the active ones.
    pub(super) fn configure(&mut self, configuration: Option<&Configuration>) {
        self.active = DEFAULT_ENDPOINT;
        for alternate in configuration.into_iter().flat_map(current_settings) {
            self.active |= addresses([alternate]);
            for endpoint in &alternate.endpoints {
                let state = self.state(endpoint.address);
                state.packet_len = usize::from(endpoint.max_packet_size & 0x07ff).max(1);
                state.transfer_type = endpoint.transfer_type;
            }
        }
    }

    pub(super) fn state(&mut self, endpoint: EndpointAddress) -> &mut EndpointState {
        &mut self.states[queue_index(endpoint)]
    }

    pub(super) const fn by_index(&mut self, index: usize) -> &mut EndpointState {
        &mut self.states[index]
    }

    /// The endpoint at `index`, and the URB that is next there.
    pub(super) fn front(&self, index: usize) -> Option<(&EndpointState, &Urb)> {
        let state = &self.states[index];
        state.queue.front().map(|urb| (state, urb.as_ref()))
    }

    /// The endpoint that a request's wIndex names, unless it is the default one or not active.
    pub(super) fn named(&mut self, index: u16) -> Option<&mut EndpointState> {
        let [low, _] = index.to_le_bytes();
        let endpoint = EndpointAddress::from_byte(low);
        (endpoint.number() != 0 && self.is_active(endpoint)).then(|| self.state(endpoint))
    }

    /// The same, where it can be halted.
    pub(super) fn named_haltable(&mut self, index: u16) -> Option<&mut EndpointState> {
        self.named(index).filter(|state| state.transfer_type != TransferType::Isochronous)
    }
}

/// Where the URBs of an endpoint wait. Both directions of the default endpoint share one queue,
/// because a request is carried out after the one before, whichever way its data goes.
pub(super) const fn queue_index(endpoint: EndpointAddress) -> usize {
    if endpoint.number() == 0 { 0 } else { endpoint.index() }
}

/// Endpoints of alternate settings as [`EndpointAddress::bit`]s.
fn addresses<'a>(alternates: impl IntoIterator<Item = &'a Alternate>) -> u32 {
    let endpoints = alternates.into_iter().flat_map(|a| &a.endpoints);
    endpoints.fold(0, |bits, endpoint| bits | endpoint.address.bit())
}

/// The indexes of the bits that are set, lowest first.
pub(super) fn bits(mut set: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let index = set.checked_ilog2().map(|_| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(index)
    })
}

/// Every alternate setting.
fn settings(configuration: &Configuration) -> impl Iterator<Item = &Alternate> {
    configuration.interfaces.iter().flat_map(|i| &i.alternates)
}

/// The alternate settings in force.
fn current_settings(configuration: &Configuration) -> impl Iterator<Item = &Alternate> {
    configuration.interfaces.iter().filter_map(|i| i.alternate())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_in_order() {
        assert_eq!(bits(0).count(), 0);
        assert_eq!(bits(0x8000_0101).collect::<Vec<_>>(), [0, 8, 31]);
    }

    #[test]
    fn a_paced_endpoint_goes_on_where_it_was_and_starts_now_when_idle() {
        let mut state = EndpointState::new();
        let start = Instant::now();
        let ms = Duration::from_millis;
        assert_eq!(state.schedule(8, start), start, "not paced");
        state.period = ms(1);
        assert_eq!(state.schedule(8, start), start + ms(8));
        assert_eq!(state.schedule(8, start + ms(3)), start + ms(16));
        assert_eq!(state.schedule(1, start + ms(50)), start + ms(51));
        assert_eq!(state.schedule(0, start + ms(50)), start + ms(52));
    }

    #[test]
    fn plans_cut_and_end_a_urb() {
        assert_eq!(Plan::Short(100).limit(512), 100);
        assert_eq!(Plan::Stall(1024).limit(512), 512);
        assert_eq!(Plan::Babble.limit(512), 512);
        assert_eq!(Plan::Stall(0).status(), Status::EPIPE);
        assert_eq!(Plan::Short(0).status(), Status::OK);
    }
}
