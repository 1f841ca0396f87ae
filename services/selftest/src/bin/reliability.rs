//! Scenario `reliability`: bad input of each kind that a system call can have gets the error that belongs to it and
//! changes nothing, and nothing of the CPU driver or of others shows in what a domain can read.
//!
//! The name of each check begins with the interface that it is about, as in `doc/reliability.md`.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::arch::asm;
use core::cell::RefCell;
use core::fmt::Debug;

use boot_freestanding as _;
use lmp::cptr::{SlotRef, task};
use lmp::error::SysResult;
use lmp::frame::{EndpointBuffer, FRAME_SIZE, Message};
use lmp::invocation::{MapFlags, Op, header_with};
use lmp::layout::{self, KERNEL_BASE, PHYS_WINDOW, USER_ROOT_SLOTS};
use lmp::objects::{CTE_SIZE, PAGE_SIZE};
use lmp::{CPtr, ObjType, Rights, SysError, message, syscall};
use runtime::memory::{self, Object};
use runtime::{Env, upcall};
use selftest::exchange::Registers;
use selftest::{Random, Test};

runtime::entry!(main);

/// What a check comes to.
type Check = Result<(), String>;
/// A check by name.
type Named = (&'static str, fn(&Test) -> Check);

/// An L1 slot in which a domain of this system has no CNode: its root is smaller.
const BEYOND: u32 = 1 << 16;
/// An address that no pointer can have.
const NON_CANONICAL: u64 = 1 << 47;
/// What fills registers and memory, to be found again.
const PATTERN: u64 = 0x5ec2_e75e_c2e7_5ec2;

const CHECKS: &[Named] = &[
    ("system call: unknown number", unknown_numbers),
    ("system call: garbage registers", garbage_registers),
    ("system call: non-canonical pointers", non_canonical_pointers),
    ("system call: non-canonical return address", non_canonical_return),
    ("system call: non-canonical stack pointer on the way back", non_canonical_stack),
    ("capability reference: out of range", out_of_range),
    ("capability reference: too deep", too_deep),
    ("capability reference: cyclic CNode", cyclic),
    ("capability reference: empty slot", empty),
    ("capability reference: wrong type", wrong_type),
    ("capability reference: missing right", missing_right),
    ("forged capability: memory of kernel objects is never mappable", never_mappable),
    ("forged capability: memory of kernel objects becomes no frame", never_a_frame),
    ("forged capability: raw bytes in a message stay data", bytes_stay_data),
    ("forged capability: a frame is no CNode", a_frame_is_no_cnode),
    ("leaks: uninitialised return words", return_words),
    ("leaks: kernel addresses in the dispatcher frame", frame_words),
    ("leaks: recycled frames", recycled_frames),
    ("leaks: recycled kernel objects", recycled_objects),
];

fn main(env: &Env) -> u64 {
    let mut test = Test::new(env);
    for (name, check) in CHECKS {
        // What is made once and kept, such as heap and page tables, is there the second time.
        let result = check(&test).and_then(|()| {
            let before = memory::stats();
            check(&test)?;
            expect("the account of memory", memory::stats(), before)
        });
        test.check(name, result);
    }
    test.finish()
}

fn expect<T: PartialEq + Debug>(what: &str, found: T, expected: T) -> Check {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?} instead of {expected:?}")) }
}

fn refused(what: &str, found: SysResult, error: SysError) -> Check {
    expect(what, found, Err(error))
}

fn made(ty: ObjType, size: u64) -> Result<Object, String> {
    memory::allocate(ty, size).map_err(|e| format!("making a {}: {e}", ty.name()))
}

fn free(objects: impl IntoIterator<Item = Object>) -> Check {
    objects.into_iter().try_for_each(|o| memory::free(o).map_err(|e| format!("freeing: {e}")))
}

fn slot() -> Result<CPtr, String> {
    memory::slot().map_err(|e| format!("{e}"))
}

