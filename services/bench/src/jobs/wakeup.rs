//! A message to a receiver that is blocked on a core that has halted.
//!
//! `one_way`: from the call that sends until the receiver has the message. `round_trip`: until its answer is there;
//! the sender polls for it.

use lmp::invocation::Counter;
use results::metric;
use runtime::bench::{BenchError, Harness, Plan, counter};
use runtime::channel::Channel;
use runtime::events::Deadline;
use runtime::time;
use ump::Message;

use super::{DATA, FULL, receive, send};

const SAMPLES: usize = 100;

pub(super) fn drive<const N: usize>(channel: &mut Channel<N>, h: &mut Harness) -> Result<(), BenchError> {
    let samples = h.samples(SAMPLES);
    measure(channel, h, Plan::new(metric::ONE_WAY, samples), |start, came, _| came - start)?;
    measure(channel, h, Plan::new(metric::ROUND_TRIP, samples), |start, _, end| end - start)
}

/// Takes samples: the value is made of when the message was sent, when it came, and when the answer was there.
fn measure<const N: usize>(
    channel: &mut Channel<N>,
    h: &mut Harness,
    plan: Plan<'_>,
    value: fn(u64, u64, u64) -> u64,
) -> Result<(), BenchError> {
    let kcb = h.kcb();
    let mut quiet = h.quiet();
    h.take(plan, || {
        // Until the receiver's core has halted.
        quiet.settle()?;
        let sent = counter(kcb, Counter::IpisSent)?;
        let start = time::now_serialised();
        send(channel, &FULL)?;
        let answer = receive(channel)?;
        let end = time::now_serialised();
        if counter(kcb, Counter::IpisSent)? != sent + 1 {
            return Err(BenchError::Wrong("the receiver was not asleep"));
        }
        Ok(value(start, answer.payload()[0], end))
    })
}

pub(super) fn serve<const N: usize>(channel: &mut Channel<N>) -> Result<(), BenchError> {
    loop {
        let message = channel.recv_blocking(Deadline::NEVER)?;
        let came = time::now_serialised();
        if message.kind() != DATA {
            return Ok(());
        }
        send(channel, &Message::new(DATA, [came]))?;
    }
}
