//! Checking the whole database, in steps.
//!
//! Each step looks at one capability and what it is linked with, and holds by itself: it does not matter what
//! changes between the steps. The kernel checks what lies behind a capability when [`CapDb::audit_next`] has come
//! to it, with the questions asked here: which mapping made a page-table entry, whether an object exists, and
//! whether memory is accounted for.

use crate::cte::{Capability, Mapping, Mark, SlotAddr, Slots, position};
use crate::db::{CapDb, has_mappings, is_reserved, nests};
use crate::delete::slots_of;
use crate::objects::Budget;
use crate::tree::{self, Key, is_balanced, limit_below};
use lmp::ObjType;
use lmp::objects::Space;

/// Where an audit goes on. It holds no reference, so the database may change between the steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AuditCursor {
    after: Option<Key>,
    /// Where the slots in the object of the next capability are to be gone on with, and for which object.
    inside: (u64, u32),
    /// Capabilities seen so far.
    pub capabilities: u64,
    /// The slot last looked at.
    pub slot: Option<SlotAddr>,
}

/// The way outwards through the objects around an address, in search of a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MappingSearch {
    /// Where to go on.
    before: Option<Key>,
}

/// What a step of a search for a mapping came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Maps {
    /// The capability in this slot made the entry.
    By(SlotAddr),
    /// Nothing made it.
    Nothing,
    /// The budget is spent: go on with the same search.
    Again,
}

/// What a step of an audit came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuditProgress {
    /// All capabilities were looked at.
    Done,
    /// Go on with the same cursor.
    Again,
}

/// What is wrong with the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AuditError {
    /// The root has a parent.
    Root,
    /// A child's parent link does not lead back.
    ParentLink,
    /// A subtree's greatest limit is not what its children make it.
    Summary,
    /// The rank of a node is not one or two above those of its children.
    Balance,
    /// A capability stands at the wrong place.
    Order,
    /// An empty slot is in the tree.
    Empty,
    /// Two objects overlap that may not.
    Overlap,
    /// A mapping has no object.
    Orphan,
    /// A slot is marked with what cannot be under way with it.
    Mark,
    /// The list of condemned CNodes is broken.
    Condemned,
    /// The list of slots that are being emptied is broken.
    Deleting,
    /// A capability is not in the tree.
    Missing,
}

impl CapDb {
    /// Checks the next capabilities after `cursor`, one for each object of the budget: their links, balance,
    /// order, marks, that their objects lie within objects they could have been made from and overlap no
    /// others, and that the capabilities in their objects' slots are in the tree.
    pub fn audit_step<S: Slots>(
        &self,
        slots: &S,
        cursor: &mut AuditCursor,
        budget: &mut Budget,
    ) -> Result<AuditProgress, AuditError> {
        while budget.take_object() {
            let Some(slot) = self.audit_next(slots, cursor)? else { return Ok(AuditProgress::Done) };
            if self.audit_inside(slots, slot, cursor, budget)? == AuditProgress::Again {
                break;
            }
            self.audit_passed(slots, slot, cursor);
        }
        Ok(AuditProgress::Again)
    }

    /// Checks the next capability after `cursor` and says in which slot it is; `None`: that was all. The same
    /// one comes again until [`audit_passed`](Self::audit_passed) is called.
    pub fn audit_next<S: Slots>(
        &self,
        slots: &S,
        cursor: &mut AuditCursor,
    ) -> Result<Option<SlotAddr>, AuditError> {
        let after = match &cursor.after {
            None => {
                self.audit_root(slots)?;
                &Key::FIRST
            }
            Some(after) => after,
        };
        let next = self.tree.first_after(slots, after);
        if let Some(slot) = next {
            cursor.slot = Some(slot);
            self.audit_slot(slots, slot)?;
        }
        Ok(next)
    }

    /// The capability in `slot`, to which [`audit_next`](Self::audit_next) came, was checked.
    pub fn audit_passed<S: Slots>(&self, slots: &S, slot: SlotAddr, cursor: &mut AuditCursor) {
        cursor.after = Some(Key::new(&slots.get(slot).cap, slot));
        cursor.inside = (0, 0);
        cursor.capabilities += 1;
    }

