//! The players: domains and `init`s, and who is next.

use std::collections::BTreeMap;

use lmp::{CPtr, Rights};
use runtime::interface::monitor::{CONSUMER, Request};
use runtime::interface::spawn::{Order, Report};
use ump::Message;

use super::machine::{Answer, Cap, Holder, Machine, Notice, Object};
use crate::port::Memory;
use crate::wire::Intermon;
use crate::{Event, Monitor, WORDS};

/// How all domains end.
pub(super) const CAUSE: u64 = 1;
pub(super) const DETAIL: u64 = 42;

/// Bytes of a domain's memory.
const MEMORY: u64 = 1 << 20;

/// xorshift64*.
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len())])
    }
}

/// A domain: it has one call out at a time, and remembers what it was told.
#[derive(Default)]
struct Player {
    memory: (u64, u64),
    used: u64,
    ended: bool,
    waits_for: Option<Request>,
    greeted: bool,
    incoming: Vec<u64>,
    connections: Vec<u64>,
    handles: Vec<u64>,
    /// The frame whose copies are being revoked.
    revoking: Option<u64>,
}

pub(super) struct Play {
    pub(super) machine: Machine,
    monitors: Vec<Monitor>,
    players: BTreeMap<(u32, u64), Player>,
    services: Vec<u64>,
    next_domain: u64,
    rng: Rng,
}

impl Play {
    pub(super) fn new(cores: u32, nodes: u16, rng: Rng) -> Play {
        let mut play = Play {
            machine: Machine::new(cores, nodes),
            monitors: (0..cores).map(Monitor::new).collect(),
            players: BTreeMap::new(),
            services: Vec::new(),
            next_domain: 1,
            rng,
        };
        for core in 1..cores {
            play.step(0, Event::Up { core });
            play.step(core, Event::Up { core: 0 });
        }
        play
    }

    pub(super) fn step(&mut self, core: u32, event: Event) {
        self.monitors[core as usize].step(&mut self.machine.at(core), event);
    }

    pub(super) fn monitor(&self, core: u32) -> &Monitor {
        &self.monitors[core as usize]
    }

    pub(super) fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    pub(super) fn services(&self) -> &[u64] {
        &self.services
    }

    pub(super) fn domains(&self, core: u32) -> Vec<u64> {
        self.players.keys().filter(|(c, _)| *c == core).map(|(_, domain)| *domain).collect()
    }

    pub(super) fn add_domain(&mut self, core: u32) -> u64 {
        let domain = self.next_domain;
        self.next_domain += 1;
        let memory = (self.machine.fresh_range(MEMORY), MEMORY);
        self.players.insert((core, domain), Player { memory, ..Player::default() });
        domain
    }

    /// A frame of the domain's own memory, in flight to its monitor.
    pub(super) fn frame(&mut self, who: (u32, u64)) -> (CPtr, Memory) {
        let player = self.players.get_mut(&who).expect("a domain");
        let base = player.memory.0 + player.used % MEMORY;
        player.used += 4096;
        let memory = Memory { base, size: 4096, rights: Rights::READ | Rights::WRITE, owner: who.0 };
        self.machine.frames.insert((who.0, base), 4096);
        // The domain keeps one, the other is passed.
        self.machine.give(who.0, Object::Frame(memory), Holder::Domain(who.1));
        (self.machine.give(who.0, Object::Frame(memory), Holder::Monitor), memory)
    }

    pub(super) fn call(&mut self, who: (u32, u64), words: [u64; WORDS], cap: Option<CPtr>) {
        let call = self.machine.call_of(who.0, who.1);
        if let Some(player) = self.players.get_mut(&who) {
            player.waits_for = Request::from_code(words[0]);
        }
        self.step(who.0, Event::Call { domain: who.1, call, words, cap });
    }

