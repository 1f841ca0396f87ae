//! A machine for the tests: memory in which slots exist only while their CNode does, and a kernel that keeps
//! page tables and a record of what it was told.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses a part")]

use caps::{
    AuditCursor, AuditError, AuditProgress, Budget, CNode, CapDb, Capability, CoreId, Cte, Level, Mark,
    Objects, Place, Progress, Request, SlotAddr, Slots, Unmap,
};
use lmp::objects::CTE_SIZE;
use lmp::{ObjType, SysError};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// This core.
pub const CORE: CoreId = CoreId(3);
/// Where the kernel's own CNodes are: outside all RAM.
pub const ROOT_L1: u64 = 0x10_0000;
/// The L2 CNode in L1 slot 0.
pub const ROOT_L2: u64 = 0x11_0000;
/// Size of [`ROOT_L1`] in bytes: 32 slots.
pub const ROOT_L1_BYTES: u64 = 4096;
/// Size of an L2 CNode in bytes.
pub const L2_BYTES: u64 = 256 * CTE_SIZE;
/// RAM.
pub const RAM: u64 = 0x20_0000;
/// Slot of the root L2 CNode that holds the RAM.
pub const RAM_SLOT: u32 = 0;
/// Slot of the root L2 CNode that holds the L1 CNode.
pub const ROOT_SLOT: u32 = 1;

/// Bytes of a page of slots: a dispatcher's.
const PAGE: u64 = 1024;
const PAGE_SLOTS: usize = (PAGE / CTE_SIZE) as usize;

/// Base and size of objects whose memory has become slots, as the kernel tells.
type Made = Rc<RefCell<Vec<(u64, u64)>>>;

/// Slots, in the pages where there is a CNode or dispatcher. Touching others fails the test. Cloning copies no page that is
/// not written afterwards.
#[derive(Clone, Debug, Default)]
pub struct Arena {
    pages: BTreeMap<u64, Rc<[Cte; PAGE_SLOTS]>>,
    /// CNodes and dispatchers made in this step.
    made: Made,
    /// CNodes that were seen condemned in this step: the slot of the last capability, base, end.
    dying: Vec<(SlotAddr, u64, u64)>,
    /// How often a slot was read or written.
    pub visits: Cell<u64>,
}

impl Arena {
    pub fn exists(&self, slot: SlotAddr) -> bool {
        self.pages.contains_key(&(slot.0 / PAGE))
    }

    pub fn open(&mut self, base: u64, size: u64) {
        assert!(base.is_multiple_of(PAGE) && size.is_multiple_of(PAGE));
        for page in base / PAGE..(base + size) / PAGE {
            let old = self.pages.insert(page, Rc::new([Cte::EMPTY; PAGE_SLOTS]));
            assert!(old.is_none(), "a CNode over another");
        }
    }

    fn open_made(&mut self) {
        for (base, size) in self.made.take() {
            self.open(base, size);
        }
    }

    /// Fails if the slot was in a CNode that went in this very step.
    fn check_alive(&self, slot: SlotAddr) {
        for (host, base, end) in &self.dying {
            if (*base..*end).contains(&slot.0) {
                let host = &self.pages[&(host.0 / PAGE)][index(*host)].cap;
                assert!(host.mark == Mark::Condemned, "use of {slot:x?} after its CNode is gone");
            }
        }
    }

    fn is_made(&self, slot: SlotAddr) -> bool {
        self.made.borrow().iter().any(|(base, size)| (*base..base + size).contains(&slot.0))
    }

    /// Every slot that exists.
    pub fn all(&self) -> impl Iterator<Item = (SlotAddr, &Cte)> {
        self.pages.iter().flat_map(|(page, ctes)| {
            ctes.iter().enumerate().map(move |(i, c)| (SlotAddr(page * PAGE + i as u64 * CTE_SIZE), c))
        })
    }

