//! [`Tables`]: finds the ACPI tables that describe the machine, and copies those that are sound.
//!
//! The structures are those of the *ACPI Specification* 6.5, sections 5.2.5 to 5.2.8. The `acpi` crate reads them, from
//! copies that were checked here.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use acpi::rsdp::Rsdp;
use boot_info::{PAGE_SIZE, PhysAddr, PhysMemory, PhysRange, Unreadable};

use crate::complaint::{Complaint, Complaints};
use crate::firmware::{self, HEADER, ROOT_POINTER, Width};

/// The most bytes a table may have. A MADT of 4096 cores has 64 KiB, a SLIT of 256 nodes too.
pub const MAX_TABLE: u32 = 1 << 20;

/// The most tables that are looked at. Machines have about thirty.
pub const MAX_TABLES: usize = 256;

/// The size in bytes of the root pointer before revision 2, which is also what its first checksum covers.
const SHORT_ROOT_POINTER: usize = 20;

const ROOT_POINTER_SIGNATURE: &[u8; 8] = b"RSD PTR ";

/// Where a BIOS leaves the root pointer, on a boundary of [`BIOS_STEP`] bytes (section 5.2.5.1).
const BIOS_AREA: PhysRange = PhysRange::new(PhysAddr::new(0xe_0000), 0x2_0000);

/// See [`BIOS_AREA`].
const BIOS_STEP: usize = 16;

/// Where the BIOS says in which segment its extended data area is.
const EBDA_SEGMENT: PhysAddr = PhysAddr::new(0x40e);

/// How much of the extended data area may have the root pointer (section 5.2.5.1).
const EBDA_SEARCHED: u64 = 1024;

/// Where the extended data area may be: in the upper half of the memory below the video memory.
const EBDA_PLACES: PhysRange = PhysRange::new(PhysAddr::new(0x8_0000), 0x2_0000);

/// The tables that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// The root pointer.
    Rsdp,
    /// The list of the other tables, by 32-bit addresses.
    Rsdt,
    /// The same, by 64-bit addresses.
    Xsdt,
    /// The multiple APIC description table: the processors.
    Madt,
    /// The system resource affinity table: which processors and memory belong together.
    Srat,
    /// The system locality information table: how far they are from each other.
    Slit,
    /// The heterogeneous memory attribute table: latencies, bandwidths, and caches at memory.
    Hmat,
}

/// Copies of the tables, each complete with its header and with the right length and checksum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// The MADT.
    pub madt: Option<Vec<u8>>,
    /// The SRAT.
    pub srat: Option<Vec<u8>>,
    /// The SLIT.
    pub slit: Option<Vec<u8>>,
    /// The HMAT, which most machines do without.
    pub hmat: Option<Vec<u8>>,
}

impl Table {
    /// What its header begins with; the root pointer has no such header.
    const fn signature(self) -> Option<&'static [u8; 4]> {
        match self {
            Self::Rsdp => None,
            Self::Rsdt => Some(b"RSDT"),
            Self::Xsdt => Some(b"XSDT"),
            Self::Madt => Some(b"APIC"),
            Self::Srat => Some(b"SRAT"),
            Self::Slit => Some(b"SLIT"),
            Self::Hmat => Some(b"HMAT"),
        }
    }
}

