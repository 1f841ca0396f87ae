//! Scenario `links`: notification links whose writer and reader are this one core, which then interrupts itself.
//! They carry what is signalled, whatever their memory holds and whatever is taken away from them; and what a
//! monitor may tell its CPU driver about other cores.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};

use boot_freestanding as _;
use lmp::cptr::{L2_SLOTS, task};
use lmp::error::SysResult;
use lmp::invocation::{Counter, MapFlags, Op, header};
use lmp::objects::{CTE_SIZE, PAGE_SIZE};
use lmp::{CPtr, CoreId, ObjType, Rights, SlotRef, SysError, layout, syscall};
use runtime::events::{self, Deadline, Event};
use runtime::memory::{self, Object};
use runtime::{Env, println, time};
use selftest::Test;

runtime::entry!(main);

/// Signals of the long run.
const SIGNALS: u64 = 100_000;
/// Times that a pair of links is made and taken down: more often than there are pages for them.
const CYCLES: u64 = layout::LINKS_MAX + 100;
/// Words of a ring.
const WORDS: u64 = PAGE_SIZE / 8;
/// The event that all notifications of this test raise.
const EVENT: Event = Event::new(7);
/// A physical address behind all memory of the machine, where this core has device frames.
const NOWHERE: u64 = 1 << 36;
/// First physical address at which no memory of another core is looked for.
const LOW: u64 = 1 << 32;
/// A core that this one is not.
const OTHER: CoreId = CoreId(77);
/// How long a notification may take, in milliseconds.
const PATIENCE_MS: u64 = 1000;

/// A check: what went wrong, if anything.
type Check = fn(&Stage<'_>) -> Result<(), String>;

fn main(env: &Env) -> u64 {
    let mut test = Test::new(env);
    let checks: [(&str, Check); 10] = [
        ("signals", signals),
        ("badges", badges),
        ("table", table),
        ("overrun", overrun),
        ("garbage", garbage),
        ("takedown", takedown),
        ("revoke", revoke),
        ("exhaustion", exhaustion),
        ("arguments", arguments),
        ("foreign", foreign),
    ];
    for (name, check) in checks {
        let free = memory::stats().free;
        let result = Stage::new(env).and_then(|stage| {
            let result = check(&stage);
            result.and(stage.end())
        });
        let result = result.and_then(|()| match free.saturating_sub(memory::stats().free) {
            0 => Ok(()),
            // The first check pays for page tables and CNodes that stay.
            _ if name == "signals" => Ok(()),
            left => Err(format!("{left} bytes were left behind")),
        });
        test.check(name, result);
    }
    test.finish()
}

/// What each check starts from: a notification, a table with it in slot 5, and a pair of links over a frame.
struct Stage<'e> {
    env: &'e Env,
    notification: Object,
    table: Object,
    frame: Object,
    ring: memory::Mapped,
    reader: Object,
    writer: Object,
}

/// The slot of the table in which the notification is.
const ENTRY: u32 = 5;

fn said<E: core::fmt::Display>(what: &'static str) -> impl Fn(E) -> String {
    move |e| format!("{what}: {e}")
}

fn expect(what: &str, found: SysResult, expected: SysResult) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?} and not {expected:?}")) }
}

fn allocate(ty: ObjType) -> Result<Object, String> {
    memory::allocate(ty, PAGE_SIZE).map_err(said("allocating"))
}

fn free(object: Object) -> Result<(), String> {
    memory::free(object).map_err(said("freeing"))
}

fn slot() -> Result<CPtr, String> {
    memory::slot().map_err(said("a slot"))
}

/// Deletes what is in `slot` and gives the slot back.
fn drop_slot(slot: CPtr) -> Result<(), String> {
    syscall::cap_delete(task::ROOT, slot).map_err(said("deleting"))?;
    memory::free_slot(slot);
    Ok(())
}

/// The L1 slot by which the table's slots can be named: the last, which the runtime comes to last.
fn table_l1() -> Result<u32, String> {
    let root = syscall::cap_identify(task::ROOT, task::ROOT).map_err(said("the root"))?;
    Ok((root.size / CTE_SIZE) as u32 - 1)
}

