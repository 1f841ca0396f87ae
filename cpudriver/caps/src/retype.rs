//! Making objects: reserve, zero, commit.
//!
//! *Reserve*: after all checks, the first destination slot takes a capability over the whole range of the
//! products, marked [`Mark::Reserving`]. It stands in the tree like any descendant of the source, so nobody
//! can retype the range through any capability; the other destination slots are marked [`Mark::Reserved`].
//! *Zero*: the range, in steps. Up to here, deleting one of the destination slots gives everything up.
//! *Commit*: the products are made in steps, still marked; with the last one the marks fall, all at once.
//!
//! The same request, through any capability of the source, goes on with an unfinished retype.

use crate::cte::{Capability, Cte, Link, Mark, Phase, SlotAddr, Slots};
use crate::db::{CapDb, check_free, check_level, has_mappings};
use crate::lookup::Place;
use crate::objects::{Budget, Objects, Progress};
use crate::tree::Key;
use lmp::cptr::L2_SLOTS;
use lmp::objects::Extent;
use lmp::{ObjType, SysError};

/// The objects that a retype is to make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Their type.
    pub ty: ObjType,
    /// Where in the source the first one starts, in units of the source's space.
    pub offset: u64,
    /// The size of each.
    pub size: u64,
    /// How many: 1 to 256.
    pub count: u64,
}

/// A request whose arguments fit its source.
struct Plan {
    /// A capability for all of them together.
    products: Capability,
    count: u32,
}

impl CapDb {
    /// Makes the objects of `request` from the capability in `src`, in the slots from `dst` on. They have the
    /// rights of the source. Errors, in the order of the checks:
    ///
    /// * `EmptySlot`, `SlotBusy`: the source; also if it, or an ancestor, is being revoked;
    /// * `BadRetype`: not from this type to that one;
    /// * `RetryThroughMonitor`: the source has remote relations or another owner;
    /// * `BadArgument`: count or size not possible, or the product would be the whole source again;
    /// * `NoSuchSlot`: not so many slots in that CNode; `WrongType`: not in an L1 CNode;
    /// * `Misaligned`, `OutOfRange`: the range;
    /// * `SlotOccupied`, `SlotBusy`: a destination slot;
    /// * `Overlap`: an object in the range, or `SlotBusy`, if it is just being made or destroyed;
    /// * `ForeignMemory`: memory that is to be zeroed is out of this core's reach;
    /// * `Again`: all is well, but not finished.
    pub fn retype<S: Slots, O: Objects>(
        &mut self,
        slots: &mut S,
        objects: &mut O,
        dst: Place,
        src: SlotAddr,
        request: Request,
        budget: &mut Budget,
    ) -> Result<(), SysError> {
        let source = self.source(slots, src)?;
        let plan = self.plan(slots, src, &source, dst, request)?;
        if !is_under_way(slots, dst.slot, &plan) {
            self.check_slots(slots, dst.slot, plan.count)?;
            let near = self.check_range(slots, &source, &plan.products)?.unwrap_or(src);
            if zeroes(&plan.products, source.ty)
                && !objects.accessible(plan.products.base, plan.products.size)
            {
                return Err(SysError::ForeignMemory);
            }
            if plan.count == 1 && self.make_at_once(slots, objects, dst.slot, near, &plan, source.ty, budget)
            {
                return Ok(());
            }
            self.reserve(slots, dst.slot, &plan, source.ty);
        }
        match self.go_on(slots, objects, dst.slot, budget) {
            Progress::Done => Ok(()),
            Progress::Again => Err(SysError::Again),
        }
    }

