//! Scenario `memory`: the knowledge base gives out memory of the node asked for and of no other, refuses when that is
//! full, and has everything back in the end.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use boot_freestanding as _;
use lmp::cptr::task;
use lmp::invocation::MapFlags;
use lmp::message::{self, Along};
use lmp::objects::PAGE_SIZE;
use lmp::{CPtr, ObjType, SysError, syscall};
use results::{Event, EventKind};
use runtime::interface::skb::{Query, SkbError};
use runtime::{Env, memory, output};
use selftest::{Random, Test};
use skb_service::handover::TEST_ENDPOINT;

runtime::entry!(main);

/// Rounds of taking and giving back at random.
const ROUNDS: usize = 1000;
/// Frames held at a time in those rounds, at most.
const HELD: usize = 24;
/// The size of the pieces that fill a node, in bytes.
const PIECE: u64 = 2 << 20;

/// A query that was refused, or not answered at all.
enum Refusal {
    Skb(SkbError),
    Call(SysError),
    Words,
}

impl From<Refusal> for String {
    fn from(refusal: Refusal) -> String {
        match refusal {
            Refusal::Skb(error) => format!("{error}"),
            Refusal::Call(error) => format!("calling the knowledge base: {error}"),
            Refusal::Words => String::from("the answer has too few words"),
        }
    }
}

/// A frame of the knowledge base.
struct Frame {
    cap: CPtr,
    physical: u64,
}

/// Asks; the words of the answer behind the first, and the capability that came.
fn ask(query: Query, words: &[u64]) -> Result<([u64; 9], Option<CPtr>), Refusal> {
    let slot = memory::slot().map_err(|_| Refusal::Call(SysError::Exhausted))?;
    let sent: Vec<u64> = core::iter::once(query as u64).chain(words.iter().copied()).collect();
    let along = Along { landing: slot, ..Along::default() };
    let answer = message::call_with(TEST_ENDPOINT, &sent, along);
    let cap = answer.as_ref().is_ok_and(|answer| answer.info.cap()).then_some(slot);
    if cap.is_none() {
        memory::free_slot(slot);
    }
    let [code, words @ ..] = answer.map_err(Refusal::Call)?.words;
    match code {
        0 => Ok((words, cap)),
        code => Err(SkbError::from_code(code).map_or(Refusal::Words, Refusal::Skb)),
    }
}

fn allocate(node: u64, bytes: u64) -> Result<Frame, Refusal> {
    let ([physical, ..], cap) = ask(Query::Allocate, &[node, bytes])?;
    Ok(Frame { cap: cap.ok_or(Refusal::Words)?, physical })
}

fn free(frame: &Frame) -> Result<(), Refusal> {
    ask(Query::Free, &[frame.physical])?;
    memory::free_slot(frame.cap);
    Ok(())
}

/// Free and all bytes of a node.
fn account(node: u64) -> Result<(u64, u64), Refusal> {
    let ([free, all, ..], _) = ask(Query::Memory, &[node])?;
    Ok((free, all))
}

fn accounts(nodes: u64) -> Result<Vec<(u64, u64)>, Refusal> {
    (0..nodes).map(account).collect()
}

fn expect<T>(what: &str, found: Result<T, Refusal>, expected: SkbError) -> Result<(), String> {
    match found {
        Err(Refusal::Skb(error)) if error == expected => Ok(()),
        Err(other) => Err(format!("{what}: {}", String::from(other))),
        Ok(_) => Err(format!("{what} is not refused")),
    }
}

fn main(env: &Env) -> u64 {
    let mut test = Test::new(env);
    let nodes = env.number("nodes", 1);
    test.check("frames", frames(nodes));
    test.check("refusals", refusals(nodes));
    test.check("exhaustion", exhaustion(nodes));
    let result = rounds(nodes, Random::new(test.seed()));
    test.check("rounds", result);
    test.finish()
}

/// A frame is where the answer says, of the size asked for, zeroed, and gone when it was given back. The host knows
/// where the memory of each node is, and compares.
fn frames(nodes: u64) -> Result<(), String> {
    let before = accounts(nodes)?;
    for node in 0..nodes {
        for bytes in [1, PAGE_SIZE, 5 * PAGE_SIZE, PIECE] {
            // Twice, so that the second may find what the first left.
            for _ in 0..2 {
                let frame = allocate(node, bytes)?;
                let size = bytes.next_multiple_of(PAGE_SIZE);
                output::record(
                    Event::new(EventKind::Note)
                        .name("frame")
                        .detail(&format!("node {node} size {size}"))
                        .value(frame.physical),
                );
                let info = syscall::cap_identify(task::ROOT, frame.cap).map_err(|e| format!("{e}"))?;
                if (info.ty, info.base, info.size) != (ObjType::Frame, frame.physical, size) {
                    return Err(format!("{bytes} bytes on node {node} are {info:x?}"));
                }
                use_all(&frame, size).map_err(|e| format!("{bytes} bytes on node {node}: {e}"))?;
                free(&frame)?;
                let gone = syscall::cap_identify(task::ROOT, frame.cap);
                if gone != Err(SysError::EmptySlot) {
                    return Err(format!("a frame that was given back is still here: {gone:?}"));
                }
            }
        }
    }
    if accounts(nodes)? == before { Ok(()) } else { Err(String::from("not all memory is back")) }
}

