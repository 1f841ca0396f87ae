//! The link area: single pages, of whatever core, that hold the rings of links.
//!
//! Beside its window this is all of physical memory that the CPU driver reaches: exactly the pages of its
//! configured links, writable for a writer and read-only for a reader. Its page tables are part of the
//! instance; the capability database knows each page by a mapping in them.

use super::paging::{self, Entry};
use lmp::layout::{KERNEL_BASE, LINK_AREA, LINKS_MAX};
use ump::notify::PageRing;

/// Entries of a page table.
const ENTRIES: u64 = 512;
/// Page tables of the area.
pub(crate) const TABLES: usize = LINKS_MAX.div_ceil(ENTRIES) as usize;
const WORDS: usize = LINKS_MAX.div_ceil(u64::BITS as u64) as usize;

const _: () = assert!(LINK_AREA.is_multiple_of(ENTRIES * 4096) && LINKS_MAX.is_multiple_of(u64::BITS as u64));

/// One page of the area. What is at its address can be used until the database has the page unmapped.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct LinkPage(u16);

/// Who may do what with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LinkAccess {
    /// Write it.
    Write,
    /// Read it.
    Read,
}

impl LinkAccess {
    const fn bits(self) -> Entry {
        match self {
            LinkAccess::Write => paging::KERNEL_WRITE,
            LinkAccess::Read => paging::KERNEL_READ,
        }
    }
}

/// Which pages of the area are in use.
pub(crate) struct LinkArea {
    /// Physical address of the running instance's block.
    block: u64,
    /// Physical address of the first page table.
    tables: u64,
    used: [u64; WORDS],
}

impl LinkArea {
    /// The area of the running instance, none of it in use.
    pub(crate) const fn new(block: u64, tables: u64) -> LinkArea {
        LinkArea { block, tables, used: [0; WORDS] }
    }

    /// A page that is not in use, and now is; nothing is mapped there yet. `None` if there is none.
    pub(crate) fn allocate(&mut self) -> Option<LinkPage> {
        let (at, word) = self.used.iter_mut().enumerate().find(|(_, word)| **word != u64::MAX)?;
        let bit = word.trailing_ones();
        *word |= 1 << bit;
        Some(LinkPage((at * u64::BITS as usize) as u16 + bit as u16))
    }

    /// Undo [`LinkArea::allocate`] for a page that was never mapped.
    pub(crate) fn give_up(&mut self, page: LinkPage) {
        self.used[usize::from(page.0) / u64::BITS as usize] &= !(1 << (page.0 % u64::BITS as u16));
    }

    /// The page table and the entry in it that map `page`, for the database.
    pub(crate) fn place(&self, page: LinkPage) -> (u64, u16) {
        let (table, entry) = (u64::from(page.0) / ENTRIES, u64::from(page.0) % ENTRIES);
        (self.tables + table * 4096, entry as u16)
    }

    /// Show the page of physical memory at `physical`, which the database has a mapping for.
    pub(crate) fn map(&mut self, page: LinkPage, physical: u64, access: LinkAccess) {
        *self.entry(page) = paging::entry(physical, access.bits());
    }

    /// If entry `entry` of the table at `table` is one of the area's, clear it; the page may be used again.
    /// Answers whether it is.
    pub(crate) fn unmap(&mut self, table: u64, entry: u16) -> bool {
        let Some(table) = table.checked_sub(self.tables).map(|offset| offset / 4096) else { return false };
        if table >= TABLES as u64 {
            return false;
        }
        let page = LinkPage((table * ENTRIES) as u16 + entry);
        *self.entry(page) = 0;
        paging::flush_page(address(page));
        self.give_up(page);
        true
    }

    fn entry(&mut self, page: LinkPage) -> &mut u64 {
        let offset = self.tables - self.block + u64::from(page.0) * 8;
        // SAFETY: the tables lie one behind the other in the instance's own block, which is mapped at
        // KERNEL_BASE; a page is below LINKS_MAX, for which they have room. `&mut self` makes this the only
        // reference.
        unsafe { &mut *((KERNEL_BASE + offset) as *mut u64) }
    }
}

/// Where a page is.
const fn address(page: LinkPage) -> u64 {
    LINK_AREA + page.0 as u64 * 4096
}

/// The ring in a page.
///
/// # Safety
/// The page must be mapped, and stay so as long as the ring is used; for a writer it must be writable.
#[inline(always)]
pub(crate) unsafe fn ring<'a>(page: LinkPage) -> &'a PageRing {
    let base = core::ptr::with_exposed_provenance(address(page) as usize);
    // SAFETY: a whole page is mapped, as the caller says, and the CPU driver reaches it only so. That the
    // address is aligned and the size right is known here.
    unsafe { PageRing::from_raw(base, 4096).unwrap_unchecked() }
}
