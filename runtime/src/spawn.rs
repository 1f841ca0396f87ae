//! New domains from ELF files.
//!
//! A [`DomainBuilder`] carves everything a domain consists of — page tables, image, stack, dispatcher and its
//! frame, capability space, its own RAM — out of *one* RAM capability of the parent, so that the end of the
//! domain is one revoke: [`Child::destroy`] gets every byte back, whatever the domain did with its memory.
//!
//! Neighbours: `boot_elf` checks the file, `memory` supplies RAM and slots, `lmp::start` says what the domain
//! finds when it starts.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use boot_elf::{Access, ElfError, Image, Policy, Segment};
use lmp::cptr::{domain_l1, task};
use lmp::frame::{Control, DispatcherFrame, FRAME_SIZE, USUAL_FRAME_SIZE, reg};
use lmp::invocation::{DispatcherState, EndCause, MapFlags};
use lmp::objects::PAGE_SIZE;
use lmp::start::{StartInfo, share};
use lmp::syscall::{self, DispatcherStatus};
use lmp::{CPtr, ObjType, Rights, SlotRef, SysError, layout};

use crate::events::{self, Deadline, Event};
use crate::local::Local;
use crate::memory::{self, LARGE_PAGE, MemoryError, Object, Source, Tables, base_page_runs, object_size};
use crate::{monitor, start, upcall};

/// Bytes of the stack that is there from the start; it grows down to [`layout::STACK_BASE`].
const FIRST_STACK: u64 = 64 << 10;

/// Bytes of RAM a domain gets for its own use unless its builder says otherwise.
pub const DEFAULT_MEMORY: u64 = 1 << 20;

/// Bytes of the child's L1 CNode.
const L1_SIZE: u64 = PAGE_SIZE;

/// Bytes an image may need in memory.
const MAX_IMAGE: u64 = 64 << 20;

/// Page tables a child's builder makes.
const MAX_TABLES: usize = 64;

/// The flags that a new domain starts with: only the bit that is always 1, and interrupts on.
const START_FLAGS: u64 = 0x202;

/// MXCSR with all exceptions masked, and the x87 control word likewise: the values after reset, as the ABI
/// wants them (System V ABI, AMD64 supplement, 3.4.1).
const START_FP_CONTROL: u64 = 0x1f80 | 0x37f << 32;

/// Why a domain could not be made, started or taken down.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SpawnError {
    /// The file cannot be loaded.
    Elf(ElfError),
    /// The parent lacks memory, slots or addresses.
    Memory(MemoryError),
    /// The CPU driver refused.
    Refused {
        /// What was attempted.
        operation: &'static str,
        /// Why not.
        cause: SysError,
    },
    /// A capability is to go to a slot that is not the parent's to fill.
    BadGrant(CPtr),
    /// A mapping was asked for that the page tables of the builder cannot hold.
    NoArchive,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elf(error) => write!(f, "the file cannot be loaded: {error}"),
            Self::Memory(error) => error.fmt(f),
            Self::Refused { operation, cause } => write!(f, "{operation} was refused: {cause}"),
            Self::BadGrant(slot) => {
                write!(
                    f,
                    "slot {:#x} is not one that a parent fills: use task slots 11 to 127 or gifts",
                    slot.0
                )
            }
            Self::NoArchive => f.write_str("the archive cannot be passed on: this domain has none"),
        }
    }
}

impl core::error::Error for SpawnError {}

impl From<MemoryError> for SpawnError {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

impl From<ElfError> for SpawnError {
    fn from(error: ElfError) -> Self {
        Self::Elf(error)
    }
}

fn refused(operation: &'static str) -> impl Fn(SysError) -> SpawnError {
    move |cause| SpawnError::Refused { operation, cause }
}

/// A capability for the child.
#[derive(Clone, Copy)]
struct Grant {
    slot: CPtr,
    source: CPtr,
    rights: Rights,
    badge: u64,
}

/// A console stream for the child.
#[derive(Clone, Copy, Debug)]
pub struct StreamGrant {
    /// The stream's number in its core's directory.
    pub number: u32,
    /// The frame with the stream's memory, of [`share::STREAM_SIZE`] bytes.
    pub frame: CPtr,
    /// The right to ring the console's doorbell.
    pub ring: CPtr,
    /// The doorbell, `apic_id << 8 | vector`.
    pub doorbell: u32,
}

/// What a new domain is to be.
pub struct DomainBuilder<'a> {
    name: &'a str,
    elf: &'a [u8],
    args: String,
    memory: u64,
    words: [u64; 16],
    grants: Vec<Grant>,
    given: Vec<Object>,
    stream: Option<StreamGrant>,
    archive: bool,
}

