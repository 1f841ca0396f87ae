//! The capability database of one core, as a pure crate.
//!
//! Every capability lies in a 128-byte slot (a [`Cte`]) of a CNode, and a slot is known by the physical
//! address of its memory ([`SlotAddr`]). The database, [`CapDb`], is a balanced tree threaded through the
//! slots: it allocates nothing and owns nothing but its root. Memory comes through [`Slots`]; what must
//! happen to an object when it is made or goes comes through [`Objects`].
//!
//! * [`cte`]: the slot, the capability in it, and their marks;
//! * [`tree`]: the order of the capabilities, and the searches in it;
//! * [`lookup`]: from a capability reference to a slot;
//! * [`db`]: [`CapDb`] itself, copy, mint, mapping, identify, and the capabilities that the kernel makes;
//! * [`retype`]: making objects: reserve, zero, commit;
//! * [`delete`]: deleting a capability, and the object with its last one;
//! * [`revoke`]: deleting all descendants and copies;
//! * [`audit`]: checking all of it.
//!
//! # Long operations
//! Each call works within a [`Budget`] and answers [`Again`](lmp::SysError::Again) when it is spent. What is
//! unfinished is recorded in the slots and in [`CapDb`], never on a stack, so whoever invokes the operation
//! again goes on with it, and [`CapDb::clean`] finishes what nobody can name any more. Every other refusal
//! leaves all slots as they were.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(test)]
extern crate std;

pub mod audit;
pub mod cte;
pub mod db;
pub mod delete;
pub mod lookup;
pub mod objects;
pub mod retype;
pub mod revoke;
pub mod tree;

pub use audit::{AuditCursor, AuditError, AuditProgress, MappingSearch, Maps};
pub use cte::{Capability, CoreId, Cte, Mapping, Mark, Remote, SlotAddr, Slots};
pub use db::{CapDb, Identity, MappingRange};
pub use lookup::{CNode, CSpace, Level, Place};
pub use objects::{Budget, Objects, Progress, Unmap};
pub use retype::Request;
