//! From Limine's answers.
//!
//! The CPU driver declares one static of [`Requests`], which Limine finds in the image and answers before the entry;
//! [`Requests::facts`] reads the answers into plain [`Facts`], and [`BootInfo::fill_from_limine`] converts those.
//!
//! ```
//! #[used]
//! #[unsafe(link_section = ".data.limine")] // writable: Limine stores its answers there
//! static REQUESTS: boot_info::limine::Requests = boot_info::limine::Requests::new();
//! ```
//!
//! The base revision is 3 (Limine 8): pointers lie in the direct map, but the address of the ACPI root pointer is
//! physical (*The Limine Boot Protocol*, "Base protocol revisions" and "RSDP Feature").

use limine::BaseRevision;
use limine::memory_map::{Entry, EntryType};
use limine::request::{
    ExecutableAddressRequest, ExecutableCmdlineRequest, HhdmRequest, MemoryMapRequest, ModuleRequest,
    RequestsEndMarker, RequestsStartMarker, RsdpRequest,
};

use crate::address::{PhysAddr, PhysRange};
use crate::error::BootError;
use crate::info::{BootInfo, Protocol};
use crate::memory_map::{Region, RegionKind};

/// All requests to Limine, between the markers that it looks for.
#[repr(C)]
pub struct Requests {
    start: RequestsStartMarker,
    base_revision: BaseRevision,
    memory_map: MemoryMapRequest,
    direct_map: HhdmRequest,
    rsdp: RsdpRequest,
    executable: ExecutableAddressRequest,
    modules: ModuleRequest,
    command_line: ExecutableCmdlineRequest,
    end: RequestsEndMarker,
}

/// A boot module as Limine describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its address in the direct map.
    pub address: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// Limine's answers. `R` yields the memory map and `M` the modules; what is not answered is `None`.
#[derive(Clone, Debug)]
pub struct Facts<'a, R, M> {
    /// The memory map in any order.
    pub memory_map: Option<R>,
    /// The modules.
    pub modules: Option<M>,
    /// The virtual address of physical address 0 in the direct map.
    pub direct_map_offset: Option<u64>,
    /// The physical address of the ACPI root pointer.
    pub rsdp: Option<PhysAddr>,
    /// The physical address of the image of the CPU driver.
    pub kernel: Option<PhysAddr>,
    /// The command line.
    pub command_line: Option<&'a [u8]>,
}

impl Requests {
    /// Requests not answered yet.
    #[expect(clippy::new_without_default, reason = "it makes sense as a static only")]
    pub const fn new() -> Self {
        Self {
            start: RequestsStartMarker::new(),
            base_revision: BaseRevision::with_revision(3),
            memory_map: MemoryMapRequest::new(),
            direct_map: HhdmRequest::new(),
            rsdp: RsdpRequest::new(),
            executable: ExecutableAddressRequest::new(),
            modules: ModuleRequest::new(),
            command_line: ExecutableCmdlineRequest::new(),
            end: RequestsEndMarker::new(),
        }
    }

    /// The answers. They lie in memory of [`RegionKind::BootloaderReclaimable`] and need Limine's page tables.
    ///
    /// # Errors
    /// [`BootError::UnsupportedBaseRevision`] if Limine does not know base revision 3, so that nothing it says could
    /// be understood, or if it was not Limine that booted this image.
    pub fn facts(
        &self,
    ) -> Result<Facts<'_, impl Iterator<Item = Region> + '_, impl Iterator<Item = Module> + '_>, BootError>
    {
        if !self.base_revision.is_supported() {
            return Err(BootError::UnsupportedBaseRevision);
        }
        let modules = self.modules.get_response().map(|response| {
            let module =
                |file: &&limine::file::File| Module { address: file.addr().addr() as u64, size: file.size() };
            response.modules().iter().map(module)
        });
        Ok(Facts {
            memory_map: self
                .memory_map
                .get_response()
                .map(|response| response.entries().iter().map(|entry| region_of(entry))),
            modules,
            direct_map_offset: self.direct_map.get_response().map(|response| response.offset()),
            rsdp: self.rsdp.get_response().map(|response| PhysAddr::new(response.address() as u64)),
            kernel: self.executable.get_response().map(|response| PhysAddr::new(response.physical_base())),
            command_line: self.command_line.get_response().map(|response| response.cmdline().to_bytes()),
        })
    }
}

impl BootInfo {
    /// Fills this from Limine's answers. `kernel_size` is the size of the CPU driver's image in memory in bytes, the
    /// zeroed part included.
    ///
    /// # Errors
    /// A [`BootError`] if anything but the ACPI root pointer or the command line is missing, or anything is damaged;
    /// this is then not to be used.
    pub fn fill_from_limine<R, M>(
        &mut self,
        facts: Facts<'_, R, M>,
        kernel_size: u64,
    ) -> Result<(), BootError>
    where
        R: IntoIterator<Item = Region>,
        M: IntoIterator<Item = Module>,
    {
        let offset = facts.direct_map_offset.ok_or(BootError::NoResponse { request: "direct map" })?;
        self.clear(Protocol::Limine, offset);
        for Region { range, kind } in facts.memory_map.ok_or(BootError::NoMemoryMap)? {
            self.memory_map_mut().add(range, kind)?;
        }
        if let Some(rsdp) = facts.rsdp {
            self.set_rsdp(rsdp);
        }
        for &byte in facts.command_line.unwrap_or_default() {
            self.push_command_line(byte)?;
        }
        let kernel = facts.kernel.ok_or(BootError::NoResponse { request: "executable's address" })?;
        let mut modules = facts.modules.ok_or(BootError::NoArchive)?.into_iter();
        let Module { address, size } = modules.next().ok_or(BootError::NoArchive)?;
        match modules.count() as u64 {
            0 => {}
            others => return Err(BootError::SeveralModules { count: others + 1 }),
        }
        let outside = BootError::OutsideDirectMap { what: "boot archive", address };
        let archive = PhysRange::new(PhysAddr::new(address.checked_sub(offset).ok_or(outside)?), size);
        self.finish(PhysRange::new(kernel, kernel_size), archive)
    }
}

fn region_of(entry: &Entry) -> Region {
    Region { range: PhysRange::new(PhysAddr::new(entry.base), entry.length), kind: kind_of(entry.entry_type) }
}

/// Types not known here are not memory to use.
fn kind_of(kind: EntryType) -> RegionKind {
    match kind {
        EntryType::USABLE => RegionKind::Usable,
        EntryType::ACPI_RECLAIMABLE => RegionKind::AcpiReclaimable,
        EntryType::ACPI_NVS => RegionKind::AcpiNvs,
        EntryType::BAD_MEMORY => RegionKind::Bad,
        EntryType::BOOTLOADER_RECLAIMABLE => RegionKind::BootloaderReclaimable,
        EntryType::EXECUTABLE_AND_MODULES => RegionKind::KernelAndModules,
        EntryType::FRAMEBUFFER => RegionKind::Framebuffer,
        _ => RegionKind::Reserved,
    }
}