    /// The answer to the last call.
    pub(super) fn answer(&mut self, who: (u32, u64)) -> Answer {
        let answers = self.machine.answers.get_mut(&who);
        let answer = answers.and_then(|answers| answers.pop_front()).expect("an answer");
        self.digest(who, &answer);
        answer
    }

    pub(super) fn waits(&self, who: (u32, u64)) -> bool {
        self.machine.calls.values().any(|caller| *caller == who)
    }

    pub(super) fn notice(&mut self, who: (u32, u64)) -> Option<Notice> {
        self.machine.notices.get_mut(&who)?.pop_front()
    }

    /// A domain makes of an answer what it can.
    fn digest(&mut self, who: (u32, u64), answer: &Answer) {
        let Some(player) = self.players.get_mut(&who) else { return };
        let method = player.waits_for.take();
        let done = answer.words[0] == 0;
        match method {
            Some(Request::Hello) => player.greeted = true,
            Some(Request::Export) if done => self.services.push(answer.words[1]),
            Some(Request::Bind | Request::Accept) if done => player.connections.push(answer.words[1]),
            Some(Request::Spawn) if done => player.handles.push(answer.words[1]),
            Some(Request::RevokeRemote) => {
                if let Some(base) = player.revoking.take()
                    && done
                {
                    let elsewhere = |(core, _): &(u32, Holder)| *core != who.0;
                    assert_eq!(self.machine.copies_of(base).into_iter().find(elsewhere), None, "a survivor");
                }
            }
            _ => {}
        }
    }

    pub(super) fn kill(&mut self, who: (u32, u64)) {
        let Some(player) = self.players.get_mut(&who).filter(|p| !p.ended) else { return };
        player.ended = true;
        let (base, size) = player.memory;
        let words = [Report::Ended as u64, who.1, CAUSE, DETAIL, base, size, 0, 0, 0, 0];
        self.step(who.0, Event::Report { words });
    }

    /// The next order to the `init` of `core`.
    fn init(&mut self, core: u32) -> bool {
        let Some(order) = self.machine.orders.get_mut(&core).and_then(|orders| orders.pop_front()) else {
            return false;
        };
        match Order::from_code(order[0]) {
            Some(Order::Spawn) => {
                let domain = if order[2] == 0 { 0 } else { self.add_domain(core) };
                let words = [Report::Spawned as u64, order[1] & 0xffff_ffff, domain, 0, 0, 0, 0, 0, 0, 0];
                self.step(core, Event::Report { words });
            }
            Some(Order::Kill) => self.kill((core, order[1])),
            Some(Order::Released) => {
                let player = self.players.remove(&(core, order[1])).expect("a domain");
                assert!(player.ended, "released while it runs");
                self.machine.take_down(core, order[1], player.memory);
            }
            None => panic!("{order:?} is no order"),
        }
        true
    }

    fn deliver(&mut self) -> bool {
        let full: Vec<(u32, u32)> =
            self.machine.rings.iter().filter(|(_, ring)| !ring.is_empty()).map(|(pair, _)| *pair).collect();
        let Some(pair) = self.rng.pick(&full) else { return false };
        let message = self.machine.rings.get_mut(&pair).and_then(|ring| ring.pop_front());
        let Some(message) = message else { return false };
        self.step(pair.1, Event::Message { core: pair.0, message });
        true
    }

    /// Until nothing moves any more.
    pub(super) fn settle(&mut self) {
        loop {
            self.settle_without_retries();
            let wants: Vec<u32> =
                self.monitors.iter().filter(|m| m.wants_retry()).map(Monitor::core).collect();
            if wants.is_empty() {
                return;
            }
            for core in wants {
                self.step(core, Event::Retry);
            }
        }
    }

    pub(super) fn settle_without_retries(&mut self) {
        loop {
            let mut moved = self.deliver();
            for core in 0..self.machine.cores {
                moved |= self.init(core);
            }
            if !moved {
                return;
            }
        }
    }

