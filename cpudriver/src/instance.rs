//! Instances of the CPU driver: one block of memory per core, all built by the same code.
//!
//! A block is 2 MiB, 2 MiB-aligned, and mapped at [`KERNEL_BASE`] on its core. Nobody else maps it, but for its
//! read-only part, which other instances on the node may use:
//!
//! | offset | contents |
//! |---|---|
//! | 0 | image: text and read-only data (or another instance's on the same node), data, zeroed data, stacks |
//! | end of image | page tables of the CPU driver: image, link area, window |
//! | [`BOOT_INFO_OFFSET`] | the boot information (first core only) |
//! | [`HANDOVER_OFFSET`] | the [`Handover`]: what the starter tells the new core |
//!
//! The image is copied pristine from the boot archive's `cpudriver` module, so that a `static` starts out as
//! written in the source on every core. Until the core starts, the starter reaches the block through its own
//! window; from then on it is the core's alone. The core's window shows the memory that it was given.

use crate::arch::link_area;
use crate::arch::paging::{self, Entry, index};
use boot_elf::{Access, Image, Policy};
use boot_info::{PhysAddr, PhysRange};
use lmp::layout::{KERNEL_BASE, LINK_AREA, PHYS_WINDOW, PHYS_WINDOW_SIZE};
use lmp::objects::HANDOVER_GRANULARITY;
use lmp::{SysError, SysResult};

/// Bytes of a block.
pub(crate) const BLOCK: u64 = HANDOVER_GRANULARITY;
/// Where the boot information lies in the first core's block.
pub(crate) const BOOT_INFO_OFFSET: u64 = BLOCK - 0x8000;
/// Where the handover page lies in a block.
pub(crate) const HANDOVER_OFFSET: u64 = BLOCK - 0x1000;
/// Name of the CPU driver's module in the boot archive.
pub(crate) const MODULE: &str = "cpudriver";
/// Bytes copied in one step.
const STEP: u64 = 64 << 10;
/// Large pages mapped or unmapped in one step.
const STEP_PAGES: u64 = 32;

const _: () = assert!(size_of::<boot_info::BootInfo>() as u64 <= HANDOVER_OFFSET - BOOT_INFO_OFFSET);
const _: () = assert!(size_of::<Handover>() <= 4096);

/// How far an instance has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum State {
    /// Zeroed memory.
    Empty = 0,
    /// The image is being copied.
    Loading = 1,
    /// Image and page tables are there; it may be given memory.
    Loaded = 2,
    /// Handed to its core.
    Started = 3,
}

/// Memory that a core is started with.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Given {
    pub range: PhysRange,
    /// Whether other cores keep capabilities for it (a frame), or not (RAM).
    pub shared: bool,
}

/// Pieces of memory a core can be started with.
pub(crate) const MAX_GIVEN: usize = 96;

/// What the starter tells the new core. All zero in an empty instance.
#[repr(C)]
pub(crate) struct Handover {
    pub state: State,
    /// Dense index of the core.
    pub core: u32,
    pub apic_id: u32,
    pub node: u32,
    /// 1 on the first core.
    pub first: u32,
    /// 1 if a panic is to end the machine through the debug exit device.
    pub debug_exit: u32,
    /// Messages up to this level are logged ([`log::LevelFilter`] as a number).
    pub log_level: u64,
    /// Physical address of the block.
    pub block: u64,
    /// Bytes of the image.
    pub image_len: u64,
    /// Physical address of the block whose read-only part this instance uses.
    pub text: u64,
    /// Pages of the image copied so far.
    pub cursor: u64,
    /// The memory being given, while that is under way; else empty.
    pub giving: PhysRange,
    /// Bytes of it that are done.
    pub give_cursor: u64,
    /// Physical address of the root page table.
    pub root: u64,
    /// Physical address of the page tables of the link area, one behind the other.
    pub link_tables: u64,
    /// Offset in the block of the next page free for a page table.
    pub next_table: u64,
    pub archive: PhysRange,
    /// Rung after each log record; 0 = nothing.
    pub log_doorbell: u64,
    /// Rung when the core is up; 0 = nothing.
    pub up_doorbell: u64,
    /// Local APIC timer ticks per millisecond.
    pub timer_per_ms: u64,
    /// TSC ticks per millisecond.
    pub tsc_per_ms: u64,
    /// Physical address of the trampoline block, for the first core; 0 = none.
    pub trampoline: u64,
    pub given_count: u64,
    pub given: [Given; MAX_GIVEN],
}

