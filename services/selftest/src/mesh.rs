//! What the scenario `mesh` and the domains that it starts say to each other.

use ump::Kind;

/// The module that it starts.
pub const NODE: &str = "test_mesh_node";

/// A numbered message, to be answered as it is.
pub const CALL: Kind = Kind(0);
/// A frame comes along. The receiver writes the complement of its first word into the second.
pub const FRAME: Kind = Kind(1);
/// One of a sequence: number, cores, complement of the number, a product of both.
pub const SEQUENCE: Kind = Kind(0);
