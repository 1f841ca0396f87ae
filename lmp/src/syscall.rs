//! The user side of system calls: one function per operation.
//!
//! Only domains of this system may call these; on another operating system the `syscall` instruction means
//! something else entirely. That is why they are not safe to *link* into host programs, although each call
//! is memory-safe by itself where its documentation does not say otherwise: the CPU driver changes no
//! register but those declared here.

use crate::CoreId;
use crate::cptr::{CPtr, SlotRef, task};
use crate::error::{SysError, SysResult};
use crate::invocation::{
    Counter, DispatcherState, EndCause, LinkEnd, MapFlags, Op, TrampolineState, Violation, header,
};
use crate::objects::{ObjType, Rights};
use core::arch::asm;

#[inline(always)]
pub(crate) fn check(status: u64) -> SysResult {
    match status as u16 {
        0 => Ok(()),
        code => Err(SysError::from_code(code).unwrap_or(SysError::NoSuchOperation)),
    }
}

macro_rules! raw {
    ($(#[$doc:meta])* $name:ident($($arg:ident in $reg:tt),*) -> ($($out:ident in $oreg:tt),*)) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name(header: u64 $(, $arg: u64)*) -> (u64, $(raw!(@u64 $out),)*) {
            let status: u64;
            $(let $out: u64;)*
            // SAFETY: the ABI (module `invocation`) says which registers the kernel changes; all are
            // declared. The kernel writes no memory of the domain but its dispatcher frame and what the
            // invoked capabilities stand for.
            unsafe {
                raw!(@asm header status [$($arg $reg)*] [$($out $oreg)*]);
            }
            (status, $($out,)*)
        }
    };
    (@u64 $x:ident) => { u64 };
    (@asm $h:ident $s:ident [$($a:ident $r:tt)*] [$($o:ident $or:tt)*]) => {
        asm!("syscall", inlateout("rax") $h => $s, $(in($r) $a,)* $(lateout($or) $o,)*
            lateout("rcx") _, lateout("r11") _,
            lateout("xmm0") _, lateout("xmm1") _, lateout("xmm2") _, lateout("xmm3") _,
            lateout("xmm4") _, lateout("xmm5") _, lateout("xmm6") _, lateout("xmm7") _,
            lateout("xmm8") _, lateout("xmm9") _, lateout("xmm10") _, lateout("xmm11") _,
            lateout("xmm12") _, lateout("xmm13") _, lateout("xmm14") _, lateout("xmm15") _,
            options(nostack))
    };
}

raw! {
    /// A system call without words.
    call0() -> ()
}
raw! {
    /// A system call with 1 word.
    call1(w0 in "rdi") -> ()
}
raw! {
    /// A system call with 2 words.
    call2(w0 in "rdi", w1 in "rsi") -> ()
}
raw! {
    /// A system call with 3 words.
    call3(w0 in "rdi", w1 in "rsi", w2 in "rdx") -> ()
}
raw! {
    /// A system call with 4 words.
    call4(w0 in "rdi", w1 in "rsi", w2 in "rdx", w3 in "r8") -> ()
}
raw! {
    /// A system call with 5 words.
    call5(w0 in "rdi", w1 in "rsi", w2 in "rdx", w3 in "r8", w4 in "r9") -> ()
}
raw! {
    /// A system call with 6 words.
    call6(w0 in "rdi", w1 in "rsi", w2 in "rdx", w3 in "r8", w4 in "r9", w5 in "r10") -> ()
}
raw! {
    /// A system call without words that answers 1 word.
    ask0() -> (o0 in "rdi")
}
raw! {
    /// A system call without words that answers 5 words.
    ask0_5() -> (o0 in "rdi", o1 in "rsi", o2 in "rdx", o3 in "r8", o4 in "r9")
}
raw! {
    /// A system call with 1 word that answers 4 words.
    ask1(w0 in "rdi") -> (o0 in "rdi", o1 in "rsi", o2 in "rdx", o3 in "r8")
}
raw! {
    /// A system call with 2 words that answers 1 word.
    ask2(w0 in "rdi", w1 in "rsi") -> (o0 in "rdi")
}

