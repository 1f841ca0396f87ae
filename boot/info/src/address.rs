//! Physical addresses and ranges, and the trait by which the conversions read physical memory.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes in the smallest page.
pub const PAGE_SIZE: u64 = 4096;

/// The end of the physical addresses that x86-64 can ever have (*Intel SDM* volume 3, section 5.5.4: at most 52
/// bits).
pub const PHYSICAL_LIMIT: u64 = 1 << 52;

/// A physical address in bytes.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct PhysAddr(u64);

/// A range of physical memory. It may be empty, and as plain data it may hold any two numbers; its end never wraps.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct PhysRange {
    base: PhysAddr,
    length: u64,
}

/// The sizes of page that x86-64 maps by, used as granules of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PageSize {
    /// 4 KiB.
    Size4K,
    /// 2 MiB.
    Size2M,
    /// 1 GiB.
    Size1G,
}

/// Read access to physical memory, as far as the caller has it mapped.
pub trait PhysMemory {
    /// Fills `into` from the memory at `address`.
    ///
    /// # Errors
    /// [`Unreadable`] if any of these bytes is not mapped; `into` then holds anything.
    fn read(&self, address: PhysAddr, into: &mut [u8]) -> Result<(), Unreadable>;
}

/// The answer to a read of physical memory that is not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

impl PhysAddr {
    /// The physical address `bytes`.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The address in bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl PhysRange {
    /// `length` bytes from `base`.
    pub const fn new(base: PhysAddr, length: u64) -> Self {
        Self { base, length }
    }

    /// From `start` up to and without `end`; empty at `start` if `end` is not above it.
    pub const fn between(start: PhysAddr, end: PhysAddr) -> Self {
        Self { base: start, length: end.0.saturating_sub(start.0) }
    }

    /// The address of the first byte.
    pub const fn base(self) -> PhysAddr {
        self.base
    }

    /// The length in bytes.
    pub const fn length(self) -> u64 {
        self.length
    }

    /// The address after the last byte, or the highest address where that does not fit.
    pub const fn end(self) -> PhysAddr {
        PhysAddr(self.base.0.saturating_add(self.length))
    }

    /// Whether there is no byte in it.
    pub const fn is_empty(self) -> bool {
        self.base.0 >= self.end().0
    }

    /// Whether the byte at `address` belongs to it.
    pub const fn contains(self, address: PhysAddr) -> bool {
        self.base.0 <= address.0 && address.0 < self.end().0
    }

    /// The bytes that belong to both; empty if there are none.
    pub fn intersection(self, other: Self) -> Self {
        Self::between(self.base.max(other.base), self.end().min(other.end()))
    }

    /// Whether a byte belongs to both.
    pub fn overlaps(self, other: Self) -> bool {
        !self.intersection(other).is_empty()
    }

    /// The pages of this size that lie wholly inside.
    pub fn inward(self, size: PageSize) -> Self {
        let end = PhysAddr(self.end().0 & !size.mask());
        match self.base.0.checked_next_multiple_of(size.bytes()) {
            Some(start) => Self::between(PhysAddr(start), end),
            None => Self::new(self.base, 0),
        }
    }

    /// The pages of this size that hold any of its bytes, but for a page that is the last of the address space.
    pub fn outward(self, size: PageSize) -> Self {
        if self.is_empty() {
            return Self::new(PhysAddr(self.base.0 & !size.mask()), 0);
        }
        let end = self.end().0.checked_next_multiple_of(size.bytes()).unwrap_or(!size.mask());
        Self::between(PhysAddr(self.base.0 & !size.mask()), PhysAddr(end))
    }

    /// What lies below [`PHYSICAL_LIMIT`].
    pub fn clipped(self) -> Self {
        self.intersection(Self::new(PhysAddr(0), PHYSICAL_LIMIT))
    }
}

impl PageSize {
    /// The size in bytes, a power of two.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Size4K => PAGE_SIZE,
            Self::Size2M => 2 << 20,
            Self::Size1G => 1 << 30,
        }
    }

    const fn mask(self) -> u64 {
        self.bytes() - 1
    }
}

impl fmt::Display for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.base, self.end())
    }
}
