//! The system knowledge base: facts about the machine, and the typed [`Topology`] made of them.
//!
//! [`discover`] reads the ACPI tables that describe processors and memory (MADT, SRAT, SLIT, HMAT) through any
//! [`PhysMemory`], asks the CPUID of the core that runs it, turns all into [`Facts`], and derives the [`Topology`]:
//! which cores there are, which of them are threads of one, which node each belongs to, which memory is near, and how
//! far the nodes are from each other.
//!
//! [`place()`] decides on which nodes the parts of a channel are to lie, by a [`Policy`] and the model of [`cost`].
//!
//! What firmware says is untrusted. Whatever is missing or wrong is left out, a [`Complaint`] says so, and the rest is
//! used; in the end there is always a topology of at least the boot core on one node, so that the system comes up. The
//! work and the memory are bounded by [`tables::MAX_TABLE`], [`MAX_CORES`] and [`MAX_NODES`].
//!
//! # What the `acpi` crate does
//!
//! The root pointer, the headers, the root tables and the MADT are read by the `acpi` crate. At the pinned 7.0.0-pre1
//! it believes what the bytes say: its handler cannot refuse an address, entries of length zero never end, and short
//! ones are read past the table. So it gets only copies whose lengths were checked before, entry by entry.
//!
//! The SRAT and the SLIT are decoded here, like the HMAT, which it does not know, in safe code, because it reads even good ones wrongly: its SRAT entries have
//! a 16-bit length, which shifts every field by a byte; the upper half of a memory range's length is taken from its
//! address; and it wants room in the SLIT for the square of the matrix, which only one node has. A test says so as long
//! as it is true.

#![no_std]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod complaint;
pub mod cost;
pub mod cpuid;
mod facts;
#[allow(unsafe_code)]
mod firmware;
pub mod hmat;
mod id;
pub mod place;
mod policy;
pub mod tables;
mod topology;
mod wire;

use boot_info::{PhysAddr, PhysMemory};

pub use complaint::{Complaint, Complaints, MAX_COMPLAINTS};
pub use cost::{Load, NodeLoad, Picoseconds};
pub use facts::{CoreState, Distances, Facts, MemoryAffinity, Processor, ProcessorAffinity};
pub use id::{ApicId, CoreId, Distance, NodeId, ProximityDomain};
pub use place::{ChannelSpec, Piece, PlaceError, Placement, place};
pub use policy::{Policy, Rule};
pub use topology::{Access, Core, CoreList, MAX_CORES, MAX_NODES, Node, Position, Route, Speed, Topology};
pub use wire::BadTopology;

/// What [`discover`] found.
#[derive(Clone, Debug)]
pub struct Discovery {
    /// The cores and nodes.
    pub topology: Topology,
    /// What the tables say, as they say it.
    pub facts: Facts,
    /// What was missing or wrong.
    pub complaints: Complaints,
}

/// Finds out what machine this is.
///
/// `rsdp` is the address of the ACPI root pointer, as far as the boot protocol knew it; else it is searched for where a
/// BIOS leaves it. `cpuid` is that instruction on the core that runs this, by leaf and subleaf. `boot` is the local APIC
/// of the core that was booted, which is the same one.
pub fn discover(
    rsdp: Option<PhysAddr>,
    memory: &impl PhysMemory,
    cpuid: impl Fn(u32, u32) -> cpuid::Registers,
    boot: ApicId,
) -> Discovery {
    let mut complaints = Complaints::default();
    let tables = tables::Tables::find(rsdp, memory, &mut complaints);
    let mut facts = Facts::from_tables(&tables, &mut complaints);
    facts.cpuid = cpuid::Processors::ask(cpuid, &mut complaints);
    let topology = Topology::from_facts(&facts, boot, &mut complaints);
    Discovery { topology, facts, complaints }
}
