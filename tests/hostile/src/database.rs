//! Any register words, as invocations of a CNode or a page table.

use crate::input::Input;
use crate::machine::{Machine, ROOT_L1, ROOT_L1_BYTES, ROOT_SLOT};
use caps::{Budget, CSpace, Capability, Level, MappingRange, Mark, Progress, Request, SlotAddr, Slots};
use lmp::arguments::{Copy, Map, Mint, OneSlot, Retype};
use lmp::invocation::Op;
use lmp::objects::PAGE_SIZE;
use lmp::{CPtr, ObjType, Rights, SlotRef, SysError};

/// RAM of the machine.
const RAM_BYTES: u64 = 1 << 20;
/// Invocations of one input.
const INVOCATIONS: usize = 64;

/// The caller's registers.
struct Registers {
    invoked: CPtr,
    op: Op,
    words: [u64; 10],
}

impl Registers {
    /// How many words the operation reads; 0 for those that are not the database's.
    fn read(op: Op) -> usize {
        match op {
            Op::Delete | Op::Revoke | Op::Identify => 1,
            Op::Copy => 2,
            Op::Mint => 4,
            Op::Retype | Op::Map => 6,
            _ => 0,
        }
    }

    /// The next invocation; `None` at the end of the input. Other operations than the database's are left out.
    fn next(input: &mut Input<'_>) -> Option<Registers> {
        loop {
            let op = Op::from_code(input.byte()?.into());
            let Some(op) = op.filter(|op| Registers::read(*op) > 0) else { continue };
            let invoked = CPtr(input.word() as u32);
            let mut words = [0; 10];
            words[..Registers::read(op)].fill_with(|| input.word());
            return Some(Registers { invoked, op, words });
        }
    }
}

/// What the caller stands on.
struct Caller {
    machine: Machine,
    space: CSpace,
}

impl Caller {
    fn new() -> Caller {
        let machine = Machine::new(RAM_BYTES);
        let space = CSpace::new(machine.cap(ROOT_SLOT)).expect("an L1 CNode");
        Caller { machine, space }
    }

    /// Whether the root of the caller's capability space is still there; the kernel ends a caller without.
    fn lives(&self) -> bool {
        self.machine.arena.exists(SlotAddr(ROOT_L1))
            && self.machine.arena.caps().any(|(_, c)| {
                c.mark == Mark::Ready && (c.ty, c.base, c.size) == (ObjType::L1CNode, ROOT_L1, ROOT_L1_BYTES)
            })
    }

    /// Where `slot` is in the invoked space, or the caller's.
    fn place(&self, space: CSpace, slot: SlotRef) -> Result<caps::Place, SysError> {
        space.resolve(&self.machine.arena, slot)
    }

    /// One invocation, in the order of the CPU driver's checks.
    fn invoke(&mut self, r: &Registers) -> Result<(), SysError> {
        let slot = self.space.slot(&self.machine.arena, r.invoked)?;
        let cap = self.machine.arena.get(slot).cap;
        match cap {
            Capability { mark, .. } if mark != Mark::Ready => Err(SysError::SlotBusy),
            Capability { ty: ObjType::Null, .. } => Err(SysError::EmptySlot),
            _ if r.op == Op::Map => self.map(r, slot, cap),
            Capability { ty: ObjType::L1CNode, .. } => self.cspace(r, cap),
            _ => Err(SysError::NoSuchOperation),
        }
    }