/// Executes a system call with that first word, everything else filled with a pattern; it must be refused with
/// `error` and leave every register as it was.
fn raw(what: &str, header: u64, words: &[u64], error: SysError) -> Check {
    let given = Registers { rax: header, ..Registers::new(Op::Yield, CPtr::NULL, words, 0, PATTERN) };
    let found = given.execute();
    expect(what, found.status().map(|_| ()), Err(error))?;
    expect(what, (found.words, found.rbx, found.rbp), (given.words, given.rbx, given.rbp))?;
    expect(what, (found.vector, found.mxcsr, found.fcw), (0, given.mxcsr, given.fcw))
}

fn unknown_numbers(_: &Test) -> Check {
    for code in (0..=u16::MAX).filter(|code| Op::from_code(*code).is_none()) {
        let header = u64::from(task::DISPATCHER.0) | u64::from(code) << 32;
        raw(&format!("operation {code}"), header, &[], SysError::NoSuchOperation)?;
    }
    Ok(())
}

/// Whatever the registers hold: a reference to nothing is refused before any of them is looked at.
fn garbage_registers(test: &Test) -> Check {
    let mut random = Random::new(test.seed());
    for _ in 0..2000 {
        let cap = CPtr::new(BEYOND + random.below(1 << 8) as u32, random.below(256) as u32);
        let op = random.pick(Op::ALL);
        let words: [u64; 10] = core::array::from_fn(|_| random.awkward());
        let header = header_with(cap, op, random.next_u64() as u16);
        raw(&format!("{op:?}"), header, &words, SysError::NoSuchSlot)?;
    }
    Ok(())
}

/// Offsets are the nearest to pointers that system calls take.
fn non_canonical_pointers(_: &Test) -> Check {
    let (endpoint, link) = (made(ObjType::Endpoint, 0)?, made(ObjType::Link, 0)?);
    let (frame, table) = (made(ObjType::Frame, PAGE_SIZE)?, made(ObjType::Pt, 0)?);
    let mapping = slot()?;
    for address in [NON_CANONICAL, 1 << 63, PHYS_WINDOW, KERNEL_BASE & !(PAGE_SIZE - 1), u64::MAX << 12] {
        let bind = syscall::endpoint_bind(endpoint.cap, task::DISPATCHER, address, 1, 40, 0);
        refused("binding", bind, SysError::OutOfRange)?;
        let configure = syscall::link_configure_writer(link.cap, frame.cap, address, 0);
        refused("configuring a link", configure, SysError::OutOfRange)?;
        let map = syscall::vnode_map(table.cap, 0, frame.cap, address, MapFlags::READ, 1, mapping);
        refused("mapping", map, SysError::OutOfRange)?;
    }
    memory::free_slot(mapping);
    free([endpoint, link, frame, table])
}

/// The page before the border cannot be mapped, so that the address after a `syscall` is always canonical. What a save
/// area says is the scenario `savearea`.
fn non_canonical_return(_: &Test) -> Check {
    let (table, mapping) = (made(ObjType::Pdpt, 0)?, slot()?);
    let all = MapFlags::READ | MapFlags::WRITE | MapFlags::EXECUTE;
    for entry in [USER_ROOT_SLOTS as u64, 256, 511, 512, u64::MAX] {
        let map = syscall::vnode_map(task::VSPACE, entry, table.cap, 0, all, 1, mapping);
        refused(&format!("root entry {entry}"), map, SysError::OutOfRange)?;
    }
    memory::free_slot(mapping);
    free([table])
}

/// A system call and its way back do not look at the stack.
fn non_canonical_stack(_: &Test) -> Check {
    let header = header_with(task::ROOT, Op::Identify, 0);
    for stack in [NON_CANONICAL, 1 << 63, u64::MAX, KERNEL_BASE, PHYS_WINDOW, 0, 1] {
        let status = upcall::disabled(|| {
            let status: u64;
            // SAFETY: all registers that the call changes are declared; the stack pointer is restored before anything
            // uses it, and no upcall comes meanwhile, as the domain is disabled.
            unsafe {
                asm!("mov r15, rsp", "mov rsp, r14", "syscall", "mov rsp, r15",
                    inlateout("rax") header => status, in("r14") stack, lateout("r15") _,
                    inlateout("rdi") u64::from(task::ROOT.0) => _, lateout("rsi") _, lateout("rdx") _,
                    lateout("r8") _, lateout("rcx") _, lateout("r11") _, clobber_abi("C"));
            }
            status
        });
        expect(&format!("stack pointer {stack:#x}"), status as u16, 0)?;
    }
    Ok(())
}

