//! The cost model: what it is predicted to cost when a core of one node uses memory of another.
//!
//! A transfer writes its bytes into the data pool and one line into the forward ring, and reads both on the other
//! side; a line into the backward ring takes the buffer back. Each use of memory is
//!
//! ```text
//! latency + lines × (64 B ÷ bandwidth) × (1 + channels that the memory's node serves already)
//! ```
//!
//! The second term is for how long link and memory controller are occupied: with enough others there, it outranks
//! distance. A load stalls its core for the whole latency; a store is posted, and counts [`POSTED`] of it.
//!
//! Latency and bandwidth are those of the HMAT. What it does not say follows from the distance: [`LOCAL_LATENCY`] and
//! [`LOCAL_LINE`], times distance ÷ 10.
//!
//! The model knows no caches, neither those of cores nor those at memory, no SMT and no other traffic than the number
//! of channels. It ranks placements; its numbers are no measurement.

use alloc::collections::BTreeMap;
use core::fmt;

use crate::id::{Distance, NodeId};
use crate::topology::{Access, Speed, Topology};

/// The size in bytes of a cache line, in which memory is moved.
pub const LINE: u64 = 64;

/// What a load from a node's own memory is assumed to take where the HMAT does not say.
pub const LOCAL_LATENCY: Picoseconds = Picoseconds(100_000);

/// What a line is assumed to occupy a node's own memory where the HMAT does not say: 20 GB/s.
pub const LOCAL_LINE: Picoseconds = Picoseconds(3_200);

/// A store costs one part of so many of its latency: the core goes on meanwhile, until it needs the store's effect.
pub const POSTED: u64 = 2;

/// A time in 10⁻¹² s, the unit of latencies in the HMAT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Picoseconds(pub u64);

/// In nanoseconds.
impl fmt::Display for Picoseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 1000 {
            0 => write!(f, "{} ns", self.0 / 1000),
            _ => write!(f, "{}.{:03} ns", self.0 / 1000, self.0 % 1000),
        }
    }
}

/// How busy a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLoad {
    /// Bytes of its memory that can still be had.
    pub free: u64,
    /// Channels whose data it holds.
    pub channels: u32,
}

/// How busy the nodes are. A node that nothing is known of has all the room that is asked for, and no channels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    nodes: BTreeMap<NodeId, NodeLoad>,
}

impl Load {
    /// Says how busy a node is.
    pub fn set(&mut self, node: NodeId, load: NodeLoad) {
        self.nodes.insert(node, load);
    }

    /// How busy a node is.
    pub fn get(&self, node: NodeId) -> NodeLoad {
        self.nodes.get(&node).copied().unwrap_or(NodeLoad { free: u64::MAX, channels: 0 })
    }
}

/// The model of a machine under a load.
#[derive(Clone, Copy)]
pub(crate) struct Model<'a> {
    pub(crate) topology: &'a Topology,
    pub(crate) load: &'a Load,
}

impl Model<'_> {
    /// What it costs a core on `from` to use `bytes` bytes of memory on `to`, one line at least.
    pub(crate) fn uses(&self, from: NodeId, to: NodeId, access: Access, bytes: u64) -> Picoseconds {
        let latency = match access {
            Access::Read => self.latency(from, to, access),
            Access::Write => self.latency(from, to, access) / POSTED,
        };
        let lines = bytes.div_ceil(LINE).max(1);
        let sharers = 1 + u64::from(self.load.get(to).channels);
        let occupied = self.line(from, to, access).saturating_mul(lines).saturating_mul(sharers);
        Picoseconds(latency.saturating_add(occupied))
    }

    /// The latency in picoseconds.
    fn latency(&self, from: NodeId, to: NodeId, access: Access) -> u64 {
        let known = self.speed(from, to, access).latency;
        known.map_or_else(|| self.scaled(LOCAL_LATENCY, from, to), |latency| latency.0)
    }

    /// For how long a line occupies memory and the way there, in picoseconds.
    fn line(&self, from: NodeId, to: NodeId, access: Access) -> u64 {
        // 1 MB/s is one byte in 10⁶ ps.
        const BYTE: u64 = 1_000_000;
        let known = self.speed(from, to, access).bandwidth;
        known.map_or_else(
            || self.scaled(LOCAL_LINE, from, to),
            |bandwidth| LINE * BYTE / u64::from(bandwidth.max(1)),
        )
    }

    fn speed(&self, from: NodeId, to: NodeId, access: Access) -> Speed {
        self.topology.route(from, to).unwrap_or_default().speed(access)
    }

    fn scaled(&self, local: Picoseconds, from: NodeId, to: NodeId) -> u64 {
        let distance = self.topology.distance(from, to).unwrap_or(Distance::UNREACHABLE);
        local.0 * u64::from(distance.0) / u64::from(Distance::LOCAL.0)
    }
}
