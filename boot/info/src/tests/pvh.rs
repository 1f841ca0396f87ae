//! From the PVH start info.

use std::string::ToString;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::{Pieces, range};
use crate::pvh::{MAX_ENTRIES, MemoryEntry, ModuleEntry, START_INFO_MAGIC, StartInfo};
use crate::{
    BootError, BootInfo, MAX_COMMAND_LINE, MAX_REGIONS, PhysAddr, PhysRange, Protocol, Region, RegionKind,
};

const START_INFO: u64 = 0x7000;
const MEMORY_MAP: u64 = 0x7100;
const MODULES: u64 = 0x8_0000;
const COMMAND_LINE: u64 = 0x9_0000;
const KERNEL: PhysRange = PhysRange::new(PhysAddr::new(0x20_0000), 0x12_3000);

/// A machine as QEMU makes it, to be changed.
#[derive(Clone, Debug)]
struct Machine {
    start_info: StartInfo,
    memory_map: Vec<MemoryEntry>,
    modules: Vec<ModuleEntry>,
    command_line: Vec<u8>,
}

fn entry(address: u64, size: u64, kind: u32) -> MemoryEntry {
    MemoryEntry { address: address.into(), size: size.into(), kind: kind.into(), reserved: 0.into() }
}

fn module(address: u64, size: u64) -> ModuleEntry {
    ModuleEntry { address: address.into(), size: size.into(), command_line: 0.into(), reserved: 0.into() }
}

fn machine() -> Machine {
    Machine {
        start_info: StartInfo {
            magic: START_INFO_MAGIC.into(),
            version: 1.into(),
            flags: 0.into(),
            module_count: 1.into(),
            modules: MODULES.into(),
            command_line: COMMAND_LINE.into(),
            rsdp: 0xf_52d0.into(),
            memory_map: MEMORY_MAP.into(),
            memory_map_entries: 0.into(),
            reserved: 0.into(),
        },
        memory_map: vec![
            entry(0, 0x9_fc00, 1),
            entry(0x9_fc00, 0x400, 2),
            entry(0xf_0000, 0x1_0000, 2),
            entry(0x10_0000, 0x7fee_0000, 1),
            entry(0x7ffe_0000, 0x2_0000, 2),
            entry(0xfffc_0000, 0x4_0000, 2),
            entry(0x1_0000_0000, 0x8000_0000, 1),
        ],
        modules: vec![module(0x7fd3_4000, 0x2a_bcde)],
        command_line: b"bench=syscall,yield seed=1".to_vec(),
    }
}

impl Machine {
    fn memory(&self) -> Pieces {
        let mut start_info = self.start_info;
        if start_info.memory_map_entries == 0 {
            start_info.memory_map_entries = (self.memory_map.len() as u32).into();
        }
        let mut memory = Pieces::default();
        memory.put(START_INFO, start_info.as_bytes());
        memory.put(MEMORY_MAP, self.memory_map.as_bytes());
        memory.put(MODULES, self.modules.as_bytes());
        let mut command_line = self.command_line.clone();
        command_line.push(0);
        memory.put(COMMAND_LINE, &command_line);
        memory
    }

    fn convert(&self) -> Result<BootInfo, BootError> {
        convert(&self.memory())
    }

    #[track_caller]
    fn says(&self, expected: BootError, message: &str) {
        let error = self.convert().expect_err("the machine must be refused");
        assert_eq!(error, expected);
        assert_eq!(error.to_string(), message);
    }
}

fn convert(memory: &Pieces) -> Result<BootInfo, BootError> {
    let mut info = BootInfo::EMPTY;
    info.fill_from_pvh(PhysAddr::new(START_INFO), KERNEL, memory)?;
    Ok(info)
}

fn changed(change: impl FnOnce(&mut Machine)) -> Machine {
    let mut machine = machine();
    change(&mut machine);
    machine
}

#[test]
fn a_machine_of_qemu_is_understood() {
    let info = machine().convert().expect("valid");
    assert_eq!(info.protocol(), Protocol::Pvh);
    assert_eq!(info.rsdp(), Some(PhysAddr::new(0xf_52d0)));
    assert_eq!(info.archive(), range(0x7fd3_4000, 0x2a_bcde));
    assert_eq!(info.kernel(), KERNEL);
    assert_eq!(info.direct_map_offset(), 0);
    assert_eq!(info.command_line().as_bytes(), b"bench=syscall,yield seed=1");
    use RegionKind::{KernelAndModules, Reserved, Usable};
    let expected = [
        (0x0, 0x9_f000, Usable),
        (0x9_f000, 0xa_0000, Reserved),
        (0xf_0000, 0x10_0000, Reserved),
        (0x10_0000, 0x20_0000, Usable),
        (0x20_0000, 0x32_3000, KernelAndModules),
        (0x32_3000, 0x7fd3_4000, Usable),
        (0x7fd3_4000, 0x7ffe_0000, KernelAndModules),
        (0x7ffe_0000, 0x8000_0000, Reserved),
        (0xfffc_0000, 0x1_0000_0000, Reserved),
        (0x1_0000_0000, 0x1_8000_0000, Usable),
    ]
    .map(|(base, end, kind)| Region { range: range(base, end - base), kind });
    assert_eq!(info.memory_map().regions(), expected);
    assert_eq!(info.memory_map().end_of_ram(), PhysAddr::new(0x1_8000_0000));
    let again = BootInfo::from_bytes(info.as_bytes()).expect("filled");
    assert_eq!(again.memory_map().regions(), expected);
    assert_eq!(again.archive(), info.archive());
}

