//! RAM, capability slots and the address space of this domain.
//!
//! [`allocate`] makes kernel objects and frames straight from the domain's RAM capabilities, [`free`] deletes
//! them and gives the RAM back; [`stats`] accounts for every byte. [`map`] puts frames into the address space,
//! [`map_guarded`] with nothing on either side. The heap and the stack page themselves in.
//!
//! A domain starts with the RAM that its parent gave it. When that is used up, the core's memory server is asked for
//! more, in pieces that become larger each time; [`trim`] gives those back that are wholly free again. What is left
//! the server takes back itself when the domain has ended. A domain without a memory server has to do with what it got.
//!
//! All state lies in a static and none in the heap, because faults of the heap are resolved from it. The
//! parts without system calls are pure and tested on the host.

mod extents;
mod server;
mod slots;
mod tables;

use core::cell::{Cell, UnsafeCell};
use core::fmt;
use core::ops::Range;

use arrayvec::ArrayVec;
use lmp::cptr::{domain_l1, image, init_l1, task};
use lmp::invocation::MapFlags;
use lmp::objects::{CTE_SIZE, Extent, PAGE_SIZE};
use lmp::start::StartInfo;
use lmp::{CPtr, ObjType, SlotRef, SysError, layout, syscall};

use crate::interface::mem::{GRANULE, MemError, PIECES_MAX};
use server::Refusal;

pub use extents::Extents;
pub use server::usage;
pub use slots::Slots;
pub use tables::{LARGE_PAGE, Run, Source, Tables, base_page_runs, runs};

/// Bytes that one page fault maps.
pub const PAGE_IN: u64 = 64 << 10;

/// RAM capabilities a domain can manage.
const MAX_SOURCES: usize = 64;
const MAX_EXTENTS: usize = 256;
const MAX_TABLES: usize = 256;
const MAX_HOLES: usize = 64;

/// Stack that the code of this module may need below its caller's: paged in before the state is taken.
const STACK_RESERVE: u64 = 16 << 10;

/// The first slot of the task CNode that is the runtime's own: those before are for the parent's gifts.
pub const FIRST_OWN_TASK_SLOT: u32 = 128;

/// The first of the slots for RAM of the memory server. They are set aside: a slot that had to be found when RAM has run
/// out might need RAM itself.
const LENT_SLOTS: CPtr = CPtr::new(0, FIRST_OWN_TASK_SLOT);

/// The least and the most that the memory server is asked for at a time, in bytes, unless it is for one object.
const LEAST_PIECE: u64 = 256 << 10;
const LARGEST_PIECE: u64 = 4 << 20;

/// Why memory or address space was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum MemoryError {
    /// No free range of RAM is large enough.
    OutOfRam {
        /// Bytes wanted.
        bytes: u64,
        /// Alignment wanted, in bytes.
        align: u64,
    },
    /// The domain has used up its RAM, and its memory server refuses more.
    NotLent {
        /// Bytes wanted.
        bytes: u64,
        /// Why not.
        cause: MemError,
    },
    /// All slots are taken and no further CNode could be made.
    OutOfSlots,
    /// The domain's table of RAM capabilities is full.
    TooManySources,
    /// The domain's table of page tables is full.
    TablesFull,
    /// No free range of addresses is large enough.
    OutOfAddresses {
        /// Bytes wanted.
        bytes: u64,
    },
    /// The CPU driver refused.
    Refused {
        /// What was attempted.
        operation: &'static str,
        /// Why not.
        cause: SysError,
    },
    /// The state was in use when a fault needed it.
    Busy,
    /// All events of the dispatcher that are handed out are in use.
    OutOfEvents,
    /// All bells of the domain are in use.
    OutOfBells,
    /// The dispatcher frame has no room for the buffer of an endpoint.
    OutOfFrame {
        /// Bytes wanted.
        bytes: u64,
    },
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRam { bytes, align } => {
                write!(f, "out of RAM: no free {bytes} bytes aligned to {align}; give the domain more memory")
            }
            Self::NotLent { bytes, cause } => {
                write!(f, "out of RAM: no free {bytes} bytes, and the memory server lends none: {cause}")
            }
            Self::OutOfSlots => f.write_str("out of capability slots: free some, or enlarge the L1 CNode"),
            Self::TooManySources => write!(f, "a domain manages at most {MAX_SOURCES} RAM capabilities"),
            Self::TablesFull => f.write_str("too many page tables: map fewer or larger ranges"),
            Self::OutOfAddresses { bytes } => {
                write!(f, "out of addresses: no free range of {bytes} bytes; unmap something")
            }
            Self::Refused { operation, cause } => write!(f, "{operation} was refused: {cause}"),
            Self::Busy => f.write_str("a page fault came while memory was being managed"),
            Self::OutOfEvents => f.write_str("out of events: drop endpoints or bells that are not needed"),
            Self::OutOfBells => {
                write!(f, "a domain has at most {} bells: drop some", crate::bells::BELLS_MAX)
            }
            Self::OutOfFrame { bytes } => {
                write!(f, "no free {bytes} bytes in the dispatcher frame: make endpoints with fewer messages")
            }
        }
    }
}

