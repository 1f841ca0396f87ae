//! The local APIC of this core: x2APIC where the CPU has it, else xAPIC.

use super::paging;
use core::cell::UnsafeCell;
use lmp::layout::PHYS_WINDOW;
use x2apic::lapic::{LocalApic, LocalApicBuilder, TimerDivide, TimerMode};
use x86_64::registers::model_specific::Msr;

/// Vector of the timer.
pub(crate) const TIMER_VECTOR: u8 = 0x20;
/// Vector by which another core says that it has put something into the ring of a link.
pub(crate) const LINK_VECTOR: u8 = 0x21;
/// Vector by which this core reminds itself that it has not read all of its links.
pub(crate) const LINK_REST_VECTOR: u8 = 0x22;
/// Vector of local APIC errors.
pub(crate) const ERROR_VECTOR: u8 = 0xfe;
/// Vector of spurious interrupts.
pub(crate) const SPURIOUS_VECTOR: u8 = 0xff;

const _: () = assert!((LINK_REST_VECTOR as u64) < lmp::invocation::USER_VECTOR_FIRST);

/// Physical address of the xAPIC registers unless firmware moved them: mapped uncached in every window.
pub(crate) const XAPIC_BASE: u64 = 0xfee0_0000;

const IA32_APIC_BASE: u32 = 0x1b;

struct ApicCell(UnsafeCell<Option<LocalApic>>);

// SAFETY: a static is per-core state, and a core runs its CPU driver on one stack with interrupts off.
unsafe impl Sync for ApicCell {}

static APIC: ApicCell = ApicCell(UnsafeCell::new(None));

/// This core's local APIC, once [`enable`] has run.
pub(crate) struct Apic(());

/// Turn on the local APIC. The caller must run once per core.
pub(crate) fn enable() -> Apic {
    // The legacy PICs, if there are any, stay silent: all lines masked.
    // SAFETY: the mask registers of the two 8259s; masking all lines is harmless where nothing listens.
    unsafe {
        super::io::output(0x21, super::io::Width::Byte, 0xff);
        super::io::output(0xa1, super::io::Width::Byte, 0xff);
    }
    let mut apic = LocalApicBuilder::new()
        .timer_vector(TIMER_VECTOR.into())
        .error_vector(ERROR_VECTOR.into())
        .spurious_vector(SPURIOUS_VECTOR.into())
        .timer_mode(TimerMode::OneShot)
        .timer_divide(TimerDivide::Div1)
        .timer_initial(0)
        .set_xapic_base(PHYS_WINDOW + XAPIC_BASE)
        .build()
        .expect("the local APIC's vectors are set");
    // SAFETY: the registers are MSRs, or mapped in the window uncached; the vectors have gates.
    unsafe {
        apic.enable();
        apic.set_timer_initial(0);
        *APIC.0.get() = Some(apic);
    }
    Apic(())
}

impl Apic {
    #[inline(always)]
    fn with<R>(&mut self, f: impl FnOnce(&mut LocalApic) -> R) -> R {
        // SAFETY: an `Apic` exists only after `enable` filled the cell, and `&mut self` makes this the only
        // reference.
        unsafe { f((*APIC.0.get()).as_mut().unwrap_unchecked()) }
    }

    /// This core's identifier.
    pub(crate) fn id(&mut self) -> u32 {
        // SAFETY: the registers were mapped by `enable`; vectors sent are checked by the callers.
        let raw = self.with(|a| unsafe { a.id() });
        if x2apic_on() { raw } else { raw >> 24 }
    }

    /// The interrupt in service is done.
    #[inline(always)]
    pub(crate) fn end_of_interrupt(&mut self) {
        // SAFETY: see `id`.
        self.with(|a| unsafe { a.end_of_interrupt() });
    }

    /// Let the timer fire once after `ticks`; 0 stops it.
    pub(crate) fn set_timer(&mut self, ticks: u32) {
        // SAFETY: see `id`.
        self.with(|a| unsafe { a.set_timer_initial(ticks) });
    }

