//! Executables built by hand, one defect each, and random damage.
//!
//! Where a comment begins with *Row*, the test is for a row of the system's table of bad input.

extern crate std;

use std::format;
use std::string::ToString;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

const R: u32 = 4;
const RX: u32 = 5;
const RW: u32 = 6;
const LOAD: u32 = 1;

/// A program header to be written.
#[derive(Clone, Copy, Debug)]
struct Header {
    kind: u32,
    flags: u32,
    offset: u64,
    vaddr: u64,
    paddr: u64,
    file_size: u64,
    memory_size: u64,
    align: u64,
}

/// A file to be written: its program headers, and room for contents up to `length`.
#[derive(Clone, Debug)]
struct File {
    entry: u64,
    headers: Vec<Header>,
    length: usize,
}

fn load(flags: u32, offset: u64, vaddr: u64, file_size: u64, memory_size: u64) -> Header {
    Header { kind: LOAD, flags, offset, vaddr, paddr: vaddr, file_size, memory_size, align: 0x1000 }
}

/// A plain program: read-only data, text, data with BSS.
fn program() -> File {
    File {
        entry: 0x40_1010,
        headers: vec![
            load(R, 0x0, 0x40_0000, 0x200, 0x200),
            load(RX, 0x1000, 0x40_1000, 0x345, 0x345),
            load(RW, 0x2ff0, 0x40_2ff0, 0x20, 0x3000),
        ],
        length: 0x3010,
    }
}

impl File {
    /// Contents are `offset % 251`, so that a byte tells where it came from.
    fn bytes(&self) -> Vec<u8> {
        let mut file: Vec<u8> = (0..self.length).map(contents).collect();
        let mut head = Vec::new();
        head.extend(b"\x7fELF\x02\x01\x01\x00");
        head.extend([0; 8]);
        head.extend(2u16.to_le_bytes());
        head.extend(62u16.to_le_bytes());
        head.extend(1u32.to_le_bytes());
        head.extend(self.entry.to_le_bytes());
        head.extend(64u64.to_le_bytes());
        head.extend(0u64.to_le_bytes());
        head.extend(0u32.to_le_bytes());
        for half in [64, 56, self.headers.len() as u16, 64, 0, 0] {
            head.extend(half.to_le_bytes());
        }
        assert_eq!(head.len(), 64);
        for header in &self.headers {
            head.extend(header.kind.to_le_bytes());
            head.extend(header.flags.to_le_bytes());
            for long in [
                header.offset,
                header.vaddr,
                header.paddr,
                header.file_size,
                header.memory_size,
                header.align,
            ] {
                head.extend(long.to_le_bytes());
            }
        }
        file[..head.len()].copy_from_slice(&head);
        file
    }

    fn refused(&self) -> ElfError {
        refused(&self.bytes())
    }
}

fn contents(offset: usize) -> u8 {
    (offset % 251) as u8
}

fn policy() -> Policy {
    Policy::user(1 << 20)
}

fn refused(file: &[u8]) -> ElfError {
    Image::parse(file, policy()).expect_err("the file must be refused")
}

/// The error for the plain program with some bytes of the file replaced.
fn patched(offset: usize, bytes: &[u8]) -> ElfError {
    let mut file = program().bytes();
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
    refused(&file)
}

/// The error for the plain program with one change.
fn changed(change: impl FnOnce(&mut File)) -> ElfError {
    let mut file = program();
    change(&mut file);
    file.refused()
}

#[track_caller]
fn says(error: ElfError, expected: ElfError, message: &str) {
    assert_eq!(error, expected);
    assert_eq!(error.to_string(), message);
}