    /// Something happens.
    pub(super) fn anything(&mut self) {
        let core = self.rng.below(self.machine.cores as usize) as u32;
        let all: Vec<(u32, u64)> =
            self.players.iter().filter(|(_, p)| !p.ended).map(|(who, _)| *who).collect();
        match self.rng.below(100) {
            0..35 => {
                self.deliver();
            }
            35..45 => {
                self.init(core);
            }
            45..50 => self.step(core, Event::Retry),
            50..55 => {
                if let Some(who) = self.rng.pick(&all) {
                    while let Some(notice) = self.notice(who) {
                        self.heed(who, &notice);
                    }
                }
            }
            55..58 => {
                if all.len() < 12 {
                    self.add_domain(core);
                }
            }
            58..60 => {
                if let Some(who) = self.rng.pick(&all) {
                    self.kill(who);
                }
            }
            _ => {
                if let Some(who) = self.rng.pick(&all) {
                    self.act(who);
                }
            }
        }
    }

    fn heed(&mut self, who: (u32, u64), notice: &Notice) {
        if let Some(player) = self.players.get_mut(&who)
            && notice[0] == 1
        {
            player.incoming.push(notice[2]);
        }
    }

    /// A capability of `who` of the wanted kind, copied on its way to the monitor.
    fn some_cap(&mut self, who: (u32, u64), wanted: impl Fn(&Object) -> bool) -> Option<CPtr> {
        let own = |((core, _), cap): &(&(u32, CPtr), &Cap)| {
            *core == who.0 && cap.holder == Holder::Domain(who.1) && wanted(&cap.object)
        };
        let objects: Vec<Object> = self.machine.caps.iter().filter(own).map(|(_, cap)| cap.object).collect();
        let object = self.rng.pick(&objects)?;
        Some(self.machine.give(who.0, object, Holder::Monitor))
    }

