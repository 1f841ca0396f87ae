//! The dispatcher frame: memory shared by a dispatcher and its CPU driver.
//!
//! The CPU driver saves a dispatcher's registers here and enters it by *upcall* instead of resuming it
//! (scheduler activations). A dispatcher is *disabled* while [`Control::disabled`] is not 0 or its program
//! counter lies in the critical section `[critical_start, critical_end)`: it is then resumed, not upcalled.
//!
//! | what happens | enabled | disabled |
//! |---|---|---|
//! | preempted, or blocks | saved in `enabled`; next: `run` upcall | saved in `disabled_area`; next: resumed |
//! | page fault | saved in `enabled`; `page_fault` upcall | saved in `trap`; `page_fault_disabled` upcall |
//! | other exception | saved in `enabled`; `trap` upcall | saved in `trap`; `trap_disabled` upcall |
//!
//! An upcall enters with `disabled` = 1, `rsp` = [`Control::upcall_stack`], `rdi` = [`Control::self_va`],
//! `rsi` = exception vector (or the event bits for `run`), `rdx` = error code, `rcx` = faulting address; all
//! other registers are zero and vector state is initial except for MXCSR and the x87 control word. A fault
//! while disabled with `trap_busy` set, or one whose upcall entry is 0, ends the domain.
//!
//! Everything in the frame can be changed by the domain at any time: the CPU driver checks what it reads.

use crate::invocation::ReceivedInfo;
use core::mem::{offset_of, size_of};

/// Bytes of a dispatcher frame without endpoint buffers.
pub const FRAME_SIZE: u64 = 4 * 4096;
/// Bytes of the frames that the CPU driver gives `init` and that domains are spawned with: room for endpoint
/// buffers behind the fixed part.
pub const USUAL_FRAME_SIZE: u64 = 2 * FRAME_SIZE;
/// Alignment of a dispatcher frame in physical memory, in bytes.
pub const FRAME_ALIGN: u64 = 4096;
/// Bytes set aside for one save area's vector state (standard XSAVE format, all features of XCR0).
pub const VECTOR_AREA_SIZE: usize = 4096;

/// General registers of a stopped dispatcher.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C, align(64))]
pub struct SaveArea {
    /// General registers, in the order of [`reg`].
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// FS base.
    pub fs_base: u64,
    /// GS base.
    pub gs_base: u64,
    /// 1 if the vector area of this save area is valid; 0 if the registers were saved by a system call,
    /// across which vector registers do not survive.
    pub vector_valid: u64,
    /// MXCSR (bits 0–31) and x87 control word (bits 32–47) if `vector_valid` is 0.
    pub fp_control: u64,
}

/// Indices into [`SaveArea::gpr`].
pub mod reg {
    #![allow(missing_docs)]
    pub const RAX: usize = 0;
    pub const RBX: usize = 1;
    pub const RCX: usize = 2;
    pub const RDX: usize = 3;
    pub const RSI: usize = 4;
    pub const RDI: usize = 5;
    pub const RBP: usize = 6;
    pub const RSP: usize = 7;
    pub const R8: usize = 8;
    pub const R9: usize = 9;
    pub const R10: usize = 10;
    pub const R11: usize = 11;
    pub const R12: usize = 12;
    pub const R13: usize = 13;
    pub const R14: usize = 14;
    pub const R15: usize = 15;
}

/// The control words of a dispatcher frame.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C, align(64))]
pub struct Control {
    /// Not 0: no upcalls.
    pub disabled: u64,
    /// Code in `[critical_start, critical_end)` counts as disabled.
    pub critical_start: u64,
    /// End of the critical section.
    pub critical_end: u64,
    /// Upcall when the dispatcher is given the core after having been enabled.
    pub run: u64,
    /// Upcall for a page fault while enabled.
    pub page_fault: u64,
    /// Upcall for a page fault while disabled.
    pub page_fault_disabled: u64,
    /// Upcall for another exception while enabled.
    pub trap: u64,
    /// Upcall for another exception while disabled.
    pub trap_disabled: u64,
    /// Stack pointer on upcall.
    pub upcall_stack: u64,
    /// First argument of every upcall: by convention where the domain mapped this frame.
    pub self_va: u64,
    /// Not 0: the trap save area is in use; a further fault while disabled ends the domain.
    pub trap_busy: u64,
    /// Bits of events since last looked at; set by the CPU driver, cleared by the domain (`xchg`).
    pub events: u64,
    /// Deadline for a send, in TSC ticks; 0 = now, `u64::MAX` = never.
    pub send_deadline: u64,
    /// Deadline for a receive or block, in TSC ticks; 0 = now, `u64::MAX` = never.
    pub receive_deadline: u64,
}