    fn plan<S: Slots>(
        &self,
        slots: &S,
        src: SlotAddr,
        source: &Capability,
        dst: Place,
        request: Request,
    ) -> Result<Plan, SysError> {
        let Request { ty, offset, size, count } = request;
        if !ty.retypes_from(source.ty) {
            return Err(SysError::BadRetype);
        }
        if source.owner != self.core() || !self.remote_of(slots, src).is_empty() {
            return Err(SysError::RetryThroughMonitor);
        }
        if count == 0 || count > L2_SLOTS as u64 || size == 0 {
            return Err(SysError::BadArgument);
        }
        if count > dst.room as u64 {
            return Err(SysError::NoSuchSlot);
        }
        check_level(dst, ty)?;
        let unit = match ty.extent() {
            Extent::Fixed(n) if size != n => return Err(SysError::BadArgument),
            Extent::Fixed(n) | Extent::Multiple(n) => n,
            Extent::Unsized => return Err(SysError::BadRetype),
        };
        if ty == source.ty && size == source.size {
            return Err(SysError::BadArgument);
        }
        let total = size.checked_mul(count).ok_or(SysError::OutOfRange)?;
        if offset.checked_add(total).is_none_or(|end| end > source.size) {
            return Err(SysError::OutOfRange);
        }
        // Cannot overflow: the range lies within the source.
        let base = source.base + offset;
        if !base.is_multiple_of(unit) || !size.is_multiple_of(unit) {
            return Err(SysError::Misaligned);
        }
        let products = Capability { rights: source.rights, ..Capability::new(ty, base, total, self.core()) };
        Ok(Plan { products, count: count as u32 })
    }

    fn check_slots<S: Slots>(&self, slots: &S, first: SlotAddr, count: u32) -> Result<(), SysError> {
        (0..count).try_for_each(|i| check_free(&slots.get(first.offset(i)).cap))
    }

    /// Whether nothing that was made from the source lies in the range of `products`. Mappings of the source
    /// itself do not count: they share its memory in any case. Answers what comes after them in the order, if there is
    /// something that was found on the way.
    fn check_range<S: Slots>(
        &self,
        slots: &S,
        source: &Capability,
        products: &Capability,
    ) -> Result<Option<SlotAddr>, SysError> {
        let after =
            if has_mappings(source.ty) { Key::after_range(source) } else { Key::after_copies(source) };
        match self.tree.first_reaching(slots, &after, products.position()) {
            Some(slot) if slots.get(slot).cap.position() < products.limit() => {
                Err(match slots.get(slot).cap.mark {
                    Mark::Ready => SysError::Overlap,
                    _ => SysError::SlotBusy,
                })
            }
            next => Ok(next),
        }
    }

    /// Makes the only product of `plan` if the budget has all that it takes, without anything that others could see
    /// in between.
    #[expect(clippy::too_many_arguments, reason = "all of a request")]
    fn make_at_once<S: Slots, O: Objects>(
        &mut self,
        slots: &mut S,
        objects: &mut O,
        slot: SlotAddr,
        near: SlotAddr,
        plan: &Plan,
        source: ObjType,
        budget: &mut Budget,
    ) -> bool {
        let Capability { ty, base, size, .. } = plan.products;
        let bytes = if zeroes(&plan.products, source) { size } else { 0 };
        if budget.objects == 0 || budget.bytes < bytes {
            return false;
        }
        budget.take_object();
        budget.bytes -= bytes;
        if bytes > 0 {
            objects.zero(base, bytes);
        }
        let data = [self.generation_for(ty), 0, 0];
        self.put_near(slots, slot, Capability { data, ..plan.products }, near);
        objects.init(&slots.get(slot).cap);
        true
    }

    fn reserve<S: Slots>(&mut self, slots: &mut S, first: SlotAddr, plan: &Plan, source: ObjType) {
        self.put(slots, first, reservation(plan));
        let node = &mut slots.get_mut(first).node;
        node.count = plan.count;
        // What was accessible before keeps its contents.
        if !zeroes(&plan.products, source) {
            node.phase = Phase::Second;
        }
        for i in 1..plan.count {
            let cte = slots.get_mut(first.offset(i));
            cte.cap.mark = Mark::Reserved;
            cte.node.link = Link::to(first);
        }
    }

