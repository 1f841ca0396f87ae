//! The ring of notifications against a naive model, against garbage, and between two threads.
#![cfg(not(loom))]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;
use ump::MemoryError;
use ump::notify::{Cause, News, PageRing, Polled, Position, Reader, Rest, Ring, Writer};

/// Entries of the reader's table.
const ENTRIES: u16 = 256;

fn poll<const N: usize>(reader: &mut Reader<'_, N>, limit: u32) -> (Vec<News>, Rest) {
    let mut found = Vec::new();
    let Polled { news, rest } = reader.poll(limit, ENTRIES, |news| found.push(news));
    assert_eq!(news as usize, found.len());
    assert!(news <= limit);
    (found, rest)
}

/// Polls until there is no rest.
fn drain<const N: usize>(reader: &mut Reader<'_, N>) -> Vec<News> {
    let mut all = Vec::new();
    loop {
        let (found, rest) = poll(reader, 3);
        all.extend(found);
        if rest == Rest::Nothing {
            return all;
        }
    }
}

#[test]
fn a_ring_without_notifications_has_no_news() {
    let ring = PageRing::new();
    let mut reader = Reader::new(&ring);
    assert_eq!(poll(&mut reader, 64), (vec![], Rest::Nothing));
    assert_eq!(reader.position(), Position::default());
}

#[test]
fn notifications_arrive_in_order_lap_after_lap() {
    let ring = Ring::<1>::new();
    let (mut writer, mut reader) = (Writer::new(&ring), Reader::new(&ring));
    for round in 0..100u16 {
        for i in 0..8 {
            writer.notify((round + i) % ENTRIES);
        }
        let expected: Vec<News> = (0..8).map(|i| News::Entry((round + i) % ENTRIES)).collect();
        assert_eq!(drain(&mut reader), expected);
    }
    assert_eq!(writer.position(), reader.position());
}

#[test]
fn a_poll_keeps_to_its_limit_and_tells_that_there_may_be_more() {
    let ring = PageRing::new();
    let (mut writer, mut reader) = (Writer::new(&ring), Reader::new(&ring));
    for index in 0..5 {
        writer.notify(index);
    }
    assert_eq!(poll(&mut reader, 0), (vec![], Rest::Perhaps));
    assert_eq!(poll(&mut reader, 2), (vec![News::Entry(0), News::Entry(1)], Rest::Perhaps));
    assert_eq!(poll(&mut reader, 9).0.len(), 3);
    assert_eq!(poll(&mut reader, 9), (vec![], Rest::Nothing));
}

#[test]
fn an_overrun_means_everything_once_and_loses_nothing_after_it() {
    let ring = Ring::<1>::new();
    let (mut writer, mut reader) = (Writer::new(&ring), Reader::new(&ring));
    for index in 0..9 {
        writer.notify(index);
    }
    // The first word was overwritten by number 9; all the others are older than that.
    assert_eq!(drain(&mut reader), [News::Everything(Cause::Overrun)]);
    writer.notify(77);
    assert_eq!(drain(&mut reader), [News::Entry(77)]);
    for index in 0..1000 {
        writer.notify(index % ENTRIES);
    }
    let news = drain(&mut reader);
    assert_eq!(news[0], News::Everything(Cause::Overrun));
    assert_eq!(reader.position(), writer.position());
}

#[test]
fn both_ends_go_on_from_their_positions() {
    let ring = PageRing::new();
    let (mut writer, mut reader) = (Writer::new(&ring).position(), Position::default());
    for index in 0..2000 {
        let mut w = Writer::resume(&ring, writer);
        w.notify(index % ENTRIES);
        writer = w.position();
        let mut r = Reader::resume(&ring, reader);
        assert_eq!(drain(&mut r), [News::Entry(index % ENTRIES)]);
        reader = r.position();
    }
}

#[test]
fn a_reader_that_comes_late_signals_everything() {
    let ring = Ring::<1>::new();
    let mut writer = Writer::new(&ring);
    for index in 0..20 {
        writer.notify(index);
    }
    let mut reader = Reader::new(&ring);
    assert!(drain(&mut reader).contains(&News::Everything(Cause::Overrun)));
    assert_eq!(reader.position(), writer.position());
}

