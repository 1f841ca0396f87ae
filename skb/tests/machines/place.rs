//! Where channels are placed on made-up machines, and what holds of every placement.

use std::collections::BTreeSet;

use boot_info::PAGE_SIZE;
use proptest::prelude::*;
use skb::place::MAX_PIECES;
use skb::{
    ChannelSpec, CoreId, Distance, Load, NodeId, NodeLoad, PlaceError, Placement, Policy, Rule, Topology,
    place,
};

use crate::build::*;

/// A node of a made-up machine: its cores, and whether it has memory.
type Shape = (u8, bool);

/// A machine of such nodes with this matrix; at least one has a core.
fn machine(nodes: &[Shape], matrix: &[u8]) -> Topology {
    let mut cores = Vec::new();
    let mut entries = Vec::new();
    for (domain, &(count, has_memory)) in (0u32..).zip(nodes) {
        for _ in 0..count {
            let apic = cores.len() as u32;
            cores.push(local_x2apic(apic, ENABLED));
            entries.push(x2apic_affinity(apic, domain, ENABLED));
        }
        if has_memory {
            entries.push(memory_affinity(domain, u64::from(domain) * GIB, GIB, ENABLED));
        }
    }
    memory(&[madt(&cores), srat(3, &entries), slit(nodes.len() as u64, matrix)]).discover(0).topology
}

/// A matrix with 10 on its diagonal and `remote` elsewhere.
fn uniform(nodes: usize, remote: u8) -> Vec<u8> {
    (0..nodes * nodes).map(|place| if place.is_multiple_of(nodes + 1) { 10 } else { remote }).collect()
}

fn two_nodes() -> Topology {
    machine(&[(4, true), (4, true)], &uniform(2, 21))
}

/// From the first core of node 0 to the first of node 1, with a pool of 64 KiB.
const ACROSS: ChannelSpec = ChannelSpec::new(CoreId(0), CoreId(4), 64 << 10);

fn homes(placement: &Placement) -> (Vec<u32>, u32, u32) {
    let data = placement.data.iter().map(|piece| piece.node.0).collect();
    (data, placement.forward.0, placement.backward.0)
}

fn placed(topology: &Topology, spec: &ChannelSpec, rule: impl Into<Rule>) -> Placement {
    place(topology, spec, rule, 1, &Load::default()).expect("there is memory")
}

#[test]
fn each_policy_has_its_places() {
    let topology = two_nodes();
    let of = |policy| homes(&placed(&topology, &ACROSS, policy));
    assert_eq!(of(Policy::Producer), (vec![0], 0, 0));
    assert_eq!(of(Policy::Consumer), (vec![1], 1, 1));
    assert_eq!(of(Policy::SplitPoller), (vec![0], 1, 0));
    assert_eq!(of(Policy::SplitWriter), (vec![0], 0, 1));
    assert_eq!(of(Policy::ConsumerData), (vec![1], 1, 0));
    assert_eq!(of(Policy::Creator), (vec![0], 0, 0));
    assert_eq!(of(Policy::Interleave), (vec![0, 1], 1, 0));
    let by_consumer = ChannelSpec { creator: CoreId(7), ..ACROSS };
    assert_eq!(homes(&placed(&topology, &by_consumer, Policy::Creator)), (vec![1], 1, 1));
    assert_eq!(homes(&placed(&topology, &ACROSS, Rule::Bind(NodeId(1)))), (vec![1], 1, 1));
    assert_eq!(homes(&placed(&topology, &ACROSS, Rule::Preferred(NodeId(1)))), (vec![1], 1, 1));
    assert_eq!(Policy::default(), Policy::SplitPoller);
}

