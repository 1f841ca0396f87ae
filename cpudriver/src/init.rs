//! The first domain of this core: `init`, the only one that the CPU driver itself loads.
//!
//! Everything it consists of is carved from the start of the core's RAM; the rest of the RAM, and whatever
//! authority the core has, goes into its capability space (see [`lmp::cptr`]). After that the CPU driver hands
//! out nothing.

use crate::arch::paging::{self, Entry, index};
use crate::arch::{cpu, window};
use crate::core_state::{Core, Memory};
use crate::dispatch;
use crate::instance::BOOT_INFO_OFFSET;
use crate::kernel_objects::page_table;
use crate::objects::{Dispatcher, Own, Ref, Saved};
use boot_archive::Archive;
use boot_elf::{Access, Image, Policy};
use boot_info::{BootInfo, PageSize, PhysAddr, PhysRange, RegionKind};
use caps::{Capability, Level, MappingRange, Objects, Place, SlotAddr, Slots};
use lmp::cptr::{CPtr, L2_SLOTS, image, init_l1, task};
use lmp::frame::{DispatcherFrame, USUAL_FRAME_SIZE, reg};
use lmp::invocation::{DispatcherState, USER_VECTOR_COUNT, USER_VECTOR_FIRST};
use lmp::layout;
use lmp::objects::{CTE_SIZE, Extent, IDS_PER_CORE, IRQ_SOURCES, PAGE_SIZE, ids_of};
use lmp::start::{StartInfo, share};
use lmp::{ObjType, Rights};

/// Name of the module.
const MODULE: &str = "init";
/// Bytes of memory that its image may need.
const IMAGE_MAX: u64 = 16 << 20;
/// Bytes of its first stack.
const STACK: u64 = 64 << 10;
/// Bytes of an L2 CNode.
const L2_SIZE: u64 = L2_SLOTS as u64 * CTE_SIZE;
/// Slots of its L1 CNode.
const L1_SLOTS: u64 = 128;

/// Bytes of a dispatcher.
const DISPATCHER_SIZE: u64 = match ObjType::Dispatcher.extent() {
    Extent::Fixed(size) => size,
    _ => unreachable!(),
};

/// Why there is no `init`.
pub(crate) type Failure = &'static str;

/// Memory handed out page by page from the core's first piece of RAM.
struct Carver {
    next: u64,
    end: u64,
}

impl Carver {
    fn take(&mut self, len: u64) -> Result<u64, Failure> {
        let base = self.next;
        let next = base + len.next_multiple_of(PAGE_SIZE);
        if next > self.end {
            return Err("the core has too little memory for `init`: give the machine more");
        }
        self.next = next;
        // SAFETY: this core's RAM, for which no capability exists yet.
        unsafe { window::zero(base, next - base) };
        Ok(base)
    }
}

/// `init` while it is being put together.
struct Loader<'a> {
    core: &'a mut Core,
    carver: Carver,
    root: u64,
    /// Base addresses of the L2 CNodes, by L1 slot.
    cnodes: [u64; init_l1::FIRST_FREE as usize],
    next_image_slot: u32,
}

const FULL: Failure = "an L2 CNode of `init` is full";

