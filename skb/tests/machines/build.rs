//! Builds ACPI tables and puts them into a physical memory.

use boot_info::{PhysAddr, PhysMemory, Unreadable};
use skb::cpuid::Registers;
use skb::{ApicId, Discovery, discover};

pub(crate) const RSDP: u64 = 0xf_5a80;
pub(crate) const XSDT: u64 = 0x7ff_e000;
pub(crate) const RSDT: u64 = 0x7ff_d000;
/// Tables lie from here on, [`SPACING`] apart.
pub(crate) const TABLES: u64 = 0x1000_0000;
pub(crate) const SPACING: u64 = 0x20_0000;

/// Pieces of physical memory; all else is unmapped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pieces(pub(crate) Vec<(u64, Vec<u8>)>);

impl PhysMemory for Pieces {
    fn read(&self, address: PhysAddr, into: &mut [u8]) -> Result<(), Unreadable> {
        for (at, bytes) in &self.0 {
            if let Some(offset) = address.as_u64().checked_sub(*at)
                && let Some(found) = bytes.get(offset as usize..).and_then(|rest| rest.get(..into.len()))
            {
                into.copy_from_slice(found);
                return Ok(());
            }
        }
        Err(Unreadable)
    }
}

impl Pieces {
    pub(crate) fn discover(&self, boot: u32) -> Discovery {
        self.discover_with(boot, no_cpuid)
    }

    pub(crate) fn discover_with(&self, boot: u32, cpuid: impl Fn(u32, u32) -> Registers) -> Discovery {
        discover(Some(PhysAddr::new(RSDP)), self, cpuid, ApicId(boot))
    }
}

/// A core whose CPUID has no leaf.
pub(crate) fn no_cpuid(_leaf: u32, _subleaf: u32) -> Registers {
    [0; 4]
}

/// Makes the byte at `at` such that all sum up to zero.
pub(crate) fn seal(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    bytes[at] = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
}

/// A table with a header around `body`.
pub(crate) fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut table = Vec::new();
    table.extend(signature);
    table.extend((36 + body.len() as u32).to_le_bytes());
    table.extend([revision, 0]);
    table.extend(b"KILLIFTESTMACH");
    table.extend(1u32.to_le_bytes());
    table.extend(b"TEST");
    table.extend(1u32.to_le_bytes());
    assert_eq!(table.len(), 36);
    table.extend(body);
    seal(&mut table, 9);
    table
}

pub(crate) const ENABLED: u32 = 1;
pub(crate) const ONLINE_CAPABLE: u32 = 2;

pub(crate) fn local_apic(apic: u8, flags: u32) -> Vec<u8> {
    let mut entry = vec![0, 8, apic, apic];
    entry.extend(flags.to_le_bytes());
    entry
}

pub(crate) fn local_x2apic(apic: u32, flags: u32) -> Vec<u8> {
    let mut entry = vec![9, 16, 0, 0];
    for word in [apic, flags, apic] {
        entry.extend(word.to_le_bytes());
    }
    entry
}

pub(crate) fn madt(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(0xfee0_0000u32.to_le_bytes());
    body.extend(1u32.to_le_bytes());
    body.extend(entries.concat());
    table(b"APIC", 3, &body)
}

pub(crate) fn apic_affinity(apic: u8, domain: u32, flags: u32) -> Vec<u8> {
    let [low, high @ ..] = domain.to_le_bytes();
    let mut entry = vec![0, 16, low, apic];
    entry.extend(flags.to_le_bytes());
    entry.push(0);
    entry.extend(high);
    entry.extend([0; 4]);
    entry
}

pub(crate) fn x2apic_affinity(apic: u32, domain: u32, flags: u32) -> Vec<u8> {
    let mut entry = vec![2, 24, 0, 0];
    for word in [domain, apic, flags, 0, 0] {
        entry.extend(word.to_le_bytes());
    }
    entry
}

pub(crate) fn memory_affinity(domain: u32, base: u64, length: u64, flags: u32) -> Vec<u8> {
    let mut entry = vec![1, 40];
    entry.extend(domain.to_le_bytes());
    entry.extend([0; 2]);
    entry.extend(base.to_le_bytes());
    entry.extend(length.to_le_bytes());
    entry.extend([0; 4]);
    entry.extend(flags.to_le_bytes());
    entry.extend([0; 8]);
    entry
}

pub(crate) fn srat(revision: u8, entries: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    body.extend(entries.concat());
    table(b"SRAT", revision, &body)
}

pub(crate) fn slit(localities: u64, matrix: &[u8]) -> Vec<u8> {
    let mut body = localities.to_le_bytes().to_vec();
    body.extend(matrix);
    table(b"SLIT", 1, &body)
}

