//! Devices that have left a moment ago and may be back in another state: a device that restarts
//! into its bootloader leaves its port, and a moment later another kind of device is there.
//!
//! Only a device whose rule names it and lists several kinds is expected back. The name follows the
//! port: a device of a listed kind that arrives there in time keeps the rule of the device that
//! left, even where a bootloader has another serial number. A client that asks for the name
//! meanwhile waits.
//!
//! Contract: plain data, of at most [`DEPARTURES_MAX`] devices; time is an argument.

use std::net::IpAddr;
use std::time::Instant;

use crate::config::name::Nickname;
use crate::config::rules::Verdict;
use crate::limits::{DEPARTURES_MAX, RETURN_TIMEOUT};
use crate::wire::types::BusId;

/// The devices expected back, in the order in which they left.
#[derive(Default)]
pub(super) struct Departures(Vec<Departure>);

/// A device expected back.
struct Departure {
    busid: BusId,
    name: Nickname,
    verdict: Verdict,
    since: Instant,
}

impl Departures {
    /// Notes that the device of a verdict has left its port. Without place for one more, the device
    /// that has left first is expected no more.
    pub(super) fn note(&mut self, busid: BusId, verdict: Verdict, now: Instant) {
        self.forget_late(now);
        self.0.retain(|departure| departure.busid != busid);
        let Some(name) = verdict.name_in_states() else { return };
        if self.0.len() == DEPARTURES_MAX {
            self.0.remove(0);
        }
        self.0.push(Departure { busid, name, verdict, since: now });
    }

    /// Notes that a device has arrived in a port. Returns the name of the device that has left the
    /// port a moment ago.
    pub(super) fn end(&mut self, busid: BusId, now: Instant) -> Option<Nickname> {
        self.forget_late(now);
        let place = self.0.iter().position(|departure| departure.busid == busid)?;
        Some(self.0.remove(place).name)
    }

    /// Whether a device with a name, exported to clients at an address, is expected back.
    pub(super) fn expects(&self, name: Nickname, address: IpAddr, now: Instant) -> bool {
        let is_expected = |departure: &Departure| {
            departure.name == name
                && departure.is_expected(now)
                && departure.verdict.admits(address)
        };
        self.0.iter().any(is_expected)
    }

    /// Expects nothing any more.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn forget_late(&mut self, now: Instant) {
        self.0.retain(|departure| departure.is_expected(now));
    }
}

impl Departure {
    fn is_expected(&self, now: Instant) -> bool {
        now < self.since + RETURN_TIMEOUT
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::config::Policy;
    use crate::config::rules::{Clients, Origin, Rule, Rules};
    use crate::usb::sim::SimBackend;
    use crate::usb::sim::bus::SimBus;
    use crate::usb::sim::spec::Spec;
    use crate::usb::{Backend, Candidate};

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// The verdict on a simulated loopback device by a rule for these kinds.
    fn verdict(kinds: &str, clients: Option<Clients>) -> Verdict {
        let bus = SimBus::with(&Spec::parse_list("loopback").unwrap());
        let found = SimBackend::new(bus).scan().unwrap().devices;
        let rule = Rule::exporting(kinds.parse().unwrap(), Origin::Flag("--device".to_owned()));
        let rule = Rule { name: "board".parse().ok(), clients, ..rule };
        Rules::new([rule]).judge(found[0].info(), Policy::default())
    }

    fn busid(text: &str) -> BusId {
        BusId::new(text).unwrap()
    }

    #[test]
    fn a_device_with_several_states_is_expected_for_a_while() {
        let (name, start) = ("board".parse().unwrap(), Instant::now());
        let mut departures = Departures::default();
        departures.note(busid("1-1"), verdict("1209:0001,1209:0002", None), start);
        let last = start + RETURN_TIMEOUT - Duration::from_nanos(1);
        assert!(departures.expects(name, HERE, last));
        assert!(!departures.expects("other".parse().unwrap(), HERE, start));
        assert!(!departures.expects(name, HERE, start + RETURN_TIMEOUT));
        assert_eq!(departures.end(busid("1-2"), last), None);
        assert_eq!(departures.end(busid("1-1"), last), Some(name));
        assert_eq!(departures.end(busid("1-1"), last), None, "it is back");
        departures.note(busid("1-1"), verdict("1209:0001,1209:0002", None), start);
        assert_eq!(departures.end(busid("1-1"), start + RETURN_TIMEOUT), None);
    }

    #[test]
    fn a_device_with_one_state_or_for_others_is_not_expected() {
        let (name, now) = ("board".parse().unwrap(), Instant::now());
        let mut departures = Departures::default();
        departures.note(busid("1-1"), verdict("1209:0001", None), now);
        assert!(!departures.expects(name, HERE, now));
        let others = Clients(vec!["10.0.0.0/8".parse().unwrap()]);
        departures.note(busid("1-1"), verdict("1209:0001,1209:0002", Some(others)), now);
        assert!(!departures.expects(name, HERE, now));
        assert!(departures.expects(name, "10.1.2.3".parse().unwrap(), now));
    }

    #[test]
    fn of_too_many_the_first_is_forgotten() {
        let now = Instant::now();
        let mut departures = Departures::default();
        let states = verdict("1209:0001,1209:0002", None);
        for port in 0..=DEPARTURES_MAX {
            departures.note(busid(&format!("1-{port}")), states.clone(), now);
        }
        assert_eq!(departures.0.len(), DEPARTURES_MAX);
        assert_eq!(departures.end(busid("1-0"), now), None);
        assert!(departures.end(busid("1-1"), now).is_some());
    }
}
