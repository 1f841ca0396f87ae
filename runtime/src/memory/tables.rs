//! [`Tables`]: building page tables by invocations. Used for the domain's own address space and for children's.

use arrayvec::ArrayVec;
use lmp::invocation::MapFlags;
use lmp::objects::PAGE_SIZE;
use lmp::{CPtr, ObjType, SysError, syscall};

use super::MemoryError;

/// Bytes that one entry of a PD maps.
pub const LARGE_PAGE: u64 = 2 << 20;

const ENTRIES: u64 = 512;

/// Where page tables and mappings come from: RAM and slots.
pub trait Source {
    /// A new page table.
    fn table(&mut self, ty: ObjType) -> Result<CPtr, MemoryError>;
    /// An empty slot.
    fn slot(&mut self) -> Result<CPtr, MemoryError>;
    /// Takes back a slot that stayed empty.
    fn free_slot(&mut self, slot: CPtr);
}

/// A page table of the address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Table {
    /// The first address it translates; the level, 1 to 3, in the low bits.
    key: u64,
    cap: CPtr,
}

/// An address space: its root and the tables below that were made or made known, at most `N`.
pub struct Tables<const N: usize> {
    root: CPtr,
    known: ArrayVec<Table, N>,
}

/// A part of a range that lies in one page table, hence is one mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// First address.
    pub address: u64,
    /// Bytes from the start of the range.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Whether it is mapped by large pages.
    pub large: bool,
}

/// Bytes that a table of `level` translates.
const fn reach(level: u32) -> u64 {
    PAGE_SIZE << (9 * level)
}

/// Splits `address..address + len`, backed by physical memory at `physical`, into runs. Where there is a PT already, as
/// `has_table` tells of an address, no large page fits.
pub fn runs(
    address: u64,
    physical: u64,
    len: u64,
    has_table: impl Fn(u64) -> bool,
) -> impl Iterator<Item = Run> {
    let mut done = 0;
    core::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let (at, left) = (address + done, len - done);
        let aligned = |bytes: u64| at.is_multiple_of(bytes) && (physical + done).is_multiple_of(bytes);
        let large = left >= LARGE_PAGE && aligned(LARGE_PAGE) && !has_table(at);
        let run = if large {
            let in_table = left.min(reach(2) - at % reach(2)) / LARGE_PAGE;
            let free = (1..in_table).take_while(|page| !has_table(at + page * LARGE_PAGE)).count() as u64;
            (1 + free) * LARGE_PAGE
        } else {
            left.min(reach(1) - at % reach(1))
        };
        let out = Run { address: at, offset: done, len: run, large };
        done += run;
        Some(out)
    })
}

/// Splits `address..address + len` into runs of base pages.
pub fn base_page_runs(address: u64, len: u64) -> impl Iterator<Item = Run> {
    // Backed by memory that is nowhere aligned like the addresses, so no large page fits.
    runs(address, address + PAGE_SIZE, len, |_| false)
}

impl<const N: usize> Tables<N> {
    /// The address space with the root page table `root`, nothing below it known.
    pub const fn new(root: CPtr) -> Self {
        Self { root, known: ArrayVec::new_const() }
    }

    /// Makes `root` the root page table, before anything is mapped.
    pub fn set_root(&mut self, root: CPtr) {
        self.root = root;
    }

    /// Makes known that `cap` is the table of `level` (1 = PT) that translates `address`.
    ///
    /// # Errors
    /// [`MemoryError::TablesFull`].
    pub fn insert(&mut self, address: u64, level: u32, cap: CPtr) -> Result<(), MemoryError> {
        let table = Table { key: (address - address % reach(level)) | u64::from(level), cap };
        let at = self.known.partition_point(|t| t.key < table.key);
        self.known.try_insert(at, table).map_err(|_| MemoryError::TablesFull)
    }

    /// Whether the table of `level` that translates `address` is known.
    pub fn has(&self, address: u64, level: u32) -> bool {
        let key = (address - address % reach(level)) | u64::from(level);
        self.known.binary_search_by_key(&key, |t| t.key).is_ok()
    }

