//! Topologies in words: what goes out comes back, and nothing else is taken.

use proptest::prelude::*;
use skb::{ApicId, BadTopology, CoreId, NodeId, Topology};

use crate::build::*;

/// Two nodes, one of them without memory, and a core that can only be plugged in.
fn odd() -> Topology {
    let cores = [local_apic(3, ENABLED), local_apic(0, ENABLED), local_apic(9, ONLINE_CAPABLE)];
    let affinities = [
        apic_affinity(3, 1, ENABLED),
        apic_affinity(0, 8, ENABLED),
        apic_affinity(9, 8, ENABLED),
        memory_affinity(8, 0, 0xa_0000, ENABLED),
        memory_affinity(8, 0x10_0000, GIB, ENABLED),
    ];
    memory(&[madt(&cores), srat(1, &affinities), slit(9, &[10; 81])]).discover(3).topology
}

/// With an HMAT and caches.
fn rich() -> Topology {
    let [madt, srat, slit] = ordinary();
    let cpuid = |leaf, subleaf| match (leaf, subleaf) {
        (0, _) => [0xb, 0, 0, 0],
        (4, 0) => [1 | 1 << 5 | 1 << 14, 63 | 7 << 22, 63, 0],
        (4, 1) => [3 | 2 << 5 | 3 << 14, 63 | 15 << 22, 1023, 0],
        (0xb, 0) => [1, 2, 0x100, 0],
        (0xb, 1) => [2, 4, 0x201, 0],
        _ => [0; 4],
    };
    let found = memory(&[madt, srat, slit, ordinary_hmat()]).discover_with(0, cpuid);
    assert!(found.complaints.is_empty(), "{}", found.complaints);
    assert_eq!((found.topology.caches().len(), found.topology.has_routes()), (2, true));
    found.topology
}

fn topologies() -> [Topology; 4] {
    [memory(&ordinary()).discover(5).topology, odd(), Topology::flat(ApicId(77)), rich()]
}

#[test]
fn topologies_survive_words() {
    for topology in topologies() {
        assert_eq!(Topology::decode(&topology.encode()), Ok(topology));
    }
}

#[test]
fn words_that_are_too_few_or_too_many_are_refused() {
    for topology in topologies() {
        let mut words = topology.encode();
        for len in 0..words.len() {
            assert_eq!(Topology::decode(&words[..len]), Err(BadTopology::Short), "{len}");
        }
        words.push(0);
        assert_eq!(Topology::decode(&words), Err(BadTopology::Long));
    }
}

#[test]
fn each_wrong_word_is_told() {
    const CORES: usize = 2;
    const ROUTES: u64 = 1 << 32;
    /// The word about the first node, which has no memory, and that of the second.
    const NODES: usize = CORES + 3;
    const MEMORY: usize = NODES + 2;
    const ATTACHED: usize = MEMORY + 4;
    const DISTANCES: usize = ATTACHED + 2;
    const FIELDS: usize = DISTANCES + 1;
    let good = odd().encode();
    let [low, high, base, length] = good[MEMORY..ATTACHED] else { panic!("{good:?}") };
    assert_eq!((low, high, base, length), (0, 0xa_0000, 0x10_0000, GIB));
    for (at, word, error) in [
        (0, 7, BadTopology::Magic),
        (1, 2 << 32, BadTopology::CoreCount(0)),
        (1, 2 << 32 | 0xffff_ffff, BadTopology::CoreCount(0xffff_ffff)),
        (1, 3, BadTopology::NodeCount(0)),
        (1, 257 << 32 | 3, BadTopology::NodeCount(257)),
        (CORES + 1, 2 << 32, BadTopology::CoreNode(CoreId(1))),
        (CORES, 1 << 63, BadTopology::CoreState(CoreId(0))),
        (CORES + 1, 1 << 63, BadTopology::CoreState(CoreId(2))),
        (NODES + 1, 2 << 32 | 1, BadTopology::NodeOrder(NodeId(1))),
        (MEMORY + 1, 0, BadTopology::Memory(NodeId(1))),
        (MEMORY + 2, 0xa_0000, BadTopology::Memory(NodeId(1))),
        (MEMORY + 3, u64::MAX, BadTopology::Memory(NodeId(1))),
        (MEMORY + 3, 1 << 52, BadTopology::Memory(NodeId(1))),
        (DISTANCES, 0x0a0a_090a, BadTopology::Distance(NodeId(0), NodeId(1))),
        (DISTANCES, 0x0b0a_0a0a, BadTopology::Distance(NodeId(1), NodeId(1))),
        (ATTACHED, 2, BadTopology::Initiator(NodeId(0))),
        (ATTACHED + 1, u64::from(u32::MAX) | 1 << 32, BadTopology::MemoryCache(NodeId(1))),
        (FIELDS, 33 << 8, BadTopology::ApicFields),
        (FIELDS, 5 | 4 << 8, BadTopology::ApicFields),
        (FIELDS, 17 << 16 | 32 << 8, BadTopology::CoreCache),
        (FIELDS, 1 << 33 | 32 << 8, BadTopology::CoreCache),
        (FIELDS, ROUTES | 32 << 8, BadTopology::Short),
    ] {
        let mut words = good.clone();
        words[at] = word;
        // Where the second core can only be plugged in, the third one's state is the one out of order.
        if error == BadTopology::CoreState(CoreId(2)) {
            words[CORES + 2] &= !(1 << 63);
        }
        assert_eq!(Topology::decode(&words), Err(error), "word {at}: {word:#x}");
    }
}

