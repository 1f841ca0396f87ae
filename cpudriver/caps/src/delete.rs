//! Deleting a capability, and the object with its last one.
//!
//! A capability that has copies just goes. The last one takes its object along: the kernel lets go of it
//! ([`Objects::finalize`]), then what hangs on it goes: the mappings of a frame or page table, the
//! capabilities in a CNode. RAM has nothing to let go of, and its descendants stay, within whatever ancestor
//! remains; without one, the memory that no descendant covers is lost until the machine restarts.
//!
//! # CNodes
//! CNodes hold the last capabilities of CNodes, to any depth and in circles, so a dying CNode must not depend
//! on the slot from which it is deleted. Its capability therefore changes places with that in a slot of its
//! own (its *host*), and joins the list of *condemned* CNodes. What was in the host slot is now in the slot
//! to be emptied, and is deleted next, be it another CNode. So each step condemns or removes one capability,
//! nothing nests, and a condemned CNode's memory is given up only when it is empty but for itself.
//!
//! The list is worked off from its latest member. A delete is finished when the list is as long as when it
//! began; until then its slot is marked [`Mark::Waiting`].
//!
//! A slot that is being emptied is marked [`Mark::Deleting`] and stands in a list of its own: nobody may be
//! able to name it any more, if the CNode it lies in went on the way.
//!
//! # What must not go
//! If the kernel refuses the destruction of an object, or it has copies on other cores, or it was handed to
//! another core while an ancestor of it stayed here, a delete of its last capability is refused and changes
//! nothing. In a dying CNode such a capability is pinned: it stays where it is, out of
//! everyone's reach, and keeps its object's memory and its CNode from reuse, until [`CapDb::unpark`] has it
//! tried again.

use crate::cte::{Capability, Cte, Link, Mark, Phase, Remote, SlotAddr, Slots};
use crate::db::{CapDb, has_mappings};
use crate::lookup::CNode;
use crate::objects::{Budget, Objects, Progress};
use crate::tree::Key;
use lmp::objects::CTE_SIZE;
use lmp::{ObjType, SysError};

/// What looking at a slot takes of the budget, in bytes: as long as it takes to zero two of them.
const SLOT_COST: u64 = 2 * CTE_SIZE;

/// How many slots of a CNode are looked at for one to host its capability.
const HOST_STEPS: u32 = 256;

impl CapDb {
    /// Deletes the capability in `slot`, and its object if it is the last one.
    ///
    /// On the first slot of an unfinished retype, or a further one, it gives that up.
    ///
    /// Errors: `EmptySlot`; `SlotBusy` in a dying CNode; `RetryThroughMonitor` if it is the last one here, but
    /// the object has copies or descendants on other cores, or belongs to another core within memory of this
    /// one; what [`Objects::may_destroy`] refuses with;
    /// `Again`.
    pub fn delete<S: Slots, O: Objects>(
        &mut self,
        slots: &mut S,
        objects: &mut O,
        slot: SlotAddr,
        budget: &mut Budget,
    ) -> Result<(), SysError> {
        let cte = slots.get(slot);
        let floor = match (cte.cap.mark, cte.cap.ty) {
            (Mark::Ready, ObjType::Null) => return Err(SysError::EmptySlot),
            // What goes with nothing else, and in one step.
            (Mark::Ready, _) if budget.objects > 0 && self.has_copies(slots, slot) => {
                budget.take_object();
                self.remove(slots, slot);
                return Ok(());
            }
            (Mark::Condemned | Mark::Pinned, _) => return Err(SysError::SlotBusy),
            (Mark::Deleting | Mark::Waiting, _) => cte.node.count,
            (Mark::Ready | Mark::Reserving | Mark::Reserved, _) => self.depth,
        };
        if cte.cap.mark != Mark::Waiting {
            match self.destroy(slots, objects, slot, floor, budget)? {
                Progress::Again => {
                    let cte = slots.get_mut(slot);
                    if cte.cap.mark == Mark::Deleting {
                        cte.node.cursor = 1;
                    }
                    return Err(SysError::Again);
                }
                Progress::Done => {}
            }
        }
        if self.depth <= floor {
            // Whatever is in the slot but `Waiting` is not this delete's any more.
            if slots.get(slot).cap.mark == Mark::Waiting {
                *slots.get_mut(slot) = Cte::EMPTY;
            }
            return Ok(());
        }
        // The slot may be the host of its own CNode now, or lie in a CNode that goes in what follows.
        let cte = slots.get_mut(slot);
        if cte.cap.is_free() || cte.cap.mark == Mark::Waiting {
            cte.cap.mark = Mark::Waiting;
            cte.node.count = floor;
            self.current = Link::to(slot);
        }
        let progress = self.empty_condemned(slots, objects, floor, budget);
        let current = core::mem::replace(&mut self.current, Link::NONE);
        match progress {
            Progress::Again => Err(SysError::Again),
            Progress::Done => {
                if let Some(slot) = current.get() {
                    *slots.get_mut(slot) = Cte::EMPTY;
                }
                Ok(())
            }
        }
    }

