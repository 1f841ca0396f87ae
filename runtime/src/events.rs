//! Events: the bits by which notifications reach this dispatcher, and waiting for them.
//!
//! A notification bound with [`bind`] sets its [`Event`]'s bit in the dispatcher frame and lets a blocked
//! dispatcher go on. Bits say "look", never "how often": who waits looks at the state that the event is
//! about, before waiting and after every return.
//!
//! Events 0 to 15 are the domain's own, by number ([`Event::new`]); 16 to 62 are handed out ([`allocate`]) to
//! endpoints and [`bells`](crate::bells); 63 is the end of a child. Who waits for more than one or two things
//! uses a [waitset](crate::waitset), which sorts the bits by what they are about.

use core::sync::atomic::{AtomicU64, Ordering};

use lmp::CPtr;
use lmp::cptr::task;
use lmp::error::SysResult;
use lmp::syscall;

use crate::local::Local;
use crate::{start, time};

/// The first event that [`allocate`] hands out.
const FIRST_SHARED: u8 = 16;

/// A bit among the events of this dispatcher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event(u8);

impl Event {
    /// The end of a child ([`crate::spawn`]).
    pub const CHILD: Event = Event(63);

    /// Event `number`, for the domain's own use.
    ///
    /// # Panics
    /// If `number` is above 15.
    pub const fn new(number: u8) -> Event {
        assert!(number < FIRST_SHARED, "event numbers 0 to 15 are the domain's own");
        Event(number)
    }

    /// The event's bit number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The event as a set of one.
    pub const fn bit(self) -> u64 {
        1 << self.0
    }
}

/// When a wait gives up, in ticks of the time-stamp counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Deadline(pub u64);

impl Deadline {
    /// Never.
    pub const NEVER: Deadline = Deadline(u64::MAX);

    /// At once: look, do not wait.
    pub const NOW: Deadline = Deadline(0);

    /// So many ticks from now.
    pub fn after(ticks: u64) -> Deadline {
        Deadline(time::now().saturating_add(ticks))
    }

    /// So many milliseconds from now.
    pub fn after_ms(ms: u64) -> Deadline {
        Deadline::after(ms.saturating_mul(ticks_per_ms()))
    }

    /// So many microseconds from now.
    pub fn after_us(us: u64) -> Deadline {
        Deadline::after(us.saturating_mul(ticks_per_ms()) / 1000)
    }

    /// Whether it is over.
    pub fn has_passed(self) -> bool {
        self != Deadline::NEVER && time::now() >= self.0
    }
}

/// Ticks of the time-stamp counter in a millisecond. 1 GHz is assumed where the CPU driver could not measure it: a
/// deadline that comes early or late is better than none.
fn ticks_per_ms() -> u64 {
    const ASSUMED: u64 = 1_000_000;
    start::info().map(|i| i.tsc_ticks_per_ms).filter(|&ticks| ticks > 0).unwrap_or(ASSUMED)
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

/// Let the events of the set `mask` have come: for who fetched an event and leaves something of it to be done.
pub fn post(mask: u64) {
    PENDING.set(PENDING.get() | mask);
}

/// Wait until an event of the set `mask` has come, and clear it; 0 if the deadline passed first.
pub fn wait(mask: u64, deadline: Deadline) -> u64 {
    loop {
        let found = take(mask);
        if found != 0 {
            return found;
        }
        if deadline.has_passed() {
            return 0;
        }
        set_deadline(deadline);
        // Whatever it returns, the conditions above decide whether the wait is over.
        let _ = syscall::block();
    }
}

/// Sets the deadline of the next invocation that waits.
pub(crate) fn set_deadline(deadline: Deadline) {
    let frame = start::frame();
    // SAFETY: the dispatcher frame is mapped; the CPU driver reads this word at an invocation that waits.
    unsafe { (&raw mut (*frame).control.receive_deadline).write_volatile(deadline.0) };
}

/// The events that are handed out.
static TAKEN: Local<u64> = Local::new(0);

/// An event that nobody uses; `None` if all 47 are in use.
pub fn allocate() -> Option<Event> {
    let free = !(TAKEN.get() | Event::CHILD.bit()) >> FIRST_SHARED << FIRST_SHARED;
    if free == 0 {
        return None;
    }
    let event = Event(free.trailing_zeros() as u8);
    TAKEN.set(TAKEN.get() | event.bit());
    Some(event)
}

/// Gives back an event that [`allocate`] handed out, once nothing raises it any more.
pub fn free(event: Event) {
    take(event.bit());
    TAKEN.set(TAKEN.get() & !event.bit());
}

/// Let `notification` raise `event` in this dispatcher.
///
/// # Errors
/// The CPU driver's, if the capability is no notification or is bound already.
pub fn bind(notification: CPtr, event: Event) -> SysResult {
    syscall::notification_bind(notification, task::DISPATCHER, u64::from(event.0))
}
