//! Benchmark `ump_stream`: streams of messages of 64 bytes to a near and a far core, both polling.
//!
//! What is measured is in `bench::jobs`.
#![no_std]
#![no_main]

use bench::jobs::{Job, Publish, Ring};
use bench::peers::{Cores, Peers};
use boot_freestanding as _;
use runtime::Env;

runtime::entry!(main);

fn main(env: &Env) -> u64 {
    Peers::run(env, "ump_stream", Cores::NearAndFar, |peers| {
        for ring in [Ring::Short, Ring::Long] {
            for publish in [Publish::Single, Publish::Burst] {
                peers.first_to_others(Job::Stream(ring, publish))?;
            }
        }
        Ok(())
    })
}
