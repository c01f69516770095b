//! The host controller's side of a simulated bus: the endpoints with their queues, and the faults
//! arranged by tests. The same for all models.
//!
//! Contract: allocates in `new` only; nothing panics on a client's input, or blocks.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::transfer::{CancelToken, Urb};
use crate::usb::{Alternate, Configuration};
use crate::wire::status::Status;
use crate::wire::types::{Direction, EndpointAddress, TransferType};

/// The planned fault of a single URB.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Plan {
    /// Nothing.
    #[default]
    None,
    /// The URB ends without an error after the given number of bytes.
    Short(usize),
    /// The URB ends with a stall after the given number of bytes.
    Stall(usize),
    /// The URB ends with a bus error after the given number of bytes.
    BusError(usize),
    /// The device sends more than there is room for.
    Babble,
    /// Isochronous packets have at most the given number of bytes.
    PacketsShort(usize),
    /// The isochronous packet with the given number is lost.
    PacketLost(usize),
}

impl Plan {
    /// Bytes of `length` to move.
    pub(super) fn limit(self, length: usize) -> usize {
        match self {
            Self::Short(bytes) | Self::Stall(bytes) | Self::BusError(bytes) => length.min(bytes),
            _ => length,
        }
    }

    /// The URB's status after the bytes.
    pub(super) const fn status(self) -> Status {
        match self {
            Self::Stall(_) => Status::EPIPE,
            Self::BusError(_) => Status::EPROTO,
            Self::Babble => Status::EOVERFLOW,
            _ => Status::OK,
        }
    }
}

/// The data and status of a cancelled URB, instead of no data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LateData {
    pub(super) bytes: usize,
    pub(super) status: Status,
}

/// An endpoint in the host controller.
pub(super) struct EndpointState {
    /// Waiting URBs, in the order of submission.
    pub(super) queue: VecDeque<Box<Urb>>,
    pub(super) halted: bool,
    /// For the next submitted URB.
    pub(super) plan: Plan,
    /// For the next cancelled URB.
    pub(super) late_data: Option<LateData>,
    /// How long a packet or an interrupt takes; zero where the endpoint is not paced.
    pub(super) period: Duration,
    /// The end of the last submitted URB, on a paced endpoint.
    clock: Option<Instant>,
    /// Bytes of a packet, for the check whether data ends with a full packet.
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

    /// The earliest end of a URB submitted at `now`. A paced endpoint continues at the end of the
    /// previous URB, or at `now` if idle.
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
    /// The endpoints of the alternate settings in force, as [`EndpointAddress::bit`]s, and the
    /// default endpoint.
    active: u32,
}

/// Both directions of the default endpoint.
const DEFAULT_ENDPOINT: u32 =
    EndpointAddress::new(0, Direction::Out).bit() | EndpointAddress::new(0, Direction::In).bit();

impl Endpoints {
    /// Queues for `urbs` URBs on every endpoint of any setting of `configuration`.
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

    /// Activates the endpoints of the settings in force.
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

    /// The endpoint at `index`, and its next URB.
    pub(super) fn front(&self, index: usize) -> Option<(&EndpointState, &Urb)> {
        let state = &self.states[index];
        state.queue.front().map(|urb| (state, urb.as_ref()))
    }

    /// The endpoint of a request's wIndex, unless inactive or the default endpoint.
    pub(super) fn named(&mut self, index: u16) -> Option<&mut EndpointState> {
        let [low, _] = index.to_le_bytes();
        let endpoint = EndpointAddress::from_byte(low);
        (endpoint.number() != 0 && self.is_active(endpoint)).then(|| self.state(endpoint))
    }

    /// The same, if the endpoint can be halted.
    pub(super) fn named_haltable(&mut self, index: u16) -> Option<&mut EndpointState> {
        self.named(index).filter(|state| state.transfer_type != TransferType::Isochronous)
    }
}

/// The queue of an endpoint's URBs. Both directions of the default endpoint share a queue, because
/// control requests are carried out in order, regardless of their direction.
pub(super) const fn queue_index(endpoint: EndpointAddress) -> usize {
    if endpoint.number() == 0 { 0 } else { endpoint.index() }
}

/// Endpoints of alternate settings as [`EndpointAddress::bit`]s.
fn addresses<'a>(alternates: impl IntoIterator<Item = &'a Alternate>) -> u32 {
    let endpoints = alternates.into_iter().flat_map(|a| &a.endpoints);
    endpoints.fold(0, |bits, endpoint| bits | endpoint.address.bit())
}

/// The indexes of the set bits, lowest first.
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
    fn a_paced_endpoint_continues_or_starts_now_when_idle() {
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