#[test]
fn sizes_are_whole_pages_and_spread_evenly() {
    let topology = machine(&[(1, true), (1, true), (1, true)], &uniform(3, 20));
    let sizes = |bytes| {
        let spec = ChannelSpec::new(CoreId(1), CoreId(2), bytes);
        let pieces = placed(&topology, &spec, Policy::Interleave).data;
        pieces.iter().map(|piece| (piece.node.0, piece.bytes / PAGE_SIZE)).collect::<Vec<_>>()
    };
    // The first piece is the producer's.
    assert_eq!(sizes(7 * PAGE_SIZE), [(1, 3), (2, 2), (0, 2)]);
    assert_eq!(sizes(2 * PAGE_SIZE), [(1, 1), (2, 1)]);
    assert_eq!(sizes(1), [(1, 1)]);
    assert_eq!(sizes(0), []);
}

#[test]
fn many_nodes_get_a_piece_every_so_often() {
    let topology = machine(&[(1, true); 40], &uniform(40, 20));
    let spec = ChannelSpec::new(CoreId(5), CoreId(6), 1 << 20);
    let nodes: Vec<_> = placed(&topology, &spec, Policy::Interleave).data.iter().map(|p| p.node.0).collect();
    assert_eq!(nodes, [5, 7, 10, 12, 15, 17, 20, 22, 25, 27, 30, 32, 35, 37, 0, 2]);
}

#[test]
fn the_worst_is_far_from_both() {
    // Node 2 is far from all, and from node 1 further than back.
    let topology = machine(&[(1, true), (1, true), (0, true)], &[10, 20, 30, 20, 10, 60, 30, 35, 10]);
    let spec = ChannelSpec::new(CoreId(0), CoreId(1), 4096);
    assert_eq!(homes(&placed(&topology, &spec, Policy::Worst)), (vec![2], 2, 2));
    // Of two nodes, what is far from the reader costs more: a load stalls.
    assert_eq!(homes(&placed(&two_nodes(), &ACROSS, Policy::Worst)), (vec![0], 0, 1));
}

#[test]
fn a_crowded_node_is_dearer_than_a_far_one() {
    let topology = two_nodes();
    let mut load = Load::default();
    let spec = ChannelSpec::new(CoreId(0), CoreId(1), 1 << 20);
    let data = |load: &Load| place(&topology, &spec, Policy::Auto, 1, load).map(|p| p.data[0].node);
    assert_eq!(data(&load), Ok(NodeId(0)));
    load.set(NodeId(0), NodeLoad { free: u64::MAX, channels: 8 });
    let here = place(&topology, &spec, Policy::Producer, 1, &load).expect("there is room");
    let spread = place(&topology, &spec, Policy::Interleave, 1, &load).expect("there is room");
    assert!(spread.predicted_cost < here.predicted_cost);
    assert!(place(&topology, &spec, Policy::Auto, 1, &load).is_ok_and(|auto| {
        auto.predicted_cost <= spread.predicted_cost && auto.why().starts_with("auto, the cheapest of all: ")
    }));
}

#[test]
fn a_node_without_memory_stands_for_the_nearest_that_has_some() {
    let topology = machine(&[(1, true), (2, false), (1, true)], &[10, 30, 20, 30, 10, 25, 20, 25, 10]);
    let spec = ChannelSpec::new(CoreId(1), CoreId(0), 4096);
    let placement = placed(&topology, &spec, Policy::SplitPoller);
    assert_eq!(homes(&placement), (vec![2], 0, 2));
    assert!(
        placement
            .why()
            .contains("; node 1 has no memory for both sides: node 2 is the nearest that has, at 25"),
        "{}",
        placement.why()
    );
    let bound = place(&topology, &spec, Rule::Bind(NodeId(1)), 1, &Load::default());
    assert_eq!(bound, Err(PlaceError::Unusable(NodeId(1))));
    assert_eq!(homes(&placed(&topology, &spec, Rule::Preferred(NodeId(1)))), (vec![2], 2, 2));
}

#[test]
fn why_is_the_rule_the_facts_and_the_cost() {
    // A line locally 3.2 ns, remotely 6.72 ns. Data: 50 + 1024 × 3.2 written and 210 + 1024 × 6.72 read. Each ring: 105
    // + 6.72 written and 100 + 3.2 read.
    assert_eq!(
        placed(&two_nodes(), &ACROSS, Policy::SplitPoller).why(),
        "split-poller: data on node 0, forward ring on 1, backward ring on 0; producer core 0 on node 0, consumer core \
         4 on node 1, at 21 there and 21 back; predicted 10847.920 ns for a transfer of 65536 bytes: data 10418.080 \
         ns, forward 214.920 ns, backward 214.920 ns"
    );
}

