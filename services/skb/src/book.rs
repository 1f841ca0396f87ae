//! [`Book`]: which memory of each node is free, and which frames were made of it.
//!
//! Memory comes as pieces, each a RAM capability of its own that lies on one node. A frame is taken from the node asked
//! for or not at all. The tables are large enough that a frame which was handed out always finds its way back: between
//! [`MAX_FRAMES`] frames and the borders of [`MAX_SOURCES`] pieces there are at most as many gaps as the list of free
//! ranges holds.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use boot_info::{PhysAddr, PhysRange};
use lmp::CPtr;
use lmp::objects::PAGE_SIZE;
use runtime::memory::{Extents, LARGE_PAGE};
use skb::{NodeId, Topology};

/// Frames there can be at a time.
pub const MAX_FRAMES: usize = 3072;
/// Pieces of memory there can be.
pub const MAX_SOURCES: usize = 1024;

/// Why a piece of memory is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddError {
    /// It lies on no node, or on more than one.
    NoNode,
    /// It overlaps a piece that was taken before.
    Overlap,
    /// There are [`MAX_SOURCES`] pieces.
    Full,
}

/// Why there is no frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BookError {
    /// There is no such node, or no such frame.
    NotFound,
    /// Nobody can ask for that many bytes.
    BadSize,
    /// The node has no free range of that size.
    NoMemory,
    /// There are [`MAX_FRAMES`] frames.
    Full,
}

/// A piece of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Source {
    cap: CPtr,
    range: PhysRange,
    node: NodeId,
}

/// The account of a node's memory, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Account {
    /// What is free.
    pub free: u64,
    /// What there is.
    pub all: u64,
}

/// Memory taken for a frame that is to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "it is neither free nor a frame until it is committed or cancelled"]
pub struct Reserved {
    /// The RAM capability that it is part of.
    pub source: CPtr,
    /// Where in the RAM it begins, in bytes.
    pub offset: u64,
    /// Its physical address.
    pub physical: u64,
    /// Its bytes.
    pub size: u64,
    number: u32,
}

/// A frame that was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Frame {
    cap: CPtr,
    size: u64,
    source: u32,
}

/// The memory of all nodes.
#[derive(Debug)]
pub struct Book {
    sources: Vec<Source>,
    free: Box<Extents<{ MAX_FRAMES + MAX_SOURCES }>>,
    accounts: Vec<Account>,
    frames: BTreeMap<u64, Frame>,
    /// Frames that are reserved and not yet committed.
    reserved: usize,
}

/// The alignment of a frame of `size` bytes: it can be mapped by large pages if it fills one.
pub const fn alignment(size: u64) -> u64 {
    if size >= LARGE_PAGE { LARGE_PAGE } else { PAGE_SIZE }
}

impl Book {
    /// The book of a machine of which no memory was handed over yet.
    pub fn new(topology: &Topology) -> Book {
        Book {
            sources: Vec::new(),
            free: Box::new(Extents::new()),
            accounts: topology.nodes().iter().map(|_| Account::default()).collect(),
            frames: BTreeMap::new(),
            reserved: 0,
        }
    }

    /// Takes the memory `range`, which `cap` is the capability for.
    ///
    /// # Errors
    /// [`AddError`]; the book is then as it was.
    pub fn add(&mut self, topology: &Topology, cap: CPtr, range: PhysRange) -> Result<NodeId, AddError> {
        let whole = |r: &PhysRange| range.base() >= r.base() && range.end() <= r.end();
        let on = topology.nodes().iter().find(|node| node.memory.iter().any(whole));
        let node = on.filter(|_| !range.is_empty()).ok_or(AddError::NoNode)?.id;
        if self.sources.iter().any(|source| source.range.overlaps(range)) {
            return Err(AddError::Overlap);
        }
        if self.sources.len() == MAX_SOURCES {
            return Err(AddError::Full);
        }
        let account = self.accounts.get_mut(node.0 as usize).ok_or(AddError::NoNode)?;
        account.all += range.length();
        account.free += range.length();
        self.free.free(range.base().as_u64(), range.length(), self.sources.len() as u32);
        self.sources.push(Source { cap, range, node });
        Ok(node)
    }

    /// Takes `bytes`, rounded up to pages, on `node` and nowhere else.
    ///
    /// # Errors
    /// [`BookError`]; the book is then as it was.
    pub fn reserve(&mut self, topology: &Topology, node: NodeId, bytes: u64) -> Result<Reserved, BookError> {
        let memory = &topology.node(node).ok_or(BookError::NotFound)?.memory;
        let account = self.accounts.get_mut(node.0 as usize).ok_or(BookError::NotFound)?;
        let size =
            bytes.checked_next_multiple_of(PAGE_SIZE).filter(|&size| size > 0).ok_or(BookError::BadSize)?;
        if self.frames.len() + self.reserved >= MAX_FRAMES {
            return Err(BookError::Full);
        }
        let physical = memory
            .iter()
            .map(|range| range.base().as_u64()..range.end().as_u64())
            .find_map(|within| self.free.allocate(size, alignment(size), &within))
            .ok_or(BookError::NoMemory)?;
        let at = PhysAddr::new(physical);
        // Only what a source has was ever free.
        let source = self.sources.iter().position(|source| source.range.contains(at));
        let number = source.ok_or(BookError::NoMemory)?;
        account.free -= size;
        self.reserved += 1;
        let Source { cap, range, .. } = self.sources[number];
        let offset = physical - range.base().as_u64();
        Ok(Reserved { source: cap, offset, physical, size, number: number as u32 })
    }