impl core::error::Error for MemoryError {}

/// An object made by [`allocate`]: give it back with [`free`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "an object that is not freed keeps its RAM"]
pub struct Object {
    /// The slot that holds its first capability.
    pub cap: CPtr,
    /// Its physical address.
    pub physical: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// Memory mapped by [`map`]: unmap it with [`unmap`].
#[derive(Debug)]
#[must_use = "a mapping that is not unmapped keeps its addresses"]
pub struct Mapped {
    /// The first address.
    pub address: u64,
    /// Bytes.
    pub len: u64,
    /// Bytes on either side that stay unmapped.
    guard: u64,
    mappings: ArrayVec<CPtr, MAX_RUNS>,
}

impl Mapped {
    /// The memory, as a pointer.
    pub fn as_ptr<T>(&self) -> *mut T {
        self.address as *mut T
    }
}

/// Runs in one [`Mapped`].
const MAX_RUNS: usize = 16;

/// The account of the domain's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Bytes of RAM given to the domain, and lent by the memory server.
    pub total: u64,
    /// Bytes that the memory server has lent.
    pub lent: u64,
    /// Bytes that are free.
    pub free: u64,
    /// The longest free range, in bytes.
    pub longest: u64,
    /// Bytes that were freed when the table of free ranges was full.
    pub lost: u64,
    /// Free capability slots.
    pub free_slots: u32,
    /// CNodes in use for the domain itself.
    pub cnodes: usize,
}

#[derive(Clone, Copy)]
struct RamSource {
    cap: CPtr,
    base: u64,
    size: u64,
}

/// RAM and slots: what page tables are made of.
struct Store {
    sources: ArrayVec<RamSource, MAX_SOURCES>,
    /// The pieces of the memory server, each by the number of its slot. As sources they count from [`MAX_SOURCES`] on.
    lent: [Option<RamSource>; PIECES_MAX],
    /// Bytes of the piece to ask for next, if more than the least.
    next_piece: u64,
    ram: Extents<MAX_EXTENTS>,
    slots: Slots,
    /// L1 slots not yet used for a CNode.
    l1_free: Range<u32>,
    /// The L1 CNode, unless it is the one that the domain started with.
    root: Option<Object>,
}

struct Memory {
    store: Store,
    space: Tables<MAX_TABLES>,
    holes: Extents<MAX_HOLES>,
    /// The page table of the stack is known.
    stack_grows: bool,
}

struct State {
    busy: Cell<bool>,
    memory: UnsafeCell<Memory>,
}

// SAFETY: a domain has one thread; `with` keeps an upcall from using the state while it is in use.
unsafe impl Sync for State {}

static STATE: State = State {
    busy: Cell::new(false),
    memory: UnsafeCell::new(Memory {
        store: Store {
            sources: ArrayVec::new_const(),
            lent: [None; PIECES_MAX],
            next_piece: 0,
            ram: Extents::new(),
            slots: Slots::new(),
            l1_free: 0..0,
            root: None,
        },
        // All zeroes, so that the state lies in `.bss`; `init` sets the root.
        space: Tables::new(CPtr::NULL),
        holes: Extents::new(),
        stack_grows: false,
    }),
};

