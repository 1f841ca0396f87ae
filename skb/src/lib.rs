//! The system knowledge base: facts about the machine, and the typed [`Topology`] made of them.
//!
//! [`discover`] reads the ACPI tables that describe processors and memory (MADT, SRAT, SLIT) through any
//! [`PhysMemory`], turns them into [`Facts`], and derives the [`Topology`]: which cores there are, which node each
//! belongs to, which memory is near, and how far the nodes are from each other.
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
//! The SRAT and the SLIT are decoded here, in safe code, because it reads even good ones wrongly: its SRAT entries have
//! a 16-bit length, which shifts every field by a byte; the upper half of a memory range's length is taken from its
//! address; and it wants room in the SLIT for the square of the matrix, which only one node has. A test says so as long
//! as it is true.

#![no_std]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod complaint;
mod facts;
#[allow(unsafe_code)]
mod firmware;
mod id;
mod policy;
pub mod tables;
mod topology;

use boot_info::{PhysAddr, PhysMemory};

pub use complaint::{Complaint, Complaints, MAX_COMPLAINTS};
pub use facts::{CoreState, Distances, Facts, MemoryAffinity, Processor, ProcessorAffinity};
pub use id::{ApicId, CoreId, Distance, NodeId, ProximityDomain};
pub use policy::Policy;
pub use topology::{Core, MAX_CORES, MAX_NODES, Node, Topology};

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
/// BIOS leaves it. `boot` is the local APIC of the core that was booted.
pub fn discover(rsdp: Option<PhysAddr>, memory: &impl PhysMemory, boot: ApicId) -> Discovery {
    let mut complaints = Complaints::default();
    let tables = tables::Tables::find(rsdp, memory, &mut complaints);
    let facts = Facts::from_tables(&tables, &mut complaints);
    let topology = Topology::from_facts(&facts, boot, &mut complaints);
    Discovery { topology, facts, complaints }
}
