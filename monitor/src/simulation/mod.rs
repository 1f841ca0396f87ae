//! Several monitors in one test: domains that ask for anything at any time, messages that arrive in any order between
//! different pairs, buffers that are always full, domains that end in the middle of everything.
//!
//! What must hold: every call is answered once; no capability is used twice or lost; no copy of a frame is left
//! anywhere when its memory is freed, revoked or taken down; and when all domains are gone, so is all they had.

mod hostile;
mod machine;
mod play;

use std::collections::BTreeSet;

use proptest::prelude::*;
use runtime::interface::monitor::{CONSUMER, ConnectionInfo, MonitorError, Request};

use crate::Event;
use machine::{Holder, Object};
use play::{Play, Rng};

proptest! {
    /// Nothing is lost, doubled or left behind.
    #[test]
    fn all_that_domains_had_comes_back(seed in any::<u64>(), cores in 1u32..6, nodes in 1u16..4, steps in 50usize..900) {
        let mut play = Play::new(cores, nodes, Rng::new(seed));
        for _ in 0..steps {
            play.anything();
        }
        play.end();
    }
}

/// A domain that did everything there is to be done before a connection carries messages.
fn connect(
    play: &mut Play,
    client: (u32, u64),
    server: (u32, u64),
    pool: u64,
    policy: u64,
) -> [ConnectionInfo; 2] {
    let hello = |play: &mut Play, who: (u32, u64)| {
        let endpoint = play.machine.give(who.0, Object::Endpoint { domain: who.1 }, Holder::Monitor);
        play.call(who, [Request::Hello as u64, 0, 0, 0, 0, 0, 0, 0, 0, 0], Some(endpoint));
        play.settle();
        play.answer(who);
    };
    hello(play, client);
    hello(play, server);
    play.call(server, [Request::Export as u64, 0, 0, 0, 0, 0, 0, 0, 0, 0], None);
    play.settle();
    let iref = play.answer(server).words[1];
    let bell = play.machine.give(client.0, Object::Notification { domain: client.1 }, Holder::Monitor);
    play.call(client, [Request::Bind as u64, iref, 64, pool, policy, 1, 0, 0, 0, 0], Some(bell));
    play.settle();
    let notice = play.notice(server).expect("somebody binds");
    assert_eq!(notice[..2], [1, iref]);
    assert_eq!(notice[3..], [u64::from(client.0), 64, pool, u64::from(policy & CONSUMER != 0)]);
    let bell = play.machine.give(server.0, Object::Notification { domain: server.1 }, Holder::Monitor);
    play.call(server, [Request::Accept as u64, notice[2], 0, 0, 0, 0, 0, 0, 0, 0], Some(bell));
    play.settle();
    [client, server].map(|who| {
        let answer = play.answer(who);
        assert_eq!(answer.words[0], 0);
        ConnectionInfo::decode(answer.words[1..].try_into().unwrap())
    })
}

/// The frames that an end fetches.
fn frames(play: &mut Play, who: (u32, u64), info: &ConnectionInfo) -> Vec<(u64, u64, bool)> {
    let mut parts = vec![(0, 0), (1, 0)];
    parts.extend((0..u64::from(info.pieces)).map(|piece| (3, piece)));
    parts
        .into_iter()
        .map(|(part, piece)| {
            play.call(who, [Request::Take as u64, info.connection, part, piece, 0, 0, 0, 0, 0, 0], None);
            let answer = play.answer(who);
            assert_eq!(answer.words[0], 0, "part {part}, piece {piece}");
            let cap = play.machine.caps[&(who.0, answer.cap.unwrap())];
            let Object::Frame(memory) = cap.object else { panic!("{cap:?}") };
            assert_eq!(memory.base, answer.words[2]);
            (memory.base, memory.size, memory.rights.contains(lmp::Rights::WRITE))
        })
        .collect()
}

