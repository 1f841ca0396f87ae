//! Scenario `savearea`: whatever a domain writes into its dispatcher frame, the CPU driver and the others go on.
//!
//! The frame of a victim that is stopped is changed, and the victim let go on: it ends or goes on, and nothing
//! else happens.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;

use boot_freestanding as _;
use lmp::frame::{DispatcherFrame, FRAME_SIZE, SaveArea, reg};
use lmp::invocation::MapFlags;
use lmp::layout::{KERNEL_BASE, PHYS_WINDOW, USER_TOP};
use runtime::{Env, memory};
use selftest::{Bystander, Random, Shared, Test};

runtime::entry!(main);

/// Victims: how each comes to be stopped, and which area it is resumed from.
const VICTIMS: [&str; 3] = ["loop-disabled-yield", "hog-disabled", "loop-yield"];

/// Frames filled at random per kind of victim.
const RANDOM_FRAMES: u64 = 24;

/// What must become of the victim.
#[derive(Clone, Copy, PartialEq)]
enum Expected {
    /// It ends.
    End,
    /// It ends or goes on.
    Either,
}

struct Case {
    name: &'static str,
    expected: Expected,
    change: fn(&mut DispatcherFrame),
}

const NON_CANONICAL: u64 = 1 << 47;

const fn ends(name: &'static str, change: fn(&mut DispatcherFrame)) -> Case {
    Case { name, expected: Expected::End, change }
}

const fn either(name: &'static str, change: fn(&mut DispatcherFrame)) -> Case {
    Case { name, expected: Expected::Either, change }
}

/// Bytes of the XSAVE header in a vector area (Intel SDM volume 1, section 13.4.2).
const XSTATE_BV: usize = 512;
const XCOMP_BV: usize = 520;
const XSAVE_RESERVED: usize = 528;
/// MXCSR in the legacy region (section 13.4.1).
const MXCSR: usize = 24;

