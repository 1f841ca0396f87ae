//! What the boot-loaded copy of the image does: turn the boot protocol's answers into a [`BootInfo`], build
//! the first core's instance, and enter it.

use crate::arch::{apic, cpu, entry, paging};
use crate::instance::{self, BLOCK, BOOT_INFO_OFFSET, Builder, Given, State};
use boot_archive::Archive;
use boot_info::{BootInfo, PageSize, PhysAddr, PhysMemory, PhysRange, Setting, Unreadable};
use core::cell::UnsafeCell;

struct InfoCell(UnsafeCell<BootInfo>);

// SAFETY: only the first core runs the loader, once.
unsafe impl Sync for InfoCell {}

static INFO: InfoCell = InfoCell(UnsafeCell::new(BootInfo::EMPTY));

#[used]
#[unsafe(link_section = ".limine_requests")]
static REQUESTS: boot_info::limine::Requests = boot_info::limine::Requests::new();

/// Physical memory as the boot page tables show it.
struct BootMemory {
    offset: u64,
    limit: u64,
}

impl PhysMemory for BootMemory {
    fn read(&self, address: PhysAddr, into: &mut [u8]) -> Result<(), Unreadable> {
        let end = address.as_u64().checked_add(into.len() as u64).ok_or(Unreadable)?;
        if end > self.limit {
            return Err(Unreadable);
        }
        // SAFETY: the boot page tables map physical memory up to `limit` at `offset`; the buffer is ours and
        // does not overlap what firmware left there.
        unsafe {
            let from = (self.offset + address.as_u64()) as *const u8;
            core::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len());
        }
        Ok(())
    }
}

/// Called by `pvh_entry`.
#[unsafe(no_mangle)]
extern "C" fn boot_pvh(start_info: u64) -> ! {
    let memory = BootMemory { offset: boot_entry::pvh::WINDOW, limit: boot_entry::pvh::WINDOW_SIZE };
    let kernel = PhysRange::new(PhysAddr::new(boot_entry::pvh::LOAD_ADDRESS), image_len());
    // SAFETY: the first and only reference.
    let info = unsafe { &mut *INFO.0.get() };
    if let Err(e) = info.fill_from_pvh(PhysAddr::new(start_info), kernel, &memory) {
        panic!("cannot boot: {e}");
    }
    load(info, &memory)
}

/// Called by `limine_entry`.
#[unsafe(no_mangle)]
extern "C" fn boot_limine() -> ! {
    // SAFETY: the first and only reference.
    let info = unsafe { &mut *INFO.0.get() };
    let facts = REQUESTS.facts();
    if let Err(e) = facts.and_then(|facts| info.fill_from_limine(facts, image_len())) {
        panic!("cannot boot: {e}");
    }
    let limit = info.memory_map().end_of_ram().as_u64();
    let memory = BootMemory { offset: info.direct_map_offset(), limit };
    load(info, &memory)
}

fn image_len() -> u64 {
    unsafe extern "C" {
        static __image_start: u8;
        static __image_end: u8;
    }
    (&raw const __image_end) as u64 - (&raw const __image_start) as u64
}

fn load(info: &BootInfo, memory: &BootMemory) -> ! {
    if let Err(cpu::Missing(what)) = cpu::enable(entry::syscall_entry) {
        panic!("cannot boot: this CPU lacks {what}");
    }
    let root = match build(info, memory) {
        Ok(root) => root,
        Err(why) => panic!("cannot boot: {why}"),
    };
    // SAFETY: the instance was just built from the same image, and the boot page tables map that at the same
    // address.
    unsafe { instance::enter(root) }
}