impl Loader<'_> {
    fn insert(&mut self, l1: u32, slot: u32, cap: Capability) -> Result<(), Failure> {
        if slot >= L2_SLOTS {
            return Err(FULL);
        }
        let base = SlotAddr(self.cnodes[l1 as usize]);
        let place = Place { slot: base.offset(slot), level: Level::L2, room: L2_SLOTS - slot };
        self.core
            .db
            .insert_root(&mut Memory, place, cap)
            .map_err(|_| "the capability database refused what `init` starts with")
    }

    fn insert_task(&mut self, slot: CPtr, ty: ObjType, base: u64, size: u64) -> Result<(), Failure> {
        self.insert(init_l1::TASK, slot.l2(), Capability::new(ty, base, size, self.core.db.core()))
    }

    /// A slot for one of the capabilities that nobody knows by its place.
    fn unnamed(&mut self) -> Result<u32, Failure> {
        self.next_image_slot += 1;
        if self.next_image_slot > L2_SLOTS { Err(FULL) } else { Ok(self.next_image_slot - 1) }
    }

    /// A frame for memory that `init` has but no name for.
    fn insert_frame(&mut self, base: u64, len: u64) -> Result<(), Failure> {
        let slot = self.unnamed()?;
        self.insert(init_l1::IMAGE, slot, Capability::new(ObjType::Frame, base, len, self.core.db.core()))
    }

    /// The capability for the mapping of the innermost object around `address` into a page table.
    fn insert_mapping(&mut self, table: u64, entry: usize, count: u64, address: u64) -> Result<(), Failure> {
        let slot = self.unnamed()?;
        let dst = Place {
            slot: SlotAddr(self.cnodes[init_l1::IMAGE as usize]).offset(slot),
            level: Level::L2,
            room: 1,
        };
        const LOST: Failure = "`init` would have memory without a capability";
        let db = &mut self.core.db;
        let table = db.vnode(&Memory, table).ok_or(LOST)?;
        let object = db.mappable(&Memory, address).ok_or(LOST)?;
        let offset = address - Memory.get(object).cap.base;
        let range = MappingRange { entry: entry as u32, count: count as u32, offset, entry_bytes: PAGE_SIZE };
        db.insert_mapping(&mut Memory, dst, object, table, range).map_err(|_| LOST)
    }

    /// The page table for `va` at `level` − 1, made if it is not there.
    fn table(&mut self, table: u64, va: u64, level: u32) -> Result<u64, Failure> {
        // SAFETY: tables of `init`, carved below, in the window.
        let slot = unsafe { &mut (&mut *page_table(table))[index(va, level)] };
        if *slot != 0 {
            return Ok(*slot & paging::ADDRESS);
        }
        let pa = self.carver.take(PAGE_SIZE)?;
        *slot = paging::entry(pa, paging::USER_TABLE);
        let ty = [ObjType::Pt, ObjType::Pd, ObjType::Pdpt][level as usize - 2];
        let well_known = match (ty, va >> 30) {
            (ObjType::Pdpt, 0) => Some(image::PDPT),
            (ObjType::Pd, 0) => Some(image::PD_IMAGE),
            (ObjType::Pd, 1) => Some(image::PD_START),
            (ObjType::Pt, _) if va >> 21 == layout::START_INFO >> 21 => Some(image::PT_STACK),
            _ => None,
        };
        let place = match well_known {
            Some(place) => place,
            None => self.unnamed()?,
        };
        self.insert(init_l1::IMAGE, place, Capability::new(ty, pa, PAGE_SIZE, self.core.db.core()))?;
        self.insert_mapping(table, index(va, level), 1, pa)?;
        Ok(pa)
    }

    fn map(&mut self, va: u64, pa: u64, len: u64, access: Entry) -> Result<(), Failure> {
        let mut offset = 0;
        while offset < len {
            let pdpt = self.table(self.root, va + offset, 4)?;
            let pd = self.table(pdpt, va + offset, 3)?;
            let pt = self.table(pd, va + offset, 2)?;
            let first = index(va + offset, 1);
            let count = ((len - offset) / PAGE_SIZE).min(512 - first as u64);
            self.insert_mapping(pt, first, count, pa + offset)?;
            // SAFETY: as in `table`.
            let entries = unsafe { &mut (&mut *page_table(pt))[first..first + count as usize] };
            for entry in entries {
                *entry = paging::entry(pa + offset, access);
                offset += PAGE_SIZE;
            }
        }
        Ok(())
    }
}

const READ: Entry = Entry::PRESENT.union(Entry::USER).union(Entry::NO_EXECUTE);
const WRITE: Entry = READ.union(Entry::WRITABLE);
const EXECUTE: Entry = Entry::PRESENT.union(Entry::USER);

