//! The trampoline: real-mode code that takes a further core to long mode and into its instance.
//!
//! A block of [`PAGES`] pages below 1 MiB: code and parameters, then a PML4, a PDPT and a PD. The PML4 maps
//! the first 2 MiB to themselves and shares entry 511 with the core's own PML4, so that the core can jump to
//! the linked address before it loads its own root. That root may lie above 4 GiB; this one may not, because
//! CR3 is loaded in 32-bit mode. Only one core can be on its way through the block at a time.

use core::arch::global_asm;

/// Pages of the block.
pub const PAGES: u64 = 4;
/// Bytes of the block.
pub const SIZE: u64 = PAGES * 4096;
/// The block must end below this address (SIPI carries an 8-bit page number).
pub const LIMIT: u64 = 1 << 20;

/// What the core needs to know on its way.
#[derive(Clone, Copy, Debug)]
pub struct Parameters {
    /// Bits to set in EFER: LME, and NXE if the CPU has it.
    pub efer: u32,
    /// Physical address of the core's own PML4, passed to `entry` in `rdi`.
    pub cr3: u64,
    /// Where to jump in long mode.
    pub entry: u64,
    /// Entry 511 of the core's own PML4.
    pub kernel_entry: u64,
}

global_asm!(
    r#"
    .section .rodata.trampoline, "a"
    .globl trampoline_start, trampoline_end, trampoline_gdtr, trampoline_far32, trampoline_far64
    .globl trampoline_pml4, trampoline_efer, trampoline_cr3, trampoline_entry, trampoline_taken
    .balign 16
trampoline_start:
    .set TO_PML4, trampoline_pml4 - trampoline_start
    .set TO_EFER, trampoline_efer - trampoline_start
    .set TO_CR3, trampoline_cr3 - trampoline_start
    .set TO_ENTRY, trampoline_entry - trampoline_start
    .set TO_TAKEN, trampoline_taken - trampoline_start
    .code16
    cli
    cld
    mov ax, cs
    mov ds, ax
    xor ebx, ebx
    mov bx, ax
    shl ebx, 4
    .byte 0x66, 0x0f, 0x01, 0x16                    /* lgdt (32-bit base) [disp16] */
    .word trampoline_gdtr - trampoline_start
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xff, 0x2e                          /* jmp far 16:32 [disp16] */
    .word trampoline_far32 - trampoline_start

    .code32
2:  mov ax, 16
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov eax, cr4
    or eax, 0x620
    mov cr4, eax
    mov eax, [ebx + TO_PML4]
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, [ebx + TO_EFER]
    wrmsr
    mov eax, cr0
    and eax, 0x9ffffff3
    or eax, 0x80010022
    mov cr0, eax
    .byte 0xff, 0xab                                /* jmp far 16:32 [ebx + disp32] */
    .long trampoline_far64 - trampoline_start

    .code64
3:  mov ebx, ebx
    mov rdi, [rbx + TO_CR3]
    mov rax, [rbx + TO_ENTRY]
    mov dword ptr [rbx + TO_TAKEN], 1
    jmp rax

    .balign 8
4:  .quad 0
    .quad 0x00cf9b000000ffff                        /* 8: 32-bit code */
    .quad 0x00cf93000000ffff                        /* 16: data */
    .quad 0x00af9b000000ffff                        /* 24: 64-bit code */
trampoline_gdtr:
    .word 31
    .long 4b - trampoline_start
    .balign 4
trampoline_far32:
    .long 2b - trampoline_start
    .word 8
    .balign 4
trampoline_far64:
    .long 3b - trampoline_start
    .word 24
    .balign 8
trampoline_pml4:
    .long 0
trampoline_efer:
    .long 0
trampoline_cr3:
    .quad 0
trampoline_entry:
    .quad 0
trampoline_taken:
    .quad 0
trampoline_end:
    .previous
"#
);

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
    static trampoline_gdtr: u8;
    static trampoline_far32: u8;
    static trampoline_far64: u8;
    static trampoline_pml4: u8;
    static trampoline_efer: u8;
    static trampoline_cr3: u8;
    static trampoline_entry: u8;
    static trampoline_taken: u8;
}

/// The code as linked; addresses in it are relative to its start until [`write`] has moved them.
fn code() -> &'static [u8] {
    let start = &raw const trampoline_start;
    let len = (&raw const trampoline_end) as usize - start as usize;
    // SAFETY: the two symbols bound initialised, immutable bytes of the image.
    unsafe { core::slice::from_raw_parts(start, len) }
}

/// Fill `block`, which lies at physical address `base`, for one core.
///
/// # Panics
/// If the block does not lie below [`LIMIT`] on a page boundary.
pub fn write(block: &mut [u8; SIZE as usize], base: u64, p: &Parameters) {
    assert!(base.is_multiple_of(4096) && base + SIZE <= LIMIT, "the trampoline must lie below 1 MiB");
    let code = code();
    block.fill(0);
    block[..code.len()].copy_from_slice(code);
    let at = |symbol: *const u8| symbol as usize - code.as_ptr() as usize;
    let mut put = |offset: usize, bytes: &[u8]| block[offset..offset + bytes.len()].copy_from_slice(bytes);
    let base32 = base as u32;
    let relocate = |offset: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&code[offset..offset + 4]);
        u32::from_le_bytes(word) + base32
    };
    let [gdtr, far32, far64] = [
        at(&raw const trampoline_gdtr) + 2,
        at(&raw const trampoline_far32),
        at(&raw const trampoline_far64),
    ];
    for offset in [gdtr, far32, far64] {
        put(offset, &relocate(offset).to_le_bytes());
    }
    put(at(&raw const trampoline_pml4), &(base32 + 0x1000).to_le_bytes());
    put(at(&raw const trampoline_efer), &p.efer.to_le_bytes());
    put(at(&raw const trampoline_cr3), &p.cr3.to_le_bytes());
    put(at(&raw const trampoline_entry), &p.entry.to_le_bytes());
    // Present, writable; the PD's only entry is a large page.
    put(0x1000, &(base + 0x2003).to_le_bytes());
    put(0x1000 + 511 * 8, &p.kernel_entry.to_le_bytes());
    put(0x2000, &(base + 0x3003).to_le_bytes());
    put(0x3000, &0x83u64.to_le_bytes());
}

/// Byte offset in the block of the word that the core sets to 1 once it needs its parameters no more. It needs the
/// block's page tables for a few instructions more, until it runs on its own.
pub fn taken_offset() -> u64 {
    (&raw const trampoline_taken) as u64 - (&raw const trampoline_start) as u64
}
