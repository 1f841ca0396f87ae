//! [`Waitset`]: waiting for many things at once, at a cost that depends on what is ready.
//!
//! Things are *members*: UMP channels, LMP endpoints, [bells](crate::bells), [events](crate::events), timers.
//! Each is registered once. What a member waits for arrives in one of three ways:
//!
//! * an event bit, or a bell behind one: the member is marked ready, and nobody looked at it before;
//! * the passing of a deadline: the earliest one is compared with the clock;
//! * a line of a channel that changes: members of which this is to be expected are *active*, and are looked at
//!   in turn. A channel that was quiet for [`POLL_ROUNDS`] rounds falls asleep by the protocol of
//!   [`ump::Endpoint::fall_asleep`], if its peer can wake it, and is not looked at again before it is rung.
//!   Channels bound as polling stay active.
//!
//! With nothing ready and nothing active the domain blocks; with nothing ready it pauses between two rounds, and
//! gives way to other domains of the core now and then.
//!
//! [`Waitset::wait`] returns one ready member at a time, in turn: a channel that is always ready comes behind
//! all others. Readiness is a state and means "look": a member that may still have something is returned again, an
//! endpoint until a look at it found nothing.
//!
//! ```ignore
//! let mut set = Waitset::new();
//! let (requests, clients) = (set.add(&endpoint), set.add(&channel));
//! let tick = set.add_timer(Deadline::after_ms(10));
//! loop {
//!     match set.wait(Deadline::NEVER) {
//!         Some(m) if m == requests => while let Some(request) = endpoint.try_receive() { .. },
//!         Some(m) if m == clients => while let Some(message) = channel.try_recv()? { .. },
//!         Some(m) if m == tick => set.set_timer(tick, Deadline::after_ms(10)),
//!         _ => {}
//!     }
//! }
//! ```
//!
//! [`executor`](crate::executor) puts `async` on top of one waitset.

pub(crate) mod port;
#[cfg(test)]
pub(crate) mod tests;

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use ump::Until;

use crate::bells::{Bell, BellId};
use crate::events::{Deadline, Event};
use crate::timers::Timers;

/// Rounds without anything new before a channel falls asleep. About the instructions that a sleep costs both
/// sides, as polls: who waits no longer than that loses at most a factor of two (Karlin and others,
/// "Competitive randomized algorithms for non-uniform problems", 1990).
pub const POLL_ROUNDS: u32 = 64;

/// Rounds of polling before other domains are given way to.
const ROUNDS_PER_TURN: u32 = 256;

/// A member of a waitset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Member {
    index: u32,
    /// Distinguishes the members that have the same index one after the other.
    generation: NonZeroU32,
}

impl Member {
    /// A small number that no other present member of the set has.
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// A channel as a waitset sees it.
pub(crate) trait Wire {
    /// Whether there is something to do, by looking at as little as possible.
    fn is_news(&self, until: Until) -> bool;
    /// Whether there is something to do, the end of the channel included.
    fn is_ready(&self, until: Until) -> bool;
    /// Lets the peer ring from now on; false if there is something to do, or it cannot ring.
    fn fall_asleep(&self, until: Until) -> bool;
    /// Lets the peer ring no more.
    fn wake_up(&self);
    /// What the peer rings.
    fn bell(&self) -> Option<BellId>;
}

/// An endpoint as a waitset sees it.
pub(crate) trait Inbox {
    /// Whether something may be there to be received.
    fn is_ready(&self) -> bool;
    /// The event has come.
    fn mark(&self);
    /// What arrivals raise.
    fn event(&self) -> Event;
}

/// Something that can be a member: made from references to channels, endpoints, bells and events.
pub struct Source(pub(crate) Kind);

pub(crate) enum Kind {
    Wire(Rc<dyn Wire>),
    Inbox(Rc<dyn Inbox>),
    Bell(BellId),
    Event(Event),
}

impl From<&Bell> for Source {
    fn from(bell: &Bell) -> Source {
        Source(Kind::Bell(bell.id()))
    }
}

impl From<Event> for Source {
    fn from(event: Event) -> Source {
        Source(Kind::Event(event))
    }
}

enum State {
    Wire { wire: Rc<dyn Wire>, until: Option<Until>, quiet: u32, asleep: bool },
    Inbox { inbox: Rc<dyn Inbox>, watched: bool },
    Bell { id: BellId, rung: bool },
    Event { event: Event, came: bool },
    Timer { deadline: Deadline, stage: Stage },
}

/// How far a timer is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its deadline is to come.
    Set,
    /// It has passed, and nobody was told.
    Passed,
    /// It was told.
    Over,
}