    /// Every capability that exists.
    pub fn caps(&self) -> impl Iterator<Item = (SlotAddr, &Capability)> {
        self.all().map(|(s, c)| (s, &c.cap)).filter(|(_, c)| !c.is_null())
    }

    /// Takes the memory of CNodes that are gone away.
    pub fn close_dead(&mut self) {
        let alive: BTreeSet<u64> = self
            .caps()
            .map(|(_, c)| c)
            .filter(|c| c.ty.has_slots())
            .flat_map(|c| c.base / PAGE..c.end() / PAGE)
            .collect();
        self.pages.retain(|page, _| alive.contains(page));
        self.dying.clear();
    }
}

impl PartialEq for Arena {
    fn eq(&self, other: &Arena) -> bool {
        self.pages.len() == other.pages.len()
            && self
                .pages
                .iter()
                .zip(&other.pages)
                .all(|(a, b)| a.0 == b.0 && (Rc::ptr_eq(a.1, b.1) || a.1 == b.1))
    }
}

impl Slots for Arena {
    fn get(&self, slot: SlotAddr) -> &Cte {
        self.visits.set(self.visits.get() + 1);
        assert_eq!(slot.0 % CTE_SIZE, 0);
        if self.is_made(slot) {
            return &Cte::EMPTY;
        }
        self.check_alive(slot);
        let page = self.pages.get(&(slot.0 / PAGE));
        &page.unwrap_or_else(|| panic!("read of {slot:x?}, where no CNode is"))[index(slot)]
    }

    fn get_mut(&mut self, slot: SlotAddr) -> &mut Cte {
        self.visits.set(self.visits.get() + 1);
        assert_eq!(slot.0 % CTE_SIZE, 0);
        if self.is_made(slot) {
            self.open_made();
        }
        self.check_alive(slot);
        let page = self.pages.get_mut(&(slot.0 / PAGE));
        let page = page.unwrap_or_else(|| panic!("write to {slot:x?}, where no CNode is"));
        let cte = &mut Rc::make_mut(page)[index(slot)];
        let entry = (slot, cte.cap.base, cte.cap.end());
        if cte.cap.mark == Mark::Condemned && !self.dying.contains(&entry) {
            self.dying.push(entry);
        }
        cte
    }
}

fn index(slot: SlotAddr) -> usize {
    (slot.0 % PAGE / CTE_SIZE) as usize
}

/// What the kernel was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    Zero(u64, u64),
    Init(ObjType, u64, u64),
    Finalize(ObjType, u64, u64),
    Unmap(Unmap),
}

/// The kernel's side.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Kernel {
    pub events: Vec<Event>,
    /// CNodes and dispatchers made in this step.
    made: Made,
    /// Page-table entries in use: where they point.
    pub entries: BTreeMap<(u64, u16), u64>,
    /// Objects that must not be destroyed.
    pub locked: BTreeSet<u64>,
    /// Memory out of the window.
    pub foreign: Option<(u64, u64)>,
    /// Budget that the destruction of a dispatcher takes.
    pub dispatcher_steps: u32,
    /// Where the reply rights were that were given up.
    pub reply_slots: Vec<SlotAddr>,
    letting_go: BTreeMap<u64, u32>,
}

impl Objects for Kernel {
    fn zero(&mut self, base: u64, len: u64) {
        assert!(len > 0 && len <= 64 << 10);
        self.events.push(Event::Zero(base, len));
    }

    fn init(&mut self, cap: &Capability) {
        self.events.push(Event::Init(cap.ty, cap.base, cap.size));
        if cap.ty.is_vnode() {
            self.entries.retain(|(table, _), _| *table != cap.base);
        }
        if cap.ty.has_slots() {
            self.made.borrow_mut().push((cap.base, cap.size));
        }
    }

    fn may_destroy(&self, cap: &Capability) -> Result<(), SysError> {
        if self.locked.contains(&cap.base) { Err(SysError::WrongState) } else { Ok(()) }
    }

