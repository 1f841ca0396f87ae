//! [`Facts`]: what the tables say, entry by entry, before any of it is put together.
//!
//! The structures are those of the *ACPI Specification* 6.5: the MADT of section 5.2.12, the SRAT of section 5.2.16,
//! the SLIT of section 5.2.17. The HMAT is read by [`crate::hmat`], CPUID by [`crate::cpuid`].

use alloc::vec::Vec;

use acpi::sdt::madt::MadtEntry;
use boot_info::{PhysAddr, PhysRange};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::complaint::{Complaint, Complaints};
use crate::cpuid::Processors;
use crate::firmware::{self, HEADER, ShortEntry};
use crate::hmat::Hmat;
use crate::id::{ApicId, Distance, ProximityDomain};
use crate::tables::{Table, Tables};

/// What the tables say, in the order in which they say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The processors of the MADT, but for places that no processor can be plugged into.
    pub processors: Vec<Processor>,
    /// Where the SRAT puts processors.
    pub processor_affinities: Vec<ProcessorAffinity>,
    /// Where the SRAT puts memory.
    pub memory_affinities: Vec<MemoryAffinity>,
    /// The matrix of the SLIT.
    pub distances: Option<Distances>,
    /// The HMAT.
    pub hmat: Option<Hmat>,
    /// What CPUID says.
    pub cpuid: Processors,
}

/// A processor of the MADT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Its local APIC.
    pub apic: ApicId,
    /// Whether it can be started.
    pub state: CoreState,
}

/// Whether a core can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CoreState {
    /// It can.
    Enabled,
    /// It is not there yet, but can be plugged in while the system runs.
    HotPluggable,
}

/// The SRAT says that a processor belongs to a proximity domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessorAffinity {
    /// The processor.
    pub apic: ApicId,
    /// Its domain.
    pub domain: ProximityDomain,
}

/// The SRAT says that a range of addresses belongs to a proximity domain. It tells where memory is if there is any:
/// what there is tells the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryAffinity {
    /// The range, not empty.
    pub range: PhysRange,
    /// Its domain.
    pub domain: ProximityDomain,
}

/// The matrix of a SLIT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distances {
    localities: u32,
    /// Row by row: from the first locality to each, from the second to each, and so on.
    matrix: Vec<u8>,
}

/// The beginning of the SRAT; entries follow.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Srat {
    header: [u8; HEADER],
    _reserved: [u8; 12],
}

/// The beginning of the SLIT; the matrix follows.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Slit {
    _header: [u8; HEADER],
    localities: U64,
}

/// SRAT, type 0.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ApicAffinity {
    _kind: u8,
    _length: u8,
    domain_low: u8,
    apic: u8,
    flags: U32,
    _sapic: u8,
    domain_high: [u8; 3],
    _clock: U32,
}

/// SRAT, type 1.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RangeAffinity {
    _kind: u8,
    _length: u8,
    domain: U32,
    _reserved: U16,
    base: U64,
    length: U64,
    _reserved2: U32,
    flags: U32,
    _reserved3: U64,
}

/// SRAT, type 2.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct X2ApicAffinity {
    _kind: u8,
    _length: u8,
    _reserved: U16,
    domain: U32,
    apic: U32,
    flags: U32,
    _clock: U32,
    _reserved2: U32,
}

const _: () = assert!(size_of::<Srat>() == 48);
const _: () = assert!(size_of::<Slit>() == 44);
const _: () = assert!(size_of::<ApicAffinity>() == 16);
const _: () = assert!(size_of::<RangeAffinity>() == 40);
const _: () = assert!(size_of::<X2ApicAffinity>() == 24);

const MADT_ENABLED: u32 = 1 << 0;
const MADT_ONLINE_CAPABLE: u32 = 1 << 1;
const SRAT_ENABLED: u32 = 1 << 0;
/// Memory that keeps its contents without power is not RAM to be handed out.
const SRAT_NON_VOLATILE: u32 = 1 << 2;

