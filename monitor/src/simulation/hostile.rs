//! Monitors that are told anything at all.

use proptest::prelude::*;
use ump::{Kind, Message};

use super::play::{Play, Rng};
use crate::Event;
use crate::wire::Intermon;

proptest! {
    /// Answers to requests that were never made, ends of connections that never were, announcements without an
    /// end, reports out of nowhere: what belongs to others goes on, and all of it comes back.
    #[test]
    fn stale_messages_change_nothing(seed in any::<u64>(), steps in 50usize..400) {
        let mut play = Play::new(4, 2, Rng::new(seed));
        for _ in 0..steps {
            play.anything();
            let from = play.rng().below(4) as u32;
            let to = (from + 1 + play.rng().below(3) as u32) % 4;
            // Numbers that no monitor comes to in this test.
            let far = (1 << 40) | (play.rng().next() % 1000);
            let small = play.rng().next() % 4;
            let message = match play.rng().below(10) {
                0 => Intermon::Accepted { to: far, from: small, wake: small },
                1 => Intermon::Refused { to: far, error: small },
                2 => Intermon::Gone { to: far, from: far, reason: small },
                3 => Intermon::Gone { to: 0, from: far, reason: small },
                4 => Intermon::ChannelDone { channel: far, end: small },
                5 => Intermon::Done { request: far, value: small },
                6 => Intermon::Failed { request: far, error: small },
                7 => Intermon::Revoked { record: far },
                8 => Intermon::Ended { request: far, cause: small, detail: small },
                _ => Intermon::Withdraw { iref: far },
            };
            let to_first_only = matches!(message, Intermon::ChannelDone { .. } | Intermon::Withdraw { .. });
            let to = if to_first_only { 0 } else { to };
            // A forged withdrawal is counted as unknown, which `end` finds suspicious.
            if from != to && !matches!(message, Intermon::Withdraw { .. }) {
                let before = play.monitor(to).ignored();
                play.forge_known(from, to, message);
                prop_assert_eq!(play.monitor(to).ignored().stale, before.stale + 1);
            }
        }
        play.end();
    }

    /// Lines that are no messages, from anybody, and reports that are none.
    #[test]
    fn malformed_lines_are_counted(
        lines in prop::collection::vec((0u16..64, prop::collection::vec(any::<u64>(), 0..8)), 1..50)
    ) {
        let mut play = Play::new(2, 1, Rng::new(1));
        for (kind, words) in lines {
            let line = Message::from_words(Kind(kind), &words).unwrap();
            if Intermon::decode(&line).is_none() {
                let before = play.monitor(1).ignored().unknown;
                play.forge(0, 1, line);
                prop_assert_eq!(play.monitor(1).ignored().unknown, before + 1);
            }
            let mut report = [0; crate::WORDS];
            for (to, from) in report.iter_mut().zip(&words) {
                *to = *from;
            }
            report[0] %= 64;
            let before = play.monitor(1).ignored().reports;
            play.step(1, Event::Report { words: report });
            prop_assert_eq!(play.monitor(1).ignored().reports, before + 1);
        }
    }
}
