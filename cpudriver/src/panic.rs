//! The end of a core: what it prints, and how it stops.
//!
//! Panics go straight to the serial port, with the core's number, the reason, and a back-trace by frame
//! pointers, one address a line in a form the host command can symbolise.

use crate::arch::entry::InterruptFrame;
use crate::arch::serial::Serial;
use crate::arch::{cpu, io};
use core::cell::Cell;
use core::fmt::Write;
use core::panic::PanicInfo;
use lmp::layout::KERNEL_BASE;

/// Return addresses printed at most.
const DEPTH: usize = 24;

#[derive(Clone, Copy)]
struct Identity {
    core: u32,
    debug_exit: bool,
    panicking: bool,
}

struct IdentityCell(Cell<Identity>);

// SAFETY: a static is per-core state, and a core runs its CPU driver on one stack with interrupts off.
unsafe impl Sync for IdentityCell {}

static IDENTITY: IdentityCell =
    IdentityCell(Cell::new(Identity { core: 0, debug_exit: true, panicking: false }));

/// Tell who is speaking, and whether a panic ends the machine.
pub(crate) fn identify(core: u32, debug_exit: bool) {
    IDENTITY.0.set(Identity { core, debug_exit, panicking: false });
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let rbp: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack, preserves_flags)) }
    last_words(rbp, None, |out, core| {
        let _ = write!(out, "\ncore {core}: panic: {}", info.message());
        if let Some(at) = info.location() {
            let _ = write!(out, " at {}:{}", at.file(), at.line());
        }
        let _ = writeln!(out);
    })
}

/// An exception in the CPU driver itself.
pub(crate) fn exception(frame: &InterruptFrame, cr2: u64, rbp: u64, guard: Option<&str>) -> ! {
    last_words(rbp, Some(frame.rip), |out, core| {
        let InterruptFrame { vector, error, rip, cs, rflags, rsp, .. } = frame;
        if let Some(stack) = guard {
            let _ = writeln!(out, "\ncore {core}: panic: overflow of the {stack} stack");
        }
        let _ = writeln!(
            out,
            "\ncore {core}: panic: exception {vector} error {error:#x} at {rip:#x} cr2 {cr2:#x} rsp {rsp:#x} \
             cs {cs:#x} rflags {rflags:#x}"
        );
    })
}

/// An NMI, machine check or double fault: only this core stops.
pub(crate) fn stopped(frame: &InterruptFrame) -> ! {
    let mut id = IDENTITY.0.get();
    id.debug_exit = id.debug_exit && frame.vector == 8;
    IDENTITY.0.set(id);
    last_words(0, Some(frame.rip), |out, core| {
        let what = match frame.vector {
            2 => "NMI",
            8 => "double fault",
            _ => "machine check",
        };
        let _ = writeln!(out, "\ncore {core}: stopped: {what} at {:#x}", frame.rip);
    })
}

fn last_words(rbp: u64, rip: Option<u64>, message: impl FnOnce(&mut Serial, u32)) -> ! {
    let id = IDENTITY.0.get();
    if !id.panicking {
        IDENTITY.0.set(Identity { panicking: true, ..id });
        let mut out = Serial::take();
        message(&mut out, id.core);
        if let Some(rip) = rip {
            let _ = writeln!(out, "core {}:   #0 {rip:#018x}", id.core);
        }
        back_trace(&mut out, id.core, rbp, usize::from(rip.is_some()));
    }
    if id.debug_exit {
        // SAFETY: as below, for the device by which the host learns of a panic before the machine ends.
        unsafe { io::output(results::PANIC_PORT, io::Width::Byte, results::PANIC_EVENT.into()) }
        // SAFETY: the debug exit device is there on machines that the host command starts, which alone ask
        // for this; nothing runs on this core afterwards.
        unsafe { io::output(results::DEBUG_EXIT_PORT, io::Width::Byte, results::GuestExit::Panic as u32) }
    }
    cpu::halt_forever()
}

/// Follow the frame pointers through the image's own data: stacks lie there, nothing else is read.
fn back_trace(out: &mut Serial, core: u32, mut rbp: u64, first: usize) {
    unsafe extern "C" {
        static __bss_start: u8;
        static __bss_end: u8;
    }
    let stacks = (&raw const __bss_start) as u64..(&raw const __bss_end) as u64 - 16;
    for n in first..DEPTH {
        if !rbp.is_multiple_of(8) || !stacks.contains(&rbp) {
            return;
        }
        // SAFETY: 16 bytes in the image's zeroed data, which is mapped but for guard pages; a frame pointer
        // into one of those would fault, and a panic within a panic stops silently.
        let [next, address] = unsafe { *(rbp as *const [u64; 2]) };
        if address < KERNEL_BASE {
            return;
        }
        let _ = writeln!(out, "core {core}:   #{n} {address:#018x}");
        if next <= rbp {
            return;
        }
        rbp = next;
    }
}
