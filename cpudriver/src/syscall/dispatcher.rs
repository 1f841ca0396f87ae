//! Operations on dispatchers.

use super::{Invoked, Registers, check_caller, operand, operand_object, own_dispatcher, own_place};
use crate::arch::cpu;
use crate::core_state::{Core, Memory};
use crate::dispatch::Place;
use crate::objects::{Dispatcher, Notification, Own, Saved, Wait};
use caps::Budget;
use lmp::frame::{FRAME_ALIGN, FRAME_SIZE};
use lmp::invocation::{DispatcherState, EndCause};
use lmp::{ObjType, Rights, SysError, SysResult};

pub(super) fn configure(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    let d = it.object::<Dispatcher>()?;
    it.need(Rights::WRITE)?;
    if d.state.get() != DispatcherState::Inactive {
        return Err(SysError::WrongState);
    }
    if Own::ALL[..3].iter().any(|own| d.own(*own).ty != ObjType::Null) {
        return Err(SysError::AlreadyBound);
    }
    let sources = [operand(core, r, 0)?, operand(core, r, 1)?, operand(core, r, 2)?];
    let [cspace, vspace, frame] = sources.map(|(_, cap)| cap);
    let own = core.db.core();
    if [cspace, vspace, frame].iter().any(|cap| cap.owner != own) {
        return Err(SysError::ForeignMemory);
    }
    if (cspace.ty, vspace.ty, frame.ty) != (ObjType::L1CNode, ObjType::Pml4, ObjType::Frame) {
        return Err(SysError::WrongType);
    }
    if !frame.rights.contains(Rights::READ | Rights::WRITE) {
        return Err(SysError::MissingRight);
    }
    if frame.size < FRAME_SIZE || !frame.base.is_multiple_of(FRAME_ALIGN) {
        return Err(SysError::Misaligned);
    }
    if !core.k.window.contains(frame.base, frame.size) {
        return Err(SysError::ForeignMemory);
    }
    for (own, (slot, _)) in Own::ALL.into_iter().zip(sources) {
        if let Err(e) = core.db.copy(&mut Memory, own_place(d, own), slot) {
            for undo in Own::ALL.into_iter().take_while(|u| *u != own) {
                // A copy that was just made goes in one step.
                let mut budget = Budget::ENTRY;
                let _ = core.db.delete(&mut Memory, &mut core.k, d.slot(undo), &mut budget);
            }
            return Err(e);
        }
    }
    d.set_up();
    let mut name = [0; 16];
    name[..8].copy_from_slice(&r.word(3).to_le_bytes());
    name[8..].copy_from_slice(&r.word(4).to_le_bytes());
    d.name.set(name);
    // Its registers are in the disabled save area, where who made it put them.
    d.saved.set(Saved::Disabled);
    Ok(())
}

pub(super) fn resume(core: &mut Core, it: Invoked<'_>) -> SysResult {
    let d = it.object::<Dispatcher>()?;
    it.need(Rights::WRITE)?;
    match d.state.get() {
        DispatcherState::Inactive | DispatcherState::Suspended if d.is_configured() => {
            d.state.set(DispatcherState::Runnable);
            core.k.enqueue(d, Place::Last);
            Ok(())
        }
        DispatcherState::Inactive | DispatcherState::Suspended => Err(SysError::NotConfigured),
        DispatcherState::Runnable | DispatcherState::Blocked => Err(SysError::WrongState),
        DispatcherState::Ended => Err(SysError::Dead),
    }
}

pub(super) fn suspend(core: &mut Core, it: Invoked<'_>) -> SysResult {
    let d = it.object::<Dispatcher>()?;
    it.need(Rights::WRITE)?;
    match d.state.get() {
        DispatcherState::Runnable | DispatcherState::Blocked => {
            core.k.clear_deadline(d);
            core.k.dequeue(d);
            if d.wait.get() != Wait::None {
                core.k.leave_wait(d);
                d.short.rax.set(SysError::Interrupted as u64);
                d.len.set(0);
            }
            if d.saved.get() == Saved::Short && core.k.current.get() != Some(d) {
                core.spill(d);
            }
            d.state.set(DispatcherState::Suspended);
            if core.k.current.get() == Some(d) {
                core.save_system_call(d, 0);
                core.dispatch()
            }
            Ok(())
        }
        DispatcherState::Inactive | DispatcherState::Suspended => Err(SysError::WrongState),
        DispatcherState::Ended => Err(SysError::Dead),
    }
}

pub(super) fn set_end_notice(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    let d = it.object::<Dispatcher>()?;
    it.need(Rights::WRITE)?;
    if d.own(Own::EndNotice).ty != ObjType::Null {
        return Err(SysError::AlreadyBound);
    }
    operand_object::<Notification>(core, r, 0)?;
    let (slot, _) = operand(core, r, 0)?;
    core.db.copy(&mut Memory, own_place(d, Own::EndNotice), slot)
}

pub(super) fn resize_root(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    let d = it.object::<Dispatcher>()?;
    it.need(Rights::WRITE)?;
    if d.state.get() == DispatcherState::Ended {
        return Err(SysError::Dead);
    }
    if !d.is_configured() {
        return Err(SysError::NotConfigured);
    }
    let (slot, cap) = operand(core, r, 0)?;
    if cap.ty != ObjType::L1CNode {
        return Err(SysError::WrongType);
    }
    if cap.owner != core.db.core() {
        return Err(SysError::ForeignMemory);
    }
    if !cap.rights.contains(Rights::WRITE) {
        return Err(SysError::MissingRight);
    }
    core.db.replace(&mut Memory, own_place(d, Own::CSpace), slot)?;
    d.set_up();
    if core.k.current.get() == Some(d) {
        core.k.cspace = d.space.get();
    }
    Ok(())
}

pub(super) fn status(r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    let d = it.object::<Dispatcher>()?;
    it.need(Rights::READ)?;
    r.set_word(0, d.state.get() as u64);
    r.set_word(1, d.cause.get() as u64);
    r.set_word(2, d.detail.get());
    r.set_word(3, d.fault_rip.get());
    Ok(())
}

/// Yield.
#[inline(never)]
pub(super) fn give_core(core: &mut Core, it: Invoked<'_>) -> SysResult {
    let d = own_dispatcher(core, it)?;
    if core.k.ready_count <= 1 {
        return Ok(());
    }
    core.save_system_call(d, 0);
    core.k.rotate();
    core.dispatch()
}

/// Block until an event is pending or the deadline passes.
#[inline(never)]
pub(super) fn block(core: &mut Core, it: Invoked<'_>) -> SysResult {
    let d = own_dispatcher(core, it)?;
    let Some(frame) = d.frame() else { return Err(SysError::NotConfigured) };
    // SAFETY: the frame is mapped while the dispatcher has it; the domain does not run meanwhile.
    let (events, deadline) = unsafe { ((*frame).control.events, (*frame).control.receive_deadline) };
    if events != 0 || deadline <= cpu::tsc() {
        return Ok(());
    }
    core.save_system_call(d, 0);
    d.state.set(DispatcherState::Blocked);
    d.wait.set(Wait::Block);
    core.k.dequeue(d);
    if deadline != u64::MAX {
        core.k.set_deadline(d, deadline);
    }
    core.dispatch()
}

pub(super) fn exit(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    let d = own_dispatcher(core, it)?;
    core.end(d, EndCause::Exit, r.word(0), 0);
    check_caller(core)
}