#[test]
fn a_plain_program_is_accepted() {
    let bytes = program().bytes();
    let image = Image::parse(&bytes, policy()).expect("valid");
    assert_eq!(image.entry(), 0x40_1010);
    assert_eq!(image.memory(), 0x1000 + 0x1000 + 0x4000);
    assert_eq!(image.span(), 0x40_0000..0x40_6000);
    let segments: Vec<_> = image.segments().copied().collect();
    assert_eq!(segments.len(), 3);
    assert_eq!(segments[0].access, Access::Read);
    assert_eq!(segments[1].access, Access::ReadExecute);
    assert_eq!(segments[1].contents, &bytes[0x1000..0x1345]);
    assert_eq!(segments[2].access, Access::ReadWrite);
    assert_eq!((segments[2].vaddr, segments[2].memory_size), (0x40_2ff0, 0x3000));
    assert_eq!((segments[2].align, segments[2].index, segments[2].paddr), (0x1000, 2, 0x40_2ff0));
    assert_eq!(segments[2].page_range(), 0x40_2000..0x40_6000);
    assert_eq!(segments[2].pages().collect::<Vec<_>>(), [0x40_2000, 0x40_3000, 0x40_4000, 0x40_5000]);
    assert_eq!(segments[2].pages().len(), 4);
    assert!(Access::ReadWrite.is_writable() && !Access::ReadWrite.is_executable());
    assert!(Access::ReadExecute.is_executable() && !Access::ReadExecute.is_writable());
    assert!(!Access::Read.is_executable() && !Access::Read.is_writable());
    assert_eq!(
        format!("{image:?}"),
        "entry 0x401010, [segment 0 at 0x400000: 0x200 of 0x200 bytes from the file, Read, alignment 0x1000, \
         segment 1 at 0x401000: 0x345 of 0x345 bytes from the file, ReadExecute, alignment 0x1000, segment 2 at \
         0x402ff0: 0x20 of 0x3000 bytes from the file, ReadWrite, alignment 0x1000]"
    );
}

#[test]
fn pages_hold_contents_and_zeroes() {
    let bytes = program().bytes();
    let image = Image::parse(&bytes, policy()).expect("valid");
    let data = image.segments().last().expect("three segments");
    let mut page = [0xeeu8; 0x1000];
    data.read(0x40_2000, &mut page);
    assert!(page[..0xff0].iter().all(|&byte| byte == 0));
    assert_eq!(page[0xff0..], bytes[0x2ff0..0x3000]);
    page.fill(0xee);
    data.read(0x40_3000, &mut page);
    assert_eq!(page[..0x10], bytes[0x3000..0x3010]);
    assert!(page[0x10..].iter().all(|&byte| byte == 0));
    page.fill(0xee);
    data.read(0x40_4000, &mut page);
    assert_eq!(page, [0; 0x1000]);
    // Outside the segment on either side, and where the difference of addresses is extreme.
    for address in [0, 0x40_1000, 0x40_7000, u64::MAX - 0xfff] {
        page.fill(0xee);
        data.read(address, &mut page);
        assert_eq!(page, [0; 0x1000], "{address:#x}");
    }
    let mut one = [0xee];
    data.read(0x40_3001, &mut one);
    assert_eq!(one, [contents(0x3001)]);
    data.read(0x40_3001, &mut []);
}

#[test]
fn segments_come_in_the_order_of_addresses() {
    let mut file = program();
    file.headers.rotate_left(1);
    let bytes = file.bytes();
    let image = Image::parse(&bytes, policy()).expect("valid");
    let order: Vec<_> = image.segments().map(|segment| (segment.vaddr, segment.index)).collect();
    assert_eq!(order, [(0x40_0000, 2), (0x40_1000, 0), (0x40_2ff0, 1)]);
}

#[test]
fn headers_that_load_nothing_are_ignored() {
    let mut file = program();
    // An empty segment, a note (4), a stack flag (0x6474e551), the table itself (6).
    file.headers.push(load(RW, 0x800, 0xdead_0000_0000_0800, 0, 0));
    for kind in [4, 0x6474_e551, 6] {
        file.headers.push(Header { kind, ..load(7, 1, 0xffff_ffff_ffff_fff0, 99, 98) });
    }
    let bytes = file.bytes();
    assert_eq!(Image::parse(&bytes, policy()).expect("valid").segments().count(), 3);
}

#[test]
fn rights_are_never_fewer_than_the_hardware_gives() {
    for (flags, access) in [(1, Access::ReadExecute), (2, Access::ReadWrite), (0xff00_0004, Access::Read)] {
        let mut file = program();
        file.headers.push(load(flags, 0, 0x50_0000, 0, 1));
        let bytes = file.bytes();
        let image = Image::parse(&bytes, policy()).expect("valid");
        assert_eq!(image.segments().last().map(|segment| segment.access), Some(access));
    }
}

