//! What is done with hostile input, for the fuzzer and for `cargo test` alike.
//!
//! Each function takes any bytes, gives them to the code under test, and panics where a promise is broken:
//!
//! * [`elf`]: the reader of executables;
//! * [`database`]: the capability database, driven by invocations with arbitrary register words;
//! * [`invocation`]: the decoding of those words alone.
//!
//! `fuzz/` wraps them for libFuzzer, with one target of the same name for each of [`TARGETS`] and its corpus in
//! `fuzz/corpus`; the tests of this crate replay every file of that.

mod database;
mod elf;
mod input;
mod invocation;
#[path = "../../../cpudriver/caps/tests/common/mod.rs"]
mod machine;

pub use database::database;
pub use elf::elf;
pub use invocation::invocation;

/// A body by name.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name, also that of the corpus.
    pub name: &'static str,
    /// What is done with an input.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "elf", run: elf },
    Target { name: "database", run: database },
    Target { name: "invocation", run: invocation },
];