/// Calls `f` with the state, unless it is in use already: then a fault came from the middle of `f`.
fn with<R>(f: impl FnOnce(&mut Memory) -> Result<R, MemoryError>) -> Result<R, MemoryError> {
    touch_stack();
    if STATE.busy.replace(true) {
        return Err(MemoryError::Busy);
    }
    // SAFETY: `busy` was clear, so no other reference exists, and it stays set while this one lives.
    let result = f(unsafe { &mut *STATE.memory.get() });
    STATE.busy.set(false);
    result
}

/// Pages in the stack that `f` in [`with`] may need, so that no stack fault comes while the state is in use.
fn touch_stack() {
    let mark = 0u8;
    let top = &raw const mark as u64;
    // Upcalls have a stack of their own, all of it mapped.
    if (layout::STACK_BASE + STACK_RESERVE..layout::STACK_TOP).contains(&top) {
        // SAFETY: the address lies in the domain's stack, which is mapped or paged in by the read.
        unsafe { ((top - STACK_RESERVE) as *const u8).read_volatile() };
    }
}

fn refused(operation: &'static str) -> impl Fn(SysError) -> MemoryError {
    move |cause| MemoryError::Refused { operation, cause }
}

impl Store {
    fn add_source(&mut self, cap: CPtr) -> Result<(), MemoryError> {
        let source = look_at(cap)?;
        let number = self.sources.len() as u32;
        self.sources.try_push(source).map_err(|_| MemoryError::TooManySources)?;
        self.ram.free(source.base, source.size, number);
        Ok(())
    }

    fn source_of(&self, physical: u64) -> Option<(u32, RamSource)> {
        let given = self.sources.iter().enumerate().map(|(i, s)| (i, *s));
        let lent = self.lent.iter().enumerate().filter_map(|(i, s)| Some((MAX_SOURCES + i, (*s)?)));
        let has = |s: &RamSource| physical >= s.base && physical - s.base < s.size;
        given.chain(lent).find(|(_, s)| has(s)).map(|(i, s)| (i as u32, s))
    }

    /// Asks the memory server for RAM in which there is room for `size` bytes aligned to `align`, and more if it can be.
    fn grow(&mut self, size: u64, align: u64) -> Result<(), MemoryError> {
        let out = MemoryError::OutOfRam { bytes: size, align };
        // In a full table the new range would be lost.
        let place = self.lent.iter().position(Option::is_none).filter(|_| !self.ram.is_full());
        let place = place.ok_or(out)?;
        let cap = LENT_SLOTS.offset(place as u32);
        let needed = size.checked_next_multiple_of(GRANULE).ok_or(out)?;
        let mut bytes = self.next_piece.clamp(LEAST_PIECE, LARGEST_PIECE).max(needed);
        while let Err(refusal) = server::allocate(bytes, align, cap) {
            if !refusal.is_about_size() || bytes == needed {
                return Err(match refusal {
                    Refusal::NoServer => out,
                    Refusal::Server(cause) => MemoryError::NotLent { bytes: size, cause },
                    Refusal::Call(cause) => {
                        MemoryError::Refused { operation: "asking the memory server for RAM", cause }
                    }
                });
            }
            bytes = (bytes / 2).next_multiple_of(GRANULE).max(needed);
        }
        let source = look_at(cap)?;
        self.lent[place] = Some(source);
        self.next_piece = 2 * bytes;
        self.ram.free(source.base, source.size, (MAX_SOURCES + place) as u32);
        Ok(())
    }

    /// Gives the pieces back of which everything is free; their bytes.
    fn trim(&mut self) -> u64 {
        let mut bytes = 0;
        for place in 0..PIECES_MAX {
            let Some(RamSource { base, size, .. }) = self.lent[place] else { continue };
            if self.ram.allocate(size, 1, &(base..base + size)).is_none() {
                continue;
            }
            if server::free(base).is_ok() {
                self.lent[place] = None;
                self.next_piece = 0;
                bytes += size;
            } else {
                self.ram.free(base, size, (MAX_SOURCES + place) as u32);
            }
        }
        bytes
    }

