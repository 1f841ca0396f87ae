//! [`Topology`]: the cores and nodes of the machine, put together from the [`Facts`].

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use boot_info::{PHYSICAL_LIMIT, PhysAddr, PhysRange};

use crate::complaint::{Complaint, Complaints};
use crate::facts::{CoreState, Distances, Facts, MemoryAffinity};
use crate::id::{ApicId, CoreId, Distance, NodeId, ProximityDomain};

/// The most cores a topology has.
pub const MAX_CORES: usize = 4096;

/// The most nodes a topology has.
pub const MAX_NODES: usize = 256;

/// A core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Core {
    /// Its place in the topology.
    pub id: CoreId,
    /// Its local APIC.
    pub apic: ApicId,
    /// The node it belongs to.
    pub node: NodeId,
    /// Whether it can be started.
    pub state: CoreState,
}

/// A NUMA node. It may have cores without memory, memory without cores, or only memory that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its place in the topology.
    pub id: NodeId,
    /// The number that firmware gave it.
    pub domain: ProximityDomain,
    /// Where its memory is: sorted, disjoint, neighbours merged. The memory map tells which parts there really are.
    pub memory: Vec<PhysRange>,
}

/// The cores and nodes of the machine.
///
/// Cores are numbered densely: the boot core is 0, then come the enabled ones in the order of the MADT, then those
/// that can be plugged in. Nodes are numbered densely in the order of their proximity domains. The same tables always
/// give the same numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    cores: Vec<Core>,
    nodes: Vec<Node>,
    /// Row by row: from the first node to each, and so on.
    distances: Vec<Distance>,
}

impl Topology {
    /// One core on one node that has all memory: what is assumed of a machine that nothing is known about.
    pub fn flat(boot: ApicId) -> Self {
        Self::from_facts(&Facts::default(), boot, &mut Complaints::default())
    }

    /// Puts the facts together; `boot` is the local APIC of the core that runs this.
    pub fn from_facts(facts: &Facts, boot: ApicId, complaints: &mut Complaints) -> Self {
        let domains = domains(facts, complaints);
        let node_of = |domain: ProximityDomain| match domains.binary_search(&domain) {
            Ok(place) => NodeId(place as u32),
            // Of more domains than there can be nodes.
            Err(_) => NodeId(0),
        };
        let cores = cores(facts, boot, node_of, complaints);
        let mut memory = memory(facts, &domains, complaints);
        let nodes: Vec<_> = (0..)
            .map(NodeId)
            .zip(&domains)
            .map(|(id, &domain)| Node { id, domain, memory: memory.remove(&domain).unwrap_or_default() })
            .collect();
        let distances = distances(&domains, facts.distances.as_ref(), complaints);
        let mut topology = Self { cores, nodes, distances };
        topology.adopt(memory);
        topology
    }

    /// The cores, by [`CoreId`]; at least the boot core.
    pub fn cores(&self) -> &[Core] {
        &self.cores
    }

    /// The cores that can be started, by [`CoreId`]; at least the boot core.
    pub fn enabled_cores(&self) -> &[Core] {
        let enabled = self.cores.partition_point(|core| core.state == CoreState::Enabled);
        &self.cores[..enabled]
    }

    /// The nodes, by [`NodeId`]; at least one.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The core of this number, if there is one.
    pub fn core(&self, core: CoreId) -> Option<&Core> {
        self.cores.get(core.0 as usize)
    }

    /// The node of this number, if there is one.
    pub fn node(&self, node: NodeId) -> Option<&Node> {
        self.nodes.get(node.0 as usize)
    }

    /// The core with this local APIC, if there is one.
    pub fn core_by_apic(&self, apic: ApicId) -> Option<&Core> {
        self.cores.iter().find(|core| core.apic == apic)
    }

    /// The node that a core belongs to; `None` if there is no such core.
    pub fn node_of(&self, core: CoreId) -> Option<NodeId> {
        self.core(core).map(|core| core.node)
    }