    /// The table of `level` that translates `address`, made and linked if there is none yet.
    pub fn ensure(
        &mut self,
        source: &mut impl Source,
        address: u64,
        level: u32,
    ) -> Result<CPtr, MemoryError> {
        if level == 4 {
            return Ok(self.root);
        }
        let key = (address - address % reach(level)) | u64::from(level);
        if let Ok(at) = self.known.binary_search_by_key(&key, |t| t.key) {
            return Ok(self.known[at].cap);
        }
        if self.known.is_full() {
            return Err(MemoryError::TablesFull);
        }
        let parent = self.ensure(source, address, level + 1)?;
        let ty = match level {
            3 => ObjType::Pdpt,
            2 => ObjType::Pd,
            _ => ObjType::Pt,
        };
        let table = source.table(ty)?;
        let slot = source.slot()?;
        let entry = address / reach(level) % ENTRIES;
        // Access is decided at the last level; tables allow everything.
        let flags = MapFlags::READ | MapFlags::WRITE | MapFlags::EXECUTE;
        syscall::vnode_map(parent, entry, table, 0, flags, 1, slot)
            .map_err(|cause| MemoryError::Refused { operation: "mapping a page table", cause })?;
        self.insert(address, level, table)?;
        Ok(table)
    }

    /// Maps `run` to `frame` from byte `offset` on; the mapping's slot.
    ///
    /// # Errors
    /// [`MemoryError`]; nothing is mapped then.
    pub fn map_run(
        &mut self,
        source: &mut impl Source,
        run: Run,
        frame: CPtr,
        offset: u64,
        flags: MapFlags,
    ) -> Result<CPtr, MemoryError> {
        let (level, page, flags) =
            if run.large { (2, LARGE_PAGE, flags | MapFlags::LARGE) } else { (1, PAGE_SIZE, flags) };
        let table = self.ensure(source, run.address, level)?;
        let slot = source.slot()?;
        let entry = run.address / page % ENTRIES;
        let mapped = syscall::vnode_map(table, entry, frame, offset, flags, run.len / page, slot);
        mapped.map(|()| slot).map_err(|cause: SysError| {
            source.free_slot(slot);
            MemoryError::Refused { operation: "mapping a frame", cause }
        })
    }

    /// Number of tables known below the root.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no table below the root is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const NONE: fn(u64) -> bool = |_| false;

    #[test]
    fn runs_end_at_table_borders() {
        let got: Vec<_> = runs(0x1f_f000, 0x5000, 0x3000, NONE).collect();
        assert_eq!(
            got,
            [
                Run { address: 0x1f_f000, offset: 0, len: 0x1000, large: false },
                Run { address: 0x20_0000, offset: 0x1000, len: 0x2000, large: false },
            ]
        );
    }

    #[test]
    fn large_pages_are_used_where_both_sides_are_aligned() {
        let got: Vec<_> = runs(LARGE_PAGE, 4 * LARGE_PAGE, 2 * LARGE_PAGE + 0x1000, NONE).collect();
        assert_eq!(
            got,
            [
                Run { address: LARGE_PAGE, offset: 0, len: 2 * LARGE_PAGE, large: true },
                Run { address: 3 * LARGE_PAGE, offset: 2 * LARGE_PAGE, len: 0x1000, large: false },
            ]
        );
        assert!(runs(LARGE_PAGE, 0x1000, 3 * LARGE_PAGE, NONE).all(|r| !r.large));
    }

    #[test]
    fn large_runs_end_at_the_border_of_a_directory() {
        let got: Vec<_> = runs(reach(2) - LARGE_PAGE, 0, 3 * LARGE_PAGE, NONE).map(|r| r.len).collect();
        assert_eq!(got, [LARGE_PAGE, 2 * LARGE_PAGE]);
        assert_eq!(runs(0, 0, 0, NONE).count(), 0);
    }

    #[test]
    fn no_large_page_takes_the_place_of_a_table() {
        let has_table = |address| address == 2 * LARGE_PAGE;
        let got: Vec<_> = runs(0, 0, 4 * LARGE_PAGE, has_table).map(|r| (r.len, r.large)).collect();
        assert_eq!(got, [(2 * LARGE_PAGE, true), (LARGE_PAGE, false), (LARGE_PAGE, true)]);
    }

    #[test]
    fn base_pages_are_never_large() {
        let got: Vec<_> = base_page_runs(0x20_1000, 3 * LARGE_PAGE).collect();
        assert!(got.iter().all(|r| !r.large));
        assert_eq!(got.iter().map(|r| r.len).sum::<u64>(), 3 * LARGE_PAGE);
        assert_eq!(got.len(), 4);
    }
}
