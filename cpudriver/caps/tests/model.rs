//! Random sequences of operations, against a naive model and against the invariants.
//!
//! Two ways: operations one after the other, each in steps of random size, against a model that knows lists
//! and nothing else; and operations of several clients mixed step by step, after which the invariants must
//! hold and all memory must come back.
//!
//! `cargo test` does a few thousand operations of each. `CAPS_OPERATIONS=10000000 cargo test --release -p caps
//! --test model` does as many as it says, from the seed `CAPS_SEED` (default 1).

mod common;

use caps::{
    Budget, Capability, Level, MappingRange, Mark, Place, Progress, Remote, Request, SlotAddr, Slots,
};
use common::*;
use lmp::objects::{CTE_SIZE, Extent, PAGE_SIZE, Space};
use lmp::{ObjType, Rights, SysError};
use proptest::prelude::*;
use std::collections::BTreeMap;

const RAM_BYTES: u64 = 1 << 20;

/// The words of one operation; what they mean depends on the state.
type Words = [u32; 6];

// The model: a list of capabilities.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    ty: ObjType,
    rights: Rights,
    base: u64,
    size: u64,
    badge: u64,
    /// Table, first entry, entries, offset.
    mapping: Option<(u64, u16, u16, u64)>,
    /// Tells mappings into tables apart that were at one address one after the other.
    era: u64,
}

impl Entry {
    fn of(cap: &Capability) -> Entry {
        let mapping = cap.mapping();
        Entry {
            ty: cap.ty,
            rights: cap.rights,
            base: cap.base,
            size: cap.size,
            badge: cap.badge,
            mapping: mapping.map(|m| (m.table, m.entry, m.count, m.offset)),
            era: mapping.map_or(0, |m| m.generation),
        }
    }

    fn same(&self, o: &Entry) -> bool {
        (self.ty, self.base, self.size, self.mapping, self.era) == (o.ty, o.base, o.size, o.mapping, o.era)
    }

    fn end(&self) -> u64 {
        self.base + self.size
    }

    fn is_cnode(&self) -> bool {
        self.ty.has_slots()
    }

    fn is_mapped(&self) -> bool {
        self.ty.is_mappable() || self.ty.is_vnode()
    }

