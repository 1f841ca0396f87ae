//! The numbers to beat: what peers need for the same operation, printed beside each result.
//!
//! Guest instructions, QEMU 10 TCG, `-icount shift=0`, user stubs counted: seL4 16.0-dev (gcc -O2, fastpath,
//! different address spaces; uniprocessor, or the SMP kernel with `-smp 2` where it says so), Linux 6.1
//! (`mitigations=off`). They stand beside results of layer `counts` in unit `instr` only.

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
    /// The least number of cores that it takes.
    pub cores: u32,
}

/// What to compare one metric of a benchmark with, at one size or at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// The benchmark.
    pub bench: &'static str,
    /// The metric.
    pub metric: &'static str,
    /// Bytes moved; `None` where it holds for every size that has no anchor of its own.
    pub size: Option<u64>,
    /// Our aim, at most so many instructions; `None` where there is none.
    pub aim: Option<u64>,
    /// More instructions than this are a defect; not less than the aim. `None` where there is no such bound.
    pub must: Option<u64>,
    /// The peers' numbers.
    pub peers: &'static [Peer],
}

impl Anchor {
    /// Whether `instr` instructions are few enough; `None` where there is neither aim nor bound.
    #[must_use]
    pub fn judge(&self, instr: f64) -> Option<Verdict> {
        let within = |limit: Option<u64>| limit.map(|limit| instr <= limit as f64);
        match (within(self.aim), within(self.must)) {
            (None, None) => None,
            (Some(true), _) => Some(Verdict::AimMet),
            (_, Some(true)) => Some(Verdict::BoundMet),
            _ => Some(Verdict::Missed),
        }
    }
}

/// How a number stands to its anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As good as we aim at.
    AimMet,
    /// Not worse than it must be, but the aim is missed.
    BoundMet,
    /// Worse than the bound, or than the aim where there is no bound.
    Missed,
}

const fn peer(name: &'static str, instr: u64) -> Peer {
    Peer { name, instr }
}

const fn anchor_of(bench: &'static str, metric: &'static str, peers: &'static [Peer]) -> Anchor {
    Anchor { bench, metric, size: None, aim: None, must: None, peers }
}

impl Anchor {
    const fn of(mut self, bytes: u64) -> Self {
        self.size = Some(bytes);
        self
    }

    const fn aim(mut self, instr: u64) -> Self {
        self.aim = Some(instr);
        self
    }

    const fn must(mut self, instr: u64) -> Self {
        self.must = Some(instr);
        self
    }
}

/// All benchmarks, in the order in which they run.
pub const BENCHES: &[Bench] = &[
    Bench { name: "syscall", about: "null system call", cores: 1 },
    Bench { name: "yield", about: "give up the core and get it back", cores: 1 },
    Bench {
        name: "pagefault",
        about: "page fault until the user handler runs, and until the access is done",
        cores: 1,
    },
    Bench { name: "caps", about: "operations on capabilities, alone and among up to a million", cores: 1 },
    Bench { name: "spawn", about: "start a domain from its ELF image", cores: 1 },
    Bench {
        name: "lmp_pingpong",
        about: "call a domain on the same core, 0, 4 and 8 words each way",
        cores: 1,
    },
    Bench { name: "lmp_cap", about: "pass a capability to a domain on the same core", cores: 1 },
    Bench {
        name: "ump_pingpong",
        about: "messages between each ordered pair of cores, both polling",
        cores: 2,
    },
    Bench {
        name: "ump_stream",
        about: "streams of messages to a near and a far core, each or many at once",
        cores: 2,
    },
    Bench { name: "ump_wakeup", about: "messages to a blocked receiver on a near and a far core", cores: 2 },
    Bench {
        name: "bulk",
        about: "4 KiB to 4 MiB to another core: in messages, in shared memory, in place",
        cores: 2,
    },
];

/// The anchors that there are; not every metric has one.
pub const ANCHORS: &[Anchor] = &[
    anchor_of("syscall", "round_trip", &[peer("seL4 NBRecv", 256), peer("Linux getppid", 211)]).aim(60),
    anchor_of("yield", "to_self", &[peer("seL4 Yield", 285)]),
    anchor_of("pagefault", "to_handler", &[peer("seL4 fault", 669), peer("Linux SIGSEGV", 2970)]).aim(300),
    anchor_of("caps", "copy", &[peer("seL4", 1049)]).aim(524),
    anchor_of("caps", "mint", &[peer("seL4", 1086)]).aim(543),
    anchor_of("caps", "delete", &[peer("seL4", 854)]).aim(427),
    anchor_of("caps", "revoke_one_child", &[peer("seL4", 949)]).aim(474),
    anchor_of("caps", "retype", &[peer("seL4", 1055)]).aim(527),
    anchor_of("caps", "map", &[peer("seL4", 912)]).aim(456),
    anchor_of("caps", "unmap", &[peer("seL4", 690)]).aim(345),
    anchor_of("caps", "longest_entry", &[]).aim(20_000),
    anchor_of(
        "lmp_pingpong",
        "one_way",
        &[peer("seL4", 193), peer("Linux eventfd", 4471), peer("futex", 4626)],
    )
    .of(0)
    .aim(120)
    .must(250),
    anchor_of("lmp_pingpong", "one_way", &[peer("seL4", 214)]).of(32).aim(130).must(250),
    anchor_of("lmp_pingpong", "one_way", &[peer("seL4", 823), peer("Linux seqpacket", 8692)])
        .of(64)
        .aim(150)
        .must(250),
    anchor_of(
        "lmp_pingpong",
        "round_trip",
        &[peer("seL4", 412), peer("SMP", 584), peer("Linux eventfd", 8413)],
    )
    .of(0)
    .aim(240),
    anchor_of("lmp_pingpong", "round_trip", &[peer("seL4", 454), peer("SMP", 626)]).of(32).aim(260),
    anchor_of("lmp_pingpong", "round_trip", &[peer("seL4", 1610), peer("SMP", 1845)]).of(64).aim(300),
    anchor_of("lmp_cap", "one_way", &[]).aim(450),
    anchor_of("ump_pingpong", "round_trip", ROUND_TRIP).aim(110).must(130),
    anchor_of("ump_pingpong", "put", &[peer("bare ring", 16)]),
    anchor_of("ump_pingpong", "get", &[peer("bare ring", 25)]),
    anchor_of("ump_pingpong", "put_and_get", &[peer("bare ring", 41)]).aim(50).must(60),
    anchor_of("ump_wakeup", "one_way", ONE_WAY).aim(700).must(1200),
    anchor_of("ump_wakeup", "round_trip", ROUND_TRIP),
    anchor_of("bulk", "hand_over", &[]).must(200),
];

