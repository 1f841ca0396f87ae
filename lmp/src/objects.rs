//! Capability types: the one table that everything else is matched against.

use crate::cptr::L2_SLOTS;
use bitflags::bitflags;

bitflags! {
    /// What a capability allows on its object. Rights only shrink as capabilities are minted.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    #[repr(transparent)]
    pub struct Rights: u8 {
        /// Read memory, receive, look at state.
        const READ = 1;
        /// Write memory, send, signal, change state.
        const WRITE = 2;
        /// Map memory executable.
        const EXECUTE = 4;
        /// Pass capabilities on through the object.
        const GRANT = 8;
    }
}

/// Bytes in a base page.
pub const PAGE_SIZE: u64 = 4096;

/// Bytes of a capability slot (CTE).
pub const CTE_SIZE: u64 = 128;

/// Capability slots at the start of a dispatcher: what it runs with. They are filled by `Configure` and
/// `SetEndNotice` and named by nobody; a dying dispatcher is emptied like a CNode.
pub const DISPATCHER_SLOTS: u32 = 4;

/// Capability slots at the start of a link: the mapping of its ring, and the reader's table of notifications.
pub const LINK_SLOTS: u32 = 2;

/// The granularity at which RAM moves between cores, in bytes: one large page of the physical window.
pub const HANDOVER_GRANULARITY: u64 = 2 << 20;

/// Identifiers that one core gives out: a range as long as no core can use up.
pub const IDS_PER_CORE: u64 = 1 << 40;

/// Global system interrupts of a machine: more than its I/O APICs have inputs.
pub const IRQ_SOURCES: u64 = 256;

/// The first of the identifiers of `core`.
pub const fn ids_of(core: u16) -> u64 {
    core as u64 * IDS_PER_CORE
}

/// The address space in which a type's base and size are meant. Two capabilities can be related by
/// containment only within one space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Space {
    /// No address at all.
    None = 0,
    /// Physical memory, in bytes.
    Memory = 1,
    /// I/O ports.
    IoPort = 2,
    /// Interrupt vectors of this core.
    Vector = 3,
    /// Inter-processor interrupts: `apic_id << 8 | vector`.
    Ipi = 4,
    /// Global system interrupts: the inputs of all I/O APICs, counted through.
    Gsi = 5,
    /// Identifiers: each core has [`IDS_PER_CORE`] of them, from [`ids_of`] on.
    Id = 6,
}

/// How large an object of a type is, in units of its space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// Always this size, and aligned to it.
    Fixed(u64),
    /// Any positive multiple of this, and aligned to it.
    Multiple(u64),
    /// No object of its own (made by an operation, not by retype).
    Unsized,
}

/// What the memory of an object is to user space and to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// No memory of its own, or none that anybody may get at through it.
    Nothing,
    /// Nothing yet: the source of other objects.
    Source,
    /// User space may map it.
    Mappable,
    /// The kernel keeps state in it: zeroed before the object is made, and never mapped.
    Kernel,
}

/// When two capabilities of a type are copies: for the same object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Equality {
    /// There is no object.
    Never,
    /// The same range: base and size.
    Range,
    /// The same range, and what is mapped where.
    Mapping,
    /// Always: there is one object of the type.
    Always,
    /// Each capability is for an object of its own; it can be moved, not copied.
    Unique,
}

impl Equality {
    /// In words.
    pub const fn text(self) -> &'static str {
        match self {
            Equality::Never => "–",
            Equality::Range => "base, size",
            Equality::Mapping => "base, size, entries",
            Equality::Always => "always",
            Equality::Unique => "unique",
        }
    }
}

