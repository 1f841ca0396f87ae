//! Exceptions and interrupts, after the entry code has saved what there was.

use crate::arch::entry::{self, InterruptFrame};
use crate::arch::{apic, cpu, user};
use crate::core_state::{self, Core};
use crate::dispatch::{Place, badge_bits};
use crate::instance;
use crate::objects::Saved;
use core::mem::offset_of;
use lmp::frame::{DispatcherFrame, SaveArea};
use lmp::invocation::{Counter, EndCause, USER_VECTOR_COUNT, USER_VECTOR_FIRST};
use x86_64::registers::control::Cr2;

const NMI: u64 = 2;
const DEBUG: u64 = 1;
const DOUBLE_FAULT: u64 = 8;
const PAGE_FAULT: u64 = 14;
const MACHINE_CHECK: u64 = 18;

/// An exception or interrupt from ring 3, whose registers are in `area` of the running dispatcher's frame.
pub(crate) extern "C" fn from_user(frame: &InterruptFrame, area: *mut SaveArea) -> ! {
    // SAFETY: called by the entry code.
    let core = unsafe { core_state::take() };
    if matches!(frame.vector, NMI | DOUBLE_FAULT | MACHINE_CHECK) {
        stop(frame);
    }
    let Some(d) = core.k.current.get() else { unreachable!("ring 3 without a dispatcher") };
    let Some(dispatcher_frame) = d.frame() else { unreachable!("a running dispatcher without a frame") };
    let fp_control = user::fp_control();
    d.short.fp_control.set(fp_control);
    let (fs, gs) = cpu::user_bases(&core.k.features);
    // SAFETY: the entry code chose the area in the frame, which is mapped; the domain does not run.
    unsafe {
        (*area).fs_base = fs;
        (*area).gs_base = gs;
    }
    let offset = area as usize - dispatcher_frame as usize;
    if frame.vector < 32 {
        let enabled = offset == offset_of!(DispatcherFrame, enabled);
        exception(core, frame, enabled)
    }
    d.saved.set(if offset == offset_of!(DispatcherFrame, enabled) {
        Saved::Enabled
    } else {
        Saved::Disabled
    });
    interrupt(core, frame.vector);
    core.continue_after_interrupt()
}

/// An exception of the running dispatcher: an upcall, or its end.
fn exception(core: &mut Core, frame: &InterruptFrame, enabled: bool) -> ! {
    let Some(d) = core.k.current.get() else { unreachable!("ring 3 without a dispatcher") };
    let Some(f) = d.frame() else { unreachable!("a running dispatcher without a frame") };
    // SAFETY: the frame is mapped; the domain does not run.
    let control = unsafe { (*f).control };
    let page_fault = frame.vector == PAGE_FAULT;
    let address = if page_fault { Cr2::read_raw() } else { 0 };
    if frame.vector == DEBUG {
        clear_debug_status();
    }
    let upcall = match (page_fault, enabled) {
        (true, true) => control.page_fault,
        (true, false) => control.page_fault_disabled,
        (false, true) => control.trap,
        (false, false) => control.trap_disabled,
    };
    if upcall == 0 || (!enabled && control.trap_busy != 0) {
        let cause = if page_fault { EndCause::PageFault } else { EndCause::Exception };
        let detail = if page_fault { address } else { frame.vector };
        core.end(d, cause, detail, frame.rip);
        core.dispatch();
    }
    if !enabled {
        // SAFETY: as above.
        unsafe { (*f).control.trap_busy = 1 };
    }
    core.deliver(d, upcall, [frame.vector, frame.error, address])
}

/// An exception from ring 0, or an interrupt of the idle loop. `rbp` is for the back-trace.
pub(crate) extern "C" fn from_kernel(frame: &InterruptFrame, rbp: u64) -> ! {
    if matches!(frame.vector, NMI | MACHINE_CHECK) {
        stop(frame);
    }
    if user::is_idle(frame.rip) && frame.vector >= 32 {
        // SAFETY: called by the entry code; the idle loop has no reference.
        let core = unsafe { core_state::take() };
        interrupt(core, frame.vector);
        core.dispatch()
    }
    let bad_area = user::is_load_site(frame.rip);
    if bad_area || (frame.vector == DEBUG && entry::is_syscall_entry(frame.rip)) {
        // What a domain put into its save area cannot be loaded, or it stepped into a system call: its fault.
        // SAFETY: called by the entry code; the faulting entry is abandoned for good.
        let core = unsafe { core_state::take() };
        clear_debug_status();
        if let Some(d) = core.k.current.get() {
            let cause = if bad_area { EndCause::BadSaveArea } else { EndCause::Exception };
            core.end(d, cause, frame.vector, 0);
        }
        core.dispatch()
    }
    crate::panic::exception(frame, Cr2::read_raw(), rbp, instance::guard_page(Cr2::read_raw()))
}

/// A device, timer or inter-processor interrupt.
fn interrupt(core: &mut Core, vector: u64) {
    core.k.apic.end_of_interrupt();
    if vector == u64::from(apic::TIMER_VECTOR) {
        core.k.timer_fired();
        core.clean();
        return;
    }
    core.k.count(Counter::Interrupts);
    match vector as u8 {
        apic::LINK_VECTOR => return core.k.link_interrupt(),
        apic::LINK_REST_VECTOR => return core.k.read_links(),
        apic::ERROR_VECTOR => log::warn!("local APIC error"),
        _ => {}
    }
    let Some(i) = vector.checked_sub(USER_VECTOR_FIRST).filter(|i| *i < USER_VECTOR_COUNT) else { return };
    let binding = &mut core.k.irqs[i as usize];
    if binding.in_service {
        binding.again = true;
    } else if let Some(n) = binding.notification {
        binding.in_service = true;
        let bits = badge_bits(binding.badge);
        core.k.signal(n, bits, Place::First);
    }
}

/// Forget what a debug exception left in DR6, which the CPU never clears.
fn clear_debug_status() {
    // SAFETY: no debug register is in use by the CPU driver.
    unsafe {
        core::arch::asm!("mov dr6, {}", in(reg) 0xffff_0ff0u64, options(nomem, nostack, preserves_flags))
    }
}

/// NMI, machine check, double fault from ring 3: this core stops, the others go on.
fn stop(frame: &InterruptFrame) -> ! {
    crate::panic::stopped(frame)
}
