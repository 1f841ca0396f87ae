//! The writer's side of an endpoint's buffer against a naive model: a queue of numbered messages and the slots they
//! lie in. The receiver consumes honestly, or claims whatever it likes.

use std::collections::VecDeque;

use lmp::buffer::Ring;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Write,
    /// The receiver takes the oldest message.
    Take,
    /// The receiver claims to have consumed so many more than were written (or, if negative, fewer).
    Claim(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let claim = prop_oneof![-20..20i64, Just(i64::MIN), Just(i64::MAX), any::<i64>()];
    let step = prop_oneof![4 => Just(Step::Write), 3 => Just(Step::Take), 1 => claim.prop_map(Step::Claim)];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Nothing is lost, doubled or overwritten, and the buffer holds exactly as many as fit, for an honest receiver.
    #[test]
    fn messages_arrive_once_and_in_order(len in 1..9u32, steps in steps()) {
        let mut ring = Ring::new(len);
        let mut slots = vec![None; len as usize];
        let (mut sent, mut consumed) = (0u64, 0u64);
        let mut model = VecDeque::new();
        for step in steps {
            match step {
                Step::Write => {
                    let vacancy = ring.vacancy(consumed);
                    prop_assert_eq!(vacancy.is_some(), model.len() < len as usize);
                    if let Some(slot) = vacancy {
                        prop_assert_eq!(slots[slot as usize].replace(sent), None, "a message was overwritten");
                        ring.advance();
                        model.push_back(sent);
                        sent += 1;
                        prop_assert_eq!(ring.written(), sent);
                    }
                }
                Step::Take | Step::Claim(_) => {
                    if let Some(expected) = model.pop_front() {
                        let slot = (consumed % u64::from(len)) as usize;
                        prop_assert_eq!(slots[slot].take(), Some(expected));
                        consumed += 1;
                    }
                }
            }
        }
    }

    /// Whatever the receiver claims, a message goes into the buffer or nowhere, in turn, and only if the claim is
    /// possible.
    #[test]
    fn a_wild_count_is_a_full_buffer(len in 1..9u32, steps in steps()) {
        let mut ring = Ring::new(len);
        let mut consumed = 0u64;
        for step in steps {
            match step {
                Step::Take => consumed = consumed.wrapping_add(1),
                Step::Claim(more) => consumed = ring.written().wrapping_add_signed(more),
                Step::Write => {
                    let unread = i128::from(ring.written()) - i128::from(consumed);
                    let possible = (0..i128::from(len)).contains(&unread);
                    let expected = possible.then_some((ring.written() % u64::from(len)) as u32);
                    prop_assert_eq!(ring.vacancy(consumed), expected);
                    if possible {
                        ring.advance();
                    }
                }
            }
        }
    }
}
