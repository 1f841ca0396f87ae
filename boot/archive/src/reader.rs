//! The reader: checks hostile bytes once, then hands out modules in place.

use crate::crc::crc32;
use crate::{
    ArchiveError, ENTRY_LEN, HEADER_LEN, MAGIC, MAX_MODULES, MODULE_ALIGN, NAME_FIELD, VERSION, check_name,
};

/// A checked archive, read in place.
#[derive(Debug, Clone, Copy)]
pub struct Archive<'a> {
    /// Exactly the archive: what follows it in the caller's bytes is cut off.
    bytes: &'a [u8],
    count: usize,
}

/// One module of an [`Archive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module<'a> {
    /// The name, unique in its archive.
    pub name: &'a str,
    /// Where the content begins, in bytes from the start of the archive: a multiple of
    /// [`MODULE_ALIGN`].
    pub offset: usize,
    /// The content.
    pub bytes: &'a [u8],
}

/// One entry of the table, with its numbers decoded and nothing checked.
struct Entry<'a> {
    name: &'a [u8],
    offset: u64,
    length: u64,
    checksum: u32,
    reserved: u32,
}

impl<'a> Archive<'a> {
    /// Checks all of `bytes`: the header, the table and every content. Bytes after the archive are ignored,
    /// because a boot loader may round a file's length up.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ArchiveError> {
        let archive = Self::parse_table(bytes)?;
        for index in 0..archive.count {
            let entry = archive.entry(index);
            if crc32(archive.content(&entry)) != entry.checksum {
                return Err(ArchiveError::ModuleChecksum { index });
            }
        }
        Ok(archive)
    }

    /// Checks the header and the table, but reads no content: for one who opens again what
    /// [`Archive::parse`] has accepted. What it hands out is within bounds all the same.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse_table(bytes: &'a [u8]) -> Result<Self, ArchiveError> {
        let header = bytes.first_chunk::<HEADER_LEN>().ok_or(ArchiveError::NoHeader { len: bytes.len() })?;
        if header[..8] != MAGIC {
            return Err(ArchiveError::BadMagic);
        }
        let version = u32_at(header, 8);
        if version != VERSION {
            return Err(ArchiveError::BadVersion { version });
        }
        let count = u32_at(header, 12);
        if count as usize > MAX_MODULES {
            return Err(ArchiveError::TooManyModules { count });
        }
        let count = count as usize;
        let stated = u64_at(header, 16);
        let truncated = ArchiveError::Truncated { expected: stated, len: bytes.len() };
        let length = usize::try_from(stated).map_err(|_| truncated)?;
        let bytes = bytes.get(..length).ok_or(truncated)?;
        let contents = HEADER_LEN + count * ENTRY_LEN;
        let table = bytes.get(HEADER_LEN..contents).ok_or(ArchiveError::NoTable { stated })?;
        if u32_at(header, 28) != 0 {
            return Err(ArchiveError::HeaderReserved);
        }
        if crc32(table) != u32_at(header, 24) {
            return Err(ArchiveError::TableChecksum);
        }
        let archive = Self { bytes, count };
        archive.check_entries(contents)?;
        Ok(archive)
    }

    /// The checks that make [`Self::module`] and [`Self::content`] safe to call for every entry.
    fn check_entries(&self, contents: usize) -> Result<(), ArchiveError> {
        let mut last_name = "";
        let mut last_end = contents as u64;
        for index in 0..self.count {
            let entry = self.entry(index);
            if entry.reserved != 0 {
                return Err(ArchiveError::EntryReserved { index });
            }
            let (name, padding) = split_name(entry.name);
            if padding.iter().any(|&b| b != 0) {
                return Err(ArchiveError::NamePadding { index });
            }
            let name = check_name(name).map_err(|error| ArchiveError::BadName { index, error })?;
            if name <= last_name {
                return Err(ArchiveError::NameOrder { index });
            }
            if !entry.offset.is_multiple_of(MODULE_ALIGN as u64) {
                return Err(ArchiveError::Unaligned { index, offset: entry.offset });
            }
            if entry.offset < last_end {
                return Err(ArchiveError::Overlap { index });
            }
            let end = entry.offset.checked_add(entry.length).ok_or(ArchiveError::OutOfBounds { index })?;
            if end > self.bytes.len() as u64 {
                return Err(ArchiveError::OutOfBounds { index });
            }
            (last_name, last_end) = (name, end);
        }
        Ok(())
    }

    /// The number of modules.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no module.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The length of the whole archive, in bytes.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// The module of that name, if there is one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Module<'a>> {
        self.modules().find(|module| module.name == name)
    }

    /// All modules, ascending by name.
    #[must_use]
    pub fn modules(&self) -> Modules<'a> {
        Modules { archive: *self, next: 0 }
    }

    /// Entry `index` of the table, which must exist.
    fn entry(&self, index: usize) -> Entry<'a> {
        let at = HEADER_LEN + index * ENTRY_LEN;
        let entry = &self.bytes[at..at + ENTRY_LEN];
        Entry {
            name: &entry[..NAME_FIELD],
            offset: u64_at(entry, 40),
            length: u64_at(entry, 48),
            checksum: u32_at(entry, 56),
            reserved: u32_at(entry, 60),
        }
    }

    /// The content of a checked entry.
    fn content(&self, entry: &Entry<'_>) -> &'a [u8] {
        &self.bytes[entry.offset as usize..(entry.offset + entry.length) as usize]
    }

    fn module(&self, index: usize) -> Module<'a> {
        let entry = self.entry(index);
        let name = core::str::from_utf8(split_name(entry.name).0).unwrap_or_default();
        Module { name, offset: entry.offset as usize, bytes: self.content(&entry) }
    }
}

/// The modules of an [`Archive`], ascending by name.
#[derive(Debug, Clone)]
pub struct Modules<'a> {
    archive: Archive<'a>,
    next: usize,
}

impl<'a> Iterator for Modules<'a> {
    type Item = Module<'a>;

    fn next(&mut self) -> Option<Module<'a>> {
        if self.next == self.archive.count {
            return None;
        }
        self.next += 1;
        Some(self.archive.module(self.next - 1))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.archive.count - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Modules<'_> {}

/// A name field, split before its first NUL.
fn split_name(field: &[u8]) -> (&[u8], &[u8]) {
    field.split_at(field.iter().position(|&b| b == 0).unwrap_or(field.len()))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}