    fn finalize(&mut self, cap: &Capability, slot: SlotAddr, budget: &mut Budget) -> Progress {
        if cap.ty == ObjType::Dispatcher {
            let left = self.letting_go.entry(cap.base).or_insert(self.dispatcher_steps);
            while *left > 0 {
                if !budget.take_object() {
                    return Progress::Again;
                }
                *left -= 1;
            }
            self.letting_go.remove(&cap.base);
        }
        if cap.ty == ObjType::Reply {
            self.reply_slots.push(slot);
        }
        self.events.push(Event::Finalize(cap.ty, cap.base, cap.size));
        Progress::Done
    }

    fn unmap(&mut self, mapping: &Unmap) {
        for i in 0..mapping.count {
            self.entries.remove(&(mapping.table, mapping.entry + i));
        }
        self.events.push(Event::Unmap(*mapping));
    }

    fn accessible(&self, base: u64, len: u64) -> bool {
        self.foreign.is_none_or(|(start, end)| base + len <= start || end <= base)
    }
}

/// A core: its database, its memory, its kernel.
#[derive(Clone, PartialEq, Debug)]
pub struct Machine {
    pub db: CapDb,
    pub arena: Arena,
    pub kernel: Kernel,
}

impl Machine {
    /// A machine whose root L1 CNode holds the root L2 CNode in slot 0, and that one the RAM and the L1 CNode.
    pub fn new(ram: u64) -> Machine {
        let mut arena = Arena::default();
        arena.open(ROOT_L1, ROOT_L1_BYTES);
        arena.open(ROOT_L2, L2_BYTES);
        let mut db = CapDb::new(CORE);
        let l1 = Capability::new(ObjType::L1CNode, ROOT_L1, ROOT_L1_BYTES, CORE);
        let l2 = Capability::new(ObjType::L2CNode, ROOT_L2, L2_BYTES, CORE);
        let place = |c: &Capability, i| CNode::new(c).unwrap().place(i).unwrap();
        db.insert_root(&mut arena, place(&l1, 0), l2).unwrap();
        let memory = Capability::new(ObjType::Ram, RAM, ram, CORE);
        db.insert_root(&mut arena, place(&l2, RAM_SLOT), memory).unwrap();
        db.insert_root(&mut arena, place(&l2, ROOT_SLOT), l1).unwrap();
        let kernel = Kernel { made: arena.made.clone(), ..Kernel::default() };
        let machine = Machine { db, arena, kernel };
        machine.check();
        machine
    }

    /// What is in slot `i` of the root L2 CNode.
    pub fn cap(&self, i: u32) -> &Capability {
        &self.arena.get(slot_at(i).slot).cap
    }

    pub fn settle_memory(&mut self) {
        self.arena.open_made();
        self.arena.close_dead();
    }

    /// Audits everything: the tree, that exactly the capabilities in existing CNodes are in it, and that page
    /// tables lead only to memory that somebody has a capability for.
    pub fn check(&self) {
        let mut cursor = AuditCursor::default();
        let step = |cursor: &mut AuditCursor| -> Result<AuditProgress, AuditError> {
            self.db.audit_step(&self.arena, cursor, &mut Budget { objects: 64, bytes: 4096 })
        };
        while step(&mut cursor).expect("the audit fails") == AuditProgress::Again {}
        let present: Vec<&Capability> = self.arena.caps().map(|(_, c)| c).collect();
        assert_eq!(cursor.capabilities, present.len() as u64, "capabilities outside the tree");
        let made = || present.iter().filter(|c| !matches!(c.mark, Mark::Reserving | Mark::Reserved));
        let tables: BTreeSet<u64> = made().filter(|c| c.ty.is_vnode()).map(|c| c.base).collect();
        let ranges: BTreeSet<(u64, u64)> =
            made().filter(|c| c.ty.is_mappable() || c.ty.is_vnode()).map(|c| (c.base, c.end())).collect();
        for ((table, entry), to) in &self.kernel.entries {
            assert!(
                !tables.contains(table) || ranges.iter().any(|(start, end)| start <= to && to < end),
                "entry {entry} of the table at {table:#x} points to {to:#x}, which nobody holds"
            );
        }
    }