impl<'e> Stage<'e> {
    fn new(env: &'e Env) -> Result<Stage<'e>, String> {
        let notification = allocate(ObjType::Notification)?;
        events::bind(notification.cap, EVENT).map_err(said("binding"))?;
        let table = allocate(ObjType::L2CNode)?;
        syscall::cap_copy(task::ROOT, SlotRef::L1(table_l1()?), table.cap).map_err(said("the table"))?;
        let frame = allocate(ObjType::Frame)?;
        let flags = MapFlags::READ | MapFlags::WRITE;
        let ring = memory::map(frame.cap, 0, PAGE_SIZE, flags).map_err(said("mapping"))?;
        let (reader, writer) = (allocate(ObjType::Link)?, allocate(ObjType::Link)?);
        let stage = Stage { env, notification, table, frame, ring, reader, writer };
        stage.fill(ENTRY, Rights::all(), 1 << ENTRY)?;
        syscall::link_configure_reader(reader.cap, frame.cap, 0, table.cap).map_err(said("the reader"))?;
        syscall::link_configure_writer(writer.cap, frame.cap, 0, env.info().apic_id)
            .map_err(said("the writer"))?;
        Ok(stage)
    }

    fn end(self) -> Result<(), String> {
        syscall::cap_delete(task::ROOT, SlotRef::L1(table_l1()?)).map_err(said("the table"))?;
        // SAFETY: the ring is referred to only through the mapping.
        unsafe { memory::unmap(self.ring) };
        for object in [self.reader, self.writer, self.table, self.frame, self.notification] {
            free(object)?;
        }
        Ok(())
    }

    /// Puts the notification into slot `entry` of the table.
    fn fill(&self, entry: u32, rights: Rights, badge: u64) -> Result<(), String> {
        let at = CPtr::new(table_l1()?, entry);
        syscall::cap_mint(task::ROOT, at, self.notification.cap, rights, badge).map_err(said("the table"))
    }

    /// Empties slot `entry` of the table.
    fn empty(&self, entry: u32) -> Result<(), String> {
        syscall::cap_delete(task::ROOT, CPtr::new(table_l1()?, entry)).map_err(said("the table"))
    }

    /// The right to signal entry `entry` by the writer.
    fn entry(&self, entry: u64) -> Result<CPtr, String> {
        let at = slot()?;
        syscall::cap_mint(task::ROOT, at, self.writer.cap, Rights::WRITE, entry + 1)
            .map_err(said("minting"))?;
        Ok(at)
    }

    /// Waits for an event and fetches the bits of the notification.
    fn bits(&self) -> Result<u64, String> {
        let ticks = self.env.info().tsc_ticks_per_ms.max(1);
        events::wait(EVENT.bit(), Deadline::after(PATIENCE_MS * ticks));
        syscall::notification_poll(self.notification.cap).map_err(said("polling"))
    }

    /// Requires that nothing is signalled for as long as many notifications take.
    fn silence(&self) -> Result<(), String> {
        for _ in 0..100 {
            let _ = syscall::yield_core();
        }
        match syscall::notification_poll(self.notification.cap).map_err(said("polling"))? {
            0 => Ok(()),
            bits => Err(format!("{bits:#x} was signalled")),
        }
    }

    /// Requires that `bits`, and nothing else, are signalled.
    fn require(&self, what: &str, bits: u64) -> Result<(), String> {
        let mut found = 0;
        while found != bits {
            match self.bits()? {
                0 => return Err(format!("{what}: {found:#x} was signalled and not {bits:#x}")),
                more if more & !bits != 0 => return Err(format!("{what}: {more:#x} was signalled too")),
                more => found |= more,
            }
        }
        Ok(())
    }

    /// Stores `word` into the ring where notification `number` belongs, as no writer does.
    fn forge(&self, number: u64, word: u64) {
        // SAFETY: the ring is mapped, a page, and its words are accessed atomically by all.
        let cell = unsafe { AtomicU64::from_ptr(self.ring.as_ptr::<u64>().add((number % WORDS) as usize)) };
        cell.store(word, Ordering::Release);
    }
}

/// The word of notification `number` for `entry`.
const fn word(number: u64, entry: u64) -> u64 {
    number << 16 | entry
}

/// Many signals of several entries: each arrives, and each is one interrupt.
fn signals(stage: &Stage<'_>) -> Result<(), String> {
    const ENTRIES: [u64; 4] = [0, 1, 100, 255];
    let mut caps = [CPtr::NULL; 4];
    for (n, (cap, entry)) in caps.iter_mut().zip(ENTRIES).enumerate() {
        stage.fill(entry as u32, Rights::all(), 1 << n)?;
        *cap = stage.entry(entry)?;
    }
    let ipis = || syscall::kcb_counter(task::KCB, Counter::IpisSent).map_err(said("a counter"));
    let (before, start) = (ipis()?, time::now());
    for i in 0..SIGNALS as usize {
        syscall::notification_signal(caps[i % 4]).map_err(said("signalling"))?;
        let bits = stage.bits()?;
        if bits != 1 << (i % 4) {
            return Err(format!("signal {i} came as {bits:#x}"));
        }
    }
    let (sent, took) = (ipis()? - before, time::now() - start);
    println!("{SIGNALS} signals, {} ticks each", took / SIGNALS);
    if sent != SIGNALS {
        return Err(format!("{sent} interrupts for {SIGNALS} signals"));
    }
    // Several before anybody looks are one.
    for i in 0..64 {
        syscall::notification_signal(caps[i % 3]).map_err(said("signalling"))?;
    }
    stage.require("several at once", 0b111)?;
    stage.silence()?;
    caps.into_iter().try_for_each(drop_slot)
}

/// What a capability for a link is good for is in its badge.
fn badges(stage: &Stage<'_>) -> Result<(), String> {
    let refused = Err(SysError::BadArgument);
    expect("no badge", syscall::notification_signal(stage.writer.cap), refused)?;
    for badge in [L2_SLOTS.into(), u64::from(L2_SLOTS) + 1, 1 << 16, 1 << 32 | 6, u64::MAX - 1] {
        let cap = stage.entry(badge)?;
        expect("a large badge", syscall::notification_signal(cap), refused)?;
        drop_slot(cap)?;
    }
    let right = stage.entry(ENTRY.into())?;
    let at = slot()?;
    let mint = |rights, badge| syscall::cap_mint(task::ROOT, at, right, rights, badge);
    expect("another badge", mint(Rights::WRITE, 9), refused)?;
    mint(Rights::empty(), 0).map_err(said("minting"))?;
    expect("no right", syscall::notification_signal(at), Err(SysError::MissingRight))?;
    drop_slot(at)?;
    let configure = syscall::link_configure_writer(right, stage.frame.cap, 0, 0);
    expect("configuring by a badge", configure, Err(SysError::MissingRight))?;
    let other = syscall::notification_poll(right).map(|_| ());
    expect("polling", other, Err(SysError::NoSuchOperation))?;
    stage.silence()?;
    syscall::notification_signal(right).map_err(said("signalling"))?;
    stage.require("the right one", 1 << ENTRY)?;
    drop_slot(right)
}

/// A slot of the table may hold anything.
fn table(stage: &Stage<'_>) -> Result<(), String> {
    let cap = stage.entry(ENTRY.into())?;
    let signal = || syscall::notification_signal(cap).map_err(said("signalling"));
    let at = CPtr::new(table_l1()?, ENTRY);
    stage.empty(ENTRY)?;
    signal()?;
    stage.silence()?;
    for object in [stage.frame.cap, stage.table.cap, stage.writer.cap, task::DISPATCHER] {
        syscall::cap_copy(task::ROOT, at, object).map_err(said("filling"))?;
        signal()?;
        stage.silence()?;
        stage.empty(ENTRY)?;
    }
    stage.fill(ENTRY, Rights::READ, 0)?;
    signal()?;
    stage.silence()?;
    stage.empty(ENTRY)?;
    stage.fill(ENTRY, Rights::WRITE, 1 << 40)?;
    signal()?;
    stage.require("filled again", 1 << 40)?;
    drop_slot(cap)
}

/// A ring that was overwritten before it was read: every entry is signalled.
fn overrun(stage: &Stage<'_>) -> Result<(), String> {
    stage.fill(0, Rights::all(), 1 << 0)?;
    stage.fill(255, Rights::all(), 1 << 8)?;
    let all = 1 << 0 | 1 << ENTRY | 1 << 8;
    // Another link to the same reader, only to interrupt it.
    let poke = Poke::new(stage.env)?;
    let mut next = 1;
    for _ in 0..3 {
        (next..next + WORDS).for_each(|n| stage.forge(n, word(n, 0)));
        next += WORDS;
        (next..next + 3).for_each(|n| stage.forge(n, word(n, 0)));
        poke.ring()?;
        stage.require("overrun", all)?;
        stage.silence()?;
        // The reader goes on behind what it found.
        stage.forge(next + 3, word(next + 3, ENTRY.into()));
        poke.ring()?;
        stage.require("after the overrun", 1 << ENTRY)?;
        (next + 4..next + WORDS).for_each(|n| stage.forge(n, word(n, ENTRY.into())));
        poke.ring()?;
        stage.require("a whole ring", 1 << ENTRY)?;
        stage.silence()?;
        next += WORDS;
    }
    poke.end()
}

/// Whatever is in a ring, no signal is lost and nothing else happens.
fn garbage(stage: &Stage<'_>) -> Result<(), String> {
    stage.fill(200, Rights::all(), 1 << 20)?;
    let all = 1 << ENTRY | 1 << 20;
    let poke = Poke::new(stage.env)?;
    // An entry that no table has.
    for (number, entry) in [(1, 256), (2, 0xffff)] {
        stage.forge(number, word(number, entry));
        poke.ring()?;
        stage.require("no such entry", all)?;
        stage.silence()?;
    }
    // What no writer stores: everything, each time somebody says "look", and no more than that.
    for nonsense in [word(2, 0), word(1 << 47, 7), word(4, 9), u64::MAX, word(1 << 40 | 3, 5)] {
        for _ in 0..3 {
            stage.forge(3, nonsense);
            poke.ring()?;
            stage.require("nonsense", all)?;
            stage.silence()?;
        }
    }
    // The writer, which is elsewhere, is heard, and then as it should be when it has caught up.
    let cap = stage.entry(ENTRY.into())?;
    for bits in [all, all, 1 << ENTRY, 1 << ENTRY] {
        syscall::notification_signal(cap).map_err(said("signalling"))?;
        stage.require("out of step", bits)?;
        stage.silence()?;
    }
    drop_slot(cap)?;
    // A ring full of it.
    let mut random = selftest::Random::new(stage.env.number("seed", 1));
    for _ in 0..200 {
        for at in 0..WORDS {
            stage.forge(at, word(random.below(4) * WORDS + at, random.below(300)));
        }
        poke.ring()?;
        let _ = syscall::yield_core();
        let bits = syscall::notification_poll(stage.notification.cap).map_err(said("polling"))?;
        if bits & !all != 0 {
            return Err(format!("{bits:#x} was signalled"));
        }
    }
    poke.end()
}

/// A pair of links of its own, to interrupt this core with.
struct Poke {
    frame: Object,
    table: Object,
    reader: Object,
    writer: Object,
    cap: CPtr,
}

impl Poke {
    fn new(env: &Env) -> Result<Poke, String> {
        let (frame, table) = (allocate(ObjType::Frame)?, allocate(ObjType::L2CNode)?);
        let (reader, writer) = (allocate(ObjType::Link)?, allocate(ObjType::Link)?);
        syscall::link_configure_reader(reader.cap, frame.cap, 0, table.cap).map_err(said("the reader"))?;
        syscall::link_configure_writer(writer.cap, frame.cap, 0, env.info().apic_id)
            .map_err(said("the writer"))?;
        let cap = slot()?;
        syscall::cap_mint(task::ROOT, cap, writer.cap, Rights::WRITE, 1).map_err(said("minting"))?;
        Ok(Poke { frame, table, reader, writer, cap })
    }