struct Slot {
    generation: NonZeroU32,
    state: Option<State>,
    /// Whether it is in the list of the active.
    active: bool,
}

/// What looking at an active member came to.
enum Look {
    Ready,
    Quiet,
    /// It will be marked when there is something.
    Passive,
}

/// A set of things to wait for.
pub struct Waitset {
    slots: Vec<Slot>,
    free: Vec<u32>,
    active: VecDeque<Member>,
    timers: Timers<Member>,
    /// Entries of `timers` that will come to nothing.
    stale_timers: usize,
    live_timers: usize,
    /// Events that some member waits for.
    events: u64,
    on_event: [Option<Member>; 64],
    /// Bells that members wait for, by bank.
    bells: Vec<u64>,
    bell_banks: u64,
    /// The events of these banks.
    bell_events: u64,
    /// By the number of the bell.
    on_bell: Vec<Option<Member>>,
    poll_rounds: u32,
    /// Rounds since something was ready.
    rounds: u32,
}

impl Waitset {
    /// An empty one.
    pub const fn new() -> Waitset {
        Waitset {
            slots: Vec::new(),
            free: Vec::new(),
            active: VecDeque::new(),
            timers: Timers::new(),
            stale_timers: 0,
            live_timers: 0,
            events: 0,
            on_event: [None; 64],
            bells: Vec::new(),
            bell_banks: 0,
            bell_events: 0,
            on_bell: Vec::new(),
            poll_rounds: POLL_ROUNDS,
            rounds: 0,
        }
    }

    /// Lets channels be polled for `rounds` quiet rounds before they fall asleep.
    pub fn set_poll_rounds(&mut self, rounds: u32) {
        self.poll_rounds = rounds;
    }

    /// Makes `source` a member: a channel, which then waits for messages; an endpoint, a bell or an event.
    ///
    /// A channel, endpoint, bell or event must be a member of one waitset at a time: one that the executor
    /// waits for, because a task does, is a member of the executor's. It must be removed before it is dropped,
    /// but for channels and endpoints, which stay as long as they are members.
    pub fn add(&mut self, source: impl Into<Source>) -> Member {
        match source.into().0 {
            Kind::Wire(wire) => self.add_wire(wire, Some(Until::Message)),
            Kind::Inbox(inbox) => {
                let event = inbox.event();
                let member = self.insert(State::Inbox { inbox, watched: true });
                self.listen(event, member);
                self.activate(member);
                member
            }
            Kind::Bell(id) => {
                let member = self.insert(State::Bell { id, rung: false });
                self.listen_bell(id, member);
                member
            }
            Kind::Event(event) => {
                let member = self.insert(State::Event { event, came: false });
                self.listen(event, member);
                member
            }
        }
    }

    pub(crate) fn add_wire(&mut self, wire: Rc<dyn Wire>, until: Option<Until>) -> Member {
        let bell = wire.bell();
        let member = self.insert(State::Wire { wire, until, quiet: 0, asleep: false });
        if let Some(id) = bell {
            self.listen_bell(id, member);
        }
        self.activate(member);
        member
    }

    /// A timer that is ready once, when `deadline` has passed.
    pub fn add_timer(&mut self, deadline: Deadline) -> Member {
        let member = self.insert(State::Timer { deadline, stage: Stage::Set });
        self.start_timer(member, deadline);
        member
    }

