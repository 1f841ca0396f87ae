//! Bad input and awkward situations, one by one: each gets its error, changes nothing, or ends well.
//!
//! Where a comment begins with *Row*, the test is for a row of the system's table of bad input: the interface,
//! what comes there, and what is right.

mod common;

use caps::{AuditCursor, Budget, CSpace, Capability, CoreId, MappingRange, Mark, Progress, Remote};
use common::*;
use lmp::objects::{Extent, PAGE_SIZE};
use lmp::{CPtr, ObjType, Rights, SlotRef, SysError};

const ONE: Budget = Budget { objects: 1, bytes: 4096 };
const MIB: u64 = 1 << 20;
/// Bytes of an endpoint.
const ENDPOINT: u64 = match ObjType::Endpoint.extent() {
    Extent::Fixed(bytes) => bytes,
    _ => panic!("endpoints have a size"),
};

fn machine() -> Machine {
    Machine::new(4 * MIB)
}

fn ram() -> caps::Place {
    slot_at(RAM_SLOT)
}

fn mapping(entry: u32, count: u32, offset: u64) -> MappingRange {
    MappingRange { entry, count, offset, entry_bytes: PAGE_SIZE }
}

/// Maps like the kernel: the capability, then the entries.
fn map(
    m: &mut Machine,
    dst: caps::Place,
    object: caps::Place,
    table: caps::Place,
    range: MappingRange,
) -> Result<(), SysError> {
    let (o, t) = (caps::Slots::get(&m.arena, object.slot).cap, caps::Slots::get(&m.arena, table.slot).cap);
    m.finish(Budget::ENTRY, |db, s, _, _| db.insert_mapping(s, dst, object.slot, table.slot, range))?;
    for i in 0..range.count {
        let to = o.base + range.offset + i as u64 * range.entry_bytes;
        m.kernel.entries.insert((t.base, (range.entry + i) as u16), to);
    }
    m.check();
    Ok(())
}

/// Finishes what nobody comes back to, checking everything after each step.
fn finish_all(m: &mut Machine, budget: Budget) {
    for _ in 0..10_000 {
        m.check();
        let result = m.step(budget, |db, s, k, b| match db.clean(s, k, b) {
            Progress::Done => Ok(()),
            Progress::Again => Err(SysError::Again),
        });
        if result == Ok(()) {
            assert!(!m.db.has_unfinished());
            return;
        }
    }
    panic!("it does not end");
}

// Capability references.

/// Row *capability reference*: out of range, too deep; one typed error each.
#[test]
fn references_out_of_range_empty_or_too_deep_are_typed_errors() {
    let mut m = machine();
    let root = CSpace::new(m.cap(ROOT_SLOT)).unwrap();
    assert_eq!(root.slot(&m.arena, CPtr::new(32, 0)), Err(SysError::NoSuchSlot));
    assert_eq!(root.slot(&m.arena, CPtr(u32::MAX)), Err(SysError::NoSuchSlot));
    assert_eq!(root.slot(&m.arena, CPtr::new(5, 0)), Err(SysError::NoSuchSlot));
    assert_eq!(root.capability(&m.arena, CPtr::new(0, 200)), Err(SysError::EmptySlot));
    assert_eq!(root.capability(&m.arena, CPtr::new(0, 0)), Ok(ram().slot));
    assert_eq!(CSpace::EMPTY.slot(&m.arena, CPtr::NULL), Err(SysError::NoSuchSlot));
    assert_eq!(root.resolve(&m.arena, SlotRef::L1(32)), Err(SysError::NoSuchSlot));
    assert_eq!(root.resolve(&m.arena, SlotRef::L1(31)), Ok(l1_place(ROOT_L1, ROOT_L1_BYTES, 31)));
    assert_eq!(root.resolve(&m.arena, CPtr::new(0, 9).into()), Ok(slot_at(9)));
    // A slot whose capability is just being made cannot be used, but named.
    m.step(ONE, |db, s, k, b| {
        db.retype(s, k, place(ROOT_L2, 9), place(ROOT_L2, 0).slot, request(ObjType::Frame, 0, MIB, 1), b)
    })
    .unwrap_err();
    assert_eq!(root.capability(&m.arena, CPtr::new(0, 9)), Err(SysError::SlotBusy));
    assert_eq!(root.slot(&m.arena, CPtr::new(0, 9)), Ok(slot_at(9).slot));
}

/// Row *capability reference*: wrong type.
#[test]
fn only_an_l1_cnode_is_a_root_and_only_l2_cnodes_lie_in_it() {
    let mut m = machine();
    assert_eq!(CSpace::new(m.cap(RAM_SLOT)), Err(SysError::WrongType));
    let l1 = |i| l1_place(ROOT_L1, ROOT_L1_BYTES, i);
    assert_eq!(m.copy(l1(1), ram()), Err(SysError::WrongType));
    assert_eq!(m.copy(l1(1), slot_at(ROOT_SLOT)), Err(SysError::WrongType));
    assert_eq!(m.retype(l1(1), ram(), request(ObjType::Frame, 0, 4096, 1)), Err(SysError::WrongType));
    assert_eq!(m.retype(l1(1), ram(), request(ObjType::L2CNode, 0, L2_BYTES, 31)), Ok(()));
    let root = CSpace::new(m.cap(ROOT_SLOT)).unwrap();
    assert_eq!(root.slot(&m.arena, CPtr::new(2, 7)), Ok(place(RAM + L2_BYTES, 7).slot));
}

/// Row *capability reference*: cyclic CNode; the walk is bounded.
#[test]
fn a_cnode_that_holds_itself_cannot_loop_a_lookup() {
    let mut m = machine();
    m.copy(slot_at(2), slot_at(ROOT_SLOT)).unwrap();
    m.copy(slot_at(3), l1_place(ROOT_L1, ROOT_L1_BYTES, 0)).unwrap();
    let root = CSpace::new(m.cap(ROOT_SLOT)).unwrap();
    m.arena.visits.set(0);
    assert_eq!(root.capability(&m.arena, CPtr::new(0, 3)), Ok(slot_at(3).slot));
    assert_eq!(m.arena.visits.get(), 2);
}

#[test]
fn a_lookup_through_a_dying_cnode_is_busy() {
    let mut m = machine();
    let l1 = l1_place(ROOT_L1, ROOT_L1_BYTES, 1);
    m.retype(l1, ram(), request(ObjType::L2CNode, 0, L2_BYTES, 1)).unwrap();
    for i in 0..200 {
        m.copy(place(RAM, i), ram()).unwrap();
    }
    let root = CSpace::new(m.cap(ROOT_SLOT)).unwrap();
    assert_eq!(m.step(Budget::ENTRY, |db, s, k, b| db.delete(s, k, l1.slot, b)), Err(SysError::Again));
    assert_eq!(root.slot(&m.arena, CPtr::new(1, 100)), Err(SysError::SlotBusy));
    assert_eq!(m.delete(l1), Ok(()));
    assert_eq!(root.slot(&m.arena, CPtr::new(1, 100)), Err(SysError::NoSuchSlot));
    assert!(m.cap(RAM_SLOT).ty == ObjType::Ram);
}

// Forged capabilities.

#[test]
fn kernel_objects_are_never_mappable() {
    let mut m = machine();
    m.retype(slot_at(10), ram(), request(ObjType::Pml4, 0, 4096, 1)).unwrap();
    let kinds = [ObjType::L1CNode, ObjType::L2CNode, ObjType::Dispatcher, ObjType::Endpoint];
    let sizes = [4096, L2_BYTES, 1024, ENDPOINT];
    for (i, (ty, size)) in kinds.into_iter().zip(sizes).enumerate() {
        let at = slot_at(20 + i as u32);
        m.retype(at, ram(), request(ty, (i as u64 + 1) * 0x8000, size, 1)).unwrap();
        assert_eq!(map(&mut m, slot_at(30), at, slot_at(10), mapping(0, 1, 0)), Err(SysError::WrongType));
    }
    assert_eq!(map(&mut m, slot_at(30), ram(), slot_at(10), mapping(0, 1, 0)), Err(SysError::WrongType));
    // And a frame lies nowhere that a CNode is made, nor the other way round.
    assert_eq!(m.retype(slot_at(40), ram(), request(ObjType::Frame, 0, MIB, 1)), Err(SysError::Overlap));
    m.retype(slot_at(40), ram(), request(ObjType::Frame, MIB, MIB, 1)).unwrap();
    assert_eq!(
        m.retype(slot_at(41), ram(), request(ObjType::L2CNode, MIB, L2_BYTES, 1)),
        Err(SysError::Overlap)
    );
    assert_eq!(
        m.retype(slot_at(41), slot_at(40), request(ObjType::L2CNode, 0, L2_BYTES, 1)),
        Err(SysError::BadRetype)
    );
}

// Retype.

/// Row *retype*: overlap, occupied slots, size bits of 64 and more, count × size overflow, misalignment; all or
/// nothing.
#[test]
fn retype_refuses_each_bad_argument_with_its_own_error() {
    use ObjType::*;
    let mut m = machine();
    m.retype(slot_at(20), ram(), request(Frame, 2 * MIB, 4096, 1)).unwrap();
    let (dst, src) = (slot_at(10), ram());
    for (r, error) in [
        (request(Null, 0, 4096, 1), SysError::BadRetype),
        (request(Mapping, 0, 4096, 1), SysError::BadRetype),
        (request(Kcb, 0, 4096, 1), SysError::BadRetype),
        (request(DevFrame, 0, 4096, 1), SysError::BadRetype),
        (request(IoPort, 0, 1, 1), SysError::BadRetype),
        (request(Frame, 0, 4096, 0), SysError::BadArgument),
        (request(Frame, 0, 4096, 257), SysError::BadArgument),
        (request(Frame, 0, 4096, u64::MAX), SysError::BadArgument),
        (request(Frame, 0, 0, 1), SysError::BadArgument),
        (request(Dispatcher, 0, 2048, 1), SysError::BadArgument),
        (request(L2CNode, 0, 4096, 1), SysError::BadArgument),
        (request(Ram, 0, 4 * MIB, 1), SysError::BadArgument),
        (request(Frame, 0, 4096, 247), SysError::NoSuchSlot),
        (request(Frame, 0, 4097, 1), SysError::Misaligned),
        (request(Frame, 1, 4096, 1), SysError::Misaligned),
        (request(L2CNode, 4096, L2_BYTES, 1), SysError::Misaligned),
        (request(Dispatcher, 512, 1024, 1), SysError::Misaligned),
        (request(Frame, 4 * MIB, 4096, 1), SysError::OutOfRange),
        (request(Frame, 0, 4 * MIB + 4096, 1), SysError::OutOfRange),
        (request(Frame, u64::MAX - 4095, 4096, 2), SysError::OutOfRange),
        (request(Frame, 4096, !4095, 1), SysError::OutOfRange),
        (request(Frame, 0, 1 << 63, 2), SysError::OutOfRange),
        (request(Frame, 0, (1 << 63) + 4096, 2), SysError::OutOfRange),
        (request(Frame, 0, 1 << 56, 256), SysError::OutOfRange),
        (request(Frame, 2 * MIB - 4096, 4096, 2), SysError::Overlap),
        (request(Ram, 2 * MIB, 4096, 1), SysError::Overlap),
    ] {
        let dst = if r.count == 256 { slot_at(0) } else { dst };
        assert_eq!(m.retype(dst, src, r), Err(error), "{r:?}");
    }
    assert_eq!(m.retype(slot_at(19), src, request(Frame, 0, 4096, 2)), Err(SysError::SlotOccupied));
    assert_eq!(m.retype(dst, slot_at(50), request(Frame, 0, 4096, 1)), Err(SysError::EmptySlot));
    assert!(m.kernel.events.iter().filter(|e| matches!(e, Event::Zero(..))).count() == 1);
}

