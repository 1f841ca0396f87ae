//! What the scenario `races` starts on several cores: one side of a race of going to sleep against sending.
//!
//! | argument | meaning |
//! |---|---|
//! | `k` | the kind of race, see below |
//! | `i` | the number of the service that both sides meet at |
//! | `n` | waits after which a client stops, its server's included where it tells them |
//! | `m` | clients of a hub |
//! | `s` | the seed |
//!
//! | `k` | what it does |
//! |---|---|
//! | `ask` | sends a number and waits for the answer; client of `answer` and `hub` |
//! | `answer` | waits for a number and sends it back |
//! | `fill` | fills the ring, then waits for room |
//! | `drain` | takes numbers and waits for more |
//! | `both`, `peer` | fills the ring and takes numbers, waiting for room and numbers in a waitset; client and server |
//! | `hub` | answers `m` clients, waiting for all of them in one waitset |
//!
//! Each side goes to sleep after few looks or the first, and pauses before it sends for any time between none and
//! what the other side needs to be fast asleep, so that what it sends falls everywhere in the other's way there.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Display;
use core::hint::black_box;

use boot_freestanding as _;
use results::{Event, EventKind};
use runtime::channel::{Channel, Closed, Sleeps, WaitError, Waiting};
use runtime::events::Deadline;
use runtime::monitor::{self, Options};
use runtime::waitset::Waitset;
use runtime::{Env, output, println, time};
use selftest::Random;
use selftest::racing::{ACCEPTS, LAST, NUMBER, STALL_MS};
use ump::{Message, RPC_LINES, SendError, Until};

runtime::entry!(main);

type End = Channel<RPC_LINES>;

/// Waits between two readings of the clock for the deadline.
const WAITS_PER_DEADLINE: u64 = 256;

/// Messages between two acknowledgements, on which a sender without room waits.
const INTERVAL: u64 = RPC_LINES as u64 / 4;

fn text(error: impl Display) -> String {
    format!("{error}")
}

fn main(env: &Env) -> Result<(), String> {
    let mut racer = Racer::new(env);
    let kind = env.value("k").unwrap_or_default();
    let result = match kind {
        "ask" => racer.client().and_then(|end| ask(&mut racer, end)),
        "answer" => racer.server().and_then(|end| answer(&mut racer, end)),
        "fill" => racer.client().and_then(|end| fill(&mut racer, end)),
        "drain" => racer.server().and_then(|end| drain(&mut racer, end)),
        "both" => racer.client().and_then(|end| both(&mut racer, end)),
        "peer" => racer.server().and_then(|end| both(&mut racer, end)),
        "hub" => racer.servers(env.number("m", 1)).and_then(|ends| hub(&mut racer, ends)),
        other => Err(format!("there is no race {other:?}")),
    };
    // What this side knows is told in any case: of a wake-up that was lost both sides tell.
    let detail = racer.tell(kind);
    output::record(
        Event::new(EventKind::Note).core(env.info().core).name("race").value(racer.waits).detail(&detail),
    );
    if let Err(why) = &result {
        println!("{why}: {detail}");
    }
    result
}

/// What every side of a race has.
struct Racer {
    service: u64,
    target: u64,
    random: Random,
    waits: u64,
    sent: u64,
    received: u64,
    sleeps: Sleeps,
    deadline: Deadline,
    longest: u64,
}

impl Racer {
    fn new(env: &Env) -> Racer {
        let service = env.number("i", 0);
        // A sequence of its own for each side.
        let side = env.value("k").map_or(0, |k| k.bytes().map(u64::from).sum());
        Racer {
            service,
            target: env.number("n", 1000),
            random: Random::new(
                env.number("s", 1) << 32 ^ service << 16 ^ side << 4 ^ u64::from(env.info().core),
            ),
            waits: 0,
            sent: 0,
            received: 0,
            sleeps: Sleeps::default(),
            deadline: Deadline::NEVER,
            longest: 0,
        }
    }

    fn client(&self) -> Result<End, String> {
        let iref = monitor::lookup(&format!("race.{}", self.service)).map_err(text)?;
        let options = Options { waiting: Waiting::Blockable, ..Options::default() };
        monitor::bind(iref, &options).and_then(|mut connection| connection.channel(ACCEPTS)).map_err(text)
    }

