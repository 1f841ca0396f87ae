//! Words, badges, rights, and what is in the registers afterwards.

use alloc::format;

use lmp::cptr::task;
use lmp::invocation::{DispatcherState, MessageInfo, Op, ReceivedInfo, header_with};
use lmp::{CPtr, ObjType, Rights, SysError, syscall};
use runtime::memory;
use selftest::Test;
use selftest::exchange::{Registers, WORDS};
use selftest::peer::{EVENTS, LABELS, OWN, ROOM};

use crate::{
    BADGE, Check, EXTRA, MY_LABELS, Named, Stage, TO_ME, TO_SERVER, at_peer, expect, expect_answer,
    expect_kept, expect_message, expect_refused, pattern, payload, refused, set_deadline,
};

pub(crate) const CHECKS: &[Named] = &[
    ("send to one who waits", send_to_waiting),
    ("send to one who does not", send_to_running),
    ("call one who waits", call_waiting),
    ("call one who does not", call_running),
    ("rights and bad arguments", rights),
    ("answers to nobody", answers_to_nobody),
];

fn send_to_waiting(stage: &Stage, test: &Test) -> Check {
    let mut peer = stage.peer(test, 0, &[])?;
    for (from, n) in [(OWN[0], 0), (OWN[1], 1), (task::DISPATCHER, 0), (task::DISPATCHER, 1)] {
        for len in 0..=WORDS {
            let what = format!("{len} words");
            peer.wait_in(Op::Receive, from, &[])?;
            let words = payload(len, 0x51);
            let (found, given) = stage.run(Op::Send, peer.endpoints[n].cap, &words[..len]);
            expect(&what, found.status(), Ok(ReceivedInfo(0)))?;
            expect_kept(&what, found, given)?;
            let found = (peer.result()?, pattern(peer.pattern));
            expect_message(&what, found, &words[..len], at_peer(len, false, n), 0)?;
        }
    }
    // The other way round: this domain waits, and the peer's capability has a badge.
    for n in 0..2 {
        peer.tell_to(Op::Send, TO_ME[n], &[1, 2, 3]);
        let info = ReceivedInfo::new(3, false, false, MY_LABELS[n]);
        expect_message("from the peer", stage.receive(None), &[1, 2, 3], info, BADGE)?;
        expect("the peer's status", peer.result()?.status(), Ok(ReceivedInfo(0)))?;
    }
    expect("events", peer.take_events()?, 0)?;
    peer.stop()
}

fn send_to_running(stage: &Stage, test: &Test) -> Check {
    let mut peer = stage.peer(test, 0, &[])?;
    let badged = memory::slot().map_err(|e| format!("{e}"))?;
    syscall::cap_mint(task::ROOT, badged, peer.endpoints[1].cap, Rights::WRITE, 5)
        .map_err(refused("minting"))?;
    // The ring wraps round within a few messages.
    for round in 0..5 {
        for n in 0..ROOM {
            let words = payload(3, round * ROOM + n);
            let (found, given) = stage.run(Op::Send, badged, &words[..3]);
            expect("sending", found.status(), Ok(ReceivedInfo(0)))?;
            expect_kept("sending", found, given)?;
        }
        let (found, given) = stage.run(Op::Send, badged, &[9]);
        expect_refused("a full buffer", found, given, SysError::BufferFull)?;
        expect("events", peer.take_events()?, 1 << EVENTS[1])?;
        for n in 0..ROOM {
            let info = ReceivedInfo::new(3, false, false, LABELS[1]);
            let expected = [5, info.0, payload(3, round * ROOM + n)[0], 0];
            expect("the message", peer.take_message(1)?, Some(expected))?;
        }
        expect("no more", peer.take_message(1)?, None)?;
    }
    // To oneself it is the same.
    let mut inbox = stage.inbox(0);
    expect("to oneself", stage.run(Op::Send, stage.endpoint(0), &[77]).0.status(), Ok(ReceivedInfo(0)))?;
    expect("from oneself", inbox.take().map(|m| (m.badge, m.words[0])), Some((0, 77)))?;
    syscall::cap_delete(task::ROOT, badged).map_err(refused("deleting"))?;
    memory::free_slot(badged);
    peer.stop()
}

