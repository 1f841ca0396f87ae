//! The other side of scenario `connect`: binds to the service and does what its arguments say.
//!
//! | argument | meaning |
//! |---|---|
//! | `n` | lines of each ring: 64 or 1024 |
//! | `p` | KiB of the pool |
//! | `b` | this end sleeps |
//! | `end` | `close`: hang up; `fault`: end by a fault; `stay`: wait for ever |
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use core::fmt::Display;

use boot_freestanding as _;
use lmp::ObjType;
use lmp::invocation::MapFlags;
use lmp::objects::PAGE_SIZE;
use runtime::channel::Waiting;
use runtime::events::Deadline;
use runtime::monitor::{self, Options};
use runtime::{Env, memory};
use selftest::connecting::{ACCEPTS, ECHO, FRAME, SERVICE, WRITTEN, pattern};
use ump::{Message, RPC_LINES, STREAM_LINES};

runtime::entry!(main);

fn main(env: &Env) -> Result<(), String> {
    if env.number("n", RPC_LINES as u64) == STREAM_LINES as u64 {
        run::<STREAM_LINES>(env)
    } else {
        run::<RPC_LINES>(env)
    }
}

fn text(error: impl Display) -> String {
    format!("{error}")
}

fn run<const N: usize>(env: &Env) -> Result<(), String> {
    let options = Options {
        lines: N as u64,
        pool: env.number("p", 0) << 10,
        waiting: if env.flag("b") { Waiting::Blockable } else { Waiting::Polling },
        ..Options::default()
    };
    let iref = monitor::lookup(SERVICE).map_err(text)?;
    let mut connection = monitor::bind(iref, &options).map_err(text)?;
    let mut channel = connection.channel::<N>(ACCEPTS).map_err(text)?;
    for n in 0..100 {
        channel.send_blocking(&Message::new(ECHO, [n]), Deadline::NEVER).map_err(text)?;
        let answer = channel.recv_blocking(Deadline::NEVER).map_err(text)?;
        if answer.words() != [n] {
            return Err(format!("{n} came back as {answer:?}"));
        }
    }
    let seed = 7;
    let mut at = 0;
    for piece in connection.pool() {
        for n in 0..piece.bytes / 8 {
            // SAFETY: the piece is mapped writable for the producer, which this end is, while the connection lives.
            unsafe { piece.as_ptr::<u64>().add(n as usize).write_volatile(pattern(seed, at)) };
            at += 1;
        }
    }
    channel.send_blocking(&Message::new(WRITTEN, [seed]), Deadline::NEVER).map_err(text)?;

    let frame = memory::allocate(ObjType::Frame, PAGE_SIZE).map_err(text)?;
    let mapped = memory::map(frame.cap, 0, PAGE_SIZE, MapFlags::READ | MapFlags::WRITE).map_err(text)?;
    // SAFETY: the page was just mapped writable.
    unsafe { mapped.as_ptr::<u64>().write_volatile(seed) };
    channel.send_with_cap(&Message::new(FRAME, [seed]), frame.cap, Deadline::NEVER).map_err(text)?;
    // The other end has looked at it.
    channel.recv_blocking(Deadline::NEVER).map_err(text)?;
    match env.value("end") {
        Some("fault") => {
            // SAFETY: none: the domain ends by it, as it was told.
            unsafe { core::ptr::null::<u64>().read_volatile() };
            Err(String::from("a read of address 0 went well"))
        }
        Some("stay") => loop {
            channel.recv_blocking(Deadline::NEVER).map_err(text)?;
        },
        _ => Ok(()),
    }
}
