//! A channel between two endpoints of one program: messages, credits, acknowledgements, hanging up.
#![cfg(not(loom))]

use std::sync::atomic::Ordering;

use ump::{
    Accepts, Endpoint, Header, Kind, MAX_BURST, MAX_CAPABILITIES, MemoryError, Message, Outbox,
    PAYLOAD_BYTES, RPC_LINES, SendError, TooLong, Until, Violation,
};

const KIND: Kind = Kind(7);
const ACCEPTS: Accepts = Accepts::kinds_below(Kind(8)).with_capabilities(2);

/// The two outboxes of a channel.
struct Memory<const N: usize>([Outbox<N>; 2]);

impl<const N: usize> Memory<N> {
    fn new() -> Box<Self> {
        Box::new(Self([Outbox::new(), Outbox::new()]))
    }

    fn endpoints(&self) -> (Endpoint<'_, N>, Endpoint<'_, N>) {
        let [here, there] = &self.0;
        (Endpoint::new(here, there, ACCEPTS), Endpoint::new(there, here, ACCEPTS))
    }
}

fn number(n: u64) -> Message {
    Message::new(KIND, [n, !n, n << 32, n ^ 0x5555, n, n, n + 1])
}

#[test]
fn a_message_arrives_as_sent() {
    let memory = Memory::<RPC_LINES>::new();
    let (mut here, mut there) = memory.endpoints();
    assert_eq!(there.try_recv(), Ok(None));
    let mut buffer = [0; PAYLOAD_BYTES];
    for length in 0..=PAYLOAD_BYTES {
        let bytes: Vec<u8> = (1..=length as u8).collect();
        let sent = Message::from_bytes(Kind(length as u16 % 8), &bytes).unwrap().with_capabilities(2);
        here.try_send(&sent).unwrap();
        let got = there.try_recv().unwrap().unwrap();
        assert_eq!(got, sent);
        assert_eq!((got.kind(), got.len(), got.capabilities()), (Kind(length as u16 % 8), length, 2));
        assert_eq!(got.bytes(&mut buffer), bytes);
        assert_eq!(got.words().len(), length.div_ceil(8));
        assert_eq!(there.try_recv(), Ok(None));
    }
}

#[test]
fn waiting_ends_with_the_last_look() {
    let memory = Memory::<4>::new();
    let (mut here, mut there) = memory.endpoints();
    // The first lap, then lines that hold older messages.
    for n in 0..20 {
        for looks in [0, 1, 2, 100] {
            assert_eq!(there.recv_within(looks), Ok(None), "message {n}, {looks} looks");
        }
        here.try_send(&number(n)).unwrap();
        let looks = [0, 1, 2, 100][n as usize % 4];
        assert_eq!(there.recv_within(looks), Ok(Some(number(n))), "message {n}, {looks} looks");
    }
}

#[test]
fn waiting_ends_with_a_message() {
    let memory = Memory::<2>::new();
    let (mut here, mut there) = memory.endpoints();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for n in 0..1000 {
                while there.try_send(&number(n)).is_err() {
                    std::thread::yield_now();
                }
            }
        });
        for n in 0..1000 {
            let message = loop {
                match here.recv_within(50).unwrap() {
                    Some(message) => break message,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(message, number(n));
        }
    });
}

#[test]
fn who_may_sleep_for_it_is_told() {
    let memory = Memory::<8>::new();
    let (mut here, mut there) = memory.endpoints();
    for n in 0..40 {
        here.try_send(&number(n)).unwrap();
        let mut told = 0;
        let message = there.recv_within_then(3, |mut receiver| {
            told += 1;
            assert!(!receiver.must_notify(), "nobody sleeps");
        });
        assert_eq!(message, Ok(Some(number(n))));
        // Every quarter of a ring.
        assert_eq!(told, u32::from((n + 1) % 2 == 0), "message {n}");
    }
    assert_eq!(there.recv_within_then(3, |_| panic!("there is nothing to tell")), Ok(None));
    there.refuse(KIND);
    let mut told = false;
    there.recv_within_then(3, |_| told = true).unwrap_err();
    assert!(told, "the channel is closed");
}

