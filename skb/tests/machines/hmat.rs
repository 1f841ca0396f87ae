//! The HMAT: what it adds to a topology, and each of its defects.

use skb::hmat::{CacheAssociativity, CacheWrites, MemoryCache, Quantity};
use skb::tables::Table;
use skb::{
    ChannelSpec, Complaint, CoreId, Discovery, Distance, Load, NodeId, Picoseconds, Policy, ProximityDomain,
    Topology, place,
};

use crate::build::*;

/// The ordinary machine with this HMAT.
fn with(revision: u8, structures: &[Vec<u8>]) -> Discovery {
    let [madt, srat, slit] = ordinary();
    memory(&[madt, srat, slit, hmat(revision, structures)]).discover(0)
}

#[track_caller]
fn says(discovery: &Discovery, complaints: &[Complaint], message: &str) {
    assert_eq!(discovery.complaints.as_slice(), complaints);
    assert_eq!(discovery.complaints.to_string(), message);
}

/// Latency and bandwidth of loads and stores from a node to a node.
fn route(topology: &Topology, from: u32, to: u32) -> [(Option<u64>, Option<u32>); 2] {
    let route = topology.route(NodeId(from), NodeId(to)).expect("both exist");
    [route.read, route.write].map(|speed| (speed.latency.map(|latency| latency.0), speed.bandwidth))
}

#[test]
fn an_ordinary_one_is_understood() {
    let [madt, srat, slit] = ordinary();
    let found = memory(&[madt, srat, slit, ordinary_hmat()]).discover(0);
    assert!(found.complaints.is_empty(), "{}", found.complaints);
    let topology = &found.topology;
    assert!(topology.has_routes());
    assert_eq!(route(topology, 0, 0), [(Some(80_000), Some(20_000)); 2]);
    assert_eq!(route(topology, 1, 0), [(Some(140_000), Some(10_000)); 2]);
    assert_eq!(topology.route(NodeId(0), NodeId(2)), None);
    assert_eq!(topology.nodes()[1].initiator, Some(NodeId(1)));
    let cache = MemoryCache {
        level: 1,
        size: 64 << 20,
        line: 64,
        associativity: CacheAssociativity::Direct,
        writes: CacheWrites::Back,
    };
    assert_eq!((&topology.nodes()[0].caches[..], &topology.nodes()[1].caches[..]), (&[][..], &[cache][..]));
    // Without one, nothing is known, and nothing is missing.
    let without = memory(&ordinary()).discover(0);
    assert!(without.complaints.is_empty() && !without.topology.has_routes());
    assert_eq!(route(&without.topology, 0, 1), [(None, None); 2]);
}

#[test]
fn what_is_said_of_loads_alone_goes_before_what_is_said_of_both() {
    let found = with(
        2,
        &[
            locality(ACCESS_LATENCY, 1000, &[0], &[1], &[100]),
            locality(READ_LATENCY, 1000, &[0], &[1], &[90]),
            locality(WRITE_BANDWIDTH, 1000, &[0], &[1], &[7]),
        ],
    );
    assert!(found.complaints.is_empty(), "{}", found.complaints);
    assert_eq!(route(&found.topology, 0, 1), [(Some(90_000), None), (Some(100_000), Some(7_000))]);
    assert_eq!(route(&found.topology, 1, 0), [(None, None); 2]);
}

#[test]
fn revision_1_counts_tenths() {
    let structures = [
        locality(ACCESS_LATENCY, 100, &[0, 1], &[0, 1], &[8, 14, 14, 8]),
        locality(ACCESS_BANDWIDTH, 1000, &[0, 1], &[0, 1], &[200, 100, 100, 200]),
    ];
    // 8 × 100 ÷ 10 ns, 200 × 1000 ÷ 10 MB/s.
    assert_eq!(route(&with(1, &structures).topology, 0, 0), [(Some(80_000), Some(20_000)); 2]);
    assert_eq!(route(&with(2, &structures).topology, 0, 0), [(Some(800), Some(200_000)); 2]);
}

