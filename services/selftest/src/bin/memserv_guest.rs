//! A domain that takes memory from its core's memory server: does what its argument `do` says, and ends with 0 if it found
//! all as it should be.
//!
//! | `do` | what it does |
//! |---|---|
//! | `total`, `free` | ends with the bytes of the pool, or with those that are free |
//! | `frames` | takes frames far beyond its RAM, gives them back, and has nothing of the server's then |
//! | `heap`, `stack` | grows its heap or stack far beyond its RAM, finds it zeroed and keeps it |
//! | `recycle` | fills memory, gives it back, and finds what it gets again zeroed |
//! | `quota` | takes all it can get, and is told why there is no more |
//! | `messages` | grows its heap between messages that come to it |
//! | `hostile` | asks for what cannot be and gives back what it has not |
//! | `overflow` | runs out of its stack |
//! | `below`, `above`, `past-heap` | accesses what is beside a mapping, or behind the heap |
//! | `churn` | takes memory and gives it back some times, and waits for what never comes |
//! | `hoard` | takes all it can get, and waits for what never comes |
//! | `pass` | passes a frame of the server's memory to the service `memserv`, and waits for what never comes |
//! | `grow-heap` | grows its heap and drops it some times, and waits for what never comes |
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::hint::black_box;

use boot_freestanding as _;
use lmp::cptr::task;
use lmp::invocation::MapFlags;
use lmp::message::{self, Along};
use lmp::objects::PAGE_SIZE;
use lmp::{CPtr, ObjType, SysError, syscall};
use runtime::events::{self, Deadline};
use runtime::interface::mem::{GRANULE, MemError, PIECES_MAX, Request, Usage};
use runtime::memory::{self, MemoryError, Object};
use runtime::monitor::{self, Options};
use runtime::{Env, println};

runtime::entry!(main);

/// Exit code: something was not as it should be.
const WRONG: u64 = 1;
/// Exit code: the argument makes no sense.
const BAD_ARGUMENT: u64 = 3;

/// Bytes of a frame that is taken.
const FRAME: u64 = 32 << 10;
/// Rounds of taking and giving back, before the others get the core for good.
const ROUNDS: usize = 4;
/// Bytes taken beyond the own RAM, several times that.
const MUCH: u64 = 384 << 10;

fn main(env: &Env) -> u64 {
    let result = match env.value("do").unwrap_or("") {
        "total" => return usage().map_or(0, |usage| usage.total),
        "free" => return usage().map_or(0, |usage| usage.free),
        "frames" => frames(),
        "heap" => heap(),
        "stack" => stack(),
        "recycle" => recycle(),
        "quota" => quota(),
        "messages" => messages(),
        "hostile" => hostile(),
        "overflow" => overflow(),
        "below" => beside(|address, _| address - 1),
        "above" => beside(|address, len| address + len),
        "past-heap" => past_heap(),
        "churn" => churn(),
        "hoard" => hoard(),
        "pass" => pass(),
        "grow-heap" => grow_heap(),
        _ => return BAD_ARGUMENT,
    };
    match result {
        Ok(()) => 0,
        Err(why) => {
            println!("{why}");
            WRONG
        }
    }
}

fn said(error: MemoryError) -> String {
    format!("{error}")
}

fn usage() -> Result<Usage, String> {
    memory::usage().map_err(said)?.ok_or_else(|| String::from("there is no memory server"))
}

/// Checks what the server says that this domain has.
fn expect_held(what: &str, expected: u64) -> Result<(), String> {
    match usage()?.held {
        held if held == expected => Ok(()),
        held => Err(format!("{what}: the server says {held} bytes, not {expected}")),
    }
}

fn is_zero(words: &[u64]) -> Result<(), String> {
    match words.iter().position(|&word| word != 0) {
        None => Ok(()),
        Some(index) => Err(format!("word {index} of fresh memory is {:#x}", words[index])),
    }
}

/// Maps the frame, finds it zeroed, and leaves it full of something else.
fn use_all(object: &Object) -> Result<(), String> {
    let flags = MapFlags::READ | MapFlags::WRITE;
    let mapped = memory::map(object.cap, 0, object.size, flags).map_err(said)?;
    // SAFETY: the frame is mapped writable, of that size, and this domain alone has it; the slice is not used beyond the
    // mapping.
    unsafe {
        let words = core::slice::from_raw_parts_mut(mapped.as_ptr::<u64>(), (object.size / 8) as usize);
        let result = is_zero(words);
        words.fill(u64::MAX);
        memory::unmap(mapped);
        result
    }
}

