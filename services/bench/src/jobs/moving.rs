//! Bulk data, in three ways: through messages, through shared memory, and by descriptor, read in place.
//!
//! In each way the producer fills the data and the consumer sums up all bytes; the sum goes back and is checked. A
//! sample ends when the producer has it. Long data are moved in chunks through a pool of [`POOL`] bytes, so that what
//! is in flight stays the same. `hand_over` is what passes a buffer that nobody looks into: from taking it until the
//! receiver has checked the descriptor and has the buffer.

use alloc::vec::Vec;

use bulk::{Given, PoolId, Sink, Slot, SlotSize, Source, View, Word, copying};
use runtime::bench::{BenchError, Harness, Plan};
use runtime::channel::Channel;
use runtime::monitor::Connection;
use runtime::time;
use ump::Message;

use super::{BUFFERS, DATA, END, Way, receive, send};

/// Bytes of the pool: what is in flight at most.
pub(super) const POOL: u64 = 256 << 10;

/// Bytes of a chunk, and of a slot of the pool; less where the data are less.
const CHUNK: usize = 16 << 10;

/// Slots that are given back together.
const GIVEN_BACK: usize = 4;

const SAMPLES: usize = 5;

const HAND_OVERS: usize = 100;

const POOL_ID: PoolId = PoolId(0);

const REFUSED: BenchError = BenchError::Wrong("the pool or one of its buffers was refused");

/// Private memory for one chunk.
fn private(chunk: usize) -> Vec<Word> {
    (0..chunk / size_of::<Word>()).map(|_| Word::new(0)).collect()
}

/// Produces data: other ones for each chunk.
fn fill(words: &[Word], chunk: u64) {
    for (value, word) in (chunk << 32..).zip(words) {
        word.store(value);
    }
}

/// The slots of a connection's pool.
fn slots(connection: &Connection, chunk: usize) -> Result<(bulk::Region<'_>, Vec<Slot>), BenchError> {
    let size = SlotSize::from_bytes(chunk).ok_or(REFUSED)?;
    let region = connection.region(size).map_err(|_| REFUSED)?;
    let table = (0..region.slots()).map(|_| Slot::new()).collect();
    Ok((region, table))
}

pub(super) fn drive<const N: usize>(
    channel: &mut Channel<N>,
    connection: &Connection,
    way: Way,
    size: usize,
    h: &mut Harness,
) -> Result<(), BenchError> {
    let chunk = size.min(CHUNK);
    let own = private(chunk);
    let chunks = (size / chunk) as u64;
    let mut expected = 0u64;
    for number in 0..chunks {
        fill(&own, number);
        expected = expected.wrapping_add(View::of(&own).byte_sum());
    }
    let (metric, copied) = match way {
        Way::Messages => ("messages", 2 * size),
        Way::SharedMemory => ("shared_memory", 2 * size),
        Way::InPlace => ("in_place", 0),
    };
    let counts = [("bytes_copied", copied as u64)];
    let plan = Plan::new(metric, h.samples(SAMPLES)).counting(&counts).per_kib();
    let check = |sum: u64| {
        if sum == expected { Ok(()) } else { Err(BenchError::Wrong("the sum of the data is wrong")) }
    };
    h.settle()?;
    if way == Way::Messages {
        return h.take(plan, || {
            let start = time::now_serialised();
            send(channel, &Message::new(DATA, []))?;
            for number in 0..chunks {
                fill(&own, number);
                send_words(channel, &own)?;
            }
            let sum = receive(channel)?.payload()[0];
            let end = time::now_serialised();
            check(sum)?;
            Ok(end - start)
        });
    }
    let (region, mut table) = slots(connection, chunk)?;
    let source = Source::new(POOL_ID, region, &mut table, BUFFERS).map_err(|_| REFUSED)?;
    h.take(plan, || {
        let start = time::now_serialised();
        for number in 0..chunks {
            let mut buffer = loop {
                match source.take() {
                    Some(buffer) => break buffer,
                    None => take_back(channel, &source)?,
                }
            };
            if way == Way::InPlace {
                fill(buffer.words(), number);
            } else {
                fill(&own, number);
                buffer.copy_from_words(&own).map_err(|_| REFUSED)?;
            }
            hand_over(channel, buffer)?;
        }
        let sum = loop {
            let message = receive(channel)?;
            if message.kind() == DATA {
                break message.payload()[0];
            }
            source.accept_return(channel.endpoint(), &message).map_err(|_| REFUSED)?;
        };
        let end = time::now_serialised();
        check(sum)?;
        Ok(end - start)
    })
}

/// Sends words in as many bursts as it takes.
fn send_words<const N: usize>(channel: &mut Channel<N>, mut words: &[Word]) -> Result<(), BenchError> {
    while !words.is_empty() {
        match copying::send(channel.endpoint(), DATA, words) {
            Ok(sent) => words = &words[sent..],
            Err(ump::SendError::Full) => core::hint::spin_loop(),
            Err(_) => return Err(REFUSED),
        }
    }
    Ok(())
}

