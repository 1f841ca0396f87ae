//! Upcalls: where the CPU driver enters the domain, and how the domain goes on from a save area.
//!
//! All entries run disabled on a stack of their own. `run` has nothing to schedule yet and resumes; a page
//! fault is offered to self-paging, then to the domain's handler; any other exception to the handler. What
//! nobody resolves ends the domain *as the fault it was*: the entry is withdrawn and the instruction retried,
//! so the CPU driver reports cause, address and instruction.
//!
//! Neighbours: `lmp::frame` defines the frame; `memory` resolves faults of heap and stack.

use core::arch::{naked_asm, x86_64};
use core::sync::atomic::{Ordering, compiler_fence};

use lmp::frame::{DispatcherFrame, SaveArea, offset, reg};
use lmp::syscall;

use crate::local::Local;
use crate::memory;

/// Bytes of the stack that upcalls run on.
const UPCALL_STACK_SIZE: usize = 16 << 10;

/// Added to the vector of an exception that cannot be retried, to make the exit code of a domain that did not
/// resolve it: breakpoints and traps report the instruction *after* the one that raised them.
pub const EXIT_TRAP: u64 = 0x100;

#[repr(C, align(64))]
struct UpcallStack(core::cell::UnsafeCell<[u8; UPCALL_STACK_SIZE]>);

// SAFETY: nothing but the stack pointer of upcalls refers to it.
unsafe impl Sync for UpcallStack {}

static STACK: UpcallStack = UpcallStack(core::cell::UnsafeCell::new([0; UPCALL_STACK_SIZE]));

/// Whether FS and GS bases can be written in ring 3, hence have to be restored.
static HAVE_FSGSBASE: Local<u64> = Local::new(0);
/// Whether vector state is in XSAVE format; else in FXSAVE format.
static HAVE_XSAVE: Local<u64> = Local::new(0);

static HANDLER: Local<Option<FaultHandler>> = Local::new(None);

/// A fault of this domain.
pub struct Fault<'a> {
    /// Exception vector.
    pub vector: u8,
    /// Error code; 0 for vectors that have none.
    pub error: u64,
    /// The address that was accessed, for a page fault.
    pub address: u64,
    /// Whether the domain was disabled.
    pub disabled: bool,
    /// The registers at the fault; what the handler changes takes effect if it resolves the fault.
    pub registers: &'a mut SaveArea,
}

impl Fault<'_> {
    /// Page-fault error code: the page was mapped, the access not allowed.
    pub const PROTECTION: u64 = 1;
    /// Page-fault error code: the access was a write.
    pub const WRITE: u64 = 2;
    /// Page-fault error code: the access was an instruction fetch.
    pub const FETCH: u64 = 16;
}

/// What a handler decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// Go on with the registers of the save area.
    Resume,
    /// The fault stands: end the domain.
    End,
}

/// Handles a fault. Runs disabled on the upcall stack: it must not touch the heap or block.
pub type FaultHandler = fn(&mut Fault<'_>) -> Resolution;

/// What the exceptions are called (Intel SDM volume 3A, table 6-1).
pub const fn exception_name(vector: u64) -> &'static str {
    match vector {
        0 => "divide error",
        1 => "debug exception",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound range exceeded",
        6 => "invalid opcode",
        7 => "device not available",
        8 => "double fault",
        10 => "invalid TSS",
        11 => "segment not present",
        12 => "stack-segment fault",
        13 => "general protection fault",
        14 => "page fault",
        16 => "x87 floating-point error",
        17 => "alignment check",
        18 => "machine check",
        19 => "SIMD floating-point exception",
        _ => "exception",
    }
}

