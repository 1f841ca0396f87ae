//! `init`: the first domain of each core.
//!
//! On the first core it finds out what machine this is, divides its memory, starts the console, the system knowledge
//! base and the monitor that starts the other cores, and then what the command line asks for. On every other core it
//! starts that core's monitor. On each it starts a memory server too. From then on, on every core, it makes and ends the domains that the monitor orders.
#![no_std]
#![no_main]

extern crate alloc;

mod firmware;
mod first;
mod further;
mod memory_of;
mod monitor_of;
mod report;
mod spawner;
mod streams;

use boot_freestanding as _;
use runtime::Env;

runtime::entry!(main);

fn main(env: &Env) -> u64 {
    if env.info().first_core == 1 { first::run(env) } else { further::run(env) }
}