    fn server(&self) -> Result<End, String> {
        self.servers(1)?.pop().ok_or_else(|| String::from("nobody binds"))
    }

    fn servers(&self, count: u64) -> Result<Vec<End>, String> {
        let mut service = monitor::export().map_err(text)?;
        monitor::register(&format!("race.{}", self.service), service.iref()).map_err(text)?;
        let accepted = (0..count).map(|_| {
            let mut connection = service.accept_blocking(Waiting::Blockable, Deadline::after_ms(STALL_MS))?;
            connection.channel(ACCEPTS)
        });
        accepted.collect::<Result<_, _>>().map_err(text)
    }

    /// Lets some time pass: how much is distributed evenly over orders of magnitude.
    fn pause(&mut self) {
        let limit = 1 << self.random.below(13);
        for turn in 0..self.random.below(limit) {
            black_box(turn);
        }
    }

    /// How often to look before going to sleep.
    fn looks(&mut self) -> u32 {
        self.random.pick(&[1, 1, 1, 2, 3, 8])
    }

    /// A wait begins: until when it may last, and the time.
    fn begin(&mut self) -> (Deadline, u64) {
        if self.waits.is_multiple_of(WAITS_PER_DEADLINE) {
            self.deadline = Deadline::after_ms(STALL_MS);
        }
        self.waits += 1;
        (self.deadline, time::now())
    }

    /// The wait that began at `start` is over.
    fn over(&mut self, start: u64) {
        self.longest = self.longest.max(time::now().saturating_sub(start));
    }

    /// The next message, however long that takes; `None` at the end of the channel.
    fn take(&mut self, end: &mut End) -> Result<Option<Message>, String> {
        let mut found = end.try_recv().map_err(text)?;
        if found.is_none() {
            end.set_poll_rounds(self.looks());
            let (deadline, start) = self.begin();
            found = match end.recv_blocking(deadline) {
                Ok(message) => Some(message),
                Err(WaitError::Closed(Closed::HungUp)) => None,
                Err(why) => return Err(format!("waiting for a message: {why}")),
            };
            self.over(start);
        }
        self.received += u64::from(found.is_some());
        Ok(found)
    }

    /// Sends `message`, however long that takes.
    fn send(&mut self, end: &mut End, message: &Message) -> Result<(), String> {
        match end.try_send(message) {
            Ok(()) => {}
            Err(SendError::Full) => {
                end.set_poll_rounds(self.looks());
                let (deadline, start) = self.begin();
                end.send_blocking(message, deadline).map_err(|why| format!("waiting for room: {why}"))?;
                self.over(start);
            }
            Err(why) => return Err(text(why)),
        }
        self.sent += 1;
        Ok(())
    }

    /// Takes the counts of an end that is given up.
    fn done(&mut self, end: &End) {
        let Sleeps { slept, averted, rang } = end.sleeps();
        self.sleeps.slept += slept;
        self.sleeps.averted += averted;
        self.sleeps.rang += rang;
    }

    fn tell(&self, kind: &str) -> String {
        let Sleeps { slept, averted, rang } = self.sleeps;
        format!(
            "kind {kind} sent {} received {} slept {slept} averted {averted} rang {rang} longest {}",
            self.sent, self.received, self.longest
        )
    }
}

/// Is `message` number `number`?
fn expect(message: &Message, number: u64) -> Result<(), String> {
    if message.kind() == NUMBER && message.words().first() == Some(&number) {
        Ok(())
    } else {
        Err(format!("{message:?} instead of number {number}"))
    }
}

fn ask(racer: &mut Racer, mut end: End) -> Result<(), String> {
    let result = (|| {
        let mut theirs = 0;
        while racer.waits + theirs < racer.target {
            let number = racer.sent;
            racer.pause();
            racer.send(&mut end, &Message::new(NUMBER, [number]))?;
            let answer = racer.take(&mut end)?.ok_or("the server hung up")?;
            expect(&answer, number)?;
            theirs = answer.words().get(1).copied().unwrap_or(0);
        }
        Ok(())
    })();
    racer.done(&end);
    result
}

