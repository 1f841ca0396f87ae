//! Two threads, on whatever cores there are: every message arrives once, in order, unmixed.
#![cfg(not(loom))]

use std::thread::{scope, sleep, yield_now};
use std::time::Duration;

use ump::{Accepts, Endpoint, Kind, Message, Outbox, PAYLOAD_WORDS, RPC_LINES, STREAM_LINES, SendError};

const KIND: Kind = Kind(0);
const ACCEPTS: Accepts = Accepts::kinds_below(Kind(1));

/// Words that all follow from the number, so that a mixture of two messages shows.
fn numbered(n: u64) -> Message {
    Message::new(KIND, [n, !n, n << 17, n.rotate_left(32), n ^ 0xaaaa, n + 1, n * 3])
}

fn check(message: &Message, n: u64) {
    let expected = numbered(n);
    assert_eq!(message.words().len(), PAYLOAD_WORDS);
    assert_eq!(message, &expected, "message {n}");
}

/// Spins a little, then lets another thread run, then sleeps: the cores may be few and busy.
fn wait(turns: &mut u32) {
    *turns += 1;
    match *turns {
        0..32 => core::hint::spin_loop(),
        32..64 => yield_now(),
        _ => sleep(Duration::from_micros(20)),
    }
}

fn receive<const N: usize>(endpoint: &mut Endpoint<'_, N>) -> Message {
    let mut turns = 0;
    loop {
        match endpoint.try_recv() {
            Ok(Some(message)) => break message,
            Ok(None) => wait(&mut turns),
            Err(violation) => panic!("{violation}"),
        }
    }
}

fn send<const N: usize>(endpoint: &mut Endpoint<'_, N>, message: &Message) {
    let mut turns = 0;
    while let Err(error) = endpoint.try_send(message) {
        assert_eq!(error, SendError::Full);
        wait(&mut turns);
    }
}

fn one_way<const N: usize>(messages: u64) {
    let outboxes = Box::new([Outbox::<N>::new(), Outbox::new()]);
    let mut sender = Endpoint::new(&outboxes[0], &outboxes[1], ACCEPTS);
    let mut receiver = Endpoint::new(&outboxes[1], &outboxes[0], ACCEPTS);
    scope(|scope| {
        scope.spawn(move || {
            for n in 0..messages {
                send(&mut sender, &numbered(n));
            }
        });
        for n in 0..messages {
            check(&receive(&mut receiver), n);
        }
        let mut turns = 0;
        while !receiver.is_finished() {
            assert_eq!(receiver.try_recv(), Ok(None));
            wait(&mut turns);
        }
    });
}

#[test]
fn one_way_on_a_tiny_ring() {
    one_way::<2>(100_000);
}

#[test]
fn one_way_on_a_ring_for_calls() {
    one_way::<RPC_LINES>(300_000);
}

#[test]
fn one_way_on_a_ring_for_streams() {
    one_way::<STREAM_LINES>(300_000);
}

#[test]
fn bursts() {
    const MESSAGES: u64 = 300_000;
    let outboxes = Box::new([Outbox::<STREAM_LINES>::new(), Outbox::new()]);
    let mut sender = Endpoint::new(&outboxes[0], &outboxes[1], ACCEPTS);
    let mut receiver = Endpoint::new(&outboxes[1], &outboxes[0], ACCEPTS);
    scope(|scope| {
        scope.spawn(move || {
            let (mut sent, mut turns) = (0, 0);
            while sent < MESSAGES {
                // Bursts of every length.
                let end = (sent + 1 + sent % 64).min(MESSAGES);
                let messages: Vec<_> = (sent..end).map(numbered).collect();
                match sender.try_send_burst(&messages) {
                    Ok(count) => (sent, turns) = (sent + count as u64, 0),
                    Err(SendError::Full) => wait(&mut turns),
                    Err(error) => panic!("{error}"),
                }
            }
        });
        for n in 0..MESSAGES {
            check(&receive(&mut receiver), n);
        }
    });
}

#[test]
fn calls() {
    const CALLS: u64 = 20_000;
    let outboxes = Box::new([Outbox::<RPC_LINES>::new(), Outbox::new()]);
    let mut client = Endpoint::new(&outboxes[0], &outboxes[1], ACCEPTS);
    let mut server = Endpoint::new(&outboxes[1], &outboxes[0], ACCEPTS);
    scope(|scope| {
        scope.spawn(move || {
            for _ in 0..CALLS {
                let request = receive(&mut server);
                send(&mut server, &request);
            }
        });
        for n in 0..CALLS {
            send(&mut client, &numbered(n));
            check(&receive(&mut client), n);
        }
    });
}

/// Both sides stream at once; one of them reads only when it cannot send.
#[test]
fn both_ways() {
    const MESSAGES: u64 = 200_000;
    let outboxes = Box::new([Outbox::<8>::new(), Outbox::new()]);
    let run = |mut endpoint: Endpoint<'_, 8>, eager: bool| {
        let (mut sent, mut received, mut turns) = (0, 0, 0);
        while sent < MESSAGES || received < MESSAGES {
            let could_send = sent < MESSAGES && endpoint.try_send(&numbered(sent)).is_ok();
            sent += u64::from(could_send);
            let message = if eager || !could_send { endpoint.try_recv().unwrap() } else { None };
            if let Some(message) = &message {
                check(message, received);
                received += 1;
            }
            if !could_send && message.is_none() {
                wait(&mut turns);
            } else {
                turns = 0;
            }
        }
    };
    let here = Endpoint::new(&outboxes[0], &outboxes[1], ACCEPTS);
    let there = Endpoint::new(&outboxes[1], &outboxes[0], ACCEPTS);
    scope(|scope| {
        scope.spawn(|| run(here, true));
        run(there, false);
    });
}
