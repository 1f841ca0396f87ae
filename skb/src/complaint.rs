//! [`Complaint`]: what was missing or wrong in firmware's tables, and what was done about it.

use alloc::vec::Vec;
use core::fmt;

use boot_info::{PhysAddr, PhysRange};

use crate::hmat::Quantity;
use crate::id::{ApicId, Distance, ProximityDomain};
use crate::tables::{MAX_TABLE, MAX_TABLES, Table};
use crate::topology::{MAX_CORES, MAX_NODES};

/// The most complaints that are kept. A damaged table can give rise to one for every entry.
pub const MAX_COMPLAINTS: usize = 64;

/// One thing that was missing or wrong, and what was done about it. None stops the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// The boot protocol gave no root pointer, and there is none where a BIOS leaves it.
    NoRootPointer,
    /// The boot protocol gave no root pointer, but there is one where a BIOS leaves it.
    FoundRootPointer {
        /// Its address.
        at: PhysAddr,
    },
    /// A table is not there.
    Missing(Table),
    /// A table lies where nothing can be read.
    Unreadable {
        /// The table, if it is known which.
        table: Option<Table>,
        /// Its address.
        at: PhysAddr,
    },
    /// A table has another signature than its place demands.
    BadSignature {
        /// What should be there.
        table: Table,
        /// Its address.
        at: PhysAddr,
    },
    /// A table's bytes do not sum up to zero.
    BadChecksum {
        /// The table.
        table: Table,
        /// Its address.
        at: PhysAddr,
    },
    /// A table is shorter than its header or longer than any such table is.
    BadLength {
        /// The table.
        table: Table,
        /// Its address.
        at: PhysAddr,
        /// The length it claims, in bytes.
        length: u32,
    },
    /// There is a second table of this kind.
    RepeatedTable {
        /// The table.
        table: Table,
        /// The address of the second.
        at: PhysAddr,
    },
    /// The root table lists more tables than are looked at.
    TooManyTables {
        /// How many it lists.
        count: usize,
    },
    /// An entry's length is zero, or goes past the table, so that no further entry can be found.
    LostEntries {
        /// The table.
        table: Table,
        /// Where the entry is, in bytes from the start of the table.
        offset: usize,
        /// The length it claims, in bytes.
        length: u32,
    },
    /// An entry is too short for its type.
    ShortEntry {
        /// The table.
        table: Table,
        /// Where the entry is, in bytes from the start of the table.
        offset: usize,
        /// Its type.
        kind: u16,
        /// Its length in bytes.
        length: u32,
    },
    /// An enabled processor has the identifier that means all processors.
    BroadcastApic(ApicId),
    /// Two processors have the same APIC identifier.
    RepeatedCore(ApicId),
    /// More processors than the system can have.
    TooManyCores {
        /// How many there are.
        count: usize,
    },
    /// The MADT does not list the core that runs this.
    BootCoreUnlisted(ApicId),
    /// The MADT says that the core that runs this is disabled.
    BootCoreDisabled(ApicId),
    /// The SRAT does not say which node a core belongs to.
    CoreWithoutNode(ApicId),
    /// The SRAT puts a core on two nodes.
    CoreOnTwoNodes {
        /// The core.
        apic: ApicId,
        /// The node that was named first.
        kept: ProximityDomain,
        /// The node that was named later.
        dropped: ProximityDomain,
    },
    /// More nodes than the system can have.
    TooManyNodes {
        /// How many there are.
        count: usize,
    },
    /// The SRAT lists processors, but no memory.
    NoMemory,
    /// A range of memory is past the end of physical memory.
    BadMemory {
        /// Its node.
        domain: ProximityDomain,
        /// Its address.
        base: PhysAddr,
        /// Its length in bytes.
        length: u64,
    },
    /// The SRAT puts memory on two nodes.
    MemoryOnTwoNodes {
        /// The range that was named later.
        range: PhysRange,
        /// The node that was named first for a part of it.
        kept: ProximityDomain,
        /// The node that was named later.
        dropped: ProximityDomain,
    },
    /// The SLIT's matrix does not fit into the table.
    BadMatrix {
        /// How many localities it claims to have.
        localities: u64,
        /// The length of the table in bytes.
        length: usize,
    },
    /// The SLIT has no row for a node.
    NoDistances(ProximityDomain),
    /// The SLIT says a node is at another distance from itself than 10.
    BadLocalDistance {
        /// The node.
        domain: ProximityDomain,
        /// The distance it gives.
        distance: Distance,
    },
    /// The SLIT says a node is nearer to another than that is to itself.
    BadDistance {
        /// The node that looks.
        from: ProximityDomain,
        /// The node that is looked at.
        to: ProximityDomain,
        /// The distance it gives.
        distance: Distance,
    },
    /// The SLIT gives two nodes another distance in each direction.
    Asymmetric {
        /// The one node.
        a: ProximityDomain,
        /// The other node.
        b: ProximityDomain,
        /// The distance from `a` to `b`.
        there: Distance,
        /// The distance from `b` to `a`.
        back: Distance,
    },
    /// A matrix of the HMAT does not fit into its structure.
    BadLocality {
        /// Where the structure is, in bytes from the start of the table.
        offset: usize,
        /// How many initiators it claims to have.
        initiators: u32,
        /// How many targets it claims to have.
        targets: u32,
        /// The length of the structure in bytes.
        length: usize,
    },
    /// A matrix of the HMAT is about something that no version of the specification has.
    UnknownQuantity {
        /// Where the structure is, in bytes from the start of the table.
        offset: usize,
        /// The number of what it is about.
        quantity: u8,
    },
    /// A matrix of the HMAT has values that no machine has.
    ImpossibleValues {
        /// What it is about.
        quantity: Quantity,
        /// Where the structure is, in bytes from the start of the table.
        offset: usize,
        /// How many of its entries.
        count: usize,
    },
    /// The HMAT says twice, and differently, how far memory is.
    TwoValues {
        /// What it says.
        quantity: Quantity,
        /// From where.
        from: ProximityDomain,
        /// To where.
        to: ProximityDomain,
        /// The value that was named first.
        kept: u32,
        /// The value that was named later.
        dropped: u32,
    },
    /// The HMAT names a domain that has neither processors nor memory.
    StrangeDomain(ProximityDomain),
    /// The HMAT says that memory cannot be reached that the SLIT gives a distance of.
    Unreachable {
        /// From where.
        from: ProximityDomain,
        /// To where.
        to: ProximityDomain,
    },
    /// The HMAT says that memory is slower than another that the SLIT says is farther.
    LatencyAgainstDistance {
        /// From where.
        from: ProximityDomain,
        /// What the SLIT says is nearer.
        near: ProximityDomain,
        /// What the SLIT says is farther.
        far: ProximityDomain,
    },
    /// The HMAT says that memory is attached to processors of two domains, or of one that has none.
    BadAttachment {
        /// The domain of the memory.
        memory: ProximityDomain,
        /// The domain that is not believed.
        initiator: ProximityDomain,
    },
    /// The HMAT describes a cache that cannot be.
    BadMemoryCache {
        /// The domain of its memory.
        domain: ProximityDomain,
        /// Its level.
        level: u8,
        /// How many levels there are.
        levels: u8,
        /// Its size in bytes.
        size: u64,
    },
    /// The HMAT describes two caches of the same level.
    RepeatedMemoryCache {
        /// The domain of their memory.
        domain: ProximityDomain,
        /// Their level.
        level: u8,
    },
    /// CPUID tells how APIC identifiers are made in a way that cannot be.
    BadLevels {
        /// The leaf.
        leaf: u32,
        /// The subleaf.
        level: u32,
    },
    /// CPUID describes a cache that cannot be, or one that it described before.
    BadCache {
        /// The leaf.
        leaf: u32,
        /// The subleaf.
        index: u32,
    },
    /// CPUID says that the core that runs this has another APIC than it was booted by.
    OtherApic {
        /// What CPUID says.
        cpuid: ApicId,
        /// What it was booted by.
        boot: ApicId,
    },
    /// By their APIC identifiers two threads are of one core, but the SRAT puts them on two nodes.
    ThreadsOnTwoNodes {
        /// The one thread.
        a: ApicId,
        /// The other thread.
        b: ApicId,
    },
}