    /// Finishes, as far as the budget reaches, what nobody might come back to: a revoke, and the CNodes that
    /// are being emptied. For the kernel when it has nothing else to do, and for monitors that wait for
    /// memory.
    pub fn clean<S: Slots, O: Objects>(
        &mut self,
        slots: &mut S,
        objects: &mut O,
        budget: &mut Budget,
    ) -> Progress {
        // What a revoke was refused is for those who asked for it; they will find the same on asking again.
        if self.revoke_step(slots, objects, budget) == Err(SysError::Again) {
            return Progress::Again;
        }
        loop {
            if self.empty_condemned(slots, objects, 0, budget) == Progress::Again {
                return Progress::Again;
            }
            let Some(slot) = self.deleting.get() else { return Progress::Done };
            let floor = self.depth;
            // What is refused leaves the list.
            if self.destroy(slots, objects, slot, floor, budget) == Ok(Progress::Again) {
                return Progress::Again;
            }
        }
    }

    /// Has the pinned capabilities of one CNode tried again, by the next delete, revoke or
    /// [`clean`](Self::clean). `false` if no more wait for that. For when something that could not be destroyed
    /// now can.
    pub fn unpark<S: Slots>(&mut self, slots: &mut S) -> bool {
        // CNodes that are still being emptied will be gone through once more.
        self.trial = self.trial.wrapping_add(1).max(1);
        let Some(host) = self.parked.get() else { return false };
        let node = &mut slots.get_mut(host).node;
        self.parked = node.link;
        node.cursor = 0;
        node.count = 0;
        node.link = self.condemned;
        self.condemned = Link::to(host);
        self.depth += 1;
        true
    }

    /// Works off the list of condemned CNodes until at most `floor` are left.
    pub(crate) fn empty_condemned<S: Slots, O: Objects>(
        &mut self,
        slots: &mut S,
        objects: &mut O,
        floor: u32,
        budget: &mut Budget,
    ) -> Progress {
        while self.depth > floor {
            let Some(host) = self.condemned.get() else { break };
            let Cte { cap, node } = *slots.get(host);
            if node.cursor < slots_of(&cap) as u64 {
                let index = node.cursor as u32;
                let slot = SlotAddr(cap.base).offset(index);
                if slot != host
                    && (budget.take_bytes(SLOT_COST, SLOT_COST) == 0
                        || self.empty_slot(slots, objects, host, slot, budget) == Progress::Again)
                {
                    return Progress::Again;
                }
                slots.get_mut(host).node.cursor += 1;
                continue;
            }
            if !budget.take_object() {
                return Progress::Again;
            }
            if node.count != 0 && node.count != self.trial {
                let node = &mut slots.get_mut(host).node;
                node.cursor = 0;
                node.count = 0;
                continue;
            }
            self.condemned = node.link;
            self.depth -= 1;
            if node.count == 0 {
                self.remove(slots, host);
            } else {
                slots.get_mut(host).node.link = self.parked;
                self.parked = Link::to(host);
            }
        }
        Progress::Done
    }

