//! How waits end: events, deadlines, suspension; queues of callers and rights to answer them.

use alloc::format;
use alloc::vec::Vec;

use lmp::cptr::task;
use lmp::invocation::{DispatcherState, MessageInfo, Op};
use lmp::{CPtr, ObjType, SysError, message, syscall};
use runtime::{memory, time};
use selftest::Test;
use selftest::exchange::Registers;
use selftest::peer::{EVENTS, OWN, Peer};

use crate::{
    BADGE, Check, Named, Stage, TO_ME, TO_SERVER, at_peer, expect, expect_answer, expect_kept,
    expect_message, expect_refused, pattern, refused, set_deadline,
};

pub(crate) const CHECKS: &[Named] = &[
    ("an event ends a receive", events_end_receives),
    ("an event does not end a call", events_spare_calls),
    ("deadlines", deadlines),
    ("callers queue up", callers_queue),
    ("two clients of a server", two_clients),
    ("answers out of order", out_of_order),
    ("calls that are not answered", not_answered),
    ("suspended in the middle", suspended),
];

fn events_end_receives(stage: &Stage, test: &Test) -> Check {
    let mut peer = stage.peer(test, 0, &[])?;
    let notification = memory::allocate(ObjType::Notification, 0).map_err(|e| format!("{e}"))?;
    const EVENT: u64 = 20;
    syscall::notification_bind(notification.cap, peer.child().dispatcher(), EVENT)
        .map_err(refused("binding"))?;
    for disabled in [0, 1] {
        peer.set_disabled(disabled)?;
        for (op, from) in [
            (Op::Receive, OWN[0]),
            (Op::Receive, task::DISPATCHER),
            (Op::ReplyReceive, OWN[0]),
            (Op::ReplyReceive, task::DISPATCHER),
        ] {
            let interrupted = |what: &str, peer: &mut Peer| {
                let found = peer.result()?;
                expect(what, found.status(), Err(SysError::Interrupted))?;
                expect_kept(what, found, pattern(peer.pattern))
            };
            peer.wait_in(op, from, &[1])?;
            syscall::notification_signal(notification.cap).map_err(refused("signalling"))?;
            interrupted("by a notification", &mut peer)?;
            // It is still pending.
            peer.tell_to(op, from, &[1]);
            interrupted("at once", &mut peer)?;
            expect("events", peer.take_events()?, 1 << EVENT)?;
            if from == OWN[0] {
                // A message to another endpoint goes to that one's buffer.
                peer.wait_in(op, from, &[])?;
                message::send(peer.endpoints[1].cap, [8]).map_err(refused("sending"))?;
                interrupted("by another endpoint", &mut peer)?;
                expect("events", peer.take_events()?, 1 << EVENTS[1])?;
                expect("its message", peer.take_message(1)?.map(|m| m[2]), Some(8))?;
            }
            // As if nothing had been.
            peer.wait_in(op, from, &[])?;
            message::send(peer.endpoints[0].cap, [7]).map_err(refused("sending"))?;
            let found = (peer.result()?, pattern(peer.pattern));
            expect_message("afterwards", found, &[7], at_peer(1, false, 0), 0)?;
        }
    }
    peer.set_disabled(0)?;
    peer.stop()?;
    memory::free(notification).map_err(|e| format!("{e}"))
}

