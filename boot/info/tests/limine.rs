//! Limine played on the host: it finds the requests by their numbers, as the protocol says, and answers them.

use std::ffi::CString;
use std::ptr;

use boot_info::limine::{Facts, Module, Requests};
use boot_info::{BootError, BootInfo, PhysAddr, PhysRange, Protocol, Region, RegionKind};
use proptest::prelude::*;

/// Physical memory appears here in Limine's direct map.
const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
const KERNEL: u64 = 0x7f00_0000;
const KERNEL_SIZE: u64 = 0x5_0000;
const ARCHIVE: u64 = 0x7e00_0000;
const ARCHIVE_SIZE: u64 = 0x12_3456;
const RSDP: u64 = 0xf_5a80;

// The numbers and layouts below are written down from the protocol's specification, not taken from the crate under
// test.
const COMMON: [u64; 2] = [0xc7b1_dd30_df4c_8b88, 0x0a82_e883_a194_f07b];
const BASE_REVISION: [u64; 2] = [0xf956_2b2d_5c95_a6c8, 0x6a7b_3849_4453_6bdc];
const MEMORY_MAP: [u64; 2] = [0x67cf_3d9d_378a_806f, 0xe304_acdf_c50c_3c62];
const HHDM: [u64; 2] = [0x48dc_f1cb_8ad2_b852, 0x6398_4e95_9a98_244b];
const RSDP_REQUEST: [u64; 2] = [0xc5e7_7b6b_397e_7b43, 0x2763_7845_accd_cf3c];
const EXECUTABLE_ADDRESS: [u64; 2] = [0x71ba_7686_3cc5_5f63, 0xb264_4a48_c516_a487];
const MODULES: [u64; 2] = [0x3e7e_2797_02be_32af, 0xca1c_4f3b_d128_0cee];
const EXECUTABLE_COMMAND_LINE: [u64; 2] = [0x4b16_1536_e598_651e, 0xb390_ad4a_2f1f_303a];

#[repr(C)]
struct MemoryEntry {
    base: u64,
    length: u64,
    kind: u64,
}

/// Revision, then what the request asks for.
#[repr(C)]
struct Number(u64, u64);

#[repr(C)]
struct Numbers(u64, u64, u64);

#[repr(C)]
struct List<T>(u64, u64, *const *const T);

#[repr(C)]
struct File {
    revision: u64,
    address: u64,
    size: u64,
    path: *const i8,
    string: *const i8,
    rest: [u64; 12],
}

/// Requests in memory and a Limine that answers them. What it allocates it never frees: the answers last as long as
/// the test.
struct Limine {
    requests: *mut Requests,
}

fn leak<T>(value: T) -> *const T {
    Box::leak(Box::new(value))
}

fn list<T>(values: Vec<T>) -> *const List<T> {
    let pointers: Vec<*const T> = values.into_iter().map(leak).collect();
    leak(List(0, pointers.len() as u64, pointers.leak().as_ptr()))
}

impl Limine {
    fn new() -> Self {
        Self { requests: Box::into_raw(Box::new(Requests::new())) }
    }

    fn requests(&self) -> &Requests {
        // SAFETY: `requests` came from a box that is never freed; what `word_mut` hands out is written before.
        unsafe { &*self.requests }
    }

    /// The number of the words of the requests.
    fn len(&self) -> usize {
        size_of::<Requests>() / 8
    }

    fn words(&self) -> Vec<u64> {
        let words = self.requests.cast::<u64>();
        // SAFETY: the structure consists of `len` aligned words, none of which is padding.
        (0..self.len()).map(|index| unsafe { words.add(index).read() }).collect()
    }

    fn write(&self, index: usize, value: u64) {
        assert!(index < self.len());
        // SAFETY: the word is inside the requests, to which no reference lives at this time.
        unsafe { self.requests.cast::<u64>().add(index).write(value) };
    }

    fn accept_base_revision(&self) {
        let words = self.words();
        let at = words.windows(2).position(|pair| pair == BASE_REVISION).expect("a base revision tag");
        assert_eq!(words[at + 2], 3);
        self.write(at + 2, 0);
    }

    fn answer<T>(&self, request: [u64; 2], response: *const T) {
        let id = [COMMON[0], COMMON[1], request[0], request[1]];
        let at = self.words().windows(4).position(|words| words == id).expect("the request");
        // Four words of number and one of revision come before the pointer.
        self.write(at + 5, response.expose_provenance() as u64);
    }

    fn answer_memory_map(&self) {
        let entries = [
            (0x1000, 0x9_e000, 0),
            (0x9_f000, 0x1000, 1),
            (0x10_0000, 0x7df0_0000, 0),
            (ARCHIVE, 0x12_4000, 6),
            (0x7e12_4000, 0xdc_0000, 5),
            (KERNEL, 0x5_0000, 6),
            (0x7f10_0000, 0x1_0000, 2),
            (0x7f11_0000, 0x1000, 3),
            (0x7f20_0000, 0x1000, 4),
            (0x7f30_0000, 0x1000, 99),
            (0xfd00_0000, 0x30_0000, 7),
        ];
        self.answer(
            MEMORY_MAP,
            list(
                entries.map(|(base, length, kind)| MemoryEntry { base, length, kind }).into_iter().collect(),
            ),
        );
    }

