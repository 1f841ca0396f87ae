//! A validating reader of static x86-64 executables in the ELF64 format.
//!
//! Three loaders use it: the CPU driver for `init`, the CPU driver for the instance of its own image that another
//! core gets, and user domains that spawn others. All of them map page by page with fixed access rights, so
//! [`Image::parse`] decides once whether a file can be loaded that way; whatever it accepts, a loader can map
//! without further checks:
//!
//! - every address lies in the range that the [`Policy`] allows, page-rounded, and no sum wraps around;
//! - no two segments share a page, and no segment is writable and executable;
//! - the contents of each segment lie inside the file and are no larger than its memory;
//! - all segments together need no more memory than the policy grants;
//! - the entry point lies in executable contents of the file.
//!
//! The file is untrusted. Parsing reads a bounded number of headers, never allocates and never panics.
//!
//! The layout is that of the *System V ABI*, chapters 4 and 5 (ELF-64 Object File Format), and of the *System V
//! ABI, AMD64 Architecture Processor Supplement*.
//!
//! ```
//! # fn demo(file: &[u8]) -> Result<(), boot_elf::ElfError> {
//! use boot_elf::{Image, PAGE_SIZE, Policy};
//!
//! let image = Image::parse(file, Policy::user(16 << 20))?;
//! let mut page = [0u8; PAGE_SIZE as usize];
//! for segment in image.segments() {
//!     for address in segment.pages() {
//!         segment.read(address, &mut page); // what the page holds when the program starts
//!         // … map `page` at `address` with `segment.access`
//!     }
//! }
//! // … start at `image.entry()`
//! # Ok(())
//! # }
//! ```

#![no_std]
#![forbid(unsafe_code)]

mod error;
mod image;
mod raw;

#[cfg(test)]
mod tests;

pub use error::{ElfError, Part};
pub use image::{Access, Below, Image, MAX_SEGMENTS, Pages, Policy, Segment};
pub use raw::MAX_PROGRAM_HEADERS;

/// Bytes in the page that segments are mapped by.
pub const PAGE_SIZE: u64 = 4096;