#[test]
fn caches_in_front_of_memory_have_speeds_of_their_own() {
    let mut of_cache = locality(ACCESS_LATENCY, 1000, &[0], &[0], &[5]);
    of_cache[8] = 1;
    let found = with(2, &[of_cache]);
    assert!(found.complaints.is_empty(), "{}", found.complaints);
    assert!(!found.topology.has_routes());
    let matrix = &found.facts.hmat.as_ref().expect("there is one").matrices[0];
    assert_eq!((matrix.hierarchy, matrix.quantity), (1, Quantity::AccessLatency));
}

#[test]
fn costs_go_by_it() {
    // By distance node 1's memory is far from node 0; by latency and bandwidth it is near.
    let [madt, srat, slit] = ordinary();
    let fast = hmat(
        2,
        &[
            locality(ACCESS_LATENCY, 1000, &[0, 1], &[0, 1], &[90, 80, 90, 80]),
            locality(ACCESS_BANDWIDTH, 1000, &[0, 1], &[0, 1], &[16, 32, 16, 32]),
        ],
    );
    let found = memory(&[madt, srat, slit, fast]).discover(0);
    let spec = ChannelSpec::new(CoreId(0), CoreId(4), 4096);
    let cost = |policy| {
        let placement = place(&found.topology, &spec, policy, 1, &Load::default()).expect("there is memory");
        placement.predicted_cost
    };
    // 64 lines at 4 ns written and read, at 2 ns on node 1; then a line in each ring.
    let on_0 = |bytes: u64| (45_000 + bytes.div_ceil(64) * 4_000) + (90_000 + bytes.div_ceil(64) * 4_000);
    let on_1 = |bytes: u64| (40_000 + bytes.div_ceil(64) * 2_000) + (80_000 + bytes.div_ceil(64) * 2_000);
    assert_eq!(cost(Policy::Producer), Picoseconds(on_0(4096) + 2 * on_0(64)));
    assert_eq!(cost(Policy::Consumer), Picoseconds(on_1(4096) + 2 * on_1(64)));
    assert_eq!(cost(Policy::Worst), cost(Policy::Producer));
    says(
        &found,
        &[Complaint::LatencyAgainstDistance {
            from: ProximityDomain(0),
            near: ProximityDomain(0),
            far: ProximityDomain(1),
        }],
        "from domain 0, domain 1 is farther than 0 by the SLIT, but nearer by the HMAT: distances go by the SLIT, costs \
         by the HMAT\n",
    );
}

#[test]
fn latencies_decide_between_nodes_at_the_same_distance() {
    let cores = [local_apic(0, ENABLED)];
    let mut affinities = vec![apic_affinity(0, 0, ENABLED)];
    affinities.extend((1..4).map(|node| memory_affinity(node, u64::from(node) * GIB, GIB, ENABLED)));
    let latencies = hmat(2, &[locality(READ_LATENCY, 1000, &[0], &[2, 3], &[90, 70])]);
    let tables = [madt(&cores), srat(3, &affinities), slit(4, &[10, 20, 20, 20].repeat(4)), latencies];
    let found = memory(&tables).discover(0);
    assert_eq!(found.topology.memory_by_distance(NodeId(0)), [3, 2, 1].map(NodeId));
}

