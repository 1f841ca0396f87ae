//! `init` on every core but the first: starts the core's monitor.

use alloc::format;
use alloc::string::String;

use lmp::{ObjType, cptr::task};
use monitor::handover::slot;
use runtime::events::Deadline;
use runtime::{Env, println, vector};

use crate::domains;
use crate::streams::{Streams, console_doorbell, one_of};

/// RAM for the monitor's own use, in bytes.
const MONITOR_RAM: u64 = 512 << 10;

pub(crate) fn run(env: &Env) -> u64 {
    match serve(env) {
        Ok(code) => code,
        Err(error) => {
            println!("init: {error}");
            runtime::start::EXIT_ERROR
        }
    }
}

fn serve(env: &Env) -> Result<u64, String> {
    let info = env.info();
    let doorbell = console_doorbell(info);
    let mut streams = Streams::new(doorbell).map_err(|e| format!("{e}"))?;
    streams.attach_own();
    let irq =
        one_of(task::IRQ_VECTORS, ObjType::Irq, u64::from(vector::MONITOR), 1).map_err(|e| format!("{e}"))?;
    let bell = vector::same_core(doorbell, vector::MONITOR);
    let ipi = one_of(task::IPIS, ObjType::Ipi, bell, 1).map_err(|e| format!("{e}"))?;
    let (_, stream) = streams.open("monitor").ok_or("there is no console stream for the monitor")?;
    let monitor = domains::start(env, "monitor", |b| {
        b.memory(MONITOR_RAM)
            .stream(stream)
            .grant(slot::IRQ, irq)
            .grant(slot::IPI, ipi)
            .grant(slot::SHARE, task::SHARE)
    })?;
    // A monitor does not end. If it does, its core has nothing left to do.
    loop {
        if let Some(end) = monitor.wait(Deadline::NEVER) {
            domains::report(info.core, "monitor", &end);
            return Err(String::from("the monitor is gone"));
        }
    }
}
