//! What an event is about, as one number.
//!
//! A token names a connection by its place and the generation of that place, so that an event that
//! was under way when a connection ended is not taken for one of its successor.

use mio::Token;

/// Names a connection: its place in the slab, and how often that place was used before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// What became ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// A listener, by its number.
    Listener(u32),
    /// A worker has put something into the inbox.
    Waker,
    /// Somebody wants the server to stop.
    Stop,
    /// A client's socket.
    Client(Key),
    /// A client's device.
    Device(Key),
}

const KIND_BITS: u32 = 3;
/// A place would have to be used so often while one event is delivered.
const GENERATION_BITS: u32 = 64 - 32 - KIND_BITS;

impl Key {
    /// The key of a place used the next time.
    pub(super) const fn new(index: u32, uses: u64) -> Self {
        let mask = (1 << GENERATION_BITS) - 1;
        #[expect(clippy::cast_possible_truncation, reason = "masked to fewer bits than that")]
        let generation = (uses & mask) as u32;
        Self { index, generation }
    }

    const fn encode(self, kind: usize) -> Token {
        Token(
            (self.generation as usize) << (32 + KIND_BITS)
                | (self.index as usize) << KIND_BITS
                | kind,
        )
    }

    /// The key as one number, for workers.
    pub(super) const fn to_owner(self) -> usize {
        self.encode(0).0
    }

    /// The key that became this number.
    pub(super) const fn from_owner(owner: usize) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "an index has 32 bits")]
        let index = (owner >> KIND_BITS) as u32;
        #[expect(clippy::cast_possible_truncation, reason = "the rest has fewer bits than that")]
        let generation = (owner >> (32 + KIND_BITS)) as u32;
        Self { index, generation }
    }
}

impl Source {
    pub(super) const fn to_token(self) -> Token {
        match self {
            Self::Listener(index) => Key { index, generation: 0 }.encode(0),
            Self::Waker => Key { index: 0, generation: 0 }.encode(1),
            Self::Stop => Key { index: 0, generation: 0 }.encode(2),
            Self::Client(key) => key.encode(3),
            Self::Device(key) => key.encode(4),
        }
    }

    /// `None` for a token that none of ours has.
    pub(super) const fn from_token(token: Token) -> Option<Self> {
        let key = Key::from_owner(token.0);
        match token.0 & ((1 << KIND_BITS) - 1) {
            0 => Some(Self::Listener(key.index)),
            1 => Some(Self::Waker),
            2 => Some(Self::Stop),
            3 => Some(Self::Client(key)),
            4 => Some(Self::Device(key)),
            _ => None,
        }
    }
}

const _: () = assert!(usize::BITS == 64, "tokens need 64 bits");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_survives_its_token() {
        let key = Key::new(u32::MAX, u64::MAX);
        assert_eq!(Key::from_owner(key.to_owner()), key);
        for source in [
            Source::Listener(3),
            Source::Waker,
            Source::Stop,
            Source::Client(key),
            Source::Device(Key::new(0, 1)),
        ] {
            assert_eq!(Source::from_token(source.to_token()), Some(source));
        }
        assert_eq!(Source::from_token(Token(7)), None);
    }

    #[test]
    fn a_place_used_again_has_another_key() {
        assert_ne!(Key::new(1, 0), Key::new(1, 1));
    }
}