impl Tables {
    /// Finds the tables from the root pointer at `rsdp` on. What cannot be used is left out.
    pub fn find(rsdp: Option<PhysAddr>, memory: &impl PhysMemory, complaints: &mut Complaints) -> Self {
        let mut tables = Self::default();
        let Some(rsdp) = rsdp.or_else(|| search(memory, complaints)) else {
            complaints.add(Complaint::NoRootPointer);
            return tables;
        };
        for at in list_tables(rsdp, memory, complaints) {
            let Ok(header) = read_header(at, memory) else {
                complaints.add(Complaint::Unreadable { table: None, at });
                continue;
            };
            let mut places = [
                (Table::Madt, &mut tables.madt),
                (Table::Srat, &mut tables.srat),
                (Table::Slit, &mut tables.slit),
                (Table::Hmat, &mut tables.hmat),
            ];
            let place = places.iter_mut().find(|(table, _)| table.signature() == Some(&header.signature));
            let Some((table, place)) = place else { continue };
            let table = *table;
            if place.is_some() {
                complaints.add(Complaint::RepeatedTable { table, at });
                continue;
            }
            match copy(table, at, memory) {
                Ok(copy) => **place = Some(copy),
                Err(complaint) => complaints.add(complaint),
            }
        }
        for (table, place) in
            [(Table::Madt, &tables.madt), (Table::Srat, &tables.srat), (Table::Slit, &tables.slit)]
        {
            // Distances matter only between nodes, which the SRAT makes. An HMAT few machines have.
            if place.is_none() && (table != Table::Slit || tables.srat.is_some()) {
                complaints.add(Complaint::Missing(table));
            }
        }
        tables
    }
}

/// The addresses in the XSDT, or in the RSDT where that cannot be used.
fn list_tables(rsdp: PhysAddr, memory: &impl PhysMemory, complaints: &mut Complaints) -> Vec<PhysAddr> {
    let [xsdt, rsdt] = match root_tables(rsdp, memory, complaints) {
        Ok(roots) => roots,
        Err(complaint) => {
            complaints.add(complaint);
            return Vec::new();
        }
    };
    let mut list = |table: Table, at: Option<PhysAddr>, width: Width| {
        let root = copy(table, at?, memory).map_err(|complaint| complaints.add(complaint)).ok()?;
        let (addresses, count) = firmware::addresses(&root, width);
        if count > MAX_TABLES {
            complaints.add(Complaint::TooManyTables { count });
        }
        // Firmware leaves zeroes for tables it decided not to have.
        Some(addresses.into_iter().filter(|&address| address != 0).map(PhysAddr::new).collect::<Vec<_>>())
    };
    list(Table::Xsdt, xsdt, Width::Bits64)
        .or_else(|| list(Table::Rsdt, rsdt, Width::Bits32))
        .unwrap_or_default()
}

/// The addresses of the XSDT and of the RSDT, in this order.
fn root_tables(
    at: PhysAddr,
    memory: &impl PhysMemory,
    complaints: &mut Complaints,
) -> Result<[Option<PhysAddr>; 2], Complaint> {
    let table = Table::Rsdp;
    let unreadable = |Unreadable| Complaint::Unreadable { table: Some(table), at };
    let mut bytes = [0; ROOT_POINTER];
    let short = read_short_root_pointer(at, memory, &mut bytes).map_err(unreadable)?;
    if short.signature() != *ROOT_POINTER_SIGNATURE {
        return Err(Complaint::BadSignature { table, at });
    }
    if sum(&bytes) != 0 {
        return Err(Complaint::BadChecksum { table, at });
    }
    let address = |address: u64| (address != 0).then(|| PhysAddr::new(address));
    let rsdt = address(short.rsdt_address().into());
    if short.revision() < 2 {
        return Ok([None, rsdt]);
    }
    memory.read(at, &mut bytes).map_err(unreadable)?;
    if sum(&bytes) != 0 {
        // The first part is sound: the RSDT may do.
        complaints.add(Complaint::BadChecksum { table, at });
        return Ok([None, rsdt]);
    }
    // Not by the accessor: that panics on the revision, which may be another one on this reading.
    Ok([address(firmware::root_pointer(bytes).xsdt_address), rsdt])
}

/// Reads the first part of a root pointer; the rest of `bytes` is left alone.
fn read_short_root_pointer(
    at: PhysAddr,
    memory: &impl PhysMemory,
    bytes: &mut [u8; ROOT_POINTER],
) -> Result<Rsdp, Unreadable> {
    memory.read(at, &mut bytes[..SHORT_ROOT_POINTER])?;
    Ok(firmware::root_pointer(*bytes))
}

