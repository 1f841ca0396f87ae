//! [`Timers`]: deadlines in the order in which they pass. Pure.

use alloc::collections::BinaryHeap;
use core::cmp::Reverse;

use crate::events::Deadline;

/// A set of deadlines, each with an item that comes out when it has passed.
///
/// Equal deadlines come out in the order in which they were put in. Who changes his mind leaves the item where it
/// is, recognises it as stale when it comes, and now and then has the stale ones taken out ([`Self::retain`]).
#[derive(Debug)]
pub(crate) struct Timers<T> {
    heap: BinaryHeap<Reverse<(Deadline, u64, T)>>,
    /// Items put in so far.
    count: u64,
}

impl<T: Ord> Timers<T> {
    /// None.
    pub(crate) const fn new() -> Timers<T> {
        Timers { heap: BinaryHeap::new(), count: 0 }
    }

    /// Puts `item` in, to come out when `deadline` has passed. One that never passes is forgotten.
    pub(crate) fn insert(&mut self, deadline: Deadline, item: T) {
        if deadline != Deadline::NEVER {
            self.heap.push(Reverse((deadline, self.count, item)));
            self.count += 1;
        }
    }

    /// Number of items, stale ones included.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// The next deadline.
    pub(crate) fn next(&self) -> Deadline {
        self.heap.peek().map_or(Deadline::NEVER, |Reverse((deadline, ..))| *deadline)
    }

    /// The next deadline, with its item.
    pub(crate) fn peek(&self) -> Option<(Deadline, &T)> {
        self.heap.peek().map(|Reverse((deadline, _, item))| (*deadline, item))
    }

    /// Takes out all items for which `keep` is false.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(Deadline, &T) -> bool) {
        self.heap.retain(|Reverse((deadline, _, item))| keep(*deadline, item));
    }

    /// The next item whose deadline is `now`, in ticks, or before.
    pub(crate) fn pop(&mut self, now: u64) -> Option<T> {
        if self.next().0 > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, _, item))| item)
    }
}

impl<T: Ord> Default for Timers<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn never_is_not_kept() {
        let mut timers = Timers::new();
        timers.insert(Deadline::NEVER, ());
        assert!(timers.is_empty() && timers.next() == Deadline::NEVER);
        assert_eq!(timers.pop(u64::MAX), None);
    }

    proptest! {
        /// Against a sorted list: items come out once, in the order of deadline and insertion, and none early.
        #[test]
        fn deadlines_come_out_in_order(
            ops in prop::collection::vec((0u64..1000, any::<bool>()), 0..300)
        ) {
            let mut timers = Timers::new();
            let mut model: Vec<(u64, usize)> = Vec::new();
            for (number, (time, pop)) in ops.into_iter().enumerate() {
                if pop {
                    let due = model.iter().min().filter(|(deadline, _)| *deadline <= time).copied();
                    model.retain(|item| Some(*item) != due);
                    prop_assert_eq!(timers.pop(time), due.map(|(_, number)| number));
                } else {
                    timers.insert(Deadline(time), number);
                    model.push((time, number));
                }
                prop_assert_eq!(timers.is_empty(), model.is_empty());
                let next = model.iter().min().map_or(u64::MAX, |(deadline, _)| *deadline);
                prop_assert_eq!(timers.next(), Deadline(next));
            }
        }
    }
}