/// Let `handler` decide about the faults of this domain that self-paging does not resolve.
pub fn set_fault_handler(handler: FaultHandler) {
    HANDLER.set(Some(handler));
    let frame = crate::start::frame();
    // SAFETY: the frame is mapped; the CPU driver reads the words at the next fault.
    unsafe {
        (&raw mut (*frame).control.trap).write_volatile(trap as *const () as u64);
        (&raw mut (*frame).control.trap_disabled).write_volatile(trap_disabled as *const () as u64);
        (&raw mut (*frame).control.page_fault_disabled)
            .write_volatile(page_fault_disabled as *const () as u64);
    }
}

unsafe extern "C" {
    static runtime_critical_start: u8;
    static runtime_critical_end: u8;
}

/// Tell the CPU driver where to enter. The domain is still disabled.
pub(crate) fn init(frame: *mut DispatcherFrame) {
    // Structured extended features, EBX bit 0: FSGSBASE; the system enables it where the CPU has it.
    // Feature information, ECX bit 27: the system uses XSAVE.
    if x86_64::__cpuid(0).eax >= 7 {
        HAVE_FSGSBASE.set(u64::from(x86_64::__cpuid_count(7, 0).ebx & 1));
    }
    HAVE_XSAVE.set(u64::from(x86_64::__cpuid(1).ecx >> 27 & 1));
    // SAFETY: the frame is mapped, and the CPU driver does not touch it while the dispatcher runs but for
    // words that no line here writes.
    unsafe {
        let control = &raw mut (*frame).control;
        (&raw mut (*control).critical_start)
            .write_volatile((&raw const runtime_critical_start).addr() as u64);
        (&raw mut (*control).critical_end).write_volatile((&raw const runtime_critical_end).addr() as u64);
        (&raw mut (*control).run).write_volatile(run as *const () as u64);
        (&raw mut (*control).page_fault).write_volatile(page_fault as *const () as u64);
        (&raw mut (*control).page_fault_disabled).write_volatile(0);
        (&raw mut (*control).trap).write_volatile(0);
        (&raw mut (*control).trap_disabled).write_volatile(0);
        (&raw mut (*control).upcall_stack)
            .write_volatile(STACK.0.get().addr() as u64 + UPCALL_STACK_SIZE as u64);
        (&raw mut (*control).self_va).write_volatile(frame.addr() as u64);
    }
}

/// Clears `disabled`.
pub(crate) fn enable(frame: *mut DispatcherFrame) {
    // SAFETY: the frame is mapped; the CPU driver looks at the word at its next entry.
    unsafe { (&raw mut (*frame).control.disabled).write_volatile(0) };
}

/// Runs `f` with the dispatcher disabled: no upcalls, and preemption resumes where it interrupted.
///
/// Faults in `f` are not paged in and go to the domain's handler as disabled ones.
pub fn disabled<R>(f: impl FnOnce() -> R) -> R {
    let frame = crate::start::frame();
    // SAFETY: the frame is mapped; the CPU driver looks at the word at its next entry. The fences keep the
    // accesses of `f` between the two stores.
    unsafe {
        (&raw mut (*frame).control.disabled).write_volatile(1);
        compiler_fence(Ordering::SeqCst);
        let result = f();
        compiler_fence(Ordering::SeqCst);
        (&raw mut (*frame).control.disabled).write_volatile(0);
        result
    }
}

/// `run`: the dispatcher was given the core. There is one thread: it goes on.
#[unsafe(naked)]
extern "C" fn run() -> ! {
    naked_asm!("jmp {resume}", resume = sym resume_enabled)
}

