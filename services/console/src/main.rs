//! The console domain: owns the serial ports, and drains the logs of all CPU drivers and all console streams.
//!
//! It works when its doorbell rings and blocks otherwise, so nothing of it runs during a measurement that does
//! not print. Text goes to the first serial port, records to the second, each line whole.
#![no_std]
#![no_main]

extern crate alloc;

mod serial;
mod source;

use core::sync::atomic::Ordering;

use alloc::vec::Vec;
use boot_freestanding as _;
use console::handover::{self, Control, slot};
use lmp::invocation::MapFlags;
use lmp::objects::PAGE_SIZE;
use lmp::{CPtr, ObjType, SysError, syscall};
use results::DEBUG_EXIT_PORT;
use runtime::events::{self, Deadline, Event};
use runtime::memory::{self, MemoryError};
use runtime::{Env, vector};

use serial::Serial;
use source::Source;

runtime::entry!(main);

const RING: Event = Event::new(0);

/// Exit code when the console cannot work; it has no console to say why.
const EXIT_MEMORY: u64 = 3;
const EXIT_REFUSED: u64 = 4;

/// The two ports.
pub(crate) struct Ports {
    text: Serial,
    records: Serial,
}

impl Ports {
    fn text(&mut self, tag: core::fmt::Arguments<'_>, line: &str) {
        let mut out = alloc::format!("{tag}{line}");
        out.push_str("\r\n");
        self.text.write(out.as_bytes());
    }

    fn record(&mut self, line: &str) {
        let mut out = Vec::with_capacity(line.len() + 1);
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
        self.records.write(&out);
    }
}

fn main(env: &Env) -> u64 {
    let mut ports = Ports {
        text: Serial::new(slot::TEXT_PORT, handover::COM1),
        records: Serial::new(slot::RECORD_PORT, handover::COM2),
    };
    match serve(env, &mut ports) {
        Ok(never) => match never {},
        Err(Failure::Memory(error)) => {
            ports.text(format_args!("[console] "), &alloc::format!("{error}"));
            EXIT_MEMORY
        }
        Err(Failure::Refused(error)) => {
            ports.text(format_args!("[console] "), error.text());
            EXIT_REFUSED
        }
    }
}

enum Failure {
    Memory(MemoryError),
    Refused(SysError),
}

impl From<MemoryError> for Failure {
    fn from(error: MemoryError) -> Self {
        Failure::Memory(error)
    }
}

impl From<SysError> for Failure {
    fn from(error: SysError) -> Self {
        Failure::Refused(error)
    }
}

fn listen() -> Result<CPtr, Failure> {
    let notification = memory::allocate(ObjType::Notification, 0)?.cap;
    events::bind(notification, RING)?;
    syscall::irq_bind(slot::IRQ, u64::from(vector::CONSOLE), notification)?;
    Ok(notification)
}

fn serve(env: &Env, ports: &mut Ports) -> Result<core::convert::Infallible, Failure> {
    let notification = listen()?;
    let control = memory::map(slot::CONTROL, 0, PAGE_SIZE, MapFlags::READ | MapFlags::WRITE)?;
    // SAFETY: the mapping is never taken down, and its word is only accessed atomically, here and in `init`.
    let control = unsafe { &*control.as_ptr::<Control>() };
    let cores = (env.info().words[0] as usize).min(handover::MAX_CORES);
    let mut sources: Vec<Source> = Vec::with_capacity(cores);
    for core in 0..cores as u32 {
        sources.push(Source::map(core, handover::share(core))?);
    }
    control.ready.store(1, Ordering::Release);
    loop {
        // Acknowledged before the sources are looked at, and after the event was taken: what comes later raises
        // the event again, and whoever takes an event acknowledges it.
        let _ = syscall::irq_ack(slot::IRQ, u64::from(vector::CONSOLE));
        let _ = syscall::notification_poll(notification);
        // Read before draining: what was written before the request is printed before the end.
        let exit = control.exit.load(Ordering::Acquire);
        while drain(&mut sources, ports) {}
        if exit != 0 {
            end_machine(exit);
        }
        events::wait(RING.bit(), Deadline::NEVER);
    }
}

/// A bounded part of what every source has; whether there was anything.
fn drain(sources: &mut [Source], ports: &mut Ports) -> bool {
    // Every source has its turn, whatever the others had.
    sources.iter_mut().filter_map(|source| source.drain(ports).then_some(())).count() > 0
}

fn end_machine(word: u64) {
    // Where there is no such device nothing happens, and the machine stays.
    let _ = syscall::port_out(slot::EXIT_PORT, DEBUG_EXIT_PORT, 4, word as u32);
}
