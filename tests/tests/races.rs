//! Cores that go to sleep while others wake them: no wake-up is lost, and without one nothing happens.

use std::collections::BTreeMap;

use results::host::Event;
use results::{Accel, EventKind};
use tests::{Boot, Cpu, LONG, Nodes, Run};

/// Waits that the domains of the scenario `races` make, one after the other, in all.
const RACES: u64 = 1_000_000;

/// Three kinds of races on every ordered pair of neighbours, two of them also on one pair alone; two hubs.
const fn racers(cores: usize) -> usize {
    3 * 2 * (2 * cores) + 2 * 2 + 2 * (1 + cores)
}

/// Boots a machine and has it run a scenario that must find nothing wrong.
fn run(boot: &Boot, checks: usize) -> Run {
    let run = boot.run();
    let failed = run.events(EventKind::CheckFailed);
    assert!(failed.is_empty(), "{failed:#?}\n{}", run.0.console.join("\n"));
    assert_eq!(run.events(EventKind::CheckPassed).len(), checks, "{}", run.0.console.join("\n"));
    run
}

/// The notes of that name.
fn notes<'a>(run: &'a Run, name: &str) -> Vec<&'a Event> {
    let notes = run.events(EventKind::Note).into_iter();
    notes.filter(|event| event.name.as_deref() == Some(name)).collect()
}

/// The numbers in the detail of a note, by the words before them.
fn numbers(event: &Event) -> BTreeMap<&str, u64> {
    let words: Vec<&str> = event.detail.as_deref().expect("counts").split(' ').collect();
    words.chunks(2).filter_map(|pair| Some((pair[0], pair[1].parse().ok()?))).collect()
}

/// A million times somebody goes to sleep, on four cores at once, and somebody else sends just before, just then, or
/// just after: over channels alone and in waitsets, for messages and for room.
#[test]
fn a_million_sleeps() {
    let boot = Boot {
        cores: 4,
        nodes: Nodes::Even(1),
        memory_mib: 512,
        accel: Accel::Tcg,
        cpu: Cpu::Usual,
        words: "scenario=races samples=1000000 exit=1",
        limit: LONG,
    };
    let run = run(&boot, 6);
    let notes = notes(&run, "race");
    assert_eq!(notes.len(), racers(boot.cores as usize), "every domain tells what it counted");
    let waits: u64 = notes.iter().map(|event| event.value.expect("a number of waits")).sum();
    let mut total: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, number) in notes.iter().flat_map(|event| numbers(event)) {
        let entry = total.entry(name).or_default();
        // The longest wait, in ticks, is no count.
        *entry = if name == "longest" { number.max(*entry) } else { *entry + number };
    }
    println!("{waits} waits in {:.1} s: {total:?}", run.0.wall.as_secs_f64());
    assert!(waits >= RACES, "{waits} waits");
    let [slept, averted, rang] = ["slept", "averted", "rang"].map(|name| total[name]);
    // Most waits were sleeps that the other side ended, and some were not to be because it was just before.
    assert!(slept >= RACES / 2, "{total:?}");
    assert!(rang >= slept / 2 && rang <= slept + averted, "{total:?}");
    assert!(averted >= 100, "{total:?}");
}

/// 64 domains on 16 cores block on channels: no timer interrupt and no instruction is executed on any core that
/// nobody wakes.
#[test]
fn blocked_cores_do_nothing() {
    let boot = Boot {
        cores: 16,
        nodes: Nodes::Even(2),
        memory_mib: 1024,
        accel: Accel::Icount,
        cpu: Cpu::Usual,
        words: "scenario=idle samples=64 exit=1",
        limit: LONG,
    };
    run(&boot, 3);
}
