//! [`Topology`]: the cores and nodes of the machine, put together from the [`Facts`].

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use boot_info::{PHYSICAL_LIMIT, PhysAddr, PhysRange};

use crate::complaint::{Complaint, Complaints};
use crate::cost::Picoseconds;
use crate::cpuid::{ApicFields, CoreCache};
use crate::facts::{CoreState, Distances, Facts, MemoryAffinity};
use crate::hmat::{Entry, Hmat, Matrix, MemoryCache, Quantity};
use crate::id::{ApicId, CoreId, Distance, NodeId, ProximityDomain};

/// The most cores a topology has.
pub const MAX_CORES: usize = 4096;

/// The most nodes a topology has.
pub const MAX_NODES: usize = 256;

/// What a core does with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// It loads.
    Read,
    /// It stores.
    Write,
}

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
    /// The node whose processors have the memory controller of this node's memory, if firmware says.
    pub initiator: Option<NodeId>,
    /// The caches in front of its memory, by level.
    pub caches: Vec<MemoryCache>,
}

/// Where a core is among the processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The package, also called socket. Not dense.
    pub package: u32,
    /// The core within the package. Not dense.
    pub unit: u32,
    /// The thread within the core: those of one are SMT siblings.
    pub thread: u32,
}

/// How fast something is, as far as firmware says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Speed {
    /// The latency in picoseconds, below 2³², not 0.
    pub latency: Option<Picoseconds>,
    /// The bandwidth in MB/s, not 0.
    pub bandwidth: Option<u32>,
}

/// How fast cores of a node use memory of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Route {
    /// Loads.
    pub read: Speed,
    /// Stores.
    pub write: Speed,
}

