//! What the scenario `fuzz` starts on every core: it makes victims of that core, one after the other, has the core
//! looked over while they rest, and sees to it that nothing stays of them.
//!
//! | argument | meaning |
//! |---|---|
//! | `s` | the seed |
//! | `n` | invocations to be made |
//! | `v` | the number of the only victim to make; without it, as many as it takes |
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use core::fmt::Display;

use boot_freestanding as _;
use lmp::cptr::task;
use lmp::{CPtr, ObjType, Rights};
use runtime::channel::{Channel, Closed, WaitError, Waiting};
use runtime::events::{self, Deadline, Event};
use runtime::monitor::{self, Options};
use runtime::spawn::{Child, DomainBuilder};
use runtime::{Env, memory, println};
use selftest::fuzzing::{
    ACCEPTS, Board, COUNTED, FINISHED, OPERATIONS, OUTCOMES, PER_VICTIM, PROGRESS, SERVICE, Word, slot,
};
use selftest::{Bystander, CHILD, CHILD_RAM, Test};
use ump::{Kind, Message, RPC_LINES};

runtime::entry!(main);

/// RAM of a victim for its own use, in bytes.
const VICTIM_RAM: u64 = 1 << 20;
/// A victim that invokes nothing for so many milliseconds waits for something that does not come.
const PATIENCE_MS: u64 = 500;
/// Victims in a row that may make no invocation.
const USELESS: u64 = 16;

fn text(error: impl Display) -> String {
    format!("{error}")
}

fn main(env: &Env) -> Result<(), String> {
    let mut node = Node::new(env)?;
    let (calls, only) = (env.number("n", PER_VICTIM), env.value("v").and_then(|v| v.parse().ok()));
    node.run(calls, only)?;
    node.tell()
}

struct Node {
    test: Test,
    channel: Channel<RPC_LINES>,
    cores: u64,
    board: Board,
    notice: CPtr,
    /// The event that the notice raises.
    reached: Event,
    endpoint: CPtr,
    kcb: CPtr,
    /// Goes on whatever the victims do.
    bystander: Bystander,
    /// Answers them. It ends when this domain does.
    _partner: Child,
    victims: u64,
    audits: u64,
    stuck: u64,
}

impl Node {
    fn new(env: &Env) -> Result<Node, String> {
        let iref = monitor::lookup(SERVICE).map_err(text)?;
        let options = Options { waiting: Waiting::Blockable, ..Options::default() };
        let channel = monitor::bind(iref, &options).and_then(|mut connection| connection.channel(ACCEPTS));
        let test = Test::new(env);
        let notice = memory::allocate(ObjType::Notification, 0).map_err(text)?.cap;
        let reached = events::allocate().ok_or("no event is left")?;
        events::bind(notice, reached).map_err(text)?;
        let endpoint = memory::allocate(ObjType::Endpoint, 0).map_err(text)?.cap;
        let partner = DomainBuilder::new(CHILD, test.module()?)
            .args("mode=partner")
            .memory(CHILD_RAM)
            .grant(slot::PARTNER, endpoint)
            .build()
            .map_err(text)?;
        partner.start().map_err(text)?;
        Ok(Node {
            channel: channel.map_err(text)?,
            cores: monitor::core(None).map_err(text)?.cores.into(),
            board: Board::new().map_err(text)?,
            notice,
            reached,
            endpoint,
            kcb: monitor::counters().map_err(text)?,
            bystander: Bystander::start(&test)?,
            _partner: partner,
            test,
            victims: 0,
            audits: 0,
            stuck: 0,
        })
    }