#[test]
fn an_object_as_large_as_its_source_is_in_the_way_too() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Ram, 0, L2_BYTES, 1)).unwrap();
    m.retype(slot_at(6), slot_at(5), request(ObjType::L2CNode, 0, L2_BYTES, 1)).unwrap();
    for src in [ram(), slot_at(5)] {
        assert_eq!(
            m.retype(slot_at(7), src, request(ObjType::Frame, 0, L2_BYTES, 1)),
            Err(SysError::Overlap)
        );
        assert_eq!(m.retype(slot_at(7), src, request(ObjType::Frame, 4096, 4096, 1)), Err(SysError::Overlap));
    }
}

/// Row *retype*: device memory into a kernel object.
#[test]
fn device_memory_becomes_no_kernel_object() {
    let mut m = machine();
    let at = slot_at(5);
    let device = Capability::new(ObjType::DevFrame, 0xfee0_0000, MIB, CORE);
    m.step(ONE, |db, s, _, _| db.insert_root(s, at, device)).unwrap();
    for ty in ObjType::ALL {
        let ok = *ty == ObjType::DevFrame;
        let result = m.retype(slot_at(6), at, request(*ty, 0, 4096, 1));
        assert_eq!(result, if ok { Ok(()) } else { Err(SysError::BadRetype) }, "{ty:?}");
    }
    assert!(m.kernel.events.iter().all(|e| !matches!(e, Event::Zero(..))));
}

/// Row *retype*: zeroed before use.
#[test]
fn memory_is_zeroed_before_use_and_not_twice() {
    let mut m = machine();
    m.retype(slot_at(10), ram(), request(ObjType::Frame, 0, 96 << 10, 2)).unwrap();
    let zeroed: Vec<_> = m.kernel.events.drain(..).collect();
    assert_eq!(
        zeroed,
        [
            Event::Zero(RAM, 64 << 10),
            Event::Zero(RAM + (64 << 10), 64 << 10),
            Event::Zero(RAM + (128 << 10), 64 << 10),
            Event::Init(ObjType::Frame, RAM + (96 << 10), 96 << 10),
            Event::Init(ObjType::Frame, RAM, 96 << 10),
        ]
    );
    // A frame's memory is in use: what is made from it keeps it.
    m.retype(slot_at(12), slot_at(10), request(ObjType::Frame, 0, 4096, 2)).unwrap();
    assert!(m.kernel.events.iter().all(|e| !matches!(e, Event::Zero(..))));
    // RAM is not zeroed, as nobody can look at it.
    m.retype(slot_at(14), ram(), request(ObjType::Ram, MIB, MIB, 2)).unwrap();
    assert!(m.kernel.events.iter().all(|e| !matches!(e, Event::Zero(..))));
}

#[test]
fn an_unfinished_retype_reserves_range_and_slots() {
    let mut m = machine();
    let src = ram();
    m.copy(slot_at(2), src).unwrap();
    let mine = request(ObjType::Frame, 0, MIB, 2);
    let (dst, other) = (slot_at(10), slot_at(2));
    let step = |m: &mut Machine| m.step(ONE, |db, s, k, b| db.retype(s, k, dst, src.slot, mine, b));
    assert_eq!(step(&mut m), Err(SysError::Again));
    m.check();
    // Neither range nor slots can be taken, through whatever capability; others are not in the way.
    for i in [10, 11] {
        assert_eq!(m.copy(slot_at(i), src), Err(SysError::SlotBusy));
        let root = CSpace::new(m.cap(ROOT_SLOT)).unwrap();
        assert!(root.capability(&m.arena, CPtr::new(0, i)).is_err());
    }
    for r in [request(ObjType::Frame, MIB, 4096, 1), request(ObjType::Ram, 0, 3 * MIB, 1)] {
        assert_eq!(m.retype(slot_at(20), other, r), Err(SysError::SlotBusy));
    }
    // The same slots for something else.
    assert_eq!(m.retype(dst, src, request(ObjType::Frame, 0, MIB, 1)), Err(SysError::SlotBusy));
    assert_eq!(m.retype(slot_at(20), other, request(ObjType::Frame, 2 * MIB, 4096, 1)), Ok(()));
    // Anybody can finish it, also through another capability of the source.
    assert_eq!(m.delete(src), Ok(()));
    assert_eq!(m.retype(dst, other, mine), Ok(()));
    assert_eq!((m.cap(10).base, m.cap(11).base), (RAM, RAM + MIB));
    assert_eq!((m.cap(10).size, m.cap(11).size), (MIB, MIB));
    let zeroed: u64 = m.kernel.events.iter().map(|e| if let Event::Zero(_, n) = e { *n } else { 0 }).sum();
    assert_eq!(zeroed, 2 * MIB + 4096);
}

#[test]
fn an_unfinished_retype_is_given_up_by_deleting_any_of_its_slots() {
    for victim in [10, 12] {
        let mut m = machine();
        let (dst, src, r) = (slot_at(10), ram(), request(ObjType::Frame, 0, 64 << 10, 3));
        let fresh = m.clone();
        m.step(Budget::ENTRY, |db, s, k, b| db.retype(s, k, dst, src.slot, r, b)).unwrap_err();
        assert_eq!(m.delete(slot_at(victim)), Ok(()));
        m.kernel.events.clear();
        // Ranks in the tree may tell of what was there; nothing else does.
        assert!(m.arena.caps().eq(fresh.arena.caps()) && m.db == fresh.db);
    }
}

/// Row *retype*: all or nothing, also over many steps.
#[test]
fn many_objects_appear_all_at_once() {
    let mut m = machine();
    let (dst, src) = (place(RAM, 0), ram());
    m.retype(slot_at(5), src, request(ObjType::L2CNode, 0, L2_BYTES, 1)).unwrap();
    let r = request(ObjType::Endpoint, MIB, ENDPOINT, 256);
    let mut steps = 0;
    loop {
        let visible = (0..256).filter(|i| {
            let cap = caps::Slots::get(&m.arena, place(RAM, *i).slot).cap;
            cap.ty == ObjType::Endpoint && cap.mark == Mark::Ready
        });
        assert_eq!(visible.count(), 0);
        match m.step(Budget::ENTRY, |db, s, k, b| db.retype(s, k, dst, src.slot, r, b)) {
            Ok(()) => break,
            Err(e) => assert_eq!(e, SysError::Again),
        }
        m.check();
        steps += 1;
    }
    assert_eq!(steps, 256 / Budget::ENTRY.objects - 1);
    for i in 0..256u32 {
        let cap = caps::Slots::get(&m.arena, place(RAM, i).slot).cap;
        let expected = Capability::new(ObjType::Endpoint, RAM + MIB + i as u64 * ENDPOINT, ENDPOINT, CORE);
        assert_eq!(cap, expected);
    }
    m.check();
}

#[test]
fn ram_split_altogether_is_no_copy_of_itself_while_it_is_split() {
    let mut m = machine();
    for i in [4, 200] {
        m.copy(slot_at(i), ram()).unwrap();
    }
    let (dst, r) = (slot_at(30), request(ObjType::Ram, 0, 1 << 16, 64));
    assert_eq!(m.step(ONE, |db, s, k, b| db.retype(s, k, dst, ram().slot, r, b)), Err(SysError::Again));
    m.check();
    for i in [RAM_SLOT, 200] {
        assert_eq!(m.delete(slot_at(i)), Ok(()));
    }
    assert_eq!(m.db.identify(&m.arena, slot_at(4).slot).unwrap().local, Remote::DESCENDANTS);
    assert_eq!(m.retype(dst, slot_at(4), r), Ok(()));
    assert_eq!((30..94).filter(|i| m.cap(*i).size == 1 << 16).count(), 64);
    m.retype(slot_at(100), slot_at(30), request(ObjType::Ram, 0, 4096, 16)).unwrap();
    m.revoke(slot_at(4)).unwrap();
    assert_eq!(m.arena.caps().count(), 3);
}

#[test]
fn once_objects_are_made_a_retype_can_only_be_finished() {
    let mut m = machine();
    let (dst, src) = (slot_at(10), ram());
    let r = request(ObjType::Endpoint, 0, ENDPOINT, 200);
    for _ in 0..2 {
        m.step(Budget::ENTRY, |db, s, k, b| db.retype(s, k, dst, src.slot, r, b)).unwrap_err();
    }
    assert_eq!(m.delete(slot_at(40)), Ok(()));
    assert!(m.cap(40).is_free());
    assert!((10..210).filter(|i| *i != 40).all(|i| m.cap(i).tag() == ObjType::Endpoint as u16));
}

