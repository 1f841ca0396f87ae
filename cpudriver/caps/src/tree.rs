//! The order of the capabilities: a weak AVL tree threaded through the slots, with parent links.
//!
//! The order is by [`Key`]: position (space, then base), size from large to small, type (and after all copies, the
//! reservation of an unfinished retype to that type), a mapping's data, slot address. Objects of one space contain one
//! another or are disjoint, so an object's copies stand next to each other, its descendants follow right after, and its
//! ancestors come before. Each node also keeps the greatest limit in its subtree, which finds the object around an address
//! without walking its siblings.
//!
//! Ranks differ by one or two between parent and child, and a leaf has rank 1 (Haeupler, Sen, Tarjan, "Rank-Balanced
//! Trees", ACM Transactions on Algorithms 11(4), 2015). Unlike in an AVL tree, what an insertion has promoted stays so when
//! the same capability goes again: maps and unmaps, copies and deletes in turn change a constant number of ranks on average.
//!
//! Nothing recurses; every search and change takes a number of steps proportional to the height, which is at most
//! 2 · log₂ n, and 1.44 · log₂ n while nothing was deleted.

use crate::cte::{Capability, Link, Mapping, Mark, Node, SlotAddr, Slots};
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
const fn type_rank(ty: ObjType, mark: Mark) -> u8 {
    (ty as u8) << 1 | matches!(mark, Mark::Reserving) as u8
}

impl Key {
    /// Before every capability.
    pub(crate) const FIRST: Key = Key { position: 0, size: u64::MAX, rank: 0, data: [0; 3], slot: 0 };

    /// The key of the capability `cap` in `slot`.
    pub(crate) fn new(cap: &Capability, slot: SlotAddr) -> Key {
        let data = if cap.ty == ObjType::Mapping { cap.data } else { [0; 3] };
        Key {
            position: cap.position(),
            size: cap.size,
            rank: type_rank(cap.ty, cap.mark),
            data,
            slot: slot.0,
        }
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
        Key { rank: type_rank(ty, Mark::Ready) + 2, data: [0; 3], slot: 0, ..Key::new(cap, SlotAddr(0)) }
    }

    /// Before every capability on the range of `cap` with type `ty` or a later one.
    pub(crate) fn before_type(cap: &Capability, ty: ObjType) -> Key {
        Key { rank: type_rank(ty, Mark::Ready), data: [0; 3], slot: 0, ..Key::before_copies(cap) }
    }

