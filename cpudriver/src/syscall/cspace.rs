//! Operations on the slots of a capability space: invocations of an L1 CNode.

use super::{Invoked, Registers, check_caller};
use crate::core_state::{Core, Memory};
use caps::{Budget, CSpace, Place, Request, SlotAddr};
use lmp::arguments::{self, OneSlot};
use lmp::cptr::SlotRef;
use lmp::{ObjType, Rights, SysError, SysResult};

/// Where `slot` is in the invoked space.
fn destination(slot: SlotRef, it: Invoked<'_>) -> SysResult<Place> {
    CSpace::new(it.cap).map_err(|_| SysError::NoSuchOperation)?.resolve(&Memory, slot)
}

/// Where `slot` is in the caller's space.
fn source(core: &Core, slot: SlotRef) -> SysResult<SlotAddr> {
    Ok(core.k.cspace.resolve(&Memory, slot)?.slot)
}

pub(super) fn copy(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    it.expect(ObjType::L1CNode)?;
    it.need(Rights::WRITE)?;
    let a = arguments::Copy::read(r)?;
    let (dst, src) = (destination(a.dst, it)?, source(core, a.src)?);
    core.db.copy(&mut Memory, dst, src)
}

pub(super) fn mint(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    it.expect(ObjType::L1CNode)?;
    it.need(Rights::WRITE)?;
    let a = arguments::Mint::read(r)?;
    let (dst, src) = (destination(a.dst, it)?, source(core, a.src)?);
    core.db.mint(&mut Memory, dst, src, a.rights, a.badge)
}

pub(super) fn retype(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    it.expect(ObjType::L1CNode)?;
    it.need(Rights::WRITE)?;
    let a = arguments::Retype::read(r)?;
    let (dst, src) = (destination(a.dst, it)?, source(core, a.src)?);
    let request = Request { ty: a.ty, offset: a.offset, size: a.size, count: a.count };
    let mut budget = Budget::ENTRY;
    core.db.retype(&mut Memory, &mut core.k, dst, src, request, &mut budget)
}

pub(super) fn delete(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    it.expect(ObjType::L1CNode)?;
    it.need(Rights::WRITE)?;
    let slot = destination(OneSlot::read(r)?.slot, it)?.slot;
    let mut budget = Budget::ENTRY;
    let result = core.db.delete(&mut Memory, &mut core.k, slot, &mut budget);
    check_caller(core)?;
    result
}

pub(super) fn revoke(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    it.expect(ObjType::L1CNode)?;
    it.need(Rights::WRITE)?;
    let slot = destination(OneSlot::read(r)?.slot, it)?.slot;
    let mut budget = Budget::ENTRY;
    let result = core.db.revoke(&mut Memory, &mut core.k, slot, &mut budget);
    check_caller(core)?;
    result
}

pub(super) fn identify(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    it.expect(ObjType::L1CNode)?;
    it.need(Rights::READ)?;
    let slot = destination(OneSlot::read(r)?.slot, it)?.slot;
    let words = core.db.identify(&Memory, slot)?.words();
    for (n, word) in words.into_iter().enumerate() {
        r.set_word(n, word);
    }
    Ok(())
}
