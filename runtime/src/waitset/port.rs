//! What a waitset needs from the system; on the host, a stand-in that a test moves by hand.

#[cfg(not(test))]
pub(crate) use real::*;

#[cfg(test)]
pub(crate) use fake::*;

#[cfg(not(test))]
mod real {
    use crate::events::{self, Deadline, Event};
    use crate::{bells, monitor, time};

    pub(crate) fn now() -> u64 {
        time::now()
    }

    /// Events that are of interest whoever waits: what the monitor says concerns channels and services.
    pub(crate) fn always() -> u64 {
        monitor::notice_events()
    }

    /// Fetches the events of `mask` that have come, and the bells behind them.
    pub(crate) fn take(mask: u64) -> u64 {
        monitor::look_at_notices();
        let found = events::take(mask);
        if found != 0 {
            bells::fetch(found);
        }
        found
    }

    /// Blocks until an event of `mask` comes, which [`take`] then finds, or the deadline passes.
    pub(crate) fn block(mask: u64, deadline: Deadline) {
        events::post(events::wait(mask | always(), deadline));
    }

    /// The banks with bells that were rung.
    pub(crate) fn rung_banks() -> u64 {
        bells::summary()
    }

    pub(crate) fn take_bells(bank: usize, mask: u64) -> u64 {
        bells::take(bank, mask)
    }

    pub(crate) fn event_of(bank: usize) -> Option<Event> {
        bells::event_of(bank)
    }

    /// Between two rounds of polling.
    pub(crate) fn pause() {
        core::hint::spin_loop();
    }

    /// Lets others have the core.
    pub(crate) fn give_way() {
        let _ = lmp::syscall::yield_core();
    }
}

#[cfg(test)]
mod fake {
    use std::cell::RefCell;

    use crate::bells::{BellId, Rung};
    use crate::events::{Deadline, Event};

    /// All bells raise this one.
    const BELLS: Event = Event::CHILD;

    struct World {
        now: u64,
        events: u64,
        rung: Rung,
        pauses: u64,
        blocks: u64,
        /// What happens in the next waits, before they look.
        script: Box<dyn FnMut(&mut Hand)>,
    }

    /// What a script can do to the world.
    pub(crate) struct Hand<'a> {
        now: &'a mut u64,
        events: &'a mut u64,
        rung: &'a mut Rung,
        /// The deadline of the wait; 0 in a pause.
        pub(crate) deadline: Deadline,
    }

    impl Hand<'_> {
        pub(crate) fn raise(&mut self, event: Event) {
            *self.events |= event.bit();
        }

        pub(crate) fn ring(&mut self, id: BellId) {
            self.rung.add(id.bank(), id.bit());
            *self.events |= BELLS.bit();
        }

        pub(crate) fn set_time(&mut self, now: u64) {
            *self.now = now;
        }
    }

    thread_local! {
        static WORLD: RefCell<World> = RefCell::new(World {
            now: 0, events: 0, rung: Rung::new(), pauses: 0, blocks: 0, script: Box::new(|_| {}),
        });
    }

    fn with<R>(f: impl FnOnce(&mut World) -> R) -> R {
        WORLD.with(|w| f(&mut w.borrow_mut()))
    }

    /// A fresh world in which `script` runs at every pause and every wait.
    pub(crate) fn start(script: impl FnMut(&mut Hand) + 'static) {
        with(|w| {
            *w = World {
                now: 0,
                events: 0,
                rung: Rung::new(),
                pauses: 0,
                blocks: 0,
                script: Box::new(script),
            };
        });
    }

    /// Does something to the world now.
    pub(crate) fn act(f: impl FnOnce(&mut Hand)) {
        with(|w| {
            f(&mut Hand {
                now: &mut w.now,
                events: &mut w.events,
                rung: &mut w.rung,
                deadline: Deadline::NOW,
            });
        });
    }

    /// How often was paused and blocked.
    pub(crate) fn counts() -> (u64, u64) {
        with(|w| (w.pauses, w.blocks))
    }

    fn run_script(deadline: Deadline) {
        // The script may look at channels, which act upon the world: it is not borrowed meanwhile.
        let mut script = with(|w| std::mem::replace(&mut w.script, Box::new(|_| {})));
        let (mut now, mut events, mut rung) = (now(), 0, Rung::new());
        script(&mut Hand { now: &mut now, events: &mut events, rung: &mut rung, deadline });
        with(|w| {
            w.now = now;
            w.events |= events;
            for bank in 0..64 {
                w.rung.add(bank, rung.take(bank, u64::MAX));
            }
            w.script = script;
        });
    }

    pub(crate) fn now() -> u64 {
        with(|w| w.now)
    }

    pub(crate) fn always() -> u64 {
        0
    }

    pub(crate) fn take(mask: u64) -> u64 {
        with(|w| {
            let found = w.events & mask;
            w.events &= !mask;
            found
        })
    }

    pub(crate) fn block(mask: u64, deadline: Deadline) {
        with(|w| w.blocks += 1);
        for _ in 0..1_000_000 {
            if with(|w| w.events & mask) != 0 || now() >= deadline.0 {
                return;
            }
            run_script(deadline);
        }
        panic!("blocked for ever");
    }

    pub(crate) fn rung_banks() -> u64 {
        with(|w| w.rung.summary())
    }

    pub(crate) fn take_bells(bank: usize, mask: u64) -> u64 {
        with(|w| w.rung.take(bank, mask))
    }

    pub(crate) fn event_of(_bank: usize) -> Option<Event> {
        Some(BELLS)
    }

    pub(crate) fn pause() {
        with(|w| w.pauses += 1);
        run_script(Deadline::NOW);
    }

    pub(crate) fn give_way() {}
}