    /// Whether `o` was, or could have been, made from this object.
    fn is_ancestor_of(&self, o: &Entry) -> bool {
        let within = self.ty.space() == o.ty.space()
            && self.ty.space() != Space::None
            && self.base <= o.base
            && o.end() <= self.end();
        let same_range = (self.base, self.size) == (o.base, o.size);
        match (self.ty, o.ty) {
            (ObjType::Mapping, _) => false,
            (_, ObjType::Mapping) if same_range => self.is_mapped() || self.ty == ObjType::Ram,
            (_, ObjType::Mapping) => within && (self.ty.is_mappable() || self.ty == ObjType::Ram),
            _ => within && !self.same(o) && o.ty.retypes_from(self.ty),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Model {
    slots: BTreeMap<u64, Entry>,
    finalized: Vec<(ObjType, u64, u64)>,
}

impl Model {
    fn get(&self, p: Place) -> Result<Entry, SysError> {
        self.slots.get(&p.slot.0).copied().ok_or(SysError::EmptySlot)
    }

    fn check_destination(&self, dst: Place, ty: ObjType) -> Result<(), SysError> {
        if dst.level == Level::L1 && ty != ObjType::L2CNode {
            return Err(SysError::WrongType);
        }
        if self.slots.contains_key(&dst.slot.0) { Err(SysError::SlotOccupied) } else { Ok(()) }
    }

    fn mint(&mut self, dst: Place, src: Place, rights: Option<Rights>, badge: u64) -> Result<(), SysError> {
        let mut e = self.get(src)?;
        if let Some(rights) = rights {
            if !(rights - e.rights).is_empty() {
                return Err(SysError::MissingRight);
            }
            e.rights = rights;
        }
        if badge != 0 {
            if !matches!(e.ty, ObjType::Endpoint | ObjType::Notification | ObjType::Link) {
                return Err(SysError::WrongType);
            }
            if e.badge != 0 && e.badge != badge {
                return Err(SysError::BadArgument);
            }
            e.badge = badge;
        }
        self.check_destination(dst, e.ty)?;
        self.slots.insert(dst.slot.0, e);
        Ok(())
    }

    fn retype(&mut self, dst: Place, src: Place, r: Request) -> Result<(), SysError> {
        let s = self.get(src)?;
        if !r.ty.retypes_from(s.ty) {
            return Err(SysError::BadRetype);
        }
        if r.count == 0 || r.count > 256 || r.size == 0 {
            return Err(SysError::BadArgument);
        }
        if r.count > dst.room as u64 {
            return Err(SysError::NoSuchSlot);
        }
        if dst.level == Level::L1 && r.ty != ObjType::L2CNode {
            return Err(SysError::WrongType);
        }
        let align = match r.ty.extent() {
            Extent::Fixed(n) if n != r.size => return Err(SysError::BadArgument),
            Extent::Fixed(n) | Extent::Multiple(n) => n,
            Extent::Unsized => unreachable!(),
        };
        if r.ty == s.ty && r.size == s.size {
            return Err(SysError::BadArgument);
        }
        let (offset, total) = (r.offset as u128, r.size as u128 * r.count as u128);
        if offset + total > s.size as u128 {
            return Err(SysError::OutOfRange);
        }
        let base = s.base + r.offset;
        if !base.is_multiple_of(align) || !r.size.is_multiple_of(align) {
            return Err(SysError::Misaligned);
        }
        for i in 0..r.count {
            if self.slots.contains_key(&(dst.slot.0 + i * CTE_SIZE)) {
                return Err(SysError::SlotOccupied);
            }
        }
        let end = base + total as u64;
        let own_mapping = |e: &Entry| e.ty == ObjType::Mapping && (e.base, e.size) == (s.base, s.size);
        if self.slots.values().any(|e| {
            s.is_ancestor_of(e) && !(s.is_mapped() && own_mapping(e)) && e.base < end && base < e.end()
        }) {
            return Err(SysError::Overlap);
        }
        for i in 0..r.count {
            let e = Entry {
                ty: r.ty,
                rights: s.rights,
                base: base + i * r.size,
                size: r.size,
                badge: 0,
                mapping: None,
                era: 0,
            };
            self.slots.insert(dst.slot.0 + i * CTE_SIZE, e);
        }
        Ok(())
    }

    fn remove(&mut self, mut doomed: Vec<u64>) {
        while let Some(slot) = doomed.pop() {
            let Some(e) = self.slots.remove(&slot) else { continue };
            if self.slots.values().any(|o| o.same(&e)) {
                continue;
            }
            if !matches!(e.ty, ObjType::Ram | ObjType::Mapping) {
                self.finalized.push((e.ty, e.base, e.size));
            }
            if e.is_cnode() {
                doomed.extend(self.slots.range(e.base..e.end()).map(|(s, _)| *s));
            }
            if e.is_mapped() {
                let own = |o: &Entry| o.ty == ObjType::Mapping && (o.base, o.size) == (e.base, e.size);
                doomed.extend(self.slots.iter().filter(|(_, o)| own(o)).map(|(s, _)| *s));
            }
        }
    }

    fn delete(&mut self, p: Place) -> Result<(), SysError> {
        self.get(p)?;
        self.remove(vec![p.slot.0]);
        Ok(())
    }

    fn revoke(&mut self, p: Place) -> Result<(), SysError> {
        let e = self.get(p)?;
        let victim = |s: &u64, o: &Entry| *s != p.slot.0 && (o.same(&e) || e.is_ancestor_of(o));
        self.remove(self.slots.iter().filter(|(s, o)| victim(s, o)).map(|(s, _)| *s).collect());
        Ok(())
    }

    fn cnodes(&self) -> Vec<Entry> {
        let mut all: Vec<Entry> = self.slots.values().filter(|e| e.is_cnode()).copied().collect();
        all.sort_by_key(|e| e.base);
        all.dedup_by_key(|e| e.base);
        all
    }
}

// What the words of an operation mean.

#[derive(Clone, Copy, Debug)]
enum Op {
    Copy { dst: Place, src: Place },
    Mint { dst: Place, src: Place, rights: Rights, badge: u64 },
    Retype { dst: Place, src: Place, request: Request },
    Map { dst: Place, object: Place, table: Place, range: MappingRange },
    Delete { slot: Place },
    Revoke { slot: Place },
}

fn pick<T: Copy>(from: &[T], word: u32) -> T {
    from[word as usize % from.len()]
}

/// A slot of one of the CNodes; mostly one of the first few, so that they meet often.
fn pick_place(cnodes: &[Entry], word: u32) -> Place {
    let cnode = pick(cnodes, word);
    let (word, near) = (word >> 8, word >> 28 != 0);
    let index = if near { word % 12 } else { word % 256 };
    let slots = cnode.ty.own_slots().unwrap_or((cnode.size / CTE_SIZE) as u32);
    slot_in(cnode.ty, cnode.base, cnode.size, index % slots)
}

/// A slot with a capability, or, now and then, any.
fn pick_source(cnodes: &[Entry], full: &[SlotAddr], word: u32) -> Place {
    if full.is_empty() || word >> 27 == 0 {
        return pick_place(cnodes, word);
    }
    let slot = pick(full, word);
    let cnode = cnodes.iter().find(|c| (c.base..c.end()).contains(&slot.0)).expect("a slot in no CNode");
    slot_in(cnode.ty, cnode.base, cnode.size, ((slot.0 - cnode.base) / CTE_SIZE) as u32)
}

fn pick_request(w: &[u32]) -> Request {
    use ObjType::*;
    const TYPES: &[ObjType] = &[
        Ram,
        Ram,
        Ram,
        Frame,
        Frame,
        L2CNode,
        L2CNode,
        L1CNode,
        Pt,
        Pd,
        Dispatcher,
        Endpoint,
        Notification,
        Link,
    ];
    let ty = if w[0].is_multiple_of(64) { pick(ObjType::ALL, w[0] >> 8) } else { pick(TYPES, w[0] >> 8) };
    let size = match ty.extent() {
        Extent::Fixed(n) => n,
        _ => PAGE_SIZE * (1 + (w[1] % 70) as u64 * (w[1] >> 8 & 1) as u64),
    };
    let align = if ty == L2CNode { size } else { PAGE_SIZE };
    let offset = ((w[1] >> 9) as u64 % (RAM_BYTES / align) * align) >> (w[2] & 7);
    let count = match w[2] >> 24 {
        0..4 => 0x100 + (w[2] & 1) as u64,
        4..12 => 1 + (w[2] >> 3) as u64 % 100,
        _ => 1 + (w[2] >> 3) as u64 % 4,
    };
    let (offset, size) = match w[2] >> 16 & 0xff {
        0 => (offset + 64, size),
        1 => (offset, size + 1),
        2 => (u64::MAX - 4095, size),
        3 => (offset, 1 << 63),
        _ => (offset / align * align, size),
    };
    Request { ty, offset, size, count }
}

fn decode(w: Words, cnodes: &[Entry], full: &[SlotAddr]) -> Op {
    let (dst, src) = (pick_place(cnodes, w[1]), pick_source(cnodes, full, w[2]));
    match w[0] % 32 {
        0..4 => Op::Copy { dst, src },
        4..7 => {
            let rights = Rights::from_bits_truncate(if w[3] & 16 == 0 { 0xff } else { w[3] as u8 });
            Op::Mint { dst, src, rights, badge: (w[4] % 3) as u64 }
        }
        7..20 => Op::Retype { dst, src, request: pick_request(&w[3..]) },
        20..24 => {
            let table = pick_source(cnodes, full, w[3]);
            let (entry, count) = (w[4] % 16, 1 + (w[4] >> 8) % 3);
            let offset = (w[5] % 4) as u64 * PAGE_SIZE;
            let range = MappingRange { entry, count, offset, entry_bytes: PAGE_SIZE };
            Op::Map { dst, object: src, table, range }
        }
        24..29 => Op::Delete { slot: src },
        _ => Op::Revoke { slot: src },
    }
}

/// Does the next step of an operation.
fn step(m: &mut Machine, op: Op, budget: Budget) -> Result<(), SysError> {
    match op {
        Op::Copy { dst, src } => m.step(budget, |db, s, _, _| db.copy(s, dst, src.slot)),
        Op::Mint { dst, src, rights, badge } => {
            m.step(budget, |db, s, _, _| db.mint(s, dst, src.slot, rights, badge))
        }
        Op::Retype { dst, src, request } => {
            m.step(budget, |db, s, k, b| db.retype(s, k, dst, src.slot, request, b))
        }
        Op::Map { dst, object, table, range } => {
            let (o, t) = (m.arena.get(object.slot).cap, m.arena.get(table.slot).cap);
            // The kernel refuses entries in use.
            let entries = range.entry as u16..(range.entry + range.count) as u16;
            if entries.clone().any(|e| m.kernel.entries.contains_key(&(t.base, e))) {
                return Err(SysError::EntryOccupied);
            }
            m.step(budget, |db, s, _, _| db.insert_mapping(s, dst, object.slot, table.slot, range))?;
            for (i, e) in entries.enumerate() {
                m.kernel.entries.insert((t.base, e), o.base + range.offset + i as u64 * PAGE_SIZE);
            }
            Ok(())
        }
        Op::Delete { slot } => m.step(budget, |db, s, k, b| db.delete(s, k, slot.slot, b)),
        Op::Revoke { slot } => m.step(budget, |db, s, k, b| db.revoke(s, k, slot.slot, b)),
    }
}

fn random_budget(word: u32) -> Budget {
    match word % 4 {
        0 => Budget { objects: 1, bytes: 4096 },
        1 => Budget { objects: 2 + word / 4 % 8, bytes: 8192 },
        _ => Budget::ENTRY,
    }
}

fn clean(m: &mut Machine, budget: Budget) {
    for _ in 0..100_000 {
        let result = m.step(budget, |db, s, k, b| match db.clean(s, k, b) {
            Progress::Done => Ok(()),
            Progress::Again => Err(SysError::Again),
        });
        if result.is_ok() {
            return;
        }
    }
    panic!("it does not end");
}

/// Whether an operation would take away the CNodes that everything else hangs on.
fn undermines(m: &Machine, op: Op) -> bool {
    let foundation = |p: Place| p == slot_at(ROOT_SLOT) || p == l1_place(ROOT_L1, ROOT_L1_BYTES, 0);
    match op {
        Op::Delete { slot } => foundation(slot),
        Op::Revoke { slot } => {
            [ROOT_L1, ROOT_L2].contains(&m.arena.get(slot.slot).cap.base) && !foundation(slot)
        }
        _ => false,
    }
}

/// Whether somebody can look up `p`: its CNode has a usable capability.
fn is_reachable(m: &Machine, p: Place) -> bool {
    m.arena.caps().any(|(_, c)| {
        c.mark == Mark::Ready && Entry::of(c).is_cnode() && (c.base..c.end()).contains(&p.slot.0)
    })
}

// One after the other.

struct Sequential {
    machine: Machine,
    model: Model,
}

impl Sequential {
    fn new() -> Sequential {
        let machine = Machine::new(RAM_BYTES);
        let slots = machine.arena.caps().map(|(s, c)| (s.0, Entry::of(c))).collect();
        Sequential { machine, model: Model { slots, ..Model::default() } }
    }

    fn apply(&mut self, w: Words) {
        let cnodes = self.model.cnodes();
        if cnodes.is_empty() {
            return;
        }
        let full: Vec<SlotAddr> = self.model.slots.keys().map(|s| SlotAddr(*s)).collect();
        let op = decode(w, &cnodes, &full);
        if undermines(&self.machine, op) {
            return;
        }
        let budget = random_budget(w[0] >> 8);
        self.machine.kernel.dispatcher_steps = w[0] >> 16 & 63;
        self.machine.kernel.events.clear();
        let mut result = step(&mut self.machine, op, budget);
        for steps in 0.. {
            if result != Err(SysError::Again) {
                break;
            }
            assert!(steps < 100_000, "it does not end");
            // The slot may have become out of reach, with its CNode, or, in a revoke, empty.
            let gone = match op {
                Op::Delete { slot } => !is_reachable(&self.machine, slot),
                Op::Revoke { slot } => {
                    !is_reachable(&self.machine, slot)
                        || self.machine.db.identify(&self.machine.arena, slot.slot).is_err()
                }
                _ => false,
            };
            if gone {
                clean(&mut self.machine, budget);
                result = Ok(());
                break;
            }
            result = step(&mut self.machine, op, budget);
        }
        // A delete can leave behind what only `clean` can name.
        clean(&mut self.machine, budget);

        let expected = match op {
            Op::Copy { dst, src } => self.model.mint(dst, src, None, 0),
            Op::Mint { dst, src, rights, badge } => self.model.mint(dst, src, Some(rights), badge),
            Op::Retype { dst, src, request } => self.model.retype(dst, src, request),
            Op::Map { dst, .. } => {
                if result.is_ok() {
                    let cap = self.machine.arena.get(dst.slot).cap;
                    assert!(!self.model.slots.contains_key(&dst.slot.0));
                    self.model.slots.insert(dst.slot.0, Entry::of(&cap));
                }
                result
            }
            Op::Delete { slot } => self.model.delete(slot),
            Op::Revoke { slot } => self.model.revoke(slot),
        };
        assert_eq!(result, expected, "{op:?}");
        let found: BTreeMap<u64, Entry> =
            self.machine.arena.caps().map(|(s, c)| (s.0, Entry::of(c))).collect();
        assert!(found == self.model.slots, "{op:?}: {found:#x?} is not {:#x?}", self.model.slots);
        assert!(self.machine.arena.all().all(|(_, c)| c.cap.mark == Mark::Ready), "{op:?} left a mark");
        let mut finalized: Vec<_> = self.machine.kernel.events.iter().filter_map(finalize).collect();
        finalized.sort();
        self.model.finalized.sort();
        assert_eq!(finalized, self.model.finalized, "{op:?}");
        self.model.finalized.clear();
        self.machine.check();
    }
}

fn finalize(event: &Event) -> Option<(ObjType, u64, u64)> {
    match event {
        Event::Finalize(ty, base, size) => Some((*ty, *base, *size)),
        _ => None,
    }
}

// Mixed.

/// Operations of several clients, step by step.
struct Mixed {
    machine: Machine,
    pending: Vec<Op>,
}

impl Mixed {
    fn new() -> Mixed {
        Mixed { machine: Machine::new(RAM_BYTES), pending: Vec::new() }
    }

    /// The CNodes that somebody can look up: those with a usable capability.
    fn cnodes(&self) -> Vec<Entry> {
        let usable = self.machine.arena.caps().filter(|(_, c)| c.mark == Mark::Ready);
        let mut all: Vec<Entry> = usable.map(|(_, c)| Entry::of(c)).filter(Entry::is_cnode).collect();
        all.sort_by_key(|e| e.base);
        all.dedup_by_key(|e| e.base);
        all
    }

    fn apply(&mut self, w: Words) {
        if w[1].is_multiple_of(40) {
            let _ = self.machine.step(random_budget(w[0]), |db, s, k, b| match db.clean(s, k, b) {
                Progress::Done => Ok(()),
                Progress::Again => Err(SysError::Again),
            });
            self.machine.check();
        }
        self.restrict(&w);
        let cnodes = self.cnodes();
        if cnodes.is_empty() {
            return;
        }
        let reachable = |p: Place| cnodes.iter().any(|c| (c.base..c.end()).contains(&p.slot.0));
        let full: Vec<SlotAddr> = self
            .machine
            .arena
            .all()
            .filter(|(s, c)| !c.cap.is_free() && cnodes.iter().any(|n| (n.base..n.end()).contains(&s.0)))
            .map(|(s, _)| s)
            .collect();
        let resume = !self.pending.is_empty() && w[5].is_multiple_of(2);
        let op = if resume {
            self.pending.swap_remove(w[4] as usize % self.pending.len())
        } else {
            decode(w, &cnodes, &full)
        };
        let named = match op {
            Op::Copy { dst, src } | Op::Mint { dst, src, .. } | Op::Retype { dst, src, .. } => vec![dst, src],
            Op::Map { dst, object, table, .. } => vec![dst, object, table],
            Op::Delete { slot } | Op::Revoke { slot } => vec![slot],
        };
        if !named.iter().all(|p| reachable(*p)) || undermines(&self.machine, op) {
            return;
        }
        self.machine.kernel.dispatcher_steps = w[0] >> 16 & 63;
        let budget = random_budget(w[0] >> 8);
        match (step(&mut self.machine, op, budget), op) {
            (Err(SysError::Again), _) => self.pending.push(op),
            // The slot may have gone along.
            (Ok(()), Op::Delete { slot }) if self.machine.arena.exists(slot.slot) => {
                let cap = self.machine.arena.get(slot.slot).cap;
                assert!(cap.is_free() || cap.mark == Mark::Condemned, "{cap:?} is left");
            }
            (Ok(()), Op::Revoke { slot }) if self.machine.arena.exists(slot.slot) => {
                let kept = Entry::of(&self.machine.arena.get(slot.slot).cap);
                for (s, c) in self.machine.arena.caps().filter(|(s, _)| *s != slot.slot) {
                    let o = Entry::of(c);
                    assert!(
                        !o.same(&kept) && !kept.is_ancestor_of(&o),
                        "{o:x?} in {s:x?} survives {kept:x?}"
                    );
                }
            }
            _ => {}
        }
        self.machine.check();
    }

    /// Now and then, has the kernel refuse the destruction of an object, or an object have copies elsewhere, or
    /// no longer.
    fn restrict(&mut self, w: &Words) {
        let some: Vec<(SlotAddr, Capability)> =
            self.machine.arena.caps().filter(|(_, c)| c.mark == Mark::Ready).map(|(s, c)| (s, *c)).collect();
        if some.is_empty() {
            return;
        }
        let (slot, cap) = pick(&some, w[3]);
        match w[2] % 60 {
            0 => _ = self.machine.kernel.locked.insert(cap.base),
            1 => self.machine.kernel.locked.clear(),
            2 => {
                let remote = if w[4].is_multiple_of(3) { Remote::COPIES } else { Remote::empty() };
                self.machine.step(Budget::ENTRY, |db, s, _, _| db.set_remote(s, slot, remote)).unwrap();
            }
            3 => _ = self.machine.db.unpark(&mut self.machine.arena),
            _ => {}
        }
    }

    /// All clients stop where they are: everything can be finished, and all memory comes back.
    fn finish(mut self) {
        let m = &mut self.machine;
        m.kernel.locked.clear();
        let all: Vec<SlotAddr> = m.arena.caps().map(|(s, _)| s).collect();
        for slot in all {
            // Directly, for `set_remote` refuses those in the middle of something.
            m.arena.get_mut(slot).cap.remote = Remote::empty();
        }
        while m.db.unpark(&mut m.arena) {}
        clean(m, Budget { objects: 3, bytes: 4096 });
        m.check();
        for mark in m.arena.all().map(|(_, c)| c.cap.mark) {
            assert!(
                matches!(mark, Mark::Ready | Mark::Waiting | Mark::Reserving | Mark::Reserved),
                "{mark:?}"
            );
        }
        // RAM may have been deleted, and its memory with it.
        let ram = m.arena.caps().find(|(_, c)| c.ty == ObjType::Ram && c.size == RAM_BYTES);
        if let Some((slot, _)) = ram
            && (ROOT_L2..ROOT_L2 + L2_BYTES).contains(&slot.0)
        {
            let ram = slot_at(((slot.0 - ROOT_L2) / CTE_SIZE) as u32);
            assert_eq!(m.revoke(ram), Ok(()));
            clean(m, Budget::ENTRY);
            let waiting: Vec<SlotAddr> =
                m.arena.all().filter(|(_, c)| c.cap.mark == Mark::Waiting).map(|(s, _)| s).collect();
            for slot in waiting {
                assert_eq!(m.finish(Budget::ENTRY, |db, s, k, b| db.delete(s, k, slot, b)), Ok(()));
            }
            let free = (0..256).map(slot_at).find(|p| m.arena.get(p.slot).cap.is_free());
            if let Some(free) = free {
                assert_eq!(m.retype(free, ram, request(ObjType::Frame, 0, RAM_BYTES, 1)), Ok(()));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn one_after_the_other_they_do_what_the_model_does(words in prop::collection::vec(any::<Words>(), 1..80)) {
        let mut run = Sequential::new();
        words.into_iter().for_each(|w| run.apply(w));
    }

    #[test]
    fn mixed_they_keep_the_invariants(words in prop::collection::vec(any::<Words>(), 1..120)) {
        let mut run = Mixed::new();
        words.into_iter().for_each(|w| run.apply(w));
        run.finish();
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 32) as u32
    }

    fn words(&mut self) -> Words {
        std::array::from_fn(|_| self.next())
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name} is not a number: {v}")))
}

/// Tells how to do a run again that failed.
struct Report(u64);

impl Drop for Report {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("again with CAPS_SEED={} CAPS_OPERATIONS={RUN}", self.0);
        }
    }
}

/// Operations of each kind of run, and in one run.
const OPERATIONS: u64 = 5000;
const RUN: u64 = 250;

#[test]
fn a_long_sequence_does_what_the_model_does() {
    let (total, seed) = (number("CAPS_OPERATIONS", OPERATIONS), number("CAPS_SEED", 1));
    for run in 0..total.div_ceil(RUN) {
        let seed = seed.wrapping_add(run << 32);
        let (mut random, _report) = (Random(seed), Report(seed));
        let mut sequential = Sequential::new();
        for _ in 0..RUN.min(total - run * RUN) {
            sequential.apply(random.words());
        }
    }
}

#[test]
fn a_long_mixture_keeps_the_invariants() {
    let (total, seed) = (number("CAPS_OPERATIONS", OPERATIONS), number("CAPS_SEED", 1));
    for run in 0..total.div_ceil(RUN) {
        let seed = seed.wrapping_add(run << 32);
        let (mut random, _report) = (Random(seed ^ 1 << 63), Report(seed));
        let mut mixed = Mixed::new();
        for _ in 0..RUN.min(total - run * RUN) {
            mixed.apply(random.words());
        }
        mixed.finish();
    }
}
