//! Operations on the slots of a capability space: invocations of an L1 CNode.

use super::{Invoked, Registers, check_caller};
use crate::core_state::{Core, Memory};
use caps::{Budget, CSpace, Place, Request, SlotAddr};
use lmp::cptr::SlotRef;
use lmp::{ObjType, Rights, SysError, SysResult};

/// The slot that word `n` names in the invoked space.
fn destination(r: &Registers<'_>, n: usize, it: Invoked<'_>) -> SysResult<Place> {
    let slot = SlotRef::decode(r.word(n)).ok_or(SysError::NoSuchSlot)?;
    CSpace::new(it.cap).map_err(|_| SysError::NoSuchOperation)?.resolve(&Memory, slot)
}

/// The slot that word `n` names in the caller's space.
fn source(core: &Core, r: &Registers<'_>, n: usize) -> SysResult<SlotAddr> {
    let slot = SlotRef::decode(r.word(n)).ok_or(SysError::NoSuchSlot)?;
    Ok(core.k.cspace.resolve(&Memory, slot)?.slot)
}

pub(super) fn copy(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    it.expect(ObjType::L1CNode)?;
    it.need(Rights::WRITE)?;
    let (dst, src) = (destination(r, 0, it)?, source(core, r, 1)?);
    core.db.copy(&mut Memory, dst, src)
}

pub(super) fn mint(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    it.expect(ObjType::L1CNode)?;
    it.need(Rights::WRITE)?;
    let (dst, src) = (destination(r, 0, it)?, source(core, r, 1)?);
    let rights = u8::try_from(r.word(2)).ok().and_then(Rights::from_bits).ok_or(SysError::BadArgument)?;
    core.db.mint(&mut Memory, dst, src, rights, r.word(3))
}

pub(super) fn retype(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    it.expect(ObjType::L1CNode)?;
    it.need(Rights::WRITE)?;
    let (dst, src) = (destination(r, 0, it)?, source(core, r, 1)?);
    let ty = u8::try_from(r.word(2)).ok().and_then(ObjType::from_code).ok_or(SysError::BadArgument)?;
    let request = Request { ty, offset: r.word(3), size: r.word(4), count: r.word(5) };
    let mut budget = Budget::ENTRY;
    core.db.retype(&mut Memory, &mut core.k, dst, src, request, &mut budget)
}

pub(super) fn delete(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    it.expect(ObjType::L1CNode)?;
    it.need(Rights::WRITE)?;
    let slot = destination(r, 0, it)?.slot;
    let mut budget = Budget::ENTRY;
    let result = core.db.delete(&mut Memory, &mut core.k, slot, &mut budget);
    check_caller(core)?;
    result
}

pub(super) fn revoke(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    it.expect(ObjType::L1CNode)?;
    it.need(Rights::WRITE)?;
    let slot = destination(r, 0, it)?.slot;
    let mut budget = Budget::ENTRY;
    let result = core.db.revoke(&mut Memory, &mut core.k, slot, &mut budget);
    check_caller(core)?;
    result
}

pub(super) fn identify(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    it.expect(ObjType::L1CNode)?;
    it.need(Rights::READ)?;
    let slot = destination(r, 0, it)?.slot;
    let words = core.db.identify(&Memory, slot)?.words();
    for (n, word) in words.into_iter().enumerate() {
        r.set_word(n, word);
    }
    Ok(())
}
