//! The other domain of benchmark `yield`: yields for ever.
#![no_std]
#![no_main]

use boot_freestanding as _;
use runtime::Env;

runtime::entry!(main);

fn main(_: &Env) {
    loop {
        let _ = lmp::syscall::yield_core();
    }
}
