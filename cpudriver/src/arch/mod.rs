//! The hardware: everything that needs privileged instructions, assembly or raw memory.
//!
//! The rest of the CPU driver is ordinary Rust on top of these small modules.

pub(crate) mod apic;
pub(crate) mod cpu;
pub(crate) mod entry;
mod exchange;
pub(crate) mod io;
pub(crate) mod link_area;
pub(crate) mod paging;
pub(crate) mod segments;
pub(crate) mod serial;
pub(crate) mod user;
pub(crate) mod window;
