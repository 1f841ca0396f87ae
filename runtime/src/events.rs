//! Events: the bits by which notifications reach this dispatcher, and waiting for them.
//!
//! A notification bound with [`bind`] sets its [`Event`]'s bit in the dispatcher frame and lets a blocked
//! dispatcher go on. Bits say "look", never "how often": who waits looks at the state that the event is
//! about, before waiting and after every return.

use core::sync::atomic::{AtomicU64, Ordering};

use lmp::CPtr;
use lmp::cptr::task;
use lmp::error::SysResult;
use lmp::syscall;

use crate::local::Local;
use crate::{start, time};

/// A bit among the events of this dispatcher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event(u8);

impl Event {
    /// The end of a child ([`crate::spawn`]).
    pub const CHILD: Event = Event(63);

    /// Event `number`, for the domain's own use.
    ///
    /// # Panics
    /// If `number` is above 62.
    pub const fn new(number: u8) -> Event {
        assert!(number < 63, "event numbers 0 to 62 are the domain's own");
        Event(number)
    }

    /// The event as a set of one.
    pub const fn bit(self) -> u64 {
        1 << self.0
    }
}

/// When a wait gives up, in ticks of the time-stamp counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadline(pub u64);

impl Deadline {
    /// Never.
    pub const NEVER: Deadline = Deadline(u64::MAX);

    /// So many ticks from now.
    pub fn after(ticks: u64) -> Deadline {
        Deadline(time::now().saturating_add(ticks))
    }
}

/// Events that came while others were waited for.
static PENDING: Local<u64> = Local::new(0);

fn arrived() -> u64 {
    let frame = start::frame();
    // SAFETY: the dispatcher frame is mapped, and its word for events is aligned and only accessed atomically,
    // here and by the CPU driver.
    let events = unsafe { AtomicU64::from_ptr(&raw mut (*frame).control.events) };
    // Relaxed: the CPU driver sets bits on this core only, so there is nothing to order. No `xchg` where there
    // is nothing to fetch: the line stays shared.
    if events.load(Ordering::Relaxed) == 0 { 0 } else { events.swap(0, Ordering::Relaxed) }
}

/// Fetch and clear those events of the set `mask` that have come.
pub fn take(mask: u64) -> u64 {
    let all = PENDING.get() | arrived();
    PENDING.set(all & !mask);
    all & mask
}

/// Wait until an event of the set `mask` has come, and clear it; 0 if the deadline passed first.
pub fn wait(mask: u64, deadline: Deadline) -> u64 {
    loop {
        let found = take(mask);
        if found != 0 {
            return found;
        }
        if deadline != Deadline::NEVER && time::now() >= deadline.0 {
            return 0;
        }
        let frame = start::frame();
        // SAFETY: the dispatcher frame is mapped; the CPU driver reads this word at the invocation below.
        unsafe { (&raw mut (*frame).control.receive_deadline).write_volatile(deadline.0) };
        // Whatever it returns, the conditions above decide whether the wait is over.
        let _ = syscall::block();
    }
}

/// Let `notification` raise `event` in this dispatcher.
///
/// # Errors
/// The CPU driver's, if the capability is no notification or is bound already.
pub fn bind(notification: CPtr, event: Event) -> SysResult {
    syscall::notification_bind(notification, task::DISPATCHER, u64::from(event.0))
}
