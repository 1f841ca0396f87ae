//! Why a file was refused: one variant per cause, each with a message that says what to do.

use core::fmt;
use core::ops::Range;

use crate::image::MAX_SEGMENTS;
use crate::raw::MAX_PROGRAM_HEADERS;

/// A part of the file that was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The 64 bytes at the start of the file.
    FileHeader,
    /// The table of program headers.
    ProgramHeaders,
}

/// Why a file cannot be loaded. Segments are numbered by their program header, counting from 0, as `readelf -l`
/// lists them; addresses and sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ElfError {
    /// The file does not begin with the ELF magic number.
    NotElf,
    /// A header lies outside the file.
    Truncated {
        /// What is not all there.
        part: Part,
        /// The length of the file.
        length: usize,
    },
    /// `EI_CLASS` is not ELFCLASS64.
    NotClass64 {
        /// The class in the file.
        class: u8,
    },
    /// `EI_DATA` is not ELFDATA2LSB.
    NotLittleEndian {
        /// The encoding in the file.
        data: u8,
    },
    /// `EI_VERSION` is not EV_CURRENT.
    UnknownVersion {
        /// The version in the file.
        version: u8,
    },
    /// `EI_OSABI` is neither System V nor GNU.
    ForeignAbi {
        /// The ABI in the file.
        abi: u8,
    },
    /// `e_machine` is not EM_X86_64.
    ForeignMachine {
        /// The machine in the file.
        machine: u16,
    },
    /// `e_type` is not ET_EXEC.
    NotStaticExecutable {
        /// The type in the file.
        kind: u16,
    },
    /// `e_phentsize` is not that of ELF64.
    BadProgramHeaderSize {
        /// The size in the file.
        size: u16,
    },
    /// There are more program headers than [`MAX_PROGRAM_HEADERS`].
    TooManyProgramHeaders {
        /// How many the file says it has.
        count: u16,
    },
    /// There are more loadable segments than [`MAX_SEGMENTS`].
    TooManySegments,
    /// Nothing in the file is to be loaded.
    NoSegments,
    /// The program wants a dynamic linker.
    DynamicallyLinked {
        /// The program header that says so.
        segment: usize,
    },
    /// The program has thread-local variables, for which no loader sets up storage.
    ThreadLocalStorage {
        /// The program header that says so.
        segment: usize,
    },
    /// The alignment is not a power of two of at least a page.
    BadAlignment {
        /// The program header.
        segment: usize,
        /// Its alignment.
        align: u64,
    },
    /// The file offset and the address differ modulo the alignment.
    NotCongruent {
        /// The program header.
        segment: usize,
        /// Its offset in the file.
        offset: u64,
        /// Its address.
        vaddr: u64,
        /// Its alignment.
        align: u64,
    },
    /// The memory is smaller than the contents that go there.
    MemorySmallerThanContents {
        /// The program header.
        segment: usize,
        /// The size in memory.
        memory: u64,
        /// The size in the file.
        contents: u64,
    },
    /// The contents lie outside the file.
    ContentsOutsideFile {
        /// The program header.
        segment: usize,
        /// The offset of the contents.
        offset: u64,
        /// Their size.
        size: u64,
        /// The length of the file.
        length: usize,
    },
    /// The segment goes past the end of the address space.
    AddressWraps {
        /// The program header.
        segment: usize,
        /// Its address.
        vaddr: u64,
        /// Its size in memory.
        size: u64,
    },
    /// The segment lies outside the addresses that the policy allows, such as in the kernel's half.
    AddressNotAllowed {
        /// The program header.
        segment: usize,
        /// The addresses it wants, rounded to pages.
        wanted: Range<u64>,
        /// The addresses it may use.
        allowed: Range<u64>,
    },
    /// The segment is neither readable, nor writable, nor executable.
    NoAccess {
        /// The program header.
        segment: usize,
    },
    /// The segment is both writable and executable.
    WritableAndExecutable {
        /// The program header.
        segment: usize,
    },
    /// Two segments share a page.
    Overlap {
        /// The earlier of the two program headers.
        first: usize,
        /// The later one.
        second: usize,
        /// The address of the first page they share.
        page: u64,
    },
    /// The segments together need more memory than the policy grants.
    TooMuchMemory {
        /// The bytes needed up to and including the segment that broke the limit, rounded to pages.
        needed: u64,
        /// The bytes granted.
        limit: u64,
    },
    /// The entry point does not lie in the contents of an executable segment.
    EntryNotExecutable {
        /// The address of the entry point.
        entry: u64,
    },
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FileHeader => "ELF header",
            Self::ProgramHeaders => "table of program headers",
        })
    }
}

