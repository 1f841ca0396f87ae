//! Peers that do not keep to the protocol: each violation is told apart and closes that channel, and only
//! that channel; nothing panics.
#![cfg(not(loom))]

use std::sync::atomic::{AtomicBool, Ordering};

use ump::{Accepts, Endpoint, Header, Kind, Message, Outbox, SendError, Violation};

const LINES: usize = 8;
const KIND: Kind = Kind(2);
const ACCEPTS: Accepts = Accepts::kinds_below(Kind(3)).with_capabilities(1);

/// The outbox of a peer that stores what it likes, and a good endpoint on the other side.
struct Stage {
    good: Outbox<LINES>,
    evil: Outbox<LINES>,
}

impl Stage {
    fn new() -> Self {
        Self { good: Outbox::new(), evil: Outbox::new() }
    }

    fn endpoint(&self) -> Endpoint<'_, LINES> {
        Endpoint::new(&self.good, &self.evil, ACCEPTS)
    }

    /// Stores a header where message `number` belongs.
    fn header(&self, number: u16, header: Header) {
        self.word(number, header.encode());
    }

    fn word(&self, number: u16, header: u64) {
        self.evil.ring()[usize::from(number) % LINES].words()[7].store(header, Ordering::Relaxed);
    }

    /// Stores to the acknowledgement line.
    fn acknowledge(&self, taken: u64, sent: u64) {
        let words = self.evil.control()[0].words();
        words[0].store(taken, Ordering::Relaxed);
        words[1].store(sent, Ordering::Relaxed);
    }
}

fn good(seq: u16) -> Header {
    Header { seq, kind: KIND, ..Header::default() }
}

/// The endpoint takes `taken` good messages, then must refuse `header` as `expected` says, for good: by one look and
/// by waiting.
fn refused(taken: u16, header: Header, expected: Violation, text: &str) {
    for looks in [1, 3] {
        let stage = Stage::new();
        let mut endpoint = stage.endpoint();
        for seq in 1..=taken {
            stage.header(seq, good(seq));
            assert_eq!(endpoint.try_recv().unwrap().unwrap().kind(), KIND);
        }
        assert_eq!(endpoint.try_recv(), Ok(None));
        stage.header(taken.wrapping_add(1), header);
        assert_eq!(endpoint.recv_within(looks), Err(expected));
        assert_eq!(expected.to_string(), format!("channel closed: the peer {text}"));
        // A good line does not repair it.
        stage.header(taken.wrapping_add(1), good(taken.wrapping_add(1)));
        assert_eq!(endpoint.try_recv(), Err(expected));
        assert_eq!(endpoint.violation(), Some(expected));
        assert_eq!(endpoint.try_send(&Message::new(KIND, [])), Err(SendError::Broken(expected)));
        assert_eq!(stage.good.control()[0].words()[2].load(Ordering::Relaxed), 2, "the peer is told");
    }
}

#[test]
fn skipped_and_repeated_messages() {
    let skipped = |expected, found| Violation::Skipped { expected, found };
    let replayed = |expected, found| Violation::Replayed { expected, found };
    refused(0, good(2), skipped(1, 2), "skipped from message 1 to 2");
    refused(0, good(1 + LINES as u16), skipped(1, 9), "skipped from message 1 to 9");
    refused(0, good(0), replayed(1, 0), "repeated message 0 in place of 1");
    refused(3, good(3), replayed(4, 3), "repeated message 3 in place of 4");
    refused(20, good(20 + 1 - 16), replayed(21, 5), "repeated message 5 in place of 21");
    refused(20, good(20 + 1 + 8), skipped(21, 29), "skipped from message 21 to 29");
    // In the first lap a line is either untouched or the expected message.
    refused(7, good(0), replayed(8, 0), "repeated message 0 in place of 8");
    refused(0, good(1u16.wrapping_sub(8)), replayed(1, 65529), "repeated message 65529 in place of 1");
}

#[test]
fn messages_that_the_channel_does_not_carry() {
    let kind = Kind(3);
    refused(
        1,
        Header { kind, ..good(2) },
        Violation::Kind { kind, limit: kind },
        "sent a message of kind 3 where kinds below 3 are known",
    );
    refused(
        1,
        Header { length: 57, ..good(2) },
        Violation::Length { bytes: 57 },
        "sent a message of 57 bytes where 56 fit",
    );
    refused(
        1,
        Header { capabilities: 2, ..good(2) },
        Violation::Capabilities { count: 2, limit: 1 },
        "announced 2 capabilities where 1 are taken",
    );
}