/// Repeat a long operation until it is finished.
#[inline]
fn until_done(mut f: impl FnMut() -> u64) -> SysResult {
    loop {
        match check(f()) {
            Err(SysError::Again) => {}
            other => return other,
        }
    }
}

/// Copy the capability in `src` to the empty slot `dst` of the space `root`.
pub fn cap_copy(root: CPtr, dst: impl Into<SlotRef>, src: impl Into<SlotRef>) -> SysResult {
    check(call2(header(root, Op::Copy), dst.into().encode(), src.into().encode()).0)
}

/// Copy the capability in `src` to `dst` of the space `root`, keeping at most `rights`; `badge` 0 keeps the
/// source's badge.
pub fn cap_mint(
    root: CPtr,
    dst: impl Into<SlotRef>,
    src: impl Into<SlotRef>,
    rights: Rights,
    badge: u64,
) -> SysResult {
    let (dst, src) = (dst.into().encode(), src.into().encode());
    check(call4(header(root, Op::Mint), dst, src, rights.bits() as u64, badge).0)
}

/// Make `count` objects of `ty`, each of `size` (in units of the type's space), from `src` at `offset`,
/// in the slots from `dst` on.
pub fn cap_retype(
    root: CPtr,
    dst: impl Into<SlotRef>,
    src: CPtr,
    ty: ObjType,
    offset: u64,
    size: u64,
    count: u64,
) -> SysResult {
    let (dst, src) = (dst.into().encode(), SlotRef::L2(src).encode());
    until_done(|| call6(header(root, Op::Retype), dst, src, ty as u64, offset, size, count).0)
}

/// Delete the capability in `slot`.
pub fn cap_delete(root: CPtr, slot: impl Into<SlotRef>) -> SysResult {
    let slot = slot.into().encode();
    until_done(|| call1(header(root, Op::Delete), slot).0)
}

/// Delete all descendants and other copies of the capability in `slot`.
pub fn cap_revoke(root: CPtr, slot: impl Into<SlotRef>) -> SysResult {
    let slot = slot.into().encode();
    until_done(|| call1(header(root, Op::Revoke), slot).0)
}

/// What [`cap_identify`] tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CapInfo {
    /// The capability's type.
    pub ty: ObjType,
    /// Its rights.
    pub rights: Rights,
    /// Whether it has copies, ancestors or descendants on other cores (bits 0, 1, 2).
    pub remote: u8,
    /// The core that owns the object.
    pub owner: u32,
    /// Base, in the type's space.
    pub base: u64,
    /// Size, in the type's space.
    pub size: u64,
    /// Badge.
    pub badge: u64,
}

/// What is in `slot` of the space `root`.
pub fn cap_identify(root: CPtr, slot: impl Into<SlotRef>) -> SysResult<CapInfo> {
    let (status, w0, base, size, badge) = ask1(header(root, Op::Identify), slot.into().encode());
    check(status)?;
    Ok(CapInfo {
        ty: ObjType::from_code(w0 as u8).unwrap_or(ObjType::Null),
        rights: Rights::from_bits_truncate((w0 >> 8) as u8),
        remote: (w0 >> 16) as u8,
        owner: (w0 >> 32) as u32,
        base,
        size,
        badge,
    })
}

/// Map `count` entries of page table `table` from `entry` on to `object` (a frame, from byte `offset`, or
/// the next-level table, with `count` 1); the mapping's capability goes to `slot`.
pub fn vnode_map(
    table: CPtr,
    entry: u64,
    object: CPtr,
    offset: u64,
    flags: MapFlags,
    count: u64,
    slot: CPtr,
) -> SysResult {
    let (object, slot) = (object.0 as u64, SlotRef::L2(slot).encode());
    check(call6(header(table, Op::Map), entry, object, offset, flags.bits(), count, slot).0)
}

/// Delete `mapping`, of entries of page table `table`, and clear them: the quick way for who has the table at hand.
pub fn vnode_unmap(table: CPtr, mapping: CPtr) -> SysResult {
    check(call1(header(table, Op::Unmap), mapping.0 as u64).0)
}

