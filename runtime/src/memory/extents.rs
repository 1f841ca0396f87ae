//! [`Extents`]: which parts of an address range are free. Pure; used for RAM and for virtual addresses.

use core::ops::Range;

use arrayvec::ArrayVec;

/// A free range. It never reaches over the border between two sources.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Extent {
    start: u64,
    len: u64,
    source: u32,
}

impl Extent {
    fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// The free ranges of one or more sources, in ascending order, at most `N` of them.
///
/// Allocation takes the smallest range that will do, so that large ranges stay whole; a range that is freed
/// grows together with its free neighbours. No heap: the fault handler allocates from it.
#[derive(Debug)]
pub struct Extents<const N: usize> {
    free: ArrayVec<Extent, N>,
    lost: u64,
}

impl<const N: usize> Extents<N> {
    /// Nothing is free.
    pub const fn new() -> Self {
        Self { free: ArrayVec::new_const(), lost: 0 }
    }

    /// Takes `len` units aligned to `align` (a power of two), wholly within `within`; the start.
    pub fn allocate(&mut self, len: u64, align: u64, within: &Range<u64>) -> Option<u64> {
        if len == 0 || !align.is_power_of_two() {
            return None;
        }
        let fit = |e: &Extent| -> Option<u64> {
            let start = e.start.max(within.start).checked_next_multiple_of(align)?;
            let end = start.checked_add(len)?;
            (end <= e.end() && end <= within.end).then_some(start)
        };
        let (index, start) = self
            .free
            .iter()
            .enumerate()
            .filter_map(|(i, e)| Some((i, fit(e)?, e.len)))
            .min_by_key(|&(_, _, size)| size)
            .map(|(i, start, _)| (i, start))?;
        let old = self.free[index];
        let (before, after) = (start - old.start, old.end() - (start + len));
        match (before > 0, after > 0) {
            (false, false) => {
                self.free.remove(index);
            }
            (true, false) => self.free[index].len = before,
            (false, true) => self.free[index] = Extent { start: start + len, len: after, ..old },
            (true, true) => {
                // The table is full: the request is refused rather than a part of the range forgotten.
                if self.free.try_insert(index + 1, Extent { start: start + len, len: after, ..old }).is_err()
                {
                    return None;
                }
                self.free[index].len = before;
            }
        }
        Some(start)
    }

    /// Gives back a range of `source`, which must not be free already.
    pub fn free(&mut self, start: u64, len: u64, source: u32) {
        if len == 0 {
            return;
        }
        let at = self.free.partition_point(|e| e.start < start);
        let left =
            at.checked_sub(1).filter(|&i| self.free[i].end() == start && self.free[i].source == source);
        let right = Some(at)
            .filter(|&i| self.free.get(i).is_some_and(|e| start + len == e.start && e.source == source));
        match (left, right) {
            (Some(l), Some(r)) => {
                self.free[l].len += len + self.free[r].len;
                self.free.remove(r);
            }
            (Some(l), None) => self.free[l].len += len,
            (None, Some(r)) => {
                self.free[r].start = start;
                self.free[r].len += len;
            }
            (None, None) => {
                if self.free.try_insert(at, Extent { start, len, source }).is_err() {
                    self.lost += len;
                }
            }
        }
    }

    /// Whether a range that is freed may find no place in the table.
    pub fn is_full(&self) -> bool {
        self.free.is_full()
    }

    /// Units that are free.
    pub fn free_units(&self) -> u64 {
        self.free.iter().map(|e| e.len).sum()
    }

    /// The longest free range, in units.
    pub fn longest(&self) -> u64 {
        self.free.iter().map(|e| e.len).max().unwrap_or(0)
    }

    /// Units that were freed while the table was full, and are out of use for good.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The free ranges, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.free.iter().map(|e| e.start..e.end())
    }
}

impl<const N: usize> Default for Extents<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const ALL: Range<u64> = 0..u64::MAX;

    #[test]
    fn the_smallest_range_that_will_do_is_taken() {
        let mut e = Extents::<8>::new();
        e.free(0, 1000, 0);
        e.free(2000, 10, 0);
        assert_eq!(e.allocate(8, 1, &ALL), Some(2000));
        assert_eq!(e.allocate(8, 1, &ALL), Some(0));
    }

    #[test]
    fn alignment_and_bounds_are_kept() {
        let mut e = Extents::<8>::new();
        e.free(0x1000, 0x40_0000, 0);
        assert_eq!(e.allocate(0x20_0000, 0x20_0000, &ALL), Some(0x20_0000));
        assert_eq!(e.allocate(0x1000, 0x1000, &(0x10_0000..0x10_1000)), Some(0x10_0000));
        assert_eq!(e.allocate(0x1000, 0x1000, &(0x10_0000..0x10_1000)), None);
        assert_eq!(e.allocate(1, 3, &ALL), None, "an alignment that is no power of two");
        assert_eq!(e.allocate(u64::MAX, 1 << 63, &ALL), None);
    }

    #[test]
    fn ranges_of_two_sources_stay_apart() {
        let mut e = Extents::<8>::new();
        e.free(0, 16, 0);
        e.free(16, 16, 1);
        assert_eq!(e.allocate(32, 1, &ALL), None);
        assert_eq!(e.ranges().count(), 2);
    }

    #[test]
    fn a_full_table_refuses_or_counts_the_loss() {
        let mut e = Extents::<1>::new();
        e.free(0, 64, 0);
        assert_eq!(e.allocate(16, 16, &(16..64)), None, "splitting needs a second entry");
        e.free(100, 4, 0);
        assert_eq!((e.free_units(), e.lost()), (64, 4));
    }

    proptest! {
        /// Against a naive model: what is handed out never overlaps, and freeing everything gives one range.
        #[test]
        fn allocations_are_disjoint_and_nothing_is_lost(
            ops in prop::collection::vec((1u64..70, 0u32..6, any::<prop::sample::Index>(), any::<bool>()), 1..200)
        ) {
            let mut e = Extents::<256>::new();
            e.free(64, 4096, 0);
            let mut held: BTreeMap<u64, u64> = BTreeMap::new();
            for (len, shift, index, give_back) in ops {
                if give_back && !held.is_empty() {
                    let &start = held.keys().nth(index.index(held.len())).unwrap();
                    let len = held.remove(&start).unwrap();
                    e.free(start, len, 0);
                } else if let Some(start) = e.allocate(len, 1 << shift, &ALL) {
                    prop_assert_eq!(start % (1 << shift), 0);
                    prop_assert!(start >= 64 && start + len <= 64 + 4096);
                    let before = held.range(..start + len).next_back();
                    prop_assert!(before.is_none_or(|(s, l)| s + l <= start));
                    held.insert(start, len);
                }
                prop_assert_eq!(e.free_units() + held.values().sum::<u64>(), 4096);
            }
            for (start, len) in held {
                e.free(start, len, 0);
            }
            prop_assert_eq!(e.ranges().collect::<Vec<_>>(), vec![64..64 + 4096]);
        }
    }
}