    fn cspace(&mut self, r: &Registers, cap: Capability) -> Result<(), SysError> {
        let right = if r.op == Op::Identify { Rights::READ } else { Rights::WRITE };
        if !cap.rights.contains(right) {
            return Err(SysError::MissingRight);
        }
        let (invoked, own, budget) = (CSpace::new(&cap)?, self.space, Budget::ENTRY);
        match r.op {
            Op::Copy => {
                let a = Copy::read(&r.words)?;
                let (dst, src) = (self.place(invoked, a.dst)?, self.place(own, a.src)?.slot);
                self.machine.step(budget, |db, s, _, _| db.copy(s, dst, src))
            }
            Op::Mint => {
                let a = Mint::read(&r.words)?;
                let (dst, src) = (self.place(invoked, a.dst)?, self.place(own, a.src)?.slot);
                self.machine.step(budget, |db, s, _, _| db.mint(s, dst, src, a.rights, a.badge))
            }
            Op::Retype => {
                let a = Retype::read(&r.words)?;
                let (dst, src) = (self.place(invoked, a.dst)?, self.place(own, a.src)?.slot);
                let request = Request { ty: a.ty, offset: a.offset, size: a.size, count: a.count };
                self.machine.step(budget, |db, s, k, b| db.retype(s, k, dst, src, request, b))
            }
            op => {
                let slot = self.place(invoked, OneSlot::read(&r.words)?.slot)?.slot;
                match op {
                    Op::Delete => self.machine.step(budget, |db, s, k, b| db.delete(s, k, slot, b)),
                    Op::Revoke => self.machine.step(budget, |db, s, k, b| db.revoke(s, k, slot, b)),
                    _ => self.identify(slot),
                }
            }
        }
    }

    fn identify(&self, slot: SlotAddr) -> Result<(), SysError> {
        let [first, base, size, _] = self.machine.db.identify(&self.machine.arena, slot)?.words();
        let cap = self.machine.arena.get(slot).cap;
        assert_eq!((first as u8, base, size), (cap.ty as u8, cap.base, cap.size));
        Ok(())
    }

    fn map(&mut self, r: &Registers, table_slot: SlotAddr, table: Capability) -> Result<(), SysError> {
        let level = table.ty.vnode_level().ok_or(SysError::NoSuchOperation)?;
        if !table.rights.contains(Rights::WRITE) {
            return Err(SysError::MissingRight);
        }
        let Map { first: entry, object, offset, count, mapping, .. } = Map::read(&r.words)?;
        if count == 0 || entry >= 512 || count > 512 - entry {
            return Err(SysError::OutOfRange);
        }
        let object = self.space.capability(&self.machine.arena, object)?;
        let cap = self.machine.arena.get(object).cap;
        let dst = self.place(self.space, mapping)?;
        if dst.level != Level::L2 {
            return Err(SysError::BadArgument);
        }
        let span = PAGE_SIZE << (9 * (level - 1));
        let entry_bytes = if cap.ty.is_mappable() {
            let end = count.checked_mul(span).and_then(|len| len.checked_add(offset));
            if !offset.is_multiple_of(span) || end.is_none_or(|end| end > cap.size) {
                return Err(SysError::OutOfRange);
            }
            span
        } else if cap.ty.vnode_level() == Some(level - 1) {
            if count != 1 || offset != 0 {
                return Err(SysError::BadArgument);
            }
            cap.size
        } else {
            return Err(SysError::WrongType);
        };
        let entries = entry as u16..(entry + count) as u16;
        if entries.clone().any(|e| self.machine.kernel.entries.contains_key(&(table.base, e))) {
            return Err(SysError::EntryOccupied);
        }
        let range = MappingRange { entry: entry as u32, count: count as u32, offset, entry_bytes };
        self.machine
            .step(Budget::ENTRY, |db, s, _, _| db.insert_mapping(s, dst, object, table_slot, range))?;
        for (i, e) in entries.enumerate() {
            let to = cap.base + offset + i as u64 * entry_bytes;
            self.machine.kernel.entries.insert((table.base, e), to);
        }
        Ok(())
    }
}

/// Does invocations until the input or the caller ends. A refusal changes nothing, the audit finds nothing at
/// the end nor when what was left unfinished is cleaned up, and that comes to an end.
pub fn database(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut caller = Caller::new();
    for _ in 0..INVOCATIONS {
        let Some(registers) = Registers::next(&mut input) else { break };
        let _ = caller.invoke(&registers);
        if !caller.lives() {
            break;
        }
    }
    let mut machine = caller.machine;
    machine.check();
    let cleaned = machine.finish(Budget::ENTRY, |db, s, k, b| match db.clean(s, k, b) {
        Progress::Done => Ok(()),
        Progress::Again => Err(SysError::Again),
    });
    assert_eq!(cleaned, Ok(()));
    assert!(!machine.db.has_unfinished());
}
