//! [`place`]: on which nodes the parts of a channel are to lie.
//!
//! A channel has a producer and a consumer, and three parts that are placed apart: the *data* pool, the *forward* ring,
//! which the producer writes and the consumer polls, and the *backward* ring, which the consumer writes and the
//! producer polls. A [`Rule`] says where each is wanted. A node without memory stands for the nearest one that has some
//! and that both sides can reach; [`Placement::why`] says so. A node without room is an error, except where the rule
//! itself names what to fall back to.
//!
//! All of this is a pure function: the same facts and arguments always give the same placement.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use boot_info::PAGE_SIZE;

use crate::cost::{Load, Model, Picoseconds};
use crate::id::{CoreId, Distance, NodeId};
use crate::policy::{Policy, Rule};
use crate::topology::{Access, Topology};

/// The most pieces that a data pool is spread over.
pub const MAX_PIECES: usize = 16;

/// A channel to be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelSpec {
    /// The core that writes the data and the forward ring.
    pub producer: CoreId,
    /// The core that reads the data and writes the backward ring.
    pub consumer: CoreId,
    /// The core that asks for the channel.
    pub creator: CoreId,
    /// The size of the data pool in bytes; it is rounded up to whole pages. Without a pool: 0.
    pub bytes: u64,
    /// The bytes that one transfer moves, which is what the predicted cost is about.
    pub transfer: u64,
    /// The size of each ring in bytes.
    pub ring: u64,
}

impl ChannelSpec {
    /// A channel with a pool of so many bytes, all of which one transfer moves, made by its producer, with rings of a
    /// page each.
    pub const fn new(producer: CoreId, consumer: CoreId, bytes: u64) -> Self {
        Self { producer, consumer, creator: producer, bytes, transfer: bytes, ring: PAGE_SIZE }
    }
}

/// A part of a data pool that lies on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The node.
    pub node: NodeId,
    /// Its size in bytes: whole pages, not 0.
    pub bytes: u64,
}

/// Where the parts of a channel are to lie. Every node named has memory that both sides can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The data pool, piece after piece, at most [`MAX_PIECES`]; none where there is no pool.
    pub data: Vec<Piece>,
    /// The forward ring.
    pub forward: NodeId,
    /// The backward ring.
    pub backward: NodeId,
    /// What one transfer costs in the model of [`crate::cost`].
    pub predicted_cost: Picoseconds,
    why: String,
}

impl Placement {
    /// The rule, the facts and the predicted cost, on one line for people.
    pub fn why(&self) -> &str {
        &self.why
    }
}

/// Why a channel cannot be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceError {
    /// There is no such core.
    NoCore(CoreId),
    /// There is no such node.
    NoNode(NodeId),
    /// No node has memory that the cores of both nodes can reach.
    NoMemory {
        /// The producer's node.
        producer: NodeId,
        /// The consumer's node.
        consumer: NodeId,
    },
    /// The only node that the rule allows has no memory that both sides can reach.
    Unusable(NodeId),
    /// A node has less room than its parts of the channel need.
    Full {
        /// The node.
        node: NodeId,
        /// Bytes that are needed there.
        needed: u64,
        /// Bytes that can be had there.
        free: u64,
    },
    /// The pool is larger than any memory.
    TooLarge {
        /// Its size in bytes.
        bytes: u64,
    },
}

impl fmt::Display for PlaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCore(core) => write!(f, "there is no core {core}"),
            Self::NoNode(node) => write!(f, "there is no node {node}"),
            Self::NoMemory { producer, consumer } => {
                write!(f, "no memory can be reached from both node {producer} and node {consumer}")
            }
            Self::Unusable(node) => write!(f, "node {node} has no memory that both sides can reach"),
            Self::Full { node, needed, free } => {
                write!(f, "node {node} has {free} bytes left, {needed} are needed")
            }
            Self::TooLarge { bytes } => write!(f, "a pool of {bytes} bytes is larger than any memory"),
        }
    }
}

impl core::error::Error for PlaceError {}

/// Places a channel.
///
/// # Errors
/// A core or node that does not exist, memory that cannot be reached or has no room.
pub fn place(
    topology: &Topology,
    spec: &ChannelSpec,
    rule: impl Into<Rule>,
    seed: u64,
    load: &Load,
) -> Result<Placement, PlaceError> {
    let machine = Machine::new(topology, spec, load)?;
    let rule = rule.into();
    match rule {
        Rule::Named(Policy::Auto) => machine.cheapest(seed),
        Rule::Preferred(node) => machine.preferred(node),
        Rule::Bind(_) | Rule::Named(_) => {
            let mut notes = String::new();
            let homes = machine.homes(rule, seed, &mut notes)?;
            machine.placed(rule, homes, notes)
        }
    }
}