impl Facts {
    /// Reads the tables. Entries that cannot be used are left out. What CPUID says is left to the caller.
    pub fn from_tables(tables: &Tables, complaints: &mut Complaints) -> Self {
        let mut facts = Self::default();
        if let Some(madt) = &tables.madt {
            facts.read_madt(madt, complaints);
        }
        if let Some(srat) = &tables.srat {
            facts.read_srat(srat, complaints);
        }
        facts.distances = tables.slit.as_ref().and_then(|slit| Distances::read(slit, complaints));
        facts.hmat = tables.hmat.as_ref().map(|hmat| Hmat::read(hmat, complaints));
        facts
    }

    fn read_madt(&mut self, madt: &[u8], complaints: &mut Complaints) {
        let Some(fixed) = madt.first_chunk() else { return };
        let mut sound = firmware::Madt::new(fixed);
        for entry in Entries::new(Table::Madt, madt, fixed.len()) {
            let pushed =
                entry.and_then(|entry| sound.push(entry.bytes).map_err(|ShortEntry| entry.too_short()));
            if let Err(complaint) = pushed {
                complaints.add(complaint);
            }
        }
        for entry in sound.entries() {
            match processor_of(&entry) {
                Ok(Some(processor)) => self.processors.push(processor),
                Ok(None) => {}
                Err(complaint) => complaints.add(complaint),
            }
        }
    }

    fn read_srat(&mut self, srat: &[u8], complaints: &mut Complaints) {
        // Until revision 2 a domain had 8 bits; the bytes that later made it longer may hold anything.
        let revision =
            Srat::ref_from_prefix(srat).map_or(0, |(srat, _)| firmware::header(srat.header).revision);
        let domain_mask = if revision < 2 { 0xff } else { u32::MAX };
        for entry in Entries::new(Table::Srat, srat, size_of::<Srat>()) {
            match entry.and_then(|entry| affinity_of(&entry, domain_mask)) {
                Ok(Some(Affinity::Processor(affinity))) => self.processor_affinities.push(affinity),
                Ok(Some(Affinity::Memory(affinity))) => self.memory_affinities.push(affinity),
                Ok(None) => {}
                Err(complaint) => complaints.add(complaint),
            }
        }
    }
}

/// What an entry of the SRAT says.
enum Affinity {
    Processor(ProcessorAffinity),
    Memory(MemoryAffinity),
}

/// What an entry of the MADT says of a processor, if anything.
fn processor_of(entry: &MadtEntry<'_>) -> Result<Option<Processor>, Complaint> {
    // All ones, as wide as the field is, are no processor but all of them.
    let (apic, flags, broadcast) = match entry {
        MadtEntry::LocalApic(local) => (local.apic_id.into(), local.flags, u8::MAX.into()),
        MadtEntry::LocalX2Apic(local) => (local.x2apic_id, local.flags, u32::MAX),
        _ => return Ok(None),
    };
    let state = if flags & MADT_ENABLED != 0 {
        CoreState::Enabled
    } else if flags & MADT_ONLINE_CAPABLE != 0 {
        CoreState::HotPluggable
    } else {
        // Firmware lists every processor that there might have been.
        return Ok(None);
    };
    if apic == broadcast {
        return Err(Complaint::BroadcastApic(ApicId(apic)));
    }
    Ok(Some(Processor { apic: ApicId(apic), state }))
}