#[test]
fn both_ends_get_the_same_memory_each_its_own_side() {
    for (client_core, server_core) in [(0, 0), (0, 2), (2, 0), (1, 2), (1, 1)] {
        for policy in
            [skb::Policy::Producer.code().into(), u64::from(skb::Policy::Interleave.code()) | CONSUMER]
        {
            let mut play = Play::new(3, 2, Rng::new(1));
            let client = (client_core, play.add_domain(client_core));
            let server = (server_core, play.add_domain(server_core));
            let [c, s] = connect(&mut play, client, server, 40_000, policy);
            assert_eq!((c.peer, s.peer), (server_core, client_core));
            assert_eq!((c.producer, s.producer), (policy & CONSUMER == 0, policy & CONSUMER != 0));
            assert!(c.peer_sleeps && s.peer_sleeps);
            assert_eq!((c.homes, c.pool, c.pieces), (s.homes, s.pool, s.pieces));
            assert!(c.pool >= 40_000);
            let (at_c, at_s) = (frames(&mut play, client, &c), frames(&mut play, server, &s));
            assert_eq!((at_c[0].0, at_c[1].0), (at_s[1].0, at_s[0].0), "one's own is the other's peer");
            for end in [&at_c, &at_s] {
                assert!(end[0].2 && !end[1].2, "one's own is writable, the peer's is not");
                assert_eq!((end[0].1, end[1].1), (8192, 8192));
            }
            assert_eq!(at_c[2..], at_s[2..]);
            // What signals the other one.
            for (who, info, peer) in [(client, c, server), (server, s, client)] {
                play.call(who, [Request::Take as u64, info.connection, 2, 0, 0, 0, 0, 0, 0, 0], None);
                let cap = play.answer(who).cap.unwrap();
                let object = play.machine.caps[&(who.0, cap)].object;
                assert!(matches!(object, Object::Signal { core, .. } if core == peer.0), "{object:?}");
            }
            // One closes, the other is told, and closes too.
            play.call(client, [Request::Close as u64, c.connection, 0, 0, 0, 0, 0, 0, 0, 0], None);
            assert_eq!(play.answer(client).words, [0, 0, 0, 0, 0, 0]);
            play.settle();
            assert_eq!(play.notice(server).unwrap()[..3], [2, s.connection, 0]);
            play.call(server, [Request::Close as u64, s.connection, 0, 0, 0, 0, 0, 0, 0, 0], None);
            play.settle();
            assert_eq!(play.machine.allocated.len(), play.machine.mesh_frames().len());
            play.end();
        }
    }
}

#[test]
fn a_service_that_does_not_exist_is_not_found_and_a_core_that_does_not_is_no_core() {
    let mut play = Play::new(3, 1, Rng::new(1));
    let client = (1, play.add_domain(1));
    for (iref, error) in [
        (1 << 32 | 77, MonitorError::NotFound),
        (2 << 32 | 77, MonitorError::NotFound),
        (77, MonitorError::NotFound),
        (9 << 32 | 77, MonitorError::NoCore),
        (u64::MAX, MonitorError::NoCore),
    ] {
        play.call(client, [Request::Bind as u64, iref, 64, 0, 0, 0, 0, 0, 0, 0], None);
        play.settle();
        assert_eq!(play.answer(client).words, [error as u64], "{iref:#x}");
    }
    for (lines, policy) in [(63, 0), (64, 77), (64, 1 << 9)] {
        play.call(client, [Request::Bind as u64, 1, lines, 0, policy, 0, 0, 0, 0, 0], None);
        assert_eq!(play.answer(client).words, [MonitorError::BadArgument as u64]);
    }
    play.end();
}