    fn answer_modules(&self, modules: &[(u64, u64)]) {
        let path = CString::new("boot():/killifish.archive").expect("no NUL").into_raw();
        let file = |&(address, size): &(u64, u64)| File {
            revision: 0,
            address,
            size,
            path,
            string: ptr::null(),
            rest: [0; 12],
        };
        self.answer(MODULES, list(modules.iter().map(file).collect()));
    }

    fn answer_all(&self) {
        self.accept_base_revision();
        self.answer_memory_map();
        self.answer(HHDM, leak(Number(0, DIRECT_MAP)));
        self.answer(RSDP_REQUEST, leak(Number(0, RSDP)));
        self.answer(EXECUTABLE_ADDRESS, leak(Numbers(0, KERNEL, 0xffff_ffff_8020_0000)));
        self.answer_modules(&[(DIRECT_MAP + ARCHIVE, ARCHIVE_SIZE)]);
        let line = CString::new("log=debug seed=7").expect("no NUL").into_raw();
        self.answer(EXECUTABLE_COMMAND_LINE, leak((0u64, line)));
    }

    fn convert(&self) -> Result<BootInfo, BootError> {
        let mut info = BootInfo::EMPTY;
        info.fill_from_limine(self.requests().facts()?, KERNEL_SIZE)?;
        Ok(info)
    }
}

fn region(base: u64, end: u64, kind: RegionKind) -> Region {
    Region { range: PhysRange::between(PhysAddr::new(base), PhysAddr::new(end)), kind }
}

#[test]
fn the_requests_lie_between_the_markers() {
    let words = Limine::new().words();
    let start = [0xf6b8_f4b3_9de7_d1ae, 0xfab9_1a69_40fc_b9cf, 0x785c_6ed0_15d3_e316, 0x181e_920a_7852_b9d9];
    let end = [0xadc0_e053_1bb1_0d03, 0x9572_709f_3176_4c62];
    assert_eq!(words[..4], start);
    assert_eq!(words[words.len() - 2..], end);
    assert_eq!(align_of::<Requests>(), 8);
}

#[test]
fn answers_become_boot_information() {
    let limine = Limine::new();
    limine.answer_all();
    let info = limine.convert().expect("valid");
    assert_eq!(info.protocol(), Protocol::Limine);
    assert_eq!(info.rsdp(), Some(PhysAddr::new(RSDP)));
    assert_eq!(info.direct_map_offset(), DIRECT_MAP);
    assert_eq!(info.kernel(), PhysRange::new(PhysAddr::new(KERNEL), KERNEL_SIZE));
    assert_eq!(info.archive(), PhysRange::new(PhysAddr::new(ARCHIVE), ARCHIVE_SIZE));
    assert_eq!(info.command_line().as_bytes(), b"log=debug seed=7");
    let expected = [
        region(0x1000, 0x9_f000, RegionKind::Usable),
        region(0x9_f000, 0xa_0000, RegionKind::Reserved),
        region(0x10_0000, ARCHIVE, RegionKind::Usable),
        region(ARCHIVE, 0x7e12_4000, RegionKind::KernelAndModules),
        region(0x7e12_4000, 0x7eee_4000, RegionKind::BootloaderReclaimable),
        region(KERNEL, 0x7f05_0000, RegionKind::KernelAndModules),
        region(0x7f10_0000, 0x7f11_0000, RegionKind::AcpiReclaimable),
        region(0x7f11_0000, 0x7f11_1000, RegionKind::AcpiNvs),
        region(0x7f20_0000, 0x7f20_1000, RegionKind::Bad),
        region(0x7f30_0000, 0x7f30_1000, RegionKind::Reserved),
        region(0xfd00_0000, 0xfd30_0000, RegionKind::Framebuffer),
    ];
    assert_eq!(info.memory_map().regions(), expected);
    assert!(BootInfo::from_bytes(info.as_bytes()).is_ok());
}

#[test]
fn another_boot_loader_is_not_believed() {
    let limine = Limine::new();
    let error = limine.convert().expect_err("no base revision");
    assert_eq!(error, BootError::UnsupportedBaseRevision);
    assert_eq!(error.to_string(), "Limine does not support base revision 3; use Limine 8.0 or later");
}

#[test]
fn acpi_and_command_line_may_be_missing() {
    let limine = Limine::new();
    limine.answer_all();
    limine.answer(RSDP_REQUEST, ptr::null::<u8>());
    limine.answer(EXECUTABLE_COMMAND_LINE, ptr::null::<u8>());
    let info = limine.convert().expect("valid");
    assert_eq!(info.rsdp(), None);
    assert_eq!(info.command_line().as_bytes(), b"");
}