    /// Checks that the capabilities in the object of the one in `slot` are in the tree, if it has slots: one
    /// for each object of the budget, and for each byte a byte of a slot.
    pub fn audit_inside<S: Slots>(
        &self,
        slots: &S,
        slot: SlotAddr,
        cursor: &mut AuditCursor,
        budget: &mut Budget,
    ) -> Result<AuditProgress, AuditError> {
        let cap = &slots.get(slot).cap;
        if !cap.ty.has_slots() || is_reserved(cap.mark) || !self.is_first(slots, slot) {
            return Ok(AuditProgress::Done);
        }
        // What was here before may be gone: the slots of what is here now are all looked at.
        if cursor.inside.0 != cap.base {
            cursor.inside = (cap.base, 0);
        }
        while cursor.inside.1 < slots_of(cap) {
            // The first byte of each slot says whether it holds anything.
            if budget.take_bytes(1, 1) == 0 {
                return Ok(AuditProgress::Again);
            }
            let inner = SlotAddr(cap.base).offset(cursor.inside.1);
            let content = &slots.get(inner).cap;
            if !content.is_null() {
                if !budget.take_object() {
                    return Ok(AuditProgress::Again);
                }
                let before = Key::just_before(content, inner);
                if self.tree.first_after(slots, &before) != Some(inner) {
                    cursor.slot = Some(inner);
                    return Err(AuditError::Missing);
                }
            }
            cursor.inside.1 += 1;
        }
        Ok(AuditProgress::Done)
    }

    /// Whether the capability in `slot` is the first one of its object in the order.
    pub fn is_first<S: Slots>(&self, slots: &S, slot: SlotAddr) -> bool {
        let cap = &slots.get(slot).cap;
        tree::previous(slots, slot).is_none_or(|before| !slots.get(before).cap.is_same_object(cap))
    }

    /// Whether there is an object of type `ty`, of `size`, at `base`.
    pub fn exists<S: Slots>(&self, slots: &S, ty: ObjType, base: u64, size: u64) -> bool {
        let wanted = Capability::new(ty, base, size, self.core());
        self.leader(slots, &wanted).is_some_and(|slot| !is_reserved(slots.get(slot).cap.mark))
    }

    /// Which mapping made `entry` of the page table at `table` with `generation`, which now points to `address`.
    /// Each entry of a table of this level maps `span` bytes. Looks at the objects around the address from the
    /// inside out, one for each object of the budget.
    pub fn made_by<S: Slots>(
        &self,
        slots: &S,
        (table, generation, entry): (u64, u64, u16),
        address: u64,
        span: u64,
        search: &mut MappingSearch,
        budget: &mut Budget,
    ) -> Maps {
        let at = position(Space::Memory, address);
        let wanted = Mapping { table, generation, entry, count: 0, offset: 0 };
        loop {
            if !budget.take_object() {
                return Maps::Again;
            }
            let before = search.before.unwrap_or(Key::after_position(at));
            let Some(around) = self.tree.last_reaching(slots, &before, at) else { return Maps::Nothing };
            let cap = &slots.get(around).cap;
            search.before = Some(Key::before_range(cap));
            // Behind its copies come an object's mappings: the last one met here may be one of them.
            if cap.ty != ObjType::Mapping && !has_mappings(cap.ty) {
                continue;
            }
            let Some(slot) = self.tree.last_before(slots, &Key::after_mapping(cap, wanted)) else { continue };
            let found = &slots.get(slot).cap;
            if (found.base, found.size) != (cap.base, cap.size) {
                continue;
            }
            let Some(mapping) = found.mapping() else { continue };
            let Some(nth) = entry.checked_sub(mapping.entry) else { continue };
            let points_to = found.base + mapping.offset + u64::from(nth) * span;
            if (mapping.table, mapping.generation) == (table, generation)
                && nth < mapping.count
                && points_to == address
            {
                return Maps::By(slot);
            }
        }
    }

    /// Up to which address the memory at `base` is covered by one capability; `None` if it is by none.
    pub fn covered<S: Slots>(&self, slots: &S, base: u64) -> Option<u64> {
        let at = position(Space::Memory, base);
        let outermost = &slots.get(self.tree.first_reaching(slots, &Key::FIRST, at)?).cap;
        (outermost.position() <= at).then(|| outermost.end())
    }

    fn audit_root<S: Slots>(&self, slots: &S) -> Result<(), AuditError> {
        if let Some(root) = self.tree.root()
            && slots.get(root).node.parent.get().is_some()
        {
            return Err(AuditError::Root);
        }
        match (self.depth, self.condemned.get()) {
            (0, None) => Ok(()),
            (1.., Some(host)) if slots.get(host).cap.mark == Mark::Condemned => Ok(()),
            _ => Err(AuditError::Condemned),
        }
    }

