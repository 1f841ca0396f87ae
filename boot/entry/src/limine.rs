//! Entry by the Limine boot protocol: long mode, paging on, the image at its linked address.
//!
//! Moves to the image's own stack and calls `boot_limine()`. The answers to the requests lie in the image.

use core::arch::global_asm;

global_asm!(
    r#"
    .section .boot.text, "ax"
    .code64
    .globl limine_entry
limine_entry:
    cli
    cld
    mov rax, cr0
    and rax, -13
    or rax, 0x10022
    mov cr0, rax
    mov rax, cr4
    or rax, 0x600
    mov cr4, rax
    lea rsp, [rip + __stack_top]
    xor ebp, ebp
    call boot_limine
    ud2
"#
);

unsafe extern "C" {
    fn limine_entry();
}

/// The entry point's linked address. Naming it keeps this code in the image.
pub fn entry() -> u64 {
    limine_entry as *const () as u64
}
