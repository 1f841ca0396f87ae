//! The database of one core, and the operations on it that are short: copy, mint, mappings, identify, and
//! what the kernel itself puts in.

use crate::cte::{
    ADDRESS_LIMIT, Capability, CoreId, Cte, Link, Mapping, Mark, Remote, SlotAddr, Slots, position,
};
use crate::lookup::{Level, Place};
use crate::objects::{Objects, Unmap};
use crate::revoke::Revoke;
use crate::tree::{self, Key, Tree};
use lmp::objects::{Extent, PAGE_SIZE, Space};
use lmp::{ObjType, Rights, SysError};

/// Entries of a page table.
const TABLE_ENTRIES: u32 = 512;

/// How many copies are gone through one by one, before the first is searched for from the root.
const NEAR_COPIES: u32 = 4;

/// How many objects inside a capability that the kernel puts in are looked at before it is refused.
const FIT_STEPS: u32 = 32;

/// The capability database of one core.
///
/// It is small and holds no references, so the kernel keeps it in the KCB, from where a restarted CPU driver
/// takes it up again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CapDb {
    pub(crate) tree: Tree,
    core: CoreId,
    /// Generation of the last page table or reply right made.
    generation: u64,
    /// CNodes whose slots are still to be emptied, the latest first.
    pub(crate) condemned: Link,
    /// Length of that list.
    pub(crate) depth: u32,
    /// Condemned CNodes that hold pinned capabilities.
    pub(crate) parked: Link,
    /// Number of the trial to destroy pinned capabilities; never 0.
    pub(crate) trial: u32,
    /// Slots marked [`Mark::Deleting`], the latest first.
    pub(crate) deleting: Link,
    /// The slot of the delete under way in this very call; none once the slot's own CNode needs it or is empty.
    pub(crate) current: Link,
    /// The revoke under way.
    pub(crate) revoke: Option<Revoke>,
}

/// What [`CapDb::identify`] tells of a capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Type, rights, owner, base, size, badge; `remote` is that of the object.
    pub cap: Capability,
    /// Relations within this core, in the same three bits.
    pub local: Remote,
}

impl Identity {
    /// The message words of `Op::Identify`. The relation bits (16–31 of word 0) are copies, ancestors,
    /// descendants on other cores (16–18) and on this one (20–22).
    pub fn words(&self) -> [u64; 4] {
        let relations = self.cap.remote.bits() as u64 | (self.local.bits() as u64) << 4;
        [
            self.cap.ty as u64
                | (self.cap.rights.bits() as u64) << 8
                | relations << 16
                | (self.cap.owner.0 as u64) << 32,
            self.cap.base,
            self.cap.size,
            self.cap.badge,
        ]
    }
}

/// Which entries of a page table are to map which part of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MappingRange {
    /// First entry.
    pub entry: u32,
    /// Number of entries.
    pub count: u32,
    /// Offset in bytes into the object, at which the first entry points.
    pub offset: u64,
    /// Bytes mapped by each entry.
    pub entry_bytes: u64,
}

impl CapDb {
    /// An empty database for `core`.
    pub const fn new(core: CoreId) -> CapDb {
        CapDb {
            tree: Tree::EMPTY,
            core,
            generation: 0,
            condemned: Link::NONE,
            depth: 0,
            parked: Link::NONE,
            trial: 1,
            deleting: Link::NONE,
            current: Link::NONE,
            revoke: None,
        }
    }

    /// The core it belongs to.
    pub const fn core(&self) -> CoreId {
        self.core
    }

    /// Copies the capability in `src` to `dst`; `NotTransferable` if that is a right to answer a call.
    pub fn copy<S: Slots>(&mut self, slots: &mut S, dst: Place, src: SlotAddr) -> Result<(), SysError> {
        let cap = self.copyable(slots, src)?;
        self.put_copy(slots, dst, cap, src)
    }

    /// Moves the capability in `src` to `dst`.
    pub fn give<S: Slots>(&mut self, slots: &mut S, dst: Place, src: SlotAddr) -> Result<(), SysError> {
        self.copy(slots, dst, src)?;
        self.remove(slots, src);
        Ok(())
    }