#[test]
fn exhausted_ram_and_slots_are_errors_and_come_back() {
    let mut m = machine();
    let src = ram();
    for _ in 0..3 {
        for i in 0..4 {
            m.retype(slot_at(10 + i), src, request(ObjType::Frame, i as u64 * MIB, MIB, 1)).unwrap();
        }
        assert_eq!(m.retype(slot_at(20), src, request(ObjType::Frame, 0, 4096, 1)), Err(SysError::Overlap));
        for i in 14..256 {
            m.copy(slot_at(i), src).unwrap();
        }
        for i in 2..10 {
            m.copy(slot_at(i), src).unwrap();
        }
        assert_eq!(m.copy(slot_at(10), src), Err(SysError::SlotOccupied));
        m.revoke(src).unwrap();
        assert_eq!(m.arena.all().filter(|(_, c)| !c.cap.is_free()).count(), 3);
    }
}

#[test]
fn memory_out_of_the_window_is_not_zeroed() {
    let mut m = machine();
    m.kernel.foreign = Some((RAM + MIB, RAM + 2 * MIB));
    let r = request(ObjType::Frame, 0, MIB + 4096, 1);
    assert_eq!(m.retype(slot_at(5), ram(), r), Err(SysError::ForeignMemory));
    assert_eq!(m.retype(slot_at(5), ram(), request(ObjType::Ram, MIB, MIB, 1)), Ok(()));
    assert_eq!(m.retype(slot_at(6), ram(), request(ObjType::Frame, 0, MIB, 1)), Ok(()));
}

#[test]
fn products_have_no_more_rights_than_the_source() {
    let mut m = machine();
    let (src, dst) = (ram(), slot_at(5));
    m.step(ONE, |db, s, _, _| db.mint(s, dst, src.slot, Rights::READ, 0)).unwrap();
    m.retype(slot_at(6), dst, request(ObjType::Frame, 0, 4096, 1)).unwrap();
    assert_eq!(m.cap(6).rights, Rights::READ);
    m.retype(slot_at(7), slot_at(6), request(ObjType::Frame, 0, 4096, 1)).unwrap_err();
}

// Mint and copy.

/// Row *mint, copy*: more rights; rights only shrink.
#[test]
fn rights_only_shrink() {
    let mut m = machine();
    let src = ram();
    m.retype(slot_at(5), src, request(ObjType::Frame, 0, 4096, 1)).unwrap();
    let mint = |m: &mut Machine, to: u32, from: u32, rights| {
        let (dst, src) = (slot_at(to), slot_at(from));
        m.step(ONE, |db, s, _, _| db.mint(s, dst, src.slot, rights, 0))
    };
    mint(&mut m, 6, 5, Rights::READ | Rights::WRITE).unwrap();
    mint(&mut m, 7, 6, Rights::READ).unwrap();
    mint(&mut m, 8, 7, Rights::empty()).unwrap();
    for (from, rights) in [(6, Rights::EXECUTE), (7, Rights::READ | Rights::WRITE), (8, Rights::READ)] {
        assert_eq!(mint(&mut m, 9, from, rights), Err(SysError::MissingRight));
    }
    m.copy(slot_at(9), slot_at(7)).unwrap();
    assert_eq!(m.cap(9).rights, Rights::READ);
}

/// Row *mint, copy*: another's badge; refused.
#[test]
fn a_badge_is_given_once_and_only_where_it_means_something() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Endpoint, 0, ENDPOINT, 1)).unwrap();
    m.retype(slot_at(6), ram(), request(ObjType::Frame, 4096, 4096, 1)).unwrap();
    let mint = |m: &mut Machine, to: u32, from: u32, badge| {
        let (dst, src) = (slot_at(to), slot_at(from));
        m.step(ONE, |db, s, _, _| db.mint(s, dst, src.slot, Rights::WRITE, badge))
    };
    mint(&mut m, 10, 5, 77).unwrap();
    assert_eq!(m.cap(10).badge, 77);
    assert_eq!(mint(&mut m, 11, 10, 78), Err(SysError::BadArgument));
    mint(&mut m, 11, 10, 0).unwrap();
    mint(&mut m, 12, 10, 77).unwrap();
    assert_eq!((m.cap(11).badge, m.cap(12).badge), (77, 77));
    assert_eq!(mint(&mut m, 13, 6, 1), Err(SysError::WrongType));
}

#[test]
fn copies_are_refused_with_one_error_for_each_cause() {
    let mut m = machine();
    let src = ram();
    assert_eq!(m.copy(slot_at(5), slot_at(6)), Err(SysError::EmptySlot));
    assert_eq!(m.copy(slot_at(ROOT_SLOT), src), Err(SysError::SlotOccupied));
    assert_eq!(m.copy(src, src), Err(SysError::SlotOccupied));
}

// Delete and revoke.

#[test]
fn deleting_an_empty_slot_is_an_error() {
    let mut m = machine();
    assert_eq!(m.delete(slot_at(5)), Err(SysError::EmptySlot));
    assert_eq!(m.revoke(slot_at(5)), Err(SysError::EmptySlot));
}

#[test]
fn only_the_last_capability_takes_its_object_along() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Dispatcher, 0, 1024, 1)).unwrap();
    m.copy(slot_at(6), slot_at(5)).unwrap();
    m.kernel.events.clear();
    m.delete(slot_at(5)).unwrap();
    assert_eq!(m.kernel.events, []);
    m.kernel.dispatcher_steps = 100;
    let last = slot_at(6);
    assert_eq!(m.step(Budget::ENTRY, |db, s, k, b| db.delete(s, k, last.slot, b)), Err(SysError::Again));
    assert_eq!(m.cap(6).mark, Mark::Deleting);
    assert_eq!(m.copy(slot_at(7), last), Err(SysError::SlotBusy));
    assert_eq!(m.revoke(last), Err(SysError::SlotBusy));
    m.delete(last).unwrap();
    assert_eq!(m.kernel.events, [Event::Finalize(ObjType::Dispatcher, RAM, 1024)]);
    assert!(m.cap(6).is_free());
}

#[test]
fn descendants_stay_when_ram_is_deleted() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Ram, MIB, MIB, 1)).unwrap();
    m.retype(slot_at(6), slot_at(5), request(ObjType::Frame, 0, 4096, 1)).unwrap();
    m.delete(slot_at(5)).unwrap();
    assert_eq!(m.retype(slot_at(7), ram(), request(ObjType::Frame, MIB, 4096, 1)), Err(SysError::Overlap));
    m.delete(ram()).unwrap();
    assert_eq!(m.cap(6).ty, ObjType::Frame);
}

#[test]
fn a_domain_with_its_root_in_its_own_cnode_goes_by_revoke_and_delete() {
    let mut m = machine();
    // A child: an L1 CNode at 5 with an L2 CNode that holds a copy of it, and some more.
    let (l1, l2) = (RAM, RAM + L2_BYTES);
    m.retype(slot_at(5), ram(), request(ObjType::L1CNode, 0, 4096, 1)).unwrap();
    m.retype(l1_place(l1, 4096, 0), ram(), request(ObjType::L2CNode, L2_BYTES, L2_BYTES, 1)).unwrap();
    m.copy(place(l2, 1), slot_at(5)).unwrap();
    m.retype(place(l2, 2), ram(), request(ObjType::Dispatcher, MIB, 1024, 1)).unwrap();
    m.retype(place(l2, 3), ram(), request(ObjType::Frame, MIB + 4096, 4096, 5)).unwrap();
    m.kernel.events.clear();
    m.revoke(slot_at(5)).unwrap();
    assert_eq!(m.cap(5).ty, ObjType::L1CNode);
    m.delete(slot_at(5)).unwrap();
    assert_eq!(m.arena.all().filter(|(_, c)| !c.cap.is_free()).count(), 3);
    assert!(m.kernel.events.contains(&Event::Finalize(ObjType::Dispatcher, RAM + MIB, 1024)));
    assert_eq!(m.retype(slot_at(5), ram(), request(ObjType::Frame, 0, 4 * MIB, 1)), Ok(()));
}

/// Row *delete, revoke*: a CNode that holds itself, by the delete of the capability within it; bounded steps.
#[test]
fn a_domain_that_deletes_the_cnode_it_stands_in_goes() {
    for budget in [ONE, Budget::ENTRY] {
        let mut m = machine();
        let (l1, l2) = (RAM, RAM + L2_BYTES);
        m.retype(slot_at(5), ram(), request(ObjType::L1CNode, 0, 4096, 1)).unwrap();
        m.retype(l1_place(l1, 4096, 0), ram(), request(ObjType::L2CNode, L2_BYTES, L2_BYTES, 1)).unwrap();
        m.copy(place(l2, 1), slot_at(5)).unwrap();
        m.retype(place(l2, 3), ram(), request(ObjType::Frame, MIB + 4096, 4096, 5)).unwrap();
        // Nobody else holds the child's L1 CNode.
        m.delete(slot_at(5)).unwrap();
        let own = place(l2, 1);
        let _ = m.step(budget, |db, s, k, b| db.delete(s, k, own.slot, b));
        finish_all(&mut m, budget);
        assert_eq!(m.arena.all().filter(|(_, c)| !c.cap.is_free()).count(), 3);
        assert_eq!(m.retype(slot_at(5), ram(), request(ObjType::Frame, 0, 4 * MIB, 1)), Ok(()));
    }
}

/// Row *delete, revoke*: a CNode that holds itself, revoked and deleted from outside; bounded steps.
#[test]
fn a_cnode_that_holds_itself_goes_by_revoke_and_delete() {
    for budget in [ONE, Budget::ENTRY] {
        let mut m = machine();
        m.retype(slot_at(5), ram(), request(ObjType::L2CNode, 0, L2_BYTES, 1)).unwrap();
        m.copy(place(RAM, 0), slot_at(5)).unwrap();
        m.copy(place(RAM, 255), slot_at(5)).unwrap();
        let at = slot_at(5);
        assert_eq!(m.finish(budget, |db, s, k, b| db.revoke(s, k, at.slot, b)), Ok(()));
        assert_eq!(m.arena.caps().count(), 4);
        m.copy(place(RAM, 7), slot_at(5)).unwrap();
        // Its last capability is then the one within it.
        assert_eq!(m.finish(budget, |db, s, k, b| db.delete(s, k, at.slot, b)), Ok(()));
        assert_eq!(m.arena.caps().count(), 4);
        let own = place(RAM, 7);
        let _ = m.step(budget, |db, s, k, b| db.delete(s, k, own.slot, b));
        finish_all(&mut m, budget);
        assert_eq!(m.arena.caps().count(), 3);
    }
}

