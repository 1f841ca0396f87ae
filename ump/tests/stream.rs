//! Byte streams over a channel.
#![cfg(not(loom))]

use std::fmt::Write;
use std::thread::yield_now;

use proptest::prelude::*;
use ump::stream::{ACCEPTS, ByteStream, DATA, END, StreamError};
use ump::{Endpoint, Kind, Message, Outbox, Violation};

const LINES: usize = 4;

struct Memory([Outbox<LINES>; 2]);

impl Memory {
    fn new() -> Self {
        Self([Outbox::new(), Outbox::new()])
    }

    fn endpoints(&self) -> (Endpoint<'_, LINES>, Endpoint<'_, LINES>) {
        let [here, there] = &self.0;
        (Endpoint::new(here, there, ACCEPTS), Endpoint::new(there, here, ACCEPTS))
    }

    fn streams(&self) -> (ByteStream<'_, LINES>, ByteStream<'_, LINES>) {
        let (here, there) = self.endpoints();
        (ByteStream::new(here), ByteStream::new(there))
    }
}

fn read_all(stream: &mut ByteStream<'_, LINES>) -> Vec<u8> {
    let mut out = vec![0; 4096];
    let count = stream.read(&mut out).unwrap();
    out.truncate(count);
    out
}

#[test]
fn small_writes_are_packed() {
    let memory = Memory::new();
    let (mut here, mut there) = memory.streams();
    for word in ["killifish ", "boots ", "on ", "8 ", "cores\n"] {
        assert_eq!(here.write(word.as_bytes()), Ok(word.len()));
    }
    assert_eq!(there.read(&mut [0; 8]), Err(StreamError::WouldBlock), "not flushed yet");
    here.flush().unwrap();
    assert_eq!(read_all(&mut there), b"killifish boots on 8 cores\n");
    let [first, second, ..] = memory.0[0].ring();
    let header =
        |line: &ump::Line| ump::Header::decode(line.words()[7].load(std::sync::atomic::Ordering::Relaxed));
    assert_eq!((header(second).seq, header(second).length, header(first).seq), (1, 27, 0), "one message");

    here.write(b"short").unwrap();
    here.flush().unwrap();
    let words = memory.0[0].ring()[2].words();
    let rest: Vec<_> =
        words[1..7].iter().map(|word| word.load(std::sync::atomic::Ordering::Relaxed)).collect();
    assert_eq!(rest, [0; 6], "no remains of the longer message");
}

#[test]
fn a_full_ring_pushes_back_and_nothing_is_lost() {
    let memory = Memory::new();
    let (mut here, mut there) = memory.streams();
    let text: Vec<u8> = (0..=255).cycle().take(2000).collect();
    // Four messages in the ring and one in the buffer.
    assert_eq!(here.write(&text), Ok(5 * 56));
    assert_eq!(here.write(&text[280..]), Err(StreamError::WouldBlock));
    assert_eq!(here.flush(), Err(StreamError::WouldBlock));
    assert_eq!(here.finish(), Err(StreamError::WouldBlock));
    assert_eq!(read_all(&mut there), text[..224]);
    assert_eq!(here.write(&text[280..]), Ok(3 * 56 + 56));
    assert_eq!(read_all(&mut there), text[224..448]);
}

#[test]
fn the_end_differs_from_a_peer_that_vanished() {
    let memory = Memory::new();
    let (mut here, mut there) = memory.streams();
    here.write(b"bye").unwrap();
    here.finish().unwrap();
    here.finish().unwrap();
    assert_eq!(here.write(b"more"), Err(StreamError::Finished));
    assert!(!there.is_at_end());
    assert_eq!(read_all(&mut there), b"bye");
    assert!(there.is_at_end());
    assert_eq!(there.read(&mut [0; 8]), Ok(0));
    // The other direction is still open.
    there.write(b"ack").unwrap();
    there.flush().unwrap();
    assert_eq!(read_all(&mut here), b"ack");
    drop(there);
    assert_eq!(here.read(&mut [0; 8]), Err(StreamError::HungUp));
    assert_eq!(StreamError::HungUp.to_string(), "the peer hung up in the middle of the stream");
}