/// Change the access of a mapping.
pub fn mapping_protect(mapping: CPtr, flags: MapFlags) -> SysResult {
    check(call1(header(mapping, Op::Protect), flags.bits()).0)
}

/// Set what a dispatcher runs with; `name` (at most 16 bytes are kept) appears in reports.
pub fn dispatcher_configure(disp: CPtr, cspace: CPtr, vspace: CPtr, frame: CPtr, name: &str) -> SysResult {
    let mut bytes = [0u8; 16];
    let n = name.len().min(16);
    bytes[..n].copy_from_slice(&name.as_bytes()[..n]);
    let [lo, hi] = [0, 8].map(|i| {
        let mut half = [0u8; 8];
        half.copy_from_slice(&bytes[i..i + 8]);
        u64::from_le_bytes(half)
    });
    check(call5(header(disp, Op::Configure), cspace.0 as u64, vspace.0 as u64, frame.0 as u64, lo, hi).0)
}

/// Let a dispatcher use the capability space `cspace`, an L1 CNode.
pub fn dispatcher_resize_root(disp: CPtr, cspace: CPtr) -> SysResult {
    check(call1(header(disp, Op::ResizeRoot), cspace.0 as u64).0)
}

/// Let a dispatcher run.
pub fn dispatcher_resume(disp: CPtr) -> SysResult {
    check(call0(header(disp, Op::Resume)).0)
}

/// Take a dispatcher off the core.
pub fn dispatcher_suspend(disp: CPtr) -> SysResult {
    check(call0(header(disp, Op::Suspend)).0)
}

/// Signal `notification` when the dispatcher ends.
pub fn dispatcher_set_end_notice(disp: CPtr, notification: CPtr) -> SysResult {
    check(call1(header(disp, Op::SetEndNotice), notification.0 as u64).0)
}

/// What [`dispatcher_status`] tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DispatcherStatus {
    /// Where it stands.
    pub state: DispatcherState,
    /// Why it ended, if it did.
    pub cause: EndCause,
    /// Exit code, or the address of the fault.
    pub detail: u64,
    /// Instruction pointer at the fault.
    pub rip: u64,
}

/// Where a dispatcher stands.
pub fn dispatcher_status(disp: CPtr) -> SysResult<DispatcherStatus> {
    let (status, state, cause, detail, rip) = ask1(header(disp, Op::Status), 0);
    check(status)?;
    Ok(DispatcherStatus {
        state: DispatcherState::from_code(state as u8).unwrap_or(DispatcherState::Inactive),
        cause: EndCause::from_code(cause as u8).unwrap_or(EndCause::None),
        detail,
        rip,
    })
}

/// Give the core to the next dispatcher that can run.
#[inline(always)]
pub fn yield_core() -> SysResult {
    check(call0(header(task::DISPATCHER, Op::Yield)).0)
}

/// Wait until an event is pending or the frame's `receive_deadline` passes. If this dispatcher is enabled it
/// goes on by a `run` upcall, and this call returns when the runtime resumes the enabled save area.
pub fn block() -> SysResult {
    check(call0(header(task::DISPATCHER, Op::Block)).0)
}

/// End this domain.
pub fn exit(code: u64) -> ! {
    loop {
        // It returns only if the domain no longer has its own dispatcher: then nothing else can be done.
        let _ = call1(header(task::DISPATCHER, Op::Exit), code);
    }
}

/// Bind an endpoint to a buffer of `messages` messages at byte `offset` of a dispatcher's frame; arrivals
/// set bit `event` of its events. What is received from it has the label `label`.
pub fn endpoint_bind(ep: CPtr, disp: CPtr, offset: u64, messages: u64, event: u64, label: u32) -> SysResult {
    let (disp, label) = (disp.0 as u64, label as u64);
    check(call5(header(ep, Op::BindEndpoint), disp, offset, messages, event, label).0)
}

/// Set the capability's badge bits on a notification and wake the dispatcher bound to it.
#[inline(always)]
pub fn notification_signal(n: CPtr) -> SysResult {
    check(call0(header(n, Op::Signal)).0)
}

