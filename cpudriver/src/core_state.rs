//! The state of this core's CPU driver.
//!
//! [`Core`] is the kernel control block: everything that must survive from one entry to the next. It is the
//! only such state; other statics (tables of [`crate::arch`], the log) can be rebuilt from it. An entry gets
//! it once, by [`take`], and hands it down.

use crate::arch::apic::Apic;
use crate::arch::cpu::Features;
use crate::arch::link_area::LinkArea;
use crate::arch::window::{self, Window};
use crate::audit::Audit;
use crate::instance::Handover;
use crate::link::Readers;
use crate::objects::{Dispatcher, Link, Notification, Ref};
use caps::{CSpace, CapDb, Cte, SlotAddr, Slots};
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use lmp::invocation::{Counter, USER_VECTOR_COUNT};

/// Number of counters.
const COUNTERS: usize = Counter::ALL.len();

/// What is bound to an interrupt vector.
#[derive(Clone, Copy, Default)]
pub(crate) struct IrqBinding {
    /// The notification to signal.
    pub notification: Option<Ref<Notification>>,
    /// The bits to set in it.
    pub badge: u64,
    /// Delivered and not acknowledged: further arrivals only set `again`.
    pub in_service: bool,
    /// Arrived while in service.
    pub again: bool,
}

/// The kernel control block.
pub(crate) struct Core {
    /// The capability database.
    pub db: CapDb,
    /// Everything else.
    pub k: Kernel,
}

/// The control block without the capability database.
pub(crate) struct Kernel {
    /// What this CPU has.
    pub features: Features,
    /// The local APIC.
    pub apic: Apic,
    /// The memory this core owns.
    pub window: Window,
    /// What the starter told this core.
    pub handover: &'static mut Handover,
    /// The dispatcher whose address space and frame are loaded.
    pub current: Link<Dispatcher>,
    /// The capability space of `current`.
    pub cspace: CSpace,
    /// First of the ready queue, a ring.
    pub ready: Link<Dispatcher>,
    /// Dispatchers in the ready queue.
    pub ready_count: u64,
    /// First of those that ended and whose callers are still to be told, a ring.
    pub retired: Link<Dispatcher>,
    /// First of those that wait for a time, in order of it.
    pub deadlines: Option<Ref<Dispatcher>>,
    /// When the time slice of `current` ends, in TSC ticks.
    pub slice_end: u64,
    /// Ticks of the timer in 2^32 ticks of the TSC.
    pub timer_ticks: u64,
    /// For when the timer is set, in TSC ticks; `u64::MAX` = it is off.
    pub timer_at: u64,
    /// The pages of links.
    pub link_area: LinkArea,
    /// The links that this core reads.
    pub readers: Readers,
    /// Bindings of the vectors that user space may bind.
    pub irqs: [IrqBinding; USER_VECTOR_COUNT as usize],
    /// Counters, but for those the entry code keeps.
    pub counters: [u64; COUNTERS],
    /// How far the audit has come.
    pub audit: Audit,
    /// Whether the trampoline is prepared for a core, and which.
    pub armed: Option<u32>,
}

impl Kernel {
    /// Add one to a counter.
    #[inline(always)]
    pub(crate) fn count(&mut self, c: Counter) {
        self.counters[c as usize] += 1;
    }
}

/// Slots, wherever they are in the memory of this core.
pub(crate) struct Memory;

impl Slots for Memory {
    #[inline(always)]
    fn get(&self, slot: SlotAddr) -> &Cte {
        // SAFETY: the database asks only for slots of CNodes (and dispatchers) that exist; those lie in this
        // core's window. `&self` and `&mut self` keep references apart.
        unsafe { &*window::ptr::<Cte>(slot.0) }
    }

    #[inline(always)]
    fn get_mut(&mut self, slot: SlotAddr) -> &mut Cte {
        // SAFETY: see `get`.
        unsafe { &mut *window::ptr::<Cte>(slot.0) }
    }
}

#[repr(transparent)]
pub(crate) struct CoreCell(UnsafeCell<MaybeUninit<Core>>);

// SAFETY: a static is per-core state, and a core runs its CPU driver on one stack with interrupts off.
unsafe impl Sync for CoreCell {}

pub(crate) static CORE: CoreCell = CoreCell(UnsafeCell::new(MaybeUninit::uninit()));

/// Byte offsets in the control block, for assembly.
pub(crate) mod offset {
    use super::{Core, Kernel};
    use core::mem::{offset_of, size_of};
    use lmp::invocation::Counter;

    /// [`Kernel::current`].
    pub(crate) const CURRENT: usize = offset_of!(Core, k) + offset_of!(Kernel, current);
    /// [`Kernel::ready`].
    pub(crate) const READY: usize = offset_of!(Core, k) + offset_of!(Kernel, ready);
    /// [`Kernel::cspace`].
    pub(crate) const CSPACE: usize = offset_of!(Core, k) + offset_of!(Kernel, cspace);
    /// The counter of switches.
    pub(crate) const SWITCHES: usize =
        offset_of!(Core, k) + offset_of!(Kernel, counters) + Counter::Switches as usize * size_of::<u64>();
}

/// Set up the control block.
pub(crate) fn initialise(core: Core) -> &'static mut Core {
    // SAFETY: called once, at start, before any entry.
    unsafe { (*CORE.0.get()).write(core) }
}

/// The control block, for the duration of one entry.
///
/// # Safety
/// Only the entry functions that assembly calls may do this, once each: no reference from an earlier entry
/// is alive, because entries never return to each other.
#[inline(always)]
pub(crate) unsafe fn take() -> &'static mut Core {
    // SAFETY: as the caller says; entries happen only after `initialise`.
    unsafe { (*CORE.0.get()).assume_init_mut() }
}
