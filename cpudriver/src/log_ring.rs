//! This core's log: the `log` crate's macros, into the ring in the core's share frame, from which the console
//! domain drains it. A record never waits for its reader. Before there is a console domain, warnings also go straight
//! to the serial port.

use crate::arch::serial::Serial;
use crate::arch::{apic, cpu, window};
use core::fmt::Write as _;
use lmp::start::share;
use spin::Mutex;
use ump::logring::{CoreId, Level, LogMemory, Writer};

struct State {
    writer: Writer<'static>,
    doorbell: u64,
    /// Whether this is the core that the console domain will run on.
    first: bool,
}

static LOG: Mutex<Option<State>> = Mutex::new(None);

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // Never contended: this core alone uses it. A panic while formatting does not come back here.
        if let Some(state) = LOG.try_lock().as_deref_mut().and_then(Option::as_mut) {
            let level = match record.level() {
                log::Level::Error => Level::Error,
                log::Level::Warn => Level::Warn,
                log::Level::Info => Level::Info,
                log::Level::Debug => Level::Debug,
                log::Level::Trace => Level::Trace,
            };
            state.writer.format(level, cpu::tsc(), *record.args());
            if state.doorbell != 0 {
                apic::ring(state.doorbell);
            } else if state.first && record.level() <= log::Level::Warn {
                // The console domain is not up, and never will be if it is `init` that ends: then nobody reads the
                // ring, while the port is nobody's yet.
                let _ = writeln!(Serial::take(), "core 0: {}", record.args());
            }
        }
    }

    fn flush(&self) {}
}

/// Start logging into the share frame at physical address `share_base`, messages up to `level`.
pub(crate) fn start(share_base: u64, core: u32, doorbell: u64, level: u64) {
    let at = window::ptr::<u8>(share_base + share::LOG_OFFSET);
    // SAFETY: the share frame is this core's memory and mapped for good; only the CPU driver writes this part
    // of it. What other cores write there can at worst garble the log.
    let memory = unsafe { LogMemory::from_raw(at, share::LOG_SIZE as usize) };
    let Ok(memory) = memory else { return };
    *LOG.lock() =
        Some(State { writer: Writer::new(memory, CoreId(core as u16)), doorbell, first: core == 0 });
    // A second logger cannot be there: the static is fresh in every instance.
    let _ = log::set_logger(&Logger);
    let level = log::LevelFilter::iter().find(|l| *l as u64 == level);
    log::set_max_level(level.unwrap_or(log::LevelFilter::Info));
}

/// Ring `doorbell` after each record from now on.
pub(crate) fn set_doorbell(doorbell: u64) {
    if let Some(state) = LOG.lock().as_mut() {
        state.doorbell = doorbell;
    }
}
