//! What the scenario `idle` starts on every core: it blocks on a channel, and reads the core's counters when asked.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use core::fmt::Display;

use boot_freestanding as _;
use lmp::syscall;
use runtime::Env;
use runtime::channel::{Channel, Closed, WaitError, Waiting};
use runtime::events::Deadline;
use runtime::monitor::{self, Options};
use selftest::idling::{ACCEPTS, COUNTERS, SERVICE, VALUES};
use ump::{Message, RPC_LINES};

runtime::entry!(main);

fn text(error: impl Display) -> String {
    format!("{error}")
}

fn main(_env: &Env) -> Result<(), String> {
    let kcb = monitor::counters().map_err(text)?;
    let iref = monitor::lookup(SERVICE).map_err(text)?;
    let options = Options { waiting: Waiting::Blockable, ..Options::default() };
    let mut connection = monitor::bind(iref, &options).map_err(text)?;
    let mut channel: Channel<RPC_LINES> = connection.channel(ACCEPTS).map_err(text)?;
    loop {
        match channel.recv_blocking(Deadline::NEVER) {
            Ok(_) => {}
            Err(WaitError::Closed(Closed::HungUp)) => return Ok(()),
            Err(error) => return Err(text(error)),
        }
        let mut values = [0; COUNTERS.len()];
        for (value, counter) in values.iter_mut().zip(COUNTERS) {
            *value = syscall::kcb_counter(kcb, counter).map_err(text)?;
        }
        channel.send_blocking(&Message::new(VALUES, values), Deadline::NEVER).map_err(text)?;
    }
}
