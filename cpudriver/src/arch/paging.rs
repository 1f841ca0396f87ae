//! Page-table entries, and tables that the CPU driver itself builds.
//!
//! Format: Intel SDM volume 3A, chapter 4 (4-level paging).

use bitflags::bitflags;

bitflags! {
    /// Bits of a page-table entry.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Entry: u64 {
        const PRESENT = 1;
        const WRITABLE = 1 << 1;
        const USER = 1 << 2;
        const WRITE_THROUGH = 1 << 3;
        const UNCACHED = 1 << 4;
        const ACCESSED = 1 << 5;
        const DIRTY = 1 << 6;
        const LARGE = 1 << 7;
        const GLOBAL = 1 << 8;
        const NO_EXECUTE = 1 << 63;
        const _ = !0;
    }
}

/// The bits of an entry that hold an address.
pub(crate) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Access of a page of the CPU driver itself.
pub(crate) const KERNEL_TEXT: Entry = Entry::PRESENT.union(Entry::GLOBAL);
/// Read-only data.
pub(crate) const KERNEL_READ: Entry = KERNEL_TEXT.union(Entry::NO_EXECUTE);
/// Writable data.
pub(crate) const KERNEL_WRITE: Entry = KERNEL_READ.union(Entry::WRITABLE);
/// A table below a kernel entry.
pub(crate) const KERNEL_TABLE: Entry = Entry::PRESENT.union(Entry::WRITABLE);
/// A table below a user entry: access is decided in the last entry.
pub(crate) const USER_TABLE: Entry = Entry::PRESENT.union(Entry::WRITABLE).union(Entry::USER);

/// Index of `va` into the table of `level` (4 = PML4 … 1 = PT).
pub(crate) const fn index(va: u64, level: u32) -> usize {
    (va >> (12 + 9 * (level - 1))) as usize & 511
}

/// An entry for `pa` with `bits`.
pub(crate) const fn entry(pa: u64, bits: Entry) -> u64 {
    pa | bits.bits()
}

/// Bytes that one entry of a table of `level` maps.
pub(crate) const fn span(level: u32) -> u64 {
    4096 << (9 * (level - 1))
}

/// Load a root page table.
///
/// # Safety
/// Its upper half must map the CPU driver as this core's own root does.
pub(crate) unsafe fn load_root(pa: u64) {
    // SAFETY: as the caller says; writing CR3 has no other effect than on translation.
    unsafe { core::arch::asm!("mov cr3, {}", in(reg) pa, options(nostack, preserves_flags)) }
}

/// The root page table in use.
pub(crate) fn current_root() -> u64 {
    let pa: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, cr3", out(reg) pa, options(nomem, nostack, preserves_flags)) }
    pa & ADDRESS
}

/// Forget what the core remembers of the address space in use, kernel pages apart.
pub(crate) fn flush_user() {
    // SAFETY: reloads the root in use.
    unsafe { load_root(current_root()) }
}

/// Forget what the core remembers of one page, kernel pages included.
pub(crate) fn flush_page(va: u64) {
    x86_64::instructions::tlb::flush(x86_64::VirtAddr::new_truncate(va));
}
