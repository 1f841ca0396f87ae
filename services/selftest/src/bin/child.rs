//! The victim: does what its argument `mode` says, none of it good.
//!
//! | mode | what it does |
//! |---|---|
//! | `count` | counts in the shared page, yielding |
//! | `raise fault=NAME` | raises a fault; with `how=upcall` under a handler that ends with 1000 + vector, with `how=disabled` the same while disabled, ending with 2000 + vector |
//! | `interrupts` | executes `int n` for all n under a handler that skips it |
//! | `loop-yield`, `loop-disabled-yield` | yields for ever, enabled or disabled |
//! | `hog`, `hog-disabled` | loops for ever, enabled or disabled |
//! | `canary` | keeps patterns in all registers while it is preempted, and checks them |
//! | `chatter` | executes message forms at random, with others |
//! | `peer` | executes message forms as it is told |
//! | `syscalls` | invokes at random |
//! | `grammar` | invokes at random, by a grammar of what fits its capabilities |
//! | `exhaust` | uses something up and gives it back, again and again |
//! | `partner` | answers the calls of such a domain, and calls it |
#![no_std]
#![no_main]

extern crate alloc;

use boot_freestanding as _;
use lmp::syscall;
use runtime::Env;
use runtime::upcall::{self, Fault, Resolution, set_fault_handler};
use selftest::victim::{FAULTS, NO_FAULT, interrupt};
use selftest::{SHARED, Shared};

#[path = "parts/canary.rs"]
mod canary;
#[path = "parts/exhaust.rs"]
mod exhaust;
#[path = "parts/fuzz.rs"]
mod fuzz;
#[path = "parts/grammar.rs"]
mod grammar;
#[path = "parts/partner.rs"]
mod partner;

runtime::entry!(main);

/// Exit code: the argument makes no sense.
const BAD_MODE: u64 = 3;

fn main(env: &Env) -> u64 {
    match env.value("mode") {
        Some("grammar") => return grammar::run(env),
        Some("partner") => return partner::run(),
        _ => {}
    }
    let Ok(shared) = Shared::of(SHARED) else { return BAD_MODE };
    match env.value("mode").unwrap_or("") {
        "count" => loop {
            shared.set(0, shared.get(0) + 1);
            let _ = syscall::yield_core();
        },
        "raise" => raise(env),
        "interrupts" => interrupts(),
        "loop-yield" => loop {
            shared.set(0, shared.get(0) + 1);
            let _ = syscall::yield_core();
        },
        "loop-disabled-yield" => upcall::disabled(|| {
            loop {
                shared.set(0, shared.get(0) + 1);
                let _ = syscall::yield_core();
            }
        }),
        "hog" => loop {
            shared.set(0, shared.get(0) + 1);
        },
        "hog-disabled" => upcall::disabled(|| {
            loop {
                shared.set(0, shared.get(0) + 1);
            }
        }),
        "canary" => canary::run(env, &shared),
        "chatter" => selftest::chatter::run(env),
        "peer" => selftest::peer::run(&shared),
        "exhaust" => exhaust::run(env, &shared),
        "syscalls" => fuzz::run(env, &shared),
        _ => BAD_MODE,
    }
}

fn raise(env: &Env) -> u64 {
    let wanted = env.value("fault").unwrap_or("");
    let Some(fault) = FAULTS.iter().find(|f| f.name == wanted) else { return BAD_MODE };
    match env.value("how") {
        Some("upcall") => {
            set_fault_handler(end_with_vector);
            (fault.raise)();
        }
        Some("disabled") => {
            set_fault_handler(end_with_vector);
            upcall::disabled(fault.raise);
        }
        _ => (fault.raise)(),
    }
    NO_FAULT
}

fn end_with_vector(fault: &mut Fault<'_>) -> Resolution {
    let base = if fault.disabled { 2000 } else { 1000 };
    syscall::exit(base + u64::from(fault.vector))
}

/// How many `int n` raised something.
static RAISED: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);

fn interrupts() -> u64 {
    use core::sync::atomic::Ordering::Relaxed;
    set_fault_handler(|fault| {
        RAISED.fetch_add(1, Relaxed);
        if fault.vector == 13 {
            // A fault: the instruction, two bytes long, is still to come.
            fault.registers.rip += 2;
        }
        Resolution::Resume
    });
    for n in 0..=255 {
        let before = RAISED.load(Relaxed);
        interrupt(n);
        if RAISED.load(Relaxed) != before + 1 {
            return 10_000 + u64::from(n);
        }
    }
    0
}
