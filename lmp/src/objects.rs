//! Capability types: the one table that everything else is matched against.

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

macro_rules! objects {
    ($( $(#[$doc:meta])* $name:ident = $code:literal, $text:literal, $space:ident, $extent:expr, [$($source:ident),*]; )*) => {
        /// The types of capabilities.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum ObjType { $( $(#[$doc])* $name = $code, )* }

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

            /// The type with this code.
            pub const fn from_code(code: u8) -> Option<ObjType> {
                match code { $($code => Some(ObjType::$name),)* _ => None }
            }
        }
    };
}

objects! {
    /// An empty slot.
    Null = 0, "null", None, Extent::Unsized, [];
    /// Untyped memory: the source of every object in memory.
    Ram = 1, "RAM", Memory, Extent::Multiple(PAGE_SIZE), [Ram];
    /// Memory that may be mapped.
    Frame = 2, "frame", Memory, Extent::Multiple(PAGE_SIZE), [Ram, Frame];
    /// Memory of devices or firmware: mappable, never an object.
    DevFrame = 3, "device frame", Memory, Extent::Multiple(PAGE_SIZE), [DevFrame];
    /// The root of a capability space: slots that hold L2 CNodes.
    L1CNode = 4, "L1 CNode", Memory, Extent::Multiple(PAGE_SIZE), [Ram];
    /// 256 capability slots.
    L2CNode = 5, "L2 CNode", Memory, Extent::Fixed(256 * CTE_SIZE), [Ram];
    /// Page table, level 4 (the root).
    Pml4 = 6, "PML4", Memory, Extent::Fixed(PAGE_SIZE), [Ram];
    /// Page table, level 3.
    Pdpt = 7, "PDPT", Memory, Extent::Fixed(PAGE_SIZE), [Ram];
    /// Page table, level 2.
    Pd = 8, "PD", Memory, Extent::Fixed(PAGE_SIZE), [Ram];
    /// Page table, level 1.
    Pt = 9, "PT", Memory, Extent::Fixed(PAGE_SIZE), [Ram];
    /// What a run of page-table entries maps: exists as long as they do.
    Mapping = 10, "mapping", Memory, Extent::Unsized, [];
    /// A dispatcher: what a core schedules.
    Dispatcher = 11, "dispatcher", Memory, Extent::Fixed(1024), [Ram];
    /// Where a dispatcher receives messages.
    Endpoint = 12, "endpoint", Memory, Extent::Fixed(128), [Ram];
    /// A word of pending bits that can wake a dispatcher.
    Notification = 13, "notification", Memory, Extent::Fixed(64), [Ram];
    /// The kernel control block: this core's persistent state.
    Kcb = 14, "KCB", Memory, Extent::Unsized, [];
    /// The instance of the CPU driver for a further core.
    Kernel = 15, "kernel instance", Memory, Extent::Fixed(HANDOVER_GRANULARITY), [Ram];
    /// The right to start further cores.
    Trampoline = 16, "trampoline", None, Extent::Unsized, [];
    /// A range of interrupt vectors of this core.
    Irq = 17, "interrupt vectors", Vector, Extent::Multiple(1), [Irq];
    /// A range of inter-processor interrupts.
    Ipi = 18, "inter-processor interrupts", Ipi, Extent::Multiple(1), [Ipi];
    /// A range of I/O ports.
    IoPort = 19, "I/O ports", IoPort, Extent::Multiple(1), [IoPort];
    /// The right to answer one call, once.
    Reply = 20, "reply right", None, Extent::Unsized, [];
    /// One direction of the notifications between two cores, at one of its ends.
    Link = 21, "notification link", Memory, Extent::Fixed(1024), [Ram];
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
        matches!(self, ObjType::Frame | ObjType::DevFrame)
    }

    /// Whether the kernel keeps state in the object's memory, which must be zeroed before it is made.
    pub const fn is_kernel_object(self) -> bool {
        matches!(
            self,
            ObjType::L1CNode
                | ObjType::L2CNode
                | ObjType::Pml4
                | ObjType::Pdpt
                | ObjType::Pd
                | ObjType::Pt
                | ObjType::Dispatcher
                | ObjType::Endpoint
                | ObjType::Notification
                | ObjType::Kernel
                | ObjType::Link
        )
    }

    /// Whether `self` may be retyped from `source`.
    pub fn retypes_from(self, source: ObjType) -> bool {
        self.sources().contains(&source)
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
    fn sources_lie_in_the_space_of_their_products() {
        for t in ObjType::ALL {
            for s in t.sources() {
                assert_eq!(t.space(), s.space(), "{t:?} from {s:?}");
            }
        }
    }
}
