//! The CPU driver's entry code: what runs before Rust can, on the first core and on every further one.
//!
//! * [`pvh`]: `pvh_entry`, 32-bit, from `qemu -kernel`;
//! * [`limine`]: `limine_entry`, 64-bit, from Limine;
//! * [`trampoline`]: real-mode code for further cores, copied below 1 MiB.
//!
//! The first two call `boot_pvh` and `boot_limine`, which the CPU driver defines; the trampoline jumps to an
//! address it is given.
#![no_std]
#![cfg(target_arch = "x86_64")]

pub mod limine;
pub mod pvh;
pub mod trampoline;
