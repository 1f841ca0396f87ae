//! What the scenario `races` and the domains that it starts agree on.

use ump::{Accepts, Kind};

/// The module that it starts.
pub const NODE: &str = "test_races_node";

/// A number, to be answered by itself; from who answers, word 1 is how often it waited.
pub const NUMBER: Kind = Kind(0);
/// Nothing comes after this.
pub const LAST: Kind = Kind(1);

/// What both ends take.
pub const ACCEPTS: Accepts = Accepts::kinds_below(Kind(2));

/// How long a domain may wait for another, in milliseconds, before a wake-up counts as lost. Far more than a busy
/// host needs, though a clock that was measured on one runs slow.
pub const STALL_MS: u64 = 30_000;
