//! The virtual address space of every domain and of the CPU driver.
//!
//! Levels 4 slots 0–254 belong to the domain, slot 255 stays empty (so that the address after a `syscall`
//! instruction is always canonical and `sysret` cannot fault), slots 256–511 are the CPU driver's: the
//! same addresses on every core, other pages.

/// First address that a domain may map.
pub const USER_BASE: u64 = 0x1000;
/// First address past those that a domain may map.
pub const USER_TOP: u64 = 255 << 39;
/// Slots of the root page table that a domain may use: `0..USER_ROOT_SLOTS`.
pub const USER_ROOT_SLOTS: usize = 255;

/// The CPU driver's window on the physical memory it owns: address = this + physical address.
pub const PHYS_WINDOW: u64 = 0xffff_8000_0000_0000;
/// Bytes of the window: physical addresses at and above this are out of the CPU driver's reach.
pub const PHYS_WINDOW_SIZE: u64 = 64 << 40;
/// Where the CPU driver's image and its instance block lie.
pub const KERNEL_BASE: u64 = 0xffff_ffff_8020_0000;
/// The CPU driver's pages for the rings of links between cores, read-only or writable one by one.
pub const LINK_AREA: u64 = 0xffff_ffff_8040_0000;
/// Pages in [`LINK_AREA`], hence configured links that a core can have.
pub const LINKS_MAX: u64 = 1024;

/// Where the domain's image is linked.
pub const IMAGE_BASE: u64 = 0x20_0000;
/// First address past those an image may occupy.
pub const IMAGE_TOP: u64 = 0x4000_0000;
/// The [`StartInfo`](crate::start::StartInfo) page, read-only.
pub const START_INFO: u64 = 0x4000_0000;
/// The dispatcher frame.
pub const DISPATCHER_FRAME: u64 = 0x4001_0000;
/// The domain's console stream.
pub const STDOUT: u64 = 0x4004_0000;
/// `init` only: the machine's `BootInfo`, read-only.
pub const BOOT_INFO: u64 = 0x4008_0000;
/// Lowest address of the first thread's stack; the page below is never mapped.
pub const STACK_BASE: u64 = 0x4010_0000;
/// First address past the first thread's stack.
pub const STACK_TOP: u64 = 0x4020_0000;
/// The boot archive, read-only, where the domain has it.
pub const ARCHIVE: u64 = 0x5000_0000;
/// First address past the archive.
pub const ARCHIVE_TOP: u64 = 0x7000_0000;
/// `init` only: this core's share frame.
pub const SHARE: u64 = 0x7000_0000;
/// Self-paged heap. It and the mappings below lie under root page-table entries of their own, so a domain can
/// build the tables for them with nothing but its root page table and RAM.
pub const HEAP_BASE: u64 = 1 << 39;
/// First address past the heap.
pub const HEAP_TOP: u64 = 2 << 39;
/// Where the runtime maps whatever else a domain asks for.
pub const MAP_BASE: u64 = 2 << 39;
/// First address past those mappings.
pub const MAP_TOP: u64 = 4 << 39;