    /// Whether the timer has fired and its interrupt not been taken: its bit in the interrupt request
    /// register.
    pub(crate) fn timer_pending(&mut self) -> bool {
        const { assert!(TIMER_VECTOR == 0x20) };
        // SAFETY: IRR bits 32–63, an MSR in x2APIC mode, else mapped in the window; reading has no effect.
        let irr = unsafe {
            if x2apic_on() {
                Msr::new(0x821).read()
            } else {
                ((PHYS_WINDOW + XAPIC_BASE + 0x210) as *const u32).read_volatile().into()
            }
        };
        irr & 1 != 0
    }

    /// Let the timer interrupt.
    pub(crate) fn unmask_timer(&mut self) {
        // SAFETY: see `id`.
        self.with(|a| unsafe { a.enable_timer() });
    }

    /// Send an inter-processor interrupt. Whoever takes it sees every store that came before.
    #[inline(always)]
    pub(crate) fn send(&mut self, apic_id: u32, vector: u8) {
        finish_stores();
        // SAFETY: see `id`.
        self.with(|a| unsafe { a.send_ipi(vector, destination(apic_id)) });
    }

    /// Put a core into its wait-for-SIPI state.
    pub(crate) fn send_init(&mut self, apic_id: u32) {
        // SAFETY: see `id`; the caller holds the trampoline.
        self.with(|a| unsafe { a.send_init_ipi(destination(apic_id)) });
    }

    /// Start a core at physical page `page`. It sees every store that came before.
    pub(crate) fn send_sipi(&mut self, apic_id: u32, page: u8) {
        finish_stores();
        // SAFETY: see `id`; the caller holds the trampoline, which is written at that page.
        self.with(|a| unsafe { a.send_sipi(page, destination(apic_id)) });
    }
}

/// Make all earlier stores visible before an interrupt is sent: writing the register of an x2APIC does not wait
/// for them (SDM volume 3A, 12.12.3).
#[inline(always)]
fn finish_stores() {
    // SAFETY: both fences are part of SSE2, which every x86-64 CPU has.
    unsafe {
        core::arch::x86_64::_mm_mfence();
        core::arch::x86_64::_mm_lfence();
    }
}

/// Whether this core's APIC is in x2APIC mode.
pub(crate) fn x2apic_on() -> bool {
    // SAFETY: the MSR exists wherever there is a local APIC.
    unsafe { Msr::new(IA32_APIC_BASE).read() & 1 << 10 != 0 }
}

/// The page-table bits of the xAPIC registers in the window.
pub(crate) const XAPIC_ACCESS: paging::Entry =
    paging::KERNEL_WRITE.union(paging::Entry::UNCACHED).union(paging::Entry::WRITE_THROUGH);

/// The upper half of the interrupt command register for a core: xAPIC has its identifier in the top byte.
fn destination(apic_id: u32) -> u32 {
    if x2apic_on() { apic_id } else { apic_id << 24 }
}

/// Whether `apic_id` names one core to this core's APIC, and not all of them.
pub(crate) fn is_one_core(apic_id: u32) -> bool {
    apic_id < if x2apic_on() { u32::MAX } else { 0xff }
}

/// Whether `doorbell` (`apic_id << 8 | vector`) names a vector that user space may send.
pub(crate) fn is_user_doorbell(doorbell: u64) -> bool {
    use lmp::invocation::{USER_VECTOR_COUNT, USER_VECTOR_FIRST};
    doorbell >> 40 == 0
        && (USER_VECTOR_FIRST..USER_VECTOR_FIRST + USER_VECTOR_COUNT).contains(&(doorbell & 0xff))
}

/// Send the inter-processor interrupt `doorbell`, from code that has no [`Apic`]: the log.
pub(crate) fn ring(doorbell: u64) {
    // SAFETY: the cell is only read; a core sends one interrupt at a time.
    if unsafe { (*APIC.0.get()).is_some() } {
        Apic(()).send((doorbell >> 8) as u32, doorbell as u8);
    }
}
