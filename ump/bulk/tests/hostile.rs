//! Peers that break the rules: each violation is told apart and closes that channel, and only that channel;
//! nothing panics.

mod common;

use bulk::{Descriptor, Given, PoolId, Sink, SlotSize, Source, Ticket, Violation};
use common::{KINDS, POOL, Wire, memory, region, table};
use ump::{Accepts, Endpoint, Message, Outbox, SendError};

const SLOTS: usize = 4;
const SLOT: usize = SlotSize::MIN.bytes();

fn ticket(slot: u16, generation: u32) -> Ticket {
    Ticket { pool: POOL, slot, generation }
}

fn good(slot: u16, generation: u32) -> Descriptor {
    Descriptor { ticket: ticket(slot, generation), offset: 8, length: 16, is_shared: false, cookie: 0 }
}

fn hand_over(descriptor: Descriptor) -> Message {
    Message::new(KINDS.hand_over(), descriptor.encode())
}

fn give_back(ticket: Ticket) -> Message {
    Message::new(KINDS.give_back(), [ticket.encode()])
}

/// A sink that holds slot 0 and has slot 1 to give back must refuse `message` as `expected` says, for good.
fn sink_refuses(message: &Message, expected: Violation, text: &str) {
    let memory = memory(SLOTS, SLOT);
    let mut table = table(SLOTS);
    let sink = Sink::new(POOL, region(&memory), &mut table, KINDS).unwrap();
    let mut wire = Wire::default();
    let _held = sink.accept(&mut wire, &hand_over(good(0, 1))).unwrap();
    drop(sink.accept(&mut wire, &hand_over(good(1, 1))).unwrap());
    assert_eq!(sink.accept(&mut wire, message).unwrap_err(), expected);
    assert_eq!(expected.to_string(), format!("channel closed: the peer {text}"));
    assert_eq!(wire.refused, Some(message.kind()));
    // A good message does not repair it, and the channel is not closed twice.
    assert_eq!(sink.accept(&mut wire, &hand_over(good(2, 1))).unwrap_err(), expected);
    assert_eq!(sink.violation(), Some(expected));
    assert_eq!(sink.pending(), 1, "nothing was taken");
}

/// The same for a source that has handed over slot 0, shared slot 1 and holds slot 2.
fn source_refuses(message: &Message, expected: Violation, text: &str) {
    let memory = memory(SLOTS, SLOT);
    let mut table = table(SLOTS);
    let source = Source::new(POOL, region(&memory), &mut table, KINDS).unwrap();
    let mut wire = Wire::default();
    source.take().unwrap().hand_over(&mut wire, 0).unwrap();
    let _shared = source.take().unwrap().share(&mut wire, 0).unwrap();
    let _held = source.take().unwrap();
    assert_eq!(source.accept_return(&mut wire, message), Err(expected));
    assert_eq!(expected.to_string(), format!("channel closed: the peer {text}"));
    assert_eq!(wire.refused, Some(message.kind()));
    assert_eq!(source.accept_return(&mut wire, &give_back(ticket(0, 1))), Err(expected));
    assert_eq!((source.violation(), source.free(), source.lent()), (Some(expected), 1, 2));
}

#[test]
fn descriptors_that_are_no_descriptors() {
    let kind = KINDS.end();
    sink_refuses(
        &Message::new(kind, good(2, 1).encode()),
        Violation::Kind { kind, expected: KINDS.hand_over() },
        "sent a message of kind 7 in place of 5",
    );
    sink_refuses(
        &Message::new(KINDS.hand_over(), [good(2, 1).encode()[0]]),
        Violation::Length { bytes: 8 },
        "sent a descriptor of 8 bytes",
    );
    source_refuses(
        &Message::new(KINDS.hand_over(), good(0, 1).encode()),
        Violation::Kind { kind: KINDS.hand_over(), expected: KINDS.give_back() },
        "sent a message of kind 5 in place of 6",
    );
    let halves = Message::from_bytes(KINDS.give_back(), &[0; 12]).unwrap();
    source_refuses(&halves, Violation::Length { bytes: 12 }, "sent a descriptor of 12 bytes");
    let empty = Message::new(KINDS.give_back(), []);
    source_refuses(&empty, Violation::Length { bytes: 0 }, "sent a descriptor of 0 bytes");
}

