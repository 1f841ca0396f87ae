//! Capabilities that go along: where they land, what is refused, and that a refusal changes nothing.

use alloc::format;
use alloc::string::String;

use lmp::cptr::task;
use lmp::invocation::{MapFlags, MessageInfo, Op, ReceivedInfo};
use lmp::message::{self, Along, Cargo};
use lmp::objects::PAGE_SIZE;
use lmp::{CPtr, ObjType, Rights, SysError, syscall};
use runtime::memory::{self, Object};
use selftest::Test;
use selftest::exchange::Registers;
use selftest::peer::{EMPTY, OWN, Peer};

use crate::{
    Check, EXTRA, MY_LABELS, Named, Stage, TO_ME, at_peer, expect, expect_message, expect_refused, pattern,
    refused,
};

pub(crate) const CHECKS: &[Named] = &[
    ("a capability to one who waits", to_waiting),
    ("a capability to a buffer", to_buffer),
    ("a capability from one who is queued", from_queued),
    ("a capability in an answer", in_answers),
    ("capabilities that are refused", refusals),
];

const NONE: CPtr = CPtr::NULL;
const SEND: u16 = MessageInfo::SEND_CAP;
const GIVE: u16 = MessageInfo::SEND_CAP | MessageInfo::GIVE;
const RECEIVE: u16 = MessageInfo::RECEIVE_CAP;

fn frame() -> Result<Object, String> {
    memory::allocate(ObjType::Frame, PAGE_SIZE).map_err(|e| format!("{e}"))
}

/// What is in a slot of a peer: the type, and where the object lies.
fn in_slot(peer: &Peer, slot: CPtr) -> Option<(ObjType, u64)> {
    syscall::cap_identify(peer.child().cspace(), slot).ok().map(|c| (c.ty, c.base))
}

/// Deletes what is in a slot of a peer.
fn clear(peer: &Peer, slot: CPtr) -> Check {
    syscall::cap_delete(peer.child().cspace(), slot).map_err(refused("deleting"))
}

/// Whether `object`'s capability here is still there.
fn is_here(object: Object) -> bool {
    syscall::cap_identify(task::ROOT, object.cap).is_ok()
}

/// Has a peer wait in a receive with a landing slot.
fn wait_with_landing(peer: &mut Peer, from: CPtr, landing: CPtr) -> Check {
    peer.tell(Registers::new(Op::Receive, from, &[], RECEIVE, peer.pattern).slots(NONE, landing));
    peer.waits()
}

fn to_waiting(stage: &Stage, test: &Test) -> Check {
    let mut peer = stage.peer(test, 0, &[])?;
    let frame = frame()?;
    for (from, n) in [(OWN[0], 0), (task::DISPATCHER, 1)] {
        wait_with_landing(&mut peer, from, EMPTY)?;
        let (found, _) = stage.run_with(Op::Send, peer.endpoints[n].cap, &[1, 2], SEND, (frame.cap, NONE));
        expect("sending", found.status(), Ok(ReceivedInfo(0)))?;
        let found = peer.result()?;
        let info = ReceivedInfo::new(2, true, false, selftest::peer::LABELS[n]);
        let given = Registers { rbp: u64::from(EMPTY.0) << 32, ..pattern(peer.pattern) };
        expect_message("receiving", (found, given), &[1, 2], info, 0)?;
        expect("landed", in_slot(&peer, EMPTY), Some((ObjType::Frame, frame.physical)))?;
        expect("still here", is_here(frame), true)?;
        clear(&peer, EMPTY)?;
    }
    // Given away: it is only there, and goes with it.
    wait_with_landing(&mut peer, OWN[0], EMPTY)?;
    let copy = memory::slot().map_err(|e| format!("{e}"))?;
    syscall::cap_copy(task::ROOT, copy, frame.cap).map_err(refused("copying"))?;
    message::send_with(peer.endpoints[0].cap, &[], Cargo::Give(copy)).map_err(refused("giving"))?;
    peer.result()?;
    expect("given", in_slot(&peer, EMPTY), Some((ObjType::Frame, frame.physical)))?;
    expect("no longer here", syscall::cap_identify(task::ROOT, copy).map(|_| ()), Err(SysError::EmptySlot))?;
    memory::free_slot(copy);
    clear(&peer, EMPTY)?;
    // To this domain, which waits.
    let to_me = [(frame.cap, Rights::READ, 0)];
    let mut other = stage.peer(test, 1, &to_me)?;
    other.tell(Registers::new(Op::Send, TO_ME[1], &[], GIVE, other.pattern).slots(CPtr::new(0, EXTRA), NONE));
    let received =
        message::receive_with(task::DISPATCHER, Along { landing: stage.spare, ..Along::default() });
    let received = received.map_err(refused("receiving"))?;
    expect("info", received.info, ReceivedInfo::new(0, true, false, MY_LABELS[1]))?;
    let found = syscall::cap_identify(task::ROOT, stage.spare).map_err(refused("looking"))?;
    expect("with its rights", (found.base, found.rights), (frame.physical, Rights::READ))?;
    other.result()?;
    expect("given by the peer", in_slot(&other, CPtr::new(0, EXTRA)), None)?;
    syscall::cap_delete(task::ROOT, stage.spare).map_err(refused("deleting"))?;
    other.stop()?;
    peer.stop()?;
    memory::free(frame).map_err(|e| format!("{e}"))
}

