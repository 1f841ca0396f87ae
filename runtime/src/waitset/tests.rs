//! Waitsets in a world that the tests move by hand.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::waitset::port::{self, Hand};

/// A channel of which only the number of messages matters.
#[derive(Default)]
pub(crate) struct FakeWire {
    pub(crate) messages: Cell<u64>,
    pub(crate) bell: Option<BellId>,
    asleep: Cell<bool>,
    pub(crate) looks: Cell<u64>,
}

use core::cell::Cell;

impl FakeWire {
    pub(crate) fn new(bell: Option<u16>) -> Rc<FakeWire> {
        Rc::new(FakeWire { bell: bell.map(BellId), ..FakeWire::default() })
    }

    /// The peer sends, and rings if it must.
    pub(crate) fn send(&self, hand: &mut Hand<'_>) {
        self.messages.set(self.messages.get() + 1);
        if self.asleep.get()
            && let Some(bell) = self.bell
        {
            // Once per sleep; `asleep` stays: it is the waitset's.
            hand.ring(bell);
        }
    }

    pub(crate) fn take(&self) -> bool {
        let some = self.messages.get() > 0;
        self.messages.set(self.messages.get().saturating_sub(1));
        some
    }
}

impl Wire for FakeWire {
    fn is_news(&self, _: Until) -> bool {
        self.looks.set(self.looks.get() + 1);
        self.messages.get() > 0
    }

    fn is_ready(&self, until: Until) -> bool {
        self.is_news(until)
    }

    fn fall_asleep(&self, until: Until) -> bool {
        if self.bell.is_none() || self.is_news(until) {
            return false;
        }
        self.asleep.set(true);
        true
    }

    fn wake_up(&self) {
        self.asleep.set(false);
    }

    fn bell(&self) -> Option<BellId> {
        self.bell
    }
}

fn add(set: &mut Waitset, wire: &Rc<FakeWire>) -> Member {
    set.add_wire(wire.clone(), Some(Until::Message))
}

/// Runs out of things to look at.
fn settle(set: &mut Waitset) {
    for _ in 0..=POLL_ROUNDS {
        assert_eq!(set.poll(), None);
    }
}

#[test]
fn sleeping_channels_cost_nothing_until_they_are_rung() {
    port::start(|_| {});
    let mut set = Waitset::new();
    let wires: Vec<_> = (0..4096).map(|n| FakeWire::new(Some(n))).collect();
    let members: Vec<_> = wires.iter().map(|w| add(&mut set, w)).collect();
    settle(&mut set);
    let looks = |wires: &[Rc<FakeWire>]| wires.iter().map(|w| w.looks.get()).sum::<u64>();
    let before = looks(&wires);
    settle(&mut set);
    assert_eq!(looks(&wires), before);
    port::act(|hand| wires[4095].send(hand));
    assert_eq!(set.poll(), Some(members[4095]));
    assert_eq!(looks(&wires), before + 1, "only the one that was rung was looked at");
}

#[test]
fn a_flood_does_not_hide_others() {
    port::start(|_| {});
    let mut set = Waitset::new();
    let (flood, quiet) = (FakeWire::new(None), FakeWire::new(Some(3)));
    let (loud, member) = (add(&mut set, &flood), add(&mut set, &quiet));
    let bell = set.add(Source(Kind::Bell(BellId(9))));
    let timer = set.add_timer(Deadline(100));
    flood.messages.set(u64::MAX);
    for _ in 0..2 * POLL_ROUNDS {
        assert_eq!(set.poll(), Some(loud));
    }
    port::act(|hand| {
        quiet.send(hand);
        hand.ring(BellId(9));
        hand.set_time(100);
    });
    let next: BTreeSet<_> = (0..4).map(|_| set.poll()).collect();
    assert_eq!(next, BTreeSet::from([loud, member, bell, timer].map(Some)));
}

#[test]
fn the_domain_blocks_when_all_sleep_and_wakes_by_a_ring() {
    let wire = FakeWire::new(Some(64));
    let peer = wire.clone();
    port::start(move |hand| {
        if hand.deadline == Deadline::NEVER {
            peer.send(hand);
        }
    });
    let mut set = Waitset::new();
    let member = add(&mut set, &wire);
    assert_eq!(set.wait(Deadline::NEVER), Some(member));
    let (pauses, blocks) = port::counts();
    assert_eq!((pauses, blocks), (u64::from(POLL_ROUNDS), 1));
}

#[test]
fn a_polling_channel_keeps_the_domain_awake() {
    let wire = FakeWire::new(None);
    let (peer, mut pauses) = (wire.clone(), 0);
    port::start(move |hand| {
        pauses += 1;
        if pauses == 1000 {
            peer.send(hand);
        }
    });
    let mut set = Waitset::new();
    let member = add(&mut set, &wire);
    assert_eq!(set.wait(Deadline::NEVER), Some(member));
    assert_eq!(port::counts(), (1000, 0));
}

#[test]
fn timers_go_off_in_order_and_once() {
    port::start(|hand| hand.set_time(hand.deadline.0));
    let mut set = Waitset::new();
    let timers: Vec<_> = [30, 10, 20].map(|t| set.add_timer(Deadline(t))).into();
    assert_eq!(set.wait(Deadline(5)), None);
    for timer in [timers[1], timers[2], timers[0]] {
        assert_eq!(set.wait(Deadline(1000)), Some(timer));
    }
    assert_eq!(set.wait(Deadline(1000)), None);
    set.set_timer(timers[0], Deadline(1500));
    set.set_timer(timers[1], Deadline(1200));
    set.set_timer(timers[1], Deadline(2000));
    set.set_timer(timers[2], Deadline::NEVER);
    assert_eq!(set.wait(Deadline(3000)), Some(timers[0]));
    assert_eq!(set.wait(Deadline(3000)), Some(timers[1]));
    assert_eq!(set.wait(Deadline(3000)), None);
}