#[test]
fn a_machine_without_command_line_or_acpi_is_accepted() {
    let machine = changed(|machine| {
        machine.start_info.command_line = 0.into();
        machine.start_info.rsdp = 0.into();
    });
    let info = machine.convert().expect("valid");
    assert_eq!(info.rsdp(), None);
    assert_eq!(info.command_line().as_bytes(), b"");
}

#[test]
fn every_type_of_entry_has_a_kind() {
    for (kind, expected) in [
        (0, RegionKind::Reserved),
        (1, RegionKind::Usable),
        (2, RegionKind::Reserved),
        (3, RegionKind::AcpiReclaimable),
        (4, RegionKind::AcpiNvs),
        (5, RegionKind::Bad),
        (6, RegionKind::Reserved),
        (7, RegionKind::Reserved),
        (u32::MAX, RegionKind::Reserved),
    ] {
        let info = changed(|machine| machine.memory_map.push(entry(1 << 40, 1 << 20, kind))).convert();
        assert_eq!(info.expect("valid").memory_map().kind_at(PhysAddr::new(1 << 40)), Some(expected));
    }
}

#[test]
fn a_start_info_of_another_kind_is_refused() {
    changed(|machine| machine.start_info.magic = 0x1badb002.into()).says(
        BootError::NotStartInfo { at: PhysAddr::new(0x7000), magic: 0x1bad_b002 },
        "no PVH start info at 0x7000: its magic number is 0x1badb002, not 0x336ec578; boot with qemu -kernel or \
         another PVH loader",
    );
    changed(|machine| machine.start_info.version = 0.into()).says(
        BootError::OldStartInfo,
        "the PVH start info is of version 0 and has no memory map; use QEMU 4.0 or later, or another loader of \
         version 1",
    );
}

#[test]
fn a_missing_memory_map_is_refused() {
    let message = "the boot loader gave no memory map";
    changed(|machine| machine.memory_map.clear()).says(BootError::NoMemoryMap, message);
    changed(|machine| machine.start_info.memory_map = 0.into()).says(BootError::NoMemoryMap, message);
    // Entries there are, but none of them covers a page that can be.
    changed(|machine| machine.memory_map = vec![entry(0x1000, 0, 1), entry(1 << 52, 0x1000, 2)])
        .says(BootError::NoMemoryMap, message);
    changed(|machine| machine.memory_map = vec![entry(0x10_0000, 0x20_0000, 2)])
        .says(BootError::NoUsableMemory, "no region of the memory map is usable");
}

#[test]
fn a_long_memory_map_is_refused() {
    changed(|machine| machine.start_info.memory_map_entries = (MAX_ENTRIES + 1).into()).says(
        BootError::LongMemoryMap { entries: 4097 },
        "the memory map has 4097 entries, more than the 4096 that are read; it is damaged",
    );
    let gaps = |count: u64| (0..count).map(|index| entry(index << 32, 0x1000, 1)).collect::<Vec<_>>();
    changed(|machine| machine.memory_map = gaps(MAX_REGIONS as u64 + 1)).says(
        BootError::TooManyRegions,
        "the memory map has more than 256 regions; raise MAX_REGIONS in boot-info",
    );
    // As many entries as are read, if they merge into few regions.
    let pages = (0..u64::from(MAX_ENTRIES)).map(|index| entry(index << 20, 1 << 20, 1)).collect();
    let info = changed(|machine| machine.memory_map = pages).convert().expect("valid");
    assert_eq!(info.memory_map().total(RegionKind::Usable), (4096 << 20) - 0x12_3000 - 0x2a_c000);
}

#[test]
fn the_archive_must_be_the_only_module() {
    changed(|machine| machine.start_info.module_count = 0.into()).says(
        BootError::NoArchive,
        "no boot module: give the boot archive by qemu -initrd or as Limine's module_path",
    );
    changed(|machine| machine.start_info.module_count = 2.into()).says(
        BootError::SeveralModules { count: 2 },
        "2 boot modules: give one only, the boot archive, which holds all others",
    );
}