impl fmt::Display for ElfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotElf => f.write_str("not an ELF file: it does not begin with 7f 45 4c 46"),
            Self::Truncated { part, length } => {
                write!(
                    f,
                    "the {part} does not fit in the file of {length} bytes: the file is cut off or damaged"
                )
            }
            Self::NotClass64 { class } => write!(f, "ELF class {class}, not 2 (64-bit): build for x86_64"),
            Self::NotLittleEndian { data } => {
                write!(f, "ELF data encoding {data}, not 1 (little-endian): build for x86_64")
            }
            Self::UnknownVersion { version } => write!(f, "ELF version {version}, not 1"),
            Self::ForeignAbi { abi } => {
                write!(f, "ELF OS ABI {abi}, neither 0 (System V) nor 3 (GNU): built for another system")
            }
            Self::ForeignMachine { machine } => {
                write!(f, "ELF machine {machine}, not 62 (x86-64): build for x86_64")
            }
            Self::NotStaticExecutable { kind } => write!(
                f,
                "ELF type {kind}, not 2 (executable): link it with -static -no-pie (3 is a shared object or a \
                 position-independent executable)"
            ),
            Self::BadProgramHeaderSize { size } => {
                write!(f, "program headers of {size} bytes, not 56: the file is damaged")
            }
            Self::TooManyProgramHeaders { count } => {
                write!(f, "{count} program headers, more than the {MAX_PROGRAM_HEADERS} that are read")
            }
            Self::TooManySegments => {
                write!(f, "more than {MAX_SEGMENTS} loadable segments: merge sections in the linker script")
            }
            Self::NoSegments => {
                f.write_str("no loadable segment: link it as an executable, not as an object")
            }
            Self::DynamicallyLinked { segment } => {
                write!(f, "segment {segment} asks for a dynamic linker: link it with -static -no-pie")
            }
            Self::ThreadLocalStorage { segment } => {
                write!(f, "segment {segment} holds thread-local variables, which no loader here sets up")
            }
            Self::BadAlignment { segment, align } => write!(
                f,
                "segment {segment} is aligned to {align:#x}, which is not a power of two of at least 0x1000: link \
                 it with -z max-page-size=0x1000"
            ),
            Self::NotCongruent { segment, offset, vaddr, align } => write!(
                f,
                "segment {segment} has offset {offset:#x} and address {vaddr:#x}, which differ modulo its \
                 alignment {align:#x}"
            ),
            Self::MemorySmallerThanContents { segment, memory, contents } => write!(
                f,
                "segment {segment} puts {contents:#x} bytes of contents into {memory:#x} bytes of memory"
            ),
            Self::ContentsOutsideFile { segment, offset, size, length } => write!(
                f,
                "segment {segment} takes {size:#x} bytes from offset {offset:#x} of a file of {length:#x} bytes: \
                 the file is cut off or damaged"
            ),
            Self::AddressWraps { segment, vaddr, size } => write!(
                f,
                "segment {segment} of {size:#x} bytes at {vaddr:#x} goes past the end of the address space"
            ),
            Self::AddressNotAllowed { segment, wanted, allowed } => write!(
                f,
                "segment {segment} wants {:#x}..{:#x}, outside the allowed {:#x}..{:#x}: link it for those \
                 addresses",
                wanted.start, wanted.end, allowed.start, allowed.end
            ),
            Self::NoAccess { segment } => {
                write!(f, "segment {segment} is neither readable, nor writable, nor executable")
            }
            Self::WritableAndExecutable { segment } => write!(
                f,
                "segment {segment} is both writable and executable: separate text and data in the linker script"
            ),
            Self::Overlap { first, second, page } => write!(
                f,
                "segments {first} and {second} share the page at {page:#x}: align each segment to a page in the \
                 linker script"
            ),
            Self::TooMuchMemory { needed, limit } => {
                write!(f, "the segments need {needed:#x} bytes of memory or more, the limit is {limit:#x}")
            }
            Self::EntryNotExecutable { entry } => {
                write!(f, "the entry point {entry:#x} is not in the contents of an executable segment")
            }
        }
    }
}

impl core::error::Error for ElfError {}
