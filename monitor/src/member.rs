//! The monitor of a further core.

use core::fmt;

use lmp::{CPtr, ObjType, SysError, syscall};
use monitor::handover::slot;
use monitor::protocol::{ACCEPTS, Member};
use runtime::events::{self, Deadline, Event};
use runtime::memory::{self, MemoryError};
use runtime::{Env, vector};
use ump::Endpoint;

use crate::shared;

const LOOK: Event = Event::new(0);

/// Why the monitor cannot work.
pub(crate) enum Failure {
    /// Memory, slots or addresses.
    Memory(MemoryError),
    /// The CPU driver refused.
    Refused(&'static str, SysError),
    /// The core was told to start and never ran.
    NeverRan,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Memory(error) => error.fmt(f),
            Failure::Refused(operation, cause) => write!(f, "{operation} was refused: {cause}"),
            Failure::NeverRan => f.write_str("it does not answer INIT and SIPI"),
        }
    }
}

impl From<MemoryError> for Failure {
    fn from(error: MemoryError) -> Self {
        Failure::Memory(error)
    }
}

/// A notification that interrupt `vector` signals and that raises `event`.
pub(crate) fn listen(vector: u8, event: Event) -> Result<CPtr, Failure> {
    let notification = memory::allocate(ObjType::Notification, 0)?.cap;
    events::bind(notification, event).map_err(|e| Failure::Refused("binding a notification", e))?;
    syscall::irq_bind(slot::IRQ, u64::from(vector), notification)
        .map_err(|e| Failure::Refused("binding an interrupt", e))?;
    Ok(notification)
}

/// Lets `vector` come again and fetches what it said: nothing more is lost if messages are looked for after.
pub(crate) fn rearm(vector: u8, notification: CPtr) {
    let _ = syscall::irq_ack(slot::IRQ, u64::from(vector));
    let _ = syscall::notification_poll(notification);
}

pub(crate) fn run(env: &Env) -> u64 {
    match serve(env) {
        Ok(never) => match never {},
        Err(failure) => {
            runtime::println!("monitor: {failure}");
            runtime::start::EXIT_ERROR
        }
    }
}

fn serve(env: &Env) -> Result<core::convert::Infallible, Failure> {
    let info = env.info();
    let (first, own) = shared::channel(slot::SHARE)?;
    let mut channel = Endpoint::new(own, first, ACCEPTS);
    let mut member = Member::new(info.core, info.apic_id);
    let notification = listen(vector::MONITOR, LOOK)?;
    // The console's doorbell is on the first core, and so is the monitor to talk to.
    let bell = vector::same_core(u64::from(info.console_doorbell), vector::MONITOR);
    let mut answer = Some(member.hello());
    loop {
        if let Some(message) = answer.take() {
            // There is room: the leader has one ping out at a time. A broken channel stays silent.
            if channel.try_send(&message).is_ok() {
                let _ = syscall::ipi_send(slot::IPI, bell);
            }
        }
        match channel.try_recv() {
            Ok(Some(message)) => answer = member.step(&message),
            Ok(None) | Err(_) => {
                events::wait(LOOK.bit(), Deadline::NEVER);
                rearm(vector::MONITOR, notification);
            }
        }
    }
}