fn out_of_range(_: &Test) -> Check {
    let root = syscall::cap_identify(task::ROOT, task::ROOT).map_err(|e| format!("{e}"))?;
    let slots = (root.size / CTE_SIZE) as u32;
    for cap in
        [CPtr::new(slots, 0), CPtr::new(slots, 255), CPtr::new(BEYOND, 1), CPtr(u32::MAX), CPtr(1 << 31)]
    {
        let what = format!("{cap:x?}");
        refused(&what, syscall::notification_signal(cap), SysError::NoSuchSlot)?;
        refused(&what, syscall::cap_delete(task::ROOT, cap), SysError::NoSuchSlot)?;
        refused(&what, syscall::cap_copy(task::ROOT, cap, task::ROOT), SysError::NoSuchSlot)?;
        refused(&what, syscall::cap_copy(task::ROOT, task::ROOT, cap), SysError::NoSuchSlot)?;
        refused(&what, syscall::notification_bind(CPtr::NULL, cap, 1), SysError::EmptySlot)?;
    }
    for l1 in [slots, u32::MAX] {
        let found = syscall::cap_delete(task::ROOT, SlotRef::L1(l1));
        refused("an L1 slot", found, SysError::NoSuchSlot)?;
    }
    Ok(())
}

/// A reference has two levels; bits for more are refused, and a slot of an L2 CNode leads nowhere.
fn too_deep(_: &Test) -> Check {
    for word in [1 << 33, 1 << 40, u64::MAX, 1 << 63 | u64::from(task::ROOT.0)] {
        raw("a slot", header_with(task::ROOT, Op::Identify, 0), &[word], SysError::NoSuchSlot)?;
    }
    let n = made(ObjType::Notification, 0)?;
    for word in [1 << 32 | u64::from(task::DISPATCHER.0), u64::MAX] {
        raw("an operand", header_with(n.cap, Op::BindNotification, 0), &[word, 40], SysError::NoSuchSlot)?;
    }
    let place = syscall::cap_copy(task::ROOT, SlotRef::L1(31), task::ROOT);
    refused("an L1 CNode within a root", place, SysError::WrongType)?;
    free([n])
}

/// A CNode that holds itself is found where it lies, and no deeper.
fn cyclic(_: &Test) -> Check {
    let (root, cnode) = (made(ObjType::L1CNode, PAGE_SIZE)?, made(ObjType::L2CNode, 0)?);
    let fill = || {
        for l1 in 0..(PAGE_SIZE / CTE_SIZE) as u32 {
            syscall::cap_copy(root.cap, SlotRef::L1(l1), cnode.cap)?;
        }
        (0..256).try_for_each(|n| {
            let source = if n % 2 == 0 { cnode.cap } else { root.cap };
            syscall::cap_copy(root.cap, CPtr::new(n % 32, n), source)
        })
    };
    fill().map_err(|e| format!("{e}"))?;
    for n in 0..256 {
        let ty = syscall::cap_identify(root.cap, CPtr::new(31 - n % 32, n)).map(|i| i.ty);
        let expected = if n % 2 == 0 { ObjType::L2CNode } else { ObjType::L1CNode };
        expect("what lies in it", ty, Ok(expected))?;
    }
    free([cnode, root])
}

fn empty(_: &Test) -> Check {
    let slot = slot()?;
    for op in Op::ALL {
        raw(&format!("{op:?}"), header_with(slot, *op, 0), &[], SysError::EmptySlot)?;
    }
    refused("deleting", syscall::cap_delete(task::ROOT, slot), SysError::EmptySlot)?;
    let n = made(ObjType::Notification, 0)?;
    refused("an operand", syscall::notification_bind(n.cap, slot, 40), SysError::EmptySlot)?;
    memory::free_slot(slot);
    free([n])
}

