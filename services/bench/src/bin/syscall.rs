//! Benchmark `syscall`: a null invocation, the user's stub included.
//!
//! The operation polls a notification that has nothing pending: one kernel entry, one capability looked up,
//! one word read.
#![no_std]
#![no_main]

use boot_freestanding as _;
use lmp::{ObjType, syscall};
use runtime::bench::Harness;
use runtime::{Env, memory};

runtime::entry!(main);

fn main(env: &Env) -> u64 {
    Harness::run(env, "syscall", |h| {
        let notification = memory::allocate(ObjType::Notification, 0)?;
        h.measure(results::metric::ROUND_TRIP, h.samples(1000), || {
            let _ = syscall::notification_poll(notification.cap);
        })
    })
}