#[test]
fn each_missing_answer_is_named() {
    let cases = [
        (MEMORY_MAP, BootError::NoMemoryMap, "the boot loader gave no memory map"),
        (
            HHDM,
            BootError::NoResponse { request: "direct map" },
            "Limine did not answer the request for the direct map; use Limine 8.0 or later",
        ),
        (
            EXECUTABLE_ADDRESS,
            BootError::NoResponse { request: "executable's address" },
            "Limine did not answer the request for the executable's address; use Limine 8.0 or later",
        ),
        (
            MODULES,
            BootError::NoArchive,
            "no boot module: give the boot archive by qemu -initrd or as Limine's module_path",
        ),
    ];
    for (request, expected, message) in cases {
        let limine = Limine::new();
        limine.answer_all();
        limine.answer(request, ptr::null::<u8>());
        let error = limine.convert().expect_err("an answer is missing");
        assert_eq!((error.to_string().as_str(), error), (message, expected));
    }
}

#[test]
fn the_archive_must_be_the_only_module() {
    let limine = Limine::new();
    limine.answer_all();
    limine.answer_modules(&[]);
    assert_eq!(limine.convert().unwrap_err(), BootError::NoArchive);
    limine.answer_modules(&[(DIRECT_MAP + ARCHIVE, 1), (DIRECT_MAP + ARCHIVE + 0x1000, 1)]);
    assert_eq!(limine.convert().unwrap_err(), BootError::SeveralModules { count: 2 });
    limine.answer_modules(&[(ARCHIVE, ARCHIVE_SIZE)]);
    let error = limine.convert().unwrap_err();
    assert_eq!(error, BootError::OutsideDirectMap { what: "boot archive", address: ARCHIVE });
    assert_eq!(
        error.to_string(),
        "Limine gave 0x7e000000 for the boot archive, which is not in its direct map"
    );
    limine.answer_modules(&[(DIRECT_MAP + KERNEL + KERNEL_SIZE - 1, 1)]);
    assert!(matches!(limine.convert().unwrap_err(), BootError::ArchiveOverlapsKernel { .. }));
}

fn facts(
    memory_map: Vec<Region>,
    modules: Vec<Module>,
    command_line: &[u8],
) -> Facts<'_, Vec<Region>, Vec<Module>> {
    Facts {
        memory_map: Some(memory_map),
        modules: Some(modules),
        direct_map_offset: Some(DIRECT_MAP),
        rsdp: None,
        kernel: Some(PhysAddr::new(KERNEL)),
        command_line: Some(command_line),
    }
}

#[test]
fn a_long_command_line_is_refused() {
    let memory_map = vec![region(0x10_0000, 0x4000_0000, RegionKind::Usable)];
    let modules = vec![Module { address: DIRECT_MAP + ARCHIVE, size: 1 }];
    let mut info = BootInfo::EMPTY;
    let line = [b'x'; boot_info::MAX_COMMAND_LINE + 1];
    let error = info.fill_from_limine(facts(memory_map.clone(), modules.clone(), &line), KERNEL_SIZE);
    assert_eq!(error, Err(BootError::LongCommandLine));
    info.fill_from_limine(facts(memory_map, modules, &line[1..]), KERNEL_SIZE).expect("just fits");
    assert_eq!(info.command_line().as_bytes(), &line[1..]);
}

proptest! {
    #[test]
    fn any_facts_are_refused_or_taken_whole(
        regions in proptest::collection::vec((any::<u64>(), any::<u64>(), 0u32..64), 0..12),
        address in prop_oneof![any::<u64>(), (0u64..1 << 36).prop_map(|at| DIRECT_MAP + at)],
        size in prop_oneof![any::<u64>(), 0u64..1 << 30],
        kernel in any::<u64>(),
        kernel_size in prop_oneof![any::<u64>(), 0u64..1 << 21],
    ) {
        let kinds = [RegionKind::Usable, RegionKind::Reserved, RegionKind::BootloaderReclaimable];
        let regions = regions.into_iter().enumerate().map(|(index, (base, length, shift))| Region {
            range: PhysRange::new(PhysAddr::new(base >> shift), length >> shift),
            kind: kinds[index % kinds.len()],
        });
        let mut facts = facts(regions.collect(), vec![Module { address, size }], b"");
        facts.kernel = Some(PhysAddr::new(kernel));
        let mut info = BootInfo::EMPTY;
        match info.fill_from_limine(facts, kernel_size) {
            Ok(()) => {
                prop_assert_eq!(info.archive(), PhysRange::new(PhysAddr::new(address - DIRECT_MAP), size));
                for region in info.memory_map().regions() {
                    let free = region.kind == RegionKind::Usable;
                    prop_assert!(!(free && region.range.overlaps(info.archive())));
                    prop_assert!(!(free && region.range.overlaps(info.kernel())));
                }
            }
            Err(error) => {
                prop_assert!(!error.to_string().is_empty());
                prop_assert!(BootInfo::from_bytes(info.as_bytes()).is_err());
            }
        }
    }
}