#[test]
fn messages_are_built_from_words_and_bytes() {
    let words = [1, u64::MAX, 3];
    let message = Message::new(KIND, words);
    assert_eq!(message, Message::from_words(KIND, &words).unwrap());
    assert_eq!(message, Message::from_first(KIND, 3, [1, u64::MAX, 3, 4, 5, 6, 7]));
    assert_eq!(Message::from_first(KIND, 3, [9; 7]).payload(), &[9, 9, 9, 0, 0, 0, 0]);
    assert_eq!(Message::from_first(KIND, 8, [9; 7]), Message::new(KIND, [9; 7]));
    assert_eq!(message.words(), words);
    assert_eq!(message.payload(), &[1, u64::MAX, 3, 0, 0, 0, 0]);
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(message, Message::from_bytes(KIND, &bytes).unwrap());
    assert_ne!(message, Message::new(Kind(6), words));
    assert_ne!(message, message.with_capabilities(1));
    assert_eq!(message.with_capabilities(200).capabilities(), MAX_CAPABILITIES);
    assert_eq!(Message::from_words(KIND, &[0; 8]), Err(TooLong { bytes: 64 }));
    let refusal = Message::from_bytes(KIND, &[0; 57]).unwrap_err();
    assert_eq!(refusal.to_string(), "57 bytes do not fit a message of 56: send several, or pass a buffer");
}

#[test]
fn a_full_ring_returns_the_message_and_loses_nothing() {
    let memory = Memory::<8>::new();
    let (mut here, mut there) = memory.endpoints();
    for n in 0..8 {
        here.try_send(&number(n)).unwrap();
    }
    assert_eq!(here.try_send(&number(8)), Err(SendError::Full));
    // A quarter of the ring must be taken before the acknowledgement line is stored to.
    assert_eq!(there.try_recv(), Ok(Some(number(0))));
    assert_eq!(here.try_send(&number(8)), Err(SendError::Full));
    assert_eq!(there.try_recv(), Ok(Some(number(1))));
    here.try_send(&number(8)).unwrap();
    here.try_send(&number(9)).unwrap();
    assert_eq!(here.try_send(&number(10)), Err(SendError::Full));
    for n in 2..10 {
        assert_eq!(there.try_recv(), Ok(Some(number(n))));
    }
    assert_eq!(there.try_recv(), Ok(None));
}

/// The sequence numbers have 16 bits: go round them more than twice, on the smallest and a usual ring.
#[test]
fn the_sequence_wraps() {
    fn go_round<const N: usize>() {
        let memory = Memory::<N>::new();
        let (mut here, mut there) = memory.endpoints();
        for n in 0..140_000 {
            here.try_send(&number(n)).unwrap();
            assert_eq!(there.try_recv(), Ok(Some(number(n))));
            assert_eq!(there.try_recv(), Ok(None));
        }
    }
    go_round::<2>();
    go_round::<RPC_LINES>();
}

/// The same with replies, on all phases of the two counts: they share a word.
#[test]
fn the_sequences_of_calls_wrap() {
    fn go_round<const N: usize>(ahead: u64) {
        let memory = Memory::<N>::new();
        let (mut client, mut server) = memory.endpoints();
        for n in 0..ahead {
            client.try_send(&number(n)).unwrap();
            assert_eq!(server.try_recv(), Ok(Some(number(n))));
        }
        for n in 0..70_000 {
            client.try_send(&number(n)).unwrap();
            let request = server.try_recv().unwrap().unwrap();
            server.try_send(&request).unwrap();
            assert_eq!(client.try_recv(), Ok(Some(number(n))));
            assert_eq!(client.split().0.credits(), N);
        }
    }
    for ahead in [0, 1, 65_535] {
        go_round::<2>(ahead);
        go_round::<RPC_LINES>(ahead);
    }
}

/// Replies carry the acknowledgements: a client that reads its replies never has to look elsewhere.
#[test]
fn replies_acknowledge() {
    let memory = Memory::<8>::new();
    let (mut client, mut server) = memory.endpoints();
    for n in 0..100 {
        client.try_send(&number(n)).unwrap();
        let request = server.try_recv().unwrap().unwrap();
        server.try_send(&request).unwrap();
        assert_eq!(client.split().0.credits(), 7, "the request is in flight");
        assert_eq!(client.try_recv(), Ok(Some(number(n))));
        assert_eq!(client.split().0.credits(), 8);
    }
}

