//! Starting further cores: kernel instances and the trampoline.

use super::{Invoked, Registers, check_caller, operand};
use crate::arch::{apic, cpu, paging, window};
use crate::core_state::{Core, Memory};
use crate::instance::{self, BLOCK, Builder, Given, MODULE, State};
use crate::kernel_objects::instance_state;
use boot_archive::Archive;
use boot_entry::trampoline::{self, Parameters};
use boot_info::{PhysAddr, PhysRange};
use caps::{CoreId, Slots};
use lmp::invocation::TrampolineState;
use lmp::objects::HANDOVER_GRANULARITY;
use lmp::{ObjType, Rights, SysError, SysResult};

/// A builder for the invoked instance, which must not have started.
fn builder(core: &Core, it: Invoked<'_>) -> SysResult<Builder> {
    it.expect(ObjType::Kernel)?;
    it.need(Rights::WRITE)?;
    instance_builder(core, it.cap.base)
}

fn instance_builder(core: &Core, block: u64) -> SysResult<Builder> {
    if !core.k.window.contains(block, BLOCK) {
        return Err(SysError::WrongState);
    }
    // SAFETY: the block is mapped in the window, zeroed when the capability was made, and used by builders
    // only, of which there is one at a time.
    Ok(unsafe { Builder::new(block, window::ptr(block)) })
}

pub(super) fn load(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    let mut b = builder(core, it)?;
    let (Ok(index), Ok(apic_id), Ok(node)) =
        (u16::try_from(r.word(1)), u32::try_from(r.word(2)), u32::try_from(r.word(3)))
    else {
        return Err(SysError::BadArgument);
    };
    let text = match r.word(0) {
        0 => None,
        _ => match operand(core, r, 0)?.1 {
            cap if cap.ty != ObjType::Kernel => return Err(SysError::WrongType),
            // Word 0 of a loaded instance's data is the block its read-only part lies in.
            cap if cap.data[0] == 0 => return Err(SysError::WrongState),
            cap => Some(cap.data[0]),
        },
    };
    let h = b.handover();
    match h.state {
        State::Empty => {
            h.core = index.into();
            h.apic_id = apic_id;
            h.node = node;
        }
        State::Loading if (h.core, h.apic_id, h.node) == (index.into(), apic_id, node) => {}
        _ => return Err(SysError::WrongState),
    }
    let own = &core.k.handover;
    // SAFETY: the archive is mapped read-only in every core's window, and nobody can write it.
    let bytes = unsafe { window::bytes(own.archive.base().as_u64(), own.archive.length()) };
    // Whole-archive checksums were verified when the first core booted.
    let module = Archive::parse_table(bytes).ok().and_then(|a| a.get(MODULE)).ok_or(SysError::BadImage)?;
    if !b.load_step(module.bytes, text)? {
        return Err(SysError::Again);
    }
    b.map_window(own.archive, paging::KERNEL_READ)?;
    if !apic::x2apic_on() {
        b.map_small(apic::XAPIC_BASE, apic::XAPIC_ACCESS)?;
    }
    let h = b.handover();
    h.archive = own.archive;
    h.timer_per_ms = own.timer_per_ms;
    h.tsc_per_ms = own.tsc_per_ms;
    h.debug_exit = own.debug_exit;
    h.log_level = own.log_level;
    Memory.get_mut(it.slot).cap.data[0] = text.unwrap_or(it.cap.base);
    Ok(())
}

pub(super) fn give(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    let mut b = builder(core, it)?;
    if b.handover().state != State::Loaded {
        return Err(SysError::WrongState);
    }
    let to = CoreId(b.handover().core as u16);
    let (slot, cap) = operand(core, r, 0)?;
    let shared = match cap.ty {
        ObjType::Ram => false,
        ObjType::Frame => true,
        _ => return Err(SysError::WrongType),
    };
    if !cap.base.is_multiple_of(HANDOVER_GRANULARITY) || !cap.size.is_multiple_of(HANDOVER_GRANULARITY) {
        return Err(SysError::Misaligned);
    }
    let range = PhysRange::new(PhysAddr::new(cap.base), cap.size);
    if cap.owner == core.db.core() {
        if !core.k.window.contains(cap.base, cap.size) {
            return Err(SysError::ForeignMemory);
        }
        if !core.k.window.can_remove(range) {
            return Err(SysError::Exhausted);
        }
        b.can_give(range)?;
        // From here on nobody can make anything of it; the rest is page by page.
        core.db.set_owner(&mut Memory, slot, to)?;
        core.k.window.remove(range);
    } else if b.handover().giving != range {
        return Err(SysError::ForeignMemory);
    }
    // A dispatcher whose frame goes away has nothing to run with any more.
    check_caller(core)?;
    // SAFETY: the only builder for the running instance.
    let mut own = unsafe { instance::own(core.k.handover.block) };
    let done = b.give_step(Given { range, shared }, |page| own.unmap_window(page))?;
    if done { Ok(()) } else { Err(SysError::Again) }
}

