//! A [`Topology`] in words, for a domain that did not read firmware's tables itself.
//!
//! | words | contents |
//! |---|---|
//! | 1 | [`MAGIC`] |
//! | 1 | number of cores, number of nodes << 32 |
//! | one per core | APIC id, node << 32, 1 << 63 if it can only be plugged in |
//! | per node | proximity domain, number of memory ranges << 32; then base and length of each range |
//! | per node, next | node that its memory is attached to (all ones: none), number of caches << 32; then of each cache its size, and level, associativity << 8, writes << 16, line << 32 |
//! | next | the distances, row by row, eight to a word |
//! | 1 | bits of threads, bits of cores and threads << 8, number of caches of a core << 16, 1 << 32 if routes follow |
//! | per cache | its size, and level, kind << 8, shared bits << 16, line << 32 |
//! | rest | the routes, row by row: latency of loads, their bandwidth << 32; the same of stores; 0 is unknown |
//!
//! The decoder believes nothing: what it returns holds all that [`Topology`] promises.

use alloc::vec::Vec;
use core::fmt;

use boot_info::{PHYSICAL_LIMIT, PhysAddr, PhysRange};

use crate::cost::Picoseconds;
use crate::cpuid::{ApicFields, CacheKind, CoreCache, MAX_CACHES, MAX_LINE};
use crate::facts::CoreState;
use crate::hmat::{CacheAssociativity, CacheWrites, MemoryCache};
use crate::id::{ApicId, CoreId, Distance, NodeId, ProximityDomain};
use crate::topology::{Core, MAX_CORES, MAX_NODES, Node, Route, Speed, Topology};

/// The first word: "topology" in ASCII, and a version in it.
const MAGIC: u64 = u64::from_le_bytes(*b"topolog2");

const HOT_PLUGGABLE: u64 = 1 << 63;
const DISTANCES_PER_WORD: usize = 8;
const NO_NODE: u32 = u32::MAX;
const ROUTES: u64 = 1 << 32;

/// Why words are no topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadTopology {
    /// The first word is not that of a topology of this version.
    Magic,
    /// There are fewer words than the counts say.
    Short,
    /// There are more words than the counts say.
    Long,
    /// There is no core, or there are too many.
    CoreCount(u64),
    /// There is no node, or there are too many.
    NodeCount(u64),
    /// This core is on a node that does not exist.
    CoreNode(CoreId),
    /// This core can be started and comes after one that can only be plugged in, or it is the boot core and cannot be.
    CoreState(CoreId),
    /// This node's number at firmware is not above that of the node before it.
    NodeOrder(NodeId),
    /// The memory ranges of this node are empty, unsorted, touching or beyond any physical address.
    Memory(NodeId),
    /// Both nodes have this memory.
    Overlap(NodeId, NodeId),
    /// The memory of this node is attached to a node without cores.
    Initiator(NodeId),
    /// The caches at the memory of this node are out of order, or one is none.
    MemoryCache(NodeId),
    /// The distance from the first to the second node is less than can be.
    Distance(NodeId, NodeId),
    /// APIC identifiers cannot be made so.
    ApicFields,
    /// There are too many caches of a core, or one is none.
    CoreCache,
}

impl fmt::Display for BadTopology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("these words are no topology, or one of another version"),
            Self::Short => f.write_str("the words of the topology end too early"),
            Self::Long => f.write_str("there are words behind the topology"),
            Self::CoreCount(count) => write!(f, "a topology of {count} cores"),
            Self::NodeCount(count) => write!(f, "a topology of {count} nodes"),
            Self::CoreNode(core) => write!(f, "core {core} is on a node that does not exist"),
            Self::CoreState(core) => write!(f, "core {core} is out of order"),
            Self::NodeOrder(node) => write!(f, "node {node} is out of order"),
            Self::Memory(node) => write!(f, "the memory ranges of node {node} are out of order"),
            Self::Overlap(a, b) => write!(f, "nodes {a} and {b} have the same memory"),
            Self::Initiator(node) => write!(f, "the memory of node {node} is attached to no cores"),
            Self::MemoryCache(node) => write!(f, "the caches at the memory of node {node} cannot be"),
            Self::Distance(from, to) => write!(f, "the distance from node {from} to node {to} is too short"),
            Self::ApicFields => f.write_str("APIC identifiers of more bits than there are"),
            Self::CoreCache => f.write_str("the caches of a core cannot be"),
        }
    }
}

impl core::error::Error for BadTopology {}