/// The acknowledgement line is stored to every quarter of a ring, with both counts.
#[test]
fn the_acknowledgement_line_is_lazy() {
    let memory = Memory::<RPC_LINES>::new();
    let (mut here, mut there) = memory.endpoints();
    let told = || {
        let words = memory.0[1].control()[0].words();
        [0, 1].map(|word| words[word].load(Ordering::Relaxed))
    };
    there.try_send(&number(0)).unwrap();
    for n in 0..100 {
        here.try_send(&number(n)).unwrap();
        there.try_recv().unwrap();
        let expected = (n + 1) / 16 * 16;
        assert_eq!(told(), [expected, u64::from(expected > 0)]);
    }
}

/// A client that does not read replies, or only much later, still gets its credits back, and the old
/// acknowledgements in the replies do not confuse it, even more than 2^16 messages late.
#[test]
fn acknowledgements_arrive_by_two_ways() {
    let memory = Memory::<8>::new();
    let (mut here, mut there) = memory.endpoints();
    let mut next = 0;
    for replies in [0, 8] {
        for _ in 0..replies {
            there.try_send(&number(next)).unwrap();
        }
        for _ in 0..70_000 {
            here.try_send(&number(next)).unwrap();
            assert_eq!(there.try_recv(), Ok(Some(number(next))));
            next += 1;
        }
    }
    for _ in 0..8 {
        assert!(here.try_recv().unwrap().is_some());
    }
    assert_eq!(here.try_recv(), Ok(None));
    // Now the replies are fresh again.
    for n in 0..20 {
        here.try_send(&number(n)).unwrap();
        assert_eq!(there.try_recv(), Ok(Some(number(n))));
        there.try_send(&number(n)).unwrap();
        assert_eq!(here.try_recv(), Ok(Some(number(n))));
        assert_eq!(here.split().0.credits(), 8);
    }
}

#[test]
fn a_burst_is_seen_at_once_and_cut_to_the_credits() {
    let memory = Memory::<8>::new();
    let (mut here, mut there) = memory.endpoints();
    let messages: Vec<_> = (0..10).map(number).collect();
    assert_eq!(here.try_send_burst(&[]), Ok(0));
    assert_eq!(here.try_send_burst(&messages), Ok(4), "half a ring");
    assert_eq!(Header::decode(memory.0[0].ring()[1].words()[7].load(Ordering::Relaxed)).burst, 3);
    here.try_send(&messages[4]).unwrap();
    assert_eq!(here.try_send_burst(&messages[5..]), Ok(3), "the rest of the ring");
    assert_eq!(here.try_send_burst(&messages[8..]), Err(SendError::Full));
    for message in &messages[..8] {
        assert_eq!(there.try_recv(), Ok(Some(*message)));
    }
    assert_eq!(here.try_send_burst(&messages[8..]), Ok(2));
    for message in &messages[8..] {
        assert_eq!(there.try_recv(), Ok(Some(*message)));
    }
    assert_eq!(there.try_recv(), Ok(None));

    let memory = Memory::<1024>::new();
    let (mut here, mut there) = memory.endpoints();
    let messages: Vec<_> = (0..100).map(number).collect();
    assert_eq!(here.try_send_burst(&messages), Ok(MAX_BURST));
    for message in &messages[..MAX_BURST] {
        assert_eq!(there.try_recv(), Ok(Some(*message)));
    }
}

#[test]
fn the_last_messages_are_read_before_the_end_is_seen() {
    let memory = Memory::<4>::new();
    let (mut here, mut there) = memory.endpoints();
    here.try_send(&number(1)).unwrap();
    assert!(!there.is_finished());
    assert!(!here.hang_up(), "nobody sleeps");
    assert!(!there.is_finished(), "there is still a message");
    assert_eq!(there.try_recv(), Ok(Some(number(1))));
    assert!(there.is_finished());
    for n in 0..4 {
        there.try_send(&number(n)).unwrap();
    }
    assert_eq!(there.try_send(&number(4)), Err(SendError::HungUp));
    assert_eq!(SendError::HungUp.to_string(), "the peer has hung up: bind a new channel");
}