    /// Empties `slot` of the condemned CNode at `host`.
    fn empty_slot<S: Slots, O: Objects>(
        &mut self,
        slots: &mut S,
        objects: &mut O,
        host: SlotAddr,
        slot: SlotAddr,
        budget: &mut Budget,
    ) -> Progress {
        if slots.get(slot).cap.is_free() {
            return Progress::Done;
        }
        if self.current == Link::to(slot) {
            self.current = Link::NONE;
        }
        let floor = self.depth;
        match self.destroy(slots, objects, slot, floor, budget) {
            Ok(Progress::Again) => return Progress::Again,
            Ok(Progress::Done) => {
                let cte = slots.get_mut(slot);
                if cte.cap.mark == Mark::Waiting {
                    *cte = Cte::EMPTY;
                }
            }
            Err(_) => {
                slots.get_mut(slot).cap.mark = Mark::Pinned;
                let trial = self.trial;
                let node = &mut slots.get_mut(host).node;
                if node.count == 0 {
                    node.count = trial;
                }
            }
        }
        Progress::Done
    }

    /// Empties `slot`: deletes its capability, then whatever came into its place, until it is empty or is the
    /// host of a condemned CNode. After an error the slot holds a capability that can be used, and must stay.
    pub(crate) fn destroy<S: Slots, O: Objects>(
        &mut self,
        slots: &mut S,
        objects: &mut O,
        slot: SlotAddr,
        floor: u32,
        budget: &mut Budget,
    ) -> Result<Progress, SysError> {
        let result = self.try_destroy(slots, objects, slot, floor, budget);
        if result.is_err() {
            self.unmark_deleting(slots, slot);
        }
        result
    }

    fn try_destroy<S: Slots, O: Objects>(
        &mut self,
        slots: &mut S,
        objects: &mut O,
        slot: SlotAddr,
        floor: u32,
        budget: &mut Budget,
    ) -> Result<Progress, SysError> {
        loop {
            let Cte { cap, node } = *slots.get(slot);
            match cap.mark {
                Mark::Condemned => return Ok(Progress::Done),
                Mark::Reserving | Mark::Reserved => match self.settle(slots, objects, slot, budget) {
                    Progress::Again => return Ok(Progress::Again),
                    Progress::Done => continue,
                },
                Mark::Ready | Mark::Deleting | Mark::Waiting | Mark::Pinned => {}
            }
            if cap.is_null() {
                return Ok(Progress::Done);
            }
            if self.has_copies(slots, slot) {
                if !budget.take_object() {
                    return Ok(Progress::Again);
                }
                self.vacate(slots, slot);
                return Ok(Progress::Done);
            }
            let phase = if cap.mark == Mark::Deleting { node.phase } else { Phase::First };
            // Paid for once, so that what comes after gets further however small the budget.
            if phase == Phase::First {
                self.check_destroyable(slots, objects, &cap)?;
                if !budget.take_object() {
                    return Ok(Progress::Again);
                }
                self.mark_deleting(slots, slot, floor, Phase::Second);
            }
            if phase != Phase::Third {
                let released = matches!(cap.ty, ObjType::Ram | ObjType::Mapping)
                    || objects.finalize(&cap, slot, budget) == Progress::Done;
                if !released {
                    return Ok(Progress::Again);
                }
                slots.get_mut(slot).node.phase = Phase::Third;
            }
            if cap.ty.has_slots() {
                if self.condemn(slots, objects, slot, floor, budget)? == Progress::Again {
                    return Ok(Progress::Again);
                }
                continue;
            }
            if has_mappings(cap.ty) && self.drop_mappings(slots, objects, &cap, budget) == Progress::Again {
                return Ok(Progress::Again);
            }
            if let Some(entries) = self.entries_of(slots, &cap) {
                objects.unmap(&entries);
                budget.take_entries(entries.count);
            }
            self.vacate(slots, slot);
            return Ok(Progress::Done);
        }
    }

