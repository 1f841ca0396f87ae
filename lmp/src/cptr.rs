//! Capability references: how a domain names a slot of its capability space.
//!
//! A capability space has two levels. The root is an L1 CNode with any number of slots, each of which may
//! hold an L2 CNode of 256 slots. A [`CPtr`] names an L2 slot: bits 8 and up index the L1 CNode, bits 0–7
//! the L2 CNode. Operations on the slots themselves (copy, retype, delete) name a [`SlotRef`], which may
//! also be an L1 slot.

/// Slots in an L2 CNode.
pub const L2_SLOTS: u32 = 256;

/// log2 of [`L2_SLOTS`].
pub const L2_BITS: u32 = 8;

/// A reference to a capability in the caller's capability space: an allegation, checked on every use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
#[repr(transparent)]
pub struct CPtr(pub u32);

impl CPtr {
    /// The reference that names no capability.
    pub const NULL: CPtr = CPtr(0);

    /// The slot `l2` of the L2 CNode in L1 slot `l1`.
    pub const fn new(l1: u32, l2: u32) -> CPtr {
        CPtr((l1 << L2_BITS) | (l2 & (L2_SLOTS - 1)))
    }

    /// Index into the L1 CNode.
    pub const fn l1(self) -> u32 {
        self.0 >> L2_BITS
    }

    /// Index into the L2 CNode.
    pub const fn l2(self) -> u32 {
        self.0 & (L2_SLOTS - 1)
    }

    /// The slot `n` places further on. It must lie in the same L2 CNode to be of use to a retype.
    pub const fn offset(self, n: u32) -> CPtr {
        CPtr(self.0 + n)
    }
}

/// A reference to a slot at either level, as passed in a message word: bits 0–31 hold the index (a
/// [`CPtr`], or the L1 index), bit 32 says that it is an L1 slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotRef {
    /// A slot of the L1 CNode itself; it can hold nothing but an L2 CNode.
    L1(u32),
    /// A slot of an L2 CNode.
    L2(CPtr),
}

impl SlotRef {
    const L1_BIT: u64 = 1 << 32;

    /// The message word for this slot.
    pub const fn encode(self) -> u64 {
        match self {
            SlotRef::L1(i) => Self::L1_BIT | i as u64,
            SlotRef::L2(c) => c.0 as u64,
        }
    }

    /// The slot that a message word names, or `None` if bits above 32 are set.
    pub const fn decode(word: u64) -> Option<SlotRef> {
        if word >> 33 != 0 {
            None
        } else if word & Self::L1_BIT != 0 {
            Some(SlotRef::L1(word as u32))
        } else {
            Some(SlotRef::L2(CPtr(word as u32)))
        }
    }
}

impl From<CPtr> for SlotRef {
    fn from(c: CPtr) -> SlotRef {
        SlotRef::L2(c)
    }
}

/// Slots that every domain starts with: the *task* L2 CNode in L1 slot 0.
pub mod task {
    use super::CPtr;

    /// The L1 CNode that is the root of the domain's own capability space.
    pub const ROOT: CPtr = CPtr::new(0, 1);
    /// The domain's own dispatcher.
    pub const DISPATCHER: CPtr = CPtr::new(0, 2);
    /// The frame that is the dispatcher frame.
    pub const DISPATCHER_FRAME: CPtr = CPtr::new(0, 3);
    /// The root page table (PML4).
    pub const VSPACE: CPtr = CPtr::new(0, 4);
    /// The frame holding the [`StartInfo`](crate::start::StartInfo) page, read-only.
    pub const START_INFO: CPtr = CPtr::new(0, 5);
    /// RAM for the domain's own use (page tables, heap, kernel objects).
    pub const RAM: CPtr = CPtr::new(0, 6);
    /// The frame with the domain's console stream, if it has one.
    pub const STDOUT: CPtr = CPtr::new(0, 7);
    /// The right to ring the console's doorbell.
    pub const STDOUT_DOORBELL: CPtr = CPtr::new(0, 8);
    /// The frame with the boot archive, read-only (domains that may spawn others).
    pub const ARCHIVE: CPtr = CPtr::new(0, 9);
    /// The page table (PT) that maps [`START_INFO`](crate::layout::START_INFO) to
    /// [`STACK_TOP`](crate::layout::STACK_TOP), with which a domain grows its stack; empty if the stack is as
    /// large as it will be.
    pub const STACK_TABLE: CPtr = CPtr::new(0, 10);
    /// The endpoint of this core's monitor, badged with the domain's number; empty for `init` until it has
    /// started the monitor.
    pub const MONITOR: CPtr = CPtr::new(0, 11);
    /// The endpoint of this core's memory server, badged with the domain's number; empty if the domain has to do with
    /// the RAM that its parent gave it.
    pub const MEMORY: CPtr = CPtr::new(0, 12);
    /// The first slot whose meaning is between a domain and its parent.
    pub const FIRST_FREE: CPtr = CPtr::new(0, 32);