/// Access to a block that is being built.
pub(crate) struct Builder {
    /// Physical address of the block.
    block: u64,
    /// Where the block is mapped here.
    mapped: *mut u8,
}

impl Builder {
    /// Build in the block at physical address `block`, which is mapped at `mapped`.
    ///
    /// # Safety
    /// The mapping must be writable, cover the block, and be used by nobody else while the builder lives.
    /// The block must be zero, or have been left by an earlier builder.
    pub(crate) unsafe fn new(block: u64, mapped: *mut u8) -> Builder {
        Builder { block, mapped }
    }

    /// The handover page.
    pub(crate) fn handover(&mut self) -> &mut Handover {
        // SAFETY: the page lies in the block, aligned; all zero is a valid `Handover`, and only `Handover`s
        // were written there.
        unsafe { &mut *self.mapped.add(HANDOVER_OFFSET as usize).cast() }
    }

    /// Bytes of the block.
    pub(crate) fn bytes(&mut self, offset: u64, len: u64) -> &mut [u8] {
        assert!(offset.checked_add(len).is_some_and(|end| end <= BLOCK));
        // SAFETY: within the block, as just checked.
        unsafe { core::slice::from_raw_parts_mut(self.mapped.add(offset as usize), len as usize) }
    }

    fn table(&mut self, pa: u64) -> &mut [u64; 512] {
        let offset = pa - self.block;
        assert!(offset.is_multiple_of(4096) && offset < BLOCK);
        // SAFETY: a page within the block, aligned.
        unsafe { &mut *self.mapped.add(offset as usize).cast() }
    }

    /// A zeroed page of the block for a page table.
    fn new_table(&mut self) -> Result<u64, SysError> {
        let block = self.block;
        let h = self.handover();
        if h.next_table + 4096 > BOOT_INFO_OFFSET {
            return Err(SysError::Exhausted);
        }
        let pa = block + h.next_table;
        h.next_table += 4096;
        Ok(pa)
    }

    /// Copy the next part of the image; answers whether it is complete. `text` is the block whose read-only
    /// part is to be used, if not a copy of its own.
    pub(crate) fn load_step(&mut self, module: &[u8], text: Option<u64>) -> Result<bool, SysError> {
        let image = parse(module)?;
        let (block, base) = (self.block, KERNEL_BASE);
        let h = self.handover();
        if h.state == State::Empty {
            h.state = State::Loading;
            h.block = block;
            h.text = text.unwrap_or(block);
            h.image_len = image.span().end - base;
        }
        let shared = h.text != block;
        let (first, total) = (h.cursor, h.image_len / 4096);
        let last = (first + STEP / 4096).min(total);
        for segment in image.segments() {
            if shared && !segment.access.is_writable() {
                continue;
            }
            let file_end = segment.vaddr + segment.contents.len() as u64;
            for page in segment.pages() {
                let n = (page - base) / 4096;
                if n >= first && n < last && page < file_end {
                    segment.read(page, self.bytes(page - base, 4096));
                }
            }
        }
        self.handover().cursor = last;
        if last < total {
            return Ok(false);
        }
        self.map_image(&image)?;
        self.handover().state = State::Loaded;
        Ok(true)
    }

