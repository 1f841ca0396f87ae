//! Benchmark `NAME`: a notification signalled and polled, both by this domain.
//!
//! `signal`: the system call that signals. `round_trip`: signal it, and poll until it is there.
#![no_std]
#![no_main]

use boot_freestanding as _;
use lmp::{ObjType, syscall};
use results::metric;
use runtime::bench::{BenchError, Harness};
use runtime::{Env, memory};

runtime::entry!(main);

fn main(env: &Env) -> u64 {
    Harness::run(env, "NAME", |h| {
        // What is measured, made before the first sample.
        let mine = memory::allocate(ObjType::Notification, 0)?.cap;

        h.measure("signal", h.samples(1000), || {
            let _ = syscall::notification_signal(mine);
        })?;

        let mut lost = 0;
        h.measure(metric::ROUND_TRIP, h.samples(1000), || {
            let there = syscall::notification_signal(mine).and_then(|()| syscall::notification_poll(mine));
            lost += u64::from(!there.is_ok_and(|bits| bits != 0));
        })?;
        // A number is worth nothing if the operation did not do what it should.
        if lost == 0 { Ok(()) } else { Err(BenchError::Wrong("signals were lost")) }
    })
}