#[test]
fn slots_that_are_not_there() {
    let elsewhere = Ticket { pool: PoolId(9), ..ticket(2, 1) };
    let pool = Violation::Pool { pool: PoolId(9), expected: POOL };
    let text = "named pool 9 where pool 3 is bound";
    sink_refuses(&hand_over(Descriptor { ticket: elsewhere, ..good(2, 1) }), pool, text);
    source_refuses(&give_back(elsewhere), pool, text);
    for slot in [SLOTS as u16, u16::MAX] {
        let violation = Violation::Slot { slot, slots: SLOTS as u16 };
        let text = format!("named slot {slot} of a pool of 4");
        sink_refuses(&hand_over(good(slot, 1)), violation, &text);
        source_refuses(&give_back(ticket(slot, 1)), violation, &text);
    }
}

#[test]
fn data_that_are_not_in_the_slot() {
    let refused = |offset, length, violation, text: &str| {
        sink_refuses(&hand_over(Descriptor { offset, length, ..good(2, 1) }), violation, text);
    };
    let range = |offset, length| Violation::Range { offset, length, slot_bytes: SLOT };
    refused(0, 4097, range(0, 4097), "handed over 4097 bytes at offset 0 of a slot of 4096");
    refused(4096, 1, range(4096, 1), "handed over 1 bytes at offset 4096 of a slot of 4096");
    refused(
        0xffff_fff8,
        0x7fff_ffff,
        range(0xffff_fff8, 0x7fff_ffff),
        "handed over 2147483647 bytes at offset 4294967288 of a slot of 4096",
    );
    refused(
        12,
        4,
        Violation::Misaligned { offset: 12 },
        "handed over data at offset 12, which is not a multiple of 8",
    );
}

#[test]
fn slots_that_the_peer_does_not_hold() {
    for slot in [0, 1] {
        let text = format!("handed over slot {slot}, which it does not hold");
        for generation in [1, 2] {
            sink_refuses(&hand_over(good(slot, generation)), Violation::NotTheirs { slot }, &text);
        }
    }
    for slot in [2, 3] {
        let text = format!("gave back slot {slot}, which it does not hold");
        source_refuses(&give_back(ticket(slot, 0)), Violation::NotLent { slot }, &text);
    }
    // Twice in one message.
    let memory = memory(SLOTS, SLOT);
    let mut table = table(SLOTS);
    let source = Source::new(POOL, region(&memory), &mut table, KINDS).unwrap();
    let mut wire = Wire::default();
    source.take().unwrap().hand_over(&mut wire, 0).unwrap();
    let word = ticket(0, 1).encode();
    let twice = Message::new(KINDS.give_back(), [word, word]);
    assert_eq!(source.accept_return(&mut wire, &twice), Err(Violation::NotLent { slot: 0 }));
}

#[test]
fn hand_overs_of_another_time() {
    for found in [0, 2, u32::MAX] {
        let text = format!("named hand-over {found} of slot 2 in place of 1");
        let violation = Violation::Generation { slot: 2, expected: 1, found };
        sink_refuses(&hand_over(good(2, found)), violation, &text);
    }
    for (slot, found) in [(0, 0), (0, 2), (1, 7)] {
        let text = format!("named hand-over {found} of slot {slot} in place of 1");
        let violation = Violation::Generation { slot, expected: 1, found };
        source_refuses(&give_back(ticket(slot, found)), violation, &text);
    }
}