#[test]
fn a_passed_frame_is_taken_back_from_everybody() {
    let mut play = Play::new(4, 2, Rng::new(1));
    let [a, b, c] = [1, 2, 3].map(|core| (core, play.add_domain(core)));
    let [ab, ba] = connect(&mut play, a, b, 0, 0);
    let (frame, memory) = play.frame(a);
    play.call(a, [Request::SendCap as u64, ab.connection, 0, 0, 0, 0, 0, 0, 0, 0], Some(frame));
    play.settle();
    assert_eq!(play.answer(a).words[0], 0);
    play.call(b, [Request::TakeCap as u64, ba.connection, 0, 0, 0, 0, 0, 0, 0, 0], None);
    let passed = play.answer(b).cap.unwrap();
    // B passes it on.
    let c_service = {
        let endpoint = play.machine.give(3, Object::Endpoint { domain: c.1 }, Holder::Monitor);
        play.call(c, [Request::Hello as u64, 0, 0, 0, 0, 0, 0, 0, 0, 0], Some(endpoint));
        play.call(c, [Request::Export as u64, 0, 0, 0, 0, 0, 0, 0, 0, 0], None);
        play.answer(c);
        play.answer(c).words[1]
    };
    play.call(b, [Request::Bind as u64, c_service, 64, 0, 0, 0, 0, 0, 0, 0], None);
    play.settle();
    let offered = play.notice(c).unwrap()[2];
    play.call(c, [Request::Accept as u64, offered, 0, 0, 0, 0, 0, 0, 0, 0], None);
    play.settle();
    play.answer(c);
    let bc = play.answer(b).words[1];
    play.machine.caps.get_mut(&(2, passed)).unwrap().holder = Holder::Monitor;
    play.call(b, [Request::SendCap as u64, bc, 0, 0, 0, 0, 0, 0, 0, 0], Some(passed));
    play.settle();
    assert_eq!(play.answer(b).words[0], 0);
    let cores: BTreeSet<u32> = play.machine.copies_of(memory.base).iter().map(|(core, _)| *core).collect();
    assert_eq!(cores, BTreeSet::from([1, 2, 3]));
    // A takes it back from both.
    let again = play.machine.give(1, Object::Frame(memory), Holder::Monitor);
    play.call(a, [Request::RevokeRemote as u64, 0, 0, 0, 0, 0, 0, 0, 0, 0], Some(again));
    play.settle();
    assert_eq!(play.answer(a).words, [0]);
    assert!(play.machine.copies_of(memory.base).iter().all(|(core, _)| *core == 1));
    play.end();
}

#[test]
fn names_are_waited_for_and_go_with_their_service() {
    let mut play = Play::new(3, 1, Rng::new(1));
    let [a, b] = [1, 2].map(|core| (core, play.add_domain(core)));
    let name = runtime::interface::pack("echo").unwrap();
    let lookup = [Request::Lookup as u64, name[0], name[1], name[2], name[3], 0, 0, 0, 0, 0];
    play.call(a, lookup, None);
    play.settle();
    assert!(play.waits(a));
    let endpoint = play.machine.give(2, Object::Endpoint { domain: b.1 }, Holder::Monitor);
    play.call(b, [Request::Hello as u64, 0, 0, 0, 0, 0, 0, 0, 0, 0], Some(endpoint));
    play.answer(b);
    play.call(b, [Request::Export as u64, 0, 0, 0, 0, 0, 0, 0, 0, 0], None);
    let iref = play.answer(b).words[1];
    play.call(b, [Request::Register as u64, name[0], name[1], name[2], name[3], iref, 0, 0, 0, 0], None);
    play.settle();
    assert_eq!(play.answer(b).words[0], 0);
    assert_eq!(play.answer(a).words, [0, iref]);
    // Somebody else cannot name it.
    play.call(a, [Request::Register as u64, 5, 0, 0, 0, iref, 0, 0, 0, 0], None);
    assert_eq!(play.answer(a).words, [MonitorError::NotFound as u64]);
    play.kill(b);
    play.settle();
    play.call(a, lookup, None);
    play.settle();
    assert!(play.waits(a), "the name went with the service");
    play.end();
}

