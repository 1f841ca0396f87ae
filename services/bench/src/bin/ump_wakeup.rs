//! Benchmark `ump_wakeup`: messages of 64 bytes to a blocked receiver on a near and a far core.
//!
//! What is measured is in `bench::jobs`.
#![no_std]
#![no_main]

use bench::jobs::Job;
use bench::peers::{Cores, Peers};
use boot_freestanding as _;
use runtime::Env;

runtime::entry!(main);

fn main(env: &Env) -> u64 {
    Peers::run(env, "ump_wakeup", Cores::NearAndFar, |peers| peers.first_to_others(Job::Wakeup))
}
