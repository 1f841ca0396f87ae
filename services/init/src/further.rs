//! `init` on every core but the first: starts the core's monitor, and the domains that it orders.

use core::convert::Infallible;

use alloc::format;
use alloc::string::String;

use lmp::{ObjType, cptr::task};
use monitor::handover::slot;
use runtime::{Env, vector};

use crate::monitor_of;
use crate::spawner::Spawner;
use crate::streams::{Streams, console_doorbell, one_of};

/// RAM for the monitor's own use, in bytes.
const MONITOR_RAM: u64 = 1 << 20;

pub(crate) fn run(env: &Env) -> u64 {
    match serve(env) {
        Ok(never) => match never {},
        Err(error) => {
            runtime::println!("init: {error}");
            runtime::start::EXIT_ERROR
        }
    }
}

fn serve(env: &Env) -> Result<Infallible, String> {
    let streams = Streams::new(console_doorbell(env.info())).map_err(|e| format!("{e}"))?;
    streams.attach_own();
    let mut spawner = Spawner::new(env, streams).map_err(|e| format!("{e}"))?;
    let irq =
        one_of(task::IRQ_VECTORS, ObjType::Irq, u64::from(vector::MONITOR), 1).map_err(|e| format!("{e}"))?;
    monitor_of::start(&mut spawner, |b| {
        b.memory(MONITOR_RAM).grant(slot::IRQ, irq).grant(slot::SHARE, task::SHARE)
    })?;
    loop {
        spawner.turn(0)?;
    }
}