macro_rules! objects {
    ($( $(#[doc = $doc:literal])+ $name:ident = $code:literal, $text:literal {
        $space:ident, $extent:expr, from: [$($source:ident),*], memory: $memory:ident, equal: $equality:ident,
        rights: [$read:literal, $write:literal, $execute:literal, $grant:literal],
    } )*) => {
        /// The types of capabilities.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum ObjType { $( $(#[doc = $doc])+ $name = $code, )* }

        impl ObjType {
            /// Every type, in order of its code.
            pub const ALL: &'static [ObjType] = &[$(ObjType::$name,)*];

            /// The type's name in reports.
            pub const fn name(self) -> &'static str {
                match self { $(ObjType::$name => $text,)* }
            }

            /// The space in which the type's base and size lie.
            pub const fn space(self) -> Space {
                match self { $(ObjType::$name => Space::$space,)* }
            }

            /// The size of an object.
            pub const fn extent(self) -> Extent {
                match self { $(ObjType::$name => $extent,)* }
            }

            /// The types it may be retyped from.
            pub const fn sources(self) -> &'static [ObjType] {
                match self { $(ObjType::$name => &[$(ObjType::$source,)*],)* }
            }

            /// What its memory is used for.
            pub const fn memory(self) -> Use {
                match self { $(ObjType::$name => Use::$memory,)* }
            }

            /// What makes two capabilities of the type copies.
            pub const fn equality(self) -> Equality {
                match self { $(ObjType::$name => Equality::$equality,)* }
            }

            /// What the rights to read, write, execute and grant allow, in a few words; empty: nothing.
            pub const fn rights_text(self) -> [&'static str; 4] {
                match self { $(ObjType::$name => [$read, $write, $execute, $grant],)* }
            }

            /// What it is, in a sentence or two.
            pub const fn summary(self) -> &'static str {
                match self { $(ObjType::$name => concat!($($doc),+),)* }
            }

            /// The type with this code.
            pub const fn from_code(code: u8) -> Option<ObjType> {
                match code { $($code => Some(ObjType::$name),)* _ => None }
            }
        }
    };
}