impl<'a> DomainBuilder<'a> {
    /// A domain called `name` that runs the executable `elf`.
    pub fn new(name: &'a str, elf: &'a [u8]) -> Self {
        Self {
            name,
            elf,
            args: String::new(),
            memory: DEFAULT_MEMORY,
            words: [0; 16],
            grants: Vec::new(),
            given: Vec::new(),
            stream: None,
            archive: false,
        }
    }

    /// Its argument string: words separated by spaces.
    pub fn args(mut self, args: &str) -> Self {
        self.args = String::from(args);
        self
    }

    /// RAM for its own use, in bytes.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes.next_multiple_of(PAGE_SIZE);
        self
    }

    /// Word `index` of its start information.
    pub fn word(mut self, index: usize, value: u64) -> Self {
        if let Some(word) = self.words.get_mut(index) {
            *word = value;
        }
        self
    }

    /// A copy of the capability `source`, in the child's slot `slot`: one of the task CNode that the runtime
    /// leaves to parents, or of a CNode of gifts.
    pub fn grant(self, slot: CPtr, source: CPtr) -> Self {
        self.grant_less(slot, source, Rights::all(), 0)
    }

    /// [`Self::grant`] with at most `rights`, and the badge `badge` (0: the source's).
    pub fn grant_less(mut self, slot: CPtr, source: CPtr, rights: Rights, badge: u64) -> Self {
        self.grants.push(Grant { slot, source, rights, badge });
        self
    }

    /// The capability of `object`, moved to the child's slot `slot` when the child is made: before it runs, this domain has
    /// neither that capability nor the RAM any more.
    pub fn give(mut self, slot: CPtr, object: Object) -> Self {
        self.given.push(object);
        self.grant(slot, object.cap)
    }

    /// A monitor to ask, by the capability `endpoint` of its endpoint, at which this domain's number is `id`.
    pub fn monitor(self, endpoint: CPtr, id: u64) -> Self {
        self.grant_less(task::MONITOR, endpoint, Rights::WRITE | Rights::GRANT, id)
    }

    /// A memory server to ask for more RAM, by the capability `endpoint` of its endpoint, at which this domain's number
    /// is `id`.
    pub fn memory_server(self, endpoint: CPtr, id: u64) -> Self {
        self.grant_less(task::MEMORY, endpoint, Rights::WRITE, id)
    }

    /// A console stream to print on.
    pub fn stream(mut self, stream: StreamGrant) -> Self {
        self.stream = Some(stream);
        self
    }

    /// The boot archive, mapped and as a capability, so that the child can spawn domains too.
    pub fn with_archive(mut self) -> Self {
        self.archive = true;
        self
    }

    /// Makes the domain. It does not run before [`Child::start`].
    ///
    /// # Errors
    /// [`SpawnError`]; everything is given back then.
    pub fn build(self) -> Result<Child, SpawnError> {
        let policy = Policy::user(MAX_IMAGE).at(layout::IMAGE_BASE..layout::IMAGE_TOP);
        let image = Image::parse(self.elf, policy)?;
        self.check_grants()?;
        let archive = if self.archive { Some(archive_range().ok_or(SpawnError::NoArchive)?) } else { None };
        let cnodes = 1 + self.gift_cnodes().len() as u64;
        let bytes = self.bytes(&image, cnodes, archive.as_ref());
        let cnode = object_size(ObjType::L2CNode, 0);
        let ram = memory::allocate_in(ObjType::Ram, bytes, cnode, &memory::ANYWHERE)?;
        let mut parts = Parts { ram, used: 0, slots: Vec::new(), objects: 0 };
        match self.assemble(&mut parts, &image, archive) {
            Ok((dispatcher, cspace, frame)) => Ok(Child {
                ram,
                slots: parts.slots,
                dispatcher,
                cspace,
                frame,
                footprint: Footprint { bytes: ram.size, objects: parts.objects },
            }),
            Err(error) => {
                // What could not be undone keeps its memory; the first error is the one to tell.
                let _ = take_down(ram, parts.slots);
                Err(error)
            }
        }
    }

    fn check_grants(&self) -> Result<(), SpawnError> {
        let allowed = |slot: CPtr| match slot.l1() {
            domain_l1::TASK => (task::STACK_TABLE.l2() + 1..memory::FIRST_OWN_TASK_SLOT).contains(&slot.l2()),
            l1 => (domain_l1::GIFTS..domain_l1::FIRST_FREE).contains(&l1),
        };
        match self.grants.iter().find(|g| !allowed(g.slot)) {
            Some(bad) => Err(SpawnError::BadGrant(bad.slot)),
            None => Ok(()),
        }
    }

    /// L1 slots that need a CNode for gifts.
    fn gift_cnodes(&self) -> Vec<u32> {
        let mut l1: Vec<u32> = self.grants.iter().map(|g| g.slot.l1()).filter(|&l1| l1 > 0).collect();
        l1.sort_unstable();
        l1.dedup();
        l1
    }

    /// RAM that the domain takes, rounded up.
    fn bytes(&self, image: &Image<'_>, cnodes: u64, archive: Option<&core::ops::Range<u64>>) -> u64 {
        let span = image.span();
        let tables_for = |bytes: u64| bytes / LARGE_PAGE + 2;
        // Root, level 3, two of level 2, those of level 1, and one each for what a range may straddle.
        let tables =
            5 + tables_for(span.end - span.start) + archive.map_or(0, |a| tables_for(a.end - a.start));
        let fixed = cnodes * object_size(ObjType::L2CNode, 0) + L1_SIZE + USUAL_FRAME_SIZE + 2 * PAGE_SIZE;
        fixed + tables * PAGE_SIZE + image.memory() + FIRST_STACK + self.memory
    }

    fn assemble(
        &self,
        parts: &mut Parts,
        image: &Image<'_>,
        archive: Option<core::ops::Range<u64>>,
    ) -> Result<(CPtr, CPtr, CPtr), SpawnError> {
        // The largest alignment first: the RAM is aligned to a CNode.
        let cspace = parts.reserve_l1()?;
        parts.cnode(cspace, domain_l1::TASK)?;
        for l1 in self.gift_cnodes() {
            parts.cnode(cspace, l1)?;
        }
        let root = parts.make(ObjType::Pml4, 0)?;
        let mut space = Tables::<MAX_TABLES>::new(root);
        self.map_image(parts, &mut space, image)?;

        let stack = parts.make(ObjType::Frame, FIRST_STACK)?;
        let writable = MapFlags::READ | MapFlags::WRITE;
        parts.map(&mut space, layout::STACK_TOP - FIRST_STACK, stack, 0, FIRST_STACK, writable)?;
        let stack_table = space.ensure(parts, layout::STACK_BASE, 1)?;

        let frame = parts.make(ObjType::Frame, USUAL_FRAME_SIZE)?;
        parts.map(&mut space, layout::DISPATCHER_FRAME, frame, 0, USUAL_FRAME_SIZE, writable)?;
        self.fill_frame(frame, image.entry())?;

        let info = parts.make(ObjType::Frame, PAGE_SIZE)?;
        parts.map(&mut space, layout::START_INFO, info, 0, PAGE_SIZE, MapFlags::READ)?;
        self.fill_info(info, image)?;

        let copy = |slot: CPtr, source: CPtr, operation| {
            syscall::cap_copy(cspace, slot, source).map_err(refused(operation))
        };
        if let Some(stream) = &self.stream {
            parts.map(&mut space, layout::STDOUT, stream.frame, 0, share::STREAM_SIZE, writable)?;
            copy(task::STDOUT, stream.frame, "passing the console stream on")?;
            copy(task::STDOUT_DOORBELL, stream.ring, "passing the console doorbell on")?;
        }
        if let Some(archive) = archive {
            let len = archive.end - archive.start;
            parts.map(&mut space, layout::ARCHIVE, task::ARCHIVE, 0, len, MapFlags::READ)?;
            copy(task::ARCHIVE, task::ARCHIVE, "passing the archive on")?;
        }
        let dispatcher = parts.make(ObjType::Dispatcher, 0)?;
        copy(task::ROOT, cspace, "passing the capability space on")?;
        copy(task::DISPATCHER, dispatcher, "passing the dispatcher on")?;
        copy(task::DISPATCHER_FRAME, frame, "passing the dispatcher frame on")?;
        copy(task::VSPACE, root, "passing the page table on")?;
        copy(task::STACK_TABLE, stack_table, "passing the stack's page table on")?;
        syscall::cap_mint(cspace, task::START_INFO, info, Rights::READ, 0)
            .map_err(refused("passing the start information on"))?;
        for g in &self.grants {
            syscall::cap_mint(cspace, g.slot, g.source, g.rights, g.badge)
                .map_err(refused("passing a capability on"))?;
        }
        parts.rest_to(cspace, task::RAM)?;

        syscall::dispatcher_configure(dispatcher, cspace, root, frame, self.name)
            .map_err(refused("configuring the dispatcher"))?;
        syscall::dispatcher_set_end_notice(dispatcher, end_notice()?)
            .map_err(refused("asking for the end notice"))?;
        for object in &self.given {
            syscall::cap_delete(task::ROOT, object.cap).map_err(refused("giving a capability away"))?;
            memory::forget(*object);
        }
        Ok((dispatcher, cspace, frame))
    }

    fn map_image(
        &self,
        parts: &mut Parts,
        space: &mut Tables<MAX_TABLES>,
        image: &Image<'_>,
    ) -> Result<(), SpawnError> {
        let copied = |segment: &&Segment<'_>| archive_offset(segment).is_none();
        let size = |segment: &Segment<'_>| segment.page_range().end - segment.page_range().start;
        let memory: u64 = image.segments().filter(copied).map(size).sum();
        let flags = |segment: &Segment<'_>| match segment.access {
            Access::Read => MapFlags::READ,
            Access::ReadExecute => MapFlags::READ | MapFlags::EXECUTE,
            Access::ReadWrite => MapFlags::READ | MapFlags::WRITE,
        };
        for segment in image.segments() {
            if let Some(offset) = archive_offset(segment) {
                let start = segment.page_range().start;
                parts.map(space, start, task::ARCHIVE, offset, size(segment), flags(segment))?;
            }
        }
        if memory == 0 {
            return Ok(());
        }
        let frame = parts.make(ObjType::Frame, memory)?;
        let here = memory::map(frame, 0, memory, MapFlags::READ | MapFlags::WRITE)?;
        let mut offset = 0;
        let mut result = Ok(());
        for segment in image.segments().filter(copied) {
            let pages = segment.page_range();
            // The frame starts out zeroed: only the contents are copied.
            let start = offset + (segment.vaddr - pages.start);
            // SAFETY: the frame is mapped writable at `here` and is nobody else's yet; the contents end within
            // the segment's pages, and these within the frame, whose size is the sum of all such pages.
            unsafe {
                here.as_ptr::<u8>()
                    .add(start as usize)
                    .copy_from_nonoverlapping(segment.contents.as_ptr(), segment.contents.len());
            }
            result = parts.map(space, pages.start, frame, offset, size(segment), flags(segment));
            if result.is_err() {
                break;
            }
            offset += size(segment);
        }
        // SAFETY: no reference into the mapping is left.
        unsafe { memory::unmap(here) };
        result
    }

    fn fill_frame(&self, frame: CPtr, entry: u64) -> Result<(), SpawnError> {
        let here = memory::map(frame, 0, FRAME_SIZE, MapFlags::READ | MapFlags::WRITE)?;
        let at: *mut DispatcherFrame = here.as_ptr();
        // SAFETY: the frame is mapped writable, page-aligned, zeroed and nobody else's yet; all bytes zero are
        // a valid dispatcher frame.
        unsafe {
            (&raw mut (*at).control).write(Control {
                disabled: 1,
                self_va: layout::DISPATCHER_FRAME,
                receive_deadline: u64::MAX,
                send_deadline: u64::MAX,
                ..Control::default()
            });
            let area = &mut (*at).disabled_area;
            area.rip = entry;
            area.rflags = START_FLAGS;
            area.fp_control = START_FP_CONTROL;
            area.gpr[reg::RSP] = layout::STACK_TOP - 8;
            area.gpr[reg::RDI] = layout::DISPATCHER_FRAME;
            area.gpr[reg::RSI] = layout::START_INFO;
        }
        // SAFETY: no reference into the mapping is left.
        unsafe { memory::unmap(here) };
        Ok(())
    }

    fn fill_info(&self, frame: CPtr, image: &Image<'_>) -> Result<(), SpawnError> {
        let here = memory::map(frame, 0, PAGE_SIZE, MapFlags::READ | MapFlags::WRITE)?;
        let at: *mut StartInfo = here.as_ptr();
        let span = image.span();
        // SAFETY: the page is mapped writable and nobody else's yet.
        let info = unsafe {
            at.write(StartInfo::new());
            &mut *at
        };
        if let Some(own) = start::info() {
            (info.core, info.apic_id, info.node) = (own.core, own.apic_id, own.node);
            info.first_core = own.first_core;
            info.timer_ticks_per_ms = own.timer_ticks_per_ms;
            info.tsc_ticks_per_ms = own.tsc_ticks_per_ms;
            if self.archive {
                (info.archive_base, info.archive_len) = (own.archive_base, own.archive_len);
            }
        }
        (info.image_base, info.image_len) = (span.start, span.end - span.start);
        if let Some(stream) = &self.stream {
            (info.stream, info.console_doorbell) = (stream.number, stream.doorbell);
        }
        info.words = self.words;
        info.set_name(self.name);
        info.set_args(&self.args);
        // SAFETY: no reference into the mapping is left.
        unsafe { memory::unmap(here) };
        Ok(())
    }
}