#[test]
fn an_archive_that_cannot_be_is_refused() {
    changed(|machine| machine.modules[0].size = 0.into()).says(
        BootError::BadArchive { base: PhysAddr::new(0x7fd3_4000), length: 0 },
        "the boot archive cannot be 0x0 bytes at 0x7fd34000; the boot loader's list is damaged",
    );
    for (base, length) in [(0x1000, u64::MAX), (u64::MAX, 1), (u64::MAX, u64::MAX), ((1 << 52) - 1, 2)] {
        let error = changed(|machine| machine.modules[0] = module(base, length)).convert().unwrap_err();
        assert_eq!(error, BootError::BadArchive { base: PhysAddr::new(base), length });
    }
    changed(|machine| machine.modules[0] = module(0x32_2fff, 2)).says(
        BootError::ArchiveOverlapsKernel { archive: range(0x32_2fff, 2), kernel: KERNEL },
        "the boot archive 0x322fff..0x323001 overlaps the image of the CPU driver 0x200000..0x323000",
    );
    assert!(changed(|machine| machine.modules[0] = module(0x32_3000, 2)).convert().is_ok());
    assert!(changed(|machine| machine.modules[0] = module((1 << 52) - 1, 1)).convert().is_ok());
}

#[test]
fn a_long_command_line_is_refused() {
    let longest = vec![b'x'; MAX_COMMAND_LINE];
    let info = changed(|machine| machine.command_line = longest.clone()).convert().expect("valid");
    assert_eq!(info.command_line().as_bytes(), longest);
    changed(|machine| machine.command_line = vec![b'x'; MAX_COMMAND_LINE + 1])
        .says(BootError::LongCommandLine, "the command line has more than 2048 bytes; shorten it");
}

#[test]
fn whatever_is_not_mapped_is_named() {
    let unreadable = |what, at| BootError::Unreadable { what, at: PhysAddr::new(at) };
    let mut info = BootInfo::EMPTY;
    let error = info.fill_from_pvh(PhysAddr::new(0x6000), KERNEL, &machine().memory());
    assert_eq!(error, Err(unreadable("PVH start info", 0x6000)));
    changed(|machine| machine.start_info.memory_map = 0x5000.into()).says(
        unreadable("PVH memory map", 0x5000),
        "the PVH memory map at 0x5000 lies where no memory is mapped during boot",
    );
    changed(|machine| machine.start_info.memory_map_entries = 8.into()).says(
        unreadable("PVH memory map", MEMORY_MAP + 7 * 24),
        "the PVH memory map at 0x71a8 lies where no memory is mapped during boot",
    );
    changed(|machine| machine.start_info.modules = u64::MAX.into()).says(
        unreadable("PVH module list", u64::MAX),
        "the PVH module list at 0xffffffffffffffff lies where no memory is mapped during boot",
    );
    changed(|machine| machine.start_info.command_line = 0x3.into()).says(
        unreadable("command line", 3),
        "the command line at 0x3 lies where no memory is mapped during boot",
    );
    // A string that is not ended before its memory is.
    let mut memory = machine().memory();
    if let Some((_, line)) = memory.0.last_mut() {
        line.pop();
    }
    assert_eq!(convert(&memory).unwrap_err(), unreadable("command line", COMMAND_LINE + 26));
    // Sums that wrap around.
    let error = changed(|machine| machine.start_info.memory_map = (u64::MAX - 1).into()).convert();
    assert_eq!(error.unwrap_err(), unreadable("PVH memory map", u64::MAX - 1));
}

#[test]
fn a_refused_conversion_leaves_nothing_to_read() {
    let mut info = machine().convert().expect("valid");
    let bad = changed(|machine| machine.start_info.module_count = 0.into()).memory();
    assert!(info.fill_from_pvh(PhysAddr::new(START_INFO), KERNEL, &bad).is_err());
    assert!(BootInfo::from_bytes(info.as_bytes()).is_err());
    // And a second conversion starts from nothing.
    info.fill_from_pvh(PhysAddr::new(START_INFO), KERNEL, &machine().memory()).expect("valid");
    assert_eq!(info.as_bytes(), machine().convert().expect("valid").as_bytes());
}

proptest! {
    #[test]
    fn damaged_structures_never_panic(
        damage in proptest::collection::vec((0usize..4, 0usize..224, any::<u8>()), 1..8),
    ) {
        let mut memory = machine().memory();
        for (piece, at, byte) in damage {
            let bytes = &mut memory.0[piece].1;
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        match convert(&memory) {
            Ok(info) => {
                super::memory_map::assert_tidy(info.memory_map());
                let taken = [info.kernel(), info.archive()];
                for run in info.memory_map().usable_chunks(crate::PageSize::Size2M, &[]).take(100) {
                    prop_assert!(!taken.iter().any(|taken| taken.overlaps(run)));
                }
                prop_assert!(BootInfo::from_bytes(info.as_bytes()).is_ok());
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn random_memory_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let mut memory = Pieces::default();
        let mut bytes = bytes;
        memory.put(START_INFO, &bytes);
        prop_assert!(convert(&memory).is_err());
        for (byte, good) in bytes.iter_mut().zip(machine().start_info.as_bytes().iter().take(16)) {
            *byte = *good;
        }
        memory.0[0].1 = bytes;
        let _ = convert(&memory);
    }
}