    fn ring(&self) -> Result<(), String> {
        syscall::notification_signal(self.cap).map_err(said("poking"))
    }

    fn end(self) -> Result<(), String> {
        drop_slot(self.cap)?;
        [self.reader, self.writer, self.table, self.frame].into_iter().try_for_each(free)
    }
}

/// Links go while they are in use, either end first, over and over.
fn takedown(stage: &Stage<'_>) -> Result<(), String> {
    let frame = allocate(ObjType::Frame)?;
    for cycle in 0..CYCLES {
        let (reader, writer) = (allocate(ObjType::Link)?, allocate(ObjType::Link)?);
        let (r, w) = (reader.cap, writer.cap);
        syscall::link_configure_writer(w, frame.cap, 0, stage.env.info().apic_id)
            .map_err(said("the writer"))?;
        let cap = slot()?;
        syscall::cap_mint(task::ROOT, cap, w, Rights::WRITE, u64::from(ENTRY) + 1)
            .map_err(said("minting"))?;
        let signal = || syscall::notification_signal(cap);
        // Before there is a reader: it looks when it comes.
        signal().map_err(said("signalling"))?;
        syscall::link_configure_reader(r, frame.cap, 0, stage.table.cap).map_err(said("the reader"))?;
        stage.require("before the reader", 1 << ENTRY)?;
        if cycle % 2 == 0 {
            free(reader)?;
            expect("no reader", signal(), Ok(()))?;
            syscall::cap_revoke(task::ROOT, w).map_err(said("revoking"))?;
            expect("no capability", signal(), Err(SysError::EmptySlot))?;
            memory::free_slot(cap);
            free(writer)?;
        } else {
            // The minted capability is the last one then.
            syscall::cap_delete(task::ROOT, w).map_err(said("deleting"))?;
            signal().map_err(said("by the last capability"))?;
            stage.require("the last capability", 1 << ENTRY)?;
            syscall::cap_copy(task::ROOT, w, cap).map_err(said("copying"))?;
            free(writer)?;
            memory::free_slot(cap);
            free(reader)?;
        }
    }
    stage.silence()?;
    free(frame)
}

/// Memory goes while links use it.
fn revoke(stage: &Stage<'_>) -> Result<(), String> {
    type Take = fn(CPtr) -> SysResult;
    let ways: [(&str, Take); 2] = [
        ("revoking", |frame| syscall::cap_revoke(task::ROOT, frame)),
        ("deleting", |frame| syscall::cap_delete(task::ROOT, frame)),
    ];
    let whole = memory::allocate(ObjType::Frame, 4 * PAGE_SIZE).map_err(said("allocating"))?;
    for (way, take) in ways {
        let (reader, writer) = (allocate(ObjType::Link)?, allocate(ObjType::Link)?);
        let (r, w) = (reader.cap, writer.cap);
        let (frame, copy, cap) = (slot()?, slot()?, slot()?);
        syscall::cap_retype(task::ROOT, frame, whole.cap, ObjType::Frame, PAGE_SIZE, 2 * PAGE_SIZE, 1)
            .map_err(said("a part of a frame"))?;
        syscall::cap_copy(task::ROOT, copy, frame).map_err(said("copying"))?;
        syscall::link_configure_writer(w, copy, PAGE_SIZE, stage.env.info().apic_id)
            .map_err(said("the writer"))?;
        syscall::link_configure_reader(r, copy, PAGE_SIZE, stage.table.cap).map_err(said("the reader"))?;
        syscall::cap_mint(task::ROOT, cap, w, Rights::WRITE, u64::from(ENTRY) + 1)
            .map_err(said("minting"))?;
        // A copy is as good as the other.
        drop_slot(copy)?;
        syscall::notification_signal(cap).map_err(said("signalling"))?;
        stage.require("before", 1 << ENTRY)?;
        take(frame).map_err(said(way))?;
        expect(way, syscall::notification_signal(cap), Err(SysError::NotBound))?;
        stage.silence()?;
        let again = syscall::link_configure_writer(w, stage.frame.cap, 0, 0);
        expect("configuring again", again, Err(SysError::AlreadyBound))?;
        // Neither is the reader's list any the worse for it.
        let other = stage.entry(ENTRY.into())?;
        syscall::notification_signal(other).map_err(said("signalling"))?;
        stage.require("the other reader", 1 << ENTRY)?;
        [cap, other].into_iter().try_for_each(drop_slot)?;
        [reader, writer].into_iter().try_for_each(free)?;
        if way == "revoking" {
            syscall::cap_delete(task::ROOT, frame).map_err(said("deleting"))?;
        }
        memory::free_slot(frame);
    }
    free(whole)?;
    // The table of a link goes: it is silent, and well when that is over.
    let (reader, table) = (allocate(ObjType::Link)?, allocate(ObjType::L2CNode)?);
    syscall::link_configure_reader(reader.cap, stage.frame.cap, 0, table.cap).map_err(said("the reader"))?;
    syscall::cap_revoke(task::ROOT, table.cap).map_err(said("revoking"))?;
    let cap = stage.entry(ENTRY.into())?;
    syscall::notification_signal(cap).map_err(said("signalling"))?;
    stage.require("the other reader", 1 << ENTRY)?;
    drop_slot(cap)?;
    free(reader)?;
    free(table)
}

/// All pages for links are used up, and come back.
fn exhaustion(stage: &Stage<'_>) -> Result<(), String> {
    const PER_CNODE: u64 = L2_SLOTS as u64;
    const CNODES: u64 = layout::LINKS_MAX / PER_CNODE + 1;
    let size = stage.reader.size;
    let ram = memory::allocate(ObjType::Ram, CNODES * PER_CNODE * size).map_err(said("allocating"))?;
    let at = |n: u64| -> Result<u32, String> { Ok(table_l1()? - 1 - (n / PER_CNODE) as u32) };
    let pages = layout::LINKS_MAX / 2 * PAGE_SIZE;
    let frame = memory::allocate(ObjType::Frame, pages).map_err(said("allocating"))?;
    let mut before = None;
    for _ in 0..2 {
        let mut cnodes = [None; CNODES as usize];
        for (n, cnode) in (0..).zip(&mut cnodes) {
            let object = allocate(ObjType::L2CNode)?;
            *cnode = Some(object);
            let l1 = at(n * PER_CNODE)?;
            syscall::cap_copy(task::ROOT, SlotRef::L1(l1), object.cap).map_err(said("a CNode"))?;
            let (first, offset) = (CPtr::new(l1, 0), n * PER_CNODE * size);
            syscall::cap_retype(task::ROOT, first, ram.cap, ObjType::Link, offset, size, PER_CNODE)
                .map_err(said("links"))?;
        }
        let configure = |n: u64| -> Result<SysResult, String> {
            let link = CPtr::new(at(n)?, (n % PER_CNODE) as u32);
            let page = n / 2 * PAGE_SIZE;
            Ok(match n % 2 {
                0 => syscall::link_configure_reader(link, frame.cap, page, stage.table.cap),
                _ => syscall::link_configure_writer(link, frame.cap, page, stage.env.info().apic_id),
            })
        };
        let configured = |n| -> Result<bool, String> { Ok(configure(n)?.is_ok()) };
        let mut made = 0;
        while made < CNODES * PER_CNODE && configured(made)? {
            made += 1;
        }
        // Some are the stage's and the monitor's.
        let plausible = (layout::LINKS_MAX / 2..=layout::LINKS_MAX - 2).contains(&made);
        if !plausible || *before.get_or_insert(made) != made {
            return Err(format!("{made} links were configured, and {before:?} before"));
        }
        expect("too many", configure(made)?, Err(SysError::Exhausted))?;
        // One among some five hundred readers.
        let cap = stage.entry(ENTRY.into())?;
        syscall::notification_signal(cap).map_err(said("signalling"))?;
        stage.require("many readers", 1 << ENTRY)?;
        drop_slot(cap)?;
        syscall::cap_revoke(task::ROOT, ram.cap).map_err(said("revoking"))?;
        for (n, cnode) in (0..).zip(cnodes) {
            syscall::cap_delete(task::ROOT, SlotRef::L1(at(n * PER_CNODE)?)).map_err(said("a CNode"))?;
            cnode.map_or(Ok(()), free)?;
        }
    }
    free(frame)?;
    free(ram)
}

/// Each bad argument of `ConfigureLink`, one by one, none of which uses the link up.
fn arguments(stage: &Stage<'_>) -> Result<(), String> {
    let link = allocate(ObjType::Link)?;
    let (frame, table) = (stage.frame.cap, stage.table.cap);
    let unconfigured = slot()?;
    syscall::cap_mint(task::ROOT, unconfigured, link.cap, Rights::WRITE, 1).map_err(said("minting"))?;
    expect("too early", syscall::notification_signal(unconfigured), Err(SysError::NotConfigured))?;
    drop_slot(unconfigured)?;

    let configure = |words: [u64; 4]| {
        let [frame, offset, end, partner] = words;
        let head = header(link.cap, Op::ConfigureLink);
        match syscall::call4(head, frame, offset, end, partner).0 as u16 {
            0 => Ok(()),
            code => Err(SysError::from_code(code).unwrap_or(SysError::NoSuchOperation)),
        }
    };
    const WRITER: u64 = 0;
    const READER: u64 = 1;
    let (f, t, empty) = (u64::from(frame.0), u64::from(table.0), u64::from(slot()?.0));
    let askew = [1, 64, PAGE_SIZE - 64, PAGE_SIZE + 8];
    let outside = [PAGE_SIZE, 1 << 40, 0u64.wrapping_sub(PAGE_SIZE)];
    for end in [2, 7, 256, u64::MAX] {
        expect("neither end", configure([f, 0, end, 0]), Err(SysError::BadArgument))?;
    }
    for (end, partner) in [(WRITER, 1), (READER, t)] {
        for offset in askew {
            expect("askew", configure([f, offset, end, partner]), Err(SysError::Misaligned))?;
        }
        for offset in outside {
            expect("outside", configure([f, offset, end, partner]), Err(SysError::OutOfRange))?;
        }
        for (cap, error) in [
            (t, SysError::WrongType),
            (task::KCB.0.into(), SysError::WrongType),
            (empty, SysError::EmptySlot),
            (1 << 32, SysError::NoSuchSlot),
            (u32::MAX.into(), SysError::NoSuchSlot),
        ] {
            expect("no frame", configure([cap, 0, end, partner]), Err(error))?;
        }
    }
    for apic_id in [u32::MAX.into(), 1 << 32, u64::MAX] {
        expect("no core", configure([f, 0, WRITER, apic_id]), Err(SysError::BadArgument))?;
    }
    for (cap, error) in [
        (f, SysError::WrongType),
        (task::ROOT.0.into(), SysError::WrongType),
        (empty, SysError::EmptySlot),
        (u64::MAX, SysError::NoSuchSlot),
    ] {
        expect("no table", configure([f, 0, READER, cap]), Err(error))?;
    }
    let less = slot()?;
    let mint = |cap, rights| {
        syscall::cap_mint(task::ROOT, less, cap, rights, 0).map_err(said("minting"))?;
        Ok::<u64, String>(less.0.into())
    };
    let delete = || syscall::cap_delete(task::ROOT, less).map_err(said("deleting"));
    for (end, rights) in [(WRITER, Rights::READ), (WRITER, Rights::WRITE), (READER, Rights::WRITE)] {
        let frame = mint(frame, rights)?;
        let partner = if end == READER { t } else { 1 };
        expect("a frame's right", configure([frame, 0, end, partner]), Err(SysError::MissingRight))?;
        delete()?;
    }
    let table = mint(table, Rights::WRITE)?;
    expect("a table's right", configure([f, 0, READER, table]), Err(SysError::MissingRight))?;
    delete()?;
    mint(link.cap, Rights::READ)?;
    let right = syscall::link_configure_reader(less, frame, 0, stage.table.cap);
    expect("a link's right", right, Err(SysError::MissingRight))?;
    delete()?;
    memory::free_slot(less);
    memory::free_slot(CPtr(empty as u32));
    let other = syscall::link_configure_reader(frame, frame, 0, stage.table.cap);
    expect("no link", other, Err(SysError::NoSuchOperation))?;

    configure([f, 0, READER, t]).map_err(said("after all that"))?;
    expect("twice", configure([f, 0, READER, t]), Err(SysError::AlreadyBound))?;
    expect("twice, the other end", configure([f, 0, WRITER, 1]), Err(SysError::AlreadyBound))?;
    let cap = slot()?;
    syscall::cap_mint(task::ROOT, cap, link.cap, Rights::WRITE, 1).map_err(said("minting"))?;
    expect("signalling by a reader", syscall::notification_signal(cap), Err(SysError::WrongState))?;
    drop_slot(cap)?;
    stage.silence()?;
    free(link)
}

/// Memory of another core is used like any, but made into nothing and taken back only through monitors.
fn foreign(stage: &Stage<'_>) -> Result<(), String> {
    const SIZE: u64 = 8 * PAGE_SIZE;
    let all = Rights::READ | Rights::WRITE;
    let own = syscall::cap_identify(task::ROOT, stage.frame.cap).map_err(said("a frame"))?;
    let core = CoreId(own.owner as u16);
    let cap = slot()?;
    let create = |base, size, owner| syscall::kcb_create_foreign(task::KCB, cap, all, base, size, owner);
    for (what, base, size, owner, error) in [
        ("this core", NOWHERE, SIZE, core, SysError::BadArgument),
        ("own memory", own.base, PAGE_SIZE, OTHER, SysError::Overlap),
        ("around own memory", 0, 1 << 32, OTHER, SysError::Overlap),
        ("into own memory", own.base - PAGE_SIZE, 2 * PAGE_SIZE, OTHER, SysError::Overlap),
        ("the APIC", 0xfee0_0000, PAGE_SIZE, OTHER, SysError::Overlap),
        ("no memory", NOWHERE, 0, OTHER, SysError::BadArgument),
        ("askew", NOWHERE + 8, SIZE, OTHER, SysError::Misaligned),
        ("not whole", NOWHERE, SIZE + 8, OTHER, SysError::Misaligned),
        ("a device", NOWHERE, SIZE, OTHER, SysError::Overlap),
        ("beyond all memory", 1 << 52, SIZE, OTHER, SysError::OutOfRange),
        ("around the end", u64::MAX - SIZE + 1, SIZE, OTHER, SysError::OutOfRange),
    ] {
        expect(what, create(base, size, owner), Err(error))?;
    }
    let raw = |dst: SlotRef, what: u64, owner: u64| {
        let head = header(task::KCB, Op::CreateForeign);
        match syscall::call5(head, dst.encode(), what, NOWHERE, SIZE, owner).0 as u16 {
            0 => Ok(()),
            code => Err(SysError::from_code(code).unwrap_or(SysError::NoSuchOperation)),
        }
    };
    const FRAME: u64 = ObjType::Frame as u64;
    for ty in ObjType::ALL.iter().filter(|ty| **ty != ObjType::Frame) {
        expect(ty.name(), raw(cap.into(), *ty as u64 | 3 << 8, 77), Err(SysError::WrongType))?;
    }
    expect("no type", raw(cap.into(), 0xff, 77), Err(SysError::WrongType))?;
    for what in [FRAME | 0x10 << 8, FRAME | 1 << 16, FRAME | 1 << 63] {
        expect("rights", raw(cap.into(), what, 77), Err(SysError::BadArgument))?;
    }
    expect("a core's number", raw(cap.into(), FRAME, 1 << 16), Err(SysError::BadArgument))?;
    expect("occupied", raw(stage.frame.cap.into(), FRAME, 77), Err(SysError::SlotOccupied))?;
    expect("an L1 slot", raw(SlotRef::L1(table_l1()? - 1), FRAME, 77), Err(SysError::WrongType))?;
    expect("no slot", raw(SlotRef::L1(1 << 20), FRAME, 77), Err(SysError::NoSuchSlot))?;
    let less = slot()?;
    syscall::cap_mint(task::ROOT, less, task::KCB, Rights::READ, 0).map_err(said("minting"))?;
    let created = syscall::kcb_create_foreign(less, cap, all, NOWHERE, SIZE, OTHER);
    expect("a right", created, Err(SysError::MissingRight))?;
    expect("a right", syscall::kcb_set_remote(less, cap, 0), Err(SysError::MissingRight))?;
    drop_slot(less)?;
    let created = syscall::kcb_create_foreign(stage.frame.cap, cap, all, NOWHERE, SIZE, OTHER);
    expect("no KCB", created, Err(SysError::NoSuchOperation))?;
    expect("nothing there", syscall::kcb_set_remote(task::KCB, cap, 0), Err(SysError::EmptySlot))?;

    // RAM that is not this core's, whoever uses it: it is only read here.
    let base = (PAGE_SIZE..LOW).step_by(2 << 20).find(|base| create(*base, SIZE, OTHER).is_ok());
    let base = base.ok_or("all memory is this core's")?;
    expect("bits", syscall::kcb_set_remote(task::KCB, cap, 8), Err(SysError::BadArgument))?;
    let (copy, less) = (slot()?, slot()?);
    syscall::cap_copy(task::ROOT, copy, cap).map_err(said("copying"))?;
    syscall::cap_mint(task::ROOT, less, copy, Rights::READ, 0).map_err(said("minting"))?;
    let info = syscall::cap_identify(task::ROOT, less).map_err(said("looking"))?;
    if (info.owner, info.remote & 7, info.rights, info.base, info.size)
        != (u32::from(OTHER.0), 1, Rights::READ, base, SIZE)
    {
        return Err(format!("a foreign frame is {info:?}"));
    }
    let mapped = memory::map(less, PAGE_SIZE, PAGE_SIZE, MapFlags::READ).map_err(said("mapping"))?;
    // SAFETY: the page is mapped, and any number is a number.
    let _ = unsafe { mapped.as_ptr::<u64>().read_volatile() };
    // SAFETY: nothing refers to it.
    unsafe { memory::unmap(mapped) };
    let made = slot()?;
    let retype = syscall::cap_retype(task::ROOT, made, cap, ObjType::Frame, 0, PAGE_SIZE, 1);
    expect("retyping", retype, Err(SysError::RetryThroughMonitor))?;
    memory::free_slot(made);
    // A ring in memory that holds anything.
    let reader = allocate(ObjType::Link)?;
    syscall::link_configure_reader(reader.cap, less, 0, stage.table.cap).map_err(said("the reader"))?;
    let poke = Poke::new(stage.env)?;
    poke.ring()?;
    while stage.bits()? != 0 {}
    poke.end()?;

    let revoke = || syscall::cap_revoke(task::ROOT, cap);
    expect("revoking", revoke(), Err(SysError::RetryThroughMonitor))?;
    syscall::kcb_set_remote(task::KCB, less, 0).map_err(said("the relations"))?;
    revoke().map_err(said("revoking"))?;
    for gone in [copy, less] {
        let found = syscall::cap_identify(task::ROOT, gone).map(|_| ());
        expect("a copy", found, Err(SysError::EmptySlot))?;
        memory::free_slot(gone);
    }
    free(reader)?;
    drop_slot(cap)?;

    // What this core owns is kept for as long as others have copies.
    let frame = allocate(ObjType::Frame)?;
    syscall::kcb_set_remote(task::KCB, frame.cap, 1).map_err(said("the relations"))?;
    for result in [syscall::cap_revoke(task::ROOT, frame.cap), syscall::cap_delete(task::ROOT, frame.cap)] {
        expect("a frame with copies elsewhere", result, Err(SysError::RetryThroughMonitor))?;
    }
    syscall::kcb_set_remote(task::KCB, frame.cap, 0).map_err(said("the relations"))?;
    free(frame)
}