fn to_buffer(stage: &Stage, test: &Test) -> Check {
    let mut peer = stage.peer(test, 0, &[])?;
    let frame = frame()?;
    let endpoint = peer.endpoints[0].cap;
    let send = || stage.run_with(Op::Send, endpoint, &[6], SEND, (frame.cap, NONE));
    let no_landing = |what: &str| {
        let (found, given) = send();
        expect_refused(what, found, given, SysError::NoLanding)
    };
    no_landing("at first")?;
    expect("declaring", peer.run(Op::SetLanding, OWN[0], &[EMPTY.0.into()])?.status(), Ok(ReceivedInfo(0)))?;
    expect("sending", send().0.status(), Ok(ReceivedInfo(0)))?;
    expect("landed", in_slot(&peer, EMPTY), Some((ObjType::Frame, frame.physical)))?;
    no_landing("once used up")?;
    let info = ReceivedInfo::new(1, true, false, selftest::peer::LABELS[0]);
    expect("the message", peer.take_message(0)?, Some([0, info.0, 6, EMPTY.0.into()]))?;
    // Into an occupied slot: refused, and declared as before.
    peer.run(Op::SetLanding, OWN[0], &[EMPTY.0.into()])?;
    let (found, given) = send();
    expect_refused("an occupied slot", found, given, SysError::SlotOccupied)?;
    clear(&peer, EMPTY)?;
    expect("sending", send().0.status(), Ok(ReceivedInfo(0)))?;
    // A full buffer takes no capability either.
    clear(&peer, EMPTY)?;
    peer.run(Op::SetLanding, OWN[0], &[EMPTY.0.into()])?;
    message::send(endpoint, [1]).map_err(refused("filling the buffer"))?;
    let (found, given) = send();
    expect_refused("a full buffer", found, given, SysError::BufferFull)?;
    expect("not landed", in_slot(&peer, EMPTY), None)?;
    peer.run(Op::SetLanding, OWN[0], &[0])?;
    peer.take_message(0)?;
    no_landing("taken back")?;
    peer.stop()?;
    memory::free(frame).map_err(|e| format!("{e}"))
}

