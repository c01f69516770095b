//! The subject of an event, as a number.
//!
//! A place in the slab of connections is used again and again, so a connection is named by its
//! place *and* its number among all connections ever made ([`Key`]). The reactor keeps keys in its
//! lists, and workers hand keys back; the numbers never wrap.
//!
//! A token has no room for a whole key: mio's token is a `usize`, 32 bits on many machines. The
//! token carries the place and the last bits of the number ([`Label`]), on every machine alike. A
//! label wraps after [`GENERATIONS`] connections, which does no harm: the system stops telling of a
//! descriptor when the reactor removes the descriptor, before the place is used again, and the
//! events of a wait are all marked before any connection is made. In between no place is used
//! again; the label's bits are for a system that would break its word.
//!
//! Contract: pure functions.

use mio::Token;

use crate::limits::{ATTACHED_MAX, CONNECTIONS_MAX};

/// Names a connection: its place in the slab, and how many connections were made before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Key {
    pub(super) index: u32,
    pub(super) generation: u64,
}

/// The part of a [`Key`] that fits a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Label {
    pub(super) index: u32,
    generation: u32,
}

/// The subject of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Subject {
    /// A listener, by its number.
    Listener(u32),
    /// A worker has put something into the inbox.
    Waker,
    /// Another thread, or a signal, stops the server.
    Stop,
    /// A client's socket.
    Client(Label),
    /// A client's device.
    Device(Label),
    /// Hints that a scan would find something new.
    Hints,
    /// The timer of deadlines.
    Alarm,
}

const KIND_BITS: u32 = 3;
const INDEX_BITS: u32 = 13;
const GENERATION_BITS: u32 = 32 - INDEX_BITS - KIND_BITS;

/// Connections after which a label comes again.
pub(super) const GENERATIONS: u32 = 1 << GENERATION_BITS;

/// Places in the slab at most: a client or a device has a place, or both have the same.
const PLACES_MAX: usize = CONNECTIONS_MAX + ATTACHED_MAX;

const _: () = assert!(PLACES_MAX <= 1 << INDEX_BITS, "each place has a label of its own");
const _: () = assert!(usize::BITS >= 32, "a token has 32 bits");

impl Key {
    /// The part that fits a token.
    pub(super) const fn label(self) -> Label {
        #[expect(clippy::cast_possible_truncation, reason = "only the last bits are meant")]
        let generation = self.generation as u32 % GENERATIONS;
        Label { index: self.index, generation }
    }
}

impl Label {
    const fn encode(self, kind: u32) -> Token {
        let high = self.generation << INDEX_BITS | self.index;
        Token((high << KIND_BITS | kind) as usize)
    }
}

impl Subject {
    pub(super) const fn to_token(self) -> Token {
        match self {
            Self::Listener(index) => Label { index, generation: 0 }.encode(0),
            Self::Waker => Label { index: 0, generation: 0 }.encode(1),
            Self::Stop => Label { index: 0, generation: 0 }.encode(2),
            Self::Client(label) => label.encode(3),
            Self::Device(label) => label.encode(4),
            Self::Hints => Label { index: 0, generation: 0 }.encode(5),
            Self::Alarm => Label { index: 0, generation: 0 }.encode(6),
        }
    }

    /// The subject of a token; `None` for a token that no subject has.
    pub(super) fn from_token(token: Token) -> Option<Self> {
        let bits = u32::try_from(token.0).ok()?;
        let high = bits >> KIND_BITS;
        let index = high % (1 << INDEX_BITS);
        let label = Label { index, generation: high >> INDEX_BITS };
        match bits % (1 << KIND_BITS) {
            0 => Some(Self::Listener(index)),
            1 => Some(Self::Waker),
            2 => Some(Self::Stop),
            3 => Some(Self::Client(label)),
            4 => Some(Self::Device(label)),
            5 => Some(Self::Hints),
            6 => Some(Self::Alarm),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST_PLACE: u32 = (1 << INDEX_BITS) - 1;

    #[test]
    fn every_subject_survives_its_token() {
        for generation in [0, 1, u64::from(GENERATIONS) - 1, u64::MAX] {
            for index in [0, 1, LAST_PLACE] {
                let label = Key { index, generation }.label();
                for subject in [
                    Subject::Listener(3),
                    Subject::Waker,
                    Subject::Stop,
                    Subject::Client(label),
                    Subject::Device(label),
                    Subject::Hints,
                    Subject::Alarm,
                ] {
                    let token = subject.to_token();
                    assert!(u32::try_from(token.0).is_ok(), "{token:?} fits into any usize");
                    assert_eq!(Subject::from_token(token), Some(subject));
                }
            }
        }
    }

    #[test]
    fn a_token_of_no_subject_means_nothing() {
        assert_eq!(Subject::from_token(Token(7)), None);
        assert_eq!(Subject::from_token(Token(usize::MAX)), None);
    }

    #[test]
    fn a_place_used_again_has_another_label_until_they_wrap() {
        let label = |generation| Key { index: LAST_PLACE, generation }.label();
        let wrap = u64::from(GENERATIONS);
        for later in [1, 2, 4096, wrap - 1, wrap + 1] {
            assert_ne!(label(5), label(5 + later), "{later} connections later");
        }
        assert_eq!(label(5), label(5 + wrap));
    }
}