/// Takes frames of all in all `bytes` bytes.
fn take(bytes: u64) -> Result<Vec<Object>, String> {
    (0..bytes / FRAME).map(|_| memory::allocate(ObjType::Frame, FRAME).map_err(said)).collect()
}

fn give_back(objects: Vec<Object>) -> Result<(), String> {
    objects.into_iter().try_for_each(|object| memory::free(object).map_err(said))
}

fn frames() -> Result<(), String> {
    expect_held("at the start", 0)?;
    let before = memory::stats();
    // The first round also makes CNodes and page tables, which stay and pin the piece that they lie in.
    for _ in 0..3 {
        let taken = take(MUCH)?;
        taken.iter().try_for_each(use_all)?;
        let stats = memory::stats();
        if stats.lent < MUCH - before.total || stats.total != before.total + stats.lent {
            return Err(format!("{} bytes were lent, {} are there", stats.lent, stats.total));
        }
        expect_held("with frames", stats.lent)?;
        give_back(taken)?;
        memory::trim();
        expect_held("after trimming", memory::stats().lent)?;
    }
    let kept = memory::stats().lent;
    // Straight from the server now: nothing stays with who needs nothing for itself.
    let piece = lend(GRANULE, 0)?;
    expect_held("with one more", kept + GRANULE)?;
    ask(&[Request::Free as u64, piece.physical])?;
    if syscall::cap_identify(task::ROOT, piece.cap) != Err(SysError::EmptySlot) {
        return Err(String::from("a piece that was given back is still here"));
    }
    memory::free_slot(piece.cap);
    expect_held("without it", kept)
}

fn heap() -> Result<(), String> {
    let words: Vec<u64> = vec![0; (MUCH / 8) as usize];
    is_zero(black_box(&words))?;
    let mut words = words;
    words.iter_mut().zip(1..).for_each(|(word, n)| *word = n);
    if !black_box(&words).iter().zip(1..).all(|(&word, n)| word == n) {
        return Err(String::from("the heap forgets"));
    }
    if usage()?.held < MUCH - RAM_AT_MOST { Err(String::from("the heap came from nowhere")) } else { Ok(()) }
}

/// More than a domain of the scenario starts with, in bytes.
const RAM_AT_MOST: u64 = 128 << 10;

/// Goes down the stack in steps of 8 KiB; what was never touched there is zero.
#[inline(never)]
fn descend(bytes: u64) -> u64 {
    let fresh = black_box([0u64; 1024]);
    let deeper = if bytes > 8192 { descend(bytes - 8192) } else { 0 };
    black_box(&fresh).iter().sum::<u64>() + deeper
}

fn stack() -> Result<(), String> {
    let sum = descend(MUCH);
    if sum != 0 {
        return Err(String::from("the stack forgets"));
    }
    if usage()?.held == 0 { Err(String::from("the stack came from nowhere")) } else { Ok(()) }
}

fn recycle() -> Result<(), String> {
    for _ in 0..4 {
        let taken = take(MUCH)?;
        taken.iter().try_for_each(use_all)?;
        give_back(taken)?;
        memory::trim();
    }
    Ok(())
}

fn quota() -> Result<(), String> {
    let mut taken = Vec::new();
    let error = loop {
        match memory::allocate(ObjType::Frame, FRAME) {
            Ok(frame) => taken.push(frame),
            Err(error) => break error,
        }
    };
    let MemoryError::NotLent { cause: MemError::OverQuota, .. } = error else {
        return Err(format!("all is taken: {error}"));
    };
    let Usage { held, quota, free, .. } = usage()?;
    if held > quota || held + GRANULE <= quota || free == 0 {
        return Err(format!("{held} bytes held of {quota}, {free} are free"));
    }
    // An allocation that is refused is no end of the domain.
    let mut bytes: Vec<u8> = Vec::new();
    if bytes.try_reserve(quota as usize).is_ok() {
        return Err(String::from("the heap has more than there is"));
    }
    let half = taken.split_off(taken.len() / 2);
    give_back(half)?;
    memory::trim();
    memory::allocate(ObjType::Frame, FRAME).map(|_| ()).map_err(said)
}

