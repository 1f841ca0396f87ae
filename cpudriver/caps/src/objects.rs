//! What the database asks of the kernel: memory to be zeroed, objects to be set up and torn down.

use crate::cte::{Capability, SlotAddr};
use lmp::{ObjType, SysError};

/// How much work one call may still do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Objects made or destroyed, capabilities removed.
    pub objects: u32,
    /// Bytes of memory gone through.
    pub bytes: u64,
}

impl Budget {
    /// What one kernel entry may do: 8 objects, 64 KiB. Both together, in a database of a million capabilities, stay
    /// below 20 000 instructions, as `bench caps` measures.
    pub const ENTRY: Budget = Budget { objects: 8, bytes: 64 << 10 };

    /// Page-table entries that are cleared in the time in which an object is destroyed.
    const ENTRIES_PER_OBJECT: u16 = 32;

    /// Takes one object from the budget. `false`: none is left, and the caller has to stop.
    pub fn take_object(&mut self) -> bool {
        match self.objects.checked_sub(1) {
            Some(rest) => {
                self.objects = rest;
                true
            }
            None => false,
        }
    }

    /// Takes what clearing so many page-table entries costs beside the mapping itself, as far as it is there: a mapping is
    /// not cleared in parts.
    pub(crate) fn take_entries(&mut self, count: u16) {
        self.objects = self.objects.saturating_sub((count / Self::ENTRIES_PER_OBJECT).into());
    }

    /// Takes as many as `wanted` bytes, in whole units of `unit`, and says how many: 0 if not one unit is left.
    pub fn take_bytes(&mut self, wanted: u64, unit: u64) -> u64 {
        let granted = wanted.min(self.bytes / unit * unit);
        self.bytes -= granted;
        granted
    }
}

/// How far a step came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// It is finished.
    Done,
    /// The budget is spent; there is more to do.
    Again,
}

/// The entries of a mapping whose page table still exists. The kernel knows its own tables by their address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unmap {
    /// Physical address of the page table.
    pub table: u64,
    /// Its type.
    pub table_type: ObjType,
    /// First entry.
    pub entry: u16,
    /// Number of entries.
    pub count: u16,
    /// The physical address that the first entry was made to point to.
    pub address: u64,
}

/// The kernel's side of objects.
///
/// No method may call back into the database. Slot addresses passed here are not to be kept: the
/// capabilities in a dying CNode move, except for reply rights.
pub trait Objects {
    /// Zeroes `len` bytes of memory at physical address `base`: at most 64 KiB at a time, and no other
    /// capability allows access to it.
    fn zero(&mut self, base: u64, len: u64);

    /// Sets up the object of `cap`, just made in zeroed memory, before anybody can name it.
    fn init(&mut self, cap: &Capability);

    /// May the object go with this, its last capability? An error is what a delete is refused with; in a
    /// dying CNode the capability is kept instead, and that CNode's memory with it, out of everyone's reach.
    fn may_destroy(&self, cap: &Capability) -> Result<(), SysError>;

    /// Lets go of the object, whose last capability here, at `slot`, is being deleted: whoever runs with it
    /// stops, whatever is bound to it is unbound, nobody refers to it afterwards. Called again until it
    /// answers [`Progress::Done`]; takes what it does from `budget`. Comes before the slots of a CNode are
    /// emptied and before the mappings of a frame or page table go. Not called for RAM or mappings.
    fn finalize(&mut self, cap: &Capability, slot: SlotAddr, budget: &mut Budget) -> Progress;

    /// Clears the entries of a mapping whose last capability goes, and flushes what the processor remembers
    /// of them.
    fn unmap(&mut self, mapping: &Unmap);

    /// Whether this core's window reaches all of the `len` bytes of memory at `base`.
    fn accessible(&self, base: u64, len: u64) -> bool;
}
