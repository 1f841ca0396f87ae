//! [`Descriptor`] and [`Ticket`]: what the two kinds of messages say.

use core::fmt;

use ump::{Kind, Message};

use crate::error::Violation;

/// The most slots that one message gives back: one per payload word.
pub const MAX_RETURNS: usize = ump::PAYLOAD_WORDS;

/// A pool's number on a channel; both sides bind the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u16);

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The two kinds of messages of bulk transport, as numbered by the protocol of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds {
    hand_over: Kind,
}

impl Kinds {
    /// Two kinds beginning with `first`, of which there must be a next one.
    pub const fn starting_at(first: Kind) -> Self {
        assert!(first.0 < u16::MAX - 1, "bulk transport needs two kinds of messages");
        Self { hand_over: first }
    }

    /// A slot is handed over or shared; its payload is a [`Descriptor`].
    pub const fn hand_over(self) -> Kind {
        self.hand_over
    }

    /// Slots are given back; each payload word is a [`Ticket`].
    pub const fn give_back(self) -> Kind {
        Kind(self.hand_over.0 + 1)
    }

    /// The first kind behind the two.
    pub const fn end(self) -> Kind {
        Kind(self.hand_over.0 + 2)
    }
}

/// Which hand-over of which slot: one word.
///
/// | bits | field |
/// |---|---|
/// | 0–15 | `pool` |
/// | 16–31 | `slot` |
/// | 32–63 | `generation`: the number of this hand-over of this slot, the first being 1, modulo 2^32 |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The pool.
    pub pool: PoolId,
    /// The slot's index.
    pub slot: u16,
    /// How often the slot was handed over, this time included.
    pub generation: u32,
}

impl Ticket {
    /// The word.
    #[inline]
    pub const fn encode(self) -> u64 {
        self.pool.0 as u64 | (self.slot as u64) << 16 | (self.generation as u64) << 32
    }

    /// The fields of any word; none of them is checked here.
    #[inline]
    pub const fn decode(word: u64) -> Self {
        Self { pool: PoolId(word as u16), slot: (word >> 16) as u16, generation: (word >> 32) as u32 }
    }
}

/// The payload of a hand-over: three words.
///
/// | word | bits | field |
/// |---|---|---|
/// | 0 | | `ticket` |
/// | 1 | 0–31 | `offset` of the data in the slot in bytes, a multiple of 8 |
/// | 1 | 32–62 | `length` of the data in bytes |
/// | 1 | 63 | set if the sender keeps the slot too (`is_shared`) |
/// | 2 | | `cookie`: the user's |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Which hand-over of which slot.
    pub ticket: Ticket,
    /// Where the data begins, in bytes from the beginning of the slot.
    pub offset: u32,
    /// Bytes of data; only 31 bits are encoded.
    pub length: u32,
    /// Whether the sender keeps the slot and may go on changing it.
    pub is_shared: bool,
    /// What the sender's user likes to say about it.
    pub cookie: u64,
}

const LENGTH_SHIFT: u32 = 32;
const SHARED: u64 = 1 << 63;

impl Descriptor {
    /// Payload words.
    const WORDS: usize = 3;

    /// The payload words.
    #[inline]
    pub const fn encode(self) -> [u64; Self::WORDS] {
        let range = self.offset as u64 | (self.length as u64) << LENGTH_SHIFT & !SHARED;
        [self.ticket.encode(), if self.is_shared { range | SHARED } else { range }, self.cookie]
    }

    /// The fields of any payload; none of them is checked here.
    #[inline]
    pub const fn decode([ticket, range, cookie]: [u64; Self::WORDS]) -> Self {
        Self {
            ticket: Ticket::decode(ticket),
            offset: range as u32,
            length: ((range & !SHARED) >> LENGTH_SHIFT) as u32,
            is_shared: range & SHARED != 0,
            cookie,
        }
    }

    /// The fields of a message, which must have the right length.
    #[inline]
    pub(crate) fn of(message: &Message) -> Result<Self, Violation> {
        let [first, second, third, ..] = *message.payload();
        if message.len() != size_of::<[u64; Self::WORDS]>() {
            return Err(Violation::Length { bytes: message.len() });
        }
        Ok(Self::decode([first, second, third]))
    }
}
