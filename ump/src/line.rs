//! [`Line`]: the 64 bytes of shared memory that everything else is made of.

use crate::primitive::AtomicU64;

/// Words in a line.
pub const WORDS: usize = 8;

/// Bytes in a line: the unit in which x86-64 processors move memory between caches
/// (Intel SDM volume 3A, section 13.1; AMD APM volume 2, section 7.3).
pub const LINE_BYTES: usize = 64;

/// One cache line of shared memory.
///
/// All its words are atomic, so whatever the other side stores and whenever it does, reading one is defined
/// behaviour.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Line {
    pub(crate) words: [AtomicU64; WORDS],
    #[cfg(loom)]
    pub(crate) access: crate::primitive::Access,
}

impl Line {
    /// A line of zeroes, for channels within one program; the operating system hands out zeroed frames.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self { words: [const { AtomicU64::new(0) }; WORDS] }
    }

    /// A line of zeroes, known to the model checker.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self { words: core::array::from_fn(|_| AtomicU64::new(0)), access: Default::default() }
    }

    /// The words themselves, for a test that plays a hostile peer or a debugger that prints a ring.
    ///
    /// Storing to a line of a live channel breaks its protocol, never memory safety.
    pub fn words(&self) -> &[AtomicU64; WORDS] {
        &self.words
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

// A loom atomic is a handle into the model and has another size.
#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Line>() == LINE_BYTES);
    assert!(align_of::<Line>() == LINE_BYTES);
    assert!(WORDS * size_of::<u64>() == LINE_BYTES);
};
