//! The server of the benchmarks `lmp_pingpong` and `lmp_cap`: answers each call, with as many words as it has, or
//! with the time at which it came.
//!
//! Its argument `mode` says which: `time`, or `words0`, `words4`, `words8`; `caps` and `caps_time` take a
//! capability each time and delete it again, and answer so.
#![no_std]
#![no_main]

use bench::lmp::ENDPOINT;
use boot_freestanding as _;
use lmp::cptr::task;
use lmp::message::{self, Along, Received};
use lmp::syscall;
use runtime::{Env, memory, time};

runtime::entry!(main);

/// Exit code of a server that does not know what to do.
const NO_MODE: u64 = 2;

fn main(env: &Env) -> u64 {
    match env.value("mode") {
        Some("time") => tell_time(),
        Some("words0") => echo::<0>(),
        Some("words4") => echo::<4>(),
        Some("words8") => echo::<8>(),
        Some("caps") => take_caps(),
        _ => NO_MODE,
    }
}

/// Answers with what came.
fn echo<const N: usize>() -> u64 {
    let mut words = [0; N];
    loop {
        match message::reply_receive(ENDPOINT, words) {
            Ok(Received { words: came, .. }) => words = came,
            Err(error) => return error as u64,
        }
    }
}

/// Answers with the time at which the message was there.
fn tell_time() -> u64 {
    let mut came = 0;
    loop {
        let received = message::reply_receive::<1, 0>(ENDPOINT, [came]);
        came = time::now_serialised();
        if let Err(error) = received {
            return error as u64;
        }
    }
}

/// The same with a capability each time, which is deleted before the answer.
fn take_caps() -> u64 {
    let Ok(landing) = memory::slot() else { return NO_MODE };
    let along = Along { landing, ..Along::default() };
    let mut answer = [0, 0];
    loop {
        let received = message::reply_receive_with(ENDPOINT, &answer, along);
        let came = time::now_serialised();
        match received {
            Ok(received) => answer = [came, received.info.cap().into()],
            Err(error) => return error as u64,
        }
        // Nothing is there the first time, and after a call without a capability.
        let _ = syscall::cap_delete(task::ROOT, landing);
    }
}