    fn audit_slot<S: Slots>(&self, slots: &S, slot: crate::SlotAddr) -> Result<(), AuditError> {
        let cte = slots.get(slot);
        let (cap, node) = (&cte.cap, &cte.node);
        if cap.is_null() {
            return Err(AuditError::Empty);
        }
        for child in [node.left, node.right] {
            if let Some(child) = child.get()
                && slots.get(child).node.parent.get() != Some(slot)
            {
                return Err(AuditError::ParentLink);
            }
        }
        if limit_below(slots, slot) != node.max_limit {
            return Err(AuditError::Summary);
        }
        if !is_balanced(slots, slot) {
            return Err(AuditError::Balance);
        }
        let key = Key::new(cap, slot);
        let left = node.left.get().is_some_and(|l| Key::new(&slots.get(l).cap, l) >= key);
        let right = node.right.get().is_some_and(|r| Key::new(&slots.get(r).cap, r) <= key);
        if left || right {
            return Err(AuditError::Order);
        }
        match cap.mark {
            Mark::Ready | Mark::Reserving | Mark::Pinned => {}
            Mark::Deleting => {
                let link_here = match node.back.get() {
                    None => self.deleting,
                    Some(back) => slots.get(back).node.link,
                };
                let back_here =
                    node.link.get().is_none_or(|next| slots.get(next).node.back.get() == Some(slot));
                if link_here.get() != Some(slot) || !back_here {
                    return Err(AuditError::Deleting);
                }
            }
            Mark::Reserved => {
                let first = node.link.get().map(|first| slots.get(first).cap.mark);
                if first != Some(Mark::Reserving) {
                    return Err(AuditError::Mark);
                }
            }
            Mark::Condemned => {
                if !cap.ty.has_slots() || !(cap.base..cap.end()).contains(&slot.0) {
                    return Err(AuditError::Mark);
                }
            }
            Mark::Waiting => return Err(AuditError::Mark),
        }
        let reserved_within = |outer: &crate::Capability| {
            outer.mark == Mark::Reserving && cap.mark == Mark::Reserved && outer.ty == cap.ty
        };
        match self.enclosing(slots, cap).map(|outer| &slots.get(outer).cap) {
            Some(outer) if !nests(outer, cap) && !reserved_within(outer) => Err(AuditError::Overlap),
            Some(outer)
                if cap.ty == ObjType::Mapping && (outer.base != cap.base || outer.size != cap.size) =>
            {
                Err(AuditError::Orphan)
            }
            None if cap.ty == ObjType::Mapping => Err(AuditError::Orphan),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cte::{CoreId, Cte, Link};
    use crate::lookup::{Level, Place};
    use lmp::objects::{CTE_SIZE, PAGE_SIZE};
    use std::vec;
    use std::vec::Vec;

    const CORE: CoreId = CoreId(1);
    /// Where the slots are.
    const SLOTS: u64 = 0x10_0000;

    #[derive(Clone)]
    struct Memory(Vec<Cte>);

    fn index(slot: SlotAddr) -> usize {
        ((slot.0 - SLOTS) / CTE_SIZE) as usize
    }

    fn at(n: u32) -> SlotAddr {
        SlotAddr(SLOTS).offset(n)
    }

    impl Slots for Memory {
        fn get(&self, slot: SlotAddr) -> &Cte {
            &self.0[index(slot)]
        }
        fn get_mut(&mut self, slot: SlotAddr) -> &mut Cte {
            &mut self.0[index(slot)]
        }
    }

    impl Memory {
        /// Corrects limits after damage that is not to be seen by them.
        fn refresh(&mut self) {
            for _ in 0..8 {
                for n in 0..self.0.len() as u32 {
                    if self.get(at(n)).node.rank > 0 {
                        let limit = limit_below(self, at(n));
                        self.get_mut(at(n)).node.max_limit = limit;
                    }
                }
            }
        }
    }

    fn ram(n: u64) -> Capability {
        Capability::new(ObjType::Ram, n * 4 * PAGE_SIZE, 2 * PAGE_SIZE, CORE)
    }

    /// Seven pieces of RAM in the first seven slots of a CNode: a full tree of three levels, its root in slot 3.
    fn full() -> (CapDb, Memory) {
        let (mut db, mut memory) = (CapDb::new(CORE), Memory(vec![Cte::EMPTY; 256]));
        for n in 0..7 {
            put(&mut db, &mut memory, n, ram(n.into()));
        }
        assert_eq!(db.tree.root(), Some(at(3)));
        assert_eq!(memory.get(at(3)).node.rank, 3);
        assert_eq!(audit(&db, &memory), Ok(7));
        (db, memory)
    }

    fn put(db: &mut CapDb, memory: &mut Memory, n: u32, cap: Capability) {
        let place = Place { slot: at(n), level: Level::L2, room: 1 };
        assert_eq!(db.insert_root(memory, place, cap), Ok(()));
    }

    /// The whole audit in small steps; how many capabilities it saw.
    fn audit(db: &CapDb, memory: &Memory) -> Result<u64, AuditError> {
        let mut cursor = AuditCursor::default();
        while db.audit_step(memory, &mut cursor, &mut Budget { objects: 2, bytes: 64 })?
            == AuditProgress::Again
        {}
        Ok(cursor.capabilities)
    }

    /// What the audit says after `damage` to seven pieces of RAM.
    fn damaged(damage: impl FnOnce(&mut CapDb, &mut Memory)) -> AuditError {
        let (mut db, mut memory) = full();
        damage(&mut db, &mut memory);
        audit(&db, &memory).expect_err("the audit sees nothing")
    }

    #[test]
    fn damage_to_the_links_is_seen() {
        assert_eq!(damaged(|_, m| m.get_mut(at(3)).node.parent = Link::to(at(0))), AuditError::Root);
        for n in [0, 2, 5] {
            assert_eq!(damaged(|_, m| m.get_mut(at(n)).node.parent = Link::NONE), AuditError::ParentLink);
        }
        for n in 0..7 {
            // A root may be two above its children, as long as it is not three.
            let wrong = if n == 3 { 2 } else { 1 };
            assert_eq!(damaged(|_, m| m.get_mut(at(n)).node.rank += wrong), AuditError::Balance);
            assert_eq!(damaged(|_, m| m.get_mut(at(n)).node.max_limit += 1), AuditError::Summary);
        }
        // One side is missing altogether.
        for left in [true, false] {
            let error = damaged(|_, m| {
                let node = &mut m.get_mut(at(3)).node;
                if left {
                    node.left = Link::NONE
                } else {
                    node.right = Link::NONE
                }
                m.refresh();
            });
            assert_eq!(error, AuditError::Balance);
        }
    }

    #[test]
    fn a_capability_at_the_wrong_place_is_seen() {
        // A right child before its parent.
        let error = damaged(|_, m| {
            m.get_mut(at(2)).cap.base = ram(0).base + PAGE_SIZE;
            m.get_mut(at(2)).cap.size = PAGE_SIZE;
            m.refresh();
        });
        assert_eq!(error, AuditError::Order);
    }

    #[test]
    fn an_empty_slot_in_the_tree_is_seen() {
        let (mut db, mut memory) = (CapDb::new(CORE), Memory(vec![Cte::EMPTY; 2]));
        put(&mut db, &mut memory, 0, ram(1));
        memory.get_mut(at(0)).cap = Capability { base: ram(1).base, ..Capability::NULL };
        assert_eq!(audit(&db, &memory), Err(AuditError::Empty));
    }

    #[test]
    fn marks_that_nothing_stands_for_are_seen() {
        let mark = |n, mark| damaged(move |_, m| m.get_mut(at(n)).cap.mark = mark);
        for n in 0..7 {
            assert_eq!(mark(n, Mark::Waiting), AuditError::Mark);
            assert_eq!(mark(n, Mark::Reserved), AuditError::Mark);
            assert_eq!(mark(n, Mark::Condemned), AuditError::Mark);
            assert_eq!(mark(n, Mark::Deleting), AuditError::Deleting);
        }
        // A CNode's last capability that is not in the CNode.
        let error = damaged(|db, m| {
            put(db, m, 8, Capability::new(ObjType::L2CNode, 1 << 20, 256 * CTE_SIZE, CORE));
            m.get_mut(at(8)).cap.base += 1 << 20;
            m.refresh();
            m.get_mut(at(8)).cap.mark = Mark::Condemned;
        });
        assert_eq!(error, AuditError::Mark);
        // And one that is.
        let (mut db, mut memory) = full();
        put(&mut db, &mut memory, 8, Capability::new(ObjType::L2CNode, SLOTS, 256 * CTE_SIZE, CORE));
        memory.get_mut(at(8)).cap.mark = Mark::Condemned;
        assert_eq!(audit(&db, &memory), Ok(8));
        // What is in the CNode, but has no slots.
        let error = damaged(|db, m| {
            put(db, m, 8, Capability::new(ObjType::Ram, SLOTS, PAGE_SIZE, CORE));
            m.get_mut(at(8)).cap.mark = Mark::Condemned;
        });
        assert_eq!(error, AuditError::Mark);
    }

    #[test]
    fn a_broken_list_of_condemned_cnodes_is_seen() {
        assert_eq!(damaged(|db, _| db.depth = 1), AuditError::Condemned);
        assert_eq!(damaged(|db, _| db.condemned = Link::to(at(2))), AuditError::Condemned);
        let both = |db: &mut CapDb| (db.depth, db.condemned) = (1, Link::to(at(8)));
        let error = damaged(|db, m| {
            put(db, m, 8, Capability::new(ObjType::L2CNode, SLOTS, 256 * CTE_SIZE, CORE));
            both(db);
        });
        assert_eq!(error, AuditError::Condemned);
        let (mut db, mut memory) = full();
        put(&mut db, &mut memory, 8, Capability::new(ObjType::L2CNode, SLOTS, 256 * CTE_SIZE, CORE));
        memory.get_mut(at(8)).cap.mark = Mark::Condemned;
        both(&mut db);
        assert_eq!(audit(&db, &memory), Ok(8));
    }

    #[test]
    fn a_broken_list_of_slots_being_emptied_is_seen() {
        // Slots 1, 5, 2 in this order.
        let (mut db, mut memory) = full();
        db.deleting = Link::to(at(1));
        for (n, back, next) in [(1, None, Some(5)), (5, Some(1), Some(2)), (2, Some(5), None)] {
            let cte = memory.get_mut(at(n));
            cte.cap.mark = Mark::Deleting;
            (cte.node.back, cte.node.link) = (link(back), link(next));
        }
        assert_eq!(audit(&db, &memory), Ok(7));
        for n in [1, 5, 2] {
            for wrong in [Link::NONE, Link::to(at(4))] {
                for back in [true, false] {
                    let mut memory = memory.clone();
                    let node = &mut memory.get_mut(at(n)).node;
                    let end = if back { &mut node.back } else { &mut node.link };
                    if *end == wrong {
                        continue;
                    }
                    *end = wrong;
                    assert_eq!(audit(&db, &memory), Err(AuditError::Deleting), "{n} {back} {wrong:?}");
                }
            }
        }
        db.deleting = Link::NONE;
        assert_eq!(audit(&db, &memory), Err(AuditError::Deleting));
    }

    fn link(n: Option<u32>) -> Link {
        n.map_or(Link::NONE, |n| Link::to(at(n)))
    }

    #[test]
    fn objects_that_overlap_are_seen() {
        let error = damaged(|_, m| {
            m.get_mut(at(0)).cap.size = 5 * PAGE_SIZE;
            m.refresh();
        });
        assert_eq!(error, AuditError::Overlap);
    }

    #[test]
    fn only_the_products_of_a_retype_lie_within_its_reservation() {
        let found = |ty, mark| {
            let (mut db, mut memory) = (CapDb::new(CORE), Memory(vec![Cte::EMPTY; 16]));
            let whole = Capability::new(ObjType::Notification, 1 << 20, 128, CORE);
            db.put(&mut memory, at(0), Capability { mark: Mark::Reserving, ..whole });
            let inner = Capability::new(ty, (1 << 20) + 64, 64, CORE);
            db.put(&mut memory, at(1), Capability { mark, ..inner });
            memory.get_mut(at(1)).node.link = Link::to(at(0));
            audit(&db, &memory)
        };
        assert_eq!(found(ObjType::Notification, Mark::Reserved), Ok(2));
        assert_eq!(found(ObjType::Notification, Mark::Ready), Err(AuditError::Overlap));
        assert_eq!(found(ObjType::Link, Mark::Reserved), Err(AuditError::Overlap));
        assert_eq!(found(ObjType::Link, Mark::Ready), Err(AuditError::Overlap));
    }

    #[test]
    fn a_mapping_without_its_frame_is_seen() {
        let table = Mapping { table: 1 << 30, generation: 1, entry: 0, count: 1, offset: 0 };
        let mapping = |base, size| Capability {
            data: table.encode(),
            ..Capability::new(ObjType::Mapping, base, size, CORE)
        };
        let found = |frame: Capability, mapping: Capability| {
            let (mut db, mut memory) = (CapDb::new(CORE), Memory(vec![Cte::EMPTY; 16]));
            put(&mut db, &mut memory, 0, frame);
            db.put(&mut memory, at(1), mapping);
            audit(&db, &memory)
        };
        let frame = Capability::new(ObjType::Frame, 1 << 20, 2 * PAGE_SIZE, CORE);
        assert_eq!(found(frame, mapping(1 << 20, 2 * PAGE_SIZE)), Ok(2));
        assert_eq!(found(frame, mapping(1 << 20, PAGE_SIZE)), Err(AuditError::Orphan));
        assert_eq!(found(frame, mapping((1 << 20) + PAGE_SIZE, PAGE_SIZE)), Err(AuditError::Orphan));
        assert_eq!(found(frame, mapping(1 << 21, PAGE_SIZE)), Err(AuditError::Orphan));
    }
}
