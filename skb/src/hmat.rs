//! [`Hmat`]: what the HMAT says, structure by structure.
//!
//! The structures are those of the *ACPI Specification* 6.5, section 5.2.27: which processors a memory is attached to,
//! latencies and bandwidths from processors to memories, and the caches in front of memories.

use alloc::vec::Vec;
use core::fmt;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::complaint::{Complaint, Complaints};
use crate::firmware::{self, HEADER};
use crate::id::ProximityDomain;
use crate::tables::Table;

/// What the HMAT says, in the order in which it says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hmat {
    /// Which processors memories are attached to.
    pub attachments: Vec<Attachment>,
    /// Latencies and bandwidths.
    pub matrices: Vec<Matrix>,
    /// The caches in front of memories.
    pub caches: Vec<DomainCache>,
}

/// The memory of a proximity domain, and the processors that it is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The domain of the memory.
    pub memory: ProximityDomain,
    /// The domain of the processors whose memory controller it is attached to, if that is said.
    pub initiator: Option<ProximityDomain>,
}

/// What a [`Matrix`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quantity {
    /// The latency of loads and stores alike, in picoseconds.
    AccessLatency,
    /// The latency of loads, in picoseconds.
    ReadLatency,
    /// The latency of stores, in picoseconds.
    WriteLatency,
    /// The bandwidth of loads and stores alike, in MB/s.
    AccessBandwidth,
    /// The bandwidth of loads, in MB/s.
    ReadBandwidth,
    /// The bandwidth of stores, in MB/s.
    WriteBandwidth,
}

/// One quantity from each of some domains to each of some others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// What it is about.
    pub quantity: Quantity,
    /// What it is the quantity of: 0 is the memory as a whole, above are the caches in front of it, from the first
    /// level on.
    pub hierarchy: u8,
    /// Where the structure begins, in bytes from the start of the table.
    pub offset: usize,
    /// The domains of processors.
    initiators: Vec<ProximityDomain>,
    /// The domains of memory.
    targets: Vec<ProximityDomain>,
    /// Row by row: from the first initiator to each target, and so on.
    entries: Vec<u16>,
    /// An entry counts so many times `unit.0 / unit.1` of the quantity's unit.
    unit: (u64, u64),
}

/// What a [`Matrix`] says about a pair of domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing.
    Unknown,
    /// One cannot be reached from the other.
    Unreachable,
    /// So much, in the unit of the quantity.
    Value(u32),
    /// More than 2³² − 1, or nothing at all, in the unit of the quantity: no such machine exists.
    Impossible,
}

/// A cache in front of the memory of a proximity domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainCache {
    /// The domain.
    pub domain: ProximityDomain,
    /// The cache.
    pub cache: MemoryCache,
}

/// A cache in front of a memory, which all who use the memory share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryCache {
    /// Its level: 1 is the nearest to the processors.
    pub level: u8,
    /// Its size in bytes.
    pub size: u64,
    /// The size of its lines in bytes.
    pub line: u16,
    /// How it is associated, as the table numbers it.
    pub associativity: CacheAssociativity,
    /// When it writes to memory.
    pub writes: CacheWrites,
}

macro_rules! coded {
    ($(#[$doc:meta])* $name:ident { $( $(#[$variant:meta])* $item:ident = $word:literal, )* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $( $(#[$variant])* $item, )* }

        impl $name {
            /// All of them, by their numbers in the table.
            pub const ALL: &'static [Self] = &[$(Self::$item,)*];

            /// Its name.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$item => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }
    };
}

coded! {
    /// Which lines of memory can be where in a cache.
    CacheAssociativity {
        /// Nothing is said.
        Unknown = "unknown",
        /// Each in one place.
        Direct = "direct",
        /// Each in one of several places.
        Complex = "complex",
    }
}

coded! {
    /// When a cache writes to memory.
    CacheWrites {
        /// Nothing is said.
        Unknown = "unknown",
        /// When a line has to go.
        Back = "write-back",
        /// At once.
        Through = "write-through",
    }
}

/// The beginning of the HMAT; structures follow.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Fixed {
    header: [u8; HEADER],
    _reserved: U32,
}

/// What all structures begin with.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    kind: U16,
    _reserved: U16,
    length: U32,
}

/// Type 0: memory proximity domain attributes.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Proximity {
    _head: Head,
    flags: U16,
    _reserved: U16,
    initiator: U32,
    memory: U32,
    _reserved2: [u8; 20],
}

