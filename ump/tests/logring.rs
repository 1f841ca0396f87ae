//! The log ring against a naive model, against garbage, and between two threads.
#![cfg(not(loom))]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use ump::Line;
use ump::MemoryError;
use ump::logring::{
    AttachError, CoreId, Entry, Level, LogMemory, MAGIC, MAX_TEXT, Reader, Record, VERSION, Writer,
};

fn frame(lines: usize) -> Vec<Line> {
    (0..lines).map(|_| Line::new()).collect()
}

fn records(reader: &mut Reader<'_>) -> Vec<Record> {
    core::iter::from_fn(|| reader.read())
        .map(|entry| match entry {
            Entry::Record(record) => record,
            other => panic!("expected only records, got {other:?}"),
        })
        .collect()
}

#[test]
fn a_record_arrives_as_written() {
    let lines = frame(64);
    let memory = LogMemory::new(&lines).unwrap();
    let mut writer = Writer::new(memory, CoreId(4095));
    let mut reader = Reader::attach(memory).unwrap();
    assert_eq!(reader.read(), None);

    writer.write(Level::Warn, u64::MAX, "core 4095 is up — ok");
    writer.write(Level::Trace, 0, "");
    let got = records(&mut reader);
    assert_eq!(got.len(), 2);
    assert_eq!(
        (got[0].core, got[0].level, got[0].tsc, got[0].continues, got[0].text()),
        (CoreId(4095), Level::Warn, u64::MAX, false, "core 4095 is up — ok")
    );
    assert_eq!((got[1].level, got[1].tsc, got[1].text()), (Level::Trace, 0, ""));
}

#[test]
fn every_length_arrives_and_long_text_is_split_between_characters() {
    let lines = frame(64);
    let memory = LogMemory::new(&lines).unwrap();
    let mut writer = Writer::new(memory, CoreId(0));
    let mut reader = Reader::attach(memory).unwrap();
    for length in 0..3 * MAX_TEXT {
        let text: String = "añ€🐟".chars().cycle().take(length).collect();
        writer.write(Level::Info, length as u64, &text);
        let got = records(&mut reader);
        assert_eq!(got.iter().map(Record::text).collect::<String>(), text);
        assert!(got.iter().all(|record| record.text().len() <= MAX_TEXT && record.tsc == length as u64));
        let (last, others) = got.split_last().unwrap();
        assert!(!last.continues && others.iter().all(|record| record.continues));
        assert!(others.iter().all(|record| record.text().len() > MAX_TEXT - 4), "records are filled");
    }
}

#[test]
fn formatted_text_is_gathered_into_full_records() {
    let lines = frame(64);
    let memory = LogMemory::new(&lines).unwrap();
    let mut writer = Writer::new(memory, CoreId(1));
    let mut reader = Reader::attach(memory).unwrap();
    writer.format(Level::Error, 7, format_args!("{}/{:#x}", 12, 0xfee0_0000u32));
    writer.format(Level::Error, 8, format_args!("no arguments"));
    let long = "é".repeat(150);
    writer.format(Level::Error, 9, format_args!("{long}{long}"));
    let got = records(&mut reader);
    assert_eq!(got[0].text(), "12/0xfee00000");
    assert_eq!(got[1].text(), "no arguments");
    assert_eq!(got[2..].iter().map(|record| record.text().len()).collect::<Vec<_>>(), [240, 240, 120]);
    assert_eq!(got[2..].iter().map(|record| record.continues).collect::<Vec<_>>(), [true, true, false]);
}

#[test]
fn a_slow_reader_learns_what_it_lost_and_goes_on_at_a_whole_record() {
    let lines = frame(1 + 8);
    let memory = LogMemory::new(&lines).unwrap();
    let mut writer = Writer::new(memory, CoreId(0));
    let mut reader = Reader::attach(memory).unwrap();
    let long = "x".repeat(MAX_TEXT); // five lines
    writer.write(Level::Info, 1, &long);
    writer.write(Level::Info, 2, "short");
    writer.write(Level::Info, 3, &long); // 11 lines in all: the first three are gone
    assert_eq!(reader.read(), Some(Entry::Lost { bytes: 5 * 64 }));
    let got = records(&mut reader);
    assert_eq!(got.iter().map(|record| record.tsc).collect::<Vec<_>>(), [2, 3]);
    // A second reader that comes late is told the same.
    let mut late = Reader::attach(memory).unwrap();
    assert_eq!(late.read(), Some(Entry::Lost { bytes: 5 * 64 }));
    assert_eq!(records(&mut late).len(), 2);
}