fn answer(racer: &mut Racer, mut end: End) -> Result<(), String> {
    let result = (|| {
        while let Some(message) = racer.take(&mut end)? {
            expect(&message, racer.sent)?;
            racer.pause();
            racer.send(&mut end, &Message::new(NUMBER, [racer.sent, racer.waits]))?;
        }
        Ok(())
    })();
    racer.done(&end);
    result
}

fn fill(racer: &mut Racer, mut end: End) -> Result<(), String> {
    let result = (|| {
        while racer.waits < racer.target {
            if racer.random.below(4 * INTERVAL) == 0 {
                racer.pause();
            }
            racer.send(&mut end, &Message::new(NUMBER, [racer.sent]))?;
        }
        Ok(())
    })();
    racer.done(&end);
    result
}

fn drain(racer: &mut Racer, mut end: End) -> Result<(), String> {
    let result = (|| {
        while let Some(message) = racer.take(&mut end)? {
            expect(&message, racer.received - 1)?;
            // Just before room is told of.
            if racer.received % INTERVAL == INTERVAL - 1 {
                racer.pause();
            }
        }
        Ok(())
    })();
    racer.done(&end);
    result
}

fn both(racer: &mut Racer, mut end: End) -> Result<(), String> {
    let mut set = Waitset::new();
    let member = set.add(&end);
    let result = (|| {
        let (mut last_sent, mut last_received) = (false, false);
        while !last_sent || !last_received {
            let mut more = false;
            while let Some(message) = end.try_recv().map_err(text)? {
                more = true;
                if message.kind() == LAST {
                    last_received = true;
                    break;
                }
                expect(&message, racer.received)?;
                racer.received += 1;
            }
            racer.pause();
            // The server stops when it was told to.
            let stops = last_received || racer.waits >= racer.target;
            for _ in 0..=racer.random.below(RPC_LINES as u64) {
                if last_sent {
                    break;
                }
                let message = if stops { Message::new(LAST, []) } else { Message::new(NUMBER, [racer.sent]) };
                match end.try_send(&message) {
                    Ok(()) if stops => last_sent = true,
                    Ok(()) => racer.sent += 1,
                    Err(SendError::Full) => break,
                    Err(why) => return Err(text(why)),
                }
                more = true;
            }
            if more {
                continue;
            }
            // Nothing there, and no room or nothing to send.
            set.watch(member, Some(if last_sent { Until::Message } else { Until::Either }));
            wait(racer, &mut set)?;
        }
        Ok(())
    })();
    set.remove(member);
    racer.done(&end);
    result
}

/// Waits for anything in `set`.
fn wait(racer: &mut Racer, set: &mut Waitset) -> Result<usize, String> {
    set.set_poll_rounds(racer.looks() - 1);
    let (deadline, start) = racer.begin();
    let found = set.wait(deadline).ok_or("waiting in a waitset: the deadline passed")?;
    racer.over(start);
    Ok(found.index())
}

fn hub(racer: &mut Racer, ends: Vec<End>) -> Result<(), String> {
    let mut set = Waitset::new();
    let mut clients: Vec<(End, u64)> = ends.into_iter().map(|end| (end, 0)).collect();
    let members: Vec<_> = clients.iter().map(|(end, _)| set.add(end)).collect();
    let result = (|| {
        let mut left = clients.len();
        while left > 0 {
            let ready = match set.poll() {
                Some(member) => member.index(),
                None => wait(racer, &mut set)?,
            };
            let at =
                members.iter().position(|member| member.index() == ready).ok_or("a member of no client")?;
            let (end, next) = &mut clients[at];
            while let Some(message) = end.try_recv().map_err(text)? {
                racer.received += 1;
                expect(&message, *next)?;
                racer.pause();
                let answer = Message::new(NUMBER, [*next]);
                *next += 1;
                racer.send(end, &answer)?;
            }
            if end.closed() == Some(Closed::HungUp) {
                set.remove(members[at]);
                left -= 1;
            }
        }
        Ok(())
    })();
    clients.iter().for_each(|(end, _)| racer.done(end));
    result
}
