//! How the work of an operation grows with the number of capabilities: counted in slots visited, not in time.

mod common;

use caps::{AuditCursor, AuditProgress, Budget, CNode, CapDb, Capability, Cte, Place, SlotAddr, Slots};
use common::{CORE, Kernel, L2_BYTES, RAM, request};
use lmp::objects::{CTE_SIZE, PAGE_SIZE, Space};
use lmp::{ObjType, SysError};
use std::cell::Cell;
use std::collections::BTreeMap;

/// Slots in a row from [`BASE`] on, which counts how often they are visited.
struct Row {
    slots: Vec<Cte>,
    visits: Cell<u64>,
}

const BASE: u64 = 1 << 32;

impl Row {
    fn index(&self, slot: SlotAddr) -> usize {
        self.visits.set(self.visits.get() + 1);
        ((slot.0 - BASE) / CTE_SIZE) as usize
    }
}

impl Slots for Row {
    fn get(&self, slot: SlotAddr) -> &Cte {
        &self.slots[self.index(slot)]
    }

    fn get_mut(&mut self, slot: SlotAddr) -> &mut Cte {
        let i = self.index(slot);
        &mut self.slots[i]
    }
}

fn place(i: u64) -> Place {
    let cnode = Capability::new(ObjType::L2CNode, BASE + i / 256 * L2_BYTES, L2_BYTES, CORE);
    CNode::new(&cnode).unwrap().place((i % 256) as u32).unwrap()
}

/// The RAM in slot 0, and one frame of a page in each of the slots from 1 to `n`, in a scattered order.
fn populated(n: u64) -> (CapDb, Row) {
    let mut row =
        Row { slots: vec![Cte::EMPTY; (n as usize + 3).next_multiple_of(256)], visits: Cell::default() };
    let mut db = CapDb::new(CORE);
    let ram = Capability::new(ObjType::Ram, RAM, (n + 1) * PAGE_SIZE, CORE);
    db.insert_root(&mut row, place(0), ram).unwrap();
    for i in 1..=n {
        let frame = Capability::new(ObjType::Frame, RAM + i * 7919 % n * PAGE_SIZE, PAGE_SIZE, CORE);
        db.insert_root(&mut row, place(i), frame).unwrap();
    }
    (db, row)
}

/// The most slots that each operation visits, over places all over the order.
fn visits(n: u64) -> BTreeMap<&'static str, u64> {
    let (mut db, mut row) = populated(n);
    let (s, mut kernel) = (&mut row, Kernel::default());
    let k = &mut kernel;
    let mut most = BTreeMap::new();
    let mut note = |what, s: &Row| {
        let max = most.entry(what).or_insert(0);
        *max = s.visits.replace(0).max(*max);
    };
    let (ram, spare) = (place(0).slot, place(n + 1));
    for i in 0..100 {
        let at = place(1 + i * (n - 1) / 99);
        let cap = s.get(at.slot).cap;
        let r = request(ObjType::Frame, cap.base - RAM, PAGE_SIZE, 1);
        let budget = || Budget::ENTRY;
        s.visits.set(0);
        db.copy(s, spare, at.slot).unwrap();
        note("copy", s);
        db.delete(s, k, spare.slot, &mut budget()).unwrap();
        note("delete a copy", s);
        db.identify(s, at.slot).unwrap();
        note("identify", s);
        assert_eq!(db.retype(s, k, spare, ram, r, &mut budget()), Err(SysError::Overlap));
        note("retype, refused", s);
        assert_eq!(db.innermost(s, Space::Memory, cap.base + 17), Some(at.slot));
        note("find an address", s);
        db.revoke(s, k, at.slot, &mut budget()).unwrap();
        note("revoke, nothing to do", s);
        db.delete(s, k, at.slot, &mut budget()).unwrap();
        note("delete the last", s);
        db.retype(s, k, at, ram, r, &mut budget()).unwrap();
        note("retype", s);
        assert_eq!(
            db.audit_step(s, &mut AuditCursor::default(), &mut Budget { objects: 1, bytes: 4096 }),
            Ok(AuditProgress::Again)
        );
        note("audit of one", s);
    }
    let mut cursor = AuditCursor::default();
    while db.audit_step(s, &mut cursor, &mut Budget { objects: 1000, bytes: 4096 })
        == Ok(AuditProgress::Again)
    {}
    assert_eq!(cursor.capabilities, n + 1);
    most
}

#[test]
fn work_grows_with_the_logarithm_of_the_capabilities() {
    let (few, many) = (visits(1_000), visits(100_000));
    for (what, few) in &few {
        let many = many[what];
        // log 100 000 / log 1 000 is 5/3, and a height can be 1.44 times the least.
        assert!(many * 2 <= few * 5, "{what}: {few} slots visited among 1000, {many} among 100 000");
    }
    eprintln!("{few:?}\n{many:?}");
}