    /// Puts a copy of the capability in `src` in the place of the one in `dst`, of which there must be another:
    /// else its object would go, which takes more than one step, and `WrongState` is the answer.
    pub fn replace<S: Slots>(&mut self, slots: &mut S, dst: Place, src: SlotAddr) -> Result<(), SysError> {
        let cap = self.copyable(slots, src)?;
        check_level(dst, cap.ty)?;
        self.usable(slots, dst.slot)?;
        if src == dst.slot {
            return Ok(());
        }
        if !self.has_copies(slots, dst.slot) {
            return Err(SysError::WrongState);
        }
        self.remove(slots, dst.slot);
        self.put_copy(slots, dst, cap, src)
    }

    /// Copies the capability in `src` to `dst` with `rights`, of which it must have each, and with `badge`
    /// unless that is 0. Only an endpoint, notification or link without a badge takes one.
    pub fn mint<S: Slots>(
        &mut self,
        slots: &mut S,
        dst: Place,
        src: SlotAddr,
        rights: Rights,
        badge: u64,
    ) -> Result<(), SysError> {
        let mut cap = self.copyable(slots, src)?;
        if !cap.rights.contains(rights) {
            return Err(SysError::MissingRight);
        }
        if badge != 0 {
            if !matches!(cap.ty, ObjType::Endpoint | ObjType::Notification | ObjType::Link) {
                return Err(SysError::WrongType);
            }
            if cap.badge != 0 && cap.badge != badge {
                return Err(SysError::BadArgument);
            }
            cap.badge = badge;
        }
        cap.rights = rights;
        self.put_copy(slots, dst, cap, src)
    }

    /// The capability in `src`, if there may be another of the same object.
    fn copyable<S: Slots>(&self, slots: &S, src: SlotAddr) -> Result<Capability, SysError> {
        let cap = self.source(slots, src)?;
        if cap.ty.is_copyable() { Ok(cap) } else { Err(SysError::NotTransferable) }
    }

    /// Puts `cap` into `dst`, a copy of the capability in `src`.
    fn put_copy<S: Slots>(
        &mut self,
        slots: &mut S,
        dst: Place,
        cap: Capability,
        src: SlotAddr,
    ) -> Result<(), SysError> {
        check_destination(slots, dst, cap.ty)?;
        *slots.get_mut(dst.slot) = Cte { cap: Capability { remote: Remote::empty(), ..cap }, ..Cte::EMPTY };
        self.tree.insert_near(slots, dst.slot, src);
        // Copies are in the order of their slots, and the first one is the one that knows.
        if dst.slot < src {
            let same = |s: &SlotAddr| slots.get(*s).cap.is_same_object(&cap);
            if tree::previous(slots, dst.slot).as_ref().is_none_or(|s| !same(s)) {
                let remote = tree::next(slots, dst.slot).filter(same).map(|s| slots.get(s).cap.remote);
                slots.get_mut(dst.slot).cap.remote = remote.unwrap_or_default();
            }
        }
        Ok(())
    }

    /// Puts into `dst` the capability for a mapping of the frame or lower page table in `object` into the page
    /// table in `table`. The kernel writes the entries after this has succeeded, having checked before that
    /// they are free and that the levels fit.
    ///
    /// The mapping has the rights of the capability in `object`, and goes when the last capability of that
    /// object goes.
    pub fn insert_mapping<S: Slots>(
        &mut self,
        slots: &mut S,
        dst: Place,
        object: SlotAddr,
        table: SlotAddr,
        range: MappingRange,
    ) -> Result<(), SysError> {
        let cap = self.source(slots, object)?;
        let table = self.usable(slots, table)?;
        if !has_mappings(cap.ty) || !table.ty.is_vnode() {
            return Err(SysError::WrongType);
        }
        let entries = range.entry.checked_add(range.count).ok_or(SysError::OutOfRange)?;
        if range.count == 0 || range.entry_bytes == 0 {
            return Err(SysError::BadArgument);
        }
        if entries > TABLE_ENTRIES {
            return Err(SysError::OutOfRange);
        }
        if !range.offset.is_multiple_of(PAGE_SIZE) {
            return Err(SysError::Misaligned);
        }
        let len = range.entry_bytes.checked_mul(range.count as u64).ok_or(SysError::OutOfRange)?;
        if range.offset.checked_add(len).is_none_or(|end| end > cap.size) {
            return Err(SysError::OutOfRange);
        }
        check_destination(slots, dst, ObjType::Mapping)?;
        let mapping = Mapping {
            table: table.base,
            generation: table.generation(),
            entry: range.entry as u16,
            count: range.count as u16,
            offset: range.offset,
        };
        let mapping = Capability {
            data: mapping.encode(),
            ..Capability::new(ObjType::Mapping, cap.base, cap.size, self.core).with_rights(cap.rights)
        };
        self.put_near(slots, dst.slot, mapping, object);
        Ok(())
    }

