//! Scenarios that hostile and unlucky domains play in the guest, which checks them itself: here, that it found all
//! of them right, and that the other cores were none the worse for it.
//!
//! The scenarios are in `services/selftest`.

use results::{Accel, EventKind};
use tests::{Boot, Cpu, LONG, Nodes};

/// Runs a scenario, which must make so many checks and find nothing wrong.
fn scenario(words: &'static str, cpu: Cpu, checks: usize) {
    let boot = Boot {
        cores: 3,
        nodes: Nodes::Even(1),
        memory_mib: 256,
        accel: Accel::Icount,
        cpu,
        words,
        limit: LONG,
    };
    let run = boot.run();
    assert_eq!(run.events(EventKind::CheckFailed), <[&results::host::Event; 0]>::default());
    assert_eq!(run.console("FAIL ").collect::<Vec<_>>(), <[&str; 0]>::default());
    let passed = run.events(EventKind::CheckPassed);
    let printed: Vec<&str> = run.console("PASS ").collect();
    let named: Vec<String> = passed
        .iter()
        .map(|event| {
            format!("PASS {}", event.name.as_deref().unwrap_or_else(|| panic!("no name in {event:?}")))
        })
        .collect();
    assert_eq!(printed, named, "the console and the results tell the same");
    assert_eq!(printed.len(), checks, "{printed:#?}");

    assert!(!run.0.console.iter().any(|line| line.contains(": panic: ") || line.contains(": stopped: ")));
    assert_eq!(run.events(EventKind::Done).len(), 1);
    if !tests::stops_at_exit() {
        return;
    }
    // The others wait for work, ready to be woken.
    assert_eq!(run.0.registers.len(), 3);
    for (core, registers) in &run.0.registers[1..] {
        let idle = registers.halted && registers.interrupts_on() && registers.cpl == 0;
        assert!(idle, "core {core}: {registers:x?}");
    }
}

/// 31 faults in three ways; all `int n` in one check; a bystander that goes on.
const EXCEPTIONS: usize = 31 * 3 + 2;

/// 48 changes and one series at random for each of three victims; no memory left behind.
const SAVE_AREAS: usize = (48 + 1) * 3 + 1;

/// Every fault that ring 3 can raise, each ended, upcalled and upcalled while disabled; `int n` for all n.
#[test]
fn exceptions() {
    scenario("scenario=exceptions exit=1", Cpu::Usual, EXCEPTIONS);
}

/// Each field of the save areas and of the dispatcher's control words, wrong in each way, for victims that are
/// resumed from each of the areas; then everything at random.
#[test]
fn save_areas() {
    scenario("scenario=savearea exit=1", Cpu::Usual, SAVE_AREAS);
}

/// All general, vector and control registers across preemption.
#[test]
fn canaries() {
    scenario("scenario=canary exit=1", Cpu::Usual, 1);
}

/// System calls at random; messages into an endpoint's buffer.
#[test]
fn system_calls() {
    scenario("scenario=syscalls exit=1", Cpu::Usual, 2);
}

/// Endless loops, enabled and disabled.
#[test]
fn hogs() {
    scenario("scenario=hog exit=1", Cpu::Usual, 2);
}

/// Other code saves and restores where the CPU can do less.
#[test]
fn all_of_it_on_the_least_cpus() {
    scenario("scenario=exceptions exit=1", Cpu::Least, EXCEPTIONS);
    scenario("scenario=savearea exit=1", Cpu::Least, SAVE_AREAS);
    scenario("scenario=canary exit=1", Cpu::Least, 1);
}