    /// Sets a timer anew. Does nothing to members of other kinds.
    pub fn set_timer(&mut self, timer: Member, deadline: Deadline) {
        let Some(State::Timer { deadline: current, stage }) = self.state(timer) else { return };
        let old = core::mem::replace(current, deadline);
        if core::mem::replace(stage, Stage::Set) == Stage::Set && old != Deadline::NEVER {
            self.stop_timer();
        }
        self.start_timer(timer, deadline);
    }

    /// What a channel or endpoint waits for from now on; `None`: nothing, which costs nothing. For an endpoint all
    /// others are the same. Does nothing to members of other kinds.
    pub fn watch(&mut self, member: Member, until: Option<Until>) {
        let (wire, current, quiet, asleep) = match self.state(member) {
            Some(State::Wire { wire, until, quiet, asleep }) => (wire, until, quiet, asleep),
            Some(State::Inbox { watched, .. }) => {
                *watched = until.is_some();
                if *watched {
                    self.activate(member);
                }
                return;
            }
            _ => return,
        };
        *quiet = 0;
        if *current == until {
            if *asleep {
                return;
            }
        } else {
            *current = until;
            if core::mem::replace(asleep, false) {
                wire.wake_up();
            }
        }
        if until.is_some() {
            self.activate(member);
        }
    }

    /// What a channel waits for.
    pub(crate) fn watched(&mut self, channel: Member) -> Option<Until> {
        match self.state(channel) {
            Some(State::Wire { until, .. }) => *until,
            _ => None,
        }
    }