    /// Makes one object of `size` bytes in `slot`.
    fn make(
        &mut self,
        slot: SlotRef,
        ty: ObjType,
        size: u64,
        align: u64,
        within: &Range<u64>,
    ) -> Result<u64, MemoryError> {
        let out = MemoryError::OutOfRam { bytes: size, align };
        let mut place = self.ram.allocate(size, align, within);
        if place.is_none() && *within == ANYWHERE {
            // No RAM is made of all the RAM of a source, so there must be more than that.
            let more = u64::from(ty == ObjType::Ram);
            self.grow(size.checked_add(more).ok_or(out)?, align)?;
            place = self.ram.allocate(size, align, within);
        }
        let physical = place.ok_or(out)?;
        let (number, source) = self.source_of(physical).ok_or(out)?;
        match syscall::cap_retype(task::ROOT, slot, source.cap, ty, physical - source.base, size, 1) {
            Ok(()) => Ok(physical),
            Err(cause) => {
                self.ram.free(physical, size, number);
                Err(MemoryError::Refused { operation: "making an object", cause })
            }
        }
    }

    fn slots(&mut self, count: u32) -> Result<CPtr, MemoryError> {
        if let Some(slot) = self.slots.allocate(count) {
            return Ok(slot);
        }
        if self.slots.is_full() {
            return Err(MemoryError::OutOfSlots);
        }
        let l1 = self.l1_slot()?;
        let size = object_size(ObjType::L2CNode, 0);
        self.make(SlotRef::L1(l1), ObjType::L2CNode, size, size, &ANYWHERE)?;
        self.slots.add(l1, 0);
        if self.l1_free.is_empty() {
            // While there is a slot to do it with. If RAM is short, the next one who needs an L1 slot tries.
            let _ = self.grow_root();
        }
        self.slots.allocate(count).ok_or(MemoryError::OutOfSlots)
    }

    /// An L1 slot not yet used.
    fn l1_slot(&mut self) -> Result<u32, MemoryError> {
        if self.l1_free.is_empty() {
            self.grow_root()?;
        }
        self.l1_free.next().ok_or(MemoryError::OutOfSlots)
    }

    /// Makes the root twice as large.
    fn grow_root(&mut self) -> Result<(), MemoryError> {
        let slots = self.l1_free.end.checked_mul(2).ok_or(MemoryError::OutOfSlots)?;
        self.resize_root(slots)
    }

    /// See [`resize_root`].
    fn resize_root(&mut self, slots: u32) -> Result<(), MemoryError> {
        let old_slots = self.l1_free.end;
        let size = object_size(ObjType::L1CNode, u64::from(slots) * CTE_SIZE);
        let slots = u32::try_from(size / CTE_SIZE).map_err(|_| MemoryError::OutOfSlots)?;
        if slots == old_slots {
            return Ok(());
        }
        let occupied = |l1| syscall::cap_identify(task::ROOT, SlotRef::L1(l1)).is_ok();
        if slots < self.l1_free.start || (slots..old_slots).any(occupied) {
            return Err(refused("shrinking the L1 CNode")(SysError::SlotOccupied));
        }
        // Not by `slots`, which might come here again.
        let new = self.slots.allocate(1).ok_or(MemoryError::OutOfSlots)?;
        let physical = match self.make(new.into(), ObjType::L1CNode, size, PAGE_SIZE, &ANYWHERE) {
            Ok(physical) => physical,
            Err(error) => {
                self.slots.free(new);
                return Err(error);
            }
        };
        let object = Object { cap: new, physical, size };
        if let Err(error) = change_root(new, old_slots.min(slots)) {
            self.discard(object);
            return Err(error);
        }
        self.l1_free.end = slots;
        let old = self.root.replace(object);
        // The old root goes with this if nobody else has it: its slots are copies, so that is quick.
        syscall::cap_delete(new, task::ROOT).map_err(refused("deleting the old L1 CNode"))?;
        syscall::cap_copy(new, task::ROOT, new).map_err(refused("naming the new L1 CNode"))?;
        if let Some(old) = old {
            self.discard(old);
        }
        Ok(())
    }