#[test]
fn a_reformatted_log_is_noticed() {
    let lines = frame(16);
    let memory = LogMemory::new(&lines).unwrap();
    let mut writer = Writer::new(memory, CoreId(0));
    let mut reader = Reader::attach(memory).unwrap();
    writer.write(Level::Info, 1, "before");
    writer.write(Level::Info, 2, "before");
    records(&mut reader);
    let mut writer = Writer::new(memory, CoreId(3));
    writer.write(Level::Info, 3, "after");
    assert_eq!(reader.read(), Some(Entry::Restarted));
    assert_eq!(records(&mut reader)[0].text(), "after");
}

#[test]
fn what_is_no_log_is_refused() {
    let lines = frame(4);
    let memory = LogMemory::new(&lines).unwrap();
    let refusal = Reader::attach(memory).unwrap_err();
    assert_eq!(refusal, AttachError::NotALog { found: 0 });
    assert_eq!(
        refusal.to_string(),
        "the frame holds no log: it begins with 0x0000000000000000; wait for its writer to format it"
    );
    Writer::new(memory, CoreId(0));
    lines[0].words()[1].store(9, Ordering::Relaxed);
    let refusal = Reader::attach(memory).unwrap_err();
    assert_eq!(refusal, AttachError::Version { found: 9 });
    assert_eq!(
        refusal.to_string(),
        "the log has layout version 9, this reader knows 1: build both from one tree"
    );
    Writer::new(memory, CoreId(0));
    let refusal = Reader::attach(LogMemory::new(&lines[..3]).unwrap()).unwrap_err();
    assert_eq!(refusal, AttachError::Size { found: 3, mapped: 2 });
    assert_eq!(refusal.to_string(), "the log has 3 data lines but 2 are mapped: map the whole frame");
}

#[test]
fn memory_is_checked() {
    #[repr(align(4096))]
    struct Frame([u8; 4096]);
    let frame = Box::new(Frame([0; 4096]));
    let base = frame.0.as_ptr();
    let log = |offset: usize, bytes| {
        // SAFETY: the range lies in `frame`, which outlives the result, and nothing is stored through it.
        unsafe { LogMemory::from_raw(base.add(offset), bytes) }
    };
    assert_eq!(log(0, 4096).unwrap().capacity(), 63 * 64);
    assert_eq!(log(0, 191).unwrap().capacity(), 64);
    let refusal = log(8, 4088).unwrap_err();
    assert!(matches!(refusal, MemoryError::Misaligned { alignment: 64, .. }));
    assert_eq!(log(0, 127).unwrap_err(), MemoryError::TooSmall { bytes: 64, needed: 128 });
    let refusal = log(0, 63).unwrap_err();
    assert_eq!(refusal, MemoryError::TooSmall { bytes: 63, needed: 64 });
    assert_eq!(refusal.to_string(), "shared memory of 63 bytes is too small: give it at least 64");
    assert_eq!(
        MemoryError::Misaligned { address: 0x1008, alignment: 64 }.to_string(),
        "shared memory at 0x1008 must start at a multiple of 64 bytes"
    );
}

/// Bytes that are not UTF-8 become question marks; nothing else of the record changes.
#[test]
fn invalid_text_is_replaced() {
    let lines = frame(4);
    let memory = LogMemory::new(&lines).unwrap();
    let mut writer = Writer::new(memory, CoreId(0));
    let mut reader = Reader::attach(memory).unwrap();
    writer.write(Level::Info, 1, "abcdefgh");
    lines[1].words()[2].store(u64::from_le_bytes(*b"a\xffb\xe2\x82cd\xf0"), Ordering::Relaxed);
    assert_eq!(records(&mut reader)[0].text(), "a?b??cd?");
}

