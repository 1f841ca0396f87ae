//! The slot (CTE): a capability, its place in the database, and what is under way with it.
//!
//! Line 0 of the two cache lines is all that a look-up and an invocation read; line 1 belongs to the
//! database. A slot of zeroes is empty.

use crate::objects::Unmap;
use bitflags::bitflags;
use lmp::objects::{CTE_SIZE, PAGE_SIZE, Space};
use lmp::{ObjType, Rights};

pub use lmp::CoreId;

/// The physical address of a slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct SlotAddr(pub u64);

impl SlotAddr {
    /// The slot `n` places further on. It must lie in the same CNode, which bounds the sum.
    #[inline(always)]
    pub const fn offset(self, n: u32) -> SlotAddr {
        SlotAddr(self.0.wrapping_add(n as u64 * CTE_SIZE))
    }
}

/// A slot or none, as kept in slots: 0 is none, for no CNode lies in the first bytes of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub(crate) struct Link(u64);

impl Link {
    pub(crate) const NONE: Link = Link(0);

    pub(crate) const fn to(slot: SlotAddr) -> Link {
        Link(slot.0)
    }

    #[inline]
    pub(crate) const fn get(self) -> Option<SlotAddr> {
        match self.0 {
            0 => None,
            a => Some(SlotAddr(a)),
        }
    }
}

/// Where slots come from: the kernel's physical window, or an arena in tests.
///
/// Both methods are called only with addresses of slots in CNodes that exist.
pub trait Slots {
    /// The slot at `slot`.
    fn get(&self, slot: SlotAddr) -> &Cte;
    /// The slot at `slot`, to change it.
    fn get_mut(&mut self, slot: SlotAddr) -> &mut Cte;
}

bitflags! {
    /// Relations that an object has on other cores.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    #[repr(transparent)]
    pub struct Remote: u8 {
        /// Copies.
        const COPIES = 1;
        /// Ancestors.
        const ANCESTORS = 2;
        /// Descendants.
        const DESCENDANTS = 4;
    }
}

/// What is under way with a slot. Anything but [`Mark::Ready`] makes look-ups answer `SlotBusy`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Mark {
    /// Nothing: the slot is empty or its capability can be used.
    #[default]
    Ready = 0,
    /// The slot is being emptied, and the object destroyed if this is its last capability.
    Deleting = 1,
    /// First slot of an unfinished retype: its capability reserves the whole range.
    Reserving = 2,
    /// A further slot of an unfinished retype; `Node::link` names the first.
    Reserved = 3,
    /// The last capability of a dying CNode, moved into that CNode's own first slot.
    Condemned = 4,
    /// Empty, but objects that went with the deleted capability are still being destroyed.
    Waiting = 5,
    /// The capability may not be destroyed, though its CNode is dying.
    Pinned = 6,
}

/// The upper bound of addresses in any [`Space`]: the space is kept in the bits above.
pub const ADDRESS_LIMIT: u64 = 1 << SPACE_SHIFT;
const SPACE_SHIFT: u32 = 56;

/// A capability: line 0 of a slot.
///
/// Two capabilities with the same type, base and size are copies: they are for the same object. (For
/// [`ObjType::Mapping`], `data` must agree too.)
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C, align(64))]
pub struct Capability {
    /// The object's type; [`ObjType::Null`] in an empty slot.
    pub ty: ObjType,
    /// What is under way with the slot.
    pub mark: Mark,
    /// What the capability allows.
    pub rights: Rights,
    /// Relations on other cores. Only the first copy in the database's order is authoritative.
    pub remote: Remote,
    /// The core that owns the object.
    pub owner: CoreId,
    /// Where the object starts, in units of the type's space.
    pub base: u64,
    /// Its size, in the same units.
    pub size: u64,
    /// Badge of an endpoint, notification or link; 0 for none.
    pub badge: u64,
    /// Type-specific: a mapping's [`Mapping`]; a page table's generation in word 0; in word 0 of a kernel
    /// instance or reply right, what the kernel keeps there; else 0.
    pub data: [u64; 3],
}

