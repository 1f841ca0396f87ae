//! Benchmark `spawn`: a small domain from the boot archive.
//!
//! `to_first_instruction`: from the call that reads its ELF file to its first instruction. `round_trip`: until
//! it has ended and all its memory is back. The counts tell what it takes: bytes of RAM and kernel objects.
#![no_std]
#![no_main]

use bench::module;
use boot_freestanding as _;
use results::metric;
use runtime::bench::{BenchError, Harness};
use runtime::events::Deadline;
use runtime::spawn::{Child, DomainBuilder};
use runtime::{Env, memory, time};

runtime::entry!(main);

/// RAM of the child for its own use, in bytes: it uses none.
const CHILD_RAM: u64 = 64 << 10;

fn main(env: &Env) -> u64 {
    Harness::run(env, "spawn", |h| {
        let file = module(h.env(), "bench_child")?;
        let spawn = || -> Result<Child, BenchError> {
            let child = DomainBuilder::new("child", file).memory(CHILD_RAM).build()?;
            child.start()?;
            Ok(child)
        };
        let once = spawn()?;
        let footprint = once.footprint();
        end_of(&once)?;
        once.destroy()?;
        let free = memory::stats().free;
        let counts = [("bytes", footprint.bytes), ("objects", footprint.objects)];
        h.measure_with("to_first_instruction", h.samples(100), &counts, || {
            let start = time::now_serialised();
            let child = spawn()?;
            let first = end_of(&child)?;
            child.destroy()?;
            Ok(first.saturating_sub(start))
        })?;
        h.measure_with(metric::ROUND_TRIP, h.samples(100), &counts, || {
            let start = time::now_serialised();
            let child = spawn()?;
            end_of(&child)?;
            child.destroy()?;
            Ok(time::now_serialised() - start)
        })?;
        if memory::stats().free != free {
            return Err(BenchError::Wrong("spawned domains left memory behind"));
        }
        Ok(())
    })
}

/// Waits for the child's end; when its first instruction ran.
fn end_of(child: &Child) -> Result<u64, BenchError> {
    let end = child.wait(Deadline::NEVER).ok_or(BenchError::Wrong("the child does not end"))?;
    match end.cause {
        lmp::invocation::EndCause::Exit => Ok(end.detail),
        _ => Err(BenchError::Wrong("the child was ended by a fault")),
    }
}
