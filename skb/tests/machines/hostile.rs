//! Whatever the bytes, there is a topology that holds together.

use std::cell::Cell;
use std::collections::BTreeSet;

use boot_info::{PhysAddr, PhysMemory, PhysRange, Unreadable};
use proptest::prelude::*;
use skb::tables::Tables;
use skb::{
    ApicId, Complaints, CoreId, CoreState, Discovery, Distance, Facts, MAX_COMPLAINTS, MAX_CORES, MAX_NODES,
    NodeId, Topology,
};

use crate::build::*;

/// What every user of a topology relies on.
fn assert_holds_together(topology: &Topology, boot: ApicId) {
    let (cores, nodes) = (topology.cores(), topology.nodes());
    assert!((1..=MAX_CORES).contains(&cores.len()));
    assert!((1..=MAX_NODES).contains(&nodes.len()));
    assert_eq!(cores[0].apic, boot);
    assert_eq!(cores[0].state, CoreState::Enabled);
    for (index, core) in cores.iter().enumerate() {
        assert_eq!(core.id, CoreId(index as u32));
        assert!(topology.node(core.node).is_some());
    }
    assert!(cores.is_sorted_by_key(|core| core.state));
    assert_eq!(cores.iter().map(|core| core.apic).collect::<BTreeSet<_>>().len(), cores.len());
    let on_nodes: usize = nodes.iter().map(|node| topology.cores_of(node.id).count()).sum();
    assert_eq!(on_nodes, cores.len());
    let mut all: Vec<PhysRange> = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        assert_eq!(node.id, NodeId(index as u32));
        assert!(node.memory.is_sorted_by(|a, b| a.end() < b.base()));
        assert!(node.memory.iter().all(|range| !range.is_empty() && range.clipped() == *range));
        all.extend(&node.memory);
        for other in nodes {
            let distance = topology.distance(node.id, other.id).expect("both exist");
            assert!(distance >= Distance::LOCAL);
            assert!(node.id != other.id || distance == Distance::LOCAL);
        }
        for near in topology.memory_by_distance(node.id) {
            assert!(!topology.nodes()[near.0 as usize].memory.is_empty());
        }
        let own = (!node.memory.is_empty()).then_some(node.id);
        assert!(own.is_none() || topology.nearest_memory(node.id) == own);
    }
    for node in nodes {
        assert!(node.initiator.is_none_or(|initiator| topology.cores_of(initiator).next().is_some()));
        assert!(node.caches.is_sorted_by(|a, b| a.level < b.level));
        assert!(node.caches.iter().all(|cache| cache.level > 0 && cache.size > 0));
        for other in nodes {
            let route = topology.route(node.id, other.id).expect("both exist");
            for speed in [route.read, route.write] {
                assert!(speed.latency.is_none_or(|latency| (1..1 << 32).contains(&latency.0)));
                assert!(speed.bandwidth != Some(0));
            }
        }
    }
    for core in cores {
        assert!(topology.siblings(core.id).any(|sibling| sibling == core.id));
        let place = topology.position(core.id).expect("it exists");
        assert!(topology.packages().contains(&place.package));
        for &cache in topology.caches() {
            assert!(cache.level > 0 && cache.size > 0 && cache.line > 0);
            assert!(topology.sharers(core.id, cache).any(|sharer| sharer == core.id));
        }
    }
    all.sort();
    assert!(all.is_sorted_by(|a, b| a.end() <= b.base()), "memory is on one node only");
    assert!(nodes.is_sorted_by_key(|node| node.domain));
    assert!(topology.to_string().lines().count() == nodes.len() + 1);
}

fn check(found: &Discovery, boot: ApicId) {
    assert_holds_together(&found.topology, boot);
    assert!(found.complaints.as_slice().len() <= MAX_COMPLAINTS);
    assert!(found.complaints.as_slice().iter().all(|complaint| !complaint.to_string().is_empty()));
}

/// A memory in which every reading has another byte changed.
struct Restless<'a> {
    pieces: &'a Pieces,
    changes: &'a [(usize, u8)],
    readings: Cell<usize>,
}

impl PhysMemory for Restless<'_> {
    fn read(&self, address: PhysAddr, into: &mut [u8]) -> Result<(), Unreadable> {
        self.pieces.read(address, into)?;
        let (at, change) = self.changes[self.readings.replace(self.readings.get() + 1) % self.changes.len()];
        if let Some(byte) = into.get_mut(at) {
            *byte ^= change;
            // The checksum stays right, so that the change is looked at.
            let more = byte.wrapping_sub(*byte ^ change);
            if let Some(next) = into.get_mut(at + 1) {
                *next = next.wrapping_sub(more);
            }
        }
        Ok(())
    }
}