/// The pages that hold the archive in this domain, as bytes from the page that `layout::ARCHIVE` is.
fn archive_range() -> Option<core::ops::Range<u64>> {
    let info = start::info().filter(|i| i.archive_len > 0)?;
    let end = info.archive_base % PAGE_SIZE + info.archive_len;
    Some(0..end.next_multiple_of(PAGE_SIZE))
}

/// Where in the archive's frame the pages of a segment lie that can be mapped from there as they are: it is
/// read-only, all in the file, and placed there as in memory. All domains of a module then share these pages,
/// and nothing is copied.
fn archive_offset(segment: &Segment<'_>) -> Option<u64> {
    let archive = archive_range()?;
    let at = (segment.contents.as_ptr().addr() as u64).checked_sub(layout::ARCHIVE)?;
    let pages = segment.page_range();
    let start = at.checked_sub(segment.vaddr - pages.start)?;
    let whole = !segment.access.is_writable() && segment.memory_size == segment.contents.len() as u64;
    let fits = start.is_multiple_of(PAGE_SIZE) && start + (pages.end - pages.start) <= archive.end;
    (whole && fits).then_some(start)
}

/// The notification that all ends of children signal.
fn end_notice() -> Result<CPtr, SpawnError> {
    static NOTICE: Local<Option<CPtr>> = Local::new(None);
    if let Some(notice) = NOTICE.get() {
        return Ok(notice);
    }
    let object = memory::allocate(ObjType::Notification, 0)?;
    events::bind(object.cap, Event::CHILD).map_err(refused("binding the end notice"))?;
    NOTICE.set(Some(object.cap));
    Ok(object.cap)
}

