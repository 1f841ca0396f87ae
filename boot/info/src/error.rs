//! Why the boot protocol's answers could not be used: one variant per cause.

use core::fmt;

use crate::address::{PhysAddr, PhysRange};
use crate::command_line::MAX_COMMAND_LINE;
use crate::memory_map::{MAX_REGIONS, TooManyRegions};
use crate::pvh::MAX_ENTRIES;

/// What is wrong with what the boot protocol says. The CPU driver can only print it and stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootError {
    /// PVH: the start info's magic number is another one.
    NotStartInfo {
        /// Where it should be.
        at: PhysAddr,
        /// The number found there.
        magic: u32,
    },
    /// PVH: the start info is of version 0, which has no memory map.
    OldStartInfo,
    /// Limine: the boot loader does not know the base revision.
    UnsupportedBaseRevision,
    /// Limine: the boot loader left a request without an answer.
    NoResponse {
        /// What was requested.
        request: &'static str,
    },
    /// Limine: a pointer does not point into the direct map.
    OutsideDirectMap {
        /// What it should point to.
        what: &'static str,
        /// The virtual address given.
        address: u64,
    },
    /// A table or string lies where nothing is mapped.
    Unreadable {
        /// What should be there.
        what: &'static str,
        /// Its address.
        at: PhysAddr,
    },
    /// There is no memory map, or it is empty.
    NoMemoryMap,
    /// The memory map is longer than anything that firmware makes.
    LongMemoryMap {
        /// How many entries it claims to have.
        entries: u32,
    },
    /// The memory map has too many regions, overlaps resolved and neighbours merged.
    TooManyRegions,
    /// No memory is free.
    NoUsableMemory,
    /// There is no boot module.
    NoArchive,
    /// There are several boot modules.
    SeveralModules {
        /// How many.
        count: u64,
    },
    /// The boot module is empty, wraps around or lies where no memory can be.
    BadArchive {
        /// Its address.
        base: PhysAddr,
        /// Its length in bytes.
        length: u64,
    },
    /// The boot module overlaps the CPU driver's image.
    ArchiveOverlapsKernel {
        /// Where the module is.
        archive: PhysRange,
        /// Where the image is.
        kernel: PhysRange,
    },
    /// The command line is too long.
    LongCommandLine,
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStartInfo { at, magic } => write!(
                f,
                "no PVH start info at {at}: its magic number is {magic:#x}, not 0x336ec578; boot with qemu -kernel \
                 or another PVH loader"
            ),
            Self::OldStartInfo => f.write_str(
                "the PVH start info is of version 0 and has no memory map; use QEMU 4.0 or later, or another loader \
                 of version 1",
            ),
            Self::UnsupportedBaseRevision => {
                f.write_str("Limine does not support base revision 3; use Limine 8.0 or later")
            }
            Self::NoResponse { request } => {
                write!(f, "Limine did not answer the request for the {request}; use Limine 8.0 or later")
            }
            Self::OutsideDirectMap { what, address } => {
                write!(f, "Limine gave {address:#x} for the {what}, which is not in its direct map")
            }
            Self::Unreadable { what, at } => {
                write!(f, "the {what} at {at} lies where no memory is mapped during boot")
            }
            Self::NoMemoryMap => f.write_str("the boot loader gave no memory map"),
            Self::LongMemoryMap { entries } => write!(
                f,
                "the memory map has {entries} entries, more than the {MAX_ENTRIES} that are read; it is damaged"
            ),
            Self::TooManyRegions => {
                write!(f, "the memory map has more than {MAX_REGIONS} regions; raise MAX_REGIONS in boot-info")
            }
            Self::NoUsableMemory => f.write_str("no region of the memory map is usable"),
            Self::NoArchive => {
                f.write_str("no boot module: give the boot archive by qemu -initrd or as Limine's module_path")
            }
            Self::SeveralModules { count } => {
                write!(f, "{count} boot modules: give one only, the boot archive, which holds all others")
            }
            Self::BadArchive { base, length } => {
                write!(f, "the boot archive cannot be {length:#x} bytes at {base}; the boot loader's list is damaged")
            }
            Self::ArchiveOverlapsKernel { archive, kernel } => {
                write!(f, "the boot archive {archive} overlaps the image of the CPU driver {kernel}")
            }
            Self::LongCommandLine => write!(f, "the command line has more than {MAX_COMMAND_LINE} bytes; shorten it"),
        }
    }
}

impl core::error::Error for BootError {}

impl From<TooManyRegions> for BootError {
    fn from(_: TooManyRegions) -> Self {
        Self::TooManyRegions
    }
}

/// The bytes handed over are not a filled [`BootInfo`](crate::BootInfo) of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotBootInfo;

impl fmt::Display for NotBootInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the boot information of this version: build the CPU driver and the domains together")
    }
}

impl core::error::Error for NotBootInfo {}