/// An upcall for a fault: call the handler with the frame, the vector, the error code and the address, then
/// go on from a save area.
macro_rules! fault_entry {
    ($(#[$doc:meta])* $name:ident, $handle:ident, $resume:ident) => {
        $(#[$doc])*
        #[unsafe(naked)]
        extern "C" fn $name() -> ! {
            naked_asm!(
                // Twice, so that the stack is aligned at the call.
                "push rdi",
                "push rdi",
                "call {handle}",
                "pop rdi",
                "pop rdi",
                "jmp {resume}",
                handle = sym $handle,
                resume = sym $resume,
            )
        }
    };
}

fault_entry! {
    /// Page fault while enabled.
    page_fault, handle_page_fault, resume_enabled
}
fault_entry! {
    /// Another exception while enabled.
    trap, handle_trap, resume_enabled
}
fault_entry! {
    /// Page fault while disabled.
    page_fault_disabled, handle_page_fault_disabled, resume_trap
}
fault_entry! {
    /// Another exception while disabled.
    trap_disabled, handle_trap_disabled, resume_trap
}

/// The part of resuming that is the same for every save area: vector state, FS and GS bases, an `iretq` frame
/// on the stack, and all general registers but `rdi`, which keeps the frame.
macro_rules! load_save_area {
    () => {
        "
        cmp qword ptr [rdi + {area} + {vector_valid}], 0
        je 2f
        cmp qword ptr [rip + {have_xsave}], 0
        je 1f
        mov eax, -1
        mov edx, -1
        xrstor64 [rdi + {vector}]
        jmp 3f
    1:  fxrstor64 [rdi + {vector}]
        jmp 3f
    2:  ldmxcsr [rdi + {area} + {fp_control}]
        fldcw [rdi + {area} + {fp_control} + 4]
    3:  cmp qword ptr [rip + {have_fsgsbase}], 0
        je 4f
        mov rax, [rdi + {area} + {fs_base}]
        wrfsbase rax
        mov rax, [rdi + {area} + {gs_base}]
        wrgsbase rax
    4:  mov eax, ss
        push rax
        push qword ptr [rdi + {area} + 8 * {RSP}]
        push qword ptr [rdi + {area} + {rflags}]
        mov eax, cs
        push rax
        push qword ptr [rdi + {area} + {rip}]
        mov rax, [rdi + {area} + 8 * {RAX}]
        mov rbx, [rdi + {area} + 8 * {RBX}]
        mov rcx, [rdi + {area} + 8 * {RCX}]
        mov rdx, [rdi + {area} + 8 * {RDX}]
        mov rsi, [rdi + {area} + 8 * {RSI}]
        mov rbp, [rdi + {area} + 8 * {RBP}]
        mov r8, [rdi + {area} + 8 * {R8}]
        mov r9, [rdi + {area} + 8 * {R9}]
        mov r10, [rdi + {area} + 8 * {R10}]
        mov r11, [rdi + {area} + 8 * {R11}]
        mov r12, [rdi + {area} + 8 * {R12}]
        mov r13, [rdi + {area} + 8 * {R13}]
        mov r14, [rdi + {area} + 8 * {R14}]
        mov r15, [rdi + {area} + 8 * {R15}]
        "
    };
}

/// A way to go on from a save area of the frame in `rdi`: load all of it but `rdi`, do `$change` to the frame's words,
/// load `rdi`, return, and whatever comes behind that.
macro_rules! resume_entry {
    (
        $(#[$doc:meta])*
        $name:ident from $area:ident, $vector:ident;
        $($change:literal)*; $($behind:literal)*; $word:ident = $offset:ident
    ) => {
        $(#[$doc])*
        #[unsafe(naked)]
        extern "C" fn $name() -> ! {
            naked_asm!(
                load_save_area!(),
                $($change,)*
                "mov rdi, [rdi + {area} + 8 * {RDI}]",
                "iretq",
                $($behind,)*
                $word = const offset::$offset,
                area = const offset::$area,
                vector = const offset::$vector,
                vector_valid = const offset::VECTOR_VALID,
                fp_control = const offset::FP_CONTROL,
                fs_base = const offset::FS_BASE,
                gs_base = const offset::GS_BASE,
                rflags = const offset::RFLAGS,
                rip = const offset::RIP,
                have_xsave = sym HAVE_XSAVE,
                have_fsgsbase = sym HAVE_FSGSBASE,
                RAX = const reg::RAX, RBX = const reg::RBX, RCX = const reg::RCX, RDX = const reg::RDX,
                RSI = const reg::RSI, RDI = const reg::RDI, RBP = const reg::RBP, RSP = const reg::RSP,
                R8 = const reg::R8, R9 = const reg::R9, R10 = const reg::R10, R11 = const reg::R11,
                R12 = const reg::R12, R13 = const reg::R13, R14 = const reg::R14, R15 = const reg::R15,
            )
        }
    };
}

resume_entry! {
    /// Goes on from the enabled save area of the frame in `rdi`. From the moment that `disabled` is clear the
    /// program counter is in the critical section, so no upcall overwrites the area before `iretq` is through.
    resume_enabled from ENABLED, ENABLED_VECTOR;
    ".globl runtime_critical_start"
    "runtime_critical_start:"
    "mov qword ptr [rdi + {disabled}], 0";
    ".globl runtime_critical_end"
    "runtime_critical_end:"
    "ud2";
    disabled = DISABLED
}

resume_entry! {
    /// Goes on, still disabled, from the trap save area of the frame in `rdi`. The area is free for the next fault
    /// once everything is loaded but `rdi`: no instruction after that can fault but `iretq`, on what it loads.
    resume_trap from TRAP, TRAP_VECTOR;
    "mov qword ptr [rdi + {busy}], 0"; ;
    busy = TRAP_BUSY
}

unsafe extern "C" fn handle_page_fault(frame: *mut DispatcherFrame, vector: u64, error: u64, address: u64) {
    if error & Fault::PROTECTION == 0 && memory::page_in(address) {
        return;
    }
    // SAFETY: the CPU driver passed the frame, and the upcall runs disabled: nothing else refers to the area.
    let registers = unsafe { &mut (*frame).enabled };
    if decide(registers, vector, error, address, false) == Resolution::End {
        // SAFETY: the frame is mapped; the CPU driver reads the word when the instruction faults again.
        unsafe { (&raw mut (*frame).control.page_fault).write_volatile(0) };
    }
}

unsafe extern "C" fn handle_trap(frame: *mut DispatcherFrame, vector: u64, error: u64, address: u64) {
    // SAFETY: as in `handle_page_fault`.
    let registers = unsafe { &mut (*frame).enabled };
    if decide(registers, vector, error, address, false) == Resolution::End {
        end_of_trap(vector);
        // SAFETY: as in `handle_page_fault`.
        unsafe { (&raw mut (*frame).control.trap).write_volatile(0) };
    }
}

unsafe extern "C" fn handle_page_fault_disabled(
    frame: *mut DispatcherFrame,
    vector: u64,
    error: u64,
    address: u64,
) {
    // SAFETY: the CPU driver passed the frame, and `trap_busy` keeps it from writing the area again.
    let registers = unsafe { &mut (*frame).trap };
    if decide(registers, vector, error, address, true) == Resolution::End {
        // SAFETY: as in `handle_page_fault`.
        unsafe { (&raw mut (*frame).control.page_fault_disabled).write_volatile(0) };
    }
}

unsafe extern "C" fn handle_trap_disabled(
    frame: *mut DispatcherFrame,
    vector: u64,
    error: u64,
    address: u64,
) {
    // SAFETY: as in `handle_page_fault_disabled`.
    let registers = unsafe { &mut (*frame).trap };
    if decide(registers, vector, error, address, true) == Resolution::End {
        end_of_trap(vector);
        // SAFETY: as in `handle_page_fault`.
        unsafe { (&raw mut (*frame).control.trap_disabled).write_volatile(0) };
    }
}

fn decide(registers: &mut SaveArea, vector: u64, error: u64, address: u64, disabled: bool) -> Resolution {
    match HANDLER.get() {
        Some(handler) => handler(&mut Fault { vector: vector as u8, error, address, disabled, registers }),
        None => Resolution::End,
    }
}

/// Ends the domain if the exception would not come again: #DB, #BP and #OF report the next instruction.
fn end_of_trap(vector: u64) {
    if matches!(vector, 1 | 3 | 4) {
        syscall::exit(EXIT_TRAP + vector);
    }
}