impl Topology {
    /// The topology in words.
    pub fn encode(&self) -> Vec<u64> {
        let mut words = Vec::new();
        words.push(MAGIC);
        words.push(self.cores().len() as u64 | (self.nodes().len() as u64) << 32);
        words.extend(self.cores().iter().map(|core| {
            let state = if core.state == CoreState::Enabled { 0 } else { HOT_PLUGGABLE };
            u64::from(core.apic.0) | u64::from(core.node.0) << 32 | state
        }));
        for node in self.nodes() {
            words.push(u64::from(node.domain.0) | (node.memory.len() as u64) << 32);
            words.extend(node.memory.iter().flat_map(|range| [range.base().as_u64(), range.length()]));
        }
        for node in self.nodes() {
            let initiator = node.initiator.map_or(NO_NODE, |node| node.0);
            words.push(pair(initiator, node.caches.len() as u32));
            words.extend(node.caches.iter().flat_map(|cache| [cache.size, memory_cache_word(cache)]));
        }
        words.extend(self.distances().chunks(DISTANCES_PER_WORD).map(|chunk| {
            let mut bytes = [0; DISTANCES_PER_WORD];
            for (byte, distance) in bytes.iter_mut().zip(chunk) {
                *byte = distance.0;
            }
            u64::from_le_bytes(bytes)
        }));
        let (fields, caches) = (self.apic_fields(), self.caches());
        let bits = u64::from(fields.thread_bits()) | u64::from(fields.package_shift()) << 8;
        let follow = if self.has_routes() { ROUTES } else { 0 };
        words.push(bits | (caches.len() as u64) << 16 | follow);
        words.extend(caches.iter().flat_map(|cache| [cache.size, core_cache_word(cache)]));
        words.extend(self.routes().iter().flat_map(|route| [route.read, route.write].map(speed_word)));
        words
    }

    /// The topology that `words` are, and nothing else.
    ///
    /// # Errors
    /// [`BadTopology`], where they are none.
    pub fn decode(words: &[u64]) -> Result<Topology, BadTopology> {
        let mut words = words.iter().copied();
        let mut next = || words.next().ok_or(BadTopology::Short);
        if next()? != MAGIC {
            return Err(BadTopology::Magic);
        }
        let counts = next()?;
        let (core_count, node_count) = (counts & 0xffff_ffff, counts >> 32);
        if !(1..=MAX_CORES as u64).contains(&core_count) {
            return Err(BadTopology::CoreCount(core_count));
        }
        if !(1..=MAX_NODES as u64).contains(&node_count) {
            return Err(BadTopology::NodeCount(node_count));
        }
        let mut cores: Vec<Core> = Vec::new();
        for id in (0..core_count as u32).map(CoreId) {
            let core = decode_core(id, next()?);
            if u64::from(core.node.0) >= node_count {
                return Err(BadTopology::CoreNode(id));
            }
            let before = cores.last().map_or(CoreState::Enabled, |last| last.state);
            if before > core.state || (id == CoreId::BOOT && core.state != CoreState::Enabled) {
                return Err(BadTopology::CoreState(id));
            }
            cores.push(core);
        }
        let mut nodes: Vec<Node> = Vec::new();
        for id in (0..node_count as u32).map(NodeId) {
            let head = next()?;
            let domain = ProximityDomain(head as u32);
            if nodes.last().is_some_and(|last| last.domain >= domain) {
                return Err(BadTopology::NodeOrder(id));
            }
            let mut memory: Vec<PhysRange> = Vec::new();
            for _ in 0..head >> 32 {
                let (base, length) = (next()?, next()?);
                let after = memory.last().is_none_or(|last| last.end().as_u64() < base);
                let end = base.checked_add(length).filter(|&end| end <= PHYSICAL_LIMIT);
                if !after || length == 0 || end.is_none() {
                    return Err(BadTopology::Memory(id));
                }
                memory.push(PhysRange::new(PhysAddr::new(base), length));
            }
            nodes.push(Node { id, domain, memory, initiator: None, caches: Vec::new() });
        }
        check_disjoint(&nodes)?;
        for node in &mut nodes {
            let (initiator, count) = halves(next()?);
            if initiator != NO_NODE {
                let has_cores = cores.iter().any(|core| core.node.0 == initiator);
                node.initiator = Some(NodeId(initiator));
                has_cores.then_some(()).ok_or(BadTopology::Initiator(node.id))?;
            }
            for _ in 0..count {
                let cache = decode_memory_cache(next()?, next()?).ok_or(BadTopology::MemoryCache(node.id))?;
                if node.caches.last().is_some_and(|last| last.level >= cache.level) {
                    return Err(BadTopology::MemoryCache(node.id));
                }
                node.caches.push(cache);
            }
        }
        let wanted = nodes.len() * nodes.len();
        let mut distances: Vec<Distance> = Vec::new();
        while distances.len() < wanted {
            let left = wanted - distances.len();
            let bytes = next()?.to_le_bytes();
            distances.extend(bytes.into_iter().take(left).map(Distance));
        }
        for (from, row) in distances.chunks(nodes.len()).enumerate() {
            for (to, &distance) in row.iter().enumerate() {
                if distance < Distance::LOCAL || (from == to && distance != Distance::LOCAL) {
                    return Err(BadTopology::Distance(NodeId(from as u32), NodeId(to as u32)));
                }
            }
        }
        let head = next()?;
        let fields =
            ApicFields::new(byte(head, 0).into(), byte(head, 1).into()).ok_or(BadTopology::ApicFields)?;
        let cache_count = (head >> 16) as u16;
        if usize::from(cache_count) > MAX_CACHES || head & !(ROUTES | 0xffff_ffff) != 0 {
            return Err(BadTopology::CoreCache);
        }
        let mut caches: Vec<CoreCache> = Vec::new();
        for _ in 0..cache_count {
            let cache = decode_core_cache(next()?, next()?).ok_or(BadTopology::CoreCache)?;
            if caches.iter().any(|other| (other.level, other.kind) == (cache.level, cache.kind)) {
                return Err(BadTopology::CoreCache);
            }
            caches.push(cache);
        }
        let mut routes: Vec<Route> = Vec::new();
        while head & ROUTES != 0 && routes.len() < wanted {
            routes.push(Route { read: decode_speed(next()?), write: decode_speed(next()?) });
        }
        if words.next().is_some() {
            return Err(BadTopology::Long);
        }
        Ok(Topology::from_parts(cores, nodes, distances, routes, fields, caches))
    }
}

