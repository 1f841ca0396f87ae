//! Benchmark `pagefault`: a page fault and its user-level handler.
//!
//! `to_handler`: from the access to the first instruction of the domain's fault handler, which is the runtime's
//! upcall entry, self-paging's refusal and the call of the handler included. `round_trip`: the handler maps a
//! frame there, and the access succeeds.
#![no_std]
#![no_main]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use boot_freestanding as _;
use lmp::invocation::MapFlags;
use lmp::objects::PAGE_SIZE;
use lmp::{CPtr, ObjType, cptr::task, frame::reg, syscall};
use results::metric;
use runtime::bench::{BenchError, Harness, refused};
use runtime::upcall::{Fault, Resolution, set_fault_handler};
use runtime::{Env, memory, time};

runtime::entry!(main);

/// When the handler was entered.
static ENTERED: AtomicU64 = AtomicU64::new(0);
/// What the handler maps: page table, entry, frame, slot for the mapping. Table 0: nothing, the access is skipped.
static MAP: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

fn main(env: &Env) -> u64 {
    Harness::run(env, "pagefault", |h| {
        let window = memory::window()?;
        let frame = memory::allocate(ObjType::Frame, PAGE_SIZE)?;
        let slot = memory::slot()?;
        set_fault_handler(handler);

        h.measure_with(metric::TO_HANDLER, h.samples(1000), &[], || {
            let start = time::now_serialised();
            touch(window.address);
            Ok(ENTERED.load(Relaxed) - start)
        })?;

        for (place, value) in MAP.iter().zip([
            u64::from(window.table.0),
            window.entry,
            u64::from(frame.cap.0),
            u64::from(slot.0),
        ]) {
            place.store(value, Relaxed);
        }
        h.measure_with(metric::ROUND_TRIP, h.samples(1000), &[], || {
            let start = time::now_serialised();
            touch(window.address);
            let end = time::now_serialised();
            // It proves too that the handler mapped: without a mapping there is none to delete.
            syscall::cap_delete(task::ROOT, slot).map_err(refused("unmapping the page"))?;
            Ok(end - start)
        })?;
        if ENTERED.load(Relaxed) == 0 {
            return Err(BenchError::Wrong("no page fault came"));
        }
        Ok(())
    })
}

/// Writes to `address`. `rbx`'s place is taken by `r8`: where the handler lets the access be skipped.
#[inline(always)]
fn touch(address: u64) {
    // SAFETY: the address is a window of this domain: not mapped, or mapped to a frame that nothing refers to.
    // If the access faults the handler resolves it, or goes on behind it at the address in r8.
    unsafe {
        asm!(
            "lea r8, [rip + 2f]",
            "mov byte ptr [{address}], 1",
            "2:",
            address = in(reg) address,
            out("r8") _,
            options(nostack),
        );
    }
}

fn handler(fault: &mut Fault<'_>) -> Resolution {
    ENTERED.store(time::now_serialised(), Relaxed);
    let [table, entry, frame, slot] = [0, 1, 2, 3].map(|i| MAP[i].load(Relaxed));
    if table == 0 {
        fault.registers.rip = fault.registers.gpr[reg::R8];
        return Resolution::Resume;
    }
    let flags = MapFlags::READ | MapFlags::WRITE;
    match syscall::vnode_map(CPtr(table as u32), entry, CPtr(frame as u32), 0, flags, 1, CPtr(slot as u32)) {
        Ok(()) => Resolution::Resume,
        Err(_) => Resolution::End,
    }
}
