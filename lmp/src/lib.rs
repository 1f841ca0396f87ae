//! Local message passing and the kernel ABI: everything a domain and its CPU driver agree on.
//!
//! * [`cptr`]: capability references and the slots every domain starts with;
//! * [`objects`]: the one table of capability types, and rights;
//! * [`invocation`]: the operations on each type and their registers;
//! * [`arguments`]: the words of those on slots and page tables, typed;
//! * [`error`]: the status codes a system call returns;
//! * [`buffer`]: where the next message goes in an endpoint's buffer;
//! * [`frame`]: the dispatcher frame, through which upcalls and save areas pass;
//! * [`start`]: what a new domain finds in memory;
//! * [`layout`]: the virtual address space;
//! * [`syscall`] (x86-64 only): the user-side system calls, typed;
//! * [`message`] (x86-64 only): those that send and receive.
//!
//! The crate holds no state and is shared by the CPU driver, every domain and the host's tests.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod arguments;
pub mod buffer;
pub mod cptr;
pub mod error;
pub mod frame;
pub mod invocation;
pub mod layout;
#[cfg(target_arch = "x86_64")]
pub mod message;
pub mod objects;
pub mod start;
#[cfg(target_arch = "x86_64")]
pub mod syscall;

/// The number of a core: dense, 0 for the one that booted the machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct CoreId(pub u16);

impl core::fmt::Display for CoreId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}

pub use cptr::{CPtr, SlotRef};
pub use error::{SysError, SysResult};
pub use objects::{ObjType, Rights};
