//! Checking the whole database, in steps.

use crate::cte::{Mark, Slots};
use crate::db::{CapDb, nests};
use crate::objects::Budget;
use crate::tree::{Key, is_balanced, limit_below};
use lmp::ObjType;

/// Where an audit goes on. It holds no reference, so the database may change between the steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AuditCursor {
    after: Option<Key>,
    /// Capabilities seen so far.
    pub capabilities: u64,
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
}

impl CapDb {
    /// Checks the next capabilities after `cursor`, one for each object of the budget: their links, balance,
    /// order, marks, and that their objects lie within objects they could have been made from and overlap no
    /// others.
    pub fn audit_step<S: Slots>(
        &self,
        slots: &S,
        cursor: &mut AuditCursor,
        budget: &mut Budget,
    ) -> Result<AuditProgress, AuditError> {
        if cursor.after.is_none() {
            self.audit_root(slots)?;
        }
        while budget.take_object() {
            let next = match &cursor.after {
                None => self.tree.first_after(slots, &Key::FIRST),
                Some(after) => self.tree.first_after(slots, after),
            };
            let Some(slot) = next else { return Ok(AuditProgress::Done) };
            self.audit_slot(slots, slot)?;
            cursor.after = Some(Key::new(&slots.get(slot).cap, slot));
            cursor.capabilities += 1;
        }
        Ok(AuditProgress::Again)
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
