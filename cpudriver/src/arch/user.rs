//! The ways out of the CPU driver: into a dispatcher, or into idleness.

use super::cpu::{self, Features};
use super::segments::{USER_CODE, USER_DATA};
use core::arch::naked_asm;
use core::cell::UnsafeCell;
use lmp::frame::{SaveArea, VECTOR_AREA_SIZE};

/// An XSAVE area whose header says "all initial"; MXCSR is read from it nevertheless.
#[repr(C, align(64))]
pub(super) struct InitialVector([u32; VECTOR_AREA_SIZE / 4]);

pub(super) static INITIAL: InitialVector = {
    let mut a = [0; VECTOR_AREA_SIZE / 4];
    a[6] = 0x1f80;
    InitialVector(a)
};

/// The registers to be loaded, out of reach of the domain: checked once, used once.
struct ReturnCell(UnsafeCell<SaveArea>);

// SAFETY: a static is per-core state, and a core runs its CPU driver on one stack with interrupts off.
unsafe impl Sync for ReturnCell {}

static RETURN: ReturnCell = ReturnCell(UnsafeCell::new(SaveArea {
    gpr: [0; 16],
    rip: 0,
    rflags: 0,
    fs_base: 0,
    gs_base: 0,
    vector_valid: 0,
    fp_control: 0,
}));

/// MXCSR and x87 control word, as [`SaveArea::fp_control`] holds them.
pub(crate) fn fp_control() -> u64 {
    let mut mxcsr = 0u32;
    let mut fcw = 0u16;
    // SAFETY: both store into locals.
    unsafe {
        core::arch::asm!("stmxcsr [{}]", "fnstcw [{}]", in(reg) &raw mut mxcsr, in(reg) &raw mut fcw,
            options(nostack, preserves_flags));
    }
    u64::from(mxcsr) | u64::from(fcw) << 32
}

unsafe extern "C" {
    fn xrstor_site();
    fn iretq_site();
    fn idle_begin();
    fn idle_end();
}

/// Whether a fault at `rip` means that a domain's save area could not be loaded.
pub(crate) fn is_load_site(rip: u64) -> bool {
    rip == xrstor_site as *const () as u64 || rip == iretq_site as *const () as u64
}

/// Whether `rip` lies in the idle loop.
pub(crate) fn is_idle(rip: u64) -> bool {
    (idle_begin as *const () as u64..=idle_end as *const () as u64).contains(&rip)
}

/// Where vector state comes from on the way to a dispatcher.
pub(crate) enum Vector {
    /// From a save area's vector area, at this window address.
    Saved(u64),
    /// Initial, but for MXCSR and the x87 control word.
    Initial(u64),
}

/// Enter ring 3 with the registers of `area`. Instruction pointer and bases must have been checked; flags
/// and segments are set here.
pub(crate) fn enter(features: &Features, area: &SaveArea, vector: Vector) -> ! {
    cpu::set_user_bases(features, area.fs_base, area.gs_base);
    let (from, vector_valid, fp_control) = match vector {
        Vector::Saved(at) => (at as *const u8, 1, 0),
        // No bit outside MXCSR_MASK may be set: `ldmxcsr` would fault.
        Vector::Initial(fp) => {
            let fp = fp & (0xffff_0000_0000 | u64::from(features.mxcsr_mask));
            ((&raw const INITIAL).cast(), 0, fp)
        }
    };
    // Flags a domain may choose: CF PF AF ZF SF TF DF OF AC ID; IF is always on, IOPL 0.
    let rflags = area.rflags & 0x24_0dd5 | 0x202;
    // SAFETY: `RETURN` is used only here, between here and `iretq`. The initial vector area is valid and
    // constant; a saved one is mapped and aligned, and bad contents fault at a registered site.
    unsafe {
        let r = RETURN.0.get();
        *r = SaveArea { rflags, vector_valid, fp_control, ..*area };
        load_and_return(r, from, features.xcr0)
    }
}

/// Load everything. Vector state too: the compiler may use vector registers for any copy.
///
/// # Safety
/// `area` must be a checked save area outside the domain's reach, `vector` a mapped, 64-byte aligned XSAVE
/// area.
#[unsafe(naked)]
unsafe extern "C" fn load_and_return(area: *const SaveArea, vector: *const u8, xcr0: u64) -> ! {
    naked_asm!(
        "lea rsp, [rip + __stack_top]",
        "mov eax, edx",
        "shr rdx, 32",
        ".globl xrstor_site",
        "xrstor_site:",
        "xrstor64 [rsi]",
        "cmp qword ptr [rdi + {vector_valid}], 0",
        "jne 2f",
        // After an initial XRSTOR no x87 exception is pending, so `fldcw` cannot fault.
        "ldmxcsr [rdi + {fp_control}]",
        "fldcw [rdi + {fp_control} + 4]",
        "2:",
        "push {ss}",
        "push qword ptr [rdi + 56]",
        "push qword ptr [rdi + {rflags}]",
        "push {cs}",
        "push qword ptr [rdi + {rip}]",
        "mov rax, [rdi]",
        "mov rbx, [rdi + 8]",
        "mov rcx, [rdi + 16]",
        "mov rdx, [rdi + 24]",
        "mov rsi, [rdi + 32]",
        "mov rbp, [rdi + 48]",
        "mov r8, [rdi + 64]",
        "mov r9, [rdi + 72]",
        "mov r10, [rdi + 80]",
        "mov r11, [rdi + 88]",
        "mov r12, [rdi + 96]",
        "mov r13, [rdi + 104]",
        "mov r14, [rdi + 112]",
        "mov r15, [rdi + 120]",
        "mov rdi, [rdi + 40]",
        ".globl iretq_site",
        "iretq_site:",
        "iretq",
        ss = const USER_DATA,
        cs = const USER_CODE,
        rip = const lmp::frame::offset::RIP,
        rflags = const lmp::frame::offset::RFLAGS,
        vector_valid = const lmp::frame::offset::VECTOR_VALID,
        fp_control = const lmp::frame::offset::FP_CONTROL,
    )
}

/// Wait for an interrupt. Its entry abandons this frame.
#[unsafe(naked)]
pub(crate) extern "C" fn idle() -> ! {
    naked_asm!(
        "lea rsp, [rip + __stack_top]",
        "xor ebp, ebp",
        ".globl idle_begin",
        "idle_begin:",
        "sti",
        "hlt",
        ".globl idle_end",
        "idle_end:",
        "jmp idle_begin",
    )
}
