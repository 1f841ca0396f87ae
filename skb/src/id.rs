//! The names of things: each its own type, so that they cannot be mixed up.

use core::fmt;

/// A core by its place in the topology: dense from 0, which is the core that was booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub u32);

/// A core by the identifier of its local APIC, which interrupts are sent to. Not dense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApicId(pub u32);

/// A NUMA node by its place in the topology: dense from 0, in the order of the proximity domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// A NUMA node by the number that firmware gave it. Not always dense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProximityDomain(pub u32);

/// How far a node's memory is from a node, relative to its own memory, which is at [`Distance::LOCAL`] (*ACPI
/// Specification* 6.5, section 5.2.17): 20 means twice the latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Distance(pub u8);

impl CoreId {
    /// The core that was booted.
    pub const BOOT: Self = Self(0);
}

impl Distance {
    /// From a node to itself.
    pub const LOCAL: Self = Self(10);

    /// What is assumed between two nodes of which nothing is known.
    pub const REMOTE: Self = Self(20);

    /// The other node cannot be reached.
    pub const UNREACHABLE: Self = Self(255);
}

macro_rules! display {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}

display!(CoreId, ApicId, NodeId, ProximityDomain, Distance);
