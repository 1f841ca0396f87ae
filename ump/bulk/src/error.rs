//! What can go wrong with pools and buffers, one variant per cause.

use core::fmt;

use ump::Kind;

use crate::descriptor::PoolId;
use crate::memory::{MAX_PIECES, MAX_SLOTS, PIECE_ALIGNMENT};

/// How the peer broke the rules of bulk transport. It ends the channel, and nothing but the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The message is not of the kind that was to be looked at.
    Kind {
        /// Its kind.
        kind: Kind,
        /// The kind expected.
        expected: Kind,
    },
    /// The payload of the message has a length that its kind never has.
    Length {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The pool is not the one that was bound.
    Pool {
        /// The pool named.
        pool: PoolId,
        /// The pool bound.
        expected: PoolId,
    },
    /// The pool has no such slot.
    Slot {
        /// The slot named.
        slot: u16,
        /// How many there are.
        slots: u16,
    },
    /// The data do not begin at a multiple of 8 bytes.
    Misaligned {
        /// Where they begin.
        offset: u32,
    },
    /// The data do not lie in the slot.
    Range {
        /// Where they begin.
        offset: u32,
        /// How long they are.
        length: u32,
        /// How long the slot is.
        slot_bytes: usize,
    },
    /// A slot is handed over that this side holds.
    NotTheirs {
        /// The slot.
        slot: u16,
    },
    /// A slot is given back that the peer does not hold.
    NotLent {
        /// The slot.
        slot: u16,
    },
    /// The slot is the right one, but the hand-over another: a repeated or invented message.
    Generation {
        /// The slot.
        slot: u16,
        /// The generation expected.
        expected: u32,
        /// The generation found.
        found: u32,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("channel closed: the peer ")?;
        match self {
            Self::Kind { kind, expected } => {
                write!(f, "sent a message of kind {kind} in place of {expected}")
            }
            Self::Length { bytes } => write!(f, "sent a descriptor of {bytes} bytes"),
            Self::Pool { pool, expected } => write!(f, "named pool {pool} where pool {expected} is bound"),
            Self::Slot { slot, slots } => write!(f, "named slot {slot} of a pool of {slots}"),
            Self::Misaligned { offset } => {
                write!(f, "handed over data at offset {offset}, which is not a multiple of 8")
            }
            Self::Range { offset, length, slot_bytes } => {
                write!(f, "handed over {length} bytes at offset {offset} of a slot of {slot_bytes}")
            }
            Self::NotTheirs { slot } => write!(f, "handed over slot {slot}, which it does not hold"),
            Self::NotLent { slot } => write!(f, "gave back slot {slot}, which it does not hold"),
            Self::Generation { slot, expected, found } => {
                write!(f, "named hand-over {found} of slot {slot} in place of {expected}")
            }
        }
    }
}

impl core::error::Error for Violation {}

/// Why memory cannot be the region of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionError {
    /// No pieces, or too many.
    Pieces {
        /// How many.
        pieces: usize,
    },
    /// The pieces are not of one length.
    Unequal {
        /// The piece that differs from the first.
        piece: usize,
    },
    /// A piece is not a whole number of slots, or none.
    Length {
        /// The length of a piece in bytes.
        bytes: usize,
        /// The size of a slot in bytes.
        slot_bytes: usize,
    },
    /// There are more slots than a descriptor can number.
    Slots {
        /// How many.
        slots: usize,
    },
    /// A piece does not begin at a page.
    Misaligned {
        /// Its address.
        address: usize,
    },
    /// Two pieces overlap.
    Overlap {
        /// The second of the two.
        piece: usize,
    },
}

impl fmt::Display for RegionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pieces { pieces } => write!(f, "a region has 1 to {MAX_PIECES} pieces, not {pieces}"),
            Self::Unequal { piece } => write!(f, "piece {piece} of a region is not as long as the first"),
            Self::Length { bytes, slot_bytes } => {
                write!(f, "a piece of {bytes} bytes is not a number of slots of {slot_bytes} bytes")
            }
            Self::Slots { slots } => write!(f, "a pool has at most {MAX_SLOTS} slots, not {slots}"),
            Self::Misaligned { address } => {
                write!(f, "a piece at {address:#x} does not begin at a multiple of {PIECE_ALIGNMENT} bytes")
            }
            Self::Overlap { piece } => write!(f, "piece {piece} of a region overlaps an earlier one"),
        }
    }
}

impl core::error::Error for RegionError {}

/// A holder table has fewer entries than the pool has slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableTooSmall {
    /// Entries it has.
    pub entries: usize,
    /// Slots of the pool.
    pub slots: usize,
}

impl fmt::Display for TableTooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entries, slots } = self;
        write!(f, "a holder table of {entries} entries is too small for a pool of {slots} slots")
    }
}

impl core::error::Error for TableTooSmall {}

/// Data do not fit a slot, or do not begin at a multiple of 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeError {
    /// Where they were to begin, in bytes.
    pub offset: usize,
    /// How long they are, in bytes.
    pub length: usize,
    /// How long the slot is, in bytes.
    pub slot_bytes: usize,
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, length, slot_bytes } = self;
        write!(f, "{length} bytes at offset {offset} do not fit a slot of {slot_bytes} bytes in whole words")
    }
}

impl core::error::Error for RangeError {}