#[test]
fn senseless_messages_close_the_stream() {
    let cases = [(Message::new(DATA, []), DATA), (Message::new(END, [1]), END)].map(|(message, kind)| {
        let memory = Memory::new();
        let (mut here, there) = memory.endpoints();
        let mut there = ByteStream::new(there);
        here.try_send(&message).unwrap();
        (there.read(&mut [0; 8]), StreamError::Broken(Violation::Refused { kind }))
    });
    for (got, expected) in cases {
        assert_eq!(got, Err(expected));
    }
    let memory = Memory::new();
    let (mut here, there) = memory.endpoints();
    let mut there = ByteStream::new(there);
    here.try_send(&Message::new(Kind(2), [])).unwrap();
    let limit = Kind(2);
    let violation = Violation::Kind { kind: Kind(2), limit };
    assert_eq!(there.read(&mut [0; 8]), Err(StreamError::Broken(violation)));
    assert_eq!(there.write(&[0; 57]), Ok(56), "the first message is only buffered");
    assert_eq!(there.flush(), Err(StreamError::Broken(violation)));
    assert_eq!(
        StreamError::Broken(violation).to_string(),
        "channel closed: the peer sent a message of kind 2 where kinds below 2 are known"
    );
}

#[test]
fn text_waits_for_a_slow_reader() {
    let memory = Memory::new();
    let (mut here, mut there) = memory.streams();
    let expected: String = (0..2000).map(|n| format!("line {n}: {:#x}\n", n * 7)).collect();
    let got = std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..1000 {
                writeln!(here.text(yield_now), "line {n}: {:#x}", n * 7).unwrap();
            }
            let rest: String = (1000..2000).map(|n| format!("line {n}: {:#x}\n", n * 7)).collect();
            here.write_all(rest.as_bytes(), yield_now).unwrap();
            while here.finish() == Err(StreamError::WouldBlock) {
                yield_now();
            }
        });
        let (mut got, mut buffer) = (Vec::new(), [0; 100]);
        loop {
            match there.read(&mut buffer) {
                Ok(0) => break got,
                Ok(count) => got.extend_from_slice(&buffer[..count]),
                Err(StreamError::WouldBlock) => yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    });
    assert_eq!(String::from_utf8(got).unwrap(), expected);
}

proptest! {
    /// Whatever the sizes of writes and reads, the same bytes come out.
    #[test]
    fn bytes_arrive_in_order(
        steps in prop::collection::vec((0usize..200, any::<bool>(), 0usize..300), 1..60),
    ) {
        let memory = Memory::new();
        let (mut here, mut there) = memory.streams();
        let mut source = (0u32..).map(|n| (n % 251) as u8);
        let (mut written, mut read) = (Vec::new(), Vec::new());
        let mut waiting: Vec<u8> = Vec::new();
        for (size, flush, room) in steps {
            waiting.extend(source.by_ref().take(size));
            match here.write(&waiting) {
                Ok(accepted) => written.extend(waiting.drain(..accepted)),
                Err(error) => prop_assert_eq!(error, StreamError::WouldBlock),
            }
            if flush && let Err(error) = here.flush() {
                prop_assert_eq!(error, StreamError::WouldBlock);
            }
            let mut buffer = vec![0; room];
            match there.read(&mut buffer) {
                Ok(count) => read.extend_from_slice(&buffer[..count]),
                Err(error) => prop_assert_eq!(error, StreamError::WouldBlock),
            }
            prop_assert_eq!(&read[..], &written[..read.len()]);
        }
        let mut ended = here.finish();
        let mut buffer = [0; 64];
        while !there.is_at_end() {
            match there.read(&mut buffer) {
                Ok(count) => read.extend_from_slice(&buffer[..count]),
                Err(error) => prop_assert_eq!(error, StreamError::WouldBlock),
            }
            ended = here.finish();
        }
        prop_assert_eq!(ended, Ok(()));
        prop_assert_eq!(read, written);
    }
}
