//! Operations on links.

use super::{Invoked, Registers, operand};
use crate::arch::apic;
use crate::arch::link_area::LinkAccess;
use crate::core_state::{Core, Memory};
use crate::link::{End, LinkEnd, OwnSlot};
use crate::objects::Ref;
use caps::{Budget, Level, Place, SlotAddr};
use lmp::cptr::L2_SLOTS;
use lmp::invocation;
use lmp::objects::PAGE_SIZE;
use lmp::{ObjType, Rights, SysError, SysResult};

/// Who is at the other side of the end to be configured.
enum Partner {
    /// The core that reads.
    Core(u32),
    /// The table of notifications, by a capability for it.
    Table(SlotAddr),
}

/// A slot of a link, as a place for a capability.
fn place(link: Ref<LinkEnd>, which: OwnSlot) -> Place {
    Place { slot: link.own_slot(which as u32), level: Level::L2, room: 1 }
}

/// Signal by a writing link: publish the entry that the badge names, and interrupt the reader.
#[inline(never)]
pub(super) fn signal(core: &mut Core, it: Invoked<'_>) -> SysResult {
    let link = it.object::<LinkEnd>()?;
    it.need(Rights::WRITE)?;
    let entry = it.cap.badge.checked_sub(1).filter(|n| *n < L2_SLOTS.into()).ok_or(SysError::BadArgument)?;
    match link.end.get() {
        End::Writer => {}
        End::Reader => return Err(SysError::WrongState),
        End::Unconfigured => return Err(SysError::NotConfigured),
    }
    if !link.publish(entry as u16) {
        return Err(SysError::NotBound);
    }
    core.k.interrupt_reader(link);
    Ok(())
}

pub(super) fn configure(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    let link = it.object::<LinkEnd>()?;
    // A badge is the right to signal one entry, and nothing else.
    if it.cap.badge != 0 {
        return Err(SysError::MissingRight);
    }
    it.need(Rights::WRITE)?;
    if link.end.get() != End::Unconfigured {
        return Err(SysError::AlreadyBound);
    }
    let end = u8::try_from(r.word(2)).ok().and_then(invocation::LinkEnd::from_code);
    let end = end.ok_or(SysError::BadArgument)?;
    let (frame_slot, frame) = operand(core, r, 0)?;
    let offset = r.word(1);
    let (access, rights) = match end {
        invocation::LinkEnd::Writer => (LinkAccess::Write, Rights::READ | Rights::WRITE),
        invocation::LinkEnd::Reader => (LinkAccess::Read, Rights::READ),
    };
    if frame.ty != ObjType::Frame {
        return Err(SysError::WrongType);
    }
    if !frame.rights.contains(rights) {
        return Err(SysError::MissingRight);
    }
    if !offset.is_multiple_of(PAGE_SIZE) {
        return Err(SysError::Misaligned);
    }
    if offset.checked_add(PAGE_SIZE).is_none_or(|end| end > frame.size) {
        return Err(SysError::OutOfRange);
    }
    let partner = match end {
        invocation::LinkEnd::Writer => {
            let apic_id = u32::try_from(r.word(3)).ok().filter(|id| apic::is_one_core(*id));
            Partner::Core(apic_id.ok_or(SysError::BadArgument)?)
        }
        invocation::LinkEnd::Reader => Partner::Table(table(core, r)?),
    };

    let page = core.k.link_area.allocate().ok_or(SysError::Exhausted)?;
    let (tables, entry) = core.k.link_area.place(page);
    let ring = place(link, OwnSlot::Ring);
    if let Err(e) = core.db.insert_kernel_mapping(&mut Memory, ring, frame_slot, tables, entry, offset) {
        core.k.link_area.give_up(page);
        return Err(e);
    }
    match partner {
        Partner::Core(apic_id) => link.apic_id.set(apic_id),
        Partner::Table(slot) => {
            if let Err(e) = core.db.copy(&mut Memory, place(link, OwnSlot::Table), slot) {
                // A mapping that was just made goes in one step, and gives up the page.
                let mut budget = Budget::ENTRY;
                let _ = core.db.delete(&mut Memory, &mut core.k, ring.slot, &mut budget);
                return Err(e);
            }
        }
    }
    core.k.link_area.map(page, frame.base + offset, access);
    link.page.set(page);
    match end {
        invocation::LinkEnd::Writer => {
            link.end.set(End::Writer);
            link.format();
        }
        invocation::LinkEnd::Reader => {
            link.end.set(End::Reader);
            core.k.look_at_new_reader(link);
        }
    }
    Ok(())
}

/// The table of notifications that message word 3 refers to.
fn table(core: &Core, r: &Registers<'_>) -> SysResult<SlotAddr> {
    let (slot, table) = operand(core, r, 3)?;
    if table.ty != ObjType::L2CNode {
        return Err(SysError::WrongType);
    }
    if !table.rights.contains(Rights::READ) {
        return Err(SysError::MissingRight);
    }
    if table.owner != core.db.core() {
        return Err(SysError::ForeignMemory);
    }
    Ok(slot)
}
