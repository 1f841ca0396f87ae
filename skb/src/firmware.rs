//! The border to the `acpi` crate: the only module of this crate with `unsafe` code.
//!
//! That crate reads structures where they lie and believes what they say. Nothing passes this border but copies that
//! are complete and whose lengths were checked, so that it can neither read past them nor go on for ever:
//!
//! - [`root_pointer`] and [`header`] take arrays of exactly the size of the structure;
//! - [`addresses`] gives it a whole root table, through a [`Handler`] that can only copy from that table;
//! - [`Madt`] collects entries each of which is as long as it says and as its type needs.
//!
//! [`crate::tables`] and [`crate::facts`] do the checks that firmware's bytes need, and all that follows.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::pin::Pin;
use core::ptr::{self, NonNull};

use acpi::rsdp::Rsdp;
use acpi::sdt::SdtHeader;
use acpi::sdt::madt::{self, LocalApicEntry, LocalX2ApicEntry, MadtEntryIter};
use acpi::{AcpiTables, Handler, PciAddress, RawPhysicalMapping};

use crate::tables::MAX_TABLES;

/// The size in bytes of the root pointer since revision 2.
pub(crate) const ROOT_POINTER: usize = size_of::<Rsdp>();

/// The size in bytes of the header of every other table.
pub(crate) const HEADER: usize = size_of::<SdtHeader>();

/// The size in bytes of the fixed part of the MADT.
pub(crate) const MADT: usize = size_of::<madt::Madt>();

/// Where the header has the length of the table, in 4 bytes.
const LENGTH: core::ops::Range<usize> = 4..8;

// *ACPI Specification* 6.5, sections 5.2.5.3, 5.2.6, 5.2.12, 5.2.12.2 and 5.2.12.12.
const _: () = assert!(ROOT_POINTER == 36);
const _: () = assert!(HEADER == 36);
const _: () = assert!(MADT == 44);
const _: () = assert!(size_of::<LocalApicEntry>() == 8);
const _: () = assert!(size_of::<LocalX2ApicEntry>() == 16);

/// The root pointer in these bytes. Before revision 2 those after the first 20 mean nothing.
pub(crate) fn root_pointer(bytes: [u8; ROOT_POINTER]) -> Rsdp {
    // SAFETY: `Rsdp` is `repr(C, packed)` of integers and arrays of them, for which all bytes are valid; `transmute`
    // checks the size.
    unsafe { core::mem::transmute::<[u8; ROOT_POINTER], Rsdp>(bytes) }
}

/// The header of a table in these bytes.
pub(crate) fn header(bytes: [u8; HEADER]) -> SdtHeader {
    // SAFETY: `SdtHeader` is `repr(C, packed)` of integers, arrays of them and a signature, which is a transparent
    // array of them, for which all bytes are valid; `transmute` checks the size.
    unsafe { core::mem::transmute::<[u8; HEADER], SdtHeader>(bytes) }
}

/// How wide the addresses in a root table are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    /// 4 bytes: the RSDT.
    Bits32,
    /// 8 bytes: the XSDT.
    Bits64,
}

/// The first [`MAX_TABLES`] addresses that a root table lists, and how many there are in all. `table` is the table from
/// its header on.
pub(crate) fn addresses(table: &[u8], width: Width) -> (Vec<u64>, usize) {
    let entry = match width {
        Width::Bits32 => 4,
        Width::Bits64 => 8,
    };
    // SAFETY: the demand is that there is a root table at this address. The handler has it at 0; should it be too short
    // or claim a greater length than it has, the rest are zeroes.
    let Ok(tables) = (unsafe { AcpiTables::from_rsdt(Copies(table), 0, entry) }) else {
        return (Vec::new(), 0);
    };
    let first = tables.table_entries().take(MAX_TABLES).map(|address| address as u64).collect();
    (first, tables.table_entries().count())
}

