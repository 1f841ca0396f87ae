//! The audit: checking all that this core keeps, in steps, while everything goes on.
//!
//! A pass goes through the capability database, and with each object's first capability through what lies behind
//! it: the slots of a CNode, the entries of a page table, a kernel object's links. After that come the memory that
//! the core was given, the control registers, and the CPU driver's own page tables. What one step finds holds by
//! itself, so nothing that happens between the steps can make it wrong.

use crate::arch::cpu;
use crate::arch::paging::{self, Entry};
use crate::core_state::{Core, Kernel, Memory};
use crate::kernel_objects::{page_table, page_table_of_driver};
use crate::objects::{
    CALLED, CALLERS, Dispatcher, Endpoint, KernelObject, Linked, Notification, Own, READY, Ref,
};
use caps::{AuditCursor, AuditError, AuditProgress, Budget, Capability, MappingSearch, Maps, Mark, Slots};
use core::mem::size_of;
use lmp::invocation::{DispatcherState, Violation};
use lmp::layout::{LINK_AREA, LINKS_MAX, PHYS_WINDOW, USER_ROOT_SLOTS};
use lmp::objects::{Extent, PAGE_SIZE};
use lmp::{ObjType, Rights};

/// What one step may do: look so many things up, and go through so many slots, entries and pages.
const STEP: Budget = Budget { objects: 4, bytes: 128 };

/// Entries that the processor marks by itself.
const MARKS: u64 = Entry::ACCESSED.union(Entry::DIRTY).bits();

/// Bits that an entry for a page in the last table may have besides its address.
const LEAF: u64 = Entry::PRESENT
    .union(Entry::WRITABLE)
    .union(Entry::USER)
    .union(Entry::WRITE_THROUGH)
    .union(Entry::UNCACHED)
    .union(Entry::NO_EXECUTE)
    .bits();

/// How far the audit has come.
#[derive(Default)]
pub(crate) struct Audit {
    stage: Stage,
    /// In the capability database.
    pub tree: AuditCursor,
    table: TableCursor,
    /// Page-table entries seen.
    pub entries: u64,
    /// Bytes of memory accounted for.
    pub bytes: u64,
}

/// What is checked next.
#[derive(Clone, Copy, Default)]
enum Stage {
    /// The capabilities and what is behind them.
    #[default]
    Capabilities,
    /// The memory given to the core: the piece, and the address in it.
    Memory(usize, u64),
    /// The interrupt binding of this index.
    Interrupts(usize),
    /// The CPU driver's own pages, from this address on.
    OwnPages(u64),
    /// All is done.
    Done,
}

/// How far the page table that the audit is at was checked.
#[derive(Clone, Copy, Default)]
struct TableCursor {
    /// Its generation.
    generation: u64,
    entry: u16,
    /// For the mapping of that entry.
    search: MappingSearch,
}

/// What is wrong.
pub(crate) struct Found {
    pub violation: Violation,
    /// See [`Violation`].
    pub at: u64,
}

fn found(violation: Violation, at: u64) -> Found {
    Found { violation, at }
}

fn check(holds: bool, violation: Violation, at: u64) -> Result<(), Found> {
    if holds { Ok(()) } else { Err(found(violation, at)) }
}

fn violation(error: AuditError) -> Violation {
    match error {
        AuditError::Mark | AuditError::Condemned | AuditError::Deleting => Violation::Mark,
        AuditError::Overlap => Violation::Overlap,
        AuditError::Orphan => Violation::Orphan,
        AuditError::Missing => Violation::Missing,
        _ => Violation::Tree,
    }
}

impl Core {
    /// Go on with the audit, by one step; answers whether a pass is done.
    pub(crate) fn audit_step(&mut self) -> Result<bool, Found> {
        let mut budget = STEP;
        loop {
            let next = match self.k.audit.stage {
                Stage::Capabilities => self.audit_capabilities(&mut budget)?,
                Stage::Memory(piece, at) => self.audit_memory(piece, at, &mut budget)?,
                Stage::Interrupts(index) => self.audit_interrupts(index, &mut budget)?,
                Stage::OwnPages(at) => self.audit_own_pages(at, &mut budget)?,
                Stage::Done => return Ok(true),
            };
            match next {
                Some(stage) => self.k.audit.stage = stage,
                None => return Ok(false),
            }
        }
    }