#[test]
fn acknowledgements_in_headers() {
    refused(
        1,
        Header { ack: 1, ..good(2) },
        Violation::AcknowledgedAhead { sent: 0, acknowledged: 1 },
        "acknowledged message 1 when 0 was the last sent",
    );
    // Where the count of taken messages wraps around, it is not taken for one more message sent.
    refused(
        u16::MAX,
        Header { ack: 1, ..good(0) },
        Violation::AcknowledgedAhead { sent: 0, acknowledged: 1 },
        "acknowledged message 1 when 0 was the last sent",
    );
    let stage = Stage::new();
    let mut endpoint = stage.endpoint();
    for _ in 0..4 {
        endpoint.try_send(&Message::new(KIND, [])).unwrap();
    }
    stage.header(1, Header { ack: 3, ..good(1) });
    endpoint.try_recv().unwrap().unwrap();
    assert_eq!(endpoint.split().0.credits(), LINES - 1);
    stage.header(2, Header { ack: 2, ..good(2) });
    let violation = Violation::AcknowledgedBackwards { before: 3, acknowledged: 2 };
    assert_eq!(endpoint.try_recv(), Err(violation));
    assert_eq!(violation.to_string(), "channel closed: the peer acknowledged message 2 after 3");
    assert_eq!(endpoint.split().0.credits(), 0);
}

#[test]
fn acknowledgement_lines() {
    /// The endpoint fills its ring, sees the first line, fills up again, and must refuse the second.
    fn refused(first: (u64, u64), second: (u64, u64), expected: Violation) {
        let stage = Stage::new();
        let mut endpoint = stage.endpoint();
        let message = Message::new(KIND, []);
        let mut fill = || {
            loop {
                if let Err(error) = endpoint.try_send(&message) {
                    break error;
                }
            }
        };
        assert_eq!(fill(), SendError::Full);
        stage.acknowledge(first.0, first.1);
        assert_eq!(fill(), SendError::Full);
        stage.acknowledge(second.0, second.1);
        assert_eq!(fill(), SendError::Broken(expected));
        assert_eq!(endpoint.try_recv(), Err(expected));
    }
    let lines = LINES as u64;
    refused((3, 0), (2, 0), Violation::AcknowledgedBackwards { before: 3, acknowledged: 2 });
    refused((8, 0), (17, 0), Violation::AcknowledgedAhead { sent: 16, acknowledged: 17 });
    refused((1, 0), (u64::MAX, 0), Violation::AcknowledgedAhead { sent: 9, acknowledged: 65535 });
    refused((1, 5), (2, 4), Violation::Position { taken: 0, claimed: 4 });
    refused((1, lines), (2, lines + 1), Violation::Position { taken: 0, claimed: lines + 1 });
    assert_eq!(
        Violation::Position { taken: 0, claimed: 9 }.to_string(),
        "channel closed: the peer claims to have sent 9 messages, of which 0 were taken"
    );
}

#[test]
fn bursts() {
    refused(
        1,
        Header { burst: LINES as u8, ..good(2) },
        Violation::BurstTooLong { lines: LINES as u8 },
        "announced 8 further lines, more than the ring has",
    );
    let stage = Stage::new();
    let mut endpoint = stage.endpoint();
    stage.header(1, Header { burst: 3, ..good(1) });
    stage.header(2, good(2));
    assert!(endpoint.try_recv().unwrap().is_some());
    assert!(endpoint.try_recv().unwrap().is_some());
    assert_eq!(endpoint.try_recv(), Err(Violation::BurstCut { missing: 2 }));
    assert_eq!(
        Violation::BurstCut { missing: 2 }.to_string(),
        "channel closed: the peer left out the last 2 lines of a burst"
    );

    // The last line of a burst must be there like the others, and begins no other one either.
    let begin = || {
        let stage = Stage::new();
        stage.header(1, Header { burst: 1, ..good(1) });
        stage
    };
    let stage = begin();
    let mut endpoint = stage.endpoint();
    assert!(endpoint.try_recv().unwrap().is_some());
    assert_eq!(endpoint.recv_within(3), Err(Violation::BurstCut { missing: 1 }));

    let stage = begin();
    let mut endpoint = stage.endpoint();
    stage.header(2, Header { burst: 1, ..good(2) });
    assert!(endpoint.try_recv().unwrap().is_some());
    assert_eq!(endpoint.try_recv(), Err(Violation::BurstNested { lines: 1 }));
    assert_eq!(
        Violation::BurstNested { lines: 1 }.to_string(),
        "channel closed: the peer announced 1 further lines in the middle of a burst"
    );
}