/// Row *delete, revoke*: one's own dispatcher, racing copy; bounded steps, one winner, others retry.
#[test]
fn a_dispatcher_that_goes_in_steps_is_not_copied_meanwhile() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Dispatcher, 0, 1024, 1)).unwrap();
    m.kernel.dispatcher_steps = 5;
    let at = slot_at(5);
    for _ in 0..4 {
        assert_eq!(m.step(ONE, |db, s, k, b| db.delete(s, k, at.slot, b)), Err(SysError::Again));
        m.check();
        assert_eq!(m.copy(slot_at(6), at), Err(SysError::SlotBusy));
        // Nor does its memory become something else.
        let r = request(ObjType::Frame, 0, 4096, 1);
        assert!(m.step(ONE, |db, s, k, b| db.retype(s, k, slot_at(6), ram().slot, r, b)).is_err());
    }
    assert_eq!(m.delete(at), Ok(()));
    let gone = Event::Finalize(ObjType::Dispatcher, RAM, 1024);
    assert_eq!(m.kernel.events.iter().filter(|e| **e == gone).count(), 1);
    assert_eq!(m.retype(slot_at(6), ram(), request(ObjType::Frame, 0, 4096, 1)), Ok(()));
}

#[test]
fn two_cnodes_that_hold_each_other_go() {
    for pinned in [None, Some(MIB)] {
        let mut m = machine();
        let (a, b) = (RAM, RAM + L2_BYTES);
        m.retype(slot_at(5), ram(), request(ObjType::L2CNode, 0, L2_BYTES, 2)).unwrap();
        m.copy(place(b, 5), slot_at(5)).unwrap();
        m.copy(place(a, 0), slot_at(6)).unwrap();
        m.retype(place(a, 7), ram(), request(ObjType::Dispatcher, MIB, 1024, 1)).unwrap();
        m.delete(slot_at(5)).unwrap();
        m.delete(slot_at(6)).unwrap();
        m.kernel.locked.extend(pinned.map(|offset| RAM + offset));
        // The first slot of each is where its own capability goes, while the delete of one of them waits.
        let slot = place(a, 0).slot;
        let all_at_once = Budget { objects: 100, bytes: 1 << 20 };
        m.step(all_at_once, |db, s, k, b| db.delete(s, k, slot, b)).unwrap();
        m.check();
        assert_eq!(m.arena.caps().count(), if pinned.is_some() { 5 } else { 3 });
        m.kernel.locked.clear();
        m.db.unpark(&mut m.arena);
        finish_all(&mut m, Budget::ENTRY);
        assert_eq!(m.arena.caps().count(), 3);
    }
}

#[test]
fn cnodes_within_cnodes_go_without_nesting() {
    for budget in [ONE, Budget::ENTRY] {
        let mut m = machine();
        // Each one's last capability lies in the one before, at its front or its back; the first at slot 5.
        m.retype(slot_at(5), ram(), request(ObjType::L2CNode, 0, L2_BYTES, 1)).unwrap();
        for i in 1..40u64 {
            let inside = place(RAM + (i - 1) * L2_BYTES, if i % 3 == 0 { 0 } else { 255 });
            m.retype(inside, ram(), request(ObjType::L2CNode, i * L2_BYTES, L2_BYTES, 1)).unwrap();
        }
        // And the innermost holds the first.
        m.copy(place(RAM + 39 * L2_BYTES, 0), slot_at(5)).unwrap();
        m.delete(slot_at(5)).unwrap();
        let innermost = place(RAM + 39 * L2_BYTES, 0);
        let _ = m.step(budget, |db, s, k, b| db.delete(s, k, innermost.slot, b));
        for steps in 0.. {
            if !m.db.has_unfinished() {
                break;
            }
            assert!(steps < 100_000);
            if steps % 64 == 0 {
                m.check();
            }
            let _ = m.step(budget, |db, s, k, b| match db.clean(s, k, b) {
                Progress::Done => Ok(()),
                Progress::Again => Err(SysError::Again),
            });
        }
        assert_eq!(m.arena.all().filter(|(_, c)| !c.cap.is_free()).count(), 3);
    }
}

#[test]
fn revoke_deletes_copies_and_descendants_and_nothing_else() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Ram, MIB, MIB, 2)).unwrap();
    m.copy(slot_at(7), slot_at(5)).unwrap();
    m.retype(slot_at(10), slot_at(7), request(ObjType::Frame, 0, 4096, 100)).unwrap();
    m.retype(slot_at(120), slot_at(10), request(ObjType::Frame, 0, 4096, 1)).unwrap_err();
    m.retype(slot_at(130), slot_at(6), request(ObjType::Frame, 0, 4096, 3)).unwrap();
    m.revoke(slot_at(5)).unwrap();
    let left: Vec<u32> = (0..256).filter(|i| !m.cap(*i).is_free()).collect();
    assert_eq!(left, [RAM_SLOT, ROOT_SLOT, 5, 6, 130, 131, 132]);
}

/// Row *delete, revoke*: racing copy or retype during a revoke; one winner, others retry.
#[test]
fn nothing_is_made_from_what_is_being_revoked() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Ram, 0, MIB, 1)).unwrap();
    m.retype(slot_at(10), slot_at(5), request(ObjType::Frame, 0, 4096, 100)).unwrap();
    let (revoked, last) = (slot_at(5), slot_at(109));
    assert_eq!(m.step(Budget::ENTRY, |db, s, k, b| db.revoke(s, k, revoked.slot, b)), Err(SysError::Again));
    assert_eq!(m.cap(109).ty, ObjType::Frame);
    for src in [revoked, last] {
        assert_eq!(m.copy(slot_at(120), src), Err(SysError::SlotBusy));
        assert_eq!(
            m.step(ONE, |db, s, _, _| db.mint(s, place(ROOT_L2, 120), src.slot, Rights::READ, 0)),
            Err(SysError::SlotBusy)
        );
    }
    let r = request(ObjType::Frame, MIB / 2, 4096, 1);
    assert_eq!(m.retype(slot_at(120), revoked, r), Err(SysError::SlotBusy));
    // What has nothing to do with it goes on.
    assert_eq!(m.retype(slot_at(120), ram(), request(ObjType::Frame, MIB, 4096, 1)), Ok(()));
    // It can be used for anything else meanwhile, and again for everything afterwards.
    let root = CSpace::new(m.cap(ROOT_SLOT)).unwrap();
    assert_eq!(root.capability(&m.arena, CPtr::new(0, 5)), Ok(revoked.slot));
    assert_eq!(m.revoke(revoked), Ok(()));
    assert_eq!(m.retype(slot_at(121), revoked, r), Ok(()));
}

/// Row *delete, revoke*: nested revoke; no descendant survives.
#[test]
fn a_second_revoke_helps_the_first() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Ram, 0, MIB, 2)).unwrap();
    m.retype(slot_at(10), slot_at(5), request(ObjType::Frame, 0, 4096, 100)).unwrap();
    m.retype(slot_at(120), slot_at(6), request(ObjType::Frame, 0, 4096, 100)).unwrap();
    let first = slot_at(5);
    m.step(Budget::ENTRY, |db, s, k, b| db.revoke(s, k, first.slot, b)).unwrap_err();
    m.revoke(slot_at(6)).unwrap();
    assert_eq!((0..256).filter(|i| !m.cap(*i).is_free()).count(), 4);
    // Also one of an ancestor, which takes the first revoke's own slot along.
    m.retype(slot_at(10), slot_at(5), request(ObjType::Frame, 0, 4096, 100)).unwrap();
    m.step(Budget::ENTRY, |db, s, k, b| db.revoke(s, k, first.slot, b)).unwrap_err();
    m.revoke(ram()).unwrap();
    assert_eq!((0..256).filter(|i| !m.cap(*i).is_free()).count(), 2);
}

#[test]
fn a_revoke_in_a_slot_used_again_is_a_new_one() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Ram, 0, MIB, 2)).unwrap();
    m.retype(slot_at(10), slot_at(5), request(ObjType::Frame, 0, 4096, 100)).unwrap();
    m.retype(slot_at(120), slot_at(6), request(ObjType::Frame, 0, 4096, 100)).unwrap();
    let slot = slot_at(5);
    m.step(Budget::ENTRY, |db, s, k, b| db.revoke(s, k, slot.slot, b)).unwrap_err();
    m.delete(slot).unwrap();
    m.copy(slot, slot_at(6)).unwrap();
    m.revoke(slot).unwrap();
    // Both have ended, and the first took its descendants along all the same.
    let left: Vec<u32> = (0..256).filter(|i| !m.cap(*i).is_free()).collect();
    assert_eq!(left, [RAM_SLOT, ROOT_SLOT, 5]);
}

#[test]
fn a_revoke_ends_even_if_its_own_slot_goes() {
    for budget in [ONE, Budget::ENTRY] {
        let mut m = machine();
        m.retype(slot_at(5), ram(), request(ObjType::L2CNode, 0, L2_BYTES, 1)).unwrap();
        m.retype(slot_at(6), ram(), request(ObjType::Ram, MIB, MIB, 1)).unwrap();
        // The capability revoked lies in a CNode made from it.
        let inside = place(RAM + MIB, 77);
        m.retype(slot_at(7), slot_at(6), request(ObjType::L2CNode, 0, L2_BYTES, 1)).unwrap();
        m.retype(slot_at(10), slot_at(6), request(ObjType::Frame, L2_BYTES, 4096, 100)).unwrap();
        m.copy(inside, slot_at(6)).unwrap();
        let _ = m.step(budget, |db, s, k, b| db.revoke(s, k, inside.slot, b));
        finish_all(&mut m, budget);
        assert_eq!((0..256).filter(|i| !m.cap(*i).is_free()).count(), 3);
        assert_eq!(m.retype(slot_at(8), ram(), request(ObjType::Frame, MIB, 2 * MIB, 1)), Ok(()));
    }
}

/// Row *delete, revoke*: racing retype that a revoke meets half done; no descendant survives.
#[test]
fn an_unfinished_retype_falls_to_a_revoke() {
    for zeroed in [1u32, 40] {
        let mut m = machine();
        let (dst, src) = (slot_at(10), slot_at(5));
        m.retype(src, ram(), request(ObjType::Ram, 0, MIB, 1)).unwrap();
        let r = request(ObjType::Endpoint, 0, ENDPOINT, 200);
        for _ in 0..zeroed {
            let _ = m.step(ONE, |db, s, k, b| db.retype(s, k, dst, src.slot, r, b));
        }
        m.revoke(src).unwrap();
        assert_eq!((0..256).filter(|i| !m.cap(*i).is_free()).count(), 3);
        assert_eq!(m.retype(dst, src, r), Ok(()));
    }
}