    fn audit_capabilities(&mut self, budget: &mut Budget) -> Result<Option<Stage>, Found> {
        while budget.take_object() {
            let cursor = &mut self.k.audit.tree;
            let slot_at = |cursor: &AuditCursor| cursor.slot.map_or(0, |slot| slot.0);
            let slot = match self.db.audit_next(&Memory, cursor) {
                Ok(Some(slot)) => slot,
                Ok(None) => return Ok(Some(Stage::Memory(0, 0))),
                Err(error) => return Err(found(violation(error), slot_at(cursor))),
            };
            match self.db.audit_inside(&Memory, slot, cursor, budget) {
                Ok(AuditProgress::Done) => {}
                Ok(AuditProgress::Again) => return Ok(None),
                Err(error) => return Err(found(violation(error), slot_at(cursor))),
            }
            let cap = Memory.get(slot).cap;
            let made = !matches!(cap.mark, Mark::Reserving | Mark::Reserved);
            if made && self.db.is_first(&Memory, slot) {
                if cap.ty.is_vnode() && !self.audit_table(&cap, budget)? {
                    return Ok(None);
                }
                self.audit_object(&cap)?;
            }
            self.db.audit_passed(&Memory, slot, &mut self.k.audit.tree);
            self.k.audit.table = TableCursor::default();
        }
        Ok(None)
    }

    /// Check a page table of a domain; answers whether all of it is done.
    fn audit_table(&mut self, cap: &Capability, budget: &mut Budget) -> Result<bool, Found> {
        let Kernel { audit, handover, .. } = &mut self.k;
        let level = cap.ty.vnode_level().unwrap_or(1);
        // What was here before may be gone; what is here now is checked from the start.
        if audit.table.generation != cap.generation() {
            audit.table = TableCursor { generation: cap.generation(), ..TableCursor::default() };
        }
        // SAFETY: a VNode of this core, in the window; the root of the CPU driver in its own block. Nobody
        // writes them during a step.
        let (table, own) = unsafe { (&*page_table(cap.base), &*page_table_of_driver(handover.root)) };
        while let Some(entry) = table.get(usize::from(audit.table.entry)) {
            if budget.take_bytes(1, 1) == 0 {
                return Ok(false);
            }
            let n = usize::from(audit.table.entry);
            let at = cap.base + n as u64 * 8;
            if level == 4 && n >= USER_ROOT_SLOTS {
                let wanted = if n == USER_ROOT_SLOTS { 0 } else { own[n] };
                check((entry ^ wanted) & !MARKS == 0, Violation::UpperHalf, at)?;
            } else if *entry != 0 {
                audit.entries += 1;
                let (address, bits) = (entry & paging::ADDRESS, entry & !paging::ADDRESS & !MARKS);
                let id = (cap.base, cap.generation(), audit.table.entry);
                let span = paging::span(level);
                let mapping =
                    match self.db.made_by(&Memory, id, address, span, &mut audit.table.search, budget) {
                        Maps::By(slot) => Memory.get(slot).cap,
                        Maps::Nothing => return Err(found(Violation::Unbacked, at)),
                        Maps::Again => return Ok(false),
                    };
                let large = bits & Entry::LARGE.bits() != 0;
                if level == 1 || large {
                    let expected = if large { LEAF | Entry::LARGE.bits() } else { LEAF };
                    check(bits & !expected == 0 && level <= 3, Violation::Bits, at)?;
                    audit_access(Entry::from_bits_retain(bits), mapping.rights, at)?;
                } else {
                    check(bits == paging::USER_TABLE.bits(), Violation::Bits, at)?;
                }
            }
            audit.table.entry += 1;
            audit.table.search = MappingSearch::default();
        }
        Ok(true)
    }

