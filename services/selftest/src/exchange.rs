//! A message form with every register under control, to see what comes out of each.

use core::arch::naked_asm;
use core::mem::offset_of;

use lmp::invocation::{MessageInfo, Op, ReceivedInfo, header_with};
use lmp::{CPtr, SysError};

/// Words of a message.
pub const WORDS: usize = MessageInfo::WORDS_MAX;

/// What goes into the registers, and what came out.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub struct Registers {
    /// RAX.
    pub rax: u64,
    /// The registers of the message words.
    pub words: [u64; WORDS],
    /// RBX.
    pub rbx: u64,
    /// RBP.
    pub rbp: u64,
    /// In: what all vector registers and the x87 register ST0 are filled with. Out: all vector registers, or-ed.
    pub vector: u64,
    /// Out: the mantissa of ST0.
    pub x87: u64,
    /// MXCSR.
    pub mxcsr: u64,
    /// x87 control word.
    pub fcw: u64,
}

/// Number of words in [`Registers`].
pub const REGISTERS: usize = size_of::<Registers>() / 8;

/// RBX before each form, to see that it stays.
pub const RBX: u64 = 0x0b0b_0b0b_0b0b_0b0b;

impl Registers {
    /// Registers for `op` on `cap` with `words`, and a pattern of the domain's own wherever nothing is sent.
    pub fn new(op: Op, cap: CPtr, words: &[u64], flags: u16, pattern: u64) -> Registers {
        let mut all = [pattern; WORDS];
        all[..words.len()].copy_from_slice(words);
        Registers {
            rax: header_with(cap, op, MessageInfo::new(words.len(), flags).0),
            words: all,
            rbx: RBX,
            rbp: pattern << 32,
            vector: pattern,
            x87: 0,
            mxcsr: 0x1f80 | (pattern & 3) << 13,
            fcw: 0x037f | (pattern & 3) << 10,
        }
    }

    /// The same with slots: for a capability to send, and for one that comes.
    pub fn slots(self, send: CPtr, landing: CPtr) -> Registers {
        Registers { rbp: u64::from(send.0) | u64::from(landing.0) << 32, ..self }
    }

    /// As an array, to pass through shared memory.
    pub fn to_array(self) -> [u64; REGISTERS] {
        let mut out = [0; REGISTERS];
        out[0] = self.rax;
        out[1..11].copy_from_slice(&self.words);
        out[11..].copy_from_slice(&[self.rbx, self.rbp, self.vector, self.x87, self.mxcsr, self.fcw]);
        out
    }

    /// From such an array.
    pub fn from_array(a: [u64; REGISTERS]) -> Registers {
        let mut words = [0; WORDS];
        words.copy_from_slice(&a[1..11]);
        Registers {
            rax: a[0],
            words,
            rbx: a[11],
            rbp: a[12],
            vector: a[13],
            x87: a[14],
            mxcsr: a[15],
            fcw: a[16],
        }
    }

    /// What RAX says.
    ///
    /// # Errors
    /// The form's error.
    pub fn status(&self) -> Result<ReceivedInfo, SysError> {
        match self.rax as u16 {
            0 => Ok(ReceivedInfo(self.rax)),
            code => Err(SysError::from_code(code).unwrap_or(SysError::NoSuchOperation)),
        }
    }

    /// Executes the form.
    pub fn execute(mut self) -> Registers {
        // SAFETY: all registers are saved and restored around it; what the form does is up to its caller.
        unsafe { execute(&mut self) };
        self
    }
}

/// Loads `registers`, executes `syscall` and stores them.
#[unsafe(naked)]
unsafe extern "C" fn execute(registers: &mut Registers) {
    naked_asm!(
        "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15",
        // MXCSR and the x87 control word of the caller.
        "sub rsp, 16",
        "stmxcsr [rsp]",
        "fnstcw [rsp + 4]",
        "push rdi",
        "ldmxcsr [rdi + {mxcsr}]",
        "movq xmm0, [rdi + {vector}]",
        "punpcklqdq xmm0, xmm0",
        "movaps xmm1, xmm0", "movaps xmm2, xmm0", "movaps xmm3, xmm0", "movaps xmm4, xmm0",
        "movaps xmm5, xmm0", "movaps xmm6, xmm0", "movaps xmm7, xmm0", "movaps xmm8, xmm0",
        "movaps xmm9, xmm0", "movaps xmm10, xmm0", "movaps xmm11, xmm0", "movaps xmm12, xmm0",
        "movaps xmm13, xmm0", "movaps xmm14, xmm0", "movaps xmm15, xmm0",
        "fninit",
        "movq mm0, [rdi + {vector}]",
        "emms",
        "fldcw [rdi + {fcw}]",
        "mov rax, [rdi]",
        "mov rsi, [rdi + 16]", "mov rdx, [rdi + 24]", "mov r8, [rdi + 32]", "mov r9, [rdi + 40]",
        "mov r10, [rdi + 48]", "mov r12, [rdi + 56]", "mov r13, [rdi + 64]", "mov r14, [rdi + 72]",
        "mov r15, [rdi + 80]",
        "mov rbx, [rdi + {rbx}]",
        "mov rbp, [rdi + {rbp}]",
        "mov rdi, [rdi + 8]",
        "syscall",
        "pop rcx",
        "mov [rcx], rax",
        "mov [rcx + 8], rdi", "mov [rcx + 16], rsi", "mov [rcx + 24], rdx", "mov [rcx + 32], r8",
        "mov [rcx + 40], r9", "mov [rcx + 48], r10", "mov [rcx + 56], r12", "mov [rcx + 64], r13",
        "mov [rcx + 72], r14", "mov [rcx + 80], r15",
        "mov [rcx + {rbx}], rbx",
        "mov [rcx + {rbp}], rbp",
        "mov qword ptr [rcx + {mxcsr}], 0",
        "stmxcsr [rcx + {mxcsr}]",
        "mov qword ptr [rcx + {fcw}], 0",
        "fnstcw [rcx + {fcw}]",
        "por xmm0, xmm1", "por xmm0, xmm2", "por xmm0, xmm3", "por xmm0, xmm4", "por xmm0, xmm5",
        "por xmm0, xmm6", "por xmm0, xmm7", "por xmm0, xmm8", "por xmm0, xmm9", "por xmm0, xmm10",
        "por xmm0, xmm11", "por xmm0, xmm12", "por xmm0, xmm13", "por xmm0, xmm14", "por xmm0, xmm15",
        "movhlps xmm1, xmm0",
        "por xmm0, xmm1",
        "movq [rcx + {vector}], xmm0",
        "movq [rcx + {x87}], mm0",
        "emms",
        "ldmxcsr [rsp]",
        "fldcw [rsp + 4]",
        "add rsp, 16",
        "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx",
        "ret",
        rbx = const offset_of!(Registers, rbx),
        rbp = const offset_of!(Registers, rbp),
        vector = const offset_of!(Registers, vector),
        x87 = const offset_of!(Registers, x87),
        mxcsr = const offset_of!(Registers, mxcsr),
        fcw = const offset_of!(Registers, fcw),
    )
}
