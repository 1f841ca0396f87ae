//! Two threads move data in the three ways: by handing buffers over, by copying into and out of them, and
//! through messages. All of it arrives, in order.

use std::thread::{scope, sleep, yield_now};
use std::time::Duration;

use bulk::{Given, Kinds, PoolId, Region, Sink, Slot, SlotSize, Source, View, Word, copying};
use ump::{Accepts, Endpoint, Kind, Outbox, RPC_LINES, STREAM_LINES, SendError};

const POOL: PoolId = PoolId(0);
const KINDS: Kinds = Kinds::starting_at(Kind(0));
const ACCEPTS: Accepts = Accepts::kinds_below(KINDS.end());

const BUFFER: usize = 64 << 10;
const BUFFER_WORDS: usize = BUFFER / 8;
const BUFFERS: usize = 4;
const ROUNDS: u64 = 300;

fn zeroes(words: usize) -> Vec<Word> {
    (0..words).map(|_| Word::new(0)).collect()
}

/// Fills a buffer with what belongs into number `round`.
fn fill(words: &[Word], round: u64) {
    for (index, word) in words.iter().enumerate() {
        word.store((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ round << 24);
    }
}

/// What the sum of its bytes must be.
fn expected_sum(round: u64) -> u64 {
    let words = zeroes(BUFFER_WORDS);
    fill(&words, round);
    View::of(&words).byte_sum()
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

/// How the two sides use the buffers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    InPlace,
    Copied,
}

fn through_a_pool(way: Use) {
    let outboxes = Box::new([Outbox::<RPC_LINES>::new(), Outbox::new()]);
    // Two pieces, as if on two nodes.
    let memory = [zeroes(BUFFERS / 2 * BUFFER_WORDS), zeroes(BUFFERS / 2 * BUFFER_WORDS)];
    let size = SlotSize::from_bytes(BUFFER).unwrap();
    let region = Region::of(&[&memory[0], &memory[1]], size).unwrap();
    let mut tables = [[const { Slot::new() }; BUFFERS], [const { Slot::new() }; BUFFERS]];
    let [here, there] = &mut tables;
    let source = Source::new(POOL, region.clone(), here, KINDS).unwrap();
    let sink = Sink::new(POOL, region, there, KINDS).unwrap();
    let mut near = Endpoint::new(&outboxes[0], &outboxes[1], ACCEPTS);
    let mut far = Endpoint::new(&outboxes[1], &outboxes[0], ACCEPTS);
    scope(|scope| {
        scope.spawn(move || {
            let private = zeroes(BUFFER_WORDS);
            let take_back = |near: &mut Endpoint<'_, RPC_LINES>| match near.try_recv().unwrap() {
                Some(message) => source.accept_return(near, &message).unwrap(),
                None => 0,
            };
            for round in 0..ROUNDS {
                let mut turns = 0;
                let mut buffer = loop {
                    match source.take() {
                        Some(buffer) => break buffer,
                        None if take_back(&mut near) == 0 => wait(&mut turns),
                        None => {}
                    }
                };
                match way {
                    Use::InPlace => fill(buffer.words(), round),
                    Use::Copied => {
                        fill(&private, round);
                        buffer.copy_from_words(&private).unwrap();
                    }
                }
                buffer.hand_over(&mut near, round).unwrap();
            }
            let mut turns = 0;
            while source.free() < BUFFERS {
                if take_back(&mut near) == 0 {
                    wait(&mut turns);
                }
            }
        });
        let private = zeroes(BUFFER_WORDS);
        for round in 0..ROUNDS {
            let mut turns = 0;
            let message = loop {
                match far.try_recv().unwrap() {
                    Some(message) => break message,
                    None => wait(&mut turns),
                }
            };
            let delivery = sink.accept(&mut far, &message).unwrap();
            assert_eq!(delivery.cookie, round);
            let Given::Moved(buffer) = delivery.buffer else { panic!("nothing is shared") };
            assert_eq!(buffer.len(), BUFFER);
            let sum = match way {
                Use::InPlace => buffer.view().byte_sum(),
                Use::Copied => {
                    assert_eq!(buffer.view().copy_words_to(&private), BUFFER_WORDS);
                    View::of(&private).byte_sum()
                }
            };
            drop(buffer);
            assert_eq!(sum, expected_sum(round), "buffer {round}");
            while sink.give_back(&mut far) == Err(SendError::Full) {
                yield_now();
            }
        }
    });
}

#[test]
fn buffers_are_handed_over() {
    through_a_pool(Use::InPlace);
}

#[test]
fn buffers_are_copied_in_and_out() {
    through_a_pool(Use::Copied);
}

#[test]
fn data_goes_through_messages() {
    let outboxes = Box::new([Outbox::<STREAM_LINES>::new(), Outbox::new()]);
    let mut near = Endpoint::new(&outboxes[0], &outboxes[1], ACCEPTS);
    let mut far = Endpoint::new(&outboxes[1], &outboxes[0], ACCEPTS);
    // Not a multiple of seven words, so that there are shorter messages too.
    assert_ne!(BUFFER_WORDS % ump::PAYLOAD_WORDS, 0);
    let rounds = ROUNDS / 10;
    scope(|scope| {
        scope.spawn(move || {
            let private = zeroes(BUFFER_WORDS);
            for round in 0..rounds {
                fill(&private, round);
                let (mut sent, mut turns) = (0, 0);
                while sent < BUFFER_WORDS {
                    match copying::send(&mut near, Kind(1), &private[sent..]) {
                        Ok(words) => sent += words,
                        Err(SendError::Full) => wait(&mut turns),
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        });
        let private = zeroes(BUFFER_WORDS);
        for round in 0..rounds {
            let (mut got, mut turns) = (0, 0);
            while got < BUFFER_WORDS {
                match copying::receive(&mut far, Kind(1), &private[got..]).unwrap() {
                    0 => wait(&mut turns),
                    words => got += words,
                }
            }
            assert_eq!(View::of(&private).byte_sum(), expected_sum(round), "buffer {round}");
        }
    });
}

#[test]
fn messages_that_are_no_data_close_the_channel() {
    let outboxes = Box::new([Outbox::<RPC_LINES>::new(), Outbox::new()]);
    let mut near = Endpoint::new(&outboxes[0], &outboxes[1], ACCEPTS);
    let mut far = Endpoint::new(&outboxes[1], &outboxes[0], ACCEPTS);
    let words = zeroes(20);
    assert_eq!(copying::send(&mut near, Kind(1), &words), Ok(20));
    assert_eq!(copying::send(&mut near, Kind(1), &[]), Ok(0));
    assert_eq!(copying::receive(&mut far, Kind(1), &words[..7]), Ok(7));
    let refused = ump::Violation::Refused { kind: Kind(1) };
    assert_eq!(copying::receive(&mut far, Kind(1), &words[..6]), Err(refused), "it brings seven words");

    let outboxes = Box::new([Outbox::<RPC_LINES>::new(), Outbox::new()]);
    let mut near = Endpoint::new(&outboxes[0], &outboxes[1], ACCEPTS);
    let mut far = Endpoint::new(&outboxes[1], &outboxes[0], ACCEPTS);
    assert_eq!(copying::send(&mut near, Kind(0), &words), Ok(20));
    let refused = ump::Violation::Refused { kind: Kind(0) };
    assert_eq!(copying::receive(&mut far, Kind(1), &words), Err(refused), "it is of another kind");
}