/// Over a real channel: the peer is told, and every later message has the same answer.
#[test]
fn a_violation_closes_the_channel() {
    let outboxes = Box::new([Outbox::<8>::new(), Outbox::new()]);
    let accepts = Accepts::kinds_below(KINDS.end());
    let mut good_end = Endpoint::new(&outboxes[0], &outboxes[1], accepts);
    let mut evil_end = Endpoint::new(&outboxes[1], &outboxes[0], accepts);
    let memory = memory(SLOTS, SLOT);
    let mut table = table(SLOTS);
    let sink = Sink::new(POOL, region(&memory), &mut table, KINDS).unwrap();
    evil_end.try_send(&hand_over(good(9, 1))).unwrap();
    let message = good_end.try_recv().unwrap().unwrap();
    assert!(sink.accept(&mut good_end, &message).is_err());
    let violation = good_end.violation().expect("the channel is closed");
    assert_eq!(violation, ump::Violation::Refused { kind: KINDS.hand_over() });
    assert_eq!(good_end.try_send(&message), Err(SendError::Broken(violation)));
    assert!(evil_end.is_finished(), "the peer is told");
}

/// Xorshift, enough to make a mess that can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A ticket that is nearly right: one field is spoilt in one of `odds` cases.
    fn spoil(&mut self, ticket: &mut Ticket, odds: u64) {
        match self.below(3 * odds) {
            0 => ticket.pool = PoolId(self.below(5) as u16),
            1 => ticket.slot = self.below(SLOTS as u64 + 2) as u16,
            2 => ticket.generation = ticket.generation.wrapping_add(self.below(5) as u32).wrapping_sub(2),
            _ => {}
        }
    }
}

/// Counts violations by cause.
fn count(closed: &mut [u64; 9], violation: Violation) {
    closed[match violation {
        Violation::Kind { .. } => 0,
        Violation::Length { .. } => 1,
        Violation::Pool { .. } => 2,
        Violation::Slot { .. } => 3,
        Violation::Misaligned { .. } => 4,
        Violation::Range { .. } => 5,
        Violation::NotTheirs { .. } => 6,
        Violation::NotLent { .. } => 7,
        Violation::Generation { .. } => 8,
    }] += 1;
}

/// A million hand-overs, most of them nearly right, to sinks that are made anew as they close, beside a sink
/// that must not notice.
#[test]
fn random_hand_overs_close_only_their_channel() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (memory, other_memory) = (memory(SLOTS, SLOT), memory(SLOTS, SLOT));
    let (mut here, mut there, mut table) = (table(SLOTS), table(SLOTS), table(SLOTS));
    let bystander = Sink::new(POOL, region(&other_memory), &mut there, KINDS).unwrap();
    let neighbour = Source::new(POOL, region(&other_memory), &mut here, KINDS).unwrap();
    let mut sink = Sink::new(POOL, region(&memory), &mut table, KINDS).unwrap();

    let (mut sent, mut accepted, mut closed) = (0u64, 0u64, [0; 9]);
    while sent < 1_000_000 {
        sink.restart();
        let mut wire = Wire::default();
        let mut held: [Option<Given<'_>>; SLOTS] = [const { None }; SLOTS];
        let mut generations = [0; SLOTS];
        let violation = loop {
            // What the peer may hand over, so that most of it is right.
            let slot = random.below(SLOTS as u64) as usize;
            if !random.one_in(50) {
                held[slot] = None;
                sink.give_back(&mut wire).unwrap();
                wire.messages.clear();
            }
            let mut descriptor = good(slot as u16, generations[slot] + 1);
            random.spoil(&mut descriptor.ticket, 50);
            descriptor.offset = 8 * random.below(500) as u32;
            descriptor.length = random.below(96) as u32;
            descriptor.is_shared = random.one_in(3);
            match random.below(200) {
                0 => descriptor.offset = random.next() as u32,
                1 => descriptor.length = random.next() as u32,
                2 => descriptor.offset += 4,
                _ => {}
            }
            let mut words = descriptor.encode();
            if random.one_in(200) {
                words[random.below(3) as usize] = random.next();
            }
            let message = match random.below(400) {
                0 => Message::new(KINDS.give_back(), words),
                1 => Message::from_words(KINDS.hand_over(), &words[..random.below(3) as usize]).unwrap(),
                _ => Message::new(KINDS.hand_over(), words),
            };
            sent += 1;
            match sink.accept(&mut wire, &message) {
                Ok(delivery) => {
                    let Descriptor { ticket, length, .. } = Descriptor::decode(words);
                    let mut bytes = [0; 128];
                    let (slot, copied) = match &delivery.buffer {
                        Given::Moved(buffer) => (buffer.slot(), buffer.view().copy_to(&mut bytes)),
                        Given::Shared(buffer) => (buffer.slot(), buffer.copy_to(&mut bytes)),
                    };
                    assert_eq!((slot, copied), (ticket.slot, (length as usize).min(128)));
                    assert!(held[usize::from(slot)].is_none(), "one slot, two buffers");
                    held[usize::from(slot)] = Some(delivery.buffer);
                    generations[usize::from(slot)] = ticket.generation;
                    accepted += 1;
                }
                Err(violation) => break violation,
            }
        };
        count(&mut closed, violation);
        assert!(wire.refused.is_some());

        let mut good_wire = Wire::default();
        neighbour.take().unwrap().hand_over(&mut good_wire, sent).unwrap();
        let message = good_wire.messages.pop_front().unwrap();
        assert_eq!(bystander.accept(&mut good_wire, &message).unwrap().cookie, sent);
        bystander.give_back(&mut good_wire).unwrap();
        let message = good_wire.messages.pop_front().unwrap();
        assert_eq!(neighbour.accept_return(&mut good_wire, &message), Ok(1));
    }
    assert!(accepted > 500_000, "most are good: {accepted}");
    assert_eq!(closed[7], 0, "that is for sources");
    assert_eq!(closed.iter().filter(|count| **count > 0).count(), 8, "every violation was met: {closed:?}");
}