/// Type 1: system locality latency and bandwidth information. The domains of the initiators, those of the targets, and
/// the matrix follow.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Locality {
    _head: Head,
    flags: u8,
    quantity: u8,
    _transfer: u8,
    _reserved: u8,
    initiators: U32,
    targets: U32,
    _reserved2: U32,
    unit: U64,
}

/// Type 2: memory side cache information. Numbers of SMBIOS follow.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Cache {
    _head: Head,
    memory: U32,
    _reserved: U32,
    size: U64,
    attributes: U32,
    _reserved2: U16,
    _handles: U16,
}

const _: () = assert!(size_of::<Fixed>() == 40);
const _: () = assert!(size_of::<Head>() == 8);
const _: () = assert!(size_of::<Proximity>() == 40);
const _: () = assert!(size_of::<Locality>() == 32);
const _: () = assert!(size_of::<Cache>() == 32);

const INITIATOR_VALID: u16 = 1 << 0;
const HIERARCHY: u8 = 0xf;

/// An entry that says nothing.
const UNKNOWN: u16 = 0;
/// An entry of two domains that cannot reach each other.
const UNREACHABLE: u16 = u16::MAX;

impl Quantity {
    /// All of them, by their numbers in the table.
    pub const ALL: [Self; 6] = [
        Self::AccessLatency,
        Self::ReadLatency,
        Self::WriteLatency,
        Self::AccessBandwidth,
        Self::ReadBandwidth,
        Self::WriteBandwidth,
    ];

    /// Its name.
    pub const fn word(self) -> &'static str {
        match self {
            Self::AccessLatency => "access latency",
            Self::ReadLatency => "read latency",
            Self::WriteLatency => "write latency",
            Self::AccessBandwidth => "access bandwidth",
            Self::ReadBandwidth => "read bandwidth",
            Self::WriteBandwidth => "write bandwidth",
        }
    }

    /// Whether it is a time.
    pub const fn is_latency(self) -> bool {
        matches!(self, Self::AccessLatency | Self::ReadLatency | Self::WriteLatency)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl Matrix {
    /// The domains of processors.
    pub fn initiators(&self) -> &[ProximityDomain] {
        &self.initiators
    }

    /// The domains of memory.
    pub fn targets(&self) -> &[ProximityDomain] {
        &self.targets
    }

    /// All that it says, pair by pair: initiator, target, entry.
    pub fn entries(&self) -> impl Iterator<Item = (ProximityDomain, ProximityDomain, Entry)> + '_ {
        // Without targets there are no entries, and chunks must not be empty.
        let rows = self.entries.chunks_exact(self.targets.len().max(1));
        self.initiators.iter().zip(rows).flat_map(move |(&initiator, row)| {
            let entry = move |(&target, &entry)| (initiator, target, self.entry(entry));
            self.targets.iter().zip(row).map(entry)
        })
    }

    fn entry(&self, entry: u16) -> Entry {
        match entry {
            UNKNOWN => Entry::Unknown,
            UNREACHABLE => Entry::Unreachable,
            count => {
                let (unit, of) = self.unit;
                let value = u64::from(count).checked_mul(unit).map(|value| value / of);
                match value.and_then(|value| u32::try_from(value).ok()) {
                    Some(value) if value > 0 => Entry::Value(value),
                    _ => Entry::Impossible,
                }
            }
        }
    }
}

impl Hmat {
    /// Reads the table. Structures that cannot be used are left out.
    pub(crate) fn read(table: &[u8], complaints: &mut Complaints) -> Self {
        let mut hmat = Self::default();
        let revision =
            Fixed::ref_from_prefix(table).map_or(0, |(fixed, _)| firmware::header(fixed.header).revision);
        for structure in (Structures { table, offset: size_of::<Fixed>() }) {
            let added = structure.and_then(|structure| hmat.add(&structure, revision));
            if let Err(complaint) = added {
                complaints.add(complaint);
            }
        }
        hmat
    }

