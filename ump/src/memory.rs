//! The way in for shared memory: the only `unsafe` code of the crate.

#![allow(unsafe_code)]

use core::fmt;

use crate::line::Line;
use crate::notify::Ring;
use crate::outbox::Outbox;

/// Why an address range cannot serve as shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryError {
    /// The address is not a multiple of the alignment needed.
    Misaligned {
        /// The address given.
        address: usize,
        /// What it must be a multiple of, in bytes.
        alignment: usize,
    },
    /// The range is too short.
    TooSmall {
        /// Its length in bytes.
        bytes: usize,
        /// The least length in bytes.
        needed: usize,
    },
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misaligned { address, alignment } => {
                write!(f, "shared memory at {address:#x} must start at a multiple of {alignment} bytes")
            }
            Self::TooSmall { bytes, needed } => {
                write!(f, "shared memory of {bytes} bytes is too small: give it at least {needed}")
            }
        }
    }
}

impl core::error::Error for MemoryError {}

/// Checks that `bytes` bytes at `base` can hold a `T`-aligned object of `needed` bytes.
fn check<T>(base: *const u8, bytes: usize, needed: usize) -> Result<(), MemoryError> {
    let (address, alignment) = (base.addr(), align_of::<T>());
    if !address.is_multiple_of(alignment) {
        return Err(MemoryError::Misaligned { address, alignment });
    }
    if bytes < needed {
        return Err(MemoryError::TooSmall { bytes, needed });
    }
    Ok(())
}

/// The whole lines among `bytes` bytes of shared memory at `base`.
///
/// # Errors
/// [`MemoryError`] if `base` is not 64-byte aligned or there is not even one line.
///
/// # Safety
/// For the whole of `'m`, the `bytes` bytes at `base` are mapped readable, they are mapped writable unless
/// the lines are only read, and no Rust code of this program accesses them other than by atomic operations
/// of 8 bytes. Other domains and devices may write anything there at any time.
pub(crate) unsafe fn lines<'m>(base: *const u8, bytes: usize) -> Result<&'m [Line], MemoryError> {
    check::<Line>(base, bytes, size_of::<Line>())?;
    // SAFETY: the range is mapped for 'm (caller), aligned and not null since `check` passed on a mapped
    // range, and `bytes / 64` lines lie in it. Any bit pattern is a `Line`, all of whose bytes are in atomic
    // cells, so a shared reference allows the concurrent stores; the caller rules out non-atomic ones.
    Ok(unsafe { core::slice::from_raw_parts(base.cast(), bytes / size_of::<Line>()) })
}

/// The outbox in the `bytes` bytes of shared memory at `base`.
///
/// # Errors
/// [`MemoryError`] if `base` is not 128-byte aligned or `bytes` is less than the size of an outbox.
///
/// # Safety
/// As for [`lines`].
pub(crate) unsafe fn outbox<'m, const N: usize>(
    base: *const u8,
    bytes: usize,
) -> Result<&'m Outbox<N>, MemoryError> {
    check::<Outbox<N>>(base, bytes, size_of::<Outbox<N>>())?;
    // SAFETY: the range is mapped for 'm (caller), aligned, large enough, and not null since `check` passed
    // on a mapped range. Any bit pattern is an `Outbox`, and every byte of it, but for padding that is never
    // accessed, is in an atomic cell, so a shared reference allows the concurrent stores; the caller rules
    // out non-atomic ones.
    Ok(unsafe { &*base.cast() })
}

/// The ring of notifications in the `bytes` bytes of shared memory at `base`.
///
/// # Errors
/// [`MemoryError`] if `base` is not 64-byte aligned or `bytes` is less than the size of the ring.
///
/// # Safety
/// As for [`lines`].
pub(crate) unsafe fn ring<'m, const LINES: usize>(
    base: *const u8,
    bytes: usize,
) -> Result<&'m Ring<LINES>, MemoryError> {
    check::<Ring<LINES>>(base, bytes, size_of::<Ring<LINES>>())?;
    // SAFETY: the range is mapped for 'm (caller), aligned, large enough, and not null since `check` passed
    // on a mapped range. Any bit pattern is a `Ring`, all of whose bytes are in atomic cells, so a shared
    // reference allows the concurrent stores; the caller rules out non-atomic ones.
    Ok(unsafe { &*base.cast() })
}