#[test]
fn a_file_of_another_kind_is_refused() {
    says(refused(b"#!/bin/sh\n"), ElfError::NotElf, "not an ELF file: it does not begin with 7f 45 4c 46");
    says(refused(b""), ElfError::NotElf, "not an ELF file: it does not begin with 7f 45 4c 46");
    says(refused(b"\x7fEL"), ElfError::NotElf, "not an ELF file: it does not begin with 7f 45 4c 46");
    says(
        refused(&program().bytes()[..63]),
        ElfError::Truncated { part: Part::FileHeader, length: 63 },
        "the ELF header does not fit in the file of 63 bytes: the file is cut off or damaged",
    );
    says(
        patched(4, &[1]),
        ElfError::NotClass64 { class: 1 },
        "ELF class 1, not 2 (64-bit): build for x86_64",
    );
    says(
        patched(5, &[2]),
        ElfError::NotLittleEndian { data: 2 },
        "ELF data encoding 2, not 1 (little-endian): build for x86_64",
    );
    says(patched(6, &[0]), ElfError::UnknownVersion { version: 0 }, "ELF version 0, not 1");
    says(
        patched(7, &[9]),
        ElfError::ForeignAbi { abi: 9 },
        "ELF OS ABI 9, neither 0 (System V) nor 3 (GNU): built for another system",
    );
    says(
        patched(18, &[183, 0]),
        ElfError::ForeignMachine { machine: 183 },
        "ELF machine 183, not 62 (x86-64): build for x86_64",
    );
    says(
        patched(16, &[3, 0]),
        ElfError::NotStaticExecutable { kind: 3 },
        "ELF type 3, not 2 (executable): link it with -static -no-pie (3 is a shared object or a \
         position-independent executable)",
    );
    let mut gnu = program().bytes();
    gnu[7] = 3;
    assert!(Image::parse(&gnu, policy()).is_ok());
}

/// Row *ELF modules*: header overflow, of the table.
#[test]
fn a_bad_header_table_is_refused() {
    says(
        patched(54, &[57, 0]),
        ElfError::BadProgramHeaderSize { size: 57 },
        "program headers of 57 bytes, not 56: the file is damaged",
    );
    says(
        patched(56, &[0, 0]),
        ElfError::NoSegments,
        "no loadable segment: link it as an executable, not as an object",
    );
    says(
        patched(56, &[0xff, 0xff]),
        ElfError::TooManyProgramHeaders { count: 0xffff },
        "65535 program headers, more than the 64 that are read",
    );
    let message = "the table of program headers does not fit in the file of 12304 bytes: the file is cut off or \
                   damaged";
    let truncated = ElfError::Truncated { part: Part::ProgramHeaders, length: 0x3010 };
    // One byte short of the end, at the end, past it, and where the sum wraps around.
    for offset in [0x3010 - 3 * 56 + 1, 0x3010, 1 << 40, u64::MAX - 3 * 56 + 1, u64::MAX] {
        says(patched(32, &offset.to_le_bytes()), truncated.clone(), message);
    }
}

#[test]
fn a_file_without_segments_is_refused() {
    let error = changed(|file| file.headers.iter_mut().for_each(|header| header.kind = 4));
    assert_eq!(error, ElfError::NoSegments);
}

#[test]
fn too_many_segments_are_refused() {
    let mut file = program();
    for index in 3..MAX_SEGMENTS as u64 {
        file.headers.push(load(R, 0, 0x50_0000 + index * 0x1000, 0, 1));
    }
    file.length = 0x4000;
    let bytes = file.bytes();
    assert_eq!(Image::parse(&bytes, policy()).expect("as many as allowed").segments().count(), MAX_SEGMENTS);
    file.headers.push(load(R, 0, 0x60_0000, 0, 1));
    says(
        file.refused(),
        ElfError::TooManySegments,
        "more than 16 loadable segments: merge sections in the linker script",
    );
}

#[test]
fn a_program_that_needs_a_dynamic_linker_is_refused() {
    for kind in [2, 3] {
        says(
            changed(|file| file.headers[1].kind = kind),
            ElfError::DynamicallyLinked { segment: 1 },
            "segment 1 asks for a dynamic linker: link it with -static -no-pie",
        );
    }
}

