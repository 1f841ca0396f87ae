//! The monitor domain: on the first core it starts the others, on every core it answers for it.
//!
//! `init` spawns one on each core. What a monitor keeps account of, and what the monitors say to each other, is in the
//! library `monitor`; this binary moves the messages ([`server`]), is the machine under it ([`machine`]) and has the
//! channels to the other monitors ([`peers`]). It blocks whenever there is nothing to do.
#![no_std]
#![no_main]

extern crate alloc;

mod leader;
mod machine;
mod peers;
mod server;
mod shared;

use core::convert::Infallible;

use boot_freestanding as _;
use lmp::start::share;
use monitor::FIRST_CORE;
use monitor::handover::slot;
use monitor::protocol::Member;
use runtime::{Env, vector};

use peers::{Greeting, Peer, Place, Wake};
use server::{Failure, Server};

runtime::entry!(main);

fn main(env: &Env) -> u64 {
    let outcome = if env.info().first_core == 1 { leader::run(env) } else { follow(env) };
    match outcome {
        Ok(never) => match never {},
        Err(failure) => {
            runtime::println!("monitor: {failure}");
            runtime::start::EXIT_ERROR
        }
    }
}

/// The monitor of a further core.
fn follow(env: &Env) -> Result<Infallible, Failure> {
    let info = env.info();
    let mut server = Server::new(info.core)?;
    // The console's doorbell is on the first core, and so is the monitor to talk to.
    let bell = vector::same_core(u64::from(info.console_doorbell), vector::MONITOR);
    let place =
        Place { frame: slot::SHARE, offset: share::MONITOR_OFFSET, side: 0, apic: vector::apic_of(bell) };
    let member = Member::new(info.core, info.apic_id);
    let hello = member.hello();
    let peer = Peer::new(&place, server.table(), Wake::Bell(bell), Greeting::Member(member))?;
    server.greet(FIRST_CORE, peer, &hello);
    loop {
        server.turn();
    }
}
