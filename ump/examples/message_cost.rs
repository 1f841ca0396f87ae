//! What a message costs in instructions. Run it twice under a tool that counts them, and divide the difference of
//! the counts by that of the repetitions: `doc/ump.md`, "What it costs", has the commands and the figures.

use std::hint::black_box;

use ump::{Accepts, Endpoint, Kind, Message, Outbox, PAYLOAD_WORDS, RPC_LINES};

const KIND: Kind = Kind(3);
const ACCEPTS: Accepts = Accepts::kinds_below(Kind(8));

type End<'m> = Endpoint<'m, RPC_LINES>;

/// One message, built from words in registers and consumed there.
#[inline(always)]
fn pair_in_registers(sender: &mut End, receiver: &mut End, word: u64) -> bool {
    let words = [word, word, word, word, word, word, word];
    let Ok(()) = sender.try_send(&Message::new(KIND, words)) else { return false };
    match receiver.try_recv() {
        // Seven instructions and a comparison.
        Ok(Some(message)) => message.payload().iter().fold(0, |all, got| all | got) == word,
        _ => false,
    }
}

/// A call whose words are in registers at both sides, and its reply, which repeats them.
#[inline(always)]
fn call_in_registers(client: &mut End, server: &mut End, word: u64) -> bool {
    let Ok(()) = client.try_send(&Message::new(KIND, [word; PAYLOAD_WORDS])) else { return false };
    let Ok(Some(request)) = server.try_recv() else { return false };
    let Ok(()) = server.try_send(&Message::new(KIND, *request.payload())) else { return false };
    match client.try_recv() {
        Ok(Some(reply)) => reply.payload().iter().fold(0, |all, got| all | got) == word,
        _ => false,
    }
}

#[inline(always)]
fn put(sender: &mut End, from: &[u64; PAYLOAD_WORDS]) -> bool {
    sender.try_send(&Message::new(KIND, *from)).is_ok()
}

#[inline(always)]
fn get(receiver: &mut End, to: &mut [u64; PAYLOAD_WORDS]) -> bool {
    match receiver.try_recv() {
        Ok(Some(message)) => {
            *to = *message.payload();
            true
        }
        _ => false,
    }
}

#[inline(always)]
fn put_message(sender: &mut End, from: &Message) -> bool {
    sender.try_send(from).is_ok()
}

#[inline(always)]
fn get_message(receiver: &mut End, to: &mut Message) -> bool {
    match receiver.try_recv() {
        Ok(Some(message)) => {
            *to = message;
            true
        }
        _ => false,
    }
}

/// Calls `step` so often; its result must be true each time.
fn repeat(count: u64, mut step: impl FnMut(u64) -> bool) {
    for n in 0..count {
        assert!(step(black_box(n)));
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(what), Some(Ok(count))) =
        (arguments.next(), arguments.next().map(|count| count.parse::<u64>()))
    else {
        eprintln!("usage: message_cost {{nothing|registers|call|memory|message|roundtrip|poll}} REPETITIONS");
        std::process::exit(2);
    };
    let outboxes = Box::new([Outbox::new(), Outbox::new()]);
    let mut client = Endpoint::new(&outboxes[0], &outboxes[1], ACCEPTS);
    let mut server = Endpoint::new(&outboxes[1], &outboxes[0], ACCEPTS);
    let (mut words, mut message) = ([1u64; PAYLOAD_WORDS], Message::new(KIND, [1; PAYLOAD_WORDS]));
    let (words, message) = (black_box(&mut words), black_box(&mut message));
    match what.as_str() {
        "nothing" => repeat(count, |_| true),
        "registers" => repeat(count, |n| pair_in_registers(&mut client, &mut server, n)),
        "call" => repeat(count, |n| call_in_registers(&mut client, &mut server, n)),
        "memory" => repeat(count, |_| put(&mut client, words) && get(&mut server, words)),
        "message" => {
            repeat(count, |_| put_message(&mut client, message) && get_message(&mut server, message))
        }
        "roundtrip" => repeat(count, |_| {
            put(&mut client, words)
                && get(&mut server, words)
                && put(&mut server, words)
                && get(&mut client, words)
        }),
        "poll" => {
            // Empty lines of the first lap are recognised more slowly.
            repeat(100, |_| put(&mut client, words) && get(&mut server, words));
            repeat(count, |_| !get(&mut server, words));
        }
        _ => panic!("nothing known about {what}"),
    }
}