impl Capability {
    /// What an empty slot holds.
    pub const NULL: Capability = Capability {
        ty: ObjType::Null,
        mark: Mark::Ready,
        rights: Rights::empty(),
        remote: Remote::empty(),
        owner: CoreId(0),
        base: 0,
        size: 0,
        badge: 0,
        data: [0; 3],
    };

    /// A capability with all rights on the object of type `ty` at `base`, without badge or relations.
    pub const fn new(ty: ObjType, base: u64, size: u64, owner: CoreId) -> Capability {
        Capability { ty, rights: Rights::all(), owner, base, size, ..Capability::NULL }
    }

    /// The capability with other rights.
    pub const fn with_rights(self, rights: Rights) -> Capability {
        Capability { rights, ..self }
    }

    /// Whether the slot holds no capability.
    #[inline]
    pub const fn is_null(&self) -> bool {
        matches!(self.ty, ObjType::Null)
    }

    /// Whether the slot holds nothing and nothing is under way with it.
    #[inline]
    pub const fn is_free(&self) -> bool {
        self.tag() == 0
    }

    /// Type and mark as one number, so that a look-up needs one comparison: below 256 the slot is ready.
    #[inline]
    pub const fn tag(&self) -> u16 {
        self.ty as u16 | (self.mark as u16) << 8
    }

    /// Whether `other` is for the same object. What is only reserved is no object yet.
    pub fn is_same_object(&self, other: &Capability) -> bool {
        self.ty == other.ty
            && (self.mark == Mark::Reserving) == (other.mark == Mark::Reserving)
            && self.base == other.base
            && self.size == other.size
            && (self.ty != ObjType::Mapping || self.data == other.data)
    }

    /// The address just past the object.
    pub const fn end(&self) -> u64 {
        self.base.wrapping_add(self.size)
    }

    /// Where the object starts in the one number line on which all spaces lie.
    pub(crate) const fn position(&self) -> u64 {
        position(self.ty.space(), self.base)
    }

    /// Where the object ends on that line.
    pub(crate) const fn limit(&self) -> u64 {
        self.position().wrapping_add(self.size)
    }

    /// What a [`ObjType::Mapping`] capability maps and where; `None` for other types.
    pub const fn mapping(&self) -> Option<Mapping> {
        match self.ty {
            ObjType::Mapping => Some(Mapping::decode(self.data)),
            _ => None,
        }
    }

    /// The generation of a page table: which of the tables that were at this address one after the other.
    pub const fn generation(&self) -> u64 {
        self.data[0]
    }
}

/// Where `base` of `space` lies on the number line of all spaces.
pub(crate) const fn position(space: Space, base: u64) -> u64 {
    (space as u64) << SPACE_SHIFT | base
}

/// What a mapping capability records. Its base and size are those of the frame or lower page table it maps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mapping {
    /// Physical address of the page table.
    pub table: u64,
    /// Generation of that page table.
    pub generation: u64,
    /// First entry, below 512.
    pub entry: u16,
    /// Number of entries, 1 to 512.
    pub count: u16,
    /// Offset in bytes into the mapped object at which the first entry points, a multiple of the page size.
    pub offset: u64,
}

impl Mapping {
    /// The generation of the kernel's own page tables, for which there are no capabilities. Those of VNodes
    /// begin at 1.
    pub const KERNEL: u64 = 0;

    const LOW: u64 = PAGE_SIZE - 1;
    const SHIFT: u32 = PAGE_SIZE.trailing_zeros();

    /// The entries, if the table is of type `table_type` and the mapped object lies at `base`.
    pub(crate) const fn entries(&self, table_type: ObjType, base: u64) -> Unmap {
        let Mapping { table, entry, count, offset, .. } = *self;
        Unmap { table, table_type, entry, count, address: base + offset }
    }