#[test]
fn thread_local_storage_is_refused() {
    says(
        changed(|file| file.headers.push(Header { kind: 7, ..load(R, 0, 0x40_0000, 8, 8) })),
        ElfError::ThreadLocalStorage { segment: 3 },
        "segment 3 holds thread-local variables, which no loader here sets up",
    );
}

#[test]
fn a_bad_alignment_is_refused() {
    for align in [0, 1, 0x800, 0x1001, 0x3000, u64::MAX] {
        let error = changed(|file| file.headers[1].align = align);
        assert_eq!(error, ElfError::BadAlignment { segment: 1, align });
        assert_eq!(
            error.to_string(),
            format!(
                "segment 1 is aligned to {align:#x}, which is not a power of two of at least 0x1000: link it with \
                 -z max-page-size=0x1000"
            )
        );
    }
}

#[test]
fn an_offset_not_congruent_to_its_address_is_refused() {
    says(
        changed(|file| file.headers[1].offset = 0x1008),
        ElfError::NotCongruent { segment: 1, offset: 0x1008, vaddr: 0x40_1000, align: 0x1000 },
        "segment 1 has offset 0x1008 and address 0x401000, which differ modulo its alignment 0x1000",
    );
    // Congruent modulo a page, not modulo the greater alignment that the header promises.
    let error = changed(|file| {
        file.headers[1].align = 0x40_0000;
        file.headers[1].offset = 0x2000;
    });
    assert!(matches!(error, ElfError::NotCongruent { segment: 1, align: 0x40_0000, .. }));
}

#[test]
fn more_contents_than_memory_are_refused() {
    says(
        changed(|file| file.headers[1].memory_size = 0x344),
        ElfError::MemorySmallerThanContents { segment: 1, memory: 0x344, contents: 0x345 },
        "segment 1 puts 0x345 bytes of contents into 0x344 bytes of memory",
    );
    let error = changed(|file| file.headers[1].memory_size = 0);
    assert!(matches!(error, ElfError::MemorySmallerThanContents { segment: 1, memory: 0, .. }));
}

/// Row *ELF modules*: header overflow, of the contents.
#[test]
fn contents_outside_the_file_are_refused() {
    says(
        changed(|file| file.length -= 1),
        ElfError::ContentsOutsideFile { segment: 2, offset: 0x2ff0, size: 0x20, length: 0x300f },
        "segment 2 takes 0x20 bytes from offset 0x2ff0 of a file of 0x300f bytes: the file is cut off or damaged",
    );
    for offset in [0x4000, 1 << 40, u64::MAX - 0x1fff, u64::MAX - 0x1f] {
        let error = changed(|file| file.headers[2].offset = offset);
        assert!(matches!(error, ElfError::ContentsOutsideFile { segment: 2, .. }), "{offset:#x}");
    }
}

/// Row *ELF modules*: header overflow, of the addresses.
#[test]
fn an_address_that_wraps_around_is_refused() {
    says(
        changed(|file| file.headers[2].vaddr = 0xffff_ffff_ffff_eff0),
        ElfError::AddressWraps { segment: 2, vaddr: 0xffff_ffff_ffff_eff0, size: 0x3000 },
        "segment 2 of 0x3000 bytes at 0xffffffffffffeff0 goes past the end of the address space",
    );
    // The sum fits, but not when rounded up to a page.
    let error = changed(|file| {
        file.headers[2].vaddr = 0xffff_ffff_ffff_fff0;
        file.headers[2].file_size = 0;
        file.headers[2].memory_size = 4;
    });
    assert!(matches!(error, ElfError::AddressWraps { segment: 2, .. }));
    let error = changed(|file| file.headers[2].memory_size = u64::MAX);
    assert!(matches!(error, ElfError::AddressWraps { segment: 2, .. }));
}

