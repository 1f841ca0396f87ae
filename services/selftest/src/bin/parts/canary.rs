//! Patterns in all registers, to be found again after preemption.

use core::arch::{naked_asm, x86_64};

use runtime::Env;
use selftest::{Random, Shared};

/// What is loaded into the registers and read back from them.
#[repr(C, align(64))]
struct Patterns {
    general: [u64; 12],
    fs_base: u64,
    gs_base: u64,
    mxcsr: u64,
    control: u64,
    vectors: [[u64; 4]; 16],
}

impl Patterns {
    /// The words, in order.
    fn words(&self) -> impl Iterator<Item = u64> + '_ {
        let control = [self.fs_base, self.gs_base, self.mxcsr, self.control];
        self.general.iter().copied().chain(control).chain(self.vectors.iter().flatten().copied())
    }

    /// The index of the first word that differs.
    fn difference(&self, other: &Patterns) -> Option<u64> {
        self.words().zip(other.words()).position(|(a, b)| a != b).map(|i| i as u64)
    }
}

const _: () = assert!(core::mem::offset_of!(Patterns, vectors) == 128);

/// Turns of the loop between loading and reading back: longer than a time slice where the clock counts
/// instructions.
const SPINS: u64 = 1 << 23;
/// How often to load and read back.
const ROUNDS: u64 = 4;

/// The CPU has AVX, and the system enabled it.
const AVX: u64 = 1;
/// FS and GS bases can be written.
const FSGSBASE: u64 = 2;

/// Exit code: a register changed. This times the round, from 1, plus the index of the first word that did.
const CHANGED: u64 = 1000;

/// Loads all registers from `input`, counts `spins` down, and stores them to `output`.
///
/// # Safety
/// Both pointers must be valid; `features` must be what the CPU has.
#[unsafe(naked)]
unsafe extern "C" fn hold(input: *const Patterns, output: *mut Patterns, spins: u64, features: u64) {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rcx",
        "push rsi",
        "test cl, {fsgsbase}",
        "jz 2f",
        "mov rax, [rdi + 96]",
        "wrfsbase rax",
        "mov rax, [rdi + 104]",
        "wrgsbase rax",
        "2:",
        "ldmxcsr [rdi + 112]",
        "fldcw [rdi + 120]",
        "test cl, {avx}",
        "jz 3f",
        "vmovups ymm0, [rdi + 128 + 32 * 0]",
        "vmovups ymm1, [rdi + 128 + 32 * 1]",
        "vmovups ymm2, [rdi + 128 + 32 * 2]",
        "vmovups ymm3, [rdi + 128 + 32 * 3]",
        "vmovups ymm4, [rdi + 128 + 32 * 4]",
        "vmovups ymm5, [rdi + 128 + 32 * 5]",
        "vmovups ymm6, [rdi + 128 + 32 * 6]",
        "vmovups ymm7, [rdi + 128 + 32 * 7]",
        "vmovups ymm8, [rdi + 128 + 32 * 8]",
        "vmovups ymm9, [rdi + 128 + 32 * 9]",
        "vmovups ymm10, [rdi + 128 + 32 * 10]",
        "vmovups ymm11, [rdi + 128 + 32 * 11]",
        "vmovups ymm12, [rdi + 128 + 32 * 12]",
        "vmovups ymm13, [rdi + 128 + 32 * 13]",
        "vmovups ymm14, [rdi + 128 + 32 * 14]",
        "vmovups ymm15, [rdi + 128 + 32 * 15]",
        "jmp 4f",
        "3:",
        "movups xmm0, [rdi + 128 + 32 * 0]",
        "movups xmm1, [rdi + 128 + 32 * 1]",
        "movups xmm2, [rdi + 128 + 32 * 2]",
        "movups xmm3, [rdi + 128 + 32 * 3]",
        "movups xmm4, [rdi + 128 + 32 * 4]",
        "movups xmm5, [rdi + 128 + 32 * 5]",
        "movups xmm6, [rdi + 128 + 32 * 6]",
        "movups xmm7, [rdi + 128 + 32 * 7]",
        "movups xmm8, [rdi + 128 + 32 * 8]",
        "movups xmm9, [rdi + 128 + 32 * 9]",
        "movups xmm10, [rdi + 128 + 32 * 10]",
        "movups xmm11, [rdi + 128 + 32 * 11]",
        "movups xmm12, [rdi + 128 + 32 * 12]",
        "movups xmm13, [rdi + 128 + 32 * 13]",
        "movups xmm14, [rdi + 128 + 32 * 14]",
        "movups xmm15, [rdi + 128 + 32 * 15]",
        "4:",
        "mov rcx, rdx",
        "mov rax, [rdi + 8 * 0]",
        "mov rbx, [rdi + 8 * 1]",
        "mov rdx, [rdi + 8 * 2]",
        "mov rbp, [rdi + 8 * 3]",
        "mov r8, [rdi + 8 * 4]",
        "mov r9, [rdi + 8 * 5]",
        "mov r10, [rdi + 8 * 6]",
        "mov r11, [rdi + 8 * 7]",
        "mov r12, [rdi + 8 * 8]",
        "mov r13, [rdi + 8 * 9]",
        "mov r14, [rdi + 8 * 10]",
        "mov r15, [rdi + 8 * 11]",
        "5:",
        "dec rcx",
        "jnz 5b",
        "pop rcx",
        "mov [rcx + 8 * 0], rax",
        "mov [rcx + 8 * 1], rbx",
        "mov [rcx + 8 * 2], rdx",
        "mov [rcx + 8 * 3], rbp",
        "mov [rcx + 8 * 4], r8",
        "mov [rcx + 8 * 5], r9",
        "mov [rcx + 8 * 6], r10",
        "mov [rcx + 8 * 7], r11",
        "mov [rcx + 8 * 8], r12",
        "mov [rcx + 8 * 9], r13",
        "mov [rcx + 8 * 10], r14",
        "mov [rcx + 8 * 11], r15",
        "pop rsi",
        "test sil, {fsgsbase}",
        "jz 6f",
        "rdfsbase rax",
        "mov [rcx + 96], rax",
        "rdgsbase rax",
        "mov [rcx + 104], rax",
        "6:",
        "stmxcsr [rcx + 112]",
        "fnstcw [rcx + 120]",
        "test sil, {avx}",
        "jz 7f",
        "vmovups [rcx + 128 + 32 * 0], ymm0",
        "vmovups [rcx + 128 + 32 * 1], ymm1",
        "vmovups [rcx + 128 + 32 * 2], ymm2",
        "vmovups [rcx + 128 + 32 * 3], ymm3",
        "vmovups [rcx + 128 + 32 * 4], ymm4",
        "vmovups [rcx + 128 + 32 * 5], ymm5",
        "vmovups [rcx + 128 + 32 * 6], ymm6",
        "vmovups [rcx + 128 + 32 * 7], ymm7",
        "vmovups [rcx + 128 + 32 * 8], ymm8",
        "vmovups [rcx + 128 + 32 * 9], ymm9",
        "vmovups [rcx + 128 + 32 * 10], ymm10",
        "vmovups [rcx + 128 + 32 * 11], ymm11",
        "vmovups [rcx + 128 + 32 * 12], ymm12",
        "vmovups [rcx + 128 + 32 * 13], ymm13",
        "vmovups [rcx + 128 + 32 * 14], ymm14",
        "vmovups [rcx + 128 + 32 * 15], ymm15",
        "vzeroupper",
        "jmp 8f",
        "7:",
        "movups [rcx + 128 + 32 * 0], xmm0",
        "movups [rcx + 128 + 32 * 1], xmm1",
        "movups [rcx + 128 + 32 * 2], xmm2",
        "movups [rcx + 128 + 32 * 3], xmm3",
        "movups [rcx + 128 + 32 * 4], xmm4",
        "movups [rcx + 128 + 32 * 5], xmm5",
        "movups [rcx + 128 + 32 * 6], xmm6",
        "movups [rcx + 128 + 32 * 7], xmm7",
        "movups [rcx + 128 + 32 * 8], xmm8",
        "movups [rcx + 128 + 32 * 9], xmm9",
        "movups [rcx + 128 + 32 * 10], xmm10",
        "movups [rcx + 128 + 32 * 11], xmm11",
        "movups [rcx + 128 + 32 * 12], xmm12",
        "movups [rcx + 128 + 32 * 13], xmm13",
        "movups [rcx + 128 + 32 * 14], xmm14",
        "movups [rcx + 128 + 32 * 15], xmm15",
        "8:",
        // What Rust code expects: all floating-point exceptions masked, round to nearest.
        "push 0x1f80",
        "ldmxcsr [rsp]",
        "mov dword ptr [rsp], 0x37f",
        "fldcw [rsp]",
        "pop rax",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
        avx = const AVX,
        fsgsbase = const FSGSBASE,
    )
}

