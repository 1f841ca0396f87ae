//! The short way of calls and answers: from the sender's registers to the receiver's, words untouched.
//!
//! It is for `Call` and `ReplyReceive` with words only, when the other side waits and nothing else has to be done:
//! no deadline to cancel, no event pending, nobody queued, nobody to be told. Everything is checked before the
//! first change; whatever is not so goes the long way ([`crate::syscall`]), registers as they came. That way does
//! the same with every condition spelt out, and is the only one on a CPU without `wrfsbase`.
//!
//! The ten words stay where they are. Free for use are only RAX, RCX and R11, and RBX, RBP and RSP, once they are
//! in the sender's [`Short`]. On the way RSP is the sender's dispatcher, RBX the receiver's; nothing is pushed,
//! and exceptions that can come here (NMI, machine check) have stacks of their own.

use super::entry::{ENTRY, GENERIC, SYSTEM_CALLS, XCR0};
use crate::core_state::{CORE, offset as core};
use crate::objects::{Dispatcher, Endpoint, Own, Saved, Short, WORDS, Wait};
use ::core::arch::naked_asm;
use ::core::mem::offset_of;
use caps::{CSpace, Capability, Cte};
use lmp::frame::Control;
use lmp::invocation::{DispatcherState, Op};
use lmp::layout::PHYS_WINDOW;
use lmp::{ObjType, Rights};

/// What the short way writes at once: `state`, `saved`, `wait`, `queued`, and no landing slot.
const fn stand(state: DispatcherState, wait: Wait, queued: Queued) -> u64 {
    state as u64 | (Saved::Short as u64) << 8 | (wait as u64) << 16 | (queued as u64) << 24
}

/// Whether a dispatcher is in the ready queue.
#[derive(Clone, Copy)]
enum Queued {
    No = 0,
    Yes = 1,
}

const STAND: usize = offset_of!(Dispatcher, state);
const _: () = {
    assert!(STAND.is_multiple_of(8));
    assert!(offset_of!(Dispatcher, saved) == STAND + 1);
    assert!(offset_of!(Dispatcher, wait) == STAND + 2);
    assert!(offset_of!(Dispatcher, queued) == STAND + 3);
    assert!(offset_of!(Dispatcher, landing) == STAND + 4);
};

/// Of one of the dispatcher's own capabilities.
const fn own(which: Own, field: usize) -> usize {
    which as usize * size_of::<Cte>() + field
}

const fn short(field: usize) -> usize {
    offset_of!(Dispatcher, short) + field
}

/// Save what survives, and find the slot of the invoked capability: its address is in RAX then, and R11 is what
/// makes a window address of a physical one.
macro_rules! begin {
    () => {
        "
        mov [rip + {entry} + 56], rsp
        mov rsp, [rip + {core} + {current}]
        mov [rsp + {rbx}], rbx
        mov [rsp + {rbp}], rbp
        mov [rsp + {rip}], rcx
        mov [rsp + {rflags}], r11
        mov rbx, [rip + {entry} + 56]
        mov [rsp + {rsp}], rbx
        movabs r11, {window}
        mov ecx, eax
        shr ecx, 8
        cmp ecx, [rip + {core} + {cspace} + {cspace_slots}]
        jae 9f
        shl rcx, 7
        add rcx, [rip + {core} + {cspace} + {cspace_base}]
        cmp word ptr [rcx + r11], {l2cnode}
        jne 9f
        movzx eax, al
        shl eax, 7
        add rax, [rcx + r11 + {base}]
        add rax, r11
        cmp word ptr [rip + {entry} + 6], {words}
        ja 9f
        "
    };
}

/// The receiver, in RBX, can be entered at once.
macro_rules! check_receiver {
    () => {
        "
        cmp byte ptr [rbx + {cspace_type}], {l1cnode}
        jne 9f
        cmp byte ptr [rbx + {vspace_type}], {pml4}
        jne 9f
        cmp byte ptr [rbx + {frame_type}], {frame}
        jne 9f
        movzx eax, word ptr [rbx + {frame_owner}]
        cmp ax, [rbx + {cspace_owner}]
        jne 9f
        cmp qword ptr [rbx + {deadline}], 0
        jne 9f
        "
    };
}

