//! [`Local`] and [`domain_local!`]: static variables of a domain, which has one thread.

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

/// A static of any type, for code that no upcall runs. The host's tests have many threads, hence a macro:
/// there it is a `thread_local!`.
#[cfg(not(test))]
macro_rules! domain_local {
    ($(#[$doc:meta])* static $name:ident: $type:ty = $value:expr;) => {
        $(#[$doc])*
        static $name: $crate::local::Single<$type> = $crate::local::Single::new($value);
    };
}

#[cfg(test)]
macro_rules! domain_local {
    ($(#[$doc:meta])* static $name:ident: $type:ty = $value:expr;) => {
        std::thread_local! {
            $(#[$doc])*
            static $name: $type = const { $value };
        }
    };
}

pub(crate) use domain_local;

/// What [`domain_local!`] makes.
#[cfg(not(test))]
pub(crate) struct Single<T>(T);

// SAFETY: a domain has one thread, and upcalls use nothing that `domain_local!` declares: they run fault
// handlers only, which touch neither the heap nor anything of this kind.
#[cfg(not(test))]
unsafe impl<T> Sync for Single<T> {}

#[cfg(not(test))]
impl<T> Single<T> {
    pub(crate) const fn new(value: T) -> Single<T> {
        Single(value)
    }

    /// Calls `f` with the value; named as in `std::thread::LocalKey`.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        f(&self.0)
    }
}