fn put(frame: &mut DispatcherFrame, at: usize, value: u64) {
    frame.disabled_area.vector_valid = 1;
    frame.disabled_vector[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Changes for a victim that is resumed from its disabled save area.
const CASES: &[Case] = &[
    ends("rip-non-canonical", |f| f.disabled_area.rip = NON_CANONICAL),
    ends("rip-top-bit", |f| f.disabled_area.rip = 1 << 63),
    ends("rip-all-ones", |f| f.disabled_area.rip = u64::MAX),
    ends("rip-kernel", |f| f.disabled_area.rip = KERNEL_BASE),
    ends("rip-window", |f| f.disabled_area.rip = PHYS_WINDOW),
    ends("rip-user-top", |f| f.disabled_area.rip = USER_TOP),
    ends("rip-null", |f| f.disabled_area.rip = 0),
    ends("rip-stack", |f| f.disabled_area.rip = f.disabled_area.gpr[reg::RSP]),
    either("rsp-non-canonical", |f| f.disabled_area.gpr[reg::RSP] = NON_CANONICAL),
    either("rsp-kernel", |f| f.disabled_area.gpr[reg::RSP] = KERNEL_BASE),
    either("rsp-null", |f| f.disabled_area.gpr[reg::RSP] = 0),
    either("registers-all-ones", |f| f.disabled_area.gpr = [u64::MAX; 16]),
    either("flags-none", |f| f.disabled_area.rflags = 0),
    either("flags-all", |f| f.disabled_area.rflags = u64::MAX),
    either("flags-iopl", |f| f.disabled_area.rflags |= 0x3000),
    either("flags-no-interrupts", |f| f.disabled_area.rflags &= !0x200),
    either("flags-trap", |f| f.disabled_area.rflags |= 0x100),
    either("flags-nested-task", |f| f.disabled_area.rflags |= 0x4000),
    either("flags-virtual-8086", |f| f.disabled_area.rflags |= 0x2_0000),
    either("flags-alignment", |f| f.disabled_area.rflags |= 0x4_0000),
    either("flags-virtual-interrupt", |f| f.disabled_area.rflags |= 0x18_0000),
    either("flags-direction", |f| f.disabled_area.rflags |= 0x400),
    ends("fs-base-non-canonical", |f| f.disabled_area.fs_base = NON_CANONICAL),
    ends("gs-base-non-canonical", |f| f.disabled_area.gs_base = NON_CANONICAL),
    either("fs-base-kernel", |f| f.disabled_area.fs_base = KERNEL_BASE),
    either("gs-base-kernel", |f| f.disabled_area.gs_base = KERNEL_BASE),
    either("fp-control-all-ones", |f| {
        (f.disabled_area.vector_valid, f.disabled_area.fp_control) = (0, u64::MAX)
    }),
    either("fp-control-none", |f| (f.disabled_area.vector_valid, f.disabled_area.fp_control) = (0, 0)),
    either("vector-valid-wild", |f| f.disabled_area.vector_valid = 0xdead_beef),
    either("xstate-bv-all-ones", |f| put(f, XSTATE_BV, u64::MAX)),
    either("xcomp-bv", |f| put(f, XCOMP_BV, 1 << 63)),
    either("xsave-reserved", |f| put(f, XSAVE_RESERVED, u64::MAX)),
    either("mxcsr-reserved", |f| put(f, MXCSR, u64::MAX)),
    either("vector-area-all-ones", |f| {
        f.disabled_area.vector_valid = 1;
        f.disabled_vector.fill(0xff);
    }),
    either("enabled-in-the-middle", |f| f.control.disabled = 0),
    either("disabled-wild", |f| f.control.disabled = u64::MAX),
    either("critical-everything", |f| (f.control.critical_start, f.control.critical_end) = (0, u64::MAX)),
    either("critical-backwards", |f| (f.control.critical_start, f.control.critical_end) = (u64::MAX, 0)),
    either("upcalls-non-canonical", |f| set_entries(f, NON_CANONICAL)),
    either("upcalls-kernel", |f| set_entries(f, KERNEL_BASE)),
    either("upcalls-null", |f| set_entries(f, 0)),
    either("upcalls-unmapped", |f| set_entries(f, USER_TOP - 4096)),
    either("upcall-stack-non-canonical", |f| f.control.upcall_stack = NON_CANONICAL),
    either("upcall-stack-kernel", |f| f.control.upcall_stack = KERNEL_BASE),
    either("self-va-wild", |f| f.control.self_va = NON_CANONICAL),
    either("trap-busy", |f| f.control.trap_busy = u64::MAX),
    either("events-all", |f| f.control.events = u64::MAX),
    either("deadlines-wild", |f| (f.control.send_deadline, f.control.receive_deadline) = (1, 1)),
];

fn set_entries(f: &mut DispatcherFrame, entry: u64) {
    let c = &mut f.control;
    for word in [&mut c.run, &mut c.page_fault, &mut c.page_fault_disabled, &mut c.trap, &mut c.trap_disabled]
    {
        *word = entry;
    }
}

fn main(env: &Env) -> u64 {
    let mut test = Test::new(env);
    match run(&mut test) {
        Ok(()) => {}
        Err(why) => test.check("savearea", Err(why)),
    }
    test.finish()
}

fn run(test: &mut Test) -> Result<(), String> {
    let shared = Shared::new()?;
    let bystander = Bystander::start(test)?;
    let free = memory::stats().free;
    for mode in VICTIMS {
        for case in CASES {
            // Only a victim that is resumed from the area that the case changes must end by it.
            let expected = if mode == "loop-yield" { Expected::Either } else { case.expected };
            let result = once(test, &shared, mode, expected, |frame| (case.change)(frame))
                .and_then(|()| bystander.check());
            test.check(&format!("{mode}-{}", case.name), result);
        }
        let mut random = Random::new(test.seed());
        let mut result = Ok(());
        for _ in 0..RANDOM_FRAMES {
            result = result
                .and_then(|()| {
                    once(test, &shared, mode, Expected::Either, |frame| scramble(frame, &mut random))
                })
                .and_then(|()| bystander.check());
        }
        test.check(&format!("{mode}-random"), result);
    }
    let left = free.saturating_sub(memory::stats().free);
    test.check("memory", if left == 0 { Ok(()) } else { Err(format!("{left} bytes were left behind")) });
    bystander.stop()
}

/// Starts a victim, changes its frame while it is stopped, and lets it go on for a while.
fn once(
    test: &Test,
    shared: &Shared,
    mode: &str,
    expected: Expected,
    change: impl FnOnce(&mut DispatcherFrame),
) -> Result<(), String> {
    let before = shared.get(0);
    let victim = test.victim(&format!("mode={mode}"), shared)?;
    victim.start().map_err(|e| format!("{e}"))?;
    // A turn of a victim that never yields is a whole time slice.
    let most = if mode.starts_with("hog") { 2 } else { 20 };
    let turns = |enough: &dyn Fn() -> bool| {
        (0..most).any(|_| {
            let _ = lmp::syscall::yield_core();
            enough()
        })
    };
    if !turns(&|| shared.get(0) != before) {
        return Err(String::from("the victim does not start"));
    }
    let flags = MapFlags::READ | MapFlags::WRITE;
    let mapped = memory::map(victim.frame(), 0, FRAME_SIZE, flags).map_err(|e| format!("{e}"))?;
    // SAFETY: the victim shares this core and does not run while this domain does; the mapping is used by
    // nobody else, and any bytes are a dispatcher frame.
    unsafe {
        change(&mut *mapped.as_ptr::<DispatcherFrame>());
        memory::unmap(mapped);
    }
    let ended = turns(&|| victim.end().is_some());
    let end = victim.end();
    victim.destroy().map_err(|e| format!("{e}"))?;
    match (expected, end) {
        (Expected::End, None) if !ended => Err(String::from("the victim goes on")),
        _ => Ok(()),
    }
}

/// Fills most of the frame at random.
fn scramble(frame: &mut DispatcherFrame, random: &mut Random) {
    for area in [&mut frame.enabled, &mut frame.disabled_area, &mut frame.trap] {
        let SaveArea { gpr, rip, rflags, fs_base, gs_base, vector_valid, fp_control } = area;
        gpr.iter_mut().for_each(|word| *word = random.awkward());
        for word in [rip, rflags, fs_base, gs_base, vector_valid, fp_control] {
            // Half of the words stay, so that one wrong word does not hide the others.
            if random.below(2) == 0 {
                *word = random.awkward();
            }
        }
    }
    for vector in [&mut frame.enabled_vector, &mut frame.disabled_vector, &mut frame.trap_vector] {
        vector[..576].fill_with(|| random.next_u64() as u8);
    }
    let c = &mut frame.control;
    for word in [
        &mut c.disabled,
        &mut c.critical_start,
        &mut c.critical_end,
        &mut c.run,
        &mut c.page_fault,
        &mut c.page_fault_disabled,
        &mut c.trap,
        &mut c.trap_disabled,
        &mut c.upcall_stack,
        &mut c.self_va,
        &mut c.trap_busy,
        &mut c.events,
        &mut c.send_deadline,
        &mut c.receive_deadline,
    ] {
        if random.below(2) == 0 {
            *word = random.awkward();
        }
    }
}
