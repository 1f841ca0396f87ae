//! What the scenario `idle` and the domains that it starts agree on.

use lmp::invocation::Counter;
use ump::{Accepts, Kind};

/// The module that it starts.
pub const NODE: &str = "test_idle_node";
/// The service that nodes bind to.
pub const SERVICE: &str = "test_idle";

/// Read the counters of your core.
pub const READ: Kind = Kind(0);
/// Their values.
pub const VALUES: Kind = Kind(1);

/// What both ends take.
pub const ACCEPTS: Accepts = Accepts::kinds_below(Kind(2));

/// The counters of a reading, in this order.
pub const COUNTERS: [Counter; 6] = [
    Counter::KernelEntries,
    Counter::TimerTicks,
    Counter::Interrupts,
    Counter::SystemCalls,
    Counter::Switches,
    Counter::Idles,
];

/// The timer interrupts among them.
pub const TIMER_TICKS: usize = 1;