fn call_waiting(stage: &Stage, test: &Test) -> Check {
    let mut server = stage.peer(test, 0, &[])?;
    let mut client = stage.client_of(test, 1, &server)?;
    server.wait_in(Op::Receive, OWN[0], &[])?;
    for len in 0..=WORDS {
        let what = format!("{len} words");
        let words = payload(len, 0x61);
        client.wait_in(Op::Call, TO_SERVER, &words[..len])?;
        let found = (server.result()?, pattern(server.pattern));
        expect_message(&what, found, &words[..len], at_peer(len, true, 0), BADGE + 1)?;
        // The server answers with another length and waits for the next call, at all of its endpoints.
        let answer = payload(WORDS - len, 0x71);
        server.wait_in(Op::ReplyReceive, task::DISPATCHER, &answer[..WORDS - len])?;
        let found = (client.result()?, pattern(client.pattern));
        expect_answer(&what, found, &answer[..WORDS - len], false)?;
    }
    // An answer without waiting for more.
    client.wait_in(Op::Call, TO_SERVER, &[1])?;
    server.result()?;
    let answered = server.run(Op::Reply, task::DISPATCHER, &[4, 5])?;
    expect("answering", answered.status(), Ok(ReceivedInfo(0)))?;
    expect_kept("answering", answered, pattern(server.pattern))?;
    expect_answer("answered", (client.result()?, pattern(client.pattern)), &[4, 5], false)?;
    client.stop()?;
    server.stop()
}

fn call_running(stage: &Stage, test: &Test) -> Check {
    let mut peer = stage.peer(test, 0, &[])?;
    for (from, n) in [(Some(0), 0), (Some(1), 1), (None, 0), (None, 1)] {
        for len in 0..=WORDS {
            let what = format!("{len} words");
            let words = payload(len, 0x81);
            peer.wait_in(Op::Call, TO_ME[n], &words[..len])?;
            expect("events", stage.take_events(), 1 << crate::EVENTS[n])?;
            stage.expect_call(&what, from, n, 0, &words[..len])?;
            // Received, not answered: it still waits.
            expect("the caller", peer.state(), DispatcherState::Blocked)?;
            let answer = payload(WORDS - len, 0x91);
            let (found, given) = stage.run(Op::Reply, task::DISPATCHER, &answer[..WORDS - len]);
            expect(&what, found.status(), Ok(ReceivedInfo(0)))?;
            expect_kept(&what, found, given)?;
            expect_answer(&what, (peer.result()?, pattern(peer.pattern)), &answer[..WORDS - len], false)?;
        }
    }
    peer.stop()
}