    /// Deletes the mapping in `slot`, as [`delete`](Self::delete) does, but for who has its page table, `table`, at hand.
    /// The entries are cleared with the last copy of the mapping.
    ///
    /// Errors: `EmptySlot`, `SlotBusy`; `WrongType` if it is no mapping; `BadArgument` if it is one in another table;
    /// `RetryThroughMonitor`.
    pub fn unmap<S: Slots, O: Objects>(
        &mut self,
        slots: &mut S,
        objects: &mut O,
        slot: SlotAddr,
        table: &Capability,
    ) -> Result<(), SysError> {
        let cap = self.usable(slots, slot)?;
        let Some(mapping) = cap.mapping() else { return Err(SysError::WrongType) };
        if (mapping.table, mapping.generation) != (table.base, table.generation()) {
            return Err(SysError::BadArgument);
        }
        if !self.has_copies(slots, slot) {
            if !cap.remote.is_empty() {
                return Err(SysError::RetryThroughMonitor);
            }
            objects.unmap(&mapping.entries(table.ty, cap.base));
        }
        self.remove(slots, slot);
        Ok(())
    }

    /// Puts into `dst` the capability for the mapping of one page of the frame in `object`, from byte `offset`
    /// on, into entry `entry` of the kernel's own page table at physical address `table`. The kernel writes the
    /// entry after this has succeeded; it is told to clear it ([`Objects::unmap`]) when
    /// this capability goes, or the last one of the frame, or the frame is revoked.
    pub fn insert_kernel_mapping<S: Slots>(
        &mut self,
        slots: &mut S,
        dst: Place,
        object: SlotAddr,
        table: u64,
        entry: u16,
        offset: u64,
    ) -> Result<(), SysError> {
        let cap = self.source(slots, object)?;
        if cap.ty != ObjType::Frame {
            return Err(SysError::WrongType);
        }
        if u32::from(entry) >= TABLE_ENTRIES {
            return Err(SysError::OutOfRange);
        }
        if !offset.is_multiple_of(PAGE_SIZE) {
            return Err(SysError::Misaligned);
        }
        if offset.checked_add(PAGE_SIZE).is_none_or(|end| end > cap.size) {
            return Err(SysError::OutOfRange);
        }
        check_destination(slots, dst, ObjType::Mapping)?;
        let mapping = Mapping { table, generation: Mapping::KERNEL, entry, count: 1, offset };
        let mapping = Capability {
            data: mapping.encode(),
            ..Capability::new(ObjType::Mapping, cap.base, cap.size, self.core).with_rights(cap.rights)
        };
        self.put_near(slots, dst.slot, mapping, object);
        Ok(())
    }

    /// Puts into `dst` a right to answer a call. It is never copied, and stays in this slot until it is used up
    /// by [`take_reply`](Self::take_reply) or deleted, which the kernel is told. `caller` is the kernel's.
    pub fn insert_reply<S: Slots>(&mut self, slots: &mut S, dst: Place, caller: u64) -> Result<(), SysError> {
        check_destination(slots, dst, ObjType::Reply)?;
        // A base of its own makes it the only capability of its object.
        let right = Capability::new(ObjType::Reply, self.next_generation(), 0, self.core);
        self.put(slots, dst.slot, Capability { data: [caller, 0, 0], ..right });
        Ok(())
    }

    /// Empties `slot` of the right to answer a call, which was used; the kernel is not told.
    pub fn take_reply<S: Slots>(&mut self, slots: &mut S, slot: SlotAddr) -> Result<(), SysError> {
        match self.usable(slots, slot)?.ty {
            ObjType::Reply => {
                self.remove(slots, slot);
                Ok(())
            }
            _ => Err(SysError::WrongType),
        }
    }

