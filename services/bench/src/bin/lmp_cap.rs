//! Benchmark `lmp_cap`: a call that passes a capability to a server in another address space.
//!
//! `one_way`: from the call until the server has the capability in its slot. `round_trip`: until the server has
//! deleted it again and the answer is back. The message has no words.
#![no_std]
#![no_main]

use bench::lmp::Server;
use boot_freestanding as _;
use lmp::ObjType;
use lmp::message::{self, Along, Cargo};
use lmp::objects::PAGE_SIZE;
use results::metric;
use runtime::bench::{BenchError, Harness, refused};
use runtime::{Env, memory, time};

runtime::entry!(main);

fn main(env: &Env) -> u64 {
    Harness::run(env, "lmp_cap", |h| {
        let server = Server::start(h.env(), "mode=caps")?;
        let frame = memory::allocate(ObjType::Frame, PAGE_SIZE)?.cap;
        let along = Along { cap: Cargo::Copy(frame), ..Along::default() };
        let samples = h.samples(1000);
        let call = || -> Result<(u64, u64), BenchError> {
            let start = time::now_serialised();
            let answer = message::call_with(server.endpoint, &[], along);
            let end = time::now_serialised();
            match answer.map_err(refused("calling"))?.words {
                [came, 1, ..] => Ok((came.saturating_sub(start), end - start)),
                _ => Err(BenchError::Wrong("the server got no capability")),
            }
        };
        h.moving(0).measure_with(metric::ONE_WAY, samples, &[], || Ok(call()?.0))?;
        h.measure_with(metric::ROUND_TRIP, samples, &[], || Ok(call()?.1))?;
        server.stop()
    })
}