    /// `init` only: the frame with the machine's `BootInfo`, read-only.
    pub const BOOT_INFO: CPtr = CPtr::new(0, 16);
    /// `init` only: the kernel control block of this core.
    pub const KCB: CPtr = CPtr::new(0, 17);
    /// `init` of the first core only: the right to start further cores.
    pub const TRAMPOLINE: CPtr = CPtr::new(0, 18);
    /// `init` of the first core only: all I/O ports.
    pub const IO_PORTS: CPtr = CPtr::new(0, 19);
    /// `init` only: all interrupt vectors of this core that user space may bind.
    pub const IRQ_VECTORS: CPtr = CPtr::new(0, 20);
    /// `init` only: the right to send any inter-processor interrupt user space may send.
    pub const IPIS: CPtr = CPtr::new(0, 21);
    /// `init` only: this core's share frame (see [`crate::start::share`]), with the CPU driver's log.
    pub const SHARE: CPtr = CPtr::new(0, 22);
    /// `init` only: the identifiers of this core (see [`ids_of`](crate::objects::ids_of)).
    pub const IDS: CPtr = CPtr::new(0, 23);
    /// `init` of the first core only: all interrupt sources.
    pub const IRQ_SOURCES: CPtr = CPtr::new(0, 24);
}

/// L1 slots of the capability space the CPU driver builds for `init`.
pub mod init_l1 {
    /// The task CNode.
    pub const TASK: u32 = 0;
    /// RAM capabilities, from slot 0 up; [`StartInfo::ram_caps`](crate::start::StartInfo::ram_caps) of them.
    pub const RAM: u32 = 1;
    /// Device frames (firmware tables, reserved memory, holes), from slot 0 up;
    /// [`StartInfo::device_caps`](crate::start::StartInfo::device_caps) of them.
    pub const DEVICES: u32 = 2;
    /// The page tables of `init`'s own image; see [`image`](super::image).
    pub const IMAGE: u32 = 3;
    /// The first L1 slot that is empty at start.
    pub const FIRST_FREE: u32 = 4;
}

/// Slots of the L2 CNode [`init_l1::IMAGE`]: the page tables that exist when a domain starts. All else
/// that is mapped at start lies below 2 GiB in tables of which the domain needs no capability; it builds
/// what it wants from 4 GiB up, and its stack within [`PT_STACK`](image::PT_STACK).
pub mod image {
    /// The PDPT in entry 0 of the root.
    pub const PDPT: u32 = 0;
    /// The PD for addresses from 0 to 1 GiB.
    pub const PD_IMAGE: u32 = 1;
    /// The PD for addresses from 1 to 2 GiB.
    pub const PD_START: u32 = 2;
    /// The PT for addresses from 0x4000_0000 to 0x4020_0000: start page, dispatcher frame, stack.
    pub const PT_STACK: u32 = 3;
    /// The other PTs, large mappings and `Mapping` capabilities, in no set order.
    pub const OTHERS: u32 = 4;
}

/// L1 slots of the capability space of every domain that another domain spawned.
pub mod domain_l1 {
    /// The task CNode.
    pub const TASK: u32 = 0;
    /// CNodes with further capabilities from the parent: `GIFTS..FIRST_FREE`, as many as it needed.
    pub const GIFTS: u32 = 1;
    /// The first L1 slot that is the domain's own business.
    pub const FIRST_FREE: u32 = 16;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_references_survive_encoding() {
        for slot in [SlotRef::L1(0), SlotRef::L1(77), SlotRef::L2(CPtr::new(3, 255)), SlotRef::L2(CPtr::NULL)]
        {
            assert_eq!(SlotRef::decode(slot.encode()), Some(slot));
        }
        assert_eq!(SlotRef::decode(1 << 33), None);
        assert_eq!(SlotRef::decode(u64::MAX), None);
    }

    #[test]
    fn a_reference_splits_into_its_two_indices() {
        let c = CPtr::new(5, 9);
        assert_eq!((c.l1(), c.l2()), (5, 9));
        assert_eq!(c.offset(3).l2(), 12);
    }
}