    /// Deletes an object of which nothing is used, and takes its RAM back if that was its last capability.
    fn discard(&mut self, object: Object) {
        if syscall::cap_revoke(task::ROOT, object.cap).is_err()
            || syscall::cap_delete(task::ROOT, object.cap).is_err()
        {
            return;
        }
        self.slots.free(object.cap);
        let source = self.source_of(object.physical).map_or(0, |(number, _)| number);
        self.ram.free(object.physical, object.size, source);
    }

    fn allocate(
        &mut self,
        ty: ObjType,
        size: u64,
        align: u64,
        within: &Range<u64>,
    ) -> Result<Object, MemoryError> {
        let size = object_size(ty, size);
        let align = align.max(object_align(ty));
        let cap = self.slots(1)?;
        match self.make(cap.into(), ty, size, align, within) {
            Ok(physical) => Ok(Object { cap, physical, size }),
            Err(error) => {
                self.slots.free(cap);
                Err(error)
            }
        }
    }
}

/// The RAM that `cap` is a capability of.
fn look_at(cap: CPtr) -> Result<RamSource, MemoryError> {
    let info = syscall::cap_identify(task::ROOT, cap).map_err(refused("looking at a RAM capability"))?;
    match info.ty {
        ObjType::Ram => Ok(RamSource { cap, base: info.base, size: info.size }),
        _ => Err(MemoryError::Refused { operation: "adding RAM", cause: SysError::WrongType }),
    }
}

impl Source for Store {
    fn table(&mut self, ty: ObjType) -> Result<CPtr, MemoryError> {
        self.allocate(ty, 0, 1, &ANYWHERE).map(|object| object.cap)
    }

    fn slot(&mut self) -> Result<CPtr, MemoryError> {
        self.slots(1)
    }

    fn free_slot(&mut self, slot: CPtr) {
        self.slots.free(slot);
    }
}

/// All physical addresses.
pub const ANYWHERE: Range<u64> = 0..u64::MAX;

/// Bytes of an object of `ty`: `wanted` rounded up where the type leaves a choice.
pub fn object_size(ty: ObjType, wanted: u64) -> u64 {
    match ty.extent() {
        Extent::Fixed(size) => size,
        Extent::Multiple(unit) => wanted.max(1).next_multiple_of(unit),
        Extent::Unsized => 0,
    }
}

/// The alignment of an object of `ty`, in bytes.
pub fn object_align(ty: ObjType) -> u64 {
    match ty.extent() {
        Extent::Fixed(size) => size,
        Extent::Multiple(unit) => unit,
        Extent::Unsized => 1,
    }
}

/// Takes stock of what the domain starts with. Errors leave the domain with less, never stop it.
pub(crate) fn init(info: &StartInfo) {
    let _ = with(|m| {
        let is_init = info.ram_caps > 0;
        m.store.slots.add(0, FIRST_OWN_TASK_SLOT + PIECES_MAX as u32);
        // An L1 CNode too small to be looked at has no slots to spare either.
        let slots = syscall::cap_identify(task::ROOT, task::ROOT).map_or(0, |i| i.size / CTE_SIZE) as u32;
        m.store.l1_free = if is_init { init_l1::FIRST_FREE..slots } else { domain_l1::FIRST_FREE..slots };
        if is_init {
            for i in 0..info.ram_caps.min(lmp::cptr::L2_SLOTS) {
                m.store.add_source(CPtr::new(init_l1::RAM, i))?;
            }
        } else {
            m.store.add_source(task::RAM)?;
        }
        m.space.set_root(task::VSPACE);
        // A page on either side stays unmapped: the heap ends where these addresses begin.
        m.holes.free(layout::MAP_BASE + PAGE_SIZE, layout::MAP_TOP - layout::MAP_BASE - 2 * PAGE_SIZE, 0);
        let stack_table =
            if is_init { CPtr::new(init_l1::IMAGE, image::PT_STACK) } else { task::STACK_TABLE };
        if syscall::cap_identify(task::ROOT, stack_table).is_ok_and(|i| i.ty == ObjType::Pt) {
            m.space.insert(layout::STACK_BASE, 1, stack_table)?;
            m.stack_grows = true;
        }
        Ok(())
    });
}

