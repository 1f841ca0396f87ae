//! Scenarios that hostile and unlucky domains play in the guest, which checks them itself: here, that it found all
//! of them right, and that the other cores were none the worse for it.
//!
//! The scenarios are in `services/selftest`.

use results::{Accel, EventKind};
use tests::{Boot, Cpu, LONG, Nodes, Run};

/// The machine for most scenarios.
fn machine(words: &'static str, cpu: Cpu) -> Boot {
    Boot { cores: 3, nodes: Nodes::Even(1), memory_mib: 256, accel: Accel::Icount, cpu, words, limit: LONG }
}

/// Runs a scenario, which must make so many checks and find nothing wrong.
fn scenario(words: &'static str, cpu: Cpu, checks: usize) {
    checked(&machine(words, cpu), checks);
}

/// Runs the scenario of that machine, which must make so many checks and find nothing wrong.
fn checked(boot: &Boot, checks: usize) -> Run {
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
        return run;
    }
    // The others wait for work, ready to be woken.
    assert_eq!(run.0.registers.len(), boot.cores as usize);
    for (core, registers) in &run.0.registers[1..] {
        let idle = registers.halted && registers.interrupts_on() && registers.cpl == 0;
        assert!(idle, "core {core}: {registers:x?}");
    }
    run
}

/// 35 faults in three ways; all `int n` in one check; a bystander that goes on.
const EXCEPTIONS: usize = 35 * 3 + 2;

/// 48 changes and one series at random for each of three victims; no memory left behind.
const SAVE_AREAS: usize = (48 + 1) * 3 + 1;

/// Each kind of member alone, all together, blocking calls, tasks, fairness, and nothing left behind.
const WAITSET: usize = 10;

/// Facts and refusals, two channels with each core, five further ones.
const CONNECT: usize = 2 + 2 * 3 + 5;

/// Signals, badges, tables, overrun, garbage, taking down, revoking, exhaustion, arguments, foreign memory.
const LINKS: usize = 10;

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
    scenario("scenario=syscalls exit=1", Cpu::Usual, 3);
}

/// Each of four cores; what came of the operations, of which each must be granted from 100 000 invocations on.
const FUZZ: usize = 4 + 1;

/// System calls by a grammar, on four cores at once. Ten million take
/// `cargo run -- test fuzz calls=10000000 --cpus 4 --accel tcg --timeout 7200`.
#[test]
fn system_calls_by_grammar() {
    let boot = Boot {
        cores: 4,
        memory_mib: 512,
        accel: Accel::Tcg,
        ..machine("scenario=fuzz calls=40000 exit=1", Cpu::Usual)
    };
    checked(&boot, FUZZ);
}

/// Five checks of system calls, six of references, four of forged capabilities, four of leaks.
const RELIABILITY: usize = 5 + 6 + 4 + 4;

/// Bad input of each kind, and what shows of the CPU driver and of others.
#[test]
fn reliability() {
    scenario("scenario=reliability exit=1", Cpu::Usual, RELIABILITY);
}

/// Ten resources of victims, and the bells of the scenario itself.
const EXHAUSTION: usize = 10 + 1;

/// Slots, RAM, page tables and others are used up and given back a thousand times.
#[test]
fn exhaustion() {
    scenario("scenario=exhaustion exit=1", Cpu::Usual, EXHAUSTION);
}

/// Six checks of forms, eight of waits, five of capabilities, five of ends, all of it at random.
const MESSAGES: usize = 6 + 8 + 5 + 5 + 1;

/// Each message form against each state of the other side, with canaries in all registers; capabilities that go
/// along; domains that end in the middle.
#[test]
fn messages() {
    scenario("scenario=lmp exit=1", Cpu::Usual, MESSAGES);
}

/// Memory of the node asked for: frames, refusals, a full node, and a thousand rounds at random.
const MEMORY: usize = 4;

/// Each frame lies in the memory that QEMU gave the node.
#[track_caller]
fn assert_on_their_nodes(run: &Run, memory_of: impl Fn(u64) -> std::ops::Range<u64>, frames: usize) {
    let notes = run.events(EventKind::Note);
    let found = notes.iter().filter(|event| event.name.as_deref() == Some("frame")).map(|event| {
        let text = event.detail.as_deref().expect("which node, and how large");
        let words: Vec<&str> = text.split(' ').collect();
        let ["node", node, "size", size] = words[..] else { panic!("{text}") };
        let [node, size] = [node, size].map(|number| number.parse::<u64>().expect("a number"));
        let start = event.value.expect("an address");
        let memory = memory_of(node);
        assert!(memory.start <= start && start + size <= memory.end, "{start:#x} in {memory:x?} ({text})");
    });
    assert_eq!(found.count(), frames);
}