/// Go from the dispatcher in RSP to that in RBX, with what it is answered in RBP. The length is still in the
/// first register as it came: it says where in the row of registers to be cleared to begin. `xrstor` takes the
/// word in RDX as the upper half of its mask, of which XCR0 has no bit (SDM volume 1, 13.8).
macro_rules! switch {
    () => {
        "
        mov qword ptr [rbx + {stand}], {runs}
        mov rcx, [rsp + {next}]
        cmp rcx, rsp
        jne 4f
        mov [rbx + {next}], rbx
        mov [rbx + {previous}], rbx
    5:  mov [rip + {core} + {ready}], rbx
        mov [rip + {core} + {current}], rbx
        inc qword ptr [rip + {core} + {switches}]
        inc qword ptr [rip + {entry} + {system_calls}]
        rdfsbase rcx
        mov [rsp + {fs}], rcx
        rdgsbase rcx
        mov [rsp + {gs}], rcx
        stmxcsr [rsp + {fp}]
        fnstcw [rsp + {fp} + 4]
        movaps xmm0, [rbx + {space}]
        movaps [rip + {core} + {cspace}], xmm0
        mov rcx, [rbx + {root}]
        mov cr3, rcx
        xor ecx, ecx
        mov ds, ecx
        mov es, ecx
        mov fs, ecx
        mov gs, ecx
        mov rcx, [rbx + {fs}]
        wrfsbase rcx
        mov rcx, [rbx + {gs}]
        wrgsbase rcx
        mov eax, [rip + {entry} + {xcr0}]
        xrstor64 [rip + {initial}]
        ldmxcsr [rbx + {fp}]
        fldcw [rbx + {fp} + 4]
        mov rax, rbp
        movzx ecx, word ptr [rip + {entry} + 6]
        lea r11, [rip + 6f]
        jmp qword ptr [r11 + 8 * rcx]
    20: xor edi, edi
    21: xor esi, esi
    22: xor edx, edx
    23: xor r8d, r8d
    24: xor r9d, r9d
    25: xor r10d, r10d
    26: xor r12d, r12d
    27: xor r13d, r13d
    28: xor r14d, r14d
    29: xor r15d, r15d
    30: mov rcx, [rbx + {rip}]
        mov r11, [rbx + {rflags}]
        mov rsp, [rbx + {rsp}]
        mov rbp, [rbx + {rbp}]
        mov rbx, [rbx + {rbx}]
        sysretq
    4:  mov [rbx + {next}], rcx
        mov [rcx + {previous}], rbx
        mov rcx, [rsp + {previous}]
        mov [rbx + {previous}], rcx
        mov [rcx + {next}], rbx
        jmp 5b
        .balign 8
    6:  .quad 20b, 21b, 22b, 23b, 24b, 25b, 26b, 27b, 28b, 29b, 30b
        "
    };
}

/// The long way, with the registers as they came.
macro_rules! long_way {
    () => {
        "
    9:  mov rax, [rip + {entry}]
        mov rcx, [rsp + {rip}]
        mov r11, [rsp + {rflags}]
        mov rbp, [rsp + {rbp}]
        mov rbx, [rsp + {rbx}]
        mov rsp, [rip + {entry} + 56]
        jmp qword ptr [rip + {entry} + {generic}]
        "
    };
}

