//! Benchmark `lmp_pingpong`: calls to a server in another address space, with 0, 4 and 8 words each way.
//!
//! `one_way`: from the call until the server has the message in its registers. `round_trip`: until the answer is
//! back. The bytes are those of one message.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use bench::lmp::Server;
use boot_freestanding as _;
use lmp::message::{self, Answer};
use results::metric;
use runtime::bench::{BenchError, Harness, refused};
use runtime::{Env, time};

runtime::entry!(main);

fn main(env: &Env) -> u64 {
    Harness::run(env, "lmp_pingpong", |h| {
        let timer = Server::start(h.env(), "mode=time")?;
        one_way::<0>(h, &timer)?;
        one_way::<4>(h, &timer)?;
        one_way::<8>(h, &timer)?;
        timer.stop()?;
        round_trip::<0>(h)?;
        round_trip::<4>(h)?;
        round_trip::<8>(h)
    })
}

fn one_way<const N: usize>(h: &mut Harness, server: &Server) -> Result<(), BenchError> {
    let samples = h.samples(1000);
    let words = core::array::from_fn(|n| n as u64);
    h.moving(8 * N as u64).measure_with(metric::ONE_WAY, samples, &[], || {
        let start = time::now_serialised();
        let answer = message::call::<N, 1>(server.endpoint, words);
        let Answer { words: [came], .. } = answer.map_err(refused("calling"))?;
        Ok(came.saturating_sub(start))
    })
}

fn round_trip<const N: usize>(h: &mut Harness) -> Result<(), BenchError> {
    let server = Server::start(h.env(), &format!("mode=words{N}"))?;
    let samples = h.samples(1000);
    let mut words: [u64; N] = core::array::from_fn(|n| n as u64 + 1);
    let sent = words;
    h.moving(8 * N as u64).measure_with(metric::ROUND_TRIP, samples, &[], || {
        let start = time::now_serialised();
        let answer = message::call::<N, N>(server.endpoint, words);
        let end = time::now_serialised();
        words = answer.map_err(refused("calling"))?.words;
        Ok(end - start)
    })?;
    if words != sent {
        return Err(BenchError::Wrong("the server answers with other words than it got"));
    }
    server.stop()
}
