//! [`Entries`]: which entries of the table of notifications are in use.

use alloc::collections::VecDeque;

/// The entry of the monitor itself.
pub const OWN_ENTRY: u8 = 0;

/// The free entries of the table that the links of other cores signal; entry 0 is the monitor's own.
///
/// An entry that was given back is used again last: a peer that kept the capability for it can then raise only
/// an event too many, and late.
pub(crate) struct Entries {
    free: VecDeque<u8>,
}

impl core::fmt::Debug for Entries {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} entries in use", self.in_use())
    }
}

impl Entries {
    pub(crate) fn new() -> Entries {
        Entries { free: (OWN_ENTRY + 1..=u8::MAX).collect() }
    }

    pub(crate) fn take(&mut self) -> Option<u8> {
        self.free.pop_front()
    }

    pub(crate) fn give_back(&mut self, entry: u8) {
        self.free.push_back(entry);
    }

    pub(crate) fn in_use(&self) -> usize {
        usize::from(u8::MAX) - self.free.len()
    }
}