/// The dispatcher frame.
#[repr(C, align(4096))]
pub struct DispatcherFrame {
    /// Control words.
    pub control: Control,
    /// Registers of an enabled dispatcher.
    pub enabled: SaveArea,
    /// Registers of a disabled dispatcher.
    pub disabled_area: SaveArea,
    /// Registers at a fault while disabled.
    pub trap: SaveArea,
    _pad: [u8; 4096 - size_of::<Control>() - 3 * size_of::<SaveArea>()],
    /// Vector state belonging to `enabled`.
    pub enabled_vector: [u8; VECTOR_AREA_SIZE],
    /// Vector state belonging to `disabled_area`.
    pub disabled_vector: [u8; VECTOR_AREA_SIZE],
    /// Vector state belonging to `trap`.
    pub trap_vector: [u8; VECTOR_AREA_SIZE],
}

const _: () = assert!(size_of::<DispatcherFrame>() as u64 == FRAME_SIZE);
const _: () = assert!(size_of::<SaveArea>() == 192);
const _: () = assert!(size_of::<Control>() == 128);

/// An endpoint's buffer in the dispatcher frame: this header, then messages of [`Message::SIZE`] bytes, used
/// as a ring. The CPU driver's own count of messages is authoritative; of what the domain writes it reads
/// only `consumed`, and believes it only if that lies within what is in the buffer.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C, align(64))]
pub struct EndpointBuffer {
    /// Messages written so far, for the domain.
    pub written: u64,
    /// Messages consumed so far, written by the domain.
    pub consumed: u64,
}

/// A message in an endpoint's buffer.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C, align(64))]
pub struct Message {
    /// The badge of the capability it was sent through.
    pub badge: u64,
    /// Number of words, and whether a capability came. Never a call: those are not buffered.
    pub info: ReceivedInfo,
    /// The words; those from `info.words()` on are 0.
    pub words: [u64; 10],
    /// The slot that the capability went to; 0 if none came.
    pub landed: u64,
}

impl Message {
    /// Bytes of a message.
    pub const SIZE: u64 = size_of::<Message>() as u64;
}

const _: () = assert!(size_of::<EndpointBuffer>() == 64 && Message::SIZE == 128);

/// Byte offsets in the frame, for assembly.
pub mod offset {
    use super::*;

    /// [`Control::disabled`].
    pub const DISABLED: usize = offset_of!(Control, disabled);
    /// [`Control::critical_start`].
    pub const CRITICAL_START: usize = offset_of!(Control, critical_start);
    /// [`Control::critical_end`].
    pub const CRITICAL_END: usize = offset_of!(Control, critical_end);
    /// [`Control::upcall_stack`].
    pub const UPCALL_STACK: usize = offset_of!(Control, upcall_stack);
    /// [`Control::self_va`].
    pub const SELF_VA: usize = offset_of!(Control, self_va);
    /// [`Control::trap_busy`].
    pub const TRAP_BUSY: usize = offset_of!(Control, trap_busy);
    /// [`DispatcherFrame::enabled`].
    pub const ENABLED: usize = offset_of!(DispatcherFrame, enabled);
    /// [`DispatcherFrame::disabled_area`].
    pub const DISABLED_AREA: usize = offset_of!(DispatcherFrame, disabled_area);
    /// [`DispatcherFrame::trap`].
    pub const TRAP: usize = offset_of!(DispatcherFrame, trap);
    /// [`DispatcherFrame::enabled_vector`].
    pub const ENABLED_VECTOR: usize = offset_of!(DispatcherFrame, enabled_vector);
    /// [`DispatcherFrame::disabled_vector`].
    pub const DISABLED_VECTOR: usize = offset_of!(DispatcherFrame, disabled_vector);
    /// [`DispatcherFrame::trap_vector`].
    pub const TRAP_VECTOR: usize = offset_of!(DispatcherFrame, trap_vector);
    /// [`SaveArea::rip`] within a save area.
    pub const RIP: usize = offset_of!(SaveArea, rip);
    /// [`SaveArea::rflags`] within a save area.
    pub const RFLAGS: usize = offset_of!(SaveArea, rflags);
    /// [`SaveArea::fs_base`] within a save area.
    pub const FS_BASE: usize = offset_of!(SaveArea, fs_base);
    /// [`SaveArea::gs_base`] within a save area.
    pub const GS_BASE: usize = offset_of!(SaveArea, gs_base);
    /// [`SaveArea::vector_valid`] within a save area.
    pub const VECTOR_VALID: usize = offset_of!(SaveArea, vector_valid);
    /// [`SaveArea::fp_control`] within a save area.
    pub const FP_CONTROL: usize = offset_of!(SaveArea, fp_control);
}
