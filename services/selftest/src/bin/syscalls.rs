//! Scenario `syscalls`: domains that invoke at random harm nobody but themselves, and leave nothing behind; and an
//! endpoint's buffer takes what it should.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;

use boot_freestanding as _;
use lmp::cptr::task;
use lmp::error::SysResult;
use lmp::frame::{EndpointBuffer, FRAME_SIZE, Message};
use lmp::{CPtr, ObjType, Rights, SlotRef, SysError, layout, message, syscall};
use runtime::events::{self, Deadline, Event};
use runtime::{Env, memory, println};
use selftest::{Bystander, Shared, Test};

runtime::entry!(main);

/// Domains, one after the other; each has a seed of its own.
const DOMAINS: u64 = 32;
/// Invocations that each attempts.
const CALLS: u64 = 4000;
/// How long one may take, in milliseconds: it may block for ever by its own will.
const TIME_MS: u64 = 200;

fn main(env: &Env) -> u64 {
    let mut test = Test::new(env);
    let result = run(&mut test);
    test.check("syscalls", result);
    test.check("endpoint", endpoint());
    test.check("root", root());
    test.finish()
}

/// A domain's capability space grows and shrinks: all references stay, slots past the old end come and go, RAM comes back.
fn root() -> Result<(), String> {
    const LARGE: u32 = 8192;
    const PAST: u32 = LARGE - 1;
    let failed = |e: memory::MemoryError| format!("{e}");
    let error = |what: &'static str| move |e| format!("{what}: {e:?}");
    let expect = |what: &str, found: SysResult, expected: SysResult| {
        if found == expected { Ok(()) } else { Err(format!("{what}: {found:?}")) }
    };
    let change = syscall::dispatcher_resize_root;
    let small = memory::root_slots().map_err(failed)?;

    let n = memory::allocate(ObjType::Notification, 0).map_err(failed)?;
    let fresh = memory::allocate(ObjType::Dispatcher, 0).map_err(failed)?;
    let weak = memory::slot().map_err(failed)?;
    syscall::cap_mint(task::ROOT, weak, task::ROOT, Rights::READ, 0).map_err(error("minting"))?;
    expect("a root of another type", change(task::DISPATCHER, n.cap), Err(SysError::WrongType))?;
    expect("a root without a right", change(task::DISPATCHER, weak), Err(SysError::MissingRight))?;
    expect("no root yet", change(fresh.cap, task::ROOT), Err(SysError::NotConfigured))?;
    expect("the same root", change(task::DISPATCHER, task::ROOT), Ok(()))?;
    syscall::cap_delete(task::ROOT, weak).map_err(error("deleting"))?;
    memory::free_slot(weak);
    memory::free(fresh).map_err(failed)?;

    let mut free = None;
    for _ in 0..3 {
        memory::resize_root(LARGE).map_err(failed)?;
        let (cnode, _) = memory::cnode().map_err(failed)?;
        let l1 = SlotRef::L1(PAST);
        syscall::cap_copy(task::ROOT, l1, cnode.cap).map_err(error("a CNode past the old end"))?;
        let past = CPtr::new(PAST, 5);
        syscall::cap_copy(task::ROOT, past, n.cap).map_err(error("a slot past the old end"))?;
        syscall::notification_signal(past).map_err(error("signalling"))?;
        match memory::resize_root(small) {
            Err(memory::MemoryError::Refused { cause: SysError::SlotOccupied, .. }) => {}
            other => return Err(format!("shrinking over a slot in use: {other:?}")),
        }
        memory::free(cnode).map_err(failed)?;
        memory::resize_root(small).map_err(failed)?;
        expect("a slot past the end", syscall::notification_signal(past), Err(SysError::NoSuchSlot))?;
        let now = memory::stats().free;
        if free.replace(now).is_some_and(|before| before != now) {
            return Err(format!("{now} bytes are free, and {free:?} were"));
        }
    }
    memory::free(n).map_err(failed)
}

