//! [`BootInfo`]: the outcome of a conversion.

use zerocopy::{Immutable, IntoBytes, KnownLayout, TryFromBytes};

use crate::address::{PhysAddr, PhysRange};
use crate::command_line::CommandLine;
use crate::error::{BootError, NotBootInfo};
use crate::memory_map::{MemoryMap, RegionKind};

/// Marks a filled [`BootInfo`]. To be changed with the layout.
const MAGIC: u64 = u64::from_le_bytes(*b"KfBoot01");

/// How the CPU driver was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(u64)]
pub enum Protocol {
    /// By `qemu -kernel` or another loader of the PVH protocol.
    Pvh = 0,
    /// By Limine.
    Limine = 1,
}

/// What the boot protocol said, in one form.
///
/// [`BootInfo::EMPTY`] is all zeroes, so a static of it lies in `.bss`. It is about 8.5 KiB large and filled in place
/// by [`fill_from_pvh`](Self::fill_from_pvh) or [`fill_from_limine`](Self::fill_from_limine), so that it is never on
/// a stack.
#[derive(Clone, Debug, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BootInfo {
    magic: u64,
    protocol: Protocol,
    /// 0 if unknown: page 0 never holds the table.
    rsdp: PhysAddr,
    archive: PhysRange,
    kernel: PhysRange,
    direct_map_offset: u64,
    command_line: CommandLine,
    memory_map: MemoryMap,
}

const _: () = assert!(BootInfo::EMPTY.magic == 0, "an empty BootInfo must not pass for a filled one");

impl BootInfo {
    /// Nothing known yet.
    pub const EMPTY: Self = Self {
        magic: 0,
        protocol: Protocol::Pvh,
        rsdp: PhysAddr::new(0),
        archive: PhysRange::new(PhysAddr::new(0), 0),
        kernel: PhysRange::new(PhysAddr::new(0), 0),
        direct_map_offset: 0,
        command_line: CommandLine::EMPTY,
        memory_map: MemoryMap::EMPTY,
    };

    /// Reads it from the frame that the CPU driver hands to the first domain. Bytes after it are ignored.
    ///
    /// # Errors
    /// [`NotBootInfo`] if the bytes are too few, lie at an address that is not a multiple of 8, or are not what a
    /// CPU driver built from the same source wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<&Self, NotBootInfo> {
        let (info, _) = Self::try_ref_from_prefix(bytes).map_err(|_| NotBootInfo)?;
        if info.magic != MAGIC {
            return Err(NotBootInfo);
        }
        Ok(info)
    }

    /// The bytes that [`Self::from_bytes`] reads. None of them is padding.
    pub fn as_bytes(&self) -> &[u8] {
        IntoBytes::as_bytes(self)
    }

    /// How the CPU driver was entered.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Where the ACPI root pointer is, if the boot protocol knew.
    pub fn rsdp(&self) -> Option<PhysAddr> {
        (self.rsdp != PhysAddr::new(0)).then_some(self.rsdp)
    }

    /// Where the boot archive is. It is not empty; its ends may lie inside a page.
    pub fn archive(&self) -> PhysRange {
        self.archive
    }

    /// Where the image of the CPU driver was loaded.
    pub fn kernel(&self) -> PhysRange {
        self.kernel
    }

    /// What to add to a physical address for its virtual address while the boot protocol's page tables are in use:
    /// 0 under PVH, which begins with an identity map.
    pub fn direct_map_offset(&self) -> u64 {
        self.direct_map_offset
    }

    /// The words that the user or the host command gave.
    pub fn command_line(&self) -> &CommandLine {
        &self.command_line
    }

    /// What each part of physical memory may be used for.
    pub fn memory_map(&self) -> &MemoryMap {
        &self.memory_map
    }

    /// The same, for [`MemoryMap::reclaim_bootloader`].
    pub fn memory_map_mut(&mut self) -> &mut MemoryMap {
        &mut self.memory_map
    }

    /// Starts a conversion.
    pub(crate) fn clear(&mut self, protocol: Protocol, direct_map_offset: u64) {
        // Field by field: a whole value would go over the stack.
        self.magic = 0;
        self.protocol = protocol;
        self.rsdp = PhysAddr::new(0);
        self.archive = PhysRange::default();
        self.kernel = PhysRange::default();
        self.direct_map_offset = direct_map_offset;
        self.command_line.clear();
        self.memory_map.clear();
    }

    pub(crate) fn set_rsdp(&mut self, rsdp: PhysAddr) {
        self.rsdp = rsdp;
    }

    pub(crate) fn push_command_line(&mut self, byte: u8) -> Result<(), BootError> {
        self.command_line.push(byte).map_err(|_| BootError::LongCommandLine)
    }

    /// Ends a conversion: checks and marks what the loaded image and the archive take.
    pub(crate) fn finish(&mut self, kernel: PhysRange, archive: PhysRange) -> Result<(), BootError> {
        if archive.is_empty() || archive.clipped() != archive {
            return Err(BootError::BadArchive { base: archive.base(), length: archive.length() });
        }
        if archive.overlaps(kernel) {
            return Err(BootError::ArchiveOverlapsKernel { archive, kernel });
        }
        if self.memory_map.regions().is_empty() {
            return Err(BootError::NoMemoryMap);
        }
        self.memory_map.add(kernel, RegionKind::KernelAndModules)?;
        self.memory_map.add(archive, RegionKind::KernelAndModules)?;
        if self.memory_map.total(RegionKind::Usable) == 0 {
            return Err(BootError::NoUsableMemory);
        }
        self.kernel = kernel;
        self.archive = archive;
        self.magic = MAGIC;
        Ok(())
    }
}