    /// What is in `slot`.
    pub fn identify<S: Slots>(&self, slots: &S, slot: SlotAddr) -> Result<Identity, SysError> {
        let mut cap = self.usable(slots, slot)?;
        cap.remote = self.remote(slots, &cap);
        let mut local = Remote::empty();
        local.set(Remote::COPIES, self.has_copies(slots, slot));
        local.set(Remote::ANCESTORS, self.enclosing(slots, &cap).is_some());
        local.set(Remote::DESCENDANTS, self.first_descendant(slots, &cap, None).is_some());
        Ok(Identity { cap, local })
    }

    /// Puts into `dst` a capability that the kernel makes, such as the machine's RAM at boot. Its object may
    /// lie within one that is there already if it could have been retyped from that, but not around one, and
    /// it must be new: further capabilities are made by [`copy`](Self::copy).
    pub fn insert_root<S: Slots>(
        &mut self,
        slots: &mut S,
        dst: Place,
        cap: Capability,
    ) -> Result<(), SysError> {
        let mut cap = Capability { mark: Mark::Ready, remote: Remote::empty(), owner: self.core, ..cap };
        check_extent(&cap)?;
        check_destination(slots, dst, cap.ty)?;
        if self.leader(slots, &cap).is_some() {
            return Err(SysError::Overlap);
        }
        self.check_fit(slots, &cap, 0)?;
        if cap.ty.is_vnode() {
            cap.data[0] = self.next_generation();
        }
        self.put(slots, dst.slot, cap);
        Ok(())
    }

    /// Puts into `dst` a capability on memory of another core, `cap.owner`, received through the monitors:
    /// RAM, a frame or a device frame.
    ///
    /// It can be copied, minted and mapped here. Retype answers `RetryThroughMonitor`, revoke too until
    /// [`set_remote`](Self::set_remote) says that the owner does not mind; deleting the last such capability
    /// drops it (and its mappings), and its owner goes on believing in a remote copy until it asks.
    pub fn insert_foreign<S: Slots>(
        &mut self,
        slots: &mut S,
        dst: Place,
        cap: Capability,
    ) -> Result<(), SysError> {
        if cap.owner == self.core {
            return Err(SysError::BadArgument);
        }
        if !matches!(cap.ty, ObjType::Ram | ObjType::Frame | ObjType::DevFrame) {
            return Err(SysError::WrongType);
        }
        let cap = Capability { mark: Mark::Ready, remote: cap.remote | Remote::COPIES, ..cap };
        check_extent(&cap)?;
        check_destination(slots, dst, cap.ty)?;
        match self.leader(slots, &cap) {
            Some(copy) if slots.get(copy).cap.owner != cap.owner => return Err(SysError::Overlap),
            Some(copy) if slots.get(copy).cap.mark != Mark::Ready => return Err(SysError::SlotBusy),
            Some(_) => {}
            None => self.check_fit(slots, &cap, FIT_STEPS)?,
        }
        self.put(slots, dst.slot, cap);
        Ok(())
    }

    /// Makes `core` the owner of the memory in `slot`, when it is handed to that core. RAM must have no copy
    /// and no descendant here, so that nobody here can use it any more; a frame may have copies and mappings,
    /// and all its copies change their owner: else `WrongState`. Ancestors keep the range as used up.
    pub fn set_owner<S: Slots>(
        &mut self,
        slots: &mut S,
        slot: SlotAddr,
        core: CoreId,
    ) -> Result<(), SysError> {
        let cap = self.source(slots, slot)?;
        // Behind the copies of a frame come its mappings, then everything else.
        let shared = match cap.ty {
            ObjType::Ram => None,
            ObjType::Frame => Some(Key::after_type(&cap, ObjType::Mapping)),
            _ => return Err(SysError::WrongType),
        };
        if (shared.is_none() && self.has_copies(slots, slot))
            || self.first_descendant(slots, &cap, shared).is_some()
        {
            return Err(SysError::WrongState);
        }
        let mut at = Key::before_copies(&cap);
        while let Some(copy) = self.tree.first_after(slots, &at) {
            if !slots.get(copy).cap.is_same_object(&cap) {
                break;
            }
            slots.get_mut(copy).cap.owner = core;
            at = Key::new(&cap, copy);
        }
        Ok(())
    }

    /// Records which relations the object in `slot` has on other cores.
    pub fn set_remote<S: Slots>(
        &mut self,
        slots: &mut S,
        slot: SlotAddr,
        remote: Remote,
    ) -> Result<(), SysError> {
        let cap = self.usable(slots, slot)?;
        if let Some(leader) = self.leader(slots, &cap) {
            slots.get_mut(leader).cap.remote = remote;
        }
        Ok(())
    }