/// Build the first core's instance and answer its root page table.
fn build(info: &BootInfo, memory: &BootMemory) -> Result<u64, &'static str> {
    let archive_range = info.archive();
    if archive_range.end().as_u64() > memory.limit {
        return Err("the boot archive lies above 4 GiB, out of the loader's reach");
    }
    // SAFETY: the archive lies in memory that the boot page tables map and that nobody writes.
    let bytes = unsafe {
        let at = (memory.offset + archive_range.base().as_u64()) as *const u8;
        core::slice::from_raw_parts(at, archive_range.length() as usize)
    };
    let archive = Archive::parse(bytes)
        .map_err(|_| "the boot archive is damaged: pass the file that `killifish` built to -initrd")?;
    let module = archive.get(instance::MODULE).ok_or("the boot archive has no module `cpudriver`")?;

    // The first 2 MiB stay with the first core: the trampoline lies there.
    let low = PhysRange::new(PhysAddr::new(0), BLOCK);
    let reach = memory.limit;
    let mut chunks = info
        .memory_map()
        .usable_chunks(PageSize::Size2M, core::slice::from_ref(&low))
        .filter(|c| c.end().as_u64() <= reach);
    let (Some(block), Some(share)) = (chunks.next(), chunks.next()) else {
        return Err("less than two free blocks of 2 MiB: give the machine more memory");
    };

    let mapped = (memory.offset + block.base().as_u64()) as *mut u8;
    // SAFETY: a free block, mapped by the boot page tables.
    let mut b = unsafe {
        core::ptr::write_bytes(mapped, 0, BLOCK as usize);
        core::ptr::write_bytes((memory.offset + share.base().as_u64()) as *mut u8, 0, BLOCK as usize);
        Builder::new(block.base().as_u64(), mapped)
    };
    while !b
        .load_step(module.bytes, None)
        .map_err(|_| "the archive's `cpudriver` is not this CPU driver: build both together")?
    {}
    let full = "too much memory: the first core's page tables do not fit into its block";
    b.map_window(archive_range, paging::KERNEL_READ).map_err(|_| full)?;
    b.map_window(low, paging::KERNEL_WRITE).map_err(|_| full)?;
    let reserved = [low, block, share];
    let mut given = [Given { range: share, shared: true }; instance::MAX_GIVEN];
    let mut count = 1;
    b.map_window(share, paging::KERNEL_WRITE).map_err(|_| full)?;
    for range in info.memory_map().usable_runs(PageSize::Size2M, &reserved) {
        if count < given.len() {
            b.map_window(range, paging::KERNEL_WRITE).map_err(|_| full)?;
            given[count] = Given { range, shared: false };
            count += 1;
        }
    }
    if !cpu_has_x2apic() {
        b.map_small(apic::XAPIC_BASE, apic::XAPIC_ACCESS).map_err(|_| full)?;
    }
    let trampoline = info
        .memory_map()
        .usable_runs(PageSize::Size4K, &[PhysRange::new(PhysAddr::new(0), 4096)])
        .find(|r| r.length() >= boot_entry::trampoline::SIZE)
        .map(|r| r.base().as_u64())
        .filter(|base| base + boot_entry::trampoline::SIZE <= boot_entry::trampoline::LIMIT);

    let h = b.handover();
    h.state = State::Started;
    h.first = 1;
    h.debug_exit = u32::from(info.command_line().ends_machine());
    let level = info.command_line().settings().flatten().find_map(|setting| match setting {
        Setting::Log(level) => Some(level),
        _ => None,
    });
    h.log_level = level.unwrap_or(log::LevelFilter::Info) as u64;
    h.archive = archive_range;
    h.trampoline = trampoline.unwrap_or(0);
    h.given = given;
    h.given_count = count as u64;
    let root = h.root;
    let copy = info.as_bytes();
    b.bytes(BOOT_INFO_OFFSET, copy.len() as u64).copy_from_slice(copy);
    Ok(root)
}

/// Whether the CPU has an x2APIC, whose registers are not in memory.
pub(crate) fn cpu_has_x2apic() -> bool {
    raw_cpuid::CpuId::new().get_feature_info().is_some_and(|f| f.has_x2apic())
}
