//! From a capability reference to a slot: exactly two levels, each index checked against its CNode.
//!
//! A walk never follows more than one link, so a CNode that holds itself is nothing special.

use crate::cte::{Capability, SlotAddr, Slots};
use lmp::cptr::{CPtr, L2_SLOTS, SlotRef};
use lmp::objects::CTE_SIZE;
use lmp::{ObjType, SysError};

/// At which level of a capability space a slot is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// A slot of an L1 CNode, which can hold nothing but an L2 CNode.
    L1,
    /// A slot of an L2 CNode.
    L2,
}

/// A slot and its surroundings: where a capability may be put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The slot.
    pub slot: SlotAddr,
    /// Its level.
    pub level: Level,
    /// Number of slots from this one to the end of its CNode, itself included.
    pub room: u32,
}

/// A CNode's slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CNode {
    base: SlotAddr,
    slots: u32,
    level: Level,
}

impl CNode {
    /// The slots of the CNode that `cap` is for; `WrongType` if it is for something else.
    pub fn new(cap: &Capability) -> Result<CNode, SysError> {
        let base = SlotAddr(cap.base);
        match cap.ty {
            ObjType::L1CNode => Ok(CNode { base, slots: l1_slots(cap.size), level: Level::L1 }),
            ObjType::L2CNode => Ok(CNode { base, slots: L2_SLOTS, level: Level::L2 }),
            _ => Err(SysError::WrongType),
        }
    }

    /// Number of slots.
    pub const fn slots(&self) -> u32 {
        self.slots
    }

    /// The slot with index `index`.
    pub fn place(&self, index: u32) -> Result<Place, SysError> {
        if index >= self.slots {
            return Err(SysError::NoSuchSlot);
        }
        Ok(Place { slot: self.base.offset(index), level: self.level, room: self.slots - index })
    }
}

/// Slots of an L1 CNode of `size` bytes; those past the reach of a reference are never used.
fn l1_slots(size: u64) -> u32 {
    (size / CTE_SIZE).min(1 << (u32::BITS - lmp::cptr::L2_BITS)) as u32
}

/// A capability space, by its root: what a dispatcher caches to look up references fast.
///
/// It must be dropped when [`Objects::finalize`](crate::Objects::finalize) is called for that L1 CNode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(16))]
pub struct CSpace {
    base: u64,
    slots: u32,
}

impl CSpace {
    /// The capability space in which no reference names anything.
    pub const EMPTY: CSpace = CSpace { base: 0, slots: 0 };

    /// Where in it the physical address of the L1 CNode is, in bytes, for assembly.
    pub const BASE_OFFSET: usize = core::mem::offset_of!(CSpace, base);

    /// Where in it the number of L1 slots is, 32 bits.
    pub const SLOTS_OFFSET: usize = core::mem::offset_of!(CSpace, slots);

    /// The capability space whose root `cap` is for; `WrongType` if that is no L1 CNode.
    pub fn new(cap: &Capability) -> Result<CSpace, SysError> {
        match cap.ty {
            ObjType::L1CNode => Ok(CSpace { base: cap.base, slots: l1_slots(cap.size) }),
            _ => Err(SysError::WrongType),
        }
    }

    /// Physical address of the L1 CNode.
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// The slot that `reference` names, whatever is in it.
    #[inline(always)]
    pub fn slot<S: Slots>(self, slots: &S, reference: CPtr) -> Result<SlotAddr, SysError> {
        let l1 = reference.l1();
        if l1 >= self.slots {
            return Err(SysError::NoSuchSlot);
        }
        let cap = &slots.get(SlotAddr(self.base).offset(l1)).cap;
        if cap.tag() != ObjType::L2CNode as u16 {
            return Err(not_a_cnode(cap));
        }
        Ok(SlotAddr(cap.base).offset(reference.l2()))
    }

    /// The slot of the capability that `reference` names: it is there and can be used.
    #[inline(always)]
    pub fn capability<S: Slots>(self, slots: &S, reference: CPtr) -> Result<SlotAddr, SysError> {
        let slot = self.slot(slots, reference)?;
        let tag = slots.get(slot).cap.tag();
        if tag.wrapping_sub(1) >= 0xff {
            return Err(if tag == 0 { SysError::EmptySlot } else { SysError::SlotBusy });
        }
        Ok(slot)
    }

    /// The slot that `reference` names at either level, and the room behind it, whatever is in it.
    pub fn resolve<S: Slots>(self, slots: &S, reference: SlotRef) -> Result<Place, SysError> {
        match reference {
            SlotRef::L1(index) if index < self.slots => Ok(Place {
                slot: SlotAddr(self.base).offset(index),
                level: Level::L1,
                room: self.slots - index,
            }),
            SlotRef::L1(_) => Err(SysError::NoSuchSlot),
            SlotRef::L2(cptr) => {
                Ok(Place { slot: self.slot(slots, cptr)?, level: Level::L2, room: L2_SLOTS - cptr.l2() })
            }
        }
    }
}

#[cold]
fn not_a_cnode(cap: &Capability) -> SysError {
    if cap.is_free() { SysError::NoSuchSlot } else { SysError::SlotBusy }
}