/// A writer that began anew under a reader that did not: each look at the ring counts for everything.
#[test]
fn a_writer_that_begins_anew_is_noticed_at_every_look() {
    let ring = Ring::<1>::new();
    let (mut writer, mut reader) = (Writer::new(&ring), Reader::new(&ring));
    for index in 0..20 {
        writer.notify(index);
        drain(&mut reader);
    }
    let mut writer = Writer::new(&ring);
    for index in 0..4 {
        writer.notify(index);
        assert_eq!(drain(&mut reader), [News::Everything(Cause::OutOfStep)]);
    }
}

#[test]
fn an_entry_past_the_end_of_the_table_means_everything() {
    let ring = Ring::<1>::new();
    let (mut writer, mut reader) = (Writer::new(&ring), Reader::new(&ring));
    for index in [ENTRIES - 1, ENTRIES, u16::MAX, 3] {
        writer.notify(index);
    }
    let everything = News::Everything(Cause::NoSuchEntry);
    assert_eq!(drain(&mut reader), [News::Entry(ENTRIES - 1), everything, everything, News::Entry(3)]);
}

#[test]
fn each_cause_says_what_happened() {
    let texts = [Cause::Overrun, Cause::NoSuchEntry, Cause::OutOfStep].map(|cause| cause.to_string());
    assert_eq!(
        texts,
        [
            "the reader was overrun",
            "a notification is for an entry past the end of the table",
            "the ring does not hold what it should: make a new link",
        ]
    );
}

#[test]
fn memory_that_is_askew_or_too_small_is_refused() {
    let ring = PageRing::new();
    let base = (&raw const ring).cast::<u8>();
    // SAFETY: the ring is all there, and accessed by atomic operations only.
    let from = |offset: usize, bytes| unsafe { PageRing::from_raw(base.wrapping_add(offset), bytes) };
    assert!(from(0, 4096).is_ok());
    assert_eq!(from(0, 4095).unwrap_err(), MemoryError::TooSmall { bytes: 4095, needed: 4096 });
    assert!(matches!(from(8, 4096).unwrap_err(), MemoryError::Misaligned { alignment: 64, .. }));
}

/// What happens next to a ring.
#[derive(Clone, Copy, Debug)]
enum Step {
    Notify(u16),
    Poll(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..ENTRIES).prop_map(Step::Notify),
        1 => (0u32..12).prop_map(Step::Poll),
    ];
    prop::collection::vec(step, 0..200)
}

/// A word that is nearly right: the index and a number close to the laps around `near`.
fn forged(near: u64) -> impl Strategy<Value = u64> {
    let number = prop_oneof![
        (0u64..64).prop_map(move |n| near.wrapping_add(n).wrapping_sub(32)),
        (0u64..9).prop_map(move |laps| near.wrapping_add(laps << 44)),
        any::<u64>(),
        Just(0),
    ];
    (number, any::<u16>()).prop_map(|(number, index)| number << 16 | u64::from(index % 300))
}