#[test]
fn a_full_node_is_an_error_unless_the_rule_names_another() {
    let topology = two_nodes();
    let mut load = Load::default();
    let needed = ACROSS.bytes + ACROSS.ring;
    load.set(NodeId(0), NodeLoad { free: needed - 1, channels: 0 });
    let of = |rule: Rule| place(&topology, &ACROSS, rule, 1, &load);
    let full = PlaceError::Full { node: NodeId(0), needed, free: needed - 1 };
    assert_eq!(of(Policy::SplitPoller.into()), Err(full));
    assert_eq!(full.to_string(), "node 0 has 69631 bytes left, 69632 are needed");
    let all = PlaceError::Full { node: NodeId(0), needed: needed + ACROSS.ring, free: needed - 1 };
    assert_eq!(of(Rule::Bind(NodeId(0))), Err(all));
    let preferred = of(Rule::Preferred(NodeId(0))).expect("node 1 has room");
    assert_eq!(homes(&preferred), (vec![1], 1, 1));
    assert!(
        preferred.why().contains("; node 0 has 69631 bytes left, 73728 are needed"),
        "{}",
        preferred.why()
    );
    load.set(NodeId(1), NodeLoad { free: 0, channels: 0 });
    assert_eq!(place(&topology, &ACROSS, Rule::Preferred(NodeId(0)), 1, &load), Err(all));
    assert!(matches!(place(&topology, &ACROSS, Policy::Auto, 1, &load), Err(PlaceError::Full { .. })));
}

#[test]
fn what_does_not_exist_is_refused() {
    let topology = two_nodes();
    let of = |spec: ChannelSpec, rule: Rule| place(&topology, &spec, rule, 1, &Load::default()).unwrap_err();
    let policy = Rule::from(Policy::Producer);
    let none = PlaceError::NoCore(CoreId(8));
    assert_eq!(of(ChannelSpec { producer: CoreId(8), ..ACROSS }, policy), none);
    assert_eq!(of(ChannelSpec { consumer: CoreId(8), ..ACROSS }, policy), none);
    assert_eq!(of(ChannelSpec { creator: CoreId(8), ..ACROSS }, policy), none);
    assert_eq!(of(ACROSS, Rule::Bind(NodeId(2))), PlaceError::NoNode(NodeId(2)));
    assert_eq!(of(ACROSS, Rule::Preferred(NodeId(2))), PlaceError::NoNode(NodeId(2)));
    let bytes = u64::MAX;
    assert_eq!(of(ChannelSpec { bytes, ..ACROSS }, policy), PlaceError::TooLarge { bytes });
    let messages =
        [none, PlaceError::NoNode(NodeId(2)), PlaceError::TooLarge { bytes }].map(|e| e.to_string());
    assert_eq!(
        messages,
        [
            "there is no core 8",
            "there is no node 2",
            "a pool of 18446744073709551615 bytes is larger than any memory"
        ]
    );
}

#[test]
fn memory_out_of_reach_is_no_place() {
    // Node 0 and node 1 reach only their own memory.
    let topology = machine(&[(1, true), (1, true)], &uniform(2, 255));
    let spec = ChannelSpec::new(CoreId(0), CoreId(1), 4096);
    let error = place(&topology, &spec, Policy::Worst, 1, &Load::default()).unwrap_err();
    assert_eq!(error, PlaceError::NoMemory { producer: NodeId(0), consumer: NodeId(1) });
    assert_eq!(error.to_string(), "no memory can be reached from both node 0 and node 1");
    let alone = ChannelSpec::new(CoreId(0), CoreId(0), 4096);
    assert_eq!(homes(&placed(&topology, &alone, Policy::Worst)), (vec![0], 0, 0));
    let bound = place(&topology, &alone, Rule::Bind(NodeId(1)), 1, &Load::default()).unwrap_err();
    assert_eq!(bound.to_string(), "node 1 has no memory that both sides can reach");
}

