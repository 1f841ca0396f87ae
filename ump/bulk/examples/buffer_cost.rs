//! What a hand-over costs in instructions. Run it twice under a tool that counts them, and divide the difference
//! of the counts by that of the repetitions: `doc/bulk.md`, "What it costs", has the commands and the figures.

use std::hint::black_box;

use bulk::{Given, Kinds, PoolId, Region, Sink, Slot, SlotSize, Source, View, Word, copying};
use ump::{Accepts, Endpoint, Kind, Outbox, RPC_LINES};

const POOL: PoolId = PoolId(1);
const KINDS: Kinds = Kinds::starting_at(Kind(0));
const SLOTS: usize = 16;
const SLOT: usize = 16 << 10;

type End<'m> = Endpoint<'m, RPC_LINES>;

/// Hands a slot over and drops it at the other side.
#[inline(always)]
fn pass(source: &Source<'_>, sink: &Sink<'_>, near: &mut End<'_>, far: &mut End<'_>, n: u64) -> bool {
    let Some(buffer) = source.take() else { return false };
    if buffer.hand_over(near, n).is_err() {
        return false;
    }
    let Ok(Some(message)) = far.try_recv() else { return false };
    match sink.accept(far, &message) {
        Ok(delivery) => delivery.cookie == n && matches!(delivery.buffer, Given::Moved(_)),
        Err(_) => false,
    }
}

/// Takes back everything.
#[inline(always)]
fn give_back(source: &Source<'_>, sink: &Sink<'_>, near: &mut End<'_>, far: &mut End<'_>) -> bool {
    if sink.give_back(far).is_err() {
        return false;
    }
    while let Ok(Some(message)) = near.try_recv() {
        if source.accept_return(near, &message).is_err() {
            return false;
        }
    }
    true
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
        eprintln!("usage: buffer_cost {{nothing|take|pass|batch|sum|copy|messages}} REPETITIONS");
        std::process::exit(2);
    };
    let outboxes = Box::new([Outbox::new(), Outbox::new()]);
    let accepts = Accepts::kinds_below(KINDS.end());
    let mut near = Endpoint::new(&outboxes[0], &outboxes[1], accepts);
    let mut far = Endpoint::new(&outboxes[1], &outboxes[0], accepts);
    let (near, far) = (black_box(&mut near), black_box(&mut far));
    let memory: Vec<Word> = (0..SLOTS * SLOT / 8).map(|_| Word::new(1)).collect();
    let region = SlotSize::from_bytes(SLOT).and_then(|size| Region::of(&[&memory], size).ok());
    let mut tables = [[const { Slot::new() }; SLOTS], [const { Slot::new() }; SLOTS]];
    let [here, there] = &mut tables;
    let (Some(Ok(mut source)), Some(Ok(mut sink))) = (
        region.clone().map(|region| Source::new(POOL, region, here, KINDS)),
        region.map(|region| Sink::new(POOL, region, there, KINDS)),
    ) else {
        unreachable!("the sizes are right")
    };
    let (source, sink) = (&*black_box(&mut source), &*black_box(&mut sink));
    match what.as_str() {
        "nothing" => repeat(count, |_| true),
        "take" => repeat(count, |_| source.take().is_some()),
        "pass" => repeat(count, |n| pass(source, sink, near, far, n) && give_back(source, sink, near, far)),
        "batch" => repeat(count, |n| {
            pass(source, sink, near, far, n) && (sink.pending() < 7 || give_back(source, sink, near, far))
        }),
        "sum" => repeat(count, |_| View::of(&memory[..SLOT / 8]).byte_sum() > 0),
        "copy" => repeat(count, |_| {
            View::of(&memory[..SLOT / 8]).copy_words_to(&memory[SLOT / 8..][..SLOT / 8]) == SLOT / 8
        }),
        "messages" => repeat(count, |_| {
            let (mut sent, mut got) = (0, 0);
            while got < SLOT / 8 {
                sent += copying::send(near, Kind(0), &memory[sent..SLOT / 8]).unwrap_or_default();
                got += copying::receive(far, Kind(0), &memory[SLOT / 8 + got..SLOT / 4]).unwrap_or_default();
            }
            sent == got
        }),
        _ => panic!("nothing known about {what}"),
    }
}
