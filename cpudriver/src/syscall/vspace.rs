//! Page tables, built by user space entry by entry.

use super::{Invoked, Registers};
use crate::arch::paging::{self, Entry};
use crate::core_state::{Core, Memory};
use crate::kernel_objects::page_table;
use caps::{Capability, Level, MappingRange, Place, Slots, Unmap};
use lmp::arguments::{Map, Protect};
use lmp::invocation::{Counter, MapFlags};
use lmp::layout::USER_ROOT_SLOTS;
use lmp::{ObjType, Rights, SysError, SysResult};

/// What an access needs of the frame's rights, and how it is written; W^X.
fn access(flags: MapFlags, frame: &Capability) -> SysResult<Entry> {
    if flags.contains(MapFlags::WRITE | MapFlags::EXECUTE) || !flags.contains(MapFlags::READ) {
        return Err(SysError::BadArgument);
    }
    let mut rights = Rights::READ;
    rights.set(Rights::WRITE, flags.contains(MapFlags::WRITE));
    rights.set(Rights::EXECUTE, flags.contains(MapFlags::EXECUTE));
    if !frame.rights.contains(rights) || (flags.contains(MapFlags::EXECUTE) && frame.ty == ObjType::DevFrame)
    {
        return Err(SysError::MissingRight);
    }
    let mut entry = Entry::PRESENT | Entry::USER;
    entry.set(Entry::WRITABLE, flags.contains(MapFlags::WRITE));
    entry.set(Entry::NO_EXECUTE, !flags.contains(MapFlags::EXECUTE));
    entry.set(Entry::UNCACHED | Entry::WRITE_THROUGH, flags.contains(MapFlags::UNCACHED));
    entry.set(Entry::LARGE, flags.contains(MapFlags::LARGE));
    Ok(entry)
}

pub(super) fn map(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    let level = it.cap.ty.vnode_level().ok_or(SysError::NoSuchOperation)?;
    it.need(Rights::WRITE)?;
    let Map { first, object, offset, flags, count, mapping } = Map::read(r)?;
    let entries = if level == 4 { USER_ROOT_SLOTS as u64 } else { 512 };
    if count == 0 || first >= entries || count > entries - first {
        return Err(SysError::OutOfRange);
    }
    let object = core.k.cspace.capability(&Memory, object)?;
    let cap = Memory.get(object).cap;
    let dst: Place = core.k.cspace.resolve(&Memory, mapping)?;
    if dst.level != Level::L2 {
        return Err(SysError::BadArgument);
    }
    let span = paging::span(level);
    let bits = if cap.ty.is_mappable() {
        let wants_large = flags.contains(MapFlags::LARGE);
        if (level == 1) == wants_large || level > 3 {
            return Err(SysError::BadArgument);
        }
        if !offset.is_multiple_of(span) || !cap.base.wrapping_add(offset).is_multiple_of(span) {
            return Err(SysError::Misaligned);
        }
        let end = count.checked_mul(span).and_then(|len| len.checked_add(offset));
        if end.is_none_or(|end| end > cap.size) {
            return Err(SysError::OutOfRange);
        }
        access(flags, &cap)?
    } else if cap.ty.vnode_level() == Some(level - 1) {
        if count != 1 || offset != 0 || flags != MapFlags::READ | MapFlags::WRITE | MapFlags::EXECUTE {
            return Err(SysError::BadArgument);
        }
        paging::USER_TABLE
    } else {
        return Err(SysError::WrongType);
    };
    // SAFETY: a VNode of this core, in the window.
    let table = unsafe { &mut *page_table(it.cap.base) };
    let entries = &mut table[first as usize..(first + count) as usize];
    if entries.iter().any(|e| *e != 0) {
        return Err(SysError::EntryOccupied);
    }
    // An entry for a table takes up the whole table, whatever is mapped through it.
    let entry_bytes = if cap.ty.is_mappable() { span } else { cap.size };
    let range = MappingRange { entry: first as u32, count: count as u32, offset, entry_bytes };
    core.db.insert_mapping(&mut Memory, dst, object, it.slot, range)?;
    for (i, e) in entries.iter_mut().enumerate() {
        *e = paging::entry(cap.base + offset + i as u64 * span, bits);
    }
    core.k.counters[Counter::PageTableWrites as usize] += count;
    Ok(())
}

pub(super) fn unmap(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    if !it.cap.ty.is_vnode() {
        return Err(SysError::NoSuchOperation);
    }
    it.need(Rights::WRITE)?;
    let slot = core.k.cspace.capability(&Memory, r.cptr(0)?)?;
    core.db.unmap(&mut Memory, &mut core.k, slot, it.cap)
}

pub(super) fn protect(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    if it.cap.ty != ObjType::Mapping {
        return Err(SysError::NoSuchOperation);
    }
    let Protect { flags } = Protect::read(r)?;
    let Unmap { table, table_type, entry, count, address } = core.db.mapping_entries(&Memory, it.slot)?;
    let large = table_type != ObjType::Pt;
    let span = paging::span(table_type.vnode_level().unwrap_or(1));
    // SAFETY: a VNode of this core, in the window, as just looked up.
    let table = unsafe { &mut *page_table(table) };
    let entries = &mut table[usize::from(entry)..usize::from(entry) + usize::from(count)];
    let is_leaf = |e: u64| e & Entry::LARGE.bits() != 0 || !large;
    for (i, e) in entries.iter().enumerate() {
        if *e & paging::ADDRESS != address + i as u64 * span || !is_leaf(*e) {
            return Err(SysError::WrongState);
        }
    }
    if flags.contains(MapFlags::LARGE) != large {
        return Err(SysError::BadArgument);
    }
    // The mapping has the rights of the frame capability that it was made from.
    let bits = access(flags, it.cap)?;
    for (i, e) in entries.iter_mut().enumerate() {
        *e = paging::entry(address + i as u64 * span, bits);
    }
    core.k.counters[Counter::PageTableWrites as usize] += entries.len() as u64;
    paging::flush_user();
    Ok(())
}
