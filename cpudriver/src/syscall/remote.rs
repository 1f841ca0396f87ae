//! What a monitor tells its CPU driver about other cores: memory of theirs, and relations with them. The
//! authority is the KCB.

use super::{Invoked, Registers};
use crate::arch::{apic, cpu};
use crate::core_state::{Core, Memory};
use crate::instance::BLOCK;
use caps::{Capability, CoreId, Place, Remote};
use lmp::cptr::SlotRef;
use lmp::objects::PAGE_SIZE;
use lmp::{ObjType, Rights, SysError, SysResult};

/// The slot that message word 0 names in the caller's space.
fn slot(core: &Core, r: &Registers<'_>) -> SysResult<Place> {
    let slot = SlotRef::decode(r.word(0)).ok_or(SysError::NoSuchSlot)?;
    core.k.cspace.resolve(&Memory, slot)
}

/// Whether memory at `base` is this core's own, whatever it is used for.
fn is_own(core: &Core, base: u64, len: u64) -> bool {
    let overlaps = |start: u64, size: u64| base < start + size && start < base + len;
    core.k.window.overlaps(base, len)
        || overlaps(core.k.handover.block, BLOCK)
        || overlaps(apic::XAPIC_BASE, PAGE_SIZE)
}

pub(super) fn create_foreign(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    it.expect(ObjType::Kcb)?;
    it.need(Rights::WRITE)?;
    let dst = slot(core, r)?;
    let (what, base, size) = (r.word(1), r.word(2), r.word(3));
    if ObjType::from_code(what as u8) != Some(ObjType::Frame) {
        return Err(SysError::WrongType);
    }
    let rights = u8::try_from(what >> 8).ok().and_then(Rights::from_bits).ok_or(SysError::BadArgument)?;
    let owner = u16::try_from(r.word(4)).map(CoreId).map_err(|_| SysError::BadArgument)?;
    // The entry of a page table has no room for more: the CPU driver itself would fault on it.
    if base.checked_add(size).is_none_or(|end| end > 1 << cpu::physical_bits()) {
        return Err(SysError::OutOfRange);
    }
    if is_own(core, base, size) {
        return Err(SysError::Overlap);
    }
    let cap = Capability::new(ObjType::Frame, base, size, owner).with_rights(rights);
    core.db.insert_foreign(&mut Memory, dst, cap)
}

pub(super) fn set_remote(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    it.expect(ObjType::Kcb)?;
    it.need(Rights::WRITE)?;
    let slot = slot(core, r)?.slot;
    let remote = u8::try_from(r.word(1)).ok().and_then(Remote::from_bits).ok_or(SysError::BadArgument)?;
    core.db.set_remote(&mut Memory, slot, remote)
}