    /// The cores of a node in ascending order, none if it has none or does not exist.
    pub fn cores_of(&self, node: NodeId) -> impl Iterator<Item = CoreId> + '_ {
        self.cores.iter().filter(move |core| core.node == node).map(|core| core.id)
    }

    /// The node whose memory is at this address; `None` if firmware did not say.
    pub fn node_of_memory(&self, address: PhysAddr) -> Option<NodeId> {
        let has = |node: &&Node| node.memory.iter().any(|range| range.contains(address));
        self.nodes.iter().find(has).map(|node| node.id)
    }

    /// How far the memory of `to` is from `from`; `None` if either does not exist. It need not be the same back.
    pub fn distance(&self, from: NodeId, to: NodeId) -> Option<Distance> {
        self.node(from).and(self.node(to))?;
        self.distances.get(from.0 as usize * self.nodes.len() + to.0 as usize).copied()
    }

    /// The node with the nearest memory to `node`, which is itself if it has any; of several the first. `None` if
    /// `node` does not exist or can reach no memory.
    pub fn nearest_memory(&self, node: NodeId) -> Option<NodeId> {
        self.memory_by_distance(node).first().copied()
    }

    /// The nodes with memory that `node` can reach, from the nearest to the farthest; of the same distance in
    /// ascending order. None if `node` does not exist.
    pub fn memory_by_distance(&self, node: NodeId) -> Vec<NodeId> {
        let mut reachable: Vec<_> = self
            .nodes
            .iter()
            .filter(|other| !other.memory.is_empty())
            .filter_map(|other| Some((self.distance(node, other.id)?, other.id)))
            .filter(|&(distance, _)| distance != Distance::UNREACHABLE)
            .collect();
        // A node is not farther from its memory than from that of a neighbour at distance 10.
        reachable.sort_by_key(|&(distance, other)| (distance, other != node, other));
        reachable.into_iter().map(|(_, other)| other).collect()
    }

    /// Gives the memory of domains that became no node to the first one.
    fn adopt(&mut self, rest: BTreeMap<ProximityDomain, Vec<PhysRange>>) {
        if let Some(first) = self.nodes.first_mut()
            && !rest.is_empty()
        {
            first.memory.extend(rest.into_values().flatten());
            merge(&mut first.memory);
        }
    }
}

/// The proximity domains that processors or memory are in, sorted; at least one, at most [`MAX_NODES`].
fn domains(facts: &Facts, complaints: &mut Complaints) -> Vec<ProximityDomain> {
    let of_processors = facts.processor_affinities.iter().map(|affinity| affinity.domain);
    let of_memory = facts.memory_affinities.iter().map(|affinity| affinity.domain);
    let domains: BTreeSet<_> = of_processors.chain(of_memory).collect();
    if domains.len() > MAX_NODES {
        complaints.add(Complaint::TooManyNodes { count: domains.len() });
    }
    if domains.is_empty() {
        return vec![ProximityDomain(0)];
    }
    domains.into_iter().take(MAX_NODES).collect()
}

fn cores(
    facts: &Facts,
    boot: ApicId,
    node_of: impl Fn(ProximityDomain) -> NodeId,
    complaints: &mut Complaints,
) -> Vec<Core> {
    let mut states = BTreeMap::new();
    let mut order = vec![boot];
    for processor in &facts.processors {
        if states.contains_key(&processor.apic) {
            complaints.add(Complaint::RepeatedCore(processor.apic));
            continue;
        }
        states.insert(processor.apic, processor.state);
        if processor.apic != boot {
            order.push(processor.apic);
        }
    }
    match states.insert(boot, CoreState::Enabled) {
        Some(CoreState::Enabled) => {}
        Some(CoreState::HotPluggable) => complaints.add(Complaint::BootCoreDisabled(boot)),
        // Where there are no processors at all, the table is missing, which was said before.
        None if facts.processors.is_empty() => {}
        None => complaints.add(Complaint::BootCoreUnlisted(boot)),
    }
    // The sort is stable: within a state the order stays that of the table.
    order.sort_by_key(|apic| states.get(apic).copied());
    if order.len() > MAX_CORES {
        complaints.add(Complaint::TooManyCores { count: order.len() });
        order.truncate(MAX_CORES);
    }
    let domains = domains_of_processors(facts, complaints);
    let core = |(id, apic): (u32, ApicId)| {
        let domain = domains.get(&apic);
        if domain.is_none() && !domains.is_empty() {
            complaints.add(Complaint::CoreWithoutNode(apic));
        }
        Core {
            id: CoreId(id),
            apic,
            node: domain.map_or(NodeId(0), |&domain| node_of(domain)),
            state: states.get(&apic).copied().unwrap_or(CoreState::Enabled),
        }
    };
    (0..).zip(order).map(core).collect()
}

fn domains_of_processors(facts: &Facts, complaints: &mut Complaints) -> BTreeMap<ApicId, ProximityDomain> {
    let mut domains = BTreeMap::new();
    for affinity in &facts.processor_affinities {
        let kept = *domains.entry(affinity.apic).or_insert(affinity.domain);
        if kept != affinity.domain {
            complaints.add(Complaint::CoreOnTwoNodes { apic: affinity.apic, kept, dropped: affinity.domain });
        }
    }
    domains
}

