//! Every interleaving of small models, by loom:
//! `RUSTFLAGS="--cfg loom" cargo test -p ump --release --test loom`.
//!
//! Each model runs once as it is, and must hold; and once per side of each pair of orderings that it depends
//! on with that side made Relaxed, and must fail. Without the second half a model proves little.
#![cfg(loom)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::sync::atomic::Ordering;
use loom::sync::{Arc, Notify};
use loom::thread;
use ump::logring::{AttachError, CoreId, Entry, Level, LogMemory, Reader, Writer};
use ump::notify::{Cause, News, Position, Reader as NewsReader, Rest, Ring, Writer as NewsWriter};
use ump::{Accepts, Endpoint, Kind, Line, Message, Outbox, SendError, Side, Site, Until, weaken};

const KIND: Kind = Kind(0);
const ACCEPTS: Accepts = Accepts::kinds_below(Kind(1));

/// Explores `model` up to `preemptions` involuntary switches per run. Loom's authors and the literature find
/// that bugs show at two or three.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(model);
}

/// Requires that `model` fails when one side of `site` is Relaxed.
fn must_notice(site: Site, side: Side, model: fn()) {
    // A thread of its own, since a failed model leaves loom's thread-locals behind.
    let outcome = std::thread::spawn(move || catch_unwind(AssertUnwindSafe(|| weaken(site, side, model))));
    assert!(outcome.join().unwrap().is_err(), "the model does not notice {site:?} without its {side:?}");
}

type Channel<const N: usize> = Arc<[Outbox<N>; 2]>;

fn channel<const N: usize>() -> Channel<N> {
    Arc::new([Outbox::new(), Outbox::new()])
}

fn first<const N: usize>(channel: &Channel<N>) -> Endpoint<'_, N> {
    Endpoint::new(&channel[0], &channel[1], ACCEPTS)
}

fn second<const N: usize>(channel: &Channel<N>) -> Endpoint<'_, N> {
    Endpoint::new(&channel[1], &channel[0], ACCEPTS)
}

fn send<const N: usize>(endpoint: &mut Endpoint<'_, N>, value: u64) {
    while let Err(error) = endpoint.try_send(&Message::new(KIND, [value])) {
        assert_eq!(error, SendError::Full);
        thread::yield_now();
    }
}

fn receive<const N: usize>(endpoint: &mut Endpoint<'_, N>) -> u64 {
    loop {
        match endpoint.try_recv().unwrap() {
            Some(message) => return message.words()[0],
            None => thread::yield_now(),
        }
    }
}

/// Four messages through a ring of two lines: send, receive, two laps, acknowledgements on their own line.
fn one_way() {
    explore(3, || {
        let channel = channel::<2>();
        let peer = channel.clone();
        let sender = thread::spawn(move || {
            let mut endpoint = first(&peer);
            for value in 100..104 {
                send(&mut endpoint, value);
            }
        });
        let mut endpoint = second(&channel);
        for value in 100..104 {
            assert_eq!(receive(&mut endpoint), value);
        }
        sender.join().unwrap();
        assert_eq!(endpoint.try_recv(), Ok(None));
        assert!(endpoint.is_finished());
    });
}