#[test]
fn a_cnode_with_an_unfinished_retype_goes() {
    for steps in [1u32, 40] {
        let mut m = machine();
        m.retype(slot_at(5), ram(), request(ObjType::L2CNode, 0, L2_BYTES, 1)).unwrap();
        let (dst, src) = (place(RAM, 0), ram());
        let r = request(ObjType::Endpoint, MIB, ENDPOINT, 200);
        for _ in 0..steps {
            let _ = m.step(ONE, |db, s, k, b| db.retype(s, k, dst, src.slot, r, b));
        }
        m.delete(slot_at(5)).unwrap();
        assert_eq!(m.arena.all().filter(|(_, c)| !c.cap.is_free()).count(), 3);
    }
}

#[test]
fn what_must_not_go_refuses_a_delete() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Kernel, 0, 2 * MIB, 1)).unwrap();
    m.copy(slot_at(6), slot_at(5)).unwrap();
    m.kernel.locked.insert(RAM);
    m.delete(slot_at(6)).unwrap();
    let before = m.clone();
    let last = slot_at(5);
    assert_eq!(m.step(ONE, |db, s, k, b| db.delete(s, k, last.slot, b)), Err(SysError::WrongState));
    assert!(before == m);
    m.kernel.locked.clear();
    m.delete(last).unwrap();
}

#[test]
fn what_must_not_go_stays_in_its_dying_cnode_and_keeps_its_memory() {
    for slot in [0, 3] {
        let mut m = machine();
        let cnode = RAM + 2 * MIB;
        m.retype(slot_at(5), ram(), request(ObjType::L2CNode, 2 * MIB, L2_BYTES, 1)).unwrap();
        m.retype(place(cnode, slot), ram(), request(ObjType::Kernel, 0, 2 * MIB, 1)).unwrap();
        m.retype(place(cnode, 9), ram(), request(ObjType::Frame, 3 * MIB, 4096, 1)).unwrap();
        m.kernel.locked.insert(RAM);
        assert_eq!(m.delete(slot_at(5)), Ok(()));
        assert!(m.cap(5).is_free());
        // The frame is gone, the instance and the CNode are not.
        assert_eq!(m.retype(slot_at(6), ram(), request(ObjType::Frame, 3 * MIB, 4096, 1)), Ok(()));
        for offset in [0, 2 * MIB] {
            let r = request(ObjType::Frame, offset, 4096, 1);
            assert!(matches!(m.retype(slot_at(7), ram(), r), Err(SysError::Overlap | SysError::SlotBusy)));
        }
        assert_eq!(m.revoke(ram()), Err(SysError::WrongState));
        assert!(m.cap(6).is_free());
        // When it may go, the rest follows.
        m.kernel.locked.clear();
        while m.db.unpark(&mut m.arena) {}
        finish_all(&mut m, Budget::ENTRY);
        assert_eq!(m.arena.caps().count(), 3);
        assert_eq!(m.revoke(ram()), Ok(()));
        assert_eq!(m.arena.all().filter(|(_, c)| !c.cap.is_free()).count(), 3);
    }
}

#[test]
fn others_deletes_go_on_beside_an_abandoned_one() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::L2CNode, 0, L2_BYTES, 2)).unwrap();
    for i in 0..256 {
        m.copy(place(RAM, i), ram()).unwrap();
    }
    let abandoned = slot_at(5);
    m.step(Budget::ENTRY, |db, s, k, b| db.delete(s, k, abandoned.slot, b)).unwrap_err();
    let other = slot_at(6);
    // An empty CNode takes one call, whatever waits below it on the list.
    assert_eq!(m.step(Budget::ENTRY, |db, s, k, b| db.delete(s, k, other.slot, b)), Ok(()));
    assert!(m.db.has_unfinished());
    m.check();
    m.delete(abandoned).unwrap();
    assert!(!m.db.has_unfinished());
}

#[test]
fn a_delete_that_somebody_else_finished_still_succeeds() {
    for with in [0, 1] {
        let mut m = machine();
        m.retype(slot_at(5), ram(), request(ObjType::Ram, 0, MIB, 1)).unwrap();
        m.retype(slot_at(6), slot_at(5), request(ObjType::Dispatcher, 0, 1024, 1)).unwrap();
        m.retype(slot_at(7), slot_at(5), request(ObjType::L2CNode, L2_BYTES, L2_BYTES, 1)).unwrap();
        for i in 0..100 {
            m.copy(place(RAM + L2_BYTES, i), ram()).unwrap();
        }
        m.kernel.dispatcher_steps = 100;
        for i in [6, 7] {
            let slot = slot_at(i).slot;
            m.step(Budget::ENTRY, |db, s, k, b| db.delete(s, k, slot, b)).unwrap_err();
        }
        match with {
            0 => finish_all(&mut m, Budget::ENTRY),
            _ => m.revoke(ram()).unwrap(),
        }
        for i in [6, 7] {
            assert_eq!(m.copy(slot_at(i), ram()), Err(SysError::SlotBusy));
            assert_eq!(m.delete(slot_at(i)), Ok(()));
            assert_eq!(m.delete(slot_at(i)), Err(SysError::EmptySlot));
        }
    }
}

// Mappings.

#[test]
fn a_mapping_ends_with_the_last_capability_of_its_frame() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Pt, 0, 4096, 1)).unwrap();
    m.retype(slot_at(6), ram(), request(ObjType::Frame, MIB, 64 << 10, 1)).unwrap();
    m.copy(slot_at(7), slot_at(6)).unwrap();
    for i in 0..100 {
        map(&mut m, slot_at(20 + i), slot_at(6), slot_at(5), mapping(i * 2, 2, 4096 * (i as u64 % 15)))
            .unwrap();
    }
    assert_eq!(m.kernel.entries.len(), 200);
    m.delete(slot_at(6)).unwrap();
    assert_eq!(m.kernel.entries.len(), 200);
    m.delete(slot_at(20)).unwrap();
    assert_eq!(m.kernel.entries.len(), 198);
    m.delete(slot_at(7)).unwrap();
    assert_eq!(m.kernel.entries.len(), 0);
    assert_eq!((0..256).filter(|i| !m.cap(*i).is_free()).count(), 3);
}

#[test]
fn entries_are_cleared_once_with_the_last_copy_of_a_mapping() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Pt, 0, 4096, 1)).unwrap();
    m.retype(slot_at(6), ram(), request(ObjType::Frame, MIB, 4096, 1)).unwrap();
    map(&mut m, slot_at(7), slot_at(6), slot_at(5), mapping(0, 1, 0)).unwrap();
    for i in 8..100 {
        m.copy(slot_at(i), slot_at(7)).unwrap();
    }
    m.kernel.events.clear();
    m.delete(slot_at(7)).unwrap();
    assert_eq!(m.kernel.entries.len(), 1);
    m.delete(slot_at(6)).unwrap();
    assert_eq!(m.kernel.events.iter().filter(|e| matches!(e, Event::Unmap(_))).count(), 1);
    assert_eq!(m.arena.caps().count(), 4);
}

#[test]
fn revoking_a_frame_unmaps_it_and_what_was_made_from_it() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Pt, 0, 4096, 1)).unwrap();
    m.retype(slot_at(6), ram(), request(ObjType::Frame, MIB, 64 << 10, 1)).unwrap();
    map(&mut m, slot_at(20), slot_at(6), slot_at(5), mapping(0, 16, 0)).unwrap();
    // A mapping of the source does not keep a part from being made; a part made before does.
    m.retype(slot_at(7), slot_at(6), request(ObjType::Frame, 8192, 8192, 1)).unwrap();
    assert_eq!(
        m.retype(slot_at(8), slot_at(6), request(ObjType::Frame, 12288, 8192, 1)),
        Err(SysError::Overlap)
    );
    map(&mut m, slot_at(21), slot_at(7), slot_at(5), mapping(100, 2, 0)).unwrap();
    m.copy(slot_at(22), slot_at(21)).unwrap();
    m.revoke(slot_at(7)).unwrap();
    assert_eq!(m.kernel.entries.len(), 16);
    m.revoke(slot_at(6)).unwrap();
    assert_eq!(m.kernel.entries.len(), 0);
    assert!(m.cap(6).ty == ObjType::Frame && m.cap(7).is_free());
}

#[test]
fn a_mapping_never_touches_another_table_at_the_same_address() {
    let mut m = machine();
    let table = request(ObjType::Pt, 0, 4096, 1);
    m.retype(slot_at(5), ram(), table).unwrap();
    m.retype(slot_at(6), ram(), request(ObjType::Frame, MIB, 4096, 1)).unwrap();
    map(&mut m, slot_at(7), slot_at(6), slot_at(5), mapping(0, 1, 0)).unwrap();
    m.delete(slot_at(5)).unwrap();
    m.retype(slot_at(5), ram(), table).unwrap();
    map(&mut m, slot_at(8), slot_at(6), slot_at(5), mapping(0, 1, 0)).unwrap();
    m.kernel.events.clear();
    assert_eq!(m.db.mapping_entries(&m.arena, slot_at(7).slot), Err(SysError::EntryEmpty));
    assert_eq!(m.db.mapping_entries(&m.arena, slot_at(6).slot), Err(SysError::WrongType));
    let entries = m.db.mapping_entries(&m.arena, slot_at(8).slot).unwrap();
    assert_eq!((entries.table, entries.entry, entries.address), (RAM, 0, RAM + MIB));
    m.delete(slot_at(7)).unwrap();
    assert_eq!(m.kernel.events, []);
    assert_eq!(m.kernel.entries.len(), 1);
    m.delete(slot_at(8)).unwrap();
    assert_eq!(m.kernel.entries.len(), 0);
}

#[test]
fn a_page_table_leaves_its_parent_when_it_goes() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Pd, 0, 4096, 1)).unwrap();
    m.retype(slot_at(6), ram(), request(ObjType::Pt, 4096, 4096, 1)).unwrap();
    map(&mut m, slot_at(7), slot_at(6), slot_at(5), mapping(3, 1, 0)).unwrap();
    m.delete(slot_at(6)).unwrap();
    assert!(m.kernel.entries.is_empty() && m.cap(7).is_free());
    assert_eq!(m.db.find_vnode(&m.arena, RAM + 4096), None);
    assert_eq!(m.db.find_vnode(&m.arena, RAM).map(|(ty, _)| ty), Some(ObjType::Pd));
}

