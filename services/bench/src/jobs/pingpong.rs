//! A message of one line there, and the same one back.
//!
//! `round_trip`: from the call that sends until the answer is there. `put` and `get`: the two calls that one end
//! makes for it, which send a message and take one that is there.
//!
//! It is [`Channel`]'s own path: validation, credits, acknowledgements and the test whether the peer sleeps included.
//! Where the clock counts the instructions of all cores, so is what the server does, and a pause on each side before
//! it looks: the other core runs only when this one pauses.

use results::metric;
use runtime::bench::{BenchError, Harness, Plan};
use runtime::channel::Channel;
use runtime::time;

use super::{Broken, DATA, FULL, receive, send};

/// Samples of each metric. The counts are exact, and with many cores a turn of the clock costs much host time.
const SAMPLES: usize = 20;

/// An answer is not what was sent.
const CHANGED: BenchError = BenchError::Wrong("the answer is not what was sent");

pub(super) fn drive<const N: usize>(channel: &mut Channel<N>, h: &mut Harness) -> Result<(), BenchError> {
    h.settle()?;
    let samples = h.samples(SAMPLES);
    h.take(Plan::new(metric::ROUND_TRIP, samples), || {
        let start = time::now_serialised();
        send(channel, &FULL)?;
        // The answer cannot be there yet.
        core::hint::spin_loop();
        let answer = receive(channel)?;
        let end = time::now_serialised();
        if answer != FULL {
            return Err(CHANGED);
        }
        Ok(end - start)
    })?;
    h.take(Plan::new(metric::PUT, samples), || {
        let start = time::now_serialised();
        send(channel, &FULL)?;
        let end = time::now_serialised();
        receive(channel)?;
        Ok(end - start)
    })?;
    h.take(Plan::new(metric::GET, samples), || {
        send(channel, &FULL)?;
        loop {
            let start = time::now_serialised();
            match channel.try_recv() {
                Ok(Some(message)) => {
                    let end = time::now_serialised();
                    if message != FULL {
                        return Err(CHANGED);
                    }
                    return Ok(end - start);
                }
                Ok(None) => core::hint::spin_loop(),
                Err(_) => return Err(Broken.into()),
            }
        }
    })
}

pub(super) fn serve<const N: usize>(channel: &mut Channel<N>) -> Result<(), BenchError> {
    loop {
        // After an answer the next message cannot be there yet.
        core::hint::spin_loop();
        let message = receive(channel)?;
        if message.kind() != DATA {
            return Ok(());
        }
        send(channel, &message)?;
    }
}
