//! The user side of a dispatcher: what every domain links.
//!
//! * [`start`] and [`entry!`]: from the first instruction to the domain's `main`, and to its end;
//! * [`upcall`]: where the CPU driver enters the domain, and how it goes on from a save area;
//! * [`events`] and [`bells`]: the bits by which what happens elsewhere reaches this domain;
//! * [`waitset`]: waiting for channels, endpoints, bells and deadlines at once; [`executor`]: tasks on top of one;
//! * [`channel`]: UMP channels; [`endpoint`]: LMP messages and calls; [`monitor`]: where both come from, and the
//!   other services of the monitor;
//! * [`memory`]: RAM, capability slots, page tables and mappings, all by invocations on the domain's own
//!   capabilities, with an account of every byte;
//! * [`mod@audit`]: having this core check itself;
//! * [`mod@output`]: [`print!`], [`println!`] and result records through the domain's console stream;
//! * [`spawn`]: new domains from ELF files, and their end;
//! * [`mod@bench`]: measuring an operation so that the number means what it says.
//!
//! A domain has one thread. Upcalls run disabled on a stack of their own, touch no heap, and end by resuming
//! what they interrupted.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod audit;
pub mod bells;
pub mod bench;
pub mod channel;
pub mod directory;
pub mod endpoint;
pub mod env;
pub mod events;
pub mod executor;
pub mod heap;
pub mod interface;
mod local;
pub mod memory;
pub mod monitor;
pub mod output;
pub mod spawn;
pub mod start;
pub mod time;
mod timers;
pub mod upcall;
pub mod vector;
pub mod waitset;

pub use env::Env;
pub use lmp;