    /// The words in a capability: table, then generation and entry, then offset and count, so that the order of the
    /// words is that of the entries. Table and offset are multiples of the page size, and so many tables are never
    /// made that a generation could need its upper 12 bits.
    pub const fn encode(self) -> [u64; 3] {
        [
            self.table,
            self.generation << Self::SHIFT | self.entry as u64 & Self::LOW,
            self.offset & !Self::LOW | self.count as u64 & Self::LOW,
        ]
    }

    /// The mapping in the words of a capability.
    pub const fn decode(data: [u64; 3]) -> Mapping {
        Mapping {
            table: data[0],
            generation: data[1] >> Self::SHIFT,
            entry: (data[1] & Self::LOW) as u16,
            count: (data[2] & Self::LOW) as u16,
            offset: data[2] & !Self::LOW,
        }
    }
}

/// The database's part of a slot: links of the tree, and the state of a long operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(64))]
pub(crate) struct Node {
    pub(crate) left: Link,
    pub(crate) right: Link,
    pub(crate) parent: Link,
    /// The greatest limit of any capability in this subtree.
    pub(crate) max_limit: u64,
    /// Rank in the tree; 1 for a leaf, 0 for a slot that is not in the tree.
    pub(crate) rank: u8,
    /// How far the operation named by the mark has come.
    pub(crate) phase: Phase,
    /// `Reserving`: number of products. `Deleting`, `Waiting`: length of the list of condemned CNodes to come
    /// down to. `Condemned`: the trial in which the first pinned capability was met, or 0.
    pub(crate) count: u32,
    /// `Reserving`: bytes zeroed, then products made. `Condemned`: next slot to empty. `Deleting`: 1 if the
    /// delete's caller was told to come back, else 0.
    pub(crate) cursor: u64,
    /// `Reserved`: the first slot. `Condemned`: the next condemned CNode. `Deleting`: the next such slot.
    pub(crate) link: Link,
    /// `Deleting`: the slot before it in that list.
    pub(crate) back: Link,
}

/// How far a long operation has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub(crate) enum Phase {
    /// `Deleting`: only marked; it may still be refused. `Reserving`: zeroing; can be given up.
    #[default]
    First = 0,
    /// `Deleting`: the kernel is letting go of the object. `Reserving`: products are made; can only be
    /// finished.
    Second = 1,
    /// `Deleting`: what hangs on the object goes.
    Third = 2,
}

impl Node {
    pub(crate) const EMPTY: Node = Node {
        left: Link::NONE,
        right: Link::NONE,
        parent: Link::NONE,
        max_limit: 0,
        rank: 0,
        phase: Phase::First,
        count: 0,
        cursor: 0,
        link: Link::NONE,
        back: Link::NONE,
    };
}

/// A slot: 128 bytes of a CNode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Cte {
    /// The capability.
    pub cap: Capability,
    pub(crate) node: Node,
}

impl Cte {
    /// An empty slot: all bytes zero.
    pub const EMPTY: Cte = Cte { cap: Capability::NULL, node: Node::EMPTY };
}

const _: () = assert!(size_of::<Cte>() as u64 == CTE_SIZE);
const _: () = assert!(align_of::<Cte>() == 64);
const _: () = assert!(core::mem::offset_of!(Cte, node) == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_exchanged_and_nothing_else() {
        let all = Capability::new(ObjType::Frame, 4096, 8192, CoreId(3));
        let few = all.with_rights(Rights::READ);
        assert_eq!((all.rights, few.rights), (Rights::all(), Rights::READ));
        assert_eq!(few.with_rights(Rights::all()), all);
    }

    #[test]
    fn a_tag_tells_type_and_mark_apart() {
        let cap = Capability::new(ObjType::Frame, 4096, 4096, CoreId(0));
        assert_eq!(cap.tag(), ObjType::Frame as u16);
        let busy = Capability { mark: Mark::Deleting, ..cap };
        assert_eq!(busy.tag(), ObjType::Frame as u16 | 0x100);
        let waiting = Capability { mark: Mark::Waiting, ..Capability::NULL };
        assert_eq!(waiting.tag(), 0x500);
        assert!(Capability::NULL.is_free() && !waiting.is_free() && !cap.is_free() && !busy.is_free());
    }
}