/// Messages arrive in their buffer whole and in order, with the sender's badge; a full buffer refuses.
fn endpoint() -> Result<(), String> {
    const EVENT: u64 = 9;
    const ROOM: u64 = 3;
    let error = |what: &'static str| move |e| format!("{what}: {e:?}");
    let expect = |what: &str, found: SysResult, expected: SysResult| {
        if found == expected { Ok(()) } else { Err(format!("{what}: {found:?}")) }
    };
    let endpoint = memory::allocate(ObjType::Endpoint, 0).map_err(|e| format!("{e}"))?.cap;
    let badged = memory::slot().map_err(|e| format!("{e}"))?;
    syscall::cap_mint(task::ROOT, badged, endpoint, Rights::WRITE, 77).map_err(error("minting"))?;

    expect("unbound", message::send(endpoint, [1]), Err(SysError::NotBound))?;
    let bind =
        |offset, messages| syscall::endpoint_bind(endpoint, task::DISPATCHER, offset, messages, EVENT, 0);
    expect("a buffer over the save areas", bind(0, ROOM), Err(SysError::OutOfRange))?;
    expect("a buffer past the frame", bind(FRAME_SIZE, 1 << 10), Err(SysError::OutOfRange))?;
    expect("a buffer askew", bind(FRAME_SIZE + 8, ROOM), Err(SysError::Misaligned))?;
    bind(FRAME_SIZE, ROOM).map_err(error("binding"))?;
    expect("binding twice", bind(FRAME_SIZE, ROOM), Err(SysError::AlreadyBound))?;

    let buffer = (layout::DISPATCHER_FRAME + FRAME_SIZE) as *mut EndpointBuffer;
    // SAFETY: the part of this domain's frame behind the fixed one, which nothing else uses.
    let message =
        |n: u64| unsafe { buffer.add(1).cast::<Message>().add((n % ROOM) as usize).read_volatile() };
    for n in 0..ROOM {
        message::send(badged, [n, !n]).map_err(error("sending"))?;
    }
    expect("a full buffer", message::send(badged, [9]), Err(SysError::BufferFull))?;
    if events::take(Event::new(EVENT as u8).bit()) == 0 {
        return Err(String::from("no event was raised"));
    }
    for n in 0..ROOM {
        let found = message(n);
        if (found.badge, found.info.words(), found.words[..3].to_vec()) != (77, 2, alloc::vec![n, !n, 0]) {
            return Err(format!("message {n} is {found:?}"));
        }
    }
    // A count that cannot be right leaves the buffer full; a right one makes room for so many.
    let consumed = |n: u64| {
        // SAFETY: as above; the CPU driver reads the word at the next send.
        unsafe { (&raw mut (*buffer).consumed).write_volatile(n) };
    };
    consumed(u64::MAX / 2);
    expect("a forged count", message::send(badged, [9]), Err(SysError::BufferFull))?;
    consumed(1);
    message::send(endpoint, [3]).map_err(error("sending again"))?;
    expect("full again", message::send(endpoint, [9]), Err(SysError::BufferFull))?;
    let last = message(ROOM);
    if (last.badge, last.info.words(), last.words[0]) != (0, 1, 3) {
        return Err(format!("the last message is {last:?}"));
    }
    Ok(())
}

fn run(test: &mut Test) -> Result<(), String> {
    let bystander = Bystander::start(test)?;
    let ticks = test.env().info().tsc_ticks_per_ms.max(1);
    let shared = Shared::new()?;
    let free = memory::stats().free;
    for i in 0..DOMAINS {
        let seed = test.seed().wrapping_mul(DOMAINS) + i;
        let victim = test.victim(&format!("mode=syscalls seed={seed} calls={CALLS}"), &shared)?;
        victim.start().map_err(|e| format!("{e}"))?;
        // Ended, stuck or through: all are fine, as long as it can be taken down.
        let _ = victim.wait(Deadline::after(TIME_MS * ticks));
        victim.destroy().map_err(|e| format!("seed {seed}: {e}"))?;
        let left = free.saturating_sub(memory::stats().free);
        if left > 0 {
            return Err(format!("seed {seed}: {left} bytes were left behind"));
        }
        bystander.check().map_err(|e| format!("seed {seed}: {e}"))?;
    }
    println!("{} invocations, {} of them granted", shared.get(0), shared.get(1));
    if shared.get(0) < DOMAINS * 16 {
        return Err(String::from("hardly any invocations were made: the test says nothing"));
    }
    bystander.stop()
}
