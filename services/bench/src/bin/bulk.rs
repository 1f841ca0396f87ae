//! Benchmark `bulk`: 4 KiB to 4 MiB to a near and a far core, through messages, through shared memory and by
//! descriptor; and what the descriptor alone costs.
//!
//! What is measured is in `bench::jobs`.
#![no_std]
#![no_main]

use bench::jobs::{Job, Way};
use bench::peers::{Cores, Peers};
use boot_freestanding as _;
use runtime::Env;

runtime::entry!(main);

/// Sizes of the data, in KiB.
const SIZES: [u32; 6] = [4, 16, 64, 256, 1024, 4096];

fn main(env: &Env) -> u64 {
    Peers::run(env, "bulk", Cores::NearAndFar, |peers| {
        peers.first_to_others(Job::HandOver)?;
        for kib in SIZES {
            for way in [Way::Messages, Way::SharedMemory, Way::InPlace] {
                peers.first_to_others(Job::Bulk(way, kib))?;
            }
        }
        Ok(())
    })
}
