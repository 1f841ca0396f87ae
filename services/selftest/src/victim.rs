//! The faults that a victim can raise, by name: shared by the victim and the tests.

use core::arch::{asm, global_asm};

/// Exit code of a victim whose fault did not come.
pub const NO_FAULT: u64 = 4;

/// What the CPU driver must make of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// An exception with this vector.
    Vector(u64),
    /// An exception with one of these vectors.
    OneOf([u64; 2]),
    /// An exception with this vector, where the processor raises it: QEMU's TCG does not.
    OnHardware(u64),
    /// A page fault at this address; `None`: at any.
    PageFault(Option<u64>),
}

impl Expected {
    /// Whether an exception with `vector` is as expected.
    pub fn allows(self, vector: u64) -> bool {
        match self {
            Expected::Vector(expected) | Expected::OnHardware(expected) => vector == expected,
            Expected::OneOf(expected) => expected.contains(&vector),
            Expected::PageFault(_) => vector == 14,
        }
    }
}

/// A fault that a domain can raise.
#[derive(Clone, Copy)]
pub struct Raise {
    /// Its name in arguments and reports.
    pub name: &'static str,
    /// What must come of it.
    pub expected: Expected,
    /// Raises it. If it returns, nothing happened.
    pub raise: fn(),
}

/// An address of the CPU driver.
const KERNEL: u64 = lmp::layout::KERNEL_BASE;
/// An address that no domain may use: the first past the lower half.
const NON_CANONICAL: u64 = 1 << 47;
/// An address where nothing is mapped.
const UNMAPPED: u64 = lmp::layout::MAP_TOP - 4096;

macro_rules! raise {
    ($name:literal, $expected:expr, $($asm:tt)*) => {
        Raise { name: $name, expected: $expected, raise: || {
            // SAFETY: not safe at all: the domain is started to raise this fault and ends by it.
            unsafe { asm!($($asm)*) }
        } }
    };
}

