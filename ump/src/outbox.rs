//! [`Outbox`]: the shared memory of a channel, by who writes it.

use crate::line::Line;
use crate::memory::{self, MemoryError};

/// Lines of a ring for calls: both rings stay in the first-level cache of both cores.
pub const RPC_LINES: usize = 64;

/// Lines of a ring for streams: 64 KiB, where streaming costs least (`doc/ump.md`, "Size classes").
pub const STREAM_LINES: usize = 1024;

/// A line in a block of 128 bytes of its own, since processors prefetch lines in pairs
/// (Intel optimization manual, "Spatial Prefetcher").
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub(crate) struct LonelyLine(pub(crate) Line);

/// Everything that one side of a channel writes and the other only reads: a ring of `N` lines and two
/// control lines. A channel has two, one per side.
///
/// The two may lie anywhere: next to each other, or each in a frame of its own that the other side maps
/// read-only and that placement policy puts where it likes. A fresh outbox is all zeroes.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Outbox<const N: usize> {
    /// What the writer took from the other ring, for a peer that is out of credits.
    pub(crate) acknowledgement: LonelyLine,
    /// Whether the writer sleeps and wants to be notified.
    pub(crate) sleep: LonelyLine,
    pub(crate) ring: [Line; N],
}

/// The words of [`Outbox::acknowledgement`].
pub(crate) mod control {
    /// How many messages were taken from the other ring.
    pub(crate) const TAKEN: usize = 0;
    /// How many messages had been sent when `TAKEN` was stored, or a little later.
    pub(crate) const SENT: usize = 1;
    /// One of the states below.
    pub(crate) const STATE: usize = 2;

    /// The writer is there.
    pub(crate) const OPEN: u64 = 0;
    /// The writer has sent its last message.
    pub(crate) const HUNG_UP: u64 = 1;
    /// The writer has met a violation of the protocol.
    pub(crate) const BROKEN: u64 = 2;
}

/// The word of [`Outbox::sleep`].
pub(crate) mod sleep {
    /// How often the writer fell asleep or awoke: odd while it sleeps.
    pub(crate) const GENERATION: usize = 0;
}

impl<const N: usize> Outbox<N> {
    /// `N`, checked: a power of two, so that a number's low bits are its slot at the wrap of the 16-bit
    /// sequence too, and small enough that half the sequence space tells ahead from behind.
    pub(crate) const LINES: usize = {
        assert!(N.is_power_of_two() && N >= 2 && N <= 1 << 14, "a ring has 2, 4, 8, … 16384 lines");
        N
    };

    /// A fresh outbox, for channels within one program.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            acknowledgement: LonelyLine(Line::new()),
            sleep: LonelyLine(Line::new()),
            ring: [const { Line::new() }; N],
        }
    }

    /// A fresh outbox, known to the model checker.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self {
            acknowledgement: LonelyLine::default(),
            sleep: LonelyLine::default(),
            ring: core::array::from_fn(|_| Line::new()),
        }
    }

    /// The outbox in the `bytes` bytes of shared memory at `base`; the rest of them stays unused.
    ///
    /// # Errors
    /// [`MemoryError`] if `base` is not 128-byte aligned or `bytes` is less than the size of an outbox.
    ///
    /// # Safety
    /// For the whole of `'m`, the range is mapped readable, for the side whose outbox it is also writable,
    /// and no Rust code of this program accesses it other than by atomic operations of 8 bytes. Others may
    /// write anything there at any time.
    #[allow(unsafe_code)]
    pub unsafe fn from_raw<'m>(base: *const u8, bytes: usize) -> Result<&'m Self, MemoryError> {
        // SAFETY: the caller promises what `outbox` asks for, in the same words.
        unsafe { memory::outbox(base, bytes) }
    }

    /// The lines of the ring, for a test that plays a hostile peer or a debugger that prints them.
    pub fn ring(&self) -> &[Line; N] {
        &self.ring
    }

    /// The control lines, for the same purpose.
    pub fn control(&self) -> [&Line; 2] {
        [&self.acknowledgement.0, &self.sleep.0]
    }
}

impl<const N: usize> Default for Outbox<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(not(loom))]
const _: () = {
    use crate::line::LINE_BYTES;
    use core::mem::offset_of;
    type Rpc = Outbox<RPC_LINES>;
    assert!(align_of::<Rpc>() == 128);
    assert!(offset_of!(Rpc, acknowledgement) == 0);
    assert!(offset_of!(Rpc, sleep) == 2 * LINE_BYTES);
    assert!(offset_of!(Rpc, ring) == 4 * LINE_BYTES);
    assert!(size_of::<Rpc>() == (4 + RPC_LINES) * LINE_BYTES);
    assert!(size_of::<Outbox<STREAM_LINES>>() == (4 + STREAM_LINES) * LINE_BYTES);
};