/// Each operation on a capability of each type that does not have it, but those that would end this domain or stop it.
fn wrong_type(_: &Test) -> Check {
    let types = [ObjType::Ram, ObjType::Frame, ObjType::L2CNode, ObjType::Pt, ObjType::Notification];
    let objects = types.into_iter().map(|ty| made(ty, PAGE_SIZE)).collect::<Result<Vec<_>, _>>()?;
    for (ty, object) in types.iter().zip(&objects) {
        for op in Op::ALL {
            let has = match ty {
                ObjType::Pt => matches!(op, Op::Map | Op::Unmap),
                ObjType::Notification => matches!(op, Op::Signal | Op::Poll | Op::BindNotification),
                _ => false,
            };
            if !has {
                let header = header_with(object.cap, *op, 0);
                raw(&format!("{op:?} on a {}", ty.name()), header, &[], SysError::NoSuchOperation)?;
            }
        }
    }
    let [ram, frame, cnode, table, notification] = [0, 1, 2, 3, 4].map(|n| objects[n].cap);
    let dispatcher = made(ObjType::Dispatcher, 0)?;
    let configure =
        |cspace, vspace, frame| syscall::dispatcher_configure(dispatcher.cap, cspace, vspace, frame, "");
    let (root, vspace, own) = (task::ROOT, task::VSPACE, task::DISPATCHER_FRAME);
    refused("a CNode for a root", configure(cnode, vspace, own), SysError::WrongType)?;
    refused("a table for a root table", configure(root, table, own), SysError::WrongType)?;
    refused("RAM for a frame", configure(root, vspace, ram), SysError::WrongType)?;
    refused(
        "a frame for a dispatcher",
        syscall::notification_bind(notification, frame, 1),
        SysError::WrongType,
    )?;
    let notice = syscall::dispatcher_set_end_notice(dispatcher.cap, frame);
    refused("a frame for a notification", notice, SysError::WrongType)?;
    let link = made(ObjType::Link, 0)?;
    refused("RAM for a ring", syscall::link_configure_writer(link.cap, ram, 0, 0), SysError::WrongType)?;
    let reader = syscall::link_configure_reader(link.cap, frame, 0, root);
    refused("a root for a table of notifications", reader, SysError::WrongType)?;
    free(objects.into_iter().chain([dispatcher, link]))
}

/// A capability without a right is refused what needs it; what needs none of it is granted.
fn missing_right(_: &Test) -> Check {
    let minted = RefCell::new(Vec::new());
    let less = |source: CPtr, rights| -> Result<CPtr, String> {
        let slot = slot()?;
        minted.borrow_mut().push(slot);
        syscall::cap_mint(task::ROOT, slot, source, rights, 0).map_err(|e| format!("minting: {e}"))?;
        Ok(slot)
    };
    let missing = SysError::MissingRight;
    let (n, frame, table) =
        (made(ObjType::Notification, 0)?, made(ObjType::Frame, PAGE_SIZE)?, made(ObjType::Pt, 0)?);
    let d = made(ObjType::Dispatcher, 0)?;
    let no_write = Rights::READ | Rights::EXECUTE | Rights::GRANT;
    let no_read = Rights::WRITE | Rights::EXECUTE | Rights::GRANT;
    let (n_w, n_r) = (less(n.cap, no_read)?, less(n.cap, no_write)?);
    refused("signal", syscall::notification_signal(n_r), missing)?;
    refused("poll", syscall::notification_poll(n_w).map(|_| ()), missing)?;
    expect("signal", syscall::notification_signal(n_w), Ok(()))?;
    expect("poll", syscall::notification_poll(n_r), Ok(1))?;
    let root = less(task::ROOT, no_write)?;
    let empty = slot()?;
    refused("copy into a space", syscall::cap_copy(root, empty, n.cap), missing)?;
    refused("delete in a space", syscall::cap_delete(root, n.cap), missing)?;
    refused("revoke in a space", syscall::cap_revoke(root, n.cap), missing)?;
    let disp = less(d.cap, no_write)?;
    refused("resume", syscall::dispatcher_resume(disp), missing)?;
    refused("suspend", syscall::dispatcher_suspend(disp), missing)?;
    refused("end notice", syscall::dispatcher_set_end_notice(disp, n.cap), missing)?;
    refused("bind to it", syscall::notification_bind(n.cap, disp, 1), missing)?;
    let map = |table, frame, flags| syscall::vnode_map(table, 0, frame, 0, flags, 1, empty);
    refused("map in a table", map(less(table.cap, no_write)?, frame.cap, MapFlags::READ), missing)?;
    let writable = MapFlags::READ | MapFlags::WRITE;
    refused("map for writing", map(table.cap, less(frame.cap, no_write)?, writable), missing)?;
    refused("map", map(table.cap, less(frame.cap, no_read)?, MapFlags::READ), missing)?;
    let kcb = less(task::KCB, Rights::READ)?;
    refused("panic", syscall::kcb_panic(kcb), missing)?;
    refused("a doorbell for the log", syscall::kcb_set_log_doorbell(kcb, 0), missing)?;
    refused(
        "a foreign frame",
        syscall::kcb_create_foreign(kcb, empty, Rights::READ, 0, 4096, lmp::CoreId(1)),
        missing,
    )?;
    refused("relations", syscall::kcb_set_remote(kcb, frame.cap, 0), missing)?;
    let counter = lmp::invocation::Counter::SystemCalls;
    refused("counters", syscall::kcb_counter(less(task::KCB, Rights::WRITE)?, counter).map(|_| ()), missing)?;
    refused("more rights", syscall::cap_mint(task::ROOT, empty, n_r, Rights::all(), 0), missing)?;
    for slot in minted.take() {
        syscall::cap_delete(task::ROOT, slot).map_err(|e| format!("deleting: {e}"))?;
        memory::free_slot(slot);
    }
    memory::free_slot(empty);
    free([n, frame, table, d])
}