    /// The slot of a capability for the page table at physical address `base`, if there is one.
    pub fn vnode<S: Slots>(&self, slots: &S, base: u64) -> Option<SlotAddr> {
        let wanted = Capability::new(ObjType::Pml4, base, PAGE_SIZE, self.core);
        let slot = self.tree.first_after(slots, &Key::before_copies(&wanted))?;
        let cap = &slots.get(slot).cap;
        (cap.ty.is_vnode() && cap.base == base && !is_reserved(cap.mark)).then_some(slot)
    }

    /// The slot of a capability for the innermost object around `address` that can be mapped, by a domain or as a
    /// page table, without copies yet to choose from: the kernel's, at boot.
    pub fn mappable<S: Slots>(&self, slots: &S, address: u64) -> Option<SlotAddr> {
        let at = position(Space::Memory, address);
        let mut before = Key::after_position(at);
        loop {
            let slot = self.tree.last_reaching(slots, &before, at)?;
            let cap = &slots.get(slot).cap;
            if has_mappings(cap.ty) {
                return Some(slot);
            }
            before = Key::before_copies(cap);
        }
    }

    /// Type and generation of the page table at physical address `base`, if there is one.
    pub fn find_vnode<S: Slots>(&self, slots: &S, base: u64) -> Option<(ObjType, u64)> {
        let cap = &slots.get(self.vnode(slots, base)?).cap;
        Some((cap.ty, cap.generation()))
    }

    /// The page-table entries of the mapping in `slot`; `EntryEmpty` if its page table is gone, even if there
    /// is another one at the same address.
    pub fn mapping_entries<S: Slots>(&self, slots: &S, slot: SlotAddr) -> Result<Unmap, SysError> {
        let cap = self.usable(slots, slot)?;
        if cap.ty != ObjType::Mapping {
            return Err(SysError::WrongType);
        }
        self.entries_of(slots, &cap).ok_or(SysError::EntryEmpty)
    }

    /// The page-table entries of `cap`, if it is a mapping and its table still exists.
    pub(crate) fn entries_of<S: Slots>(&self, slots: &S, cap: &Capability) -> Option<Unmap> {
        let mapping = cap.mapping()?;
        let table_type = match mapping.generation {
            Mapping::KERNEL => ObjType::Pt,
            _ => match self.find_vnode(slots, mapping.table) {
                Some((table_type, g)) if g == mapping.generation => table_type,
                _ => return None,
            },
        };
        Some(mapping.entries(table_type, cap.base))
    }

    /// The innermost object that contains `address` of `space` in its range, by one of its capabilities.
    pub fn innermost<S: Slots>(&self, slots: &S, space: Space, address: u64) -> Option<SlotAddr> {
        if address >= ADDRESS_LIMIT {
            return None;
        }
        let at = position(space, address);
        self.tree.last_reaching(slots, &Key::after_position(at), at)
    }

    /// Whether an operation is unfinished that nobody might come back to: see [`clean`](Self::clean).
    pub fn has_unfinished(&self) -> bool {
        self.depth > 0 || self.revoke.is_some() || self.deleting != Link::NONE
    }

    /// The capability in `slot`, which is there and not in the middle of anything.
    pub(crate) fn usable<S: Slots>(&self, slots: &S, slot: SlotAddr) -> Result<Capability, SysError> {
        let cap = slots.get(slot).cap;
        match (cap.mark, cap.ty) {
            (Mark::Ready, ObjType::Null) => Err(SysError::EmptySlot),
            (Mark::Ready, _) => Ok(cap),
            _ => Err(SysError::SlotBusy),
        }
    }

    /// The same, and new capabilities may come from it.
    pub(crate) fn source<S: Slots>(&self, slots: &S, slot: SlotAddr) -> Result<Capability, SysError> {
        let cap = self.usable(slots, slot)?;
        match &self.revoke {
            Some(r) if r.covers(&cap) => Err(SysError::SlotBusy),
            _ => Ok(cap),
        }
    }

    /// Writes `cap` into the empty slot `slot` and takes it into the tree.
    pub(crate) fn put<S: Slots>(&mut self, slots: &mut S, slot: SlotAddr, cap: Capability) {
        *slots.get_mut(slot) = Cte { cap, ..Cte::EMPTY };
        self.tree.insert(slots, slot);
    }

