//! The boot archive: all boot modules in one file.
//!
//! `qemu -kernel` and Limine both hand over files as they are, so the CPU driver's image, `init`, the monitor
//! and every service travel in one archive that the host command writes ([`writer`], feature `std`) and the
//! guest reads in place ([`Archive`]). All numbers are little-endian.
//!
//! ```text
//! offset  header, 32 bytes                 offset  table entry, 64 bytes each
//!      0  magic "KLFARCH\0"                     0  name, NUL-padded to 40 bytes
//!      8  version, u32                         40  offset from the start of the archive, u64
//!     12  number of modules, u32               48  length in bytes, u64
//!     16  length of the archive, u64           56  CRC-32 of the content, u32
//!     24  CRC-32 of the table, u32             60  0, u32
//!     28  0, u32
//! ```
//!
//! The table follows the header, its names strictly ascending. Contents follow in the table's order, each at a
//! multiple of [`MODULE_ALIGN`], so that a module can be mapped by itself where the archive lies on a page.
//!
//! The reader takes nothing on trust: any bytes are either an archive or one [`ArchiveError`], and no module
//! that it hands out reaches outside the archive or into another module.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![forbid(unsafe_code)]

mod crc;
mod error;
mod reader;
#[cfg(test)]
mod tests;
#[cfg(any(test, feature = "std"))]
pub mod writer;

pub use error::{ArchiveError, NameError};
pub use reader::{Archive, Module, Modules};

/// The first bytes of an archive.
pub const MAGIC: [u8; 8] = *b"KLFARCH\0";

/// The version of the format that this crate reads and writes.
pub const VERSION: u32 = 1;

/// Contents start at multiples of this many bytes from the start of the archive: a page.
pub const MODULE_ALIGN: usize = 4096;

/// The most modules in one archive; it bounds the reader's work on a hostile header.
pub const MAX_MODULES: usize = 256;

/// The longest name of a module, in bytes. At least one NUL follows in the table.
pub const MAX_NAME: usize = 39;

const HEADER_LEN: usize = 32;
const ENTRY_LEN: usize = 64;
const NAME_FIELD: usize = MAX_NAME + 1;

/// Whether `name` may name a module: 1 to [`MAX_NAME`] bytes of `a-z`, `0-9`, `_`, `-` and `.`.
///
/// # Errors
/// Says which of these does not hold.
pub fn check_name(name: &[u8]) -> Result<&str, NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME {
        return Err(NameError::TooLong);
    }
    let allowed = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.');
    match core::str::from_utf8(name) {
        Ok(text) if name.iter().all(allowed) => Ok(text),
        _ => Err(NameError::BadCharacter),
    }
}
