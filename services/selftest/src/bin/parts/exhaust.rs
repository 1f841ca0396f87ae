//! Uses something up until that is refused, for the reason that it should, and gives all of it back.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Debug;

use lmp::cptr::{L2_SLOTS, SlotRef, task};
use lmp::error::SysResult;
use lmp::invocation::MapFlags;
use lmp::objects::PAGE_SIZE;
use lmp::{CPtr, ObjType, SysError, syscall};
use runtime::endpoint::{Endpoint, EndpointError};
use runtime::memory::{self, Mapped, MemoryError, Object};
use runtime::{Env, events};
use selftest::exhausting::{DONE, tell};
use selftest::{Random, Shared};

/// Room for what one cycle collects, so that the heap does not grow while something is used up.
const ROOM: usize = 8192;
/// Messages that an endpoint has room for.
const MESSAGES: u32 = 4;

pub(crate) fn run(env: &Env, shared: &Shared) -> u64 {
    match cycles(env, shared) {
        Ok(()) => 0,
        Err(why) => {
            tell(shared, &why);
            1
        }
    }
}

/// What cycles collect things in.
struct Held {
    objects: Vec<Object>,
    slots: Vec<CPtr>,
    mapped: Vec<Mapped>,
    endpoints: Vec<Endpoint>,
    random: Random,
}

fn cycles(env: &Env, shared: &Shared) -> Result<(), String> {
    let what = env.value("what").unwrap_or_default();
    let mut held = Held {
        objects: Vec::new(),
        slots: Vec::new(),
        mapped: Vec::new(),
        endpoints: Vec::new(),
        random: Random::new(env.number("seed", 1)),
    };
    let cycle: fn(&mut Held) -> Result<(), String> = match what {
        "ram" => ram,
        "pieces" => pieces,
        "retype" => retype,
        "slots" => slots,
        "copies" => copies,
        "tables" => tables,
        "entries" => entries,
        "mappings" => mappings,
        "endpoints" => endpoints,
        "events" => all_events,
        _ => return Err(format!("nothing is called {what:?}")),
    };
    match what {
        "slots" => held.slots.reserve(ROOM),
        "mappings" => held.mapped.reserve(ROOM / 8),
        "endpoints" => held.endpoints.reserve(ROOM / 64),
        _ => {
            held.objects.reserve(ROOM / 8);
            held.slots.reserve(ROOM / 8);
        }
    }
    // What the runtime makes once and keeps, such as CNodes and page tables, is there after the first cycle.
    cycle(&mut held)?;
    let before = memory::stats();
    for n in 0..env.number("cycles", 1) {
        cycle(&mut held).map_err(|why| format!("cycle {n}: {why}"))?;
        let after = memory::stats();
        if after != before {
            return Err(format!("cycle {n}: {after:?} instead of {before:?}"));
        }
        shared.set(DONE, n + 1);
    }
    Ok(())
}

fn expect<T: Debug, E: Debug>(
    what: &str,
    found: Result<T, E>,
    right: impl Fn(&E) -> bool,
) -> Result<(), String> {
    match found {
        Err(error) if right(&error) => Ok(()),
        other => Err(format!("{what}: {other:?}")),
    }
}

fn refused(what: &str, found: SysResult, expected: SysError) -> Result<(), String> {
    expect(what, found, |error| *error == expected)
}

fn done<T, E: Debug>(what: &str, found: Result<T, E>) -> Result<T, String> {
    found.map_err(|error| format!("{what}: {error:?}"))
}

fn is_out_of_ram(error: &MemoryError) -> bool {
    matches!(error, MemoryError::OutOfRam { .. })
}

fn free_objects(held: &mut Held) -> Result<(), String> {
    held.objects.drain(..).try_for_each(|object| done("freeing", memory::free(object)))
}

fn free_slots(held: &mut Held) {
    held.slots.drain(..).for_each(memory::free_slot);
}

/// Makes objects until there is no RAM for one of them.
fn fill(held: &mut Held, next: impl Fn(&mut Random) -> (ObjType, u64)) -> Result<(), String> {
    let refusal = loop {
        let (ty, size) = next(&mut held.random);
        match memory::allocate(ty, size) {
            Ok(object) => held.objects.push(object),
            Err(error) => break error,
        }
        if held.objects.len() == held.objects.capacity() {
            return Err(String::from("it does not come to an end"));
        }
    };
    expect("the last object", Err::<(), _>(refusal), is_out_of_ram)?;
    free_objects(held)
}

fn ram(held: &mut Held) -> Result<(), String> {
    fill(held, |_| (ObjType::Frame, PAGE_SIZE))
}

fn pieces(held: &mut Held) -> Result<(), String> {
    fill(held, |random| {
        let ty = random.pick(&[
            ObjType::Frame,
            ObjType::Ram,
            ObjType::L1CNode,
            ObjType::L2CNode,
            ObjType::Dispatcher,
        ]);
        (ty, PAGE_SIZE * (1 + random.below(8)))
    })
}

fn tables(held: &mut Held) -> Result<(), String> {
    fill(held, |random| (random.pick(&[ObjType::Pml4, ObjType::Pdpt, ObjType::Pd, ObjType::Pt]), 0))
}