/// Load `init` and make it ready to run.
pub(crate) fn load(core: &mut Core) -> Result<(), Failure> {
    let given = core.k.handover.given;
    let given = &given[..core.k.handover.given_count as usize];
    let share = given.iter().find(|g| g.shared).ok_or("the core has no share frame")?.range;
    let mut ram = given.iter().filter(|g| !g.shared).map(|g| g.range);
    let first_ram = ram.next().ok_or("the core has no RAM")?;
    let archive = core.k.handover.archive;
    // SAFETY: the archive is mapped read-only in every core's window, and nobody can write it.
    let bytes = unsafe { window::bytes(archive.base().as_u64(), archive.length()) };
    let archive_bytes = Archive::parse_table(bytes).map_err(|_| "the boot archive is damaged")?;
    let module = archive_bytes.get(MODULE).ok_or("the boot archive has no module `init`")?;
    let elf = Image::parse(module.bytes, Policy::user(IMAGE_MAX))
        .map_err(|_| "the boot archive's `init` is not an executable that can be loaded")?;

    let mut carver = Carver { next: first_ram.base().as_u64(), end: first_ram.end().as_u64() };
    let root = carver.take(PAGE_SIZE)?;
    let l1 = carver.take(L1_SLOTS * CTE_SIZE)?;
    let mut cnodes = [0; init_l1::FIRST_FREE as usize];
    let gap = carver.next;
    carver.next = carver.next.next_multiple_of(L2_SIZE);
    let gap = gap..carver.next;
    for cnode in &mut cnodes {
        *cnode = carver.take(L2_SIZE)?;
    }
    let owner = core.db.core();
    core.k.init(&Capability::new(ObjType::Pml4, root, PAGE_SIZE, owner));
    let mut l = Loader { core, carver, root, cnodes, next_image_slot: image::OTHERS };
    let l1_base = SlotAddr(l1);
    for (i, cnode) in cnodes.into_iter().enumerate() {
        let place = Place { slot: l1_base.offset(i as u32), level: Level::L1, room: 1 };
        let cap = Capability::new(ObjType::L2CNode, cnode, L2_SIZE, owner);
        l.core.db.insert_root(&mut Memory, place, cap).map_err(|_| FULL)?;
    }
    l.insert_task(task::ROOT, ObjType::L1CNode, l1, L1_SLOTS * CTE_SIZE)?;
    l.insert_task(task::VSPACE, ObjType::Pml4, root, PAGE_SIZE)?;

    if !gap.is_empty() {
        l.insert_frame(gap.start, gap.end - gap.start)?;
    }
    let archive_pages = archive.outward(PageSize::Size4K);
    let archive_base = archive_pages.base().as_u64();
    let mut cap = Capability::new(ObjType::Frame, archive_base, archive_pages.length(), owner);
    cap.rights = Rights::READ | Rights::EXECUTE;
    l.insert(init_l1::TASK, task::ARCHIVE.l2(), cap)?;

    for segment in elf.segments() {
        let pages = segment.page_range();
        let access = match segment.access {
            Access::Read => READ,
            Access::ReadExecute => EXECUTE,
            Access::ReadWrite => WRITE,
        };
        // What is only read is mapped from the archive, where it is placed as in memory.
        let in_archive = archive.base().as_u64() + (segment.contents.as_ptr() as u64 - bytes.as_ptr() as u64);
        let start = in_archive.wrapping_sub(segment.vaddr - pages.start);
        let whole = segment.memory_size == segment.contents.len() as u64;
        if !segment.access.is_writable() && whole && start.is_multiple_of(PAGE_SIZE) {
            l.map(pages.start, start, pages.end - pages.start, access)?;
            continue;
        }
        let pa = l.carver.take(pages.end - pages.start)?;
        l.insert_frame(pa, pages.end - pages.start)?;
        for page in segment.pages() {
            // SAFETY: the pages just carved.
            let memory = unsafe {
                core::slice::from_raw_parts_mut(
                    window::ptr::<u8>(pa + (page - pages.start)),
                    PAGE_SIZE as usize,
                )
            };
            segment.read(page, memory);
        }
        l.map(pages.start, pa, pages.end - pages.start, access)?;
    }
    let stack = l.carver.take(STACK)?;
    l.insert_frame(stack, STACK)?;
    l.map(layout::STACK_TOP - STACK, stack, STACK, WRITE)?;
    let frame = l.carver.take(USUAL_FRAME_SIZE)?;
    l.insert_task(task::DISPATCHER_FRAME, ObjType::Frame, frame, USUAL_FRAME_SIZE)?;
    l.map(layout::DISPATCHER_FRAME, frame, USUAL_FRAME_SIZE, WRITE)?;
    let start_info = l.carver.take(PAGE_SIZE)?;
    l.insert_frame(start_info, PAGE_SIZE)?;
    l.map(layout::START_INFO, start_info, PAGE_SIZE, READ)?;
    let share_base = share.base().as_u64();
    l.insert_task(task::SHARE, ObjType::Frame, share_base, share::SIZE)?;
    l.map(layout::SHARE, share_base, share::SIZE, WRITE)?;

    if archive_pages.length() > layout::ARCHIVE_TOP - layout::ARCHIVE {
        return Err("the boot archive is larger than 512 MiB");
    }
    l.map(layout::ARCHIVE, archive_base, archive_pages.length(), READ)?;

    let first_core = l.core.k.handover.first != 0;
    let kcb = &raw const *l.core as u64;
    let kcb = l.core.k.handover.block + (kcb - layout::KERNEL_BASE);
    l.insert_task(task::KCB, ObjType::Kcb, kcb, size_of::<Core>() as u64)?;
    l.insert_task(task::IRQ_VECTORS, ObjType::Irq, USER_VECTOR_FIRST, USER_VECTOR_COUNT)?;
    l.insert_task(task::IPIS, ObjType::Ipi, 0, 1 << 40)?;
    l.insert_task(task::IDS, ObjType::Id, ids_of(owner.0), IDS_PER_CORE)?;
    let mut device_caps = 0;
    if first_core {
        l.insert_task(task::IRQ_SOURCES, ObjType::IrqSource, 0, IRQ_SOURCES)?;
        l.insert_task(task::IO_PORTS, ObjType::IoPort, 0, 1 << 16)?;
        if l.core.k.handover.trampoline != 0 {
            l.insert_task(task::TRAMPOLINE, ObjType::Trampoline, 0, 0)?;
        }
        device_caps = boot_info(&mut l)?;
    }

    // The page is more than the dispatcher needs; the rest of it comes back with the dispatcher.
    let dispatcher = l.carver.take(PAGE_SIZE)?;
    let slot = l.unnamed()?;
    l.insert(init_l1::IMAGE, slot, Capability::new(ObjType::Ram, dispatcher, PAGE_SIZE, owner))?;
    l.insert_task(task::DISPATCHER, ObjType::Dispatcher, dispatcher, DISPATCHER_SIZE)?;

    // What is left of the first piece, and the other pieces.
    let rest = PhysRange::between(PhysAddr::new(l.carver.next), first_ram.end());
    let mut ram_caps = 0;
    for range in core::iter::once(rest).chain(ram).filter(|r| !r.is_empty()) {
        let cap = Capability::new(ObjType::Ram, range.base().as_u64(), range.length(), owner);
        l.insert(init_l1::RAM, ram_caps, cap)?;
        ram_caps += 1;
    }

    let h = &l.core.k.handover;
    let mut info = StartInfo::new();
    info.core = h.core;
    info.apic_id = h.apic_id;
    info.node = h.node;
    info.first_core = h.first;
    // Whoever listens to the log listens to the streams of the core's domains too. It was checked to be a doorbell,
    // and fits wherever APIC identifiers have up to 24 bits.
    info.console_doorbell = u32::try_from(h.log_doorbell).unwrap_or(0);
    info.ram_caps = ram_caps;
    info.device_caps = device_caps;
    info.archive_base = archive.base().as_u64();
    info.archive_len = archive.length();
    info.timer_ticks_per_ms = h.timer_per_ms;
    info.tsc_ticks_per_ms = h.tsc_per_ms;
    info.image_base = elf.span().start;
    info.image_len = elf.span().end - elf.span().start;
    info.set_name(MODULE);
    // SAFETY: the page just carved; the frame likewise.
    unsafe {
        window::ptr::<StartInfo>(start_info).write(info);
        let frame = &mut *window::ptr::<DispatcherFrame>(frame);
        frame.control.disabled = 1;
        frame.disabled_area.rip = elf.entry();
        frame.disabled_area.gpr[reg::RSP] = layout::STACK_TOP - 8;
        frame.disabled_area.gpr[reg::RDI] = layout::DISPATCHER_FRAME;
        frame.disabled_area.gpr[reg::RSI] = layout::START_INFO;
        frame.disabled_area.fp_control = dispatch::FP_CONTROL_INITIAL;
    }
    let task_cnode = l.cnodes[init_l1::TASK as usize];
    start(l.core, dispatcher, task_cnode)
}

