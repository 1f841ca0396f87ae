//! Deleting all descendants and all other copies of a capability.
//!
//! One revoke is under way at a time, recorded in the database by the object it is about, so it runs to its
//! end even if the capability that it began from goes on the way. Whoever wants another revoke meanwhile
//! takes the first one further. Nothing can be made from the object, its copies or its descendants until it
//! ends, so that no descendant survives, and each step looks for the next one afresh.

use crate::cte::{Capability, Mark, Remote, SlotAddr, Slots};
use crate::db::{CapDb, is_descendant};
use crate::objects::{Budget, Objects, Progress};
use crate::tree::{self, Key};
use lmp::SysError;

/// A revoke under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Revoke {
    /// The capability that stays, if it still exists.
    pub(crate) kept: Option<SlotAddr>,
    /// What it is for.
    object: Capability,
    /// The last descendant met that could not be deleted.
    passed: Option<Key>,
    /// Why not: what the first of them was refused with.
    refusal: Option<SysError>,
    /// Length of the list of condemned CNodes to come down to at the end.
    floor: u32,
}

impl Revoke {
    /// Whether `cap` is for the object or a descendant.
    pub(crate) fn covers(&self, cap: &Capability) -> bool {
        cap.is_same_object(&self.object)
            || (cap.position() >= self.object.position() && is_descendant(&self.object, cap))
    }
}

impl CapDb {
    /// Deletes all descendants and all other copies of the capability in `slot`, which stays usable but for
    /// making new capabilities from it.
    ///
    /// Of memory of another core that can be mapped, it deletes the copies and mappings of this core.
    ///
    /// Errors: `EmptySlot`; `SlotBusy`; `RetryThroughMonitor` if the object or a descendant has remote
    /// relations, or another owner and is not mappable; what the kernel refused the destruction of a descendant with (everything
    /// else is gone then); `Again`: not finished, or another revoke comes first.
    pub fn revoke<S: Slots, O: Objects>(
        &mut self,
        slots: &mut S,
        objects: &mut O,
        slot: SlotAddr,
        budget: &mut Budget,
    ) -> Result<(), SysError> {
        let cap = self.usable(slots, slot)?;
        match &self.revoke {
            Some(r) if r.kept == Some(slot) => {}
            Some(_) => {
                // What it comes to is for those who asked for it.
                let _ = self.revoke_step(slots, objects, budget);
                return Err(SysError::Again);
            }
            None => {
                if (cap.owner != self.core() && !cap.ty.is_mappable())
                    || self.remote_of(slots, slot).intersects(Remote::COPIES | Remote::DESCENDANTS)
                {
                    return Err(SysError::RetryThroughMonitor);
                }
                if self.take_copies(slots, slot, &cap, budget) {
                    return Ok(());
                }
                self.revoke = Some(Revoke {
                    kept: Some(slot),
                    object: cap,
                    passed: None,
                    refusal: None,
                    floor: self.depth,
                });
            }
        }
        self.revoke_step(slots, objects, budget)
    }

    /// Deletes the other copies of the capability `cap` in `slot`, as far as nothing is under way with them: with each,
    /// nothing goes but its slot's content. Whether nothing is left to be revoked.
    #[inline]
    fn take_copies<S: Slots>(
        &mut self,
        slots: &mut S,
        slot: SlotAddr,
        cap: &Capability,
        budget: &mut Budget,
    ) -> bool {
        let copy =
            |slots: &S, other: Option<SlotAddr>| other.filter(|s| slots.get(*s).cap.is_same_object(cap));
        loop {
            let behind = tree::next(slots, slot);
            let victim = match copy(slots, behind) {
                Some(victim) => victim,
                None => match copy(slots, tree::previous(slots, slot)) {
                    Some(victim) => victim,
                    // Behind the copies of an object come its descendants.
                    None => {
                        return behind.is_none_or(|s| !is_descendant(cap, &slots.get(s).cap));
                    }
                },
            };
            if slots.get(victim).cap.mark != Mark::Ready || !budget.take_object() {
                return false;
            }
            self.remove(slots, victim);
        }
    }

    /// Takes the revoke under way as far as the budget reaches.
    pub(crate) fn revoke_step<S: Slots, O: Objects>(
        &mut self,
        slots: &mut S,
        objects: &mut O,
        budget: &mut Budget,
    ) -> Result<(), SysError> {
        if let Some(Revoke { kept: Some(slot), object, .. }) = self.revoke {
            self.take_copies(slots, slot, &object, budget);
        }
        while let Some(revoke) = self.revoke {
            let Some(victim) = self.victim(slots, &revoke) else {
                if self.empty_condemned(slots, objects, revoke.floor, budget) == Progress::Again {
                    return Err(SysError::Again);
                }
                self.revoke = None;
                return revoke.refusal.map_or(Ok(()), Err);
            };
            let refusal = if slots.get(victim).cap.mark == Mark::Condemned {
                if self.depth > 0 {
                    // It is somewhere on the list, and the list is all that can be looked at afterwards.
                    match self.empty_condemned(slots, objects, 0, budget) {
                        Progress::Again => return Err(SysError::Again),
                        Progress::Done => continue,
                    }
                }
                SysError::WrongState
            } else {
                let floor = self.depth;
                match self.destroy(slots, objects, victim, floor, budget) {
                    Ok(Progress::Done) => continue,
                    Ok(Progress::Again) => return Err(SysError::Again),
                    Err(refusal) => refusal,
                }
            };
            let passed = Key::new(&slots.get(victim).cap, victim);
            if let Some(revoke) = &mut self.revoke {
                revoke.passed = Some(passed);
                revoke.refusal = revoke.refusal.or(Some(refusal));
            }
        }
        Ok(())
    }

    /// The next capability that the revoke has to delete.
    fn victim<S: Slots>(&self, slots: &S, revoke: &Revoke) -> Option<SlotAddr> {
        if let Some(copy) = self.copy_to_go(slots, revoke) {
            return Some(copy);
        }
        self.first_descendant(slots, &revoke.object, revoke.passed)
    }

    fn copy_to_go<S: Slots>(&self, slots: &S, revoke: &Revoke) -> Option<SlotAddr> {
        let start = Key::before_copies(&revoke.object);
        let mut after = revoke.passed.map_or(start, |passed| passed.max(start));
        loop {
            let slot = self.tree.first_after(slots, &after)?;
            let cap = &slots.get(slot).cap;
            if !cap.is_same_object(&revoke.object) {
                return None;
            }
            if Some(slot) != revoke.kept {
                return Some(slot);
            }
            after = Key::new(cap, slot);
        }
    }
}