    /// Marks `slot` as being emptied.
    fn mark_deleting<S: Slots>(&mut self, slots: &mut S, slot: SlotAddr, floor: u32, phase: Phase) {
        self.unmark_deleting(slots, slot);
        let next = self.deleting;
        let cte = slots.get_mut(slot);
        cte.cap.mark = Mark::Deleting;
        cte.node.phase = phase;
        cte.node.count = floor;
        cte.node.link = next;
        cte.node.back = Link::NONE;
        if let Some(next) = next.get() {
            slots.get_mut(next).node.back = Link::to(slot);
        }
        self.deleting = Link::to(slot);
    }

    /// Makes `slot` one that is not being emptied, if it was.
    pub(crate) fn unmark_deleting<S: Slots>(&mut self, slots: &mut S, slot: SlotAddr) {
        let Cte { cap, node } = *slots.get(slot);
        if cap.mark != Mark::Deleting {
            return;
        }
        match node.back.get() {
            None => self.deleting = node.link,
            Some(back) => slots.get_mut(back).node.link = node.link,
        }
        if let Some(next) = node.link.get() {
            slots.get_mut(next).node.back = node.back;
        }
        let cte = slots.get_mut(slot);
        cte.cap.mark = Mark::Ready;
        cte.node.phase = Phase::First;
        cte.node.count = 0;
        cte.node.cursor = 0;
        cte.node.link = Link::NONE;
        cte.node.back = Link::NONE;
    }

    /// Empties `slot`, and leaves word for the delete that was told to come back, if one was.
    fn vacate<S: Slots>(&mut self, slots: &mut S, slot: SlotAddr) {
        let Cte { cap, node } = *slots.get(slot);
        self.remove(slots, slot);
        if cap.mark == Mark::Deleting {
            leave_word(slots, slot, node.cursor, node.count);
        }
    }

    /// May the last capability `cap` of its object go?
    fn check_destroyable<S: Slots, O: Objects>(
        &self,
        slots: &S,
        objects: &O,
        cap: &Capability,
    ) -> Result<(), SysError> {
        self.check_object(slots, objects, cap)?;
        if cap.ty.has_slots() {
            self.host(slots, objects, cap)?;
        }
        Ok(())
    }

    /// The same, but for the capabilities in a CNode.
    fn check_object<S: Slots, O: Objects>(
        &self,
        slots: &S,
        objects: &O,
        cap: &Capability,
    ) -> Result<(), SysError> {
        if cap.owner == self.core() {
            if cap.remote.intersects(Remote::COPIES | Remote::DESCENDANTS) {
                return Err(SysError::RetryThroughMonitor);
            }
            return objects.may_destroy(cap);
        }
        // The other core uses the memory; without this capability, something could be made of it here.
        match self.enclosing(slots, cap) {
            Some(outer) if slots.get(outer).cap.owner == self.core() => Err(SysError::RetryThroughMonitor),
            _ => Ok(()),
        }
    }

    /// Deletes the mappings of the object of `cap`.
    fn drop_mappings<S: Slots, O: Objects>(
        &mut self,
        slots: &mut S,
        objects: &mut O,
        cap: &Capability,
        budget: &mut Budget,
    ) -> Progress {
        let before = Key::before_type(cap, ObjType::Mapping);
        while let Some(slot) = self.tree.first_after(slots, &before) {
            let mapping = slots.get(slot).cap;
            if mapping.ty != ObjType::Mapping || mapping.base != cap.base || mapping.size != cap.size {
                break;
            }
            if !budget.take_object() {
                return Progress::Again;
            }
            if !self.has_copies(slots, slot)
                && let Some(entries) = self.entries_of(slots, &mapping)
            {
                objects.unmap(&entries);
                budget.take_entries(entries.count);
            }
            self.vacate(slots, slot);
        }
        Progress::Done
    }

