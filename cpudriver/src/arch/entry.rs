//! The ways into the CPU driver: system calls, exceptions and interrupts.
//!
//! Every entry starts on an empty stack and forgets it on the way out. A system call saves the general
//! registers in [`EntryState`]; vector registers are the caller's loss. An exception or interrupt from ring
//! 3 saves everything, vector state included, straight into the dispatcher frame before any Rust runs: into
//! which save area is decided here, by the frame's `disabled` word and critical section. An exception from
//! ring 0 goes to [`crate::trap::from_kernel`] and never back.

use core::arch::{global_asm, naked_asm};
use core::cell::UnsafeCell;
use core::mem::offset_of;
use lmp::frame::{offset as frame, reg};
use lmp::invocation::Op;

use super::cpu::Features;
use super::exchange;
use crate::core_state::{self, CORE};
use crate::objects::{Dispatcher, Short};

/// Where the words of a message are in [`EntryState::gpr`].
pub(crate) const MESSAGE_WORDS: [usize; 10] =
    [reg::RDI, reg::RSI, reg::RDX, reg::R8, reg::R9, reg::R10, reg::R12, reg::R13, reg::R14, reg::R15];

/// What the entry code reads and writes; per core, like every static.
#[repr(C, align(64))]
pub(crate) struct EntryState {
    /// General registers at a system call, in the order of [`lmp::frame::reg`]. RCX and R11 hold what
    /// `syscall` put there: instruction pointer and flags.
    pub gpr: [u64; 16],
    /// XCR0.
    pub xcr0: u64,
    /// Address of the common interrupt code for this CPU.
    pub common: u64,
    /// Address of the system call entry that saves all registers.
    pub generic: u64,
    /// Exceptions and interrupts so far.
    pub interrupts: u64,
    /// System calls so far.
    pub system_calls: u64,
}

pub(super) const XCR0: usize = offset_of!(EntryState, xcr0);
const COMMON: usize = offset_of!(EntryState, common);
const INTERRUPTS: usize = offset_of!(EntryState, interrupts);
pub(super) const GENERIC: usize = offset_of!(EntryState, generic);
pub(super) const SYSTEM_CALLS: usize = offset_of!(EntryState, system_calls);

/// The one [`EntryState`] of this core.
#[repr(transparent)]
pub(crate) struct EntryCell(UnsafeCell<EntryState>);

// SAFETY: a static is per-core state, and a core runs its CPU driver on one stack with interrupts off.
unsafe impl Sync for EntryCell {}

pub(crate) static ENTRY: EntryCell = EntryCell(UnsafeCell::new(EntryState {
    gpr: [0; 16],
    xcr0: 0,
    common: 0,
    generic: 0,
    interrupts: 0,
    system_calls: 0,
}));

impl EntryCell {
    /// The state, as a pointer: the entry code changes it between two entries.
    pub(crate) fn get(&self) -> *mut EntryState {
        self.0.get()
    }
}

/// What an interrupt leaves on the stack, below what the stubs pushed.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct InterruptFrame {
    /// The vector, pushed by the stub.
    pub vector: u64,
    /// The error code, or 0.
    pub error: u64,
    /// Instruction pointer.
    pub rip: u64,
    /// Code segment.
    pub cs: u64,
    /// Flags.
    pub rflags: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Stack segment.
    pub ss: u64,
}

global_asm!(
    r#"
    .section .text.interrupt_stubs, "ax"
    .balign 16
    .globl interrupt_stubs
interrupt_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if (vector == 8) || (vector == 10) || (vector == 11) || (vector == 12) || (vector == 13) || (vector == 14) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
    .else
    push 0
    .endif
    .byte 0x68
    .long vector
    jmp qword ptr [rip + {entry} + {common}]
    .set vector, vector + 1
    .endr
    .previous
"#,
    entry = sym ENTRY,
    common = const COMMON,
);

unsafe extern "C" {
    fn interrupt_stubs();
}

/// Address of the stub of a vector.
pub(crate) fn stub(vector: u8) -> u64 {
    interrupt_stubs as *const () as u64 + 16 * u64::from(vector)
}

