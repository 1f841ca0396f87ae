//! The order of the capabilities: an AVL tree threaded through the slots, with parent links.
//!
//! The order is by [`Key`]: position (space, then base), size from large to small, type (and after all copies,
//! the reservation of an unfinished retype to that type), a mapping's data, slot address. Objects of one space contain one another or are disjoint, so an object's copies stand next
//! to each other, its descendants follow right after, and its ancestors come before. Each node also keeps
//! the greatest limit in its subtree, which finds the object around an address without walking its siblings.
//!
//! Nothing recurses; every search and change takes a number of steps proportional to the height, which is at
//! most 1.44 · log₂ n.

use crate::cte::{Capability, Link, Mapping, Mark, SlotAddr, Slots};
use core::cmp::Ordering;
use lmp::ObjType;

/// What the order is by. It holds numbers only, so it stays meaningful when its slot is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    position: u64,
    size: u64,
    rank: u8,
    data: [u64; 3],
    slot: u64,
}

/// Where type `ty` stands among the types. A reservation over all of its source, of the same type, is no copy
/// of it, and stands behind its copies.
const fn rank(ty: ObjType, mark: Mark) -> u8 {
    (ty as u8) << 1 | matches!(mark, Mark::Reserving) as u8
}

impl Key {
    /// Before every capability.
    pub(crate) const FIRST: Key = Key { position: 0, size: u64::MAX, rank: 0, data: [0; 3], slot: 0 };

    /// The key of the capability `cap` in `slot`.
    pub(crate) fn new(cap: &Capability, slot: SlotAddr) -> Key {
        let data = if cap.ty == ObjType::Mapping { cap.data } else { [0; 3] };
        Key { position: cap.position(), size: cap.size, rank: rank(cap.ty, cap.mark), data, slot: slot.0 }
    }

    /// Between the capability `cap` in `slot` and what comes before it.
    pub(crate) fn just_before(cap: &Capability, slot: SlotAddr) -> Key {
        Key { slot: slot.0 - 1, ..Key::new(cap, slot) }
    }

    /// Before every capability on the very range of `cap`, whatever its type.
    pub(crate) fn before_range(cap: &Capability) -> Key {
        Key { rank: 0, data: [0; 3], slot: 0, ..Key::before_copies(cap) }
    }

    /// Before every copy of `cap`, after everything that comes before them.
    pub(crate) fn before_copies(cap: &Capability) -> Key {
        Key { slot: 0, ..Key::new(cap, SlotAddr(0)) }
    }

    /// After every copy of `cap`, before everything that comes after them.
    pub(crate) fn after_copies(cap: &Capability) -> Key {
        Key { slot: u64::MAX, ..Key::new(cap, SlotAddr(0)) }
    }

    /// After every capability of type `ty` with the range of `cap`, before the other types that follow.
    pub(crate) fn after_type(cap: &Capability, ty: ObjType) -> Key {
        Key { rank: rank(ty, Mark::Ready) + 2, data: [0; 3], slot: 0, ..Key::new(cap, SlotAddr(0)) }
    }

    /// Before every capability on the range of `cap` with type `ty` or a later one.
    pub(crate) fn before_type(cap: &Capability, ty: ObjType) -> Key {
        Key { rank: rank(ty, Mark::Ready), data: [0; 3], slot: 0, ..Key::before_copies(cap) }
    }

    /// After every mapping of an object with the range of `cap` whose first entry comes before or with that of
    /// `mapping`, before the others.
    pub(crate) fn after_mapping(cap: &Capability, mapping: Mapping) -> Key {
        let mut data = mapping.encode();
        data[2] = u64::MAX;
        Key { rank: rank(ObjType::Mapping, Mark::Ready), data, ..Key::after_range(cap) }
    }

    /// After every capability that starts at `position` or before.
    pub(crate) fn after_position(position: u64) -> Key {
        Key { position, size: 0, rank: u8::MAX, data: [u64::MAX; 3], slot: u64::MAX }
    }

    /// After every capability on the very range of `cap`, whatever its type.
    pub(crate) fn after_range(cap: &Capability) -> Key {
        Key { rank: u8::MAX, data: [u64::MAX; 3], slot: u64::MAX, ..Key::before_copies(cap) }
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        self.position
            .cmp(&other.position)
            .then_with(|| other.size.cmp(&self.size))
            .then_with(|| self.rank.cmp(&other.rank))
            .then_with(|| self.data.cmp(&other.data))
            .then_with(|| self.slot.cmp(&other.slot))
    }
}