    /// Check a kernel object's links.
    fn audit_object(&self, cap: &Capability) -> Result<(), Found> {
        let at = cap.base;
        let object = |holds| check(holds, Violation::Object, at);
        if let Some(d) = Ref::<Dispatcher>::from_cap(cap) {
            // The short way of messages leaves the links of who is in no ring as they were.
            if d.queued.get() {
                let (Some(next), Some(previous)) = (d.next.get(), d.previous.get()) else {
                    return object(false);
                };
                object(self.is_there(next) && self.is_there(previous))?;
                object((READY.previous)(&next).get() == Some(d) && (READY.next)(&previous).get() == Some(d))?;
            }
            object(self.is_head(d)?)?;
            let (next, previous) = (d.next_caller.get(), d.previous_caller.get());
            object(next.is_some() == previous.is_some())?;
            if let (Some(next), Some(previous)) = (next, previous) {
                object(self.is_there(next) && self.is_there(previous))?;
                object(
                    (CALLERS.previous)(&next).get() == Some(d) && (CALLERS.next)(&previous).get() == Some(d),
                )?;
            }
            let (space, frame) = (d.own(Own::CSpace), d.own(Own::Frame));
            if d.state.get() != DispatcherState::Ended {
                if space.tag() == ObjType::L1CNode as u16 {
                    object(d.space.get().base() == space.base)?;
                }
                if frame.tag() == ObjType::Frame as u16 {
                    object(d.frame.get() == PHYS_WINDOW + frame.base)?;
                }
            }
        } else if let Some(n) = Ref::<Notification>::from_cap(cap) {
            self.audit_linked(n)?;
            let bound = self.k.irqs.iter().filter(|binding| binding.notification == Some(n)).count();
            check(usize::from(n.vectors.get()) == bound, Violation::Count, at)?;
        } else if let Some(e) = Ref::<Endpoint>::from_cap(cap) {
            self.audit_linked(e)?;
            let (next, previous) = (e.next_called.get(), e.previous_called.get());
            object(next.is_some() == previous.is_some() && next.is_some() == e.queue.get().is_some())?;
            if let (Some(next), Some(previous)) = (next, previous) {
                object(self.is_there(next) && self.is_there(previous))?;
                object(
                    (CALLED.previous)(&next).get() == Some(e) && (CALLED.next)(&previous).get() == Some(e),
                )?;
            }
            if let Some(first) = e.queue.get() {
                object(self.is_there(first) && first.at.get() == Some(e))?;
            }
        }
        Ok(())
    }

    /// Whether the heads of a dispatcher's lists are the first ones in them.
    fn is_head(&self, d: Ref<Dispatcher>) -> Result<bool, Found> {
        fn first<T: Linked>(core: &Core, d: Ref<Dispatcher>) -> bool {
            T::head(&d).get().is_none_or(|first| {
                core.is_there(first)
                    && first.dispatcher().get() == Some(d)
                    && first.previous().get().is_none()
            })
        }
        Ok(first::<Notification>(self, d) && first::<Endpoint>(self, d))
    }

    /// Check what is bound to a dispatcher.
    fn audit_linked<T: Linked>(&self, object: Ref<T>) -> Result<(), Found> {
        let (next, previous) = (object.next().get(), object.previous().get());
        let holds = match object.dispatcher().get() {
            None => next.is_none() && previous.is_none(),
            Some(d) => {
                self.is_there(d)
                    && next.is_none_or(|next| {
                        self.is_there(next)
                            && next.previous().get() == Some(object)
                            && next.dispatcher().get() == Some(d)
                    })
                    && match previous {
                        None => T::head(&d).get() == Some(object),
                        Some(previous) => self.is_there(previous) && previous.next().get() == Some(object),
                    }
            }
        };
        check(holds, Violation::Object, object.physical())
    }

    /// Whether the database has a capability for the object. Only then may it be looked at.
    fn is_there<T: KernelObject>(&self, object: Ref<T>) -> bool {
        let size = match T::TYPE.extent() {
            Extent::Fixed(size) => size,
            _ => size_of::<T>() as u64,
        };
        self.db.exists(&Memory, T::TYPE, object.physical(), size)
    }