/// A million words of returns to sources that begin anew as they close.
#[test]
fn random_returns_close_only_their_channel() {
    let mut random = Random(88_172_645_463_325_252);
    let memory = memory(SLOTS, SLOT);
    let mut table = table(SLOTS);
    let mut source = Source::new(POOL, region(&memory), &mut table, KINDS).unwrap();
    let (mut sent, mut accepted, mut closed) = (0u64, 0, [0; 9]);
    while sent < 1_000_000 {
        source.restart();
        let mut wire = Wire::default();
        let mut shared = [const { None }; SLOTS];
        let violation = loop {
            while let Some(buffer) = source.take() {
                let slot = usize::from(buffer.slot());
                match random.below(8) {
                    0 => shared[slot] = Some(buffer.share(&mut wire, 0).unwrap()),
                    1 => {
                        // Free again, and one may give back a slot that is free.
                        drop(buffer);
                        break;
                    }
                    _ => buffer.hand_over(&mut wire, 0).unwrap(),
                }
            }
            if random.one_in(3) {
                shared[random.below(SLOTS as u64) as usize] = None;
            }
            // Give back some of what was just handed over or is still there.
            let most = wire.messages.len().min(1 + random.below(7) as usize);
            let mut words: Vec<_> = (0..most)
                .filter_map(|_| wire.messages.pop_front())
                .map(|message| {
                    let mut ticket = Ticket::decode(message.words()[0]);
                    random.spoil(&mut ticket, 100);
                    if random.one_in(400) { random.next() } else { ticket.encode() }
                })
                .collect();
            if words.is_empty() || random.one_in(200) {
                words.insert(0, ticket(random.below(SLOTS as u64) as u16, random.below(20) as u32).encode());
                words.truncate(7);
            }
            let message = match random.below(800) {
                0 => Message::from_words(KINDS.end(), &words).unwrap(),
                1 => Message::from_bytes(KINDS.give_back(), &[7; 31][..random.below(32) as usize]).unwrap(),
                _ => Message::from_words(KINDS.give_back(), &words).unwrap(),
            };
            sent += words.len() as u64;
            match source.accept_return(&mut wire, &message) {
                Ok(count) => accepted += count,
                Err(violation) => break violation,
            }
        };
        count(&mut closed, violation);
        assert!(wire.refused.is_some());
        assert!(source.free() + source.lent() <= SLOTS);
    }
    assert!(accepted > 500_000, "most are good: {accepted}");
    let met: Vec<_> = closed.iter().map(|count| *count > 0).collect();
    assert_eq!(met, [true, true, true, true, false, false, false, true, true], "{closed:?}");
}