#[test]
fn structures_that_end_nowhere_end_the_table() {
    let good = locality(ACCESS_LATENCY, 1000, &[0], &[1], &[100]);
    let lost = |bytes: &[u8], length: u32| {
        let found = with(2, &[good.clone(), bytes.to_vec()]);
        // The first structure is 42 bytes long.
        let offset = 40 + good.len();
        let complaint = Complaint::LostEntries { table: Table::Hmat, offset, length };
        let text = format!(
            "the entry at offset {offset} of the HMAT claims {length} bytes: it and those after it are left out\n"
        );
        says(&found, &[complaint], &text);
        assert_eq!(route(&found.topology, 0, 1)[0], (Some(100_000), None));
    };
    lost(&[1, 0, 0, 0, 0, 0, 0, 0], 0);
    lost(&[1, 0, 0, 0, 7, 0, 0, 0], 7);
    lost(&[1, 0, 0, 0, 9, 0, 0, 0], 9);
    lost(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], u32::MAX);
    // Not even a head.
    lost(&[1, 0, 0], 0);
    // A table without structures, and one without even its fixed part.
    assert!(with(2, &[]).complaints.is_empty());
    let [madt, srat, slit] = ordinary();
    let found = memory(&[madt, srat, slit, table(b"HMAT", 2, &[])]).discover(0);
    assert!(found.complaints.is_empty() && !found.topology.has_routes());
}

#[test]
fn structures_too_short_for_their_type_are_left_out() {
    let short = |mut structure: Vec<u8>, length: u32| {
        structure.truncate(length as usize);
        structure[4..8].copy_from_slice(&length.to_le_bytes());
        structure
    };
    let found = with(
        2,
        &[
            short(proximity(0, Some(0)), 39),
            short(locality(0, 1, &[], &[], &[]), 31),
            short(memory_cache(0, 1, 0x11), 31),
            // Of a type that there is not.
            vec![9, 0, 0, 0, 8, 0, 0, 0],
        ],
    );
    let of = |kind, offset, length| Complaint::ShortEntry { table: Table::Hmat, offset, kind, length };
    says(
        &found,
        &[of(0, 40, 39), of(1, 79, 31), of(2, 110, 31)],
        "the entry of type 0 at offset 40 of the HMAT has only 39 bytes: it is left out\n\
         the entry of type 1 at offset 79 of the HMAT has only 31 bytes: it is left out\n\
         the entry of type 2 at offset 110 of the HMAT has only 31 bytes: it is left out\n",
    );
}

#[test]
fn a_matrix_that_does_not_fit_is_left_out() {
    let sized = |rows: u32, columns: u32| {
        let mut structure = locality(ACCESS_LATENCY, 1000, &[0, 1], &[0, 1], &[1, 2, 3, 4]);
        structure[12..16].copy_from_slice(&rows.to_le_bytes());
        structure[16..20].copy_from_slice(&columns.to_le_bytes());
        with(2, &[structure])
    };
    for (initiators, targets) in
        [(3, 2), (2, 3), (u32::MAX, 1), (1, u32::MAX), (u32::MAX, u32::MAX), (1 << 31, 2)]
    {
        let found = sized(initiators, targets);
        says(
            &found,
            &[Complaint::BadLocality { offset: 40, initiators, targets, length: 56 }],
            &format!(
                "the structure of 56 bytes at offset 40 of the HMAT cannot hold a matrix of {initiators} by {targets}: \
                 it is left out\n"
            ),
        );
        assert!(!found.topology.has_routes());
    }
    // Empty ones say nothing.
    assert!(sized(0, 2).complaints.is_empty() && sized(2, 0).complaints.is_empty());
}

#[test]
fn values_that_cannot_be_are_left_out() {
    let found = with(
        2,
        &[
            locality(READ_LATENCY, u64::MAX, &[0], &[0, 1], &[1, 2]),
            locality(ACCESS_BANDWIDTH, 1 << 20, &[0], &[0, 1], &[0x1000, 0xfff]),
            locality(WRITE_BANDWIDTH, 0, &[1], &[1], &[5]),
            locality(6, 1, &[0], &[0], &[5]),
        ],
    );
    let impossible = |quantity, offset, count| Complaint::ImpossibleValues { quantity, offset, count };
    says(
        &found,
        &[
            Complaint::UnknownQuantity { offset: 40 + 48 + 48 + 42, quantity: 6 },
            impossible(Quantity::ReadLatency, 40, 2),
            impossible(Quantity::AccessBandwidth, 88, 1),
            impossible(Quantity::WriteBandwidth, 136, 1),
        ],
        "the structure at offset 178 of the HMAT has data of the unknown type 6: it is left out\n\
         the read latency at offset 40 of the HMAT has impossible values (2): they are left out\n\
         the access bandwidth at offset 88 of the HMAT has impossible values (1): they are left out\n\
         the write bandwidth at offset 136 of the HMAT has impossible values (1): they are left out\n",
    );
    assert_eq!(route(&found.topology, 0, 1), [(None, Some(0xfff0_0000)); 2]);
}