macro_rules! interrupt_common {
    ($name:ident, $clac:literal) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name() {
            naked_asm!(
                "cld",
                $clac,
                "inc qword ptr [rip + {entry} + {interrupts}]",
                "test byte ptr [rsp + 24], 3",
                "jz 9f",
                "push rax",
                "push rcx",
                "mov rax, [rip + {core} + {current}]",
                "mov rax, [rax + {frame}]",
                "cmp qword ptr [rax + {disabled}], 0",
                "jne 3f",
                "mov rcx, [rsp + 32]",
                "cmp rcx, [rax + {critical_start}]",
                "jb 2f",
                "cmp rcx, [rax + {critical_end}]",
                "jb 3f",
                "2:",
                "lea rcx, [rax + {enabled}]",
                "add rax, {enabled_vector}",
                "jmp 5f",
                "3:",
                "cmp qword ptr [rsp + 16], 32",
                "jb 4f",
                "lea rcx, [rax + {disabled_area}]",
                "add rax, {disabled_vector}",
                "jmp 5f",
                "4:",
                "lea rcx, [rax + {trap}]",
                "add rax, {trap_vector}",
                "5:",
                "mov [rcx + 8], rbx",
                "mov [rcx + 24], rdx",
                "mov [rcx + 32], rsi",
                "mov [rcx + 40], rdi",
                "mov [rcx + 48], rbp",
                "mov [rcx + 64], r8",
                "mov [rcx + 72], r9",
                "mov [rcx + 80], r10",
                "mov [rcx + 88], r11",
                "mov [rcx + 96], r12",
                "mov [rcx + 104], r13",
                "mov [rcx + 112], r14",
                "mov [rcx + 120], r15",
                "pop qword ptr [rcx + 16]",
                "pop qword ptr [rcx]",
                "mov rsi, rcx",
                "mov r8, rax",
                "mov eax, [rip + {entry} + {xcr0}]",
                "mov edx, [rip + {entry} + {xcr0} + 4]",
                "xsave64 [r8]",
                "mov rax, [rsp + 16]",
                "mov [rsi + {rip}], rax",
                "mov rax, [rsp + 32]",
                "mov [rsi + {rflags}], rax",
                "mov rax, [rsp + 40]",
                "mov [rsi + 56], rax",
                "mov qword ptr [rsi + {vector_valid}], 1",
                "mov rdi, rsp",
                "xor ebp, ebp",
                "and rsp, -16",
                "call {from_user}",
                "ud2",
                "9:",
                "mov rdi, rsp",
                "mov rsi, rbp",
                "and rsp, -16",
                "call {from_kernel}",
                "ud2",
                entry = sym ENTRY,
                interrupts = const INTERRUPTS,
                core = sym CORE,
                current = const core_state::offset::CURRENT,
                frame = const offset_of!(Dispatcher, frame),
                xcr0 = const XCR0,
                disabled = const frame::DISABLED,
                critical_start = const frame::CRITICAL_START,
                critical_end = const frame::CRITICAL_END,
                enabled = const frame::ENABLED,
                enabled_vector = const frame::ENABLED_VECTOR,
                disabled_area = const frame::DISABLED_AREA,
                disabled_vector = const frame::DISABLED_VECTOR,
                trap = const frame::TRAP,
                trap_vector = const frame::TRAP_VECTOR,
                rip = const frame::RIP,
                rflags = const frame::RFLAGS,
                vector_valid = const frame::VECTOR_VALID,
                from_user = sym crate::trap::from_user,
                from_kernel = sym crate::trap::from_kernel,
            )
        }
    };
}

interrupt_common!(interrupt_common_smap, "clac");
interrupt_common!(interrupt_common_plain, "");

macro_rules! syscall_entry {
    ($name:ident, [$($before:literal),*] [$($reset:literal),*] $($operand:tt)*) => {
        /// A system call is a call: what C code would not expect to survive is not saved, but general
        /// registers are, so that a refused or repeated call finds them unchanged.
        #[unsafe(naked)]
        unsafe extern "C" fn $name() {
            naked_asm!(
                "mov [rip + {entry}], rax",
                $($before,)*
                "mov [rip + {entry} + 56], rsp",
                "lea rsp, [rip + __stack_top]",
                "mov [rip + {entry} + 40], rdi",
                "lea rdi, [rip + {entry}]",
                "mov [rdi + 8], rbx",
                "mov [rdi + 16], rcx",
                "mov [rdi + 24], rdx",
                "mov [rdi + 32], rsi",
                "mov [rdi + 48], rbp",
                "mov [rdi + 64], r8",
                "mov [rdi + 72], r9",
                "mov [rdi + 80], r10",
                "mov [rdi + 88], r11",
                "mov [rdi + 96], r12",
                "mov [rdi + 104], r13",
                "mov [rdi + 112], r14",
                "mov [rdi + 120], r15",
                "inc qword ptr [rdi + {system_calls}]",
                "call {handler}",
                $($reset,)*
                "mov rdi, [rip + {entry} + 40]",
                "mov rsi, [rip + {entry} + 32]",
                "mov rdx, [rip + {entry} + 24]",
                "mov r8, [rip + {entry} + 64]",
                "mov r9, [rip + {entry} + 72]",
                "mov r10, [rip + {entry} + 80]",
                "mov rcx, [rip + {entry} + 16]",
                "mov r11, [rip + {entry} + 88]",
                "mov rsp, [rip + {entry} + 56]",
                "sysretq",
                entry = sym ENTRY,
                system_calls = const SYSTEM_CALLS,
                handler = sym crate::syscall::entry,
                $($operand)*
            )
        }
    };
}

