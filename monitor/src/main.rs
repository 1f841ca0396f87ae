//! The monitor domain: on the first core it starts the others, on every core it answers for it.
//!
//! `init` spawns one on each core. What the monitors say to each other is in `monitor::protocol`; this binary
//! moves the messages, invokes the capabilities and waits. It blocks whenever there is nothing to do.
#![no_std]
#![no_main]

extern crate alloc;

mod leader;
mod member;

use boot_freestanding as _;
use runtime::Env;

runtime::entry!(main);

fn main(env: &Env) -> u64 {
    if env.info().first_core == 1 { leader::run(env) } else { member::run(env) }
}

/// Memory that a monitor got from `init` and keeps mapped.
mod shared {
    use lmp::invocation::MapFlags;
    use lmp::start::share;
    use lmp::{CPtr, objects::PAGE_SIZE};
    use monitor::handover::{Report, Table, channel};
    use runtime::memory::{self, MemoryError};
    use ump::Outbox;

    /// An outbox of a channel between monitors.
    pub(crate) type Ring = Outbox<{ channel::LINES }>;

    /// Maps the share frame of another core, and finds the two outboxes of the channel: the first core's first.
    pub(crate) fn channel(share: CPtr) -> Result<(&'static Ring, &'static Ring), MemoryError> {
        let mapped = memory::map(share, 0, share::SIZE, MapFlags::READ | MapFlags::WRITE)?;
        let base = mapped.as_ptr::<u8>().wrapping_add(share::MONITOR_OFFSET as usize);
        let half = channel::FIRST_CORE_OUTBOX;
        // SAFETY: the share frame is mapped writable for good (the mapping is never taken down), the part for
        // the monitors' channel lies within it, and only the two monitors use it, through outboxes.
        let (core, first) = unsafe { (Ring::from_raw(base, half), Ring::from_raw(base.add(half), half)) };
        match (core, first) {
            (Ok(core), Ok(first)) => Ok((first, core)),
            // The layout makes both aligned and large enough.
            _ => Err(MemoryError::OutOfAddresses { bytes: share::SIZE }),
        }
    }

    /// Maps the table of the further cores.
    pub(crate) fn table(frame: CPtr) -> Result<&'static Table, MemoryError> {
        let mapped = memory::map(frame, 0, size_of::<Table>() as u64, MapFlags::READ)?;
        // SAFETY: `init` filled the frame before it passed it on and does not write it again; the mapping is
        // never taken down; any bytes are a `Table`.
        Ok(unsafe { &*mapped.as_ptr::<Table>() })
    }

    /// Maps the page for the report.
    pub(crate) fn report(frame: CPtr) -> Result<&'static Report, MemoryError> {
        let mapped = memory::map(frame, 0, PAGE_SIZE, MapFlags::READ | MapFlags::WRITE)?;
        // SAFETY: the mapping is never taken down, and the words are only accessed atomically.
        Ok(unsafe { &*mapped.as_ptr::<Report>() })
    }
}