#[test]
fn of_two_values_the_first_counts() {
    let found = with(
        2,
        &[
            locality(ACCESS_LATENCY, 1000, &[0, 0], &[1, 1], &[100, 100, 100, 101]),
            locality(ACCESS_LATENCY, 1, &[0], &[1], &[100]),
        ],
    );
    let (from, to) = (ProximityDomain(0), ProximityDomain(1));
    let quantity = Quantity::AccessLatency;
    says(
        &found,
        &[
            Complaint::TwoValues { quantity, from, to, kept: 100_000, dropped: 101_000 },
            Complaint::TwoValues { quantity, from, to, kept: 100_000, dropped: 100 },
        ],
        "the HMAT gives the access latency from domain 0 to 1 as 100000 and again as 101000: the first counts\n\
         the HMAT gives the access latency from domain 0 to 1 as 100000 and again as 100: the first counts\n",
    );
    assert_eq!(route(&found.topology, 0, 1)[0].0, Some(100_000));
}

#[test]
fn domains_that_the_srat_does_not_know_are_left_out() {
    let found = with(
        2,
        &[
            proximity(7, Some(0)),
            proximity(1, Some(8)),
            memory_cache(9, 1 << 20, 0x11),
            locality(ACCESS_LATENCY, 1000, &[0, 7], &[1, 10], &[100, 1, 2, 3]),
        ],
    );
    assert_eq!(
        found.complaints.to_string(),
        [7, 8, 9, 10]
            .map(|domain| format!(
                "the HMAT names domain {domain}, which has neither processors nor memory: that is left out\n"
            ))
            .concat()
    );
    assert_eq!(route(&found.topology, 0, 1)[0].0, Some(100_000));
    assert_eq!(found.topology.nodes()[1].initiator, None);
}

#[test]
fn memory_out_of_reach_is_not_used() {
    let found = with(2, &[locality(ACCESS_LATENCY, 1000, &[0, 1], &[0, 1], &[0xffff, 0xffff, 100, 50])]);
    let (from, to) = (ProximityDomain(0), ProximityDomain(1));
    says(
        &found,
        &[
            Complaint::Unreachable { from, to },
            Complaint::ImpossibleValues { quantity: Quantity::AccessLatency, offset: 40, count: 1 },
        ],
        "the HMAT says that the memory of domain 1 cannot be reached from 0, unlike the SLIT: it is not used from \
         there\n\
         the access latency at offset 40 of the HMAT has impossible values (1): they are left out\n",
    );
    let topology = &found.topology;
    assert_eq!(topology.distance(NodeId(0), NodeId(1)), Some(Distance::UNREACHABLE));
    assert_eq!(topology.distance(NodeId(0), NodeId(0)), Some(Distance::LOCAL));
    assert_eq!(topology.memory_by_distance(NodeId(0)), [NodeId(0)]);
    assert_eq!(topology.memory_by_distance(NodeId(1)), [NodeId(1), NodeId(0)]);
    // Where the SLIT says so too, there is nothing to complain of.
    let [madt, srat, _] = ordinary();
    let both = [
        madt,
        srat,
        slit(2, &[10, 255, 21, 10]),
        hmat(2, &[locality(ACCESS_LATENCY, 1000, &[0], &[1], &[0xffff])]),
    ];
    let found = memory(&both).discover(0);
    assert_eq!(found.complaints.as_slice().len(), 1);
    assert!(matches!(found.complaints.as_slice()[0], Complaint::Asymmetric { .. }));
}