/// Hands a buffer over once there is room for its descriptor.
#[inline(always)]
fn hand_over<const N: usize>(
    channel: &mut Channel<N>,
    mut buffer: bulk::Buf<'_, bulk::Owned>,
) -> Result<(), BenchError> {
    loop {
        match buffer.hand_over(channel.endpoint(), 0) {
            Ok(()) => return Ok(()),
            Err(unsent) if unsent.error == ump::SendError::Full => buffer = unsent.buffer,
            Err(_) => return Err(REFUSED),
        }
        core::hint::spin_loop();
    }
}

/// Takes buffers back, if some came.
fn take_back<const N: usize>(channel: &mut Channel<N>, source: &Source<'_>) -> Result<(), BenchError> {
    match channel.try_recv()? {
        Some(message) => {
            source.accept_return(channel.endpoint(), &message).map_err(|_| REFUSED)?;
        }
        None => core::hint::spin_loop(),
    }
    Ok(())
}

pub(super) fn serve<const N: usize>(
    channel: &mut Channel<N>,
    connection: &Connection,
    way: Way,
    size: usize,
) -> Result<(), BenchError> {
    let chunk = size.min(CHUNK);
    let own = private(chunk);
    let chunks = size / chunk;
    if way == Way::Messages {
        while receive(channel)?.kind() != END {
            let mut sum = 0u64;
            for _ in 0..chunks {
                receive_words(channel, &own)?;
                sum = sum.wrapping_add(View::of(&own).byte_sum());
            }
            send(channel, &Message::new(DATA, [sum]))?;
        }
        return Ok(());
    }
    let (region, mut table) = slots(connection, chunk)?;
    let sink = Sink::new(POOL_ID, region, &mut table, BUFFERS).map_err(|_| REFUSED)?;
    loop {
        let mut sum = 0u64;
        for _ in 0..chunks {
            let message = receive(channel)?;
            if message.kind() == END {
                return Ok(());
            }
            let delivery = sink.accept(channel.endpoint(), &message).map_err(|_| REFUSED)?;
            let Given::Moved(buffer) = delivery.buffer else { return Err(REFUSED) };
            let view = if way == Way::InPlace {
                buffer.view()
            } else {
                buffer.view().copy_words_to(&own);
                View::of(&own)
            };
            sum = sum.wrapping_add(view.byte_sum());
            drop(buffer);
            if sink.pending() >= GIVEN_BACK {
                give_back(channel, &sink)?;
            }
        }
        give_back(channel, &sink)?;
        send(channel, &Message::new(DATA, [sum]))?;
    }
}

/// Fills `words` from messages.
fn receive_words<const N: usize>(channel: &mut Channel<N>, mut words: &[Word]) -> Result<(), BenchError> {
    while !words.is_empty() {
        // As many whole messages as fit, then what is left of the chunk.
        match copying::receive(channel.endpoint(), DATA, words)? {
            0 => core::hint::spin_loop(),
            taken => words = &words[taken..],
        }
    }
    Ok(())
}

fn give_back<const N: usize>(channel: &mut Channel<N>, sink: &Sink<'_>) -> Result<(), BenchError> {
    loop {
        match sink.give_back(channel.endpoint()) {
            Ok(()) => return Ok(()),
            Err(ump::SendError::Full) => core::hint::spin_loop(),
            Err(_) => return Err(REFUSED),
        }
    }
}

pub(super) fn drive_hand_over<const N: usize>(
    channel: &mut Channel<N>,
    connection: &Connection,
    h: &mut Harness,
) -> Result<(), BenchError> {
    let (region, mut table) = slots(connection, CHUNK)?;
    let source = Source::new(POOL_ID, region, &mut table, BUFFERS).map_err(|_| REFUSED)?;
    h.settle()?;
    h.take(Plan::new("hand_over", h.samples(HAND_OVERS)), || {
        let start = time::now_serialised();
        hand_over(channel, source.take().ok_or(REFUSED)?)?;
        loop {
            // The answer cannot be there yet.
            core::hint::spin_loop();
            let Some(message) = channel.try_recv()? else { continue };
            if message.kind() == DATA {
                return Ok(message.payload()[0].saturating_sub(start));
            }
            source.accept_return(channel.endpoint(), &message).map_err(|_| REFUSED)?;
        }
    })
}

pub(super) fn serve_hand_over<const N: usize>(
    channel: &mut Channel<N>,
    connection: &Connection,
) -> Result<(), BenchError> {
    let (region, mut table) = slots(connection, CHUNK)?;
    let sink = Sink::new(POOL_ID, region, &mut table, BUFFERS).map_err(|_| REFUSED)?;
    loop {
        core::hint::spin_loop();
        let Some(message) = channel.try_recv()? else { continue };
        if message.kind() == END {
            return Ok(());
        }
        let delivery = sink.accept(channel.endpoint(), &message).map_err(|_| REFUSED)?;
        let came = time::now_serialised();
        drop(delivery);
        give_back(channel, &sink)?;
        send(channel, &Message::new(DATA, [came]))?;
    }
}
