//! Scenario `syscalls`: domains that invoke at random harm nobody but themselves, and leave nothing behind.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;

use boot_freestanding as _;
use runtime::events::Deadline;
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
    test.finish()
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
