//! Scenario `canary`: two domains keep patterns in all their registers while they preempt each other.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;

use boot_freestanding as _;
use lmp::cptr::task;
use lmp::invocation::Counter;
use lmp::syscall::kcb_counter;
use runtime::Env;
use runtime::events::Deadline;
use selftest::{Shared, Test};

runtime::entry!(main);

fn main(env: &Env) -> u64 {
    let mut test = Test::new(env);
    let result = run(&test);
    test.check("leaks: FPU, AVX, FS and GS across preemption", result);
    test.finish()
}

fn run(test: &Test) -> Result<(), String> {
    let counter = |which| kcb_counter(task::KCB, which).map_err(|e| format!("{e}"));
    let (ticks, switches) = (counter(Counter::TimerTicks)?, counter(Counter::Switches)?);
    let mut victims = alloc::vec::Vec::new();
    for i in 0..2 {
        let shared = Shared::new()?;
        let victim = test.victim(&format!("mode=canary seed={}", 2 * test.seed() + i), &shared)?;
        victims.push(victim);
    }
    for victim in &victims {
        victim.start().map_err(|e| format!("{e}"))?;
    }
    for victim in victims {
        let end = victim.wait(Deadline::NEVER).ok_or("a canary does not end")?;
        if !end.is_success() {
            return Err(format!("registers changed under a canary: {end}"));
        }
        victim.destroy().map_err(|e| format!("{e}"))?;
    }
    let preempted = (counter(Counter::TimerTicks)? - ticks).min(counter(Counter::Switches)? - switches);
    if preempted < 4 {
        return Err(format!("the canaries were preempted only {preempted} times: the test says nothing"));
    }
    Ok(())
}