/// The memory of each domain, sorted, disjoint and merged. All is the first domain's if nothing else is known.
fn memory(
    facts: &Facts,
    domains: &[ProximityDomain],
    complaints: &mut Complaints,
) -> BTreeMap<ProximityDomain, Vec<PhysRange>> {
    if facts.memory_affinities.is_empty() {
        if !facts.processor_affinities.is_empty() {
            complaints.add(Complaint::NoMemory);
        }
        let all = vec![PhysRange::new(PhysAddr::new(0), PHYSICAL_LIMIT)];
        return domains.first().map(|&first| (first, all)).into_iter().collect();
    }
    // What was accepted, by the end of each range.
    let mut taken: BTreeMap<PhysAddr, (PhysRange, ProximityDomain)> = BTreeMap::new();
    for &MemoryAffinity { range, domain } in &facts.memory_affinities {
        add_memory(&mut taken, range, domain, complaints);
    }
    let mut memory: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (range, domain) in taken.into_values() {
        memory.entry(domain).or_default().push(range);
    }
    memory.values_mut().for_each(merge);
    memory
}

/// Adds a range to disjoint ranges, unless a part of it belongs to another domain. Ranges of the same domain that it
/// touches become one with it, so that each is looked at once.
fn add_memory(
    taken: &mut BTreeMap<PhysAddr, (PhysRange, ProximityDomain)>,
    range: PhysRange,
    domain: ProximityDomain,
    complaints: &mut Complaints,
) {
    let mut whole = range;
    let mut absorbed = Vec::new();
    for (&end, &(other, kept)) in taken.range(range.base()..) {
        if other.base() > range.end() {
            break;
        }
        if kept == domain {
            whole = PhysRange::between(whole.base().min(other.base()), whole.end().max(other.end()));
            absorbed.push(end);
        } else if other.overlaps(range) {
            complaints.add(Complaint::MemoryOnTwoNodes { range, kept, dropped: domain });
            return;
        }
    }
    for end in absorbed {
        taken.remove(&end);
    }
    taken.insert(whole.end(), (whole, domain));
}

/// Sorts disjoint ranges and makes one of those that touch.
fn merge(ranges: &mut Vec<PhysRange>) {
    ranges.sort();
    ranges.dedup_by(|next, last| {
        let touch = next.base() <= last.end();
        if touch {
            *last = PhysRange::between(last.base(), last.end().max(next.end()));
        }
        touch
    });
}

/// The distances between the domains, row by row.
fn distances(
    domains: &[ProximityDomain],
    matrix: Option<&Distances>,
    complaints: &mut Complaints,
) -> Vec<Distance> {
    let count = domains.len();
    let mut distances = vec![Distance::REMOTE; count * count];
    for (row, &from) in distances.chunks_mut(count).zip(domains) {
        if let Some(matrix) = matrix
            && from.0 >= matrix.localities()
        {
            complaints.add(Complaint::NoDistances(from));
        }
        for (place, &to) in row.iter_mut().zip(domains) {
            let given = matrix.and_then(|matrix| matrix.get(from, to));
            *place = match given {
                None if from == to => Distance::LOCAL,
                None => Distance::REMOTE,
                Some(Distance::LOCAL) => Distance::LOCAL,
                Some(distance) if from == to => {
                    complaints.add(Complaint::BadLocalDistance { domain: from, distance });
                    Distance::LOCAL
                }
                Some(distance) if distance < Distance::LOCAL => {
                    complaints.add(Complaint::BadDistance { from, to, distance });
                    Distance::REMOTE
                }
                Some(distance) => distance,
            };
        }
    }
    for (from, &a) in domains.iter().enumerate() {
        for (to, &b) in domains.iter().enumerate().skip(from + 1) {
            let (there, back) = (distances[from * count + to], distances[to * count + from]);
            if there != back {
                complaints.add(Complaint::Asymmetric { a, b, there, back });
            }
        }
    }
    distances
}

/// Sorted numbers as ranges, `0-3,8`.
struct Ranges<'a>(&'a [CoreId]);

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("-");
        }
        for (index, run) in self.0.chunk_by(|a, b| a.0 + 1 == b.0).enumerate() {
            let comma = if index > 0 { "," } else { "" };
            match run {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                _ => write!(f, "{comma}{}", run[0])?,
            }
        }
        Ok(())
    }
}

/// A table of the nodes, one line each: cores, distances, memory.
impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let (enabled, nodes) = (self.enabled_cores().len(), self.nodes.len());
        write!(f, "{enabled} core{} on {nodes} node{}", plural(enabled), plural(nodes))?;
        match self.cores.len() - enabled {
            0 => writeln!(f)?,
            absent => writeln!(f, ", room for {absent} more core{}", plural(absent))?,
        }
        for node in &self.nodes {
            let cores: Vec<_> = self.cores_of(node.id).collect();
            write!(f, "node {}: cores {}; distances", node.id, Ranges(&cores))?;
            for other in &self.nodes {
                write!(f, " {}", self.distance(node.id, other.id).unwrap_or(Distance::UNREACHABLE))?;
            }
            write!(f, "; memory")?;
            if node.memory.is_empty() {
                write!(f, " -")?;
            }
            for range in &node.memory {
                write!(f, " {range}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