/// A physical memory with nothing but these bytes, from address 0 on, and zeroes after them. Every mapping is a copy,
/// as long as `acpi` asked for but not longer than these bytes, if they are enough for its type.
#[derive(Clone, Copy)]
struct Copies<'a>(&'a [u8]);

/// What there is no bus for: reads give all ones and writes go nowhere, as where no device answers. Only the
/// interpreter of AML, which is not built, would use them.
macro_rules! no_bus {
    ($($read:ident, $write:ident: ($($place:ident: $Place:ty),*) -> $Value:ty;)*) => {$(
        fn $read(&self, $($place: $Place),*) -> $Value {
            $(let _ = $place;)*
            <$Value>::MAX
        }

        fn $write(&self, $($place: $Place,)* value: $Value) {
            $(let _ = $place;)*
            let _ = value;
        }
    )*};
}

impl Handler for Copies<'_> {
    unsafe fn map_physical_region<T>(&self, address: usize, size: usize) -> RawPhysicalMapping<T> {
        // A copy has no other alignment. The structures of ACPI need none.
        const { assert!(align_of::<T>() == 1 && size_of::<T>() > 0) };
        let size = size.min(self.0.len()).max(size_of::<T>());
        let mut copy = vec![0; size].into_boxed_slice();
        let there = self.0.get(address..).unwrap_or_default();
        let length = there.len().min(size);
        copy[..length].copy_from_slice(&there[..length]);
        let start = NonNull::from(Box::leak(copy)).cast::<T>();
        // SAFETY: the copy is this mapping's alone, as it was just allocated; address and lengths are those by which
        // `unmap_physical_region` frees it. There is no `MappedGas`.
        unsafe { RawPhysicalMapping::new(address, start, size, size) }
    }

    unsafe fn unmap_physical_region<T>(&self, region: RawPhysicalMapping<T>) {
        // SAFETY: the caller says that the mapping is of this handler and used no more; so it is a boxed slice of
        // `mapped_length` bytes, leaked above, and this is its only end.
        unsafe {
            let start = region.virtual_start().as_ptr().cast::<u8>();
            drop(Box::from_raw(ptr::slice_from_raw_parts_mut(start, region.mapped_length())));
        }
    }

    no_bus! {
        read_u8, write_u8: (address: usize) -> u8;
        read_u16, write_u16: (address: usize) -> u16;
        read_u32, write_u32: (address: usize) -> u32;
        read_u64, write_u64: (address: usize) -> u64;
        read_io_u8, write_io_u8: (port: u16) -> u8;
        read_io_u16, write_io_u16: (port: u16) -> u16;
        read_io_u32, write_io_u32: (port: u16) -> u32;
        read_pci_u8, write_pci_u8: (address: PciAddress, offset: u16) -> u8;
        read_pci_u16, write_pci_u16: (address: PciAddress, offset: u16) -> u16;
        read_pci_u32, write_pci_u32: (address: PciAddress, offset: u16) -> u32;
    }

    fn nanos_since_boot(&self) -> u64 {
        0
    }

    fn stall(&self, _microseconds: u64) {}

    fn sleep(&self, _milliseconds: u64) {}
}

/// A MADT that `acpi` can be let loose on: the fixed part, and those entries that tell of processors and are sound.
///
/// The bytes are at least [`MADT`] many; those after the first [`MADT`] are entries of which each has the length that
/// its second byte says, which is not less than the structure of its type has; the header has their number as the
/// length of the table, or `u32::MAX` if that is less.
pub(crate) struct Madt(Vec<u8>);

/// An entry has not the length that it claims, or is too short for its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShortEntry;

impl Madt {
    /// A MADT with the fixed part of this one, without entries.
    pub(crate) fn new(fixed: &[u8; MADT]) -> Self {
        let mut new = Self(fixed.to_vec());
        new.set_length();
        new
    }

