//! [`Local`]: a static variable of a domain, which has one thread.

use core::cell::Cell;

/// A cell that a static may hold, because no two threads of a domain exist.
///
/// An upcall may run between any two instructions, so a value must be read and written whole: `Cell` offers
/// nothing else, and values here are at most a word.
pub(crate) struct Local<T>(Cell<T>);

// SAFETY: a domain has exactly one dispatcher, and that runs on one core: the accesses of upcalls and of the
// code they interrupt never overlap but for an upcall that begins and ends between two of them.
unsafe impl<T: Copy> Sync for Local<T> {}

impl<T: Copy> Local<T> {
    pub(crate) const fn new(value: T) -> Local<T> {
        Local(Cell::new(value))
    }

    pub(crate) fn get(&self) -> T {
        self.0.get()
    }

    pub(crate) fn set(&self, value: T) {
        self.0.set(value);
    }
}