/// Resolves a fault at `address` if the heap or the stack is to grow there.
pub(crate) fn page_in(address: u64) -> bool {
    let flags = MapFlags::READ | MapFlags::WRITE;
    let start = address - address % PAGE_IN;
    let heap = crate::heap::range().contains(&address);
    let stack = (layout::STACK_BASE..layout::STACK_TOP).contains(&address);
    if !heap && !stack {
        return false;
    }
    with(|m| {
        if stack && !m.stack_grows {
            return Err(MemoryError::TablesFull);
        }
        let frame = m.store.allocate(ObjType::Frame, PAGE_IN, PAGE_SIZE, &ANYWHERE)?;
        let run = Run { address: start, offset: 0, len: PAGE_IN, large: false };
        m.space.map_run(&mut m.store, run, frame.cap, 0, flags).map(|_| ())
    })
    .is_ok()
}

/// Adds the RAM of capability `cap` to what the domain allocates from.
///
/// # Errors
/// If `cap` is no RAM or the table of RAM capabilities is full.
pub fn add_ram(cap: CPtr) -> Result<(), MemoryError> {
    with(|m| m.store.add_source(cap))
}

/// Sees to it that `bytes` bytes of RAM are free, in whatever ranges: those that the domain has, or more from the memory
/// server.
pub(crate) fn reserve(bytes: u64) -> Result<(), MemoryError> {
    with(|m| match bytes.checked_sub(m.store.ram.free_units()).filter(|&missing| missing > 0) {
        Some(missing) => m.store.grow(missing, 1),
        None => Ok(()),
    })
}

/// Gives back to the memory server what it has lent and what is wholly free again; the bytes.
pub fn trim() -> u64 {
    with(|m| Ok(m.store.trim())).unwrap_or(0)
}

/// Makes an object of `ty`, of at least `size` bytes where the type leaves a choice.
///
/// # Errors
/// If RAM or slots are used up, or the CPU driver refuses.
pub fn allocate(ty: ObjType, size: u64) -> Result<Object, MemoryError> {
    allocate_in(ty, size, 1, &ANYWHERE)
}

/// [`allocate`], aligned to `align` bytes and from physical addresses `within`.
///
/// # Errors
/// As [`allocate`].
pub fn allocate_in(ty: ObjType, size: u64, align: u64, within: &Range<u64>) -> Result<Object, MemoryError> {
    with(|m| m.store.allocate(ty, size, align, within))
}

/// Deletes what was made from `object` and other copies of it, then the object, and takes the RAM back.
///
/// # Errors
/// If the CPU driver refuses; the RAM then stays with the object.
pub fn free(object: Object) -> Result<(), MemoryError> {
    syscall::cap_revoke(task::ROOT, object.cap).map_err(refused("revoking an object"))?;
    syscall::cap_delete(task::ROOT, object.cap).map_err(refused("deleting an object"))?;
    with(|m| {
        m.store.slots.free(object.cap);
        let source = m.store.source_of(object.physical).map_or(0, |(number, _)| number);
        m.store.ram.free(object.physical, object.size, source);
        Ok(())
    })
}

/// Gives up the RAM under `object` for good: its capability was handed to another core.
pub fn forget(object: Object) {
    let _ = with(|m| {
        m.store.slots.free(object.cap);
        Ok(())
    });
}

/// An empty slot.
///
/// # Errors
/// If none is left and no CNode can be made.
pub fn slot() -> Result<CPtr, MemoryError> {
    with(|m| m.store.slots(1))
}

/// `count` empty slots in a row.
///
/// # Errors
/// As [`slot`].
pub fn slots(count: u32) -> Result<CPtr, MemoryError> {
    with(|m| m.store.slots(count))
}