    /// Takes `member` out. Does nothing if it is none.
    pub fn remove(&mut self, member: Member) {
        let Some(slot) = self.slots.get_mut(member.index()) else { return };
        if slot.generation != member.generation {
            return;
        }
        let Some(state) = slot.state.take() else { return };
        // A place in the list of the active is given up when its turn comes.
        slot.active = false;
        // After 2^32 members the index is not used again.
        if let Some(next) = slot.generation.checked_add(1) {
            slot.generation = next;
            self.free.push(member.index);
        }
        match state {
            State::Wire { wire, asleep, .. } => {
                if let Some(id) = wire.bell() {
                    self.ignore_bell(id);
                }
                if asleep {
                    wire.wake_up();
                }
            }
            State::Inbox { inbox, .. } => self.ignore(inbox.event()),
            State::Bell { id, .. } => self.ignore_bell(id),
            State::Event { event, .. } => self.ignore(event),
            State::Timer { deadline, stage } => {
                if stage == Stage::Set && deadline != Deadline::NEVER {
                    self.stop_timer();
                }
            }
        }
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.slots.iter().filter(|s| s.state.is_some()).count()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether anything could ever become ready.
    pub(crate) fn can_wake(&self) -> bool {
        let listens = self.events | self.bell_events | port::always() != 0;
        listens || !self.active.is_empty() || self.live_timers > 0
    }

    /// A ready member, if there is one; looks at each active member at most once.
    pub fn poll(&mut self) -> Option<Member> {
        self.collect();
        for _ in 0..self.active.len() {
            let member = self.active.pop_front()?;
            match self.look(member) {
                Look::Ready => {
                    self.active.push_back(member);
                    self.rounds = 0;
                    return Some(member);
                }
                Look::Quiet => self.active.push_back(member),
                Look::Passive => {
                    if let Some(slot) = self.slot(member) {
                        slot.active = false;
                    }
                }
            }
        }
        None
    }

    /// Looks at each active member once and calls `found` with those that are ready, which are not watched from then
    /// on; for who registers anew what he still waits for.
    pub(crate) fn sweep(&mut self, mut found: impl FnMut(Member)) {
        self.collect();
        for _ in 0..self.active.len() {
            let Some(member) = self.active.pop_front() else { return };
            match self.look(member) {
                Look::Quiet => self.active.push_back(member),
                look => {
                    if let Some(slot) = self.slot(member) {
                        slot.active = false;
                    }
                    if matches!(look, Look::Ready) {
                        self.rounds = 0;
                        self.watch(member, None);
                        found(member);
                    }
                }
            }
        }
    }

    /// Waits for a ready member; `None` if the deadline passed first.
    pub fn wait(&mut self, deadline: Deadline) -> Option<Member> {
        loop {
            if let Some(member) = self.poll() {
                return Some(member);
            }
            if deadline != Deadline::NEVER && port::now() >= deadline.0 {
                return None;
            }
            self.rest(deadline);
        }
    }

    /// After [`Self::poll`] found nothing: pauses, or blocks until something may have changed or the deadline
    /// passes.
    pub(crate) fn rest(&mut self, deadline: Deadline) {
        if self.active.is_empty() {
            let deadline = deadline.min(self.next_timer());
            port::block(self.events | self.bell_events, deadline);
            return;
        }
        self.rounds += 1;
        if self.rounds.is_multiple_of(ROUNDS_PER_TURN) {
            port::give_way();
        }
        port::pause();
    }

    fn slot(&mut self, member: Member) -> Option<&mut Slot> {
        self.slots.get_mut(member.index()).filter(|s| s.generation == member.generation && s.state.is_some())
    }

    fn state(&mut self, member: Member) -> Option<&mut State> {
        self.slot(member)?.state.as_mut()
    }

    fn insert(&mut self, state: State) -> Member {
        match self.free.pop() {
            Some(index) => {
                let slot = &mut self.slots[index as usize];
                slot.state = Some(state);
                Member { index, generation: slot.generation }
            }
            None => {
                let generation = NonZeroU32::MIN;
                self.slots.push(Slot { generation, state: Some(state), active: false });
                Member { index: self.slots.len() as u32 - 1, generation }
            }
        }
    }

    fn activate(&mut self, member: Member) {
        if let Some(slot) = self.slot(member)
            && !core::mem::replace(&mut slot.active, true)
        {
            self.active.push_back(member);
        }
    }

    fn listen(&mut self, event: Event, member: Member) {
        self.on_event[usize::from(event.number())] = Some(member);
        self.events |= event.bit();
    }

    fn ignore(&mut self, event: Event) {
        self.on_event[usize::from(event.number())] = None;
        self.events &= !event.bit();
    }

    fn listen_bell(&mut self, id: BellId, member: Member) {
        let (bank, number) = (id.bank(), usize::from(id.0));
        if self.bells.len() <= bank {
            self.bells.resize(bank + 1, 0);
        }
        if self.on_bell.len() <= number {
            self.on_bell.resize(number + 1, None);
        }
        self.bells[bank] |= id.bit();
        self.bell_banks |= 1 << bank;
        self.bell_events |= port::event_of(bank).map_or(0, Event::bit);
        self.on_bell[number] = Some(member);
    }

    fn ignore_bell(&mut self, id: BellId) {
        let bank = id.bank();
        self.bells[bank] &= !id.bit();
        if self.bells[bank] == 0 {
            self.bell_banks &= !(1 << bank);
            // Banks may share events.
            self.bell_events =
                bits(self.bell_banks).filter_map(port::event_of).fold(0, |mask, event| mask | event.bit());
        }
        self.on_bell[usize::from(id.0)] = None;
    }

    fn start_timer(&mut self, timer: Member, deadline: Deadline) {
        if deadline != Deadline::NEVER {
            self.live_timers += 1;
            self.timers.insert(deadline, timer);
        }
    }

    /// An entry of the timers has become stale.
    fn stop_timer(&mut self) {
        self.live_timers -= 1;
        self.stale_timers += 1;
        // So that they never outnumber the others by much.
        if self.stale_timers > self.live_timers + 32 {
            let slots = &self.slots;
            self.timers.retain(|deadline, &timer| is_live(slots, timer, deadline));
            self.stale_timers = 0;
        }
    }

    /// The next deadline that means something.
    fn next_timer(&mut self) -> Deadline {
        let slots = &self.slots;
        while let Some((deadline, &timer)) = self.timers.peek() {
            if is_live(slots, timer, deadline) {
                return deadline;
            }
            self.timers.pop(u64::MAX);
            self.stale_timers = self.stale_timers.saturating_sub(1);
        }
        Deadline::NEVER
    }

    /// Marks what events, bells and the clock have made ready.
    fn collect(&mut self) {
        for number in bits(port::take(self.events | self.bell_events) & self.events) {
            if let Some(member) = self.on_event[number] {
                self.mark(member);
            }
        }
        let rung = port::rung_banks() & self.bell_banks;
        for bank in bits(rung) {
            for bit in bits(port::take_bells(bank, self.bells[bank])) {
                if let Some(member) = self.on_bell[bank * 64 + bit] {
                    self.mark(member);
                }
            }
        }
        if self.timers.is_empty() {
            return;
        }
        let now = port::now();
        while self.next_timer().0 <= now {
            if let Some(timer) = self.timers.pop(now) {
                self.live_timers -= 1;
                self.mark(timer);
            }
        }
    }

    /// Something has come for `member`.
    fn mark(&mut self, member: Member) {
        match self.state(member) {
            Some(State::Wire { wire, quiet, asleep, .. }) => {
                *quiet = 0;
                if core::mem::replace(asleep, false) {
                    wire.wake_up();
                }
            }
            Some(State::Inbox { inbox, .. }) => inbox.mark(),
            Some(State::Bell { rung: ready, .. } | State::Event { came: ready, .. }) => *ready = true,
            Some(State::Timer { stage, .. }) => *stage = Stage::Passed,
            None => return,
        }
        self.activate(member);
    }

    fn look(&mut self, member: Member) -> Look {
        let poll_rounds = self.poll_rounds;
        match self.state(member) {
            Some(State::Wire { until: None, .. }) | None => Look::Passive,
            Some(State::Wire { wire, until: Some(until), quiet, asleep }) => {
                let until = *until;
                if wire.is_news(until) {
                    *quiet = 0;
                    return Look::Ready;
                }
                *quiet += 1;
                if *quiet <= poll_rounds {
                    return Look::Quiet;
                }
                *quiet = 0;
                if wire.fall_asleep(until) {
                    *asleep = true;
                    return Look::Passive;
                }
                if wire.is_ready(until) { Look::Ready } else { Look::Quiet }
            }
            Some(State::Inbox { inbox, watched }) => {
                if *watched && inbox.is_ready() {
                    Look::Ready
                } else {
                    Look::Passive
                }
            }
            Some(State::Bell { rung: ready, .. } | State::Event { came: ready, .. }) => {
                if core::mem::take(ready) { Look::Ready } else { Look::Passive }
            }
            Some(State::Timer { stage, .. }) => {
                if *stage == Stage::Passed {
                    *stage = Stage::Over;
                    Look::Ready
                } else {
                    Look::Passive
                }
            }
        }
    }
}

impl Default for Waitset {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Waitset {
    fn drop(&mut self) {
        for state in self.slots.drain(..).filter_map(|s| s.state) {
            if let State::Wire { wire, asleep: true, .. } = state {
                wire.wake_up();
            }
        }
    }
}

/// Whether a timer's entry for `deadline` is not stale.
fn is_live(slots: &[Slot], timer: Member, deadline: Deadline) -> bool {
    slots.get(timer.index()).is_some_and(|slot| {
        slot.generation == timer.generation
            && matches!(slot.state, Some(State::Timer { deadline: d, stage: Stage::Set }) if d == deadline)
    })
}

/// The numbers of the bits that are set, ascending.
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        if word == 0 {
            return None;
        }
        let bit = word.trailing_zeros() as usize;
        word &= word - 1;
        Some(bit)
    })
}
