//! Memory that the first core's monitor got from `init` and keeps mapped.

use lmp::CPtr;
use lmp::invocation::MapFlags;
use lmp::objects::PAGE_SIZE;
use monitor::handover::{Report, Table};
use runtime::memory::{self, MemoryError};

/// Maps the table of the further cores.
pub(crate) fn table(frame: CPtr) -> Result<&'static Table, MemoryError> {
    let mapped = memory::map(frame, 0, size_of::<Table>() as u64, MapFlags::READ)?;
    // SAFETY: `init` filled the frame before it passed it on and does not write it again; the mapping is never taken
    // down; any bytes are a `Table`.
    Ok(unsafe { &*mapped.as_ptr::<Table>() })
}

/// Maps the page for the report.
pub(crate) fn report(frame: CPtr) -> Result<&'static Report, MemoryError> {
    let mapped = memory::map(frame, 0, PAGE_SIZE, MapFlags::READ | MapFlags::WRITE)?;
    // SAFETY: the mapping is never taken down, and the words are only accessed atomically.
    Ok(unsafe { &*mapped.as_ptr::<Report>() })
}