/// A child's RAM, while it is being divided.
struct Parts {
    ram: Object,
    used: u64,
    /// Slots of the parent that hold capabilities of the child's objects.
    slots: Vec<CPtr>,
    objects: u64,
}

impl Parts {
    /// The offset of the next object of `ty`, which counts as used from now on.
    fn take(&mut self, ty: ObjType, size: u64) -> Result<u64, MemoryError> {
        let align = memory::object_align(ty);
        let offset = self.used.next_multiple_of(align);
        if offset + size > self.ram.size {
            return Err(MemoryError::OutOfRam { bytes: size, align });
        }
        self.used = offset + size;
        self.objects += 1;
        Ok(offset)
    }

    fn make(&mut self, ty: ObjType, size: u64) -> Result<CPtr, MemoryError> {
        let size = object_size(ty, size);
        let offset = self.take(ty, size)?;
        self.retype(ty, offset, size)
    }

    fn retype(&mut self, ty: ObjType, offset: u64, size: u64) -> Result<CPtr, MemoryError> {
        let slot = memory::slot()?;
        match syscall::cap_retype(task::ROOT, slot, self.ram.cap, ty, offset, size, 1) {
            Ok(()) => {
                self.slots.push(slot);
                Ok(slot)
            }
            Err(cause) => {
                memory::free_slot(slot);
                Err(MemoryError::Refused { operation: "making a part of the domain", cause })
            }
        }
    }

