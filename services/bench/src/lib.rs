//! What the benchmark domains share. Each benchmark is a binary in `src/bin`; the harness is `runtime::bench`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod jobs;
pub mod lmp;
pub mod peers;

use boot_archive::Archive;
use runtime::Env;
use runtime::bench::BenchError;

/// The file of a further domain that a benchmark starts.
///
/// # Errors
/// If this domain has no archive, or the archive no such module.
pub fn module(env: &Env, name: &'static str) -> Result<&'static [u8], BenchError> {
    let archive = env.archive().and_then(|bytes| Archive::parse_table(bytes).ok());
    archive.and_then(|a| a.get(name)).map(|m| m.bytes).ok_or(BenchError::NoModule(name))
}