    /// A domain does something, sensible more often than not.
    fn act(&mut self, who: (u32, u64)) {
        if self.machine.answers.get(&who).is_some_and(|answers| !answers.is_empty()) {
            self.answer(who);
        }
        if self.waits(who) {
            return;
        }
        let Some(player) = self.players.get(&who) else { return };
        let (incoming, connections, handles) =
            (player.incoming.clone(), player.connections.clone(), player.handles.clone());
        let greeted = player.greeted;
        let own = connections.clone();
        let connection = |rng: &mut Rng| rng.pick(&own).unwrap_or(7);
        let mut words = [0u64; WORDS];
        let mut cap = None;
        let choice = if greeted { self.rng.below(24) } else { 0 };
        let method = match choice {
            0 => {
                cap = Some(self.machine.give(who.0, Object::Endpoint { domain: who.1 }, Holder::Monitor));
                Request::Hello
            }
            1..3 => Request::Export,
            3..6 => {
                words[1] = self.rng.pick(&self.services).unwrap_or(3 << 32 | 1);
                words[2] = if self.rng.below(4) == 0 { 1024 } else { 64 };
                words[3] = self.rng.pick(&[0, 4096, 100_000, 1 << 40]).unwrap_or(0);
                words[4] = self.rng.pick(&[0, 3, 3 | CONSUMER]).unwrap_or(0);
                if self.rng.below(2) == 0 {
                    cap = Some(self.machine.give(
                        who.0,
                        Object::Notification { domain: who.1 },
                        Holder::Monitor,
                    ));
                }
                Request::Bind
            }
            6..9 => {
                words[1] = incoming.first().copied().unwrap_or(1);
                if let Some(player) = self.players.get_mut(&who) {
                    player.incoming.retain(|i| *i != words[1]);
                }
                if self.rng.below(2) == 0 {
                    cap = Some(self.machine.give(
                        who.0,
                        Object::Notification { domain: who.1 },
                        Holder::Monitor,
                    ));
                }
                if self.rng.below(8) == 0 { Request::Refuse } else { Request::Accept }
            }
            9..11 => {
                words[1] = connection(&mut self.rng);
                words[2] = self.rng.below(5) as u64;
                words[3] = self.rng.below(3) as u64;
                Request::Take
            }
            11 => {
                words[1] = connection(&mut self.rng);
                Request::Close
            }
            12..15 => {
                words[1] = connection(&mut self.rng);
                cap = match self.rng.below(3) {
                    0 => self.some_cap(who, |_| true),
                    1 => self.some_cap(who, |o| matches!(o, Object::Frame(_))),
                    _ => Some(self.frame(who).0),
                };
                Request::SendCap
            }
            15 => {
                words[1] = connection(&mut self.rng);
                Request::TakeCap
            }
            16 => {
                words[1] = u64::from(self.rng.below(self.machine.cores as usize + 1) as u32);
                words[2] = self.rng.below(4) as u64;
                Request::Spawn
            }
            17 => {
                words[1] = self.rng.pick(&handles).unwrap_or(1);
                // It may wait for long: somebody must kill it.
                Request::WaitEnd
            }
            18 => {
                words[1] = self.rng.pick(&handles).unwrap_or(1);
                Request::Kill
            }
            19 => {
                words[1] = 1 + self.rng.below(3) as u64;
                words[5] = self.rng.pick(&self.services).unwrap_or(0);
                Request::Register
            }
            20 => {
                words[1] = 1 + self.rng.below(3) as u64;
                Request::Lookup
            }
            21 => Request::Counters,
            22 if self.rng.below(2) == 0 => {
                words[1] = self.rng.below(4) as u64;
                Request::Memory
            }
            22 => {
                words[1] = self.rng.pick(&[0, 1, 9, u64::MAX]).unwrap_or(0);
                Request::Core
            }
            _ => {
                let core = who.0;
                cap = self.some_cap(who, |o| matches!(o, Object::Frame(m) if m.owner == core));
                if let (Some(cap), Some(player)) = (cap, self.players.get_mut(&who))
                    && let Object::Frame(m) = self.machine.caps[&(core, cap)].object
                {
                    player.revoking =
                        (m.base >= player.memory.0 && m.base - player.memory.0 < MEMORY).then_some(m.base);
                }
                Request::RevokeRemote
            }
        };
        words[0] = if self.rng.below(50) == 0 { self.rng.next() } else { method as u64 };
        self.call(who, words, cap);
    }

    /// All domains end, and nothing is left.
    pub(super) fn end(mut self) {
        loop {
            let all: Vec<(u32, u64)> =
                self.players.iter().filter(|(_, p)| !p.ended).map(|(who, _)| *who).collect();
            for who in &all {
                self.kill(*who);
            }
            self.settle();
            if self.players.is_empty() {
                break;
            }
        }
        for monitor in &self.monitors {
            assert!(monitor.is_idle(), "{monitor:#?}");
            assert_eq!(monitor.ignored().unknown, 0);
        }
        let mesh = self.machine.mesh_frames();
        let allocated: std::collections::BTreeSet<u64> = self.machine.allocated.keys().copied().collect();
        assert_eq!(allocated, mesh, "only the channels between monitors stay");
        assert!(self.machine.vanished.is_empty(), "slots are lost: {:?}", self.machine.vanished);
        assert!(self.machine.caps.is_empty(), "left: {:?}", self.machine.caps);
        assert_eq!((self.machine.names(), self.machine.entries(), self.machine.calls.len()), (0, 0, 0));
    }

    /// A message that no monitor would send.
    pub(super) fn forge(&mut self, from: u32, to: u32, message: Message) {
        assert_ne!(from, to);
        self.step(to, Event::Message { core: from, message });
    }

    /// The same, well-formed.
    pub(super) fn forge_known(&mut self, from: u32, to: u32, message: Intermon) {
        self.forge(from, to, message.encode());
    }
}
