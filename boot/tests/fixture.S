/*
 * A guest of a few lines, linked as a CPU driver: it enters long mode in the higher half and behaves as BEHAVIOUR
 * says. Each behaviour is one way in which a guest can end.
 */
    .intel_syntax noprefix
    .set VIRT_TO_PHYS, 0xffffffff80000000

    .section .boot.text, "ax"
    .code32
    .globl pvh_entry
pvh_entry:
    cli
    mov esp, offset __stack_top - VIRT_TO_PHYS
    /* The first 2 MiB pages of memory, twice: where they lie, and in the top 2 GiB. */
    mov eax, offset pdpt - VIRT_TO_PHYS + 3
    mov dword ptr [pml4 - VIRT_TO_PHYS], eax
    mov dword ptr [pml4 - VIRT_TO_PHYS + 511 * 8], eax
    mov eax, offset pd - VIRT_TO_PHYS + 3
    mov dword ptr [pdpt - VIRT_TO_PHYS], eax
    mov dword ptr [pdpt - VIRT_TO_PHYS + 510 * 8], eax
    mov dword ptr [pd - VIRT_TO_PHYS], 0x83
    mov dword ptr [pd - VIRT_TO_PHYS + 8], 0x200083
    mov eax, cr4
    or eax, 1 << 5              /* PAE */
    mov cr4, eax
    mov eax, offset pml4 - VIRT_TO_PHYS
    mov cr3, eax
    mov ecx, 0xc0000080         /* EFER */
    rdmsr
    or eax, 1 << 8              /* LME */
    wrmsr
    mov eax, cr0
    or eax, 1 << 31             /* PG */
    mov cr0, eax
    lgdt [gdt_pointer - VIRT_TO_PHYS]
    .byte 0xea                  /* jmp 8:long_mode, where it lies */
    .long long_mode - VIRT_TO_PHYS
    .word 8
    .code64
long_mode:
    movabs rax, offset limine_entry
    jmp rax

    .section .text
    .globl limine_entry
    .type limine_entry, @function
limine_entry:
    mov rsp, offset __stack_top
    xor ebp, ebp
    call outer_function
0:  hlt
    jmp 0b
    .size limine_entry, . - limine_entry

    .type outer_function, @function
outer_function:
    push rbp
    mov rbp, rsp
    call inner_function
    pop rbp
    ret
    .size outer_function, . - outer_function

    .type inner_function, @function
inner_function:
    push rbp
    mov rbp, rsp
    lea rsi, console_text[rip]
    mov dx, 0x3f8
    call write
    lea rsi, results_text[rip]
    mov dx, 0x2f8
    call write
    BEHAVIOUR
    .size inner_function, . - inner_function

/* Writes the NUL-terminated text at rsi to port dx. */
write:
    lodsb
    test al, al
    jz 0f
    out dx, al
    jmp write
0:  ret

    .section .rodata
gdt:
    .quad 0
    .quad 0x00209a0000000000
gdt_pointer:
    .word 15
    .quad gdt - VIRT_TO_PHYS
no_idt:
    .word 0
    .quad 0
console_text: .asciz CONSOLE
results_text: .asciz RESULTS

    .bss
    .balign 4096
pml4: .zero 4096
pdpt: .zero 4096
pd:   .zero 4096

    .section .note.GNU-stack, "", @progbits