/// What an entry of the SRAT says of processors or memory that can be used, if anything.
fn affinity_of(entry: &Entry<'_>, domain_mask: u32) -> Result<Option<Affinity>, Complaint> {
    let processor = |apic, domain, flags: U32| {
        let affinity =
            ProcessorAffinity { apic: ApicId(apic), domain: ProximityDomain(domain & domain_mask) };
        (flags.get() & SRAT_ENABLED != 0).then_some(Affinity::Processor(affinity))
    };
    match entry.kind {
        0 => {
            let affinity: &ApicAffinity = entry.decode()?;
            let [b1, b2, b3] = affinity.domain_high;
            let domain = u32::from_le_bytes([affinity.domain_low, b1, b2, b3]);
            Ok(processor(affinity.apic.into(), domain, affinity.flags))
        }
        1 => {
            let affinity: &RangeAffinity = entry.decode()?;
            let domain = ProximityDomain(affinity.domain.get() & domain_mask);
            let (base, length) = (PhysAddr::new(affinity.base.get()), affinity.length.get());
            let range = PhysRange::new(base, length);
            if affinity.flags.get() & (SRAT_ENABLED | SRAT_NON_VOLATILE) != SRAT_ENABLED || length == 0 {
                return Ok(None);
            }
            if range.clipped() != range {
                return Err(Complaint::BadMemory { domain, base, length });
            }
            Ok(Some(Affinity::Memory(MemoryAffinity { range, domain })))
        }
        2 => {
            let affinity: &X2ApicAffinity = entry.decode()?;
            Ok(processor(affinity.apic.get(), affinity.domain.get(), affinity.flags))
        }
        _ => Ok(None),
    }
}

impl Distances {
    fn read(slit: &[u8], complaints: &mut Complaints) -> Option<Self> {
        let localities = Slit::ref_from_prefix(slit).map_or(0, |(slit, _)| slit.localities.get());
        let matrix = localities
            .checked_mul(localities)
            .and_then(|size| usize::try_from(size).ok())
            .and_then(|size| slit.get(size_of::<Slit>()..)?.get(..size))
            .filter(|matrix| !matrix.is_empty());
        let Some(matrix) = matrix else {
            complaints.add(Complaint::BadMatrix { localities, length: slit.len() });
            return None;
        };
        // A matrix that is in the table has fewer rows than the table has bytes.
        Some(Self { localities: localities as u32, matrix: matrix.to_vec() })
    }

    /// How many proximity domains it has, which are those from 0 on.
    pub fn localities(&self) -> u32 {
        self.localities
    }

    /// What it says of the distance of the memory of `to` from `from`.
    pub fn get(&self, from: ProximityDomain, to: ProximityDomain) -> Option<Distance> {
        let (from, to) = (from.0, to.0);
        let inside = from < self.localities && to < self.localities;
        let place = from as usize * self.localities as usize + to as usize;
        inside.then(|| self.matrix.get(place).copied().map(Distance)).flatten()
    }
}

/// An entry of the MADT or the SRAT: a byte of type, a byte of length, and the rest.
struct Entry<'a> {
    table: Table,
    offset: usize,
    kind: u8,
    bytes: &'a [u8],
}

/// The entries of a table, up to one that ends nowhere.
struct Entries<'a> {
    table: Table,
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Entry<'a> {
    /// The entry as the structure of its type; longer entries are of a later version.
    fn decode<T: FromBytes + Immutable + KnownLayout + Unaligned>(&self) -> Result<&'a T, Complaint> {
        T::ref_from_prefix(self.bytes).map(|(value, _)| value).map_err(|_| self.too_short())
    }

    fn too_short(&self) -> Complaint {
        let &Self { table, offset, kind, bytes } = self;
        // The length came from a byte.
        Complaint::ShortEntry { table, offset, kind: kind.into(), length: bytes.len() as u32 }
    }
}

impl<'a> Entries<'a> {
    fn new(table: Table, bytes: &'a [u8], offset: usize) -> Self {
        Self { table, bytes, offset }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, Complaint>;

    fn next(&mut self) -> Option<Self::Item> {
        let &mut Self { table, bytes, offset } = self;
        let rest = bytes.get(offset..)?;
        let &kind = rest.first()?;
        let length = rest.get(1).copied().unwrap_or(0);
        match rest.get(..length.into()) {
            // Each entry has its two bytes at least, so there is an end.
            Some(entry) if length >= 2 => {
                self.offset += entry.len();
                Some(Ok(Entry { table, offset, kind, bytes: entry }))
            }
            _ => {
                self.offset = bytes.len();
                Some(Err(Complaint::LostEntries { table, offset, length: length.into() }))
            }
        }
    }
}