    fn audit_memory(&mut self, piece: usize, at: u64, budget: &mut Budget) -> Result<Option<Stage>, Found> {
        let count = self.k.handover.given_count as usize;
        let Some(given) = self.k.handover.given.get(piece).filter(|_| piece < count) else {
            return Ok(Some(Stage::Interrupts(0)));
        };
        let mut at = at.max(given.range.base().as_u64());
        let end = given.range.end().as_u64();
        while at < end {
            if !budget.take_object() {
                self.k.audit.stage = Stage::Memory(piece, at);
                return Ok(None);
            }
            let upto = self.db.covered(&Memory, at).ok_or(found(Violation::Lost, at))?;
            self.k.audit.bytes += upto.min(end) - at;
            at = upto;
        }
        Ok(Some(Stage::Memory(piece + 1, 0)))
    }

    fn audit_interrupts(&mut self, index: usize, budget: &mut Budget) -> Result<Option<Stage>, Found> {
        for (i, binding) in self.k.irqs.iter().enumerate().skip(index) {
            if let Some(n) = binding.notification {
                if !budget.take_object() {
                    self.k.audit.stage = Stage::Interrupts(i);
                    return Ok(None);
                }
                check(self.is_there(n), Violation::Object, n.physical())?;
            }
        }
        if let Some(d) = self.k.current.get() {
            check(self.is_there(d) && self.k.cspace == d.space.get(), Violation::Object, d.physical())?;
        }
        if let Some(register) = cpu::altered_register(&self.k.features) {
            return Err(found(Violation::Control, register));
        }
        Ok(Some(Stage::OwnPages(PHYS_WINDOW)))
    }

    /// Check the CPU driver's own page tables.
    fn audit_own_pages(&mut self, mut va: u64, budget: &mut Budget) -> Result<Option<Stage>, Found> {
        let (block, root) = (self.k.handover.block, self.k.handover.root);
        loop {
            if budget.take_bytes(1, 1) == 0 {
                self.k.audit.stage = Stage::OwnPages(va);
                return Ok(None);
            }
            let (mut table, mut level) = (root, 4);
            let entry = loop {
                // SAFETY: the tables of the CPU driver lie in its own block; nobody writes them during a step.
                let entry = unsafe { (*page_table_of_driver(table))[paging::index(va, level)] };
                let bits = Entry::from_bits_retain(entry);
                if !bits.contains(Entry::PRESENT) || level == 1 || bits.contains(Entry::LARGE) {
                    break entry;
                }
                table = entry & paging::ADDRESS;
                check(
                    !bits.contains(Entry::USER) && table & !(crate::instance::BLOCK - 1) == block,
                    Violation::OwnPage,
                    table,
                )?;
                level -= 1;
            };
            if entry != 0 {
                self.k.audit.entries += 1;
                let (bits, address) = (Entry::from_bits_retain(entry), entry & paging::ADDRESS);
                let open = bits.contains(Entry::USER)
                    || bits.contains(Entry::WRITABLE) && !bits.contains(Entry::NO_EXECUTE);
                check(!open, Violation::OwnPage, address)?;
                if (LINK_AREA..LINK_AREA + LINKS_MAX * PAGE_SIZE).contains(&va) {
                    let id = (table, caps::Mapping::KERNEL, paging::index(va, 1) as u16);
                    let search = &mut MappingSearch::default();
                    let by = &mut Budget { objects: 8, bytes: 0 };
                    let maps = self.db.made_by(&Memory, id, address, PAGE_SIZE, search, by);
                    check(maps != Maps::Nothing, Violation::Unbacked, address)?;
                    budget.objects = budget.objects.saturating_sub(1);
                }
            }
            let span = paging::span(level);
            va = match (va & !(span - 1)).checked_add(span) {
                Some(next) => next,
                None => return Ok(Some(Stage::Done)),
            };
        }
    }
}

/// Check what an entry for a page allows.
fn audit_access(entry: Entry, rights: Rights, at: u64) -> Result<(), Found> {
    let (write, execute) = (entry.contains(Entry::WRITABLE), !entry.contains(Entry::NO_EXECUTE));
    check(!(write && execute), Violation::WriteExecute, at)?;
    let mut needed = Rights::READ;
    needed.set(Rights::WRITE, write);
    needed.set(Rights::EXECUTE, execute);
    check(rights.contains(needed) && entry.contains(Entry::PRESENT | Entry::USER), Violation::Rights, at)
}