    /// [`put`](Self::put) for a capability whose place in the order is close to that in `near`.
    pub(crate) fn put_near<S: Slots>(
        &mut self,
        slots: &mut S,
        slot: SlotAddr,
        cap: Capability,
        near: SlotAddr,
    ) {
        *slots.get_mut(slot) = Cte { cap, ..Cte::EMPTY };
        self.tree.insert_near(slots, slot, near);
    }

    /// Takes the capability in `slot` out of the tree and empties the slot.
    pub(crate) fn remove<S: Slots>(&mut self, slots: &mut S, slot: SlotAddr) {
        self.unmark_deleting(slots, slot);
        self.detach(slots, slot);
        *slots.get_mut(slot) = Cte::EMPTY;
        if let Some(revoke) = &mut self.revoke
            && revoke.kept == Some(slot)
        {
            revoke.kept = None;
        }
    }

    /// Takes the capability in `slot` out of the tree. What only the first copy knows passes to the next.
    pub(crate) fn detach<S: Slots>(&mut self, slots: &mut S, slot: SlotAddr) {
        let cap = slots.get(slot).cap;
        if !cap.remote.is_empty()
            && let Some(next) = tree::next(slots, slot)
            && slots.get(next).cap.is_same_object(&cap)
            && self.leader(slots, &cap) == Some(slot)
        {
            slots.get_mut(next).cap.remote = cap.remote;
        }
        self.tree.remove(slots, slot);
    }

    /// The first capability of the object of `cap`: the one whose `remote` counts.
    pub(crate) fn leader<S: Slots>(&self, slots: &S, cap: &Capability) -> Option<SlotAddr> {
        let slot = self.tree.first_after(slots, &Key::before_copies(cap))?;
        slots.get(slot).cap.is_same_object(cap).then_some(slot)
    }

    /// The relations that the object of `cap` has on other cores.
    pub(crate) fn remote<S: Slots>(&self, slots: &S, cap: &Capability) -> Remote {
        self.leader(slots, cap).map_or(Remote::empty(), |leader| slots.get(leader).cap.remote)
    }

    /// [`remote`](Self::remote) of the capability in `slot`: a step or two where it has few copies.
    pub(crate) fn remote_of<S: Slots>(&self, slots: &S, slot: SlotAddr) -> Remote {
        let cap = &slots.get(slot).cap;
        let mut first = slot;
        for _ in 0..NEAR_COPIES {
            match tree::previous(slots, first) {
                Some(copy) if slots.get(copy).cap.is_same_object(cap) => first = copy,
                _ => return slots.get(first).cap.remote,
            }
        }
        self.remote(slots, cap)
    }

    /// Whether the object of the capability in `slot` has another capability.
    pub(crate) fn has_copies<S: Slots>(&self, slots: &S, slot: SlotAddr) -> bool {
        let cap = &slots.get(slot).cap;
        let same = |s: SlotAddr| slots.get(s).cap.is_same_object(cap);
        tree::next(slots, slot).is_some_and(same) || tree::previous(slots, slot).is_some_and(same)
    }

    /// The innermost capability around the object of `cap` that is not for the same object.
    pub(crate) fn enclosing<S: Slots>(&self, slots: &S, cap: &Capability) -> Option<SlotAddr> {
        self.tree.last_reaching(slots, &Key::before_copies(cap), cap.position())
    }

    /// The first descendant of the object of `cap`, after `after` if given.
    pub(crate) fn first_descendant<S: Slots>(
        &self,
        slots: &S,
        cap: &Capability,
        after: Option<Key>,
    ) -> Option<SlotAddr> {
        let start = Key::after_copies(cap);
        let start = after.map_or(start, |key| key.max(start));
        let slot = self.tree.first_after(slots, &start)?;
        is_descendant(cap, &slots.get(slot).cap).then_some(slot)
    }

