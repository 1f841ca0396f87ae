//! Somebody ends, or is taken down, in the middle of an exchange: the other side learns of it, and the rest goes on.

use alloc::string::String;
use alloc::vec::Vec;

use lmp::cptr::task;
use lmp::invocation::{DispatcherState, Op};
use lmp::{SysError, message};
use selftest::Test;
use selftest::peer::{EMPTY, OWN, Peer};

use crate::{
    BADGE, Check, Named, Stage, TO_ME, TO_SERVER, at_peer, expect, expect_answer, expect_kept,
    expect_message, pattern, refused,
};

pub(crate) const CHECKS: &[Named] = &[
    ("the receiver ends", receiver_ends),
    ("the caller ends", caller_ends),
    ("the endpoint goes", endpoint_goes),
    ("a receiver with many callers ends", many_callers),
    ("a server ends while its clients go on", others_go_on),
];

/// How a domain ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Exit,
    Fault,
    TakenDown,
}

const WAYS: [How; 3] = [How::Exit, How::Fault, How::TakenDown];

/// Ends a peer; what is left of it can be stopped.
fn end(mut peer: Peer, how: How) -> Result<Option<Peer>, String> {
    match how {
        How::Exit => peer.exit().map(|_| Some(peer)),
        How::Fault => peer.fault().map(|_| Some(peer)),
        How::TakenDown => peer.stop().map(|()| None),
    }
}

fn receiver_ends(stage: &Stage, test: &Test) -> Check {
    for how in WAYS {
        let mut server = stage.peer(test, 0, &[])?;
        let endpoint = server.endpoints[0].cap;
        let mut clients = [
            stage.client_of(test, 1, &server)?,
            stage.client_of(test, 2, &server)?,
            stage.client_of(test, 3, &server)?,
        ];
        // One saved, one received last, one queued.
        server.wait_in(Op::Receive, OWN[0], &[])?;
        clients[0].wait_in(Op::Call, TO_SERVER, &[])?;
        server.result()?;
        server.run(Op::SaveReply, task::DISPATCHER, &[EMPTY.0.into()])?;
        server.wait_in(Op::Receive, OWN[0], &[])?;
        clients[1].wait_in(Op::Call, TO_SERVER, &[])?;
        server.result()?;
        clients[2].wait_in(Op::Call, TO_SERVER, &[])?;
        let left = end(server, how)?;
        // Who takes a domain down deletes its capabilities first, and rights to answer with them.
        let saved = if how == How::TakenDown { SysError::NoReply } else { SysError::Dead };
        for (client, error) in clients.iter_mut().zip([saved, SysError::Dead, SysError::Dead]) {
            let found = client.result()?;
            expect("the caller", found.status(), Err(error))?;
            expect_kept("the caller", found, pattern(client.pattern))?;
        }
        if let Some(server) = left {
            for (op, result) in [(Op::Send, SysError::Dead), (Op::Call, SysError::Dead)] {
                expect("afterwards", clients[0].run(op, TO_SERVER, &[])?.status(), Err(result))?;
            }
            expect("afterwards", message::send(endpoint, [1]), Err(SysError::Dead))?;
            server.stop()?;
        }
        for client in clients {
            client.stop()?;
        }
    }
    // The same for one that waits: a message to it is for nobody.
    for from in [OWN[0], task::DISPATCHER] {
        let mut server = stage.peer(test, 0, &[])?;
        server.wait_in(Op::Receive, from, &[])?;
        server.stop()?;
    }
    Ok(())
}