/// Frames that the scenario `memory` reports, per node.
const FRAMES: usize = 8;

#[test]
fn memory_of_nodes() {
    const MIB: u64 = 1 << 20;
    let boot = Boot {
        cores: 4,
        nodes: Nodes::Even(4),
        memory_mib: 512,
        ..machine("scenario=memory exit=1", Cpu::Usual)
    };
    let run = checked(&boot, MEMORY);
    // Below 2 GiB QEMU puts the memory of the nodes one after the other.
    assert_on_their_nodes(&run, |node| node * 128 * MIB..(node + 1) * 128 * MIB, 4 * FRAMES);
}

/// What domains do on each core, what cannot be started, and a thousand domains of which nothing stays.
#[test]
fn spawning_on_every_core() {
    let boot = Boot {
        cores: 4,
        nodes: Nodes::Even(4),
        memory_mib: 512,
        ..machine("scenario=spawning exit=1", Cpu::Usual)
    };
    let run = checked(&boot, 3);
    let started = run.events(EventKind::DomainStarted);
    for core in 0..4 {
        let here = started.iter().filter(|e| e.core == Some(core) && e.name.as_deref() == Some("test_guest"));
        assert!(here.count() > 250, "core {core} makes its part of the domains");
    }
}

/// What domains take from the memory servers of all cores and give back, what they cannot have, and a thousand killed in
/// the middle of it: of none anything stays.
#[test]
fn memory_servers_on_every_core() {
    const MEMSERV: usize = 1 + 6 + 1 + 1 + 1 + 1;
    let boot = Boot {
        cores: 4,
        nodes: Nodes::Even(4),
        memory_mib: 512,
        ..machine("scenario=memserv exit=1", Cpu::Usual)
    };
    let run = checked(&boot, MEMSERV);
    let started = run.events(EventKind::DomainStarted);
    for core in 0..4 {
        let guests = |e: &&&results::host::Event| {
            e.core == Some(core) && e.name.as_deref() == Some("test_memserv_guest")
        };
        assert!(started.iter().filter(guests).count() > 250, "core {core} makes its part of the domains");
        // `init` writes what its memory server lent whenever a domain is gone.
        let lent = run
            .events(EventKind::Note)
            .into_iter()
            .rfind(|e| e.core == Some(core) && e.name.as_deref() == Some("lent-memory"));
        assert_eq!(lent.and_then(|note| note.value), Some(0), "bytes of core {core} that did not come back");
    }
}

/// Endless loops, enabled and disabled.
#[test]
fn hogs() {
    scenario("scenario=hog exit=1", Cpu::Usual, 2);
}

/// Timers, bells, endpoints and channels in one waitset, and tasks that wait for them.
#[test]
fn waitsets() {
    scenario("scenario=waitset exit=1", Cpu::Usual, WAITSET);
}

/// Channels with domains on all three cores: messages, pools, capabilities, and peers that close, fault and are
/// killed.
#[test]
fn connections() {
    scenario("scenario=connect exit=1", Cpu::Usual, CONNECT);
}

/// Notification links, from this core to itself.
#[test]
fn links() {
    scenario("scenario=links exit=1", Cpu::Usual, LINKS);
}

/// Alone, with domains, while everything changes, refusals.
const AUDIT: usize = 4;

/// The CPU driver's audit of itself, which finds nothing.
#[test]
fn audit() {
    scenario("scenario=audit exit=1", Cpu::Usual, AUDIT);
}

/// Other code saves and restores where the CPU can do less.
#[test]
fn all_of_it_on_the_least_cpus() {
    scenario("scenario=exceptions exit=1", Cpu::Least, EXCEPTIONS);
    scenario("scenario=savearea exit=1", Cpu::Least, SAVE_AREAS);
    scenario("scenario=canary exit=1", Cpu::Least, 1);
    scenario("scenario=links exit=1", Cpu::Least, LINKS);
    scenario("scenario=lmp exit=1", Cpu::Least, MESSAGES);
}
