//! The time-stamp counter: the clock of deadlines and of measurements.
//!
//! Under `-icount` it counts the instructions of all virtual CPUs.

use core::arch::asm;

/// The time-stamp counter now, without ordering.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: reading the time-stamp counter has no effect; ring 3 may (CR4.TSD is clear).
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The time-stamp counter, read after all earlier instructions have completed and before any later one starts.
#[inline(always)]
pub fn now_serialised() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: `lfence; rdtsc; lfence` changes nothing but eax and edx. Intel SDM volume 2B, RDTSC: the first
    // fence lets earlier instructions complete, the second keeps later ones from starting. Not `nomem`, so the
    // compiler moves no memory access across it.
    unsafe {
        asm!("lfence", "rdtsc", "lfence", out("eax") low, out("edx") high, options(nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}