/// Row *ELF modules*: kernel-half addresses.
#[test]
fn addresses_outside_the_allowed_ones_are_refused() {
    says(
        changed(|file| file.headers[2].vaddr = 0xffff_8000_0000_0ff0),
        ElfError::AddressNotAllowed {
            segment: 2,
            wanted: 0xffff_8000_0000_0000..0xffff_8000_0000_4000,
            allowed: Policy::USER,
        },
        "segment 2 wants 0xffff800000000000..0xffff800000004000, outside the allowed 0x1000..0x7f8000000000: link \
         it for those addresses",
    );
    // The null page; the end of the user's addresses; a hole of non-canonical addresses; memory that reaches out.
    for (vaddr, size) in [
        (0xff0, 0x20),
        (0x7f7f_ffff_fff0, 0x20),
        (0x7f80_0000_0ff0, 0x20),
        (0x8000_0000_0ff0, 0x20),
        (0x40_2ff0, 0x7fff_ffff_f000),
    ] {
        let error = changed(|file| {
            file.headers[2].vaddr = vaddr;
            file.headers[2].memory_size = size;
        });
        assert!(matches!(error, ElfError::AddressNotAllowed { segment: 2, .. }), "{vaddr:#x}: {error}");
    }
}

#[test]
fn a_segment_without_access_is_refused() {
    says(
        changed(|file| file.headers[0].flags = 0),
        ElfError::NoAccess { segment: 0 },
        "segment 0 is neither readable, nor writable, nor executable",
    );
}

/// Row *ELF modules*: W+X segments.
#[test]
fn a_writable_and_executable_segment_is_refused() {
    for flags in [3, 7] {
        says(
            changed(|file| file.headers[1].flags = flags),
            ElfError::WritableAndExecutable { segment: 1 },
            "segment 1 is both writable and executable: separate text and data in the linker script",
        );
    }
}

/// Row *ELF modules*: overlapping segments.
#[test]
fn segments_that_share_a_page_are_refused() {
    // Text and data meet inside one page without sharing a byte.
    says(
        changed(|file| file.headers[2] = load(RW, 0x2400, 0x40_1400, 0x20, 0x20)),
        ElfError::Overlap { first: 1, second: 2, page: 0x40_1000 },
        "segments 1 and 2 share the page at 0x401000: align each segment to a page in the linker script",
    );
    // One inside another, whichever comes first in the file.
    for swap in [false, true] {
        let error = changed(|file| {
            file.headers[0].memory_size = 0x10_0000;
            if swap {
                file.headers.swap(0, 1);
            }
        });
        assert_eq!(error, ElfError::Overlap { first: 0, second: 1, page: 0x40_1000 });
    }
}

/// Row *ELF modules*: huge BSS.
#[test]
fn more_memory_than_granted_is_refused() {
    let bytes = program().bytes();
    assert!(Image::parse(&bytes, Policy::user(0x6000)).is_ok());
    let error = Image::parse(&bytes, Policy::user(0x5fff)).expect_err("one byte too many");
    says(
        error,
        ElfError::TooMuchMemory { needed: 0x6000, limit: 0x5fff },
        "the segments need 0x6000 bytes of memory or more, the limit is 0x5fff",
    );
    // A BSS as large as the address space allows.
    let error = changed(|file| file.headers[2].memory_size = 0x7f00_0000_0000);
    assert!(matches!(error, ElfError::TooMuchMemory { .. }));
}

/// Row *ELF modules*: entry outside text.
#[test]
fn an_entry_outside_text_is_refused() {
    says(
        changed(|file| file.entry = 0x40_0010),
        ElfError::EntryNotExecutable { entry: 0x40_0010 },
        "the entry point 0x400010 is not in the contents of an executable segment",
    );
    // Before and after the text, in the data, in the zeroes after the contents, far away.
    for entry in [0, 0x40_0fff, 0x40_1345, 0x40_3000, u64::MAX] {
        let error = changed(|file| {
            file.entry = entry;
            file.headers[1].memory_size = 0x800;
        });
        assert_eq!(error, ElfError::EntryNotExecutable { entry });
    }
    for entry in [0x40_1000, 0x40_1344] {
        let mut file = program();
        file.entry = entry;
        assert!(Image::parse(&file.bytes(), policy()).is_ok());
    }
}