#[test]
fn a_refused_message_closes_both_ends() {
    let memory = Memory::<4>::new();
    let (mut here, mut there) = memory.endpoints();
    here.try_send(&number(1)).unwrap();
    there.try_recv().unwrap();
    let violation = there.refuse(KIND);
    assert_eq!(violation, Violation::Refused { kind: KIND });
    assert_eq!(violation.to_string(), "channel closed: the peer sent a message of kind 7 that made no sense");
    assert_eq!(there.violation(), Some(violation));
    assert_eq!(there.try_recv(), Err(violation));
    assert_eq!(there.try_send(&number(0)), Err(SendError::Broken(violation)));
    assert_eq!(there.try_send_burst(&[number(0)]), Err(SendError::Broken(violation)));
    assert!(here.is_finished());
    drop(there);
    assert_eq!(memory.0[1].control()[0].words()[2].load(Ordering::Relaxed), 2, "still marked as broken");
}

#[test]
fn directions_work_side_by_side() {
    let memory = Memory::<4>::new();
    let (mut here, mut there) = memory.endpoints();
    let (mut sender, mut receiver) = here.split();
    for n in 0..100 {
        sender.try_send(&number(n)).unwrap();
        let message = there.try_recv().unwrap().unwrap();
        there.try_send(&message).unwrap();
        assert_eq!(receiver.try_recv(), Ok(Some(number(n))));
    }
    assert_eq!(sender.credits(), 4);
    assert!(!receiver.is_finished());
}

#[test]
fn endpoints_move_between_threads() {
    fn sendable<T: Send>(_: &T) {}
    let memory = Memory::<4>::new();
    let (here, _there) = memory.endpoints();
    sendable(&here);
}

#[test]
fn outboxes_are_found_in_raw_memory() {
    #[repr(align(4096))]
    struct Frame([u8; 4 * 4096]);
    let mut frame = Box::new(Frame([0; 4 * 4096]));
    let base = frame.0.as_mut_ptr().cast_const();
    let bytes = size_of::<Outbox<RPC_LINES>>();
    let outbox = |offset: usize, bytes| {
        // SAFETY: the range lies in `frame`, which outlives all results and is accessed only through them.
        unsafe { Outbox::<RPC_LINES>::from_raw(base.add(offset), bytes) }
    };
    let (own, peer) = (outbox(0, bytes).unwrap(), outbox(2 * 4096, 2 * 4096).unwrap());
    let mut here = Endpoint::new(own, peer, ACCEPTS);
    let mut there = Endpoint::new(peer, own, ACCEPTS);
    here.try_send(&number(3)).unwrap();
    assert_eq!(there.try_recv(), Ok(Some(number(3))));
    assert_eq!(outbox(0, bytes - 1).unwrap_err(), MemoryError::TooSmall { bytes: bytes - 1, needed: bytes });
    assert!(matches!(outbox(64, bytes), Err(MemoryError::Misaligned { alignment: 128, .. })));
}

#[test]
fn sleepers_are_notified_once() {
    let memory = Memory::<2>::new();
    let (mut here, mut there) = memory.endpoints();
    assert!(!here.must_notify(), "the peer is awake");

    let asleep = there.prepare_sleep(Until::Message).unwrap();
    here.try_send(&number(1)).unwrap();
    assert!(here.must_notify());
    here.try_send(&number(2)).unwrap();
    assert!(!here.must_notify(), "one notification per sleep");
    drop(asleep);
    assert!(there.prepare_sleep(Until::Message).is_none(), "there are messages");
    assert!(there.prepare_sleep(Until::Either).is_none());
    assert!(!here.must_notify(), "it did not fall asleep");

    // Now for credits.
    assert!(there.prepare_sleep(Until::Credit).is_none(), "there is room");
    let asleep = here.prepare_sleep(Until::Credit).unwrap();
    there.try_recv().unwrap();
    assert!(there.must_notify());
    drop(asleep);
    assert!(here.prepare_sleep(Until::Credit).is_none());
    assert!(here.prepare_sleep(Until::Either).is_none());

    // A sleeper is told of the end, whatever it waits for.
    there.try_recv().unwrap();
    let _asleep = there.prepare_sleep(Until::Message).unwrap();
    assert!(here.hang_up());
}

#[test]
fn nobody_sleeps_on_a_closed_channel() {
    let memory = Memory::<2>::new();
    let (mut here, mut there) = memory.endpoints();
    for n in 0..2 {
        here.try_send(&number(n)).unwrap();
        there.try_recv().unwrap();
    }
    there.refuse(KIND);
    for until in [Until::Message, Until::Credit, Until::Either] {
        assert!(here.prepare_sleep(until).is_none());
        assert!(there.prepare_sleep(until).is_none());
    }
}