/// Three messages through a ring of two lines to a receiver that takes two looks for each: the first lap, where the
/// line is empty, and the second, where it holds a message.
fn waiting() {
    explore(2, || {
        let channel = channel::<2>();
        let peer = channel.clone();
        let sender = thread::spawn(move || {
            let mut endpoint = first(&peer);
            for value in 100..103 {
                send(&mut endpoint, value);
            }
        });
        let mut endpoint = second(&channel);
        for value in 100..103 {
            let message = loop {
                match endpoint.recv_within(2).unwrap() {
                    Some(message) => break message,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(message.words(), [value]);
        }
        sender.join().unwrap();
        assert_eq!(endpoint.recv_within(2), Ok(None));
    });
}

/// Three calls and replies on rings of two lines: acknowledgements ride in the headers.
fn calls() {
    explore(3, || {
        let channel = channel::<2>();
        let peer = channel.clone();
        let server = thread::spawn(move || {
            let mut endpoint = second(&peer);
            for _ in 0..3 {
                let value = receive(&mut endpoint);
                // The request that is answered was acknowledged, so there is always room.
                endpoint.try_send(&Message::new(KIND, [value + 1])).unwrap();
            }
        });
        let mut endpoint = first(&channel);
        for value in [10, 20, 30] {
            endpoint.try_send(&Message::new(KIND, [value])).unwrap();
            assert_eq!(receive(&mut endpoint), value + 1);
        }
        server.join().unwrap();
    });
}

/// Both sides send at will: acknowledgements arrive by both ways, in any order.
fn both_ways() {
    explore(2, || {
        let channel = channel::<2>();
        let peer = channel.clone();
        fn run(mut endpoint: Endpoint<'_, 2>, base: u64, expected: u64) {
            let (mut sent, mut received) = (0, 0);
            while sent < 3 || received < 3 {
                let mut idle = true;
                if sent < 3 {
                    match endpoint.try_send(&Message::new(KIND, [base + sent])) {
                        Ok(()) => (sent, idle) = (sent + 1, false),
                        // The other side is done, so it has taken all that it wants.
                        Err(SendError::Full | SendError::HungUp) => {}
                        Err(SendError::Broken(violation)) => panic!("{violation}"),
                    }
                }
                if let Some(message) = endpoint.try_recv().unwrap() {
                    assert_eq!(message.words(), [expected + received]);
                    (received, idle) = (received + 1, false);
                }
                if idle {
                    thread::yield_now();
                }
            }
        }
        let other = thread::spawn(move || run(second(&peer), 200, 100));
        run(first(&channel), 100, 200);
        other.join().unwrap();
    });
}

/// Two bursts of two and a half of one through a ring of four lines.
fn bursts() {
    explore(3, || {
        let channel = channel::<4>();
        let peer = channel.clone();
        let sender = thread::spawn(move || {
            let mut endpoint = first(&peer);
            let messages = [0, 1, 2, 3, 4].map(|value| Message::new(KIND, [value]));
            let mut rest = &messages[..];
            while !rest.is_empty() {
                match endpoint.try_send_burst(rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(error) => {
                        assert_eq!(error, SendError::Full);
                        thread::yield_now();
                    }
                }
            }
        });
        let mut endpoint = second(&channel);
        for value in 0..5 {
            assert_eq!(receive(&mut endpoint), value);
        }
        sender.join().unwrap();
    });
}

/// Who sees the end sees every message before it.
fn hanging_up() {
    explore(3, || {
        let channel = channel::<4>();
        let peer = channel.clone();
        let sender = thread::spawn(move || {
            let mut endpoint = first(&peer);
            for value in 0..3 {
                send(&mut endpoint, value);
            }
        });
        let mut endpoint = second(&channel);
        let mut received = 0;
        loop {
            match endpoint.try_recv().unwrap() {
                Some(message) => {
                    assert_eq!(message.words(), [received]);
                    received += 1;
                }
                None if endpoint.is_finished() => break,
                None => thread::yield_now(),
            }
        }
        assert_eq!(received, 3);
        sender.join().unwrap();
    });
}

/// A message is sent while its receiver falls asleep: the receiver sees it, or the sender sees the sleeper.
fn falling_asleep_for_a_message() {
    explore(3, || {
        let channel = channel::<2>();
        let peer = channel.clone();
        let sender = thread::spawn(move || {
            let mut endpoint = first(&peer);
            send(&mut endpoint, 1);
            endpoint.must_notify()
        });
        let mut endpoint = second(&channel);
        let asleep = endpoint.prepare_sleep(Until::Message);
        let notified = sender.join().unwrap();
        assert!(asleep.is_none() || notified, "asleep beside a message");
    });
}

/// The same for room in a full ring.
fn falling_asleep_for_room() {
    explore(3, || {
        let channel = channel::<2>();
        let peer = channel.clone();
        let mut endpoint = first(&channel);
        send(&mut endpoint, 1);
        send(&mut endpoint, 2);
        let receiver = thread::spawn(move || {
            let mut endpoint = second(&peer);
            assert_eq!(receive(&mut endpoint), 1);
            endpoint.must_notify()
        });
        let asleep = endpoint.prepare_sleep(Until::Credit);
        let notified = receiver.join().unwrap();
        assert!(asleep.is_none() || notified, "asleep beside room");
    });
}

/// Both sides sleep whenever they have nothing to do: the sender until there is room, the receiver until there
/// is a message or the end. A lost notification leaves both asleep, which loom reports as a deadlock.
fn sleeping() {
    explore(2, || {
        let channel = channel::<2>();
        let bells = Arc::new([Notify::new(), Notify::new()]);
        let (peer, peer_bells) = (channel.clone(), bells.clone());
        let sender = thread::spawn(move || {
            let mut endpoint = first(&peer);
            for value in 0..3 {
                while endpoint.try_send(&Message::new(KIND, [value])) == Err(SendError::Full) {
                    if let Some(_asleep) = endpoint.prepare_sleep(Until::Credit) {
                        peer_bells[0].wait();
                    }
                }
                if endpoint.must_notify() {
                    peer_bells[1].notify();
                }
            }
            if endpoint.hang_up() {
                peer_bells[1].notify();
            }
        });
        let mut endpoint = second(&channel);
        let mut expected = 0;
        while !endpoint.is_finished() {
            while let Some(message) = endpoint.try_recv().unwrap() {
                assert_eq!(message.words(), [expected]);
                expected += 1;
            }
            if endpoint.must_notify() {
                bells[0].notify();
            }
            if let Some(_asleep) = endpoint.prepare_sleep(Until::Message) {
                bells[1].wait();
            }
        }
        assert_eq!(expected, 3);
        sender.join().unwrap();
    });
}

/// A writer formats a log of `lines` lines and writes three records, a reader reads: each record is whole,
/// they come in order, and nothing goes unaccounted. Returns how many were lost.
fn log(lines: usize) -> u64 {
    const TEXTS: [&str; 3] = ["zero", "one", "two"];
    let frame: Arc<Vec<Line>> = Arc::new((0..1 + lines).map(|_| Line::new()).collect());
    let shared = frame.clone();
    let writer = thread::spawn(move || {
        let mut writer = Writer::new(LogMemory::new(&shared).unwrap(), CoreId(0));
        for (tsc, text) in TEXTS.iter().enumerate() {
            writer.write(Level::Info, tsc as u64, text);
        }
    });
    let memory = LogMemory::new(&frame).unwrap();
    let mut reader = loop {
        match Reader::attach(memory) {
            Ok(reader) => break reader,
            Err(AttachError::NotALog { found: 0 }) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    let (mut accounted, mut lost) = (0, 0);
    while accounted < TEXTS.len() as u64 {
        match reader.read() {
            Some(Entry::Record(record)) => {
                assert_eq!(record.tsc, accounted);
                assert_eq!(record.text(), TEXTS[record.tsc as usize]);
                accounted += 1;
            }
            Some(Entry::Lost { bytes }) => {
                lost += bytes / 64;
                accounted += bytes / 64;
            }
            Some(Entry::Restarted) => panic!("nobody restarted the log"),
            None => thread::yield_now(),
        }
    }
    assert_eq!(accounted, TEXTS.len() as u64);
    assert_eq!(reader.read(), None);
    writer.join().unwrap();
    lost
}

/// A writer that laps its reader.
fn log_overrun() {
    explore(2, || {
        log(1);
    });
}

/// A log that is large enough loses nothing.
fn log_without_loss() {
    explore(2, || assert_eq!(log(3), 0));
}

/// Entry of the table that a notification is for, and the entries of the table.
const ENTRY: u16 = 3;
const ENTRIES: u16 = 4;

/// Polls until there is news, as if the interrupt came at any time after the notification; whether `ENTRY` is
/// meant.
fn wait_for_news(reader: &mut NewsReader<'_, 1>) {
    let mut meant = false;
    while !meant {
        let polled = reader.poll(1, ENTRIES, |news| match news {
            News::Entry(entry) => meant |= entry == ENTRY,
            News::Everything(Cause::Overrun) => meant = true,
            News::Everything(cause) => panic!("{cause}"),
        });
        if polled.rest == Rest::Nothing && !meant {
            thread::yield_now();
        }
    }
}

/// Who is woken by a notification sees what was stored before it.
fn notified() {
    explore(3, || {
        let shared = Arc::new((Line::new(), Ring::<1>::new()));
        let peer = shared.clone();
        let sender = thread::spawn(move || {
            let mut writer = NewsWriter::resume(&peer.1, Position::default());
            for value in 1..3 {
                peer.0.words()[0].store(value, Ordering::Relaxed);
                writer.notify(ENTRY);
            }
        });
        let mut reader = NewsReader::new(&shared.1);
        for value in 1..3 {
            wait_for_news(&mut reader);
            assert!(shared.0.words()[0].load(Ordering::Relaxed) >= value);
        }
        assert_eq!(reader.poll(1, ENTRIES, |news| panic!("{news:?}")).rest, Rest::Nothing);
        sender.join().unwrap();
    });
}

/// A reader is overrun: it hears of everything, sees what came before the number that it found, and nothing
/// that comes later is lost.
fn overrun() {
    explore(2, || {
        const LAP: u64 = Ring::<1>::ENTRIES;
        let shared = Arc::new((Line::new(), Ring::<1>::new()));
        let peer = shared.clone();
        let sender = thread::spawn(move || {
            let mut writer = NewsWriter::resume(&peer.1, Position::default());
            for value in 1..LAP + 2 {
                peer.0.words()[0].store(value, Ordering::Relaxed);
                writer.notify(ENTRY);
            }
        });
        let mut reader = NewsReader::new(&shared.1);
        while reader.position().number() < LAP + 1 {
            wait_for_news(&mut reader);
            assert!(shared.0.words()[0].load(Ordering::Relaxed) >= reader.position().number());
        }
        sender.join().unwrap();
    });
}

/// From a message to its sleeping receiver by way of a link: a receiver that finds nothing sleeps until its
/// entry is signalled. A lost wake-up leaves it waiting for ever, which loom reports as too many branches.
fn waking_through_a_link() {
    explore(2, || {
        let shared = Arc::new((channel::<2>(), Ring::<1>::new()));
        let peer = shared.clone();
        let sender = thread::spawn(move || {
            let mut endpoint = first(&peer.0);
            let mut writer = NewsWriter::resume(&peer.1, Position::default());
            for value in 0..2 {
                endpoint.try_send(&Message::new(KIND, [value])).unwrap();
                if endpoint.must_notify() {
                    writer.notify(ENTRY);
                }
            }
            // The endpoint stays: hanging up would wake the receiver too.
            std::mem::forget(endpoint);
        });
        let mut endpoint = second(&shared.0);
        let mut reader = NewsReader::new(&shared.1);
        let mut expected = 0;
        while expected < 2 {
            match endpoint.try_recv().unwrap() {
                Some(message) => {
                    assert_eq!(message.words(), [expected]);
                    expected += 1;
                }
                None => {
                    if let Some(_asleep) = endpoint.prepare_sleep(Until::Message) {
                        wait_for_news(&mut reader);
                    }
                }
            }
        }
        sender.join().unwrap();
    });
}

#[test]
fn one_way_holds() {
    one_way();
}

#[test]
fn waiting_holds() {
    waiting();
}

#[test]
fn calls_hold() {
    calls();
}

#[test]
fn both_ways_hold() {
    both_ways();
}

#[test]
fn bursts_hold() {
    bursts();
}

#[test]
fn hanging_up_holds() {
    hanging_up();
}

#[test]
fn sleeping_holds() {
    falling_asleep_for_a_message();
    falling_asleep_for_room();
    sleeping();
}

#[test]
fn log_overrun_holds() {
    log_overrun();
}

#[test]
fn log_without_loss_holds() {
    log_without_loss();
}

#[test]
fn notifications_hold() {
    notified();
    overrun();
}

#[test]
fn waking_through_a_link_holds() {
    waking_through_a_link();
}

#[test]
fn weaker_headers_are_noticed() {
    must_notice(Site::Message, Side::Acquire, waiting);
    for model in [one_way, calls, bursts] {
        must_notice(Site::Message, Side::Release, model);
        must_notice(Site::Message, Side::Acquire, model);
    }
}

#[test]
fn weaker_acknowledgements_are_noticed() {
    must_notice(Site::Acknowledgement, Side::Release, one_way);
    must_notice(Site::Acknowledgement, Side::Acquire, one_way);
}

#[test]
fn weaker_ends_are_noticed() {
    must_notice(Site::HangUp, Side::Release, hanging_up);
    must_notice(Site::HangUp, Side::Acquire, hanging_up);
}

#[test]
fn weaker_sleeps_are_noticed() {
    for model in [falling_asleep_for_a_message, falling_asleep_for_room] {
        must_notice(Site::Sleep, Side::Release, model);
        must_notice(Site::Sleep, Side::Acquire, model);
    }
}

#[test]
fn weaker_logs_are_noticed() {
    must_notice(Site::LogFormat, Side::Release, log_without_loss);
    must_notice(Site::LogFormat, Side::Acquire, log_without_loss);
    must_notice(Site::LogWritten, Side::Release, log_without_loss);
    must_notice(Site::LogWritten, Side::Acquire, log_without_loss);
    must_notice(Site::LogClaim, Side::Release, log_overrun);
    must_notice(Site::LogClaim, Side::Acquire, log_overrun);
}

#[test]
fn weaker_notifications_are_noticed() {
    for model in [notified, overrun] {
        must_notice(Site::Notify, Side::Release, model);
        must_notice(Site::Notify, Side::Acquire, model);
    }
}

#[test]
fn weaker_sleeps_are_noticed_through_a_link() {
    must_notice(Site::Sleep, Side::Release, waking_through_a_link);
    must_notice(Site::Sleep, Side::Acquire, waking_through_a_link);
}