fn events_spare_calls(stage: &Stage, test: &Test) -> Check {
    let mut peer = stage.peer(test, 0, &[])?;
    for disabled in [0, 1] {
        peer.set_disabled(disabled)?;
        // An event from before, one while it is queued, one while it waits for the answer.
        message::send(peer.endpoints[0].cap, [1]).map_err(refused("sending"))?;
        peer.wait_in(Op::Call, TO_ME[0], &[5])?;
        message::send(peer.endpoints[0].cap, [2]).map_err(refused("sending"))?;
        expect("queued", peer.state(), DispatcherState::Blocked)?;
        stage.expect_call("the call", Some(0), 0, 0, &[5])?;
        message::send(peer.endpoints[1].cap, [3]).map_err(refused("sending"))?;
        expect("received", peer.state(), DispatcherState::Blocked)?;
        message::reply([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]).map_err(refused("answering"))?;
        let words = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
        // With events pending it goes on through its save area, and all words with it.
        expect_answer("the answer", (peer.result()?, pattern(peer.pattern)), &words, false)?;
        expect("events", peer.take_events()?, 1 << EVENTS[0] | 1 << EVENTS[1])?;
        for (n, word) in [(0, 1), (0, 2), (1, 3)] {
            expect("message", peer.take_message(n)?.map(|m| m[2]), Some(word))?;
        }
    }
    peer.set_disabled(0)?;
    peer.stop()
}

fn deadlines(stage: &Stage, test: &Test) -> Check {
    let mut peer = stage.peer(test, 0, &[])?;
    let timed = |peer: &Peer, op, cap, words: &[u64]| {
        Registers::new(op, cap, words, MessageInfo::DEADLINE, peer.pattern)
    };
    for (op, cap) in [
        (Op::Receive, OWN[0]),
        (Op::Receive, task::DISPATCHER),
        (Op::ReplyReceive, OWN[1]),
        (Op::Call, TO_ME[0]),
    ] {
        // In the past: at once.
        peer.set_deadline(0)?;
        let given = timed(&peer, op, cap, &[1]);
        peer.tell(given);
        expect_refused("a deadline in the past", peer.result()?, given, SysError::TimedOut)?;
        // In the future: then, and not before.
        let deadline = time::now() + stage.ticks_per_ms;
        peer.set_deadline(deadline)?;
        peer.tell(timed(&peer, op, cap, &[1]));
        peer.waits()?;
        while peer.state() == DispatcherState::Blocked {
            let _ = syscall::yield_core();
        }
        let now = time::now();
        if now < deadline {
            return Err(format!("woken {} ticks too early", deadline - now));
        }
        let found = peer.result()?;
        expect("a deadline that passed", found.status(), Err(SysError::TimedOut))?;
        expect_kept("a deadline that passed", found, pattern(peer.pattern))?;
    }
    let _ = stage.take_events();
    // A call that gave up is no longer queued.
    set_deadline(0);
    let nothing = (CPtr::NULL, CPtr::NULL);
    let poll =
        || stage.run_with(Op::Receive, task::DISPATCHER, &[], MessageInfo::DEADLINE, nothing).0.status();
    expect("nobody is queued", poll(), Err(SysError::TimedOut))?;
    // One that is received in time and not answered in time cannot be answered.
    peer.set_deadline(time::now() + stage.ticks_per_ms)?;
    peer.tell(timed(&peer, Op::Call, TO_ME[0], &[3]));
    peer.waits()?;
    stage.expect_call("in time", Some(0), 0, 0, &[3])?;
    while peer.state() == DispatcherState::Blocked {
        let _ = syscall::yield_core();
    }
    expect("not answered", peer.result()?.status(), Err(SysError::TimedOut))?;
    expect("too late", message::reply([1]), Err(SysError::NoCaller))?;
    // In time: the deadline has no effect afterwards.
    peer.set_deadline(time::now() + 20 * stage.ticks_per_ms)?;
    peer.tell(timed(&peer, Op::Call, TO_ME[0], &[3]));
    peer.waits()?;
    let found = stage.run_with(Op::Receive, stage.endpoint(0), &[], MessageInfo::DEADLINE, nothing).0;
    expect("an event comes first", found.status(), Err(SysError::Interrupted))?;
    let _ = stage.take_events();
    expect("a poll takes a caller", poll().map(|i| i.words()), Ok(1))?;
    message::reply([4]).map_err(refused("answering"))?;
    expect_answer("in time", (peer.result()?, pattern(peer.pattern)), &[4], false)?;
    peer.stop()
}