fn from_queued(stage: &Stage, test: &Test) -> Check {
    let frame = frame()?;
    let mut peer = stage.peer(test, 0, &[(frame.cap, Rights::all(), 0)])?;
    let cargo = CPtr::new(0, EXTRA);
    let call = |peer: &mut Peer, flags| {
        peer.tell(Registers::new(Op::Call, TO_ME[0], &[1], flags, peer.pattern).slots(cargo, NONE));
        peer.waits()
    };
    let receive = |landing| {
        let _ = stage.take_events();
        let flags = if landing == NONE { 0 } else { RECEIVE };
        super::set_deadline(0);
        stage.run_with(Op::Receive, task::DISPATCHER, &[], flags | MessageInfo::DEADLINE, (NONE, landing)).0
    };
    // Nowhere to put it: the caller is sent back, and nobody is left.
    call(&mut peer, SEND)?;
    expect("without landing", receive(NONE).status(), Err(SysError::TimedOut))?;
    expect("sent back", peer.result()?.status(), Err(SysError::NoLanding))?;
    call(&mut peer, SEND)?;
    expect("an occupied slot", receive(task::DISPATCHER).status(), Err(SysError::TimedOut))?;
    expect("sent back", peer.result()?.status(), Err(SysError::SlotOccupied))?;
    expect("not gone", in_slot(&peer, cargo), Some((ObjType::Frame, frame.physical)))?;
    // Somebody else's turn comes then.
    let mut other = stage.peer(test, 1, &[])?;
    call(&mut peer, SEND)?;
    other.wait_in(Op::Call, TO_ME[0], &[2])?;
    expect("the next", receive(NONE).words[0], 2)?;
    message::reply([]).map_err(refused("answering"))?;
    other.result()?;
    other.stop()?;
    expect("sent back", peer.result()?.status(), Err(SysError::NoLanding))?;
    for (flags, left) in [(SEND, Some((ObjType::Frame, frame.physical))), (GIVE, None)] {
        call(&mut peer, flags)?;
        let info = ReceivedInfo::new(1, true, true, MY_LABELS[0]);
        expect("received", receive(stage.spare).status(), Ok(info))?;
        let found = syscall::cap_identify(task::ROOT, stage.spare).map_err(refused("looking"))?;
        expect("landed", found.base, frame.physical)?;
        expect("left", in_slot(&peer, cargo), left)?;
        syscall::cap_delete(task::ROOT, stage.spare).map_err(refused("deleting"))?;
        message::reply([]).map_err(refused("answering"))?;
        expect("answered", peer.result()?.status(), Ok(ReceivedInfo(0)))?;
    }
    // What it wanted to send is gone when it is received.
    peer.stop()?;
    let mut peer = stage.peer(test, 0, &[(frame.cap, Rights::all(), 0)])?;
    call(&mut peer, SEND)?;
    clear(&peer, cargo)?;
    expect("nothing to pass on", receive(stage.spare).status(), Err(SysError::TimedOut))?;
    expect("sent back", peer.result()?.status(), Err(SysError::EmptySlot))?;
    peer.stop()?;
    memory::free(frame).map_err(|e| format!("{e}"))
}

fn in_answers(stage: &Stage, test: &Test) -> Check {
    let frame = frame()?;
    let mut peer = stage.peer(test, 0, &[])?;
    for saved in [false, true] {
        for (flags, landing) in [(0, NONE), (RECEIVE, EMPTY)] {
            peer.tell(Registers::new(Op::Call, TO_ME[0], &[1], flags, peer.pattern).slots(NONE, landing));
            peer.waits()?;
            stage.expect_call("the call", Some(0), 0, 0, &[1])?;
            let right = if saved {
                message::save_reply(stage.spare).map_err(refused("saving the right"))?;
                stage.spare
            } else {
                task::DISPATCHER
            };
            let answer = message::reply_with(right, &[2], Cargo::Copy(frame.cap));
            if landing == NONE {
                expect("nowhere to put it", answer, Err(SysError::NoLanding))?;
                // It can still be answered.
                message::reply_with(right, &[3], Cargo::None).map_err(refused("answering"))?;
                expect("the answer", peer.result()?.status(), Ok(ReceivedInfo::new(1, false, false, 0)))?;
            } else {
                answer.map_err(refused("answering"))?;
                expect("the answer", peer.result()?.status(), Ok(ReceivedInfo::new(1, true, false, 0)))?;
                expect("landed", in_slot(&peer, EMPTY), Some((ObjType::Frame, frame.physical)))?;
                clear(&peer, EMPTY)?;
            }
        }
    }
    // With the answer, and receiving the next one.
    peer.tell(Registers::new(Op::Call, TO_ME[0], &[1], RECEIVE, peer.pattern).slots(NONE, EMPTY));
    peer.waits()?;
    stage.expect_call("the call", Some(0), 0, 0, &[1])?;
    let mut other = stage.peer(test, 1, &[])?;
    other.wait_in(Op::Call, TO_ME[1], &[5])?;
    let _ = stage.take_events();
    let along = Along { cap: Cargo::Copy(frame.cap), ..Along::default() };
    let next = message::reply_receive_with(task::DISPATCHER, &[4], along).map_err(refused("answering"))?;
    expect("the next", (next.words[0], next.badge), (5, crate::BADGE + 1))?;
    expect("landed", in_slot(&peer, EMPTY), Some((ObjType::Frame, frame.physical)))?;
    peer.result()?;
    message::reply([]).map_err(refused("answering"))?;
    other.result()?;
    other.stop()?;
    peer.stop()?;
    memory::free(frame).map_err(|e| format!("{e}"))
}

