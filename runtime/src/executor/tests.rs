//! Tasks in a world that the tests move by hand.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use super::*;
use crate::waitset::port;
use crate::waitset::tests::FakeWire;

/// A channel's receive as [`crate::channel::Channel`] does it, on a channel that is none.
struct FakeChannel {
    wire: Rc<FakeWire>,
    member: Cell<Option<Member>>,
}

impl FakeChannel {
    fn new(wire: &Rc<FakeWire>) -> FakeChannel {
        FakeChannel { wire: wire.clone(), member: Cell::new(None) }
    }

    async fn recv(&self) {
        poll_fn(|context| {
            if must_pause(context) {
                return Poll::Pending;
            }
            if self.wire.take() {
                return Poll::Ready(());
            }
            let member = self.member.get().unwrap_or_else(|| add_wire(self.wire.clone()));
            self.member.set(Some(member));
            watch(member, Until::Message, context.waker());
            Poll::Pending
        })
        .await
    }
}

impl Drop for FakeChannel {
    fn drop(&mut self) {
        self.member.take().into_iter().for_each(remove);
    }
}

#[test]
fn a_future_that_is_ready_needs_no_world() {
    assert_eq!(block_on(async { 7 }), 7);
}

#[test]
fn tasks_run_in_the_order_in_which_they_were_woken() {
    let order = Rc::new(RefCell::new(Vec::new()));
    block_on(async {
        let tasks: Vec<_> = (0..5)
            .map(|n| {
                let order = order.clone();
                spawn(async move {
                    order.borrow_mut().push(n);
                    yield_now().await;
                    order.borrow_mut().push(n + 10);
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
    });
    assert_eq!(*order.borrow(), [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]);
}

#[test]
fn a_dropped_handle_leaves_the_task_running_and_cancel_ends_it() {
    let count = Rc::new(Cell::new(0));
    let add = |count: &Rc<Cell<i32>>| {
        let count = count.clone();
        async move {
            yield_now().await;
            count.set(count.get() + 1);
        }
    };
    block_on(async {
        spawn(add(&count)).detach();
        let cancelled = spawn(add(&count));
        assert_eq!(cancelled.cancel().await, None);
        for _ in 0..5 {
            yield_now().await;
        }
        let finished = spawn(async { 3 });
        while !finished.is_finished() {
            yield_now().await;
        }
        assert_eq!(finished.cancel().await, Some(3));
    });
    assert_eq!(count.get(), 1);
}

#[test]
fn sleepers_wake_in_the_order_of_their_deadlines() {
    port::start(|hand| hand.set_time(hand.deadline.0));
    let order = Rc::new(RefCell::new(Vec::new()));
    block_on(async {
        let tasks: Vec<_> = [300, 100, 200]
            .map(|t| {
                let order = order.clone();
                spawn(async move {
                    sleep_until(Deadline(t)).await;
                    order.borrow_mut().push((t, port::now()));
                })
            })
            .into();
        for task in tasks {
            task.await;
        }
    });
    assert_eq!(*order.borrow(), [(100, 100), (200, 200), (300, 300)]);
}

#[test]
fn a_timeout_drops_what_it_waited_for() {
    port::start(|hand| hand.set_time(hand.deadline.0));
    struct Flag(Rc<Cell<bool>>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let dropped = Rc::new(Cell::new(false));
    let flag = Flag(dropped.clone());
    block_on(async {
        let forever = async move {
            let _flag = flag;
            sleep_until(Deadline(1_000_000)).await;
        };
        assert_eq!(timeout(Deadline(50), forever).await, Err(TimedOut));
        assert!(dropped.get());
        assert_eq!(port::now(), 50);
        assert_eq!(timeout(Deadline(100), async { 1 }).await, Ok(1));
    });
}

#[test]
fn a_flooded_task_lets_others_run() {
    port::start(|_| {});
    let flood = FakeWire::new(None);
    flood.messages.set(u64::MAX);
    let taken = Rc::new(Cell::new(0u64));
    let count = taken.clone();
    block_on(async {
        let hog = spawn(async move {
            let channel = FakeChannel::new(&flood);
            loop {
                channel.recv().await;
                count.set(count.get() + 1);
            }
        });
        for turn in 1..=10 {
            yield_now().await;
            assert!(taken.get() <= turn * u64::from(BUDGET), "turn {turn}: {}", taken.get());
        }
        assert!(taken.get() > 0);
        hog.cancel().await;
    });
}

#[test]
#[should_panic(expected = "nothing is left that could wake a task")]
fn waiting_for_nothing_is_found_out() {
    block_on(core::future::pending::<()>());
}

#[test]
fn block_on_within_a_task_runs_the_others() {
    port::start(|hand| hand.set_time(hand.deadline.0));
    let other = Rc::new(Cell::new(false));
    let flag = other.clone();
    block_on(async move {
        spawn(async move { flag.set(true) }).detach();
        spawn(async move {
            block_on(sleep_until(Deadline(10)));
            assert!(other.get());
        })
        .await;
    });
}

/// Random numbers: splitmix64 (Steele and others, "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// 10^6 random steps of the world: messages arrive at channels that sleep or are polled, between polls, in pauses and while the
/// domain blocks, and tasks also wake each other and sleep; every message must be taken.
#[test]
fn no_wake_up_is_lost_in_a_million_steps() {
    const STEPS: u64 = 1_000_000;
    const CHANNELS: u16 = 24;
    let wires: Vec<_> = (0..CHANNELS).map(|n| FakeWire::new((n % 3 != 0).then_some(n * 70))).collect();
    let sent = Rc::new(Cell::new(0u64));
    let taken = Rc::new(Cell::new(0u64));
    // Of the channels that are only polled, some is active always, so the domain never blocks: with and without.
    for (seed, with_polling) in [(1, true), (2, false)] {
        let over = Rc::new(Cell::new(false));
        let usable: Vec<_> = wires.iter().filter(|w| with_polling || w.bell.is_some()).cloned().collect();
        let (peers, count, mut random) = (usable.clone(), sent.clone(), Random(seed));
        let (mut now, mut calm, mut steps) = (0, 0, 0);
        let is_over = over.clone();
        port::start(move |hand| {
            steps += 1;
            is_over.set(steps >= STEPS / 2);
            now += random.below(4);
            hand.set_time(now);
            // Calm times are long enough for channels to fall asleep.
            calm = if calm > 0 { calm - 1 } else { random.below(4) / 3 * random.below(400) };
            if is_over.get() || calm > 0 && hand.deadline == Deadline::NOW {
                return;
            }
            for _ in 0..random.below(6) {
                peers[random.below(peers.len() as u64) as usize].send(hand);
                count.set(count.get() + 1);
            }
        });
        block_on(async {
            let relay: Rc<RefCell<VecDeque<Waker>>> = Rc::default();
            let tasks: Vec<_> = usable
                .iter()
                .enumerate()
                .map(|(n, wire)| {
                    let channel = FakeChannel::new(wire);
                    let (taken, relay) = (taken.clone(), relay.clone());
                    let mut random = Random(n as u64);
                    spawn(async move {
                        loop {
                            channel.recv().await;
                            taken.set(taken.get() + 1);
                            match random.below(8) {
                                0 => yield_now().await,
                                1 => sleep_until(Deadline(port::now() + random.below(20))).await,
                                2 => {
                                    // Wait until another task passes by, if any is left to do so.
                                    let mut waited = false;
                                    let until = sleep_until(Deadline(port::now() + 40));
                                    let mut until = pin!(until);
                                    poll_fn(|context| {
                                        if core::mem::replace(&mut waited, true) {
                                            return Poll::Ready(());
                                        }
                                        relay.borrow_mut().push_back(context.waker().clone());
                                        until.as_mut().poll(context)
                                    })
                                    .await;
                                }
                                _ => {
                                    if let Some(waker) = relay.borrow_mut().pop_front() {
                                        waker.wake();
                                    }
                                }
                            }
                        }
                    })
                })
                .collect();
            let mut patience = 1000;
            while !over.get() || taken.get() < sent.get() {
                sleep_until(Deadline(port::now() + 100)).await;
                if over.get() {
                    patience -= 1;
                    assert!(patience > 0, "{} of {} messages were taken", taken.get(), sent.get());
                }
            }
            for task in tasks {
                task.cancel().await;
            }
        });
        assert_eq!(taken.get(), sent.get());
        let (pauses, blocks) = port::counts();
        assert!(pauses > 0 && (blocks > 0) != with_polling, "{pauses} pauses, {blocks} blocks");
    }
}