    pub(crate) fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// Whether a new object with the range of `cap` keeps the order of things: it lies within objects that it
    /// could have been retyped from, and around at most `inside` capabilities that could have been retyped
    /// from it.
    fn check_fit<S: Slots>(&self, slots: &S, cap: &Capability, inside: u32) -> Result<(), SysError> {
        if let Some(outer) = self.enclosing(slots, cap) {
            let outer = &slots.get(outer).cap;
            if !nests(outer, cap) {
                return Err(SysError::Overlap);
            }
        }
        let mut after = Key::after_copies(cap);
        for _ in 0..inside {
            match self.tree.first_reaching(slots, &after, cap.position()) {
                Some(s) if slots.get(s).cap.position() < cap.limit() => {
                    if !nests(cap, &slots.get(s).cap) {
                        return Err(SysError::Overlap);
                    }
                    after = Key::new(&slots.get(s).cap, s);
                }
                _ => return Ok(()),
            }
        }
        match self.tree.first_reaching(slots, &after, cap.position()) {
            Some(s) if slots.get(s).cap.position() < cap.limit() => Err(SysError::Overlap),
            _ => Ok(()),
        }
    }
}

/// Whether a capability of this type is followed by the mappings of its object.
pub(crate) const fn has_mappings(ty: ObjType) -> bool {
    ty.is_mappable() || ty.is_vnode()
}

/// Whether the mark is that of a retype that has not committed.
pub(crate) const fn is_reserved(mark: Mark) -> bool {
    matches!(mark, Mark::Reserving | Mark::Reserved)
}

/// Whether `inner`, which comes after the copies of `outer` in the order, descends from that object.
pub(crate) fn is_descendant(outer: &Capability, inner: &Capability) -> bool {
    // A mapping stands before the descendants of its frame, but has none itself.
    outer.ty != ObjType::Mapping
        && inner.position() < outer.limit()
        && Key::before_copies(inner) > Key::after_copies(outer)
}

/// Whether `inner` may stand within the range of `outer`.
pub(crate) fn nests(outer: &Capability, inner: &Capability) -> bool {
    let contained = outer.position() <= inner.position() && inner.limit() <= outer.limit();
    let same_range = outer.position() == inner.position() && outer.size == inner.size;
    contained
        && match (outer.ty, inner.ty) {
            (ObjType::Mapping, ObjType::Mapping) => same_range,
            // The frame that the outer mapping is for stands before it and is looked at in its turn.
            (ObjType::Mapping, _) => inner.ty.is_mappable(),
            (_, ObjType::Mapping) => has_mappings(outer.ty) || outer.ty == ObjType::Ram,
            _ => inner.ty.retypes_from(outer.ty),
        }
}

/// Whether a capability of type `ty` may be put into `dst`.
pub(crate) fn check_destination<S: Slots>(slots: &S, dst: Place, ty: ObjType) -> Result<(), SysError> {
    check_level(dst, ty)?;
    check_free(&slots.get(dst.slot).cap)
}

/// Whether the slot that holds `cap` is empty.
pub(crate) fn check_free(cap: &Capability) -> Result<(), SysError> {
    match (cap.mark, cap.ty) {
        (Mark::Ready, ObjType::Null) => Ok(()),
        (Mark::Ready, _) => Err(SysError::SlotOccupied),
        _ => Err(SysError::SlotBusy),
    }
}

/// Whether slots at the level of `dst` take capabilities of type `ty`.
pub(crate) fn check_level(dst: Place, ty: ObjType) -> Result<(), SysError> {
    match (dst.level, ty) {
        (Level::L2, _) | (Level::L1, ObjType::L2CNode) => Ok(()),
        _ => Err(SysError::WrongType),
    }
}

/// Whether base and size of `cap` are possible for its type.
fn check_extent(cap: &Capability) -> Result<(), SysError> {
    match cap.ty.extent() {
        Extent::Fixed(n) if cap.size != n => return Err(SysError::BadArgument),
        Extent::Multiple(_) if cap.size == 0 => return Err(SysError::BadArgument),
        Extent::Fixed(n) | Extent::Multiple(n)
            if !cap.base.is_multiple_of(n) || !cap.size.is_multiple_of(n) =>
        {
            return Err(SysError::Misaligned);
        }
        Extent::Unsized if matches!(cap.ty, ObjType::Null | ObjType::Mapping | ObjType::Reply) => {
            return Err(SysError::WrongType);
        }
        _ => {}
    }
    if cap.ty.space() == Space::None && (cap.base, cap.size) != (0, 0) {
        return Err(SysError::BadArgument);
    }
    match cap.base.checked_add(cap.size) {
        Some(end) if end <= ADDRESS_LIMIT => Ok(()),
        _ => Err(SysError::OutOfRange),
    }
}