#[test]
fn mappings_are_refused_with_one_error_for_each_cause() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Pt, 0, 4096, 1)).unwrap();
    m.retype(slot_at(6), ram(), request(ObjType::Frame, MIB, 8192, 1)).unwrap();
    for (object, table, range, error) in [
        (6, 6, mapping(0, 1, 0), SysError::WrongType),
        (RAM_SLOT, 5, mapping(0, 1, 0), SysError::WrongType),
        (9, 5, mapping(0, 1, 0), SysError::EmptySlot),
        (6, 9, mapping(0, 1, 0), SysError::EmptySlot),
        (6, 5, mapping(0, 0, 0), SysError::BadArgument),
        (6, 5, mapping(511, 2, 0), SysError::OutOfRange),
        (6, 5, mapping(u32::MAX, 2, 0), SysError::OutOfRange),
        (6, 5, mapping(0, 1, 8192), SysError::OutOfRange),
        (6, 5, mapping(0, 3, 0), SysError::OutOfRange),
        (6, 5, mapping(0, 1, !4095), SysError::OutOfRange),
        (6, 5, mapping(0, 1, 1), SysError::Misaligned),
        (6, 5, MappingRange { entry_bytes: u64::MAX, ..mapping(0, 2, 0) }, SysError::OutOfRange),
    ] {
        let (o, t) = (slot_at(object), slot_at(table));
        assert_eq!(map(&mut m, slot_at(10), o, t, range), Err(error), "{range:?}");
    }
    assert_eq!(
        map(&mut m, slot_at(6), slot_at(6), slot_at(5), mapping(0, 1, 0)),
        Err(SysError::SlotOccupied)
    );
}

// Other cores.

#[test]
fn memory_handed_over_serves_nothing_here() {
    let mut m = machine();
    let src = ram();
    m.retype(slot_at(5), src, request(ObjType::Ram, 0, MIB, 1)).unwrap();
    let give = |m: &mut Machine, i: u32| {
        let slot = slot_at(i).slot;
        m.step(ONE, |db, s, _, _| db.set_owner(s, slot, CoreId(9)))
    };
    assert_eq!(give(&mut m, RAM_SLOT), Err(SysError::WrongState), "has a descendant");
    assert_eq!(give(&mut m, ROOT_SLOT), Err(SysError::WrongType));
    m.copy(slot_at(6), slot_at(5)).unwrap();
    assert_eq!(give(&mut m, 5), Err(SysError::WrongState), "has a copy");
    m.delete(slot_at(6)).unwrap();
    assert_eq!(give(&mut m, 5), Ok(()));
    let r = request(ObjType::Frame, 0, 4096, 1);
    assert_eq!(m.retype(slot_at(6), slot_at(5), r), Err(SysError::RetryThroughMonitor));
    assert_eq!(m.revoke(slot_at(5)), Err(SysError::RetryThroughMonitor));
    // While an ancestor is here, it keeps that from making something else of the memory.
    assert_eq!(m.retype(slot_at(6), src, r), Err(SysError::Overlap));
    assert_eq!(m.delete(slot_at(5)), Err(SysError::RetryThroughMonitor));
    assert_eq!(m.revoke(src), Err(SysError::RetryThroughMonitor));
    m.retype(slot_at(7), src, request(ObjType::L2CNode, 2 * MIB, L2_BYTES, 1)).unwrap();
    m.copy(place(RAM + 2 * MIB, 3), slot_at(5)).unwrap();
    m.delete(slot_at(5)).unwrap();
    m.delete(slot_at(7)).unwrap();
    assert!(matches!(m.retype(slot_at(6), src, r), Err(SysError::Overlap | SysError::SlotBusy)));
    // Without one it is just a capability.
    let mut m = machine();
    assert_eq!(give(&mut m, RAM_SLOT), Ok(()));
    assert_eq!(m.delete(ram()), Ok(()));
}

#[test]
fn a_frame_handed_over_stays_readable_here() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Frame, 0, 2 * MIB, 1)).unwrap();
    m.retype(slot_at(6), ram(), request(ObjType::Pt, 2 * MIB, 4096, 1)).unwrap();
    for i in 10..14 {
        m.copy(slot_at(i), slot_at(5)).unwrap();
    }
    map(&mut m, slot_at(20), slot_at(11), slot_at(6), mapping(0, 1, 0)).unwrap();
    let slot = slot_at(12).slot;
    m.step(ONE, |db, s, _, _| db.set_owner(s, slot, CoreId(9))).unwrap();
    for i in [5, 10, 11, 12, 13] {
        assert_eq!(m.cap(i).owner, CoreId(9));
        let r = request(ObjType::Frame, 0, 4096, 1);
        assert_eq!(m.retype(slot_at(30), slot_at(i), r), Err(SysError::RetryThroughMonitor));
    }
    map(&mut m, slot_at(21), slot_at(11), slot_at(6), mapping(1, 1, 0)).unwrap();
    for i in [5, 10, 11, 12] {
        m.delete(slot_at(i)).unwrap();
    }
    // The last one keeps the memory from reuse: it is the other core's.
    assert_eq!(m.delete(slot_at(13)), Err(SysError::RetryThroughMonitor));
    assert_eq!(m.kernel.entries.len(), 2);
}

#[test]
fn a_dispatcher_takes_its_own_slots_along() {
    for budget in [ONE, Budget::ENTRY] {
        let mut m = machine();
        let own = |i| slot_in(ObjType::Dispatcher, RAM, 1024, i);
        m.retype(slot_at(5), ram(), request(ObjType::Dispatcher, 0, 1024, 1)).unwrap();
        m.retype(slot_at(6), ram(), request(ObjType::L1CNode, 8192, 4096, 1)).unwrap();
        m.retype(slot_at(7), ram(), request(ObjType::Pml4, 12288, 4096, 1)).unwrap();
        m.copy(own(0), slot_at(6)).unwrap();
        m.copy(own(1), slot_at(7)).unwrap();
        // The dispatcher holds the last capabilities, one of itself among them.
        m.copy(own(2), slot_at(5)).unwrap();
        m.delete(slot_at(6)).unwrap();
        m.delete(slot_at(7)).unwrap();
        assert!(m.kernel.events.iter().all(|e| !matches!(e, Event::Finalize(..))));
        m.delete(slot_at(5)).unwrap();
        assert_eq!(m.arena.caps().count(), 6);
        let slot = own(2).slot;
        let _ = m.step(budget, |db, s, k, b| db.delete(s, k, slot, b));
        finish_all(&mut m, budget);
        assert_eq!(m.arena.caps().count(), 3);
    }
}

/// Maps page `page` of the frame in `object` into the kernel's own table, by the first own slot of the link in
/// slot `link`.
fn map_for_link(m: &mut Machine, link: u32, object: u32, entry: u16, page: u64) -> Result<(), SysError> {
    const TABLE: u64 = 0xffff_0000;
    let (dst, source) = (slot_in(ObjType::Link, m.cap(link).base, 1024, 0), slot_at(object).slot);
    m.finish(Budget::ENTRY, |db, s, _, _| {
        db.insert_kernel_mapping(s, dst, source, TABLE, entry, page * PAGE_SIZE)
    })?;
    let to = m.cap(object).base + page * PAGE_SIZE;
    m.kernel.entries.insert((TABLE, entry), to);
    Ok(())
}

#[test]
fn a_link_lets_go_of_its_page_whatever_goes_first() {
    type Way = fn(&mut Machine) -> Result<(), SysError>;
    let ways: [(&str, Way); 5] = [
        ("the link is deleted", |m| m.delete(slot_at(5))),
        ("the last capability of the frame is deleted", |m| {
            m.delete(slot_at(6))?;
            assert_eq!(m.kernel.entries.len(), 1, "a copy is left");
            m.delete(slot_at(7))
        }),
        ("the frame is revoked", |m| m.revoke(slot_at(7))),
        ("the memory is revoked", |m| m.revoke(ram())),
        ("a frame of another core is revoked", |m| {
            let slot = slot_at(6).slot;
            m.step(ONE, |db, s, _, _| db.set_owner(s, slot, CoreId(9))).unwrap();
            m.revoke(slot_at(6))
        }),
    ];
    for (way, go) in ways {
        let mut m = machine();
        m.retype(slot_at(5), ram(), request(ObjType::Link, 0, 1024, 1)).unwrap();
        m.retype(slot_at(6), ram(), request(ObjType::Frame, 2 * MIB, 2 * MIB, 1)).unwrap();
        m.copy(slot_at(7), slot_at(6)).unwrap();
        map_for_link(&mut m, 5, 6, 9, 3).unwrap();
        assert_eq!(map_for_link(&mut m, 5, 6, 10, 3), Err(SysError::SlotOccupied));
        m.kernel.events.clear();
        assert_eq!(go(&mut m), Ok(()), "{way}");
        assert_eq!(m.kernel.entries.len(), 0, "{way}");
        let unmaps = m.kernel.events.iter().filter_map(|e| match e {
            Event::Unmap(unmap) => Some(unmap),
            _ => None,
        });
        let [unmap] = unmaps.collect::<Vec<_>>()[..] else { panic!("{way}: {:?}", m.kernel.events) };
        let expected = (ObjType::Pt, 9, 1, RAM + 2 * MIB + 3 * PAGE_SIZE);
        assert_eq!((unmap.table_type, unmap.entry, unmap.count, unmap.address), expected, "{way}");
    }
}

#[test]
fn a_kernel_mapping_is_refused_with_one_error_for_each_cause() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Link, 0, 1024, 1)).unwrap();
    m.retype(slot_at(6), ram(), request(ObjType::Frame, MIB, 8192, 1)).unwrap();
    assert_eq!(map_for_link(&mut m, 5, RAM_SLOT, 0, 0), Err(SysError::WrongType));
    assert_eq!(map_for_link(&mut m, 5, 99, 0, 0), Err(SysError::EmptySlot));
    assert_eq!(map_for_link(&mut m, 5, 6, 512, 0), Err(SysError::OutOfRange));
    assert_eq!(map_for_link(&mut m, 5, 6, 0, 2), Err(SysError::OutOfRange));
    assert_eq!(map_for_link(&mut m, 5, 6, 0, u64::MAX / PAGE_SIZE), Err(SysError::OutOfRange));
    let dst = slot_in(ObjType::Link, RAM, 1024, 0);
    let askew = m.step(ONE, |db, s, _, _| db.insert_kernel_mapping(s, dst, slot_at(6).slot, 0x1000, 0, 8));
    assert_eq!(askew, Err(SysError::Misaligned));
    assert_eq!(map_for_link(&mut m, 5, 6, 511, 1), Ok(()));
}