/// Xorshift, enough to make a mess that can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A million lines, most of them nearly right, on channels that are rebound as they close, beside a
/// channel that must not notice.
#[test]
fn random_lines_close_only_their_channel() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let bystanders = Stage::new();
    let mut left = bystanders.endpoint();
    let mut right = Endpoint::new(&bystanders.evil, &bystanders.good, ACCEPTS);

    let (mut stored, mut taken_in_all, mut closed) = (0u64, 0u64, [0u64; 12]);
    while stored < 1_000_000 {
        let stage = Stage::new();
        let mut endpoint = stage.endpoint();
        let (mut sent, mut acked, mut taken) = (0u64, 0u64, 0u64);
        let violation = loop {
            let seq = (taken + 1) as u16;
            // Seldom enough that credits run out and the acknowledgement line is looked at.
            if random.one_in(10) {
                acked = sent;
            }
            let word = if random.one_in(20) {
                random.next()
            } else {
                let mut header = Header { ack: acked as u16, ..good(seq) };
                // Fields that are right most of the time.
                match random.below(40) {
                    0 => header.seq = random.next() as u16,
                    1 => header.ack = random.next() as u16,
                    2 => header.ack = header.ack.wrapping_add(random.below(5) as u16).wrapping_sub(2),
                    3 => header.kind = Kind(random.below(5) as u16),
                    4 => header.length = random.below(64) as u8,
                    5 => header.capabilities = random.below(4) as u8,
                    6 => header.burst = random.below(12) as u8,
                    _ => {}
                }
                header.encode()
            };
            let line = stage.evil.ring()[usize::from(seq) % LINES].words();
            line[random.below(7) as usize].store(random.next(), Ordering::Relaxed);
            // A line that is left out matters only within a burst.
            if !random.one_in(20) {
                line[7].store(word, Ordering::Relaxed);
            }
            if random.one_in(10) {
                let mess = [acked, acked, acked, random.next(), sent + 1, acked.saturating_sub(1)];
                let position = (taken + random.below(10)).saturating_sub(1);
                stage.acknowledge(mess[random.below(6) as usize], position);
            }
            stored += 1;

            let mut broken = None;
            for _ in 0..random.below(4) {
                match endpoint.try_send(&Message::new(KIND, [sent])) {
                    Ok(()) => sent += 1,
                    Err(SendError::Broken(violation)) => broken = Some(violation),
                    Err(SendError::Full | SendError::HungUp) => {}
                }
            }
            match endpoint.try_recv() {
                Ok(Some(message)) => {
                    assert!(message.kind() < Kind(3) && message.len() <= 56 && message.capabilities() <= 1);
                    assert!(broken.is_none());
                    taken += 1;
                }
                Ok(None) => {}
                Err(violation) => {
                    assert!(broken.is_none_or(|broken| broken == violation));
                    break violation;
                }
            }
        };
        closed[match violation {
            Violation::Skipped { .. } => 0,
            Violation::Replayed { .. } => 1,
            Violation::AcknowledgedAhead { .. } => 2,
            Violation::AcknowledgedBackwards { .. } => 3,
            Violation::Position { .. } => 4,
            Violation::Kind { .. } => 5,
            Violation::Length { .. } => 6,
            Violation::Capabilities { .. } => 7,
            Violation::BurstTooLong { .. } => 8,
            Violation::BurstNested { .. } => 9,
            Violation::BurstCut { .. } => 10,
            Violation::Refused { .. } => 11,
        }] += 1;
        taken_in_all += taken;
        assert_eq!(endpoint.try_recv(), Err(violation));
        assert_eq!(endpoint.try_send(&Message::new(KIND, [])), Err(SendError::Broken(violation)));

        left.try_send(&Message::new(KIND, [stored])).unwrap();
        assert_eq!(right.try_recv(), Ok(Some(Message::new(KIND, [stored]))));
    }
    assert!(taken_in_all > 200_000, "most lines are good: {taken_in_all}");
    let [rest @ .., refused] = closed;
    assert!(rest.iter().all(|count| *count > 0), "every violation was met: {closed:?}");
    assert_eq!(refused, 0, "that one is the user's");
}

/// A peer that keeps rewriting its outbox while it is read: whatever comes out is a checked message or a
/// violation.
#[test]
fn lines_that_change_while_they_are_read() {
    let done = AtomicBool::new(false);
    let (good_box, evil_box) = (Outbox::<LINES>::new(), Outbox::<LINES>::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random(88_172_645_463_325_252);
            while !done.load(Ordering::Relaxed) {
                for line in evil_box.ring() {
                    let seq = random.below(64) as u16;
                    let ack = random.below(3) as u16;
                    let length = random.below(60) as u8;
                    line.words()[random.below(7) as usize].store(random.next(), Ordering::Relaxed);
                    line.words()[7].store(Header { ack, length, ..good(seq) }.encode(), Ordering::Relaxed);
                }
                evil_box.control()[0].words()[0].store(random.below(12), Ordering::Relaxed);
                std::thread::yield_now();
            }
        });
        let mut closed = 0;
        for _ in 0..20_000 {
            let mut endpoint = Endpoint::new(&good_box, &evil_box, ACCEPTS);
            for _ in 0..20 {
                let sent = endpoint.try_send(&Message::new(KIND, [1]));
                match endpoint.try_recv() {
                    Ok(Some(message)) => assert!(message.len() <= 56 && message.words().len() <= 7),
                    Ok(None) => {}
                    Err(violation) => {
                        assert_eq!(endpoint.violation(), Some(violation));
                        closed += 1;
                        break;
                    }
                }
                assert!(!matches!(sent, Err(SendError::Broken(_))), "the receiver would have told");
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(closed > 0);
    });
}