#[test]
fn a_started_domain_is_waited_for() {
    let mut play = Play::new(3, 1, Rng::new(1));
    let a = (1, play.add_domain(1));
    for core in 0..3u32 {
        let kib = 64u64;
        play.call(a, [Request::Spawn as u64, u64::from(core) | kib << 32, 1, 2, 3, 4, 5, 6, 7, 8], None);
        play.settle();
        let handle = play.answer(a).words[1];
        let child = (core, *play.domains(core).last().unwrap());
        play.call(a, [Request::WaitEnd as u64, handle, 0, 0, 0, 0, 0, 0, 0, 0], None);
        play.settle();
        assert!(play.waits(a));
        play.kill(child);
        play.settle();
        assert_eq!(play.answer(a).words, [0, play::CAUSE, play::DETAIL]);
        play.call(a, [Request::WaitEnd as u64, handle, 0, 0, 0, 0, 0, 0, 0, 0], None);
        assert_eq!(play.answer(a).words, [MonitorError::NotFound as u64], "a handle is used up");
    }
    play.call(a, [Request::Spawn as u64, 7, 1, 0, 0, 0, 0, 0, 0, 0], None);
    play.settle();
    assert_eq!(play.answer(a).words, [MonitorError::NoCore as u64]);
    play.call(a, [Request::Spawn as u64, 2, 0, 0, 0, 0, 0, 0, 0, 0], None);
    play.settle();
    assert_eq!(play.answer(a).words, [MonitorError::CannotSpawn as u64], "a module without a name");
    play.end();
}

#[test]
fn a_core_that_is_lost_is_gone_for_all_who_had_to_do_with_it() {
    let mut play = Play::new(3, 1, Rng::new(1));
    let (client, server) = ((1, play.add_domain(1)), (2, play.add_domain(2)));
    let [c, s] = connect(&mut play, client, server, 0, 0);
    let (frame, memory) = play.frame(client);
    play.call(client, [Request::SendCap as u64, c.connection, 0, 0, 0, 0, 0, 0, 0, 0], Some(frame));
    play.settle();
    assert_eq!(play.answer(client).words[0], 0);
    play.call(client, [Request::TakeCap as u64, c.connection, 0, 0, 0, 0, 0, 0, 0, 0], None);
    assert!(play.waits(client));
    play.step(1, Event::Lost { core: 2 });
    assert_eq!(play.answer(client).words, [MonitorError::PeerGone as u64]);
    assert_eq!(play.notice(client).unwrap()[..3], [2, c.connection, 1]);
    let spawn = [Request::Spawn as u64, 2, 1, 0, 0, 0, 0, 0, 0, 0];
    play.call(client, spawn, None);
    assert_eq!(play.answer(client).words, [MonitorError::NoCore as u64]);
    let bind = [Request::Bind as u64, play.services()[0], 64, 0, 0, 0, 0, 0, 0, 0];
    play.call(client, bind, None);
    assert_eq!(play.answer(client).words, [MonitorError::NoCore as u64]);
    assert!(!play.monitor(1).wants_retry(), "nothing waits for a core that is gone");
    // Its memory is not used again: the other core may still have a copy.
    play.kill(client);
    play.settle();
    assert!(play.domains(1).contains(&client.1), "not released");
    assert!(play.machine.copies_of(memory.base).iter().any(|(core, _)| *core == 2));
    assert_eq!(s.peer, 1);
}

#[test]
fn a_domain_that_does_not_read_its_notices_loses_its_connections() {
    let mut play = Play::new(2, 1, Rng::new(1));
    let (client, server) = ((0, play.add_domain(0)), (1, play.add_domain(1)));
    let [c, _] = connect(&mut play, client, server, 0, 0);
    // Binds that nobody looks at fill the buffer, then the queue.
    let mut binders = Vec::new();
    let iref = play.services()[0];
    for _ in 0..crate::limit::NOTICES + machine::NOTICES + 1 {
        let domain = play.add_domain(0);
        play.call((0, domain), [Request::Bind as u64, iref, 64, 0, 0, 0, 0, 0, 0, 0], None);
        play.settle_without_retries();
        binders.push(domain);
    }
    play.settle();
    let refused = binders.iter().filter(|d| !play.waits((0, **d))).count();
    assert_eq!(refused, binders.len(), "all binders are refused");
    assert_eq!(play.notice(client).unwrap()[..2], [2, c.connection], "the peer is told");
    play.end();
}