/// Searches for a root pointer, the first part of which is sound, where a BIOS leaves it.
fn search(memory: &impl PhysMemory, complaints: &mut Complaints) -> Option<PhysAddr> {
    let mut segment = [0; 2];
    let ebda = memory.read(EBDA_SEGMENT, &mut segment).ok().and_then(|()| {
        let base = PhysAddr::new(u64::from(u16::from_le_bytes(segment)) << 4);
        EBDA_PLACES.contains(base).then(|| PhysRange::new(base, EBDA_SEARCHED).intersection(EBDA_PLACES))
    });
    let at = ebda.into_iter().chain([BIOS_AREA]).find_map(|area| search_area(area, memory))?;
    complaints.add(Complaint::FoundRootPointer { at });
    Some(at)
}

fn search_area(area: PhysRange, memory: &impl PhysMemory) -> Option<PhysAddr> {
    // A read may cost the mapping of a page, so there is one for each page. Those that cannot be read are passed over.
    let mut page = vec![0; PAGE_SIZE as usize];
    let mut at = area.base().as_u64();
    while at < area.end().as_u64() {
        let length = (area.end().as_u64() - at).min(PAGE_SIZE);
        let piece = &mut page[..length as usize];
        if memory.read(PhysAddr::new(at), piece).is_ok() {
            let starts = piece.chunks(BIOS_STEP).zip((at..).step_by(BIOS_STEP));
            let found = starts
                .filter(|(start, _)| start.starts_with(ROOT_POINTER_SIGNATURE))
                .map(|(_, address)| PhysAddr::new(address))
                .find(|&address| is_root_pointer(address, memory));
            if found.is_some() {
                return found;
            }
        }
        at += length;
    }
    None
}

fn is_root_pointer(at: PhysAddr, memory: &impl PhysMemory) -> bool {
    let mut bytes = [0; ROOT_POINTER];
    read_short_root_pointer(at, memory, &mut bytes)
        .is_ok_and(|short| short.signature() == *ROOT_POINTER_SIGNATURE && sum(&bytes) == 0)
}

/// Copies a table if it is what it should be.
fn copy(table: Table, at: PhysAddr, memory: &impl PhysMemory) -> Result<Vec<u8>, Complaint> {
    let unreadable = |Unreadable| Complaint::Unreadable { table: Some(table), at };
    let header = read_header(at, memory).map_err(unreadable)?;
    if Some(&header.signature) != table.signature() {
        return Err(Complaint::BadSignature { table, at });
    }
    let length = header.length;
    if !(HEADER as u32..=MAX_TABLE).contains(&length) {
        return Err(Complaint::BadLength { table, at, length });
    }
    let mut bytes = vec![0; length as usize];
    memory.read(at, &mut bytes).map_err(unreadable)?;
    if sum(&bytes) != 0 {
        return Err(Complaint::BadChecksum { table, at });
    }
    Ok(bytes)
}

/// What matters of the header of a table.
struct Header {
    signature: [u8; 4],
    length: u32,
}

fn read_header(at: PhysAddr, memory: &impl PhysMemory) -> Result<Header, Unreadable> {
    let mut bytes = [0; HEADER];
    memory.read(at, &mut bytes)?;
    // The constants of the `acpi` crate lack the HMAT, and its signatures cannot be made from bytes.
    let [a, b, c, d, ..] = bytes;
    Ok(Header { signature: [a, b, c, d], length: firmware::header(bytes).length() })
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsdp => "ACPI root pointer",
            Self::Rsdt => "RSDT",
            Self::Xsdt => "XSDT",
            Self::Madt => "MADT",
            Self::Srat => "SRAT",
            Self::Slit => "SLIT",
            Self::Hmat => "HMAT",
        })
    }
}
