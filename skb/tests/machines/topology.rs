//! Topologies of odd machines.

use boot_info::{PHYSICAL_LIMIT, PhysAddr, PhysRange};
use skb::{
    ApicId, Complaint, CoreId, CoreState, Discovery, Distance, MAX_COMPLAINTS, MAX_CORES, MAX_NODES, NodeId,
    ProximityDomain, Topology,
};

use crate::build::*;

fn range(base: u64, length: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(base), length)
}

fn apics(discovery: &Discovery) -> Vec<u32> {
    discovery.topology.cores().iter().map(|core| core.apic.0).collect()
}

fn nodes_of_cores(discovery: &Discovery) -> Vec<u32> {
    discovery.topology.cores().iter().map(|core| core.node.0).collect()
}

fn matrix(topology: &Topology) -> Vec<Vec<u8>> {
    let distance = |a: &skb::Node, b: &skb::Node| topology.distance(a.id, b.id).expect("both exist").0;
    topology.nodes().iter().map(|a| topology.nodes().iter().map(|b| distance(a, b)).collect()).collect()
}

#[track_caller]
fn says(discovery: &Discovery, complaints: &[Complaint], message: &str) {
    assert_eq!(discovery.complaints.as_slice(), complaints);
    assert_eq!(discovery.complaints.to_string(), message);
}