fn plain() -> [Vec<u8>; 4] {
    let [madt, srat, slit] = ordinary();
    [madt, srat, slit, ordinary_hmat()]
}

fn busy() -> [Vec<u8>; 4] {
    let mut cores: Vec<_> = (0..6).map(|apic| local_apic(apic, ENABLED)).collect();
    cores.extend((300..304).map(|apic| local_x2apic(apic, ENABLED)));
    cores.push(vec![1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
    let mut affinities: Vec<_> = (0..6).map(|apic| apic_affinity(apic, (apic / 2).into(), ENABLED)).collect();
    affinities.extend((300..304).map(|apic| x2apic_affinity(apic, apic % 3, ENABLED)));
    affinities.extend((0..3).map(|node| memory_affinity(node, u64::from(node) * GIB, GIB, ENABLED)));
    let hmat = hmat(
        2,
        &[
            locality(READ_LATENCY, 500, &[0, 2, 1], &[2, 1, 0], &[9, 8, 7, 0, 5, 4, 3, 0xffff, 1]),
            memory_cache(1, 1 << 20, 0x40_1122),
            memory_cache(1, 1 << 21, 0x40_1112),
            proximity(2, Some(0)),
            proximity(1, None),
            locality(WRITE_BANDWIDTH, 64, &[1], &[0, 1, 2], &[1, 2, 3]),
        ],
    );
    [madt(&cores), srat(3, &affinities), slit(3, &[10, 12, 14, 12, 10, 16, 14, 16, 10]), hmat]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn damaged_tables_are_survived(
        base in prop_oneof![Just(plain()), Just(busy())],
        damage in proptest::collection::vec((0usize..4, 36usize..400, any::<u8>()), 0..10),
        cut in proptest::option::of((0usize..4, 0usize..300)),
        boot in 0u32..12,
    ) {
        let mut tables = base;
        for (table, at, byte) in damage {
            if let Some(place) = tables[table].get_mut(at) {
                *place = byte;
            }
        }
        if let Some((table, length)) = cut {
            let length = length.max(36);
            tables[table].truncate(length);
            let length = tables[table].len() as u32;
            tables[table][4..8].copy_from_slice(&length.to_le_bytes());
        }
        // The checksum is right, so that the damage is looked at.
        for table in &mut tables {
            seal(table, 9);
        }
        let found = memory(&tables).discover(boot);
        check(&found, ApicId(boot));
        // The same bytes give the same numbers.
        prop_assert_eq!(memory(&tables).discover(boot).topology, found.topology);
    }

    #[test]
    fn damaged_memory_is_survived(
        damage in proptest::collection::vec((0usize..6, 0usize..400, any::<u8>()), 1..6),
        sealed in any::<bool>(),
    ) {
        let mut pieces = memory(&busy());
        for (piece, at, byte) in damage {
            if let Some(place) = pieces.0[piece].1.get_mut(at) {
                *place = byte;
            }
        }
        if sealed {
            seal(&mut pieces.0[0].1[..20], 8);
            seal(&mut pieces.0[0].1, 32);
            pieces.0.iter_mut().skip(1).for_each(|(_, table)| seal(table, 9));
        }
        check(&pieces.discover(0), ApicId(0));
    }

    #[test]
    fn memory_that_changes_while_it_is_read_is_survived(
        changes in proptest::collection::vec((0usize..80, any::<u8>()), 1..30),
    ) {
        let pieces = memory(&busy());
        let restless = Restless { pieces: &pieces, changes: &changes, readings: Cell::new(0) };
        check(&skb::discover(Some(PhysAddr::new(RSDP)), &restless, no_cpuid, ApicId(0)), ApicId(0));
    }

    #[test]
    fn random_bodies_are_survived(
        bodies in proptest::array::uniform4(proptest::collection::vec(
            prop_oneof![3 => 0u8..20, 1 => any::<u8>()], 0..400,
        )),
        boot in any::<u32>(),
    ) {
        let [a, b, c, d] = bodies;
        let tables =
            [table(b"APIC", 3, &a), table(b"SRAT", 3, &b), table(b"SLIT", 1, &c), table(b"HMAT", 2, &d)];
        check(&memory(&tables).discover(boot), ApicId(boot));
    }

    #[test]
    fn random_memory_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let pieces = Pieces(vec![(RSDP, bytes)]);
        check(&pieces.discover(0), ApicId(0));
        let found = skb::discover(Some(PhysAddr::new(u64::MAX)), &pieces, no_cpuid, ApicId(1));
        check(&found, ApicId(1));
    }

    #[test]
    fn tables_without_a_header_are_survived(
        bytes in proptest::array::uniform4(proptest::option::of(
            proptest::collection::vec(any::<u8>(), 0..120),
        )),
    ) {
        let [madt, srat, slit, hmat] = bytes;
        let mut complaints = Complaints::default();
        let facts = Facts::from_tables(&Tables { madt, srat, slit, hmat }, &mut complaints);
        let topology = Topology::from_facts(&facts, ApicId(7), &mut complaints);
        assert_holds_together(&topology, ApicId(7));
    }

    /// The structures of an HMAT with the right lengths but anything else in them, on a machine that is in order.
    #[test]
    fn random_structures_of_the_hmat_are_survived(
        structures in proptest::collection::vec(
            (0u8..4, proptest::collection::vec(prop_oneof![4 => 0u8..4, 1 => any::<u8>()], 0..120)),
            0..8,
        ),
        revision in 0u8..4,
    ) {
        let [madt, srat, slit, _] = busy();
        let structures: Vec<_> = structures
            .into_iter()
            .map(|(kind, body)| {
                let length = 8 + body.len() as u32;
                [&[kind, 0, 0, 0], &length.to_le_bytes()[..], &body].concat()
            })
            .collect();
        check(&memory(&[madt, srat, slit, hmat(revision, &structures)]).discover(0), ApicId(0));
    }

    /// Matrices in which all fits, with any values.
    #[test]
    fn random_matrices_are_survived(
        matrices in proptest::collection::vec(
            (0u8..7, prop_oneof![0u64..2000, any::<u64>()], proptest::collection::vec(any::<u16>(), 12)),
            0..8,
        ),
    ) {
        let [madt, srat, slit, _] = busy();
        let structures: Vec<_> = matrices
            .iter()
            .map(|(quantity, unit, entries)| locality(*quantity, *unit, &[0, 1, 2], &[0, 1, 2, 7], entries))
            .collect();
        let found = memory(&[madt, srat, slit, hmat(2, &structures)]).discover(0);
        check(&found, ApicId(0));
    }

    #[test]
    fn a_cpuid_that_says_anything_is_survived(
        answers in proptest::collection::vec(any::<[u32; 4]>(), 1..40),
        highest in prop_oneof![0u32..0x30, any::<u32>()],
        small in any::<bool>(),
    ) {
        let cpuid = |leaf: u32, subleaf: u32| {
            let [a, b, c, d] = answers[(leaf as usize * 7 + subleaf as usize) % answers.len()];
            match leaf {
                0 => [highest, b, c, d],
                0x8000_0000 => [0x8000_0020, b, c, d],
                _ if small => [a & 0x1f, b & 0x3ff, c & 0x7ff, d & 1],
                _ => [a, b, c, d],
            }
        };
        let found = memory(&plain()).discover_with(0, cpuid);
        check(&found, ApicId(0));
        prop_assert_eq!(Topology::decode(&found.topology.encode()), Ok(found.topology));
    }

    #[test]
    fn crowded_memory_is_on_one_node(
        ranges in proptest::collection::vec((0u32..4, 0u64..64, 1u64..16), 0..40),
    ) {
        let entries: Vec<_> = ranges
            .iter()
            .map(|&(domain, base, length)| memory_affinity(domain, base << 20, length << 20, ENABLED))
            .collect();
        let found = memory(&[madt(&[local_apic(0, ENABLED)]), srat(3, &entries)]).discover(0);
        check(&found, ApicId(0));
        // A naive model: which domain has each MiB, ranges taken whole or not at all.
        let mut owners = [None; 80];
        for &(domain, base, length) in &ranges {
            let part = &mut owners[base as usize..(base + length) as usize];
            if part.iter().all(|owner| owner.is_none_or(|owner| owner == domain)) {
                part.fill(Some(domain));
            }
        }
        if !ranges.is_empty() {
            for (index, owner) in owners.iter().enumerate() {
                let node = found.topology.node_of_memory(PhysAddr::new((index as u64) << 20));
                let domain = node.map(|node| found.topology.nodes()[node.0 as usize].domain.0);
                prop_assert_eq!(domain, *owner);
            }
        }
    }
}