    /// After every mapping of an object with the range of `cap` whose first entry comes before or with that of
    /// `mapping`, before the others.
    pub(crate) fn after_mapping(cap: &Capability, mapping: Mapping) -> Key {
        let mut data = mapping.encode();
        data[2] = u64::MAX;
        Key { rank: type_rank(ObjType::Mapping, Mark::Ready), data, ..Key::after_range(cap) }
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

/// How the capability in `slot` stands to `key`: the comparison of [`Key`]s, without making one. Positions alone decide
/// nearly always.
#[inline(always)]
fn order<S: Slots>(slots: &S, slot: SlotAddr, key: &Key) -> Ordering {
    let cap = &slots.get(slot).cap;
    match cap.position().cmp(&key.position) {
        Ordering::Equal => order_at(cap, slot, key),
        other => other,
    }
}

/// [`order`] of a capability at the position of `key`.
#[inline(always)]
fn order_at(cap: &Capability, slot: SlotAddr, key: &Key) -> Ordering {
    if cap.size != key.size {
        return key.size.cmp(&cap.size);
    }
    let rank = type_rank(cap.ty, cap.mark);
    if rank != key.rank {
        return rank.cmp(&key.rank);
    }
    if cap.ty == ObjType::Mapping && cap.data != key.data {
        return cap.data.cmp(&key.data);
    }
    slot.0.cmp(&key.slot)
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

/// On which side of its parent a node is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

impl Side {
    const fn other(self) -> Side {
        match self {
            Side::Left => Side::Right,
            Side::Right => Side::Left,
        }
    }
}

impl Node {
    fn child(&self, side: Side) -> Link {
        match side {
            Side::Left => self.left,
            Side::Right => self.right,
        }
    }

    fn child_mut(&mut self, side: Side) -> &mut Link {
        match side {
            Side::Left => &mut self.left,
            Side::Right => &mut self.right,
        }
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

/// Rank and greatest limit of a subtree.
#[inline(always)]
fn below<S: Slots>(slots: &S, link: Link) -> (u8, u64) {
    match link.get() {
        None => (0, 0),
        Some(slot) => {
            let node = &slots.get(slot).node;
            (node.rank, node.max_limit)
        }
    }
}

fn rank<S: Slots>(slots: &S, link: Link) -> u8 {
    below(slots, link).0
}

fn max_limit<S: Slots>(slots: &S, link: Link) -> u64 {
    below(slots, link).1
}

/// The greatest limit of the subtree at `slot`, from its children.
#[inline(always)]
pub(crate) fn limit_below<S: Slots>(slots: &S, slot: SlotAddr) -> u64 {
    let cte = slots.get(slot);
    cte.cap.limit().max(max_limit(slots, cte.node.left)).max(max_limit(slots, cte.node.right))
}

/// Whether the rank of the node at `slot` is one or two above that of each child, and 1 without children.
pub(crate) fn is_balanced<S: Slots>(slots: &S, slot: SlotAddr) -> bool {
    let node = &slots.get(slot).node;
    let (left, right) = (rank(slots, node.left), rank(slots, node.right));
    let fits = |child: u8| node.rank.checked_sub(child).is_some_and(|above| (1..=2).contains(&above));
    fits(left) && fits(right) && (left + right > 0 || node.rank == 1)
}

/// Sets the greatest limit of the node at `slot` from its children. Answers whether it changed.
#[inline(always)]
fn refresh<S: Slots>(slots: &mut S, slot: SlotAddr) -> bool {
    let limit = limit_below(slots, slot);
    let node = &mut slots.get_mut(slot).node;
    let changed = node.max_limit != limit;
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

    /// Turns the child of `slot` on the given side, which there is, into its parent, and returns it.
    fn rotate<S: Slots>(&mut self, slots: &mut S, slot: SlotAddr, side: Side) -> SlotAddr {
        let node = slots.get(slot).node;
        let Some(up) = node.child(side).get() else { return slot };
        let inner = slots.get(up).node.child(side.other());
        self.replace_child(slots, node.parent, slot, Link::to(up));
        *slots.get_mut(slot).node.child_mut(side) = inner;
        if let Some(i) = inner.get() {
            slots.get_mut(i).node.parent = Link::to(slot);
        }
        *slots.get_mut(up).node.child_mut(side.other()) = Link::to(slot);
        slots.get_mut(slot).node.parent = Link::to(up);
        refresh(slots, slot);
        refresh(slots, up);
        up
    }

    /// Restores ranks and limits above a new leaf below `parent`, whose capability ends at `limit`.
    fn grow<S: Slots>(&mut self, slots: &mut S, leaf: SlotAddr, parent: Link, limit: u64) {
        let (mut child, mut at) = (leaf, parent);
        // The rank of `child`.
        let mut grown = 1;
        while let Some(slot) = at.get() {
            let node = &mut slots.get_mut(slot).node;
            node.max_limit = node.max_limit.max(limit);
            let (had, up) = (node.rank, node.parent);
            if had > grown {
                return self.raise_limit(slots, up, limit);
            }
            let side = if node.left == Link::to(child) { Side::Left } else { Side::Right };
            let sibling = node.child(side.other());
            if had > rank(slots, sibling) + 1 {
                self.turn_after_growth(slots, slot, child, side);
                return self.raise_limit(slots, up, limit);
            }
            grown += 1;
            slots.get_mut(slot).node.rank = grown;
            (child, at) = (slot, up);
        }
    }

    /// Balances `slot`, whose `child` at `side` has grown to its own rank while the other one is two below.
    fn turn_after_growth<S: Slots>(&mut self, slots: &mut S, slot: SlotAddr, child: SlotAddr, side: Side) {
        let node = slots.get(child).node;
        let inner = node.child(side.other());
        let inner_rank = rank(slots, inner);
        if let Some(inner) = inner.get()
            && node.rank == inner_rank + 1
        {
            self.rotate(slots, child, side.other());
            slots.get_mut(inner).node.rank += 1;
            slots.get_mut(child).node.rank -= 1;
        }
        self.rotate(slots, slot, side);
        slots.get_mut(slot).node.rank -= 1;
    }

    /// Restores ranks from `from` upwards, below which a capability went.
    fn shrink<S: Slots>(&mut self, slots: &mut S, from: Link) {
        let mut at = from;
        while let Some(slot) = at.get() {
            let node = slots.get(slot).node;
            let (left, right) = (rank(slots, node.left), rank(slots, node.right));
            let (low, side) = if left < right { (left, Side::Right) } else { (right, Side::Left) };
            at = node.parent;
            if left.max(right) == 0 {
                // A leaf.
                if node.rank == 1 {
                    return;
                }
                slots.get_mut(slot).node.rank = 1;
                continue;
            }
            if node.rank < low + 3 {
                return;
            }
            // The other child is not as low, so there is one.
            let Some(sibling) = node.child(side).get() else { return };
            let high = slots.get(sibling).node;
            slots.get_mut(slot).node.rank -= 1;
            if node.rank == high.rank + 2 {
                continue;
            }
            let outer = rank(slots, high.child(side));
            let inner_link = high.child(side.other());
            let inner = rank(slots, inner_link);
            if high.rank == outer + 2 && high.rank == inner + 2 {
                slots.get_mut(sibling).node.rank -= 1;
                continue;
            }
            if high.rank == outer + 1 {
                self.rotate(slots, slot, side);
                slots.get_mut(sibling).node.rank += 1;
                // Left without children it is a leaf.
                if low == 0 && inner == 0 {
                    slots.get_mut(slot).node.rank = 1;
                }
            } else if let Some(inner) = inner_link.get() {
                self.rotate(slots, sibling, side.other());
                self.rotate(slots, slot, side);
                slots.get_mut(inner).node.rank += 2;
                slots.get_mut(sibling).node.rank -= 1;
                slots.get_mut(slot).node.rank -= 1;
            }
            return;
        }
    }

    /// Restores limits from `from` upwards, below which one fell.
    fn lower_limit<S: Slots>(&mut self, slots: &mut S, from: Link) {
        let mut at = from;
        while let Some(slot) = at.get() {
            if !refresh(slots, slot) {
                return;
            }
            at = slots.get(slot).node.parent;
        }
    }

    /// Has the subtrees from `at` on upwards reach `limit`.
    fn raise_limit<S: Slots>(&mut self, slots: &mut S, at: Link, limit: u64) {
        let mut at = at;
        while let Some(slot) = at.get() {
            let node = &mut slots.get_mut(slot).node;
            if node.max_limit >= limit {
                return;
            }
            node.max_limit = limit;
            at = node.parent;
        }
    }

    /// Takes in the capability in `slot`, which is not in the tree.
    pub(crate) fn insert<S: Slots>(&mut self, slots: &mut S, slot: SlotAddr) {
        let new = key(slots, slot);
        let (mut parent, mut at, mut side) = (Link::NONE, self.root, Side::Left);
        while let Some(s) = at.get() {
            parent = at;
            let node = &slots.get(s).node;
            (side, at) = if order(slots, s, &new).is_gt() {
                (Side::Left, node.left)
            } else {
                (Side::Right, node.right)
            };
        }
        self.attach(slots, slot, parent, side);
    }

    /// The same, quick if its place is beside the capability in `near`, which is in the tree.
    pub(crate) fn insert_near<S: Slots>(&mut self, slots: &mut S, slot: SlotAddr, near: SlotAddr) {
        let new = key(slots, slot);
        let beside = slots.get(near).node;
        let (parent, side) = if order(slots, near, &new).is_lt() {
            match next(slots, near) {
                Some(behind) if order(slots, behind, &new).is_lt() => return self.insert(slots, slot),
                // What comes next has no left subtree if it is below.
                Some(behind) if beside.right.get().is_some() => (behind, Side::Left),
                _ => (near, Side::Right),
            }
        } else {
            match previous(slots, near) {
                Some(before) if order(slots, before, &new).is_gt() => return self.insert(slots, slot),
                Some(before) if beside.left.get().is_some() => (before, Side::Right),
                _ => (near, Side::Left),
            }
        };
        self.attach(slots, slot, Link::to(parent), side);
    }

    /// Makes the capability in `slot` the child of `parent` (or the root) at a side where that has none.
    fn attach<S: Slots>(&mut self, slots: &mut S, slot: SlotAddr, parent: Link, side: Side) {
        let cte = slots.get_mut(slot);
        let limit = cte.cap.limit();
        cte.node.left = Link::NONE;
        cte.node.right = Link::NONE;
        cte.node.parent = parent;
        cte.node.rank = 1;
        cte.node.max_limit = limit;
        match (parent.get(), side) {
            (None, _) => self.root = Link::to(slot),
            (Some(p), Side::Left) => slots.get_mut(p).node.left = Link::to(slot),
            (Some(p), Side::Right) => slots.get_mut(p).node.right = Link::to(slot),
        }
        self.grow(slots, slot, parent, limit);
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
                moved.rank = node.rank;
                moved.max_limit = node.max_limit;
                replacement = Link::to(next);
                start
            }
        };
        let gone = &mut slots.get_mut(slot).node;
        gone.left = Link::NONE;
        gone.right = Link::NONE;
        gone.parent = Link::NONE;
        gone.rank = 0;
        gone.max_limit = 0;
        self.lower_limit(slots, start);
        // The first walk may have ended below the replacement.
        self.lower_limit(slots, replacement);
        self.shrink(slots, start);
    }

    /// Sets the size of the capability in `slot`, which must not change its place in the order.
    pub(crate) fn resize<S: Slots>(&mut self, slots: &mut S, slot: SlotAddr, size: u64) {
        slots.get_mut(slot).cap.size = size;
        self.lower_limit(slots, Link::to(slot));
    }

    /// The first capability after `after` in the order.
    pub(crate) fn first_after<S: Slots>(&self, slots: &S, after: &Key) -> Option<SlotAddr> {
        let mut found = None;
        let mut at = self.root;
        while let Some(s) = at.get() {
            let node = &slots.get(s).node;
            if order(slots, s, after).is_gt() {
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
            if order(slots, s, after).is_gt() {
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
            if order(slots, s, before).is_lt() {
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