#[test]
fn remote_relations_send_one_to_the_monitor_through_every_copy() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Ram, 0, MIB, 1)).unwrap();
    let slot = slot_at(5).slot;
    m.step(ONE, |db, s, _, _| db.set_remote(s, slot, Remote::COPIES)).unwrap();
    // Copies in slots before and after the first one know it too, also when that one goes.
    m.copy(slot_at(4), slot_at(5)).unwrap();
    m.copy(slot_at(6), slot_at(5)).unwrap();
    m.delete(slot_at(4)).unwrap();
    m.delete(slot_at(5)).unwrap();
    assert_eq!(
        m.retype(slot_at(9), slot_at(6), request(ObjType::Frame, 0, 4096, 1)),
        Err(SysError::RetryThroughMonitor)
    );
    assert_eq!(m.delete(slot_at(6)), Err(SysError::RetryThroughMonitor));
    assert_eq!(m.revoke(slot_at(6)), Err(SysError::RetryThroughMonitor));
    let identity = m.db.identify(&m.arena, slot_at(6).slot).unwrap();
    assert_eq!(identity.cap.remote, Remote::COPIES);
    assert_eq!(identity.local, Remote::ANCESTORS);
    // A revoke from above deletes the others and reports it.
    m.retype(slot_at(9), ram(), request(ObjType::Frame, MIB, 4096, 1)).unwrap();
    assert_eq!(m.revoke(ram()), Err(SysError::RetryThroughMonitor));
    assert!(m.cap(9).is_free() && m.cap(6).ty == ObjType::Ram);
    let slot = slot_at(6).slot;
    m.step(ONE, |db, s, _, _| db.set_remote(s, slot, Remote::empty())).unwrap();
    assert_eq!(m.revoke(ram()), Ok(()));
}

#[test]
fn an_object_of_another_core_can_be_mapped_and_dropped() {
    let mut m = machine();
    let at = slot_at(5);
    let foreign = Capability::new(ObjType::Frame, 0x4000_0000, 4096, CoreId(9));
    m.step(ONE, |db, s, _, _| db.insert_foreign(s, at, foreign)).unwrap();
    m.copy(slot_at(6), at).unwrap();
    m.retype(slot_at(7), ram(), request(ObjType::Pt, 0, 4096, 1)).unwrap();
    map(&mut m, slot_at(8), slot_at(6), slot_at(7), mapping(0, 1, 0)).unwrap();
    m.delete(at).unwrap();
    assert_eq!(m.kernel.entries.len(), 1);
    m.delete(slot_at(6)).unwrap();
    assert_eq!(m.kernel.entries.len(), 0);
    assert!(m.cap(8).is_free());
    // Not as something of this core's, nor over anything of it.
    for cap in [
        Capability::new(ObjType::Frame, 0x4000_0000, 4096, CORE),
        Capability::new(ObjType::Frame, RAM - 4096, 8192, CoreId(9)),
        Capability::new(ObjType::Frame, RAM, 4096, CoreId(9)),
        Capability::new(ObjType::Ram, RAM, 4 * MIB, CoreId(9)),
        Capability::new(ObjType::Mapping, 0x4000_0000, 4096, CoreId(9)),
        Capability::new(ObjType::L2CNode, 0x4000_0000, L2_BYTES, CoreId(9)),
        Capability::new(ObjType::Frame, u64::MAX - 4095, 4096, CoreId(9)),
        Capability::new(ObjType::Frame, 1 << 56, 4096, CoreId(9)),
    ] {
        assert!(m.step(ONE, |db, s, _, _| db.insert_foreign(s, at, cap)).is_err(), "{cap:?}");
    }
}

/// A foreign frame is used like any, but nothing is made of it; its copies here go when its monitor has said
/// that they may, and none of that touches its memory.
#[test]
fn copies_of_another_cores_frame_come_and_go() {
    let mut m = machine();
    const BASE: u64 = 0x4000_0000;
    let foreign = Capability::new(ObjType::Frame, BASE, 8 * PAGE_SIZE, CoreId(9));
    m.step(ONE, |db, s, _, _| db.insert_foreign(s, slot_at(5), foreign)).unwrap();
    m.retype(slot_at(6), ram(), request(ObjType::Pt, 0, 4096, 1)).unwrap();
    m.retype(slot_at(7), ram(), request(ObjType::Link, 8192, 1024, 1)).unwrap();
    m.kernel.events.clear();
    let mint = |m: &mut Machine, dst: u32, src: u32, rights| {
        m.finish(Budget::ENTRY, |db, s, _, _| db.mint(s, slot_at(dst), slot_at(src).slot, rights, 0))
    };
    assert_eq!(mint(&mut m, 10, 5, Rights::READ), Ok(()));
    assert_eq!(mint(&mut m, 11, 10, Rights::READ | Rights::WRITE), Err(SysError::MissingRight));
    m.copy(slot_at(12), slot_at(10)).unwrap();
    map(&mut m, slot_at(13), slot_at(12), slot_at(6), mapping(4, 2, 4096)).unwrap();
    map_for_link(&mut m, 7, 10, 0, 7).unwrap();
    for i in [5, 10, 12] {
        let identity = m.db.identify(&m.arena, slot_at(i).slot).unwrap();
        assert_eq!((identity.cap.owner, identity.cap.remote), (CoreId(9), Remote::COPIES));
        assert_eq!(m.revoke(slot_at(i)), Err(SysError::RetryThroughMonitor));
        for ty in [ObjType::Frame, ObjType::L1CNode] {
            let made = m.retype(slot_at(20), slot_at(i), request(ty, 0, 4096, 1));
            assert!(matches!(made, Err(SysError::RetryThroughMonitor | SysError::BadRetype)), "{made:?}");
        }
    }
    let set = |m: &mut Machine, i: u32, remote| {
        m.step(ONE, |db, s, _, _| db.set_remote(s, slot_at(i).slot, remote)).unwrap();
    };
    // Any copy will do to say it, and any to revoke by.
    set(&mut m, 12, Remote::empty());
    m.revoke(slot_at(10)).unwrap();
    assert!([5, 12, 13].iter().all(|i| m.cap(*i).is_free()));
    assert_eq!(m.kernel.entries.len(), 0);
    m.delete(slot_at(10)).unwrap();
    assert!(!m.kernel.events.iter().any(|e| matches!(e, Event::Zero(..) | Event::Init(..))));
    // Nothing is left in the way of the same frame coming again.
    m.step(ONE, |db, s, _, _| db.insert_foreign(s, slot_at(5), foreign)).unwrap();
}

#[test]
fn what_the_kernel_puts_in_must_fit() {
    let mut m = machine();
    let at = slot_at(5);
    let mut insert = |ty, base, size| {
        let cap = Capability::new(ty, base, size, CORE);
        m.step(ONE, |db, s, _, _| db.insert_root(s, at, cap))
    };
    assert_eq!(insert(ObjType::Ram, RAM, 4 * MIB), Err(SysError::Overlap), "there already");
    assert_eq!(insert(ObjType::Ram, RAM - 4096, 8192), Err(SysError::Overlap), "across its start");
    assert_eq!(insert(ObjType::Ram, RAM + 4 * MIB - 4096, 8192), Err(SysError::Overlap), "across its end");
    assert_eq!(insert(ObjType::Ram, RAM - MIB, 8 * MIB), Err(SysError::Overlap), "around it");
    assert_eq!(insert(ObjType::DevFrame, RAM, 4096), Err(SysError::Overlap), "not made from RAM");
    assert_eq!(insert(ObjType::Frame, 0x8000_0000, 100), Err(SysError::Misaligned));
    assert_eq!(insert(ObjType::Frame, 0x8000_0000, 0), Err(SysError::BadArgument));
    assert_eq!(insert(ObjType::Pt, 0x8000_0000, 8192), Err(SysError::BadArgument));
    assert_eq!(insert(ObjType::Null, 0, 0), Err(SysError::WrongType));
    assert_eq!(insert(ObjType::Trampoline, 4096, 0), Err(SysError::BadArgument));
    assert_eq!(insert(ObjType::Trampoline, 0, 0), Ok(()));
    let at = slot_at(6);
    for (i, (ty, base, size)) in [
        (ObjType::IoPort, 0, 0x1_0000),
        (ObjType::Irq, 0x30, 0xc0),
        (ObjType::Ipi, 0, 1 << 40),
        (ObjType::Kcb, 0x7000, 4096),
        (ObjType::Frame, RAM, 4096),
    ]
    .into_iter()
    .enumerate()
    {
        let cap = Capability::new(ty, base, size, CORE);
        let place = place(ROOT_L2, 6 + i as u32);
        m.step(ONE, |db, s, _, _| db.insert_root(s, place, cap)).unwrap();
    }
    m.check();
    // Ports are retyped like memory, and do not mix with it.
    m.retype(slot_at(20), at, request(ObjType::IoPort, 0x3f8, 8, 1)).unwrap();
    assert_eq!(m.retype(slot_at(21), at, request(ObjType::IoPort, 0x3ff, 8, 1)), Err(SysError::Overlap));
    m.revoke(at).unwrap();
    assert_eq!(m.cap(8).ty, ObjType::Ipi);
    assert_eq!(m.db.innermost(&m.arena, lmp::objects::Space::Memory, RAM + 5), Some(slot_at(10).slot));
    assert_eq!(m.db.innermost(&m.arena, lmp::objects::Space::Memory, RAM + 4096), Some(ram().slot));
    assert_eq!(m.db.innermost(&m.arena, lmp::objects::Space::Memory, 0x9000_0000), None);
}