/// The types of kernel objects in memory that a domain can make.
const KERNEL_OBJECTS: [ObjType; 10] = [
    ObjType::L1CNode,
    ObjType::L2CNode,
    ObjType::Pml4,
    ObjType::Pdpt,
    ObjType::Pd,
    ObjType::Pt,
    ObjType::Dispatcher,
    ObjType::Endpoint,
    ObjType::Notification,
    ObjType::Link,
];

fn never_mappable(_: &Test) -> Check {
    let (table, mapping) = (made(ObjType::Pt, 0)?, slot()?);
    let flags = [MapFlags::READ, MapFlags::READ | MapFlags::WRITE, MapFlags::READ | MapFlags::EXECUTE];
    let map = |object, flags| syscall::vnode_map(table.cap, 0, object, 0, flags, 1, mapping);
    for ty in KERNEL_OBJECTS {
        let object = made(ty, PAGE_SIZE)?;
        for flags in flags {
            refused(ty.name(), map(object.cap, flags), SysError::WrongType)?;
        }
        free([object])?;
    }
    for cap in [task::KCB, task::ROOT, task::DISPATCHER, task::RAM] {
        for flags in flags {
            refused("what the domain has", map(cap, flags), SysError::WrongType)?;
        }
    }
    memory::free_slot(mapping);
    free([table])
}

/// Neither a kernel object nor the RAM under it becomes a frame.
fn never_a_frame(_: &Test) -> Check {
    let align = memory::object_align(ObjType::L2CNode);
    let ram =
        memory::allocate_in(ObjType::Ram, 64 << 10, align, &memory::ANYWHERE).map_err(|e| format!("{e}"))?;
    let (object, frame) = (slot()?, slot()?);
    for ty in KERNEL_OBJECTS {
        let size = memory::object_size(ty, PAGE_SIZE);
        syscall::cap_retype(task::ROOT, object, ram.cap, ty, 0, size, 1)
            .map_err(|e| format!("{ty:?}: {e}"))?;
        let over = |src, size| syscall::cap_retype(task::ROOT, frame, src, ObjType::Frame, 0, size, 1);
        refused(ty.name(), over(ram.cap, PAGE_SIZE), SysError::Overlap)?;
        refused(ty.name(), over(ram.cap, ram.size), SysError::Overlap)?;
        refused(ty.name(), over(object, PAGE_SIZE), SysError::BadRetype)?;
        syscall::cap_delete(task::ROOT, object).map_err(|e| format!("{ty:?}: {e}"))?;
    }
    memory::free_slot(object);
    memory::free_slot(frame);
    free([ram])
}