/// The CPU driver's image: a low segment for the 32-bit entry, writable and executable, and the kernel proper.
fn kernel() -> File {
    let high = 0xffff_ffff_8020_0000;
    File {
        entry: high,
        headers: vec![
            load(7, 0x1000, 0x10_0000, 0x100, 0x8000),
            Header { paddr: 0x20_0000, ..load(RX, 0x1000, high, 0x800, 0x800) },
            Header { paddr: 0x20_1000, ..load(RW, 0x2000, high + 0x1000, 0x80, 0x4000) },
        ],
        length: 0x3000,
    }
}

#[test]
fn the_kernel_lives_in_the_top_2_gib() {
    let bytes = kernel().bytes();
    let image = Image::parse(&bytes, Policy::kernel(2 << 20)).expect("valid");
    let placed: Vec<_> =
        image.segments().map(|segment| (segment.vaddr, segment.paddr, segment.index)).collect();
    assert_eq!(placed, [(0xffff_ffff_8020_0000, 0x20_0000, 1), (0xffff_ffff_8020_1000, 0x20_1000, 2)]);
    // The segment left out takes none of the memory granted.
    assert!(Image::parse(&bytes, Policy::kernel(0x5000)).is_ok());
    let strict = Image::parse(&bytes, Policy::kernel(2 << 20).below(Below::Refuse));
    assert!(matches!(strict, Err(ElfError::AddressNotAllowed { segment: 0, .. })));
    let user = Image::parse(&bytes, policy());
    assert!(matches!(user, Err(ElfError::WritableAndExecutable { segment: 0 })));
    // Nothing but what would be left out.
    let error = Image::parse(&program().bytes(), Policy::kernel(2 << 20)).expect_err("a user program");
    says(
        error,
        ElfError::AddressNotAllowed { segment: 0, wanted: 0x40_0000..0x40_1000, allowed: Policy::KERNEL },
        "segment 0 wants 0x400000..0x401000, outside the allowed 0xffffffff80000000..0xfffffffffffff000: link it for \
         those addresses",
    );
    // A block that the image does not fit in, at either end.
    let block = 0xffff_ffff_8020_0000..0xffff_ffff_8020_4fff;
    let small = Image::parse(&bytes, Policy::kernel(2 << 20).at(block));
    assert!(matches!(small, Err(ElfError::AddressNotAllowed { segment: 2, .. })));
    let block = 0xffff_ffff_8020_0001..0xffff_ffff_8040_0000;
    let late = Image::parse(&bytes, Policy::kernel(2 << 20).at(block.clone()));
    assert!(matches!(late, Err(ElfError::AddressNotAllowed { segment: 1, .. })));
    assert_eq!(Policy::kernel(0).at(block.clone()).addresses(), block);
}

#[test]
fn a_kernel_that_reaches_the_last_page_is_refused() {
    let mut file = kernel();
    file.headers[2].vaddr = 0xffff_ffff_ffff_e000;
    file.headers[2].memory_size = 0x1000;
    assert!(Image::parse(&file.bytes(), Policy::kernel(2 << 20)).is_ok());
    file.headers[2].memory_size = 0x1001;
    let error = Image::parse(&file.bytes(), Policy::kernel(2 << 20)).expect_err("wraps");
    assert!(matches!(error, ElfError::AddressWraps { segment: 2, .. }));
}

/// What every loader relies on, checked the slow way.
fn assert_promises(image: &Image<'_>, policy: &Policy, limit: u64) {
    let segments: Vec<_> = image.segments().collect();
    assert!(!segments.is_empty() && segments.len() <= MAX_SEGMENTS);
    let mut pages = 0u128;
    let mut last_end = policy.addresses().start;
    for segment in &segments {
        let range = segment.page_range();
        assert!(last_end <= range.start && range.start < range.end && range.end <= policy.addresses().end);
        assert!(range.start <= segment.vaddr && segment.vaddr - range.start < PAGE_SIZE);
        assert!(u128::from(range.end) >= u128::from(segment.vaddr) + u128::from(segment.memory_size));
        assert!(segment.contents.len() as u64 <= segment.memory_size && segment.memory_size > 0);
        assert!(segment.align >= PAGE_SIZE && segment.align.is_power_of_two());
        last_end = range.end;
        pages += u128::from((range.end - range.start) / PAGE_SIZE);
        assert_eq!(segment.pages().len() as u64, (range.end - range.start) / PAGE_SIZE);
    }
    assert_eq!(pages * u128::from(PAGE_SIZE), u128::from(image.memory()));
    assert!(image.memory() <= limit);
    assert!(segments.iter().any(|segment| segment.access == Access::ReadExecute
        && (segment.vaddr..segment.vaddr + segment.contents.len() as u64).contains(&image.entry())));
}