#[test]
fn a_timer_that_is_set_again_and_again_leaves_nothing_behind() {
    port::start(|_| {});
    let mut set = Waitset::new();
    let timer = set.add_timer(Deadline(1));
    for n in 0..10_000 {
        set.set_timer(timer, Deadline(1_000_000 + n));
    }
    assert!(set.timers.len() < 100, "{}", set.timers.len());
    set.remove(timer);
    assert_eq!(set.next_timer(), Deadline::NEVER);
    assert!(!set.can_wake());
}

#[test]
fn who_was_removed_is_not_returned() {
    port::start(|_| {});
    let mut set = Waitset::new();
    let wire = FakeWire::new(Some(1));
    let first = add(&mut set, &wire);
    wire.messages.set(1);
    set.remove(first);
    assert_eq!((set.poll(), set.len()), (None, 0));
    wire.messages.set(0);
    let second = add(&mut set, &wire);
    assert_eq!(first.index(), second.index());
    assert_ne!(first, second);
    set.remove(first);
    assert_eq!(set.len(), 1, "a former member's name means nothing");
    wire.messages.set(1);
    assert_eq!(set.poll(), Some(second));
}

#[test]
fn a_channel_waits_for_nothing_when_told_so() {
    port::start(|_| {});
    let mut set = Waitset::new();
    let wire = FakeWire::new(Some(1));
    let member = add(&mut set, &wire);
    settle(&mut set);
    assert!(wire.asleep.get());
    set.watch(member, None);
    assert!(!wire.asleep.get());
    wire.messages.set(1);
    assert_eq!(set.poll(), None);
    set.watch(member, Some(Until::Message));
    assert_eq!(set.poll(), Some(member));
}

#[test]
fn an_event_is_returned_once_for_each_time_it_came() {
    port::start(|_| {});
    let mut set = Waitset::new();
    let event = set.add(Event::new(3));
    assert_eq!(set.poll(), None);
    port::act(|hand| hand.raise(Event::new(3)));
    assert_eq!((set.poll(), set.poll()), (Some(event), None));
}

/// What may happen to a set of channels, bells and timers.
#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    Ring(usize),
    SetTimer(usize, u64),
    Pass(u64),
    Take,
    Rounds(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0usize..6).prop_map(Step::Send),
        (0usize..3).prop_map(Step::Ring),
        ((0usize..3), (1u64..50)).prop_map(|(timer, after)| Step::SetTimer(timer, after)),
        (1u64..30).prop_map(Step::Pass),
        Just(Step::Take),
        (1u32..2 * POLL_ROUNDS).prop_map(Step::Rounds),
    ]
}

proptest! {
    /// Against a naive model: a poll returns a member that is ready, and `None` only if none is, whatever fell
    /// asleep before.
    #[test]
    fn nothing_ready_is_missed(steps in prop::collection::vec(step(), 1..200)) {
        port::start(|_| {});
        let mut set = Waitset::new();
        // Half of the channels can sleep.
        let wires: Vec<_> =
            (0..6u16).map(|n| FakeWire::new((n % 2 == 0).then_some(n * 40))).collect();
        let channels: Vec<_> = wires.iter().map(|w| add(&mut set, w)).collect();
        let bells: Vec<_> = (0..3u16).map(|n| set.add(Source(Kind::Bell(BellId(1000 + n))))).collect();
        let timers: Vec<_> = (0..3).map(|_| set.add_timer(Deadline::NEVER)).collect();
        let rung = RefCell::new(BTreeSet::new());
        let mut deadlines: BTreeMap<Member, u64> = BTreeMap::new();
        let mut now = 0;
        for step in steps {
            let mut polls = 0;
            match step {
                Step::Send(n) => port::act(|hand| wires[n].send(hand)),
                Step::Ring(n) => port::act(|hand| {
                    hand.ring(BellId(1000 + n as u16));
                    rung.borrow_mut().insert(bells[n]);
                }),
                Step::SetTimer(n, after) => {
                    set.set_timer(timers[n], Deadline(now + after));
                    deadlines.insert(timers[n], now + after);
                }
                Step::Pass(ticks) => {
                    now += ticks;
                    port::act(|hand| hand.set_time(now));
                }
                Step::Take => polls = 1,
                Step::Rounds(rounds) => polls = rounds,
            }
            for _ in 0..polls {
                let mut ready: BTreeSet<Member> = rung.borrow().clone();
                ready.extend(deadlines.iter().filter(|(_, d)| **d <= now).map(|(m, _)| *m));
                ready.extend(
                    channels.iter().zip(&wires).filter(|(_, w)| w.messages.get() > 0).map(|(m, _)| *m),
                );
                let found = set.poll();
                match found {
                    Some(member) => prop_assert!(ready.contains(&member)),
                    None => prop_assert!(ready.is_empty(), "missed {ready:?}"),
                }
                if let Some(member) = found {
                    rung.borrow_mut().remove(&member);
                    deadlines.remove(&member);
                    if let Some(n) = channels.iter().position(|m| *m == member) {
                        wires[n].take();
                    }
                }
            }
        }
    }
}