fn caller_ends(stage: &Stage, test: &Test) -> Check {
    // While it is queued: the others move up.
    let mut peers = Vec::new();
    for n in 0..3 {
        let mut peer = stage.peer(test, n, &[])?;
        peer.wait_in(Op::Call, TO_ME[0], &[n])?;
        peers.push(peer);
    }
    peers.remove(1).stop()?;
    for n in [0, 2] {
        stage.expect_call("the others", Some(0), 0, n, &[n])?;
        message::reply([n]).map_err(refused("answering"))?;
    }
    for mut peer in peers {
        peer.result()?;
        peer.stop()?;
    }
    let mut alone = stage.peer(test, 0, &[])?;
    alone.wait_in(Op::Call, TO_ME[1], &[])?;
    alone.stop()?;
    // While it waits for the answer.
    let mut peer = stage.peer(test, 0, &[])?;
    peer.wait_in(Op::Call, TO_ME[0], &[1])?;
    stage.expect_call("the call", Some(0), 0, 0, &[1])?;
    peer.stop()?;
    expect("answering", message::reply([2]), Err(SysError::NoCaller))?;
    // While the right to answer it lies in a slot, which a further call does not change.
    let mut peer = stage.peer(test, 0, &[])?;
    peer.wait_in(Op::Call, TO_ME[0], &[1])?;
    stage.expect_call("the call", Some(0), 0, 0, &[1])?;
    message::save_reply(stage.spare).map_err(refused("saving the right"))?;
    peer.stop()?;
    let mut other = stage.peer(test, 1, &[])?;
    other.wait_in(Op::Call, TO_ME[0], &[2])?;
    let answer = message::reply_with(stage.spare, &[2], message::Cargo::None);
    expect("answering", answer, Err(SysError::NoCaller))?;
    let again = message::reply_with(stage.spare, &[2], message::Cargo::None);
    expect("the right is gone", again, Err(SysError::EmptySlot))?;
    stage.expect_call("the next", Some(0), 0, 1, &[2])?;
    message::reply([3]).map_err(refused("answering"))?;
    expect_answer("the next", (other.result()?, pattern(other.pattern)), &[3], false)?;
    other.stop()
}

fn endpoint_goes(stage: &Stage, test: &Test) -> Check {
    let mut server = stage.peer(test, 0, &[])?;
    let mut client = stage.client_of(test, 1, &server)?;
    // A caller is queued, the receiver waits elsewhere.
    client.wait_in(Op::Call, TO_SERVER, &[])?;
    server.take_events()?;
    server.wait_in(Op::Receive, OWN[1], &[])?;
    server.free_endpoint(0)?;
    expect("the caller", client.result()?.status(), Err(SysError::NotBound))?;
    expect("the receiver", server.state(), DispatcherState::Blocked)?;
    // The receiver waits there.
    server.free_endpoint(1)?;
    let found = server.result()?;
    expect("the receiver", found.status(), Err(SysError::NotBound))?;
    expect_kept("the receiver", found, pattern(server.pattern))?;
    expect("afterwards", client.run(Op::Send, TO_SERVER, &[])?.status(), Err(SysError::EmptySlot))?;
    client.stop()?;
    server.stop()
}

/// More callers than one entry of the CPU driver tells.
const MANY: u64 = 36;

fn many_callers(stage: &Stage, test: &Test) -> Check {
    for how in [How::Exit, How::TakenDown] {
        let server = stage.peer(test, 0, &[])?;
        let mut clients = Vec::new();
        for n in 0..MANY {
            let mut client = stage.client_of(test, n + 1, &server)?;
            client.wait_in(Op::Call, TO_SERVER, &[n])?;
            clients.push(client);
        }
        let left = end(server, how)?;
        for client in &mut clients {
            expect("the caller", client.result()?.status(), Err(SysError::Dead))?;
        }
        if let Some(server) = left {
            server.stop()?;
        }
        for client in clients {
            client.stop()?;
        }
    }
    Ok(())
}

fn others_go_on(stage: &Stage, test: &Test) -> Check {
    for how in WAYS {
        let mut good = stage.peer(test, 0, &[])?;
        let mut bad = stage.peer(test, 1, &[])?;
        let mut client = stage.client_of(test, 2, &good)?;
        let mut victim = stage.client_of(test, 3, &bad)?;
        good.wait_in(Op::Receive, OWN[0], &[])?;
        bad.wait_in(Op::Receive, OWN[0], &[])?;
        client.wait_in(Op::Call, TO_SERVER, &[1])?;
        victim.wait_in(Op::Call, TO_SERVER, &[1])?;
        good.result()?;
        bad.result()?;
        let left = end(bad, how)?;
        good.wait_in(Op::ReplyReceive, OWN[0], &[2])?;
        expect_answer("the other client", (client.result()?, pattern(client.pattern)), &[2], false)?;
        client.wait_in(Op::Call, TO_SERVER, &[3])?;
        let found = (good.result()?, pattern(good.pattern));
        expect_message("the other server", found, &[3], at_peer(1, true, 0), BADGE + 2)?;
        expect("the victim", victim.result()?.status(), Err(SysError::Dead))?;
        stage.bystander.check()?;
        if let Some(bad) = left {
            bad.stop()?;
        }
        // Clients end with their calls under way.
        client.stop()?;
        victim.stop()?;
        good.stop()?;
    }
    Ok(())
}
