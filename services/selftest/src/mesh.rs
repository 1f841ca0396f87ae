//! What the scenario `mesh` and the domains that it starts say to each other.

use bulk::{Kinds, PoolId};
use ump::Kind;

/// The module that it starts.
pub const NODE: &str = "test_mesh_node";

/// A numbered message, to be answered as it is.
pub const CALL: Kind = Kind(0);
/// A frame comes along. The receiver writes the complement of its first word into the second.
pub const FRAME: Kind = Kind(1);
/// One of a sequence: number, cores, complement of the number, a product of both.
pub const SEQUENCE: Kind = Kind(0);

/// Buffers of a pool, handed over and given back. The cookie is a buffer's number.
pub const BUFFERS: Kinds = Kinds::starting_at(Kind(0));
/// The pool that they are of.
pub const POOL: PoolId = PoolId(0);

/// A `count` of nodes that go on until the other end dies. Of few digits, for it is part of an argument string.
pub const FOREVER: u64 = 10_000_000;

/// The name, with the core added, by which a client that goes on for ever tells that it is connected.
pub const MET: &str = "met";