/// Let the dispatcher run with what the task CNode holds.
fn start(core: &mut Core, dispatcher: u64, task_cnode: u64) -> Result<(), Failure> {
    let cap = Capability::new(ObjType::Dispatcher, dispatcher, DISPATCHER_SIZE, core.db.core());
    let d = Ref::<Dispatcher>::from_cap(&cap).ok_or(FULL)?;
    for (own, from) in
        [(Own::CSpace, task::ROOT), (Own::VSpace, task::VSPACE), (Own::Frame, task::DISPATCHER_FRAME)]
    {
        let src = SlotAddr(task_cnode).offset(from.l2());
        let dst = Place { slot: d.slot(own), level: Level::L2, room: 1 };
        core.db.copy(&mut Memory, dst, src).map_err(|_| "`init` cannot be configured")?;
    }
    d.set_up();
    d.saved.set(Saved::Disabled);
    let mut name = [0; 16];
    name[..MODULE.len()].copy_from_slice(MODULE.as_bytes());
    d.name.set(name);
    d.state.set(DispatcherState::Runnable);
    core.k.enqueue(d, dispatch::Place::Last);
    Ok(())
}

/// The boot information, and device frames for what is not RAM: firmware tables, reserved memory, holes.
fn boot_info(l: &mut Loader<'_>) -> Result<u32, Failure> {
    let from = (layout::KERNEL_BASE + BOOT_INFO_OFFSET) as *const u8;
    let len = size_of::<BootInfo>() as u64;
    let copy = l.carver.take(len)?;
    // SAFETY: the loader left the boot information there; the copy was just carved.
    let bytes = unsafe {
        core::ptr::copy_nonoverlapping(from, window::ptr::<u8>(copy), len as usize);
        window::bytes(copy, len)
    };
    let pages = len.next_multiple_of(PAGE_SIZE);
    let mut cap = Capability::new(ObjType::Frame, copy, pages, l.core.db.core());
    cap.rights = Rights::READ;
    l.insert(init_l1::TASK, task::BOOT_INFO.l2(), cap)?;
    l.map(layout::BOOT_INFO, copy, pages, READ)?;
    let info = BootInfo::from_bytes(bytes).map_err(|_| "the boot information is damaged")?;

    let mut count = 0;
    let mut at = PhysAddr::new(0);
    let end = PhysAddr::new(1 << cpu::physical_bits());
    let regions = info.memory_map().regions().iter();
    let after_last = core::iter::once((end, end, None));
    for (start, stop, kind) in
        regions.map(|r| (r.range.base(), r.range.end(), Some(r.kind))).chain(after_last)
    {
        let hole = PhysRange::between(at, start.min(end));
        count = device_frame(l, hole, Rights::READ | Rights::WRITE, count)?;
        let rights = match kind {
            Some(RegionKind::AcpiReclaimable | RegionKind::AcpiNvs) => Some(Rights::READ),
            Some(RegionKind::Reserved | RegionKind::Framebuffer) => Some(Rights::READ | Rights::WRITE),
            _ => None,
        };
        if let Some(rights) = rights {
            count = device_frame(l, PhysRange::between(start, stop.min(end)), rights, count)?;
        }
        at = at.max(stop);
    }
    Ok(count)
}

/// One device frame, without the page of the local APIC's registers: who writes those is the CPU driver.
fn device_frame(
    l: &mut Loader<'_>,
    range: PhysRange,
    rights: Rights,
    mut count: u32,
) -> Result<u32, Failure> {
    let apic = PhysRange::new(PhysAddr::new(crate::arch::apic::XAPIC_BASE), PAGE_SIZE);
    let parts = [PhysRange::between(range.base(), range.end().min(apic.base())), {
        PhysRange::between(range.base().max(apic.end()), range.end())
    }];
    for part in parts.into_iter().filter(|p| !p.is_empty()) {
        if count == L2_SLOTS {
            log::warn!("more than {L2_SLOTS} regions that are not RAM: {part} is left out");
            continue;
        }
        let mut cap =
            Capability::new(ObjType::DevFrame, part.base().as_u64(), part.length(), l.core.db.core());
        cap.rights = rights;
        l.insert(init_l1::DEVICES, count, cap)?;
        count += 1;
    }
    Ok(count)
}