/// Fetch and clear the pending bits of a notification.
#[inline(always)]
pub fn notification_poll(n: CPtr) -> SysResult<u64> {
    let (status, bits) = ask0(header(n, Op::Poll));
    check(status).map(|()| bits)
}

/// Let a notification set bit `event` of a dispatcher's events.
pub fn notification_bind(n: CPtr, disp: CPtr, event: u64) -> SysResult {
    check(call2(header(n, Op::BindNotification), disp.0 as u64, event).0)
}

/// Make `link` the writing end of a ring in the page at byte `offset` of `frame`, which is zeroed. Minted with
/// badge `n` + 1, `link` then signals entry `n` of the table of whoever reads that ring on the core with local
/// APIC identifier `apic_id`: see [`notification_signal`].
pub fn link_configure_writer(link: CPtr, frame: CPtr, offset: u64, apic_id: u32) -> SysResult {
    let end = LinkEnd::Writer as u64;
    check(call4(header(link, Op::ConfigureLink), frame.0 as u64, offset, end, apic_id as u64).0)
}

/// Make `link` the reading end, on this core, of a ring in the page at byte `offset` of `frame`. An entry is
/// signalled through the notification in that slot of `table`, an L2 CNode; what else a slot holds is ignored.
pub fn link_configure_reader(link: CPtr, frame: CPtr, offset: u64, table: CPtr) -> SysResult {
    let end = LinkEnd::Reader as u64;
    check(call4(header(link, Op::ConfigureLink), frame.0 as u64, offset, end, table.0 as u64).0)
}

/// Let interrupt `vector` signal `notification`.
pub fn irq_bind(irq: CPtr, vector: u64, notification: CPtr) -> SysResult {
    check(call2(header(irq, Op::BindIrq), vector, notification.0 as u64).0)
}

/// Let interrupt `vector` be delivered again.
pub fn irq_ack(irq: CPtr, vector: u64) -> SysResult {
    check(call1(header(irq, Op::AckIrq), vector).0)
}

/// Send the inter-processor interrupt `target` = `apic_id << 8 | vector`.
pub fn ipi_send(ipi: CPtr, target: u64) -> SysResult {
    check(call1(header(ipi, Op::SendIpi), target).0)
}

/// Read `bytes` (1, 2 or 4) from I/O port `port`.
pub fn port_in(ports: CPtr, port: u16, bytes: u64) -> SysResult<u32> {
    let (status, value) = ask2(header(ports, Op::PortIn), port as u64, bytes);
    check(status).map(|()| value as u32)
}

/// Write `bytes` (1, 2 or 4) to I/O port `port`.
pub fn port_out(ports: CPtr, port: u16, bytes: u64, value: u32) -> SysResult {
    check(call3(header(ports, Op::PortOut), port as u64, bytes, value as u64).0)
}

/// Load the CPU driver's image into the instance `start.kernel`, sharing the read-only part of `donor`
/// ([`CPtr::NULL`]: a copy of its own).
pub fn kernel_load(start: &CoreStart, donor: CPtr) -> SysResult {
    let (core, apic, node) = (start.core as u64, start.apic_id as u64, start.node as u64);
    until_done(|| call4(header(start.kernel, Op::LoadKernel), donor.0 as u64, core, apic, node).0)
}

/// Hand RAM, or a frame that stays readable here, to the core of a loaded instance.
pub fn kernel_give(kernel: CPtr, memory: CPtr) -> SysResult {
    until_done(|| call1(header(kernel, Op::GiveMemory), memory.0 as u64).0)
}

/// What a core is started with.
#[derive(Clone, Copy, Debug)]
pub struct CoreStart {
    /// Its instance.
    pub kernel: CPtr,
    /// Its dense index.
    pub core: u32,
    /// Its local APIC identifier.
    pub apic_id: u32,
    /// Its NUMA node.
    pub node: u32,
    /// `apic_id << 8 | vector` to ring after each log record; 0 = nothing.
    pub console_doorbell: u64,
    /// `apic_id << 8 | vector` to ring when its CPU driver runs; 0 = nothing.
    pub up_doorbell: u64,
}