    fn add(&mut self, structure: &Structure<'_>, revision: u8) -> Result<(), Complaint> {
        match structure.kind {
            0 => {
                let (proximity, _) = structure.decode::<Proximity>()?;
                let memory = ProximityDomain(proximity.memory.get());
                let initiator = (proximity.flags.get() & INITIATOR_VALID != 0)
                    .then(|| ProximityDomain(proximity.initiator.get()));
                self.attachments.push(Attachment { memory, initiator });
            }
            1 => self.matrices.push(structure.matrix(revision)?),
            2 => {
                let (cache, _) = structure.decode::<Cache>()?;
                let (size, attributes) = (cache.size.get(), cache.attributes.get());
                let bits = |from: u32, count: u32| (attributes >> from) & ((1 << count) - 1);
                let domain = ProximityDomain(cache.memory.get());
                let (level, levels) = (bits(4, 4) as u8, bits(0, 4) as u8);
                if level == 0 && levels == 0 {
                    // That is how to say that there is none.
                    return Ok(());
                }
                if level == 0 || level > levels || size == 0 {
                    return Err(Complaint::BadMemoryCache { domain, level, levels, size });
                }
                let associativity = CacheAssociativity::ALL.get(bits(8, 4) as usize);
                let writes = CacheWrites::ALL.get(bits(12, 4) as usize);
                let cache = MemoryCache {
                    level,
                    size,
                    line: (attributes >> 16) as u16,
                    associativity: associativity.copied().unwrap_or(CacheAssociativity::Unknown),
                    writes: writes.copied().unwrap_or(CacheWrites::Unknown),
                };
                self.caches.push(DomainCache { domain, cache });
            }
            // Of a later version.
            _ => {}
        }
        Ok(())
    }
}

/// A structure of the HMAT.
struct Structure<'a> {
    offset: usize,
    kind: u16,
    bytes: &'a [u8],
}

impl<'a> Structure<'a> {
    /// The structure as that of its type, and what follows in it.
    fn decode<T: FromBytes + Immutable + KnownLayout + Unaligned>(
        &self,
    ) -> Result<(&'a T, &'a [u8]), Complaint> {
        T::ref_from_prefix(self.bytes).map_err(|_| {
            let &Self { offset, kind, bytes } = self;
            // The length came from 32 bits.
            Complaint::ShortEntry { table: Table::Hmat, offset, kind, length: bytes.len() as u32 }
        })
    }

    fn matrix(&self, revision: u8) -> Result<Matrix, Complaint> {
        let offset = self.offset;
        let (fixed, rest) = self.decode::<Locality>()?;
        let (initiators, targets) = (fixed.initiators.get(), fixed.targets.get());
        let too_short = Complaint::BadLocality { offset, initiators, targets, length: self.bytes.len() };
        let parts = || {
            let (rows, columns) = (usize::try_from(initiators).ok()?, usize::try_from(targets).ok()?);
            let (initiators, rest) = <[U32]>::ref_from_prefix_with_elems(rest, rows).ok()?;
            let (targets, rest) = <[U32]>::ref_from_prefix_with_elems(rest, columns).ok()?;
            let (entries, _) = <[U16]>::ref_from_prefix_with_elems(rest, rows.checked_mul(columns)?).ok()?;
            Some((initiators, targets, entries))
        };
        let (initiators, targets, entries) = parts().ok_or(too_short)?;
        let quantity = Quantity::ALL.get(usize::from(fixed.quantity)).copied();
        let quantity = quantity.ok_or(Complaint::UnknownQuantity { offset, quantity: fixed.quantity })?;
        // Revision 1, of version 6.2 of the specification, counts tenths of nanoseconds and of MB/s.
        let unit = match (revision, quantity.is_latency()) {
            (2.., _) => (fixed.unit.get(), 1),
            (_, true) => (fixed.unit.get().saturating_mul(100), 1),
            (_, false) => (fixed.unit.get(), 10),
        };
        let domains = |list: &[U32]| list.iter().map(|domain| ProximityDomain(domain.get())).collect();
        Ok(Matrix {
            quantity,
            hierarchy: fixed.flags & HIERARCHY,
            offset,
            initiators: domains(initiators),
            targets: domains(targets),
            entries: entries.iter().map(|entry| entry.get()).collect(),
            unit,
        })
    }
}

/// The structures of the table, up to one that ends nowhere.
struct Structures<'a> {
    table: &'a [u8],
    offset: usize,
}

impl<'a> Iterator for Structures<'a> {
    type Item = Result<Structure<'a>, Complaint>;

    fn next(&mut self) -> Option<Self::Item> {
        let &mut Self { table, offset } = self;
        let rest = table.get(offset..).filter(|rest| !rest.is_empty())?;
        let (kind, length) =
            Head::ref_from_prefix(rest).map_or((0, 0), |(head, _)| (head.kind.get(), head.length.get()));
        match usize::try_from(length).ok().and_then(|length| rest.get(..length)) {
            // Each structure has its head at least, so there is an end.
            Some(bytes) if bytes.len() >= size_of::<Head>() => {
                self.offset += bytes.len();
                Some(Ok(Structure { offset, kind, bytes }))
            }
            _ => {
                self.offset = table.len();
                Some(Err(Complaint::LostEntries { table: Table::Hmat, offset, length }))
            }
        }
    }
}