    /// The L1 CNode, at the end of the RAM so that what needs alignment can start at its beginning.
    fn reserve_l1(&mut self) -> Result<CPtr, MemoryError> {
        self.ram.size -= L1_SIZE;
        self.objects += 1;
        self.retype(ObjType::L1CNode, self.ram.size, L1_SIZE)
    }

    /// A CNode in slot `l1` of the child's capability space, held by that alone.
    fn cnode(&mut self, cspace: CPtr, l1: u32) -> Result<(), MemoryError> {
        let size = object_size(ObjType::L2CNode, 0);
        let offset = self.take(ObjType::L2CNode, size)?;
        syscall::cap_retype(cspace, SlotRef::L1(l1), self.ram.cap, ObjType::L2CNode, offset, size, 1)
            .map_err(|cause| MemoryError::Refused { operation: "making a CNode", cause })
    }

    /// What is left becomes the child's own RAM.
    fn rest_to(&mut self, cspace: CPtr, slot: CPtr) -> Result<(), MemoryError> {
        let offset = self.used.next_multiple_of(PAGE_SIZE);
        let size = (self.ram.size - offset.min(self.ram.size)) / PAGE_SIZE * PAGE_SIZE;
        if size == 0 {
            return Ok(());
        }
        self.objects += 1;
        syscall::cap_retype(cspace, slot, self.ram.cap, ObjType::Ram, offset, size, 1)
            .map_err(|cause| MemoryError::Refused { operation: "making the domain's RAM", cause })
    }