/// Messages that came before and after memory was asked for by faults are all there.
fn messages() -> Result<(), String> {
    let mut endpoint = runtime::endpoint::Endpoint::new(4).map_err(|e| format!("{e}"))?;
    message::send(endpoint.cap(), [1]).map_err(|e| format!("{e}"))?;
    heap()?;
    message::send(endpoint.cap(), [2]).map_err(|e| format!("{e}"))?;
    for expected in [1, 2] {
        let got =
            endpoint.try_receive().map_err(|e| format!("{e}"))?.map(|message| message.words.padded()[0]);
        if got != Some(expected) {
            return Err(format!("message {expected} came as {got:?}"));
        }
    }
    Ok(())
}

/// A piece of the server's, past the runtime.
struct Piece {
    cap: CPtr,
    physical: u64,
}

fn ask_with(words: &[u64], landing: CPtr) -> Result<[u64; 4], String> {
    let answer = message::call_with(task::MEMORY, words, Along { landing, ..Along::default() });
    let [code, a, b, c, d, ..] = answer.map_err(|e| format!("{e}"))?.words;
    match MemError::from_code(code) {
        None => Ok([a, b, c, d]),
        Some(error) => Err(format!("{error}")),
    }
}

fn ask(words: &[u64]) -> Result<[u64; 4], String> {
    ask_with(words, CPtr::NULL)
}

fn lend(bytes: u64, align: u64) -> Result<Piece, String> {
    let cap = memory::slot().map_err(said)?;
    match ask_with(&[Request::Allocate as u64, bytes, align], cap) {
        Ok([physical, ..]) => Ok(Piece { cap, physical }),
        Err(why) => {
            memory::free_slot(cap);
            Err(why)
        }
    }
}

fn refused<T>(what: &str, found: Result<T, String>, expected: MemError) -> Result<(), String> {
    match found {
        Err(why) if why == format!("{expected}") => Ok(()),
        Err(why) => Err(format!("{what}: {why}")),
        Ok(_) => Err(format!("{what} is not refused")),
    }
}

fn hostile() -> Result<(), String> {
    let before = usage()?;
    refused("no request", ask(&[0]), MemError::BadRequest)?;
    refused("a wild request", ask(&[u64::MAX; 10]), MemError::BadRequest)?;
    refused("no bytes", lend(0, 0), MemError::BadArgument)?;
    refused("all bytes", lend(u64::MAX, 0), MemError::BadArgument)?;
    refused("nearly all bytes", lend(u64::MAX - 2 * GRANULE, 0), MemError::OverQuota)?;
    refused("more than the share", lend(before.quota + 1, 0), MemError::OverQuota)?;
    refused("a wild alignment", lend(GRANULE, 3), MemError::BadArgument)?;
    refused("a far alignment", lend(GRANULE, 1 << 62), MemError::NoMemory)?;
    refused("the end of another", ask(&[Request::Release as u64, 1]), MemError::NotAllowed)?;
    for physical in (0..1000).map(|n| n * GRANULE).chain([u64::MAX, 1]) {
        refused("what others have", ask(&[Request::Free as u64, physical]), MemError::NotFound)?;
    }
    // Neither one that names no slot for the piece nor one that names a full one is charged for it.
    for slot in [CPtr::NULL, task::ROOT] {
        for _ in 0..100 {
            if ask_with(&[Request::Allocate as u64, GRANULE, 0], slot).is_ok() {
                return Err(String::from("a piece went nowhere"));
            }
        }
    }
    expect_held("after refusals", memory::stats().lent)?;
    // As many copies and parts of a piece as there is room for, and the piece goes with all of them.
    let piece = lend(GRANULE, 0)?;
    let slots = memory::slots(64).map_err(said)?;
    for n in 0..32 {
        syscall::cap_copy(task::ROOT, slots.offset(n), piece.cap).map_err(|e| format!("{e}"))?;
    }
    let parts = slots.offset(32);
    syscall::cap_retype(task::ROOT, parts, piece.cap, ObjType::Frame, 0, PAGE_SIZE, 16)
        .map_err(|e| format!("{e}"))?;
    refused("the inside", ask(&[Request::Free as u64, piece.physical + PAGE_SIZE]), MemError::NotFound)?;
    ask(&[Request::Free as u64, piece.physical])?;
    refused("twice", ask(&[Request::Free as u64, piece.physical]), MemError::NotFound)?;
    for slot in core::iter::once(piece.cap).chain((0..48).map(|n| slots.offset(n))) {
        if syscall::cap_identify(task::ROOT, slot) != Err(SysError::EmptySlot) {
            return Err(format!("slot {:#x} still has a part of what was given back", slot.0));
        }
    }
    // A flood of small pieces ends at this domain's own share, or at its number of pieces.
    let mut pieces = Vec::new();
    let why = loop {
        match lend(1, 0) {
            Ok(piece) => pieces.push(piece),
            Err(why) => break why,
        }
    };
    let limits = [MemError::OverQuota, MemError::TooMany].map(|error| format!("{error}"));
    if !limits.contains(&why) || pieces.len() > PIECES_MAX {
        return Err(format!("{} pieces, then {why}", pieces.len()));
    }
    for piece in pieces {
        ask(&[Request::Free as u64, piece.physical])?;
        memory::free_slot(piece.cap);
    }
    // What the runtime itself needed meanwhile stays.
    expect_held("after the flood", memory::stats().lent)
}