/// What a policy that is added can look at; see `doc/tutorials/first-policy.md`.
#[allow(dead_code, reason = "the policies of this crate look at the machine itself")]
pub(crate) struct Site<'a> {
    /// The node of who writes the data and the forward ring.
    pub(crate) producer: NodeId,
    /// The node of who reads the data and writes the backward ring.
    pub(crate) consumer: NodeId,
    /// The node of who asks for the channel.
    pub(crate) creator: NodeId,
    /// Nodes with memory that both sides can reach, in ascending order; at least one.
    pub(crate) nodes: &'a [NodeId],
    /// Relative distances: 10 is local.
    pub(crate) distances: &'a dyn Fn(NodeId, NodeId) -> u8,
}

#[allow(dead_code, reason = "as the type")]
impl Site<'_> {
    /// How far the memory of one node is from another: 10 on the node itself.
    pub(crate) fn distance(&self, from: NodeId, to: NodeId) -> u32 {
        (self.distances)(from, to).into()
    }
}

/// The nodes of the parts, before sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Homes {
    /// Of the pool's pieces, at most [`MAX_PIECES`]; where there is none, the pool lies with the forward ring.
    pub(crate) data: Vec<NodeId>,
    pub(crate) forward: NodeId,
    pub(crate) backward: NodeId,
}

impl Homes {
    /// Everything on one node.
    pub(crate) fn all(node: NodeId) -> Self {
        Self::of(node, node, node)
    }

    /// The pool in one piece, and the two rings.
    pub(crate) fn of(data: NodeId, forward: NodeId, backward: NodeId) -> Self {
        Self { data: vec![data], forward, backward }
    }
}

/// A machine with a channel in it.
struct Machine<'a> {
    model: Model<'a>,
    spec: &'a ChannelSpec,
    producer: NodeId,
    consumer: NodeId,
    creator: NodeId,
    /// Pages of the pool.
    pages: u64,
    /// Nodes with memory that both sides can reach, in ascending order; at least one.
    usable: Vec<NodeId>,
}

impl<'a> Machine<'a> {
    fn new(topology: &'a Topology, spec: &'a ChannelSpec, load: &'a Load) -> Result<Self, PlaceError> {
        let node_of = |core| topology.node_of(core).ok_or(PlaceError::NoCore(core));
        let (producer, consumer) = (node_of(spec.producer)?, node_of(spec.consumer)?);
        let usable: Vec<_> = topology
            .nodes()
            .iter()
            .filter(|node| !node.memory.is_empty())
            .map(|node| node.id)
            .filter(|&node| topology.reaches(producer, node) && topology.reaches(consumer, node))
            .collect();
        if usable.is_empty() {
            return Err(PlaceError::NoMemory { producer, consumer });
        }
        let pages = spec.bytes.div_ceil(PAGE_SIZE);
        if pages.checked_mul(PAGE_SIZE).is_none() {
            return Err(PlaceError::TooLarge { bytes: spec.bytes });
        }
        let creator = node_of(spec.creator)?;
        Ok(Self { model: Model { topology, load }, spec, producer, consumer, creator, pages, usable })
    }

    /// Where a rule that does not depend on what is free wants the parts.
    fn homes(&self, rule: Rule, seed: u64, notes: &mut String) -> Result<Homes, PlaceError> {
        let policy = match rule {
            Rule::Named(policy) => policy,
            Rule::Bind(node) | Rule::Preferred(node) => return self.usable(node).map(Homes::all),
        };
        let mut near = |node| self.near(node, notes);
        Ok(match policy {
            Policy::Producer => Homes::all(near(self.producer)),
            Policy::Consumer => Homes::all(near(self.consumer)),
            Policy::Creator => Homes::all(near(self.creator)),
            Policy::SplitPoller | Policy::Auto => {
                let producer = near(self.producer);
                Homes::of(producer, near(self.consumer), producer)
            }
            Policy::SplitWriter => {
                let producer = near(self.producer);
                Homes::of(producer, producer, near(self.consumer))
            }
            Policy::ConsumerData => {
                let consumer = near(self.consumer);
                Homes::of(consumer, consumer, near(self.producer))
            }
            Policy::Interleave => {
                let producer = near(self.producer);
                let data = self.in_turn(producer);
                Homes { data, forward: near(self.consumer), backward: producer }
            }
            Policy::Worst => Homes::of(
                self.dearest(|node| self.data_cost(node)),
                self.dearest(|node| self.forward_cost(node)),
                self.dearest(|node| self.backward_cost(node)),
            ),
            Policy::Random => {
                let mut random = SplitMix(seed);
                let mut any = || self.usable[random.below(self.usable.len())];
                Homes::of(any(), any(), any())
            }
        })
    }