    /// The frame was made and is in slot `cap`.
    pub fn commit(&mut self, reserved: Reserved, cap: CPtr) {
        self.reserved -= 1;
        let frame = Frame { cap, size: reserved.size, source: reserved.number };
        self.frames.insert(reserved.physical, frame);
    }

    /// The frame could not be made.
    pub fn cancel(&mut self, reserved: Reserved) {
        self.reserved -= 1;
        self.give_back(reserved.physical, reserved.size, reserved.number);
    }

    /// The slot of the frame at `physical`, if one begins there.
    pub fn frame(&self, physical: u64) -> Option<CPtr> {
        self.frames.get(&physical).map(|frame| frame.cap)
    }

    /// The frame at `physical` is gone, with every capability for it.
    ///
    /// # Errors
    /// [`BookError::NotFound`].
    pub fn release(&mut self, physical: u64) -> Result<(), BookError> {
        let frame = self.frames.remove(&physical).ok_or(BookError::NotFound)?;
        self.give_back(physical, frame.size, frame.source);
        Ok(())
    }

    fn give_back(&mut self, physical: u64, size: u64, number: u32) {
        self.free.free(physical, size, number);
        let node = self.sources.get(number as usize).map(|source| source.node);
        if let Some(account) = node.and_then(|node| self.accounts.get_mut(node.0 as usize)) {
            account.free += size;
        }
    }

    /// The account of `node`; `None` if there is no such node.
    pub fn account(&self, node: NodeId) -> Option<Account> {
        self.accounts.get(node.0 as usize).copied()
    }

    /// Frames there are.
    pub fn frames(&self) -> usize {
        self.frames.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::tests::{MIB, topology};
    use proptest::prelude::*;
    use std::vec::Vec;

    fn range(base: u64, length: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(base), length)
    }

    fn cap(n: u32) -> CPtr {
        CPtr::new(1, n)
    }

    /// 8 MiB in two pieces on node 0, 4 MiB on node 2; node 1 has no memory.
    fn book() -> (Topology, Book) {
        let topology = topology();
        let mut book = Book::new(&topology);
        assert_eq!(book.add(&topology, cap(0), range(16 * MIB, 4 * MIB)), Ok(NodeId(0)));
        assert_eq!(book.add(&topology, cap(1), range(20 * MIB, 4 * MIB)), Ok(NodeId(0)));
        assert_eq!(book.add(&topology, cap(2), range(128 * MIB, 4 * MIB)), Ok(NodeId(2)));
        (topology, book)
    }

    #[test]
    fn memory_belongs_to_one_node() {
        let (topology, mut book) = book();
        assert_eq!(book.add(&topology, cap(3), range(127 * MIB, 2 * MIB)), Err(AddError::NoNode));
        assert_eq!(book.add(&topology, cap(3), range(1 << 40, MIB)), Err(AddError::NoNode));
        assert_eq!(book.add(&topology, cap(3), range(32 * MIB, 0)), Err(AddError::NoNode));
        assert_eq!(book.add(&topology, cap(3), range(23 * MIB, 2 * MIB)), Err(AddError::Overlap));
        assert_eq!(book.account(NodeId(0)), Some(Account { free: 8 * MIB, all: 8 * MIB }));
        assert_eq!(book.account(NodeId(1)), Some(Account::default()));
        assert_eq!(book.account(NodeId(2)), Some(Account { free: 4 * MIB, all: 4 * MIB }));
        assert_eq!(book.account(NodeId(3)), None);
    }

    #[test]
    fn a_frame_lies_on_its_node_or_there_is_none() {
        let (topology, mut book) = book();
        let on_2 = book.reserve(&topology, NodeId(2), 3 * MIB).unwrap();
        assert_eq!((on_2.source, on_2.offset, on_2.physical, on_2.size), (cap(2), 0, 128 * MIB, 3 * MIB));
        book.commit(on_2, cap(50));
        assert_eq!(book.reserve(&topology, NodeId(2), 2 * MIB), Err(BookError::NoMemory), "node 0 has room");
        assert_eq!(book.reserve(&topology, NodeId(1), 1), Err(BookError::NoMemory));
        assert_eq!(book.reserve(&topology, NodeId(3), 1), Err(BookError::NotFound));
        assert_eq!(book.reserve(&topology, NodeId(0), 0), Err(BookError::BadSize));
        assert_eq!(book.reserve(&topology, NodeId(0), u64::MAX), Err(BookError::BadSize));
        let small = book.reserve(&topology, NodeId(2), 5000).unwrap();
        assert_eq!(small.size, 8192, "whole pages");
        assert_eq!(book.account(NodeId(2)).unwrap().free, MIB - 8192);
        book.cancel(small);
        assert_eq!(book.frame(128 * MIB), Some(cap(50)));
        assert_eq!(book.frame(128 * MIB + 4096), None);
        assert_eq!(book.release(128 * MIB), Ok(()));
        assert_eq!(book.release(128 * MIB), Err(BookError::NotFound));
        assert_eq!(book.account(NodeId(2)), Some(Account { free: 4 * MIB, all: 4 * MIB }));
    }

