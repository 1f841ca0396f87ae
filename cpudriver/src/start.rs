//! The start of an instance: from its page tables to its first dispatcher.

use crate::arch::link_area::LinkArea;
use crate::arch::{apic, cpu, entry, io, segments};
use crate::audit::Audit;
use crate::core_state::{self, Core, IrqBinding, Kernel};
use crate::instance::{BLOCK, HANDOVER_OFFSET, Handover};
use crate::link::Readers;
use crate::objects::Link;
use crate::{init, log_ring, panic};
use boot_info::{PhysAddr, PhysRange};
use caps::{CSpace, CapDb, CoreId};
use lmp::invocation::{Counter, USER_VECTOR_COUNT};
use lmp::layout::KERNEL_BASE;

/// The first Rust code of an instance, on its own stack and page tables.
pub(crate) extern "C" fn start() -> ! {
    // SAFETY: the starter filled the page, which nobody else can reach any more; this is the only reference.
    let handover = unsafe { &mut *((KERNEL_BASE + HANDOVER_OFFSET) as *mut Handover) };
    panic::identify(handover.core, handover.debug_exit != 0);
    segments::load();
    let features = match cpu::enable(entry::syscall_entry) {
        Ok(features) => features,
        Err(cpu::Missing(what)) => panic!("this core lacks {what}"),
    };
    entry::set_up(&features);
    let mut apic = apic::enable();
    if handover.first != 0 {
        handover.apic_id = apic.id();
        (handover.timer_per_ms, handover.tsc_per_ms) = calibrate(&mut apic);
    }
    apic.unmask_timer();

    let mut window = crate::arch::window::Window::new();
    let given = handover.given;
    let given = &given[..handover.given_count as usize];
    for g in given {
        assert!(window.add(g.range), "more pieces of memory than the window can record");
    }
    if handover.first != 0 {
        window.add(PhysRange::new(PhysAddr::new(0), BLOCK));
    }
    let (index, up_doorbell) = (handover.core, handover.up_doorbell);
    if let Some(share) = given.iter().find(|g| g.shared) {
        let base = share.range.base().as_u64();
        log_ring::start(base, index, handover.log_doorbell, handover.log_level);
    }
    let apic_id = handover.apic_id;
    let link_area = LinkArea::new(handover.block, handover.link_tables);
    let timer_ticks = (u128::from(handover.timer_per_ms) << 32) / u128::from(handover.tsc_per_ms.max(1));
    let timer_ticks = u64::try_from(timer_ticks).unwrap_or(u64::MAX);
    let core = core_state::initialise(Core {
        db: CapDb::new(CoreId(index as u16)),
        k: Kernel {
            features,
            apic,
            window,
            handover,
            current: Link::none(),
            cspace: CSpace::EMPTY,
            ready: Link::none(),
            retired: Link::none(),
            ready_count: 0,
            deadlines: None,
            slice_end: 0,
            timer_ticks,
            timer_at: u64::MAX,
            link_area,
            readers: Readers::new(),
            irqs: [IrqBinding::default(); USER_VECTOR_COUNT as usize],
            counters: [0; Counter::ALL.len()],
            audit: Audit::default(),
            armed: None,
        },
    });
    if let Err(why) = init::load(core) {
        panic!("cannot start `init`: {why}");
    }
    let mode = if apic::x2apic_on() { "x2APIC" } else { "xAPIC" };
    log::info!("CPU driver up, APIC {apic_id} ({mode})");
    if up_doorbell != 0 {
        apic::ring(up_doorbell);
    }
    core.dispatch()
}

/// Ticks per millisecond of the local APIC timer and of the TSC: the TSC measured against channel 2 of the
/// legacy timer (8254: 1 193 182 Hz), which every PC has, then the APIC timer against the TSC. The timer's
/// current count is not read: QEMU cannot tell it through an MSR while it counts instructions.
fn calibrate(apic: &mut apic::Apic) -> (u64, u64) {
    const MS: u64 = 10;
    const COUNT: u16 = (1_193_182 * MS / 1000) as u16;
    const TIMER_TICKS: u32 = 1_000_000;
    const SPINS: u64 = 1_000_000;
    const PAUSE: u32 = 2000;
    use io::Width::Byte;
    let output = |port, value: u32| {
        // SAFETY: the first core owns the legacy timer until it starts `init`.
        unsafe { io::output(port, Byte, value) }
    };
    // SAFETY: as above.
    let input = |port| unsafe { io::input(port, Byte) };
    // Gate on, speaker off; channel 2, low and high byte, mode 0 (output rises at the end of the count).
    output(0x61, input(0x61) & !3 | 1);
    output(0x43, 0xb0);
    output(0x42, u32::from(COUNT) & 0xff);
    output(0x42, u32::from(COUNT) >> 8);
    // Looking costs far more than waiting on an emulated machine, so look every few microseconds only.
    let wait = |done: &mut dyn FnMut() -> bool| {
        let start = cpu::tsc();
        let _ = (0..SPINS).find(|_| {
            (0..PAUSE).for_each(|i| {
                core::hint::black_box(i);
            });
            done()
        });
        (cpu::tsc() - start).max(1)
    };
    let tsc_per_ms = (wait(&mut || input(0x61) & 0x20 != 0) / MS).max(1);
    apic.unmask_timer();
    apic.set_timer(TIMER_TICKS);
    let timer = wait(&mut || apic.timer_pending());
    let timer_per_ms = u64::from(TIMER_TICKS) * tsc_per_ms / timer;
    (timer_per_ms.max(1), tsc_per_ms)
}