/// The complaints of a discovery, in the order in which they came up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Complaints {
    kept: Vec<Complaint>,
    more: usize,
}

impl Complaints {
    /// The first [`MAX_COMPLAINTS`] complaints.
    pub fn as_slice(&self) -> &[Complaint] {
        &self.kept
    }

    /// How many came up after those.
    pub fn more(&self) -> usize {
        self.more
    }

    /// Whether nothing was missing or wrong.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub(crate) fn add(&mut self, complaint: Complaint) {
        if self.kept.len() < MAX_COMPLAINTS {
            self.kept.push(complaint);
        } else {
            self.more += 1;
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRootPointer => f.write_str(
                "the boot protocol gave no ACPI root pointer: only the boot core is known, on one node",
            ),
            Self::FoundRootPointer { at } => {
                write!(f, "the boot protocol gave no ACPI root pointer: the one found at {at} is used")
            }
            Self::Missing(Table::Madt) => f.write_str("there is no MADT: only the boot core is known"),
            Self::Missing(Table::Srat) => {
                f.write_str("there is no SRAT: all cores and memory are on one node")
            }
            Self::Missing(Table::Slit) => {
                write!(f, "there is no SLIT: nodes are at distance {} from each other", Distance::REMOTE)
            }
            Self::Missing(table) => write!(f, "there is no {table}"),
            Self::Unreadable { table: Some(table), at } => {
                write!(f, "the {table} at {at} cannot be read: it is left out")
            }
            Self::Unreadable { table: None, at } => {
                write!(f, "an ACPI table at {at} cannot be read: it is left out")
            }
            Self::BadSignature { table, at } => {
                write!(f, "what lies at {at} is no {table}: it is left out")
            }
            Self::BadChecksum { table, at } => {
                write!(f, "the {table} at {at} has a wrong checksum: it is left out")
            }
            Self::BadLength { table, at, length } => write!(
                f,
                "the {table} at {at} cannot be {length} bytes long, the most is {MAX_TABLE}: it is left out"
            ),
            Self::RepeatedTable { table, at } => {
                write!(f, "there is a second {table} at {at}: it is left out")
            }
            Self::TooManyTables { count } => {
                write!(f, "there are {count} ACPI tables: those after the first {MAX_TABLES} are left out")
            }
            Self::LostEntries { table, offset, length } => write!(
                f,
                "the entry at offset {offset} of the {table} claims {length} bytes: it and those after it are left \
                 out"
            ),
            Self::ShortEntry { table, offset, kind, length } => write!(
                f,
                "the entry of type {kind} at offset {offset} of the {table} has only {length} bytes: it is left out"
            ),
            Self::BroadcastApic(apic) => {
                write!(f, "the MADT lists a processor with APIC {apic}, which means all: it is left out")
            }
            Self::RepeatedCore(apic) => {
                write!(f, "the MADT lists the processor with APIC {apic} again: the first entry counts")
            }
            Self::TooManyCores { count } => {
                write!(f, "there are {count} processors: those after the first {MAX_CORES} are left out")
            }
            Self::BootCoreUnlisted(apic) => {
                write!(f, "the MADT does not list the boot core, APIC {apic}: it is added")
            }
            Self::BootCoreDisabled(apic) => {
                write!(
                    f,
                    "the MADT says that the boot core, APIC {apic}, is disabled: it is used all the same"
                )
            }
            Self::CoreWithoutNode(apic) => {
                write!(f, "the SRAT does not list the core with APIC {apic}: it is put on node 0")
            }
            Self::CoreOnTwoNodes { apic, kept, dropped } => write!(
                f,
                "the SRAT puts the core with APIC {apic} on domain {kept} and again on {dropped}: the first counts"
            ),
            Self::TooManyNodes { count } => write!(
                f,
                "there are {count} proximity domains: those after the first {MAX_NODES} are taken for the first"
            ),
            Self::NoMemory => f.write_str("the SRAT lists no memory: all is put on node 0"),
            Self::BadMemory { domain, base, length } => write!(
                f,
                "the SRAT lists {length:#x} bytes at {base} for domain {domain}, past the end of physical memory: \
                 they are left out"
            ),
            Self::MemoryOnTwoNodes { range, kept, dropped } => write!(
                f,
                "the SRAT puts {range} on domain {dropped}, a part of which is on {kept} already: it is left out"
            ),
            Self::BadMatrix { localities, length } => write!(
                f,
                "the SLIT of {length} bytes cannot hold the distances of {localities} localities: it is left out"
            ),
            Self::NoDistances(domain) => write!(
                f,
                "the SLIT has no distances of domain {domain}: it is at {} from all others",
                Distance::REMOTE
            ),
            Self::BadLocalDistance { domain, distance } => write!(
                f,
                "the SLIT says that domain {domain} is at distance {distance} from itself: it is {}",
                Distance::LOCAL
            ),
            Self::BadDistance { from, to, distance } => write!(
                f,
                "the SLIT says that domain {to} is at distance {distance} from {from}, nearer than itself: {} is \
                 assumed",
                Distance::REMOTE
            ),
            Self::Asymmetric { a, b, there, back } => write!(
                f,
                "the SLIT says that it is {there} from domain {a} to {b}, but {back} back: both are kept"
            ),
            Self::BadLocality { offset, initiators, targets, length } => write!(
                f,
                "the structure of {length} bytes at offset {offset} of the HMAT cannot hold a matrix of {initiators} \
                 by {targets}: it is left out"
            ),
            Self::UnknownQuantity { offset, quantity } => write!(
                f,
                "the structure at offset {offset} of the HMAT has data of the unknown type {quantity}: it is left out"
            ),
            Self::ImpossibleValues { quantity, offset, count } => write!(
                f,
                "the {quantity} at offset {offset} of the HMAT has impossible values ({count}): they are left out"
            ),
            Self::TwoValues { quantity, from, to, kept, dropped } => write!(
                f,
                "the HMAT gives the {quantity} from domain {from} to {to} as {kept} and again as {dropped}: the first \
                 counts"
            ),
            Self::StrangeDomain(domain) => write!(
                f,
                "the HMAT names domain {domain}, which has neither processors nor memory: that is left out"
            ),
            Self::Unreachable { from, to } => write!(
                f,
                "the HMAT says that the memory of domain {to} cannot be reached from {from}, unlike the SLIT: it is \
                 not used from there"
            ),
            Self::LatencyAgainstDistance { from, near, far } => write!(
                f,
                "from domain {from}, domain {far} is farther than {near} by the SLIT, but nearer by the HMAT: distances \
                 go by the SLIT, costs by the HMAT"
            ),
            Self::BadAttachment { memory, initiator } => write!(
                f,
                "the HMAT says that the memory of domain {memory} is attached to the processors of {initiator}, which \
                 cannot be: that is left out"
            ),
            Self::BadMemoryCache { domain, level, levels, size } => write!(
                f,
                "the HMAT gives the memory of domain {domain} a cache of {size} bytes, level {level} of {levels}: it \
                 is left out"
            ),
            Self::RepeatedMemoryCache { domain, level } => write!(
                f,
                "the HMAT gives the memory of domain {domain} a second cache of level {level}: it is left out"
            ),
            Self::BadLevels { leaf, level } => write!(
                f,
                "CPUID leaf {leaf:#x} says at level {level} what cannot be of APIC identifiers: it is left out"
            ),
            Self::BadCache { leaf, index } => {
                write!(f, "CPUID leaf {leaf:#x} describes an impossible cache {index}: it is left out")
            }
            Self::OtherApic { cpuid, boot } => write!(
                f,
                "CPUID says that the boot core has APIC {cpuid}, but it was booted as {boot}: that counts"
            ),
            Self::ThreadsOnTwoNodes { a, b } => write!(
                f,
                "CPUID makes APIC {a} and {b} threads of one core, but the SRAT puts them on two nodes: both are kept"
            ),
        }
    }
}

impl core::error::Error for Complaint {}

/// One line for each.
impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for complaint in &self.kept {
            writeln!(f, "{complaint}")?;
        }
        if self.more > 0 {
            writeln!(f, "and {} more such complaints", self.more)?;
        }
        Ok(())
    }
}