fn callers_queue(stage: &Stage, test: &Test) -> Check {
    let mut peers = Vec::new();
    for n in 0..5 {
        peers.push(stage.peer(test, n, &[])?);
    }
    // Number 2 calls the other endpoint; receiving from one endpoint leaves that out.
    for (n, peer) in peers.iter_mut().enumerate() {
        peer.wait_in(Op::Call, TO_ME[usize::from(n == 2)], &[n as u64])?;
    }
    let answer = |word: u64| message::reply([word]).map_err(refused("answering"));
    for n in [0, 1, 3, 4] {
        stage.expect_call("in order", Some(0), 0, n, &[n])?;
        answer(n)?;
    }
    stage.expect_call("the other endpoint", Some(1), 1, 2, &[2])?;
    answer(2)?;
    for (n, peer) in peers.iter_mut().enumerate() {
        expect_answer("the answer", (peer.result()?, pattern(peer.pattern)), &[n as u64], false)?;
    }
    // From all endpoints in turn: neither keeps the other waiting.
    for (n, peer) in peers.iter_mut().enumerate() {
        peer.wait_in(Op::Call, TO_ME[usize::from(n >= 3)], &[n as u64])?;
    }
    for n in [0, 3, 1, 4, 2] {
        stage.expect_call("in turn", None, usize::from(n >= 3), n, &[n])?;
        answer(n)?;
    }
    for mut peer in peers {
        peer.result()?;
        peer.stop()?;
    }
    Ok(())
}

fn two_clients(stage: &Stage, test: &Test) -> Check {
    let mut server = stage.peer(test, 0, &[])?;
    let mut clients = [stage.client_of(test, 1, &server)?, stage.client_of(test, 2, &server)?];
    server.wait_in(Op::Receive, task::DISPATCHER, &[])?;
    for (n, client) in clients.iter_mut().enumerate() {
        client.wait_in(Op::Call, TO_SERVER, &[n as u64])?;
    }
    for round in 0..6 {
        let n = (round % 2) as usize;
        let found = (server.result()?, pattern(server.pattern));
        expect_message("a call", found, &[n as u64], at_peer(1, true, 0), BADGE + 1 + n as u64)?;
        // The other one is queued, which was an event.
        expect("events", server.take_events()?, 1 << EVENTS[0])?;
        server.tell_to(Op::ReplyReceive, OWN[0], &[100 + round]);
        let answer = (clients[n].result()?, pattern(clients[n].pattern));
        expect_answer("its answer", answer, &[100 + round], false)?;
        clients[n].wait_in(Op::Call, TO_SERVER, &[n as u64])?;
    }
    // One is received and one queued when they end.
    for client in clients {
        client.stop()?;
    }
    server.stop()
}

fn out_of_order(stage: &Stage, test: &Test) -> Check {
    let mut peers = [stage.peer(test, 0, &[])?, stage.peer(test, 1, &[])?, stage.peer(test, 2, &[])?];
    let slots = memory::slots(3).map_err(|e| format!("{e}"))?;
    let slot = |n: usize| slots.offset(n as u32);
    for (n, peer) in peers.iter_mut().enumerate() {
        peer.wait_in(Op::Call, TO_ME[0], &[n as u64])?;
        stage.expect_call("a call", Some(0), 0, n as u64, &[n as u64])?;
        expect("occupied", message::save_reply(task::DISPATCHER), Err(SysError::SlotOccupied))?;
        message::save_reply(slot(n)).map_err(refused("saving the right"))?;
        expect("saved", message::reply([]), Err(SysError::NoCaller))?;
    }
    let copied = syscall::cap_copy(task::ROOT, stage.spare, slot(1));
    expect("copying a right", copied, Err(SysError::NotTransferable))?;
    for n in [1, 2, 0] {
        let word = 40 + n as u64;
        message::reply_with(slot(n), &[word], message::Cargo::None).map_err(refused("answering"))?;
        expect_answer("the answer", (peers[n].result()?, pattern(peers[n].pattern)), &[word], false)?;
        let again = message::reply_with(slot(n), &[1], message::Cargo::None);
        expect("answering twice", again, Err(SysError::EmptySlot))?;
    }
    for n in 0..3 {
        memory::free_slot(slot(n));
    }
    for peer in peers {
        peer.stop()?;
    }
    Ok(())
}

