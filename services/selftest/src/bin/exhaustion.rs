//! Scenario `exhaustion`: domains use up what they have, a thousand times in all. Each gets the error that says what is
//! used up, all comes back to the byte, and nobody else goes short.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use boot_freestanding as _;
use runtime::Env;
use runtime::bells::Bell;
use runtime::events::Deadline;
use runtime::memory::{self, MemoryError};
use runtime::spawn::DomainBuilder;
use selftest::exhausting::{DONE, RESOURCES, Resource, told};
use selftest::{Bystander, CHILD, SHARED, Shared, Test};

runtime::entry!(main);

/// How often this domain uses up its own bells.
const BELL_CYCLES: u64 = 50;

fn main(env: &Env) -> u64 {
    let mut test = Test::new(env);
    match run(&mut test) {
        Ok(()) => {}
        Err(why) => test.check("exhaustion", Err(why)),
    }
    test.finish()
}

fn run(test: &mut Test) -> Result<(), String> {
    let bystander = Bystander::start(test)?;
    let (frame, shared) = shared()?;
    // What this domain makes once for all victims is there then.
    let first = Resource { cycles: 1, ..RESOURCES[0] };
    victim(test, &first, frame, &shared)?;
    let before = memory::stats();
    for resource in &RESOURCES {
        let result = victim(test, resource, frame, &shared)
            .and_then(|()| bystander.check())
            .and_then(|()| same(&before));
        test.check(&format!("exhaustion: {}", resource.title), result);
    }
    test.check("exhaustion: bells, by the runtime", bells());
    bystander.stop()
}

fn shared() -> Result<(lmp::CPtr, Shared), String> {
    let frame =
        memory::allocate(lmp::ObjType::Frame, lmp::objects::PAGE_SIZE).map_err(|e| format!("{e}"))?.cap;
    Ok((frame, Shared::of(frame)?))
}

/// Has a victim use up `resource` and give it back so often.
fn victim(test: &Test, resource: &Resource, frame: lmp::CPtr, shared: &Shared) -> Result<(), String> {
    let Resource { name, cycles, ram, .. } = resource;
    shared.set(DONE, 0);
    let victim = DomainBuilder::new(CHILD, test.module()?)
        .args(&format!("mode=exhaust what={name} cycles={cycles} seed={}", test.seed()))
        .memory(*ram)
        .grant(SHARED, frame)
        .build()
        .map_err(|e| format!("{e}"))?;
    let started = victim.start().map_err(|e| format!("{e}"));
    let end =
        started.and_then(|()| victim.wait(Deadline::NEVER).ok_or_else(|| String::from("it does not end")));
    victim.destroy().map_err(|e| format!("{e}"))?;
    match (end?, shared.get(DONE)) {
        (end, done) if end.is_success() && done == *cycles => Ok(()),
        (end, done) => {
            let why = told(shared);
            Err(format!("after {done} cycles: {}; {end}", String::from_utf8_lossy(&why)))
        }
    }
}

/// This domain's own account is what it was.
fn same(before: &memory::Stats) -> Result<(), String> {
    match memory::stats() {
        after if after == *before => Ok(()),
        after => Err(format!("{after:?} instead of {before:?}")),
    }
}

/// The bells of this domain, which has a monitor.
fn bells() -> Result<(), String> {
    let mut bells = Vec::new();
    let mut before = None;
    for _ in 0..=BELL_CYCLES {
        let refusal = loop {
            match Bell::new() {
                Ok(bell) => bells.push(bell),
                Err(error) => break error,
            }
        };
        if refusal != MemoryError::OutOfBells {
            return Err(format!("the last bell: {refusal}"));
        }
        bells.clear();
        // The first time what is made once for all bells is made.
        same(before.get_or_insert_with(memory::stats))?;
    }
    Ok(())
}