/// Makes frames of a piece of RAM until there is none left of it, and once more over what is there.
fn retype(held: &mut Held) -> Result<(), String> {
    const PAGES: u64 = 16;
    let ram = done("taking RAM", memory::allocate(ObjType::Ram, PAGES * PAGE_SIZE))?;
    for page in 0..PAGES {
        let slot = done("taking a slot", memory::slot())?;
        held.slots.push(slot);
        let made =
            syscall::cap_retype(task::ROOT, slot, ram.cap, ObjType::Frame, page * PAGE_SIZE, PAGE_SIZE, 1);
        done("making a frame", made)?;
    }
    let slot = done("taking a slot", memory::slot())?;
    held.slots.push(slot);
    let again = |offset| syscall::cap_retype(task::ROOT, slot, ram.cap, ObjType::Frame, offset, PAGE_SIZE, 1);
    refused("behind the end", again(PAGES * PAGE_SIZE), SysError::OutOfRange)?;
    refused("over another", again(0), SysError::Overlap)?;
    done("giving RAM back", memory::free(ram))?;
    free_slots(held);
    Ok(())
}

fn slots(held: &mut Held) -> Result<(), String> {
    let refusal = loop {
        match memory::slot() {
            Ok(slot) => held.slots.push(slot),
            Err(error) => break error,
        }
        if held.slots.len() == held.slots.capacity() {
            return Err(String::from("slots do not come to an end"));
        }
    };
    free_slots(held);
    // The capability space grows as long as there is RAM for it.
    expect("the last slot", Err::<(), _>(refusal), |error| {
        matches!(error, MemoryError::OutOfSlots | MemoryError::OutOfRam { .. })
    })
}

/// Fills a CNode of a capability space of its own by copies.
fn copies(_: &mut Held) -> Result<(), String> {
    let root = done("making a root", memory::allocate(ObjType::L1CNode, PAGE_SIZE))?;
    let cnode = done("making a CNode", memory::allocate(ObjType::L2CNode, 0))?;
    done("placing the CNode", syscall::cap_copy(root.cap, SlotRef::L1(0), cnode.cap))?;
    let copy = |slot| syscall::cap_copy(root.cap, slot, task::DISPATCHER_FRAME);
    for n in 0..L2_SLOTS {
        done("copying", copy(CPtr::new(0, n)))?;
    }
    for n in [0, L2_SLOTS / 2, L2_SLOTS - 1] {
        refused("into a full CNode", copy(CPtr::new(0, n)), SysError::SlotOccupied)?;
    }
    refused("where no CNode is", copy(CPtr::new(1, 0)), SysError::NoSuchSlot)?;
    refused("behind the root", copy(CPtr::new((PAGE_SIZE / 128) as u32, 0)), SysError::NoSuchSlot)?;
    done("giving the CNode back", memory::free(cnode))?;
    done("giving the root back", memory::free(root))
}

/// Fills a page table entry by entry.
fn entries(held: &mut Held) -> Result<(), String> {
    const ENTRIES: u64 = 512;
    let table = done("making a table", memory::allocate(ObjType::Pt, 0))?;
    let frame = done("making a frame", memory::allocate(ObjType::Frame, PAGE_SIZE))?;
    for _ in 0..=ENTRIES {
        held.slots.push(done("taking a slot", memory::slot())?);
    }
    let map = |entry, slot| syscall::vnode_map(table.cap, entry, frame.cap, 0, MapFlags::READ, 1, slot);
    for entry in 0..ENTRIES {
        done("mapping", map(entry, held.slots[entry as usize]))?;
    }
    let last = held.slots[ENTRIES as usize];
    refused("into a full table", map(0, last), SysError::EntryOccupied)?;
    refused("behind the table", map(ENTRIES, last), SysError::OutOfRange)?;
    done("giving the frame back", memory::free(frame))?;
    // The mappings went with their frame.
    done(
        "mapping nothing",
        match map(0, held.slots[0]) {
            Err(SysError::EmptySlot) => Ok(()),
            other => Err(other),
        },
    )?;
    done("giving the table back", memory::free(table))?;
    free_slots(held);
    Ok(())
}

/// Maps a frame again and again until there is no RAM for a page table, or no slot.
fn mappings(held: &mut Held) -> Result<(), String> {
    const BYTES: u64 = 64 << 10;
    let frame = done("making a frame", memory::allocate(ObjType::Frame, BYTES))?;
    let refusal = loop {
        match memory::map(frame.cap, 0, BYTES, MapFlags::READ) {
            Ok(mapped) => held.mapped.push(mapped),
            Err(error) => break error,
        }
        if held.mapped.len() == held.mapped.capacity() {
            return Err(String::from("mappings do not come to an end"));
        }
    };
    // SAFETY: nobody looked at the memory.
    held.mapped.drain(..).for_each(|mapped| unsafe { memory::unmap(mapped) });
    done("giving the frame back", memory::free(frame))?;
    expect("the last mapping", Err::<(), _>(refusal), |error| {
        matches!(error, MemoryError::OutOfRam { .. } | MemoryError::OutOfSlots | MemoryError::TablesFull)
    })
}

fn endpoints(held: &mut Held) -> Result<(), String> {
    let refusal = loop {
        match Endpoint::new(MESSAGES) {
            Ok(endpoint) => held.endpoints.push(endpoint),
            Err(error) => break error,
        }
        if held.endpoints.len() == held.endpoints.capacity() {
            return Err(String::from("endpoints do not come to an end"));
        }
    };
    held.endpoints.clear();
    expect("the last endpoint", Err::<(), _>(refusal), |error| {
        matches!(error, EndpointError::Memory(MemoryError::OutOfFrame { .. } | MemoryError::OutOfEvents))
    })
}

fn all_events(_: &mut Held) -> Result<(), String> {
    let mut taken = [None; 64];
    let count = taken
        .iter_mut()
        .map_while(|place| {
            *place = events::allocate();
            *place
        })
        .count();
    taken.into_iter().flatten().for_each(events::free);
    if count == 0 || count == taken.len() { Err(format!("{count} events")) } else { Ok(()) }
}