#[test]
fn memory_is_attached_to_one_node_with_processors() {
    let cores = [local_apic(0, ENABLED), local_apic(1, ENABLED)];
    let affinities = [
        apic_affinity(0, 0, ENABLED),
        apic_affinity(1, 1, ENABLED),
        memory_affinity(0, 0, GIB, ENABLED),
        memory_affinity(2, GIB, GIB, ENABLED),
    ];
    let attached = [proximity(2, Some(1)), proximity(2, Some(0)), proximity(2, None), proximity(0, Some(2))];
    let tables = [madt(&cores), srat(3, &affinities), slit(3, &[10; 9]), hmat(2, &attached)];
    let found = memory(&tables).discover(0);
    let bad = |memory, initiator| Complaint::BadAttachment {
        memory: ProximityDomain(memory),
        initiator: ProximityDomain(initiator),
    };
    says(
        &found,
        &[bad(2, 0), bad(0, 2)],
        "the HMAT says that the memory of domain 2 is attached to the processors of 0, which cannot be: that is left \
         out\n\
         the HMAT says that the memory of domain 0 is attached to the processors of 2, which cannot be: that is left \
         out\n",
    );
    let initiators: Vec<_> = found.topology.nodes().iter().map(|node| node.initiator).collect();
    assert_eq!(initiators, [None, None, Some(NodeId(1))]);
}

#[test]
fn caches_that_cannot_be_are_left_out() {
    let found = with(
        2,
        &[
            // Level 2 of 2, then level 1; then none, level 3 of 2, level 0 of 1, one without bytes, and 1 again.
            memory_cache(0, 1 << 30, 0x40_2222),
            memory_cache(0, 1 << 20, 0x40_ff12),
            memory_cache(0, 1 << 20, 0),
            memory_cache(1, 1 << 20, 0x32),
            memory_cache(1, 1 << 20, 0x01),
            memory_cache(1, 0, 0x11),
            memory_cache(0, 1 << 21, 0x12),
        ],
    );
    assert_eq!(
        found.complaints.to_string(),
        "the HMAT gives the memory of domain 1 a cache of 1048576 bytes, level 3 of 2: it is left out\n\
         the HMAT gives the memory of domain 1 a cache of 1048576 bytes, level 0 of 1: it is left out\n\
         the HMAT gives the memory of domain 1 a cache of 0 bytes, level 1 of 1: it is left out\n\
         the HMAT gives the memory of domain 0 a second cache of level 1: it is left out\n"
    );
    let cache =
        |level, size, associativity, writes| MemoryCache { level, size, line: 64, associativity, writes };
    assert_eq!(
        found.topology.nodes()[0].caches,
        [
            cache(1, 1 << 20, CacheAssociativity::Unknown, CacheWrites::Unknown),
            cache(2, 1 << 30, CacheAssociativity::Complex, CacheWrites::Through),
        ]
    );
}

#[test]
fn a_second_table_or_a_damaged_one_is_left_out() {
    let [madt, srat, slit] = ordinary();
    let mut damaged = ordinary_hmat();
    damaged[60] ^= 1;
    let found = memory(&[madt.clone(), srat.clone(), slit.clone(), damaged]).discover(0);
    assert_eq!(found.complaints.to_string(), "the HMAT at 0x10600000 has a wrong checksum: it is left out\n");
    let other = hmat(2, &[locality(ACCESS_LATENCY, 1, &[0], &[0], &[1])]);
    let found = memory(&[madt, srat, slit, ordinary_hmat(), other]).discover(0);
    assert_eq!(found.complaints.to_string(), "there is a second HMAT at 0x10800000: it is left out\n");
    assert_eq!(route(&found.topology, 0, 0)[0].0, Some(80_000));
}
