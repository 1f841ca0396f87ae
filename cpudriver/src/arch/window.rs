//! The window on the physical memory that this core owns.
//!
//! Kernel objects live in memory that user space provided; the CPU driver reaches them at
//! [`PHYS_WINDOW`] + physical address. Which addresses are mapped there is this core's business alone (see
//! [`crate::instance`]); [`Window`] knows them and is asked before memory from outside is touched.

use boot_info::{PhysAddr, PhysRange};
use lmp::layout::PHYS_WINDOW;

/// The most ranges of memory a core can own.
pub(crate) const MAX_RANGES: usize = 128;

/// The ranges of physical memory that the window shows, writable.
pub(crate) struct Window {
    ranges: [PhysRange; MAX_RANGES],
    count: usize,
}

impl Window {
    /// A window that shows nothing.
    pub(crate) const fn new() -> Window {
        Window { ranges: [PhysRange::new(PhysAddr::new(0), 0); MAX_RANGES], count: 0 }
    }

    /// Record that `range` is mapped. Answers whether there was room.
    pub(crate) fn add(&mut self, range: PhysRange) -> bool {
        match self.ranges.get_mut(self.count) {
            Some(slot) => {
                *slot = range;
                self.count += 1;
                true
            }
            None => false,
        }
    }

    /// Whether [`Window::remove`] would find `range`, and room for what remains around it.
    pub(crate) fn can_remove(&self, range: PhysRange) -> bool {
        self.contains(range.base().as_u64(), range.length()) && self.count < MAX_RANGES
    }

    /// Record that `range`, which lies within one of the ranges, is not mapped any more. Answers whether
    /// there was room for what remains.
    pub(crate) fn remove(&mut self, range: PhysRange) -> bool {
        let Some(i) = self.ranges[..self.count].iter().position(|r| r.intersection(range) == range) else {
            return false;
        };
        let whole = self.ranges[i];
        let below = PhysRange::between(whole.base(), range.base());
        let above = PhysRange::between(range.end(), whole.end());
        match (below.is_empty(), above.is_empty()) {
            (true, true) => {
                self.count -= 1;
                self.ranges[i] = self.ranges[self.count];
                true
            }
            (true, false) => {
                self.ranges[i] = above;
                true
            }
            (false, true) => {
                self.ranges[i] = below;
                true
            }
            (false, false) if self.add(above) => {
                self.ranges[i] = below;
                true
            }
            (false, false) => false,
        }
    }

    /// Whether `len` bytes at physical address `base` are this core's.
    pub(crate) fn contains(&self, base: u64, len: u64) -> bool {
        let Some(end) = base.checked_add(len) else { return false };
        self.ranges[..self.count].iter().any(|r| r.base().as_u64() <= base && end <= r.end().as_u64())
    }

    /// Whether any of the `len` bytes at physical address `base` are this core's.
    pub(crate) fn overlaps(&self, base: u64, len: u64) -> bool {
        let range = PhysRange::new(PhysAddr::new(base), len);
        self.ranges[..self.count].iter().any(|r| !r.intersection(range).is_empty())
    }
}

/// Where physical address `pa` appears, as a pointer.
#[inline(always)]
pub(crate) fn ptr<T>(pa: u64) -> *mut T {
    PHYS_WINDOW.wrapping_add(pa) as *mut T
}

/// What [`ptr`] was made from.
#[inline(always)]
pub(crate) fn physical(address: u64) -> u64 {
    address.wrapping_sub(PHYS_WINDOW)
}

/// Fill memory of this core with zeroes.
///
/// # Safety
/// The range must be mapped by the window, and no reference to it may exist.
pub(crate) unsafe fn zero(pa: u64, len: u64) {
    // SAFETY: as the caller says.
    unsafe { core::ptr::write_bytes(ptr::<u8>(pa), 0, len as usize) }
}

/// Bytes of physical memory that do not change, such as the boot archive.
///
/// # Safety
/// The range must be mapped by the window for as long as the CPU driver runs, and nobody may write it.
pub(crate) unsafe fn bytes(pa: u64, len: u64) -> &'static [u8] {
    // SAFETY: as the caller says.
    unsafe { core::slice::from_raw_parts(ptr::<u8>(pa), len as usize) }
}