#[test]
fn identify_tells_relations() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Frame, MIB, MIB, 1)).unwrap();
    m.copy(slot_at(6), slot_at(5)).unwrap();
    let id = m.db.identify(&m.arena, slot_at(5).slot).unwrap();
    assert_eq!(id.local, Remote::COPIES | Remote::ANCESTORS);
    let word = ObjType::Frame as u64 | 0xf << 8 | 0x30 << 16 | (CORE.0 as u64) << 32;
    assert_eq!(id.words(), [word, RAM + MIB, MIB, 0]);
    let id = m.db.identify(&m.arena, ram().slot).unwrap();
    assert_eq!(id.local, Remote::DESCENDANTS);
    assert_eq!(m.db.identify(&m.arena, slot_at(9).slot), Err(SysError::EmptySlot));
}

#[test]
fn an_audit_sees_damage() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Frame, 0, 4096, 3)).unwrap();
    let audit = |m: &Machine| {
        m.db.audit_step(&m.arena, &mut AuditCursor::default(), &mut Budget { objects: 100, bytes: 4096 })
    };
    assert!(audit(&m).is_ok());
    let slot = slot_at(6).slot;
    let good = m.arena.clone();
    for damage in [
        (|c: &mut Capability| c.base += 4096 * 100) as fn(&mut Capability),
        |c| c.size = 3 * 4096,
        |c| c.ty = ObjType::DevFrame,
        |c| c.ty = ObjType::Null,
        |c| c.ty = ObjType::Mapping,
        |c| c.mark = Mark::Waiting,
        |c| c.mark = Mark::Reserved,
        |c| c.mark = Mark::Condemned,
        |c| c.base = 0,
    ] {
        m.arena = good.clone();
        damage(&mut caps::Slots::get_mut(&mut m.arena, slot).cap);
        assert!(audit(&m).is_err(), "{:?}", caps::Slots::get(&m.arena, slot).cap);
    }
}

// Rights to answer a call.

#[test]
fn a_reply_right_is_the_only_one_of_its_kind() {
    let mut m = machine();
    for (i, caller) in [(5, 0x1000), (6, 0x1000)] {
        m.step(ONE, |db, s, _, _| db.insert_reply(s, slot_at(i), caller)).unwrap();
        assert_eq!((m.cap(i).ty, m.cap(i).data[0], m.cap(i).size), (ObjType::Reply, caller, 0));
        m.check();
    }
    assert!(!m.cap(5).is_same_object(m.cap(6)));
    let occupied = m.step(ONE, |db, s, _, _| db.insert_reply(s, slot_at(6), 7));
    assert_eq!(occupied, Err(SysError::SlotOccupied));
    assert_eq!(m.copy(slot_at(7), slot_at(5)), Err(SysError::NotTransferable));
    let mint = |m: &mut Machine| {
        let src = slot_at(5).slot;
        m.step(ONE, |db, s, _, _| db.mint(s, slot_at(7), src, Rights::WRITE, 0))
    };
    assert_eq!(mint(&mut m), Err(SysError::NotTransferable));
    let give = m.step(ONE, |db, s, _, _| db.give(s, slot_at(7), slot_at(5).slot));
    assert_eq!(give, Err(SysError::NotTransferable));
    assert_eq!(m.step(ONE, |db, s, _, _| db.take_reply(s, ram().slot)), Err(SysError::WrongType));

    let right = m.cap(6).base;
    m.delete(slot_at(6)).unwrap();
    assert_eq!(m.kernel.events, [Event::Finalize(ObjType::Reply, right, 0)]);
    m.step(ONE, |db, s, _, _| db.take_reply(s, slot_at(5).slot)).unwrap();
    assert_eq!(m.kernel.events.len(), 1, "a right that was used is not given up");
    assert!(m.cap(5).is_free() && m.cap(6).is_free());
    m.check();
}

#[test]
fn a_reply_right_in_a_dying_cnode_is_given_up_where_it_lies() {
    for budget in [ONE, Budget::ENTRY] {
        let mut m = machine();
        m.retype(slot_at(5), ram(), request(ObjType::L2CNode, 0, L2_BYTES, 1)).unwrap();
        m.kernel.events.clear();
        // The first slot is where the dying CNode's own capability goes.
        for i in 0..3 {
            m.step(ONE, |db, s, _, _| db.insert_reply(s, place(RAM, i), 1 << 12)).unwrap();
        }
        m.finish(budget, |db, s, k, b| db.delete(s, k, slot_at(5).slot, b)).unwrap();
        let rights = |e: &&Event| matches!(e, Event::Finalize(ObjType::Reply, ..));
        assert_eq!(m.kernel.events.iter().filter(rights).count(), 3);
        assert_eq!(m.kernel.reply_slots, [0, 1, 2].map(|i| place(RAM, i).slot));
        assert!(m.cap(5).is_free());
    }
}

#[test]
fn a_capability_that_is_given_leaves_its_slot() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Frame, 0, 4096, 1)).unwrap();
    m.kernel.events.clear();
    let give = |m: &mut Machine, to, from: u32| {
        let from = slot_at(from).slot;
        m.step(ONE, |db, s, _, _| db.give(s, slot_at(to), from))
    };
    assert_eq!(give(&mut m, RAM_SLOT, 5), Err(SysError::SlotOccupied));
    assert_eq!(give(&mut m, 7, 6), Err(SysError::EmptySlot));
    let frame = *m.cap(5);
    give(&mut m, 6, 5).unwrap();
    assert!(m.cap(5).is_free());
    assert_eq!(*m.cap(6), frame);
    assert_eq!(m.kernel.events, [], "the object stays");
    m.check();
}

#[test]
fn unmapping_by_the_table_takes_its_mappings_only() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Pt, 0, 4096, 1)).unwrap();
    m.retype(slot_at(6), ram(), request(ObjType::Pt, 4096, 4096, 1)).unwrap();
    m.retype(slot_at(7), ram(), request(ObjType::Frame, 8192, 8192, 1)).unwrap();
    map(&mut m, slot_at(8), slot_at(7), slot_at(5), mapping(3, 2, 0)).unwrap();
    let unmap = |m: &mut Machine, slot: u32, table: u32| {
        let table = *m.cap(table);
        m.step(ONE, |db, s, k, _| db.unmap(s, k, slot_at(slot).slot, &table))
    };
    assert_eq!(unmap(&mut m, 9, 5), Err(SysError::EmptySlot));
    assert_eq!(unmap(&mut m, 7, 5), Err(SysError::WrongType));
    assert_eq!(unmap(&mut m, 8, 6), Err(SysError::BadArgument));
    assert_eq!(m.kernel.entries.len(), 2);
    // The entries are there as long as the mapping has a capability.
    m.copy(slot_at(9), slot_at(8)).unwrap();
    assert_eq!(unmap(&mut m, 8, 5), Ok(()));
    assert_eq!((m.kernel.entries.len(), m.cap(8).is_free()), (2, true));
    assert_eq!(unmap(&mut m, 9, 5), Ok(()));
    assert_eq!((m.kernel.entries.len(), m.cap(9).is_free()), (0, true));
    m.check();
    // A table made anew at the same address is another one.
    map(&mut m, slot_at(8), slot_at(7), slot_at(5), mapping(3, 2, 0)).unwrap();
    m.delete(slot_at(5)).unwrap();
    m.retype(slot_at(5), ram(), request(ObjType::Pt, 0, 4096, 1)).unwrap();
    assert_eq!(unmap(&mut m, 8, 5), Err(SysError::BadArgument));
    assert_eq!(m.delete(slot_at(8)), Ok(()));
}

#[test]
fn a_mapping_with_relations_elsewhere_is_not_unmapped() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Pt, 0, 4096, 1)).unwrap();
    m.retype(slot_at(7), ram(), request(ObjType::Frame, 8192, 4096, 1)).unwrap();
    map(&mut m, slot_at(8), slot_at(7), slot_at(5), mapping(0, 1, 0)).unwrap();
    m.step(ONE, |db, s, _, _| db.set_remote(s, slot_at(8).slot, Remote::COPIES)).unwrap();
    let table = *m.cap(5);
    let unmap = m.step(ONE, |db, s, k, _| db.unmap(s, k, slot_at(8).slot, &table));
    assert_eq!(unmap, Err(SysError::RetryThroughMonitor));
    assert_eq!(m.kernel.entries.len(), 1);
}

#[test]
fn a_capability_is_replaced_only_if_its_object_stays() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Frame, 0, 4096, 1)).unwrap();
    m.retype(slot_at(6), ram(), request(ObjType::Frame, 4096, 4096, 1)).unwrap();
    let replace = |m: &mut Machine, dst: u32, src: u32| {
        let src = slot_at(src).slot;
        m.step(ONE, |db, s, _, _| db.replace(s, slot_at(dst), src))
    };
    assert_eq!(replace(&mut m, 7, 5), Err(SysError::EmptySlot));
    assert_eq!(replace(&mut m, 5, 7), Err(SysError::EmptySlot));
    assert_eq!(replace(&mut m, 5, 6), Err(SysError::WrongState));
    assert_eq!(replace(&mut m, 5, 5), Ok(()));
    m.copy(slot_at(7), slot_at(5)).unwrap();
    m.kernel.events.clear();
    assert_eq!(replace(&mut m, 5, 6), Ok(()));
    assert!(m.cap(5).is_same_object(m.cap(6)) && !m.cap(7).is_same_object(m.cap(6)));
    assert_eq!(m.kernel.events, [], "no object came or went");
    m.check();
}

#[test]
fn the_copies_of_a_revoked_capability_go_in_steps_of_the_budget() {
    let mut m = machine();
    m.retype(slot_at(5), ram(), request(ObjType::Frame, 0, 8192, 1)).unwrap();
    for i in 0..40 {
        m.copy(slot_at(if i % 2 == 0 { 100 + i } else { 10 + i }), slot_at(5)).unwrap();
    }
    // A descendant among them, which comes last.
    m.retype(slot_at(200), slot_at(5), request(ObjType::Frame, 4096, 4096, 1)).unwrap();
    let mut steps = 0;
    let budget = Budget { objects: 8, bytes: 0 };
    while m.step(budget, |db, s, k, b| db.revoke(s, k, slot_at(5).slot, b)) == Err(SysError::Again) {
        m.check();
        steps += 1;
        let left = (6..200).filter(|i| !m.cap(*i).is_free()).count();
        assert_eq!(left, 40usize.saturating_sub(8 * steps), "after {steps} steps");
        assert!(steps < 10);
    }
    m.check();
    assert_eq!((steps, m.cap(200).is_free(), m.cap(5).ty), (5, true, ObjType::Frame));
    assert!(!m.db.has_unfinished());
}
