//! The channel against a naive model: a queue for each direction.
#![cfg(not(loom))]

use std::collections::VecDeque;

use proptest::prelude::*;
use ump::{Accepts, Endpoint, Kind, MAX_BURST, Message, Outbox, SendError};

const ACCEPTS: Accepts = Accepts::kinds_below(Kind(u16::MAX)).with_capabilities(15);

#[derive(Clone, Copy, Debug)]
enum Step {
    Send { side: usize, kind: u16, words: usize, capabilities: u8 },
    Burst { side: usize, count: usize },
    Receive { side: usize, most: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..2usize, 0..u16::MAX, 0..=7usize, 0..=15u8)
            .prop_map(|(side, kind, words, capabilities)| Step::Send { side, kind, words, capabilities }),
        2 => (0..2usize, 0..80usize).prop_map(|(side, count)| Step::Burst { side, count }),
        4 => (0..2usize, 0..12usize).prop_map(|(side, most)| Step::Receive { side, most }),
    ];
    prop::collection::vec(step, 0..200)
}

/// What each side has sent and the other has not taken.
fn agrees<const N: usize>(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let outboxes = Box::new([Outbox::<N>::new(), Outbox::<N>::new()]);
    let mut ends = [
        Endpoint::new(&outboxes[0], &outboxes[1], ACCEPTS),
        Endpoint::new(&outboxes[1], &outboxes[0], ACCEPTS),
    ];
    let mut queues = [VecDeque::new(), VecDeque::new()];
    let mut next = 0u64;
    let mut fresh = |kind: u16, words: usize| {
        next += 1;
        Message::from_words(Kind(kind), &[next, !next, 3, 4, 5, 6, 7][..words]).unwrap()
    };
    // Fewer lines than this may be held back by acknowledgements that are not yet told.
    let interval = (N / 4).max(1);
    for step in steps {
        match step {
            Step::Send { side, kind, words, capabilities } => {
                let message = fresh(kind, words).with_capabilities(capabilities);
                let queued = queues[side].len();
                match ends[side].try_send(&message) {
                    Ok(()) => {
                        prop_assert!(queued < N, "a line that was not taken is overwritten");
                        queues[side].push_back(message);
                    }
                    Err(error) => {
                        prop_assert_eq!(error, SendError::Full);
                        prop_assert!(queued > N - interval, "full with {queued} of {N} lines in use");
                    }
                }
            }
            Step::Burst { side, count } => {
                let messages: Vec<_> = (0..count).map(|_| fresh(9, 1)).collect();
                let queued = queues[side].len();
                match ends[side].try_send_burst(&messages) {
                    Ok(sent) => {
                        prop_assert!(queued + sent <= N);
                        prop_assert!(sent <= MAX_BURST.min(N / 2));
                        let room = N.saturating_sub(queued + interval - 1);
                        prop_assert!(sent >= count.min(N / 2).min(MAX_BURST).min(room));
                        queues[side].extend(&messages[..sent]);
                    }
                    Err(error) => {
                        prop_assert_eq!(error, SendError::Full);
                        prop_assert!(queued > N - interval);
                    }
                }
            }
            Step::Receive { side, most } => {
                for _ in 0..most {
                    prop_assert_eq!(ends[side].try_recv(), Ok(queues[1 - side].pop_front()));
                }
            }
        }
    }
    for side in [0, 1] {
        while let Some(message) = queues[1 - side].pop_front() {
            prop_assert_eq!(ends[side].try_recv(), Ok(Some(message)));
        }
        prop_assert_eq!(ends[side].try_recv(), Ok(None));
    }
    Ok(())
}

proptest! {
    #[test]
    fn two_lines(steps in steps()) {
        agrees::<2>(steps)?;
    }

    #[test]
    fn eight_lines(steps in steps()) {
        agrees::<8>(steps)?;
    }

    #[test]
    fn sixty_four_lines(steps in steps()) {
        agrees::<64>(steps)?;
    }

    /// Encoding and decoding a header agree on every bit.
    #[test]
    fn headers(word in any::<u64>()) {
        prop_assert_eq!(ump::Header::decode(word).encode(), word);
    }
}
