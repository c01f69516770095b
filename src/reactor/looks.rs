//! When devices must be looked at even without an event, and which session has the reactor alone.
//!
//! Nobody asks all devices for their deadlines. What a turn does with a device says when the device
//! must be looked at next, and the instant is noted if none as early is noted. An instant may be
//! noted too early, when the deadline has moved on since: then the device is asked, and its
//! deadline noted anew. So a turn costs the same beside any number of idle devices. What moves a
//! deadline without a turn of the device is an alarm ([`Port::alarms`](crate::usb::Port::alarms)).
//!
//! Contract: plain state of the reactor; the lists have room for every attached device.

use std::time::{Duration, Instant};

use super::token::Key;

/// A session that alone was served for this long has the reactor to itself. The other clients leave
/// their devices idle, or have them wait for a person: the first URB afterwards comes late by
/// a long turn at most.
const ALONE_AFTER: Duration = Duration::from_millis(100);

/// The noted instants, of a device one at most.
#[derive(Default)]
pub(super) struct Looks {
    /// The earliest is the last.
    noted: Vec<(Instant, Key)>,
    /// The alarms that were heard.
    alarms: u32,
}

impl Looks {
    /// Makes room for as many devices.
    pub(super) fn provide(&mut self, devices: usize) {
        self.noted.reserve(devices.saturating_sub(self.noted.len()));
    }

    /// Notes the instant at which to look at a device, instead of any other.
    pub(super) fn note(&mut self, key: Key, at: Instant) {
        self.forget(key);
        let place = self.noted.partition_point(|&(noted, _)| noted > at);
        self.noted.insert(place, (at, key));
    }

    /// Forgets a device.
    pub(super) fn forget(&mut self, key: Key) {
        self.noted.retain(|&(_, noted)| noted != key);
    }

    /// The earliest instant.
    pub(super) fn next(&self) -> Option<Instant> {
        self.noted.last().map(|&(at, _)| at)
    }

    /// A device to look at by now. Its instant is forgotten.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Key> {
        self.noted.pop_if(|(at, _)| *at <= now).map(|(_, key)| key)
    }

    /// Whether there were other alarms than those heard.
    pub(super) const fn has_alarm(&self, alarms: u32) -> bool {
        self.alarms != alarms
    }

    /// Hears all alarms up to now; whether there was another.
    pub(super) const fn hear(&mut self, alarms: u32) -> bool {
        std::mem::replace(&mut self.alarms, alarms) != alarms
    }
}

/// The session served last, and since when no other session was served.
#[derive(Default)]
pub(super) struct Sole(Option<(Key, Instant)>);

impl Sole {
    /// Notes that a session is served.
    #[inline]
    pub(super) fn note_served(&mut self, key: Key, now: Instant) {
        if self.0.is_none_or(|(sole, _)| sole != key) {
            self.0 = Some((key, now));
        }
    }

    /// The session served last, if no other was served for a while.
    #[inline]
    pub(super) fn alone(&self, now: Instant) -> Option<Key> {
        self.0.filter(|&(_, since)| now >= since + ALONE_AFTER).map(|(key, _)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn key(index: u32) -> Key {
        Key { index, generation: 0 }
    }

    #[test]
    fn devices_are_due_in_the_order_of_their_last_noted_instants() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut looks = Looks::default();
        looks.provide(4);
        let room = looks.noted.capacity();
        for (index, millis) in [(1, 30), (2, 20), (3, 10), (1, 5), (4, 20), (3, 40)] {
            looks.note(key(index), at(millis));
        }
        assert_eq!((looks.noted.len(), looks.noted.capacity()), (4, room), "one for each device");
        assert_eq!((looks.next(), looks.take_due(at(4))), (Some(at(5)), None));
        looks.forget(key(4));
        let due: Vec<Key> = std::iter::from_fn(|| looks.take_due(at(40))).collect();
        assert_eq!(due, [key(1), key(2), key(3)]);
        assert_eq!(looks.next(), None);
    }

    #[test]
    fn an_alarm_is_heard_once() {
        let mut looks = Looks::default();
        assert!(!looks.has_alarm(0) && looks.has_alarm(1));
        assert!(looks.hear(1) && !looks.hear(1) && looks.hear(0), "also where the number wraps");
    }

    #[test]
    fn a_session_is_alone_when_no_other_was_served_for_a_while() {
        let now = Instant::now();
        let mut sole = Sole::default();
        assert_eq!(sole.alone(now), None, "none was served");
        sole.note_served(key(1), now);
        sole.note_served(key(1), now + ALONE_AFTER);
        assert_eq!(sole.alone(now + ALONE_AFTER / 2), None);
        assert_eq!(sole.alone(now + ALONE_AFTER), Some(key(1)));
        sole.note_served(key(2), now + ALONE_AFTER);
        assert_eq!(sole.alone(now + ALONE_AFTER), None);
        sole.note_served(key(1), now + ALONE_AFTER);
        assert_eq!(sole.alone(now + ALONE_AFTER), None, "the other was served meanwhile");
    }
}