#[test]
fn each_wrong_cache_is_told() {
    let good = rich().encode();
    let at = |word: u64| good.iter().rposition(|&other| other == word).expect("it is there");
    // The cache at node 1's memory, and the first cache of a core, each its size and then the rest.
    let (memory, core) = (at(64 << 20), at(32 << 10));
    for (at, word, error) in [
        (memory, 0, BadTopology::MemoryCache(NodeId(1))),
        (memory + 1, good[memory + 1] & !0xff, BadTopology::MemoryCache(NodeId(1))),
        (memory + 1, good[memory + 1] | 0x300, BadTopology::MemoryCache(NodeId(1))),
        (memory + 1, good[memory + 1] | 0x3_0000, BadTopology::MemoryCache(NodeId(1))),
        (memory + 1, good[memory + 1] | 1 << 24, BadTopology::MemoryCache(NodeId(1))),
        (memory + 1, good[memory + 1] | 1 << 60, BadTopology::MemoryCache(NodeId(1))),
        (core, 0, BadTopology::CoreCache),
        (core + 1, good[core + 1] & !0xff, BadTopology::CoreCache),
        (core + 1, good[core + 1] | 0x300, BadTopology::CoreCache),
        (core + 1, good[core + 1] | 33 << 16, BadTopology::CoreCache),
        (core + 1, good[core + 1] & 0xffff_ffff, BadTopology::CoreCache),
        // A second one of the same level and kind.
        (core + 1, good[core + 3], BadTopology::CoreCache),
    ] {
        let mut words = good.clone();
        words[at] = word;
        assert_eq!(Topology::decode(&words), Err(error), "word {at}: {word:#x}");
    }
}

#[test]
fn memory_of_two_nodes_is_refused() {
    let mut words = memory(&ordinary()).discover(0).topology.encode();
    let second = words.len() - 6;
    assert_eq!(words[second], GIB);
    words[second] -= 1;
    assert_eq!(Topology::decode(&words), Err(BadTopology::Overlap(NodeId(0), NodeId(1))));
}

proptest! {
    /// Whatever words say, they are refused or are a topology that says the same again.
    #[test]
    fn wild_words_do_no_harm(which in 0usize..4, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>(), 0u32..64), 0..4)) {
        let mut words = topologies()[which].encode();
        for (index, word, shift) in changes {
            let at = index.index(words.len());
            words[at] ^= word >> shift;
        }
        if let Ok(topology) = Topology::decode(&words) {
            prop_assert_eq!(Topology::decode(&topology.encode()), Ok(topology));
        }
    }
}
