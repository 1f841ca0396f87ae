//! Benchmark `ump_pingpong`: messages of 64 bytes between each ordered pair of cores, both polling.
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
    Peers::run(env, "ump_pingpong", Cores::All, |peers| peers.each_to_each(Job::PingPong))
}