/// A CNode whose slots are not the runtime's to give out: its object, and the L1 slot through which they are named.
///
/// # Errors
/// If RAM, slots or L1 slots are used up, or the CPU driver refuses.
pub fn cnode() -> Result<(Object, u32), MemoryError> {
    with(|m| {
        let object = m.store.allocate(ObjType::L2CNode, 0, 1, &ANYWHERE)?;
        let placed = m.store.l1_slot().and_then(|l1| {
            syscall::cap_copy(task::ROOT, SlotRef::L1(l1), object.cap).map_err(refused("placing a CNode"))?;
            Ok((object, l1))
        });
        if placed.is_err() {
            m.store.discard(object);
        }
        placed
    })
}

/// Makes the L1 CNode of this domain's capability space one of at least `slots` slots, more or fewer than it
/// has: every reference stays what it is. The runtime does so by itself when it needs more.
///
/// # Errors
/// `SlotOccupied` if an L1 slot that would go is in use or handed out; if RAM or slots are used up; if the CPU
/// driver refuses. The root is then as before.
pub fn resize_root(slots: u32) -> Result<(), MemoryError> {
    with(|m| m.store.resize_root(slots))
}

/// How many L1 slots this domain has.
pub fn root_slots() -> Result<u32, MemoryError> {
    with(|m| Ok(m.store.l1_free.end))
}

/// Makes the L1 CNode in `new` the root, with the first `slots` slots of the present one.
fn change_root(new: CPtr, slots: u32) -> Result<(), MemoryError> {
    for slot in (0..slots).map(SlotRef::L1) {
        match syscall::cap_copy(new, slot, slot) {
            Ok(()) | Err(SysError::EmptySlot) => {}
            Err(cause) => return Err(refused("copying a CNode to the new L1 CNode")(cause)),
        }
    }
    syscall::dispatcher_resize_root(task::DISPATCHER, new).map_err(refused("changing the L1 CNode"))
}

/// Makes one object of `ty`, `size` bytes at `offset` of the RAM in `source`, in a slot of its own: for who accounts for
/// that RAM himself. [`unmake`] takes it back.
///
/// # Errors
/// `Exhausted` if there is no slot; what the CPU driver refuses the retype with.
pub fn make_at(source: CPtr, ty: ObjType, offset: u64, size: u64) -> Result<CPtr, SysError> {
    let slot = slot().map_err(|_| SysError::Exhausted)?;
    match syscall::cap_retype(task::ROOT, slot, source, ty, offset, size, 1) {
        Ok(()) => Ok(slot),
        Err(cause) => {
            free_slot(slot);
            Err(cause)
        }
    }
}

/// Deletes the object that [`make_at`] made, with all that came of it.
///
/// # Errors
/// What the CPU driver refuses with; the object is then still there.
pub fn unmake(object: CPtr) -> Result<(), SysError> {
    syscall::cap_revoke(task::ROOT, object)?;
    syscall::cap_delete(task::ROOT, object)?;
    free_slot(object);
    Ok(())
}

/// Gives back an empty slot.
pub fn free_slot(slot: CPtr) {
    let _ = with(|m| {
        m.store.slots.free(slot);
        Ok(())
    });
}

/// Maps `len` bytes of `frame` from byte `offset` on at addresses of the runtime's choice.
///
/// # Errors
/// If addresses, tables or slots are used up, or the CPU driver refuses; nothing stays mapped then.
pub fn map(frame: CPtr, offset: u64, len: u64, flags: MapFlags) -> Result<Mapped, MemoryError> {
    map_between(Guard::None, frame, offset, len, flags)
}

/// [`map`] with at least a page on either side that stays unmapped: who runs past the end faults there.
///
/// # Errors
/// As [`map`].
pub fn map_guarded(frame: CPtr, offset: u64, len: u64, flags: MapFlags) -> Result<Mapped, MemoryError> {
    map_between(Guard::Pages, frame, offset, len, flags)
}

/// What is on either side of a mapping.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guard {
    /// Whatever there may be.
    None,
    /// Nothing, for as long as it is mapped.
    Pages,
}

