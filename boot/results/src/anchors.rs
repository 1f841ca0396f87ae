//! The numbers to beat: what peers need for the same operation, printed beside each result.
//!
//! Guest instructions, QEMU 10 TCG, `-icount shift=0`, user stubs counted: seL4 16.0-dev (gcc -O2, fastpath,
//! different address spaces, uniprocessor), Linux 6.1 (`mitigations=off`). They stand beside results of layer
//! `counts` in unit `instr` only.

use crate::{Layer, Unit};

/// One peer's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The peer and its operation.
    pub name: &'static str,
    /// Instructions.
    pub instr: u64,
}

/// A benchmark of the OS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bench {
    /// Its name; its boot module is `bench_` and the name.
    pub name: &'static str,
    /// What it measures, in a few words.
    pub about: &'static str,
}

/// What to compare one metric of a benchmark with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// The benchmark.
    pub bench: &'static str,
    /// The metric.
    pub metric: &'static str,
    /// Our aim, at most so many instructions; `None` where there is none.
    pub target: Option<u64>,
    /// The peers' numbers.
    pub peers: &'static [Peer],
}

const fn peer(name: &'static str, instr: u64) -> Peer {
    Peer { name, instr }
}

/// All benchmarks, in the order in which they run.
pub const BENCHES: &[Bench] = &[
    Bench { name: "syscall", about: "null system call" },
    Bench { name: "yield", about: "give up the core and get it back" },
    Bench {
        name: "pagefault",
        about: "page fault until the user handler runs, and until the access is done",
    },
    Bench { name: "spawn", about: "start a domain from its ELF image" },
    Bench { name: "lmp_pingpong", about: "call a domain on the same core, 0, 4 and 8 words each way" },
    Bench { name: "lmp_cap", about: "pass a capability to a domain on the same core" },
];

/// The anchors that there are; not every metric has one.
pub const ANCHORS: &[Anchor] = &[
    Anchor {
        bench: "syscall",
        metric: "round_trip",
        target: Some(60),
        peers: &[peer("seL4 NBRecv", 256), peer("Linux getppid", 211)],
    },
    Anchor { bench: "yield", metric: "to_self", target: None, peers: &[peer("seL4 Yield", 285)] },
    Anchor {
        bench: "pagefault",
        metric: "to_handler",
        target: Some(300),
        peers: &[peer("seL4 fault", 669), peer("Linux SIGSEGV", 2970)],
    },
];

/// The anchor of a result, where its numbers are of the anchors' kind.
#[must_use]
pub fn anchor(bench: &str, metric: &str, layer: Layer, unit: Unit) -> Option<&'static Anchor> {
    if (layer, unit) != (Layer::Counts, Unit::Instr) {
        return None;
    }
    ANCHORS.iter().find(|anchor| (anchor.bench, anchor.metric) == (bench, metric))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_stand_beside_counts_of_instructions_only() {
        let of = |bench, metric, layer, unit| anchor(bench, metric, layer, unit).and_then(|a| a.target);
        assert_eq!(of("syscall", "round_trip", Layer::Counts, Unit::Instr), Some(60));
        assert_eq!(of("syscall", "round_trip", Layer::Native, Unit::Cycles), None);
        assert_eq!(of("syscall", "round_trip", Layer::Counts, Unit::InstrPerKib), None);
        assert_eq!(of("pagefault", "round_trip", Layer::Counts, Unit::Instr), None);
        assert_eq!(of("no such", "round_trip", Layer::Counts, Unit::Instr), None);
    }

    #[test]
    fn each_benchmark_and_anchor_is_there_once() {
        for (i, a) in BENCHES.iter().enumerate() {
            assert!(BENCHES[..i].iter().all(|b| b.name != a.name), "{}", a.name);
        }
        for (i, a) in ANCHORS.iter().enumerate() {
            assert!(BENCHES.iter().any(|b| b.name == a.bench), "{}", a.bench);
            assert!(ANCHORS[..i].iter().all(|b| (b.bench, b.metric) != (a.bench, a.metric)), "{}", a.bench);
        }
    }
}