fn trampoline_block(core: &Core, it: Invoked<'_>) -> SysResult<u64> {
    it.expect(ObjType::Trampoline)?;
    it.need(Rights::WRITE)?;
    match core.k.handover.trampoline {
        0 => Err(SysError::Unsupported),
        at => Ok(at),
    }
}

/// Whether the core on its way has left the trampoline.
fn collect(core: &mut Core, block: u64) {
    // SAFETY: a word of the trampoline block, which is mapped; the starting core writes it at most once.
    let taken = unsafe { window::ptr::<u32>(block + trampoline::taken_offset()).read_volatile() };
    if taken != 0 {
        core.k.armed = None;
    }
}

pub(super) fn arm(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    let block = trampoline_block(core, it)?;
    collect(core, block);
    if core.k.armed.is_some() {
        return Err(SysError::WrongState);
    }
    let (_, kernel) = operand(core, r, 0)?;
    if kernel.ty != ObjType::Kernel {
        return Err(SysError::WrongType);
    }
    let (log_doorbell, up_doorbell) = (r.word(1), r.word(2));
    if [log_doorbell, up_doorbell].iter().any(|d| *d != 0 && !apic::is_user_doorbell(*d)) {
        return Err(SysError::BadArgument);
    }
    if instance_state(&core.k.window, &kernel) != State::Loaded {
        return Err(SysError::WrongState);
    }
    let mut b = instance_builder(core, kernel.base)?;
    let kernel_entry = b.root_entry();
    let h = b.handover();
    if h.given_count == 0 {
        return Err(SysError::NotConfigured);
    }
    h.log_doorbell = log_doorbell;
    h.up_doorbell = up_doorbell;
    let (root, apic_id) = (h.root, h.apic_id);
    let range = PhysRange::new(PhysAddr::new(kernel.base), BLOCK);
    if !core.k.window.remove(range) {
        return Err(SysError::Exhausted);
    }
    h.state = State::Started;
    // SAFETY: the only builder for the running instance.
    unsafe { instance::own(core.k.handover.block) }.unmap_window(kernel.base);
    let entry = instance::enter as *const () as u64;
    let parameters = Parameters { efer: cpu::EFER_LME_NXE, cr3: root, entry, kernel_entry };
    // SAFETY: the trampoline block is this core's, mapped, and free: no core is on its way through it.
    trampoline::write(unsafe { &mut *window::ptr(block) }, block, &parameters);
    core.k.armed = Some(apic_id);
    Ok(())
}

pub(super) fn send_init(core: &mut Core, it: Invoked<'_>) -> SysResult {
    trampoline_block(core, it)?;
    let apic_id = core.k.armed.ok_or(SysError::WrongState)?;
    core.k.apic.send_init(apic_id);
    Ok(())
}

pub(super) fn send_sipi(core: &mut Core, it: Invoked<'_>) -> SysResult {
    let block = trampoline_block(core, it)?;
    let apic_id = core.k.armed.ok_or(SysError::WrongState)?;
    core.k.apic.send_sipi(apic_id, (block >> 12) as u8);
    Ok(())
}

pub(super) fn status(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    let block = trampoline_block(core, it)?;
    collect(core, block);
    let state = if core.k.armed.is_some() { TrampolineState::Armed } else { TrampolineState::Free };
    r.set_word(0, state as u64);
    Ok(())
}

pub(super) fn disarm(core: &mut Core, it: Invoked<'_>) -> SysResult {
    trampoline_block(core, it)?;
    let apic_id = core.k.armed.ok_or(SysError::WrongState)?;
    // Held in its wait for SIPI, it cannot come through the block any more.
    core.k.apic.send_init(apic_id);
    core.k.armed = None;
    Ok(())
}