/// One way from core to core, the receiver blocked.
const ONE_WAY: &[Peer] = &[
    peer("seL4 SMP", 1428),
    peer("Linux eventfd", 6818),
    peer("futex", 7740),
    peer("pipe", 7904),
    peer("seqpacket", 11163),
];

/// From core to core and back: of the peers all but the bare ring block.
const ROUND_TRIP: &[Peer] = &[
    peer("bare ring", 77),
    peer("seL4 SMP", 2848),
    peer("Linux eventfd", 13644),
    peer("futex", 15502),
    peer("pipe", 15816),
    peer("seqpacket", 22356),
];

/// The anchor of a result, where its numbers are of the anchors' kind: the one of its size, or else of all sizes.
#[must_use]
pub fn anchor(
    bench: &str,
    metric: &str,
    size: Option<u64>,
    layer: Layer,
    unit: Unit,
) -> Option<&'static Anchor> {
    if (layer, unit) != (Layer::Counts, Unit::Instr) {
        return None;
    }
    find(ANCHORS, bench, metric, size)
}

fn find<'a>(anchors: &'a [Anchor], bench: &str, metric: &str, size: Option<u64>) -> Option<&'a Anchor> {
    let of = |size| anchors.iter().find(move |a| (a.bench, a.metric, a.size) == (bench, metric, size));
    size.and_then(|size| of(Some(size))).or_else(|| of(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_stand_beside_counts_of_instructions_only() {
        let of = |bench, metric, layer, unit| anchor(bench, metric, None, layer, unit).and_then(|a| a.aim);
        assert_eq!(of("syscall", "round_trip", Layer::Counts, Unit::Instr), Some(60));
        assert_eq!(of("syscall", "round_trip", Layer::Native, Unit::Cycles), None);
        assert_eq!(of("syscall", "round_trip", Layer::Counts, Unit::InstrPerKib), None);
        assert_eq!(of("pagefault", "round_trip", Layer::Counts, Unit::Instr), None);
        assert_eq!(of("no such", "round_trip", Layer::Counts, Unit::Instr), None);
    }

    #[test]
    fn a_size_can_have_an_anchor_of_its_own() {
        let all = anchor_of("b", "m", &[]);
        let anchors = [Anchor { size: Some(64), aim: Some(1), ..all }, Anchor { aim: Some(2), ..all }];
        let aim = |size| find(&anchors, "b", "m", size).and_then(|a| a.aim);
        assert_eq!([aim(Some(64)), aim(Some(32)), aim(None)], [Some(1), Some(2), Some(2)]);
        assert_eq!(find(&anchors[..1], "b", "m", None), None);
    }

    #[test]
    fn between_aim_and_bound_only_the_bound_is_met() {
        let judge = |aim, must, instr| Anchor { aim, must, ..anchor_of("b", "m", &[]) }.judge(instr);
        assert_eq!(judge(Some(50), Some(60), 50.0), Some(Verdict::AimMet));
        assert_eq!(judge(Some(50), Some(60), 50.5), Some(Verdict::BoundMet));
        assert_eq!(judge(Some(50), Some(60), 60.5), Some(Verdict::Missed));
        assert_eq!(judge(None, Some(60), 60.0), Some(Verdict::BoundMet));
        assert_eq!(judge(Some(50), None, 51.0), Some(Verdict::Missed));
        assert_eq!(judge(None, None, 0.0), None);
    }

    #[test]
    fn each_benchmark_and_anchor_is_there_once() {
        for (i, a) in BENCHES.iter().enumerate() {
            assert!(BENCHES[..i].iter().all(|b| b.name != a.name), "{}", a.name);
        }
        let key = |a: &Anchor| (a.bench, a.metric, a.size);
        for (i, a) in ANCHORS.iter().enumerate() {
            assert!(BENCHES.iter().any(|b| b.name == a.bench), "{}", a.bench);
            assert!(ANCHORS[..i].iter().all(|b| key(b) != key(a)), "{:?}", key(a));
            assert!(a.must.is_none_or(|must| a.aim.is_none_or(|aim| aim <= must)), "{:?}", key(a));
        }
    }
}