impl Route {
    /// How fast such accesses are.
    pub const fn speed(&self, access: Access) -> Speed {
        match access {
            Access::Read => self.read,
            Access::Write => self.write,
        }
    }
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
    /// The same way; empty where firmware says nothing of them.
    routes: Vec<Route>,
    /// How APIC identifiers are made.
    fields: ApicFields,
    /// The caches of each core.
    caches: Vec<CoreCache>,
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
            .map(|(id, &domain)| Node {
                id,
                domain,
                memory: memory.remove(&domain).unwrap_or_default(),
                initiator: None,
                caches: Vec::new(),
            })
            .collect();
        let distances = distances(&domains, facts.distances.as_ref(), complaints);
        let fields = facts.cpuid.fields.unwrap_or(ApicFields::UNKNOWN);
        let caches = facts.cpuid.caches.clone();
        let mut topology = Self { cores, nodes, distances, routes: Vec::new(), fields, caches };
        topology.adopt(memory);
        if let Some(hmat) = &facts.hmat {
            topology.add_hmat(hmat, complaints);
        }
        if let Some(cpuid) = facts.cpuid.apic.filter(|&apic| apic != boot) {
            complaints.add(Complaint::OtherApic { cpuid, boot });
        }
        topology.check_threads(complaints);
        topology
    }

    /// A topology of parts that hold what this type promises.
    pub(crate) fn from_parts(
        cores: Vec<Core>,
        nodes: Vec<Node>,
        distances: Vec<Distance>,
        routes: Vec<Route>,
        fields: ApicFields,
        caches: Vec<CoreCache>,
    ) -> Self {
        Self { cores, nodes, distances, routes, fields, caches }
    }

    /// How fast all nodes use all nodes, row by row; empty where firmware says nothing.
    pub(crate) fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// How the identifiers of local APICs are made.
    pub fn apic_fields(&self) -> ApicFields {
        self.fields
    }

    /// The caches of each core, in the order in which CPUID tells them.
    pub fn caches(&self) -> &[CoreCache] {
        &self.caches
    }

    /// Where a core is among the processors; `None` if there is no such core.
    pub fn position(&self, core: CoreId) -> Option<Position> {
        let Core { apic, .. } = *self.core(core)?;
        let fields = self.fields;
        Some(Position { package: fields.package(apic), unit: fields.unit(apic), thread: fields.thread(apic) })
    }

    /// The packages that there are, in ascending order.
    pub fn packages(&self) -> Vec<u32> {
        let packages: BTreeSet<_> = self.cores.iter().map(|core| self.fields.package(core.apic)).collect();
        packages.into_iter().collect()
    }

    /// The cores that are threads of the same core as this one, itself included, in ascending order; none if there is
    /// no such core.
    pub fn siblings(&self, core: CoreId) -> impl Iterator<Item = CoreId> + '_ {
        let whole = |apic| (self.fields.package(apic), self.fields.unit(apic));
        let own = self.core(core).map(|core| whole(core.apic));
        self.cores.iter().filter(move |other| Some(whole(other.apic)) == own).map(|other| other.id)
    }

    /// The cores that have this cache in common with a core, itself included, in ascending order; none if there is no
    /// such core.
    pub fn sharers(&self, core: CoreId, cache: CoreCache) -> impl Iterator<Item = CoreId> + '_ {
        let own = self.core(core).map(|core| core.apic);
        let shares = move |other: &&Core| own.is_some_and(|own| cache.is_shared(own, other.apic));
        self.cores.iter().filter(shares).map(|other| other.id)
    }

    /// How fast cores of `from` use memory of `to`, as far as the HMAT says; `None` if either does not exist.
    pub fn route(&self, from: NodeId, to: NodeId) -> Option<Route> {
        self.node(from).and(self.node(to))?;
        Some(self.routes.get(self.pair(from, to)).copied().unwrap_or_default())
    }

    /// Whether firmware says how fast anything is.
    pub fn has_routes(&self) -> bool {
        !self.routes.is_empty()
    }

    /// Where the matrices have a pair of nodes that exist.
    fn pair(&self, from: NodeId, to: NodeId) -> usize {
        from.0 as usize * self.nodes.len() + to.0 as usize
    }

    /// The distances, row by row: from the first node to each, and so on.
    pub(crate) fn distances(&self) -> &[Distance] {
        &self.distances
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
        self.distances.get(self.pair(from, to)).copied()
    }

    /// The node with the nearest memory to `node`, which is itself if it has any; of several the first. `None` if
    /// `node` does not exist or can reach no memory.
    pub fn nearest_memory(&self, node: NodeId) -> Option<NodeId> {
        self.memory_by_distance(node).first().copied()
    }

    /// The nodes with memory that `node` can reach, from the nearest to the farthest; of the same distance by the
    /// latency of loads, if known, and then in ascending order. None if `node` does not exist.
    pub fn memory_by_distance(&self, node: NodeId) -> Vec<NodeId> {
        let mut reachable: Vec<_> = self
            .nodes
            .iter()
            .filter(|other| !other.memory.is_empty() && self.reaches(node, other.id))
            .map(|other| other.id)
            .collect();
        self.sort_by_nearness(node, &mut reachable);
        reachable
    }

    /// Whether cores of `from` can use memory of `to`; not if either does not exist.
    pub fn reaches(&self, from: NodeId, to: NodeId) -> bool {
        self.distance(from, to).is_some_and(|distance| distance != Distance::UNREACHABLE)
    }

    /// Sorts nodes by [`Self::memory_by_distance`]'s order.
    pub(crate) fn sort_by_nearness(&self, node: NodeId, nodes: &mut [NodeId]) {
        nodes.sort_by_key(|&other| {
            let latency = self.route(node, other).and_then(|route| route.read.latency);
            // A node is not farther from its memory than from that of a neighbour at distance 10.
            (self.distance(node, other), other != node, latency.is_none(), latency, other)
        });
    }

    /// Takes over what the HMAT says of nodes that there are.
    fn add_hmat(&mut self, hmat: &Hmat, complaints: &mut Complaints) {
        let ids: BTreeMap<_, _> = self.nodes.iter().map(|node| (node.domain, node.id)).collect();
        let mut strangers = BTreeSet::new();
        let mut id_of = |domain, complaints: &mut Complaints| {
            let id = ids.get(&domain).copied();
            if id.is_none() && strangers.insert(domain) {
                complaints.add(Complaint::StrangeDomain(domain));
            }
            id
        };
        for attachment in &hmat.attachments {
            let Some(memory) = id_of(attachment.memory, complaints) else { continue };
            let Some(domain) = attachment.initiator else { continue };
            let Some(initiator) = id_of(domain, complaints) else { continue };
            let known = self.nodes[memory.0 as usize].initiator;
            if self.cores_of(initiator).next().is_none() || known.is_some_and(|known| known != initiator) {
                complaints.add(Complaint::BadAttachment { memory: attachment.memory, initiator: domain });
                continue;
            }
            self.nodes[memory.0 as usize].initiator = Some(initiator);
        }
        for given in &hmat.caches {
            let Some(id) = id_of(given.domain, complaints) else { continue };
            let (domain, level) = (given.domain, given.cache.level);
            let caches = &mut self.nodes[id.0 as usize].caches;
            if caches.iter().any(|cache| cache.level == level) {
                complaints.add(Complaint::RepeatedMemoryCache { domain, level });
                continue;
            }
            caches.push(given.cache);
            caches.sort_by_key(|cache| cache.level);
        }
        let whole = |matrix: &&Matrix| matrix.hierarchy == 0;
        for matrix in hmat.matrices.iter().filter(whole) {
            for &domain in matrix.initiators().iter().chain(matrix.targets()) {
                id_of(domain, complaints);
            }
        }
        let mut values = BTreeMap::new();
        for matrix in hmat.matrices.iter().filter(whole) {
            self.collect(matrix, &ids, &mut values, complaints);
        }
        self.add_values(&values);
        self.check_latencies(complaints);
    }

    /// Collects the values of a matrix, and marks what cannot be reached.
    fn collect(
        &mut self,
        matrix: &Matrix,
        ids: &BTreeMap<ProximityDomain, NodeId>,
        values: &mut BTreeMap<(Quantity, usize), u32>,
        complaints: &mut Complaints,
    ) {
        let quantity = matrix.quantity;
        let mut impossible = 0;
        for (from, to, entry) in matrix.entries() {
            let (Some(&a), Some(&b)) = (ids.get(&from), ids.get(&to)) else { continue };
            let pair = self.pair(a, b);
            match entry {
                Entry::Unknown => {}
                // A node has its memory.
                Entry::Unreachable if a == b => impossible += 1,
                Entry::Unreachable if self.distances[pair] == Distance::UNREACHABLE => {}
                Entry::Unreachable => {
                    self.distances[pair] = Distance::UNREACHABLE;
                    complaints.add(Complaint::Unreachable { from, to });
                }
                Entry::Impossible => impossible += 1,
                Entry::Value(dropped) => {
                    let kept = *values.entry((quantity, pair)).or_insert(dropped);
                    if kept != dropped {
                        complaints.add(Complaint::TwoValues { quantity, from, to, kept, dropped });
                    }
                }
            }
        }
        if impossible > 0 {
            let offset = matrix.offset;
            complaints.add(Complaint::ImpossibleValues { quantity, offset, count: impossible });
        }
    }

    /// Makes the routes of values by quantity and pair. What is said of loads or stores alone goes before what is said
    /// of both.
    fn add_values(&mut self, values: &BTreeMap<(Quantity, usize), u32>) {
        if values.is_empty() {
            return;
        }
        self.routes = vec![Route::default(); self.distances.len()];
        for (pair, route) in self.routes.iter_mut().enumerate() {
            let value =
                |special, both| values.get(&(special, pair)).or_else(|| values.get(&(both, pair))).copied();
            let speed = |latency, bandwidth| Speed {
                latency: value(latency, Quantity::AccessLatency).map(|value| Picoseconds(value.into())),
                bandwidth: value(bandwidth, Quantity::AccessBandwidth),
            };
            route.read = speed(Quantity::ReadLatency, Quantity::ReadBandwidth);
            route.write = speed(Quantity::WriteLatency, Quantity::WriteBandwidth);
        }
    }

    /// Complains where what is farther by distance is nearer by latency; once for each node that looks.
    fn check_latencies(&self, complaints: &mut Complaints) {
        for from in &self.nodes {
            let mut known: Vec<(Distance, Picoseconds, ProximityDomain)> = self
                .nodes
                .iter()
                .filter(|to| self.reaches(from.id, to.id))
                .filter_map(|to| {
                    let latency = self.route(from.id, to.id)?.read.latency?;
                    Some((self.distance(from.id, to.id)?, latency, to.domain))
                })
                .collect();
            known.sort();
            // The slowest of those nearer than the ones looked at.
            let mut slowest: Option<(Picoseconds, ProximityDomain)> = None;
            for alike in known.chunk_by(|a, b| a.0 == b.0) {
                let (Some(&(_, fastest, far)), Some(&(_, last, domain))) = (alike.first(), alike.last())
                else {
                    continue;
                };
                if let Some((latency, near)) = slowest
                    && fastest < latency
                {
                    complaints.add(Complaint::LatencyAgainstDistance { from: from.domain, near, far });
                    break;
                }
                slowest = slowest.max(Some((last, domain)));
            }
        }
    }

    /// Complains of threads of one core on two nodes.
    fn check_threads(&self, complaints: &mut Complaints) {
        let mut first = BTreeMap::new();
        for core in &self.cores {
            let whole = (self.fields.package(core.apic), self.fields.unit(core.apic));
            let &mut (node, apic) = first.entry(whole).or_insert((core.node, core.apic));
            if node != core.node {
                complaints.add(Complaint::ThreadsOnTwoNodes { a: apic, b: core.apic });
            }
        }
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

/// Cores in ascending order, shown as ranges: `0-3,8`, and `-` for none.
#[derive(Clone, Copy, Debug)]
pub struct CoreList<'a>(pub &'a [CoreId]);

impl fmt::Display for CoreList<'_> {
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
            write!(f, "node {}: cores {}; distances", node.id, CoreList(&cores))?;
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
