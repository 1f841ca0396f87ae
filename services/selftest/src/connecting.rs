//! What scenario `connect` and its peers agree on.

use ump::{Accepts, Kind};

/// The name of the service.
pub const SERVICE: &str = "test_connect";

/// A number, to be echoed.
pub const ECHO: Kind = Kind(0);
/// The pool was written from word 0 on: word 0 is the seed of what lies in it.
pub const WRITTEN: Kind = Kind(1);
/// A frame comes along; word 0 is its first word.
pub const FRAME: Kind = Kind(2);

/// What both ends take.
pub const ACCEPTS: Accepts = Accepts::kinds_below(Kind(3)).with_capabilities(1);

/// Word `n` of the pool.
pub const fn pattern(seed: u64, n: u64) -> u64 {
    (seed ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