    /// Goes on with the retype whose first destination slot is `first`.
    fn go_on<S: Slots, O: Objects>(
        &mut self,
        slots: &mut S,
        objects: &mut O,
        first: SlotAddr,
        budget: &mut Budget,
    ) -> Progress {
        let Cte { cap, node } = *slots.get(first);
        if node.phase == Phase::First {
            // All types that are zeroed are sized in multiples of 64 bytes.
            let granted = budget.take_bytes(cap.size - node.cursor, 64);
            if granted > 0 {
                objects.zero(cap.base + node.cursor, granted);
            }
            let node = &mut slots.get_mut(first).node;
            node.cursor += granted;
            if node.cursor < cap.size {
                return Progress::Again;
            }
            node.phase = Phase::Second;
            node.cursor = 0;
        }
        self.commit(slots, objects, first, budget)
    }

    fn commit<S: Slots, O: Objects>(
        &mut self,
        slots: &mut S,
        objects: &mut O,
        first: SlotAddr,
        budget: &mut Budget,
    ) -> Progress {
        let Cte { cap, node } = *slots.get(first);
        let size = cap.size / node.count as u64;
        // The first product comes last: until then its capability holds the whole range.
        for i in node.cursor as u32 + 1..node.count {
            if !budget.take_object() {
                return Progress::Again;
            }
            let slot = first.offset(i);
            let base = cap.base + i as u64 * size;
            let product = Capability { base, size, mark: Mark::Reserved, ..cap };
            self.make(slots, objects, slot, product);
            slots.get_mut(slot).node.link = Link::to(first);
            slots.get_mut(first).node.cursor = i as u64;
        }
        if !budget.take_object() {
            return Progress::Again;
        }
        if size != cap.size {
            self.tree.resize(slots, first, size);
        }
        let generation = self.generation_for(cap.ty);
        slots.get_mut(first).cap.data[0] = generation;
        objects.init(&slots.get(first).cap);
        for i in 0..node.count {
            let cte = slots.get_mut(first.offset(i));
            cte.cap.mark = Mark::Ready;
            cte.node.phase = Phase::First;
            cte.node.link = Link::NONE;
            cte.node.count = 0;
            cte.node.cursor = 0;
        }
        Progress::Done
    }

    fn make<S: Slots, O: Objects>(
        &mut self,
        slots: &mut S,
        objects: &mut O,
        slot: SlotAddr,
        mut product: Capability,
    ) {
        product.data[0] = self.generation_for(product.ty);
        self.put(slots, slot, product);
        objects.init(&slots.get(slot).cap);
    }

    fn generation_for(&mut self, ty: ObjType) -> u64 {
        if ty.is_vnode() { self.next_generation() } else { 0 }
    }

    /// Ends the retype that `slot` is a destination of: gives it up while nothing is made yet, else finishes it.
    pub(crate) fn settle<S: Slots, O: Objects>(
        &mut self,
        slots: &mut S,
        objects: &mut O,
        slot: SlotAddr,
        budget: &mut Budget,
    ) -> Progress {
        let cte = slots.get(slot);
        let first = match (cte.cap.mark, cte.node.link.get()) {
            (Mark::Reserving, _) => slot,
            (Mark::Reserved, Some(first)) => first,
            _ => return Progress::Done,
        };
        let node = slots.get(first).node;
        if node.phase != Phase::First {
            return self.commit(slots, objects, first, budget);
        }
        if !budget.take_object() {
            return Progress::Again;
        }
        self.remove(slots, first);
        for i in 1..node.count {
            *slots.get_mut(first.offset(i)) = Cte::EMPTY;
        }
        Progress::Done
    }
}

/// Whether making `products` from a source of type `source` zeroes the memory: only if nobody could use it so
/// far.
fn zeroes(products: &Capability, source: ObjType) -> bool {
    source == ObjType::Ram && products.ty.is_zeroed()
}

/// What stands for the products until they are made.
fn reservation(plan: &Plan) -> Capability {
    Capability { mark: Mark::Reserving, ..plan.products }
}

/// Whether `first` is where the same retype is already under way.
fn is_under_way<S: Slots>(slots: &S, first: SlotAddr, plan: &Plan) -> bool {
    let cte = slots.get(first);
    cte.cap.is_same_object(&reservation(plan))
        && cte.cap.rights == plan.products.rights
        && cte.node.count == plan.count
}
