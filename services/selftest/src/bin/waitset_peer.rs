//! The other side of scenario `waitset`: sends to an endpoint and calls it.
//!
//! | argument | meaning |
//! |---|---|
//! | `sends` | so many messages, each with its number |
//! | `calls` | then so many calls, each with its number, whose answers must be twice that |
//!
//! Ends with the number of answers that were wrong.
#![no_std]
#![no_main]

use boot_freestanding as _;
use lmp::SysError;
use lmp::syscall::yield_core;
use runtime::Env;
use runtime::endpoint::{self, Caps};
use selftest::SHARED;

runtime::entry!(main);

fn main(env: &Env) -> u64 {
    let mut wrong = 0;
    for n in 0..env.number("sends", 0) {
        // A full buffer: the receiver is to have the core.
        while endpoint::send(SHARED, &[n], None) == Err(SysError::BufferFull) {
            let _ = yield_core();
        }
    }
    for n in 0..env.number("calls", 0) {
        match endpoint::call(SHARED, &[n, 1], None, Caps::Refused) {
            Ok(answer) if answer.words[..] == [2 * n] => {}
            _ => wrong += 1,
        }
    }
    wrong
}