/// Lines whose tags do not fit together are lost, and only they.
#[test]
fn nonsense_is_lost() {
    /// A log of a record of two lines and one of one line, in which one bit of word `word` of line `line`
    /// is wrong.
    fn damaged(line: usize, word: usize, bit: u32) -> Vec<Option<Entry>> {
        let lines = frame(1 + 4);
        let memory = LogMemory::new(&lines).unwrap();
        let mut writer = Writer::new(memory, CoreId(1));
        writer.write(Level::Info, 1, &"x".repeat(60));
        writer.write(Level::Info, 2, "intact");
        let word = &lines[line].words()[word];
        word.store(word.load(Ordering::Relaxed) ^ 1 << bit, Ordering::Relaxed);
        let mut reader = Reader::attach(memory).unwrap();
        (0..4).map(|_| reader.read()).collect()
    }
    let first_lost = |entries: &[Option<Entry>]| {
        assert_eq!(entries[0], Some(Entry::Lost { bytes: 2 * 64 }));
        assert!(matches!(entries[1], Some(Entry::Record(record)) if record.text() == "intact"));
        assert_eq!(entries[2..], [None, None]);
    };
    for line in [1, 2] {
        // The number, and the index.
        for bit in [0, 31, 56, 57, 58] {
            first_lost(&damaged(line, 0, bit));
        }
    }
    // Other fields of the second line, which must be those of the first.
    for bit in [32, 47, 48, 61, 63] {
        first_lost(&damaged(2, 0, bit));
    }
    // A level that does not exist, a length beyond the limit, and one beyond what was written.
    for bit in [62, 55, 54] {
        first_lost(&damaged(1, 0, bit));
    }
    // The record of the last line reaches beyond what was written.
    let entries = damaged(3, 0, 54);
    assert!(matches!(entries[0], Some(Entry::Record(_))));
    assert_eq!(entries[1..], [Some(Entry::Lost { bytes: 64 }), None, None]);

    // A claim far ahead of what is written makes that lost, but is no restart.
    assert_eq!(damaged(0, 3, 40), [Some(Entry::Lost { bytes: 3 * 64 }), None, None, None]);
}

