//! The domain that benchmarks between cores start on each core: see `bench::peers`.
#![no_std]
#![no_main]

use boot_freestanding as _;
use runtime::Env;

runtime::entry!(main);

fn main(env: &Env) -> u64 {
    bench::peers::peer_main(env)
}