fn rights(stage: &Stage, test: &Test) -> Check {
    let unbound = memory::allocate(ObjType::Endpoint, 0).map_err(|e| format!("{e}"))?;
    let notification = memory::allocate(ObjType::Notification, 0).map_err(|e| format!("{e}"))?;
    let mut peer =
        stage.peer(test, 0, &[(stage.endpoint(0), Rights::READ, 0), (unbound.cap, Rights::all(), 0)])?;
    let (read_only, to_unbound) = (CPtr::new(0, EXTRA), CPtr::new(0, EXTRA + 1));
    let forms = [
        ("send without right", Op::Send, read_only, SysError::MissingRight),
        ("call without right", Op::Call, read_only, SysError::MissingRight),
        ("receive without right", Op::Receive, TO_ME[0], SysError::MissingRight),
        ("answer without right", Op::ReplyReceive, TO_ME[0], SysError::MissingRight),
        ("receive at another's endpoint", Op::Receive, read_only, SysError::WrongState),
        ("answer at another's endpoint", Op::ReplyReceive, read_only, SysError::WrongState),
        ("landing at another's endpoint", Op::SetLanding, read_only, SysError::WrongState),
        ("send to nobody", Op::Send, to_unbound, SysError::NotBound),
        ("call nobody", Op::Call, to_unbound, SysError::NotBound),
        ("receive as nobody", Op::Receive, to_unbound, SysError::NotBound),
        ("call oneself", Op::Call, OWN[0], SysError::WrongState),
        ("send to a dispatcher", Op::Send, task::DISPATCHER, SysError::NoSuchOperation),
        ("call a dispatcher", Op::Call, task::DISPATCHER, SysError::NoSuchOperation),
        ("receive from a CNode", Op::Receive, task::ROOT, SysError::NoSuchOperation),
        ("answer a CNode", Op::Reply, task::ROOT, SysError::NoSuchOperation),
        ("landing of a dispatcher", Op::SetLanding, task::DISPATCHER, SysError::NoSuchOperation),
        ("send to an empty slot", Op::Send, CPtr::new(0, 127), SysError::EmptySlot),
        ("call an empty slot", Op::Call, CPtr::new(0, 127), SysError::EmptySlot),
        ("receive from an empty slot", Op::Receive, CPtr::new(0, 127), SysError::EmptySlot),
        ("send past all slots", Op::Send, CPtr::new(1 << 20, 0), SysError::NoSuchSlot),
    ];
    for (what, op, cap, error) in forms {
        let given = Registers::new(op, cap, &[1], 0, peer.pattern);
        peer.tell(given);
        expect_refused(what, peer.result()?, given, error)?;
    }
    for len in WORDS + 1..16 {
        for (op, cap) in [
            (Op::Send, TO_ME[0]),
            (Op::Call, TO_ME[0]),
            (Op::ReplyReceive, OWN[0]),
            (Op::Reply, task::DISPATCHER),
        ] {
            let rax = header_with(cap, op, len as u16);
            let given = Registers { rax, ..pattern(peer.pattern) };
            peer.tell(given);
            expect_refused("too many words", peer.result()?, given, SysError::TooLong)?;
        }
    }
    expect("events", stage.take_events(), 0)?;
    // Nothing of all this came through, and a dispatcher that is another's cannot be received from.
    let other = peer.child().dispatcher();
    let (found, given) = stage.run(Op::Receive, other, &[]);
    expect_refused("receive as another", found, given, SysError::WrongState)?;
    let flags = MessageInfo::DEADLINE;
    set_deadline(0);
    let (found, given) = stage.run_with(Op::Receive, task::DISPATCHER, &[], flags, (CPtr::NULL, CPtr::NULL));
    expect_refused("nothing came", found, given, SysError::TimedOut)?;
    peer.stop()?;
    memory::free(unbound).map_err(|e| format!("{e}"))?;
    memory::free(notification).map_err(|e| format!("{e}"))
}

fn answers_to_nobody(stage: &Stage, test: &Test) -> Check {
    let mut peer = stage.peer(test, 0, &[])?;
    let nobody = |what: &str| {
        let (found, given) = stage.run(Op::Reply, task::DISPATCHER, &[1]);
        expect_refused(what, found, given, SysError::NoCaller)?;
        let (found, given) = stage.run(Op::SaveReply, task::DISPATCHER, &[stage.spare.0.into()]);
        expect_refused(what, found, given, SysError::NoCaller)
    };
    nobody("at first")?;
    peer.wait_in(Op::Call, TO_ME[0], &[1])?;
    nobody("before the call is received")?;
    stage.expect_call("the call", Some(0), 0, 0, &[1])?;
    expect("answering", stage.run(Op::Reply, task::DISPATCHER, &[2]).0.status(), Ok(ReceivedInfo(0)))?;
    nobody("a second time")?;
    peer.result()?;
    // A message that is no call takes nothing away from whom one owes an answer.
    peer.wait_in(Op::Call, TO_ME[0], &[1])?;
    stage.expect_call("the call", Some(0), 0, 0, &[1])?;
    let mut other = stage.peer(test, 1, &[])?;
    other.tell_to(Op::Send, TO_ME[1], &[3]);
    let info = ReceivedInfo::new(1, false, false, MY_LABELS[1]);
    expect_message("no call", stage.receive(None), &[3], info, BADGE + 1)?;
    other.result()?;
    expect("answering", stage.run(Op::Reply, task::DISPATCHER, &[6]).0.status(), Ok(ReceivedInfo(0)))?;
    expect_answer("answered", (peer.result()?, pattern(peer.pattern)), &[6], false)?;
    other.stop()?;
    peer.stop()
}