    /// Build the root and the tables of the block itself.
    fn map_image(&mut self, image: &Image<'_>) -> Result<(), SysError> {
        let (block, text) = (self.block, self.handover().text);
        self.handover().next_table = self.handover().image_len;
        let [root, pdpt, pd, pt] =
            [self.new_table()?, self.new_table()?, self.new_table()?, self.new_table()?];
        let mut links = [0; link_area::TABLES];
        for table in &mut links {
            *table = self.new_table()?;
        }
        self.handover().root = root;
        self.handover().link_tables = links[0];
        let down = |pa| paging::entry(pa, paging::KERNEL_TABLE);
        self.table(root)[index(KERNEL_BASE, 4)] = down(pdpt);
        self.table(pdpt)[index(KERNEL_BASE, 3)] = down(pd);
        self.table(pd)[index(KERNEL_BASE, 2)] = down(pt);
        for (i, table) in links.into_iter().enumerate() {
            self.table(pd)[index(LINK_AREA, 2) + i] = down(table);
        }
        for segment in image.segments() {
            let access = match segment.access {
                Access::Read => paging::KERNEL_READ,
                Access::ReadExecute => paging::KERNEL_TEXT,
                Access::ReadWrite => paging::KERNEL_WRITE,
            };
            let from = if segment.access.is_writable() { block } else { text };
            for page in segment.pages() {
                if !GUARDS.get().contains(&page) {
                    self.table(pt)[index(page, 1)] = paging::entry(from + (page - KERNEL_BASE), access);
                }
            }
        }
        let image_len = self.handover().image_len;
        for offset in (image_len..BLOCK).step_by(4096) {
            let entry = paging::entry(block + offset, paging::KERNEL_WRITE);
            self.table(pt)[index(KERNEL_BASE + offset, 1)] = entry;
        }
        Ok(())
    }

    /// The entry of the root that maps the block.
    pub(crate) fn root_entry(&mut self) -> u64 {
        let root = self.handover().root;
        self.table(root)[index(KERNEL_BASE, 4)]
    }

    /// The table of the next level down in `table[i]`, made if there is none.
    fn descend(&mut self, table: u64, i: usize) -> Result<u64, SysError> {
        match self.table(table)[i] {
            0 => {
                let pa = self.new_table()?;
                self.table(table)[i] = paging::entry(pa, paging::KERNEL_TABLE);
                Ok(pa)
            }
            entry => Ok(entry & paging::ADDRESS),
        }
    }

    /// Show one large page of physical memory in the window.
    fn map_large(&mut self, pa: u64, access: Entry) -> Result<(), SysError> {
        let root = self.handover().root;
        let va = PHYS_WINDOW + pa;
        let pdpt = self.descend(root, index(va, 4))?;
        let pd = self.descend(pdpt, index(va, 3))?;
        self.table(pd)[index(va, 2)] = paging::entry(pa, access | Entry::LARGE);
        Ok(())
    }

    /// Show one small page of physical memory in the window.
    pub(crate) fn map_small(&mut self, pa: u64, access: Entry) -> Result<(), SysError> {
        let root = self.handover().root;
        let va = PHYS_WINDOW + pa;
        let pdpt = self.descend(root, index(va, 4))?;
        let pd = self.descend(pdpt, index(va, 3))?;
        let pt = self.descend(pd, index(va, 2))?;
        self.table(pt)[index(va, 1)] = paging::entry(pa, access);
        Ok(())
    }

    /// Show memory in the window, by large pages, `range` rounded outwards to them.
    pub(crate) fn map_window(&mut self, range: PhysRange, access: Entry) -> Result<(), SysError> {
        let range = range.outward(boot_info::PageSize::Size2M);
        if range.end().as_u64() > PHYS_WINDOW_SIZE {
            return Err(SysError::OutOfRange);
        }
        for pa in (range.base().as_u64()..range.end().as_u64()).step_by(BLOCK as usize) {
            self.map_large(pa, access)?;
        }
        Ok(())
    }

    /// Whether `range` can be given: no other memory is on its way, and there is room to record it and for
    /// the page tables that the window may need for it.
    pub(crate) fn can_give(&mut self, range: PhysRange) -> SysResult {
        let h = self.handover();
        if !h.giving.is_empty() {
            return Err(SysError::WrongState);
        }
        // Page directories and their tables for every GiB and 512 GiB that the range touches.
        let tables = (range.length() >> 30) + 2 + (range.length() >> 39) + 2;
        let room = (BOOT_INFO_OFFSET - h.next_table) / 4096;
        let within = range.end().as_u64() <= PHYS_WINDOW_SIZE;
        let free = (h.given_count as usize) < MAX_GIVEN && tables <= room;
        if within && free { Ok(()) } else { Err(SysError::Exhausted) }
    }