    #[test]
    fn a_frame_lies_within_one_capability() {
        let (topology, mut book) = book();
        assert_eq!(book.reserve(&topology, NodeId(0), 5 * MIB), Err(BookError::NoMemory));
        let a = book.reserve(&topology, NodeId(0), 4 * MIB).unwrap();
        let b = book.reserve(&topology, NodeId(0), 4 * MIB).unwrap();
        assert_eq!([(a.source, a.offset), (b.source, b.offset)], [(cap(0), 0), (cap(1), 0)]);
        book.cancel(a);
        book.cancel(b);
    }

    #[test]
    fn what_fills_a_large_page_is_aligned_to_one() {
        let (topology, mut book) = book();
        let page = book.reserve(&topology, NodeId(2), 1).unwrap();
        let large = book.reserve(&topology, NodeId(2), 2 * MIB).unwrap();
        assert_eq!((page.physical, large.physical), (128 * MIB, 130 * MIB));
        book.cancel(page);
        book.cancel(large);
    }

    #[test]
    fn the_number_of_frames_is_bounded_and_none_is_lost() {
        let topology = topology();
        let mut book = Book::new(&topology);
        let pages = 2 * MAX_FRAMES as u64;
        book.add(&topology, cap(0), range(16 * MIB, pages * PAGE_SIZE)).unwrap();
        let frames: Vec<u64> = (0..MAX_FRAMES)
            .map(|i| {
                let reserved = book.reserve(&topology, NodeId(0), PAGE_SIZE).unwrap();
                book.commit(reserved, CPtr(i as u32));
                reserved.physical
            })
            .collect();
        assert_eq!(book.reserve(&topology, NodeId(0), PAGE_SIZE), Err(BookError::Full));
        // Every other one first, which leaves the most gaps.
        for physical in frames.iter().step_by(2).chain(frames.iter().skip(1).step_by(2)) {
            assert_eq!(book.release(*physical), Ok(()));
        }
        assert_eq!(book.account(NodeId(0)).unwrap().free, pages * PAGE_SIZE);
        assert!(book.reserve(&topology, NodeId(0), pages * PAGE_SIZE).is_ok(), "one range again");
    }

    proptest! {
        /// Frames never overlap, lie on their node, and are all accounted for; in the end everything is back.
        #[test]
        fn the_account_is_right_to_the_byte(
            ops in prop::collection::vec((0u32..4, 1u64..3 * MIB, any::<prop::sample::Index>(), 0u8..3), 1..150)
        ) {
            let (topology, mut book) = book();
            let before: Vec<_> = (0..3).map(|n| book.account(NodeId(n)).unwrap()).collect();
            let mut held: BTreeMap<u64, (u64, NodeId)> = BTreeMap::new();
            for (node, bytes, index, what) in ops {
                let node = NodeId(node);
                if what == 0 && !held.is_empty() {
                    let (&physical, _) = held.iter().nth(index.index(held.len())).unwrap();
                    prop_assert_eq!(book.release(physical), Ok(()));
                    held.remove(&physical);
                } else if let Ok(reserved) = book.reserve(&topology, node, bytes) {
                    let frame = range(reserved.physical, reserved.size);
                    prop_assert!(topology.node(node).unwrap().memory.iter().any(|r| r.intersection(frame) == frame));
                    prop_assert!(held.iter().all(|(p, (s, _))| !range(*p, *s).overlaps(frame)));
                    if what == 1 {
                        book.cancel(reserved);
                    } else {
                        book.commit(reserved, CPtr::new(9, 9));
                        held.insert(reserved.physical, (reserved.size, node));
                    }
                }
                for (n, all) in (0..).zip(&before) {
                    let used: u64 = held.values().filter(|(_, node)| node.0 == n).map(|(size, _)| size).sum();
                    prop_assert_eq!(book.account(NodeId(n)).unwrap().free + used, all.all);
                }
            }
            for physical in held.into_keys() {
                prop_assert_eq!(book.release(physical), Ok(()));
            }
            let after: Vec<_> = (0..3).map(|n| book.account(NodeId(n)).unwrap()).collect();
            prop_assert_eq!(after, before);
        }
    }
}