fn features() -> u64 {
    // OSXSAVE and AVX: CPUID.1:ECX bits 27 and 28; the state is enabled if XCR0 has bits 1 and 2.
    let basic = x86_64::__cpuid(1).ecx;
    let mut features = 0;
    if basic >> 27 & 3 == 3 {
        let (low, _high): (u32, u32);
        // SAFETY: OSXSAVE says that the instruction exists and ring 3 may execute it.
        unsafe {
            core::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _high, options(nomem, nostack))
        };
        if low & 6 == 6 {
            features |= AVX;
        }
    }
    if x86_64::__cpuid(0).eax >= 7 && x86_64::__cpuid_count(7, 0).ebx & 1 == 1 {
        features |= FSGSBASE;
    }
    features
}

pub(crate) fn run(env: &Env, shared: &Shared) -> u64 {
    let mut random = Random::new(env.number("seed", 1));
    let features = features();
    for round in 0..ROUNDS {
        let mut input = Patterns {
            general: core::array::from_fn(|_| random.next_u64()),
            // Canonical, and in the lower half.
            fs_base: random.next_u64() >> 17,
            gs_base: random.next_u64() >> 17,
            // Any rounding, flush and denormals as zero; no exception unmasked.
            mxcsr: 0x1f80 | random.below(4) << 13 | random.below(2) << 15 | random.below(2) << 6,
            control: 0x37f | random.below(4) << 10,
            vectors: core::array::from_fn(|_| core::array::from_fn(|_| random.next_u64())),
        };
        if features & AVX == 0 {
            input.vectors.iter_mut().for_each(|v| v[2..].fill(0));
        }
        if features & FSGSBASE == 0 {
            (input.fs_base, input.gs_base) = (0, 0);
        }
        let mut output = Patterns {
            general: [0; 12],
            fs_base: 0,
            gs_base: 0,
            mxcsr: 0,
            control: 0,
            vectors: [[0; 4]; 16],
        };
        // SAFETY: both are patterns, and the features were looked up.
        unsafe { hold(&input, &mut output, SPINS, features) };
        if let Some(place) = input.difference(&output) {
            return CHANGED * (round + 1) + place;
        }
        shared.set(0, round + 1);
    }
    0
}
