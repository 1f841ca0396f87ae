//! Entry by PVH: 32-bit protected mode, flat segments, paging off, `ebx` = physical address of the start
//! info (Xen, `docs/misc/pvh.pandoc`).
//!
//! Builds boot page tables and calls `boot_pvh(start_info)` in long mode at the linked address. The boot
//! tables map the first 4 GiB twice with large pages, writable and executable: at address 0 and at
//! [`WINDOW`], and the image at its linked address. They are gone once the first instance runs.

use core::arch::global_asm;
use lmp::layout::{KERNEL_BASE, PHYS_WINDOW};

/// Where the boot page tables show physical memory.
pub const WINDOW: u64 = PHYS_WINDOW;
/// How much of it: the first 4 GiB.
pub const WINDOW_SIZE: u64 = 4 << 30;
/// Physical address at which PVH loads the image.
pub const LOAD_ADDRESS: u64 = 0x20_0000;

const _: () = assert!(KERNEL_BASE == 0xffff_ffff_8020_0000 && PHYS_WINDOW == 0xffff_8000_0000_0000);

#[repr(C, align(4096))]
struct Tables {
    pml4: [u64; 512],
    pdpt: [u64; 512],
    kernel_pdpt: [u64; 512],
    kernel_pd: [u64; 512],
    pd: [u64; 4 * 512],
}

static mut TABLES: Tables =
    Tables { pml4: [0; 512], pdpt: [0; 512], kernel_pdpt: [0; 512], kernel_pd: [0; 512], pd: [0; 4 * 512] };

// Addresses in 32-bit code are physical: symbol + V with V = -(0xffffffff_80000000) mod 2^64.
global_asm!(
    r#"
    .section .boot.text, "ax"
    .set V, 0x80000000
    .code32
    .globl pvh_entry
pvh_entry:
    cld
    mov ebp, ebx
    mov edi, offset __bss_start + V
    mov ecx, offset __bss_end + V
    sub ecx, edi
    shr ecx, 2
    xor eax, eax
    rep stosd
    mov esp, offset __stack_top + V

    mov eax, 0x80000000
    cpuid
    cmp eax, 0x80000001
    jb .Lpvh_refuse
    mov eax, 0x80000001
    cpuid
    test edx, 1 << 29
    jz .Lpvh_refuse

    mov ebx, offset {tables} + V
    lea eax, [ebx + 0x1003]
    mov [ebx], eax
    mov [ebx + 256 * 8], eax
    lea eax, [ebx + 0x2003]
    mov [ebx + 511 * 8], eax
    lea eax, [ebx + 0x3003]
    mov [ebx + 0x2000 + 510 * 8], eax
    mov dword ptr [ebx + 0x3000 + 8], 0x200083
    lea eax, [ebx + 0x4003]
    lea edi, [ebx + 0x1000]
    mov ecx, 4
2:  mov [edi], eax
    add eax, 0x1000
    add edi, 8
    dec ecx
    jnz 2b
    lea edi, [ebx + 0x4000]
    mov eax, 0x83
    mov ecx, 2048
3:  mov [edi], eax
    add eax, 0x200000
    add edi, 8
    dec ecx
    jnz 3b

    mov cr3, ebx
    mov eax, cr4
    or eax, 0x620
    mov cr4, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    and eax, 0xfffffff3
    or eax, 0x80010022
    mov cr0, eax
    mov eax, offset .Lpvh_gdtr + V
    lgdt [eax]
    push 8
    mov eax, offset .Lpvh_long + V
    push eax
    retf

    /* No long mode: say so on COM1, and stop. */
.Lpvh_refuse:
    mov esi, offset .Lpvh_text + V
    mov edx, 0x3f8
8:  lodsb
    test al, al
    jz .Lpvh_stop
    out dx, al
    jmp 8b
.Lpvh_stop:
    cli
    hlt
    jmp .Lpvh_stop
.Lpvh_text:
    .asciz "killifish: this CPU has no 64-bit mode; boot on an x86-64 CPU\r\n"

    .balign 8
.Lpvh_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
.Lpvh_gdtr:
    .word 23
    .long .Lpvh_gdt + V

    .code64
.Lpvh_long:
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    movabs rax, offset .Lpvh_high
    jmp rax
.Lpvh_high:
    lea rsp, [rip + __stack_top]
    mov edi, ebp
    xor ebp, ebp
    call boot_pvh
    ud2
"#,
    tables = sym TABLES,
);

unsafe extern "C" {
    fn pvh_entry();
}

/// The entry point's linked address. Naming it keeps this code in the image.
pub fn entry() -> u64 {
    pvh_entry as *const () as u64
}