    /// Makes victims until so many invocations were made.
    fn run(&mut self, calls: u64, only: Option<u64>) -> Result<(), String> {
        let core = u64::from(self.test.env().info().core);
        // What is made once for all victims is there then.
        self.victim(0, 0)?;
        let free = memory::stats().free;
        let (mut done, mut useless) = (0, 0);
        while done < calls && useless < USELESS {
            let number = only.unwrap_or(core + self.victims * self.cores);
            let most = if only.is_some() { calls } else { PER_VICTIM.min(calls - done) };
            self.victims += 1;
            println!("victim {number} calls {most}");
            let made = self.victim(number, most).and_then(|made| {
                self.bystander.check()?;
                match free.saturating_sub(memory::stats().free) {
                    0 => Ok(made),
                    left => Err(format!("{left} bytes were left behind")),
                }
            });
            let made = made.map_err(|why| format!("{why}; {}", self.replay(number, most)))?;
            useless = if made == 0 { useless + 1 } else { 0 };
            done += made;
            self.send(PROGRESS, [done, 0, 0])?;
            if only.is_some() {
                return Ok(());
            }
        }
        if useless < USELESS { Ok(()) } else { Err(String::from("victims make no invocations any more")) }
    }

    /// The command that makes the same victim again.
    fn replay(&self, number: u64, calls: u64) -> String {
        let (cores, seed) = (self.cores, self.test.env().number("s", 1));
        format!("again: cargo run -- test fuzz --cpus {cores} --seed {seed} victim={number} calls={calls}")
    }

    /// Makes a victim and takes it down when it has ended, or waits for ever; how many invocations it made.
    fn victim(&mut self, number: u64, calls: u64) -> Result<u64, String> {
        let info = self.test.env().info();
        let (seed, doorbell) = (self.test.env().number("s", 1), info.console_doorbell);
        self.board.restart();
        let child = DomainBuilder::new(CHILD, self.test.module()?)
            .args(&format!("mode=grammar seed={seed} victim={number} calls={calls} doorbell={doorbell}"))
            .memory(VICTIM_RAM)
            .grant_less(slot::BOARD, self.board.frame(), Rights::READ | Rights::WRITE, 0)
            .grant_less(slot::KCB, self.kcb, Rights::READ, 0)
            .grant_less(slot::IPI, task::STDOUT_DOORBELL, Rights::WRITE, 0)
            .grant_less(slot::NOTICE, self.notice, Rights::WRITE, 0)
            .grant_less(slot::PARTNER, self.endpoint, Rights::WRITE | Rights::GRANT, 1)
            .build()
            .map_err(text)?;
        let result = child.start().map_err(text).and_then(|()| self.watch(&child));
        child.destroy().map_err(text)?;
        result.map(|()| self.board.get(Word::Done))
    }

    /// Has the core looked over after each stage of the victim, until it has ended or waits for ever.
    fn watch(&mut self, victim: &Child) -> Result<(), String> {
        let mut done = 0;
        loop {
            let deadline = Deadline::after_ms(PATIENCE_MS);
            events::wait(Event::CHILD.bit() | self.reached.bit(), deadline);
            let reached = self.board.get(Word::Reached);
            if victim.end().is_some() {
                return Ok(());
            } else if reached != self.board.get(Word::Audited) {
                self.audit()?;
                self.audits += 1;
                self.board.set(Word::Audited, reached);
            } else if deadline.has_passed() {
                if self.board.get(Word::Done) == done {
                    self.stuck += 1;
                    return Ok(());
                }
                done = self.board.get(Word::Done);
            }
        }
    }

    /// Looks the core over: all that its CPU driver keeps is as it should be, and the others of it go on.
    fn audit(&self) -> Result<(), String> {
        runtime::audit::audit(self.kcb).map_err(text)?;
        self.bystander.check()
    }

    fn send<const N: usize>(&mut self, kind: Kind, words: [u64; N]) -> Result<(), String> {
        self.channel.send_blocking(&Message::new(kind, words), Deadline::NEVER).map_err(text)
    }

    /// Tells what came of all invocations.
    fn tell(&mut self) -> Result<(), String> {
        for operation in 0..OPERATIONS {
            for outcome in 0..OUTCOMES {
                let count = self.board.count(operation, outcome);
                if count > 0 {
                    self.send(COUNTED, [operation as u64, outcome as u64, count])?;
                }
            }
        }
        self.send(FINISHED, [self.victims, self.audits, self.stuck])?;
        // What was sent lies in this domain's memory until it was heard.
        match self.channel.recv_blocking(Deadline::NEVER) {
            Err(WaitError::Closed(Closed::HungUp)) => Ok(()),
            other => Err(format!("{other:?} instead of the end")),
        }
    }
}