fn refusals(stage: &Stage, test: &Test) -> Check {
    let frame = frame()?;
    let table = memory::allocate(ObjType::Pt, 0).map_err(|e| format!("{e}"))?;
    let mapping = memory::slot().map_err(|e| format!("{e}"))?;
    syscall::vnode_map(table.cap, 0, frame.cap, 0, MapFlags::READ, 1, mapping).map_err(refused("mapping"))?;
    let mut peer = stage.peer(test, 0, &[])?;
    let endpoint = peer.endpoints[0].cap;
    let without_grant = memory::slot().map_err(|e| format!("{e}"))?;
    syscall::cap_mint(task::ROOT, without_grant, endpoint, Rights::WRITE, 0).map_err(refused("minting"))?;
    let far = CPtr::new(1 << 20, 0);
    // For one who waits, then for one who does not, with a landing slot for the buffer.
    for waits in [true, false] {
        let landings = [
            (EMPTY, endpoint, mapping, SysError::NotTransferable),
            (EMPTY, endpoint, stage.spare, SysError::EmptySlot),
            (EMPTY, endpoint, NONE, SysError::EmptySlot),
            (EMPTY, endpoint, far, SysError::NoSuchSlot),
            (EMPTY, without_grant, frame.cap, SysError::MissingRight),
            (NONE, endpoint, frame.cap, SysError::NoLanding),
            (far, endpoint, frame.cap, SysError::NoSuchSlot),
            (task::ROOT, endpoint, frame.cap, SysError::SlotOccupied),
        ];
        for (landing, to, cap, error) in landings {
            if waits {
                wait_with_landing(&mut peer, OWN[0], landing)?;
            } else {
                peer.run(Op::SetLanding, OWN[0], &[landing.0.into()])?;
            }
            for flags in [SEND, GIVE] {
                let (found, given) = stage.run_with(Op::Send, to, &[1], flags, (cap, NONE));
                expect_refused("sending", found, given, error)?;
                if waits {
                    let (found, given) = stage.run_with(Op::Call, to, &[1], flags, (cap, NONE));
                    expect_refused("calling", found, given, error)?;
                }
            }
            expect("still here", is_here(frame), true)?;
            // It waits as before, or has as much room as before.
            message::send(endpoint, [2]).map_err(refused("sending"))?;
            if waits {
                let given = Registers { rbp: u64::from(landing.0) << 32, ..pattern(peer.pattern) };
                let found = (peer.result()?, given);
                expect_message("afterwards", found, &[2], at_peer(1, false, 0), 0)?;
            } else {
                expect("afterwards", peer.take_message(0)?.map(|m| m[2]), Some(2))?;
                expect("nothing else", peer.take_message(0)?, None)?;
                peer.take_events()?;
            }
        }
    }
    // A right to answer cannot be passed on.
    peer.wait_in(Op::Call, TO_ME[0], &[])?;
    stage.expect_call("the call", Some(0), 0, 0, &[])?;
    message::save_reply(stage.spare).map_err(refused("saving the right"))?;
    let mut other = stage.peer(test, 1, &[])?;
    wait_with_landing(&mut other, OWN[0], EMPTY)?;
    for cargo in [Cargo::Copy(stage.spare), Cargo::Give(stage.spare)] {
        let sent = message::send_with(other.endpoints[0].cap, &[], cargo);
        expect("a right to answer", sent, Err(SysError::NotTransferable))?;
    }
    message::reply_with(stage.spare, &[], Cargo::None).map_err(refused("answering"))?;
    peer.result()?;
    for slot in [without_grant, mapping] {
        syscall::cap_delete(task::ROOT, slot).map_err(refused("deleting"))?;
        memory::free_slot(slot);
    }
    other.stop()?;
    peer.stop()?;
    memory::free(table).map_err(|e| format!("{e}"))?;
    memory::free(frame).map_err(|e| format!("{e}"))
}