/// The tree: its root. All else lies in the slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tree {
    root: Link,
}

fn key<S: Slots>(slots: &S, slot: SlotAddr) -> Key {
    Key::new(&slots.get(slot).cap, slot)
}

fn height<S: Slots>(slots: &S, link: Link) -> u8 {
    link.get().map_or(0, |s| slots.get(s).node.height)
}

fn max_limit<S: Slots>(slots: &S, link: Link) -> u64 {
    link.get().map_or(0, |s| slots.get(s).node.max_limit)
}

/// Height and greatest limit of the node at `slot`, from its children.
pub(crate) fn summary<S: Slots>(slots: &S, slot: SlotAddr) -> (u8, u64) {
    let cte = slots.get(slot);
    let (l, r) = (cte.node.left, cte.node.right);
    let height = 1 + height(slots, l).max(height(slots, r));
    let limit = cte.cap.limit().max(max_limit(slots, l)).max(max_limit(slots, r));
    (height, limit)
}

/// Right height minus left height.
pub(crate) fn balance<S: Slots>(slots: &S, slot: SlotAddr) -> i32 {
    let node = &slots.get(slot).node;
    height(slots, node.right) as i32 - height(slots, node.left) as i32
}

fn refresh<S: Slots>(slots: &mut S, slot: SlotAddr) -> bool {
    let (height, limit) = summary(slots, slot);
    let node = &mut slots.get_mut(slot).node;
    let changed = node.height != height || node.max_limit != limit;
    node.height = height;
    node.max_limit = limit;
    changed
}

impl Tree {
    pub(crate) const EMPTY: Tree = Tree { root: Link::NONE };

    pub(crate) fn root(&self) -> Option<SlotAddr> {
        self.root.get()
    }

    /// Makes `new` the child of `parent` (or the root) in place of `old`.
    fn replace_child<S: Slots>(&mut self, slots: &mut S, parent: Link, old: SlotAddr, new: Link) {
        match parent.get() {
            None => self.root = new,
            Some(p) => {
                let node = &mut slots.get_mut(p).node;
                if node.left == Link::to(old) {
                    node.left = new;
                } else {
                    node.right = new;
                }
            }
        }
        if let Some(n) = new.get() {
            slots.get_mut(n).node.parent = parent;
        }
    }

    /// Turns `slot`'s right child into its parent, and returns that.
    fn rotate_left<S: Slots>(&mut self, slots: &mut S, slot: SlotAddr) -> SlotAddr {
        let node = slots.get(slot).node;
        let Some(up) = node.right.get() else { return slot };
        let inner = slots.get(up).node.left;
        self.replace_child(slots, node.parent, slot, Link::to(up));
        slots.get_mut(slot).node.right = inner;
        if let Some(i) = inner.get() {
            slots.get_mut(i).node.parent = Link::to(slot);
        }
        slots.get_mut(up).node.left = Link::to(slot);
        slots.get_mut(slot).node.parent = Link::to(up);
        refresh(slots, slot);
        refresh(slots, up);
        up
    }

    /// Turns `slot`'s left child into its parent, and returns that.
    fn rotate_right<S: Slots>(&mut self, slots: &mut S, slot: SlotAddr) -> SlotAddr {
        let node = slots.get(slot).node;
        let Some(up) = node.left.get() else { return slot };
        let inner = slots.get(up).node.right;
        self.replace_child(slots, node.parent, slot, Link::to(up));
        slots.get_mut(slot).node.left = inner;
        if let Some(i) = inner.get() {
            slots.get_mut(i).node.parent = Link::to(slot);
        }
        slots.get_mut(up).node.right = Link::to(slot);
        slots.get_mut(slot).node.parent = Link::to(up);
        refresh(slots, slot);
        refresh(slots, up);
        up
    }

    /// Restores heights, limits and balance from `from` up to the root.
    fn fix_up<S: Slots>(&mut self, slots: &mut S, from: Link) {
        let mut at = from;
        while let Some(slot) = at.get() {
            let changed = refresh(slots, slot);
            let top = match balance(slots, slot) {
                2.. => {
                    if let Some(r) = slots.get(slot).node.right.get()
                        && balance(slots, r) < 0
                    {
                        self.rotate_right(slots, r);
                    }
                    self.rotate_left(slots, slot)
                }
                ..=-2 => {
                    if let Some(l) = slots.get(slot).node.left.get()
                        && balance(slots, l) > 0
                    {
                        self.rotate_left(slots, l);
                    }
                    self.rotate_right(slots, slot)
                }
                _ if !changed => return,
                _ => slot,
            };
            at = slots.get(top).node.parent;
        }
    }