#[test]
fn a_tiny_ring_keeps_the_end_of_the_text() {
    for lines in 1..=6 {
        let memory_lines = frame(1 + lines);
        let memory = LogMemory::new(&memory_lines).unwrap();
        let mut writer = Writer::new(memory, CoreId(0));
        let text: String = ('a'..='z').cycle().take(1000).collect();
        for formatted in [false, true] {
            let mut reader = Reader::attach(memory).unwrap();
            if formatted {
                writer.format(Level::Info, 0, format_args!("{text}"));
            } else {
                writer.write(Level::Info, 0, &text);
            }
            assert!(matches!(reader.read(), Some(Entry::Lost { .. })));
            let got = records(&mut reader);
            let rest: String = got.iter().map(Record::text).collect();
            assert!(!rest.is_empty() && text.ends_with(&rest), "{lines} lines: {rest:?}");
            assert!(!got.last().unwrap().continues);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize),
    Read,
}

/// A log that remembers what the ring of `lines` lines must still hold.
struct Model {
    lines: u64,
    end: u64,
    kept: VecDeque<(u64, u64, String)>,
    reader: u64,
}

impl Model {
    fn write(&mut self, tsc: u64, text: &str) {
        self.kept.push_back((self.end, tsc, text.to_owned()));
        self.end += 1 + (text.len().max(48) as u64 - 48).div_ceil(56);
        while self.kept.front().is_some_and(|(start, ..)| start + self.lines < self.end) {
            self.kept.pop_front();
        }
    }

    /// What a reader that drains the log now gets: the bytes lost, then records.
    fn drain(&mut self) -> (u64, Vec<(u64, String)>) {
        let unread: Vec<_> = self.kept.drain(..).filter(|(start, ..)| *start >= self.reader).collect();
        let resume = unread.first().map_or(self.end, |(start, ..)| *start);
        let lost = (resume - self.reader) * 64;
        self.reader = self.end;
        (lost, unread.into_iter().map(|(_, tsc, text)| (tsc, text)).collect())
    }
}

proptest! {
    #[test]
    fn agrees_with_the_model(
        lines in 5usize..40,
        steps in prop::collection::vec(
            prop_oneof![4 => (0..=MAX_TEXT).prop_map(Step::Write), 1 => Just(Step::Read)], 1..100),
    ) {
        let memory_lines = frame(1 + lines);
        let memory = LogMemory::new(&memory_lines).unwrap();
        let mut writer = Writer::new(memory, CoreId(5));
        let mut reader = Reader::attach(memory).unwrap();
        let mut model = Model { lines: lines as u64, end: 0, kept: VecDeque::new(), reader: 0 };
        for (tsc, step) in steps.into_iter().chain([Step::Read]).enumerate() {
            match step {
                Step::Write(length) => {
                    let text: String = (0..length).map(|i| char::from(b'!' + ((tsc + i) % 90) as u8)).collect();
                    writer.write(Level::Info, tsc as u64, &text);
                    model.write(tsc as u64, &text);
                }
                Step::Read => {
                    let (mut lost, mut got) = (0, Vec::new());
                    while let Some(entry) = reader.read() {
                        match entry {
                            Entry::Record(record) => got.push((record.tsc, record.text().to_owned())),
                            Entry::Lost { bytes } => {
                                prop_assert!(got.is_empty(), "a loss after a record that was intact");
                                lost += bytes;
                            }
                            Entry::Restarted => prop_assert!(false, "nobody restarted the log"),
                        }
                    }
                    prop_assert_eq!((lost, got), model.drain());
                }
            }
        }
    }

    /// Whatever lies in the frame, each call returns, and text is text.
    #[test]
    fn garbage_is_survived(
        words in prop::collection::vec(any::<u64>(), 9 * 8),
        positions in prop::collection::vec((hostile(), hostile()), 1..8),
        tags in prop::collection::vec(prop::option::of((any::<u8>(), 0u8..2, 0u8..8)), 8),
    ) {
        let lines = frame(9);
        for (word, value) in lines.iter().flat_map(Line::words).zip(&words) {
            word.store(*value, Ordering::Relaxed);
        }
        for (word, value) in lines[0].words().iter().zip([MAGIC, VERSION, 8]) {
            word.store(value, Ordering::Relaxed);
        }
        // Tags that pass as such, so that the text behind them is read too.
        for (number, tag) in tags.iter().enumerate() {
            if let Some((length, index, level)) = *tag {
                let tag = number as u64 | u64::from(length) << 48 | u64::from(index) << 56 | u64::from(level) << 59;
                lines[1 + number].words()[0].store(tag, Ordering::Relaxed);
            }
        }
        let mut reader = Reader::attach(LogMemory::new(&lines).unwrap()).unwrap();
        for (claimed, written) in positions {
            lines[0].words()[3].store(claimed, Ordering::Relaxed);
            lines[0].words()[4].store(written, Ordering::Relaxed);
            for _ in 0..20 {
                match reader.read() {
                    Some(Entry::Record(record)) => prop_assert!(record.text().len() <= MAX_TEXT),
                    Some(Entry::Lost { bytes }) => prop_assert!(bytes > 0),
                    Some(Entry::Restarted) => {}
                    None => break,
                }
            }
        }
    }
}

fn hostile() -> impl Strategy<Value = u64> {
    prop_oneof![0..20u64, any::<u64>(), (0..20u64).prop_map(|below| u64::MAX - below)]
}

/// A reader beside a writer that never waits: each record is whole, in order, and every line accounted for.
#[test]
fn two_threads() {
    const RECORDS: u64 = 200_000;
    let lines = frame(1 + 64);
    let memory = LogMemory::new(&lines).unwrap();
    let mut writer = Writer::new(memory, CoreId(2));
    let mut reader = Reader::attach(memory).unwrap();
    let done = AtomicBool::new(false);
    // The text follows from the number, so that a mixture of two records shows.
    let text = |tsc: u64| format!("{tsc:07} ").repeat(1 + (tsc % 30) as usize);

    std::thread::scope(|scope| {
        scope.spawn(|| {
            for tsc in 0..RECORDS {
                writer.write(Level::Debug, tsc, &text(tsc));
                if tsc % 64 == 0 {
                    std::thread::yield_now();
                }
            }
            done.store(true, Ordering::Release);
        });
        let (mut read, mut lines_seen, mut last) = (0u64, 0u64, None);
        loop {
            let finished = done.load(Ordering::Acquire);
            match reader.read() {
                Some(Entry::Record(record)) => {
                    assert_eq!(record.text(), text(record.tsc));
                    assert!(last < Some(record.tsc), "{} after {last:?}", record.tsc);
                    last = Some(record.tsc);
                    read += 1;
                    lines_seen += 1 + (record.text().len().max(48) as u64 - 48).div_ceil(56);
                }
                Some(Entry::Lost { bytes }) => lines_seen += bytes / 64,
                Some(Entry::Restarted) => panic!("nobody restarted the log"),
                None if finished => break,
                None => std::thread::yield_now(),
            }
        }
        let all: u64 = (0..RECORDS).map(|tsc| 1 + (text(tsc).len().max(48) as u64 - 48).div_ceil(56)).sum();
        assert_eq!(lines_seen, all);
        assert_eq!(last, Some(RECORDS - 1), "the newest record is never lost");
        assert!(read > 0);
    });
}
