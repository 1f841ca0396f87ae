//! The domain that benchmark `spawn` starts: it tells when its first instruction ran, and ends.
#![no_std]
#![no_main]

use boot_freestanding as _;
use runtime::time;

runtime::environment!();

/// Entered as `lmp::start` says. The exit code is the time-stamp counter.
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    lmp::syscall::exit(time::now_serialised())
}