fn not_answered(stage: &Stage, test: &Test) -> Check {
    let mut peers = [stage.peer(test, 0, &[])?, stage.peer(test, 1, &[])?];
    let no_reply = |what: &str, peer: &mut Peer| {
        let found = peer.result()?;
        expect(what, found.status(), Err(SysError::NoReply))?;
        expect_kept(what, found, pattern(peer.pattern))
    };
    // Another call is received.
    for (n, peer) in peers.iter_mut().enumerate() {
        peer.wait_in(Op::Call, TO_ME[0], &[n as u64])?;
    }
    stage.expect_call("the first", Some(0), 0, 0, &[0])?;
    stage.expect_call("the second", Some(0), 0, 1, &[1])?;
    no_reply("forgotten", &mut peers[0])?;
    message::reply([9]).map_err(refused("answering"))?;
    expect_answer("remembered", (peers[1].result()?, pattern(peers[1].pattern)), &[9], false)?;
    // The same if the receiver waits already.
    peers[0].wait_in(Op::Call, TO_ME[0], &[0])?;
    stage.expect_call("the first", Some(0), 0, 0, &[0])?;
    peers[1].tell_to(Op::Call, TO_ME[0], &[1]);
    stage.expect_call("the second", Some(0), 0, 1, &[1])?;
    no_reply("forgotten", &mut peers[0])?;
    message::reply([9]).map_err(refused("answering"))?;
    peers[1].result()?;
    // The right is deleted.
    peers[0].wait_in(Op::Call, TO_ME[0], &[0])?;
    stage.expect_call("the first", Some(0), 0, 0, &[0])?;
    message::save_reply(stage.spare).map_err(refused("saving the right"))?;
    syscall::cap_delete(task::ROOT, stage.spare).map_err(refused("deleting the right"))?;
    no_reply("deleted", &mut peers[0])?;
    for peer in peers {
        peer.stop()?;
    }
    Ok(())
}

fn suspended(stage: &Stage, test: &Test) -> Check {
    let mut peer = stage.peer(test, 0, &[])?;
    let dispatcher = peer.child().dispatcher();
    for disabled in [0, 1] {
        peer.set_disabled(disabled)?;
        for (op, cap) in [(Op::Receive, OWN[0]), (Op::Receive, task::DISPATCHER), (Op::Call, TO_ME[0])] {
            peer.wait_in(op, cap, &[1])?;
            syscall::dispatcher_suspend(dispatcher).map_err(refused("suspending"))?;
            expect("state", peer.state(), DispatcherState::Suspended)?;
            // Who is suspended does not receive, and is not received from.
            message::send(peer.endpoints[0].cap, [1]).map_err(refused("sending"))?;
            syscall::dispatcher_resume(dispatcher).map_err(refused("resuming"))?;
            let found = peer.result()?;
            expect("suspended", found.status(), Err(SysError::Interrupted))?;
            expect_kept("suspended", found, pattern(peer.pattern))?;
            peer.take_events()?;
            expect("the message", peer.take_message(0)?.map(|m| m[2]), Some(1))?;
        }
        // After its call was received.
        let _ = stage.take_events();
        peer.wait_in(Op::Call, TO_ME[0], &[1])?;
        stage.expect_call("the call", Some(0), 0, 0, &[1])?;
        syscall::dispatcher_suspend(dispatcher).map_err(refused("suspending"))?;
        expect("answering", message::reply([]), Err(SysError::NoCaller))?;
        syscall::dispatcher_resume(dispatcher).map_err(refused("resuming"))?;
        expect("suspended", peer.result()?.status(), Err(SysError::Interrupted))?;
    }
    peer.set_disabled(0)?;
    peer.stop()
}