objects! {
    /// An empty slot.
    Null = 0, "null" {
        None, Extent::Unsized, from: [], memory: Nothing, equal: Never,
        rights: ["", "", "", ""],
    }
    /// Untyped memory: the source of every object in memory.
    Ram = 1, "RAM" {
        Memory, Extent::Multiple(PAGE_SIZE), from: [Ram], memory: Source, equal: Range,
        rights: ["", "", "", ""],
    }
    /// Memory that may be mapped.
    Frame = 2, "frame" {
        Memory, Extent::Multiple(PAGE_SIZE), from: [Ram, Frame], memory: Mappable, equal: Range,
        rights: ["map readable", "map writable", "map executable", ""],
    }
    /// Memory of devices or firmware: mappable, never an object.
    DevFrame = 3, "device frame" {
        Memory, Extent::Multiple(PAGE_SIZE), from: [DevFrame], memory: Mappable, equal: Range,
        rights: ["map readable", "map writable", "map executable", ""],
    }
    /// The root of a capability space: slots that hold L2 CNodes.
    L1CNode = 4, "L1 CNode" {
        Memory, Extent::Multiple(PAGE_SIZE), from: [Ram], memory: Kernel, equal: Range,
        rights: ["identify", "change slots", "", ""],
    }
    /// 256 capability slots.
    L2CNode = 5, "L2 CNode" {
        Memory, Extent::Fixed(256 * CTE_SIZE), from: [Ram], memory: Kernel, equal: Range,
        rights: ["be a reading link's table", "", "", ""],
    }
    /// Page table, level 4 (the root).
    Pml4 = 6, "PML4" {
        Memory, Extent::Fixed(PAGE_SIZE), from: [Ram], memory: Kernel, equal: Range,
        rights: ["", "fill entries", "", ""],
    }
    /// Page table, level 3.
    Pdpt = 7, "PDPT" {
        Memory, Extent::Fixed(PAGE_SIZE), from: [Ram], memory: Kernel, equal: Range,
        rights: ["", "fill entries", "", ""],
    }
    /// Page table, level 2.
    Pd = 8, "PD" {
        Memory, Extent::Fixed(PAGE_SIZE), from: [Ram], memory: Kernel, equal: Range,
        rights: ["", "fill entries", "", ""],
    }
    /// Page table, level 1.
    Pt = 9, "PT" {
        Memory, Extent::Fixed(PAGE_SIZE), from: [Ram], memory: Kernel, equal: Range,
        rights: ["", "fill entries", "", ""],
    }
    /// What a run of page-table entries maps: exists as long as they do.
    Mapping = 10, "mapping" {
        Memory, Extent::Unsized, from: [], memory: Nothing, equal: Mapping,
        rights: ["of its frame", "of its frame", "of its frame", ""],
    }
    /// A dispatcher: what a core schedules.
    Dispatcher = 11, "dispatcher" {
        Memory, Extent::Fixed(1024), from: [Ram], memory: Kernel, equal: Range,
        rights: ["see its state", "configure, run, suspend", "", ""],
    }
    /// Where a dispatcher receives messages.
    Endpoint = 12, "endpoint" {
        Memory, Extent::Fixed(128), from: [Ram], memory: Kernel, equal: Range,
        rights: ["receive, bind", "send, call", "", "send a capability"],
    }
    /// A word of pending bits that can wake a dispatcher.
    Notification = 13, "notification" {
        Memory, Extent::Fixed(64), from: [Ram], memory: Kernel, equal: Range,
        rights: ["poll, bind", "signal", "", ""],
    }
    /// The kernel control block: this core's persistent state.
    Kcb = 14, "KCB" {
        Memory, Extent::Unsized, from: [], memory: Nothing, equal: Range,
        rights: ["read counters, audit", "relations of other cores, log doorbell, panic", "", ""],
    }
    /// The instance of the CPU driver for a further core.
    Kernel = 15, "kernel instance" {
        Memory, Extent::Fixed(HANDOVER_GRANULARITY), from: [Ram], memory: Kernel, equal: Range,
        rights: ["", "load, give memory", "", ""],
    }
    /// The right to start further cores.
    Trampoline = 16, "trampoline" {
        None, Extent::Unsized, from: [], memory: Nothing, equal: Always,
        rights: ["see its state", "start a core", "", ""],
    }
    /// A range of interrupt vectors of this core.
    Irq = 17, "interrupt vectors" {
        Vector, Extent::Multiple(1), from: [Irq], memory: Nothing, equal: Range,
        rights: ["", "bind, acknowledge", "", ""],
    }
    /// A range of inter-processor interrupts.
    Ipi = 18, "inter-processor interrupts" {
        Ipi, Extent::Multiple(1), from: [Ipi], memory: Nothing, equal: Range,
        rights: ["", "send", "", ""],
    }
    /// A range of I/O ports.
    IoPort = 19, "I/O ports" {
        IoPort, Extent::Multiple(1), from: [IoPort], memory: Nothing, equal: Range,
        rights: ["input", "output", "", ""],
    }
    /// The right to answer one call, once.
    Reply = 20, "reply right" {
        None, Extent::Unsized, from: [], memory: Nothing, equal: Unique,
        rights: ["", "", "", ""],
    }
    /// One direction of the notifications between two cores, at one of its ends.
    Link = 21, "notification link" {
        Memory, Extent::Fixed(1024), from: [Ram], memory: Kernel, equal: Range,
        rights: ["", "configure, signal", "", ""],
    }
    /// A range of identifiers, each one unique in the system: a name that cannot be forged.
    Id = 22, "identifiers" {
        Id, Extent::Multiple(1), from: [Id], memory: Nothing, equal: Range,
        rights: ["", "", "", ""],
    }
    /// A range of global system interrupts: the authority that the owner of the I/O APICs asks for before it
    /// routes one.
    IrqSource = 23, "interrupt sources" {
        Gsi, Extent::Multiple(1), from: [IrqSource], memory: Nothing, equal: Range,
        rights: ["", "", "", ""],
    }
}

impl ObjType {
    /// Whether the type is a page table.
    pub const fn is_vnode(self) -> bool {
        matches!(self, ObjType::Pml4 | ObjType::Pdpt | ObjType::Pd | ObjType::Pt)
    }

    /// The level of a page table: 4 for the root, 1 for the tables of base pages.
    pub const fn vnode_level(self) -> Option<u32> {
        match self {
            ObjType::Pml4 => Some(4),
            ObjType::Pdpt => Some(3),
            ObjType::Pd => Some(2),
            ObjType::Pt => Some(1),
            _ => None,
        }
    }

