//! Scenario `hang`: waits for what never comes, for the test that the host reports a guest that hangs.
#![no_std]
#![no_main]

use boot_freestanding as _;
use runtime::Env;
use runtime::events::{self, Deadline};

runtime::entry!(main);

fn main(_: &Env) {
    runtime::println!("from here on nothing happens");
    loop {
        events::wait(0, Deadline::NEVER);
    }
}
