//! How often each address connects: a flood from an address is cut before the server spends memory
//! or a place on the flood's clients.
//!
//! The first client of an address begins a second, in which clients are counted. Addresses beyond
//! [`ADDRESSES_MAX`] take the places of the addresses whose seconds began first; a flood from as
//! many addresses meets the other limits of the door.
//!
//! Contract: plain state of the reactor; time is an argument; the list keeps its memory.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::limits::ADDRESSES_MAX;

/// The time in which clients are counted.
const SECOND: Duration = Duration::from_secs(1);

/// The clients of the last second, by address.
#[derive(Default)]
pub(super) struct Rates(Vec<Count>);

/// The clients of an address in a second.
struct Count {
    address: IpAddr,
    since: Instant,
    clients: u32,
}

/// Whether one more client is accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rate {
    /// The client may come in.
    Within,
    /// The client is the first of its second that may not.
    JustAbove,
    /// As clients before in this second, the client may not.
    Above,
}

impl Rates {
    /// Notes a client of an address, of which `most` may come within a second.
    pub(super) fn note(&mut self, address: IpAddr, most: u32, now: Instant) -> Rate {
        let known = self.0.iter_mut().find(|count| count.address == address);
        let count = match known {
            Some(count) => count,
            None => self.add(address, now),
        };
        if now >= count.since + SECOND {
            *count = Count { address, since: now, clients: 0 };
        }
        count.clients = count.clients.saturating_add(1);
        match count.clients {
            clients if clients <= most => Rate::Within,
            clients if clients == most + 1 => Rate::JustAbove,
            _ => Rate::Above,
        }
    }

    /// Counts the clients of one more address.
    fn add(&mut self, address: IpAddr, now: Instant) -> &mut Count {
        let count = Count { address, since: now, clients: 0 };
        let place = if self.0.len() < ADDRESSES_MAX { None } else { self.oldest() };
        let place = place.unwrap_or(self.0.len());
        if place == self.0.len() {
            self.0.push(count);
        } else {
            self.0[place] = count;
        }
        &mut self.0[place]
    }

    /// The place of the address whose second began first.
    fn oldest(&self) -> Option<usize> {
        (0..self.0.len()).min_by_key(|&place| self.0[place].since)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: usize) -> IpAddr {
        Ipv4Addr::from_bits(u32::try_from(number).unwrap()).into()
    }

    #[test]
    fn an_address_above_its_rate_waits_for_the_next_second_and_others_do_not() {
        let start = Instant::now();
        let mut rates = Rates::default();
        let mut note = |number, after| rates.note(address(number), 3, start + after);
        for expected in [Rate::Within, Rate::Within, Rate::Within, Rate::JustAbove, Rate::Above] {
            assert_eq!(note(1, Duration::ZERO), expected);
        }
        assert_eq!(note(2, Duration::ZERO), Rate::Within);
        assert_eq!(note(1, SECOND - Duration::from_nanos(1)), Rate::Above);
        assert_eq!(note(1, SECOND), Rate::Within);
    }

    #[test]
    fn more_addresses_than_are_counted_replace_the_oldest() {
        let start = Instant::now();
        let mut rates = Rates::default();
        for number in 0..ADDRESSES_MAX {
            let after = Duration::from_micros(number.try_into().unwrap());
            assert_eq!(rates.note(address(number), 1, start + after), Rate::Within);
        }
        let later = start + SECOND / 2;
        assert_eq!(rates.note(address(1), 1, later), Rate::JustAbove, "all are known");
        assert_eq!(rates.note(address(ADDRESSES_MAX), 1, later), Rate::Within);
        assert_eq!(rates.0.len(), ADDRESSES_MAX);
        assert_eq!(rates.note(address(0), 1, later), Rate::Within, "the oldest was forgotten");
    }
}
