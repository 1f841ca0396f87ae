//! [`Slots`]: which slots of the capability space are free. Pure.

use arrayvec::ArrayVec;
use lmp::CPtr;
use lmp::cptr::L2_SLOTS;

/// CNodes a domain can have in use for itself.
const MAX_CNODES: usize = 256;

const WORDS: usize = L2_SLOTS as usize / 64;

struct CNode {
    l1: u32,
    /// A bit is set where the slot is free.
    free: [u64; WORDS],
}

/// Free slots of the CNodes that the domain uses for itself.
#[derive(Default)]
pub struct Slots {
    cnodes: ArrayVec<CNode, MAX_CNODES>,
}

impl Slots {
    /// No CNode yet.
    pub const fn new() -> Slots {
        Slots { cnodes: ArrayVec::new_const() }
    }

    /// Use slots `first..` of the CNode in L1 slot `l1`. False if the table of CNodes is full.
    pub fn add(&mut self, l1: u32, first: u32) -> bool {
        let mut free = [0u64; WORDS];
        for slot in first..L2_SLOTS {
            free[slot as usize / 64] |= 1 << (slot % 64);
        }
        self.cnodes.try_push(CNode { l1, free }).is_ok()
    }

    /// Takes `count` slots in a row of one CNode; the first.
    pub fn allocate(&mut self, count: u32) -> Option<CPtr> {
        for cnode in &mut self.cnodes {
            if let Some(first) = find(&cnode.free, count) {
                for slot in first..first + count {
                    cnode.free[slot as usize / 64] &= !(1 << (slot % 64));
                }
                return Some(CPtr::new(cnode.l1, first));
            }
        }
        None
    }

    /// Gives back one slot, which must be empty. Slots of CNodes that are not the domain's own stay as they are.
    pub fn free(&mut self, slot: CPtr) {
        if let Some(cnode) = self.cnodes.iter_mut().find(|c| c.l1 == slot.l1()) {
            cnode.free[slot.l2() as usize / 64] |= 1 << (slot.l2() % 64);
        }
    }

    /// Number of free slots.
    pub fn free_slots(&self) -> u32 {
        self.cnodes.iter().flat_map(|c| &c.free).map(|w| w.count_ones()).sum()
    }

    /// Whether the table of CNodes has room for no other.
    pub fn is_full(&self) -> bool {
        self.cnodes.is_full()
    }

    /// Number of CNodes in use.
    pub fn cnodes(&self) -> usize {
        self.cnodes.len()
    }
}

fn find(free: &[u64; WORDS], count: u32) -> Option<u32> {
    if count == 1 {
        let word = free.iter().position(|&w| w != 0)?;
        return Some(word as u32 * 64 + free[word].trailing_zeros());
    }
    let mut run = 0;
    for slot in 0..L2_SLOTS {
        run = if free[slot as usize / 64] >> (slot % 64) & 1 == 1 { run + 1 } else { 0 };
        if run == count && count > 0 {
            return Some(slot + 1 - count);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_handed_out_once_and_come_back() {
        let mut s = Slots::new();
        assert_eq!(s.allocate(1), None);
        assert!(s.add(0, 250) && s.add(16, 0));
        let first: std::vec::Vec<_> = (0..6).map(|_| s.allocate(1).unwrap()).collect();
        assert_eq!(first, (250..256).map(|i| CPtr::new(0, i)).collect::<std::vec::Vec<_>>());
        assert_eq!(s.allocate(1), Some(CPtr::new(16, 0)));
        s.free(CPtr::new(0, 252));
        assert_eq!(s.allocate(1), Some(CPtr::new(0, 252)));
        assert_eq!(s.free_slots(), 255);
        s.free(CPtr::new(9, 9));
        assert_eq!(s.free_slots(), 255, "a CNode that is not ours");
    }

    #[test]
    fn a_run_lies_in_one_cnode() {
        let mut s = Slots::new();
        assert!(s.add(0, 200) && s.add(1, 0));
        assert_eq!(s.allocate(57), Some(CPtr::new(1, 0)));
        assert_eq!(s.allocate(56), Some(CPtr::new(0, 200)));
        s.free(CPtr::new(1, 10));
        assert_eq!(s.allocate(2), Some(CPtr::new(1, 57)));
        assert_eq!(s.allocate(0), None);
        assert_eq!(s.allocate(257), None);
    }
}
