//! Messages within and between cores: the figures that the project must keep, and where their memory lies.

use results::host::Record;
use results::{Accel, EventKind, Home, Unit};
use tests::{Boot, Cpu, Nodes, Run, SHORT};

const MIB: u64 = 1 << 20;
/// Memory of each of the two nodes, in bytes. QEMU puts the nodes' memory one after the other.
const NODE: u64 = 128 * MIB;

/// The benchmarks of messages on four cores and two nodes.
fn measure(words: &'static str) -> Run {
    Boot {
        cores: 4,
        nodes: Nodes::Even(2),
        memory_mib: 2 * NODE / MIB,
        accel: Accel::Icount,
        cpu: Cpu::Usual,
        words,
        limit: SHORT,
    }
    .run()
}

/// The results of one metric: at least `count`, all in instructions.
fn metric<'a>(run: &'a Run, bench: &str, metric: &str, count: usize) -> Vec<&'a Record> {
    let found: Vec<_> = run.records().filter(|r| r.bench == bench && r.metric == metric).collect();
    assert!(found.len() >= count, "{} of {count} results of {bench} {metric}", found.len());
    assert!(found.iter().all(|r| r.distribution.is_some_and(|d| d.unit == Unit::Instr)), "{found:?}");
    found
}

/// The greatest median among results, in instructions.
fn greatest(records: &[&Record]) -> f64 {
    records.iter().filter_map(|r| r.distribution).map(|d| d.p50.as_f64()).fold(0.0, f64::max)
}

/// Asserts that memory lies on the node that the policy names, and within what QEMU gave that node.
#[track_caller]
fn assert_home(home: &Home, node: Option<u32>, record: &Record) {
    assert_eq!(Some(home.node), node, "{record:?}");
    let start = u64::from(home.node) * NODE;
    assert!((start..start + NODE).contains(&home.address), "{home:?} in {record:?}");
}

#[test]
fn figures_hold_and_memory_lies_where_the_policy_says() {
    let run =
        measure("bench=lmp_pingpong,ump_pingpong,ump_wakeup,bulk samples=20 policy=split-poller exit=1");
    let ended = run.events(EventKind::BenchEnded);
    assert_eq!(ended.len(), 4, "{:?}", run.0.console);

    let local = metric(&run, "lmp_pingpong", "one_way", 3);
    assert_eq!(local.iter().filter_map(|r| r.size).collect::<Vec<_>>(), [0, 32, 64]);
    assert!(greatest(&local) <= 250.0, "{local:?}");

    // Every ordered pair of the four cores.
    let [trips, puts, gets] = ["round_trip", "put", "get"].map(|m| metric(&run, "ump_pingpong", m, 12));
    assert!(greatest(&trips) <= 130.0, "{trips:?}");
    assert!(greatest(&puts) + greatest(&gets) <= 60.0, "{puts:?} {gets:?}");
    for record in &trips {
        let homes = record.homes.as_ref().unwrap_or_else(|| panic!("no homes: {record:?}"));
        // Each ring with who polls it.
        assert_home(&homes.forward, record.dst_node, record);
        assert_home(&homes.backward, record.src_node, record);
    }

    assert!(greatest(&metric(&run, "ump_wakeup", "one_way", 2)) <= 1200.0);
    let handed = metric(&run, "bulk", "hand_over", 2);
    assert!(greatest(&handed) <= 200.0, "{handed:?}");
    for record in &handed {
        let homes = record.homes.as_ref().unwrap_or_else(|| panic!("no homes: {record:?}"));
        assert!(!homes.data.is_empty(), "{record:?}");
        homes.data.iter().for_each(|piece| assert_home(piece, record.src_node, record));
    }
    // In place nothing is copied, and the other ways copy twice.
    for record in run.records().filter(|r| r.bench == "bulk" && r.metric != "hand_over") {
        let size = record.size.unwrap_or_else(|| panic!("no size: {record:?}"));
        let copies = if record.metric == "in_place" { 0 } else { 2 };
        assert_eq!(record.counts["bytes_copied"], copies * size, "{record:?}");
    }
}

#[test]
fn the_worst_place_is_neither_end() {
    let run = Boot {
        cores: 4,
        nodes: Nodes::Even(4),
        memory_mib: 512,
        accel: Accel::Icount,
        cpu: Cpu::Usual,
        words: "bench=ump_pingpong samples=2 policy=worst exit=1",
        limit: SHORT,
    }
    .run();
    for record in metric(&run, "ump_pingpong", "round_trip", 12) {
        assert_eq!(record.policy.as_deref(), Some("worst"));
        let homes = record.homes.as_ref().unwrap_or_else(|| panic!("no homes: {record:?}"));
        for home in [&homes.forward, &homes.backward] {
            let ends = [record.src_node, record.dst_node];
            assert!(!ends.contains(&Some(home.node)), "{record:?}");
            assert!((u64::from(home.node) * NODE..).contains(&home.address), "{record:?}");
        }
    }
}