/// A message form: its own checks, which put the receiver into RBX, and its own changes; and the checks where the
/// receiver listens to all of its endpoints.
macro_rules! exchange {
    ($(#[$doc:meta])* $name:ident { $($check:literal)* } { $($change:literal)* } { $($any:literal)* } $($operand:tt)*) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// Only the system call entry may jump here, with the registers as they came and RAX in [`ENTRY`] too.
        #[unsafe(naked)]
        pub(super) unsafe extern "C" fn $name() {
            naked_asm!(
                begin!(),
                $($check,)*
                check_receiver!(),
                $($change,)*
                switch!(),
                long_way!(),
                $($any,)*
                $($operand)*
                entry = sym ENTRY,
                core = sym CORE,
                initial = sym super::user::INITIAL,
                current = const core::CURRENT,
                ready = const core::READY,
                cspace = const core::CSPACE,
                switches = const core::SWITCHES,
                cspace_base = const CSpace::BASE_OFFSET,
                cspace_slots = const CSpace::SLOTS_OFFSET,
                system_calls = const SYSTEM_CALLS,
                xcr0 = const XCR0,
                generic = const GENERIC,
                window = const PHYS_WINDOW,
                words = const WORDS,
                l2cnode = const ObjType::L2CNode as u16,
                l1cnode = const ObjType::L1CNode as u8,
                pml4 = const ObjType::Pml4 as u8,
                frame = const ObjType::Frame as u8,
                endpoint = const ObjType::Endpoint as u16,
                base = const offset_of!(Capability, base),
                rights = const offset_of!(Capability, rights),
                cspace_type = const own(Own::CSpace, offset_of!(Capability, ty)),
                cspace_owner = const own(Own::CSpace, offset_of!(Capability, owner)),
                vspace_type = const own(Own::VSpace, offset_of!(Capability, ty)),
                root = const own(Own::VSpace, offset_of!(Capability, base)),
                frame_type = const own(Own::Frame, offset_of!(Capability, ty)),
                frame_owner = const own(Own::Frame, offset_of!(Capability, owner)),
                stand = const STAND,
                runs = const stand(DispatcherState::Runnable, Wait::None, Queued::Yes),
                deadline = const offset_of!(Dispatcher, deadline),
                space = const offset_of!(Dispatcher, space),
                next = const offset_of!(Dispatcher, next),
                previous = const offset_of!(Dispatcher, previous),
                at = const offset_of!(Dispatcher, at),
                caller = const offset_of!(Dispatcher, caller),
                partner = const offset_of!(Dispatcher, partner),
                receiver = const offset_of!(Endpoint, dispatcher),
                rip = const short(offset_of!(Short, rip)),
                rsp = const short(offset_of!(Short, rsp)),
                rflags = const short(offset_of!(Short, rflags)),
                rbp = const short(offset_of!(Short, rbp)),
                rbx = const short(offset_of!(Short, rbx)),
                fs = const short(offset_of!(Short, fs_base)),
                gs = const short(offset_of!(Short, gs_base)),
                fp = const short(offset_of!(Short, fp_control)),
            )
        }
    };
}

exchange! {
    /// `Call` of an endpoint whose receiver waits there and owes nobody an answer.
    call {
        "cmp word ptr [rax], {endpoint}"
        "jne 9f"
        "test byte ptr [rax + {rights}], {write}"
        "jz 9f"
        "mov rbp, [rax + {base}]"
        "add rbp, r11"
        "mov rbx, [rbp + {receiver}]"
        "test rbx, rbx"
        "jz 9f"
        "cmp byte ptr [rbx + {wait}], {receive}"
        "jne 2f"
        "cmp [rbx + {at}], rbp"
        "jne 9f"
        "3:"
        "cmp qword ptr [rbx + {caller}], 0"
        "jne 9f"
        "mov rcx, [rax + {badge}]"
    } {
        "mov [rbx + {rbx}], rcx"
        "mov qword ptr [rsp + {stand}], {calls}"
        "mov [rsp + {partner}], rbx"
        "mov [rbx + {caller}], rsp"
        // What it receives: bits 16 up of the length lie where they are in the first register's upper half.
        "mov rbp, [rbp + {received}]"
        "mov ecx, [rip + {entry} + 4]"
        "lea rbp, [rbp + rcx - {op}]"
    } {
        "2:"
        "cmp byte ptr [rbx + {wait}], {receive_any}"
        "je 3b"
        "jmp 9b"
    }
    op = const Op::Call as u16,
    write = const Rights::WRITE.bits(),
    badge = const offset_of!(Capability, badge),
    wait = const offset_of!(Dispatcher, wait),
    receive = const Wait::Receive as u8,
    receive_any = const Wait::ReceiveAny as u8,
    received = const offset_of!(Endpoint, call),
    calls = const stand(DispatcherState::Blocked, Wait::Answer, Queued::No),
}

exchange! {
    /// `ReplyReceive` of whoever owes an answer to a caller, and whom nobody else waits for.
    reply_receive {
        "mov rbx, [rsp + {caller}]"
        "test rbx, rbx"
        "jz 9f"
        "mov rbp, [rax + {base}]"
        "add rbp, r11"
        "cmp word ptr [rax], {endpoint}"
        "jne 2f"
        "test byte ptr [rax + {rights}], {read}"
        "jz 9f"
        "cmp [rbp + {receiver}], rsp"
        "jne 9f"
        "cmp qword ptr [rbp + {queue}], 0"
        "jne 9f"
        "mov ecx, {receives}"
        "3:"
        "mov rax, [rsp + {frame_at}]"
        "cmp qword ptr [rax + {events}], 0"
        "jne 9f"
    } {
        "mov [rsp + {stand}], rcx"
        "mov [rsp + {at}], rbp"
        "mov qword ptr [rsp + {caller}], 0"
        "mov qword ptr [rbx + {partner}], 0"
        "mov ebp, [rip + {entry} + 4]"
        "sub ebp, {op}"
    } {
        "2:"
        "cmp word ptr [rax], {dispatcher}"
        "jne 9b"
        "cmp rbp, rsp"
        "jne 9b"
        "cmp qword ptr [rsp + {called}], 0"
        "jne 9b"
        "xor ebp, ebp"
        "mov ecx, {receives_any}"
        "jmp 3b"
    }
    op = const Op::ReplyReceive as u16,
    read = const Rights::READ.bits(),
    dispatcher = const ObjType::Dispatcher as u16,
    queue = const offset_of!(Endpoint, queue),
    called = const offset_of!(Dispatcher, called),
    frame_at = const offset_of!(Dispatcher, frame),
    events = const offset_of!(Control, events),
    receives = const stand(DispatcherState::Blocked, Wait::Receive, Queued::No),
    receives_any = const stand(DispatcherState::Blocked, Wait::ReceiveAny, Queued::No),
}
