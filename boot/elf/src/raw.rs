//! The ELF64 headers as they lie in the file: bounds-checked reads of little-endian fields, and the checks of the
//! file header. What a program header means is decided in [`crate::image`].

use crate::error::{ElfError, Part};

/// The most program headers a file may have. A freestanding executable has about eight.
pub const MAX_PROGRAM_HEADERS: usize = 64;

const FILE_HEADER_SIZE: usize = 64;
const PROGRAM_HEADER_SIZE: u16 = 56;

const MAGIC: [u8; 4] = *b"\x7fELF";
const CLASS_64: u8 = 2;
const DATA_LITTLE_ENDIAN: u8 = 1;
const VERSION_CURRENT: u8 = 1;
const OS_ABI_SYSTEM_V: u8 = 0;
/// The linker writes this one where a file uses a GNU extension.
const OS_ABI_GNU: u8 = 3;
const TYPE_EXECUTABLE: u16 = 2;
const MACHINE_X86_64: u16 = 62;

/// What a program header describes (`p_type`).
pub(crate) mod segment_type {
    pub(crate) const LOAD: u32 = 1;
    pub(crate) const DYNAMIC: u32 = 2;
    pub(crate) const INTERPRETER: u32 = 3;
    pub(crate) const THREAD_LOCAL: u32 = 7;
}

/// The access rights of a segment (`p_flags`).
pub(crate) mod flag {
    pub(crate) const EXECUTE: u32 = 1;
    pub(crate) const WRITE: u32 = 2;
    pub(crate) const READ: u32 = 4;
}

/// The fields of the file header that loading needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileHeader<'a> {
    pub(crate) entry: u64,
    /// The program headers, each [`PROGRAM_HEADER_SIZE`] bytes.
    table: &'a [u8],
}

/// One program header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProgramHeader {
    pub(crate) kind: u32,
    pub(crate) flags: u32,
    pub(crate) offset: u64,
    pub(crate) vaddr: u64,
    pub(crate) paddr: u64,
    pub(crate) file_size: u64,
    pub(crate) memory_size: u64,
    pub(crate) align: u64,
}

/// The `N` bytes from `AT` of a header of `SIZE` bytes; that they are all there is checked when this is compiled.
fn field<const AT: usize, const N: usize, const SIZE: usize>(header: &[u8; SIZE]) -> [u8; N] {
    const { assert!(AT + N <= SIZE) };
    core::array::from_fn(|index| header[AT + index])
}

fn half<const AT: usize, const SIZE: usize>(header: &[u8; SIZE]) -> u16 {
    u16::from_le_bytes(field::<AT, 2, SIZE>(header))
}

fn word<const AT: usize, const SIZE: usize>(header: &[u8; SIZE]) -> u32 {
    u32::from_le_bytes(field::<AT, 4, SIZE>(header))
}

fn long<const AT: usize, const SIZE: usize>(header: &[u8; SIZE]) -> u64 {
    u64::from_le_bytes(field::<AT, 8, SIZE>(header))
}

/// The bytes `offset .. offset + size` of the file, if they are all there.
pub(crate) fn slice(file: &[u8], offset: u64, size: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let end = usize::try_from(offset.checked_add(size)?).ok()?;
    file.get(start..end)
}

impl<'a> FileHeader<'a> {
    /// Reads and checks the file header.
    pub(crate) fn read(file: &'a [u8]) -> Result<Self, ElfError> {
        // The magic number comes first, so that a short file of another kind is called what it is.
        if file.first_chunk() != Some(&MAGIC) {
            return Err(ElfError::NotElf);
        }
        let Some(header) = file.first_chunk::<FILE_HEADER_SIZE>() else {
            return Err(ElfError::Truncated { part: Part::FileHeader, length: file.len() });
        };
        if header[4] != CLASS_64 {
            return Err(ElfError::NotClass64 { class: header[4] });
        }
        if header[5] != DATA_LITTLE_ENDIAN {
            return Err(ElfError::NotLittleEndian { data: header[5] });
        }
        if header[6] != VERSION_CURRENT {
            return Err(ElfError::UnknownVersion { version: header[6] });
        }
        if !matches!(header[7], OS_ABI_SYSTEM_V | OS_ABI_GNU) {
            return Err(ElfError::ForeignAbi { abi: header[7] });
        }
        let kind = half::<16, _>(header);
        let machine = half::<18, _>(header);
        let entry = long::<24, _>(header);
        let table_offset = long::<32, _>(header);
        let entry_size = half::<54, _>(header);
        let count = half::<56, _>(header);

        if machine != MACHINE_X86_64 {
            return Err(ElfError::ForeignMachine { machine });
        }
        if kind != TYPE_EXECUTABLE {
            return Err(ElfError::NotStaticExecutable { kind });
        }
        if count == 0 {
            return Err(ElfError::NoSegments);
        }
        if entry_size != PROGRAM_HEADER_SIZE {
            return Err(ElfError::BadProgramHeaderSize { size: entry_size });
        }
        if usize::from(count) > MAX_PROGRAM_HEADERS {
            return Err(ElfError::TooManyProgramHeaders { count });
        }
        let size = u64::from(count) * u64::from(PROGRAM_HEADER_SIZE);
        let table = slice(file, table_offset, size)
            .ok_or(ElfError::Truncated { part: Part::ProgramHeaders, length: file.len() })?;
        Ok(Self { entry, table })
    }

    /// The program headers in the file's order.
    pub(crate) fn program_headers(&self) -> impl Iterator<Item = ProgramHeader> + use<'a> {
        let (headers, _) = self.table.as_chunks::<{ PROGRAM_HEADER_SIZE as usize }>();
        headers.iter().map(ProgramHeader::read)
    }
}

impl ProgramHeader {
    fn read(header: &[u8; PROGRAM_HEADER_SIZE as usize]) -> Self {
        Self {
            kind: word::<0, _>(header),
            flags: word::<4, _>(header),
            offset: long::<8, _>(header),
            vaddr: long::<16, _>(header),
            paddr: long::<24, _>(header),
            file_size: long::<32, _>(header),
            memory_size: long::<40, _>(header),
            align: long::<48, _>(header),
        }
    }
}
