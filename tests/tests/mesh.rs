//! Domains on all cores, connected by their monitors: every ordered pair of cores, and ends in the middle of
//! everything. The guest checks itself (`services/selftest`, scenario `mesh`); here, that it did, and what it left.

use std::collections::BTreeSet;
use std::time::Duration;

use results::{Accel, EventKind};
use tests::{Boot, Cpu, LONG, Nodes, Run};

/// All pairs twice, calls and frames on one core and between two, six kinds of ends, ten of which the other side must
/// be told, refusals.
const CHECKS: usize = 6 + 6 + 10 + 1;

/// The limit of the long one, on a machine that has other things to do too.
const LONGEST: Duration = Duration::from_secs(1800);

fn mesh(boot: &Boot) {
    let run = boot.run();
    assert_eq!(run.events(EventKind::CheckFailed), <[&results::host::Event; 0]>::default());
    assert_eq!(run.events(EventKind::CheckPassed).len(), CHECKS);
    assert_eq!(run.console("PASS ").count(), CHECKS);
    // Neither a monitor nor an `init` met anything that it could not do: what is to be taken down was.
    for complaint in ["monitor: ", "keeps its memory", ": panic: ", ": stopped: "] {
        let found: Vec<&String> = run.0.console.iter().filter(|line| line.contains(complaint)).collect();
        assert_eq!(found, <[&String; 0]>::default());
    }
    (0..boot.cores).for_each(|core| assert_all_back(&run, core));
}

/// Whenever the last domain of a core is taken down, its `init` has as much free memory as the time before.
fn assert_all_back(run: &Run, core: u32) {
    let on_core = |kind| run.events(kind).into_iter().filter(move |event| event.core == Some(core));
    let taken_down: Vec<_> =
        on_core(EventKind::Note).filter(|note| note.name.as_deref() == Some("free-memory")).collect();
    let started = on_core(EventKind::DomainStarted).count();
    assert_eq!(taken_down.len(), started, "domains taken down and started on core {core}");
    // On the first core the scenario itself is left.
    let left = if core == 0 { "domains 1" } else { "domains 0" };
    let last = taken_down.iter().filter(|note| note.detail.as_deref() == Some(left));
    let free: BTreeSet<u64> = last.filter_map(|note| note.value).collect();
    assert_eq!(free.len(), 1, "bytes free on core {core} with {left}: {free:?}");
    if core > 0 {
        let notes = on_core(EventKind::Note).filter(|note| note.name.as_deref() == Some("lent-memory"));
        let last = notes.filter(|note| note.detail.as_deref() == Some(left));
        let lent: BTreeSet<u64> = last.filter_map(|note| note.value).collect();
        assert_eq!(lent, BTreeSet::from([0]), "bytes that the memory server of core {core} lent with {left}");
    }
}

/// The machine for the scenario.
fn machine(words: &'static str) -> Boot {
    let accel = Accel::Icount;
    Boot { cores: 3, nodes: Nodes::Even(1), memory_mib: 256, accel, cpu: Cpu::Usual, words, limit: LONG }
}

/// A few messages of each kind, in a fixed order of things.
#[test]
fn connections_carry_messages_and_frames_and_survive_ends() {
    mesh(&machine("scenario=mesh samples=500 exit=1"));
}

/// The same in whatever order the host's threads make, on two nodes.
#[test]
fn cores_that_run_at_the_same_time_connect_too() {
    let words = "scenario=mesh samples=2000 exit=1";
    mesh(&Boot { cores: 4, nodes: Nodes::Even(2), accel: Accel::Tcg, ..machine(words) });
}

/// Connections within the one core there is.
#[test]
fn a_single_core_connects_with_itself() {
    mesh(&Boot { cores: 1, ..machine("scenario=mesh samples=500 exit=1") });
}

/// 24 million messages with sequence numbers.
#[test]
fn each_ordered_pair_of_16_cores_carries_a_hundred_thousand_messages() {
    let words = "scenario=mesh samples=100000 exit=1";
    let limit = LONGEST;
    mesh(&Boot { cores: 16, nodes: Nodes::Even(4), memory_mib: 512, limit, ..machine(words) });
}