/// Finds the frame zeroed, and leaves it full of something else.
fn use_all(frame: &Frame, size: u64) -> Result<(), String> {
    let mapped = memory::map(frame.cap, 0, size, MapFlags::READ | MapFlags::WRITE);
    let mapped = mapped.map_err(|e| format!("{e}"))?;
    let words = mapped.as_ptr::<u64>();
    for index in 0..(size / 8) as usize {
        // SAFETY: the frame is mapped writable, this test alone has it, and the word lies within.
        let found = unsafe { words.add(index).replace(u64::MAX) };
        if found != 0 {
            return Err(format!("word {index} is {found:#x}"));
        }
    }
    // SAFETY: nothing refers to the memory any more.
    unsafe { memory::unmap(mapped) };
    Ok(())
}

fn refusals(nodes: u64) -> Result<(), String> {
    expect("a node that is not there", allocate(nodes, PAGE_SIZE), SkbError::NotFound)?;
    expect("a node far out", allocate(u64::MAX, PAGE_SIZE), SkbError::NotFound)?;
    expect("no bytes", allocate(0, 0), SkbError::BadArgument)?;
    expect("all bytes", allocate(0, u64::MAX), SkbError::BadArgument)?;
    expect("more than there is", allocate(0, 1 << 50), SkbError::NoMemory)?;
    expect("the account of a node that is not there", account(nodes), SkbError::NotFound)?;
    let frame = allocate(0, 2 * PAGE_SIZE)?;
    let inside = ask(Query::Free, &[frame.physical + PAGE_SIZE]);
    expect("giving back the inside of a frame", inside, SkbError::NotFound)?;
    free(&frame)?;
    expect("giving back twice", ask(Query::Free, &[frame.physical]), SkbError::NotFound)
}

/// Fills each node in turn: the refusal says so, and no other node has less meanwhile.
fn exhaustion(nodes: u64) -> Result<(), String> {
    let before = accounts(nodes)?;
    for node in 0..nodes {
        let mut held = Vec::new();
        let refusal = loop {
            match allocate(node, PIECE) {
                Ok(frame) => held.push(frame),
                Err(refusal) => break refusal,
            }
        };
        expect("a full node", Err::<(), _>(refusal), SkbError::NoMemory)?;
        for (other, before) in (0..nodes).zip(&before) {
            let (free, all) = account(other)?;
            let taken = if other == node { held.len() as u64 * PIECE } else { 0 };
            if (free + taken, all) != *before {
                return Err(format!("node {other} has {free} bytes left after {taken} of {before:?}"));
            }
        }
        if held.is_empty() && before[node as usize].0 >= 2 * PIECE {
            return Err(format!("node {node} gives nothing"));
        }
        for frame in &held {
            free(frame)?;
        }
    }
    if accounts(nodes)? == before { Ok(()) } else { Err(String::from("not all memory is back")) }
}

/// Takes and gives back at random.
fn rounds(nodes: u64, mut random: Random) -> Result<(), String> {
    let (before, own) = (accounts(nodes)?, memory::stats().free_slots);
    let mut held: Vec<Frame> = Vec::new();
    for _ in 0..ROUNDS {
        if held.len() == HELD || (!held.is_empty() && random.below(2) == 0) {
            let frame = held.swap_remove(random.below(held.len() as u64) as usize);
            free(&frame)?;
        } else {
            let magnitude = 1 + random.below(17);
            let bytes = 1 + random.below(1 << magnitude);
            match allocate(random.below(nodes), bytes) {
                Ok(frame) => held.push(frame),
                // A node without memory says so.
                Err(Refusal::Skb(SkbError::NoMemory)) => {}
                Err(other) => return Err(other.into()),
            }
        }
    }
    for frame in held {
        free(&frame)?;
    }
    if accounts(nodes)? != before {
        return Err(String::from("not all memory is back"));
    }
    match memory::stats().free_slots {
        slots if slots == own => Ok(()),
        slots => Err(format!("{slots} slots are free, {own} were before")),
    }
}
