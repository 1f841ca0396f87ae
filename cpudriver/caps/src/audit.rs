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
use crate::tree::{self, Key, balance, summary};
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
    /// A subtree's height or limit is not what its children make it.
    Summary,
    /// The heights of two subtrees differ by more than one.
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
        if summary(slots, slot) != (node.height, node.max_limit) {
            return Err(AuditError::Summary);
        }
        if balance(slots, slot).abs() > 1 {
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