/// No two nodes have the same memory; the ranges of one were checked before.
fn check_disjoint(nodes: &[Node]) -> Result<(), BadTopology> {
    let ranges_of = |node: &Node| node.memory.iter().map(|range| (*range, node.id)).collect::<Vec<_>>();
    let mut ranges: Vec<(PhysRange, NodeId)> = nodes.iter().flat_map(ranges_of).collect();
    ranges.sort();
    match ranges.windows(2).find(|pair| pair[0].0.end() > pair[1].0.base()) {
        Some(pair) => Err(BadTopology::Overlap(pair[0].1, pair[1].1)),
        None => Ok(()),
    }
}

/// Two numbers in a word.
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// The two numbers in a word.
fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

/// One byte of a word.
fn byte(word: u64, index: usize) -> u8 {
    word.to_le_bytes()[index]
}

fn memory_cache_word(cache: &MemoryCache) -> u64 {
    let low = u32::from_le_bytes([cache.level, cache.associativity as u8, cache.writes as u8, 0]);
    pair(low, cache.line.into())
}

fn decode_memory_cache(size: u64, word: u64) -> Option<MemoryCache> {
    let level = byte(word, 0);
    let cache = MemoryCache {
        level,
        size,
        line: u16::try_from(halves(word).1).ok()?,
        associativity: CacheAssociativity::ALL.get(usize::from(byte(word, 1))).copied()?,
        writes: CacheWrites::ALL.get(usize::from(byte(word, 2))).copied()?,
    };
    (level > 0 && size > 0 && byte(word, 3) == 0).then_some(cache)
}

fn core_cache_word(cache: &CoreCache) -> u64 {
    let low = u32::from_le_bytes([cache.level, cache.kind as u8, cache.shared_bits, 0]);
    pair(low, cache.line.into())
}

fn decode_core_cache(size: u64, word: u64) -> Option<CoreCache> {
    let (level, shared_bits) = (byte(word, 0), byte(word, 2));
    let kind = CacheKind::ALL.get(usize::from(byte(word, 1))).copied()?;
    let line = u16::try_from(halves(word).1).ok().filter(|line| (1..=MAX_LINE).contains(line))?;
    let sound = level > 0 && size > 0 && shared_bits <= 32 && byte(word, 3) == 0;
    sound.then_some(CoreCache { level, kind, size, line, shared_bits })
}

fn speed_word(speed: Speed) -> u64 {
    // A latency has 32 bits.
    pair(speed.latency.map_or(0, |latency| latency.0 as u32), speed.bandwidth.unwrap_or(0))
}

fn decode_speed(word: u64) -> Speed {
    let (latency, bandwidth) = halves(word);
    let given = |value| (value != 0).then_some(value);
    Speed { latency: given(latency).map(|latency| Picoseconds(latency.into())), bandwidth: given(bandwidth) }
}

fn decode_core(id: CoreId, word: u64) -> Core {
    let state = if word & HOT_PLUGGABLE == 0 { CoreState::Enabled } else { CoreState::HotPluggable };
    let node = NodeId(((word & !HOT_PLUGGABLE) >> 32) as u32);
    Core { id, apic: ApicId(word as u32), node, state }
}