/// Words that name a capability, or look like one as it lies in a slot, are words to whom they are sent.
fn bytes_stay_data(_: &Test) -> Check {
    const ROOM: u64 = 2;
    let error = |what: &'static str| move |e| format!("{what}: {e}");
    let (endpoint, landing) = (made(ObjType::Endpoint, 0)?, slot()?);
    syscall::endpoint_bind(endpoint.cap, task::DISPATCHER, FRAME_SIZE, ROOM, 40, 0)
        .map_err(error("binding"))?;
    message::set_landing(endpoint.cap, landing).map_err(error("a landing"))?;
    let info = syscall::cap_identify(task::ROOT, task::ROOT).map_err(error("identifying"))?;
    let forged =
        [task::ROOT.0.into(), ObjType::L1CNode as u64 | 0xf << 8, info.base, info.size, u64::MAX, 0, 1, 2];
    message::send(endpoint.cap, forged).map_err(error("sending"))?;
    let buffer = (layout::DISPATCHER_FRAME + FRAME_SIZE) as *mut EndpointBuffer;
    // SAFETY: the part of this domain's frame behind the fixed one, where the buffer was just bound.
    let message = unsafe { buffer.add(1).cast::<Message>().read_volatile() };
    expect("the words", &message.words[..8], &forged[..])?;
    expect("a capability", (message.info.cap(), message.landed), (false, 0))?;
    let landed = syscall::cap_identify(task::ROOT, landing);
    expect("the landing", landed, Err(SysError::EmptySlot))?;
    memory::free_slot(landing);
    free([endpoint])
}

/// Memory that a domain fills as it likes cannot be put where a CNode belongs.
fn a_frame_is_no_cnode(_: &Test) -> Check {
    let (frame, root, slot) = (made(ObjType::Frame, 64 << 10)?, made(ObjType::L1CNode, PAGE_SIZE)?, slot()?);
    let place = syscall::cap_copy(root.cap, SlotRef::L1(0), frame.cap);
    refused("in a root", place, SysError::WrongType)?;
    for ty in KERNEL_OBJECTS {
        let size = memory::object_size(ty, PAGE_SIZE);
        let retype = syscall::cap_retype(task::ROOT, slot, frame.cap, ty, 0, size, 1);
        refused(ty.name(), retype, SysError::BadRetype)?;
    }
    raw("as a root", header_with(frame.cap, Op::Copy, 0), &[0, 0], SysError::NoSuchOperation)?;
    memory::free_slot(slot);
    free([frame, root])
}

/// Whether a word can be an address of the CPU driver.
fn is_kernel_address(word: u64) -> bool {
    word >= PHYS_WINDOW && word != u64::MAX
}

/// What is not answered stays as it was, and no answer has an address of the CPU driver.
fn return_words(_: &Test) -> Check {
    let mut invocations = Vec::new();
    for n in 0..256 {
        let slot = u64::from(CPtr::new(0, n).0);
        invocations.push((header_with(task::ROOT, Op::Identify, 0), [slot, PATTERN], 4));
    }
    invocations.push((header_with(task::DISPATCHER, Op::Status, 0), [PATTERN; 2], 4));
    for counter in lmp::invocation::Counter::ALL {
        invocations.push((header_with(task::KCB, Op::ReadCounter, 0), [*counter as u64, PATTERN], 1));
    }
    for (header, words, answers) in invocations {
        let given = Registers { rax: header, ..Registers::new(Op::Yield, CPtr::NULL, &words, 0, PATTERN) };
        let found = given.execute();
        let kept = if found.status().is_ok() { answers } else { 0 };
        expect("words without an answer", &found.words[kept..], &given.words[kept..])?;
        expect("the status", found.rax >> 16, 0)?;
        expect("vector registers", found.vector, 0)?;
        if let Some(word) = found.words.iter().find(|word| is_kernel_address(**word)) {
            return Err(format!("{word:#x} came back of {header:#x}"));
        }
    }
    Ok(())
}