    /// Does one step, and checks that a refusal changed nothing.
    pub fn step(
        &mut self,
        budget: Budget,
        f: impl FnOnce(&mut CapDb, &mut Arena, &mut Kernel, &mut Budget) -> Result<(), SysError>,
    ) -> Result<(), SysError> {
        let before = self.clone();
        let mut budget = budget;
        let result = f(&mut self.db, &mut self.arena, &mut self.kernel, &mut budget);
        self.settle_memory();
        match result {
            Ok(()) | Err(SysError::Again) => {}
            // The rest of a revoke or delete that came upon something that must stay.
            Err(SysError::WrongState | SysError::RetryThroughMonitor) => {}
            Err(error) => {
                assert!(before == *self, "a refusal with {error:?} changed something");
            }
        }
        result
    }

    /// Does it until it is finished, with `budget` each time.
    pub fn finish(
        &mut self,
        budget: Budget,
        mut f: impl FnMut(&mut CapDb, &mut Arena, &mut Kernel, &mut Budget) -> Result<(), SysError>,
    ) -> Result<(), SysError> {
        for _ in 0..100_000 {
            match self.step(budget, &mut f) {
                Err(SysError::Again) => {}
                result => {
                    self.check();
                    return result;
                }
            }
        }
        panic!("it does not end");
    }

    pub fn retype(&mut self, dst: Place, src: Place, request: Request) -> Result<(), SysError> {
        self.finish(Budget::ENTRY, |db, s, k, b| db.retype(s, k, dst, src.slot, request, b))
    }

    pub fn copy(&mut self, dst: Place, src: Place) -> Result<(), SysError> {
        self.finish(Budget::ENTRY, |db, s, _, _| db.copy(s, dst, src.slot))
    }

    pub fn delete(&mut self, slot: Place) -> Result<(), SysError> {
        self.finish(Budget::ENTRY, |db, s, k, b| {
            // Like a look-up: the slot may go with its CNode before the delete is finished.
            if !s.exists(slot.slot) {
                return Ok(());
            }
            match db.delete(s, k, slot.slot, b) {
                Err(SysError::SlotBusy) if db.has_unfinished() => match db.clean(s, k, b) {
                    Progress::Done => Ok(()),
                    Progress::Again => Err(SysError::Again),
                },
                result => result,
            }
        })
    }

    pub fn revoke(&mut self, slot: Place) -> Result<(), SysError> {
        self.finish(Budget::ENTRY, |db, s, k, b| db.revoke(s, k, slot.slot, b))
    }
}

/// Slot `i` of the root L2 CNode.
pub fn slot_at(i: u32) -> Place {
    place(ROOT_L2, i)
}

/// Slot `i` of the L2 CNode at `base`.
pub fn place(base: u64, i: u32) -> Place {
    CNode::new(&Capability::new(ObjType::L2CNode, base, L2_BYTES, CORE)).unwrap().place(i).unwrap()
}

/// Slot `i` of the L1 CNode of `size` bytes at `base`.
pub fn l1_place(base: u64, size: u64, i: u32) -> Place {
    CNode::new(&Capability::new(ObjType::L1CNode, base, size, CORE)).unwrap().place(i).unwrap()
}

/// Slot `i` of the object with slots at `base`.
pub fn slot_in(ty: ObjType, base: u64, size: u64, i: u32) -> Place {
    match (ty, ty.own_slots()) {
        (_, Some(slots)) => Place { slot: SlotAddr(base).offset(i), level: Level::L2, room: slots - i },
        (ObjType::L1CNode, _) => l1_place(base, size, i),
        _ => place(base, i),
    }
}

/// A request.
pub fn request(ty: ObjType, offset: u64, size: u64, count: u64) -> Request {
    Request { ty, offset, size, count }
}