/// Every kind of exception that ring 3 can raise.
pub const FAULTS: &[Raise] = &[
    raise!("divide", Expected::Vector(0), "xor ecx, ecx", "div ecx",
        out("ecx") _, inout("eax") 1 => _, inout("edx") 0 => _),
    raise!("single-step", Expected::Vector(1), "pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "nop"),
    // The trap is held back by a load of SS until after the next instruction.
    raise!("single-step-mov-ss", Expected::Vector(1), "mov ecx, ss", "pushfq", "or qword ptr [rsp], 0x100",
        "popfq", "mov ss, ecx", "nop", "nop", out("ecx") _),
    // It is held back until a system call has entered the CPU driver, which must not take it.
    raise!("mov-ss-syscall", Expected::Vector(1), "mov ecx, ss", "pushfq", "or qword ptr [rsp], 0x100",
        "popfq", "mov ss, ecx", "syscall", "nop", "nop", inout("rax") 0u64 => _, out("rcx") _, out("r11") _,
        clobber_abi("C")),
    // QEMU 7.2 does not know the instruction.
    raise!("icebp", Expected::OneOf([1, 6]), ".byte 0xf1"),
    raise!("breakpoint", Expected::Vector(3), "int3"),
    raise!("undefined", Expected::Vector(6), "ud2"),
    raise!("invalid-lock", Expected::Vector(6), ".byte 0xf0, 0x90"),
    raise!("privileged-hlt", Expected::Vector(13), "hlt"),
    raise!("privileged-cli", Expected::Vector(13), "cli"),
    raise!("privileged-cr3", Expected::Vector(13), "mov rax, cr3", out("rax") _),
    raise!("privileged-wrmsr", Expected::Vector(13), "wrmsr",
        in("ecx") 0xc000_0080u32, in("eax") 0, in("edx") 0),
    raise!("debug-register-read", Expected::Vector(13), "mov rax, dr0", out("rax") _),
    raise!("debug-register-write", Expected::Vector(13), "mov dr7, rax", in("rax") 0u64),
    raise!("port", Expected::Vector(13), "out 0x80, al", in("al") 0u8),
    raise!("non-canonical-read", Expected::Vector(13), "mov rax, [rax]", inout("rax") NON_CANONICAL => _),
    // #SS by the book; QEMU's TCG raises #GP for any non-canonical address.
    raise!("non-canonical-stack", Expected::OneOf([12, 13]), "mov rbp, {0}", "mov rax, [rbp]", "ud2",
        in(reg) NON_CANONICAL, options(noreturn)),
    raise!(
        "null-selector-jump",
        Expected::Vector(13),
        "push 0",
        "push 0",
        ".byte 0x48, 0xcb",
        options(noreturn)
    ),
    raise!("int-0x80", Expected::Vector(13), "int 0x80"),
    raise!("int-double-fault", Expected::Vector(13), "int 8"),
    raise!("int-nmi", Expected::Vector(13), "int 2"),
    raise!("read-null", Expected::PageFault(Some(0)), "mov rax, [rax]", inout("rax") 0u64 => _),
    raise!("read-unmapped", Expected::PageFault(Some(UNMAPPED)), "mov rax, [rax]", inout("rax") UNMAPPED => _),
    raise!("write-unmapped", Expected::PageFault(Some(UNMAPPED)), "mov [rax], rax", in("rax") UNMAPPED),
    raise!("execute-unmapped", Expected::PageFault(Some(UNMAPPED)), "jmp rax", in("rax") UNMAPPED, options(noreturn)),
    raise!("read-kernel", Expected::PageFault(Some(KERNEL)), "mov rax, [rax]", inout("rax") KERNEL => _),
    raise!("write-kernel", Expected::PageFault(Some(KERNEL)), "mov [rax], rax", in("rax") KERNEL),
    raise!("execute-kernel", Expected::PageFault(Some(KERNEL)), "jmp rax", in("rax") KERNEL, options(noreturn)),
    raise!("write-text", Expected::PageFault(None), "lea rax, [rip]", "mov [rax], al", out("rax") _),
    raise!("write-start-info", Expected::PageFault(Some(lmp::layout::START_INFO)), "mov [rax], al",
        in("rax") lmp::layout::START_INFO),
    raise!("execute-stack", Expected::PageFault(None), "jmp rsp", options(noreturn)),
    raise!("stack-overflow", Expected::PageFault(Some(lmp::layout::STACK_BASE - 8)), "mov rsp, {0}", "push rax", "ud2",
        in(reg) lmp::layout::STACK_BASE, options(noreturn)),
    raise!("alignment", Expected::OnHardware(17), "pushfq", "or dword ptr [rsp], 0x40000", "popfq",
        "mov rax, [rsp + 1]", out("rax") _),
    raise!("x87", Expected::Vector(16), "push 0x300", "fldcw [rsp]", "fld1", "fldz", "fdivp st(1), st",
        "fwait", "pop rax", out("rax") _),
    raise!("simd", Expected::OnHardware(19), "push 0", "ldmxcsr [rsp]", "mov eax, 1", "cvtsi2sd xmm0, eax",
        "xorps xmm1, xmm1", "divsd xmm0, xmm1", "pop rax", out("rax") _, out("xmm0") _, out("xmm1") _),
];

// Each of 256 entries of 4 bytes: `int n; ret; nop`.
global_asm!(
    ".globl selftest_interrupts",
    "selftest_interrupts:",
    ".set vector, 0",
    ".rept 256",
    ".byte 0xcd, vector, 0xc3, 0x90",
    ".set vector, vector + 1",
    ".endr",
);

unsafe extern "C" {
    fn selftest_interrupts();
}

/// Executes `int n`. Raises something for every `n`: the IDT lets ring 3 use almost none.
pub fn interrupt(n: u8) {
    let entry = selftest_interrupts as *const () as usize + 4 * usize::from(n);
    // SAFETY: the entry is the instruction `int n` and a return; the fault handler of the caller's domain skips
    // the former or ends the domain.
    unsafe { asm!("call {}", in(reg) entry, clobber_abi("C")) }
}
