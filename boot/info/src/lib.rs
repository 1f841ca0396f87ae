//! [`BootInfo`]: what the boot protocols say, in one form.
//!
//! The CPU driver is entered by PVH (`qemu -kernel`) or by Limine. Each leaves its own description of the machine
//! behind; [`pvh`] and [`limine`] turn either into the same [`BootInfo`]: the memory map, where the boot archive
//! and the CPU driver's image lie, the ACPI root pointer and the command line. The conversions are functions over
//! plain data, so that they run on the host against made-up machines; the only hardware access is the
//! [`PhysMemory`] that the caller passes in.
//!
//! What firmware says is untrusted. After a conversion, whatever the input:
//!
//! - the regions of the [`MemoryMap`] are sorted, page-aligned, disjoint, below 2^52, and merged where possible;
//! - memory that any entry calls something other than usable is not usable;
//! - archive and image are marked as taken.
//!
//! [`BootInfo`] is plain data of a fixed size without padding. It lives in the `.bss` of the boot-loaded image and
//! is later mapped read-only into the first user domain, which reads it with [`BootInfo::from_bytes`].
//!
//! [`CommandLine`] is the parser of the `key=value` words that the host command passes.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod address;
mod command_line;
mod error;
mod info;
pub mod limine;
mod memory_map;
pub mod pvh;

#[cfg(test)]
mod tests;

pub use address::{PAGE_SIZE, PHYSICAL_LIMIT, PageSize, PhysAddr, PhysMemory, PhysRange, Unreadable};
pub use command_line::{
    Accelerator, CommandLine, CommandLineError, LongCommandLine, MAX_COMMAND_LINE, MAX_SAMPLES, Names,
    POLICIES, Setting, Settings, Word, Words,
};
pub use error::{BootError, NotBootInfo};
pub use info::{BootInfo, Protocol};
pub use memory_map::{MAX_REGIONS, MemoryMap, Region, RegionKind, TooManyRegions, UsableChunks, UsableRuns};