    /// The slot of the CNode of `cap` that can host its capability: the first one from which the present
    /// content can be taken away.
    fn host<S: Slots, O: Objects>(
        &self,
        slots: &S,
        objects: &O,
        cap: &Capability,
    ) -> Result<SlotAddr, SysError> {
        let mut refusal = SysError::WrongState;
        for index in 0..slots_of(cap).min(HOST_STEPS) {
            let slot = SlotAddr(cap.base).offset(index);
            let content = &slots.get(slot).cap;
            // One that is a CNode itself is looked at when its turn comes.
            let fixed = match content.mark {
                Mark::Reserved | Mark::Pinned | Mark::Condemned => Err(SysError::SlotBusy),
                Mark::Ready | Mark::Deleting if !content.is_null() && !self.has_copies(slots, slot) => {
                    self.check_object(slots, objects, content)
                }
                _ => Ok(()),
            };
            match fixed {
                Ok(()) => return Ok(slot),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    /// Moves the last capability of a CNode from `slot` to the CNode's host slot, what was there to `slot`, and
    /// puts the CNode on the list.
    fn condemn<S: Slots, O: Objects>(
        &mut self,
        slots: &mut S,
        objects: &mut O,
        slot: SlotAddr,
        floor: u32,
        budget: &mut Budget,
    ) -> Result<Progress, SysError> {
        let dying = slots.get(slot).cap;
        // The capability itself may be in the slot found, which is as good.
        let host = self.host(slots, objects, &dying)?;
        if self.settle(slots, objects, host, budget) == Progress::Again {
            return Ok(Progress::Again);
        }
        // The kernel knows a reply right by its slot: it goes at once instead of changing places.
        let content = slots.get(host).cap;
        if content.ty == ObjType::Reply {
            if objects.finalize(&content, host, budget) == Progress::Again {
                return Ok(Progress::Again);
            }
            self.vacate(slots, host);
        }
        if self.current == Link::to(host) {
            self.current = Link::NONE;
        }
        let awaited = slots.get(slot).node.cursor;
        self.unmark_deleting(slots, slot);
        if host != slot {
            // What was there goes on being deleted where it stood.
            let phase = slots.get(host).node.phase;
            self.unmark_deleting(slots, host);
            self.swap(slots, slot, host);
            if slots.get(slot).cap.is_null() {
                *slots.get_mut(slot) = Cte::EMPTY;
                leave_word(slots, slot, awaited, floor);
            } else {
                self.mark_deleting(slots, slot, floor, phase);
                slots.get_mut(slot).node.cursor = awaited;
            }
        }
        let cte = slots.get_mut(host);
        cte.cap.mark = Mark::Condemned;
        cte.node.phase = Phase::First;
        cte.node.count = 0;
        cte.node.cursor = 0;
        cte.node.link = self.condemned;
        self.condemned = Link::to(host);
        self.depth += 1;
        Ok(Progress::Done)
    }

    /// Exchanges the contents of two slots, of which the first holds a capability.
    fn swap<S: Slots>(&mut self, slots: &mut S, a: SlotAddr, b: SlotAddr) {
        self.detach(slots, a);
        let in_b = !slots.get(b).cap.is_null();
        if in_b {
            self.detach(slots, b);
        }
        let cte = *slots.get(a);
        *slots.get_mut(a) = *slots.get(b);
        *slots.get_mut(b) = cte;
        self.tree.insert(slots, b);
        if in_b {
            self.tree.insert(slots, a);
        }
        // Both are on their way out, so a revoke need not keep either.
        if let Some(revoke) = &mut self.revoke
            && (revoke.kept == Some(a) || revoke.kept == Some(b))
        {
            revoke.kept = None;
        }
    }
}

/// Marks the empty `slot` as that of a finished delete, if its caller was told to come back, as `awaited` says.
fn leave_word<S: Slots>(slots: &mut S, slot: SlotAddr, awaited: u64, floor: u32) {
    if awaited != 0 {
        let cte = slots.get_mut(slot);
        cte.cap.mark = Mark::Waiting;
        cte.node.count = floor;
    }
}

/// Number of slots of the CNode that `cap` is for.
pub(crate) fn slots_of(cap: &Capability) -> u32 {
    cap.ty.own_slots().unwrap_or_else(|| CNode::new(cap).map_or(0, |cnode| cnode.slots()))
}