#[test]
fn random_goes_by_its_seed() {
    let topology = machine(&[(1, true); 8], &uniform(8, 20));
    let spec = ChannelSpec::new(CoreId(0), CoreId(1), 4096);
    let of = |seed| place(&topology, &spec, Policy::Random, seed, &Load::default()).expect("there is memory");
    let all: BTreeSet<_> = (0..200).map(|seed| homes(&of(seed))).collect();
    assert!(all.len() > 100, "{}", all.len());
    assert_eq!(of(7), of(7));
}

#[test]
fn rules_have_names() {
    assert_eq!(Rule::Bind(NodeId(3)).to_string(), "bind(3)");
    assert_eq!(Rule::Preferred(NodeId(3)).to_string(), "preferred(3)");
    for (code, &policy) in (0..).zip(Policy::ALL) {
        assert_eq!(Rule::from(policy).to_string(), policy.word());
        assert_eq!((Policy::from_word(policy.word()), Policy::from_code(code)), (Some(policy), Some(policy)));
        assert_eq!(policy.code(), code);
    }
    assert_eq!(Policy::from_code(Policy::ALL.len() as u8), None);
}

/// Machines of up to 20 nodes, asymmetric, some without cores or memory, some out of reach.
fn machines() -> impl Strategy<Value = Topology> {
    let distance = prop_oneof![20 => 10u8..=254, 1 => Just(255)];
    prop::collection::vec((0u8..4, any::<bool>()), 1..20)
        .prop_filter("a machine has a core", |nodes| nodes.iter().any(|node| node.0 > 0))
        .prop_flat_map(move |nodes| {
            let matrix = prop::collection::vec(distance.clone(), nodes.len() * nodes.len());
            (Just(nodes), matrix)
        })
        .prop_map(|(nodes, matrix)| machine(&nodes, &matrix))
}

