//! A message of one line there, and the same one back.
//!
//! `round_trip`: from the call that sends until the answer is there. `put` and `get`: the two calls that one end
//! makes for it, which send a message and take one that is there.

use results::metric;
use runtime::bench::{BenchError, Harness, Plan};
use runtime::channel::Channel;
use runtime::time;

use super::{DATA, FULL, receive, send};

/// Samples of each metric. The counts are exact, and with many cores a turn of the clock costs much host time.
const SAMPLES: usize = 20;

pub(super) fn drive<const N: usize>(channel: &mut Channel<N>, h: &mut Harness) -> Result<(), BenchError> {
    h.settle()?;
    let samples = h.samples(SAMPLES);
    h.take(Plan::new(metric::ROUND_TRIP, samples), || {
        let start = time::now_serialised();
        send(channel, &FULL)?;
        let answer = loop {
            // The answer cannot be there yet.
            core::hint::spin_loop();
            if let Some(answer) = channel.try_recv()? {
                break answer;
            }
        };
        let end = time::now_serialised();
        if answer != FULL {
            return Err(BenchError::Wrong("the answer is not what was sent"));
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
            let message = channel.try_recv()?;
            let end = time::now_serialised();
            if message.is_some() {
                return Ok(end - start);
            }
            core::hint::spin_loop();
        }
    })
}

pub(super) fn serve<const N: usize>(channel: &mut Channel<N>) -> Result<(), BenchError> {
    loop {
        // After an answer the next message cannot be there yet.
        core::hint::spin_loop();
        if let Some(message) = channel.try_recv()? {
            if message.kind() != DATA {
                return Ok(());
            }
            send(channel, &message)?;
        }
    }
}