    /// Give the core memory, which [`Builder::can_give`] allowed. `release` takes one large page out of the giver's own window. Answers whether
    /// all of it is done.
    pub(crate) fn give_step(&mut self, given: Given, mut release: impl FnMut(u64)) -> Result<bool, SysError> {
        let h = self.handover();
        h.giving = given.range;
        let (base, len) = (given.range.base().as_u64(), given.range.length());
        let done = h.give_cursor;
        let upto = (done + STEP_PAGES * BLOCK).min(len);
        self.map_window(PhysRange::new(PhysAddr::new(base + done), upto - done), paging::KERNEL_WRITE)?;
        for pa in (base + done..base + upto).step_by(BLOCK as usize) {
            release(pa);
        }
        let h = self.handover();
        h.give_cursor = upto;
        if upto < len {
            return Ok(false);
        }
        h.give_cursor = 0;
        h.giving = PhysRange::default();
        h.given[h.given_count as usize] = given;
        h.given_count += 1;
        Ok(true)
    }
}

/// Check that a module is a CPU driver like the running one.
fn parse(module: &[u8]) -> Result<Image<'_>, SysError> {
    let image = Image::parse(module, Policy::kernel(BLOCK)).map_err(|_| SysError::BadImage)?;
    // The guard pages and the entry below are the running image's: it must be the same build.
    let same = image.span() == (KERNEL_BASE..end_of_image()) && image.entry() == boot_entry::limine::entry();
    if same { Ok(image) } else { Err(SysError::BadImage) }
}

unsafe extern "C" {
    static __image_end: u8;
    static __stack_guard: u8;
    static __ist1_guard: u8;
    static __ist2_guard: u8;
    static __ist3_guard: u8;
    static __ist4_guard: u8;
}

fn end_of_image() -> u64 {
    (&raw const __image_end) as u64
}

struct Guards;

static GUARDS: Guards = Guards;

impl Guards {
    /// The guard pages below the stacks.
    fn get(&self) -> [u64; 5] {
        [
            (&raw const __stack_guard) as u64,
            (&raw const __ist1_guard) as u64,
            (&raw const __ist2_guard) as u64,
            (&raw const __ist3_guard) as u64,
            (&raw const __ist4_guard) as u64,
        ]
    }
}

/// Name the stack whose guard page contains `va`.
pub(crate) fn guard_page(va: u64) -> Option<&'static str> {
    const NAMES: [&str; 5] = ["kernel", "NMI", "double fault", "machine check", "debug"];
    GUARDS.get().iter().position(|g| va & !4095 == *g).map(|i| NAMES[i])
}

/// The running instance's own block, as a builder.
///
/// # Safety
/// No other builder for it may exist.
pub(crate) unsafe fn own(block: u64) -> Builder {
    // SAFETY: an instance's block is mapped at KERNEL_BASE; only its tables and handover page are reached.
    unsafe { Builder::new(block, KERNEL_BASE as *mut u8) }
}

impl Builder {
    /// Take one large page of physical memory out of the running core's window.
    pub(crate) fn unmap_window(&mut self, pa: u64) {
        let root = self.handover().root;
        let va = PHYS_WINDOW + pa;
        let pdpt = self.table(root)[index(va, 4)] & paging::ADDRESS;
        let pd = self.table(pdpt)[index(va, 3)] & paging::ADDRESS;
        self.table(pd)[index(va, 2)] = 0;
        paging::flush_page(va);
    }
}

/// Enter the instance whose root page table is `root`. Both the running image and the instance must map the
/// same text at the linked address.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn enter(root: u64) -> ! {
    core::arch::naked_asm!(
        "mov cr3, rdi",
        "lea rsp, [rip + __stack_top]",
        "xor ebp, ebp",
        "call {start}",
        "ud2",
        start = sym crate::start::start,
    )
}