fn with_memory(topology: &Topology) -> BTreeSet<NodeId> {
    topology.nodes().iter().filter(|node| !node.memory.is_empty()).map(|node| node.id).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn every_placement_holds_together(
        topology in machines(),
        cores in any::<[prop::sample::Index; 3]>(),
        bytes in prop_oneof![Just(0), 1u64..1 << 24],
        busy in prop::collection::vec((0u32..20, 0u64..1 << 22, 0u32..9), 0..6),
        seed in any::<u64>(),
    ) {
        let [producer, consumer, creator] = cores.map(|core| CoreId(core.index(topology.cores().len()) as u32));
        let spec = ChannelSpec { creator, ..ChannelSpec::new(producer, consumer, bytes) };
        let mut load = Load::default();
        for (node, free, channels) in busy {
            load.set(NodeId(node), NodeLoad { free, channels });
        }
        let nodes: BTreeSet<_> = with_memory(&topology);
        let reaches = |core, node| {
            topology.distance(topology.node_of(core).unwrap(), node).unwrap() != Distance::UNREACHABLE
        };
        let usable: BTreeSet<_> =
            nodes.iter().copied().filter(|&node| reaches(producer, node) && reaches(consumer, node)).collect();
        let bound = Rule::Bind(NodeId(seed as u32 % 20));
        let preferred = Rule::Preferred(NodeId(seed as u32 % 20));
        let rules = Policy::ALL.iter().map(|&policy| Rule::from(policy)).chain([bound, preferred]);
        let worst = place(&topology, &spec, Policy::Worst, seed, &load);
        for rule in rules {
            let placement = match place(&topology, &spec, rule, seed, &load) {
                Ok(placement) => placement,
                Err(PlaceError::Full { node, needed, free }) => {
                    prop_assert!(free < needed && usable.contains(&node));
                    continue;
                }
                Err(PlaceError::NoMemory { .. }) => {
                    prop_assert!(usable.is_empty());
                    continue;
                }
                Err(PlaceError::Unusable(node)) => {
                    prop_assert!(rule == bound && !usable.contains(&node));
                    continue;
                }
                Err(PlaceError::NoNode(node)) => {
                    prop_assert!(topology.node(node).is_none());
                    continue;
                }
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            };
            // Every node named exists, has memory, and is in reach.
            let pieces = &placement.data;
            let named = pieces.iter().map(|piece| piece.node).chain([placement.forward, placement.backward]);
            prop_assert!(named.clone().all(|node| usable.contains(&node)), "{}", placement.why());
            // The pool is as large as asked for, in whole pages.
            prop_assert!(pieces.len() <= MAX_PIECES);
            prop_assert!(pieces.iter().all(|piece| piece.bytes > 0 && piece.bytes % PAGE_SIZE == 0));
            prop_assert_eq!(pieces.iter().map(|piece| piece.bytes).sum::<u64>(), bytes.next_multiple_of(PAGE_SIZE));
            // There is room.
            for node in named {
                let rings = [placement.forward, placement.backward].iter().filter(|&&at| at == node).count() as u64;
                let data: u64 = pieces.iter().filter(|piece| piece.node == node).map(|piece| piece.bytes).sum();
                prop_assert!(rings * spec.ring + data <= load.get(node).free);
            }
            if let Ok(worst) = &worst {
                prop_assert!(placement.predicted_cost <= worst.predicted_cost, "{}", placement.why());
            }
            if let Ok(auto) = place(&topology, &spec, Policy::Auto, seed, &load)
                && let Rule::Named(policy) = rule
                && policy.is_for_use()
            {
                prop_assert!(auto.predicted_cost <= placement.predicted_cost, "{}", auto.why());
            }
            prop_assert_eq!(place(&topology, &spec, rule, seed, &load), Ok(placement));
        }
    }

    /// Where all nodes are alike, a cost depends only on whether the cores share a node.
    #[test]
    fn symmetric_machines_have_symmetric_costs(
        count in 2usize..12,
        remote in 10u8..=254,
        cores in any::<[prop::sample::Index; 4]>(),
        bytes in 0u64..1 << 24,
    ) {
        let topology = machine(&vec![(2, true); count], &uniform(count, remote));
        let [a, b, c, d] = cores.map(|core| CoreId(core.index(count * 2) as u32));
        let apart = |a: CoreId, b: CoreId| topology.node_of(a) != topology.node_of(b);
        // Where there are fewer pages than nodes, it matters which nodes have one.
        let spread = bytes.div_ceil(PAGE_SIZE) >= count as u64;
        let uneven = |policy| matches!(policy, Policy::Interleave | Policy::Auto) && !spread;
        for policy in Policy::ALL.iter().copied().filter(|&policy| policy != Policy::Random && !uneven(policy)) {
            let cost = |a, b| placed(&topology, &ChannelSpec::new(a, b, bytes), policy).predicted_cost;
            prop_assert_eq!(cost(a, b), cost(b, a), "{}", policy);
            if apart(a, b) == apart(c, d) {
                prop_assert_eq!(cost(a, b), cost(c, d), "{}", policy);
            }
        }
    }

    /// Interleaving uses all memory nodes, as far as pages and pieces go, and all about equally.
    #[test]
    fn interleaving_is_even(count in 1usize..40, pages in 1u64..200, producer in any::<prop::sample::Index>()) {
        let shapes: Vec<Shape> = (0..count).map(|node| (1, node % 3 != 1)).collect();
        let topology = machine(&shapes, &uniform(count, 20));
        let producer = CoreId(producer.index(count) as u32);
        let spec = ChannelSpec::new(producer, CoreId(0), pages * PAGE_SIZE);
        let pieces = placed(&topology, &spec, Policy::Interleave).data;
        let nodes: BTreeSet<_> = pieces.iter().map(|piece| piece.node).collect();
        prop_assert_eq!(nodes.len(), pieces.len());
        let most = with_memory(&topology).len().min(MAX_PIECES).min(pages as usize);
        prop_assert_eq!(nodes.len(), most);
        let sizes = || pieces.iter().map(|piece| piece.bytes / PAGE_SIZE);
        prop_assert!(sizes().max().unwrap() - sizes().min().unwrap() <= 1);
    }
}
