//! [`Region`]: the memory of a pool; the only `unsafe` code of the crate.

#![allow(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering};

use crate::error::RegionError;

/// The most pieces of a region: a node each, on machines of today.
pub const MAX_PIECES: usize = 16;

/// The most slots of a region: a descriptor has 16 bits for a slot's number, and one number means none.
pub const MAX_SLOTS: usize = u16::MAX as usize;

/// What the address of a piece must be a multiple of, in bytes: the size of a page.
pub const PIECE_ALIGNMENT: usize = 4096;

/// Eight bytes of shared memory, little-endian.
///
/// It is an atomic, so whatever the other side stores and whenever it does, reading is defined behaviour.
/// Loads and stores are Relaxed: a hand-over is ordered by the message that tells of it.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Word(AtomicU64);

impl Word {
    /// A word of this value, for memory within one program.
    pub const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// Its value.
    #[inline(always)]
    pub fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Changes its value.
    #[inline(always)]
    pub fn store(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Bytes of a slot: a power of two from 4 KiB to 4 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotSize {
    bits: u8,
}

impl SlotSize {
    /// The smallest, 4 KiB.
    pub const MIN: Self = Self { bits: 12 };

    /// The largest, 4 MiB.
    pub const MAX: Self = Self { bits: 22 };

    /// The slot size of so many bytes, if it is one.
    pub const fn from_bytes(bytes: usize) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= Self::MIN.bytes() && bytes <= Self::MAX.bytes() {
            Some(Self { bits: bytes.trailing_zeros() as u8 })
        } else {
            None
        }
    }

    /// Its bytes.
    pub const fn bytes(self) -> usize {
        1 << self.bits
    }

    /// Its words.
    pub(crate) const fn words(self) -> usize {
        self.bytes() / size_of::<Word>()
    }
}

/// The memory of a pool: equal pieces, each a whole number of slots. Slot `i` lies in piece `i mod pieces`, so
/// that slots taken one after the other lie on different nodes if the pieces do.
#[derive(Clone, Debug)]
pub struct Region<'m> {
    /// Those behind the last are empty.
    pieces: [&'m [Word]; MAX_PIECES],
    count: u32,
    slots: u32,
    slot: SlotSize,
}

impl<'m> Region<'m> {
    /// The region that consists of `pieces`.
    ///
    /// # Errors
    /// [`RegionError`].
    pub fn of(pieces: &[&'m [Word]], slot: SlotSize) -> Result<Self, RegionError> {
        let count = pieces.len();
        if count == 0 || count > MAX_PIECES {
            return Err(RegionError::Pieces { pieces: count });
        }
        let words = pieces[0].len();
        if words == 0 || !words.is_multiple_of(slot.words()) {
            let bytes = size_of_val(pieces[0]);
            return Err(RegionError::Length { bytes, slot_bytes: slot.bytes() });
        }
        let slots = words / slot.words() * count;
        if slots > MAX_SLOTS {
            return Err(RegionError::Slots { slots });
        }
        let mut all: [&'m [Word]; MAX_PIECES] = [&[]; MAX_PIECES];
        for (index, piece) in pieces.iter().enumerate() {
            if piece.len() != words {
                return Err(RegionError::Unequal { piece: index });
            }
            let (start, end) = (piece.as_ptr_range().start, piece.as_ptr_range().end);
            let overlaps =
                |other: &&[Word]| start < other.as_ptr_range().end && other.as_ptr_range().start < end;
            if pieces[..index].iter().any(overlaps) {
                return Err(RegionError::Overlap { piece: index });
            }
            all[index] = piece;
        }
        Ok(Self { pieces: all, count: count as u32, slots: slots as u32, slot })
    }

    /// The region whose pieces begin at `addresses` and are `piece_bytes` long each.
    ///
    /// # Errors
    /// [`RegionError`]; among others if an address is not a multiple of [`PIECE_ALIGNMENT`].
    ///
    /// # Safety
    /// For the whole of `'m`, each piece is mapped readable, for a [`Source`](crate::Source) also writable, and
    /// no Rust code of this program accesses it other than by atomic operations of 8 bytes. Others may write
    /// anything there at any time.
    pub unsafe fn from_raw(
        addresses: &[*const u8],
        piece_bytes: usize,
        slot: SlotSize,
    ) -> Result<Self, RegionError> {
        let mut pieces: [&'m [Word]; MAX_PIECES] = [&[]; MAX_PIECES];
        let Some(pieces) = pieces.get_mut(..addresses.len()) else {
            return Err(RegionError::Pieces { pieces: addresses.len() });
        };
        // Before the slices are made: no slice is longer than half the address space.
        if !piece_bytes.is_multiple_of(slot.bytes()) || piece_bytes.div_ceil(slot.bytes()) > MAX_SLOTS {
            return Err(RegionError::Length { bytes: piece_bytes, slot_bytes: slot.bytes() });
        }
        for (piece, address) in pieces.iter_mut().zip(addresses) {
            if !address.addr().is_multiple_of(PIECE_ALIGNMENT) {
                return Err(RegionError::Misaligned { address: address.addr() });
            }
            // SAFETY: the range is mapped for 'm (caller), so it is neither null nor wraps around; it is
            // aligned, as was just checked. Any bit pattern is a `Word`, which is an atomic cell, so a shared
            // reference allows the concurrent stores; the caller rules out non-atomic ones.
            *piece = unsafe { core::slice::from_raw_parts(address.cast(), piece_bytes / size_of::<Word>()) };
        }
        Self::of(pieces, slot)
    }

    /// How many slots it has.
    pub fn slots(&self) -> usize {
        self.slots as usize
    }

    /// The size of its slots.
    pub fn slot_size(&self) -> SlotSize {
        self.slot
    }

    /// Whether data can lie there in a slot: in it, and beginning at a word.
    #[inline(always)]
    pub(crate) fn has_range(&self, offset: u64, length: u64) -> bool {
        let bytes = self.slot.bytes() as u64;
        offset.is_multiple_of(size_of::<Word>() as u64) && offset <= bytes && length <= bytes - offset
    }

    /// The words of slot `index`; none if there is no such slot.
    #[inline]
    pub(crate) fn slot(&self, index: u16) -> &'m [Word] {
        let index = u32::from(index);
        let words = self.slot.words();
        let piece = self.pieces.get((index % self.count) as usize).copied().unwrap_or_default();
        let start = (index / self.count) as usize * words;
        piece.get(start..start + words).unwrap_or_default()
    }
}

const _: () = {
    assert!(size_of::<Word>() == 8 && align_of::<Word>() == 8);
    assert!(PIECE_ALIGNMENT.is_multiple_of(align_of::<Word>()));
};
