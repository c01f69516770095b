//! When a client may take a device from another client, the holder.
//!
//! A client whose machine crashed or whose network was cut holds its device until TCP gives up. A
//! client that comes back and asks again need not wait until then.
//!
//! Contract: pure decisions; TCP's knowledge comes in as [`PeerSigns`].

use std::net::IpAddr;
use std::str::FromStr;

use usbferry_sys::os::tcp::PeerSigns;

use super::ValueError;
use crate::limits::{STALE_AFTER, STALE_REPEATS};

/// When an import ends the session of the holder.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TakeOver {
    /// Never: the new client is told that the device is busy.
    Never,
    /// If both clients have the same address, and the holder's connection looks dead. Over `ssh -R`
    /// every client has the address 127.0.0.1, and every connection looks alive as long as the
    /// tunnel does.
    #[default]
    Stale,
    /// If both clients have the same address. Over `ssh -R` all clients have the same address.
    SameHost,
    /// Always: the last client to ask has the device.
    Any,
}

impl TakeOver {
    /// All policies, the most careful first.
    pub const ALL: [Self; 4] = [Self::Never, Self::Stale, Self::SameHost, Self::Any];

    /// The name as typed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Stale => "stale",
            Self::SameHost => "same-host",
            Self::Any => "any",
        }
    }

    /// Whether a client at `asker` gets the device of the client at `holder`. `signs` is called
    /// only where TCP's knowledge matters.
    pub(crate) fn permits(
        self,
        holder: IpAddr,
        asker: IpAddr,
        signs: impl FnOnce() -> Option<PeerSigns>,
    ) -> bool {
        let same_host = holder.to_canonical() == asker.to_canonical();
        match self {
            Self::Never => false,
            Self::Stale => same_host && signs().is_some_and(is_stale),
            Self::SameHost => same_host,
            Self::Any => true,
        }
    }
}

impl FromStr for TakeOver {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Self::ALL.into_iter().find(|policy| policy.name() == text).ok_or(ValueError::TakeOver)
    }
}

/// Whether a connection looks dead: probes without an answer, or repeated data without an
/// acknowledgement. Silence alone says nothing, since a client may have been idle before.
fn is_stale(signs: PeerSigns) -> bool {
    signs.unanswered_probes >= STALE_REPEATS
        || signs.retransmitted >= STALE_REPEATS && signs.silent_for > STALE_AFTER
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn permits(policy: TakeOver, asker: &str, signs: PeerSigns) -> bool {
        let holder = "192.168.1.5".parse().unwrap();
        policy.permits(holder, asker.parse().unwrap(), || Some(signs))
    }

    const ALIVE: PeerSigns =
        PeerSigns { unanswered_probes: 0, retransmitted: 0, silent_for: Duration::from_secs(600) };

    #[test]
    fn stale_needs_the_same_host_and_a_dead_connection() {
        let being_probed = PeerSigns { unanswered_probes: 1, ..ALIVE };
        let probed = PeerSigns { unanswered_probes: 2, ..ALIVE };
        let unacknowledged = PeerSigns { retransmitted: 2, ..ALIVE };
        let lost_once = PeerSigns { retransmitted: 1, ..ALIVE };
        let on_its_way =
            PeerSigns { retransmitted: 2, silent_for: Duration::from_millis(900), ..ALIVE };
        for (signs, expected) in [
            (ALIVE, false),
            (being_probed, false),
            (probed, true),
            (unacknowledged, true),
            (lost_once, false),
            (on_its_way, false),
        ] {
            assert_eq!(permits(TakeOver::Stale, "192.168.1.5", signs), expected, "{signs:?}");
            assert_eq!(permits(TakeOver::Stale, "::ffff:192.168.1.5", signs), expected);
            assert!(!permits(TakeOver::Stale, "192.168.1.6", signs));
        }
    }

    #[test]
    fn other_policies_ignore_signs_of_death() {
        let policies = [TakeOver::Never, TakeOver::SameHost, TakeOver::Any];
        let same = policies.map(|policy| permits(policy, "192.168.1.5", ALIVE));
        let other = policies.map(|policy| permits(policy, "192.168.1.6", ALIVE));
        assert_eq!(same, [false, true, true]);
        assert_eq!(other, [false, false, true]);
    }

    #[test]
    fn a_system_that_can_not_tell_leaves_the_holder_alone() {
        let address = "::1".parse().unwrap();
        assert!(!TakeOver::Stale.permits(address, address, || None));
    }
}