/// The CPU driver writes a domain's registers and events there, and nothing of its own.
fn frame_words(_: &Test) -> Check {
    // Every way to be saved: by a system call, by preemption, and at a fault.
    for _ in 0..8 {
        let _ = syscall::yield_core();
        (0..1 << 20).for_each(|n| {
            core::hint::black_box(n);
        });
    }
    let mut heap = Vec::<u64>::with_capacity(memory::PAGE_IN as usize / 4);
    heap.resize(heap.capacity(), PATTERN);
    for at in (0..FRAME_SIZE).step_by(8) {
        // SAFETY: the frame is mapped, and any bytes are a word; volatile, since the CPU driver writes it.
        let word = unsafe { ((layout::DISPATCHER_FRAME + at) as *const u64).read_volatile() };
        if is_kernel_address(word) {
            return Err(format!("{word:#x} at byte {at:#x}"));
        }
    }
    Ok(())
}

/// Frames of memory that was in use before, whatever it was in use for, are zero.
fn recycled_frames(test: &Test) -> Check {
    const BYTES: u64 = 64 << 10;
    let mut random = Random::new(test.seed());
    for _ in 0..64 {
        let size = PAGE_SIZE * (1 + random.below(BYTES / PAGE_SIZE));
        let frame = made(ObjType::Frame, size)?;
        let mapped =
            memory::map(frame.cap, 0, size, MapFlags::READ | MapFlags::WRITE).map_err(|e| format!("{e}"))?;
        let words: *mut u64 = mapped.as_ptr();
        let mut dirty = None;
        for n in 0..size as usize / 8 {
            // SAFETY: the frame is mapped writable here, and `n` is within it.
            unsafe {
                if words.add(n).read_volatile() != 0 {
                    dirty = Some(n);
                }
                words.add(n).write_volatile(PATTERN);
            }
        }
        // SAFETY: no reference into the mapping is left.
        unsafe { memory::unmap(mapped) };
        free([frame])?;
        if let Some(n) = dirty {
            return Err(format!("word {n} of a new frame of {size} bytes is not zero"));
        }
        // The same memory serves as something else in between.
        let object = made(random.pick(&KERNEL_OBJECTS), PAGE_SIZE)?;
        free([object])?;
    }
    Ok(())
}

/// CNodes and dispatchers made of memory full of a pattern are empty and new.
fn recycled_objects(_: &Test) -> Check {
    const BYTES: u64 = 64 << 10;
    let (ram, slot) = (made(ObjType::Ram, BYTES)?, slot()?);
    let dirty = || -> Check {
        let make = syscall::cap_retype(task::ROOT, slot, ram.cap, ObjType::Frame, 0, BYTES, 1);
        make.map_err(|e| format!("{e}"))?;
        let mapped =
            memory::map(slot, 0, BYTES, MapFlags::READ | MapFlags::WRITE).map_err(|e| format!("{e}"))?;
        for n in 0..BYTES as usize / 8 {
            // SAFETY: the frame is mapped writable here, and `n` is within it.
            unsafe { mapped.as_ptr::<u64>().add(n).write_volatile(PATTERN) };
        }
        // SAFETY: no reference into the mapping is left.
        unsafe { memory::unmap(mapped) };
        syscall::cap_delete(task::ROOT, slot).map_err(|e| format!("{e}"))
    };
    dirty()?;
    let make =
        |ty, size| syscall::cap_retype(task::ROOT, slot, ram.cap, ty, 0, size, 1).map_err(|e| format!("{e}"));
    make(ObjType::L1CNode, BYTES)?;
    for n in 0..(BYTES / CTE_SIZE) as u32 {
        expect("a slot", syscall::cap_identify(slot, SlotRef::L1(n)), Err(SysError::EmptySlot))?;
    }
    syscall::cap_delete(task::ROOT, slot).map_err(|e| format!("{e}"))?;
    dirty()?;
    make(ObjType::Dispatcher, memory::object_size(ObjType::Dispatcher, 0))?;
    let status = syscall::dispatcher_status(slot).map_err(|e| format!("{e}"))?;
    expect("its status", (status.state as u8, status.cause as u8, status.detail, status.rip), (0, 0, 0, 0))?;
    syscall::cap_delete(task::ROOT, slot).map_err(|e| format!("{e}"))?;
    dirty()?;
    make(ObjType::Notification, memory::object_size(ObjType::Notification, 0))?;
    expect("pending bits", syscall::notification_poll(slot), Ok(0))?;
    syscall::cap_delete(task::ROOT, slot).map_err(|e| format!("{e}"))?;
    memory::free_slot(slot);
    free([ram])
}