    /// Adds an entry if it tells of a processor. `acpi` refers to an entry of a type it knows as a whole, without a
    /// look at its length: those that nobody needs are not worth the risk.
    pub(crate) fn push(&mut self, entry: &[u8]) -> Result<(), ShortEntry> {
        let &[kind, length, ..] = entry else { return Err(ShortEntry) };
        let least = match kind {
            0 => size_of::<LocalApicEntry>(),
            9 => size_of::<LocalX2ApicEntry>(),
            _ => return Ok(()),
        };
        if entry.len() < least || entry.len() != usize::from(length) {
            return Err(ShortEntry);
        }
        self.0.extend_from_slice(entry);
        self.set_length();
        Ok(())
    }

    /// The entries in the order in which they were added.
    pub(crate) fn entries(&self) -> MadtEntryIter<'_> {
        // SAFETY: the bytes hold the fixed part, which is `repr(C, packed)` of integers and the header, for which all
        // bytes are valid. They are not changed while `self` is borrowed.
        let madt = unsafe { &*self.0.as_ptr().cast::<madt::Madt>() };
        // SAFETY: it lies in the heap, not to be moved while `self` is borrowed. The iterator goes by the length in the
        // header, which is not more than there are bytes, from entry to entry, none of which ends past the table. That
        // it steps from a reference to the fixed part to the bytes behind is how the crate is made; they are of the
        // same allocation, and nobody has a unique reference to them.
        unsafe { Pin::new_unchecked(madt) }.entries()
    }

    fn set_length(&mut self) {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[LENGTH].copy_from_slice(&length.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(length: u32, body: &[u8]) -> Vec<u8> {
        let mut table = vec![0; HEADER];
        table[LENGTH].copy_from_slice(&length.to_le_bytes());
        table.extend_from_slice(body);
        table
    }

    #[test]
    fn a_root_table_cannot_lead_outside() {
        let body = [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0];
        assert_eq!(addresses(&root(44, &body), Width::Bits32), (vec![1, 2], 2));
        assert_eq!(addresses(&root(44, &body), Width::Bits64), (vec![0x2_0000_0001], 1));
        // One that claims too much, too little, or is cut off within the header.
        assert_eq!(addresses(&root(u32::MAX, &body), Width::Bits32), (vec![1, 2], 2));
        assert_eq!(addresses(&root(0, &body), Width::Bits32), (vec![], 0));
        assert_eq!(addresses(&root(44, &body)[..20], Width::Bits64), (vec![], 0));
        assert_eq!(addresses(&[], Width::Bits32), (vec![], 0));
    }

    #[test]
    fn only_the_first_addresses_are_taken() {
        let body: Vec<u8> = (1..=MAX_TABLES as u32 + 7).flat_map(u32::to_le_bytes).collect();
        let (first, count) = addresses(&root((HEADER + body.len()) as u32, &body), Width::Bits32);
        assert_eq!(first, (1..=MAX_TABLES as u64).collect::<Vec<_>>());
        assert_eq!(count, MAX_TABLES + 7);
    }

    #[test]
    fn only_sound_entries_come_in() {
        let mut madt = Madt::new(&[0xff; MADT]);
        assert_eq!(madt.entries().count(), 0);
        for refused in [
            &[][..],
            &[0],
            &[0, 0, 1, 1, 1, 0, 0, 0],
            &[0, 9, 1, 1, 1, 0, 0, 0],
            &[0, 7, 1, 1, 1, 0, 0],
            &[9, 8, 1, 1, 1, 0, 0, 0],
        ] {
            assert_eq!(madt.push(refused), Err(ShortEntry), "{refused:?}");
        }
        assert_eq!(madt.push(&[1, 0]), Ok(()));
        assert_eq!(madt.entries().count(), 0);
        assert_eq!(madt.push(&[0, 9, 1, 7, 1, 0, 0, 0, 0xee]), Ok(()));
        assert_eq!(madt.push(&[9, 16, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]), Ok(()));
        let apics: Vec<u32> = madt
            .entries()
            .map(|entry| match entry {
                madt::MadtEntry::LocalApic(local) => local.apic_id.into(),
                madt::MadtEntry::LocalX2Apic(local) => local.x2apic_id,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(apics, [7, 8]);
    }
}