    /// Takes in the capability in `slot`, which is not in the tree.
    pub(crate) fn insert<S: Slots>(&mut self, slots: &mut S, slot: SlotAddr) {
        self.insert_below(slots, slot, self.root);
    }

    /// The same from the capability in `near` on, which is in the tree: quick if their places are close together.
    pub(crate) fn insert_near<S: Slots>(&mut self, slots: &mut S, slot: SlotAddr, near: SlotAddr) {
        let new = key(slots, slot);
        let after = new > key(slots, near);
        let mut top = near;
        // Up, until the place is below. Only parents on the other side of it need to be compared.
        while let Some(up) = slots.get(top).node.parent.get() {
            let from_left = slots.get(up).node.left == Link::to(top);
            if from_left == after && (new > key(slots, up)) != after {
                break;
            }
            top = up;
        }
        self.insert_below(slots, slot, Link::to(top));
    }

    /// Takes in the capability in `slot`, whose place is below `top`.
    fn insert_below<S: Slots>(&mut self, slots: &mut S, slot: SlotAddr, top: Link) {
        let new = key(slots, slot);
        let mut parent = Link::NONE;
        let mut at = top;
        let mut left = false;
        while let Some(s) = at.get() {
            left = new < key(slots, s);
            parent = at;
            let node = &slots.get(s).node;
            at = if left { node.left } else { node.right };
        }
        let cte = slots.get_mut(slot);
        let limit = cte.cap.limit();
        cte.node.left = Link::NONE;
        cte.node.right = Link::NONE;
        cte.node.parent = parent;
        cte.node.height = 1;
        cte.node.max_limit = limit;
        match parent.get() {
            None => self.root = Link::to(slot),
            Some(p) => {
                let node = &mut slots.get_mut(p).node;
                if left {
                    node.left = Link::to(slot);
                } else {
                    node.right = Link::to(slot);
                }
            }
        }
        self.fix_up(slots, parent);
    }

    /// Takes out the capability in `slot`, which is in the tree. Capability and state stay as they are.
    pub(crate) fn remove<S: Slots>(&mut self, slots: &mut S, slot: SlotAddr) {
        let node = slots.get(slot).node;
        let mut replacement = Link::NONE;
        let start = match (node.left.get(), node.right.get()) {
            (None, _) => {
                self.replace_child(slots, node.parent, slot, node.right);
                node.parent
            }
            (Some(_), None) => {
                self.replace_child(slots, node.parent, slot, node.left);
                node.parent
            }
            (Some(l), Some(r)) => {
                let next = leftmost(slots, r);
                let next_node = slots.get(next).node;
                let start = if next == r {
                    Link::to(next)
                } else {
                    self.replace_child(slots, next_node.parent, next, next_node.right);
                    slots.get_mut(next).node.right = Link::to(r);
                    slots.get_mut(r).node.parent = Link::to(next);
                    next_node.parent
                };
                slots.get_mut(next).node.left = Link::to(l);
                slots.get_mut(l).node.parent = Link::to(next);
                self.replace_child(slots, node.parent, slot, Link::to(next));
                // Until the walks below set them right, it answers for what its ancestors last saw there.
                let moved = &mut slots.get_mut(next).node;
                moved.height = node.height;
                moved.max_limit = node.max_limit;
                replacement = Link::to(next);
                start
            }
        };
        let gone = &mut slots.get_mut(slot).node;
        gone.left = Link::NONE;
        gone.right = Link::NONE;
        gone.parent = Link::NONE;
        gone.height = 0;
        gone.max_limit = 0;
        self.fix_up(slots, start);
        // The first walk may have ended below the replacement.
        self.fix_up(slots, replacement);
    }

    /// Sets the size of the capability in `slot`, which must not change its place in the order.
    pub(crate) fn resize<S: Slots>(&mut self, slots: &mut S, slot: SlotAddr, size: u64) {
        slots.get_mut(slot).cap.size = size;
        self.fix_up(slots, Link::to(slot));
    }