fn check_any(file: &[u8]) {
    const LIMIT: u64 = 1 << 20;
    for policy in [Policy::user(LIMIT), Policy::kernel(LIMIT), Policy::user(LIMIT).at(0..u64::MAX)] {
        match Image::parse(file, policy.clone()) {
            Ok(image) => {
                assert_promises(&image, &policy, LIMIT);
                let mut page = [0; PAGE_SIZE as usize];
                for segment in image.segments() {
                    for address in segment.pages().take(64) {
                        segment.read(address, &mut page);
                    }
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// Numbers at which arithmetic goes wrong.
fn edgy() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0u64..0x8000,
        (0u64..64).prop_map(|bit| 1 << bit),
        (0u64..0x3000).prop_map(|down| u64::MAX - down),
        (0u64..0x10).prop_map(|page| 0x40_0000 + page * 0x800),
        (0u64..0x10).prop_map(|page| 0xffff_ffff_8020_0000 + page * 0x1000),
    ]
}

fn any_header() -> impl Strategy<Value = Header> {
    (
        prop_oneof![8 => Just(LOAD), 1 => 0u32..10],
        prop_oneof![Just(R), Just(RX), Just(RW), 0u32..8],
        (edgy(), edgy(), edgy(), edgy(), edgy()),
        prop_oneof![4 => Just(0x1000u64), 1 => edgy()],
        any::<bool>(),
    )
        .prop_map(|(kind, flags, (offset, vaddr, paddr, file_size, memory_size), align, tidy)| {
            let mut header = Header { kind, flags, offset, vaddr, paddr, file_size, memory_size, align };
            if tidy {
                // Mostly valid, so that the later checks are reached.
                header.offset = (offset % 0x3000) & !0xfff | (vaddr & 0xfff);
                header.file_size = file_size % 0x800;
                header.memory_size = header.file_size + memory_size % 0x4000;
            }
            header
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_never_panic(file in proptest::collection::vec(any::<u8>(), 0..512)) {
        check_any(&file);
        let mut file = file;
        for (byte, magic) in file.iter_mut().zip(*b"\x7fELF\x02\x01\x01\x00") {
            *byte = magic;
        }
        check_any(&file);
    }

    #[test]
    fn a_damaged_program_is_refused_or_keeps_the_promises(
        base in prop_oneof![Just(program()), Just(kernel())],
        damage in proptest::collection::vec((0usize..300, any::<u8>()), 0..6),
        cut in prop_oneof![3 => Just(usize::MAX), 1 => 0usize..0x3000],
    ) {
        let mut file = base.bytes();
        for (at, byte) in damage {
            file[at] = byte;
        }
        file.truncate(cut);
        check_any(&file);
    }

    #[test]
    fn any_program_headers_are_refused_or_keep_the_promises(
        entry in edgy(),
        headers in proptest::collection::vec(any_header(), 0..20),
    ) {
        check_any(&File { entry, headers, length: 0x4000 }.bytes());
    }

    #[test]
    fn reading_in_any_pieces_gives_the_same_memory(
        start in 0u64..0x5000, length in 0usize..0x2000, piece in 1usize..0x900,
    ) {
        let bytes = program().bytes();
        let image = Image::parse(&bytes, policy()).expect("valid");
        let data = image.segments().last().expect("three segments");
        let start = 0x40_0000 + start;
        let expected: Vec<u8> = (start..start + length as u64)
            .map(|address| match address.checked_sub(data.vaddr) {
                Some(offset) if offset < 0x20 => contents(0x2ff0 + offset as usize),
                _ => 0,
            })
            .collect();
        let mut whole = vec![0xee; length];
        data.read(start, &mut whole);
        prop_assert_eq!(&whole, &expected);
        let mut pieces = vec![0xee; length];
        for (index, chunk) in pieces.chunks_mut(piece).enumerate() {
            data.read(start + (index * piece) as u64, chunk);
        }
        prop_assert_eq!(pieces, expected);
    }
}