    fn map(
        &mut self,
        space: &mut Tables<MAX_TABLES>,
        address: u64,
        frame: CPtr,
        offset: u64,
        len: u64,
        flags: MapFlags,
    ) -> Result<(), SpawnError> {
        // A child's address space is small and its tables are counted in advance: base pages only.
        for run in base_page_runs(address, len) {
            space.map_run(self, run, frame, offset + run.offset, flags)?;
        }
        Ok(())
    }
}

impl Source for Parts {
    fn table(&mut self, ty: ObjType) -> Result<CPtr, MemoryError> {
        self.make(ty, 0)
    }

    fn slot(&mut self) -> Result<CPtr, MemoryError> {
        let slot = memory::slot()?;
        self.slots.push(slot);
        Ok(slot)
    }

    fn free_slot(&mut self, slot: CPtr) {
        self.slots.retain(|&s| s != slot);
        memory::free_slot(slot);
    }
}

/// What a domain takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footprint {
    /// Bytes of RAM, its own RAM included.
    pub bytes: u64,
    /// Kernel objects and frames its parent made for it.
    pub objects: u64,
}

/// A domain that this domain made.
#[derive(Debug)]
#[must_use = "a child that is not destroyed keeps its memory"]
pub struct Child {
    ram: Object,
    slots: Vec<CPtr>,
    dispatcher: CPtr,
    cspace: CPtr,
    frame: CPtr,
    footprint: Footprint,
}

/// How a domain ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// Why.
    pub cause: EndCause,
    /// Exit code, or the address of the fault.
    pub detail: u64,
    /// Instruction pointer at the fault.
    pub rip: u64,
}

impl End {
    /// Whether it ended by itself, with exit code 0.
    pub fn is_success(&self) -> bool {
        self.cause == EndCause::Exit && self.detail == 0
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            EndCause::Exit => write!(f, "exit code {}", self.detail),
            EndCause::PageFault => {
                write!(f, "page fault at address {:#x}, instruction {:#x}", self.detail, self.rip)
            }
            EndCause::Exception => {
                let name = upcall::exception_name(self.detail);
                write!(f, "{name} (exception {}), instruction {:#x}", self.detail, self.rip)
            }
            other => write!(f, "{}, instruction {:#x}", other.text(), self.rip),
        }
    }
}