proptest! {
    /// Whatever was notified has been signalled after a drain: by its entry or as a part of everything. And
    /// without an overrun each arrives once.
    #[test]
    fn nothing_is_lost(steps in steps()) {
        let ring = Ring::<2>::new();
        let (mut writer, mut reader) = (Writer::new(&ring), Reader::new(&ring));
        let mut pending: Vec<u16> = Vec::new();
        let apply = |pending: &mut Vec<u16>, found: &[News]| {
            for news in found {
                match news {
                    News::Entry(index) => {
                        let at = pending.iter().position(|p| p == index);
                        pending.remove(at.expect("an entry that was not notified"));
                    }
                    // What is still in the ring is found again: superfluous, but not lost.
                    News::Everything(Cause::Overrun) => pending.clear(),
                    News::Everything(cause) => panic!("{cause}"),
                }
            }
        };
        for step in steps {
            match step {
                Step::Notify(index) => {
                    writer.notify(index);
                    pending.push(index);
                }
                Step::Poll(limit) => {
                    let before = pending.clone();
                    let (found, _) = poll(&mut reader, limit);
                    if found.contains(&News::Everything(Cause::Overrun)) {
                        prop_assert!(before.len() > 16, "an overrun of {} notifications", before.len());
                        // The reader stands behind the number that it found; later ones are to come.
                        let ahead = writer_ahead(&writer, &reader);
                        let kept = before.len() - ahead.min(before.len());
                        pending.drain(..kept);
                    } else {
                        apply(&mut pending, &found);
                    }
                }
            }
        }
        let found = drain(&mut reader);
        let everything = found.iter().any(|news| matches!(news, News::Everything(_)));
        if !everything {
            apply(&mut pending, &found);
            prop_assert_eq!(pending, Vec::<u16>::new());
        }
        prop_assert_eq!(reader.position(), writer.position());
    }

    /// Whatever is in the ring, and wherever the reader stands: no panic, no index out of the table, and polling
    /// ends when the ring rests.
    #[test]
    fn garbage_ends(
        start in prop_oneof![0u64..64, (1u64 << 48) - 40..(1 << 48) + 40, any::<u64>()],
        words in prop::collection::vec(forged(20), 16),
    ) {
        let ring = Ring::<2>::new();
        let mut reader = Reader::resume(&ring, Position::behind(start));
        for (cell, word) in ring.lines().iter().flat_map(|line| line.words()).zip(&words) {
            cell.store(word.wrapping_add(start.wrapping_sub(20) << 16), Ordering::Relaxed);
        }
        let found = drain(&mut reader);
        prop_assert!(found.len() <= 17, "{} news from 16 words", found.len());
        for news in found {
            prop_assert!(matches!(news, News::Everything(_)) || matches!(news, News::Entry(i) if i < ENTRIES));
        }
    }

    /// Numbers wrap after 2^48 notifications without anybody noticing.
    #[test]
    fn numbers_wrap(before in 0u64..20, each in 1usize..16) {
        let ring = Ring::<2>::new();
        let start = Position::behind((1 << 48) - before);
        let (mut writer, mut reader) = (Writer::resume(&ring, start), Reader::resume(&ring, start));
        // A lap, so that the ring holds what it would.
        for _ in 0..16 {
            writer.notify(0);
        }
        reader.poll(0, ENTRIES, |_| ());
        let mut reader = Reader::resume(&ring, writer.position());
        for index in 0..40u16 {
            for i in 0..each {
                writer.notify(index + i as u16);
            }
            let expected: Vec<News> = (0..each).map(|i| News::Entry(index + i as u16)).collect();
            prop_assert_eq!(drain(&mut reader), expected);
        }
    }
}

/// How many notifications a reader has still to read.
fn writer_ahead<const N: usize>(writer: &Writer<'_, N>, reader: &Reader<'_, N>) -> usize {
    (writer.position().number() - reader.position().number()) as usize
}

/// A writer at full speed and a reader that is now fast, now slow: what the writer stored for an entry before
/// the last notification of it is there when the reader signals it.
#[test]
fn two_threads_lose_nothing() {
    const COUNT: u64 = 200_000;
    let ring = Ring::<2>::new();
    let values: Vec<AtomicU64> = (0..8).map(|_| AtomicU64::new(0)).collect();
    let done = AtomicBool::new(false);
    let (mut entries, mut overruns) = (0u64, 0u64);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = Writer::resume(&ring, Position::default());
            for n in 1..=COUNT {
                values[n as usize % 8].store(n, Ordering::Relaxed);
                writer.notify((n % 8) as u16);
                if n % 64 == 0 {
                    std::thread::yield_now();
                }
            }
            // Ordering: Release, pairs with the load below.
            done.store(true, Ordering::Release);
        });
        let mut reader = Reader::new(&ring);
        let mut seen = [0u64; 8];
        loop {
            // Ordering: Acquire, pairs with the store above: the last poll sees all notifications.
            let last = done.load(Ordering::Acquire);
            loop {
                let mut signalled = BTreeSet::new();
                let polled = reader.poll(16, 8, |news| match news {
                    News::Entry(index) => {
                        entries += 1;
                        signalled.insert(usize::from(index));
                    }
                    News::Everything(Cause::Overrun) => {
                        overruns += 1;
                        signalled.extend(0..8);
                    }
                    News::Everything(cause) => panic!("{cause}"),
                });
                for at in signalled {
                    let value = values[at].load(Ordering::Relaxed);
                    assert!(value >= seen[at]);
                    seen[at] = value;
                }
                if polled.rest == Rest::Nothing {
                    break;
                }
            }
            if last {
                break;
            }
        }
        for n in COUNT - 7..=COUNT {
            assert_eq!(seen[n as usize % 8], n, "the last notification of entry {} was lost", n % 8);
        }
        assert!(entries + overruns > 0);
    });
}
