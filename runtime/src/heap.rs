//! The heap: an allocator over a range of addresses that pages itself in.
//!
//! The allocator extends its range in steps, for which there must be RAM, from the memory server if need be; the first touch of a page there faults, and `memory::page_in`
//! maps 64 KiB at a time.

use core::alloc::Layout;
use core::ops::Range;

use lmp::layout;
use talc::{OomHandler, Span, Talc};

use crate::local::Local;
use crate::memory::{self, PAGE_IN};

/// The least number of bytes that the heap grows by.
const STEP: u64 = 4 * PAGE_IN;

/// First address past what the allocator may touch.
static LIMIT: Local<u64> = Local::new(layout::HEAP_BASE);

/// The addresses that the heap may page in.
pub(crate) fn range() -> Range<u64> {
    layout::HEAP_BASE..LIMIT.get()
}

/// Extends the heap when it is used up.
pub struct Grow {
    heap: Span,
}

impl OomHandler for Grow {
    fn handle_oom(talc: &mut Talc<Self>, layout: Layout) -> Result<(), ()> {
        let base = layout::HEAP_BASE;
        let old = LIMIT.get();
        // The allocation, its alignment, and what the allocator keeps about a chunk.
        let needed = (layout.size() + layout.align() + 4096) as u64;
        let bytes = needed.next_multiple_of(PAGE_IN).max(STEP);
        let new = old.checked_add(bytes).filter(|&top| top <= layout::HEAP_TOP).ok_or(())?;
        // Refused here it is an allocation error; refused at the fault it would be the end of the domain.
        memory::reserve(needed + PAGE_IN).map_err(|_| ())?;
        LIMIT.set(new);
        let wanted = Span::new(base as *mut u8, new as *mut u8);
        // SAFETY: the addresses up to `LIMIT` are the heap's alone and are paged in at first touch. `heap` is
        // what the last call claimed, and the new span contains it.
        talc.oom_handler.heap = unsafe {
            if talc.oom_handler.heap.is_empty() {
                talc.claim(wanted)?
            } else {
                talc.extend(talc.oom_handler.heap, wanted)
            }
        };
        Ok(())
    }
}

/// The type of the heap. There is no lock to take: a domain has one thread, and upcalls do not allocate.
pub type Heap = talc::Talck<talc::locking::AssumeUnlockable, Grow>;

/// The heap of a domain before its first allocation; [`entry!`](crate::entry!) makes it the global allocator.
pub const fn new() -> Heap {
    Talc::new(Grow { heap: Span::empty() }).lock()
}