impl Child {
    /// Lets it run.
    ///
    /// # Errors
    /// The CPU driver's.
    pub fn start(&self) -> Result<(), SpawnError> {
        syscall::dispatcher_resume(self.dispatcher).map_err(refused("starting the domain"))
    }

    /// Its dispatcher.
    pub fn dispatcher(&self) -> CPtr {
        self.dispatcher
    }

    /// The root of its capability space.
    pub fn cspace(&self) -> CPtr {
        self.cspace
    }

    /// The frame that is its dispatcher frame.
    pub fn frame(&self) -> CPtr {
        self.frame
    }

    /// The physical addresses of the RAM that it consists of.
    pub fn memory(&self) -> core::ops::Range<u64> {
        self.ram.physical..self.ram.physical + self.ram.size
    }

    /// What it takes.
    pub fn footprint(&self) -> Footprint {
        self.footprint
    }

    /// Where it stands.
    ///
    /// # Errors
    /// The CPU driver's.
    pub fn status(&self) -> Result<DispatcherStatus, SpawnError> {
        syscall::dispatcher_status(self.dispatcher).map_err(refused("looking at the domain"))
    }

    /// How it ended; `None` if it has not.
    pub fn end(&self) -> Option<End> {
        let status = self.status().ok()?;
        (status.state == DispatcherState::Ended).then_some(End {
            cause: status.cause,
            detail: status.detail,
            rip: status.rip,
        })
    }

    /// Waits for its end; `None` if the deadline passed first.
    pub fn wait(&self, deadline: Deadline) -> Option<End> {
        loop {
            if let Some(end) = self.end() {
                return Some(end);
            }
            if events::wait(Event::CHILD.bit(), deadline) == 0 {
                return self.end();
            }
        }
    }

    /// Ends it, if it has not ended by itself; how it ended. Its dispatcher is gone then, and with it whatever the
    /// domain waited for or was bound to; all else stays until [`Self::destroy`].
    ///
    /// # Errors
    /// The CPU driver's; it then goes on.
    pub fn kill(&self) -> Result<End, SpawnError> {
        if let Some(end) = self.end() {
            return Ok(end);
        }
        syscall::cap_revoke(task::ROOT, self.dispatcher).map_err(refused("ending the domain"))?;
        syscall::cap_delete(task::ROOT, self.dispatcher).map_err(refused("ending the domain"))?;
        Ok(End { cause: EndCause::Deleted, detail: 0, rip: 0 })
    }

    /// Takes it down, whether it has ended or not, and takes all its memory back: that which has copies on other
    /// cores with the help of the monitor.
    ///
    /// # Errors
    /// The CPU driver's; the memory then stays with what is left of the domain.
    pub fn destroy(self) -> Result<(), SpawnError> {
        take_down(self.ram, self.slots)
    }
}

/// Whether this domain may wait for its monitor, which `init` never does.
fn has_monitor() -> bool {
    let is_init = start::info().is_some_and(|info| info.ram_caps > 0);
    !is_init && syscall::cap_identify(task::ROOT, task::MONITOR).is_ok_and(|i| i.ty == ObjType::Endpoint)
}

fn take_down(ram: Object, slots: Vec<CPtr>) -> Result<(), SpawnError> {
    let mut revoked = syscall::cap_revoke(task::ROOT, ram.cap);
    if revoked == Err(SysError::RetryThroughMonitor)
        && has_monitor()
        && monitor::revoke_remote(ram.cap).is_ok()
    {
        revoked = syscall::cap_revoke(task::ROOT, ram.cap);
    }
    revoked.map_err(refused("revoking the domain's RAM"))?;
    for slot in slots {
        // Most went with the RAM; what maps memory of others, such as the console stream, may be left.
        match syscall::cap_delete(task::ROOT, slot) {
            Ok(()) | Err(SysError::EmptySlot) => memory::free_slot(slot),
            Err(cause) => {
                return Err(SpawnError::Refused { operation: "deleting a part of the domain", cause });
            }
        }
    }
    memory::free(ram)?;
    Ok(())
}
