//! Scenario `panic`: makes the CPU driver panic, for the test of what reports it.
#![no_std]
#![no_main]

use boot_freestanding as _;
use lmp::cptr::task;
use lmp::error::SysError;
use runtime::Env;

runtime::entry!(main);

fn main(_: &Env) -> Result<(), SysError> {
    runtime::println!("the CPU driver is about to panic, as asked for");
    lmp::syscall::kcb_panic(task::KCB)
}