#[test]
fn an_ordinary_machine_is_understood() {
    let found = memory(&ordinary()).discover(0);
    assert!(found.complaints.is_empty(), "{}", found.complaints);
    assert_eq!(apics(&found), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(nodes_of_cores(&found), [0, 0, 0, 0, 1, 1, 1, 1]);
    let topology = &found.topology;
    assert_eq!(topology.enabled_cores().len(), 8);
    assert_eq!(topology.nodes()[0].memory, [range(0, 0xa_0000), range(0x10_0000, GIB - 0x10_0000)]);
    assert_eq!(topology.nodes()[1].memory, [range(GIB, GIB)]);
    assert_eq!(matrix(topology), [[10, 21], [21, 10]]);
    assert_eq!(topology.node_of(CoreId(5)), Some(NodeId(1)));
    assert_eq!(topology.cores_of(NodeId(1)).collect::<Vec<_>>(), [4, 5, 6, 7].map(CoreId));
    assert_eq!(topology.nearest_memory(NodeId(1)), Some(NodeId(1)));
    assert_eq!(topology.memory_by_distance(NodeId(1)), [NodeId(1), NodeId(0)]);
    assert_eq!(topology.node_of_memory(PhysAddr::new(GIB)), Some(NodeId(1)));
    assert_eq!(topology.node_of_memory(PhysAddr::new(GIB - 1)), Some(NodeId(0)));
    assert_eq!(topology.node_of_memory(PhysAddr::new(0xa_0000)), None);
    assert_eq!(topology.core_by_apic(ApicId(6)).map(|core| core.id), Some(CoreId(6)));
    assert_eq!(
        topology.to_string(),
        "8 cores on 2 nodes\n\
         node 0: cores 0-3; distances 10 21; memory 0x0..0xa0000 0x100000..0x40000000\n\
         node 1: cores 4-7; distances 21 10; memory 0x40000000..0x80000000\n"
    );
}

#[test]
fn questions_about_what_is_not_there_have_no_answer() {
    let topology = memory(&ordinary()).discover(0).topology;
    assert_eq!(topology.node_of(CoreId(8)), None);
    assert_eq!(topology.cores_of(NodeId(2)).count(), 0);
    assert_eq!(topology.distance(NodeId(0), NodeId(2)), None);
    assert_eq!(topology.distance(NodeId(2), NodeId(0)), None);
    assert_eq!(topology.distance(NodeId(u32::MAX), NodeId(0)), None);
    assert_eq!(topology.nearest_memory(NodeId(2)), None);
    assert_eq!(topology.core_by_apic(ApicId(99)), None);
    assert_eq!(topology.core(CoreId(u32::MAX)), None);
    assert_eq!(topology.node(NodeId(2)), None);
}

#[test]
fn the_boot_core_comes_first_and_the_others_keep_their_order() {
    let found = memory(&ordinary()).discover(5);
    assert_eq!(apics(&found), [5, 0, 1, 2, 3, 4, 6, 7]);
    assert_eq!(nodes_of_cores(&found), [1, 0, 0, 0, 0, 1, 1, 1]);
    assert_eq!(found.topology.cores_of(NodeId(1)).collect::<Vec<_>>(), [0, 5, 6, 7].map(CoreId));
    assert_eq!(
        found.topology.to_string().lines().nth(2),
        Some("node 1: cores 0,5-7; distances 21 10; memory 0x40000000..0x80000000")
    );
}

#[test]
fn five_cores_on_three_nodes_with_x2apic_and_sparse_numbers() {
    let found = memory(&[
        madt(&[
            local_apic(4, ENABLED),
            local_x2apic(0x1000, ENABLED),
            local_apic(7, 0),
            local_x2apic(0x300, ENABLED),
            local_apic(2, ENABLED),
            local_apic(9, ENABLED),
        ]),
        srat(
            3,
            &[
                apic_affinity(2, 0x0102_0304, ENABLED),
                apic_affinity(9, 0x0102_0304, ENABLED),
                apic_affinity(4, 7, ENABLED),
                x2apic_affinity(0x1000, 3, ENABLED),
                x2apic_affinity(0x300, 3, ENABLED),
                x2apic_affinity(0x777, 55, 0),
                memory_affinity(7, 4 * GIB, GIB, ENABLED),
                memory_affinity(3, 2 * GIB, GIB, ENABLED),
                memory_affinity(0x0102_0304, 0, GIB, ENABLED),
            ],
        ),
    ])
    .discover(2);
    says(
        &found,
        &[Complaint::Missing(skb::tables::Table::Slit)],
        "there is no SLIT: nodes are at distance 20 from each other\n",
    );
    assert_eq!(apics(&found), [2, 4, 0x1000, 0x300, 9]);
    let domains: Vec<_> = found.topology.nodes().iter().map(|node| node.domain.0).collect();
    assert_eq!(domains, [3, 7, 0x0102_0304]);
    assert_eq!(nodes_of_cores(&found), [2, 1, 0, 0, 2]);
    assert_eq!(matrix(&found.topology), [[10, 20, 20], [20, 10, 20], [20, 20, 10]]);
}

#[test]
fn domains_had_eight_bits_until_revision_2() {
    let tables = |revision| {
        let mut affinity = apic_affinity(0, 1, ENABLED);
        // Bytes reserved then.
        affinity[9..12].fill(0xee);
        let memory = memory_affinity(0x3301, 0, GIB, ENABLED);
        [
            madt(&[local_apic(0, ENABLED)]),
            srat(revision, &[affinity, memory, x2apic_affinity(1, 0x101, ENABLED)]),
            slit(2, &[10, 20, 20, 10]),
        ]
    };
    let old = memory(&tables(1)).discover(0);
    let domains =
        |found: &Discovery| found.topology.nodes().iter().map(|node| node.domain.0).collect::<Vec<_>>();
    assert_eq!(domains(&old), [1]);
    let new = memory(&tables(2)).discover(0);
    assert_eq!(domains(&new), [0x101, 0x3301, 0xeeee_ee01]);
}

#[test]
fn nodes_without_cores_or_memory() {
    // Node 0 has only memory, node 1 only cores, node 2 only memory, node 3 neither but a core that is not there.
    let found = memory(&[
        madt(&[local_apic(0, ENABLED), local_apic(1, ENABLED), local_apic(2, ONLINE_CAPABLE)]),
        srat(
            3,
            &[
                apic_affinity(0, 1, ENABLED),
                apic_affinity(1, 1, ENABLED),
                apic_affinity(2, 3, ENABLED),
                memory_affinity(0, 0, GIB, ENABLED),
                memory_affinity(2, GIB, GIB, ENABLED),
            ],
        ),
        slit(4, &[10, 30, 20, 20, 30, 10, 25, 20, 20, 25, 10, 255, 20, 20, 255, 10]),
    ])
    .discover(0);
    assert!(found.complaints.is_empty(), "{}", found.complaints);
    let topology = &found.topology;
    assert_eq!(topology.cores_of(NodeId(0)).count(), 0);
    assert!(topology.nodes()[1].memory.is_empty());
    assert_eq!(topology.nearest_memory(NodeId(1)), Some(NodeId(2)));
    assert_eq!(topology.memory_by_distance(NodeId(1)), [NodeId(2), NodeId(0)]);
    assert_eq!(topology.distance(NodeId(3), NodeId(2)), Some(Distance::UNREACHABLE));
    assert_eq!(topology.memory_by_distance(NodeId(3)), [NodeId(0)]);
    assert_eq!(topology.cores()[2].state, CoreState::HotPluggable);
    assert_eq!(topology.enabled_cores().len(), 2);
    assert_eq!(
        topology.to_string(),
        "2 cores on 4 nodes, room for 1 more core\n\
         node 0: cores -; distances 10 30 20 20; memory 0x0..0x40000000\n\
         node 1: cores 0-1; distances 30 10 25 20; memory -\n\
         node 2: cores -; distances 20 25 10 255; memory 0x40000000..0x80000000\n\
         node 3: cores 2; distances 20 20 255 10; memory -\n"
    );
}

#[test]
fn the_first_of_several_nearest_memories_is_taken() {
    let tables = |matrix: &[u8]| {
        memory(&[
            madt(&[local_apic(0, ENABLED)]),
            srat(
                3,
                &[
                    apic_affinity(0, 1, ENABLED),
                    memory_affinity(0, 0, GIB, ENABLED),
                    memory_affinity(1, GIB, GIB, ENABLED),
                    memory_affinity(2, 2 * GIB, GIB, ENABLED),
                ],
            ),
            slit(3, matrix),
        ])
        .discover(0)
        .topology
    };
    let equal = tables(&[10, 15, 20, 15, 10, 15, 20, 15, 10]);
    assert_eq!(equal.memory_by_distance(NodeId(1)), [1, 0, 2].map(NodeId));
    // Another node at the distance of a node's own memory comes after it.
    let near = tables(&[10, 10, 20, 10, 10, 15, 20, 15, 10]);
    assert_eq!(near.memory_by_distance(NodeId(1)), [1, 0, 2].map(NodeId));
    assert_eq!(near.memory_by_distance(NodeId(0)), [0, 1, 2].map(NodeId));
}

#[test]
fn asymmetric_distances_are_kept() {
    let [madt, srat, _] = ordinary();
    let found = memory(&[madt, srat, slit(2, &[10, 31, 17, 10])]).discover(0);
    assert_eq!(matrix(&found.topology), [[10, 31], [17, 10]]);
    says(
        &found,
        &[Complaint::Asymmetric {
            a: ProximityDomain(0),
            b: ProximityDomain(1),
            there: Distance(31),
            back: Distance(17),
        }],
        "the SLIT says that it is 31 from domain 0 to 1, but 17 back: both are kept\n",
    );
}

#[test]
fn impossible_distances_are_replaced() {
    let [madt, srat, _] = ordinary();
    let found = memory(&[madt, srat, slit(2, &[9, 9, 0, 20])]).discover(0);
    assert_eq!(matrix(&found.topology), [[10, 20], [20, 10]]);
    let (a, b) = (ProximityDomain(0), ProximityDomain(1));
    says(
        &found,
        &[
            Complaint::BadLocalDistance { domain: a, distance: Distance(9) },
            Complaint::BadDistance { from: a, to: b, distance: Distance(9) },
            Complaint::BadDistance { from: b, to: a, distance: Distance(0) },
            Complaint::BadLocalDistance { domain: b, distance: Distance(20) },
        ],
        "the SLIT says that domain 0 is at distance 9 from itself: it is 10\n\
         the SLIT says that domain 1 is at distance 9 from 0, nearer than itself: 20 is assumed\n\
         the SLIT says that domain 0 is at distance 0 from 1, nearer than itself: 20 is assumed\n\
         the SLIT says that domain 1 is at distance 20 from itself: it is 10\n",
    );
}

#[test]
fn a_matrix_too_small_or_cut_off_is_left_out() {
    let [madt, srat, _] = ordinary();
    let found = memory(&[madt.clone(), srat.clone(), slit(1, &[10])]).discover(0);
    assert_eq!(matrix(&found.topology), [[10, 20], [20, 10]]);
    says(
        &found,
        &[Complaint::NoDistances(ProximityDomain(1))],
        "the SLIT has no distances of domain 1: it is at 20 from all others\n",
    );
    for (localities, length) in [(3, 48), (0, 48), (u64::MAX, 48), (1 << 32, 48), (1 << 31, 48)] {
        let found = memory(&[madt.clone(), srat.clone(), slit(localities, &[10, 11, 11, 10])]).discover(0);
        assert_eq!(matrix(&found.topology), [[10, 20], [20, 10]]);
        says(
            &found,
            &[Complaint::BadMatrix { localities, length }],
            &format!(
                "the SLIT of 48 bytes cannot hold the distances of {localities} localities: it is left out\n"
            ),
        );
    }
    // A table without even the number.
    let found = memory(&[madt, srat, table(b"SLIT", 1, &[1, 0, 0])]).discover(0);
    assert_eq!(found.complaints.as_slice(), [Complaint::BadMatrix { localities: 0, length: 39 }]);
}

#[test]
fn nothing_known_is_one_core_on_one_node() {
    let found = skb::discover(None, &Pieces::default(), no_cpuid, ApicId(3));
    assert_eq!(found.topology, Topology::flat(ApicId(3)));
    assert_eq!(apics(&found), [3]);
    assert_eq!(found.topology.nodes()[0].memory, [range(0, PHYSICAL_LIMIT)]);
    assert_eq!(found.topology.nearest_memory(NodeId(0)), Some(NodeId(0)));
    assert_eq!(matrix(&found.topology), [[10]]);
    says(
        &found,
        &[Complaint::NoRootPointer],
        "the boot protocol gave no ACPI root pointer: only the boot core is known, on one node\n",
    );
    assert_eq!(
        found.topology.to_string(),
        "1 core on 1 node\nnode 0: cores 0; distances 10; memory 0x0..0x10000000000000\n"
    );
}

#[test]
fn a_machine_without_nodes_is_flat() {
    let [madt, ..] = ordinary();
    let found = memory(std::slice::from_ref(&madt)).discover(0);
    assert_eq!(nodes_of_cores(&found), [0; 8]);
    assert_eq!(found.topology.nodes().len(), 1);
    assert_eq!(found.topology.nodes()[0].memory, [range(0, PHYSICAL_LIMIT)]);
    says(
        &found,
        &[Complaint::Missing(skb::tables::Table::Srat)],
        "there is no SRAT: all cores and memory are on one node\n",
    );
    // An SRAT that says nothing is as good as none.
    let empty = memory(&[madt.clone(), srat(3, &[]), slit(1, &[10])]).discover(0);
    assert_eq!(empty.topology, found.topology);
    assert!(empty.complaints.is_empty());
    // One that lists no memory leaves it to the first node.
    let cores = (0..8).map(|apic| apic_affinity(apic, 3 + u32::from(apic % 2), ENABLED)).collect::<Vec<_>>();
    let found = memory(&[madt, srat(3, &cores), slit(5, &[10; 25])]).discover(0);
    assert_eq!(nodes_of_cores(&found), [0, 1, 0, 1, 0, 1, 0, 1]);
    assert_eq!(found.topology.nearest_memory(NodeId(1)), Some(NodeId(0)));
    says(&found, &[Complaint::NoMemory], "the SRAT lists no memory: all is put on node 0\n");
}

#[test]
fn a_machine_without_processors_has_the_boot_core() {
    let [_, srat, slit] = ordinary();
    let found = memory(&[srat, slit]).discover(4);
    assert_eq!(apics(&found), [4]);
    assert_eq!(nodes_of_cores(&found), [1]);
    says(
        &found,
        &[Complaint::Missing(skb::tables::Table::Madt)],
        "there is no MADT: only the boot core is known\n",
    );
}

#[test]
fn the_boot_core_is_there_whatever_the_madt_says() {
    let [_, srat, slit] = ordinary();
    let tables = |entries: &[Vec<u8>]| memory(&[madt(entries), srat.clone(), slit.clone()]);
    let found = tables(&[local_apic(1, ENABLED), local_apic(2, ENABLED)]).discover(4);
    assert_eq!(apics(&found), [4, 1, 2]);
    says(
        &found,
        &[Complaint::BootCoreUnlisted(ApicId(4))],
        "the MADT does not list the boot core, APIC 4: it is added\n",
    );
    let found = tables(&[local_apic(1, ENABLED), local_apic(4, ONLINE_CAPABLE)]).discover(4);
    assert_eq!(apics(&found), [4, 1]);
    assert_eq!(found.topology.enabled_cores().len(), 2);
    says(
        &found,
        &[Complaint::BootCoreDisabled(ApicId(4))],
        "the MADT says that the boot core, APIC 4, is disabled: it is used all the same\n",
    );
}

#[test]
fn cores_to_be_plugged_in_come_last() {
    let [_, srat, slit] = ordinary();
    let entries = [
        local_apic(0, ENABLED),
        local_apic(3, ONLINE_CAPABLE),
        local_apic(1, ENABLED),
        local_apic(7, ONLINE_CAPABLE),
        local_apic(2, ENABLED | ONLINE_CAPABLE),
        local_apic(0xff, 0),
        local_x2apic(u32::MAX, 0),
    ];
    let found = memory(&[madt(&entries), srat, slit]).discover(0);
    assert!(found.complaints.is_empty(), "{}", found.complaints);
    assert_eq!(apics(&found), [0, 1, 2, 3, 7]);
    assert_eq!(found.topology.enabled_cores().len(), 3);
}

#[test]
fn processors_listed_twice_or_for_all_are_left_out() {
    let [_, srat, slit] = ordinary();
    let entries = [
        local_apic(0, ENABLED),
        local_apic(1, ENABLED),
        local_apic(1, ENABLED),
        local_x2apic(0, ENABLED),
        local_apic(0xff, ENABLED),
        local_x2apic(0xffff_ffff, ENABLED),
        local_x2apic(0x2, ENABLED),
    ];
    let found = memory(&[madt(&entries), srat, slit]).discover(0);
    assert_eq!(apics(&found), [0, 1, 2]);
    says(
        &found,
        &[
            Complaint::BroadcastApic(ApicId(255)),
            Complaint::BroadcastApic(ApicId(u32::MAX)),
            Complaint::RepeatedCore(ApicId(1)),
            Complaint::RepeatedCore(ApicId(0)),
        ],
        "the MADT lists a processor with APIC 255, which means all: it is left out\n\
         the MADT lists a processor with APIC 4294967295, which means all: it is left out\n\
         the MADT lists the processor with APIC 1 again: the first entry counts\n\
         the MADT lists the processor with APIC 0 again: the first entry counts\n",
    );
    // The identifier 255 is an ordinary one to an x2APIC.
    let found = memory(&[madt(&[local_x2apic(255, ENABLED)])]).discover(255);
    assert_eq!(apics(&found), [255]);
}

#[test]
fn cores_without_a_node_or_with_two() {
    let [madt, _, slit] = ordinary();
    let mut affinities: Vec<_> = (0..7).map(|apic| apic_affinity(apic, 1, ENABLED)).collect();
    affinities.push(x2apic_affinity(3, 0, ENABLED));
    affinities.push(apic_affinity(4, 1, ENABLED));
    affinities.push(memory_affinity(0, 0, GIB, ENABLED));
    let found = memory(&[madt, srat(3, &affinities), slit]).discover(0);
    assert_eq!(nodes_of_cores(&found), [1, 1, 1, 1, 1, 1, 1, 0]);
    says(
        &found,
        &[
            Complaint::CoreOnTwoNodes {
                apic: ApicId(3),
                kept: ProximityDomain(1),
                dropped: ProximityDomain(0),
            },
            Complaint::CoreWithoutNode(ApicId(7)),
        ],
        "the SRAT puts the core with APIC 3 on domain 1 and again on 0: the first counts\n\
         the SRAT does not list the core with APIC 7: it is put on node 0\n",
    );
}

#[test]
fn memory_is_sorted_merged_and_on_one_node() {
    let [madt, _, slit] = ordinary();
    let mut entries: Vec<_> = (0..8).map(|apic| apic_affinity(apic, (apic / 4).into(), ENABLED)).collect();
    entries.extend([
        memory_affinity(1, 8 * GIB, GIB, ENABLED),
        memory_affinity(0, 2 * GIB, GIB, ENABLED),
        memory_affinity(0, 0, GIB, ENABLED),
        // Fills the gap and overlaps both neighbours.
        memory_affinity(0, GIB / 2, 2 * GIB, ENABLED),
        // Of the other node: inside, at the edge, around.
        memory_affinity(1, GIB, 1, ENABLED),
        memory_affinity(1, 3 * GIB - 1, GIB, ENABLED),
        memory_affinity(0, 7 * GIB, 4 * GIB, ENABLED),
        // Just beside.
        memory_affinity(1, 3 * GIB, GIB, ENABLED),
        // Disabled, or not RAM.
        memory_affinity(1, 100 * GIB, GIB, 0),
        memory_affinity(1, 100 * GIB, GIB, ENABLED | 4),
        memory_affinity(1, 100 * GIB, GIB, ENABLED | 2),
        memory_affinity(1, PHYSICAL_LIMIT - 1, 2, ENABLED),
        memory_affinity(1, u64::MAX, u64::MAX, ENABLED),
    ]);
    let found = memory(&[madt, srat(3, &entries), slit]).discover(0);
    assert_eq!(found.topology.nodes()[0].memory, [range(0, 3 * GIB)]);
    let of_node_1 = [range(3 * GIB, GIB), range(8 * GIB, GIB), range(100 * GIB, GIB)];
    assert_eq!(found.topology.nodes()[1].memory, of_node_1);
    assert_eq!(
        found.complaints.to_string(),
        "the SRAT lists 0x2 bytes at 0xfffffffffffff for domain 1, past the end of physical memory: they are left \
         out\n\
         the SRAT lists 0xffffffffffffffff bytes at 0xffffffffffffffff for domain 1, past the end of physical \
         memory: they are left out\n\
         the SRAT puts 0x40000000..0x40000001 on domain 1, a part of which is on 0 already: it is left out\n\
         the SRAT puts 0xbfffffff..0xffffffff on domain 1, a part of which is on 0 already: it is left out\n\
         the SRAT puts 0x1c0000000..0x2c0000000 on domain 0, a part of which is on 1 already: it is left out\n"
    );
}

#[test]
fn more_cores_than_there_can_be() {
    let most = MAX_CORES as u32;
    let entries: Vec<_> = (0..most + 10).map(|apic| local_x2apic(apic, ENABLED)).collect();
    let found = memory(&[madt(&entries)]).discover(most + 5);
    assert_eq!(found.topology.cores().len(), MAX_CORES);
    assert_eq!(found.topology.cores()[0].apic, ApicId(most + 5));
    assert_eq!(found.topology.cores()[MAX_CORES - 1].apic, ApicId(most - 2));
    assert_eq!(
        found.complaints.to_string(),
        "there is no SRAT: all cores and memory are on one node\n\
         there are 4106 processors: those after the first 4096 are left out\n"
    );
    assert!(found.topology.to_string().starts_with("4096 cores on 1 node\nnode 0: cores 0-4095;"));
}

#[test]
fn more_nodes_than_there_can_be() {
    let most = MAX_NODES as u32;
    let mut entries: Vec<_> = (0..most + 10)
        .map(|domain| memory_affinity(domain, u64::from(domain) * 2 * GIB, GIB, ENABLED))
        .collect();
    entries.push(apic_affinity(0, most + 1, ENABLED));
    let found = memory(&[madt(&[local_apic(0, ENABLED)]), srat(3, &entries)]).discover(0);
    assert_eq!(found.topology.nodes().len(), MAX_NODES);
    assert_eq!(nodes_of_cores(&found), [0]);
    // No memory is lost.
    assert_eq!(found.topology.nodes()[0].memory.len(), 11);
    assert_eq!(
        found.complaints.to_string(),
        "there is no SLIT: nodes are at distance 20 from each other\n\
         there are 266 proximity domains: those after the first 256 are taken for the first\n"
    );
}

#[test]
fn complaints_are_bounded() {
    let entries = vec![local_apic(0, ENABLED); MAX_COMPLAINTS + 101];
    let [_, srat, slit] = ordinary();
    let found = memory(&[madt(&entries), srat, slit]).discover(0);
    assert_eq!(found.complaints.as_slice().len(), MAX_COMPLAINTS);
    assert_eq!(found.complaints.more(), 100);
    assert!(found.complaints.to_string().ends_with("counts\nand 100 more such complaints\n"));
}
