//! From the PVH start info: the structures that Xen defined (`public/arch-x86/hvm/start_info.h`) and QEMU fills.
//!
//! Everything is little-endian, packed by natural alignment, and addressed physically.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::address::{PhysAddr, PhysMemory, PhysRange};
use crate::error::BootError;
use crate::info::{BootInfo, Protocol};
use crate::memory_map::RegionKind;

/// The first word of the start info.
pub const START_INFO_MAGIC: u32 = 0x336e_c578;

/// The most entries of a memory map that are read. Firmware makes about twenty; Linux reads 3200 at most.
pub const MAX_ENTRIES: u32 = 4096;

/// `struct hvm_start_info`, version 1.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct StartInfo {
    pub(crate) magic: U32,
    pub(crate) version: U32,
    pub(crate) flags: U32,
    pub(crate) module_count: U32,
    pub(crate) modules: U64,
    pub(crate) command_line: U64,
    pub(crate) rsdp: U64,
    pub(crate) memory_map: U64,
    pub(crate) memory_map_entries: U32,
    pub(crate) reserved: U32,
}

/// `struct hvm_modlist_entry`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct ModuleEntry {
    pub(crate) address: U64,
    pub(crate) size: U64,
    pub(crate) command_line: U64,
    pub(crate) reserved: U64,
}

/// `struct hvm_memmap_table_entry`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct MemoryEntry {
    pub(crate) address: U64,
    pub(crate) size: U64,
    pub(crate) kind: U32,
    pub(crate) reserved: U32,
}

const _: () = assert!(size_of::<StartInfo>() == 56);
const _: () = assert!(size_of::<ModuleEntry>() == 32);
const _: () = assert!(size_of::<MemoryEntry>() == 24);

impl BootInfo {
    /// Fills this from the start info at `start_info` (the value of `ebx` at the PVH entry). `kernel` is where the
    /// loader put the CPU driver's image, the zeroed part included.
    ///
    /// # Errors
    /// A [`BootError`] if anything is missing, damaged or out of reach of `memory`; this is then not to be used.
    pub fn fill_from_pvh(
        &mut self,
        start_info: PhysAddr,
        kernel: PhysRange,
        memory: &impl PhysMemory,
    ) -> Result<(), BootError> {
        self.clear(Protocol::Pvh, 0);
        let at = start_info;
        let start_info: StartInfo = read(memory, at, "PVH start info")?;
        if start_info.magic != START_INFO_MAGIC {
            return Err(BootError::NotStartInfo { at, magic: start_info.magic.get() });
        }
        if start_info.version < 1 {
            return Err(BootError::OldStartInfo);
        }
        self.add_memory_map(&start_info, memory)?;
        self.set_rsdp(PhysAddr::new(start_info.rsdp.get()));
        self.copy_command_line(PhysAddr::new(start_info.command_line.get()), memory)?;
        let archive = match start_info.module_count.get() {
            0 => return Err(BootError::NoArchive),
            1 => read_module(PhysAddr::new(start_info.modules.get()), memory)?,
            count => return Err(BootError::SeveralModules { count: count.into() }),
        };
        self.finish(kernel, archive)
    }

    fn add_memory_map(&mut self, start_info: &StartInfo, memory: &impl PhysMemory) -> Result<(), BootError> {
        let entries = start_info.memory_map_entries.get();
        if entries == 0 || start_info.memory_map == 0 {
            return Err(BootError::NoMemoryMap);
        }
        if entries > MAX_ENTRIES {
            return Err(BootError::LongMemoryMap { entries });
        }
        let table = PhysAddr::new(start_info.memory_map.get());
        for index in 0..u64::from(entries) {
            let offset = index * size_of::<MemoryEntry>() as u64;
            let entry: MemoryEntry = read(memory, offset_by(table, offset), "PVH memory map")?;
            let range = PhysRange::new(PhysAddr::new(entry.address.get()), entry.size.get());
            self.memory_map_mut().add(range, kind_of(entry.kind.get()))?;
        }
        Ok(())
    }

    fn copy_command_line(&mut self, at: PhysAddr, memory: &impl PhysMemory) -> Result<(), BootError> {
        if at == PhysAddr::new(0) {
            return Ok(());
        }
        // Byte by byte: the string may end just before unmapped memory.
        for offset in 0.. {
            let byte: u8 = read(memory, offset_by(at, offset), "command line")?;
            if byte == 0 {
                break;
            }
            self.push_command_line(byte)?;
        }
        Ok(())
    }
}

fn read_module(at: PhysAddr, memory: &impl PhysMemory) -> Result<PhysRange, BootError> {
    let module: ModuleEntry = read(memory, at, "PVH module list")?;
    Ok(PhysRange::new(PhysAddr::new(module.address.get()), module.size.get()))
}

fn read<T: FromBytes + IntoBytes>(
    memory: &impl PhysMemory,
    at: PhysAddr,
    what: &'static str,
) -> Result<T, BootError> {
    let mut value = T::new_zeroed();
    memory.read(at, value.as_mut_bytes()).map_err(|_| BootError::Unreadable { what, at })?;
    Ok(value)
}

/// A sum that wraps around ends at the top, where nothing is readable.
fn offset_by(address: PhysAddr, offset: u64) -> PhysAddr {
    PhysAddr::new(address.as_u64().saturating_add(offset))
}

/// The types of the e820 map (*ACPI Specification* 6.5, table 15.4). Those not known here are not memory to use.
fn kind_of(kind: u32) -> RegionKind {
    match kind {
        1 => RegionKind::Usable,
        3 => RegionKind::AcpiReclaimable,
        4 => RegionKind::AcpiNvs,
        5 => RegionKind::Bad,
        _ => RegionKind::Reserved,
    }
}
