//! Scenario `waitset`: timers, bells, events, endpoints and channels in one set; blocking calls; tasks; fairness.
//!
//! The channels lie in this domain's own memory. Messages to its endpoint come from domains of the module
//! `test_waitset_peer`.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt::Display;

use boot_archive::Archive;
use boot_freestanding as _;
use lmp::{Rights, syscall};
use runtime::bells::Bell;
use runtime::bench::timed;
use runtime::channel::{Channel, Closed, WaitError, Waiting};
use runtime::endpoint::{Endpoint, EndpointError, ReplyRight};
use runtime::events::Deadline;
use runtime::executor::{block_on, sleep_until, spawn, timeout};
use runtime::spawn::{Child, DomainBuilder};
use runtime::waitset::Waitset;
use runtime::{Env, memory, println, time};
use selftest::{CHILD_RAM, SHARED, Test};
use ump::{Accepts, Kind, Message, RPC_LINES};

runtime::entry!(main);

const DATA: Kind = Kind(0);
const ACCEPTS: Accepts = Accepts::kinds_below(Kind(1));

/// Ticks of the clock that are long compared with anything measured here, and short for who runs the test.
const WHILE: u64 = 2_000_000;

type Outcome = Result<(), String>;
type Check = (&'static str, fn(&Env) -> Outcome);

fn main(env: &Env) -> u64 {
    let mut test = Test::new(env);
    let checks: [Check; 9] = [
        ("timers", timers),
        ("bells", bells),
        ("channels", channels),
        ("endpoint", endpoint),
        ("all together", together),
        ("blocking calls", blocking),
        ("tasks on channels", tasks_on_channels),
        ("tasks on an endpoint", tasks_on_an_endpoint),
        ("a flood and a quiet channel", fairness),
    ];
    // Banks of bells, page tables and the heap stay: once round without counting.
    for (_, check) in checks {
        let _ = check(env);
    }
    let before = memory::stats();
    for (name, check) in checks {
        let result = check(env);
        test.check(name, result);
    }
    let after = memory::stats();
    let left = if after.free == before.free && after.free_slots == before.free_slots {
        Ok(())
    } else {
        Err(format!("{after:?} after {before:?}"))
    };
    test.check("nothing is left behind", left);
    figures();
    test.finish()
}

fn text(error: impl Display) -> String {
    format!("{error}")
}

/// What must be so.
fn is(condition: bool, what: &str) -> Outcome {
    if condition { Ok(()) } else { Err(String::from(what)) }
}

fn pair(waiting: Waiting) -> Result<(Channel<RPC_LINES>, Channel<RPC_LINES>), String> {
    Channel::pair(ACCEPTS, waiting).map_err(text)
}

fn message(n: u64) -> Message {
    Message::new(DATA, [n])
}

fn peer(env: &Env, endpoint: &Endpoint, args: &str, badge: u64) -> Result<Child, String> {
    let module = env.archive().and_then(|bytes| Archive::parse_table(bytes).ok());
    let file =
        module.and_then(|a| a.get("test_waitset_peer")).ok_or("the peer is not in the boot archive")?;
    let child = DomainBuilder::new("test_waitset_peer", file.bytes)
        .args(args)
        .memory(CHILD_RAM)
        .grant_less(SHARED, endpoint.cap(), Rights::WRITE, badge)
        .build()
        .map_err(text)?;
    child.start().map_err(text)?;
    Ok(child)
}

/// Waits for the end of a peer, which must have found nothing wrong.
fn finish(child: Child) -> Outcome {
    let end = child.wait(Deadline::NEVER).ok_or("the peer did not end")?;
    is(end.is_success(), "an answer was wrong")?;
    child.destroy().map_err(text)
}

fn timers(_: &Env) -> Outcome {
    let mut set = Waitset::new();
    let start = time::now();
    let [late, early, never] = [2 * WHILE, WHILE, 1 << 60].map(|t| set.add_timer(Deadline(start + t)));
    is(set.poll().is_none(), "a timer was early")?;
    is(set.wait(Deadline(start + WHILE / 2)).is_none(), "a timer was early while waiting")?;
    is(time::now() >= start + WHILE / 2, "the wait ended early")?;
    is(set.wait(Deadline::NEVER) == Some(early), "the first timer is not the first")?;
    is(time::now() >= start + WHILE, "the first timer was early")?;
    is(set.wait(Deadline::NEVER) == Some(late), "the second timer is not the second")?;
    is(time::now() >= start + 2 * WHILE, "the second timer was early")?;
    set.remove(never);
    is(set.wait(Deadline::after(WHILE)).is_none(), "a removed timer went off")
}

fn bells(_: &Env) -> Outcome {
    // More than a bank.
    let bells: Vec<Bell> = (0..70).map(|_| Bell::new()).collect::<Result<_, _>>().map_err(text)?;
    let mut set = Waitset::new();
    let members: Vec<_> = bells.iter().map(|bell| set.add(bell)).collect();
    is(set.poll().is_none(), "a bell rang by itself")?;
    for n in [0, 63, 64, 69] {
        syscall::notification_signal(bells[n].cap()).map_err(text)?;
        is(set.wait(Deadline::after(WHILE)) == Some(members[n]), "the bell that was rung is not ready")?;
        is(set.poll().is_none(), "a bell is ready twice")?;
    }
    drop(set);
    is(!bells[1].wait(Deadline::after(WHILE / 10)), "a wait for a bell ended before it was rung")?;
    syscall::notification_signal(bells[1].cap()).map_err(text)?;
    is(bells[1].wait(Deadline::NEVER) && !bells[1].take(), "a bell that was rung is not found once")
}

fn channels(_: &Env) -> Outcome {
    for waiting in [Waiting::Polling, Waiting::Blockable] {
        let (mut here, mut there) = pair(waiting)?;
        let mut set = Waitset::new();
        let member = set.add(&here);
        for n in 0..200 {
            // From time to time long enough for the channel to fall asleep.
            if n % 50 == 0 {
                is(set.wait(Deadline::after(WHILE)).is_none(), "a channel without messages is ready")?;
            }
            there.try_send(&message(n)).map_err(text)?;
            is(set.wait(Deadline::after(WHILE)) == Some(member), "a channel with a message is not ready")?;
            let got = here.try_recv().map_err(text)?.ok_or("a ready channel has no message")?;
            is(got.words() == [n], "another message than was sent")?;
        }
        drop(there);
        is(set.wait(Deadline::after(WHILE)) == Some(member), "the end of a channel is not seen")?;
        is(here.closed() == Some(Closed::HungUp), "a channel whose peer hung up is not closed")?;
    }
    Ok(())
}

fn endpoint(env: &Env) -> Outcome {
    let mut endpoint = Endpoint::new(4).map_err(text)?;
    let mut set = Waitset::new();
    let member = set.add(&endpoint);
    is(set.wait(Deadline::after(WHILE)).is_none(), "an endpoint is ready before anything came")?;
    let first = peer(env, &endpoint, "sends=10 calls=10", 5)?;
    let (mut sends, mut calls) = (0, 0);
    while sends + calls < 20 {
        is(set.wait(Deadline::NEVER) == Some(member), "not the endpoint")?;
        while let Some(received) = endpoint.try_receive().map_err(text)? {
            is(received.badge == 5, "the badge is wrong")?;
            match received.reply {
                Some(reply) => {
                    is(received.words[..] == [calls, 1], "a call has other words")?;
                    calls += 1;
                    reply.answer(&[2 * (calls - 1)], None).map_err(text)?;
                }
                None => {
                    is(received.words[..] == [sends], "a message has other words")?;
                    sends += 1;
                }
            }
        }
    }
    is((sends, calls) == (10, 10), "messages were lost or doubled")?;
    finish(first)?;
    // Blocking, and answering one call while receiving the next.
    let second = peer(env, &endpoint, "calls=20", 6)?;
    let mut received = endpoint.receive_blocking(Deadline::NEVER).map_err(text)?;
    for _ in 1..20 {
        let (reply, n) = (received.reply.take().ok_or("not a call")?, received.words[0]);
        received = endpoint.answer_and_receive(reply, &[2 * n], None, Deadline::NEVER).map_err(text)?;
    }
    let n = received.words[0];
    received.reply.ok_or("not a call")?.answer(&[2 * n], None).map_err(text)?;
    finish(second)?;
    let nothing = endpoint.receive_blocking(Deadline::after(WHILE));
    is(nothing.err() == Some(EndpointError::TimedOut), "a receive did not time out")
}

fn together(env: &Env) -> Outcome {
    let (mut here, mut there) = pair(Waiting::Blockable)?;
    let (mut polled, mut other) = pair(Waiting::Polling)?;
    let bell = Bell::new().map_err(text)?;
    let mut endpoint = Endpoint::new(4).map_err(text)?;
    let mut set = Waitset::new();
    let wire = set.add(&here);
    let ring = set.add(&bell);
    let inbox = set.add(&endpoint);
    let timer = set.add_timer(Deadline::NEVER);
    is(set.wait(Deadline::after(WHILE)).is_none(), "a member is ready for nothing")?;
    let child = peer(env, &endpoint, "sends=1", 0)?;
    is(set.wait(Deadline::NEVER) == Some(inbox), "the endpoint is not ready")?;
    is(endpoint.try_receive().map_err(text)?.is_some(), "nothing was received")?;
    is(endpoint.try_receive().map_err(text)?.is_none(), "something else was received")?;
    finish(child)?;
    there.try_send(&message(1)).map_err(text)?;
    syscall::notification_signal(bell.cap()).map_err(text)?;
    set.set_timer(timer, Deadline(time::now()));
    let mut found = Vec::new();
    for _ in 0..3 {
        let member = set.wait(Deadline::after(WHILE)).ok_or("of three ready members one is missing")?;
        if member == wire {
            is(here.try_recv().map_err(text)?.is_some(), "no message")?;
        }
        found.push(member);
    }
    found.sort();
    let mut expected = Vec::from([wire, ring, timer]);
    expected.sort();
    is(found == expected, "of three ready members one came twice")?;
    is(set.wait(Deadline::after(WHILE)).is_none(), "a member is ready still")?;
    // With a channel that is only polled the domain never blocks, and the others work all the same.
    let poll = set.add(&polled);
    set.set_timer(timer, Deadline::after(WHILE / 10));
    is(set.wait(Deadline::NEVER) == Some(timer), "a timer did not go off while polling")?;
    other.try_send(&message(2)).map_err(text)?;
    is(set.wait(Deadline::NEVER) == Some(poll), "the polled channel is not ready")?;
    is(polled.try_recv().map_err(text)?.is_some(), "no message")
}

fn blocking(_: &Env) -> Outcome {
    for waiting in [Waiting::Polling, Waiting::Blockable] {
        let (mut here, mut there) = pair(waiting)?;
        let nothing = here.recv_blocking(Deadline::after(WHILE));
        is(nothing == Err(WaitError::TimedOut), "a receive did not time out")?;
        for n in 0..RPC_LINES as u64 {
            there.send_blocking(&message(n), Deadline::NEVER).map_err(text)?;
        }
        let full = there.send_blocking(&message(0), Deadline::after(WHILE));
        is(full == Err(WaitError::TimedOut), "a send into a full channel did not time out")?;
        for n in 0..RPC_LINES as u64 {
            let got = here.recv_blocking(Deadline::NEVER).map_err(text)?;
            is(got.words() == [n], "another message than was sent")?;
        }
        there.send_blocking(&message(7), Deadline::after(WHILE)).map_err(text)?;
        drop(there);
        is(here.recv_blocking(Deadline::NEVER) == Ok(message(7)), "the last message is lost")?;
        let end = here.recv_blocking(Deadline::NEVER);
        is(end == Err(WaitError::Closed(Closed::HungUp)), "the end of a channel is not seen")?;
    }
    Ok(())
}

fn tasks_on_channels(_: &Env) -> Outcome {
    for waiting in [Waiting::Polling, Waiting::Blockable] {
        let (mut here, mut there) = pair(waiting)?;
        block_on(async {
            let echo = spawn(async move {
                while let Ok(message) = there.recv().await {
                    if there.send(&message).await.is_err() {
                        break;
                    }
                }
            });
            for n in 0..500 {
                if n % 100 == 0 {
                    sleep_until(Deadline::after(WHILE / 10)).await;
                }
                here.send(&message(n)).await.map_err(text)?;
                let answer = here.recv().await.map_err(text)?;
                is(answer.words() == [n], "another answer than was asked")?;
            }
            // More than fits: the sender must wait for credit, and be woken for it.
            let mut taken = 0;
            let (mut from, mut to) = pair(waiting)?;
            let sender = spawn(async move {
                for n in 0..10 * RPC_LINES as u64 {
                    from.send(&message(n)).await.map_err(text)?;
                }
                Ok::<(), String>(())
            });
            sleep_until(Deadline::after(WHILE / 10)).await;
            while let Ok(message) = to.recv().await {
                is(message.words() == [taken], "a message out of order")?;
                taken += 1;
                if taken % 40 == 0 {
                    sleep_until(Deadline::after(WHILE / 20)).await;
                }
            }
            sender.await?;
            is(taken == 10 * RPC_LINES as u64, "messages were lost")?;
            let late = timeout(Deadline::after(WHILE / 10), here.recv()).await;
            is(late.is_err(), "a receive did not time out")?;
            drop(here);
            echo.await;
            Ok::<(), String>(())
        })?;
    }
    Ok(())
}

fn tasks_on_an_endpoint(env: &Env) -> Outcome {
    let mut endpoint = Endpoint::new(4).map_err(text)?;
    let peers = [peer(env, &endpoint, "calls=30", 1)?, peer(env, &endpoint, "sends=20 calls=10", 2)?];
    let (calls, sends) = block_on(async {
        let (mut calls, mut sends) = (0, 0);
        // Each call is answered by a task of its own, later and in another order.
        while calls + sends < 60 {
            let received = endpoint.receive().await?;
            let n = received.words[0];
            match received.reply {
                Some(reply) => {
                    calls += 1;
                    let wait = if received.badge == 1 { WHILE / 20 } else { 0 };
                    spawn(answer_later(reply, 2 * n, wait)).detach();
                }
                None => sends += 1,
            }
        }
        // The last answers.
        sleep_until(Deadline::after(WHILE)).await;
        Ok::<_, EndpointError>((calls, sends))
    })
    .map_err(text)?;
    is((calls, sends) == (40, 20), "messages were lost or doubled")?;
    peers.into_iter().try_for_each(finish)
}

async fn answer_later(reply: ReplyRight, answer: u64, ticks: u64) {
    sleep_until(Deadline::after(ticks)).await;
    // The peer counts the answers that it does not get.
    let _ = reply.answer(&[answer], None);
}

fn fairness(_: &Env) -> Outcome {
    let (mut loud_end, mut flood) = pair(Waiting::Polling)?;
    let (mut quiet_end, mut quiet) = pair(Waiting::Blockable)?;
    let taken = Rc::new(Cell::new(0u64));
    let count = taken.clone();
    block_on(async {
        let flooder = spawn(async move {
            // Ends when the other end is gone.
            while flood.send(&message(0)).await.is_ok() {}
        });
        let drain = spawn(async move {
            while loud_end.recv().await.is_ok() {
                count.set(count.get() + 1);
            }
        });
        let listener = spawn(async move {
            let mut sum = 0;
            while let Ok(message) = quiet_end.recv().await {
                sum += message.words()[0];
            }
            sum
        });
        let mut worst = 0;
        for _ in 0..20 {
            // The quiet channel falls asleep meanwhile.
            sleep_until(Deadline::after(WHILE / 4)).await;
            let before = taken.get();
            quiet.send(&message(1)).await.map_err(text)?;
            let sent = timeout(Deadline::after(100 * WHILE), sleep_until(Deadline::after(1))).await;
            is(sent.is_ok(), "a flood keeps others from running")?;
            worst = worst.max(taken.get() - before);
        }
        drop(quiet);
        is(listener.await == 20, "messages of the quiet channel were lost")?;
        is(taken.get() > 1000, "the flood was kept from running")?;
        is(worst < 10_000, "the quiet channel waited for long")?;
        drain.cancel().await;
        flooder.await;
        Ok::<(), String>(())
    })
}

/// Prints what things cost where the clock counts instructions.
fn figures() {
    let Ok((mut here, mut there)) = pair(Waiting::Polling) else { return };
    let overhead = (0..100).map(|_| timed(|| {})).min().unwrap_or(0);
    let mut best = [u64::MAX; 3];
    for n in 0..1000 {
        let mut got = [Ok(None), Ok(None)];
        best[0] = best[0].min(timed(|| {
            let _ = there.try_send(&message(n));
            got[0] = here.try_recv();
        }));
        best[1] = best[1].min(timed(|| {
            let _ = there.try_send(&message(n));
            got[0] = here.try_recv();
            let _ = here.try_send(&message(n));
            got[1] = there.try_recv();
        }));
        assert!(got.iter().all(|got| matches!(got, Ok(Some(_)))));
    }
    let Ok((mut here, mut there)) = pair(Waiting::Polling) else { return };
    block_on(async {
        let echo = spawn(async move {
            while let Ok(message) = there.recv().await {
                if there.send(&message).await.is_err() {
                    break;
                }
            }
        });
        for n in 0..1000 {
            let start = time::now_serialised();
            let _ = here.send(&message(n)).await;
            let _ = here.recv().await;
            best[2] = best[2].min(time::now_serialised() - start);
        }
        drop(here);
        echo.await;
    });
    let [one_way, round_trip, tasks] = best.map(|ticks| ticks.saturating_sub(overhead));
    println!("ticks: put and get {one_way}, there and back {round_trip}, round trip of two tasks {tasks}");
}
