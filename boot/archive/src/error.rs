//! What can be wrong with an archive.

use core::fmt;

use crate::{MAGIC, MAX_MODULES, MAX_NAME, MODULE_ALIGN, VERSION};

/// Why bytes are not an archive. `index` is a position in the table, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArchiveError {
    /// Fewer bytes than a header.
    NoHeader {
        /// Bytes there are.
        len: usize,
    },
    /// The first bytes are not [`MAGIC`].
    BadMagic,
    /// Another version of the format.
    BadVersion {
        /// The version found.
        version: u32,
    },
    /// More than [`MAX_MODULES`] modules.
    TooManyModules {
        /// The number found.
        count: u32,
    },
    /// The archive is longer than the bytes given: it was cut off.
    Truncated {
        /// The length that the header states, in bytes.
        expected: u64,
        /// Bytes there are.
        len: usize,
    },
    /// The stated length does not hold the table.
    NoTable {
        /// The length that the header states, in bytes.
        stated: u64,
    },
    /// The table's checksum does not match.
    TableChecksum,
    /// A field that must be 0 in this version is not, in the header.
    HeaderReserved,
    /// A field that must be 0 in this version is not, in an entry.
    EntryReserved {
        /// The entry.
        index: usize,
    },
    /// A name is not allowed.
    BadName {
        /// The entry.
        index: usize,
        /// What is wrong with it.
        error: NameError,
    },
    /// Bytes other than NUL follow a name's first NUL.
    NamePadding {
        /// The entry.
        index: usize,
    },
    /// A name is not greater than the one before: twice the same, or out of order.
    NameOrder {
        /// The entry.
        index: usize,
    },
    /// A content does not start at a multiple of [`MODULE_ALIGN`].
    Unaligned {
        /// The entry.
        index: usize,
        /// The offset found, in bytes.
        offset: u64,
    },
    /// A content starts before the end of what comes before it: the table or another content.
    Overlap {
        /// The entry.
        index: usize,
    },
    /// A content ends past the end of the archive.
    OutOfBounds {
        /// The entry.
        index: usize,
    },
    /// A content's checksum does not match.
    ModuleChecksum {
        /// The entry.
        index: usize,
    },
}

/// Why bytes cannot name a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// No byte at all.
    Empty,
    /// More than [`MAX_NAME`] bytes.
    TooLong,
    /// A byte other than `a-z`, `0-9`, `_`, `-` and `.`.
    BadCharacter,
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "boot archive: ")?;
        match *self {
            Self::NoHeader { len } => write!(f, "{len} bytes are too few for a header"),
            Self::BadMagic => write!(f, "does not begin with {}", MAGIC.escape_ascii()),
            Self::BadVersion { version } => write!(f, "version {version}, but this reader knows {VERSION}"),
            Self::TooManyModules { count } => {
                write!(f, "{count} modules, but at most {MAX_MODULES} are allowed")
            }
            Self::Truncated { expected, len } => {
                write!(f, "{expected} bytes long, but only {len} were given")
            }
            Self::NoTable { stated } => {
                write!(f, "the stated length of {stated} bytes does not hold the table")
            }
            Self::TableChecksum => write!(f, "the table's checksum does not match"),
            Self::HeaderReserved => write!(f, "a reserved field of the header is not 0"),
            Self::EntryReserved { index } => write!(f, "a reserved field of entry {index} is not 0"),
            Self::BadName { index, error } => write!(f, "entry {index}: {error}"),
            Self::NamePadding { index } => write!(f, "the name of entry {index} is not padded with NUL"),
            Self::NameOrder { index } => {
                write!(f, "the name of entry {index} is a duplicate or out of order")
            }
            Self::Unaligned { index, offset } => {
                write!(f, "entry {index} starts at {offset}, which is no multiple of {MODULE_ALIGN}")
            }
            Self::Overlap { index } => write!(f, "entry {index} overlaps what comes before it"),
            Self::OutOfBounds { index } => write!(f, "entry {index} ends past the end of the archive"),
            Self::ModuleChecksum { index } => write!(f, "the checksum of entry {index} does not match"),
        }
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the name of a module is empty"),
            Self::TooLong => write!(f, "the name of a module is longer than {MAX_NAME} bytes"),
            Self::BadCharacter => {
                write!(f, "the name of a module has a character other than a-z, 0-9, '_', '-' and '.'")
            }
        }
    }
}

impl core::error::Error for ArchiveError {}
impl core::error::Error for NameError {}
