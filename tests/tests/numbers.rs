//! The numbers of the default run: the same in every run, and as small as they must be.

use results::{Accel, EventKind, Unit, Value};
use tests::{Boot, Cpu, Nodes, Run, SHORT};

/// The standard benchmarks that do not spawn, on two cores.
fn measure() -> Run {
    let words = "bench=syscall,yield,pagefault exit=1";
    Boot {
        cores: 2,
        nodes: Nodes::Even(1),
        memory_mib: 128,
        accel: Accel::Icount,
        cpu: Cpu::Usual,
        words,
        limit: SHORT,
    }
    .run()
}

/// The median of a result.
fn median(run: &Run, bench: &str, metric: &str) -> u64 {
    let results = run.results();
    let record =
        results.get(&(bench, metric)).unwrap_or_else(|| panic!("no {bench} {metric} in {results:?}"));
    assert!(record.n >= 100, "{record:?}");
    let distribution = record.distribution.unwrap_or_else(|| panic!("instructions are counted: {record:?}"));
    assert_eq!(distribution.unit, Unit::Instr);
    match distribution.p50 {
        Value::Whole(median) => median,
        Value::Real(_) => panic!("instructions are whole: {record:?}"),
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_few_instructions() {
    let runs = [measure(), measure()];
    assert_eq!(runs[0].0.raw_lines, runs[1].0.raw_lines);
    assert_eq!(runs[0].0.console, runs[1].0.console);

    let ended = runs[0].events(EventKind::BenchEnded);
    assert_eq!(ended.len(), 3);
    assert!(ended.iter().all(|event| event.value == Some(0)), "samples had to be rejected: {ended:?}");
    // Each costs something, and no more than the project allows.
    assert!((1..=100).contains(&median(&runs[0], "syscall", "round_trip")), "{:?}", runs[0].results());
    assert!((1..=500).contains(&median(&runs[0], "pagefault", "to_handler")), "{:?}", runs[0].results());
    // Counts stand beside the numbers, and they are those of one operation.
    let results = runs[0].results();
    assert_eq!(results[&("syscall", "round_trip")].counts["kernel_entries"], 1);
    assert_eq!(results[&("pagefault", "to_handler")].counts["upcalls"], 1);
    // Mapped by the handler, and unmapped before the next one.
    assert_eq!(results[&("pagefault", "round_trip")].counts["page_table_writes"], 2);
}
