//! Benchmark `yield`: give up the core and get it back.
//!
//! `to_self`: nobody else can run. `between_two`: another domain does nothing but yield, so a round trip is two
//! yields, two switches of address space and two upcalls.
#![no_std]
#![no_main]

use bench::module;
use boot_freestanding as _;
use lmp::syscall;
use runtime::Env;
use runtime::bench::Harness;
use runtime::spawn::DomainBuilder;

runtime::entry!(main);

fn main(env: &Env) -> u64 {
    Harness::run(env, "yield", |h| {
        let give_up = || {
            let _ = syscall::yield_core();
        };
        h.measure("to_self", h.samples(1000), give_up)?;
        let other = DomainBuilder::new("yielder", module(h.env(), "bench_yielder")?).build()?;
        other.start()?;
        h.measure("between_two", h.samples(1000), give_up)?;
        other.destroy()?;
        Ok(())
    })
}