fn structure(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut structure = kind.to_le_bytes().to_vec();
    structure.extend([0; 2]);
    structure.extend((8 + body.len() as u32).to_le_bytes());
    structure.extend(body);
    structure
}

pub(crate) fn proximity(memory: u32, initiator: Option<u32>) -> Vec<u8> {
    let mut body = u16::from(initiator.is_some()).to_le_bytes().to_vec();
    body.extend([0; 2]);
    body.extend(initiator.unwrap_or(0).to_le_bytes());
    body.extend(memory.to_le_bytes());
    body.extend([0; 20]);
    structure(0, &body)
}

/// Numbers of quantities, as the HMAT has them.
pub(crate) const ACCESS_LATENCY: u8 = 0;
pub(crate) const READ_LATENCY: u8 = 1;
pub(crate) const ACCESS_BANDWIDTH: u8 = 3;
pub(crate) const WRITE_BANDWIDTH: u8 = 5;

pub(crate) fn locality(
    quantity: u8,
    unit: u64,
    initiators: &[u32],
    targets: &[u32],
    entries: &[u16],
) -> Vec<u8> {
    let mut body = vec![0, quantity, 0, 0];
    body.extend((initiators.len() as u32).to_le_bytes());
    body.extend((targets.len() as u32).to_le_bytes());
    body.extend([0; 4]);
    body.extend(unit.to_le_bytes());
    body.extend(initiators.iter().chain(targets).flat_map(|domain| domain.to_le_bytes()));
    body.extend(entries.iter().flat_map(|entry| entry.to_le_bytes()));
    structure(1, &body)
}

pub(crate) fn memory_cache(domain: u32, size: u64, attributes: u32) -> Vec<u8> {
    let mut body = domain.to_le_bytes().to_vec();
    body.extend([0; 4]);
    body.extend(size.to_le_bytes());
    body.extend(attributes.to_le_bytes());
    body.extend([0; 4]);
    structure(2, &body)
}

pub(crate) fn hmat(revision: u8, structures: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(structures.concat());
    table(b"HMAT", revision, &body)
}

/// An HMAT for [`ordinary`].
pub(crate) fn ordinary_hmat() -> Vec<u8> {
    hmat(
        2,
        &[
            proximity(0, Some(0)),
            proximity(1, Some(1)),
            locality(ACCESS_LATENCY, 1000, &[0, 1], &[0, 1], &[80, 140, 140, 80]),
            locality(ACCESS_BANDWIDTH, 100, &[0, 1], &[0, 1], &[200, 100, 100, 200]),
            memory_cache(1, 64 << 20, 0x40_1111),
        ],
    )
}

pub(crate) fn rsdp(revision: u8, rsdt: u32, xsdt: u64) -> Vec<u8> {
    let mut rsdp = b"RSD PTR \0KILLIF".to_vec();
    rsdp.push(revision);
    rsdp.extend(rsdt.to_le_bytes());
    seal(&mut rsdp, 8);
    if revision >= 2 {
        rsdp.extend(36u32.to_le_bytes());
        rsdp.extend(xsdt.to_le_bytes());
        rsdp.extend([0; 4]);
        seal(&mut rsdp, 32);
    }
    rsdp
}

/// A memory with these tables, listed by an XSDT.
pub(crate) fn memory(tables: &[Vec<u8>]) -> Pieces {
    let addresses: Vec<u64> = (0..tables.len() as u64).map(|index| TABLES + index * SPACING).collect();
    let mut pieces = Pieces::default();
    pieces.0.push((RSDP, rsdp(2, 0, XSDT)));
    let list: Vec<u8> = addresses.iter().flat_map(|address| address.to_le_bytes()).collect();
    pieces.0.push((XSDT, table(b"XSDT", 1, &list)));
    pieces.0.extend(addresses.into_iter().zip(tables.iter().cloned()));
    pieces
}

pub(crate) const GIB: u64 = 1 << 30;

/// Eight cores on two nodes of 1 GiB each, as QEMU makes them.
pub(crate) fn ordinary() -> [Vec<u8>; 3] {
    let cores: Vec<_> = (0..8).map(|apic| local_apic(apic, ENABLED)).collect();
    let mut affinities: Vec<_> = (0..8).map(|apic| apic_affinity(apic, (apic / 4).into(), ENABLED)).collect();
    affinities.push(memory_affinity(0, 0, 0xa_0000, ENABLED));
    affinities.push(memory_affinity(0, 0x10_0000, GIB - 0x10_0000, ENABLED));
    affinities.push(memory_affinity(1, GIB, GIB, ENABLED));
    affinities.push(memory_affinity(0, 0, 0, 0));
    [madt(&cores), srat(1, &affinities), slit(2, &[10, 21, 21, 10])]
}