    /// Whether capabilities lie in the object's memory.
    pub const fn has_slots(self) -> bool {
        matches!(self, ObjType::L1CNode | ObjType::L2CNode | ObjType::Dispatcher | ObjType::Link)
    }

    /// How many capability slots lie at the start of an object that is no CNode, if any do.
    pub const fn own_slots(self) -> Option<u32> {
        match self {
            ObjType::Dispatcher => Some(DISPATCHER_SLOTS),
            ObjType::Link => Some(LINK_SLOTS),
            _ => None,
        }
    }

    /// Whether user space may map the memory.
    pub const fn is_mappable(self) -> bool {
        matches!(self.memory(), Use::Mappable)
    }

    /// Whether the kernel keeps state in the object's memory, which must be zeroed before it is made.
    pub const fn is_kernel_object(self) -> bool {
        matches!(self.memory(), Use::Kernel)
    }

    /// Whether `self` may be retyped from `source`.
    pub fn retypes_from(self, source: ObjType) -> bool {
        self.sources().contains(&source)
    }

    /// Whether a capability may be copied, and so passed on with a message and kept.
    pub const fn is_copyable(self) -> bool {
        matches!(self.equality(), Equality::Range | Equality::Mapping | Equality::Always)
    }

    /// How many objects one retype makes at most: all of them in one L2 CNode, or one in an L1 slot; 0 if the
    /// type is not made by retype. A source may be retyped as often as there is a range left that no other
    /// object made from it lies in.
    pub fn per_retype(self) -> u32 {
        if self.sources().is_empty() { 0 } else { L2_SLOTS }
    }

    /// Whether an object made by retype starts out zeroed. Frames too: recycled memory leaks nothing.
    pub const fn is_zeroed(self) -> bool {
        self.is_kernel_object() || matches!(self, ObjType::Frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_dense_and_invertible() {
        for (i, t) in ObjType::ALL.iter().enumerate() {
            assert_eq!(*t as usize, i);
            assert_eq!(ObjType::from_code(i as u8), Some(*t));
        }
        assert_eq!(ObjType::from_code(ObjType::ALL.len() as u8), None);
    }

    #[test]
    fn kernel_objects_are_never_mappable_and_come_only_from_ram() {
        for t in ObjType::ALL {
            if t.is_kernel_object() {
                assert!(!t.is_mappable(), "{t:?}");
                assert_eq!(t.sources(), &[ObjType::Ram], "{t:?}");
            }
        }
    }

    #[test]
    fn own_slots_fit_their_objects() {
        for t in ObjType::ALL {
            if let Some(slots) = t.own_slots() {
                assert!(t.has_slots(), "{t:?}");
                assert!(matches!(t.extent(), Extent::Fixed(n) if n >= slots as u64 * CTE_SIZE), "{t:?}");
            }
        }
    }

    #[test]
    fn copies_are_told_by_ranges_unless_there_is_none() {
        for t in ObjType::ALL {
            assert_eq!(t.is_copyable(), !matches!(t, ObjType::Null | ObjType::Reply), "{t:?}");
            if t.per_retype() > 0 {
                assert_eq!(t.equality(), Equality::Range, "{t:?}");
            }
            if t.space() == Space::None {
                assert_ne!(t.equality(), Equality::Range, "{t:?}");
            }
        }
    }

    #[test]
    fn only_memory_is_used_as_memory() {
        for t in ObjType::ALL {
            assert!(t.memory() == Use::Nothing || t.space() == Space::Memory, "{t:?}");
            assert!(!t.has_slots() || t.is_kernel_object(), "{t:?}");
            assert!(!t.is_mappable() || t.rights_text()[3].is_empty(), "{t:?}");
        }
    }

    #[test]
    fn sources_lie_in_the_space_of_their_products() {
        for t in ObjType::ALL {
            for s in t.sources() {
                assert_eq!(t.space(), s.space(), "{t:?} from {s:?}");
            }
        }
    }
}