/// Goes on to the end of the stack.
#[expect(unconditional_recursion, reason = "that is what it is for")]
#[inline(never)]
fn dive(depth: u64) -> u64 {
    black_box(depth) + dive(black_box(depth + 1))
}

fn overflow() -> Result<(), String> {
    Err(format!("the stack has no end, at {}", dive(0)))
}

fn read(address: u64) {
    // SAFETY: nothing is mapped there, so the read has no effect but the fault that it is for.
    unsafe { (address as *const u8).read_volatile() };
}

/// Accesses the byte that `of` tells of two mappings side by side.
fn beside(of: impl Fn(u64, u64) -> u64) -> Result<(), String> {
    let flags = MapFlags::READ | MapFlags::WRITE;
    let frame = memory::allocate(ObjType::Frame, 2 * PAGE_SIZE).map_err(said)?;
    let map = || memory::map_guarded(frame.cap, 0, frame.size, flags).map_err(said);
    let (first, second) = (map()?, map()?);
    for mapped in [&first, &second] {
        read(mapped.address);
        read(mapped.address + mapped.len - 1);
    }
    let inner = first.address.max(second.address) - PAGE_SIZE;
    let at = [&first, &second].map(|mapped| of(mapped.address, mapped.len));
    // The one that lies towards the other.
    read(if at[0].abs_diff(inner) < at[1].abs_diff(inner) { at[0] } else { at[1] });
    Err(String::from("there is something beside a mapping"))
}

fn past_heap() -> Result<(), String> {
    let one = Box::new(1u8);
    // The allocator extends its range by some at a time, and never by so much.
    read(black_box(core::ptr::from_ref(&*one).addr() as u64) + (1 << 30));
    Err(String::from("there is something behind the heap"))
}

fn churn() -> Result<(), String> {
    for _ in 0..ROUNDS {
        // Others may have all there is.
        if let Ok(taken) = take(MUCH) {
            give_back(taken)?;
        }
        memory::trim();
        let _ = syscall::yield_core();
    }
    wait_for_ever()
}

fn wait_for_ever() -> ! {
    loop {
        events::wait(0, Deadline::NEVER);
    }
}

fn hoard() -> Result<(), String> {
    while memory::allocate(ObjType::Frame, FRAME).is_ok() {}
    wait_for_ever()
}

fn pass() -> Result<(), String> {
    let taken = take(MUCH)?;
    let frame = taken.last().ok_or("nothing was taken")?;
    let service = monitor::lookup("memserv").map_err(|e| format!("{e}"))?;
    let connection = monitor::bind(service, &Options::default()).map_err(|e| format!("{e}"))?;
    connection.send_cap(frame.cap).map_err(|e| format!("{e}"))?;
    wait_for_ever()
}

fn grow_heap() -> Result<(), String> {
    for round in 0..ROUNDS {
        let mut words: Vec<u8> = Vec::new();
        let bytes = MUCH as usize >> (ROUNDS - round);
        if words.try_reserve_exact(bytes).is_ok() {
            words.resize(bytes, 1);
            black_box(&words);
        }
        let _ = syscall::yield_core();
    }
    wait_for_ever()
}