/// The entries for CPUs whose vector registers are cleared so: one that saves all registers, and, where
/// `wrfsbase` and its kin are on, one that lets some message forms take a short way before.
macro_rules! syscall_entries {
    ($generic:ident, $short:ident, $($reset:literal),*) => {
        syscall_entry!($generic, [] [$($reset),*]);
        syscall_entry!($short, [
            "cmp word ptr [rip + {entry} + 4], {call_op}",
            "je {call}",
            "cmp word ptr [rip + {entry} + 4], {reply_receive_op}",
            "je {reply_receive}"
        ] [$($reset),*]
            call_op = const Op::Call as u16,
            call = sym exchange::call,
            reply_receive_op = const Op::ReplyReceive as u16,
            reply_receive = sym exchange::reply_receive,
        );
    };
}

syscall_entries!(syscall_entry_avx, short_entry_avx, "vzeroall");
syscall_entries!(
    syscall_entry_sse,
    short_entry_sse,
    "xorps xmm0, xmm0",
    "xorps xmm1, xmm1",
    "xorps xmm2, xmm2",
    "xorps xmm3, xmm3",
    "xorps xmm4, xmm4",
    "xorps xmm5, xmm5",
    "xorps xmm6, xmm6",
    "xorps xmm7, xmm7",
    "xorps xmm8, xmm8",
    "xorps xmm9, xmm9",
    "xorps xmm10, xmm10",
    "xorps xmm11, xmm11",
    "xorps xmm12, xmm12",
    "xorps xmm13, xmm13",
    "xorps xmm14, xmm14",
    "xorps xmm15, xmm15"
);

/// Go on after a message form: with the registers in `short` and the words in `state`. Vector state is initial,
/// whoever's it was.
///
/// # Safety
/// `short` must have been saved at a system call of the dispatcher whose address space is loaded, and its answer
/// set; nothing of the entry under way is used afterwards.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn return_short(short: &Short, state: &mut EntryState) -> ! {
    naked_asm!(
        "lea rcx, [rip + {initial}]",
        "mov eax, [rsi + {xcr0}]",
        "mov edx, [rsi + {xcr0} + 4]",
        "xrstor64 [rcx]",
        "mov rcx, rdi",
        "ldmxcsr [rcx + {fp}]",
        // After an initial XRSTOR no x87 exception is pending, so `fldcw` cannot fault.
        "fldcw [rcx + {fp} + 4]",
        "mov rax, [rcx + {rax}]",
        "mov rbx, [rcx + {rbx}]",
        "mov rbp, [rcx + {rbp}]",
        "mov rsp, [rcx + {rsp}]",
        "mov r11, [rcx + {rflags}]",
        "mov rcx, [rcx + {rip}]",
        "mov rdi, [rsi + 40]",
        "mov rdx, [rsi + 24]",
        "mov r8, [rsi + 64]",
        "mov r9, [rsi + 72]",
        "mov r10, [rsi + 80]",
        "mov r12, [rsi + 96]",
        "mov r13, [rsi + 104]",
        "mov r14, [rsi + 112]",
        "mov r15, [rsi + 120]",
        "mov rsi, [rsi + 32]",
        "sysretq",
        initial = sym super::user::INITIAL,
        xcr0 = const XCR0,
        fp = const offset_of!(Short, fp_control),
        rax = const offset_of!(Short, rax),
        rbx = const offset_of!(Short, rbx),
        rbp = const offset_of!(Short, rbp),
        rsp = const offset_of!(Short, rsp),
        rflags = const offset_of!(Short, rflags),
        rip = const offset_of!(Short, rip),
    )
}

/// Where system calls are to arrive on a CPU with these features.
pub(crate) fn syscall_entry(features: &Features) -> u64 {
    let (short, generic) = syscall_entries(features);
    if features.fsgsbase { short } else { generic }
}

/// The entry that knows short ways, and the one that saves all registers.
fn syscall_entries(features: &Features) -> (u64, u64) {
    if features.avx() {
        (short_entry_avx as *const () as u64, syscall_entry_avx as *const () as u64)
    } else {
        (short_entry_sse as *const () as u64, syscall_entry_sse as *const () as u64)
    }
}

/// Whether `rip` is the first instruction of the system call entry, where a debug exception that `mov ss`
/// held back arrives in ring 0 (SDM volume 3A, 6.8.3).
pub(crate) fn is_syscall_entry(rip: u64) -> bool {
    [short_entry_avx, short_entry_sse, syscall_entry_avx, syscall_entry_sse]
        .map(|f| f as *const () as u64)
        .contains(&rip)
}

/// System calls of this core so far.
pub(crate) fn system_calls() -> u64 {
    // SAFETY: the entry code changes it only between entries.
    unsafe { (*ENTRY.get()).system_calls }
}

/// Exceptions and interrupts of this core so far.
pub(crate) fn interrupts() -> u64 {
    // SAFETY: the entry code changes it only between entries.
    unsafe { (*ENTRY.get()).interrupts }
}

/// Prepare the entry code for this CPU.
pub(crate) fn set_up(features: &Features) {
    let common = if features.smap { interrupt_common_smap } else { interrupt_common_plain };
    // SAFETY: called once at start, before any entry can happen.
    unsafe {
        (*ENTRY.get()).common = common as *const () as u64;
        (*ENTRY.get()).xcr0 = features.xcr0;
        (*ENTRY.get()).generic = syscall_entries(features).1;
    }
}
