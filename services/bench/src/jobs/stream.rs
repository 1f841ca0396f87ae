//! Messages of one line there, as fast as they are taken.
//!
//! The values are what one message costs both ends together: from the first call that sends until the receiver says
//! that it has the last one, divided by their number.

use runtime::bench::{BenchError, Harness, Plan};
use runtime::channel::Channel;
use runtime::time;
use ump::{MAX_BURST, SendError};

use super::{Broken, DATA, FULL, Publish, receive, send};

/// Messages of a sample: several rounds of the longest ring.
const MESSAGES: usize = 4096;

/// Samples. Each has many messages.
const SAMPLES: usize = 5;

pub(super) fn drive<const N: usize>(
    channel: &mut Channel<N>,
    publish: Publish,
    h: &mut Harness,
) -> Result<(), BenchError> {
    let metric = match (publish, N) {
        (Publish::Single, ump::RPC_LINES) => "single_64_lines",
        (Publish::Burst, ump::RPC_LINES) => "burst_64_lines",
        (Publish::Single, _) => "single_1024_lines",
        (Publish::Burst, _) => "burst_1024_lines",
    };
    h.settle()?;
    let samples = h.samples(SAMPLES);
    h.take(Plan::new(metric, samples).per_part(MESSAGES as u64), || {
        let start = time::now_serialised();
        match publish {
            Publish::Single => (0..MESSAGES).try_for_each(|_| send(channel, &FULL))?,
            Publish::Burst => send_bursts(channel)?,
        }
        receive(channel)?;
        Ok(time::now_serialised() - start)
    })
}

fn send_bursts<const N: usize>(channel: &mut Channel<N>) -> Result<(), Broken> {
    // As much as fits without the acknowledgements having to come in time for each burst.
    let burst = [FULL; MAX_BURST];
    let most = MAX_BURST.min(N / 4);
    let mut left = MESSAGES;
    while left > 0 {
        match channel.try_send_burst(&burst[..most.min(left)]) {
            Ok(sent) => left -= sent,
            Err(SendError::Full) => core::hint::spin_loop(),
            Err(_) => return Err(Broken),
        }
    }
    Ok(())
}

pub(super) fn serve<const N: usize>(channel: &mut Channel<N>) -> Result<(), BenchError> {
    loop {
        for _ in 0..MESSAGES {
            if receive(channel)?.kind() != DATA {
                return Ok(());
            }
        }
        send(channel, &FULL)?;
    }
}