    /// What a policy that is added wants, as far as it can be used.
    #[allow(dead_code, reason = "as the type `Site`")]
    fn added(&self, policy: impl FnOnce(&Site<'_>) -> Homes) -> Result<Homes, PlaceError> {
        let topology = self.model.topology;
        let distances = |from, to| topology.distance(from, to).unwrap_or(Distance::UNREACHABLE).0;
        let Self { producer, consumer, creator, .. } = *self;
        let nodes = &self.usable;
        let mut homes = policy(&Site { producer, consumer, creator, nodes, distances: &distances });
        homes.data.truncate(MAX_PIECES);
        if homes.data.is_empty() {
            homes.data.push(homes.forward);
        }
        for &node in homes.data.iter().chain([&homes.forward, &homes.backward]) {
            self.usable(node)?;
        }
        Ok(homes)
    }

    /// The node itself if it can be used.
    fn usable(&self, node: NodeId) -> Result<NodeId, PlaceError> {
        self.model.topology.node(node).ok_or(PlaceError::NoNode(node))?;
        self.usable.contains(&node).then_some(node).ok_or(PlaceError::Unusable(node))
    }

    /// The usable nodes from the nearest of `node` on.
    fn by_distance(&self, node: NodeId) -> Vec<NodeId> {
        let mut nodes = self.usable.clone();
        self.model.topology.sort_by_nearness(node, &mut nodes);
        nodes
    }

    /// The usable node nearest to `node`, and a note if that is another one.
    fn near(&self, node: NodeId, notes: &mut String) -> NodeId {
        let nearest = self.by_distance(node)[0];
        if nearest != node {
            let distance = self.model.topology.distance(node, nearest).unwrap_or(Distance::UNREACHABLE);
            let note = format!(
                "; node {node} has no memory for both sides: node {nearest} is the nearest that has, at {distance}"
            );
            // The same node can be asked for twice.
            if !notes.contains(&note) {
                notes.push_str(&note);
            }
        }
        nearest
    }

    /// The usable nodes in turn from `first` on; where there are more than a pool can have pieces, so many of them,
    /// evenly spread.
    fn in_turn(&self, first: NodeId) -> Vec<NodeId> {
        let count = self.usable.len();
        let start = self.usable.iter().position(|&node| node == first).unwrap_or(0);
        let pieces = count.min(MAX_PIECES).min(usize::try_from(self.pages).unwrap_or(usize::MAX).max(1));
        (0..pieces).map(|piece| self.usable[(start + piece * count / pieces) % count]).collect()
    }

    /// The first of the nodes that cost most.
    fn dearest(&self, cost: impl Fn(NodeId) -> Picoseconds) -> NodeId {
        let most = |best: NodeId, next: NodeId| if cost(next) > cost(best) { next } else { best };
        self.usable.iter().copied().fold(self.usable[0], most)
    }

    /// A transfer's data, in a piece on `node`.
    fn data_cost(&self, node: NodeId) -> Picoseconds {
        if self.spec.bytes == 0 {
            return Picoseconds(0);
        }
        self.passed(self.producer, self.consumer, node, self.spec.transfer)
    }

    fn forward_cost(&self, node: NodeId) -> Picoseconds {
        self.passed(self.producer, self.consumer, node, 1)
    }

    fn backward_cost(&self, node: NodeId) -> Picoseconds {
        self.passed(self.consumer, self.producer, node, 1)
    }

    /// Bytes written by one node and read by another.
    fn passed(&self, writer: NodeId, reader: NodeId, home: NodeId, bytes: u64) -> Picoseconds {
        let written = self.model.uses(writer, home, Access::Write, bytes);
        let read = self.model.uses(reader, home, Access::Read, bytes);
        Picoseconds(written.0.saturating_add(read.0))
    }

    /// The placement with the parts on these nodes, if there is room.
    fn placed(&self, rule: Rule, homes: Homes, notes: String) -> Result<Placement, PlaceError> {
        let Homes { data: nodes, forward, backward } = homes;
        let count = nodes.len() as u64;
        let pages = |index: u64| self.pages / count + u64::from(index < self.pages % count);
        let data: Vec<_> = (0..)
            .zip(&nodes)
            .map(|(index, &node)| Piece { node, bytes: pages(index) * PAGE_SIZE })
            .filter(|piece| piece.bytes > 0)
            .collect();
        let pieces = data.iter().map(|piece| (piece.node, piece.bytes));
        let parts = || pieces.clone().chain([(forward, self.spec.ring), (backward, self.spec.ring)]);
        for (node, _) in parts() {
            let here = parts().filter(|&(other, _)| other == node).map(|(_, bytes)| bytes);
            let (needed, free) = (here.fold(0, u64::saturating_add), self.model.load.get(node).free);
            if needed > free {
                return Err(PlaceError::Full { node, needed, free });
            }
        }
        // A transfer uses one buffer, and buffers lie in the pieces in turn.
        let sum = nodes.iter().map(|&node| u128::from(self.data_cost(node).0)).sum::<u128>();
        let data_cost = Picoseconds(u64::try_from(sum / u128::from(count)).unwrap_or(u64::MAX));
        let (forward_cost, backward_cost) = (self.forward_cost(forward), self.backward_cost(backward));
        let predicted_cost =
            Picoseconds(data_cost.0.saturating_add(forward_cost.0).saturating_add(backward_cost.0));
        let why = Why { machine: self, rule, data: &data, forward, backward, notes: &notes };
        let mut why = format!("{why}");
        // Writing to a string cannot fail.
        let _ = write!(
            why,
            "; predicted {predicted_cost} for a transfer of {} bytes: data {data_cost}, forward {forward_cost}, backward \
             {backward_cost}",
            self.spec.transfer
        );
        Ok(Placement { data, forward, backward, predicted_cost, why })
    }

    /// The parts on one node: the nearest to `wanted` that has room.
    fn preferred(&self, wanted: NodeId) -> Result<Placement, PlaceError> {
        self.model.topology.node(wanted).ok_or(PlaceError::NoNode(wanted))?;
        let rule = Rule::Preferred(wanted);
        let mut notes = String::new();
        let mut first_refusal = None;
        for node in self.by_distance(wanted) {
            match self.placed(rule, Homes::all(node), notes.clone()) {
                Ok(placement) => return Ok(placement),
                Err(refusal) => {
                    let _ = write!(notes, "; {refusal}");
                    first_refusal.get_or_insert(refusal);
                }
            }
        }
        // There is a usable node, and all of them refused.
        Err(first_refusal.unwrap_or(PlaceError::Unusable(wanted)))
    }

    /// The cheapest placement of the policies that are no controls; of several the first.
    fn cheapest(&self, seed: u64) -> Result<Placement, PlaceError> {
        let mut best: Option<Placement> = None;
        let mut first_refusal = None;
        for &policy in Policy::ALL.iter().filter(|policy| policy.is_for_use()) {
            let mut notes = String::new();
            let rule = Rule::Named(policy);
            let tried = self.homes(rule, seed, &mut notes).and_then(|homes| self.placed(rule, homes, notes));
            match tried {
                Ok(placement)
                    if best.as_ref().is_none_or(|best| placement.predicted_cost < best.predicted_cost) =>
                {
                    best = Some(placement);
                }
                Ok(_) => {}
                Err(refusal) => {
                    first_refusal.get_or_insert(refusal);
                }
            }
        }
        let (producer, consumer) = (self.producer, self.consumer);
        let mut best = best.ok_or(first_refusal.unwrap_or(PlaceError::NoMemory { producer, consumer }))?;
        best.why.insert_str(0, "auto, the cheapest of all: ");
        Ok(best)
    }
}

/// The rule and the facts of a placement.
struct Why<'a> {
    machine: &'a Machine<'a>,
    rule: Rule,
    data: &'a [Piece],
    forward: NodeId,
    backward: NodeId,
    notes: &'a str,
}

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, rule, data, forward, backward, notes } = self;
        let Machine { spec, producer, consumer, model, .. } = machine;
        write!(f, "{rule}: data on")?;
        match data {
            [] => f.write_str(" no node")?,
            [first, rest @ ..] => {
                write!(f, " node {}", first.node)?;
                rest.iter().try_for_each(|piece| write!(f, ",{}", piece.node))?;
            }
        }
        write!(f, ", forward ring on {forward}, backward ring on {backward}")?;
        write!(f, "; producer core {} on node {producer}", spec.producer)?;
        write!(f, ", consumer core {} on node {consumer}", spec.consumer)?;
        if producer != consumer {
            let distance = |from, to| model.topology.distance(from, to).unwrap_or(Distance::UNREACHABLE);
            let (there, back) = (distance(*producer, *consumer), distance(*consumer, *producer));
            write!(f, ", at {there} there and {back} back")?;
        }
        f.write_str(notes)
    }
}

/// Random numbers: Steele, Lea, Flood, *Fast Splittable Pseudorandom Number Generators*, OOPSLA 2014.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `count`, which is not 0.
    fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }
}