fn map_between(
    guard: Guard,
    frame: CPtr,
    offset: u64,
    len: u64,
    flags: MapFlags,
) -> Result<Mapped, MemoryError> {
    let info = syscall::cap_identify(task::ROOT, frame).map_err(refused("looking at a frame"))?;
    let len = len.next_multiple_of(PAGE_SIZE);
    let physical = info.base + offset;
    let align = if physical.is_multiple_of(LARGE_PAGE) && len >= LARGE_PAGE { LARGE_PAGE } else { PAGE_SIZE };
    // As much as the alignment, so that the mapping is aligned too.
    let guard = if guard == Guard::Pages { align } else { 0 };
    with(|m| {
        let full = MemoryError::OutOfAddresses { bytes: len };
        let address = m.holes.allocate(len + 2 * guard, align, &ANYWHERE).ok_or(full)? + guard;
        let mut mapped = Mapped { address, len, guard, mappings: ArrayVec::new() };
        let space = &m.space;
        // One more than there is room for, which tells that there are too many.
        let all: ArrayVec<Run, { MAX_RUNS + 1 }> =
            runs(address, physical, len, |at| space.has(at, 1)).take(MAX_RUNS + 1).collect();
        for run in all {
            let result = if mapped.mappings.is_full() {
                Err(MemoryError::OutOfAddresses { bytes: len })
            } else {
                m.space.map_run(&mut m.store, run, frame, offset + run.offset, flags)
            };
            match result {
                Ok(slot) => mapped.mappings.push(slot),
                Err(error) => {
                    take_down(m, mapped);
                    return Err(error);
                }
            }
        }
        Ok(mapped)
    })
}

/// Unmaps what [`map`] mapped.
///
/// # Safety
/// Nothing may refer to the memory any more.
pub unsafe fn unmap(mapped: Mapped) {
    let _ = with(|m| {
        take_down(m, mapped);
        Ok(())
    });
}

fn take_down(m: &mut Memory, mapped: Mapped) {
    let mut all_gone = true;
    for slot in mapped.mappings {
        // A mapping that is gone already went with its frame.
        match syscall::cap_delete(task::ROOT, slot) {
            Ok(()) | Err(SysError::EmptySlot) => m.store.slots.free(slot),
            Err(_) => all_gone = false,
        }
    }
    if all_gone {
        m.holes.free(mapped.address - mapped.guard, mapped.len + 2 * mapped.guard, 0);
    }
}

/// An address without a page, its page table in place: one invocation maps it.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The address, of a whole page.
    pub address: u64,
    /// The page table that translates it.
    pub table: CPtr,
    /// Its entry there.
    pub entry: u64,
}

/// Reserves the address of a page.
///
/// # Errors
/// If addresses, tables or RAM are used up.
pub fn window() -> Result<Window, MemoryError> {
    with(|m| {
        let full = MemoryError::OutOfAddresses { bytes: PAGE_SIZE };
        let address = m.holes.allocate(PAGE_SIZE, PAGE_SIZE, &ANYWHERE).ok_or(full)?;
        let table = m.space.ensure(&mut m.store, address, 1)?;
        Ok(Window { address, table, entry: address / PAGE_SIZE % 512 })
    })
}

/// The account of the domain's memory.
pub fn stats() -> Stats {
    let empty = Stats { total: 0, lent: 0, free: 0, longest: 0, lost: 0, free_slots: 0, cnodes: 0 };
    with(|m| {
        let lent = m.store.lent.iter().flatten().map(|s| s.size).sum();
        Ok(Stats {
            total: m.store.sources.iter().map(|s| s.size).sum::<u64>() + lent,
            lent,
            free: m.store.ram.free_units(),
            longest: m.store.ram.longest(),
            lost: m.store.ram.lost(),
            free_slots: m.store.slots.free_slots(),
            cnodes: m.store.slots.cnodes(),
        })
    })
    .unwrap_or(empty)
}

/// Calls `f` with each free range of RAM, ascending by physical address.
pub fn for_each_free_range(mut f: impl FnMut(Range<u64>)) {
    // No heap in `f` while the state is in use: collect first.
    let mut ranges: ArrayVec<Range<u64>, MAX_EXTENTS> = ArrayVec::new();
    let _ = with(|m| {
        ranges.extend(m.store.ram.ranges());
        Ok(())
    });
    ranges.into_iter().for_each(&mut f);
}