    /// The first capability after `after` in the order.
    pub(crate) fn first_after<S: Slots>(&self, slots: &S, after: &Key) -> Option<SlotAddr> {
        let mut found = None;
        let mut at = self.root;
        while let Some(s) = at.get() {
            let node = &slots.get(s).node;
            if key(slots, s) > *after {
                found = Some(s);
                at = node.left;
            } else {
                at = node.right;
            }
        }
        found
    }

    /// The last capability before `before` in the order.
    pub(crate) fn last_before<S: Slots>(&self, slots: &S, before: &Key) -> Option<SlotAddr> {
        let mut found = None;
        let mut at = self.root;
        while let Some(s) = at.get() {
            let node = &slots.get(s).node;
            if key(slots, s) < *before {
                found = Some(s);
                at = node.right;
            } else {
                at = node.left;
            }
        }
        found
    }

    /// The first capability after `after` that reaches past the position `past`.
    pub(crate) fn first_reaching<S: Slots>(&self, slots: &S, after: &Key, past: u64) -> Option<SlotAddr> {
        // Down the path of `after`: the deepest turn to the left from which something can be reached wins.
        let mut candidate = None;
        let mut at = self.root;
        while let Some(s) = at.get() {
            let cte = slots.get(s);
            if cte.node.max_limit <= past {
                break;
            }
            if key(slots, s) > *after {
                if cte.cap.limit() > past || max_limit(slots, cte.node.right) > past {
                    candidate = Some(s);
                }
                at = cte.node.left;
            } else {
                at = cte.node.right;
            }
        }
        // The candidate itself, or the first in its right subtree.
        let mut at = candidate?;
        if slots.get(at).cap.limit() > past {
            return Some(at);
        }
        at = slots.get(at).node.right.get()?;
        loop {
            let cte = slots.get(at);
            if let Some(l) = cte.node.left.get()
                && slots.get(l).node.max_limit > past
            {
                at = l;
            } else if cte.cap.limit() > past {
                return Some(at);
            } else {
                at = cte.node.right.get()?;
            }
        }
    }

    /// The last capability before `before` that reaches past the position `past`.
    pub(crate) fn last_reaching<S: Slots>(&self, slots: &S, before: &Key, past: u64) -> Option<SlotAddr> {
        let mut candidate = None;
        let mut at = self.root;
        while let Some(s) = at.get() {
            let cte = slots.get(s);
            if cte.node.max_limit <= past {
                break;
            }
            if key(slots, s) < *before {
                if cte.cap.limit() > past || max_limit(slots, cte.node.left) > past {
                    candidate = Some(s);
                }
                at = cte.node.right;
            } else {
                at = cte.node.left;
            }
        }
        let mut at = candidate?;
        if slots.get(at).cap.limit() > past {
            return Some(at);
        }
        at = slots.get(at).node.left.get()?;
        loop {
            let cte = slots.get(at);
            if let Some(r) = cte.node.right.get()
                && slots.get(r).node.max_limit > past
            {
                at = r;
            } else if cte.cap.limit() > past {
                return Some(at);
            } else {
                at = cte.node.left.get()?;
            }
        }
    }
}

/// The capability after the one in `slot`, which is in the tree. One step on average.
pub(crate) fn next<S: Slots>(slots: &S, slot: SlotAddr) -> Option<SlotAddr> {
    if let Some(right) = slots.get(slot).node.right.get() {
        return Some(leftmost(slots, right));
    }
    let mut below = slot;
    loop {
        let up = slots.get(below).node.parent.get()?;
        if slots.get(up).node.left == Link::to(below) {
            return Some(up);
        }
        below = up;
    }
}

/// The capability before the one in `slot`, which is in the tree. One step on average.
pub(crate) fn previous<S: Slots>(slots: &S, slot: SlotAddr) -> Option<SlotAddr> {
    if let Some(left) = slots.get(slot).node.left.get() {
        return Some(rightmost(slots, left));
    }
    let mut below = slot;
    loop {
        let up = slots.get(below).node.parent.get()?;
        if slots.get(up).node.right == Link::to(below) {
            return Some(up);
        }
        below = up;
    }
}

fn rightmost<S: Slots>(slots: &S, from: SlotAddr) -> SlotAddr {
    let mut at = from;
    while let Some(r) = slots.get(at).node.right.get() {
        at = r;
    }
    at
}

fn leftmost<S: Slots>(slots: &S, from: SlotAddr) -> SlotAddr {
    let mut at = from;
    while let Some(l) = slots.get(at).node.left.get() {
        at = l;
    }
    at
}