/// Prepare the start of a core whose instance is loaded.
pub fn trampoline_arm(t: CPtr, start: &CoreStart) -> SysResult {
    let k = start.kernel.0 as u64;
    check(call3(header(t, Op::Arm), k, start.console_doorbell, start.up_doorbell).0)
}

/// Send INIT to the core that the trampoline is armed for.
pub fn trampoline_init(t: CPtr) -> SysResult {
    check(call0(header(t, Op::SendInit)).0)
}

/// Send SIPI to the core that the trampoline is armed for.
pub fn trampoline_sipi(t: CPtr) -> SysResult {
    check(call0(header(t, Op::SendSipi)).0)
}

/// Where the trampoline stands.
pub fn trampoline_status(t: CPtr) -> SysResult<TrampolineState> {
    let (status, state) = ask0(header(t, Op::TrampolineStatus));
    check(status)?;
    TrampolineState::from_code(state as u8).ok_or(SysError::WrongState)
}

/// Give up the start under way.
pub fn trampoline_disarm(t: CPtr) -> SysResult {
    check(call0(header(t, Op::Disarm)).0)
}

/// Read a counter of this core.
#[inline(always)]
pub fn kcb_counter(kcb: CPtr, counter: Counter) -> SysResult<u64> {
    let (status, value, ..) = ask1(header(kcb, Op::ReadCounter), counter as u64);
    check(status).map(|()| value)
}

/// Ring `doorbell` (`apic_id << 8 | vector`; 0 = nothing) after each log record of this core.
pub fn kcb_set_log_doorbell(kcb: CPtr, doorbell: u64) -> SysResult {
    check(call1(header(kcb, Op::SetLogDoorbell), doorbell).0)
}

/// Make a capability for a frame of another core in the empty slot `dst`: `size` bytes at physical address
/// `base`, which core `owner` owns and has agreed to share. It counts as having copies on other cores until
/// [`kcb_set_remote`] says otherwise.
pub fn kcb_create_foreign(
    kcb: CPtr,
    dst: impl Into<SlotRef>,
    rights: Rights,
    base: u64,
    size: u64,
    owner: CoreId,
) -> SysResult {
    let what = ObjType::Frame as u64 | (rights.bits() as u64) << 8;
    let dst = dst.into().encode();
    check(call5(header(kcb, Op::CreateForeign), dst, what, base, size, owner.0.into()).0)
}

/// Set what relations the object in `slot` has on other cores: bits 0 copies, 1 ancestors, 2 descendants.
/// With copies or descendants there, deleting its last capability and revoking it are for the monitors.
pub fn kcb_set_remote(kcb: CPtr, slot: impl Into<SlotRef>, remote: u8) -> SysResult {
    check(call2(header(kcb, Op::SetRemote), slot.into().encode(), remote.into()).0)
}

/// What an audit came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Audit {
    /// What is wrong.
    pub violation: Violation,
    /// Where, as [`Violation`] says.
    pub at: u64,
    /// Capabilities seen.
    pub capabilities: u64,
    /// Page-table entries seen.
    pub entries: u64,
    /// Bytes of memory accounted for.
    pub bytes: u64,
}

/// Go on with the audit of this core; `None`: there is more to do.
pub fn kcb_audit_step(kcb: CPtr) -> SysResult<Option<Audit>> {
    let (status, violation, at, capabilities, entries, bytes) = ask0_5(header(kcb, Op::Audit));
    match check(status) {
        Err(SysError::Again) => Ok(None),
        Err(error) => Err(error),
        Ok(()) => {
            let violation = u8::try_from(violation).ok().and_then(Violation::from_code);
            let violation = violation.ok_or(SysError::NoSuchOperation)?;
            Ok(Some(Audit { violation, at, capabilities, entries, bytes }))
        }
    }
}

/// Panic this core, to test what reports it.
pub fn kcb_panic(kcb: CPtr) -> SysResult {
    check(call0(header(kcb, Op::Panic)).0)
}
